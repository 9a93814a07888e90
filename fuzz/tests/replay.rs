//! Each target on its corpus and on mutations of it from a seed, with the memory it takes; and the canary, which
//! must be caught.
//!
//! `MILENA_FUZZ_MUTATIONS` is how many a target gets; a failure names target, seed file and number.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Mutex;

use milena_fuzz::mutate::{Random, mutate};
use milena_fuzz::{Run, TARGETS, canary};
use peak_alloc::PeakAlloc;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// The peak is the process's: one target at a time.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

const MUTATIONS: usize = 2000;
/// Memory that does not depend on the input: windows and contexts of the codecs, the simulated disk.
const MEMORY_FIXED: usize = 24 << 20;
/// Bytes of memory for one of input: a block of LZ4 expands 255 times, and is held twice.
const MEMORY_PER_BYTE: usize = 1024;

fn corpus(target: &str) -> Vec<(String, Vec<u8>)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    let mut found: Vec<(String, Vec<u8>)> = fs::read_dir(directory)
        .expect("every target has a corpus")
        .map(|entry| {
            let path = entry.expect("a readable directory").path();
            let name = path.file_name().expect("a file").to_string_lossy().into_owned();
            (name, fs::read(path).expect("a readable file"))
        })
        .collect();
    found.sort();
    assert!(!found.is_empty());
    found
}

/// What is wrong with a target on these bytes.
fn fault(run: Run, bytes: &[u8]) -> Option<String> {
    let before = MEMORY.current_usage();
    MEMORY.reset_peak_usage();
    if catch_unwind(AssertUnwindSafe(|| run(bytes))).is_err() {
        return Some("a panic".to_owned());
    }
    let taken = MEMORY.peak_usage().saturating_sub(before);
    let allowed = MEMORY_FIXED + MEMORY_PER_BYTE * bytes.len();
    (taken > allowed).then(|| format!("{taken} bytes of memory for {} of input", bytes.len()))
}

/// The first fault among the corpus and `count` mutations of it.
fn search(run: Run, corpus: &[(String, Vec<u8>)], count: usize) -> Option<String> {
    let seeds = corpus.iter().map(|(name, bytes)| (name.clone(), bytes.clone()));
    let mut random = Random::new(20);
    let mutations = (0..count).map(|number| {
        let (name, bytes) = &corpus[random.below(corpus.len())];
        let mut bytes = bytes.clone();
        let other = random.below(corpus.len());
        mutate(&mut random, &mut bytes, &corpus[other].1);
        (format!("mutation {number} of {name}"), bytes)
    });
    seeds
        .chain(mutations)
        .find_map(|(name, bytes)| fault(run, &bytes).map(|fault| format!("{name}: {fault}: {bytes:02x?}")))
}

#[test]
fn no_target_panics_or_takes_memory_by_what_its_input_states() {
    let _alone = ONE_AT_A_TIME.lock();
    let count = std::env::var("MILENA_FUZZ_MUTATIONS");
    let count = count.map_or(MUTATIONS, |count| count.parse().expect("a number"));
    for (name, run) in TARGETS {
        if let Some(fault) = search(run, &corpus(name), count) {
            panic!("{name}: {fault}");
        }
    }
}

#[test]
fn the_two_planted_bugs_of_the_canary_are_found() {
    let _alone = ONE_AT_A_TIME.lock();
    let corpus = corpus("canary");
    let found = search(canary::run, &corpus, MUTATIONS).expect("a planted bug");
    assert!(found.contains("mutation"), "{found}");
    let panics = fault(canary::run, &[0, 0, 0, 3, 1]).expect("a place that is not there");
    assert!(panics.contains("panic"), "{panics}");
    let takes = fault(canary::run, &[0x40, 0, 0, 0]).expect("2^30 bytes of memory");
    assert!(takes.contains("of memory for 4 of input"), "{takes}");
}
