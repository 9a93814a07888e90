//! The topics a consumer is subscribed to, read from its opaque protocol metadata.
//!
//! The coordinator needs them for two things only: not to expire, and not to let anyone delete, offsets of a topic that the
//! group consumes. It reads the version 0 prefix that every version begins with, so a newer client is understood too.
//! Source: `ConsumerProtocol.deserializeSubscription` with version 0, `GroupMetadata.computeSubscribedTopics`.

use std::sync::Arc;

use super::records::{Fields, InvalidRecord};

/// The protocol type of consumers; other types (Connect) have metadata of their own.
pub const CONSUMER_PROTOCOL_TYPE: &str = "consumer";

/// Reads the subscribed topics of one member.
///
/// # Errors
/// [`InvalidRecord`] if the metadata is not a consumer subscription.
pub fn subscribed_topics(metadata: &[u8]) -> Result<Vec<Arc<str>>, InvalidRecord> {
    let mut fields = Fields::new("consumer subscription", metadata);
    let version = fields.i16()?;
    if version < 0 {
        return Err(fields.unknown_version(version, "version 0 or later"));
    }
    let count = fields.i32()?;
    if count < 0 {
        return Err(fields.invalid("a topic count of 0 or more", count.to_string()));
    }
    let mut topics = Vec::new();
    for _ in 0..count {
        topics.push(fields.string()?);
    }
    fields.skip_nullable_bytes()?;
    Ok(topics)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Version 1 of the Java client: topics `a`, `bc`, user data null, owned partitions none.
    const VERSION_1: &[u8] = &[
        0, 1, 0, 0, 0, 2, 0, 1, b'a', 0, 2, b'b', b'c', 255, 255, 255, 255, 0, 0, 0, 0,
    ];

    #[test]
    fn a_newer_subscription_is_read_by_its_version_0_prefix() {
        let topics = subscribed_topics(VERSION_1).expect("a subscription");
        assert_eq!(topics, [Arc::from("a"), Arc::from("bc")]);
    }

    #[test]
    fn a_cut_or_forged_subscription_is_an_error() {
        for size in 0..VERSION_1.len() - 4 {
            assert!(subscribed_topics(&VERSION_1[..size]).is_err(), "{size} bytes");
        }
        assert!(subscribed_topics(&[0, 0, 127, 255, 255, 255]).is_err());
        assert!(subscribed_topics(&[255, 255, 0, 0, 0, 0, 255, 255, 255, 255]).is_err());
    }
}
