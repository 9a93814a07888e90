//! Where the tree's file lies: in one of the log directories, and only in one.
//!
//! A node has one tree. Two files, or none while a directory that may hold it cannot be looked into, are refused: a second
//! tree beside the first would make the next start impossible, or two nodes of one. A tree that was moved into ZooKeeper has
//! another name, under which it is kept for a person and not opened again.

use std::path::PathBuf;

use milena_engine::error::IoError;
use milena_engine::io::Io;

/// Name of the tree's file in its log directory.
pub const TREE_FILE: &str = "milena.tree";
/// Its name once the node is one of a cluster in ZooKeeper.
pub const MOVED_TREE_FILE: &str = "milena.tree.moved";

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

/// Where a tree lies that was moved into ZooKeeper, if there is one.
///
/// # Errors
/// A directory cannot be looked into.
pub fn locate_moved(io: &dyn Io, log_dirs: &[PathBuf]) -> Result<Option<PathBuf>, IoError> {
    for directory in log_dirs {
        let path = directory.join(MOVED_TREE_FILE);
        if io.stat(&path)?.is_some() {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

/// As [`locate`], in the directories that can be used; `offline` are the others, with the reason.
pub(super) fn locate_beside(
    io: &dyn Io,
    log_dirs: &[PathBuf],
    offline: &[(PathBuf, String)],
) -> Result<Option<PathBuf>, OpenTreeError> {
    let found = locate(io, log_dirs)?;
    for (directory, reason) in offline {
        let path = directory.join(TREE_FILE);
        let is_there = matches!(io.stat(&path), Ok(Some(_)));
        let (directory, reason) = (directory.clone(), reason.clone());
        match found {
            Some(first) if is_there => return Err(OpenTreeError::TwoTrees { first, second: path }),
            None if is_there => return Err(OpenTreeError::Offline { path, reason }),
            None => return Err(OpenTreeError::MayBeOffline { directory, reason }),
            Some(_) => {}
        }
    }
    Ok(found)
}
