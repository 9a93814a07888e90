"""kafkajs: produce in its codecs, consume in a group, administer."""

import records
from scenario import equal, scenario
from tools import Tools, node


@scenario(150)
def clients(place):
    """kafkajs produces and consumes every size; idempotent too."""
    driver = node(place)
    for at, codec in enumerate(("none", "gzip", "snappy", "lz4")):
        # kafkajs groups headers of one name and knows no null header.
        sent = [r for r in records.samples(seed=at)]
        sent = [records.replace(r, headers=tuple((f"{name}-{i}", data if data is not None else b"")
                                                 for i, (name, data) in enumerate(r.headers))) for r in sent]
        topic = place.name(codec)
        Tools(place).create(topic, 3)
        driver.round_trip(topic, place.name(codec), sent, f"kafkajs {codec}",
                          produce=(f"compression.type={codec}", f"enable.idempotence={'true' if at == 1 else 'false'}"))
        large = place.name(f"large-{codec}")
        Tools(place).create(large, 1, max_message_bytes=6000000)
        driver.round_trip(large, large, records.samples(1, [records.LARGE], headers=False), f"kafkajs {codec} 5 MB",
                          produce=(f"compression.type={codec}",))


@scenario(60)
def admin(place):
    """kafkajs creates, describes, alters, widens and deletes a topic."""
    (lines,) = node(place).run(("admin", place.name()))
    equal(dict(line.split("=", 1) for line in lines),
          {"created": "true", "again": "false", "nodes": "1", "controller": "0", "listed": "true", "partitions": "2",
           "retention.ms": "123456", "max.message.bytes": "1048588", "widened": "5", "deleted": "true"}, "admin facts")
