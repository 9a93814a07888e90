//! Moves over logs on a simulated disk, step by step.

use std::path::{Path, PathBuf};

use milena_engine::config::LogConfig;
use milena_engine::io::simulated::{Fault, ManualClock, SimulatedDisk};
use milena_engine::log::UpperBound;
use milena_engine::log_manager::{LogManager, LogManagerConfig, LogManagerObserver, Survey};
use milena_engine::record_batch::RecordBatchBuilder;
use milena_engine::units::TimestampMs;

use super::*;
use crate::cluster::LeaderAndIsr;
use crate::controller::command::LeaderAndIsrPartition;
use crate::replication::replica_alter_log_dirs::AlterLogDirError;
use crate::replication::replication_quota_manager::QuotaWindows;
use crate::replication::{Inboxes, ReplicaManagerSettings};

/// Tells the replica manager of directories that fail, as a broker does.
#[derive(Default)]
struct Observer(Mutex<Option<Arc<ReplicaManager>>>);

impl LogManagerObserver for Observer {
    fn directory_offline(&self, directory: &Path, _: &str) {
        if let Some(replicas) = &*self.0.lock() {
            replicas.directory_failed(directory);
        }
    }
}

fn name() -> TopicPartition {
    TopicPartition::new("t", 0)
}

fn batch(offset: i64) -> Vec<u8> {
    let mut builder = RecordBatchBuilder::new()
        .base_offset(Offset(offset))
        .leader_epoch(LeaderEpoch(1));
    builder.append(TimestampMs(1), None, Some(format!("record {offset}").as_bytes()));
    builder.build()
}

/// A broker with the directories `/a` and `/b`, and its one moving thread.
struct Broker {
    disk: SimulatedDisk,
    clock: Arc<ManualClock>,
    replicas: Arc<ReplicaManager>,
    logs: Arc<LogManager>,
    mover: Mover,
    inbox: MoverInbox,
    observer: Arc<Observer>,
}

impl Broker {
    fn start(disk: &SimulatedDisk) -> Broker {
        let clock = Arc::new(ManualClock::new(TimestampMs(1_700_000_000_000)));
        let survey = Survey::of(&[PathBuf::from("/a"), PathBuf::from("/b")], disk).expect("two directories");
        let observer = Arc::new(Observer::default());
        let logs = LogManager::open(
            survey,
            LogManagerConfig::default(),
            &|_| Arc::new(LogConfig::default()),
            Arc::clone(&observer) as Arc<dyn LogManagerObserver>,
            Arc::new(disk.clone()),
            Arc::clone(&clock) as Arc<dyn Clock>,
        );
        let logs = Arc::new(logs.expect("logs that can be loaded"));
        let settings = ReplicaManagerSettings {
            broker_id: 0,
            lag_max: Duration::from_secs(30),
            fetcher_count: 1,
            quota_windows: QuotaWindows::default(),
            alter_log_dirs_quota_windows: QuotaWindows::default(),
            mover_count: 1,
        };
        let dyn_clock = Arc::clone(&clock) as Arc<dyn Clock>;
        let (replicas, inboxes) = ReplicaManager::new(
            settings,
            Arc::clone(&logs),
            Arc::default(),
            Arc::clone(&dyn_clock),
        );
        let replicas = Arc::new(replicas);
        *observer.0.lock() = Some(Arc::clone(&replicas));
        let Inboxes { mut movers, .. } = inboxes;
        let settings = MoverSettings {
            broker_id: 0,
            copy_size_bytes_max: 200,
            backoff: Duration::from_secs(1),
        };
        Broker {
            disk: disk.clone(),
            clock,
            mover: Mover::new(settings, 0, &replicas, &dyn_clock),
            replicas,
            logs,
            inbox: movers.remove(0),
            observer,
        }
    }

    /// One whose partition lies in `/a`, led here since epoch 1, with ten records.
    fn with_records(disk: &SimulatedDisk) -> Broker {
        let broker = Broker::start(disk);
        broker.logs.prefer(&name(), Path::new("/a"));
        broker.lead(1);
        broker.append(0..10);
        broker
    }

    fn told(&self, leader: i32, epoch: i32) {
        let command = LeaderAndIsrPartition {
            topic_partition: name(),
            controller_epoch: 1,
            state: LeaderAndIsr {
                leader: Some(leader),
                leader_epoch: LeaderEpoch(epoch),
                isr: [leader].into(),
                zk_version: 0,
            },
            replicas: [0, leader].into(),
            adding_replicas: [].into(),
            removing_replicas: [].into(),
            is_new: false,
        };
        let results = self
            .replicas
            .leader_and_isr(vec![command], &|_| Arc::new(LogConfig::default()));
        assert!(results.iter().all(|(_, result)| result.is_ok()), "{results:?}");
    }

    fn lead(&self, epoch: i32) {
        self.told(0, epoch);
    }

    fn partition(&self) -> Arc<Partition> {
        self.replicas.partition("t", 0).expect("it is hosted")
    }

    fn append(&self, offsets: std::ops::Range<i64>) {
        for offset in offsets {
            let partition = self.partition();
            partition
                .log()
                .append_as_follower(&batch(offset))
                .expect("room on the disk");
        }
    }

    fn alter(&self, directory: &str) -> Result<(), AlterLogDirError> {
        let moves = vec![(name(), PathBuf::from(directory))];
        self.replicas.alter_replica_log_dirs(moves).remove(0).1
    }

    /// Steps until the thread would wait; for how long.
    fn run(&mut self) -> Option<Duration> {
        loop {
            match self.mover.step(&self.inbox) {
                Turn::Again => {}
                Turn::Wait(pause) => return pause,
                Turn::Stop => unreachable!("nobody stops it"),
            }
        }
    }

    fn step(&mut self) {
        assert!(matches!(self.mover.step(&self.inbox), Turn::Again));
    }

    fn home(&self) -> PathBuf {
        self.partition().log().directory().path().to_owned()
    }

    fn future_end(&self) -> Option<i64> {
        Some(self.partition().future_log()?.log_end_offset().get())
    }

    fn bytes(&self) -> Vec<u8> {
        let log = self.partition().log();
        let info = log.read(log.log_start_offset(), 1 << 20, UpperBound::LogEnd, true);
        let records = info.expect("it can be read").records.expect("it has records");
        records.read().expect("they can be read")
    }

    /// The end of a process.
    fn end(self) -> SimulatedDisk {
        self.observer.0.lock().take();
        self.disk.clone()
    }
}

#[test]
fn a_replica_moves_with_all_its_records_and_goes_on_where_it_is_then() {
    let disk = SimulatedDisk::new(1);
    let mut broker = Broker::with_records(&disk);
    let before = broker.bytes();
    assert_eq!(broker.alter("/a"), Ok(()), "there it is");
    assert_eq!(broker.future_end(), None);
    assert_eq!(broker.alter("/b"), Ok(()));
    assert_eq!(broker.alter("/b"), Ok(()), "it goes on");
    broker.step();
    assert!(broker.future_end().unwrap() < 10, "a part at a time");
    let high_watermark = broker.partition().log().high_watermark();
    assert_eq!(broker.run(), None);
    assert_eq!((broker.home(), broker.future_end()), (PathBuf::from("/b"), None));
    assert_eq!(broker.bytes(), before);
    assert_eq!(broker.partition().log().high_watermark(), high_watermark);
    broker.append(10..12);
    assert_eq!(broker.partition().log().log_end_offset(), Offset(12));
    // The machine hears of the new log's ends.
    assert_eq!(broker.partition().log().high_watermark(), Offset(12));
}

#[test]
fn a_log_that_grows_all_the_while_is_level_in_the_end() {
    let disk = SimulatedDisk::new(1);
    let mut broker = Broker::with_records(&disk);
    broker.alter("/b").unwrap();
    let mut end = 10;
    while broker.home() == Path::new("/a") {
        broker.append(end..end + 1);
        end += 1;
        broker.step();
        assert!(end < 40, "it does not come to an end");
    }
    assert_eq!(broker.partition().log().log_end_offset(), Offset(end));
}

#[test]
fn a_move_is_taken_back_and_what_was_copied_is_removed() {
    let disk = SimulatedDisk::new(1);
    let mut broker = Broker::with_records(&disk);
    broker.alter("/b").unwrap();
    broker.step();
    broker.alter("/a").unwrap();
    assert_eq!(broker.run(), None);
    assert_eq!((broker.home(), broker.future_end()), (PathBuf::from("/a"), None));
    assert!(broker.logs.futures().is_empty());
    broker.alter("/b").unwrap();
    broker.run();
    assert_eq!(broker.home(), Path::new("/b"));
}

#[test]
fn a_move_goes_on_after_a_kill_with_the_next_role() {
    let disk = SimulatedDisk::new(1);
    let mut broker = Broker::with_records(&disk);
    broker.alter("/b").unwrap();
    broker.step();
    broker.step();
    let copied = broker.logs.futures()[0].1.log_end_offset();
    assert!(copied > Offset(0) && copied < Offset(10));
    let mut broker = Broker::start(&broker.end());
    assert_eq!(broker.run(), None, "nobody said where the partition is led");
    assert_eq!(broker.logs.futures()[0].1.log_end_offset(), copied);
    broker.lead(2);
    assert_eq!(broker.run(), None);
    assert_eq!(broker.home(), Path::new("/b"));
    assert_eq!(broker.partition().log().log_end_offset(), Offset(10));
}

#[test]
fn a_future_log_that_has_what_the_current_one_lost_is_cut_at_their_parting() {
    let disk = SimulatedDisk::new(1);
    let mut broker = Broker::with_records(&disk);
    broker.alter("/b").unwrap();
    broker.step();
    broker.step();
    let copied = broker.future_end().unwrap();
    // While the copy was out of sight the current log was cut below its end, and grew in another reign.
    let partition = broker.partition();
    partition.set_future(None);
    broker.logs.truncate_to(&[(name(), Offset(1))]).unwrap();
    partition
        .log()
        .assign_leader_epoch(LeaderEpoch(3), Offset(1))
        .unwrap();
    let mut batches = Vec::new();
    for offset in 1..copied + 3 {
        let mut builder = RecordBatchBuilder::new()
            .base_offset(Offset(offset))
            .leader_epoch(LeaderEpoch(3));
        builder.append(TimestampMs(2), None, Some(b"of another reign"));
        batches.extend(builder.build());
    }
    partition.log().append_as_follower(&batches).unwrap();
    broker.lead(3);
    let expected = broker.bytes();
    assert_eq!(broker.run(), None);
    assert_eq!(broker.home(), Path::new("/b"));
    assert_eq!(broker.bytes(), expected);
}

#[test]
fn a_follower_that_is_cut_has_its_copy_cut_with_it() {
    let disk = SimulatedDisk::new(1);
    let mut broker = Broker::with_records(&disk);
    broker.alter("/b").unwrap();
    broker.step();
    broker.step();
    broker.told(1, 2);
    let partition = broker.partition();
    partition.truncate_as_follower(LeaderEpoch(2), Offset(1)).unwrap();
    assert_eq!(broker.future_end(), Some(1));
    partition.restart_as_follower(LeaderEpoch(2), Offset(5)).unwrap();
    assert_eq!(broker.future_end(), Some(5));
    broker.append(5..8);
    broker.run();
    assert_eq!(broker.home(), Path::new("/b"));
    let log = broker.partition().log();
    assert_eq!(
        (log.log_start_offset(), log.log_end_offset()),
        (Offset(5), Offset(8))
    );
}

#[test]
fn a_log_that_starts_inside_a_batch_starts_so_elsewhere_too() {
    let disk = SimulatedDisk::new(1);
    let mut broker = Broker::with_records(&disk);
    broker.told(1, 2);
    let mut builder = RecordBatchBuilder::new()
        .base_offset(Offset(30))
        .leader_epoch(LeaderEpoch(2));
    for number in 0..6 {
        builder.append(TimestampMs(number), None, Some(b"one of six"));
    }
    let records = builder.build();
    let answer = FetchedPartition {
        fetch_offset: Offset(33),
        high_watermark: Offset(36),
        log_start_offset: Some(Offset(33)),
        records: &records,
    };
    let partition = broker.partition();
    partition.restart_as_follower(LeaderEpoch(2), Offset(33)).unwrap();
    let (end, _) = partition.append_as_follower(LeaderEpoch(2), &answer).unwrap();
    let bounds = {
        let log = broker.partition().log().offsets();
        (log.log_start_offset, log.log_end_offset)
    };
    assert_eq!(bounds, (Offset(33), end));
    assert_eq!(end, Offset(36));
    broker.alter("/b").unwrap();
    broker.run();
    assert_eq!(broker.home(), Path::new("/b"));
    let log = broker.partition().log().offsets();
    assert_eq!(
        (log.log_start_offset, log.log_end_offset),
        (Offset(33), Offset(36))
    );
}

#[test]
fn records_deleted_meanwhile_are_not_there_after_the_move() {
    let disk = SimulatedDisk::new(1);
    let mut broker = Broker::with_records(&disk);
    broker.partition().log().set_high_watermark(Offset(10));
    broker.alter("/b").unwrap();
    broker.step();
    broker.partition().delete_records(Offset(7)).unwrap();
    broker.run();
    assert_eq!(broker.home(), Path::new("/b"));
    assert_eq!(broker.partition().log().log_start_offset(), Offset(7));
}

#[test]
fn the_rate_of_moves_is_kept() {
    let disk = SimulatedDisk::new(1);
    let mut broker = Broker::with_records(&disk);
    broker.replicas.quotas().alter_log_dirs.set_rate(10);
    broker.alter("/b").unwrap();
    assert_eq!(broker.run(), Some(Duration::from_secs(1)));
    let first = broker.future_end().unwrap();
    assert!(first > 0 && first < 10);
    broker.clock.advance(Duration::from_secs(1));
    broker.run();
    assert_eq!(broker.future_end(), Some(first));
    broker.clock.advance(Duration::from_secs(11));
    broker.run();
    assert!(broker.future_end().unwrap() > first);
    broker.replicas.quotas().alter_log_dirs.set_rate(u64::MAX);
    assert_eq!(broker.run(), None);
    assert_eq!(broker.home(), Path::new("/b"));
}

#[test]
fn a_stopped_replica_moves_no_more_and_a_deleted_one_leaves_nothing() {
    let disk = SimulatedDisk::new(1);
    let mut broker = Broker::with_records(&disk);
    broker.alter("/b").unwrap();
    broker.step();
    broker.replicas.stop_replicas(&[(name(), false)]);
    assert_eq!(broker.run(), None);
    assert_eq!(broker.logs.futures().len(), 1, "it comes back with the replica");
    broker.lead(2);
    broker.step();
    broker.replicas.stop_replicas(&[(name(), true)]);
    assert_eq!(broker.run(), None);
    assert!(broker.logs.futures().is_empty() && broker.logs.get(&name()).is_none());
}

#[test]
fn a_failed_destination_ends_the_move_and_nothing_else() {
    let disk = SimulatedDisk::new(1);
    let mut broker = Broker::with_records(&disk);
    broker.alter("/b").unwrap();
    broker.step();
    disk.fail_below(Path::new("/b"), Fault::Eio);
    assert_eq!(broker.run(), None);
    assert_eq!((broker.home(), broker.future_end()), (PathBuf::from("/a"), None));
    broker.append(10..11);
    assert!(matches!(broker.alter("/b"), Err(AlterLogDirError::Storage(_))));
    assert_eq!(broker.alter("/a"), Ok(()));
}

#[test]
fn a_failed_source_takes_the_replica_offline() {
    let disk = SimulatedDisk::new(1);
    let mut broker = Broker::with_records(&disk);
    broker.alter("/b").unwrap();
    broker.step();
    broker
        .logs
        .directory(Path::new("/a"))
        .unwrap()
        .take_offline("it was pulled out".to_owned());
    assert_eq!(broker.run(), None);
    assert_eq!(
        broker.replicas.partition("t", 0).unwrap_err(),
        PartitionRefusal::Offline
    );
    assert!(matches!(broker.alter("/b"), Err(AlterLogDirError::Storage(_))));
}

#[test]
fn at_each_failing_operation_of_a_move_the_replica_is_whole_in_one_directory() {
    let mut count = 0;
    let mut outcomes = std::collections::BTreeSet::new();
    loop {
        let disk = SimulatedDisk::new(5);
        let mut broker = Broker::with_records(&disk);
        let expected = broker.bytes();
        disk.fail_after(count, Fault::Eio);
        let before = disk.op_count();
        let begun = broker.alter("/b");
        broker.run();
        let is_over = disk.op_count() - before <= count;
        match broker.replicas.partition("t", 0) {
            Ok(_) => {
                assert_eq!(broker.bytes(), expected, "operation {count}");
                outcomes.insert(broker.home());
                assert_eq!(broker.future_end(), None, "operation {count}: {begun:?}");
            }
            Err(refusal) => assert_eq!(refusal, PartitionRefusal::Offline, "operation {count}"),
        }
        if is_over {
            break;
        }
        count += 1;
    }
    assert!(count > 20, "{count} operations");
    assert_eq!(outcomes.len(), 2);
}

#[test]
fn what_cannot_move_is_told_why_and_what_is_not_here_yet_is_remembered() {
    let disk = SimulatedDisk::new(1);
    let broker = Broker::start(&disk);
    let no_such = AlterLogDirError::NoSuchDirectory(PathBuf::from("/c"));
    assert_eq!(broker.alter("/c"), Err(no_such));
    let long = TopicPartition::new("x".repeat(240), 0);
    let altered = broker
        .replicas
        .alter_replica_log_dirs(vec![(long, PathBuf::from("/b"))]);
    assert_eq!(altered[0].1, Err(AlterLogDirError::TopicNameTooLong));
    assert_eq!(broker.alter("/b"), Err(AlterLogDirError::NotHosted));
    broker.lead(1);
    assert_eq!(broker.home(), Path::new("/b"));
}
