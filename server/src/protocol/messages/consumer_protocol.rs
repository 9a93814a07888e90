//! The bytes that consumers hand each other through `JoinGroup` and `SyncGroup`: what a member subscribes to,
//! and what the leader gives it. A broker need not read them, and looks only to see which topics a group
//! uses.
//!
//! Both begin with an int16 version. 0 has topics and user data; 1 adds to the subscription the partitions
//! that the member owns (KIP-429). A version above those known is read as the newest known one, whose fields
//! it begins with; the bytes behind them are not looked at. Sources: `ConsumerProtocolSubscription.json`,
//! `ConsumerProtocolAssignment.json`, `ConsumerProtocol.java`.

use std::borrow::Cow;

use crate::protocol::primitives::{DecodeError, EncodeError, EncodeProblem, Problem, Reader, Writer};
use crate::protocol::schema::{Array, Encoding, VersionRange, WireType, message};

message! {
    /// What a consumer wants to read.
    pub struct ConsumerProtocolSubscription<'a> (no key, versions 0..=1) {
        topics: Array<'a, Cow<'a, str>> [0..],
        /// Opaque to everyone but the assignor.
        user_data: Option<Cow<'a, [u8]>> [0..],
        /// What it reads already.
        owned_partitions: Array<'a, TopicPartition<'a>> [1.., ignorable],
    }
}

message! {
    /// What a consumer is to read.
    pub struct ConsumerProtocolAssignment<'a> (no key, versions 0..=1) {
        assigned_partitions: Array<'a, TopicPartition<'a>> [0..],
        /// Opaque to everyone but the assignor.
        user_data: Option<Cow<'a, [u8]>> [0..],
    }
}

message! {
    /// Partitions of one topic.
    pub struct TopicPartition<'a> {
        topic: Cow<'a, str> [0..],
        partitions: Array<'a, i32> [0..],
    }
}

impl<'a> ConsumerProtocolSubscription<'a> {
    /// Reads version and fields.
    ///
    /// # Errors
    /// [`DecodeError`] when the bytes are not a subscription, as those of other protocol types are not.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        decode(bytes, Self::VERSIONS, Self::SCHEMA.name)
    }

    /// Writes version and fields.
    ///
    /// # Errors
    /// [`EncodeError`] when a name is too long, or the version does not exist.
    pub fn encode(&self, writer: &mut Writer, version: i16) -> Result<(), EncodeError> {
        encode(self, writer, version, Self::VERSIONS, Self::SCHEMA.name)
    }
}

impl<'a> ConsumerProtocolAssignment<'a> {
    /// Reads version and fields.
    ///
    /// # Errors
    /// [`DecodeError`] when the bytes are not an assignment, as those of other protocol types are not.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        decode(bytes, Self::VERSIONS, Self::SCHEMA.name)
    }

    /// Writes version and fields.
    ///
    /// # Errors
    /// [`EncodeError`] when a name is too long, or the version does not exist.
    pub fn encode(&self, writer: &mut Writer, version: i16) -> Result<(), EncodeError> {
        encode(self, writer, version, Self::VERSIONS, Self::SCHEMA.name)
    }
}

fn decode<'a, T: WireType<'a>>(
    bytes: &'a [u8],
    versions: VersionRange,
    name: &'static str,
) -> Result<T, DecodeError> {
    let mut reader = Reader::new(bytes);
    let version = reader.i16().map_err(|e| e.within(name, "(version)"))?;
    if version < versions.first {
        let problem = Problem::UnsupportedVersion {
            version,
            min: versions.first,
            max: i16::MAX,
        };
        return Err(Reader::failure(0, problem).within(name, "(version)"));
    }
    T::read(
        &mut reader,
        Encoding {
            version: version.min(versions.last),
            flexible: false,
        },
    )
}

fn encode<'a, T: WireType<'a>>(
    value: &T,
    writer: &mut Writer,
    version: i16,
    versions: VersionRange,
    name: &'static str,
) -> Result<(), EncodeError> {
    if !versions.contains(version) {
        let problem = EncodeProblem::UnsupportedVersion {
            min: versions.first,
            max: versions.last,
        };
        return Err(EncodeError::nameless(version, problem).within(name, "(version)"));
    }
    writer.i16(version);
    value.write(
        writer,
        Encoding {
            version,
            flexible: false,
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subscription_of_a_newer_version_is_read_as_the_newest_known_one() {
        let subscription = ConsumerProtocolSubscription {
            topics: vec![Cow::Borrowed("a"), Cow::Borrowed("b")].into(),
            user_data: None,
            owned_partitions: vec![TopicPartition {
                topic: "a".into(),
                partitions: vec![0, 3].into(),
            }]
            .into(),
        };
        let mut writer = Writer::new();
        subscription.encode(&mut writer, 1).unwrap();
        let mut bytes = writer.as_slice().to_vec();
        bytes[1] = 9;
        bytes.extend_from_slice(b"what version 9 adds");
        assert_eq!(
            ConsumerProtocolSubscription::decode(&bytes).unwrap(),
            subscription
        );
    }

    #[test]
    fn an_assignment_survives_its_encoding_and_a_negative_version_is_refused() {
        let assignment = ConsumerProtocolAssignment {
            assigned_partitions: vec![TopicPartition {
                topic: "t".into(),
                partitions: vec![7].into(),
            }]
            .into(),
            user_data: Some(Cow::Borrowed(&[1, 2])),
        };
        let mut writer = Writer::new();
        assignment.encode(&mut writer, 0).unwrap();
        assert_eq!(
            ConsumerProtocolAssignment::decode(writer.as_slice()).unwrap(),
            assignment
        );
        assert!(ConsumerProtocolAssignment::decode(&[0xff, 0xff]).is_err());
        assert!(ConsumerProtocolAssignment::decode(&[0]).is_err());
        assert!(assignment.encode(&mut writer, 2).is_err());
    }
}
