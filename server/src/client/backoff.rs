//! How long to wait before the next attempt: doubling from 100 ms to 1 s, a fifth more or less by chance, so that many
//! clients do not come back together (KIP-580).

use std::time::Duration;

const FIRST_MS: u32 = 100;
const LAST_MS: u32 = 1000;
/// In percent of the pause, to either side.
const JITTER_PERCENT: u32 = 20;

/// Counts the attempts that failed.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The pause after one more failure. `chance` is any number: it decides on the jitter.
    pub(super) fn next(&mut self, chance: u32) -> Duration {
        let pause = FIRST_MS.saturating_mul(1 << self.failures.min(8)).min(LAST_MS);
        self.failures += 1;
        let spread = pause * JITTER_PERCENT / 100;
        Duration::from_millis(u64::from(pause - spread + chance % (2 * spread + 1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_second_and_vary_by_a_fifth() {
        let pauses = |chance: u32| -> Vec<u128> {
            let mut backoff = Backoff::default();
            (0..6).map(|_| backoff.next(chance).as_millis()).collect()
        };
        assert_eq!(pauses(0), [80, 160, 320, 640, 800, 800]);
        assert_eq!(pauses(40), [120, 200, 360, 680, 840, 840]);
        assert!(pauses(u32::MAX).iter().all(|&ms| ms <= 1200));
    }
}
