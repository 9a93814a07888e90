//! What a repair would do: a pure function of what the examination found and of the choice what becomes of sound batches
//! behind damage.
//!
//! | found                                  | `cut`, as Kafka's recovery             | `keep`                              |
//! |----------------------------------------|----------------------------------------|-------------------------------------|
//! | bytes that are no batch in their place | the segment ends there, later ones go  | they alone go; the offsets are a gap |
//! | index missing or wrong                 | built anew from the log                | the same                            |
//! | snapshot unreadable or wrong           | removed; a new one at the end          | the same                            |
//! | epochs missing or wrong                | built anew from the batches            | the same                            |
//! | offsets missing                        | stay missing; the recovery point moves behind the gap | the same            |
//! | checkpoint unreadable                  | the lines that can be read are kept    | the same                            |
//! | `meta.properties` unreadable           | that of another log directory, or none | the same                            |
//!
//! A segment that changes gets its indexes anew, and the lists that end behind a cut end there too.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use milena_engine::checkpoint::{self, EpochEntry};
use milena_engine::log::leader_epoch_cache::LeaderEpochCache;
use milena_engine::log::names;
use milena_engine::units::{LeaderEpoch, Offset, TopicPartition};

use crate::log_dump::verify::{
    Directory, Examination, Finding, Kind, Metadata, Partition, Segment, Snapshot, epochs_of_leaders, size,
};

/// The topic in which brokers without ZooKeeper keep their metadata.
const KRAFT_METADATA: &str = "__cluster_metadata";

/// What becomes of sound batches behind damage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum AtDamage {
    /// The log ends in front of the damage, as Kafka's recovery has it: no gap, but everything behind is given up.
    #[default]
    Cut,
    /// Only the damaged bytes go: consumers skip the offsets that are missing, everything behind stays.
    Keep,
}

/// One thing that is done to a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// The segment and its indexes are taken away.
    RemoveSegment { segment: PathBuf, base: i64, size: u64 },
    /// The log ends at `to`.
    Cut {
        segment: PathBuf,
        size: u64,
        to: u64,
        end: i64,
    },
    /// Of the log these ranges stay.
    Splice {
        segment: PathBuf,
        size: u64,
        ranges: Vec<Range<u64>>,
    },
    /// The indexes of the segment are built anew.
    Rebuild { segment: PathBuf, base: i64 },
    /// A file that is of no use is taken away.
    Remove { file: PathBuf },
    /// The producers are written down at this offset.
    Snapshot { offset: i64 },
    /// The leader epochs become these.
    Epochs { entries: Vec<EpochEntry> },
}

/// A segment as it will be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PlannedSegment {
    pub(super) base: i64,
    pub(super) path: PathBuf,
    /// What of the present file stays.
    pub(super) ranges: Vec<Range<u64>>,
    /// Behind its last record then.
    pub(super) next_offset: i64,
}

/// What is done to one partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct PartitionPlan {
    pub(super) path: PathBuf,
    pub(super) partition: Option<TopicPartition>,
    pub(super) steps: Vec<Step>,
    pub(super) segments: Vec<PlannedSegment>,
    /// The newest snapshots that can be believed, oldest first.
    pub(super) snapshots: Vec<i64>,
    /// The recovery point is moved up to the end of the logs, which are synced first.
    pub(super) sync_logs: bool,
}

/// What is done to one log directory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct DirectoryPlan {
    pub(super) path: PathBuf,
    pub(super) is_clean: bool,
    pub(super) partitions: Vec<PartitionPlan>,
    /// New contents of the offset checkpoints.
    pub(super) checkpoints: BTreeMap<&'static str, BTreeMap<TopicPartition, Offset>>,
    /// New content of `meta.properties`; inside, `None` takes it away.
    pub(super) metadata: Option<Option<Vec<u8>>>,
}

/// A plan for each log directory.
pub(super) fn plan(examination: &Examination, choice: AtDamage) -> Vec<DirectoryPlan> {
    let directories = &examination.directories;
    let sound = directories
        .iter()
        .find_map(|directory| match &directory.metadata {
            Metadata::Sound(content) => Some(content),
            Metadata::Missing | Metadata::Damaged => None,
        });
    directories
        .iter()
        .map(|directory| plan_directory(directory, choice, sound))
        .collect()
}

fn plan_directory(directory: &Directory, choice: AtDamage, metadata: Option<&Vec<u8>>) -> DirectoryPlan {
    let mut plan = DirectoryPlan {
        path: directory.path.clone(),
        is_clean: directory.is_clean,
        ..DirectoryPlan::default()
    };
    let mut checkpoints = directory.checkpoints.clone();
    let mut changed: Vec<&'static str> = Vec::new();
    if directory.is_whole {
        let damaged = checkpoints.iter().filter(|(_, found)| found.is_damaged);
        changed.extend(damaged.map(|(name, _)| *name));
        plan.metadata = (directory.metadata == Metadata::Damaged).then(|| metadata.map(|of| of_another(of)));
    }
    for partition in &directory.partitions {
        let mut of_partition = plan_partition(partition, choice);
        if !partition.findings.iter().any(Finding::is_damage) {
            // Space ahead goes when the broker recovers the log.
            of_partition.steps.clear();
        }
        let is_cut = of_partition.steps.iter().any(Step::changes_log);
        if let Some(name) = &partition.partition {
            let end = of_partition.end();
            let cleaned = checkpoints
                .get(checkpoint::CLEANER_OFFSET_FILE)
                .and_then(|found| found.entries.get(name))
                .map_or(0, |offset| offset.get());
            let points = checkpoints.get_mut(checkpoint::RECOVERY_POINT_FILE);
            if let Some(found) = points.filter(|found| found.exists || directory.is_whole) {
                let known = found.entries.get(name).map_or(0, |offset| offset.get());
                // Milena takes what follows a gap for writes that a crash left out of order, unless compaction
                // made it or everything up to there was synced.
                let gap = of_partition
                    .last_gap()
                    .filter(|gap| cleaned < *gap && known <= *gap && *gap < end);
                let is_raised = gap.is_some() && !directory.is_clean;
                if is_raised || is_cut && known > end {
                    found.entries.insert(name.clone(), Offset(end));
                    changed.push(checkpoint::RECOVERY_POINT_FILE);
                    of_partition.sync_logs = is_raised;
                }
            }
            // A log that is whole ends where it ends: the entry is wrong. One that is cut holds only deleted records.
            if !is_cut
                && partition
                    .findings
                    .iter()
                    .any(|finding| finding.kind == Kind::LogStart)
                && let Some(found) = checkpoints.get_mut(checkpoint::LOG_START_OFFSET_FILE)
            {
                found.entries.remove(name);
                changed.push(checkpoint::LOG_START_OFFSET_FILE);
            }
        }
        if !of_partition.steps.is_empty() || of_partition.sync_logs {
            plan.partitions.push(of_partition);
        }
    }
    for name in changed {
        let entries = checkpoints.get(name).map(|found| found.entries.clone());
        plan.checkpoints.insert(name, entries.unwrap_or_default());
    }
    plan
}

/// The `meta.properties` of another log directory, but for the name that no two directories share.
fn of_another(content: &[u8]) -> Vec<u8> {
    let lines = content.split_inclusive(|byte| *byte == b'\n');
    lines
        .filter(|line| !line.starts_with(b"directory.id"))
        .flatten()
        .copied()
        .collect()
}

fn plan_partition(partition: &Partition, choice: AtDamage) -> PartitionPlan {
    let mut plan = PartitionPlan {
        path: partition.path.clone(),
        partition: partition.partition.clone(),
        ..PartitionPlan::default()
    };
    // KRaft takes what follows a hole for all that happened.
    let is_metadata = partition
        .partition
        .as_ref()
        .is_some_and(|of| *of.topic == *KRAFT_METADATA);
    plan_logs(
        &mut plan,
        partition,
        if is_metadata { AtDamage::Cut } else { choice },
    );
    let end = plan.end();

    let rebuilt = |finding: &Finding| match finding.kind {
        Kind::OffsetIndex { base } | Kind::TimeIndex { base } | Kind::TransactionIndex { base } => Some(base),
        _ => None,
    };
    for segment in &plan.segments {
        let is_changed = plan
            .steps
            .iter()
            .any(|step| step.changes_log() && step.file() == segment.path);
        if is_changed
            || partition
                .findings
                .iter()
                .any(|finding| rebuilt(finding) == Some(segment.base))
        {
            plan.steps.push(Step::Rebuild {
                segment: segment.path.clone(),
                base: segment.base,
            });
        }
    }
    for finding in partition
        .findings
        .iter()
        .filter(|finding| finding.kind == Kind::Orphan)
    {
        plan.steps.push(Step::Remove {
            file: finding.path.clone(),
        });
    }

    let is_cut = plan.steps.iter().any(Step::changes_log);
    let (kept, doomed): (Vec<Snapshot>, Vec<Snapshot>) = partition
        .snapshots
        .iter()
        .copied()
        .partition(|snapshot| snapshot.is_sound && snapshot.offset <= end);
    for snapshot in &doomed {
        let name = names::file_name(Offset(snapshot.offset), names::SNAPSHOT);
        plan.steps.push(Step::Remove {
            file: partition.path.join(name),
        });
    }
    plan.snapshots = kept.iter().map(|snapshot| snapshot.offset).collect();
    let has_producers = partition.segments.iter().any(|segment| segment.has_producers);
    let is_missing = partition
        .findings
        .iter()
        .any(|finding| finding.kind == Kind::NoSnapshot);
    let first = plan.segments.first().map_or(0, |segment| segment.base);
    if (is_missing || !doomed.is_empty() || is_cut && has_producers)
        && end > first
        && plan.snapshots.last() != Some(&end)
    {
        plan.steps.push(Step::Snapshot { offset: end });
    }

    if let Some(entries) = epochs(partition, &plan.segments, end, is_cut) {
        plan.steps.push(Step::Epochs { entries });
    }
    plan
}

/// What stays of the segments.
fn plan_logs(plan: &mut PartitionPlan, partition: &Partition, choice: AtDamage) {
    let segments = &partition.segments;
    let first_bad = segments.iter().position(|segment| !segment.is_whole());
    let has_records = segments.iter().any(|segment| !segment.runs.is_empty());
    let is_removed = |index: usize| match choice {
        AtDamage::Cut => first_bad.is_some_and(|bad| index > bad),
        // Of which nothing is left; of a log of which nothing is left, the last stays.
        AtDamage::Keep => {
            let is_empty = !segments[index].is_whole() && segments[index].runs.is_empty();
            is_empty && (has_records || index + 1 < segments.len())
        }
    };
    for (index, segment) in segments.iter().enumerate() {
        let Segment {
            path,
            base,
            size_bytes,
            ..
        } = segment;
        if is_removed(index) {
            let (segment, base, size) = (path.clone(), *base, *size_bytes);
            plan.steps.push(Step::RemoveSegment { segment, base, size });
            continue;
        }
        let ranges: Vec<Range<u64>> = if segment.is_whole() || choice == AtDamage::Cut {
            let until = segment.sound_until();
            (until > 0).then_some(0..until).into_iter().collect()
        } else {
            segment.runs.iter().map(|run| run.from..run.until).collect()
        };
        // Space ahead goes as when a broker closes the log.
        if !segment.is_whole() || segment.is_preallocated {
            let (segment, size) = (path.clone(), *size_bytes);
            plan.steps.push(match ranges.as_slice() {
                [] => Step::Cut {
                    segment,
                    size,
                    to: 0,
                    end: *base,
                },
                [range] if range.start == 0 => Step::Cut {
                    segment,
                    size,
                    to: range.end,
                    end: next_offset(partition, index, &ranges),
                },
                ranges => Step::Splice {
                    segment,
                    size,
                    ranges: ranges.to_vec(),
                },
            });
        }
        let next_offset = next_offset(partition, index, &ranges);
        plan.segments.push(PlannedSegment {
            base: *base,
            path: path.clone(),
            ranges,
            next_offset,
        });
    }
    // The newest first: what an interruption leaves of them has no gap.
    plan.steps.sort_by_key(|step| match step {
        Step::RemoveSegment { base, .. } => (0, -base),
        _ => (1, 0),
    });
}

/// Behind the last record of a segment of which these ranges stay.
fn next_offset(partition: &Partition, index: usize, ranges: &[Range<u64>]) -> i64 {
    let segment = &partition.segments[index];
    let last = ranges.last().map_or(0, |range| range.end);
    let run = segment.runs.iter().rev().find(|run| run.until <= last);
    run.map_or(segment.base, |run| run.next_offset)
}

/// The list of epochs if it is to be another.
fn epochs(
    partition: &Partition,
    segments: &[PlannedSegment],
    end: i64,
    is_cut: bool,
) -> Option<Vec<EpochEntry>> {
    let all: Vec<_> = partition
        .segments
        .iter()
        .flat_map(|segment| &segment.epochs)
        .copied()
        .collect();
    // An epoch that only the batches behind it show to be a stray is the last one once these are cut.
    let was_stray = is_cut && !epochs_of_leaders(&all, partition.epochs.as_deref()).1.is_empty();
    let is_wrong = was_stray
        || partition
            .findings
            .iter()
            .any(|finding| finding.kind == Kind::LeaderEpochs);
    let mut cache = match &partition.epochs {
        Some(entries) if !is_wrong => LeaderEpochCache::from_entries(entries.iter().copied()),
        _ if !is_wrong => return None,
        _ => {
            let of = |base: i64| segments.iter().any(|segment| segment.base == base);
            let changes = partition.segments.iter().filter(|segment| of(segment.base));
            let changes: Vec<_> = changes
                .flat_map(|segment| &segment.epochs)
                .filter(|at| at.offset < end)
                .copied()
                .collect();
            let mut cache = LeaderEpochCache::new();
            for change in epochs_of_leaders(&changes, partition.epochs.as_deref()).0 {
                cache.assign(LeaderEpoch(change.epoch), Offset(change.offset));
            }
            cache
        }
    };
    let is_shorter = (is_wrong || is_cut) && cache.truncate_from_end(Offset(end));
    if let Some(start) = partition.log_start.filter(|_| is_wrong) {
        cache.truncate_from_start(Offset(start));
    }
    (is_wrong || is_shorter).then(|| cache.entries().to_vec())
}

impl DirectoryPlan {
    /// Whether nothing is to be done.
    pub(super) fn is_empty(&self) -> bool {
        self.partitions.is_empty() && self.checkpoints.is_empty() && self.metadata.is_none()
    }
}

impl PartitionPlan {
    /// The offset behind the last record that stays.
    pub(super) fn end(&self) -> i64 {
        self.segments.last().map_or(0, |last| last.next_offset)
    }

    /// The base offset of the last segment in front of which offsets are missing.
    fn last_gap(&self) -> Option<i64> {
        let mut pairs = self.segments.windows(2).rev();
        pairs
            .find(|pair| pair[0].next_offset < pair[1].base)
            .map(|pair| pair[1].base)
    }
}

impl Step {
    /// Whether records go.
    pub(super) fn changes_log(&self) -> bool {
        matches!(
            self,
            Step::RemoveSegment { .. } | Step::Cut { .. } | Step::Splice { .. }
        )
    }

    /// The file that it is about, if it is one.
    pub(super) fn file(&self) -> &Path {
        match self {
            Step::RemoveSegment { segment, .. }
            | Step::Cut { segment, .. }
            | Step::Splice { segment, .. }
            | Step::Rebuild { segment, .. } => segment,
            Step::Remove { file } => file,
            Step::Snapshot { .. } | Step::Epochs { .. } => Path::new(""),
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.file().file_name().unwrap_or_default().to_string_lossy();
        match self {
            Step::RemoveSegment {
                size: bytes, base, ..
            } => {
                write!(
                    f,
                    "remove {name} and its indexes ({}), offsets from {base} on",
                    size(*bytes)
                )
            }
            Step::Cut {
                size: bytes, to, end, ..
            } => {
                let gone = size(bytes - to);
                write!(f, "cut {name} at byte {to} ({gone} go); it ends at offset {end}")
            }
            Step::Splice {
                size: bytes, ranges, ..
            } => {
                let kept: u64 = ranges.iter().map(|range| range.end - range.start).sum();
                write!(
                    f,
                    "take {} of damage out of {name} in {} places",
                    size(bytes - kept),
                    ranges.len()
                )
            }
            Step::Rebuild { .. } => write!(f, "build the indexes of {name} anew"),
            Step::Remove { .. } => write!(f, "remove {name}"),
            Step::Snapshot { offset } => write!(f, "write a snapshot of the producers at offset {offset}"),
            Step::Epochs { entries } => {
                write!(f, "write the leader epochs anew ({} entries)", entries.len())
            }
        }
    }
}
