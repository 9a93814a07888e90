//! [`Pending`]: records that one side lacks between its start and its end, until it is known whether compaction took
//! them away.
//!
//! Compaction takes away a record whose key comes again, a deletion after its time, a marker, and what was aborted. A
//! record without such a reason is missing. At most [`PENDING_MAX`] records wait; of further ones it is not said.

use std::collections::HashMap;

use super::Side;
use super::replica::{Digest, Entry};

/// Some 64 bytes each.
const PENDING_MAX: usize = 1 << 20;

/// Why a record is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Absence {
    Compacted,
    /// Known later.
    Waiting,
    /// It would have been known later, but too many wait.
    Unknown,
    Missing,
}

#[derive(Debug, Default)]
pub(super) struct Pending {
    by_key: HashMap<Digest, Waiting>,
    /// Of transactions, without a key: by producer.
    by_producer: HashMap<i64, Vec<(Side, i64)>>,
    count: usize,
}

#[derive(Clone, Copy, Debug)]
struct Waiting {
    /// The side that has it.
    side: Side,
    offset: i64,
    /// Of a transaction.
    producer_id: Option<i64>,
}

impl Pending {
    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// A record that `side` alone has. To be called behind [`Pending::see`].
    pub(super) fn absent(&mut self, side: Side, entry: &Entry) -> Absence {
        if entry.is_control || !entry.key.is_null() && entry.value.is_null() {
            return Absence::Compacted;
        }
        let producer_id = entry.is_transactional.then_some(entry.producer.0);
        if entry.key.is_null() && producer_id.is_none() {
            return Absence::Missing;
        }
        if self.count == PENDING_MAX {
            return Absence::Unknown;
        }
        self.count += 1;
        match producer_id {
            Some(id) if entry.key.is_null() => {
                self.by_producer.entry(id).or_default().push((side, entry.offset));
            }
            _ => {
                let waiting = Waiting {
                    side,
                    offset: entry.offset,
                    producer_id,
                };
                // Those with the same key were taken out by `see`.
                self.by_key.insert(entry.key, waiting);
            }
        }
        Absence::Waiting
    }

    /// A record of any side, in the order of offsets: what it explains waits no more. Returns how many that are, by
    /// side.
    pub(super) fn see(&mut self, entry: &Entry) -> [u64; 2] {
        let mut explained = [0, 0];
        if self.is_empty() {
            return explained;
        }
        if entry.is_abort {
            let id = entry.producer.0;
            for (side, _) in self.by_producer.remove(&id).unwrap_or_default() {
                explained[side as usize] += 1;
            }
            self.by_key.retain(|_, waiting| {
                let is_aborted = waiting.producer_id == Some(id);
                explained[waiting.side as usize] += u64::from(is_aborted);
                !is_aborted
            });
        } else if !entry.is_control
            && !entry.key.is_null()
            && let Some(waiting) = self.by_key.remove(&entry.key)
        {
            explained[waiting.side as usize] += 1;
        }
        self.count -= (explained[0] + explained[1]) as usize;
        explained
    }

    /// What nothing explained: the side that has it, and the offset, in order.
    pub(super) fn missing(self) -> Vec<(Side, i64)> {
        let of_keys = self
            .by_key
            .into_values()
            .map(|waiting| (waiting.side, waiting.offset));
        let mut missing: Vec<_> = of_keys.chain(self.by_producer.into_values().flatten()).collect();
        missing.sort_by_key(|(side, offset)| (*side as usize, *offset));
        missing
    }
}
