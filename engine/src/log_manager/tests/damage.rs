//! Damaged logs and how they come back, and two faults at the seam of logs and manager that power cuts have found.

use super::records::{append, create_with};
use super::*;
use crate::io::simulated::Completions;

const SEGMENT: &str = "/d/t-0/00000000000000000000.log";

fn content(disk: &SimulatedDisk, path: &str) -> Vec<u8> {
    let file = disk.open(Path::new(path), OpenMode::Read).unwrap();
    let mut bytes = vec![0; file.size_bytes().unwrap() as usize];
    file.read_at(0, &mut bytes).unwrap();
    bytes
}

/// Why the only partition is not served.
fn reason(node: &Node) -> String {
    match node.manager.find(&partition("t-0")) {
        Err(StorageError::OutOfService { reason, .. }) => reason,
        other => panic!("{other:?}"),
    }
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
    assert_eq!(offsets(&disk, "/d", checkpoints::OUT_OF_SERVICE_FILE), [""; 0]);
}

#[test]
fn what_a_power_cut_may_have_cost_is_known_by_partition() {
    let disk = SimulatedDisk::new(1);
    let node = open(&disk, &["/d"]);
    append(&node.create("t-0"), 0..5);
    append(&node.create("u-0"), 0..5);
    node.pass(seconds(1));
    let lacking = |disk: &SimulatedDisk| open(disk, &["/d"]).manager.may_lack_writes().to_vec();
    assert_eq!(
        lacking(&disk.process_kill()),
        [],
        "the machine was up all the time"
    );
    let mut lost = lacking(&disk.power_cut(1));
    lost.sort();
    assert_eq!(lost, [partition("t-0"), partition("u-0")]);
    node.manager.shutdown();
    assert_eq!(lacking(&disk.power_cut(1)), [], "all was on the medium");
}

#[test]
fn what_a_power_cut_may_have_cost_is_known_until_nobody_counts_on_it() {
    let disk = SimulatedDisk::new(1);
    let node = open(&disk, &["/d"]);
    append(&node.create("t-0"), 0..5);
    node.pass(seconds(1));
    let returned = open(&disk.power_cut(1), &["/d"]);
    let lacking = |disk: &SimulatedDisk| open(disk, &["/d"]).manager.may_lack_writes().to_vec();
    assert_eq!(lacking(&returned.disk.process_kill()), [partition("t-0")]);
    returned.pass(seconds(1));
    assert_eq!(lacking(&returned.disk.process_kill()), [partition("t-0")]);
    returned.manager.settle_lost_writes();
    assert_eq!(lacking(&returned.disk.process_kill()), []);

    let returned = open(&disk.power_cut(1), &["/d"]);
    returned.manager.shutdown();
    assert_eq!(lacking(&returned.disk), [partition("t-0")]);
}

#[test]
fn a_hole_that_was_cut_in_synced_records_is_a_loss_to_be_told() {
    let config = LogManagerConfig {
        cuts_holes: true,
        ..LogManagerConfig::default()
    };
    let synced = LogConfig {
        flush_messages: Some(1),
        ..LogConfig::default()
    };
    let open = |disk: &SimulatedDisk| try_open_with(disk, &["/d"], config.clone(), synced.clone()).unwrap();
    let disk = SimulatedDisk::new(1);
    let node = open(&disk);
    let log = create_with(&node, "t-0", synced.clone());
    append(&log, 0..5);
    append(&log, 5..10);
    log.flush().unwrap();
    create_with(&node, "u-0", synced.clone());
    assert_eq!(open(&disk.power_cut(1)).manager.may_lack_writes(), []);
    let after_a_cut = disk.power_cut(1);
    assert!(after_a_cut.flip_bit(Path::new(SEGMENT), 80, 3));
    let node = open(&after_a_cut);
    let lacking = |disk: &SimulatedDisk| open(disk).manager.may_lack_writes().to_vec();
    assert_eq!(node.manager.may_lack_writes(), [partition("t-0")]);
    assert!(node.log("t-0").log_end_offset() < Offset(5));
    // The hole is gone, and known until nobody counts on what lay there.
    assert_eq!(lacking(&node.disk.process_kill()), [partition("t-0")]);
    assert_eq!(lacking(&node.disk.power_cut(1)), [partition("t-0")]);
    node.pass(seconds(61));
    assert_eq!(lacking(&node.disk.process_kill()), [partition("t-0")]);
    node.manager.settle_lost_writes();
    assert_eq!(lacking(&node.disk.process_kill()), []);
    node.pass(seconds(61));
    append(&node.log("t-0"), 100..105);
    node.log("t-0").flush().unwrap();
    assert_eq!(lacking(&node.disk.power_cut(1)), []);
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
fn who_creates_the_file_that_the_message_names_gets_what_lies_before_the_damage() {
    let disk = SimulatedDisk::new(1);
    let node = open(&disk, &["/d"]);
    append(&node.create("t-0"), 0..50);
    node.manager.shutdown();
    drop(node);
    let whole = content(&disk, SEGMENT);
    assert!(disk.flip_bit(Path::new(SEGMENT), 20_000, 3));
    let node = open(&disk, &["/d"]);
    node.pass(seconds(16 * 60));
    assert_eq!(node.observer.told(), ["loaded t-0 of 1", "out of service t-0"]);
    let told = reason_of(node.log("t-0").check_serving());
    assert!(
        told.contains("The next start checks the whole partition"),
        "{told}"
    );
    node.manager.shutdown();
    drop(node);

    let node = open(&disk, &["/d"]);
    let from = whole.len() as i64 / 50;
    let from = 20_000 / from;
    let file = format!("/d/t-0/milena.give-up-from-{from}");
    let told = reason(&node);
    assert!(
        told.contains(&format!("create the empty file {file} and")),
        "{told}"
    );
    node.manager.shutdown();
    drop(node);
    // Another offset allows nothing.
    write(&disk, "/d/t-0/milena.give-up-from-7", &[]);
    let node = open(&disk, &["/d"]);
    assert_eq!(reason(&node), told);
    node.manager.shutdown();
    drop(node);
    disk.remove_file(Path::new("/d/t-0/milena.give-up-from-7"))
        .unwrap();
    write(&disk, &file, &[]);

    let node = open(&disk, &["/d"]);
    assert_eq!(node.log("t-0").log_end_offset(), Offset(from));
    assert_eq!(offsets(&disk, "/d", checkpoints::OUT_OF_SERVICE_FILE), [""; 0]);
    let names = names(&disk, "/d/t-0");
    assert!(!names.iter().any(|name| name.contains("give-up")), "{names:?}");
    let aside = names.iter().find(|name| name.contains(".log.cut-")).unwrap();
    let mut kept = content(&disk, SEGMENT);
    kept.extend(content(&disk, &format!("/d/t-0/{aside}")));
    let different = kept.iter().zip(&whole).filter(|(found, was)| found != was);
    assert_eq!(
        (kept.len(), different.count()),
        (whole.len(), 1),
        "nothing is thrown away"
    );
    let index = content(&disk, "/d/t-0/00000000000000000000.index");
    append(&node.log("t-0"), from..from + 3);
    for seed in 0..20 {
        // The recovery point of the past does not speak for what was written since, nor the new index for the old.
        let image = disk.power_cut(seed);
        assert_eq!(content(&image, "/d/t-0/00000000000000000000.index"), index);
        let node = open(&image, &["/d"]);
        let end = node.log("t-0").log_end_offset().get();
        assert!((from..=from + 3).contains(&end), "image {seed}: {end}");
    }
}

fn reason_of(result: Result<(), StorageError>) -> String {
    result.map_or_else(|error| error.to_string(), |()| String::new())
}

#[test]
fn a_torn_end_below_what_was_synced_is_damage_at_every_start() {
    let disk = SimulatedDisk::new(1);
    let node = open(&disk, &["/d"]);
    let log = node.create("t-0");
    append(&log, 0..5);
    log.flush().unwrap();
    node.pass(seconds(61));
    let size = log.size_bytes();
    drop((log, node));
    let disk = disk.process_kill();
    let file = disk.open(Path::new(SEGMENT), OpenMode::ReadWrite).unwrap();
    file.set_len(size - 20).unwrap();
    for _ in 0..3 {
        let node = open(&disk, &["/d"]);
        let told = reason(&node);
        assert!(told.contains("everything below offset 5 was synced"), "{told}");
        node.manager.shutdown();
        assert_eq!(file.size_bytes().unwrap(), size - 20);
    }
}

#[test]
fn damage_of_many_logs_is_noted_of_each() {
    let disk = SimulatedDisk::new(1);
    let config = LogManagerConfig {
        recovery_threads_per_dir: 4,
        ..LogManagerConfig::default()
    };
    let node = try_open(&disk, &["/d"], config.clone()).unwrap();
    let names: Vec<String> = (0..12).map(|number| format!("t-{number}")).collect();
    for name in &names {
        node.create(name);
    }
    node.pass(seconds(1));
    drop(node);
    let disk = disk.process_kill();
    for name in &names {
        write(
            &disk,
            &format!("/d/{name}/00000000000000000000.log"),
            &[0x55; 200],
        );
    }
    let node = try_open(&disk, &["/d"], config).unwrap();
    assert_eq!(node.partitions(), [""; 0]);
    let noted = offsets(&disk, "/d", checkpoints::OUT_OF_SERVICE_FILE);
    assert_eq!(noted.len(), names.len());
}

#[test]
fn what_was_said_of_truncated_or_deleted_records_is_not_said_of_those_that_take_their_offsets() {
    let disk = SimulatedDisk::new(1);
    let node = open(&disk, &["/d"]);
    let log = node.create("t-0");
    append(&log, 0..5);
    log.flush().unwrap();
    node.pass(seconds(61));
    let synced = || {
        let state = RunState::read(&disk, Path::new("/d")).unwrap().unwrap();
        state.synced_ends.get(&partition("t-0")).copied()
    };
    assert_eq!(synced(), Some(Offset(5)));
    node.manager
        .truncate_to(&[(partition("t-0"), Offset(2))])
        .unwrap();
    assert_eq!(synced(), Some(Offset(2)));
    drop(log);
    node.manager.delete(&partition("t-0")).unwrap();
    node.create("t-0");
    assert_eq!(synced(), None);
}

#[test]
fn a_sync_that_is_under_way_when_its_partition_is_deleted_takes_no_disk_for_failed() {
    let disk = SimulatedDisk::new(1);
    let node = open(&disk, &["/d"]);
    disk.set_completions(Completions::Manual);
    let config = LogConfig {
        flush_messages: Some(1),
        ..LogConfig::default()
    };
    append(&create_with(&node, "t-0", config), 0..1);
    assert!(disk.submitted_count() > 0);
    node.manager.delete(&partition("t-0")).unwrap();
    disk.run_completions(1);
    assert_eq!(node.observer.told(), [""; 0]);
    node.create("t-0");
}

#[test]
fn a_marker_that_a_killed_start_removed_does_not_come_back_after_the_next_start() {
    let disk = SimulatedDisk::new(1);
    let node = open(&disk, &["/d"]);
    append(&node.create("t-0"), 0..3);
    node.manager.shutdown();
    drop(node);
    let marker = ".kafka_cleanshutdown";
    assert!(names(&disk, "/d").iter().any(|name| name == marker));
    // As far as the start came.
    disk.remove_file(&Path::new("/d").join(marker)).unwrap();
    let node = open(&disk.process_kill(), &["/d"]);
    for seed in 0..20 {
        let image = node.disk.power_cut(seed);
        assert!(
            !names(&image, "/d").iter().any(|name| name == marker),
            "image {seed}"
        );
    }
}
