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
//! by [`SessionEvent::Lost`](super::SessionEvent::Lost). It leaves the meaning of the nodes to [`super::znodes`].
//!
//! Parts: `location` (where the file lies), `store` and `record` (the file), `writer` (the thread, watches, the state of
//! sessions), `session` (what a broker holds).
mod location;
mod record;
mod session;
mod store;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc;

use milena_engine::error::IoError;
use milena_engine::io::{Clock, Io, OpenMode};
use parking_lot::Mutex;

use super::{BoxFuture, CoordinationError};
use location::locate_beside;
pub use location::{MOVED_TREE_FILE, OpenTreeError, TREE_FILE, locate, locate_moved};
pub use session::EmbeddedSession;
use store::Store;
use writer::{Command, Live, SessionState, Shared, write_until_stopped};

/// The stack of the writing thread; redb's deepest recursion is the height of a tree.
const WRITER_STACK_SIZE_BYTES: usize = 256 << 10;

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
        let found = locate_beside(io.as_ref(), log_dirs, offline)?;
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
        shared
            .remove_former_ephemerals()
            .map_err(|error| damaged(error.to_string()))?;
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

    /// [`EmbeddedTree::shutdown`], and from now on this is not the node's tree: its file has the name of one that was moved into
    /// ZooKeeper, durably on return.
    ///
    /// # Errors
    /// As the disk says; the file has one of the two names.
    pub fn set_aside(&self) -> Result<PathBuf, IoError> {
        self.shutdown();
        let aside = self.path().with_file_name(MOVED_TREE_FILE);
        self.io.rename(self.path(), &aside)?;
        if let Some(directory) = aside.parent() {
            self.io.sync_dir(directory)?;
        }
        Ok(aside)
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

#[cfg(test)]
mod tests;
