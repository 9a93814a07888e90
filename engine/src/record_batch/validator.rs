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
//! Purposeful differences from Kafka:
//!
//! **Deviation:** an uncompressed v2 batch whose offset deltas are not dense is rebuilt, as Kafka does for
//! compressed ones; Kafka appends it as it is, and the log then holds offsets that lie about their place.
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
//! Source: `LogValidator`, `Log.analyzeAndValidateRecords`, `ProduceRequest.validateRecords` of 2.7.2;
//! KIP-467.

mod rules;

pub use rules::{AppendOrigin, Level, RequestRules, ValidationRules};

use super::builder::RecordBatchBuilder;
use super::legacy::{InnerMessages, Message, absolute_base, resolve};
use super::record::{Record, StreamRecords, Times, scan, scan_run};
use super::validated::{Body, MaxAt, ValidatedBatches};
use super::{Batch, BatchError, BatchHeader, CRC_START, RECORD_BATCH_OVERHEAD, array};
use crate::config::{Codec, CompressionType, Magic, TimestampType};
use crate::error::{InvalidRecords, RecordRefusal};
use crate::units::{Offset, TimestampMs};

/// Refused records that an answer names at most.
pub const REFUSALS_MAX: usize = 1000;

/// Size that a set of uncompressed v0 or v1 messages, made from something smaller, may reach.
///
/// **Deviation:** Kafka has no bound here but its heap.
const CONVERTED_SET_SIZE_MAX: usize = 256 << 20;

fn invalid(message: String) -> InvalidRecords {
    InvalidRecords::Invalid {
        message,
        records: Vec::new(),
    }
}

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
    validation.run(batches, first)
}

/// The batches of a request: nearly always one, so that a list is needed for old message sets alone.
struct Analyzed<'a> {
    first: Option<Batch<'a>>,
    rest: Vec<Batch<'a>>,
    /// All bytes of whole batches.
    bytes: &'a [u8],
    source: Codec,
}

impl<'a> Analyzed<'a> {
    fn iter(&self) -> impl Iterator<Item = &Batch<'a>> {
        self.first.iter().chain(&self.rest)
    }
}

struct Validation<'r> {
    rules: &'r ValidationRules,
    now: TimestampMs,
    level: Level,
}

/// Largest timestamp seen, and where.
#[derive(Clone, Copy)]
struct MaxTimestamp {
    timestamp: TimestampMs,
    index: i64,
}

impl MaxTimestamp {
    const NONE: MaxTimestamp = MaxTimestamp {
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

/// Refusals of single records, collected over a batch.
#[derive(Default)]
struct Refusals {
    records: Vec<RecordRefusal>,
    timestamp: bool,
}

impl Refusals {
    fn push(&mut self, batch_index: i64, timestamp: bool, message: String) {
        self.timestamp |= timestamp;
        if self.records.len() < REFUSALS_MAX {
            let batch_index = i32::try_from(batch_index).unwrap_or(i32::MAX);
            self.records.push(RecordRefusal {
                batch_index,
                message: Some(message),
            });
        }
    }

    fn result(self) -> Result<(), InvalidRecords> {
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

/// What a scan of a batch that may stay in place found.
struct Scanned {
    max: MaxTimestamp,
    /// Offsets are 0, 1, 2, ..: they need not be written anew.
    dense: bool,
    count: i64,
}

impl Validation<'_> {
    /// Size, CRC and header of each batch, and the rules of the request's version.
    fn analyze<'a>(&self, records: &'a [u8]) -> Result<Analyzed<'a>, InvalidRecords> {
        let mut analyzed = Analyzed {
            first: None,
            rest: Vec::new(),
            bytes: &[],
            source: Codec::None,
        };
        let mut position = 0;
        loop {
            let batch = match self.analyze_batch(&records[position..], position) {
                Ok(Some(batch)) => batch,
                Ok(None) => break,
                Err(error) => return Err(error),
            };
            position += batch.size_bytes();
            if batch.codec() != Codec::None {
                analyzed.source = batch.codec();
            }
            match analyzed.first {
                None => analyzed.first = Some(batch),
                Some(_) => analyzed.rest.push(batch),
            }
            self.check_request(&batch, analyzed.rest.len())?;
        }
        analyzed.bytes = &records[..position];
        match self.rules.request.produce_version {
            Some(version) if version >= 3 && analyzed.first.is_none() => Err(invalid(format!(
                "Produce requests with version {version} must have at least one record batch"
            ))),
            _ => Ok(analyzed),
        }
    }

    /// `before` counts the batches before this one.
    fn check_request(&self, batch: &Batch<'_>, before: usize) -> Result<(), InvalidRecords> {
        let Some(version) = self.rules.request.produce_version.filter(|&version| version >= 3) else {
            return Ok(());
        };
        if batch.magic() != Magic::V2 {
            return Err(invalid(format!(
                "Produce requests with version {version} are only allowed to contain record \
                 batches with magic version 2"
            )));
        }
        if version < 7 && batch.codec() == Codec::Zstd {
            return Err(InvalidRecords::UnsupportedCompression {
                message: format!(
                    "Produce requests with version {version} are not allowed to use ZStandard compression"
                ),
            });
        }
        if before > 0 {
            return Err(invalid(format!(
                "Produce requests with version {version} are only allowed to contain exactly one record batch"
            )));
        }
        Ok(())
    }

    /// The next batch of the request at `bytes`; `None` if there is no whole one.
    fn analyze_batch<'a>(&self, bytes: &'a [u8], at: usize) -> Result<Option<Batch<'a>>, InvalidRecords> {
        if bytes.is_empty() {
            return Ok(None);
        }
        let size = match BatchHeader::size_of(bytes) {
            Ok(size) => size,
            Err(error) if error.is_partial() => return Ok(None),
            Err(error) => return Err(corrupt(error.shifted(at))),
        };
        let Some(bytes) = bytes.get(..size) else {
            return Ok(None);
        };
        let is_v2 = bytes[16] == Magic::V2 as u8;
        if is_v2 && self.rules.origin == AppendOrigin::Client {
            let base = i64::from_be_bytes(array(bytes, 0).unwrap_or_default());
            if base != 0 {
                return Err(invalid(format!(
                    "The baseOffset of the record batch in the append to {} should be 0, but it is {base}",
                    self.rules.topic_partition
                )));
            }
        }
        if size > self.rules.max_message_bytes {
            let limit_bytes = self.rules.max_message_bytes;
            return Err(InvalidRecords::TooLarge {
                size_bytes: size,
                limit_bytes,
            });
        }
        verify_crc(bytes, is_v2).map_err(|error| corrupt(error.shifted(at)))?;
        // the bytes are as they were sent: what is wrong now, the sender meant
        Batch::parse(bytes).map(Some).map_err(|error| match error {
            BatchError::OffsetRange { base, delta, .. } => invalid(format!(
                "Batch has an invalid offset range: [{base}, {}] {}.",
                base.wrapping_add(delta.into()),
                self.rules.in_partition()
            )),
            BatchError::RecordCount { found, .. } => invalid(format!(
                "Invalid reported count for record batch: {found} {}.",
                self.rules.in_partition()
            )),
            error => self.refuse(error.shifted(at)),
        })
    }

    /// A structural error inside a batch whose CRC is right.
    fn refuse(&self, error: BatchError) -> InvalidRecords {
        invalid(format!("{error} {}", self.rules.in_partition()))
    }

    fn run<'a>(
        &self,
        batches: Analyzed<'a>,
        first: Batch<'a>,
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
            self.check_batch(&first, batch)?;
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
            return self.rebuild(&batches, target);
        }
        if first.magic() < Magic::V2 && source == Codec::None {
            return self.message_set(&batches);
        }
        let scanned = match (first.magic(), self.level) {
            (Magic::V2, Level::Header) if self.header_suffices(&first) => {
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
            (Magic::V2, _) if first.codec() == Codec::None => self.scan_plain(&first)?,
            (Magic::V2, _) => self.scan_compressed(&first)?,
            _ => self.scan_wrapper(&first)?,
        };
        if !scanned.dense {
            return self.rebuild(&batches, target);
        }
        let plain = first.codec() == Codec::None;
        let at = if plain {
            MaxAt::Index(scanned.max.index)
        } else {
            MaxAt::Last
        };
        self.keep(&first, scanned, at)
    }

    /// Stamps a batch that stays as it is.
    fn keep<'a>(
        &self,
        batch: &Batch<'a>,
        scanned: Scanned,
        at: MaxAt,
    ) -> Result<ValidatedBatches<'a>, InvalidRecords> {
        let mut validated = ValidatedBatches::new(ValidatedBatches::borrow(batch), scanned.count);
        let append_time = self.rules.timestamp_type == TimestampType::LogAppendTime;
        let timestamp = if append_time {
            self.now
        } else {
            scanned.max.timestamp
        };
        ValidatedBatches::set_max_timestamp(&mut validated.body, self.rules.timestamp_type, timestamp);
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
        Ok(validated)
    }

    /// What Kafka checks of each batch as a whole.
    fn check_batch(&self, first: &Batch<'_>, batch: &Batch<'_>) -> Result<(), InvalidRecords> {
        let partition = &self.rules.topic_partition;
        if first.magic() != batch.magic() {
            return Err(invalid(format!(
                "Batch magic {} is not the same as the first batch'es magic byte {} in topic \
                 partition {partition}.",
                batch.magic() as u8,
                first.magic() as u8
            )));
        }
        if let (Magic::V2, Some(count)) = (batch.magic(), batch.record_count()) {
            if count == 0 {
                return Err(invalid(format!(
                    "Invalid reported count for record batch: 0 in topic partition {partition}."
                )));
            }
            if batch.next_offset().since(batch.base_offset()) != i64::from(count) {
                return Err(invalid(format!(
                    "Inconsistent batch offset range [{}, {}] and count of records {count} in topic \
                     partition {partition}.",
                    batch.base_offset(),
                    batch.last_offset()
                )));
            }
        }
        if self.rules.origin == AppendOrigin::Client {
            if batch.is_control() {
                return Err(invalid(format!(
                    "Clients are not allowed to write control records in topic partition {partition}."
                )));
            }
            if let Some(producer) = batch.producer()
                && producer.base_sequence.is_none()
            {
                return Err(invalid(format!(
                    "Invalid sequence number {} in record batch with producerId {} in topic partition \
                     {partition}.",
                    i32::from_be_bytes(array(batch.bytes(), 53).unwrap_or_default()),
                    producer.id
                )));
            }
        }
        let magic = self.rules.magic;
        let what = match (batch.is_transactional(), batch.producer()) {
            _ if magic == Magic::V2 => return Ok(()),
            (true, _) => "Transactional",
            (_, Some(_)) => "Idempotent",
            _ => return Ok(()),
        };
        let message = format!("{what} records cannot be used with magic version {}", magic as u8);
        Err(InvalidRecords::UnsupportedForFormat { message })
    }

    /// Whether no setting of the topic demands to see single records.
    fn header_suffices(&self, batch: &Batch<'_>) -> bool {
        !self.rules.compacted
            && !self.rules.bounds_timestamps()
            && batch.timestamp_type() == TimestampType::CreateTime
    }

    /// Timestamp and key of one record.
    #[inline(always)]
    fn is_refused(&self, bounds: bool, timestamp: TimestampMs, has_key: bool) -> bool {
        (self.rules.compacted && !has_key) || (bounds && self.is_out_of_bounds(timestamp))
    }

    fn is_out_of_bounds(&self, timestamp: TimestampMs) -> bool {
        let distance = timestamp.get().wrapping_sub(self.now.get()).wrapping_abs();
        timestamp != TimestampMs::NONE && distance > self.rules.timestamp_difference_max_ms
    }

    /// Says why a record is refused: for a record of which [`Validation::is_refused`] holds or whose batch
    /// claims append time.
    #[cold]
    fn push_refusal(&self, refusals: &mut Refusals, index: i64, record: &Found, batch_type: TimestampType) {
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

    /// An uncompressed v2 batch.
    fn scan_plain(&self, batch: &Batch<'_>) -> Result<Scanned, InvalidRecords> {
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
    fn scan_compressed(&self, batch: &Batch<'_>) -> Result<Scanned, InvalidRecords> {
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

    /// A v1 wrapper that may stay.
    fn scan_wrapper(&self, batch: &Batch<'_>) -> Result<Scanned, InvalidRecords> {
        let (mut max, mut dense, mut count) = (MaxTimestamp::NONE, true, 0);
        self.each_record(batch, |record| {
            max.see(record.timestamp, count);
            dense &= record.offset.get() == count;
            count += 1;
            Ok(())
        })?;
        Ok(Scanned { max, dense, count })
    }

    /// Uncompressed v0 or v1 messages in the topic's own format.
    fn message_set<'a>(&self, batches: &Analyzed<'a>) -> Result<ValidatedBatches<'a>, InvalidRecords> {
        let (mut max, mut count) = (MaxTimestamp::NONE, 0i64);
        for batch in batches.iter() {
            self.each_record(batch, |record| {
                max.see(record.timestamp, count);
                count += 1;
                Ok(())
            })?;
        }
        let append_time = self.rules.timestamp_type == TimestampType::LogAppendTime;
        let stamp = |batch: &Batch<'_>| {
            // as Kafka, which starts from "none" and takes the maximum: what is below that becomes it
            let timestamp = if append_time {
                self.now
            } else {
                batch.max_timestamp().max(TimestampMs::NONE)
            };
            (self.rules.timestamp_type, timestamp)
        };
        let body = match &batches.first {
            Some(only) if batches.rest.is_empty() => {
                let mut body = ValidatedBatches::borrow(only);
                let (kind, timestamp) = stamp(only);
                ValidatedBatches::set_max_timestamp(&mut body, kind, timestamp);
                body
            }
            _ => {
                let mut bytes = batches.bytes.to_vec();
                let mut position = 0;
                for batch in batches.iter() {
                    let (kind, timestamp) = stamp(batch);
                    let message = &mut bytes[position..position + batch.size_bytes()];
                    super::validated::set_max_timestamp(message, &[], kind, timestamp);
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

    /// Checks every record of a batch and hands those that pass to `take`; refused ones end the whole at the
    /// batch's end.
    fn each_record(
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
            if refusals.records.is_empty() {
                take(record)
            } else {
                Ok(())
            }
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

    /// Writes all records anew: another format, another codec, or offsets that are not dense.
    fn rebuild<'a>(
        &self,
        batches: &Analyzed<'a>,
        target: Codec,
    ) -> Result<ValidatedBatches<'a>, InvalidRecords> {
        let to = self.rules.magic;
        let limit = self.rules.max_message_bytes;
        for batch in batches.iter() {
            self.check_producer(batch)?;
        }
        let wraps_v0 = to == Magic::V0 && target != Codec::None;
        // inner offsets of a v0 wrapper are absolute: the messages are kept uncompressed until these are
        // known
        let codec = if wraps_v0 { Codec::None } else { target };
        let mut builder = RecordBatchBuilder::new().magic(to).codec(codec);
        if self.rules.timestamp_type == TimestampType::LogAppendTime {
            builder = builder.log_append_time(self.now);
        }
        if let Some(first) = batches.first
            && to == Magic::V2
        {
            if let Some(producer) = first.producer() {
                builder = builder.producer(producer.id, producer.epoch, producer.base_sequence);
            }
            builder = builder
                .transactional(first.is_transactional())
                .control(first.is_control());
        }
        let separate = to < Magic::V2 && codec == Codec::None;
        for batch in batches.iter() {
            self.each_record(batch, |record| {
                self.check_convertible(record)?;
                let index = i64::from(builder.record_count());
                builder
                    .append_record(Offset(index), record)
                    .map_err(|error| self.refuse_rewriting(error))?;
                let size = if separate && !wraps_v0 {
                    builder.largest_message()
                } else {
                    0
                };
                let size = if separate { size } else { builder.size_bytes() };
                if size > limit {
                    return Err(InvalidRecords::TooLarge {
                        size_bytes: size,
                        limit_bytes: limit,
                    });
                }
                if separate && builder.size_bytes() > CONVERTED_SET_SIZE_MAX {
                    let (size_bytes, limit_bytes) = (builder.size_bytes(), CONVERTED_SET_SIZE_MAX);
                    return Err(InvalidRecords::SetTooLarge {
                        size_bytes,
                        limit_bytes,
                    });
                }
                Ok(())
            })?;
        }
        let count = builder.record_count();
        let max_timestamp = builder.max_timestamp();
        let offset_of_max = builder.offset_of_max_timestamp();
        let bytes = builder.build();
        let body = if wraps_v0 {
            let built = super::builder::wrap_v0(&bytes, target, Offset(i64::from(count) - 1));
            Body::WrapperV0 {
                messages: bytes,
                codec: target,
                limit,
                built,
            }
        } else {
            Body::Owned(bytes)
        };
        let append_time = self.rules.timestamp_type == TimestampType::LogAppendTime;
        let mut validated = ValidatedBatches::new(body, i64::from(count));
        let whole = to == Magic::V2 || target != Codec::None;
        if whole && validated.size_bytes() > limit {
            let size_bytes = validated.size_bytes();
            return Err(InvalidRecords::TooLarge {
                size_bytes,
                limit_bytes: limit,
            });
        }
        validated.max_timestamp = max_timestamp;
        validated.max_timestamp_at = match offset_of_max {
            _ if whole => MaxAt::Last,
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

/// What a refusal tells about a record.
struct Found {
    offset: Offset,
    timestamp: TimestampMs,
    has_key: bool,
}

fn verify_crc(bytes: &[u8], is_v2: bool) -> Result<(), BatchError> {
    let (position, computed) = if is_v2 {
        (17, crc32c::crc32c(&bytes[CRC_START..]))
    } else {
        (12, crc32fast::hash(&bytes[16..]))
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

fn corrupt(error: BatchError) -> InvalidRecords {
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

#[cfg(test)]
mod hostile;
#[cfg(test)]
mod tests;
