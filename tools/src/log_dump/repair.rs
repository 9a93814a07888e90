//! `milena log-dump repair`: damaged partitions are put in order so that a broker opens them.
//!
//! Examination ([`super::verify`]), plan and change are apart: a plan is a pure function of the findings and of what becomes of
//! sound batches behind damage; without `--apply` it is printed and that is all. With it, every byte that goes is kept in
//! an undo directory first ([`undo`]), from which `--undo` puts it back.
//!
//! Refused: a log directory that a broker has locked, and files that are symbolic links or have several names, since a
//! change would reach farther than the directory.
//!
//! Exit codes: 0 sound, or repaired, or put back; 1 wrong words; 2 it cannot be read, written or locked; 3 damage is there
//! and was not repaired.

use std::fs;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use clap::Args;
use milena_engine::checkpoint;
use milena_engine::io::{Backend, Clock, DirectoryLock, Io, SystemClock, open};
use milena_engine::log::names;
use milena_engine::units::Offset;
use serde_json::json;

use super::verify::{Directory, Finding, Kind, examine, is_partition};
use crate::{Exit, complain};

mod apply;
mod derive;
mod ownership;
mod plan;
mod undo;

use plan::{AtDamage, DirectoryPlan, Step};
use undo::{Manifest, Undo};

const EXAMPLES: &str = "\
Examples:
  milena log-dump repair /var/lib/kafka                  say what is wrong and what would be done
  milena log-dump repair --apply /var/lib/kafka          do it, keeping what goes in /var/lib/kafka.milena-undo-<time>
  milena log-dump repair --apply --at-damage keep /var/lib/kafka/orders-3
                                                         give up the damaged bytes alone
  milena log-dump repair --undo /var/lib/kafka.milena-undo-1795359600123
                                                         put everything back as it was

Exit codes: 0 sound, repaired or put back; 1 the command line is wrong; 2 something cannot be read or written, or a broker \
uses the directory; 3 there is damage: without --apply any, with it what cannot be repaired.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct RepairArgs {
    /// Partition directories (`orders-3`) or log directories (an entry of `log.dirs`).
    #[arg(value_name = "dir", required_unless_present = "undo")]
    directories: Vec<PathBuf>,
    /// Make the changes; without it they are only printed.
    #[arg(long)]
    apply: bool,
    /// What becomes of sound batches behind damage.
    #[arg(long, value_enum, default_value_t)]
    at_damage: AtDamage,
    /// Where undo directories are made; beside the log directory if absent.
    #[arg(long, value_name = "dir", requires = "apply")]
    undo_dir: Option<PathBuf>,
    /// Put back what a repair kept in this undo directory.
    #[arg(long, value_name = "undo-dir", conflicts_with_all = ["directories", "apply", "at_damage"])]
    undo: Option<PathBuf>,
    /// One JSON object a line in place of text.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(arguments: &RepairArgs) -> Exit {
    let done = open(Backend::Syscall)
        .map_err(anyhow::Error::from)
        .and_then(|io| match &arguments.undo {
            Some(undo) => put_back(&*io, undo, arguments.json),
            None => repair(&*io, arguments),
        });
    done.unwrap_or_else(|error| {
        let is_closed = error
            .downcast_ref::<io::Error>()
            .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe);
        if !is_closed {
            complain(error);
        }
        Exit::NoBroker
    })
}

fn repair(io: &dyn Io, arguments: &RepairArgs) -> anyhow::Result<Exit> {
    let directories = arguments
        .directories
        .iter()
        .map(|path| canonical(io, path))
        .collect::<Result<Vec<_>, _>>()?;
    // Before anything is read: nothing may change between the plan and the changes.
    let mut locks = Vec::new();
    if arguments.apply {
        for directory in log_dirs(io, &directories)? {
            locks.push(lock(io, &directory)?);
        }
    }
    let examination = examine(io, &directories, false)?;
    let plans = plan::plan(&examination, arguments.at_damage);
    let mut out = BufWriter::new(io::stdout().lock());
    for (directory, plan) in examination.directories.iter().zip(&plans) {
        report(&mut out, directory, plan, arguments)?;
    }
    out.flush()?;
    let damage = examination
        .findings()
        .filter(|finding| finding.is_damage())
        .count();
    let unreadable = examination
        .findings()
        .any(|finding| finding.kind == Kind::Unreadable);
    if unreadable {
        anyhow::bail!("some files cannot be read; nothing is changed");
    }
    if !arguments.apply {
        let summary = match damage {
            0 => "nothing is damaged".to_owned(),
            1 => "1 thing is damaged; --apply does what is said above".to_owned(),
            count => format!("{count} things are damaged; --apply does what is said above"),
        };
        conclude(
            &mut out,
            arguments.json,
            json!({"type": "summary", "damage": damage, "applied": false}),
            &summary,
        )?;
        return Ok(if damage == 0 { Exit::Success } else { Exit::Failed });
    }
    for plan in &plans {
        refuse_links(plan)?;
    }
    for plan in plans.iter().filter(|plan| !plan.is_empty()) {
        let path = undo_path(plan, arguments.undo_dir.as_deref())?;
        let mut undo = Undo::create(io, &path, &plan.path)?;
        if let Err(error) = apply::apply(io, plan, &mut undo) {
            anyhow::bail!(
                "{error}. Nothing further is changed; put back what was with: milena log-dump repair --undo {}, \
                 or repair again",
                undo.path().display()
            );
        }
        let text = format!("what went is kept in {}", undo.path().display());
        let kept = json!({"type": "undo", "path": undo.path().to_string_lossy()});
        conclude(&mut out, arguments.json, kept, &text)?;
    }
    let left = examination
        .findings()
        .filter(|finding| finding.is_damage() && !is_repaired(finding))
        .count();
    let summary = match (damage, left) {
        (0, _) => "nothing is damaged".to_owned(),
        (damage, 0) => format!("{damage} damaged, all repaired"),
        (damage, left) => format!("{damage} damaged, {left} stay as they are"),
    };
    let object = json!({"type": "summary", "damage": damage, "applied": true, "left": left});
    conclude(&mut out, arguments.json, object, &summary)?;
    Ok(if left == 0 { Exit::Success } else { Exit::Failed })
}

/// Whether a plan does something about it. Records that are gone nobody brings back, and what is no broker's stays.
fn is_repaired(finding: &Finding) -> bool {
    !matches!(
        finding.kind,
        Kind::Gap | Kind::Directory | Kind::Record | Kind::MetadataSnapshot | Kind::Unreadable
    )
}

fn conclude(out: &mut impl Write, is_json: bool, object: serde_json::Value, text: &str) -> io::Result<()> {
    if is_json {
        writeln!(out, "{object}")?;
    } else {
        writeln!(out, "{text}")?;
    }
    out.flush()
}

/// What was found, and behind it what is done about it.
fn report(
    out: &mut impl Write,
    directory: &Directory,
    plan: &DirectoryPlan,
    arguments: &RepairArgs,
) -> io::Result<()> {
    for partition in &directory.partitions {
        tell(out, &partition.findings, arguments.json)?;
        for step in plan
            .partitions
            .iter()
            .filter(|of| of.path == partition.path)
            .flat_map(|of| &of.steps)
        {
            tell_step(out, &partition.path, &step.to_string(), arguments)?;
        }
    }
    tell(out, &directory.findings, arguments.json)?;
    for (name, entries) in &plan.checkpoints {
        let text = format!("write {name} with {} entries", entries.len());
        tell_step(out, &directory.path, &text, arguments)?;
    }
    let metadata = match &plan.metadata {
        Some(Some(_)) => "write meta.properties as in another log directory",
        Some(None) => {
            "remove meta.properties; a broker writes it anew, without ZooKeeper after kafka-storage format"
        }
        None => return Ok(()),
    };
    tell_step(out, &directory.path, metadata, arguments)
}

fn tell(out: &mut impl Write, findings: &[Finding], is_json: bool) -> io::Result<()> {
    for finding in findings.iter().filter(|finding| finding.kind != Kind::Note) {
        if is_json {
            writeln!(out, "{}", finding.to_json())?;
        } else {
            writeln!(out, "{finding}")?;
        }
    }
    Ok(())
}

fn tell_step(out: &mut impl Write, path: &Path, text: &str, arguments: &RepairArgs) -> io::Result<()> {
    if arguments.json {
        let path = path.to_string_lossy();
        let object = json!({"type": "step", "path": path, "step": text, "applied": arguments.apply});
        return writeln!(out, "{object}");
    }
    let verb = if arguments.apply { "repair" } else { "would" };
    writeln!(out, "{}: {verb}: {text}", path.display())
}

/// Of a directory that may be given by any name.
fn canonical(io: &dyn Io, path: &Path) -> anyhow::Result<PathBuf> {
    let canonical = fs::canonicalize(path).map_err(|error| anyhow::anyhow!("{}: {error}", path.display()))?;
    // A log directory may be reached by a link; a partition that is one lies in another log directory.
    let is_link = fs::symlink_metadata(std::path::absolute(path)?)?.is_symlink();
    if is_link && canonical.is_dir() && is_partition(io, &canonical)? {
        anyhow::bail!("{}: found a symbolic link, expected a directory", path.display());
    }
    Ok(canonical)
}

/// The log directories of what is to be repaired, each once.
fn log_dirs(io: &dyn Io, directories: &[PathBuf]) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for directory in directories.iter().filter(|directory| directory.is_dir()) {
        let of_partition = directory
            .parent()
            .filter(|_| is_partition(io, directory).unwrap_or(false));
        let log_dir = of_partition.unwrap_or(directory).to_owned();
        if !found.contains(&log_dir) {
            found.push(log_dir);
        }
    }
    Ok(found)
}

/// The lock that a broker holds while it runs.
fn lock(io: &dyn Io, log_dir: &Path) -> anyhow::Result<Box<dyn DirectoryLock>> {
    let path = log_dir.join(checkpoint::LOCK_FILE);
    let was_there = io.stat(&path)?.is_some();
    let lock = io.lock(&path)?;
    if !was_there {
        ownership::as_file(io, &path, log_dir)?;
    }
    lock.ok_or_else(|| {
        anyhow::anyhow!(
            "{}: a broker uses the log directory; stop it first",
            log_dir.display()
        )
    })
}

/// Where the undo directory of a log directory is made. Inside of one no broker would start.
fn undo_path(plan: &DirectoryPlan, parent: Option<&Path>) -> anyhow::Result<PathBuf> {
    let name = plan.path.file_name().unwrap_or_default().to_string_lossy();
    let parent = match parent {
        Some(parent) => {
            fs::canonicalize(parent).map_err(|error| anyhow::anyhow!("{}: {error}", parent.display()))?
        }
        None => plan.path.parent().unwrap_or(&plan.path).to_owned(),
    };
    if parent.starts_with(&plan.path) {
        anyhow::bail!(
            "{}: found it inside the log directory, expected --undo-dir elsewhere",
            parent.display()
        );
    }
    Ok(parent.join(format!("{name}.milena-undo-{}", SystemClock::new().wall())))
}

/// A link or a file with several names is changed in more places than one.
fn refuse_link(path: &Path) -> anyhow::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.is_symlink() => {
            anyhow::bail!(
                "{}: found a symbolic link, expected a file; nothing is changed",
                path.display()
            )
        }
        Ok(found) if found.is_file() && found.nlink() > 1 => anyhow::bail!(
            "{}: found a file with {} names (hard links), expected one; copy it first; nothing is changed",
            path.display(),
            found.nlink()
        ),
        _ => Ok(()),
    }
}

/// Looks at every file that a plan may change.
fn refuse_links(plan: &DirectoryPlan) -> anyhow::Result<()> {
    if plan.path.to_str().is_none() {
        // The undo directory could not name the files.
        anyhow::bail!(
            "{}: found a path that is not UTF-8; rename it first; nothing is changed",
            plan.path.display()
        );
    }
    for name in plan
        .checkpoints
        .keys()
        .chain(&[checkpoint::META_PROPERTIES_FILE, checkpoint::CLEAN_SHUTDOWN_FILE])
    {
        refuse_link(&plan.path.join(name))?;
    }
    for partition in &plan.partitions {
        refuse_link(&partition.path)?;
        for step in &partition.steps {
            match step {
                Step::Snapshot { offset } => {
                    refuse_link(
                        &partition
                            .path
                            .join(names::file_name(Offset(*offset), names::SNAPSHOT)),
                    )?;
                }
                Step::Epochs { .. } => refuse_link(&partition.path.join(names::LEADER_EPOCHS))?,
                _ => refuse_link(step.file())?,
            }
            if let Step::Rebuild { base, .. } | Step::RemoveSegment { base, .. } = step {
                for suffix in names::SEGMENT_SUFFIXES {
                    refuse_link(&partition.path.join(names::file_name(Offset(*base), suffix)))?;
                }
            }
        }
    }
    Ok(())
}

fn put_back(io: &dyn Io, path: &Path, is_json: bool) -> anyhow::Result<Exit> {
    let path = fs::canonicalize(path).map_err(|error| anyhow::anyhow!("{}: {error}", path.display()))?;
    let manifest = Manifest::read(io, &path)?;
    let _lock = lock(io, &manifest.log_dir)?;
    for path in manifest.paths() {
        refuse_link(path)?;
    }
    let undone = manifest.put_back(io)?;
    let recovers = if undone.was_started {
        "; a broker was started since: when it starts it recovers all logs, as after a crash"
    } else {
        ""
    };
    let text = format!(
        "{} changes are undone; {} is no longer needed{recovers}",
        undone.changes,
        path.display()
    );
    let object = json!({
        "type": "summary",
        "undone": undone.changes,
        "path": path.to_string_lossy(),
        "startedSince": undone.was_started,
    });
    conclude(&mut io::stdout().lock(), is_json, object, &text)?;
    Ok(Exit::Success)
}

#[cfg(test)]
mod tests;
