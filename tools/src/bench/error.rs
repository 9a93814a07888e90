//! What ends a bench before its time.

use std::io;

use milena_server::client::ClientError;

use crate::Exit;
use crate::cluster_args::exit_of;

#[derive(Debug, thiserror::Error)]
pub(crate) enum BenchError {
    /// The command line or a file says what cannot be.
    #[error("{0}")]
    Usage(String),
    #[error(transparent)]
    Client(#[from] ClientError),
    /// Of the generator's own system.
    #[error("{what}: {source}")]
    System { what: String, source: io::Error },
    /// What the broker did cannot be measured.
    #[error("{0}")]
    Broker(String),
    #[error("interrupted")]
    Interrupted,
}

impl BenchError {
    pub(crate) fn system(what: impl Into<String>) -> impl FnOnce(io::Error) -> BenchError {
        move |source| BenchError::System {
            what: what.into(),
            source,
        }
    }

    pub(crate) fn exit(&self) -> Exit {
        match self {
            BenchError::Usage(_) => Exit::Usage,
            BenchError::Client(error) => exit_of(error),
            BenchError::Interrupted => Exit::Interrupted,
            BenchError::System { .. } | BenchError::Broker(_) => Exit::Failed,
        }
    }
}
