//! What the steps work on. The same in every run: no randomness, no clock.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use milena_engine::config::{Codec, CompressionType, LogConfig};
use milena_engine::io::simulated::ManualClock;
use milena_engine::io::{self, Backend, Io};
use milena_engine::log::{Log, LogDirectory, OpenOptions};
use milena_engine::record_batch::{
    AppendOrigin, Level, RecordBatchBuilder, RequestRules, ValidationRules, validate,
};
use milena_engine::units::{LeaderEpoch, Offset, TimestampMs, TopicPartition};

/// The time of every record that says nothing else, and of the logs' clock.
pub const NOW: TimestampMs = TimestampMs(1_700_000_000_000);

/// Values of one batch, as Kafka's producers send under load.
pub const VALUES_SIZE_BYTES: usize = 64 << 10;

/// JSON-like, so that codecs have something to find.
fn value(number: usize, size: usize) -> Vec<u8> {
    let text = format!(
        "{{\"id\":\"{number:08x}\",\"type\":\"payment\",\"amount\":{}}}",
        number % 977
    );
    text.bytes().cycle().take(size).collect()
}

/// A batch with 64 KiB of values.
pub fn full_batch(codec: Codec, record_size: usize) -> Vec<u8> {
    batch(codec, record_size, VALUES_SIZE_BYTES / record_size, NOW)
}

/// A batch of so many records, all of one time.
pub fn batch(codec: Codec, record_size: usize, record_count: usize, time: TimestampMs) -> Vec<u8> {
    let mut builder = RecordBatchBuilder::new().codec(codec);
    for number in 0..record_count {
        builder.append(time, None, Some(&value(number, record_size)));
    }
    builder.build()
}

/// A client's produce request to a topic with this `compression.type`.
pub fn rules(compression: CompressionType) -> ValidationRules {
    let config = LogConfig {
        compression_type: compression,
        ..LogConfig::default()
    };
    let request = RequestRules::produce(8);
    ValidationRules::new(partition(), &config, AppendOrigin::Client, request)
}

fn partition() -> TopicPartition {
    TopicPartition::new("bench", 0)
}

/// A directory that is removed with everything in it.
#[derive(Debug)]
pub struct Scratch(PathBuf);

impl Scratch {
    /// Below the directory for temporary files. The length of its path is that of `name`, whatever the process.
    pub fn new(name: &str) -> Scratch {
        let path = std::env::temp_dir().join(format!("milena-bench-{:010}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).expect("the directory for temporary files can be written");
        Scratch(path)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What stays behind is the system's to remove.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// One partition's log on the real disk.
#[derive(Debug)]
pub struct BenchLog {
    log: Arc<Log>,
    rules: ValidationRules,
    backend: Backend,
    scratch: Scratch,
}

impl BenchLog {
    /// An empty one.
    pub fn new(name: &str, backend: Backend) -> BenchLog {
        let scratch = Scratch::new(name);
        BenchLog {
            log: open(scratch.path(), backend, &OpenOptions::default()),
            rules: rules(CompressionType::Producer),
            backend,
            scratch,
        }
    }

    /// The log itself.
    pub fn log(&self) -> &Arc<Log> {
        &self.log
    }

    /// Validates and appends, as produce does; returns the new end.
    pub fn append(&self, bytes: &[u8]) -> Offset {
        let set = validate(bytes, &self.rules, NOW, Level::Strict).expect("a sound batch");
        let mut results = self
            .log
            .append_as_leader(&mut [set], AppendOrigin::Client, LeaderEpoch(0));
        let info = results.pop().expect("one answer a set").expect("a healthy disk");
        info.last_offset.plus(1)
    }

    /// Opens the same directory as after a kill: everything is checked and indexed anew. Returns the end that was found.
    pub fn recover(&self) -> Offset {
        let options = OpenOptions {
            clean_shutdown: false,
            ..OpenOptions::default()
        };
        open(self.scratch.path(), self.backend, &options).log_end_offset()
    }
}

fn open(directory: &Path, backend: Backend, options: &OpenOptions) -> Arc<Log> {
    let io: Arc<dyn Io> = io::open(backend).expect("this body of Io can be had here");
    let (directory, config) = (
        Arc::new(LogDirectory::new(directory)),
        Arc::new(LogConfig::default()),
    );
    let clock = Arc::new(ManualClock::new(NOW));
    Log::open(directory, "bench-0", partition(), config, options, io, clock)
        .expect("a log without damage opens")
}
