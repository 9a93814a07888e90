//! Answers of the tree that are lost, and sessions that end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use milena_engine::io::Clock;
use parking_lot::Mutex;

use super::*;
use crate::coordination::simulated::{Ensemble, EnsembleRules};
use crate::coordination::{CoordinationError, MultiError, SessionEvent};
use crate::test_cluster::{Meddling, Tampered, Writing, register, run_paused, settings};

const LOST: MultiError = MultiError {
    index: 0,
    error: CoordinationError::ConnectionLoss,
};

/// Every write loses its answer: by turns it happened, or it did not.
fn forgetful(session: Arc<dyn Coordination>) -> Tampered {
    let writes = AtomicUsize::new(0);
    let writing: Writing =
        Box::new(
            move |session, operations| match writes.fetch_add(1, Ordering::Relaxed) % 2 {
                0 => Box::pin(std::future::ready(Err(LOST))),
                // A refusal is heard; it is the success that gets lost.
                _ => Box::pin(async move { session.multi(operations).await.and(Err(LOST)) }),
            },
        );
    Tampered {
        writing,
        ..Tampered::new(session)
    }
}

/// The write that frees a topic's name loses its answer, and somebody takes the name at once.
fn recreating(session: Arc<dyn Coordination>) -> Tampered {
    let writing: Writing = Box::new(|session, operations| {
        let frees = operations
            .iter()
            .any(|one| matches!(one, Operation::Delete { path, .. } if path == "/brokers/topics/t"));
        Box::pin(async move {
            let answer = session.multi(operations).await;
            if !frees || answer.is_err() {
                return answer;
            }
            let wanted = assignment(7, &[0]).encode();
            let again = vec![
                Operation::create("/config/topics/t", None),
                Operation::create("/brokers/topics/t", Some(wanted)),
            ];
            session.multi(again).await.unwrap();
            Err(LOST)
        })
    });
    Tampered {
        writing,
        ..Tampered::new(session)
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
        let forgetful = forgetful(session.clone());
        let controller = cluster.join_over(Arc::new(forgetful), settings(0)).await;
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

#[test]
fn a_topic_that_takes_the_name_of_a_deleted_one_is_not_deleted_for_a_lost_answer() {
    run(async {
        let cluster = Cluster::new(1);
        let session = cluster.tree.session();
        let tree: &dyn Coordination = session.as_ref();
        let recreating = recreating(session.clone());
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

fn ensemble(cluster: &Cluster) -> Ensemble {
    let rules = EnsembleRules {
        servers: 3,
        session_timeout: Duration::from_secs(6),
        delay_max: Duration::from_millis(5),
        lag_max: Duration::from_millis(5),
    };
    let clock: Arc<dyn Clock> = cluster.clock.clone();
    Ensemble::new(rules, clock, Arc::new(Mutex::new(|below: u64| below / 2)))
}

/// Waits until a session has an event.
async fn until_event(events: &mut tokio::sync::mpsc::UnboundedReceiver<SessionEvent>, wanted: &SessionEvent) {
    while events.recv().await.as_ref() != Some(wanted) {}
}

#[test]
fn a_controller_whose_session_expires_resigns_and_stands_again_when_its_broker_has_registered() {
    run_paused(async {
        let cluster = Cluster::new(1);
        let ensemble = ensemble(&cluster);
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
fn what_is_read_in_the_session_after_a_reign_moves_nobody() {
    run_paused(async {
        let cluster = Cluster::new(2);
        let ensemble = ensemble(&cluster);
        let session = ensemble.session();
        let (expired, mut has_expired) = tokio::sync::mpsc::unbounded_channel();
        let expires = Arc::new(AtomicBool::new(true));
        let before_get: Meddling = {
            let session = session.clone();
            Box::new(move |path| {
                if path != znodes::broker_id(1) || !expires.swap(false, Ordering::Relaxed) {
                    return Box::pin(std::future::ready(()));
                }
                let (session, expired) = (session.clone(), expired.clone());
                Box::pin(async move {
                    let (tell, mut events) = tokio::sync::mpsc::unbounded_channel();
                    session.listen(Arc::new(move |event| drop(tell.send(event))));
                    session.expire();
                    until_event(&mut events, &SessionEvent::Connected).await;
                    expired.send(()).unwrap();
                })
            })
        };
        let tampered = Tampered {
            before_get,
            ..Tampered::new(session.clone())
        };
        let controller = cluster.join_over(Arc::new(tampered), settings(0)).await;
        cluster.until(0, |cache| cache.load().broker_count() == 1).await;
        let other = ensemble.session();
        register(&*other, 1).await;
        has_expired.recv().await.unwrap();
        // Time enough for a word of the former reign.
        let tree: Arc<dyn Coordination> = session.clone();
        for _ in 0..100 {
            tree.get(znodes::CONTROLLER, None).await.unwrap();
        }
        assert!(!controller.is_active());
        assert_eq!(cluster.brokers.caches[&1].load().broker_count(), 0);
    });
}

#[test]
fn a_controller_stops_though_the_servers_are_gone() {
    run_paused(async {
        let cluster = Cluster::new(1);
        let ensemble = ensemble(&cluster);
        let session = ensemble.session();
        let controller = cluster.join_over(session.clone(), settings(0)).await;
        cluster.until(0, |cache| cache.load().broker_count() == 1).await;
        session.cut(true);
        controller.shutdown().await;
    });
}

#[test]
fn a_broker_that_comes_and_goes_often_is_read_as_often_and_no_more() {
    const TIMES: usize = 12;
    run(async {
        let cluster = Cluster::new(2);
        let reads = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&reads);
        let before_get: Meddling = Box::new(move |path| {
            counted.fetch_add(usize::from(path == "/brokers/ids/0"), Ordering::Relaxed);
            Box::pin(std::future::ready(()))
        });
        let tampered = Tampered {
            before_get,
            ..Tampered::new(cluster.tree.session())
        };
        let _controller = cluster.join_over(Arc::new(tampered), settings(0)).await;
        cluster.until(0, |cache| cache.load().broker_count() == 1).await;
        for _ in 0..TIMES {
            let other = cluster.tree.session();
            register(other.as_ref(), 1).await;
            cluster.until(0, |cache| cache.load().broker_count() == 2).await;
            cluster.tree.expire(&other).await.unwrap();
            cluster.until(0, |cache| cache.load().broker_count() == 1).await;
        }
        // Its node and the list of brokers tell of each change.
        let reads = reads.load(Ordering::Relaxed);
        assert!(reads <= 5 * TIMES, "{reads} readings");
    });
}
