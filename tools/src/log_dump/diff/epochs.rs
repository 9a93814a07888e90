//! [`first_difference`]: where two sides disagree about the leader epoch of an offset, by their checkpoints.

use std::path::Path;

use milena_engine::checkpoint::{CheckpointError, LeaderEpochCheckpoint};
use milena_engine::io::Io;

/// The epochs of a partition; `None` without the file, as it is where records have no epochs.
pub(super) fn read(io: &dyn Io, directory: &Path) -> Result<Option<Vec<(i32, i64)>>, CheckpointError> {
    let entries = LeaderEpochCheckpoint::new(directory).read(io)?;
    let entries: Vec<_> = entries
        .iter()
        .map(|entry| (entry.epoch.get(), entry.start_offset.get()))
        .collect();
    Ok((!entries.is_empty()).then_some(entries))
}

/// The first offset of `first..end` that has different epochs, with those: `None` before all entries.
pub(super) fn first_difference(
    a: &[(i32, i64)],
    b: &[(i32, i64)],
    first: i64,
    end: i64,
) -> Option<(i64, Option<i32>, Option<i32>)> {
    let at = |entries: &[(i32, i64)], offset: i64| {
        let entry = entries.iter().rev().find(|(_, start)| *start <= offset);
        entry.map(|(epoch, _)| *epoch)
    };
    let mut places: Vec<i64> = a.iter().chain(b).map(|(_, start)| (*start).max(first)).collect();
    places.push(first);
    places.sort_unstable();
    places
        .into_iter()
        .filter(|offset| *offset < end)
        .map(|offset| (offset, at(a, offset), at(b, offset)))
        .find(|(_, a, b)| a != b)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epochs_differ_where_an_offset_that_both_have_is_of_another_epoch() {
        let all = [(0, 0), (2, 10), (5, 20)];
        assert_eq!(first_difference(&all, &all, 0, 30), None);
        assert_eq!(
            first_difference(&all, &[(0, 0), (5, 20)], 0, 30),
            Some((10, Some(2), Some(0)))
        );
        // A log start behind an entry moves it; an entry for offsets that the other does not have yet is none.
        assert_eq!(first_difference(&all, &[(2, 12), (5, 20)], 12, 30), None);
        assert_eq!(first_difference(&all, &all[..2], 0, 20), None);
        assert_eq!(
            first_difference(&all, &all[..2], 0, 21),
            Some((20, Some(5), Some(2)))
        );
    }
}
