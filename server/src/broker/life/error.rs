//! Why a broker does not start, in words that say what to do.

use std::io;
use std::path::PathBuf;

use milena_engine::io::BackendRefused;
use milena_engine::log_manager::LogDirsError;

use super::CONTROLLER_TIMEOUT;
use super::features::FeatureError;
use crate::admin::dynamic::ConfigTreeError;
use crate::adoption::AdoptionError;
use crate::coordination::CoordinationError;
use crate::coordination::embedded::OpenTreeError;
use crate::coordination::startup::JoinError;
use crate::coordination::zookeeper::ConnectError;

/// Why a broker does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("milena.io.backend=uring, but {0}")]
    Backend(#[from] BackendRefused),
    #[error("cannot listen on {listener}://{host}:{port}: {source}{}", advice(source))]
    Listen {
        listener: String,
        host: String,
        port: u16,
        source: io::Error,
    },
    #[error(transparent)]
    LogDirs(#[from] LogDirsError),
    #[error(transparent)]
    Tree(#[from] OpenTreeError),
    #[error(
        "zookeeper.connect is set, but this node stood alone before: its topics are in {}. Move them into ZooKeeper by \
         `milena export-znodes --to-zookeeper` with the same settings, or start without zookeeper.connect",
        path.display()
    )]
    TreeOfItsOwn { path: PathBuf },
    #[error(
        "zookeeper.connect is not set, but this node was moved into ZooKeeper: {} says so. Set zookeeper.connect as it was then. \
         To stand alone again as it was before the move, give the file its name milena.tree back; if a cluster has used the log \
         directories since, take the file away, and they are taken over as Kafka's are",
        path.display()
    )]
    TreeMoved { path: PathBuf },
    #[error("ZooKeeper at {servers}: {source}")]
    ZooKeeper { servers: String, source: ConnectError },
    #[error("TLS to ZooKeeper: {reason}")]
    ZooKeeperTls { reason: String },
    #[error("--import is for a broker that stands alone; with zookeeper.connect the topics are ZooKeeper's")]
    ImportIntoZooKeeper,
    #[error(transparent)]
    Join(#[from] JoinError),
    #[error(transparent)]
    Coordination(#[from] CoordinationError),
    #[error(transparent)]
    Adoption(#[from] AdoptionError),
    #[error(transparent)]
    Configs(#[from] ConfigTreeError),
    #[error(transparent)]
    Features(#[from] FeatureError),
    #[error("the controller did not place the partitions within {} s", CONTROLLER_TIMEOUT.as_secs())]
    Controller,
    #[error("cannot start a thread: {0}")]
    Thread(io::Error),
}

fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            " (another broker or program has it: stop that, or choose another port with --override listeners=..)"
        }
        io::ErrorKind::PermissionDenied => {
            " (ports below 1024 need the right to bind them: choose a higher one with --override listeners=..)"
        }
        io::ErrorKind::AddrNotAvailable => {
            " (no interface of this machine has the address: leave the host out to listen on all of them)"
        }
        _ => "",
    }
}
