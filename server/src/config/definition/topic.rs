//! Definitions: the settings of a topic (`LogConfig.scala`), each with the broker setting it falls back to.
//!
//! Names, types, defaults and limits are Kafka 2.7.2's (`LogConfig.scala`); the sentences and the effect are
//! ours. One row: name, type, default, limits, importance, the broker setting that stands in, effect;
//! sentence.

use super::*;

topic_rows! {
    TOPIC;

    "segment.bytes": Int = "1073741824", at_least(14), Medium, "log.segment.bytes", Served;
        "Size at which a segment is closed and the next begun, in bytes.";
    "segment.ms": Long = "604800000", at_least(1), Medium, "log.roll.ms", Served;
        "Age at which a segment is closed even if it is not full, in milliseconds.";
    "segment.jitter.ms": Long = "0", at_least(0), Medium, "log.roll.jitter.ms", Served;
        "Most that chance takes off segment.ms, so that segments do not roll at once.";
    "segment.index.bytes": Int = "10485760", at_least(0), Medium, "log.index.size.max.bytes", Served;
        "Largest offset index, in bytes.";
    "flush.messages": Long = "9223372036854775807", at_least(0), Medium, "log.flush.interval.messages",
        Served;
        "Records after which the log is synced; 1 syncs before each acknowledgement.";
    "flush.ms": Long = "9223372036854775807", at_least(0), Medium, "log.flush.interval.ms", Served;
        "Longest time that records stay unsynced, in milliseconds.";
    "retention.bytes": Long = "-1", ANY, Medium, "log.retention.bytes", Served;
        "Size of a partition above which its oldest segments are deleted; -1 sets no limit.";
    "retention.ms": Long = "604800000", at_least(-1), Medium, "log.retention.ms", Served;
        "How long records are kept, in milliseconds; -1 for ever.";
    "max.message.bytes": Int = "1048588", at_least(0), Medium, "message.max.bytes", Served;
        "Largest record batch accepted, in bytes.";
    "index.interval.bytes": Int = "4096", at_least(0), Medium, "log.index.interval.bytes", Served;
        "Bytes of records between two index entries.";
    "delete.retention.ms": Long = "86400000", at_least(0), Medium, "log.cleaner.delete.retention.ms", Served;
        "How long tombstones outlive compaction, in milliseconds.";
    "min.compaction.lag.ms": Long = "0", at_least(0), Medium, "log.cleaner.min.compaction.lag.ms", Served;
        "Records younger than this are not compacted, in milliseconds.";
    "max.compaction.lag.ms": Long = "9223372036854775807", at_least(1), Medium,
        "log.cleaner.max.compaction.lag.ms", Served;
        "Records older than this are compacted, in milliseconds.";
    "file.delete.delay.ms": Long = "60000", at_least(0), Medium, "log.segment.delete.delay.ms", Served;
        "How long a deleted file stays on disk, in milliseconds.";
    "min.cleanable.dirty.ratio": Double = "0.5", between(0, 1), Medium, "log.cleaner.min.cleanable.ratio",
        Served;
        "Share of the log that must be dirty before it is compacted.";
    "cleanup.policy": List = "delete", each_of(&["compact", "delete"]), Medium, "log.cleanup.policy", Served;
        "What happens to old segments: delete, compact or both.";
    "unclean.leader.election.enable": Boolean = "false", ANY, Medium, "unclean.leader.election.enable",
        Served;
        "Whether a replica that is not in sync may lead when no other can, at the price of lost records.";
    "min.insync.replicas": Int = "1", at_least(1), Medium, "min.insync.replicas", Served;
        "Replicas that must have a record before acks=all is answered.";
    "compression.type": String = "producer", one_of(&["uncompressed", "zstd", "lz4", "snappy", "gzip",
        "producer"]), Medium, "compression.type", Served;
        "Codec of the records kept: producer leaves the producer's choice.";
    "preallocate": Boolean = "false", ANY, Medium, "log.preallocate", Served;
        "Whether a new segment takes its whole size on disk at once.";
    "message.format.version": String = "2.7-IV2", API_VERSION, Medium, "log.message.format.version", Served;
        "Release whose record format is written; older consumers need an older one.";
    "message.timestamp.type": String = "CreateTime", one_of(&["CreateTime", "LogAppendTime"]), Medium,
        "log.message.timestamp.type", Served;
        "CreateTime keeps the producer's time, LogAppendTime stamps the broker's.";
    "message.timestamp.difference.max.ms": Long = "9223372036854775807", at_least(0), Medium,
        "log.message.timestamp.difference.max.ms", Served;
        "Largest distance of a producer's time from the broker's, in milliseconds.";
    "leader.replication.throttled.replicas": List = "", THROTTLED_REPLICAS, Medium, none, Served;
        "Replicas throttled on the leader's side, as partition:broker pairs, or * for all.";
    "follower.replication.throttled.replicas": List = "", THROTTLED_REPLICAS, Medium, none, Served;
        "Replicas throttled on the follower's side, as partition:broker pairs, or * for all.";
    "message.downconversion.enable": Boolean = "true", ANY, Low, "log.message.downconversion.enable", Served;
        "Whether records are converted for consumers that know only older formats.";
}
