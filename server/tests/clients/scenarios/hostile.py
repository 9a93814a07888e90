"""Malformed frames on live sockets while a normal client works: it sees no error, and memory stays flat."""

import collections
import random
import select
import socket
import threading
import time

import frames
import librdkafka
from confluent_kafka import TopicPartition
from scenario import Skip, equal, scenario, until

# What memory may grow by, and what each partition may cost that a frame asked for and got.
GROWTH = 48 << 20
GROWTH_PER_PARTITION = 5000


class Client(threading.Thread):
    """Produces and reads back all the while; notes every error and the longest wait."""

    def __init__(self, bootstrap, topic, group):
        super().__init__(daemon=True)
        self.errors, self.ending, self.done, self.longest = [], threading.Event(), 0, 0.0
        settings = {"error_cb": lambda error: self.errors.append(error)}
        self.producer = librdkafka.producer(bootstrap, **settings, linger_ms=0)
        self.consumer = librdkafka.consumer(bootstrap, group, **settings)
        self.topic = topic
        self.consumer.assign([TopicPartition(topic, 0, 0)])
        self.start()

    def run(self):
        try:
            while not self.ending.is_set():
                began = time.monotonic()
                self.producer.produce(self.topic, value=str(self.done).encode(), partition=0,
                                      on_delivery=lambda error, _: error and self.errors.append(error))
                if self.producer.flush(20):
                    raise AssertionError("a record was not acked in 20 s")
                message = self.consumer.poll(20)
                if message is None or message.error() or message.value() != str(self.done).encode():
                    raise AssertionError(f"record {self.done} was not read back: {message and message.error()}")
                self.consumer.commit(message, asynchronous=False)
                self.longest = max(self.longest, time.monotonic() - began)
                self.done += 1
        except Exception as error:
            self.errors.append(error)

    def finish(self):
        self.ending.set()
        self.join(60)
        self.consumer.close()


def send(port, spoiled, patience):
    """Sends one frame on its own connection; says how it ended."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        try:
            connection.sendall(spoiled)
            ready, _, _ = select.select([connection], [], [], patience)
            if not ready:
                return "no answer"
            return "answered" if connection.recv(65536) else "closed"
        except (ConnectionResetError, BrokenPipeError):
            return "closed"


@scenario(120)
def malformed_frames(place):
    """Frames of every key and version, truncated, mutated, oversized, with forged lengths."""
    broker = place.start({"auto.create.topics.enable": "false", "group.min.session.timeout.ms": "1000"})
    topic = place.name()
    librdkafka.create(broker.bootstrap, topic, 1)
    builder = frames.Frames(random.Random(place.options["seed"]),
                            frames.DANGEROUS if place.subject == "kafka" else {4, 5, 6, 7})
    client = Client(broker.bootstrap, topic, place.name("group"))
    # The frames come while it works, and it goes on after them.
    until(60, f"first round trips of the client, {client.errors}", lambda: client.done >= 3 or client.errors)
    outcomes, count = collections.Counter(), place.options["frames"]
    memory = []
    for at in range(count):
        if at in (count // 4, count - 1):
            memory.append((broker.resident_bytes(), sum(1 for _ in broker.data.glob("*-[0-9]*"))))
        kind, spoiled = builder.spoiled()
        try:
            outcomes[kind.split()[0], send(broker.port, spoiled, 0.002)] += 1
        except OSError as error:
            raise AssertionError(f"frame {at}, {kind}: {error}; {spoiled[:200].hex()}") from None
        if client.errors:
            raise AssertionError(f"after frame {at}, {kind}: {client.errors[:3]}; {spoiled[:200].hex()}")
    done = client.done
    until(60, f"round trips after the frames, {client.errors}", lambda: client.done >= done + 5 or client.errors)
    client.finish()
    equal(client.errors[:3], [], "errors that the other client saw")
    (before, partitions_before), (after, partitions_after) = memory
    growth = after - before - GROWTH_PER_PARTITION * (partitions_after - partitions_before)
    print(f"{count} frames, {client.done} round trips, the longest {client.longest:.2f} s, memory {before >> 20} MB "
          f"with {partitions_before} partitions, then {after >> 20} MB with {partitions_after}")
    print(", ".join(f"{kind} {end}: {n}" for (kind, end), n in sorted(outcomes.items())))
    if place.subject == "milena":
        equal(growth < GROWTH, True, f"growth of the memory by {growth >> 20} MB is below {GROWTH >> 20} MB")
    broker.stop()


@scenario(60)
def declared_sizes(place):
    """Connections that declare 100 MiB and send nothing take no memory, and do not stop others."""
    if place.subject != "milena":
        raise Skip("Kafka allocates what a frame declares")
    broker = place.start()
    topic = place.name()
    librdkafka.create(broker.bootstrap, topic, 1)
    before = broker.resident_bytes()
    connections = [socket.create_connection(("127.0.0.1", broker.port)) for _ in range(200)]
    for connection in connections:
        connection.sendall((104857600).to_bytes(4, "big") + b"\0\0\0\7")
    librdkafka.produce(broker.bootstrap, topic, [librdkafka.Record(0, -1, 1, None, b"through", ())])
    equal(broker.resident_bytes() - before < 16 << 20, True, "memory for 200 declared frames is below 16 MB")
    for connection in connections:
        connection.close()
    broker.stop()
