//! Message formats v0 and v1: single messages, and wrapper messages around a compressed set.
//!
//! ```text
//! offset i64 | size i32 | crc u32 (CRC-32 of what follows it) | magic i8 | attributes i8 |
//! [timestamp i64, v1 only] | key length i32 (−1 null) | key | value length i32 (−1 null) | value
//! ```
//!
//! A wrapper's value is a compressed set of messages. v0: inner offsets are absolute. v1: they are relative,
//! and the wrapper's offset is that of the last one; its timestamp, if of type `LogAppendTime`, is that of
//! all. Such sets are read in two passes, so that memory stays bounded: the first finds the last inner
//! offset.
//!
//! Kafka's tolerances are kept: bytes after the value of a message, and an incomplete message at the end of a
//! wrapper's set, are ignored; a v1 wrapper with offset 0 counts its inner offsets from 0 (some librdkafka
//! versions send so).
//!
//! **Deviation:** an inner message is of format v0 or v1, and the offsets of a set do not overflow; the iterator of 2.7.2
//! looks at neither.
//!
//! Source: `AbstractLegacyRecordBatch`, `LegacyRecord` of 2.7.2; KIP-31, KIP-32.

use super::compression::{RECORD_SIZE_LIMIT, Window};
use super::record::{Headers, Record};
use super::{Batch, BatchError, LOG_OVERHEAD, RECORD_OVERHEAD_V0, RECORD_OVERHEAD_V1, array, verify_crc};
use crate::config::{Codec, Magic, TimestampType};
use crate::units::{Offset, TimestampMs};

/// One message, whole and with its lengths checked; not its CRC.
#[derive(Clone, Copy, Debug)]
pub(super) struct Message<'a> {
    bytes: &'a [u8],
    /// As stored: inside a v1 wrapper relative.
    pub(super) offset: i64,
    pub(super) magic: Magic,
    pub(super) attributes: u8,
    /// Its own; [`TimestampMs::NONE`] in format v0.
    pub(super) timestamp: TimestampMs,
    pub(super) key: Option<&'a [u8]>,
    pub(super) value: Option<&'a [u8]>,
}

/// Size of the message (with its 12 bytes of overhead) whose first 12 bytes are `head`.
fn message_size(head: [u8; LOG_OVERHEAD]) -> Result<usize, BatchError> {
    let size = i32::from_be_bytes([head[8], head[9], head[10], head[11]]);
    match usize::try_from(size) {
        Ok(size) if size >= RECORD_OVERHEAD_V0 => Ok(LOG_OVERHEAD + size),
        _ => Err(BatchError::Size {
            position: 8,
            found: size,
            minimum: RECORD_OVERHEAD_V0,
        }),
    }
}

impl<'a> Message<'a> {
    /// `bytes` is one message from its offset to its end.
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Message<'a>, BatchError> {
        let short = |expected| BatchError::Partial {
            position: 0,
            expected,
            found: bytes.len(),
        };
        if bytes.len() < LOG_OVERHEAD + RECORD_OVERHEAD_V0 {
            return Err(short(LOG_OVERHEAD + RECORD_OVERHEAD_V0));
        }
        let magic = match bytes[16] {
            0 => Magic::V0,
            1 => Magic::V1,
            other => {
                return Err(BatchError::Magic {
                    position: 16,
                    found: other as i8,
                });
            }
        };
        let (timestamp, key_at) = match magic {
            Magic::V1 if bytes.len() < LOG_OVERHEAD + RECORD_OVERHEAD_V1 => {
                return Err(short(LOG_OVERHEAD + RECORD_OVERHEAD_V1));
            }
            Magic::V1 => (
                TimestampMs(i64::from_be_bytes(array(bytes, 18).unwrap_or_default())),
                26,
            ),
            _ => (TimestampMs::NONE, 18),
        };
        let (key, value_at) = sized(bytes, key_at)?;
        let (value, _) = sized(bytes, value_at)?;
        let offset = i64::from_be_bytes(array(bytes, 0).unwrap_or_default());
        Ok(Message {
            bytes,
            offset,
            magic,
            attributes: bytes[17],
            timestamp,
            key,
            value,
        })
    }

    pub(super) const fn codec_id(&self) -> u8 {
        self.attributes & 7
    }

    /// CRC-32 of an inner message; that of an outer one is the batch's.
    pub(super) fn verify_crc(&self) -> Result<(), BatchError> {
        verify_crc(self.bytes, self.magic)
    }

    pub(super) fn record(&self) -> Record<'a> {
        Record {
            offset: Offset(self.offset),
            timestamp: self.timestamp,
            key: self.key,
            value: self.value,
            headers: Headers::default(),
        }
    }
}

/// A nullable byte string behind a 32-bit length at `position`, and where it ends.
fn sized(bytes: &[u8], position: usize) -> Result<(Option<&[u8]>, usize), BatchError> {
    let broken = |found| BatchError::Structure {
        position,
        expected: "a key and a value within their message",
        found,
    };
    let length = i32::from_be_bytes(array(bytes, position).ok_or_else(|| broken(-1))?);
    let start = position + 4;
    let Ok(size) = usize::try_from(length) else {
        return Ok((None, start));
    };
    let field = bytes
        .get(start..)
        .and_then(|rest| rest.get(..size))
        .ok_or_else(|| broken(length.into()))?;
    Ok((Some(field), start + size))
}

/// The inner messages of a wrapper, decompressed one at a time; offsets as stored.
#[derive(Debug)]
pub struct InnerMessages<'a> {
    window: Window<'a>,
    lent: usize,
}

impl<'a> InnerMessages<'a> {
    /// # Errors
    /// `Structure` for a wrapper without a value, `Compression`.
    pub fn new(batch: &Batch<'a>) -> Result<InnerMessages<'a>, BatchError> {
        let wrapper = Message::parse(batch.bytes())?;
        let position = batch.bytes().len();
        let Some(value) = wrapper.value else {
            let expected = "a compressed set as the value of the wrapper";
            return Err(BatchError::Structure {
                position,
                expected,
                found: -1,
            });
        };
        Ok(InnerMessages {
            window: Window::new(batch.codec(), batch.magic(), value)?,
            lent: 0,
        })
    }

    /// The size of the next message, once it is all in the window; `None` at the end, where a message may be
    /// cut.
    fn advance(&mut self) -> Result<Option<usize>, BatchError> {
        self.window.consume(std::mem::take(&mut self.lent));
        if !self.window.fill_to(LOG_OVERHEAD)? {
            return Ok(None);
        }
        let at = self.window.consumed() as usize;
        let head = array(self.window.available(), 0).unwrap_or_default();
        let size = message_size(head).map_err(|error| error.shifted(at))?;
        if size > RECORD_SIZE_LIMIT {
            let expected = "a message of at most 256 MiB";
            return Err(BatchError::Structure {
                position: at,
                expected,
                found: size as i64,
            });
        }
        if !self.window.fill_to(size)? {
            return Ok(None);
        }
        self.lent = size;
        Ok(Some(size))
    }

    /// The bytes of the next message, from its offset to its end, lent until the call after; `None` at the end, where a
    /// message may be cut.
    ///
    /// # Errors
    /// `Size`, `Structure` for one above 256 MiB, `Compression`.
    pub fn next_bytes(&mut self) -> Result<Option<&[u8]>, BatchError> {
        let size = self.advance()?;
        Ok(size.map(|size| &self.window.available()[..size]))
    }

    pub(super) fn next_message(&mut self) -> Result<Option<Message<'_>>, BatchError> {
        let Some(size) = self.advance()? else {
            return Ok(None);
        };
        let at = self.window.consumed() as usize;
        Message::parse(&self.window.available()[..size])
            .map(Some)
            .map_err(|error| error.shifted(at))
    }
}

/// The offset of the first inner message that all inner offsets of a v1 wrapper are relative to; 0 for v0.
///
/// # Errors
/// `Structure` for a set without messages or an offset that cannot be, and those of the messages.
pub fn absolute_base(batch: &Batch<'_>) -> Result<i64, BatchError> {
    let mut messages = InnerMessages::new(batch)?;
    let mut last = None;
    while let Some(message) = messages.next_bytes()? {
        last = Some(i64::from_be_bytes(array(message, 0).unwrap_or_default()));
    }
    let Some(last) = last else {
        let expected = "at least one message in the compressed set";
        return Err(BatchError::Structure {
            position: 0,
            expected,
            found: 0,
        });
    };
    let outer = batch.last_offset().get();
    if batch.magic() == Magic::V0 || outer == 0 {
        return Ok(0);
    }
    match outer.checked_sub(last) {
        Some(base) if base >= 0 => Ok(base),
        _ => {
            let expected = "a wrapper offset not below that of the last inner message";
            Err(BatchError::Structure {
                position: 0,
                expected,
                found: outer,
            })
        }
    }
}

/// The records of a compressed v0 or v1 set, with absolute offsets.
#[derive(Debug)]
pub(super) struct WrapperRecords<'a> {
    messages: InnerMessages<'a>,
    magic: Magic,
    base: i64,
    append_time: Option<TimestampMs>,
    ended: bool,
}

impl<'a> WrapperRecords<'a> {
    pub(super) fn new(batch: &Batch<'a>) -> Result<WrapperRecords<'a>, BatchError> {
        let base = absolute_base(batch)?;
        let append_time = batch.timestamp_type() == TimestampType::LogAppendTime;
        Ok(WrapperRecords {
            messages: InnerMessages::new(batch)?,
            magic: batch.magic(),
            base,
            append_time: append_time.then(|| batch.max_timestamp()),
            ended: false,
        })
    }

    pub(super) fn next_record(&mut self) -> Result<Option<Record<'_>>, BatchError> {
        if self.ended {
            return Ok(None);
        }
        let (base, magic, append_time) = (self.base, self.magic, self.append_time);
        // ended until proven otherwise: an error finishes the iteration
        self.ended = true;
        let Some(message) = self.messages.next_message()? else {
            return Ok(None);
        };
        self.ended = false;
        resolve(&message, magic, base, append_time).map(Some)
    }
}

/// The record in an inner message: absolute offset, and the wrapper's append time.
pub(super) fn resolve<'m>(
    message: &Message<'m>,
    wrapper: Magic,
    base: i64,
    append_time: Option<TimestampMs>,
) -> Result<Record<'m>, BatchError> {
    if message.codec_id() != Codec::None as u8 {
        let expected = "inner messages that are not compressed themselves";
        return Err(BatchError::Structure {
            position: 17,
            expected,
            found: message.codec_id().into(),
        });
    }
    let mut record = message.record();
    if wrapper == Magic::V1 {
        record.offset = Offset(base.wrapping_add(message.offset));
    }
    if message.magic == Magic::V1 {
        record.timestamp = append_time.unwrap_or(message.timestamp);
    }
    Ok(record)
}
