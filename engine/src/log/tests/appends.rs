//! Appends of a leader and of a follower: offsets, the bytes on disk, what is refused, and what is read back.

use super::*;

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
