//! The file of the tree: redb on the engine's `Io`, and the rules of the tree applied to it.
//!
//! A node's key is `parent NUL name`, so that the children of one node lie side by side, in order. [`Store::apply`] works each
//! change out on a staging map first and writes it only if all of its operations held, so one commit carries changes that
//! succeeded beside ones that were refused.

use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use milena_engine::error::IoError;
use milena_engine::io::FileHandle;
use milena_engine::units::TimestampMs;
use parking_lot::RwLock;
use redb::{Database, Durability, ReadableDatabase, ReadableTable, StorageBackend, Table, TableDefinition};

use super::record::Record;
use crate::coordination::{
    CoordinationError, CreateMode, ExpectedVersion, MultiError, Node, Operation, OperationResult, WatchEvent,
    WatchEventKind, parent,
};

const NODES: TableDefinition<'static, &str, &[u8]> = TableDefinition::new("nodes");
/// Paths of ephemeral nodes, so that opening finds them without reading the tree.
const EPHEMERALS: TableDefinition<'static, &str, ()> = TableDefinition::new("ephemerals");
const COUNTERS: TableDefinition<'static, &str, i64> = TableDefinition::new("counters");
/// The last transaction id.
const ZXID: &str = "zxid";

/// What redb may keep of the file in memory. The tree of 10,000 partitions has some 4 MiB, of which little is read twice.
const CACHE_SIZE_BYTES: usize = 2 << 20;

/// redb's, a part of its file format.
const PAGE_SIZE_BYTES: u64 = 4096;

type Nodes<'txn> = Table<'txn, &'static str, &'static [u8]>;

/// One multi.
pub(super) struct Change {
    pub(super) session: i64,
    pub(super) operations: Vec<Operation>,
}

/// What became of a [`Change`].
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) zxid: i64,
    pub(super) result: Result<Vec<OperationResult>, MultiError>,
    /// In the order of the operations; empty if it was refused.
    pub(super) events: Vec<WatchEvent>,
    /// Ephemeral nodes that it created.
    pub(super) ephemerals: Vec<String>,
}

#[derive(Debug)]
pub(super) struct Store {
    path: PathBuf,
    backend: FileBackend,
    /// `None` once closed.
    database: RwLock<Option<Database>>,
}

impl Store {
    /// A new tree that has only a root, in an empty file. Nothing is synced before [`Store::establish`].
    pub(super) fn begin(file: FileHandle, path: &Path) -> Result<Store, CoordinationError> {
        let store = Store::on(FileBackend::new(file, false), path)?;
        store.transact(|write| {
            let mut bytes = Vec::new();
            Record::new(None, 0, TimestampMs(0), None).encode(&mut bytes);
            let mut nodes = write.open_table(NODES).map_err(lost)?;
            nodes.insert(key("/").as_str(), bytes.as_slice()).map_err(lost)?;
            write.open_table(EPHEMERALS).map_err(lost)?;
            write
                .open_table(COUNTERS)
                .map_err(lost)?
                .insert(ZXID, 0)
                .map_err(lost)?;
            Ok(())
        })?;
        Ok(store)
    }

    /// Makes all that was committed durable, with one sync, and from then on each commit by itself.
    pub(super) fn establish(&self) -> Result<(), IoError> {
        // In this order: a commit that still passes without a sync has been written when the sync begins.
        self.backend.syncs.store(true, Ordering::SeqCst);
        self.backend.file.sync()
    }

    pub(super) fn open(file: FileHandle, path: &Path) -> Result<Store, CoordinationError> {
        // A file that was growing when the power went may have any length in between; redb repairs one of whole pages, and
        // refuses others. What is cut or filled here was never committed.
        let size_bytes = file.size_bytes().map_err(|error| lost(error).at(path))?;
        if !size_bytes.is_multiple_of(PAGE_SIZE_BYTES) {
            let whole = size_bytes.next_multiple_of(PAGE_SIZE_BYTES);
            file.set_len(whole).map_err(|error| lost(error).at(path))?;
        }
        Store::on(FileBackend::new(file, true), path)
    }

    fn on(backend: FileBackend, path: &Path) -> Result<Store, CoordinationError> {
        let database = Database::builder()
            .set_cache_size(CACHE_SIZE_BYTES)
            .create_with_backend(backend.clone())
            .map_err(|error| lost(error).at(path))?;
        Ok(Store {
            path: path.to_owned(),
            backend,
            database: RwLock::new(Some(database)),
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Closes the file cleanly; every later call answers `SessionExpired`.
    pub(super) fn close(&self) {
        self.database.write().take();
    }

    /// With the transaction id of the moment of reading, as the other reads.
    pub(super) fn get(&self, path: &str) -> Result<(Option<Node>, i64), CoordinationError> {
        self.view(|nodes| Ok(read(nodes, path)?.map(Node::from)))
    }

    pub(super) fn get_many(&self, paths: &[String]) -> Result<(Vec<Option<Node>>, i64), CoordinationError> {
        self.view(|nodes| {
            paths
                .iter()
                .map(|path| Ok(read(nodes, path)?.map(Node::from)))
                .collect()
        })
    }

    pub(super) fn children(&self, path: &str) -> Result<(Option<Vec<String>>, i64), CoordinationError> {
        self.view(|nodes| {
            if read(nodes, path)?.is_none() {
                return Ok(None);
            }
            let (start, end) = (format!("{path}\0"), format!("{path}\u{1}"));
            let mut names = Vec::new();
            for entry in nodes.range(start.as_str()..end.as_str()).map_err(lost)? {
                let (key, _) = entry.map_err(lost)?;
                names.push(key.value()[start.len()..].to_owned());
            }
            // The root lies beside its own children, under the empty name.
            names.retain(|name| !name.is_empty());
            Ok(Some(names))
        })
    }

    /// The paths of ephemeral nodes.
    pub(super) fn ephemerals(&self) -> Result<Vec<String>, CoordinationError> {
        self.with(|database| {
            let table = database
                .begin_read()
                .map_err(lost)?
                .open_table(EPHEMERALS)
                .map_err(lost)?;
            let entries = table.iter().map_err(lost)?;
            entries
                .map(|entry| Ok(entry.map_err(lost)?.0.value().to_owned()))
                .collect()
        })
    }

    /// Applies the changes in order, each wholly or not at all, and commits with one sync: durable on return, once
    /// the tree is established.
    ///
    /// # Errors
    /// The file cannot be written any more; nothing of the changes can be relied upon.
    pub(super) fn apply(
        &self,
        now: TimestampMs,
        changes: Vec<Change>,
    ) -> Result<Vec<Outcome>, CoordinationError> {
        self.transact(|write| {
            let mut nodes = write.open_table(NODES).map_err(lost)?;
            let mut ephemerals = write.open_table(EPHEMERALS).map_err(lost)?;
            let mut counters = write.open_table(COUNTERS).map_err(lost)?;
            let mut zxid = counters.get(ZXID).map_err(lost)?.map_or(0, |value| value.value());
            let mut bytes = Vec::new();
            let mut outcomes = Vec::with_capacity(changes.len());
            for change in changes {
                zxid += 1;
                let mut staging = Staging::new(&nodes, zxid, now, change.session);
                let result = staging.operate_all(change.operations)?;
                if result.is_err() {
                    outcomes.push(Outcome {
                        zxid,
                        result,
                        events: Vec::new(),
                        ephemerals: Vec::new(),
                    });
                    continue;
                }
                let Staging {
                    staged,
                    events,
                    created_ephemerals,
                    ..
                } = staging;
                for (path, record) in staged {
                    let Some(record) = record else {
                        nodes.remove(key(&path).as_str()).map_err(lost)?;
                        ephemerals.remove(path.as_str()).map_err(lost)?;
                        continue;
                    };
                    record.encode(&mut bytes);
                    nodes
                        .insert(key(&path).as_str(), bytes.as_slice())
                        .map_err(lost)?;
                    if record.stat.ephemeral_owner.is_some() {
                        ephemerals.insert(path.as_str(), ()).map_err(lost)?;
                    }
                }
                outcomes.push(Outcome {
                    zxid,
                    result,
                    events,
                    ephemerals: created_ephemerals,
                });
            }
            counters.insert(ZXID, zxid).map_err(lost)?;
            Ok(outcomes)
        })
    }

    /// Runs `body` in a transaction that is durable when this returns, once the tree is established.
    fn transact<T>(
        &self,
        body: impl FnOnce(&redb::WriteTransaction) -> Result<T, Lost>,
    ) -> Result<T, CoordinationError> {
        self.with(|database| {
            let mut write = database.begin_write().map_err(lost)?;
            write.set_durability(Durability::Immediate).map_err(lost)?;
            let answer = body(&write)?;
            write.commit().map_err(lost)?;
            Ok(answer)
        })
    }

    /// Reads nodes at one moment, with the transaction id of that moment.
    fn view<T>(
        &self,
        body: impl FnOnce(&redb::ReadOnlyTable<&'static str, &'static [u8]>) -> Result<T, Lost>,
    ) -> Result<(T, i64), CoordinationError> {
        self.with(|database| {
            let transaction = database.begin_read().map_err(lost)?;
            let nodes = transaction.open_table(NODES).map_err(lost)?;
            let counters = transaction.open_table(COUNTERS).map_err(lost)?;
            let zxid = counters.get(ZXID).map_err(lost)?.map_or(0, |value| value.value());
            Ok((body(&nodes)?, zxid))
        })
    }

    fn with<T>(&self, body: impl FnOnce(&Database) -> Result<T, Lost>) -> Result<T, CoordinationError> {
        let database = self.database.read();
        let database = database.as_ref().ok_or(CoordinationError::SessionExpired)?;
        body(database).map_err(|error| error.at(&self.path))
    }
}

/// The file failed or is damaged; the message says how.
struct Lost(String);

impl Lost {
    fn at(self, path: &Path) -> CoordinationError {
        CoordinationError::Lost {
            path: path.display().to_string(),
            reason: self.0,
        }
    }
}

fn lost(error: impl std::fmt::Display) -> Lost {
    Lost(error.to_string())
}

/// `/a/b` lies under `/a NUL b`, the root under `/ NUL`.
fn key(path: &str) -> String {
    match path.rsplit_once('/') {
        Some(("", name)) => format!("/\0{name}"),
        Some((parent, name)) => format!("{parent}\0{name}"),
        None => path.to_owned(),
    }
}

fn read(nodes: &impl ReadableTable<&'static str, &'static [u8]>, path: &str) -> Result<Option<Record>, Lost> {
    let found = nodes.get(key(path).as_str()).map_err(lost)?;
    let record = found.map(|bytes| Record::decode(bytes.value())).transpose();
    record.map_err(|reason| Lost(format!("{path}: {reason}")))
}

/// The nodes that a change touches, as they would be after it.
struct Staging<'a, 'txn> {
    nodes: &'a Nodes<'txn>,
    staged: BTreeMap<String, Option<Record>>,
    zxid: i64,
    now: TimestampMs,
    session: i64,
    events: Vec<WatchEvent>,
    created_ephemerals: Vec<String>,
}

/// The outer error ends the tree, the inner one refuses the change.
type Staged<T, E = CoordinationError> = Result<Result<T, E>, Lost>;

impl<'a, 'txn> Staging<'a, 'txn> {
    fn new(nodes: &'a Nodes<'txn>, zxid: i64, now: TimestampMs, session: i64) -> Self {
        let (staged, events, created_ephemerals) = (BTreeMap::new(), Vec::new(), Vec::new());
        Staging {
            nodes,
            staged,
            zxid,
            now,
            session,
            events,
            created_ephemerals,
        }
    }

    /// The node as the change left it so far, to be changed in place; `None` if there is none.
    fn node(&mut self, path: &str) -> Result<Option<&mut Record>, Lost> {
        if !self.staged.contains_key(path) {
            let found = read(self.nodes, path)?;
            self.staged.insert(path.to_owned(), found);
        }
        Ok(self.staged.get_mut(path).and_then(Option::as_mut))
    }

    fn fire(&mut self, path: &str, kind: WatchEventKind) {
        self.events.push(WatchEvent {
            path: path.to_owned(),
            kind,
        });
    }

    fn operate_all(&mut self, operations: Vec<Operation>) -> Staged<Vec<OperationResult>, MultiError> {
        let mut results = Vec::with_capacity(operations.len());
        for (index, operation) in operations.into_iter().enumerate() {
            match self.operate(operation)? {
                Ok(result) => results.push(result),
                Err(error) => return Ok(Err(MultiError { index, error })),
            }
        }
        Ok(Ok(results))
    }

    fn operate(&mut self, operation: Operation) -> Staged<OperationResult> {
        match operation {
            Operation::Check { path, version } => {
                let found = self.expect(&path, ExpectedVersion::Exactly(version))?;
                Ok(found.map(|_| OperationResult::Checked))
            }
            Operation::Create { path, data, mode } => self.create(path, data, mode),
            Operation::SetData { path, data, expected } => self.set_data(&path, data, expected),
            Operation::Delete { path, expected } => self.delete(path, expected),
        }
    }

    /// The node at `path`, if it exists at the expected version.
    fn expect(&mut self, path: &str, expected: ExpectedVersion) -> Staged<&mut Record> {
        let Some(node) = self.node(path)? else {
            return Ok(Err(CoordinationError::NoNode {
                path: path.to_owned(),
            }));
        };
        Ok(match expected {
            ExpectedVersion::Exactly(expected) if expected != node.stat.version => {
                let path = path.to_owned();
                Err(CoordinationError::BadVersion { path, expected })
            }
            _ => Ok(node),
        })
    }

    fn set_data(
        &mut self,
        path: &str,
        data: Option<bytes::Bytes>,
        expected: ExpectedVersion,
    ) -> Staged<OperationResult> {
        let (zxid, now) = (self.zxid, self.now);
        let node = match self.expect(path, expected)? {
            Ok(node) => node,
            Err(error) => return Ok(Err(error)),
        };
        node.data = data;
        node.stat.version += 1;
        node.stat.mzxid = zxid;
        node.stat.mtime = now;
        let stat = node.stat;
        self.fire(path, WatchEventKind::DataChanged);
        Ok(Ok(OperationResult::Set(stat)))
    }

    fn create(
        &mut self,
        mut path: String,
        data: Option<bytes::Bytes>,
        mode: CreateMode,
    ) -> Staged<OperationResult> {
        let Some(parent) = parent(&path).map(str::to_owned) else {
            return Ok(Err(CoordinationError::NodeExists { path }));
        };
        let Some(above) = self.node(&parent)? else {
            return Ok(Err(CoordinationError::NoNode { path: parent }));
        };
        if above.stat.ephemeral_owner.is_some() {
            return Ok(Err(CoordinationError::NoChildrenForEphemerals { path: parent }));
        }
        if matches!(
            mode,
            CreateMode::PersistentSequential | CreateMode::EphemeralSequential
        ) {
            // Of the changes among the children those that were creations: deletions take no number.
            let number = (above.stat.cversion + above.stat.child_count) / 2;
            path = format!("{path}{number:010}");
        }
        if self.node(&path)?.is_some() {
            return Ok(Err(CoordinationError::NodeExists { path }));
        }
        if let Some(above) = self.node(&parent)? {
            above.stat.cversion += 1;
            above.stat.child_count += 1;
        }
        let ephemeral = matches!(mode, CreateMode::Ephemeral | CreateMode::EphemeralSequential);
        let record = Record::new(data, self.zxid, self.now, ephemeral.then_some(self.session));
        self.staged.insert(path.clone(), Some(record));
        if ephemeral {
            self.created_ephemerals.push(path.clone());
        }
        self.fire(&path, WatchEventKind::Created);
        self.fire(&parent, WatchEventKind::ChildrenChanged);
        Ok(Ok(OperationResult::Created { path }))
    }

    fn delete(&mut self, path: String, expected: ExpectedVersion) -> Staged<OperationResult> {
        let node = match self.expect(&path, expected)? {
            Ok(node) => node,
            Err(error) => return Ok(Err(error)),
        };
        if node.stat.child_count > 0 {
            return Ok(Err(CoordinationError::NotEmpty { path }));
        }
        let Some(parent) = parent(&path).map(str::to_owned) else {
            return Ok(Err(CoordinationError::InvalidPath {
                path,
                reason: "the root cannot be deleted",
            }));
        };
        self.staged.insert(path.clone(), None);
        if let Some(above) = self.node(&parent)? {
            above.stat.cversion += 1;
            above.stat.child_count -= 1;
        }
        self.fire(&path, WatchEventKind::Deleted);
        self.fire(&parent, WatchEventKind::ChildrenChanged);
        Ok(Ok(OperationResult::Deleted))
    }
}

/// redb's storage on a file of the engine.
#[derive(Clone, Debug)]
struct FileBackend {
    file: FileHandle,
    /// Whether a sync is one: the file of a tree that has no name yet is synced once, at the end.
    syncs: Arc<AtomicBool>,
}

impl FileBackend {
    fn new(file: FileHandle, syncs: bool) -> FileBackend {
        let syncs = Arc::new(AtomicBool::new(syncs));
        FileBackend { file, syncs }
    }
}

fn as_io(error: IoError) -> io::Error {
    io::Error::new(error.kind(), error)
}

impl StorageBackend for FileBackend {
    fn len(&self) -> Result<u64, io::Error> {
        self.file.size_bytes().map_err(as_io)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), io::Error> {
        let found = self.file.read_at(offset, out).map_err(as_io)?;
        if found == out.len() {
            return Ok(());
        }
        let message = format!("{found} bytes at {offset}, expected {}", out.len());
        Err(io::Error::new(io::ErrorKind::UnexpectedEof, message))
    }

    fn set_len(&self, len: u64) -> Result<(), io::Error> {
        self.file.set_len(len).map_err(as_io)
    }

    fn sync_data(&self) -> Result<(), io::Error> {
        if self.syncs.load(Ordering::SeqCst) {
            self.file.sync().map_err(as_io)
        } else {
            Ok(())
        }
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), io::Error> {
        self.file
            .write_vectored_at(offset, &[IoSlice::new(data)])
            .map_err(as_io)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_parent_and_name_apart_so_that_children_lie_side_by_side() {
        for (path, expected) in [
            ("/", "/\0"),
            ("/a", "/\0a"),
            ("/a/b", "/a\0b"),
            ("/a/b/c", "/a/b\0c"),
        ] {
            assert_eq!(key(path), expected);
        }
    }
}
