//! `milena log-dump`: what the files of a partition hold, line for line what Kafka 2.7.2's `kafka-dump-log.sh` prints.
//!
//! Called as `kafka-dump-log.sh` it is that script. Standard output is Kafka's, byte for byte, up to where Kafka's tool
//! dies of damage; this one tells on standard error what is wrong and where, goes on, and ends with code 3. Memory is
//! that of the largest batch, whatever a file's size. Source: `DumpLogSegments.scala`.
//!
//! **Deviation:** text is printed as UTF-8 whatever the locale; a file that is not there is told of and the next one is dumped.

use std::fmt::Arguments;
use std::io::{self, BufWriter, StdoutLock, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use milena_engine::error::IoError;
use milena_engine::io::{Backend, Io, open};

use crate::{Exit, complain};

mod decoder;
mod index;
mod java_text;
mod raw_batch;
mod raw_message;
mod scala_order;
mod segment;
mod snapshot;
mod source;
mod transaction_record;

use decoder::{Decoder, MessageParser};

const STRING_DECODER: &str = "kafka.serializer.StringDecoder";

#[derive(Debug, Args)]
pub(crate) struct LogDumpArgs {
    /// The files to dump, with commas between them: .log, .index, .timeindex, .txnindex, .snapshot.
    #[arg(
        long,
        value_name = "file1,file2,..",
        value_delimiter = ',',
        required_unless_present = "paths"
    )]
    files: Vec<PathBuf>,
    /// Further files.
    #[arg(value_name = "file")]
    paths: Vec<PathBuf>,
    /// Print keys and values too; any decoder asks for that.
    #[arg(long)]
    print_data_log: bool,
    /// Print every record, not batches alone.
    #[arg(long)]
    deep_iteration: bool,
    /// Check an index against its log without printing it.
    #[arg(long)]
    verify_index_only: bool,
    /// Check of an index only what a broker checks when it starts.
    #[arg(long)]
    index_sanity_check: bool,
    /// Bytes of the log that are looked at behind an index entry.
    #[arg(long, value_name = "bytes", default_value_t = 5 << 20)]
    max_message_size: u32,
    /// How keys are printed: kafka.serializer.StringDecoder, IntegerDecoder, LongDecoder or DefaultDecoder.
    #[arg(long, value_name = "class", num_args = 0..=1, default_missing_value = STRING_DECODER, value_parser = Decoder::from_class)]
    key_decoder_class: Option<Decoder>,
    /// How values are printed: as for keys.
    #[arg(long, value_name = "class", num_args = 0..=1, default_missing_value = STRING_DECODER, value_parser = Decoder::from_class)]
    value_decoder_class: Option<Decoder>,
    /// The records are those of __consumer_offsets.
    #[arg(long)]
    offsets_decoder: bool,
    /// The records are those of __transaction_state.
    #[arg(long)]
    transaction_log_decoder: bool,
}

impl LogDumpArgs {
    fn parser(&self) -> Option<MessageParser> {
        if self.offsets_decoder {
            Some(MessageParser::Offsets)
        } else if self.transaction_log_decoder {
            Some(MessageParser::Transactions)
        } else if self.print_data_log
            || self.key_decoder_class.is_some()
            || self.value_decoder_class.is_some()
        {
            Some(MessageParser::Decoders {
                key: self.key_decoder_class.unwrap_or(Decoder::Text),
                value: self.value_decoder_class.unwrap_or(Decoder::Text),
            })
        } else {
            None
        }
    }
}

pub(crate) fn run(arguments: &LogDumpArgs) -> Exit {
    let mut report = Report {
        out: BufWriter::with_capacity(1 << 16, io::stdout().lock()),
        faults: 0,
        summary: Default::default(),
    };
    let io = match open(Backend::Syscall) {
        Ok(io) => io,
        Err(refused) => {
            complain(refused);
            return Exit::Failed;
        }
    };
    match dump_all(arguments, &*io, &mut report).and_then(|()| report.finish()) {
        Ok(()) if report.faults == 0 => Exit::Success,
        Ok(()) => Exit::Failed,
        // Whoever read has enough.
        Err(Failure::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => Exit::Success,
        Err(Failure::Output(error)) => {
            complain(format_args!("standard output: {error}"));
            Exit::Failed
        }
        Err(Failure::Input(error)) => {
            complain(error);
            Exit::Failed
        }
    }
}

fn dump_all(arguments: &LogDumpArgs, io: &dyn Io, report: &mut Report) -> Dumped {
    let parser = arguments.parser();
    let of_log = segment::Options {
        deep: arguments.deep_iteration || parser.is_some(),
        parser,
    };
    let of_index = index::Options {
        sanity_only: arguments.index_sanity_check,
        verify_only: arguments.verify_index_only,
        max_message_size: arguments.max_message_size.into(),
    };
    for path in arguments.files.iter().chain(&arguments.paths) {
        // As `java.io.File` writes it.
        let path: PathBuf = path.components().collect();
        report.line(format_args!("Dumping {}", path.display()))?;
        let dumped = match path.extension().unwrap_or_default().to_str() {
            Some("log") => segment::dump(io, &path, &of_log, report),
            Some("index") => index::dump_offset_index(io, &path, of_index, report),
            Some("timeindex") => index::dump_time_index(io, &path, of_index, report),
            Some("txnindex") => index::dump_transaction_index(io, &path, report),
            Some("snapshot") => snapshot::dump(io, &path, report),
            _ => report.say(format_args!("Ignoring unknown file {}", path.display())),
        };
        match dumped {
            Err(Failure::Input(error)) => report.unreadable(&error)?,
            other => other?,
        }
    }
    Ok(())
}

/// The offset in a file's name; Kafka takes what stands before the first dot.
fn base_offset_of(path: &Path) -> Option<i64> {
    path.file_name()?.to_str()?.split('.').next()?.parse().ok()
}

/// Why a dump ended.
#[derive(Debug)]
enum Failure {
    /// A file could not be read; another may be.
    Input(IoError),
    /// Nothing can be told any more.
    Output(io::Error),
}

impl From<IoError> for Failure {
    fn from(error: IoError) -> Failure {
        Failure::Input(error)
    }
}

/// What a file gives.
type Read<T> = Result<T, IoError>;

type Dumped = Result<(), Failure>;

/// What is told once all files are dumped, in this order.
#[derive(Clone, Copy, Debug)]
enum Summary {
    IndexMismatch,
    TimestampMismatch,
    OutOfOrderTimestamp,
    OffsetNotFound,
    NonConsecutive,
}

/// Where lines go, and what is to be said at the end.
struct Report {
    out: BufWriter<StdoutLock<'static>>,
    /// Places where Kafka's tool dies.
    faults: usize,
    summary: [Vec<String>; 5],
}

impl Report {
    fn text(&mut self, text: Arguments<'_>) -> Dumped {
        self.out.write_fmt(text).map_err(Failure::Output)
    }

    fn line(&mut self, text: Arguments<'_>) -> Dumped {
        self.text(format_args!("{text}\n"))
    }

    /// Tells on standard error, behind the lines so far. Nobody may be reading that.
    fn say(&mut self, text: Arguments<'_>) -> Dumped {
        self.out.flush().map_err(Failure::Output)?;
        let _ = writeln!(io::stderr(), "{text}");
        Ok(())
    }

    /// Damage at which Kafka's tool dies.
    fn fault(&mut self, path: &Path, position: u64, what: &str) -> Dumped {
        self.faults += 1;
        self.say(format_args!(
            "milena: {}: byte {position}: {what}",
            path.display()
        ))
    }

    /// A file that cannot be read, at which Kafka's tool dies too.
    fn unreadable(&mut self, error: &IoError) -> Dumped {
        self.faults += 1;
        self.say(format_args!("milena: {error}"))
    }

    /// For the end: a heading with the file, and a line for each pair.
    fn remember(&mut self, kind: Summary, path: &Path, pairs: impl ExactSizeIterator<Item = (i64, i64)>) {
        if pairs.len() == 0 {
            return;
        }
        // As `File.getAbsolutePath`.
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
        let path = path.display();
        let lines = &mut self.summary[kind as usize];
        lines.push(match kind {
            Summary::IndexMismatch => format!("Mismatches in :{path}"),
            Summary::TimestampMismatch => format!("Found timestamp mismatch in :{path}"),
            Summary::OutOfOrderTimestamp => format!("Found out of order timestamp in :{path}"),
            Summary::OffsetNotFound => "The following indexed offsets are not found in the log.".to_owned(),
            Summary::NonConsecutive => format!("Non-consecutive offsets in {path}"),
        });
        lines.extend(pairs.map(|(first, second)| match kind {
            Summary::IndexMismatch => format!("  Index offset: {first}, log offset: {second}"),
            Summary::TimestampMismatch => format!("  Index timestamp: {first}, log timestamp: {second}"),
            Summary::OutOfOrderTimestamp => {
                format!("  Index timestamp: {first}, Previously indexed timestamp: {second}")
            }
            Summary::OffsetNotFound => format!("Indexed offset: {first}, found log offset: {second}"),
            Summary::NonConsecutive => format!("  {first} is followed by {second}"),
        }));
    }

    fn finish(&mut self) -> Dumped {
        for line in std::mem::take(&mut self.summary).concat() {
            self.say(format_args!("{line}"))?;
        }
        self.out.flush().map_err(Failure::Output)
    }
}
