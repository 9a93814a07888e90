//! Appends to `__consumer_offsets`: what each will change, once its result is known.
//!
//! An append that does not answer within `offsets.commit.timeout.ms` is answered for: whoever waits is told, and groups take
//! it for failed. Offsets still follow the log when the result comes. A result under another reign than the append's
//! changes no group.

use super::committing::PendingCommit;
use super::joining::StaticReplacement;
use super::removing::PendingRemoval;
use super::*;

/// What an append under way will change.
#[derive(Debug)]
pub(super) enum Purpose {
    /// The leader's assignment of a generation.
    Assignment {
        group_id: Arc<str>,
        generation_id: i32,
        assignments: BTreeMap<MemberNumber, Bytes>,
    },
    /// A group that lost its last member.
    EmptyGroup {
        group_id: Arc<str>,
    },
    /// The new id of a static member.
    StaticMember(StaticReplacement),
    Commit(PendingCommit),
    Removal(PendingRemoval),
}

#[derive(Debug)]
pub(super) struct PendingAppend {
    /// Of the ownership it was made under; it changes nothing under another.
    pub(super) epoch: i32,
    pub(super) timer: Option<TimerId>,
    pub(super) purpose: Purpose,
}

impl Turn<'_> {
    /// Sends one batch on its way, with `offsets.commit.timeout.ms` to arrive.
    pub(super) fn append(
        &mut self,
        records: Vec<CoordinatorRecord>,
        transaction: Option<(ProducerId, ProducerEpoch)>,
        purpose: Purpose,
    ) {
        let id = AppendId(self.core.next_append);
        self.core.next_append += 1;
        let at_ms = self.after(i64::from(self.core.config.offsets_commit_timeout_ms));
        let timer = Some(self.core.timers.set(at_ms, Timer::Append(id)));
        let epoch = self
            .core
            .owned_epoch()
            .expect("only an owned partition is written to");
        self.core.appends.insert(
            id,
            PendingAppend {
                epoch,
                timer,
                purpose,
            },
        );
        self.out.push(Output::Append(AppendRequest {
            id,
            timestamp: self.now.wall,
            records,
            transaction,
        }));
    }

    pub(super) fn appended(
        &mut self,
        groups: &mut Groups,
        id: AppendId,
        result: Result<Offset, AppendFailure>,
    ) {
        let Some(mut append) = self.core.appends.remove(&id) else {
            return;
        };
        self.core.timers.cancel(&mut append.timer);
        let is_current = self.core.owned_epoch() == Some(append.epoch);
        match append.purpose {
            Purpose::Commit(commit) => self.commit_appended(groups, commit, result, is_current),
            Purpose::Removal(removal) => self.removal_appended(groups, removal, result, is_current),
            // Whoever waited for these was answered when the partition went.
            _ if !is_current => {}
            Purpose::Assignment {
                group_id,
                generation_id,
                assignments,
            } => {
                let result = result.map_err(|failure| group_error(&failure)).map(|_| ());
                self.assignment_stored(groups, &group_id, generation_id, assignments, result);
            }
            Purpose::StaticMember(replacement) => {
                let result = result.map_err(|failure| group_error(&failure)).map(|_| ());
                self.static_member_stored(groups, replacement, result);
            }
            Purpose::EmptyGroup { group_id } => {
                if let Err(failure) = result {
                    self.empty_group_not_stored(&group_id, &failure);
                }
            }
        }
    }

    pub(super) fn empty_group_not_stored(&mut self, group_id: &str, failure: &AppendFailure) {
        self.warn(format!(
            "group {group_id} is empty, but its record could not be written ({failure}): after a restart its last \
             members are expected until their sessions end"
        ));
    }

    /// An append has not answered in time: whoever waits is told; the result still counts for offsets when it comes.
    pub(super) fn append_overdue(&mut self, groups: &mut Groups, id: AppendId) {
        let Some(append) = self.core.appends.get_mut(&id) else {
            return;
        };
        append.timer = None;
        match &mut append.purpose {
            Purpose::Commit(commit) => {
                if let Some(token) = commit.token.take() {
                    let results = commit.results(Err(GroupError::RequestTimedOut));
                    self.answer(token, Answer::Commit(results));
                }
            }
            Purpose::Removal(removal) => {
                if let Some(token) = removal.deletion.take() {
                    self.deletion_done(token, Err(GroupError::RequestTimedOut));
                }
            }
            Purpose::Assignment { .. } | Purpose::StaticMember(_) | Purpose::EmptyGroup { .. } => {
                self.appended(groups, id, Err(AppendFailure::TimedOut));
            }
        }
    }
}

/// What a member hears when its group's record cannot be stored.
pub(super) fn group_error(failure: &AppendFailure) -> GroupError {
    match failure {
        AppendFailure::UnknownTopicOrPartition
        | AppendFailure::NotEnoughReplicas
        | AppendFailure::NotEnoughReplicasAfterAppend => GroupError::CoordinatorNotAvailable,
        AppendFailure::NotLeader | AppendFailure::Storage => GroupError::NotCoordinator,
        AppendFailure::TimedOut => GroupError::RebalanceInProgress,
        AppendFailure::TooLarge | AppendFailure::Other(_) => GroupError::UnknownServerError,
        AppendFailure::InvalidProducerEpoch => GroupError::InvalidProducerEpoch,
    }
}

/// What a client hears when its offsets cannot be stored.
pub(super) fn commit_error(failure: &AppendFailure) -> GroupError {
    match failure {
        AppendFailure::TimedOut => GroupError::RequestTimedOut,
        AppendFailure::TooLarge => GroupError::InvalidCommitOffsetSize,
        other => group_error(other),
    }
}
