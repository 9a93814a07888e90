//! What stops, kills, power cuts and damage leave of a log.

use super::*;

#[test]
fn indexes_follow_the_rules_and_equal_their_rebuild() {
    let bench = Bench::new(small_segments());
    let log = bench.log();
    for round in 0..40 {
        for result in append(
            &log,
            &[
                batch(1, NOW.get() + round, 40),
                batch(2, NOW.get() + round / 2, 90),
            ],
        ) {
            result.unwrap();
        }
    }
    assert!(log.segment_count() > 3);
    let expected = offsets_from(&log, Offset(0));
    log.close().unwrap();
    let indexes: Vec<String> = bench
        .names()
        .into_iter()
        .filter(|name| name.contains("index"))
        .collect();
    let before: Vec<_> = indexes.iter().map(|name| bench.content(name)).collect();
    assert!(before.iter().any(|bytes| bytes.len() > 16));
    for name in &indexes {
        bench.disk.remove_file(&bench.path(name)).unwrap();
    }
    let log = bench.log();
    assert_eq!(offsets_from(&log, Offset(0)), expected);
    for (name, before) in indexes.iter().zip(&before) {
        assert_eq!(&bench.content(name), before, "{name} rebuilt after a clean stop");
        bench.disk.remove_file(&bench.path(name)).unwrap();
    }
    log.abandon();
    bench.unclean(BootEvidence::SameBoot).unwrap();
    for (name, before) in indexes.iter().zip(&before) {
        assert_eq!(
            &bench.content(name),
            before,
            "{name} rebuilt after an unclean stop"
        );
    }
}

#[test]
fn a_clean_stop_and_start_changes_nothing() {
    let bench = Bench::new(small_segments());
    let log = bench.log();
    for sequence in 0..20 {
        append_one(&log, idempotent(9, sequence * 3, 3, false));
    }
    let (end, expected) = (log.log_end_offset(), offsets_from(&log, Offset(0)));
    log.close().unwrap();
    assert!(matches!(
        append(&log, &[batch(1, 0, 1)])[0],
        Err(AppendError::Storage(_))
    ));
    let files: Vec<_> = bench.names();
    assert!(bench.exists("00000000000000000060.snapshot"));
    let log = bench.log();
    assert_eq!(bench.names(), files);
    assert_eq!(
        (log.log_end_offset(), log.recovery_point(), log.synced_end()),
        (end, end, end)
    );
    assert_eq!(offsets_from(&log, Offset(0)), expected);
    assert_eq!(log.largest_producer_id(), Some(ProducerId(9)));
    let again = append_one(&log, idempotent(9, 57, 3, false));
    assert!(again.is_duplicate);
    assert_eq!(
        (again.first_offset, again.last_offset),
        (Some(Offset(57)), Offset(59))
    );
    assert_eq!(
        append_one(&log, idempotent(9, 60, 3, false)).first_offset,
        Some(Offset(60))
    );
}

#[test]
fn a_kill_loses_nothing_and_producer_state_is_kept() {
    let bench = Bench::new(small_segments());
    let log = bench.log();
    for sequence in 0..30 {
        append_one(&log, idempotent(4, sequence, 1, false));
    }
    let expected = offsets_from(&log, Offset(0));
    let bench = Bench::on(bench.disk.process_kill(), bench.config.clone());
    let log = bench.unclean(BootEvidence::SameBoot).unwrap();
    assert_eq!(log.log_end_offset(), Offset(30));
    assert_eq!(offsets_from(&log, Offset(0)), expected);
    assert!(append_one(&log, idempotent(4, 29, 1, false)).is_duplicate);
    assert_eq!(
        append_one(&log, idempotent(4, 30, 1, false)).first_offset,
        Some(Offset(30))
    );
    assert_eq!(log.recovery_point(), Offset(0), "verified is not synced");
}

/// Writes six batches, flushing after the first `flushed`, and damages the one at `index`.
pub(super) fn damaged(config: LogConfig, flushed: usize, index: usize) -> Bench {
    let bench = Bench::new(config);
    let log = bench.log();
    let mut positions = Vec::new();
    for round in 0..6 {
        positions.push(log.log_end_metadata().position);
        append_one(&log, batch(1, NOW.get(), 64));
        if round + 1 == flushed {
            log.flush().unwrap();
        }
    }
    let bench = Bench::on(bench.disk.process_kill(), bench.config.clone());
    assert!(
        bench
            .disk
            .flip_bit(&bench.path("00000000000000000000.log"), positions[index] + 80, 3)
    );
    bench
}

pub(super) fn opened(
    bench: &Bench,
    recovery_point: i64,
    boot: BootEvidence,
) -> Result<Arc<Log>, LogOpenError> {
    let recovery_point = Offset(recovery_point);
    bench.open(&OpenOptions {
        recovery_point,
        clean_shutdown: false,
        boot,
        ..OpenOptions::default()
    })
}

#[test]
fn after_a_power_loss_the_log_is_cut_at_the_first_bad_batch_and_the_rest_kept_aside() {
    let bench = damaged(LogConfig::default(), 2, 3);
    let before = bench.content("00000000000000000000.log");
    let log = opened(&bench, 2, BootEvidence::OtherBoot).unwrap();
    assert_eq!(log.log_end_offset(), Offset(3));
    let kept = bench.content("00000000000000000000.log");
    assert_eq!(kept, before[..kept.len()]);
    let aside = bench
        .names()
        .into_iter()
        .find(|name| name.contains(".log.cut-"))
        .expect("kept aside");
    assert_eq!(bench.content(&aside), before[kept.len()..]);
    assert_eq!(
        append_one(&log, batch(1, NOW.get(), 10)).first_offset,
        Some(Offset(3))
    );
    log.close().unwrap();
    assert_eq!(
        bench.log().log_end_offset(),
        Offset(4),
        "the file kept aside is no part of the log"
    );
}

#[test]
fn a_bad_batch_where_data_must_be_whole_leaves_the_files_untouched() {
    let synced = LogConfig {
        flush_messages: Some(1),
        ..LogConfig::default()
    };
    let cases = [
        ("same boot", LogConfig::default(), 0, 3, BootEvidence::SameBoot),
        (
            "same boot, the last batch",
            LogConfig::default(),
            0,
            5,
            BootEvidence::SameBoot,
        ),
        ("synced mode with a hole", synced, 0, 3, BootEvidence::OtherBoot),
    ];
    for (case, config, recovery_point, index, boot) in cases {
        let bench = damaged(config, 0, index);
        let (names, bytes) = (bench.names(), bench.content("00000000000000000000.log"));
        match opened(&bench, recovery_point, boot) {
            Err(LogOpenError::OutOfService { reason, .. }) => {
                assert!(reason.contains("kafka-dump-log.sh"), "{case}: {reason}");
                assert!(reason.contains("00000000000000000000.log"), "{case}: {reason}");
            }
            other => panic!("{case}: {other:?}"),
        }
        assert_eq!(bench.names(), names, "{case}");
        assert_eq!(bench.content("00000000000000000000.log"), bytes, "{case}");
        assert!(bench.directory.is_online(), "{case}");
    }
}

/// After a power cut.
fn opened_where_others_have_copies(bench: &Bench) -> Arc<Log> {
    let options = OpenOptions {
        clean_shutdown: false,
        boot: BootEvidence::OtherBoot,
        cuts_holes: true,
        ..OpenOptions::default()
    };
    bench.open(&options).unwrap()
}

#[test]
fn a_hole_in_synced_records_is_cut_where_others_have_copies_and_the_log_says_so() {
    let synced = LogConfig {
        flush_messages: Some(1),
        ..LogConfig::default()
    };
    for (index, is_hole) in [(3, true), (5, false)] {
        let bench = damaged(synced.clone(), 0, index);
        let log = opened_where_others_have_copies(&bench);
        assert_eq!(log.log_end_offset(), Offset(index as i64));
        assert_eq!(log.has_cut_hole(), is_hole);
        let is_aside = |name: &String| name.contains(".log.cut-");
        assert!(bench.names().iter().any(is_aside), "kept aside");
    }
}

#[test]
fn a_hole_between_segments_of_synced_records_is_told_as_well() {
    let config = LogConfig {
        flush_messages: Some(1),
        segment_size_bytes: 200,
        ..LogConfig::default()
    };
    let bench = Bench::new(config);
    let log = bench.log();
    for _ in 0..6 {
        append_one(&log, batch(1, NOW.get(), 64));
    }
    let bases = log.segment_base_offsets();
    let bench = Bench::on(bench.disk.process_kill(), bench.config.clone());
    // A segment ends, at the edge of a batch, before the next begins.
    let path = bench.path(&format!("{:020}.log", bases[1].get()));
    let file = bench.disk.open(&path, OpenMode::ReadWrite).unwrap();
    file.set_len(0).unwrap();
    let log = opened_where_others_have_copies(&bench);
    assert_eq!(log.log_end_offset(), bases[1]);
    assert!(log.has_cut_hole());
}

#[test]
fn damage_below_the_recovery_point_is_found_where_headers_are_walked_or_read() {
    let bench = damaged(LogConfig::default(), 6, 3);
    // Below the recovery point the CRC is the scrub's to check.
    let log = opened(&bench, 6, BootEvidence::OtherBoot).unwrap();
    let mut cursor = ScrubCursor::default();
    let error = log.scrub(&mut cursor, u64::MAX).unwrap_err();
    assert!(matches!(error, StorageError::OutOfService { .. }), "{error}");
    assert!(log.out_of_service().is_some());
    assert!(matches!(
        append(&log, &[batch(1, 0, 1)])[0],
        Err(AppendError::Storage(_))
    ));
    assert!(matches!(
        log.read(Offset(0), 10, UpperBound::LogEnd, true),
        Err(ReadError::Storage(_))
    ));
}

#[test]
fn a_torn_tail_of_unacknowledged_records_is_cut_in_synced_mode_too() {
    let bench = damaged(
        LogConfig {
            flush_messages: Some(1),
            ..LogConfig::default()
        },
        0,
        5,
    );
    let log = opened(&bench, 2, BootEvidence::OtherBoot).unwrap();
    assert_eq!(log.log_end_offset(), Offset(5));
    assert_eq!(
        log.synced_end(),
        Offset(5),
        "what was recovered is synced before it is read"
    );
}

#[test]
fn a_write_that_a_kill_interrupted_is_cut() {
    let bench = damaged(LogConfig::default(), 0, 0);
    let path = bench.path("00000000000000000000.log");
    assert!(bench.disk.flip_bit(&path, 80, 3), "undo the damage");
    let file = bench.disk.open(&path, OpenMode::ReadWrite).unwrap();
    file.set_len(file.size_bytes().unwrap() - 20).unwrap();
    assert_eq!(
        opened(&bench, 0, BootEvidence::SameBoot)
            .unwrap()
            .log_end_offset(),
        Offset(5)
    );
}

#[test]
fn preallocated_space_is_the_end_of_the_log() {
    let bench = Bench::new(LogConfig {
        preallocate: true,
        ..small_segments()
    });
    let log = bench.log();
    for _ in 0..3 {
        append_one(&log, batch(1, NOW.get(), 10));
    }
    assert_eq!(bench.content("00000000000000000000.log").len(), 2048);
    for boot in [BootEvidence::SameBoot, BootEvidence::OtherBoot] {
        let bench = Bench::on(bench.disk.process_kill(), bench.config.clone());
        let log = bench.unclean(boot).unwrap();
        assert_eq!(log.log_end_offset(), Offset(3));
        assert!(!bench.names().iter().any(|name| name.contains("cut")));
        assert_eq!(
            append_one(&log, batch(1, NOW.get(), 10)).first_offset,
            Some(Offset(3))
        );
    }
    log.close().unwrap();
    assert_eq!(
        bench.content("00000000000000000000.log").len() as u64,
        log.size_bytes(),
        "trimmed at the close"
    );
}

#[test]
fn a_wrong_index_entry_is_harmless() {
    let bench = Bench::new(small_segments());
    let log = bench.log();
    for _ in 0..15 {
        append_one(&log, batch(2, NOW.get(), 30));
    }
    let expected = offsets_from(&log, Offset(0));
    log.close().unwrap();
    let name = "00000000000000000000.index";
    let size = bench.content(name).len() as u64;
    for position in 0..size {
        bench
            .disk
            .flip_bit(&bench.path(name), position, (position % 8) as u8);
        let log = bench.log();
        for offset in 0..30 {
            assert_eq!(
                offsets_from(&log, Offset(offset)).len(),
                expected.len() - offset as usize / 2,
                "{position}"
            );
        }
        log.abandon();
        bench
            .disk
            .flip_bit(&bench.path(name), position, (position % 8) as u8);
    }
}

#[test]
fn leftovers_of_interrupted_operations_are_settled_as_in_kafka() {
    let bench = Bench::new(small_segments());
    let log = bench.log();
    for _ in 0..40 {
        append_one(&log, batch(1, NOW.get(), 100));
    }
    let bases = log.segment_base_offsets();
    let expected = offsets_from(&log, Offset(0));
    log.close().unwrap();
    let write = |name: &str, bytes: &[u8]| replace(&bench, name, bytes);
    // A compaction of the first two segments was complete but not in place.
    let mut merged = bench.content("00000000000000000000.log");
    merged.extend(bench.content(&format!("{:020}.log", bases[1].get())));
    write("00000000000000000000.log.swap", &merged);
    write("00000000000000000000.index.swap", b"12345678");
    write("00000000000000000700.log.deleted", b"gone");
    write("00000000000000000500.index", b"orphan00");
    write("00000000000000000900.log.cleaned", b"incomplete");
    write("00000000000000000950.log.swap", b"part of a split");
    write("notes.txt", b"a person's");
    let log = bench.log();
    assert_eq!(log.segment_count(), bases.len() - 1);
    assert_eq!(offsets_from(&log, Offset(0)), expected);
    for name in bench.names() {
        let is_left = ["swap", "deleted", "cleaned"]
            .iter()
            .any(|ending| name.ends_with(ending));
        assert!(!is_left && !name.contains("00500"), "{name}");
    }
    assert!(bench.exists("notes.txt"));
}

#[test]
fn power_cuts_at_any_moment_leave_a_prefix_and_all_that_was_synced() {
    for synced in [false, true] {
        let config = LogConfig {
            flush_messages: synced.then_some(1),
            ..small_segments()
        };
        for seed in 0..150u64 {
            let bench = Bench::new(config.clone());
            let log = bench.log();
            bench.disk.cut_power_after(3 + seed);
            let acked = Arc::new(AtomicUsize::new(0));
            for round in 0..60 {
                let result = append(
                    &log,
                    &[batch(1, NOW.get() + round, 60 + (round as usize * 37) % 200)],
                );
                let Ok(info) = &result[0] else { break };
                if let Some(upto) = info.sync_before_ack {
                    let acked = acked.clone();
                    log.when_synced(
                        upto,
                        Box::new(move |result| {
                            if result.is_ok() {
                                acked.fetch_max(upto.get() as usize, Ordering::Relaxed);
                            }
                        }),
                    );
                }
                if round % 3 == 0 {
                    bench.disk.run_completions(seed + round as u64);
                }
                if !synced && round == 30 && log.flush().is_err() {
                    break;
                }
            }
            let (synced_end, recovery_point) = (log.synced_end(), log.recovery_point());
            let end = log.log_end_offset();
            let all = offsets_before_cut(end);
            for image in 0..4 {
                let bench = Bench::on(bench.disk.power_cut(seed * 31 + image), config.clone());
                let options = OpenOptions {
                    recovery_point,
                    clean_shutdown: false,
                    boot: BootEvidence::OtherBoot,
                    ..OpenOptions::default()
                };
                let log = match bench.open(&options) {
                    Ok(log) => log,
                    // Unacknowledged records in flight may look like a hole: refused rather than guessed.
                    Err(LogOpenError::OutOfService { .. }) if synced => continue,
                    Err(error) => panic!("seed {seed} image {image}: {error}"),
                };
                let found = offsets_from(&log, Offset(0));
                assert_eq!(
                    found[..],
                    all[..found.len()],
                    "seed {seed} image {image}: a prefix without gaps"
                );
                assert!(
                    log.log_end_offset() >= synced_end,
                    "seed {seed} image {image}: {:?}",
                    log.offsets()
                );
                assert!(log.log_end_offset().get() as usize >= acked.load(Ordering::Relaxed));
                append_one(&log, batch(1, NOW.get(), 10));
            }
        }
    }
}

fn offsets_before_cut(end: Offset) -> Vec<(i64, i64)> {
    (0..end.get() + 1).map(|offset| (offset, offset)).collect()
}

fn replace(bench: &Bench, name: &str, bytes: &[u8]) {
    let file = bench.disk.open(&bench.path(name), OpenMode::Truncate).unwrap();
    file.write_vectored_at(0, &[std::io::IoSlice::new(bytes)])
        .unwrap();
}

/// Recovers `bench` twice, the second time after a kill, and compares what the two find and leave.
fn assert_a_second_recovery_agrees(bench: &Bench, recovery_point: i64) {
    let recovered = |bench: &Bench, recovery_point, boot| {
        let log = opened(bench, recovery_point, boot).unwrap();
        let epochs = log.state.lock().epochs.entries().to_vec();
        let files: Vec<_> = bench
            .names()
            .into_iter()
            .map(|name| (bench.content(&name), name))
            .collect();
        (log.recovery_point(), log.offsets(), epochs, files)
    };
    let first = recovered(bench, recovery_point, BootEvidence::OtherBoot);
    let killed = Bench::on(bench.disk.process_kill(), bench.config.clone());
    let second = recovered(&killed, first.0.get(), BootEvidence::SameBoot);
    assert_eq!(second, first);
}

#[test]
fn a_second_recovery_finds_the_epochs_where_the_log_starts_before_its_first_batch() {
    let bench = Bench::new(LogConfig::default());
    let log = bench
        .open(&OpenOptions {
            log_start_offset: Some(Offset(48)),
            ..OpenOptions::default()
        })
        .unwrap();
    for _ in 0..3 {
        append_one(&log, batch(1, NOW.get(), 64));
    }
    log.flush().unwrap();
    let bench = Bench::on(bench.disk.process_kill(), bench.config.clone());
    let mut bytes = bench.content("00000000000000000048.log");
    bytes[..8].copy_from_slice(&458_800_i64.to_be_bytes());
    replace(&bench, "00000000000000000048.log", &bytes);
    replace(&bench, names::LEADER_EPOCHS, b"0\n1\n3 0\n");
    assert_a_second_recovery_agrees(&bench, 48);
}

#[test]
fn a_second_recovery_does_not_find_an_epoch_that_the_first_dropped() {
    let bench = Bench::new(LogConfig {
        index_interval_bytes: 200,
        ..LogConfig::default()
    });
    let log = bench.log();
    for _ in 0..30 {
        append_one(&log, batch(1, NOW.get(), 64));
    }
    log.flush().unwrap();
    let bench = Bench::on(bench.disk.process_kill(), bench.config.clone());
    // No batch is of epoch 7. Without the index all are walked; once it is built anew, the last alone.
    replace(&bench, names::LEADER_EPOCHS, b"0\n2\n3 0\n7 25\n");
    bench
        .disk
        .remove_file(&bench.path("00000000000000000000.index"))
        .unwrap();
    assert_a_second_recovery_agrees(&bench, 30);
}

#[test]
fn an_index_entry_behind_the_log_end_is_not_believed() {
    let bench = Bench::new(LogConfig {
        index_interval_bytes: 200,
        ..LogConfig::default()
    });
    let log = bench.log();
    for _ in 0..3 {
        append_one(&log, batch(3, NOW.get(), 64));
    }
    let last = log.log_end_metadata().position as u32;
    append_one(&log, batch(1, NOW.get(), 64));
    log.flush().unwrap();
    let bench = Bench::on(bench.disk.process_kill(), bench.config.clone());
    let entry = [11u32.to_be_bytes(), last.to_be_bytes()].concat();
    replace(&bench, "00000000000000000000.index", &entry);
    assert_a_second_recovery_agrees(&bench, 12);
}

#[test]
fn a_transaction_index_that_ends_within_an_entry_is_built_anew() {
    let bench = Bench::new(LogConfig::default());
    let log = bench.log();
    for id in [1, 2] {
        append_one(&log, idempotent(id, 0, 1, true));
        let marker = [marker(id, ControlKind::Abort)];
        assert!(append_from(&log, AppendOrigin::Coordinator, &marker)[0].is_ok());
    }
    log.close().unwrap();
    let name = "00000000000000000000.txnindex";
    let expected = bench.content(name);
    assert_eq!(expected.len(), 68);
    for clean_shutdown in [true, false] {
        for size in [7, 50] {
            let bench = Bench::on(bench.disk.process_kill(), bench.config.clone());
            replace(&bench, name, &expected[..size]);
            let options = OpenOptions {
                recovery_point: Offset(4),
                clean_shutdown,
                ..OpenOptions::default()
            };
            bench.open(&options).unwrap();
            assert_eq!(
                bench.content(name),
                expected,
                "clean: {clean_shutdown}, {size} bytes"
            );
        }
    }
}

#[test]
fn a_segment_that_compaction_emptied_is_no_lost_one() {
    let compacted = LogConfig {
        cleanup_policy: CleanupPolicy {
            delete: false,
            compact: true,
        },
        ..small_segments()
    };
    let cases = [
        (
            "nothing says so",
            small_segments(),
            BootEvidence::OtherBoot,
            None,
            0,
        ),
        ("the setting", compacted, BootEvidence::OtherBoot, None, 30),
        (
            "the cleaner",
            small_segments(),
            BootEvidence::OtherBoot,
            Some(Offset(30)),
            30,
        ),
        ("nothing at all", small_segments(), BootEvidence::Unknown, None, 0),
    ];
    for (case, config, boot, cleaned_end, end) in cases {
        let bench = Bench::new(small_segments());
        let log = bench.log();
        for _ in 0..30 {
            append_one(&log, batch(1, NOW.get(), 300));
        }
        assert!(log.segment_count() > 3);
        let bench = Bench::on(bench.disk.process_kill(), config);
        for name in bench.names() {
            if name.starts_with("00000000000000000000.") {
                bench.disk.open(&bench.path(&name), OpenMode::Truncate).unwrap();
            }
        }
        let log = bench.open(&OpenOptions {
            clean_shutdown: false,
            boot,
            cleaned_end,
            ..OpenOptions::default()
        });
        assert_eq!(log.unwrap().log_end_offset(), Offset(end), "{case}");
    }
}
