//! [`Filter`]: which records are asked for, by offset, time, key or producer.
//!
//! A batch passes if one of its records does. Where its header cannot tell, [`Verdict::Look`] says that its records
//! must be looked at: the timestamps of a batch need no order, and a compressed set of format v0 or v1 does not say
//! where it begins. A record without a timestamp (format v0) is at no time, and a control record has no key.

use super::raw_batch::RawBatch;
use super::selection::FileKind;
use super::thing::RecordThing;

/// Bounds are part of what they bound.
#[derive(Clone, Debug, Default)]
pub(super) struct Filter {
    pub(super) from_offset: Option<i64>,
    pub(super) to_offset: Option<i64>,
    pub(super) from_time: Option<i64>,
    pub(super) to_time: Option<i64>,
    pub(super) key: Option<Vec<u8>>,
    pub(super) producer_id: Option<i64>,
}

/// Whether a batch holds a record that passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    No,
    Yes,
    Look,
}

/// How many records of a batch one part of a filter lets pass, as far as the header tells.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Share {
    None,
    All,
    /// One at least.
    Some,
    Unknown,
}

impl Filter {
    pub(super) fn is_active(&self) -> bool {
        self.has_offsets() || self.has_times() || self.key.is_some() || self.producer_id.is_some()
    }

    /// Every record must be looked at.
    pub(super) fn needs_records(&self) -> bool {
        self.key.is_some()
    }

    pub(super) fn has_offsets(&self) -> bool {
        self.from_offset.is_some() || self.to_offset.is_some()
    }

    pub(super) fn has_times(&self) -> bool {
        self.from_time.is_some() || self.to_time.is_some()
    }

    /// Whether things of such a file can be chosen by all that is asked for.
    pub(super) fn applies_to(&self, kind: FileKind) -> bool {
        use FileKind::{Log, OffsetIndex, ProducerSnapshot, Snapshot, TimeIndex, TransactionIndex};
        let is_log = matches!(kind, Log | Snapshot);
        let by_offset = is_log || matches!(kind, OffsetIndex | TimeIndex | TransactionIndex);
        let by_producer = is_log || matches!(kind, TransactionIndex | ProducerSnapshot);
        (!self.has_offsets() || by_offset)
            && (!self.has_times() || is_log || kind == TimeIndex)
            && (self.key.is_none() || is_log)
            && (self.producer_id.is_none() || by_producer)
    }

    pub(super) fn offset(&self, offset: i64) -> bool {
        self.offsets(offset, offset)
    }

    /// Whether one of these offsets passes.
    pub(super) fn offsets(&self, first: i64, last: i64) -> bool {
        self.from_offset.is_none_or(|from| last >= from) && self.to_offset.is_none_or(|to| first <= to)
    }

    pub(super) fn time(&self, timestamp: i64) -> bool {
        !self.has_times()
            || timestamp >= 0
                && self.from_time.is_none_or(|from| timestamp >= from)
                && self.to_time.is_none_or(|to| timestamp <= to)
    }

    pub(super) fn producer(&self, id: i64) -> bool {
        self.producer_id.is_none_or(|wanted| id == wanted)
    }

    pub(super) fn record(&self, record: &RecordThing<'_>) -> bool {
        self.offset(record.offset)
            && self.time(record.timestamp)
            && self.of_producer(record.raw) == Share::All
            && self.key.as_deref().is_none_or(|wanted| {
                !record.raw.is_control() && record.content.as_ref().is_ok_and(|(key, _)| *key == Some(wanted))
            })
    }

    pub(super) fn batch(&self, raw: &RawBatch) -> Verdict {
        if !self.is_active() {
            return Verdict::Yes;
        }
        let shares = [
            self.of_offsets(raw),
            self.of_times(raw),
            self.of_producer(raw),
            self.of_keys(raw),
        ];
        let count = |share| shares.iter().filter(|other| **other == share).count();
        if count(Share::None) > 0 {
            Verdict::No
        } else if raw.is_v2() && raw.record_count() <= 0 {
            // Compaction left its header alone: that is all there is to be judged.
            if self.key.is_none() {
                Verdict::Yes
            } else {
                Verdict::No
            }
        } else if count(Share::Unknown) == 0 && count(Share::Some) <= 1 {
            Verdict::Yes
        } else {
            Verdict::Look
        }
    }

    fn of_offsets(&self, raw: &RawBatch) -> Share {
        let (base, last) = (raw.base_offset(), raw.last_offset());
        if !self.has_offsets() {
            Share::All
        } else if raw.is_v2() {
            match (self.offset(base), self.offset(last)) {
                _ if !self.offsets(base, last) => Share::None,
                (true, true) => Share::All,
                _ => Share::Unknown,
            }
        } else if self.from_offset.is_some_and(|from| last < from) {
            Share::None
        } else if !raw.is_compressed() {
            if self.offset(last) {
                Share::All
            } else {
                Share::None
            }
        } else if self.offset(last) && self.from_offset.is_none() {
            Share::All
        } else if self.offset(last) {
            Share::Some
        } else {
            Share::Unknown
        }
    }

    fn of_times(&self, raw: &RawBatch) -> Share {
        let largest = raw.max_timestamp();
        if !self.has_times() {
            Share::All
        } else if self.from_time.is_some_and(|from| largest < from) || largest < 0 {
            Share::None
        } else if raw.is_append_time() || !raw.is_v2() && !raw.is_compressed() {
            if self.time(largest) {
                Share::All
            } else {
                Share::None
            }
        } else if self.time(largest) {
            // Records before it may have no timestamp, which is no time.
            Share::Some
        } else {
            Share::Unknown
        }
    }

    fn of_producer(&self, raw: &RawBatch) -> Share {
        match self.producer_id {
            None => Share::All,
            Some(wanted) if raw.is_v2() && raw.producer_id() == wanted => Share::All,
            Some(_) => Share::None,
        }
    }

    fn of_keys(&self, raw: &RawBatch) -> Share {
        match self.key {
            None => Share::All,
            Some(_) if raw.is_control() => Share::None,
            Some(_) => Share::Unknown,
        }
    }
}
