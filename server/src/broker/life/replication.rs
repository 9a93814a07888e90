//! What replication has running beside the lanes: the fetching threads, and on the control thread the changes of in-sync replicas
//! and the look for those that lag.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use milena_engine::io::Clock;

use super::settings::fetcher_settings;
use crate::config::BrokerConfig;
use crate::coordination::Coordination;
use crate::metadata_cache::MetadataCache;
use crate::replication::isr_manager::{self, TreeIsrStore};
use crate::replication::replica_fetcher_manager::ReplicaFetcherManager;
use crate::replication::{Inboxes, ReplicaManager};

/// The parts that replication runs on.
pub(super) struct Parts<'p> {
    pub(super) broker_id: i32,
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
    let coordination = Arc::clone(parts.coordination);
    let (store, notices) = TreeIsrStore::new(parts.broker_id, coordination, Arc::clone(parts.clock));
    let changes = isr_manager::run(inboxes.proposals, Arc::clone(parts.replicas), Arc::new(store));
    let checks = check_isrs(Arc::clone(parts.replicas), parts.config.replication.lag_max / 2);
    let control = async move {
        tokio::join!(changes, notices, checks);
    };
    Ok((fetchers, control))
}

async fn check_isrs(replicas: Arc<ReplicaManager>, period: Duration) {
    loop {
        tokio::time::sleep(period.max(Duration::from_millis(1))).await;
        replicas.check_isrs();
    }
}
