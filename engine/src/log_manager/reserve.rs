//! [`ReserveWatch`]: when appends stop because a log directory's file system is nearly full, and when they
//! resume.
//!
//! Pure: the manager feeds it the free space and hands the answer to the
//! [`LogDirectory`](crate::log::LogDirectory), which every append asks. Appends stop when less than
//! `milena.disk.reserve.bytes` is free, and resume once an eighth more than that is: retention that frees one
//! segment does not let a producer in for a moment. Reads, retention, deletion and checkpoints go on, for
//! which the reserve is there. So a full disk never makes a write fail, and a directory never goes offline
//! for lack of space.
//!
//! Kafka has nothing like it: there the first `ENOSPC` takes the directory offline until a restart.

/// Hysteresis around the reserve of one log directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ReserveWatch {
    reserve_bytes: u64,
    refusing: bool,
}

/// What an observation changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReserveChange {
    /// Appends are refused from now on.
    Reached,
    /// Appends are taken again.
    Resumed,
}

impl ReserveWatch {
    /// A reserve of 0 never refuses.
    pub(super) fn new(reserve_bytes: u64) -> ReserveWatch {
        ReserveWatch {
            reserve_bytes,
            refusing: false,
        }
    }

    pub(super) fn reserve_bytes(&self) -> u64 {
        self.reserve_bytes
    }

    pub(super) fn is_refusing(&self) -> bool {
        self.refusing
    }

    /// Takes note of the free space. Returns the free space that appends may count on (below the reserve
    /// while they are refused) and what changed.
    pub(super) fn observe(&mut self, available_bytes: u64) -> (u64, Option<ReserveChange>) {
        let resume_bytes = self.reserve_bytes.saturating_add(self.reserve_bytes / 8);
        let was_refusing = self.refusing;
        self.refusing = available_bytes
            < if was_refusing {
                resume_bytes
            } else {
                self.reserve_bytes
            };
        let change = match (was_refusing, self.refusing) {
            (false, true) => Some(ReserveChange::Reached),
            (true, false) => Some(ReserveChange::Resumed),
            _ => None,
        };
        let usable = if self.refusing {
            available_bytes.min(self.reserve_bytes.saturating_sub(1))
        } else {
            available_bytes
        };
        (usable, change)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn appends_stop_below_the_reserve_and_resume_an_eighth_above_it() {
        let mut watch = ReserveWatch::new(800);
        for (available, usable, change) in [
            (5000, 5000, None),
            (800, 800, None),
            (799, 799, Some(ReserveChange::Reached)),
            (850, 799, None),
            (300, 300, None),
            (899, 799, None),
            (900, 900, Some(ReserveChange::Resumed)),
            (850, 850, None),
            (0, 0, Some(ReserveChange::Reached)),
        ] {
            assert_eq!(
                watch.observe(available),
                (usable, change),
                "{available} bytes free"
            );
            assert_eq!(watch.is_refusing(), usable < 800);
        }
    }

    #[test]
    fn without_a_reserve_nothing_is_ever_refused() {
        let mut watch = ReserveWatch::new(0);
        assert_eq!(watch.observe(0), (0, None));
    }
}
