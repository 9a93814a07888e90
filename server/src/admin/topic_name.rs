//! Which topics are Kafka's own, and which two names would collide in the names of metrics.
//!
//! Source class: `org.apache.kafka.common.internals.Topic`.

pub use crate::group::GROUP_METADATA_TOPIC_NAME as CONSUMER_OFFSETS;

/// Where transactions are kept.
pub const TRANSACTION_STATE: &str = "__transaction_state";

/// Whether it is one of Kafka's own topics.
pub fn is_internal(topic: &str) -> bool {
    topic == CONSUMER_OFFSETS || topic == TRANSACTION_STATE
}

/// Whether the name has characters that metrics do not tell apart.
pub fn has_collision_characters(topic: &str) -> bool {
    topic.contains(['.', '_'])
}

/// Whether the two names are the same but for `.` and `_`.
pub fn collide(one: &str, other: &str) -> bool {
    let same = |(a, b): (u8, u8)| a == b || matches!((a, b), (b'.', b'_') | (b'_', b'.'));
    one.len() == other.len() && one.bytes().zip(other.bytes()).all(same)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_differ_in_dots_and_underscores_collide() {
        for (one, other, expected) in [
            ("a.b", "a_b", true),
            ("a.b", "a.b", true),
            ("a.b", "a-b", false),
            ("a.b", "a.bc", false),
        ] {
            assert_eq!(collide(one, other), expected, "{one} {other}");
        }
        assert!(has_collision_characters("a.b") && !has_collision_characters("ab-c"));
    }

    #[test]
    fn two_topics_are_kafkas_own() {
        assert!(is_internal("__consumer_offsets") && is_internal("__transaction_state"));
        assert!(!is_internal("__mine"));
    }
}
