//! The bodies of file I/O side by side: system calls, our ring, and tokio-uring, by what each operation takes.
//!
//! One table for `docs/benchmarks.md`, on the file system of the directory for temporary files (`TMPDIR`). Each
//! measurement is a process of its own, so that CPU and context switches are those of one body with all its threads, the
//! kernel's workers for the ring included. The bodies take turns, five rounds; stated is the median. System calls are
//! counted under strace in runs of their own, which give no times: what a run takes more when it does twice as much.
//!
//! Our two bodies are driven as the broker drives them: an append is `pwritev` in both, a cold range is warmed off the
//! thread and then read. tokio-uring does all of it by the ring. Bound by the page cache's copy (appends, warm reads) and
//! by the medium (the others).

use std::fmt;
use std::fs;
use std::io::IoSlice;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Instant;

use milena_benches::inputs::Scratch;
use milena_engine::io::{self, Backend, FileHandle, Io, OpenMode, Operation};
use rustix::fs::Advice;
use rustix::time::ClockId;

const ROUNDS: usize = 5;

/// The file that is read, and the distance of what is read in it: no two reads are of one read-ahead window.
const READ_FILE_BYTES: u64 = 128 << 20;
const READ_STRIDE_BYTES: u64 = 128 << 10;
const PLACES: u64 = READ_FILE_BYTES / READ_STRIDE_BYTES;
/// Without a common divisor with [`PLACES`]: every place comes once before one comes again.
const PLACE_STEP: u64 = 397;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Body {
    Syscall,
    Ring,
    TokioUring,
}

impl Body {
    const ALL: [Body; 3] = [Body::Syscall, Body::Ring, Body::TokioUring];

    const fn name(self) -> &'static str {
        match self {
            Body::Syscall => "syscall",
            Body::Ring => "uring",
            Body::TokioUring => "tokio-uring",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Append,
    SyncedAppend,
    ColdRead,
    WarmRead,
}

/// One row for each body.
#[derive(Clone, Copy, Debug)]
struct Case {
    kind: Kind,
    size_bytes: usize,
    /// How many are under way at once, each on a file of its own if it writes.
    depth: usize,
    /// How often; a multiple of twice the depth.
    count: usize,
}

const fn case(kind: Kind, size_kib: usize, depth: usize, count: usize) -> Case {
    Case {
        kind,
        size_bytes: size_kib << 10,
        depth,
        count,
    }
}

const CASES: [Case; 10] = [
    case(Kind::Append, 8, 1, 4000),
    case(Kind::Append, 64, 1, 1000),
    case(Kind::Append, 1024, 1, 100),
    case(Kind::SyncedAppend, 4, 1, 400),
    case(Kind::SyncedAppend, 4, 16, 1600),
    case(Kind::ColdRead, 4, 1, 400),
    case(Kind::ColdRead, 4, 16, 960),
    case(Kind::ColdRead, 64, 1, 400),
    case(Kind::WarmRead, 4, 1, 4000),
    case(Kind::WarmRead, 64, 1, 2000),
];

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.kind {
            Kind::Append => "append",
            Kind::SyncedAppend => "append and sync",
            Kind::ColdRead => "cold read",
            Kind::WarmRead => "warm read",
        };
        match self.size_bytes >> 10 {
            1024 => write!(f, "{what}, 1 MiB")?,
            kib => write!(f, "{what}, {kib} KiB")?,
        }
        match self.depth {
            1 => Ok(()),
            depth => write!(f, ", {depth} at once"),
        }
    }
}

/// What one process measured. Times are of one turn: as many operations as are under way at once.
#[derive(Clone, Copy, Debug)]
struct Sample {
    median_us: f64,
    /// Of the whole process and the kernel's workers on its behalf, for one operation.
    cpu_us: f64,
    switches: f64,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args()
        .skip(1)
        .filter(|argument| argument != "--bench")
        .collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match arguments[..] {
        [] => compare(),
        ["--measure", case, body, count] => measure_one(case, body, count),
        _ => Err("usage: cargo bench -p milena-benches --bench io".to_owned()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("milena: {problem}");
            ExitCode::FAILURE
        }
    }
}

// The table.

fn compare() -> Result<(), String> {
    println!(
        "in {}, medians of {ROUNDS} rounds\n",
        std::env::temp_dir().display()
    );
    let mut rows: Vec<(usize, Body, Result<Vec<Sample>, String>)> = Vec::new();
    for index in 0..CASES.len() {
        rows.extend(Body::ALL.map(|body| (index, body, Ok(Vec::new()))));
    }
    for round in 1..=ROUNDS {
        for (index, body, samples) in &mut rows {
            if let Ok(taken) = samples {
                match sample(*index, *body) {
                    Ok(sample) => taken.push(sample),
                    Err(refusal) => *samples = Err(refusal),
                }
            }
        }
        eprintln!("round {round} of {ROUNDS}");
    }
    println!("| | | p50, µs | CPU, µs | system calls | context switches |");
    println!("|---|---|---|---|---|---|");
    for (index, body, samples) in &rows {
        let what = if *body == Body::Syscall {
            CASES[*index].to_string()
        } else {
            String::new()
        };
        match samples {
            Err(refusal) => println!("| {what} | {} | {refusal} | | | |", body.name()),
            Ok(samples) => println!(
                "| {what} | {} | {:.1} | {:.1} | {} | {:.2} |",
                body.name(),
                median(samples.iter().map(|sample| sample.median_us)),
                median(samples.iter().map(|sample| sample.cpu_us)),
                system_calls(*index, *body).map_or("-".to_owned(), |calls| format!("{calls:.1}")),
                median(samples.iter().map(|sample| sample.switches)),
            ),
        }
    }
    Ok(())
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn measuring(program: &mut Command, index: usize, body: Body, count: usize) -> Result<String, String> {
    let output = program
        .args(["--measure", &index.to_string(), body.name(), &count.to_string()])
        .output()
        .map_err(|error| format!("{program:?}: {error}"))?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        let said = String::from_utf8_lossy(&output.stderr);
        Err(said.trim().trim_start_matches("milena: ").replace('\n', " "))
    }
}

fn this_program() -> Result<std::path::PathBuf, String> {
    std::env::current_exe().map_err(|error| format!("cannot find this program: {error}"))
}

fn sample(index: usize, body: Body) -> Result<Sample, String> {
    let text = measuring(
        &mut Command::new(this_program()?),
        index,
        body,
        CASES[index].count,
    )?;
    let numbers: Vec<f64> = text
        .split_whitespace()
        .filter_map(|word| word.parse().ok())
        .collect();
    match numbers[..] {
        [median_us, cpu_us, switches] => Ok(Sample {
            median_us,
            cpu_us,
            switches,
        }),
        _ => Err(format!("found {text:?} where a measurement was expected")),
    }
}

/// For one operation; `None` where strace is missing, or may not look.
fn system_calls(index: usize, body: Body) -> Option<f64> {
    let turns = 20 * CASES[index].depth;
    let total = |count: usize| {
        let mut strace = Command::new("strace");
        strace
            .args(["-f", "-qq", "-c", "-U", "calls,name", "-o", "/dev/stderr"])
            .arg(this_program().ok()?);
        strace.args(["--measure", &index.to_string(), body.name(), &count.to_string()]);
        let output = strace.output().ok().filter(|output| output.status.success())?;
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        let line = text.lines().find(|line| line.trim_end().ends_with(" total"))?;
        line.split_whitespace().next()?.parse::<f64>().ok()
    };
    Some((total(2 * turns)? - total(turns)?) / turns as f64)
}

// One measurement.

fn measure_one(case: &str, body: &str, count: &str) -> Result<(), String> {
    let parsed = case.parse().ok().and_then(|index: usize| CASES.get(index));
    let body = Body::ALL.into_iter().find(|known| known.name() == body);
    let (Some(case), Some(body), Ok(count)) = (parsed, body, count.parse()) else {
        return Err("--measure takes the number of a case, a body and how often".to_owned());
    };
    let case = Case { count, ..*case };
    let scratch = Scratch::new("io");
    let sample = match body {
        Body::Syscall => on_engine(&case, Backend::Syscall, scratch.path())?,
        Body::Ring => on_engine(&case, Backend::Uring, scratch.path())?,
        Body::TokioUring => on_tokio_uring(&case, scratch.path())?,
    };
    println!("{} {} {}", sample.median_us, sample.cpu_us, sample.switches);
    Ok(())
}

/// Times turns, and what the process spends meanwhile.
struct Meter {
    turns_us: Vec<f64>,
    cpu_us: f64,
    switches: u64,
}

impl Meter {
    fn start() -> Meter {
        Meter {
            turns_us: Vec::new(),
            cpu_us: process_cpu_us(),
            switches: context_switches(),
        }
    }

    fn turn_since(&mut self, began: Instant) {
        self.turns_us.push(began.elapsed().as_nanos() as f64 / 1000.0);
    }

    fn finish(self, case: &Case) -> Sample {
        let operations = (self.turns_us.len() * case.depth) as f64;
        Sample {
            cpu_us: (process_cpu_us() - self.cpu_us) / operations,
            switches: context_switches().saturating_sub(self.switches) as f64 / operations,
            median_us: median(self.turns_us.into_iter()),
        }
    }
}

fn process_cpu_us() -> f64 {
    let time = rustix::time::clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 * 1e6 + time.tv_nsec as f64 / 1e3
}

/// Of all threads that are alive.
fn context_switches() -> u64 {
    let tasks = fs::read_dir("/proc/self/task").expect("Linux tells of its threads");
    let statuses = tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("status")).ok());
    let of_one = |status: String| -> u64 {
        let lines = status.lines().filter(|line| line.contains("ctxt_switches"));
        let numbers = lines.filter_map(|line| line.rsplit('\t').next()?.parse::<u64>().ok());
        numbers.sum()
    };
    statuses.map(of_one).sum()
}

fn place(number: usize) -> u64 {
    (number as u64 * PLACE_STEP) % PLACES * READ_STRIDE_BYTES
}

/// The file to read: in the page cache, or out of it.
fn make_read_file(path: &Path, is_cold: bool) -> Result<(), String> {
    let said = |error: std::io::Error| format!("{}: {error}", path.display());
    fs::write(path, vec![7; READ_FILE_BYTES as usize]).map_err(said)?;
    let file = fs::File::open(path).map_err(said)?;
    if is_cold {
        file.sync_all().map_err(said)?;
        rustix::fs::fadvise(&file, 0, None, Advice::DontNeed).map_err(|errno| said(errno.into()))?;
    }
    Ok(())
}

/// Reads elsewhere are to stay cold: nothing is read ahead.
fn no_read_ahead(file: impl AsFd) -> Result<(), String> {
    rustix::fs::fadvise(file, 0, None, Advice::Random).map_err(|errno| format!("posix_fadvise: {errno}"))
}

fn on_engine(case: &Case, backend: Backend, directory: &Path) -> Result<Sample, String> {
    let io = io::open(backend).map_err(|refused| refused.to_string())?;
    let open = |name: &str, mode| {
        io.open(&directory.join(name), mode)
            .map_err(|error| error.to_string())
    };
    let turns = case.count / case.depth;
    if matches!(case.kind, Kind::Append | Kind::SyncedAppend) {
        let names: Vec<String> = (0..case.depth).map(|number| format!("file-{number}")).collect();
        let files = names
            .iter()
            .map(|name| open(name, OpenMode::CreateNew))
            .collect::<Result<Vec<_>, _>>()?;
        return engine_writes(case, &io, &files, turns).map_err(|error| error.to_string());
    }
    let is_cold = case.kind == Kind::ColdRead;
    make_read_file(&directory.join("read"), is_cold)?;
    let file = open("read", OpenMode::Read)?;
    if is_cold {
        no_read_ahead(file.descriptor().ok_or("the file has no descriptor")?)?;
        if file.is_resident(place(1), case.size_bytes as u64) {
            return Err("the page cache of this file system cannot be emptied".to_owned());
        }
    }
    engine_reads(case, &io, &file, turns).map_err(|error| error.to_string())
}

type IoResult<T> = Result<T, milena_engine::error::IoError>;

/// Submits all and waits for all.
fn all_done(io: &Arc<dyn Io>, operations: impl Iterator<Item = Operation>) -> IoResult<()> {
    let (done, finished) = channel();
    for operation in operations {
        let done = done.clone();
        io.submit(operation, Box::new(move |outcome| drop(done.send(outcome))));
    }
    drop(done);
    finished.iter().collect()
}

fn engine_writes(case: &Case, io: &Arc<dyn Io>, files: &[FileHandle], turns: usize) -> IoResult<Sample> {
    let bytes = vec![7; case.size_bytes];
    let mut meter = Meter::start();
    for turn in 0..turns {
        let began = Instant::now();
        for file in files {
            file.write_vectored_at((turn * case.size_bytes) as u64, &[IoSlice::new(&bytes)])?;
        }
        if case.kind == Kind::SyncedAppend {
            all_done(
                io,
                files.iter().map(|file| Operation::Sync {
                    file: Arc::clone(file),
                }),
            )?;
        }
        meter.turn_since(began);
    }
    Ok(meter.finish(case))
}

fn engine_reads(case: &Case, io: &Arc<dyn Io>, file: &FileHandle, turns: usize) -> IoResult<Sample> {
    let mut buffer = vec![0; case.size_bytes];
    let mut meter = Meter::start();
    for turn in 0..turns {
        let places = (turn * case.depth..(turn + 1) * case.depth).map(place);
        let began = Instant::now();
        if case.kind == Kind::ColdRead {
            let warm = |position| Operation::Warm {
                file: Arc::clone(file),
                position,
                size_bytes: case.size_bytes as u64,
            };
            all_done(io, places.clone().map(warm))?;
        }
        for position in places {
            file.read_at(position, &mut buffer)?;
        }
        meter.turn_since(began);
    }
    Ok(meter.finish(case))
}

fn on_tokio_uring(case: &Case, directory: &Path) -> Result<Sample, String> {
    let runtime = tokio_uring::Runtime::new(&tokio_uring::builder())
        .map_err(|error| format!("cannot be had here (io_uring_setup: {error})"))?;
    let said = |error: std::io::Error| error.to_string();
    let turns = case.count / case.depth;
    if matches!(case.kind, Kind::Append | Kind::SyncedAppend) {
        let create = |number| {
            let file = fs::File::create_new(directory.join(format!("file-{number}")))?;
            Ok(Rc::new(tokio_uring::fs::File::from_std(file)))
        };
        let files = (0..case.depth)
            .map(create)
            .collect::<Result<Vec<_>, _>>()
            .map_err(said)?;
        return runtime
            .block_on(tokio_uring_writes(*case, files, turns))
            .map_err(said);
    }
    let (path, is_cold) = (directory.join("read"), case.kind == Kind::ColdRead);
    make_read_file(&path, is_cold)?;
    let file = fs::File::open(path).map_err(said)?;
    if is_cold {
        no_read_ahead(&file)?;
    }
    let file = Rc::new(tokio_uring::fs::File::from_std(file));
    runtime
        .block_on(tokio_uring_reads(*case, file, turns))
        .map_err(said)
}

async fn tokio_uring_writes(
    case: Case,
    files: Vec<Rc<tokio_uring::fs::File>>,
    turns: usize,
) -> std::io::Result<Sample> {
    let mut buffers: Vec<Vec<u8>> = files.iter().map(|_| vec![7; case.size_bytes]).collect();
    let mut meter = Meter::start();
    for turn in 0..turns {
        let began = Instant::now();
        let write = |file: Rc<tokio_uring::fs::File>, buffer| async move {
            let (outcome, buffer) = file.write_all_at(buffer, (turn * case.size_bytes) as u64).await;
            outcome?;
            if case.kind == Kind::SyncedAppend {
                file.sync_data().await?;
            }
            Ok(buffer)
        };
        buffers = together(
            files
                .iter()
                .cloned()
                .zip(buffers)
                .map(|(file, buffer)| write(file, buffer)),
        )
        .await?;
        meter.turn_since(began);
    }
    Ok(meter.finish(&case))
}

async fn tokio_uring_reads(
    case: Case,
    file: Rc<tokio_uring::fs::File>,
    turns: usize,
) -> std::io::Result<Sample> {
    let mut buffers: Vec<Vec<u8>> = (0..case.depth).map(|_| vec![0; case.size_bytes]).collect();
    let mut meter = Meter::start();
    for turn in 0..turns {
        let began = Instant::now();
        let read = |file: Rc<tokio_uring::fs::File>, number, buffer| async move {
            let (outcome, buffer) = file.read_exact_at(buffer, place(number)).await;
            outcome.map(|()| buffer)
        };
        let numbered = buffers.into_iter().enumerate();
        let reads = numbered.map(|(index, buffer)| read(Rc::clone(&file), turn * case.depth + index, buffer));
        buffers = together(reads).await?;
        meter.turn_since(began);
    }
    Ok(meter.finish(&case))
}

/// Awaits one on the spot, and several as tasks.
async fn together<F>(work: impl ExactSizeIterator<Item = F>) -> std::io::Result<Vec<Vec<u8>>>
where
    F: Future<Output = std::io::Result<Vec<u8>>> + 'static,
{
    let mut done = Vec::with_capacity(work.len());
    if work.len() == 1 {
        for one in work {
            done.push(one.await?);
        }
        return Ok(done);
    }
    let tasks: Vec<_> = work.map(tokio_uring::spawn).collect();
    for task in tasks {
        done.push(task.await.map_err(std::io::Error::other)??);
    }
    Ok(done)
}
