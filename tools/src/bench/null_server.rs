//! A server that answers as fast as it can and keeps nothing: what a generator costs shows before it.
//!
//! It counts the offsets of each partition on and hands every reader the first batch that the partition got, again and
//! again, under new offsets; of late batches it knows where they began. So a load of any kind runs to its end, and what is
//! read says nothing. It is one broker with
//! one thread, of topics that exist as soon as they are asked for.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::io;
use std::rc::Rc;
use std::time::Duration;

use clap::Args;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::LocalSet;
use tokio::time::{Instant, timeout_at};

use milena_server::protocol::messages::api_versions::served_response;
use milena_server::protocol::messages::fetch::{
    FetchRequest, FetchResponse, FetchablePartitionResponse, FetchableTopicResponse,
};
use milena_server::protocol::messages::list_offsets::{
    ListOffsetPartitionResponse, ListOffsetRequest, ListOffsetResponse, ListOffsetTopicResponse,
};
use milena_server::protocol::messages::metadata::{
    MetadataRequest, MetadataResponse, MetadataResponseBroker, MetadataResponsePartition,
    MetadataResponseTopic,
};
use milena_server::protocol::messages::produce::{
    PartitionProduceResponse, ProduceRequest, ProduceResponse, TopicProduceResponse,
};
use milena_server::protocol::messages::producer_ids::{InitProducerIdRequest, InitProducerIdResponse};
use milena_server::protocol::messages::topics::{
    CreatableTopicResult, CreateTopicsRequest, CreateTopicsResponse, DeletableTopicResult,
    DeleteTopicsRequest, DeleteTopicsResponse,
};
use milena_server::protocol::{ApiKey, Message, Payload, Reader, RequestHeader, ResponseHeader, Writer};

use crate::{Exit, complain};

/// Room that is made for what arrives.
const READ_SIZE_BYTES: usize = 256 << 10;
/// Largest frame that is waited for.
const FRAME_SIZE_MAX: usize = 128 << 20;
/// Batches of a partition whose ends are known.
const ENDS_MAX: usize = 1 << 14;
/// Where a batch of format v2 counts its records.
const LAST_OFFSET_DELTA: usize = 23;
const RECORD_COUNT: usize = 57;

#[derive(Debug, Args)]
pub(crate) struct NullServerArgs {
    /// Where to listen, on the loopback address; 0 takes a free port, which the first line of output tells.
    #[arg(long, default_value_t = 9092)]
    port: u16,
}

/// `milena bench null-server`: serves until it is ended.
pub(crate) fn run(arguments: &NullServerArgs) -> Exit {
    super::descriptors::raise();
    let serve = async {
        let listener = TcpListener::bind(("127.0.0.1", arguments.port)).await?;
        println!("listening on {}", listener.local_addr()?);
        LocalSet::new().run_until(serve(listener)).await
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let ended = runtime.and_then(|runtime| {
        runtime.block_on(async {
            tokio::select! {
                served = serve => served,
                signal = super::interrupt::signal() => signal,
            }
        })
    });
    match ended {
        Ok(()) => Exit::Success,
        Err(error) => {
            complain(format_args!("null-server: {error}"));
            Exit::NoBroker
        }
    }
}

/// Accepts connections for ever.
async fn serve(listener: TcpListener) -> io::Result<()> {
    let port = listener.local_addr()?.port();
    let topics = Rc::new(Topics {
        port,
        partitions: RefCell::default(),
        grown: Notify::new(),
    });
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let topics = Rc::clone(&topics);
        tokio::task::spawn_local(async move {
            // A client that goes away or does not speak Kafka's protocol is no affair of the others.
            let _ = connection(stream, &topics).await;
        });
    }
}

#[derive(Debug, Default)]
struct Partition {
    end: i64,
    /// The first batch that was written.
    sample: Vec<u8>,
    /// Ends of the last batches, ascending, so that batches are read as they were cut.
    ends: VecDeque<i64>,
}

#[derive(Debug)]
struct Topics {
    port: u16,
    partitions: RefCell<HashMap<String, Vec<Partition>>>,
    grown: Notify,
}

/// Why a connection ends.
fn broken() -> io::Error {
    io::ErrorKind::InvalidData.into()
}

async fn connection(mut stream: TcpStream, topics: &Topics) -> io::Result<()> {
    let mut inbound = Vec::with_capacity(READ_SIZE_BYTES);
    let mut writer = Writer::new();
    loop {
        inbound.reserve(READ_SIZE_BYTES);
        if stream.read_buf(&mut inbound).await? == 0 {
            return Ok(());
        }
        let mut at = 0;
        while let Some(length) = inbound[at..].first_chunk::<4>() {
            let size = u32::from_be_bytes(*length) as usize;
            if size > FRAME_SIZE_MAX {
                return Err(broken());
            }
            let Some(frame) = inbound.get(at + 4..at + 4 + size) else {
                break;
            };
            topics.answer(frame, &mut writer).await?;
            at += 4 + size;
        }
        inbound.drain(..at);
        if !writer.is_empty() {
            let (bytes, _) = writer.take();
            stream.write_all(&bytes).await?;
        }
    }
}

fn read<'f, Q: Message<'f>>(reader: &mut Reader<'f>, version: i16) -> io::Result<Q> {
    Q::decode(reader, version).map_err(io::Error::other)
}

impl Topics {
    async fn answer(&self, frame: &[u8], writer: &mut Writer) -> io::Result<()> {
        let mut reader = Reader::new(frame);
        let header = RequestHeader::decode(&mut reader).map_err(io::Error::other)?;
        let version = header.api_version;
        match header.api_key {
            ApiKey::ApiVersions => {
                let version = if header.is_unsupported_api_versions() {
                    0
                } else {
                    version
                };
                put(writer, &header, version, &served_response())
            }
            ApiKey::Produce => {
                let request: ProduceRequest<'_> = read(&mut reader, version)?;
                let response = self.produce(&request);
                self.grown.notify_waiters();
                if request.acks == 0 {
                    return Ok(());
                }
                put(writer, &header, version, &response)
            }
            ApiKey::Fetch => {
                let request: FetchRequest<'_> = read(&mut reader, version)?;
                self.fetch(&request, &header, writer).await
            }
            ApiKey::Metadata => {
                let request: MetadataRequest<'_> = read(&mut reader, version)?;
                put(writer, &header, version, &self.metadata(&request))
            }
            ApiKey::ListOffsets => {
                let request: ListOffsetRequest<'_> = read(&mut reader, version)?;
                put(writer, &header, version, &self.list_offsets(&request))
            }
            ApiKey::CreateTopics => {
                let request: CreateTopicsRequest<'_> = read(&mut reader, version)?;
                put(writer, &header, version, &self.create(&request))
            }
            ApiKey::DeleteTopics => {
                let request: DeleteTopicsRequest<'_> = read(&mut reader, version)?;
                put(writer, &header, version, &self.delete(&request))
            }
            ApiKey::InitProducerId => {
                let _: InitProducerIdRequest<'_> = read(&mut reader, version)?;
                let response = InitProducerIdResponse {
                    producer_id: 1,
                    ..Default::default()
                };
                put(writer, &header, version, &response)
            }
            _ => Err(broken()),
        }
    }

    fn produce<'f>(&self, request: &ProduceRequest<'f>) -> ProduceResponse<'f> {
        let mut partitions = self.partitions.borrow_mut();
        let mut answer = |topic: &str, index: i32, records: &[u8]| {
            let all = partitions.entry(topic.to_owned()).or_default();
            let index = index.max(0) as usize;
            if all.len() <= index && index < 100_000 {
                all.resize_with(index + 1, Partition::default);
            }
            let count = records.get(RECORD_COUNT..RECORD_COUNT + 4);
            let count = count.map_or(0, |bytes| {
                i32::from_be_bytes(bytes.try_into().unwrap_or_default())
            });
            let Some(partition) = all.get_mut(index) else {
                return -1;
            };
            if partition.sample.is_empty() {
                partition.sample = records.to_vec();
            }
            let base = partition.end;
            partition.end += i64::from(count.max(0));
            if partition.ends.len() == ENDS_MAX {
                partition.ends.pop_front();
            }
            partition.ends.push_back(partition.end);
            base
        };
        let topics = request.topics.iter().map(|topic| {
            let partitions = topic.partitions.iter().map(|partition| PartitionProduceResponse {
                partition_index: partition.partition_index,
                base_offset: answer(
                    &topic.name,
                    partition.partition_index,
                    partition.records.as_deref().unwrap_or_default(),
                ),
                ..Default::default()
            });
            TopicProduceResponse {
                partitions: partitions.collect(),
                name: topic.name,
            }
        });
        ProduceResponse {
            responses: topics.collect(),
            throttle_time_ms: 0,
        }
    }

    /// Waits until there is something, or the time is over.
    async fn fetch(
        &self,
        request: &FetchRequest<'_>,
        header: &RequestHeader<'_>,
        writer: &mut Writer,
    ) -> io::Result<()> {
        let wait = Duration::from_millis(request.max_wait_ms.max(0) as u64);
        let deadline = Instant::now() + wait;
        loop {
            let grown = self.grown.notified();
            let (response, found) = self.read(request);
            if found || timeout_at(deadline, grown).await.is_err() {
                return put(writer, header, header.api_version, &response);
            }
        }
    }

    fn read<'f>(&self, request: &FetchRequest<'f>) -> (FetchResponse<'f>, bool) {
        let all = self.partitions.borrow();
        let mut found = false;
        let topics = request.topics.iter().map(|topic| {
            let of_topic = all.get(&*topic.topic);
            let partitions = topic.partitions.iter().map(|asked| {
                let partition = of_topic.and_then(|all| all.get(asked.partition.max(0) as usize));
                let limit = asked.partition_max_bytes.max(1) as usize;
                let records = partition.map_or(Vec::new(), |p| p.records(asked.fetch_offset, limit));
                found |= !records.is_empty();
                FetchablePartitionResponse {
                    partition: asked.partition,
                    high_watermark: partition.map_or(0, |partition| partition.end),
                    last_stable_offset: partition.map_or(0, |partition| partition.end),
                    log_start_offset: 0,
                    record_set: Payload::Bytes(Cow::Owned(records)),
                    ..Default::default()
                }
            });
            FetchableTopicResponse {
                partition_responses: partitions.collect(),
                topic: topic.topic,
            }
        });
        let response = FetchResponse {
            responses: topics.collect(),
            ..Default::default()
        };
        (response, found)
    }

    fn metadata<'f>(&self, request: &MetadataRequest<'f>) -> MetadataResponse<'f> {
        let partitions = self.partitions.borrow();
        let topic = |name: Cow<'f, str>| {
            let count = partitions.get(&*name).map_or(1, Vec::len);
            let partition = |index| MetadataResponsePartition {
                partition_index: index as i32,
                leader_id: 0,
                replica_nodes: vec![0].into(),
                isr_nodes: vec![0].into(),
                ..Default::default()
            };
            MetadataResponseTopic {
                name,
                partitions: (0..count).map(partition).collect(),
                ..Default::default()
            }
        };
        let asked = request.topics.iter().flat_map(|topics| topics.iter());
        MetadataResponse {
            brokers: vec![MetadataResponseBroker {
                host: "127.0.0.1".into(),
                port: self.port.into(),
                ..Default::default()
            }]
            .into(),
            controller_id: 0,
            topics: asked.map(|asked| topic(asked.name)).collect(),
            ..Default::default()
        }
    }

    fn list_offsets<'f>(&self, request: &ListOffsetRequest<'f>) -> ListOffsetResponse<'f> {
        let all = self.partitions.borrow();
        let topics = request.topics.iter().map(|topic| {
            let of_topic = all.get(&*topic.name);
            let partitions = topic.partitions.iter().map(|asked| {
                let partition = of_topic.and_then(|all| all.get(asked.partition_index.max(0) as usize));
                let end = partition.map_or(0, |partition| partition.end);
                ListOffsetPartitionResponse {
                    partition_index: asked.partition_index,
                    offset: if asked.timestamp == -2 { 0 } else { end },
                    ..Default::default()
                }
            });
            ListOffsetTopicResponse {
                partitions: partitions.collect(),
                name: topic.name,
            }
        });
        ListOffsetResponse {
            topics: topics.collect(),
            ..Default::default()
        }
    }

    fn create<'f>(&self, request: &CreateTopicsRequest<'f>) -> CreateTopicsResponse<'f> {
        let mut all = self.partitions.borrow_mut();
        let topics = request.topics.iter().map(|topic| {
            let count = topic.num_partitions.clamp(1, 100_000);
            let partitions = (0..count).map(|_| Partition::default()).collect();
            all.insert(topic.name.to_string(), partitions);
            CreatableTopicResult {
                name: topic.name,
                ..Default::default()
            }
        });
        CreateTopicsResponse {
            topics: topics.collect(),
            ..Default::default()
        }
    }

    fn delete<'f>(&self, request: &DeleteTopicsRequest<'f>) -> DeleteTopicsResponse<'f> {
        let mut all = self.partitions.borrow_mut();
        let topics = request.topic_names.iter().map(|name| {
            all.remove(&*name);
            DeletableTopicResult {
                name,
                ..Default::default()
            }
        });
        DeleteTopicsResponse {
            responses: topics.collect(),
            ..Default::default()
        }
    }
}

impl Partition {
    /// The sample from an offset on, as often as there is room and there are records.
    fn records(&self, offset: i64, limit: usize) -> Vec<u8> {
        let count = self.sample.get(RECORD_COUNT..RECORD_COUNT + 4);
        let count = count.map_or(0, |bytes| {
            i32::from_be_bytes(bytes.try_into().unwrap_or_default())
        });
        let mut records = Vec::new();
        let mut offset = offset.max(0);
        while count > 0
            && offset < self.end
            && (records.is_empty() || records.len() + self.sample.len() <= limit)
        {
            let batch = records.len();
            records.extend_from_slice(&self.sample);
            let next = self.ends.partition_point(|&end| end <= offset);
            let cut = self.ends.get(next).copied().filter(|_| next > 0 || offset == 0);
            let end = cut.unwrap_or(self.end.min(offset + i64::from(count)));
            let some = (end - offset) as i32;
            records[batch..batch + 8].copy_from_slice(&offset.to_be_bytes());
            let delta = batch + LAST_OFFSET_DELTA;
            records[delta..delta + 4].copy_from_slice(&(some - 1).to_be_bytes());
            let at = batch + RECORD_COUNT;
            records[at..at + 4].copy_from_slice(&some.to_be_bytes());
            offset += i64::from(some);
        }
        records
    }
}

fn put<'a, A: Message<'a>>(
    writer: &mut Writer,
    header: &RequestHeader<'_>,
    version: i16,
    body: &A,
) -> io::Result<()> {
    let frame = writer.begin_frame();
    let correlation_id = header.correlation_id;
    ResponseHeader { correlation_id }.encode(writer, header.api_key, version);
    body.encode(writer, version)
        .and_then(|()| writer.end_frame(frame))
        .map_err(io::Error::other)
}

/// Runs a test with a connection to a null server of its own.
#[cfg(test)]
pub(crate) fn test_server(test: impl AsyncFnOnce(&mut milena_server::client::Connection)) {
    use milena_server::client::{Connection, ConnectionConfig};

    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    LocalSet::new().block_on(&runtime, async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string().parse().unwrap();
        tokio::task::spawn_local(serve(listener));
        let mut connection = Connection::open(&address, &ConnectionConfig::default())
            .await
            .unwrap();
        test(&mut connection).await;
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_counted_and_its_first_batch_is_read_as_often() {
        use milena_engine::record_batch::{BatchHeader, RecordBatchBuilder};
        use milena_engine::units::TimestampMs;

        let mut partition = Partition::default();
        assert!(partition.records(0, 1000).is_empty());
        let mut builder = RecordBatchBuilder::new();
        for _ in 0..10 {
            builder.append(TimestampMs(0), None, Some(b"v"));
        }
        partition.sample = builder.build();
        partition.end = 25;
        let bytes = partition.records(3, 1 << 20);
        let (mut at, mut next, mut records) = (0, 3, 0);
        while at < bytes.len() {
            let header = BatchHeader::parse(&bytes[at..]).unwrap();
            assert_eq!(header.base_offset.get(), next);
            (at, next) = (at + header.size_bytes, header.next_offset().get());
            records += header.record_count.unwrap();
        }
        assert_eq!((next, records), (25, 22));
        assert_eq!(
            partition.records(0, 1).len(),
            partition.sample.len(),
            "one batch at least"
        );
    }
}
