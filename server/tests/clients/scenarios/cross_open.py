"""One directory, two brokers: what Apache Kafka wrote is served and appended to by the subject and goes back to Kafka.

With Kafka as the subject this is Kafka after Kafka, which shows that the comparison itself holds.
"""

import subprocess

import librdkafka
import records
import subject as subjects
from confluent_kafka import TopicPartition
from scenario import Skip, equal, scenario
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
        (producer.commit_transaction if commit else producer.abort_transaction)(30)
    topics.append("compacted")
    librdkafka.create(where, "compacted", 1, cleanup_policy="compact", segment_bytes=20000,
                      min_cleanable_dirty_ratio=0.01)
    sent = [records.Record(0, -1, records.TIME + i, f"k{i % 50}".encode(), f"{i}".encode() * 20, ()) for i in range(3000)]
    librdkafka.produce(where, "compacted", sent, batch_num_messages=50)
    consumer = librdkafka.consumer(where, "readers")
    consumer.commit(offsets=[TopicPartition("v2-none", 0, 5, "kept"), TopicPartition("v2-none", 1, 3)], asynchronous=False)
    consumer.close()
    return topics


def contents(place, broker, topics):
    """All that a reader sees: records in both isolation levels, and the committed offsets."""
    wanted = [(topic, level, broker.directory / f"{topic}-{level}.read") for topic in topics
              for level in ("read_uncommitted", "read_committed")]
    # By the Java client: librdkafka cannot read all of the old formats.
    java(place, "2.7.2", broker.bootstrap).run(*(
        ("read", topic, path, f"isolation.level={level}", "enable.auto.commit=false") for topic, level, path in wanted))
    found = {(topic, level): sorted(records.load(path), key=lambda r: (r.partition, r.offset))
             for topic, level, path in wanted}
    consumer = librdkafka.consumer(broker.bootstrap, "readers")
    committed = consumer.committed([TopicPartition("v2-none", 0), TopicPartition("v2-none", 1)], timeout=30)
    found["offsets"] = [(p.offset, p.metadata) for p in committed]
    consumer.close()
    return found


def same(before, after, what):
    """Fails unless everything that was there is there at its offset; more may have come after it."""
    for where, wanted in before.items():
        got = after[where]
        if where == "offsets":
            equal(got, wanted, f"{what}: committed offsets")
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
    for topic in topics:
        more = [records.Record(0, -1, records.TIME + 9_000_000 + i, f"new-{i}".encode(), f"more {i}".encode(), ())
                for i in range(50)]
        librdkafka.produce(broker.bootstrap, topic, more, compression_type="lz4")


@scenario(240)
def kafka_then_subject(place):
    """Kafka writes, the subject serves and appends, Kafka opens again: nothing lost, kafka-dump-log says no more."""
    tools = Tools(place)
    zookeeper = subjects.ZooKeeper(place.directory).start()
    place.started.append(zookeeper)
    data = place.directory / "shared"
    kafka = place.start(SETTINGS, kind="kafka", name="kafka", data=data, zookeeper=zookeeper)
    topics = fill(place, kafka)
    before = contents(place, kafka, topics)
    kafka.stop()
    complaints = tools.dump(data)
    more = {} if place.subject == "milena" else {"zookeeper": zookeeper}
    other = place.start(SETTINGS, name="subject", data=data, **more)
    now = contents(place, other, topics)
    same(before, now, f"served by {place.subject}")
    equal({where: len(found) for where, found in now.items() if "compacted" not in where},
          {where: len(found) for where, found in before.items() if "compacted" not in where}, "numbers of records")
    append(other, topics)
    extended = contents(place, other, topics)
    same(before, extended, f"after {place.subject} appended")
    equal(len(extended["v0-gzip", "read_committed"]), len(before["v0-gzip", "read_committed"]) + 50, "records appended")
    other.stop()
    equal([line for line in tools.dump(data) if line not in complaints], [], "new complaints of kafka-dump-log")
    again = place.start(SETTINGS, kind="kafka", name="again", data=data, zookeeper=zookeeper)
    same(extended, contents(place, again, topics), "in Kafka again")
    append(again, topics)
    again.stop()
    equal([line for line in tools.dump(data) if line not in complaints], [], "complaints at the end")


def restore(path, zookeeper):
    """Creates the znodes of an export in an empty ZooKeeper, by Kafka's own shell."""
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
    command = ["java", "-Xmx128M", "-cp", f"{subjects.peers.kafka()}/*",
               "org.apache.zookeeper.ZooKeeperMainWithTlsSupportForKafka", "-server", zookeeper.connect]
    done = subprocess.run(command, input="\n".join([*lines, "quit", ""]), capture_output=True, text=True, timeout=100)
    if done.returncode:
        raise AssertionError(f"zookeeper-shell: {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")


@scenario(200)
def subject_then_kafka(place):
    """The subject writes, export-znodes fills a fresh ZooKeeper, Kafka opens: nothing lost, no complaint."""
    if place.subject != "milena":
        raise Skip("export-znodes is Milena's")
    probe = subprocess.run([subjects.Milena.binary, "export-znodes", "--help"], capture_output=True)
    if probe.returncode:
        raise Skip("this build has no export-znodes")
    tools = Tools(place)
    broker = place.start(SETTINGS, name="subject")
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
    consumer = librdkafka.consumer(broker.bootstrap, "readers")
    consumer.commit(offsets=[TopicPartition("v2-none", 0, 5, "kept"), TopicPartition("v2-none", 1, 3)], asynchronous=False)
    consumer.close()
    before = contents(place, broker, topics)
    broker.stop()
    equal(tools.dump(broker.data), [], "complaints about Milena's files")
    export = place.directory / "znodes"
    done = subprocess.run([subjects.Milena.binary, "export-znodes", broker.directory / "server.properties",
                           "--output", export], capture_output=True, text=True)
    if "cannot write the znodes" in done.stderr:
        raise Skip("this build's export-znodes writes nothing yet")
    equal(done.returncode, 0, f"exit code of export-znodes: {done.stderr}")
    zookeeper = subjects.ZooKeeper(place.directory).start()
    place.started.append(zookeeper)
    restore(export, zookeeper)
    kafka = place.start(SETTINGS, kind="kafka", name="kafka", data=broker.data, zookeeper=zookeeper)
    same(before, contents(place, kafka, topics), "in Kafka")
    described = Tools(place, kafka.bootstrap).run("kafka-topics", "--describe", "--topic", "v2-none")
    equal("retention.ms=123456789" in described, True, f"settings of the topic: {described}")
    append(kafka, topics)
    kafka.stop()
    equal(tools.dump(broker.data), [], "complaints after Kafka")
