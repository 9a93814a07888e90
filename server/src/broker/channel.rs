//! How this broker, while it is the controller, reaches the brokers that it commands (`ControllerChannelManager`).
//!
//! This broker itself is commanded on the short way, by the same handler that serves a controller elsewhere. For each other
//! broker that is registered there is a queue and one task, [`RequestSender`], on the control thread: one command is under way at
//! a time, so that they arrive in the order in which they were given. A queue ends with the life of its broker: what is left in
//! it is dropped, and answered by [`CommandRefusal::StaleBrokerEpoch`]. A controller that stops waits until the others have answered
//! all ([`BrokerChannels::answered`]): what it decided last, to hand over its own leaderships, would otherwise be heard of from its
//! successor only.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::AbortHandle;

use super::command_handler::CommandHandler;
use super::peer::PeerSettings;
use crate::cluster::{BoxFuture, Broker};
use crate::config::InterBrokerVersions;
use crate::controller::command::{BrokerChannel, BrokerCommand, BrokerReply, CommandRefusal};
use crate::controller::context::LiveBroker;

mod request_sender;

use request_sender::{Queued, RequestSender, Unanswered};

const LOGGER: &str = "kafka.controller.ControllerChannelManager";

/// What the channels to other brokers go by.
#[derive(Clone, Debug)]
pub(super) struct ChannelSettings {
    /// By the listener that is kept for controllers, where there is one.
    pub(super) peer: PeerSettings,
    /// On which followers find their leaders.
    pub(super) leaders_listener: Arc<str>,
    pub(super) versions: InterBrokerVersions,
}

/// See the module.
#[derive(Debug)]
pub(super) struct BrokerChannels {
    settings: Arc<ChannelSettings>,
    own: CommandHandler,
    others: Mutex<BTreeMap<i32, Other>>,
    /// How many commands to others are not answered yet.
    unanswered: Arc<watch::Sender<usize>>,
}

/// Another broker. Dropping it ends its task.
#[derive(Debug)]
struct Other {
    epoch: i64,
    broker: watch::Sender<Broker>,
    queue: mpsc::UnboundedSender<Queued>,
    task: AbortHandle,
}

impl Drop for Other {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl BrokerChannels {
    pub(super) fn new(settings: ChannelSettings, own: CommandHandler) -> BrokerChannels {
        BrokerChannels {
            settings: Arc::new(settings),
            own,
            others: Mutex::default(),
            unanswered: Arc::default(),
        }
    }

    /// Waits until all that was sent to other brokers is answered, or their lives are over.
    pub(super) async fn answered(&self) {
        let mut unanswered = self.unanswered.subscribe();
        // The sender is here, so that it ends by the count only.
        let _ = unanswered.wait_for(|count| *count == 0).await;
    }

    fn open(&self, live: &LiveBroker) -> Other {
        let (queue, queued) = mpsc::unbounded_channel();
        let (broker, known) = watch::channel(live.broker.clone());
        let sender = RequestSender::new(Arc::clone(&self.settings), known);
        Other {
            epoch: live.epoch,
            broker,
            queue,
            task: tokio::spawn(sender.run(queued)).abort_handle(),
        }
    }
}

impl BrokerChannel for BrokerChannels {
    fn send(&self, broker_id: i32, command: BrokerCommand) -> BoxFuture<'static, BrokerReply> {
        if broker_id == self.settings.peer.broker_id {
            return self.own.submit(command);
        }
        let (done, answered) = oneshot::channel();
        let queued = Queued {
            command,
            done,
            unanswered: Unanswered::new(&self.unanswered),
        };
        match self.others.lock().get(&broker_id) {
            Some(other) if other.epoch == queued.command.origin().broker_epoch => {
                // Whoever does not take it drops `done`, which the answer says.
                let _ = other.queue.send(queued);
            }
            _ => tracing::warn!(
                target: LOGGER,
                "[Channel manager on controller {}] Not sending {} request to broker {broker_id}, since it is offline.",
                self.settings.peer.broker_id,
                queued.command.name()
            ),
        }
        Box::pin(async move { answered.await.unwrap_or(Err(CommandRefusal::StaleBrokerEpoch)) })
    }

    fn live_brokers(&self, brokers: &[LiveBroker]) {
        let mut others = self.others.lock();
        others.retain(|id, other| {
            let live = brokers.iter().find(|live| live.broker.id == *id);
            let lives_on = live.filter(|live| live.epoch == other.epoch);
            if let Some(live) = lives_on {
                other.broker.send_if_modified(|known| {
                    let moved = *known != live.broker;
                    known.clone_from(&live.broker);
                    moved
                });
            }
            lives_on.is_some()
        });
        for live in brokers {
            let id = live.broker.id;
            if id != self.settings.peer.broker_id && !others.contains_key(&id) {
                others.insert(id, self.open(live));
            }
        }
    }
}

#[cfg(test)]
mod tests;
