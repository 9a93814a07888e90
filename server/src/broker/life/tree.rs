//! Where the tree lies through which this broker agrees with the others: in a log directory of its own, or in ZooKeeper.
//!
//! A broker has one of them. What a broker that stands alone keeps in its embedded tree is not what its cluster knows: with
//! `zookeeper.connect` a directory that has such a tree is refused, and nothing of it is touched. Neither does a node stand alone
//! again whose tree was moved into ZooKeeper: a person who wants that takes the moved file away.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use milena_engine::io::{Clock, Io};
use milena_engine::log_manager::Survey;

use super::{LOGGER, StartError, usable_directories};
use crate::config::{BrokerConfig, ZooKeeperSettings, ZooKeeperTls};
use crate::coordination::Coordination;
use crate::coordination::embedded::{EmbeddedTree, OpenTreeError, locate, locate_moved};
use crate::coordination::zookeeper::{TlsClient, TlsMaterial, ZooKeeper, ZooKeeperConfig};

/// The tree, open.
#[derive(Clone, Debug)]
pub(super) enum Tree {
    Embedded(Arc<EmbeddedTree>),
    ZooKeeper(Arc<ZooKeeper>),
}

impl Tree {
    /// Opens the tree that the settings name.
    pub(super) async fn open(
        config: &BrokerConfig,
        io: &Arc<dyn Io>,
        clock: Arc<dyn Clock>,
        survey: &Survey,
    ) -> Result<Tree, StartError> {
        let usable = usable_directories(survey);
        match &config.zookeeper {
            None => {
                if locate(&**io, &usable)?.is_none()
                    && let Some(path) = locate_moved(&**io, &usable).map_err(OpenTreeError::from)?
                {
                    return Err(StartError::TreeMoved { path });
                }
                let tree = EmbeddedTree::open_or_begin(io, clock, &usable, &survey.offline_reasons())?;
                Ok(Tree::Embedded(Arc::new(tree)))
            }
            Some(settings) => {
                if let Some(path) = locate(&**io, &usable)? {
                    return Err(StartError::TreeOfItsOwn { path });
                }
                let zookeeper = connect(settings).await?;
                match zookeeper.ensure_chroot().await {
                    Ok(()) => Ok(Tree::ZooKeeper(Arc::new(zookeeper))),
                    Err(error) => {
                        zookeeper.close().await?;
                        Err(error.into())
                    }
                }
            }
        }
    }

    /// The session of the broker.
    pub(super) fn session(&self) -> Arc<dyn Coordination> {
        match self {
            Tree::Embedded(tree) => tree.session(),
            Tree::ZooKeeper(zookeeper) => Arc::clone(zookeeper) as Arc<dyn Coordination>,
        }
    }

    /// The tree of a broker that stands alone.
    pub(super) fn embedded(&self) -> Option<&Arc<EmbeddedTree>> {
        match self {
            Tree::Embedded(tree) => Some(tree),
            Tree::ZooKeeper(_) => None,
        }
    }

    /// Ends the session, and with it all that others see of this broker.
    pub(super) fn shutdown(&self) {
        match self {
            Tree::Embedded(tree) => tree.shutdown(),
            Tree::ZooKeeper(zookeeper) => zookeeper.shutdown(),
        }
    }
}

/// A session with the ensemble that the settings name; nothing is written.
///
/// # Errors
/// There is none within the time that the settings give.
pub(crate) async fn connect(settings: &ZooKeeperSettings) -> Result<ZooKeeper, StartError> {
    let servers: Vec<String> = settings.connect.servers.iter().map(ToString::to_string).collect();
    let servers = servers.join(",");
    let chroot = &settings.connect.chroot;
    tracing::info!(target: LOGGER, "Connecting to zookeeper on {servers}{chroot}");
    let tls = settings.tls.as_ref().map(tls).transpose()?;
    let zookeeper = ZooKeeper::begin(ZooKeeperConfig {
        connect: settings.connect.clone(),
        session_timeout_ms: settings.session_timeout_ms,
        max_in_flight_requests: settings.max_in_flight_requests as usize,
        set_acl: settings.set_acl,
        auth: settings.digest.iter().cloned().collect(),
        sasl: settings.sasl.clone(),
        tls,
    });
    let zookeeper = zookeeper.map_err(StartError::Thread)?;
    let within = Duration::from_millis(settings.connection_timeout_ms.into());
    match zookeeper.connected(within).await {
        Ok(()) => Ok(zookeeper),
        Err(source) => {
            zookeeper.close().await?;
            Err(StartError::ZooKeeper { servers, source })
        }
    }
}

fn tls(settings: &ZooKeeperTls) -> Result<TlsClient, StartError> {
    let read = |path: &PathBuf| {
        std::fs::read(path).map_err(|error| StartError::ZooKeeperTls {
            reason: format!("{}: {error}", path.display()),
        })
    };
    let material = TlsMaterial {
        trusted: read(&settings.truststore)?,
        identity: settings.keystore.as_ref().map(read).transpose()?,
        versions: settings.versions.clone(),
        verifies_host_name: settings.verifies_host_name,
    };
    TlsClient::new(&material).map_err(|error| StartError::ZooKeeperTls {
        reason: error.to_string(),
    })
}
