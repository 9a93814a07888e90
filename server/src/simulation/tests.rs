//! A sample of the campaign, and that a seed repeats itself.

use std::fs::OpenOptions;
use std::io::Write;
use std::ops::Range;

use super::*;
use crate::planted::{self, Bug};

/// A sample of what the campaign runs in thousands.
const SEEDS: u64 = 40;
const SEEDS_VARIABLE: &str = "MILENA_SIMULATION_SEEDS";

/// What campaigns found, a line for each seed.
const FOUND: &str = include_str!("found_seeds.txt");
const FOUND_FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/simulation/found_seeds.txt");

fn check(seed: u64) -> Outcome {
    let outcome = run(seed);
    if !outcome.violations.is_empty() {
        let (plan, violations) = shrunk(seed);
        if is_campaign() {
            keep(&format!("{seed}: {plan:?}; {}", violations[0]));
        }
        panic!(
            "seed {seed}: {:?}; of {plan:?} is left: {violations:?}",
            outcome.violations
        );
    }
    outcome
}

fn is_campaign() -> bool {
    std::env::var_os(SEEDS_VARIABLE).is_some()
}

/// Has every later sample run it.
fn keep(line: &str) {
    let mut file = OpenOptions::new()
        .append(true)
        .open(FOUND_FILE)
        .expect("a campaign runs where its source is");
    writeln!(file, "{line}").expect("a line fits on the disk");
}

fn found_before() -> impl Iterator<Item = u64> {
    let lines = FOUND.lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| {
        let (seed, _) = line.split_once(':').expect("SEED: what");
        seed.parse().expect("a number")
    })
}

/// The least of a seed's troubles by which something still goes wrong, and what.
fn shrunk(seed: u64) -> (Plan, Vec<String>) {
    let mut least = plan(seed);
    let mut violations = run(seed).violations;
    let mut count = least.len();
    while count > 0 {
        let mut first = 0;
        while first < least.len() {
            let fewer = faults::without(&least, first..first + count);
            let outcome = run_with(seed, &fewer);
            if outcome.violations.is_empty() {
                first += count;
            } else {
                (least, violations) = (fewer, outcome.violations);
            }
        }
        count /= 2;
    }
    (least, violations)
}

#[test]
fn what_goes_wrong_is_told_by_its_least_causes() {
    let (seed, plan) = planted::with(Bug::AcknowledgedBeforeReplicated, || {
        let seed = (0..50).find(|seed| !run(*seed).violations.is_empty());
        let seed = seed.expect("this bug shows soon");
        (seed, shrunk(seed).0)
    });
    assert!(
        plan.len() < super::plan(seed).len() && !plan.is_empty(),
        "{plan:?}"
    );
}

#[test]
fn no_acknowledged_record_is_lost_and_clusters_come_together() {
    let seeds = seeds_or(0..SEEDS);
    let kept = found_before().filter(|_| !is_campaign());
    let (mut acknowledged, mut committed, mut reigns, mut void) = (0, 0, 0, 0);
    for seed in seeds.chain(kept) {
        let outcome = check(seed);
        acknowledged += outcome.acknowledged;
        committed += outcome.committed;
        reigns += outcome.reigns;
        void += usize::from(outcome.is_void);
    }
    if is_campaign() {
        println!("{acknowledged} acknowledged, {reigns} reigns, {void} runs ended beyond what is promised");
        return;
    }
    // A sample in which nothing happens would show nothing.
    assert!(acknowledged > 1000, "{acknowledged} records were acknowledged");
    assert!(committed > 500, "up to {committed} was committed");
    assert!(reigns > 100, "{reigns} reigns were seen");
}

/// `MILENA_SIMULATION_SEEDS=FIRST..END` of a campaign, or the sample.
fn seeds_or(sample: Range<u64>) -> Range<u64> {
    let Ok(text) = std::env::var(SEEDS_VARIABLE) else {
        return sample;
    };
    let (first, end) = text.split_once("..").expect("MILENA_SIMULATION_SEEDS=FIRST..END");
    first.parse().expect("a number")..end.parse().expect("a number")
}

/// Every planted bug, and how many seeds from 0 on it may take to find it.
const BUGS: [Bug; 19] = [
    Bug::AcknowledgedBeforeReplicated,
    Bug::CutAtHighWatermark,
    Bug::LeaderEpochIgnored,
    Bug::FetchedBeforeRoleChangeApplied,
    Bug::OldEpochFetchAccepted,
    Bug::FormerReignBelieved,
    Bug::JoinsBeforeReignStart,
    Bug::PendingJoinDoesNotCount,
    Bug::PendingLeaveCounts,
    Bug::IsrWrittenWithoutVersion,
    Bug::OldControllerWrites,
    Bug::OldControllerObeyed,
    Bug::StaleBrokerEpochAccepted,
    Bug::UnseenBounceTakenForOnline,
    Bug::UnsyncedCounted,
    Bug::StrangersDoNotCount,
    Bug::SaidInVain,
    Bug::LostWritesNotWaitedFor,
    Bug::DistrustedHearNothing,
];

/// The first seed at which a bug shows; without the bug that seed must be sound.
fn found(bug: Bug, seeds: Range<u64>) -> Option<u64> {
    let shows = |seed: &u64| !planted::with(bug, || run(*seed)).violations.is_empty();
    let seed = seeds.into_iter().find(shows)?;
    check(seed);
    Some(seed)
}

#[test]
fn planted_bugs_are_found() {
    match std::env::var("MILENA_SIMULATION_PLANTED") {
        // The campaign: all of them, or the one that is named, each in so many seeds.
        Ok(wanted) => {
            let (count, name) = wanted.split_once(':').unwrap_or((&wanted, ""));
            let count = count.parse().expect("MILENA_SIMULATION_PLANTED=SEEDS[:BUG]");
            let mut missed = Vec::new();
            for bug in BUGS.into_iter().filter(|bug| format!("{bug:?}").contains(name)) {
                let Some(seed) = found(bug, seeds_or(0..count)) else {
                    println!("{bug:?}: not found");
                    missed.push(bug);
                    continue;
                };
                let (plan, violations) = planted::with(bug, || shrunk(seed));
                println!("{bug:?}: seed {seed}, {plan:?}: {:?}", violations[0]);
            }
            assert_eq!(missed, []);
        }
        Err(_) => assert!(found(Bug::CutAtHighWatermark, 0..50).is_some()),
    }
}

#[test]
fn the_same_seed_gives_the_same_run() {
    for seed in seeds_or(0..6) {
        assert_eq!(run(seed), run(seed), "seed {seed}");
    }
}
