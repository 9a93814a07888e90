//! Groups that only commit offsets, each more than the last, through whoever coordinates them, and what was acknowledged.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use milena_engine::io::Clock;
use milena_engine::units::{Offset, TopicPartition};
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, spawn_local};
use tokio::time::{sleep, timeout};

use super::network::Place;
use super::node::Running;
use super::{TOPIC, World, checker};
use crate::group::config::GroupConfig;
use crate::group::requests::{CommitOffsets, FetchedOffset, OffsetAndMetadata};
use crate::group::{CoordinatorLog, GROUP_METADATA_TOPIC_NAME, GroupCoordinator, Surroundings};

const GROUPS: usize = 2;
/// A commit that was not answered for so long never will be, nor come into force later.
const GIVEN_UP_AFTER: Duration = Duration::from_secs(8);

/// By group.
#[derive(Default)]
pub(super) struct Commits([RefCell<Commit>; GROUPS]);

impl Commits {
    pub(super) fn acknowledged(&self) -> [i64; GROUPS] {
        self.0.each_ref().map(|commit| commit.borrow().acknowledged)
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Commit {
    tried: i64,
    acknowledged: i64,
}

/// A coordinator of this world: what waits for the disk is done later, on the same thread.
pub(super) fn coordinator(
    world: &World,
    log: Arc<dyn CoordinatorLog>,
    clock: Arc<dyn Clock>,
) -> Arc<GroupCoordinator> {
    let config = GroupConfig {
        offsets_topic_num_partitions: 1,
        // Wrong wall clocks are not to make them old.
        offsets_retention_ms: i64::MAX / 4,
        ..GroupConfig::default()
    };
    let numbers = world.numbers.clone();
    let surroundings = Surroundings {
        run_apart: Box::new(move |work| {
            let pause = numbers.duration(Duration::from_millis(200));
            tokio::spawn(async move {
                sleep(pause).await;
                work();
            });
            Ok(())
        }),
        ..Surroundings::default()
    };
    GroupCoordinator::within(config, log, clock, surroundings)
}

fn name(group: usize) -> Arc<str> {
    format!("g{group}").into()
}

/// What they have offsets of.
fn consumed() -> TopicPartition {
    TopicPartition::new(TOPIC, 0)
}

/// The broker that leads the groups' partition, as the ensemble's leader has it.
fn coordinating(world: &World) -> Option<Rc<Running>> {
    let at = TopicPartition::new(GROUP_METADATA_TOPIC_NAME, 0);
    let leader = checker::state_in_tree(world, &at)?.leader?;
    world.running(leader)
}

pub(super) fn start(world: &Rc<World>, are_stopping: &Rc<Cell<bool>>) -> Vec<JoinHandle<()>> {
    (0..GROUPS)
        .map(|group| spawn_local(commit(Rc::clone(world), group, Rc::clone(are_stopping))))
        .collect()
}

async fn commit(world: Rc<World>, group: usize, is_stopping: Rc<Cell<bool>>) {
    loop {
        let is_last = is_stopping.get();
        sleep(Duration::from_millis(20 + world.numbers.below(400))).await;
        let Some(coordinator) = coordinating(&world) else {
            continue;
        };
        let offset = {
            let mut commit = world.commits.0[group].borrow_mut();
            commit.tried += 1;
            commit.tried
        };
        let (answer, answered) = oneshot::channel();
        spawn_local(ask(Rc::clone(&world), coordinator, group, offset, answer));
        let is_acknowledged = timeout(GIVEN_UP_AFTER, answered).await;
        if let Ok(Ok(true)) = is_acknowledged {
            let mut commit = world.commits.0[group].borrow_mut();
            commit.acknowledged = offset;
            if is_last {
                return;
            }
        }
    }
}

/// The request; where it is lost there is no answer.
async fn ask(
    world: Rc<World>,
    coordinator: Rc<Running>,
    group: usize,
    offset: i64,
    answer: oneshot::Sender<bool>,
) {
    let (here, there) = (Place::Clients, Place::Broker(coordinator.id));
    if !world.network.travel(here, there).await || !coordinator.is_alive() {
        return std::future::pending().await;
    }
    let committed = OffsetAndMetadata {
        offset: Offset(offset),
        leader_epoch: None,
        metadata: "".into(),
        commit_timestamp: world.clock.wall(),
        expire_timestamp: None,
    };
    let request = CommitOffsets {
        group_id: name(group),
        member_id: "".into(),
        group_instance_id: None,
        generation_id: -1,
        offsets: vec![(consumed(), committed)],
        transaction: None,
    };
    let results = coordinator.groups.commit_offsets(request).await;
    if !coordinator.is_alive() || !world.network.travel(there, here).await {
        return std::future::pending().await;
    }
    // Who does not wait any more has given it up.
    let _ = answer.send(results.iter().all(Result::is_ok));
}

/// A7: in a cluster that has come together each group has what it was told it committed, or what it tried later.
pub(super) async fn check(world: &Rc<World>) {
    for (group, commit) in world.commits.0.iter().enumerate() {
        let commit = *commit.borrow();
        match committed(world, group).await {
            Some(found) if (commit.acknowledged..=commit.tried).contains(&found) => {}
            found => world
                .checker
                .violation(format!("{} has {found:?} after {commit:?}", name(group))),
        }
    }
}

/// What the coordinator says, 0 for nothing; `None` if it says nothing for long.
async fn committed(world: &World, group: usize) -> Option<i64> {
    for _ in 0..100 {
        let asked = [consumed()];
        let fetched = coordinating(world).and_then(|running| {
            running
                .groups
                .fetch_offsets(&name(group), Some(&asked), false)
                .ok()
        });
        match fetched.as_deref() {
            Some([(_, FetchedOffset::Committed(found))]) => return Some(found.offset.get()),
            Some([(_, FetchedOffset::Absent)]) => return Some(0),
            _ => sleep(Duration::from_millis(100)).await,
        }
    }
    None
}
