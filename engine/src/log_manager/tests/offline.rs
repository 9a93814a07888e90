//! Directories that fail or are full: what goes with them, and that the others serve.

use super::*;

#[test]
fn a_failed_directory_takes_its_logs_along_and_the_others_go_on() {
    let disk = SimulatedDisk::new(1);
    let node = open(&disk, &["/d", "/e"]);
    for number in 0..4 {
        node.create(&format!("t-{number}"));
    }
    let lost = (0..4)
        .map(|number| format!("t-{number}"))
        .find(|name| node.home_of(name) == Path::new("/d"))
        .unwrap();
    disk.fail_below(Path::new("/d"), Fault::Eio);
    node.manager
        .truncate_fully_and_start_at(&partition(&lost), Offset(5))
        .unwrap_err();
    assert_eq!(node.observer.told(), ["offline /d"]);
    assert_eq!(node.manager.online_directory_count(), 1);
    assert!(matches!(
        node.log(&lost).flush(),
        Err(StorageError::Offline { .. })
    ));

    node.pass(seconds(120));
    let unknown = node.manager.find(&partition("u-0")).map(|found| found.is_some());
    assert!(
        matches!(unknown, Err(StorageError::Offline { .. })),
        "it may be in /d"
    );
    let not_new = WantedLog {
        is_new: false,
        ..wanted("u-0")
    };
    assert!(matches!(
        node.manager.get_or_create(not_new),
        Err(StorageError::Offline { .. })
    ));
    node.create("u-0");
    assert_eq!(node.home_of("u-0"), Path::new("/e"));
    let descriptions = node.manager.describe();
    assert!(descriptions[0].offline_reason.is_some() && descriptions[0].logs.is_empty());

    disk.clear_faults();
    let report = node.manager.shutdown();
    assert_eq!(report.clean, [PathBuf::from("/e")]);
    assert_eq!(
        report
            .unclean
            .iter()
            .map(|(path, _)| path.as_path())
            .collect::<Vec<_>>(),
        [Path::new("/d")]
    );
    assert!(!checkpoint::clean_shutdown_marker_exists(&disk, Path::new("/d")).unwrap());
}

#[test]
fn a_directory_that_cannot_be_created_in_gives_way_to_the_next() {
    let disk = SimulatedDisk::new(1);
    let node = open(&disk, &["/d", "/e"]);
    disk.fail_below(Path::new("/d"), Fault::Eio);
    node.create("t-0");
    assert_eq!(node.home_of("t-0"), Path::new("/e"));
    assert_eq!(node.observer.told(), ["offline /d"]);
}

#[test]
fn a_directory_that_fails_while_its_logs_load_is_offline_and_the_others_serve() {
    let disk = SimulatedDisk::new(1);
    let node = open(&disk, &["/d", "/e"]);
    node.create("t-0");
    node.create("t-1");
    let lost = if node.home_of("t-0") == Path::new("/d") {
        "t-0"
    } else {
        "t-1"
    };
    node.manager.shutdown();
    drop(node);
    disk.fail_reads(&Path::new("/d").join(checkpoint::REPLICATION_OFFSET_FILE), 0..1);
    let node = open(&disk, &["/d", "/e"]);
    assert_eq!(node.manager.log_count(), 1);
    assert!(matches!(
        node.manager.find(&partition(lost)),
        Err(StorageError::Offline { .. })
    ));
    drop(node);

    disk.fail_reads(&Path::new("/e").join(checkpoint::REPLICATION_OFFSET_FILE), 0..1);
    let all = try_open(&disk, &["/d", "/e"], LogManagerConfig::default()).err();
    assert!(matches!(all, Some(LogDirsError::AllOffline { reasons }) if reasons.len() == 2));
}

#[test]
fn a_full_disk_takes_no_directory_offline_and_the_reserve_stops_appends_before() {
    let disk = SimulatedDisk::new(1);
    disk.set_capacity(Some(10 * GIB));
    let config = LogManagerConfig {
        disk_reserve_bytes: GIB,
        ..LogManagerConfig::default()
    };
    let node = try_open(&disk, &["/d"], config).unwrap();
    let log = node.create("t-0");
    let directory = node.manager.directories().next().unwrap().clone();
    assert!(directory.check_appendable().is_ok());

    disk.set_capacity(Some(GIB / 2));
    node.pass(seconds(6));
    assert!(matches!(
        directory.check_appendable(),
        Err(StorageError::ReserveReached { .. })
    ));
    node.create("created_meanwhile-0");
    disk.set_capacity(Some(GIB + GIB / 16));
    node.pass(seconds(6));
    assert!(
        directory.check_appendable().is_err(),
        "not before an eighth more is free"
    );
    disk.set_capacity(Some(2 * GIB));
    node.pass(seconds(6));
    assert!(directory.check_appendable().is_ok());

    node.manager
        .truncate_fully_and_start_at(&partition("t-0"), Offset(3))
        .unwrap();
    log.flush().unwrap();
    disk.fail_below(
        &Path::new("/d").join("recovery-point-offset-checkpoint.tmp"),
        Fault::Enospc,
    );
    disk.fail_below(
        &Path::new("/d").join("replication-offset-checkpoint.tmp"),
        Fault::Enospc,
    );
    node.pass(seconds(61));
    assert!(directory.is_online());
    assert_eq!(offsets(&disk, "/d", checkpoint::RECOVERY_POINT_FILE), [""; 0]);
    disk.clear_faults();
    node.pass(seconds(61));
    assert_eq!(
        offsets(&disk, "/d", checkpoint::RECOVERY_POINT_FILE),
        ["created_meanwhile-0 0", "t-0 3"]
    );
}

#[test]
fn one_log_that_cannot_be_flushed_does_not_keep_the_others_from_it() {
    let disk = SimulatedDisk::new(1);
    let node = open(&disk, &["/d", "/e"]);
    for number in 0..6 {
        node.create(&format!("t-{number}"));
        node.manager
            .truncate_fully_and_start_at(&partition(&format!("t-{number}")), Offset(7))
            .unwrap();
    }
    let bad = node.manager.describe()[0].logs[0].partition.clone();
    disk.fail_below(&Path::new("/d").join(bad.to_string()), Fault::Eio);
    // A later flush of this log has something to write.
    let _ = node.log(&bad.to_string()).roll();
    let report = node.manager.shutdown();
    assert_eq!(report.clean, [PathBuf::from("/e")]);
    assert_eq!(offsets(&disk, "/e", checkpoint::RECOVERY_POINT_FILE).len(), 3);
}
