//! `.index`, `.timeindex` and `.txnindex`, entry for entry, held against the log beside them.
//!
//! Source: `DumpLogSegments.dumpIndex`, `dumpTimeIndex`, `dumpTxnIndex`; `AbstractIndex`, `OffsetIndex`, `TimeIndex`,
//! `TransactionIndex`.

use std::path::{Path, PathBuf};

use milena_engine::io::Io;

use super::filter::Filter;
use super::raw_batch::{RawBatch, Step, step};
use super::records::each_record;
use super::report::{Dumped, Failure, Mismatch, Read, Report, too_large};
use super::selection::Selected;
use super::source::Source;
use super::thing::{Damage, Thing};

const OFFSET_ENTRY_SIZE_BYTES: u64 = 8;
const TIME_ENTRY_SIZE_BYTES: u64 = 12;
const TRANSACTION_ENTRY_SIZE_BYTES: u64 = 34;
const NO_OFFSET_IN_NAME: &str = "the name does not begin with an offset";
/// Bytes at the end of an index that Kafka searches first.
const WARM_SIZE_BYTES: u64 = 8192;

/// What is asked for.
#[derive(Debug)]
pub(super) struct Options {
    /// Only what a broker checks when it starts.
    pub(super) sanity_only: bool,
    /// Tells mismatches alone.
    pub(super) verify_only: bool,
    /// Bytes of the log that are looked at behind the position of an entry.
    pub(super) max_message_size: u64,
    /// Batches above this size are not read for their timestamps.
    pub(super) max_batch_size: usize,
    pub(super) filter: Filter,
}

/// An index of entries of one size; a part of an entry at the end is left out.
#[derive(Debug)]
pub(super) struct Entries {
    source: Source,
    base_offset: i64,
    entry_size: u64,
    count: u64,
}

impl Entries {
    pub(super) fn of_offsets(io: &dyn Io, path: &Path, base_offset: i64) -> Read<Entries> {
        Entries::open(io, path, base_offset, OFFSET_ENTRY_SIZE_BYTES)
    }

    pub(super) fn of_times(io: &dyn Io, path: &Path, base_offset: i64) -> Read<Entries> {
        Entries::open(io, path, base_offset, TIME_ENTRY_SIZE_BYTES)
    }

    pub(super) fn count(&self) -> u64 {
        self.count
    }

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

    fn part(&self) -> Damage {
        Damage::found(
            format_args!("{} bytes", self.source.size_bytes()),
            format_args!("a multiple of {}", self.entry_size),
        )
    }

    fn fields<const N: usize>(&mut self, index: u64, at: u64) -> Read<[u8; N]> {
        let bytes = self.source.bytes_at(index * self.entry_size + at, N)?;
        // A file that shrank meanwhile ends in zeros, as a preallocated one does.
        Ok(bytes.first_chunk().copied().unwrap_or([0; N]))
    }

    /// (offset, position) of an entry of an offset index.
    pub(super) fn offset_entry(&mut self, index: u64) -> Read<(i64, i32)> {
        let offset = self
            .base_offset
            .wrapping_add(i32::from_be_bytes(self.fields(index, 0)?).into());
        Ok((offset, i32::from_be_bytes(self.fields(index, 4)?)))
    }

    /// (timestamp, offset) of an entry of a time index.
    pub(super) fn time_entry(&mut self, index: u64) -> Read<(i64, i64)> {
        let timestamp = i64::from_be_bytes(self.fields(index, 0)?);
        let offset = self
            .base_offset
            .wrapping_add(i32::from_be_bytes(self.fields(index, 8)?).into());
        Ok((timestamp, offset))
    }

    /// The position where Kafka would begin to look for an offset: its search looks at the warm end first, which
    /// matters where entries are not in order.
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
fn beside<T>(path: &Path, opened: Read<T>, report: &mut Report) -> Result<Option<T>, Failure> {
    match opened {
        Ok(opened) => Ok(Some(opened)),
        Err(error) => report.unreadable(path, error).map(|()| None),
    }
}

/// The file of another kind of the same segment.
pub(super) fn sibling(path: &Path, ending: &str) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let stem = name.split('.').next().unwrap_or_default();
    path.with_file_name(format!("{stem}.{ending}"))
}

pub(super) fn dump_offset_index(
    io: &dyn Io,
    file: &Selected,
    options: &Options,
    report: &mut Report,
) -> Dumped {
    let path = &file.path;
    let Some(base) = file.base_offset else {
        return report.fault(0, NO_OFFSET_IN_NAME);
    };
    let mut entries = Entries::of_offsets(io, path, base)?;
    if options.sanity_only {
        let last = match entries.count.checked_sub(1) {
            Some(last) => entries.offset_entry(last)?.0,
            None => base,
        };
        return sanity(path, &entries, last < base, report);
    }
    let log = sibling(path, "log");
    let mut log = beside(&log, Source::open(io, &log), report)?;
    for index in 0..entries.count {
        let (offset, position) = entries.offset_entry(index)?;
        // What a crash left of a preallocated index is zeros.
        if offset == base && index > 0 {
            break;
        }
        if !options.filter.offset(offset) {
            continue;
        }
        if let Some(log) = &mut log {
            match first_batch(log, position, options.max_message_size)? {
                Ok(batch) if batch.last_offset() == offset => {}
                Ok(batch) => report.mismatch(Mismatch::IndexedOffset, offset, batch.last_offset())?,
                Err(damage) => report.fault(index * OFFSET_ENTRY_SIZE_BYTES, damage)?,
            }
        }
        if !options.verify_only {
            report.tell(Thing::OffsetEntry { offset, position })?;
        }
    }
    Ok(())
}

fn sanity(path: &Path, entries: &Entries, out_of_order: bool, report: &mut Report) -> Dumped {
    if entries.count > 0 && out_of_order {
        let position = (entries.count - 1) * entries.entry_size;
        report.fault(position, "the last entry lies before the first")
    } else if entries.has_part() {
        report.fault(entries.count * entries.entry_size, entries.part())
    } else {
        report.tell(Thing::SanityCheck { path, passed: true })
    }
}

/// The batch at a position of the log, which must end within so many bytes.
fn first_batch(log: &mut Source, position: i32, limit: u64) -> Read<Result<RawBatch, Damage>> {
    let size = log.size_bytes();
    let position = match u64::try_from(position) {
        Ok(position) if position <= size => position,
        _ => {
            let what = format!("names position {position} of a log of {size} bytes");
            let expected = format_args!("at most {size}");
            return Ok(Err(
                Damage::found(format_args!("position {position}"), expected).told(what)
            ));
        }
    };
    Ok(
        match step(log, position, size.min(position.saturating_add(limit)))? {
            Step::Batch(batch) => Ok(batch),
            Step::End => Err(Damage::from(format!(
                "names position {position}, where no whole batch is within {limit} bytes"
            ))),
            Step::Broken(damage) => Err(damage.at(format_args!("names position {position} of the log"))),
        },
    )
}

pub(super) fn dump_time_index(
    io: &dyn Io,
    file: &Selected,
    options: &Options,
    report: &mut Report,
) -> Dumped {
    let path = &file.path;
    let Some(base) = file.base_offset else {
        return report.fault(0, NO_OFFSET_IN_NAME);
    };
    let mut entries = Entries::of_times(io, path, base)?;
    if options.sanity_only {
        let last = entries.count.saturating_sub(1);
        let is_wrong = entries.count > 0 && {
            let (timestamp, offset) = entries.time_entry(last)?;
            timestamp < entries.time_entry(0)?.0 || offset < base
        };
        return sanity(path, &entries, is_wrong, report);
    }
    let (log, offsets) = (sibling(path, "log"), sibling(path, "index"));
    let mut log = beside(&log, Source::open(io, &log), report)?;
    let mut offsets = beside(&offsets, Entries::of_offsets(io, &offsets, base), report)?;
    let mut previous = -1;
    for index in 0..entries.count {
        let (timestamp, offset) = entries.time_entry(index)?;
        if offset == base && index > 0 {
            break;
        }
        if !options.filter.offset(offset) || !options.filter.time(timestamp) {
            previous = timestamp;
            continue;
        }
        if let (Some(log), Some(offsets)) = (&mut log, &mut offsets) {
            let from = offsets.lookup(offset)?;
            match check_time_entry(log, from, offset, options.max_batch_size)? {
                Err(damage) => report.fault(index * TIME_ENTRY_SIZE_BYTES, damage)?,
                Ok(Found::Nothing) => report.mismatch(Mismatch::OffsetNotFound, offset, -1)?,
                Ok(Found::Another(last)) => report.mismatch(Mismatch::OffsetNotFound, offset, last)?,
                Ok(Found::MaxTimestamp(found)) => {
                    if found != timestamp {
                        report.mismatch(Mismatch::IndexedTimestamp, timestamp, found)?;
                    }
                    if previous >= timestamp {
                        report.mismatch(Mismatch::TimestampOrder, timestamp, previous)?;
                    }
                }
            }
        }
        if !options.verify_only {
            report.tell(Thing::TimeEntry { timestamp, offset })?;
        }
        previous = timestamp;
    }
    Ok(())
}

enum Found {
    MaxTimestamp(i64),
    /// The batch that holds the offset ends with another.
    Another(i64),
    Nothing,
}

/// The largest timestamp of the records of the batch that ends with `offset`.
fn check_time_entry(
    log: &mut Source,
    from: i32,
    offset: i64,
    max_batch_size: usize,
) -> Read<Result<Found, Damage>> {
    let end = log.size_bytes();
    let mut position = match u64::try_from(from) {
        Ok(position) if position <= end => position,
        _ => {
            let what = format!("the offset index names position {from} of a log of {end} bytes");
            let expected = format_args!("at most {end}");
            return Ok(Err(
                Damage::found(format_args!("position {from}"), expected).told(what)
            ));
        }
    };
    loop {
        let batch = match step(log, position, end)? {
            Step::End => return Ok(Ok(Found::Nothing)),
            Step::Broken(damage) => return Ok(Err(damage.at(format_args!("the log at byte {position}")))),
            Step::Batch(batch) => batch,
        };
        if batch.last_offset() < offset {
            position += batch.size_bytes as u64;
            continue;
        }
        if batch.last_offset() != offset {
            return Ok(Ok(Found::Another(batch.last_offset())));
        }
        let largest = if batch.size_bytes > max_batch_size {
            Err(too_large(&batch, max_batch_size))
        } else {
            largest_timestamp(log.bytes_at(position, batch.size_bytes)?, &batch)
        };
        return Ok(largest
            .map(Found::MaxTimestamp)
            .map_err(|damage| damage.at(format_args!("the log at byte {position}"))));
    }
}

fn largest_timestamp(bytes: &[u8], raw: &RawBatch) -> Result<i64, Damage> {
    let mut largest = -1;
    each_record(bytes, raw, |record| {
        largest = largest.max(record.timestamp);
        Ok::<(), Damage>(())
    })?;
    Ok(largest)
}

pub(super) fn dump_transaction_index(
    io: &dyn Io,
    file: &Selected,
    options: &Options,
    report: &mut Report,
) -> Dumped {
    let mut entries = Entries::open(io, &file.path, 0, TRANSACTION_ENTRY_SIZE_BYTES)?;
    for index in 0..entries.count {
        // Kafka's tool prints the first byte of the two of the version, and knows version 0 alone.
        let [version] = entries.fields(index, 0)?;
        let mut number = |at| entries.fields(index, at).map(i64::from_be_bytes);
        let (producer_id, first_offset, last_offset) = (number(2)?, number(10)?, number(18)?);
        let last_stable_offset = number(26)?;
        if !options.filter.producer(producer_id) || !options.filter.offsets(first_offset, last_offset) {
            continue;
        }
        if version as i8 > 0 {
            let damage = Damage::found(format_args!("version {version}"), "0");
            report.fault(index * TRANSACTION_ENTRY_SIZE_BYTES, damage)?;
        }
        report.tell(Thing::TransactionEntry {
            version: version as i8,
            producer_id,
            first_offset,
            last_offset,
            last_stable_offset,
        })?;
    }
    if entries.has_part() {
        // Kafka's tool says nothing of it.
        let part = entries.part();
        let text = format!("milena: {}: {part}", file.path.display());
        return report.flaw(part, format_args!("{text}"));
    }
    Ok(())
}
