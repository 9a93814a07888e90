//! [`each_record`]: the records of a batch of any format, with their offsets in the log and their timestamps.
//!
//! One record at a time is in memory, whatever a compressed batch would grow to.

use milena_engine::record_batch::Batch;

use super::raw_batch::{RawBatch, increment_sequence};
use super::raw_message::each_message;
use super::thing::{Damage, Layout, RecordThing};

/// Walks the records of a batch, of which `bytes` are all bytes.
///
/// # Errors
/// Where the walk must end, and what `each` returns.
pub(super) fn each_record<E: From<Damage>>(
    bytes: &[u8],
    raw: &RawBatch,
    mut each: impl FnMut(&RecordThing<'_>) -> Result<(), E>,
) -> Result<(), E> {
    if !raw.is_v2() {
        return each_message(bytes, raw, |message, offset, timestamp| {
            let fields = || {
                Ok::<_, String>((
                    i64::from(message.key_size()?),
                    i64::from(message.value_size()?),
                    message.stored_crc()?,
                    message.is_valid()?,
                ))
            };
            let (key_size, value_size, crc, is_valid) = fields().map_err(Damage::from)?;
            each(&RecordThing {
                raw,
                offset,
                timestamp,
                key_size,
                value_size,
                content: message.key().and_then(|key| Ok((key, message.value()?))),
                layout: Layout::Message {
                    crc,
                    is_valid,
                    size_bytes: message.size_bytes(),
                },
            })
        });
    }
    let neutral = raw.neutral(bytes)?;
    let batch = Batch::parse(&neutral).map_err(Damage::from)?;
    let mut records = batch.records().map_err(Damage::from)?;
    while let Some(record) = records.next_record().map_err(Damage::from)? {
        let delta = record.offset.get();
        each(&RecordThing {
            raw,
            offset: raw.base_offset().wrapping_add(delta),
            timestamp: raw.timestamp(record.timestamp),
            key_size: size_of(record.key),
            value_size: size_of(record.value),
            content: Ok((record.key, record.value)),
            layout: Layout::Record {
                sequence: match raw.base_sequence() {
                    base if base >= 0 => increment_sequence(base, delta as i32),
                    _ => -1,
                },
                headers: record.headers,
                timestamp_delta: record.timestamp.get(),
                offset_delta: delta,
            },
        })?;
    }
    Ok(())
}

/// −1 for null.
fn size_of(field: Option<&[u8]>) -> i64 {
    field.map_or(-1, |bytes| bytes.len() as i64)
}
