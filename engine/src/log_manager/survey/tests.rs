//! What a start finds in the log directories, as sentences.

use std::io::IoSlice;

use super::*;
use crate::io::simulated::{Fault, SimulatedDisk};
use crate::io::syscall::SyscallIo;

fn write(disk: &dyn Io, path: &str, content: &str) {
    let path = Path::new(path);
    disk.create_dir_all(path.parent().unwrap()).unwrap();
    let file = disk.open(path, OpenMode::Truncate).unwrap();
    file.write_vectored_at(0, &[IoSlice::new(content.as_bytes())])
        .unwrap();
}

fn meta(broker_id: i32, cluster_id: &str) -> String {
    format!("#\n#Sun Nov 22 16:16:51 UTC 2026\nbroker.id={broker_id}\nversion=0\ncluster.id={cluster_id}\n")
}

fn paths(names: &[&str]) -> Vec<PathBuf> {
    names.iter().map(PathBuf::from).collect()
}

/// The outcome in one line: the error's text, or what each directory has.
fn outcome(result: Result<Survey, LogDirsError>) -> String {
    match result {
        Err(error) => format!("refused: {error}"),
        Ok(survey) => {
            let mut text = String::new();
            for found in &survey.online {
                let partitions: Vec<String> = found.partitions.iter().map(ToString::to_string).collect();
                text += &format!("{}: [{}]", found.directory.path().display(), partitions.join(" "));
                for (flag, name) in [(found.clean_shutdown, "clean"), (found.full, "full")] {
                    text += &if flag { format!(" {name}") } else { String::new() };
                }
                for (count, what) in [(found.deleted.len(), "deleted"), (found.future.len(), "future")] {
                    text += &if count == 0 {
                        String::new()
                    } else {
                        format!(" {count} {what}")
                    };
                }
                text += "; ";
            }
            for directory in &survey.offline {
                let reason = directory.offline_reason().unwrap_or_default();
                text += &format!("{} offline: {reason}; ", directory.path().display());
            }
            text
        }
    }
}

/// Prepares a disk, surveys `/a` and `/b`, and compares the outcome by its beginning.
fn check(name: &str, prepare: impl FnOnce(&SimulatedDisk), expected: &str) {
    let disk = SimulatedDisk::new(1);
    prepare(&disk);
    let found = outcome(Survey::of(&paths(&["/a", "/b"]), &disk));
    assert!(
        found.starts_with(expected),
        "{name}\n  found:    {found}\n  expected: {expected}"
    );
}

#[test]
fn each_oddity_of_a_log_directory_has_its_own_outcome() {
    check("new", |_| {}, "/a: []; /b: []; ");
    check(
        "partitions and plain files",
        |disk| {
            for path in [
                "/a/t-0/x",
                "/a/t-10/x",
                "/a/t-2/x",
                "/b/u-0/x",
                "/b/milena.tree",
                "/b/.kafka_cleanshutdown",
            ] {
                write(disk, path, "");
            }
        },
        "/a: [t-0 t-10 t-2]; /b: [u-0] clean; ",
    );
    check(
        "on the way out and in",
        |disk| {
            write(
                disk,
                "/a/t-0.0123456789abcdef0123456789abcdef-delete/00000000000000000000.log",
                "",
            );
            write(
                disk,
                "/b/t-0.0123456789abcdef0123456789abcdef-future/00000000000000000000.log",
                "",
            );
            write(disk, "/b/t-0/00000000000000000000.log", "");
        },
        "/a: [] 1 deleted; /b: [t-0] 1 future; ",
    );
    check(
        "a file",
        |disk| write(disk, "/a", "x"),
        "/b: []; /a offline: /a is not a directory; ",
    );
    check(
        "two files",
        |disk| {
            write(disk, "/a", "x");
            write(disk, "/b", "x");
        },
        "refused: none of the log directories can be used: /a: /a is not a directory; /b: /b is not a \
         directory. Each that log.dirs names must be a directory in which this process may write, or be missing \
         where it may create it.",
    );
    check(
        "unknown directories",
        |disk| {
            write(disk, "/a/lost+found/x", "");
            write(disk, "/b/backup/x", "");
            write(disk, "/b/t-0/x", "");
        },
        "refused: log.dirs contains directories that are no partitions (topic-partition, or \
         topic-partition.uniqueId-delete if marked for deletion): /a/lost+found, /b/backup. ",
    );
    check(
        "one partition twice",
        |disk| {
            write(disk, "/a/t-0/x", "");
            write(disk, "/b/t-0/x", "");
        },
        "refused: Duplicate log directories for t-0 are found in both /a/t-0 and /b/t-0. ",
    );
    check(
        "two brokers",
        |disk| {
            write(disk, "/a/meta.properties", &meta(1, "one"));
            write(disk, "/b/meta.properties", &meta(2, "one"));
        },
        "refused: BrokerMetadata is not consistent across log.dirs. ",
    );
    check(
        "two clusters",
        |disk| {
            write(disk, "/a/meta.properties", &meta(1, "one"));
            write(disk, "/b/meta.properties", &meta(1, "two"));
        },
        "refused: BrokerMetadata is not consistent across log.dirs. ",
    );
    check(
        "damaged meta.properties",
        |disk| write(disk, "/a/meta.properties", "version=0\nbroker.id=x\n"),
        "refused: /a/meta.properties: broker.id=x, expected a number",
    );
    check(
        "an input/output error",
        |disk| {
            write(disk, "/a/x", "");
            disk.fail_below(Path::new("/a"), Fault::Eio);
        },
        "/b: []; /a offline: ",
    );
    check(
        "full",
        |disk| {
            write(disk, "/a/t-0/x", "");
            write(disk, "/b/.lock", "");
            write(disk, "/a/.lock", "");
            disk.fail_below(Path::new("/a"), Fault::Enospc);
        },
        "/a: [t-0] full; /b: []; ",
    );
}

#[test]
fn a_directory_locked_by_another_is_named_and_stays_as_it_is() {
    let disk = SimulatedDisk::new(1);
    disk.create_dir_all(Path::new("/b")).unwrap();
    let _other = disk.lock(Path::new("/b/.lock")).unwrap().unwrap();
    assert_eq!(
        outcome(Survey::of(&paths(&["/a", "/b"]), &disk)),
        "refused: Failed to acquire lock on file .lock in /b. A Kafka instance in another process or thread \
         is using this directory."
    );
    let names: Vec<String> = disk
        .list(Path::new("/a"))
        .unwrap()
        .into_iter()
        .map(|entry| entry.name)
        .collect();
    assert_eq!(names, [".lock"], "the probe is gone, the lock is free");
    assert!(disk.lock(Path::new("/a/.lock")).unwrap().is_some());
}

#[test]
fn one_directory_under_two_names_is_refused() {
    let disk = SimulatedDisk::new(1);
    assert_eq!(
        outcome(Survey::of(&paths(&["/a", "/a/"]), &disk)),
        "refused: log.dirs names one directory twice: /a and /a/"
    );

    let real = std::env::temp_dir().join(format!("milena-survey-{}", unique_id(&disk)));
    std::fs::create_dir_all(real.join("data")).unwrap();
    std::os::unix::fs::symlink(real.join("data"), real.join("link")).unwrap();
    let found = Survey::of(&[real.join("data"), real.join("link")], &SyscallIo::new("test"));
    assert!(
        matches!(found, Err(LogDirsError::SameDirectory { .. })),
        "{found:?}"
    );
    drop(found);
    let left: Vec<_> = std::fs::read_dir(real.join("data"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(left, [".lock"]);
    std::fs::remove_dir_all(real).unwrap();
}

#[test]
fn the_leftover_of_a_crash_between_probe_and_removal_is_removed() {
    let disk = SimulatedDisk::new(1);
    write(&disk, "/a/milena.probe.0123456789abcdef0123456789abcdef", "");
    let survey = Survey::of(&paths(&["/a"]), &disk).unwrap();
    drop(survey);
    assert_eq!(
        disk.list(Path::new("/a")).unwrap().len(),
        1,
        "the lock file alone"
    );
}

#[test]
fn the_configured_identity_must_match_the_stored_one_where_both_say_something() {
    let disk = SimulatedDisk::new(1);
    write(&disk, "/a/meta.properties", &meta(1, "zOiANrkSRYyBFqq2U1CEVg"));
    let survey = Survey::of(&paths(&["/a", "/b"]), &disk).unwrap();
    assert_eq!(survey.metadata().map(|metadata| metadata.broker_id), Some(1));
    for (broker_id, cluster_id, expected) in [
        (None, None, "fine"),
        (Some(1), Some("zOiANrkSRYyBFqq2U1CEVg"), "fine"),
        (
            Some(2),
            None,
            "Configured broker.id 2 doesn't match stored broker.id 1 in /a/meta.properties. ",
        ),
        (
            Some(1),
            Some("other"),
            "The Cluster ID other doesn't match stored clusterId zOiANrkSRYyBFqq2U1CEVg in ",
        ),
    ] {
        let found = match survey.check_identity(broker_id, cluster_id) {
            Ok(()) => "fine".to_owned(),
            Err(error) => error.to_string(),
        };
        assert!(found.starts_with(expected), "{found}");
    }
}

#[test]
fn meta_properties_is_written_where_it_differs_only() {
    let disk = SimulatedDisk::new(1);
    let metadata = BrokerMetadata {
        broker_id: 3,
        cluster_id: Some("c".to_owned()),
    };
    let survey = Survey::of(&paths(&["/a", "/b"]), &disk).unwrap();
    survey.write_metadata(&metadata, &disk, TimestampMs(0));
    drop(survey);
    let after_cut = disk.power_cut(7);
    let survey = Survey::of(&paths(&["/a", "/b"]), &after_cut).unwrap();
    assert!(
        survey
            .online
            .iter()
            .all(|found| found.metadata.as_ref() == Some(&metadata))
    );
    let before = after_cut.op_count();
    survey.write_metadata(&metadata, &after_cut, TimestampMs(0));
    assert_eq!(after_cut.op_count(), before);
}
