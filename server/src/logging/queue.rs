//! Lines on their way from the threads that log to the one that writes.
//!
//! Logging never waits for writing. If the writer cannot keep up (a stopped pipe, a full disk), lines beyond
//! [`QUEUE_LIMIT_BYTES`] are counted and dropped, and the count is reported when writing goes on.

use std::collections::VecDeque;
use std::fmt;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use tracing::Level;

use super::line::Line;

/// Text that may wait to be written: some ten thousand lines, more than any burst that is worth reading.
const QUEUE_LIMIT_BYTES: usize = 4 << 20;

/// What waits to be written.
#[derive(Debug, Default)]
pub(super) struct Queue {
    state: Mutex<QueueState>,
    /// There is something to write, or nothing more will come.
    work: Condvar,
    /// Something was written.
    progress: Condvar,
}

#[derive(Default)]
struct QueueState {
    lines: VecDeque<Line>,
    size_bytes: usize,
    /// Lines dropped since the last report.
    lost_count: u64,
    pushed_count: u64,
    written_count: u64,
    is_over: bool,
}

impl fmt::Debug for QueueState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QueueState")
            .field("waiting", &self.lines.len())
            .field("lost_count", &self.lost_count)
            .finish_non_exhaustive()
    }
}

impl Queue {
    pub(super) fn push(&self, line: Line) {
        let mut state = self.state.lock();
        if state.size_bytes + line.text.len() > QUEUE_LIMIT_BYTES {
            state.lost_count += 1;
            return;
        }
        state.size_bytes += line.text.len();
        state.pushed_count += 1;
        state.lines.push_back(line);
        drop(state);
        self.work.notify_one();
    }

    /// Everything that waits; blocks while there is nothing. `None` at the end.
    pub(super) fn take(&self) -> Option<VecDeque<Line>> {
        let mut state = self.state.lock();
        while state.lines.is_empty() {
            if state.is_over {
                return None;
            }
            self.work.wait(&mut state);
        }
        let mut lines = std::mem::take(&mut state.lines);
        if state.lost_count > 0 {
            let text = format!(
                "{} log lines were lost: they could not be written fast enough",
                state.lost_count
            );
            state.lost_count = 0;
            lines.push_back(Line::now(Level::WARN, "milena.logging", text));
            state.pushed_count += 1;
        }
        Some(lines)
    }

    pub(super) fn written(&self, lines: &VecDeque<Line>) {
        let mut state = self.state.lock();
        state.written_count += lines.len() as u64;
        let reported: usize = lines.iter().map(|line| line.text.len()).sum();
        state.size_bytes = state.size_bytes.saturating_sub(reported);
        self.progress.notify_all();
    }

    pub(super) fn flush(&self, timeout: Duration) {
        let deadline = Instant::now() + timeout;
        let mut state = self.state.lock();
        let goal = state.pushed_count;
        while state.written_count < goal {
            if self.progress.wait_until(&mut state, deadline).timed_out() {
                return;
            }
        }
    }

    /// Nothing more will come.
    pub(super) fn end(&self) {
        self.state.lock().is_over = true;
        self.work.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_cannot_be_written_fast_enough_are_counted_and_not_waited_for() {
        let queue = Queue::default();
        for _ in 0..5 {
            queue.push(Line::now(Level::INFO, "a", "x".repeat(QUEUE_LIMIT_BYTES / 2)));
        }
        let lines = queue.take().unwrap();
        assert_eq!(lines.len(), 3);
        assert_eq!(
            lines[2].text,
            "3 log lines were lost: they could not be written fast enough"
        );
        queue.written(&lines);
        queue.flush(Duration::ZERO);
        assert_eq!(queue.state.lock().size_bytes, 0);
    }
}
