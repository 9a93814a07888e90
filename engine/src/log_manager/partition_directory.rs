//! Names of the directories inside a log directory: `topic-partition`, and the same with a suffix while it is
//! deleted or moved.
//!
//! | name | meaning |
//! |---|---|
//! | `orders-3` | partition 3 of topic `orders` |
//! | `orders-3.<32 hex digits>-delete` | deleted, its files not yet removed |
//! | `orders-3.<32 hex digits>-future` | being moved here from another log directory (JBOD) |
//!
//! Anything else is unknown, and a broker that finds it does not start: it may be someone's data.
//! Source: `Log.scala` (`parseTopicPartitionName`, `logDeleteDirName`, `logFutureDirName`), `Topic.java`.
//!
//! **Deviation:** Kafka also takes `orders-03`, `orders-+3` and topics that it would not create (`my dir-0`)
//! for partitions. Here only the name that the partition itself would get is one, since the log is later
//! found by that name.

use crate::units::TopicPartition;

const DELETE_SUFFIX: &str = "-delete";
const FUTURE_SUFFIX: &str = "-future";
/// `NAME_MAX` of Linux file systems, in bytes.
const NAME_SIZE_MAX: usize = 255;
/// `Topic.MAX_NAME_LENGTH`.
const TOPIC_SIZE_MAX: usize = 249;

/// What the name of a directory says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PartitionDirectoryName {
    Current(TopicPartition),
    /// The topic may be cut at its end, so that the partition is not to be trusted.
    Deleted,
    Future(TopicPartition),
}

impl PartitionDirectoryName {
    /// `None` for a name that no broker gives.
    pub fn parse(name: &str) -> Option<PartitionDirectoryName> {
        if let Some(rest) = name.strip_suffix(DELETE_SUFFIX) {
            let (front, unique) = rest.rsplit_once('.')?;
            let (topic, partition) = front.rsplit_once('-')?;
            let written = |part: &str| !part.is_empty() && !part.contains(char::is_whitespace);
            return [topic, partition, unique]
                .iter()
                .all(|part| written(part))
                .then_some(Self::Deleted);
        }
        if let Some(rest) = name.strip_suffix(FUTURE_SUFFIX) {
            let (front, unique) = rest.rsplit_once('.')?;
            let written = !unique.is_empty() && !unique.contains(char::is_whitespace);
            return written.then(|| parse_current(front).map(Self::Future)).flatten();
        }
        parse_current(name).map(Self::Current)
    }

    /// The name of a live partition's directory.
    pub(super) fn current(partition: &TopicPartition) -> String {
        partition.to_string()
    }

    /// Whether a partition can move to another log directory: the name that it has meanwhile must fit a file system.
    pub fn fits_future(partition: &TopicPartition) -> bool {
        PartitionDirectoryName::future(partition, [0; 16]).len() <= NAME_SIZE_MAX
    }

    /// A fresh name for a partition that is to lie there; `unique` is random.
    pub(super) fn future(partition: &TopicPartition, unique: [u8; 16]) -> String {
        format!(
            "{}{}",
            partition.topic,
            unique_suffix(partition, unique, FUTURE_SUFFIX)
        )
    }

    /// A fresh name for a partition that is to be deleted; `unique` is random. A topic that would make the
    /// name longer than a file system allows is cut.
    pub(super) fn deleted(partition: &TopicPartition, unique: [u8; 16]) -> String {
        let suffix = unique_suffix(partition, unique, DELETE_SUFFIX);
        let topic: String = partition
            .topic
            .chars()
            .take(NAME_SIZE_MAX - suffix.len())
            .collect();
        topic + &suffix
    }
}

fn unique_suffix(partition: &TopicPartition, unique: [u8; 16], ending: &str) -> String {
    use std::fmt::Write;
    let mut suffix = format!("-{}.", partition.partition);
    for byte in unique {
        write!(suffix, "{byte:02x}").expect("writing to a String succeeds");
    }
    suffix + ending
}

fn parse_current(name: &str) -> Option<TopicPartition> {
    let (topic, digits) = name.rsplit_once('-')?;
    let partition: i32 = digits.parse().ok()?;
    let canonical = partition >= 0 && partition.to_string() == digits;
    (canonical && is_topic_name(topic)).then(|| TopicPartition::new(topic, partition))
}

fn is_topic_name(topic: &str) -> bool {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    !topic.is_empty()
        && topic.len() <= TOPIC_SIZE_MAX
        && topic != "."
        && topic != ".."
        && topic.bytes().all(legal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_a_partition_a_deleted_or_future_one_or_unknown() {
        for (name, kind) in [
            ("t-0", "t-0"),
            ("a-b.c_d-12", "a-b.c_d-12"),
            ("__consumer_offsets-49", "__consumer_offsets-49"),
            ("t--1", "t--1"),
            ("x-delete-3", "x-delete-3"),
            ("t-0.0123456789abcdef0123456789abcdef-delete", "deleted"),
            ("t-0.0123456789abcdef0123456789abcdef-future", "future t-0"),
            ("t-0-delete", "unknown"),
            ("t-0.-delete", "unknown"),
            ("t 0.ab-delete", "unknown"),
            ("t-0-future", "unknown"),
            ("t.ab-future", "unknown"),
            ("t-delete", "unknown"),
            ("t-03", "unknown"),
            ("t-+3", "unknown"),
            ("t-99999999999", "unknown"),
            ("t-", "unknown"),
            ("-0", "unknown"),
            ("..-0", "unknown"),
            ("my dir-0", "unknown"),
            ("lost+found", "unknown"),
            ("backup", "unknown"),
            ("t-0.bak", "unknown"),
            ("é-0", "unknown"),
        ] {
            let found = match PartitionDirectoryName::parse(name) {
                Some(PartitionDirectoryName::Current(partition)) => partition.to_string(),
                Some(PartitionDirectoryName::Deleted) => "deleted".to_owned(),
                Some(PartitionDirectoryName::Future(partition)) => format!("future {partition}"),
                None => "unknown".to_owned(),
            };
            assert_eq!(found, kind, "{name}");
        }
    }

    #[test]
    fn the_name_of_a_deleted_partition_fits_a_file_system_and_is_read_back_as_deleted() {
        for topic in [
            "t".to_owned(),
            "x".repeat(213),
            "x".repeat(214),
            "x".repeat(TOPIC_SIZE_MAX),
        ] {
            let name = PartitionDirectoryName::deleted(&TopicPartition::new(topic.clone(), 7), [0xab; 16]);
            assert!(name.len() <= NAME_SIZE_MAX, "{} bytes", name.len());
            assert!(
                name.ends_with(&format!("-7.{}-delete", "ab".repeat(16))),
                "{name}"
            );
            assert_eq!(
                PartitionDirectoryName::parse(&name),
                Some(PartitionDirectoryName::Deleted)
            );
        }
    }

    #[test]
    fn a_partition_that_can_move_is_read_back_from_its_name_meanwhile() {
        for (size, fits) in [(1, true), (213, true), (214, false), (TOPIC_SIZE_MAX, false)] {
            let partition = TopicPartition::new("x".repeat(size), 7);
            assert_eq!(PartitionDirectoryName::fits_future(&partition), fits, "{size}");
            let name = PartitionDirectoryName::future(&partition, [0xab; 16]);
            let read = PartitionDirectoryName::parse(&name);
            assert_eq!(read, Some(PartitionDirectoryName::Future(partition)));
        }
    }
}
