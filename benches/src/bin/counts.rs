//! Counts the instructions of each step by callgrind and holds them against `benches/baseline.json`.
//!
//! ```text
//! cargo run --release -p milena-benches --bin counts               fails if a step takes over 2 % more than it did
//! cargo run --release -p milena-benches --bin counts -- --renew    makes what is found the new baseline
//! ```
//!
//! Each step runs in a process of its own under valgrind, with an empty environment, and is counted after one run that
//! warms it: what an allocator or a codec keeps from another step changes nothing. Work of the kernel is not counted.
//!
//! Exit codes: 0 nothing regressed, or the conditions are not those of the baseline (which is said); 1 a step regressed,
//! or the baseline has other steps; 2 it could not be found out.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use milena_benches::baseline::{Baseline, packages_fingerprint};
use milena_benches::inputs::Scratch;
use milena_benches::steps::{self, Step};

const BASELINE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/baseline.json");
const LOCK_FILE: &str = include_str!("../../../Cargo.lock");
const USAGE: &str = "usage: counts [--renew]";

/// The function [`steps::counted`], in any mangling.
const COUNTED: &str = "*milena_benches*steps*counted*";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match arguments[..] {
        [] => check(),
        ["--renew"] => renew(),
        ["--step", name] => run(name),
        _ => Err(USAGE.to_owned()),
    };
    outcome.unwrap_or_else(|problem| {
        eprintln!("milena: {problem}");
        ExitCode::from(2)
    })
}

/// The process under valgrind: runs one step, and says which instructions the processor has.
fn run(name: &str) -> Result<ExitCode, String> {
    let step = steps::all().find(|step| step.name == name);
    let step = step.ok_or_else(|| format!("there is no step {name}"))?;
    let mut work = (step.prepare)();
    work();
    steps::counted(&mut *work, step.runs);
    println!("{}", processor_features());
    Ok(ExitCode::SUCCESS)
}

/// Those that libraries choose their code by.
fn processor_features() -> String {
    #[cfg(target_arch = "x86_64")]
    let has = [
        ("sse4.2", is_x86_feature_detected!("sse4.2")),
        ("pclmulqdq", is_x86_feature_detected!("pclmulqdq")),
        ("bmi2", is_x86_feature_detected!("bmi2")),
        ("avx2", is_x86_feature_detected!("avx2")),
        ("avx512f", is_x86_feature_detected!("avx512f")),
    ];
    #[cfg(target_arch = "aarch64")]
    let has = [
        ("crc", std::arch::is_aarch64_feature_detected!("crc")),
        ("pmull", std::arch::is_aarch64_feature_detected!("pmull")),
    ];
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let has = [("", false)];
    let names = has.into_iter().filter_map(|(name, has)| has.then_some(name));
    names.collect::<Vec<_>>().join(" ")
}

fn check() -> Result<ExitCode, String> {
    let text = fs::read_to_string(BASELINE).map_err(|error| format!("cannot read {BASELINE}: {error}"))?;
    let before: Baseline = serde_json::from_str(&text).map_err(|error| format!("{BASELINE}: {error}"))?;
    let verdict = before.compare(&count()?);
    println!(
        "{:<28}{:>14}{:>14}{:>11}",
        "instructions", "baseline", "now", "change"
    );
    for row in &verdict.rows {
        println!("{row}");
    }
    for difference in &verdict.differing {
        println!("not judged: {difference}");
    }
    let renewal = "cargo run --release -p milena-benches --bin counts -- --renew";
    if verdict.fails() {
        eprintln!(
            "milena: steps cost more than in {BASELINE}, or are not those of it; if that is meant: {renewal}"
        );
        return Ok(ExitCode::from(1));
    }
    if verdict.is_better() || !verdict.differing.is_empty() {
        println!("the baseline is to be renewed: {renewal}");
    }
    Ok(ExitCode::SUCCESS)
}

fn renew() -> Result<ExitCode, String> {
    let mut text = serde_json::to_string_pretty(&count()?).map_err(|error| error.to_string())?;
    text.push('\n');
    fs::write(BASELINE, text).map_err(|error| format!("cannot write {BASELINE}: {error}"))?;
    println!("{BASELINE} is new");
    Ok(ExitCode::SUCCESS)
}

/// The conditions and the instructions of all steps, some at a time.
fn count() -> Result<Baseline, String> {
    if cfg!(debug_assertions) {
        return Err("the counts of a build without optimisation say nothing: add --release".to_owned());
    }
    let valgrind = first_line("valgrind", &["--version"])
        .ok_or("valgrind is missing, which counts the instructions (Debian's package: valgrind)")?;
    let scratch = Scratch::new("counts");
    let steps: Vec<&Step> = steps::all().collect();
    let next = AtomicUsize::new(0);
    let take_turns = || {
        let mut found = Vec::new();
        while let Some(step) = steps.get(next.fetch_add(1, Ordering::Relaxed)) {
            found.push(count_step(step, scratch.path())?);
        }
        Ok::<_, String>(found)
    };
    let results: Vec<_> = thread::scope(|scope| {
        let count = thread::available_parallelism().map_or(1, usize::from);
        let threads: Vec<_> = (0..count).map(|_| scope.spawn(take_turns)).collect();
        let join = |thread: thread::ScopedJoinHandle<'_, _>| thread.join().expect("counting does not panic");
        threads.into_iter().map(join).collect()
    });
    let counts = results.into_iter().collect::<Result<Vec<_>, String>>()?.concat();
    let features = counts.first().map(|count| count.features.clone());
    let libc = first_line("getconf", &["GNU_LIBC_VERSION"]);
    let conditions = [
        ("compiler", env!("MILENA_COMPILER").to_owned()),
        ("packages", packages_fingerprint(LOCK_FILE)),
        ("processor", features.unwrap_or_default()),
        ("libc", libc.unwrap_or_else(|| "not glibc".to_owned())),
        ("valgrind", valgrind),
    ];
    let conditions = conditions.map(|(name, value)| (name.to_owned(), value));
    Ok(Baseline {
        conditions: BTreeMap::from(conditions),
        instructions: counts
            .into_iter()
            .map(|count| (count.step, count.instructions))
            .collect(),
    })
}

#[derive(Clone)]
struct Count {
    step: String,
    /// For one unit, to a tenth.
    instructions: f64,
    features: String,
}

fn count_step(step: &Step, scratch: &Path) -> Result<Count, String> {
    let program = std::env::current_exe().map_err(|error| format!("cannot find this program: {error}"))?;
    let written = scratch.join(step.name);
    let output = Command::new("valgrind")
        .args(["-q", "--tool=callgrind", "--collect-atstart=no"])
        .arg(format!("--toggle-collect={COUNTED}"))
        .arg(format!("--callgrind-out-file={}", written.display()))
        .arg(program)
        .args(["--step", step.name])
        .env_clear()
        .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
        // Paths are formatted and copied: theirs must have one length.
        .env("TMPDIR", ".")
        .current_dir(scratch)
        .output()
        .map_err(|error| format!("cannot run valgrind: {error}"))?;
    let failed = |what: &str| {
        let said = String::from_utf8_lossy(&output.stderr);
        Err(format!("{}: {what}\n{}", step.name, said.trim_end()))
    };
    if !output.status.success() {
        return failed("the step failed under valgrind");
    }
    let profile = fs::read_to_string(&written)
        .map_err(|error| format!("{}: valgrind has written no profile: {error}", step.name))?;
    let total = profile
        .lines()
        .find_map(|line| line.strip_prefix("totals: ")?.trim().parse().ok());
    let total: f64 = match total {
        Some(total) if total > 0.0 => total,
        _ => return failed("valgrind has counted nothing"),
    };
    let units = f64::from(step.runs) * f64::from(step.units_per_run);
    Ok(Count {
        step: step.name.to_owned(),
        instructions: (total / units * 10.0).round() / 10.0,
        features: String::from_utf8_lossy(&output.stdout).trim().to_owned(),
    })
}

fn first_line(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output
        .status
        .success()
        .then(|| text.lines().next().unwrap_or_default().to_owned())
}
