//! A node as it lies in the tree's file: a header of fixed size, then the data.
//!
//! Little-endian. redb's checksums cover it, so a record that does not parse is damage, reported with what was wrong.

use bytes::Bytes;
use milena_engine::units::TimestampMs;

use crate::coordination::{Node, Stat};

/// Number of the layout below, the first byte of each record.
const LAYOUT: u8 = 1;
/// layout + has data + (czxid, mzxid, ctime, mtime, owner) + (version, cversion, child count)
const HEADER_SIZE_BYTES: usize = 1 + 1 + 5 * 8 + 3 * 4;

/// A node that is being changed.
#[derive(Clone, Debug)]
pub(super) struct Record {
    pub(super) data: Option<Bytes>,
    pub(super) stat: Stat,
}

impl Record {
    pub(super) fn new(data: Option<Bytes>, zxid: i64, now: TimestampMs, owner: Option<i64>) -> Record {
        let stat = Stat {
            czxid: zxid,
            mzxid: zxid,
            ctime: now,
            mtime: now,
            version: 0,
            cversion: 0,
            ephemeral_owner: owner,
            child_count: 0,
        };
        Record { data, stat }
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.clear();
        out.push(LAYOUT);
        out.push(u8::from(self.data.is_some()));
        let stat = &self.stat;
        let owner = stat.ephemeral_owner.unwrap_or_default();
        for word in [stat.czxid, stat.mzxid, stat.ctime.0, stat.mtime.0, owner] {
            out.extend_from_slice(&word.to_le_bytes());
        }
        for half in [stat.version, stat.cversion, stat.child_count] {
            out.extend_from_slice(&half.to_le_bytes());
        }
        out.extend_from_slice(self.data.as_deref().unwrap_or_default());
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Record, String> {
        let Some((header, data)) = bytes.split_first_chunk::<HEADER_SIZE_BYTES>() else {
            return Err(format!(
                "a node has {} bytes, expected at least {HEADER_SIZE_BYTES}",
                bytes.len()
            ));
        };
        let [LAYOUT, has_data @ (0 | 1), rest @ ..] = header else {
            return Err(format!(
                "a node starts with {:?}, expected layout {LAYOUT}",
                &header[..2]
            ));
        };
        let word = |at: usize| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&rest[at * 8..at * 8 + 8]);
            i64::from_le_bytes(bytes)
        };
        let half = |at: usize| {
            let mut bytes = [0; 4];
            bytes.copy_from_slice(&rest[5 * 8 + at * 4..5 * 8 + at * 4 + 4]);
            i32::from_le_bytes(bytes)
        };
        let owner = word(4);
        let stat = Stat {
            czxid: word(0),
            mzxid: word(1),
            ctime: TimestampMs(word(2)),
            mtime: TimestampMs(word(3)),
            version: half(0),
            cversion: half(1),
            ephemeral_owner: (owner != 0).then_some(owner),
            child_count: half(2),
        };
        Ok(Record {
            data: (*has_data == 1).then(|| Bytes::copy_from_slice(data)),
            stat,
        })
    }
}

impl From<Record> for Node {
    fn from(record: Record) -> Node {
        Node {
            data: record.data,
            stat: record.stat,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_comes_back_as_it_was_written_and_null_data_stays_apart_from_empty_data() {
        for data in [None, Some(Bytes::new()), Some(Bytes::from_static(b"{}"))] {
            for owner in [None, Some(7)] {
                let mut record = Record::new(data.clone(), 9, TimestampMs(1_600_000_000_000), owner);
                record.stat.version = 3;
                record.stat.cversion = 4;
                record.stat.child_count = 5;
                record.stat.mzxid = 11;
                let mut bytes = Vec::new();
                record.encode(&mut bytes);
                let read = Record::decode(&bytes).unwrap();
                assert_eq!((read.data, read.stat), (record.data, record.stat));
            }
        }
    }

    #[test]
    fn a_damaged_node_is_refused_with_what_was_wrong() {
        assert!(Record::decode(&[1, 0, 3]).unwrap_err().contains("3 bytes"));
        let mut bytes = Vec::new();
        Record::new(None, 1, TimestampMs(0), None).encode(&mut bytes);
        bytes[0] = 9;
        assert!(Record::decode(&bytes).unwrap_err().contains("layout"));
    }
}
