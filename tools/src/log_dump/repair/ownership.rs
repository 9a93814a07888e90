//! Whose the files are that a repair makes: a broker must be able to open what root has made for it.
//!
//! The time of a file is set by its owner or root alone, so that nobody else may change one: they could not put it back.
//! A new file belongs to whom its directory belongs, as though the broker had made it. Only root can give files away;
//! what anybody else makes stays theirs. Where a disk knows no owners nothing is done.

use std::path::Path;

use milena_engine::error::IoError;
use milena_engine::io::{Io, Owner};
use rustix::process::{Uid, geteuid};

use crate::log_dump::report::Read;

/// Whether this user may change a file and give it back what it was.
///
/// # Errors
/// It belongs to another user, and this one is not root.
pub(super) fn check(io: &dyn Io, path: &Path) -> Read<()> {
    match io.owner(path)? {
        Some(owner) if is_anothers(owner, geteuid()) => {
            let text = format!(
                "it belongs to user {}; repair as that user or as root",
                owner.user
            );
            let error = std::io::Error::new(std::io::ErrorKind::PermissionDenied, text);
            Err(IoError::new("open", path, error))
        }
        _ => Ok(()),
    }
}

fn is_anothers(owner: Owner, user: Uid) -> bool {
    !user.is_root() && owner.user != user.as_raw()
}

/// A new file, which belongs to whom `directory` belongs.
pub(super) fn as_file(io: &dyn Io, path: &Path, directory: &Path) -> Read<()> {
    give(io, path, directory, 0o666)
}

/// A new directory like another one.
pub(super) fn as_directory(io: &dyn Io, path: &Path, directory: &Path) -> Read<()> {
    give(io, path, directory, 0o7777)
}

fn give(io: &dyn Io, path: &Path, directory: &Path, mask: u32) -> Read<()> {
    match (io.owner(directory)?, io.owner(path)?) {
        (Some(of), Some(own)) => {
            let mode = of.mode & mask;
            let owner = if geteuid().is_root() { of } else { own };
            io.set_owner(path, Owner { mode, ..owner })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_belongs_to_another_is_changed_by_root_alone() {
        let owner = Owner {
            user: 7,
            group: 7,
            mode: 0o666,
        };
        for (user, expected) in [(7, false), (0, false), (8, true)] {
            assert_eq!(is_anothers(owner, Uid::from_raw(user)), expected, "user {user}");
        }
    }
}
