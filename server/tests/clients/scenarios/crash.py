"""`kill -9` again and again under load, checked against a ledger of every ack."""

import random
import threading
import time

from confluent_kafka import KafkaError

import history
import librdkafka
from scenario import equal, scenario, until

WRITERS = [("acks=1", 0, {"acks": 1}), ("acks=1, lz4", 1, {"acks": 1, "compression_type": "lz4"}),
           ("idempotent", 2, {"enable_idempotence": True}),
           ("idempotent, zstd", 3, {"enable_idempotence": True, "compression_type": "zstd"})]
# Errors after which a producer gives a record up and the run goes on: the ledger has no ack for it.
GIVEN_UP = {KafkaError._MSG_TIMED_OUT, KafkaError._PURGE_QUEUE, KafkaError._PURGE_INFLIGHT, KafkaError._TIMED_OUT_QUEUE}


def filler(number):
    return "x" * (number % 300)


def number_of(message):
    """The number that a value carries; the value itself if it is not what was sent under that number."""
    value = message.value()
    number, _, rest = value.decode(errors="replace").partition("/")
    return int(number) if number.isdecimal() and rest == filler(int(number)) else value


class Writer(threading.Thread):
    """Sends numbered values to one partition until told to stop."""

    def __init__(self, bootstrap, topic, name, partition, settings):
        super().__init__(daemon=True)
        self.topic = topic
        self.history = history.History(name, partition, bool(settings.get("enable_idempotence")))
        self.producer = librdkafka.producer(bootstrap, message_timeout_ms=120000, retry_backoff_ms=50,
                                            reconnect_backoff_max_ms=300, linger_ms=2, **settings)
        self.errors, self.ending = [], threading.Event()
        self.start()

    def delivered(self, error, message):
        if error is None:
            self.history.acked[number_of(message)] = message.offset()
        elif error.code() not in GIVEN_UP:
            self.errors.append(error)

    def run(self):
        count = 0
        while not self.ending.is_set():
            self.history.sent.append(count)
            self.producer.produce(self.topic, value=f"{count}/{filler(count)}", partition=self.history.partition,
                                  on_delivery=self.delivered)
            count += 1
            self.producer.poll(0.0005)
            while len(self.producer) > 1000:
                self.producer.poll(0.01)

    def finish(self):
        self.ending.set()
        self.join(30)
        return self.producer.flush(60)


@scenario(120)
def kills(place):
    """N kills under load: acks=1 nothing acked is lost; idempotent acks=all nothing is lost, doubled or reordered."""
    cycles, rng = place.options["cycles"], random.Random(place.options["seed"])
    broker = place.start({"log.segment.bytes": "4000000", "log.index.interval.bytes": "512"})
    topic = place.name()
    librdkafka.create(broker.bootstrap, topic, len(WRITERS))
    writers = [Writer(broker.bootstrap, topic, name, partition, settings) for name, partition, settings in WRITERS]
    downtime = []
    for cycle in range(cycles):
        marks = [len(w.history.acked) for w in writers]
        until(60, f"cycle {cycle}: acks for every writer, {[w.errors[:1] for w in writers]}",
              lambda: all(len(w.history.acked) > mark + 50 for w, mark in zip(writers, marks)))
        time.sleep(rng.uniform(0, 0.5))
        broker.kill()
        downtime.append(broker.start())
    left = [writer.finish() for writer in writers]
    equal([w.errors[:3] for w in writers], [[] for _ in writers], "errors of the writers")
    equal(left, [0] * len(writers), "records without an outcome")
    histories = [writer.history for writer in writers]
    log = librdkafka.read_all(broker.bootstrap, topic, seconds=300,
                              make=lambda m: (m.partition(), m.offset(), number_of(m)))
    again = {h.producer: sum(1 for p, _, _ in log if p == h.partition) - len(h.sent) for h in histories}
    print(f"{cycles} kills, {sum(len(h.acked) for h in histories)} acked, {len(log)} in the log, beyond those sent: {again}, "
          f"serving again after {max(downtime):.2f} s at most")
    violations = history.check(histories, log)
    if violations:
        raise AssertionError(f"{len(violations)} violations:\n" + "\n".join(violations[:20]))
    for name, mutated, mutated_log in history.mutations(*history.beginning(histories, log, 2000)):
        equal(bool(history.check(mutated, mutated_log)), True, f"the checker finds: {name}")
    broker.stop()
