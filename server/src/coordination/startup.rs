//! What a broker does in the tree when it starts: lasting paths, cluster id, its own id, its registration.
//!
//! A lost connection leaves open whether a write happened: each is then looked for before it is made again.
//!
//! **Deviation:** a broker whose id is taken waits until the session that holds it may have ended, which after a crash is its own
//! former one. Kafka aborts the start at once, and restarts fail until that session is over.
//!
//! Sources: `KafkaZkClient.{createTopLevelPaths, createOrGetClusterId, generateBrokerSequenceId, registerBroker}`,
//! `KafkaServer.createBrokerInfo`.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout_at};

use super::znodes::topic::TopicAssignment;
use super::znodes::{self, BrokerRegistration, RegistrationVersion, ZnodeError};
use super::{Coordination, CoordinationError, CreateMode, ExpectedVersion, Node, Operation, Watch};
use crate::cluster::Endpoint;

const LOGGER: &str = "kafka.zk.KafkaZkClient";

/// How long a broker relies on a watch while it waits for its id.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Why a broker cannot join: it does not start.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    #[error(transparent)]
    Coordination(#[from] CoordinationError),
    #[error(transparent)]
    Znode(#[from] ZnodeError),
    #[error(
        "Error while creating ephemeral at /brokers/ids/{id}, node already exists and owner '{owner}' does not match current \
         session '{session}': another broker with broker.id {id} is alive"
    )]
    BrokerIdInUse { id: i32, owner: i64, session: i64 },
    #[error(
        "Configured end points {}:{} in advertised listeners are already registered by broker {owner}",
        endpoint.host, endpoint.port
    )]
    EndpointInUse { endpoint: Endpoint, owner: i32 },
    #[error(
        "Failed to generate broker.id: /brokers/seqid was written {version} times, and reserved.broker.max.id is {reserved}"
    )]
    NoIdLeft { version: i32, reserved: i32 },
}

/// Creates what exists in every cluster, in one transaction; fine if it does.
pub async fn create_persistent_paths(coordination: &dyn Coordination) -> Result<(), CoordinationError> {
    let mut paths = znodes::PERSISTENT_PATHS.to_vec();
    paths.push(znodes::CONFIG_BROKERS);
    coordination.ensure_all(&paths).await
}

/// How many partitions a topic has; `None` if it is not there, or nobody can read it.
///
/// # Errors
/// The tree was not reached.
pub async fn partition_count(
    coordination: &dyn Coordination,
    topic: &str,
) -> Result<Option<i32>, CoordinationError> {
    let path = znodes::topic(topic);
    let Some(node) = coordination.get(&path, None).await? else {
        return Ok(None);
    };
    let count = match TopicAssignment::decode(&path, node.data.as_deref().unwrap_or_default()) {
        Ok(assignment) => assignment.partitions.len(),
        Err(error) => {
            tracing::error!("{error}");
            0
        }
    };
    Ok(i32::try_from(count).ok().filter(|count| *count > 0))
}

/// The cluster's id; `proposed` becomes it if there was none.
pub async fn get_or_create_cluster_id(
    coordination: &dyn Coordination,
    proposed: &str,
) -> Result<String, JoinError> {
    loop {
        if let Some(node) = coordination.get(znodes::CLUSTER_ID, None).await? {
            return Ok(znodes::decode_cluster_id(
                node.data.as_deref().unwrap_or_default(),
            )?);
        }
        coordination.ensure("/cluster").await?;
        let data = Some(znodes::encode_cluster_id(proposed));
        match coordination
            .create(znodes::CLUSTER_ID, data, CreateMode::Persistent)
            .await
        {
            Ok(_) | Err(CoordinationError::NodeExists { .. } | CoordinationError::ConnectionLoss) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// A new broker id above `reserved`: how often the node for it was written. One that nobody hears of is lost.
pub async fn generate_broker_id(coordination: &dyn Coordination, reserved: i32) -> Result<i32, JoinError> {
    loop {
        let path = znodes::BROKER_SEQUENCE_ID;
        match coordination.set(path, Bytes::new(), ExpectedVersion::Any).await {
            Ok(stat) => {
                let version = stat.version;
                return version
                    .checked_add(reserved)
                    .ok_or(JoinError::NoIdLeft { version, reserved });
            }
            Err(CoordinationError::NoNode { .. }) => coordination.ensure(path).await?,
            Err(CoordinationError::ConnectionLoss) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// A broker's hold of its id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Registered {
    /// The broker epoch: the czxid of the node.
    pub epoch: i64,
    /// The session that it lasts as long as.
    pub session: i64,
    /// Of the controller at that time, or of a later one; 0 where there has been none.
    pub controller_epoch: i32,
}

/// How a broker registers.
#[derive(Clone, Copy, Debug)]
pub struct Registering {
    pub version: RegistrationVersion,
    /// A session of this process that has ended: what it left behind is removed. ZooKeeper may forget to (ZOOKEEPER-2985).
    pub former_session: Option<i64>,
    /// How long another session that holds the id may last.
    pub patience: Duration,
}

/// Registers a broker as alive, for as long as the session lasts.
///
/// # Errors
/// Another live broker has this id.
pub async fn register_broker(
    coordination: &dyn Coordination,
    registration: &BrokerRegistration,
    how: Registering,
) -> Result<Registered, JoinError> {
    let id = registration.broker.id;
    let path = znodes::broker_id(id);
    let mut deadline = Instant::now() + how.patience;
    let mut waits_in = coordination.session_id();
    let mut is_told = false;
    loop {
        let gone = Arc::new(Notify::new());
        let notify = Arc::clone(&gone);
        let watch = Box::new(move |_| notify.notify_one());
        let node = match try_to_register(coordination, &path, registration, how.version, watch).await {
            Ok(Some(node)) => node,
            Ok(None) => continue,
            // The next session goes on.
            Err(CoordinationError::SessionExpired) if Instant::now() < deadline => {
                sleep(LOOK_AGAIN).await;
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        let (owner, session) = (node.stat.ephemeral_owner.unwrap_or(0), coordination.session_id());
        if owner == session {
            let controller_epoch = match read_controller_epoch(coordination).await {
                Err(JoinError::Coordination(error)) if error.is_passing() => continue,
                read => read?,
            };
            return Ok(Registered {
                epoch: node.stat.czxid,
                session,
                controller_epoch,
            });
        }
        if how.former_session == Some(owner) {
            match coordination.delete(&path, ExpectedVersion::Any).await {
                Ok(_) | Err(CoordinationError::ConnectionLoss) => continue,
                Err(error) => return Err(error.into()),
            }
        }
        if !is_told && !how.patience.is_zero() {
            is_told = true;
            tracing::warn!(
                target: LOGGER,
                "{path} belongs to session 0x{owner:x}, which this broker had before if it did not stop cleanly; waits up to \
                 {} ms for it to end",
                how.patience.as_millis()
            );
        }
        if session != waits_in {
            // ZooKeeper was away for longer than a session lasts, and ends none before it is back for as long.
            waits_in = session;
            deadline = Instant::now() + how.patience;
        }
        if Instant::now() >= deadline {
            return Err(JoinError::BrokerIdInUse { id, owner, session });
        }
        // The watch is lost with the session.
        let _ = timeout_at(deadline.min(Instant::now() + LOOK_AGAIN), gone.notified()).await;
    }
}

async fn read_controller_epoch(coordination: &dyn Coordination) -> Result<i32, JoinError> {
    let node = coordination.get(znodes::CONTROLLER_EPOCH, None).await?;
    let data = node.and_then(|node| node.data);
    Ok(data.map_or(Ok(0), |data| znodes::decode_controller_epoch(&data))?)
}

/// Creates the broker's node if there is none, and returns whose there is.
async fn try_to_register(
    coordination: &dyn Coordination,
    path: &str,
    registration: &BrokerRegistration,
    version: RegistrationVersion,
    watch: Watch,
) -> Result<Option<Node>, CoordinationError> {
    // Null first, then the data, as Kafka does, so that the data have its version.
    let create = Operation::Create {
        path: path.to_owned(),
        data: None,
        mode: CreateMode::Ephemeral,
    };
    let set = Operation::set(path, registration.encode(version), ExpectedVersion::Exactly(0));
    match coordination.multi(vec![create, set]).await {
        Ok(_) => {}
        Err(failed) => match failed.error {
            CoordinationError::NodeExists { .. } | CoordinationError::ConnectionLoss => {}
            error => return Err(error),
        },
    }
    coordination.get(path, Some(watch)).await
}

/// Writes what others see of a broker anew; whoever writes it twice writes the same.
pub async fn update_registration(
    coordination: &dyn Coordination,
    registration: &BrokerRegistration,
    version: RegistrationVersion,
) -> Result<(), CoordinationError> {
    let path = znodes::broker_id(registration.broker.id);
    loop {
        let data = registration.encode(version);
        match coordination.set(&path, data, ExpectedVersion::Any).await {
            Ok(_) => return Ok(()),
            Err(CoordinationError::ConnectionLoss) => {}
            Err(error) => return Err(error),
        }
    }
}

/// No other broker may have an address that this one advertises.
///
/// # Errors
/// One has.
pub async fn check_addresses(
    coordination: &dyn Coordination,
    registration: &BrokerRegistration,
) -> Result<(), JoinError> {
    let found = coordination.children(znodes::BROKER_IDS, None).await?;
    let others = found.unwrap_or_default().into_iter();
    let others: Vec<i32> = others
        .filter_map(|other| other.parse().ok())
        .filter(|other| *other != registration.broker.id)
        .collect();
    let paths = others.iter().map(|other| znodes::broker_id(*other)).collect();
    let nodes = coordination.get_many(paths).await?;
    for (owner, node) in others.into_iter().zip(nodes) {
        let Some(node) = node else { continue };
        let theirs = BrokerRegistration::decode(owner, node.data.as_deref().unwrap_or_default())?;
        let theirs = theirs.broker.endpoints;
        let is_taken = |one: &&Endpoint| {
            theirs
                .iter()
                .any(|their| their.host == one.host && their.port == one.port)
        };
        if let Some(endpoint) = registration.broker.endpoints.iter().find(is_taken) {
            let endpoint = endpoint.clone();
            return Err(JoinError::EndpointInUse { endpoint, owner });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use milena_engine::io::simulated::ManualClock;
    use milena_engine::units::{ProducerId, TimestampMs};

    use super::*;
    use crate::coordination::embedded::EmbeddedTree;
    use crate::coordination::producer_ids::{ProducerIdManager, raise_above};
    use crate::coordination::simulated::Ensemble;
    use crate::coordination::znodes::topic::ReplicaAssignment;
    use crate::test_cluster::{embedded_tree, registration, run, run_paused};

    const AT_ONCE: Registering = Registering {
        version: RegistrationVersion::V5,
        former_session: None,
        patience: Duration::ZERO,
    };

    fn tree() -> EmbeddedTree {
        embedded_tree(&Arc::new(ManualClock::new(TimestampMs(1))))
    }

    #[test]
    fn the_partitions_of_a_topic_are_those_of_the_tree() {
        run(async {
            let tree = tree();
            let session: Arc<dyn Coordination> = tree.session();
            let count = || partition_count(&*session, "t");
            assert_eq!(count().await.unwrap(), None);
            let partitions = (0..7).map(|partition| (partition, ReplicaAssignment::new([0])));
            let assignment = TopicAssignment {
                partitions: partitions.collect(),
            };
            let path = znodes::topic("t");
            session.ensure("/brokers/topics").await.unwrap();
            session.set_or_create(&path, assignment.encode()).await.unwrap();
            assert_eq!(count().await.unwrap(), Some(7));
            session.set_or_create(&path, "7".into()).await.unwrap();
            assert_eq!(
                count().await.unwrap(),
                None,
                "as in Kafka, where nobody can read it"
            );
        });
    }

    #[test]
    fn the_first_cluster_id_stays() {
        run(async {
            let tree = tree();
            let session = tree.session();
            let coordination: &dyn Coordination = session.as_ref();
            create_persistent_paths(coordination).await.unwrap();
            create_persistent_paths(coordination).await.unwrap();
            assert_eq!(
                get_or_create_cluster_id(coordination, "one").await.unwrap(),
                "one"
            );
            assert_eq!(
                get_or_create_cluster_id(coordination, "two").await.unwrap(),
                "one"
            );
            let brokers = coordination.children("/config", None).await.unwrap().unwrap();
            assert_eq!(brokers, ["brokers", "changes", "clients", "topics", "users"]);
        });
    }

    #[test]
    fn a_broker_registers_once_and_with_an_address_of_its_own() {
        run(async {
            let tree = tree();
            let (one, two) = (tree.session(), tree.session());
            create_persistent_paths(one.as_ref()).await.unwrap();
            let registered = register_broker(one.as_ref(), &registration(0, 9092), AT_ONCE)
                .await
                .unwrap();
            let node = one.get("/brokers/ids/0", None).await.unwrap().unwrap();
            assert_eq!(
                (node.stat.czxid, node.stat.ephemeral_owner, node.data.unwrap()),
                (
                    registered.epoch,
                    Some(registered.session),
                    registration(0, 9092).encode(RegistrationVersion::V5)
                )
            );
            let again = register_broker(one.as_ref(), &registration(0, 9092), AT_ONCE).await;
            assert_eq!(again.unwrap(), registered, "as after a reply that was lost");
            let refused = register_broker(two.as_ref(), &registration(0, 9093), AT_ONCE).await;
            let refused = refused.unwrap_err();
            assert!(
                matches!(refused, JoinError::BrokerIdInUse { id: 0, .. }),
                "{refused}"
            );
            let refused = check_addresses(two.as_ref(), &registration(1, 9092))
                .await
                .unwrap_err();
            assert!(
                matches!(refused, JoinError::EndpointInUse { owner: 0, .. }),
                "{refused}"
            );
            check_addresses(two.as_ref(), &registration(1, 9093))
                .await
                .unwrap();
            let moved = registration(0, 9094);
            update_registration(one.as_ref(), &moved, RegistrationVersion::V5)
                .await
                .unwrap();
            let node = one.get("/brokers/ids/0", None).await.unwrap().unwrap();
            assert_eq!(node.data.unwrap(), moved.encode(RegistrationVersion::V5));
            assert_eq!(node.stat.czxid, registered.epoch);
        });
    }

    #[test]
    fn a_broker_hears_of_the_controllers_before_it() {
        run_paused(async {
            let tree = Ensemble::of_one_server(Arc::new(ManualClock::new(TimestampMs(1)))).session();
            let tree: &dyn Coordination = tree.as_ref();
            tree.ensure(znodes::BROKER_IDS).await.unwrap();
            let first = register_broker(tree, &registration(1, 9092), AT_ONCE).await;
            assert_eq!(first.unwrap().controller_epoch, 0);
            tree.set_or_create(znodes::CONTROLLER_EPOCH, znodes::encode_controller_epoch(7))
                .await
                .unwrap();
            let second = register_broker(tree, &registration(2, 9093), AT_ONCE).await;
            assert_eq!(second.unwrap().controller_epoch, 7);
        });
    }

    #[test]
    fn a_broker_waits_for_the_session_that_has_its_id_and_removes_what_its_own_former_one_left() {
        run(async {
            let tree = tree();
            let (one, two, three) = (tree.session(), tree.session(), tree.session());
            create_persistent_paths(one.as_ref()).await.unwrap();
            let registration = registration(0, 9092);
            let first = register_broker(one.as_ref(), &registration, AT_ONCE)
                .await
                .unwrap();
            let patient = Registering {
                patience: Duration::from_secs(60),
                ..AT_ONCE
            };
            let waiting = register_broker(two.as_ref(), &registration, patient);
            let ending = async {
                tokio::task::yield_now().await;
                one.close().await.unwrap();
            };
            let (second, ()) = tokio::join!(waiting, ending);
            let second = second.unwrap();
            assert!(second.epoch > first.epoch);
            let heir = Registering {
                former_session: Some(second.session),
                ..AT_ONCE
            };
            let third = register_broker(three.as_ref(), &registration, heir)
                .await
                .unwrap();
            assert!(third.epoch > second.epoch && third.session == three.session_id());
        });
    }

    #[test]
    fn a_broker_waits_anew_when_its_own_session_ends_while_it_waits() {
        run_paused(async {
            let ensemble = Ensemble::of_one_server(Arc::new(ManualClock::new(TimestampMs(1))));
            let (one, two) = (ensemble.session(), ensemble.session());
            create_persistent_paths(&*one).await.unwrap();
            let registration = registration(0, 9092);
            register_broker(&*one, &registration, AT_ONCE).await.unwrap();
            let patient = Registering {
                patience: Duration::from_secs(10),
                ..AT_ONCE
            };
            let began = Instant::now();
            let refused = register_broker(&*two, &registration, patient).await.unwrap_err();
            assert!(
                matches!(refused, JoinError::BrokerIdInUse { id: 0, .. }),
                "{refused}"
            );
            assert_eq!(began.elapsed().as_secs(), 10);

            let waiting = register_broker(&*two, &registration, patient);
            let zookeeper = async {
                sleep(Duration::from_secs(8)).await;
                two.expire();
                sleep(Duration::from_secs(8)).await;
                one.close().await.unwrap();
            };
            let (registered, ()) = tokio::join!(waiting, zookeeper);
            assert_eq!(registered.unwrap().session, two.session_id());
        });
    }

    #[test]
    fn generated_ids_lie_above_the_reserved_ones_and_differ() {
        run(async {
            let tree = tree();
            let session = tree.session();
            let coordination: &dyn Coordination = session.as_ref();
            create_persistent_paths(coordination).await.unwrap();
            assert_eq!(generate_broker_id(coordination, 1000).await.unwrap(), 1001);
            assert_eq!(generate_broker_id(coordination, 1000).await.unwrap(), 1002);
            let none = generate_broker_id(coordination, i32::MAX).await.unwrap_err();
            assert!(matches!(none, JoinError::NoIdLeft { version: 3, .. }), "{none}");
        });
    }

    #[test]
    fn producer_ids_never_come_twice_not_even_from_two_managers_or_after_a_stop() {
        run(async {
            let tree = tree();
            let session = tree.session();
            create_persistent_paths(session.as_ref()).await.unwrap();
            let coordination: Arc<dyn Coordination> = session;
            let one = ProducerIdManager::new(0, Arc::clone(&coordination));
            let two = ProducerIdManager::new(1, Arc::clone(&coordination));
            assert_eq!(one.generate().await.unwrap(), ProducerId(0));
            assert_eq!(two.generate().await.unwrap(), ProducerId(1000));
            for expected in 1..1000 {
                assert_eq!(one.generate().await.unwrap(), ProducerId(expected));
            }
            assert_eq!(one.generate().await.unwrap(), ProducerId(2000));
            let again = ProducerIdManager::new(0, Arc::clone(&coordination));
            assert_eq!(again.generate().await.unwrap(), ProducerId(3000));
            let node = coordination
                .get(znodes::PRODUCER_ID_BLOCK, None)
                .await
                .unwrap()
                .unwrap();
            let expected = r#"{"version":1,"broker":0,"block_start":"3000","block_end":"3999"}"#;
            assert_eq!(node.data.unwrap(), expected);
        });
    }

    #[test]
    fn blocks_start_above_every_id_that_was_seen() {
        run(async {
            let tree = tree();
            let session = tree.session();
            create_persistent_paths(session.as_ref()).await.unwrap();
            let coordination: Arc<dyn Coordination> = session;
            assert!(
                raise_above(coordination.as_ref(), 0, ProducerId(4321))
                    .await
                    .unwrap()
            );
            assert!(
                !raise_above(coordination.as_ref(), 0, ProducerId(4999))
                    .await
                    .unwrap()
            );
            let ids = ProducerIdManager::new(0, coordination);
            assert_eq!(ids.generate().await.unwrap(), ProducerId(5000));
        });
    }
}
