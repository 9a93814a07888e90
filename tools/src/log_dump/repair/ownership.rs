//! Whose the files are that a repair makes: a broker must be able to open what root has made for it.
//!
//! A new file belongs to whom its directory belongs, as though the broker had made it. Only root can give files away;
//! what anybody else makes stays theirs. Where a disk knows no owners nothing is done.

use std::path::Path;

use milena_engine::io::{Io, Owner};
use rustix::process::geteuid;

use crate::log_dump::report::Read;

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
