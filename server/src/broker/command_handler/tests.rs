//! What commands do to a broker, and what is answered for each partition.

use std::path::Path;

use milena_engine::io::Io;
use milena_engine::io::simulated::SimulatedDisk;
use milena_engine::log_manager::WantedLog;
use milena_engine::units::{LeaderEpoch, Offset, ProducerEpoch, ProducerId};

use super::*;
use crate::broker::RunningBroker;
use crate::broker::life::tests::start_on;
use crate::cluster::LeaderAndIsr;
use crate::controller::command::{MetadataLeader, PartitionMetadataUpdate};
use crate::group::requests::{CommitOffsets, FetchedOffset, GroupError, OffsetAndMetadata};
use crate::handlers::write_txn_markers;
use crate::protocol::messages::transaction_markers::{
    WritableTxnMarker, WritableTxnMarkerTopic, WriteTxnMarkersRequest,
};
use CommandRefusal::{
    FencedLeaderEpoch, KafkaStorageError, StaleBrokerEpoch, StaleControllerEpoch, UnknownTopicOrPartition,
};

/// A broker that stands alone, commanded by a controller 7 that follows its own.
struct Commanded {
    broker: RunningBroker,
    disk: SimulatedDisk,
    origin: CommandOrigin,
}

impl Commanded {
    fn start() -> Commanded {
        let disk = SimulatedDisk::new(1);
        let broker = start_on(&disk).unwrap();
        let broker_epoch = broker.broker().epoch.load(Ordering::Acquire);
        assert!(broker_epoch > 0);
        let origin = CommandOrigin {
            controller_id: 7,
            controller_epoch: 5,
            broker_epoch,
        };
        Commanded { broker, disk, origin }
    }

    fn obey(&self, command: BrokerCommand) -> BrokerReply {
        run(self.broker.broker().commands.submit(command))
    }

    fn take(&self, partitions: &[(&str, i32)]) -> BrokerReply {
        self.obey(lead(self.origin, partitions))
    }

    /// Coordinates the groups of partition 0 from now on; the name of one.
    fn coordinate(&self) -> String {
        assert_eq!(self.take(&[(GROUP_METADATA_TOPIC_NAME, 0)]), Ok(vec![]));
        let groups = &self.broker.broker().groups;
        let mut names = (0..).map(|number| format!("g{number}"));
        let group = names.find(|group| groups.partition_for(group) == 0).unwrap();
        while groups.describe_group(&group).err() == Some(GroupError::CoordinatorLoadInProgress) {
            std::thread::yield_now();
        }
        group
    }

    fn stop_replica(&self, topic: &str, leader_epoch: Option<i32>, delete_partition: bool) -> BrokerReply {
        self.obey(BrokerCommand::StopReplica(StopReplicaCommand {
            origin: self.origin,
            partitions: vec![StopReplicaPartition {
                topic_partition: TopicPartition::new(topic, 0),
                leader_epoch: leader_epoch.map(LeaderEpoch),
                delete_partition,
            }],
        }))
    }

    fn leads(&self, topic: &str) -> bool {
        let partition = self.broker.broker().replicas.partition(topic, 0);
        partition.is_ok_and(|partition| partition.check_leader(-1).is_ok())
    }

    fn has_directory(&self, topic: &str) -> bool {
        ["/a", "/b"].iter().any(|directory| {
            let path = Path::new(directory).join(format!("{topic}-0"));
            self.disk.stat(&path).unwrap().is_some()
        })
    }
}

fn run<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(future)
}

fn placed(topic: &str, leader_epoch: i32, replicas: &[i32]) -> LeaderAndIsrPartition {
    LeaderAndIsrPartition {
        topic_partition: TopicPartition::new(topic, 0),
        controller_epoch: 5,
        state: LeaderAndIsr {
            leader: Some(0),
            leader_epoch: LeaderEpoch(leader_epoch),
            isr: [0].into(),
            zk_version: 0,
        },
        replicas: replicas.into(),
        adding_replicas: [].into(),
        removing_replicas: [].into(),
        is_new: true,
    }
}

/// This broker leads partition 0 of these topics, in these leader epochs.
fn lead(origin: CommandOrigin, topics: &[(&str, i32)]) -> BrokerCommand {
    let partitions = topics.iter().map(|(topic, epoch)| placed(topic, *epoch, &[0]));
    BrokerCommand::LeaderAndIsr(LeaderAndIsrCommand {
        origin,
        partitions: partitions.collect(),
        live_leaders: Vec::new(),
    })
}

fn announce(origin: CommandOrigin, topic: &str) -> BrokerCommand {
    BrokerCommand::UpdateMetadata(UpdateMetadataCommand {
        origin,
        partitions: vec![PartitionMetadataUpdate {
            topic_partition: TopicPartition::new(topic, 0),
            controller_epoch: 5,
            leader: MetadataLeader::Broker(0),
            leader_epoch: LeaderEpoch(0),
            isr: [0].into(),
            zk_version: 0,
            replicas: [0].into(),
            offline_replicas: [].into(),
        }],
        live_brokers: [].into(),
    })
}

fn stop_all(origin: CommandOrigin) -> BrokerCommand {
    BrokerCommand::StopReplica(StopReplicaCommand {
        origin,
        partitions: Vec::new(),
    })
}

fn refused(topic: &str, refusal: CommandRefusal) -> BrokerReply {
    Ok(vec![(TopicPartition::new(topic, 0), refusal)])
}

#[test]
fn a_command_of_a_former_controller_or_to_a_former_life_is_refused_whole_and_changes_nothing() {
    let commanded = Commanded::start();
    let now = commanded.origin;
    assert_eq!(commanded.take(&[("t", 0)]), Ok(vec![]));
    let former_controller = CommandOrigin {
        controller_epoch: 4,
        ..now
    };
    let former_life = CommandOrigin {
        broker_epoch: now.broker_epoch - 1,
        // Nothing is learnt from what is meant for another.
        controller_epoch: 99,
        ..now
    };
    for (origin, refusal) in [
        (former_controller, StaleControllerEpoch),
        (former_life, StaleBrokerEpoch),
    ] {
        assert_eq!(commanded.obey(lead(origin, &[("u", 0)])), Err(refusal));
        assert_eq!(commanded.obey(announce(origin, "u")), Err(refusal));
        assert_eq!(commanded.obey(stop_all(origin)), Err(refusal));
    }
    assert!(!commanded.leads("u") && !commanded.has_directory("u"));
    assert!(!commanded.broker.broker().metadata.contains("u", 0));
    assert_eq!(commanded.take(&[("t", 1)]), Ok(vec![]));
    commanded.broker.stop();
}

#[test]
fn a_controller_that_does_not_say_which_life_it_means_or_knows_of_a_later_one_is_obeyed() {
    let commanded = Commanded::start();
    let now = commanded.origin;
    for (epoch, topic) in [(UNKNOWN_BROKER_EPOCH, "a"), (now.broker_epoch + 1, "b")] {
        let origin = CommandOrigin {
            broker_epoch: epoch,
            ..now
        };
        assert_eq!(commanded.obey(announce(origin, topic)), Ok(vec![]));
        assert!(commanded.broker.broker().metadata.contains(topic, 0));
    }
    commanded.broker.stop();
}

#[test]
fn leader_and_isr_is_answered_for_each_partition_as_kafka_does() {
    let commanded = Commanded::start();
    assert_eq!(commanded.take(&[("t", 3)]), Ok(vec![]));
    assert!(commanded.leads("t") && commanded.has_directory("t"));
    for (epoch, what) in [(3, "the same"), (2, "an older"), (-1, "no")] {
        let reply = commanded.take(&[("t", epoch)]);
        assert_eq!(reply, refused("t", StaleControllerEpoch), "{what} leader epoch");
    }
    assert_eq!(commanded.take(&[("n", -1)]), refused("n", StaleControllerEpoch));
    assert!(!commanded.has_directory("n"), "no leader has a negative epoch");
    assert_eq!(
        commanded.take(&[("d", 0), ("d", 1)]),
        refused("d", StaleControllerEpoch)
    );
    assert!(commanded.leads("d"), "the first word counts");
    for (topic, refusal) in [
        ("t", UnknownTopicOrPartition),
        ("elsewhere", UnknownTopicOrPartition),
    ] {
        let reply = commanded.obey(BrokerCommand::LeaderAndIsr(LeaderAndIsrCommand {
            origin: commanded.origin,
            partitions: vec![placed(topic, 9, &[1, 2]), placed("good", 9, &[0, 1])],
            live_leaders: Vec::new(),
        }));
        let also = (TopicPartition::new("good", 0), StaleControllerEpoch);
        let mut expected = refused(topic, refusal).unwrap();
        expected.extend((topic == "elsewhere").then_some(also));
        assert_eq!(reply, Ok(expected), "it is not a replica");
        assert!(commanded.leads("good"));
    }
    assert!(commanded.leads("t"), "it keeps what it has until it is taken");
    assert!(!commanded.has_directory("elsewhere"));
    commanded.broker.stop();
}

#[test]
fn stop_replica_obeys_only_what_is_newer_unless_no_epoch_is_said() {
    let commanded = Commanded::start();
    assert_eq!(commanded.take(&[("t", 3), ("deleted", 3)]), Ok(vec![]));
    for epoch in [2, 3] {
        assert_eq!(
            commanded.stop_replica("t", Some(epoch), true),
            refused("t", FencedLeaderEpoch)
        );
    }
    assert!(commanded.leads("t"));
    assert_eq!(commanded.stop_replica("t", Some(4), false), Ok(vec![]));
    assert!(!commanded.leads("t") && commanded.has_directory("t"));
    assert_eq!(commanded.stop_replica("t", Some(4), true), Ok(vec![]));
    assert!(!commanded.has_directory("t"), "the log goes, whoever hosted it");
    assert_eq!(commanded.stop_replica("deleted", None, true), Ok(vec![]));
    assert!(!commanded.has_directory("deleted"));
    assert_eq!(commanded.stop_replica("never-here", Some(0), true), Ok(vec![]));
    commanded.broker.stop();
}

#[test]
fn a_partition_whose_directory_failed_is_answered_as_a_storage_error() {
    let commanded = Commanded::start();
    assert_eq!(commanded.take(&[("t", 0)]), Ok(vec![]));
    let broker = commanded.broker.broker();
    let partition = broker.replicas.partition("t", 0).unwrap();
    broker.replicas.out_of_service(partition.name());
    assert_eq!(commanded.take(&[("t", 1)]), refused("t", KafkaStorageError));
    assert_eq!(
        commanded.stop_replica("t", Some(2), true),
        refused("t", KafkaStorageError)
    );
    commanded.broker.stop();
}

#[test]
fn the_coordinator_of_groups_whose_partition_failed_coordinates_them_no_more() {
    let commanded = Commanded::start();
    let topic = GROUP_METADATA_TOPIC_NAME;
    let group = commanded.coordinate();
    let broker = commanded.broker.broker();
    assert!(broker.groups.describe_group(&group).is_ok());
    broker.replicas.out_of_service(&TopicPartition::new(topic, 0));
    assert_eq!(commanded.take(&[(topic, 1)]), refused(topic, KafkaStorageError));
    assert_eq!(
        broker.groups.describe_group(&group).err(),
        Some(GroupError::NotCoordinator)
    );
    commanded.broker.stop();
}

#[test]
fn an_offset_counts_once_the_marker_of_its_transaction_is_written() {
    let commanded = Commanded::start();
    let group = commanded.coordinate();
    let broker = commanded.broker.broker();
    let of = TopicPartition::new("t", 0);
    let value = OffsetAndMetadata {
        offset: Offset(5),
        leader_epoch: None,
        metadata: "".into(),
        commit_timestamp: broker.clock.wall(),
        expire_timestamp: None,
    };
    let commit = CommitOffsets {
        group_id: group.as_str().into(),
        member_id: "".into(),
        group_instance_id: None,
        generation_id: -1,
        offsets: vec![(of.clone(), value)],
        transaction: Some((ProducerId(7), ProducerEpoch(0))),
    };
    let fetched = || {
        broker
            .groups
            .fetch_offsets(&group, Some(std::slice::from_ref(&of)), true)
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    runtime.block_on(async {
        assert_eq!(broker.groups.commit_offsets(commit).await, [Ok(())]);
        assert_eq!(fetched().unwrap()[0].1, FetchedOffset::Unstable);
        let topic = WritableTxnMarkerTopic {
            name: GROUP_METADATA_TOPIC_NAME.into(),
            partition_indexes: vec![0].into(),
        };
        let marker = WritableTxnMarker {
            producer_id: 7,
            producer_epoch: 0,
            transaction_result: true,
            topics: vec![topic].into(),
            coordinator_epoch: 0,
        };
        let request = WriteTxnMarkersRequest {
            markers: vec![marker].into(),
        };
        write_txn_markers::handle(broker, &request).await;
    });
    assert!(matches!(&fetched().unwrap()[0].1, FetchedOffset::Committed(found) if found.offset == Offset(5)));
    commanded.broker.stop();
}

#[test]
fn a_log_that_was_created_with_settings_of_before_gets_those_that_hold_when_it_is_hosted() {
    let commanded = Commanded::start();
    let logs = &commanded.broker.broker().logs;
    let (before, name) = (LogConfig::default(), TopicPartition::new("t", 0));
    let wanted = WantedLog {
        partition: name.clone(),
        config: Arc::new(LogConfig {
            segment_size_bytes: before.segment_size_bytes / 2,
            ..before.clone()
        }),
        is_new: true,
        preferred_directory: None,
    };
    let log = logs.get_or_create(wanted).expect("room on the disk");
    assert_ne!(*log.config(), before);
    assert_eq!(commanded.take(&[("t", 0)]), Ok(vec![]));
    assert_eq!(*log.config(), before);
}

#[test]
fn commands_are_carried_out_in_the_order_in_which_they_were_submitted() {
    let commanded = Commanded::start();
    let commands = &commanded.broker.broker().commands;
    let epochs = [0, 2, 1, 3];
    let replies = epochs.map(|epoch| commands.submit(lead(commanded.origin, &[("t", epoch)])));
    let replies = replies.map(run);
    let stale = refused("t", StaleControllerEpoch);
    assert_eq!(replies, [Ok(vec![]), Ok(vec![]), stale, Ok(vec![])]);
    commanded.broker.stop();
}
