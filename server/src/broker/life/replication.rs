//! What replication has running beside the lanes: the fetching threads, and on the control thread the changes of in-sync replicas,
//! the look for those that lag, and the one for what is wrong.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::time::Duration;

use milena_engine::io::Clock;

use super::settings::{fetcher_settings, peer_settings};
use crate::broker::alter_isr::ControllerIsrStore;
use crate::broker::controller_channel::ControllerChannel;
use crate::cluster::BoxFuture;
use crate::config::{BrokerConfig, InterBrokerVersions};
use crate::coordination::Coordination;
use crate::metadata_cache::MetadataCache;
use crate::replication::health;
use crate::replication::isr_manager::{self, IsrStore, TreeIsrStore};
use crate::replication::replica_fetcher_manager::ReplicaFetcherManager;
use crate::replication::{Inboxes, ReplicaManager};

/// The parts that replication runs on.
pub(super) struct Parts<'p> {
    pub(super) broker_id: i32,
    pub(super) broker_epoch: &'p Arc<AtomicI64>,
    pub(super) config: &'p BrokerConfig,
    pub(super) replicas: &'p Arc<ReplicaManager>,
    pub(super) metadata: &'p Arc<MetadataCache>,
    pub(super) coordination: &'p Arc<dyn Coordination>,
    pub(super) clock: &'p Arc<dyn Clock>,
}

/// Starts the threads; the future is for the control thread.
///
/// # Errors
/// There is no thread.
pub(super) fn start(
    parts: &Parts<'_>,
    inboxes: Inboxes,
) -> io::Result<(ReplicaFetcherManager, impl Future<Output = ()> + Send + 'static)> {
    let fetchers = ReplicaFetcherManager::start(
        fetcher_settings(parts.broker_id, parts.config),
        inboxes.fetchers,
        parts.replicas,
        parts.metadata,
        parts.clock,
    )?;
    let (store, notices) = isr_store(parts);
    let changes = isr_manager::run(inboxes.proposals, Arc::clone(parts.replicas), store);
    let checks = check_isrs(Arc::clone(parts.replicas), parts.config.replication.lag_max / 2);
    let health = health::run(Arc::clone(parts.replicas), Arc::clone(parts.metadata));
    let control = async move {
        tokio::join!(changes, notices, checks, health);
    };
    Ok((fetchers, control))
}

/// Who writes changes of in-sync replicas at this `inter.broker.protocol.version`, and what tells the controller of them.
fn isr_store(parts: &Parts<'_>) -> (Arc<dyn IsrStore>, BoxFuture<'static, ()>) {
    match InterBrokerVersions::of(parts.config.inter_broker_protocol_version).alter_isr {
        Some(version) => {
            let settings = peer_settings(parts.broker_id, parts.config);
            let store = ControllerIsrStore {
                broker_id: parts.broker_id,
                broker_epoch: Arc::clone(parts.broker_epoch),
                controller: ControllerChannel::new(settings, Arc::clone(parts.metadata)),
                version,
            };
            // The controller knows what it wrote itself.
            (Arc::new(store), Box::pin(std::future::ready(())))
        }
        None => {
            let coordination = Arc::clone(parts.coordination);
            let (store, notices) = TreeIsrStore::new(parts.broker_id, coordination, Arc::clone(parts.clock));
            (Arc::new(store), Box::pin(notices))
        }
    }
}

async fn check_isrs(replicas: Arc<ReplicaManager>, period: Duration) {
    loop {
        tokio::time::sleep(period.max(Duration::from_millis(1))).await;
        replicas.check_isrs();
    }
}
