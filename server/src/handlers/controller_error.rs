//! What the handlers of the controller's requests share: the protocol error of each refusal.

use std::borrow::Cow;
use std::collections::BTreeMap;

use milena_engine::units::TopicPartition;

use crate::controller::request::{ControllerError, ControllerErrorKind};
use crate::protocol::ErrorCode;

impl From<ControllerErrorKind> for ErrorCode {
    fn from(kind: ControllerErrorKind) -> ErrorCode {
        match kind {
            ControllerErrorKind::UnknownServerError => ErrorCode::UnknownServerError,
            ControllerErrorKind::UnknownTopicOrPartition => ErrorCode::UnknownTopicOrPartition,
            ControllerErrorKind::BrokerNotAvailable => ErrorCode::BrokerNotAvailable,
            ControllerErrorKind::InvalidTopicException => ErrorCode::InvalidTopicException,
            ControllerErrorKind::InvalidReplicaAssignment => ErrorCode::InvalidReplicaAssignment,
            ControllerErrorKind::NotController => ErrorCode::NotController,
            ControllerErrorKind::InvalidRequest => ErrorCode::InvalidRequest,
            ControllerErrorKind::FencedLeaderEpoch => ErrorCode::FencedLeaderEpoch,
            ControllerErrorKind::StaleBrokerEpoch => ErrorCode::StaleBrokerEpoch,
            ControllerErrorKind::PreferredLeaderNotAvailable => ErrorCode::PreferredLeaderNotAvailable,
            ControllerErrorKind::EligibleLeadersNotAvailable => ErrorCode::EligibleLeadersNotAvailable,
            ControllerErrorKind::ElectionNotNeeded => ErrorCode::ElectionNotNeeded,
            ControllerErrorKind::NoReassignmentInProgress => ErrorCode::NoReassignmentInProgress,
            ControllerErrorKind::InvalidUpdateVersion => ErrorCode::InvalidUpdateVersion,
        }
    }
}

/// Code and text of an answer: a refusal without a text of its own has the standard one.
pub(super) fn code_and_message(error: Option<ControllerError>) -> (i16, Option<Cow<'static, str>>) {
    let Some(error) = error else {
        return (ErrorCode::None.code(), None);
    };
    let code = ErrorCode::from(error.kind);
    let standard = || code.message().map(Cow::Borrowed);
    (code.code(), error.message.map(Cow::Owned).or_else(standard))
}

/// Results by topic, in the order of topics and partitions.
pub(super) fn by_topic<T>(
    results: impl IntoIterator<Item = (TopicPartition, T)>,
) -> BTreeMap<String, Vec<(i32, T)>> {
    let mut topics: BTreeMap<String, Vec<(i32, T)>> = BTreeMap::new();
    for (at, result) in results {
        let topic = topics.entry(at.topic.to_string()).or_default();
        topic.push((at.partition, result));
    }
    topics
}

#[cfg(test)]
mod tests;
