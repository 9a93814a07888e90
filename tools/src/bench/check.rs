//! Reads back everything that was written and compares it with what the producers know: how many records each partition
//! has, and the sum of their hashes by offset ([`ContentSum`]). Every checksum is checked and every record read.

use milena_engine::record_batch::{BatchError, batches};
use milena_server::client::{ClientError, Connection};
use milena_server::protocol::Payload;
use milena_server::protocol::messages::fetch::{FetchPartition, FetchRequest, FetchResponse, FetchTopic};
use milena_server::protocol::messages::list_offsets::{
    ListOffsetPartition, ListOffsetRequest, ListOffsetResponse, ListOffsetTopic,
};

use super::batch::{ContentSum, weight};
use super::error::BenchError;
use super::interrupt::Interrupt;
use super::load::{Place, connection_config};
use super::scenario::{Acks, Scenario};
use super::topics::Topics;

/// Bytes of one answer.
const FETCH_SIZE_BYTES: i32 = 8 << 20;

/// The number of records read, all of which are as they were written.
///
/// # Errors
/// Names the first partition that is not.
pub(crate) fn read_back(
    scenario: &Scenario,
    topics: &Topics,
    written: &[ContentSum],
    interrupt: &Interrupt,
) -> Result<u64, BenchError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(BenchError::system("a runtime"))?;
    runtime.block_on(async {
        let mut records = 0;
        for (place, written) in topics.places().iter().zip(written) {
            let read = read_partition(place, interrupt).await?;
            let same = match scenario.acks {
                Acks::None => read.same_records(written),
                _ => read == *written,
            };
            if !same {
                return Err(BenchError::Broker(format!(
                    "{}-{}: {} records were written and {} read, {}",
                    place.topic,
                    place.partition,
                    written.records,
                    read.records,
                    if read.records == written.records {
                        "of another content"
                    } else {
                        "so some are lost or doubled"
                    },
                )));
            }
            records += read.records;
        }
        Ok(records)
    })
}

async fn read_partition(place: &Place, interrupt: &Interrupt) -> Result<ContentSum, BenchError> {
    let mut connection = Connection::open(&place.leader, &connection_config()).await?;
    let end = end_offset(&mut connection, place).await?;
    let (mut read, mut position) = (ContentSum::default(), 0);
    while position < end {
        if interrupt.came() {
            return Err(BenchError::Interrupted);
        }
        let before = position;
        let answer = connection.call(&fetch(place, position)).await?;
        let response: FetchResponse<'_> = answer.decode()?;
        let topic = response.responses.iter().next();
        let partition = topic.and_then(|topic| topic.partition_responses.iter().next());
        let partition = partition.unwrap_or_default();
        let what = || format!("{}-{}", place.topic, place.partition);
        ClientError::check(response.error_code, None, what)?;
        ClientError::check(partition.error_code, None, what)?;
        if let Payload::Bytes(bytes) = &partition.record_set {
            add_up(bytes, &mut position, &mut read).map_err(|error| {
                BenchError::Broker(format!(
                    "{}-{} at offset {position}: {error}",
                    place.topic, place.partition
                ))
            })?;
        }
        if position == before {
            return Err(BenchError::Broker(format!(
                "{}-{}: no records from offset {position} on, though it ends at {end}",
                place.topic, place.partition
            )));
        }
    }
    Ok(read)
}

/// Takes in the whole batches of an answer.
fn add_up(bytes: &[u8], position: &mut i64, read: &mut ContentSum) -> Result<(), BatchError> {
    for batch in batches(bytes) {
        let batch = match batch {
            Err(error) if error.is_partial() => break,
            batch => batch?,
        };
        batch.verify_crc()?;
        let mut records = batch.records()?;
        while let Some(record) = records.next_record()? {
            let offset = record.offset.get();
            if offset >= *position {
                read.add(offset, weight(record.key, record.value));
            }
        }
        *position = batch.next_offset().get();
    }
    Ok(())
}

fn fetch(place: &Place, position: i64) -> FetchRequest<'_> {
    let partition = FetchPartition {
        partition: place.partition,
        current_leader_epoch: -1,
        fetch_offset: position,
        last_fetched_epoch: -1,
        log_start_offset: -1,
        partition_max_bytes: FETCH_SIZE_BYTES,
    };
    let topic = FetchTopic {
        topic: place.topic.as_str().into(),
        partitions: vec![partition].into(),
    };
    FetchRequest {
        replica_id: -1,
        max_wait_ms: 5000,
        min_bytes: 1,
        max_bytes: FETCH_SIZE_BYTES,
        topics: vec![topic].into(),
        ..Default::default()
    }
}

async fn end_offset(connection: &mut Connection, place: &Place) -> Result<i64, BenchError> {
    let partition = ListOffsetPartition {
        partition_index: place.partition,
        current_leader_epoch: -1,
        timestamp: -1,
        max_num_offsets: 1,
    };
    let topic = ListOffsetTopic {
        name: place.topic.as_str().into(),
        partitions: vec![partition].into(),
    };
    let request = ListOffsetRequest {
        replica_id: -1,
        topics: vec![topic].into(),
        ..Default::default()
    };
    let answer = connection.call(&request).await?;
    let response: ListOffsetResponse<'_> = answer.decode()?;
    let topic = response.topics.iter().next();
    let partition = topic
        .and_then(|topic| topic.partitions.iter().next())
        .unwrap_or_default();
    ClientError::check(partition.error_code, None, || {
        format!("{}-{}", place.topic, place.partition)
    })?;
    Ok(partition.offset)
}
