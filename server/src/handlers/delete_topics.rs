//! DeleteTopics (key 20): topics with all their records. Answered by the controller alone.
//!
//! Version 3 knows that deletion may be disabled (`delete.topic.enable`); older ones are told INVALID_REQUEST. Version
//! 5 has a place for texts, which 2.7.2 leaves empty. Source: `KafkaApis.handleDeleteTopicsRequest`.

use std::borrow::Cow;

use super::admin_error::code_and_message;
use crate::admin::topics::TopicAdmin;
use crate::protocol::ErrorCode;
use crate::protocol::messages::topics::{DeletableTopicResult, DeleteTopicsRequest, DeleteTopicsResponse};

/// The first version whose clients know TOPIC_DELETION_DISABLED.
const KNOWS_DELETION_DISABLED: i16 = 3;

pub async fn handle(
    topics: &TopicAdmin,
    is_controller: bool,
    api_version: i16,
    request: &DeleteTopicsRequest<'_>,
) -> DeleteTopicsResponse<'static> {
    let refusal = if !is_controller {
        Some(ErrorCode::NotController)
    } else if topics.is_deletion_enabled() {
        None
    } else if api_version < KNOWS_DELETION_DISABLED {
        Some(ErrorCode::InvalidRequest)
    } else {
        Some(ErrorCode::TopicDeletionDisabled)
    };
    let mut names: Vec<String> = Vec::new();
    let mut seen = std::collections::HashSet::new();
    for name in request.topic_names.iter() {
        if seen.insert(name.to_string()) {
            names.push(name.into_owned());
        }
    }
    let known: Vec<String> = match refusal {
        Some(_) => Vec::new(),
        None => names
            .iter()
            .filter(|name| topics.is_known(name))
            .cloned()
            .collect(),
    };
    let answers = topics.delete_topics(request.timeout_ms, &known).await;
    let mut answers = known.iter().zip(answers).peekable();
    let mut responses = Vec::with_capacity(names.len());
    for name in &names {
        let error_code = match (refusal, answers.next_if(|(known, _)| *known == name)) {
            (Some(refusal), _) => refusal.code(),
            (None, Some((_, answer))) => code_and_message(answer.err()).0,
            (None, None) => ErrorCode::UnknownTopicOrPartition.code(),
        };
        responses.push(DeletableTopicResult {
            name: Cow::Owned(name.clone()),
            error_code,
            ..DeletableTopicResult::default()
        });
    }
    DeleteTopicsResponse {
        responses: responses.into(),
        ..DeleteTopicsResponse::default()
    }
}
