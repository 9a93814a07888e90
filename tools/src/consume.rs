//! `milena consume`: prints records of topics, from a place on, until an end or until Ctrl-C.
//!
//! Promise: records of one partition are printed in order, each once; what arrives is printed at once. Ends are fixed when
//! the command starts, so that `--until end` comes to an end whatever is written meanwhile. No group is joined and no
//! offset committed. Source: `ConsoleConsumer` of 2.7.2, kcat.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::ops::ControlFlow;
use std::time::Duration;

use clap::{Args, ValueEnum};
use milena_engine::units::TopicPartition;
use milena_server::client::{
    Client, Consumer, ConsumerConfig, FetchedPartition, IsolationLevel, OffsetSpec, ReadRange,
};

use crate::cluster_args::{ClusterArgs, CommandError, duration};
use crate::escapes::unescape;
use crate::output::Output;
use crate::patterns::{Internal, NamePattern, chosen};
use crate::{Exit, complain};
use format::Format;
use place::{Ends, Place};

mod format;
mod place;

const EXAMPLES: &str = "\
Examples:
  milena consume greetings                          what is written from now on, until Ctrl-C
  milena consume greetings --from earliest          everything, and what is written from now on
  milena consume greetings --from earliest --until end
  milena consume users --from -5 --until end        the last five records of each partition
  milena consume users --from @-1h --until end      those of the last hour
  milena consume users --from earliest --count 3 -K ': '
                                                    three records with their keys
  milena consume users --from earliest --until end -f '%p/%o %T %k: %s (%h)\\n'
  milena consume users --from earliest --until end --json
  milena consume users --partition 0 --from 10 --until 20
  milena consume 'orders-*' --from earliest --until end -f '%t %s\\n'
                                                    of all topics that fit

Formats (-f): %t topic, %p partition, %o offset, %T timestamp in ms, %k key, %s value, %K and %S their sizes (-1 for
null), %X and %x key and value in hexadecimal, %R size of the value as four bytes, %h headers, %% a percent sign;
\\n, \\t, \\0 and \\xNN as usual.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ConsumeArgs {
    /// Names, globs, or regular expressions between slashes; what fits when the command starts is read.
    #[arg(required = true, value_name = "topic")]
    topics: Vec<NamePattern>,
    /// Only these partitions.
    #[arg(short, long, value_name = "number,..", value_delimiter = ',', value_parser = clap::value_parser!(i32).range(0..))]
    partition: Vec<i32>,
    /// Where to begin: earliest, latest, an offset, -N for the last N of each partition, or @time.
    #[arg(
        short = 'o',
        long,
        value_name = "place",
        default_value = "latest",
        allow_hyphen_values = true
    )]
    from: Place,
    /// Where to stop: end (as it is now), an offset, or @time; the record there is not printed.
    #[arg(short = 'u', long, value_name = "place", allow_hyphen_values = true)]
    until: Option<Place>,
    /// Stop after so many records.
    #[arg(short = 'n', long, value_name = "number", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Stop when no record came for so long.
    #[arg(long, value_name = "time", value_parser = duration)]
    idle: Option<Duration>,
    /// How records are printed.
    #[arg(long, value_enum, default_value = "text")]
    format: FormatArg,
    /// A format as below, in place of --format.
    #[arg(short = 'f', long, value_name = "format", conflicts_with_all = ["format", "key_delimiter", "delimiter", "json"])]
    template: Option<String>,
    /// Print the key and this before the value; may hold \t, \n, \0 and \xNN.
    #[arg(short = 'K', long, value_name = "text")]
    key_delimiter: Option<String>,
    /// What ends a record.
    #[arg(short = 'D', long, value_name = "text", default_value = "\\n")]
    delimiter: String,
    /// What is printed for a null key or value.
    #[arg(short = 'Z', long, value_name = "text", default_value = "")]
    null: String,
    /// read-committed leaves out the records of transactions that are open or aborted.
    #[arg(long, value_enum, default_value = "read-uncommitted")]
    isolation_level: IsolationArg,
    #[command(flatten)]
    cluster: ClusterArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum FormatArg {
    /// The value and a newline.
    Text,
    /// An object per line; the same as --json.
    Json,
    /// Partition, offset, key and value in hexadecimal.
    Hex,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum IsolationArg {
    ReadUncommitted,
    ReadCommitted,
}

pub(crate) fn run(arguments: &ConsumeArgs) -> Exit {
    // Reading on and on ends by Ctrl-C, which is no failure.
    arguments.cluster.run_to_its_end(async |client| {
        tokio::select! {
            done = consume(client, arguments) => done.map(|()| Exit::Success),
            _ = tokio::signal::ctrl_c() => Ok(match arguments.until {
                None => Exit::Success,
                Some(_) => Exit::Interrupted,
            }),
        }
    })
}

async fn consume(client: &mut Client, arguments: &ConsumeArgs) -> Result<(), CommandError> {
    let format = format_of(arguments).map_err(CommandError::Usage)?;
    let isolation = match arguments.isolation_level {
        IsolationArg::ReadUncommitted => IsolationLevel::ReadUncommitted,
        IsolationArg::ReadCommitted => IsolationLevel::ReadCommitted,
    };
    let partitions = partitions_of(client, arguments).await?;
    let ends = Ends::of(client, &partitions, isolation).await?;
    if let Place::Offset(offset) = arguments.from
        && let Some((partition, range)) = ends.without(offset)
    {
        return Err(CommandError::Failed(format!(
            "{partition} has no offset {offset}, but {} to {}; --from earliest begins with the first",
            range.start(),
            range.end()
        )));
    }
    let from = ends.offsets(client, arguments.from, isolation).await?;
    let until = match arguments.until {
        Some(place) => ends.offsets(client, place, isolation).await?,
        None => BTreeMap::new(),
    };
    let ranges = partitions.into_iter().map(|partition| ReadRange {
        from: from.get(&partition).copied().unwrap_or(0),
        until: until.get(&partition).copied(),
        partition,
    });
    let config = ConsumerConfig {
        isolation,
        // Who begins at the start, or at some time, goes on with what is left when it is deleted meanwhile.
        auto_offset_reset: (!matches!(arguments.from, Place::Offset(_))).then_some(OffsetSpec::Earliest),
        ..Default::default()
    };
    let is_seen = std::io::stdout().is_terminal() && std::io::stderr().is_terminal();
    if is_seen && arguments.from == Place::Latest && arguments.until.is_none() {
        complain(
            "waiting for what is written from now on, until Ctrl-C; --from earliest shows what is there already",
        );
    }
    let mut consumer = Consumer::new(client, config, ranges.collect());
    let mut printer = Printer {
        out: Output::new(),
        format,
        left: arguments.count,
    };
    let mut last_record = tokio::time::Instant::now();
    loop {
        let next = match arguments.idle {
            None => consumer.next().await,
            Some(idle) => match tokio::time::timeout_at(last_record + idle, consumer.next()).await {
                Ok(next) => next,
                Err(_) => break,
            },
        };
        let Some(fetched) = next? else {
            break;
        };
        for partition in fetched.partitions()? {
            if partition.next_offset() > partition.range.from {
                last_record = tokio::time::Instant::now();
            }
            if printer.print(&partition)?.is_break() {
                return printer.out.flush();
            }
        }
        printer.out.flush()?;
    }
    printer.out.flush()
}

fn format_of(arguments: &ConsumeArgs) -> Result<Format, String> {
    let null = unescape(&arguments.null)?;
    if arguments.cluster.json {
        return Ok(Format::Json);
    }
    if let Some(template) = &arguments.template {
        return Format::template(template, &null);
    }
    Ok(match arguments.format {
        FormatArg::Json => Format::Json,
        FormatArg::Hex => Format::hex(),
        FormatArg::Text => {
            let key_delimiter = arguments.key_delimiter.as_deref().map(unescape).transpose()?;
            Format::text(key_delimiter.as_deref(), &unescape(&arguments.delimiter)?, &null)
        }
    })
}

/// The partitions that are to be read.
async fn partitions_of(
    client: &mut Client,
    arguments: &ConsumeArgs,
) -> Result<Vec<TopicPartition>, CommandError> {
    let mut partitions = Vec::new();
    for (name, topic) in chosen(client, &arguments.topics, Internal::Excluded).await? {
        let missing = arguments
            .partition
            .iter()
            .find(|&&id| topic.partition(id).is_none());
        if let Some(id) = missing {
            return Err(CommandError::Failed(format!(
                "there is no partition {id} of topic {name}, which has {}",
                topic.partitions.len()
            )));
        }
        let ids = topic.partitions.iter().map(|partition| partition.id);
        let wanted = ids.filter(|id| arguments.partition.is_empty() || arguments.partition.contains(id));
        partitions.extend(wanted.map(|id| TopicPartition::new(name.as_str(), id)));
    }
    Ok(partitions)
}

struct Printer {
    out: Output,
    format: Format,
    /// How many records may still be printed.
    left: Option<u64>,
}

impl Printer {
    /// Breaks after the last record that was wanted.
    fn print(&mut self, partition: &FetchedPartition<'_>) -> Result<ControlFlow<()>, CommandError> {
        let walked = partition.each_record(|shown| {
            if let Err(error) = self.format.write(shown, self.out.bytes()) {
                return ControlFlow::Break(Err(CommandError::Output(error)));
            }
            self.left = self.left.map(|left| left - 1);
            match self.left {
                Some(0) => ControlFlow::Break(Ok(())),
                _ => ControlFlow::Continue(()),
            }
        });
        match walked {
            Ok(ControlFlow::Continue(())) => Ok(ControlFlow::Continue(())),
            Ok(ControlFlow::Break(done)) => done.map(ControlFlow::Break),
            Err(broken) => {
                // What came before it is for the reader.
                self.out.flush()?;
                let range = &partition.range;
                Err(CommandError::Failed(format!(
                    "{} from offset {} on: {broken}",
                    range.partition, range.from
                )))
            }
        }
    }
}
