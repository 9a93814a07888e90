//! Definitions: replication, shutdown, groups, committed offsets and transactions.
//!
//! Names, types, defaults, limits and dynamic kinds are Kafka 2.7.2's (`KafkaConfig.scala`,
//! `LogConfig.scala`, `DynamicBrokerConfig.scala`); the sentences and the effect are ours. One row: name,
//! type, default, limits, importance, how it may change while running, effect; sentence.

use super::*;

definitions! {
    REPLICATION;

    "controller.socket.timeout.ms": Int = "30000", ANY, Medium, Fixed, Served;
        "Limit of the controller's requests to brokers, in milliseconds.";
    "default.replication.factor": Int = "1", ANY, Medium, Fixed, Served;
        "Replicas of a topic that is created without a number.";
    "replica.lag.time.max.ms": Long = "30000", ANY, High, Fixed, OnlyInCluster(ALONE);
        "A follower that has not caught up for longer leaves the in-sync replicas, in milliseconds.";
    "replica.socket.timeout.ms": Int = "30000", ANY, High, Fixed, OnlyInCluster(ALONE);
        "Limit of a follower's requests to the leader, in milliseconds.";
    "replica.socket.receive.buffer.bytes": Int = "65536", ANY, High, Fixed, NoEffectHere(PEERS);
        "SO_RCVBUF of a follower's connection to the leader.";
    "replica.fetch.max.bytes": Int = "1048576", at_least(0), Medium, Fixed, OnlyInCluster(ALONE);
        "Bytes a follower asks for of each partition.";
    "replica.fetch.wait.max.ms": Int = "500", ANY, High, Fixed, OnlyInCluster(ALONE);
        "Longest wait of a follower's fetch, in milliseconds.";
    "replica.fetch.backoff.ms": Int = "1000", at_least(0), Medium, Fixed, OnlyInCluster(ALONE);
        "Pause of a follower after a failed fetch, in milliseconds.";
    "replica.fetch.min.bytes": Int = "1", ANY, High, Fixed, OnlyInCluster(ALONE);
        "Bytes that a follower's fetch waits for.";
    "replica.fetch.response.max.bytes": Int = "10485760", at_least(0), Medium, Fixed, OnlyInCluster(ALONE);
        "Bytes a follower asks for in all.";
    "num.replica.fetchers": Int = "1", ANY, High, ClusterWide, OnlyInCluster(ALONE);
        "Fetching threads, each for all leading brokers.";
    "replica.high.watermark.checkpoint.interval.ms": Long = "5000", ANY, High, Fixed, Served;
        "Time between two writes of the high watermarks, in milliseconds.";
    "fetch.purgatory.purge.interval.requests": Int = "1000", ANY, Medium, Fixed, NoEffectHere(EVENTS);
        "Answered requests after which the waiting fetches are tidied.";
    "producer.purgatory.purge.interval.requests": Int = "1000", ANY, Medium, Fixed, NoEffectHere(EVENTS);
        "Answered requests after which the waiting produces are tidied.";
    "delete.records.purgatory.purge.interval.requests": Int = "1", ANY, Medium, Fixed, NoEffectHere(EVENTS);
        "Answered requests after which the waiting deletions are tidied.";
    "auto.leader.rebalance.enable": Boolean = "true", ANY, High, Fixed, Served;
        "Whether leadership returns to the preferred replicas by itself.";
    "leader.imbalance.per.broker.percentage": Int = "10", ANY, High, Fixed, Served;
        "Share of partitions led elsewhere that starts a rebalance, in per cent.";
    "leader.imbalance.check.interval.seconds": Long = "300", ANY, High, Fixed, Served;
        "Seconds between two looks at the balance of leaders.";
    "unclean.leader.election.enable": Boolean = "false", ANY, High, ClusterWide, Served;
        "Whether a replica that is not in sync may lead when no other can, at the price of lost records.";
    "security.inter.broker.protocol": String = "PLAINTEXT", ANY, Medium, Fixed, Served;
        "Security protocol between brokers, where inter.broker.listener.name is not set.";
    "inter.broker.protocol.version": String = "2.7-IV2", API_VERSION, Medium, Fixed, Served;
        "Release whose protocol brokers speak among themselves.";
    "inter.broker.listener.name": String = none, ANY, Medium, Fixed, Served;
        "Listener that brokers use among themselves.";
    "replica.selector.class": String = none, one_of(REPLICA_SELECTORS), Medium, Fixed, Served;
        "Java class that chooses the replica a consumer fetches from.";
    "controlled.shutdown.max.retries": Int = "3", ANY, Medium, Fixed, OnlyInCluster(SHUTDOWN);
        "Attempts to hand over leadership before stopping.";
    "controlled.shutdown.retry.backoff.ms": Long = "5000", ANY, Medium, Fixed, OnlyInCluster(SHUTDOWN);
        "Pause between two such attempts, in milliseconds.";
    "controlled.shutdown.enable": Boolean = "true", ANY, Medium, Fixed, OnlyInCluster(SHUTDOWN);
        "Whether leadership is handed over before stopping.";
    "group.min.session.timeout.ms": Int = "6000", ANY, Medium, Fixed, Served;
        "Shortest session that a group member may ask for, in milliseconds.";
    "group.max.session.timeout.ms": Int = "1800000", ANY, Medium, Fixed, Served;
        "Longest session that a group member may ask for, in milliseconds.";
    "group.initial.rebalance.delay.ms": Int = "3000", ANY, Medium, Fixed, Served;
        "How long an empty group waits for more members at its first rebalance, in milliseconds.";
    "group.max.size": Int = "2147483647", at_least(1), Medium, Fixed, Served;
        "Members that a group may have.";
    "offset.metadata.max.bytes": Int = "4096", ANY, High, Fixed, Served;
        "Largest metadata kept with a committed offset, in bytes.";
    "offsets.load.buffer.size": Int = "5242880", at_least(1), High, Fixed, Served;
        "Bytes read at one time when committed offsets are loaded.";
    "offsets.topic.replication.factor": Short = "3", at_least(1), High, Fixed, Served;
        "Replicas of the topic of committed offsets.";
    "offsets.topic.num.partitions": Int = "50", at_least(1), High, Fixed, Served;
        "Partitions of the topic of committed offsets; not to be changed later.";
    "offsets.topic.segment.bytes": Int = "104857600", at_least(1), High, Fixed, Served;
        "Segment size of the topic of committed offsets, in bytes.";
    "offsets.topic.compression.codec": Int = "0", ANY, High, Fixed, Served;
        "Codec of the topic of committed offsets, by number: 0 none, 1 gzip, 2 snappy, 3 lz4, 4 zstd.";
    "offsets.retention.minutes": Int = "10080", at_least(1), High, Fixed, Served;
        "How long offsets outlive the last member of their group, in minutes.";
    "offsets.retention.check.interval.ms": Long = "600000", at_least(1), High, Fixed, Served;
        "Time between two looks for expired offsets, in milliseconds.";
    "offsets.commit.timeout.ms": Int = "5000", at_least(1), High, Fixed, Served;
        "How long a commit waits for all replicas, in milliseconds.";
    "offsets.commit.required.acks": Short = "-1", ANY, High, Fixed, Served;
        "Acknowledgements that a commit waits for; -1 all in-sync replicas.";
    "transactional.id.expiration.ms": Int = "604800000", at_least(1), High, Fixed, Served;
        "A producer silent for longer is forgotten, in milliseconds.";
    "transaction.max.timeout.ms": Int = "900000", at_least(1), High, Fixed, NoEffectHere(TRANSACTIONS);
        "Longest transaction that a producer may ask for, in milliseconds.";
    "transaction.state.log.min.isr": Int = "2", at_least(1), High, Fixed, Served;
        "The min.insync.replicas of the topic of transactions.";
    "transaction.state.log.load.buffer.size": Int = "5242880", at_least(1), High, Fixed,
        NoEffectHere(TRANSACTIONS);
        "Bytes read at one time when transactions are loaded.";
    "transaction.state.log.replication.factor": Short = "3", at_least(1), High, Fixed, Served;
        "Replicas of the topic of transactions.";
    "transaction.state.log.num.partitions": Int = "50", at_least(1), High, Fixed, Served;
        "Partitions of the topic of transactions; not to be changed later.";
    "transaction.state.log.segment.bytes": Int = "104857600", at_least(1), High, Fixed, Served;
        "Segment size of the topic of transactions, in bytes.";
    "transaction.abort.timed.out.transaction.cleanup.interval.ms": Int = "10000", at_least(1), Low, Fixed,
        NoEffectHere(TRANSACTIONS);
        "Time between two looks for transactions to abort.";
    "transaction.remove.expired.transaction.cleanup.interval.ms": Int = "3600000", at_least(1), Low, Fixed,
        NoEffectHere(TRANSACTIONS);
        "Time between two looks for expired transactional ids.";
}
