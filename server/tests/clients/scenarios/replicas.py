"""What leaders and followers of three brokers answer, field by field: with Kafka as the subject the same is expected of Kafka's."""

import os
import signal
import struct
import threading

import disks
import librdkafka
import records
import subject as subjects
from confluent_kafka import Consumer, TopicPartition
from frames import varint
from scenario import Skip, equal, scenario, until
from scenarios.cluster import BATCH
from scenarios.mixed import Cluster, Fields

NONE, OFFSET_OUT_OF_RANGE, REQUEST_TIMED_OUT, COORDINATOR_NOT_AVAILABLE = 0, 1, 7, 15
NOT_ENOUGH_REPLICAS, NOT_ENOUGH_REPLICAS_AFTER_APPEND = 19, 20
PRODUCE, FETCH, FIND_COORDINATOR, DELETE_RECORDS, INIT_PRODUCER_ID = 0, 1, 10, 21, 22


def three(place, release="2.7", **settings):
    return Cluster(place, ["milena"] * 3, release, **settings)


def text(value):
    return struct.pack(">h", len(value)) + value.encode()


def asked(broker, key, version, body, timeout=30):
    """The fields behind the correlation id of the answer."""
    header = struct.pack(">hhih", key, version, 7, -1)
    fields = Fields(subjects.exchange(broker.port, header + body, timeout=timeout))
    equal(fields.number("i"), 7, "correlation id")
    return fields


def produced(broker, topic, acks, timeout_ms=20000):
    """Produce 8 of one record to partition 0: the error, and the offset."""
    body = struct.pack(">hhii", -1, acks, timeout_ms, 1) + text(topic)
    body += struct.pack(">iii", 1, 0, len(BATCH)) + BATCH
    fields = asked(broker, PRODUCE, 8, body)
    fields.number("i"), fields.text(), fields.number("i"), fields.number("i")
    return fields.number("h"), fields.number("q")


def fetched(broker, topic, offset, rack=""):
    """Fetch 11 of partition 0 as a consumer in a rack."""
    body = struct.pack(">iiiibiii", -1, 100, 1, 1 << 20, 0, 0, -1, 1) + text(topic)
    body += struct.pack(">iiiqqi", 1, 0, -1, offset, -1, 1 << 20) + struct.pack(">i", 0) + text(rack)
    fields = asked(broker, FETCH, 11, body)
    fields.number("i"), fields.number("h"), fields.number("i"), fields.number("i"), fields.text(), fields.number("i")
    names = ("partition", "error", "high_watermark", "last_stable", "log_start")
    found = dict(zip(names, (fields.number(form) for form in "ihqqq")))
    for _ in range(fields.number("i")):
        fields.number("q"), fields.number("q")
    found["preferred"], found["size"] = fields.number("i"), fields.number("i")
    return found


@scenario(180)
def a_near_replica(place):
    """KIP-392: a leader names the replica in the consumer's rack, which serves what is committed, and no more."""
    cluster = three(place, **{"replica.selector.class": "org.apache.kafka.common.replica.RackAwareReplicaSelector"})
    topic = place.name("t")
    cluster.create(topic, [0, 1, 2])
    librdkafka.produce(cluster.bootstrap, topic, records.samples(1), acks="all")
    leader, follower = cluster.brokers[0], cluster.brokers[2]
    end = fetched(leader, topic, 0)["high_watermark"]
    equal(end > 0, True, "records")
    until(30, "the follower knows what is committed", lambda: fetched(follower, topic, 0)["high_watermark"] == end)
    # The leader knows of a follower's high watermark by what it told it.
    until(30, "a preferred replica", lambda: fetched(leader, topic, 0, "rack-2")["preferred"] == 2)
    found = fetched(leader, topic, 0, "rack-2")
    equal((found["error"], found["size"] <= 0), (NONE, True), "who is sent elsewhere gets nothing here")
    equal(fetched(leader, topic, 0, "rack-0")["preferred"], -1, "the leader's own rack")
    found = fetched(leader, topic, 0, "rack-9")
    equal((found["preferred"], found["size"] > 0), (-1, True), "a rack without a replica")
    found = fetched(follower, topic, 0, "rack-2")
    equal((found["error"], found["preferred"], found["size"] > 0), (NONE, -1, True), "the follower serves")
    equal(fetched(follower, topic, end, "rack-2")["size"] <= 0, True, "what is not written")
    equal(fetched(follower, topic, end + 5, "rack-2")["error"], OFFSET_OUT_OF_RANGE, "beyond the end")
    settings = {"bootstrap.servers": cluster.bootstrap, "group.id": place.name("g"), "client.rack": "rack-2"}
    consumer = Consumer(settings)
    consumer.assign([TopicPartition(topic, 0, 0)])
    read = []
    until(60, "all is read", lambda: read.extend(m.offset() for m in consumer.consume(500, 0.5) if not m.error()) or len(read) >= end)
    equal(read, list(range(end)), "offsets")
    consumer.close()
    cluster.end()


@scenario(180)
def too_few_in_sync(place):
    """min.insync.replicas: refused before the append; after it, where the set shrinks meanwhile; acks=1 does not care."""
    # With AlterIsr 2.7.2's leader does not look at its high watermark again when the set has shrunk, and who waits is timed out.
    release = "2.6" if place.subject == "kafka" else "2.7"
    cluster = three(place, release, session_ms=15000, **{"replica.lag.time.max.ms": 2500, "controlled.shutdown.enable": "false"})
    topic = place.name("t")
    cluster.create(topic, [0, 1], min_insync_replicas=2)
    leader, follower = cluster.brokers[0], cluster.brokers[1]
    equal(produced(leader, topic, -1), (NONE, 0), "both are in sync")
    os.kill(follower.process.pid, signal.SIGSTOP)
    try:
        equal(produced(leader, topic, -1)[0], NOT_ENOUGH_REPLICAS_AFTER_APPEND, "the follower left while it was waited for")
        equal(produced(leader, topic, -1)[0], NOT_ENOUGH_REPLICAS, "it is known to have left")
        equal(produced(leader, topic, 1), (NONE, 2), "only the leader is asked, and the first of the two was appended")
    finally:
        os.kill(follower.process.pid, signal.SIGCONT)
    cluster.partition(topic, 0, error=0, isr=[0, 1])
    equal(produced(leader, topic, -1), (NONE, 3), "both are in sync again")
    cluster.end()
    cluster.same_logs(topic, 1, brokers=(0, 1))


def fetched_after(broker, topic, offset, last_epoch):
    """Fetch 12 of partition 0 by somebody whose log has `last_epoch` before `offset`: error, and where the logs part."""
    body = varint(0) + struct.pack(">iiiibii", -1, 100, 1, 1 << 20, 0, 0, -1) + varint(2)
    body += varint(len(topic) + 1) + topic.encode() + varint(2)
    body += struct.pack(">iiqiqi", 0, -1, offset, last_epoch, -1, 1 << 20) + varint(0) * 2
    body += varint(1) + varint(1) + varint(0)
    fields = asked(broker, FETCH, 12, body)
    equal(fields.number("b"), 0, "tags")
    fields.number("i"), fields.number("h"), fields.number("i"), fields.number("b")
    equal(fields.number("b"), len(topic) + 1, "length of the name")
    fields.at += len(topic) + 1
    fields.number("i")
    error = fields.number("h")
    fields.number("q"), fields.number("q"), fields.number("q")
    equal(fields.number("b") <= 1, True, "aborted transactions")
    fields.number("i")
    size, shift = 0, 0
    while True:
        byte = fields.number("B")
        size |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            break
    fields.at += max(size - 1, 0)
    parted = None
    for _ in range(fields.number("b")):
        tag, end = fields.number("b"), fields.number("b") + fields.at
        if tag == 0:
            parted = fields.number("i"), fields.number("q")
        fields.at = end
    return error, parted, size > 1


@scenario(180)
def where_logs_part(place):
    """Fetch with the last fetched epoch (KIP-595): who has more of an epoch than the leader is told where it ends, and gets nothing."""
    cluster = three(place)
    topic = place.name("t")
    cluster.create(topic, [0, 1, 2])
    for offset in range(3):
        equal(produced(cluster.brokers[0], topic, -1), (NONE, offset), "epoch 0")
    cluster.brokers[0].stop()
    epoch = cluster.partition(topic, 0, error=0, leader=1)["epoch"]
    leader = cluster.brokers[1]
    for offset in (3, 4):
        equal(produced(leader, topic, -1), (NONE, offset), f"epoch {epoch}")
    equal(fetched_after(leader, topic, 3, 0), (NONE, None, True), "as much of epoch 0 as there is")
    equal(fetched_after(leader, topic, 4, epoch), (NONE, None, True), "in the leader's own epoch")
    equal(fetched_after(leader, topic, 4, 0), (NONE, (0, 3), False), "more of epoch 0 than there is")
    equal(fetched_after(leader, topic, 5, epoch), (NONE, None, False), "at the end")
    equal(fetched_after(leader, topic, 4, epoch + 7), (OFFSET_OUT_OF_RANGE, None, False), "an epoch that is still to come")
    cluster.brokers[0].start()
    cluster.agreed(3)
    cluster.end()


def deleted(broker, topic, offset, timeout_ms=20000):
    """DeleteRecords 1 of partition 0: the low watermark, and the error."""
    body = struct.pack(">i", 1) + text(topic) + struct.pack(">iiqi", 1, 0, offset, timeout_ms)
    fields = asked(broker, DELETE_RECORDS, 1, body)
    fields.number("i"), fields.number("i"), fields.text(), fields.number("i"), fields.number("i")
    return fields.number("q"), fields.number("h")


@scenario(180)
def records_deleted_everywhere(place):
    """DeleteRecords is answered once every replica has deleted them; while one stands still it is not."""
    cluster = three(place, session_ms=15000, **{"replica.lag.time.max.ms": 15000})
    topic = place.name("t")
    cluster.create(topic, [0, 1, 2])
    leader, follower = cluster.brokers[0], cluster.brokers[2]
    for offset in range(10):
        equal(produced(leader, topic, -1), (NONE, offset), "records")
    equal(deleted(leader, topic, 6), (6, NONE), "deleted")
    for broker in cluster.brokers:
        equal(fetched(broker, topic, 6)["log_start"], 6, f"log start on {broker.directory.name}")
        equal(fetched(broker, topic, 5)["error"], OFFSET_OUT_OF_RANGE, f"what is deleted, on {broker.directory.name}")
    os.kill(follower.process.pid, signal.SIGSTOP)
    try:
        equal(deleted(leader, topic, 8, 1500)[1], REQUEST_TIMED_OUT, "one stands still")
    finally:
        os.kill(follower.process.pid, signal.SIGCONT)
    until(30, "it follows", lambda: fetched(follower, topic, 8)["log_start"] == 8)
    equal(deleted(leader, topic, -1), (10, NONE), "up to the high watermark")
    cluster.end()


@scenario(120)
def nobody_coordinates_transactions(place):
    """A leader of __transaction_state that is Milena says that no coordinator is available, to whoever asks for one or takes it for one."""
    if place.subject == "kafka":
        raise Skip("Apache Kafka's brokers coordinate")
    cluster = three(place)
    cluster.create("__transaction_state", [0, 1, 2], cleanup_policy="compact")
    for number, broker in enumerate(cluster.brokers):
        fields = asked(broker, FIND_COORDINATOR, 1, text("writer") + b"\1")
        fields.number("i")
        # The others cannot know what kind of broker the leader is.
        error = fields.number("h")
        fields.text()
        wanted = (COORDINATOR_NOT_AVAILABLE, -1) if number == 0 else (NONE, 0)
        equal((error, fields.number("i")), wanted, "FindCoordinator")
        fields = asked(broker, INIT_PRODUCER_ID, 1, text("writer") + struct.pack(">i", 60000))
        fields.number("i")
        equal(fields.number("h"), COORDINATOR_NOT_AVAILABLE, "InitProducerId")
    cluster.end()


@scenario(240)
def one_of_two_disks_fails(place):
    """JBOD: what lies on the disk that fails is led by others, and offline here; what lies on the other goes on."""
    if lacking := disks.missing("ext4"):
        raise Skip(lacking)
    disks.own_mounts()
    cluster = three(place, **{"offsets.topic.replication.factor": 3, "offsets.topic.num.partitions": 1})
    one = cluster.brokers[0]
    one.stop()
    disk = disks.Disk(place.directory / "disk-0", size=1 << 30)
    one.log_dirs.append(disk.mount / "data")
    one.start()
    cluster.agreed(3)
    topic = place.name("t")
    replicas = [[0, 1, 2], [0, 2, 1], [0, 1, 2], [0, 2, 1]]
    cluster.create(topic, *replicas, min_insync_replicas=2)
    lies_there = [number for number in range(4) if (disk.mount / f"data/{topic}-{number}").is_dir()]
    equal(len(lies_there), 2, f"partitions on the second disk: {lies_there}")
    librdkafka.produce(cluster.bootstrap, topic, records.samples(4), acks="all")
    stop = threading.Event()
    # A disk that nobody writes to is not seen to fail.
    writer = threading.Thread(target=lambda: [write_everywhere(cluster, topic, 4) for _ in iter(stop.is_set, True)])
    writer.start()
    disk.cut()
    for number, assigned in enumerate(replicas):
        fails = number in lies_there
        wanted = {"leader": assigned[1], "isr": [1, 2], "offline": [0]} if fails else {"leader": 0, "isr": [0, 1, 2], "offline": []}
        cluster.partition(topic, number, error=0, **wanted)
    stop.set()
    writer.join()
    librdkafka.produce(cluster.bootstrap, topic, records.samples(4), acks="all")
    equal(one.process.running(), True, "the broker goes on")
    one.kill()
    disk.detach()
    disk.attach()
    one.start()
    for number in range(4):
        cluster.partition(topic, number, error=0, isr=[0, 1, 2], offline=[])
    for broker in reversed(cluster.live()):
        broker.stop()
    disk.detach()


def write_everywhere(cluster, topic, partitions):
    sent = [records.Record(number, -1, records.TIME, None, b"x", ()) for number in range(partitions)]
    librdkafka.produce(cluster.bootstrap, topic, sent, acks="all")
