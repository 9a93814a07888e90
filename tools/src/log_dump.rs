//! `milena log-dump`: what the files of a partition hold, line for line what Kafka 2.7.2's `kafka-dump-log.sh` prints,
//! and more.
//!
//! Called as `kafka-dump-log.sh` it is that script. Standard output is Kafka's, byte for byte, up to where Kafka's tool
//! dies of damage; this one tells on standard error what is wrong and where, goes on, and ends with code 3. Memory is
//! that of the largest batch up to a limit, whatever a file's size. Source: `DumpLogSegments.scala`.
//!
//! A walk over a kind of file (`segment`, `index`, `snapshot`, `checkpoint`) tells things (`thing`) to a `report`,
//! which gives them to a printer: `text`, `json` or `summary`. Which files: `selection`; which records: `filter`,
//! with `seek`.
//!
//! **Deviation:** text is printed as UTF-8 whatever the locale; a file that is not there is told of and the next one is
//! dumped. Of mismatches, which Kafka's tool lists at its end, 100,000 are listed and the further ones counted. Batches above
//! `--max-batch-size` are told without their records.

use std::io;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use milena_engine::io::{Backend, Io, open};

use crate::moment::time_ms;
use crate::{Exit, complain};

mod checkpoint;
mod control;
mod decoder;
mod diff;
mod filter;
mod follow;
mod index;
mod java_text;
mod json;
mod raw_batch;
mod raw_message;
mod records;
mod repair;
mod report;
mod scala_order;
mod seek;
mod segment;
mod selection;
mod snapshot;
mod source;
mod summary;
#[cfg(test)]
mod test_directory;
mod text;
mod thing;
mod transaction_record;
mod verify;

use decoder::{Decoder, MessageParser};
use filter::Filter;
use report::{Counted, Dumped, Failure, Printer, Report};
use selection::{FileKind, Selected};

const STRING_DECODER: &str = "kafka.serializer.StringDecoder";

/// The files that can be dumped.
const KINDS: &str = "one of Kafka's: .log, .index, .timeindex, .txnindex, .snapshot, .checkpoint, an offset checkpoint, \
    leader-epoch-checkpoint, meta.properties, partition.metadata or .kafka_cleanshutdown";

const EXAMPLES: &str = "\
Examples:
  milena log-dump --deep-iteration --files t-0/00000000000000000000.log
                                               as kafka-dump-log.sh prints it, with its options
  milena log-dump /data/orders-0               all files of a partition; of a log directory, all partitions
  milena log-dump '/data/orders-*/*.log' --print-data-log --from-offset 1000 --to-offset 1010
  milena log-dump /data/orders-0 --from-time -1h --key customer-17 --print-data-log
  milena log-dump --json --print-data-log /data/orders-0 | jq -r 'select(.type == \"record\") | .value'
  milena log-dump --summary /data              offsets, times, codecs, keys and transactions at a glance
  milena log-dump -f --print-data-log /data/orders-0
                                               what is appended from now on, until Ctrl-C
  milena log-dump --offsets-decoder --json /data/__consumer_offsets-7
  find /data -name '*.log' -mmin -60 -exec milena log-dump --summary {} +
                                               segments that were written to in the last hour
  milena log-dump diff /data/orders-0 /mnt/other/orders-0
                                               do two replicas hold the same records?

Exit codes: 0 done; 1 a wrong command line; 3 a file is damaged or cannot be read, or diff found a difference.";

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true, after_help = EXAMPLES)]
pub(crate) struct LogDumpArgs {
    #[command(subcommand)]
    command: Option<LogDumpCommand>,
    #[command(flatten)]
    dump: DumpArgs,
}

#[derive(Debug, Subcommand)]
enum LogDumpCommand {
    /// Check every file of partitions or log directories, of any Kafka from 0.8 on.
    Verify(verify::VerifyArgs),
    /// Put damaged partitions in order so that a broker opens them; without --apply, say what would be done.
    Repair(repair::RepairArgs),
    /// Compare two replicas: two directories of a partition, or two log directories.
    Diff(diff::DiffArgs),
}

#[derive(Debug, Args)]
struct DumpArgs {
    /// Files, directories of partitions, log directories, or patterns like '/data/orders-*/*.log'.
    #[arg(value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// The files to dump, with commas between them, in Kafka's spelling: .log, .index, .timeindex, .txnindex,
    /// .snapshot.
    #[arg(
        long,
        value_name = "file1,file2,..",
        value_delimiter = ',',
        required_unless_present = "paths"
    )]
    files: Vec<PathBuf>,
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
    /// The largest batch that is read for its records; it bounds the memory that is used.
    #[arg(long, value_name = "bytes", default_value_t = MAX_BATCH_SIZE)]
    max_batch_size: u32,
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
    /// One JSON object a line; docs/log-dump.md has the schema. Records have their contents with them.
    #[arg(long)]
    json: bool,
    /// For each segment and partition what is in it, in place of the lines; with --json for scripts.
    #[arg(long, conflicts_with = "follow")]
    summary: bool,
    /// Print what is appended from now on, or from where a filter begins, until Ctrl-C.
    #[arg(long, short)]
    follow: bool,
    #[command(flatten)]
    filter: FilterArgs,
    /// End after so many records; batches where records are not printed; entries where no log is among the files.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
}

/// Which records are asked for. A batch is printed if one of its records is.
#[derive(Debug, Args)]
#[command(next_help_heading = "Filters")]
struct FilterArgs {
    /// The first offset.
    #[arg(long, value_name = "offset")]
    from_offset: Option<i64>,
    /// The last offset.
    #[arg(long, value_name = "offset")]
    to_offset: Option<i64>,
    /// The earliest timestamp: ms since 1970, RFC 3339, or a while ago like -90s, -1h30m, -7d.
    #[arg(long, value_name = "time", value_parser = time_ms, allow_hyphen_values = true)]
    from_time: Option<i64>,
    /// The latest timestamp.
    #[arg(long, value_name = "time", value_parser = time_ms, allow_hyphen_values = true)]
    to_time: Option<i64>,
    /// The key, exactly; every record is looked at then.
    #[arg(long, value_name = "text", conflicts_with = "key_hex")]
    key: Option<String>,
    /// The same in hexadecimal digits.
    #[arg(long, value_name = "digits", value_parser = Hex::parse)]
    key_hex: Option<Hex>,
    /// The producer that appended it.
    #[arg(long, value_name = "id")]
    producer_id: Option<i64>,
}

/// Bytes in hexadecimal digits.
#[derive(Clone, Debug)]
struct Hex(Vec<u8>);

impl Hex {
    fn parse(text: &str) -> Result<Hex, String> {
        let bytes = data_encoding::HEXLOWER_PERMISSIVE.decode(text.as_bytes());
        bytes
            .map(Hex)
            .map_err(|_| format!("found {text:?}, expected an even number of hexadecimal digits"))
    }
}

/// 64 MiB: far above what brokers let in unless they are told to.
const MAX_BATCH_SIZE: u32 = 64 << 20;

impl DumpArgs {
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

    fn printer(&self) -> Box<dyn Printer> {
        match (self.summary, self.json) {
            (true, is_json) => Box::new(summary::SummaryPrinter::new(is_json, self.filter().is_active())),
            (false, true) => Box::new(json::JsonPrinter::new(self.parser())),
            (false, false) => Box::new(text::TextPrinter::new(self.parser())),
        }
    }

    fn filter(&self) -> Filter {
        let of = &self.filter;
        let key = of.key.clone().map(String::into_bytes);
        Filter {
            from_offset: of.from_offset,
            to_offset: of.to_offset,
            from_time: of.from_time,
            to_time: of.to_time,
            key: key.or_else(|| of.key_hex.clone().map(|hex| hex.0)),
            producer_id: of.producer_id,
        }
    }

    fn of_logs(&self) -> segment::Options {
        let filter = self.filter();
        segment::Options {
            deep: self.deep_iteration || self.summary || filter.needs_records() || self.parser().is_some(),
            filter,
            max_batch_size: self.max_batch_size as usize,
            allows_space_ahead: self.summary,
        }
    }
}

impl FilterArgs {
    /// Bounds between which nothing can lie.
    fn reversed(&self) -> Option<String> {
        let text = |name: &str, bounds: (Option<i64>, Option<i64>)| match bounds {
            (Some(from), Some(to)) if from > to => Some(format!(
                "--from-{name} {from} lies behind --to-{name} {to}: nothing is between them"
            )),
            _ => None,
        };
        text("offset", (self.from_offset, self.to_offset))
            .or_else(|| text("time", (self.from_time, self.to_time)))
    }
}

pub(crate) fn run(arguments: &LogDumpArgs) -> Exit {
    let io = match open(Backend::Syscall) {
        Ok(io) => io,
        Err(refused) => {
            complain(refused);
            return Exit::Failed;
        }
    };
    match &arguments.command {
        Some(LogDumpCommand::Verify(of_verify)) => verify::run(of_verify),
        Some(LogDumpCommand::Repair(of_repair)) => repair::run(of_repair),
        Some(LogDumpCommand::Diff(of_diff)) => diff::run(of_diff, &*io),
        None => dump(&arguments.dump, &*io),
    }
}

fn dump(arguments: &DumpArgs, io: &dyn Io) -> Exit {
    if let Some(reversed) = arguments.filter.reversed() {
        complain(reversed);
        return Exit::Usage;
    }
    let of_logs = arguments.of_logs();
    let mut report = Report::new(arguments.printer(), arguments.limit, of_logs.filter.is_active());
    report.limit_to(if of_logs.deep {
        Counted::Records
    } else {
        Counted::Batches
    });
    let dumped = if arguments.follow {
        follow::run(arguments, &of_logs, io, &mut report)
    } else {
        dump_all(arguments, &of_logs, io, &mut report)
    };
    let dumped = match dumped {
        Err(Failure::Enough) => Ok(()),
        other => other,
    };
    end(dumped.and_then(|()| report.finish()), report.faults == 0)
}

/// The exit code, after a complaint where one is due.
fn end(done: Dumped, is_sound: bool) -> Exit {
    match done {
        Ok(()) | Err(Failure::Enough) if is_sound => Exit::Success,
        Ok(()) | Err(Failure::Enough) => Exit::Failed,
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

/// All that is meant: Kafka's spelling first, in its order.
fn chosen(arguments: &DumpArgs, io: &dyn Io, report: &mut Report) -> Result<Vec<Selected>, Failure> {
    let mut wrong = Vec::new();
    let found = selection::select(io, &arguments.paths, |path, what| {
        wrong.push((path.to_path_buf(), what))
    });
    for (path, what) in wrong {
        report.unreadable(&path, what)?;
    }
    let by_kafka = arguments.files.iter().map(|path| Selected::by_kafka(path));
    Ok(by_kafka.chain(found).collect())
}

fn dump_all(arguments: &DumpArgs, of_logs: &segment::Options, io: &dyn Io, report: &mut Report) -> Dumped {
    let of_indexes = index::Options {
        sanity_only: arguments.index_sanity_check,
        verify_only: arguments.verify_index_only,
        max_message_size: arguments.max_message_size.into(),
        max_batch_size: of_logs.max_batch_size,
        filter: of_logs.filter.clone(),
    };
    let files = chosen(arguments, io, report)?;
    if !files
        .iter()
        .any(|file| matches!(file.kind, FileKind::Log | FileKind::Snapshot))
    {
        report.limit_to(Counted::Entries);
    }
    for file in files {
        // A snapshot of KRaft has once more what is in the log.
        let is_counted = file.kind == FileKind::Log || file.kind == FileKind::Snapshot && file.is_named;
        if arguments.summary && !is_counted {
            continue;
        }
        if !of_logs.filter.applies_to(file.kind) {
            if file.is_named {
                let path = file.path.display();
                report.say(format_args!(
                    "milena: {path}: is not dumped, the filters do not apply to such a file"
                ))?;
            }
            continue;
        }
        match dump_file(&file, of_logs, &of_indexes, io, report) {
            Err(Failure::Input(error)) => report.unreadable(&file.path, error)?,
            other => other?,
        }
    }
    Ok(())
}

fn dump_file(
    file: &Selected,
    of_logs: &segment::Options,
    of_indexes: &index::Options,
    io: &dyn Io,
    report: &mut Report,
) -> Dumped {
    let begin = match seek::begin(io, file, &of_logs.filter) {
        Ok(Some(begin)) => begin,
        Ok(None) => return Ok(()),
        // What cannot be read is told of under its name.
        Err(_) => 0,
    };
    report.begin(file)?;
    match file.kind {
        FileKind::Log | FileKind::Snapshot => segment::dump(io, file, begin, of_logs, report),
        FileKind::OffsetIndex => index::dump_offset_index(io, file, of_indexes, report),
        FileKind::TimeIndex => index::dump_time_index(io, file, of_indexes, report),
        FileKind::TransactionIndex => index::dump_transaction_index(io, file, of_indexes, report),
        FileKind::ProducerSnapshot => snapshot::dump(io, file, &of_indexes.filter, report),
        FileKind::OffsetCheckpoint | FileKind::LeaderEpochs => checkpoint::dump(io, file, report),
        FileKind::MetaProperties | FileKind::PartitionMetadata => {
            checkpoint::dump_properties(io, file, report)
        }
        FileKind::CleanShutdown => checkpoint::dump_clean_shutdown(io, file, report),
        FileKind::Unknown if file.is_by_kafka => {
            report.say(format_args!("Ignoring unknown file {}", file.path.display()))
        }
        FileKind::Unknown => {
            let path = file.path.display();
            report.unreadable(
                &file.path,
                format_args!("{path}: found a file of another kind, expected {KINDS}"),
            )
        }
    }
}
