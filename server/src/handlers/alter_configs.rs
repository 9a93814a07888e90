//! AlterConfigs (key 33): replaces all settings of topics and brokers.
//!
//! Loggers, and types that nobody knows, spoil the whole request, as in Kafka. Of a setting that is given twice the last counts.
//! Source: `KafkaApis.handleAlterConfigsRequest`.
//!
//! **Deviation:** a resource that is named twice makes the whole request INVALID_REQUEST; 2.7.2 never answers it. A setting
//! without a value makes its resource INVALID_REQUEST; 2.7.2 answers the whole request with an unknown error.

use std::borrow::Cow;

use super::config_resource;
use crate::admin::configs::{ConfigAdmin, ConfigResource, ConfigResourceType};
use crate::protocol::ErrorCode;
use crate::protocol::messages::configs::{
    AlterConfigsRequest, AlterConfigsResourceResponse, AlterConfigsResponse,
};

pub async fn handle(
    configs: &ConfigAdmin,
    request: &AlterConfigsRequest<'_>,
) -> AlterConfigsResponse<'static> {
    let resources = request
        .resources
        .iter()
        .map(|wanted| config_resource::resource(wanted.resource_type, &wanted.resource_name));
    let resources: Vec<ConfigResource> = resources.collect();
    let spoiled = whole_refusal(&resources);
    let mut responses = Vec::new();
    for (wanted, resource) in request.resources.iter().zip(&resources) {
        let (error_code, error_message) = match &spoiled {
            Some(message) => (
                ErrorCode::InvalidRequest.code(),
                Some(Cow::Owned(message.clone())),
            ),
            None => {
                let settings = wanted.configs.iter();
                let settings: Vec<(String, Option<String>)> = settings
                    .map(|config| (config.name.into_owned(), config.value.map(Cow::into_owned)))
                    .collect();
                match configs.alter(resource, &settings, request.validate_only).await {
                    Ok(()) => (ErrorCode::None.code(), None),
                    Err(error) => config_resource::refusal(&error, resource),
                }
            }
        };
        responses.push(AlterConfigsResourceResponse {
            error_code,
            error_message,
            resource_type: wanted.resource_type,
            resource_name: Cow::Owned(resource.name.clone()),
        });
    }
    AlterConfigsResponse {
        responses: responses.into(),
        ..AlterConfigsResponse::default()
    }
}

/// Why nothing of the request is done.
fn whole_refusal(resources: &[ConfigResource]) -> Option<String> {
    let mut seen = std::collections::HashSet::new();
    resources
        .iter()
        .find_map(|resource| match resource.resource_type {
            ConfigResourceType::BrokerLogger => Some(
                "AlterConfigs is deprecated and does not support the resource type BROKER_LOGGER".to_owned(),
            ),
            ConfigResourceType::Unknown => Some("Unexpected resource type UNKNOWN".to_owned()),
            _ if !seen.insert(resource) => Some(format!(
                "resource {} '{}' is named twice",
                resource.resource_type.name(),
                resource.name
            )),
            _ => None,
        })
}
