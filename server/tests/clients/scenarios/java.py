"""The Java client of an old 1.x, 2.7.2, a 3.x and a 4.x: produce, consume in a group, administer."""

import records
from scenario import equal, scenario
from tools import Tools, java

FACTS = {"nodes": "1", "controller": "0", "listed": "true", "partitions": "2", "leader": "0", "isr": "1",
         "retention.ms": "123456", "segment.bytes": "1073741824", "widened": "5", "again": "TopicExistsException",
         "deleted": "true"}


def client(place, version, codecs):
    driver, tools = java(place, version), Tools(place)
    commands, topics = [], []
    sent = records.samples()
    path = records.write(place.directory / "sent", sent)
    for at, codec in enumerate(codecs):
        topic = place.name(codec)
        topics.append(topic)
        tools.create(topic, 3)
        commands.append(("produce", topic, path, f"compression.type={codec}", "acks=all", "max.request.size=1040000",
                         "linger.ms=10", f"enable.idempotence={'true' if at % 2 else 'false'}"))
        commands.append(("consume", topic, len(sent), place.directory / codec, f"group.id={place.name(codec)}",
                         "isolation.level=" + ("read_committed" if at % 2 else "read_uncommitted")))
    large = place.name("large")
    tools.create(large, 1, max_message_bytes=6000000)
    large_sent = records.samples(1, [records.LARGE])
    large_path = records.write(place.directory / "large.sent", large_sent)
    commands += [("produce", large, large_path, "acks=all", f"compression.type={codec}", "max.request.size=6000000",
                  "buffer.memory=40000000") for codec in codecs]
    commands.append(("consume", large, len(large_sent) * len(codecs), place.directory / "large", f"group.id={large}",
                     "max.partition.fetch.bytes=6000000"))
    commands.append(("admin", place.name("admin")))
    answers = driver.run(*commands)
    for at, codec in enumerate(codecs):
        got = records.load(place.directory / codec)
        records.compare(sent, got, f"{version} {codec}")
        equal(sorted(f"{r.partition} {r.offset}" for r in got), sorted(answers[2 * at]), f"acks of {version} {codec}")
    records.compare(large_sent * len(codecs), records.load(place.directory / "large"), f"{version} 5 MB")
    equal(dict(line.split("=", 1) for line in answers[-1]), FACTS, f"what the admin client of {version} found")


@scenario(160)
def client_1_1(place):
    """kafka-clients 1.1.1, with no zstd yet."""
    client(place, "1.1.1", ["none", "gzip", "snappy", "lz4"])


@scenario(160)
def client_2_7(place):
    """kafka-clients 2.7.2."""
    client(place, "2.7.2", ["none", "gzip", "snappy", "lz4", "zstd"])


@scenario(160)
def client_3_9(place):
    """kafka-clients 3.9."""
    client(place, "3.9.1", ["none", "gzip", "snappy", "lz4", "zstd"])


@scenario(160)
def client_4_1(place):
    """kafka-clients 4.1."""
    client(place, "4.1.0", ["none", "gzip", "snappy", "lz4", "zstd"])
