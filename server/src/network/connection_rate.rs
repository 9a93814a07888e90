//! How long a new connection is held back so that no more than `max.connection.creation.rate` come in a second (KIP-612;
//! `ConnectionQuotas` in `SocketServer.scala`, `Rate.java`, `SampledStat.java`, `QuotaUtils.scala`).
//!
//! A pure machine. The rate is that of the last `quota.window.num` windows of `quota.window.size.seconds`, counted as if the
//! broker had been there for all of them: after a quiet time, as many connections as the rate allows in all windows but one are
//! let in at once. From then on each is held back for as long as the rate needs to come down to its maximum, at most for one
//! window. Connections are counted while nothing limits them, too; a limit that is set later counts with them.

use std::time::{Duration, Instant};

/// The windows over which the rate is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateWindows {
    /// `quota.window.num`, at least 1.
    pub count: u32,
    /// `quota.window.size.seconds`
    pub size: Duration,
}

/// The connections of one window.
#[derive(Clone, Copy, Debug)]
struct Sample {
    began_at: Instant,
    connections: u32,
}

/// The rate at which connections come, of the broker or of one listener.
#[derive(Clone, Debug, Default)]
pub(super) struct ConnectionRate {
    /// In no order of time: the oldest is used anew.
    samples: Vec<Sample>,
    current: usize,
}

impl ConnectionRate {
    /// Counts one more connection, and tells how long it has to wait; `rate_max` is in connections a second.
    pub(super) fn record(&mut self, rate_max: u32, windows: RateWindows, now: Instant) -> Duration {
        self.current_sample(windows, now).connections += 1;
        let over = windows.size * windows.count;
        for sample in &mut self.samples {
            if now - sample.began_at >= over {
                *sample = Sample::begin(now);
            }
        }
        let connections: u32 = self.samples.iter().map(|sample| sample.connections).sum();
        let measured = self.measured_time(windows, now);
        if measured.is_zero() {
            // The first of a single window: there is no rate yet.
            return Duration::ZERO;
        }
        // A maximum of 0 needs for ever, and so gets one window.
        let needed_seconds = f64::from(connections) / f64::from(rate_max);
        let needed = Duration::try_from_secs_f64(needed_seconds).unwrap_or(Duration::MAX);
        needed.saturating_sub(measured).min(windows.size)
    }

    fn current_sample(&mut self, windows: RateWindows, now: Instant) -> &mut Sample {
        let current = self.samples.get(self.current);
        if current.is_none_or(|sample| now - sample.began_at >= windows.size) {
            let next = self.current + usize::from(current.is_some());
            self.current = next % windows.count as usize;
            let begun = Sample::begin(now);
            match self.samples.get_mut(self.current) {
                Some(oldest) => *oldest = begun,
                None => self.samples.push(begun),
            }
        }
        &mut self.samples[self.current]
    }

    /// The time that the samples stand for: since the oldest began, and whole windows for those that are missing.
    fn measured_time(&self, windows: RateWindows, now: Instant) -> Duration {
        let oldest = self.samples.iter().map(|sample| sample.began_at).min();
        let elapsed = oldest.map_or(Duration::ZERO, |oldest| now - oldest);
        let whole_windows = (elapsed.as_nanos() / windows.size.as_nanos()) as u32;
        elapsed + windows.size * (windows.count - 1).saturating_sub(whole_windows)
    }
}

impl Sample {
    fn begin(now: Instant) -> Sample {
        Sample {
            began_at: now,
            connections: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Kafka's defaults.
    const WINDOWS: RateWindows = RateWindows {
        count: 11,
        size: Duration::from_secs(1),
    };

    /// Connections that come one after the other as soon as the one before is let in, each told with its time and wait.
    struct Client {
        rate: ConnectionRate,
        began: Instant,
        now: Instant,
    }

    impl Client {
        fn new() -> Client {
            let now = Instant::now();
            Client {
                rate: ConnectionRate::default(),
                began: now,
                now,
            }
        }

        fn connect(&mut self, rate_max: u32, windows: RateWindows) -> Duration {
            let wait = self.rate.record(rate_max, windows, self.now);
            self.now += wait;
            wait
        }

        /// How many are let in until a moment.
        fn connect_until(&mut self, rate_max: u32, seconds: u64) -> u32 {
            let mut count = 0;
            while self.now < self.began + Duration::from_secs(seconds) {
                self.connect(rate_max, WINDOWS);
                count += 1;
            }
            count
        }
    }

    fn is_near(wait: Duration, milliseconds: u64) -> bool {
        wait.abs_diff(Duration::from_millis(milliseconds)) < Duration::from_millis(1)
    }

    #[test]
    fn after_a_quiet_time_the_connections_of_ten_windows_come_at_once_and_then_they_are_spaced() {
        let mut client = Client::new();
        let at_once = (0..500)
            .take_while(|_| client.connect(20, WINDOWS).is_zero())
            .count();
        assert_eq!(at_once, 200);
        assert!(is_near(client.now - client.began, 50), "the 201st waited");
        for _ in 0..15 {
            assert!(is_near(client.connect(20, WINDOWS), 50));
        }
        client.now += Duration::from_secs(60);
        let at_once = (0..500)
            .take_while(|_| client.connect(20, WINDOWS).is_zero())
            .count();
        assert_eq!(at_once, 200);
    }

    #[test]
    fn in_the_long_run_the_rate_is_its_maximum() {
        let mut client = Client::new();
        let burst = client.connect_until(20, 1);
        assert!((200..=221).contains(&burst), "{burst}");
        let in_ten_minutes = client.connect_until(20, 601);
        assert!((11_500..=12_500).contains(&in_ten_minutes), "{in_ten_minutes}");
    }

    #[test]
    fn a_wait_is_never_longer_than_a_window_and_none_at_all_is_one_a_window() {
        let mut client = Client::new();
        for _ in 0..3 {
            assert_eq!(client.connect(0, WINDOWS), WINDOWS.size);
        }
        let mut crowd = ConnectionRate::default();
        for _ in 0..1000 {
            crowd.record(u32::MAX, WINDOWS, client.now);
        }
        assert_eq!(crowd.record(1, WINDOWS, client.now), WINDOWS.size);
    }

    #[test]
    fn connections_that_came_without_a_limit_count_when_one_is_set() {
        let mut client = Client::new();
        for _ in 0..200 {
            assert!(client.connect(i32::MAX as u32, WINDOWS).is_zero());
        }
        assert!(is_near(client.connect(20, WINDOWS), 50));
    }

    #[test]
    fn a_window_that_is_over_counts_no_more() {
        let mut client = Client::new();
        for _ in 0..200 {
            client.connect(20, WINDOWS);
        }
        client.now = client.began + Duration::from_millis(10_999);
        assert!(client.connect(17, WINDOWS) > Duration::ZERO);
        client.now = client.began + Duration::from_millis(11_000);
        assert!(client.connect(17, WINDOWS).is_zero());
    }

    #[test]
    fn a_single_window_lets_its_first_connection_in_at_once() {
        let single = RateWindows {
            count: 1,
            size: Duration::from_secs(1),
        };
        let mut client = Client::new();
        assert!(client.connect(2, single).is_zero());
        client.now += Duration::from_millis(100);
        assert!(is_near(client.connect(2, single), 900));
        client.now += Duration::from_millis(100);
        assert!(client.connect(2, single).is_zero(), "the window is over");
    }
}
