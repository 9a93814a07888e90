//! What a broker does in the tree when it starts: lasting paths, cluster id, its registration.
//!
//! Sources: `KafkaZkClient.{createTopLevelPaths, createOrGetClusterId, registerBroker}`, `KafkaServer.createBrokerInfo`.

use super::znodes::{self, BrokerRegistration, ZnodeError};
use super::{
    Coordination, CoordinationError, CreateMode, ExpectedVersion, MultiError, Operation, OperationResult,
};
use crate::cluster::Endpoint;

/// Why a broker cannot join: it does not start.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    #[error(transparent)]
    Coordination(#[from] CoordinationError),
    #[error(transparent)]
    Znode(#[from] ZnodeError),
    #[error(
        "A broker is already registered on the path /brokers/ids/{id}. This probably indicates that you either have \
         configured a brokerid that is already in use, or else you have shutdown this broker and restarted it faster than \
         its session took to expire"
    )]
    BrokerIdInUse { id: i32 },
    #[error("endpoint {endpoint} is already in use by broker {owner}")]
    EndpointInUse { endpoint: Endpoint, owner: i32 },
}

/// Creates what exists in every cluster, in one transaction; fine if it does.
pub async fn create_persistent_paths(coordination: &dyn Coordination) -> Result<(), CoordinationError> {
    let mut paths = znodes::PERSISTENT_PATHS.to_vec();
    paths.push(znodes::CONFIG_BROKERS);
    coordination.ensure_all(&paths).await
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
            Ok(_) | Err(CoordinationError::NodeExists { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Registers a broker as alive, for as long as the session lasts; returns its epoch (the czxid).
///
/// # Errors
/// Another live broker has this id, or one of its addresses.
pub async fn register_broker(
    coordination: &dyn Coordination,
    registration: &BrokerRegistration,
) -> Result<i64, JoinError> {
    let id = registration.broker.id;
    for other in coordination
        .children(znodes::BROKER_IDS, None)
        .await?
        .unwrap_or_default()
    {
        let Some(other) = other.parse().ok().filter(|other| *other != id) else {
            continue;
        };
        let Some(node) = coordination.get(&znodes::broker_id(other), None).await? else {
            continue;
        };
        let theirs = BrokerRegistration::decode(other, node.data.as_deref().unwrap_or_default())?;
        let same_address = |one: &&Endpoint| {
            theirs
                .broker
                .endpoints
                .iter()
                .any(|their| their.host == one.host && their.port == one.port)
        };
        if let Some(endpoint) = registration.broker.endpoints.iter().find(same_address) {
            return Err(JoinError::EndpointInUse {
                endpoint: endpoint.clone(),
                owner: other,
            });
        }
    }
    let path = znodes::broker_id(id);
    // Null first, then the data, as Kafka does: the stat of the second has the epoch, which ZooKeeper 3.4 tells of no creation.
    let create = Operation::Create {
        path: path.clone(),
        data: None,
        mode: CreateMode::Ephemeral,
    };
    let set = Operation::set(path, registration.encode(), ExpectedVersion::Exactly(0));
    match coordination.multi(vec![create, set]).await {
        Ok(results) => match results.as_slice() {
            [_, OperationResult::Set(stat)] => Ok(stat.czxid),
            other => unreachable!("create and set answered {other:?}"),
        },
        Err(MultiError {
            error: CoordinationError::NodeExists { .. },
            ..
        }) => Err(JoinError::BrokerIdInUse { id }),
        Err(failed) => Err(failed.error.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use milena_engine::io::simulated::ManualClock;
    use milena_engine::units::{ProducerId, TimestampMs};

    use super::*;
    use crate::coordination::embedded::EmbeddedTree;
    use crate::coordination::producer_ids::{ProducerIdManager, raise_above};
    use crate::test_cluster::{embedded_tree, registration, run};

    fn tree() -> EmbeddedTree {
        embedded_tree(&Arc::new(ManualClock::new(TimestampMs(1))))
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
            let epoch = register_broker(one.as_ref(), &registration(0, 9092))
                .await
                .unwrap();
            let node = one.get("/brokers/ids/0", None).await.unwrap().unwrap();
            assert_eq!(
                (node.stat.czxid, node.data.unwrap()),
                (epoch, registration(0, 9092).encode())
            );
            let refused = register_broker(two.as_ref(), &registration(0, 9093))
                .await
                .unwrap_err();
            assert!(matches!(refused, JoinError::BrokerIdInUse { id: 0 }), "{refused}");
            let refused = register_broker(two.as_ref(), &registration(1, 9092))
                .await
                .unwrap_err();
            assert!(
                matches!(refused, JoinError::EndpointInUse { owner: 0, .. }),
                "{refused}"
            );
            one.close().await.unwrap();
            assert!(
                register_broker(two.as_ref(), &registration(0, 9092))
                    .await
                    .unwrap()
                    > epoch
            );
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
