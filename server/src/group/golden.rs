//! Partitions of `__consumer_offsets` as Apache Kafka 2.7.2 wrote them, read by us and written again.
//!
//! Both come from a broker with default settings and one topic `golden` of two partitions with three records:
//! - `dynamic_member.bin`: `kafka-console-consumer --group golden-group` reads all and leaves; `kafka-consumer-groups
//!   --reset-offsets --to-earliest` and `--delete` follow;
//! - `static_member.bin`: the same consumer with `group.instance.id=golden-instance` and `--group golden-static`, whose session
//!   then ends.

use milena_engine::config::Codec;
use milena_engine::record_batch::batches;
use milena_engine::units::{Offset, TopicPartition};

use super::loading::PartitionLoader;
use super::machine::{AppendRequest, CoordinatorRecord, GroupMachine, Input, Now};
use super::records::*;
use super::requests::FetchedOffset;
use super::slot::encode;
use super::state::GroupState;

const DYNAMIC_MEMBER: &[u8] = include_bytes!("golden/dynamic_member.bin");
const STATIC_MEMBER: &[u8] = include_bytes!("golden/static_member.bin");

/// A machine that has loaded the first `count` batches.
fn loaded(log: &[u8], count: usize) -> GroupMachine {
    let size: usize = batches(log)
        .take(count)
        .map(|batch| batch.expect("good").size_bytes())
        .sum();
    let mut loader = PartitionLoader::new();
    loader.replay(&log[..size], Offset::ZERO).expect("good");
    let partition = Box::new(loader.finish());
    let now = Now {
        wall: milena_engine::units::TimestampMs(0),
        monotonic_ms: 0,
    };
    let mut machine = GroupMachine::new(0, Default::default());
    machine.step(now, Input::Elected { epoch: 0 }, &mut Vec::new());
    machine.step(now, Input::Loaded { epoch: 0, partition }, &mut Vec::new());
    machine
}

fn offset(machine: &GroupMachine, group_id: &str, partition: i32) -> Option<i64> {
    let partitions = [TopicPartition::new("golden", partition)];
    match &machine
        .fetch_offsets(group_id, Some(&partitions), true)
        .expect("loaded")[0]
        .1
    {
        FetchedOffset::Committed(value) => Some(value.offset.get()),
        _ => None,
    }
}

#[test]
fn groups_lie_in_the_partitions_where_kafka_put_them() {
    assert_eq!(partition_for("golden-group", 50), 49);
    assert_eq!(partition_for("golden-static", 50), 8);
}

#[test]
fn every_key_and_value_is_written_as_kafka_wrote_it() {
    let mut count = 0;
    for log in [DYNAMIC_MEMBER, STATIC_MEMBER] {
        for batch in batches(log) {
            let mut records = batch.expect("good").records().expect("good");
            while let Some(record) = records.next_record().expect("good") {
                let key = record.key.expect("no record is without a key");
                count += 1;
                match read_key(key).expect("readable") {
                    RecordKey::Offset { group_id, partition } => {
                        assert_eq!(offset_key(&group_id, &partition).expect("short")[..], *key);
                        if let Some(value) = record.value {
                            let read = read_offset_value(value).expect("readable");
                            assert_eq!(offset_value(&read).expect("short")[..], *value);
                        }
                    }
                    RecordKey::Group { group_id } => {
                        assert_eq!(group_key(&group_id).expect("short")[..], *key);
                        if let Some(value) = record.value {
                            let read = read_group_value(value).expect("readable");
                            assert_eq!(group_value(&read).expect("short")[..], *value);
                        }
                    }
                }
            }
        }
    }
    assert_eq!(count, 13);
}

#[test]
fn every_batch_is_written_as_kafka_wrote_it() {
    for log in [DYNAMIC_MEMBER, STATIC_MEMBER] {
        for batch in batches(log) {
            let batch = batch.expect("good");
            let mut records = Vec::new();
            let mut iterator = batch.records().expect("good");
            while let Some(record) = iterator.next_record().expect("good") {
                let copy = |bytes: &[u8]| bytes.to_vec().into();
                records.push(CoordinatorRecord {
                    key: copy(record.key.expect("a key")),
                    value: record.value.map(copy),
                });
            }
            let timestamp = batch.max_timestamp();
            let is_commit = matches!(read_key(&records[0].key), Ok(RecordKey::Offset { .. }));
            let is_commit = is_commit && records[0].value.is_some();
            let request = AppendRequest {
                id: Default::default(),
                timestamp,
                records,
                transaction: None,
            };
            let ours = encode(&request, Codec::None);
            // What the leader's log stamps: base offset at byte 0, leader epoch at byte 12.
            let stamped = [
                &batch.bytes()[..8],
                &ours[8..12],
                &batch.bytes()[12..16],
                &ours[16..],
            ]
            .concat();
            if is_commit {
                // Kafka numbers the records of a commit from 0 though there is no producer id that the sequence (at byte 53)
                // could belong to; ours is −1, and so the checksum (at byte 17) differs.
                assert_eq!(batch.bytes()[43..57], [&[255; 10][..], &[0; 4]].concat());
                assert_eq!(stamped[..17], batch.bytes()[..17]);
                assert_eq!(stamped[21..53], batch.bytes()[21..53]);
                assert_eq!(stamped[57..], batch.bytes()[57..]);
            } else {
                assert_eq!(stamped, batch.bytes());
            }
        }
    }
}

#[test]
fn the_life_of_a_dynamic_member_is_understood() {
    let joined = loaded(DYNAMIC_MEMBER, 2);
    let group = joined.describe("golden-group").expect("loaded");
    assert_eq!(group.state, GroupState::Stable);
    assert_eq!((&*group.protocol_type, &*group.protocol), ("consumer", "range"));
    assert_eq!(group.members.len(), 1);
    assert_eq!(&*group.members[0].client_id, "golden-client");
    assert_eq!(&*group.members[0].client_host, "/127.0.0.1");
    assert_eq!(group.members[0].group_instance_id, None);
    let topics = super::subscription::subscribed_topics(&group.members[0].metadata).expect("a subscription");
    assert_eq!(topics, [std::sync::Arc::from("golden")]);
    assert_eq!(
        (
            offset(&joined, "golden-group", 0),
            offset(&joined, "golden-group", 1)
        ),
        (Some(0), Some(3))
    );

    let left = loaded(DYNAMIC_MEMBER, 3);
    assert_eq!(
        left.describe("golden-group").expect("loaded").state,
        GroupState::Empty
    );
    assert_eq!(offset(&left, "golden-group", 1), Some(3));
    let reset = loaded(DYNAMIC_MEMBER, 4);
    assert_eq!(offset(&reset, "golden-group", 1), Some(0));
    let deleted = loaded(DYNAMIC_MEMBER, 5);
    assert_eq!(deleted.group_count(), 0);
}

#[test]
fn the_life_of_a_static_member_is_understood() {
    let joined = loaded(STATIC_MEMBER, 2);
    let group = joined.describe("golden-static").expect("loaded");
    assert_eq!(group.state, GroupState::Stable);
    assert_eq!(
        group.members[0].group_instance_id.as_deref(),
        Some("golden-instance")
    );
    let gone = loaded(STATIC_MEMBER, 3);
    assert_eq!(
        gone.describe("golden-static").expect("loaded").state,
        GroupState::Empty
    );
    assert_eq!(offset(&gone, "golden-static", 1), Some(3));
}
