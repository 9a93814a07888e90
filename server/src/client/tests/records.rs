//! Writing and reading while brokers die, move and refuse.

use std::ops::ControlFlow;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use milena_engine::record_batch::RecordBatchBuilder;
use milena_engine::units::{Offset, TimestampMs, TopicPartition};
use tokio::time::timeout;

use super::*;
use crate::client::{
    Acks, Consumer, ConsumerConfig, Fetched, ProduceError, Producer, ProducerConfig, ProducerRecord,
    ReadRange,
};
use crate::protocol::Payload;
use crate::protocol::messages::fetch::{FetchResponse, FetchablePartitionResponse, FetchableTopicResponse};
use crate::protocol::messages::metadata::MetadataResponsePartition;
use crate::protocol::messages::produce::{PartitionProduceResponse, ProduceResponse, TopicProduceResponse};

/// Longer than any of these tests takes, and shorter than a hang.
const HANG: Duration = Duration::from_secs(20);

/// A broker of many connections; the script is asked with the number of questions of this API so far, from 0.
fn busy_broker(
    script: impl FnMut(usize, &Question, &Address) -> Option<Vec<u8>> + Send + 'static,
) -> Address {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address: Address = listener.local_addr().unwrap().to_string().parse().unwrap();
    let script = Arc::new(Mutex::new((script, [0_usize; 64])));
    let own = address.clone();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, script, own) = (stream.unwrap(), script.clone(), own.clone());
            thread::spawn(move || {
                while let Some(question) = ask(&mut stream) {
                    let mut script = script.lock().unwrap();
                    let (script, counts) = &mut *script;
                    let count = &mut counts[question.key.id() as usize];
                    *count += 1;
                    let Some(bytes) = script(*count - 1, &question, &own) else {
                        return;
                    };
                    // The client may be gone.
                    let _ = stream.write_all(&bytes);
                }
            });
        }
    });
    address
}

/// Topic `t` on broker 7: who leads its partitions.
fn led_by(question: &Question, address: &Address, leaders: &[i32]) -> Vec<u8> {
    let mut answer = cluster(address, ErrorCode::None);
    let partition = |(partition_index, &leader_id)| MetadataResponsePartition {
        partition_index,
        leader_id,
        ..Default::default()
    };
    let topic = MetadataResponseTopic {
        name: "t".into(),
        partitions: (0..).zip(leaders).map(partition).collect(),
        ..Default::default()
    };
    answer.topics = vec![topic].into();
    reply(question, &answer)
}

fn produced(question: &Question, codes: &[ErrorCode]) -> Vec<u8> {
    let partition = |(partition_index, code): (i32, &ErrorCode)| PartitionProduceResponse {
        partition_index,
        error_code: code.code(),
        ..Default::default()
    };
    let topic = TopicProduceResponse {
        name: "t".into(),
        partitions: (0..).zip(codes).map(partition).collect(),
    };
    let answer = ProduceResponse {
        responses: vec![topic].into(),
        ..Default::default()
    };
    reply(question, &answer)
}

fn fetched(question: &Question, partition: i32, code: ErrorCode, bytes: &[u8], end: i64) -> Vec<u8> {
    let partition = FetchablePartitionResponse {
        partition,
        error_code: code.code(),
        high_watermark: end,
        record_set: Payload::Bytes(bytes.into()),
        ..Default::default()
    };
    let topic = FetchableTopicResponse {
        topic: "t".into(),
        partition_responses: vec![partition].into(),
    };
    let answer = FetchResponse {
        responses: vec![topic].into(),
        ..Default::default()
    };
    reply(question, &answer)
}

/// Writes a record into each of the partitions; says how many were written.
fn write(address: &Address, partitions: i32) -> (Result<(), ProduceError>, u64) {
    runtime().block_on(async {
        let mut client = Client::connect(vec![address.clone()], patient(5000))
            .await
            .unwrap();
        let config = ProducerConfig {
            acks: Acks::Leader,
            ..Default::default()
        };
        let mut producer = Producer::new(&mut client, config);
        for partition in 0..partitions {
            let record = ProducerRecord {
                topic: "t",
                partition: Some(partition),
                timestamp: TimestampMs(1),
                key: None,
                value: Some(b"v"),
                headers: &[],
            };
            producer.append(record).await.unwrap();
        }
        let flushed = timeout(HANG, producer.flush()).await.expect("no hang");
        (flushed, producer.written())
    })
}

/// Reads partitions of `t` up to offset 10 until the end or an error; all values that were seen, each time anew.
fn read(address: &Address, partitions: i32) -> (String, Result<(), ClientError>) {
    runtime().block_on(async {
        let mut client = Client::connect(vec![address.clone()], patient(400))
            .await
            .unwrap();
        let ranges = (0..partitions).map(|number| ReadRange {
            partition: TopicPartition::new("t", number),
            from: 0,
            until: Some(10),
        });
        let mut consumer = Consumer::new(&mut client, ConsumerConfig::default(), ranges.collect());
        let mut seen = String::new();
        loop {
            match timeout(HANG, consumer.next()).await.expect("no hang") {
                Ok(Some(fetched)) => seen.push_str(&values(&fetched)),
                Ok(None) => return (seen, Ok(())),
                Err(error) => return (seen, Err(error)),
            }
        }
    })
}

fn values(fetched: &Fetched) -> String {
    let mut values = String::new();
    for partition in fetched.partitions().unwrap() {
        let walked = partition.each_record::<()>(|shown| {
            values.push_str(std::str::from_utf8(shown.record.value.unwrap()).unwrap());
            ControlFlow::Continue(())
        });
        assert!(walked.unwrap().is_continue());
    }
    values
}

fn batch(base: i64, values: &[&str]) -> Vec<u8> {
    let mut builder = RecordBatchBuilder::new().base_offset(Offset(base));
    for value in values {
        builder.append(TimestampMs(1), None, Some(value.as_bytes()));
    }
    builder.build()
}

#[test]
fn a_leader_that_hangs_up_at_the_first_request_as_one_does_that_stops_is_tried_again() {
    let mut produces = 0;
    let address = busy_broker(move |count, question, address| match question.key {
        // The second connection: the first was lost by the first Produce.
        ApiKey::ApiVersions if count == 1 => None,
        ApiKey::Metadata => Some(led_by(question, address, &[7])),
        ApiKey::Produce => {
            produces += 1;
            (produces > 1).then(|| produced(question, &[ErrorCode::None]))
        }
        _ => Some(served(question, address)),
    });
    let (flushed, written) = write(&address, 1);
    assert!(flushed.is_ok(), "{}", flushed.unwrap_err());
    assert_eq!(written, 1);
}

#[test]
fn a_leader_that_is_named_but_not_alive_is_waited_for() {
    let address = busy_broker(|count, question, address| match question.key {
        ApiKey::Metadata => Some(led_by(question, address, &[if count < 3 { 8 } else { 7 }])),
        ApiKey::Produce => Some(produced(question, &[ErrorCode::None])),
        _ => Some(served(question, address)),
    });
    let (flushed, written) = write(&address, 1);
    assert!(flushed.is_ok(), "{}", flushed.unwrap_err());
    assert_eq!(written, 1);
}

#[test]
fn a_controller_that_is_named_but_not_alive_is_waited_for() {
    let address = busy_broker(|count, question, address| match question.key {
        ApiKey::Metadata => {
            let mut answer = cluster(address, ErrorCode::None);
            answer.controller_id = if count == 0 { 8 } else { 7 };
            Some(reply(question, &answer))
        }
        _ => Some(served(question, address)),
    });
    runtime().block_on(async {
        let mut client = Client::connect(vec![address], patient(5000)).await.unwrap();
        let asked = client.retry(async |client| {
            let request = MetadataRequest::default();
            client.call(Target::Controller, &request).await.map(drop)
        });
        asked.await.unwrap();
    });
}

#[test]
fn what_was_acknowledged_beside_a_refusal_counts_as_written() {
    let address = busy_broker(|_, question, address| match question.key {
        ApiKey::Metadata => Some(led_by(question, address, &[7, 7])),
        ApiKey::Produce => Some(produced(
            question,
            &[ErrorCode::TopicAuthorizationFailed, ErrorCode::None],
        )),
        _ => Some(served(question, address)),
    });
    let (flushed, written) = write(&address, 2);
    assert_eq!(flushed.unwrap_err().first_number, 1);
    assert_eq!(written, 1);
}

#[test]
fn a_partition_without_leader_keeps_no_other_waiting_and_is_given_up_in_time() {
    let address = busy_broker(|_, question, address| match question.key {
        ApiKey::Metadata => Some(led_by(question, address, &[-1, 7])),
        ApiKey::Fetch => Some(fetched(question, 1, ErrorCode::None, &batch(0, &["a", "b"]), 2)),
        _ => Some(served(question, address)),
    });
    let (seen, ended) = read(&address, 2);
    assert!(seen.starts_with("ab"), "{seen}");
    assert_eq!(ended.unwrap_err().code(), Some(ErrorCode::LeaderNotAvailable));
}

#[test]
fn a_leader_that_goes_on_refusing_is_given_up_in_time() {
    let address = busy_broker(|_, question, address| match question.key {
        ApiKey::Metadata => Some(led_by(question, address, &[7])),
        ApiKey::Fetch => Some(fetched(question, 0, ErrorCode::NotLeaderOrFollower, &[], -1)),
        _ => Some(served(question, address)),
    });
    let (seen, ended) = read(&address, 1);
    assert_eq!(seen, "");
    assert_eq!(ended.unwrap_err().code(), Some(ErrorCode::NotLeaderOrFollower));
}

#[test]
fn an_end_whose_last_records_were_compacted_away_is_reached() {
    let address = busy_broker(|count, question, address| match question.key {
        ApiKey::Metadata => Some(led_by(question, address, &[7])),
        ApiKey::Fetch if count == 0 => Some(fetched(question, 0, ErrorCode::None, &batch(0, &["a"]), 10)),
        ApiKey::Fetch => Some(fetched(question, 0, ErrorCode::None, &[], 10)),
        _ => Some(served(question, address)),
    });
    let (seen, ended) = read(&address, 1);
    assert_eq!(seen, "a");
    assert!(ended.is_ok(), "{}", ended.unwrap_err());
}
