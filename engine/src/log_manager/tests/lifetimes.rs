//! Partitions and the process that serves them, from creation to deletion and from start to clean stop.

use super::*;

#[test]
fn a_created_log_survives_a_power_cut_and_is_found_again() {
    let disk = SimulatedDisk::new(1);
    let node = open(&disk, &["/d"]);
    let created = node
        .manager
        .get_or_create_all(vec![wanted("t-0"), wanted("t-1"), wanted("t-0")]);
    assert!(Arc::ptr_eq(
        created[0].as_ref().unwrap(),
        created[2].as_ref().unwrap()
    ));
    for seed in 0..20 {
        let again = open(&disk.power_cut(seed), &["/d"]);
        assert_eq!(again.partitions(), ["t-0", "t-1"]);
        assert_eq!(again.observer.told(), ["loaded t-0 of 2", "loaded t-1 of 2"]);
    }
}

#[test]
fn a_clean_stop_leaves_the_marker_and_the_next_start_takes_it_before_loading() {
    let disk = SimulatedDisk::new(1);
    let node = open(&disk, &["/d"]);
    node.create("t-0");
    node.manager
        .truncate_fully_and_start_at(&partition("t-0"), Offset(40))
        .unwrap();
    assert!(!checkpoint::clean_shutdown_marker_exists(&disk, Path::new("/d")).unwrap());
    let report = node.manager.shutdown();
    assert_eq!(
        (report.clean, report.unclean),
        (vec![PathBuf::from("/d")], Vec::new())
    );
    for seed in 0..20 {
        let disk = disk.power_cut(seed);
        assert!(checkpoint::clean_shutdown_marker_exists(&disk, Path::new("/d")).unwrap());
        assert_eq!(offsets(&disk, "/d", checkpoint::RECOVERY_POINT_FILE), ["t-0 40"]);
        assert_eq!(
            offsets(&disk, "/d", checkpoint::REPLICATION_OFFSET_FILE),
            ["t-0 40"]
        );
        let state = RunState::read(&disk, Path::new("/d")).unwrap().unwrap();
        assert!(state.stopped_clean);
        assert_eq!(
            state.synced_ends,
            BTreeMap::from([(partition("t-0"), Offset(40))])
        );
    }

    /// Looks at what a power cut in the middle of the loading would leave.
    struct WhileLoading(SimulatedDisk);
    impl LogManagerObserver for WhileLoading {
        fn loaded(&self, _progress: &LoadProgress<'_>) {
            for seed in 0..20 {
                let image = self.0.power_cut(seed);
                assert!(!checkpoint::clean_shutdown_marker_exists(&image, Path::new("/d")).unwrap());
                let state = RunState::read(&image, Path::new("/d")).unwrap().unwrap();
                assert!(
                    state.stopped_clean,
                    "the evidence of the last run stays until all is loaded"
                );
            }
        }
    }
    let disk = disk.power_cut(1);
    let survey = Survey::of(&[PathBuf::from("/d")], &disk).unwrap();
    assert!(survey.online[0].clean_shutdown);
    let clock = Arc::new(ManualClock::new(TimestampMs(0)));
    let settings = Arc::new(LogConfig::default());
    let observer = Arc::new(WhileLoading(disk.clone()));
    let config = LogManagerConfig::default();
    let io = Arc::new(disk.clone());
    let manager = LogManager::open(survey, config, &|_| settings.clone(), observer, io, clock).unwrap();
    assert_eq!(
        manager.get(&partition("t-0")).unwrap().log_end_offset(),
        Offset(40)
    );
    manager.run_due(Duration::ZERO);
    let state = RunState::read(&disk, Path::new("/d")).unwrap().unwrap();
    assert_eq!(
        (state.stopped_clean, state.boot_id),
        (false, disk.boot_id().unwrap())
    );
}

#[test]
fn a_deleted_partition_is_gone_at_once_and_its_files_after_the_delay() {
    let disk = SimulatedDisk::new(1);
    let node = open(&disk, &["/d"]);
    node.create("t-0");
    assert!(node.manager.delete(&partition("t-0")).unwrap());
    assert!(!node.manager.delete(&partition("t-0")).unwrap());
    assert!(node.manager.get(&partition("t-0")).is_none());
    let is_deleted = |name: &&String| name.ends_with("-delete");
    assert_eq!(names(&disk, "/d").iter().filter(is_deleted).count(), 1);
    node.pass(seconds(59));
    assert_eq!(
        names(&disk, "/d").iter().filter(is_deleted).count(),
        1,
        "readers may still hold its files"
    );

    for seed in 0..20 {
        let again = open(&disk.power_cut(seed), &["/d"]);
        assert_eq!(again.partitions(), [""; 0], "the deletion survived the cut");
        again.pass(seconds(1));
        assert_eq!(names(&again.disk, "/d").iter().filter(is_deleted).count(), 0);
    }

    node.create("t-0");
    node.pass(seconds(2));
    assert_eq!(names(&disk, "/d").iter().filter(is_deleted).count(), 0);
    assert_eq!(node.partitions(), ["t-0"]);
}

#[test]
fn new_logs_go_where_the_fewest_are_unless_a_directory_is_preferred() {
    let disk = SimulatedDisk::new(1);
    let node = open(&disk, &["/d", "/e", "/f"]);
    for number in 0..6 {
        node.create(&format!("t-{number}"));
    }
    let counts = |node: &Node| {
        node.manager
            .describe()
            .iter()
            .map(|d| d.logs.len())
            .collect::<Vec<_>>()
    };
    assert_eq!(counts(&node), [2, 2, 2]);
    let preferred = WantedLog {
        preferred_directory: Some(PathBuf::from("/e")),
        ..wanted("u-0")
    };
    node.manager.get_or_create(preferred).unwrap();
    assert_eq!(counts(&node), [2, 3, 2]);
    let elsewhere = WantedLog {
        preferred_directory: Some(PathBuf::from("/nowhere")),
        ..wanted("u-1")
    };
    let error = node.manager.get_or_create(elsewhere).unwrap_err().to_string();
    assert_eq!(
        error,
        "log directory /nowhere is offline: it is not one of the log directories in use"
    );
}

#[test]
fn a_second_start_on_the_same_directory_is_refused_until_the_first_has_ended() {
    let disk = SimulatedDisk::new(1);
    let node = open(&disk, &["/d"]);
    let second = try_open(&disk, &["/d"], LogManagerConfig::default()).err();
    assert!(matches!(second, Some(LogDirsError::Locked { .. })));
    node.manager.shutdown();
    open(&disk, &["/d"]);
}

#[test]
fn a_creation_that_is_not_durable_is_refused_to_each_who_asked_for_it() {
    let disk = SimulatedDisk::new(1);
    let node = open(&disk, &["/d"]);
    disk.fail_after(0, Fault::FailedSync);
    let answers = node.manager.get_or_create_all(vec![wanted("t-0"), wanted("t-0")]);
    for answer in &answers {
        assert!(matches!(answer, Err(StorageError::Offline { .. })), "{answer:?}");
    }
    assert_eq!(node.manager.log_count(), 0);
}
