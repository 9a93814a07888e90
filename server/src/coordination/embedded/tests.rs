//! The embedded tree: the rules of the tree, watches and sessions, and power cuts at every operation of its disk.

use std::sync::Arc;

use bytes::Bytes;
use milena_engine::io::simulated::{Fault, ManualClock, SimulatedDisk};
use milena_engine::units::TimestampMs;
use parking_lot::Mutex;

use super::*;
use crate::coordination::{
    Coordination, CreateMode, ExpectedVersion, MultiError, Node, Operation, SessionEvent, Watch, WatchEvent,
    WatchEventKind,
};

fn wait<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(future)
}

fn dirs() -> Vec<PathBuf> {
    vec![PathBuf::from("/a"), PathBuf::from("/b")]
}

fn disk(seed: u64) -> SimulatedDisk {
    let disk = SimulatedDisk::new(seed);
    for directory in dirs() {
        disk.create_dir_all(&directory).unwrap();
    }
    disk.sync_dir(Path::new("/")).unwrap();
    disk
}

fn open(disk: &SimulatedDisk) -> Result<EmbeddedTree, OpenTreeError> {
    let io: Arc<dyn Io> = Arc::new(disk.clone());
    EmbeddedTree::open(&io, Arc::new(ManualClock::new(TimestampMs(1000))), &dirs())
}

fn begin(disk: &SimulatedDisk, offline: &[(PathBuf, String)]) -> Result<EmbeddedTree, OpenTreeError> {
    let io: Arc<dyn Io> = Arc::new(disk.clone());
    let clock = Arc::new(ManualClock::new(TimestampMs(1000)));
    let usable: Vec<PathBuf> = dirs()
        .into_iter()
        .filter(|path| offline.iter().all(|(offline, _)| offline != path))
        .collect();
    EmbeddedTree::open_or_begin(&io, clock, &usable, offline)
}

fn names(disk: &SimulatedDisk, directory: &str) -> Vec<String> {
    let entries = disk.list(Path::new(directory)).unwrap();
    entries.into_iter().map(|entry| entry.name).collect()
}

fn data(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

/// One session on a new tree.
struct Bench {
    tree: EmbeddedTree,
    session: Arc<EmbeddedSession>,
    fired: Arc<Mutex<Vec<WatchEvent>>>,
}

impl Bench {
    fn new() -> Bench {
        let tree = open(&disk(1)).unwrap();
        let session = tree.session();
        Bench {
            tree,
            session,
            fired: Arc::default(),
        }
    }

    fn coordination(&self) -> &dyn Coordination {
        self.session.as_ref()
    }

    fn watch(&self) -> Option<Watch> {
        let fired = Arc::clone(&self.fired);
        Some(Box::new(move |event| fired.lock().push(event)))
    }

    fn create(&self, path: &str) -> Result<String, CoordinationError> {
        wait(
            self.coordination()
                .create(path, Some(data("x")), CreateMode::Persistent),
        )
    }

    fn get(&self, path: &str) -> Option<Node> {
        wait(self.session.get(path, None)).unwrap()
    }

    fn fired(&self) -> Vec<(String, WatchEventKind)> {
        self.fired
            .lock()
            .drain(..)
            .map(|event| (event.path, event.kind))
            .collect()
    }
}

#[test]
fn a_refused_operation_names_what_it_met_and_a_multi_with_one_changes_nothing() {
    use CoordinationError::*;
    let bench = Bench::new();
    bench.create("/a").unwrap();
    bench.create("/a/b").unwrap();
    wait(bench.coordination().create("/e", None, CreateMode::Ephemeral)).unwrap();
    let path = |path: &str| path.to_owned();
    let table: Vec<(Operation, CoordinationError)> = vec![
        (Operation::create("/a", None), NodeExists { path: path("/a") }),
        (Operation::create("/x/y", None), NoNode { path: path("/x") }),
        (
            Operation::create("/e/f", None),
            NoChildrenForEphemerals { path: path("/e") },
        ),
        (
            Operation::set("/x", data(""), ExpectedVersion::Any),
            NoNode { path: path("/x") },
        ),
        (
            Operation::set("/a", data(""), ExpectedVersion::Exactly(4)),
            BadVersion {
                path: path("/a"),
                expected: 4,
            },
        ),
        (Operation::delete("/x"), NoNode { path: path("/x") }),
        (Operation::delete("/a"), NotEmpty { path: path("/a") }),
        (
            Operation::Delete {
                path: path("/a/b"),
                expected: ExpectedVersion::Exactly(1),
            },
            BadVersion {
                path: path("/a/b"),
                expected: 1,
            },
        ),
        (
            Operation::Check {
                path: path("/a"),
                version: 2,
            },
            BadVersion {
                path: path("/a"),
                expected: 2,
            },
        ),
        (
            Operation::Check {
                path: path("/x"),
                version: 0,
            },
            NoNode { path: path("/x") },
        ),
        (
            Operation::create("a", None),
            InvalidPath {
                path: path("a"),
                reason: "it does not start with /",
            },
        ),
    ];
    for (operation, expected) in table {
        let found = wait(
            bench
                .session
                .multi(vec![Operation::create("/new", None), operation.clone()]),
        );
        assert_eq!(
            found,
            Err(MultiError {
                index: 1,
                error: expected
            }),
            "{operation:?}"
        );
        assert_eq!(bench.get("/new"), None);
    }
}

#[test]
fn a_multi_sees_its_own_earlier_operations() {
    let bench = Bench::new();
    let results = wait(bench.session.multi(vec![
        Operation::create("/a", None),
        Operation::create("/a/b", Some(data("1"))),
        Operation::set("/a/b", data("2"), ExpectedVersion::Exactly(0)),
        Operation::Check {
            path: "/a/b".into(),
            version: 1,
        },
        Operation::delete("/a/b"),
        Operation::create("/a/b", Some(data("3"))),
    ]))
    .unwrap();
    assert_eq!(results.len(), 6);
    let node = bench.get("/a/b").unwrap();
    assert_eq!((node.data, node.stat.version), (Some(data("3")), 0));
    assert_eq!(bench.get("/a").unwrap().stat.child_count, 1);
}

#[test]
fn versions_count_changes_and_transaction_ids_grow_with_each() {
    let bench = Bench::new();
    bench.create("/a").unwrap();
    let created = bench.get("/a").unwrap().stat;
    assert_eq!((created.version, created.ctime), (0, TimestampMs(1000)));
    let one = wait(
        bench
            .coordination()
            .set("/a", data("1"), ExpectedVersion::Exactly(0)),
    )
    .unwrap();
    let two = wait(bench.coordination().set("/a", data("2"), ExpectedVersion::Any)).unwrap();
    assert_eq!((one.version, two.version), (1, 2));
    assert!(created.czxid < one.mzxid && one.mzxid < two.mzxid);
    assert_eq!(two.czxid, created.czxid);
    wait(bench.coordination().delete("/a", ExpectedVersion::Any)).unwrap();
    bench.create("/a").unwrap();
    assert!(bench.get("/a").unwrap().stat.czxid > two.mzxid);
}

#[test]
fn a_sequential_node_gets_ten_digits_that_never_come_again() {
    let bench = Bench::new();
    bench.create("/q").unwrap();
    let next = || {
        let created = bench
            .coordination()
            .create("/q/n_", None, CreateMode::PersistentSequential);
        wait(created).unwrap()
    };
    let (first, second) = (next(), next());
    assert_eq!(
        (first.as_str(), second.as_str()),
        ("/q/n_0000000000", "/q/n_0000000001")
    );
    wait(bench.coordination().delete(&second, ExpectedVersion::Any)).unwrap();
    assert!(next() > second);
}

#[test]
fn children_are_the_direct_ones_sorted_by_name() {
    let bench = Bench::new();
    wait(
        bench
            .coordination()
            .ensure_all(&["/a/c/d", "/a/b", "/ab", "/a/b.c/d/e"]),
    )
    .unwrap();
    let children = |path: &str| wait(bench.session.children(path, None)).unwrap();
    assert_eq!(children("/a").unwrap(), ["b", "b.c", "c"]);
    assert_eq!(children("/").unwrap(), ["a", "ab"]);
    assert_eq!(children("/ab").unwrap(), [""; 0]);
    assert_eq!(children("/none"), None);
}

#[test]
fn a_subtree_is_listed_so_that_it_can_be_deleted_in_that_order() {
    let bench = Bench::new();
    wait(bench.coordination().ensure_all(&["/a/b/c", "/a/b/d", "/a/e"])).unwrap();
    let subtree = wait(bench.coordination().subtree("/a")).unwrap();
    assert_eq!(subtree.len(), 5);
    wait(
        bench
            .session
            .multi(subtree.into_iter().map(Operation::delete).collect()),
    )
    .unwrap();
    assert_eq!(bench.get("/a"), None);
    assert!(wait(bench.coordination().subtree("/a")).unwrap().is_empty());
}

#[test]
fn what_is_ensured_exists_with_null_data_and_is_left_alone_if_it_did() {
    let bench = Bench::new();
    bench.create("/a").unwrap();
    wait(bench.coordination().ensure("/a/b/c")).unwrap();
    assert_eq!(bench.get("/a").unwrap().data, Some(data("x")));
    assert_eq!(bench.get("/a/b/c").unwrap().data, None);
    let before = bench.get("/a/b/c").unwrap();
    wait(bench.coordination().ensure("/a/b/c")).unwrap();
    assert_eq!(bench.get("/a/b/c").unwrap(), before);
    wait(bench.coordination().set_or_create("/x/y", data("1"))).unwrap();
    wait(bench.coordination().set_or_create("/x/y", data("2"))).unwrap();
    assert_eq!(bench.get("/x/y").unwrap().data, Some(data("2")));
}

#[test]
fn a_watch_fires_once_for_the_next_change_and_never_for_an_earlier_one() {
    use WatchEventKind::*;
    let bench = Bench::new();
    bench.create("/a").unwrap();
    wait(bench.session.get("/a", bench.watch())).unwrap();
    wait(bench.session.get("/a/b", bench.watch())).unwrap();
    wait(bench.session.children("/a", bench.watch())).unwrap();
    assert_eq!(
        wait(bench.session.children("/none", bench.watch())).unwrap(),
        None
    );
    assert_eq!(bench.fired(), []);
    bench.create("/a/b").unwrap();
    assert_eq!(
        bench.fired(),
        [("/a/b".into(), Created), ("/a".into(), ChildrenChanged)]
    );
    wait(bench.coordination().set("/a", data("1"), ExpectedVersion::Any)).unwrap();
    assert_eq!(bench.fired(), [("/a".into(), DataChanged)]);
    wait(bench.coordination().set("/a", data("2"), ExpectedVersion::Any)).unwrap();
    bench.create("/none").unwrap();
    assert_eq!(bench.fired(), []);
    wait(bench.session.children("/a/b", bench.watch())).unwrap();
    wait(bench.coordination().delete("/a/b", ExpectedVersion::Any)).unwrap();
    assert_eq!(bench.fired(), [("/a/b".into(), Deleted)]);
    assert!(bench.create("/a").is_err());
    assert_eq!(bench.fired(), [], "a refused change fires nothing");
}

#[test]
fn a_watch_has_fired_when_the_writer_has_its_answer() {
    let bench = Bench::new();
    for turn in 0..50 {
        let path = format!("/n{turn}");
        wait(bench.session.get(&path, bench.watch())).unwrap();
        bench.create(&path).unwrap();
        assert_eq!(bench.fired().len(), 1);
    }
}

#[test]
fn ephemeral_nodes_go_with_their_session_and_others_watch_them_go() {
    let bench = Bench::new();
    let other = bench.tree.session();
    let events = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&events);
    other.listen(Arc::new(move |event| heard.lock().push(event)));
    wait((other.as_ref() as &dyn Coordination).create("/e", None, CreateMode::Ephemeral)).unwrap();
    assert!(bench.get("/e").unwrap().stat.ephemeral_owner.is_some());
    wait(bench.session.get("/e", bench.watch())).unwrap();
    wait(other.get("/e", Some(Box::new(|_| panic!("a watch of an ended session"))))).unwrap();
    wait(bench.tree.expire(&other)).unwrap();
    assert_eq!(bench.get("/e"), None);
    assert_eq!(bench.fired(), [("/e".into(), WatchEventKind::Deleted)]);
    assert_eq!(*events.lock(), [SessionEvent::Expired]);
    assert_eq!(wait(other.get("/", None)), Err(CoordinationError::SessionExpired));
    let refused = wait(other.multi(vec![Operation::create("/f", None)]));
    assert_eq!(
        refused,
        Err(MultiError {
            index: 0,
            error: CoordinationError::SessionExpired
        })
    );
    assert_eq!(bench.get("/f"), None);
}

#[test]
fn a_closed_session_leaves_what_is_persistent_and_hears_nothing() {
    let bench = Bench::new();
    let other = bench.tree.session();
    other.listen(Arc::new(|_| panic!("closing is not expiring")));
    let coordination: &dyn Coordination = other.as_ref();
    wait(coordination.create("/p", None, CreateMode::Persistent)).unwrap();
    wait(coordination.create("/e", None, CreateMode::Ephemeral)).unwrap();
    wait(coordination.close()).unwrap();
    assert!(bench.get("/p").is_some() && bench.get("/e").is_none());
}

#[test]
fn a_tree_that_is_opened_again_has_all_but_the_ephemeral_nodes_and_goes_on_counting() {
    let disk = disk(1);
    let zxid = {
        let tree = open(&disk).unwrap();
        assert!(tree.is_new());
        let session = tree.session();
        let coordination: &dyn Coordination = session.as_ref();
        wait(coordination.create("/p", Some(data("1")), CreateMode::Persistent)).unwrap();
        wait(coordination.create("/e", None, CreateMode::Ephemeral)).unwrap();
        wait(session.get("/e", None)).unwrap().unwrap().stat.czxid
    };
    let tree = open(&disk).unwrap();
    assert!(!tree.is_new());
    let session = tree.session();
    assert_eq!(
        wait(session.get("/p", None)).unwrap().unwrap().data,
        Some(data("1"))
    );
    assert_eq!(wait(session.get("/e", None)).unwrap(), None);
    let coordination: &dyn Coordination = session.as_ref();
    wait(coordination.create("/e", None, CreateMode::Ephemeral)).unwrap();
    let created = wait(session.get("/e", None)).unwrap().unwrap().stat;
    assert!(created.czxid > zxid, "a broker epoch never goes back");
    tree.shutdown();
    assert_eq!(
        wait(session.get("/p", None)),
        Err(CoordinationError::SessionExpired)
    );
}

#[test]
fn the_tree_is_found_in_any_log_directory_and_two_are_refused() {
    let disk = disk(1);
    drop(open(&disk).unwrap());
    assert!(disk.stat(Path::new("/a/milena.tree")).unwrap().is_some());
    disk.rename(Path::new("/a/milena.tree"), Path::new("/b/milena.tree"))
        .unwrap();
    assert_eq!(open(&disk).unwrap().path(), Path::new("/b/milena.tree"));
    let file = disk
        .open(Path::new("/a/milena.tree"), OpenMode::CreateNew)
        .unwrap();
    drop(file);
    let refused = open(&disk).unwrap_err().to_string();
    assert!(
        refused.contains("/a/milena.tree") && refused.contains("/b/milena.tree"),
        "{refused}"
    );
}

#[test]
fn a_tree_that_lies_or_may_lie_in_an_offline_directory_is_refused_and_no_second_one_is_made() {
    let offline = |path: &str| [(PathBuf::from(path), "Read-only file system".to_owned())];
    for (tree_in, offline_is, said) in [
        (Some("/a"), "/a", "/a/milena.tree"),
        (Some("/b"), "/b", "/b/milena.tree"),
        (None, "/a", "/a is offline"),
        (None, "/b", "/b is offline"),
    ] {
        let disk = disk(1);
        if let Some(directory) = tree_in {
            drop(open(&disk).unwrap());
            let to = Path::new(directory).join(TREE_FILE);
            disk.rename(Path::new("/a/milena.tree"), &to).unwrap();
        }
        let before = (names(&disk, "/a"), names(&disk, "/b"));
        let refused = begin(&disk, &offline(offline_is)).unwrap_err().to_string();
        assert!(
            refused.contains(said) && refused.contains("Read-only file system"),
            "{refused}"
        );
        assert_eq!((names(&disk, "/a"), names(&disk, "/b")), before);
    }
    let disk = disk(1);
    drop(open(&disk).unwrap());
    assert!(!begin(&disk, &offline("/b")).unwrap().is_new());
    disk.open(Path::new("/b/milena.tree"), OpenMode::CreateNew)
        .unwrap();
    let refused = begin(&disk, &offline("/b")).unwrap_err();
    assert!(matches!(refused, OpenTreeError::TwoTrees { .. }), "{refused}");
}

#[test]
fn an_unreadable_directory_without_a_known_tree_is_refused_by_its_name() {
    let disk = disk(1);
    disk.fail_below(Path::new("/a"), Fault::Eio);
    let offline = [(PathBuf::from("/a"), "Input/output error".to_owned())];
    let refused = begin(&disk, &offline).unwrap_err();
    assert!(
        matches!(&refused, OpenTreeError::MayBeOffline { directory, .. } if directory == Path::new("/a")),
        "{refused}"
    );
    assert_eq!(names(&disk, "/b"), [""; 0]);
}

#[test]
fn a_new_tree_with_all_that_a_start_writes_costs_one_sync_of_the_file_and_one_of_the_directory() {
    let disk = disk(1);
    disk.start_trace();
    let tree = begin(&disk, &[]).unwrap();
    let session = tree.session();
    for change in script() {
        wait(session.multi(change)).unwrap();
    }
    let syncs = || disk.trace().iter().filter(|line| line.contains("sync")).count();
    assert_eq!(syncs(), 0);
    tree.establish().unwrap();
    assert_eq!(syncs(), 2, "{:#?}", disk.trace());
    tree.establish().unwrap();
    assert_eq!(syncs(), 2);
    wait(session.multi(vec![Operation::create("/later", None)])).unwrap();
    assert_eq!(syncs(), 3);
}

#[test]
fn a_tree_that_was_never_established_leaves_nothing_behind() {
    let disk = disk(1);
    let tree = begin(&disk, &[]).unwrap();
    wait(tree.session().multi(vec![Operation::create("/a", None)])).unwrap();
    assert!(tree.is_new());
    tree.shutdown();
    drop(tree);
    assert_eq!(names(&disk, "/a"), [""; 0]);
}

#[test]
fn a_file_that_is_no_tree_is_refused_with_its_path() {
    let disk = disk(1);
    let file = disk
        .open(Path::new("/a/milena.tree"), OpenMode::CreateNew)
        .unwrap();
    file.write_vectored_at(0, &[std::io::IoSlice::new(&[7; 5000])])
        .unwrap();
    drop(file);
    let refused = open(&disk).unwrap_err().to_string();
    assert!(refused.contains("/a/milena.tree"), "{refused}");
}

#[test]
fn a_failed_write_is_final_and_the_session_hears_of_it() {
    for fault in [Fault::Eio, Fault::Enospc, Fault::ShortWrite, Fault::FailedSync] {
        let disk = disk(3);
        let tree = open(&disk).unwrap();
        let session = tree.session();
        let events = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&events);
        session.listen(Arc::new(move |event| heard.lock().push(event)));
        disk.fail_after(0, fault);
        let refused = wait(session.multi(vec![Operation::create("/a", None)])).unwrap_err();
        assert!(
            matches!(refused.error, CoordinationError::Lost { .. }),
            "{fault:?}: {refused}"
        );
        disk.clear_faults();
        let again = wait(session.multi(vec![Operation::create("/b", None)])).unwrap_err();
        assert!(
            matches!(again.error, CoordinationError::Lost { .. }),
            "{fault:?}: {again}"
        );
        let events = events.lock();
        assert!(matches!(&events[..], [SessionEvent::Lost(message)] if message.contains("/a/milena.tree")));
    }
}

#[test]
fn a_tree_whose_directory_is_lost_says_so_to_every_session() {
    let bench = Bench::new();
    let events = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&events);
    bench
        .session
        .listen(Arc::new(move |event| heard.lock().push(event)));
    bench.tree.lose("the directory is offline");
    bench.tree.lose("again");
    assert!(matches!(
        wait(bench.session.get("/", None)),
        Err(CoordinationError::Lost { .. })
    ));
    assert_eq!(events.lock().len(), 1);
}

#[test]
fn a_thousand_partitions_are_a_handful_of_commits() {
    let disk = disk(1);
    let tree = open(&disk).unwrap();
    let session = tree.session();
    let mut operations = vec![Operation::create("/t", None)];
    for partition in 0..1000 {
        operations.push(Operation::create(format!("/t/{partition}"), None));
        operations.push(Operation::create(
            format!("/t/{partition}/state"),
            Some(data("{}")),
        ));
    }
    disk.start_trace();
    wait(session.multi(operations)).unwrap();
    let syncs = disk.trace().iter().filter(|line| line.contains("sync")).count();
    assert!(syncs <= 3, "{syncs} syncs");
    assert_eq!(wait(session.children("/t", None)).unwrap().unwrap().len(), 1000);
}

/// What the script of the power cuts does: each change as a whole.
fn script() -> Vec<Vec<Operation>> {
    let mut changes = vec![vec![Operation::create("/t", None)]];
    for turn in 0..12 {
        let node = format!("/t/{turn}");
        changes.push(vec![
            Operation::create(node.clone(), Some(data(&"x".repeat(300 * turn)))),
            Operation::create(format!("{node}/state"), Some(data("1"))),
        ]);
        changes.push(vec![
            Operation::set(format!("{node}/state"), data("2"), ExpectedVersion::Exactly(0)),
            Operation::set("/t", data(&turn.to_string()), ExpectedVersion::Any),
        ]);
        if turn % 3 == 2 {
            let gone = format!("/t/{}", turn - 1);
            changes.push(vec![
                Operation::delete(format!("{gone}/state")),
                Operation::delete(gone),
            ]);
        }
    }
    changes
}

/// All of the tree, as text.
fn image(session: &EmbeddedSession) -> Vec<String> {
    let coordination: &dyn Coordination = session;
    let mut paths = wait(coordination.subtree("/")).unwrap();
    paths.sort();
    let nodes = wait(session.get_many(paths.clone())).unwrap();
    paths
        .into_iter()
        .zip(nodes)
        .map(|(path, node)| format!("{path} {node:?}"))
        .collect()
}

/// The images after none, one, two, ... changes of the script.
fn images() -> Vec<Vec<String>> {
    let tree = open(&disk(0)).unwrap();
    let session = tree.session();
    let mut images = vec![image(&session)];
    for change in script() {
        wait(session.multi(change)).unwrap();
        images.push(image(&session));
    }
    images
}

/// How many changes the tree has after the power is cut now: all of each.
fn whole_changes_after_a_cut(disk: &SimulatedDisk, images: &[Vec<String>], cut: u64, seed: u64) -> usize {
    let after = disk.power_cut(cut * 31 + seed);
    let tree = open(&after).unwrap_or_else(|error| panic!("cut {cut} seed {seed}: {error}"));
    let found = image(&tree.session());
    let at = images.iter().position(|image| *image == found);
    at.unwrap_or_else(|| panic!("cut {cut} seed {seed}: half a change: {found:#?}"))
}

#[test]
fn after_a_power_cut_at_any_operation_every_answered_change_is_there_whole_and_none_is_half() {
    let images = images();
    let operations = {
        let disk = disk(0);
        let tree = open(&disk).unwrap();
        let session = tree.session();
        for change in script() {
            wait(session.multi(change)).unwrap();
        }
        tree.shutdown();
        disk.op_count()
    };
    assert!(operations > 100, "{operations}");
    let start = disk(0).op_count();
    for cut in 0..operations - start {
        let disk = disk(cut);
        disk.cut_power_after(cut);
        let mut answered = 0;
        if let Ok(tree) = open(&disk) {
            let session = tree.session();
            for change in script() {
                if wait(session.multi(change)).is_err() {
                    break;
                }
                answered += 1;
            }
        }
        for seed in 0..4 {
            let at = whole_changes_after_a_cut(&disk, &images, cut, seed);
            assert!(
                at == answered || at == answered + 1,
                "cut {cut} seed {seed}: {answered} changes were answered, {at} are there"
            );
        }
    }
}

/// Plays the script on a tree that is established after `before` changes. Returns whether it was, and the changes answered.
fn play_from_the_beginning(disk: &SimulatedDisk, before: usize) -> (bool, usize) {
    let (mut established, mut answered) = (false, 0);
    let Ok(tree) = begin(disk, &[]) else {
        return (established, answered);
    };
    let session = tree.session();
    for change in script() {
        if answered == before {
            established = tree.establish().is_ok();
        }
        if (answered >= before && !established) || wait(session.multi(change)).is_err() {
            break;
        }
        answered += 1;
    }
    (established, answered)
}

#[test]
fn after_a_power_cut_while_a_tree_is_new_it_is_there_as_it_was_established_or_not_at_all() {
    const BEFORE: usize = 9;
    let images = images();
    let whole = disk(0);
    assert_eq!(play_from_the_beginning(&whole, BEFORE), (true, images.len() - 1));
    let operations = whole.op_count() - disk(0).op_count();
    let (mut cut_before, mut cut_after) = (0, 0);
    for cut in 0..operations {
        let disk = disk(cut);
        disk.cut_power_after(cut);
        let (established, answered) = play_from_the_beginning(&disk, BEFORE);
        if established {
            cut_after += 1;
        } else {
            cut_before += 1;
        }
        for seed in 0..4 {
            let at = whole_changes_after_a_cut(&disk, &images, cut, seed);
            let fits = if established {
                at == answered || at == answered + 1
            } else {
                at == 0 || (at == BEFORE && answered == BEFORE)
            };
            assert!(
                fits,
                "cut {cut} seed {seed}: established {established}, {answered} changes were answered, {at} are there"
            );
        }
    }
    assert!(
        cut_before > 20 && cut_after > 20,
        "{cut_before} and {cut_after} cuts"
    );
}

#[test]
fn a_killed_process_loses_nothing_that_was_answered() {
    let images = images();
    let disk = disk(5);
    let tree = open(&disk).unwrap();
    let session = tree.session();
    for (answered, change) in script().into_iter().enumerate() {
        wait(session.multi(change)).unwrap();
        let after = disk.process_kill();
        assert_eq!(image(&open(&after).unwrap().session()), images[answered + 1]);
    }
}
