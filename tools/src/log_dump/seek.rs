//! Where in a segment to begin for a filter, by its indexes, so that what cannot pass is not read.
//!
//! An index is a hint that is not believed: the log must have a whole batch with its checksum at the place, of
//! offsets that do not lie behind what is looked for. A live segment's index ends in zeros.

use std::path::Path;

use milena_engine::io::Io;

use super::filter::Filter;
use super::index::{Entries, sibling};
use super::raw_batch::{RawBatch, Step, step};
use super::report::Read;
use super::selection::{FileKind, Selected};
use super::source::Source;

/// Batches that are looked at behind the place that an offset index names. There is an entry for every 4 KiB, unless
/// it was told otherwise.
const BATCHES_MAX: usize = 10_000;

/// The position of a batch before which no record passes; `None` if none of the file does.
pub(super) fn begin(io: &dyn Io, file: &Selected, filter: &Filter) -> Read<Option<u64>> {
    let outside = file
        .base_offset
        .is_some_and(|base| filter.to_offset.is_some_and(|to| base > to))
        || file
            .next_base_offset
            .is_some_and(|next| filter.from_offset.is_some_and(|from| from >= next));
    if outside {
        return Ok(None);
    }
    let (FileKind::Log, Some(base)) = (file.kind, file.base_offset) else {
        return Ok(Some(0));
    };
    if filter.from_offset.is_none() && filter.from_time.is_none() {
        return Ok(Some(0));
    }
    let Some(mut indexed) = Indexed::open(io, &file.path, base)? else {
        return Ok(Some(0));
    };
    let mut target = filter.from_offset;
    if let Some(from) = filter.from_time {
        if file.next_base_offset.is_some() && indexed.ends_before(from)? {
            return Ok(None);
        }
        target = target.max(indexed.offset_before(from)?);
    }
    Ok(Some(match target {
        Some(target) => indexed.position_of(target)?.unwrap_or(0),
        None => 0,
    }))
}

/// The position behind the last whole batch, where a broker would append.
pub(super) fn end(io: &dyn Io, path: &Path, base: i64) -> Read<u64> {
    let mut position = match Indexed::open(io, path, base)? {
        Some(mut indexed) => indexed.position_of(i64::MAX)?.unwrap_or(0),
        None => 0,
    };
    let mut log = Source::open(io, path)?;
    let end = log.size_bytes();
    while let Step::Batch(batch) = step(&mut log, position, end)? {
        position += batch.size_bytes as u64;
    }
    Ok(position)
}

/// A log with its indexes.
struct Indexed {
    log: Source,
    offsets: Entries,
    offset_count: u64,
    /// `None` without any.
    times: Option<(Entries, u64)>,
}

impl Indexed {
    /// `None` without an offset index.
    fn open(io: &dyn Io, path: &Path, base: i64) -> Read<Option<Indexed>> {
        let (of_offsets, of_times) = (sibling(path, "index"), sibling(path, "timeindex"));
        if io.stat(&of_offsets)?.is_none() {
            return Ok(None);
        }
        let mut offsets = Entries::of_offsets(io, &of_offsets, base)?;
        let used = last_of(offsets.count(), |index| {
            Ok(index == 0 || offsets.offset_entry(index)?.0 != base)
        })?;
        let times = match io.stat(&of_times)? {
            Some(_) => {
                let mut times = Entries::of_times(io, &of_times, base)?;
                let used = last_of(times.count(), |index| {
                    Ok(index == 0 || times.time_entry(index)? != (0, base))
                })?;
                Some((times, used.map_or(0, |last| last + 1)))
            }
            None => None,
        };
        Ok(Some(Indexed {
            log: Source::open(io, path)?,
            offsets,
            offset_count: used.map_or(0, |last| last + 1),
            times,
        }))
    }

    /// The last position that the index has for an offset up to `target`, if a batch is there.
    fn position_of(&mut self, target: i64) -> Read<Option<u64>> {
        let offsets = &mut self.offsets;
        let last = last_of(self.offset_count, |index| {
            Ok(offsets.offset_entry(index)?.0 <= target)
        })?;
        let Some(last) = last else {
            return Ok(None);
        };
        let Ok(position) = u64::try_from(offsets.offset_entry(last)?.1) else {
            return Ok(None);
        };
        let end = self.log.size_bytes();
        if let Step::Batch(batch) = step(&mut self.log, position.min(end), end)?
            && (0..=2).contains(&batch.magic())
            && batch.last_offset() <= target
            && batch.is_valid_at(&mut self.log, position)?
        {
            return Ok(Some(position));
        }
        Ok(None)
    }

    /// An offset up to which no timestamp reaches `time`.
    fn offset_before(&mut self, time: i64) -> Read<Option<i64>> {
        let Some((times, count)) = &mut self.times else {
            return Ok(None);
        };
        let Some(last) = last_of(*count, |index| Ok(times.time_entry(index)?.0 < time))? else {
            return Ok(None);
        };
        let entry = times.time_entry(last)?;
        Ok(self.is_confirmed(entry)?.then_some(entry.1))
    }

    /// Whether the largest timestamp of a segment that is not appended to any more lies before `time`.
    fn ends_before(&mut self, time: i64) -> Read<bool> {
        let Some((times, count)) = &mut self.times else {
            return Ok(false);
        };
        let Some(last) = count.checked_sub(1) else {
            return Ok(false);
        };
        let entry = times.time_entry(last)?;
        Ok(entry.0 < time && self.is_confirmed(entry)?)
    }

    /// Whether the batch with the offset has that largest timestamp.
    fn is_confirmed(&mut self, (timestamp, offset): (i64, i64)) -> Read<bool> {
        let batch = self.batch_with(offset)?;
        Ok(batch.is_some_and(|batch| batch.max_timestamp() == timestamp))
    }

    fn batch_with(&mut self, offset: i64) -> Read<Option<RawBatch>> {
        let mut position = self.position_of(offset)?.unwrap_or(0);
        let end = self.log.size_bytes();
        for _ in 0..BATCHES_MAX {
            let Step::Batch(batch) = step(&mut self.log, position, end)? else {
                break;
            };
            if batch.last_offset() >= offset {
                return Ok(batch.is_valid_at(&mut self.log, position)?.then_some(batch));
            }
            position += batch.size_bytes as u64;
        }
        Ok(None)
    }
}

/// The last of `count` for which something holds that holds for the first ones up to some.
fn last_of(count: u64, mut holds: impl FnMut(u64) -> Read<bool>) -> Read<Option<u64>> {
    let (mut low, mut high) = (0, count);
    while low < high {
        let middle = low + (high - low) / 2;
        if holds(middle)? {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    Ok(low.checked_sub(1))
}
