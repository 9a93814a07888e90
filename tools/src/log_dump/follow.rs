//! `--follow`: what is appended to the active segment of partitions, as it comes.
//!
//! The files are looked at every 100 ms: the size of each active segment, and of a partition's directory the time at which it was changed
//! last, which a new segment changes. The end of a file is what a broker is writing; a batch is told once it is whole. What was told last is
//! looked at again before more is told: where it is not there any more, the log was truncated, and following goes on behind the last
//! batch that still is. A partition that is deleted is waited for.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use milena_engine::io::{FileKind as Entry, Io};
use milena_engine::units::TimestampMs;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::MissedTickBehavior;

use super::raw_batch::{Step, step};
use super::report::{Dumped, Failure, Read, Report};
use super::segment::{Options, Walk};
use super::selection::{FileKind, Selected, partitions_in, select};
use super::source::Source;
use super::{DumpArgs, seek};

const PERIOD: Duration = Duration::from_millis(100);
/// Log directories are looked through for new partitions as rarely as that, in periods.
const PERIODS_PER_SURVEY: u32 = 20;
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
            tokio::select! {
                _ = interrupted.recv() => return Ok(()),
                _ = terminated.recv() => return Ok(()),
                _ = ticks.tick() => followed.look(report)?,
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
    active: Option<Active<'a>>,
    is_gone: bool,
}

/// A segment that is read to its end.
struct Active<'a> {
    file: Selected,
    source: Source,
    walk: Walk<'a>,
    /// Position, size and checksum of the batches before the position, the last ones of them.
    told: VecDeque<(u64, usize, u32)>,
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
            active: None,
            is_gone: false,
        };
        partition.open_first(self.io, self.options, report)?;
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

    fn look(&mut self, report: &mut Report) -> Dumped {
        if self.periods.is_multiple_of(PERIODS_PER_SURVEY) {
            self.survey(report)?;
        }
        self.periods = self.periods.wrapping_add(1);
        for partition in &mut self.partitions {
            match partition.look(self.io, self.options, &mut self.current, report) {
                // It was deleted or renamed between two looks; the next one finds out.
                Err(Failure::Input(error)) if error.source.kind() == io::ErrorKind::NotFound => {}
                other => other?,
            }
        }
        report.flush()
    }
}

impl<'a> Partition<'a> {
    /// Opens the active segment at its end, or the first one that a filter begins in.
    fn open_first(&mut self, io: &dyn Io, options: &'a Options, report: &mut Report) -> Dumped {
        let files = self.segments(io)?;
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
            source: Source::open(io, &file.path)?,
            walk: Walk::new(options, file.base_offset, position),
            file: file.clone(),
            told: VecDeque::new(),
        });
        Ok(())
    }

    /// The logs of the directory in their order.
    fn segments(&mut self, io: &dyn Io) -> Read<Vec<Selected>> {
        let mut complaints = Vec::new();
        let files = select(io, std::slice::from_ref(&self.directory), |_, what| {
            complaints.push(what)
        });
        Ok(files
            .into_iter()
            .filter(|file| file.kind == FileKind::Log)
            .collect())
    }

    fn look(
        &mut self,
        io: &dyn Io,
        options: &'a Options,
        current: &mut Option<PathBuf>,
        report: &mut Report,
    ) -> Dumped {
        let stat = io.stat(&self.directory)?;
        let Some(stat) = stat else {
            if !self.is_gone {
                report.say(format_args!(
                    "milena: {}: was deleted; waiting for it",
                    self.directory.display()
                ))?;
            }
            (self.is_gone, self.active, self.changed) = (true, None, None);
            return Ok(());
        };
        self.is_gone = false;
        if let Some(active) = &mut self.active {
            active.read(current, report)?;
        }
        if self.changed == Some(stat.modified) && self.active.is_some() {
            return Ok(());
        }
        // Segments are added and deleted.
        let files = self.segments(io)?;
        self.changed = Some(stat.modified);
        let Some(active) = &mut self.active else {
            // What comes after nothing is all new.
            return match files.first() {
                Some(file) => self.open(io, file, 0, options),
                None => Ok(()),
            };
        };
        let Some(base) = active.file.base_offset else {
            return Ok(());
        };
        let next = files.iter().find(|file| file.base_offset > Some(base)).cloned();
        let is_there = files.iter().any(|file| file.base_offset == Some(base));
        match next {
            Some(next) => {
                // What was appended between the last look and the roll.
                active.read(current, report)?;
                // A time of change has the grain of the file system's clock: another look is due.
                self.changed = None;
                self.open(io, &next, 0, options)
            }
            None if is_there => Ok(()),
            None => {
                report.say(format_args!(
                    "milena: {}: was deleted",
                    active.file.path.display()
                ))?;
                self.active = None;
                self.open_first(io, options, report)
            }
        }
    }
}

impl Active<'_> {
    /// Tells what there is behind the position.
    fn read(&mut self, current: &mut Option<PathBuf>, report: &mut Report) -> Dumped {
        let end = self.source.refresh()?;
        if end == self.walk.position && self.still_there()? {
            return Ok(());
        }
        self.go_back(end, current, report)?;
        while let Step::Batch(batch) = step(&mut self.source, self.walk.position, end)? {
            if self.told.len() == REMEMBERED_MAX {
                self.told.pop_front();
            }
            let position = self.walk.position;
            self.told
                .push_back((position, batch.size_bytes, batch.stored_crc()));
            self.named(current, report)?;
            self.walk.batch(&mut self.source, &batch, report)?;
        }
        match step(&mut self.source, self.walk.position, end)? {
            Step::Broken(damage) if !self.is_unwritten(end)? => {
                self.named(current, report)?;
                self.walk.run(&mut self.source, end, report).map(|_| drop(damage))
            }
            _ => Ok(()),
        }
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
    fn still_there(&mut self) -> Read<bool> {
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
        while !self.still_there()? {
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
    fn is_unwritten(&mut self, end: u64) -> Read<bool> {
        let position = self.walk.position;
        let size = usize::try_from(end - position).unwrap_or(usize::MAX).min(4096);
        Ok(self
            .source
            .bytes_at(position, size)?
            .iter()
            .all(|byte| *byte == 0))
    }
}
