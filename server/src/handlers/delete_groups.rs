//! DeleteGroups (key 42): deletes groups without members, with all their offsets.
//!
//! Version 2 is flexible. A group named twice is answered once. Source: `KafkaApis.handleDeleteGroupsRequest`.

use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::Arc;

use super::group_error;
use crate::group::GroupCoordinator;
use crate::protocol::messages::groups::{DeletableGroupResult, DeleteGroupsRequest, DeleteGroupsResponse};

/// Answers once the groups are gone from the log.
pub async fn handle(
    groups: &GroupCoordinator,
    request: &DeleteGroupsRequest<'_>,
) -> DeleteGroupsResponse<'static> {
    let mut seen: HashSet<Arc<str>> = HashSet::new();
    let named = request.groups_names.iter().map(|name| Arc::from(name.as_ref()));
    let group_ids: Vec<Arc<str>> = named.filter(|name| seen.insert(Arc::clone(name))).collect();
    let results = groups.delete_groups(&group_ids).await;
    let results = group_ids
        .into_iter()
        .zip(results)
        .map(|(group_id, result)| DeletableGroupResult {
            group_id: Cow::Owned(group_id.to_string()),
            error_code: group_error::code(result),
        });
    DeleteGroupsResponse {
        results: results.collect(),
        ..DeleteGroupsResponse::default()
    }
}
