//! What the lanes of one thread have measured since somebody last looked: counts, and latencies as histograms.
//!
//! A lane adds under a lock that nobody else wants but once a second, when the whole is taken out and an empty one left.

use hdrhistogram::Histogram;
use parking_lot::Mutex;

use super::schedule::Starts;

/// Nanoseconds; up to an hour, to three digits, and to 64 ns.
pub(crate) fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(100, 3_600_000_000_000, 3).expect("these bounds are in order")
}

/// Records, their bytes and the requests that carried them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) records: u64,
    pub(crate) value_bytes: u64,
    pub(crate) requests: u64,
    /// When the last of them was done.
    pub(crate) last_ns: u64,
}

impl Counts {
    pub(crate) fn add(&mut self, more: &Counts) {
        self.records += more.records;
        self.value_bytes += more.value_bytes;
        self.requests += more.requests;
        self.last_ns = self.last_ns.max(more.last_ns);
    }
}

/// Latencies by what is measured.
#[derive(Clone, Debug)]
pub(crate) struct Latencies {
    /// From a record's intended start to the acknowledgement.
    pub(crate) produce: Histogram<u64>,
    /// From a fetch to its answer.
    pub(crate) fetch: Histogram<u64>,
    /// From a record's intended start to its arrival at a reader.
    pub(crate) end_to_end: Histogram<u64>,
}

impl Latencies {
    pub(crate) fn new() -> Latencies {
        Latencies {
            produce: histogram(),
            fetch: histogram(),
            end_to_end: histogram(),
        }
    }

    fn all(&mut self) -> [&mut Histogram<u64>; 3] {
        [&mut self.produce, &mut self.fetch, &mut self.end_to_end]
    }

    pub(crate) fn add(&mut self, more: &Latencies) {
        for (sum, more) in [
            (&mut self.produce, &more.produce),
            (&mut self.fetch, &more.fetch),
            (&mut self.end_to_end, &more.end_to_end),
        ] {
            if !more.is_empty() {
                sum.add(more).expect("histograms of the same bounds");
            }
        }
    }

    fn clear(&mut self) {
        for histogram in self.all() {
            if !histogram.is_empty() {
                histogram.reset();
            }
        }
    }
}

/// What was measured in some time.
#[derive(Clone, Debug)]
pub(crate) struct Interval {
    pub(crate) produced: Counts,
    pub(crate) consumed: Counts,
    pub(crate) latencies: Latencies,
}

impl Interval {
    pub(crate) fn new() -> Interval {
        Interval {
            produced: Counts::default(),
            consumed: Counts::default(),
            latencies: Latencies::new(),
        }
    }

    pub(crate) fn add(&mut self, more: &Interval) {
        self.produced.add(&more.produced);
        self.consumed.add(&more.consumed);
        self.latencies.add(&more.latencies);
    }

    pub(crate) fn clear(&mut self) {
        self.produced = Counts::default();
        self.consumed = Counts::default();
        self.latencies.clear();
    }
}

/// Notes the latency of each record of a batch that was done at `now_ns`.
pub(crate) fn record_all(histogram: &mut Histogram<u64>, starts: &Starts, records: u32, now_ns: u64) {
    let since = |start: u64| now_ns.saturating_sub(start).min(3_600_000_000_000);
    if starts.gap_ns == 0.0 {
        histogram.saturating_record_n(since(starts.first_ns), u64::from(records));
        return;
    }
    for k in 0..records {
        histogram.saturating_record(since(starts.of(k)));
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Recorder(Mutex<Interval>);

impl Recorder {
    pub(crate) fn new() -> Recorder {
        Recorder(Mutex::new(Interval::new()))
    }

    pub(crate) fn note(&self, how: impl FnOnce(&mut Interval)) {
        how(&mut self.0.lock());
    }

    /// Something that changes when a lane has moved.
    pub(crate) fn moves(&self) -> u64 {
        let interval = self.0.lock();
        interval.produced.records + interval.consumed.records
    }

    /// Takes what was measured so far, leaving `empty` behind.
    pub(crate) fn swap(&self, empty: &mut Interval) {
        std::mem::swap(&mut *self.0.lock(), empty);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_record_of_a_batch_counts_from_its_own_start() {
        let mut closed = histogram();
        let starts = Starts {
            first_ns: 1_000_000,
            gap_ns: 0.0,
        };
        record_all(&mut closed, &starts, 60, 6_000_000);
        assert_eq!((closed.len(), closed.min().max(4_990_000)), (60, closed.min()));
        let mut open = histogram();
        let starts = Starts {
            first_ns: 0,
            gap_ns: 1e6,
        };
        record_all(&mut open, &starts, 10, 10_000_000);
        assert_eq!(open.len(), 10);
        assert!(open.max() >= 10_000_000 && open.min() <= 1_001_000, "{open:?}");
    }

    #[test]
    fn quantiles_are_true_to_three_digits_and_64_ns_up_to_a_minute() {
        let mut histogram = histogram();
        for value in (1..=1000u64).map(|n| n * 60_000_000) {
            histogram.record(value).unwrap();
        }
        for (quantile, expected) in [(0.5, 30e9), (0.99, 59.4e9), (1.0, 60e9)] {
            let found = histogram.value_at_quantile(quantile) as f64;
            assert!((found / expected - 1.0).abs() < 2e-3, "{quantile}: {found}");
        }
        histogram.record(1_000).unwrap();
        assert!((900..=1_100).contains(&histogram.min()));
    }

    #[test]
    fn what_is_taken_out_is_not_counted_again() {
        let recorder = Recorder::new();
        let mut spare = Interval::new();
        let mut total = Interval::new();
        for round in 1..=3u64 {
            recorder.note(|interval| {
                interval.produced.records += round;
                interval.latencies.produce.saturating_record(5_000);
            });
            recorder.swap(&mut spare);
            total.add(&spare);
            spare.clear();
        }
        assert_eq!((total.produced.records, total.latencies.produce.len()), (6, 3));
    }
}
