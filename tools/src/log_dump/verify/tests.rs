//! What is sound is called sound, and each kind of damage by its name.

use std::path::{Path, PathBuf};

use milena_engine::io::Io;
use milena_engine::io::simulated::SimulatedDisk;

use super::{Examination, Kind, examine};
use crate::Exit;
use crate::log_dump::test_directory::{LOG_DIR, Random, batches, damage, read, sound_directory, write};

fn examined(disk: &SimulatedDisk, deep: bool) -> Examination {
    examine(disk, &[PathBuf::from(LOG_DIR)], deep).unwrap()
}

/// Kind and name of the file of all findings but notes.
fn found(disk: &SimulatedDisk) -> Vec<(&'static str, String)> {
    let examination = examined(disk, false);
    let damage = examination.findings().filter(|finding| finding.is_damage());
    let name = |path: &Path| path.file_name().unwrap().to_string_lossy().into_owned();
    damage
        .map(|finding| (finding.kind.name(), name(&finding.path)))
        .collect()
}

fn file(name: &str) -> PathBuf {
    Path::new(LOG_DIR).join(name)
}

fn segment(base: i64, suffix: &str) -> PathBuf {
    file(&format!("t-0/{base:020}{suffix}"))
}

/// Base offsets of the segments of `t-0`.
fn bases(disk: &SimulatedDisk) -> Vec<i64> {
    let examination = examined(disk, false);
    let partition = examination.directories[0]
        .partitions
        .iter()
        .find(|partition| partition.name() == "t-0");
    partition
        .unwrap()
        .segments
        .iter()
        .map(|segment| segment.base)
        .collect()
}

#[test]
fn what_is_sound_has_no_finding() {
    for is_clean in [false, true] {
        for deep in [false, true] {
            let examination = examined(&sound_directory(is_clean), deep);
            let findings: Vec<_> = examination.findings().collect();
            assert!(findings.is_empty(), "{findings:?}");
            assert_eq!(examination.exit(), Exit::Success);
            let ends: Vec<_> = examination.directories[0]
                .partitions
                .iter()
                .map(|one| (one.name(), one.end()))
                .collect();
            assert_eq!(ends, [("old-1".to_owned(), 48), ("t-0".to_owned(), 65)]);
        }
    }
}

#[test]
fn every_flipped_bit_of_a_log_is_found_but_in_the_leader_epoch() {
    let disk = sound_directory(false);
    for name in ["t-0", "old-1"] {
        let path = file(&format!("{name}/{:020}.log", 0));
        let sound = read(&disk, &path);
        let places = batches(&sound);
        let mut random = Random(3);
        for (position, header) in places {
            let is_v2 = header.leader_epoch.is_some();
            for at in (0..70.min(header.size_bytes)).chain([header.size_bytes - 1]) {
                let mut bad = sound.clone();
                bad[position + at] ^= 1 << random.below(8);
                write(&disk, &path, &bad);
                if !(is_v2 && (12..16).contains(&at)) {
                    assert_eq!(
                        examined(&disk, false).exit(),
                        Exit::Failed,
                        "{name}: byte {at} of {header:?}"
                    );
                }
            }
        }
        write(&disk, &path, &sound);
    }
}

#[test]
fn damage_is_called_by_its_name() {
    let disk = sound_directory(true);
    let bases = bases(&disk);
    let (middle, last) = (bases[1], bases[2]);
    let flip = |path: &PathBuf, at: usize| {
        let mut content = read(&disk, path);
        content[at] ^= 0x10;
        write(&disk, path, &content);
    };
    type Change<'c> = (PathBuf, Box<dyn Fn(&PathBuf) + 'c>, &'static str);
    let remove = |path: &PathBuf| disk.remove_file(path).unwrap();
    let cases: Vec<Change<'_>> = vec![
        (segment(middle, ".log"), Box::new(|path| flip(path, 700)), "batch"),
        (segment(middle, ".log"), Box::new(|path| flip(path, 5)), "batch"),
        (segment(middle, ".log"), Box::new(remove), "gap"),
        (
            segment(middle, ".index"),
            Box::new(|path| flip(path, 2)),
            "offset-index",
        ),
        (
            segment(middle, ".index"),
            Box::new(|path| flip(path, 7)),
            "offset-index",
        ),
        (segment(middle, ".index"), Box::new(remove), "offset-index"),
        (
            segment(middle, ".timeindex"),
            Box::new(|path| flip(path, 7)),
            "time-index",
        ),
        (
            segment(middle, ".timeindex"),
            Box::new(|path| write(&disk, path, &[1; 13])),
            "time-index",
        ),
        (
            segment(middle, ".txnindex"),
            Box::new(|path| flip(path, 9)),
            "transaction-index",
        ),
        (
            segment(middle, ".txnindex"),
            Box::new(|path| flip(path, 1)),
            "transaction-index",
        ),
        (
            segment(middle, ".txnindex"),
            Box::new(remove),
            "transaction-index",
        ),
        (
            segment(last, ".snapshot"),
            Box::new(|path| flip(path, 20)),
            "snapshot",
        ),
        (
            segment(9999, ".index"),
            Box::new(|path| write(&disk, path, &[])),
            "orphan",
        ),
        (
            segment(9999, ".snapshot"),
            Box::new(|path| write(&disk, path, &read(&disk, &segment(last, ".snapshot")))),
            "snapshot",
        ),
        (
            file("t-0/leader-epoch-checkpoint"),
            Box::new(remove),
            "leader-epochs",
        ),
        (
            file("t-0/leader-epoch-checkpoint"),
            Box::new(|path| write(&disk, path, b"0\n1\n0 0\n")),
            "leader-epochs",
        ),
        (
            file("t-0/leader-epoch-checkpoint"),
            Box::new(|path| write(&disk, path, b"0\n1\nx\n")),
            "leader-epochs",
        ),
        (
            file("replication-offset-checkpoint"),
            Box::new(|path| write(&disk, path, b"0\n3\nt 0 65\n")),
            "checkpoint",
        ),
        (
            file("log-start-offset-checkpoint"),
            Box::new(|path| write(&disk, path, b"0\n1\nt 0 66\n")),
            "log-start",
        ),
        (
            file("meta.properties"),
            Box::new(|path| write(&disk, path, b"version=0\n")),
            "metadata",
        ),
    ];
    for (path, change, kind) in cases {
        let before = disk.stat(&path).unwrap().map(|_| read(&disk, &path));
        change(&path);
        let kinds: Vec<_> = found(&disk).into_iter().map(|(kind, _)| kind).collect();
        assert!(
            kinds.contains(&kind),
            "{}: found {kinds:?}, expected {kind}",
            path.display()
        );
        match before {
            Some(content) => write(&disk, &path, &content),
            None => disk.remove_file(&path).unwrap(),
        }
    }
    disk.create_dir_all(&file("lost+found")).unwrap();
    assert_eq!(found(&disk), [("directory", "lost+found".to_owned())]);
}

#[test]
fn a_batch_out_of_line_is_told_from_its_neighbours() {
    let disk = sound_directory(false);
    let path = segment(0, ".log");
    let sound = read(&disk, &path);
    let (position, header) = batches(&sound)[4];
    for offset in [header.base_offset.get() + 1, 1 << 20, 0, i64::MAX >> 8] {
        let mut bad = sound.clone();
        bad[position..position + 8].copy_from_slice(&offset.to_be_bytes());
        write(&disk, &path, &bad);
        let examination = examined(&disk, false);
        let bad: Vec<_> = examination
            .findings()
            .filter(|finding| matches!(finding.kind, Kind::Batch { .. }))
            .collect();
        assert_eq!(bad.len(), 1, "offset {offset}: {bad:?}");
        assert_eq!(bad[0].position, Some(position as u64), "offset {offset}");
    }
}

#[test]
fn zeros_behind_the_active_segment_are_space_ahead_unless_it_was_closed() {
    for (is_clean, expected) in [(false, Exit::Success), (true, Exit::Failed)] {
        let disk = sound_directory(is_clean);
        let path = segment(*bases(&disk).last().unwrap(), ".log");
        let mut log = read(&disk, &path);
        log.resize(log.len() + 5000, 0);
        write(&disk, &path, &log);
        assert_eq!(examined(&disk, false).exit(), expected);
    }
}

#[test]
fn a_log_of_later_versions_and_leftovers_are_no_damage() {
    let disk = sound_directory(false);
    write(
        &disk,
        &file("t-0/partition.metadata"),
        b"version: 0\ntopic_id: AAAAAAAAAAAAAAAAAAAAAA\n",
    );
    write(&disk, &segment(0, ".index.deleted"), b"x");
    write(&disk, &segment(0, ".log.cleaned"), b"x");
    write(
        &disk,
        &file("meta.properties"),
        b"version=1\nnode.id=1\ncluster.id=x\ndirectory.id=y\n",
    );
    for name in [
        "remote-log-index-cache",
        "t-1.0123456789abcdef0123456789abcdef-delete",
        "t-2.ab-stray",
    ] {
        disk.create_dir_all(&file(name)).unwrap();
    }
    assert_eq!(found(&disk), []);
}

#[test]
fn arbitrary_damage_never_panics() {
    for seed in 0..300_u64 {
        let disk = sound_directory(seed.is_multiple_of(2));
        let mut random = Random(seed);
        damage(&disk, &mut random);
        examined(&disk, seed.is_multiple_of(3));
    }
}

#[test]
fn a_deep_look_finds_records_that_are_no_records() {
    let disk = sound_directory(false);
    let path = segment(0, ".log");
    let mut log = read(&disk, &path);
    let (position, header) = batches(&log)[0];
    let end = position + header.size_bytes;
    // A record length that is none, under a checksum that is right.
    log[position + 61] = 1;
    let crc = crc32c::crc32c(&log[position + 21..end]);
    log[position + 17..position + 21].copy_from_slice(&crc.to_be_bytes());
    write(&disk, &path, &log);
    assert_eq!(examined(&disk, false).exit(), Exit::Success);
    let examination = examined(&disk, true);
    assert!(examination.findings().any(|finding| finding.kind == Kind::Record));
}
