//! One `.log` file, read once: which of its bytes are sound batches in their place, and what they say about everything that
//! is derived from them.
//!
//! A batch is sound if its header parses, it lies within the file, its checksum is right, and its offsets follow those
//! before it and stay within the segment. Behind one that is not, the walk goes on with the next that is: at the end
//! that its length states, or else wherever one begins. The checksum does not cover a batch's base offset: of two
//! neighbours in the wrong order, the one that is out of line with both sides is taken for the bad one; to know
//! that, a batch is taken in one step late.
//!
//! Memory is a window of the file and of each index, and what is kept of producers, epochs and damage.

use std::path::PathBuf;

use milena_engine::config::{Codec, Magic};
use milena_engine::io::Io;
use milena_engine::log::names;
use milena_engine::record_batch::{Batch, BatchError, BatchHeader, ControlRecord};
use milena_engine::units::Offset;

use super::epochs::EpochChange;
use super::finding::{Finding, Kind, Start};
use super::index::{OffsetIndexCheck, TimeIndexCheck};
use super::producers::ProducerParts;
use super::progress::Progress;
use super::window::Window;
use crate::log_dump::report::Read;

/// Of a segment, so many pieces of damage are told apart; what lies behind is one more.
const PIECES_MAX: usize = 1 << 16;
/// Of a batch: its offset, its length and what follows up to its magic.
const PREFIX_SIZE_BYTES: usize = 17;
/// The smallest length of a batch of any format.
const LENGTH_MIN: i32 = 14;
/// A batch that is larger is not looked into.
const DEEP_SIZE_BYTES_MAX: u64 = 256 << 20;
/// A control batch holds one small record.
const CONTROL_SIZE_BYTES_MAX: usize = 1 << 16;

/// A segment that is to be examined.
#[derive(Clone, Debug)]
pub(super) struct Task {
    pub(super) base: i64,
    /// Of the segment behind it.
    pub(super) next_base: Option<i64>,
    pub(super) path: PathBuf,
    pub(super) start: Start,
    /// Offsets in this segment at which the state of the producers is asked for, in order.
    pub(super) snapshots: Vec<i64>,
    pub(super) deep: bool,
}

/// Sound batches that follow each other without a byte between them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::log_dump) struct Run {
    pub(in crate::log_dump) from: u64,
    pub(in crate::log_dump) until: u64,
    pub(in crate::log_dump) first_offset: i64,
    pub(in crate::log_dump) next_offset: i64,
}

/// What a walk of a segment found.
#[derive(Clone, Debug, Default)]
pub(in crate::log_dump) struct Segment {
    pub(in crate::log_dump) base: i64,
    pub(in crate::log_dump) path: PathBuf,
    pub(in crate::log_dump) size_bytes: u64,
    pub(in crate::log_dump) runs: Vec<Run>,
    /// The file ends in zeros that a broker takes for no damage.
    pub(in crate::log_dump) is_preallocated: bool,
    pub(in crate::log_dump) batches: u64,
    pub(in crate::log_dump) epochs: Vec<EpochChange>,
    /// Whether there is a batch of format v2, and one of an older.
    pub(in crate::log_dump) has_v2: bool,
    pub(in crate::log_dump) has_legacy: bool,
    pub(in crate::log_dump) has_producers: bool,
    /// A batch lost records to compaction.
    pub(super) is_compacted: bool,
    /// Offsets that no batch holds: the first such, and how many places there are.
    pub(super) first_gap: Option<Gap>,
    pub(super) gap_count: u64,
    pub(super) producers: ProducerParts,
    pub(super) findings: Vec<Finding>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Gap {
    pub(super) position: u64,
    pub(super) from: i64,
    pub(super) until: i64,
}

impl Segment {
    /// The offset behind the last sound batch.
    pub(in crate::log_dump) fn next_offset(&self) -> i64 {
        self.runs.last().map_or(self.base, |run| run.next_offset)
    }

    /// Whether every byte belongs to a sound batch.
    pub(in crate::log_dump) fn is_whole(&self) -> bool {
        self.is_preallocated
            || match self.runs.as_slice() {
                [] => self.size_bytes == 0,
                [run] => run.from == 0 && run.until == self.size_bytes,
                _ => false,
            }
    }

    /// Up to where the file holds sound batches without a break.
    pub(in crate::log_dump) fn sound_until(&self) -> u64 {
        self.runs
            .first()
            .filter(|run| run.from == 0)
            .map_or(0, |run| run.until)
    }
}

/// A sound batch that is not taken in yet.
#[derive(Debug)]
struct Pending {
    position: u64,
    header: BatchHeader,
    control: Option<ControlRecord>,
    /// As stored, but for -1, which is none.
    epoch: Option<i32>,
    /// The offset that was due before it.
    due: i64,
    /// What is wrong with its records.
    broken: Option<String>,
}

/// What is at a position.
pub(super) enum Found {
    Sound(BatchHeader),
    /// What is wrong, and where the batch ends if its header can be believed.
    Bad {
        found: String,
        expected: String,
        end: Option<u64>,
    },
}

struct Walk<'t> {
    task: &'t Task,
    window: Window,
    end: u64,
    due: i64,
    pending: Option<Pending>,
    offsets: OffsetIndexCheck,
    times: TimeIndexCheck,
    out: Segment,
}

/// Walks the file and its indexes.
pub(super) fn examine(io: &dyn Io, task: &Task, progress: &Progress) -> Read<Segment> {
    let window = Window::open(io, &task.path)?;
    let size_bytes = window.size_bytes();
    // A broker cannot hold more in one file.
    let end = size_bytes.min(i32::MAX as u64);
    let out = Segment {
        base: task.base,
        path: task.path.clone(),
        size_bytes,
        ..Segment::default()
    };
    let mut walk = Walk {
        task,
        window,
        end,
        due: task.base,
        pending: None,
        offsets: OffsetIndexCheck::open(io, task)?,
        times: TimeIndexCheck::open(io, task)?,
        out,
    };
    walk.run(progress)?;
    Ok(walk.finish())
}

impl Walk<'_> {
    fn run(&mut self, progress: &Progress) -> Read<()> {
        let mut position = 0;
        while position < self.end {
            let (found, expected, stated_end) = match self.look(position)? {
                Found::Sound(header) => {
                    let size = header.size_bytes as u64;
                    if self.take(position, header)? {
                        position += size;
                        progress.add(size);
                        continue;
                    }
                    let found = offsets_of(&header);
                    let expected = format!("offsets from {} on, in this segment", self.due);
                    (found, expected, Some(position + size))
                }
                Found::Bad { found, expected, end } => (found, expected, end),
            };
            let next = self.resynchronise(position, stated_end)?;
            progress.add(next - position);
            self.damaged(position, next, found, expected)?;
            position = next;
        }
        if self.end < self.out.size_bytes {
            let found = format!("a segment of {} bytes", self.out.size_bytes);
            let until = self.out.size_bytes;
            self.bad(self.end, until, found, format!("at most {} bytes", i32::MAX));
        }
        Ok(())
    }

    /// Whether a whole batch with its checksum begins here.
    fn look(&mut self, position: u64) -> Read<Found> {
        look(&mut self.window, position, self.end)
    }

    fn is_in_segment(&self, header: &BatchHeader) -> bool {
        let last = header.last_offset.get();
        header.base_offset.get() >= self.task.base
            && last
                .checked_sub(self.task.base)
                .is_some_and(|reach| reach <= i64::from(i32::MAX))
            && self.task.next_base.is_none_or(|next| last < next)
    }

    /// Takes a sound batch if its offsets are in their place.
    fn take(&mut self, position: u64, header: BatchHeader) -> Read<bool> {
        if !self.is_in_segment(&header) {
            return Ok(false);
        }
        if header.base_offset.get() < self.due {
            if !self.is_pending_out_of_line(position, &header)? {
                return Ok(false);
            }
            let Some(outlier) = self.pending.take() else {
                return Ok(false);
            };
            let end = outlier.position + outlier.header.size_bytes as u64;
            let expected = format!("offsets from {} on, as the batches around it have", outlier.due);
            self.bad(outlier.position, end, offsets_of(&outlier.header), expected);
            self.due = outlier.due;
        }
        self.settle()?;
        let control = self.control(position, &header)?;
        let epoch = self.epoch(position, &header)?;
        let broken = if self.task.deep {
            wrong_records(&mut self.window, position, &header)?
        } else {
            None
        };
        let due = self.due;
        self.due = header.next_offset().get();
        self.pending = Some(Pending {
            position,
            header,
            control,
            epoch,
            due,
            broken,
        });
        Ok(true)
    }

    /// Whether the batch before is the one that is out of line: this one takes up where that one should have begun, or
    /// the one behind this agrees with it.
    fn is_pending_out_of_line(&mut self, position: u64, header: &BatchHeader) -> Read<bool> {
        let Some(pending) = &self.pending else {
            return Ok(false);
        };
        let (due, next) = (pending.due, pending.header.next_offset().get());
        let count = next - pending.header.base_offset.get();
        let base = header.base_offset.get();
        if pending.header.base_offset.get() == due || base < due {
            return Ok(false);
        }
        if base == due.saturating_add(count) {
            return Ok(true);
        }
        let behind = self
            .window
            .at(position + header.size_bytes as u64, BatchHeader::SIZE_MAX)?;
        Ok(BatchHeader::parse(behind).is_ok_and(|behind| {
            behind.base_offset >= header.next_offset() && behind.base_offset.get() < next
        }))
    }

    /// Of which the header keeps none below 0.
    fn epoch(&mut self, position: u64, header: &BatchHeader) -> Read<Option<i32>> {
        if header.leader_epoch.is_some() || header.magic != Magic::V2 {
            return Ok(header.leader_epoch.map(|epoch| epoch.get()));
        }
        let stored = self.window.at(position + 12, 4)?;
        let stored = i32::from_be_bytes(stored.try_into().unwrap_or_default());
        Ok((stored < -1).then_some(stored))
    }

    fn control(&mut self, position: u64, header: &BatchHeader) -> Read<Option<ControlRecord>> {
        if !header.is_control || header.size_bytes > CONTROL_SIZE_BYTES_MAX {
            return Ok(None);
        }
        let bytes = self.window.at(position, header.size_bytes)?;
        Ok(Batch::parse(bytes).and_then(|batch| batch.control_record()).ok())
    }

    /// Where the next sound batch begins, or the end.
    fn resynchronise(&mut self, position: u64, stated_end: Option<u64>) -> Read<u64> {
        if self.out.findings.len() >= PIECES_MAX {
            return Ok(self.end);
        }
        if let Some(end) = stated_end
            && (end == self.end || self.is_sound_at(end)?)
        {
            return Ok(end);
        }
        // A far larger choice would have much summed up in vain.
        let reach = self.task.base.saturating_add(1 << 31);
        let offsets = self.task.base..self.task.next_base.unwrap_or(reach).min(reach);
        let mut next = position + 1;
        while next < self.end {
            let file_left = self.end - next;
            let held = self.window.ahead(next, PREFIX_SIZE_BYTES)?;
            // Nearly every place fails at its offset, length or magic, before anything is parsed or read anew.
            let found = held.windows(PREFIX_SIZE_BYTES).zip(0..).find(|(bytes, at)| {
                let offset = bytes
                    .first_chunk()
                    .map_or(-1, |offset| i64::from_be_bytes(*offset));
                let length = bytes[8..]
                    .first_chunk()
                    .map_or(-1, |length| i32::from_be_bytes(*length));
                let is_within = u64::try_from(length).is_ok_and(|length| *at + length < file_left);
                bytes[16] <= 2 && offsets.contains(&offset) && length >= LENGTH_MIN && is_within
            });
            match found {
                Some((_, at)) => {
                    next += at;
                    if self.is_sound_at(next)? {
                        return Ok(next);
                    }
                    next += 1;
                }
                None if held.len() < PREFIX_SIZE_BYTES => return Ok(self.end),
                None => next += (held.len() - PREFIX_SIZE_BYTES + 1) as u64,
            }
        }
        Ok(self.end)
    }

    fn is_sound_at(&mut self, position: u64) -> Read<bool> {
        Ok(match self.look(position)? {
            Found::Sound(header) => {
                self.is_in_segment(&header)
                    && (header.base_offset.get() >= self.due
                        || self
                            .pending
                            .as_ref()
                            .is_some_and(|pending| header.base_offset.get() >= pending.due))
            }
            Found::Bad { .. } => false,
        })
    }

    /// Notes damage, unless it is the space ahead that a broker reserves.
    fn damaged(&mut self, from: u64, until: u64, found: String, expected: String) -> Read<()> {
        let is_last = self.task.next_base.is_none();
        if until == self.end && is_last && !self.task.start.clean && self.window.is_zero(from..until)? {
            self.out.is_preallocated = true;
            let found = "zeros up to the end of the file: space ahead, or an end that was lost";
            let at_start = format!("recovery truncates the segment at byte {from}");
            self.out
                .findings
                .push(Finding::new(Kind::Note, &self.task.path, found, "", at_start).at(from));
        } else {
            self.bad(from, until, found, expected);
        }
        Ok(())
    }

    fn bad(&mut self, from: u64, until: u64, found: String, expected: String) {
        let task = self.task;
        let kind = Kind::Batch {
            base: task.base,
            until,
        };
        let at_start = task.start.of_batch(task.next_base, from);
        let finding = Finding::new(kind, &task.path, found, expected, at_start);
        self.out.findings.push(finding.at(from));
    }

    /// Takes in the batch that waited.
    fn settle(&mut self) -> Read<()> {
        let Some(Pending {
            position,
            header,
            control,
            epoch,
            due,
            broken,
        }) = self.pending.take()
        else {
            return Ok(());
        };
        let end = position + header.size_bytes as u64;
        let (first, next) = (header.base_offset.get(), header.next_offset().get());
        self.offsets.batch(position, &header)?;
        self.times.batch(&header)?;
        let out = &mut self.out;
        out.batches += 1;
        let follows = position == out.runs.last().map_or(0, |run| run.until);
        match out.runs.last_mut() {
            Some(run) if follows => (run.until, run.next_offset) = (end, next),
            _ => out.runs.push(Run {
                from: position,
                until: end,
                first_offset: first,
                next_offset: next,
            }),
        }
        if let Some(found) = broken {
            let at_start = "records are not looked at; a consumer that reads them fails".to_owned();
            let finding = Finding::new(Kind::Record, &self.task.path, found, "whole records", at_start);
            out.findings.push(finding.at(position));
        }
        if header.magic == Magic::V2 {
            out.has_v2 = true;
            out.is_compacted |= header
                .record_count
                .is_some_and(|count| i64::from(count) < next - first);
            if let Some(epoch) = epoch {
                match out.epochs.last_mut() {
                    Some(last) if last.epoch == epoch => last.batches += 1,
                    _ => out.epochs.push(EpochChange {
                        epoch,
                        offset: first,
                        position,
                        batches: 1,
                    }),
                }
            }
        } else {
            out.has_legacy = true;
        }
        // A compressed set of an old format does not say where it begins.
        let says_first = header.magic == Magic::V2 || header.codec == Codec::None;
        if first > due && follows && says_first {
            out.gap_count += 1;
            out.first_gap.get_or_insert(Gap {
                position,
                from: due,
                until: first,
            });
        }
        self.out.has_producers |= header.producer.is_some();
        self.out.producers.batch(&header, control, &self.task.snapshots);
        Ok(())
    }

    fn finish(mut self) -> Segment {
        // What cannot be read of an index any more is told as a finding of that index.
        if let Err(error) = self.settle() {
            self.out.findings.push(super::unreadable(&error));
        }
        self.out.producers.begin_parts(self.task.snapshots.len());
        let is_whole = self.out.is_whole();
        for found in [self.offsets.finish(self.due), self.times.finish(self.due)] {
            match found {
                // Where the log is damaged its indexes are built anew in any case.
                Ok(Some(finding)) if is_whole => self.out.findings.push(finding),
                Ok(_) => {}
                Err(error) => self.out.findings.push(super::unreadable(&error)),
            }
        }
        self.out
    }
}

/// Whether a whole batch with its checksum begins at a position of a file that counts up to `file_end`.
pub(super) fn look(window: &mut Window, position: u64, file_end: u64) -> Read<Found> {
    let prefix = window.at(position, BatchHeader::SIZE_MAX)?;
    let header = match BatchHeader::parse(prefix) {
        Ok(header) => header,
        Err(error) => {
            let (found, expected) = refused(&error);
            return Ok(Found::Bad {
                found,
                expected,
                end: None,
            });
        }
    };
    let end = position + header.size_bytes as u64;
    if end > file_end {
        return Ok(Found::Bad {
            found: format!("a batch of {} bytes", header.size_bytes),
            expected: format!("at most {} up to the end of the file", file_end - position),
            end: None,
        });
    }
    let (stored_at, covered_from) = if header.magic == Magic::V2 {
        (17, 21)
    } else {
        (12, 16)
    };
    let stored = window.at(position + stored_at, 4)?;
    let stored = u32::from_be_bytes(stored.try_into().unwrap_or_default());
    let computed = window.checksum(position + covered_from..end, header.magic)?;
    if stored != computed {
        return Ok(Found::Bad {
            found: format!("checksum {stored:#010x} in a batch with {}", offsets_of(&header)),
            expected: format!("{computed:#010x}"),
            end: Some(end),
        });
    }
    Ok(Found::Sound(header))
}

/// What a header has that no batch can have, and what it should have.
fn refused(error: &BatchError) -> (String, String) {
    match error {
        BatchError::Partial { found, expected, .. } => {
            (format!("{found} bytes"), format!("{expected} of a batch"))
        }
        BatchError::Size { found, minimum, .. } => (
            format!("a batch length of {found}"),
            format!("at least {minimum}"),
        ),
        BatchError::Magic { found, .. } => (format!("magic {found}"), "0, 1 or 2".to_owned()),
        BatchError::UnknownCodec { found, .. } => (format!("compression codec {found}"), "0 to 4".to_owned()),
        BatchError::OffsetRange { base, delta, .. } => (
            format!("base offset {base} with last offset delta {delta}"),
            "offsets of a log".to_owned(),
        ),
        other => (other.to_string(), String::new()),
    }
}

fn offsets_of(header: &BatchHeader) -> String {
    format!("offsets {} to {}", header.base_offset, header.last_offset)
}

/// Of a sound batch: what is wrong with its records, which are read into memory.
pub(super) fn wrong_records(
    window: &mut Window,
    position: u64,
    header: &BatchHeader,
) -> Read<Option<String>> {
    let size = header.size_bytes as u64;
    if size > DEEP_SIZE_BYTES_MAX {
        return Ok(Some(format!(
            "a batch of {size} bytes, which is too large to look into"
        )));
    }
    let bytes = window.copy(position..position + size)?;
    Ok(check_records(&bytes).err())
}

/// Walks all records: they are whole, as many as the header says, within its offsets and in order.
fn check_records(bytes: &[u8]) -> Result<(), String> {
    let text = |error: milena_engine::record_batch::BatchError| error.to_string();
    let batch = Batch::parse(bytes).map_err(text)?;
    let header = *batch.header();
    let mut records = batch.records().map_err(text)?;
    let mut last: Option<Offset> = None;
    while let Some(record) = records.next_record().map_err(text)? {
        let is_in_batch = record.offset <= header.last_offset
            && (header.magic != Magic::V2 || record.offset >= header.base_offset);
        if !is_in_batch || last.is_some_and(|last| record.offset <= last) {
            return Err(format!(
                "a record with offset {} in a batch with {}",
                record.offset,
                offsets_of(&header)
            ));
        }
        last = Some(record.offset);
    }
    Ok(())
}

/// The name of a file of the segment beside its log.
pub(super) fn beside(task: &Task, suffix: &str) -> PathBuf {
    task.path
        .with_file_name(names::file_name(Offset(task.base), suffix))
}
