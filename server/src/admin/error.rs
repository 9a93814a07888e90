//! Why a wish about topics is refused: Kafka's name for it, and Kafka's text.

use crate::config::{ConfigError, ConfigErrorKind};
use crate::coordination::CoordinationError;
use crate::coordination::znodes::ZnodeError;

/// Named as Kafka's error codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdminErrorKind {
    UnknownServerError,
    UnknownTopicOrPartition,
    RequestTimedOut,
    CoordinatorNotAvailable,
    InvalidTopic,
    TopicAlreadyExists,
    InvalidPartitions,
    InvalidReplicationFactor,
    InvalidReplicaAssignment,
    InvalidConfig,
    InvalidRequest,
    ReassignmentInProgress,
}

/// A refusal: its kind and, where Kafka has one, its text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{kind:?}: {}", message.as_deref().unwrap_or("no message"))]
pub struct AdminError {
    pub kind: AdminErrorKind,
    /// `None` is null on the wire: the client shows the error's standard text.
    pub message: Option<String>,
}

impl AdminError {
    pub fn new(kind: AdminErrorKind, message: impl Into<String>) -> AdminError {
        AdminError {
            kind,
            message: Some(message.into()),
        }
    }

    pub const fn bare(kind: AdminErrorKind) -> AdminError {
        AdminError { kind, message: None }
    }

    /// Of the settings of a topic to be created.
    pub(super) fn of_config(error: &ConfigError) -> AdminError {
        let kind = match error.create_kind() {
            ConfigErrorKind::InvalidConfig => AdminErrorKind::InvalidConfig,
            ConfigErrorKind::InvalidRequest => AdminErrorKind::InvalidRequest,
        };
        AdminError::new(kind, error.to_string())
    }
}

/// The tree did not answer, which the client may ask again about, or refused.
impl From<CoordinationError> for AdminError {
    fn from(error: CoordinationError) -> AdminError {
        let kind = match error.is_passing() {
            true => AdminErrorKind::RequestTimedOut,
            false => AdminErrorKind::UnknownServerError,
        };
        AdminError::new(kind, error.to_string())
    }
}

impl From<ZnodeError> for AdminError {
    fn from(error: ZnodeError) -> AdminError {
        AdminError::new(AdminErrorKind::UnknownServerError, error.to_string())
    }
}
