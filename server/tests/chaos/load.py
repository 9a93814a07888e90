#!/usr/bin/env python3
"""The clients of librdkafka: `load.py BOOTSTRAP DIRECTORY SPEC`, where SPEC is JSON. Each writes its ledger into the directory.

Goes on until told otherwise by a line on stdin: `stop` (send no more, wait for outcomes), then `end` (consumers too).
"""

import json
import os
import random
import sys
import threading
import time
from pathlib import Path

sys.dont_write_bytecode = True

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Producer, TopicPartition  # noqa: E402

import ledger  # noqa: E402

FOR_EVER = 2147483647
COMMON = {"socket.timeout.ms": 4000, "reconnect.backoff.ms": 30, "reconnect.backoff.max.ms": 400, "retry.backoff.ms": 50,
          "socket.connection.setup.timeout.ms": 2000, "topic.metadata.refresh.interval.ms": 5000, "log_level": 4}
# `MILENA_CHAOS_DEBUG=topic,fetch`: what members of groups do, in the log of these clients.
DEBUG = {"debug": os.environ["MILENA_CHAOS_DEBUG"], "log_level": 7} if "MILENA_CHAOS_DEBUG" in os.environ else {}
CERTAIN = {KafkaError._PURGE_QUEUE, KafkaError.MSG_SIZE_TOO_LARGE, KafkaError._QUEUE_FULL}
stop, end = threading.Event(), threading.Event()
locked_up = []  # clients that would not come back from their end


def size(rng):
    dice = rng.random()
    if dice < 0.9:
        return rng.randrange(1, 300)
    if dice < 0.99:
        return rng.randrange(300, 5000)
    return rng.randrange(5000, 40000) if dice < 0.9997 else rng.randrange(100_000, 1_000_000)


class Sender(threading.Thread):
    """Sends bursts to partitions at random, each record with its outcome in the ledger. `restarts`: may begin anew after an error
    that ends an idempotent producer (a name of its own each time), where losses are allowed."""

    def __init__(self, bootstrap, directory, spec, seed):
        super().__init__(daemon=True)
        self.bootstrap, self.directory, self.spec = bootstrap, directory, spec
        self.rng = random.Random(seed)
        self.generation = 0
        self.start()

    def run(self):
        while not self.life() and self.spec.get("restarts") and not stop.is_set():
            self.generation += 1

    def life(self):
        """Whether it came to its end without such an error."""
        spec = self.spec
        name = spec["name"] + (f".{self.generation}" if self.generation else "")
        book = ledger.Writer(self.directory / f"{name}.ledger", "producer", name, spec["topic"], "librdkafka")
        fatal = []

        def noted(counter):
            def outcome(error, message):
                if error is None:
                    # The library counts an answer of "duplicate" as an ack, and then knows no offset.
                    offset = message.offset()
                    book.write("a", counter, -1 if offset is None else offset, ledger.now())
                else:
                    book.write("f" if error.code() in CERTAIN else "u", counter, error.str())
            return outcome

        def failed(error):
            if error.fatal():
                fatal.append(error)
                book.write("x", error.str())

        client = Producer({"bootstrap.servers": self.bootstrap, **COMMON, "acks": "all", "enable.idempotence": True,
                           "message.timeout.ms": FOR_EVER, "request.timeout.ms": 3000, "linger.ms": 2, "error_cb": failed,
                           **spec.get("settings", {})})
        counter, due = 0, time.monotonic()
        while not stop.is_set() and not fatal:
            for _ in range(self.rng.randrange(1, spec["burst"]) if len(client) < 400 else 0):
                counter += 1
                length, partition, at = size(self.rng), self.rng.randrange(spec["partitions"]), ledger.now()
                value = ledger.payload(name, counter, length)
                book.write("i", counter, partition, at, length)
                try:
                    client.produce(spec["topic"], value, name, partition, noted(counter), timestamp=at,
                                   headers=[("n", str(counter))])
                except (KafkaException, BufferError) as error:
                    # Not even taken: a broker that has just started told the library that there is no such topic.
                    book.write("f", counter, str(error).replace("\t", " "))
                    break
            due = max(due + spec["pause"], time.monotonic() - 0.2)
            while (left := due - time.monotonic()) > 0 and not stop.is_set():
                client.poll(left)
        while len(client) and not fatal:
            client.poll(0.2)
        if fatal:
            client.purge()
            client.flush(5)
        return not fatal


class Follower(threading.Thread):
    """Reads all partitions of topics by assignment.

    From 2.10 on librdkafka can lock itself up for good when a broker goes away: its own thread holds a partition
    (`rd_kafka_toppar_handle_OffsetForLeaderEpoch`) and waits for the client, which the thread of the broker holds that waits for the
    partition (`rd_kafka_toppar_forget_leader`). No answer of a broker ends that. So where the library's own thread is silent, another
    client goes on where this one was, and the ledger says so.
    """

    SILENT_SECONDS_MAX = 15

    def __init__(self, bootstrap, directory, name, topics):
        super().__init__(daemon=True)
        self.book = ledger.Writer(directory / f"{name}.ledger", "consumer", name, "-", "librdkafka")
        self.settings = {"bootstrap.servers": bootstrap, **COMMON, "group.id": name, "enable.auto.commit": False,
                         "auto.offset.reset": "earliest", "fetch.wait.max.ms": 200, "check.crcs": True,
                         "statistics.interval.ms": 1000, "stats_cb": self.heard, **DEBUG}
        self.positions = {(topic, partition): OFFSET_BEGINNING for topic, count in topics.items() for partition in range(count)}
        self.start()

    def heard(self, _statistics):
        self.last_heard = time.monotonic()

    def connect(self):
        self.last_heard = time.monotonic()
        client = Consumer(self.settings)
        client.assign([TopicPartition(*where, offset) for where, offset in self.positions.items()])
        return client

    def run(self):
        client = self.connect()
        while not end.is_set():
            for message in client.consume(500, 0.2):
                if note(self.book, message):
                    self.positions[message.topic(), message.partition()] = message.offset() + 1
            if time.monotonic() - self.last_heard > self.SILENT_SECONDS_MAX:
                locked_up.append(client)
                self.book.write("h", ledger.now())
                client = self.connect()
        client.close()


def note(book, message):
    if message.error() is None:
        producer, counter, mark = ledger.read_payload(message.value())
        book.write("r", message.topic(), message.partition(), message.offset(), producer, counter, mark)
        return True
    return False


class Member(threading.Thread):
    """A member of a group: reads, and commits what it read."""

    def __init__(self, bootstrap, directory, name, group, topics):
        super().__init__(daemon=True)
        self.book = ledger.Writer(directory / f"{name}.ledger", "consumer", name, group, "librdkafka")
        self.client = Consumer({"bootstrap.servers": bootstrap, **COMMON, "group.id": group, "enable.auto.commit": False,
                                "auto.offset.reset": "earliest", "session.timeout.ms": 4000, "heartbeat.interval.ms": 700,
                                "fetch.wait.max.ms": 200, "check.crcs": True,
                                "partition.assignment.strategy": "range", **DEBUG})
        self.client.subscribe(topics, on_assign=self.assigned)
        self.start()

    def assigned(self, client, partitions):
        asked, at = time.monotonic() + 60, ledger.now()
        while partitions:
            try:
                known = client.committed(partitions, timeout=5)
                break
            except KafkaException:
                if time.monotonic() > asked:
                    raise
                at = ledger.now()
        else:
            return
        for one in known:
            self.book.write("s", one.topic, one.partition, max(one.offset, -1), at)
        client.assign([TopicPartition(one.topic, one.partition, one.offset if one.offset >= 0 else OFFSET_BEGINNING)
                       for one in known])

    def run(self):
        due = time.monotonic()
        while not end.is_set():
            for message in self.client.consume(300, 0.2):
                note(self.book, message)
            if time.monotonic() > due:
                due = time.monotonic() + 0.4
                try:
                    for one in self.client.commit(asynchronous=False) or []:
                        if one.error is None and one.offset >= 0:
                            self.book.write("c", one.topic, one.partition, one.offset, ledger.now())
                except KafkaException:
                    pass  # without an answer, or without anything to commit; what was read stays read
        self.client.close()


class Onlooker(threading.Thread):
    """Asks again and again for what a group has committed."""

    def __init__(self, bootstrap, directory, group, topics):
        super().__init__(daemon=True)
        self.book = ledger.Writer(directory / f"onlooker-{group}.ledger", "consumer", f"onlooker-{group}", group, "librdkafka")
        self.partitions = [TopicPartition(topic, partition) for topic, count in topics.items() for partition in range(count)]
        self.client = Consumer({"bootstrap.servers": bootstrap, **COMMON, "group.id": group})
        self.start()

    def run(self):
        while not end.wait(0.5):
            at = ledger.now()
            try:
                known = self.client.committed(self.partitions, timeout=5)
            except KafkaException:
                continue
            for one in known:
                if one.error is None and one.offset >= 0:
                    self.book.write("o", one.topic, one.partition, one.offset, at)
        self.client.close()


def main():
    bootstrap, directory, spec = sys.argv[1], Path(sys.argv[2]), json.loads(sys.argv[3])
    topics = spec["topics"]
    senders = [Sender(bootstrap, directory, one, spec["seed"] + at) for at, one in enumerate(spec["producers"])]
    readers = [Follower(bootstrap, directory, "follower", topics)]
    for group, members in spec["groups"].items():
        readers += [Member(bootstrap, directory, f"{group}-{number}", group, list(topics)) for number in range(members)]
    readers += [Onlooker(bootstrap, directory, group, topics) for group in spec["watched"]]
    for line in sys.stdin:
        if line.strip() == "stop":
            stop.set()
        elif line.strip() == "end":
            break
    stop.set()
    end.set()
    for thread in readers:
        thread.join(20)
    for thread in senders:
        thread.join(1)
    if locked_up:
        os._exit(0)


if __name__ == "__main__":
    main()
