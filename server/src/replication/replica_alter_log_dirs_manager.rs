//! The threads that fill future replicas from the current ones (`ReplicaAlterLogDirsManager.scala`, `ReplicaAlterLogDirsThread.scala`).
//!
//! `num.replica.alter.log.dirs.threads` threads; a partition belongs to one by the same sum as with fetchers. What is to be done next
//! says the machine of the fetchers, [`super::replica_fetcher`]: the current log is the leader, the future one the follower's. A thread
//! copies one partition at a time, until it is level, in the order of their names; it rests while more than
//! `replica.alter.log.dirs.io.max.bytes.per.second` was copied. A move that fails ends with a line in the log, and begins again
//! with the next LeaderAndIsr or when asked for.

use std::sync::Arc;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use milena_engine::io::Clock;
use milena_engine::log::Log;
use milena_engine::units::{LeaderEpoch, Offset, TopicPartition};
use parking_lot::Mutex;

use super::hosted::future_replica::Copied;
use super::replica_fetcher::truncation::EpochEnd;
use super::replica_fetcher::{
    EpochQuestion, FetchPlan, FetchedPartition, FetcherRules, FollowError, FollowedLog, FollowedLogs,
    LeaderRefusal, ReplicaFetcher, Step,
};
use super::replica_fetcher_manager::fetcher_id;
use super::{Partition, PartitionRefusal, ReplicaManager};

const LOGGER: &str = "kafka.server.ReplicaAlterLogDirsThread";

/// What a moving thread is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MoverCommand {
    Move {
        partition: TopicPartition,
        epoch: LeaderEpoch,
        /// Where to begin if the logs' epochs say nothing.
        high_watermark: Offset,
    },
    Leave(TopicPartition),
    Stop,
}

/// What one moving thread hears.
#[derive(Debug)]
pub struct MoverInbox(mpsc::Receiver<MoverCommand>);

/// The way to the moving threads.
#[derive(Debug)]
pub(super) struct Movers(Vec<mpsc::Sender<MoverCommand>>);

impl Movers {
    pub(super) fn new(count: usize) -> (Movers, Vec<MoverInbox>) {
        let (senders, receivers) = (0..count).map(|_| mpsc::channel()).unzip::<_, _, _, Vec<_>>();
        (Movers(senders), receivers.into_iter().map(MoverInbox).collect())
    }

    pub(super) fn tell(&self, command: MoverCommand) {
        let threads = match &command {
            MoverCommand::Move { partition, .. } | MoverCommand::Leave(partition) => {
                let thread = fetcher_id(partition, self.0.len());
                &self.0[thread..=thread]
            }
            MoverCommand::Stop => &self.0[..],
        };
        for thread in threads {
            // Nothing moves any more in a broker that stops.
            let _ = thread.send(command.clone());
        }
    }
}

/// What moves go by.
#[derive(Clone, Copy, Debug)]
pub struct MoverSettings {
    pub broker_id: i32,
    /// `replica.fetch.max.bytes`: how much is copied at a time.
    pub copy_size_bytes_max: usize,
    /// `replica.fetch.backoff.ms`
    pub backoff: Duration,
}

/// The moving threads; they end when told to.
#[derive(Debug)]
pub struct ReplicaAlterLogDirsManager {
    replicas: Arc<ReplicaManager>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl ReplicaAlterLogDirsManager {
    /// Starts the threads.
    ///
    /// # Errors
    /// There is no thread.
    pub fn start(
        settings: MoverSettings,
        inboxes: Vec<MoverInbox>,
        replicas: &Arc<ReplicaManager>,
        clock: &Arc<dyn Clock>,
    ) -> std::io::Result<ReplicaAlterLogDirsManager> {
        let mut threads = Vec::with_capacity(inboxes.len());
        for (id, inbox) in inboxes.into_iter().enumerate() {
            let (replicas, clock) = (Arc::clone(replicas), Arc::clone(clock));
            let thread = std::thread::Builder::new()
                .name(format!("mover-{id}"))
                .spawn(move || Mover::new(settings, id, &replicas, &clock).run(&inbox))?;
            threads.push(thread);
        }
        Ok(ReplicaAlterLogDirsManager {
            replicas: Arc::clone(replicas),
            threads: Mutex::new(threads),
        })
    }

    /// Ends the threads; no log is written by them afterwards. Moves that are not over go on with the next start.
    pub fn stop(&self) {
        self.replicas.movers.tell(MoverCommand::Stop);
        for thread in self.threads.lock().drain(..) {
            if thread.join().is_err() {
                tracing::error!(target: LOGGER, "a thread that moves replicas ended by a panic");
            }
        }
    }
}

/// One moving thread.
pub struct Mover {
    settings: MoverSettings,
    id: usize,
    machine: ReplicaFetcher,
    logs: FutureLogs,
    clock: Arc<dyn Clock>,
    /// What is being copied.
    in_progress: Option<TopicPartition>,
}

impl std::fmt::Debug for Mover {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Mover {} of broker {}", self.id, self.settings.broker_id)
    }
}

impl Mover {
    pub fn new(
        settings: MoverSettings,
        id: usize,
        replicas: &Arc<ReplicaManager>,
        clock: &Arc<dyn Clock>,
    ) -> Mover {
        Mover {
            settings,
            id,
            machine: ReplicaFetcher::new(FetcherRules {
                backoff: settings.backoff,
                has_sessions: false,
                has_epochs: true,
            }),
            logs: FutureLogs {
                replicas: Arc::clone(replicas),
                clock: Arc::clone(clock),
                copy_size_bytes_max: settings.copy_size_bytes_max,
                copied: Arc::default(),
            },
            clock: Arc::clone(clock),
            in_progress: None,
        }
    }

    fn run(mut self, inbox: &MoverInbox) {
        loop {
            match self.step(inbox) {
                Turn::Again => {}
                Turn::Wait(pause) => {
                    let heard = match pause {
                        None => inbox.0.recv().map_err(|_| mpsc::RecvTimeoutError::Disconnected),
                        Some(pause) => inbox.0.recv_timeout(pause),
                    };
                    let goes_on = match heard {
                        Ok(command) => self.obey(command),
                        Err(error) => error == mpsc::RecvTimeoutError::Timeout,
                    };
                    if !goes_on {
                        return;
                    }
                }
                Turn::Stop => return,
            }
        }
    }

    /// Takes in what was told, and does what the machine says.
    fn step(&mut self, inbox: &MoverInbox) -> Turn {
        while let Ok(command) = inbox.0.try_recv() {
            if !self.obey(command) {
                return Turn::Stop;
            }
        }
        let now = self.clock.monotonic();
        match self.machine.next(now, &self.logs) {
            Step::Wait(until) => {
                self.tell_notes();
                return Turn::Wait(until.map(|until| until.saturating_sub(now)));
            }
            Step::AskEpochs(questions) => {
                let answers = questions
                    .iter()
                    .map(|question| (question.partition.clone(), self.logs.epoch_end(question)));
                let answers = answers.collect();
                self.machine.epochs_answered(now, &questions, answers, &self.logs);
            }
            Step::AskBounds {
                partition,
                current_leader_epoch: epoch,
            } => {
                let bounds = self.logs.current(&partition, epoch).map(|partition| {
                    let offsets = partition.log().offsets();
                    (offsets.log_start_offset, offsets.log_end_offset)
                });
                self.machine
                    .bounds_answered(now, &partition, epoch, bounds, &self.logs);
            }
            Step::Fetch(plan) => self.copy(now, &plan),
        }
        self.tell_notes();
        Turn::Again
    }

    /// `false`: the thread ends.
    fn obey(&mut self, command: MoverCommand) -> bool {
        match command {
            MoverCommand::Move {
                partition,
                epoch,
                high_watermark,
            } => self.machine.follow(partition, epoch, high_watermark),
            MoverCommand::Leave(partition) => self.machine.unfollow(&partition),
            MoverCommand::Stop => return false,
        }
        true
    }

    /// Copies a part of the one in progress, or begins with the first; one that is level takes the place of its current log.
    fn copy(&mut self, now: Duration, plan: &FetchPlan) {
        self.machine.begin_answer(0);
        let wanted = |name: &TopicPartition| plan.partitions.iter().find(|(other, _)| other == name);
        let going_on = self.in_progress.as_ref().and_then(wanted);
        let Some((name, position)) = going_on.or_else(|| plan.partitions.first()) else {
            return;
        };
        if going_on.is_none() {
            self.log(&format!(
                "Beginning/resuming copy of partition {name} from offset {}. Including this partition, there are {} remaining \
                 partitions to copy by this thread.",
                position.fetch_offset,
                plan.partitions.len()
            ));
            self.in_progress = Some(name.clone());
        }
        let current = self.logs.current(name, position.current_leader_epoch);
        let answer = current.and_then(|partition| {
            let offsets = partition.log().offsets();
            let (start, end) = (offsets.log_start_offset, offsets.log_end_offset);
            let future = partition
                .future_log()
                .map_or(start, |future| future.log_end_offset());
            if future < start || future > end {
                return Err(LeaderRefusal::OffsetOutOfRange);
            }
            // The records are looked up while they are appended.
            Ok(FetchedPartition {
                fetch_offset: position.fetch_offset,
                high_watermark: offsets.high_watermark,
                log_start_offset: Some(start),
                records: &[],
            })
        });
        *self.logs.copied.lock() = None;
        self.machine.partition_answered(now, name, answer, &self.logs);
        let copied = self.logs.copied.lock().take();
        if let Some(copied) = copied {
            let quota = &self.logs.replicas.quotas().alter_log_dirs;
            quota.record(now, copied.size_bytes);
            if copied.is_level {
                self.replace(name);
            }
        }
    }

    fn replace(&mut self, name: &TopicPartition) {
        let replicas = &self.logs.replicas;
        let Ok(partition) = replicas.partition(&name.topic, name.partition) else {
            return;
        };
        let replaced = partition.replace_with_future(self.settings.copy_size_bytes_max);
        if let Err(FollowError::Unfit(reason)) = &replaced {
            self.log(&format!("{name} is not replaced yet: {reason}"));
            self.machine.unanswered(self.clock.monotonic());
            return;
        }
        self.machine.unfollow(name);
        self.in_progress = None;
        match replaced {
            Ok(true) if !partition.log().directory().is_online() => replicas.out_of_service(name),
            Ok(_) => {}
            Err(error) => tracing::error!(
                target: LOGGER,
                "[ReplicaAlterLogDirs replicaId={}, fetcherId={}] {name} stays in its log directory: {error}",
                self.settings.broker_id,
                self.id
            ),
        }
    }

    fn tell_notes(&mut self) {
        for note in self.machine.notes() {
            self.log(&note);
        }
    }

    fn log(&self, line: &str) {
        tracing::info!(
            target: LOGGER,
            "[ReplicaAlterLogDirs replicaId={}, fetcherId={}] {line}",
            self.settings.broker_id,
            self.id
        );
    }
}

/// What a thread does next.
enum Turn {
    Again,
    /// Until something is told, or the time is over.
    Wait(Option<Duration>),
    Stop,
}

/// How the machine reaches the future logs of this broker.
struct FutureLogs {
    replicas: Arc<ReplicaManager>,
    clock: Arc<dyn Clock>,
    copy_size_bytes_max: usize,
    /// The last copy, if there was one.
    copied: Arc<Mutex<Option<Copied>>>,
}

impl FutureLogs {
    /// The partition whose current log is copied, in this epoch.
    fn current(&self, name: &TopicPartition, epoch: LeaderEpoch) -> Result<Arc<Partition>, LeaderRefusal> {
        let partition = self.replicas.partition(&name.topic, name.partition);
        let partition = partition.map_err(|_| LeaderRefusal::Passing)?;
        match partition.check_epoch(epoch.get()) {
            Ok(_) => Ok(partition),
            Err(PartitionRefusal::FencedLeaderEpoch) => Err(LeaderRefusal::FencedLeaderEpoch),
            Err(_) => Err(LeaderRefusal::Passing),
        }
    }

    fn epoch_end(&self, question: &EpochQuestion) -> Result<EpochEnd, LeaderRefusal> {
        let partition = self.current(&question.partition, question.current_leader_epoch)?;
        let found = partition.log().end_offset_for_epoch(Some(question.epoch));
        Ok(EpochEnd {
            epoch: found.map(|found| found.epoch),
            end: found.map(|found| found.end_offset),
        })
    }
}

impl FollowedLogs for FutureLogs {
    fn log(&self, partition: &TopicPartition) -> Option<Arc<dyn FollowedLog>> {
        let partition = self.replicas.partition(&partition.topic, partition.partition);
        let partition = partition.ok()?;
        let log = partition.future_log()?;
        Some(Arc::new(FutureReplica {
            partition,
            log,
            copy_size_bytes_max: self.copy_size_bytes_max,
            copied: Arc::clone(&self.copied),
        }))
    }

    fn is_quota_exceeded(&self) -> bool {
        let quota = &self.replicas.quotas().alter_log_dirs;
        quota.is_exceeded(self.clock.monotonic())
    }

    fn is_throttled(&self, _: &TopicPartition) -> bool {
        true
    }
}

struct FutureReplica {
    partition: Arc<Partition>,
    log: Arc<Log>,
    copy_size_bytes_max: usize,
    copied: Arc<Mutex<Option<Copied>>>,
}

impl FollowedLog for FutureReplica {
    fn log_end(&self) -> Offset {
        self.log.log_end_offset()
    }

    fn log_start(&self) -> Offset {
        self.log.log_start_offset()
    }

    fn latest_epoch(&self) -> Option<LeaderEpoch> {
        self.log.latest_epoch()
    }

    fn end_of_epoch(&self, epoch: LeaderEpoch) -> Option<(LeaderEpoch, Offset)> {
        let end = self.log.end_offset_for_epoch(Some(epoch))?;
        Some((end.epoch, end.end_offset))
    }

    fn truncate_to(&self, epoch: LeaderEpoch, offset: Offset) -> Result<(), FollowError> {
        self.partition.truncate_future(epoch, offset)
    }

    fn restart_at(&self, epoch: LeaderEpoch, offset: Offset) -> Result<(), FollowError> {
        self.partition.restart_future(epoch, offset)
    }

    /// The answer says only that there may be more.
    fn append(&self, epoch: LeaderEpoch, _: &FetchedPartition<'_>) -> Result<Offset, FollowError> {
        let copied = self.partition.copy_to_future(epoch, self.copy_size_bytes_max)?;
        *self.copied.lock() = Some(copied);
        Ok(copied.end)
    }
}

#[cfg(test)]
mod tests;
