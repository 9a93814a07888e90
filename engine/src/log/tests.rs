//! What a log promises, on the simulated disk: the set-up that the files below share.

mod appends;
mod crash;
mod durability;
mod reads;
mod recovery;
mod removal;
mod space;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::config::{CleanupPolicy, Codec, LogConfig, Magic};
use crate::error::{AppendError, ReadError, StorageError};
use crate::io::simulated::{Completions, Fault, ManualClock, SimulatedDisk};
use crate::io::{Io, OpenMode};
use crate::record_batch::{
    AppendOrigin, ControlKind, ControlRecord, Level, RecordBatchBuilder, RequestRules, ValidationRules,
    batches, validate,
};
use crate::units::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, Sequence, TimestampMs, TopicPartition};

use super::producer_state::AbortedTransaction;
use super::*;

const NOW: TimestampMs = TimestampMs(1_600_000_000_000);

/// A disk, a directory on it, and a log that can be opened again and again.
struct Bench {
    disk: SimulatedDisk,
    clock: Arc<ManualClock>,
    directory: Arc<LogDirectory>,
    config: LogConfig,
}

impl Bench {
    fn new(config: LogConfig) -> Bench {
        let disk = SimulatedDisk::new(7);
        disk.create_dir_all(Path::new("/data")).unwrap();
        disk.sync_dir(Path::new("/")).unwrap();
        disk.set_completions(Completions::Manual);
        Bench::on(disk, config)
    }

    fn on(disk: SimulatedDisk, config: LogConfig) -> Bench {
        let clock = Arc::new(ManualClock::new(NOW));
        disk.set_clock(clock.clone());
        disk.set_completions(Completions::Manual);
        Bench {
            disk,
            clock,
            directory: Arc::new(LogDirectory::new("/data")),
            config,
        }
    }

    fn open(&self, options: &OpenOptions) -> Result<Arc<Log>, LogOpenError> {
        Log::open(
            self.directory.clone(),
            "t-0",
            TopicPartition::new("t", 0),
            Arc::new(self.config.clone()),
            options,
            Arc::new(self.disk.clone()),
            self.clock.clone(),
        )
    }

    fn log(&self) -> Arc<Log> {
        self.open(&OpenOptions::default()).unwrap()
    }

    fn unclean(&self, boot: BootEvidence) -> Result<Arc<Log>, LogOpenError> {
        self.open(&OpenOptions {
            clean_shutdown: false,
            boot,
            ..OpenOptions::default()
        })
    }

    fn path(&self, name: &str) -> PathBuf {
        Path::new("/data/t-0").join(name)
    }

    fn content(&self, name: &str) -> Vec<u8> {
        let file = self.disk.open(&self.path(name), OpenMode::Read).unwrap();
        let mut bytes = vec![0; file.size_bytes().unwrap() as usize];
        file.read_at(0, &mut bytes).unwrap();
        bytes
    }

    fn names(&self) -> Vec<String> {
        self.disk
            .list(Path::new("/data/t-0"))
            .unwrap()
            .into_iter()
            .map(|entry| entry.name)
            .collect()
    }

    fn exists(&self, name: &str) -> bool {
        self.names().iter().any(|found| found == name)
    }
}

fn batch(count: i64, timestamp: i64, value_size: usize) -> Vec<u8> {
    let mut builder = RecordBatchBuilder::new();
    for index in 0..count {
        builder.append(
            TimestampMs(timestamp + index),
            None,
            Some(&vec![b'x'; value_size]),
        );
    }
    builder.build()
}

fn idempotent(id: i64, sequence: i32, count: i64, transactional: bool) -> Vec<u8> {
    let mut builder = RecordBatchBuilder::new()
        .producer(ProducerId(id), ProducerEpoch(0), Some(Sequence(sequence)))
        .transactional(transactional);
    for _ in 0..count {
        builder.append(NOW, None, Some(b"value"));
    }
    builder.build()
}

fn marker(id: i64, kind: ControlKind) -> Vec<u8> {
    let marker = ControlRecord {
        kind,
        coordinator_epoch: 0,
    };
    RecordBatchBuilder::end_transaction_marker(marker, ProducerId(id), ProducerEpoch(0), NOW)
}

fn append_from(log: &Log, origin: AppendOrigin, sets: &[Vec<u8>]) -> Vec<Result<AppendInfo, AppendError>> {
    let rules = ValidationRules::new(log.partition().clone(), &log.config(), origin, RequestRules::NONE);
    let mut sets: Vec<_> = sets
        .iter()
        .map(|set| validate(set, &rules, NOW, Level::Strict).unwrap())
        .collect();
    log.append_as_leader(&mut sets, origin, LeaderEpoch(3))
}

fn append(log: &Log, sets: &[Vec<u8>]) -> Vec<Result<AppendInfo, AppendError>> {
    append_from(log, AppendOrigin::Client, sets)
}

fn append_one(log: &Log, set: Vec<u8>) -> AppendInfo {
    append(log, &[set]).pop().unwrap().unwrap()
}

/// Offsets of all batches from `from` to the log end, by reading until nothing comes.
fn offsets_from(log: &Log, from: Offset) -> Vec<(i64, i64)> {
    let mut found = Vec::new();
    let mut next = from;
    loop {
        let info = log.read(next, 1 << 20, UpperBound::LogEnd, true).unwrap();
        let Some(slice) = info.records else { return found };
        let bytes = slice.read().unwrap();
        for batch in batches(&bytes) {
            match batch {
                Ok(batch) => {
                    batch.verify_crc().unwrap();
                    assert_eq!(batch.leader_epoch(), Some(LeaderEpoch(3)));
                    found.push((batch.base_offset().get(), batch.last_offset().get()));
                    next = batch.next_offset();
                }
                Err(error) => assert!(error.is_partial(), "{error}"),
            }
        }
    }
}

fn small_segments() -> LogConfig {
    LogConfig {
        segment_size_bytes: 2048,
        index_interval_bytes: 200,
        ..LogConfig::default()
    }
}
