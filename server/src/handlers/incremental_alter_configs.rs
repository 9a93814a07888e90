//! IncrementalAlterConfigs (key 44): changes some settings of topics and brokers, or levels of this broker's loggers (KIP-339).
//!
//! A type that nobody knows spoils the whole request; of a resource that is named twice the last counts, as in Kafka. Source:
//! `KafkaApis.handleIncrementalAlterConfigsRequest`.
//!
//! **Deviation:** an operation that nobody knows makes the whole request INVALID_REQUEST, and appending to a setting that nobody
//! knows is INVALID_CONFIG; 2.7.2 has only an unknown error for both.

use std::borrow::Cow;

use super::config_resource;
use crate::admin::configs::{ConfigAdmin, ConfigResource, ConfigResourceType};
use crate::config::{AlterOperation, AlterOperationType};
use crate::protocol::ErrorCode;
use crate::protocol::messages::incremental_alter_configs::{
    AlterConfigsResource, AlterConfigsResourceResponse, IncrementalAlterConfigsRequest,
    IncrementalAlterConfigsResponse,
};

pub async fn handle(
    configs: &ConfigAdmin,
    request: &IncrementalAlterConfigsRequest<'_>,
) -> IncrementalAlterConfigsResponse<'static> {
    let mut wanted: Vec<(i8, ConfigResource, Option<Vec<AlterOperation>>)> = Vec::new();
    for changes in request.resources.iter() {
        let resource = config_resource::resource(changes.resource_type, &changes.resource_name);
        let known = wanted.iter().position(|(_, known, _)| *known == resource);
        let entry = (changes.resource_type, resource, operations(&changes));
        match known {
            Some(index) => wanted[index] = entry,
            None => wanted.push(entry),
        }
    }
    let is_unknown = |resource: &ConfigResource| resource.resource_type == ConfigResourceType::Unknown;
    let spoiled = if wanted.iter().any(|(_, resource, _)| is_unknown(resource)) {
        Some("Unexpected resource type UNKNOWN")
    } else if wanted.iter().any(|(_, _, operations)| operations.is_none()) {
        Some("Unknown operation: 0 sets, 1 deletes, 2 appends, 3 subtracts")
    } else {
        None
    };
    let mut responses = Vec::new();
    for (resource_type, resource, operations) in wanted {
        let operations = operations.unwrap_or_default();
        let (error_code, error_message) = match spoiled {
            Some(message) => (ErrorCode::InvalidRequest.code(), Some(Cow::Borrowed(message))),
            None => match configs
                .alter_incrementally(&resource, &operations, request.validate_only)
                .await
            {
                Ok(()) => (ErrorCode::None.code(), None),
                Err(error) => config_resource::refusal(&error, &resource),
            },
        };
        responses.push(AlterConfigsResourceResponse {
            error_code,
            error_message,
            resource_type,
            resource_name: Cow::Owned(resource.name),
        });
    }
    IncrementalAlterConfigsResponse {
        responses: responses.into(),
        ..IncrementalAlterConfigsResponse::default()
    }
}

/// `None` if one of them is unknown.
fn operations(changes: &AlterConfigsResource<'_>) -> Option<Vec<AlterOperation>> {
    let operation = |operation| AlterOperationType::from_id(operation);
    changes
        .configs
        .iter()
        .map(|change| {
            Some(AlterOperation {
                operation: operation(change.config_operation)?,
                name: change.name.into_owned(),
                value: change.value.map(Cow::into_owned),
            })
        })
        .collect()
}
