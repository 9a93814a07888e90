//! What takes records away: truncation, retention and DeleteRecords.

use super::*;

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
fn a_scrub_begins_anew_where_what_it_read_was_cut_and_the_place_filled_again() {
    let bench = Bench::new(LogConfig::default());
    let log = bench.log();
    for _ in 0..4 {
        append_one(&log, batch(1, NOW.get(), 100));
    }
    let mut cursor = ScrubCursor::default();
    let mut checked_bytes = 0;
    for _ in 0..3 {
        checked_bytes += log.scrub(&mut cursor, 1).unwrap().checked_bytes;
    }
    assert!(log.truncate_to(Offset(1)).unwrap());
    append_one(&log, batch(1, NOW.get(), 1000));
    let size_bytes = bench.content("00000000000000000000.log").len() as u64;
    assert!(
        checked_bytes < size_bytes,
        "its place lies within the second batch"
    );
    let progress = log.scrub(&mut cursor, u64::MAX).unwrap();
    assert_eq!((progress.checked_bytes, progress.is_complete), (size_bytes, true));
}

#[test]
fn truncation_leaves_what_clients_may_repeat() {
    // Each roll leaves a snapshot, which has the last batch of each producer. What a client has under way is five batches.
    for end in 36..40 {
        let bench = Bench::new(small_segments());
        let log = bench.log();
        for sequence in 0..40 {
            append_one(&log, idempotent(4, sequence, 1, false));
        }
        assert!(log.truncate_to(Offset(end)).unwrap());
        let end = end as i32;
        for sequence in 0..end {
            let repeated = append_one(&log, idempotent(4, sequence, 1, false));
            assert!(repeated.is_duplicate, "{sequence} of {end}");
        }
        let next = append_one(&log, idempotent(4, end, 1, false));
        assert!(!next.is_duplicate);
    }
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
fn a_log_directory_that_was_taken_away_is_not_made_again() {
    let bench = Bench::new(LogConfig::default());
    bench.disk.remove_dir_all(Path::new("/data")).unwrap();
    let refused = bench.open(&OpenOptions::default()).unwrap_err();
    assert!(refused.to_string().contains("/data/t-0"), "{refused}");
    assert!(!bench.directory.is_online());
    assert_eq!(bench.disk.stat(Path::new("/data")).unwrap(), None);
}
