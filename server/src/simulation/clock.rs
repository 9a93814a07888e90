//! The runtime's simulated time as the clock of the world, and of each broker, whose wall clock may be wrong.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use milena_engine::io::Clock;
use milena_engine::units::TimestampMs;
use tokio::time::Instant;

const BEGINNING_MS: i64 = 1_700_000_000_000;

/// A clock, and by how much its wall clock is off.
#[derive(Clone, Debug)]
pub(super) struct SimulatedClock {
    beginning: Instant,
    error_ms: Arc<AtomicI64>,
}

impl SimulatedClock {
    pub(super) fn new() -> SimulatedClock {
        SimulatedClock {
            beginning: Instant::now(),
            error_ms: Arc::default(),
        }
    }

    /// The same time with an error of its own, none so far.
    pub(super) fn another(&self) -> SimulatedClock {
        SimulatedClock {
            beginning: self.beginning,
            error_ms: Arc::default(),
        }
    }

    pub(super) fn set_error(&self, seconds: i64) {
        self.error_ms.store(seconds * 1000, Ordering::Relaxed);
    }
}

impl Clock for SimulatedClock {
    fn wall(&self) -> TimestampMs {
        let passed = self.monotonic().as_millis() as i64;
        TimestampMs(BEGINNING_MS + passed + self.error_ms.load(Ordering::Relaxed))
    }

    fn monotonic(&self) -> Duration {
        self.beginning.elapsed()
    }
}
