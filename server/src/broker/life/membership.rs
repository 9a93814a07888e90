//! The broker's place in its cluster: `/brokers/ids/{id}`, for as long as it lives.
//!
//! A session that ends takes the node along. The broker keeps its roles meanwhile, fenced by leader epochs and versions of nodes,
//! and registers again in the next session; its epoch is then another. Only then the controller here may stand for election
//! again: who leads a cluster has a place in it (`KafkaController.processRegisterBrokerAndReelect`).
//!
//! **Deviation:** a broker whose id another one has taken meanwhile stops. Kafka logs it and goes on unregistered,
//! as a second broker of the same id.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicI64, Ordering};
use std::time::Duration;

use milena_engine::io::Clock;
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc};

use crate::cluster::Endpoint;
use crate::controller::Controller;
use crate::coordination::startup::{self, JoinError, Registered, Registering};
use crate::coordination::znodes::BrokerRegistration;
use crate::coordination::{Coordination, CoordinationError, SessionEvent};

const LOGGER: &str = "kafka.zk.KafkaZkClient";
/// Before another try where the tree refused for a reason that may pass.
const PAUSE: Duration = Duration::from_secs(1);

/// What wakes [`Membership::keep`].
#[derive(Debug, Default)]
struct Signals {
    wake: Notify,
    is_expired: AtomicBool,
    is_changed: AtomicBool,
}

/// A broker that is registered.
#[derive(Debug)]
pub(super) struct Membership {
    coordination: Arc<dyn Coordination>,
    clock: Arc<dyn Clock>,
    how: Registering,
    registration: Mutex<BrokerRegistration>,
    epoch: Arc<AtomicI64>,
    controller_epoch: Arc<AtomicI32>,
    session: AtomicI64,
    signals: Arc<Signals>,
}

impl Membership {
    /// Registers for the first time.
    pub(super) async fn join(
        coordination: &Arc<dyn Coordination>,
        clock: &Arc<dyn Clock>,
        registration: BrokerRegistration,
        how: Registering,
    ) -> Result<Membership, JoinError> {
        let signals = Arc::new(Signals::default());
        let heard = Arc::clone(&signals);
        coordination.listen(Arc::new(move |event| match event {
            SessionEvent::Expired => heard.is_expired.store(true, Ordering::Release),
            SessionEvent::Connected => heard.wake.notify_one(),
            SessionEvent::Disconnected | SessionEvent::AuthenticationFailed | SessionEvent::Lost(_) => {}
        }));
        startup::check_addresses(&**coordination, &registration).await?;
        let membership = Membership {
            coordination: Arc::clone(coordination),
            clock: Arc::clone(clock),
            how,
            registration: Mutex::new(registration),
            epoch: Arc::default(),
            controller_epoch: Arc::default(),
            session: AtomicI64::new(0),
            signals,
        };
        membership.register(None).await?;
        Ok(membership)
    }

    /// The epoch of the present registration.
    pub(super) fn epoch(&self) -> Arc<AtomicI64> {
        Arc::clone(&self.epoch)
    }

    /// The newest controller's epoch that is known.
    pub(super) fn controller_epoch(&self) -> Arc<AtomicI32> {
        Arc::clone(&self.controller_epoch)
    }

    /// Others reach the broker at these addresses from now on.
    pub(super) fn advertise(&self, endpoints: Vec<Endpoint>) {
        let mut registration = self.registration.lock();
        if registration.broker.endpoints != endpoints {
            registration.broker.endpoints = endpoints;
            self.signals.is_changed.store(true, Ordering::Release);
            self.signals.wake.notify_one();
        }
    }

    /// Registers again after each session that ended. Returns why the broker has no place any more.
    pub(super) async fn keep(&self, controller: &Controller) -> JoinError {
        loop {
            self.signals.wake.notified().await;
            if self.signals.is_expired.swap(false, Ordering::AcqRel) {
                self.signals.is_changed.store(false, Ordering::Release);
                let former = Some(self.session.load(Ordering::Acquire)).filter(|session| *session != 0);
                match self.register(former).await {
                    Ok(()) => controller.registered(),
                    Err(JoinError::Coordination(error)) => {
                        self.put_off(&self.signals.is_expired, &error).await
                    }
                    Err(error) => return error,
                }
            } else if self.signals.is_changed.swap(false, Ordering::AcqRel) {
                let registration = self.registration.lock().clone();
                let told = startup::update_registration(&*self.coordination, &registration, self.how.version);
                match told.await {
                    Ok(()) => tracing::info!(target: LOGGER, "{} is updated", node(&registration)),
                    Err(error) => self.put_off(&self.signals.is_changed, &error).await,
                }
            }
        }
    }

    /// Has what failed done again: with the next session, or after a while.
    async fn put_off(&self, todo: &AtomicBool, error: &CoordinationError) {
        todo.store(true, Ordering::Release);
        let node = node(&self.registration.lock());
        tracing::error!(target: LOGGER, "{node} could not be written: {error}; it is tried again");
        if *error != CoordinationError::SessionExpired {
            tokio::time::sleep(PAUSE).await;
            self.signals.wake.notify_one();
        }
    }

    async fn register(&self, former_session: Option<i64>) -> Result<(), JoinError> {
        let mut registration = self.registration.lock().clone();
        registration.timestamp_ms = self.clock.wall().get();
        let how = Registering {
            former_session,
            ..self.how
        };
        let Registered {
            epoch,
            session,
            controller_epoch,
        } = startup::register_broker(&*self.coordination, &registration, how).await?;
        self.session.store(session, Ordering::Release);
        self.controller_epoch
            .fetch_max(controller_epoch, Ordering::AcqRel);
        self.epoch.store(epoch, Ordering::Release);
        let endpoints = &registration.broker.endpoints;
        tracing::info!(
            target: LOGGER,
            "Registered broker {} at path {} with addresses: {}, czxid (broker epoch): {epoch}",
            registration.broker.id,
            node(&registration),
            endpoints.iter().map(ToString::to_string).collect::<Vec<_>>().join(","),
        );
        Ok(())
    }
}

fn node(registration: &BrokerRegistration) -> String {
    crate::coordination::znodes::broker_id(registration.broker.id)
}

/// [`Membership::keep`] until the broker has to stop, and says so.
pub(super) async fn keep(
    membership: Arc<Membership>,
    controller: Controller,
    failures: mpsc::UnboundedSender<String>,
) {
    let lost = membership.keep(&controller).await;
    // Nobody hears it only if the broker is stopping already.
    let _ = failures.send(format!(
        "Shutdown broker because it has no place in the cluster any more: {lost}"
    ));
}
