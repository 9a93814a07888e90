//! A scenario, run: topics are made, lanes opened and spread over the generator's threads, phases driven, topics deleted.
//!
//! A phase begins with nothing under way and ends when everything is answered: warm-up and measurement do not mix, and
//! what is accounted between the ends of a phase is the phase's. The coordinating thread looks once a second at what the
//! lanes have measured. Nothing moving for a minute ends a load, and so does a signal.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use milena_server::client::{Address, ConnectionConfig};
use tokio::task::{JoinSet, LocalSet};

use super::accounting::GeneratorCpu;
use super::arrivals::Arrivals;
use super::batch::ContentSum;
use super::consume::{ConsumerLane, Reading};
use super::error::BenchError;
use super::interrupt::Interrupt;
use super::produce::{ProducerLane, Share, partitions_of};
use super::recorder::{Interval, Recorder};
use super::results::SecondRow;
use super::scenario::{Scenario, Workload};
use super::ticker::now_ns;
use super::topics::Topics;

/// No lane has moved for so long: the broker is gone.
const STALL: Duration = Duration::from_secs(60);
/// How long the lanes have to stop after a signal.
const STOP: Duration = Duration::from_secs(3);

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
    stop: AtomicBool,
    /// Producer lanes that are not done with the phase.
    producing: AtomicUsize,
    /// By partition: the offset after the last record that is acknowledged.
    ends: Vec<AtomicI64>,
}

impl LoadState {
    fn new(ends: &[i64]) -> LoadState {
        LoadState {
            stop: AtomicBool::new(false),
            producing: AtomicUsize::new(0),
            ends: ends.iter().copied().map(AtomicI64::new).collect(),
        }
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

#[derive(Debug)]
enum Lane {
    Producer(Box<ProducerLane>),
    Consumer(Box<ConsumerLane>),
}

/// A lane that is to be opened.
#[derive(Clone, Debug)]
enum LanePlan {
    Produce {
        places: Vec<Arc<Place>>,
        share: Share,
    },
    Consume {
        places: Vec<Arc<Place>>,
        reading: Reading,
    },
}

enum Command {
    Run(Phase),
    Finish,
}

enum Report {
    Ready,
    PhaseDone,
    Written(Vec<(usize, ContentSum)>),
    Failed(BenchError),
}

/// A second of the measurement.
#[derive(Clone, Debug)]
pub(crate) struct Second {
    /// Seconds since the start, at its end.
    pub(crate) until: f64,
    pub(crate) interval: Interval,
}

/// What a phase has measured.
#[derive(Debug)]
pub(crate) struct Measured {
    pub(crate) total: Interval,
    pub(crate) seconds: Vec<SecondRow>,
    pub(crate) cpu: GeneratorCpu,
}

/// Who wants to know how it goes.
pub(crate) trait Observer {
    /// The measurement begins: all is open, nothing is under way.
    fn begins(&mut self) -> Result<(), BenchError> {
        Ok(())
    }

    /// A second of it is over.
    fn second(&mut self, _scenario: &Scenario, _second: &Second) {}

    /// Everything is answered.
    fn ends(&mut self) -> Result<(), BenchError> {
        Ok(())
    }
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
    let mut topics = Topics::create(scenario, bootstrap)?;
    let outcome = run_on(scenario, &mut topics, interrupt, observer);
    let deleted = topics.delete();
    let outcome = outcome?;
    deleted?;
    Ok(outcome)
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
        load.run(&phase, &scenario, &mut Silent)?;
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
        load.run(&phase, scenario, &mut Silent)?;
    }
    observer.begins()?;
    let phase = |began_ns| Phase {
        began_ns,
        rate: scenario.rate,
        duration_ns: scenario.duration.map(|duration| nanoseconds(duration.0)),
        records: scenario.records.filter(|_| scenario.produces()),
    };
    let measured = load.run(&phase, scenario, observer)?;
    observer.ends()?;
    load.finish(&mut written)?;
    let checked_records = match scenario.check {
        true => Some(super::check::read_back(scenario, topics, &written, interrupt)?),
        false => None,
    };
    Ok(Outcome {
        measured,
        checked_records,
    })
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

/// Looks at nothing.
struct Silent;

impl Observer for Silent {}

/// The generator's threads, with their lanes open.
struct Threads<'i> {
    commands: Vec<Sender<Command>>,
    reports: Receiver<Report>,
    recorders: Vec<Arc<Recorder>>,
    state: Arc<LoadState>,
    interrupt: &'i Interrupt,
    producer_lanes: usize,
}

impl<'i> Threads<'i> {
    fn start(
        scenario: &Scenario,
        lanes: Vec<LanePlan>,
        places: &[Arc<Place>],
        ends: &[i64],
        interrupt: &'i Interrupt,
    ) -> Result<Threads<'i>, BenchError> {
        let state = Arc::new(LoadState::new(ends));
        let joined = matches!(scenario.workload, Workload::E2e | Workload::Mixed);
        let arrivals = joined.then(|| Arc::new(Arrivals::new(places.len(), scenario.fan_out)));
        let scenario = Arc::new(scenario.clone());
        let is_producer = |lane: &&LanePlan| matches!(lane, LanePlan::Produce { .. });
        let producer_lanes = lanes.iter().filter(is_producer).count();
        let threads = (scenario.threads as usize).min(lanes.len()).max(1);
        let (to_us, reports) = mpsc::channel();
        let (mut commands, mut recorders) = (Vec::new(), Vec::new());
        for number in 0..threads {
            let own: Vec<LanePlan> = lanes.iter().skip(number).step_by(threads).cloned().collect();
            let (command, commanded) = mpsc::channel();
            let recorder = Arc::new(Recorder::new());
            let context = LaneContext {
                scenario: Arc::clone(&scenario),
                state: Arc::clone(&state),
                recorder: Arc::clone(&recorder),
                arrivals: arrivals.clone(),
                mean_value_size: scenario.recipe.values.mean_size(),
            };
            let reports = to_us.clone();
            let thread = move || {
                let failed = serve(own, &context, &commanded, &reports).err();
                // Who does not listen any more has given up already.
                let _ = failed.map(|error| reports.send(Report::Failed(error)));
            };
            let named = thread::Builder::new().name(format!("load-{number}"));
            named
                .spawn(thread)
                .map_err(BenchError::system("a thread of the generator"))?;
            commands.push(command);
            recorders.push(recorder);
        }
        let mut threads = Threads {
            commands,
            reports,
            recorders,
            state,
            interrupt,
            producer_lanes,
        };
        threads.wait_for(|_| ())?;
        Ok(threads)
    }

    /// Waits until every thread has reported, calling `meanwhile` every now and then.
    fn wait_for(&mut self, mut meanwhile: impl FnMut(&Threads<'_>)) -> Result<Vec<Report>, BenchError> {
        let mut reports = Vec::new();
        let mut stopping: Option<Instant> = None;
        let (mut moved, mut moved_at) = (0, Instant::now());
        while reports.len() < self.commands.len() {
            match self.reports.recv_timeout(Duration::from_millis(20)) {
                Ok(Report::Failed(error)) => {
                    self.state.stop.store(true, Ordering::Relaxed);
                    return Err(error);
                }
                Ok(report) => reports.push(report),
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(BenchError::Broker("a thread of the generator ended".to_owned()));
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
            meanwhile(self);
            let ends = &self.state.ends;
            let now: i64 = ends.iter().map(|end| end.load(Ordering::Relaxed)).sum::<i64>()
                + self
                    .recorders
                    .iter()
                    .map(|recorder| recorder.moves() as i64)
                    .sum::<i64>();
            if now != moved {
                (moved, moved_at) = (now, Instant::now());
            }
            if moved_at.elapsed() > STALL {
                self.state.stop.store(true, Ordering::Relaxed);
                let text = format!("nothing was answered for {} s", STALL.as_secs());
                return Err(BenchError::Broker(text));
            }
            if self.interrupt.came() {
                self.state.stop.store(true, Ordering::Relaxed);
                if stopping.get_or_insert_with(Instant::now).elapsed() > STOP {
                    return Err(BenchError::Interrupted);
                }
            }
        }
        match self.interrupt.came() {
            true => Err(BenchError::Interrupted),
            false => Ok(reports),
        }
    }

    fn tell(&self, command: impl Fn() -> Command) {
        for thread in &self.commands {
            // A thread that is gone has reported why, or will.
            let _ = thread.send(command());
        }
    }

    /// Runs a phase and takes in what the lanes measure.
    fn run(
        &mut self,
        phase: &dyn Fn(u64) -> Phase,
        scenario: &Scenario,
        observer: &mut dyn Observer,
    ) -> Result<Measured, BenchError> {
        self.state.producing.store(self.producer_lanes, Ordering::Release);
        let cpu = GeneratorCpu::now();
        // The lanes begin together, a moment from now.
        let phase = phase(now_ns() + 1_000_000);
        self.tell(|| Command::Run(phase.clone()));
        let mut total = Interval::new();
        let mut seconds = Vec::new();
        let mut next = Duration::from_secs(1).as_nanos() as u64;
        let mut spare = Interval::new();
        let mut sample = |threads: &Threads<'_>, until_ns: u64| {
            let mut interval = Interval::new();
            for recorder in &threads.recorders {
                recorder.swap(&mut spare);
                interval.add(&spare);
                spare.clear();
            }
            total.add(&interval);
            let second = Second {
                until: until_ns as f64 / 1e9,
                interval,
            };
            observer.second(scenario, &second);
            seconds.push(SecondRow::of(&second));
        };
        self.wait_for(|threads| {
            let since = now_ns().saturating_sub(phase.began_ns);
            if since >= next {
                sample(threads, since);
                next = (since / 1_000_000_000 + 1) * 1_000_000_000;
            }
        })?;
        let cpu = cpu.until_now();
        sample(self, now_ns().saturating_sub(phase.began_ns));
        Ok(Measured { total, seconds, cpu })
    }

    /// Closes the lanes; adds up what they wrote and says where the partitions end.
    fn finish(mut self, written: &mut [ContentSum]) -> Result<Vec<i64>, BenchError> {
        self.tell(|| Command::Finish);
        for report in self.wait_for(|_| ())? {
            if let Report::Written(sums) = report {
                sums.into_iter()
                    .for_each(|(partition, sum)| written[partition] += sum);
            }
        }
        Ok((0..written.len())
            .map(|partition| self.state.end_of(partition))
            .collect())
    }
}

/// A thread's life: opens its lanes and does what it is told.
fn serve(
    plans: Vec<LanePlan>,
    context: &LaneContext,
    commands: &Receiver<Command>,
    reports: &Sender<Report>,
) -> Result<(), BenchError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(BenchError::system("a runtime"))?;
    let local = LocalSet::new();
    let mut lanes = local.block_on(&runtime, async {
        let mut lanes = Vec::new();
        for plan in plans {
            lanes.push(open(plan, context).await?);
        }
        Ok::<_, BenchError>(lanes)
    })?;
    let tell = |report| reports.send(report).is_ok();
    if !tell(Report::Ready) {
        return Ok(());
    }
    while let Ok(command) = commands.recv() {
        let Command::Run(phase) = command else {
            let producers = lanes.iter().filter_map(|lane| match lane {
                Lane::Producer(producer) => Some(producer),
                Lane::Consumer(_) => None,
            });
            tell(Report::Written(
                producers.flat_map(|producer| producer.written()).collect(),
            ));
            break;
        };
        lanes = local.block_on(&runtime, run_lanes(lanes, phase, context))?;
        if !tell(Report::PhaseDone) {
            break;
        }
    }
    Ok(())
}

async fn open(plan: LanePlan, context: &LaneContext) -> Result<Lane, BenchError> {
    let context = context.clone();
    Ok(match plan {
        LanePlan::Produce { places, share } => {
            let leader = places[0].leader.clone();
            Lane::Producer(Box::new(
                ProducerLane::open(&leader, context, places, share).await?,
            ))
        }
        LanePlan::Consume { places, reading } => {
            let leader = places[0].leader.clone();
            Lane::Consumer(Box::new(
                ConsumerLane::open(&leader, context, places, reading).await?,
            ))
        }
    })
}

/// Runs all lanes of a thread to their end; the first that fails ends the others.
async fn run_lanes(lanes: Vec<Lane>, phase: Phase, context: &LaneContext) -> Result<Vec<Lane>, BenchError> {
    let mut running = JoinSet::new();
    for lane in lanes {
        let phase = phase.clone();
        let state = Arc::clone(&context.state);
        running.spawn_local(async move {
            Ok::<_, BenchError>(match lane {
                Lane::Producer(mut producer) => {
                    let ran = producer.run(&phase).await;
                    state.producing.fetch_sub(1, Ordering::Release);
                    ran.map(|()| Lane::Producer(producer))?
                }
                Lane::Consumer(mut consumer) => {
                    consumer.run(&phase).await?;
                    Lane::Consumer(consumer)
                }
            })
        });
    }
    let mut lanes = Vec::new();
    while let Some(ended) = running.join_next().await {
        let ended = ended.map_err(|error| BenchError::Broker(format!("a lane broke: {error}")))?;
        lanes.push(ended?);
    }
    Ok(lanes)
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
