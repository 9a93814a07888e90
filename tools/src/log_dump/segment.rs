//! A `.log` file, batch for batch and record for record.
//!
//! Where Kafka's tool dies, this one says why and goes on: behind a broken record with the next batch, behind a
//! broken length with the next bytes that are a whole batch with its checksum. Memory is that of a window, or of the
//! largest batch of which records are looked at, up to a limit. Source: `DumpLogSegments.dumpLog`.

use milena_engine::io::Io;

use super::filter::{Filter, Verdict};
use super::raw_batch::{RawBatch, Step, step};
use super::records::each_record;
use super::report::{Dumped, Failure, Mismatch, Read, Report, Stopped, too_large, unknown_codec};
use super::selection::Selected;
use super::source::Source;
use super::thing::{BatchThing, Damage, Thing};

/// What is asked for.
#[derive(Debug)]
pub(super) struct Options {
    /// Every record is told.
    pub(super) deep: bool,
    pub(super) filter: Filter,
    /// Batches above this size are not read for their records.
    pub(super) max_batch_size: usize,
    /// Zeros up to the end of the last segment are no damage, but what a broker allocated before it writes.
    pub(super) allows_space_ahead: bool,
}

/// Tells the file from `begin` on, where a batch begins.
pub(super) fn dump(
    io: &dyn Io,
    file: &Selected,
    begin: u64,
    options: &Options,
    report: &mut Report,
) -> Dumped {
    let source = &mut Source::open(io, &file.path)?;
    if let Some(base_offset) = file.base_offset {
        report.tell(Thing::SegmentStart { base_offset })?;
    } else if file.must_have_offset() {
        report.fault(0, "the name does not begin with an offset")?;
    }
    let mut walk = Walk::new(options, file.base_offset, begin);
    walk.may_have_space_ahead = options.allows_space_ahead && file.next_base_offset.is_none();
    let end = source.size_bytes();
    if !matches!(walk.run(source, end, report)?, Ran::ToTheEnd) {
        return Ok(());
    }
    let count = end - walk.valid_bytes;
    if count > 0 {
        let file_name = file.path.file_name().unwrap_or_default().to_string_lossy();
        report.tell(Thing::TrailingBytes {
            file_name: &file_name,
            count,
        })?;
    }
    if walk.batches == 0 && begin == 0 && count > 0 && !file.is_by_kafka && report.faults == 0 {
        let found = format_args!("{count} bytes in which there is no batch");
        report.fault(0, Damage::found(found, "a log"))?;
    }
    Ok(())
}

/// How a walk ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ran {
    /// Where no further batch is.
    ToTheEnd,
    /// Where nothing but zeros follows.
    ToSpaceAhead,
    /// Behind the last offset that is asked for.
    PastFilter,
}

/// A walk over the batches of a file.
#[derive(Debug)]
pub(super) struct Walk<'o> {
    options: &'o Options,
    base_offset: Option<i64>,
    /// Where the next batch begins.
    pub(super) position: u64,
    /// Bytes of the batches so far, and of those before the beginning.
    valid_bytes: u64,
    batches: u64,
    last_offset: Option<i64>,
    may_have_space_ahead: bool,
}

impl<'o> Walk<'o> {
    pub(super) fn new(options: &'o Options, base_offset: Option<i64>, position: u64) -> Walk<'o> {
        Walk {
            options,
            base_offset,
            position,
            valid_bytes: position,
            batches: 0,
            last_offset: None,
            may_have_space_ahead: false,
        }
    }

    /// Tells the batches up to `end`.
    pub(super) fn run(&mut self, source: &mut Source, end: u64, report: &mut Report) -> Result<Ran, Failure> {
        loop {
            match step(source, self.position, end)? {
                Step::End => return Ok(Ran::ToTheEnd),
                Step::Batch(batch) => {
                    let is_last = self.batch(source, &batch, report)?;
                    if is_last {
                        return Ok(Ran::PastFilter);
                    }
                }
                Step::Broken(_) if self.may_have_space_ahead && source.is_zero(self.position..end)? => {
                    return Ok(Ran::ToSpaceAhead);
                }
                Step::Broken(damage) => {
                    report.fault(self.position, damage)?;
                    let next = next_sound_batch(source, self.base_offset, self.position + 1, end)?;
                    let Some(next) = next else {
                        return Ok(Ran::ToTheEnd);
                    };
                    report.remark(format_args!("byte {next}: the next sound batch"))?;
                    self.position = next;
                }
            }
        }
    }

    /// Tells the batch at the position and goes behind it; returns whether all that follow lie behind what is asked
    /// for.
    pub(super) fn batch(
        &mut self,
        source: &mut Source,
        raw: &RawBatch,
        report: &mut Report,
    ) -> Result<bool, Failure> {
        let (position, filter) = (self.position, &self.options.filter);
        let verdict = filter.batch(raw);
        if verdict == Verdict::No {
            // The offset before the next one that is told is not known.
            self.last_offset = None;
        } else {
            let thing = BatchThing {
                raw,
                position,
                computed_crc: raw.computed_crc(source, position)?,
            };
            self.told(source, thing, verdict, report)?;
        }
        self.position += raw.size_bytes as u64;
        self.valid_bytes += raw.size_bytes as u64;
        self.batches += 1;
        let is_behind = filter.to_offset.is_some_and(|to| raw.last_offset() >= to);
        Ok(is_behind && raw.is_valid_at(source, position)?)
    }

    fn told(
        &mut self,
        source: &mut Source,
        thing: BatchThing<'_>,
        verdict: Verdict,
        report: &mut Report,
    ) -> Dumped {
        let (raw, options) = (thing.raw, self.options);
        let looks = options.deep || verdict == Verdict::Look;
        let damage = if raw.magic() < 0 {
            Some(Damage::found(format_args!("magic {}", raw.magic()), "0, 1 or 2"))
        } else if let Err(id) = raw.compression_type() {
            Some(unknown_codec(id))
        } else if looks && raw.size_bytes > options.max_batch_size {
            Some(too_large(raw, options.max_batch_size))
        } else {
            None
        };
        // Without records to be looked at, it may be what is asked for.
        let mut is_told =
            !looks || verdict == Verdict::Yes && !options.filter.needs_records() && self.all_pass(raw);
        is_told |= damage.is_some();
        if is_told {
            report.tell(Thing::Batch(thing))?;
        }
        if let Some(damage) = damage {
            return report.fault(thing.position, damage);
        }
        if !looks {
            return Ok(());
        }
        let bytes = source.bytes_at(thing.position, raw.size_bytes)?;
        let walked = each_record(bytes, raw, |record| {
            self.follow(record.offset, report)?;
            if !options.filter.record(record) {
                return Ok(());
            }
            if !is_told {
                is_told = true;
                report.tell(Thing::Batch(thing))?;
            }
            match options.deep {
                true => report.record(record),
                // One is enough.
                false => Err(Stopped::Seen),
            }
        });
        match walked {
            Ok(()) | Err(Stopped::Seen) => Ok(()),
            Err(Stopped::Failed(failure)) => Err(failure),
            Err(Stopped::Broken(damage)) => {
                if !is_told {
                    report.tell(Thing::Batch(thing))?;
                }
                report.fault(thing.position, damage)
            }
        }
    }

    /// Whether the batch is told before its records are seen: nothing is filtered, or there are none.
    fn all_pass(&self, raw: &RawBatch) -> bool {
        !self.options.filter.is_active() || raw.is_v2() && raw.record_count() <= 0
    }

    fn follow(&mut self, offset: i64, report: &mut Report) -> Dumped {
        let last = self.last_offset;
        // Kafka's tool marks "none yet" by -1.
        self.last_offset = (offset != -1).then_some(offset);
        match last {
            Some(last) if self.options.deep && offset != last.wrapping_add(1) => {
                report.mismatch(Mismatch::NonConsecutive, last, offset)
            }
            _ => Ok(()),
        }
    }
}

/// Where, from `position` on, a whole batch with its checksum begins, of offsets that can be in a segment with this
/// base. Little else looks like a batch, so that hardly anything is summed up in vain.
pub(super) fn next_sound_batch(
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
            && batch.is_valid_at(source, position)?
        {
            return Ok(Some(position));
        }
        position += 1;
    }
    Ok(None)
}
