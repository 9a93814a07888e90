//! `milena export-znodes`: what a fresh ZooKeeper needs for Apache Kafka to open the log directories of a
//! stopped node.
//!
//! The znodes go to standard output or a file, what there is to say about them to standard error. Only
//! `log.dirs` of the settings counts. The work is `milena_server::export_znodes`'s.

use std::io::Write;
use std::sync::Arc;

use milena_engine::io::{Backend, Clock, Io, SystemClock};
use milena_server::export_znodes::{Format, Summary, export_stopped, write_file};

use crate::{BrokerArgs, Exit, ExportArgs, ExportFormat, complain, start};

/// Writes the znodes.
pub(crate) fn run(arguments: &ExportArgs) -> Exit {
    let mut overrides = arguments.broker.overrides.clone();
    if let Some(log_dirs) = &arguments.log_dirs {
        overrides.push(("log.dirs".to_owned(), log_dirs.clone()));
    }
    let broker = BrokerArgs {
        file: arguments.broker.file.clone(),
        overrides,
    };
    let config = match start::load(&broker) {
        Ok((config, _)) => config,
        Err(exit) => return exit,
    };
    match write(arguments, &config.log_dirs) {
        Ok(summary) => {
            tell(&summary);
            Exit::Success
        }
        Err(message) => {
            complain(message);
            Exit::NoBroker
        }
    }
}

fn write(arguments: &ExportArgs, log_dirs: &[std::path::PathBuf]) -> Result<Summary, String> {
    let io: Arc<dyn Io> = milena_engine::io::open(Backend::Syscall).map_err(|error| error.to_string())?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let format = match arguments.format {
        ExportFormat::ZookeeperShell => Format::ZookeeperShell,
        ExportFormat::Json => Format::Json,
    };
    let (text, summary) = export_stopped(&io, clock, log_dirs, format).map_err(|error| error.to_string())?;
    match &arguments.output {
        Some(path) => write_file(&*io, path, &text).map_err(|error| error.to_string())?,
        None => std::io::stdout()
            .write_all(text.as_bytes())
            .map_err(|error| format!("standard output: {error}"))?,
    }
    Ok(summary)
}

/// What a person should know before Kafka is started.
fn tell(summary: &Summary) {
    complain(format_args!(
        "{} topics with {} partitions",
        summary.topics, summary.partitions
    ));
    if !summary.without_records.is_empty() {
        let partitions = summary.without_records.join(", ");
        complain(format_args!(
            "without a leader, because their records are not on this node: {partitions}"
        ));
    }
    if !summary.being_deleted.is_empty() {
        complain(format_args!(
            "Kafka will finish the deletion of: {}",
            summary.being_deleted.join(", ")
        ));
    }
}
