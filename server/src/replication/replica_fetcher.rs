//! A follower's dealings with one leader, as a pure machine: which partitions it follows, what it asks for next, where its logs must
//! be cut (`AbstractFetcherThread.scala`, `ReplicaFetcherThread.scala`).
//!
//! ```text
//!            follow                 cut where the leader's log parts from ours
//! (nothing) ───────▶ Truncating ──────────────────────────────────────────────▶ Fetching ◀──┐
//!                        ▲  │ an error                            an error │      │  ▲  └── records
//!                        │  └────────────▶ Delayed ◀───────────────────────┘      │  │
//!                        └─────────────────── │ ──────────────────────────────────┘  │
//!                                  the time is over          OFFSET_OUT_OF_RANGE ──▶ OutOfRange
//!                     over the rate, and lagging ──▶ Throttled, until the rate allows it ──▶ Fetching
//!    a fenced epoch or a failed disk, from any of them ──▶ Failed, until the next LeaderAndIsr
//! ```
//!
//! [`ReplicaFetcher::next`] says what to ask the leader; one question is under way at a time, and its answer comes back by one of
//! the `.._answered` calls. What a partition was asked for is remembered, so that an answer from before a change of role, epoch or
//! offset is not applied. The logs are reached through [`FollowedLog`], whose body refuses what does not fit the role of the
//! moment.
//!
//! **Deviation:** what the leader refuses for a moment only, as before it heard of its new role, is asked for again after 10 ms, then 20, 40,
//! ... up to `replica.fetch.backoff.ms`; 2.7.2 waits that long (1 s) at once, and with it whoever waits for acks of all.
//!
//! Truncation goes by leader epochs only (KIP-101, KIP-279); a log without epochs is cut at its high watermark, as 2.7.2 does.

pub mod fetch_session;
#[cfg(test)]
mod tests;
pub mod truncation;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use milena_engine::units::{LeaderEpoch, Offset, TopicPartition};

use crate::planted::{self, Bug};
use fetch_session::FetchSession;
use truncation::{EpochEnd, Truncation, truncation};

/// A partition that is followed, as the machine reaches its log.
pub trait FollowedLog {
    fn log_end(&self) -> Offset;
    fn log_start(&self) -> Offset;
    fn latest_epoch(&self) -> Option<LeaderEpoch>;
    /// The largest epoch not above `epoch`, and where it ends.
    fn end_of_epoch(&self, epoch: LeaderEpoch) -> Option<(LeaderEpoch, Offset)>;
    /// Cuts the log at `offset`.
    fn truncate_to(&self, epoch: LeaderEpoch, offset: Offset) -> Result<(), FollowError>;
    /// Empties the log; it starts at `offset`.
    fn restart_at(&self, epoch: LeaderEpoch, offset: Offset) -> Result<(), FollowError>;
    /// Appends what the leader of `epoch` sent, and takes over its high watermark and log start offset. Returns the log end.
    fn append(&self, epoch: LeaderEpoch, answer: &FetchedPartition<'_>) -> Result<Offset, FollowError>;
}

/// How the machine finds the logs.
pub trait FollowedLogs {
    fn log(&self, partition: &TopicPartition) -> Option<Arc<dyn FollowedLog>>;
    /// Whether more has come of the throttled partitions than `follower.replication.throttled.rate` allows.
    fn is_quota_exceeded(&self) -> bool;
    /// Whether the partition is listed in `follower.replication.throttled.replicas`.
    fn is_throttled(&self, partition: &TopicPartition) -> bool;
}

/// Why a log does not take what the leader sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FollowError {
    /// The partition has another role or epoch by now: this answer is not for it.
    #[error("the replica does not follow that leader any more")]
    NotFollowing,
    /// What came is damaged, or does not fit: asked for again.
    #[error("{0}")]
    Unfit(String),
    /// The directory has no room at the moment: asked for again. The log manager has said so, once.
    #[error("the log directory is full")]
    Full,
    /// The disk failed, or the partition is out of service.
    #[error("{0}")]
    Storage(String),
}

/// What a leader said of one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FetchedPartition<'a> {
    pub fetch_offset: Offset,
    pub high_watermark: Offset,
    pub log_start_offset: Option<Offset>,
    pub records: &'a [u8],
}

/// What a leader refuses, as far as it matters to a follower.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LeaderRefusal {
    OffsetOutOfRange,
    FencedLeaderEpoch,
    /// It will be over: not leader (yet), unknown epoch, unknown partition.
    Passing,
    Other(String),
}

/// What one partition is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FetchPosition {
    pub fetch_offset: Offset,
    pub log_start_offset: Offset,
    pub current_leader_epoch: LeaderEpoch,
}

/// A fetch to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchPlan {
    pub session_id: i32,
    pub session_epoch: i32,
    /// All partitions in the first request of a session, and those that changed afterwards.
    pub partitions: Vec<(TopicPartition, FetchPosition)>,
    pub forgotten: Vec<TopicPartition>,
}

/// A question about the end of an epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EpochQuestion {
    pub partition: TopicPartition,
    pub current_leader_epoch: LeaderEpoch,
    pub epoch: LeaderEpoch,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    AskEpochs(Vec<EpochQuestion>),
    /// Where does the leader's log of this partition start and end?
    AskBounds {
        partition: TopicPartition,
        current_leader_epoch: LeaderEpoch,
    },
    Fetch(FetchPlan),
    /// Nothing before that time, or before the next [`ReplicaFetcher::follow`].
    Wait(Option<Duration>),
}

/// How soon what passes is asked for again at first.
const SOON: Duration = Duration::from_millis(10);

/// What a fetcher goes by.
#[derive(Clone, Copy, Debug)]
pub struct FetcherRules {
    /// `replica.fetch.backoff.ms`
    pub backoff: Duration,
    /// The leader keeps sessions: Fetch from version 7 on.
    pub has_sessions: bool,
    /// The leader tells where epochs end: `inter.broker.protocol.version` from 0.11.0-IV2 on.
    pub has_epochs: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Truncating,
    Fetching,
    OutOfRange,
    /// Left out of the fetches for now.
    Throttled,
    /// Truncating or fetching again once it is over.
    Delayed {
        until: Duration,
        truncates: bool,
    },
    Failed,
}

#[derive(Clone, Debug)]
struct Followed {
    epoch: LeaderEpoch,
    /// Where the next records go.
    fetch_offset: Offset,
    /// By the leader's last answer, nothing that is committed is missing.
    is_caught_up: bool,
    phase: Phase,
    /// How long the next refusal that passes makes it wait.
    patience: Duration,
}

/// See the module.
#[derive(Debug)]
pub struct ReplicaFetcher {
    rules: FetcherRules,
    partitions: BTreeMap<TopicPartition, Followed>,
    session: FetchSession,
    /// Those in [`Phase::Truncating`].
    truncating: BTreeSet<TopicPartition>,
    /// Those in [`Phase::OutOfRange`].
    out_of_range: BTreeSet<TopicPartition>,
    /// Those in [`Phase::Throttled`].
    throttled: BTreeSet<TopicPartition>,
    /// Those in [`Phase::Delayed`], by the end of their delay.
    delayed: BTreeSet<(Duration, TopicPartition)>,
    notes: Vec<String>,
}

impl ReplicaFetcher {
    pub fn new(rules: FetcherRules) -> ReplicaFetcher {
        ReplicaFetcher {
            session: FetchSession::new(rules.has_sessions),
            rules,
            partitions: BTreeMap::new(),
            truncating: BTreeSet::new(),
            out_of_range: BTreeSet::new(),
            throttled: BTreeSet::new(),
            delayed: BTreeSet::new(),
            notes: Vec::new(),
        }
    }

    /// Follows the leader of `epoch`; `high_watermark` is where to begin if the logs' epochs say nothing.
    pub fn follow(&mut self, partition: TopicPartition, epoch: LeaderEpoch, high_watermark: Offset) {
        self.unfollow(&partition);
        self.truncating.insert(partition.clone());
        let followed = Followed {
            epoch,
            fetch_offset: high_watermark,
            is_caught_up: false,
            phase: Phase::Truncating,
            patience: SOON,
        };
        self.partitions.insert(partition, followed);
    }

    pub fn unfollow(&mut self, partition: &TopicPartition) {
        if let Some(followed) = self.partitions.remove(partition) {
            self.leave(partition, followed.phase);
            self.session.exclude(partition);
        }
    }

    /// Partitions that are followed; also those that failed.
    pub fn partition_count(&self) -> usize {
        self.partitions.len()
    }

    /// Lines for the log since the last call.
    pub fn notes(&mut self) -> Vec<String> {
        std::mem::take(&mut self.notes)
    }

    /// What to ask the leader now.
    pub fn next(&mut self, now: Duration, logs: &dyn FollowedLogs) -> Step {
        self.end_delays(now, logs);
        if let Some(questions) = self.epoch_questions(now, logs) {
            return Step::AskEpochs(questions);
        }
        if let Some(partition) = self.out_of_range.first() {
            return Step::AskBounds {
                partition: partition.clone(),
                current_leader_epoch: self.partitions[partition].epoch,
            };
        }
        self.throttle(logs);
        match self.session.plan() {
            Some(plan) => Step::Fetch(plan),
            None => {
                let delayed = self.delayed.first().map(|(until, _)| *until);
                let throttled = (!self.throttled.is_empty()).then(|| now + self.rules.backoff);
                Step::Wait(delayed.into_iter().chain(throttled).min())
            }
        }
    }

    /// The leader's answers to [`Step::AskEpochs`]. Partitions that it left out are asked for again.
    pub fn epochs_answered(
        &mut self,
        now: Duration,
        asked: &[EpochQuestion],
        answers: Vec<(TopicPartition, Result<EpochEnd, LeaderRefusal>)>,
        logs: &dyn FollowedLogs,
    ) {
        for (partition, answer) in answers {
            let question = asked.iter().find(|question| question.partition == partition);
            let Some(question) = question else { continue };
            let still = self.partitions.get(&partition).filter(|followed| {
                followed.phase == Phase::Truncating && followed.epoch == question.current_leader_epoch
            });
            let Some(followed) = still else { continue };
            match answer {
                Ok(end) => {
                    let Some(log) = logs.log(&partition) else { continue };
                    let truncation = truncation(&*log, followed.fetch_offset, end);
                    self.truncate(now, &partition, &*log, truncation);
                }
                Err(refusal) => self.refused(now, &partition, question.current_leader_epoch, refusal),
            }
        }
    }

    /// The leader's answer to [`Step::AskBounds`].
    ///
    /// A leader whose log ends before ours (after an unclean election) makes us cut there; one whose log starts beyond our end
    /// makes us start anew; otherwise we simply go on from our own end.
    pub fn bounds_answered(
        &mut self,
        now: Duration,
        partition: &TopicPartition,
        epoch: LeaderEpoch,
        bounds: Result<(Offset, Offset), LeaderRefusal>,
        logs: &dyn FollowedLogs,
    ) {
        let still = self
            .partitions
            .get(partition)
            .is_some_and(|followed| followed.phase == Phase::OutOfRange && followed.epoch == epoch);
        if !still {
            return;
        }
        let Some(log) = logs.log(partition) else { return };
        let (start, end) = match bounds {
            Ok(bounds) => bounds,
            Err(refusal) => return self.refused(now, partition, epoch, refusal),
        };
        let our_end = log.log_end();
        let (changed, next) = if end < our_end {
            self.note(
                partition,
                &format!("reset from {our_end} to the leader's latest offset {end}"),
            );
            (log.truncate_to(epoch, end), end)
        } else if start > our_end {
            self.note(
                partition,
                &format!("reset from {our_end} to the leader's start offset {start}"),
            );
            (log.restart_at(epoch, start), start)
        } else {
            (Ok(()), our_end)
        };
        match changed {
            Ok(()) => self.fetch_from(partition, next, &*log),
            Err(error) => self.failed(now, partition, error),
        }
    }

    /// The leader answered a fetch, in this session; what it says of partitions follows.
    pub fn begin_answer(&mut self, session_id: i32) {
        self.session.answered(session_id);
    }

    /// The leader refused the session itself, or the connection is gone: the next fetch names everything anew.
    pub fn session_lost(&mut self) {
        self.session.renew();
    }

    /// What the answer says of one partition.
    pub fn partition_answered(
        &mut self,
        now: Duration,
        partition: &TopicPartition,
        answer: Result<FetchedPartition<'_>, LeaderRefusal>,
        logs: &dyn FollowedLogs,
    ) {
        // A partition whose position changed since the question was asked, by its role or epoch, is not told yet.
        let told = self.session.told(partition);
        let asked = self
            .partitions
            .get(partition)
            .zip(told)
            .filter(|(followed, told)| {
                followed.phase == Phase::Fetching && followed.fetch_offset == told.fetch_offset
            });
        let Some((followed, told)) = asked else {
            return self.unheard(&answer);
        };
        let epoch = followed.epoch;
        match answer {
            Ok(answer) => {
                let Some(log) = logs.log(partition) else { return };
                let answer = FetchedPartition {
                    fetch_offset: told.fetch_offset,
                    ..answer
                };
                match log.append(epoch, &answer) {
                    Ok(end) => {
                        self.fetch_from(partition, end, &*log);
                        let followed = self.followed(partition);
                        followed.patience = SOON;
                        followed.is_caught_up = answer.high_watermark <= end;
                    }
                    Err(error) => {
                        self.unheard(&Ok(answer));
                        self.failed(now, partition, error);
                    }
                }
            }
            Err(refusal) => self.refused(now, partition, epoch, refusal),
        }
    }

    /// What a leader said came to nothing. It takes its high watermark for known and does not say it again in this session, not to a
    /// later reign either, so that a partition to which nothing is written would stay below it.
    fn unheard<T>(&mut self, answer: &Result<T, LeaderRefusal>) {
        if answer.is_ok() && !planted::has(Bug::SaidInVain) {
            self.session.renew();
        }
    }

    /// The question could not be asked or was not answered: everything that it was about waits.
    pub fn unanswered(&mut self, now: Duration) {
        self.session.renew();
        let active: Vec<TopicPartition> = self
            .partitions
            .iter()
            .filter(|(_, followed)| {
                matches!(
                    followed.phase,
                    Phase::Truncating | Phase::Fetching | Phase::OutOfRange
                )
            })
            .map(|(partition, _)| partition.clone())
            .collect();
        for partition in active {
            self.delay(now, &partition);
        }
    }

    fn end_delays(&mut self, now: Duration, logs: &dyn FollowedLogs) {
        while let Some((until, _)) = self.delayed.first()
            && *until <= now
        {
            let (_, partition) = self.delayed.pop_first().expect("it was seen");
            let followed = self
                .partitions
                .get_mut(&partition)
                .expect("who is delayed is followed");
            let Phase::Delayed { truncates, .. } = followed.phase else {
                unreachable!("only the delayed are in the list");
            };
            if truncates {
                followed.phase = Phase::Truncating;
                self.truncating.insert(partition);
                continue;
            }
            followed.phase = Phase::Fetching;
            let offset = followed.fetch_offset;
            match logs.log(&partition) {
                Some(log) => self.fetch_from(&partition, offset, &*log),
                None => self.fail(&partition),
            }
        }
    }

    /// Leaves out what is throttled and lags while the rate is exceeded, and takes it in again once it is not.
    fn throttle(&mut self, logs: &dyn FollowedLogs) {
        let is_exceeded = logs.is_quota_exceeded();
        let is_allowed = |partition: &&TopicPartition| !is_exceeded || !logs.is_throttled(partition);
        let allowed: Vec<TopicPartition> = self.throttled.iter().filter(is_allowed).cloned().collect();
        for partition in allowed {
            let offset = self.partitions[&partition].fetch_offset;
            match logs.log(&partition) {
                Some(log) => self.fetch_from(&partition, offset, &*log),
                None => self.fail(&partition),
            }
        }
        if !is_exceeded {
            return;
        }
        for (partition, followed) in &mut self.partitions {
            let lags = followed.phase == Phase::Fetching && !followed.is_caught_up;
            if lags && logs.is_throttled(partition) {
                followed.phase = Phase::Throttled;
                self.session.exclude(partition);
                self.throttled.insert(partition.clone());
            }
        }
    }

    /// Questions about those that truncate; logs without epochs are cut at once.
    fn epoch_questions(&mut self, now: Duration, logs: &dyn FollowedLogs) -> Option<Vec<EpochQuestion>> {
        let mut questions = Vec::new();
        for partition in self.truncating.clone() {
            let (epoch, offset) = {
                let followed = &self.partitions[&partition];
                (followed.epoch, followed.fetch_offset)
            };
            let Some(log) = logs.log(&partition) else {
                self.failed(now, &partition, FollowError::Storage("it is offline".to_owned()));
                continue;
            };
            match log.latest_epoch().filter(|_| self.rules.has_epochs) {
                Some(latest) => questions.push(EpochQuestion {
                    partition,
                    current_leader_epoch: epoch,
                    epoch: latest,
                }),
                None => {
                    self.note(&partition, &format!("truncating to the high watermark {offset}"));
                    self.truncate(now, &partition, &*log, Truncation::Final(offset));
                }
            }
        }
        (!questions.is_empty()).then_some(questions)
    }

    fn truncate(
        &mut self,
        now: Duration,
        partition: &TopicPartition,
        log: &dyn FollowedLog,
        truncation: Truncation,
    ) {
        let epoch = self.partitions[partition].epoch;
        match log.truncate_to(epoch, truncation.offset()) {
            Err(error) => self.failed(now, partition, error),
            // Asked again, about an earlier epoch.
            Ok(()) if matches!(truncation, Truncation::Further(_)) => {}
            Ok(()) => self.fetch_from(partition, truncation.offset(), log),
        }
    }

    fn fetch_from(&mut self, partition: &TopicPartition, offset: Offset, log: &dyn FollowedLog) {
        let followed = self.followed(partition);
        let (before, epoch) = (followed.phase, followed.epoch);
        followed.phase = Phase::Fetching;
        followed.fetch_offset = offset;
        self.leave(partition, before);
        self.session.include(partition, offset, log.log_start(), epoch);
    }

    fn refused(
        &mut self,
        now: Duration,
        partition: &TopicPartition,
        epoch: LeaderEpoch,
        refusal: LeaderRefusal,
    ) {
        match refusal {
            LeaderRefusal::OffsetOutOfRange => {
                let followed = self.followed(partition);
                let before = std::mem::replace(&mut followed.phase, Phase::OutOfRange);
                self.leave(partition, before);
                self.session.exclude(partition);
                self.out_of_range.insert(partition.clone());
            }
            LeaderRefusal::FencedLeaderEpoch => {
                self.note(
                    partition,
                    &format!(
                        "has an older epoch ({epoch}) than the leader; waiting for the controller's word"
                    ),
                );
                self.fail(partition);
            }
            LeaderRefusal::Passing => self.delay_a_little(now, partition),
            LeaderRefusal::Other(error) => {
                self.note(partition, &format!("the leader answered {error}"));
                self.delay(now, partition);
            }
        }
    }

    fn failed(&mut self, now: Duration, partition: &TopicPartition, error: FollowError) {
        match error {
            // The new role's own word is under way.
            FollowError::NotFollowing => self.delay_a_little(now, partition),
            // Room is to be made.
            FollowError::Full => self.delay(now, partition),
            // Somebody else may have appended: the next try begins where the log ends by then.
            FollowError::Unfit(reason) => {
                self.note(partition, &reason);
                self.delay_until(now + self.rules.backoff, partition, true);
            }
            FollowError::Storage(reason) => {
                self.note(partition, &format!("not followed any more: {reason}"));
                self.fail(partition);
            }
        }
    }

    fn delay(&mut self, now: Duration, partition: &TopicPartition) {
        self.delay_until(now + self.rules.backoff, partition, false);
    }

    /// Longer each time, until the leader answers with records.
    fn delay_a_little(&mut self, now: Duration, partition: &TopicPartition) {
        let backoff = self.rules.backoff;
        let followed = self.followed(partition);
        let pause = followed.patience.min(backoff);
        followed.patience = pause * 2;
        self.delay_until(now + pause, partition, false);
    }

    /// `truncates`: afterwards the leader is asked first where the logs part.
    fn delay_until(&mut self, until: Duration, partition: &TopicPartition, truncates: bool) {
        let followed = self.followed(partition);
        let before = followed.phase;
        // Out of range is found again by the next fetch.
        let truncates = truncates || before == Phase::Truncating;
        followed.phase = Phase::Delayed { until, truncates };
        self.leave(partition, before);
        self.session.exclude(partition);
        self.delayed.insert((until, partition.clone()));
    }

    fn fail(&mut self, partition: &TopicPartition) {
        let followed = self.followed(partition);
        let before = std::mem::replace(&mut followed.phase, Phase::Failed);
        self.leave(partition, before);
        self.session.exclude(partition);
    }

    fn followed(&mut self, partition: &TopicPartition) -> &mut Followed {
        self.partitions.get_mut(partition).expect("the caller looked")
    }

    /// Takes a partition out of the list that its phase was in.
    fn leave(&mut self, partition: &TopicPartition, before: Phase) {
        match before {
            Phase::Truncating => drop(self.truncating.remove(partition)),
            Phase::OutOfRange => drop(self.out_of_range.remove(partition)),
            Phase::Throttled => drop(self.throttled.remove(partition)),
            Phase::Delayed { until, .. } => drop(self.delayed.remove(&(until, partition.clone()))),
            Phase::Fetching | Phase::Failed => {}
        }
    }

    fn note(&mut self, partition: &TopicPartition, text: &str) {
        self.notes.push(format!("Partition {partition}: {text}"));
    }
}
