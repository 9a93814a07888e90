//! [`compare`]: two sides of a partition in step.

use std::path::Path;

use milena_engine::io::Io;

use super::super::report::Read;
use super::super::selection::partition_of;
use super::Side;
use super::epochs;
use super::findings::{Difference, EpochDifference, Findings, OfSides, RangePlace, Shape};
use super::pending::{Absence, Pending};
use super::replica::{Entry, Replica, leader_epoch};

pub(super) fn compare(io: &dyn Io, a: &Path, b: &Path, max_batch_size: usize) -> Read<Findings> {
    let name = a.file_name().and_then(|name| partition_of(name.to_str()?));
    let (topic, partition) = name.unzip();
    let mut comparison = Comparison {
        a: Replica::open(io, a, max_batch_size),
        b: Replica::open(io, b, max_batch_size),
        pending: Pending::default(),
        last_only_in: None,
        findings: Findings {
            topic,
            partition,
            same: false,
            compared_records: 0,
            first_difference: None,
            differing_records: 0,
            only_in: Vec::new(),
            further_ranges: 0,
            compacted_away: OfSides::default(),
            unexplained: 0,
            epochs: Vec::new(),
            damages: Vec::new(),
            further_damages: 0,
            a: Shape::default(),
            b: Shape::default(),
        },
    };
    while comparison.step()? {
        comparison.take_damages();
    }
    comparison.take_damages();
    let Comparison {
        a: of_a,
        b: of_b,
        pending,
        mut findings,
        ..
    } = comparison;
    findings.a = Shape::of(&of_a, a.to_path_buf());
    findings.b = Shape::of(&of_b, b.to_path_buf());
    let mut last = None;
    for (side, offset) in pending.missing() {
        let is_next = last.is_some_and(|(before, at): (Side, i64)| before == side && at + 1 == offset);
        findings.add_only_in(side, offset, RangePlace::Within, is_next);
        last = Some((side, offset));
    }
    compare_epochs(io, a, b, &mut findings);
    findings.conclude();
    Ok(findings)
}

struct Comparison<'a> {
    a: Replica<'a>,
    b: Replica<'a>,
    pending: Pending,
    /// The record before was on this side alone.
    last_only_in: Option<(Side, RangePlace)>,
    findings: Findings,
}

impl Comparison<'_> {
    /// Compares what comes next; whether there was anything.
    fn step(&mut self) -> Read<bool> {
        if self.a.is_between_batches() && self.b.is_between_batches() && self.same_batch()? {
            return Ok(true);
        }
        let (a, b) = (self.a.record()?.cloned(), self.b.record()?.cloned());
        match (a, b) {
            (None, None) => return Ok(false),
            (Some(a), Some(b)) if a.offset == b.offset => {
                self.both(&a, &b);
                self.a.advance()?;
                self.b.advance()?;
            }
            (Some(a), b) if b.as_ref().is_none_or(|b| a.offset < b.offset) => {
                self.only_in(Side::A, &a, b.is_none());
                self.a.advance()?;
            }
            (a, Some(b)) => {
                self.only_in(Side::B, &b, a.is_none());
                self.b.advance()?;
            }
            // The arm before the last takes all that is left of this.
            (Some(_), None) => return Ok(false),
        }
        Ok(true)
    }

    /// Passes the next batch of both sides, if it is the same to the byte.
    fn same_batch(&mut self) -> Read<bool> {
        let (Some(a), Some(b)) = (self.a.batch()?, self.b.batch()?) else {
            return Ok(false);
        };
        // What is waited for may be in the records; a wrapper of format v0 or v1 does not say how many are in it.
        let is_counted = a.is_v2() || !a.is_compressed();
        if !self.pending.is_empty()
            || !is_counted
            || !a.has_same_records(&b)
            || !self.a.is_valid(&a)?
            || !self.b.is_valid(&b)?
        {
            return Ok(false);
        }
        self.epochs(a.base_offset(), leader_epoch(&a), leader_epoch(&b));
        let count = match a.is_v2() {
            true => a.record_count().max(0) as u64,
            false => 1,
        };
        self.findings.compared_records += count;
        self.last_only_in = None;
        self.a.pass(&a);
        self.b.pass(&b);
        Ok(true)
    }

    fn both(&mut self, a: &Entry, b: &Entry) {
        self.findings.compared_records += 1;
        self.last_only_in = None;
        self.see(a);
        self.epochs(a.offset, a.leader_epoch, b.leader_epoch);
        let fields: Vec<_> = [
            ("timestamp", a.timestamp != b.timestamp),
            ("key", a.key != b.key),
            ("value", a.value != b.value),
            ("headers", a.headers != b.headers),
            ("producer", a.producer != b.producer),
            ("transactional", a.is_transactional != b.is_transactional),
            ("control", a.is_control != b.is_control),
        ]
        .into_iter()
        .filter_map(|(name, differs)| differs.then_some(name))
        .collect();
        if fields.is_empty() {
            return;
        }
        self.findings.differing_records += 1;
        if self.findings.first_difference.is_none() {
            self.findings.first_difference = Some(Difference {
                offset: a.offset,
                fields,
                a: self.a.at().into(),
                b: self.b.at().into(),
            });
        }
    }

    fn only_in(&mut self, side: Side, entry: &Entry, other_is_done: bool) {
        self.see(entry);
        let other = match side {
            Side::A => &self.b,
            Side::B => &self.a,
        };
        let place = if entry.offset < other.start {
            RangePlace::BeforeStart
        } else if other_is_done && entry.offset >= other.end {
            RangePlace::BehindEnd
        } else {
            match self.pending.absent(side, entry) {
                Absence::Missing => RangePlace::Within,
                Absence::Waiting => return,
                Absence::Compacted => return self.explained(side, 1),
                Absence::Unknown => {
                    self.findings.unexplained += 1;
                    return;
                }
            }
        };
        let is_next = self.last_only_in == Some((side, place));
        self.findings.add_only_in(side, entry.offset, place, is_next);
        self.last_only_in = Some((side, place));
    }

    fn see(&mut self, entry: &Entry) {
        let [in_a, in_b] = self.pending.see(entry);
        self.explained(Side::A, in_a);
        self.explained(Side::B, in_b);
    }

    /// Records that `side` alone has because of compaction of the other.
    fn explained(&mut self, side: Side, count: u64) {
        match side {
            Side::A => self.findings.compacted_away.b += count,
            Side::B => self.findings.compacted_away.a += count,
        }
    }

    fn epochs(&mut self, offset: i64, a: i32, b: i32) {
        let is_known = a >= 0 && b >= 0;
        if is_known && a != b && self.findings.epochs.is_empty() {
            self.findings.epochs.push(EpochDifference {
                of: "batches",
                offset,
                a: Some(a),
                b: Some(b),
            });
        }
    }

    fn take_damages(&mut self) {
        let (a, b) = (
            std::mem::take(&mut self.a.damages),
            std::mem::take(&mut self.b.damages),
        );
        self.findings.add_damages(Side::A, a);
        self.findings.add_damages(Side::B, b);
    }
}

/// Holds the checkpoints against each other, for the offsets that both sides have.
fn compare_epochs(io: &dyn Io, a: &Path, b: &Path, findings: &mut Findings) {
    let mut read = |side: Side, directory: &Path| match epochs::read(io, directory) {
        Ok(epochs) => epochs,
        Err(error) => {
            let at = super::replica::At {
                file: directory.join("leader-epoch-checkpoint"),
                position: 0,
            };
            findings.add_damages(side, vec![(at, error.to_string().into())]);
            None
        }
    };
    let (Some(of_a), Some(of_b)) = (read(Side::A, a), read(Side::B, b)) else {
        return;
    };
    let first = findings.a.start_offset.max(findings.b.start_offset);
    let end = findings.a.end_offset.min(findings.b.end_offset);
    if let Some((offset, a, b)) = epochs::first_difference(&of_a, &of_b, first, end) {
        findings.epochs.push(EpochDifference {
            of: "checkpoint",
            offset,
            a,
            b,
        });
    }
}
