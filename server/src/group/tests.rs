//! The shell: with a log in memory, real futures, and a clock that is moved by hand.

use std::collections::HashMap;
use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use milena_engine::config::Codec;
use milena_engine::record_batch::batches;
use milena_engine::units::{Offset, TimestampMs};

use super::*;
use offset_store::ReadChunk;

/// A clock that stands still unless told otherwise.
#[derive(Debug, Default)]
pub(crate) struct HandClock(AtomicI64);

impl Clock for HandClock {
    fn wall(&self) -> TimestampMs {
        TimestampMs(1_000_000 + self.0.load(Ordering::SeqCst))
    }

    fn monotonic(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::SeqCst).unsigned_abs())
    }
}

/// `__consumer_offsets` in memory. Answers at once, or when told.
#[derive(Default)]
pub(crate) struct MemoryLog {
    partitions: Mutex<HashMap<i32, (Vec<u8>, i64)>>,
    holds: AtomicBool,
    held: Mutex<Vec<(offset_store::AppendDone, Offset)>>,
}

impl MemoryLog {
    fn release(&self) {
        for (done, offset) in std::mem::take(&mut *self.held.lock()) {
            done(Ok(offset));
        }
    }
}

impl CoordinatorLog for MemoryLog {
    fn append(&self, partition: i32, batch: Bytes, done: offset_store::AppendDone) {
        let offset = {
            let mut partitions = self.partitions.lock();
            let (bytes, end) = partitions.entry(partition).or_default();
            let offset = Offset(*end);
            let mut batch = batch.to_vec();
            batch[..8].copy_from_slice(&offset.get().to_be_bytes());
            let parsed = batches(&batch).next().expect("one batch").expect("a good batch");
            *end = parsed.next_offset().get();
            bytes.extend(&batch);
            offset
        };
        if self.holds.load(Ordering::SeqCst) {
            self.held.lock().push((done, offset));
        } else {
            done(Ok(offset));
        }
    }

    fn read(&self, partition: i32, from: Offset, max_bytes: usize) -> Result<ReadChunk, AppendFailure> {
        let partitions = self.partitions.lock();
        let (bytes, end) = partitions.get(&partition).cloned().unwrap_or_default();
        let mut chunk = Vec::new();
        for batch in batches(&bytes)
            .flatten()
            .filter(|batch| batch.next_offset() > from)
        {
            if !chunk.is_empty() && chunk.len() + batch.size_bytes() > max_bytes {
                break;
            }
            chunk.extend_from_slice(batch.bytes());
        }
        Ok(ReadChunk {
            bytes: chunk.into(),
            log_end_offset: Offset(end),
        })
    }
}

/// A coordinator that leads all partitions, in a world without initial delay.
pub(crate) fn leading_coordinator() -> Arc<GroupCoordinator> {
    let log = Arc::new(MemoryLog::default());
    let config = GroupConfig {
        group_initial_rebalance_delay_ms: 0,
        ..GroupConfig::default()
    };
    let coordinator = GroupCoordinator::new(config, log, Arc::new(HandClock::default()));
    elect(&coordinator, 1);
    coordinator
}

fn coordinator(log: &Arc<MemoryLog>) -> (Arc<GroupCoordinator>, Arc<HandClock>) {
    let clock = Arc::new(HandClock::default());
    // A small buffer, so that loading takes several reads.
    let config = GroupConfig {
        offsets_load_buffer_size_bytes: 200,
        ..GroupConfig::default()
    };
    let log = Arc::clone(log);
    (
        GroupCoordinator::new(config, log, Arc::clone(&clock) as Arc<dyn Clock>),
        clock,
    )
}

fn elect(coordinator: &GroupCoordinator, epoch: i32) {
    for partition in 0..coordinator.partition_count() {
        coordinator.on_election(partition, epoch);
    }
    // The loading thread needs no help but time to run.
    while coordinator.list_groups(&[]).expect("running").loading {
        std::thread::yield_now();
    }
}

fn poll<F: Future>(future: std::pin::Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

fn now<F: Future>(future: F) -> F::Output {
    match poll(pin!(future)) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("the answer is not there"),
    }
}

fn join(group_id: &str) -> JoinGroup {
    JoinGroup {
        group_id: group_id.into(),
        member_id: "".into(),
        group_instance_id: None,
        require_known_member_id: false,
        client_id: "c".into(),
        client_host: "/127.0.0.1".into(),
        rebalance_timeout_ms: 60_000,
        session_timeout_ms: 10_000,
        protocol_type: "consumer".into(),
        protocols: vec![Protocol {
            name: "range".into(),
            metadata: Bytes::new(),
        }],
    }
}

fn commit(group_id: &str, offset: i64) -> CommitOffsets {
    let value = OffsetAndMetadata {
        offset: Offset(offset),
        leader_epoch: None,
        metadata: "".into(),
        commit_timestamp: TimestampMs(1_000_000),
        expire_timestamp: None,
    };
    CommitOffsets {
        group_id: group_id.into(),
        member_id: "".into(),
        group_instance_id: None,
        generation_id: -1,
        offsets: vec![(TopicPartition::new("t", 0), value)],
        transaction: None,
    }
}

#[test]
fn a_member_joins_syncs_commits_and_is_found_by_the_next_coordinator() {
    let log = Arc::new(MemoryLog::default());
    let (coordinator, clock) = coordinator(&log);
    elect(&coordinator, 1);
    let joined = {
        let mut joining = pin!(coordinator.join_group(join("g")));
        assert!(poll(joining.as_mut()).is_pending());
        assert_eq!(coordinator.next_deadline(), Some(3_000));
        clock.0.store(3_000, Ordering::SeqCst);
        coordinator.tick();
        now(joining).expect("a generation")
    };
    let request = SyncGroup {
        group_id: "g".into(),
        generation_id: joined.generation_id,
        member_id: joined.member_id.clone(),
        group_instance_id: None,
        protocol_type: None,
        protocol_name: None,
        assignments: vec![(joined.member_id.clone(), Bytes::from_static(b"all"))],
    };
    assert_eq!(
        now(coordinator.sync_group(request.clone()))
            .expect("an assignment")
            .assignment,
        "all"
    );
    for index in 0..20 {
        assert_eq!(
            now(coordinator.commit_offsets(commit(&format!("simple-{index}"), index))),
            [Ok(())]
        );
    }
    drop(coordinator);

    let (next, _) = self::coordinator(&log);
    elect(&next, 2);
    assert_eq!(next.list_groups(&[]).expect("running").groups.len(), 21);
    let stable = next.list_groups(&["Stable"]).expect("running").groups;
    assert_eq!(
        stable.iter().map(|group| &*group.group_id).collect::<Vec<_>>(),
        ["g"]
    );
    assert_eq!(
        now(next.sync_group(request)).expect("an assignment").assignment,
        "all"
    );
    let fetched = next.fetch_offsets("simple-7", None, true).expect("loaded");
    assert!(matches!(&fetched[0].1, FetchedOffset::Committed(value) if value.offset == Offset(7)));
}

#[test]
fn offsets_and_groups_are_written_with_the_codec_of_the_topic_and_read_back() {
    for codec in [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
        let log = Arc::new(MemoryLog::default());
        let start = || {
            let config = GroupConfig {
                group_initial_rebalance_delay_ms: 0,
                offsets_topic_compression_codec: codec,
                ..GroupConfig::default()
            };
            let log = Arc::clone(&log) as Arc<dyn CoordinatorLog>;
            GroupCoordinator::new(config, log, Arc::new(HandClock::default()))
        };
        let coordinator = start();
        elect(&coordinator, 1);
        now(coordinator.commit_offsets(commit("committed", 7)));
        now(coordinator.commit_offsets(commit("deleted", 8)));
        assert_eq!(now(coordinator.delete_groups(&["deleted".into()])), [Ok(())]);
        let joined = now(coordinator.join_group(join("group"))).expect("a generation");
        let request = SyncGroup {
            group_id: "group".into(),
            generation_id: joined.generation_id,
            member_id: joined.member_id.clone(),
            group_instance_id: None,
            protocol_type: None,
            protocol_name: None,
            assignments: vec![(joined.member_id, Bytes::from_static(b"all"))],
        };
        now(coordinator.sync_group(request)).expect("an assignment");
        drop(coordinator);
        let mut written = 0;
        for (bytes, _) in log.partitions.lock().values() {
            for batch in batches(bytes) {
                assert_eq!(batch.expect("good").codec(), codec);
                written += 1;
            }
        }
        assert_eq!(written, 4, "two commits, a deletion and a generation");

        let next = start();
        elect(&next, 2);
        let found = |group: &str| next.fetch_offsets(group, None, true).expect("loaded");
        assert!(
            matches!(&found("committed")[0].1, FetchedOffset::Committed(value) if value.offset == Offset(7))
        );
        assert_eq!(found("deleted"), []);
        let stable = next.list_groups(&["Stable"]).expect("running").groups;
        assert_eq!(
            stable.iter().map(|group| &*group.group_id).collect::<Vec<_>>(),
            ["group"]
        );
    }
}

#[test]
fn a_commit_waits_for_the_log_without_holding_up_others() {
    let log = Arc::new(MemoryLog::default());
    let (coordinator, _clock) = coordinator(&log);
    elect(&coordinator, 1);
    log.holds.store(true, Ordering::SeqCst);
    let mut first = pin!(coordinator.commit_offsets(commit("g", 1)));
    let mut second = pin!(coordinator.commit_offsets(commit("g", 2)));
    assert!(poll(first.as_mut()).is_pending());
    assert!(poll(second.as_mut()).is_pending());
    assert_eq!(coordinator.fetch_offsets("g", None, false), Ok(Vec::new()));
    log.release();
    assert_eq!(now(first), [Ok(())]);
    assert_eq!(now(second), [Ok(())]);
    let fetched = coordinator.fetch_offsets("g", None, false).expect("loaded");
    assert!(matches!(&fetched[0].1, FetchedOffset::Committed(value) if value.offset == Offset(2)));
}

#[test]
fn groups_are_deleted_together() {
    let log = Arc::new(MemoryLog::default());
    let (coordinator, _clock) = coordinator(&log);
    elect(&coordinator, 1);
    now(coordinator.commit_offsets(commit("a", 1)));
    let results = now(coordinator.delete_groups(&["a".into(), "b".into()]));
    assert_eq!(results, [Ok(()), Err(GroupError::GroupIdNotFound)]);
    assert_eq!(coordinator.list_groups(&[]).expect("running").groups, []);
}

#[test]
fn a_partition_the_topic_did_not_have_is_passed_over() {
    let log = Arc::new(MemoryLog::default());
    let (coordinator, _clock) = coordinator(&log);
    coordinator.on_election(50, 1);
    coordinator.on_resignation(-1, None);
    assert!(!coordinator.list_groups(&[]).expect("running").loading);
}

#[test]
fn who_waits_is_answered_when_the_broker_stops() {
    let log = Arc::new(MemoryLog::default());
    let (coordinator, _clock) = coordinator(&log);
    elect(&coordinator, 1);
    let mut joining = pin!(coordinator.join_group(join("g")));
    assert!(poll(joining.as_mut()).is_pending());
    coordinator.shutdown();
    assert_eq!(
        now(joining).expect_err("stopped").error,
        GroupError::NotCoordinator
    );
    assert_eq!(
        coordinator.list_groups(&[]),
        Err(GroupError::CoordinatorNotAvailable)
    );
}

#[test]
fn the_timer_sleeps_until_the_earliest_deadline_and_ends_with_the_broker() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let log = Arc::new(MemoryLog::default());
        let config = GroupConfig {
            group_initial_rebalance_delay_ms: 20,
            ..GroupConfig::default()
        };
        let clock = Arc::new(milena_engine::io::SystemClock::new());
        let coordinator = GroupCoordinator::new(config, Arc::clone(&log) as Arc<dyn CoordinatorLog>, clock);
        elect(&coordinator, 1);
        let timer = tokio::spawn(Arc::clone(&coordinator).run_timer());
        let joined = coordinator.join_group(join("g")).await.expect("a generation");
        assert_eq!(joined.generation_id, 1);
        coordinator.shutdown();
        timer.await.expect("ends");
    });
}

#[test]
fn a_member_id_is_a_version_4_uuid() {
    let uuid = format!("{:032x}", random_uuid());
    assert_eq!(uuid.as_bytes()[12], b'4');
    assert!(matches!(uuid.as_bytes()[16], b'8' | b'9' | b'a' | b'b'));
}
