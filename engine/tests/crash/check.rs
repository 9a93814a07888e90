//! The promises of `docs/durability.md`, each as a comparison of what a start finds with the [`Model`].
//!
//! Nothing here panics on a broken promise: it returns a [`Violation`], so that planted bugs can be expected to
//! be found.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use milena_engine::error::StorageError;
use milena_engine::io::simulated::{ManualClock, SimulatedDisk};
use milena_engine::io::{FileKind, Io, OpenMode};
use milena_engine::log::{Log, UpperBound};
use milena_engine::record_batch::{Batch, BatchHeader, batches};
use milena_engine::units::{LeaderEpoch, Offset, TimestampMs, TopicPartition};

use crate::model::{Existence, History, Model, Random, StoredBatch, Timeline};
use crate::node::{Node, SYNCED};
use crate::script::{append_sets, plain};

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

/// All files below a directory with their content, in order.
pub(crate) fn files_below(disk: &SimulatedDisk, directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in disk.list(directory).unwrap_or_default() {
        let path = directory.join(&entry.name);
        if entry.kind == FileKind::Directory {
            files.extend(files_below(disk, &path));
        } else {
            let file = disk.open(&path, OpenMode::Read).expect("it is listed");
            let mut bytes = vec![0; file.size_bytes().expect("a healthy disk") as usize];
            file.read_at(0, &mut bytes).expect("a healthy disk");
            files.insert(path, bytes);
        }
    }
    files
}

/// The batches of a segment file: position, header.
fn headers(content: &[u8]) -> Vec<(usize, BatchHeader)> {
    let mut position = 0;
    let mut found = Vec::new();
    while let Ok(batch) = Batch::parse(&content[position..]) {
        found.push((position, *batch.header()));
        position += batch.size_bytes();
    }
    found
}

/// Every entry of every index names a batch that is there.
pub(crate) fn indexes(
    disk: &SimulatedDisk,
    directories: &[&str],
    out_of_service: &BTreeSet<TopicPartition>,
) -> Result<(), Violation> {
    for directory in directories {
        let files = files_below(disk, Path::new(directory));
        for (path, content) in &files {
            let is_untouched = out_of_service
                .iter()
                .any(|partition| path.iter().any(|part| *part == *partition.to_string()));
            let is_deleted = path
                .iter()
                .any(|part| part.to_string_lossy().ends_with("-delete"));
            if is_deleted || is_untouched || path.extension().is_none_or(|extension| extension != "log") {
                continue;
            }
            let headers = headers(content);
            let base: i64 = path
                .file_stem()
                .and_then(|stem| stem.to_str())
                .and_then(|stem| stem.parse().ok())
                .expect("segments are named by their offset");
            let wrong = |kind: &str, entry: &dyn std::fmt::Debug| {
                format!(
                    "{}.{kind} has an entry {entry:?} of no batch",
                    path.with_extension("").display()
                )
            };
            let offsets = files.get(&path.with_extension("index"));
            let mut before = None;
            for entry in offsets.map_or(&[][..], Vec::as_slice).chunks(8) {
                let (offset, position) = (relative(entry), relative(&entry[4.min(entry.len())..]));
                let (Some(offset), Some(position)) = (offset, position) else {
                    return Err(wrong("index", &entry));
                };
                let batch = headers.iter().find(|(at, _)| *at as i64 == position);
                if batch.is_none_or(|(_, header)| header.last_offset.get() != base + offset)
                    || before.is_some_and(|before| before >= offset)
                {
                    return Err(wrong("index", &(base + offset, position)));
                }
                before = Some(offset);
            }
            let times = files.get(&path.with_extension("timeindex"));
            for entry in times.map_or(&[][..], Vec::as_slice).chunks(12) {
                let timestamp = entry.first_chunk().map(|bytes| i64::from_be_bytes(*bytes));
                let (Some(timestamp), Some(offset)) = (timestamp, relative(&entry[8.min(entry.len())..]))
                else {
                    return Err(wrong("timeindex", &entry));
                };
                let of = headers.iter().find(|(_, header)| {
                    header.base_offset.get() <= base + offset && base + offset <= header.last_offset.get()
                });
                let largest = headers
                    .iter()
                    .filter(|(_, header)| header.base_offset.get() <= base + offset)
                    .map(|(_, header)| header.max_timestamp.get())
                    .max();
                if of.is_none_or(|(_, header)| header.max_timestamp.get() != timestamp)
                    || largest != Some(timestamp)
                {
                    return Err(wrong("timeindex", &(timestamp, base + offset)));
                }
            }
        }
    }
    Ok(())
}

fn relative(bytes: &[u8]) -> Option<i64> {
    bytes
        .first_chunk()
        .map(|bytes| i64::from(u32::from_be_bytes(*bytes)))
}

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

type Files = BTreeMap<PathBuf, Vec<u8>>;

fn snapshot(disk: &SimulatedDisk, directories: &[&str]) -> Files {
    directories
        .iter()
        .flat_map(|directory| files_below(disk, Path::new(directory)))
        // An index without entries may be missing, and preallocated space may be trimmed.
        .map(|(path, mut content)| {
            let size = content
                .iter()
                .rposition(|byte| *byte != 0)
                .map_or(0, |last| last + 1);
            content.truncate(size);
            (path, content)
        })
        .filter(|(path, content)| {
            // Two files may hold more than can be built from the log: producers without a batch in it, and the
            // entry that a clean stop adds to the time index. A power cut may take either.
            let holds_more = path
                .extension()
                .is_some_and(|of| of == "snapshot" || of == "timeindex");
            !content.is_empty() && !holds_more
        })
        .collect()
}

fn difference(before: &Files, after: &Files) -> Option<PathBuf> {
    let of = |files: &Files, other: &Files| {
        files
            .iter()
            .find(|(path, content)| other.get(*path) != Some(content))
            .map(|(path, _)| path.clone())
    };
    of(before, after).or_else(|| of(after, before))
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
    use milena_engine::record_batch::RecordBatchBuilder;
    use milena_engine::units::{ProducerEpoch, ProducerId, Sequence};
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
