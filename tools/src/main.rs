//! The one binary, `milena`: its subcommands are the ways to start a broker, to look into its files, and to ask and
//! change a cluster of any broker that speaks Kafka's protocol.
//!
//! This file knows the command line and the exit codes; each subcommand is a file beside it. Exit codes are
//! part of the interface: service managers and scripts tell by them whether starting again can help.

use std::ffi::OsString;
use std::fmt::Display;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};

use bench::BenchArgs;
use brokers::BrokersArgs;
use configs::ConfigsArgs;
use consume::ConsumeArgs;
use generate::{CompletionsArgs, ManArgs};
use groups::GroupsArgs;
use log_dirs::LogDirsArgs;
use log_dump::LogDumpArgs;
use offsets::OffsetsArgs;
use produce::ProduceArgs;
use topics::TopicsArgs;

mod bench;
mod brokers;
mod cluster_args;
mod configs;
mod confirmation;
mod consume;
mod escapes;
mod export_znodes;
mod generate;
mod groups;
mod log_dirs;
mod log_dump;
mod moment;
mod nearest;
mod offsets;
mod output;
mod partition_offsets;
mod partitions;
mod patterns;
mod produce;
mod record_json;
mod release;
mod small_file;
mod start;
mod topics;

/// How the process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    /// Done, or stopped by SIGTERM, SIGINT or SIGHUP with everything written.
    Success = 0,
    /// The command line or the settings are wrong; starting again cannot help.
    Usage = 1,
    /// There is no broker: it cannot start here, because a port or a directory is taken, missing, damaged or another
    /// broker's; or none that was asked for can be reached.
    NoBroker = 2,
    /// The broker ran, and a failure that it cannot live with stopped it, or it could not write everything when it was
    /// stopped; or a file is damaged; or a broker refused what was asked.
    Failed = 3,
    /// Ctrl-C, as shells report it, of a command that would have come to an end by itself.
    Interrupted = 130,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit as u8)
    }
}

const EXAMPLES: &str = "\
Examples:
  milena start                                   listen on 127.0.0.1:9092, keep the data in ./milena-data
  milena topics create orders --partitions 3     ask any cluster: -b host:port, $MILENA_BOOTSTRAP_SERVER, 127.0.0.1:9092
  milena topics describe orders
  milena groups describe billing                 lag of each partition, and who reads it
  milena groups reset billing --topic orders --to-earliest
  milena configs set --topic orders retention.ms=86400000
  milena produce orders -K : < orders.txt        the key of each line stands before the first colon
  milena consume orders --from earliest --until end
  milena offsets orders
  milena logdirs --by topic                      what fills the disks
  milena brokers
  milena log-dump --deep-iteration --files t-0/00000000000000000000.log
                                                 every batch and record of a segment, as kafka-dump-log.sh prints them
  milena help topics create                      every command has examples
  milena bench produce                           how fast a broker on localhost:9092 takes records, and at what cost

Exit codes:
  0  done, or stopped cleanly by SIGTERM, SIGINT or SIGHUP
  1  the command line or a setting is wrong
  2  the broker cannot start: a port or a log directory is taken, missing or damaged; no broker can be reached
  3  the broker stopped itself after a failure, or could not write everything when it was stopped;
     log-dump found damage at which Kafka's tool would die; a broker refused what was asked
  130  ended by Ctrl-C";

const START_EXAMPLES: &str = "\
Examples:
  milena start                                   listen on 127.0.0.1:9092, keep the data in ./milena-data
  milena start server.properties                 take the settings from a file, under Kafka's names
  milena start server.properties --override log.dirs=/data/kafka --override num.partitions=3
  KAFKA_LISTENERS=PLAINTEXT://:9092 milena start settings from the environment, as in Apache's images
  milena export-znodes server.properties         what a fresh ZooKeeper needs to let Kafka open the directory";

const EXPORT_EXAMPLES: &str = "\
Examples:
  milena export-znodes server.properties --output znodes.txt
  zookeeper-shell.sh h121:2181 < znodes.txt      load them into a fresh ZooKeeper, for Kafka
  milena export-znodes cluster.properties --to-zookeeper --dry-run
                                                 what moving into the ZooKeeper of zookeeper.connect would write
  milena export-znodes cluster.properties --to-zookeeper
  milena start cluster.properties                the node is now a broker of that cluster";

/// One small binary that takes the place of an Apache Kafka 2.7.2 broker, and the tools for any cluster of them.
#[derive(Debug, Parser)]
#[command(name = "milena", version, after_help = EXAMPLES)]
#[command(subcommand_required = true, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a broker until SIGTERM or SIGINT.
    #[command(after_help = START_EXAMPLES)]
    Start(StartArgs),
    /// Move a stopped broker that stood alone into ZooKeeper, or write what a fresh ZooKeeper needs (cluster id,
    /// topics, settings, producer id block) for Kafka to open its log directories.
    #[command(after_help = EXPORT_EXAMPLES)]
    ExportZnodes(ExportArgs),
    /// Print what the files of a partition hold, as Kafka's kafka-dump-log.sh does.
    LogDump(LogDumpArgs),
    /// List, describe, create, alter and delete topics.
    Topics(TopicsArgs),
    /// List and describe groups with their lag, reset and delete their offsets.
    Groups(GroupsArgs),
    /// Show and change the settings of topics and brokers.
    Configs(ConfigsArgs),
    /// Show the brokers of a cluster: ids, addresses, racks, the controller, what they serve.
    Brokers(BrokersArgs),
    /// Write records from standard input, files or the command line.
    Produce(ProduceArgs),
    /// Print the records of topics.
    Consume(ConsumeArgs),
    /// Show where partitions begin and end, how many records they hold, or the offset at a time.
    Offsets(OffsetsArgs),
    /// Show what lies in the log directories of each broker, and how large it is.
    #[command(name = "logdirs")]
    LogDirs(LogDirsArgs),
    /// Print what a shell needs to complete this command line.
    Completions(CompletionsArgs),
    /// Write manual pages.
    Man(ManArgs),
    /// Measure a broker: throughput, latencies, and what it costs; any broker of Kafka's protocol.
    Bench(Box<BenchArgs>),
}

/// Which broker is meant.
#[derive(Debug, Args)]
pub(crate) struct BrokerArgs {
    /// A file of settings under Kafka's names; without one, Milena listens on 127.0.0.1 only and keeps its
    /// data in ./milena-data.
    #[arg(value_name = "server.properties")]
    pub(crate) file: Option<PathBuf>,
    /// A setting that wins over the environment and the file; may be given several times.
    #[arg(long = "override", value_name = "key=value", value_parser = parse_override)]
    pub(crate) overrides: Vec<(String, String)>,
}

#[derive(Debug, Args)]
pub(crate) struct StartArgs {
    #[command(flatten)]
    pub(crate) broker: BrokerArgs,
    /// Settings for topics that are found in the log directories without any: lines of
    /// {"topic":"t","config":{..}}, the output of export-znodes, or of kafka-topics.sh --describe.
    #[arg(long, value_name = "file")]
    pub(crate) import: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    #[command(flatten)]
    pub(crate) broker: BrokerArgs,
    /// The log directories, in place of those of the settings.
    #[arg(long, value_name = "dir,..")]
    pub(crate) log_dirs: Option<String>,
    /// zookeeper-shell: commands for zookeeper-shell.sh; json: one znode a line, for scripts.
    #[arg(long, value_enum, default_value = "zookeeper-shell")]
    pub(crate) format: ExportFormat,
    /// Where to write; standard output if absent.
    #[arg(long, value_name = "file")]
    pub(crate) output: Option<PathBuf>,
    /// Write nothing out: make the node a broker of the cluster of zookeeper.connect, which may be an empty path.
    /// Interrupted, it is run again.
    #[arg(long, conflicts_with_all = ["format", "output"])]
    pub(crate) to_zookeeper: bool,
    /// Print what --to-zookeeper would write.
    #[arg(long, requires = "to_zookeeper")]
    pub(crate) dry_run: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ExportFormat {
    ZookeeperShell,
    Json,
}

/// `key=value`; the value may be empty and may hold further `=`.
fn parse_override(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.trim().is_empty() => Ok((key.trim().to_owned(), value.to_owned())),
        _ => Err(format!("found {text:?}, expected key=value")),
    }
}

/// Tells on standard error what is wrong. Nobody may be reading that any more; the exit code still says it.
pub(crate) fn complain(message: impl Display) {
    let _ = writeln!(std::io::stderr(), "milena: {message}");
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse_from(words()) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are asked for, everything else is a mistake; clap suggests what was meant.
            // Nobody may be reading the text any more, which changes nothing.
            let _ = error.print();
            return match error.kind() {
                ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => Exit::Success.into(),
                _ => Exit::Usage.into(),
            };
        }
    };
    match cli.command {
        Command::Start(arguments) => start::run(&arguments).into(),
        Command::ExportZnodes(arguments) => export_znodes::run(&arguments).into(),
        Command::LogDump(arguments) => log_dump::run(&arguments).into(),
        Command::Produce(arguments) => produce::run(&arguments).into(),
        Command::Consume(arguments) => consume::run(&arguments).into(),
        Command::Topics(arguments) => topics::run(&arguments).into(),
        Command::Groups(arguments) => groups::run(&arguments).into(),
        Command::Configs(arguments) => configs::run(&arguments).into(),
        Command::Brokers(arguments) => brokers::run(&arguments).into(),
        Command::Offsets(arguments) => offsets::run(&arguments).into(),
        Command::LogDirs(arguments) => log_dirs::run(&arguments).into(),
        Command::Completions(arguments) => generate::completions(&arguments, Cli::command()).into(),
        Command::Man(arguments) => generate::man(&arguments, Cli::command()).into(),
        Command::Bench(arguments) => bench::run(&arguments).into(),
    }
}

/// The command line; under the name of one of Kafka's scripts that of the subcommand which takes its place.
fn words() -> Vec<OsString> {
    let mut words: Vec<OsString> = std::env::args_os().collect();
    let name = words.first().map(Path::new).and_then(Path::file_stem);
    if name.is_some_and(|name| name == "kafka-dump-log") {
        words.insert(1, "log-dump".into());
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_start_takes_a_file_overrides_and_an_import() {
        let line =
            "milena start a.properties --override a=1 --override b=c=d --override e= --import topics.json";
        let Command::Start(arguments) = Cli::try_parse_from(line.split(' ')).unwrap().command else {
            panic!("start is parsed as something else")
        };
        assert_eq!(arguments.broker.file, Some(PathBuf::from("a.properties")));
        let overrides: Vec<_> = arguments
            .broker
            .overrides
            .iter()
            .map(|(k, v)| (k.as_str(), v.as_str()))
            .collect();
        assert_eq!(overrides, [("a", "1"), ("b", "c=d"), ("e", "")]);
        assert_eq!(arguments.import, Some(PathBuf::from("topics.json")));
    }

    #[test]
    fn an_export_takes_directories_a_format_and_a_file() {
        let line = "milena export-znodes --log-dirs /a,/b --format json --output z.json";
        let Command::ExportZnodes(arguments) = Cli::try_parse_from(line.split(' ')).unwrap().command else {
            panic!("export-znodes is parsed as something else")
        };
        assert_eq!(arguments.log_dirs.as_deref(), Some("/a,/b"));
        assert_eq!(arguments.format, ExportFormat::Json);
        assert_eq!(arguments.output, Some(PathBuf::from("z.json")));
        assert!(Cli::try_parse_from("milena export-znodes --to-zookeeper --dry-run".split(' ')).is_ok());
        for line in [
            "milena export-znodes --dry-run",
            "milena export-znodes --to-zookeeper --output z",
        ] {
            assert!(Cli::try_parse_from(line.split(' ')).is_err(), "{line}");
        }
    }

    #[test]
    fn a_dump_takes_files_or_a_subcommand() {
        for line in [
            "milena log-dump --files a.log,b.log --deep-iteration",
            "milena log-dump a.log",
            "milena log-dump verify a b",
            "milena log-dump repair a",
        ] {
            let parsed = Cli::try_parse_from(line.split(' '));
            assert!(parsed.is_ok(), "{line}: {}", parsed.unwrap_err());
        }
        for line in [
            "milena log-dump",
            "milena log-dump verify",
            "milena log-dump verify --files a",
        ] {
            assert!(Cli::try_parse_from(line.split(' ')).is_err(), "{line}");
        }
    }

    #[test]
    fn a_mistyped_subcommand_or_override_is_answered_with_what_was_meant() {
        for (line, expected) in [
            ("milena strat", "start"),
            ("milena export-znode", "export-znodes"),
            ("milena start --overide a=1", "--override"),
            ("milena start --override a", "expected key=value"),
        ] {
            let error = Cli::try_parse_from(line.split(' ')).unwrap_err();
            assert!(error.to_string().contains(expected), "{line}: {error}");
        }
    }
}
