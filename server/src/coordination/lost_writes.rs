//! After a power cut: a broker whose logs may have lost their last writes comes back only once nobody counts on them.
//!
//! A controller that saw the broker go has taken it out of the in-sync replicas. But one that is elected while the broker is away and
//! back, because its predecessor went with the same power, finds it registered and in sync, and may have it lead with what it has
//! left. Milena's controller sees that by the transaction ids of the nodes; Kafka's does not.
//!
//! **Deviation:** such a broker registers when no partition state names it beside another in-sync replica that is alive, or when its
//! patience is over. Kafka registers at once. Where acknowledgements were synced (`flush.messages=1`), where the machine has been up
//! all the time, and after a clean stop nothing can be lost and nothing is waited for.

use std::collections::HashSet;
use std::time::Duration;

use milena_engine::units::TopicPartition;
use tokio::time::{Instant, sleep};

use super::znodes::{self, PartitionState};
use super::{Coordination, CoordinationError};
use crate::cluster::LeaderAndIsr;
use crate::planted::{self, Bug};

const LOGGER: &str = "kafka.server.KafkaServer";
/// Between two looks at the states.
const PAUSE: Duration = Duration::from_millis(200);
/// States that are read at once.
const READ_AT_ONCE: usize = 1000;

/// Waits until nobody counts on what broker `id` had of these partitions.
///
/// # Errors
/// The tree refuses: what a lost connection or session leaves unanswered is asked again.
pub async fn wait_until_nobody_counts_on(
    coordination: &dyn Coordination,
    id: i32,
    mut partitions: Vec<TopicPartition>,
    patience: Duration,
) -> Result<(), CoordinationError> {
    if planted::has(Bug::LostWritesNotWaitedFor) {
        return Ok(());
    }
    if let Some(one) = partitions.first() {
        tracing::warn!(
            target: LOGGER,
            "[KafkaServer id={id}] {} partitions may have lost the last records that they acknowledged, {one} for instance: the broker \
             did not stop cleanly, the machine may have been restarted since, and acknowledgements were not synced",
            partitions.len()
        );
    }
    let deadline = Instant::now() + patience;
    let mut is_told = false;
    loop {
        match counted_on(coordination, id, &partitions).await {
            Ok(left) => partitions = left,
            Err(error) if error.is_passing() => {}
            Err(error) => return Err(error),
        }
        let count = partitions.len();
        let Some(one) = partitions.first() else {
            return Ok(());
        };
        if Instant::now() >= deadline {
            tracing::warn!(
                target: LOGGER,
                "[KafkaServer id={id}] {count} partitions still count on this broker, which may have lost records of them, {one} for \
                 instance; registers nevertheless"
            );
            return Ok(());
        }
        if !is_told {
            is_told = true;
            tracing::warn!(
                target: LOGGER,
                "[KafkaServer id={id}] waits up to {} ms until {count} partitions do not count any more on what this broker may have lost, \
                 {one} for instance",
                patience.as_millis()
            );
        }
        sleep(PAUSE).await;
    }
}

/// Those of the partitions in which the broker leads or is in sync, beside another that is in sync and alive.
async fn counted_on(
    coordination: &dyn Coordination,
    id: i32,
    partitions: &[TopicPartition],
) -> Result<Vec<TopicPartition>, CoordinationError> {
    let brokers = coordination.children(znodes::BROKER_IDS, None).await?;
    let brokers = brokers.unwrap_or_default();
    let others: HashSet<i32> = brokers
        .iter()
        .filter_map(|broker| broker.parse().ok())
        .filter(|broker| *broker != id)
        .collect();
    let mut found = Vec::new();
    for chunk in partitions.chunks(READ_AT_ONCE) {
        let path = |at: &TopicPartition| znodes::partition_state(&at.topic, at.partition);
        let paths: Vec<String> = chunk.iter().map(path).collect();
        let nodes = coordination.get_many(paths.clone()).await?;
        for ((at, path), node) in chunk.iter().zip(&paths).zip(nodes) {
            let Some(node) = node else { continue };
            let data = node.data.unwrap_or_default();
            let state = PartitionState::decode(path, &data, node.stat.version);
            if state.is_ok_and(|state| counts_on(&state.leader_and_isr, id, &others)) {
                found.push(at.clone());
            }
        }
    }
    Ok(found)
}

fn counts_on(state: &LeaderAndIsr, id: i32, others: &HashSet<i32>) -> bool {
    let is_named = state.leader == Some(id) || state.isr.contains(&id);
    is_named && state.isr.iter().any(|member| others.contains(member))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use milena_engine::io::simulated::ManualClock;
    use milena_engine::units::{LeaderEpoch, TimestampMs};

    use super::*;
    use crate::coordination::simulated::Ensemble;
    use crate::coordination::{CreateMode, ExpectedVersion};
    use crate::test_cluster::run_paused;

    fn state(leader: Option<i32>, isr: &[i32]) -> bytes::Bytes {
        let leader_and_isr = LeaderAndIsr {
            leader,
            leader_epoch: LeaderEpoch(3),
            isr: isr.into(),
            zk_version: 0,
        };
        let state = PartitionState {
            controller_epoch: 1,
            leader_and_isr,
        };
        state.encode()
    }

    fn path(partition: i32) -> String {
        znodes::partition_state("t", partition)
    }

    async fn write(tree: &dyn Coordination, partition: i32, leader: Option<i32>, isr: &[i32]) {
        let path = path(partition);
        tree.ensure(&path).await.unwrap();
        tree.set(&path, state(leader, isr), ExpectedVersion::Any)
            .await
            .unwrap();
    }

    fn at(partitions: std::ops::Range<i32>) -> Vec<TopicPartition> {
        partitions
            .map(|number| TopicPartition::new("t", number))
            .collect()
    }

    #[test]
    fn a_broker_that_may_have_lost_records_waits_for_those_that_count_on_it_beside_others() {
        run_paused(async {
            let tree = Ensemble::of_one_server(Arc::new(ManualClock::new(TimestampMs(1)))).session();
            let tree: &dyn Coordination = tree.as_ref();
            for id in [0, 1] {
                let path = znodes::broker_id(id);
                tree.ensure(znodes::BROKER_IDS).await.unwrap();
                tree.create(&path, None, CreateMode::Ephemeral).await.unwrap();
            }
            // Broker 0 is what is left of the former life of the one that waits; 2 is down.
            write(tree, 0, Some(0), &[0]).await;
            write(tree, 1, None, &[0, 2]).await;
            write(tree, 2, Some(1), &[1, 2]).await;
            let patience = Duration::from_secs(60);
            let began = Instant::now();
            wait_until_nobody_counts_on(tree, 0, at(0..4), patience)
                .await
                .unwrap();
            assert_eq!(began.elapsed(), Duration::ZERO, "nobody else has more of them");

            write(tree, 1, Some(0), &[0, 1]).await;
            write(tree, 2, Some(1), &[1, 0]).await;
            let waiting = wait_until_nobody_counts_on(tree, 0, at(0..4), patience);
            let controller = async {
                sleep(Duration::from_secs(5)).await;
                write(tree, 1, Some(1), &[1]).await;
                sleep(Duration::from_secs(5)).await;
                write(tree, 2, Some(1), &[1]).await;
            };
            let (waited, ()) = tokio::join!(waiting, controller);
            waited.unwrap();
            assert!(
                (10..11).contains(&began.elapsed().as_secs()),
                "{:?}",
                began.elapsed()
            );
        });
    }

    #[test]
    fn the_next_session_goes_on_waiting() {
        run_paused(async {
            let ensemble = Ensemble::of_one_server(Arc::new(ManualClock::new(TimestampMs(1))));
            let (session, others) = (ensemble.session(), ensemble.session());
            let (tree, other): (&dyn Coordination, &dyn Coordination) = (session.as_ref(), others.as_ref());
            other.ensure(&znodes::broker_id(1)).await.unwrap();
            write(other, 0, Some(1), &[1, 0]).await;
            let waiting = wait_until_nobody_counts_on(tree, 0, at(0..1), Duration::from_secs(60));
            let rest = async {
                sleep(Duration::from_secs(5)).await;
                session.cut(true);
                sleep(Duration::from_secs(30)).await;
                session.cut(false);
                sleep(Duration::from_secs(5)).await;
                write(other, 0, Some(1), &[1]).await;
            };
            let began = Instant::now();
            let (waited, ()) = tokio::join!(waiting, rest);
            waited.unwrap();
            assert_eq!(began.elapsed().as_secs(), 40);
        });
    }

    #[test]
    fn patience_ends() {
        run_paused(async {
            let tree = Ensemble::of_one_server(Arc::new(ManualClock::new(TimestampMs(1)))).session();
            let tree: &dyn Coordination = tree.as_ref();
            tree.ensure(&znodes::broker_id(1)).await.unwrap();
            write(tree, 0, Some(1), &[1, 0]).await;
            let began = Instant::now();
            wait_until_nobody_counts_on(tree, 0, at(0..1), Duration::from_secs(26))
                .await
                .unwrap();
            assert_eq!(began.elapsed().as_secs(), 26);
        });
    }
}
