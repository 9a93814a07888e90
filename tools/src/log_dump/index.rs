//! `.index`, `.timeindex` and `.txnindex`, entry for entry, held against the log beside them, in the lines of Kafka's tool.
//!
//! Source: `DumpLogSegments.dumpIndex`, `dumpTimeIndex`, `dumpTxnIndex`; `AbstractIndex`, `OffsetIndex`, `TimeIndex`,
//! `TransactionIndex`.

use std::path::{Path, PathBuf};

use milena_engine::io::Io;
use milena_engine::record_batch::Batch;

use super::raw_batch::{RawBatch, Step, step};
use super::raw_message::each_message;
use super::source::Source;
use super::{Dumped, Failure, Read, Report, Summary, base_offset_of};

const OFFSET_ENTRY_SIZE_BYTES: u64 = 8;
const TIME_ENTRY_SIZE_BYTES: u64 = 12;
const TRANSACTION_ENTRY_SIZE_BYTES: u64 = 34;
/// Bytes at the end of an index that Kafka searches first.
const WARM_SIZE_BYTES: u64 = 8192;

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Options {
    /// Only what a broker checks when it starts.
    pub(super) sanity_only: bool,
    /// Tells mismatches alone.
    pub(super) verify_only: bool,
    /// Bytes of the log that are looked at behind the position of an entry.
    pub(super) max_message_size: u64,
}

/// An index of entries of one size; a part of an entry at the end is left out.
struct Entries {
    source: Source,
    base_offset: i64,
    entry_size: u64,
    count: u64,
}

impl Entries {
    fn open(io: &dyn Io, path: &Path, base_offset: i64, entry_size: u64) -> Read<Entries> {
        let source = Source::open(io, path)?;
        let count = source.size_bytes() / entry_size;
        Ok(Entries {
            source,
            base_offset,
            entry_size,
            count,
        })
    }

    fn has_part(&self) -> bool {
        !self.source.size_bytes().is_multiple_of(self.entry_size)
    }

    fn fields<const N: usize>(&mut self, index: u64, at: u64) -> Read<[u8; N]> {
        let bytes = self.source.bytes_at(index * self.entry_size + at, N)?;
        // A file that shrank meanwhile ends in zeros, as a preallocated one does.
        Ok(bytes.first_chunk().copied().unwrap_or([0; N]))
    }

    /// (offset, position) of an entry of an offset index.
    fn offset_entry(&mut self, index: u64) -> Read<(i64, i32)> {
        let offset = self
            .base_offset
            .wrapping_add(i32::from_be_bytes(self.fields(index, 0)?).into());
        Ok((offset, i32::from_be_bytes(self.fields(index, 4)?)))
    }

    /// (timestamp, offset) of an entry of a time index.
    fn time_entry(&mut self, index: u64) -> Read<(i64, i64)> {
        let timestamp = i64::from_be_bytes(self.fields(index, 0)?);
        let offset = self
            .base_offset
            .wrapping_add(i32::from_be_bytes(self.fields(index, 8)?).into());
        Ok((timestamp, offset))
    }

    /// The position where Kafka would begin to look for an offset: its search looks at the warm end first, which matters where
    /// entries are not in order.
    fn lookup(&mut self, target: i64) -> Read<i32> {
        let Some(last) = self.count.checked_sub(1) else {
            return Ok(0);
        };
        let first_warm = last.saturating_sub(WARM_SIZE_BYTES / self.entry_size);
        let (mut low, mut high) = if self.offset_entry(first_warm)?.0 < target {
            (first_warm, last)
        } else if self.offset_entry(0)?.0 > target {
            return Ok(0);
        } else {
            (0, first_warm)
        };
        while low < high {
            let middle = (low + high).div_ceil(2);
            match self.offset_entry(middle)?.0.cmp(&target) {
                std::cmp::Ordering::Greater => high = middle - 1,
                std::cmp::Ordering::Less => low = middle,
                std::cmp::Ordering::Equal => return Ok(self.offset_entry(middle)?.1),
            }
        }
        Ok(self.offset_entry(low)?.1)
    }
}

/// A file that an index is held against; told if it cannot be read.
fn beside<T>(opened: Read<T>, report: &mut Report) -> Result<Option<T>, Failure> {
    match opened {
        Ok(opened) => Ok(Some(opened)),
        Err(error) => report.unreadable(&error).map(|()| None),
    }
}

fn sibling(path: &Path, ending: &str) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let stem = name.split('.').next().unwrap_or_default();
    path.with_file_name(format!("{stem}.{ending}"))
}

pub(super) fn dump_offset_index(io: &dyn Io, path: &Path, options: Options, report: &mut Report) -> Dumped {
    let Some(base) = base_offset_of(path) else {
        return report.fault(path, 0, "the name does not begin with an offset");
    };
    let mut entries = Entries::open(io, path, base, OFFSET_ENTRY_SIZE_BYTES)?;
    if options.sanity_only {
        let last = match entries.count.checked_sub(1) {
            Some(last) => entries.offset_entry(last)?.0,
            None => base,
        };
        return sanity(path, &entries, last < base, report);
    }
    let mut log = beside(Source::open(io, &sibling(path, "log")), report)?;
    let mut mismatches = Vec::new();
    for index in 0..entries.count {
        let (offset, position) = entries.offset_entry(index)?;
        // What a crash left of a preallocated index is zeros.
        if offset == base && index > 0 {
            break;
        }
        if let Some(log) = &mut log {
            match first_batch(log, position, options.max_message_size)? {
                Ok(batch) if batch.last_offset() == offset => {}
                Ok(batch) => mismatches.push((offset, batch.last_offset())),
                Err(what) => report.fault(path, index * OFFSET_ENTRY_SIZE_BYTES, &what)?,
            }
        }
        if !options.verify_only {
            report.line(format_args!("offset: {offset} position: {position}"))?;
        }
    }
    // Kafka's tool has the last pair first.
    report.remember(Summary::IndexMismatch, path, mismatches.into_iter().rev());
    Ok(())
}

fn sanity(path: &Path, entries: &Entries, out_of_order: bool, report: &mut Report) -> Dumped {
    if entries.count > 0 && out_of_order {
        report.fault(
            path,
            (entries.count - 1) * entries.entry_size,
            "the last entry lies before the first",
        )
    } else if entries.has_part() {
        let what = format!(
            "found {} bytes, expected a multiple of {}",
            entries.source.size_bytes(),
            entries.entry_size
        );
        report.fault(path, entries.count * entries.entry_size, &what)
    } else {
        report.line(format_args!("{} passed sanity check.", path.display()))
    }
}

/// The batch at a position of the log, which must end within so many bytes.
fn first_batch(log: &mut Source, position: i32, limit: u64) -> Read<Result<RawBatch, String>> {
    let size = log.size_bytes();
    let position = match u64::try_from(position) {
        Ok(position) if position <= size => position,
        _ => return Ok(Err(format!("names position {position} of a log of {size} bytes"))),
    };
    Ok(
        match step(log, position, size.min(position.saturating_add(limit)))? {
            Step::Batch(batch) => Ok(batch),
            Step::End => Err(format!(
                "names position {position}, where no whole batch is within {limit} bytes"
            )),
            Step::Broken(what) => Err(format!("names position {position} of the log: {what}")),
        },
    )
}

pub(super) fn dump_time_index(io: &dyn Io, path: &Path, options: Options, report: &mut Report) -> Dumped {
    let Some(base) = base_offset_of(path) else {
        return report.fault(path, 0, "the name does not begin with an offset");
    };
    let mut entries = Entries::open(io, path, base, TIME_ENTRY_SIZE_BYTES)?;
    if options.sanity_only {
        let last = entries.count.saturating_sub(1);
        let is_wrong = entries.count > 0 && {
            let (timestamp, offset) = entries.time_entry(last)?;
            timestamp < entries.time_entry(0)?.0 || offset < base
        };
        return sanity(path, &entries, is_wrong, report);
    }
    let mut log = beside(Source::open(io, &sibling(path, "log")), report)?;
    let offsets = Entries::open(io, &sibling(path, "index"), base, OFFSET_ENTRY_SIZE_BYTES);
    let mut offsets = beside(offsets, report)?;
    let (mut wrong, mut out_of_order, mut not_found) = (Vec::new(), Vec::new(), Vec::new());
    let mut previous = -1;
    for index in 0..entries.count {
        let (timestamp, offset) = entries.time_entry(index)?;
        if offset == base && index > 0 {
            break;
        }
        if let (Some(log), Some(offsets)) = (&mut log, &mut offsets) {
            let from = offsets.lookup(offset)?;
            match check_time_entry(log, from, offset)? {
                Err(what) => report.fault(path, index * TIME_ENTRY_SIZE_BYTES, &what)?,
                Ok(Found::Nothing) => not_found.push((offset, -1)),
                Ok(Found::Another(last)) => not_found.push((offset, last)),
                Ok(Found::MaxTimestamp(found)) => {
                    if found != timestamp {
                        wrong.push((timestamp, found));
                    }
                    if previous >= timestamp {
                        out_of_order.push((timestamp, previous));
                    }
                }
            }
        }
        if !options.verify_only {
            report.line(format_args!("timestamp: {timestamp} offset: {offset}"))?;
        }
        previous = timestamp;
    }
    report.remember(Summary::TimestampMismatch, path, wrong.into_iter());
    report.remember(Summary::OutOfOrderTimestamp, path, out_of_order.into_iter());
    report.remember(Summary::OffsetNotFound, path, not_found.into_iter());
    Ok(())
}

enum Found {
    MaxTimestamp(i64),
    /// The batch that holds the offset ends with another.
    Another(i64),
    Nothing,
}

/// The largest timestamp of the records of the batch that ends with `offset`.
fn check_time_entry(log: &mut Source, from: i32, offset: i64) -> Read<Result<Found, String>> {
    let end = log.size_bytes();
    let mut position = match u64::try_from(from) {
        Ok(position) if position <= end => position,
        _ => {
            return Ok(Err(format!(
                "the offset index names position {from} of a log of {end} bytes"
            )));
        }
    };
    loop {
        let batch = match step(log, position, end)? {
            Step::End => return Ok(Ok(Found::Nothing)),
            Step::Broken(what) => return Ok(Err(format!("the log at byte {position}: {what}"))),
            Step::Batch(batch) => batch,
        };
        if batch.last_offset() < offset {
            position += batch.size_bytes as u64;
            continue;
        }
        if batch.last_offset() != offset {
            return Ok(Ok(Found::Another(batch.last_offset())));
        }
        let bytes = log.bytes_at(position, batch.size_bytes)?;
        let largest = largest_timestamp(bytes, &batch);
        return Ok(largest
            .map(Found::MaxTimestamp)
            .map_err(|what| format!("the log at byte {position}: {what}")));
    }
}

fn largest_timestamp(bytes: &[u8], raw: &RawBatch) -> Result<i64, String> {
    let mut largest = -1;
    if !raw.is_v2() {
        each_message(bytes, raw, |_, _, timestamp| {
            largest = largest.max(timestamp);
            Ok::<(), String>(())
        })?;
        return Ok(largest);
    }
    let neutral = raw.neutral(bytes)?;
    let batch = Batch::parse(&neutral).map_err(|error| error.to_string())?;
    let mut records = batch.records().map_err(|error| error.to_string())?;
    while let Some(record) = records.next_record().map_err(|error| error.to_string())? {
        largest = largest.max(raw.timestamp(record.timestamp));
    }
    Ok(largest)
}

pub(super) fn dump_transaction_index(io: &dyn Io, path: &Path, report: &mut Report) -> Dumped {
    let mut entries = Entries::open(io, path, 0, TRANSACTION_ENTRY_SIZE_BYTES)?;
    for index in 0..entries.count {
        // Kafka's tool prints the first byte of the two of the version, and knows version 0 alone.
        let [version] = entries.fields(index, 0)?;
        let [producer_id, first, last, stable] = [2, 10, 18, 26].map(|at| entries.fields(index, at));
        let number = |bytes: Read<[u8; 8]>| bytes.map(i64::from_be_bytes);
        if version as i8 > 0 {
            let what = format!("found version {version}, expected 0");
            report.fault(path, index * TRANSACTION_ENTRY_SIZE_BYTES, &what)?;
        }
        report.line(format_args!(
            "version: {} producerId: {} firstOffset: {} lastOffset: {} lastStableOffset: {}",
            version as i8,
            number(producer_id)?,
            number(first)?,
            number(last)?,
            number(stable)?
        ))?;
    }
    if entries.has_part() {
        // Kafka's tool says nothing of it.
        let size = entries.source.size_bytes();
        return report.say(format_args!(
            "milena: {}: found {size} bytes, expected a multiple of 34",
            path.display()
        ));
    }
    Ok(())
}
