//! What batches of `__consumer_offsets` add up to.

use milena_engine::record_batch::{ControlRecord, RecordBatchBuilder};
use milena_engine::units::{ProducerEpoch, Sequence, TimestampMs};

use super::*;
use crate::group::offsets::GroupOffsets;
use crate::group::records::{group_key, group_value, offset_key, offset_value};
use crate::group::requests::{FetchedOffset, OffsetAndMetadata};

const NOW: TimestampMs = TimestampMs(1_000);

/// A log that grows batch by batch.
#[derive(Default)]
struct TestLog {
    bytes: Vec<u8>,
    next: i64,
}

fn t0() -> TopicPartition {
    TopicPartition::new("t", 0)
}

fn key() -> Vec<u8> {
    offset_key("g", &t0()).expect("short").to_vec()
}

fn value(offset: i64) -> Vec<u8> {
    let value = OffsetAndMetadata {
        offset: Offset(offset),
        leader_epoch: None,
        metadata: "".into(),
        commit_timestamp: NOW,
        expire_timestamp: None,
    };
    offset_value(&value).expect("short").to_vec()
}

fn metadata(generation_id: i32) -> GroupMetadataValue {
    GroupMetadataValue {
        protocol_type: "consumer".into(),
        generation_id,
        protocol_name: None,
        leader_id: None,
        current_state_timestamp: Some(NOW),
        members: Vec::new(),
    }
}

impl TestLog {
    fn batch(&mut self, records: &[(&[u8], Option<&[u8]>)]) {
        let builder = RecordBatchBuilder::new().base_offset(Offset(self.next));
        self.append(builder, records);
    }

    fn transactional(&mut self, producer_id: i64, records: &[(&[u8], Option<&[u8]>)]) {
        let builder = RecordBatchBuilder::new()
            .base_offset(Offset(self.next))
            .producer(ProducerId(producer_id), ProducerEpoch(0), Some(Sequence(0)))
            .transactional(true);
        self.append(builder, records);
    }

    fn append(&mut self, mut builder: RecordBatchBuilder, records: &[(&[u8], Option<&[u8]>)]) {
        for (key, value) in records {
            builder.append(NOW, Some(key), *value);
        }
        self.bytes.extend(builder.build());
        self.next += records.len() as i64;
    }

    fn marker(&mut self, producer_id: i64, kind: ControlKind) {
        let marker = ControlRecord {
            kind,
            coordinator_epoch: 0,
        };
        let mut batch = RecordBatchBuilder::end_transaction_marker(
            marker,
            ProducerId(producer_id),
            ProducerEpoch(0),
            NOW,
        );
        batch[..8].copy_from_slice(&self.next.to_be_bytes());
        self.bytes.extend(batch);
        self.next += 1;
    }

    fn load(&self) -> LoadedPartition {
        let mut loader = PartitionLoader::new();
        let next = loader.replay(&self.bytes, Offset::ZERO).expect("good batches");
        assert_eq!(next, Some(Offset(self.next)).filter(|_| self.next > 0));
        loader.finish()
    }
}

fn offsets(loaded: &LoadedPartition) -> &GroupOffsets {
    &loaded.groups.get("g").expect("the group").offsets
}

fn committed(loaded: &LoadedPartition) -> Option<i64> {
    match loaded.groups.get("g")?.offsets.fetch(&t0(), false) {
        FetchedOffset::Committed(value) => Some(value.offset.get()),
        _ => None,
    }
}

#[test]
fn the_last_record_of_a_key_counts_and_a_tombstone_removes() {
    let mut log = TestLog::default();
    let group = group_key("g").expect("short").to_vec();
    log.batch(&[(&key(), Some(&value(1))), (&key(), Some(&value(2)))]);
    log.batch(&[(&group, Some(&group_value(&metadata(4)).expect("short")))]);
    log.batch(&[(&group, Some(&group_value(&metadata(5)).expect("short")))]);
    let loaded = log.load();
    assert_eq!(committed(&loaded), Some(2));
    assert_eq!(loaded.groups["g"].metadata, Some(metadata(5)));
    log.batch(&[(&key(), None)]);
    let loaded = log.load();
    assert_eq!(committed(&loaded), None);
    assert!(loaded.groups.contains_key("g"));
    log.batch(&[(&group, None)]);
    let loaded = log.load();
    assert!(loaded.groups.is_empty());
    assert!(loaded.problems.is_empty());
}

#[test]
fn offsets_without_a_group_record_make_a_group_that_only_has_offsets() {
    let mut log = TestLog::default();
    log.batch(&[(&key(), Some(&value(1)))]);
    let loaded = log.load();
    assert_eq!(loaded.groups["g"].metadata, None);
    assert_eq!(committed(&loaded), Some(1));
}

#[test]
fn offsets_of_a_transaction_count_from_its_commit_and_not_over_later_ones() {
    let mut log = TestLog::default();
    log.transactional(7, &[(&key(), Some(&value(1)))]);
    let open = log.load();
    assert_eq!(committed(&open), None);
    assert_eq!(offsets(&open).fetch(&t0(), true), FetchedOffset::Unstable);
    log.marker(7, ControlKind::Commit);
    assert_eq!(committed(&log.load()), Some(1));
    log.transactional(7, &[(&key(), Some(&value(2)))]);
    log.marker(7, ControlKind::Abort);
    assert_eq!(committed(&log.load()), Some(1));
    log.transactional(7, &[(&key(), Some(&value(3)))]);
    log.batch(&[(&key(), Some(&value(4)))]);
    log.marker(8, ControlKind::Commit);
    log.marker(7, ControlKind::Commit);
    let loaded = log.load();
    assert_eq!(committed(&loaded), Some(4));
    assert_eq!(
        offsets(&loaded).fetch(&t0(), true),
        offsets(&loaded).fetch(&t0(), false)
    );
}

#[test]
fn a_tombstone_within_a_transaction_takes_its_offset_out_of_it() {
    let mut log = TestLog::default();
    log.transactional(7, &[(&key(), Some(&value(1))), (&key(), None)]);
    log.marker(7, ControlKind::Commit);
    assert_eq!(committed(&log.load()), None);
}

#[test]
fn records_that_are_not_understood_are_named_and_skipped() {
    let mut log = TestLog::default();
    log.batch(&[(&[0, 9], Some(b"from the future")), (&key(), Some(&value(1)))]);
    log.batch(&[(&key(), Some(&[0, 9]))]);
    let loaded = log.load();
    assert_eq!(committed(&loaded), Some(1));
    let expected = [
        "the record at offset 0 is skipped: key of __consumer_offsets: byte 0: version 9, expected version 0, 1 or 2",
        "the record at offset 2 is skipped: committed offset: byte 0: version 9, expected version 0 to 3",
    ];
    assert_eq!(loaded.problems, expected);
}

#[test]
fn many_problems_are_counted() {
    let mut log = TestLog::default();
    for _ in 0..150 {
        log.batch(&[(&[0, 9], None)]);
    }
    let problems = log.load().problems;
    assert_eq!(problems.len(), 101);
    assert_eq!(problems[100], "50 more records are skipped");
}

#[test]
fn a_damaged_batch_ends_the_load_and_a_cut_one_is_read_again() {
    let mut log = TestLog::default();
    log.batch(&[(&key(), Some(&value(1)))]);
    let first = log.bytes.len();
    log.batch(&[(&key(), Some(&value(2)))]);
    for cut in first..log.bytes.len() {
        let mut loader = PartitionLoader::new();
        assert_eq!(
            loader.replay(&log.bytes[..cut], Offset::ZERO),
            Ok(Some(Offset(1)))
        );
        assert_eq!(loader.replay(&log.bytes[first..], Offset(1)), Ok(Some(Offset(2))));
        assert_eq!(committed(&loader.finish()), Some(2));
    }
    let mut loader = PartitionLoader::new();
    assert_eq!(loader.replay(&log.bytes[..10], Offset::ZERO), Ok(None));
    let last = log.bytes.len() - 1;
    log.bytes[last] ^= 1;
    let mut loader = PartitionLoader::new();
    assert!(loader.replay(&log.bytes, Offset::ZERO).is_err());
}

#[test]
fn batches_before_the_wanted_offset_are_not_counted_twice() {
    let mut log = TestLog::default();
    log.batch(&[(&key(), Some(&value(1)))]);
    log.batch(&[(&key(), None)]);
    let mut loader = PartitionLoader::new();
    assert_eq!(loader.replay(&log.bytes, Offset::ZERO), Ok(Some(Offset(2))));
    assert_eq!(loader.replay(&log.bytes, Offset(2)), Ok(None));
}
