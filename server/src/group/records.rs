//! The records of `__consumer_offsets`: keys and values, byte for byte as Kafka 2.7.2 writes them, all versions read.
//!
//! | record | key | value |
//! |---|---|---|
//! | committed offset | v1 (v0 read): group, topic, partition | v3; v1 with an explicit expire timestamp; v0 to v3 read |
//! | group metadata | v2: group | v3; v0 to v3 read |
//!
//! A null value is a tombstone. Every key and value opens with an int16 version; strings have an int16 length, bytes
//! and arrays an int32 length, integers are big-endian. Bytes come from disk, so reading allocates only what is there
//! and never panics: what is not understood is an [`InvalidRecord`] with its place. Where records go is
//! [`partition_for`]. The batches around them belong to the engine. Source: the schemas in
//! `GroupMetadataManager.scala`, `Utils.abs`, `String.hashCode`.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use milena_engine::units::{Offset, TimestampMs, TopicPartition};

use super::requests::OffsetAndMetadata;

const OFFSET_KEY_VERSION: i16 = 1;
const GROUP_KEY_VERSION: i16 = 2;
const GROUP_VALUE_VERSION: i16 = 3;
/// −1 where an epoch or a timestamp is absent.
const ABSENT: i32 = -1;

/// `String.hashCode`.
pub fn java_hash(text: &str) -> i32 {
    text.encode_utf16().fold(0i32, |hash, unit| {
        hash.wrapping_mul(31).wrapping_add(i32::from(unit))
    })
}

/// The partition of `__consumer_offsets` that holds the group: Java's `hashCode` of the id, made non-negative as
/// `Utils.abs` does (the smallest integer becomes 0), modulo `partition_count`.
pub fn partition_for(group_id: &str, partition_count: i32) -> i32 {
    let non_negative = java_hash(group_id).checked_abs().unwrap_or(0);
    non_negative % partition_count.max(1)
}

/// A key of `__consumer_offsets`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RecordKey {
    Offset {
        group_id: Arc<str>,
        partition: TopicPartition,
    },
    Group {
        group_id: Arc<str>,
    },
}

/// The value of a group metadata record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupMetadataValue {
    /// `""` if the group has none.
    pub protocol_type: Arc<str>,
    pub generation_id: i32,
    pub protocol_name: Option<Arc<str>>,
    pub leader_id: Option<Arc<str>>,
    /// Absent before version 2.
    pub current_state_timestamp: Option<TimestampMs>,
    pub members: Vec<MemberValue>,
}

/// A member in a group metadata record. Timeouts in milliseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberValue {
    pub member_id: Arc<str>,
    pub group_instance_id: Option<Arc<str>>,
    pub client_id: Arc<str>,
    pub client_host: Arc<str>,
    /// The session timeout in version 0.
    pub rebalance_timeout_ms: i32,
    pub session_timeout_ms: i32,
    /// The member's metadata for the selected protocol.
    pub subscription: Bytes,
    pub assignment: Bytes,
}

/// A record that cannot be read: where, what was expected and what was found there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}: byte {position}: {found}, expected {expected}")]
pub struct InvalidRecord {
    /// Key or value of which record.
    pub what: &'static str,
    /// From 0, in the key or value.
    pub position: usize,
    pub expected: &'static str,
    pub found: String,
}

/// A string or byte array that the record format cannot hold (more than 32,767 bytes, or 2 GiB).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a field of {size_bytes} bytes does not fit into a record of __consumer_offsets")]
pub struct FieldTooLong {
    pub size_bytes: usize,
}

/// The key under which an offset is stored.
///
/// # Errors
/// [`FieldTooLong`] if the group id or the topic is longer than 32,767 bytes.
pub fn offset_key(group_id: &str, partition: &TopicPartition) -> Result<Bytes, FieldTooLong> {
    let mut out = Vec::with_capacity(2 + 2 + group_id.len() + 2 + partition.topic.len() + 4);
    put_i16(&mut out, OFFSET_KEY_VERSION);
    put_string(&mut out, group_id)?;
    put_string(&mut out, &partition.topic)?;
    put_i32(&mut out, partition.partition);
    Ok(out.into())
}

/// The key under which a group's metadata is stored.
///
/// # Errors
/// [`FieldTooLong`] if the group id is longer than 32,767 bytes.
pub fn group_key(group_id: &str) -> Result<Bytes, FieldTooLong> {
    let mut out = Vec::with_capacity(2 + 2 + group_id.len());
    put_i16(&mut out, GROUP_KEY_VERSION);
    put_string(&mut out, group_id)?;
    Ok(out.into())
}

/// The value of a committed offset: version 1 if it carries an expire timestamp, else version 3.
///
/// # Errors
/// [`FieldTooLong`] if the metadata is longer than 32,767 bytes.
pub fn offset_value(value: &OffsetAndMetadata) -> Result<Bytes, FieldTooLong> {
    let mut out = Vec::with_capacity(2 + 8 + 4 + 2 + value.metadata.len() + 16);
    match value.expire_timestamp {
        Some(expire_timestamp) => {
            put_i16(&mut out, 1);
            put_i64(&mut out, value.offset.get());
            put_string(&mut out, &value.metadata)?;
            put_i64(&mut out, value.commit_timestamp.get());
            put_i64(&mut out, expire_timestamp.get());
        }
        None => {
            put_i16(&mut out, 3);
            put_i64(&mut out, value.offset.get());
            put_i32(&mut out, value.leader_epoch.unwrap_or(ABSENT));
            put_string(&mut out, &value.metadata)?;
            put_i64(&mut out, value.commit_timestamp.get());
        }
    }
    Ok(out.into())
}

/// The value of a group, version 3.
///
/// # Errors
/// [`FieldTooLong`] if a string is longer than 32,767 bytes or a byte array than 2 GiB.
pub fn group_value(value: &GroupMetadataValue) -> Result<Bytes, FieldTooLong> {
    let mut out = Vec::new();
    put_i16(&mut out, GROUP_VALUE_VERSION);
    put_string(&mut out, &value.protocol_type)?;
    put_i32(&mut out, value.generation_id);
    put_nullable_string(&mut out, value.protocol_name.as_deref())?;
    put_nullable_string(&mut out, value.leader_id.as_deref())?;
    put_i64(
        &mut out,
        value
            .current_state_timestamp
            .map_or(i64::from(ABSENT), TimestampMs::get),
    );
    put_len32(&mut out, value.members.len())?;
    for member in &value.members {
        put_string(&mut out, &member.member_id)?;
        put_nullable_string(&mut out, member.group_instance_id.as_deref())?;
        put_string(&mut out, &member.client_id)?;
        put_string(&mut out, &member.client_host)?;
        put_i32(&mut out, member.rebalance_timeout_ms);
        put_i32(&mut out, member.session_timeout_ms);
        put_bytes(&mut out, &member.subscription)?;
        put_bytes(&mut out, &member.assignment)?;
    }
    Ok(out.into())
}

/// Reads a key of any version.
///
/// # Errors
/// [`InvalidRecord`] for an unknown version, or a field that does not fit.
pub fn read_key(bytes: &[u8]) -> Result<RecordKey, InvalidRecord> {
    let mut fields = Fields::new("key of __consumer_offsets", bytes);
    match fields.i16()? {
        0 | 1 => {
            let group_id = fields.string()?;
            let topic = fields.string()?;
            let partition = fields.i32()?;
            Ok(RecordKey::Offset {
                group_id,
                partition: TopicPartition { topic, partition },
            })
        }
        2 => Ok(RecordKey::Group {
            group_id: fields.string()?,
        }),
        version => Err(fields.unknown_version(version, "version 0, 1 or 2")),
    }
}

/// Reads the value of a committed offset, of any version.
///
/// # Errors
/// As [`read_key`].
pub fn read_offset_value(bytes: &[u8]) -> Result<OffsetAndMetadata, InvalidRecord> {
    let mut fields = Fields::new("committed offset", bytes);
    let version = fields.i16()?;
    if !(0..=3).contains(&version) {
        return Err(fields.unknown_version(version, "version 0 to 3"));
    }
    let offset = Offset(fields.i64()?);
    let leader_epoch = if version == 3 {
        Some(fields.i32()?).filter(|epoch| *epoch >= 0)
    } else {
        None
    };
    let metadata = fields.str()?.into();
    let commit_timestamp = TimestampMs(fields.i64()?);
    let expire_timestamp = if version == 1 {
        Some(TimestampMs(fields.i64()?)).filter(|at| at.get() != i64::from(ABSENT))
    } else {
        None
    };
    Ok(OffsetAndMetadata {
        offset,
        leader_epoch,
        metadata,
        commit_timestamp,
        expire_timestamp,
    })
}

/// Reads the value of a group, of any version.
///
/// # Errors
/// As [`read_key`]; also if members are there without a protocol.
pub fn read_group_value(bytes: &[u8]) -> Result<GroupMetadataValue, InvalidRecord> {
    let mut fields = Fields::new("group metadata", bytes);
    let version = fields.i16()?;
    if !(0..=GROUP_VALUE_VERSION).contains(&version) {
        return Err(fields.unknown_version(version, "version 0 to 3"));
    }
    let protocol_type = fields.string()?;
    let generation_id = fields.i32()?;
    let protocol_name = fields.nullable_string()?;
    let leader_id = fields.nullable_string()?;
    let current_state_timestamp = if version >= 2 {
        Some(TimestampMs(fields.i64()?)).filter(|at| at.get() != i64::from(ABSENT))
    } else {
        None
    };
    let count = fields.i32()?;
    if count < 0 {
        return Err(fields.invalid("a member count of 0 or more", count.to_string()));
    }
    if count > 0 && protocol_name.is_none() {
        return Err(fields.invalid(
            "no members where the protocol is null",
            format!("{count} members"),
        ));
    }
    let mut members = Vec::new();
    for _ in 0..count {
        let member_id = fields.string()?;
        let group_instance_id = if version >= 3 {
            fields.nullable_string()?
        } else {
            None
        };
        let client_id = fields.string()?;
        let client_host = fields.string()?;
        let rebalance_timeout_ms = if version >= 1 { Some(fields.i32()?) } else { None };
        let session_timeout_ms = fields.i32()?;
        let subscription = fields.bytes()?;
        let assignment = fields.bytes()?;
        members.push(MemberValue {
            member_id,
            group_instance_id,
            client_id,
            client_host,
            rebalance_timeout_ms: rebalance_timeout_ms.unwrap_or(session_timeout_ms),
            session_timeout_ms,
            subscription,
            assignment,
        });
    }
    Ok(GroupMetadataValue {
        protocol_type,
        generation_id,
        protocol_name,
        leader_id,
        current_state_timestamp,
        members,
    })
}

fn put_i16(out: &mut Vec<u8>, value: i16) {
    out.extend_from_slice(&value.to_be_bytes());
}

fn put_i32(out: &mut Vec<u8>, value: i32) {
    out.extend_from_slice(&value.to_be_bytes());
}

fn put_i64(out: &mut Vec<u8>, value: i64) {
    out.extend_from_slice(&value.to_be_bytes());
}

fn put_len32(out: &mut Vec<u8>, size: usize) -> Result<(), FieldTooLong> {
    put_i32(
        out,
        i32::try_from(size).map_err(|_| FieldTooLong { size_bytes: size })?,
    );
    Ok(())
}

fn put_string(out: &mut Vec<u8>, value: &str) -> Result<(), FieldTooLong> {
    put_i16(
        out,
        i16::try_from(value.len()).map_err(|_| FieldTooLong {
            size_bytes: value.len(),
        })?,
    );
    out.extend_from_slice(value.as_bytes());
    Ok(())
}

fn put_nullable_string(out: &mut Vec<u8>, value: Option<&str>) -> Result<(), FieldTooLong> {
    match value {
        Some(value) => put_string(out, value),
        None => {
            put_i16(out, -1);
            Ok(())
        }
    }
}

fn put_bytes(out: &mut Vec<u8>, value: &[u8]) -> Result<(), FieldTooLong> {
    put_len32(out, value.len())?;
    out.extend_from_slice(value);
    Ok(())
}

/// Reads the fields of one key or value in order.
pub(super) struct Fields<'a> {
    what: &'static str,
    bytes: &'a [u8],
    position: usize,
}

impl<'a> Fields<'a> {
    pub(super) fn new(what: &'static str, bytes: &'a [u8]) -> Fields<'a> {
        Fields {
            what,
            bytes,
            position: 0,
        }
    }

    pub(super) fn invalid(&self, expected: &'static str, found: String) -> InvalidRecord {
        InvalidRecord {
            what: self.what,
            position: self.position,
            expected,
            found,
        }
    }

    pub(super) fn unknown_version(&self, version: i16, expected: &'static str) -> InvalidRecord {
        InvalidRecord {
            what: self.what,
            position: 0,
            expected,
            found: format!("version {version}"),
        }
    }

    fn take(&mut self, size: usize, expected: &'static str) -> Result<&'a [u8], InvalidRecord> {
        let rest = &self.bytes[self.position..];
        match rest.get(..size) {
            Some(field) => {
                self.position += size;
                Ok(field)
            }
            None => Err(self.invalid(expected, format!("{size} bytes needed, {} left", rest.len()))),
        }
    }

    fn array<const N: usize>(&mut self, expected: &'static str) -> Result<[u8; N], InvalidRecord> {
        let field = self.take(N, expected)?;
        Ok(field.try_into().expect("take returns exactly N bytes"))
    }

    pub(super) fn i16(&mut self) -> Result<i16, InvalidRecord> {
        Ok(i16::from_be_bytes(self.array("an int16")?))
    }

    pub(super) fn i32(&mut self) -> Result<i32, InvalidRecord> {
        Ok(i32::from_be_bytes(self.array("an int32")?))
    }

    fn i64(&mut self) -> Result<i64, InvalidRecord> {
        Ok(i64::from_be_bytes(self.array("an int64")?))
    }

    /// What is not UTF-8 becomes U+FFFD, as in Java.
    fn text(&mut self, size: usize) -> Result<Cow<'a, str>, InvalidRecord> {
        Ok(String::from_utf8_lossy(self.take(size, "a string")?))
    }

    pub(super) fn str(&mut self) -> Result<Cow<'a, str>, InvalidRecord> {
        let size = self.i16()?;
        match usize::try_from(size) {
            Ok(size) => self.text(size),
            Err(_) => Err(self.invalid("a string", format!("length {size}"))),
        }
    }

    pub(super) fn string(&mut self) -> Result<Arc<str>, InvalidRecord> {
        Ok(self.str()?.into())
    }

    fn nullable_string(&mut self) -> Result<Option<Arc<str>>, InvalidRecord> {
        let size = self.i16()?;
        match usize::try_from(size) {
            Ok(size) => Ok(Some(self.text(size)?.into())),
            Err(_) => Ok(None),
        }
    }

    fn bytes(&mut self) -> Result<Bytes, InvalidRecord> {
        let size = self.i32()?;
        match usize::try_from(size) {
            Ok(size) => Ok(Bytes::copy_from_slice(self.take(size, "bytes")?)),
            Err(_) => Err(self.invalid("bytes", format!("length {size}"))),
        }
    }

    /// Bytes that may be null, skipped.
    pub(super) fn skip_nullable_bytes(&mut self) -> Result<(), InvalidRecord> {
        if let Ok(size) = usize::try_from(self.i32()?) {
            self.take(size, "bytes")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
