//! A recovery and what follows it: it loses nothing that was promised, a second one changes nothing, producers go on,
//! indexes equal their rebuild, and a log with a hole has a way back into service.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use milena_engine::error::StorageError;
use milena_engine::io::simulated::{ManualClock, SimulatedDisk};
use milena_engine::io::{Io, OpenMode};
use milena_engine::record_batch::RecordBatchBuilder;
use milena_engine::units::{Offset, ProducerEpoch, ProducerId, Sequence, TimestampMs, TopicPartition};

use super::files::{Files, difference, files_below, indexes, snapshot};
use super::{Crash, Findings, Violation, logs, read_all};
use crate::model::{Model, Random, StoredBatch};
use crate::node::Node;
use crate::script::{append_sets, plain};

/// Starts on a crashed disk and checks all that is promised. `seed` chooses what is looked at more closely.
pub(crate) fn recovery(
    image: &SimulatedDisk,
    clock: &Arc<ManualClock>,
    directories: &[&str],
    model: &Model,
    crash: Crash,
    seed: u64,
) -> Result<Findings, Violation> {
    let mut random = Random::new(seed);
    // A power cut in the middle of the recovery, before the one that is looked at.
    let nested;
    let (image, crash) = if random.chance(3) {
        let disk = image.process_kill();
        disk.cut_power_after(random.below(40));
        drop(Node::open(&disk, plain(&disk), clock, directories));
        nested = if random.chance(2) {
            (disk.process_kill(), crash)
        } else {
            (disk.power_cut(random.next()), Crash::PowerCut)
        };
        (&nested.0, nested.1)
    } else {
        (image, crash)
    };
    let node = Node::open(image, plain(image), clock, directories)?;
    let findings = logs(&node, model, crash)?;
    indexes(image, directories, &findings.out_of_service)?;
    let before = snapshot(image, directories);
    drop(node);
    if !findings.out_of_service.is_empty() {
        way_back(image, clock, directories, model, &mut random)?;
    }

    let again = image.process_kill();
    let node = Node::open(&again, plain(&again), clock, directories)?;
    let after = snapshot(&again, directories);
    if let Some(path) = difference(&before, &after) {
        let text = |files: &Files| {
            files
                .get(&path)
                .map(|content| String::from_utf8_lossy(content).into_owned())
        };
        return Err(format!(
            "a second recovery changed {}: {:?} became {:?}",
            path.display(),
            text(&before),
            text(&after)
        ));
    }
    if random.chance(2) {
        going_on(&node, &findings)?;
        if random.chance(2) {
            rebuilding(node, directories, &findings.out_of_service)?;
        }
    }
    Ok(findings)
}

/// Who does what the message says gets a partition back into service with all that was acknowledged, whatever
/// power cuts come in between.
fn way_back(
    image: &SimulatedDisk,
    clock: &Arc<ManualClock>,
    directories: &[&str],
    model: &Model,
    random: &mut Random,
) -> Result<(), Violation> {
    let mut disk = image.process_kill();
    for _ in 0..3 {
        let node = Node::open(&disk, plain(&disk), clock, directories)?;
        let mut files = Vec::new();
        for partition in model.logs.keys() {
            if let Err(StorageError::OutOfService { reason, .. }) = node.manager.find(partition) {
                let told = reason.split_once("the empty file ");
                let (file, _) = told
                    .and_then(|(_, rest)| rest.split_once(' '))
                    .ok_or_else(|| format!("{partition}: no way back is told: {reason}"))?;
                files.push(PathBuf::from(file));
            }
        }
        if files.is_empty() {
            let findings = logs(&node, model, Crash::PowerCut)?;
            drop(node);
            let cut = disk.power_cut(random.next());
            let node = Node::open(&cut, plain(&cut), clock, directories)?;
            if logs(&node, model, Crash::PowerCut)?.out_of_service.is_empty() {
                return going_on(&node, &findings);
            }
            return Err("what was given up is back after a power cut".to_owned());
        }
        drop(node);
        disk = disk.process_kill();
        for file in &files {
            // It may be there: where a power cut took the note of the damage, one more start is needed.
            disk.open(file, OpenMode::Truncate)
                .map_err(|error| error.to_string())?;
        }
        if random.chance(2) {
            disk.cut_power_after(random.below(40));
            drop(Node::open(&disk, plain(&disk), clock, directories));
            disk = disk.power_cut(random.next());
        }
    }
    Ok(())
}

/// A retry of a producer's last batch is recognised, its next batch is taken, and what is written then is there
/// after a clean stop.
fn going_on(node: &Node, findings: &Findings) -> Result<(), Violation> {
    let mut ends = BTreeMap::new();
    for (partition, found) in &findings.logs {
        let log = node.log(partition).ok_or("a log went away")?;
        let mut newest: BTreeMap<i64, &Arc<StoredBatch>> = BTreeMap::new();
        for batch in &found.timeline.batches {
            if let Some((id, _)) = batch.producer {
                newest.insert(id, batch);
            }
        }
        for (id, batch) in newest {
            if batch.base < found.start.max(found.forgotten) {
                continue;
            }
            let answer = append_sets(&log, &[&batch.sent], batch.epoch + 1).remove(0);
            let info = answer.map_err(|error| {
                format!(
                    "{partition}: a retry of producer {id} at {} is refused: {error}",
                    batch.base
                )
            })?;
            if !info.is_duplicate || info.first_offset != Some(Offset(batch.base)) {
                return Err(format!(
                    "{partition}: a retry of producer {id} at {} is not recognised: {info:?}",
                    batch.base
                ));
            }
            let next = next_batch(batch);
            let answer = append_sets(&log, &[&next], batch.epoch + 1).remove(0);
            answer.map_err(|error| format!("{partition}: producer {id} cannot go on: {error}"))?;
        }
        node.disk.run_completions(1);
        ends.insert(partition.clone(), (log.log_end_offset(), found.start, found.end));
    }
    let report = node.manager.shutdown();
    if !report.unclean.is_empty() {
        return Err(format!("the stop after a recovery: {report:?}"));
    }
    let image = node.disk.power_cut(7);
    let directories: Vec<String> = report
        .clean
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    let directories: Vec<&str> = directories.iter().map(String::as_str).collect();
    let again = Node::open(&image, plain(&image), &node.clock, &directories)?;
    for (partition, (end, start, found_end)) in ends {
        let log = again
            .log(&partition)
            .ok_or_else(|| format!("{partition} is gone after a clean stop"))?;
        if log.log_end_offset() != end || log.log_start_offset().get() != start || found_end > end.get() {
            let offsets = log.offsets();
            return Err(format!(
                "{partition}: {start}..{end} became {offsets:?} by a clean stop"
            ));
        }
        read_all(&log, start, end.get()).map_err(|broken| format!("{partition}: {broken}"))?;
    }
    indexes(&image, &directories, &findings.out_of_service)
}

/// One more batch of the same producer.
fn next_batch(batch: &StoredBatch) -> Vec<u8> {
    let (id, sequence) = batch.producer.expect("it has a producer");
    let next = Sequence(sequence + batch.timestamps.len() as i32);
    let mut builder = RecordBatchBuilder::new().producer(ProducerId(id), ProducerEpoch(0), Some(next));
    builder.append(TimestampMs(batch.timestamps[0]), None, Some(b"one more"));
    builder.build()
}

/// Indexes equal what is built from the records alone. The node has been shut down.
fn rebuilding(
    node: Node,
    directories: &[&str],
    out_of_service: &BTreeSet<TopicPartition>,
) -> Result<(), Violation> {
    if !out_of_service.is_empty() {
        return Ok(());
    }
    let (disk, clock) = (node.disk.process_kill(), node.clock.clone());
    drop(node);
    let indexes = |disk: &SimulatedDisk| -> Files {
        let all = directories
            .iter()
            .flat_map(|directory| files_below(disk, Path::new(directory)));
        let mut files: Files = all.collect();
        files.retain(|path, _| {
            path.extension()
                .is_some_and(|of| of == "index" || of == "timeindex")
                && !path
                    .iter()
                    .any(|part| part.to_string_lossy().ends_with("-delete"))
        });
        files
    };
    let before = indexes(&disk);
    for path in before.keys() {
        disk.remove_file(path).map_err(|error| error.to_string())?;
    }
    let node = Node::open(&disk, plain(&disk), &clock, directories)?;
    node.manager.shutdown();
    let after = indexes(&disk);
    for (path, content) in &after {
        let old = before.get(path).map_or(&[][..], Vec::as_slice);
        let equals = if path.extension().is_some_and(|of| of == "index") {
            content == old
        } else {
            // Each clean stop adds an entry for what is there by then, which a rebuild cannot know of.
            content
                .chunks(12)
                .all(|entry| old.chunks(12).any(|other| other == entry))
        };
        if !equals {
            return Err(format!(
                "{} differs from its rebuild: {old:?}, {content:?}",
                path.display()
            ));
        }
    }
    Ok(())
}
