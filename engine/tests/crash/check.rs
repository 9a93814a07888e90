//! The promises of `docs/durability.md`, each as a comparison of what a start finds with the [`Model`].
//!
//! Nothing here panics on a broken promise: it returns a [`Violation`], so that planted bugs can be expected to
//! be found.

mod files;
mod recovery;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use milena_engine::error::StorageError;
use milena_engine::log::{Log, UpperBound};
use milena_engine::record_batch::batches;
use milena_engine::units::{LeaderEpoch, Offset, TimestampMs, TopicPartition};

use crate::model::{Existence, History, Model, StoredBatch, Timeline};
use crate::node::{Node, SYNCED};

pub(crate) use files::files_below;
pub(crate) use recovery::recovery;

/// Which promise was broken, where and how.
pub(crate) type Violation = String;

/// How the process before this start ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Crash {
    /// Or a clean stop: nothing is lost.
    Kill,
    PowerCut,
}

/// A log as a start found it.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    /// The course it follows, up to its end.
    pub(crate) timeline: Timeline,
    pub(crate) start: i64,
    /// Below, producers may be forgotten.
    pub(crate) forgotten: i64,
    pub(crate) end: i64,
    pub(crate) high_watermark: i64,
}

/// What a start found.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    pub(crate) logs: BTreeMap<TopicPartition, Found>,
    /// With holes where nothing was acknowledged: permitted only for logs that are synced before they acknowledge.
    pub(crate) out_of_service: BTreeSet<TopicPartition>,
}

/// Compares every log of a node that has just started with the model.
pub(crate) fn logs(node: &Node, model: &Model, crash: Crash) -> Result<Findings, Violation> {
    let mut findings = Findings::default();
    if let Some(directory) = node
        .manager
        .directories()
        .find(|directory| !directory.is_online())
    {
        return Err(format!("a healthy directory is offline: {directory:?}"));
    }
    for (partition, _) in node.manager.logs() {
        if !model.logs.contains_key(&partition) {
            return Err(format!("{partition} is there and was deleted, or never was"));
        }
    }
    for (partition, history) in &model.logs {
        let Some(log) = node.log(partition) else {
            match node.manager.find(partition) {
                Err(StorageError::OutOfService { reason, .. }) => {
                    let is_permitted = &*partition.topic == SYNCED
                        && crash == Crash::PowerCut
                        && (reason.contains("sound batches follow")
                            || reason.contains("the machine was not restarted"));
                    if !is_permitted {
                        return Err(format!("{partition} is out of service: {reason}"));
                    }
                    untouched_up_to(node, partition, history)?;
                    findings.out_of_service.insert(partition.clone());
                }
                Err(error) => return Err(format!("{partition} is not served: {error}")),
                Ok(_) if history.existence == Existence::There => {
                    return Err(format!("{partition} is gone"));
                }
                Ok(_) => {}
            }
            continue;
        };
        let found = one_log(&log, history, crash).map_err(|broken| format!("{partition}: {broken}"))?;
        findings.logs.insert(partition.clone(), found);
    }
    Ok(findings)
}

/// Of a log out of service: what was synced is in its files.
fn untouched_up_to(node: &Node, partition: &TopicPartition, history: &History) -> Result<(), Violation> {
    let directory = Path::new("/a").join(partition.to_string());
    let mut bytes = Vec::new();
    for (path, content) in files_below(&node.disk, &directory) {
        if path.extension().is_some_and(|extension| extension == "log") {
            bytes.extend(content);
        }
    }
    let synced = history.synced().max(history.served);
    for batch in &history.current().batches {
        let is_promised = batch.base >= history.log_start.1 && batch.next() <= synced;
        let found = || {
            bytes
                .windows(batch.bytes.len())
                .any(|window| window == batch.bytes)
        };
        if is_promised && !found() {
            return Err(format!(
                "{partition} is out of service and its batch {} is not in its files",
                batch.base
            ));
        }
    }
    Ok(())
}

fn one_log(log: &Arc<Log>, history: &History, crash: Crash) -> Result<Found, Violation> {
    let offsets = log.offsets();
    let (start, end) = (offsets.log_start_offset.get(), offsets.log_end_offset.get());
    let high_watermark = offsets.high_watermark.get();
    if !(start <= high_watermark && high_watermark <= end && offsets.synced_end.get() <= end) {
        return Err(format!("the ends are out of order: {offsets:?}"));
    }
    let stored = read_all(log, start, end)?;
    let mut mismatch = String::new();
    let mut timeline = None;
    for candidate in history.timelines.iter().rev() {
        match follows(candidate, &stored, start, end, history.is_emptying) {
            Ok(()) => {
                timeline = Some(found_of(candidate, end));
                break;
            }
            Err(broken) if mismatch.is_empty() => mismatch = broken,
            Err(_) => {}
        }
    }
    let Some(timeline) = timeline else {
        return Err(mismatch);
    };
    let floor = match crash {
        Crash::Kill => history.written,
        Crash::PowerCut if log.config().flush_messages == Some(1) => history.synced().max(history.served),
        Crash::PowerCut => history.synced(),
    };
    if history.is_emptying {
        return Ok(Found {
            timeline,
            start,
            forgotten: i64::MAX,
            end,
            high_watermark,
        });
    }
    if end < floor {
        return Err(format!(
            "lost: it ends at {end}, and everything below {floor} must survive {crash:?}"
        ));
    }
    if start < history.log_start.0.min(end) || start > history.log_start.1 {
        return Err(format!(
            "it starts at {start}, outside of {:?}",
            history.log_start
        ));
    }
    let (lowest, highest) = history.high_watermark;
    if high_watermark < lowest.min(end) || high_watermark > highest.max(start) {
        return Err(format!(
            "its high watermark is {high_watermark}, outside of {:?}",
            history.high_watermark
        ));
    }
    if let Some(last) = timeline.batches.last()
        && last.next() > start
        && log.latest_epoch() != Some(LeaderEpoch(last.epoch))
    {
        let latest = log.latest_epoch();
        return Err(format!(
            "its newest epoch is {latest:?}, its last batch at {} has {}: {offsets:?}",
            last.base, last.epoch
        ));
    }
    find(log, &timeline, start, end)?;
    Ok(Found {
        timeline,
        start,
        forgotten: match history.existence {
            Existence::There if history.log_start.1 == start => history.forgotten,
            // A move of the log start was under way.
            _ => history.forgotten.max(history.log_start.1),
        },
        end,
        high_watermark,
    })
}

/// What is left of a course that ends at `end`. An end inside a batch is that of a log which lost all that it
/// held, and whose start, which is durable, had been moved there.
fn found_of(candidate: &Timeline, end: i64) -> Timeline {
    let left = candidate.prefix(end);
    if left.end() == end {
        return left;
    }
    Timeline {
        start: end,
        batches: Vec::new(),
    }
}

/// Every batch from `start` to `end`, read in small pieces.
pub(crate) fn read_all(log: &Log, start: i64, end: i64) -> Result<Vec<Vec<u8>>, Violation> {
    let mut stored = Vec::new();
    let mut next = start;
    while next < end {
        let info = log
            .read(Offset(next), 2000, UpperBound::LogEnd, true)
            .map_err(|error| format!("offset {next} cannot be read: {error}"))?;
        let slice = info
            .records
            .ok_or_else(|| format!("offset {next} is below the end {end} and there is nothing to read"))?;
        let bytes = slice.read().map_err(|error| error.to_string())?;
        let before = next;
        for batch in batches(&bytes) {
            match batch {
                Ok(batch) => {
                    stored.push(batch.bytes().to_vec());
                    next = batch.next_offset().get();
                }
                Err(error) if error.is_partial() => break,
                Err(error) => return Err(format!("at offset {next} something else is served: {error}")),
            }
        }
        if next == before {
            return Err(format!("a read at {next} makes no progress"));
        }
    }
    Ok(stored)
}

/// Order, no gap, exact bytes.
fn follows(
    timeline: &Timeline,
    stored: &[Vec<u8>],
    start: i64,
    end: i64,
    may_have_gaps: bool,
) -> Result<(), Violation> {
    let mut due: Option<i64> = None;
    for bytes in stored {
        let base = i64::from_be_bytes(*bytes.first_chunk().expect("a batch has a header"));
        let Some(batch) = timeline.at(base) else {
            return Err(format!("a batch at offset {base}, where none was appended"));
        };
        if batch.bytes != *bytes {
            return Err(format!(
                "the batch at offset {base} is not the one that was appended"
            ));
        }
        let is_due = match due {
            Some(due) => base == due,
            None => base <= start && start < batch.next(),
        };
        if !is_due && !may_have_gaps {
            return Err(format!(
                "a gap: offset {} is due and {base} is found",
                due.unwrap_or(start)
            ));
        }
        due = Some(batch.next());
    }
    let last = due.unwrap_or(start);
    if last != end && !may_have_gaps {
        return Err(format!(
            "a gap: the last record is below {last}, the log ends at {end}"
        ));
    }
    if due.is_none() && end > timeline.end().max(timeline.start) && !may_have_gaps {
        return Err(format!("it ends at {end}, beyond everything that was appended"));
    }
    Ok(())
}

/// Reads by offset and searches by time lead to the right records.
fn find(log: &Log, timeline: &Timeline, start: i64, end: i64) -> Result<(), Violation> {
    let readable: Vec<&Arc<StoredBatch>> = timeline
        .batches
        .iter()
        .filter(|batch| batch.next() > start)
        .collect();
    let stride = readable.len() / 12 + 1;
    for batch in readable.iter().step_by(stride) {
        let offset = batch.next() - 1;
        let info = log
            .read(Offset(offset), 100, UpperBound::LogEnd, true)
            .map_err(|error| format!("offset {offset} cannot be read: {error}"))?;
        let bytes = info.records.map(|slice| slice.read());
        let Some(Ok(bytes)) = bytes else {
            return Err(format!("offset {offset} is there and cannot be read"));
        };
        if bytes.len() < 8 || bytes[..8] != batch.bytes[..8] {
            return Err(format!(
                "a read at {offset} begins elsewhere than at {}",
                batch.base
            ));
        }
        let target = batch.timestamps[0];
        let expected = readable.iter().find_map(|batch| {
            let offsets = (batch.base..).zip(&batch.timestamps);
            offsets
                .into_iter()
                .find(|(offset, timestamp)| *offset >= start && **timestamp >= target)
                .map(|(offset, timestamp)| (offset, *timestamp))
        });
        let found = log
            .offset_for_timestamp(TimestampMs(target), UpperBound::LogEnd)
            .map_err(|error| format!("timestamp {target} cannot be looked for: {error}"))?
            .map(|found| (found.offset.get(), found.timestamp.get()));
        if found != expected.filter(|(offset, _)| *offset < end) {
            return Err(format!(
                "timestamp {target} leads to {found:?}, the first such record is {expected:?}"
            ));
        }
    }
    Ok(())
}
