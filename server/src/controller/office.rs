//! The office of the controller: stood for, taken up, laid down.
//!
//! Who creates `/controller` has it, and raises `/controller_epoch` in the same write; its version fences everything that is
//! written in this reign. A reign that cannot begin, or meets an error that leaves it behind the tree, gives the office up, so
//! that another election follows. Source: `KafkaController` (`elect`, `triggerControllerMove`).

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;

use super::machine::Input;
use super::shell::{Event, Shell};
use crate::coordination::znodes::{self, ControllerNode};
use crate::coordination::{
    CoordinationError, CreateMode, ExpectedVersion, MultiError, Operation, OperationResult, Stat,
};

/// From the begin of a reign to the first look at the balance of leaders.
const FIRST_REBALANCE: Duration = Duration::from_secs(5);

/// What came of standing for election.
enum Candidacy {
    Won {
        epoch: i32,
        epoch_zk_version: i32,
    },
    /// Another broker was faster, or the answer was lost.
    Unknown,
    /// This broker has no place in the cluster until it has registered in its new session.
    NotNow,
}

impl Shell {
    /// Reads who the controller is; stands for election if there is none.
    pub(super) async fn follow_election(&mut self) -> Result<(), CoordinationError> {
        loop {
            let node = self
                .get(znodes::CONTROLLER, Some(Event::ControllerChanged))
                .await?;
            let Some(node) = node else {
                self.stand_down(None);
                match self.stand_for_election().await? {
                    Candidacy::Won {
                        epoch,
                        epoch_zk_version,
                    } => return self.reign(epoch, epoch_zk_version).await,
                    Candidacy::Unknown => continue,
                    Candidacy::NotNow => return Ok(()),
                }
            };
            if !self.machine.is_active()
                && let Some((epoch, epoch_zk_version)) = self.won_unheard(&node.stat).await?
            {
                return self.reign(epoch, epoch_zk_version).await;
            }
            let controller = match ControllerNode::decode(&node.data.unwrap_or_default()) {
                Ok(node) => Some(node.broker_id),
                Err(error) => {
                    self.log_error(&error.to_string());
                    None
                }
            };
            let me = controller == Some(self.settings.broker_id);
            if !(me && self.machine.is_active()) {
                self.stand_down(controller);
            }
            return Ok(());
        }
    }

    /// Takes `/controller` and raises the epoch, in one transaction.
    async fn stand_for_election(&mut self) -> Result<Candidacy, CoordinationError> {
        let (present, version, create) = match self.read_epoch().await? {
            Some((epoch, version)) => (epoch, version, None),
            None => {
                let data = Some(znodes::encode_controller_epoch(0));
                (0, 0, Some(Operation::create(znodes::CONTROLLER_EPOCH, data)))
            }
        };
        let node = ControllerNode {
            broker_id: self.settings.broker_id,
            timestamp_ms: self.clock.wall().get(),
        };
        let epoch = present + 1;
        self.candidacy = Some(epoch);
        let mut operations: Vec<Operation> = create.into_iter().collect();
        operations.push(Operation::Create {
            path: znodes::CONTROLLER.to_owned(),
            data: Some(node.encode()),
            mode: CreateMode::Ephemeral,
        });
        let raised = znodes::encode_controller_epoch(epoch);
        let expected = ExpectedVersion::Exactly(version);
        operations.push(Operation::set(znodes::CONTROLLER_EPOCH, raised, expected));
        if !self.is_registered() {
            return Ok(Candidacy::NotNow);
        }
        match self.coordination.multi(operations).await {
            Ok(results) => match results.last() {
                Some(OperationResult::Set(stat)) => Ok(Candidacy::Won {
                    epoch,
                    epoch_zk_version: stat.version,
                }),
                other => unreachable!("set answered {other:?}"),
            },
            Err(MultiError {
                error:
                    CoordinationError::NodeExists { .. }
                    | CoordinationError::BadVersion { .. }
                    | CoordinationError::ConnectionLoss,
                ..
            }) => Ok(Candidacy::Unknown),
            Err(failed) => Err(failed.error),
        }
    }

    /// Whether `/controller` is of this session, and the epoch the one that was stood for: the answer was lost then. Returns the
    /// epoch and the version of its node. Kafka looks at the broker's id, which another process might have too.
    async fn won_unheard(&mut self, controller: &Stat) -> Result<Option<(i32, i32)>, CoordinationError> {
        let is_ours = controller.ephemeral_owner == Some(self.coordination.session_id());
        let Some(stood_for) = self.candidacy.take().filter(|_| is_ours) else {
            return Ok(None);
        };
        let present = self.read_epoch().await?;
        Ok(present.filter(|(epoch, _)| *epoch == stood_for))
    }

    /// The epoch and the data version of its node.
    async fn read_epoch(&self) -> Result<Option<(i32, i32)>, CoordinationError> {
        let Some(node) = self.get(znodes::CONTROLLER_EPOCH, None).await? else {
            return Ok(None);
        };
        let data = node.data.unwrap_or_default();
        let epoch = znodes::decode_controller_epoch(&data).map_err(|error| CoordinationError::Lost {
            path: error.path.clone(),
            reason: error.to_string(),
        })?;
        Ok(Some((epoch, node.stat.version)))
    }

    /// Begins a reign. One that cannot begin is given up at once, so that another broker may try.
    async fn reign(&mut self, epoch: i32, epoch_zk_version: i32) -> Result<(), CoordinationError> {
        self.candidacy = None;
        self.log(&format!("successfully elected as the controller, epoch {epoch}"));
        let fence = fence(epoch_zk_version);
        let reading = async {
            self.set_up_features(&fence).await?;
            self.read_cluster(&fence).await
        };
        let reading = match reading.await {
            Ok(reading) => reading,
            Err(error) => {
                self.give_up(epoch_zk_version, &error).await;
                return Err(error);
            }
        };
        let topic_count = reading.topics.len();
        // Requests may come from now on; they wait.
        self.present
            .controller_id
            .store(self.settings.broker_id, Ordering::Release);
        self.present.active.store(true, Ordering::Release);
        self.feed(Input::Elected {
            epoch,
            epoch_zk_version,
            reading,
        })
        .await;
        if !self.machine.is_active() {
            return Ok(());
        }
        if self.settings.leader_rebalance.is_some() {
            self.rebalance_at = Some(Instant::now() + FIRST_REBALANCE);
        }
        self.log(&format!(
            "Ready to serve as the new controller with epoch {epoch}, {topic_count} topics"
        ));
        Ok(())
    }

    /// Follows `controller` from now on.
    pub(super) fn stand_down(&mut self, controller: Option<i32>) {
        self.present.active.store(false, Ordering::Release);
        self.present
            .controller_id
            .store(controller.unwrap_or(-1), Ordering::Release);
        if self.machine.is_active() {
            self.log("Resigned");
            self.channel.live_brokers(&[]);
        }
        self.answers.clear();
        self.rebalance_at = None;
        self.step(Input::Resigned);
    }

    /// Gives the office up so that another election follows, as after an error that leaves the machine behind the tree.
    pub(super) async fn resign(&mut self, error: &CoordinationError) {
        let version = self.machine.context().epoch_zk_version;
        self.stand_down(None);
        self.give_up(version, error).await;
    }

    async fn give_up(&self, epoch_zk_version: i32, error: &CoordinationError) {
        if ends_session(error) {
            return;
        }
        let give_up = vec![fence(epoch_zk_version), Operation::delete(znodes::CONTROLLER)];
        if let Err(failed) = self.write(give_up).await {
            self.log_error(&format!("could not resign: {failed}"));
        }
    }
}

/// Fails what is written after another controller was elected.
fn fence(epoch_zk_version: i32) -> Operation {
    Operation::Check {
        path: znodes::CONTROLLER_EPOCH.to_owned(),
        version: epoch_zk_version,
    }
}

/// Whether nothing more can be done in this session.
fn ends_session(error: &CoordinationError) -> bool {
    matches!(
        error,
        CoordinationError::SessionExpired
            | CoordinationError::AuthenticationFailed
            | CoordinationError::Lost { .. }
    )
}
