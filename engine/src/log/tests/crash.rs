//! Faults that scripts of power cuts have found, each told once and in short.
//!
//! A power cut is tried in several images of the disk, as the unsynced part of it may survive in any mixture.

use super::recovery::opened;
use super::*;
use crate::log::leader_epoch_cache::EpochEntry;

/// How many images of each power cut are looked at.
const IMAGES: std::ops::Range<u64> = 0..40;

const FIRST_SEGMENT: &str = "00000000000000000000.log";

fn synced() -> LogConfig {
    LogConfig {
        flush_messages: Some(1),
        ..LogConfig::default()
    }
}

fn segments_left(bench: &Bench) -> Vec<Offset> {
    let names = bench.names();
    let parsed = names.iter().filter_map(|name| names::parse(name));
    parsed
        .filter(|parsed| parsed.kind == names::LOG)
        .map(|parsed| parsed.offset)
        .collect()
}

#[test]
fn deleting_records_syncs_nothing_so_that_the_recovery_point_stays() {
    let bench = Bench::new(LogConfig::default());
    let log = bench.log();
    append_one(&log, batch(10, NOW.get(), 10));
    log.set_high_watermark(Offset(10));
    log.advance_log_start_offset(Offset(5), LogStartOffsetIncrementReason::ClientRecordDeletion)
        .unwrap();
    assert_eq!(
        (log.log_start_offset(), log.recovery_point()),
        (Offset(5), Offset(0))
    );
}

#[test]
fn what_a_roll_changes_of_a_flushed_segment_survives_a_power_cut() {
    let bench = Bench::new(LogConfig {
        preallocate: true,
        ..small_segments()
    });
    let log = bench.log();
    for round in 0..6 {
        append_one(&log, batch(1, NOW.get() + round, 100));
    }
    log.flush().unwrap();
    log.roll().unwrap();
    for seed in IMAGES {
        let image = Bench::on(bench.disk.power_cut(seed), bench.config.clone());
        for name in [
            FIRST_SEGMENT,
            "00000000000000000000.index",
            "00000000000000000000.timeindex",
        ] {
            assert_eq!(image.content(name), bench.content(name), "{name}, image {seed}");
        }
    }
}

#[test]
fn indexes_that_are_rebuilt_where_nothing_is_checked_again_survive_a_power_cut() {
    let bench = Bench::new(small_segments());
    let log = bench.log();
    for round in 0..30 {
        append_one(&log, batch(1, NOW.get() + round, 100));
    }
    log.close().unwrap();
    let name = "00000000000000000000.index";
    let expected = bench.content(name);
    bench.disk.remove_file(&bench.path(name)).unwrap();
    bench.disk.sync_dir(&bench.path("")).unwrap();
    bench.log();
    for seed in IMAGES {
        let image = Bench::on(bench.disk.power_cut(seed), bench.config.clone());
        if image.exists(name) {
            assert_eq!(image.content(name), expected, "image {seed}");
        }
    }
}

#[test]
fn indexes_that_recovery_rebuilds_below_the_recovery_point_survive_a_power_cut() {
    let bench = Bench::new(LogConfig {
        index_interval_bytes: 200,
        ..LogConfig::default()
    });
    let log = bench.log();
    let latest = NOW.get() + 10;
    for timestamp in [NOW.get(), NOW.get(), latest, NOW.get()] {
        append_one(&log, batch(1, timestamp, 300));
    }
    log.flush().unwrap();
    let bench = Bench::on(bench.disk.process_kill(), bench.config.clone());
    // The time index keeps its first entry, which suits the last batch but not the one before.
    for (name, size) in [
        ("00000000000000000000.index", 0),
        ("00000000000000000000.timeindex", 12),
    ] {
        let file = bench.disk.open(&bench.path(name), OpenMode::ReadWrite).unwrap();
        file.set_len(size).unwrap();
        file.sync().unwrap();
    }
    opened(&bench, 4, BootEvidence::OtherBoot).unwrap();
    for seed in IMAGES {
        let image = Bench::on(bench.disk.power_cut(seed), bench.config.clone());
        let log = opened(&image, 4, BootEvidence::OtherBoot).unwrap();
        let found = log.offset_for_timestamp(TimestampMs(latest), UpperBound::LogEnd);
        let offset = found.unwrap().map(|found| found.offset);
        assert_eq!(offset, Some(Offset(2)), "image {seed}");
    }
}

#[test]
fn after_a_clean_stop_and_a_power_cut_producers_are_known() {
    let bench = Bench::new(small_segments());
    let log = bench.log();
    for sequence in 0..4 {
        append_one(&log, idempotent(9, sequence, 1, false));
    }
    // All names are durable but that of the snapshot which the stop writes.
    log.flush().unwrap();
    log.close().unwrap();
    for seed in IMAGES {
        let image = Bench::on(bench.disk.power_cut(seed), bench.config.clone());
        let again = append_one(&image.log(), idempotent(9, 3, 1, false));
        assert!(again.is_duplicate, "image {seed}");
    }
}

#[test]
fn a_batch_in_which_the_log_starts_counts_for_its_producer() {
    let bench = Bench::new(LogConfig::default());
    let log = bench.log();
    append_one(&log, idempotent(9, 0, 3, false));
    let killed = Bench::on(bench.disk.process_kill(), bench.config.clone());
    let log = killed
        .open(&OpenOptions {
            log_start_offset: Some(Offset(1)),
            clean_shutdown: false,
            ..OpenOptions::default()
        })
        .unwrap();
    assert!(append_one(&log, idempotent(9, 0, 3, false)).is_duplicate);
}

#[test]
fn an_epoch_begins_where_its_first_batch_does_when_a_log_start_was_not_kept() {
    for flushed in [false, true] {
        let bench = Bench::new(small_segments());
        let log = bench.log();
        for _ in 0..8 {
            append_one(&log, batch(1, NOW.get(), 100));
        }
        log.set_high_watermark(Offset(8));
        if flushed {
            // Recovery begins behind an index entry.
            log.flush().unwrap();
        }
        log.advance_log_start_offset(Offset(7), LogStartOffsetIncrementReason::ClientRecordDeletion)
            .unwrap();
        let killed = Bench::on(bench.disk.process_kill(), bench.config.clone());
        let log = opened(&killed, log.recovery_point().get(), BootEvidence::SameBoot).unwrap();
        assert_eq!(log.log_start_offset(), Offset(0));
        let first = EpochEntry {
            epoch: LeaderEpoch(3),
            start_offset: Offset(0),
        };
        assert_eq!(log.earliest_epoch(), Some(first), "flushed: {flushed}");
    }
}

#[test]
fn segments_are_deleted_from_the_oldest_on_whenever_the_power_goes() {
    for cut_at in 0.. {
        let bench = Bench::new(small_segments());
        let log = bench.log();
        for round in 0..60 {
            append_one(&log, batch(1, NOW.get() + round, 100));
        }
        log.flush().unwrap();
        log.set_high_watermark(log.log_end_offset());
        let bases = log.segment_base_offsets();
        let active = bases[bases.len() - 1];
        log.advance_log_start_offset(active, LogStartOffsetIncrementReason::ClientRecordDeletion)
            .unwrap();
        bench.disk.cut_power_after(cut_at);
        let deleted = log.delete_old_segments();
        for seed in 0..8 {
            let image = Bench::on(bench.disk.power_cut(seed), bench.config.clone());
            let left = segments_left(&image);
            assert!(bases.ends_with(&left), "cut at {cut_at}, image {seed}: {left:?}");
        }
        if deleted.is_ok() {
            assert!(cut_at > 10);
            return;
        }
    }
}

#[test]
fn a_duplicate_of_a_set_whose_write_failed_is_not_acknowledged() {
    let bench = Bench::new(LogConfig::default());
    let log = bench.log();
    append_one(&log, batch(1, NOW.get(), 10));
    bench.disk.fail_after(0, Fault::ShortWrite);
    let set = idempotent(9, 0, 1, false);
    for result in append(&log, &[set.clone(), set]) {
        assert!(matches!(result, Err(AppendError::Storage(_))), "{result:?}");
    }
}

#[test]
fn the_scrub_sees_a_base_offset_that_no_checksum_covers() {
    let bench = Bench::new(LogConfig::default());
    let log = bench.log();
    append_one(&log, batch(1, NOW.get(), 10));
    let second = log.log_end_metadata().position;
    append_one(&log, batch(1, NOW.get(), 10));
    assert!(bench.disk.flip_bit(&bench.path(FIRST_SEGMENT), second + 7, 0));
    let scrubbed = log.scrub(&mut ScrubCursor::default(), u64::MAX);
    assert!(
        matches!(scrubbed, Err(StorageError::OutOfService { .. })),
        "{scrubbed:?}"
    );
}

#[test]
fn a_segment_that_a_truncation_made_active_again_is_synced_again() {
    let bench = Bench::new(LogConfig {
        flush_messages: Some(1),
        ..small_segments()
    });
    let log = bench.log();
    let append_some = |count| {
        for _ in 0..count {
            append_one(&log, batch(1, NOW.get(), 300));
        }
    };
    append_some(5);
    bench.disk.run_completions(1);
    append_some(1);
    assert_eq!(log.segment_count(), 2);
    // The round that syncs the first segment is under way.
    assert!(log.truncate_to(Offset(3)).unwrap());
    bench.disk.run_completions(1);
    append_some(6);
    assert_eq!(log.segment_count(), 2);
    bench.disk.run_completions(2);
    assert_eq!(log.synced_end(), Offset(9));
    for seed in IMAGES {
        let image = Bench::on(bench.disk.power_cut(seed), bench.config.clone());
        let log = opened(&image, 0, BootEvidence::OtherBoot).unwrap();
        assert_eq!(log.log_end_offset(), Offset(9), "image {seed}");
    }
}

#[test]
fn a_segment_that_a_truncation_made_active_again_during_a_flush_is_synced_again() {
    let bench = Bench::new(small_segments());
    let log = bench.log();
    let append_some = |count| {
        for _ in 0..count {
            append_one(&log, batch(1, NOW.get(), 300));
        }
    };
    append_some(6);
    assert_eq!(log.segment_count(), 2);
    let flush = log.begin_flush().unwrap();
    let synced = log.flush_segments(&flush.segments);
    assert!(log.truncate_to(Offset(3)).unwrap());
    assert_eq!(log.finish_flush(&flush, synced).unwrap(), Offset(0));
    append_some(6);
    assert_eq!(log.segment_count(), 2);
    assert_eq!(log.flush().unwrap(), Offset(9));
    for seed in IMAGES {
        let image = Bench::on(bench.disk.power_cut(seed), bench.config.clone());
        let log = opened(&image, 9, BootEvidence::OtherBoot).unwrap();
        assert_eq!(log.log_end_offset(), Offset(9), "image {seed}");
    }
}

#[test]
fn segments_dropped_below_the_log_start_do_not_come_back() {
    let bench = Bench::new(LogConfig::default());
    let log = bench.log();
    append_one(&log, batch(5, NOW.get(), 300));
    for directory in ["/data", "/data/t-0"] {
        bench.disk.sync_dir(Path::new(directory)).unwrap();
    }
    let image = Bench::on(bench.disk.process_kill(), bench.config.clone());
    assert!(image.disk.flip_bit(&image.path(FIRST_SEGMENT), 400, 3));
    // The records below offset 3 were deleted, those above are torn.
    let options = |recovery_point, synced_end, log_start| OpenOptions {
        recovery_point: Offset(recovery_point),
        synced_end,
        log_start_offset: log_start,
        clean_shutdown: false,
        boot: BootEvidence::OtherBoot,
        ..OpenOptions::default()
    };
    let log = image.open(&options(0, None, Some(Offset(3)))).unwrap();
    assert_eq!(
        (log.log_start_offset(), log.recovery_point()),
        (Offset(3), Offset(3))
    );
    for seed in IMAGES {
        let image = Bench::on(image.disk.power_cut(seed), bench.config.clone());
        // No checkpoint of the log start is kept: the first segment tells.
        let log = image.open(&options(3, Some(Offset(3)), None)).unwrap();
        assert_eq!(log.log_start_offset(), Offset(3), "image {seed}");
    }
}

#[test]
fn what_recovery_cut_does_not_come_back_behind_new_records() {
    let bench = Bench::new(LogConfig::default());
    let log = bench.log();
    // Of one sector, so that the batch behind it may survive by itself.
    let of_a_sector = |timestamp| {
        let mut sized = (0..512).map(|size| batch(1, timestamp, size));
        sized.find(|batch| batch.len() == 512).unwrap()
    };
    append_one(&log, of_a_sector(NOW.get()));
    append_one(&log, of_a_sector(NOW.get()));
    log.flush().unwrap();
    let image = Bench::on(bench.disk.process_kill(), bench.config.clone());
    assert!(image.disk.flip_bit(&image.path(FIRST_SEGMENT), 400, 3));
    let log = opened(&image, 0, BootEvidence::OtherBoot).unwrap();
    assert_eq!(log.log_end_offset(), Offset(0));
    append_one(&log, of_a_sector(NOW.get() + 1));
    for seed in IMAGES {
        let image = Bench::on(image.disk.power_cut(seed), bench.config.clone());
        let log = opened(&image, 0, BootEvidence::OtherBoot).unwrap();
        assert!(
            log.log_end_offset() <= Offset(1),
            "image {seed}: {:?}",
            log.offsets()
        );
    }
}

#[test]
fn a_hole_is_cut_where_a_person_gives_up_what_lies_behind_it_and_nowhere_else() {
    let bench = recovery::damaged(synced(), 2, 3);
    let given_up = |from| {
        bench.open(&OpenOptions {
            clean_shutdown: false,
            boot: BootEvidence::OtherBoot,
            given_up_from: from,
            ..OpenOptions::default()
        })
    };
    let before = bench.content(FIRST_SEGMENT);
    for from in [None, Some(Offset(2)), Some(Offset(4))] {
        match given_up(from) {
            Err(LogOpenError::OutOfService { reason, .. }) => assert!(
                reason.contains("create the empty file /data/t-0/milena.give-up-from-3 and"),
                "{reason}"
            ),
            other => panic!("{from:?}: {other:?}"),
        }
        assert_eq!(bench.content(FIRST_SEGMENT), before);
    }
    let log = given_up(Some(Offset(3))).unwrap();
    assert_eq!((log.log_end_offset(), log.synced_end()), (Offset(3), Offset(3)));
    let aside = bench.names().into_iter().find(|name| name.contains(".log.cut-"));
    let kept = bench.content(FIRST_SEGMENT);
    assert_eq!([kept, bench.content(&aside.unwrap())].concat(), before);
}

#[test]
fn segments_behind_a_cut_go_from_the_newest_on_whenever_the_power_goes() {
    let bench = Bench::new(LogConfig {
        flush_messages: Some(1),
        ..small_segments()
    });
    let log = bench.log();
    for _ in 0..30 {
        append_one(&log, batch(1, NOW.get(), 300));
    }
    log.flush().unwrap();
    let bases = log.segment_base_offsets();
    let given_up = OpenOptions {
        clean_shutdown: false,
        given_up_from: Some(Offset(2)),
        ..OpenOptions::default()
    };
    for cut_at in 0.. {
        let damaged = Bench::on(bench.disk.process_kill(), bench.config.clone());
        assert!(damaged.disk.flip_bit(&damaged.path(FIRST_SEGMENT), 900, 3));
        damaged.disk.cut_power_after(cut_at);
        let opened = damaged.open(&given_up);
        for seed in 0..4 {
            let image = Bench::on(damaged.disk.power_cut(seed), bench.config.clone());
            let left = segments_left(&image);
            assert!(
                bases.starts_with(&left),
                "cut at {cut_at}, image {seed}: {left:?}"
            );
            let log = image.open(&given_up).unwrap();
            assert_eq!(log.log_end_offset(), Offset(2));
        }
        if opened.is_ok() {
            assert!(cut_at > 10);
            return;
        }
    }
}

#[test]
fn a_truncation_over_several_segments_leaves_no_hole_whenever_the_process_or_the_power_goes() {
    let target = Offset(3);
    for cut_at in 0.. {
        let bench = Bench::new(small_segments());
        let log = bench.log();
        for _ in 0..22 {
            append_one(&log, batch(1, NOW.get(), 300));
        }
        log.flush().unwrap();
        let bases = log.segment_base_offsets();
        assert!(bases.len() >= 4 && bases[1] > target);
        bench.disk.cut_power_after(cut_at);
        let truncated = log.truncate_to(target);
        let killed = std::iter::once((bench.disk.process_kill(), BootEvidence::SameBoot));
        let cut = (0..8).map(|seed| (bench.disk.power_cut(seed), BootEvidence::OtherBoot));
        for (disk, boot) in killed.chain(cut) {
            let image = Bench::on(disk, bench.config.clone());
            let left = segments_left(&image);
            assert!(bases.starts_with(&left), "cut at {cut_at}, {boot:?}: {left:?}");
            let log = opened(&image, target.get(), boot).unwrap();
            let end = log.log_end_offset();
            let found = offsets_from(&log, Offset(0));
            assert!(end >= target);
            assert!(
                found
                    .into_iter()
                    .eq((0..end.get()).map(|offset| (offset, offset))),
                "cut at {cut_at}"
            );
        }
        if truncated.is_ok() {
            assert!(cut_at > 10);
            return;
        }
    }
}

#[test]
fn snapshots_of_a_branch_that_was_cut_do_not_come_back() {
    type Cut = fn(&Log);
    let cuts: [(i64, Cut); 2] = [
        (13, |log| assert!(log.truncate_to(Offset(13)).unwrap())),
        (0, |log| log.truncate_fully_and_start_at(Offset(100)).unwrap()),
    ];
    for (kept_until, cut) in cuts {
        let bench = Bench::new(small_segments());
        let log = bench.log();
        for sequence in 0..60 {
            append_one(&log, idempotent(4, sequence, 1, false));
        }
        log.flush().unwrap();
        let snapshots = |bench: &Bench| {
            let names = bench.names();
            let parsed = names.iter().filter_map(|name| names::parse(name));
            let snapshots = parsed.filter(|parsed| parsed.kind == names::SNAPSHOT);
            snapshots.map(|parsed| parsed.offset.get()).max().unwrap_or(0)
        };
        assert!(snapshots(&bench) > kept_until);
        cut(&log);
        for seed in IMAGES {
            let image = Bench::on(bench.disk.power_cut(seed), bench.config.clone());
            assert!(snapshots(&image) <= kept_until, "image {seed}");
        }
    }
}

#[test]
fn what_a_failed_sync_left_in_memory_alone_is_written_again_by_the_next_start() {
    let bench = Bench::new(synced());
    let log = bench.log();
    append_one(&log, batch(3, NOW.get(), 700));
    bench.disk.run_completions(1);
    assert_eq!(log.synced_end(), Offset(3));
    let lost = || {
        let mut builder =
            RecordBatchBuilder::new().producer(ProducerId(9), ProducerEpoch(0), Some(Sequence(0)));
        builder.append(NOW, None, Some(&[b'y'; 9000]));
        builder.build()
    };
    append_one(&log, lost());
    bench.disk.fail_after(0, Fault::FailedSync);
    bench.disk.run_completions(1);
    assert!(!bench.directory.is_online());
    let options = |recovery_point, synced_end, boot| OpenOptions {
        recovery_point: Offset(recovery_point),
        synced_end,
        clean_shutdown: false,
        boot,
        ..OpenOptions::default()
    };
    for (recovery_point, synced_end) in [(0, None), (0, Some(Offset(3))), (3, Some(Offset(3)))] {
        // Whether it is known for the same boot or not.
        for boot in [BootEvidence::SameBoot, BootEvidence::OtherBoot] {
            let next = Bench::on(bench.disk.process_kill(), bench.config.clone());
            let log = next.open(&options(recovery_point, synced_end, boot)).unwrap();
            assert!(append_one(&log, lost()).is_duplicate);
            assert_eq!(log.synced_end(), Offset(4));
            next.disk.drop_caches();
            assert_eq!(offsets_from(&log, Offset(0)), [(0, 2), (3, 3)]);
            for seed in IMAGES {
                let image = Bench::on(next.disk.power_cut(seed), bench.config.clone());
                let options = options(4, Some(Offset(4)), BootEvidence::OtherBoot);
                let log = image.open(&options).unwrap();
                assert_eq!(log.log_end_offset(), Offset(4), "image {seed}");
            }
        }
    }
}

#[test]
fn what_is_known_to_be_synced_is_not_written_again() {
    let bench = Bench::new(LogConfig {
        segment_size_bytes: 3 << 20,
        ..synced()
    });
    let log = bench.log();
    for _ in 0..9 {
        append_one(&log, batch(1, NOW.get(), 900_000));
    }
    assert_eq!(log.segment_count(), 3);
    for (synced_end, expected_writes) in [(0, 6), (4, 3), (8, 1), (9, 0)] {
        let next = Bench::on(bench.disk.process_kill(), bench.config.clone());
        next.disk.start_trace();
        let log = next
            .open(&OpenOptions {
                synced_end: Some(Offset(synced_end)),
                clean_shutdown: false,
                ..OpenOptions::default()
            })
            .unwrap();
        let trace = next.disk.trace();
        let writes = trace
            .iter()
            .filter(|line| line.contains("pwritev") && line.ends_with(".log"));
        assert_eq!(writes.count(), expected_writes, "from {synced_end}: {trace:?}");
        assert_eq!(log.synced_end(), Offset(9));
    }
}
