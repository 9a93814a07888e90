//! What a comparison found: every round, and of each metric what the rounds say together.

use std::fmt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::bench::accounting::Usage;
use crate::bench::machine::Machine;
use crate::bench::quantity::brief;
use crate::bench::results::{INTERRUPTED, Run, Throughput};
use crate::bench::verdict::{Better, Comparison, Spread, Verdict, compare, spread};

/// The form of the document.
pub(crate) const SCHEMA: &str = "milena-bench-compare/1";

/// A comparison's file.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ComparisonDocument {
    pub(crate) schema: String,
    pub(crate) milena: String,
    pub(crate) started: String,
    pub(crate) machine: Machine,
    /// The first is held against each of the others.
    pub(crate) subjects: Vec<String>,
    /// How CPU was counted.
    pub(crate) accounting: String,
    /// A signal ended it before its time: some rounds are missing.
    #[serde(default)]
    pub(crate) interrupted: bool,
    pub(crate) rounds: Vec<Round>,
    pub(crate) rows: Vec<Row>,
}

/// One scenario, once, against one subject.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Round {
    pub(crate) scenario: String,
    pub(crate) subject: String,
    /// From 1.
    pub(crate) number: u32,
    /// What the broker used while it was measured; memory: the most that was seen.
    pub(crate) broker: Usage,
    pub(crate) run: Run,
}

/// One metric of one scenario.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Row {
    pub(crate) scenario: String,
    pub(crate) metric: String,
    /// Which way is good; absent where none is.
    pub(crate) better: Option<Better>,
    /// By subject, in their order.
    pub(crate) spreads: Vec<Spread>,
    /// The first against each of the others.
    pub(crate) comparisons: Vec<Option<Comparison>>,
}

/// A metric: its name, which way is good, and what a round says.
type Metric = (String, Option<Better>, f64);

impl Round {
    fn metrics(&self) -> Vec<Metric> {
        let lower = Some(Better::Lower);
        let run = &self.run;
        let mut metrics: Vec<Metric> = Vec::new();
        let parts = [run.produced, run.consumed];
        let sum =
            |of: fn(&Throughput) -> u64| -> f64 { parts.iter().flatten().map(|part| of(part) as f64).sum() };
        let (records, requests) = (sum(|part| part.records), sum(|part| part.requests));
        let gigabytes = sum(|part| part.value_bytes) / 1e9;
        let broker = &self.broker;
        let mut add = |name: &str, better, value: f64| metrics.push((name.to_owned(), better, value));
        add("CPU-s a GB", lower, broker.cpu.total_s() / gigabytes);
        add("  user", lower, broker.cpu.user_s / gigabytes);
        add("  system", lower, broker.cpu.system_s / gigabytes);
        add("CPU us a request", lower, broker.cpu.total_s() / requests * 1e6);
        add("CPU us a record", lower, broker.cpu.total_s() / records * 1e6);
        let thousand = records / 1000.0;
        add(
            "voluntary switches a 1000 records",
            lower,
            broker.voluntary_switches as f64 / thousand,
        );
        add(
            "involuntary switches a 1000 records",
            lower,
            broker.involuntary_switches as f64 / thousand,
        );
        add("memory, MB", lower, broker.rss_bytes as f64 / 1e6);
        add(
            "bytes written a byte",
            lower,
            broker.written_bytes as f64 / 1e9 / gigabytes,
        );
        // At a fixed rate throughput is the rate, if that is kept.
        if let Some(schedule) = run.schedule {
            add("behind the schedule, s", lower, schedule.behind_s);
            add("records never sent", lower, schedule.unsent_records as f64);
        } else {
            for (name, part) in [("produced MB/s", run.produced), ("consumed MB/s", run.consumed)] {
                if let Some(part) = part {
                    add(name, Some(Better::Higher), part.mb_per_s);
                }
            }
        }
        for (kind, latency) in run
            .latencies()
            .filter(|(kind, _)| *kind != "fetch" || run.produced.is_none())
        {
            for (quantile, microseconds) in [
                ("p50", latency.p50),
                ("p99", latency.p99),
                ("p99.9", latency.p99_9),
                ("max", latency.max),
            ] {
                add(&format!("{kind} {quantile}, ms"), lower, microseconds / 1e3);
            }
        }
        add(
            "generator CPU-s a GB",
            None,
            run.generator.cpu.total_s() / gigabytes,
        );
        metrics.retain(|(_, _, value)| value.is_finite());
        metrics
    }
}

/// Puts rounds together: one row for each metric of each scenario that all subjects have.
pub(crate) fn rows(rounds: &[Round], subjects: &[String]) -> Vec<Row> {
    let mut names: Vec<(String, String, Option<Better>)> = Vec::new();
    for round in rounds {
        for (metric, better, _) in round.metrics() {
            let name = (round.scenario.clone(), metric, better);
            if !names.contains(&name) {
                names.push(name);
            }
        }
    }
    let values = |scenario: &str, metric: &str, subject: &str| -> Vec<f64> {
        let own = rounds
            .iter()
            .filter(|round| round.scenario == scenario && round.subject == subject);
        let all = own.flat_map(Round::metrics).filter(|(name, _, _)| name == metric);
        all.map(|(_, _, value)| value).collect()
    };
    let row = |(scenario, metric, better): (String, String, Option<Better>)| {
        let all: Vec<Vec<f64>> = subjects
            .iter()
            .map(|subject| values(&scenario, &metric, subject))
            .collect();
        let spreads: Vec<Spread> = all.iter().filter_map(|values| spread(values)).collect();
        if spreads.len() < subjects.len() {
            return None;
        }
        let against = |other: &Vec<f64>| better.and_then(|better| compare(&all[0], other, better));
        let comparisons = all.iter().skip(1).map(against).collect();
        Some(Row {
            scenario,
            metric,
            better,
            spreads,
            comparisons,
        })
    };
    names.into_iter().filter_map(row).collect()
}

impl ComparisonDocument {
    /// A comparison's file.
    ///
    /// # Errors
    /// Says what is wrong with it.
    pub(crate) fn read(path: &Path) -> Result<ComparisonDocument, String> {
        let text = std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
        let document: ComparisonDocument =
            serde_json::from_slice(&text).map_err(|error| format!("{}: {error}", path.display()))?;
        match document.schema == SCHEMA {
            true => Ok(document),
            false => Err(format!(
                "{}: found the schema {:?}",
                path.display(),
                document.schema
            )),
        }
    }

    /// A row in words: each subject's rounds, then the first against each of the others.
    pub(crate) fn cells(&self, row: &Row) -> (Vec<String>, Vec<String>) {
        let told = |spread: &Spread| {
            let [median, min, max] = [spread.median, spread.min, spread.max].map(brief);
            format!("{median} ({min} to {max})")
        };
        let against = row.comparisons.iter().zip(&self.subjects[1..]);
        let verdicts = against.map(|(found, other)| {
            let Some(found) = found else {
                return String::new();
            };
            let word = match found.verdict {
                Verdict::FirstBetter => format!("{} better", self.subjects[0]),
                Verdict::SecondBetter => format!("{other} better"),
                Verdict::WithinSpread => "within the spread".to_owned(),
                Verdict::TooFewRounds => "too few rounds".to_owned(),
            };
            let [ratio, low, high] = [found.ratio, found.low, found.high].map(brief);
            format!("{ratio} ({low} to {high}) {word}")
        });
        (row.spreads.iter().map(told).collect(), verdicts.collect())
    }
}

/// The table for people.
impl fmt::Display for ComparisonDocument {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}; broker CPU by {}", self.machine, self.accounting)?;
        writeln!(
            f,
            "median (smallest to largest round); ratio: {} to the other (95 % of drawn rounds)",
            self.subjects[0]
        )?;
        if self.interrupted {
            writeln!(f, "{INTERRUPTED}")?;
        }
        let mut scenario = "";
        for row in &self.rows {
            if row.scenario != scenario {
                scenario = &row.scenario;
                let about = self.rounds.iter().filter(|round| round.scenario == *scenario);
                let about = about
                    .map(|round| round.run.about.as_str())
                    .find(|about| !about.is_empty());
                write!(f, "\n{scenario}")?;
                writeln!(
                    f,
                    "{}",
                    about.map_or_else(String::new, |about| format!(": {about}"))
                )?;
                write!(f, "  {:<36}", "")?;
                for subject in &self.subjects {
                    write!(f, " {subject:<28}")?;
                }
                writeln!(f, " ratio")?;
            }
            let (spreads, verdicts) = self.cells(row);
            write!(f, "  {:<36}", row.metric)?;
            for spread in spreads {
                write!(f, " {spread:<28}")?;
            }
            writeln!(f, " {}", verdicts.join(" | ").trim_end())?;
        }
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::bench::accounting::Cpu;
    use crate::bench::results::tests::sample;

    fn round(subject: &str, number: u32, user_s: f64) -> Round {
        Round {
            scenario: "one".to_owned(),
            subject: subject.to_owned(),
            number,
            broker: Usage {
                cpu: Cpu {
                    user_s,
                    system_s: user_s,
                },
                voluntary_switches: 501,
                rss_bytes: 10_000_000,
                written_bytes: 10_240_000,
                ..Usage::default()
            },
            run: sample("one", 1),
        }
    }

    fn document(rounds: Vec<Round>) -> ComparisonDocument {
        let subjects = vec!["ours".to_owned(), "theirs".to_owned()];
        ComparisonDocument {
            schema: SCHEMA.to_owned(),
            milena: String::new(),
            started: String::new(),
            machine: Machine::default(),
            accounting: "/proc".to_owned(),
            interrupted: false,
            rows: rows(&rounds, &subjects),
            subjects,
            rounds,
        }
    }

    /// Of the scenario `one`.
    pub(crate) fn comparison() -> ComparisonDocument {
        let rounds = [(1, 0.01, 0.02), (2, 0.011, 0.03), (3, 0.012, 0.025)];
        let both = |(number, a, b)| [round("ours", number, a), round("theirs", number, b)];
        document(rounds.into_iter().flat_map(both).collect())
    }

    #[test]
    fn rounds_become_rows_with_ratios_and_verdicts() {
        let document = comparison();
        let row = |metric: &str| document.rows.iter().find(|row| row.metric == metric).unwrap();
        // 5,120,000 bytes are produced and as many consumed: 0.01024 GB.
        let cpu = row("CPU-s a GB");
        assert!((cpu.spreads[0].median - 0.022 / 0.01024).abs() < 1e-9);
        assert_eq!(cpu.comparisons[0].unwrap().verdict, Verdict::FirstBetter);
        assert_eq!(
            row("memory, MB").comparisons[0].unwrap().verdict,
            Verdict::WithinSpread
        );
        assert!((row("bytes written a byte").spreads[0].median - 1.0).abs() < 1e-9);
        assert!((row("voluntary switches a 1000 records").spreads[0].median - 50.0).abs() < 0.1);
        assert_eq!(row("generator CPU-s a GB").comparisons, [None]);
        let text = document.to_string();
        assert!(
            text.contains("ours better") && text.contains("within the spread"),
            "{text}"
        );
        assert!(!text.contains("theirs better"), "{text}");
    }

    #[test]
    fn a_metric_that_one_subject_lacks_makes_no_row() {
        let mut only = round("theirs", 1, 0.02);
        only.run.end_to_end_latency = None;
        let document = document(vec![round("ours", 1, 0.01), only]);
        assert!(
            document
                .rows
                .iter()
                .all(|row| !row.metric.starts_with("end to end"))
        );
        let cpu = document
            .rows
            .iter()
            .find(|row| row.metric == "CPU-s a GB")
            .unwrap();
        assert_eq!(cpu.comparisons[0].unwrap().verdict, Verdict::TooFewRounds);
    }
}
