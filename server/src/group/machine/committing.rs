//! OffsetCommit and the offsets of transactions.
//!
//! A commit is checked against the group, appended, and counts in memory once the append has succeeded. Source:
//! `doCommitOffsets`, `doTxnCommitOffsets` in `GroupCoordinator.scala`, `storeOffsets` in `GroupMetadataManager.scala`.

use super::super::records::{FieldTooLong, offset_key, offset_value};
use super::appending::commit_error;
use super::syncing::check_member;
use super::*;

/// Offsets on their way to the log.
#[derive(Debug)]
pub(super) struct PendingCommit {
    /// Who still waits to hear of it.
    pub(super) token: Option<Token>,
    group_id: Arc<str>,
    transaction: Option<(ProducerId, ProducerEpoch)>,
    /// Those that are stored.
    offsets: Vec<(TopicPartition, OffsetAndMetadata)>,
    /// For each offset of the request, in its order, whether it is stored; the others have too much metadata.
    is_stored: Vec<bool>,
}

impl PendingCommit {
    /// The answer if storing gives `result`.
    pub(super) fn results(&self, result: Result<(), GroupError>) -> CommitResult {
        let one = |is_stored: &bool| {
            if *is_stored {
                result
            } else {
                Err(GroupError::OffsetMetadataTooLarge)
            }
        };
        self.is_stored.iter().map(one).collect()
    }
}

impl Turn<'_> {
    pub(super) fn commit(&mut self, groups: &mut Groups, token: Token, request: CommitOffsets) {
        if let Err(error) = self.check_commit(groups, &request) {
            let results = vec![Err(error); request.offsets.len()];
            return self.answer(token, Answer::Commit(results));
        }
        let config = &self.core.config;
        let fits = |value: &OffsetAndMetadata| {
            value.metadata.encode_utf16().count() <= config.offset_metadata_max_bytes
                && value.metadata.len() <= i16::MAX as usize
        };
        let is_stored: Vec<bool> = request.offsets.iter().map(|(_, value)| fits(value)).collect();
        let offsets: Vec<_> = request
            .offsets
            .into_iter()
            .zip(&is_stored)
            .filter(|(_, stored)| **stored)
            .map(|(offset, _)| offset)
            .collect();
        let transaction = request.transaction;
        let group = self.get_or_create(groups, &request.group_id);
        let commit = PendingCommit {
            token: Some(token),
            group_id: group.id.clone(),
            transaction,
            offsets,
            is_stored,
        };
        if commit.offsets.is_empty() {
            let results = commit.results(Ok(()));
            return self.answer(token, Answer::Commit(results));
        }
        let Ok(records) = offset_records(&group.id, &commit.offsets) else {
            let results = commit.results(Err(GroupError::UnknownServerError));
            return self.answer(token, Answer::Commit(results));
        };
        match transaction {
            None => commit
                .offsets
                .iter()
                .for_each(|(partition, _)| group.offsets.prepare(partition)),
            Some((producer_id, _)) => {
                for (partition, value) in &commit.offsets {
                    group
                        .offsets
                        .prepare_transactional(producer_id, partition, value.clone());
                }
                self.core
                    .open_groups
                    .entry(producer_id)
                    .or_default()
                    .insert(group.id.clone());
            }
        }
        self.append(records, transaction, Purpose::Commit(commit));
    }

    fn check_commit(&mut self, groups: &mut Groups, request: &CommitOffsets) -> Result<(), GroupError> {
        let instance_id = request.group_instance_id.as_ref();
        if request.transaction.is_some() {
            self.core.check_named(&request.group_id)?;
            let group = self.get_or_create(groups, &request.group_id);
            if group.is_static_member_fenced(&request.member_id, instance_id) {
                return Err(GroupError::FencedInstanceId);
            }
            if !request.member_id.is_empty() && !group.has(&request.member_id) {
                return Err(GroupError::UnknownMemberId);
            }
            if request.generation_id >= 0 && request.generation_id != group.generation_id {
                return Err(GroupError::IllegalGeneration);
            }
            return Ok(());
        }
        self.core.check_available()?;
        let is_simple = request.generation_id < 0;
        let Some(group) = groups.get_mut(&request.group_id) else {
            // Without a generation Kafka only keeps the offsets, and makes the group.
            return if is_simple {
                Ok(())
            } else {
                Err(GroupError::IllegalGeneration)
            };
        };
        if group.is_static_member_fenced(&request.member_id, instance_id) {
            return Err(GroupError::FencedInstanceId);
        }
        if is_simple && group.is(GroupState::Empty) {
            return Ok(());
        }
        let number = check_member(group, &request.member_id, instance_id, request.generation_id)?;
        match group.state() {
            // During a rebalance members commit what they have consumed; the heartbeat tells them to join again.
            GroupState::Stable | GroupState::PreparingRebalance => {
                self.renew_session(group, number);
                Ok(())
            }
            GroupState::CompletingRebalance => Err(GroupError::RebalanceInProgress),
            GroupState::Empty | GroupState::Dead => Err(GroupError::UnknownMemberId),
        }
    }

    pub(super) fn commit_appended(
        &mut self,
        groups: &mut Groups,
        mut commit: PendingCommit,
        result: Result<Offset, AppendFailure>,
        is_current: bool,
    ) {
        if let Some(token) = commit.token.take() {
            let results = commit.results(result.as_ref().map(|_| ()).map_err(commit_error));
            self.answer(token, Answer::Commit(results));
        }
        let Some(group) = groups.get_mut(&commit.group_id).filter(|_| is_current) else {
            return;
        };
        let batch_offset = result.ok();
        match commit.transaction {
            None => {
                for (partition, value) in commit.offsets {
                    group.offsets.settle(&partition, value, batch_offset);
                }
            }
            Some((producer_id, _)) => {
                for (partition, value) in commit.offsets {
                    group
                        .offsets
                        .settle_transactional(producer_id, &partition, &value, batch_offset);
                }
                if !group.offsets.producers().any(|open| open == producer_id) {
                    self.close_group(producer_id, &commit.group_id);
                }
            }
        }
    }

    fn close_group(&mut self, producer_id: ProducerId, group_id: &str) {
        if let Some(groups) = self.core.open_groups.get_mut(&producer_id) {
            groups.remove(group_id);
            if groups.is_empty() {
                self.core.open_groups.remove(&producer_id);
            }
        }
    }

    pub(super) fn transaction_completed(
        &mut self,
        groups: &mut Groups,
        producer_id: ProducerId,
        committed: bool,
    ) {
        if matches!(self.core.ownership, Ownership::Loading { .. }) {
            self.core.ended_meanwhile.push((producer_id, committed));
        }
        for group_id in self.core.open_groups.remove(&producer_id).unwrap_or_default() {
            if let Some(group) = groups.get_mut(&group_id) {
                group.offsets.complete_transaction(producer_id, committed);
            }
        }
    }
}

fn offset_records(
    group_id: &str,
    offsets: &[(TopicPartition, OffsetAndMetadata)],
) -> Result<Vec<CoordinatorRecord>, FieldTooLong> {
    let record = |(partition, value): &(TopicPartition, OffsetAndMetadata)| {
        Ok(CoordinatorRecord {
            key: offset_key(group_id, partition)?,
            value: Some(offset_value(value)?),
        })
    };
    offsets.iter().map(record).collect()
}
