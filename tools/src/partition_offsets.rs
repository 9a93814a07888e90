//! Partitions as the commands name them, by leader and by topic, and their offsets at a time.

use std::collections::BTreeMap;
use std::sync::Arc;

use milena_engine::units::TopicPartition;
use milena_server::client::{Client, ClientError, ClusterMetadata, IsolationLevel, OffsetSpec};
use milena_server::protocol::ErrorCode;

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

/// What each partition gave, or why it did not; of partitions that one broker leads the reason may be the same.
pub(crate) type ByPartition<T> = BTreeMap<Partition, Result<T, Arc<ClientError>>>;

pub(crate) type Offsets = ByPartition<Found>;

/// The offset of each partition at its timestamp, in the terms of ListOffsets.
pub(crate) async fn list_offsets(
    client: &mut Client,
    isolation: IsolationLevel,
    wanted: BTreeMap<Partition, i64>,
) -> Result<Offsets, CommandError> {
    let spec = |timestamp| match timestamp {
        -2 => OffsetSpec::Earliest,
        -1 => OffsetSpec::Latest,
        timestamp => OffsetSpec::Timestamp(timestamp),
    };
    let wanted = wanted
        .into_iter()
        .map(|((topic, number), timestamp)| (TopicPartition::new(topic, number), spec(timestamp)));
    let listed = client.list_offsets(&wanted.collect(), isolation).await?;
    let found = listed.into_iter().map(|(partition, listed)| {
        let found = listed.map(|listed| Found {
            offset: listed.offset,
            timestamp: Some(listed.timestamp).filter(|&ms| ms >= 0),
        });
        ((partition.topic.to_string(), partition.partition), found)
    });
    Ok(found.collect())
}

/// The partitions of each leader; those without one are refused.
pub(crate) fn by_leader<'p, T>(
    cluster: &ClusterMetadata,
    partitions: impl Iterator<Item = &'p Partition>,
    refused: &mut ByPartition<T>,
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
                refused.extend(refusal.err().map(|error| (partition.clone(), Err(error.into()))));
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
        let mut refused: ByPartition<()> = BTreeMap::new();
        let leaders = by_leader(&ClusterMetadata::default(), partitions.iter(), &mut refused);
        assert!(leaders.is_empty());
        let error = refused[&partitions[2]].as_ref().unwrap_err();
        assert_eq!(error.code(), Some(ErrorCode::UnknownTopicOrPartition));
    }
}
