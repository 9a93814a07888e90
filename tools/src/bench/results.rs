//! What came of a scenario, as people read it and as programs do: text and JSON.
//!
//! The JSON is the document of [`Results`]; its `schema` changes when a field changes its meaning or goes, not when one is
//! added. Times are microseconds, rates per second, GB and MB powers of 1000, of record values without keys and overhead.

use std::fmt;
use std::path::Path;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use super::accounting::Cpu;
use super::load::Outcome;
use super::machine::Machine;
use super::quantity::{Span, brief, brief_time};
use super::recorder::Counts;
use super::scenario::{Load, Scenario, Workload};
use super::threads::{Measured, Second};

/// The form of the document.
pub(crate) const SCHEMA: &str = "milena-bench/1";
/// Points of a distribution for each halving of what is above.
pub(super) const TICKS_PER_HALF: u32 = 5;

/// What is said of figures that a signal cut short.
pub(super) const INTERRUPTED: &str = "INTERRUPTED before its end; this is what was measured by then";

/// Who is less behind a schedule keeps it; or, of a long one, by less than a hundredth of its time.
pub(super) const BEHIND_S_MIN: f64 = 0.1;

/// A results file.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Results {
    pub(crate) schema: String,
    /// Version of the generator.
    pub(crate) milena: String,
    /// RFC 3339.
    pub(crate) started: String,
    pub(crate) machine: Machine,
    pub(crate) runs: Vec<Run>,
}

/// One scenario.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Run {
    pub(crate) name: String,
    pub(crate) about: String,
    pub(crate) workload: Workload,
    /// Whom it was run against.
    pub(crate) target: String,
    /// The options that were given; what is absent is the default.
    #[serde(serialize_with = "without_nulls")]
    pub(crate) load: Load,
    pub(crate) produced: Option<Throughput>,
    pub(crate) consumed: Option<Throughput>,
    /// How the schedule was kept; absent in closed loop.
    #[serde(default)]
    pub(crate) schedule: Option<Schedule>,
    /// From a record's intended start to its acknowledgement.
    pub(crate) produce_latency: Option<Latency>,
    /// From a record's intended start to its arrival at a reader.
    pub(crate) end_to_end_latency: Option<Latency>,
    /// From a fetch to its answer.
    pub(crate) fetch_latency: Option<Latency>,
    pub(crate) seconds: Vec<SecondRow>,
    pub(crate) generator: Generator,
    /// A signal ended it before its time: the figures are those of what was done by then.
    #[serde(default)]
    pub(crate) interrupted: bool,
    /// Records that were read back and found as written; absent when nobody looked.
    pub(crate) checked_records: Option<u64>,
}

fn without_nulls<S: serde::Serializer>(load: &Load, serializer: S) -> Result<S::Ok, S::Error> {
    let mut value = serde_json::to_value(load).map_err(serde::ser::Error::custom)?;
    if let Some(fields) = value.as_object_mut() {
        fields.retain(|_, value| !value.is_null());
    }
    value.serialize(serializer)
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Throughput {
    pub(crate) records: u64,
    pub(crate) value_bytes: u64,
    pub(crate) requests: u64,
    /// From the start to the last of them.
    pub(crate) seconds: f64,
    pub(crate) records_per_s: f64,
    pub(crate) mb_per_s: f64,
    pub(crate) requests_per_s: f64,
}

impl Throughput {
    fn of(counts: &Counts) -> Option<Throughput> {
        if counts.requests == 0 {
            return None;
        }
        let seconds = (counts.last_ns as f64 / 1e9).max(1e-6);
        Some(Throughput {
            records: counts.records,
            value_bytes: counts.value_bytes,
            requests: counts.requests,
            seconds: rounded(seconds),
            records_per_s: rounded(counts.records as f64 / seconds),
            mb_per_s: rounded(counts.value_bytes as f64 / seconds / 1e6),
            requests_per_s: rounded(counts.requests as f64 / seconds),
        })
    }
}

/// How an open loop kept its schedule. What was not sent has no latency: those of a schedule that was not kept are too good.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Schedule {
    pub(crate) is_kept: bool,
    /// Records a second that were asked for, and that were written.
    pub(crate) asked_per_s: f64,
    pub(crate) achieved_per_s: f64,
    /// How late the last batch was sent, or was not any more.
    pub(crate) behind_s: f64,
    /// Records that were too late to be sent.
    pub(crate) unsent_records: u64,
}

impl Schedule {
    fn of(rate: f64, measured: &Measured) -> Schedule {
        let throughput = Throughput::of(&measured.total.produced);
        let seconds = throughput.map_or(0.0, |throughput| throughput.seconds);
        let tolerated_s = (seconds / 100.0).max(BEHIND_S_MIN);
        Schedule {
            is_kept: measured.unsent == 0 && measured.behind_s < tolerated_s,
            asked_per_s: rate,
            achieved_per_s: throughput.map_or(0.0, |throughput| throughput.records_per_s),
            behind_s: rounded(measured.behind_s),
            unsent_records: measured.unsent,
        }
    }
}

/// For people, of one that was not kept.
impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "SCHEDULE NOT KEPT: {} records/s asked for, {} achieved, {} behind at the end, {} records never sent",
            brief(self.asked_per_s),
            brief(self.achieved_per_s),
            brief_time(self.behind_s * 1e6),
            brief(self.unsent_records as f64)
        )
    }
}

/// A distribution of latencies, in microseconds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Latency {
    pub(crate) count: u64,
    pub(crate) min: f64,
    pub(crate) mean: f64,
    pub(crate) p50: f64,
    pub(crate) p90: f64,
    pub(crate) p99: f64,
    pub(crate) p99_9: f64,
    pub(crate) p99_99: f64,
    pub(crate) max: f64,
    /// `[percentile, microseconds]`, denser towards 100.
    pub(crate) distribution: Vec<[f64; 2]>,
}

fn microseconds(nanoseconds: u64) -> f64 {
    (nanoseconds as f64 / 100.0).round() / 10.0
}

/// To what a percentile is told: 1e-7 of it.
fn rounded(number: f64) -> f64 {
    (number * 1e7).round() / 1e7
}

impl Latency {
    pub(crate) fn of(histogram: &Histogram<u64>) -> Option<Latency> {
        if histogram.is_empty() {
            return None;
        }
        let at = |quantile| microseconds(histogram.value_at_quantile(quantile));
        let points = histogram.iter_quantiles(TICKS_PER_HALF);
        Some(Latency {
            count: histogram.len(),
            min: microseconds(histogram.min()),
            mean: microseconds(histogram.mean() as u64),
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p99_9: at(0.999),
            p99_99: at(0.9999),
            max: microseconds(histogram.max()),
            distribution: points
                .map(|point| {
                    [
                        rounded(point.quantile_iterated_to() * 100.0),
                        microseconds(point.value_iterated_to()),
                    ]
                })
                .collect(),
        })
    }
}

/// One second of the measurement; the last may be shorter.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct SecondRow {
    /// Its end, in seconds from the start.
    pub(crate) until: f64,
    pub(crate) produced_records: u64,
    pub(crate) produced_bytes: u64,
    pub(crate) consumed_records: u64,
    pub(crate) consumed_bytes: u64,
    /// End-to-end latencies where there are any, else those of acknowledgements, else those of fetches.
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) p99_9: f64,
    pub(crate) max: f64,
}

impl SecondRow {
    pub(crate) fn of(second: &Second) -> SecondRow {
        let interval = &second.interval;
        let latencies = &interval.latencies;
        let all = [&latencies.end_to_end, &latencies.produce, &latencies.fetch];
        let seen = all.into_iter().find(|histogram| !histogram.is_empty());
        let at = |quantile| seen.map_or(0.0, |seen| microseconds(seen.value_at_quantile(quantile)));
        SecondRow {
            until: rounded(second.until),
            produced_records: interval.produced.records,
            produced_bytes: interval.produced.value_bytes,
            consumed_records: interval.consumed.records,
            consumed_bytes: interval.consumed.value_bytes,
            p50: at(0.5),
            p99: at(0.99),
            p99_9: at(0.999),
            max: at(1.0),
        }
    }
}

/// What the generator itself used while it measured.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Generator {
    pub(crate) cpu: Cpu,
    pub(crate) us_per_record: f64,
    pub(crate) us_per_request: f64,
    pub(crate) s_per_gb: f64,
}

impl Generator {
    pub(crate) fn of(cpu: Cpu, counts: &Counts) -> Generator {
        let cpu = Cpu {
            user_s: rounded(cpu.user_s),
            system_s: rounded(cpu.system_s),
        };
        let each = |count: f64| if count > 0.0 { cpu.total_s() / count } else { 0.0 };
        Generator {
            cpu,
            us_per_record: rounded(each(counts.records as f64) * 1e6),
            us_per_request: rounded(each(counts.requests as f64) * 1e6),
            s_per_gb: rounded(each(counts.value_bytes as f64) * 1e9),
        }
    }
}

impl Run {
    pub(crate) fn of(scenario: &Scenario, target: String, outcome: &Outcome) -> Run {
        let total = &outcome.measured.total;
        let mut both = total.produced;
        both.add(&total.consumed);
        Run {
            name: scenario.name.clone(),
            about: scenario.about.clone(),
            workload: scenario.workload,
            target,
            load: scenario.load.clone(),
            produced: Throughput::of(&total.produced),
            consumed: Throughput::of(&total.consumed),
            schedule: scenario.rate.map(|rate| Schedule::of(rate, &outcome.measured)),
            produce_latency: Latency::of(&total.latencies.produce),
            end_to_end_latency: Latency::of(&total.latencies.end_to_end),
            fetch_latency: Latency::of(&total.latencies.fetch),
            seconds: outcome.measured.seconds.clone(),
            generator: Generator::of(outcome.measured.cpu.cpu(), &both),
            interrupted: outcome.measured.interrupted,
            checked_records: outcome.checked_records,
        }
    }

    /// What is to be said of a schedule that was not kept.
    pub(crate) fn schedule_not_kept(&self) -> Option<&Schedule> {
        self.schedule.as_ref().filter(|schedule| !schedule.is_kept)
    }

    /// The latencies that there are, with their names.
    pub(crate) fn latencies(&self) -> impl Iterator<Item = (&'static str, &Latency)> {
        [
            ("produce", &self.produce_latency),
            ("end to end", &self.end_to_end_latency),
            ("fetch", &self.fetch_latency),
        ]
        .into_iter()
        .filter_map(|(name, latency)| Some((name, latency.as_ref()?)))
    }
}

impl Results {
    pub(crate) fn new(runs: Vec<Run>) -> Results {
        let now = time::OffsetDateTime::now_utc().replace_nanosecond(0).ok();
        let format = &time::format_description::well_known::Rfc3339;
        Results {
            schema: SCHEMA.to_owned(),
            milena: env!("CARGO_PKG_VERSION").to_owned(),
            started: now.and_then(|now| now.format(format).ok()).unwrap_or_default(),
            machine: Machine::this(),
            runs,
        }
    }

    /// A results file.
    ///
    /// # Errors
    /// Says what is wrong with it.
    pub(crate) fn read(path: &Path) -> Result<Results, String> {
        let text = std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
        let results: Results =
            serde_json::from_slice(&text).map_err(|error| format!("{}: {error}", path.display()))?;
        if results.schema != SCHEMA {
            let (path, found) = (path.display(), results.schema);
            return Err(format!("{path}: found the schema {found:?}, expected {SCHEMA:?}"));
        }
        Ok(results)
    }
}

/// For people.
impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.name)?;
        if !self.about.is_empty() {
            write!(f, ": {}", self.about)?;
        }
        writeln!(f)?;
        if self.interrupted {
            writeln!(f, "  {INTERRUPTED}")?;
        }
        if let Some(schedule) = self.schedule_not_kept() {
            writeln!(f, "  {schedule}")?;
        }
        for (name, throughput) in [("produced", &self.produced), ("consumed", &self.consumed)] {
            if let Some(t) = throughput {
                writeln!(
                    f,
                    "  {name}    {} records in {}: {} records/s, {} MB/s, {} requests/s",
                    brief(t.records as f64),
                    Span(std::time::Duration::from_millis((t.seconds * 1e3) as u64)),
                    brief(t.records_per_s),
                    brief(t.mb_per_s),
                    brief(t.requests_per_s)
                )?;
            }
        }
        for (name, latency) in self.latencies() {
            write!(f, "  {name:<11}")?;
            for (quantile, value) in [
                ("p50", latency.p50),
                ("p90", latency.p90),
                ("p99", latency.p99),
                ("p99.9", latency.p99_9),
                ("p99.99", latency.p99_99),
                ("max", latency.max),
            ] {
                write!(f, " {quantile} {} ", brief_time(value))?;
            }
            writeln!(f)?;
        }
        let generator = &self.generator;
        writeln!(
            f,
            "  generator   {} CPU-s ({} user, {} system): {} us a record, {} us a request, {} s a GB",
            brief(generator.cpu.total_s()),
            brief(generator.cpu.user_s),
            brief(generator.cpu.system_s),
            brief(generator.us_per_record),
            brief(generator.us_per_request),
            brief(generator.s_per_gb)
        )?;
        if let Some(records) = self.checked_records {
            writeln!(
                f,
                "  checked     {} records read back, all as written",
                brief(records as f64)
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::super::accounting::GeneratorCpu;
    use super::super::recorder::Interval;
    use super::*;

    /// A run that was never made.
    pub(crate) fn sample(name: &str, slowness: u64) -> Run {
        let load = Load::default();
        let scenario = Scenario::new(
            name.to_owned(),
            "an <example> & more".to_owned(),
            Workload::E2e,
            load,
        )
        .unwrap();
        let mut seconds = Vec::new();
        let mut total = Interval::new();
        for second in 0..5u64 {
            let mut interval = Interval::new();
            interval.produced = Counts {
                records: 1000 + second,
                value_bytes: 1_024_000,
                requests: 1000,
                last_ns: (second + 1) * 1_000_000_000,
            };
            interval.consumed = interval.produced;
            for n in 1..=1000u64 {
                interval.latencies.produce.saturating_record(n * slowness * 1000);
                interval
                    .latencies
                    .end_to_end
                    .saturating_record(n * slowness * 1500);
            }
            total.add(&interval);
            let until = second as f64 + 1.0;
            seconds.push(SecondRow::of(&Second {
                until,
                interval,
                behind_s: 0.0,
            }));
        }
        let cpu = GeneratorCpu::now().until_now();
        let measured = Measured {
            total,
            seconds,
            cpu,
            behind_s: 0.0,
            unsent: 0,
            interrupted: false,
        };
        let outcome = Outcome {
            measured,
            checked_records: Some(5010),
        };
        Run::of(&scenario, "127.0.0.1:9092".to_owned(), &outcome)
    }

    #[test]
    fn results_survive_the_file() {
        let results = Results::new(vec![sample("a", 1), sample("b", 3)]);
        let path = std::env::temp_dir().join(format!("milena-bench-results-{}", std::process::id()));
        std::fs::write(&path, serde_json::to_vec(&results).unwrap()).unwrap();
        let read = Results::read(&path).unwrap();
        std::fs::write(&path, b"{\"schema\": 1}").unwrap();
        let error = Results::read(&path).unwrap_err();
        std::fs::remove_file(&path).unwrap();
        let text = |results: &Results| serde_json::to_string(results).unwrap();
        assert!(text(&read) == text(&results), "{}", text(&read));
        assert!(
            error.contains("milena-bench-results") && error.contains("line 1"),
            "{error}"
        );
        let run = &read.runs[1];
        assert_eq!(run.produced.unwrap().records, 5010);
        assert!((run.produced.unwrap().seconds - 5.0).abs() < 1e-9);
        let latency = run.produce_latency.as_ref().unwrap();
        assert!(
            (latency.p50 - 1500.0).abs() < 5.0 && (latency.max - 3000.0).abs() < 5.0,
            "{latency:?}"
        );
        assert_eq!(run.seconds.len(), 5);
    }

    #[test]
    fn the_text_names_all_that_was_measured() {
        let text = sample("x", 1).to_string();
        for part in [
            "x: an <example> & more",
            "produced    5,010 records in 5s: 1,002 records/s",
            "end to end  p50 750 us",
            "p99.99",
            "generator ",
            "checked     5,010 records read back, all as written",
        ] {
            assert!(text.contains(part), "{part}\n{text}");
        }
    }

    #[test]
    fn a_schedule_that_was_not_kept_is_told_with_what_was_asked_and_achieved() {
        let mut run = sample("x", 1);
        let schedule = Schedule {
            is_kept: true,
            asked_per_s: 10_000.0,
            achieved_per_s: 1002.0,
            behind_s: 4.5,
            unsent_records: 1234,
        };
        run.schedule = Some(schedule);
        assert!(!run.to_string().contains("SCHEDULE"));
        run.schedule = Some(Schedule {
            is_kept: false,
            ..schedule
        });
        let expected = "SCHEDULE NOT KEPT: 10,000 records/s asked for, 1,002 achieved, 4.50 s behind at the end, \
                        1,234 records never sent";
        assert!(run.to_string().contains(expected), "{run}");
    }
}
