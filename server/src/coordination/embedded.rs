//! The coordination tree of a broker that stands alone: one crash-safe file, `milena.tree`, in a log directory.
//!
//! The tree lies in redb, which runs on the engine's `trait Io`, so that every byte of it passes the same door as the logs. It
//! is a plain file because Kafka ignores plain files in a log directory and refuses unknown directories: one directory stays
//! the whole state of a node.
//!
//! One thread writes. It takes all changes that wait, applies each as a whole or not at all, commits them with one sync, then
//! fires watches and answers, so that an answer of success means durable, and callers that change the tree at the same time
//! share the sync. Reads happen on the caller's thread, from the last commit.
//!
//! A new tree has no name until it is established. Up to then its changes are not synced and nothing of it survives; then one
//! sync of the file, the rename and one sync of the directory make the whole of it last. A first start that is refused or cut
//! off leaves no tree behind, and the next start is a first one again.
//!
//! Invariants: ephemeral nodes never outlive the process (those of a former one are removed on opening); a transaction id is
//! never given twice; a failed write or sync is final: the tree answers [`CoordinationError::Lost`] from then on and says so
//! by [`SessionEvent::Lost`]. It leaves the meaning of the nodes to [`super::znodes`].

mod record;
mod store;

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc;

use milena_engine::error::IoError;
use milena_engine::io::{Clock, Io, OpenMode};
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::{
    BoxFuture, Coordination, CoordinationError, MultiError, Node, Operation, OperationResult, SessionEvent,
    SessionListener, Watch, WatchEvent, WatchEventKind,
};
use store::{Change, Store};

/// Name of the tree's file in its log directory.
pub const TREE_FILE: &str = "milena.tree";

/// The stack of the writing thread; redb's deepest recursion is the height of a tree.
const WRITER_STACK_SIZE_BYTES: usize = 256 << 10;

/// Why the tree could not be opened: the broker does not start.
#[derive(Debug, thiserror::Error)]
pub enum OpenTreeError {
    #[error(
        "both {} and {} are coordination trees; a node has one: move the one that is not of this node away",
        first.display(), second.display()
    )]
    TwoTrees { first: PathBuf, second: PathBuf },
    #[error("no coordination tree was found, and log directory {} cannot be read: {source}", directory.display())]
    Unreadable { directory: PathBuf, source: IoError },
    #[error(
        "no coordination tree was found in the log directories that can be used, and log directory {} is offline ({reason}): \
         this node's tree may lie there. Repair it, or take it out of log.dirs if it is lost or was never used.",
        directory.display()
    )]
    MayBeOffline { directory: PathBuf, reason: String },
    #[error(
        "the coordination tree {} lies in a log directory that is offline ({reason}). Repair it, or move the tree into another \
         log directory.",
        path.display()
    )]
    Offline { path: PathBuf, reason: String },
    #[error("no log directory to keep the coordination tree in")]
    NoDirectory,
    #[error(transparent)]
    Io(#[from] IoError),
    #[error("coordination tree {}: {reason}", path.display())]
    Damaged { path: PathBuf, reason: String },
}

/// Where the tree lies among the log directories, if it exists.
///
/// # Errors
/// Two trees; or none was found and a directory could not be looked into (it may be there).
pub fn locate(io: &dyn Io, log_dirs: &[PathBuf]) -> Result<Option<PathBuf>, OpenTreeError> {
    let mut found: Option<PathBuf> = None;
    let mut unreadable = None;
    for directory in log_dirs {
        let path = directory.join(TREE_FILE);
        match io.stat(&path) {
            Ok(None) => {}
            Ok(Some(_)) => match found {
                Some(first) => return Err(OpenTreeError::TwoTrees { first, second: path }),
                None => found = Some(path),
            },
            Err(source) => {
                unreadable.get_or_insert((directory.clone(), source));
            }
        }
    }
    match (found, unreadable) {
        (Some(path), _) => Ok(Some(path)),
        (None, Some((directory, source))) => Err(OpenTreeError::Unreadable { directory, source }),
        (None, None) => Ok(None),
    }
}

/// The open tree of this process. Dropping it, or [`EmbeddedTree::shutdown`], closes the file cleanly.
#[derive(Debug)]
pub struct EmbeddedTree {
    io: Arc<dyn Io>,
    shared: Arc<Shared>,
    commands: mpsc::Sender<Command>,
    writer: Mutex<Option<std::thread::JoinHandle<()>>>,
    created: bool,
    /// The file's name while the tree is not established.
    temporary: Mutex<Option<PathBuf>>,
}

impl EmbeddedTree {
    /// Opens the tree that lies in one of `log_dirs`, or creates it in the first, established.
    ///
    /// # Errors
    /// As [`Self::open_or_begin`].
    pub fn open(
        io: &Arc<dyn Io>,
        clock: Arc<dyn Clock>,
        log_dirs: &[PathBuf],
    ) -> Result<EmbeddedTree, OpenTreeError> {
        let tree = EmbeddedTree::open_or_begin(io, clock, log_dirs, &[])?;
        tree.establish()?;
        Ok(tree)
    }

    /// Opens the tree that lies in one of `log_dirs`, or begins a new one in the first, which lasts only if it is
    /// [established](Self::establish). Blocks for the disk. The ephemeral nodes of former processes are gone on return.
    ///
    /// The caller holds the locks of the log directories: the tree has no lock of its own. `offline` are those that cannot be
    /// used, with the reason.
    ///
    /// # Errors
    /// Two trees; a tree that cannot be opened; a tree that lies, or if none is found may lie, in an offline directory: a
    /// second one beside it would make the next start impossible.
    pub fn open_or_begin(
        io: &Arc<dyn Io>,
        clock: Arc<dyn Clock>,
        log_dirs: &[PathBuf],
        offline: &[(PathBuf, String)],
    ) -> Result<EmbeddedTree, OpenTreeError> {
        let found = locate(io.as_ref(), log_dirs)?;
        for (directory, reason) in offline {
            let path = directory.join(TREE_FILE);
            let is_there = matches!(io.stat(&path), Ok(Some(_)));
            let (directory, reason) = (directory.clone(), reason.clone());
            match &found {
                Some(first) if is_there => {
                    let first = first.clone();
                    return Err(OpenTreeError::TwoTrees { first, second: path });
                }
                None if is_there => return Err(OpenTreeError::Offline { path, reason }),
                None => return Err(OpenTreeError::MayBeOffline { directory, reason }),
                Some(_) => {}
            }
        }
        let created = found.is_none();
        let (path, temporary) = match found {
            Some(path) => (path, None),
            None => {
                let directory = log_dirs.first().ok_or(OpenTreeError::NoDirectory)?;
                let temporary = directory.join(format!("{TREE_FILE}.tmp"));
                (directory.join(TREE_FILE), Some(temporary))
            }
        };
        let damaged = |reason: String| OpenTreeError::Damaged {
            path: path.clone(),
            reason,
        };
        let store = match &temporary {
            None => Store::open(io.open(&path, OpenMode::ReadWrite)?, &path),
            Some(temporary) => Store::begin(io.open(temporary, OpenMode::Truncate)?, &path),
        };
        let store = store.map_err(|error| damaged(error.to_string()))?;
        let shared = Arc::new(Shared {
            store,
            clock,
            live: Mutex::new(Live::default()),
        });
        let stale = shared
            .store
            .ephemerals()
            .map_err(|error| damaged(error.to_string()))?;
        if !stale.is_empty() {
            let operations = stale.into_iter().map(Operation::delete).collect();
            let now = shared.clock.wall();
            shared
                .store
                .apply(
                    now,
                    vec![Change {
                        session: 0,
                        operations,
                    }],
                )
                .and_then(|mut outcomes| match outcomes.pop() {
                    Some(outcome) => outcome.result.map(drop).map_err(|failed| failed.error),
                    None => Ok(()),
                })
                .map_err(|error| damaged(error.to_string()))?;
        }
        let (commands, inbox) = mpsc::channel();
        let writer = {
            let shared = Arc::clone(&shared);
            std::thread::Builder::new()
                .name("milena-tree".into())
                .stack_size(WRITER_STACK_SIZE_BYTES)
                .spawn(move || write_until_stopped(&shared, &inbox))
                .map_err(|source| damaged(format!("no thread to write it: {source}")))?
        };
        Ok(EmbeddedTree {
            io: Arc::clone(io),
            shared,
            commands,
            writer: Mutex::new(Some(writer)),
            created,
            temporary: Mutex::new(temporary),
        })
    }

    /// Gives a new tree its name: durable on return, with all changes so far, and from then on each change by itself. Nothing
    /// that relies on the tree may leave the process before.
    ///
    /// # Errors
    /// The tree may be there or not, whole either way; the broker does not start.
    pub fn establish(&self) -> Result<(), OpenTreeError> {
        let mut temporary = self.temporary.lock();
        let Some(unnamed) = temporary.as_deref() else {
            return Ok(());
        };
        let path = self.path();
        self.shared.store.establish()?;
        self.io.rename(unnamed, path)?;
        *temporary = None;
        if let Some(directory) = path.parent() {
            self.io.sync_dir(directory)?;
        }
        Ok(())
    }

    /// Whether opening created it: the node is new, or its directory comes from Apache Kafka.
    pub fn is_new(&self) -> bool {
        self.created
    }

    pub fn path(&self) -> &Path {
        self.shared.store.path()
    }

    /// A new session. A broker has one.
    pub fn session(&self) -> Arc<EmbeddedSession> {
        let id = {
            let mut live = self.shared.live.lock();
            live.last_session += 1;
            let id = live.last_session;
            live.sessions.insert(id, SessionState::default());
            id
        };
        Arc::new(EmbeddedSession {
            id,
            shared: Arc::clone(&self.shared),
            commands: self.commands.clone(),
        })
    }

    /// Ends a session as ZooKeeper does when it hears nothing: its ephemeral nodes and watches go, and it learns of it.
    pub fn expire(&self, session: &EmbeddedSession) -> BoxFuture<'static, Result<(), CoordinationError>> {
        self.shared.end_session(&self.commands, session.id, true)
    }

    /// Makes the tree's loss known from outside: its log directory went offline. Only the first loss counts.
    pub fn lose(&self, reason: &str) {
        self.shared.lose(reason);
    }

    /// Stops the writer after what it was given, and closes the file; one that was never established is removed. Sessions
    /// answer [`CoordinationError::SessionExpired`] afterwards.
    pub fn shutdown(&self) {
        let Some(writer) = self.writer.lock().take() else {
            return;
        };
        // Fails only if the writer is gone already.
        let _ = self.commands.send(Command::Stop);
        let _ = writer.join();
        self.shared.live.lock().sessions.clear();
        self.shared.store.close();
        if let Some(unnamed) = self.temporary.lock().take() {
            // What stays behind is overwritten by the next new tree.
            let _ = self.io.remove_file(&unnamed);
        }
    }
}

impl Drop for EmbeddedTree {
    fn drop(&mut self) {
        self.shutdown();
    }
}

#[derive(Debug)]
struct Shared {
    store: Store,
    clock: Arc<dyn Clock>,
    live: Mutex<Live>,
}

/// What lives with the process only.
#[derive(Default)]
struct Live {
    watches: HashMap<(String, WatchKind), Vec<Waiting>>,
    sessions: HashMap<i64, SessionState>,
    last_session: i64,
    lost: Option<String>,
}

impl std::fmt::Debug for Live {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Live")
            .field("watches", &self.watches.len())
            .field("sessions", &self.sessions.len())
            .field("lost", &self.lost)
            .finish()
    }
}

#[derive(Default)]
struct SessionState {
    ephemerals: BTreeSet<String>,
    listeners: Vec<SessionListener>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum WatchKind {
    Node,
    Children,
}

struct Waiting {
    session: i64,
    /// The last transaction that its caller saw: only later ones fire it.
    seen_zxid: i64,
    watch: Watch,
}

enum Command {
    Multi {
        session: i64,
        operations: Vec<Operation>,
        answer: oneshot::Sender<Result<Vec<OperationResult>, MultiError>>,
    },
    EndSession {
        session: i64,
        expired: bool,
        answer: oneshot::Sender<Result<(), CoordinationError>>,
    },
    Stop,
}

/// Takes what waits, up to a commit of this many operations: bounds its memory.
const COMMIT_OPERATIONS_MAX: usize = 16_384;

fn write_until_stopped(shared: &Shared, inbox: &mpsc::Receiver<Command>) {
    let mut next = None;
    loop {
        let Some(first) = next.take().or_else(|| inbox.recv().ok()) else {
            return;
        };
        match first {
            Command::Stop => return,
            Command::EndSession {
                session,
                expired,
                answer,
            } => {
                let _ = answer.send(shared.remove_session(session, expired));
            }
            Command::Multi {
                session,
                operations,
                answer,
            } => {
                let mut count = operations.len();
                let mut changes = vec![Change { session, operations }];
                let mut answers = vec![answer];
                while count < COMMIT_OPERATIONS_MAX {
                    match inbox.try_recv() {
                        Ok(Command::Multi {
                            session,
                            operations,
                            answer,
                        }) => {
                            count += operations.len();
                            changes.push(Change { session, operations });
                            answers.push(answer);
                        }
                        Ok(other) => {
                            next = Some(other);
                            break;
                        }
                        Err(_) => break,
                    }
                }
                shared.commit(changes, answers);
            }
        }
    }
}

impl Shared {
    /// The error of a session that may not speak any more.
    fn refusal(&self, live: &Live, session: i64) -> Option<CoordinationError> {
        if let Some(reason) = &live.lost {
            return Some(self.lost_error(reason));
        }
        (!live.sessions.contains_key(&session)).then_some(CoordinationError::SessionExpired)
    }

    fn lost_error(&self, reason: &str) -> CoordinationError {
        CoordinationError::Lost {
            path: self.store.path().display().to_string(),
            reason: reason.to_owned(),
        }
    }

    fn commit(
        &self,
        changes: Vec<Change>,
        answers: Vec<oneshot::Sender<Result<Vec<OperationResult>, MultiError>>>,
    ) {
        // A session that ended while its change waited must not leave ephemeral nodes behind.
        let (mut accepted, mut waiting) = (Vec::new(), Vec::new());
        {
            let live = self.live.lock();
            for (change, answer) in changes.into_iter().zip(answers) {
                match self.refusal(&live, change.session) {
                    Some(error) => drop(answer.send(Err(MultiError { index: 0, error }))),
                    None => {
                        waiting.push((change.session, answer));
                        accepted.push(change);
                    }
                }
            }
        }
        if accepted.is_empty() {
            return;
        }
        match self.store.apply(self.clock.wall(), accepted) {
            Ok(outcomes) => {
                for (outcome, (session, answer)) in outcomes.into_iter().zip(waiting) {
                    self.publish(session, &outcome);
                    // The caller may have gone away.
                    let _ = answer.send(outcome.result);
                }
            }
            Err(error) => {
                self.lose(&lost_reason(&error));
                for (_, answer) in waiting {
                    let _ = answer.send(Err(MultiError {
                        index: 0,
                        error: error.clone(),
                    }));
                }
            }
        }
    }

    /// Fires the watches of a committed change.
    fn publish(&self, session: i64, outcome: &store::Outcome) {
        let mut fired = Vec::new();
        {
            let mut live = self.live.lock();
            if let Some(state) = live.sessions.get_mut(&session) {
                state.ephemerals.extend(outcome.ephemerals.iter().cloned());
            }
            for event in &outcome.events {
                if event.kind == WatchEventKind::Deleted {
                    for state in live.sessions.values_mut() {
                        state.ephemerals.remove(&event.path);
                    }
                }
                let kinds: &[WatchKind] = match event.kind {
                    WatchEventKind::Created | WatchEventKind::DataChanged => &[WatchKind::Node],
                    WatchEventKind::ChildrenChanged => &[WatchKind::Children],
                    WatchEventKind::Deleted => &[WatchKind::Node, WatchKind::Children],
                };
                for kind in kinds {
                    fired.extend(live.take(event, *kind, outcome.zxid));
                }
            }
        }
        for (watch, event) in fired {
            watch(event);
        }
    }

    fn remove_session(&self, session: i64, expired: bool) -> Result<(), CoordinationError> {
        let (state, watches) = {
            let mut live = self.live.lock();
            let Some(state) = live.sessions.remove(&session) else {
                return Ok(());
            };
            let mut dropped = Vec::new();
            live.watches.retain(|_, waiting| {
                dropped.extend(waiting.extract_if(.., |one| one.session == session));
                !waiting.is_empty()
            });
            (state, dropped)
        };
        drop(watches);
        if expired {
            for listener in &state.listeners {
                listener(SessionEvent::Expired);
            }
        }
        if state.ephemerals.is_empty() {
            return Ok(());
        }
        let operations = state.ephemerals.into_iter().map(Operation::delete).collect();
        let outcomes = self
            .store
            .apply(
                self.clock.wall(),
                vec![Change {
                    session: 0,
                    operations,
                }],
            )
            .inspect_err(|error| self.lose(&lost_reason(error)))?;
        for outcome in outcomes {
            self.publish(0, &outcome);
            outcome.result.map_err(|failed| failed.error)?;
        }
        Ok(())
    }

    fn end_session(
        &self,
        commands: &mpsc::Sender<Command>,
        session: i64,
        expired: bool,
    ) -> BoxFuture<'static, Result<(), CoordinationError>> {
        let (answer, answered) = oneshot::channel();
        // A stopped writer drops the answer with the command.
        let _ = commands.send(Command::EndSession {
            session,
            expired,
            answer,
        });
        Box::pin(async move { answered.await.unwrap_or(Ok(())) })
    }

    fn lose(&self, reason: &str) {
        let listeners: Vec<SessionListener> = {
            let mut live = self.live.lock();
            if live.lost.is_some() {
                return;
            }
            live.lost = Some(reason.to_owned());
            live.sessions
                .values()
                .flat_map(|state| state.listeners.iter().cloned())
                .collect()
        };
        let message = self.lost_error(reason).to_string();
        for listener in listeners {
            listener(SessionEvent::Lost(message.clone()));
        }
    }
}

fn lost_reason(error: &CoordinationError) -> String {
    match error {
        CoordinationError::Lost { reason, .. } => reason.clone(),
        other => other.to_string(),
    }
}

impl Live {
    fn take(&mut self, event: &WatchEvent, kind: WatchKind, zxid: i64) -> Vec<(Watch, WatchEvent)> {
        let key = (event.path.clone(), kind);
        let Some(waiting) = self.watches.get_mut(&key) else {
            return Vec::new();
        };
        let fired = waiting
            .extract_if(.., |one| one.seen_zxid < zxid)
            .map(|one| (one.watch, event.clone()));
        let fired = fired.collect();
        if waiting.is_empty() {
            self.watches.remove(&key);
        }
        fired
    }
}

/// One session on the embedded tree. Writes go to the writing thread; reads answer at once.
#[derive(Debug)]
pub struct EmbeddedSession {
    id: i64,
    shared: Arc<Shared>,
    commands: mpsc::Sender<Command>,
}

impl EmbeddedSession {
    /// Reads with `read`, which also tells the last transaction it saw; sets the watch if `keep` says so of the answer.
    fn read<T>(
        &self,
        path: &str,
        watch: Option<(Watch, WatchKind)>,
        read: impl FnOnce(&Store) -> Result<(T, i64), CoordinationError>,
        keep: impl FnOnce(&T) -> bool,
    ) -> Result<T, CoordinationError> {
        super::check_path(path)?;
        let mut live = self.shared.live.lock();
        if let Some(error) = self.shared.refusal(&live, self.id) {
            return Err(error);
        }
        let Some((watch, kind)) = watch else {
            drop(live);
            return Ok(read(&self.shared.store)?.0);
        };
        // Under the lock, so that no change between the reading and the setting of the watch goes unnoticed.
        let (answer, seen_zxid) = read(&self.shared.store)?;
        if keep(&answer) {
            let waiting = Waiting {
                session: self.id,
                seen_zxid,
                watch,
            };
            live.watches
                .entry((path.to_owned(), kind))
                .or_default()
                .push(waiting);
        }
        Ok(answer)
    }
}

impl Coordination for EmbeddedSession {
    fn get(
        &self,
        path: &str,
        watch: Option<Watch>,
    ) -> BoxFuture<'_, Result<Option<Node>, CoordinationError>> {
        let watch = watch.map(|watch| (watch, WatchKind::Node));
        let answer = self.read(path, watch, |store| store.get(path), |_| true);
        Box::pin(std::future::ready(answer))
    }

    fn children(
        &self,
        path: &str,
        watch: Option<Watch>,
    ) -> BoxFuture<'_, Result<Option<Vec<String>>, CoordinationError>> {
        let watch = watch.map(|watch| (watch, WatchKind::Children));
        let answer = self.read(path, watch, |store| store.children(path), Option::is_some);
        Box::pin(std::future::ready(answer))
    }

    fn get_many(&self, paths: Vec<String>) -> BoxFuture<'_, Result<Vec<Option<Node>>, CoordinationError>> {
        let answer = self.read(
            "/",
            None,
            |store| {
                for path in &paths {
                    super::check_path(path)?;
                }
                store.get_many(&paths)
            },
            |_| false,
        );
        Box::pin(std::future::ready(answer))
    }

    fn multi(&self, operations: Vec<Operation>) -> BoxFuture<'_, Result<Vec<OperationResult>, MultiError>> {
        let bad = operations.iter().enumerate().find_map(|(index, operation)| {
            super::check_path(operation.path())
                .err()
                .map(|error| MultiError { index, error })
        });
        if let Some(bad) = bad {
            return Box::pin(std::future::ready(Err(bad)));
        }
        let (answer, answered) = oneshot::channel();
        // A stopped writer drops the answer with the command.
        let _ = self.commands.send(Command::Multi {
            session: self.id,
            operations,
            answer,
        });
        Box::pin(async move {
            answered.await.unwrap_or(Err(MultiError {
                index: 0,
                error: CoordinationError::SessionExpired,
            }))
        })
    }

    fn listen(&self, listener: SessionListener) {
        if let Some(state) = self.shared.live.lock().sessions.get_mut(&self.id) {
            state.listeners.push(listener);
        }
    }

    fn close(&self) -> BoxFuture<'_, Result<(), CoordinationError>> {
        self.shared.end_session(&self.commands, self.id, false)
    }
}

#[cfg(test)]
mod tests;
