//! `milena produce`: writes records from standard input, files or the command line.
//!
//! Promise: exit code 0 says that every record was acknowledged as `--acks` demands. What is typed is sent as soon as the
//! input pauses; a pipe is sent in full batches. The first record that cannot be written ends the command, which says
//! how many were written before. Source: `ConsoleProducer` of 2.7.2, kcat.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, ValueEnum};
use milena_engine::config::Codec;
use milena_engine::record_batch::RecordHeader;
use milena_engine::units::TimestampMs;
use milena_server::client::{Acks, Client, ProduceError, Producer, ProducerConfig, ProducerRecord, Topics};
use milena_server::protocol::ErrorCode;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

use crate::cluster_args::{ClusterArgs, CommandError, duration_or_zero, explained};
use crate::escapes::unescape;
use crate::moment::time_ms;
use crate::output::{Output, count};
use crate::{Exit, complain};
use input::{Content, Layout, read_blocks, split};

mod input;

/// Blocks of input that are read before they are needed.
const BLOCKS_AHEAD: usize = 4;

const EXAMPLES: &str = "\
Examples:
  echo 'hello' | milena produce greetings           one record for each line
  milena produce greetings < lines.txt
  milena produce users -K : < users.txt             the key of each record stands before the first colon
  milena produce users --key 17 --value '{\"name\":\"Ada\"}' -H source=import
  milena produce users --key 17 --tombstone         the key without a value: compaction forgets it
  milena produce images --whole cat.jpg dog.jpg     each file is a record
  milena produce users -K : --codec zstd --acks all users.txt
  milena consume a --from earliest --until end --json | milena produce b --format json
                                                    copies keys, values, headers, times and partitions";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ProduceArgs {
    /// The topic; the broker may create it, as its auto.create.topics.enable says.
    topic: String,
    /// What to read; standard input if absent, or as `-`.
    #[arg(value_name = "file", conflicts_with_all = ["value", "tombstone"])]
    files: Vec<PathBuf>,
    /// Write this one record and read nothing.
    #[arg(long, value_name = "text")]
    value: Option<String>,
    /// Write one record without a value and read nothing.
    #[arg(long, requires = "key", conflicts_with = "value")]
    tombstone: bool,
    /// The key of all records.
    #[arg(short, long, value_name = "text", conflicts_with = "key_delimiter")]
    key: Option<String>,
    /// What stands between key and value; may hold \t, \n, \0 and \xNN.
    #[arg(short = 'K', long, value_name = "text", value_parser = delimiter)]
    key_delimiter: Option<Bytes>,
    /// What ends a record.
    #[arg(short = 'D', long, value_name = "text", default_value = "\\n", value_parser = delimiter)]
    delimiter: Bytes,
    /// Each file is one record.
    #[arg(long)]
    whole: bool,
    /// The text that stands for a null key or value.
    #[arg(short = 'Z', long, value_name = "text", value_parser = bytes)]
    null: Option<Bytes>,
    /// A header of all records; may be given several times.
    #[arg(short = 'H', long = "header", value_name = "name=value", value_parser = header)]
    headers: Vec<(String, String)>,
    /// text: as --delimiter and --key-delimiter say; json: an object per line, as `milena consume --json` prints.
    #[arg(long, value_enum, default_value = "text", conflicts_with_all = ["key", "key_delimiter", "whole", "null"])]
    format: Format,
    /// The partition of all records; otherwise that of the record's key, as Kafka's clients choose it.
    #[arg(short, long, value_name = "number", value_parser = clap::value_parser!(i32).range(0..))]
    partition: Option<i32>,
    /// The timestamp of all records; otherwise now.
    #[arg(long, value_name = "time", value_parser = time_ms)]
    timestamp: Option<i64>,
    /// Which replicas must have a record before it counts as written.
    #[arg(long, value_enum, default_value = "all", allow_hyphen_values = true)]
    acks: AcksArg,
    /// How batches are compressed.
    #[arg(short = 'z', long, default_value = "none", value_parser = codec())]
    codec: Codec,
    /// Bytes of a batch before compression after which it is sent.
    #[arg(long, value_name = "bytes", default_value_t = 64 << 10, value_parser = batch_size)]
    batch_size: usize,
    /// How long a record may wait for more input to come with it before it is sent; 0 sends what is there.
    #[arg(long, value_name = "time", default_value = "5ms", value_parser = duration_or_zero)]
    linger: Duration,
    /// Do not ask for a producer id: a record may be written twice when an answer is lost.
    #[arg(long)]
    no_idempotence: bool,
    #[command(flatten)]
    cluster: ClusterArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Text,
    Json,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum AcksArg {
    /// All in-sync replicas.
    #[value(alias = "-1")]
    All,
    /// The leader.
    #[value(name = "1")]
    Leader,
    /// None: nobody knows whether it arrived.
    #[value(name = "0")]
    None,
}

/// A value of an option that is bytes; not a `Vec`, which clap would take for several values.
#[derive(Clone, Debug)]
struct Bytes(Vec<u8>);

fn bytes(text: &str) -> Result<Bytes, String> {
    unescape(text).map(Bytes)
}

fn delimiter(text: &str) -> Result<Bytes, String> {
    match unescape(text)? {
        bytes if bytes.is_empty() => Err("expected at least one byte".to_owned()),
        bytes => Ok(Bytes(bytes)),
    }
}

fn header(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err(format!("found {text:?}, expected name=value")),
    }
}

fn batch_size(text: &str) -> Result<usize, String> {
    let size = text.parse().ok().filter(|size| (1..=1 << 30).contains(size));
    size.ok_or_else(|| format!("found {text:?}, expected 1 to {} bytes", 1 << 30))
}

fn codec() -> impl TypedValueParser<Value = Codec> {
    const CODECS: [Codec; 5] = [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];
    PossibleValuesParser::new(CODECS.map(Codec::name)).map(|name| {
        let known = CODECS.into_iter().find(|codec| codec.name() == name);
        known.expect("the parser lets known names through")
    })
}

pub(crate) fn run(arguments: &ProduceArgs) -> Exit {
    arguments
        .cluster
        .run_to_its_end(async |client| produce(client, arguments).await)
}

async fn produce(client: &mut Client, arguments: &ProduceArgs) -> Result<Exit, CommandError> {
    let config = ProducerConfig {
        acks: match arguments.acks {
            AcksArg::All => Acks::All,
            AcksArg::Leader => Acks::Leader,
            AcksArg::None => Acks::None,
        },
        codec: arguments.codec,
        batch_size_bytes: arguments.batch_size,
        delivery_timeout: arguments.cluster.timeout,
        idempotence: !arguments.no_idempotence,
        ..Default::default()
    };
    // Before anything is written of the others.
    for file in arguments.files.iter().filter(|file| *file != Path::new("-")) {
        if let Err(error) = std::fs::metadata(file) {
            return Err(CommandError::Usage(format!("{}: {error}", file.display())));
        }
    }
    let is_new = is_missing(client, &arguments.topic).await?;
    let mut writer = Writer {
        arguments,
        layout: layout(arguments),
        producer: Producer::new(client, config),
        due: None,
        place: Place::default(),
    };
    let done = tokio::select! {
        done = writer.write_all() => done,
        _ = tokio::signal::ctrl_c() => Err(Stopped::Interrupted),
    };
    if is_new && writer.producer.written() > 0 {
        complain(format_args!(
            "topic {} was not there; the broker made it (auto.create.topics.enable)",
            arguments.topic
        ));
    }
    match done {
        Ok(()) => {}
        Err(Stopped::Input(text)) => {
            // What was whole before is written nevertheless.
            let flushed = writer.producer.flush().await;
            flushed.map_err(|error| refused(&error, writer.producer.written()))?;
            let written = were_written(writer.producer.written());
            return Err(CommandError::Failed(format!(
                "{}{text} ({written})",
                writer.place
            )));
        }
        Err(Stopped::Refused(error)) => return Err(refused(&error, writer.producer.written())),
        Err(Stopped::Interrupted) => {
            complain(format_args!(
                "interrupted; {}",
                were_written(writer.producer.written())
            ));
            return Ok(Exit::Interrupted);
        }
    }
    let mut out = Output::new();
    if arguments.cluster.json {
        out.json(&json!({"topic": arguments.topic, "records": writer.producer.written()}))?;
    }
    out.flush()?;
    Ok(Exit::Success)
}

async fn is_missing(client: &mut Client, topic: &str) -> Result<bool, CommandError> {
    let names = [topic.to_owned()];
    let described = client.metadata(Topics::Named(&names)).await?;
    let error = described.topics.get(topic).map(|topic| topic.error);
    Ok(error.is_none_or(|error| error == ErrorCode::UnknownTopicOrPartition))
}

fn refused(error: &ProduceError, written: u64) -> CommandError {
    CommandError::Failed(format!(
        "record {} of the input, for {}, was not written ({} in all): {}",
        error.first_number,
        error.partition,
        were_written(written),
        explained(&error.source, &[])
    ))
}

fn were_written(records: u64) -> String {
    let records = count(usize::try_from(records).unwrap_or(usize::MAX), "record");
    format!("{records} written")
}

fn layout(arguments: &ProduceArgs) -> Layout {
    Layout {
        delimiter: (!arguments.whole).then(|| arguments.delimiter.0.clone()),
        content: match arguments.format {
            Format::Json => Content::Json,
            Format::Text => Content::Text {
                key_delimiter: arguments.key_delimiter.as_ref().map(|bytes| bytes.0.clone()),
                null: arguments.null.as_ref().map(|bytes| bytes.0.clone()),
            },
        },
    }
}

/// Why not everything was written.
enum Stopped {
    Input(String),
    Refused(ProduceError),
    Interrupted,
}

/// Where in the input the last record stood.
#[derive(Debug, Default)]
struct Place {
    file: String,
    /// From 1.
    record: u64,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.record {
            0 => write!(f, "{}: ", self.file),
            record => write!(f, "{}: record {record}: ", self.file),
        }
    }
}

struct Writer<'a, 'c> {
    arguments: &'a ProduceArgs,
    layout: Layout,
    producer: Producer<'c>,
    /// By when what was appended is to be sent; nothing waits, if `None`.
    due: Option<Instant>,
    place: Place,
}

impl Writer<'_, '_> {
    async fn write_all(&mut self) -> Result<(), Stopped> {
        if self.arguments.tombstone {
            self.append(None, None, None, None, &[]).await?;
        } else if let Some(value) = &self.arguments.value {
            self.append(None, None, None, Some(value.as_bytes()), &[]).await?;
        } else if self.arguments.files.is_empty() {
            self.read(Path::new("-")).await?;
        } else {
            for file in &self.arguments.files {
                self.read(file).await?;
            }
        }
        self.producer.flush().await.map_err(Stopped::Refused)
    }

    /// Reads on a thread of its own, because reading standard input may wait for ever.
    async fn read(&mut self, path: &Path) -> Result<(), Stopped> {
        let source: Box<dyn Read + Send> = if path == Path::new("-") {
            self.place.file = "standard input".to_owned();
            Box::new(std::io::stdin())
        } else {
            self.place.file = path.display().to_string();
            let file = File::open(path);
            Box::new(file.map_err(|error| Stopped::Input(error.to_string()))?)
        };
        self.place.record = 0;
        let (sender, mut blocks) = mpsc::channel(BLOCKS_AHEAD);
        let delimiter = self.layout.delimiter.clone();
        let reading = std::thread::spawn(move || {
            read_blocks(source, delimiter.as_deref(), |block| {
                sender.blocking_send(block).is_ok()
            })
        });
        while let Some(block) = self.next(&mut blocks).await? {
            let delimiter = self.layout.delimiter.clone();
            for bytes in split(&block, delimiter.as_deref()) {
                self.place.record += 1;
                let record = self.layout.record(bytes).map_err(Stopped::Input)?;
                let headers: Vec<RecordHeader<'_>> = record
                    .headers
                    .iter()
                    .map(|(key, value)| RecordHeader {
                        key,
                        value: value.as_deref(),
                    })
                    .collect();
                let (key, value) = (record.key.as_deref(), record.value.as_deref());
                self.append(record.partition, record.timestamp, key, value, &headers)
                    .await?;
            }
        }
        match reading.join().expect("the reader of the input does not panic") {
            Ok(()) => Ok(()),
            Err(error) => Err(Stopped::Input(error.to_string())),
        }
    }

    /// The next block of input. When there is none in time, what was read before is sent first; input that is always
    /// there goes on filling batches.
    async fn next(&mut self, blocks: &mut mpsc::Receiver<Vec<u8>>) -> Result<Option<Vec<u8>>, Stopped> {
        if let Some(due) = self.due {
            if let Ok(block) = timeout_at(due, blocks.recv()).await {
                return Ok(block);
            }
            self.producer.flush().await.map_err(Stopped::Refused)?;
            self.due = None;
        }
        Ok(blocks.recv().await)
    }

    async fn append(
        &mut self,
        partition: Option<i32>,
        timestamp: Option<TimestampMs>,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[RecordHeader<'_>],
    ) -> Result<(), Stopped> {
        let arguments = self.arguments;
        let own = arguments.headers.iter().map(|(name, value)| RecordHeader {
            key: name.as_bytes(),
            value: Some(value.as_bytes()),
        });
        let headers: Vec<RecordHeader<'_>> = headers.iter().copied().chain(own).collect();
        let now = || time_ms("now").map_or(TimestampMs::NONE, TimestampMs);
        let record = ProducerRecord {
            topic: &arguments.topic,
            partition: arguments.partition.or(partition),
            timestamp: arguments
                .timestamp
                .map(TimestampMs)
                .or(timestamp)
                .unwrap_or_else(now),
            key: arguments.key.as_deref().map(str::as_bytes).or(key),
            value,
            headers: &headers,
        };
        self.producer.append(record).await.map_err(Stopped::Refused)?;
        self.due.get_or_insert_with(|| Instant::now() + arguments.linger);
        Ok(())
    }
}
