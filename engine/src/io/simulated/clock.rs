//! A [`Clock`] that moves when told to, wall and monotonic time apart.

use std::time::Duration;

use parking_lot::Mutex;

use crate::io::Clock;
use crate::units::TimestampMs;

/// Stands still between the calls that move it. Shared by `Arc`.
#[derive(Debug)]
pub struct ManualClock {
    now: Mutex<Now>,
}

#[derive(Clone, Copy, Debug)]
struct Now {
    wall: TimestampMs,
    monotonic: Duration,
}

impl ManualClock {
    /// The monotonic clock begins at zero.
    pub fn new(wall: TimestampMs) -> ManualClock {
        ManualClock {
            now: Mutex::new(Now {
                wall,
                monotonic: Duration::ZERO,
            }),
        }
    }

    /// Time passes: both clocks move. The wall clock counts whole milliseconds and drops the rest.
    pub fn advance(&self, by: Duration) {
        let mut now = self.now.lock();
        now.wall = TimestampMs(now.wall.get() + i64::try_from(by.as_millis()).unwrap_or(i64::MAX / 2));
        now.monotonic += by;
    }

    /// Time passes that the wall clock does not see.
    pub fn advance_monotonic(&self, by: Duration) {
        self.now.lock().monotonic += by;
    }

    /// Somebody sets the wall clock, forwards or back; no time passes.
    pub fn set_wall(&self, wall: TimestampMs) {
        self.now.lock().wall = wall;
    }
}

impl Clock for ManualClock {
    fn wall(&self) -> TimestampMs {
        self.now.lock().wall
    }

    fn monotonic(&self) -> Duration {
        self.now.lock().monotonic
    }
}
