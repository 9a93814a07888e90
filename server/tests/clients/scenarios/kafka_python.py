"""kafka-python: every codec, a group, admin, offsets by time."""

import time

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType, NewPartitions, NewTopic
from kafka.errors import TopicAlreadyExistsError
from kafka.structs import OffsetAndMetadata

import records
from scenario import equal, scenario, until

LIMITS = {"max_request_size": 6_000_000, "buffer_memory": 64_000_000}


def admin_client(place):
    return KafkaAdminClient(bootstrap_servers=place.bootstrap)


def consume(place, topic, count, **settings):
    consumer = KafkaConsumer(topic, bootstrap_servers=place.bootstrap, auto_offset_reset="earliest",
                             enable_auto_commit=False, max_partition_fetch_bytes=6_000_000, **settings)
    found, deadline = [], time.monotonic() + 60
    while len(found) < count:
        if time.monotonic() > deadline:
            raise AssertionError(f"{topic}: {len(found)} of {count} records in 60 s")
        for batch in consumer.poll(200).values():
            found += [records.Record(r.partition, r.offset, r.timestamp, r.key, records.digest(r.value), tuple(r.headers))
                      for r in batch]
    return consumer, found


def produce(place, topic, sent, **settings):
    producer = KafkaProducer(bootstrap_servers=place.bootstrap, acks="all", linger_ms=10, **LIMITS, **settings)
    futures = [producer.send(topic, value=r.value, key=r.key, headers=list(r.headers), partition=r.partition,
                             timestamp_ms=r.timestamp) for r in sent]
    producer.flush(60)
    acks = [(f.get(30).partition, f.get(30).offset) for f in futures]
    producer.close()
    return acks


@scenario(150)
def codecs(place):
    """Every codec: contents, keys, headers, timestamps, acks; read in a group that commits."""
    admin = admin_client(place)
    sent = [r for r in records.samples() if r.value is not None]
    # The library cannot send a header without a value.
    sent = [records.replace(r, headers=tuple(h for h in r.headers if h[1] is not None)) for r in sent]
    for at, codec in enumerate((None, "gzip", "snappy", "lz4", "zstd")):
        topic = place.name(str(codec))
        admin.create_topics([NewTopic(topic, 3, 1)])
        acks = produce(place, topic, sent, compression_type=codec, enable_idempotence=bool(at % 2))
        consumer, got = consume(place, topic, len(sent), group_id=topic)
        records.compare(sent, got, f"kafka-python {codec}")
        equal(sorted(acks), sorted((r.partition, r.offset) for r in got), f"acks in {codec}")
        consumer.commit()
        ends = {p: consumer.committed(TopicPartition(topic, p)) for p in range(3)}
        equal(sum(ends.values()), len(sent), "committed")
        consumer.close()
    admin.close()


@scenario(60)
def large(place):
    """5 MB records in every codec where the topic permits them."""
    admin = admin_client(place)
    admin.create_topics([NewTopic(place.name(), 1, 1, topic_configs={"max.message.bytes": "6000000"})])
    sent = [r for r in records.samples(1, [records.LARGE], headers=False) if r.value is not None]
    codecs = (None, "gzip", "snappy", "lz4", "zstd")
    for codec in codecs:
        produce(place, place.name(), sent, compression_type=codec)
    consumer, got = consume(place, place.name(), len(codecs) * len(sent))
    records.compare(sent * len(codecs), got, "5 MB")
    consumer.close()
    admin.close()


@scenario(90)
def admin(place):
    """Topics, settings, groups and offsets by the admin client."""
    admin, topic, group = admin_client(place), place.name(), place.name("group")
    admin.create_topics([NewTopic(topic, 2, 1, topic_configs={"retention.ms": "1000000"})])
    try:
        admin.create_topics([NewTopic(topic, 2, 1)])
        raise RuntimeError("created twice")
    except TopicAlreadyExistsError:
        pass
    equal(topic in admin.list_topics(), True, "listed")
    admin.create_partitions({topic: NewPartitions(3)})
    until(10, "3 partitions", lambda: len(admin.describe_topics([topic])[0]["partitions"]) == 3)
    described = admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)])
    (resource,) = described[0].resources
    settings = {entry[0]: entry[1] for entry in resource[4]}
    equal(settings["retention.ms"], "1000000", "retention.ms")
    admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, {"retention.ms": "2000000"})])
    produce(place, topic, [records.Record(p, -1, records.TIME + i * 1000, b"k", str(i).encode(), ())
                           for i in range(20) for p in (0, 1, 2)])
    consumer = KafkaConsumer(bootstrap_servers=place.bootstrap, group_id=group, enable_auto_commit=False,
                             auto_offset_reset="earliest")
    parts = [TopicPartition(topic, p) for p in (0, 1, 2)]
    consumer.assign(parts)
    equal(consumer.end_offsets(parts), {p: 20 for p in parts}, "ends")
    equal(consumer.beginning_offsets(parts), {p: 0 for p in parts}, "beginnings")
    found = consumer.offsets_for_times({parts[0]: records.TIME + 4500, parts[1]: records.TIME + 10**9})
    equal((found[parts[0]].offset, found[parts[1]]), (5, None), "offsets by time")
    consumer.commit({parts[0]: OffsetAndMetadata(7, "seven", -1)})
    equal(consumer.committed(parts[0], metadata=True).metadata, "seven", "metadata of the commit")
    consumer.close()
    offsets = admin.list_consumer_group_offsets(group)
    equal(offsets[parts[0]].offset, 7, "offset of the group")
    equal(group in [g[0] for g in admin.list_consumer_groups()], True, "the group is listed")
    equal(admin.describe_consumer_groups([group])[0].state, "Empty", "state of the group")
    admin.delete_consumer_groups([group])
    admin.delete_topics([topic])
    until(10, "the topic is gone", lambda: topic not in admin.list_topics())
    admin.close()
