//! A `.log` file, batch for batch and record for record, in the lines of Kafka's tool.
//!
//! Where Kafka's tool dies, this one says why on standard error and goes on: behind a broken record with the next batch,
//! behind a broken length with the next bytes that are a whole batch with its checksum. Source:
//! `DumpLogSegments.dumpLog`.

use std::path::Path;

use milena_engine::io::Io;
use milena_engine::record_batch::{Batch, Record};

use super::decoder::MessageParser;
use super::java_text::java_text;
use super::raw_batch::{RawBatch, Step, increment_sequence, step};
use super::raw_message::{RawMessage, each_message};
use super::source::Source;
use super::{Dumped, Failure, Read, Report, Summary, base_offset_of};

/// What is asked for.
#[derive(Debug)]
pub(super) struct Options {
    pub(super) deep: bool,
    /// Prints keys and values.
    pub(super) parser: Option<MessageParser>,
}

pub(super) fn dump(io: &dyn Io, path: &Path, options: &Options, report: &mut Report) -> Dumped {
    let source = &mut Source::open(io, path)?;
    let base = base_offset_of(path);
    if let Some(base) = base {
        report.line(format_args!("Starting offset: {base}"))?;
    } else {
        report.fault(path, 0, "the name does not begin with an offset")?;
    }
    let end = source.size_bytes();
    let mut walk = Walk {
        options,
        valid_bytes: 0,
        last_offset: None,
        non_consecutive: Vec::new(),
    };
    let mut position = 0;
    loop {
        match step(source, position, end)? {
            Step::End => break,
            Step::Batch(batch) => {
                walk.batch(source, path, position, &batch, report)?;
                position += batch.size_bytes as u64;
            }
            Step::Broken(what) => {
                report.fault(path, position, &what)?;
                let Some(next) = next_sound_batch(source, base, position + 1, end)? else {
                    break;
                };
                report.say(format_args!(
                    "milena: {}: byte {next}: the next sound batch",
                    path.display()
                ))?;
                position = next;
            }
        }
    }
    let trailing = end - walk.valid_bytes;
    if trailing > 0 {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        report.line(format_args!(
            "Found {trailing} invalid bytes at the end of {name}"
        ))?;
    }
    // Kafka's tool has the last pair first.
    report.remember(
        Summary::NonConsecutive,
        path,
        walk.non_consecutive.into_iter().rev(),
    );
    Ok(())
}

struct Walk<'o> {
    options: &'o Options,
    /// Bytes of the batches so far.
    valid_bytes: u64,
    last_offset: Option<i64>,
    non_consecutive: Vec<(i64, i64)>,
}

impl Walk<'_> {
    fn batch(
        &mut self,
        source: &mut Source,
        path: &Path,
        position: u64,
        batch: &RawBatch,
        report: &mut Report,
    ) -> Dumped {
        let bytes = source.bytes_at(position, batch.size_bytes)?;
        if batch.magic() < 0 {
            self.valid_bytes += batch.size_bytes as u64;
            report.line(format_args!("{batch}"))?;
            let what = format!("found magic {}, expected 0, 1 or 2", batch.magic());
            return report.fault(path, position, &what);
        }
        let codec = batch.compression_type();
        report.line(format_args!(
            "{batch} position: {position} {}: {} size: {} magic: {} compresscodec: {} crc: {} isvalid: {}",
            batch.timestamp_type(),
            batch.max_timestamp(),
            batch.size_bytes,
            batch.magic(),
            codec.unwrap_or("UNKNOWN"),
            batch.stored_crc(),
            batch.is_valid(bytes),
        ))?;
        self.valid_bytes += batch.size_bytes as u64;
        if let Err(id) = codec {
            report.fault(
                path,
                position,
                &format!("found compression codec {id}, expected 0 to 4"),
            )?;
        } else if self.options.deep {
            let walked = if batch.is_v2() {
                self.records(bytes, batch, report)
            } else {
                each_message(bytes, batch, |message, offset, timestamp| {
                    self.message(message, offset, timestamp, batch, report)
                })
            };
            match walked {
                Ok(()) => {}
                Err(Stopped::Failed(failure)) => return Err(failure),
                Err(Stopped::Broken(what)) => report.fault(path, position, &what)?,
            }
        }
        Ok(())
    }

    /// The records of a batch of format v2.
    fn records(&mut self, bytes: &[u8], raw: &RawBatch, report: &mut Report) -> Result<(), Stopped> {
        let neutral = raw.neutral(bytes)?;
        let batch = Batch::parse(&neutral).map_err(broken)?;
        let mut records = batch.records().map_err(broken)?;
        while let Some(record) = records.next_record().map_err(broken)? {
            let delta = record.offset.get();
            let offset = raw.base_offset().wrapping_add(delta);
            self.follow(offset);
            let timestamp = raw.timestamp(record.timestamp);
            let sequence = match raw.base_sequence() {
                base if base >= 0 => increment_sequence(base, delta as i32),
                _ => -1,
            };
            let keys: Vec<_> = record
                .headers
                .iter()
                .map(|header| java_text(header.key))
                .collect();
            report.text(format_args!(
                "| offset: {offset} {}: {timestamp} keysize: {} valuesize: {} sequence: {sequence} headerKeys: [{}]",
                raw.timestamp_type(),
                size_of(record.key),
                size_of(record.value),
                keys.join(",")
            ))?;
            let told = if raw.is_control() {
                control(&record)
            } else {
                self.content(record.key, record.value)
            };
            end_line(told, report)?;
        }
        Ok(())
    }

    fn message(
        &mut self,
        message: &RawMessage<'_>,
        offset: i64,
        timestamp: i64,
        raw: &RawBatch,
        report: &mut Report,
    ) -> Result<(), Stopped> {
        self.follow(offset);
        report.text(format_args!(
            "| offset: {offset} {}: {timestamp} keysize: {} valuesize: {} crc: {} isvalid: {}",
            raw.timestamp_type(),
            message.key_size()?,
            message.value_size()?,
            message.stored_crc()?,
            message.is_valid()?,
        ))?;
        let told = match self.options.parser {
            Some(_) => message.key().and_then(|key| self.content(key, message.value()?)),
            None => Ok(String::new()),
        };
        end_line(told, report)
    }

    fn follow(&mut self, offset: i64) {
        if let Some(last) = self.last_offset
            && offset != last.wrapping_add(1)
        {
            self.non_consecutive.push((last, offset));
        }
        // Kafka's tool marks "none yet" by -1.
        self.last_offset = (offset != -1).then_some(offset);
    }

    fn content(&self, key: Option<&[u8]>, value: Option<&[u8]>) -> Result<String, String> {
        let Some(parser) = &self.options.parser else {
            return Ok(String::new());
        };
        let (key, payload) = parser.parse(key, value)?;
        let mut text = String::new();
        for (name, field) in [(" key: ", key), (" payload: ", payload)] {
            if let Some(field) = field {
                text.push_str(name);
                text.push_str(&field);
            }
        }
        Ok(text)
    }
}

/// Why the records of a batch were not walked to their end.
enum Stopped {
    Failed(Failure),
    Broken(String),
}

impl From<String> for Stopped {
    fn from(what: String) -> Stopped {
        Stopped::Broken(what)
    }
}

impl From<Failure> for Stopped {
    fn from(failure: Failure) -> Stopped {
        Stopped::Failed(failure)
    }
}

fn broken(what: impl ToString) -> Stopped {
    Stopped::Broken(what.to_string())
}

/// Ends the line of a record with what is told of it. What cannot be told ends Kafka's tool.
fn end_line(told: Result<String, String>, report: &mut Report) -> Result<(), Stopped> {
    match told {
        Ok(text) => Ok(report.line(format_args!("{text}"))?),
        Err(what) => {
            report.line(format_args!(""))?;
            Err(Stopped::Broken(what))
        }
    }
}

/// −1 for null.
fn size_of(field: Option<&[u8]>) -> i64 {
    field.map_or(-1, |bytes| bytes.len() as i64)
}

/// What a control record says.
fn control(record: &Record<'_>) -> Result<String, String> {
    let field = |bytes: &[u8], at: usize| {
        bytes
            .get(at..at + 2)
            .map(|two| i16::from_be_bytes([two[0], two[1]]))
    };
    let key = record
        .key
        .filter(|key| key.len() >= 4)
        .ok_or("a control record's key has at least 4 bytes")?;
    if field(key, 0).is_some_and(|version| version < 0) {
        return Err("a control record's key has a negative version".to_owned());
    }
    let kind = field(key, 2).unwrap_or_default();
    let name = match kind {
        0 => "ABORT",
        1 => "COMMIT",
        2 => return Ok(format!(" controlType: QUORUM_REASSIGNMENT({kind})")),
        3 => return Ok(format!(" controlType: LEADER_CHANGE({kind})")),
        _ => return Ok(format!(" controlType: UNKNOWN({kind})")),
    };
    let value = record.value.filter(|value| value.len() >= 6);
    let value = value.ok_or("a transaction marker's value has at least 6 bytes")?;
    if field(value, 0).is_some_and(|version| version < 0) {
        return Err("a transaction marker's value has a negative version".to_owned());
    }
    let epoch = i32::from_be_bytes([value[2], value[3], value[4], value[5]]);
    Ok(format!(" endTxnMarker: {name} coordinatorEpoch: {epoch}"))
}

/// Where, from `position` on, a whole batch with its checksum begins, of offsets that can be in a segment with this base.
/// Little else looks like a batch, so that hardly anything is summed up in vain.
fn next_sound_batch(
    source: &mut Source,
    base: Option<i64>,
    mut position: u64,
    end: u64,
) -> Read<Option<u64>> {
    let base = base.unwrap_or(0);
    let offsets = base..=base.saturating_add(i32::MAX.into());
    while position < end {
        if let Step::Batch(batch) = step(source, position, end)?
            && (0..=2).contains(&batch.magic())
            && offsets.contains(&batch.base_offset())
            && offsets.contains(&batch.last_offset())
            && batch.is_valid(source.bytes_at(position, batch.size_bytes)?)
        {
            return Ok(Some(position));
        }
        position += 1;
    }
    Ok(None)
}
