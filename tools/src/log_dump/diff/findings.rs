//! [`Findings`]: what a comparison of one partition found, for people and as JSON.

use std::fmt;
use std::path::PathBuf;

use serde::Serialize;

use super::super::thing::Damage;
use super::Side;
use super::replica::{At, Replica};

/// Ranges and damages that are told one by one; further ones are counted.
const LISTED_MAX: usize = 100;

#[derive(Debug, Serialize)]
#[serde(tag = "type", rename = "diff", rename_all = "camelCase")]
pub(super) struct Findings {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) topic: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) partition: Option<i32>,
    pub(super) same: bool,
    /// Of both sides, alike or not.
    pub(super) compared_records: u64,
    pub(super) first_difference: Option<Difference>,
    /// At offsets that both sides have.
    pub(super) differing_records: u64,
    /// Records that one side alone has, other than by compaction.
    pub(super) only_in: Vec<Range>,
    pub(super) further_ranges: u64,
    pub(super) compacted_away: OfSides<u64>,
    /// Records of one side of which it is not known whether compaction took them from the other.
    pub(super) unexplained: u64,
    pub(super) epochs: Vec<EpochDifference>,
    pub(super) damages: Vec<DamageOfSide>,
    pub(super) further_damages: u64,
    pub(super) a: Shape,
    pub(super) b: Shape,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct OfSides<T> {
    pub(super) a: T,
    pub(super) b: T,
}

/// A record of which the sides hold different ones.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Difference {
    pub(super) offset: i64,
    pub(super) fields: Vec<&'static str>,
    pub(super) a: Place,
    pub(super) b: Place,
}

/// The batch with a record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Place {
    file: PathBuf,
    position: u64,
}

impl From<At> for Place {
    fn from(at: At) -> Place {
        Place {
            file: at.file,
            position: at.position,
        }
    }
}

/// Offsets that one side alone has records at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Range {
    pub(super) side: Side,
    pub(super) from: i64,
    pub(super) to: i64,
    pub(super) records: u64,
    pub(super) place: RangePlace,
}

/// Where that is on the other side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum RangePlace {
    BeforeStart,
    Within,
    BehindEnd,
}

/// The first offset where the sides have different leader epochs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct EpochDifference {
    /// `batches` or `checkpoint`.
    pub(super) of: &'static str,
    pub(super) offset: i64,
    pub(super) a: Option<i32>,
    pub(super) b: Option<i32>,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct DamageOfSide {
    pub(super) side: Side,
    file: PathBuf,
    position: u64,
    #[serde(flatten)]
    damage: Damage,
}

/// What a side's files look like.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Shape {
    pub(super) directory: PathBuf,
    pub(super) start_offset: i64,
    pub(super) end_offset: i64,
    pub(super) segments: u64,
    pub(super) batches: u64,
    pub(super) codecs: Vec<String>,
    pub(super) formats: Vec<i8>,
}

impl Shape {
    pub(super) fn of(replica: &Replica<'_>, directory: PathBuf) -> Shape {
        Shape {
            directory,
            start_offset: replica.start,
            end_offset: replica.end,
            segments: replica.segment_count,
            batches: replica.batch_count,
            codecs: replica.codecs.iter().map(|name| name.to_lowercase()).collect(),
            formats: replica.formats.iter().copied().collect(),
        }
    }
}

impl Findings {
    pub(super) fn is_same(&self) -> bool {
        self.same
    }

    /// Adds a record that one side alone has; to the last range if it is the next one there.
    pub(super) fn add_only_in(&mut self, side: Side, offset: i64, place: RangePlace, is_next: bool) {
        let last = self.only_in.last_mut();
        let last = last.filter(|range| {
            is_next && self.further_ranges == 0 && range.side == side && range.place == place
        });
        if let Some(range) = last {
            range.to = offset;
            range.records += 1;
        } else if self.only_in.len() < LISTED_MAX {
            self.only_in.push(Range {
                side,
                from: offset,
                to: offset,
                records: 1,
                place,
            });
        } else if !is_next {
            self.further_ranges += 1;
        }
    }

    pub(super) fn add_damages(&mut self, side: Side, damages: Vec<(At, Damage)>) {
        for (at, damage) in damages {
            if self.damages.len() == LISTED_MAX {
                self.further_damages += 1;
                continue;
            }
            self.damages.push(DamageOfSide {
                side,
                file: at.file,
                position: at.position,
                damage,
            });
        }
    }

    /// Nothing that is called a difference is among them.
    pub(super) fn conclude(&mut self) {
        self.same = self.differing_records == 0
            && self.only_in.is_empty()
            && self.epochs.is_empty()
            && self.damages.is_empty();
    }

    fn layout(&self) -> Vec<String> {
        let (a, b) = (&self.a, &self.b);
        let mut told = Vec::new();
        let mut pair = |what: &str, of_a: String, of_b: String| {
            if of_a != of_b {
                told.push(format!("{what}: A {of_a}, B {of_b}"));
            }
        };
        pair(
            "log start",
            a.start_offset.to_string(),
            b.start_offset.to_string(),
        );
        pair("log end", a.end_offset.to_string(), b.end_offset.to_string());
        pair("segments", a.segments.to_string(), b.segments.to_string());
        pair("batches", a.batches.to_string(), b.batches.to_string());
        pair("codecs", a.codecs.join(","), b.codecs.join(","));
        pair(
            "message formats",
            format!("{:?}", a.formats),
            format!("{:?}", b.formats),
        );
        let compacted = self.compacted_away;
        for (count, side) in [(compacted.a, Side::A), (compacted.b, Side::B)] {
            if count > 0 {
                told.push(format!(
                    "compaction took {count} records away from {side:?} that the other still has"
                ));
            }
        }
        if self.unexplained > 0 {
            told.push(format!(
                "{} further records are on one side alone; whether compaction took them away was not looked at",
                self.unexplained
            ));
        }
        told
    }
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match (&self.topic, self.partition) {
            (Some(topic), Some(partition)) => format!("{topic}-{partition}"),
            _ => self.a.directory.display().to_string(),
        };
        let verdict = if self.same {
            "the same records"
        } else {
            "DIFFERENT"
        };
        writeln!(f, "{name}: {verdict}, {} compared", self.compared_records)?;
        if let Some(first) = &self.first_difference {
            writeln!(
                f,
                "  first difference: offset {}, {} (A {} byte {}, B {} byte {})",
                first.offset,
                first.fields.join(", "),
                first.a.file.display(),
                first.a.position,
                first.b.file.display(),
                first.b.position
            )?;
            writeln!(f, "  records that differ: {}", self.differing_records)?;
        }
        for range in &self.only_in {
            let other = match range.side {
                Side::A => Side::B,
                Side::B => Side::A,
            };
            let place = match range.place {
                RangePlace::BeforeStart => format!("before the start of {other:?}"),
                RangePlace::Within => format!("missing in {other:?}"),
                RangePlace::BehindEnd => format!("behind the end of {other:?}"),
            };
            writeln!(
                f,
                "  only in {:?}: offsets {} to {}, {} records, {place}",
                range.side, range.from, range.to, range.records
            )?;
        }
        if self.further_ranges > 0 {
            writeln!(f, "  and {} further ranges", self.further_ranges)?;
        }
        for epochs in &self.epochs {
            let told =
                |epoch: Option<i32>| epoch.map_or_else(|| "none".to_owned(), |epoch| epoch.to_string());
            writeln!(
                f,
                "  leader epochs of the {} differ from offset {}: A {}, B {}",
                epochs.of,
                epochs.offset,
                told(epochs.a),
                told(epochs.b)
            )?;
        }
        for damage in &self.damages {
            writeln!(
                f,
                "  damage in {:?}: {}: byte {}: {}",
                damage.side,
                damage.file.display(),
                damage.position,
                damage.damage
            )?;
        }
        if self.further_damages > 0 {
            writeln!(f, "  and {} further damages", self.further_damages)?;
        }
        self.layout().iter().try_for_each(|line| writeln!(f, "  {line}"))
    }
}
