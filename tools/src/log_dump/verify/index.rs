//! The offset and the time index of a segment, held against the batches while these are walked.
//!
//! An entry of an offset index names a place at which a batch begins, and an offset of that batch or of one behind it; what
//! lies before the place has smaller offsets. An entry of a time index names the largest timestamp up to an offset.
//! Both increase. Of each file the first wrong entry is told. Source: `OffsetIndex`, `TimeIndex`, `LogSegment.append`.

use std::path::PathBuf;

use milena_engine::config::{Codec, Magic};
use milena_engine::io::Io;
use milena_engine::log::names;
use milena_engine::record_batch::BatchHeader;

use super::finding::{Finding, Kind};
use super::segment::{Task, beside};
use super::window::Window;
use crate::log_dump::report::Read;

/// The entries of an index file, one after another.
#[derive(Debug)]
struct Entries<const SIZE: usize> {
    path: PathBuf,
    /// `None` if there is no file, or nothing more to look at.
    window: Option<Window>,
    position: u64,
    /// Zeros at the end are space ahead.
    may_be_preallocated: bool,
    finding: Option<Finding>,
    kind: Kind,
    at_start: String,
}

impl<const SIZE: usize> Entries<SIZE> {
    fn open(io: &dyn Io, task: &Task, suffix: &str, kind: Kind) -> Read<Entries<SIZE>> {
        let path = beside(task, suffix);
        let at_start = task.start.of_index(task.next_base);
        let mut entries = Entries {
            window: None,
            position: 0,
            may_be_preallocated: task.next_base.is_none() && !task.start.clean,
            finding: None,
            kind,
            at_start,
            path,
        };
        if io.stat(&entries.path)?.is_some() {
            let window = Window::open(io, &entries.path)?;
            let size = window.size_bytes();
            if size % SIZE as u64 != 0 {
                let at = size - size % SIZE as u64;
                entries.wrong(
                    at,
                    format!("{size} bytes"),
                    format!("whole entries of {SIZE} bytes"),
                );
            } else {
                entries.window = Some(window);
            }
        } else {
            let kind = entries.kind.clone();
            let at_start = match kind {
                Kind::OffsetIndex { .. } => "the segment is recovered, which builds it anew",
                _ => "an empty one is made; lookups by time read the whole segment",
            };
            entries.finding = Some(Finding::new(
                kind,
                &entries.path,
                "no such file",
                "an index",
                at_start,
            ));
        }
        Ok(entries)
    }

    /// Tells of a wrong entry and looks no further.
    fn wrong(&mut self, position: u64, found: String, expected: String) {
        let kind = self.kind.clone();
        let finding = Finding::new(kind, &self.path, found, expected, self.at_start.clone());
        self.finding.get_or_insert(finding.at(position));
        self.window = None;
    }

    /// The next entry and its position.
    fn next(&mut self) -> Read<Option<(u64, [u8; SIZE])>> {
        let Some(window) = &mut self.window else {
            return Ok(None);
        };
        let position = self.position;
        let bytes = window.at(position, SIZE)?.first_chunk().copied();
        let Some(entry) = bytes else {
            self.window = None;
            return Ok(None);
        };
        if entry == [0; SIZE] && self.may_be_preallocated {
            let size = window.size_bytes();
            if window.is_zero(position..size)? {
                self.window = None;
                return Ok(None);
            }
            self.may_be_preallocated = false;
        }
        self.position += SIZE as u64;
        Ok(Some((position, entry)))
    }
}

fn number(bytes: &[u8], at: usize) -> i32 {
    bytes[at..]
        .first_chunk()
        .map_or(0, |four| i32::from_be_bytes(*four))
}

/// An entry of an offset index that waits for its batch.
#[derive(Clone, Copy, Debug)]
struct OffsetEntry {
    at: u64,
    offset: i64,
    position: u64,
    /// A batch that begins at `position` was seen.
    is_placed: bool,
}

/// See the module.
#[derive(Debug)]
pub(super) struct OffsetIndexCheck {
    entries: Entries<8>,
    base: i64,
    current: Option<OffsetEntry>,
    last: Option<(i64, u64)>,
}

impl OffsetIndexCheck {
    pub(super) fn open(io: &dyn Io, task: &Task) -> Read<OffsetIndexCheck> {
        let kind = Kind::OffsetIndex { base: task.base };
        let mut check = OffsetIndexCheck {
            entries: Entries::open(io, task, names::OFFSET_INDEX, kind)?,
            base: task.base,
            current: None,
            last: None,
        };
        check.advance()?;
        Ok(check)
    }

    fn advance(&mut self) -> Read<()> {
        self.current = None;
        let Some((at, bytes)) = self.entries.next()? else {
            return Ok(());
        };
        let (relative, position) = (number(&bytes, 0), number(&bytes, 4));
        let offset = self.base.saturating_add(relative.into());
        let follows = self
            .last
            .is_none_or(|(last, place)| offset > last && i64::from(position) > place as i64);
        if relative < 0 || position < 0 || !follows {
            let found = format!("offset {offset} at position {position}");
            let expected = match self.last {
                Some((last, place)) => format!("more than offset {last} at position {place}"),
                None => format!("at least offset {} at position 0", self.base),
            };
            self.entries.wrong(at, found, expected);
            return Ok(());
        }
        let position = position as u64;
        self.last = Some((offset, position));
        self.current = Some(OffsetEntry {
            at,
            offset,
            position,
            is_placed: false,
        });
        Ok(())
    }

    fn wrong(&mut self, entry: OffsetEntry, expected: String) {
        let found = format!("offset {} at position {}", entry.offset, entry.position);
        self.entries.wrong(entry.at, found, expected);
        self.current = None;
    }

    /// The next sound batch of the log.
    pub(super) fn batch(&mut self, position: u64, header: &BatchHeader) -> Read<()> {
        let (first, last) = (header.base_offset.get(), header.last_offset.get());
        while let Some(mut entry) = self.current {
            if !entry.is_placed {
                if entry.position < position {
                    self.wrong(
                        entry,
                        format!("a position at which a batch begins, as {position}"),
                    );
                    return Ok(());
                }
                if entry.position > position {
                    if entry.offset <= last {
                        self.wrong(
                            entry,
                            format!("position {position}, where the batch with that offset begins"),
                        );
                    }
                    return Ok(());
                }
                entry.is_placed = true;
                self.current = Some(entry);
            }
            if last < entry.offset {
                return Ok(());
            }
            if says_first(header) && entry.offset < first {
                self.wrong(entry, format!("offset {first} to {last} of the batch there"));
                return Ok(());
            }
            self.advance()?;
        }
        Ok(())
    }

    /// The log ends, its next offset would be `end`.
    pub(super) fn finish(mut self, end: i64) -> Read<Option<Finding>> {
        if let Some(entry) = self.current {
            self.wrong(
                entry,
                format!("an entry for a batch of the log, which ends at offset {end}"),
            );
        }
        Ok(self.entries.finding)
    }
}

fn says_first(header: &BatchHeader) -> bool {
    header.magic == Magic::V2 || header.codec == Codec::None
}

/// See the module.
#[derive(Debug)]
pub(super) struct TimeIndexCheck {
    entries: Entries<12>,
    base: i64,
    /// Position, timestamp and offset.
    current: Option<(u64, i64, i64)>,
    last: Option<(i64, i64)>,
    /// Of the batches so far.
    largest: i64,
}

impl TimeIndexCheck {
    pub(super) fn open(io: &dyn Io, task: &Task) -> Read<TimeIndexCheck> {
        let kind = Kind::TimeIndex { base: task.base };
        let mut check = TimeIndexCheck {
            entries: Entries::open(io, task, names::TIME_INDEX, kind)?,
            base: task.base,
            current: None,
            last: None,
            largest: -1,
        };
        check.advance()?;
        Ok(check)
    }

    fn advance(&mut self) -> Read<()> {
        self.current = None;
        let Some((at, bytes)) = self.entries.next()? else {
            return Ok(());
        };
        let timestamp = bytes.first_chunk().map_or(0, |eight| i64::from_be_bytes(*eight));
        let relative = number(&bytes, 8);
        let offset = self.base.saturating_add(relative.into());
        let follows = self
            .last
            .is_none_or(|(last, place)| timestamp > last && offset >= place);
        if relative < 0 || !follows {
            let expected = match self.last {
                Some((last, place)) => format!("more than timestamp {last} at offset {place} or behind it"),
                None => format!("an offset of at least {}", self.base),
            };
            self.entries
                .wrong(at, format!("timestamp {timestamp} at offset {offset}"), expected);
            return Ok(());
        }
        self.last = Some((timestamp, offset));
        self.current = Some((at, timestamp, offset));
        Ok(())
    }

    fn wrong(&mut self, (at, timestamp, offset): (u64, i64, i64), expected: String) {
        self.entries
            .wrong(at, format!("timestamp {timestamp} at offset {offset}"), expected);
        self.current = None;
    }

    /// The next sound batch of the log.
    pub(super) fn batch(&mut self, header: &BatchHeader) -> Read<()> {
        let first = header.base_offset.get();
        let before = self.largest;
        let largest = before.max(header.max_timestamp.get());
        while let Some(entry) = self.current {
            let (_, timestamp, offset) = entry;
            if offset >= first {
                // Judged behind the batch that holds it.
                break;
            }
            // A set that does not say where it begins may hold the record.
            if timestamp != before && (says_first(header) || timestamp != largest) {
                self.wrong(
                    entry,
                    format!("timestamp {before}, the largest up to that offset"),
                );
                break;
            }
            self.advance()?;
        }
        self.largest = largest;
        Ok(())
    }

    /// The log ends, its next offset would be `end`.
    pub(super) fn finish(mut self, end: i64) -> Read<Option<Finding>> {
        while let Some(entry) = self.current {
            let (_, timestamp, offset) = entry;
            if offset >= end {
                self.wrong(
                    entry,
                    format!("an entry for a record of the log, which ends at offset {end}"),
                );
            } else if timestamp != self.largest {
                self.wrong(
                    entry,
                    format!("timestamp {}, the largest up to that offset", self.largest),
                );
            } else {
                self.advance()?;
            }
        }
        Ok(self.entries.finding)
    }
}
