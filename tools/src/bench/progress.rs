//! How it goes, once a second on standard error; a line that renews itself, on a terminal only.

use std::io::{IsTerminal, Write};

use super::quantity::{brief, brief_time};
use super::results::BEHIND_S_MIN;
use super::scenario::Scenario;
use super::threads::{Observer, Second};

/// See the module.
#[derive(Debug)]
pub(crate) struct Progress {
    is_shown: bool,
    since: f64,
}

impl Progress {
    pub(crate) fn new() -> Progress {
        Progress {
            is_shown: std::io::stderr().is_terminal(),
            since: 0.0,
        }
    }

    /// Nobody may be looking any more, which changes nothing.
    pub(crate) fn show(&self, text: &str) {
        if self.is_shown {
            let _ = write!(std::io::stderr(), "\r\x1b[2K{text}");
        }
    }

    pub(crate) fn clear(&self) {
        self.show("");
    }
}

/// The line for one second.
fn line(scenario: &Scenario, second: &Second, since: f64) -> String {
    let interval = &second.interval;
    let mut text = format!("{} {:3.0} s", scenario.name, second.until);
    let seconds = (second.until - since).max(0.001);
    for (name, counts) in [("produced", &interval.produced), ("consumed", &interval.consumed)] {
        if counts.requests > 0 {
            let rate = |count: u64| brief(count as f64 / seconds);
            let megabytes = brief(counts.value_bytes as f64 / 1e6 / seconds);
            text += &format!("  {name} {} records/s {megabytes} MB/s", rate(counts.records));
        }
    }
    let latencies = &interval.latencies;
    for (name, histogram) in [("ack", &latencies.produce), ("end to end", &latencies.end_to_end)] {
        if !histogram.is_empty() {
            let p99 = histogram.value_at_quantile(0.99) as f64 / 1e3;
            text += &format!("  {name} p99 {}", brief_time(p99));
        }
    }
    if second.behind_s >= BEHIND_S_MIN {
        text += &format!("  {} behind the schedule", brief_time(second.behind_s * 1e6));
    }
    text
}

impl Observer for Progress {
    fn second(&mut self, scenario: &Scenario, second: &Second) {
        if self.is_shown {
            self.show(&line(scenario, second, self.since));
        }
        self.since = second.until;
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::super::recorder::{Counts, Interval};
    use super::super::scenario::{Load, Workload};
    use super::*;

    #[test]
    fn the_line_tells_rates_of_the_second_that_is_over() {
        let load = Load::default();
        let scenario = Scenario::new("s".to_owned(), String::new(), Workload::Produce, load).unwrap();
        let mut interval = Interval::new();
        interval.produced = Counts {
            records: 500,
            value_bytes: 512_000,
            requests: 9,
            last_ns: 0,
        };
        interval.latencies.produce.saturating_record(2_000_000);
        let second = Second {
            until: 3.0,
            interval,
            behind_s: 1.5,
        };
        let text = line(&scenario, &second, 2.5);
        assert!(text.ends_with("  1.50 s behind the schedule"), "{text}");
        assert!(
            text.starts_with("s   3 s  produced 1,000 records/s 1.02 MB/s  ack p99 2.00 ms"),
            "{text}"
        );
    }
}
