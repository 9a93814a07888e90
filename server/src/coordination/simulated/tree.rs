//! One server's copy of the tree: nodes in memory, changed by whole transactions.

use std::collections::BTreeMap;

use bytes::Bytes;
use milena_engine::units::TimestampMs;

use crate::coordination::{
    CoordinationError, CreateMode, ExpectedVersion, MultiError, Node, Operation, OperationResult, Stat,
    WatchEvent, WatchEventKind, parent,
};

#[derive(Clone, Debug)]
struct Znode {
    data: Option<Bytes>,
    stat: Stat,
    /// Children created so far: the next sequence number.
    creations: u32,
}

/// Nodes by path.
#[derive(Clone, Debug)]
pub(super) struct Tree {
    nodes: BTreeMap<String, Znode>,
}

/// One transaction as it was decided: every server applies the same.
#[derive(Clone, Debug)]
pub(super) struct Transaction {
    pub(super) zxid: i64,
    pub(super) time: TimestampMs,
    pub(super) session: i64,
    pub(super) operations: Vec<Operation>,
}

impl Tree {
    pub(super) fn new() -> Tree {
        let root = Znode {
            data: None,
            stat: Stat {
                czxid: 0,
                mzxid: 0,
                ctime: TimestampMs(0),
                mtime: TimestampMs(0),
                version: 0,
                cversion: 0,
                ephemeral_owner: None,
                child_count: 0,
            },
            creations: 0,
        };
        Tree {
            nodes: BTreeMap::from([("/".to_owned(), root)]),
        }
    }

    pub(super) fn get(&self, path: &str) -> Option<Node> {
        let node = self.nodes.get(path)?;
        Some(Node {
            data: node.data.clone(),
            stat: node.stat,
        })
    }

    /// Names, sorted.
    pub(super) fn children(&self, path: &str) -> Option<Vec<String>> {
        self.nodes.get(path)?;
        let below = self.nodes.keys().filter(|child| parent(child) == Some(path));
        let names = below.filter_map(|child| child.rsplit('/').next());
        Some(names.map(str::to_owned).collect())
    }

    /// Paths of the ephemeral nodes of a session.
    pub(super) fn owned_by(&self, session: i64) -> Vec<String> {
        let owned = self
            .nodes
            .iter()
            .filter(|(_, node)| node.stat.ephemeral_owner == Some(session));
        owned.map(|(path, _)| path.clone()).collect()
    }

    /// Applies a transaction as a whole or not at all.
    pub(super) fn decide(&mut self, transaction: &Transaction) -> Result<Vec<OperationResult>, MultiError> {
        let mut next = self.clone();
        let mut results = Vec::with_capacity(transaction.operations.len());
        for (index, operation) in transaction.operations.iter().enumerate() {
            match next.operate(transaction, operation.clone(), &mut Vec::new()) {
                Ok(result) => results.push(result),
                Err(error) => return Err(MultiError { index, error }),
            }
        }
        *self = next;
        Ok(results)
    }

    /// Applies a transaction that was decided; what fires, in order.
    pub(super) fn follow(&mut self, transaction: &Transaction) -> Vec<WatchEvent> {
        let mut events = Vec::new();
        for operation in &transaction.operations {
            self.operate(transaction, operation.clone(), &mut events)
                .expect("what was decided on the same tree can be applied");
        }
        events
    }

    fn operate(
        &mut self,
        transaction: &Transaction,
        operation: Operation,
        events: &mut Vec<WatchEvent>,
    ) -> Result<OperationResult, CoordinationError> {
        match operation {
            Operation::Check { path, version } => {
                self.expect(&path, ExpectedVersion::Exactly(version))?;
                Ok(OperationResult::Checked)
            }
            Operation::Create { path, data, mode } => self.create(transaction, path, data, mode, events),
            Operation::SetData { path, data, expected } => {
                let node = self.expect(&path, expected)?;
                node.data = data;
                node.stat.version += 1;
                node.stat.mzxid = transaction.zxid;
                node.stat.mtime = transaction.time;
                let stat = node.stat;
                events.push(event(&path, WatchEventKind::DataChanged));
                Ok(OperationResult::Set(stat))
            }
            Operation::Delete { path, expected } => {
                if self.expect(&path, expected)?.stat.child_count > 0 {
                    return Err(CoordinationError::NotEmpty { path });
                }
                self.nodes.remove(&path);
                let above = parent(&path).expect("the root has children").to_owned();
                let parent = self.nodes.get_mut(&above).expect("a node has a parent");
                parent.stat.child_count -= 1;
                parent.stat.cversion += 1;
                events.push(event(&path, WatchEventKind::Deleted));
                events.push(event(&above, WatchEventKind::ChildrenChanged));
                Ok(OperationResult::Deleted)
            }
        }
    }

    fn expect(&mut self, path: &str, expected: ExpectedVersion) -> Result<&mut Znode, CoordinationError> {
        let node = self
            .nodes
            .get_mut(path)
            .ok_or_else(|| CoordinationError::NoNode {
                path: path.to_owned(),
            })?;
        match expected {
            ExpectedVersion::Exactly(expected) if expected != node.stat.version => {
                let path = path.to_owned();
                Err(CoordinationError::BadVersion { path, expected })
            }
            _ => Ok(node),
        }
    }

    fn create(
        &mut self,
        transaction: &Transaction,
        mut path: String,
        data: Option<Bytes>,
        mode: CreateMode,
        events: &mut Vec<WatchEvent>,
    ) -> Result<OperationResult, CoordinationError> {
        let Some(above) = parent(&path).map(str::to_owned) else {
            return Err(CoordinationError::NodeExists { path });
        };
        let Some(parent) = self.nodes.get_mut(&above) else {
            return Err(CoordinationError::NoNode { path: above });
        };
        if parent.stat.ephemeral_owner.is_some() {
            return Err(CoordinationError::NoChildrenForEphemerals { path: above });
        }
        let is_sequential = matches!(
            mode,
            CreateMode::PersistentSequential | CreateMode::EphemeralSequential
        );
        if is_sequential {
            path = format!("{path}{:010}", parent.creations);
        }
        if self.nodes.contains_key(&path) {
            return Err(CoordinationError::NodeExists { path });
        }
        let parent = self.nodes.get_mut(&above).expect("it was just found");
        parent.creations += 1;
        parent.stat.child_count += 1;
        parent.stat.cversion += 1;
        let is_ephemeral = matches!(mode, CreateMode::Ephemeral | CreateMode::EphemeralSequential);
        let node = Znode {
            data,
            stat: Stat {
                czxid: transaction.zxid,
                mzxid: transaction.zxid,
                ctime: transaction.time,
                mtime: transaction.time,
                version: 0,
                cversion: 0,
                ephemeral_owner: is_ephemeral.then_some(transaction.session),
                child_count: 0,
            },
            creations: 0,
        };
        self.nodes.insert(path.clone(), node);
        events.push(event(&path, WatchEventKind::Created));
        events.push(event(&above, WatchEventKind::ChildrenChanged));
        Ok(OperationResult::Created { path })
    }
}

fn event(path: &str, kind: WatchEventKind) -> WatchEvent {
    WatchEvent {
        path: path.to_owned(),
        kind,
    }
}
