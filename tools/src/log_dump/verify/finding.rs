//! [`Finding`]: one thing that is not as it must be, or that is worth naming: where, what was expected, what was found, and
//! what Kafka 2.7.2 would do about it when it starts.
//!
//! The examination makes findings, the report prints them, and a repair plans by their kinds. Source for the last
//! column: `Log.loadSegmentFiles`, `Log.recoverLog`, `LogSegment.recover`, `LogManager.loadLogs`,
//! `ProducerStateManager.loadFromSnapshot`, `LeaderEpochFileCache`, `KafkaServer.getBrokerMetadataAndOfflineDirs`.

use std::fmt;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

/// What is wrong, with what a repair needs to know of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::log_dump) enum Kind {
    /// Bytes of a segment that are no sound batch in its place, up to `until`.
    Batch {
        base: i64,
        until: u64,
    },
    /// Records that cannot be read in a batch whose checksum is right.
    Record,
    /// Offsets that no batch holds, though nothing tells of compaction.
    Gap,
    /// The offset index of the segment is missing or does not fit its log.
    OffsetIndex {
        base: i64,
    },
    TimeIndex {
        base: i64,
    },
    TransactionIndex {
        base: i64,
    },
    /// An index whose segment is not there.
    Orphan,
    /// A producer snapshot that cannot be read or does not fit the log.
    Snapshot {
        offset: i64,
    },
    /// Producers wrote to the log, and there is no snapshot.
    NoSnapshot,
    /// The list of leader epochs is missing, cannot be read or contradicts the batches.
    LeaderEpochs,
    /// An offset checkpoint of the log directory cannot be read.
    Checkpoint,
    /// `log-start-offset-checkpoint` has the partition start behind its end.
    LogStart,
    /// A snapshot of KRaft's metadata that is not whole.
    MetadataSnapshot,
    /// `meta.properties` is missing or cannot be read.
    Metadata,
    /// A directory that 2.7.2 takes for none of its own.
    Directory,
    /// Not damage: what is there by right and yet worth a line.
    Note,
    /// The file system does not give it.
    Unreadable,
}

impl Kind {
    /// As in JSON.
    pub(in crate::log_dump) fn name(&self) -> &'static str {
        match self {
            Kind::Batch { .. } => "batch",
            Kind::Record => "record",
            Kind::Gap => "gap",
            Kind::OffsetIndex { .. } => "offset-index",
            Kind::TimeIndex { .. } => "time-index",
            Kind::TransactionIndex { .. } => "transaction-index",
            Kind::Orphan => "orphan",
            Kind::Snapshot { .. } => "snapshot",
            Kind::NoSnapshot => "no-snapshot",
            Kind::LeaderEpochs => "leader-epochs",
            Kind::Checkpoint => "checkpoint",
            Kind::LogStart => "log-start",
            Kind::MetadataSnapshot => "metadata-snapshot",
            Kind::Metadata => "metadata",
            Kind::Directory => "directory",
            Kind::Note => "note",
            Kind::Unreadable => "unreadable",
        }
    }
}

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::log_dump) struct Finding {
    pub(in crate::log_dump) kind: Kind,
    pub(in crate::log_dump) path: PathBuf,
    /// The byte in the file, where there is one.
    pub(in crate::log_dump) position: Option<u64>,
    pub(in crate::log_dump) found: String,
    /// Empty if there is nothing to expect.
    pub(in crate::log_dump) expected: String,
    /// What 2.7.2 does about it when it starts.
    pub(in crate::log_dump) at_start: String,
}

impl Finding {
    pub(super) fn new(
        kind: Kind,
        path: impl AsRef<Path>,
        found: impl Into<String>,
        expected: impl Into<String>,
        at_start: impl Into<String>,
    ) -> Finding {
        Finding {
            kind,
            path: path.as_ref().to_owned(),
            position: None,
            found: found.into(),
            expected: expected.into(),
            at_start: at_start.into(),
        }
    }

    pub(super) fn at(mut self, position: u64) -> Finding {
        self.position = Some(position);
        self
    }

    /// Whether it makes the directory unsound.
    pub(in crate::log_dump) fn is_damage(&self) -> bool {
        !matches!(self.kind, Kind::Note | Kind::Unreadable)
    }

    pub(in crate::log_dump) fn to_json(&self) -> Value {
        let severity = match self.kind {
            Kind::Note => "note",
            Kind::Unreadable => "unreadable",
            _ => "damage",
        };
        json!({
            "type": "finding",
            "severity": severity,
            "kind": self.kind.name(),
            "file": self.path.to_string_lossy(),
            "position": self.position,
            "found": self.found,
            "expected": (!self.expected.is_empty()).then_some(&self.expected),
            "kafkaAtStart": (!self.at_start.is_empty()).then_some(&self.at_start),
        })
    }
}

/// Two lines: the place with what was found and expected, and what Kafka does about it.
impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.path.display())?;
        if let Some(position) = self.position {
            write!(f, "byte {position}: ")?;
        }
        if self.kind == Kind::Note {
            write!(f, "note: ")?;
        }
        write!(f, "found {}", self.found)?;
        if !self.expected.is_empty() {
            write!(f, ", expected {}", self.expected)?;
        }
        if !self.at_start.is_empty() {
            write!(f, "\n  Kafka 2.7.2 at start: {}", self.at_start)?;
        }
        Ok(())
    }
}

/// What a broker that starts here would know.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::log_dump) struct Start {
    /// `.kafka_cleanshutdown` is there: no batch is looked at.
    pub(in crate::log_dump) clean: bool,
    /// Segments that end at or below are not recovered.
    pub(in crate::log_dump) recovery_point: i64,
}

impl Start {
    /// Whether the segment in front of `next_base` (or the last) is recovered.
    pub(super) fn recovers(self, next_base: Option<i64>) -> bool {
        !self.clean && next_base.is_none_or(|next| next > self.recovery_point)
    }

    pub(super) fn of_batch(self, next_base: Option<i64>, position: u64) -> String {
        if self.recovers(next_base) {
            format!("recovery truncates the segment at byte {position} and deletes all segments behind it")
        } else {
            format!(
                "{}, so the batch is not looked at; whoever reads it fails with CorruptRecordException",
                self.reason()
            )
        }
    }

    pub(super) fn of_index(self, next_base: Option<i64>) -> String {
        if self.recovers(next_base) {
            "recovery builds it anew".to_owned()
        } else {
            format!("{}, so it is used as it is and lookups go wrong", self.reason())
        }
    }

    pub(super) fn of_transaction_index(self, next_base: Option<i64>, is_refused: bool) -> String {
        if is_refused || self.recovers(next_base) {
            "the segment is recovered, which builds it anew".to_owned()
        } else {
            format!(
                "{}, so it is used as it is and read_committed consumers see what was aborted",
                self.reason()
            )
        }
    }

    fn reason(self) -> &'static str {
        if self.clean {
            "the last shutdown was clean"
        } else {
            "the segment lies below the recovery point"
        }
    }
}
