//! Starts and endings of a whole broker on a simulated disk.

use std::path::Path;

use milena_engine::io::simulated::{Fault, SimulatedDisk};

use super::*;

/// A broker that stands alone, with two directories, `/a` and `/b`.
pub(in crate::broker) fn start_on(disk: &SimulatedDisk) -> Result<RunningBroker, StartError> {
    let overrides = [("listeners", "PLAINTEXT://127.0.0.1:0"), ("log.dirs", "/a,/b")];
    let overrides = overrides.map(|(key, value)| (key.to_owned(), value.to_owned()));
    let (config, _) = BrokerConfig::load(None, &overrides, []).expect("these settings are right");
    Start::new(config, None).run_with(Arc::new(disk.clone()))
}

/// Where it listens, on 127.0.0.1.
pub(in crate::broker) fn port_of(broker: &RunningBroker) -> u16 {
    let (_, port) = broker.addresses[0].rsplit_once(':').unwrap();
    port.parse().unwrap()
}

fn exists(disk: &SimulatedDisk, path: &str) -> bool {
    disk.stat(Path::new(path)).unwrap().is_some()
}

#[test]
fn a_tree_that_fails_by_its_own_write_or_sync_stops_the_broker_and_leaves_no_marker_of_a_clean_stop() {
    for fault in [Fault::Eio, Fault::ShortWrite, Fault::FailedSync] {
        let disk = SimulatedDisk::new(1);
        start_on(&disk).unwrap().stop();
        let mut broker = start_on(&disk).unwrap();
        disk.fail_below(Path::new("/a/milena.tree"), fault);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        let refused = runtime.block_on(broker.broker().topics.auto_create_topic("t"));
        assert!(refused.is_err(), "{fault:?}");
        let Ending::Failed(reason) = broker.wait(&mut Signals::listen().unwrap()) else {
            panic!("{fault:?}: the broker went on");
        };
        assert!(reason.contains("/a/milena.tree"), "{fault:?}: {reason}");
        broker.stop();
        assert!(!exists(&disk, "/a/.kafka_cleanshutdown"), "{fault:?}");
        assert!(exists(&disk, "/b/.kafka_cleanshutdown"), "{fault:?}");
    }
}

#[test]
fn a_log_directory_that_fails_takes_the_tree_in_it_and_with_it_the_broker_down() {
    let disk = SimulatedDisk::new(1);
    let mut broker = start_on(&disk).unwrap();
    let directory = broker
        .broker()
        .logs
        .directories()
        .find(|one| one.path() == Path::new("/a"));
    directory.unwrap().take_offline("a fault".to_owned());
    let Ending::Failed(reason) = broker.wait(&mut Signals::listen().unwrap()) else {
        panic!("the broker went on");
    };
    assert!(
        reason.contains("/a/milena.tree") && reason.contains("a fault"),
        "{reason}"
    );
    assert_eq!(broker.stop(), [], "it was known before");
}

#[test]
fn a_stop_that_cannot_write_names_the_directory() {
    let disk = SimulatedDisk::new(1);
    let broker = start_on(&disk).unwrap();
    disk.fail_below(Path::new("/b"), Fault::Eio);
    let unclean = broker.stop();
    assert_eq!(unclean.len(), 1, "{unclean:?}");
    assert_eq!(unclean[0].0, Path::new("/b"));
}

#[test]
fn a_first_start_that_is_refused_leaves_no_tree() {
    let disk = SimulatedDisk::new(1);
    let begun = start_on(&disk).unwrap();
    begun.stop();
    assert!(exists(&disk, "/a/milena.tree"));

    let disk = SimulatedDisk::new(1);
    disk.fail_below(Path::new("/b"), Fault::Eio);
    let refused = start_on(&disk).unwrap_err();
    assert!(refused.to_string().contains("/b is offline"), "{refused}");
    disk.clear_faults();
    disk.fail_below(Path::new("/a/meta.properties.tmp"), Fault::Eio);
    let refused = start_on(&disk).unwrap_err();
    assert!(matches!(refused, StartError::Coordination(_)), "{refused}");
    assert!(!exists(&disk, "/a/milena.tree") && !exists(&disk, "/a/milena.tree.tmp"));
    disk.clear_faults();
    start_on(&disk).unwrap().stop();
    assert!(exists(&disk, "/a/milena.tree"));
}
