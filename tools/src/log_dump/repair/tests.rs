//! What a repair makes is sound, what it takes can be put back, and neither is harmed by an interruption at any point.

use std::path::{Path, PathBuf};

use milena_engine::io::Io;
use milena_engine::io::simulated::{Fault, SimulatedDisk};

use super::plan::{AtDamage, Step, plan};
use super::undo::{Manifest, Undo};
use super::{apply, is_repaired};
use crate::log_dump::test_directory::{LOG_DIR, Random, batches, damage, read, sound_directory, tree, write};
use crate::log_dump::verify::{Examination, Finding, examine};

const UNDO: &str = "/data/logs.undo";

fn examined(disk: &SimulatedDisk) -> Examination {
    examine(disk, &[PathBuf::from(LOG_DIR)], false).unwrap()
}

/// Repairs; `Err` if the disk did not let it.
fn repair(disk: &SimulatedDisk, choice: AtDamage) -> Result<(), String> {
    let examination = examine(disk, &[PathBuf::from(LOG_DIR)], false).map_err(|error| error.to_string())?;
    for plan in plan(&examination, choice).iter().filter(|plan| !plan.is_empty()) {
        let mut undo = Undo::create(disk, Path::new(UNDO), &plan.path).map_err(|error| error.to_string())?;
        apply::apply(disk, plan, &mut undo).map_err(|error| error.to_string())?;
    }
    Ok(())
}

fn put_back(disk: &SimulatedDisk) -> Result<(), String> {
    let manifest = Manifest::read(disk, Path::new(UNDO)).map_err(|error| error.to_string())?;
    manifest
        .put_back(disk)
        .map(drop)
        .map_err(|error| error.to_string())
}

/// Of what a repair can do something about.
fn damage_left(disk: &SimulatedDisk) -> Vec<String> {
    let examination = examined(disk);
    let left = examination
        .findings()
        .filter(|finding| finding.is_damage() && is_repaired(finding));
    left.map(Finding::to_string).collect()
}

fn damaged(seed: u64) -> SimulatedDisk {
    let disk = sound_directory(seed.is_multiple_of(2));
    damage(&disk, &mut Random(seed));
    disk
}

fn choice(seed: u64) -> AtDamage {
    if seed.is_multiple_of(3) {
        AtDamage::Keep
    } else {
        AtDamage::Cut
    }
}

fn logs(disk: &SimulatedDisk) -> PathBuf {
    assert!(disk.stat(Path::new(LOG_DIR)).unwrap().is_some());
    PathBuf::from(LOG_DIR)
}

#[test]
fn what_is_sound_is_left_alone() {
    let disk = sound_directory(false);
    for choice in [AtDamage::Cut, AtDamage::Keep] {
        assert!(plan(&examined(&disk), choice).iter().all(|plan| plan.is_empty()));
    }
}

#[test]
fn a_repaired_directory_is_sound_and_an_undo_restores_every_byte() {
    for seed in 0..400 {
        let disk = damaged(seed);
        let before = tree(&disk, &logs(&disk));
        repair(&disk, choice(seed)).unwrap();
        assert_eq!(damage_left(&disk), Vec::<String>::new(), "seed {seed}");
        assert!(
            plan(&examined(&disk), choice(seed))
                .iter()
                .all(|plan| plan.partitions.is_empty()),
            "seed {seed}"
        );
        if disk.stat(Path::new(UNDO)).unwrap().is_some() {
            put_back(&disk).unwrap();
        }
        assert!(
            tree(&disk, &logs(&disk)) == before,
            "seed {seed}: not every byte is back"
        );
    }
}

#[test]
fn a_cut_ends_the_log_in_front_of_the_damage_and_keep_takes_the_damage_out() {
    let log = Path::new(LOG_DIR).join("t-0/00000000000000000000.log");
    let disk = sound_directory(false);
    let sound = read(&disk, &log);
    let places = batches(&sound);
    let (position, header) = places[3];
    let mut bad = sound.clone();
    bad[position + 100] ^= 1;
    for (choice, expected) in [
        (AtDamage::Cut, sound[..position].to_vec()),
        (
            AtDamage::Keep,
            [&sound[..position], &sound[position + header.size_bytes..]].concat(),
        ),
    ] {
        let disk = sound_directory(false);
        write(&disk, &log, &bad);
        repair(&disk, choice).unwrap();
        assert!(read(&disk, &log) == expected, "{choice:?}");
        let examination = examined(&disk);
        let partition = examination.directories[0]
            .partitions
            .iter()
            .find(|one| one.name() == "t-0")
            .unwrap();
        match choice {
            AtDamage::Cut => {
                assert_eq!(
                    (partition.segments.len(), partition.end()),
                    (1, header.base_offset.get())
                );
                let points = read(
                    &disk,
                    &Path::new(LOG_DIR).join("recovery-point-offset-checkpoint"),
                );
                let expected = format!("0\n2\nold 1 0\nt 0 {}\n", header.base_offset);
                assert_eq!(
                    String::from_utf8(points).unwrap(),
                    expected,
                    "it is not above the end of the log"
                );
            }
            AtDamage::Keep => assert_eq!((partition.segments.len(), partition.end()), (3, 65)),
        }
    }
}

#[test]
fn what_rebuilt_indexes_hold_is_what_was_there() {
    let sound = sound_directory(false);
    let expected = tree(&sound, &logs(&sound));
    for name in expected.keys().filter(|path| {
        let is_index =
            ["index", "timeindex", "txnindex"].map(|end| path.extension().is_some_and(|found| found == end));
        is_index.contains(&true)
    }) {
        let disk = sound_directory(false);
        disk.remove_file(name).unwrap();
        repair(&disk, AtDamage::Cut).unwrap();
        let found = tree(&disk, &logs(&disk));
        assert!(found == expected, "{} was built otherwise", name.display());
    }
}

#[test]
fn a_gap_between_segments_moves_the_recovery_point_behind_it() {
    let disk = sound_directory(false);
    let examination = examined(&disk);
    let partition = examination.directories[0]
        .partitions
        .iter()
        .find(|one| one.name() == "t-0")
        .unwrap();
    disk.remove_file(&partition.segments[1].path).unwrap();
    let plans = plan(&examined(&disk), AtDamage::Cut);
    let points = &plans[0].checkpoints["recovery-point-offset-checkpoint"];
    let point = points
        .iter()
        .find(|(partition, _)| &*partition.topic == "t")
        .unwrap();
    assert_eq!(point.1.get(), 65);
    assert!(!plans[0].partitions[0].steps.iter().any(Step::changes_log));
}

#[test]
fn power_may_go_at_any_point_of_a_repair_and_of_its_undo() {
    for seed in 0..5 {
        let total = {
            let disk = damaged(seed);
            let from = disk.op_count();
            repair(&disk, choice(seed)).unwrap();
            disk.op_count() - from
        };
        for cut in 0..total {
            let disk = damaged(seed);
            let before = tree(&disk, &logs(&disk));
            disk.cut_power_after(cut);
            assert!(
                repair(&disk, choice(seed)).is_err(),
                "seed {seed}: the power went at {cut}"
            );
            let after = disk.power_cut(seed * 1000 + cut);
            restore(&after, &before, &format!("seed {seed}, power cut at {cut}"));
            let killed = disk.process_kill();
            restore(&killed, &before, &format!("seed {seed}, killed at {cut}"));
            // Half an undo, then the power, then the whole.
            let half = disk.process_kill();
            half.cut_power_after(cut / 2);
            let _ = put_back(&half);
            restore(
                &half.power_cut(cut),
                &before,
                &format!("seed {seed}, undo of {cut} cut"),
            );
        }
    }
}

/// Puts everything back, if the repair came so far as to change something.
fn restore(disk: &SimulatedDisk, before: &std::collections::BTreeMap<PathBuf, Vec<u8>>, what: &str) {
    let is_begun = Manifest::read(disk, Path::new(UNDO)).is_ok();
    if is_begun {
        put_back(disk).unwrap_or_else(|error| panic!("{what}: {error}"));
    }
    let after = tree(disk, Path::new(LOG_DIR));
    // What a lost power left of a file that was being written is no part of the log.
    let after = after
        .into_iter()
        .filter(|(path, _)| !path.to_string_lossy().ends_with(".milena-repair"))
        .collect();
    let changed: Vec<_> = before
        .iter()
        .filter(|(path, content)| std::collections::BTreeMap::get(&after, *path) != Some(content))
        .map(|(path, _)| path)
        .collect();
    assert!(*before == after, "{what}: {changed:?} are not back");
}

#[test]
fn a_full_disk_stops_a_repair_that_can_be_put_back_or_run_again() {
    for seed in 0..6 {
        let total = {
            let disk = damaged(seed);
            let from = disk.op_count();
            repair(&disk, choice(seed)).unwrap();
            disk.op_count() - from
        };
        for at in 0..total {
            let disk = damaged(seed);
            let before = tree(&disk, &logs(&disk));
            disk.fail_after(at, Fault::Enospc);
            let done = repair(&disk, choice(seed));
            disk.clear_faults();
            if done.is_err() {
                let again = disk.process_kill();
                disk_is_repaired_again(&again, choice(seed), &format!("seed {seed}, full at {at}"));
            }
            restore(&disk, &before, &format!("seed {seed}, full at {at}"));
        }
    }
}

fn disk_is_repaired_again(disk: &SimulatedDisk, choice: AtDamage, what: &str) {
    // The second repair has an undo directory of its own.
    if disk.stat(Path::new(UNDO)).unwrap().is_some() {
        disk.rename(Path::new(UNDO), Path::new("/data/logs.undo-first"))
            .unwrap();
    }
    repair(disk, choice).unwrap();
    assert_eq!(damage_left(disk), Vec::<String>::new(), "{what}");
}

#[test]
fn what_was_written_after_a_repair_is_not_overwritten_by_its_undo() {
    let log = Path::new(LOG_DIR).join("t-0/00000000000000000000.log");
    let disk = sound_directory(false);
    let mut bad = read(&disk, &log);
    bad[3000] ^= 1;
    write(&disk, &log, &bad);
    repair(&disk, AtDamage::Cut).unwrap();
    let mut content = read(&disk, &log);
    content.extend_from_slice(b"a batch of a broker");
    write(&disk, &log, &content);
    let refused = put_back(&disk).unwrap_err();
    assert!(refused.contains("something was written since"), "{refused}");
    assert!(read(&disk, &log) == content);
}

#[test]
fn an_undo_after_a_broker_was_started_does_not_pretend_that_its_shutdown_was_clean() {
    let marker = Path::new(LOG_DIR).join(".kafka_cleanshutdown");
    let disk = sound_directory(true);
    disk.remove_file(&Path::new(LOG_DIR).join("t-0/00000000000000000000.index"))
        .unwrap();
    let before = tree(&disk, &logs(&disk));
    for is_started in [true, false] {
        repair(&disk, AtDamage::Cut).unwrap();
        assert!(disk.stat(&marker).unwrap().is_some());
        if is_started {
            disk.remove_file(&marker).unwrap();
        }
        put_back(&disk).unwrap();
        let mut wanted = before.clone();
        if is_started {
            wanted.remove(&marker);
        }
        assert!(tree(&disk, &logs(&disk)) == wanted, "{is_started}");
        write(&disk, &marker, b"");
        disk.remove_dir_all(Path::new(UNDO)).unwrap();
    }
}
