//! CreatePartitions: more partitions for a topic that is there.
//!
//! The assignment node is replaced on condition that nobody has changed it since it was read. Partitions are never taken away.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{TopicAdmin, has_leaders, in_time, joined};
use crate::admin::assignment::{PARTITION_COUNT_MAX, RackAwareness, Start, assign_replicas};
use crate::admin::check_topic_name;
use crate::admin::error::{AdminError, AdminErrorKind};
use crate::coordination::znodes::{self, ReplicaAssignment, TopicAssignment};
use crate::coordination::{CoordinationError, ExpectedVersion};
use crate::metadata_cache::MetadataSnapshot;

/// Partitions to be added.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewPartitions {
    pub topic: String,
    /// How many the topic shall have in all.
    pub total_count: i32,
    /// Replicas of each new partition; `None` for automatic placement.
    pub assignments: Option<Vec<Vec<i32>>>,
}

impl TopicAdmin {
    /// Adds partitions and waits until they have leaders; an answer for each topic, in order. Names must not repeat.
    pub async fn create_partitions(
        &self,
        timeout_ms: i32,
        validate_only: bool,
        topics: &[NewPartitions],
    ) -> Vec<Result<(), AdminError>> {
        let mut answers = Vec::with_capacity(topics.len());
        for topic in topics {
            answers.push(self.grow_topic(topic, validate_only).await);
        }
        if validate_only {
            return answers;
        }
        let grown: Vec<&NewPartitions> = topics
            .iter()
            .zip(&answers)
            .filter(|(_, answer)| answer.is_ok())
            .map(|(topic, _)| topic)
            .collect();
        if timeout_ms > 0 {
            let led = |now: &MetadataSnapshot| {
                grown
                    .iter()
                    .all(|topic| has_leaders(now, &topic.topic, topic.total_count))
            };
            self.wait_until(timeout_ms, led).await;
        }
        let now = self.metadata.snapshot();
        let is_led = |topic: &NewPartitions| has_leaders(&now, &topic.topic, topic.total_count);
        topics
            .iter()
            .zip(answers)
            .map(|(topic, answer)| in_time(timeout_ms, answer, |()| is_led(topic)))
            .collect()
    }

    async fn grow_topic(&self, wanted: &NewPartitions, validate_only: bool) -> Result<(), AdminError> {
        use AdminErrorKind::{InvalidPartitions, InvalidReplicaAssignment};
        let refuse = |kind, message: String| Err(AdminError::new(kind, message));
        let topic = wanted.topic.as_str();
        let path = znodes::topic(topic);
        let unknown = || {
            let message = format!("The topic '{topic}' does not exist.");
            AdminError::new(AdminErrorKind::UnknownTopicOrPartition, message)
        };
        if check_topic_name(topic).is_err() {
            return Err(unknown());
        }
        if self
            .coordination
            .get(&znodes::delete_topic(topic), None)
            .await?
            .is_some()
        {
            return refuse(
                AdminErrorKind::InvalidTopic,
                "The topic is queued for deletion.".into(),
            );
        }
        let node = self.coordination.get(&path, None).await?.ok_or_else(unknown)?;
        let mut assignment = TopicAssignment::decode(&path, node.data.as_deref().unwrap_or_default())?;
        if assignment
            .partitions
            .values()
            .any(ReplicaAssignment::is_being_reassigned)
        {
            let message = format!("A partition reassignment is in progress for the topic '{topic}'.");
            return refuse(AdminErrorKind::ReassignmentInProgress, message);
        }
        let old_count = i32::try_from(assignment.partitions.len()).unwrap_or(i32::MAX);
        let total = wanted.total_count;
        if total < old_count {
            let message = format!(
                "Topic currently has {old_count} partitions, which is higher than the requested {total}."
            );
            return refuse(InvalidPartitions, message);
        }
        if total == old_count {
            return refuse(
                InvalidPartitions,
                format!("Topic already has {old_count} partitions."),
            );
        }
        if total > PARTITION_COUNT_MAX {
            let message = format!(
                "A topic cannot have more than {PARTITION_COUNT_MAX} partitions, requested were {total}."
            );
            return refuse(InvalidPartitions, message);
        }
        let added = total - old_count;
        let candidates = self.candidates();
        let Some(first) = assignment.partitions.get(&0).map(|one| Arc::clone(&one.replicas)) else {
            let message = format!(
                "Unexpected existing replica assignment for topic '{topic}', partition id 0 is missing."
            );
            return refuse(AdminErrorKind::UnknownServerError, message);
        };
        let new = match &wanted.assignments {
            None => {
                let preferred = first.first().copied().unwrap_or(0);
                let index = candidates
                    .iter()
                    .position(|broker| broker.id >= preferred)
                    .unwrap_or(0);
                let start = Start::Fixed {
                    index,
                    first_partition: old_count,
                };
                let factor = i32::try_from(first.len()).unwrap_or(i32::MAX);
                assign_replicas(&candidates, added, factor, RackAwareness::Enforced, start)?
            }
            Some(given) => {
                let alive: BTreeSet<i32> = candidates.iter().map(|broker| broker.id).collect();
                let named: BTreeSet<i32> = given.iter().flatten().copied().collect();
                let unknown: Vec<String> = named.difference(&alive).map(i32::to_string).collect();
                if !unknown.is_empty() {
                    let message = format!("Unknown broker(s) in replica assignment: {}.", unknown.join(", "));
                    return refuse(InvalidReplicaAssignment, message);
                }
                if given.len() != usize::try_from(added).unwrap_or(0) {
                    let message = format!(
                        "Increasing the number of partitions by {added} but {} assignments provided.",
                        given.len()
                    );
                    return refuse(InvalidReplicaAssignment, message);
                }
                let new: BTreeMap<i32, Vec<i32>> = (old_count..).zip(given.iter().cloned()).collect();
                check_new_replicas(&new, first.len())
                    .map_err(|message| AdminError::new(InvalidReplicaAssignment, message))?;
                new
            }
        };
        if validate_only {
            return Ok(());
        }
        let new = new
            .into_iter()
            .map(|(number, ids)| (number, ReplicaAssignment::new(ids)));
        assignment.partitions.extend(new);
        let data = assignment.encode();
        loop {
            let expected = ExpectedVersion::Exactly(node.stat.version);
            match self.coordination.set(&path, data.clone(), expected).await {
                Ok(_) => return Ok(()),
                Err(CoordinationError::ConnectionLoss | CoordinationError::BadVersion { .. }) => {}
                Err(CoordinationError::NoNode { .. }) => return Err(unknown()),
                Err(error) => return Err(error.into()),
            }
            let present = self.coordination.get(&path, None).await?.ok_or_else(unknown)?;
            if present.stat.version == node.stat.version {
                continue;
            }
            // It happened, and the answer was lost; or someone else changed the topic: the client looks again.
            return match present.data == Some(data) {
                true => Ok(()),
                false => {
                    let message = format!("Topic '{topic}' was changed by another request.");
                    refuse(AdminErrorKind::UnknownServerError, message)
                }
            };
        }
    }
}

/// Of partitions to be added by hand; partition 0 has `factor` replicas.
fn check_new_replicas(new: &BTreeMap<i32, Vec<i32>>, factor: usize) -> Result<(), String> {
    for (partition, ids) in new {
        if ids.is_empty() {
            return Err(format!(
                "Cannot have replication factor of 0 for partition id {partition}."
            ));
        }
        if ids.iter().collect::<BTreeSet<_>>().len() != ids.len() {
            return Err(format!(
                "Duplicate brokers not allowed in replica assignment: {} for partition id {partition}.",
                joined(ids)
            ));
        }
    }
    let bad: Vec<(&i32, &Vec<i32>)> = new.iter().filter(|(_, ids)| ids.len() != factor).collect();
    if bad.is_empty() {
        return Ok(());
    }
    let partitions: Vec<i32> = bad.iter().map(|(partition, _)| **partition).collect();
    let factors: Vec<usize> = bad.iter().map(|(_, ids)| ids.len()).collect();
    Err(format!(
        "Inconsistent replication factor between partitions, partition 0 has {factor} while partitions [{}] have \
         replication factors [{}], respectively.",
        joined(&partitions),
        joined(&factors)
    ))
}
