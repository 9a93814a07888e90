//! [`ValidatedBatches`]: records that passed validation, ready to be stamped and written.
//!
//! A v2 batch that needs no rewriting is a stamped copy of its 61 header bytes and the producer's own bytes
//! behind it, so that stamping under the partition's lock costs a few stores and the producer's bytes are
//! neither copied nor changed. Base offset and leader epoch lie outside the CRC. Only a wrapper of message
//! format v0, whose inner offsets are absolute, is compressed again when its offset is known.
//!
//! Invariant: a set is one v2 batch, one wrapper, or any number of uncompressed v0 or v1 messages of one
//! format, or nothing.

use std::io::IoSlice;

use super::builder::{legacy_attributes, v2_attributes, wrap_v0};
use super::{
    Batch, BatchHeader, CRC_START, ControlRecord, HEADER_SIZE_UP_TO_MAGIC, RECORD_BATCH_OVERHEAD, batches,
};
use crate::config::{Codec, Magic, TimestampType};
use crate::error::InvalidRecords;
use crate::units::{LeaderEpoch, Offset, TimestampMs};

/// Validated records of one partition in one request: [`ValidatedBatches::assign`] stamps them, and
/// [`ValidatedBatches::io_slices`] is what is to be written.
#[derive(Debug)]
pub struct ValidatedBatches<'a> {
    pub(super) body: Body<'a>,
    pub(super) record_count: i64,
    pub(super) max_timestamp: TimestampMs,
    pub(super) max_timestamp_at: MaxAt,
    pub(super) log_append_time: Option<TimestampMs>,
    pub(super) control: Option<ControlRecord>,
    pub(super) converted: u32,
    base: Option<Offset>,
}

#[derive(Debug)]
pub(super) enum Body<'a> {
    Empty,
    /// One batch of the producer; `header` replaces its first `header_size` bytes.
    Borrowed {
        header: [u8; RECORD_BATCH_OVERHEAD],
        header_size: usize,
        tail: &'a [u8],
    },
    /// Rebuilt, or a set of legacy messages.
    Owned(Vec<u8>),
    /// A v0 wrapper: `messages` uncompressed, and the wrapper built from them for the offset assigned last.
    WrapperV0 {
        messages: Vec<u8>,
        codec: Codec,
        limit: usize,
        built: Vec<u8>,
    },
}

impl<'a> Body<'a> {
    /// A batch of the producer whose header may be changed.
    pub(super) fn borrowed(batch: &Batch<'a>) -> Body<'a> {
        let header_size = batch.header().header_size_bytes();
        let (head, tail) = batch.bytes().split_at(header_size);
        let mut header = [0; RECORD_BATCH_OVERHEAD];
        header[..header_size].copy_from_slice(head);
        Body::Borrowed {
            header,
            header_size,
            tail,
        }
    }

    /// Largest timestamp and timestamp type in the header; recomputes the CRC only if something changed.
    pub(super) fn set_max_timestamp(&mut self, kind: TimestampType, timestamp: TimestampMs) {
        match self {
            Body::Borrowed {
                header,
                header_size,
                tail,
            } => {
                set_max_timestamp(&mut header[..*header_size], tail, kind, timestamp);
            }
            Body::Owned(bytes) => {
                let size = bytes.len().min(RECORD_BATCH_OVERHEAD);
                let (header, tail) = bytes.split_at_mut(size);
                set_max_timestamp(header, tail, kind, timestamp);
            }
            Body::Empty | Body::WrapperV0 { .. } => {}
        }
    }
}

/// Which record stands for the largest timestamp in the time index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MaxAt {
    Nowhere,
    First,
    Last,
    /// From 0.
    Index(i64),
}

impl<'a> ValidatedBatches<'a> {
    pub(super) fn new(body: Body<'a>, record_count: i64) -> ValidatedBatches<'a> {
        ValidatedBatches {
            body,
            record_count,
            max_timestamp: TimestampMs::NONE,
            max_timestamp_at: MaxAt::Nowhere,
            log_append_time: None,
            control: None,
            converted: 0,
            base: None,
        }
    }

    /// Gives the records the offsets from `base` on and the leader's epoch; to be called under the
    /// partition's lock, and again if need be. Returns the offset after the last.
    ///
    /// # Errors
    /// `Invalid` if the offsets would pass the largest; `TooLarge` if a v0 wrapper grew over the limit by
    /// recompression.
    pub fn assign(&mut self, base: Offset, epoch: LeaderEpoch) -> Result<Offset, InvalidRecords> {
        let next = base
            .get()
            .checked_add(self.record_count)
            .filter(|&next| next < i64::MAX);
        let Some(next) = next.map(Offset) else {
            let message = format!(
                "no offsets are left after {base} for {} records",
                self.record_count
            );
            return Err(InvalidRecords::Invalid {
                message,
                records: Vec::new(),
            });
        };
        let last = Offset(next.get() - 1);
        match &mut self.body {
            Body::Empty => {}
            Body::Borrowed {
                header, header_size, ..
            } => stamp(&mut header[..*header_size], base, last, epoch),
            Body::Owned(bytes) if is_message_set(bytes) => stamp_messages(bytes, base),
            Body::Owned(bytes) => stamp(bytes, base, last, epoch),
            Body::WrapperV0 {
                messages,
                codec,
                limit,
                built,
            } => {
                stamp_messages(messages, base);
                *built = wrap_v0(messages, *codec, last);
                if built.len() > *limit {
                    return Err(InvalidRecords::TooLarge {
                        size_bytes: built.len(),
                        limit_bytes: *limit,
                    });
                }
            }
        }
        self.base = Some(base);
        Ok(next)
    }

    /// The bytes to write, in order.
    pub fn io_slices(&self) -> impl Iterator<Item = IoSlice<'_>> {
        let (first, second) = self.parts();
        [first, second]
            .into_iter()
            .filter(|part| !part.is_empty())
            .map(IoSlice::new)
    }

    fn parts(&self) -> (&[u8], &[u8]) {
        match &self.body {
            Body::Empty => (&[], &[]),
            Body::Borrowed {
                header,
                header_size,
                tail,
            } => (&header[..*header_size], tail),
            Body::Owned(bytes) => (bytes, &[]),
            Body::WrapperV0 { built, .. } => (built, &[]),
        }
    }

    /// Of all that [`ValidatedBatches::io_slices`] yields.
    pub fn size_bytes(&self) -> usize {
        let (first, second) = self.parts();
        first.len() + second.len()
    }

    /// How many offsets the records take.
    pub const fn record_count(&self) -> i64 {
        self.record_count
    }

    /// Nothing to append: the request held no complete batch, which Kafka answers without an error.
    pub const fn is_empty(&self) -> bool {
        self.record_count == 0
    }

    /// Offset of the first record, once assigned.
    pub const fn base_offset(&self) -> Option<Offset> {
        self.base
    }

    /// Largest timestamp, or the append time; [`TimestampMs::NONE`] if there is none.
    pub const fn max_timestamp(&self) -> TimestampMs {
        self.max_timestamp
    }

    /// The offset that goes with [`ValidatedBatches::max_timestamp`] into the time index; `None` before
    /// `assign` and where no record has a timestamp.
    pub fn offset_of_max_timestamp(&self) -> Option<Offset> {
        let base = self.base?;
        match self.max_timestamp_at {
            MaxAt::Nowhere => None,
            MaxAt::First => Some(base),
            MaxAt::Last => Some(base.plus(self.record_count - 1)),
            MaxAt::Index(index) => Some(base.plus(index)),
        }
    }

    /// What the header of each batch will say on disk (offsets once assigned), for segments and the producer
    /// state.
    pub fn headers(&self) -> impl Iterator<Item = BatchHeader> + '_ {
        let (first, _) = self.parts();
        // a borrowed part ends with its header; an owned one may hold many messages
        let set = match &self.body {
            Body::Owned(bytes) if is_message_set(bytes) => bytes.as_slice(),
            _ => &[],
        };
        let single = if set.is_empty() {
            BatchHeader::parse(first).ok()
        } else {
            None
        };
        single
            .into_iter()
            .chain(batches(set).map_while(|batch| batch.ok().map(|batch| *batch.header())))
    }

    /// The transaction marker, if this is a control batch of a coordinator.
    pub const fn control_record(&self) -> Option<ControlRecord> {
        self.control
    }

    /// The time that all records carry if the topic is `LogAppendTime`; goes into the produce response.
    pub const fn log_append_time(&self) -> Option<TimestampMs> {
        self.log_append_time
    }

    /// Records that were rewritten (for `ProduceMessageConversionsPerSec`); 0 if the producer's bytes are
    /// kept.
    pub const fn converted_record_count(&self) -> u32 {
        self.converted
    }
}

fn stamp(header: &mut [u8], base: Offset, last: Offset, epoch: LeaderEpoch) {
    if header[HEADER_SIZE_UP_TO_MAGIC - 1] == Magic::V2 as u8 {
        header[0..8].copy_from_slice(&base.get().to_be_bytes());
        header[12..16].copy_from_slice(&epoch.get().to_be_bytes());
    } else {
        header[0..8].copy_from_slice(&last.get().to_be_bytes());
    }
}

/// Whether these bytes are uncompressed v0 or v1 messages.
fn is_message_set(bytes: &[u8]) -> bool {
    bytes
        .get(16..18)
        .is_some_and(|fields| fields[0] < Magic::V2 as u8 && fields[1] & 7 == Codec::None as u8)
}

/// Gives consecutive offsets to a set of whole messages.
fn stamp_messages(bytes: &mut [u8], base: Offset) {
    let (mut position, mut offset) = (0, base);
    while let Ok(size) = BatchHeader::size_of(&bytes[position..]) {
        bytes[position..position + 8].copy_from_slice(&offset.get().to_be_bytes());
        offset = offset.plus(1);
        position += size;
    }
}

/// `header` holds at least the header of a v1 or v2 batch; `tail` is the rest of it.
pub(super) fn set_max_timestamp(header: &mut [u8], tail: &[u8], kind: TimestampType, timestamp: TimestampMs) {
    let Ok(now) = BatchHeader::parse(header) else {
        return;
    };
    if now.magic == Magic::V0 || (now.timestamp_type == kind && now.max_timestamp == timestamp) {
        return;
    }
    let time = timestamp.get().to_be_bytes();
    if now.magic == Magic::V2 {
        let attributes = v2_attributes(now.codec, kind, now.is_transactional, now.is_control);
        header[21..23].copy_from_slice(&[0, attributes]);
        header[35..43].copy_from_slice(&time);
        let crc = crc32c::crc32c_append(crc32c::crc32c(&header[CRC_START..]), tail);
        header[17..21].copy_from_slice(&crc.to_be_bytes());
    } else {
        let append_time = kind == TimestampType::LogAppendTime;
        header[17] = legacy_attributes(now.magic, now.codec, append_time);
        header[18..26].copy_from_slice(&time);
        let mut crc = crc32fast::Hasher::new();
        crc.update(&header[16..]);
        crc.update(tail);
        header[12..16].copy_from_slice(&crc.finalize().to_be_bytes());
    }
}
