//! [`Schedule`]: which of the manager's recurring tasks is due.
//!
//! Pure: times are given. All times are monotonic, since an arbitrary start
//! ([`Clock::monotonic`](crate::io::Clock)). A task that was late is not made up for: its next time counts
//! from when it ran.

use std::time::Duration;

/// A recurring task of the log manager, in the order in which those that are due together run: first what
/// guards the disk, last what may take long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Task {
    /// Free space against the reserve.
    Space,
    /// `replication-offset-checkpoint`
    HighWatermarks,
    /// `recovery-point-offset-checkpoint`, and producer snapshots that are no longer needed.
    RecoveryPoints,
    /// `log-start-offset-checkpoint`
    LogStartOffsets,
    /// `flush.ms`
    Flush,
    /// Segments and directories whose deletion delay is over.
    Deletion,
    /// `log.retention.check.interval.ms`
    Retention,
    /// Producer ids idle for `transactional.id.expiration.ms`.
    ProducerExpiry,
    /// A step of the background scrub.
    Scrub,
}

impl Task {
    const ALL: [Task; 9] = [
        Task::Space,
        Task::HighWatermarks,
        Task::RecoveryPoints,
        Task::LogStartOffsets,
        Task::Flush,
        Task::Deletion,
        Task::Retention,
        Task::ProducerExpiry,
        Task::Scrub,
    ];
}

/// When each task is due next.
#[derive(Clone, Debug)]
pub(super) struct Schedule {
    /// By the task's number; `None` = not planned.
    due: [Option<Duration>; Task::ALL.len()],
}

impl Schedule {
    /// Nothing is planned.
    pub(super) fn new() -> Schedule {
        Schedule {
            due: [None; Task::ALL.len()],
        }
    }

    /// Plans the task, replacing when it was due before; `None` takes it off.
    pub(super) fn set(&mut self, task: Task, at: Option<Duration>) {
        self.due[task as usize] = at;
    }

    /// Plans the task no later than `at`.
    pub(super) fn set_no_later(&mut self, task: Task, at: Duration) {
        let due = &mut self.due[task as usize];
        *due = Some(due.map_or(at, |planned| planned.min(at)));
    }

    /// Takes the first task that is due at `now` off the plan.
    pub(super) fn take_due(&mut self, now: Duration) -> Option<Task> {
        let task = Task::ALL
            .into_iter()
            .find(|task| self.due[*task as usize].is_some_and(|due| due <= now))?;
        self.due[task as usize] = None;
        Some(task)
    }

    /// When the next task is due; `None` if nothing is planned.
    pub(super) fn next_deadline(&self) -> Option<Duration> {
        self.due.iter().flatten().min().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_that_are_due_together_run_in_their_order_and_once() {
        let at = Duration::from_secs;
        let mut schedule = Schedule::new();
        assert_eq!(schedule.next_deadline(), None);
        schedule.set(Task::Retention, Some(at(30)));
        schedule.set(Task::HighWatermarks, Some(at(5)));
        schedule.set(Task::Space, Some(at(5)));
        schedule.set(Task::Flush, Some(at(1)));
        schedule.set(Task::Flush, None);
        assert_eq!(schedule.next_deadline(), Some(at(5)));
        assert_eq!(schedule.take_due(at(4)), None);
        assert_eq!(schedule.take_due(at(6)), Some(Task::Space));
        assert_eq!(schedule.take_due(at(6)), Some(Task::HighWatermarks));
        assert_eq!(schedule.take_due(at(6)), None);
        schedule.set_no_later(Task::Retention, at(40));
        assert_eq!(schedule.next_deadline(), Some(at(30)));
        schedule.set_no_later(Task::Retention, at(7));
        assert_eq!(schedule.next_deadline(), Some(at(7)));
    }
}
