"""Brokers that stop and are killed while an idempotent producer and a group go on."""

import threading

import librdkafka
from confluent_kafka import TopicPartition
from scenario import equal, scenario, until


def through(place, end):
    broker = place.start()
    topic, group = place.name(), place.name("group")
    librdkafka.create(broker.bootstrap, topic, 2)
    acked, errors, stop = {}, [], threading.Event()
    producer = librdkafka.producer(broker.bootstrap, enable_idempotence=True, message_timeout_ms=60000,
                                   compression_type="lz4", reconnect_backoff_max_ms=500, retry_backoff_ms=50)
    count = [0]

    def delivered(error, message):
        if error:
            errors.append(error)
        else:
            acked[message.value()] = (message.partition(), message.offset())

    def load():
        while not stop.is_set():
            producer.produce(topic, value=f"{count[0]}".encode(), partition=count[0] % 2, on_delivery=delivered)
            count[0] += 1
            producer.poll(0.0005)
            while len(producer) > 2000:
                producer.poll(0.01)

    loading = threading.Thread(target=load, daemon=True)
    loading.start()
    until(30, "500 acks", lambda: len(acked) > 500)
    reader = librdkafka.consumer(broker.bootstrap, group)
    reader.assign([TopicPartition(topic, 0, 0)])
    until(30, "records", lambda: reader.consume(10, timeout=1))
    reader.commit(offsets=[TopicPartition(topic, 0, 123, "before")], asynchronous=False)
    for _ in range(2):
        end(broker)
        seconds = broker.start()
        print(f"serves again after {seconds:.2f} s")
        mark = len(acked)
        until(40, "acks after the restart", lambda: len(acked) > mark + 500)
    stop.set()
    loading.join(30)
    left = producer.flush(60)
    equal((left, errors[:3]), (0, []), "undelivered records, errors")
    equal(len(acked), count[0], "acks")
    # In each partition every record once, in order, where its ack said.
    found = librdkafka.read_all(broker.bootstrap, topic, make=lambda m: (m.partition(), m.offset(), m.value()))
    equal(found == sorted((p, o, v) for v, (p, o) in acked.items()), True,
          f"{len(found)} records read are those acked ({len(acked)})")
    for partition in (0, 1):
        values = [int(v) for p, _, v in found if p == partition]
        equal(values == list(range(partition, count[0], 2)), True, f"partition {partition} is in order, once each")
    (committed,) = until(30, "committed", lambda: reader.committed([TopicPartition(topic, 0)], timeout=20))
    equal((committed.offset, committed.metadata), (123, "before"), "offset committed before the restarts")
    reader.close()
    broker.stop()


@scenario(150)
def clean_stops(place):
    """Idempotent producer through two clean restarts: nothing lost, no duplicates, order kept."""
    through(place, lambda broker: broker.stop())


@scenario(150)
def kills(place):
    """Idempotent producer through two kill -9: nothing lost, no duplicates, order kept."""
    through(place, lambda broker: broker.kill())
