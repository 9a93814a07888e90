//! Down-conversion for consumers that know only older message formats (KIP-31, KIP-32).
//!
//! Batches that the consumer understands are copied as they are. Newer ones are rebuilt: headers and producer
//! fields are lost, control batches are dropped, the codec and the offsets stay. Output is bounded by the
//! records given, which the caller chose.
//!
//! Source: `RecordsUtil.downConvert` of 2.7.2.

use super::{BatchError, RecordBatchBuilder, batches};
use crate::config::{Codec, Magic, TimestampType};
use crate::units::Offset;

/// Rewrites `records` so that none is newer than `target`. An incomplete batch at the end is left out.
///
/// An uncompressed v2 batch becomes one message per record, of which those before `first_offset` (what the
/// consumer asked for) are left out; some versions of librdkafka need that. Empty output means that nothing
/// could be converted.
///
/// # Errors
/// `UnsupportedCompression` for zstd and a target below v2 (UNSUPPORTED_COMPRESSION_TYPE); `TooLarge` for a
/// batch that would become so; otherwise the batch is broken.
pub fn convert_down(records: &[u8], target: Magic, first_offset: Offset) -> Result<Vec<u8>, BatchError> {
    let mut out = Vec::with_capacity(records.len());
    let mut position = 0;
    for batch in batches(records) {
        let batch = match batch {
            Ok(batch) => batch,
            Err(error) if error.is_partial() => break,
            Err(error) => return Err(error),
        };
        let at = position;
        position += batch.size_bytes();
        if target < Magic::V2 {
            if batch.is_control() {
                continue;
            }
            if batch.codec() == Codec::Zstd {
                return Err(BatchError::UnsupportedCompression {
                    codec: Codec::Zstd,
                    magic: target,
                });
            }
        }
        if batch.magic() <= target {
            out.extend_from_slice(batch.bytes());
            continue;
        }
        let mut builder = None;
        let mut records = batch.records().map_err(|error| error.shifted(at))?;
        while let Some(record) = records.next_record().map_err(|error| error.shifted(at))? {
            if !batch.is_compressed() && record.offset < first_offset {
                continue;
            }
            let builder = builder.get_or_insert_with(|| {
                let builder = RecordBatchBuilder::new()
                    .magic(target)
                    .codec(batch.codec())
                    .base_offset(record.offset);
                match batch.timestamp_type() {
                    TimestampType::CreateTime => builder,
                    TimestampType::LogAppendTime => builder.log_append_time(batch.max_timestamp()),
                }
            });
            builder
                .append_record(record.offset, &record)
                .map_err(|error| error.shifted(at))?;
        }
        if let Some(builder) = builder {
            out.extend_from_slice(&builder.build());
        }
    }
    Ok(out)
}
