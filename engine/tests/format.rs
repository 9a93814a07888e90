//! Golden directories: what an Apache Kafka 2.7.2 broker wrote is opened, read, rebuilt, appended to, and
//! otherwise left alone.

use std::io::IoSlice;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use milena_engine::config::{LogConfig, Magic};
use milena_engine::io::simulated::{ManualClock, SimulatedDisk};
use milena_engine::io::{Io, OpenMode};
use milena_engine::log::{BootEvidence, Log, LogDirectory, OpenOptions, UpperBound};
use milena_engine::record_batch::{
    AppendOrigin, Level, RecordBatchBuilder, RequestRules, ValidationRules, batches, validate,
};
use milena_engine::units::{LeaderEpoch, Offset, TimestampMs, TopicPartition};

struct Golden {
    topic: &'static str,
    format: Magic,
    /// Control records included.
    end: i64,
    record_count: usize,
}

const GOLDEN: [Golden; 8] = [
    Golden {
        topic: "fmt-none",
        format: Magic::V2,
        end: 80,
        record_count: 80,
    },
    Golden {
        topic: "fmt-gzip",
        format: Magic::V2,
        end: 80,
        record_count: 80,
    },
    Golden {
        topic: "fmt-snappy",
        format: Magic::V2,
        end: 80,
        record_count: 80,
    },
    Golden {
        topic: "fmt-lz4",
        format: Magic::V2,
        end: 80,
        record_count: 80,
    },
    Golden {
        topic: "fmt-zstd",
        format: Magic::V2,
        end: 80,
        record_count: 80,
    },
    Golden {
        topic: "fmt-v0",
        format: Magic::V0,
        end: 80,
        record_count: 80,
    },
    Golden {
        topic: "fmt-v1",
        format: Magic::V1,
        end: 80,
        record_count: 80,
    },
    Golden {
        topic: "fmt-txn",
        format: Magic::V2,
        end: 82,
        record_count: 82,
    },
];

/// A simulated disk with one golden directory on it.
struct Bench {
    golden: &'static Golden,
    disk: SimulatedDisk,
    config: LogConfig,
}

impl Bench {
    fn new(golden: &'static Golden) -> Bench {
        let disk = SimulatedDisk::new(1);
        let name = format!("{}-0", golden.topic);
        let source = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/fixtures/kafka-2.7.2-logs")
            .join(&name);
        let directory = Path::new("/data").join(&name);
        disk.create_dir_all(&directory).expect("a healthy disk");
        for entry in std::fs::read_dir(&source).expect("the fixture is there") {
            let path = entry.expect("the fixture can be listed").path();
            let bytes = std::fs::read(&path).expect("the fixture can be read");
            let to = directory.join(path.file_name().expect("a file has a name"));
            let file = disk.open(&to, OpenMode::CreateNew).expect("a healthy disk");
            file.write_vectored_at(0, &[IoSlice::new(&bytes)])
                .expect("a healthy disk");
        }
        let config = LogConfig {
            segment_size_bytes: 3000,
            index_interval_bytes: 400,
            message_format: golden.format,
            ..LogConfig::default()
        };
        Bench { golden, disk, config }
    }

    fn directory(&self) -> PathBuf {
        Path::new("/data").join(format!("{}-0", self.golden.topic))
    }

    fn open(&self, clean_shutdown: bool) -> Arc<Log> {
        let options = OpenOptions {
            clean_shutdown,
            boot: BootEvidence::SameBoot,
            recovery_point: Offset(if clean_shutdown { self.golden.end } else { 0 }),
            high_watermark: Some(Offset(self.golden.end)),
            producer_id_expiration_ms: i64::MAX,
            ..OpenOptions::default()
        };
        Log::open(
            Arc::new(LogDirectory::new("/data")),
            &format!("{}-0", self.golden.topic),
            TopicPartition::new(self.golden.topic, 0),
            Arc::new(self.config.clone()),
            &options,
            Arc::new(self.disk.clone()),
            Arc::new(ManualClock::new(TimestampMs(1_800_000_000_000))),
        )
        .expect("a directory of Kafka's opens")
    }

    /// Name and bytes of every file whose name ends so.
    fn files(&self, ending: &str) -> Vec<(String, Vec<u8>)> {
        let entries = self.disk.list(&self.directory()).expect("a healthy disk");
        let mut files = Vec::new();
        for entry in entries.into_iter().filter(|entry| entry.name.ends_with(ending)) {
            let file = self
                .disk
                .open(&self.directory().join(&entry.name), OpenMode::Read)
                .expect("it is listed");
            let mut bytes = vec![0; file.size_bytes().expect("a healthy disk") as usize];
            file.read_at(0, &mut bytes).expect("a healthy disk");
            files.push((entry.name, bytes));
        }
        files
    }

    fn remove(&self, ending: &str) {
        for (name, _) in self.files(ending) {
            self.disk
                .remove_file(&self.directory().join(name))
                .expect("a healthy disk");
        }
    }
}

/// Offset and timestamp of every record.
fn records(log: &Log) -> Vec<(i64, i64)> {
    let mut found: Vec<(i64, i64)> = Vec::new();
    let mut next = log.log_start_offset();
    while next < log.log_end_offset() {
        let info = log.read(next, 1000, UpperBound::LogEnd, true).expect("in range");
        let bytes = info
            .records
            .expect("there is more")
            .read()
            .expect("a healthy disk");
        for batch in batches(&bytes).map_while(Result::ok) {
            batch.verify_crc().expect("Kafka's CRC");
            let mut records = batch.records().expect("Kafka's records");
            while let Some(record) = records.next_record().expect("Kafka's records") {
                if record.offset >= next {
                    found.push((record.offset.get(), record.timestamp.get()));
                }
            }
            next = batch.next_offset();
        }
    }
    found
}

#[test]
fn a_directory_of_kafkas_is_read_whole_and_left_as_it_is() {
    for golden in &GOLDEN {
        let bench = Bench::new(golden);
        let before = bench.files("");
        let log = bench.open(true);
        assert_eq!(log.log_end_offset(), Offset(golden.end), "{}", golden.topic);
        let found = records(&log);
        assert_eq!(found.len(), golden.record_count, "{}", golden.topic);
        assert!(
            found.windows(2).all(|pair| pair[0].0 + 1 == pair[1].0),
            "{}",
            golden.topic
        );
        for (offset, timestamp) in &found {
            if golden.format == Magic::V0 {
                break;
            }
            let first = found
                .iter()
                .find(|(_, other)| other >= timestamp)
                .expect("itself at least");
            let found = log.offset_for_timestamp(TimestampMs(*timestamp), UpperBound::LogEnd);
            let found = found.expect("in range").expect("it is there");
            assert_eq!(
                (found.offset.get(), found.timestamp.get()),
                *first,
                "{} {offset}",
                golden.topic
            );
        }
        log.close().expect("a healthy disk");
        assert_eq!(bench.files(""), before, "{}", golden.topic);
    }
}

#[test]
fn derived_files_are_rebuilt_as_kafka_wrote_them() {
    for golden in GOLDEN.iter().filter(|golden| golden.format == Magic::V2) {
        let bench = Bench::new(golden);
        let (indexes, snapshots) = (bench.files(".index"), bench.files(".snapshot"));
        let epochs = bench.files("leader-epoch-checkpoint");
        bench.remove(".index");
        bench.remove(".timeindex");
        bench.remove(".snapshot");
        bench.remove("leader-epoch-checkpoint");
        let log = bench.open(false);
        assert_eq!(records(&log).len(), golden.record_count, "{}", golden.topic);
        assert_eq!(bench.files(".index"), indexes, "{}", golden.topic);
        assert_eq!(bench.files("leader-epoch-checkpoint"), epochs, "{}", golden.topic);
        // Only the one at the log end is written anew.
        assert_eq!(
            bench.files(".snapshot").last(),
            snapshots.last(),
            "{}",
            golden.topic
        );
    }
}

#[test]
fn appending_goes_on_where_kafka_stopped() {
    for golden in &GOLDEN {
        let bench = Bench::new(golden);
        let log = bench.open(true);
        let mut builder = RecordBatchBuilder::new();
        builder.append(TimestampMs(1_800_000_000_000), None, Some(&[b'm'; 100]));
        let set = builder.build();
        let rules = ValidationRules::new(
            log.partition().clone(),
            &bench.config,
            AppendOrigin::Client,
            RequestRules::NONE,
        );
        for round in 0..30 {
            let now = TimestampMs(1_800_000_000_000);
            let mut sets = [validate(&set, &rules, now, Level::Strict).expect("sound records")];
            let info = log
                .append_as_leader(&mut sets, AppendOrigin::Client, LeaderEpoch(1))
                .remove(0);
            let info = info.expect("a healthy disk");
            assert_eq!(info.last_offset, Offset(golden.end + round), "{}", golden.topic);
        }
        log.close().expect("a healthy disk");
        let log = bench.open(true);
        assert_eq!(records(&log).len(), golden.record_count + 30, "{}", golden.topic);
    }
}
