//! Loading one partition of `__consumer_offsets`: its batches in order become groups and offsets.
//!
//! Pure: [`PartitionLoader::replay`] takes bytes, [`PartitionLoader::finish`] gives what they add up to. The last record of a
//! key counts and a tombstone removes; offsets of a transaction count from its commit marker, those without a marker stay
//! pending. A record that is not understood is named and skipped, so that one of them does not hide all others; a batch whose
//! bytes are damaged ends the load, because what it held is unknown and serving older offsets would be wrong.
//!
//! **Deviation:** in 2.7.2 one record that is not understood ends the load, and the partition is then served as if it were empty.
//!
//! Source: `doLoadGroupsAndOffsets` in `GroupMetadataManager.scala`.

use std::collections::BTreeMap;
use std::sync::Arc;

use milena_engine::record_batch::{Batch, BatchError, ControlKind, Record, batches};
use milena_engine::units::{Offset, ProducerId, TopicPartition};

use super::offsets::{CommittedOffset, GroupOffsets, TransactionalOffset, TransactionalOffsets};
use super::records::{GroupMetadataValue, RecordKey, read_group_value, read_key, read_offset_value};

/// How many skipped records are named one by one.
const NAMED_PROBLEMS_COUNT_MAX: usize = 100;

/// What a partition held.
#[derive(Debug, Default)]
pub struct LoadedPartition {
    pub(super) groups: BTreeMap<Arc<str>, LoadedGroup>,
    /// One sentence for each record that was skipped, up to a limit.
    pub(super) problems: Vec<String>,
}

/// A group with a record, or one that only has offsets.
#[derive(Debug, Default)]
pub(super) struct LoadedGroup {
    pub(super) metadata: Option<GroupMetadataValue>,
    pub(super) offsets: GroupOffsets,
}

type OffsetsByPartition = BTreeMap<TopicPartition, CommittedOffset>;
type GroupTransactionalOffsets = BTreeMap<(Arc<str>, TopicPartition), TransactionalOffset>;

/// Adds up the batches of one partition.
#[derive(Debug, Default)]
pub struct PartitionLoader {
    metadata: BTreeMap<Arc<str>, GroupMetadataValue>,
    offsets: BTreeMap<Arc<str>, OffsetsByPartition>,
    transactional: BTreeMap<ProducerId, GroupTransactionalOffsets>,
    problems: Vec<String>,
    problem_count: usize,
}

impl PartitionLoader {
    pub fn new() -> PartitionLoader {
        PartitionLoader::default()
    }

    /// Takes in the whole batches of `bytes` from `from` on. Returns the offset to read next, `None` if there was no whole
    /// batch.
    ///
    /// # Errors
    /// [`BatchError`] if a batch is damaged.
    pub fn replay(&mut self, bytes: &[u8], from: Offset) -> Result<Option<Offset>, BatchError> {
        let mut next = None;
        for batch in batches(bytes) {
            match batch {
                Ok(batch) if batch.next_offset() <= from => {}
                Ok(batch) => {
                    batch.verify_crc()?;
                    self.replay_batch(&batch)?;
                    next = Some(batch.next_offset());
                }
                Err(error) if error.is_partial() => break,
                Err(error) => return Err(error),
            }
        }
        Ok(next)
    }

    fn replay_batch(&mut self, batch: &Batch<'_>) -> Result<(), BatchError> {
        let producer_id = batch.producer().map(|producer| producer.id);
        if batch.is_control() {
            let Some(producer_id) = producer_id else {
                return Ok(());
            };
            match batch.control_record() {
                Ok(marker) => self.end_transaction(producer_id, marker.kind == ControlKind::Commit),
                Err(error) => {
                    self.problem(batch.base_offset(), &error.to_string());
                    self.transactional.remove(&producer_id);
                }
            }
            return Ok(());
        }
        let transaction = producer_id.filter(|_| batch.is_transactional());
        if let Some(producer_id) = transaction {
            self.transactional.entry(producer_id).or_default();
        }
        let mut batch_offset = None;
        let mut records = batch.records()?;
        while let Some(record) = records.next_record()? {
            let batch_offset = *batch_offset.get_or_insert(record.offset);
            if let Err(problem) = self.replay_record(&record, batch_offset, transaction) {
                self.problem(record.offset, &problem);
            }
        }
        Ok(())
    }

    fn replay_record(
        &mut self,
        record: &Record<'_>,
        batch_offset: Offset,
        transaction: Option<ProducerId>,
    ) -> Result<(), String> {
        let key = record.key.ok_or_else(|| "the record has no key".to_owned())?;
        match read_key(key).map_err(|error| error.to_string())? {
            RecordKey::Offset { group_id, partition } => {
                let value = record
                    .value
                    .map(read_offset_value)
                    .transpose()
                    .map_err(|error| error.to_string())?;
                match (transaction, value) {
                    (None, None) => {
                        if let Some(offsets) = self.offsets.get_mut(&group_id) {
                            offsets.remove(&partition);
                        }
                    }
                    (None, Some(value)) => {
                        let offset = CommittedOffset {
                            value,
                            batch_offset,
                            removing: false,
                        };
                        self.offsets
                            .entry(group_id)
                            .or_default()
                            .insert(partition, offset);
                    }
                    (Some(producer_id), None) => {
                        if let Some(offsets) = self.transactional.get_mut(&producer_id) {
                            offsets.remove(&(group_id, partition));
                        }
                    }
                    (Some(producer_id), Some(value)) => {
                        let offset = TransactionalOffset {
                            value,
                            batch_offset: Some(batch_offset),
                        };
                        self.transactional
                            .entry(producer_id)
                            .or_default()
                            .insert((group_id, partition), offset);
                    }
                }
            }
            RecordKey::Group { group_id } => match record.value {
                None => {
                    self.metadata.remove(&group_id);
                }
                Some(value) => {
                    let value = read_group_value(value).map_err(|error| error.to_string())?;
                    self.metadata.insert(group_id, value);
                }
            },
        }
        Ok(())
    }

    fn end_transaction(&mut self, producer_id: ProducerId, committed: bool) {
        let offsets = self.transactional.remove(&producer_id).unwrap_or_default();
        for ((group_id, partition), offset) in offsets {
            let Some(batch_offset) = offset.batch_offset.filter(|_| committed) else {
                continue;
            };
            let group = self.offsets.entry(group_id).or_default();
            if group
                .get(&partition)
                .is_none_or(|current| current.batch_offset < batch_offset)
            {
                group.insert(
                    partition,
                    CommittedOffset {
                        value: offset.value,
                        batch_offset,
                        removing: false,
                    },
                );
            }
        }
    }

    fn problem(&mut self, offset: Offset, what: &str) {
        self.problem_count += 1;
        if self.problem_count <= NAMED_PROBLEMS_COUNT_MAX {
            self.problems
                .push(format!("the record at offset {offset} is skipped: {what}"));
        }
    }

    /// What all batches add up to.
    pub fn finish(mut self) -> LoadedPartition {
        if self.problem_count > NAMED_PROBLEMS_COUNT_MAX {
            let more = self.problem_count - NAMED_PROBLEMS_COUNT_MAX;
            self.problems.push(format!("{more} more records are skipped"));
        }
        let mut transactional: BTreeMap<Arc<str>, TransactionalOffsets> = BTreeMap::new();
        for (producer_id, offsets) in self.transactional {
            for ((group_id, partition), offset) in offsets {
                let group = transactional.entry(group_id).or_default();
                group.entry(producer_id).or_default().insert(partition, offset);
            }
        }
        let mut groups: BTreeMap<Arc<str>, LoadedGroup> = BTreeMap::new();
        for (group_id, metadata) in self.metadata {
            groups.entry(group_id).or_default().metadata = Some(metadata);
        }
        self.offsets.retain(|_, offsets| !offsets.is_empty());
        for (group_id, committed) in self.offsets {
            let transactional = transactional.remove(&group_id).unwrap_or_default();
            groups.entry(group_id).or_default().offsets = GroupOffsets::loaded(committed, transactional);
        }
        for (group_id, transactional) in transactional {
            groups.entry(group_id).or_default().offsets =
                GroupOffsets::loaded(BTreeMap::new(), transactional);
        }
        LoadedPartition {
            groups,
            problems: self.problems,
        }
    }
}

#[cfg(test)]
mod tests;
