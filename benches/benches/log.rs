//! One log on the real disk of the directory for temporary files.
//!
//! An append is bound by the copy into the page cache and the file system's work for each page; a synced one by
//! the medium; a read by nothing but the index; recovery by memory bandwidth (CRC of what lies in the page
//! cache).

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::channel;

use divan::Bencher;
use divan::counter::BytesCount;
use milena_engine::config::{Codec, LogConfig};
use milena_engine::io::{self, Backend, Io, SystemClock};
use milena_engine::log::{BootEvidence, Log, LogDirectory, OpenOptions, UpperBound};
use milena_engine::record_batch::{
    AppendOrigin, Level, RecordBatchBuilder, RequestRules, ValidationRules, validate,
};
use milena_engine::units::{LeaderEpoch, Offset, TimestampMs, TopicPartition};

const NOW: TimestampMs = TimestampMs(1_700_000_000_000);

fn main() {
    divan::main();
}

/// A directory that is removed with everything in it.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Scratch {
        let path = std::env::temp_dir().join(format!("milena-bench-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).expect("the directory for temporary files can be written");
        Scratch(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What stays behind is the system's to remove.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

struct Bench {
    log: Arc<Log>,
    rules: ValidationRules,
    _scratch: Scratch,
}

fn open(directory: &Path, io: Arc<dyn Io>, config: &LogConfig, options: &OpenOptions) -> Arc<Log> {
    let directory = Arc::new(LogDirectory::new(directory));
    let name = TopicPartition::new("bench", 0);
    let clock = Arc::new(SystemClock::new());
    Log::open(
        directory,
        "bench-0",
        name,
        Arc::new(config.clone()),
        options,
        io,
        clock,
    )
    .expect("a log without damage opens")
}

impl Bench {
    fn new(name: &str) -> Bench {
        let scratch = Scratch::new(name);
        let io = io::open(Backend::Auto).expect("there are always system calls");
        let config = LogConfig::default();
        Bench {
            log: open(&scratch.0, io, &config, &OpenOptions::default()),
            rules: ValidationRules::new(
                TopicPartition::new("bench", 0),
                &config,
                AppendOrigin::Client,
                RequestRules::produce(8),
            ),
            _scratch: scratch,
        }
    }

    fn append(&self, bytes: &[u8]) -> Offset {
        let set = validate(bytes, &self.rules, NOW, Level::Strict).expect("a sound batch");
        let mut results = self
            .log
            .append_as_leader(&mut [set], AppendOrigin::Client, LeaderEpoch(0));
        let info = results.pop().expect("one answer a set").expect("a healthy disk");
        info.last_offset.plus(1)
    }
}

fn batch(record_count: usize) -> Vec<u8> {
    let mut builder = RecordBatchBuilder::new().codec(Codec::None);
    for _ in 0..record_count {
        builder.append(NOW, None, Some(&[7; 1024]));
    }
    builder.build()
}

/// Validated and written to the page cache, by records of 1 KiB.
#[divan::bench(args = [1, 8, 64])]
fn append(bencher: Bencher<'_, '_>, record_count: usize) {
    let (bench, bytes) = (Bench::new("append"), batch(record_count));
    bencher
        .counter(BytesCount::new(bytes.len()))
        .bench_local(|| bench.append(&bytes));
}

/// So many appends of 1 KiB that share one sync.
#[divan::bench(args = [1, 16, 64])]
fn synced_appends(bencher: Bencher<'_, '_>, group_size: usize) {
    let (bench, bytes) = (Bench::new("synced"), batch(1));
    bencher
        .counter(BytesCount::new(bytes.len() * group_size))
        .bench_local(|| {
            let mut end = Offset(0);
            for _ in 0..group_size {
                end = bench.append(&bytes);
            }
            let (done, synced) = channel();
            bench
                .log
                .when_synced(end, Box::new(move |result| drop(done.send(result))));
            synced
                .recv()
                .expect("every waiter is told")
                .expect("a healthy disk");
        });
}

/// Where the next MiB lies: what a fetch asks of the log.
#[divan::bench]
fn read(bencher: Bencher<'_, '_>) {
    let (bench, bytes) = (Bench::new("read"), batch(64));
    let mut end = Offset(0);
    for _ in 0..1000 {
        end = bench.append(&bytes);
    }
    let mut from = 0;
    bencher.bench_local(|| {
        from = (from + 12_345) % end.get();
        let found = bench.log.read(Offset(from), 1 << 20, UpperBound::LogEnd, true);
        found.expect("a healthy disk").records.is_some()
    });
}

/// 256 MiB that are in the page cache are checked and indexed anew, as after a kill.
#[divan::bench(sample_count = 10, sample_size = 1)]
fn recovery(bencher: Bencher<'_, '_>) {
    let (bench, bytes) = (Bench::new("recovery"), batch(64));
    let count = (256 << 20) / bytes.len();
    for _ in 0..count {
        bench.append(&bytes);
    }
    let options = OpenOptions {
        clean_shutdown: false,
        boot: BootEvidence::SameBoot,
        ..OpenOptions::default()
    };
    bencher
        .counter(BytesCount::new(count * bytes.len()))
        .bench_local(|| {
            let io = io::open(Backend::Auto).expect("there are always system calls");
            open(&bench._scratch.0, io, &LogConfig::default(), &options).log_end_offset()
        });
}
