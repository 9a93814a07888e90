"""Producers that go on while brokers are killed, and keep a ledger of every ack."""

import threading

from confluent_kafka import KafkaError

import history
import librdkafka
from scenario import until

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
    """Sends numbered values to one partition until told to stop, with a pause of so many seconds between them."""

    def __init__(self, bootstrap, topic, name, partition, settings, pause=0.0005):
        super().__init__(daemon=True)
        self.pause = pause
        self.topic = topic
        self.history = history.History(name, partition, bool(settings.get("enable_idempotence")))
        self.producer = librdkafka.producer(bootstrap, **{"message_timeout_ms": 120000, "retry_backoff_ms": 50,
                                                          "reconnect_backoff_max_ms": 300, "linger_ms": 2, **settings})
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
            self.producer.poll(self.pause)
            while len(self.producer) > 1000:
                self.producer.poll(0.01)

    def finish(self):
        self.ending.set()
        self.join(30)
        return self.producer.flush(60)


def entry(message):
    """(partition, offset, number) of a message that a writer sent."""
    return message.partition(), message.offset(), number_of(message)


def all_acked(writers, count):
    """Waits for so many more acks of every writer."""
    marks = [len(writer.history.acked) for writer in writers]
    until(60, f"acks for every writer, {[writer.errors[:1] for writer in writers]}", lambda: all(
        len(writer.history.acked) > mark + count for writer, mark in zip(writers, marks)))
