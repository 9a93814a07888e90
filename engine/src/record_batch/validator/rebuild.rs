//! Batches that cannot stay as they are, written anew: another format, another codec, or offsets that are not dense.
//!
//! Promise: one v2 batch, one wrapper, or a set of messages with offsets from 0 on, of at most `max.message.bytes` a
//! batch, in memory that is bounded by that and [`CONVERTED_SET_SIZE_MAX`], not by what the request states.
//!
//! Source: `LogValidator.convertAndAssignOffsetsNonCompressed`, `buildRecordsAndAssignOffsets`,
//! `MemoryRecordsBuilder.validateProducerState` of 2.7.2; KIP-31, KIP-32.

use super::Validation;
use super::analysis::Analyzed;
use super::refusal::invalid;
use crate::config::{Codec, Magic, TimestampType};
use crate::error::InvalidRecords;
use crate::record_batch::builder::{RecordBatchBuilder, wrap_v0};
use crate::record_batch::record::Record;
use crate::record_batch::validated::{Body, MaxAt, ValidatedBatches};
use crate::record_batch::{Batch, BatchError};
use crate::units::{Offset, TimestampMs};

/// Size that a set of uncompressed v0 or v1 messages, made from something smaller, may reach.
///
/// **Deviation:** Kafka has no bound here but its heap.
const CONVERTED_SET_SIZE_MAX: usize = 256 << 20;

/// What the records become.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    /// One v2 batch, or one v1 wrapper: compressed as they come.
    Batch,
    /// A v0 or v1 message each.
    Messages,
    /// One v0 wrapper. Its inner offsets are absolute: the messages are kept uncompressed until these are known.
    WrapperV0,
}

impl Form {
    const fn new(magic: Magic, codec: Codec) -> Form {
        match (magic, codec) {
            (Magic::V0 | Magic::V1, Codec::None) => Form::Messages,
            (Magic::V0, _) => Form::WrapperV0,
            (Magic::V1 | Magic::V2, _) => Form::Batch,
        }
    }
}

impl Validation<'_> {
    /// Writes all records anew, with offsets from 0 on.
    pub(super) fn rebuild<'a>(
        &self,
        batches: &Analyzed<'a>,
        target: Codec,
    ) -> Result<ValidatedBatches<'a>, InvalidRecords> {
        for batch in batches.iter() {
            self.check_producer(batch)?;
        }
        let form = Form::new(self.rules.magic, target);
        let mut builder = self.builder(batches, form, target);
        for batch in batches.iter() {
            self.each_record(batch, |record| {
                self.check_convertible(record)?;
                let index = i64::from(builder.record_count());
                builder
                    .append_record(Offset(index), record)
                    .map_err(|error| self.refuse_rewriting(error))?;
                self.check_size(&builder, form)
            })?;
        }
        let count = builder.record_count();
        let max_timestamp = builder.max_timestamp();
        let offset_of_max = builder.offset_of_max_timestamp();
        let bytes = builder.build();
        let body = match form {
            Form::Batch | Form::Messages => Body::Owned(bytes),
            Form::WrapperV0 => Body::WrapperV0 {
                built: wrap_v0(&bytes, target, Offset(i64::from(count) - 1)),
                messages: bytes,
                codec: target,
                limit: self.rules.max_message_bytes,
            },
        };
        let append_time = self.rules.timestamp_type == TimestampType::LogAppendTime;
        let mut validated = ValidatedBatches::new(body, i64::from(count));
        if form != Form::Messages {
            self.check_batch_size(validated.size_bytes())?;
        }
        validated.max_timestamp = max_timestamp;
        validated.max_timestamp_at = match offset_of_max {
            _ if form != Form::Messages => MaxAt::Last,
            _ if append_time => MaxAt::First,
            Some(offset) => MaxAt::Index(offset.get()),
            None => MaxAt::Last,
        };
        validated.log_append_time = append_time.then_some(self.now);
        validated.converted = count;
        if let Some(first) = batches.first.filter(Batch::is_control) {
            validated.control = first.control_record().ok();
        }
        Ok(validated)
    }

    /// An empty batch of the topic's settings, with what the first batch says of its producer.
    fn builder(&self, batches: &Analyzed<'_>, form: Form, target: Codec) -> RecordBatchBuilder {
        let codec = match form {
            Form::Batch => target,
            Form::Messages | Form::WrapperV0 => Codec::None,
        };
        let mut builder = RecordBatchBuilder::new().magic(self.rules.magic).codec(codec);
        if self.rules.timestamp_type == TimestampType::LogAppendTime {
            builder = builder.log_append_time(self.now);
        }
        if let Some(first) = batches.first
            && self.rules.magic == Magic::V2
        {
            if let Some(producer) = first.producer() {
                builder = builder.producer(producer.id, producer.epoch, producer.base_sequence);
            }
            builder = builder
                .transactional(first.is_transactional())
                .control(first.is_control());
        }
        builder
    }

    /// After each record, so that no more is written than may be.
    fn check_size(&self, builder: &RecordBatchBuilder, form: Form) -> Result<(), InvalidRecords> {
        match form {
            Form::Batch => return self.check_batch_size(builder.size_bytes()),
            Form::Messages => self.check_batch_size(builder.largest_message())?,
            Form::WrapperV0 => {}
        }
        let (size_bytes, limit_bytes) = (builder.size_bytes(), CONVERTED_SET_SIZE_MAX);
        if size_bytes > limit_bytes {
            return Err(InvalidRecords::SetTooLarge {
                size_bytes,
                limit_bytes,
            });
        }
        Ok(())
    }

    /// What no batch is written with: to be checked before one is rewritten (`validateProducerState`).
    fn check_producer(&self, batch: &Batch<'_>) -> Result<(), InvalidRecords> {
        let what = match batch.producer() {
            Some(producer) if producer.epoch.get() < 0 => "a producer id without an epoch",
            Some(producer) if producer.base_sequence.is_none() && !batch.is_control() => {
                "a producer id without a sequence number"
            }
            None if batch.is_transactional() || batch.is_control() => "a transaction without a producer id",
            _ => return Ok(()),
        };
        let partition = self.rules.in_partition();
        Err(invalid(format!("Record batch with {what} {partition}.")))
    }

    fn refuse_rewriting(&self, error: BatchError) -> InvalidRecords {
        match error {
            BatchError::TooLarge {
                size_bytes,
                limit_bytes,
            } => InvalidRecords::TooLarge {
                size_bytes,
                limit_bytes,
            },
            error => self.refuse(error),
        }
    }

    /// What the target format cannot hold.
    fn check_convertible(&self, record: &Record<'_>) -> Result<(), InvalidRecords> {
        if record.timestamp < TimestampMs::NONE {
            return Err(invalid(format!(
                "Invalid negative timestamp {} {}",
                record.timestamp,
                self.rules.in_partition()
            )));
        }
        if self.rules.magic < Magic::V2 && !record.headers.is_empty() {
            return Err(InvalidRecords::UnsupportedForFormat {
                message: format!(
                    "Magic v{} does not support record headers",
                    self.rules.magic as u8
                ),
            });
        }
        Ok(())
    }
}
