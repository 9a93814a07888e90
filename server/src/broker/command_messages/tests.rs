//! Commands through every version of their messages.

use super::*;
use crate::protocol::{Message, Reader, Writer};

const ORIGIN: CommandOrigin = CommandOrigin {
    controller_id: 3,
    controller_epoch: 9,
    broker_epoch: 1 << 40,
};

fn bytes_of<'m, M: Message<'m>>(message: &M, version: i16) -> Vec<u8> {
    let mut writer = Writer::new();
    message.encode(&mut writer, version).unwrap();
    writer.as_slice().to_vec()
}

fn read<'b, M: Message<'b>>(bytes: &'b [u8], version: i16) -> M {
    let mut reader = Reader::new(bytes);
    let message = M::decode(&mut reader, version).unwrap();
    assert_eq!(reader.position(), bytes.len(), "nothing is left over");
    message
}

fn origin(knows_broker_epoch: bool) -> CommandOrigin {
    CommandOrigin {
        broker_epoch: if knows_broker_epoch {
            ORIGIN.broker_epoch
        } else {
            -1
        },
        ..ORIGIN
    }
}

fn endpoint(listener: &str, port: i32, security_protocol: SecurityProtocol) -> Endpoint {
    Endpoint {
        listener: listener.into(),
        host: "h".into(),
        port,
        security_protocol,
    }
}

fn broker(id: i32, rack: Option<&str>) -> Broker {
    Broker {
        id,
        endpoints: vec![
            endpoint("PLAINTEXT", 9092 + id, SecurityProtocol::Plaintext),
            endpoint("EXTERNAL", 9192 + id, SecurityProtocol::SaslSsl),
        ],
        rack: rack.map(Into::into),
    }
}

fn leader_and_isr(topic: &str, partition: i32, leader: Option<i32>) -> LeaderAndIsrPartition {
    LeaderAndIsrPartition {
        topic_partition: TopicPartition::new(topic, partition),
        controller_epoch: 8,
        state: LeaderAndIsr {
            leader,
            leader_epoch: LeaderEpoch(5 + partition),
            isr: [1, 2].into(),
            zk_version: 7,
        },
        replicas: [1, 2, 4].into(),
        adding_replicas: [4].into(),
        removing_replicas: [2].into(),
        is_new: partition == 0,
    }
}

#[test]
fn every_version_of_leader_and_isr_says_what_it_can() {
    let command = LeaderAndIsrCommand {
        origin: ORIGIN,
        partitions: vec![
            leader_and_isr("a", 0, Some(1)),
            leader_and_isr("a", 1, None),
            leader_and_isr("b", 0, Some(2)),
        ],
        live_leaders: vec![broker(1, None), broker(2, Some("r"))],
    };
    for version in LeaderAndIsrRequest::VERSIONS {
        let bytes = bytes_of(&leader_and_isr_request(&command, version, "EXTERNAL"), version);
        let request: LeaderAndIsrRequest<'_> = read(&bytes, version);
        let leaders: Vec<(i32, String, i32)> = request
            .live_leaders
            .iter()
            .map(|leader| (leader.broker_id, leader.host_name.to_string(), leader.port))
            .collect();
        let h = || "h".to_owned();
        assert_eq!(leaders, [(1, h(), 9193), (2, h(), 9194)], "v{version}");
        let mut expected = command.clone();
        expected.origin = origin(version >= 2);
        expected.live_leaders.clear();
        for partition in &mut expected.partitions {
            if version < 3 {
                (partition.adding_replicas, partition.removing_replicas) = ([].into(), [].into());
            }
            partition.is_new &= version >= 1;
        }
        assert_eq!(leader_and_isr_command(&request), Ok(expected), "v{version}");
    }
}

fn stop(
    topic: &str,
    partition: i32,
    leader_epoch: Option<i32>,
    delete_partition: bool,
) -> StopReplicaPartition {
    StopReplicaPartition {
        topic_partition: TopicPartition::new(topic, partition),
        leader_epoch: leader_epoch.map(LeaderEpoch),
        delete_partition,
    }
}

#[test]
fn every_version_of_stop_replica_says_what_it_can_and_old_ones_keep_deletions_apart() {
    let command = StopReplicaCommand {
        origin: ORIGIN,
        partitions: vec![
            stop("a", 0, Some(5), false),
            stop("a", 1, None, true),
            stop("b", 0, Some(6), false),
            stop("c", 0, Some(7), true),
        ],
    };
    for version in StopReplicaRequest::VERSIONS {
        let requests = stop_replica_requests(&command, version);
        let read_back: Vec<StopReplicaCommand> = requests
            .iter()
            .map(|request| {
                let bytes = bytes_of(request, version);
                stop_replica_command(&read::<StopReplicaRequest<'_>>(&bytes, version)).unwrap()
            })
            .collect();
        let expected = if version >= 3 {
            vec![command.clone()]
        } else {
            let alike = |delete: bool| {
                let partitions = command
                    .partitions
                    .iter()
                    .filter(|one| one.delete_partition == delete);
                StopReplicaCommand {
                    origin: origin(version >= 1),
                    partitions: partitions
                        .map(|one| StopReplicaPartition {
                            leader_epoch: None,
                            ..one.clone()
                        })
                        .collect(),
                }
            };
            vec![alike(true), alike(false)]
        };
        assert_eq!(read_back, expected, "v{version}");
    }
    let only_stops = StopReplicaCommand {
        partitions: vec![stop("a", 0, Some(5), false)],
        ..command
    };
    assert_eq!(
        stop_replica_requests(&only_stops, 2).len(),
        1,
        "nothing to delete"
    );
}

fn metadata(topic: &str, partition: i32, leader: MetadataLeader) -> PartitionMetadataUpdate {
    PartitionMetadataUpdate {
        topic_partition: TopicPartition::new(topic, partition),
        controller_epoch: 8,
        leader,
        leader_epoch: LeaderEpoch(5),
        isr: [1].into(),
        zk_version: 7,
        replicas: [1, 2].into(),
        offline_replicas: [2].into(),
    }
}

#[test]
fn every_version_of_update_metadata_says_what_it_can() {
    let command = UpdateMetadataCommand {
        origin: ORIGIN,
        partitions: vec![
            metadata("a", 0, MetadataLeader::Broker(1)),
            metadata("a", 1, MetadataLeader::None),
            metadata("b", 0, MetadataLeader::Deleted),
        ],
        live_brokers: [broker(1, Some("r")), broker(2, None)].into(),
    };
    for version in UpdateMetadataRequest::VERSIONS {
        let bytes = bytes_of(&update_metadata_request(&command, version), version);
        let request: UpdateMetadataRequest<'_> = read(&bytes, version);
        let mut expected = command.clone();
        expected.origin = origin(version >= 5);
        for partition in &mut expected.partitions {
            if version < 4 {
                partition.offline_replicas = [].into();
            }
        }
        let said = |broker: &Broker| {
            let mut broker = broker.clone();
            broker.endpoints.truncate(if version == 0 { 1 } else { 2 });
            if version < 3 {
                for endpoint in &mut broker.endpoints {
                    endpoint.listener = endpoint.security_protocol.name().into();
                }
            }
            broker.rack = broker.rack.filter(|_| version >= 2);
            broker
        };
        expected.live_brokers = command.live_brokers.iter().map(said).collect();
        assert_eq!(
            update_metadata_command(&request, version),
            Ok(expected),
            "v{version}"
        );
    }
}

#[test]
fn what_no_directory_can_be_named_after_is_no_command() {
    for (topic, partition) in [
        ("../../etc", 0),
        ("", 0),
        ("a b", 0),
        ("a/b", 0),
        ("a", -1),
        ("a", i32::MIN),
        ("a", PARTITION_MAX + 1),
    ] {
        let name = TopicPartition::new(topic, partition);
        let expected = UnusableCommand::Partition(name.clone());
        let mut taken = leader_and_isr("a", 0, None);
        taken.topic_partition = name.clone();
        let command = LeaderAndIsrCommand {
            origin: ORIGIN,
            partitions: vec![taken],
            live_leaders: Vec::new(),
        };
        for version in [1, 4] {
            let request = leader_and_isr_request(&command, version, "PLAINTEXT");
            assert_eq!(
                leader_and_isr_command(&request),
                Err(expected.clone()),
                "{name:?} v{version}"
            );
        }
        let command = StopReplicaCommand {
            origin: ORIGIN,
            partitions: vec![stop(topic, partition, None, true)],
        };
        for version in [0, 1, 3] {
            for request in stop_replica_requests(&command, version) {
                assert_eq!(
                    stop_replica_command(&request),
                    Err(expected.clone()),
                    "{name:?} v{version}"
                );
            }
        }
        let command = UpdateMetadataCommand {
            origin: ORIGIN,
            partitions: vec![metadata(topic, partition, MetadataLeader::None)],
            live_brokers: [].into(),
        };
        for version in [4, 6] {
            let request = update_metadata_request(&command, version);
            assert_eq!(
                update_metadata_command(&request, version),
                Err(expected.clone()),
                "{name:?} v{version}"
            );
        }
    }
    let unheard_of = UpdateMetadataEndpoint {
        security_protocol: 4,
        ..UpdateMetadataEndpoint::default()
    };
    let request = UpdateMetadataRequest {
        live_brokers: vec![UpdateMetadataBroker {
            id: 5,
            endpoints: vec![unheard_of].into(),
            ..UpdateMetadataBroker::default()
        }]
        .into(),
        ..UpdateMetadataRequest::default()
    };
    let expected = UnusableCommand::SecurityProtocol { broker: 5, id: 4 };
    assert_eq!(update_metadata_command(&request, 6), Err(expected));
}

#[test]
fn an_answer_names_every_partition_and_is_read_as_those_that_were_refused() {
    let asked = || vec![TopicPartition::new("a", 0), TopicPartition::new("b", 1)];
    let refused = (TopicPartition::new("b", 1), CommandRefusal::KafkaStorageError);
    let response = leader_and_isr_response(asked(), Ok(vec![refused.clone()]));
    let codes: Vec<i16> = response
        .partition_errors
        .iter()
        .map(|error| error.error_code)
        .collect();
    assert_eq!(codes, [0, 56]);
    assert_eq!(leader_and_isr_reply(&response), Ok(vec![refused.clone()]));
    let response = stop_replica_response(asked(), Ok(vec![refused.clone()]));
    let codes: Vec<i16> = response
        .partition_errors
        .iter()
        .map(|error| error.error_code)
        .collect();
    assert_eq!(codes, [0, 56]);
    assert_eq!(stop_replica_reply(&response), Ok(vec![refused]));

    for (refusal, code) in [
        (CommandRefusal::StaleControllerEpoch, 11),
        (CommandRefusal::StaleBrokerEpoch, 77),
        (CommandRefusal::UnknownServerError, -1),
    ] {
        let response = leader_and_isr_response(asked(), Err(refusal));
        assert_eq!(response.error_code, code);
        assert!(
            response
                .partition_errors
                .iter()
                .all(|error| error.error_code == code)
        );
        assert_eq!(leader_and_isr_reply(&response), Err(refusal));
        let response = stop_replica_response(asked(), Err(refusal));
        assert_eq!((response.error_code, response.partition_errors.len()), (code, 0));
        assert_eq!(stop_replica_reply(&response), Err(refusal));
        let response = update_metadata_response(Err(refusal));
        assert_eq!(response.error_code, code);
        assert_eq!(update_metadata_reply(&response), Err(refusal));
    }
    for (code, refusal) in [
        (3, CommandRefusal::UnknownTopicOrPartition),
        (74, CommandRefusal::FencedLeaderEpoch),
        (56, CommandRefusal::KafkaStorageError),
        (5, CommandRefusal::UnknownServerError),
    ] {
        let response = UpdateMetadataResponse { error_code: code };
        assert_eq!(update_metadata_reply(&response), Err(refusal), "{code}");
    }
}
