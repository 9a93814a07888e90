"""confluent-kafka as the tests use it: producing records, reading a topic back, and waiting where it only polls."""

import time

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from records import Record, digest
from scenario import until

# While a coordinator moves; librdkafka does not call all of them retriable.
MOVING = {KafkaError.COORDINATOR_NOT_AVAILABLE, KafkaError.COORDINATOR_LOAD_IN_PROGRESS, KafkaError.NOT_COORDINATOR,
          KafkaError._TIMED_OUT, KafkaError._TRANSPORT, KafkaError._WAIT_COORD, KafkaError.REQUEST_TIMED_OUT}


def producer(bootstrap, **settings):
    return Producer({"bootstrap.servers": bootstrap, "acks": "all", "linger.ms": 5,
                     **{key if key.endswith("_cb") else key.replace("_", "."): value for key, value in settings.items()}})


def consumer(bootstrap, group, **settings):
    return Consumer({"bootstrap.servers": bootstrap, "group.id": group, "enable.auto.commit": False,
                     "auto.offset.reset": "earliest", "session.timeout.ms": 10000, "fetch.wait.max.ms": 100,
                     **{key if key.endswith("_cb") else key.replace("_", "."): value for key, value in settings.items()}})


def admin(bootstrap):
    return AdminClient({"bootstrap.servers": bootstrap})


def create(bootstrap, topic, partitions=1, **config):
    """Creates a topic, waits until its partitions have leaders, and returns the admin client."""
    config = {key.replace("_", "."): str(value) for key, value in config.items()}
    client = admin(bootstrap)
    client.create_topics([NewTopic(topic, partitions, 1, config=config)])[topic].result(30)

    def led():
        found = client.list_topics(topic, timeout=20).topics[topic].partitions.values()
        return len(found) == partitions and all(p.leader >= 0 for p in found)

    until(10, f"{topic} has leaders", led)
    return client


def produce(bootstrap, topic, sent, **settings):
    """Produces the records and returns the (partition, offset) of each ack, in order of the records."""
    acks, errors = {}, []
    client = producer(bootstrap, **settings)

    def delivered(at):
        def note(error, message):
            if error:
                errors.append(error)
            else:
                acks[at] = (message.partition(), message.offset())
        return note

    for at, record in enumerate(sent):
        client.produce(topic, value=record.value, key=record.key, partition=record.partition,
                       timestamp=record.timestamp, headers=list(record.headers), on_delivery=delivered(at))
    left = client.flush(60)
    if errors or left:
        raise AssertionError(f"{left} records not delivered in 60 s, errors: {errors[:3]}")
    return [acks[at] for at in range(len(sent))]


def to_record(message):
    return Record(message.partition(), message.offset(), message.timestamp()[1], message.key(), digest(message.value()),
                  tuple(message.headers() or ()))


def read_all(bootstrap, topic, isolation="read_uncommitted", seconds=60, make=to_record):
    """All records of a topic from its first offset to its end, sorted by partition and offset."""
    client = consumer(bootstrap, f"reader-of-{topic}", enable_partition_eof=True, isolation_level=isolation,
                      check_crcs=True)
    try:
        # A broker that has just started may not know the topic yet.
        def known():
            found = client.list_topics(topic, timeout=20).topics[topic]
            return None if found.error or not found.partitions else found

        metadata = until(20, f"metadata of {topic}", known)
        client.assign([TopicPartition(topic, partition, OFFSET_BEGINNING) for partition in metadata.partitions])
        found, ended, deadline = [], set(), time.monotonic() + seconds
        while len(ended) < len(metadata.partitions):
            if time.monotonic() > deadline:
                raise AssertionError(f"{topic}: {len(found)} records and the ends of {sorted(ended)} in {seconds} s")
            for message in client.consume(500, timeout=0.2):
                if message.error() is None:
                    found.append(make(message))
                elif message.error().code() == KafkaError._PARTITION_EOF:
                    ended.add(message.partition())
                else:
                    raise AssertionError(f"{topic}: {message.error()}")
        return sorted(found, key=lambda r: (r.partition, r.offset) if isinstance(r, Record) else r)
    finally:
        client.close()
