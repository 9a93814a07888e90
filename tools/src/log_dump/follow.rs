//! `--follow`: what is appended to the active segment of partitions, as it comes.
//!
//! The files are looked at every 100 ms: the size of each active segment, and of a partition's directory the time at
//! which it was changed last, which a new segment changes. The end of a file is what a broker is writing; a batch is
//! told once it is whole. What was told last is looked at again before more is told: where it is not there any more,
//! the log was truncated, and following goes on behind the last batch that still is. A partition that is deleted is
//! waited for.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use milena_engine::io::{FileKind as Entry, Io};
use milena_engine::units::TimestampMs;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::MissedTickBehavior;

use super::raw_batch::{Step, step};
use super::report::{self, Dumped, Failure, Report};
use super::segment::{Options, Walk, next_sound_batch};
use super::selection::{Selected, logs_in, partitions_in};
use super::source::Source;
use super::{DumpArgs, seek};

const PERIOD: Duration = Duration::from_millis(100);
/// Log directories are looked through for new partitions as rarely as that, in periods.
const PERIODS_PER_SURVEY: u32 = 20;
/// Batches that are told before a signal is looked for.
const BATCHES_PER_LOOK: usize = 256;
/// Batches that are remembered: a truncation to before them goes back to the beginning of the segment.
const REMEMBERED_MAX: usize = 1024;

/// Until a signal, or until enough is told.
pub(super) fn run(arguments: &DumpArgs, options: &Options, io: &dyn Io, report: &mut Report) -> Dumped {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(Failure::Output)?;
    let mut followed = Followed::new(arguments, options, io, report)?;
    runtime.block_on(async {
        let mut interrupted = signal(SignalKind::interrupt()).map_err(Failure::Output)?;
        let mut terminated = signal(SignalKind::terminate()).map_err(Failure::Output)?;
        let mut ticks = tokio::time::interval(PERIOD);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let is_behind = followed.look(report)?;
            let next = async {
                match is_behind {
                    true => tokio::task::yield_now().await,
                    false => drop(ticks.tick().await),
                }
            };
            tokio::select! {
                biased;
                _ = interrupted.recv() => return Ok(()),
                _ = terminated.recv() => return Ok(()),
                () = next => {}
            }
        }
    })
}

/// All partitions that are followed.
struct Followed<'a> {
    io: &'a dyn Io,
    options: &'a Options,
    /// Directories of which the partitions are followed, those to come included.
    log_dirs: Vec<PathBuf>,
    partitions: Vec<Partition<'a>>,
    periods: u32,
    /// The file that was told last.
    current: Option<PathBuf>,
}

struct Partition<'a> {
    directory: PathBuf,
    /// When the directory was changed, as it was looked at last.
    changed: Option<TimestampMs>,
    /// Which directory it was: a partition may be deleted and made anew between two looks.
    identity: Option<u64>,
    /// The base offsets of the segments, as they were listed last.
    bases: Vec<Option<i64>>,
    active: Option<Active<'a>>,
    is_gone: bool,
    /// All that a filter asks for was told.
    is_done: bool,
}

/// A segment that is read to its end.
struct Active<'a> {
    file: Selected,
    /// Which file it is.
    identity: Option<u64>,
    source: Source,
    walk: Walk<'a>,
    /// Position, size and checksum of the batches before the position, the last ones of them.
    told: VecDeque<(u64, usize, u32)>,
    /// Where something was found that is no batch.
    broken_at: Option<u64>,
}

impl<'a> Followed<'a> {
    fn new(
        arguments: &DumpArgs,
        options: &'a Options,
        io: &'a dyn Io,
        report: &mut Report,
    ) -> Result<Followed<'a>, Failure> {
        let mut followed = Followed {
            io,
            options,
            log_dirs: Vec::new(),
            partitions: Vec::new(),
            periods: 0,
            current: None,
        };
        for path in arguments.paths.iter().chain(&arguments.files) {
            let path: PathBuf = path.components().collect();
            match io.stat(&path)? {
                Some(stat) if stat.kind == Entry::Directory => match partitions_in(io, &path)? {
                    None => followed.add(path, report)?,
                    Some(_) => followed.log_dirs.push(path),
                },
                // Of a file its partition: the next segment is another file.
                Some(_) => followed.add(path.parent().unwrap_or(Path::new("")).join("."), report)?,
                None => report.unreadable(&path, format_args!("{}: is not there", path.display()))?,
            }
        }
        followed.survey(report)?;
        // From here on a partition that is found was not there at first.
        followed.periods = 1;
        if followed.partitions.is_empty() && followed.log_dirs.is_empty() {
            return Err(Failure::Enough);
        }
        Ok(followed)
    }

    fn add(&mut self, directory: PathBuf, report: &mut Report) -> Dumped {
        let directory: PathBuf = directory.components().collect();
        if self
            .partitions
            .iter()
            .any(|partition| partition.directory == directory)
        {
            return Ok(());
        }
        let mut partition = Partition {
            directory,
            changed: None,
            identity: None,
            bases: Vec::new(),
            active: None,
            is_gone: false,
            is_done: false,
        };
        // All is new of a partition that was not there at first.
        if self.periods == 0 {
            partition.open_first(self.io, self.options, report)?;
        }
        self.partitions.push(partition);
        Ok(())
    }

    /// Finds the partitions of log directories that are not followed yet.
    fn survey(&mut self, report: &mut Report) -> Dumped {
        for log_dir in self.log_dirs.clone() {
            for name in partitions_in(self.io, &log_dir)?.unwrap_or_default() {
                self.add(log_dir.join(name), report)?;
            }
        }
        Ok(())
    }

    /// Tells what is new; returns whether there is more of it.
    fn look(&mut self, report: &mut Report) -> Result<bool, Failure> {
        if self.periods.is_multiple_of(PERIODS_PER_SURVEY) {
            self.survey(report)?;
        }
        self.periods = self.periods.wrapping_add(1);
        let mut is_behind = false;
        for partition in &mut self.partitions {
            match partition.look(self.io, self.options, &mut self.current, report) {
                Ok(more) => is_behind |= more,
                // It was deleted or renamed between two looks; the next one finds out.
                Err(Failure::Input(error)) if error.source.kind() == io::ErrorKind::NotFound => {}
                Err(failure) => return Err(failure),
            }
        }
        report.flush()?;
        if self.log_dirs.is_empty() && self.partitions.iter().all(|partition| partition.is_done) {
            return Err(Failure::Enough);
        }
        Ok(is_behind)
    }
}

impl<'a> Partition<'a> {
    /// Opens the active segment at its end, or the first one that a filter begins in.
    fn open_first(&mut self, io: &dyn Io, options: &'a Options, report: &mut Report) -> Dumped {
        let files = logs_in(io, &self.directory)?;
        self.bases = files.iter().map(|file| file.base_offset).collect();
        let filter = &options.filter;
        let begins = filter.from_offset.is_some() || filter.from_time.is_some();
        for file in &files {
            let is_last = file.next_base_offset.is_none();
            let Some(base) = file.base_offset else { continue };
            if begins {
                if let Some(begin) = seek::begin(io, file, filter)? {
                    return self.open(io, file, begin, options);
                }
            } else if is_last {
                let end = seek::end(io, &file.path, base)?;
                return self.open(io, file, end, options);
            }
        }
        if files.is_empty() {
            report.say(format_args!(
                "milena: {}: waiting for a segment",
                self.directory.display()
            ))?;
        }
        Ok(())
    }

    fn open(&mut self, io: &dyn Io, file: &Selected, position: u64, options: &'a Options) -> Dumped {
        self.active = Some(Active {
            identity: io.stat(&file.path)?.map(|stat| stat.identity),
            source: Source::open(io, &file.path)?,
            walk: Walk::new(options, file.base_offset, position),
            file: file.clone(),
            told: VecDeque::new(),
            broken_at: None,
        });
        Ok(())
    }

    fn look(
        &mut self,
        io: &dyn Io,
        options: &'a Options,
        current: &mut Option<PathBuf>,
        report: &mut Report,
    ) -> Result<bool, Failure> {
        let Some(stat) = io.stat(&self.directory)? else {
            if !self.is_gone {
                report.say(format_args!(
                    "milena: {}: was deleted; waiting for it",
                    self.directory.display()
                ))?;
            }
            (self.is_gone, self.active, self.changed, self.identity) = (true, None, None, None);
            return Ok(false);
        };
        self.is_gone = false;
        if self.read(current, report)? {
            return Ok(true);
        }
        let is_unchanged = self.changed == Some(stat.modified) && self.identity == Some(stat.identity);
        if self.is_done || is_unchanged && self.active.is_some() {
            return Ok(false);
        }
        // Segments are added and deleted.
        let files = logs_in(io, &self.directory)?;
        let before = std::mem::replace(
            &mut self.bases,
            files.iter().map(|file| file.base_offset).collect(),
        );
        self.changed = Some(stat.modified);
        let place = self.identity.replace(stat.identity);
        let Some(base) = self.active.as_ref().map(|active| active.file.base_offset) else {
            // What comes after nothing is all new.
            return match files.first() {
                Some(file) => self.open(io, file, 0, options).map(|()| true),
                None => Ok(false),
            };
        };
        // Compaction replaces segments too, but never the newest.
        let is_newest = before.last() == Some(&base);
        let is_other = match &self.active {
            Some(Active { file, identity, .. }) if is_newest && self.bases.contains(&base) => {
                io.stat(&file.path)?.map(|stat| stat.identity) != *identity
            }
            _ => false,
        };
        if is_other || place.is_some_and(|place| place != stat.identity) {
            let directory = self.directory.display();
            report.say(format_args!("milena: {directory}: was deleted and made anew"))?;
            self.active = None;
            self.changed = None;
            return Ok(true);
        }
        if let Some(next) = files.iter().find(|file| file.base_offset > base) {
            // What was appended between the last look and the roll.
            while self.read(current, report)? {}
            // A time of change has the grain of the file system's clock: another look is due.
            self.changed = None;
            return self.open(io, next, 0, options).map(|()| true);
        }
        if self.bases.contains(&base) {
            return Ok(false);
        }
        if let Some(active) = &self.active {
            let path = active.file.path.display();
            report.say(format_args!("milena: {path}: was deleted"))?;
        }
        self.active = None;
        match files.last() {
            // Truncation made an older one active again; one that is new begins anew.
            Some(last) => {
                let is_old = before.contains(&last.base_offset);
                let position = if is_old {
                    seek::end(io, &last.path, last.base_offset.unwrap_or(0))?
                } else {
                    0
                };
                self.open(io, last, position, options).map(|()| true)
            }
            None => Ok(false),
        }
    }

    /// Tells some of what is new in the active segment; returns whether there is more.
    fn read(&mut self, current: &mut Option<PathBuf>, report: &mut Report) -> Result<bool, Failure> {
        let Some(active) = self.active.as_mut().filter(|_| !self.is_done) else {
            return Ok(false);
        };
        match active.read(current, report)? {
            Read::UpToDate => Ok(false),
            Read::Some => Ok(true),
            Read::PastFilter => {
                self.is_done = true;
                Ok(false)
            }
        }
    }
}

/// How far reading came.
enum Read {
    UpToDate,
    Some,
    /// Behind the last offset that is asked for.
    PastFilter,
}

impl Active<'_> {
    /// Tells what there is behind the position.
    fn read(&mut self, current: &mut Option<PathBuf>, report: &mut Report) -> Result<Read, Failure> {
        let end = self.source.refresh()?;
        if end == self.walk.position && self.is_still_there()? {
            return Ok(Read::UpToDate);
        }
        self.go_back(end, current, report)?;
        for _ in 0..BATCHES_PER_LOOK {
            match step(&mut self.source, self.walk.position, end)? {
                Step::Batch(batch) => {
                    if self.told.len() == REMEMBERED_MAX {
                        self.told.pop_front();
                    }
                    let told = (self.walk.position, batch.size_bytes, batch.stored_crc());
                    self.told.push_back(told);
                    self.named(current, report)?;
                    if self.walk.batch(&mut self.source, &batch, report)? {
                        return Ok(Read::PastFilter);
                    }
                }
                Step::End => return Ok(Read::UpToDate),
                Step::Broken(_) if self.is_unwritten(end)? => return Ok(Read::UpToDate),
                Step::Broken(damage) => {
                    if self.broken_at != Some(self.walk.position) {
                        self.broken_at = Some(self.walk.position);
                        self.named(current, report)?;
                        report.fault(self.walk.position, damage)?;
                    }
                    let from = self.walk.position + 1;
                    match next_sound_batch(&mut self.source, self.file.base_offset, from, end)? {
                        Some(next) => self.walk.position = next,
                        None => return Ok(Read::UpToDate),
                    }
                }
            }
        }
        Ok(Read::Some)
    }

    /// Says of which file the next lines are, where that is another than before.
    fn named(&self, current: &mut Option<PathBuf>, report: &mut Report) -> Dumped {
        if current.as_ref() != Some(&self.file.path) {
            report.begin(&self.file)?;
            *current = Some(self.file.path.clone());
        }
        Ok(())
    }

    /// Whether the batch that was told last is where it was.
    fn is_still_there(&mut self) -> report::Read<bool> {
        let Some(&(position, size, crc)) = self.told.back() else {
            return Ok(true);
        };
        let end = self.source.size_bytes();
        Ok(matches!(step(&mut self.source, position, end)?,
            Step::Batch(batch) if batch.size_bytes == size && batch.stored_crc() == crc))
    }

    /// Behind the last batch that is still there.
    fn go_back(&mut self, end: u64, current: &mut Option<PathBuf>, report: &mut Report) -> Dumped {
        let before = self.walk.position;
        while !self.is_still_there()? {
            self.told.pop_back();
            self.walk.position = self
                .told
                .back()
                .map_or(0, |(position, size, _)| position + *size as u64);
        }
        if self.told.is_empty() && end < self.walk.position {
            self.walk.position = end;
        }
        if self.walk.position < before {
            self.named(current, report)?;
            report.remark(format_args!(
                "was truncated; going on at byte {}",
                self.walk.position
            ))?;
        }
        Ok(())
    }

    /// Whether zeros are ahead, as in a file that was allocated before it is written.
    fn is_unwritten(&mut self, end: u64) -> report::Read<bool> {
        let position = self.walk.position;
        self.source.is_zero(position..end.min(position + 4096))
    }
}
