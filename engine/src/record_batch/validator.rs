//! What a leader checks before it appends, and what it rewrites: [`validate`].
//!
//! It needs neither the log nor an offset, so it runs before the partition's lock is taken;
//! [`ValidatedBatches::assign`] does the rest under it. On the path of every produce request: for a v2 batch
//! that may stay as it is there is no allocation, no copy of the records, and one pass over them beside that
//! of the CRC.
//!
//! | records | topic wants | result |
//! |---|---|---|
//! | v2 batch or v1 wrapper | same format and codec | kept, header stamped |
//! | v0, v1 messages | same format, no codec | kept (copied as a set if there are several) |
//! | v0 wrapper | v0 | rebuilt: inner offsets are absolute |
//! | any | other format or codec | rebuilt record by record |
//! | v2 batch or v1 wrapper whose offsets are not 0, 1, 2, .. | same | rebuilt with such offsets |
//!
//! In four steps: the batches as wholes (`analysis`), which row of the table holds (here), each record (`scan`),
//! and where need be all of them written anew (`rebuild`); `refusal` has the words.
//!
//! **Deviation:** an uncompressed v2 batch whose offset deltas are not dense is rebuilt, as Kafka does for
//! compressed ones; Kafka appends it as it is, and the log then holds offsets that lie about their place.
//!
//! Source: `LogValidator`, `Log.analyzeAndValidateRecords`, `ProduceRequest.validateRecords` of 2.7.2;
//! KIP-467.

mod analysis;
mod rebuild;
mod refusal;
mod rules;
mod scan;

pub use rules::{AppendOrigin, Level, RequestRules, ValidationRules};

use super::Batch;
use super::validated::{Body, MaxAt, ValidatedBatches, set_max_timestamp};
use crate::config::{Codec, CompressionType, Magic, TimestampType};
use crate::error::InvalidRecords;
use crate::units::TimestampMs;

use analysis::Analyzed;
use refusal::invalid;
use scan::{MaxTimestamp, Scanned};

/// Checks the batches of one partition in one request and makes them ready to be stamped.
///
/// An incomplete batch at the end is left out, as Kafka does. `now` is the append time for `LogAppendTime`
/// topics and the middle of the allowed timestamps.
///
/// # Errors
/// Each variant of [`InvalidRecords`] names the error code that the producer gets. Nothing is partly
/// accepted.
pub fn validate<'a>(
    records: &'a [u8],
    rules: &ValidationRules,
    now: TimestampMs,
    level: Level,
) -> Result<ValidatedBatches<'a>, InvalidRecords> {
    let validation = Validation { rules, now, level };
    let batches = validation.analyze(records)?;
    let Some(first) = batches.first else {
        return Ok(ValidatedBatches::new(Body::Empty, 0));
    };
    validation.run(&batches, &first)
}

/// One call of [`validate`].
struct Validation<'r> {
    rules: &'r ValidationRules,
    now: TimestampMs,
    level: Level,
}

impl Validation<'_> {
    /// Which row of the table holds.
    fn run<'a>(
        &self,
        batches: &Analyzed<'a>,
        first: &Batch<'a>,
    ) -> Result<ValidatedBatches<'a>, InvalidRecords> {
        let source = batches.source;
        let target = match self.rules.compression {
            CompressionType::Producer => source,
            CompressionType::Always(codec) => codec,
        };
        if !batches.rest.is_empty() && (first.magic() == Magic::V2 || source != Codec::None) {
            return Err(invalid(
                "Compressed outer record has more than one batch".to_owned(),
            ));
        }
        for batch in batches.iter() {
            self.check_batch(first, batch)?;
        }
        let to = self.rules.magic;
        if target == Codec::Zstd && to < Magic::V2 {
            return Err(InvalidRecords::UnsupportedCompression {
                message: format!("ZStandard compression is not supported for magic {}", to as u8),
            });
        }
        // control batches stay as they were written
        let same_codec = source == target || (source == Codec::None && first.is_control());
        let in_place = same_codec && first.magic() == to && !(to == Magic::V0 && source != Codec::None);
        if !in_place {
            return self.rebuild(batches, target);
        }
        if first.magic() < Magic::V2 && source == Codec::None {
            return self.message_set(batches);
        }
        let scanned = match (first.magic(), self.level) {
            (Magic::V2, Level::Header) if self.header_suffices(first) => {
                let count = first.record_count().unwrap_or(0).into();
                let max = MaxTimestamp {
                    timestamp: first.max_timestamp(),
                    index: count - 1,
                };
                Scanned {
                    max,
                    dense: true,
                    count,
                }
            }
            (Magic::V2, _) if first.codec() == Codec::None => self.scan_plain(first)?,
            (Magic::V2, _) => self.scan_compressed(first)?,
            _ => self.scan_messages(batches.iter())?,
        };
        if !scanned.dense {
            return self.rebuild(batches, target);
        }
        let plain = first.codec() == Codec::None;
        let at = if plain {
            MaxAt::Index(scanned.max.index)
        } else {
            MaxAt::Last
        };
        Ok(self.keep(first, &scanned, at))
    }

    /// Stamps a batch that stays as it is.
    fn keep<'a>(&self, batch: &Batch<'a>, scanned: &Scanned, at: MaxAt) -> ValidatedBatches<'a> {
        let mut body = Body::borrowed(batch);
        let append_time = self.rules.timestamp_type == TimestampType::LogAppendTime;
        let timestamp = if append_time {
            self.now
        } else {
            scanned.max.timestamp
        };
        body.set_max_timestamp(self.rules.timestamp_type, timestamp);
        let mut validated = ValidatedBatches::new(body, scanned.count);
        validated.max_timestamp = timestamp;
        validated.max_timestamp_at = match at {
            _ if append_time => MaxAt::Last,
            MaxAt::Index(-1) => MaxAt::Nowhere,
            at => at,
        };
        validated.log_append_time = append_time.then_some(self.now);
        if batch.is_control() {
            // markers of kinds that are not ours to know carry no meaning for producer state
            validated.control = batch.control_record().ok();
        }
        validated
    }

    /// Whether no setting of the topic demands to see single records.
    fn header_suffices(&self, batch: &Batch<'_>) -> bool {
        !self.rules.compacted
            && !self.rules.bounds_timestamps()
            && batch.timestamp_type() == TimestampType::CreateTime
    }

    /// Uncompressed v0 or v1 messages in the topic's own format.
    fn message_set<'a>(&self, batches: &Analyzed<'a>) -> Result<ValidatedBatches<'a>, InvalidRecords> {
        let Scanned { max, count, .. } = self.scan_messages(batches.iter())?;
        let kind = self.rules.timestamp_type;
        let append_time = kind == TimestampType::LogAppendTime;
        let timestamp_of = |batch: &Batch<'_>| match kind {
            TimestampType::LogAppendTime => self.now,
            // as Kafka, which starts from "none" and takes the maximum: what is below that becomes it
            TimestampType::CreateTime => batch.max_timestamp().max(TimestampMs::NONE),
        };
        let body = match &batches.first {
            Some(only) if batches.rest.is_empty() => {
                let mut body = Body::borrowed(only);
                body.set_max_timestamp(kind, timestamp_of(only));
                body
            }
            _ => {
                let mut bytes = batches.bytes.to_vec();
                let mut position = 0;
                for batch in batches.iter() {
                    let message = &mut bytes[position..position + batch.size_bytes()];
                    set_max_timestamp(message, &[], kind, timestamp_of(batch));
                    position += batch.size_bytes();
                }
                Body::Owned(bytes)
            }
        };
        let mut validated = ValidatedBatches::new(body, count);
        validated.max_timestamp = if append_time { self.now } else { max.timestamp };
        validated.max_timestamp_at = match max.index {
            _ if append_time => MaxAt::First,
            -1 => MaxAt::Nowhere,
            index => MaxAt::Index(index),
        };
        validated.log_append_time = append_time.then_some(self.now);
        Ok(validated)
    }
}

#[cfg(test)]
mod hostile;
#[cfg(test)]
mod tests;
