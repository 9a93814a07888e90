//! Which leader epoch each part of a log was written in: the list behind truncation by epoch.
//!
//! Pure: the log holds it under its lock and writes `leader-epoch-checkpoint` whenever a change is reported
//! (`true`).
//!
//! Invariant: epochs and start offsets both strictly increase along the list. A new entry that would break
//! this removes the later ones which conflict with it.
//!
//! Left to others: the file's text (`checkpoint`), and when to assign (leader: on its election at the log
//! end, follower: from the batches it appends). Source: `LeaderEpochFileCache.scala`; KIP-101, KIP-279,
//! KIP-320.

use crate::units::{LeaderEpoch, Offset};

pub use crate::checkpoint::EpochEntry;

/// The answer to "where does this epoch end?": the largest known epoch at or below the one asked for, and its
/// end (exclusive).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpochEndOffset {
    pub epoch: LeaderEpoch,
    pub end_offset: Offset,
}

/// The epochs of one log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeaderEpochCache {
    entries: Vec<EpochEntry>,
}

impl LeaderEpochCache {
    /// Without any epoch.
    pub fn new() -> LeaderEpochCache {
        LeaderEpochCache::default()
    }

    /// From the lines of a checkpoint file, each assigned in turn: entries that conflict with a later line
    /// give way to it. Lines with a negative number are left out; no writer makes them.
    pub fn from_entries(entries: impl IntoIterator<Item = EpochEntry>) -> LeaderEpochCache {
        let mut cache = LeaderEpochCache::new();
        for entry in entries {
            if entry.epoch.get() >= 0 && entry.start_offset.get() >= 0 {
                cache.assign(entry.epoch, entry.start_offset);
            }
        }
        cache
    }

    /// In increasing order, for the checkpoint file.
    pub fn entries(&self) -> &[EpochEntry] {
        &self.entries
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Notes that `epoch` starts at `start_offset`. Nothing happens if it is the latest epoch already and did
    /// not start later; otherwise entries with an epoch or start offset not below the new ones are removed.
    /// Returns whether the list changed.
    ///
    /// # Panics
    /// If one of the two is negative: batches without an epoch are not assigned.
    pub fn assign(&mut self, epoch: LeaderEpoch, start_offset: Offset) -> bool {
        assert!(
            epoch.get() >= 0 && start_offset.get() >= 0,
            "leader epoch {epoch} at offset {start_offset}"
        );
        if self
            .latest()
            .is_some_and(|latest| latest.epoch == epoch && start_offset >= latest.start_offset)
        {
            return false;
        }
        while self
            .latest()
            .is_some_and(|last| last.epoch >= epoch || last.start_offset >= start_offset)
        {
            self.entries.pop();
        }
        self.entries.push(EpochEntry { epoch, start_offset });
        true
    }

    pub fn latest(&self) -> Option<EpochEntry> {
        self.entries.last().copied()
    }

    pub fn latest_epoch(&self) -> Option<LeaderEpoch> {
        self.latest().map(|entry| entry.epoch)
    }

    /// The epoch before the latest.
    pub fn previous_epoch(&self) -> Option<LeaderEpoch> {
        self.entries.iter().rev().nth(1).map(|entry| entry.epoch)
    }

    pub fn earliest(&self) -> Option<EpochEntry> {
        self.entries.first().copied()
    }

    /// The epoch in which the record at `offset` was written, as far as known.
    pub fn epoch_at(&self, offset: Offset) -> Option<LeaderEpoch> {
        let after = self.entries.partition_point(|entry| entry.start_offset <= offset);
        after.checked_sub(1).map(|index| self.entries[index].epoch)
    }

    /// Where `requested` ends in this log, of which the end is `log_end_offset`.
    ///
    /// | requested                                    | answer                                              |
    /// |----------------------------------------------|-----------------------------------------------------|
    /// | `None` (−1 on the wire)                      | `None`: undefined, (−1, −1) on the wire             |
    /// | the latest epoch                             | it, `log_end_offset`                                |
    /// | above the latest, or nothing is known        | `None`                                              |
    /// | between two known epochs, or one of them     | the largest at or below it, start of the next above |
    /// | below the earliest                           | `requested` itself, start of the earliest           |
    pub fn end_offset_for(
        &self,
        requested: Option<LeaderEpoch>,
        log_end_offset: Offset,
    ) -> Option<EpochEndOffset> {
        let requested = requested?;
        if self.latest_epoch() == Some(requested) {
            return Some(EpochEndOffset {
                epoch: requested,
                end_offset: log_end_offset,
            });
        }
        let after = self.entries.partition_point(|entry| entry.epoch <= requested);
        let higher = self.entries.get(after)?;
        let epoch = after
            .checked_sub(1)
            .map_or(requested, |index| self.entries[index].epoch);
        Some(EpochEndOffset {
            epoch,
            end_offset: higher.start_offset,
        })
    }

    /// Removes entries that start at or after `end_offset`, the log's new end. Returns whether the list
    /// changed.
    pub fn truncate_from_end(&mut self, end_offset: Offset) -> bool {
        let before = self.entries.len();
        if end_offset.get() >= 0 {
            self.entries.truncate(
                self.entries
                    .partition_point(|entry| entry.start_offset < end_offset),
            );
        }
        self.entries.len() != before
    }

    /// Removes epochs that ended before `start_offset`, the log's new start; the one that covers it then
    /// starts there. Returns whether the list changed.
    pub fn truncate_from_start(&mut self, start_offset: Offset) -> bool {
        let after = self
            .entries
            .partition_point(|entry| entry.start_offset <= start_offset);
        let Some(covering) = after.checked_sub(1) else {
            return false;
        };
        if covering == 0 && self.entries[0].start_offset == start_offset {
            return false;
        }
        self.entries.drain(..covering);
        self.entries[0].start_offset = start_offset;
        true
    }

    /// Removes everything. Returns whether the list changed.
    pub fn clear(&mut self) -> bool {
        let changed = !self.entries.is_empty();
        self.entries.clear();
        changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache(entries: &[(i32, i64)]) -> LeaderEpochCache {
        LeaderEpochCache::from_entries(entries.iter().map(|(e, o)| EpochEntry {
            epoch: LeaderEpoch(*e),
            start_offset: Offset(*o),
        }))
    }

    fn list(cache: &LeaderEpochCache) -> Vec<(i32, i64)> {
        cache
            .entries()
            .iter()
            .map(|entry| (entry.epoch.get(), entry.start_offset.get()))
            .collect()
    }

    #[test]
    fn assigning_keeps_epochs_and_offsets_increasing_by_removing_what_conflicts() {
        for (before, new, after, changed) in [
            (&[][..], (0, 0), &[(0, 0)][..], true),
            (&[(1, 5)], (1, 9), &[(1, 5)], false),
            (&[(1, 5)], (1, 5), &[(1, 5)], false),
            (&[(1, 5)], (1, 3), &[(1, 3)], true),
            (&[(1, 5)], (2, 5), &[(2, 5)], true),
            (&[(1, 5), (2, 8)], (3, 12), &[(1, 5), (2, 8), (3, 12)], true),
            (
                &[(1, 5), (2, 8), (4, 10)],
                (3, 12),
                &[(1, 5), (2, 8), (3, 12)],
                true,
            ),
            (&[(1, 5), (2, 8), (4, 10)], (5, 7), &[(1, 5), (5, 7)], true),
            (&[(3, 5)], (2, 2), &[(2, 2)], true),
        ] {
            let mut cache = cache(before);
            assert_eq!(
                cache.assign(LeaderEpoch(new.0), Offset(new.1)),
                changed,
                "{before:?} + {new:?}"
            );
            assert_eq!(list(&cache), after, "{before:?} + {new:?}");
        }
    }

    #[test]
    fn the_end_of_an_epoch_is_the_start_of_the_next_known_one() {
        let known = &[(2, 10), (4, 20), (5, 30)][..];
        for (entries, requested, answer) in [
            (known, -1, None),
            (known, 5, Some((5, 99))),
            (known, 6, None),
            (known, 4, Some((4, 30))),
            (known, 3, Some((2, 20))),
            (known, 2, Some((2, 20))),
            (known, 0, Some((0, 10))),
            (&[], 0, None),
            (&[], -1, None),
        ] {
            let requested = (requested >= 0).then_some(LeaderEpoch(requested));
            let found = cache(entries).end_offset_for(requested, Offset(99));
            assert_eq!(
                found.map(|end| (end.epoch.get(), end.end_offset.get())),
                answer,
                "{requested:?}"
            );
        }
    }

    #[test]
    fn truncating_the_end_removes_epochs_that_start_at_or_after_it() {
        let known = &[(2, 10), (4, 20), (5, 30)];
        for (end, after) in [
            (31, &known[..]),
            (30, &known[..2]),
            (20, &known[..1]),
            (11, &known[..1]),
            (10, &[]),
            (0, &[]),
            (-1, &known[..]),
        ] {
            let mut cache = cache(known);
            assert_eq!(cache.truncate_from_end(Offset(end)), after.len() < 3);
            assert_eq!(list(&cache), after, "end {end}");
        }
    }

    #[test]
    fn truncating_the_start_moves_the_covering_epoch_to_it() {
        let known = &[(2, 10), (4, 20), (5, 30)];
        for (start, after, changed) in [
            (9, &known[..], false),
            (10, &known[..], false),
            (15, &[(2, 15), (4, 20), (5, 30)], true),
            (20, &[(4, 20), (5, 30)], true),
            (29, &[(4, 29), (5, 30)], true),
            (77, &[(5, 77)], true),
        ] {
            let mut cache = cache(known);
            assert_eq!(cache.truncate_from_start(Offset(start)), changed, "start {start}");
            assert_eq!(list(&cache), after, "start {start}");
        }
    }

    #[test]
    fn the_epoch_of_an_offset_is_that_of_the_entry_that_covers_it() {
        let cache = cache(&[(2, 10), (4, 20)]);
        for (offset, epoch) in [
            (9, None),
            (10, Some(2)),
            (19, Some(2)),
            (20, Some(4)),
            (1 << 40, Some(4)),
        ] {
            assert_eq!(cache.epoch_at(Offset(offset)).map(LeaderEpoch::get), epoch);
        }
        assert_eq!(cache.previous_epoch(), Some(LeaderEpoch(2)));
        assert_eq!(cache.earliest().map(|entry| entry.start_offset), Some(Offset(10)));
    }
}
