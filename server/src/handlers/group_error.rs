//! What the group handlers share: the protocol error of each refusal, and grouping of partitions by topic.

use std::sync::Arc;

use milena_engine::units::TopicPartition;

use crate::group::requests::GroupError;
use crate::protocol::ErrorCode;

impl From<GroupError> for ErrorCode {
    fn from(error: GroupError) -> ErrorCode {
        match error {
            GroupError::UnknownServerError => ErrorCode::UnknownServerError,
            GroupError::RequestTimedOut => ErrorCode::RequestTimedOut,
            GroupError::OffsetMetadataTooLarge => ErrorCode::OffsetMetadataTooLarge,
            GroupError::CoordinatorLoadInProgress => ErrorCode::CoordinatorLoadInProgress,
            GroupError::CoordinatorNotAvailable => ErrorCode::CoordinatorNotAvailable,
            GroupError::NotCoordinator => ErrorCode::NotCoordinator,
            GroupError::IllegalGeneration => ErrorCode::IllegalGeneration,
            GroupError::InconsistentGroupProtocol => ErrorCode::InconsistentGroupProtocol,
            GroupError::InvalidGroupId => ErrorCode::InvalidGroupId,
            GroupError::UnknownMemberId => ErrorCode::UnknownMemberId,
            GroupError::InvalidSessionTimeout => ErrorCode::InvalidSessionTimeout,
            GroupError::RebalanceInProgress => ErrorCode::RebalanceInProgress,
            GroupError::InvalidCommitOffsetSize => ErrorCode::InvalidCommitOffsetSize,
            GroupError::InvalidProducerEpoch => ErrorCode::InvalidProducerEpoch,
            GroupError::NonEmptyGroup => ErrorCode::NonEmptyGroup,
            GroupError::GroupIdNotFound => ErrorCode::GroupIdNotFound,
            GroupError::MemberIdRequired => ErrorCode::MemberIdRequired,
            GroupError::GroupMaxSizeReached => ErrorCode::GroupMaxSizeReached,
            GroupError::FencedInstanceId => ErrorCode::FencedInstanceId,
            GroupError::GroupSubscribedToTopic => ErrorCode::GroupSubscribedToTopic,
        }
    }
}

/// The number on the wire of a result.
pub(super) fn code(result: Result<(), GroupError>) -> i16 {
    result.map_or_else(|error| ErrorCode::from(error).code(), |()| ErrorCode::None.code())
}

/// A topic and the answers of its partitions, by number.
pub(super) type TopicAnswers<P> = (Arc<str>, Vec<(i32, P)>);

/// Collects the answers of partitions under their topics; a topic comes where its first partition came.
pub(super) fn by_topic<P>(answers: impl IntoIterator<Item = (TopicPartition, P)>) -> Vec<TopicAnswers<P>> {
    let mut topics: Vec<TopicAnswers<P>> = Vec::new();
    let mut index_of = std::collections::HashMap::new();
    for (TopicPartition { topic, partition }, answer) in answers {
        let index = *index_of.entry(topic.clone()).or_insert_with(|| {
            topics.push((topic, Vec::new()));
            topics.len() - 1
        });
        topics[index].1.push((partition, answer));
    }
    topics
}

#[cfg(test)]
mod tests;
