//! Files of a partition and of a log directory with any bytes in them, on the simulated disk: opened, read,
//! and opened again.
//!
//! Input: `flags`, `recovery point`, then files, each `kind u8 | base offset u16 | size u16 | bytes`. `flags`,
//! from the lowest bit: clean shutdown, 2 bits of boot evidence, checksums of `.log` files repaired, log start
//! given.
//!
//! Promise: whatever the files hold, opening ends; what it served can be walked to its end or is damage that
//! is told; and after a kill a second opening finds the same log and changes no file.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use milena_engine::checkpoint::{
    self, BrokerMetadata, CLEANER_OFFSET_FILE, META_PROPERTIES_FILE, OffsetCheckpoint, RECOVERY_POINT_FILE,
    RUN_STATE_FILE, RunState,
};
use milena_engine::config::LogConfig;
use milena_engine::io::Io;
use milena_engine::io::simulated::{Completions, ManualClock, SimulatedDisk};
use milena_engine::log::{BootEvidence, Log, LogDirectory, LogOpenError, OpenOptions, UpperBound};
use milena_engine::record_batch::batches;
use milena_engine::units::{Offset, TimestampMs, TopicPartition};

use crate::{seal, take};

const NOW: TimestampMs = TimestampMs(1_600_000_000_000);
/// The simulated disk, which holds every file in memory, as it is and as it was when it was synced last.
pub(crate) const DISK: usize = 8 << 20;
const LOG_DIR: &str = "/data";
const PARTITION_DIR: &str = "/data/fuzz-0";

pub(crate) fn run(mut data: &[u8]) {
    let (flags, recovery_point) = (take(&mut data), take(&mut data));
    let disk = SimulatedDisk::new(1);
    disk.set_clock(Arc::new(ManualClock::new(NOW)));
    disk.set_completions(Completions::Manual);
    for path in [LOG_DIR, PARTITION_DIR] {
        disk.create_dir_all(Path::new(path)).expect("a healthy disk");
    }
    while write_file(&disk, flags & 8 != 0, &mut data) {}
    read_checkpoints(&disk);
    let options = OpenOptions {
        recovery_point: Offset(recovery_point.into()),
        log_start_offset: (flags & 16 != 0).then(|| Offset(i64::from(recovery_point) / 2)),
        clean_shutdown: flags & 1 != 0,
        boot: match flags >> 1 & 3 {
            0 => BootEvidence::SameBoot,
            1 => BootEvidence::OtherBoot,
            _ => BootEvidence::Unknown,
        },
        ..OpenOptions::default()
    };
    let Ok(log) = open(&disk, &options) else {
        return;
    };
    walk(&log);
    let ends = (log.log_start_offset(), log.log_end_offset());
    let options = OpenOptions {
        recovery_point: log.recovery_point(),
        log_start_offset: Some(ends.0),
        // what Kafka wrote in order is trusted, indexes included, and not made anew
        clean_shutdown: flags & 1 != 0,
        boot: BootEvidence::SameBoot,
        ..OpenOptions::default()
    };
    if log.check_serving().is_err() {
        return;
    }
    log.abandon();
    disk.run_completions(1);
    let disk = disk.process_kill();
    let before = files(&disk);
    let log = open(&disk, &options).expect("what was recovered opens");
    assert_eq!((log.log_start_offset(), log.log_end_offset()), ends);
    walk(&log);
    log.abandon();
    let after = files(&disk);
    let changed: Vec<&str> = after
        .iter()
        .filter(|file| !before.contains(file))
        .map(|(name, _)| name.as_str())
        .collect();
    assert!(
        after == before,
        "a second opening changed or removed files: {changed:?}"
    );
}

fn open(disk: &SimulatedDisk, options: &OpenOptions) -> Result<Arc<Log>, LogOpenError> {
    let config = LogConfig {
        segment_size_bytes: 4096,
        index_interval_bytes: 100,
        ..LogConfig::default()
    };
    Log::open(
        Arc::new(LogDirectory::new(LOG_DIR)),
        "fuzz-0",
        TopicPartition::new("fuzz", 0),
        Arc::new(config),
        options,
        Arc::new(disk.clone()),
        Arc::new(ManualClock::new(NOW)),
    )
}

/// Takes one file from the input; `false` at its end.
fn write_file(disk: &SimulatedDisk, repair: bool, data: &mut &[u8]) -> bool {
    let Some((&[kind, b0, b1, s0, s1], rest)) = data.split_first_chunk::<5>() else {
        return false;
    };
    let size = usize::from(u16::from_be_bytes([s0, s1])).min(rest.len());
    let (content, rest) = rest.split_at(size);
    *data = rest;
    let base = u16::from_be_bytes([b0, b1]);
    let suffixes = [
        ".log",
        ".index",
        ".timeindex",
        ".snapshot",
        ".txnindex",
        ".log.deleted",
        ".log.swap",
    ];
    let in_log_dir = [
        RECOVERY_POINT_FILE,
        CLEANER_OFFSET_FILE,
        META_PROPERTIES_FILE,
        RUN_STATE_FILE,
    ];
    let kind = usize::from(kind) % (suffixes.len() + 1 + in_log_dir.len());
    let mut content = content.to_vec();
    if kind == 0 && repair {
        seal(&mut content);
    }
    let path: PathBuf = match suffixes.get(kind) {
        Some(suffix) => Path::new(PARTITION_DIR).join(format!("{base:020}{suffix}")),
        None if kind == suffixes.len() => Path::new(PARTITION_DIR).join(checkpoint::LEADER_EPOCH_FILE),
        None => Path::new(LOG_DIR).join(in_log_dir[kind - suffixes.len() - 1]),
    };
    checkpoint::replace_file(disk, &path, &content).expect("a healthy disk");
    true
}

fn read_checkpoints(disk: &SimulatedDisk) {
    let directory = Path::new(LOG_DIR);
    for name in [RECOVERY_POINT_FILE, CLEANER_OFFSET_FILE] {
        let checkpoint = OffsetCheckpoint::new(directory, name);
        if let Ok(offsets) = checkpoint.read(disk) {
            checkpoint.write(disk, &offsets).expect("a healthy disk");
            let again = checkpoint.read(disk).expect("what was written can be read");
            assert_eq!(again, offsets);
        }
    }
    if let Ok(Some(metadata)) = BrokerMetadata::read(disk, directory) {
        metadata.write(disk, directory, NOW).expect("a healthy disk");
    }
    if let Ok(Some(state)) = RunState::read(disk, directory) {
        state.write(disk, directory).expect("a healthy disk");
    }
}

/// Reads from the log start to its end, and searches by time; damage is an error, not a loop.
fn walk(log: &Log) {
    let mut from = log.log_start_offset();
    while let Ok(info) = log.read(from, 1 << 20, UpperBound::LogEnd, true) {
        let Some(slice) = info.records else { break };
        let bytes = slice.read().expect("a healthy disk");
        // offsets that go back behind right checksums are what somebody wrote; the first batch must go on
        let whole = batches(&bytes).map_while(Result::ok);
        let Some(next) = whole.map(|batch| batch.next_offset()).max() else {
            break;
        };
        assert!(next > from, "a read at {from} gives batches that end at {next}");
        from = next;
    }
    for target in [0, NOW.get(), i64::MAX] {
        let found = log.offset_for_timestamp(TimestampMs(target), UpperBound::LogEnd);
        std::hint::black_box(found.is_ok());
    }
}

/// Names and contents of the partition's files; empty ones say nothing (an index of an empty segment is created
/// when it is first asked for).
fn files(disk: &SimulatedDisk) -> Vec<(String, Vec<u8>)> {
    let directory = Path::new(PARTITION_DIR);
    let entries = disk.list(directory).expect("a healthy disk");
    let read = |name: String| {
        let content = checkpoint::read_file(disk, &directory.join(&name)).expect("a healthy disk");
        (name, content.unwrap_or_default())
    };
    entries
        .into_iter()
        .map(|entry| read(entry.name))
        .filter(|(_, content)| !content.is_empty())
        .collect()
}
