//! [`Report`]: where the walks over files bring what they find. It counts, complains and knows when it is enough; how
//! things look is a [`Printer`]'s: Kafka's lines, JSON, or a summary.
//!
//! Damage is told on standard error, behind what came before it, whatever the printer makes of it.

use std::fmt::Arguments;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use milena_engine::error::IoError;
use serde::Serialize;

use super::raw_batch::RawBatch;
use super::selection::Selected;
use super::thing::{Damage, RecordThing, Thing};

/// Why a dump ended.
#[derive(Debug)]
pub(super) enum Failure {
    /// A file could not be read; another may be.
    Input(IoError),
    /// Nothing can be told any more.
    Output(io::Error),
    /// As many things were told as were asked for.
    Enough,
}

impl From<IoError> for Failure {
    fn from(error: IoError) -> Failure {
        Failure::Input(error)
    }
}

/// What a file gives.
pub(super) type Read<T> = Result<T, IoError>;

pub(super) type Dumped = Result<(), Failure>;

/// Why the records of a batch were not walked to their end.
#[derive(Debug)]
pub(super) enum Stopped {
    Failed(Failure),
    Broken(Damage),
    /// What was looked for was there.
    Seen,
}

impl From<Damage> for Stopped {
    fn from(damage: Damage) -> Stopped {
        Stopped::Broken(damage)
    }
}

impl From<Failure> for Stopped {
    fn from(failure: Failure) -> Stopped {
        Stopped::Failed(failure)
    }
}

/// Pairs of numbers that do not fit each other, in the order in which Kafka's tool tells them at its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Mismatch {
    /// An offset of an index, and the last of the batch that it points at.
    IndexedOffset,
    /// A timestamp of a time index, and the largest of the batch.
    IndexedTimestamp,
    /// A timestamp of a time index, and the one before it.
    TimestampOrder,
    /// An offset of a time index, and what the log has in its place, or −1.
    OffsetNotFound,
    /// The offset of a record, and that of the next.
    NonConsecutive,
}

/// Why a record could not be told as asked.
#[derive(Debug)]
pub(super) enum Unsaid {
    Output(io::Error),
    /// It was told that it is there; what is in it is not what it should be.
    Content(Damage),
}

impl From<io::Error> for Unsaid {
    fn from(error: io::Error) -> Unsaid {
        Unsaid::Output(error)
    }
}

/// What becomes of the things.
pub(super) trait Printer {
    /// What follows is of this file.
    fn begin(&mut self, file: &Selected) -> io::Result<()>;
    fn tell(&mut self, thing: &Thing<'_>) -> io::Result<()>;
    fn record(&mut self, record: &RecordThing<'_>) -> Result<(), Unsaid>;
    fn damage(&mut self, path: &Path, position: Option<u64>, damage: &Damage) -> io::Result<()>;
    fn mismatch(&mut self, path: &Path, kind: Mismatch, pair: (i64, i64)) -> io::Result<()>;
    /// What was told so far is out.
    fn flush(&mut self) -> io::Result<()>;
    /// What is told at the end.
    fn finish(&mut self) -> io::Result<()>;
}

/// See the top of the file.
pub(super) struct Report {
    printer: Box<dyn Printer>,
    path: PathBuf,
    /// Places where Kafka's tool dies.
    pub(super) faults: usize,
    /// How many more things are asked for.
    left: Option<u64>,
    counted: Counted,
    /// Whether a file is not told before something in it is.
    is_lazy: bool,
    untold: Option<Untold>,
}

/// A file of which nothing was told yet.
struct Untold {
    file: Selected,
    /// Of a segment.
    base_offset: Option<i64>,
}

/// The things that a limit counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Counted {
    Records,
    Batches,
    /// Of files that are no logs.
    Entries,
}

impl Report {
    /// `is_lazy`: nothing is told of a file in which nothing is asked for.
    pub(super) fn new(printer: Box<dyn Printer>, limit: Option<u64>, is_lazy: bool) -> Report {
        Report {
            printer,
            path: PathBuf::new(),
            faults: 0,
            left: limit,
            counted: Counted::Records,
            is_lazy,
            untold: None,
        }
    }

    pub(super) fn limit_to(&mut self, counted: Counted) {
        self.counted = counted;
    }

    pub(super) fn begin(&mut self, file: &Selected) -> Dumped {
        self.path.clone_from(&file.path);
        if self.is_lazy {
            self.untold = Some(Untold {
                file: file.clone(),
                base_offset: None,
            });
            return Ok(());
        }
        self.printer.begin(file).map_err(Failure::Output)
    }

    /// Tells of the file that something in it is told.
    fn open(&mut self) -> Dumped {
        let Some(untold) = self.untold.take() else {
            return Ok(());
        };
        self.printer.begin(&untold.file).map_err(Failure::Output)?;
        match untold.base_offset {
            Some(base_offset) => self.printer.tell(&Thing::SegmentStart { base_offset }),
            None => Ok(()),
        }
        .map_err(Failure::Output)
    }

    pub(super) fn tell(&mut self, thing: Thing<'_>) -> Dumped {
        if let (Thing::SegmentStart { base_offset }, Some(untold)) = (&thing, &mut self.untold) {
            untold.base_offset = Some(*base_offset);
            return Ok(());
        }
        self.open()?;
        self.printer.tell(&thing).map_err(Failure::Output)?;
        let is_counted = match thing {
            Thing::SegmentStart { .. } | Thing::TrailingBytes { .. } => false,
            Thing::Batch(_) => self.counted == Counted::Batches,
            _ => self.counted == Counted::Entries,
        };
        if is_counted { self.count() } else { Ok(()) }
    }

    pub(super) fn record(&mut self, record: &RecordThing<'_>) -> Result<(), Stopped> {
        self.open()?;
        match self.printer.record(record) {
            Ok(()) if self.counted == Counted::Records => self.count().map_err(Stopped::Failed),
            Ok(()) => Ok(()),
            Err(Unsaid::Output(error)) => Err(Stopped::Failed(Failure::Output(error))),
            Err(Unsaid::Content(damage)) => Err(Stopped::Broken(damage)),
        }
    }

    fn count(&mut self) -> Dumped {
        if let Some(left) = &mut self.left {
            *left = left.saturating_sub(1);
            if *left == 0 {
                return Err(Failure::Enough);
            }
        }
        Ok(())
    }

    /// Tells on standard error, behind the lines so far. Nobody may be reading that.
    pub(super) fn say(&mut self, text: Arguments<'_>) -> Dumped {
        self.flush()?;
        let _ = writeln!(io::stderr(), "{text}");
        Ok(())
    }

    /// The same of the present file.
    pub(super) fn remark(&mut self, text: Arguments<'_>) -> Dumped {
        let path = self.path.display().to_string();
        self.say(format_args!("milena: {path}: {text}"))
    }

    /// Damage at which Kafka's tool dies.
    pub(super) fn fault(&mut self, position: u64, damage: impl Into<Damage>) -> Dumped {
        self.faults += 1;
        self.open()?;
        let damage = damage.into();
        let told = self.printer.damage(&self.path, Some(position), &damage);
        told.map_err(Failure::Output)?;
        self.remark(format_args!("byte {position}: {damage}"))
    }

    /// Damage at which it does not, in these words of standard error.
    pub(super) fn flaw(&mut self, damage: impl Into<Damage>, text: Arguments<'_>) -> Dumped {
        self.open()?;
        let told = self.printer.damage(&self.path, None, &damage.into());
        told.map_err(Failure::Output)?;
        self.say(text)
    }

    /// A file that cannot be read, at which Kafka's tool dies too.
    pub(super) fn unreadable(&mut self, path: &Path, what: impl ToString) -> Dumped {
        self.faults += 1;
        let what = what.to_string();
        let told = self.printer.damage(path, None, &Damage::from(what.as_str()));
        told.map_err(Failure::Output)?;
        self.say(format_args!("milena: {what}"))
    }

    pub(super) fn mismatch(&mut self, kind: Mismatch, first: i64, second: i64) -> Dumped {
        self.open()?;
        let told = self.printer.mismatch(&self.path, kind, (first, second));
        told.map_err(Failure::Output)
    }

    pub(super) fn flush(&mut self) -> Dumped {
        self.printer.flush().map_err(Failure::Output)
    }

    pub(super) fn finish(&mut self) -> Dumped {
        self.printer.finish().map_err(Failure::Output)
    }
}

/// A batch of which the records cannot be looked at.
pub(super) fn unknown_codec(id: u8) -> Damage {
    Damage::found(format_args!("compression codec {id}"), "0 to 4")
}

/// A batch that is larger than may be held in memory.
pub(super) fn too_large(batch: &RawBatch, limit: usize) -> Damage {
    Damage::found(
        format_args!("a batch of {} bytes", batch.size_bytes),
        format_args!("at most {limit}; its records are not read, unless --max-batch-size allows for it"),
    )
}
