//! The embedded tree and the simulated ensemble beside a real ZooKeeper: the same random steps on all must be answered alike, and
//! fire alike.
//!
//! `tree_differential CONNECT [SEED [STEPS]]`; the tree in ZooKeeper is what lies below CONNECT's chroot, which must be empty. Two
//! sessions on each side create, set, delete and check, alone and in transactions, read with watches, and are now and then
//! closed and replaced. Compared are results, errors with the operation and path they name, data, versions, counts, owners, and
//! what fired. The first difference ends it with exit code 1 and the steps that led there.

use std::collections::VecDeque;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use milena_engine::io::Io;
use milena_engine::io::simulated::{ManualClock, SimulatedDisk};
use milena_engine::units::TimestampMs;
use milena_server::coordination::embedded::EmbeddedTree;
use milena_server::coordination::simulated::Ensemble;
use milena_server::coordination::zookeeper::{ZooKeeper, ZooKeeperConfig};
use milena_server::coordination::{Coordination, CreateMode, ExpectedVersion, Node, Operation, Watch};
use parking_lot::Mutex;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

/// Steps of which a difference shows the last.
const SHOWN: usize = 30;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

type Failure = Box<dyn std::error::Error>;

#[derive(Clone, Debug)]
enum Step {
    Get {
        session: usize,
        path: String,
        watch: bool,
    },
    GetMany {
        session: usize,
        paths: Vec<String>,
    },
    Children {
        session: usize,
        path: String,
        watch: bool,
    },
    Multi {
        session: usize,
        operations: Vec<Operation>,
    },
    Replace {
        session: usize,
    },
}

fn path() -> impl Strategy<Value = String> {
    let name = || prop::sample::select(vec!["a", "b", "c"]);
    let deeper = prop::collection::vec(name(), 1..4);
    deeper.prop_map(|names| names.iter().map(|name| format!("/{name}")).collect())
}

fn operation() -> impl Strategy<Value = Operation> {
    let data = || prop::option::of("[xyz]{0,3}".prop_map(Bytes::from));
    let version = prop_oneof![
        3 => Just(ExpectedVersion::Any),
        2 => (0..3).prop_map(ExpectedVersion::Exactly),
    ];
    let mode = prop::sample::select(vec![
        CreateMode::Persistent,
        CreateMode::Persistent,
        CreateMode::Persistent,
        CreateMode::Ephemeral,
        CreateMode::PersistentSequential,
        CreateMode::EphemeralSequential,
    ]);
    prop_oneof![
        5 => (path(), data(), mode).prop_map(|(path, data, mode)| Operation::Create { path, data, mode }),
        3 => (path(), data(), version.clone())
            .prop_map(|(path, data, expected)| Operation::SetData { path, data, expected }),
        2 => (path(), version).prop_map(|(path, expected)| Operation::Delete { path, expected }),
        1 => (path(), 0..3).prop_map(|(path, version)| Operation::Check { path, version }),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let session = || 0..2_usize;
    prop_oneof![
        6 => (session(), prop::collection::vec(operation(), 1..5))
            .prop_map(|(session, operations)| Step::Multi { session, operations }),
        3 => (session(), path(), any::<bool>()).prop_map(|(session, path, watch)| Step::Get { session, path, watch }),
        3 => (session(), path(), any::<bool>())
            .prop_map(|(session, path, watch)| Step::Children { session, path, watch }),
        1 => (session(), prop::collection::vec(path(), 1..4))
            .prop_map(|(session, paths)| Step::GetMany { session, paths }),
        1 => session().prop_map(|session| Step::Replace { session }),
    ]
}

/// One of the trees, with its sessions.
struct Side {
    open: Box<dyn Fn() -> Result<Arc<dyn Coordination>, Failure>>,
    sessions: Vec<Arc<dyn Coordination>>,
    /// By session: what fired and was not looked at yet.
    fired: Arc<Mutex<Vec<String>>>,
}

impl Side {
    fn new(open: Box<dyn Fn() -> Result<Arc<dyn Coordination>, Failure>>) -> Result<Side, Failure> {
        Ok(Side {
            sessions: vec![open()?, open()?],
            open,
            fired: Arc::default(),
        })
    }

    fn watch(&self, session: usize, is_wanted: bool, number: usize) -> Option<Watch> {
        let fired = Arc::clone(&self.fired);
        let watch: Watch = Box::new(move |event| {
            let line = format!(
                "watch {number} of session {session}: {:?} {}",
                event.kind, event.path
            );
            fired.lock().push(line);
        });
        is_wanted.then_some(watch)
    }

    /// What a step answers and fires, as text.
    async fn run(&mut self, number: usize, step: &Step) -> Result<String, Failure> {
        let answer = match step {
            Step::Get { session, path, watch } => {
                let watch = self.watch(*session, *watch, number);
                let node = self.sessions[*session].get(path, watch).await;
                format!(
                    "{:?}",
                    node.map(|node| node.map(|node| self.node(*session, &node)))
                )
            }
            Step::GetMany { session, paths } => {
                let nodes = self.sessions[*session].get_many(paths.clone()).await?;
                let shown = |node: &Option<Node>| node.as_ref().map(|node| self.node(*session, node));
                format!("{:?}", nodes.iter().map(shown).collect::<Vec<_>>())
            }
            Step::Children { session, path, watch } => {
                let watch = self.watch(*session, *watch, number);
                format!("{:?}", self.sessions[*session].children(path, watch).await)
            }
            Step::Multi { session, operations } => {
                match self.sessions[*session].multi(operations.clone()).await {
                    Ok(results) => {
                        let shown = results.iter().map(|result| match result {
                            milena_server::coordination::OperationResult::Set(stat) => {
                                format!("set to version {} of {} children", stat.version, stat.child_count)
                            }
                            other => format!("{other:?}"),
                        });
                        format!("{:?}", shown.collect::<Vec<_>>())
                    }
                    Err(failed) => format!("{failed:?}"),
                }
            }
            Step::Replace { session } => {
                self.sessions[*session].close().await?;
                self.sessions[*session] = (self.open)()?;
                "replaced".to_owned()
            }
        };
        // An event comes before the answer to whatever the same session asks after the change.
        for session in &self.sessions {
            session.get("/", None).await?;
        }
        let mut fired = std::mem::take(&mut *self.fired.lock());
        fired.sort();
        Ok(format!("{answer}; fired {fired:?}"))
    }

    /// All of a node that the trees must have alike.
    fn node(&self, session: usize, node: &Node) -> String {
        let stat = &node.stat;
        format!(
            "{:?} version {} cversion {} children {} {} {}",
            node.data,
            stat.version,
            stat.cversion,
            stat.child_count,
            if stat.czxid == stat.mzxid {
                "as created"
            } else {
                "changed"
            },
            if stat.ephemeral_owner.is_some() {
                "ephemeral"
            } else {
                "persistent"
            },
        ) + &format!(" seen by {session}")
    }
}

/// The embedded tree, on a disk in memory.
fn embedded() -> Result<Side, Failure> {
    let disk = SimulatedDisk::new(1);
    disk.create_dir_all(Path::new("/data"))?;
    let io: Arc<dyn Io> = Arc::new(disk);
    let clock = Arc::new(ManualClock::new(TimestampMs(1000)));
    let tree = EmbeddedTree::open(&io, clock, &["/data".into()])?;
    Side::new(Box::new(move || Ok(tree.session())))
}

/// The ensemble of the simulations, of one server: the sessions of a real server do not lag either.
fn simulated() -> Result<Side, Failure> {
    let ensemble = Ensemble::of_one_server(Arc::new(ManualClock::new(TimestampMs(1000))));
    Side::new(Box::new(move || Ok(ensemble.session())))
}

async fn zookeeper(connect: &str) -> Result<Side, Failure> {
    let config = ZooKeeperConfig {
        connect: connect.parse()?,
        session_timeout_ms: 6000,
        max_in_flight_requests: 10,
        set_acl: false,
        auth: Vec::new(),
        sasl: None,
        tls: None,
    };
    let first = ZooKeeper::begin(config.clone())?;
    first.connected(CONNECT_TIMEOUT).await?;
    first.ensure_chroot().await?;
    first.close().await?;
    Side::new(Box::new(move || Ok(Arc::new(ZooKeeper::begin(config.clone())?))))
}

async fn compare(connect: &str, seed: u64, steps: usize) -> Result<ExitCode, Failure> {
    let mut theirs = zookeeper(connect).await?;
    let mut ours = [
        ("embedded tree", embedded()?),
        ("simulated ensemble", simulated()?),
    ];
    let left_over = theirs.sessions[0].children("/", None).await?.unwrap_or_default();
    if !left_over.is_empty() {
        return Err(format!("{connect}: found {left_over:?}, expected an empty chroot").into());
    }
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let random = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let mut runner = TestRunner::new_with_rng(Config::default(), random);
    let strategy = step();
    let mut latest = VecDeque::new();
    let mut refused = 0;
    for number in 0..steps {
        let step = strategy
            .new_tree(&mut runner)
            .map_err(|reason| reason.to_string())?
            .current();
        let expected = theirs.run(number, &step).await?;
        refused += usize::from(expected.starts_with("MultiError"));
        latest.push_back(format!("{number}: {step:?}\n    {expected}"));
        if latest.len() > SHOWN {
            latest.pop_front();
        }
        for (name, side) in &mut ours {
            let found = side.run(number, &step).await?;
            if found != expected {
                for line in latest {
                    println!("{line}");
                }
                println!("    {name}: {found}\nseed {seed}, step {number}");
                return Ok(ExitCode::FAILURE);
            }
        }
    }
    println!("{steps} steps alike, seed {seed}; {refused} transactions were refused");
    Ok(ExitCode::SUCCESS)
}

fn main() -> Result<ExitCode, Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [connect, rest @ ..] = arguments.as_slice() else {
        return Err("expected CONNECT [SEED [STEPS]]".into());
    };
    let number = |at: usize, default: u64| rest.get(at).map_or(Ok(default), |text| text.parse());
    let (seed, steps) = (number(0, 1)?, number(1, 2000)?);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime?.block_on(compare(connect, seed, usize::try_from(steps)?))
}
