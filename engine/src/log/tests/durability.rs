//! When an append counts as durable, and that the first failure of a write or a sync is final.

use super::*;

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
fn a_log_that_is_deleted_while_it_is_flushed_takes_nothing_offline() {
    for is_deleted in [true, false] {
        let bench = Bench::new(LogConfig::default());
        let log = bench.log();
        append_one(&log, batch(1, NOW.get(), 10));
        let flush = log.begin_flush().unwrap();
        let synced = log.flush_segments(&flush.segments);
        if is_deleted {
            log.abandon();
        }
        bench.disk.remove_dir_all(Path::new("/data/t-0")).unwrap();
        assert!(log.finish_flush(&flush, synced).is_err());
        assert_eq!(bench.directory.is_online(), is_deleted);
    }
}

#[test]
fn a_flush_that_succeeds_after_another_sync_failed_makes_nothing_durable() {
    let bench = Bench::new(LogConfig::default());
    let log = bench.log();
    append_one(&log, batch(1, NOW.get(), 10));
    let flush = log.begin_flush().unwrap();
    let synced = log.flush_segments(&flush.segments);
    assert!(synced.is_ok());
    bench
        .directory
        .take_offline("the other sync heard of the failed write".to_owned());
    assert!(log.finish_flush(&flush, synced).is_err());
    assert_eq!((log.synced_end(), log.recovery_point()), (Offset(0), Offset(0)));
}

#[test]
fn a_sync_under_way_while_its_log_gets_another_name_is_repeated_under_that_name() {
    let bench = Bench::new(LogConfig {
        flush_messages: Some(1),
        ..LogConfig::default()
    });
    let log = bench.log();
    append_one(&log, batch(1, NOW.get(), 10));
    let told = Arc::new(AtomicUsize::new(0));
    let seen = told.clone();
    log.when_synced(
        Offset(1),
        Box::new(move |result| {
            result.unwrap();
            seen.fetch_add(1, Ordering::Relaxed);
        }),
    );
    assert!(bench.disk.submitted_count() > 1, "the names are synced, too");
    log.rename("t-0.moved").unwrap();
    bench.disk.run_completions(1);
    assert!(bench.directory.is_online());
    assert_eq!((told.load(Ordering::Relaxed), log.synced_end()), (1, Offset(1)));
}
