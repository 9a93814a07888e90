//! The runtime's simulated time as the clock of all brokers.

use std::time::Duration;

use milena_engine::io::Clock;
use milena_engine::units::TimestampMs;
use tokio::time::Instant;

const BEGINNING_MS: i64 = 1_700_000_000_000;

#[derive(Debug)]
pub(super) struct SimulatedClock(Instant);

impl SimulatedClock {
    pub(super) fn new() -> SimulatedClock {
        SimulatedClock(Instant::now())
    }
}

impl Clock for SimulatedClock {
    fn wall(&self) -> TimestampMs {
        TimestampMs(BEGINNING_MS + self.monotonic().as_millis() as i64)
    }

    fn monotonic(&self) -> Duration {
        self.0.elapsed()
    }
}
