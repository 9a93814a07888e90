//! One partition: what its directory holds, and whether what is derived from the log fits what the segments say.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use milena_engine::checkpoint::{self, EpochEntry, LeaderEpochCheckpoint};
use milena_engine::io::{FileKind, Io};
use milena_engine::log::derived::{SnapshotEntry, decode_snapshot};
use milena_engine::log::names;
use milena_engine::units::{Offset, TopicPartition};

use super::epochs::{EpochChange, covering, epochs_of_leaders};
use super::finding::{Finding, Kind, Start};
use super::metadata_snapshot;
use super::producers::{Producer, ProducerParts, Producers, Transaction, contradiction};
use super::segment::{Segment, Task};
use super::transactions;
use crate::log_dump::report::Read;

/// Files of a partition that neither belong to the log nor are worth a word.
const KNOWN_FILES: [&str; 4] = [
    "partition.metadata",
    "leader-epoch-checkpoint",
    "quorum-state",
    "quorum-state.tmp",
];

/// A partition's directory before its segments are read.
#[derive(Debug)]
pub(super) struct Layout {
    pub(super) path: PathBuf,
    pub(super) partition: Option<TopicPartition>,
    pub(super) start: Start,
    /// Of `log-start-offset-checkpoint`.
    pub(super) log_start: Option<i64>,
    /// `cleaner-offset-checkpoint` has it, or it is a topic that is always compacted.
    pub(super) is_compacted: bool,
    /// Base offset and size.
    pub(super) segments: Vec<(i64, u64)>,
    snapshots: Vec<i64>,
    metadata_snapshots: Vec<PathBuf>,
    deep: bool,
    has_swap: bool,
    findings: Vec<Finding>,
}

/// A snapshot of the producers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::log_dump) struct Snapshot {
    pub(in crate::log_dump) offset: i64,
    pub(in crate::log_dump) is_sound: bool,
}

/// What was found of a partition.
#[derive(Clone, Debug, Default)]
pub(in crate::log_dump) struct Partition {
    pub(in crate::log_dump) path: PathBuf,
    pub(in crate::log_dump) partition: Option<TopicPartition>,
    pub(in crate::log_dump) log_start: Option<i64>,
    pub(in crate::log_dump) segments: Vec<Segment>,
    pub(in crate::log_dump) snapshots: Vec<Snapshot>,
    /// Of the file, if it can be read.
    pub(in crate::log_dump) epochs: Option<Vec<EpochEntry>>,
    pub(in crate::log_dump) findings: Vec<Finding>,
}

impl Layout {
    /// Lists a partition's directory.
    pub(super) fn of(
        io: &dyn Io,
        path: &Path,
        partition: Option<TopicPartition>,
        start: Start,
        deep: bool,
    ) -> Read<Layout> {
        let mut layout = Layout {
            path: path.to_owned(),
            partition,
            start,
            log_start: None,
            is_compacted: false,
            segments: Vec::new(),
            snapshots: Vec::new(),
            metadata_snapshots: Vec::new(),
            deep,
            has_swap: false,
            findings: Vec::new(),
        };
        let mut indexes = Vec::new();
        for entry in io.list(path)? {
            let file = path.join(&entry.name);
            if entry.kind != FileKind::File {
                layout.note(&file, "something that is no file", "2.7.2 reads files alone");
                continue;
            }
            let at_start = match names::parse(&entry.name) {
                Some(name) if name.stage == names::SWAP => {
                    layout.has_swap = true;
                    (
                        "output of compaction about to take its place",
                        "it replaces the segments that it covers",
                    )
                }
                Some(name) if name.stage == names::CLEANED => {
                    ("unfinished output of compaction", "it is removed")
                }
                Some(name) if name.kind == names::LOG => {
                    let size = io.stat(&file)?.map_or(0, |stat| stat.size_bytes);
                    layout.segments.push((name.offset.get(), size));
                    continue;
                }
                Some(name) if name.kind == names::SNAPSHOT => {
                    layout.snapshots.push(name.offset.get());
                    continue;
                }
                Some(name) => {
                    indexes.push((name.offset.get(), file));
                    continue;
                }
                None if entry.name.ends_with(names::DELETED) => {
                    ("a file that was being deleted", "it is removed")
                }
                None if metadata_snapshot::is_named(&entry.name) => {
                    layout.metadata_snapshots.push(file);
                    continue;
                }
                None if KNOWN_FILES.contains(&entry.name.as_str()) => continue,
                None => ("a file of another kind", "it is not looked at"),
            };
            layout.note(&file, at_start.0, at_start.1);
        }
        layout.segments.sort_unstable();
        layout.snapshots.sort_unstable();
        for (base, file) in indexes {
            if !layout.segments.iter().any(|(other, _)| *other == base) && !layout.has_swap {
                let found = "an index without its segment";
                layout
                    .findings
                    .push(Finding::new(Kind::Orphan, file, found, "", "it is removed"));
            }
        }
        Ok(layout)
    }

    fn note(&mut self, file: &Path, found: &str, at_start: &str) {
        self.findings
            .push(Finding::new(Kind::Note, file, found, "", at_start));
    }

    /// A task for each segment.
    pub(super) fn tasks(&self) -> Vec<Task> {
        let task = |(index, (base, _)): (usize, &(i64, u64))| {
            let next_base = self.segments.get(index + 1).map(|(next, _)| *next);
            let is_within = |offset: &i64| *offset > *base && next_base.is_none_or(|next| *offset <= next);
            Task {
                base: *base,
                next_base,
                path: self.path.join(names::file_name(Offset(*base), names::LOG)),
                start: self.start,
                snapshots: self.snapshots.iter().copied().filter(is_within).collect(),
                deep: self.deep,
            }
        };
        self.segments.iter().enumerate().map(task).collect()
    }

    /// Holds everything against each other.
    pub(super) fn finish(self, io: &dyn Io, segments: Vec<Segment>) -> Partition {
        let mut partition = Partition {
            path: self.path.clone(),
            partition: self.partition.clone(),
            log_start: self.log_start,
            segments,
            ..Partition::default()
        };
        for segment in &mut partition.segments {
            partition.findings.append(&mut segment.findings);
        }
        let mut check = Check {
            io,
            is_compacted: self.is_compacted || tells_of_compaction(&partition.segments),
            layout: &self,
            partition: &mut partition,
        };
        check.any_segment();
        check.time_indexes();
        check.gaps();
        check.transactions();
        check.snapshots();
        check.epochs();
        check.metadata_snapshots();
        partition.findings.extend(self.findings);
        for segment in &mut partition.segments {
            segment.producers = ProducerParts::default();
        }
        partition
    }
}

impl Partition {
    /// The offset behind the last sound batch.
    pub(in crate::log_dump) fn end(&self) -> i64 {
        self.segments.last().map_or(0, Segment::next_offset)
    }

    /// The directory's name.
    pub(in crate::log_dump) fn name(&self) -> String {
        self.path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned()
    }
}

struct Check<'c> {
    io: &'c dyn Io,
    layout: &'c Layout,
    partition: &'c mut Partition,
    is_compacted: bool,
}

impl Check<'_> {
    fn add(&mut self, finding: Finding) {
        self.partition.findings.push(finding);
    }

    /// The segments in front of the first that is not whole: what these say is all that was ever in them.
    fn whole_count(&self) -> usize {
        let segments = &self.partition.segments;
        let is_gap = |index: usize| index > 0 && segments[index - 1].next_offset() < segments[index].base;
        let is_whole = |index: &usize| {
            let segment = &segments[*index];
            segment.is_whole() && segment.gap_count == 0 && !is_gap(*index)
        };
        (0..segments.len()).take_while(is_whole).count()
    }

    fn any_segment(&mut self) {
        if !self.partition.segments.is_empty() || self.layout.has_swap {
            return;
        }
        let left = self.partition.findings.len() + self.layout.findings.len() + self.layout.snapshots.len();
        let has_epochs = self.io.stat(&self.layout.path.join(names::LEADER_EPOCHS));
        let is_new = left == 0 && matches!(has_epochs, Ok(None));
        let kind = if is_new { Kind::Note } else { Kind::Gap };
        let at_start = format!(
            "an empty one is made at offset {}",
            self.layout.log_start.unwrap_or(0)
        );
        self.add(Finding::new(
            kind,
            &self.layout.path,
            "no segment",
            "at least one",
            at_start,
        ));
    }

    /// Brokers before 0.10.1 wrote none.
    fn time_indexes(&mut self) {
        let is_missing =
            |finding: &Finding| matches!(finding.kind, Kind::TimeIndex { .. }) && finding.position.is_none();
        let segments = &self.partition.segments;
        let missing = self
            .partition
            .findings
            .iter()
            .filter(|finding| is_missing(finding))
            .count();
        if missing == segments.len() && !segments.iter().any(|segment| segment.has_v2) {
            for finding in self
                .partition
                .findings
                .iter_mut()
                .filter(|finding| is_missing(finding))
            {
                finding.kind = Kind::Note;
                finding.found = "no time index, as before 0.10.1".to_owned();
                finding.expected = String::new();
            }
        }
    }

    /// Whether the first segment is the first that the log ever had.
    fn is_from_start(&self) -> bool {
        self.partition
            .segments
            .first()
            .is_some_and(|segment| segment.base == 0)
    }

    /// Offsets that are missing, where nothing tells of compaction.
    fn gaps(&mut self) {
        if self.is_compacted || self.layout.has_swap {
            return;
        }
        let mut found = Vec::new();
        let mut last: Option<&Segment> = None;
        let at_start = "it is not noticed; consumers go on with the next offset that there is";
        for segment in &self.partition.segments {
            if let Some(last) = last
                && last.is_whole()
                && last.next_offset() < segment.base
            {
                let missing = format!(
                    "no segment with offsets {} to {}",
                    last.next_offset(),
                    segment.base - 1
                );
                let finding = Finding::new(
                    Kind::Gap,
                    &segment.path,
                    missing,
                    "no gap between segments",
                    at_start,
                );
                found.push(finding);
            }
            if let Some(gap) = &segment.first_gap {
                let more = match segment.gap_count {
                    1 => String::new(),
                    count => format!(" and {} more gaps", count - 1),
                };
                let missing = format!("no batch with offsets {} to {}{more}", gap.from, gap.until - 1);
                let expected = "consecutive offsets";
                found.push(
                    Finding::new(Kind::Gap, &segment.path, missing, expected, at_start).at(gap.position),
                );
            }
            last = Some(segment);
        }
        self.partition.findings.extend(found);
    }

    fn transactions(&mut self) {
        // Compaction takes transactions away whose records are gone.
        let whole = if self.is_compacted { 0 } else { self.whole_count() };
        let mut producers = Producers::new();
        let mut found = Vec::new();
        let from_start = self.is_from_start();
        for (index, segment) in self.partition.segments.iter().enumerate() {
            let next_base = self.partition.segments.get(index + 1).map(|next| next.base);
            let before = |id: i64| match producers.get(&id) {
                Some(producer) => producer.transaction,
                None => Producer::unknown(from_start).transaction,
            };
            let known = (index < whole).then_some(&before as &dyn Fn(i64) -> Transaction);
            match transactions::check(self.io, segment, known, self.layout.start, next_base) {
                // A segment that is cut gets its indexes anew in any case.
                Ok(finding) => found.extend(finding.filter(|_| segment.is_whole())),
                Err(error) => found.push(super::unreadable(&error)),
            }
            for (id, part) in segment.producers.parts.iter().flatten() {
                producers
                    .entry(*id)
                    .or_insert(Producer::unknown(from_start))
                    .apply(part);
            }
        }
        self.partition.findings.extend(found);
    }

    fn snapshots(&mut self) {
        let mut producers = Producers::new();
        let from_start = self.is_from_start();
        let segments = &self.partition.segments;
        let (first, end) = (
            segments.first().map_or(0, |segment| segment.base),
            self.partition.end(),
        );
        let log_is_whole = self.whole_count() == segments.len();
        let path = |offset: i64| {
            self.layout
                .path
                .join(names::file_name(Offset(offset), names::SNAPSHOT))
        };
        // Those that can be held against the state at their offset, since everything in front is known.
        let mut judged = HashMap::new();
        let whole = if self.is_compacted { 0 } else { self.whole_count() };
        for segment in &segments[..whole] {
            let next = segment.next_offset();
            let within = self
                .layout
                .snapshots
                .iter()
                .filter(|offset| **offset > segment.base && **offset <= next);
            for (part, at) in segment.producers.parts.iter().zip(within.map(Some).chain([None])) {
                for (id, change) in part {
                    producers
                        .entry(*id)
                        .or_insert(Producer::unknown(from_start))
                        .apply(change);
                }
                if let Some(offset) = at {
                    let read = self.read_snapshot(&path(*offset));
                    judged.insert(
                        *offset,
                        read.map(|entries| contradiction(&entries, &producers, first)),
                    );
                }
            }
        }
        let mut found = Vec::new();
        let mut looked_at = Vec::new();
        for offset in &self.layout.snapshots {
            let path = path(*offset);
            let kind = Kind::Snapshot { offset: *offset };
            let found_of = judged
                .remove(offset)
                .unwrap_or_else(|| self.read_snapshot(&path).map(|_| None));
            let finding = match found_of {
                Err(finding) => Some(*finding),
                Ok(_) if *offset > end && log_is_whole => Some(Finding::new(
                    kind,
                    &path,
                    format!("a snapshot at offset {offset}"),
                    format!(
                        "one at or below the end of the log, {end}; records were lost, or the log was cut"
                    ),
                    "it is removed",
                )),
                Ok(contradiction) => contradiction.map(|(found, expected)| {
                    let at_start =
                        "if it is the newest it is loaded: producers are refused or repeat themselves";
                    Finding::new(kind, &path, found, expected, at_start)
                }),
            };
            looked_at.push(Snapshot {
                offset: *offset,
                is_sound: finding.is_none() && *offset <= end,
            });
            found.extend(finding);
        }
        let has_producers = segments.iter().any(|segment| segment.has_producers);
        // Of what was deleted up to the end nothing is remembered.
        let is_emptied = self.layout.log_start.is_some_and(|start| start >= end);
        if self.layout.start.clean && looked_at.is_empty() && has_producers && end > first && !is_emptied {
            let at_start = "after a clean shutdown the producers are taken for unknown";
            let file = self
                .layout
                .path
                .join(names::file_name(Offset(end), names::SNAPSHOT));
            found.push(Finding::new(
                Kind::NoSnapshot,
                file,
                "no such file",
                "a snapshot of the producers",
                at_start,
            ));
        }
        self.partition.snapshots = looked_at;
        self.partition.findings.extend(found);
    }

    fn metadata_snapshots(&mut self) {
        for path in &self.layout.metadata_snapshots {
            let found = metadata_snapshot::check(self.io, path, self.layout.deep);
            let finding = found.unwrap_or_else(|error| Some(super::unreadable(&error)));
            self.partition.findings.extend(finding);
        }
    }

    fn read_snapshot(&self, path: &Path) -> Result<Vec<SnapshotEntry>, Box<Finding>> {
        let offset = path
            .file_name()
            .and_then(|name| names::parse(&name.to_string_lossy()));
        let kind = Kind::Snapshot {
            offset: offset.map_or(0, |name| name.offset.get()),
        };
        let bytes = match checkpoint::read_file(self.io, path) {
            Ok(bytes) => bytes.unwrap_or_default(),
            Err(error) => return Err(Box::new(super::unreadable(&error))),
        };
        decode_snapshot(&bytes).map_err(|corrupt| {
            let at_start = "it is removed, and an older one or the whole log is read instead";
            let finding = Finding::new(kind, path, corrupt.found, corrupt.expected, at_start);
            Box::new(finding.at(corrupt.position as u64))
        })
    }

    /// The list of epochs: `None` if there is none that can be read, of which the second tells.
    fn read_epochs(&self, path: &Path) -> (Option<Vec<EpochEntry>>, Option<Finding>) {
        match self.io.stat(path) {
            Err(error) => return (None, Some(super::unreadable(&error))),
            Ok(None) => return (None, None),
            Ok(Some(_)) => {}
        }
        match LeaderEpochCheckpoint::new(&self.layout.path).read(self.io) {
            Ok(entries) => (Some(entries), None),
            Err(error) => {
                let text = error.to_string();
                let prefix = format!("{}: ", path.display());
                let found = text.strip_prefix(&prefix).unwrap_or(&text).to_owned();
                let at_start = "the partition does not load: its log directory goes offline";
                (
                    None,
                    Some(Finding::new(Kind::LeaderEpochs, path, found, "", at_start)),
                )
            }
        }
    }

    /// A note on the first epoch that no leader had.
    fn stray(&self, stray: &EpochChange, of_leaders: &[EpochChange], path: &Path) -> Finding {
        let holder = self
            .partition
            .segments
            .iter()
            .rev()
            .find(|segment| segment.base <= stray.offset);
        let file = holder.map_or(path, |segment| &segment.path);
        let around = of_leaders
            .iter()
            .rev()
            .find(|of| of.offset <= stray.offset)
            .or(of_leaders.first());
        let found = format!("leader epoch {} in a batch", stray.epoch);
        let expected = around.map_or(String::new(), |of| {
            format!("{}, as the batches around it have", of.epoch)
        });
        let latest = of_leaders.last().map_or(-1, |of| of.epoch);
        let at_start = if stray.epoch > latest {
            "where the segment is recovered, it drops the epochs behind it from the list, until a leader begins the next; \
             a follower that fetches the batch does so too"
        } else if stray.epoch >= 0 {
            "it is not noticed; a follower that fetches the batch drops later epochs from its list"
        } else {
            "it is not noticed; a follower that fetches the batch stops to replicate the partition"
        };
        Finding::new(Kind::Note, file, found, expected, at_start).at(stray.position)
    }

    fn epochs(&mut self) {
        let path = self.layout.path.join(names::LEADER_EPOCHS);
        let (entries, unreadable) = self.read_epochs(&path);
        let segments = &self.partition.segments;
        let changes: Vec<_> = segments
            .iter()
            .flat_map(|segment| &segment.epochs)
            .copied()
            .collect();
        let (changes, strays) = epochs_of_leaders(&changes, entries.as_deref());
        if let Some(stray) = strays.first() {
            self.add(self.stray(stray, &changes, &path));
        }
        let kind = Kind::LeaderEpochs;
        let Some(entries) = entries else {
            // A topic of an older format has no such list, whatever was written to it in between.
            let is_missing =
                !changes.is_empty() && !self.partition.segments.iter().any(|segment| segment.has_legacy);
            let at_start = "the list begins empty unless the log is recovered; followers fall back to the high watermark";
            let missing = || Finding::new(kind, &path, "no such file", "the epochs of the log", at_start);
            let finding = unreadable.or_else(|| is_missing.then(missing));
            return self.partition.findings.extend(finding);
        };
        let is_ordered = entries
            .windows(2)
            .all(|pair| pair[0].epoch < pair[1].epoch && pair[0].start_offset < pair[1].start_offset);
        let end = self.partition.end();
        let is_cut = self.whole_count() < self.partition.segments.len();
        let covering = |offset: i64| covering(&entries, offset);
        let log_start = self.layout.log_start.unwrap_or(0);
        let contradiction = changes.iter().find(|change| {
            change.offset >= log_start
                && covering(change.offset).is_none_or(|entry| entry.epoch.get() != change.epoch)
        });
        let beyond = entries
            .last()
            .filter(|entry| entry.start_offset.get() > end && !is_cut);
        let text = |entry: &EpochEntry| format!("epoch {} from offset {}", entry.epoch, entry.start_offset);
        let at_start =
            "entries that conflict give way to later ones; followers may truncate where they need not";
        let finding = if !is_ordered
            || entries
                .iter()
                .any(|entry| entry.epoch.get() < 0 || entry.start_offset.get() < 0)
        {
            let lines = entries.iter().map(text).collect::<Vec<_>>().join(", ");
            let short = lines.chars().take(200).collect::<String>();
            Some(Finding::new(
                kind,
                &path,
                short,
                "epochs and offsets that increase",
                at_start,
            ))
        } else if let Some(change) = contradiction {
            let found = match covering(change.offset) {
                Some(entry) => text(entry),
                None => format!("no epoch at offset {}", change.offset),
            };
            let expected = format!(
                "epoch {} at offset {}, as its batch has",
                change.epoch, change.offset
            );
            Some(Finding::new(kind, &path, found, expected, at_start))
        } else {
            beyond.map(|entry| {
                let expected = format!("offsets up to the end of the log, {end}");
                Finding::new(kind, &path, text(entry), expected, "the entry is removed")
            })
        };
        self.partition.epochs = Some(entries);
        self.partition.findings.extend(finding);
    }
}

/// Whether records were taken out of batches, or all out of a segment that others follow.
fn tells_of_compaction(segments: &[Segment]) -> bool {
    let is_emptied = segments
        .iter()
        .rev()
        .skip(1)
        .any(|segment| segment.size_bytes == 0);
    is_emptied || segments.iter().any(|segment| segment.is_compacted)
}
