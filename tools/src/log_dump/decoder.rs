//! What keys and values of records say, in the words of Kafka's tool.
//!
//! The decoders of `kafka.serializer`, under Kafka's class names, and those of the two internal topics. Source:
//! `Decoder.scala`, `GroupMetadataManager.formatRecordKeyAndValue`, `TransactionLog.formatRecordKeyAndValue`.
//!
//! **Deviation:** `DefaultDecoder` prints the bytes in hexadecimal, where Kafka prints the address of an array. Classes of
//! one's own cannot be loaded; they are refused by name.

use std::fmt::Write;

use data_encoding::BASE64;
use milena_server::group::records::{
    GroupMetadataValue, RecordKey, java_hash, read_group_value, read_key, read_offset_value,
};
use milena_server::protocol::messages::consumer_protocol::ConsumerProtocolAssignment;
use serde::Serialize;

use super::java_text::java_text;
use super::scala_order::iteration_order;
use super::transaction_record::{self, Transaction};

/// Of a key or a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decoder {
    Bytes,
    Text,
    Integer,
    Long,
}

impl Decoder {
    /// By the name of Kafka's class, with or without its package, or of the deserializer of the same type.
    pub(super) fn from_class(name: &str) -> Result<Decoder, String> {
        let class = name.rsplit('.').next().unwrap_or(name);
        let class = class
            .strip_suffix("Decoder")
            .or_else(|| class.strip_suffix("Deserializer"))
            .unwrap_or(class);
        match class {
            "Default" | "ByteArray" => Ok(Decoder::Bytes),
            "String" => Ok(Decoder::Text),
            "Integer" => Ok(Decoder::Integer),
            "Long" => Ok(Decoder::Long),
            _ => Err(format!(
                "found {name:?}, expected kafka.serializer.StringDecoder, IntegerDecoder, LongDecoder or DefaultDecoder"
            )),
        }
    }

    /// Of a decoder of numbers; `None` where there are too few bytes for one.
    pub(super) fn number(self, bytes: &[u8]) -> Option<i64> {
        match self {
            Decoder::Bytes | Decoder::Text => None,
            Decoder::Integer => Some(i32::from_be_bytes(*bytes.first_chunk()?).into()),
            Decoder::Long => Some(i64::from_be_bytes(*bytes.first_chunk()?)),
        }
    }

    fn decode(self, bytes: &[u8]) -> Result<String, String> {
        let short = |needed| format!("found {} bytes, expected {needed}", bytes.len());
        match self {
            Decoder::Text => Ok(java_text(bytes)),
            Decoder::Bytes => Ok(hex(bytes)),
            Decoder::Integer | Decoder::Long => match self.number(bytes) {
                Some(number) => Ok(number.to_string()),
                None if self == Decoder::Integer => Err(short("an integer of 4")),
                None => Err(short("a long of 8")),
            },
        }
    }
}

/// How the records of a file are to be understood.
#[derive(Debug)]
pub(super) enum MessageParser {
    Decoders {
        key: Decoder,
        value: Decoder,
    },
    /// `__consumer_offsets`
    Offsets,
    /// `__transaction_state`
    Transactions,
}

const NO_OFFSETS_KEY: &str = "a record of __consumer_offsets without a key";
const NO_TRANSACTION_KEY: &str = "a record of __transaction_state without a key";

impl MessageParser {
    /// The fields of a record of an internal topic; `None` for another.
    ///
    /// # Errors
    /// As [`MessageParser::parse`].
    pub(super) fn decoded(
        &self,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
    ) -> Result<Option<Decoded>, String> {
        match self {
            // Each can be in JSON as it is, unless it is too short for its number.
            MessageParser::Decoders { .. } => self.parse(key, value).map(|_| None),
            MessageParser::Offsets => decoded_offsets(key.ok_or(NO_OFFSETS_KEY)?, value).map(Some),
            MessageParser::Transactions => {
                let (transactional_id, value) =
                    transaction_record::read(key.ok_or(NO_TRANSACTION_KEY)?, value)?;
                Ok(Some(Decoded::TransactionMetadata {
                    transactional_id,
                    value,
                }))
            }
        }
    }

    /// Key and payload as printed; `None` where nothing is.
    ///
    /// # Errors
    /// Why the record is not what it should be.
    pub(super) fn parse(
        &self,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
    ) -> Result<(Option<String>, Option<String>), String> {
        match self {
            MessageParser::Decoders {
                key: of_key,
                value: of_value,
            } => Ok((
                key.map(|key| of_key.decode(key)).transpose()?,
                value.map(|value| of_value.decode(value)).transpose()?,
            )),
            MessageParser::Offsets => {
                let key = key.ok_or(NO_OFFSETS_KEY)?;
                offsets(key, value).map(|(key, payload)| (Some(key), Some(payload)))
            }
            MessageParser::Transactions => {
                let key = key.ok_or(NO_TRANSACTION_KEY)?;
                transaction_record::format(key, value).map(|(key, payload)| (Some(key), Some(payload)))
            }
        }
    }
}

/// A record of an internal topic, field by field; a tombstone has no `value`.
#[derive(Debug, Serialize)]
#[serde(tag = "kind", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub(super) enum Decoded {
    OffsetCommit {
        group: String,
        topic: String,
        partition: i32,
        value: Option<CommittedOffset>,
    },
    GroupMetadata {
        group: String,
        value: Option<Group>,
    },
    TransactionMetadata {
        transactional_id: String,
        value: Option<Transaction>,
    },
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct CommittedOffset {
    offset: i64,
    leader_epoch: Option<i32>,
    metadata: String,
    commit_timestamp: i64,
    expire_timestamp: Option<i64>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Group {
    protocol_type: String,
    protocol: Option<String>,
    generation_id: i32,
    leader: Option<String>,
    current_state_timestamp: Option<i64>,
    members: Vec<Member>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Member {
    member_id: String,
    group_instance_id: Option<String>,
    client_id: String,
    client_host: String,
    rebalance_timeout_ms: i32,
    session_timeout_ms: i32,
    /// `topic-partition`; absent for groups of another protocol than the consumers'.
    #[serde(skip_serializing_if = "Option::is_none")]
    assignment: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    assignment_base64: Option<String>,
}

/// # Errors
/// As [`MessageParser::parse`].
fn decoded_offsets(key: &[u8], value: Option<&[u8]>) -> Result<Decoded, String> {
    let text = |text: &str| text.to_owned();
    Ok(match read_key(key).map_err(|error| error.to_string())? {
        RecordKey::Offset { group_id, partition } => {
            let value = value.map(read_offset_value).transpose();
            let value = value.map_err(|error| error.to_string())?;
            Decoded::OffsetCommit {
                group: text(&group_id),
                topic: text(&partition.topic),
                partition: partition.partition,
                value: value.map(|value| CommittedOffset {
                    offset: value.offset.get(),
                    leader_epoch: value.leader_epoch,
                    metadata: value.metadata.into_string(),
                    commit_timestamp: value.commit_timestamp.get(),
                    expire_timestamp: value.expire_timestamp.map(|at| at.get()),
                }),
            }
        }
        RecordKey::Group { group_id } => {
            let value = value.map(read_group_value).transpose();
            let value = value.map_err(|error| error.to_string())?;
            Decoded::GroupMetadata {
                group: text(&group_id),
                value: value.map(decoded_group).transpose()?,
            }
        }
    })
}

fn decoded_group(group: GroupMetadataValue) -> Result<Group, String> {
    let text = |text: Option<std::sync::Arc<str>>| text.map(|text| (*text).to_owned());
    let is_consumer = &*group.protocol_type == "consumer";
    let members = group.members.into_iter().map(|member| {
        let (assignment, assignment_base64) = if is_consumer {
            (Some(assigned(&member.assignment)?.0), None)
        } else {
            (None, Some(BASE64.encode(&member.assignment)))
        };
        Ok(Member {
            member_id: (*member.member_id).to_owned(),
            group_instance_id: text(member.group_instance_id),
            client_id: (*member.client_id).to_owned(),
            client_host: (*member.client_host).to_owned(),
            rebalance_timeout_ms: member.rebalance_timeout_ms,
            session_timeout_ms: member.session_timeout_ms,
            assignment,
            assignment_base64,
        })
    });
    Ok(Group {
        protocol_type: (*group.protocol_type).to_owned(),
        protocol: text(group.protocol_name),
        generation_id: group.generation_id,
        leader: text(group.leader_id),
        current_state_timestamp: group.current_state_timestamp.map(|at| at.get()),
        members: members.collect::<Result<_, String>>()?,
    })
}

/// The value of a tombstone.
pub(super) const DELETED: &str = "<DELETE>";

fn offsets(key: &[u8], value: Option<&[u8]>) -> Result<(String, String), String> {
    let told = |error: &dyn std::fmt::Display| error.to_string();
    match read_key(key).map_err(|error| told(&error))? {
        RecordKey::Offset { group_id, partition } => {
            let key = format!("offset_commit::group={group_id},partition={partition}");
            let Some(value) = value else {
                return Ok((key, DELETED.to_owned()));
            };
            let value = read_offset_value(value).map_err(|error| told(&error))?;
            let mut payload = format!("offset={}", value.offset);
            if !value.metadata.is_empty() {
                let _ = write!(payload, ",metadata={}", value.metadata);
            }
            Ok((key, payload))
        }
        RecordKey::Group { group_id } => {
            let key = format!("group_metadata::group={group_id}");
            let Some(value) = value else {
                return Ok((key, DELETED.to_owned()));
            };
            Ok((key, group(value)?))
        }
    }
}

/// A group in the JSON of `GroupMetadataManager.parseGroupMetadata`.
fn group(value: &[u8]) -> Result<String, String> {
    let group = read_group_value(value).map_err(|error| error.to_string())?;
    let is_consumer = &*group.protocol_type == "consumer";
    let hashes: Vec<_> = group
        .members
        .iter()
        .map(|member| java_hash(&member.member_id))
        .collect();
    let mut members = Vec::new();
    for index in iteration_order(&hashes) {
        let member = &group.members[index];
        let assignment = if is_consumer {
            assignment(&member.assignment)?
        } else {
            number_in_hex(&member.assignment)
        };
        members.push(format!("{}={assignment}", member.member_id));
    }
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    Ok(format!(
        "{{\"protocolType\":{},\"protocol\":{},\"generationId\":{},\"assignment\":{}}}",
        quoted(&group.protocol_type),
        group
            .protocol_name
            .as_deref()
            .map_or_else(|| "null".to_owned(), quoted),
        group.generation_id,
        quoted(&format!("{{{}}}", members.join(",")))
    ))
}

/// The partitions that a member was given, and the user data behind them.
fn assignment(bytes: &[u8]) -> Result<String, String> {
    let (partitions, data) = assigned(bytes)?;
    let mut text = format!("[{}]", partitions.join(", "));
    if let Some(data) = data.filter(|data| !data.is_empty()) {
        text.push(':');
        text.push_str(&number_in_hex(&data));
    }
    Ok(text)
}

fn assigned(bytes: &[u8]) -> Result<(Vec<String>, Option<Vec<u8>>), String> {
    let assignment = ConsumerProtocolAssignment::decode(bytes).map_err(|error| error.to_string())?;
    let mut partitions = Vec::new();
    for topic in assignment.assigned_partitions.iter() {
        partitions.extend(
            topic
                .partitions
                .iter()
                .map(|partition| format!("{}-{partition}", topic.topic)),
        );
    }
    Ok((partitions, assignment.user_data.map(Into::into)))
}

/// Two digits a byte.
fn hex(bytes: &[u8]) -> String {
    let digits = String::with_capacity(2 * bytes.len());
    bytes.iter().fold(digits, |mut text, byte| {
        let _ = write!(text, "{byte:02X}");
        text
    })
}

/// The same as a number, as `BigInt(1, bytes)` prints it: leading zeros are none.
fn number_in_hex(bytes: &[u8]) -> String {
    let digits = hex(bytes);
    match digits.trim_start_matches('0') {
        "" if !bytes.is_empty() => "0".to_owned(),
        digits => digits.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_keep_their_zeros_and_user_data_are_a_number() {
        let bytes = [0, 1, 0xab];
        assert_eq!(Decoder::Bytes.decode(&bytes), Ok("0001AB".to_owned()));
        assert_eq!(number_in_hex(&bytes), "1AB");
        assert_eq!(
            (number_in_hex(&[0, 0]), number_in_hex(&[])),
            ("0".to_owned(), String::new())
        );
    }
}
