//! `milena bench validate`: what the generator costs beside what a broker costs, of the same load.
//!
//! A generator that costs as much as what it measures measures itself. So each scenario is run before the null server,
//! which shows the generator alone, and before a broker of this program; a record of the generator has to cost less than
//! one of the broker.

use std::path::PathBuf;

use clap::Args;

use super::compare::{Measurer, Subjects};
use super::error::BenchError;
use super::quantity::brief;
use super::scenario::{Load, Scenario};
use super::shipped;

#[derive(Debug, Args)]
pub(crate) struct ValidateArgs {
    /// Scenarios: names (see: bench scenarios) or TOML files [default: S2r S4 S6].
    #[arg(value_name = "scenario")]
    scenarios: Vec<String>,
    /// The broker to measure beside it: milena, kafka, or name=command as in compare.
    #[arg(long, value_name = "subject", default_value = "milena")]
    subject: String,
    /// As in compare.
    #[arg(long, value_name = "directory")]
    kafka: Option<PathBuf>,
    /// The first of the ports to listen on; 0: any that are free.
    #[arg(long, value_name = "port", default_value_t = 0)]
    port: u16,
    /// How often each is measured.
    #[arg(long, value_name = "count", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    #[command(flatten)]
    over: Load,
}

/// Prints the table.
///
/// # Errors
/// Whatever keeps it from its end; a generator that costs more than the broker.
pub(crate) fn run(arguments: &ValidateArgs) -> Result<(), BenchError> {
    let words = match arguments.scenarios.is_empty() {
        true => ["S2r", "S4", "S6"].map(str::to_owned).to_vec(),
        false => arguments.scenarios.clone(),
    };
    let scenarios = shipped::named(&words, &[]).map_err(BenchError::Usage)?;
    let mut scenarios: Vec<Scenario> = super::overridden(scenarios, &arguments.over)?;
    // What a null server keeps cannot be read back.
    scenarios.iter_mut().for_each(|scenario| scenario.check = false);
    let own = std::env::current_exe().map_err(BenchError::system("the path of this program"))?;
    let null = format!("null={} bench null-server --port {{port}}", own.display());
    let words = [null, arguments.subject.clone()];
    let mut subjects = Subjects::prepare(&words, arguments.kafka.as_deref(), arguments.port, None)?;
    let measurer = Measurer {
        rounds: arguments.rounds,
        warm_up_rounds: 1,
    };
    let document = subjects.measure(&scenarios, &measurer)?;
    if document.interrupted {
        return Err(BenchError::Interrupted);
    }
    let name = &document.subjects[1];
    let mut text = format!(
        "CPU of the generator before a server that keeps nothing, and of {name} under the same load (medians)\n  \
         {:<10} {:>24} {:>24} {:>12}\n",
        "",
        "generator, s a GB",
        &format!("{name}, s a GB"),
        "times"
    );
    let mut dear = Vec::new();
    for scenario in &scenarios {
        let median = |metric: &str, subject: usize| {
            let mut rows = document.rows.iter();
            let row = rows.find(|row| row.scenario == scenario.name && row.metric == metric);
            row.map_or(f64::NAN, |row| row.spreads[subject].median)
        };
        let (generator, broker) = (median("generator CPU-s a GB", 0), median("CPU-s a GB", 1));
        text += &format!(
            "  {:<10} {:>24} {:>24} {:>12}\n",
            scenario.name,
            brief(generator),
            brief(broker),
            brief(broker / generator)
        );
        if broker.is_nan() || generator >= broker {
            dear.push(scenario.name.as_str());
        }
    }
    super::print(&text)?;
    match dear.as_slice() {
        [] => Ok(()),
        dear => Err(BenchError::Broker(format!(
            "the generator costs as much as {name} in {}",
            dear.join(", ")
        ))),
    }
}
