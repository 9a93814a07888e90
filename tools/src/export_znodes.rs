//! `milena export-znodes`: the topics of a stopped node for ZooKeeper, as text for a fresh one, or moved into the one of
//! `zookeeper.connect`.
//!
//! As text, the znodes go to standard output or a file, what there is to say about them to standard error, and only `log.dirs` of
//! the settings counts. A move prints what was done, a dry run what would be written. The work is
//! `milena_server::export_znodes`'s.

use std::io::Write;
use std::sync::Arc;

use milena_engine::io::{Backend, Clock, Io, SystemClock};
use milena_server::config::BrokerConfig;
use milena_server::coordination::Operation;
use milena_server::export_znodes::{
    ExportError, Format, Moved, Published, Summary, export_stopped, move_stopped, write_file,
};

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
    let done = match arguments.to_zookeeper {
        true => to_zookeeper(&config, arguments.dry_run),
        false => write(arguments, &config.log_dirs),
    };
    done.unwrap_or_else(|(exit, message)| {
        complain(message);
        exit
    })
}

/// How the command ends if not well, and what is said about it.
type Complaint = (Exit, String);

fn open_io() -> Result<Arc<dyn Io>, Complaint> {
    milena_engine::io::open(Backend::Syscall).map_err(no_broker)
}

fn clock() -> Arc<dyn Clock> {
    Arc::new(SystemClock::new())
}

fn no_broker(error: impl std::fmt::Display) -> Complaint {
    (Exit::NoBroker, error.to_string())
}

fn write(arguments: &ExportArgs, log_dirs: &[std::path::PathBuf]) -> Result<Exit, Complaint> {
    let io = open_io()?;
    let format = match arguments.format {
        ExportFormat::ZookeeperShell => Format::ZookeeperShell,
        ExportFormat::Json => Format::Json,
    };
    let (text, summary) = export_stopped(&io, clock(), log_dirs, format).map_err(no_broker)?;
    match &arguments.output {
        Some(path) => write_file(&*io, path, &text).map_err(no_broker)?,
        None => print(&text)?,
    }
    tell(&summary);
    Ok(Exit::Success)
}

fn print(text: &str) -> Result<(), Complaint> {
    std::io::stdout()
        .write_all(text.as_bytes())
        .map_err(|error| no_broker(format_args!("standard output: {error}")))
}

/// What a person should know before a broker is started.
fn tell(summary: &Summary) {
    complain(size(summary));
    if !summary.without_records.is_empty() {
        let partitions = summary.without_records.join(", ");
        complain(format_args!(
            "without a leader, because their records are not on this node: {partitions}"
        ));
    }
    if !summary.being_deleted.is_empty() {
        complain(format_args!(
            "the cluster will finish the deletion of: {}",
            summary.being_deleted.join(", ")
        ));
    }
}

fn size(summary: &Summary) -> String {
    format!("{} topics with {} partitions", summary.topics, summary.partitions)
}

fn to_zookeeper(config: &BrokerConfig, is_dry_run: bool) -> Result<Exit, Complaint> {
    let Some(settings) = &config.zookeeper else {
        let text =
            "--to-zookeeper needs zookeeper.connect in the settings: where the cluster is, or shall be";
        return Err((Exit::Usage, text.to_owned()));
    };
    let io = open_io()?;
    let moved = move_stopped(&io, clock(), config, settings, is_dry_run).map_err(|error| match error {
        ExportError::Refused(refusal) => (Exit::Failed, refusal.to_string()),
        error => no_broker(error),
    })?;
    match moved {
        Moved::Before { set_aside } => {
            let path = set_aside.display();
            print(&format!("moved before, as {path} says; nothing is left to do\n"))?;
        }
        Moved::Planned { summary, plan } => {
            let lines: String = plan.writes.iter().flatten().map(line).collect();
            print(&lines)?;
            tell(&summary);
            complain(format_args!("{} nodes are there already", plan.already));
            tell_left(&plan.left_to_the_cluster);
        }
        Moved::Now {
            summary,
            published,
            set_aside,
        } => {
            print(&done(&summary, &published, &set_aside))?;
            tell_left(&published.left_to_the_cluster);
        }
    }
    Ok(Exit::Success)
}

/// An operation as ZooKeeper's shell has it, for a person.
fn line(operation: &Operation) -> String {
    let (verb, data) = match operation {
        Operation::Create { data, .. } => ("create", data.as_deref()),
        Operation::SetData { data, .. } => ("set", data.as_deref()),
        Operation::Check { .. } => ("check", None),
        Operation::Delete { .. } => ("delete", None),
    };
    let data = data.map(|data| format!(" {}", String::from_utf8_lossy(data)));
    format!("{verb} {}{}\n", operation.path(), data.unwrap_or_default())
}

fn done(summary: &Summary, published: &Published, set_aside: &std::path::Path) -> String {
    let mut text = format!(
        "moved {} into ZooKeeper: {} nodes written, {} were there\n",
        size(summary),
        published.written,
        published.already
    );
    if published.renewed_controller {
        text.push_str("the cluster elects another controller, which reads the topics\n");
    }
    text.push_str(&format!(
        "this node's own tree is now {}; start the broker with these settings\n",
        set_aside.display()
    ));
    text
}

fn tell_left(paths: &[String]) {
    if !paths.is_empty() {
        complain(format_args!(
            "settings of the whole cluster stay as they are there, not as on this node: {}",
            paths.join(", ")
        ));
    }
}
