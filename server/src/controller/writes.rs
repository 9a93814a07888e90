//! Writes whose answers may be lost with the connection.
//!
//! Such a write may have happened: the nodes it is about are read, and only if they do not look as it leaves them it is written
//! again. Where another writer was there in between, the second try fails at a version or at a node that exists, and the
//! machine looks again. Source: `KafkaZkClient` (`retryRequestsUntilConnected`).

use super::shell::Shell;
use crate::coordination::{CoordinationError, ExpectedVersion, MultiError, Node, Operation};

impl Shell {
    /// Writes persistent nodes.
    pub(super) async fn write(&self, operations: Vec<Operation>) -> Result<(), MultiError> {
        let paths: Vec<String> = operations.iter().map(|one| one.path().to_owned()).collect();
        loop {
            match self.coordination.multi(operations.clone()).await {
                Ok(_) => return Ok(()),
                Err(failed) if failed.error == CoordinationError::ConnectionLoss => {
                    self.log("a write lost its connection: looking whether it happened");
                    let nodes = self.coordination.get_many(paths.clone()).await;
                    let nodes = nodes.map_err(|error| MultiError { index: 0, error })?;
                    if happened(&operations, &nodes) {
                        return Ok(());
                    }
                }
                Err(failed) => return Err(failed),
            }
        }
    }
}

/// Whether nodes look as operations leave them. All of them happened, or none.
fn happened(operations: &[Operation], nodes: &[Option<Node>]) -> bool {
    operations
        .iter()
        .zip(nodes)
        .all(|(operation, node)| match (operation, node) {
            (Operation::Check { .. }, _) | (Operation::Delete { .. }, None) => true,
            (Operation::Create { data, .. }, Some(node)) => node.data == *data,
            (Operation::SetData { data, expected, .. }, Some(node)) => {
                let is_next = match expected {
                    ExpectedVersion::Any => true,
                    ExpectedVersion::Exactly(version) => node.stat.version == version + 1,
                };
                is_next && node.data == *data
            }
            (Operation::Delete { .. }, Some(_))
            | (Operation::Create { .. } | Operation::SetData { .. }, None) => false,
        })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use milena_engine::units::TimestampMs;

    use super::*;
    use crate::coordination::Stat;

    fn node(data: &'static str, version: i32) -> Option<Node> {
        let stat = Stat {
            czxid: 1,
            mzxid: 1,
            ctime: TimestampMs(0),
            mtime: TimestampMs(0),
            version,
            cversion: 0,
            ephemeral_owner: None,
            child_count: 0,
        };
        let data = Some(Bytes::from_static(data.as_bytes()));
        Some(Node { data, stat })
    }

    #[test]
    fn a_write_happened_if_every_node_looks_as_it_leaves_it() {
        let fence = Operation::Check {
            path: "/e".into(),
            version: 7,
        };
        let set = |expected| Operation::set("/s", Bytes::from_static(b"new"), expected);
        let exactly = set(ExpectedVersion::Exactly(4));
        let create = Operation::create("/c", Some(Bytes::from_static(b"new")));
        let delete = Operation::delete("/d");
        let cases = [
            (exactly.clone(), node("new", 5), true),
            (exactly.clone(), node("new", 4), false),
            (exactly.clone(), node("new", 6), false),
            (exactly.clone(), node("old", 5), false),
            (exactly, None, false),
            (set(ExpectedVersion::Any), node("new", 9), true),
            (set(ExpectedVersion::Any), node("old", 9), false),
            (create.clone(), node("new", 0), true),
            (create.clone(), node("other", 0), false),
            (create, None, false),
            (delete.clone(), None, true),
            (delete, node("old", 0), false),
        ];
        for (operation, found, expected) in cases {
            let shown = format!("{operation:?} {found:?}");
            let operations = [fence.clone(), operation];
            assert_eq!(happened(&operations, &[node("8", 8), found]), expected, "{shown}");
        }
    }
}
