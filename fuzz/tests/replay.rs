//! Each target on its corpus and on mutations of it from a seed, within the memory that the table gives it; and the
//! canary, which must be caught.
//!
//! A target gets mutations for some seconds, or as many as `MILENA_FUZZ_MUTATIONS` says; they are the same each time. A
//! failure names target, seed file and number.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use milena_fuzz::mutate::{Random, mutate};
use milena_fuzz::{CANARY, INPUT_SIZE_MAX, TARGETS, Target};

/// The peak is the process's: one target at a time.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// For a target that must hold; the first mutations are made however long they take.
const TIME: Duration = Duration::from_secs(2);
const MUTATIONS_MIN: usize = 500;
const MUTATIONS_OF_THE_CANARY: usize = 2000;

fn home() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn names(directory: &str) -> BTreeSet<String> {
    let entries = fs::read_dir(home().join(directory)).expect("a directory of the crate");
    let name = |path: std::path::PathBuf| path.file_stem().expect("a name").to_string_lossy().into_owned();
    entries
        .map(|entry| name(entry.expect("a readable directory").path()))
        .collect()
}

fn corpus(target: &Target) -> Vec<(String, Vec<u8>)> {
    let directory = home().join("corpus").join(target.name);
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

/// The first fault among the corpus and mutations of it, as long as there may be more, given how many there were.
fn search(target: &Target, may_go_on: impl Fn(usize) -> bool) -> Option<String> {
    let corpus = corpus(target);
    let seeds = corpus.iter().map(|(name, bytes)| (name.clone(), bytes.clone()));
    let mut random = Random::new(20);
    let mutations = (0..).take_while(|number| may_go_on(*number)).map(|number| {
        let (name, bytes) = &corpus[random.below(corpus.len())];
        let mut bytes = bytes.clone();
        let other = random.below(corpus.len());
        mutate(&mut random, &mut bytes, &corpus[other].1);
        (format!("mutation {number} of {name}"), bytes)
    });
    seeds.chain(mutations).find_map(|(name, bytes)| {
        let fault = target.fault(&bytes)?;
        Some(format!("{name}: {fault}: {bytes:02x?}"))
    })
}

#[test]
fn no_target_panics_or_takes_more_memory_than_the_table_gives_it() {
    let _alone = ONE_AT_A_TIME.lock();
    let asked = std::env::var("MILENA_FUZZ_MUTATIONS").ok();
    let asked: Option<usize> = asked.map(|count| count.parse().expect("a number"));
    for target in &TARGETS {
        let began = Instant::now();
        let may_go_on = |number| match asked {
            Some(count) => number < count,
            None => number < MUTATIONS_MIN || began.elapsed() < TIME,
        };
        if let Some(fault) = search(target, may_go_on) {
            panic!("{}: {fault}", target.name);
        }
    }
}

#[test]
fn the_two_planted_bugs_of_the_canary_are_found() {
    let _alone = ONE_AT_A_TIME.lock();
    let found = search(&CANARY, |number| number < MUTATIONS_OF_THE_CANARY).expect("a planted bug");
    assert!(found.contains("mutation"), "{found}");
    let panics = CANARY.fault(&[0, 0, 0, 3, 1]).expect("a place that is not there");
    assert!(panics.contains("index out of bounds"), "{panics}");
    let takes = CANARY.fault(&[0x40, 0, 0, 0]).expect("2^30 bytes of memory");
    assert!(takes.contains("of memory for 4 of input"), "{takes}");
}

#[test]
fn every_target_has_a_program_and_a_corpus_and_nothing_is_left_over() {
    let mut expected: BTreeSet<String> = TARGETS.iter().map(|target| target.name.to_owned()).collect();
    expected.insert(CANARY.name.to_owned());
    assert_eq!(names("fuzz_targets"), expected);
    assert_eq!(names("corpus"), expected);
}

/// What the smallest elements are, as many as there can be: here the memory for a byte of input is largest.
#[test]
fn the_longest_inputs_of_the_smallest_elements_keep_the_bounds() {
    let _alone = ONE_AT_A_TIME.lock();
    let filled = |head: &[u8], element: &[u8], tail: &[u8]| {
        let count = (INPUT_SIZE_MAX - head.len() - tail.len()) / element.len();
        [head, &element.repeat(count), tail].concat()
    };
    // with the count that is true, in its four bytes
    let counted = |head: &[u8], element: &[u8]| {
        let count = (INPUT_SIZE_MAX - head.len() - 4) / element.len();
        [head, &(count as u32).to_be_bytes(), &element.repeat(count)].concat()
    };
    let member = [0u8; 2 + 2 + 2 + 4 + 4 + 4];
    let state = br#"{"version":1,"leader":0,"leader_epoch":0,"controller_epoch":1,"isr":["#;
    let settings = |line: fn(usize) -> String| -> Vec<u8> {
        (0..INPUT_SIZE_MAX)
            .flat_map(|at| line(at).into_bytes())
            .take(INPUT_SIZE_MAX)
            .collect()
    };
    for (name, input) in [
        // Metadata v1 of topics without a name
        ("request", counted(&[0, 3, 0, 1, 0, 0, 0, 0, 0xff, 0xff], &[0, 0])),
        // DeleteTopics v5 likewise, in one byte each
        (
            "request",
            filled(
                &[0, 20, 0, 5, 0, 0, 0, 0, 0xff, 0xff, 0, 0xe0, 0xff, 0x03],
                &[1],
                &[0; 5],
            ),
        ),
        ("consumer_protocol", counted(&[0, 0, 0], &[0, 0])),
        ("consumer_protocol", counted(&[1, 0, 0], &[0, 0, 0, 0, 0, 0])),
        (
            "group_records",
            counted(&[2, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], &member),
        ),
        ("znodes", filled(&[&[2], &state[..]].concat(), b"1,", b"1]}")),
        ("znodes", filled(&[&[2], &state[..]].concat(), b"{},", b"1]}")),
        ("znodes", filled(&[&[2], &state[..]].concat(), b"[],", b"1]}")),
        ("server_properties", settings(|at| format!("{at:x}\n"))),
        ("server_properties", settings(|at| format!("{at:x}\\\n"))),
        (
            "server_properties",
            settings(|at| format!("log.dirs={}\n", at % 3)),
        ),
        ("server_properties", filled(b"listeners=", b"A://:1,", b"")),
        ("server_properties", filled(b"log.dirs=", b"a,", b"")),
        (
            "server_properties",
            filled(b"advertised.listeners=", b",", b"\nadvertised.listeners="),
        ),
    ] {
        let target = Target::named(name).expect("a target");
        if let Some(fault) = target.fault(&input) {
            panic!("{name}, {:02x?}: {fault}", &input[..40]);
        }
    }
}
