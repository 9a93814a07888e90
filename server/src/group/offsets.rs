//! The committed offsets of one group, and those on their way.
//!
//! Memory follows the log: a commit counts once its batch has an offset in `__consumer_offsets`, and between two batches the
//! later in the log wins, in whichever order their results arrive. So a commit and a removal that cross end in memory as they
//! would after a reload. Offsets of an open transaction are kept apart until its marker. Knows no requests and no time but
//! timestamps. Source: the offset half of `GroupMetadata.scala`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use milena_engine::units::{Offset, ProducerId, TimestampMs, TopicPartition};

use super::requests::{FetchedOffset, OffsetAndMetadata};

/// A committed offset and where its record lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CommittedOffset {
    pub(super) value: OffsetAndMetadata,
    /// The first offset of its batch in `__consumer_offsets`.
    pub(super) batch_offset: Offset,
    /// A tombstone for it is on its way.
    pub(super) removing: bool,
}

/// Commits of one partition that are not in the log yet.
#[derive(Debug, Default)]
struct PendingCommits {
    count: usize,
    /// A tombstone that reached the log meanwhile: commits before it do not count.
    removed_at: Option<Offset>,
}

/// An offset of an open transaction; its batch has an offset once it is in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TransactionalOffset {
    pub(super) value: OffsetAndMetadata,
    pub(super) batch_offset: Option<Offset>,
}

/// The offsets of the open transactions, by producer.
pub(super) type TransactionalOffsets = BTreeMap<ProducerId, BTreeMap<TopicPartition, TransactionalOffset>>;

#[derive(Debug, Default)]
pub(super) struct GroupOffsets {
    committed: BTreeMap<TopicPartition, CommittedOffset>,
    pending: BTreeMap<TopicPartition, PendingCommits>,
    transactional: TransactionalOffsets,
}

/// When an offset without an expire timestamp of its own begins to age.
#[derive(Debug, Clone, Copy)]
pub(super) enum AgeSince {
    /// The offset's own commit.
    Commit,
    /// The moment the group became empty.
    Moment(TimestampMs),
}

impl GroupOffsets {
    /// What loading found.
    pub(super) fn loaded(
        committed: BTreeMap<TopicPartition, CommittedOffset>,
        transactional: TransactionalOffsets,
    ) -> GroupOffsets {
        GroupOffsets {
            committed,
            pending: BTreeMap::new(),
            transactional,
        }
    }

    /// Neither committed, nor pending, nor transactional offsets.
    pub(super) fn is_empty(&self) -> bool {
        self.committed.is_empty() && self.pending.is_empty() && self.transactional.is_empty()
    }

    pub(super) fn committed_count(&self) -> usize {
        self.committed.len()
    }

    pub(super) fn committed_partitions(&self) -> Vec<TopicPartition> {
        self.committed.keys().cloned().collect()
    }

    /// Partitions with a committed or pending offset: those that a removal of everything must name.
    pub(super) fn known_partitions(&self) -> Vec<TopicPartition> {
        let all: BTreeSet<_> = self.committed.keys().chain(self.pending.keys()).collect();
        all.into_iter().cloned().collect()
    }

    pub(super) fn knows(&self, partition: &TopicPartition) -> bool {
        self.committed.contains_key(partition) || self.pending.contains_key(partition)
    }

    pub(super) fn producers(&self) -> impl Iterator<Item = ProducerId> {
        self.transactional.keys().copied()
    }

    pub(super) fn fetch(&self, partition: &TopicPartition, require_stable: bool) -> FetchedOffset {
        if require_stable && self.is_unstable(partition) {
            return FetchedOffset::Unstable;
        }
        match self.committed.get(partition) {
            Some(committed) => FetchedOffset::Committed(committed.value.clone()),
            None => FetchedOffset::Absent,
        }
    }

    fn is_unstable(&self, partition: &TopicPartition) -> bool {
        self.pending.contains_key(partition)
            || self
                .transactional
                .values()
                .any(|offsets| offsets.contains_key(partition))
    }

    /// A commit of `partition` is on its way to the log.
    pub(super) fn prepare(&mut self, partition: &TopicPartition) {
        self.pending.entry(partition.clone()).or_default().count += 1;
    }

    /// A prepared commit reached the log at `batch_offset`, or failed if that is `None`.
    pub(super) fn settle(
        &mut self,
        partition: &TopicPartition,
        value: OffsetAndMetadata,
        batch_offset: Option<Offset>,
    ) {
        let mut removed_at = None;
        if let Some(pending) = self.pending.get_mut(partition) {
            removed_at = pending.removed_at;
            pending.count -= 1;
            if pending.count == 0 {
                self.pending.remove(partition);
            }
        }
        if let Some(batch_offset) = batch_offset
            && removed_at.is_none_or(|removed_at| removed_at < batch_offset)
        {
            self.put_newer(
                partition,
                CommittedOffset {
                    value,
                    batch_offset,
                    removing: false,
                },
            );
        }
    }

    fn put_newer(&mut self, partition: &TopicPartition, offset: CommittedOffset) {
        match self.committed.get_mut(partition) {
            Some(current) if current.batch_offset >= offset.batch_offset => {}
            Some(current) => *current = offset,
            None => {
                self.committed.insert(partition.clone(), offset);
            }
        }
    }

    /// An offset of a transaction is on its way to the log.
    pub(super) fn prepare_transactional(
        &mut self,
        producer_id: ProducerId,
        partition: &TopicPartition,
        value: OffsetAndMetadata,
    ) {
        let offsets = self.transactional.entry(producer_id).or_default();
        offsets.insert(
            partition.clone(),
            TransactionalOffset {
                value,
                batch_offset: None,
            },
        );
    }

    /// A prepared transactional offset reached the log at `batch_offset`, or failed if that is `None`.
    pub(super) fn settle_transactional(
        &mut self,
        producer_id: ProducerId,
        partition: &TopicPartition,
        value: &OffsetAndMetadata,
        batch_offset: Option<Offset>,
    ) {
        let Some(offsets) = self.transactional.get_mut(&producer_id) else {
            return;
        };
        let Some(prepared) = offsets
            .get_mut(partition)
            .filter(|prepared| prepared.value == *value)
        else {
            return;
        };
        match batch_offset {
            Some(_) => prepared.batch_offset = batch_offset,
            None => {
                offsets.remove(partition);
                if offsets.is_empty() {
                    self.transactional.remove(&producer_id);
                }
            }
        }
    }

    /// The marker of the producer's transaction is in the log: its offsets count, or vanish.
    pub(super) fn complete_transaction(&mut self, producer_id: ProducerId, committed: bool) {
        let offsets = self.transactional.remove(&producer_id).unwrap_or_default();
        if committed {
            for (partition, offset) in offsets {
                // One whose append has not succeeded is not part of what the marker commits.
                if let Some(batch_offset) = offset.batch_offset {
                    let offset = CommittedOffset {
                        value: offset.value,
                        batch_offset,
                        removing: false,
                    };
                    self.put_newer(&partition, offset);
                }
            }
        }
    }

    /// Marks partitions for which tombstones go to the log, so that no second ones follow.
    pub(super) fn prepare_removal(&mut self, partitions: &[TopicPartition], removing: bool) {
        for partition in partitions {
            if let Some(committed) = self.committed.get_mut(partition) {
                committed.removing = removing;
            }
        }
    }

    /// Tombstones reached the log at `batch_offset`: what was committed before them is gone. Returns how many offsets were.
    pub(super) fn settle_removal(&mut self, partitions: &[TopicPartition], batch_offset: Offset) -> usize {
        let mut removed_count = 0;
        for partition in partitions {
            if self
                .committed
                .get(partition)
                .is_some_and(|committed| committed.batch_offset < batch_offset)
            {
                self.committed.remove(partition);
                removed_count += 1;
            }
            if let Some(pending) = self.pending.get_mut(partition) {
                pending.removed_at = pending.removed_at.max(Some(batch_offset));
            }
            self.transactional.retain(|_, offsets| {
                if offsets
                    .get(partition)
                    .is_some_and(|offset| offset.batch_offset.is_some_and(|at| at < batch_offset))
                {
                    offsets.remove(partition);
                }
                !offsets.is_empty()
            });
        }
        removed_count
    }

    /// Offsets that have outlived `retention_ms` (or their own expire timestamp), except pending ones and those of topics in
    /// `subscribed`.
    pub(super) fn expired(
        &self,
        now: TimestampMs,
        retention_ms: i64,
        since: AgeSince,
        subscribed: &BTreeSet<Arc<str>>,
    ) -> Vec<TopicPartition> {
        let is_expired = |committed: &CommittedOffset| match committed.value.expire_timestamp {
            Some(expire_timestamp) => now >= expire_timestamp,
            None => {
                let since = match since {
                    AgeSince::Commit => committed.value.commit_timestamp,
                    AgeSince::Moment(moment) => moment,
                };
                now.get().saturating_sub(since.get()) >= retention_ms
            }
        };
        let expired = self.committed.iter().filter(|(partition, committed)| {
            !committed.removing
                && !subscribed.contains(&partition.topic)
                && !self.pending.contains_key(*partition)
                && is_expired(committed)
        });
        expired.map(|(partition, _)| partition.clone()).collect()
    }

    /// Whether nothing would be left without `partitions`.
    pub(super) fn is_empty_without(&self, partitions: &[TopicPartition]) -> bool {
        self.pending.is_empty()
            && self.transactional.is_empty()
            && self.committed.len() <= partitions.len()
            && {
                let gone: BTreeSet<&TopicPartition> = partitions.iter().collect();
                self.committed.keys().all(|partition| gone.contains(partition))
            }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(offset: i64) -> OffsetAndMetadata {
        OffsetAndMetadata {
            offset: Offset(offset),
            leader_epoch: None,
            metadata: "".into(),
            commit_timestamp: TimestampMs(0),
            expire_timestamp: None,
        }
    }

    fn t0() -> TopicPartition {
        TopicPartition::new("t", 0)
    }

    fn committed(offsets: &GroupOffsets) -> Option<i64> {
        match offsets.fetch(&t0(), false) {
            FetchedOffset::Committed(value) => Some(value.offset.get()),
            FetchedOffset::Absent => None,
            FetchedOffset::Unstable => panic!("not asked for"),
        }
    }

    #[test]
    fn the_later_commit_in_the_log_wins_whichever_result_arrives_first() {
        let mut offsets = GroupOffsets::default();
        offsets.prepare(&t0());
        offsets.prepare(&t0());
        offsets.settle(&t0(), value(20), Some(Offset(2)));
        offsets.settle(&t0(), value(10), Some(Offset(1)));
        assert_eq!(committed(&offsets), Some(20));
    }

    #[test]
    fn a_commit_that_fails_leaves_the_old_offset_and_is_unstable_until_then() {
        let mut offsets = GroupOffsets::default();
        offsets.prepare(&t0());
        offsets.settle(&t0(), value(10), Some(Offset(1)));
        offsets.prepare(&t0());
        assert_eq!(offsets.fetch(&t0(), true), FetchedOffset::Unstable);
        assert_eq!(committed(&offsets), Some(10));
        offsets.settle(&t0(), value(20), None);
        assert_eq!(offsets.fetch(&t0(), true), FetchedOffset::Committed(value(10)));
    }

    #[test]
    fn a_tombstone_takes_what_lies_before_it_in_the_log_and_nothing_after() {
        let mut offsets = GroupOffsets::default();
        offsets.prepare(&t0());
        offsets.prepare(&t0());
        assert_eq!(offsets.settle_removal(&[t0()], Offset(2)), 0);
        offsets.settle(&t0(), value(10), Some(Offset(1)));
        assert_eq!(committed(&offsets), None);
        offsets.settle(&t0(), value(30), Some(Offset(3)));
        assert_eq!(committed(&offsets), Some(30));
        assert_eq!(offsets.settle_removal(&[t0()], Offset(2)), 0);
        assert_eq!(offsets.settle_removal(&[t0()], Offset(4)), 1);
        assert!(offsets.is_empty());
    }

    #[test]
    fn offsets_of_a_transaction_count_when_it_commits_and_not_over_later_ones() {
        let producer = ProducerId(5);
        let mut offsets = GroupOffsets::default();
        offsets.prepare_transactional(producer, &t0(), value(10));
        offsets.settle_transactional(producer, &t0(), &value(10), Some(Offset(1)));
        assert_eq!(offsets.fetch(&t0(), true), FetchedOffset::Unstable);
        assert_eq!(committed(&offsets), None);
        offsets.complete_transaction(producer, true);
        assert_eq!(committed(&offsets), Some(10));

        offsets.prepare_transactional(producer, &t0(), value(20));
        offsets.settle_transactional(producer, &t0(), &value(20), Some(Offset(2)));
        offsets.prepare(&t0());
        offsets.settle(&t0(), value(30), Some(Offset(3)));
        offsets.complete_transaction(producer, true);
        assert_eq!(committed(&offsets), Some(30));

        offsets.prepare_transactional(producer, &t0(), value(40));
        offsets.settle_transactional(producer, &t0(), &value(40), Some(Offset(4)));
        offsets.complete_transaction(producer, false);
        assert_eq!(committed(&offsets), Some(30));
        offsets.prepare_transactional(producer, &t0(), value(50));
        offsets.settle_transactional(producer, &t0(), &value(50), None);
        assert_eq!(offsets.producers().count(), 0);
    }
}
