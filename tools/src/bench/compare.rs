//! `milena bench compare`: brokers side by side, under the same load in the same minutes.
//!
//! All subjects run from the beginning, on empty directories, and are loaded in turn: A B, B A, A B, so that what drifts
//! on the machine drifts for all. Before the rounds of a scenario each gets it once or more unmeasured, for the sake of
//! those that compile while they run. What was written is read back after every round; a subject that lost or changed a
//! record ends the comparison.

pub(super) mod document;
mod kafka;
mod subject;

use std::path::{Path, PathBuf};

use super::Document;
use super::accounting::Usage;
use super::error::BenchError;
use super::interrupt::Interrupt;
use super::load::{self, Outcome};
use super::progress::Progress;
use super::results::{Results, Run};
use super::scenario::{Load, Scenario};
use super::shipped;
use super::threads::{Observer, Second};
use clap::Args;
use document::{ComparisonDocument, Round, SCHEMA, rows};
use subject::{Subject, SubjectPlan};

const EXAMPLES: &str = "\
Examples:
  milena bench compare                                 this milena and Apache Kafka 2.7.2 (by Maven), S2r
  milena bench compare --kafka /opt/kafka S2r S4 S7-10k --rounds 5 --json result.json
  milena bench compare --subject milena --subject 'old=/usr/bin/milena start {properties}' S4 --duration 5s
  milena bench plot result.json -o result.html         what it found, as a page";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct CompareArgs {
    /// Scenarios: names (see: bench scenarios) or TOML files [default: S2r].
    #[arg(value_name = "scenario")]
    scenarios: Vec<String>,
    /// Of the files, only scenarios of this name; may be given several times.
    #[arg(long, value_name = "name")]
    only: Vec<String>,
    /// milena (this program), kafka, or name=command; in the command {properties}, {port}, {data}, {id} and {zookeeper}
    /// are filled in. May be given several times [default: milena and kafka].
    #[arg(long, value_name = "subject")]
    subject: Vec<String>,
    /// A distribution of Apache Kafka, or a directory with its jars; without it Maven resolves 2.7.2.
    #[arg(long, value_name = "directory")]
    kafka: Option<PathBuf>,
    /// How often each subject is measured.
    #[arg(long, value_name = "count", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// How often each subject gets the load unmeasured before.
    #[arg(long, value_name = "count", default_value_t = 1)]
    warm_up_rounds: u32,
    /// Do not read back what was written.
    #[arg(long)]
    no_check: bool,
    /// The first of the ports to listen on, two for each subject; 0: any that are free.
    #[arg(long, value_name = "port", default_value_t = 0)]
    port: u16,
    /// Where the brokers keep their data while they are compared [default: the system's directory for such].
    #[arg(long, value_name = "directory")]
    work_dir: Option<PathBuf>,
    /// Write everything that was measured as JSON into this file; - is standard output, in place of the table.
    #[arg(long, value_name = "file")]
    json: Option<PathBuf>,
    #[command(flatten)]
    over: Load,
}

/// A directory that goes when it is dropped.
struct WorkDirectory(PathBuf);

impl WorkDirectory {
    fn make(parent: Option<&Path>) -> Result<WorkDirectory, BenchError> {
        let parent = parent.map_or_else(std::env::temp_dir, Path::to_owned);
        let path = parent.join(format!("milena-bench-{}", std::process::id()));
        std::fs::create_dir_all(&path).map_err(BenchError::system(path.display().to_string()))?;
        let path = std::path::absolute(&path).map_err(BenchError::system("the work directory"))?;
        Ok(WorkDirectory(path))
    }
}

impl Drop for WorkDirectory {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            crate::complain(format_args!("{} stays: {error}", self.0.display()));
        }
    }
}

/// Runs the comparison and prints its table.
///
/// # Errors
/// Whatever keeps it from its end; records that were lost or changed.
pub(crate) fn run(arguments: &CompareArgs) -> Result<(), BenchError> {
    let words = match arguments.scenarios.is_empty() {
        true => vec!["S2r".to_owned()],
        false => arguments.scenarios.clone(),
    };
    let scenarios = shipped::named(&words, &arguments.only).map_err(BenchError::Usage)?;
    let mut scenarios = super::overridden(scenarios, &arguments.over)?;
    for scenario in &mut scenarios {
        scenario.check = !arguments.no_check;
    }
    let mut words = arguments.subject.clone();
    if words.is_empty() {
        words = vec!["milena".to_owned(), "kafka".to_owned()];
    }
    let json = arguments.json.as_deref().map(Document::open).transpose()?;
    let (kafka, work) = (arguments.kafka.as_deref(), arguments.work_dir.as_deref());
    let mut subjects = Subjects::prepare(&words, kafka, arguments.port, work)?;
    let document = subjects.measure(
        &scenarios,
        &Measurer {
            rounds: arguments.rounds,
            warm_up_rounds: arguments.warm_up_rounds,
        },
    )?;
    drop(subjects);
    if let Some(json) = json {
        json.write(&document)?;
    }
    if arguments
        .json
        .as_deref()
        .is_none_or(|path| path.as_os_str() != "-")
    {
        super::print(&document.to_string())?;
    }
    match document.interrupted {
        true => Err(BenchError::Interrupted),
        false => Ok(()),
    }
}

/// How often.
#[derive(Clone, Copy, Debug)]
pub(super) struct Measurer {
    pub(super) rounds: u32,
    pub(super) warm_up_rounds: u32,
}

/// The brokers. Fields are dropped in order: they end before their directories go.
pub(super) struct Subjects {
    all: Vec<Subject>,
    interrupt: Interrupt,
    _work: WorkDirectory,
}

impl Subjects {
    /// Prepares them, on empty directories; none is started yet.
    ///
    /// # Errors
    /// Words that are no subjects, or fewer than two.
    pub(super) fn prepare(
        words: &[String],
        kafka: Option<&Path>,
        port: u16,
        work: Option<&Path>,
    ) -> Result<Subjects, BenchError> {
        let plans = words.iter().map(|word| SubjectPlan::parse(word, kafka));
        let plans = plans.collect::<Result<Vec<_>, _>>()?;
        let mut names: Vec<&str> = plans.iter().map(|plan| plan.name.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        if names.len() < plans.len() || plans.len() < 2 {
            return Err(BenchError::Usage(
                "--subject: expected at least two, of different names".to_owned(),
            ));
        }
        let interrupt = Interrupt::listen().map_err(BenchError::system("signals"))?;
        let work = WorkDirectory::make(work)?;
        let mut all = Vec::new();
        for (number, plan) in (0..).zip(plans) {
            let port = if port == 0 { 0 } else { port + 2 * number };
            all.push(Subject::prepare(plan, &work.0, port)?);
        }
        Ok(Subjects {
            all,
            interrupt,
            _work: work,
        })
    }

    /// Starts all and runs all rounds of all scenarios, as far as it comes before a signal.
    ///
    /// # Errors
    /// The first that keeps a round from its end.
    pub(super) fn measure(
        &mut self,
        scenarios: &[Scenario],
        measurer: &Measurer,
    ) -> Result<ComparisonDocument, BenchError> {
        for subject in &mut self.all {
            subject.start(&self.interrupt)?;
        }
        let mut rounds = Vec::new();
        let interrupted = match self.rounds(scenarios, measurer, &mut rounds) {
            Ok(()) => false,
            Err(BenchError::Interrupted) if !rounds.is_empty() => true,
            Err(error) => return Err(error),
        };
        let names: Vec<String> = self.all.iter().map(|subject| subject.plan.name.clone()).collect();
        let accounting = self.all[0].processes()?.means().to_owned();
        let Results {
            milena,
            started,
            machine,
            ..
        } = Results::new(Vec::new());
        Ok(ComparisonDocument {
            schema: SCHEMA.to_owned(),
            milena,
            started,
            machine,
            accounting,
            interrupted,
            rows: rows(&rounds, &names),
            subjects: names,
            rounds,
        })
    }

    fn rounds(
        &mut self,
        scenarios: &[Scenario],
        measurer: &Measurer,
        rounds: &mut Vec<Round>,
    ) -> Result<(), BenchError> {
        for scenario in scenarios {
            for warm in 1..=measurer.warm_up_rounds {
                for at in order(warm, self.all.len()) {
                    one_round(scenario, &mut self.all[at], &self.interrupt)?;
                }
            }
            for number in 1..=measurer.rounds {
                for at in order(number, self.all.len()) {
                    let subject = &mut self.all[at];
                    let (outcome, broker) = one_round(scenario, subject, &self.interrupt)?;
                    let target = subject.address().to_string();
                    rounds.push(Round {
                        scenario: scenario.name.clone(),
                        subject: subject.plan.name.clone(),
                        number,
                        broker,
                        run: Run::of(scenario, target, &outcome),
                    });
                }
            }
        }
        Ok(())
    }
}

/// The order of a round: there and back again.
fn order(round: u32, subjects: usize) -> Vec<usize> {
    match round % 2 {
        1 => (0..subjects).collect(),
        _ => (0..subjects).rev().collect(),
    }
}

/// Accounts the broker while it is measured, and shows how it goes.
struct Accountant<'s> {
    subject: &'s mut Subject,
    progress: Progress,
    before: Usage,
    used: Usage,
    rss_bytes: u64,
}

impl Observer for Accountant<'_> {
    fn begins(&mut self) -> Result<(), BenchError> {
        self.before = self.subject.processes()?.usage();
        Ok(())
    }

    fn second(&mut self, scenario: &Scenario, second: &Second) {
        self.progress.second(scenario, second);
        // A broker that is gone is noticed at the end.
        if let Ok(tree) = self.subject.processes() {
            self.rss_bytes = self.rss_bytes.max(tree.usage().rss_bytes);
        }
    }

    fn ends(&mut self) -> Result<(), BenchError> {
        let after = self.subject.processes()?.usage();
        self.used = after.since(&self.before);
        self.used.rss_bytes = self.used.rss_bytes.max(self.rss_bytes);
        Ok(())
    }
}

fn one_round(
    scenario: &Scenario,
    subject: &mut Subject,
    interrupt: &Interrupt,
) -> Result<(Outcome, Usage), BenchError> {
    // What the last round left to be written is not this one's.
    rustix::fs::sync();
    let bootstrap = [subject.address()];
    let name = subject.plan.name.clone();
    let mut accountant = Accountant {
        subject,
        progress: Progress::new(),
        before: Usage::default(),
        used: Usage::default(),
        rss_bytes: 0,
    };
    let outcome = load::run(scenario, &bootstrap, interrupt, &mut accountant);
    let used = accountant.used;
    drop(accountant);
    match outcome {
        Ok(outcome) if outcome.measured.interrupted => Err(BenchError::Interrupted),
        Ok(outcome) => Ok((outcome, used)),
        Err(BenchError::Interrupted) => Err(BenchError::Interrupted),
        Err(error) => {
            // The broker's end is a better reason than what its clients saw of it.
            subject.processes()?;
            Err(BenchError::Broker(format!("{name}: {}: {error}", scenario.name)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_go_there_and_back() {
        let orders: Vec<Vec<usize>> = (1..=4).map(|round| order(round, 3)).collect();
        assert_eq!(orders, [[0, 1, 2], [2, 1, 0], [0, 1, 2], [2, 1, 0]]);
    }
}
