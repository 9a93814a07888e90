//! CreateTopics (key 19): new topics, or a check whether they could be. Answered by the controller alone.
//!
//! Version 1 can merely validate and adds texts to errors; 4 leaves counts of −1 to the broker; 5 tells what was created. A name
//! that comes twice is refused. Source: `KafkaApis.handleCreateTopicsRequest`.

use std::borrow::Cow;

use super::admin_error::{code_and_message, repeated};
use crate::admin::topics::{CreatedTopic, NewTopic, TopicAdmin};
use crate::config::ConfigEntry;
use crate::protocol::ErrorCode;
use crate::protocol::messages::topics::{
    CreatableTopic, CreatableTopicConfigs, CreatableTopicResult, CreateTopicsRequest, CreateTopicsResponse,
};

pub async fn handle(
    topics: &TopicAdmin,
    is_controller: bool,
    request: &CreateTopicsRequest<'_>,
) -> CreateTopicsResponse<'static> {
    let twice = repeated(request.topics.iter().map(|topic| topic.name.into_owned()));
    let mut results: Vec<CreatableTopicResult<'static>> = Vec::new();
    let mut wanted: Vec<(usize, NewTopic)> = Vec::new();
    for topic in request.topics.iter() {
        let mut result = CreatableTopicResult {
            name: Cow::Owned(topic.name.to_string()),
            configs: Some(Vec::new().into()),
            ..CreatableTopicResult::default()
        };
        if !is_controller {
            result.error_code = ErrorCode::NotController.code();
        } else if twice.contains(&*topic.name) {
            // One answer for a name, however often it comes.
            if results.iter().any(|other| other.name == result.name) {
                continue;
            }
            result.error_code = ErrorCode::InvalidRequest.code();
            result.error_message = Some(Cow::Borrowed("Found multiple entries for this topic."));
        } else {
            wanted.push((results.len(), new_topic(&topic)));
        }
        results.push(result);
    }
    let (places, wanted): (Vec<usize>, Vec<NewTopic>) = wanted.into_iter().unzip();
    let answers = topics
        .create_topics(request.timeout_ms, request.validate_only, &wanted)
        .await;
    for (place, answer) in places.into_iter().zip(answers) {
        let result = &mut results[place];
        match answer {
            Ok(created) => fill(result, created),
            Err(error) => (result.error_code, result.error_message) = code_and_message(Some(error)),
        }
    }
    CreateTopicsResponse {
        topics: results.into(),
        ..CreateTopicsResponse::default()
    }
}

fn new_topic(topic: &CreatableTopic<'_>) -> NewTopic {
    let assignments = topic.assignments.iter();
    let configs = topic.configs.iter();
    NewTopic {
        name: topic.name.to_string(),
        partition_count: topic.num_partitions,
        replication_factor: topic.replication_factor,
        assignments: assignments
            .map(|one| (one.partition_index, one.broker_ids.iter().collect()))
            .collect(),
        configs: configs
            .map(|config| (config.name.into_owned(), config.value.map(Cow::into_owned)))
            .collect(),
    }
}

fn fill(result: &mut CreatableTopicResult<'static>, created: CreatedTopic) {
    result.num_partitions = created.partition_count;
    result.replication_factor = created.replication_factor;
    let config = |entry: ConfigEntry| CreatableTopicConfigs {
        name: Cow::Owned(entry.name),
        value: entry.value.map(Cow::Owned),
        read_only: entry.read_only,
        config_source: entry.source as i8,
        is_sensitive: entry.is_sensitive,
    };
    result.configs = Some(created.configs.into_iter().map(config).collect());
}
