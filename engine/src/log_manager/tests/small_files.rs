//! When the small files are written, what they say, and that an idle broker writes none.

use super::records::{append, create_with};
use super::*;
use crate::io::simulated::Completions;
use crate::log::LogStartOffsetIncrementReason;

#[test]
fn an_idle_broker_writes_nothing() {
    let disk = SimulatedDisk::new(1);
    let node = open(&disk, &["/d", "/e"]);
    for number in 0..4 {
        node.create(&format!("t-{number}"));
    }
    node.pass(seconds(70));
    let before = disk.op_count();
    node.pass(seconds(24 * 3600));
    assert_eq!(disk.op_count(), before, "{:?}", disk.trace());
}

#[test]
fn logs_of_which_nothing_was_synced_cost_no_checkpoint_of_recovery_points() {
    let disk = SimulatedDisk::new(1);
    let node = open(&disk, &["/d"]);
    node.create("t-0");
    node.pass(seconds(6));
    let before = disk.op_count();
    node.pass(seconds(24 * 3600));
    assert_eq!(disk.op_count(), before, "{:?}", disk.trace());
    assert_eq!(offsets(&disk, "/d", checkpoint::RECOVERY_POINT_FILE), [""; 0]);

    node.start_at("t-0", 9);
    node.create("u-0");
    node.pass(seconds(61));
    assert_eq!(
        offsets(&disk, "/d", checkpoint::RECOVERY_POINT_FILE),
        ["t-0 9", "u-0 0"]
    );
    node.manager.delete(&partition("t-0")).unwrap();
    node.pass(seconds(61));
    assert_eq!(
        offsets(&disk, "/d", checkpoint::RECOVERY_POINT_FILE),
        ["u-0 0"],
        "what is gone is not said any more"
    );
}

#[test]
fn moved_high_watermarks_and_recovery_points_are_written_when_they_are_due() {
    let disk = SimulatedDisk::new(1);
    let node = open(&disk, &["/d"]);
    node.create("t-0");
    node.start_at("t-0", 9);
    node.pass(seconds(6));
    assert_eq!(
        offsets(&disk, "/d", checkpoint::REPLICATION_OFFSET_FILE),
        ["t-0 9"]
    );
    assert_eq!(offsets(&disk, "/d", checkpoint::RECOVERY_POINT_FILE), [""; 0]);
    node.pass(seconds(26));
    assert_eq!(offsets(&disk, "/d", checkpoint::RECOVERY_POINT_FILE), ["t-0 9"]);
    let state = RunState::read(&disk, Path::new("/d")).unwrap().unwrap();
    assert_eq!(state.synced_ends.get(&partition("t-0")), Some(&Offset(9)));
}

#[test]
fn a_partition_created_anew_inherits_no_checkpoint_of_the_deleted_one() {
    let disk = SimulatedDisk::new(1);
    let node = open(&disk, &["/d"]);
    node.create("t-0");
    node.create("u-0");
    for name in ["t-0", "u-0"] {
        node.start_at(name, 500);
    }
    node.pass(seconds(61));
    let both = ["t-0 500", "u-0 500"];
    assert_eq!(offsets(&disk, "/d", checkpoint::RECOVERY_POINT_FILE), both);

    node.manager.delete(&partition("t-0")).unwrap();
    node.create("t-0");
    for seed in 0..20 {
        let disk = disk.power_cut(seed);
        for file in [
            checkpoint::RECOVERY_POINT_FILE,
            checkpoint::LOG_START_OFFSET_FILE,
            checkpoint::REPLICATION_OFFSET_FILE,
        ] {
            assert!(
                offsets(&disk, "/d", file)
                    .iter()
                    .all(|line| !line.starts_with("t-0")),
                "{file}"
            );
        }
        assert_eq!(open(&disk, &["/d"]).log("t-0").log_end_offset(), Offset(0));
    }
}

#[test]
fn the_recovery_point_is_lowered_before_the_log_is_truncated() {
    let disk = SimulatedDisk::new(1);
    let node = open(&disk, &["/d"]);
    node.create("t-0");
    node.start_at("t-0", 500);
    node.pass(seconds(61));
    assert_eq!(offsets(&disk, "/d", checkpoint::RECOVERY_POINT_FILE), ["t-0 500"]);
    disk.start_trace();
    node.manager
        .truncate_to(&[(partition("t-0"), Offset(70)), (partition("gone-0"), Offset(1))])
        .unwrap();
    assert_eq!(offsets(&disk, "/d", checkpoint::RECOVERY_POINT_FILE), ["t-0 70"]);
    let trace = disk.trace();
    let checkpoint_written = trace
        .iter()
        .position(|line| line.contains(checkpoint::RECOVERY_POINT_FILE));
    let log_touched = trace.iter().position(|line| line.contains("/d/t-0"));
    assert!(
        checkpoint_written.is_some_and(|first| log_touched.is_none_or(|later| first < later)),
        "{trace:?}"
    );
}

#[test]
fn what_is_written_after_a_truncation_below_the_log_start_survives_a_crash() {
    for is_restarted in [false, true] {
        let disk = SimulatedDisk::new(1);
        let node = open(&disk, &["/d"]);
        let log = node.create("t-0");
        append(&log, 0..100);
        log.advance_log_start_offset(Offset(90), LogStartOffsetIncrementReason::ClientRecordDeletion)
            .unwrap();
        node.pass(seconds(61));
        let said = || {
            let of = |file| offsets(&disk, "/d", file);
            [
                of(checkpoint::LOG_START_OFFSET_FILE),
                of(checkpoint::REPLICATION_OFFSET_FILE),
            ]
        };
        assert_eq!(said(), [["t-0 90"], ["t-0 100"]]);
        if is_restarted {
            let start = Offset(30);
            node.manager
                .truncate_fully_and_start_at(&partition("t-0"), start)
                .unwrap();
        } else {
            node.manager
                .truncate_to(&[(partition("t-0"), Offset(30))])
                .unwrap();
        }
        assert_eq!(said(), [["t-0 30"], ["t-0 30"]]);
        append(&log, 30..60);
        let log = open(&disk.process_kill(), &["/d"]).log("t-0");
        assert_eq!(log.log_end_offset(), Offset(60), "restarted: {is_restarted}");
    }
}

#[test]
fn how_far_synced_logs_are_is_written_between_rolls_too() {
    let disk = SimulatedDisk::new(1);
    let node = open(&disk, &["/d"]);
    let config = LogConfig {
        flush_messages: Some(1),
        ..LogConfig::default()
    };
    disk.set_completions(Completions::Manual);
    append(&create_with(&node, "t-0", config), 0..5);
    disk.run_completions(1);
    node.pass(seconds(61));
    let state = RunState::read(&disk, Path::new("/d")).unwrap().unwrap();
    assert_eq!(state.synced_ends.get(&partition("t-0")), Some(&Offset(5)));
    let before = disk.op_count();
    node.pass(seconds(3600));
    assert_eq!(disk.op_count(), before, "{:?}", disk.trace());
}
