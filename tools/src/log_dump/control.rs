//! [`Control`]: what a control record says.
//!
//! Source: `ControlRecordType`, `EndTransactionMarker` of 2.7.2; the types of KRaft, and the order in which 2.8
//! numbered them anew, are those of `ControlRecordType` of 4.0.

/// A control record by its type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Control {
    pub(super) kind: i16,
    /// Of a transaction marker alone.
    pub(super) coordinator_epoch: Option<i32>,
}

const ABORT: i16 = 0;
const COMMIT: i16 = 1;

impl Control {
    /// # Errors
    /// It says nothing that can be understood.
    pub(super) fn parse(key: Option<&[u8]>, value: Option<&[u8]>) -> Result<Control, String> {
        let field = |bytes: &[u8], at: usize| {
            bytes
                .get(at..at + 2)
                .map(|two| i16::from_be_bytes([two[0], two[1]]))
        };
        let key = key
            .filter(|key| key.len() >= 4)
            .ok_or("a control record's key has at least 4 bytes")?;
        if field(key, 0).is_some_and(|version| version < 0) {
            return Err("a control record's key has a negative version".to_owned());
        }
        let kind = field(key, 2).unwrap_or_default();
        if !matches!(kind, ABORT | COMMIT) {
            return Ok(Control {
                kind,
                coordinator_epoch: None,
            });
        }
        let value = value.filter(|value| value.len() >= 6);
        let value = value.ok_or("a transaction marker's value has at least 6 bytes")?;
        if field(value, 0).is_some_and(|version| version < 0) {
            return Err("a transaction marker's value has a negative version".to_owned());
        }
        Ok(Control {
            kind,
            coordinator_epoch: Some(i32::from_be_bytes([value[2], value[3], value[4], value[5]])),
        })
    }

    pub(super) fn is_abort(self) -> bool {
        self.kind == ABORT
    }

    pub(super) fn is_commit(self) -> bool {
        self.kind == COMMIT
    }

    /// The name of the type; of those of KRaft the one that files have had since 2.8.
    pub(super) fn name(self) -> &'static str {
        match self.kind {
            ABORT => "ABORT",
            COMMIT => "COMMIT",
            2 => "LEADER_CHANGE",
            3 => "SNAPSHOT_HEADER",
            4 => "SNAPSHOT_FOOTER",
            5 => "KRAFT_VERSION",
            6 => "KRAFT_VOTERS",
            _ => "UNKNOWN",
        }
    }

    /// In the words of 2.7.2's tool, which knows other types of KRaft.
    pub(super) fn text(self) -> String {
        let kind = self.kind;
        if let Some(epoch) = self.coordinator_epoch {
            return format!(" endTxnMarker: {} coordinatorEpoch: {epoch}", self.name());
        }
        let name = match kind {
            2 => "QUORUM_REASSIGNMENT",
            3 => "LEADER_CHANGE",
            _ => "UNKNOWN",
        };
        format!(" controlType: {name}({kind})")
    }
}
