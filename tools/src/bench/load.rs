//! A scenario, run: topics are made, lanes planned, phases driven, everything read back, topics deleted.
//!
//! A phase begins with nothing under way and ends when everything is answered: warm-up and measurement do not mix, and
//! what is accounted between the ends of a phase is the phase's. The threads that carry the lanes are `threads`'s.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use milena_server::client::{Address, ConnectionConfig};

use super::arrivals::Arrivals;
use super::batch::ContentSum;
use super::consume::Reading;
use super::error::BenchError;
use super::interrupt::Interrupt;
use super::produce::{Share, partitions_of};
use super::recorder::Recorder;
use super::scenario::{Scenario, Workload};
use super::threads::{LanePlan, Measured, Observer, Silent, Threads};
use super::topics::Topics;
use crate::complain;

/// A partition and where it is led.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// Among all partitions of the scenario.
    pub(crate) number: usize,
    pub(crate) topic: String,
    pub(crate) partition: i32,
    pub(crate) leader: Address,
}

/// What all lanes know of each other.
#[derive(Debug)]
pub(crate) struct LoadState {
    pub(super) stop: AtomicBool,
    /// Producer lanes that are not done with the phase.
    pub(super) producing: AtomicUsize,
    /// By partition: the offset after the last record that is acknowledged.
    pub(super) ends: Vec<AtomicI64>,
    /// By producer lane: how late its last batch was.
    pub(super) behind_ns: Vec<AtomicU64>,
    /// Records of the phase that were too late to be sent.
    pub(super) unsent: AtomicU64,
}

impl LoadState {
    pub(super) fn new(ends: &[i64], producer_lanes: usize) -> LoadState {
        LoadState {
            stop: AtomicBool::new(false),
            producing: AtomicUsize::new(0),
            ends: ends.iter().copied().map(AtomicI64::new).collect(),
            behind_ns: (0..producer_lanes).map(|_| AtomicU64::new(0)).collect(),
            unsent: AtomicU64::new(0),
        }
    }

    /// A phase begins.
    pub(super) fn begin(&self) {
        self.producing.store(self.behind_ns.len(), Ordering::Release);
        self.unsent.store(0, Ordering::Relaxed);
    }

    /// Seconds by which the latest lane is behind its schedule.
    pub(super) fn behind_s(&self) -> f64 {
        let latest = self
            .behind_ns
            .iter()
            .map(|lane| lane.load(Ordering::Relaxed))
            .max();
        latest.unwrap_or(0) as f64 / 1e9
    }

    pub(crate) fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    pub(crate) fn producing(&self) -> bool {
        self.producing.load(Ordering::Acquire) > 0
    }

    pub(crate) fn end_of(&self, partition: usize) -> i64 {
        self.ends[partition].load(Ordering::Relaxed)
    }

    pub(crate) fn acknowledged_up_to(&self, partition: usize, end: i64) {
        self.ends[partition].fetch_max(end, Ordering::Relaxed);
    }
}

/// What a lane is given.
#[derive(Clone, Debug)]
pub(crate) struct LaneContext {
    pub(crate) scenario: Arc<Scenario>,
    pub(crate) state: Arc<LoadState>,
    pub(crate) recorder: Arc<Recorder>,
    pub(crate) arrivals: Option<Arc<Arrivals>>,
    pub(crate) mean_value_size: f64,
}

/// One stretch of load.
#[derive(Clone, Debug)]
pub(crate) struct Phase {
    /// On the clock of [`now_ns`]; times of lanes count from here.
    pub(crate) began_ns: u64,
    pub(crate) rate: Option<f64>,
    pub(crate) duration_ns: Option<u64>,
    pub(crate) records: Option<u64>,
}

/// What came of a scenario.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) measured: Measured,
    /// What was read back, if that was asked for.
    pub(crate) checked_records: Option<u64>,
}

/// Runs one scenario against a cluster and removes its traces.
///
/// # Errors
/// Whatever keeps it from its end.
pub(crate) fn run(
    scenario: &Scenario,
    bootstrap: &[Address],
    interrupt: &Interrupt,
    observer: &mut dyn Observer,
) -> Result<Outcome, BenchError> {
    super::descriptors::reserve(scenario)?;
    let mut topics = Topics::create(scenario, bootstrap, interrupt)?;
    let outcome = run_on(scenario, &mut topics, interrupt, observer);
    if let Err(error) = topics.delete() {
        // What was measured is so all the same.
        complain(format_args!("{}: its topics stay: {error}", scenario.name));
    }
    outcome
}

fn run_on(
    scenario: &Scenario,
    topics: &mut Topics,
    interrupt: &Interrupt,
    observer: &mut dyn Observer,
) -> Result<Outcome, BenchError> {
    let places = topics.places().to_vec();
    let mut written = vec![ContentSum::default(); places.len()];
    let mut ends = vec![0; places.len()];
    let stored = match scenario.workload {
        Workload::Consume => scenario.records,
        Workload::Mixed => Some(scenario.backlog),
        Workload::Produce | Workload::E2e => None,
    };
    if let Some(records) = stored.filter(|&records| records > 0) {
        let scenario = beforehand(scenario);
        let mut load = Threads::start(
            &scenario,
            producers(&scenario, &places),
            &places,
            &ends,
            interrupt,
        )?;
        let phase = |began_ns| Phase {
            began_ns,
            rate: None,
            duration_ns: None,
            records: Some(records),
        };
        uninterrupted(load.run(&phase, &scenario, &mut Silent)?)?;
        ends = load.finish(&mut written)?;
    }
    let mut lanes = if scenario.produces() {
        producers(scenario, &places)
    } else {
        Vec::new()
    };
    match scenario.workload {
        Workload::Produce => {}
        Workload::Consume => lanes.extend(consumers(scenario, &places, Reading::Stored)),
        Workload::E2e => lanes.extend(consumers(scenario, &places, Reading::Tail)),
        Workload::Mixed => {
            lanes.extend(consumers(scenario, &places, Reading::Tail));
            if scenario.backlog > 0 {
                lanes.extend(
                    consumers(scenario, &places, Reading::Older)
                        .into_iter()
                        .take(scenario.consumers as usize),
                );
            }
        }
    }
    let mut load = Threads::start(scenario, lanes, &places, &ends, interrupt)?;
    let nanoseconds = |duration: Duration| duration.as_nanos() as u64;
    if !scenario.warm_up.0.is_zero() {
        let phase = |began_ns| Phase {
            began_ns,
            rate: scenario.rate,
            duration_ns: Some(nanoseconds(scenario.warm_up.0)),
            records: None,
        };
        uninterrupted(load.run(&phase, scenario, &mut Silent)?)?;
    }
    observer.begins()?;
    let phase = |began_ns| Phase {
        began_ns,
        rate: scenario.rate,
        duration_ns: scenario.duration.map(|duration| nanoseconds(duration.0)),
        records: scenario.records.filter(|_| scenario.produces()),
    };
    let mut measured = load.run(&phase, scenario, observer)?;
    observer.ends()?;
    let mut checked_records = None;
    if !measured.interrupted {
        load.finish(&mut written)?;
        if scenario.check {
            match super::check::read_back(scenario, topics, &written, interrupt) {
                Ok(records) => checked_records = Some(records),
                Err(BenchError::Interrupted) => measured.interrupted = true,
                Err(error) => return Err(error),
            }
        }
    }
    Ok(Outcome {
        measured,
        checked_records,
    })
}

/// What comes before the measurement has nothing to tell when it is cut short.
fn uninterrupted(measured: Measured) -> Result<(), BenchError> {
    match measured.interrupted {
        true => Err(BenchError::Interrupted),
        false => Ok(()),
    }
}

/// The scenario that fills the topics before another: in batches of the same make, as fast as it goes.
fn beforehand(scenario: &Scenario) -> Scenario {
    Scenario {
        workload: Workload::Produce,
        producers: scenario.producers.min(scenario.partitions_in_all()),
        rate: None,
        ..scenario.clone()
    }
}

/// The lanes of all producers: one for each leader of the partitions of a producer.
fn producers(scenario: &Scenario, places: &[Arc<Place>]) -> Vec<LanePlan> {
    let mut groups: Vec<Vec<Arc<Place>>> = Vec::new();
    for producer in 0..scenario.producers {
        let own = partitions_of(producer, scenario)
            .into_iter()
            .map(|p| Arc::clone(&places[p]));
        groups.extend(by_leader(own));
    }
    let all: usize = groups.iter().map(Vec::len).sum();
    let lanes = groups.len();
    let plan = |(number, places): (usize, Vec<Arc<Place>>)| LanePlan::Produce {
        share: Share {
            part: places.len() as f64 / all as f64,
            number,
            lanes,
        },
        places,
    };
    groups.into_iter().enumerate().map(plan).collect()
}

/// The lanes of all sets of consumers.
fn consumers(scenario: &Scenario, places: &[Arc<Place>], reading: Reading) -> Vec<LanePlan> {
    let mut plans = Vec::new();
    for _ in 0..scenario.fan_out {
        for consumer in 0..scenario.consumers as usize {
            let own = places
                .iter()
                .skip(consumer)
                .step_by(scenario.consumers as usize)
                .cloned();
            plans.extend(
                by_leader(own)
                    .into_iter()
                    .map(|places| LanePlan::Consume { places, reading }),
            );
        }
    }
    plans
}

fn by_leader(places: impl Iterator<Item = Arc<Place>>) -> Vec<Vec<Arc<Place>>> {
    let mut groups: Vec<Vec<Arc<Place>>> = Vec::new();
    for place in places {
        match groups.iter_mut().find(|group| group[0].leader == place.leader) {
            Some(group) => group.push(place),
            None => groups.push(vec![place]),
        }
    }
    groups
}

/// How the clients of a bench present themselves.
pub(crate) fn connection_config() -> ConnectionConfig {
    ConnectionConfig {
        client_id: "milena-bench".to_owned(),
        ..ConnectionConfig::default()
    }
}

#[cfg(test)]
mod tests {
    use super::super::scenario::Load;
    use super::*;

    fn places(count: usize, leaders: usize) -> Vec<Arc<Place>> {
        let place = |number: usize| Place {
            number,
            topic: "t".to_owned(),
            partition: number as i32,
            leader: format!("h:{}", 9092 + number % leaders).parse().unwrap(),
        };
        (0..count).map(|number| Arc::new(place(number))).collect()
    }

    fn scenario(workload: Workload, partitions: u32, change: impl FnOnce(&mut Load)) -> Scenario {
        let mut load = Load {
            partitions: Some(partitions),
            ..Load::default()
        };
        change(&mut load);
        Scenario::new("s".to_owned(), String::new(), workload, load).unwrap()
    }

    #[test]
    fn producers_share_the_partitions_by_leader_and_the_rate_by_partitions() {
        let scenario = scenario(Workload::Produce, 6, |load| load.producers = Some(2));
        let lanes = producers(&scenario, &places(6, 3));
        let of = |lane: &LanePlan| match lane {
            LanePlan::Produce { places, share } => (
                places.iter().map(|place| place.partition).collect::<Vec<_>>(),
                share.part,
            ),
            LanePlan::Consume { .. } => panic!(),
        };
        assert_eq!(
            lanes.len(),
            6,
            "each producer has partitions of all three leaders"
        );
        assert!((lanes.iter().map(|lane| of(lane).1).sum::<f64>() - 1.0).abs() < 1e-9);
        let mut partitions: Vec<i32> = lanes.iter().flat_map(|lane| of(lane).0).collect();
        partitions.sort_unstable();
        assert_eq!(partitions, [0, 1, 2, 3, 4, 5]);
    }

    #[test]
    fn more_producers_than_partitions_write_to_one_each() {
        let scenario = scenario(Workload::Produce, 2, |load| load.producers = Some(5));
        let lanes = producers(&scenario, &places(2, 1));
        let of = |lane: &LanePlan| match lane {
            LanePlan::Produce { places, .. } => places[0].partition,
            LanePlan::Consume { .. } => panic!(),
        };
        assert_eq!(lanes.iter().map(of).collect::<Vec<_>>(), [0, 1, 0, 1, 0]);
    }

    #[test]
    fn each_set_of_consumers_reads_everything() {
        let scenario = scenario(Workload::E2e, 5, |load| {
            load.consumers = Some(2);
            load.fan_out = Some(3);
        });
        let lanes = consumers(&scenario, &places(5, 1), Reading::Tail);
        assert_eq!(lanes.len(), 6);
        let mut seen = vec![0; 5];
        for lane in lanes {
            if let LanePlan::Consume { places, .. } = lane {
                places.iter().for_each(|place| seen[place.number] += 1);
            }
        }
        assert_eq!(seen, [3; 5]);
    }
}
