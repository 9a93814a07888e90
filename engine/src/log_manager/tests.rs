//! Behaviour of the log manager on a simulated disk, as sentences.

use std::collections::BTreeMap;
use std::io::IoSlice;

use super::*;
use crate::checkpoint::{self, OffsetCheckpoint, RunState};
use crate::io::OpenMode;
use crate::io::simulated::{Fault, ManualClock, SimulatedDisk};
use crate::units::TimestampMs;

mod damage;
mod records;

const GIB: u64 = 1 << 30;

fn partition(name: &str) -> TopicPartition {
    let (topic, number) = name.rsplit_once('-').unwrap();
    TopicPartition::new(topic, number.parse().unwrap())
}

fn wanted(name: &str) -> WantedLog {
    WantedLog {
        partition: partition(name),
        config: Arc::new(LogConfig::default()),
        is_new: true,
        preferred_directory: None,
    }
}

/// Remembers what it was told.
#[derive(Default)]
struct Observer(Mutex<Vec<String>>);

impl Observer {
    fn told(&self) -> Vec<String> {
        let mut told = self.0.lock().clone();
        told.sort();
        told
    }
}

impl LogManagerObserver for Observer {
    fn loaded(&self, progress: &LoadProgress<'_>) {
        let outcome = if progress.failure.is_some() {
            "failed"
        } else {
            "loaded"
        };
        self.0.lock().push(format!(
            "{outcome} {} of {}",
            progress.partition, progress.total_count
        ));
    }

    fn directory_offline(&self, directory: &Path, _reason: &str) {
        self.0.lock().push(format!("offline {}", directory.display()));
    }

    fn partition_out_of_service(&self, partition: &TopicPartition, _reason: &str) {
        self.0.lock().push(format!("out of service {partition}"));
    }
}

/// One broker's life on one disk.
struct Node {
    disk: SimulatedDisk,
    clock: Arc<ManualClock>,
    observer: Arc<Observer>,
    manager: LogManager,
}

fn try_open(
    disk: &SimulatedDisk,
    directories: &[&str],
    config: LogManagerConfig,
) -> Result<Node, LogDirsError> {
    let clock = Arc::new(ManualClock::new(TimestampMs(1_700_000_000_000)));
    let observer = Arc::new(Observer::default());
    let paths: Vec<PathBuf> = directories.iter().map(PathBuf::from).collect();
    let survey = Survey::of(&paths, disk)?;
    let settings = Arc::new(LogConfig::default());
    let manager = LogManager::open(
        survey,
        config,
        &|_| settings.clone(),
        observer.clone(),
        Arc::new(disk.clone()),
        clock.clone(),
    )?;
    Ok(Node {
        disk: disk.clone(),
        clock,
        observer,
        manager,
    })
}

fn open(disk: &SimulatedDisk, directories: &[&str]) -> Node {
    try_open(disk, directories, LogManagerConfig::default()).unwrap()
}

impl Node {
    /// Lets time pass, doing what is due when it is due.
    fn pass(&self, time: Duration) {
        let end = self.clock.monotonic() + time;
        loop {
            let next = self.manager.run_due(self.clock.monotonic());
            assert!(next > self.clock.monotonic(), "the next deadline lies ahead");
            if next > end {
                break;
            }
            self.clock.advance(next - self.clock.monotonic());
        }
        self.clock.advance(end - self.clock.monotonic());
        self.manager.run_due(self.clock.monotonic());
    }

    fn create(&self, name: &str) -> Arc<Log> {
        self.manager.get_or_create(wanted(name)).unwrap()
    }

    fn log(&self, name: &str) -> Arc<Log> {
        self.manager.get(&partition(name)).unwrap()
    }

    fn home_of(&self, name: &str) -> PathBuf {
        self.manager
            .directory_of(&partition(name))
            .unwrap()
            .path()
            .to_owned()
    }

    fn partitions(&self) -> Vec<String> {
        let mut names: Vec<String> = self
            .manager
            .logs()
            .iter()
            .map(|(name, _)| name.to_string())
            .collect();
        names.sort();
        names
    }
}

fn names(disk: &SimulatedDisk, directory: &str) -> Vec<String> {
    disk.list(Path::new(directory))
        .unwrap()
        .into_iter()
        .map(|entry| entry.name)
        .collect()
}

fn offsets(disk: &SimulatedDisk, directory: &str, name: &str) -> Vec<(String, i64)> {
    let entries = OffsetCheckpoint::new(Path::new(directory), name)
        .read(disk)
        .unwrap();
    entries
        .iter()
        .map(|(partition, offset)| (partition.to_string(), offset.get()))
        .collect()
}

fn write(disk: &SimulatedDisk, path: &str, content: &[u8]) {
    let file = disk.open(Path::new(path), OpenMode::Truncate).unwrap();
    file.write_vectored_at(0, &[IoSlice::new(content)]).unwrap();
    file.sync().unwrap();
}

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

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
        assert_eq!(
            offsets(&disk, "/d", checkpoint::RECOVERY_POINT_FILE),
            [("t-0".to_owned(), 40)]
        );
        assert_eq!(
            offsets(&disk, "/d", checkpoint::REPLICATION_OFFSET_FILE),
            [("t-0".to_owned(), 40)]
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
fn a_partition_created_anew_inherits_no_checkpoint_of_the_deleted_one() {
    let disk = SimulatedDisk::new(1);
    let node = open(&disk, &["/d"]);
    node.create("t-0");
    node.create("u-0");
    for name in ["t-0", "u-0"] {
        node.manager
            .truncate_fully_and_start_at(&partition(name), Offset(500))
            .unwrap();
        node.log(name).flush().unwrap();
    }
    node.pass(seconds(61));
    let both = [("t-0".to_owned(), 500), ("u-0".to_owned(), 500)];
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
                offsets(&disk, "/d", file).iter().all(|(name, _)| name != "t-0"),
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
    node.manager
        .truncate_fully_and_start_at(&partition("t-0"), Offset(500))
        .unwrap();
    node.log("t-0").flush().unwrap();
    node.pass(seconds(61));
    assert_eq!(
        offsets(&disk, "/d", checkpoint::RECOVERY_POINT_FILE),
        [("t-0".to_owned(), 500)]
    );
    disk.start_trace();
    node.manager
        .truncate_to(&[(partition("t-0"), Offset(70)), (partition("gone-0"), Offset(1))])
        .unwrap();
    assert_eq!(
        offsets(&disk, "/d", checkpoint::RECOVERY_POINT_FILE),
        [("t-0".to_owned(), 70)]
    );
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
    assert_eq!(offsets(&disk, "/d", checkpoint::RECOVERY_POINT_FILE), []);

    node.manager
        .truncate_fully_and_start_at(&partition("t-0"), Offset(9))
        .unwrap();
    node.log("t-0").flush().unwrap();
    node.create("u-0");
    node.pass(seconds(61));
    assert_eq!(
        offsets(&disk, "/d", checkpoint::RECOVERY_POINT_FILE),
        [("t-0".to_owned(), 9), ("u-0".to_owned(), 0)]
    );
    node.manager.delete(&partition("t-0")).unwrap();
    node.pass(seconds(61));
    assert_eq!(
        offsets(&disk, "/d", checkpoint::RECOVERY_POINT_FILE),
        [("u-0".to_owned(), 0)],
        "what is gone is not said any more"
    );
}

#[test]
fn moved_high_watermarks_and_recovery_points_are_written_when_they_are_due() {
    let disk = SimulatedDisk::new(1);
    let node = open(&disk, &["/d"]);
    node.create("t-0");
    node.manager
        .truncate_fully_and_start_at(&partition("t-0"), Offset(9))
        .unwrap();
    node.log("t-0").flush().unwrap();
    node.pass(seconds(6));
    assert_eq!(
        offsets(&disk, "/d", checkpoint::REPLICATION_OFFSET_FILE),
        [("t-0".to_owned(), 9)]
    );
    assert_eq!(
        node.manager.checkpointed_high_watermark(&partition("t-0")),
        Some(Offset(9))
    );
    assert_eq!(offsets(&disk, "/d", checkpoint::RECOVERY_POINT_FILE), []);
    node.pass(seconds(26));
    assert_eq!(
        offsets(&disk, "/d", checkpoint::RECOVERY_POINT_FILE),
        [("t-0".to_owned(), 9)]
    );
    let state = RunState::read(&disk, Path::new("/d")).unwrap().unwrap();
    assert_eq!(state.synced_ends.get(&partition("t-0")), Some(&Offset(9)));
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
    assert_eq!(offsets(&disk, "/d", checkpoint::RECOVERY_POINT_FILE), []);
    disk.clear_faults();
    node.pass(seconds(61));
    assert_eq!(
        offsets(&disk, "/d", checkpoint::RECOVERY_POINT_FILE),
        [("created_meanwhile-0".to_owned(), 0), ("t-0".to_owned(), 3)]
    );
}

#[test]
fn a_damaged_log_is_out_of_service_until_its_bytes_are_whole_and_the_others_serve() {
    let disk = SimulatedDisk::new(1);
    let node = open(&disk, &["/d"]);
    node.create("t-0");
    node.create("u-0");
    node.pass(seconds(1));
    drop(node);
    // The process was killed, the machine was not: all bytes must be whole, and these are not.
    let segment = "/d/t-0/00000000000000000000.log";
    write(&disk, segment, &[0x55; 200]);
    let disk = disk.process_kill();
    for _ in 0..2 {
        let node = open(&disk, &["/d"]);
        assert_eq!(node.partitions(), ["u-0"]);
        assert_eq!(node.observer.told(), ["failed t-0 of 2", "loaded u-0 of 2"]);
        assert!(matches!(
            node.manager.find(&partition("t-0")),
            Err(StorageError::OutOfService { .. })
        ));
        let again = node.manager.get_or_create(wanted("t-0"));
        assert!(
            matches!(again, Err(StorageError::OutOfService { .. })),
            "it is not created over the damage"
        );
        assert_eq!(node.manager.out_of_service().len(), 1);
        assert_eq!(
            node.manager.shutdown().clean.len(),
            1,
            "the others are not recovered for its sake"
        );
        let file = disk.open(Path::new(segment), OpenMode::Read).unwrap();
        assert_eq!(file.size_bytes().unwrap(), 200, "its files are untouched");
    }
    write(&disk, segment, &[]);
    let node = open(&disk, &["/d"]);
    assert_eq!(node.partitions(), ["t-0", "u-0"]);
    assert_eq!(offsets(&disk, "/d", checkpoints::OUT_OF_SERVICE_FILE), []);
}

#[test]
fn a_damaged_log_can_be_deleted() {
    let disk = SimulatedDisk::new(1);
    let node = open(&disk, &["/d"]);
    node.create("t-0");
    node.pass(seconds(1));
    drop(node);
    write(&disk, "/d/t-0/00000000000000000000.log", &[0x55; 200]);
    let node = open(&disk.process_kill(), &["/d"]);
    assert_eq!(node.manager.log_count(), 0);
    assert!(node.manager.delete(&partition("t-0")).unwrap());
    node.create("t-0");
    node.manager.shutdown();
    assert_eq!(open(&node.disk, &["/d"]).partitions(), ["t-0"]);
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

#[test]
fn future_replicas_are_left_alone_and_listed() {
    let disk = SimulatedDisk::new(1);
    let name = "t-0.0123456789abcdef0123456789abcdef-future";
    disk.create_dir_all(&Path::new("/d").join(name)).unwrap();
    let node = open(&disk, &["/d"]);
    node.pass(seconds(120));
    node.manager.shutdown();
    assert_eq!(node.manager.describe()[0].future_directories, [name]);
    assert!(names(&disk, "/d").contains(&name.to_owned()));
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

/// What a script had been promised when the power went.
#[derive(Default)]
struct Promises {
    created: Vec<&'static str>,
    deleted: Vec<&'static str>,
    stopped_clean: bool,
}

/// Creates, moves, deletes, creates again, stops. Ends at the first refusal.
fn script(disk: &SimulatedDisk, promises: &mut Promises) -> Option<()> {
    let node = try_open(disk, &["/d"], LogManagerConfig::default()).ok()?;
    for name in ["t-0", "t-1", "t-2"] {
        node.manager.get_or_create(wanted(name)).ok()?;
        promises.created.push(name);
        node.manager
            .truncate_fully_and_start_at(&partition(name), Offset(30))
            .ok()?;
        node.log(name).flush().ok()?;
    }
    node.pass(seconds(61));
    node.manager.truncate_to(&[(partition("t-1"), Offset(20))]).ok()?;
    promises.created.retain(|name| *name != "t-2");
    node.manager.delete(&partition("t-2")).ok()?;
    promises.deleted.push("t-2");
    node.pass(seconds(61));
    promises.deleted.clear();
    node.manager.get_or_create(wanted("t-2")).ok()?;
    promises.created.push("t-2");
    promises.stopped_clean = !node.manager.shutdown().clean.is_empty();
    Some(())
}

#[test]
fn after_a_power_cut_at_any_operation_the_directory_opens_and_keeps_its_promises() {
    let whole = SimulatedDisk::new(3);
    let mut promises = Promises::default();
    script(&whole, &mut promises).unwrap();
    assert!(promises.stopped_clean);
    let count = whole.op_count();
    assert!(count > 50, "{count} operations");
    for at in 0..count {
        let disk = SimulatedDisk::new(3);
        disk.cut_power_after(at);
        let mut promises = Promises::default();
        script(&disk, &mut promises);
        for seed in 0..4 {
            let image = disk.power_cut(seed);
            let place = format!("cut at operation {at}, seed {seed}");
            assert!(!promises.stopped_clean, "{place}");
            let node = try_open(&image, &["/d"], LogManagerConfig::default())
                .unwrap_or_else(|error| panic!("{place}: {error}"));
            assert_eq!(node.manager.out_of_service(), [], "{place}");
            let found = node.partitions();
            for name in &promises.created {
                assert!(
                    found.contains(&(*name).to_owned()),
                    "{place}: {name} in {found:?}"
                );
            }
            for name in &promises.deleted {
                assert!(
                    !found.contains(&(*name).to_owned()),
                    "{place}: {name} in {found:?}"
                );
            }
            for (partition, log) in node.manager.logs() {
                assert!(
                    log.recovery_point() <= log.log_end_offset(),
                    "{place}: {partition}"
                );
                assert!(
                    log.high_watermark() <= log.log_end_offset(),
                    "{place}: {partition}"
                );
            }
            node.create("after-0");
            assert_eq!(node.manager.shutdown().clean.len(), 1, "{place}");
        }
    }
}
