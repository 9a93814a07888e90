"""How a cluster is, as the log and `milena topics` tell it, beside Kafka's own tool: three brokers of the subject, of which some stop."""

import json
import os
import re
import signal
import subprocess

import librdkafka
import records
import subject as subjects
from confluent_kafka.admin import NewTopic
from scenario import contains, equal, scenario, until
from scenarios.cluster import begin
from tools import Tools

FILTERS = ("under-replicated-partitions", "at-min-isr-partitions", "under-min-isr-partitions", "unavailable-partitions")


def start_three(place, session_ms=2000):
    """Three brokers on one ZooKeeper; who follows too slowly is soon out of sync."""
    zookeeper = subjects.ZooKeeper(place.directory / "zookeeper").start()
    place.started.append(zookeeper)
    brokers = []
    for number in range(3):
        settings = {"broker.id": str(number), "replica.lag.time.max.ms": "1000", "controlled.shutdown.enable": "false",
                    "offsets.topic.num.partitions": "3"}
        broker = subjects.subject(place.subject, place.directory / f"broker-{number}", settings, zookeeper=zookeeper,
                                  session_ms=session_ms)
        place.started.append(broker)
        begin(broker)
        brokers.append(broker)
    return brokers


def milena(broker, *words):
    command = [subjects.Milena.binary, "topics", *words, "--json", "--bootstrap-server", broker.bootstrap]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    equal(done.returncode, 0, f"{words}: {done.stderr}")
    return [json.loads(line) for line in done.stdout.splitlines()]


def named(objects):
    return sorted(f"{one['topic']}-{partition['partition']}" for one in objects for partition in one["partitions"])


@scenario(240)
def of_three_brokers(place):
    """One stops, then another: each filter finds what kafka-topics finds, the summary counts it, and the log tells it once."""
    brokers = start_three(place)
    client = librdkafka.admin(brokers[0].bootstrap)
    wanted = {"three": (3, "2"), "two": (2, "2"), "one": (1, "1")}
    placed = {"three": [[0, 1, 2], [1, 2, 0], [2, 0, 1]], "two": [[0, 1], [1, 2]], "one": [[0], [2]]}
    topics = [NewTopic(topic, len(placed[topic]), replica_assignment=placed[topic], config={"min.insync.replicas": least})
              for topic, (_, least) in wanted.items()]
    for done in client.create_topics(topics).values():
        done.result(30)

    def health():
        return milena(brokers[0], "health")[0]

    def troubled():
        return {kind: health()[kind] for kind in ("unavailable", "under_min_isr", "under_replicated", "at_min_isr")}

    at_least = ["one-0", "one-1", "two-0", "two-1"]
    well = {"unavailable": [], "under_min_isr": [], "under_replicated": [], "at_min_isr": at_least}
    until(60, "all is well", lambda: troubled() == well)
    found = health()
    equal((found["brokers"], found["topics"], found["partitions"]), ([0, 1, 2], 3, 7), "what there is")
    equal(found["controller"] in (0, 1, 2), True, f"controller: {found}")

    brokers[2].kill()
    ill = {"unavailable": ["one-1"], "under_min_isr": ["one-1", "two-1"], "under_replicated": ["three-0", "three-1", "three-2", "two-1"],
           "at_min_isr": ["one-0", "one-1", "three-0", "three-1", "three-2", "two-0"]}
    until(60, f"one is gone: {ill}", lambda: troubled() == ill)
    equal(health()["brokers"], [0, 1], "brokers")
    tool = Tools(place, brokers[0].bootstrap)
    for name in FILTERS:
        theirs = re.findall(r"Topic: (\S+)\s+Partition: (\d+)", tool.run("kafka-topics", "--describe", f"--{name}"))
        equal(named(milena(brokers[0], "describe", f"--{name}")), sorted(f"{topic}-{number}" for topic, number in theirs), name)

    brokers[1].kill()
    worse = {"unavailable": ["one-1", "two-1"], "under_min_isr": ["one-1", "three-0", "three-1", "three-2", "two-0", "two-1"]}
    until(60, f"two are gone: {worse}", lambda: {kind: troubled()[kind] for kind in worse} == worse)
    equal((health()["controller"], health()["brokers"]), (0, [0]), "who is left")
    if place.subject == "milena":
        told_by_the_last(brokers[0])
    for broker in brokers[1:]:
        begin(broker)
    until(60, "all is well again", lambda: troubled() == well)
    librdkafka.produce(brokers[0].bootstrap, "three", records.samples(3), acks="all")
    # Three is led by broker 0 alone at this moment, so that it lets the others in.
    log = brokers[0].log.read_text()
    for number in range(3):
        contains(log, f"[Partition three-{number} broker=0] ISR updated ")
    if place.subject == "milena":
        contains(log, "[Partition three-0 broker=0] Expanding ISR from 0 to 0,")
        ended_in(brokers[0])


def told_by_the_last(broker):
    """What the last broker says of what it leads, and as controller."""
    for line in (r"WARN \[ReplicaManager broker=0\] Under-replicated partitions led here: 4 \(three-0, three-1, three-2, two-0\)"
                 r" \(kafka.server.ReplicaManager\)",
                 r"WARN \[ReplicaManager broker=0\] Partitions led here with fewer replicas in sync than min.insync.replicas: 4 "
                 r"\(three-0, three-1, three-2, two-0\)",
                 r"INFO \[Controller id=0\] The active controller is broker 0 \(kafka.controller.KafkaController\)",
                 r"WARN \[Controller id=0\] Partitions of the cluster without a leader: 2 \(one-1, two-1\)"):
        until(20, line, lambda: re.search(line, broker.log.read_text()))


def ended_in(broker):
    for line in ("No partition led here is under-replicated any more", "All partitions led here have min.insync.replicas again",
                 "[Controller id=0] Every partition has a leader again"):
        until(20, line, lambda: line in broker.log.read_text())


@scenario(120)
def a_replica_that_lags(place):
    """A broker that stands still leaves the in-sync set and comes back; the leader's log tells it in Kafka's words."""
    # ZooKeeper waits longer for it than the leader does.
    brokers = start_three(place, session_ms=10000)
    client = librdkafka.admin(brokers[0].bootstrap)
    client.create_topics([NewTopic("t", 1, replica_assignment=[[0, 1]])])["t"].result(30)
    until(30, "both are in sync", lambda: milena(brokers[0], "health")[0]["under_replicated"] == [])
    os.kill(brokers[1].process.pid, signal.SIGSTOP)
    try:
        # Who has everything does not lag.
        librdkafka.produce(brokers[0].bootstrap, "t", records.samples(1), acks="1")
        until(30, "one leaves", lambda: "t-0" in milena(brokers[0], "health")[0]["under_replicated"])
    finally:
        os.kill(brokers[1].process.pid, signal.SIGCONT)
    until(60, "it comes back", lambda: milena(brokers[0], "health")[0]["under_replicated"] == [])
    log = brokers[0].log.read_text()
    shrinking = (r"INFO \[Partition t-0 broker=0\] Shrinking ISR from 0,1 to 0\. Leader: \(highWatermark: \d+, endOffset: \d+\)\. "
                 r"Out of sync replicas: \(brokerId: 1, endOffset: -?\d+\)\. \(kafka\.cluster\.Partition\)")
    equal(bool(re.search(shrinking, log)), True, f"{shrinking} in {log}")
    equal(len(re.findall(r"\[Partition t-0 broker=0\] ISR updated ", log)) >= 2, True, "two changes")
