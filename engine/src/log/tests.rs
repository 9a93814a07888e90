//! What a log promises, on the simulated disk.

mod crash;
mod recovery;
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

#[test]
fn what_is_appended_is_read_back_with_consecutive_offsets() {
    let bench = Bench::new(LogConfig::default());
    let log = bench.log();
    let results = append(&log, &[batch(3, NOW.get(), 10), batch(2, NOW.get(), 10)]);
    let infos: Vec<_> = results.into_iter().map(Result::unwrap).collect();
    assert_eq!(
        (infos[0].first_offset, infos[0].last_offset),
        (Some(Offset(0)), Offset(2))
    );
    assert_eq!(
        (infos[1].first_offset, infos[1].last_offset),
        (Some(Offset(3)), Offset(4))
    );
    assert_eq!(log.log_end_offset(), Offset(5));
    assert_eq!(offsets_from(&log, Offset(0)), [(0, 2), (3, 4)]);
    assert_eq!(
        offsets_from(&log, Offset(4)),
        [(3, 4)],
        "a read begins at the batch that holds the offset"
    );
    assert!(matches!(
        log.read(Offset(6), 10, UpperBound::LogEnd, true),
        Err(ReadError::OffsetOutOfRange { .. })
    ));
    assert_eq!(log.latest_epoch(), Some(LeaderEpoch(3)));
}

#[test]
fn the_producers_bytes_are_kept_but_for_offset_and_epoch() {
    let bench = Bench::new(LogConfig::default());
    let log = bench.log();
    append_one(&log, batch(1, NOW.get(), 10));
    let sent = batch(2, NOW.get(), 100);
    append_one(&log, sent.clone());
    let stored = bench.content("00000000000000000000.log");
    let stored = &stored[stored.len() - sent.len()..];
    assert_eq!(stored[..8], 1i64.to_be_bytes());
    assert_eq!(stored[8..12], sent[8..12]);
    assert_eq!(stored[12..16], 3i32.to_be_bytes());
    assert_eq!(stored[16..], sent[16..]);
}

#[test]
fn sets_of_one_call_are_one_write_per_segment() {
    let bench = Bench::new(LogConfig {
        segment_size_bytes: 600,
        ..LogConfig::default()
    });
    let log = bench.log();
    append_one(&log, batch(1, NOW.get(), 100));
    bench.disk.start_trace();
    for result in append(&log, &vec![batch(1, NOW.get(), 100); 4]) {
        result.unwrap();
    }
    let writes = bench
        .disk
        .trace()
        .into_iter()
        .filter(|line| line.contains("write") && line.contains(".log"));
    assert_eq!(writes.count(), 2, "{:?}", bench.disk.trace());
    assert_eq!(log.segment_count(), 2);
    assert_eq!(offsets_from(&log, Offset(0)).len(), 5);
}

#[test]
fn a_read_is_bounded_by_size_and_by_what_may_be_seen() {
    let bench = Bench::new(LogConfig::default());
    let log = bench.log();
    for _ in 0..3 {
        append_one(&log, batch(2, NOW.get(), 50));
    }
    let size = log.size_bytes() as usize / 3;
    let read = |max, bound, min_one| log.read(Offset(0), max, bound, min_one).unwrap();
    assert_eq!(
        read(1000, UpperBound::HighWatermark, true).size_bytes(),
        0,
        "the high watermark is 0"
    );
    assert_eq!(
        read(10, UpperBound::LogEnd, true).size_bytes(),
        size,
        "the first batch comes whole"
    );
    let cut = read(10, UpperBound::LogEnd, false);
    assert_eq!((cut.size_bytes(), cut.first_entry_incomplete), (10, true));
    assert_eq!(
        read(size + 5, UpperBound::LogEnd, true).size_bytes(),
        size + 5,
        "cut anywhere"
    );
    assert_eq!(log.set_high_watermark(Offset(4)), Offset(4));
    assert_eq!(read(1000, UpperBound::HighWatermark, true).size_bytes(), 2 * size);
    assert_eq!(
        log.set_high_watermark(Offset(100)),
        Offset(6),
        "bounded by the log end"
    );
    assert_eq!(read(1000, UpperBound::HighWatermark, true).size_bytes(), 3 * size);
    assert_eq!(
        log.advance_high_watermark(Offset(4)),
        Offset(6),
        "a leader's comes late"
    );
    assert_eq!(
        log.set_high_watermark(Offset(4)),
        Offset(4),
        "a follower's may go back"
    );
    assert_eq!(log.advance_high_watermark(Offset(6)), Offset(6));
}

#[test]
fn an_index_entry_names_the_last_offset_and_position_of_its_batch() {
    let bench = Bench::new(small_segments());
    let log = bench.log();
    for _ in 0..12 {
        append_one(&log, batch(2, NOW.get(), 30));
    }
    log.close().unwrap();
    let bytes = bench.content("00000000000000000000.log");
    let index = bench.content("00000000000000000000.index");
    assert!(index.len() >= 16);
    for entry in index.chunks_exact(8) {
        let offset = i32::from_be_bytes(entry[..4].try_into().unwrap());
        let position = i32::from_be_bytes(entry[4..].try_into().unwrap()) as usize;
        let batch = batches(&bytes[position..]).next().unwrap().unwrap();
        assert_eq!(batch.last_offset(), Offset(i64::from(offset)));
    }
}

#[test]
fn a_refused_set_leaves_no_trace_and_the_others_go_on() {
    let bench = Bench::new(LogConfig {
        segment_size_bytes: 4000,
        ..LogConfig::default()
    });
    let log = bench.log();
    let results = append(
        &log,
        &[
            idempotent(1, 0, 2, false),
            idempotent(1, 7, 1, false),
            batch(1, NOW.get(), 5000),
            idempotent(1, 2, 1, false),
            idempotent(1, 0, 2, false),
        ],
    );
    assert_eq!(results[0].as_ref().unwrap().last_offset, Offset(1));
    assert!(matches!(results[1], Err(AppendError::Producer(_))));
    assert!(matches!(results[2], Err(AppendError::Invalid(_))));
    assert_eq!(results[3].as_ref().unwrap().first_offset, Some(Offset(2)));
    assert!(results[4].as_ref().unwrap().is_duplicate);
    assert_eq!(offsets_from(&log, Offset(0)), [(0, 1), (2, 2)]);
}

#[test]
fn synced_mode_shares_syncs_and_shows_nothing_before_it_is_synced() {
    let bench = Bench::new(LogConfig {
        flush_messages: Some(1),
        ..LogConfig::default()
    });
    let log = bench.log();
    let acked = Arc::new(AtomicUsize::new(0));
    let wait = |upto: Offset| {
        let acked = acked.clone();
        log.when_synced(
            upto,
            Box::new(move |result| {
                result.unwrap();
                acked.fetch_add(1, Ordering::Relaxed);
            }),
        );
    };
    for expected in 1..=5 {
        let info = append_one(&log, batch(1, NOW.get(), 10));
        assert_eq!(info.sync_before_ack, Some(Offset(expected)));
        wait(Offset(expected));
    }
    log.set_high_watermark(Offset(5));
    assert_eq!(
        log.read(Offset(0), 1000, UpperBound::LogEnd, true)
            .unwrap()
            .size_bytes(),
        0
    );
    assert_eq!(
        (acked.load(Ordering::Relaxed), log.offsets().replicable_end),
        (0, Offset(0))
    );
    bench.disk.start_trace();
    bench.disk.run_completions(1);
    assert_eq!((acked.load(Ordering::Relaxed), log.synced_end()), (5, Offset(5)));
    let syncs = bench
        .disk
        .trace()
        .into_iter()
        .filter(|line| line.contains(".log"))
        .count();
    assert!(
        syncs <= 2,
        "five appends share two syncs of the file: {:?}",
        bench.disk.trace()
    );
    assert!(
        log.read(Offset(0), 1000, UpperBound::LogEnd, true)
            .unwrap()
            .size_bytes()
            > 0
    );
    wait(Offset(5));
    assert_eq!(acked.load(Ordering::Relaxed), 6, "what is synced is told at once");
}

#[test]
fn a_failed_sync_takes_the_directory_offline_and_acknowledges_nothing() {
    let bench = Bench::new(LogConfig {
        flush_messages: Some(1),
        ..LogConfig::default()
    });
    let log = bench.log();
    append_one(&log, batch(1, NOW.get(), 10));
    let refused = Arc::new(AtomicUsize::new(0));
    let seen = refused.clone();
    log.when_synced(
        Offset(1),
        Box::new(move |result| {
            assert!(result.is_err());
            seen.fetch_add(1, Ordering::Relaxed);
        }),
    );
    bench.disk.fail_after(0, Fault::FailedSync);
    bench.disk.run_completions(1);
    assert_eq!(refused.load(Ordering::Relaxed), 1);
    assert!(!bench.directory.is_online());
    assert!(matches!(
        append(&log, &[batch(1, 0, 1)])[0],
        Err(AppendError::Storage(_))
    ));
    assert!(log.close().is_err());
    assert_eq!(log.synced_end(), Offset(0));
}

#[test]
fn a_failed_write_fails_every_set_of_the_call_and_fences_the_log() {
    for fault in [Fault::Eio, Fault::Enospc, Fault::ShortWrite] {
        let bench = Bench::new(LogConfig::default());
        let log = bench.log();
        append_one(&log, batch(1, NOW.get(), 10));
        bench.disk.fail_after(0, fault);
        for result in append(&log, &[batch(1, NOW.get(), 10), batch(1, NOW.get(), 10)]) {
            assert!(matches!(result, Err(AppendError::Storage(_))), "{result:?}");
        }
        assert!(!bench.directory.is_online());
        assert_eq!(log.log_end_offset(), Offset(1));
        bench.disk.clear_faults();
        assert!(
            append(&log, &[batch(1, NOW.get(), 10)])[0].is_err(),
            "nothing is tried again"
        );
    }
}

#[test]
fn a_reserve_stops_appends_and_they_resume() {
    let bench = Bench::new(LogConfig::default());
    let log = bench.log();
    bench.directory.set_space(10, 100);
    let result = append(&log, &[batch(1, NOW.get(), 10)]).pop().unwrap();
    assert!(matches!(
        result,
        Err(AppendError::Storage(StorageError::ReserveReached { .. }))
    ));
    bench.directory.set_space(1000, 100);
    append_one(&log, batch(1, NOW.get(), 10));
}

#[test]
fn segments_roll_by_size_and_by_time_and_the_old_one_is_flushed() {
    let bench = Bench::new(LogConfig {
        segment_ms: 1000,
        ..small_segments()
    });
    let log = bench.log();
    append_one(&log, batch(1, NOW.get(), 10));
    append_one(&log, batch(1, NOW.get() + 1000, 10));
    assert_eq!(log.segment_count(), 1, "not later than segment.ms");
    append_one(&log, batch(1, NOW.get() + 1001, 10));
    assert_eq!(log.segment_base_offsets(), [Offset(0), Offset(2)]);
    assert!(bench.exists("00000000000000000002.snapshot"));
    assert_eq!(
        bench.content("00000000000000000000.timeindex").len(),
        12,
        "the closing entry"
    );
    assert_eq!(log.recovery_point(), Offset(0));
    bench.disk.run_completions(3);
    assert_eq!(log.recovery_point(), Offset(2));
}

#[test]
fn truncation_cuts_every_file_and_old_records_do_not_come_back() {
    let bench = Bench::new(small_segments());
    let log = bench.log();
    for sequence in 0..40 {
        append_one(&log, idempotent(4, sequence, 1, false));
    }
    log.set_high_watermark(Offset(40));
    log.flush().unwrap();
    assert!(log.truncate_to(Offset(13)).unwrap());
    assert!(!log.truncate_to(Offset(13)).unwrap());
    let ends = log.offsets();
    assert_eq!(
        (ends.log_end_offset, ends.high_watermark, ends.synced_end),
        (Offset(13), Offset(13), Offset(13))
    );
    assert_eq!(offsets_from(&log, Offset(0)).last(), Some(&(12, 12)));
    assert_eq!(
        append_one(&log, idempotent(4, 13, 1, false)).first_offset,
        Some(Offset(13))
    );
    for seed in 0..20 {
        let bench = Bench::on(bench.disk.power_cut(seed), bench.config.clone());
        let log = recovery::opened(&bench, 13, BootEvidence::OtherBoot).unwrap();
        assert!(
            [Offset(13), Offset(14)].contains(&log.log_end_offset()),
            "{:?}",
            log.offsets()
        );
    }
    log.truncate_fully_and_start_at(Offset(100)).unwrap();
    assert_eq!(
        (log.log_start_offset(), log.log_end_offset()),
        (Offset(100), Offset(100))
    );
    assert_eq!(
        append_one(&log, idempotent(5, 0, 1, false)).first_offset,
        Some(Offset(100))
    );
}

#[test]
fn retention_renames_first_and_removes_after_the_delay() {
    let bench = Bench::new(LogConfig {
        retention_ms: Some(5000),
        file_delete_delay_ms: 60_000,
        ..small_segments()
    });
    let log = bench.log();
    for _ in 0..40 {
        append_one(&log, batch(1, NOW.get(), 100));
    }
    let count = log.segment_count();
    bench.clock.advance(Duration::from_secs(6));
    assert_eq!(
        log.delete_old_segments().unwrap(),
        0,
        "nothing goes beyond the high watermark"
    );
    log.set_high_watermark(Offset(40));
    let slice = log
        .read(Offset(0), 100, UpperBound::LogEnd, true)
        .unwrap()
        .records
        .unwrap();
    assert_eq!(log.delete_old_segments().unwrap(), count);
    assert_eq!((log.log_start_offset(), log.segment_count()), (Offset(40), 1));
    assert!(matches!(
        log.read(Offset(0), 1, UpperBound::LogEnd, true),
        Err(ReadError::OffsetOutOfRange { .. })
    ));
    assert!(bench.exists("00000000000000000000.log.deleted"));
    assert_eq!(slice.read().unwrap().len(), slice.size_bytes, "a reader goes on");
    assert_eq!(log.run_due_deletions().unwrap(), 0);
    assert_eq!(
        log.next_deletion_due(),
        Some(bench.clock.monotonic() + Duration::from_secs(60))
    );
    bench.clock.advance(Duration::from_secs(60));
    assert_eq!(log.run_due_deletions().unwrap(), count);
    assert!(!bench.names().iter().any(|name| name.ends_with(".deleted")));
    assert_eq!(
        append_one(&log, batch(1, NOW.get(), 1)).first_offset,
        Some(Offset(40))
    );
}

#[test]
fn retention_by_size_keeps_at_least_so_much_and_compaction_only_the_log_start() {
    let bench = Bench::new(LogConfig {
        retention_bytes: Some(5000),
        retention_ms: None,
        ..small_segments()
    });
    let log = bench.log();
    for _ in 0..60 {
        append_one(&log, batch(1, NOW.get(), 100));
    }
    log.set_high_watermark(Offset(60));
    assert!(log.delete_old_segments().unwrap() > 0);
    assert!(log.size_bytes() >= 5000 && log.size_bytes() < 5000 + 2048);
    let compacted = CleanupPolicy {
        delete: false,
        compact: true,
    };
    let config = LogConfig {
        cleanup_policy: compacted,
        retention_bytes: Some(0),
        ..bench.config.clone()
    };
    log.update_config(Arc::new(config)).unwrap();
    assert_eq!(log.delete_old_segments().unwrap(), 0);
    let reason = LogStartOffsetIncrementReason::ClientRecordDeletion;
    assert!(matches!(
        log.advance_log_start_offset(Offset(61), reason),
        Err(ReadError::OffsetOutOfRange { .. })
    ));
    assert!(log.advance_log_start_offset(Offset(50), reason).unwrap());
    assert!(log.delete_old_segments().unwrap() > 0);
    assert_eq!(log.log_start_offset(), Offset(50));
}

#[test]
fn aborted_transactions_hold_the_last_stable_offset_and_are_listed() {
    let bench = Bench::new(LogConfig::default());
    let log = bench.log();
    append_one(&log, idempotent(1, 0, 2, true));
    append_one(&log, idempotent(2, 0, 1, true));
    log.set_high_watermark(Offset(3));
    assert_eq!(log.last_stable_offset(), Offset(0));
    append_from(&log, AppendOrigin::Coordinator, &[marker(1, ControlKind::Abort)])
        .pop()
        .unwrap()
        .unwrap();
    log.set_high_watermark(Offset(4));
    assert_eq!(log.last_stable_offset(), Offset(2));
    append_from(&log, AppendOrigin::Coordinator, &[marker(2, ControlKind::Commit)])
        .pop()
        .unwrap()
        .unwrap();
    log.set_high_watermark(Offset(5));
    assert_eq!(log.last_stable_offset(), Offset(5));
    let check = |log: &Log| {
        let info = log.read(Offset(0), 1000, UpperBound::LastStable, true).unwrap();
        let aborted = info.aborted_transactions.unwrap();
        assert_eq!(
            aborted,
            [AbortedTransactionRange {
                producer_id: ProducerId(1),
                first_offset: Offset(0)
            }]
        );
    };
    check(&log);
    let bench = Bench::on(bench.disk.process_kill(), bench.config.clone());
    bench
        .disk
        .remove_file(&bench.path("00000000000000000000.txnindex"))
        .unwrap();
    let options = OpenOptions {
        clean_shutdown: false,
        boot: BootEvidence::SameBoot,
        high_watermark: Some(Offset(5)),
        ..OpenOptions::default()
    };
    check(&bench.open(&options).unwrap());
    let entry = AbortedTransaction {
        producer_id: ProducerId(1),
        first_offset: Offset(0),
        last_offset: Offset(3),
        last_stable_offset: Offset(2),
    };
    let stored = bench.content("00000000000000000000.txnindex");
    assert_eq!(stored.len(), 34);
    assert_eq!(stored[10..18], entry.first_offset.get().to_be_bytes());
    assert_eq!(stored[26..34], entry.last_stable_offset.get().to_be_bytes());
}

#[test]
fn a_timestamp_is_found_deep_in_a_batch() {
    let bench = Bench::new(small_segments());
    let log = bench.log();
    for round in 0..30 {
        append_one(&log, batch(5, NOW.get() + round * 10, 40));
    }
    log.set_high_watermark(Offset(150));
    for (target, expected) in [
        (0, Some(0)),
        (3, Some(3)),
        (5, Some(5)),
        (153, Some(78)),
        (294, Some(149)),
        (295, None),
    ] {
        let found = log
            .offset_for_timestamp(TimestampMs(NOW.get() + target), UpperBound::HighWatermark)
            .unwrap();
        assert_eq!(found.map(|found| found.offset.get()), expected, "{target}");
    }
    log.set_high_watermark(Offset(70));
    let found = log
        .offset_for_timestamp(TimestampMs(NOW.get() + 153), UpperBound::HighWatermark)
        .unwrap();
    assert_eq!(found, None, "beyond the bound");
    assert_eq!(log.segment_base_offsets_before(-1, 1).unwrap(), [Offset(150)]);
    assert_eq!(log.segment_base_offsets_before(-2, 5).unwrap(), [Offset(0)]);
}

#[test]
fn a_follower_takes_the_leaders_bytes_as_they_are_and_only_in_order() {
    let leader = Bench::new(LogConfig::default());
    let leader_log = leader.log();
    for _ in 0..5 {
        append_one(&leader_log, batch(3, NOW.get(), 20));
    }
    let bytes = leader.content("00000000000000000000.log");
    let bench = Bench::new(LogConfig {
        segment_size_bytes: 300,
        ..LogConfig::default()
    });
    let log = bench.log();
    let mut torn = bytes.clone();
    torn.truncate(bytes.len() - 1);
    let info = log.append_as_follower(&torn).unwrap();
    assert_eq!(
        (info.first_offset, info.last_offset),
        (Some(Offset(0)), Offset(11))
    );
    assert!(log.segment_count() > 1, "a chunk may span segments");
    assert_eq!(offsets_from(&log, Offset(0)), [(0, 2), (3, 5), (6, 8), (9, 11)]);
    assert!(matches!(
        log.append_as_follower(&bytes),
        Err(AppendError::UnexpectedOffset { .. })
    ));
    let mut bad = bytes[bytes.len() / 5 * 4..].to_vec();
    bad[70] ^= 1;
    assert!(matches!(
        log.append_as_follower(&bad),
        Err(AppendError::Invalid(_))
    ));
    assert_eq!(log.log_end_offset(), Offset(12));
    assert_eq!(log.latest_epoch(), Some(LeaderEpoch(3)));
}

#[test]
fn old_formats_and_codecs_are_stored_and_read() {
    for magic in [Magic::V0, Magic::V1, Magic::V2] {
        for codec in [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4] {
            let bench = Bench::new(LogConfig {
                message_format: magic,
                ..small_segments()
            });
            let log = bench.log();
            for round in 0..10 {
                let mut builder = RecordBatchBuilder::new().magic(magic).codec(codec);
                for _ in 0..3 {
                    builder.append(TimestampMs(NOW.get() + round), None, Some(&[b'v'; 40]));
                }
                append_one(&log, builder.build());
            }
            assert_eq!(log.log_end_offset(), Offset(30), "{magic:?} {codec:?}");
            log.set_high_watermark(Offset(30));
            let bench = Bench::on(bench.disk.process_kill(), bench.config.clone());
            let log = bench.unclean(BootEvidence::SameBoot).unwrap();
            assert_eq!(log.log_end_offset(), Offset(30), "{magic:?} {codec:?}");
            assert_eq!(log.latest_epoch(), (magic == Magic::V2).then_some(LeaderEpoch(3)));
            if magic != Magic::V0 {
                log.set_high_watermark(Offset(30));
                let target = TimestampMs(NOW.get() + 4);
                let found = log
                    .offset_for_timestamp(target, UpperBound::HighWatermark)
                    .unwrap();
                assert_eq!(
                    found.map(|found| found.offset),
                    Some(Offset(12)),
                    "{magic:?} {codec:?}"
                );
            }
        }
    }
}
