//! The replica manager over logs on a simulated disk.

use std::path::PathBuf;

use milena_engine::io::simulated::{ManualClock, SimulatedDisk};
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

#[test]
fn a_sole_replica_that_becomes_leader_serves_all_that_its_log_holds() {
    let (logs, name) = (logs(), TopicPartition::new("t", 0));
    let log = logs
        .get_or_create(WantedLog {
            partition: name.clone(),
            config: Arc::new(LogConfig::default()),
            is_new: true,
            preferred_directory: None,
        })
        .expect("room on the disk");
    let mut batch = RecordBatchBuilder::new();
    batch.append(
        TimestampMs(1),
        None,
        Some(b"written after the last checkpoint of high watermarks"),
    );
    log.append_as_follower(&batch.build()).expect("a whole batch");
    assert_eq!(log.high_watermark(), Offset(0));
    let (replicas, _inboxes) = replica_manager(0, logs);
    let command = LeaderAndIsrPartition {
        topic_partition: name,
        controller_epoch: 1,
        state: LeaderAndIsr {
            leader: Some(0),
            leader_epoch: LeaderEpoch(0),
            isr: [0].into(),
            zk_version: 0,
        },
        replicas: [0].into(),
        adding_replicas: [].into(),
        removing_replicas: [].into(),
        is_new: false,
    };
    let results = replicas.leader_and_isr(vec![command], &|_| Arc::new(LogConfig::default()));
    assert!(results.iter().all(|(_, result)| result.is_ok()));
    assert_eq!(log.high_watermark(), Offset(1));
}
