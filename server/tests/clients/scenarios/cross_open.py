"""One set of log directories, two brokers: what Apache Kafka wrote is served and appended to by the subject and goes back.

With Kafka as the subject this is Kafka after Kafka, which shows that the comparison itself holds.
"""

import collections
import json
import subprocess

import crash_writers
import history
import librdkafka
import records
import subject as subjects
from confluent_kafka import TopicPartition
from scenario import Skip, equal, scenario, until
from tools import Tools, java

CODECS = ("none", "gzip", "snappy", "lz4", "zstd")
# Format, its message.format.version, and the codecs that it has.
FORMATS = [("v0", "0.9.0", CODECS[:4]), ("v1", "0.10.2", CODECS[:4]), ("v2", "2.7", CODECS)]
SETTINGS = {"log.cleaner.backoff.ms": "500", "log.retention.ms": "-1"}


def fill(place, broker):
    """Writes all that a directory may hold; returns the names of the topics."""
    where, topics = broker.bootstrap, []
    for name, version, codecs in FORMATS:
        for codec in codecs:
            topic = f"{name}-{codec}"
            topics.append(topic)
            librdkafka.create(where, topic, 2, message_format_version=version, segment_bytes=1000000)
            sent = [r for r in records.samples(2) if name == "v2" or not r.headers]
            librdkafka.produce(where, topic, sent, compression_type=codec, enable_idempotence=name == "v2")
    topics.append("transactions")
    librdkafka.create(where, "transactions", 1)
    producer = librdkafka.producer(where, transactional_id="writer")
    producer.init_transactions(30)
    for number, commit in enumerate((True, False, True, False)):
        producer.begin_transaction()
        for i in range(20):
            producer.produce("transactions", value=f"{number}-{i}", key=str(commit))
        # What waits in the client would never be sent if the transaction is aborted.
        equal(producer.flush(30), 0, "records of a transaction that were not sent")
        (producer.commit_transaction if commit else producer.abort_transaction)(30)
    topics.append("compacted")
    librdkafka.create(where, "compacted", 1, cleanup_policy="compact", segment_bytes=20000,
                      min_cleanable_dirty_ratio=0.01)
    sent = [records.Record(0, -1, records.TIME + i, f"k{i % 50}".encode(), f"{i}".encode() * 20, ()) for i in range(3000)]
    librdkafka.produce(where, "compacted", sent, batch_num_messages=50)
    commit_offsets(where)
    return topics


def commit_offsets(where):
    """What the group `readers` commits."""
    consumer = librdkafka.consumer(where, "readers")
    consumer.commit(offsets=[TopicPartition("v2-none", 0, 5, "kept"), TopicPartition("v2-none", 1, 3)], asynchronous=False)
    consumer.close()


def contents(place, broker, topics):
    """All that a reader sees: records in both isolation levels, and the committed offsets."""
    wanted = [(topic, level, broker.directory / f"{topic}-{level}.read") for topic in topics
              for level in ("read_uncommitted", "read_committed")]
    # By the Java client: librdkafka cannot read all of the old formats.
    answers = java(place, "2.7.2", broker.bootstrap).run(*(
        ("read", topic, path, f"isolation.level={level}", "enable.auto.commit=false") for topic, level, path in wanted))
    found = {(topic, level): sorted(records.load(path), key=lambda r: (r.partition, r.offset))
             for topic, level, path in wanted}
    consumer = librdkafka.consumer(broker.bootstrap, "readers")
    committed = consumer.committed([TopicPartition("v2-none", 0), TopicPartition("v2-none", 1)], timeout=30)
    found["offsets"] = [(p.offset, p.metadata) for p in committed]
    found["without leader"] = sorted({line for lines in answers for line in lines})
    consumer.close()
    return found


def same(before, after, what):
    """Fails unless everything that was there is there at its offset; more may have come after it."""
    for where, wanted in before.items():
        got = after[where]
        if where in ("offsets", "without leader"):
            equal(got, wanted, f"{what}: {where}")
        elif where[0] == "compacted":
            # Cleaning may go on: of each key the last value counts.
            last, wanted = last_of(got), last_of(wanted)
            equal({key: last.get(key) for key in wanted}, wanted, f"{what}: {where}")
        else:
            got_at = {(r.partition, r.offset): r for r in got}
            for record in wanted:
                equal(got_at.get((record.partition, record.offset)), record, f"{what}: {where}")
            ends = {p: max(r.offset for r in wanted if r.partition == p) for p in {r.partition for r in wanted}}
            extra = [r for r in got if (r.partition, r.offset) not in {(w.partition, w.offset) for w in wanted}
                     and r.offset <= ends.get(r.partition, -1)]
            equal(extra[:3], [], f"{what}: {where}, records between those that were there")


def last_of(found):
    return {record.key: (record.offset, record.value) for record in found}


def append(broker, topics):
    """50 records more in each topic, in the last partition: all have that one."""
    client = librdkafka.admin(broker.bootstrap)

    def known():
        found = client.list_topics(timeout=20).topics
        return found if all(topic in found and found[topic].partitions for topic in topics) else None

    metadata = until(20, f"metadata of {topics}", known)
    turn = broker.directory.name
    for topic in topics:
        # With keys of their own, so that compaction takes away nothing that was there.
        more = [records.Record(max(metadata[topic].partitions), -1, records.TIME + 9_000_000 + i,
                               f"{turn}-{i}".encode(), f"more {i}".encode(), ()) for i in range(50)]
        librdkafka.produce(broker.bootstrap, topic, more, compression_type="lz4")


def no_more_than(complaints, now, what):
    """Fails if kafka-dump-log complains of anything that it did not complain of before."""
    equal(list((collections.Counter(now) - collections.Counter(complaints)).elements()), [], f"new complaints {what}")


def zookeeper_shell(zookeeper, lines):
    command = ["java", "-Xmx128M", "-cp", f"{subjects.peers.kafka()}/*",
               "org.apache.zookeeper.ZooKeeperMainWithTlsSupportForKafka", "-server", zookeeper.connect]
    done = subprocess.run(command, input="\n".join([*lines, "quit", ""]), capture_output=True, text=True, timeout=100)
    if done.returncode:
        raise AssertionError(f"zookeeper-shell: {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
    return done.stdout


def elected(zookeeper, partitions, epoch):
    """Leaves in ZooKeeper what elections up to a leader epoch leave there. No broker runs meanwhile."""
    state = {"controller_epoch": 1, "leader": 0, "version": 1, "leader_epoch": epoch, "isr": [0]}
    zookeeper_shell(zookeeper, [f"set /brokers/topics/{topic}/partitions/{partition}/state "
                                f"{json.dumps(state, separators=(',', ':'))}" for topic, partition in partitions])


def half_of_a_topic(zookeeper, topic):
    """Makes a topic of which partitions 0 and 2 are on broker 1, which is not there, and 1 and 3 on broker 0."""
    home = {partition: 1 - partition % 2 for partition in range(4)}
    path = f"/brokers/topics/{topic}"
    nodes = {"/brokers": "", "/brokers/topics": "", path: {
        "version": 2, "partitions": {str(partition): [broker] for partition, broker in home.items()},
        "adding_replicas": {}, "removing_replicas": {}}, f"{path}/partitions": ""}
    for partition, broker in home.items():
        nodes[f"{path}/partitions/{partition}"] = ""
        nodes[f"{path}/partitions/{partition}/state"] = {
            "controller_epoch": 1, "leader": broker, "version": 1, "leader_epoch": 3, "isr": [broker]}
    zookeeper_shell(zookeeper, [f"create {path} {json.dumps(data, separators=(',', ':')) if data else ''}".strip()
                                for path, data in nodes.items()])


def epochs(log_dirs, topic, partition):
    """The leader epochs in a partition's checkpoint."""
    (path,) = [path for one in log_dirs for path in one.glob(f"{topic}-{partition}/leader-epoch-checkpoint")]
    return [int(line.split()[0]) for line in path.read_text().splitlines()[2:]]


class Pair:
    """Kafka with its ZooKeeper and the subject, which take turns at the same log directories and the same port."""

    def __init__(self, place, log_dirs, settings=None):
        self.place = place
        self.zookeeper = subjects.ZooKeeper(place.directory).start()
        place.started.append(self.zookeeper)
        self.options = {"data": [place.directory / name for name in log_dirs], "port": subjects.free_port()}
        self.settings = {**SETTINGS, **(settings or {})}
        self.turns = 0

    @property
    def log_dirs(self):
        return self.options["data"]

    def turn(self, kind, zookeeper=None):
        self.turns += 1
        more = {"zookeeper": zookeeper or self.zookeeper} if kind == "kafka" else {}
        return self.place.start(self.settings, kind=kind, name=f"{self.turns}-{kind}", **self.options, **more)

    def kafka(self, zookeeper=None):
        return self.turn("kafka", zookeeper)

    def subject(self):
        return self.turn(self.place.subject)


@scenario(300)
def kafka_then_subject(place):
    """Kafka writes in two directories and two leader epochs, the subject serves and appends, Kafka opens again."""
    tools, pair = Tools(place), Pair(place, ["a", "b"])
    kafka = pair.kafka()
    topics = fill(place, kafka)
    kafka.stop()
    moved = [("v2-none", 0), ("v2-none", 1), ("v2-zstd", 1), ("transactions", 0)]
    elected(pair.zookeeper, moved, 4)
    kafka = pair.kafka()
    append(kafka, topics)
    before = contents(place, kafka, topics)
    kafka.stop()
    complaints = tools.dump(*pair.log_dirs)
    equal(epochs(pair.log_dirs, "v2-none", 1), [0, 4], "leader epochs that Kafka left")
    other = pair.subject()
    now = contents(place, other, topics)
    same(before, now, f"served by {place.subject}")
    equal({where: len(found) for where, found in now.items() if "compacted" not in where},
          {where: len(found) for where, found in before.items() if "compacted" not in where}, "numbers of records")
    append(other, topics)
    extended = contents(place, other, topics)
    same(before, extended, f"after {place.subject} appended")
    equal(len(extended["v0-gzip", "read_committed"]), len(before["v0-gzip", "read_committed"]) + 50, "records appended")
    other.stop()
    no_more_than(complaints, tools.dump(*pair.log_dirs), f"after {place.subject}")
    equal(epochs(pair.log_dirs, "v2-none", 1), [0, 4], f"leader epochs after {place.subject}")
    elected(pair.zookeeper, moved, 7)
    again = pair.kafka()
    same(extended, contents(place, again, topics), "in Kafka again")
    append(again, topics)
    again.stop()
    no_more_than(complaints, tools.dump(*pair.log_dirs), "at the end")
    equal(epochs(pair.log_dirs, "v2-none", 1), [0, 4, 7], "leader epochs at the end")


@scenario(300)
def killed_by_turns(place):
    """Kafka and the subject are killed by turns on one directory while producers go on: nothing is lost or doubled."""
    tools, pair = Tools(place), Pair(place, ["data"], {"log.segment.bytes": "100000"})
    broker = pair.kafka()
    topics = fill(place, broker)
    before = contents(place, broker, topics)
    librdkafka.create(broker.bootstrap, "busy", 2)
    writers = [crash_writers.Writer(broker.bootstrap, "busy", name, partition, settings, pause=0.005)
               for name, partition, settings in (("acks=1", 0, {"acks": 1, "compression_type": "lz4"}),
                                                 ("idempotent", 1, {"enable_idempotence": True, "compression_type": "zstd"}))]
    complaints = None
    for start in (pair.subject, pair.kafka, pair.subject):
        crash_writers.all_acked(writers, 200)
        broker.kill()
        if complaints is None:
            complaints = tools.dump(*pair.log_dirs)
        broker = start()
        crash_writers.all_acked(writers, 200)
        now = contents(place, broker, topics)
        same(before, now, f"in {broker.directory.name}")
        append(broker, topics)
        before = contents(place, broker, topics)
    left = [writer.finish() for writer in writers]
    equal(([w.errors[:3] for w in writers], left), ([[], []], [0, 0]), "errors of the writers, records without an outcome")
    log = librdkafka.read_all(broker.bootstrap, "busy", make=crash_writers.entry)
    equal(history.check([w.history for w in writers], log)[:5], [], "violations")
    broker.stop()
    no_more_than(complaints, tools.dump(*pair.log_dirs), "at the end")


@scenario(300)
def topics_in_between(place):
    """Partitions are missing, and Kafka deletes, creates and makes anew topics between two turns of the subject."""
    tools, pair = Tools(place), Pair(place, ["a", "b"])
    half_of_a_topic(pair.zookeeper, "holes")
    kafka = pair.kafka()
    admin = Tools(place, kafka.bootstrap)
    for topic, partitions in (("gone", 2), ("anew", 3), ("v2-none", 2)):
        librdkafka.create(kafka.bootstrap, topic, partitions)
        librdkafka.produce(kafka.bootstrap, topic, records.samples(partitions, [1, 1000]))
    sent = [records.replace(record, partition=1 + 2 * record.partition) for record in records.samples(2, [1, 1000])]
    librdkafka.produce(kafka.bootstrap, "holes", sent)
    commit_offsets(kafka.bootstrap)
    topics = ["gone", "anew", "v2-none", "holes"]
    before = contents(place, kafka, topics)
    equal(before["without leader"], ["holes 0", "holes 2"], "partitions without a leader")
    kafka.stop()
    other = pair.subject()
    same(before, contents(place, other, topics), f"in {place.subject}")
    append(other, topics)
    extended = contents(place, other, topics)
    other.stop()
    complaints = tools.dump(*pair.log_dirs)
    kafka = pair.kafka()
    same(extended, contents(place, kafka, topics), "in Kafka")
    for topic in ("gone", "anew"):
        admin.run("kafka-topics", "--delete", "--topic", topic)
        # What is marked for deletion is not listed, but it is in the way of a new topic.
        until(20, f"{topic} is deleted", lambda: not list(place.directory.glob(f"[ab]/{topic}-?")))
    until(20, "the znodes are gone", lambda: "anew" not in zookeeper_shell(pair.zookeeper, ["ls /brokers/topics"]))
    for topic, partitions in (("anew", 1), ("later", 2)):
        librdkafka.create(kafka.bootstrap, topic, partitions)
        librdkafka.produce(kafka.bootstrap, topic, records.samples(partitions, [1, 1000], seed=7), compression_type="lz4")
    topics = ["anew", "v2-none", "holes", "later"]
    before = contents(place, kafka, topics)
    kafka.stop()
    complaints = tools.dump(*pair.log_dirs)
    other = pair.subject()
    now = contents(place, other, topics)
    same(before, now, f"in {place.subject} again")
    equal({where: len(found) for where, found in now.items()}, {where: len(found) for where, found in before.items()},
          "numbers of records")
    equal("gone" in librdkafka.admin(other.bootstrap).list_topics().topics, False, "a deleted topic is known")
    append(other, topics)
    extended = contents(place, other, topics)
    other.stop()
    no_more_than(complaints, tools.dump(*pair.log_dirs), f"after {place.subject}")
    kafka = pair.kafka(exported(place, other) if place.subject == "milena" else None)
    same(extended, contents(place, kafka, topics), "in Kafka at the end")
    equal("gone" in librdkafka.admin(kafka.bootstrap).list_topics().topics, False, "a deleted topic is known")
    append(kafka, topics)
    kafka.stop()
    no_more_than(complaints, tools.dump(*pair.log_dirs), "at the end")


def exported(place, stopped):
    """A fresh ZooKeeper with the znodes that a stopped Milena exports."""
    path = place.directory / "znodes"
    done = subprocess.run([subjects.Milena.binary, "export-znodes", stopped.directory / "server.properties",
                           "--output", path], capture_output=True, text=True)
    equal(done.returncode, 0, f"exit code of export-znodes: {done.stderr}")
    zookeeper = subjects.ZooKeeper(place.directory / "fresh").start()
    place.started.append(zookeeper)
    zookeeper_shell(zookeeper, [line for line in path.read_text().splitlines() if line and not line.startswith("#")])
    return zookeeper


@scenario(240)
def subject_then_kafka(place):
    """Milena writes and is killed, export-znodes fills a fresh ZooKeeper, Kafka opens and is killed, Milena opens again."""
    if place.subject != "milena":
        raise Skip("export-znodes is Milena's")
    tools, pair = Tools(place), Pair(place, ["a", "b"])
    broker = pair.subject()
    topics = []
    for codec in CODECS:
        topic = f"from-{codec}"
        topics.append(topic)
        librdkafka.create(broker.bootstrap, topic, 2, segment_bytes=1000000)
        librdkafka.produce(broker.bootstrap, topic, records.samples(2), compression_type=codec,
                           enable_idempotence=codec != "none")
    topics.append("v2-none")
    librdkafka.create(broker.bootstrap, "v2-none", 2, retention_ms=123456789)
    librdkafka.produce(broker.bootstrap, "v2-none", records.samples(2))
    commit_offsets(broker.bootstrap)
    before = contents(place, broker, topics)
    broker.kill()
    equal(tools.dump(*pair.log_dirs), [], "complaints about Milena's files")
    kafka = pair.kafka(exported(place, broker))
    same(before, contents(place, kafka, topics), "in Kafka")
    described = Tools(place, kafka.bootstrap).run("kafka-topics", "--describe", "--topic", "v2-none")
    equal("retention.ms=123456789" in described, True, f"settings of the topic: {described}")
    append(kafka, topics)
    extended = contents(place, kafka, topics)
    kafka.kill()
    complaints = tools.dump(*pair.log_dirs)
    broker = pair.subject()
    same(extended, contents(place, broker, topics), "in Milena again")
    append(broker, topics)
    broker.stop()
    no_more_than(complaints, tools.dump(*pair.log_dirs), "at the end")
