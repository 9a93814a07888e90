//! What survives a crash: scripts of operations over a log manager on the simulated disk, hit at every disk operation.
//!
//! For each operation of a script the power is cut, or the process killed, just before it; of each power cut
//! several images of the disk are taken; each is recovered and compared with every promise of
//! `docs/durability.md` ([`check`]). Single faults are tried at every operation, and bits are flipped at rest
//! in every file. Planted bugs - a disk, an index or a reader that misbehaves between the engine and the test -
//! must be found by the same checks: a check that never failed proves nothing.
//!
//! A failure names the seed. `campaign` is a sample; `docs/hacking.md` says how the long run is started and a failure
//! repeated.

mod check;
mod damage;
mod fault;
mod model;
mod node;
mod planted;
mod script;
mod told;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use check::{Crash, Violation};
use milena_engine::io::simulated::Fault;
use model::Random;
use script::{Script, Settings};

/// What a run of images found.
#[derive(Debug, Default)]
struct Tally {
    images: u64,
    operations: u64,
    scripts: u64,
    /// Logs out of service because of a hole in what nobody was promised.
    out_of_service: u64,
}

/// Runs the script of `seed` up to its operation `cut_at` and recovers `image_count` images; `None` if the
/// script ends before.
fn crash_at(
    seed: u64,
    settings: Settings,
    cut_at: u64,
    crash: Crash,
    image_count: u64,
    tally: &mut Tally,
) -> Result<Option<()>, Violation> {
    let run = || {
        let mut script = Script::new(seed, settings, Some(cut_at));
        script
            .run()
            .map_err(|broken| format!("{}: {broken}", script.describe()))?;
        if script.disk.is_powered() {
            return Ok(None);
        }
        script.end();
        // A power cut inside the script whose recovery did not end counts.
        let wanted = crash;
        let crash = match script.pending {
            Crash::PowerCut => Crash::PowerCut,
            Crash::Kill => crash,
        };
        let mut random = Random::new(seed ^ cut_at.rotate_left(32));
        for _ in 0..image_count {
            let image_seed = random.next();
            let image = match wanted {
                Crash::Kill => script.disk.process_kill(),
                Crash::PowerCut => script.disk.power_cut(image_seed),
            };
            let found = check::recovery(
                &image,
                &script.clock,
                settings.directories,
                &script.model,
                crash,
                image_seed,
            )?;
            tally.images += 1;
            tally.out_of_service += found.out_of_service.len() as u64;
        }
        tally.operations += 1;
        Ok(Some(()))
    };
    let outcome = catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
        let text = panic
            .downcast_ref::<String>()
            .cloned()
            .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Err(format!("a panic: {}", text.unwrap_or_default()))
    });
    outcome.map_err(|broken| format!("seed {seed}, {crash:?} before operation {cut_at}: {broken}"))
}

/// A crash before every operation of the script of `seed`.
fn every_operation(
    seed: u64,
    settings: Settings,
    crash: Crash,
    image_count: u64,
    tally: &mut Tally,
) -> Result<(), Violation> {
    for cut_at in 0.. {
        if crash_at(seed, settings, cut_at, crash, image_count, tally)?.is_none() {
            break;
        }
    }
    tally.scripts += 1;
    Ok(())
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name)
        .ok()
        .map_or(default, |text| text.parse().expect("a number"))
}

#[test]
fn a_power_cut_before_any_operation_of_a_script_breaks_no_promise() {
    let mut tally = Tally::default();
    every_operation(1, Settings::ONE, Crash::PowerCut, 2, &mut tally).unwrap();
    println!("{tally:?}");
}

#[test]
fn a_kill_before_any_operation_of_a_script_loses_nothing() {
    let mut tally = Tally::default();
    every_operation(2, Settings::ONE, Crash::Kill, 1, &mut tally).unwrap();
    println!("{tally:?}");
}

#[test]
fn campaign() {
    if let Ok(cut_at) = std::env::var("MILENA_CRASH_AT") {
        told::to_stderr();
        let (seed, cut_at) = (
            number("MILENA_CRASH_SEED", 100),
            cut_at.parse().expect("a number"),
        );
        let crash = match std::env::var_os("MILENA_CRASH_KILL") {
            Some(_) => Crash::Kill,
            None => Crash::PowerCut,
        };
        crash_at(seed, Settings::ONE, cut_at, crash, 4, &mut Tally::default()).unwrap();
        return;
    }
    let image_count = number("MILENA_CRASH_IMAGES", 1500);
    let first_seed = number("MILENA_CRASH_SEED", 100);
    let keeps_going = std::env::var_os("MILENA_CRASH_KEEP_GOING").is_some();
    let began = Instant::now();
    let mut tally = Tally::default();
    let mut violations = 0;
    let mut seed = first_seed;
    while tally.images < image_count {
        let length = {
            let mut script = Script::new(seed, Settings::ONE, None);
            if let Err(broken) = script.run() {
                println!("seed {seed}: {broken}");
                assert!(keeps_going);
                violations += 1;
                seed += 1;
                continue;
            }
            script.op_count()
        };
        let mut random = Random::new(seed);
        for _ in 0..12 {
            let cut_at = random.below(length);
            let crash = if random.chance(5) {
                Crash::Kill
            } else {
                Crash::PowerCut
            };
            if let Err(broken) = crash_at(seed, Settings::ONE, cut_at, crash, 4, &mut tally) {
                println!("{broken}");
                assert!(keeps_going);
                violations += 1;
            }
        }
        tally.scripts += 1;
        seed += 1;
    }
    let took = began.elapsed().as_secs_f64();
    println!(
        "{tally:?}, {violations} violations, seeds {first_seed} to {} (exclusive), {:.0} images/s",
        seed,
        tally.images as f64 / took
    );
    assert_eq!(violations, 0);
}

/// How many images it takes until a planted bug is found, and what gives it away.
fn found_after(settings: Settings, image_limit: u64) -> Option<(u64, Violation)> {
    let mut tally = Tally::default();
    let mut random = Random::new(5);
    for seed in 0.. {
        let length = {
            let mut script = Script::new(seed, settings, None);
            if let Err(broken) = script.run() {
                return Some((tally.images, broken));
            }
            script.op_count()
        };
        for _ in 0..8 {
            let cut_at = random.below(length);
            if let Err(broken) = crash_at(seed, settings, cut_at, Crash::PowerCut, 3, &mut tally) {
                return Some((tally.images, broken));
            }
            if tally.images >= image_limit {
                return None;
            }
        }
    }
    None
}

/// The bug is found, and by one of its signs.
fn is_found(settings: Settings, signs: &[&str]) {
    let (images, broken) = found_after(settings, 1000).expect("the bug is found");
    println!("after {images} images: {broken}");
    assert!(signs.iter().any(|sign| broken.contains(sign)), "{broken}");
}

#[test]
fn planted_a_skipped_directory_sync_is_found() {
    let settings = Settings {
        wrap: planted::skipped_directory_sync,
        ..Settings::ONE
    };
    let signs = [
        "gone",
        "lost",
        "gap",
        "deleted",
        "out of service",
        "never was",
        "high watermark",
        "starts at",
    ];
    is_found(settings, &signs);
}

#[test]
fn planted_an_acknowledgement_before_the_sync_is_found() {
    let settings = Settings {
        wrap: planted::ack_before_sync,
        ..Settings::ONE
    };
    is_found(settings, &["lost", "gap", "out of service", "gone"]);
}

#[test]
fn planted_an_index_that_differs_from_its_rebuild_is_found() {
    let settings = Settings {
        wrap: planted::index_off_by_one,
        ..Settings::ONE
    };
    is_found(settings, &["of no batch", "rebuild"]);
}

#[test]
fn planted_a_reader_of_unsynced_data_is_found() {
    let settings = Settings {
        reads_unsynced: true,
        ..Settings::ONE
    };
    is_found(settings, &["synced-0: lost", "is not in its files"]);
}

fn every_fault(seed: u64, fault: Fault) {
    let mut count = 0;
    for at in 0.. {
        let outcome = catch_unwind(AssertUnwindSafe(|| fault::fault_at(seed, fault, at)))
            .unwrap_or_else(|_| Err("a panic".to_owned()));
        match outcome {
            Ok(Some(())) => count += 1,
            Ok(None) => break,
            Err(broken) => panic!("seed {seed}, {fault:?} at operation {at}: {broken}"),
        }
    }
    assert!(count > 50, "{count} operations are not a script");
}

#[test]
fn an_io_error_at_any_operation_takes_one_directory_offline_and_loses_nothing() {
    every_fault(11, Fault::Eio);
}

#[test]
fn a_short_write_at_any_operation_takes_one_directory_offline_and_loses_nothing() {
    every_fault(12, Fault::ShortWrite);
}

#[test]
fn a_failed_sync_is_final_though_the_next_would_succeed() {
    every_fault(13, Fault::FailedSync);
}

#[test]
fn a_full_disk_at_any_operation_loses_nothing() {
    every_fault(14, Fault::Enospc);
}

#[test]
fn what_a_lying_sync_leaves_is_a_prefix_of_what_was_written() {
    every_fault(15, Fault::LyingSync);
}

#[test]
fn a_flipped_bit_in_any_file_is_noticed_or_harmless() {
    for seed in [21, 22, 23] {
        damage::flipped_bits(seed, 150).unwrap();
    }
}
