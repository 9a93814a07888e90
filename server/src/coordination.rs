//! `trait Coordination`: the tree of paths through which the brokers of a cluster agree.
//!
//! A node has data (or none), a version that counts changes of its data, and transaction ids of its creation and last
//! change. Ephemeral nodes live as long as the session that made them. Watches fire once. [`Coordination::multi`] applies
//! all of its operations or none. The model is ZooKeeper's, so that ZooKeeper is one body of the trait and
//! [`embedded`] another; [`znodes`] has every path with its data.
//!
//! Promises, kept by every body:
//! - a write that returned success is durable; one that failed with [`CoordinationError::ConnectionLoss`] may or may not
//!   have happened, which a later read shows, any other failure means that it did not;
//! - a session sees its own writes, and sees a watch fire before it can read the change that fired it;
//! - watches fire in the order of the changes;
//! - once [`SessionEvent::Expired`] was delivered, every call answers [`CoordinationError::SessionExpired`] until the body
//!   has a new session and says so by [`SessionEvent::Connected`].
//!
//! A read never fails for a lost connection: it is repeated, with its watch, until a server answers or the session ends. Writes
//! are repeated by their callers, who know whether that does harm. The meaning of paths is [`znodes`]'s. Source classes: `KafkaZkClient`, `ZooKeeperClient`.

pub mod bounded;
pub mod embedded;
pub mod log_dir_events;
pub mod lost_writes;
pub mod producer_ids;
pub mod simulated;
pub mod startup;
pub mod znodes;
pub mod zookeeper;

use std::sync::Arc;

use bytes::Bytes;
use milena_engine::units::TimestampMs;

pub use crate::cluster::BoxFuture;

/// What is known of a node besides its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// Id of the transaction that created the node; of a broker's node it is the broker epoch.
    pub czxid: i64,
    /// Id of the transaction that last changed its data.
    pub mzxid: i64,
    pub ctime: TimestampMs,
    pub mtime: TimestampMs,
    /// Changes of the data since creation: 0 for a new node.
    pub version: i32,
    /// Creations and deletions of children.
    pub cversion: i32,
    /// The session whose end removes the node; `None` for a persistent node.
    pub ephemeral_owner: Option<i64>,
    pub child_count: i32,
}

/// Data (`None` is ZooKeeper's null) and stat of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    pub data: Option<Bytes>,
    pub stat: Stat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CreateMode {
    Persistent,
    /// Removed with the session; cannot have children.
    Ephemeral,
    /// The path gets ten decimal digits appended, larger for every later child of the same parent.
    PersistentSequential,
    EphemeralSequential,
}

/// Which version of a node's data an operation may change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExpectedVersion {
    Any,
    Exactly(i32),
}

/// One operation of a [`Coordination::multi`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Fails the whole multi unless the node exists at that version.
    Check { path: String, version: i32 },
    /// The parent must exist.
    Create {
        path: String,
        data: Option<Bytes>,
        mode: CreateMode,
    },
    SetData {
        path: String,
        data: Option<Bytes>,
        expected: ExpectedVersion,
    },
    /// The node must have no children.
    Delete { path: String, expected: ExpectedVersion },
}

impl Operation {
    pub fn path(&self) -> &str {
        match self {
            Operation::Check { path, .. }
            | Operation::Create { path, .. }
            | Operation::SetData { path, .. }
            | Operation::Delete { path, .. } => path,
        }
    }

    fn path_mut(&mut self) -> &mut String {
        match self {
            Operation::Check { path, .. }
            | Operation::Create { path, .. }
            | Operation::SetData { path, .. }
            | Operation::Delete { path, .. } => path,
        }
    }

    /// A persistent node.
    pub fn create(path: impl Into<String>, data: Option<Bytes>) -> Operation {
        Operation::Create {
            path: path.into(),
            data,
            mode: CreateMode::Persistent,
        }
    }

    pub fn set(path: impl Into<String>, data: Bytes, expected: ExpectedVersion) -> Operation {
        Operation::SetData {
            path: path.into(),
            data: Some(data),
            expected,
        }
    }

    pub fn delete(path: impl Into<String>) -> Operation {
        Operation::Delete {
            path: path.into(),
            expected: ExpectedVersion::Any,
        }
    }
}

/// What an operation of a multi that succeeded did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OperationResult {
    Checked,
    /// The path with its sequence number, if it was sequential.
    Created {
        path: String,
    },
    Set(Stat),
    Deleted,
}

/// Why the tree refused. Cut by what the caller does: the first group is an answer about the tree, the second about the
/// session, the third ends the broker.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CoordinationError {
    #[error("{path}: no such node")]
    NoNode { path: String },
    #[error("{path}: the node exists")]
    NodeExists { path: String },
    #[error("{path}: the data has another version than {expected}")]
    BadVersion { path: String, expected: i32 },
    #[error("{path}: the node has children")]
    NotEmpty { path: String },
    #[error("{path}: an ephemeral node cannot have children")]
    NoChildrenForEphemerals { path: String },
    #[error("{path:?} is not a path: {reason}")]
    InvalidPath { path: String, reason: &'static str },
    /// The node's access control list does not let us.
    #[error("{path}: not permitted to who we are at ZooKeeper")]
    NotPermitted { path: String },
    /// A code of ZooKeeper that no rule of the tree explains.
    #[error("{path}: ZooKeeper refused with code {code}")]
    Refused { path: String, code: i32 },

    /// The outcome is unknown.
    #[error("the connection to the coordination service was lost")]
    ConnectionLoss,
    /// The outcome is unknown, and whoever asked does not wait any longer.
    #[error("the coordination service has not answered for too long")]
    TimedOut,
    #[error("the session expired")]
    SessionExpired,
    /// ZooKeeper does not take us for who we say we are: final for the session.
    #[error("authentication at the coordination service failed")]
    AuthenticationFailed,

    /// The embedded tree cannot be read or written any more: final for the broker.
    #[error("coordination tree {path}: {reason}")]
    Lost { path: String, reason: String },
}

impl CoordinationError {
    /// There is no connection or session at this moment: later the answer may be another.
    pub fn is_passing(&self) -> bool {
        matches!(
            self,
            CoordinationError::ConnectionLoss
                | CoordinationError::TimedOut
                | CoordinationError::SessionExpired
        )
    }

    /// The node that it is about.
    fn path_mut(&mut self) -> Option<&mut String> {
        match self {
            CoordinationError::NoNode { path }
            | CoordinationError::NodeExists { path }
            | CoordinationError::BadVersion { path, .. }
            | CoordinationError::NotEmpty { path }
            | CoordinationError::NoChildrenForEphemerals { path }
            | CoordinationError::InvalidPath { path, .. }
            | CoordinationError::NotPermitted { path }
            | CoordinationError::Refused { path, .. } => Some(path),
            CoordinationError::ConnectionLoss
            | CoordinationError::TimedOut
            | CoordinationError::SessionExpired
            | CoordinationError::AuthenticationFailed
            | CoordinationError::Lost { .. } => None,
        }
    }
}

/// A multi that changed nothing: which operation failed, and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("operation {index}: {error}")]
pub struct MultiError {
    /// From 0; also 0 where the failure concerns the whole multi (session, connection, storage).
    pub index: usize,
    pub error: CoordinationError,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WatchEventKind {
    Created,
    Deleted,
    DataChanged,
    ChildrenChanged,
}

/// What a watch tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchEvent {
    pub path: String,
    pub kind: WatchEventKind,
}

/// Runs at most once, on a thread of the body; it must not block, only pass the event on. A watch that is dropped without
/// having run belonged to a session that ended.
pub type Watch = Box<dyn FnOnce(WatchEvent) + Send + 'static>;

/// What happens to the session as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionEvent {
    Connected,
    Disconnected,
    /// Ephemeral nodes and watches of the session are gone.
    Expired,
    /// The servers refuse who we say we are: there is no session any more, and none will be.
    AuthenticationFailed,
    /// The tree itself is lost: the broker stops with this message.
    Lost(String),
}

/// Runs for every event of the session, on a thread of the body; it must not block.
pub type SessionListener = Arc<dyn Fn(SessionEvent) + Send + Sync + 'static>;

/// One session on the tree. Shared by all parts of a broker.
///
/// Paths are absolute, `/` separated, without a trailing slash, and without the chroot of `zookeeper.connect`.
pub trait Coordination: Send + Sync + std::fmt::Debug {
    /// The node at `path`; `None` if there is none. The watch fires when the node is next created, deleted, or its data set.
    fn get(&self, path: &str, watch: Option<Watch>)
    -> BoxFuture<'_, Result<Option<Node>, CoordinationError>>;

    /// Names (not paths) of the children, sorted; `None` if the node does not exist (then no watch is set). The watch fires
    /// when a child is next created or deleted, or the node itself deleted.
    fn children(
        &self,
        path: &str,
        watch: Option<Watch>,
    ) -> BoxFuture<'_, Result<Option<Vec<String>>, CoordinationError>>;

    /// The nodes at `paths`, in order, in one round.
    fn get_many(&self, paths: Vec<String>) -> BoxFuture<'_, Result<Vec<Option<Node>>, CoordinationError>>;

    /// Applies all operations, in order, as one transaction, or none of them.
    ///
    /// # Errors
    /// The first operation that could not be applied.
    fn multi(&self, operations: Vec<Operation>) -> BoxFuture<'_, Result<Vec<OperationResult>, MultiError>>;

    /// The session's id, by which its ephemeral nodes are known; 0 before the first.
    fn session_id(&self) -> i64;

    /// Adds a listener for the life of this handle.
    fn listen(&self, listener: SessionListener);

    /// Ends the session: its ephemeral nodes disappear, its watches never fire.
    fn close(&self) -> BoxFuture<'_, Result<(), CoordinationError>>;
}

/// The forms in which callers mostly speak; each is one [`Coordination::multi`] or a few.
impl dyn Coordination + '_ {
    /// Creates a node; returns its path, with the sequence number if there is one.
    pub async fn create(
        &self,
        path: &str,
        data: Option<Bytes>,
        mode: CreateMode,
    ) -> Result<String, CoordinationError> {
        let operation = Operation::Create {
            path: path.to_owned(),
            data,
            mode,
        };
        match self.one(operation).await? {
            OperationResult::Created { path } => Ok(path),
            other => unreachable!("create answered {other:?}"),
        }
    }

    /// Sets the data of an existing node.
    pub async fn set(
        &self,
        path: &str,
        data: Bytes,
        expected: ExpectedVersion,
    ) -> Result<Stat, CoordinationError> {
        match self.one(Operation::set(path, data, expected)).await? {
            OperationResult::Set(stat) => Ok(stat),
            other => unreachable!("set answered {other:?}"),
        }
    }

    /// Sets the data of a node that is created, with its missing ancestors, if it does not exist. A lost connection repeats it:
    /// whoever writes whatever stands there writes it twice as well.
    pub async fn set_or_create(&self, path: &str, data: Bytes) -> Result<(), CoordinationError> {
        loop {
            match self.set(path, data.clone(), ExpectedVersion::Any).await {
                Ok(_) => return Ok(()),
                Err(CoordinationError::ConnectionLoss) => continue,
                Err(CoordinationError::NoNode { .. }) => {}
                Err(error) => return Err(error),
            }
            if let Some(parent) = parent(path) {
                self.ensure(parent).await?;
            }
            match self
                .create(path, Some(data.clone()), CreateMode::Persistent)
                .await
            {
                Ok(_) => return Ok(()),
                Err(
                    CoordinationError::NodeExists { .. }
                    | CoordinationError::NoNode { .. }
                    | CoordinationError::ConnectionLoss,
                ) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Creates the persistent node `path` with null data, and its missing ancestors; fine if they exist.
    pub async fn ensure(&self, path: &str) -> Result<(), CoordinationError> {
        self.ensure_all(&[path]).await
    }

    /// [`Self::ensure`] for several paths in one transaction; after a lost connection it looks again what is missing.
    pub async fn ensure_all(&self, paths: &[&str]) -> Result<(), CoordinationError> {
        loop {
            let mut wanted: Vec<String> = Vec::new();
            for path in paths {
                for ancestor in ancestors(path) {
                    if !wanted.iter().any(|known| known == ancestor) {
                        wanted.push(ancestor.to_owned());
                    }
                }
            }
            let found = self.get_many(wanted.clone()).await?;
            let missing = wanted.into_iter().zip(found).filter(|(_, node)| node.is_none());
            let operations: Vec<Operation> = missing.map(|(path, _)| Operation::create(path, None)).collect();
            if operations.is_empty() {
                return Ok(());
            }
            match self.multi(operations).await {
                Ok(_) => return Ok(()),
                Err(MultiError {
                    error:
                        CoordinationError::NodeExists { .. }
                        | CoordinationError::NoNode { .. }
                        | CoordinationError::ConnectionLoss,
                    ..
                }) => {}
                Err(failed) => return Err(failed.error),
            }
        }
    }

    /// Deletes a node without children; `false` if it did not exist.
    pub async fn delete(&self, path: &str, expected: ExpectedVersion) -> Result<bool, CoordinationError> {
        match self
            .one(Operation::Delete {
                path: path.to_owned(),
                expected,
            })
            .await
        {
            Ok(_) => Ok(true),
            Err(CoordinationError::NoNode { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// `path` and everything below it, children before parents: the order in which they can be deleted.
    pub async fn subtree(&self, path: &str) -> Result<Vec<String>, CoordinationError> {
        let mut found = Vec::new();
        let mut open = vec![path.to_owned()];
        while let Some(path) = open.pop() {
            let Some(children) = self.children(&path, None).await? else {
                continue;
            };
            open.extend(children.iter().map(|child| join(&path, child)));
            found.push(path);
        }
        found.reverse();
        Ok(found)
    }

    async fn one(&self, operation: Operation) -> Result<OperationResult, CoordinationError> {
        let mut results = self.multi(vec![operation]).await.map_err(|failed| failed.error)?;
        Ok(results.pop().expect("a multi of one operation has one result"))
    }
}

/// Whether ZooKeeper would take it as a path.
///
/// # Errors
/// [`CoordinationError::InvalidPath`] with what is wrong.
pub fn check_path(path: &str) -> Result<(), CoordinationError> {
    let reason = match path.strip_prefix('/') {
        None => "it does not start with /",
        Some("") => return Ok(()),
        Some(rest) => {
            let Some(bad) = rest.split('/').find_map(|name| match name {
                "" => Some("it has an empty name"),
                "." | ".." => Some("relative names are not allowed"),
                _ if name.chars().any(char::is_control) => Some("it has a control character"),
                _ => None,
            }) else {
                return Ok(());
            };
            bad
        }
    };
    Err(CoordinationError::InvalidPath {
        path: path.to_owned(),
        reason,
    })
}

/// The parent of a path; `None` for the root.
pub fn parent(path: &str) -> Option<&str> {
    match path.rfind('/') {
        _ if path == "/" => None,
        Some(0) => Some("/"),
        Some(end) => Some(&path[..end]),
        None => None,
    }
}

/// `parent` and `child` as one path.
pub fn join(parent: &str, child: &str) -> String {
    if parent == "/" {
        format!("/{child}")
    } else {
        format!("{parent}/{child}")
    }
}

/// The ancestors of a path and the path itself, from the top, without the root: `/a`, `/a/b` of `/a/b`.
fn ancestors(path: &str) -> impl Iterator<Item = &str> {
    path.char_indices()
        .skip(1)
        .filter(|(_, character)| *character == '/')
        .map(|(end, _)| &path[..end])
        .chain((path != "/").then_some(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_has_its_ancestors_from_the_top_and_itself_last() {
        assert_eq!(ancestors("/a/b/c").collect::<Vec<_>>(), ["/a", "/a/b", "/a/b/c"]);
        assert_eq!(ancestors("/a").collect::<Vec<_>>(), ["/a"]);
        assert_eq!(ancestors("/").count(), 0);
    }

    #[test]
    fn a_path_is_absolute_and_has_no_empty_or_relative_names() {
        for good in ["/", "/a", "/a/b", "/config/users/<default>", "/a.b/..c"] {
            assert_eq!(check_path(good), Ok(()), "{good}");
        }
        for bad in ["", "a", "/a/", "//", "/a//b", "/.", "/a/..", "/a\u{0}", "/\u{1}"] {
            assert!(
                matches!(check_path(bad), Err(CoordinationError::InvalidPath { .. })),
                "{bad:?}"
            );
        }
    }

    #[test]
    fn the_root_has_no_parent_and_is_the_parent_of_the_first_level() {
        assert_eq!(parent("/"), None);
        assert_eq!(parent("/a"), Some("/"));
        assert_eq!(parent("/a/b"), Some("/a"));
        assert_eq!(join("/", "a"), "/a");
        assert_eq!(join("/a", "b"), "/a/b");
    }
}
