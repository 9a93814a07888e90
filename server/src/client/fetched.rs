//! What a fetch brought, as its reader is to see it: from the offset that was asked for, without markers, and without the
//! records of aborted transactions for who reads committed ones.
//!
//! Source: `Fetcher.CompletedFetch` of 2.7.2; KIP-98.

use std::collections::HashSet;
use std::ops::ControlFlow;

use milena_engine::config::TimestampType;
use milena_engine::record_batch::{Batch, BatchError, BatchHeader, ControlKind, Record};
use milena_engine::units::{Offset, TopicPartition};

use super::{Answer, ClientError, ReadRange};
use crate::protocol::Payload;
use crate::protocol::messages::fetch::{FetchResponse, FetchablePartitionResponse};

/// Which records a reader wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i8)]
pub enum IsolationLevel {
    /// All.
    ReadUncommitted = 0,
    /// None of a transaction that is open or aborted.
    ReadCommitted = 1,
}

/// One answer to a fetch.
#[derive(Debug)]
pub struct Fetched {
    pub(super) answer: Answer,
    /// What was wanted.
    pub(super) asked: Vec<ReadRange>,
    pub(super) isolation: IsolationLevel,
}

/// What an answer says of one partition.
#[derive(Debug)]
pub struct FetchedPartition<'f> {
    /// What was wanted.
    pub range: ReadRange,
    /// The offset behind the last record that a reader may see so far.
    pub end_offset: i64,
    isolation: IsolationLevel,
    response: FetchablePartitionResponse<'f>,
}

/// A record with its place.
#[derive(Clone, Copy, Debug)]
pub struct ConsumerRecord<'r> {
    pub partition: &'r TopicPartition,
    pub timestamp_type: TimestampType,
    pub record: Record<'r>,
}

impl Fetched {
    /// The partitions that were read without an error.
    ///
    /// # Errors
    /// [`ClientError::Malformed`].
    pub fn partitions(&self) -> Result<Vec<FetchedPartition<'_>>, ClientError> {
        let response: FetchResponse<'_> = self.answer.decode()?;
        let mut partitions = Vec::new();
        for topic in response.responses.iter() {
            for response in topic.partition_responses.iter() {
                let asked = self.asked.iter().find(|range| {
                    range.partition.partition == response.partition && *range.partition.topic == *topic.topic
                });
                let Some(range) = asked.filter(|_| response.error_code == 0) else {
                    continue;
                };
                partitions.push(FetchedPartition {
                    range: range.clone(),
                    end_offset: end_offset(&response, self.isolation),
                    isolation: self.isolation,
                    response,
                });
            }
        }
        Ok(partitions)
    }
}

impl FetchedPartition<'_> {
    /// Where to read on.
    pub fn next_offset(&self) -> i64 {
        next_offset(bytes_of(&self.response), self.range.from)
    }

    /// Shows the records in order, until `each` breaks.
    ///
    /// # Errors
    /// A batch is corrupt; those before it were shown.
    pub fn each_record<B>(
        &self,
        mut each: impl FnMut(&ConsumerRecord<'_>) -> ControlFlow<B>,
    ) -> Result<ControlFlow<B>, BatchError> {
        let mut aborted: Vec<(i64, i64)> = Vec::new();
        if let Some(transactions) = &self.response.aborted_transactions {
            aborted.extend(
                transactions
                    .iter()
                    .map(|aborted| (aborted.first_offset, aborted.producer_id)),
            );
        }
        aborted.sort_unstable_by(|a, b| b.cmp(a));
        let mut aborting: HashSet<i64> = HashSet::new();
        let mut rest = bytes_of(&self.response);
        while let Some((batch, after)) = next_batch(rest)? {
            rest = after;
            batch.verify_crc()?;
            if let Some(producer) = batch
                .producer()
                .filter(|_| self.isolation == IsolationLevel::ReadCommitted)
            {
                while let Some((_, id)) = aborted.pop_if(|(first, _)| *first <= batch.last_offset().get()) {
                    aborting.insert(id);
                }
                if batch.is_control() {
                    // Compaction takes the marker out of a batch that stays for its producer's sake.
                    if batch.record_count() != Some(0) && batch.control_record()?.kind == ControlKind::Abort {
                        aborting.remove(&producer.id.get());
                    }
                } else if batch.is_transactional() && aborting.contains(&producer.id.get()) {
                    continue;
                }
            }
            if batch.is_control() {
                continue;
            }
            let mut records = batch.records()?;
            while let Some(record) = records.next_record()? {
                if record.offset < Offset(self.range.from) {
                    continue;
                }
                if self
                    .range
                    .until
                    .is_some_and(|until| record.offset >= Offset(until))
                {
                    return Ok(ControlFlow::Continue(()));
                }
                let shown = each(&ConsumerRecord {
                    partition: &self.range.partition,
                    timestamp_type: batch.timestamp_type(),
                    record,
                });
                if shown.is_break() {
                    return Ok(shown);
                }
            }
        }
        Ok(ControlFlow::Continue(()))
    }
}

pub(super) fn bytes_of<'r>(response: &'r FetchablePartitionResponse<'_>) -> &'r [u8] {
    match &response.record_set {
        Payload::Bytes(bytes) => bytes,
        _ => &[],
    }
}

/// The offset behind the last record that a reader may see.
pub(super) fn end_offset(response: &FetchablePartitionResponse<'_>, isolation: IsolationLevel) -> i64 {
    match isolation {
        IsolationLevel::ReadCommitted if response.last_stable_offset >= 0 => response.last_stable_offset,
        _ => response.high_watermark,
    }
}

/// The first batch and what is behind it; `None` at the end, and where an answer was cut off within a batch.
fn next_batch(bytes: &[u8]) -> Result<Option<(Batch<'_>, &[u8])>, BatchError> {
    match Batch::parse(bytes) {
        Ok(batch) => Ok(Some((batch, &bytes[batch.size_bytes()..]))),
        Err(error) if error.is_partial() => Ok(None),
        Err(error) => Err(error),
    }
}

/// The offset behind the last whole batch; `from` if there is none. Bytes that are no batch end the walk.
pub(super) fn next_offset(mut bytes: &[u8], from: i64) -> i64 {
    let mut next = from;
    while let Ok(header) = BatchHeader::parse(bytes)
        && let Some(rest) = bytes.get(header.size_bytes..)
    {
        next = next.max(header.next_offset().get());
        bytes = rest;
    }
    next
}

#[cfg(test)]
mod tests {
    use milena_engine::record_batch::{ControlRecord, RecordBatchBuilder};
    use milena_engine::units::{ProducerEpoch, ProducerId, Sequence, TimestampMs};

    use super::*;
    use crate::protocol::messages::fetch::AbortedTransaction;

    const TIME: TimestampMs = TimestampMs(1000);

    fn batch(base: i64, producer: Option<i64>, values: &[&str]) -> Vec<u8> {
        let builder = RecordBatchBuilder::new().base_offset(Offset(base));
        let mut builder = match producer {
            Some(id) => builder
                .producer(ProducerId(id), ProducerEpoch(0), Some(Sequence(0)))
                .transactional(true),
            None => builder,
        };
        for value in values {
            builder.append(TIME, None, Some(value.as_bytes()));
        }
        builder.build()
    }

    fn marker(offset: i64, producer: i64, kind: ControlKind) -> Vec<u8> {
        let marker = ControlRecord {
            kind,
            coordinator_epoch: 0,
        };
        let (id, epoch) = (ProducerId(producer), ProducerEpoch(0));
        let mut bytes = RecordBatchBuilder::end_transaction_marker(marker, id, epoch, TIME);
        bytes[..8].copy_from_slice(&offset.to_be_bytes());
        bytes
    }

    /// Two transactions of producer 7, the first of them aborted, records of others between them.
    fn log() -> Vec<u8> {
        [
            batch(0, None, &["a", "b"]),
            batch(2, Some(7), &["c"]),
            batch(3, Some(8), &["d"]),
            marker(4, 7, ControlKind::Abort),
            batch(5, Some(7), &["e"]),
            marker(6, 7, ControlKind::Commit),
            marker(7, 8, ControlKind::Commit),
        ]
        .concat()
    }

    fn shown(bytes: &[u8], from: i64, until: i64, isolation: IsolationLevel) -> (String, i64) {
        let fetched = FetchedPartition {
            range: ReadRange {
                partition: TopicPartition::new("t", 0),
                from,
                until: Some(until),
            },
            end_offset: 8,
            isolation,
            response: FetchablePartitionResponse {
                aborted_transactions: Some(
                    vec![AbortedTransaction {
                        producer_id: 7,
                        first_offset: 2,
                    }]
                    .into(),
                ),
                record_set: Payload::Bytes(bytes.into()),
                ..Default::default()
            },
        };
        let mut values = String::new();
        let walked = fetched.each_record::<()>(|shown| {
            values.push_str(std::str::from_utf8(shown.record.value.unwrap()).unwrap());
            ControlFlow::Continue(())
        });
        assert!(walked.unwrap().is_continue());
        (values, fetched.next_offset())
    }

    #[test]
    fn a_reader_of_committed_records_sees_none_that_were_aborted_and_no_reader_sees_markers() {
        let bytes = log();
        assert_eq!(
            shown(&bytes, 0, 9, IsolationLevel::ReadUncommitted),
            ("abcde".to_owned(), 8)
        );
        assert_eq!(
            shown(&bytes, 0, 9, IsolationLevel::ReadCommitted),
            ("abde".to_owned(), 8)
        );
    }

    #[test]
    fn a_marker_that_compaction_took_out_of_its_batch_keeps_nobody_from_reading_on() {
        let mut empty = marker(0, 9, ControlKind::Commit);
        empty.truncate(61);
        empty[8..12].copy_from_slice(&49_u32.to_be_bytes());
        empty[57..61].fill(0);
        let crc = crc32c::crc32c(&empty[21..]);
        empty[17..21].copy_from_slice(&crc.to_be_bytes());
        let bytes = [empty, batch(1, None, &["a"])].concat();
        assert_eq!(
            shown(&bytes, 0, 9, IsolationLevel::ReadCommitted),
            ("a".to_owned(), 2)
        );
    }

    #[test]
    fn a_range_that_ends_within_a_batch_ends_there() {
        assert_eq!(shown(&log(), 0, 1, IsolationLevel::ReadUncommitted).0, "a");
        assert_eq!(shown(&log(), 1, 4, IsolationLevel::ReadUncommitted).0, "bcd");
    }

    #[test]
    fn records_before_the_offset_asked_for_and_a_batch_that_is_cut_off_are_not_shown() {
        let bytes = log();
        assert_eq!(
            shown(&bytes, 1, 9, IsolationLevel::ReadUncommitted),
            ("bcde".to_owned(), 8)
        );
        assert_eq!(
            shown(&bytes[..bytes.len() - 1], 1, 9, IsolationLevel::ReadUncommitted),
            ("bcde".to_owned(), 7)
        );
        assert_eq!(
            shown(&bytes[..70], 0, 9, IsolationLevel::ReadUncommitted),
            ("".to_owned(), 0)
        );
    }
}
