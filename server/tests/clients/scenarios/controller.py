"""What Kafka's tools ask of the controller of three brokers, by its protocol and, as old tools do, in ZooKeeper."""

import json

import librdkafka
from scenario import contains, equal, scenario, until
from scenarios.mixed import Cluster, Ledger
from tools import Tools


def partitions(topic, *replicas):
    """Replicas by partition, as the tools read them from a file."""
    moves = [{"topic": topic, "partition": number, "replicas": list(one)} for number, one in enumerate(replicas)]
    return {"version": 1, "partitions": moves}


def tools_at_work(place, release, others="milena"):
    """Topics come, grow, move and go, and leaders return to where they belong; no record is lost on the way."""
    cluster = Cluster(place, ["milena", others, others], release)
    tools = Tools(place, cluster.bootstrap)
    old = ["--zookeeper", cluster.zookeeper.connect]
    new = ["--bootstrap-server", cluster.bootstrap]
    plan = place.directory / "plan.json"

    def call(tool, where, *arguments, wanted=0):
        return tools.run(tool, *where, *arguments, server=False, wanted=wanted)

    for where, others in (new, old), (old, new):
        topic = place.name("old" if where is old else "new")
        call("kafka-topics", where, "--create", "--topic", topic, "--replica-assignment", "0:1,1:2")
        cluster.partition(topic, 1, error=0, leader=1, replicas=[1, 2], isr=[1, 2])
        ledger = Ledger(cluster, topic, 2)
        ledger.produce(acks="all")
        call("kafka-topics", where, "--alter", "--topic", topic, "--partitions", 3, "--replica-assignment", "0:1,1:2,2:0")
        cluster.partition(topic, 2, error=0, leader=2, replicas=[2, 0], isr=[0, 2])
        ledger.partitions = 3
        ledger.produce(acks="all")

        target = [[2, 0], [0, 1], [1, 2]]
        plan.write_text(json.dumps(partitions(topic, *target)))
        contains(call("kafka-reassign-partitions", where, "--reassignment-json-file", plan, "--execute"),
                 f"Successfully started partition reassignments for {topic}-0,{topic}-1,{topic}-2")
        for number, replicas in enumerate(target):
            cluster.partition(topic, number, error=0, replicas=replicas, isr=sorted(replicas))
        until(30, "the move is over", lambda: "still in progress" not in call(
            "kafka-reassign-partitions", others, "--reassignment-json-file", plan, "--verify"))
        contains(call("kafka-reassign-partitions", new, "--list"), "No partition reassignments found.")
        until(30, "old replicas are gone", lambda: cluster.directories(topic) == sorted(
            (broker, number) for number, replicas in enumerate(target) for broker in replicas))
        ledger.produce(acks="all")

        # Leaders are still the former ones where those stayed; asked for, the first replicas lead.
        if where is old:
            plan.write_text(json.dumps(partitions(topic, *target)))
            call("kafka-preferred-replica-election", old, "--path-to-json-file", plan)
        else:
            call("kafka-leader-election", new, "--election-type", "preferred", "--all-topic-partitions")
        for number, replicas in enumerate(target):
            cluster.partition(topic, number, error=0, leader=replicas[0], replicas=replicas, isr=sorted(replicas))
        call("kafka-leader-election", new, "--election-type", "preferred", "--topic", topic, "--partition", 0)
        # A new leader shows the last records when its followers have asked it for more.
        until(30, "all records can be read",
              lambda: len(librdkafka.read_all(cluster.bootstrap, topic)) >= len(ledger.acked))
        ledger.check()

        call("kafka-topics", where, "--delete", "--topic", topic)
        cluster.agreed(what=f"{topic} is gone", where=lambda seen: topic not in seen["topics"])
        until(60, "its directories are gone", lambda: not cluster.directories(topic))
    cluster.end()


def unclean_when_asked(place, release):
    """A partition without a live replica in sync gets a leader when an administrator says so, and not before."""
    cluster = Cluster(place, ["milena"] * 3, release)
    tools = Tools(place, cluster.bootstrap)
    topic = place.name("t")
    cluster.create(topic, [1, 2])
    cluster.brokers[2].kill()
    cluster.partition(topic, 0, error=0, leader=1, isr=[1])
    cluster.brokers[1].kill()
    cluster.brokers[2].start()
    cluster.partition(topic, 0, leader=-1, isr=[1])
    tools.bootstrap = cluster.brokers[0].bootstrap
    arguments = ["--election-type", "unclean", "--topic", topic, "--partition", 0]
    contains(tools.run("kafka-leader-election", *arguments), "Successfully completed leader election (UNCLEAN)")
    cluster.partition(topic, 0, error=0, leader=2, isr=[2])
    cluster.brokers[1].start()
    cluster.partition(topic, 0, error=0, leader=2, isr=[1, 2])
    equal(cluster.directories(topic), [(1, 0), (2, 0)], "directories")
    cluster.end()


@scenario(300)
def tools_at_work_2_7(place):
    """Tools at work where the controller writes in-sync sets."""
    tools_at_work(place, "2.7")


@scenario(300)
def tools_at_work_2_6(place):
    """Tools at work where leaders write in-sync sets themselves."""
    tools_at_work(place, "2.6")


@scenario(300)
def tools_at_work_with_kafka(place):
    """Tools at work where Milena is the controller of two brokers of Apache's."""
    tools_at_work(place, "2.7", "kafka")


@scenario(200)
def unclean_elections(place):
    """Unclean elections that are asked for."""
    unclean_when_asked(place, "2.7")
