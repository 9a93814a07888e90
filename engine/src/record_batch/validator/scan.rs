//! One pass over the records of a batch: each is checked, none is kept.
//!
//! For a batch that may stay as it is the pass finds the largest timestamp and whether the offsets are 0, 1, 2, ..
//! ([`Scanned`]): neither allocation nor copy unless a record is refused. That of an uncompressed v2 batch is on the
//! path of every produce request.
//!
//! Source: `LogValidator.validateMessagesAndAssignOffsetsCompressed` and `assignOffsetsNonCompressed` of 2.7.2.

use super::Validation;
use super::refusal::{Found, Refusals, corrupt};
use crate::config::{Magic, TimestampType};
use crate::error::InvalidRecords;
use crate::record_batch::legacy::{InnerMessages, Message, absolute_base, resolve};
use crate::record_batch::record::{Record, StreamRecords, Times, scan, scan_run};
use crate::record_batch::{Batch, BatchError, RECORD_BATCH_OVERHEAD};
use crate::units::TimestampMs;

/// Largest timestamp seen, and where.
#[derive(Clone, Copy)]
pub(super) struct MaxTimestamp {
    pub(super) timestamp: TimestampMs,
    pub(super) index: i64,
}

impl MaxTimestamp {
    pub(super) const NONE: MaxTimestamp = MaxTimestamp {
        timestamp: TimestampMs::NONE,
        index: -1,
    };

    #[inline(always)]
    fn see(&mut self, timestamp: TimestampMs, index: i64) {
        if timestamp > self.timestamp {
            *self = MaxTimestamp { timestamp, index };
        }
    }
}

/// What a scan of a batch that may stay in place found.
pub(super) struct Scanned {
    pub(super) max: MaxTimestamp,
    /// Offsets are 0, 1, 2, ..: they need not be written anew.
    pub(super) dense: bool,
    pub(super) count: i64,
}

impl Validation<'_> {
    /// An uncompressed v2 batch.
    pub(super) fn scan_plain(&self, batch: &Batch<'_>) -> Result<Scanned, InvalidRecords> {
        let (bytes, times) = (batch.bytes(), Times::new(batch));
        let count = i64::from(batch.record_count().unwrap_or(0));
        let bounds = self.rules.bounds_timestamps();
        let append_time = batch.timestamp_type() == TimestampType::LogAppendTime;
        let (mut max, mut dense) = (MaxTimestamp::NONE, true);
        let mut refusals = Refusals::default();
        let (mut position, mut taken) = (RECORD_BATCH_OVERHEAD, 0);
        if !append_time && !bounds && times.keep_order() {
            let run = scan_run(bytes, position, count);
            if run.count > 0 && (run.all_keys || !self.rules.compacted) {
                max.see(times.timestamp(run.max_timestamp_delta), run.max_timestamp_index);
                (position, taken) = (run.end, run.count);
            }
        }
        for index in taken..count {
            let found = scan(bytes, position).map_err(|error| self.refuse(error))?;
            position = found.end;
            let timestamp = times.timestamp(found.timestamp_delta);
            dense &= i64::from(found.offset_delta) == index;
            max.see(timestamp, index);
            let has_key = !found.key.is_null();
            if append_time || self.is_refused(bounds, timestamp, has_key) {
                let found = Found {
                    offset: times.offset(found.offset_delta),
                    timestamp,
                    has_key,
                };
                self.push_refusal(&mut refusals, index, &found, batch.timestamp_type());
            }
        }
        if position != bytes.len() {
            return Err(self.leftover(position, bytes.len() - position));
        }
        refusals.result()?;
        Ok(Scanned { max, dense, count })
    }

    fn leftover(&self, position: usize, size: usize) -> InvalidRecords {
        let expected = "no byte after the last record";
        self.refuse(BatchError::Structure {
            position,
            expected,
            found: size as i64,
        })
    }

    /// A compressed v2 batch: keys and values are stepped over, not kept.
    pub(super) fn scan_compressed(&self, batch: &Batch<'_>) -> Result<Scanned, InvalidRecords> {
        let count = batch.record_count().unwrap_or(0);
        let times = Times::new(batch);
        let bounds = self.rules.bounds_timestamps();
        let append_time = batch.timestamp_type() == TimestampType::LogAppendTime;
        let (mut max, mut dense, mut index) = (MaxTimestamp::NONE, true, 0);
        let mut refusals = Refusals::default();
        let mut records = StreamRecords::new(batch, count).map_err(|error| self.refuse(error))?;
        while let Some(found) = records.next_brief().map_err(|error| self.refuse(error))? {
            let timestamp = times.timestamp(found.timestamp_delta);
            dense &= i64::from(found.offset_delta) == index;
            max.see(timestamp, index);
            if append_time || self.is_refused(bounds, timestamp, found.has_key) {
                let found = Found {
                    offset: times.offset(found.offset_delta),
                    timestamp,
                    has_key: found.has_key,
                };
                self.push_refusal(&mut refusals, index, &found, batch.timestamp_type());
            }
            index += 1;
        }
        refusals.result()?;
        Ok(Scanned {
            max,
            dense,
            count: index,
        })
    }

    /// A v1 wrapper, or uncompressed v0 or v1 messages.
    pub(super) fn scan_messages<'b>(
        &self,
        batches: impl Iterator<Item = &'b Batch<'b>>,
    ) -> Result<Scanned, InvalidRecords> {
        let (mut max, mut dense, mut count) = (MaxTimestamp::NONE, true, 0);
        for batch in batches {
            self.each_record(batch, |record| {
                max.see(record.timestamp, count);
                dense &= record.offset.get() == count;
                count += 1;
                Ok(())
            })?;
        }
        Ok(Scanned { max, dense, count })
    }

    /// Checks every record of a batch and hands those that pass to `take`; refused ones end the whole at the
    /// batch's end.
    pub(super) fn each_record(
        &self,
        batch: &Batch<'_>,
        mut take: impl FnMut(&Record<'_>) -> Result<(), InvalidRecords>,
    ) -> Result<(), InvalidRecords> {
        let bounds = self.rules.bounds_timestamps();
        let append_time = batch.timestamp_type() == TimestampType::LogAppendTime;
        let (mut refusals, mut index) = (Refusals::default(), 0);
        let mut check = |record: &Record<'_>, refusals: &mut Refusals, index: i64| {
            if append_time || self.is_refused(bounds, record.timestamp, record.key.is_some()) {
                let has_key = record.key.is_some();
                let found = Found {
                    offset: record.offset,
                    timestamp: record.timestamp,
                    has_key,
                };
                self.push_refusal(refusals, index, &found, batch.timestamp_type());
            }
            if refusals.is_empty() { take(record) } else { Ok(()) }
        };
        if batch.magic() < Magic::V2 && batch.is_compressed() {
            let base = absolute_base(batch).map_err(|error| self.refuse(error))?;
            let time = append_time.then(|| batch.max_timestamp());
            let mut messages = InnerMessages::new(batch).map_err(|error| self.refuse(error))?;
            while let Some(message) = messages.next_message().map_err(|error| self.refuse(error))? {
                let record =
                    resolve(&message, batch.magic(), base, time).map_err(|error| self.refuse(error))?;
                if message.magic != batch.magic() {
                    refusals.push(index, false, self.other_magic(&message, batch));
                } else {
                    message.verify_crc().map_err(corrupt)?;
                    check(&record, &mut refusals, index)?;
                }
                index += 1;
            }
        } else {
            let mut records = batch.records().map_err(|error| self.refuse(error))?;
            while let Some(record) = records.next_record().map_err(|error| self.refuse(error))? {
                check(&record, &mut refusals, index)?;
                index += 1;
            }
        }
        refusals.result()
    }

    fn other_magic(&self, message: &Message<'_>, batch: &Batch<'_>) -> String {
        format!(
            "Record at offset {} has magic {}, which does not match outer magic {} {}.",
            message.offset,
            message.magic as u8,
            batch.magic() as u8,
            self.rules.in_partition()
        )
    }
}
