//! What the header of the simulated disk permits happens, and nothing else.

use std::collections::BTreeSet;
use std::io::{ErrorKind, IoSlice};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::{Completions, Fault, ManualClock, SimulatedDisk};
use crate::io::{Clock, FileHandle, Io, OpenMode, Operation};
use crate::units::TimestampMs;

fn disk() -> SimulatedDisk {
    let disk = SimulatedDisk::new(7);
    disk.create_dir_all(Path::new("/d")).unwrap();
    disk.sync_dir(Path::new("/")).unwrap();
    disk
}

fn create(disk: &SimulatedDisk, path: &str) -> FileHandle {
    disk.open(Path::new(path), OpenMode::ReadWriteCreate).unwrap()
}

fn write(file: &FileHandle, position: u64, bytes: &[u8]) {
    file.write_vectored_at(position, &[IoSlice::new(bytes)]).unwrap();
}

fn content(disk: &SimulatedDisk, path: &str) -> Option<Vec<u8>> {
    crate::checkpoint::read_file(disk, Path::new(path)).unwrap()
}

/// All that the file may be after a cut now, over many seeds.
fn images(disk: &SimulatedDisk, path: &str) -> BTreeSet<Option<Vec<u8>>> {
    (0..400)
        .map(|seed| content(&disk.power_cut(seed), path))
        .collect()
}

#[test]
fn synced_bytes_under_a_synced_name_always_survive() {
    let disk = disk();
    let file = create(&disk, "/d/f");
    write(&file, 0, &[1; 1500]);
    file.sync().unwrap();
    disk.sync_dir(Path::new("/d")).unwrap();
    assert!(disk.is_all_durable());
    assert_eq!(images(&disk, "/d/f"), BTreeSet::from([Some(vec![1; 1500])]));
}

#[test]
fn a_synced_file_with_an_unsynced_name_may_vanish_but_not_change() {
    let disk = disk();
    let file = create(&disk, "/d/f");
    write(&file, 0, b"x");
    file.sync().unwrap();
    assert_eq!(images(&disk, "/d/f"), BTreeSet::from([None, Some(b"x".to_vec())]));
}

#[test]
fn unsynced_sectors_are_lost_kept_or_old_each_by_itself() {
    let disk = disk();
    let file = create(&disk, "/d/f");
    write(&file, 0, &[1; 1024]);
    file.sync().unwrap();
    disk.sync_dir(Path::new("/d")).unwrap();
    write(&file, 0, &[2; 1024]);
    write(&file, 0, &[3; 512]);
    let found = images(&disk, "/d/f");
    let expected: BTreeSet<_> = [1, 2, 3]
        .iter()
        .flat_map(|first| [1, 2].map(|second| Some([[*first; 512], [second; 512]].concat())))
        .collect();
    assert_eq!(found, expected);
}

#[test]
fn an_unsynced_append_leaves_any_length_and_zeros_where_data_is_missing() {
    let disk = disk();
    let file = create(&disk, "/d/f");
    write(&file, 0, &[1; 100]);
    file.sync().unwrap();
    disk.sync_dir(Path::new("/d")).unwrap();
    write(&file, 100, &[2; 1400]);
    let found = images(&disk, "/d/f");
    let mut lengths = BTreeSet::new();
    let mut zeros = false;
    for image in &found {
        let image = image.as_ref().unwrap();
        lengths.insert(image.len());
        assert!(
            image[..100].iter().all(|byte| *byte == 1),
            "a synced byte changed"
        );
        assert!(image[100..].iter().all(|byte| matches!(byte, 0 | 2)));
        for sector in image[100..].chunk_by(|left, right| left == right) {
            zeros |= sector[0] == 0;
        }
    }
    assert_eq!(lengths, BTreeSet::from([100, 512, 1024, 1500]));
    assert!(zeros, "a length ahead of its data was never seen");
}

#[test]
fn an_unsynced_truncation_may_not_have_happened() {
    let disk = disk();
    let file = create(&disk, "/d/f");
    write(&file, 0, &[1; 1024]);
    file.sync().unwrap();
    disk.sync_dir(Path::new("/d")).unwrap();
    file.set_len(10).unwrap();
    let found = images(&disk, "/d/f");
    assert!(
        found.contains(&Some(vec![1; 1024])) && found.contains(&Some(vec![1; 10])),
        "{found:?}"
    );
    file.sync().unwrap();
    assert_eq!(images(&disk, "/d/f"), BTreeSet::from([Some(vec![1; 10])]));
    file.set_len(600).unwrap();
    file.sync().unwrap();
    let grown = [vec![1; 10], vec![0; 590]].concat();
    assert_eq!(images(&disk, "/d/f"), BTreeSet::from([Some(grown)]));
}

#[test]
fn a_rename_is_whole_or_absent_and_durable_with_its_directory() {
    let disk = disk();
    for (name, byte) in [("/d/f", b'1'), ("/d/f.tmp", b'2')] {
        let file = create(&disk, name);
        write(&file, 0, &[byte]);
        file.sync().unwrap();
    }
    disk.sync_dir(Path::new("/d")).unwrap();
    disk.rename(Path::new("/d/f.tmp"), Path::new("/d/f")).unwrap();
    let mut seen = BTreeSet::new();
    for seed in 0..100 {
        let image = disk.power_cut(seed);
        seen.insert((content(&image, "/d/f"), content(&image, "/d/f.tmp")));
    }
    let before = (Some(b"1".to_vec()), Some(b"2".to_vec()));
    let after = (Some(b"2".to_vec()), None);
    assert_eq!(seen, BTreeSet::from([before, after]));
    disk.sync_dir(Path::new("/d")).unwrap();
    assert_eq!(images(&disk, "/d/f"), BTreeSet::from([Some(b"2".to_vec())]));
}

#[test]
fn a_rename_across_directories_never_shows_the_file_twice_or_loses_it() {
    let disk = disk();
    disk.create_dir_all(Path::new("/e")).unwrap();
    disk.sync_dir(Path::new("/")).unwrap();
    create(&disk, "/d/f");
    disk.rename(Path::new("/d/f"), Path::new("/e/f")).unwrap();
    disk.sync_dir(Path::new("/e")).unwrap();
    for seed in 0..100 {
        let image = disk.power_cut(seed);
        assert_eq!(
            (content(&image, "/d/f"), content(&image, "/e/f").is_some()),
            (None, true)
        );
    }
}

#[test]
fn a_renamed_directory_takes_its_files_along() {
    let disk = disk();
    disk.create_dir_all(Path::new("/d/t-0")).unwrap();
    let file = create(&disk, "/d/t-0/f");
    write(&file, 0, b"x");
    file.sync().unwrap();
    disk.sync_dir(Path::new("/d/t-0")).unwrap();
    disk.sync_dir(Path::new("/d")).unwrap();
    disk.rename(Path::new("/d/t-0"), Path::new("/d/t-0.1-delete"))
        .unwrap();
    for seed in 0..50 {
        let image = disk.power_cut(seed);
        let both = (content(&image, "/d/t-0/f"), content(&image, "/d/t-0.1-delete/f"));
        let x = Some(b"x".to_vec());
        assert!(both == (x.clone(), None) || both == (None, x), "{both:?}");
    }
}

#[test]
fn a_killed_process_loses_nothing_and_keeps_the_boot_id_but_a_cut_changes_it() {
    let disk = disk();
    let file = create(&disk, "/d/f");
    write(&file, 0, b"unsynced");
    let lock = disk.lock(Path::new("/d/.lock")).unwrap().unwrap();
    let next = disk.process_kill();
    assert_eq!(content(&next, "/d/f"), Some(b"unsynced".to_vec()));
    assert_eq!(next.boot_id().unwrap(), disk.boot_id().unwrap());
    assert!(next.lock(Path::new("/d/.lock")).unwrap().is_some());
    assert!(disk.lock(Path::new("/d/.lock")).unwrap().is_none());
    drop(lock);
    // What was not durable still is not, in the next process either.
    assert!(images(&next, "/d/f").contains(&None));
    let ids: BTreeSet<_> = (0..10)
        .map(|seed| disk.power_cut(seed).boot_id().unwrap())
        .collect();
    assert_eq!(ids.len(), 10);
    assert!(!ids.contains(&disk.boot_id().unwrap()));
}

#[test]
fn after_a_failed_sync_the_next_succeeds_and_the_data_is_gone() {
    let mut lost = 0;
    for seed in 0..20 {
        let disk = SimulatedDisk::new(seed);
        let file = create(&disk, "/f");
        disk.sync_dir(Path::new("/")).unwrap();
        write(&file, 0, &[1; 4096]);
        disk.fail_after(0, Fault::FailedSync);
        assert_eq!(file.sync().unwrap_err().source.raw_os_error(), Some(5));
        assert_eq!(
            content(&disk, "/f"),
            Some(vec![1; 4096]),
            "the page cache still shows it"
        );
        file.sync().unwrap();
        let cut = content(&disk.power_cut(0), "/f").unwrap();
        assert_eq!(cut.len(), 4096);
        lost += cut.iter().filter(|byte| **byte == 0).count();
        disk.drop_caches();
        assert_eq!(
            content(&disk, "/f"),
            Some(cut),
            "evicted pages show what the medium has"
        );
    }
    assert!(lost > 0);
}

#[test]
fn a_lying_sync_says_ok_and_an_honest_one_catches_up() {
    let disk = disk();
    let file = create(&disk, "/d/f");
    disk.sync_dir(Path::new("/d")).unwrap();
    write(&file, 0, b"x");
    disk.fail_after(0, Fault::LyingSync);
    file.sync().unwrap();
    assert!(!disk.is_all_durable());
    assert!(images(&disk, "/d/f").len() > 1);
    file.sync().unwrap();
    assert!(disk.is_all_durable());
}

#[test]
fn each_operation_can_be_failed_and_a_write_leaves_a_beginning() {
    let errors = [
        (Fault::Eio, None),
        (Fault::Enospc, Some(ErrorKind::StorageFull)),
        (Fault::ShortWrite, Some(ErrorKind::WriteZero)),
    ];
    for (fault, kind) in errors {
        let mut lengths = BTreeSet::new();
        for seed in 0..40 {
            let disk = SimulatedDisk::new(seed);
            let file = create(&disk, "/f");
            disk.fail_after(1, fault);
            write(&file, 0, &[1; 10]);
            let error = file.write_vectored_at(10, &[IoSlice::new(&[2; 10])]).unwrap_err();
            assert_eq!(error.operation, "pwritev");
            assert!(kind.is_none_or(|kind| error.kind() == kind), "{error}");
            let found = content(&disk, "/f").unwrap();
            assert!(found.len() >= 10 && found.len() < 20);
            lengths.insert(found.len());
            write(&file, 10, b"works again");
        }
        assert!(lengths.len() > 3, "{lengths:?}");
    }
}

#[test]
fn a_fault_below_a_directory_leaves_the_others_alone() {
    let disk = disk();
    let (bad, good) = (create(&disk, "/d/f"), create(&disk, "/f"));
    disk.fail_below(Path::new("/d"), Fault::Eio);
    for _ in 0..3 {
        assert!(bad.sync().is_err());
        assert!(disk.sync_dir(Path::new("/d")).is_err());
        good.sync().unwrap();
    }
    disk.clear_faults();
    bad.sync().unwrap();
}

#[test]
fn a_full_disk_takes_what_fits_and_recovers_when_space_is_made() {
    let disk = disk();
    disk.set_capacity(Some(1000));
    let file = create(&disk, "/d/f");
    write(&file, 0, &[1; 900]);
    let error = file
        .write_vectored_at(900, &[IoSlice::new(&[2; 200])])
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::StorageFull);
    assert_eq!(file.size_bytes().unwrap(), 1000);
    assert_eq!(disk.space(Path::new("/d")).unwrap().available_bytes, 0);
    write(&file, 0, &[3; 1000]);
    assert!(file.allocate(1001).is_err());
    disk.remove_file(Path::new("/d/f")).unwrap();
    assert_eq!(
        disk.space(Path::new("/d")).unwrap().available_bytes,
        0,
        "the open file keeps its space"
    );
    drop(file);
    assert_eq!(disk.space(Path::new("/d")).unwrap().available_bytes, 1000);
}

#[test]
fn unreadable_ranges_and_flipped_bits_are_where_they_were_asked_for() {
    let disk = disk();
    let file = create(&disk, "/d/f");
    write(&file, 0, &[0; 100]);
    disk.fail_reads(Path::new("/d/f"), 50..51);
    let mut buffer = [0; 10];
    assert_eq!(file.read_at(40, &mut buffer).unwrap(), 10);
    assert!(file.read_at(41, &mut buffer).is_err());
    assert!(disk.flip_bit(Path::new("/d/f"), 7, 2));
    assert!(!disk.flip_bit(Path::new("/d/f"), 100, 0));
    disk.clear_faults();
    file.read_at(0, &mut buffer).unwrap();
    assert_eq!(buffer, [0, 0, 0, 0, 0, 0, 0, 4, 0, 0]);
}

#[test]
fn after_the_power_is_cut_nothing_works_until_the_next_image() {
    let disk = disk();
    let file = create(&disk, "/d/f");
    let before = disk.op_count();
    disk.cut_power_after(1);
    write(&file, 0, b"a");
    assert!(file.write_vectored_at(1, &[IoSlice::new(b"b")]).is_err());
    assert!(!disk.is_powered());
    assert!(file.read_at(0, &mut [0; 1]).is_err());
    assert!(disk.list(Path::new("/")).is_err());
    assert_eq!(disk.op_count(), before + 1);
    assert!(disk.power_cut(0).list(Path::new("/")).is_ok());
}

#[test]
fn a_submitted_sync_covers_what_was_written_before_it_and_no_more() {
    let disk = disk();
    disk.set_completions(Completions::Manual);
    let file = create(&disk, "/d/f");
    disk.sync_dir(Path::new("/d")).unwrap();
    write(&file, 0, &[1; 600]);
    disk.submit(
        Operation::Sync {
            file: Arc::clone(&file),
        },
        Box::new(|outcome| outcome.unwrap()),
    );
    write(&file, 0, &[2; 100]);
    assert_eq!(disk.submitted_count(), 1);
    assert_eq!(disk.run_completions(3), 1);
    let found = images(&disk, "/d/f");
    let newer = [vec![2; 100], vec![1; 500]].concat();
    assert_eq!(found, BTreeSet::from([Some(vec![1; 600]), Some(newer)]));
}

#[test]
fn a_late_sync_does_not_undo_a_newer_one() {
    for seed in 0..20 {
        let disk = disk();
        disk.set_completions(Completions::Manual);
        let file = create(&disk, "/d/f");
        disk.sync_dir(Path::new("/d")).unwrap();
        for byte in 1..=4 {
            write(&file, 0, &[byte; 10]);
            disk.submit(
                Operation::Sync {
                    file: Arc::clone(&file),
                },
                Box::new(|outcome| outcome.unwrap()),
            );
        }
        assert_eq!(disk.run_completions(seed), 4);
        assert_eq!(
            images(&disk, "/d/f"),
            BTreeSet::from([Some(vec![4; 10])]),
            "seed {seed}"
        );
    }
}

#[test]
fn completions_run_in_an_order_of_the_seed_and_those_they_submit_too() {
    let mut orders = BTreeSet::new();
    for seed in 0..20 {
        let disk = disk();
        disk.set_completions(Completions::Manual);
        let order = Arc::new(parking_lot::Mutex::new(Vec::new()));
        for number in 0..4 {
            let (order, again) = (Arc::clone(&order), disk.clone());
            let done = move |_| {
                order.lock().push(number);
                let order = Arc::clone(&order);
                let directory = Path::new("/d").to_path_buf();
                again.submit(
                    Operation::SyncDir { directory },
                    Box::new(move |_| order.lock().push(9)),
                );
            };
            disk.submit(
                Operation::SyncDir {
                    directory: Path::new("/d").to_path_buf(),
                },
                Box::new(done),
            );
        }
        assert_eq!(disk.run_completions(seed), 8);
        orders.insert(order.lock().clone());
    }
    assert!(orders.len() > 10);
}

#[test]
fn what_the_caches_dropped_is_cold_until_warmed() {
    let disk = disk();
    disk.set_completions(Completions::Manual);
    let file = create(&disk, "/d/f");
    write(&file, 0, &[1; 600]);
    assert!(file.is_resident(0, 600));
    disk.drop_caches();
    assert!(!file.is_resident(0, 600));
    let warmed = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&warmed);
    disk.submit(
        Operation::Warm {
            file: Arc::clone(&file),
            position: 0,
            size_bytes: 600,
        },
        Box::new(move |outcome| {
            outcome.unwrap();
            counter.fetch_add(1, Ordering::Relaxed);
        }),
    );
    disk.run_completions(0);
    assert_eq!(warmed.load(Ordering::Relaxed), 1);
    assert!(file.is_resident(0, 600));
}

/// A script of some two hundred operations that depend on nothing but the seed.
fn busy(seed: u64) -> SimulatedDisk {
    let disk = SimulatedDisk::new(seed);
    disk.set_completions(Completions::Manual);
    disk.start_trace();
    let mut random = super::random::Random::new(seed);
    disk.create_dir_all(Path::new("/d/e")).unwrap();
    for _ in 0..200 {
        let name = format!("/d/{}{}", if random.coin() { "e/" } else { "" }, random.below(5));
        let path = Path::new(&name);
        match random.below(9) {
            0 => disk.remove_file(path).unwrap(),
            1 => {
                let _ = disk.rename(path, Path::new("/d/renamed"));
            }
            2 => disk.sync_dir(path.parent().unwrap()).unwrap(),
            3 => disk.fail_after(random.below(10), Fault::ShortWrite),
            4 => drop(create(&disk, &name).set_len(random.below(3000))),
            5 => {
                let file = create(&disk, &name);
                disk.submit(Operation::Sync { file }, Box::new(drop));
            }
            6 => drop(disk.run_completions(random.next())),
            _ => {
                let bytes = vec![random.below(256) as u8; random.below(2000) as usize];
                let _ = create(&disk, &name).write_vectored_at(random.below(3000), &[IoSlice::new(&bytes)]);
            }
        }
    }
    disk
}

#[test]
fn the_same_seed_gives_the_same_bytes_in_every_image() {
    let mut digests = BTreeSet::new();
    for seed in 0..30 {
        let (one, two) = (busy(seed), busy(seed));
        assert_eq!(one.trace(), two.trace());
        assert_eq!(one.digest(), two.digest());
        for cut in 0..10 {
            let digest = one.power_cut(cut).digest();
            assert_eq!(digest, two.power_cut(cut).digest());
            digests.insert(digest);
        }
        assert_eq!(one.process_kill().digest(), two.process_kill().digest());
    }
    assert!(digests.len() > 100, "{}", digests.len());
}

#[test]
fn an_image_cut_again_without_work_is_the_same() {
    for seed in 0..30 {
        let image = busy(seed).power_cut(seed);
        assert!(image.is_all_durable());
        assert_eq!(image.power_cut(1).digest(), image.digest());
    }
}

#[test]
fn forgotten_files_are_swept_and_the_living_stay() {
    let disk = disk();
    let kept = create(&disk, "/d/kept");
    write(&kept, 0, b"kept");
    kept.sync().unwrap();
    for number in 0..1000 {
        let name = format!("/d/{number}");
        drop(create(&disk, &name));
        disk.remove_file(Path::new(&name)).unwrap();
        disk.sync_dir(Path::new("/d")).unwrap();
    }
    assert_eq!(images(&disk, "/d/kept"), BTreeSet::from([Some(b"kept".to_vec())]));
    assert_eq!(disk.list(Path::new("/d")).unwrap().len(), 1);
}

#[test]
fn the_clock_moves_only_when_told_and_dates_the_files() {
    let clock = Arc::new(ManualClock::new(TimestampMs(1000)));
    let disk = SimulatedDisk::new(1);
    disk.set_clock(clock.clone());
    clock.advance(Duration::from_millis(5));
    clock.advance_monotonic(Duration::from_millis(10));
    create(&disk, "/f");
    assert_eq!(
        disk.stat(Path::new("/f")).unwrap().unwrap().modified,
        TimestampMs(1005)
    );
    clock.set_wall(TimestampMs(3));
    assert_eq!(
        (clock.wall(), clock.monotonic()),
        (TimestampMs(3), Duration::from_millis(15))
    );
}
