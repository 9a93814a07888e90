"""One run: a fresh cluster under load, so many strikes of one fault, healing, and the verdict."""

import json
import os
import random
import re
import shutil
import subprocess
import sys
import time
import traceback
from dataclasses import replace
from pathlib import Path

import checker
import disks
import faults
import ledger
import librdkafka
import network as networks
import peers
import records
import segments
import subject as subjects
from cluster import Clients, Cluster
from network import wait_until

HERE = Path(__file__).resolve().parent
PASS, FAIL, INCONCLUSIVE = "PASS", "FAIL", "INCONCLUSIVE"
START_SECONDS = 180
PROGRESS_SECONDS = 60
HEALED_SECONDS = 90
MACHINES = ["b0", "b1", "b2", "zk", "clients"]
STALE = {"stop", "cut", "expiry", "outage", "mixed", "power", "power-all"}


class Overdue(Exception):
    """It does not go on in time."""


class Trial:
    topic = "ledger"
    partitions = 6
    groups = ("rd", "java")

    def __init__(self, request):
        self.request = request
        self.directory = Path(request["directory"])
        self.rng = random.Random(request["seed"])
        self.fault = request["fault"]
        self.strikes = []
        self.cuts = []
        self.ended = []
        self.mended = 0
        self.slowest = self.supervised = 0.0
        self.rules = checker.Rules(stale=self.fault in STALE, groups=tuple((group, self.topic) for group in self.groups))

    def overdue(self, text):
        raise Overdue(text)

    def __call__(self):
        """The result as it goes into the file of results."""
        began = time.monotonic()
        shutil.rmtree(self.directory, ignore_errors=True)
        (self.directory / "ledger").mkdir(parents=True)
        self.books = ledger.Reader(self.directory / "ledger")
        violations, facts = [], {}
        self.cluster = self.clients = None
        try:
            self.set_up()
            try:
                self.strike()
                violations, facts = self.judged()
            except Overdue as late:
                # Apache's brokers do not always go on by themselves.
                label = "overdue" if set(self.request["kinds"]) == {"kafka"} else "A12"
                violations = [(label, str(late)), *self.safety()]
            violations += [("panic", line) for line in self.cluster.panics()]
        finally:
            if self.clients:
                self.clients.close()
            if self.cluster:
                self.cluster.close()
        hits = sum(strike.hit for strike in self.strikes)
        acked = sum(len(producer.acked) for producer in self.books.update().producers.values())
        violated = [one for one in violations if one[0] not in checker.REMARKS]
        verdict = FAIL if violated else PASS if self.conclusive(hits, acked) else INCONCLUSIVE
        return {"verdict": verdict, "cycles": len(self.strikes), "hits": hits, "acked": acked, "locked_up": self.books.locked_up,
                "slowest_cycle": round(self.slowest, 1), "seconds": round(time.monotonic() - began, 1), "violations": violations, **facts}

    def conclusive(self, hits, acked):
        return hits > 0 and acked > 100

    def say(self, text):
        print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)

    def set_up(self):
        request = self.request
        self.network = networks.of(MACHINES)
        self.cluster = Cluster(self.directory, self.network, request["kinds"], self.settings(), session_ms=request["session_ms"])
        self.create_topics()
        self.start_clients()

    def create_topics(self):
        self.cluster.create(self.topic, self.partitions)

    def settings(self):
        return {}

    def more_producers(self):
        return []

    def start_clients(self):
        followed = {self.topic: self.partitions}
        producers = [{"name": "plain", "topic": self.topic, "partitions": self.partitions, "pause": 0.05, "burst": 18},
                     {"name": "lz4", "topic": self.topic, "partitions": self.partitions, "pause": 0.05, "burst": 18,
                      "settings": {"compression.type": "lz4"}}, *self.more_producers()]
        spec = {"topics": followed, "producers": producers, "groups": {"rd": 2}, "watched": list(self.groups),
                "seed": self.request["seed"]}
        books = self.directory / "ledger"
        classes = peers.compiled("chaos-load", HERE / "Load.java", Path(self.request["java"]))
        commands = [("librdkafka", [sys.executable, HERE / "load.py", self.cluster.bootstrap, books, json.dumps(spec)]),
                    ("java", ["java", "-Xmx160M", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", classes, "Load",
                              self.cluster.bootstrap, books, self.topic, self.partitions, "java", "java", 2, 50, 18,
                              self.request["seed"], "compression.type=gzip"])]
        self.clients = Clients(self.cluster, self.directory, commands)
        self.acks_of_all(50, "at the beginning", START_SECONDS)

    def supervise(self):
        """Once a second at most: it reads logs."""
        if time.monotonic() - self.supervised < 1:
            return
        self.supervised = time.monotonic()
        self.ended += [text for broker in self.cluster.brokers if (text := broker.supervise())]

    def acks_of_all(self, count, what, seconds=PROGRESS_SECONDS):
        """Waits until every producer has so many more acks."""
        marks = {name: len(one.acked) for name, one in self.books.update().producers.items()}

        def enough():
            self.supervise()
            known = self.books.update().producers
            return len(known) >= 3 and all(len(one.acked) >= marks.get(name, 0) + count for name, one in known.items()
                                           if one.topic == self.topic)

        if not wait_until(seconds, enough):
            now = {name: len(one.acked) - marks.get(name, 0) for name, one in self.books.producers.items()}
            self.overdue(f"{what}: no acks in {seconds} s: {now}; {self.cluster.out_of_sync()}")

    def strike(self):
        for number in range(self.request["cycles"]):
            began = time.monotonic()
            strike = faults.FAULTS[self.fault](self)
            self.strikes.append(strike)
            self.acks_of_all(1, f"after cycle {number}, {strike.what}")
            self.slowest = max(self.slowest, time.monotonic() - began)
            self.say(f"cycle {number}: {strike.what}{'' if strike.hit else ', NOT HIT'}, {time.monotonic() - began:.1f} s, "
                     f"{self.books.acks} acks")
            if ended := self.clients.ended():
                raise subjects.SubjectError(f"clients ended: {ended}")
            time.sleep(self.rng.choice([0, 0, self.rng.uniform(0, 0.8)]))

    def judged(self):
        """Heals, waits until all is quiet, and looks at everything."""
        began = time.monotonic()
        def healed():
            self.supervise()
            return not self.cluster.out_of_sync()

        if not wait_until(HEALED_SECONDS, healed, 0.2):
            self.overdue(f"not in sync {HEALED_SECONDS} s after the last fault: {self.cluster.out_of_sync()}")
        in_sync = time.monotonic() - began
        self.acks_of_all(20, "after healing")
        self.clients.tell("stop")
        producers = self.books.update().producers
        if not wait_until(PROGRESS_SECONDS, lambda: self.books.update() and not any(map(self.open, producers.values()))):
            self.overdue(f"sends without an outcome: {[(one.name, one.open()) for one in producers.values()]}")
        ends = self.ends({self.topic: self.partitions})
        if not wait_until(PROGRESS_SECONDS, lambda: not self.behind(ends)):
            self.overdue(f"readers are behind: {self.behind(ends)}")
        quiet = time.monotonic() - began
        reads = {"librdkafka": self.read_whole(self.read_by_librdkafka), "java": self.read_whole(self.read_by_java)}
        self.clients.tell("end")
        self.clients.close(30)
        evidence = self.scan(reads)
        violations = checker.check(evidence, self.rules)
        given_up = sum(len(one.failed) + len(one.unknown) for one in evidence.producers.values())
        facts = {"records": sum(map(len, evidence.log.values())), "given_up": given_up, "mended": self.mended, "ended": self.ended,
                 "stale_reads": checker.stale_reads(evidence), "in_sync_after": round(in_sync, 1), "quiet_after": round(quiet, 1),
                 "counts": dict(violations.counts)}
        return list(violations), facts

    def safety(self):
        """What the leaders' files say, where it does not go on. Who is out of sync may have another end of its log then."""
        if self.clients:
            self.clients.close()
        try:
            evidence = self.scan(None)
        except OSError as error:
            return [("A11", str(error))]
        return [one for one in checker.check(evidence, self.rules) if one[0] not in ("A11", "A12")]

    def open(self, producer):
        return producer.open()

    def topics(self):
        return {self.topic: self.partitions}

    def ends(self, topics):
        """The end of each partition's log, by the files of its leader."""
        return {(topic, partition): (found[-1].end if (found := self.replica(leader, topic, partition)) else 0)
                for topic, count in topics.items() for partition in range(count)
                for leader in [self.cluster.state(topic, partition)["leader"]]}

    def replica(self, number, topic, partition):
        return segments.replica(self.cluster.brokers[number].subject.data / f"{topic}-{partition}")

    def behind(self, ends):
        known = self.books.update().positions
        return [(reader, *where, known.get((reader, *where), 0), end) for where, end in ends.items()
                for reader in ("follower", *(group for group, topic in self.rules.groups if topic == where[0]))
                if known.get((reader, *where), 0) < end]

    @staticmethod
    def entry(offset, timestamp, key, value, headers):
        producer, counter, mark = ledger.read_payload(value)
        if mark == "ok" and (key != producer.encode() or tuple(headers) != (("n", str(counter).encode()),)):
            mark = f"key {key}, headers {headers}"
        return offset, producer, counter, timestamp, mark

    def read_whole(self, read):
        """What a reader finds. A leader that has just begun shows the last records once it knows that its followers have them."""
        ends, found = self.ends(self.topics()), {}

        def whole():
            found.clear()
            found.update(read())
            return all(len(found.get(where, ())) >= end for where, end in ends.items())

        wait_until(PROGRESS_SECONDS, whole)
        return found

    def read_by_librdkafka(self):
        found = {}
        for topic in self.topics():
            for partition, _, entry in librdkafka.read_all(self.cluster.bootstrap, topic, make=lambda message: (
                    message.partition(), message.offset(), self.entry(message.offset(), message.timestamp()[1], message.key(),
                                                                      message.value(), message.headers() or ()))):
                found.setdefault((topic, partition), []).append(entry)
        return found

    def read_by_java(self):
        """By the driver of the client suite, which gives digests in place of values; they are those of what was sent."""
        found = {}
        for topic in self.topics():
            path = self.directory / f"{topic}.java"
            command = ["java", "-Xmx256M", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", self.request["driver"], "Driver",
                       self.cluster.bootstrap]
            done = subprocess.run(command, input=f"read\t{topic}\t{path}\n".encode(), capture_output=True, timeout=120)
            if not done.stdout.endswith(b"ok\n"):
                raise subjects.SubjectError(f"the Java client cannot read {topic}: {done.stdout[-500:]}{done.stderr[-1500:]}")
            for record in sorted(records.load(path), key=lambda one: one.offset):
                found.setdefault((topic, record.partition), []).append(record)
        return found

    def scan(self, reads):
        """The files of all replicas, once they have come to rest, beside what readers found at the end, if there were any."""
        where = list(self.cluster.partitions().items())
        leaders = {at: (self.cluster.state(*at) or {}).get("leader") for at, _ in where}
        resting = {}

        def same():
            resting.clear()
            for (topic, partition), replicas in where:
                try:
                    # The leader's first.
                    order = sorted(replicas, key=lambda number: number != leaders[topic, partition])
                    found = [self.replica(number, topic, partition) for number in order]
                except segments.Damaged as damaged:
                    resting[topic, partition] = damaged
                    continue
                resting[topic, partition] = found
            return not any(self.differences(resting))

        wait_until(15, same, 0.3)
        evidence = checker.Evidence(self.books.update().producers, self.books.consumers, {}, {},
                                    divergence=list(self.differences(resting)))
        for (topic, partition), found in resting.items():
            if isinstance(found, segments.Damaged):
                continue
            if topic == "__consumer_offsets":
                for group, of, number, offset, at in segments.committed(found[0]):
                    evidence.commits.setdefault((group, of, number), []).append((offset, at))
            elif topic in self.topics():
                evidence.log[topic, partition] = [self.entry(*one) for batch in found[0] for one in segments.records(batch)]
                evidence.lives |= {(topic, partition, offset): (batch.producer, batch.producer_epoch)
                                   for batch in found[0] for offset in range(batch.base, batch.end)}
                if reads:
                    self.compare_java(reads["java"], topic, partition, found[0])
        if reads:
            evidence.reads = {"librdkafka": reads["librdkafka"], "java": self.as_entries(reads["java"], evidence.log)}
        return evidence

    def compare_java(self, read, topic, partition, found):
        """Puts the entry of the files in place of each record of Java whose fields and digest are the same."""
        whole = {}
        for batch in found:
            for offset, timestamp, key, value, headers in segments.records(batch):
                whole[offset] = (timestamp, key, records.digest(value), headers)
        read[topic, partition] = [
            (one.offset, whole.get(one.offset) == (one.timestamp, one.key, one.value, one.headers))
            for one in read.get((topic, partition), [])]

    @staticmethod
    def as_entries(read, log):
        found = {}
        for where, entries in log.items():
            by_offset = {entry[0]: entry for entry in entries}
            found[where] = [by_offset[offset] if same and offset in by_offset else (offset, "?", -1, -1, "other than in the files")
                            for offset, same in read.get(where, [])]
        return found

    @staticmethod
    def differences(resting):
        for (topic, partition), found in resting.items():
            if isinstance(found, segments.Damaged):
                yield f"{topic}-{partition}: {found}"
                continue
            for number, other in enumerate(found[1:], 1):
                if found[0] and not other or segments.digest(found[0]) != segments.digest(other):
                    yield f"{topic}-{partition}: the leader {segments.difference(found[0], other)} (its replica {number})"


class OnDisks(Trial):
    """Every broker has a file system in a file of its own, ext4 and XFS in turn."""

    refusal = "appends are refused"
    size = 512 << 20

    def set_up(self):
        self.network = networks.of(MACHINES)
        kinds = ["ext4", "xfs"]
        own = [disks.Disk(self.directory / f"disk-{number}", kinds[(number + self.request["seed"]) % 2], self.size)
               for number in range(3)]
        self.cluster = Cluster(self.directory, self.network, self.request["kinds"], self.settings(), own,
                               self.request["session_ms"])
        self.create_topics()
        self.start_clients()

    def settings(self):
        return {"milena.disk.reserve.bytes": 16 << 20}


class PowerOfAll(OnDisks):
    """Topics are synced, but for one, whose end may go with the power; its producer begins anew where it cannot go on."""

    loose = "loose"

    def settings(self):
        return {**super().settings(), "log.flush.interval.messages": 1}

    def topics(self):
        return {self.topic: self.partitions, self.loose: 2}

    def create_topics(self):
        super().create_topics()
        self.cluster.create(self.loose, 2, flush_messages=1 << 62)
        self.rules = replace(self.rules, loses=frozenset([self.loose]))

    def more_producers(self):
        return [{"name": "loose", "topic": self.loose, "partitions": 2, "pause": 0.05, "burst": 18, "restarts": True}]

    def judged(self):
        self.rules = replace(self.rules, cuts=tuple(self.cuts))
        return super().judged()

    def open(self, producer):
        return 0 if producer.topic == self.loose and producer.ended else producer.open()


KINDS = {"power": OnDisks, "power-all": PowerOfAll, "full": OnDisks}


def kind(fault):
    import controls  # it builds on this

    return {**KINDS, **controls.KINDS}.get(fault, Trial)




def main(request):
    subjects.Milena.binary = request["binary"]
    try:
        result = kind(request["fault"])(request)()
    except BaseException as error:
        traceback.print_exc()
        result = {"verdict": INCONCLUSIVE, "cycles": 0, "hits": 0, "acked": 0, "seconds": 0, "violations": [],
                  "error": f"{type(error).__name__}: {re.sub(chr(10), ' ', str(error))[:600]}"}
    Path(request["result"]).write_text(json.dumps(result))
    sys.stdout.flush()
    subjects.end_all()
    os._exit(0)
