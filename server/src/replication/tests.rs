//! The replica manager over logs on a simulated disk.

use std::path::PathBuf;

use milena_engine::io::simulated::{Fault, ManualClock, SimulatedDisk};
use milena_engine::log::Log;
use milena_engine::log_manager::{LogManagerConfig, LogManagerObserver, Survey};
use milena_engine::record_batch::RecordBatchBuilder;
use milena_engine::units::{LeaderEpoch, Offset, TimestampMs};

use tokio::sync::Notify;

use super::*;
use crate::cluster::LeaderAndIsr;
use crate::replication::replica_fetcher::{FetchedPartition, FollowError};
use crate::test_cluster::run_paused;

struct Deaf;

impl LogManagerObserver for Deaf {}

fn logs() -> Arc<LogManager> {
    logs_on(SimulatedDisk::new(1))
}

pub(super) fn logs_on(disk: SimulatedDisk) -> Arc<LogManager> {
    let survey = Survey::of(&[PathBuf::from("/d")], &disk).expect("a new directory");
    let clock = Arc::new(ManualClock::new(TimestampMs(1_700_000_000_000)));
    let settings = Arc::new(LogConfig::default());
    let config_of = |_: &TopicPartition| Arc::clone(&settings);
    let config = LogManagerConfig::default();
    let logs = LogManager::open(survey, config, &config_of, Arc::new(Deaf), Arc::new(disk), clock);
    Arc::new(logs.expect("nothing to load"))
}

pub(super) fn replica_manager(broker_id: i32, logs: Arc<LogManager>) -> (ReplicaManager, Inboxes) {
    let settings = ReplicaManagerSettings {
        broker_id,
        lag_max: Duration::from_secs(30),
        fetcher_count: 1,
        quota_windows: QuotaWindows::default(),
        alter_log_dirs_quota_windows: QuotaWindows::default(),
        mover_count: 1,
    };
    let clock = Arc::new(ManualClock::new(TimestampMs(1_700_000_000_000)));
    ReplicaManager::new(settings, logs, Arc::default(), clock)
}

pub(super) fn created(logs: &LogManager, name: &TopicPartition, config: LogConfig) -> Arc<Log> {
    let wanted = WantedLog {
        partition: name.clone(),
        config: Arc::new(config),
        is_new: true,
        preferred_directory: None,
    };
    logs.get_or_create(wanted).expect("room on the disk")
}

/// A log of one record.
fn written(logs: &LogManager, name: &TopicPartition) -> Arc<Log> {
    let log = created(logs, name, LogConfig::default());
    let mut batch = RecordBatchBuilder::new();
    batch.append(TimestampMs(1), None, Some(b"a record"));
    log.append_as_follower(&batch.build()).expect("a whole batch");
    assert_eq!(log.high_watermark(), Offset(0));
    log
}

/// A batch of one record as a leader of that epoch wrote it.
pub(super) fn batch_of(epoch: i32, offset: i64) -> Vec<u8> {
    let mut batch = RecordBatchBuilder::new()
        .base_offset(Offset(offset))
        .leader_epoch(LeaderEpoch(epoch));
    batch.append(TimestampMs(1), None, Some(b"a record"));
    batch.build()
}

/// Broker 0 leads from now on.
fn lead(replicas: &ReplicaManager, name: &TopicPartition, epoch: i32, isr: &[i32], assigned: &[i32]) {
    tell(replicas, name, 0, epoch, isr, assigned);
}

/// A partition of one record, which broker 0 leads in epoch 0 and which replica 1, though in sync, does not have.
pub(crate) fn led_with_a_follower(topic: &str) -> (Arc<ReplicaManager>, Arc<Partition>) {
    let (logs, name) = (logs(), TopicPartition::new(topic, 0));
    written(&logs, &name);
    let (replicas, _inboxes) = replica_manager(0, logs);
    lead(&replicas, &name, 0, &[0, 1], &[0, 1]);
    let partition = replicas.partition(topic, 0).expect("it is led here");
    (Arc::new(replicas), partition)
}

pub(super) fn tell(
    replicas: &ReplicaManager,
    name: &TopicPartition,
    leader: i32,
    epoch: i32,
    isr: &[i32],
    assigned: &[i32],
) {
    assert_eq!(told(replicas, name, leader, epoch, isr, assigned), Ok(()));
}

fn told(
    replicas: &ReplicaManager,
    name: &TopicPartition,
    leader: i32,
    epoch: i32,
    isr: &[i32],
    assigned: &[i32],
) -> Result<(), PartitionRefusal> {
    let command = LeaderAndIsrPartition {
        topic_partition: name.clone(),
        controller_epoch: 1,
        state: LeaderAndIsr {
            leader: Some(leader),
            leader_epoch: LeaderEpoch(epoch),
            isr: isr.into(),
            zk_version: 0,
        },
        replicas: assigned.into(),
        adding_replicas: [].into(),
        removing_replicas: [].into(),
        is_new: false,
    };
    let mut results = replicas.leader_and_isr(vec![command], &|_| Arc::new(LogConfig::default()));
    results.pop().expect("one answer for one partition").1
}

#[test]
fn a_sole_replica_that_becomes_leader_serves_all_that_its_log_holds() {
    let (logs, name) = (logs(), TopicPartition::new("t", 0));
    // As written after the last checkpoint of high watermarks.
    let log = written(&logs, &name);
    let (replicas, _inboxes) = replica_manager(0, logs);
    lead(&replicas, &name, 0, &[0], &[0]);
    assert_eq!(log.high_watermark(), Offset(1));
}

#[test]
fn who_waits_for_replicas_goes_on_waiting_while_the_leader_stays() {
    /// The next epoch, before which nobody waits any more.
    const GIVEN_UP: i32 = 9;
    let cases = [
        (2, Some(Acknowledgement::Done)),
        (3, Some(Acknowledgement::NotLeader)),
        (GIVEN_UP, None),
    ];
    for (next_epoch, expected) in cases {
        let (logs, name) = (logs(), TopicPartition::new("t", 0));
        written(&logs, &name);
        let (replicas, _inboxes) = replica_manager(0, logs);
        lead(&replicas, &name, 0, &[0, 1], &[0, 1]);
        let partition = replicas.partition("t", 0).expect("it is led here");
        let settled = Arc::new(Mutex::new(None));
        let told = Arc::clone(&settled);
        let done = Box::new(move |acknowledgement| *told.lock() = Some(acknowledgement));
        let waiting = partition.when_acknowledged(LeaderEpoch(0), Offset(0), done);
        assert_eq!(*settled.lock(), None, "replica 1 does not have it");
        lead(&replicas, &name, 1, &[0, 1], &[0, 1]);
        assert_eq!(*settled.lock(), None, "nor in the next epoch");
        if next_epoch == GIVEN_UP {
            partition.forget(waiting.expect("it waits"));
        }
        // In an epoch that was missed another may have led.
        lead(&replicas, &name, next_epoch, &[0], &[0, 1]);
        assert_eq!(*settled.lock(), expected);
    }
}

#[test]
fn a_follower_takes_nothing_of_a_later_epoch_than_that_of_its_leader() {
    let (logs, name) = (logs(), TopicPartition::new("t", 0));
    let log = created(&logs, &name, LogConfig::default());
    let (replicas, _inboxes) = replica_manager(0, logs);
    tell(&replicas, &name, 1, 5, &[0, 1], &[0, 1]);
    let partition = replicas.partition("t", 0).expect("it is followed here");
    let append = |offset, records: &[u8]| {
        let answer = FetchedPartition {
            fetch_offset: Offset(offset),
            high_watermark: Offset(0),
            log_start_offset: None,
            records,
        };
        partition.append_as_follower(LeaderEpoch(5), &answer)
    };
    let mut records = [batch_of(4, 0), batch_of(5, 1)].concat();
    records.extend(batch_of(6, 2));
    append(0, &records).expect("two fit");
    assert_eq!(log.log_end_offset(), Offset(2));
    let refused = append(2, &batch_of(6, 2));
    assert!(matches!(refused, Err(FollowError::Unfit(_))), "{refused:?}");
    assert_eq!(log.log_end_offset(), Offset(2));
}

#[test]
fn a_log_that_finds_no_room_is_created_once_there_is_some_and_the_controller_hears_of_it() {
    run_paused(async {
        let (mut waited, mut operations) = (0, 0);
        loop {
            let disk = SimulatedDisk::new(1);
            let (logs, name) = (logs_on(disk.clone()), TopicPartition::new("t", 0));
            // What was deleted leaves words on the disk that have to go first.
            written(&logs, &name);
            logs.run_due(Duration::from_hours(1));
            logs.delete(&name).expect("room on the disk");
            let (replicas, _inboxes) = replica_manager(0, Arc::clone(&logs));
            let (replicas, news) = (Arc::new(replicas), Arc::new(Notify::new()));
            let room = Arc::clone(&replicas).create_when_there_is_room(true, Arc::clone(&news));
            let room = tokio::spawn(room);
            disk.fail_after(operations, Fault::Enospc);
            operations += 1;
            let lead = || told(&replicas, &name, 0, 0, &[0], &[0]);
            match lead() {
                Ok(()) => break,
                // Kafka's way.
                Err(_) if logs.online_directory_count() == 0 => continue,
                Err(refusal) => assert_eq!(refusal, PartitionRefusal::Offline),
            }
            waited += 1;
            assert_eq!(replicas.offline_partitions(), BTreeSet::from([name.clone()]));
            // What a controller says to a replica that is offline.
            replicas.stop_replicas(&[(name.clone(), false)]);
            tokio::time::timeout(Duration::from_secs(60), news.notified())
                .await
                .expect("there is room");
            assert_eq!(lead(), Ok(()));
            room.abort();
        }
        assert!(waited > 0, "{operations} operations");
    });
}
