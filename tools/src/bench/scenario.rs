//! What is to be measured: options as the command line and scenario files give them, and the scenario that they make.
//!
//! One declaration, [`Load`], serves both: `--record-size 100` on the command line is `record-size = 100` in a file. A
//! file holds any number of `[[scenario]]`s, each with a name. Everything that cannot be or would have no effect is
//! refused with the place where it stands.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use milena_engine::config::Codec;
use serde::{Deserialize, Serialize};

use super::batch::records_that_fit;
use super::payload::{Recipe, Values};
use super::quantity::{ByteSize, Span};

/// A broker takes a hundredth of it by default.
const RECORD_SIZE_MAX_BYTES: usize = 100 << 20;

/// Options that say the same in different ways: one given on the command line puts the other's of a file aside.
const EXCLUSIVE: [(&str, &str); 3] = [
    ("batch-size", "batch-records"),
    ("payload-file", "record-size"),
    ("payload-file", "payload"),
];

/// What the clients do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Workload {
    /// Producers send; the latency is that of the acknowledgement.
    Produce,
    /// Consumers read what was written beforehand.
    Consume,
    /// Producers send, consumers wait for it; the latency is that of the arrival.
    E2e,
    /// As e2e, while other consumers read older records again and again.
    Mixed,
}

/// What values are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum PayloadKind {
    Letters,
    Json,
}

/// The options of a load. All may be left out.
#[derive(Clone, Debug, Default, PartialEq, Args, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct Load {
    /// Topics; each with so many partitions.
    #[arg(long, value_name = "count", help_heading = "Topics")]
    pub(crate) topics: Option<u32>,
    /// Partitions of each topic.
    #[arg(long, short, value_name = "count", help_heading = "Topics")]
    pub(crate) partitions: Option<u32>,
    #[arg(long, value_name = "count", help_heading = "Topics")]
    pub(crate) replication_factor: Option<i16>,
    /// A setting of the topics, such as flush.messages=1; may be given several times.
    #[arg(long, value_name = "key=value", help_heading = "Topics")]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) topic_config: Vec<String>,
    /// Producers, each with a connection to every broker that leads one of its partitions.
    #[arg(long, value_name = "count", help_heading = "Clients")]
    pub(crate) producers: Option<u32>,
    /// Consumers that share the partitions.
    #[arg(long, value_name = "count", help_heading = "Clients")]
    pub(crate) consumers: Option<u32>,
    /// How many times everything is read, by as many sets of consumers.
    #[arg(long, value_name = "count", help_heading = "Clients")]
    pub(crate) fan_out: Option<u32>,
    /// Threads of the generator.
    #[arg(long, value_name = "count", help_heading = "Clients")]
    pub(crate) threads: Option<u32>,
    /// Bytes of a value [default: 1KiB].
    #[arg(long, short = 's', value_name = "size", help_heading = "Records")]
    pub(crate) record_size: Option<ByteSize>,
    /// What values are made of: letters by chance, or events in JSON, which compress better [default: letters].
    #[arg(long, value_enum, value_name = "kind", help_heading = "Records")]
    pub(crate) payload: Option<PayloadKind>,
    /// Values: the lines of this file.
    #[arg(
        long,
        value_name = "file",
        conflicts_with_all = ["record_size", "payload"],
        help_heading = "Records"
    )]
    pub(crate) payload_file: Option<PathBuf>,
    /// Different keys; without it keys are null.
    #[arg(long, value_name = "count", help_heading = "Records")]
    pub(crate) keys: Option<u64>,
    /// Bytes of a key [default: 8].
    #[arg(long, value_name = "size", requires = "keys", help_heading = "Records")]
    pub(crate) key_size: Option<ByteSize>,
    /// none, gzip, snappy, lz4 or zstd.
    #[arg(long, short = 'z', value_name = "codec", help_heading = "Records")]
    pub(crate) codec: Option<String>,
    /// 0, 1 or all [default: 1].
    #[arg(long, short, value_name = "acks", help_heading = "Producers")]
    pub(crate) acks: Option<String>,
    /// Producers are idempotent; needs acks all.
    #[arg(long, num_args = 0..=1, default_missing_value = "true", value_name = "bool", help_heading = "Producers")]
    pub(crate) idempotence: Option<bool>,
    /// How long a batch waits for more records, in open loop [default: 0].
    #[arg(long, value_name = "time", help_heading = "Producers")]
    pub(crate) linger: Option<Span>,
    /// Bytes of a batch at most [default: 16KiB].
    #[arg(long, value_name = "size", help_heading = "Producers")]
    pub(crate) batch_size: Option<ByteSize>,
    /// Records of a batch at most, in place of its bytes.
    #[arg(
        long,
        value_name = "count",
        conflicts_with = "batch_size",
        help_heading = "Producers"
    )]
    pub(crate) batch_records: Option<u32>,
    /// Requests of a connection that are under way at once [default: 5].
    #[arg(long, value_name = "count", help_heading = "Producers")]
    pub(crate) in_flight: Option<u32>,
    /// Most bytes of one partition in an answer to a fetch [default: 1MiB].
    #[arg(long, value_name = "size", help_heading = "Consumers")]
    pub(crate) fetch_size: Option<ByteSize>,
    /// Bytes that there must be before a fetch is answered [default: 1].
    #[arg(long, value_name = "size", help_heading = "Consumers")]
    pub(crate) fetch_min: Option<ByteSize>,
    /// How long a fetch waits for them [default: 500ms].
    #[arg(long, value_name = "time", help_heading = "Consumers")]
    pub(crate) fetch_wait: Option<Span>,
    /// Records a second of all producers together, at a schedule (open loop); without it, as fast as possible.
    #[arg(long, short, value_name = "records/s", help_heading = "Length")]
    pub(crate) rate: Option<f64>,
    /// How long to measure [default: 10s, unless --records is given].
    #[arg(long, short, value_name = "time", help_heading = "Length")]
    pub(crate) duration: Option<Span>,
    /// Records to measure; of a consume, those that are written beforehand [default there: 1000000].
    #[arg(long, short = 'n', value_name = "count", help_heading = "Length")]
    pub(crate) records: Option<u64>,
    /// The same load before it, which is not counted [default: 1s].
    #[arg(long, value_name = "time", help_heading = "Length")]
    pub(crate) warm_up: Option<Span>,
    /// Records that are there before a mixed load begins, for those who read older ones [default: 1000000].
    #[arg(long, value_name = "count", help_heading = "Length")]
    pub(crate) backlog: Option<u64>,
    /// Read everything back afterwards and compare it with what was written.
    #[arg(long, num_args = 0..=1, default_missing_value = "true", value_name = "bool", help_heading = "Length")]
    pub(crate) check: Option<bool>,
}

/// A scenario as a file has it.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Entry {
    name: String,
    #[serde(default)]
    about: String,
    workload: Workload,
    #[serde(flatten)]
    load: toml::Table,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct File {
    #[serde(default)]
    scenario: Vec<toml::Spanned<toml::Table>>,
}

/// When producers get their answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Acks {
    #[serde(rename = "0")]
    None,
    #[serde(rename = "1")]
    Leader,
    #[serde(rename = "all")]
    All,
}

impl Acks {
    fn parse(text: &str) -> Result<Acks, String> {
        match text {
            "0" => Ok(Acks::None),
            "1" => Ok(Acks::Leader),
            "all" | "-1" => Ok(Acks::All),
            _ => Err(format!("acks: found {text:?}, expected 0, 1 or all")),
        }
    }

    pub(crate) fn code(self) -> i16 {
        match self {
            Acks::None => 0,
            Acks::Leader => 1,
            Acks::All => -1,
        }
    }
}

/// What is measured, with every choice made.
#[derive(Clone, Debug)]
pub(crate) struct Scenario {
    pub(crate) name: String,
    pub(crate) about: String,
    pub(crate) workload: Workload,
    /// As it was asked for.
    pub(crate) load: Load,
    pub(crate) topics: u32,
    pub(crate) partitions: u32,
    pub(crate) replication_factor: i16,
    pub(crate) topic_config: Vec<(String, String)>,
    pub(crate) producers: u32,
    pub(crate) consumers: u32,
    pub(crate) fan_out: u32,
    pub(crate) threads: u32,
    pub(crate) recipe: Recipe,
    pub(crate) codec: Codec,
    pub(crate) acks: Acks,
    pub(crate) idempotence: bool,
    pub(crate) linger: Span,
    pub(crate) batch_records: u32,
    pub(crate) in_flight: u32,
    pub(crate) fetch_size: ByteSize,
    pub(crate) fetch_min: ByteSize,
    pub(crate) fetch_wait: Span,
    pub(crate) rate: Option<f64>,
    pub(crate) duration: Option<Span>,
    pub(crate) records: Option<u64>,
    pub(crate) warm_up: Span,
    pub(crate) backlog: u64,
    pub(crate) check: bool,
}

fn codec_named(name: &str) -> Result<Codec, String> {
    let codecs = [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];
    let found = codecs.into_iter().find(|codec| codec.name() == name);
    found.ok_or_else(|| format!("codec: found {name:?}, expected none, gzip, snappy, lz4 or zstd"))
}

/// A count that has to be at least 1.
fn at_least_one(name: &str, given: Option<u32>, default: u32) -> Result<u32, String> {
    match given.unwrap_or(default) {
        0 => Err(format!("{name}: found 0, expected at least 1")),
        count => Ok(count),
    }
}

impl Scenario {
    /// Makes the choices that were left open.
    ///
    /// # Errors
    /// Names the option that cannot be, or would have no effect.
    pub(crate) fn new(
        name: String,
        about: String,
        workload: Workload,
        load: Load,
    ) -> Result<Scenario, String> {
        load.refuse_what_has_no_effect(workload)?;
        let size = load.record_size.map_or(1024, |size| size.0 as usize);
        if size > RECORD_SIZE_MAX_BYTES {
            return Err(format!(
                "record-size: found {size} bytes, expected at most {RECORD_SIZE_MAX_BYTES}"
            ));
        }
        let values = match (&load.payload_file, load.payload) {
            (Some(_), _) if load.record_size.is_some() || load.payload.is_some() => {
                return Err(
                    "payload-file says what values are; record-size and payload cannot as well".to_owned(),
                );
            }
            (Some(path), _) => Values::of_file(path)?,
            (None, Some(PayloadKind::Json)) => Values::Json { size },
            (None, _) => Values::Letters { size },
        };
        let keys = match (load.keys, load.key_size.map_or(8, |size| size.0 as usize)) {
            (Some(0), _) => return Err("keys: found 0, expected at least 1".to_owned()),
            (Some(_), 0) => return Err("key-size: found 0, expected at least 1".to_owned()),
            (keys, size) => keys.map(|keys| (keys, size)),
        };
        let batch_records = match (load.batch_records, load.batch_size) {
            (Some(_), Some(_)) => return Err("batch-records and batch-size exclude each other".to_owned()),
            (Some(records), None) => at_least_one("batch-records", Some(records), 1)?,
            (None, size) => {
                let size = size.map_or(16 << 10, |size| size.0);
                records_that_fit(size, keys.map_or(0, |(_, size)| size), values.largest_size())
            }
        };
        let acks = Acks::parse(load.acks.as_deref().unwrap_or("1"))?;
        let idempotence = load.idempotence.unwrap_or(false);
        if idempotence && acks != Acks::All {
            return Err("idempotence: needs acks = \"all\"".to_owned());
        }
        let in_flight = at_least_one("in-flight", load.in_flight, 5)?;
        if idempotence && in_flight > 5 {
            return Err("in-flight: brokers remember 5 batches of an idempotent producer".to_owned());
        }
        if acks == Acks::None && matches!(workload, Workload::E2e | Workload::Mixed) {
            return Err(
                "acks: arrivals are matched by the offsets that acknowledgements tell, so not 0".to_owned(),
            );
        }
        if load.rate.is_some_and(|rate| !(rate >= 1.0 && rate.is_finite())) {
            return Err("rate: expected at least 1 record a second".to_owned());
        }
        let duration = match (load.duration, load.records, workload) {
            (Some(Span(duration)), ..) if duration.is_zero() => {
                return Err("duration: expected more than 0".to_owned());
            }
            (None, None, Workload::Produce | Workload::E2e | Workload::Mixed) => {
                Some(Span(std::time::Duration::from_secs(10)))
            }
            (duration, ..) => duration,
        };
        let records = match workload {
            Workload::Consume => Some(load.records.unwrap_or(1_000_000)),
            _ => load.records,
        };
        if records == Some(0) {
            return Err("records: found 0, expected at least 1".to_owned());
        }
        let setting = |text: &String| match text.split_once('=') {
            Some((key, value)) if !key.trim().is_empty() => Ok((key.trim().to_owned(), value.to_owned())),
            _ => Err(format!("topic-config: found {text:?}, expected key=value")),
        };
        Ok(Scenario {
            name,
            about,
            workload,
            topics: at_least_one("topics", load.topics, 1)?,
            partitions: at_least_one("partitions", load.partitions, 1)?,
            replication_factor: load.replication_factor.unwrap_or(1),
            topic_config: load.topic_config.iter().map(setting).collect::<Result<_, _>>()?,
            producers: at_least_one("producers", load.producers, 1)?,
            consumers: at_least_one("consumers", load.consumers, 1)?,
            fan_out: at_least_one("fan-out", load.fan_out, 1)?,
            threads: at_least_one("threads", load.threads, 1)?,
            recipe: Recipe { values, keys },
            codec: codec_named(load.codec.as_deref().unwrap_or("none"))?,
            acks,
            idempotence,
            linger: load.linger.unwrap_or(Span(std::time::Duration::ZERO)),
            batch_records,
            in_flight,
            fetch_size: load.fetch_size.unwrap_or(ByteSize(1 << 20)),
            fetch_min: load.fetch_min.unwrap_or(ByteSize(1)),
            fetch_wait: load
                .fetch_wait
                .unwrap_or(Span(std::time::Duration::from_millis(500))),
            rate: load.rate,
            duration,
            records,
            warm_up: load.warm_up.unwrap_or(Span(std::time::Duration::from_secs(1))),
            backlog: load.backlog.unwrap_or(1_000_000),
            check: load.check.unwrap_or(false),
            load,
        })
    }

    /// The scenarios of a file, in order.
    ///
    /// # Errors
    /// Says where in the file what is wrong.
    pub(crate) fn parse_file(text: &str, place: &Path) -> Result<Vec<Scenario>, String> {
        let place = place.display();
        let file: File = toml::from_str(text).map_err(|error| format!("{place}: {error}"))?;
        if file.scenario.is_empty() {
            return Err(format!("{place}: found no [[scenario]]"));
        }
        let mut scenarios: Vec<Scenario> = Vec::new();
        for entry in file.scenario {
            let line = text[..entry.span().start].matches('\n').count() + 1;
            let at = |error: String| format!("{place}: line {line}: {}", error.trim_end());
            let table = entry.into_inner();
            let named = table
                .get("name")
                .and_then(|name| name.as_str())
                .unwrap_or("a scenario");
            let in_scenario = |error: String| at(format!("{named}: {error}"));
            let entry: Entry = table
                .clone()
                .try_into()
                .map_err(|error: toml::de::Error| in_scenario(error.to_string()))?;
            let load: Load = entry
                .load
                .try_into()
                .map_err(|error: toml::de::Error| in_scenario(error.to_string()))?;
            if scenarios.iter().any(|other| other.name == entry.name) {
                return Err(at(format!(
                    "there is another scenario of the name {:?}",
                    entry.name
                )));
            }
            let scenario = Scenario::new(entry.name, entry.about, entry.workload, load);
            scenarios.push(scenario.map_err(in_scenario)?);
        }
        Ok(scenarios)
    }

    /// Whether producers run while it is measured.
    pub(crate) fn produces(&self) -> bool {
        self.workload != Workload::Consume
    }

    /// All partitions of all topics.
    pub(crate) fn partitions_in_all(&self) -> u32 {
        self.topics * self.partitions
    }
}

impl Load {
    /// An option that a workload does not look at is a mistake of who gave it.
    fn refuse_what_has_no_effect(&self, workload: Workload) -> Result<(), String> {
        let consumes = workload != Workload::Produce;
        let consume = workload == Workload::Consume;
        let refused = [
            ("consumers", self.consumers.is_some(), consumes, "a produce"),
            ("fan-out", self.fan_out.is_some(), consumes, "a produce"),
            ("fetch-size", self.fetch_size.is_some(), consumes, "a produce"),
            ("fetch-min", self.fetch_min.is_some(), consumes, "a produce"),
            ("fetch-wait", self.fetch_wait.is_some(), consumes, "a produce"),
            ("rate", self.rate.is_some(), !consume, "a consume"),
            (
                "linger",
                self.linger.is_some(),
                self.rate.is_some(),
                "closed loop, where batches are full",
            ),
            (
                "backlog",
                self.backlog.is_some(),
                workload == Workload::Mixed,
                "anything but mixed",
            ),
            (
                "key-size",
                self.key_size.is_some(),
                self.keys.is_some(),
                "records without keys",
            ),
        ];
        match refused
            .into_iter()
            .find(|(_, given, matters, _)| *given && !matters)
        {
            Some((name, _, _, of)) => Err(format!("{name}: has no effect on {of}")),
            None => Ok(()),
        }
    }

    /// This, with what `over` says in place of what it says.
    pub(crate) fn overridden_by(&self, over: &Load) -> Load {
        let fields = |load: &Load| serde_json::to_value(load).unwrap_or_default();
        let (mut base, over) = (fields(self), fields(over));
        if let (Some(base), Some(over)) = (base.as_object_mut(), over.as_object()) {
            let given: Vec<_> = over.iter().filter(|(_, value)| !value.is_null()).collect();
            for (one, other) in EXCLUSIVE {
                for (new, old) in [(one, other), (other, one)] {
                    if given.iter().any(|(name, _)| *name == new) {
                        base.remove(old);
                    }
                }
            }
            base.extend(
                given
                    .into_iter()
                    .map(|(name, value)| (name.clone(), value.clone())),
            );
        }
        serde_json::from_value(base).unwrap_or_else(|_| self.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Vec<Scenario>, String> {
        Scenario::parse_file(text, Path::new("f.toml"))
    }

    fn load(text: &str) -> Load {
        toml::from_str(text).unwrap()
    }

    #[test]
    fn a_file_holds_several_scenarios_with_units() {
        let text = "\
            [[scenario]]\nname = 'a'\nworkload = 'produce'\nrecord-size = '1KiB'\nbatch-size = '64KiB'\n\
            rate = 1000\nlinger = '5ms'\nduration = 3\n\
            [[scenario]]\nname = 'b'\nabout = 'hot'\nworkload = 'consume'\nrecords = 10\nfan-out = 4\n";
        let [a, b] = <[Scenario; 2]>::try_from(parse(text).unwrap()).unwrap();
        assert_eq!(
            (a.name.as_str(), a.workload, a.batch_records),
            ("a", Workload::Produce, 63)
        );
        assert_eq!((a.linger.0.as_millis(), a.duration.unwrap().0.as_secs()), (5, 3));
        assert_eq!(
            (b.about.as_str(), b.records, b.fan_out, b.duration),
            ("hot", Some(10), 4, None)
        );
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place() {
        let scenario =
            |lines: &str| format!("# a\n[[scenario]]\nname = 'x'\nworkload = 'produce'\n{lines}\n");
        for (text, expected) in [
            ("nonsense".to_owned(), "f.toml: TOML parse error at line 1"),
            (String::new(), "f.toml: found no [[scenario]]"),
            (scenario("rat = 5"), "f.toml: line 2: x: unknown field `rat`"),
            (
                scenario("record-size = '1 parsec'"),
                "expected a number with a unit such as 64KiB",
            ),
            (
                scenario("producers = 0"),
                "f.toml: line 2: x: producers: found 0, expected at least 1",
            ),
            (
                scenario("codec = 'lzo'"),
                "codec: found \"lzo\", expected none, gzip",
            ),
            (scenario("acks = '2'"), "acks: found \"2\", expected 0, 1 or all"),
            (scenario("linger = '5ms'"), "linger: has no effect on closed loop"),
            (scenario("fan-out = 2"), "fan-out: has no effect on a produce"),
            (scenario("idempotence = true"), "idempotence: needs acks"),
            (
                scenario("topic-config = ['flush.messages']"),
                "expected key=value",
            ),
            (scenario("payload-file = '/nowhere'"), "/nowhere: "),
            (
                scenario("") + &scenario(""),
                "f.toml: line 7: there is another scenario of the name \"x\"",
            ),
            (
                "[[scenario]]\nname = 'x'\nworkload = 'consum'\n".to_owned(),
                "unknown variant `consum`",
            ),
        ] {
            let error = parse(&text).unwrap_err();
            assert!(error.contains(expected), "{text}\n{error}");
        }
    }

    #[test]
    fn a_load_of_the_command_line_wins_over_that_of_a_file() {
        let base = load("partitions = 6\nrecord-size = 100\ntopic-config = ['a=1']");
        let over = load("record-size = '1KiB'\nduration = '2s'");
        let both = base.overridden_by(&over);
        assert_eq!(
            (both.partitions, both.record_size),
            (Some(6), Some(ByteSize(1024)))
        );
        assert_eq!((both.duration, both.topic_config.len()), (over.duration, 1));
        assert_eq!(base.overridden_by(&Load::default()), base);
        for (base, over) in [
            ("batch-records = 60", "batch-size = '1MB'"),
            ("batch-size = '1MB'", "batch-records = 60"),
            ("record-size = 100\npayload = 'json'", "payload-file = '/f'"),
            ("payload-file = '/f'", "record-size = 100"),
        ] {
            assert_eq!(load(base).overridden_by(&load(over)), load(over));
        }
    }

    #[test]
    fn a_payload_of_many_sizes_fills_batches_by_its_largest() {
        let path = std::env::temp_dir().join(format!("milena-bench-lines-{}", std::process::id()));
        std::fs::write(&path, format!("{}\n{}\n", "a".repeat(10), "b".repeat(1000))).unwrap();
        let load = Load {
            payload_file: Some(path.clone()),
            ..Load::default()
        };
        let scenario = Scenario::new("x".into(), String::new(), Workload::Produce, load).unwrap();
        std::fs::remove_file(path).unwrap();
        assert_eq!(scenario.batch_records, 16);
        assert_eq!(scenario.recipe.values.mean_size(), 505.0);
    }
}
