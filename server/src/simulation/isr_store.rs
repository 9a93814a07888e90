//! Changes of in-sync replicas by the controller, over the network of this world: the body of [`IsrStore`] that a broker has from 2.7-IV2 on,
//! without the wire.

use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use milena_engine::units::TopicPartition;
use tokio::sync::{mpsc, oneshot};
use tokio::task::spawn_local;
use tokio::time::sleep;

use super::World;
use super::network::Place;
use super::node::Running;
use crate::cluster::{BoxFuture, LeaderAndIsr};
use crate::controller::request::ControllerErrorKind;
use crate::replication::IsrChange;
use crate::replication::isr_manager::IsrStore;
use crate::replication::partition::isr::IsrAnswer;

type Asked = (Vec<IsrChange>, oneshot::Sender<Vec<IsrAnswer>>);

/// See the module.
pub(super) struct ControllerIsrStore(mpsc::UnboundedSender<Asked>);

impl ControllerIsrStore {
    /// The store, and what it leaves to its broker.
    pub(super) fn new() -> (ControllerIsrStore, mpsc::UnboundedReceiver<Asked>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (ControllerIsrStore(sender), receiver)
    }
}

impl IsrStore for ControllerIsrStore {
    fn write(&self, changes: Vec<IsrChange>) -> BoxFuture<'_, Vec<IsrAnswer>> {
        let (answer, answered) = oneshot::channel();
        let count = changes.len();
        let _ = self.0.send((changes, answer));
        Box::pin(async move { answered.await.unwrap_or_else(|_| vec![IsrAnswer::Unknown; count]) })
    }
}

/// Asks whoever is the controller until it answers.
pub(super) async fn ask(world: Rc<World>, from: Rc<Running>, mut asked: mpsc::UnboundedReceiver<Asked>) {
    while let Some((changes, answer)) = asked.recv().await {
        let answers = loop {
            match ask_once(&world, &from, &changes).await {
                Some(answers) => break answers,
                None => sleep(Duration::from_millis(100)).await,
            }
        };
        let of = |change: &IsrChange| answers.get(&change.partition).cloned();
        let answers = changes
            .iter()
            .map(|change| of(change).unwrap_or(IsrAnswer::Unknown));
        let _ = answer.send(answers.collect());
    }
}

/// `None`: there is no answer yet.
async fn ask_once(
    world: &World,
    from: &Running,
    changes: &[IsrChange],
) -> Option<HashMap<TopicPartition, IsrAnswer>> {
    let id = from.metadata.load().controller_id()?;
    let (here, there) = (Place::Broker(from.id), Place::Broker(id));
    let epoch = from.epoch();
    let proposals = changes.iter().map(|change| {
        let proposal = &change.proposal;
        let wanted = LeaderAndIsr {
            leader: Some(from.id),
            leader_epoch: proposal.leader_epoch,
            isr: proposal.isr.clone(),
            zk_version: proposal.zk_version,
        };
        (change.partition.clone(), wanted)
    });
    let proposals: Vec<_> = proposals.collect();
    if !world.network.travel(here, there).await {
        return None;
    }
    let target = world.running(id)?;
    let controller = target.controller.borrow().clone()?;
    if let Some(later) = world.network.again() {
        let (controller, id, proposals) = (controller.clone(), from.id, proposals.clone());
        spawn_local(async move {
            sleep(later).await;
            controller.alter_isr(id, epoch, proposals).await
        });
    }
    let answered = controller.alter_isr(from.id, epoch, proposals).await;
    if !target.is_alive() || !world.network.travel(there, here).await {
        return None;
    }
    match answered {
        Err(error) if error.kind == ControllerErrorKind::NotController => None,
        Err(_) => Some(HashMap::new()),
        Ok(results) => {
            let answers = results.into_iter().map(|(partition, result)| {
                let answer = match result {
                    Ok(state) => IsrAnswer::Accepted {
                        isr: state.isr,
                        leader_epoch: state.leader_epoch,
                        zk_version: state.zk_version,
                    },
                    Err(error) => match error.kind {
                        ControllerErrorKind::UnknownTopicOrPartition
                        | ControllerErrorKind::FencedLeaderEpoch
                        | ControllerErrorKind::InvalidUpdateVersion => IsrAnswer::Refused,
                        _ => IsrAnswer::Unknown,
                    },
                };
                (partition, answer)
            });
            Some(answers.collect())
        }
    }
}
