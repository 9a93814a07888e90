//! Moves between log directories: what stands where, restarts in the middle, and a power cut at each operation.

use super::records::{append, batch};
use super::*;

const BOTH: [&str; 2] = ["/a", "/b"];

/// A partition in `/a` with records 0 to 9.
fn in_a(node: &Node) -> Arc<Log> {
    let log = node
        .manager
        .get_or_create(WantedLog {
            preferred_directory: Some(PathBuf::from("/a")),
            ..wanted("t-0")
        })
        .unwrap();
    append(&log, 0..10);
    log
}

fn future_in(node: &Node, directory: &str) -> Arc<Log> {
    let config = Arc::new(LogConfig::default());
    node.manager
        .create_future(&partition("t-0"), Path::new(directory), config)
        .unwrap()
}

/// Kinds of the partition's directories, by log directory.
fn kinds(disk: &SimulatedDisk) -> Vec<String> {
    let kind = |name: &String| match name.strip_prefix("t-0")? {
        "" => Some("current"),
        rest if rest.ends_with("-future") => Some("future"),
        rest if rest.ends_with("-delete") => Some("deleted"),
        _ => None,
    };
    let of = |directory: &&str| {
        let found = names(disk, directory);
        let kinds: Vec<&str> = found.iter().filter_map(kind).collect();
        format!("{directory} {}", kinds.join(" "))
    };
    BOTH.iter().map(of).collect()
}

fn replace(node: &Node) -> Result<(), StorageError> {
    node.manager
        .replace_current_with_future(&partition("t-0"), |_| ())
}

#[test]
fn a_partition_moves_and_its_former_directory_goes_after_the_delay() {
    let disk = SimulatedDisk::new(1);
    let node = open(&disk, &BOTH);
    let former = in_a(&node);
    let future = future_in(&node, "/b");
    assert_eq!(kinds(&disk), ["/a current", "/b future"]);
    assert!(Arc::ptr_eq(&future, &future_in(&node, "/b")), "there is one");
    append(&future, 0..10);
    let described = node.manager.describe();
    assert!(!described[0].logs[0].is_future && described[1].logs[0].is_future);
    assert_eq!(node.manager.logs_of_topic("t").len(), 2);

    let told = former.offsets().log_end_offset;
    let mut switched = false;
    node.manager
        .replace_current_with_future(&partition("t-0"), |log| {
            switched = Arc::ptr_eq(log, &future) && former.check_serving().is_ok();
        })
        .unwrap();
    assert!(switched, "the former log serves until all read from the new one");
    assert_eq!(kinds(&disk), ["/a deleted", "/b current"]);
    assert_eq!((node.home_of("t-0"), told), (PathBuf::from("/b"), Offset(10)));
    assert!(node.manager.future(&partition("t-0")).is_none());
    assert_eq!(future.synced_end(), Offset(10));
    append(&future, 10..12);
    node.pass(seconds(61));
    assert_eq!(kinds(&disk), ["/a ", "/b current"]);
    node.manager.shutdown();
    let node = open(&disk, &BOTH);
    assert_eq!(node.log("t-0").log_end_offset(), Offset(12));
}

#[test]
fn a_move_goes_on_after_a_restart_and_is_given_up_with_its_partition() {
    let disk = SimulatedDisk::new(1);
    let node = open(&disk, &BOTH);
    in_a(&node);
    append(&future_in(&node, "/b"), 0..4);
    node.manager.shutdown();
    drop(node);
    let node = open(&disk, &BOTH);
    let future = node.manager.future(&partition("t-0")).unwrap();
    assert_eq!(future.log_end_offset(), Offset(4));
    append(&future, 4..6);
    // A kill.
    drop(node);
    let node = open(&disk, &BOTH);
    assert_eq!(node.manager.futures()[0].1.log_end_offset(), Offset(6));
    node.manager
        .truncate_future_to(&partition("t-0"), Offset(5))
        .unwrap();
    assert_eq!(node.manager.futures()[0].1.log_end_offset(), Offset(5));
    node.manager
        .truncate_future_fully_and_start_at(&partition("t-0"), Offset(7))
        .unwrap();
    assert_eq!(node.manager.futures()[0].1.log_start_offset(), Offset(7));
    assert!(node.manager.delete(&partition("t-0")).unwrap());
    assert_eq!(kinds(&disk), ["/a deleted", "/b deleted"]);
    node.pass(seconds(61));
    assert_eq!(kinds(&disk), ["/a ", "/b "]);
}

#[test]
fn a_move_that_is_given_up_leaves_the_partition_where_it_is() {
    let disk = SimulatedDisk::new(1);
    let node = open(&disk, &BOTH);
    let log = in_a(&node);
    future_in(&node, "/b");
    assert!(node.manager.delete_future(&partition("t-0")).unwrap());
    assert!(!node.manager.delete_future(&partition("t-0")).unwrap());
    assert_eq!(kinds(&disk), ["/a current", "/b deleted"]);
    assert!(matches!(replace(&node), Err(StorageError::OutOfService { .. })));
    assert!(log.check_serving().is_ok());
}

#[test]
fn a_partition_that_is_not_there_yet_goes_where_it_was_said_to() {
    let disk = SimulatedDisk::new(1);
    let node = open(&disk, &BOTH);
    for name in ["u-0", "u-1", "u-2"] {
        node.manager.prefer(&partition(name), Path::new("/b"));
        node.create(name);
        assert_eq!(node.home_of(name), Path::new("/b"));
    }
    // It is remembered once.
    node.manager.delete(&partition("u-0")).unwrap();
    node.create("u-0");
    assert_eq!(node.home_of("u-0"), Path::new("/a"));
}

#[test]
fn no_future_log_is_created_while_a_directory_is_offline() {
    let disk = SimulatedDisk::new(1);
    let node = open(&disk, &["/a", "/b", "/c"]);
    in_a(&node);
    let failed = node.manager.directory(Path::new("/c")).unwrap();
    failed.take_offline("gone".to_owned());
    let config = Arc::new(LogConfig::default());
    let refused = node
        .manager
        .create_future(&partition("t-0"), Path::new("/b"), config);
    assert!(matches!(refused, Err(StorageError::Offline { .. })));
    assert_eq!(kinds(&disk), ["/a current", "/b "]);
}

#[test]
fn a_future_directory_that_fails_at_the_replacement_leaves_the_partition_where_it_is() {
    let disk = SimulatedDisk::new(1);
    let node = open(&disk, &BOTH);
    let log = in_a(&node);
    append(&future_in(&node, "/b"), 0..10);
    let failed = node.manager.directory(Path::new("/b")).unwrap();
    failed.take_offline("gone".to_owned());
    assert!(replace(&node).is_err());
    assert_eq!(node.home_of("t-0"), Path::new("/a"));
    append(&log, 10..11);
    assert_eq!(kinds(&disk), ["/a current", "/b future"]);
}

#[test]
fn what_no_move_goes_on_with_is_removed_where_the_partition_is_served() {
    let disk = SimulatedDisk::new(1);
    let node = open(&disk, &BOTH);
    in_a(&node);
    append(&future_in(&node, "/b"), 0..3);
    node.manager.shutdown();
    drop(node);
    let unfit = format!("t-0.{}-future", "ab".repeat(16));
    let orphan = format!("u-0.{}-future", "ab".repeat(16));
    for directory in BOTH {
        disk.create_dir_all(&Path::new(directory).join(&unfit)).unwrap();
        disk.create_dir_all(&Path::new(directory).join(&orphan)).unwrap();
    }
    let node = open(&disk, &BOTH);
    node.pass(seconds(1));
    assert_eq!(kinds(&disk), ["/a current", "/b future"]);
    // One of them is a partition's that may come back.
    assert_eq!(node.manager.describe()[1].future_directories, [orphan]);
}

/// Moves a partition with ten records while the other directory is written too. Ends at the first refusal.
fn script(disk: &SimulatedDisk, is_moved: &mut bool) -> Option<()> {
    let node = try_open(disk, &BOTH, LogManagerConfig::default()).ok()?;
    let preferred = WantedLog {
        preferred_directory: Some(PathBuf::from("/a")),
        ..wanted("t-0")
    };
    let log = node.manager.get_or_create(preferred).ok()?;
    grow(&log, 0..10)?;
    log.flush().ok()?;
    let config = Arc::new(LogConfig::default());
    let future = node
        .manager
        .create_future(&partition("t-0"), Path::new("/b"), config)
        .ok()?;
    grow(&future, 0..8)?;
    node.manager
        .truncate_future_to(&partition("t-0"), Offset(5))
        .ok()?;
    grow(&future, 5..10)?;
    node.pass(seconds(31));
    replace(&node).ok()?;
    *is_moved = true;
    node.pass(seconds(61));
    grow(&node.log("t-0"), 10..11)?;
    node.manager.shutdown();
    Some(())
}

/// As [`append`], until the power is cut.
fn grow(log: &Log, offsets: std::ops::Range<i64>) -> Option<()> {
    for offset in offsets {
        log.append_as_follower(&batch(offset, None, &[b'x'; 1000])).ok()?;
    }
    log.set_high_watermark(log.log_end_offset());
    Some(())
}

/// The first operation of the move, and the last.
fn span(disk: &SimulatedDisk) -> (u64, u64) {
    let node = open(disk, &BOTH);
    in_a(&node).flush().unwrap();
    let begun = disk.op_count();
    drop(node);
    let whole = SimulatedDisk::new(3);
    script(&whole, &mut false).unwrap();
    (begun, whole.op_count())
}

#[test]
fn after_a_power_cut_at_any_operation_of_a_move_one_directory_or_both_have_all_records() {
    let (begun, count) = span(&SimulatedDisk::new(3));
    assert!(count > begun + 30, "{begun} to {count}");
    let mut seen_both = false;
    for at in begun..count {
        let disk = SimulatedDisk::new(3);
        disk.cut_power_after(at);
        let mut is_moved = false;
        script(&disk, &mut is_moved);
        for seed in 0..4 {
            let image = disk.power_cut(seed);
            let place = format!("cut at operation {at}, seed {seed}");
            let twice = try_open(&image, &BOTH, LogManagerConfig::default()).err();
            if let Some(error) = twice {
                assert!(
                    matches!(error, LogDirsError::DuplicatePartition { .. }),
                    "{place}: {error}"
                );
                seen_both = true;
                // A person takes one away, whichever it is.
                for directory in BOTH {
                    let image = disk.power_cut(seed);
                    image.remove_dir_all(&Path::new(directory).join("t-0")).unwrap();
                    let node = open(&image, &BOTH);
                    assert_eq!(node.log("t-0").log_end_offset(), Offset(10), "{place}");
                }
                continue;
            }
            let image = disk.power_cut(seed);
            let node = open(&image, &BOTH);
            assert_eq!(node.manager.out_of_service(), [], "{place}");
            node.manager.settle_lost_writes();
            let end = node.log("t-0").log_end_offset();
            assert!(end >= Offset(10), "{place}: {end}");
            if is_moved {
                assert_eq!(node.home_of("t-0"), Path::new("/b"), "{place}");
            }
            if let Some(future) = node.manager.future(&partition("t-0")) {
                assert!(future.log_end_offset() <= Offset(10), "{place}");
            }
            // The move goes on, or begins again.
            if node.home_of("t-0") == Path::new("/a") {
                let future = future_in(&node, "/b");
                append(&future, future.log_end_offset().get()..10);
                replace(&node).unwrap_or_else(|error| panic!("{place}: {error}"));
            }
            assert_eq!(node.home_of("t-0"), Path::new("/b"), "{place}");
            assert_eq!(node.manager.shutdown().clean.len(), 2, "{place}");
        }
    }
    assert!(seen_both, "no cut fell between the two names");
}
