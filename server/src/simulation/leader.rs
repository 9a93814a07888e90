//! A leader as a follower of this world asks it, and how it serves.

use std::future::pending;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use milena_engine::io::Clock;
use milena_engine::log::UpperBound;
use milena_engine::units::{LeaderEpoch, Offset, TopicPartition};
use tokio::sync::{Notify, oneshot};
use tokio::task::spawn_local;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::World;
use super::network::Place;
use super::node::Running;
use crate::fetch_session::{AnswerSummary, FetchContext, FetchRange};
use crate::replication::PartitionRefusal;
use crate::replication::purgatory::End;
use crate::replication::replica_fetcher::truncation::EpochEnd;
use crate::replication::replica_fetcher::{EpochQuestion, FetchPlan, LeaderRefusal};
use crate::replication::replica_fetcher_manager::{
    Asking, FetchAnswer, LeaderEndpoint, LeaderUnreachable, PartitionAnswer,
};

const SOCKET_TIMEOUT: Duration = Duration::from_secs(2);
const FETCH_WAIT_MAX: Duration = Duration::from_millis(300);
const PARTITION_SIZE_MAX: usize = 600;

/// The way from a follower to a leader.
pub(super) struct SimulatedEndpoint {
    world: Weak<World>,
    follower: Weak<Running>,
    leader: i32,
}

impl SimulatedEndpoint {
    pub(super) fn new(world: Weak<World>, follower: Weak<Running>, leader: i32) -> SimulatedEndpoint {
        SimulatedEndpoint {
            world,
            follower,
            leader,
        }
    }

    /// An exchange: once it is sent it goes on, also when the follower has given it up.
    async fn exchange<T: 'static>(
        &self,
        serve: impl AsyncFn(Rc<World>, Rc<Running>, i32) -> T + 'static,
    ) -> Result<T, LeaderUnreachable> {
        let (Some(world), Some(follower)) = (self.world.upgrade(), self.follower.upgrade()) else {
            return pending().await;
        };
        if !follower.is_alive() {
            return pending().await;
        }
        let (answer, answered) = oneshot::channel();
        let (here, there, leader) = (
            Place::Broker(follower.id),
            Place::Broker(self.leader),
            self.leader,
        );
        let follower_id = follower.id;
        spawn_local(async move {
            if !world.network.travel(here, there).await {
                return pending().await;
            }
            let Some(running) = world.running(leader) else {
                return;
            };
            let again = world.network.again();
            let served = serve(Rc::clone(&world), Rc::clone(&running), follower_id).await;
            if !running.is_alive() {
                return;
            }
            if !world.network.travel(there, here).await {
                return pending().await;
            }
            let _ = answer.send(served);
            if let Some(later) = again {
                sleep(later).await;
                serve(world, running, follower_id).await;
            }
        });
        let unreachable = |why: &str| LeaderUnreachable(format!("broker {leader}: {why}"));
        let answered = timeout(SOCKET_TIMEOUT, answered).await;
        if !follower.is_alive() {
            return pending().await;
        }
        match answered {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) => Err(unreachable("it hung up")),
            Err(_) => Err(unreachable("no answer")),
        }
    }
}

impl LeaderEndpoint for SimulatedEndpoint {
    fn ask_epochs<'e>(
        &'e mut self,
        questions: &'e [EpochQuestion],
    ) -> Asking<'e, Vec<(TopicPartition, Result<EpochEnd, LeaderRefusal>)>> {
        let questions = questions.to_vec();
        Box::pin(self.exchange(async move |_, leader, _| {
            let ends = questions.iter().map(|question| {
                let end = end_of_epoch(&leader, question);
                (question.partition.clone(), end)
            });
            ends.collect()
        }))
    }

    fn ask_bounds<'e>(
        &'e mut self,
        partition: &'e TopicPartition,
        epoch: LeaderEpoch,
    ) -> Asking<'e, Result<(Offset, Offset), LeaderRefusal>> {
        let name = partition.clone();
        Box::pin(self.exchange(async move |_, leader, _| {
            let partition = leader
                .replicas
                .partition(&name.topic, name.partition)
                .map_err(refusal)?;
            partition.check_leader(epoch.get()).map_err(refusal)?;
            let offsets = partition.log().offsets();
            Ok((offsets.log_start_offset, offsets.log_end_offset))
        }))
    }

    fn fetch<'e>(&'e mut self, plan: &'e FetchPlan) -> Asking<'e, FetchAnswer> {
        let plan = plan.clone();
        Box::pin(self.exchange(async move |world, leader, follower| {
            serve_fetch(&world, &leader, follower, plan.clone()).await
        }))
    }

    fn rest(&mut self) {}
}

fn end_of_epoch(leader: &Running, question: &EpochQuestion) -> Result<EpochEnd, LeaderRefusal> {
    let name = &question.partition;
    let partition = leader
        .replicas
        .partition(&name.topic, name.partition)
        .map_err(refusal)?;
    partition
        .check_leader(question.current_leader_epoch.get())
        .map_err(refusal)?;
    let end = partition.log().end_offset_for_epoch(Some(question.epoch));
    Ok(EpochEnd {
        epoch: end.map(|end| end.epoch),
        end: end.map(|end| end.end_offset),
    })
}

fn refusal(refusal: PartitionRefusal) -> LeaderRefusal {
    match refusal {
        PartitionRefusal::FencedLeaderEpoch => LeaderRefusal::FencedLeaderEpoch,
        PartitionRefusal::Offline => LeaderRefusal::Other("offline".to_owned()),
        _ => LeaderRefusal::Passing,
    }
}

async fn serve_fetch(world: &World, leader: &Rc<Running>, follower: i32, plan: FetchPlan) -> FetchAnswer {
    let asked = plan.partitions.into_iter().map(|(name, position)| {
        let range = FetchRange {
            fetch_offset: position.fetch_offset,
            log_start_offset: position.log_start_offset,
            last_fetched_epoch: -1,
            size_bytes_max: PARTITION_SIZE_MAX as i32,
            current_leader_epoch: position.current_leader_epoch.get(),
        };
        (name, range)
    });
    let begun = leader.fetch_sessions.borrow_mut().begin(
        world.clock.monotonic(),
        plan.session_id,
        plan.session_epoch,
        asked.collect(),
        &plan.forgotten,
    );
    let context = match begun {
        Ok(context) => context,
        Err(refusal) => return FetchAnswer::SessionRefused(format!("{refusal:?}")),
    };
    let found = wait(leader, follower, &context).await;
    let summaries: Vec<AnswerSummary> = found.iter().map(summary).collect();
    let fresh_id = || (world.numbers.below(1 << 30) + 1) as i32;
    let finished = leader.fetch_sessions.borrow_mut().finish(
        world.clock.monotonic(),
        &context,
        &summaries,
        true,
        fresh_id,
    );
    let (session_id, sent) = match finished {
        Ok(finished) => finished,
        Err(refusal) => return FetchAnswer::SessionRefused(format!("{refusal:?}")),
    };
    let names = context.partitions.iter().map(|(name, _)| name.clone());
    let chosen = names.zip(found).zip(sent).filter(|(_, sent)| *sent);
    FetchAnswer::Fetched {
        session_id,
        partitions: chosen.map(|(answer, _)| answer).collect(),
    }
}

type Found = Result<PartitionAnswer, LeaderRefusal>;

/// A long poll, as the handler of Fetch does it.
async fn wait(leader: &Rc<Running>, follower: i32, context: &FetchContext) -> Vec<Found> {
    let deadline = Instant::now() + FETCH_WAIT_MAX;
    let wake = Arc::new(Notify::new());
    let watched = || {
        context.partitions.iter().filter_map(|(name, range)| {
            let partition = leader.replicas.partition(&name.topic, name.partition).ok()?;
            Some((partition, range.fetch_offset))
        })
    };
    let unwatch = || watched().for_each(|(partition, _)| partition.purgatory().unwatch(&wake));
    loop {
        unwatch();
        for (partition, offset) in watched() {
            partition.purgatory().watch(End::Log, offset, &wake);
        }
        let found: Vec<Found> = context
            .partitions
            .iter()
            .map(|(name, range)| look(leader, follower, name, range))
            .collect();
        let is_enough = found
            .iter()
            .any(|found| found.as_ref().map_or(true, |answer| !answer.records.is_empty()));
        if is_enough || timeout_at(deadline, wake.notified()).await.is_err() {
            unwatch();
            return found;
        }
    }
}

fn look(leader: &Running, follower: i32, name: &TopicPartition, range: &FetchRange) -> Found {
    let partition = leader
        .replicas
        .partition(&name.topic, name.partition)
        .map_err(refusal)?;
    let epoch = partition
        .check_leader(range.current_leader_epoch)
        .map_err(refusal)?;
    let log = partition.log();
    let info = log
        .read(range.fetch_offset, PARTITION_SIZE_MAX, UpperBound::LogEnd, true)
        .map_err(|_| LeaderRefusal::OffsetOutOfRange)?;
    partition.fetched(
        follower,
        epoch,
        range.fetch_offset,
        range.log_start_offset,
        info.log_end_offset,
    );
    let records = match &info.records {
        Some(slice) => slice
            .read()
            .map_err(|error| LeaderRefusal::Other(error.to_string()))?,
        None => Vec::new(),
    };
    Ok(PartitionAnswer {
        high_watermark: info.high_watermark,
        log_start_offset: Some(info.log_start_offset),
        records: Bytes::from(records),
    })
}

fn summary(found: &Found) -> AnswerSummary {
    let answer = found.as_ref().ok();
    AnswerSummary {
        error_code: i16::from(found.is_err()),
        high_watermark: answer.map_or(-1, |answer| answer.high_watermark.get()),
        log_start_offset: answer
            .and_then(|answer| answer.log_start_offset)
            .map_or(-1, Offset::get),
        records_size_bytes: answer.map_or(0, |answer| answer.records.len()),
        has_preferred_replica: false,
        has_diverging_epoch: false,
    }
}
