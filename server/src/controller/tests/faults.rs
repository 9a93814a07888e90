//! Answers of the tree that are lost, and sessions that end.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use milena_engine::io::Clock;
use parking_lot::Mutex;

use super::*;
use crate::cluster::BoxFuture;
use crate::coordination::simulated::{Ensemble, EnsembleRules};
use crate::coordination::{
    CoordinationError, MultiError, Node, OperationResult, SessionEvent, SessionListener, Watch,
};
use crate::test_cluster::{register, settings};

/// A session whose every write loses its answer: by turns it happened, or it did not.
#[derive(Debug)]
struct Forgetful {
    session: Arc<dyn Coordination>,
    writes: AtomicUsize,
}

impl Coordination for Forgetful {
    fn get(
        &self,
        path: &str,
        watch: Option<Watch>,
    ) -> BoxFuture<'_, Result<Option<Node>, CoordinationError>> {
        self.session.get(path, watch)
    }

    fn children(
        &self,
        path: &str,
        watch: Option<Watch>,
    ) -> BoxFuture<'_, Result<Option<Vec<String>>, CoordinationError>> {
        self.session.children(path, watch)
    }

    fn get_many(&self, paths: Vec<String>) -> BoxFuture<'_, Result<Vec<Option<Node>>, CoordinationError>> {
        self.session.get_many(paths)
    }

    fn multi(&self, operations: Vec<Operation>) -> BoxFuture<'_, Result<Vec<OperationResult>, MultiError>> {
        let lost = Err(MultiError {
            index: 0,
            error: CoordinationError::ConnectionLoss,
        });
        match self.writes.fetch_add(1, Ordering::Relaxed) % 2 {
            0 => Box::pin(std::future::ready(lost)),
            _ => Box::pin(async move {
                // A refusal is heard; it is the success that gets lost.
                self.session.multi(operations).await.and(lost)
            }),
        }
    }

    fn session_id(&self) -> i64 {
        self.session.session_id()
    }

    fn listen(&self, listener: SessionListener) {
        self.session.listen(listener);
    }

    fn close(&self) -> BoxFuture<'_, Result<(), CoordinationError>> {
        self.session.close()
    }
}

#[test]
fn though_every_answer_is_lost_topics_come_grow_and_go() {
    run(async {
        let cluster = Cluster::new(1);
        let session = cluster.tree.session();
        let tree: &dyn Coordination = session.as_ref();
        crate::coordination::startup::create_persistent_paths(tree)
            .await
            .unwrap();
        let forgetful = Arc::new(Forgetful {
            session: session.clone(),
            writes: AtomicUsize::new(0),
        });
        let controller = cluster.join_over(forgetful, settings(0)).await;
        cluster.until(0, |cache| cache.load().broker_count() == 1).await;
        assert!(controller.is_active());
        let epoch = tree.get(znodes::CONTROLLER_EPOCH, None).await.unwrap().unwrap();
        assert_eq!(epoch.data.unwrap(), "1", "elected once");
        let feature = tree.get(znodes::FEATURE, None).await.unwrap().unwrap();
        assert_eq!(feature.data.unwrap(), r#"{"features":{},"status":1,"version":1}"#);
        let wanted = assignment(2, &[0]).encode();
        tree.create("/brokers/topics/t", Some(wanted), CreateMode::Persistent)
            .await
            .unwrap();
        cluster.until(0, |cache| cache.contains("t", 1)).await;
        let wanted = assignment(3, &[0]).encode();
        tree.set("/brokers/topics/t", wanted, ExpectedVersion::Any)
            .await
            .unwrap();
        cluster.until(0, |cache| cache.contains("t", 2)).await;
        for partition in 0..3 {
            let state = tree.get(&znodes::partition_state("t", partition), None).await;
            assert_eq!(
                state.unwrap().unwrap().data.unwrap(),
                r#"{"controller_epoch":1,"leader":0,"version":1,"leader_epoch":0,"isr":[0]}"#
            );
        }
        tree.create("/admin/delete_topics/t", None, CreateMode::Persistent)
            .await
            .unwrap();
        until_gone(tree, "/admin/delete_topics/t").await;
        assert_eq!(tree.get("/brokers/topics/t", None).await.unwrap(), None);
        assert!(controller.is_active());
    });
}

/// A session that loses the answer to the write that frees a topic's name, and somebody takes the name at once.
#[derive(Debug)]
struct Recreating {
    session: Arc<dyn Coordination>,
}

impl Coordination for Recreating {
    fn get(
        &self,
        path: &str,
        watch: Option<Watch>,
    ) -> BoxFuture<'_, Result<Option<Node>, CoordinationError>> {
        self.session.get(path, watch)
    }

    fn children(
        &self,
        path: &str,
        watch: Option<Watch>,
    ) -> BoxFuture<'_, Result<Option<Vec<String>>, CoordinationError>> {
        self.session.children(path, watch)
    }

    fn get_many(&self, paths: Vec<String>) -> BoxFuture<'_, Result<Vec<Option<Node>>, CoordinationError>> {
        self.session.get_many(paths)
    }

    fn multi(&self, operations: Vec<Operation>) -> BoxFuture<'_, Result<Vec<OperationResult>, MultiError>> {
        let frees = operations
            .iter()
            .any(|one| matches!(one, Operation::Delete { path, .. } if path == "/brokers/topics/t"));
        Box::pin(async move {
            let answer = self.session.multi(operations).await;
            if !frees || answer.is_err() {
                return answer;
            }
            let wanted = assignment(7, &[0]).encode();
            let again = vec![
                Operation::create("/config/topics/t", None),
                Operation::create("/brokers/topics/t", Some(wanted)),
            ];
            self.session.multi(again).await.unwrap();
            Err(MultiError {
                index: 0,
                error: CoordinationError::ConnectionLoss,
            })
        })
    }

    fn session_id(&self) -> i64 {
        self.session.session_id()
    }

    fn listen(&self, listener: SessionListener) {
        self.session.listen(listener);
    }

    fn close(&self) -> BoxFuture<'_, Result<(), CoordinationError>> {
        self.session.close()
    }
}

#[test]
fn a_topic_that_takes_the_name_of_a_deleted_one_is_not_deleted_for_a_lost_answer() {
    run(async {
        let cluster = Cluster::new(1);
        let session = cluster.tree.session();
        let tree: &dyn Coordination = session.as_ref();
        let recreating = Recreating {
            session: session.clone(),
        };
        let _controller = cluster.join_over(Arc::new(recreating), settings(0)).await;
        cluster.until(0, |cache| cache.load().broker_count() == 1).await;
        let wanted = assignment(2, &[0]).encode();
        tree.create("/brokers/topics/t", Some(wanted), CreateMode::Persistent)
            .await
            .unwrap();
        cluster.until(0, |cache| cache.contains("t", 1)).await;
        tree.create("/admin/delete_topics/t", None, CreateMode::Persistent)
            .await
            .unwrap();
        cluster.until(0, |cache| cache.contains("t", 6)).await;
        let node = tree.get("/brokers/topics/t", None).await.unwrap().unwrap();
        assert_eq!(node.data.unwrap(), assignment(7, &[0]).encode());
        assert!(tree.get("/config/topics/t", None).await.unwrap().is_some());
    });
}

/// Waits until a session has an event.
async fn until_event(events: &mut tokio::sync::mpsc::UnboundedReceiver<SessionEvent>, wanted: &SessionEvent) {
    while events.recv().await.as_ref() != Some(wanted) {}
}

#[test]
fn a_controller_whose_session_expires_resigns_and_stands_again_when_its_broker_has_registered() {
    let paused = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    paused.block_on(async {
        let cluster = Cluster::new(1);
        let rules = EnsembleRules {
            servers: 3,
            session_timeout: Duration::from_secs(6),
            delay_max: Duration::from_millis(5),
            lag_max: Duration::from_millis(5),
        };
        let clock: Arc<dyn Clock> = cluster.clock.clone();
        let ensemble = Ensemble::new(rules, clock, Arc::new(Mutex::new(|below: u64| below / 2)));
        let session = ensemble.session();
        let controller = cluster.join_over(session.clone(), settings(0)).await;
        cluster.until(0, |cache| cache.load().broker_count() == 1).await;
        let (tell, mut events) = tokio::sync::mpsc::unbounded_channel();
        session.listen(Arc::new(move |event| drop(tell.send(event))));
        session.expire();
        until_event(&mut events, &SessionEvent::Expired).await;
        assert!(!controller.is_active(), "before anything else happens");
        until_event(&mut events, &SessionEvent::Connected).await;
        // Time enough for an election.
        let tree: Arc<dyn Coordination> = session.clone();
        for _ in 0..100 {
            tree.get(znodes::CONTROLLER, None).await.unwrap();
        }
        assert_eq!(ensemble.look(znodes::CONTROLLER), None);
        register(&*tree, 0).await;
        controller.registered();
        let is_second = |cache: &crate::metadata_cache::MetadataCache| {
            cache.load().controller_id() == Some(0) && controller.is_active()
        };
        let wanted = assignment(1, &[0]).encode();
        tree.create("/brokers/topics/t", Some(wanted), CreateMode::Persistent)
            .await
            .unwrap();
        cluster
            .until(0, |cache| cache.contains("t", 0) && is_second(cache))
            .await;
        let epoch = ensemble.look(znodes::CONTROLLER_EPOCH).unwrap().data.unwrap();
        assert_eq!(epoch, "2");
    });
}

#[test]
fn a_controller_stops_though_the_servers_are_gone() {
    let paused = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    paused.block_on(async {
        let cluster = Cluster::new(1);
        let rules = EnsembleRules {
            servers: 1,
            session_timeout: Duration::from_secs(6),
            delay_max: Duration::from_millis(5),
            lag_max: Duration::from_millis(5),
        };
        let clock: Arc<dyn Clock> = cluster.clock.clone();
        let ensemble = Ensemble::new(rules, clock, Arc::new(Mutex::new(|below: u64| below / 2)));
        let session = ensemble.session();
        let controller = cluster.join_over(session.clone(), settings(0)).await;
        cluster.until(0, |cache| cache.load().broker_count() == 1).await;
        session.cut(true);
        controller.shutdown().await;
    });
}
