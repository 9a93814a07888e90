//! How offsets and groups end: expiry (KIP-211), OffsetDelete, DeleteGroups, deleted topics.
//!
//! All take the same way: tombstones are appended, and once they are in the log, what was committed before them leaves memory. A
//! removal so has its place in the log, and a commit that crosses it is kept or lost as it would be after a reload. A group
//! that is empty and has nothing left goes with its last offset.
//!
//! | group | an offset expires |
//! |---|---|
//! | empty, had members | `offsets.retention.minutes` after the group became empty (after its commit, if that is not recorded) |
//! | stable consumers | that long after its commit, unless a member is subscribed to the topic |
//! | only stores offsets | that long after its commit |
//! | anything else | never |
//!
//! An offset with an expire timestamp of its own goes by that in all but the last row; pending and transactional offsets never
//! expire.
//!
//! **Deviation:** in 2.7.2 offsets of consumer groups also expire during a rebalance, when subscriptions are in flux
//! (KAFKA-13636).
//!
//! **Deviation:** DeleteGroups and OffsetDelete answer once the tombstones are replicated, and with an error if they
//! could not be; 2.7.2 answers success once it has tried to write them.
//!
//! Source: `cleanupGroupMetadata` in `GroupMetadataManager.scala`, `removeExpiredOffsets` in `GroupMetadata.scala`,
//! `handleDeleteGroups`, `handleDeleteOffsets`, `handleDeletedPartitions` in `GroupCoordinator.scala`.

use super::super::offsets::AgeSince;
use super::super::records::{group_key, offset_key};
use super::appending::group_error;
use super::*;

/// How many bytes of keys one batch of tombstones carries, at the most: well below the default `max.message.bytes` of 1 MB.
const TOMBSTONE_BATCH_SIZE_BYTES: usize = 256 * 1024;

/// Tombstones on their way to the log.
#[derive(Debug)]
pub(super) struct PendingRemoval {
    group_id: Arc<str>,
    partitions: Vec<TopicPartition>,
    /// The request that waits for it.
    pub(super) deletion: Option<Token>,
    /// An administrator deleted the group: who was about to join must start anew.
    drops_pending_members: bool,
}

/// A DeleteGroups or OffsetDelete under way.
#[derive(Debug)]
pub(super) struct Deletion {
    batches_left: usize,
    error: Option<GroupError>,
    /// The results of OffsetDelete, where those to be deleted say so; `None` for DeleteGroups.
    partitions: Option<Vec<Result<(), GroupError>>>,
}

impl Turn<'_> {
    /// Keeps the search for expired offsets going while there are groups. All machines search at the same moments, so that
    /// the broker wakes up once for all.
    pub(super) fn schedule_expiry(&mut self) {
        if self.core.expiry.is_none() {
            let interval_ms = self.core.config.offsets_retention_check_interval_ms.max(1);
            let at_ms = (self.now.monotonic_ms.div_euclid(interval_ms) + 1).saturating_mul(interval_ms);
            self.core.expiry = Some(self.core.timers.set(at_ms, Timer::Expiry));
        }
    }

    pub(super) fn expire(&mut self, groups: &mut Groups) {
        self.core.expiry = None;
        let retention_ms = self.core.config.offsets_retention_ms;
        let mut expired_count = 0;
        for group_id in groups.keys().cloned().collect::<Vec<_>>() {
            let Some(group) = groups.get_mut(&group_id) else {
                continue;
            };
            let expired = expired_offsets(group, self.now.wall, retention_ms);
            expired_count += expired.len();
            self.remove_offsets(groups, &group_id, expired, None, false);
        }
        if expired_count > 0 {
            self.info(format!(
                "partition {}: {expired_count} offsets have expired",
                self.core.partition
            ));
        }
        if !groups.is_empty() {
            self.schedule_expiry();
        }
    }

    pub(super) fn partitions_deleted(&mut self, groups: &mut Groups, partitions: &[TopicPartition]) {
        if self.core.owned_epoch().is_none() {
            return;
        }
        for group_id in groups.keys().cloned().collect::<Vec<_>>() {
            let Some(group) = groups.get_mut(&group_id) else {
                continue;
            };
            let known: Vec<_> = partitions
                .iter()
                .filter(|p| group.offsets.knows(p))
                .cloned()
                .collect();
            if !known.is_empty() {
                self.remove_offsets(groups, &group_id, known, None, false);
            }
        }
    }

    pub(super) fn delete_group(&mut self, groups: &mut Groups, token: Token, group_id: &Arc<str>) {
        let result = match (self.core.check_available(), groups.get(group_id)) {
            (Err(error), _) => Err(error),
            (Ok(()), None) => Err(GroupError::GroupIdNotFound),
            (Ok(()), Some(group)) if !group.is(GroupState::Empty) => Err(GroupError::NonEmptyGroup),
            (Ok(()), Some(group)) => Ok(group.offsets.known_partitions()),
        };
        match result {
            Err(error) => self.answer(token, Answer::DeleteGroup(Err(error))),
            Ok(partitions) => {
                let deletion = Deletion {
                    batches_left: 0,
                    error: None,
                    partitions: None,
                };
                self.core.deletions.insert(token, deletion);
                self.info(format!(
                    "group {group_id} is deleted on request, with {} offsets",
                    partitions.len()
                ));
                self.remove_offsets(groups, group_id, partitions, Some(token), true);
            }
        }
    }

    pub(super) fn delete_offsets(
        &mut self,
        groups: &mut Groups,
        token: Token,
        group_id: &Arc<str>,
        partitions: Vec<TopicPartition>,
    ) {
        let checked = match (self.core.check_named(group_id), groups.get(group_id)) {
            (Err(error), _) => Err(error),
            (Ok(()), None) => Err(GroupError::GroupIdNotFound),
            (Ok(()), Some(group)) if group.is(GroupState::Empty) => Ok(vec![Ok(()); partitions.len()]),
            (Ok(()), Some(group)) if group.is_consumer_group() => {
                let check = |partition: &TopicPartition| {
                    let is_consumed = group.is_subscribed_to(&partition.topic);
                    if is_consumed {
                        Err(GroupError::GroupSubscribedToTopic)
                    } else {
                        Ok(())
                    }
                };
                Ok(partitions.iter().map(check).collect::<Vec<_>>())
            }
            (Ok(()), Some(_)) => Err(GroupError::NonEmptyGroup),
        };
        match checked {
            Err(error) => self.answer(token, Answer::DeleteOffsets(Err(error))),
            Ok(results) => {
                let group = groups.get(group_id);
                let known = partitions
                    .into_iter()
                    .zip(&results)
                    .filter(|(partition, result)| {
                        result.is_ok() && group.is_some_and(|group| group.offsets.knows(partition))
                    });
                let known = known.map(|(partition, _)| partition).collect();
                let is_any_deleted = results.iter().any(Result::is_ok);
                let deletion = Deletion {
                    batches_left: 0,
                    error: None,
                    partitions: Some(results),
                };
                self.core.deletions.insert(token, deletion);
                if is_any_deleted {
                    self.remove_offsets(groups, group_id, known, Some(token), false);
                } else {
                    self.deletion_done(token, Ok(()));
                }
            }
        }
    }

    /// Sends tombstones for the partitions, and for the group if nothing would be left of it.
    fn remove_offsets(
        &mut self,
        groups: &mut Groups,
        group_id: &Arc<str>,
        partitions: Vec<TopicPartition>,
        deletion: Option<Token>,
        is_deletion_of_group: bool,
    ) {
        let Some(group) = groups.get_mut(group_id) else {
            return;
        };
        let goes = group.is(GroupState::Empty)
            && (is_deletion_of_group
                || group.pending_members.is_empty() && group.offsets.is_empty_without(&partitions));
        // A group that never had a generation never had a record.
        let has_record = group.generation_id > 0;
        let mut batches = Vec::new();
        let mut batch = TombstoneBatch::default();
        for partition in partitions {
            // What is too long for a key was never written.
            if let Ok(key) = offset_key(group_id, &partition) {
                batch.push(key, Some(partition));
                if batch.size_bytes >= TOMBSTONE_BATCH_SIZE_BYTES {
                    batches.push(std::mem::take(&mut batch));
                }
            }
        }
        if goes
            && has_record
            && let Ok(key) = group_key(group_id)
        {
            batch.push(key, None);
        }
        if !batch.records.is_empty() {
            batches.push(batch);
        }
        if let Some(deletion) = deletion.and_then(|token| self.core.deletions.get_mut(&token)) {
            deletion.batches_left = batches.len();
        }
        if batches.is_empty() {
            if goes {
                self.drop_if_vacant(groups, group_id, is_deletion_of_group);
            }
            if let Some(token) = deletion {
                self.deletion_done(token, Ok(()));
            }
            return;
        }
        for batch in batches {
            group.offsets.prepare_removal(&batch.partitions, true);
            let removal = PendingRemoval {
                group_id: group_id.clone(),
                partitions: batch.partitions,
                deletion,
                drops_pending_members: is_deletion_of_group,
            };
            self.append(batch.records, None, Purpose::Removal(removal));
        }
    }

    pub(super) fn removal_appended(
        &mut self,
        groups: &mut Groups,
        removal: PendingRemoval,
        result: Result<Offset, AppendFailure>,
        is_current: bool,
    ) {
        let answer = result
            .as_ref()
            .map(|_| ())
            .map_err(|failure| match group_error(failure) {
                GroupError::RebalanceInProgress => GroupError::RequestTimedOut,
                other => other,
            });
        if is_current && let Some(group) = groups.get_mut(&removal.group_id) {
            match result {
                Ok(batch_offset) => {
                    group.offsets.settle_removal(&removal.partitions, batch_offset);
                    self.drop_if_vacant(groups, &removal.group_id, removal.drops_pending_members);
                }
                Err(failure) => {
                    group.offsets.prepare_removal(&removal.partitions, false);
                    self.warn(format!(
                        "group {}: {} tombstones could not be written ({failure}); what they were for stays",
                        removal.group_id,
                        removal.partitions.len()
                    ));
                }
            }
        }
        if let Some(token) = removal.deletion {
            self.deletion_done(token, answer);
        }
    }

    /// One batch of a deletion is done, or the deletion cannot wait longer; the last one answers.
    pub(super) fn deletion_done(&mut self, token: Token, result: Result<(), GroupError>) {
        let Some(deletion) = self.core.deletions.get_mut(&token) else {
            return;
        };
        deletion.batches_left = deletion.batches_left.saturating_sub(1);
        deletion.error = deletion.error.or(result.err());
        let is_overdue = result == Err(GroupError::RequestTimedOut);
        if deletion.batches_left > 0 && !is_overdue {
            return;
        }
        let Some(deletion) = self.core.deletions.remove(&token) else {
            return;
        };
        let result = deletion.error.map_or(Ok(()), Err);
        let answer = match deletion.partitions {
            None => Answer::DeleteGroup(result),
            Some(partitions) => {
                let one = |partition: Result<(), GroupError>| partition.and(result);
                Answer::DeleteOffsets(Ok(partitions.into_iter().map(one).collect()))
            }
        };
        self.answer(token, answer);
    }

    /// Forgets a group of which nothing is left.
    fn drop_if_vacant(&mut self, groups: &mut Groups, group_id: &Arc<str>, drops_pending_members: bool) {
        let Some(group) = groups.get_mut(group_id) else {
            return;
        };
        if drops_pending_members && group.is(GroupState::Empty) {
            for (_, mut timer) in std::mem::take(&mut group.pending_members) {
                self.core.timers.cancel(&mut timer);
            }
        }
        if group.is_vacant() {
            group.transition_to(GroupState::Dead, self.now.wall);
            self.cancel_timers(group);
            let generation_id = group.generation_id;
            groups.remove(group_id);
            self.info(format!("group {group_id} is gone in generation {generation_id}"));
        }
    }
}

#[derive(Default)]
struct TombstoneBatch {
    records: Vec<CoordinatorRecord>,
    partitions: Vec<TopicPartition>,
    size_bytes: usize,
}

impl TombstoneBatch {
    fn push(&mut self, key: Bytes, partition: Option<TopicPartition>) {
        self.size_bytes += key.len();
        self.records.push(CoordinatorRecord { key, value: None });
        self.partitions.extend(partition);
    }
}

fn expired_offsets(group: &Group, now: TimestampMs, retention_ms: i64) -> Vec<TopicPartition> {
    let nothing = BTreeSet::new();
    let (since, subscribed) = match (&group.protocol_type, group.state(), &group.subscribed_topics) {
        (Some(_), GroupState::Empty, _) => (
            group.state_since.map_or(AgeSince::Commit, AgeSince::Moment),
            &nothing,
        ),
        (Some(_), GroupState::Stable, Some(subscribed)) if group.is_consumer_group() => {
            (AgeSince::Commit, subscribed)
        }
        (None, _, _) => (AgeSince::Commit, &nothing),
        _ => return Vec::new(),
    };
    group.offsets.expired(now, retention_ms, since, subscribed)
}
