//! When the small files are written, what they say, and that an idle broker writes none.

use super::*;

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
