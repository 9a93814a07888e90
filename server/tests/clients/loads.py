"""Idempotent producers and consumer groups of two libraries that go on while brokers come and go, and tell all that they saw.

What each producer sent and was told becomes a `history.History` for each partition; a group fails where it begins below what was
committed or beyond what it asked to commit, or where a record is missing or comes again meanwhile.
"""

import collections
import dataclasses
import subprocess
import threading
import time

import crash_writers
import history
import librdkafka
import peers
from confluent_kafka import KafkaException, TopicPartition
from scenario import until


class Java:
    """Load.java: a producer of kafka-clients 2.7.2 and a group of two."""

    def __init__(self, place, bootstrap, topic, partitions, pause_ms):
        self.partitions = partitions
        self.lines = place.directory / f"{topic}.lines"
        self.complaints = place.directory / f"{topic}.stderr"
        command = ["java", "-Xmx256M", "-XX:+UseSerialGC", "-cp", peers.java_load(), "Load", bootstrap, topic, partitions,
                   place.name(f"group-of-{topic}"), pause_ms]
        with open(self.lines, "w") as out, open(self.complaints, "w") as complaints:
            self.process = subprocess.Popen([str(word) for word in command], stdin=subprocess.PIPE, stdout=out, stderr=complaints)
        place.started.append(self)

    def finish(self):
        """(histories, errors by who and what, of them those not to be tried again after, what is wrong)."""
        self.process.stdin.close()
        code = self.process.wait(180)
        if code:
            raise AssertionError(f"exit code {code}\n{self.complaints.read_text()[-3000:]}")
        acked, errors, fatal, wrong, ends = collections.defaultdict(dict), collections.Counter(), [], [], {}
        for kind, _, rest in (line.partition(" ") for line in self.lines.read_text().splitlines()):
            if kind == "acked":
                partition, offset, number = map(int, rest.split())
                acked[partition][number] = offset
            elif kind == "error":
                who, name, passes, *_ = rest.split(" ")
                errors[f"{who} {name}"] += 1
                if passes != "yes":
                    fatal.append(rest)
            elif kind == "wrong":
                wrong.append(rest)
            else:
                ends[kind] = int(rest)
        histories = [history.History(f"java-{number}", number, True, list(range(number, ends["sent"], self.partitions)),
                                     acked[number]) for number in range(self.partitions)]
        print(f"Java: {ends['sent']} sent, {sum(map(len, acked.values()))} acked, {ends['read']} read by the group, {dict(errors)}")
        return histories, errors, fatal, wrong

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


class Member(threading.Thread):
    """A consumer of librdkafka in a group, committing what it has read; its group's offsets are in `shared`."""

    def __init__(self, bootstrap, topic, group, shared):
        super().__init__(daemon=True)
        self.topic, self.shared = topic, shared
        self.told, self.fatal, self.wrong, self.next = collections.Counter(), [], [], {}
        self.ending = threading.Event()
        self.committed_at = 0
        # Its coordinator is another every few seconds; a member that is seldom heard never meets it before it has moved. After
        # refused connections the library waits for up to 10 s by default, which is as long as a session.
        self.client = librdkafka.consumer(bootstrap, group, error_cb=self.note, heartbeat_interval_ms=500,
                                          reconnect_backoff_max_ms=1000)
        self.start()

    def note(self, error):
        self.told[f"consumer {error.name()}"] += 1
        if error.fatal():
            self.fatal.append(str(error))

    def failed(self, error):
        """An exception: of which retriable ones, and those that say that a coordinator moves, may be tried again after."""
        self.told[f"consumer {error.name()}"] += 1
        if error.fatal() or not (error.retriable() or error.code() in librdkafka.MOVING):
            self.fatal.append(str(error))

    def assigned(self, client, partitions):
        found = client.committed(partitions, timeout=60)
        for one in found:
            begin = max(one.offset, 0)
            least, most = (self.shared[what].get(one.partition, 0) for what in ("committed", "asked"))
            if not least <= begin <= most:
                self.wrong.append(f"begins {one.partition} at {begin}, committed {least} to {most}")
            self.next[one.partition] = one.offset = begin
        client.assign(found)

    def revoked(self, _, partitions):
        for one in partitions:
            self.next.pop(one.partition, None)

    def turn(self):
        done = {}
        for message in self.client.consume(500, timeout=0.1):
            if message.error() is not None:
                self.failed(message.error())
                continue
            partition, offset = message.partition(), message.offset()
            expected = self.next.get(partition)
            if expected != offset:
                self.wrong.append(f"got {partition} {offset} where {expected} was next")
            done[partition] = self.next[partition] = offset + 1
        if done:
            self.shared["asked"] |= done
            self.shared["seen"] |= done
            self.client.commit(offsets=[TopicPartition(self.topic, *one) for one in done.items()], asynchronous=False)
            self.shared["committed"] |= done
            self.committed_at = time.monotonic()

    def run(self):
        self.client.subscribe([self.topic], on_assign=self.assigned, on_revoke=self.revoked, on_lost=self.revoked)
        while not self.ending.is_set():
            try:
                self.turn()
            except KafkaException as error:
                self.failed(error.args[0])
        self.client.close()


def found(histories, log):
    """The same with the offsets that a producer was not told, as the log has them."""
    places = {(partition, value): offset for partition, offset, value in log}
    return [dataclasses.replace(one, acked={
        value: places.get((one.partition, value)) if offset is None else offset for value, offset in one.acked.items()})
        for one in histories]


class Rdkafka:
    """A producer for each partition, and a group of two."""

    def __init__(self, place, bootstrap, topic, partitions, pause_ms):
        idempotent = {"enable_idempotence": True, "message_timeout_ms": 2147483647}
        self.writers = [crash_writers.Writer(bootstrap, topic, f"rdkafka-{number}", number, idempotent,
                                             pause=pause_ms * partitions / 1000) for number in range(partitions)]
        self.shared = {"asked": {}, "seen": {}, "committed": {}}
        self.members = [Member(bootstrap, topic, place.name(f"group-of-{topic}"), self.shared) for _ in range(2)]

    def has_committed_since(self, moment):
        return all(member.committed_at > moment for member in self.members)

    def finish(self):
        """See [`Java.finish`]."""
        left = [writer.finish() for writer in self.writers]
        histories = [writer.history for writer in self.writers]
        errors, fatal, wrong = collections.Counter(), [], []
        if any(left):
            wrong.append(f"records without an outcome: {left}")
        # Of a retry that a later acknowledgement answered, librdkafka does not know the offset.
        ends = {one.partition: max(offset for offset in one.acked.values() if offset is not None) + 1 for one in histories}
        until(60, "the group has read all that was acknowledged",
              lambda: all(self.shared["seen"].get(partition, 0) >= end for partition, end in ends.items()))
        for member in self.members:
            member.ending.set()
            member.join(30)
            errors += member.told
            fatal += member.fatal
            wrong += member.wrong
        for writer in self.writers:
            errors.update(f"producer {error.name()}" for error in writer.errors)
            fatal += map(str, writer.errors)
        print(f"librdkafka: {sum(len(one.sent) for one in histories)} sent, {sum(len(one.acked) for one in histories)} acked, "
              f"{sum(self.shared['seen'].values())} read by the group, {dict(errors)}")
        return histories, errors, fatal, wrong
