//! `milena start`: settings, the broker's own log, then the broker.
//!
//! Everything wrong with the settings is told on standard error before anything is opened. The broker itself,
//! its life and its signals are `milena_server::broker`'s.

use std::path::Path;

use milena_server::adoption::Import;
use milena_server::broker::{Ending, RunningBroker};
use milena_server::config::{BrokerConfig, Warning};
use milena_server::logging;

use crate::{BrokerArgs, Exit, StartArgs};

/// The name of the logger, as Kafka's.
const LOGGER: &str = "kafka.server.KafkaServer";

/// Runs a broker until it is told to stop.
pub(crate) fn run(arguments: &StartArgs) -> Exit {
    let (config, warnings) = match load(&arguments.broker) {
        Ok(loaded) => loaded,
        Err(exit) => return exit,
    };
    let import = match arguments.import.as_deref().map(read_import).transpose() {
        Ok(import) => import,
        Err(message) => {
            eprintln!("milena: --import: {message}");
            return Exit::Usage;
        }
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
    let exit = serve(config, import);
    drop(log);
    exit
}

/// The settings, or every problem with them on standard error.
pub(crate) fn load(arguments: &BrokerArgs) -> Result<(BrokerConfig, Vec<Warning>), Exit> {
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

/// What `--import` gives; whatever is wrong with the file is told before anything is opened.
fn read_import(path: &Path) -> Result<Import, String> {
    let content = std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
    Import::parse(path, &content).map_err(|error| error.to_string())
}

fn serve(config: BrokerConfig, import: Option<Import>) -> Exit {
    let mut broker = match RunningBroker::start_importing(config, import) {
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
