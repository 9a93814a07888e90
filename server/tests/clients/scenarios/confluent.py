"""confluent-kafka: every codec, admin, groups under load, static members, offsets and times."""

import threading
import time

from confluent_kafka import ConsumerGroupTopicPartitions, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import (AlterConfigOpType, ConfigEntry, ConfigResource, NewPartitions, NewTopic,
                                   OffsetSpec)

import librdkafka
import records
from scenario import equal, scenario, until


def create(place, topic, partitions=1, **config):
    return librdkafka.create(place.bootstrap, topic, partitions, **config)


@scenario(120)
def codecs(place):
    """Every codec, idempotent or not, 1 B to 900 KB: contents, keys, headers, timestamps and acks compared."""
    sent = records.samples()
    for at, codec in enumerate(("none", "gzip", "snappy", "lz4", "zstd")):
        topic = place.name(codec)
        create(place, topic, 3)
        acks = librdkafka.produce(place.bootstrap, topic, sent, compression_type=codec, enable_idempotence=bool(at % 2))
        got = librdkafka.read_all(place.bootstrap, topic)
        records.compare(sent, got, codec)
        equal(sorted(acks), [(r.partition, r.offset) for r in got], f"acks in {codec}")


@scenario(90)
def large(place):
    """5 MB records in every codec where the topic permits them; refused where it does not."""
    sent = records.samples(1, [records.LARGE])
    create(place, place.name(), 1, max_message_bytes=6000000)
    codecs = ("none", "gzip", "snappy", "lz4", "zstd")
    for codec in codecs:
        librdkafka.produce(place.bootstrap, place.name(), sent, message_max_bytes=7000000, compression_type=codec)
    records.compare(sent * len(codecs), librdkafka.read_all(place.bootstrap, place.name()), "5 MB")
    create(place, place.name("small"), 1)
    try:
        librdkafka.produce(place.bootstrap, place.name("small"), sent[:1], message_max_bytes=7000000)
        raise RuntimeError("a record of 5 MB was taken by a topic that permits 1 MB")
    except AssertionError as refused:
        equal("MSG_SIZE_TOO_LARGE" in str(refused), True, f"reason of the refusal: {refused}")


@scenario(60)
def log_append_time(place):
    """A topic with LogAppendTime and a codec of its own stamps and recompresses."""
    create(place, place.name(), 1, message_timestamp_type="LogAppendTime", compression_type="lz4")
    sent = records.samples(1, [10, 1000, 100_000])
    before = int(time.time() * 1000) - 1000
    for codec in ("none", "gzip"):
        librdkafka.produce(place.bootstrap, place.name(), sent, compression_type=codec)
    got = librdkafka.read_all(place.bootstrap, place.name())
    records.compare(sent + sent, got, "LogAppendTime", timestamps=False)
    equal(all(before <= r.timestamp <= time.time() * 1000 + 1000 for r in got), True, "timestamps are those of the broker")


@scenario(60)
def admin(place):
    """Topics, partitions, settings, groups and offsets by the admin client."""
    topic, group = place.name(), place.name("group")
    admin = create(place, topic, 2, retention_ms=1000000)
    try:
        admin.create_topics([NewTopic(topic, 1, 1)])[topic].result(30)
        raise RuntimeError("created twice")
    except KafkaException as refused:
        equal(refused.args[0].code(), KafkaError.TOPIC_ALREADY_EXISTS, "created again")
    admin.create_topics([NewTopic(topic + "-not", 1, 1)], validate_only=True)[topic + "-not"].result(30)
    equal(topic + "-not" in admin.list_topics().topics, False, "validated only")
    admin.create_partitions([NewPartitions(topic, 4)])[topic].result(30)
    until(10, "4 partitions", lambda: len(admin.list_topics(topic).topics[topic].partitions) == 4)
    resource = ConfigResource(ConfigResource.Type.TOPIC, topic, incremental_configs=[
        ConfigEntry("cleanup.policy", "compact", incremental_operation=AlterConfigOpType.APPEND),
        ConfigEntry("retention.ms", None, incremental_operation=AlterConfigOpType.DELETE)])
    admin.incremental_alter_configs([resource])[resource].result(30)
    (described,) = admin.describe_configs([ConfigResource(ConfigResource.Type.TOPIC, topic)]).values()
    config = described.result(30)
    equal((config["cleanup.policy"].value, config["retention.ms"].value), ("delete,compact", "604800000"), "settings")
    sent = [r for r in records.samples(1, [10]) if r.key is not None]
    librdkafka.produce(place.bootstrap, topic, sent)
    # The first question to a coordinator creates the offsets topic; librdkafka's admin client does not wait for that.
    librdkafka.consumer(place.bootstrap, group).committed([TopicPartition(topic, 0)], timeout=30)
    admin.alter_consumer_group_offsets([ConsumerGroupTopicPartitions(group, [TopicPartition(topic, 0, 3)])])[group].result(30)
    listed = admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(group)])[group].result(30)
    equal([(p.topic, p.partition, p.offset) for p in listed.topic_partitions], [(topic, 0, 3)], "offsets of the group")
    until(10, "the group is listed", lambda: group in [
        g.group_id for g in admin.list_consumer_groups().result(30).valid])
    described = admin.describe_consumer_groups([group])[group].result(30)
    equal((str(described.state), len(described.members)), ("ConsumerGroupState.EMPTY", 0), "description of the group")
    admin.delete_consumer_groups([group])[group].result(30)
    ends = admin.list_offsets({TopicPartition(topic, 0): OffsetSpec.latest()})
    (end,) = ends.values()
    equal(end.result(30).offset, len(sent), "end offset")
    low = admin.delete_records([TopicPartition(topic, 0, 2)])
    equal([f.result(30).low_watermark for f in low.values()], [2], "low watermark")
    admin.delete_topics([topic])[topic].result(30)
    until(10, "the topic is gone", lambda: topic not in admin.list_topics().topics)


@scenario(60)
def offsets_and_times(place):
    """Commit with metadata, fetch, watermarks, seek by timestamp, committed across consumers."""
    topic, group = place.name(), place.name("group")
    create(place, topic, 2)
    sent = [records.Record(i % 2, -1, records.TIME + i * 1000, b"k", str(i).encode(), ()) for i in range(200)]
    librdkafka.produce(place.bootstrap, topic, sent)
    consumer = librdkafka.consumer(place.bootstrap, group)
    both = [TopicPartition(topic, 0), TopicPartition(topic, 1)]
    equal([consumer.get_watermark_offsets(p, timeout=10) for p in both], [(0, 100)] * 2, "watermarks")
    found = consumer.offsets_for_times([TopicPartition(topic, p, records.TIME + 50_500) for p in (0, 1)], timeout=10)
    equal([p.offset for p in found], [26, 25], "offsets by time")
    found = consumer.offsets_for_times([TopicPartition(topic, 0, records.TIME + 10_000_000)], timeout=10)
    equal(found[0].offset, -1, "offset after the last time")
    consumer.assign([TopicPartition(topic, 1, 25)])
    message = until(20, "a record", lambda: consumer.poll(0.5))
    equal((message.offset(), message.value()), (25, b"51"), "record at the time sought")
    commit = [TopicPartition(topic, 0, 26, "here"), TopicPartition(topic, 1, 25)]
    consumer.commit(offsets=commit, asynchronous=False)
    consumer.close()
    other = librdkafka.consumer(place.bootstrap, group)
    equal([p.offset for p in other.committed(both, timeout=10)], [26, 25], "committed offsets")
    equal(other.committed(both, timeout=10)[0].metadata, "here", "metadata of the commit")
    other.close()


class Member(threading.Thread):
    """A consumer in a group that counts what it got and what was assigned to it."""

    def __init__(self, place, topic, group, **settings):
        super().__init__(daemon=True)
        self.consumer = librdkafka.consumer(place.bootstrap, group, **settings)
        self.values, self.owned, self.assignments, self.revocations = set(), set(), 0, 0
        self.errors, self.leave = [], threading.Event()
        self.consumer.subscribe([topic], on_assign=self.assigned, on_revoke=self.revoked)
        self.start()

    def assigned(self, _, partitions):
        self.assignments += 1
        self.owned |= {p.partition for p in partitions}

    def revoked(self, _, partitions):
        self.revocations += 1
        self.owned -= {p.partition for p in partitions}

    def run(self):
        try:
            while not self.leave.is_set():
                got = self.consumer.consume(200, timeout=0.1)
                for message in got:
                    if message.error():
                        self.errors.append(message.error())
                    else:
                        self.values.add(message.value())
                if got:
                    try:
                        self.consumer.commit(asynchronous=False)
                    except KafkaException as error:
                        if error.args[0].code() not in (KafkaError.ILLEGAL_GENERATION, KafkaError._NO_OFFSET,
                                                        KafkaError.REBALANCE_IN_PROGRESS, KafkaError.UNKNOWN_MEMBER_ID):
                            self.errors.append(error)
        except Exception as error:
            self.errors.append(error)
        finally:
            self.consumer.close()

    def quit(self):
        self.leave.set()
        self.join(30)


def rebalanced(place, strategy):
    topic, group = place.name(), place.name("group")
    admin = create(place, topic, 6)
    sent, stop = [0], threading.Event()
    failed = []

    def load():
        producer = librdkafka.producer(place.bootstrap, enable_idempotence=True)
        note = lambda error, _: failed.append(error) if error else None  # noqa: E731
        while not stop.is_set():
            producer.produce(topic, value=str(sent[0]).encode(), key=str(sent[0] % 97).encode(), on_delivery=note)
            sent[0] += 1
            producer.poll(0.0005)
            while len(producer) > 2000:
                producer.poll(0.01)
        producer.flush(30)

    producing = threading.Thread(target=load, daemon=True)
    producing.start()
    settings = {"partition_assignment_strategy": strategy}
    members = [Member(place, topic, group, **settings)]

    def balanced(over):
        owned = [m.owned for m in over]
        return all(owned) and sum(map(len, owned)) == 6 and set.union(*owned) == set(range(6))

    until(40, "one member owns all", lambda: balanced(members))
    members += [Member(place, topic, group, **settings), Member(place, topic, group, **settings)]
    until(40, "three members share", lambda: balanced(members))
    members[0].quit()
    until(40, "two members share", lambda: balanced(members[1:]))
    members.append(Member(place, topic, group, **settings))
    until(40, "three members share again", lambda: balanced(members[1:]))
    stop.set()
    producing.join(40)
    wanted = {str(i).encode() for i in range(sent[0])}
    try:
        until(40, "all records are read", lambda: wanted <= set.union(*(m.values for m in members)))
    except AssertionError:
        lost = wanted - set.union(*(m.values for m in members))
        raise AssertionError(f"{len(lost)} of {len(wanted)} records not read: {sorted(lost)[:5]}") from None
    for member in members:
        member.quit()
    equal((failed[:3], [e for m in members for e in m.errors][:3]), ([], []), "errors of producer and members")
    reader = librdkafka.consumer(place.bootstrap, group)
    partitions = [TopicPartition(topic, p) for p in range(6)]
    committed = [p.offset for p in reader.committed(partitions, timeout=10)]
    ends = [reader.get_watermark_offsets(p, timeout=10)[1] for p in partitions]
    equal(committed, ends, "committed offsets at the end")
    equal(sum(ends), sent[0], "records in the topic")
    reader.close()
    print(f"{sent[0]} records, {[m.assignments for m in members]} assignments")
    admin.delete_topics([topic])[topic].result(30)


@scenario(150)
def rebalances_cooperative(place):
    """Members join and leave under load with cooperative-sticky: every record is read, offsets end at the ends."""
    rebalanced(place, "cooperative-sticky")


@scenario(150)
def rebalances_eager(place):
    """The same with the range assignor."""
    rebalanced(place, "range")


@scenario(90)
def static_members(place):
    """A static member that comes back gets its partitions without a rebalance; a second one fences the first."""
    topic, group = place.name(), place.name("group")
    create(place, topic, 4)
    first = Member(place, topic, group, group_instance_id="one", session_timeout_ms=30000)
    second = Member(place, topic, group, group_instance_id="two", session_timeout_ms=30000)
    until(40, "both share", lambda: len(first.owned) == 2 and len(second.owned) == 2)
    before, assignments = set(first.owned), second.assignments
    first.quit()
    equal(first.errors, [], "errors of the first")
    again = Member(place, topic, group, group_instance_id="one", session_timeout_ms=30000)
    until(40, "it is back", lambda: len(again.owned) == 2)
    equal((again.owned, second.assignments), (before, assignments), "assignment after the return")
    impostor = Member(place, topic, group, group_instance_id="two", session_timeout_ms=30000)
    until(40, "the fenced one is told", lambda: any(
        getattr(e, "code", lambda: None)() in (KafkaError.FENCED_INSTANCE_ID, KafkaError._FATAL)
        for e in second.errors))
    for member in (again, impostor, second):
        member.quit()
