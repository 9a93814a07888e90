//! `verify` and `repair` on files of a real disk: what a file is besides its bytes, and what is no damage.

use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use milena_engine::record_batch::ControlKind;

use crate::fixture::{Folder, Layout, PLAIN, batch, marker, rec, run, segment};

/// Bytes, user, group, mode, and for a log when it was written last.
type Files = BTreeMap<PathBuf, (Vec<u8>, u32, u32, u32, Option<i64>)>;

fn files(directory: &Path) -> Files {
    let mut found = Files::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.file_name().unwrap() != ".lock" {
            let metadata = path.metadata().unwrap();
            let time = path.extension().is_some_and(|extension| extension == "log");
            let time = time.then(|| metadata.mtime());
            let (user, group, mode) = (metadata.uid(), metadata.gid(), metadata.mode());
            found.insert(
                path.clone(),
                (std::fs::read(&path).unwrap(), user, group, mode, time),
            );
        }
    }
    found
}

fn one(epoch: i32, offset: i64) -> Vec<u8> {
    batch(Layout { epoch, ..PLAIN }, &[rec(offset, None, Some("v"))])
}

fn log_dir(folder: &Folder) -> PathBuf {
    let data = folder.at("data");
    std::fs::create_dir_all(&data).unwrap();
    std::fs::write(data.join("meta.properties"), "version=0\nbroker.id=0\n").unwrap();
    data
}

fn flip(path: &Path, at: usize) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[at] ^= 1;
    std::fs::write(path, bytes).unwrap();
}

/// Standard output of a run that ends with this code.
fn told(code: i32, arguments: &[&str], paths: &[&Path]) -> String {
    let printed = run(arguments, paths);
    assert_eq!(
        printed.code, code,
        "{arguments:?}: {}{}",
        printed.out, printed.err
    );
    printed.out
}

#[test]
fn what_a_repair_changes_stays_the_brokers_and_an_undo_restores_owners_modes_and_times() {
    let folder = Folder::new("owners");
    let data = log_dir(&folder);
    let partition = data.join("t-0");
    for base in [0, 4, 8] {
        segment(
            &partition,
            base,
            &(base..base + 4).map(|offset| one(0, offset)).collect::<Vec<_>>(),
        );
    }
    std::fs::write(partition.join("leader-epoch-checkpoint"), "0\n1\n0 0\n").unwrap();
    let damaged = partition.join("00000000000000000004.log");
    flip(&damaged, one(0, 4).len() + 65);
    std::fs::remove_file(partition.join("00000000000000000000.index")).unwrap();
    // Of another user, where this one may give files away.
    let is_root = data.metadata().unwrap().uid() == 0;
    let mut owned = vec![data.clone(), partition.clone()];
    owned.extend(files(&data).into_keys());
    let then = SystemTime::UNIX_EPOCH + Duration::from_secs(1_600_000_000);
    for path in &owned {
        if path.is_file() {
            std::fs::set_permissions(path, PermissionsExt::from_mode(0o640)).unwrap();
            std::fs::File::open(path).unwrap().set_modified(then).unwrap();
        } else {
            std::fs::set_permissions(path, PermissionsExt::from_mode(0o750)).unwrap();
        }
        if is_root {
            chown(path, Some(12345), Some(23456)).unwrap();
        }
    }
    let before = files(&data);
    for choice in ["cut", "keep"] {
        // On another file system where there is one.
        let elsewhere = Path::new("/dev/shm").is_dir().then_some("/dev/shm");
        for parent in [Some(folder.0.to_str().unwrap()), elsewhere]
            .into_iter()
            .flatten()
        {
            let parent = Path::new(parent).join(format!("milena.undo.{}", std::process::id()));
            std::fs::create_dir_all(&parent).unwrap();
            let parent_name = parent.to_str().unwrap().to_owned();
            let arguments = [
                "repair",
                "--apply",
                "--at-damage",
                choice,
                "--undo-dir",
                &parent_name,
            ];
            told(0, &arguments, &[&data]);
            let after = files(&data);
            assert!(after != before);
            for (path, (_, user, group, mode, time)) in &after {
                let (old_user, old_group) = before.values().next().map(|old| (old.1, old.2)).unwrap();
                assert_eq!(
                    (*user, *group, mode & 0o777),
                    (old_user, old_group, 0o640),
                    "{}",
                    path.display()
                );
                assert!(
                    time.is_none_or(|time| time == 1_600_000_000),
                    "{}",
                    path.display()
                );
            }
            let lock = data.join(".lock").metadata().unwrap();
            assert_eq!(
                (lock.uid(), lock.mode() & 0o777),
                (data.metadata().unwrap().uid(), 0o640)
            );
            let undo = std::fs::read_dir(&parent)
                .unwrap()
                .next()
                .unwrap()
                .unwrap()
                .path();
            let kept = undo.metadata().unwrap();
            assert_eq!((kept.uid(), kept.mode() & 0o777), (lock.uid(), 0o750));
            told(0, &["repair", "--undo", undo.to_str().unwrap()], &[]);
            let back = files(&data);
            for (path, wanted) in &before {
                assert!(back.get(path) == Some(wanted), "{choice}: {}", path.display());
            }
            assert_eq!(back.len(), before.len());
            std::fs::remove_dir_all(&parent).unwrap();
        }
    }
}

#[test]
fn links_anywhere_are_refused_before_anything_is_changed() {
    let folder = Folder::new("links");
    let data = log_dir(&folder);
    for name in ["a-0", "b-0"] {
        let log = segment(&data.join(name), 0, &[one(0, 0), one(0, 1)]);
        flip(&log, one(0, 0).len() + 65);
    }
    std::fs::hard_link(data.join("b-0/00000000000000000000.log"), folder.at("other name")).unwrap();
    let before = files(&data);
    // Each in its own directory: two log directories in one run.
    let other = folder.at("whole");
    std::fs::create_dir_all(&other).unwrap();
    std::fs::rename(data.join("a-0"), other.join("a-0")).unwrap();
    let first = files(&other);
    let printed = run(&["repair", "--apply"], &[&other, &data]);
    assert_eq!(printed.code, 2, "{}", printed.out);
    assert!(printed.err.contains("a file with 2 names"), "{}", printed.err);
    assert!(files(&other) == first && before.len() > first.len());
}

#[test]
fn a_snapshot_of_the_metadata_is_looked_into_and_must_have_its_end() {
    let folder = Folder::new("metadata");
    let data = log_dir(&folder);
    let partition = data.join("__cluster_metadata-0");
    segment(&partition, 0, &[one(1, 0), one(1, 1), one(1, 2)]);
    std::fs::write(partition.join("leader-epoch-checkpoint"), "0\n1\n1 0\n").unwrap();
    let ends = |offset| marker(offset, -1, ControlKind::Commit);
    let whole = [ends(0), one(1, 1), ends(2)];
    let snapshot = partition.join("00000000000000000003-0000000001.checkpoint");
    let bootstrap = data.join("bootstrap.checkpoint");
    for path in [&snapshot, &bootstrap] {
        std::fs::write(path, whole.concat()).unwrap();
    }
    told(0, &["verify", "--deep"], &[&data]);
    for path in [&snapshot, &bootstrap] {
        for (bytes, expected) in [
            (
                {
                    let mut bytes = whole.concat();
                    bytes[whole[0].len() + 65] ^= 1;
                    bytes
                },
                "found checksum",
            ),
            (
                whole[..2].concat(),
                "found the end of the file, expected the footer of a snapshot",
            ),
            (whole[1..].concat(), "found a batch from offset 1, expected 0"),
            (Vec::new(), "found the end of the file"),
        ] {
            std::fs::write(path, bytes).unwrap();
            let said = told(3, &["verify"], &[&data]);
            assert!(
                said.contains(&format!("{}: byte", path.display())) && said.contains(expected),
                "{said}"
            );
        }
        // There is nothing that a repair could make it from.
        assert!(told(3, &["repair", "--apply"], &[&data]).contains("1 damaged, 1 stay as they are"));
        std::fs::write(path, whole.concat()).unwrap();
    }
}

#[test]
fn a_leader_epoch_that_a_flipped_bit_lowered_leaves_the_list_of_epochs_as_it_is() {
    for stray in [1, i32::MIN + 5, 1 << 20] {
        let folder = Folder::new("stray");
        let data = log_dir(&folder);
        let partition = data.join("t-0");
        let epochs = [0, 0, 3, 3, 3, 5, 5, stray, 5];
        let batches: Vec<_> = epochs
            .iter()
            .zip(0..)
            .map(|(epoch, offset)| one(*epoch, offset))
            .collect();
        segment(&partition, 0, &batches);
        let list = "0\n3\n0 0\n3 2\n5 5\n";
        std::fs::write(partition.join("leader-epoch-checkpoint"), list).unwrap();
        let said = told(0, &["verify"], &[&data]);
        let note =
            format!("found leader epoch {stray} in a batch, expected 5, as the batches around it have");
        assert!(said.contains(&note), "{said}");
        // A missing list is made from the batches that are not strays.
        std::fs::remove_file(partition.join("leader-epoch-checkpoint")).unwrap();
        told(0, &["repair", "--apply"], &[&data]);
        assert_eq!(
            std::fs::read_to_string(partition.join("leader-epoch-checkpoint")).unwrap(),
            list
        );
    }
}

#[test]
fn a_log_of_which_all_records_were_deleted_needs_no_snapshot_of_its_producers() {
    let folder = Folder::new("emptied");
    let data = log_dir(&folder);
    let layout = Layout {
        producer: Some((7, 0, false)),
        ..PLAIN
    };
    segment(&data.join("t-0"), 0, &[batch(layout, &[rec(0, None, Some("v"))])]);
    std::fs::write(data.join("t-0/leader-epoch-checkpoint"), "0\n1\n0 0\n").unwrap();
    std::fs::write(data.join(".kafka_cleanshutdown"), "").unwrap();
    assert!(told(3, &["verify"], &[&data]).contains("a snapshot of the producers"));
    std::fs::write(data.join("log-start-offset-checkpoint"), "0\n1\nt 0 1\n").unwrap();
    told(0, &["verify"], &[&data]);
}

#[test]
fn a_sound_partition_with_space_ahead_is_left_alone() {
    let folder = Folder::new("ahead");
    let data = log_dir(&folder);
    let log = segment(&data.join("t-0"), 0, &[one(0, 0)]);
    std::fs::write(data.join("t-0/leader-epoch-checkpoint"), "0\n1\n0 0\n").unwrap();
    std::fs::File::options()
        .write(true)
        .open(&log)
        .unwrap()
        .set_len(1 << 20)
        .unwrap();
    let before = files(&data);
    let said = told(0, &["repair", "--apply"], &[&data]);
    assert_eq!(said, "nothing is damaged\n");
    assert!(files(&data) == before);
}

#[test]
fn the_copy_of_a_meta_properties_does_not_take_the_others_directory_id() {
    let folder = Folder::new("directory-id");
    let (sound, damaged) = (folder.at("one"), folder.at("two"));
    for path in [&sound, &damaged] {
        std::fs::create_dir_all(path).unwrap();
    }
    let content = "version=1\ncluster.id=x\nnode.id=3\ndirectory.id=abc\n";
    std::fs::write(sound.join("meta.properties"), content).unwrap();
    std::fs::write(damaged.join("meta.properties"), "\0\0\0").unwrap();
    told(0, &["repair", "--apply"], &[&sound, &damaged]);
    let copied = std::fs::read_to_string(damaged.join("meta.properties")).unwrap();
    assert_eq!(copied, "version=1\ncluster.id=x\nnode.id=3\n");
}

#[test]
fn a_log_of_metadata_is_cut_where_others_keep_what_follows_damage() {
    for (name, left) in [("__cluster_metadata-0", 1), ("t-0", 2)] {
        let folder = Folder::new("hole");
        let data = log_dir(&folder);
        let log = segment(&data.join(name), 0, &[one(0, 0), one(0, 1), one(0, 2)]);
        flip(&log, one(0, 0).len() + 65);
        told(0, &["repair", "--apply", "--at-damage", "keep"], &[&data]);
        assert_eq!(
            log.metadata().unwrap().len(),
            left * one(0, 0).len() as u64,
            "{name}"
        );
    }
}

#[test]
fn the_recovery_point_moves_behind_what_compaction_emptied_though_nothing_is_damaged() {
    let folder = Folder::new("compacted");
    let data = log_dir(&folder);
    let holes = batch(PLAIN, &[rec(0, Some("a"), None), rec(5, Some("b"), None)]);
    let logs = [
        segment(&data.join("t-0"), 0, &[holes]),
        segment(&data.join("t-0"), 20, &[one(0, 20)]),
    ];
    std::fs::write(data.join("t-0/leader-epoch-checkpoint"), "0\n1\n0 0\n").unwrap();
    let points = data.join("recovery-point-offset-checkpoint");
    std::fs::write(&points, "0\n1\nt 0 3\n").unwrap();
    let before = logs.clone().map(|log| std::fs::read(log).unwrap());
    told(0, &["repair", "--apply"], &[&data]);
    assert_eq!(std::fs::read_to_string(&points).unwrap(), "0\n1\nt 0 21\n");
    assert!(logs.map(|log| std::fs::read(log).unwrap()) == before);
}
