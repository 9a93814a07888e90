//! Milena's decoders against Apache Kafka's own classes, on the same bytes.
//!
//! ```text
//! differential [--cases N] [--seed S] [--from NUMBER] [--show] -- JUDGE...
//! ```
//!
//! JUDGE is the command of `Judge.java`, which answers each case with the fields that Kafka's classes read of it, or
//! with what refused it. Both texts must be the same, or differ as [`deviations`] says. Ends with a table; an
//! unexplained difference is shown with seed and number, and makes the exit code 1. `--show` prints every case.
//! Started by the scenario `differential` of the client suite.

mod cases;
mod deviations;
#[path = "../../../server/tests/protocol_oracle/generator.rs"]
mod generator;
mod judge;
mod ours;
mod printed;

use std::collections::BTreeMap;
use std::process::ExitCode;

use cases::{Case, Cases, Kind};
use deviations::{DEVIATIONS, Difference};
use judge::Judge;

/// So many unexplained differences are shown.
const SHOWN_MAX: usize = 20;

struct Options {
    cases: u64,
    seed: u64,
    from: u64,
    show: bool,
    judge: Vec<String>,
}

fn options() -> Result<Options, String> {
    let mut options = Options {
        cases: 5000,
        seed: 1,
        from: 0,
        show: false,
        judge: Vec::new(),
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let target = match word.as_str() {
            "--cases" => &mut options.cases,
            "--seed" => &mut options.seed,
            "--from" => &mut options.from,
            "--show" => {
                options.show = true;
                continue;
            }
            "--" => {
                options.judge = words.collect();
                break;
            }
            other => {
                return Err(format!(
                    "found {other}, expected --cases, --seed, --from, --show or --"
                ));
            }
        };
        let number = words.next().and_then(|number| number.parse().ok());
        *target = number.ok_or(format!("{word}: expected a number"))?;
    }
    if options.judge.is_empty() {
        return Err("expected the judge's command behind --".to_owned());
    }
    Ok(options)
}

#[derive(Default)]
struct Counts {
    accepted: u64,
    refused: u64,
    explained: u64,
}

#[derive(Default)]
struct Report {
    by_kind: BTreeMap<Kind, Counts>,
    by_deviation: BTreeMap<&'static str, u64>,
    faults: Vec<String>,
    fault_count: u64,
}

impl Report {
    fn take(&mut self, place: &str, case: &Case, kafkas: &str) {
        let ours = ours::text(case);
        let counts = self.by_kind.entry(case.kind).or_default();
        match explanation(case, &ours, kafkas) {
            Outcome::Same if ours.contains('!') => counts.refused += 1,
            Outcome::Same => counts.accepted += 1,
            Outcome::Explained(names) => {
                counts.explained += 1;
                for name in names {
                    *self.by_deviation.entry(name).or_default() += 1;
                }
            }
            Outcome::Fault(ours, kafkas) => {
                self.fault_count += 1;
                if self.faults.len() < SHOWN_MAX {
                    let bytes = &case.bytes;
                    let kind = case.kind;
                    self.faults.push(format!(
                        "{place}, {kind:?}:\n  Milena: {ours}\n  Kafka:  {kafkas}\n  bytes:  {bytes:02x?}"
                    ));
                }
            }
        }
    }

    fn print(&self, cases: u64, seconds: u64) {
        println!("{cases} cases in {seconds} s");
        for (kind, counts) in &self.by_kind {
            let Counts {
                accepted,
                refused,
                explained,
            } = counts;
            let kind = format!("{kind:?}");
            println!(
                "{kind:16} {accepted:9} read alike {refused:9} refused alike {explained:9} differ for a reason"
            );
        }
        for deviation in DEVIATIONS {
            let count = self.by_deviation.get(deviation.name).copied().unwrap_or_default();
            println!("{count:9} {}: {}", deviation.name, deviation.reason);
        }
        for fault in &self.faults {
            println!("unexplained: {fault}");
        }
        println!("{} unexplained", self.fault_count);
    }
}

enum Outcome {
    Same,
    Explained(Vec<&'static str>),
    Fault(String, String),
}

/// A refusal as far as it is compared: the step that refuses. A request is refused by closing the connection, whether
/// its header or its body is wrong.
fn compared(case: &Case, text: &str) -> String {
    match text.split_once('!') {
        Some((_, refusal)) if case.kind == Kind::Request && !refusal.starts_with("meaning") => "!".to_owned(),
        Some((before, refusal)) => {
            let step = refusal.split(' ').next().unwrap_or_default();
            format!("{before}!{step}")
        }
        None => text.to_owned(),
    }
}

/// Compares piece by piece: the lines of batches, or all of it.
fn explanation(case: &Case, ours: &str, kafkas: &str) -> Outcome {
    let mut names = Vec::new();
    let (mut mine, mut others) = (ours.lines(), kafkas.lines());
    loop {
        let (ours, kafkas) = (mine.next(), others.next());
        if ours.is_none() && kafkas.is_none() {
            break;
        }
        let (ours, kafkas) = (ours.unwrap_or_default(), kafkas.unwrap_or_default());
        if compared(case, ours) == compared(case, kafkas) {
            continue;
        }
        let difference = Difference { ours, kafkas };
        match DEVIATIONS
            .iter()
            .find(|deviation| (deviation.is_it)(case, &difference))
        {
            Some(deviation) => names.push(deviation.name),
            None => return Outcome::Fault(ours.to_owned(), kafkas.to_owned()),
        }
        // what Milena does not read on behind is not compared either
        if ours.contains("!batch") {
            break;
        }
    }
    if names.is_empty() {
        Outcome::Same
    } else {
        Outcome::Explained(names)
    }
}

fn run(options: &Options) -> std::io::Result<Report> {
    let cases = Cases::new(options.seed)?;
    let mut report = Report::default();
    let mut judge = Judge::start(&options.judge)?;
    for deviation in DEVIATIONS {
        let case = (deviation.example)();
        let kafkas = judge.ask(&case)?;
        let ours = ours::text(&case);
        let shown = matches!(explanation(&case, &ours, &kafkas), Outcome::Explained(names) if names.contains(&deviation.name));
        if !shown {
            report.fault_count += 1;
            report.faults.push(format!(
                "no such difference: {}\n  Milena: {ours}\n  Kafka:  {kafkas}",
                deviation.name
            ));
        }
    }
    judge.ask_all(
        (options.from..options.from + options.cases).map(|number| (number, cases.case(number))),
        |number, case, kafkas| {
            if options.show {
                println!("{number} {:?}\n  {}\n  {kafkas}", case.kind, ours::text(case));
            }
            report.take(&format!("seed {} case {number}", options.seed), case, kafkas);
        },
    )?;
    Ok(report)
}

fn main() -> ExitCode {
    let options = match options() {
        Ok(options) => options,
        Err(error) => {
            eprintln!("differential: {error}");
            return ExitCode::from(2);
        }
    };
    let began = std::time::Instant::now();
    match run(&options) {
        Ok(report) => {
            report.print(options.cases, began.elapsed().as_secs());
            ExitCode::from(u8::from(report.fault_count > 0))
        }
        Err(error) => {
            eprintln!("differential: the judge: {error}");
            ExitCode::from(2)
        }
    }
}
