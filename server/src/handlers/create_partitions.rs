//! CreatePartitions (key 37): more partitions for a topic, never fewer. Answered by the controller alone.
//!
//! A topic that comes twice is refused. Source: `KafkaApis.handleCreatePartitionsRequest`.

use std::borrow::Cow;

use super::admin_error::{code_and_message, repeated};
use crate::admin::error::{AdminError, AdminErrorKind};
use crate::admin::topics::{NewPartitions, TopicAdmin};
use crate::protocol::ErrorCode;
use crate::protocol::messages::topics::{
    CreatePartitionsRequest, CreatePartitionsResponse, CreatePartitionsTopic, CreatePartitionsTopicResult,
};

pub async fn handle(
    topics: &TopicAdmin,
    is_controller: bool,
    request: &CreatePartitionsRequest<'_>,
) -> CreatePartitionsResponse<'static> {
    let mut results = Vec::new();
    if !is_controller {
        for topic in request.topics.iter() {
            results.push(CreatePartitionsTopicResult {
                name: Cow::Owned(topic.name.to_string()),
                error_code: ErrorCode::NotController.code(),
                ..CreatePartitionsTopicResult::default()
            });
        }
    } else {
        let twice = repeated(request.topics.iter().map(|topic| topic.name.into_owned()));
        let wanted: Vec<NewPartitions> = request
            .topics
            .iter()
            .filter(|topic| !twice.contains(&*topic.name))
            .map(|topic| new_partitions(&topic))
            .collect();
        let answers = topics
            .create_partitions(request.timeout_ms, request.validate_only, &wanted)
            .await;
        let answers = wanted
            .into_iter()
            .zip(answers)
            .map(|(topic, answer)| (topic.topic, answer.err()));
        let duplicate = AdminError::new(AdminErrorKind::InvalidRequest, "Duplicate topic in request.");
        let duplicates = twice.into_iter().map(|name| (name, Some(duplicate.clone())));
        for (name, error) in answers.chain(duplicates) {
            let (error_code, error_message) = code_and_message(error);
            results.push(CreatePartitionsTopicResult {
                name: Cow::Owned(name),
                error_code,
                error_message,
            });
        }
    }
    CreatePartitionsResponse {
        results: results.into(),
        ..CreatePartitionsResponse::default()
    }
}

fn new_partitions(topic: &CreatePartitionsTopic<'_>) -> NewPartitions {
    let assignments = topic.assignments.as_ref().map(|assignments| {
        assignments
            .iter()
            .map(|one| one.broker_ids.iter().collect())
            .collect()
    });
    NewPartitions {
        topic: topic.name.to_string(),
        total_count: topic.count,
        assignments,
    }
}
