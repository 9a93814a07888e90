//! ListOffsets for many partitions: one question per leader, tried again where leaders move, errors by partition.

use std::collections::BTreeMap;
use std::time::Duration;

use milena_server::client::{Client, ClientError, ClusterMetadata, Target, Topics};
use milena_server::protocol::ErrorCode;
use milena_server::protocol::messages::list_offsets::{
    ListOffsetPartition, ListOffsetRequest, ListOffsetResponse, ListOffsetTopic,
};

use crate::cluster_args::CommandError;

/// Topic and number.
pub(crate) type Partition = (String, i32);

/// What was found at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    /// None where no record is as late as that.
    pub(crate) offset: Option<i64>,
    /// Of the record, in milliseconds since 1970; none for the ends.
    pub(crate) timestamp: Option<i64>,
}

pub(crate) type Offsets = BTreeMap<Partition, Result<Found, ClientError>>;

/// Up to which record a question looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Isolation {
    ReadUncommitted = 0,
    ReadCommitted = 1,
}

/// Pauses before further attempts.
const PAUSES_MS: [u64; 3] = [100, 200, 400];

/// The offset of each partition at its timestamp, in the terms of ListOffsets.
pub(crate) async fn list_offsets(
    client: &mut Client,
    isolation: Isolation,
    wanted: BTreeMap<Partition, i64>,
) -> Result<Offsets, CommandError> {
    let mut found = Offsets::new();
    let mut left = wanted;
    let mut pauses = PAUSES_MS.iter();
    loop {
        let topics = named(left.keys());
        let cluster = client.metadata(Topics::Named(&topics)).await?;
        found.extend(ask(client, isolation, &cluster, &left).await);
        left.retain(|partition, _| match found.get(partition) {
            Some(Err(ClientError::Refused { code, .. })) => {
                code.is_retriable() && *code != ErrorCode::UnknownTopicOrPartition
            }
            Some(Err(ClientError::Disconnected { .. })) => true,
            _ => false,
        });
        match pauses.next() {
            Some(pause) if !left.is_empty() => tokio::time::sleep(Duration::from_millis(*pause)).await,
            _ => return Ok(found),
        }
    }
}

/// Each topic once.
fn named<'p>(partitions: impl Iterator<Item = &'p Partition>) -> Vec<String> {
    let mut topics: Vec<String> = partitions.map(|(topic, _)| topic.clone()).collect();
    topics.dedup();
    topics
}

/// One attempt: each leader is asked once.
async fn ask(
    client: &mut Client,
    isolation: Isolation,
    cluster: &ClusterMetadata,
    wanted: &BTreeMap<Partition, i64>,
) -> Offsets {
    let mut found = Offsets::new();
    let by_leader = by_leader(cluster, wanted.keys(), &mut found);
    for (leader, partitions) in by_leader {
        let request = request(isolation, &partitions, wanted);
        match answer(client, leader, &request).await {
            Ok(offsets) => found.extend(offsets),
            // What is wrong with the broker is wrong with its partitions.
            Err(error) => {
                let told = |partition: &&Partition| ((*partition).clone(), Err(again(&error)));
                found.extend(partitions.iter().map(told));
            }
        }
    }
    found
}

/// The partitions of each leader; those without one are refused.
pub(crate) fn by_leader<'p, T>(
    cluster: &ClusterMetadata,
    partitions: impl Iterator<Item = &'p Partition>,
    refused: &mut BTreeMap<Partition, Result<T, ClientError>>,
) -> BTreeMap<i32, Vec<&'p Partition>> {
    let mut by_leader: BTreeMap<i32, Vec<&Partition>> = BTreeMap::new();
    for partition in partitions {
        let (topic, number) = partition;
        let is_there = cluster
            .topics
            .get(topic)
            .and_then(|topic| topic.partition(*number))
            .is_some();
        match cluster.leader(topic, *number) {
            Some(leader) => by_leader.entry(leader).or_default().push(partition),
            None => {
                let code = if is_there {
                    ErrorCode::LeaderNotAvailable
                } else {
                    ErrorCode::UnknownTopicOrPartition
                };
                let refusal = ClientError::check(code.code(), None, || format!("{topic}-{number}"));
                refused.extend(refusal.err().map(|error| (partition.clone(), Err(error))));
            }
        }
    }
    by_leader
}

/// Runs of one topic, in the order of a sorted list.
pub(crate) fn by_topic<'p>(partitions: &[&'p Partition]) -> Vec<(&'p str, Vec<i32>)> {
    let mut topics: Vec<(&str, Vec<i32>)> = Vec::new();
    for (topic, number) in partitions {
        match topics.last_mut() {
            Some((last, numbers)) if last == topic => numbers.push(*number),
            _ => topics.push((topic, vec![*number])),
        }
    }
    topics
}

fn request<'p>(
    isolation: Isolation,
    partitions: &[&'p Partition],
    wanted: &BTreeMap<Partition, i64>,
) -> ListOffsetRequest<'p> {
    let topics = by_topic(partitions)
        .into_iter()
        .map(|(topic, numbers)| ListOffsetTopic {
            name: topic.into(),
            partitions: numbers
                .into_iter()
                .map(|number| ListOffsetPartition {
                    partition_index: number,
                    timestamp: wanted.get(&(topic.to_owned(), number)).copied().unwrap_or(-1),
                    ..Default::default()
                })
                .collect(),
        });
    ListOffsetRequest {
        replica_id: -1,
        isolation_level: isolation as i8,
        topics: topics.collect(),
    }
}

async fn answer(
    client: &mut Client,
    leader: i32,
    request: &ListOffsetRequest<'_>,
) -> Result<Offsets, ClientError> {
    let answer = client.call(Target::Broker(leader), request).await?;
    let response: ListOffsetResponse<'_> = answer.decode()?;
    let mut found = Offsets::new();
    for topic in &response.topics {
        for partition in &topic.partitions {
            let name = || format!("{}-{}", topic.name, partition.partition_index);
            let checked = ClientError::check(partition.error_code, None, name);
            // Version 0 has a list, without times.
            let offset = match answer.version() {
                0 => partition.old_style_offsets.first(),
                _ => Some(partition.offset),
            };
            let offsets = checked.map(|()| Found {
                offset: offset.filter(|&offset| offset >= 0),
                timestamp: Some(partition.timestamp).filter(|&ms| ms >= 0),
            });
            found.insert((topic.name.to_string(), partition.partition_index), offsets);
        }
    }
    Ok(found)
}

/// The same error once more, as far as its text tells.
pub(crate) fn again(error: &ClientError) -> ClientError {
    match error {
        ClientError::Disconnected { address, .. } => ClientError::Disconnected {
            address: address.clone(),
            source: None,
        },
        ClientError::Refused { what, code, message } => ClientError::Refused {
            what: what.clone(),
            code: *code,
            message: message.clone(),
        },
        other => ClientError::Refused {
            what: other.to_string(),
            code: ErrorCode::NetworkException,
            message: None,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_are_gathered_by_leader_and_topic_and_those_without_leader_are_refused() {
        let partitions: Vec<Partition> = [("a", 0), ("a", 1), ("b", 0)]
            .map(|(t, n)| (t.to_owned(), n))
            .into();
        let all: Vec<&Partition> = partitions.iter().collect();
        assert_eq!(by_topic(&all), [("a", vec![0, 1]), ("b", vec![0])]);
        let mut refused: BTreeMap<Partition, Result<(), ClientError>> = BTreeMap::new();
        let leaders = by_leader(&ClusterMetadata::default(), partitions.iter(), &mut refused);
        assert!(leaders.is_empty());
        let error = refused[&partitions[2]].as_ref().unwrap_err();
        assert_eq!(error.code(), Some(ErrorCode::UnknownTopicOrPartition));
        assert_eq!(named(partitions.iter()), ["a", "b"]);
    }
}
