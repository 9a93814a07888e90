//! Which leader epochs of the batches leaders had, and which are strays.
//!
//! The checksum of a batch does not cover its leader epoch, so that a flipped bit there is not noticed by it. Epochs of
//! leaders never fall: of all choices of runs of batches whose epochs do not fall, that with the most batches is believed,
//! of two as good the one that the partition's list of epochs agrees with, or else the one with the later batches. All
//! other runs are strays, and so are epochs below 0.

use std::collections::BTreeMap;

use milena_engine::checkpoint::EpochEntry;

/// Batches with one epoch that follow each other, from the first of them on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::log_dump) struct EpochChange {
    pub(in crate::log_dump) epoch: i32,
    pub(in crate::log_dump) offset: i64,
    pub(in crate::log_dump) position: u64,
    pub(in crate::log_dump) batches: u64,
}

/// The epoch of an offset by a list of epochs.
pub(in crate::log_dump) fn covering(entries: &[EpochEntry], offset: i64) -> Option<&EpochEntry> {
    entries
        .iter()
        .rev()
        .find(|entry| entry.start_offset.get() <= offset)
}

/// Where the epochs of leaders begin, and the strays; `entries` is the list of epochs, if it can be read.
pub(in crate::log_dump) fn epochs_of_leaders(
    changes: &[EpochChange],
    entries: Option<&[EpochEntry]>,
) -> (Vec<EpochChange>, Vec<EpochChange>) {
    /// The best choice that ends with a run: what it counts for, and the run before it.
    struct Choice {
        weight: u64,
        before: Option<usize>,
    }
    let mut choices: Vec<Choice> = Vec::with_capacity(changes.len());
    // By the epoch that a choice ends with; a later epoch is kept for a heavier choice alone.
    let mut best: BTreeMap<i32, usize> = BTreeMap::new();
    for (index, change) in changes.iter().enumerate() {
        let listed = entries.and_then(|entries| covering(entries, change.offset));
        let is_listed = listed.is_some_and(|entry| entry.epoch.get() == change.epoch);
        let before = best.range(..=change.epoch).next_back().map(|(_, before)| *before);
        let weight =
            before.map_or(0, |before| choices[before].weight) + 2 * change.batches + u64::from(is_listed);
        choices.push(Choice { weight, before });
        if change.epoch < 0 {
            continue;
        }
        let beaten = best
            .range(change.epoch..)
            .take_while(|(_, other)| choices[**other].weight <= weight);
        for epoch in beaten.map(|(epoch, _)| *epoch).collect::<Vec<_>>() {
            best.remove(&epoch);
        }
        best.entry(change.epoch).or_insert(index);
    }
    let mut at = best.last_key_value().map(|(_, last)| *last);
    let (mut of_leaders, mut strays) = (Vec::new(), Vec::new());
    for (index, change) in changes.iter().enumerate().rev() {
        if at == Some(index) {
            at = choices[index].before;
            of_leaders.push(*change);
        } else {
            strays.push(*change);
        }
    }
    strays.reverse();
    of_leaders.reverse();
    of_leaders.dedup_by_key(|change| change.epoch);
    (of_leaders, strays)
}

#[cfg(test)]
mod tests {
    use milena_engine::units::{LeaderEpoch, Offset};

    use super::*;

    /// Runs of (epoch, batches), one offset a batch; returns (epoch, offset) of leaders and the epochs of strays.
    fn judged(runs: &[(i32, u64)], entries: Option<&[EpochEntry]>) -> (Vec<(i32, i64)>, Vec<i32>) {
        let mut offset = 0;
        let changes: Vec<_> = runs
            .iter()
            .map(|&(epoch, batches)| {
                let position = offset as u64;
                offset += batches as i64;
                EpochChange {
                    epoch,
                    offset: position as i64,
                    position,
                    batches,
                }
            })
            .collect();
        let (of_leaders, strays) = epochs_of_leaders(&changes, entries);
        (
            of_leaders.iter().map(|of| (of.epoch, of.offset)).collect(),
            strays.iter().map(|of| of.epoch).collect(),
        )
    }

    #[test]
    fn an_epoch_that_a_flipped_bit_raised_or_lowered_is_a_stray_wherever_it_stands() {
        let sound = [(0, 10), (3, 20), (5, 30)];
        assert_eq!(judged(&sound, None), (vec![(0, 0), (3, 10), (5, 30)], vec![]));
        for (stray, is_seen_last) in [(1 << 20, false), (1, true), (i32::MIN + 5, true)] {
            for (runs, expected) in [
                (
                    vec![(stray, 1), (0, 9), (3, 20), (5, 30)],
                    vec![(0, 1), (3, 10), (5, 30)],
                ),
                (
                    vec![(0, 10), (3, 7), (stray, 1), (3, 12), (5, 30)],
                    vec![(0, 0), (3, 10), (5, 30)],
                ),
                (
                    vec![(0, 10), (3, 20), (5, 29), (stray, 1)],
                    vec![(0, 0), (3, 10), (5, 30)],
                ),
            ] {
                if runs[3].0 != stray || is_seen_last {
                    assert_eq!(judged(&runs, None), (expected, vec![stray]), "{runs:?}");
                }
            }
        }
    }

    #[test]
    fn where_batches_alone_do_not_tell_the_list_of_epochs_does() {
        let runs = [(5, 1), (1, 1)];
        assert_eq!(judged(&runs, None), (vec![(1, 1)], vec![5]));
        let entries = [EpochEntry {
            epoch: LeaderEpoch(5),
            start_offset: Offset(0),
        }];
        assert_eq!(judged(&runs, Some(&entries)), (vec![(5, 0)], vec![1]));
    }
}
