//! The small text files of a log directory, each replaced atomically.
//!
//! - `recovery-point-offset-checkpoint`, `replication-offset-checkpoint`, `log-start-offset-checkpoint` and
//!   `cleaner-offset-checkpoint`: one offset per partition ([`OffsetCheckpoint`]);
//! - `leader-epoch-checkpoint`, in a partition's directory: `epoch startOffset` lines
//!   ([`LeaderEpochCheckpoint`]);
//! - `meta.properties`: broker id and cluster id ([`BrokerMetadata`]);
//! - `.kafka_cleanshutdown`: empty; its presence says that all logs were closed in order
//!   ([`clean_shutdown_marker_exists`], [`create_clean_shutdown_marker`], [`remove_clean_shutdown_marker`]);
//! - `milena.state`: ours: boot id, how the last run ended, synced ends ([`RunState`]).
//!
//! Promise: after a successful write the file has the new content, durably; after a failed one, or a cut of
//! the power at any point, it has the old or the new content, whole. Reading never panics, never trusts a
//! count, and reports damage with file, line, expectation and finding. A leftover `NAME.tmp` is ignored and
//! overwritten.
//!
//! **Deviation:** Kafka 2.7.2 does not sync the directory after the rename (KAFKA-3968), so a power cut can
//! bring back the old file; here the directory is synced before the write is reported done.
//!
//! Leaves to others: what the numbers mean, and which errors take a directory offline (the log manager).
//! Layouts as in `CheckpointFile`, `OffsetCheckpointFile`, `LeaderEpochCheckpointFile`,
//! `BrokerMetadataCheckpoint` of 2.7.2.

use std::path::{Path, PathBuf};

use crate::error::IoError;
use crate::io::{Io, OpenMode};

mod leader_epoch;
mod meta;
mod offsets;
pub mod properties;
mod run_state;
#[cfg(test)]
mod tests;
mod text;

pub use leader_epoch::{EpochEntry, LeaderEpochCheckpoint};
pub use meta::{BrokerMetadata, MetaPropertiesError};
pub use offsets::OffsetCheckpoint;
pub use run_state::{RunState, RunStateUnreadable};
pub use text::CheckpointError;

/// Per partition, the offset up to which its log is synced.
pub const RECOVERY_POINT_FILE: &str = "recovery-point-offset-checkpoint";
/// Per partition, the high watermark.
pub const REPLICATION_OFFSET_FILE: &str = "replication-offset-checkpoint";
/// Per partition whose log start lies beyond its first segment, the log start offset.
pub const LOG_START_OFFSET_FILE: &str = "log-start-offset-checkpoint";
/// Per compacted partition, the first dirty offset.
pub const CLEANER_OFFSET_FILE: &str = "cleaner-offset-checkpoint";
/// In a partition's directory: its leader epochs.
pub const LEADER_EPOCH_FILE: &str = "leader-epoch-checkpoint";
/// Broker id and cluster id of a log directory.
pub const META_PROPERTIES_FILE: &str = "meta.properties";
/// Present if the last run closed every log of the directory.
pub const CLEAN_SHUTDOWN_FILE: &str = ".kafka_cleanshutdown";
/// Our evidence about the last run.
pub const RUN_STATE_FILE: &str = "milena.state";
/// Locked while a broker uses the directory.
pub const LOCK_FILE: &str = ".lock";

/// Largest checkpoint that is read. A line has at most 249 + 1 + 10 + 1 + 19 + 1 bytes: this is a million
/// partitions of the longest name.
const SIZE_BYTES_MAX: u64 = 281 * 1_000_000;

/// Replaces `path` by a file with `content`: writes `NAME.tmp`, syncs it, renames it over `path` and syncs
/// the directory. When it returns `Ok`, the new content survives a power cut. Two writers of one path must
/// exclude each other.
///
/// # Errors
/// Any failure is final for the directory. The old content is still there, or the new one, never a mixture.
pub fn replace_file(io: &dyn Io, path: &Path, content: &[u8]) -> Result<(), IoError> {
    let temporary = temporary_of(path);
    let file = io.open(&temporary, OpenMode::Truncate)?;
    file.write_vectored_at(0, &[std::io::IoSlice::new(content)])?;
    file.sync()?;
    drop(file);
    io.rename(&temporary, path)?;
    io.sync_dir(parent_of(path))
}

/// As [`replace_file`], but nothing is synced: whoever reads it must bear an old, empty or torn file.
pub(crate) fn replace_file_unsynced(io: &dyn Io, path: &Path, content: &[u8]) -> Result<(), IoError> {
    let temporary = temporary_of(path);
    let file = io.open(&temporary, OpenMode::Truncate)?;
    file.write_vectored_at(0, &[std::io::IoSlice::new(content)])?;
    drop(file);
    io.rename(&temporary, path)
}

/// The whole file, or `None` if there is none.
///
/// # Errors
/// As the disk says, and `FileTooLarge` for what cannot be a checkpoint.
pub fn read_file(io: &dyn Io, path: &Path) -> Result<Option<Vec<u8>>, IoError> {
    if io.stat(path)?.is_none() {
        return Ok(None);
    }
    let file = io.open(path, OpenMode::Read)?;
    let size_bytes = file.size_bytes()?;
    let too_large = || IoError::new("read", path, std::io::ErrorKind::FileTooLarge.into());
    if size_bytes > SIZE_BYTES_MAX {
        return Err(too_large());
    }
    let mut content = vec![0; usize::try_from(size_bytes).map_err(|_| too_large())?];
    let count = file.read_at(0, &mut content)?;
    content.truncate(count);
    Ok(Some(content))
}

/// Whether the last run of this directory, ours or a Java broker's, ended by closing every log.
///
/// # Errors
/// As the disk says; the directory cannot be judged then.
pub fn clean_shutdown_marker_exists(io: &dyn Io, log_dir: &Path) -> Result<bool, IoError> {
    Ok(io.stat(&log_dir.join(CLEAN_SHUTDOWN_FILE))?.is_some())
}

/// Leaves the marker, durably. The last step of a clean stop of the directory: all its logs are synced and
/// closed.
///
/// # Errors
/// The marker may or may not be there.
pub fn create_clean_shutdown_marker(io: &dyn Io, log_dir: &Path) -> Result<(), IoError> {
    io.open(&log_dir.join(CLEAN_SHUTDOWN_FILE), OpenMode::ReadWriteCreate)?;
    io.sync_dir(log_dir)
}

/// Takes the marker away, durably. To be done before the first log is loaded, so that a crash while loading
/// is seen as one (KAFKA-10471). Fine if there is none.
///
/// # Errors
/// The marker may or may not be there: nothing may be written to the directory.
pub fn remove_clean_shutdown_marker(io: &dyn Io, log_dir: &Path) -> Result<(), IoError> {
    io.remove_file(&log_dir.join(CLEAN_SHUTDOWN_FILE))?;
    io.sync_dir(log_dir)
}

/// `NAME.tmp` beside it.
fn temporary_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".tmp");
    PathBuf::from(name)
}

fn parent_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}
