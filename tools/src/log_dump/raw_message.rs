//! [`RawMessage`]: the fields of a message of format v0 or v1 as they stand, whatever they say.
//!
//! Sizes are looked at only when their field is asked for, as Kafka's reader does. Source: `LegacyRecord` of 2.7.2.

use milena_engine::record_batch::{Batch, BatchError, InnerMessages, LOG_OVERHEAD, absolute_base};

use super::raw_batch::RawBatch;
use super::thing::Damage;

/// Walks a message, or those in a wrapper, with their offsets in the log and their timestamps.
///
/// # Errors
/// Where the walk must end, and what `each` returns.
pub(super) fn each_message<E: From<Damage>>(
    bytes: &[u8],
    raw: &RawBatch,
    mut each: impl FnMut(&RawMessage<'_>, i64, i64) -> Result<(), E>,
) -> Result<(), E> {
    if !raw.is_compressed() {
        let message = RawMessage { bytes };
        let timestamp = message.timestamp().map_err(Damage::from)?;
        return each(&message, raw.base_offset(), timestamp);
    }
    let broken = |error: BatchError| E::from(Damage::from(error));
    let batch = Batch::parse(bytes).map_err(broken)?;
    let base = absolute_base(&batch).map_err(broken)?;
    let mut inner = InnerMessages::new(&batch).map_err(broken)?;
    while let Some(bytes) = inner.next_bytes().map_err(broken)? {
        let message = RawMessage { bytes };
        let (offset, timestamp) = message.place(raw, base).map_err(Damage::from)?;
        each(&message, offset, timestamp)?;
    }
    Ok(())
}

/// One message, from its offset to its end.
#[derive(Clone, Copy, Debug)]
pub(super) struct RawMessage<'a> {
    bytes: &'a [u8],
}

impl<'a> RawMessage<'a> {
    /// Of a message in a wrapper: its offset in the log and its timestamp.
    fn place(&self, wrapper: &RawBatch, base: i64) -> Result<(i64, i64), String> {
        let offset = match wrapper.magic() {
            1 => base.wrapping_add(self.offset()?),
            _ => self.offset()?,
        };
        if self.is_compressed()? {
            return Err("found a compressed message inside a compressed set".to_owned());
        }
        let timestamp = if wrapper.is_append_time() && self.magic()? == 1 {
            wrapper.max_timestamp()
        } else {
            self.timestamp()?
        };
        Ok((offset, timestamp))
    }

    pub(super) fn size_bytes(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn array<const N: usize>(&self, position: usize) -> Result<[u8; N], String> {
        let bytes = self.bytes.get(position..).and_then(|rest| rest.first_chunk());
        bytes.copied().ok_or_else(|| {
            format!(
                "a message of {} bytes has no field of {N} at byte {position}",
                self.bytes.len()
            )
        })
    }

    fn i32(&self, position: usize) -> Result<i32, String> {
        self.array(position).map(i32::from_be_bytes)
    }

    fn offset(&self) -> Result<i64, String> {
        self.array(0).map(i64::from_be_bytes)
    }

    fn magic(&self) -> Result<i8, String> {
        self.array(16).map(i8::from_be_bytes)
    }

    fn is_compressed(&self) -> Result<bool, String> {
        let [attributes] = self.array(17)?;
        Ok(attributes & 7 != 0)
    }

    fn timestamp(&self) -> Result<i64, String> {
        if self.magic()? == 0 {
            return Ok(-1);
        }
        self.array(18).map(i64::from_be_bytes)
    }

    pub(super) fn stored_crc(&self) -> Result<u32, String> {
        self.array(12).map(u32::from_be_bytes)
    }

    pub(super) fn is_valid(&self) -> Result<bool, String> {
        Ok(self.bytes.len() >= LOG_OVERHEAD + 14
            && crc32fast::hash(&self.bytes[16..]) == self.stored_crc()?)
    }

    fn key_position(&self) -> Result<usize, String> {
        Ok(if self.magic()? == 0 { 18 } else { 26 })
    }

    /// As stored; negative for null.
    pub(super) fn key_size(&self) -> Result<i32, String> {
        self.i32(self.key_position()?)
    }

    fn value_position(&self) -> Result<usize, String> {
        Ok(self.key_position()? + 4 + usize::try_from(self.key_size()?).unwrap_or(0))
    }

    /// As stored; negative for null.
    pub(super) fn value_size(&self) -> Result<i32, String> {
        self.i32(self.value_position()?)
    }

    /// The bytes behind a size at `position`.
    fn sized(&self, position: usize) -> Result<Option<&'a [u8]>, String> {
        let size = self.i32(position)?;
        let Ok(length) = usize::try_from(size) else {
            return Ok(None);
        };
        let field = self.bytes.get(position + 4..).and_then(|rest| rest.get(..length));
        field
            .map(Some)
            .ok_or_else(|| format!("a field of {size} bytes in a message of {}", self.bytes.len()))
    }

    pub(super) fn key(&self) -> Result<Option<&'a [u8]>, String> {
        self.sized(self.key_position()?)
    }

    pub(super) fn value(&self) -> Result<Option<&'a [u8]>, String> {
        self.sized(self.value_position()?)
    }
}
