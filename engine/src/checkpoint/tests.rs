//! The files as a Java broker writes and reads them, and every cut of the power while one is replaced.

use std::collections::BTreeMap;
use std::path::Path;

use super::*;
use crate::io::simulated::{Fault, SimulatedDisk};
use crate::units::{LeaderEpoch, Offset, TimestampMs, TopicPartition};

const DIR: &str = "/logs";

fn disk() -> SimulatedDisk {
    let disk = SimulatedDisk::new(3);
    disk.create_dir_all(Path::new(DIR)).unwrap();
    disk.sync_dir(Path::new("/")).unwrap();
    disk
}

fn text(disk: &SimulatedDisk, name: &str) -> Option<String> {
    let content = read_file(disk, &Path::new(DIR).join(name)).unwrap();
    content.map(|bytes| String::from_utf8(bytes).unwrap())
}

fn put(disk: &SimulatedDisk, name: &str, content: &str) {
    replace_file(disk, &Path::new(DIR).join(name), content.as_bytes()).unwrap();
}

fn offsets(of: &[(&str, i32, i64)]) -> BTreeMap<TopicPartition, Offset> {
    of.iter()
        .map(|(topic, partition, offset)| (TopicPartition::new(*topic, *partition), Offset(*offset)))
        .collect()
}

#[test]
fn an_offset_checkpoint_is_written_as_kafka_writes_it_and_read_again() {
    let disk = disk();
    let file = OffsetCheckpoint::new(Path::new(DIR), RECOVERY_POINT_FILE);
    assert_eq!(file.read(&disk).unwrap(), BTreeMap::new());
    let entries = offsets(&[("topicA", 0, 1234), ("topicB", 3, 77)]);
    file.write(&disk, &entries).unwrap();
    let written = text(&disk, "recovery-point-offset-checkpoint").unwrap();
    assert_eq!(written, "0\n2\ntopicA 0 1234\ntopicB 3 77\n");
    assert_eq!(file.read(&disk).unwrap(), entries);
    file.write(&disk, &BTreeMap::new()).unwrap();
    assert_eq!(text(&disk, "recovery-point-offset-checkpoint").unwrap(), "0\n0\n");
    assert_eq!(file.read(&disk).unwrap(), BTreeMap::new());
}

#[test]
fn a_number_that_does_not_fit_is_a_malformed_line() {
    let disk = disk();
    let file = OffsetCheckpoint::new(Path::new(DIR), REPLICATION_OFFSET_FILE);
    for line in [
        "a 2147483648 0",
        "a 0 9223372036854775808",
        "a 0",
        "a 0 1 2",
        "a zero 1",
        "a 0 1.5",
    ] {
        put(&disk, REPLICATION_OFFSET_FILE, &format!("0\n1\n{line}\n"));
        let error = file.read(&disk).unwrap_err().to_string();
        assert_eq!(
            error,
            format!(
                "/logs/replication-offset-checkpoint: line 3: '{line}', expected 'topic partition offset'"
            )
        );
    }
}

#[test]
fn leader_epochs_keep_their_order() {
    let disk = disk();
    let file = LeaderEpochCheckpoint::new(Path::new(DIR));
    assert_eq!(file.read(&disk).unwrap(), []);
    let entries = [(0, 0), (2, 150), (7, 9000)].map(|(epoch, start)| EpochEntry {
        epoch: LeaderEpoch(epoch),
        start_offset: Offset(start),
    });
    file.write(&disk, &entries).unwrap();
    assert_eq!(
        text(&disk, "leader-epoch-checkpoint").unwrap(),
        "0\n3\n0 0\n2 150\n7 9000\n"
    );
    assert_eq!(file.read(&disk).unwrap(), entries);
}

#[test]
fn broker_metadata_is_written_as_java_properties_and_read_again() {
    let disk = disk();
    assert_eq!(BrokerMetadata::read(&disk, Path::new(DIR)).unwrap(), None);
    let metadata = BrokerMetadata {
        broker_id: 1,
        cluster_id: Some("vpE_8kZ2TVGZ0Jc5nMZdZQ".to_owned()),
    };
    metadata
        .write(&disk, Path::new(DIR), TimestampMs(1_795_359_600_123))
        .unwrap();
    assert_eq!(
        text(&disk, "meta.properties").unwrap(),
        "#\n#Sun Nov 22 15:00:00 UTC 2026\nbroker.id=1\nversion=0\ncluster.id=vpE_8kZ2TVGZ0Jc5nMZdZQ\n"
    );
    assert_eq!(
        BrokerMetadata::read(&disk, Path::new(DIR)).unwrap(),
        Some(metadata)
    );

    put(&disk, META_PROPERTIES_FILE, "version=0\nbroker.id=7\n");
    let old = BrokerMetadata {
        broker_id: 7,
        cluster_id: None,
    };
    assert_eq!(BrokerMetadata::read(&disk, Path::new(DIR)).unwrap(), Some(old));
}

#[test]
fn a_file_that_java_wrote_is_read_and_written_byte_for_byte() {
    // java.util.Properties.store of Java 17, keys set in the order of BrokerMetadataCheckpoint.
    let java = "#\n#Sun Nov 22 16:53:11 UTC 2026\nbroker.id=9\nversion=0\ncluster.id=\\ x\\:\\u00E9\\t\\#\n";
    let metadata = BrokerMetadata {
        broker_id: 9,
        cluster_id: Some(" x:\u{e9}\t#".to_owned()),
    };
    let disk = disk();
    put(&disk, META_PROPERTIES_FILE, java);
    assert_eq!(
        BrokerMetadata::read(&disk, Path::new(DIR)).unwrap().as_ref(),
        Some(&metadata)
    );
    metadata
        .write(&disk, Path::new(DIR), TimestampMs(1_795_366_391_999))
        .unwrap();
    assert_eq!(text(&disk, META_PROPERTIES_FILE).unwrap(), java);
}

#[test]
fn broker_metadata_that_cannot_be_used_says_which_key_and_why() {
    let cases = [
        ("", "version=, expected a number from 0 to 2147483647"),
        ("version=1\nbroker.id=0\n", "version=1, expected 0"),
        (
            "version=0\n",
            "broker.id=, expected a number from 0 to 2147483647",
        ),
        (
            "version=0\nbroker.id=-1\n",
            "broker.id=-1, expected a number from 0 to 2147483647",
        ),
        (
            "version=0\nbroker.id=\\uZZZZ\n",
            "line 2: '\\uZZZZ', expected four hexadecimal digits after '\\u'",
        ),
    ];
    for (content, expected) in cases {
        let disk = disk();
        put(&disk, META_PROPERTIES_FILE, content);
        let error = BrokerMetadata::read(&disk, Path::new(DIR)).unwrap_err();
        assert_eq!(error.to_string(), format!("/logs/meta.properties: {expected}"));
    }
}

#[test]
fn the_clean_shutdown_marker_comes_and_goes_durably() {
    let disk = disk();
    let exists = |disk: &SimulatedDisk| clean_shutdown_marker_exists(disk, Path::new(DIR)).unwrap();
    assert!(!exists(&disk));
    create_clean_shutdown_marker(&disk, Path::new(DIR)).unwrap();
    create_clean_shutdown_marker(&disk, Path::new(DIR)).unwrap();
    assert!((0..50).all(|seed| exists(&disk.power_cut(seed))));
    remove_clean_shutdown_marker(&disk, Path::new(DIR)).unwrap();
    remove_clean_shutdown_marker(&disk, Path::new(DIR)).unwrap();
    assert!((0..50).all(|seed| !exists(&disk.power_cut(seed))));
}

#[test]
fn a_cut_at_any_operation_leaves_the_old_content_or_the_new_and_after_ok_the_new() {
    let path = Path::new("/logs/f");
    let (old, new) = (vec![b'o'; 1300], vec![b'n'; 1700]);
    let mut both_seen = (false, false);
    for cut in 0.. {
        let disk = disk();
        replace_file(&disk, path, &old).unwrap();
        disk.cut_power_after(cut);
        let outcome = replace_file(&disk, path, &new);
        for seed in 0..100 {
            let found = read_file(&disk.power_cut(seed), path).unwrap().unwrap();
            assert!(
                found == old || found == new,
                "cut {cut} seed {seed}: {} bytes",
                found.len()
            );
            assert!(
                outcome.is_err() || found == new,
                "cut {cut} seed {seed}: Ok, yet the old content"
            );
            both_seen = (
                both_seen.0 || found == old,
                both_seen.1 || (outcome.is_err() && found == new),
            );
        }
        if outcome.is_ok() {
            assert_eq!(cut, 5, "create, write, sync, rename, sync of the directory");
            break;
        }
    }
    assert_eq!(both_seen, (true, true));
}

#[test]
fn a_fault_at_any_operation_is_reported_and_leaves_whole_content() {
    let path = Path::new("/logs/f");
    for fault in [Fault::Eio, Fault::Enospc, Fault::ShortWrite, Fault::FailedSync] {
        for count in 0..5 {
            let disk = disk();
            replace_file(&disk, path, b"old").unwrap();
            disk.fail_after(count, fault);
            let outcome = replace_file(&disk, path, b"new");
            let applies = match fault {
                Fault::ShortWrite => count <= 1,
                _ => true,
            };
            assert_eq!(outcome.is_err(), applies, "{fault:?} after {count}");
            let found = read_file(&disk, path).unwrap().unwrap();
            assert!(found == b"old" || found == b"new");
        }
    }
}

#[test]
fn a_leftover_temporary_file_is_ignored_and_overwritten() {
    let disk = disk();
    put(
        &disk,
        "recovery-point-offset-checkpoint.tmp",
        "a longer text that is no checkpoint at all",
    );
    put(&disk, "meta.properties.tmp", "rubbish");
    let file = OffsetCheckpoint::new(Path::new(DIR), RECOVERY_POINT_FILE);
    assert_eq!(file.read(&disk).unwrap(), BTreeMap::new());
    let entries = offsets(&[("a", 0, 1)]);
    file.write(&disk, &entries).unwrap();
    assert_eq!(file.read(&disk).unwrap(), entries);
    assert_eq!(text(&disk, "recovery-point-offset-checkpoint.tmp"), None);
    assert_eq!(BrokerMetadata::read(&disk, Path::new(DIR)).unwrap(), None);
    assert_eq!(text(&disk, "meta.properties.tmp"), None);
}
