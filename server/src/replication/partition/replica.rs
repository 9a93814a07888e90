//! What a leader knows of another replica of its partition (`Replica.scala`).

use std::time::Duration;

use milena_engine::units::Offset;

/// Another replica, as its fetches in this reign tell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RemoteReplica {
    end: Option<Offset>,
    log_start: Option<Offset>,
    /// When it last had all that the leader had; `None`: not that is known.
    caught_up_at: Option<Duration>,
    /// Of the fetch before: its time, and where the leader's log ended.
    last_fetch: Option<(Duration, Offset)>,
}

impl RemoteReplica {
    /// Its log end; `None` before its first fetch.
    pub fn end(&self) -> Option<Offset> {
        self.end
    }

    /// Its log start offset; `None` before its first fetch.
    pub fn log_start(&self) -> Option<Offset> {
        self.log_start
    }

    /// When it last had all that the leader had.
    pub fn caught_up_at(&self) -> Option<Duration> {
        self.caught_up_at
    }

    /// Whether it had everything not longer ago than `lag_max`.
    pub fn is_caught_up(&self, now: Duration, lag_max: Duration) -> bool {
        self.caught_up_at
            .is_some_and(|at| now.saturating_sub(at) <= lag_max)
    }

    /// An in-sync replica gets the whole time to show itself.
    pub(super) fn begin_reign(&mut self, now: Duration, is_in_sync: bool, leader_end: Offset) {
        self.caught_up_at = is_in_sync.then_some(now);
        self.last_fetch = Some((now, leader_end));
    }

    /// It was caught up now if it asks from the leader's end on, and at its last fetch if it asks from where the leader ended then.
    /// Returns whether its log starts elsewhere than before.
    pub(super) fn fetched(
        &mut self,
        now: Duration,
        fetch_offset: Offset,
        log_start: Offset,
        leader_end: Offset,
    ) -> bool {
        let caught_up = if fetch_offset >= leader_end {
            Some(now)
        } else {
            self.last_fetch
                .filter(|(_, leader_end)| fetch_offset >= *leader_end)
                .map(|(at, _)| at)
        };
        self.caught_up_at = self.caught_up_at.max(caught_up);
        self.end = Some(fetch_offset);
        self.last_fetch = Some((now, leader_end));
        self.log_start.replace(log_start) != Some(log_start)
    }
}
