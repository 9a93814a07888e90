//! Election, loading and resignation: when the groups of the partition are here.
//!
//! ```text
//!   Elsewhere ── elected ──▶ Loading ── loaded ──▶ Owned ── resigned, or stopped ──▶ Elsewhere
//!                               └── load failed, or resigned ──▶ Elsewhere
//! ```
//!
//! Each election and resignation carries the leader epoch of the partition, and one that is older than the last does nothing
//! (KAFKA-10614). The deletion of the partition resets that memory, because its successor starts from epoch 0.
//!
//! An election whose epoch follows directly on that of the partition being led or loaded continues the same reign: nobody else
//! led in between, and members notice nothing. After a gap somebody else may have, so the partition is loaded again.
//!
//! **Deviation:** 2.7.2 goes on with what it has after a gap, too.
//!
//! **Deviation:** a partition that cannot be read is not served at all (NOT_COORDINATOR); 2.7.2 serves it as if it were empty, so
//! that consumers fall back to `auto.offset.reset`.
//!
//! Source: `onElection`, `onResignation`, `onGroupLoaded`, `onGroupUnloaded` in `GroupCoordinator.scala`.

use super::*;

impl Turn<'_> {
    pub(super) fn elected(&mut self, groups: &mut Groups, epoch: i32) {
        if self.core.is_stopped || self.core.last_epoch.is_some_and(|last| epoch <= last) {
            return;
        }
        let is_continued = self.core.ownership != Ownership::Elsewhere
            && self
                .core
                .last_epoch
                .is_some_and(|last| epoch == last.wrapping_add(1));
        if is_continued {
            self.core.last_epoch = Some(epoch);
            return;
        }
        self.unload(groups);
        self.core.last_epoch = Some(epoch);
        self.core.ownership = Ownership::Loading { epoch };
        self.out.push(Output::Load { epoch });
    }

    pub(super) fn loaded(&mut self, groups: &mut Groups, epoch: i32, partition: LoadedPartition) {
        if self.core.ownership != (Ownership::Loading { epoch }) {
            return;
        }
        self.core.ownership = Ownership::Owned { epoch };
        for problem in partition.problems {
            self.warn(format!("__consumer_offsets-{}: {problem}", self.core.partition));
        }
        let mut offset_count = 0;
        for (group_id, loaded) in partition.groups {
            let (mut group, notice) = match loaded.metadata {
                Some(value) => Group::from_record(group_id.clone(), value),
                None => (Group::new(group_id.clone(), self.now.wall), None),
            };
            notice.into_iter().for_each(|notice| self.warn(notice));
            for producer_id in loaded.offsets.producers() {
                self.core
                    .open_groups
                    .entry(producer_id)
                    .or_default()
                    .insert(group_id.clone());
            }
            offset_count += loaded.offsets.committed_count();
            group.offsets = loaded.offsets;
            if group.len() > self.core.config.group_max_size {
                self.prepare_rebalance(
                    &mut group,
                    "the loaded group has more than group.max.size members",
                );
            }
            for number in group.numbers() {
                self.renew_session(&mut group, number);
            }
            groups.insert(group_id, group);
        }
        for (producer_id, committed) in std::mem::take(&mut self.core.ended_meanwhile) {
            self.transaction_completed(groups, producer_id, committed);
        }
        if !groups.is_empty() {
            self.schedule_expiry();
        }
        self.info(format!(
            "__consumer_offsets-{} is loaded in epoch {epoch}: {} groups, {offset_count} offsets",
            self.core.partition,
            groups.len()
        ));
    }

    pub(super) fn load_failed(&mut self, epoch: i32, failure: &AppendFailure) {
        if self.core.ownership != (Ownership::Loading { epoch }) {
            return;
        }
        self.core.ownership = Ownership::Elsewhere;
        self.log(
            LogLevel::Error,
            format!(
                "__consumer_offsets-{} cannot be loaded in epoch {epoch} ({failure}): its groups are not served by this \
                 broker until it is elected again",
                self.core.partition
            ),
        );
    }

    pub(super) fn resigned(&mut self, groups: &mut Groups, epoch: Option<i32>) {
        match epoch {
            Some(epoch) if self.core.last_epoch.is_some_and(|last| epoch < last) => return,
            Some(epoch) => self.core.last_epoch = Some(epoch),
            None => self.core.last_epoch = None,
        }
        self.unload(groups);
    }

    pub(super) fn stopped(&mut self, groups: &mut Groups) {
        self.unload(groups);
        self.core.is_stopped = true;
    }

    /// Forgets the groups; whoever waits for one is sent to look for its coordinator. Offsets on their way still get the
    /// answer of the log.
    fn unload(&mut self, groups: &mut Groups) {
        let was_owned = self.core.owned_epoch().is_some();
        self.core.ownership = Ownership::Elsewhere;
        self.core.open_groups.clear();
        self.core.ended_meanwhile.clear();
        self.core.timers.cancel(&mut self.core.expiry);
        let unloaded = std::mem::take(groups);
        if was_owned {
            self.info(format!(
                "__consumer_offsets-{} is unloaded: {} groups",
                self.core.partition,
                unloaded.len()
            ));
        }
        for (_, mut group) in unloaded {
            self.cancel_timers(&mut group);
            for number in group.numbers() {
                if let Some(token) = group.take_awaiting_join(number) {
                    let member_id = group
                        .member(number)
                        .map(|member| member.id.clone())
                        .unwrap_or_default();
                    let refusal = JoinRefusal {
                        error: GroupError::NotCoordinator,
                        member_id,
                    };
                    self.answer(token, Answer::Join(Err(refusal)));
                }
                if let Some(token) = group.take_awaiting_sync(number) {
                    self.answer(token, Answer::Sync(Err(GroupError::NotCoordinator)));
                }
            }
            group.transition_to(GroupState::Dead, self.now.wall);
        }
    }
}
