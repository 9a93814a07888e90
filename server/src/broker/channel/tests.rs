//! Commands over real connections, to a broker on a simulated disk.

use std::net::TcpListener;
use std::sync::atomic::Ordering;
use std::time::Duration;

use milena_engine::io::simulated::SimulatedDisk;
use milena_engine::units::{LeaderEpoch, TopicPartition};

use super::*;
use crate::broker::RunningBroker;
use crate::broker::life::tests::{port_of, start_on};
use crate::cluster::{Endpoint, LeaderAndIsr, SecurityProtocol};
use crate::config::ApiVersion;
use crate::controller::command::{
    CommandOrigin, LeaderAndIsrCommand, LeaderAndIsrPartition, MetadataLeader, PartitionMetadataUpdate,
    StopReplicaCommand, StopReplicaPartition, UpdateMetadataCommand,
};

/// The controller of these tests.
const CONTROLLER: i32 = 7;

fn channels(own: &RunningBroker, release: &str) -> BrokerChannels {
    let settings = ChannelSettings {
        leaders_listener: "PLAINTEXT".into(),
        peer: PeerSettings {
            broker_id: CONTROLLER,
            listener: "PLAINTEXT".into(),
            connect_timeout: Duration::from_secs(30),
            request_timeout: Duration::from_secs(30),
        },
        versions: InterBrokerVersions::of(ApiVersion::parse(release).unwrap()),
    };
    BrokerChannels::new(settings, own.broker().commands.clone())
}

fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.unwrap().block_on(test)
}

fn live(id: i32, port: u16, epoch: i64) -> LiveBroker {
    let endpoint = Endpoint {
        listener: "PLAINTEXT".into(),
        host: "127.0.0.1".into(),
        port: port.into(),
        security_protocol: SecurityProtocol::Plaintext,
    };
    LiveBroker {
        broker: Broker {
            id,
            endpoints: vec![endpoint],
            rack: None,
        },
        epoch,
    }
}

fn live_of(broker: &RunningBroker) -> LiveBroker {
    let epoch = broker.broker().epoch.load(Ordering::Acquire);
    live(0, port_of(broker), epoch)
}

fn origin(broker: &LiveBroker) -> CommandOrigin {
    CommandOrigin {
        controller_id: CONTROLLER,
        controller_epoch: 5,
        broker_epoch: broker.epoch,
    }
}

fn lead(origin: CommandOrigin, topic: &str, leader_epoch: i32) -> BrokerCommand {
    BrokerCommand::LeaderAndIsr(LeaderAndIsrCommand {
        origin,
        partitions: vec![LeaderAndIsrPartition {
            topic_partition: TopicPartition::new(topic, 0),
            controller_epoch: 5,
            state: LeaderAndIsr {
                leader: Some(0),
                leader_epoch: LeaderEpoch(leader_epoch),
                isr: [0].into(),
                zk_version: 0,
            },
            replicas: [0].into(),
            adding_replicas: [].into(),
            removing_replicas: [].into(),
            is_new: true,
        }],
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
        live_brokers: [live(0, 9092, 1).broker].into(),
    })
}

fn stop(origin: CommandOrigin, partitions: &[(&str, bool)]) -> BrokerCommand {
    let partitions = partitions.iter().map(|(topic, delete)| StopReplicaPartition {
        topic_partition: TopicPartition::new(*topic, 0),
        leader_epoch: None,
        delete_partition: *delete,
    });
    BrokerCommand::StopReplica(StopReplicaCommand {
        origin,
        partitions: partitions.collect(),
    })
}

#[test]
fn a_broker_is_commanded_over_the_network_in_the_versions_of_every_release() {
    let broker = start_on(&SimulatedDisk::new(1)).unwrap();
    let live = live_of(&broker);
    for (number, release) in ["2.7", "2.5", "2.4-IV0", "2.2-IV0", "1.0", "0.11.0"]
        .into_iter()
        .enumerate()
    {
        run(async {
            let channels = channels(&broker, release);
            channels.live_brokers(std::slice::from_ref(&live));
            let origin = origin(&live);
            let (t, u) = (format!("t{number}"), format!("u{number}"));
            assert_eq!(
                channels.send(0, announce(origin, &t)).await,
                Ok(vec![]),
                "{release}"
            );
            assert!(broker.broker().metadata.contains(&t, 0), "{release}");
            for topic in [&t, &u] {
                assert_eq!(
                    channels.send(0, lead(origin, topic, 0)).await,
                    Ok(vec![]),
                    "{release}"
                );
            }
            let again = channels.send(0, lead(origin, &t, 0)).await;
            let stale = (TopicPartition::new(&*t, 0), CommandRefusal::StaleControllerEpoch);
            assert_eq!(again, Ok(vec![stale]), "{release}");
            let stopped = channels.send(0, stop(origin, &[(&t, true), (&u, false)])).await;
            assert_eq!(stopped, Ok(vec![]), "{release}");
            let logs = &broker.broker().logs;
            let has_log = |topic: &str| logs.get(&TopicPartition::new(topic, 0)).is_some();
            assert!(!has_log(&t) && has_log(&u), "{release}");
            assert!(broker.broker().replicas.partition(&u, 0).is_err(), "{release}");
        });
    }
    broker.stop();
}

#[test]
fn commands_arrive_in_the_order_in_which_they_were_given() {
    let broker = start_on(&SimulatedDisk::new(1)).unwrap();
    let live = live_of(&broker);
    run(async {
        let channels = channels(&broker, "2.7");
        channels.live_brokers(std::slice::from_ref(&live));
        let given: Vec<_> = (0..50)
            .map(|epoch| channels.send(0, lead(origin(&live), "t", epoch)))
            .collect();
        for answer in given {
            assert_eq!(answer.await, Ok(vec![]), "each is newer than those before");
        }
    });
    broker.stop();
}

#[test]
fn a_command_waits_for_a_broker_that_is_registered_and_cannot_be_reached_yet() {
    let broker = start_on(&SimulatedDisk::new(1)).unwrap();
    let there = live_of(&broker);
    run(async {
        let channels = channels(&broker, "2.7");
        // Somebody listens, and hangs up on whoever comes.
        let rude = TcpListener::bind("127.0.0.1:0").unwrap();
        let elsewhere = live(0, rude.local_addr().unwrap().port(), there.epoch);
        channels.live_brokers(std::slice::from_ref(&elsewhere));
        let mut answer = channels.send(0, lead(origin(&there), "t", 0));
        let hang_up = tokio::task::spawn_blocking(move || drop(rude.accept().unwrap()));
        tokio::select! {
            answer = &mut answer => panic!("{answer:?}, though nobody obeyed"),
            hung_up = hang_up => hung_up.unwrap(),
        }
        // Where it listens now.
        channels.live_brokers(std::slice::from_ref(&there));
        assert_eq!(answer.await, Ok(vec![]));
    });
    broker.stop();
}

#[test]
fn commands_to_a_broker_that_is_gone_or_came_back_are_given_up() {
    let broker = start_on(&SimulatedDisk::new(1)).unwrap();
    run(async {
        let channels = channels(&broker, "2.7");
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let gone = live(3, port, 10);
        let never_heard_of = channels.send(3, lead(origin(&gone), "t", 0));
        assert_eq!(never_heard_of.await, Err(CommandRefusal::StaleBrokerEpoch));
        channels.live_brokers(std::slice::from_ref(&gone));
        let given = [0, 1].map(|epoch| channels.send(3, lead(origin(&gone), "t", epoch)));
        let back = live(3, port, 11);
        channels.live_brokers(std::slice::from_ref(&back));
        for answer in given {
            assert_eq!(
                answer.await,
                Err(CommandRefusal::StaleBrokerEpoch),
                "it came back"
            );
        }
        let former = channels.send(3, lead(origin(&gone), "t", 2));
        assert_eq!(
            former.await,
            Err(CommandRefusal::StaleBrokerEpoch),
            "to its former life"
        );
        let given = channels.send(3, lead(origin(&back), "t", 2));
        channels.live_brokers(&[]);
        assert_eq!(given.await, Err(CommandRefusal::StaleBrokerEpoch), "it is gone");
    });
    broker.stop();
}

#[test]
fn a_controller_that_stops_waits_for_the_answers_of_others_and_not_for_those_who_are_gone() {
    let broker = start_on(&SimulatedDisk::new(1)).unwrap();
    let there = live_of(&broker);
    run(async {
        let channels = channels(&broker, "2.7");
        channels.answered().await;
        let gone = live(3, 1, 10);
        channels.live_brokers(&[there.clone(), gone.clone()]);
        let given: Vec<_> = (0..20)
            .map(|epoch| channels.send(0, lead(origin(&there), "t", epoch)))
            .collect();
        let _unheard = channels.send(3, lead(origin(&gone), "t", 0));
        let mut answered = std::pin::pin!(channels.answered());
        for answer in given {
            tokio::select! {
                biased;
                () = &mut answered => panic!("one has not answered"),
                answer = answer => assert_eq!(answer, Ok(vec![])),
            }
        }
        channels.live_brokers(std::slice::from_ref(&there));
        answered.await;
    });
    broker.stop();
}

#[test]
fn the_controller_commands_its_own_broker_without_a_network() {
    let broker = start_on(&SimulatedDisk::new(1)).unwrap();
    run(async {
        let channels = channels(&broker, "2.7");
        let own = live(CONTROLLER, 1, broker.broker().epoch.load(Ordering::Acquire));
        assert_eq!(
            channels.send(CONTROLLER, announce(origin(&own), "t")).await,
            Ok(vec![])
        );
    });
    assert!(broker.broker().metadata.contains("t", 0));
    broker.stop();
}
