//! The replica manager over logs on a simulated disk.

use std::path::PathBuf;

use milena_engine::io::simulated::{ManualClock, SimulatedDisk};
use milena_engine::log::Log;
use milena_engine::log_manager::{LogManagerConfig, LogManagerObserver, Survey};
use milena_engine::record_batch::RecordBatchBuilder;
use milena_engine::units::{LeaderEpoch, Offset, TimestampMs};

use super::*;
use crate::cluster::LeaderAndIsr;

struct Deaf;

impl LogManagerObserver for Deaf {}

fn logs() -> Arc<LogManager> {
    let disk = SimulatedDisk::new(1);
    let survey = Survey::of(&[PathBuf::from("/d")], &disk).expect("a new directory");
    let clock = Arc::new(ManualClock::new(TimestampMs(1_700_000_000_000)));
    let settings = Arc::new(LogConfig::default());
    let config_of = |_: &TopicPartition| Arc::clone(&settings);
    let config = LogManagerConfig::default();
    let logs = LogManager::open(survey, config, &config_of, Arc::new(Deaf), Arc::new(disk), clock);
    Arc::new(logs.expect("nothing to load"))
}

fn replica_manager(broker_id: i32, logs: Arc<LogManager>) -> (ReplicaManager, Inboxes) {
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

/// A log of one record.
fn written(logs: &LogManager, name: &TopicPartition) -> Arc<Log> {
    let log = logs
        .get_or_create(WantedLog {
            partition: name.clone(),
            config: Arc::new(LogConfig::default()),
            is_new: true,
            preferred_directory: None,
        })
        .expect("room on the disk");
    let mut batch = RecordBatchBuilder::new();
    batch.append(TimestampMs(1), None, Some(b"a record"));
    log.append_as_follower(&batch.build()).expect("a whole batch");
    assert_eq!(log.high_watermark(), Offset(0));
    log
}

/// Broker 0 leads from now on.
fn lead(replicas: &ReplicaManager, name: &TopicPartition, epoch: i32, isr: &[i32], assigned: &[i32]) {
    let command = LeaderAndIsrPartition {
        topic_partition: name.clone(),
        controller_epoch: 1,
        state: LeaderAndIsr {
            leader: Some(0),
            leader_epoch: LeaderEpoch(epoch),
            isr: isr.into(),
            zk_version: 0,
        },
        replicas: assigned.into(),
        adding_replicas: [].into(),
        removing_replicas: [].into(),
        is_new: false,
    };
    let results = replicas.leader_and_isr(vec![command], &|_| Arc::new(LogConfig::default()));
    assert!(results.iter().all(|(_, result)| result.is_ok()));
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
