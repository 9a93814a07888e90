//! What the handlers of topics share: the protocol error of each refusal.

use std::borrow::Cow;
use std::collections::HashSet;

use crate::admin::error::{AdminError, AdminErrorKind};
use crate::protocol::ErrorCode;

impl From<AdminErrorKind> for ErrorCode {
    fn from(kind: AdminErrorKind) -> ErrorCode {
        match kind {
            AdminErrorKind::UnknownServerError => ErrorCode::UnknownServerError,
            AdminErrorKind::UnknownTopicOrPartition => ErrorCode::UnknownTopicOrPartition,
            AdminErrorKind::RequestTimedOut => ErrorCode::RequestTimedOut,
            AdminErrorKind::CoordinatorNotAvailable => ErrorCode::CoordinatorNotAvailable,
            AdminErrorKind::InvalidTopic => ErrorCode::InvalidTopicException,
            AdminErrorKind::TopicAlreadyExists => ErrorCode::TopicAlreadyExists,
            AdminErrorKind::InvalidPartitions => ErrorCode::InvalidPartitions,
            AdminErrorKind::InvalidReplicationFactor => ErrorCode::InvalidReplicationFactor,
            AdminErrorKind::InvalidReplicaAssignment => ErrorCode::InvalidReplicaAssignment,
            AdminErrorKind::InvalidConfig => ErrorCode::InvalidConfig,
            AdminErrorKind::InvalidRequest => ErrorCode::InvalidRequest,
            AdminErrorKind::ReassignmentInProgress => ErrorCode::ReassignmentInProgress,
        }
    }
}

/// Code and text of an answer; nothing went wrong without an error.
pub(super) fn code_and_message(error: Option<AdminError>) -> (i16, Option<Cow<'static, str>>) {
    match error {
        None => (ErrorCode::None.code(), None),
        Some(error) => (ErrorCode::from(error.kind).code(), error.message.map(Cow::Owned)),
    }
}

/// The names that come more than once.
pub(super) fn repeated(names: impl IntoIterator<Item = String>) -> HashSet<String> {
    let mut seen = HashSet::new();
    let mut repeated = HashSet::new();
    for name in names {
        if seen.contains(&name) {
            repeated.insert(name);
        } else {
            seen.insert(name);
        }
    }
    repeated
}
