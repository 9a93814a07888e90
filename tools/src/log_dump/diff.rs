//! `milena log-dump diff A B`: whether two replicas hold the same records, whatever their files look like.
//!
//! Both sides are read in step. Batches that are alike byte for byte are compared by their headers and checksums;
//! where they are not, record by record. Segments, batches, codecs and what compaction took away are layout: told,
//! but no difference. Memory is that of a batch of each side and of what is remembered of records that one side alone
//! has, up to a limit. Source of what compaction takes away: `LogCleaner` of 2.7.2.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use milena_engine::error::IoError;
use milena_engine::io::{FileKind as Entry, Io};
use serde::Serialize;

use super::json::write_line;
use super::report::Failure;
use super::selection::partitions_in;
use crate::{Exit, complain};

mod compare;
mod epochs;
mod findings;
mod pending;
mod replica;

use findings::Findings;

#[derive(Debug, Args)]
pub(super) struct DiffArgs {
    /// A directory of a partition, or a log directory.
    #[arg(value_name = "A")]
    a: PathBuf,
    /// The same of another broker.
    #[arg(value_name = "B")]
    b: PathBuf,
    /// One JSON object for each partition, and one at the end; docs/log-dump.md has the schema.
    #[arg(long)]
    json: bool,
    /// The largest batch that is read for its records; it bounds the memory that is used.
    #[arg(long, value_name = "bytes", default_value_t = super::MAX_BATCH_SIZE)]
    max_batch_size: u32,
}

/// One of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(super) enum Side {
    A,
    B,
}

/// At the end of all partitions.
#[derive(Debug, Default, Serialize)]
#[serde(tag = "type", rename = "diffTotal", rename_all = "camelCase")]
struct Total {
    same: u64,
    different: u64,
    only_in_a: Vec<String>,
    only_in_b: Vec<String>,
}

pub(super) fn run(arguments: &DiffArgs, io: &dyn Io) -> Exit {
    let pairs = match pairs(arguments, io) {
        Ok(pairs) => pairs,
        Err(what) => {
            complain(what);
            return Exit::Usage;
        }
    };
    let mut out = io::BufWriter::new(io::stdout().lock());
    let total = compare_all(arguments, io, &pairs, &mut out);
    match total.and_then(|total| out.flush().map(|()| total).map_err(Failure::Output)) {
        Ok(total) if total.different == 0 && total.only_in_a.is_empty() && total.only_in_b.is_empty() => {
            Exit::Success
        }
        Ok(_) => Exit::Failed,
        Err(failure) => super::end(Err(failure), true),
    }
}

/// What is compared with what.
enum Pairs {
    /// Directories of one partition.
    One,
    /// Log directories: the names of the partitions in both of them, and in one alone.
    Many {
        both: BTreeSet<String>,
        only_in_a: Vec<String>,
        only_in_b: Vec<String>,
    },
}

fn pairs(arguments: &DiffArgs, io: &dyn Io) -> Result<Pairs, String> {
    let (a, b) = (partitions(io, &arguments.a)?, partitions(io, &arguments.b)?);
    match (a, b) {
        (None, None) => Ok(Pairs::One),
        (Some(a), Some(b)) => Ok(Pairs::Many {
            only_in_a: a.difference(&b).cloned().collect(),
            only_in_b: b.difference(&a).cloned().collect(),
            both: a.intersection(&b).cloned().collect(),
        }),
        (a, _) => {
            let (log_dir, partition) = match a {
                Some(_) => (&arguments.a, &arguments.b),
                None => (&arguments.b, &arguments.a),
            };
            Err(format!(
                "{} is a log directory, {} is one of a partition; expected two of a kind",
                log_dir.display(),
                partition.display()
            ))
        }
    }
}

/// The partitions of a log directory; `None` for a directory of one.
fn partitions(io: &dyn Io, path: &Path) -> Result<Option<BTreeSet<String>>, String> {
    let told = |error: IoError| error.to_string();
    match io.stat(path).map_err(told)? {
        Some(stat) if stat.kind == Entry::Directory => {}
        Some(_) => return Err(format!("{}: found a file, expected a directory", path.display())),
        None => return Err(format!("{}: is not there", path.display())),
    }
    match partitions_in(io, path).map_err(told)? {
        Some(found) if found.is_empty() => Err(format!(
            "{}: found neither segments nor partitions",
            path.display()
        )),
        found => Ok(found),
    }
}

fn compare_all(
    arguments: &DiffArgs,
    io: &dyn Io,
    pairs: &Pairs,
    out: &mut impl Write,
) -> Result<Total, Failure> {
    let mut total = Total::default();
    let limit = arguments.max_batch_size as usize;
    let one = |a: &Path, b: &Path, total: &mut Total, out: &mut dyn Write| {
        let findings = compare::compare(io, a, b, limit)?;
        match findings.is_same() {
            true => total.same += 1,
            false => total.different += 1,
        }
        tell(&findings, arguments.json, out).map_err(Failure::Output)
    };
    match pairs {
        Pairs::One => one(&arguments.a, &arguments.b, &mut total, out)?,
        Pairs::Many {
            both,
            only_in_a,
            only_in_b,
        } => {
            for name in both {
                one(&arguments.a.join(name), &arguments.b.join(name), &mut total, out)?;
            }
            total.only_in_a.clone_from(only_in_a);
            total.only_in_b.clone_from(only_in_b);
        }
    }
    let is_single = matches!(pairs, Pairs::One);
    let told = match arguments.json {
        true => write_line(out, &total),
        false if is_single => Ok(()),
        false => tell_total(&total, out),
    };
    told.map_err(Failure::Output)?;
    Ok(total)
}

fn tell(findings: &Findings, is_json: bool, mut out: &mut dyn Write) -> io::Result<()> {
    if is_json {
        return write_line(&mut out, findings);
    }
    write!(out, "{findings}")
}

fn tell_total(total: &Total, out: &mut dyn Write) -> io::Result<()> {
    for (side, names) in [(Side::A, &total.only_in_a), (Side::B, &total.only_in_b)] {
        for name in names {
            writeln!(out, "{name}: only in {side:?}")?;
        }
    }
    writeln!(
        out,
        "{} partitions hold the same records, {} differ, {} are only in A, {} only in B",
        total.same,
        total.different,
        total.only_in_a.len(),
        total.only_in_b.len()
    )
}
