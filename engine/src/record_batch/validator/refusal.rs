//! Why records are refused: the rules for a single record, and the words of the answer.
//!
//! Refused records are collected over their batch and named together ([`Refusals`]); anything else that is wrong
//! ends the validation at once.
//!
//! **Deviation:** a record that breaks Kafka's parser with an unchecked exception (answered
//! UNKNOWN_SERVER_ERROR), a compressed stream that is broken, and a batch that must be rewritten and names a
//! producer without an epoch or a transaction without a producer, is INVALID_RECORD here: the same bytes will
//! never be right. As in Kafka, a batch that stays as it is may name such a producer. Headers towards a format
//! without headers are UNSUPPORTED_FOR_MESSAGE_FORMAT for the same reason.
//!
//! **Deviation:** at most [`REFUSALS_MAX`] refused records are named, so that a small request cannot demand a
//! huge answer.
//!
//! Source: `LogValidator.validateRecord`, `RecordValidationException` of 2.7.2; KIP-467.

use super::Validation;
use crate::config::TimestampType;
use crate::error::{InvalidRecords, RecordRefusal};
use crate::record_batch::BatchError;
use crate::units::{Offset, TimestampMs};

/// Refused records that an answer names at most.
pub(super) const REFUSALS_MAX: usize = 1000;

/// What a refusal tells about a record.
pub(super) struct Found {
    pub(super) offset: Offset,
    pub(super) timestamp: TimestampMs,
    pub(super) has_key: bool,
}

/// Refusals of single records, collected over a batch.
#[derive(Default)]
pub(super) struct Refusals {
    records: Vec<RecordRefusal>,
    /// One of them for its timestamp: INVALID_TIMESTAMP goes before INVALID_RECORD.
    timestamp: bool,
}

impl Refusals {
    pub(super) fn push(&mut self, batch_index: i64, timestamp: bool, message: String) {
        self.timestamp |= timestamp;
        if self.records.len() < REFUSALS_MAX {
            let batch_index = i32::try_from(batch_index).unwrap_or(i32::MAX);
            self.records.push(RecordRefusal {
                batch_index,
                message: Some(message),
            });
        }
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// The answer to the whole, once every record was looked at.
    pub(super) fn result(self) -> Result<(), InvalidRecords> {
        if self.records.is_empty() {
            Ok(())
        } else if self.timestamp {
            let message = "One or more records have been rejected due to invalid timestamp".to_owned();
            Err(InvalidRecords::Timestamp {
                message,
                records: self.records,
            })
        } else {
            let message = "One or more records have been rejected".to_owned();
            Err(InvalidRecords::Invalid {
                message,
                records: self.records,
            })
        }
    }
}

impl Validation<'_> {
    /// Timestamp and key of one record.
    #[inline(always)]
    pub(super) fn is_refused(&self, bounds: bool, timestamp: TimestampMs, has_key: bool) -> bool {
        (self.rules.compacted && !has_key) || (bounds && self.is_out_of_bounds(timestamp))
    }

    fn is_out_of_bounds(&self, timestamp: TimestampMs) -> bool {
        let distance = timestamp.get().wrapping_sub(self.now.get()).wrapping_abs();
        timestamp != TimestampMs::NONE && distance > self.rules.timestamp_difference_max_ms
    }

    /// Says why a record is refused: for a record of which [`Validation::is_refused`] holds or whose batch
    /// claims append time.
    #[cold]
    pub(super) fn push_refusal(
        &self,
        refusals: &mut Refusals,
        index: i64,
        record: &Found,
        batch_type: TimestampType,
    ) {
        let Found {
            offset,
            timestamp,
            has_key,
        } = *record;
        if self.rules.compacted && !has_key {
            let partition = self.rules.in_partition();
            refusals.push(
                index,
                false,
                format!("Compacted topic cannot accept message without key {partition}."),
            );
        } else if self.rules.bounds_timestamps() && self.is_out_of_bounds(timestamp) {
            let (now, difference) = (self.now.get(), self.rules.timestamp_difference_max_ms);
            let message = format!(
                "Timestamp {timestamp} of message with offset {offset} is out of range. The timestamp should \
                 be within [{}, {}]",
                now.wrapping_sub(difference),
                now.wrapping_add(difference)
            );
            refusals.push(index, true, message);
        } else if batch_type == TimestampType::LogAppendTime {
            let message = format!(
                "Invalid timestamp type in message at offset {offset}. Producer should not set timestamp \
                 type to LogAppendTime."
            );
            refusals.push(index, true, message);
        }
    }

    /// A structural error inside a batch whose CRC is right.
    pub(super) fn refuse(&self, error: BatchError) -> InvalidRecords {
        invalid(format!("{error} {}", self.rules.in_partition()))
    }
}

/// A request that is wrong as a whole: INVALID_RECORD.
pub(super) fn invalid(message: String) -> InvalidRecords {
    InvalidRecords::Invalid {
        message,
        records: Vec::new(),
    }
}

/// Bytes that are not as they were sent: CORRUPT_MESSAGE, with the first place where it shows.
pub(super) fn corrupt(error: BatchError) -> InvalidRecords {
    let (position, expected, found) = match error {
        BatchError::Crc {
            position,
            stored,
            computed,
        } => (
            position,
            format!("crc {computed}"),
            format!("stored crc {stored}"),
        ),
        BatchError::Size {
            position,
            found,
            minimum,
        } => (
            position,
            format!("a length of at least {minimum}"),
            format!("length {found}"),
        ),
        BatchError::Magic { position, found } => {
            (position, "magic 0, 1 or 2".into(), format!("magic {found}"))
        }
        other => (0, "a whole batch".into(), other.to_string()),
    };
    InvalidRecords::Corrupt {
        position,
        expected,
        found,
    }
}
