//! `milena bench`: what a broker bears and what it costs, of any broker that speaks Kafka's protocol.
//!
//! - `scenario`, `quantity`: what is to be measured; `shipped`: the scenarios that come with Milena
//! - `schedule`, `payload`, `batch`, `arrivals`: pure machines: when records start, what is in them, requests that go round,
//!   batches whose acknowledgement and arrival meet
//! - `load`, `threads`: a scenario, run, with `produce` and `consume` as its lanes, `topics`, `ticker`, `recorder`, `interrupt`,
//!   `descriptors`
//! - `check`: everything read back; `accounting`: CPU, context switches, memory, bytes written
//! - `results`, `machine`, `hgrm`, `progress`, `plot`: numbers, percentile files, the line on the terminal, a report in HTML
//! - `null_server`, `validate`: what the generator itself costs; `compare`: brokers side by side
//!
//! `docs/bench.md` explains how to use it and what its figures mean.

mod accounting;
mod arrivals;
mod batch;
mod check;
mod compare;
mod consume;
mod descriptors;
mod error;
mod hgrm;
mod interrupt;
mod load;
mod machine;
mod null_server;
mod payload;
mod plot;
mod produce;
mod progress;
mod quantity;
mod recorder;
mod results;
mod scenario;
mod schedule;
mod shipped;
mod threads;
mod ticker;
mod topics;
mod validate;
mod verdict;

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};

use error::BenchError;
use interrupt::Interrupt;
use progress::Progress;
use results::{Results, Run};
use scenario::{Load, Scenario, Workload};

use crate::cluster_args::BootstrapArgs;
use crate::{Exit, complain};

const EXAMPLES: &str = "\
Examples:
  milena bench produce                                   as fast as a broker on localhost:9092 takes 1 KiB records
  milena bench produce -b broker:9092 --rate 10000 --batch-records 1 --duration 30s
                                                         acknowledgement latency at a fixed rate
  milena bench e2e --rate 1000 --json e2e.json           from the producer to the consumer
  milena bench consume --records 1000000 --fan-out 4     four readers of the same million records
  milena bench run S2r S4 --json all.json                scenarios that come with milena (see: bench scenarios)
  milena bench run my.toml --only nightly --duration 1m  scenarios of a file, one option overridden
  milena bench plot all.json e2e.json > report.html      percentiles and throughput, side by side
  milena bench compare --kafka /opt/kafka S2r S4         this milena beside Apache Kafka: cost, speed, spread
  milena bench validate                                  what the generator itself costs";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct BenchArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Measure how fast records are taken, and how long their acknowledgements take.
    Produce(QuickArgs),
    /// Measure how fast stored records are read.
    Consume(QuickArgs),
    /// Measure how long records take from a producer to a consumer.
    E2e(QuickArgs),
    /// Measure how long records take while other consumers read older ones.
    Mixed(QuickArgs),
    /// Run scenarios: those that come with milena, by name, and those of TOML files.
    Run(RunArgs),
    /// Draw results as one HTML page.
    Plot(plot::PlotArgs),
    /// Measure brokers side by side: what they cost, how fast they are, whether that is a difference.
    Compare(Box<compare::CompareArgs>),
    /// Show the scenarios that come with milena.
    Scenarios(ScenariosArgs),
    /// Serve and keep nothing, to see what the generator itself costs.
    NullServer(null_server::NullServerArgs),
    /// Measure what the generator itself costs, before a null server, beside what a broker costs.
    Validate(Box<validate::ValidateArgs>),
}

/// Where results go.
#[derive(Clone, Debug, Args)]
struct Output {
    /// Write the results as JSON into this file; - is standard output, in place of the text.
    #[arg(long, value_name = "file", help_heading = "Output")]
    json: Option<PathBuf>,
    /// Write the latencies as HdrHistogram's percentile files (.hgrm) into this directory.
    #[arg(long, value_name = "directory", help_heading = "Output")]
    hgrm: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct QuickArgs {
    #[command(flatten)]
    target: BootstrapArgs,
    #[command(flatten)]
    load: Load,
    #[command(flatten)]
    output: Output,
}

#[derive(Debug, Args)]
struct RunArgs {
    /// Scenarios: a name (see: bench scenarios) or a TOML file.
    #[arg(required = true, value_name = "scenario")]
    scenarios: Vec<String>,
    /// Of the files, only scenarios of this name; may be given several times.
    #[arg(long, value_name = "name")]
    only: Vec<String>,
    #[command(flatten)]
    target: BootstrapArgs,
    #[command(flatten)]
    over: Load,
    #[command(flatten)]
    output: Output,
}

#[derive(Debug, Args)]
struct ScenariosArgs {
    /// Print the file with this scenario, to begin one's own with.
    #[arg(value_name = "name")]
    name: Option<String>,
}

/// `milena bench`.
pub(crate) fn run(arguments: &BenchArgs) -> Exit {
    let done = match &arguments.command {
        Command::Produce(quick) => run_quick(Workload::Produce, quick),
        Command::Consume(quick) => run_quick(Workload::Consume, quick),
        Command::E2e(quick) => run_quick(Workload::E2e, quick),
        Command::Mixed(quick) => run_quick(Workload::Mixed, quick),
        Command::Run(arguments) => run_named(arguments),
        Command::Plot(arguments) => plot::run(arguments),
        Command::Compare(arguments) => compare::run(arguments),
        Command::Scenarios(arguments) => list(arguments),
        Command::Validate(arguments) => validate::run(arguments),
        Command::NullServer(arguments) => return null_server::run(arguments),
    };
    match done {
        Ok(()) => Exit::Success,
        Err(error) => {
            complain(&error);
            error.exit()
        }
    }
}

fn run_quick(workload: Workload, arguments: &QuickArgs) -> Result<(), BenchError> {
    let name = clap::ValueEnum::to_possible_value(&workload);
    let name = name.map_or_else(String::new, |value| value.get_name().to_owned());
    let scenario = Scenario::new(name, String::new(), workload, arguments.load.clone());
    let scenario = scenario.map_err(BenchError::Usage)?;
    measure(&[scenario], &arguments.target, &arguments.output)
}

fn run_named(arguments: &RunArgs) -> Result<(), BenchError> {
    let scenarios = shipped::named(&arguments.scenarios, &arguments.only).map_err(BenchError::Usage)?;
    let scenarios = overridden(scenarios, &arguments.over)?;
    measure(&scenarios, &arguments.target, &arguments.output)
}

/// The scenarios with what the command line says in place of their own options.
fn overridden(scenarios: Vec<Scenario>, over: &Load) -> Result<Vec<Scenario>, BenchError> {
    let change = |scenario: Scenario| {
        let load = scenario.load.overridden_by(over);
        let name = scenario.name.clone();
        let changed = Scenario::new(scenario.name, scenario.about, scenario.workload, load);
        changed.map_err(|error| BenchError::Usage(format!("{name}: {error}")))
    };
    scenarios.into_iter().map(change).collect()
}

fn list(arguments: &ScenariosArgs) -> Result<(), BenchError> {
    match &arguments.name {
        Some(name) => print(shipped::file_with(name).map_err(BenchError::Usage)?),
        None => {
            let scenarios = shipped::all().map_err(BenchError::Usage)?;
            let line = |scenario: Scenario| format!("{:<10} {}\n", scenario.name, scenario.about);
            print(&scenarios.into_iter().map(line).collect::<String>())
        }
    }
}

/// Runs scenarios one after the other; each is told as soon as it is done.
fn measure(scenarios: &[Scenario], target: &BootstrapArgs, output: &Output) -> Result<(), BenchError> {
    let bootstrap = target.addresses().map_err(BenchError::Usage)?;
    let interrupt = Interrupt::listen().map_err(BenchError::system("signals"))?;
    let to_stdout = output.json.as_deref().is_some_and(|path| path.as_os_str() == "-");
    let document = output.json.as_deref().map(Document::open).transpose()?;
    if let Some(directory) = &output.hgrm {
        std::fs::create_dir_all(directory).map_err(BenchError::system(directory.display().to_string()))?;
    }
    let mut runs = Vec::new();
    let mut failed = None;
    for scenario in scenarios {
        let outcome = load::run(scenario, &bootstrap, &interrupt, &mut Progress::new());
        let told = outcome.and_then(|outcome| {
            runs.push(Run::of(scenario, bootstrap[0].to_string(), &outcome));
            let run = &runs[runs.len() - 1];
            match (to_stdout, run.schedule_not_kept()) {
                (false, _) => print(&run.to_string())?,
                (true, Some(schedule)) => complain(format_args!("{}: {schedule}", run.name)),
                (true, None) => {}
            }
            if let Some(directory) = &output.hgrm {
                hgrm::write_histograms(directory, &scenario.name, &outcome)?;
            }
            match outcome.measured.interrupted {
                true => Err(BenchError::Interrupted),
                false => Ok(()),
            }
        });
        // What is measured already is not lost.
        if let Err(error) = told {
            failed = Some(error);
            break;
        }
    }
    if let Some(document) = document.filter(|_| !runs.is_empty()) {
        document.write(&Results::new(runs))?;
    }
    failed.map_or(Ok(()), Err)
}

/// Where results go as JSON: a file, or standard output for `-`. It is opened before anything is measured, so that nothing
/// is measured in vain.
struct Document {
    path: PathBuf,
    file: Option<File>,
}

impl Document {
    /// Leaves what an existing file holds.
    fn open(path: &Path) -> Result<Document, BenchError> {
        let file = match path.as_os_str() == "-" {
            true => None,
            false => {
                let opened = File::options()
                    .write(true)
                    .create(true)
                    .truncate(false)
                    .open(path);
                Some(opened.map_err(|error| BenchError::Usage(format!("{}: {error}", path.display())))?)
            }
        };
        let path = path.to_owned();
        Ok(Document { path, file })
    }

    /// In place of what the file held. What cannot be written goes to standard output.
    fn write(self, document: &impl serde::Serialize) -> Result<(), BenchError> {
        let text =
            serde_json::to_string_pretty(document).map_err(|error| BenchError::Broker(error.to_string()))?;
        let text = text + "\n";
        let Some(mut file) = self.file else {
            return print(&text);
        };
        // A device has no length to be set.
        let is_file = file.metadata().is_ok_and(|metadata| metadata.is_file());
        let emptied = if is_file { file.set_len(0) } else { Ok(()) };
        let written = emptied.and_then(|()| file.write_all(text.as_bytes()));
        if written.is_err() {
            print(&text)?;
        }
        written.map_err(BenchError::system(self.path.display().to_string()))
    }
}

fn print(text: &str) -> Result<(), BenchError> {
    let mut out = std::io::stdout().lock();
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    written.map_err(BenchError::system("standard output"))
}
