//! Requests and answers: what is done to the bytes of a frame.
//!
//! Bound by branches; a decoded array stays where it is, and each walk over it decodes its elements again.

use std::borrow::Cow;
use std::hint::black_box;

use milena_server::protocol::messages::fetch::{
    FetchPartition, FetchRequest, FetchResponse, FetchTopic, FetchablePartitionResponse,
    FetchableTopicResponse,
};
use milena_server::protocol::messages::metadata::{
    MetadataRequest, MetadataRequestTopic, MetadataResponse, MetadataResponseBroker,
    MetadataResponsePartition, MetadataResponseTopic,
};
use milena_server::protocol::messages::produce::{PartitionProduceData, ProduceRequest, TopicProduceData};
use milena_server::protocol::{ApiKey, Message, Payload, Reader, RequestHeader, ResponseHeader, Writer};

use super::{Step, Work};
use crate::inputs;
use milena_engine::config::Codec;

const TOPICS: [&str; 4] = ["orders", "payments", "shipments", "clicks-by-region"];
const PARTITIONS_PER_TOPIC: i32 = 25;
const PARTITION_COUNT: u32 = 100;
const METADATA_VERSION: i16 = 9;
const PRODUCE_VERSION: i16 = 8;
const FETCH_VERSION: i16 = 11;

/// On the way in.
pub(super) const REQUESTS: &[Step] = &[
    Step {
        name: "header_parse",
        unit: "header",
        units_per_run: 1,
        runs: 1000,
        prepare: header_parse,
    },
    Step {
        name: "metadata_request_decode",
        unit: "topic",
        units_per_run: TOPICS.len() as u32,
        runs: 500,
        prepare: metadata_request_decode,
    },
    Step {
        name: "produce_request_decode",
        unit: "partition",
        units_per_run: TOPICS.len() as u32,
        runs: 500,
        prepare: produce_request_decode,
    },
    Step {
        name: "fetch_request_decode",
        unit: "partition",
        units_per_run: PARTITION_COUNT,
        runs: 50,
        prepare: fetch_request_decode,
    },
];

/// On the way out.
pub(super) const ANSWERS: &[Step] = &[
    Step {
        name: "fetch_answer_encode",
        unit: "partition",
        units_per_run: PARTITION_COUNT,
        runs: 50,
        prepare: fetch_answer_encode,
    },
    Step {
        name: "metadata_answer_encode",
        unit: "partition",
        units_per_run: PARTITION_COUNT,
        runs: 50,
        prepare: metadata_answer_encode,
    },
];

fn encoded<'m>(message: &impl Message<'m>, version: i16) -> Vec<u8> {
    let mut writer = Writer::new();
    message
        .encode(&mut writer, version)
        .expect("this version can say it");
    writer.take().0.to_vec()
}

fn header_parse() -> Work {
    let header = RequestHeader {
        api_key: ApiKey::Produce,
        api_version: PRODUCE_VERSION,
        correlation_id: 42,
        client_id: Some("producer-1".into()),
    };
    let mut writer = Writer::new();
    header.encode(&mut writer).expect("a short client id");
    let bytes = writer.take().0;
    Box::new(move || {
        let mut reader = Reader::new(black_box(&bytes));
        black_box(RequestHeader::decode(&mut reader).expect("a sound header"));
    })
}

fn metadata_request_decode() -> Work {
    let topics = TOPICS.map(|name| MetadataRequestTopic { name: name.into() });
    let request = MetadataRequest {
        topics: Some(topics.to_vec().into()),
        ..MetadataRequest::default()
    };
    let bytes = encoded(&request, METADATA_VERSION);
    Box::new(move || {
        let mut reader = Reader::new(black_box(&bytes));
        let request = MetadataRequest::decode(&mut reader, METADATA_VERSION).expect("a sound request");
        for topic in request.topics.iter().flat_map(|topics| topics.iter()) {
            black_box(topic.name);
        }
    })
}

fn produce_request_decode() -> Work {
    let records = inputs::full_batch(Codec::None, 1024);
    let topics = TOPICS.map(|name| TopicProduceData {
        name: name.into(),
        partitions: vec![PartitionProduceData {
            partition_index: 0,
            records: Some(Cow::Borrowed(&records)),
        }]
        .into(),
    });
    let request = ProduceRequest {
        acks: 1,
        timeout_ms: 30_000,
        topics: topics.to_vec().into(),
        ..ProduceRequest::default()
    };
    let bytes = encoded(&request, PRODUCE_VERSION);
    Box::new(move || {
        let mut reader = Reader::new(black_box(&bytes));
        let request = ProduceRequest::decode(&mut reader, PRODUCE_VERSION).expect("a sound request");
        for topic in request.topics.iter() {
            for partition in topic.partitions.iter() {
                black_box((partition.partition_index, partition.records));
            }
        }
    })
}

fn fetch_request_decode() -> Work {
    let topics = TOPICS.map(|name| FetchTopic {
        topic: name.into(),
        partitions: (0..PARTITIONS_PER_TOPIC)
            .map(|partition| FetchPartition {
                partition,
                fetch_offset: 1_000_000,
                partition_max_bytes: 1 << 20,
                ..FetchPartition::default()
            })
            .collect(),
    });
    let request = FetchRequest {
        replica_id: -1,
        topics: topics.to_vec().into(),
        ..FetchRequest::default()
    };
    let bytes = encoded(&request, FETCH_VERSION);
    Box::new(move || {
        let mut reader = Reader::new(black_box(&bytes));
        let request = FetchRequest::decode(&mut reader, FETCH_VERSION).expect("a sound request");
        for topic in request.topics.iter() {
            for partition in topic.partitions.iter() {
                black_box(partition);
            }
        }
    })
}

/// Frames an answer as a lane does, into a buffer that is used again.
fn framed<'m>(writer: &mut Writer, message: &impl Message<'m>, api_key: ApiKey, version: i16) {
    let frame = writer.begin_frame();
    ResponseHeader { correlation_id: 42 }.encode(writer, api_key, version);
    message.encode(writer, version).expect("this version can say it");
    writer.end_frame(frame).expect("the answer is not too large");
    black_box(writer.take());
}

/// 64 KiB of a file for each partition, which are not copied.
fn fetch_answer_encode() -> Work {
    let mut writer = Writer::new();
    Box::new(move || {
        let topics = TOPICS.map(|name| FetchableTopicResponse {
            topic: name.into(),
            partition_responses: (0..PARTITIONS_PER_TOPIC)
                .map(|partition| FetchablePartitionResponse {
                    partition,
                    high_watermark: 2_000_000,
                    last_stable_offset: 2_000_000,
                    log_start_offset: 0,
                    record_set: Payload::Extern { size_bytes: 64 << 10 },
                    ..FetchablePartitionResponse::default()
                })
                .collect(),
        });
        let response = FetchResponse {
            session_id: 7,
            responses: black_box(topics).into_iter().collect(),
            ..FetchResponse::default()
        };
        framed(&mut writer, &response, ApiKey::Fetch, FETCH_VERSION);
    })
}

fn metadata_answer_encode() -> Work {
    let topics = TOPICS.map(|name| MetadataResponseTopic {
        name: name.into(),
        partitions: (0..PARTITIONS_PER_TOPIC)
            .map(|partition_index| MetadataResponsePartition {
                partition_index,
                leader_id: 1,
                leader_epoch: 5,
                replica_nodes: vec![1].into(),
                isr_nodes: vec![1].into(),
                ..MetadataResponsePartition::default()
            })
            .collect(),
        ..MetadataResponseTopic::default()
    });
    let broker = MetadataResponseBroker {
        node_id: 1,
        host: "localhost".into(),
        port: 9092,
        rack: None,
    };
    let response = MetadataResponse {
        brokers: vec![broker].into(),
        cluster_id: Some("AAAAAAAAAAAAAAAAAAAAAA".into()),
        controller_id: 1,
        topics: topics.to_vec().into(),
        ..MetadataResponse::default()
    };
    let mut writer = Writer::new();
    Box::new(move || {
        framed(
            &mut writer,
            black_box(&response),
            ApiKey::Metadata,
            METADATA_VERSION,
        )
    })
}
