//! The threads of the generator: each opens its lanes, runs them phase by phase, and says what they wrote.
//!
//! The coordinating thread looks once a second at what the lanes have measured. Nothing moving for a minute ends a load,
//! and so do a signal and the first lane that fails.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use tokio::task::{JoinSet, LocalSet};

use super::accounting::GeneratorCpu;
use super::arrivals::Arrivals;
use super::batch::ContentSum;
use super::consume::{ConsumerLane, Reading};
use super::error::BenchError;
use super::interrupt::Interrupt;
use super::load::{LaneContext, LoadState, Phase, Place};
use super::produce::{ProducerLane, Share};
use super::recorder::{Interval, Recorder};
use super::results::SecondRow;
use super::scenario::{Scenario, Workload};
use super::ticker::now_ns;

/// No lane has moved for so long: the broker is gone.
const STALL: Duration = Duration::from_secs(60);
/// How long the lanes have to stop after a signal.
const STOP: Duration = Duration::from_secs(3);

#[derive(Debug)]
enum Lane {
    Producer(Box<ProducerLane>),
    Consumer(Box<ConsumerLane>),
}

/// A lane that is to be opened.
#[derive(Clone, Debug)]
pub(super) enum LanePlan {
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
    /// By how much the schedule is not kept at that moment.
    pub(crate) behind_s: f64,
}

/// What a phase has measured.
#[derive(Debug)]
pub(crate) struct Measured {
    pub(crate) total: Interval,
    pub(crate) seconds: Vec<SecondRow>,
    pub(crate) cpu: GeneratorCpu,
    /// How late the last batch was, and records that were too late to be sent.
    pub(crate) behind_s: f64,
    pub(crate) unsent: u64,
    /// A signal came before the end.
    pub(crate) interrupted: bool,
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

/// Looks at nothing.
pub(super) struct Silent;

impl Observer for Silent {}

/// The generator's threads, with their lanes open.
pub(super) struct Threads<'i> {
    commands: Vec<Sender<Command>>,
    reports: Receiver<Report>,
    recorders: Vec<Arc<Recorder>>,
    state: Arc<LoadState>,
    interrupt: &'i Interrupt,
}

impl<'i> Threads<'i> {
    pub(super) fn start(
        scenario: &Scenario,
        lanes: Vec<LanePlan>,
        places: &[Arc<Place>],
        ends: &[i64],
        interrupt: &'i Interrupt,
    ) -> Result<Threads<'i>, BenchError> {
        let is_producer = |lane: &&LanePlan| matches!(lane, LanePlan::Produce { .. });
        let producer_lanes = lanes.iter().filter(is_producer).count();
        let state = Arc::new(LoadState::new(ends, producer_lanes));
        let joined = matches!(scenario.workload, Workload::E2e | Workload::Mixed);
        let arrivals = joined.then(|| Arc::new(Arrivals::new(places.len(), scenario.fan_out)));
        let scenario = Arc::new(scenario.clone());
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

    /// Runs a phase and takes in what the lanes measure, as far as it comes before a signal.
    pub(super) fn run(
        &mut self,
        phase: &dyn Fn(u64) -> Phase,
        scenario: &Scenario,
        observer: &mut dyn Observer,
    ) -> Result<Measured, BenchError> {
        self.state.begin();
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
                behind_s: threads.state.behind_s(),
            };
            observer.second(scenario, &second);
            seconds.push(SecondRow::of(&second));
        };
        let ended = self.wait_for(|threads| {
            let since = now_ns().saturating_sub(phase.began_ns);
            if since >= next {
                sample(threads, since);
                next = (since / 1_000_000_000 + 1) * 1_000_000_000;
            }
        });
        let interrupted = match ended {
            Ok(_) => false,
            Err(BenchError::Interrupted) => true,
            Err(error) => return Err(error),
        };
        let cpu = cpu.until_now();
        sample(self, now_ns().saturating_sub(phase.began_ns));
        Ok(Measured {
            total,
            seconds,
            cpu,
            behind_s: self.state.behind_s(),
            unsent: self.state.unsent.load(Ordering::Relaxed),
            interrupted,
        })
    }

    /// Closes the lanes; adds up what they wrote and says where the partitions end.
    pub(super) fn finish(mut self, written: &mut [ContentSum]) -> Result<Vec<i64>, BenchError> {
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
