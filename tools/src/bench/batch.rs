//! A Produce request that is built once and sent again and again: only what must differ is written anew.
//!
//! The records stand at the end of the frame, as one batch of format v2, whose layout `engine::record_batch` draws. Written
//! for each sending are the number of records (a shorter batch is a prefix of the longer one, unless it is compressed),
//! the timestamps, sequence and checksum, all of which the header holds: the CRC-32C over the batch is the whole cost.
//!
//! Each record has a weight, a hash of key and value. [`ContentSum`] adds up weights times offsets: what a producer wrote
//! and what a reader found is compared without keeping either, and a record that is lost, doubled, changed or moved shows.

use std::borrow::Cow;
use std::ops::AddAssign;

use serde::{Deserialize, Serialize};

use milena_engine::config::Codec;
use milena_engine::record_batch::{RECORD_BATCH_OVERHEAD, RecordBatchBuilder};
use milena_engine::units::TimestampMs;
use milena_server::client::{ClientError, Connection, PreparedRequest};
use milena_server::protocol::messages::produce::{PartitionProduceData, ProduceRequest, TopicProduceData};

use super::payload::Payload;

/// Positions in a batch of format v2.
const LENGTH: usize = 8;
const CRC: usize = 17;
const CRC_START: usize = 21;
const LAST_OFFSET_DELTA: usize = 23;
const FIRST_TIMESTAMP: usize = 27;
const MAX_TIMESTAMP: usize = 35;
const PRODUCER_ID: usize = 43;
const PRODUCER_EPOCH: usize = 51;
const BASE_SEQUENCE: usize = 53;
const RECORD_COUNT: usize = 57;
/// What the length field does not count.
const LOG_OVERHEAD: usize = 12;
/// In front of the batch stand the partition and the size of its records.
const PARTITION_BEFORE: usize = 8;
const SIZE_BEFORE: usize = 4;

/// The hash of a record's key and value.
pub(crate) fn weight(key: Option<&[u8]>, value: Option<&[u8]>) -> u64 {
    let part = |bytes: Option<&[u8]>| bytes.map_or(u32::MAX, crc32c::crc32c);
    let both = u64::from(part(key)) << 32 | u64::from(part(value));
    both.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1
}

/// What was written to a partition, or read from it. Sums modulo 2^64.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ContentSum {
    pub(crate) records: u64,
    weights: u64,
    weights_by_offset: u64,
}

impl ContentSum {
    /// One more record at an offset.
    pub(crate) fn add(&mut self, offset: i64, weight: u64) {
        self.records += 1;
        self.weights = self.weights.wrapping_add(weight);
        let placed = weight.wrapping_mul(offset as u64);
        self.weights_by_offset = self.weights_by_offset.wrapping_add(placed);
    }

    /// The same records, the first of which is at offset 0, at `base` instead.
    pub(crate) fn at(self, base: i64) -> ContentSum {
        let moved = self.weights.wrapping_mul(base as u64);
        ContentSum {
            weights_by_offset: self.weights_by_offset.wrapping_add(moved),
            ..self
        }
    }

    /// Whether both hold the same records, wherever they stand: all that is known when a broker tells no offsets.
    pub(crate) fn same_records(&self, other: &ContentSum) -> bool {
        (self.records, self.weights) == (other.records, other.weights)
    }
}

impl AddAssign for ContentSum {
    fn add_assign(&mut self, more: ContentSum) {
        self.records += more.records;
        self.weights = self.weights.wrapping_add(more.weights);
        self.weights_by_offset = self.weights_by_offset.wrapping_add(more.weights_by_offset);
    }
}

/// An idempotent producer, and the sequence of its next record in a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Producer {
    pub(crate) id: i64,
    pub(crate) epoch: i16,
}

/// What differs from one sending to the next.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stamp {
    pub(crate) partition: i32,
    pub(crate) records: u32,
    pub(crate) timestamp_ms: i64,
    /// With the sequence of the first record.
    pub(crate) producer: Option<(Producer, i32)>,
}

/// What follows a sequence: after `i32::MAX` comes 0.
pub(crate) fn sequence_after(sequence: i32, records: u32) -> i32 {
    ((i64::from(sequence) + i64::from(records)) & i64::from(i32::MAX)) as i32
}

/// How a request is built.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RequestPlan<'t> {
    pub(crate) topic: &'t str,
    pub(crate) codec: Codec,
    pub(crate) acks: i16,
    pub(crate) records: u32,
}

/// What is known of the first `n` records of a template.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Prefix {
    /// Bytes of the batch up to there, header included; only without compression.
    end: usize,
    pub(crate) value_bytes: u64,
    pub(crate) content: ContentSum,
}

/// See the module. The frame itself travels through the connection and comes back; this is what is known of it.
#[derive(Debug)]
pub(crate) struct BatchTemplate {
    codec: Codec,
    /// Where the batch begins in the frame.
    batch: usize,
    /// By number of records, from 0.
    prefixes: Vec<Prefix>,
    /// What a shorter batch is compressed from.
    records: Vec<(Option<Vec<u8>>, Vec<u8>)>,
    /// Records that the frame holds now.
    compressed: u32,
}

impl BatchTemplate {
    /// A template with its request, in the version that the connection speaks.
    ///
    /// # Errors
    /// When the broker's versions cannot say it.
    pub(crate) fn build(
        connection: &Connection,
        plan: &RequestPlan<'_>,
        payload: &mut Payload,
    ) -> Result<(BatchTemplate, PreparedRequest), ClientError> {
        let records: Vec<_> = (0..plan.records)
            .map(|_| (payload.key(), payload.value()))
            .collect();
        let mut prefix = Prefix {
            end: RECORD_BATCH_OVERHEAD,
            ..Prefix::default()
        };
        let mut prefixes = vec![prefix];
        let mut builder = RecordBatchBuilder::new().codec(plan.codec);
        for (offset, (key, value)) in records.iter().enumerate() {
            builder.append(TimestampMs(0), key.as_deref(), Some(value));
            prefix.end = builder.size_bytes();
            prefix.value_bytes += value.len() as u64;
            prefix
                .content
                .add(offset as i64, weight(key.as_deref(), Some(value)));
            prefixes.push(prefix);
        }
        let batch = builder.build();
        let partition = PartitionProduceData {
            partition_index: 0,
            records: Some(Cow::Borrowed(&batch)),
        };
        let topic = TopicProduceData {
            name: Cow::Borrowed(plan.topic),
            partitions: vec![partition].into(),
        };
        let mut request = connection.prepare(&ProduceRequest {
            transactional_id: None,
            acks: plan.acks,
            timeout_ms: 30_000,
            topics: vec![topic].into(),
        })?;
        let template = BatchTemplate {
            codec: plan.codec,
            batch: request.frame_mut().len() - batch.len(),
            prefixes,
            records: if plan.codec == Codec::None {
                Vec::new()
            } else {
                records
            },
            compressed: plan.records,
        };
        Ok((template, request))
    }

    /// What the first records hold.
    pub(crate) fn prefix(&self, records: u32) -> Prefix {
        self.prefixes[records as usize]
    }

    /// Makes the request ready to be sent.
    pub(crate) fn stamp(&mut self, request: &mut PreparedRequest, stamp: &Stamp) {
        let size = match self.codec {
            Codec::None => self.prefix(stamp.records).end,
            _ => self.compress(request, stamp.records),
        };
        let frame = request.frame_mut();
        let start = self.batch;
        put(frame, start - PARTITION_BEFORE, stamp.partition.to_be_bytes());
        put(frame, start - SIZE_BEFORE, (size as i32).to_be_bytes());
        let batch = &mut frame[start..start + size];
        put(batch, LENGTH, ((size - LOG_OVERHEAD) as i32).to_be_bytes());
        put(batch, LAST_OFFSET_DELTA, (stamp.records as i32 - 1).to_be_bytes());
        put(batch, FIRST_TIMESTAMP, stamp.timestamp_ms.to_be_bytes());
        put(batch, MAX_TIMESTAMP, stamp.timestamp_ms.to_be_bytes());
        if let Some((producer, sequence)) = stamp.producer {
            put(batch, PRODUCER_ID, producer.id.to_be_bytes());
            put(batch, PRODUCER_EPOCH, producer.epoch.to_be_bytes());
            put(batch, BASE_SEQUENCE, sequence.to_be_bytes());
        }
        put(batch, RECORD_COUNT, (stamp.records as i32).to_be_bytes());
        let crc = crc32c::crc32c(&batch[CRC_START..]);
        put(batch, CRC, crc.to_be_bytes());
        request.cut(start + size);
    }

    /// Compresses the first records, unless the frame holds just these; the size of the batch.
    fn compress(&mut self, request: &mut PreparedRequest, records: u32) -> usize {
        let frame = request.frame_mut();
        if records != self.compressed {
            let mut builder = RecordBatchBuilder::new().codec(self.codec);
            for (key, value) in &self.records[..records as usize] {
                builder.append(TimestampMs(0), key.as_deref(), Some(value));
            }
            frame.truncate(self.batch);
            frame.extend_from_slice(&builder.build());
            self.compressed = records;
        }
        frame.len() - self.batch
    }
}

fn put<const N: usize>(bytes: &mut [u8], at: usize, value: [u8; N]) {
    bytes[at..at + N].copy_from_slice(&value);
}

/// Records that fit into a batch of so many bytes; at least one, as in Kafka's producer.
pub(crate) fn records_that_fit(batch_size: u64, key_size: usize, value_size: usize) -> u32 {
    let record = |delta: u64| {
        let mut builder = RecordBatchBuilder::new();
        let key = (key_size > 0).then(|| vec![0; key_size]);
        builder.append(TimestampMs(0), key.as_deref(), Some(&vec![0; value_size]));
        let first = builder.size_bytes() - RECORD_BATCH_OVERHEAD;
        // The offset delta takes more bytes from 64 on, and from 8192 on.
        first as u64 + u64::from(delta >= 64) + u64::from(delta >= 8192)
    };
    let (mut size, mut records) = (RECORD_BATCH_OVERHEAD as u64, 0);
    let sizes = [record(0), record(64), record(8192)];
    loop {
        size += sizes[usize::from(records >= 64) + usize::from(records >= 8192)];
        if size > batch_size || records >= 1 << 20 {
            return records.max(1);
        }
        records += 1;
    }
}

#[cfg(test)]
mod tests {
    use milena_engine::config::LogConfig;
    use milena_engine::record_batch::{
        AppendOrigin, Batch, Level, RequestRules, ValidationRules, batches, validate,
    };
    use milena_engine::units::TopicPartition;

    use super::super::null_server::test_server;
    use super::super::payload::{Recipe, Values};
    use super::*;

    fn rules() -> ValidationRules {
        let topic_partition = TopicPartition::new("t", 0);
        ValidationRules::new(
            topic_partition,
            &LogConfig::default(),
            AppendOrigin::Client,
            RequestRules::produce(8),
        )
    }

    fn payload() -> Payload {
        let recipe = Recipe {
            values: Values::Letters { size: 100 },
            keys: Some((1000, 10)),
        };
        Payload::new(recipe, 7)
    }

    fn templates(run: impl Fn(Codec, &mut BatchTemplate, &mut PreparedRequest)) {
        test_server(async |connection| {
            for codec in [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
                let plan = RequestPlan {
                    topic: "t",
                    codec,
                    acks: 1,
                    records: 100,
                };
                let (mut template, mut request) =
                    BatchTemplate::build(connection, &plan, &mut payload()).unwrap();
                run(codec, &mut template, &mut request);
            }
        });
    }

    #[test]
    fn every_stamped_batch_is_accepted_by_the_brokers_validator() {
        templates(|codec, template, request| {
            let mut sequence = i32::MAX - 150;
            for (round, records) in [100, 1, 64, 99, 100, 2].into_iter().enumerate() {
                let stamp = Stamp {
                    partition: 3,
                    records,
                    timestamp_ms: 1_700_000_000_000 + round as i64,
                    producer: Some((Producer { id: 4711, epoch: 2 }, sequence)),
                };
                template.stamp(request, &stamp);
                let size = request.size();
                let frame = &request.frame_mut()[..size];
                assert_eq!(frame[..4], (size as u32 - 4).to_be_bytes());
                assert_eq!(frame[template.batch - 8..template.batch - 4], 3i32.to_be_bytes());
                let bytes = &frame[template.batch..];
                assert_eq!(
                    frame[template.batch - 4..template.batch],
                    (bytes.len() as i32).to_be_bytes()
                );
                let now = TimestampMs(stamp.timestamp_ms);
                let valid = validate(bytes, &rules(), now, Level::Strict).unwrap();
                assert_eq!(valid.record_count(), i64::from(records), "{codec:?}");
                let batch = Batch::parse(bytes).unwrap();
                batch.verify_crc().unwrap();
                let (producer, header) = (batch.producer().unwrap(), batch.header());
                assert_eq!((producer.id.get(), producer.epoch.get()), (4711, 2));
                assert_eq!(producer.base_sequence.unwrap().get(), sequence);
                assert_eq!(header.max_timestamp, now);
                // As the engine counts them on, across the end.
                let next = producer.last_sequence.unwrap().plus(1).get();
                sequence = sequence_after(sequence, records);
                assert_eq!(sequence, next);
            }
            assert!(sequence < 1000, "the sequence has begun again");
        });
    }

    #[test]
    fn what_a_reader_adds_up_is_what_the_template_says() {
        templates(|codec, template, request| {
            for (records, base) in [(100, 0), (7, 100), (100, 1 << 40)] {
                let stamp = Stamp {
                    partition: 0,
                    records,
                    timestamp_ms: 5,
                    producer: None,
                };
                template.stamp(request, &stamp);
                let size = request.size();
                let bytes = &mut request.frame_mut()[template.batch..size];
                put(bytes, 0, i64::to_be_bytes(base));
                let (mut read, mut value_bytes) = (ContentSum::default(), 0);
                for batch in batches(bytes) {
                    let batch = batch.unwrap();
                    let mut found = batch.records().unwrap();
                    while let Some(record) = found.next_record().unwrap() {
                        read.add(record.offset.get(), weight(record.key, record.value));
                        value_bytes += record.value.map_or(0, <[u8]>::len) as u64;
                    }
                }
                let prefix = template.prefix(records);
                assert_eq!(read, prefix.content.at(base), "{codec:?}");
                assert_eq!(value_bytes, prefix.value_bytes);
            }
        });
    }

    #[test]
    fn a_lost_doubled_changed_or_moved_record_shows() {
        let records: Vec<u64> = (0..10u32).map(|n| weight(None, Some(&n.to_be_bytes()))).collect();
        let sum = |pairs: &[(i64, u64)]| {
            let mut sum = ContentSum::default();
            pairs.iter().for_each(|&(offset, weight)| sum.add(offset, weight));
            sum
        };
        let right: Vec<(i64, u64)> = (0..).zip(records).collect();
        let mut wrongs = vec![right.clone(); 4];
        wrongs[0].remove(3);
        wrongs[1].push((10, right[9].1));
        wrongs[2][5].1 = weight(None, Some(b"other"));
        (wrongs[3][0].1, wrongs[3][1].1) = (right[1].1, right[0].1);
        for wrong in &wrongs {
            assert_ne!(sum(wrong), sum(&right));
        }
        assert!(sum(&wrongs[3]).same_records(&sum(&right)), "moved, but the same");
        assert!(!sum(&wrongs[2]).same_records(&sum(&right)));
        assert_ne!(weight(None, Some(b"")), weight(Some(b""), None));
    }

    #[test]
    fn as_many_records_as_the_builder_lets_in_fit() {
        for (batch_size, value_size) in [
            (65_536, 1024),
            (8196, 100),
            (16_384, 10),
            (100, 1024),
            (1 << 20, 40),
        ] {
            let records = records_that_fit(batch_size, 0, value_size);
            let size = |count: u32| {
                let mut builder = RecordBatchBuilder::new();
                for _ in 0..count {
                    builder.append(TimestampMs(0), None, Some(&vec![b'x'; value_size]));
                }
                builder.size_bytes() as u64
            };
            assert!(
                records == 1 || size(records) <= batch_size,
                "{batch_size} {value_size}"
            );
            assert!(size(records + 1) > batch_size, "{batch_size} {value_size}");
        }
    }
}
