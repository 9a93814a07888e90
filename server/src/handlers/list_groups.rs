//! ListGroups (key 16): the groups that this broker coordinates.
//!
//! Version 3 is flexible; 4 filters by state and tells it (KIP-518). While partitions are loading, the answer has an error beside
//! the groups that are known already. Source: `KafkaApis.handleListGroupsRequest`.

use std::borrow::Cow;

use super::group_error;
use crate::group::GroupCoordinator;
use crate::group::requests::{GroupError, GroupOverview};
use crate::protocol::messages::groups::{ListGroupsRequest, ListGroupsResponse, ListedGroup};

pub fn handle(groups: &GroupCoordinator, request: &ListGroupsRequest<'_>) -> ListGroupsResponse<'static> {
    let states: Vec<Cow<'_, str>> = request.states_filter.iter().collect();
    let states: Vec<&str> = states.iter().map(AsRef::as_ref).collect();
    match groups.list_groups(&states) {
        Err(error) => ListGroupsResponse {
            error_code: group_error::code(Err(error)),
            ..ListGroupsResponse::default()
        },
        Ok(list) => {
            let result = if list.loading {
                Err(GroupError::CoordinatorLoadInProgress)
            } else {
                Ok(())
            };
            let listed = |group: GroupOverview| ListedGroup {
                group_id: Cow::Owned(group.group_id.to_string()),
                protocol_type: Cow::Owned(group.protocol_type.to_string()),
                group_state: Cow::Borrowed(group.state.name()),
            };
            ListGroupsResponse {
                error_code: group_error::code(result),
                groups: list.groups.into_iter().map(listed).collect(),
                ..ListGroupsResponse::default()
            }
        }
    }
}
