//! Groups as brokers tell of them: which there are, their states, and members with what they were assigned.

use std::collections::BTreeMap;

use milena_server::client::{Client, ClientError, Target};
use milena_server::protocol::messages::consumer_protocol::{
    ConsumerProtocolAssignment, ConsumerProtocolSubscription,
};
use milena_server::protocol::messages::groups::{
    DescribeGroupsRequest, DescribeGroupsResponse, DescribedGroup, DescribedGroupMember, ListGroupsRequest,
    ListGroupsResponse,
};

use super::coordinators::{BATCH_LENGTH, Coordinators};
use crate::cluster_args::CommandError;
use crate::partition_offsets::Partition;

/// What groups of consumers call their protocol.
const CONSUMER: &str = "consumer";

/// A group in a list.
#[derive(Clone, Debug)]
pub(super) struct Listed {
    /// Told by brokers from 2.6 on.
    pub(super) state: Option<String>,
    /// Empty for a group that only keeps offsets.
    pub(super) protocol_type: String,
    /// Broker id.
    pub(super) coordinator: i32,
}

/// A group, seen closely.
#[derive(Clone, Debug)]
pub(super) struct Group {
    pub(super) state: String,
    pub(super) protocol_type: String,
    /// The assignor in use; empty unless the group is stable.
    pub(super) protocol: String,
    pub(super) coordinator: i32,
    pub(super) members: Vec<Member>,
}

/// A member of a group.
#[derive(Clone, Debug)]
pub(super) struct Member {
    pub(super) id: String,
    pub(super) instance_id: Option<String>,
    pub(super) client_id: String,
    /// Address, after a slash.
    pub(super) host: String,
    /// Topics that it wants; none where it is not known how to read them.
    pub(super) subscription: Vec<String>,
    /// Ascending.
    pub(super) assignment: Vec<Partition>,
}

impl Group {
    /// Whether offsets may be changed from outside, as Kafka's tools allow it; a group that does not exist is dead.
    pub(super) fn is_inactive(&self) -> bool {
        self.state == "Empty" || self.is_dead()
    }

    pub(super) fn is_dead(&self) -> bool {
        self.state == "Dead"
    }
}

/// All groups, by name: each broker lists those that it coordinates.
pub(super) async fn listed(client: &mut Client) -> Result<BTreeMap<String, Listed>, CommandError> {
    let listed = client.retry(async |client| {
        let mut groups = BTreeMap::new();
        let brokers: Vec<i32> = client.cluster().brokers.keys().copied().collect();
        for broker in brokers {
            groups.extend(list(client, broker).await?);
        }
        Ok(groups)
    });
    Ok(listed.await?)
}

async fn list(client: &mut Client, broker: i32) -> Result<Vec<(String, Listed)>, ClientError> {
    let request = ListGroupsRequest::default();
    let answer = client.call(Target::Broker(broker), &request).await?;
    let response: ListGroupsResponse<'_> = answer.decode()?;
    ClientError::check(response.error_code, None, || {
        format!("the groups of broker {broker}")
    })?;
    let groups = response.groups.iter().map(|group| {
        let listed = Listed {
            state: Some(group.group_state.to_string()).filter(|state| !state.is_empty()),
            protocol_type: group.protocol_type.to_string(),
            coordinator: broker,
        };
        (group.group_id.to_string(), listed)
    });
    Ok(groups.collect())
}

/// Asks for the states that an old broker does not list.
pub(super) async fn add_states(
    client: &mut Client,
    groups: &mut BTreeMap<String, Listed>,
) -> Result<(), CommandError> {
    let mut coordinators = Coordinators::new();
    for (name, group) in groups.iter() {
        coordinators
            .entry(group.coordinator)
            .or_default()
            .push(name.clone());
    }
    for (name, group) in described(client, &coordinators).await? {
        if let (Some(listed), Ok(group)) = (groups.get_mut(&name), group) {
            listed.state = Some(group.state);
        }
    }
    Ok(())
}

pub(super) type Groups = BTreeMap<String, Result<Group, ClientError>>;

pub(super) async fn described(
    client: &mut Client,
    coordinators: &Coordinators,
) -> Result<Groups, CommandError> {
    let mut groups = Groups::new();
    for (&coordinator, names) in coordinators {
        let requests: Vec<DescribeGroupsRequest<'_>> = names
            .chunks(BATCH_LENGTH)
            .map(|names| DescribeGroupsRequest {
                groups: names.iter().map(Into::into).collect(),
                include_authorized_operations: false,
            })
            .collect();
        let found = client.retry(async |client| {
            let answers = client.call_all(Target::Broker(coordinator), &requests).await?;
            let mut found = Groups::new();
            for answer in &answers {
                let response: DescribeGroupsResponse<'_> = answer.decode()?;
                for group in &response.groups {
                    let name = group.group_id.to_string();
                    let checked = ClientError::check(group.error_code, None, || format!("group {name}"));
                    // One that is being loaded or moves is worth to be asked again.
                    if let Err(error) = &checked
                        && error.is_retriable()
                    {
                        return Err(checked.expect_err("it was an error just now"));
                    }
                    found.insert(name, checked.map(|()| of_wire(&group, coordinator)));
                }
            }
            Ok(found)
        });
        groups.extend(found.await?);
    }
    Ok(groups)
}

fn of_wire(group: &DescribedGroup<'_>, coordinator: i32) -> Group {
    let is_of_consumers = group.protocol_type == CONSUMER;
    Group {
        state: group.group_state.to_string(),
        protocol_type: group.protocol_type.to_string(),
        protocol: group.protocol_data.to_string(),
        coordinator,
        members: group
            .members
            .iter()
            .map(|member| member_of_wire(&member, is_of_consumers))
            .collect(),
    }
}

/// Only consumers' bytes are known; what cannot be read is as if it were not there, as in Kafka's tools.
fn member_of_wire(member: &DescribedGroupMember<'_>, is_consumer: bool) -> Member {
    let mut subscription = Vec::new();
    let mut assignment = Vec::new();
    if is_consumer {
        if let Ok(read) = ConsumerProtocolSubscription::decode(&member.member_metadata) {
            subscription.extend(read.topics.iter().map(|topic| topic.to_string()));
        }
        if let Ok(read) = ConsumerProtocolAssignment::decode(&member.member_assignment) {
            for topic in &read.assigned_partitions {
                assignment.extend(
                    topic
                        .partitions
                        .iter()
                        .map(|number| (topic.topic.to_string(), number)),
                );
            }
        }
    }
    subscription.sort();
    assignment.sort();
    Member {
        id: member.member_id.to_string(),
        instance_id: member.group_instance_id.as_deref().map(str::to_owned),
        client_id: member.client_id.to_string(),
        host: member.client_host.to_string(),
        subscription,
        assignment,
    }
}

#[cfg(test)]
mod tests {
    use milena_server::protocol::Writer;

    use super::*;

    #[test]
    fn the_bytes_of_consumers_are_read_and_those_of_others_are_not() {
        let mut writer = Writer::new();
        let assigned = ConsumerProtocolAssignment {
            assigned_partitions: vec![
                milena_server::protocol::messages::consumer_protocol::TopicPartition {
                    topic: "b".into(),
                    partitions: vec![1, 0].into(),
                },
                milena_server::protocol::messages::consumer_protocol::TopicPartition {
                    topic: "a".into(),
                    partitions: vec![3].into(),
                },
            ]
            .into(),
            user_data: None,
        };
        assigned.encode(&mut writer, 1).unwrap();
        let member = DescribedGroupMember {
            member_id: "m".into(),
            member_metadata: b"\0"[..].into(),
            member_assignment: writer.as_slice().into(),
            ..Default::default()
        };
        let read = member_of_wire(&member, true);
        let expected = [("a", 3), ("b", 0), ("b", 1)].map(|(topic, number)| (topic.to_owned(), number));
        assert_eq!(read.assignment, expected);
        assert!(read.subscription.is_empty());
        assert!(member_of_wire(&member, false).assignment.is_empty());
    }
}
