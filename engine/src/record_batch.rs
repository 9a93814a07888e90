//! Record batches: checked views over bytes, of every layout that a Kafka 2.7.2 log can hold.
//!
//! A [`Batch`] is one entry of a log: a batch of message format v2, or one message (possibly a wrapper around
//! a compressed set) of the formats v0 and v1. [`Batch::parse`] checks the header; [`Batch::verify_crc`] the
//! bytes; [`Batch::records`] walks the records, decompressing through a bounded window.
//!
//! Layout v2, big-endian; header size = 8 + 4 + 4 + 1 + 4 + 2 + 4 + 8 + 8 + 8 + 2 + 4 + 4 = 61:
//!
//! ```text
//!  0 base offset i64 | 8 length i32 (of what follows) | 12 leader epoch i32 | 16 magic i8 | 17 crc u32
//! 21 attributes i16: 0-2 codec, 3 timestamp type, 4 transactional, 5 control
//! 23 last offset delta i32 | 27 first timestamp i64 | 35 max timestamp i64
//! 43 producer id i64 | 51 producer epoch i16 | 53 base sequence i32 | 57 record count i32 | 61 records
//! ```
//!
//! The CRC-32C covers byte 21 to the end. Base offset, length, leader epoch and magic lie before it, so that
//! a leader stamps offset and epoch without touching the producer's bytes. Layouts v0 and v1 are drawn in
//! `legacy.rs`.
//!
//! Invariants: no input makes this module panic, overflow or allocate by a length that the input states;
//! every refusal is a [`BatchError`] with position, expected and found. What it leaves to others: files (the
//! log), producer state, the wire.
//!
//! Source: `org.apache.kafka.common.record` of 2.7.2; KIP-98 (v2), KIP-31 and KIP-32 (v1).

mod builder;
pub mod compression;
mod convert;
mod legacy;
mod record;
mod validated;
mod validator;
mod varint;

pub use builder::RecordBatchBuilder;
pub use convert::convert_down;
pub use legacy::{InnerMessages, absolute_base};
pub use record::{Headers, Record, RecordHeader, RecordIter};
pub use validated::ValidatedBatches;
pub use validator::{AppendOrigin, Level, RequestRules, ValidationRules, validate};

use crate::config::{Codec, Magic, TimestampType};
use crate::units::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, Sequence, TimestampMs};

/// Bytes before what the length field counts: base offset (8) and the length itself (4).
pub const LOG_OVERHEAD: usize = 12;
/// Bytes of a v2 header: all that precedes the records.
pub const RECORD_BATCH_OVERHEAD: usize = 61;
/// Bytes up to and including the magic, which sits at the same place in all layouts: 8 + 4 + 4 + 1.
pub const HEADER_SIZE_UP_TO_MAGIC: usize = 17;

/// Smallest value of the length field: crc 4, magic 1, attributes 1, key length 4, value length 4 (format
/// v0).
pub(crate) const RECORD_OVERHEAD_V0: usize = 14;
/// As above with the 8 bytes of the timestamp (format v1).
pub(crate) const RECORD_OVERHEAD_V1: usize = 22;

/// First byte that the CRC of a v2 batch covers.
pub(crate) const CRC_START: usize = 21;
const MAGIC_POSITION: usize = 16;
const CRC_POSITION: usize = 17;
const LEGACY_CRC_POSITION: usize = 12;

/// Why bytes are not a batch, or a batch not what it claims. Positions count from the start of the bytes
/// given.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// The bytes end before the batch does: normal at the end of a fetched or torn range.
    #[error("batch at byte {position} is incomplete: {found} bytes, expected {expected}")]
    Partial {
        position: usize,
        expected: usize,
        found: usize,
    },
    /// The length field is smaller than any batch of its layout.
    #[error("batch at byte {position} states a length of {found}, expected at least {minimum}")]
    Size {
        position: usize,
        found: i32,
        minimum: usize,
    },
    #[error("batch at byte {position} has magic {found}, expected 0, 1 or 2")]
    Magic { position: usize, found: i8 },
    #[error("batch at byte {position} has compression codec {found}, expected 0 to 4")]
    UnknownCodec { position: usize, found: u8 },
    /// First or last offset is negative, out of order or beyond the largest offset.
    #[error("batch at byte {position} has base offset {base} and last offset delta {delta}")]
    OffsetRange { position: usize, base: i64, delta: i32 },
    #[error("batch at byte {position} has record count {found}, expected at least 0")]
    RecordCount { position: usize, found: i32 },
    /// The stored checksum is not that of the bytes.
    #[error("batch at byte {position} is corrupt: stored crc {stored}, computed crc {computed}")]
    Crc {
        position: usize,
        stored: u32,
        computed: u32,
    },
    /// A record, inside the batch. For compressed batches the position counts decompressed bytes.
    #[error("record data at byte {position}: expected {expected}, found {found}")]
    Structure {
        position: usize,
        expected: &'static str,
        found: i64,
    },
    /// The compressed stream is broken; the position counts compressed bytes.
    #[error("{} data at byte {position}: {reason}", codec.name())]
    Compression {
        codec: Codec,
        position: usize,
        reason: &'static str,
    },
    /// A codec that the format cannot carry: zstd in v0 or v1.
    #[error("compression {} is not possible in message format v{}", codec.name(), *magic as u8)]
    UnsupportedCompression { codec: Codec, magic: Magic },
    /// Records that would be rewritten into a batch that is too large.
    #[error("the rewritten batch has {size_bytes} bytes, expected at most {limit_bytes}")]
    TooLarge { size_bytes: usize, limit_bytes: usize },
    /// The first record of a control batch is not a transaction marker.
    #[error("control record: expected {expected}, found {found}")]
    ControlRecord { expected: &'static str, found: i64 },
}

impl BatchError {
    /// The same error with its position counted from `by` bytes earlier.
    #[must_use]
    pub(crate) fn shifted(mut self, by: usize) -> BatchError {
        match &mut self {
            BatchError::Partial { position, .. }
            | BatchError::Size { position, .. }
            | BatchError::Magic { position, .. }
            | BatchError::UnknownCodec { position, .. }
            | BatchError::OffsetRange { position, .. }
            | BatchError::RecordCount { position, .. }
            | BatchError::Crc { position, .. }
            | BatchError::Structure { position, .. }
            | BatchError::Compression { position, .. } => *position += by,
            BatchError::UnsupportedCompression { .. }
            | BatchError::TooLarge { .. }
            | BatchError::ControlRecord { .. } => {}
        }
        self
    }

    /// Whether more bytes might turn this into a batch.
    pub const fn is_partial(&self) -> bool {
        matches!(self, BatchError::Partial { .. })
    }
}

/// What an idempotent producer writes into each of its batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProducerStamp {
    pub id: ProducerId,
    pub epoch: ProducerEpoch,
    /// Sequence of the first record; `None` in control batches.
    pub base_sequence: Option<Sequence>,
    /// Sequence of the last record; `None` if and only if the first is.
    pub last_sequence: Option<Sequence>,
}

/// End of a transaction, as written by the transaction coordinator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i16)]
pub enum ControlKind {
    Abort = 0,
    Commit = 1,
}

/// The single record of a control batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ControlRecord {
    pub kind: ControlKind,
    /// Leader epoch of the transaction coordinator that wrote it, in `__transaction_state`.
    pub coordinator_epoch: i32,
}

impl ControlRecord {
    /// Reads `version i16, type i16` and `version i16, coordinator epoch i32`; higher versions are read as
    /// version 0.
    ///
    /// # Errors
    /// [`BatchError::ControlRecord`] if a field is missing, a version negative or the type not a transaction
    /// marker.
    pub fn parse(key: Option<&[u8]>, value: Option<&[u8]>) -> Result<ControlRecord, BatchError> {
        let refuse = |expected, found| BatchError::ControlRecord { expected, found };
        let key = key.unwrap_or_default();
        let key: [u8; 4] =
            array(key, 0).ok_or_else(|| refuse("a key of at least 4 bytes", key.len() as i64))?;
        let version = i16::from_be_bytes([key[0], key[1]]);
        if version < 0 {
            return Err(refuse("a key version of at least 0", version.into()));
        }
        let kind = match i16::from_be_bytes([key[2], key[3]]) {
            0 => ControlKind::Abort,
            1 => ControlKind::Commit,
            other => return Err(refuse("type 0 (abort) or 1 (commit)", other.into())),
        };
        let value = value.unwrap_or_default();
        let value: [u8; 6] =
            array(value, 0).ok_or_else(|| refuse("a value of at least 6 bytes", value.len() as i64))?;
        let version = i16::from_be_bytes([value[0], value[1]]);
        if version < 0 {
            return Err(refuse("a value version of at least 0", version.into()));
        }
        let coordinator_epoch = i32::from_be_bytes([value[2], value[3], value[4], value[5]]);
        Ok(ControlRecord {
            kind,
            coordinator_epoch,
        })
    }
}

/// The fields of a batch's fixed-size header, for scanning files without reading the records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchHeader {
    /// v2: offset of the first record (kept by compaction). v0, v1: the stored offset, which is that of the
    /// *last* record.
    pub base_offset: Offset,
    pub last_offset: Offset,
    /// Of the whole batch, from base offset to the last record.
    pub size_bytes: usize,
    pub magic: Magic,
    pub codec: Codec,
    /// `CreateTime` for v0, which has no timestamps.
    pub timestamp_type: TimestampType,
    /// v2: of the first record, always its create time; v1: of the message; v0: none.
    pub first_timestamp: TimestampMs,
    pub max_timestamp: TimestampMs,
    /// `None` below v2 and where the field holds a negative number (as producers send it).
    pub leader_epoch: Option<LeaderEpoch>,
    /// `None` below v2 and for producers without idempotence.
    pub producer: Option<ProducerStamp>,
    pub is_transactional: bool,
    pub is_control: bool,
    /// `None` for compressed v0 and v1, which do not say.
    pub record_count: Option<u32>,
}

impl BatchHeader {
    /// The largest header of the three layouts: read so many bytes, or to the end of the file, and
    /// [`BatchHeader::parse`].
    pub const SIZE_MAX: usize = RECORD_BATCH_OVERHEAD;

    /// Size of the batch that starts here, in bytes with its 12 bytes of overhead.
    ///
    /// # Errors
    /// `Partial` below 17 bytes; `Size` and `Magic` if the fields are impossible.
    #[inline]
    pub(crate) fn size_of(prefix: &[u8]) -> Result<usize, BatchError> {
        Ok(size_and_magic(prefix)?.0)
    }

    /// Parses the header at the start of `prefix`, which need not hold the records.
    ///
    /// # Errors
    /// `Partial` if the header itself is incomplete; otherwise the field that is impossible. The CRC is not
    /// looked at.
    #[inline]
    pub fn parse(prefix: &[u8]) -> Result<BatchHeader, BatchError> {
        let (size_bytes, magic) = size_and_magic(prefix)?;
        match magic {
            Magic::V2 => parse_v2(prefix, size_bytes),
            Magic::V0 | Magic::V1 => parse_legacy(prefix, size_bytes, magic),
        }
    }

    /// The offset after the last one.
    pub const fn next_offset(&self) -> Offset {
        self.last_offset.plus(1)
    }

    /// Bytes of this layout's header: what [`BatchHeader::parse`] needs.
    pub(crate) const fn header_size_bytes(&self) -> usize {
        match self.magic {
            Magic::V0 => HEADER_SIZE_UP_TO_MAGIC + 1,
            Magic::V1 => HEADER_SIZE_UP_TO_MAGIC + 1 + 8,
            Magic::V2 => RECORD_BATCH_OVERHEAD,
        }
    }
}

#[inline]
fn size_and_magic(prefix: &[u8]) -> Result<(usize, Magic), BatchError> {
    let partial = |expected| BatchError::Partial {
        position: 0,
        expected,
        found: prefix.len(),
    };
    let length = i32::from_be_bytes(array(prefix, 8).ok_or_else(|| partial(LOG_OVERHEAD))?);
    // v0 has the smallest overhead; the layouts check their own below
    let refuse = |minimum| BatchError::Size {
        position: 8,
        found: length,
        minimum,
    };
    let size = usize::try_from(length).map_err(|_| refuse(RECORD_OVERHEAD_V0))?;
    if size < RECORD_OVERHEAD_V0 {
        return Err(refuse(RECORD_OVERHEAD_V0));
    }
    let Some(&magic) = prefix.get(MAGIC_POSITION) else {
        return Err(partial(HEADER_SIZE_UP_TO_MAGIC));
    };
    let (magic, minimum) = match magic {
        0 => (Magic::V0, RECORD_OVERHEAD_V0),
        1 => (Magic::V1, RECORD_OVERHEAD_V1),
        2 => (Magic::V2, RECORD_BATCH_OVERHEAD - LOG_OVERHEAD),
        other => {
            return Err(BatchError::Magic {
                position: MAGIC_POSITION,
                found: other as i8,
            });
        }
    };
    if size < minimum {
        return Err(refuse(minimum));
    }
    // at most i32::MAX + 12, which a 64-bit usize holds
    Ok((size + LOG_OVERHEAD, magic))
}

#[inline]
fn parse_v2(prefix: &[u8], size_bytes: usize) -> Result<BatchHeader, BatchError> {
    let Some(h) = prefix.first_chunk::<RECORD_BATCH_OVERHEAD>() else {
        return Err(BatchError::Partial {
            position: 0,
            expected: RECORD_BATCH_OVERHEAD,
            found: prefix.len(),
        });
    };
    // Kafka looks at the low byte alone
    let attributes = h[22];
    let codec = codec_of(attributes, 22)?;
    let base = i64::from_be_bytes(at(h, 0));
    let delta = i32::from_be_bytes(at(h, 23));
    // the offset after the last must exist too
    let last = match base.checked_add(i64::from(delta)) {
        Some(last) if base >= 0 && delta >= 0 && last < i64::MAX => last,
        _ => {
            return Err(BatchError::OffsetRange {
                position: 0,
                base,
                delta,
            });
        }
    };
    let count = i32::from_be_bytes(at(h, 57));
    let count = u32::try_from(count).map_err(|_| BatchError::RecordCount {
        position: 57,
        found: count,
    })?;
    let epoch = i32::from_be_bytes(at(h, 12));
    let producer_id = i64::from_be_bytes(at(h, 43));
    let base_sequence = i32::from_be_bytes(at(h, 53));
    let base_sequence = (base_sequence >= 0).then_some(Sequence(base_sequence));
    Ok(BatchHeader {
        base_offset: Offset(base),
        last_offset: Offset(last),
        size_bytes,
        magic: Magic::V2,
        codec,
        timestamp_type: timestamp_type(attributes),
        first_timestamp: TimestampMs(i64::from_be_bytes(at(h, 27))),
        max_timestamp: TimestampMs(i64::from_be_bytes(at(h, 35))),
        leader_epoch: (epoch >= 0).then_some(LeaderEpoch(epoch)),
        producer: (producer_id >= 0).then(|| ProducerStamp {
            id: ProducerId(producer_id),
            epoch: ProducerEpoch(i16::from_be_bytes(at(h, 51))),
            base_sequence,
            last_sequence: base_sequence.map(|first| first.plus(delta)),
        }),
        is_transactional: attributes & 0x10 != 0,
        is_control: attributes & 0x20 != 0,
        record_count: Some(count),
    })
}

fn parse_legacy(prefix: &[u8], size_bytes: usize, magic: Magic) -> Result<BatchHeader, BatchError> {
    let needed = HEADER_SIZE_UP_TO_MAGIC + 1 + if magic == Magic::V1 { 8 } else { 0 };
    if prefix.len() < needed {
        return Err(BatchError::Partial {
            position: 0,
            expected: needed,
            found: prefix.len(),
        });
    }
    let attributes = prefix[17];
    let codec = codec_of(attributes, 17)?;
    let offset = i64::from_be_bytes(array(prefix, 0).unwrap_or_default());
    if offset == i64::MAX {
        return Err(BatchError::OffsetRange {
            position: 0,
            base: offset,
            delta: 0,
        });
    }
    let timestamp = match magic {
        Magic::V1 => TimestampMs(i64::from_be_bytes(array(prefix, 18).unwrap_or_default())),
        _ => TimestampMs::NONE,
    };
    Ok(BatchHeader {
        base_offset: Offset(offset),
        last_offset: Offset(offset),
        size_bytes,
        magic,
        codec,
        timestamp_type: if magic == Magic::V1 {
            timestamp_type(attributes)
        } else {
            TimestampType::CreateTime
        },
        first_timestamp: timestamp,
        max_timestamp: timestamp,
        leader_epoch: None,
        producer: None,
        is_transactional: false,
        is_control: false,
        record_count: (codec == Codec::None).then_some(1),
    })
}

/// Of the attributes that lie at `position`.
fn codec_of(attributes: u8, position: usize) -> Result<Codec, BatchError> {
    let found = attributes & 7;
    Codec::from_id(found).ok_or(BatchError::UnknownCodec { position, found })
}

const fn timestamp_type(attributes: u8) -> TimestampType {
    if attributes & 8 == 0 {
        TimestampType::CreateTime
    } else {
        TimestampType::LogAppendTime
    }
}

/// `N` bytes of `bytes` from `position`, if they are there.
#[inline]
pub(crate) fn array<const N: usize>(bytes: &[u8], position: usize) -> Option<[u8; N]> {
    bytes.get(position..)?.first_chunk::<N>().copied()
}

/// `N` bytes of a v2 header; the positions are constants of the layout.
#[inline]
fn at<const N: usize>(header: &[u8; RECORD_BATCH_OVERHEAD], position: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&header[position..position + N]);
    out
}

/// Compares the checksum in these bytes, a whole batch of this layout, with that of the bytes.
#[inline]
fn verify_crc(bytes: &[u8], magic: Magic) -> Result<(), BatchError> {
    let (position, computed) = match magic {
        Magic::V2 => (CRC_POSITION, crc32c::crc32c(&bytes[CRC_START..])),
        Magic::V0 | Magic::V1 => (LEGACY_CRC_POSITION, crc32fast::hash(&bytes[MAGIC_POSITION..])),
    };
    let stored = u32::from_be_bytes(array(bytes, position).unwrap_or_default());
    if stored == computed {
        Ok(())
    } else {
        Err(BatchError::Crc {
            position,
            stored,
            computed,
        })
    }
}

/// One batch of any layout: header checked, bytes borrowed. The CRC and the records are checked on demand.
#[derive(Clone, Copy, Debug)]
pub struct Batch<'a> {
    /// Exactly the batch: `header.size_bytes` bytes.
    bytes: &'a [u8],
    header: BatchHeader,
}

impl<'a> Batch<'a> {
    /// The first batch in `bytes`; what follows it is ignored.
    ///
    /// # Errors
    /// `Partial` if `bytes` ends before the batch does; otherwise the header field that is impossible.
    #[inline]
    pub fn parse(bytes: &'a [u8]) -> Result<Batch<'a>, BatchError> {
        let size_bytes = BatchHeader::size_of(bytes)?;
        let Some(bytes) = bytes.get(..size_bytes) else {
            return Err(BatchError::Partial {
                position: 0,
                expected: size_bytes,
                found: bytes.len(),
            });
        };
        Ok(Batch {
            bytes,
            header: BatchHeader::parse(bytes)?,
        })
    }

    /// All fields of the header.
    pub const fn header(&self) -> &BatchHeader {
        &self.header
    }

    /// Of the whole batch, header included.
    pub const fn size_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// The whole batch, header included.
    pub const fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The layout.
    pub const fn magic(&self) -> Magic {
        self.header.magic
    }

    /// How the records are compressed.
    pub const fn codec(&self) -> Codec {
        self.header.codec
    }

    /// Offset of the first record. For a compressed v0 or v1 set this is the stored offset, that of the
    /// *last* record, as in Kafka's shallow iteration; see [`Batch::first_offset_deep`].
    pub const fn base_offset(&self) -> Offset {
        self.header.base_offset
    }

    /// Offset of the last record, inclusive.
    pub const fn last_offset(&self) -> Offset {
        self.header.last_offset
    }

    /// The offset after the last one.
    pub const fn next_offset(&self) -> Offset {
        self.header.next_offset()
    }

    /// See [`BatchHeader::leader_epoch`].
    pub const fn leader_epoch(&self) -> Option<LeaderEpoch> {
        self.header.leader_epoch
    }

    /// See [`BatchHeader::first_timestamp`].
    pub const fn first_timestamp(&self) -> TimestampMs {
        self.header.first_timestamp
    }

    /// As the header says: the append time of a `LogAppendTime` batch, [`TimestampMs::NONE`] in format v0.
    pub const fn max_timestamp(&self) -> TimestampMs {
        self.header.max_timestamp
    }

    /// Which clock stamped the records.
    pub const fn timestamp_type(&self) -> TimestampType {
        self.header.timestamp_type
    }

    /// Part of a transaction.
    pub const fn is_transactional(&self) -> bool {
        self.header.is_transactional
    }

    /// Holds a marker, not records of a client.
    pub const fn is_control(&self) -> bool {
        self.header.is_control
    }

    /// By any codec.
    pub(crate) const fn is_compressed(&self) -> bool {
        !matches!(self.header.codec, Codec::None)
    }

    /// See [`BatchHeader::producer`].
    pub const fn producer(&self) -> Option<ProducerStamp> {
        self.header.producer
    }

    /// As the header says; `None` for compressed v0 and v1.
    pub const fn record_count(&self) -> Option<u32> {
        self.header.record_count
    }

    /// Compares the stored checksum with that of the bytes: CRC-32C for v2, CRC-32 for v0 and v1.
    ///
    /// # Errors
    /// [`BatchError::Crc`].
    #[inline]
    pub fn verify_crc(&self) -> Result<(), BatchError> {
        verify_crc(self.bytes, self.header.magic)
    }

    /// The records in order. Compressed ones pass through a bounded window; nothing is read ahead of it.
    ///
    /// # Errors
    /// `Compression` if the stream cannot even be started; `Structure` for a broken legacy message.
    pub fn records(&self) -> Result<RecordIter<'a>, BatchError> {
        RecordIter::new(self)
    }

    /// Offset of the first record, decompressing a v0 or v1 set where that is needed to know.
    ///
    /// # Errors
    /// As [`Batch::records`].
    pub fn first_offset_deep(&self) -> Result<Offset, BatchError> {
        if self.magic() == Magic::V2 || !self.is_compressed() {
            return Ok(self.base_offset());
        }
        let mut records = self.records()?;
        Ok(records
            .next_record()?
            .map_or(self.base_offset(), |record| record.offset))
    }

    /// The marker in a control batch.
    ///
    /// # Errors
    /// [`BatchError::ControlRecord`] if this is no control batch, is empty, or carries another kind of
    /// record.
    pub fn control_record(&self) -> Result<ControlRecord, BatchError> {
        if !self.is_control() {
            return Err(BatchError::ControlRecord {
                expected: "a control batch",
                found: 0,
            });
        }
        match self.records()?.next_record()? {
            Some(record) => ControlRecord::parse(record.key, record.value),
            None => Err(BatchError::ControlRecord {
                expected: "one record",
                found: 0,
            }),
        }
    }
}

/// The batches in `bytes`, in order. After an error nothing more is yielded; a trailing incomplete batch is
/// [`BatchError::Partial`], which most callers take for the end.
pub fn batches(bytes: &[u8]) -> Batches<'_> {
    Batches { bytes, position: 0 }
}

/// See [`batches`].
#[derive(Clone, Debug)]
pub struct Batches<'a> {
    bytes: &'a [u8],
    position: usize,
}

impl Batches<'_> {
    /// Where the next batch begins: after the last whole one that was yielded.
    pub const fn position(&self) -> usize {
        self.position
    }
}

impl<'a> Iterator for Batches<'a> {
    type Item = Result<Batch<'a>, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        let rest = &self.bytes[self.position..];
        if rest.is_empty() {
            return None;
        }
        let parsed = Batch::parse(rest).map_err(|error| error.shifted(self.position));
        match &parsed {
            Ok(batch) => self.position += batch.size_bytes(),
            Err(_) => self.bytes = &self.bytes[..self.position],
        }
        Some(parsed)
    }
}

#[cfg(test)]
mod tests;
