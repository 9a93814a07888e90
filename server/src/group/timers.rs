//! The deadlines of a machine: one ordered queue, so that the next one is known without asking every group.
//!
//! Times are monotonic milliseconds. Timers with equal deadlines come due in the order in which they were set, which makes a
//! run repeatable. It knows nothing of what a timer means.

use std::collections::BTreeMap;

/// Names one timer that is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct TimerId {
    at_ms: i64,
    number: u64,
}

#[derive(Debug)]
pub(super) struct Timers<T> {
    queue: BTreeMap<TimerId, T>,
    next_number: u64,
}

impl<T> Timers<T> {
    pub(super) fn new() -> Timers<T> {
        Timers {
            queue: BTreeMap::new(),
            next_number: 0,
        }
    }

    pub(super) fn set(&mut self, at_ms: i64, timer: T) -> TimerId {
        let id = TimerId {
            at_ms,
            number: self.next_number,
        };
        self.next_number += 1;
        self.queue.insert(id, timer);
        id
    }

    /// Clears the timer that `id` holds, if any.
    pub(super) fn cancel(&mut self, id: &mut Option<TimerId>) {
        if let Some(id) = id.take() {
            self.queue.remove(&id);
        }
    }

    /// Takes the earliest timer that is due at `now_ms` (inclusive).
    pub(super) fn take_due(&mut self, now_ms: i64) -> Option<(TimerId, T)> {
        let first = self
            .queue
            .first_entry()
            .filter(|first| first.key().at_ms <= now_ms)?;
        Some(first.remove_entry())
    }

    pub(super) fn next_deadline_ms(&self) -> Option<i64> {
        self.queue.first_key_value().map(|(id, _)| id.at_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timers_come_due_in_order_and_not_after_being_cancelled() {
        let mut timers = Timers::new();
        timers.set(20, "late");
        let mut cancelled = Some(timers.set(5, "cancelled"));
        timers.set(10, "first of two");
        timers.set(10, "second of two");
        timers.cancel(&mut cancelled);
        assert_eq!(cancelled, None);
        assert_eq!(timers.next_deadline_ms(), Some(10));
        assert_eq!(timers.take_due(9).map(|due| due.1), None);
        assert_eq!(timers.take_due(10).map(|due| due.1), Some("first of two"));
        assert_eq!(timers.take_due(10).map(|due| due.1), Some("second of two"));
        assert_eq!(timers.take_due(10).map(|due| due.1), None);
        assert_eq!(timers.take_due(20).map(|due| due.1), Some("late"));
        assert_eq!(timers.next_deadline_ms(), None);
    }
}
