//! `milena start`: settings, the broker's own log, then the broker.
//!
//! Everything wrong with the settings is told on standard error before anything is opened. The broker itself,
//! its life and its signals are `milena_server::broker`'s.

use std::path::Path;

use milena_server::adoption::Import;
use milena_server::broker::{Ending, RunningBroker, Signals};
use milena_server::config::{BrokerConfig, Warning};
use milena_server::logging;

use crate::{BrokerArgs, Exit, StartArgs, complain};

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
            complain(format_args!("--import: {message}"));
            return Exit::Usage;
        }
    };
    let signals = match Signals::listen() {
        Ok(signals) => signals,
        Err(error) => {
            complain(format_args!("signals cannot be received: {error}"));
            return Exit::NoBroker;
        }
    };
    let log = match logging::init(&config.log_output) {
        Ok(log) => log,
        Err(error) => {
            complain(error);
            return Exit::NoBroker;
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
    let log_is_seen = config.log_output.directory.is_none();
    let exit = serve(config, import, signals).unwrap_or_else(|(exit, reason)| {
        tracing::error!(target: LOGGER, "{reason}");
        if !log_is_seen {
            complain(reason);
        }
        exit
    });
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
            complain(problem);
        }
        Exit::Usage
    })
}

/// What `--import` gives; whatever is wrong with the file is told before anything is opened.
fn read_import(path: &Path) -> Result<Import, String> {
    let content = std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
    Import::parse(path, &content).map_err(|error| error.to_string())
}

/// How the broker ended; if badly, with the reason.
fn serve(config: BrokerConfig, import: Option<Import>, mut signals: Signals) -> Result<Exit, (Exit, String)> {
    let start = move || RunningBroker::start_importing(config, import);
    let mut broker = match signals.unless_one_comes(start) {
        Ok(Some(Ok(broker))) => broker,
        Ok(Some(Err(error))) => return Err((Exit::NoBroker, error.to_string())),
        Ok(None) => {
            tracing::info!(target: LOGGER, "stopped by a signal before clients were let in");
            return Ok(Exit::Success);
        }
        Err(error) => return Err((Exit::NoBroker, format!("the start cannot run: {error}"))),
    };
    tracing::info!(target: LOGGER, "{}", broker.ready_line());
    let ending = broker.wait(&mut signals);
    if let Ending::Failed(reason) = &ending {
        tracing::error!(target: LOGGER, "{reason}");
    }
    let unclean = broker.stop();
    match (ending, unclean.first()) {
        (Ending::Failed(reason), _) => Err((Exit::Failed, format!("stopped: {reason}"))),
        (Ending::Signal, None) => Ok(Exit::Success),
        (Ending::Signal, Some((directory, reason))) => {
            let directory = directory.display();
            Err((
                Exit::Failed,
                format!("stopped by a signal, but {directory} was not left clean: {reason}"),
            ))
        }
    }
}
