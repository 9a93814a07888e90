//! [`RawBatch`]: the fields of a batch as they stand, whatever they say.
//!
//! The engine refuses a header that makes no sense; someone who looks at a damaged file wants to see it. Only what
//! Kafka's own reader needs is asked for: a length of at least 14, and a file that reaches so far. Source:
//! `FileLogInputStream`, `DefaultRecordBatch`, `LegacyRecord` of 2.7.2.

use std::fmt;

use milena_engine::record_batch::{HEADER_SIZE_UP_TO_MAGIC, LOG_OVERHEAD, RECORD_BATCH_OVERHEAD};
use milena_engine::units::TimestampMs;

use super::report::Read;
use super::source::Source;
use super::thing::Damage;

/// The smallest length that a batch of any format can state.
const LENGTH_MIN: i32 = 14;
/// Where the part of a batch begins that its checksum is of.
const CRC_COVERS_FROM_V2: usize = 21;
/// The same of a message of format v0 or v1.
const CRC_COVERS_FROM: usize = 16;
/// Of a message of format v0: up to its attributes.
const HEADER_SIZE_V0: usize = LOG_OVERHEAD + 6;
/// Of format v1: up to its timestamp.
const HEADER_SIZE_V1: usize = LOG_OVERHEAD + 14;

/// A batch with its header in memory.
#[derive(Clone, Copy, Debug)]
pub(super) struct RawBatch {
    header: [u8; RECORD_BATCH_OVERHEAD],
    pub(super) size_bytes: usize,
}

/// What is at a position of a log file.
#[derive(Debug)]
pub(super) enum Step {
    Batch(RawBatch),
    /// No whole batch up to the end.
    End,
    /// What no batch can be. Kafka's tool ends here with an exception.
    Broken(Damage),
}

/// Reads the header at `position` of a file that counts up to `end`.
pub(super) fn step(source: &mut Source, position: u64, end: u64) -> Read<Step> {
    if position + HEADER_SIZE_UP_TO_MAGIC as u64 >= end {
        return Ok(Step::End);
    }
    let mut header = [0; RECORD_BATCH_OVERHEAD];
    let read = source.bytes_at(position, RECORD_BATCH_OVERHEAD)?;
    header[..read.len()].copy_from_slice(read);
    let read = read.len();
    let batch = RawBatch {
        header,
        size_bytes: 0,
    };
    let length = batch.i32(8);
    if length < LENGTH_MIN {
        return Ok(Step::Broken(Damage::found(
            format_args!("a length of {length}"),
            format_args!("at least {LENGTH_MIN}"),
        )));
    }
    let size_bytes = LOG_OVERHEAD + length as usize;
    if position + size_bytes as u64 > end {
        return Ok(Step::End);
    }
    let needed = match batch.magic() {
        ..=0 => HEADER_SIZE_V0,
        1 => HEADER_SIZE_V1,
        2.. => RECORD_BATCH_OVERHEAD,
    };
    if read < needed {
        return Ok(Step::Broken(Damage::found(
            format_args!("{read} bytes up to the end of the file"),
            format_args!("a header of {needed}"),
        )));
    }
    Ok(Step::Batch(RawBatch { size_bytes, ..batch }))
}

impl RawBatch {
    fn array<const N: usize>(&self, position: usize) -> [u8; N] {
        let mut out = [0; N];
        out.copy_from_slice(&self.header[position..position + N]);
        out
    }

    fn i64(&self, position: usize) -> i64 {
        i64::from_be_bytes(self.array(position))
    }

    fn i32(&self, position: usize) -> i32 {
        i32::from_be_bytes(self.array(position))
    }

    /// As stored: of a format below v2 the only offset, which is that of the last record.
    pub(super) fn base_offset(&self) -> i64 {
        self.i64(0)
    }

    pub(super) fn last_offset(&self) -> i64 {
        if self.is_v2() {
            self.base_offset().wrapping_add(self.i32(23).into())
        } else {
            self.base_offset()
        }
    }

    /// Negative ones are no format; Kafka takes them for v0 or v1 until it needs the header.
    pub(super) fn magic(&self) -> i8 {
        self.header[16] as i8
    }

    /// Has the layout of v2, which Kafka reads into every magic above 1.
    pub(super) fn is_v2(&self) -> bool {
        self.magic() >= 2
    }

    fn attributes(&self) -> u8 {
        if self.is_v2() {
            self.header[22]
        } else {
            self.header[17]
        }
    }

    pub(super) fn is_append_time(&self) -> bool {
        self.magic() > 0 && self.attributes() & 8 != 0
    }

    /// As Kafka's `TimestampType` calls itself.
    pub(super) fn timestamp_type(&self) -> &'static str {
        match (self.magic(), self.is_append_time()) {
            (0, _) => "NoTimestampType",
            (_, false) => "CreateTime",
            (_, true) => "LogAppendTime",
        }
    }

    pub(super) fn is_compressed(&self) -> bool {
        self.attributes() & 7 != 0
    }

    /// The name of Kafka's `CompressionType`; `Err` with a number that is none.
    pub(super) fn compression_type(&self) -> Result<&'static str, u8> {
        match self.attributes() & 7 {
            0 => Ok("NONE"),
            1 => Ok("GZIP"),
            2 => Ok("SNAPPY"),
            3 => Ok("LZ4"),
            4 => Ok("ZSTD"),
            other => Err(other),
        }
    }

    pub(super) fn is_control(&self) -> bool {
        self.is_v2() && self.attributes() & 0x20 != 0
    }

    pub(super) fn is_transactional(&self) -> bool {
        self.is_v2() && self.attributes() & 0x10 != 0
    }

    pub(super) fn max_timestamp(&self) -> i64 {
        match self.magic() {
            ..=0 => -1,
            1 => self.i64(18),
            _ => self.i64(35),
        }
    }

    pub(super) fn producer_id(&self) -> i64 {
        self.i64(43)
    }

    pub(super) fn producer_epoch(&self) -> i16 {
        i16::from_be_bytes(self.array(51))
    }

    pub(super) fn partition_leader_epoch(&self) -> i32 {
        self.i32(12)
    }

    pub(super) fn base_sequence(&self) -> i32 {
        self.i32(53)
    }

    pub(super) fn last_sequence(&self) -> i32 {
        match self.base_sequence() {
            -1 => -1,
            base => increment_sequence(base, self.i32(23)),
        }
    }

    /// Of format v2, as stored.
    pub(super) fn record_count(&self) -> i32 {
        self.i32(57)
    }

    pub(super) fn stored_crc(&self) -> u32 {
        u32::from_be_bytes(self.array(if self.is_v2() { 17 } else { 12 }))
    }

    /// The checksum of the bytes of the batch at `position`, read piece by piece; `None` where there are too few for
    /// any.
    pub(super) fn computed_crc(&self, source: &mut Source, position: u64) -> Read<Option<u32>> {
        let covers_from = if self.is_v2() {
            CRC_COVERS_FROM_V2
        } else {
            CRC_COVERS_FROM
        };
        if self.is_v2() && self.size_bytes < RECORD_BATCH_OVERHEAD {
            return Ok(None);
        }
        let (from, size) = (position + covers_from as u64, self.size_bytes - covers_from);
        if self.is_v2() {
            let mut crc = 0;
            let read = source.pieces(from, size, |piece| crc = crc32c::crc32c_append(crc, piece))?;
            return Ok((read == size).then_some(crc));
        }
        let mut hasher = crc32fast::Hasher::new();
        let read = source.pieces(from, size, |piece| hasher.update(piece))?;
        Ok((read == size).then(|| hasher.finalize()))
    }

    /// Whether the other batch has the same records at the same offsets, as far as the headers and the checksum tell.
    pub(super) fn has_same_records(&self, other: &RawBatch) -> bool {
        // Of v2, all but the length and the leader epoch is told apart by the checksum or here.
        self.size_bytes == other.size_bytes
            && self.magic() == other.magic()
            && self.base_offset() == other.base_offset()
            && self.last_offset() == other.last_offset()
            && self.stored_crc() == other.stored_crc()
    }

    /// Whether the bytes at `position` have the stored checksum.
    pub(super) fn is_valid_at(&self, source: &mut Source, position: u64) -> Read<bool> {
        Ok(self.computed_crc(source, position)? == Some(self.stored_crc()))
    }

    /// A copy of a v2 batch with the same records behind a header of which everything is sound that the records do not
    /// depend on; offsets and timestamps are counted from 0.
    ///
    /// # Errors
    /// There is no such header: too few bytes, a negative record count.
    pub(super) fn neutral(&self, bytes: &[u8]) -> Result<Vec<u8>, Damage> {
        let count = self.record_count();
        if bytes.len() < RECORD_BATCH_OVERHEAD {
            return Err(Damage::found(
                format_args!("{} bytes", bytes.len()),
                format_args!("a header of {RECORD_BATCH_OVERHEAD}"),
            ));
        }
        if count < 0 {
            return Err(Damage::found(
                format_args!("a record count of {count}"),
                "at least 0",
            ));
        }
        let mut neutral = bytes.to_vec();
        neutral[0..8].fill(0);
        neutral[16] = 2;
        neutral[21..23].copy_from_slice(&[0, self.attributes() & 7]);
        neutral[23..27].copy_from_slice(&count.saturating_sub(1).max(0).to_be_bytes());
        neutral[27..43].fill(0);
        neutral[43..57].fill(0xff);
        Ok(neutral)
    }

    /// Of a record of a v2 batch, by what it says relative to the first.
    pub(super) fn timestamp(&self, delta: TimestampMs) -> i64 {
        if self.is_append_time() {
            self.max_timestamp()
        } else {
            self.i64(27).wrapping_add(delta.get())
        }
    }
}

/// `sequence` and so many further, which follow the largest with 0 (`DefaultRecordBatch.incrementSequence`).
pub(super) fn increment_sequence(sequence: i32, increment: i32) -> i32 {
    if sequence > i32::MAX.wrapping_sub(increment) {
        increment
            .wrapping_sub(i32::MAX.wrapping_sub(sequence))
            .wrapping_sub(1)
    } else {
        sequence.wrapping_add(increment)
    }
}

/// The line up to where Kafka's tool prints the position.
impl fmt::Display for RawBatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.is_v2() {
            return write!(f, "offset: {}", self.last_offset());
        }
        write!(
            f,
            "baseOffset: {} lastOffset: {} count: {} baseSequence: {} lastSequence: {} producerId: {} \
             producerEpoch: {} partitionLeaderEpoch: {} isTransactional: {} isControl: {}",
            self.base_offset(),
            self.last_offset(),
            self.record_count(),
            self.base_sequence(),
            self.last_sequence(),
            self.producer_id(),
            self.producer_epoch(),
            self.partition_leader_epoch(),
            self.is_transactional(),
            self.is_control(),
        )
    }
}
