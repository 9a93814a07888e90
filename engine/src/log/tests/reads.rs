//! Reads and look-ups: bounds by size, high watermark and last stable offset; indexes, timestamps, aborted
//! transactions.

use super::*;

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
fn a_read_of_a_segment_that_retention_has_just_let_go_is_refused() {
    let bench = Bench::new(small_segments());
    let log = bench.log();
    for _ in 0..40 {
        append_one(&log, batch(1, NOW.get(), 100));
    }
    log.set_high_watermark(Offset(40));
    let bases = log.segment_base_offsets();
    // As retention does; the log start is raised later.
    let kept = log.segments.load()[1..].to_vec();
    log.segments.store(Arc::new(kept));
    let refused = |result: Option<ReadError>| match result {
        Some(ReadError::OffsetOutOfRange { log_start_offset, .. }) => assert_eq!(log_start_offset, bases[1]),
        other => panic!("{other:?}"),
    };
    for offset in [Offset(0), Offset(bases[1].get() - 1)] {
        refused(log.read(offset, 1000, UpperBound::HighWatermark, true).err());
        refused(log.offset_metadata(offset).err());
    }
    let info = log.read(bases[1], 1000, UpperBound::HighWatermark, true).unwrap();
    assert!(info.size_bytes() > 0);
}
