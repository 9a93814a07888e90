//! What a dump tells, thing by thing: the words between the walks over files and the printers of [`super::report`].
//!
//! Things lie as they are stored, whatever they say. Serialized they are the lines of `docs/log-dump.schema.json`.

use std::fmt;
use std::path::Path;

use milena_engine::record_batch::{BatchError, Headers};
use serde::Serialize;

use super::raw_batch::RawBatch;

/// One line of most printers. Records have a way of their own: they can be beyond understanding.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub(super) enum Thing<'a> {
    /// The first of a segment whose name has an offset.
    SegmentStart {
        base_offset: i64,
    },
    Batch(BatchThing<'a>),
    /// No whole batch is in them.
    TrailingBytes {
        #[serde(skip)]
        file_name: &'a str,
        count: u64,
    },
    OffsetEntry {
        offset: i64,
        position: i32,
    },
    TimeEntry {
        timestamp: i64,
        offset: i64,
    },
    TransactionEntry {
        version: i8,
        producer_id: i64,
        first_offset: i64,
        last_offset: i64,
        last_stable_offset: i64,
    },
    /// Of an index: what a broker looks at when it starts.
    SanityCheck {
        #[serde(skip)]
        path: &'a Path,
        passed: bool,
    },
    ProducerEntry(ProducerEntry),
    CheckpointEntry {
        checkpoint: &'a str,
        topic: &'a str,
        partition: i32,
        offset: i64,
    },
    EpochEntry {
        epoch: i32,
        start_offset: i64,
    },
    Properties {
        #[serde(serialize_with = "in_order")]
        properties: &'a [(String, String)],
    },
    CleanShutdown {
        #[serde(skip_serializing_if = "Option::is_none")]
        broker_epoch: Option<i64>,
    },
}

fn in_order<S: serde::Serializer>(pairs: &[(String, String)], to: S) -> Result<S::Ok, S::Error> {
    to.collect_map(pairs.iter().map(|(key, value)| (key, value)))
}

/// A batch of a log.
#[derive(Clone, Copy, Debug)]
pub(super) struct BatchThing<'a> {
    pub(super) raw: &'a RawBatch,
    pub(super) position: u64,
    /// Of the bytes as they are; `None` where there are too few for any.
    pub(super) computed_crc: Option<u32>,
}

impl BatchThing<'_> {
    pub(super) fn is_valid(&self) -> bool {
        self.computed_crc == Some(self.raw.stored_crc())
    }

    /// That the bytes are not those that the checksum was made of.
    pub(super) fn wrong_crc(&self) -> Damage {
        match self.computed_crc {
            Some(computed) => Damage::found(
                format_args!("a stored crc of {}", self.raw.stored_crc()),
                format_args!("{computed}, that of the bytes"),
            ),
            None => Damage::found(
                format_args!("{} bytes", self.raw.size_bytes),
                "a whole header before the checksum",
            ),
        }
    }
}

/// A record of a batch, with its offset in the log.
#[derive(Clone, Debug)]
pub(super) struct RecordThing<'a> {
    pub(super) raw: &'a RawBatch,
    pub(super) offset: i64,
    pub(super) timestamp: i64,
    /// As stored; below 0 for null.
    pub(super) key_size: i64,
    /// As stored; below 0 for null.
    pub(super) value_size: i64,
    /// Key and value, or why they cannot be had.
    pub(super) content: Result<Content<'a>, String>,
    pub(super) layout: Layout<'a>,
}

/// A key and a value, `None` where they are null.
pub(super) type Content<'a> = (Option<&'a [u8]>, Option<&'a [u8]>);

/// What the formats do not share.
#[derive(Clone, Copy, Debug)]
pub(super) enum Layout<'a> {
    /// v0 and v1.
    Message {
        crc: u32,
        is_valid: bool,
        size_bytes: u64,
    },
    /// v2.
    Record {
        sequence: i32,
        headers: Headers<'a>,
        timestamp_delta: i64,
        offset_delta: i64,
    },
}

impl RecordThing<'_> {
    /// Bytes that it takes where nothing is compressed.
    pub(super) fn size_bytes(&self) -> u64 {
        let (headers, timestamp_delta, offset_delta) = match self.layout {
            Layout::Message { size_bytes, .. } => return size_bytes,
            Layout::Record {
                headers,
                timestamp_delta,
                offset_delta,
                ..
            } => (headers, timestamp_delta, offset_delta),
        };
        let field = |size: i64| varint_size(size) + size.max(0) as u64;
        let of_headers: u64 = headers
            .iter()
            .map(|header| {
                let value = header.value.map_or(-1, |value| value.len() as i64);
                field(header.key.len() as i64) + field(value)
            })
            .sum();
        let body = 1
            + varint_size(timestamp_delta)
            + varint_size(offset_delta)
            + field(self.key_size)
            + field(self.value_size)
            + varint_size(headers.len() as i64)
            + of_headers;
        varint_size(body as i64) + body
    }
}

/// Of a zigzag varint.
fn varint_size(value: i64) -> u64 {
    let zigzag = ((value << 1) ^ (value >> 63)) as u64;
    u64::from((64 - zigzag.leading_zeros()).div_ceil(7).max(1))
}

/// A producer in a `.snapshot`.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ProducerEntry {
    pub(super) producer_id: i64,
    pub(super) producer_epoch: i16,
    pub(super) coordinator_epoch: i32,
    /// `None` without an open transaction.
    pub(super) current_txn_first_offset: Option<i64>,
    /// `None` for a producer of which only the epoch is known.
    #[serde(flatten)]
    pub(super) last_batch: Option<LastBatch>,
}

/// What a producer appended last.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct LastBatch {
    pub(super) first_sequence: i32,
    pub(super) last_sequence: i32,
    pub(super) last_offset: i64,
    pub(super) offset_delta: i32,
    pub(super) timestamp: i64,
}

/// What is wrong, in words, and where it is that simple what was found in place of what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Damage {
    what: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    found: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expected: Option<String>,
}

impl Damage {
    pub(super) fn found(found: impl fmt::Display, expected: impl fmt::Display) -> Damage {
        Damage {
            what: format!("found {found}, expected {expected}"),
            found: Some(found.to_string()),
            expected: Some(expected.to_string()),
        }
    }

    /// The same, told in other words.
    pub(super) fn told(self, what: String) -> Damage {
        Damage { what, ..self }
    }

    /// The same at a place.
    pub(super) fn at(self, place: impl fmt::Display) -> Damage {
        let what = format!("{place}: {}", self.what);
        self.told(what)
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl From<String> for Damage {
    fn from(what: String) -> Damage {
        Damage {
            what,
            found: None,
            expected: None,
        }
    }
}

impl From<&str> for Damage {
    fn from(what: &str) -> Damage {
        Damage::from(what.to_owned())
    }
}

impl From<BatchError> for Damage {
    fn from(error: BatchError) -> Damage {
        let what = error.to_string();
        let (found, expected) = match error {
            BatchError::Partial { found, expected, .. } => (found.to_string(), expected.to_string()),
            BatchError::Size { found, minimum, .. } => (found.to_string(), format!("at least {minimum}")),
            BatchError::Magic { found, .. } => (found.to_string(), "0, 1 or 2".to_owned()),
            BatchError::UnknownCodec { found, .. } => (found.to_string(), "0 to 4".to_owned()),
            BatchError::RecordCount { found, .. } => (found.to_string(), "at least 0".to_owned()),
            BatchError::Structure { found, expected, .. } | BatchError::ControlRecord { found, expected } => {
                (found.to_string(), expected.to_owned())
            }
            BatchError::Crc { stored, computed, .. } => (stored.to_string(), computed.to_string()),
            BatchError::TooLarge {
                size_bytes,
                limit_bytes,
            } => (size_bytes.to_string(), format!("at most {limit_bytes}")),
            BatchError::OffsetRange { .. }
            | BatchError::Compression { .. }
            | BatchError::UnsupportedCompression { .. } => return Damage::from(what),
        };
        Damage::found(found, expected).told(what)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_varint_takes_a_byte_for_seven_bits() {
        for (value, size) in [
            (0, 1),
            (-1, 1),
            (63, 1),
            (64, 2),
            (-64, 1),
            (-65, 2),
            (8191, 2),
            (8192, 3),
            (i64::MIN, 10),
        ] {
            assert_eq!(varint_size(value), size, "{value}");
        }
    }

    #[test]
    fn damage_keeps_what_was_found_and_expected_when_it_is_told_of_a_place() {
        let damage = Damage::found(1, "2").at("byte 7");
        assert_eq!(damage.to_string(), "byte 7: found 1, expected 2");
        assert_eq!(
            (damage.found.as_deref(), damage.expected.as_deref()),
            (Some("1"), Some("2"))
        );
    }
}
