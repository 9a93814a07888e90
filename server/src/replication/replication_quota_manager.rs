//! How fast replication may be, and which replicas that is about (KIP-73, KIP-113; `ReplicationQuotaManager.scala`).
//!
//! Three quotas, each with a rate in bytes per second and a list of partitions by topic:
//!
//! | quota | setting of the rate | what counts | who is held back |
//! |---|---|---|---|
//! | leader | `leader.replication.throttled.rate` | what followers are sent of listed partitions | a follower that is not in sync |
//! | follower | `follower.replication.throttled.rate` | what leaders sent of listed partitions | this broker, where it lags |
//! | alter log dirs | `replica.alter.log.dirs.io.max.bytes.per.second` | what was copied | every move between log directories |
//!
//! What is in sync counts and is never held back: a throttle must not shrink the in-sync replicas. Whether the rate is exceeded is
//! asked before each fetch, and what it brought is recorded afterwards, so that one fetch may exceed it; the next then waits.
//!
//! **Deviation:** the bytes of records count; 2.7.2 counts the frame of the leader's answer around them too, also of an answer
//! without any partition that is listed.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use milena_engine::units::TopicPartition;
use parking_lot::Mutex;

/// Over which time a rate is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuotaWindows {
    /// `*.quota.window.num`, at least 1.
    pub count: usize,
    /// `*.quota.window.size.seconds`, at least 1.
    pub size: Duration,
}

impl Default for QuotaWindows {
    fn default() -> Self {
        QuotaWindows {
            count: 11,
            size: Duration::from_secs(1),
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Window {
    began: Duration,
    size_bytes: u64,
}

/// Bytes per second over the last windows, by the caller's monotonic clock (`SimpleRate.java`).
#[derive(Debug)]
pub struct RateMeter {
    windows: QuotaWindows,
    /// The oldest first.
    counted: VecDeque<Window>,
}

impl RateMeter {
    pub fn new(windows: QuotaWindows) -> RateMeter {
        RateMeter {
            windows,
            counted: VecDeque::new(),
        }
    }

    pub fn record(&mut self, now: Duration, size_bytes: u64) {
        self.forget(now);
        match self.counted.back_mut() {
            Some(last) if now.saturating_sub(last.began) < self.windows.size => {
                last.size_bytes = last.size_bytes.saturating_add(size_bytes);
            }
            _ => {
                if self.counted.len() >= self.windows.count {
                    self.counted.pop_front();
                }
                self.counted.push_back(Window {
                    began: now,
                    size_bytes,
                });
            }
        }
    }

    /// The first window counts as a whole one, so that a short beginning is not taken for a high rate.
    pub fn bytes_per_second(&mut self, now: Duration) -> f64 {
        self.forget(now);
        let Some(oldest) = self.counted.front() else {
            return 0.0;
        };
        let elapsed = now.saturating_sub(oldest.began).max(self.windows.size);
        let sum: u64 = self
            .counted
            .iter()
            .fold(0, |sum, window| sum.saturating_add(window.size_bytes));
        sum as f64 / elapsed.as_secs_f64()
    }

    fn forget(&mut self, now: Duration) {
        let count = u32::try_from(self.windows.count).unwrap_or(u32::MAX);
        let age_max = self.windows.size.saturating_mul(count);
        while self
            .counted
            .front()
            .is_some_and(|oldest| now.saturating_sub(oldest.began) >= age_max)
        {
            self.counted.pop_front();
        }
    }
}

/// The replicas of one topic that are throttled on this broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ThrottledReplicas {
    All,
    Partitions(Vec<i32>),
}

impl ThrottledReplicas {
    /// From `leader.replication.throttled.replicas` or `follower.replication.throttled.replicas`: `*`, or partition:broker pairs, of
    /// which this broker's count. `None` if there are none.
    pub fn parse(list: &str, broker_id: i32) -> Option<ThrottledReplicas> {
        let mut items = list.split(',').map(str::trim);
        if items.clone().next() == Some("*") {
            return Some(ThrottledReplicas::All);
        }
        let partitions: Vec<i32> = items
            .by_ref()
            .filter_map(|pair| {
                let (partition, broker) = pair.split_once(':')?;
                (broker.parse() == Ok(broker_id)).then(|| partition.parse().ok())?
            })
            .collect();
        (!partitions.is_empty()).then_some(ThrottledReplicas::Partitions(partitions))
    }

    fn contains(&self, partition: i32) -> bool {
        match self {
            ThrottledReplicas::All => true,
            ThrottledReplicas::Partitions(partitions) => partitions.contains(&partition),
        }
    }
}

/// One quota. Reads take no lock as long as nothing is throttled.
#[derive(Debug)]
pub struct ReplicationQuota {
    throttled: ArcSwap<HashMap<Arc<str>, ThrottledReplicas>>,
    bytes_per_second_max: AtomicU64,
    meter: Mutex<RateMeter>,
}

impl ReplicationQuota {
    pub fn new(windows: QuotaWindows) -> ReplicationQuota {
        ReplicationQuota {
            throttled: ArcSwap::default(),
            bytes_per_second_max: AtomicU64::new(u64::MAX),
            meter: Mutex::new(RateMeter::new(windows)),
        }
    }

    pub fn set_rate(&self, bytes_per_second_max: u64) {
        self.bytes_per_second_max
            .store(bytes_per_second_max, Ordering::Relaxed);
    }

    /// Replaces what is throttled of a topic; `None`: nothing.
    pub fn set_throttled(&self, topic: &str, replicas: Option<&ThrottledReplicas>) {
        if self.throttled.load().get(topic) == replicas {
            return;
        }
        self.throttled.rcu(|throttled| {
            let mut throttled = HashMap::clone(throttled);
            match replicas {
                Some(replicas) => throttled.insert(topic.into(), replicas.clone()),
                None => throttled.remove(topic),
            };
            throttled
        });
    }

    /// Whether a partition is listed.
    pub fn is_throttled(&self, partition: &TopicPartition) -> bool {
        let throttled = self.throttled.load();
        throttled
            .get(&partition.topic)
            .is_some_and(|replicas| replicas.contains(partition.partition))
    }

    pub fn is_exceeded(&self, now: Duration) -> bool {
        let limit = self.bytes_per_second_max.load(Ordering::Relaxed);
        limit != u64::MAX && self.meter.lock().bytes_per_second(now) > limit as f64
    }

    pub fn record(&self, now: Duration, size_bytes: usize) {
        self.meter.lock().record(now, size_bytes as u64);
    }
}

/// How fast each may be, in bytes per second; `u64::MAX` is no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplicationRates {
    pub leader: u64,
    pub follower: u64,
    pub alter_log_dirs: u64,
}

/// The quotas of a broker.
#[derive(Debug)]
pub struct ReplicationQuotaManagers {
    pub leader: ReplicationQuota,
    pub follower: ReplicationQuota,
    pub alter_log_dirs: ReplicationQuota,
}

impl ReplicationQuotaManagers {
    pub fn new(replication: QuotaWindows, alter_log_dirs: QuotaWindows) -> ReplicationQuotaManagers {
        ReplicationQuotaManagers {
            leader: ReplicationQuota::new(replication),
            follower: ReplicationQuota::new(replication),
            alter_log_dirs: ReplicationQuota::new(alter_log_dirs),
        }
    }

    pub fn set_rates(&self, rates: ReplicationRates) {
        self.leader.set_rate(rates.leader);
        self.follower.set_rate(rates.follower);
        self.alter_log_dirs.set_rate(rates.alter_log_dirs);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    /// What is recorded at which times, the rate at another time.
    fn rate(recorded: &[(u64, u64)], at: u64) -> f64 {
        let mut meter = RateMeter::new(QuotaWindows {
            count: 3,
            size: ms(1000),
        });
        for (at, size_bytes) in recorded {
            meter.record(ms(*at), *size_bytes);
        }
        meter.bytes_per_second(ms(at))
    }

    #[test]
    fn a_rate_is_what_the_windows_hold_over_the_time_since_the_oldest() {
        for (recorded, at, expected) in [
            (&[][..], 5, 0.0),
            // The first window counts as a whole one.
            (&[(0, 500)], 0, 500.0),
            (&[(0, 500)], 999, 500.0),
            (&[(0, 500)], 2000, 250.0),
            // Its end: everything that it held is forgotten.
            (&[(0, 500)], 3000, 0.0),
            // Within one window they add up.
            (&[(0, 500), (600, 500)], 1000, 1000.0),
            (&[(0, 300), (1000, 300), (2000, 300)], 2500, 360.0),
            // A fourth window takes the place of the first.
            (&[(0, 300), (1000, 600), (2000, 600), (3000, 600)], 3000, 900.0),
            // After a pause only what came then counts.
            (&[(0, 300), (60_000, 100)], 60_500, 100.0),
        ] {
            assert_eq!(rate(recorded, at), expected, "{recorded:?} at {at}");
        }
    }

    #[test]
    fn a_list_of_throttled_replicas_names_those_of_this_broker() {
        let some = |partitions: &[i32]| Some(ThrottledReplicas::Partitions(partitions.to_vec()));
        for (list, expected) in [
            ("", None),
            ("*", Some(ThrottledReplicas::All)),
            (" * ", Some(ThrottledReplicas::All)),
            ("0:1,3:2,5:1", some(&[0, 5])),
            (" 0:1 , 2:1", some(&[0, 2])),
            ("0:2,1:3", None),
            ("0:11", None),
            (",0:1", some(&[0])),
        ] {
            assert_eq!(ThrottledReplicas::parse(list, 1), expected, "{list:?}");
        }
    }

    #[test]
    fn a_quota_is_exceeded_by_more_than_its_rate_and_is_about_what_is_listed() {
        let quota = ReplicationQuota::new(QuotaWindows::default());
        let at = |partition| TopicPartition::new("t", partition);
        quota.record(ms(0), 1_000_000);
        assert!(!quota.is_exceeded(ms(0)), "without a rate nothing is too much");
        quota.set_rate(100_000);
        assert!(quota.is_exceeded(ms(9_999)));
        assert!(!quota.is_exceeded(ms(10_000)), "100,000 a second by then");
        assert!(!quota.is_throttled(&at(0)));
        quota.set_throttled("t", Some(&ThrottledReplicas::Partitions(vec![1])));
        assert!(quota.is_throttled(&at(1)) && !quota.is_throttled(&at(0)));
        quota.set_throttled("t", Some(&ThrottledReplicas::All));
        assert!(quota.is_throttled(&at(0)));
        quota.set_throttled("t", None);
        assert!(!quota.is_throttled(&at(1)));
    }

    #[test]
    fn a_rate_of_nothing_lets_one_fetch_through_for_each_span_of_the_windows() {
        let quota = ReplicationQuota::new(QuotaWindows::default());
        quota.set_rate(0);
        assert!(!quota.is_exceeded(ms(0)));
        quota.record(ms(0), 1);
        assert!(quota.is_exceeded(ms(10_999)));
        assert!(!quota.is_exceeded(ms(11_000)));
    }
}
