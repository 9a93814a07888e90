//! One offset per partition: `topic partition offset` lines (`OffsetCheckpointFile`).
//!
//! A broker that rewrites such a file must pass every partition of the directory, those it only keeps
//! included.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;

use super::text::{self, CheckpointError};
use crate::error::IoError;
use crate::io::Io;
use crate::units::{Offset, TopicPartition};

/// One of the offset checkpoints of a log directory. Writes exclude each other.
#[derive(Debug)]
pub struct OffsetCheckpoint {
    path: PathBuf,
    writing: Mutex<()>,
}

impl OffsetCheckpoint {
    /// `name` is one of the constants of this module's parent. Touches nothing.
    pub fn new(log_dir: &Path, name: &str) -> OffsetCheckpoint {
        OffsetCheckpoint {
            path: log_dir.join(name),
            writing: Mutex::new(()),
        }
    }

    /// All entries; none if the file is missing or empty.
    ///
    /// # Errors
    /// [`CheckpointError::Io`] if it cannot be read; the others if it is not such a file.
    pub fn read(&self, io: &dyn Io) -> Result<BTreeMap<TopicPartition, Offset>, CheckpointError> {
        let entries = text::read(
            io,
            &self.path,
            "'topic partition offset'",
            |fields| match fields {
                [topic, partition, offset] => {
                    let partition = TopicPartition::new(*topic, partition.parse().ok()?);
                    Some((partition, Offset(offset.parse().ok()?)))
                }
                _ => None,
            },
        )?;
        Ok(entries.into_iter().collect())
    }

    /// Replaces all entries, durably when it returns.
    ///
    /// # Errors
    /// Final for the directory; the file has its old or its new content.
    pub fn write(&self, io: &dyn Io, offsets: &BTreeMap<TopicPartition, Offset>) -> Result<(), IoError> {
        let content = text::render(offsets.iter().map(|(partition, offset)| Line(partition, *offset)));
        let _writing = self.writing.lock();
        super::replace_file(io, &self.path, content.as_bytes())
    }
}

pub(super) struct Line<'a>(pub(super) &'a TopicPartition, pub(super) Offset);

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.0.topic, self.0.partition, self.1)
    }
}
