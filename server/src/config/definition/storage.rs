//! Definitions: log directories, logs and the defaults of topics.
//!
//! Names, types, defaults, limits and dynamic kinds are Kafka 2.7.2's (`KafkaConfig.scala`,
//! `LogConfig.scala`, `DynamicBrokerConfig.scala`); the sentences and the effect are ours. One row: name,
//! type, default, limits, importance, how it may change while running, effect; sentence.

use super::*;

definitions! {
    STORAGE;

    "num.partitions": Int = "1", at_least(1), Medium, Fixed, Served;
        "Partitions of a topic that is created without a number.";
    "log.dir": String = "/tmp/kafka-logs", ANY, High, Fixed, Served;
        "The log directory, where log.dirs is not set.";
    "log.dirs": String = none, ANY, High, Fixed, Served;
        "Log directories, separated by commas.";
    "log.segment.bytes": Int = "1073741824", at_least(14), High, ClusterWide, Served;
        "Size at which a segment is closed and the next begun, in bytes.";
    "log.roll.ms": Long = none, ANY, High, ClusterWide, Served;
        "Age at which a segment is closed, in milliseconds; log.roll.hours if unset.";
    "log.roll.hours": Int = "168", at_least(1), High, Fixed, Served;
        "Age at which a segment is closed, in hours.";
    "log.roll.jitter.ms": Long = none, ANY, High, ClusterWide, Served;
        "Most that chance takes off the roll age, in milliseconds; log.roll.jitter.hours if unset.";
    "log.roll.jitter.hours": Int = "0", at_least(0), High, Fixed, Served;
        "Most that chance takes off the roll age, in hours.";
    "log.retention.ms": Long = none, ANY, High, ClusterWide, Served;
        "How long records are kept, in milliseconds; -1 for ever; log.retention.minutes if unset.";
    "log.retention.minutes": Int = none, ANY, High, Fixed, Served;
        "How long records are kept, in minutes; log.retention.hours if unset.";
    "log.retention.hours": Int = "168", ANY, High, Fixed, Served;
        "How long records are kept, in hours.";
    "log.retention.bytes": Long = "-1", ANY, High, ClusterWide, Served;
        "Size of a partition above which its oldest segments are deleted; -1 sets no limit.";
    "log.retention.check.interval.ms": Long = "300000", at_least(1), Medium, Fixed, Served;
        "Time between two looks for segments to delete, in milliseconds.";
    "log.cleanup.policy": List = "delete", each_of(&["compact", "delete"]), Medium, ClusterWide, Served;
        "What happens to old segments: delete, compact or both.";
    "log.cleaner.threads": Int = "1", at_least(0), Medium, ClusterWide, NoEffectHere(CLEANER);
        "Threads that compact logs.";
    "log.cleaner.io.max.bytes.per.second": Double = "1.7976931348623157E308", ANY, Medium, ClusterWide,
        NoEffectHere(CLEANER);
        "Bytes per second that compaction may read and write.";
    "log.cleaner.dedupe.buffer.size": Long = "134217728", ANY, Medium, ClusterWide, NoEffectHere(CLEANER);
        "Memory for the keys of all compacting threads, in bytes.";
    "log.cleaner.io.buffer.size": Int = "524288", at_least(0), Medium, ClusterWide, NoEffectHere(CLEANER);
        "Memory for the buffers of all compacting threads, in bytes.";
    "log.cleaner.io.buffer.load.factor": Double = "0.9", ANY, Medium, ClusterWide, NoEffectHere(CLEANER);
        "How full the table of keys may become.";
    "log.cleaner.backoff.ms": Long = "15000", at_least(0), Medium, ClusterWide, NoEffectHere(CLEANER);
        "Pause of a compacting thread that found nothing to do, in milliseconds.";
    "log.cleaner.min.cleanable.ratio": Double = "0.5", ANY, Medium, ClusterWide, Served;
        "Share of a log that must be dirty before it is compacted.";
    "log.cleaner.enable": Boolean = "true", ANY, Medium, Fixed, NoEffectHere(CLEANER);
        "Whether logs are compacted.";
    "log.cleaner.delete.retention.ms": Long = "86400000", ANY, Medium, ClusterWide, Served;
        "How long tombstones outlive compaction, in milliseconds.";
    "log.cleaner.min.compaction.lag.ms": Long = "0", ANY, Medium, ClusterWide, Served;
        "Records younger than this are not compacted, in milliseconds.";
    "log.cleaner.max.compaction.lag.ms": Long = "9223372036854775807", ANY, Medium, ClusterWide, Served;
        "Records older than this are compacted, in milliseconds.";
    "log.index.size.max.bytes": Int = "10485760", at_least(4), Medium, ClusterWide, Served;
        "Largest offset index, in bytes.";
    "log.index.interval.bytes": Int = "4096", at_least(0), Medium, ClusterWide, Served;
        "Bytes of records between two index entries.";
    "log.flush.interval.messages": Long = "9223372036854775807", at_least(1), High, ClusterWide, Served;
        "Records after which a log is synced; 1 syncs before each acknowledgement.";
    "log.segment.delete.delay.ms": Long = "60000", at_least(0), High, ClusterWide, Served;
        "How long a deleted file stays on disk, in milliseconds.";
    "log.flush.scheduler.interval.ms": Long = "9223372036854775807", ANY, High, Fixed, Served;
        "The log.flush.interval.ms of logs where that is unset.";
    "log.flush.interval.ms": Long = none, ANY, High, ClusterWide, Served;
        "Longest time that records stay unsynced, in milliseconds; log.flush.scheduler.interval.ms if unset.";
    "log.flush.offset.checkpoint.interval.ms": Int = "60000", at_least(0), High, Fixed, Served;
        "Time between two writes of the recovery points, in milliseconds.";
    "log.flush.start.offset.checkpoint.interval.ms": Int = "60000", at_least(0), High, Fixed, Served;
        "Time between two writes of the log start offsets, in milliseconds.";
    "log.preallocate": Boolean = "false", ANY, Medium, ClusterWide, Served;
        "Whether a new segment takes its whole size on disk at once.";
    "num.recovery.threads.per.data.dir": Int = "1", at_least(1), High, ClusterWide, Served;
        "Threads for each log directory that load and recover logs at start.";
    "auto.create.topics.enable": Boolean = "true", ANY, High, Fixed, Served;
        "Whether a topic that a client asks for is created.";
    "min.insync.replicas": Int = "1", at_least(1), High, ClusterWide, Served;
        "Replicas that must have a record before acks=all is answered.";
    "log.message.format.version": String = "2.7-IV2", API_VERSION, Medium, Fixed, Served;
        "Release whose record format is written; older consumers need an older one.";
    "log.message.timestamp.type": String = "CreateTime", one_of(&["CreateTime", "LogAppendTime"]), Medium,
        ClusterWide, Served;
        "CreateTime keeps the producer's time, LogAppendTime stamps the broker's.";
    "log.message.timestamp.difference.max.ms": Long = "9223372036854775807", ANY, Medium, ClusterWide, Served;
        "Largest distance of a producer's time from the broker's, in milliseconds.";
    "create.topic.policy.class.name": Class = none, ANY, Low, Fixed, RefusesToStart(PLUGINS);
        "Java class that may forbid the creation of a topic.";
    "alter.config.policy.class.name": Class = none, ANY, Low, Fixed, RefusesToStart(PLUGINS);
        "Java class that may forbid a change of settings.";
    "log.message.downconversion.enable": Boolean = "true", ANY, Low, ClusterWide, Served;
        "Whether records are converted for consumers that know only older formats.";
    "compression.type": String = "producer", ANY, High, ClusterWide, Served;
        "Codec of the records kept: producer leaves the producer's choice.";
    "delete.topic.enable": Boolean = "true", ANY, High, Fixed, Served;
        "Whether topics may be deleted.";
}
