//! [`RecordBatchBuilder`]: makes batches of any layout. Used by the coordinators, by conversion, by tools and
//! tests.
//!
//! Records are compressed as they are appended: memory holds the output, not the uncompressed input. Output
//! equals that of Kafka's `MemoryRecordsBuilder` byte for byte where the codec is none, and decompresses to
//! the same bytes otherwise.
//!
//! Options come before the first record. Wrong use (offsets that do not increase, headers below v2, a
//! transaction without a producer) is a bug of the caller and panics. Foreign records come by
//! [`RecordBatchBuilder::append_record`], which refuses what does not fit; a foreign producer is checked by who
//! sets it.
//!
//! Source: `MemoryRecordsBuilder`, `DefaultRecord`, `LegacyRecord` of 2.7.2.

use super::compression::Compressor;
use super::record::{Record, RecordHeader};
use super::varint::{size_of_varint, size_of_varlong, write_varint, write_varlong};
use super::{
    BatchError, CRC_START, ControlRecord, LOG_OVERHEAD, RECORD_BATCH_OVERHEAD, RECORD_OVERHEAD_V0,
    RECORD_OVERHEAD_V1,
};
use crate::config::{Codec, Magic, TimestampType};
use crate::units::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, Sequence, TimestampMs};

/// Bytes that a batch made of foreign records may have; what a codec holds back and its overhead are beside
/// it, so that the size of a batch is an i32.
///
/// **Deviation:** Kafka rewrites batches of up to 2 GiB, and fails with an unchecked exception beyond.
const REWRITTEN_SIZE_MAX: usize = 1 << 30;

/// Collects records into one batch (or, for v0 and v1 without compression, into one message each).
#[derive(Debug)]
pub struct RecordBatchBuilder {
    magic: Magic,
    codec: Codec,
    base_offset: Offset,
    leader_epoch: Option<LeaderEpoch>,
    /// `Some` is `LogAppendTime`.
    append_time: Option<TimestampMs>,
    producer: Option<(ProducerId, ProducerEpoch, Option<Sequence>)>,
    is_transactional: bool,
    is_control: bool,
    /// `None` until the first record.
    output: Option<Compressor>,
    scratch: Vec<u8>,
    record_count: u32,
    first_timestamp: TimestampMs,
    max_timestamp: TimestampMs,
    offset_of_max_timestamp: Option<Offset>,
    last_offset: Option<Offset>,
    largest_message: usize,
}

impl Default for RecordBatchBuilder {
    fn default() -> Self {
        RecordBatchBuilder::new()
    }
}

impl RecordBatchBuilder {
    /// A v2 batch without compression, of create time, with base offset 0, as a producer without idempotence
    /// sends it.
    pub fn new() -> RecordBatchBuilder {
        RecordBatchBuilder {
            magic: Magic::V2,
            codec: Codec::None,
            base_offset: Offset::ZERO,
            leader_epoch: None,
            append_time: None,
            producer: None,
            is_transactional: false,
            is_control: false,
            output: None,
            scratch: Vec::new(),
            record_count: 0,
            first_timestamp: TimestampMs::NONE,
            max_timestamp: TimestampMs::NONE,
            offset_of_max_timestamp: None,
            last_offset: None,
            largest_message: 0,
        }
    }

    /// The layout.
    #[must_use]
    pub fn magic(mut self, magic: Magic) -> Self {
        self.magic = magic;
        self
    }

    /// How the records are compressed.
    #[must_use]
    pub fn codec(mut self, codec: Codec) -> Self {
        self.codec = codec;
        self
    }

    /// Offset of the first record, unless that is appended with another.
    #[must_use]
    pub fn base_offset(mut self, offset: Offset) -> Self {
        self.base_offset = offset;
        self
    }

    /// As a leader stamps it; v2 alone holds it.
    #[must_use]
    pub fn leader_epoch(mut self, epoch: LeaderEpoch) -> Self {
        self.leader_epoch = Some(epoch);
        self
    }

    /// Marks the batch as `LogAppendTime`, stamped with `time`.
    #[must_use]
    pub fn log_append_time(mut self, time: TimestampMs) -> Self {
        self.append_time = Some(time);
        self
    }

    /// Idempotent producer; `base_sequence` is `None` in control batches alone.
    #[must_use]
    pub fn producer(mut self, id: ProducerId, epoch: ProducerEpoch, base_sequence: Option<Sequence>) -> Self {
        self.producer = Some((id, epoch, base_sequence));
        self
    }

    /// Part of a transaction; needs a producer.
    #[must_use]
    pub fn transactional(mut self, is_transactional: bool) -> Self {
        self.is_transactional = is_transactional;
        self
    }

    /// Holds markers, not records; needs a producer.
    #[must_use]
    pub fn control(mut self, is_control: bool) -> Self {
        self.is_control = is_control;
        self
    }

    /// The marker that ends a transaction, as one control batch with base offset 0.
    pub fn end_transaction_marker(
        marker: ControlRecord,
        id: ProducerId,
        epoch: ProducerEpoch,
        timestamp: TimestampMs,
    ) -> Vec<u8> {
        let mut key = [0; 4];
        key[2..].copy_from_slice(&(marker.kind as i16).to_be_bytes());
        let mut value = [0; 6];
        value[2..].copy_from_slice(&marker.coordinator_epoch.to_be_bytes());
        let mut builder = RecordBatchBuilder::new()
            .producer(id, epoch, None)
            .transactional(true)
            .control(true);
        builder.append(timestamp, Some(&key), Some(&value));
        builder.build()
    }

    /// Appends a record without headers at the next offset, which it returns.
    pub fn append(&mut self, timestamp: TimestampMs, key: Option<&[u8]>, value: Option<&[u8]>) -> Offset {
        self.append_with_headers(timestamp, key, value, &[])
    }

    /// Appends a record at the next offset, which it returns.
    pub fn append_with_headers(
        &mut self,
        timestamp: TimestampMs,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[RecordHeader<'_>],
    ) -> Offset {
        let offset = self.next_offset();
        self.append_at(offset, timestamp, key, value, headers);
        offset
    }

    /// Appends a record at `offset`, which must be larger than the one before and at most 2^31 − 1 above the
    /// base offset.
    ///
    /// # Panics
    /// If it is not, or if headers are given below v2.
    pub fn append_at(
        &mut self,
        offset: Offset,
        timestamp: TimestampMs,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[RecordHeader<'_>],
    ) {
        let mut encoded = Vec::new();
        for header in headers {
            write_nullable(&mut encoded, Some(header.key));
            write_nullable(&mut encoded, header.value);
        }
        self.push(offset, timestamp, key, value, headers.len(), &encoded);
    }

    /// Appends a record of another batch at `offset`, with its headers if this is v2.
    ///
    /// # Errors
    /// `Structure` if the offset is not above the one before or out of the base offset's reach; `TooLarge` beyond
    /// 1 GiB. Nothing was appended then. Positions are 0.
    pub fn append_record(&mut self, offset: Offset, record: &Record<'_>) -> Result<(), BatchError> {
        let delta = offset.get().checked_sub(self.base_offset.get());
        let fits = delta.is_some_and(|delta| (0..=i64::from(i32::MAX)).contains(&delta))
            && (0..i64::MAX).contains(&offset.get());
        if !fits || self.last_offset.is_some_and(|last| offset <= last) {
            return Err(BatchError::Structure {
                position: 0,
                expected: "offsets that increase within a batch, by less than 2^31 in all",
                found: offset.get(),
            });
        }
        let headers = if self.magic == Magic::V2 {
            record.headers
        } else {
            Default::default()
        };
        let in_one = self.magic == Magic::V2 || self.codec != Codec::None;
        let before = if in_one { self.size_bytes() } else { 0 };
        let payload = record.key.map_or(0, <[u8]>::len) + record.value.map_or(0, <[u8]>::len);
        let size_bytes = before + payload + headers.encoded().len();
        if size_bytes > REWRITTEN_SIZE_MAX {
            return Err(BatchError::TooLarge {
                size_bytes,
                limit_bytes: REWRITTEN_SIZE_MAX,
            });
        }
        self.push(
            offset,
            record.timestamp,
            record.key,
            record.value,
            headers.len(),
            headers.encoded(),
        );
        Ok(())
    }

    fn push(
        &mut self,
        offset: Offset,
        timestamp: TimestampMs,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        header_count: usize,
        headers: &[u8],
    ) {
        assert!(
            self.last_offset.is_none_or(|last| offset > last),
            "offsets of a batch increase"
        );
        let delta = offset.since(self.base_offset);
        assert!(
            (0..=i64::from(i32::MAX)).contains(&delta),
            "the offset delta of a record is an i32"
        );
        if self.record_count == 0 {
            self.first_timestamp = timestamp;
        }
        let timestamp = match self.append_time {
            // in v2 the header alone tells the append time
            Some(time) if self.magic < Magic::V2 => time,
            _ => timestamp,
        };
        self.scratch.clear();
        match self.magic {
            Magic::V2 => {
                let time_delta = timestamp.get().wrapping_sub(self.first_timestamp.get());
                let size = 1
                    + size_of_varlong(time_delta)
                    + size_of_varint(delta as i32)
                    + nullable_size(key)
                    + nullable_size(value)
                    + size_of_varint(header_count as i32)
                    + headers.len();
                write_varint(
                    &mut self.scratch,
                    i32::try_from(size).expect("a record is smaller than 2 GiB"),
                );
                self.scratch.push(0);
                write_varlong(&mut self.scratch, time_delta);
                write_varint(&mut self.scratch, delta as i32);
                write_nullable(&mut self.scratch, key);
                write_nullable(&mut self.scratch, value);
                write_varint(&mut self.scratch, header_count as i32);
                self.scratch.extend_from_slice(headers);
            }
            Magic::V0 | Magic::V1 => {
                assert!(header_count == 0, "message formats v0 and v1 have no headers");
                let relative = self.magic == Magic::V1 && self.codec != Codec::None;
                let offset = if relative { delta } else { offset.get() };
                let attributes = legacy_attributes(self.magic, Codec::None, self.append_time.is_some());
                write_message(
                    &mut self.scratch,
                    offset,
                    self.magic,
                    attributes,
                    timestamp,
                    key,
                    value,
                );
                self.largest_message = self.largest_message.max(self.scratch.len());
            }
        }
        let header_size = self.header_size();
        let output = self
            .output
            .get_or_insert_with(|| Compressor::new(self.codec, self.magic, vec![0; header_size]));
        output.write(&self.scratch);
        self.record_count += 1;
        self.last_offset = Some(offset);
        if self.magic > Magic::V0 && timestamp > self.max_timestamp {
            self.max_timestamp = timestamp;
            self.offset_of_max_timestamp = Some(offset);
        }
    }

    /// Bytes before the first record.
    fn header_size(&self) -> usize {
        match (self.magic, self.codec) {
            (Magic::V2, _) => RECORD_BATCH_OVERHEAD,
            (_, Codec::None) => 0,
            (magic, _) => LOG_OVERHEAD + legacy_overhead(magic),
        }
    }

    /// Offset that [`RecordBatchBuilder::append`] will give.
    pub fn next_offset(&self) -> Offset {
        self.last_offset.map_or(self.base_offset, |last| last.plus(1))
    }

    /// Appended so far.
    pub fn record_count(&self) -> u32 {
        self.record_count
    }

    /// No record was appended so far.
    pub fn is_empty(&self) -> bool {
        self.record_count == 0
    }

    /// Size of the batch if it were built now; exact without compression, otherwise what the codec holds back
    /// is missing.
    pub fn size_bytes(&self) -> usize {
        self.output
            .as_ref()
            .map_or(self.header_size(), Compressor::size_bytes)
    }

    /// Largest timestamp of the records, or the append time; [`TimestampMs::NONE`] if there is none.
    pub fn max_timestamp(&self) -> TimestampMs {
        self.append_time.unwrap_or(self.max_timestamp)
    }

    /// First record with the largest timestamp.
    pub fn offset_of_max_timestamp(&self) -> Option<Offset> {
        self.offset_of_max_timestamp
    }

    /// Size of the largest message, with its 12 bytes of overhead, where each record is a message of its own.
    pub(super) fn largest_message(&self) -> usize {
        self.largest_message
    }

    /// The finished bytes; empty if there is no record.
    ///
    /// # Panics
    /// If the options contradict each other: transactional or control without a producer, a producer or zstd
    /// below v2.
    pub fn build(self) -> Vec<u8> {
        if self.magic < Magic::V2 {
            assert!(
                self.producer.is_none() && !self.is_transactional && !self.is_control,
                "v2 alone has producers"
            );
            assert!(self.codec != Codec::Zstd, "zstd needs message format v2");
        }
        if let Some((_, epoch, sequence)) = self.producer {
            assert!(epoch.get() >= 0, "a producer has an epoch");
            assert!(sequence.is_some() || self.is_control, "a producer has a sequence");
        } else {
            assert!(
                !self.is_transactional && !self.is_control,
                "transactions have a producer"
            );
        }
        let (Some(last), Some(output)) = (self.last_offset, self.output) else {
            return Vec::new();
        };
        let max_timestamp = self.append_time.unwrap_or(self.max_timestamp);
        let mut out = output.finish();
        match (self.magic, self.codec) {
            (Magic::V2, codec) => {
                let (id, epoch, sequence) = match self.producer {
                    Some((id, epoch, sequence)) => {
                        (id.get(), epoch.get(), sequence.map_or(-1, Sequence::get))
                    }
                    None => (-1, -1, -1),
                };
                let kind = if self.append_time.is_some() {
                    TimestampType::LogAppendTime
                } else {
                    TimestampType::CreateTime
                };
                let length = i32::try_from(out.len() - LOG_OVERHEAD).expect("a batch is smaller than 2 GiB");
                let attributes = v2_attributes(codec, kind, self.is_transactional, self.is_control);
                out[0..8].copy_from_slice(&self.base_offset.get().to_be_bytes());
                out[8..12].copy_from_slice(&length.to_be_bytes());
                out[12..16].copy_from_slice(&self.leader_epoch.map_or(-1, LeaderEpoch::get).to_be_bytes());
                out[16] = Magic::V2 as u8;
                out[21..23].copy_from_slice(&[0, attributes]);
                out[23..27].copy_from_slice(&(last.since(self.base_offset) as i32).to_be_bytes());
                out[27..35].copy_from_slice(&self.first_timestamp.get().to_be_bytes());
                out[35..43].copy_from_slice(&max_timestamp.get().to_be_bytes());
                out[43..51].copy_from_slice(&id.to_be_bytes());
                out[51..53].copy_from_slice(&epoch.to_be_bytes());
                out[53..57].copy_from_slice(&sequence.to_be_bytes());
                out[57..61].copy_from_slice(&self.record_count.to_be_bytes());
                let crc = crc32c::crc32c(&out[CRC_START..]);
                out[17..21].copy_from_slice(&crc.to_be_bytes());
            }
            (_, Codec::None) => {}
            (magic, codec) => {
                write_wrapper_header(
                    &mut out,
                    magic,
                    codec,
                    last,
                    max_timestamp,
                    self.append_time.is_some(),
                );
            }
        }
        out
    }
}

/// Compresses a v0 set, whose messages carry their final offsets, into one wrapper.
pub(super) fn wrap_v0(messages: &[u8], codec: Codec, last: Offset) -> Vec<u8> {
    let mut output = Compressor::new(codec, Magic::V0, vec![0; LOG_OVERHEAD + RECORD_OVERHEAD_V0]);
    output.write(messages);
    let mut out = output.finish();
    write_wrapper_header(&mut out, Magic::V0, codec, last, TimestampMs::NONE, false);
    out
}

/// Fills in the header of a wrapper whose compressed value stands in `out` behind the room for it.
fn write_wrapper_header(
    out: &mut [u8],
    magic: Magic,
    codec: Codec,
    last: Offset,
    timestamp: TimestampMs,
    append_time: bool,
) {
    let length = i32::try_from(out.len() - LOG_OVERHEAD).expect("a batch is smaller than 2 GiB");
    let overhead = legacy_overhead(magic);
    let mut header = Vec::with_capacity(LOG_OVERHEAD + overhead);
    let attributes = legacy_attributes(magic, codec, append_time);
    write_message(&mut header, last.get(), magic, attributes, timestamp, None, None);
    let end = header.len();
    header[8..12].copy_from_slice(&length.to_be_bytes());
    header[end - 4..].copy_from_slice(&(length - overhead as i32).to_be_bytes());
    out[..end].copy_from_slice(&header);
    let crc = crc32fast::hash(&out[16..]);
    out[12..16].copy_from_slice(&crc.to_be_bytes());
}

/// Bytes of a message beside its 12 of overhead, key and value.
pub(super) const fn legacy_overhead(magic: Magic) -> usize {
    match magic {
        Magic::V0 => RECORD_OVERHEAD_V0,
        _ => RECORD_OVERHEAD_V1,
    }
}

pub(super) const fn v2_attributes(
    codec: Codec,
    kind: TimestampType,
    transactional: bool,
    control: bool,
) -> u8 {
    codec as u8 | (kind as u8) << 3 | (transactional as u8) << 4 | (control as u8) << 5
}

pub(super) const fn legacy_attributes(magic: Magic, codec: Codec, append_time: bool) -> u8 {
    let kind = append_time && !matches!(magic, Magic::V0);
    codec as u8 | (kind as u8) << 3
}

fn write_message(
    out: &mut Vec<u8>,
    offset: i64,
    magic: Magic,
    attributes: u8,
    timestamp: TimestampMs,
    key: Option<&[u8]>,
    value: Option<&[u8]>,
) {
    let start = out.len();
    let size = legacy_overhead(magic) + key.map_or(0, <[u8]>::len) + value.map_or(0, <[u8]>::len);
    out.extend_from_slice(&offset.to_be_bytes());
    out.extend_from_slice(
        &i32::try_from(size)
            .expect("a message is smaller than 2 GiB")
            .to_be_bytes(),
    );
    out.extend_from_slice(&[0, 0, 0, 0, magic as u8, attributes]);
    if magic == Magic::V1 {
        out.extend_from_slice(&timestamp.get().to_be_bytes());
    }
    for field in [key, value] {
        match field {
            Some(bytes) => {
                // fits, since the whole does
                out.extend_from_slice(&(bytes.len() as u32).to_be_bytes());
                out.extend_from_slice(bytes);
            }
            None => out.extend_from_slice(&(-1i32).to_be_bytes()),
        }
    }
    let crc = crc32fast::hash(&out[start + 16..]);
    out[start + 12..start + 16].copy_from_slice(&crc.to_be_bytes());
}

fn nullable_size(field: Option<&[u8]>) -> usize {
    // a length beyond i32 fails the check of the record's size
    field.map_or(1, |bytes| size_of_varint(bytes.len() as i32) + bytes.len())
}

fn write_nullable(out: &mut Vec<u8>, field: Option<&[u8]>) {
    match field {
        Some(bytes) => {
            write_varint(
                out,
                i32::try_from(bytes.len()).expect("a field is smaller than 2 GiB"),
            );
            out.extend_from_slice(bytes);
        }
        None => write_varint(out, -1),
    }
}
