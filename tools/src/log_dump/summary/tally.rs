//! [`Tally`]: what is counted, of a segment, a partition or all.

use std::collections::{BTreeMap, BTreeSet};

use milena_engine::record_batch::{LOG_OVERHEAD, RECORD_BATCH_OVERHEAD};
use serde::ser::SerializeStruct;
use serde::{Serialize, Serializer};

use super::super::control::Control;
use super::super::raw_batch::RawBatch;
use super::super::thing::{BatchThing, Layout, RecordThing};

/// Of messages of format v0: what a wrapper has around the set in it, of v1 8 more.
const WRAPPER_OVERHEAD: usize = LOG_OVERHEAD + 14;
/// Powers of two from 1 to 2^31, and the null keys and the empty ones.
const BUCKET_COUNT: usize = 34;

#[derive(Clone, Debug, Default)]
pub(in super::super) struct Tally {
    is_filtered: bool,
    pub(super) offsets: Option<(i64, i64)>,
    pub(super) times: Option<(i64, i64)>,
    pub(super) batches: u64,
    /// Without control records.
    pub(super) records: u64,
    pub(super) control_records: u64,
    /// Of batches.
    pub(super) size_bytes: u64,
    pub(super) codecs: BTreeMap<&'static str, CodecTally>,
    pub(super) producers: BTreeSet<i64>,
    pub(super) committed: u64,
    pub(super) aborted: u64,
    pub(super) open: Vec<OpenTransaction>,
    pub(super) null_keys: u64,
    /// Records with a key and a null value.
    pub(super) tombstones: u64,
    pub(super) headers: u64,
    key_sizes: Vec<KeySizeTally>,
    pub(super) largest_batch: Option<LargestBatch>,
    pub(super) damages: u64,
}

/// The batches of one codec.
#[derive(Clone, Copy, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct CodecTally {
    pub(super) batches: u64,
    pub(super) records: u64,
    /// Of records as they are stored, without the headers of batches.
    pub(super) stored_bytes: u64,
    /// Of the same records, not compressed.
    pub(super) uncompressed_bytes: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct OpenTransaction {
    pub(super) producer_id: i64,
    pub(super) first_offset: i64,
}

#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct LargestBatch {
    pub(super) size_bytes: u64,
    pub(super) last_offset: i64,
    pub(super) position: u64,
}

/// Records with keys of `from` to `to` bytes; both −1 for null.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct KeySizeTally {
    pub(super) from: i64,
    pub(super) to: i64,
    pub(super) records: u64,
    /// Of keys and values.
    pub(super) bytes: u64,
}

/// Which of the buckets a key of that size belongs to.
fn bucket_of(size: i64) -> usize {
    match size {
        ..0 => 0,
        0 => 1,
        _ => (2 + size.ilog2() as usize).min(BUCKET_COUNT - 1),
    }
}

fn bounds(bucket: usize) -> (i64, i64) {
    match bucket {
        0 => (-1, -1),
        1 => (0, 0),
        _ => (1 << (bucket - 2), (1 << (bucket - 1)) - 1),
    }
}

fn widened(range: Option<(i64, i64)>, first: i64, last: i64) -> Option<(i64, i64)> {
    let (from, to) = range.unwrap_or((first, last));
    Some((from.min(first), to.max(last)))
}

impl Tally {
    /// `is_filtered`: not all records of a batch are seen.
    pub(super) fn new(is_filtered: bool) -> Tally {
        Tally {
            is_filtered,
            key_sizes: vec![KeySizeTally::default(); BUCKET_COUNT],
            ..Tally::default()
        }
    }

    pub(super) fn is_filtered(&self) -> bool {
        self.is_filtered
    }

    pub(super) fn batch(&mut self, batch: &BatchThing<'_>) {
        let raw = batch.raw;
        self.batches += 1;
        self.size_bytes += raw.size_bytes as u64;
        if !batch.is_valid() {
            self.damages += 1;
        }
        if raw.is_v2() && raw.producer_id() >= 0 {
            self.producers.insert(raw.producer_id());
        }
        let codec = self.codec(raw);
        codec.batches += 1;
        codec.stored_bytes += stored_size(raw);
        if self
            .largest_batch
            .is_none_or(|largest| largest.size_bytes < raw.size_bytes as u64)
        {
            self.largest_batch = Some(LargestBatch {
                size_bytes: raw.size_bytes as u64,
                last_offset: raw.last_offset(),
                position: batch.position,
            });
        }
    }

    fn codec(&mut self, raw: &RawBatch) -> &mut CodecTally {
        let name = match raw.compression_type() {
            Ok("NONE") => "none",
            Ok("GZIP") => "gzip",
            Ok("SNAPPY") => "snappy",
            Ok("LZ4") => "lz4",
            Ok("ZSTD") => "zstd",
            _ => "unknown",
        };
        self.codecs.entry(name).or_default()
    }

    fn seen(&mut self, record: &RecordThing<'_>) {
        self.offsets = widened(self.offsets, record.offset, record.offset);
        if record.timestamp >= 0 {
            self.times = widened(self.times, record.timestamp, record.timestamp);
        }
        let codec = self.codec(record.raw);
        codec.records += 1;
        codec.uncompressed_bytes += record.size_bytes();
    }

    pub(super) fn record(&mut self, record: &RecordThing<'_>) {
        self.seen(record);
        self.records += 1;
        let has_key = record.key_size >= 0;
        self.null_keys += u64::from(!has_key);
        self.tombstones += u64::from(has_key && record.value_size < 0);
        if let Layout::Record { headers, .. } = record.layout {
            self.headers += headers.len() as u64;
        }
        let bucket = &mut self.key_sizes[bucket_of(record.key_size)];
        bucket.records += 1;
        bucket.bytes += (record.key_size.max(0) + record.value_size.max(0)) as u64;
    }

    pub(super) fn control(&mut self, record: &RecordThing<'_>, control: Control) {
        self.seen(record);
        self.control_records += 1;
        self.committed += u64::from(control.is_commit());
        self.aborted += u64::from(control.is_abort());
    }

    pub(super) fn damaged(&mut self) {
        self.damages += 1;
    }

    /// The transactions that are open at the end.
    pub(super) fn set_open(&mut self, open: &BTreeMap<i64, i64>) {
        self.open = open
            .iter()
            .map(|(&producer_id, &first_offset)| OpenTransaction {
                producer_id,
                first_offset,
            })
            .collect();
    }

    /// All but the open transactions, which those of the last part are.
    pub(super) fn add(&mut self, part: &Tally) {
        for (range, other) in [(&mut self.offsets, part.offsets), (&mut self.times, part.times)] {
            if let Some((first, last)) = other {
                *range = widened(*range, first, last);
            }
        }
        self.batches += part.batches;
        self.records += part.records;
        self.control_records += part.control_records;
        self.size_bytes += part.size_bytes;
        for (name, other) in &part.codecs {
            let codec = self.codecs.entry(name).or_default();
            codec.batches += other.batches;
            codec.records += other.records;
            codec.stored_bytes += other.stored_bytes;
            codec.uncompressed_bytes += other.uncompressed_bytes;
        }
        self.producers.extend(&part.producers);
        self.committed += part.committed;
        self.aborted += part.aborted;
        self.null_keys += part.null_keys;
        self.tombstones += part.tombstones;
        self.headers += part.headers;
        for (bucket, other) in self.key_sizes.iter_mut().zip(&part.key_sizes) {
            bucket.records += other.records;
            bucket.bytes += other.bytes;
        }
        if let Some(other) = part.largest_batch
            && self
                .largest_batch
                .is_none_or(|largest| largest.size_bytes < other.size_bytes)
        {
            self.largest_batch = Some(other);
        }
        self.damages += part.damages;
    }

    /// How many times smaller the records are as they are stored; `None` where that is not known.
    pub(super) fn compression_ratio(&self) -> Option<f64> {
        let stored: u64 = self.codecs.values().map(|codec| codec.stored_bytes).sum();
        let uncompressed: u64 = self.codecs.values().map(|codec| codec.uncompressed_bytes).sum();
        (!self.is_filtered && stored > 0).then(|| uncompressed as f64 / stored as f64)
    }

    /// Those sizes that there are.
    pub(super) fn key_sizes(&self) -> Vec<KeySizeTally> {
        let buckets = self.key_sizes.iter().enumerate();
        buckets
            .filter(|(_, bucket)| bucket.records > 0)
            .map(|(index, bucket)| {
                let (from, to) = bounds(index);
                KeySizeTally { from, to, ..*bucket }
            })
            .collect()
    }
}

/// Of a batch without its header; a message of format v0 or v1 that is not compressed is its own header.
fn stored_size(raw: &RawBatch) -> u64 {
    let overhead = match (raw.magic(), raw.is_compressed()) {
        (2.., _) => RECORD_BATCH_OVERHEAD,
        (_, false) => 0,
        (1, true) => WRAPPER_OVERHEAD + 8,
        (_, true) => WRAPPER_OVERHEAD,
    };
    raw.size_bytes.saturating_sub(overhead) as u64
}

impl Serialize for Tally {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Transactions<'a> {
            committed: u64,
            aborted: u64,
            open: &'a [OpenTransaction],
        }
        let mut fields = to.serialize_struct("Tally", 18)?;
        fields.serialize_field("firstOffset", &self.offsets.map(|offsets| offsets.0))?;
        fields.serialize_field("lastOffset", &self.offsets.map(|offsets| offsets.1))?;
        fields.serialize_field("minTimestamp", &self.times.map(|times| times.0))?;
        fields.serialize_field("maxTimestamp", &self.times.map(|times| times.1))?;
        fields.serialize_field("batches", &self.batches)?;
        fields.serialize_field("records", &self.records)?;
        fields.serialize_field("controlRecords", &self.control_records)?;
        fields.serialize_field("sizeBytes", &self.size_bytes)?;
        fields.serialize_field("codecs", &self.codecs)?;
        fields.serialize_field("compressionRatio", &self.compression_ratio())?;
        fields.serialize_field("producers", &self.producers.len())?;
        let transactions = Transactions {
            committed: self.committed,
            aborted: self.aborted,
            open: &self.open,
        };
        fields.serialize_field("transactions", &transactions)?;
        fields.serialize_field("nullKeys", &self.null_keys)?;
        fields.serialize_field("tombstones", &self.tombstones)?;
        fields.serialize_field("headers", &self.headers)?;
        fields.serialize_field("keySizes", &self.key_sizes())?;
        fields.serialize_field("largestBatch", &self.largest_batch)?;
        fields.serialize_field("damages", &self.damages)?;
        fields.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_size_is_in_the_bucket_whose_bounds_hold_it() {
        for size in [-1, 0, 1, 2, 3, 4, 7, 8, 1023, 1024, i64::from(i32::MAX)] {
            let (from, to) = bounds(bucket_of(size));
            assert!((from..=to).contains(&size), "{size} in {from} to {to}");
        }
        assert_eq!((bounds(2), bounds(3), bounds(4)), ((1, 1), (2, 3), (4, 7)));
    }

    #[test]
    fn a_sum_has_the_widest_ranges_and_the_largest_batch() {
        let of = |offsets, size_bytes| Tally {
            offsets,
            largest_batch: Some(LargestBatch {
                size_bytes,
                last_offset: 0,
                position: 0,
            }),
            ..Tally::new(false)
        };
        let mut sum = of(Some((5, 9)), 10);
        sum.add(&of(Some((1, 6)), 30));
        sum.add(&of(None, 20));
        assert_eq!(sum.offsets, Some((1, 9)));
        assert_eq!(sum.largest_batch.map(|batch| batch.size_bytes), Some(30));
    }
}
