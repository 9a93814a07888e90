//! `milena start` and `milena export-znodes`: settings, the broker's own log, then the broker.
//!
//! Everything wrong with the settings is told on standard error before anything is opened. The broker itself,
//! its life and its signals are `milena_server::broker`'s.

use milena_server::broker::{Ending, RunningBroker};
use milena_server::config::{BrokerConfig, Warning};
use milena_server::logging;

use crate::{BrokerArgs, Exit, ExportArgs, StartArgs};

/// The name of the logger, as Kafka's.
const LOGGER: &str = "kafka.server.KafkaServer";

/// Runs a broker until it is told to stop.
pub(crate) fn run(arguments: &StartArgs) -> Exit {
    let (config, warnings) = match load(&arguments.broker) {
        Ok(loaded) => loaded,
        Err(exit) => return exit,
    };
    let log = match logging::init(&config.log_output) {
        Ok(log) => log,
        Err(error) => {
            eprintln!("milena: {error}");
            return Exit::CannotStart;
        }
    };
    for warning in &warnings {
        match warning {
            Warning::NoEffect { .. } | Warning::NoEffectVariables { .. } => {
                tracing::info!(target: LOGGER, "{warning}")
            }
            _ => tracing::warn!(target: LOGGER, "{warning}"),
        }
    }
    let exit = serve(config);
    drop(log);
    exit
}

/// Writes the znodes of a stopped broker.
pub(crate) fn export_znodes(arguments: &ExportArgs) -> Exit {
    match load(&arguments.broker) {
        Ok((config, _)) => {
            let target = arguments
                .output
                .as_ref()
                .map_or("standard output".to_owned(), |path| path.display().to_string());
            eprintln!(
                "milena: this build cannot write the znodes of {} to {target} yet",
                config.log_dirs[0].display()
            );
            Exit::CannotStart
        }
        Err(exit) => exit,
    }
}

/// The settings, or every problem with them on standard error.
fn load(arguments: &BrokerArgs) -> Result<(BrokerConfig, Vec<Warning>), Exit> {
    // A variable that is not text cannot be one of ours.
    let environment = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    BrokerConfig::load(arguments.file.as_deref(), &arguments.overrides, environment).map_err(|error| {
        for problem in &error.problems {
            eprintln!("milena: {problem}");
        }
        Exit::Usage
    })
}

fn serve(config: BrokerConfig) -> Exit {
    let mut broker = match RunningBroker::start(config) {
        Ok(broker) => broker,
        Err(error) => {
            tracing::error!(target: LOGGER, "{error}");
            return Exit::CannotStart;
        }
    };
    tracing::info!(target: LOGGER, "{}", broker.ready_line());
    let ending = broker.wait();
    if let Ending::Failed(reason) = &ending {
        tracing::error!(target: LOGGER, "{reason}");
    }
    broker.stop();
    match ending {
        Ending::Signal => Exit::Success,
        Ending::Failed(_) => Exit::Failed,
    }
}
