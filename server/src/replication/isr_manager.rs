//! Has changes of in-sync replicas written, and tells the partitions what became of them (`AlterIsrManager.scala`,
//! `ReplicationUtils.scala`).
//!
//! One write is under way at a time; what is proposed meanwhile goes with the next one, so that a broker that stops costs
//! the others a few writes and not one for each partition. Who writes is an [`IsrStore`]: [`TreeIsrStore`] where leaders write the
//! tree themselves (`inter.broker.protocol.version` below 2.7-IV2), the controller otherwise (KIP-497).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use milena_engine::io::Clock;
use milena_engine::units::TopicPartition;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TryRecvError;

use super::partition::isr::{IsrAnswer, IsrProposal};
use super::{IsrChange, ReplicaManager};
use crate::cluster::{BoxFuture, LeaderAndIsr};
use crate::coordination::znodes::topic::encode_partitions;
use crate::coordination::znodes::{self, PartitionState};
use crate::coordination::{
    Coordination, CoordinationError, CreateMode, ExpectedVersion, MultiError, Operation, OperationResult,
};
use crate::planted::{self, Bug};

/// Between two writes; also before a proposal of unknown outcome is made again.
const PAUSE: Duration = Duration::from_millis(50);
/// Changes that one write takes at most.
const BATCH_COUNT_MAX: usize = 2048;
const LOGGER: &str = "kafka.server.AlterIsrManager";

/// Writes changes of in-sync replicas.
pub trait IsrStore: Send + Sync {
    /// One answer for each change, in order.
    fn write(&self, changes: Vec<IsrChange>) -> BoxFuture<'_, Vec<IsrAnswer>>;
}

/// Carries proposals to the store and answers back; ends with the replica manager.
pub async fn run(
    mut proposals: mpsc::UnboundedReceiver<IsrChange>,
    replicas: Arc<ReplicaManager>,
    store: Arc<dyn IsrStore>,
) {
    let mut changes = Vec::new();
    while proposals.recv_many(&mut changes, BATCH_COUNT_MAX).await > 0 {
        let asked: Vec<(TopicPartition, u64)> = changes
            .iter()
            .map(|change| (change.partition.clone(), change.proposal.number))
            .collect();
        let answers = store.write(std::mem::take(&mut changes)).await;
        let is_unknown = answers.contains(&IsrAnswer::Unknown);
        if is_unknown {
            tracing::warn!(target: LOGGER, "changes of in-sync replicas have no answer; they are made again");
        }
        for ((partition, number), answer) in asked.into_iter().zip(answers) {
            replicas.isr_answered(&partition, number, answer);
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// The tree, written by the leaders themselves.
#[derive(Debug)]
pub struct TreeIsrStore {
    broker_id: i32,
    coordination: Arc<dyn Coordination>,
    /// Partitions whose change the controller has not been told.
    changed: mpsc::UnboundedSender<TopicPartition>,
}

impl TreeIsrStore {
    /// The store, and the future that tells the controller what changed.
    pub fn new(
        broker_id: i32,
        coordination: Arc<dyn Coordination>,
        clock: Arc<dyn Clock>,
    ) -> (TreeIsrStore, impl Future<Output = ()> + Send + 'static) {
        let (changed, heard) = mpsc::unbounded_channel();
        let notices = tell_controller(heard, Arc::clone(&coordination), clock);
        let store = TreeIsrStore {
            broker_id,
            coordination,
            changed,
        };
        (store, notices)
    }

    /// The state that a change asks for.
    fn wanted(&self, proposal: &IsrProposal) -> PartitionState {
        PartitionState {
            leader_and_isr: LeaderAndIsr {
                leader: Some(self.broker_id),
                leader_epoch: proposal.leader_epoch,
                isr: Arc::clone(&proposal.isr),
                zk_version: proposal.zk_version,
            },
            controller_epoch: proposal.controller_epoch,
        }
    }

    async fn answer(
        &self,
        change: &IsrChange,
        written: Result<Vec<OperationResult>, MultiError>,
    ) -> IsrAnswer {
        let wanted = self.wanted(&change.proposal);
        match written.map_err(|failed| failed.error) {
            Ok(results) => match results.as_slice() {
                [OperationResult::Set(stat)] => accepted(&wanted, stat.version),
                other => unreachable!("set answered {other:?}"),
            },
            // Another wrote, or an earlier try of ours did whose answer was lost.
            Err(CoordinationError::BadVersion { path, .. }) => self.compare(&path, &wanted).await,
            Err(CoordinationError::ConnectionLoss) => self.compare(&state_path(change), &wanted).await,
            Err(CoordinationError::NoNode { .. }) => IsrAnswer::Refused,
            Err(error) => {
                let partition = &change.partition;
                tracing::warn!(target: LOGGER, "in-sync replicas of {partition} were not written: {error}");
                IsrAnswer::Unknown
            }
        }
    }

    /// What stands in the tree is what we wanted, or another wrote since. Where nobody wrote yet, a write whose answer was lost may
    /// still be on its way: it is made again, and one of the two fails by its version.
    async fn compare(&self, path: &str, wanted: &PartitionState) -> IsrAnswer {
        let node = match self.coordination.get(path, None).await {
            Ok(Some(node)) => node,
            Ok(None) => return IsrAnswer::Refused,
            Err(_) => return IsrAnswer::Unknown,
        };
        if node.stat.version == wanted.leader_and_isr.zk_version {
            return IsrAnswer::Unknown;
        }
        let data = node.data.unwrap_or_default();
        match PartitionState::decode(path, &data, node.stat.version) {
            Ok(found) if is_same(&found.leader_and_isr, &wanted.leader_and_isr) => {
                accepted(wanted, node.stat.version)
            }
            _ => IsrAnswer::Refused,
        }
    }
}

impl IsrStore for TreeIsrStore {
    fn write(&self, changes: Vec<IsrChange>) -> BoxFuture<'_, Vec<IsrAnswer>> {
        Box::pin(async move {
            // All are asked before the first answer is waited for.
            let writes: Vec<_> = changes
                .iter()
                .map(|change| {
                    let data = self.wanted(&change.proposal).encode();
                    let expected = match planted::has(Bug::IsrWrittenWithoutVersion) {
                        true => ExpectedVersion::Any,
                        false => ExpectedVersion::Exactly(change.proposal.zk_version),
                    };
                    let write = Operation::set(state_path(change), data, expected);
                    self.coordination.multi(vec![write])
                })
                .collect();
            let mut answers = Vec::with_capacity(changes.len());
            for (change, write) in changes.iter().zip(writes) {
                let answer = self.answer(change, write.await).await;
                if matches!(answer, IsrAnswer::Accepted { .. }) {
                    // Nobody listens once the broker stops.
                    let _ = self.changed.send(change.partition.clone());
                }
                answers.push(answer);
            }
            answers
        })
    }
}

fn state_path(change: &IsrChange) -> String {
    znodes::partition_state(&change.partition.topic, change.partition.partition)
}

/// Versions apart.
fn is_same(one: &LeaderAndIsr, other: &LeaderAndIsr) -> bool {
    one.leader == other.leader && one.leader_epoch == other.leader_epoch && one.isr == other.isr
}

fn accepted(state: &PartitionState, zk_version: i32) -> IsrAnswer {
    IsrAnswer::Accepted {
        isr: Arc::clone(&state.leader_and_isr.isr),
        leader_epoch: state.leader_and_isr.leader_epoch,
        zk_version,
    }
}

/// How often changes are looked for, how long they may still be followed by others, and how long they wait at most
/// (`ReplicaManager.{isrChangeNotificationConfig, maybePropagateIsrChanges}`).
const NOTICE_CHECK: Duration = Duration::from_millis(2500);
const NOTICE_CALM: Duration = Duration::from_secs(5);
const NOTICE_WAIT_MAX: Duration = Duration::from_secs(60);

/// Writes `/isr_change_notification` nodes: the controller, which does not watch every state, reads there what changed.
async fn tell_controller(
    mut heard: mpsc::UnboundedReceiver<TopicPartition>,
    coordination: Arc<dyn Coordination>,
    clock: Arc<dyn Clock>,
) {
    let mut changed: BTreeSet<TopicPartition> = BTreeSet::new();
    let (mut last_change, mut last_notice) = (Duration::ZERO, Duration::ZERO);
    loop {
        tokio::time::sleep(NOTICE_CHECK).await;
        loop {
            match heard.try_recv() {
                Ok(partition) => {
                    changed.insert(partition);
                    last_change = clock.monotonic();
                }
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => return,
            }
        }
        let now = clock.monotonic();
        let is_calm = last_change + NOTICE_CALM < now || last_notice + NOTICE_WAIT_MAX < now;
        if changed.is_empty() || !is_calm {
            continue;
        }
        let partitions: Vec<TopicPartition> = changed.iter().cloned().collect();
        let data = Some(encode_partitions(&partitions));
        let mode = CreateMode::PersistentSequential;
        // Where the answer is lost it is written again: the controller reads the states anew, twice.
        match coordination.create(znodes::ISR_CHANGE_PREFIX, data, mode).await {
            Ok(_) => {
                changed.clear();
                last_notice = now;
            }
            Err(error) => {
                tracing::warn!(target: LOGGER, "the controller is not told of changed in-sync replicas: {error}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use milena_engine::io::simulated::ManualClock;
    use milena_engine::units::{LeaderEpoch, TimestampMs};

    use super::*;
    use crate::coordination::simulated::{Ensemble, SimulatedZooKeeper};
    use crate::test_cluster::run_paused;

    fn state(isr: &[i32], zk_version: i32) -> PartitionState {
        PartitionState {
            leader_and_isr: LeaderAndIsr {
                leader: Some(1),
                leader_epoch: LeaderEpoch(4),
                isr: isr.into(),
                zk_version,
            },
            controller_epoch: 7,
        }
    }

    fn change(partition: i32, isr: &[i32], zk_version: i32) -> IsrChange {
        IsrChange {
            partition: TopicPartition::new("t", partition),
            proposal: IsrProposal {
                number: 1,
                leader_epoch: LeaderEpoch(4),
                controller_epoch: 7,
                isr: isr.into(),
                zk_version,
            },
        }
    }

    /// Runs with a store and its tree, in which partition 0 has the in-sync replicas 1 and 2 at version 0.
    fn run(test: impl AsyncFnOnce(TreeIsrStore, Arc<SimulatedZooKeeper>)) {
        run_paused(async {
            let clock = Arc::new(ManualClock::new(TimestampMs(1)));
            let tree = Ensemble::of_one_server(clock.clone()).session();
            let node = state(&[1, 2], 0).encode();
            let path = znodes::partition_state("t", 0);
            let coordination: Arc<dyn Coordination> = tree.clone();
            coordination.set_or_create(&path, node).await.unwrap();
            let (store, _notices) = TreeIsrStore::new(1, coordination, clock);
            test(store, tree).await;
        });
    }

    fn answer(isr: &[i32], zk_version: i32) -> IsrAnswer {
        accepted(&state(isr, 0), zk_version)
    }

    #[test]
    fn a_change_is_written_at_its_version_and_found_where_it_stands_already() {
        run(async |store, _| {
            let shrink = change(0, &[1], 0);
            assert_eq!(store.write(vec![shrink.clone()]).await, [answer(&[1], 1)]);
            // As after an answer that was lost.
            assert_eq!(store.write(vec![shrink]).await, [answer(&[1], 1)]);
        });
    }

    #[test]
    fn a_state_that_another_wrote_and_one_that_is_gone_are_refused() {
        run(async |store, _| {
            store.write(vec![change(0, &[1], 0)]).await;
            let late = change(0, &[1, 2, 3], 0);
            let gone = change(5, &[1], 0);
            let answers = store.write(vec![late, gone]).await;
            assert_eq!(answers, [IsrAnswer::Refused, IsrAnswer::Refused]);
        });
    }

    #[test]
    fn a_change_whose_answer_is_lost_is_looked_for() {
        run(async |store, tree| {
            let writing = tokio::spawn(async move { store.write(vec![change(0, &[1], 0)]).await });
            tokio::task::yield_now().await;
            tree.cut(true);
            tokio::time::sleep(Duration::from_secs(1)).await;
            tree.cut(false);
            assert_eq!(writing.await.unwrap(), [answer(&[1], 1)]);
        });
    }
}
