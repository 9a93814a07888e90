//! The log manager's recurring work on logs that hold records.

use super::*;
use crate::record_batch::RecordBatchBuilder;
use crate::units::{ProducerEpoch, ProducerId, Sequence};

const WALL: i64 = 1_700_000_000_000;

/// One batch of one record, as a leader would send it.
pub(super) fn batch(offset: i64, producer: Option<i64>, value: &[u8]) -> Vec<u8> {
    let mut builder = RecordBatchBuilder::new().base_offset(Offset(offset));
    if let Some(id) = producer {
        builder = builder.producer(ProducerId(id), ProducerEpoch(0), Some(Sequence(0)));
    }
    builder.append(TimestampMs(WALL), None, Some(value));
    builder.build()
}

pub(super) fn append(log: &Log, values: std::ops::Range<i64>) {
    for offset in values {
        log.append_as_follower(&batch(offset, None, &[b'x'; 1000]))
            .unwrap();
    }
    log.set_high_watermark(log.log_end_offset());
}

pub(super) fn create_with(node: &Node, name: &str, config: LogConfig) -> Arc<Log> {
    node.manager
        .get_or_create(WantedLog {
            config: Arc::new(config),
            ..wanted(name)
        })
        .unwrap()
}

#[test]
fn the_scrub_finds_a_flipped_bit_and_the_partition_stays_out_of_service_until_it_is_mended() {
    let disk = SimulatedDisk::new(1);
    let node = open(&disk, &["/d"]);
    for name in ["t-0", "u-0", "v-0"] {
        append(&node.create(name), 0..50);
    }
    let segment = Path::new("/d/u-0/00000000000000000000.log");
    assert!(disk.flip_bit(segment, 20_000, 3));
    node.pass(seconds(14 * 60));
    assert_eq!(node.observer.told(), [""; 0], "the scrub waits for a quiet time");
    node.pass(seconds(2 * 60));
    assert_eq!(node.observer.told(), ["out of service u-0"]);
    assert!(matches!(
        node.log("u-0").check_serving(),
        Err(StorageError::OutOfService { .. })
    ));
    assert!(node.log("v-0").check_serving().is_ok(), "the scrub went on");
    assert_eq!(node.manager.shutdown().clean.len(), 1);
    drop(node);

    let node = open(&disk, &["/d"]);
    assert_eq!(
        node.partitions(),
        ["t-0", "v-0"],
        "it is checked again in spite of the clean stop"
    );
    node.manager.shutdown();
    drop(node);
    assert!(disk.flip_bit(segment, 20_000, 3));
    let node = open(&disk, &["/d"]);
    assert_eq!(node.partitions(), ["t-0", "u-0", "v-0"]);
    assert_eq!(node.log("u-0").log_end_offset(), Offset(50));
}

#[test]
fn the_scrub_begins_anew_in_a_log_that_was_deleted_and_created_again() {
    let disk = SimulatedDisk::new(1);
    let node = open(&disk, &["/d"]);
    append(&node.create("t-0"), 0..1100);
    // One step, which leaves some of it.
    node.pass(seconds(15 * 60));
    node.manager.delete(&partition("t-0")).unwrap();
    let log = node.create("t-0");
    for offset in 0..2 {
        log.append_as_follower(&batch(offset, None, &vec![b'y'; 700_000]))
            .unwrap();
    }
    node.pass(seconds(60));
    assert_eq!(node.observer.told(), [""; 0]);
    assert!(node.log("t-0").check_serving().is_ok());
}

#[test]
fn a_long_scrub_goes_on_where_it_was_after_a_restart() {
    let disk = SimulatedDisk::new(1);
    let config = LogManagerConfig {
        scrub_bytes_per_second: 1000,
        ..LogManagerConfig::default()
    };
    let node = try_open(&disk, &["/d"], config.clone()).unwrap();
    for name in ["t-0", "u-0", "v-0"] {
        append(&node.create(name), 0..90);
    }
    // One step and some 97 seconds for each log.
    node.pass(seconds(15 * 60 + 180));
    assert_eq!(offsets(&disk, "/d", checkpoints::SCRUB_FILE), ["v-0 0"]);
    node.manager.shutdown();
    drop(node);
    assert!(disk.flip_bit(Path::new("/d/t-0/00000000000000000000.log"), 20_000, 3));
    assert!(disk.flip_bit(Path::new("/d/v-0/00000000000000000000.log"), 20_000, 3));
    let node = try_open(&disk, &["/d"], config).unwrap();
    node.pass(seconds(15 * 60 + 300));
    let found: Vec<String> = node
        .observer
        .told()
        .into_iter()
        .filter(|told| told.starts_with("out of"))
        .collect();
    assert_eq!(found, ["out of service v-0"], "t-0 had been checked before");
    assert_eq!(offsets(&disk, "/d", checkpoints::SCRUB_FILE), [""; 0]);
}

#[test]
fn retention_lets_old_segments_go_and_their_files_follow_after_the_delay() {
    let disk = SimulatedDisk::new(1);
    let node = open(&disk, &["/d"]);
    let config = LogConfig {
        segment_size_bytes: 10_000,
        retention_bytes: Some(25_000),
        ..LogConfig::default()
    };
    let log = create_with(&node, "t-0", config);
    append(&log, 0..90);
    let count = |ending: &str| {
        names(&disk, "/d/t-0")
            .iter()
            .filter(|name| name.ends_with(ending))
            .count()
    };
    let before = log.segment_count();
    assert_eq!(count(".log"), before);
    node.pass(seconds(31));
    assert!(log.segment_count() < before);
    assert!(log.log_start_offset() > Offset(0));
    assert_eq!(count(".log.deleted"), before - log.segment_count());
    node.pass(seconds(61));
    assert_eq!(count(".deleted"), 0);
    assert_eq!(count(".log"), log.segment_count());
    assert_eq!(
        offsets(&disk, "/d", checkpoint::LOG_START_OFFSET_FILE),
        [""; 0],
        "the first segment's name tells"
    );
}

#[test]
fn a_log_start_offset_inside_a_segment_is_kept_by_its_checkpoint() {
    let disk = SimulatedDisk::new(1);
    let node = open(&disk, &["/d"]);
    append(&node.create("t-0"), 0..9);
    let reason = crate::log::LogStartOffsetIncrementReason::ClientRecordDeletion;
    node.log("t-0")
        .advance_log_start_offset(Offset(4), reason)
        .unwrap();
    node.pass(seconds(31));
    assert_eq!(offsets(&disk, "/d", checkpoint::LOG_START_OFFSET_FILE), ["t-0 4"]);
    drop(node);
    let node = open(&disk.process_kill(), &["/d"]);
    assert_eq!(node.log("t-0").log_start_offset(), Offset(4));
    assert_eq!(node.log("t-0").log_end_offset(), Offset(9));
}

#[test]
fn flush_ms_of_a_topic_is_honoured_without_a_broker_setting() {
    let disk = SimulatedDisk::new(1);
    let node = open(&disk, &["/d"]);
    let log = create_with(
        &node,
        "t-0",
        LogConfig {
            flush_ms: Some(2_000),
            ..LogConfig::default()
        },
    );
    node.pass(seconds(40));
    append(&log, 0..5);
    assert_eq!(log.synced_end(), Offset(0));
    node.pass(seconds(5));
    assert_eq!(log.synced_end(), Offset(5));
    let other = node.create("u-0");
    append(&other, 0..5);
    node.pass(seconds(300));
    assert_eq!(other.synced_end(), Offset(0), "by default the kernel decides");
}

#[test]
fn appends_count_against_the_reserve_between_two_looks() {
    let disk = SimulatedDisk::new(1);
    disk.set_capacity(Some(1 << 20));
    let config = LogManagerConfig {
        disk_reserve_bytes: 950_000,
        ..LogManagerConfig::default()
    };
    let node = try_open(&disk, &["/d"], config).unwrap();
    let log = node.create("t-0");
    let mut taken = 0;
    let refusal = loop {
        match log.append_as_follower(&batch(taken, None, &[b'x'; 10_000])) {
            Ok(_) => taken += 1,
            Err(error) => break error,
        }
    };
    assert!(refusal.to_string().contains("less than the reserve"), "{refusal}");
    assert!((5..=10).contains(&taken), "{taken} batches of 10 kB fit in 98 kB");
    assert!(node.manager.directories().all(|directory| directory.is_online()));
}

#[test]
fn idle_producers_are_forgotten_and_the_highest_id_is_known() {
    let disk = SimulatedDisk::new(1);
    let node = open(&disk, &["/d"]);
    let log = node.create("t-0");
    assert_eq!(node.manager.highest_producer_id(), None);
    log.append_as_follower(&batch(0, Some(4711), b"x")).unwrap();
    assert_eq!(node.manager.highest_producer_id(), Some(ProducerId(4711)));
    node.pass(seconds(7 * 24 * 3600 - 700));
    assert_eq!(node.manager.highest_producer_id(), Some(ProducerId(4711)));
    node.pass(seconds(1400));
    assert_eq!(node.manager.highest_producer_id(), None);
}

#[test]
fn a_killed_process_loses_nothing_and_a_power_cut_only_what_was_not_synced() {
    let disk = SimulatedDisk::new(1);
    let node = open(&disk, &["/d"]);
    let log = node.create("t-0");
    append(&log, 0..20);
    log.flush().unwrap();
    append(&log, 20..40);
    node.pass(seconds(31));
    append(&log, 40..60);
    drop(log);
    drop(node);
    let killed = open(&disk.process_kill(), &["/d"]);
    assert_eq!(killed.log("t-0").log_end_offset(), Offset(60));
    assert_eq!(killed.manager.out_of_service(), []);
    for seed in 0..50 {
        let cut = open(&disk.power_cut(seed), &["/d"]);
        let end = cut.log("t-0").log_end_offset();
        assert!((Offset(20)..=Offset(60)).contains(&end), "seed {seed}: {end}");
        assert!(cut.log("t-0").recovery_point() <= end, "seed {seed}");
    }
}

#[test]
fn the_highest_producer_id_counts_those_of_transactional_ids() {
    let disk = SimulatedDisk::new(1);
    let node = open(&disk, &["/d"]);
    node.create("t-0")
        .append_as_follower(&batch(0, Some(5), b"x"))
        .unwrap();
    let state = node.create("__transaction_state-0");
    let value = |version: i16, id: i64| [&version.to_be_bytes()[..], &id.to_be_bytes(), &[0; 20]].concat();
    for (offset, value) in [value(0, 7000), value(0, 300), value(9, 1 << 40), vec![0; 5]]
        .iter()
        .enumerate()
    {
        state
            .append_as_follower(&batch(offset as i64, None, value))
            .unwrap();
    }
    assert_eq!(node.manager.highest_producer_id(), Some(ProducerId(7000)));
}

#[test]
fn checkpoints_and_creations_wait_until_a_truncation_or_another_creation_is_done() {
    let disk = SimulatedDisk::new(1);
    let node = open(&disk, &["/d"]);
    append(&node.create("t-0"), 0..5);
    let manager = &node.manager;
    let home = &manager.homes[0];
    let wait_for_the_gate = |work: &(dyn Fn() + Sync)| {
        std::thread::scope(|scope| {
            let gate = home.checkpoints.recovery_gate.lock();
            let (sender, done) = std::sync::mpsc::channel();
            scope.spawn(move || {
                work();
                sender.send(()).unwrap();
            });
            assert!(
                done.recv_timeout(Duration::from_millis(50)).is_err(),
                "it did not wait"
            );
            drop(gate);
            done.recv().unwrap();
        });
    };
    wait_for_the_gate(&|| {
        manager.get_or_create(wanted("u-0")).unwrap();
    });
    wait_for_the_gate(&|| assert!(manager.write_high_watermarks(home)));
    wait_for_the_gate(&|| assert!(manager.write_log_start_offsets(home)));
    wait_for_the_gate(&|| assert!(manager.write_recovery_points(home).is_some()));
    wait_for_the_gate(&|| assert!(manager.write_state(home, false)));
}
