//! DescribeConfigs (key 32): settings with their sources, of topics, this broker, all brokers, and this broker's loggers.
//!
//! A resource of a type that nobody knows spoils the whole request, as in Kafka. Source:
//! `KafkaApis.handleDescribeConfigsRequest`.
//!
//! **Deviation:** version 0, which has no sources, marks what nobody has set as default; 2.7.2 leaves the mark out, so that old
//! clients take every setting for one that was set.

use std::borrow::Cow;

use super::config_resource;
use crate::admin::configs::{ConfigAdmin, ConfigAdminError, ConfigResourceType};
use crate::config::{ConfigEntry, ConfigSource, ConfigSynonym};
use crate::protocol::ErrorCode;
use crate::protocol::messages::configs::{
    DescribeConfigsRequest, DescribeConfigsResource, DescribeConfigsResourceResult, DescribeConfigsResponse,
    DescribeConfigsResult, DescribeConfigsSynonym,
};
use crate::protocol::schema::Array;

pub async fn handle(
    configs: &ConfigAdmin,
    api_version: i16,
    request: &DescribeConfigsRequest<'_>,
) -> DescribeConfigsResponse<'static> {
    let is_unknown = |resource: DescribeConfigsResource<'_>| {
        ConfigResourceType::from_id(resource.resource_type) == ConfigResourceType::Unknown
    };
    let spoiled = request.resources.iter().any(is_unknown);
    let mut results = Vec::new();
    for wanted in request.resources.iter() {
        let mut result = DescribeConfigsResult {
            resource_type: wanted.resource_type,
            resource_name: Cow::Owned(wanted.resource_name.to_string()),
            error_message: Some(Cow::Borrowed("")),
            ..DescribeConfigsResult::default()
        };
        if spoiled {
            result.error_code = ErrorCode::InvalidRequest.code();
            result.error_message = ErrorCode::InvalidRequest.message().map(Cow::Borrowed);
            results.push(result);
            continue;
        }
        let resource = config_resource::resource(wanted.resource_type, &wanted.resource_name);
        match configs.describe(&resource).await {
            Ok(mut entries) => {
                retain_wanted(&mut entries, wanted.configuration_keys.as_ref());
                let described = entries
                    .into_iter()
                    .map(|entry| described(entry, api_version, request));
                result.configs = described.collect();
            }
            Err(error) => {
                let (code, message) = config_resource::refusal(&error, &resource);
                result.error_code = code;
                result.error_message = match error {
                    ConfigAdminError::UnknownTopic(None) => result.error_message,
                    _ => message,
                };
            }
        }
        results.push(result);
    }
    DescribeConfigsResponse {
        results: results.into(),
        ..DescribeConfigsResponse::default()
    }
}

/// Null and an empty list stand for all.
fn retain_wanted(entries: &mut Vec<ConfigEntry>, keys: Option<&Array<'_, Cow<'_, str>>>) {
    let wanted: Vec<Cow<'_, str>> = keys.map(|keys| keys.iter().collect()).unwrap_or_default();
    if !wanted.is_empty() {
        entries.retain(|entry| wanted.iter().any(|name| *name == entry.name));
    }
}

fn described(
    entry: ConfigEntry,
    api_version: i16,
    request: &DescribeConfigsRequest<'_>,
) -> DescribeConfigsResourceResult<'static> {
    let config_type = entry.type_id();
    let synonyms = entry.synonyms.into_iter().filter(|_| request.include_synonyms);
    let synonym = |synonym: ConfigSynonym| DescribeConfigsSynonym {
        name: Cow::Owned(synonym.name),
        value: synonym.value.map(Cow::Owned),
        source: synonym.source as i8,
    };
    DescribeConfigsResourceResult {
        name: Cow::Owned(entry.name),
        value: entry.value.map(Cow::Owned),
        read_only: entry.read_only,
        is_default: api_version == 0 && entry.source == ConfigSource::Default,
        config_source: entry.source as i8,
        is_sensitive: entry.is_sensitive,
        synonyms: synonyms.map(synonym).collect(),
        config_type,
        documentation: entry
            .documentation
            .filter(|_| request.include_documentation)
            .map(Cow::Borrowed),
    }
}
