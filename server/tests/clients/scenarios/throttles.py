"""How fast replication may be, and by how many threads: Kafka's tools set both while three brokers run."""

import json
import time
from pathlib import Path

from scenario import contains, equal, scenario, until
from scenarios.controller import partitions
from scenarios.mixed import Cluster, Ledger
from tools import Tools

# Small fetches, so that a rate is kept evenly.
FETCHED_BYTES = 100_000
RATE = 200_000
# So few that a move does not end by itself.
CRAWL = 1_000


class Move:
    """A topic of one partition, on brokers 0 and 1, that is to lie on 0 and 2."""

    def __init__(self, place, **settings):
        self.cluster = Cluster(place, ["milena"] * 3, "2.7", **{"replica.fetch.max.bytes": FETCHED_BYTES, **settings})
        self.tools = Tools(place, self.cluster.bootstrap)
        self.old = ["--zookeeper", self.cluster.zookeeper.connect]
        self.new = ["--bootstrap-server", self.cluster.bootstrap]
        self.topic = place.name("t")
        self.plan = place.directory / "plan.json"
        self.plan.write_text(json.dumps(partitions(self.topic, [0, 2])))
        self.cluster.create(self.topic, [0, 1])
        self.ledger = Ledger(self.cluster, self.topic, 1)
        while self.size() < 2_500_000:
            for _ in range(8):
                self.ledger.produce(acks="all", compression_type="none")

    def size(self, broker=0):
        directory = self.cluster.brokers[broker].data / f"{self.topic}-0"
        return sum(path.stat().st_size for path in directory.glob("*.log"))

    def call(self, tool, where, *arguments):
        return self.tools.run(tool, *where, *arguments, server=False)

    def reassign(self, where, *arguments):
        return self.call("kafka-reassign-partitions", where, "--reassignment-json-file", self.plan, *arguments)

    def configure(self, where, kind, name, *arguments):
        return self.call("kafka-configs", where, "--alter", "--entity-type", kind, "--entity-name", name, *arguments)

    def described(self, where):
        of = lambda kind, name: self.call(  # noqa: E731
            "kafka-configs", where, "--describe", "--entity-type", kind, "--entity-name", name)
        return of("topics", self.topic) + "".join(of("brokers", number) for number in range(3))

    def is_over(self):
        seen = self.cluster.agreed()["topics"][self.topic][2][0]
        return (seen["replicas"], seen["isr"]) == ([0, 2], [0, 2])

    def wait(self, seconds):
        until(seconds, "the move is over", self.is_over)

    def is_held_back(self, what):
        """It crawls: after a while most is still missing."""
        time.sleep(6)
        assert self.size(2) < self.size() / 2, f"{what} does not hold the move back: {self.size(2)} of {self.size()} bytes"

    def end(self):
        self.ledger.produce(acks="all")
        self.ledger.check()
        until(30, "both replicas have all", lambda: self.size(2) == self.size())
        self.cluster.same_logs(self.topic, 1, [0, 2])
        self.cluster.end()


def move_at_a_rate(place, old):
    """A move with --throttle takes as long as its rate says, and --verify takes the throttle away."""
    move = Move(place)
    where = move.old if old else move.new
    begun = time.monotonic()
    contains(move.reassign(where, "--throttle", RATE, "--execute"),
             f"The inter-broker throttle limit was set to {RATE} B/s",
             f"Successfully started partition reassignment for {move.topic}-0")
    contains(move.described(where), "leader.replication.throttled.replicas=0:", "follower.replication.throttled.replicas=0:2",
             f"leader.replication.throttled.rate={RATE}", f"follower.replication.throttled.rate={RATE}")
    # Who is in sync is not held back: acks=all goes on. What it is sent counts, so that this must be little beside the rate.
    while not move.is_over():
        time.sleep(2)
        asked = time.monotonic()
        move.ledger.produce(acks="all")
        assert time.monotonic() - asked < 10, "an acknowledgement was held back by the throttle"
    took = time.monotonic() - begun
    assert took > 0.6 * move.size() / RATE, f"{move.size()} bytes in {took:.1f} s are more than {RATE} a second"
    contains(move.reassign(where, "--verify"), "Reassignment of partition" if old else "is complete",
             "Clearing broker-level throttles", "Clearing topic-level throttles")
    assert "throttled" not in move.described(where), move.described(where)
    move.end()


@scenario(300)
def move_at_a_rate_by_the_brokers(place):
    """A move with --throttle, asked of the brokers."""
    move_at_a_rate(place, old=False)


@scenario(300)
def move_at_a_rate_by_zookeeper(place):
    """A move with --throttle, asked in ZooKeeper."""
    move_at_a_rate(place, old=True)


def one_side(place, side, broker, old):
    """One side alone holds a move back, and lets it go on as soon as the rate is another one."""
    move = Move(place)
    where = move.old if old else move.new
    list_name, rate_name = f"{side}.replication.throttled.replicas", f"{side}.replication.throttled.rate"
    move.configure(where, "topics", move.topic, "--add-config", f"{list_name}=[0:{broker}]")
    move.configure(where, "brokers", broker, "--add-config", f"{rate_name}={CRAWL}")
    move.reassign(move.new, "--execute")
    move.is_held_back(f"the {side}'s throttle")
    move.configure(where, "brokers", broker, "--add-config", f"{rate_name}=100000000")
    move.wait(30)
    move.configure(where, "brokers", broker, "--delete-config", rate_name)
    move.configure(where, "topics", move.topic, "--delete-config", list_name)
    move.end()


@scenario(200)
def the_leader_alone(place):
    """The leader's throttle, set by the brokers."""
    one_side(place, "leader", 0, old=False)


@scenario(200)
def the_follower_alone(place):
    """The follower's throttle, set in ZooKeeper."""
    one_side(place, "follower", 2, old=True)


@scenario(200)
def fetchers_at_run_time(place):
    """num.replica.fetchers grows and shrinks under load, at most to the double and to the half."""
    cluster = Cluster(place, ["milena"] * 3, "2.7")
    tools = Tools(place, cluster.bootstrap)
    ledger = Ledger(cluster, place.name("load"), 6)
    cluster.create(ledger.topic, *[[number % 3, (number + 1) % 3] for number in range(6)])

    def fetchers(broker):
        tasks = Path(f"/proc/{broker.process.pid}/task").glob("*/comm")
        return sum(task.read_text().startswith("fetcher-") for task in tasks)

    def set_count(count, wanted=0):
        return tools.run("kafka-configs", "--alter", "--entity-type", "brokers", "--entity-default",
                              "--add-config", f"num.replica.fetchers={count}", wanted=wanted)

    contains(set_count(3, wanted=None), "value should not be greater than double the current value 1")
    with ledger.load():
        for count in 2, 4, 2, 1, 2:
            set_count(count)
            if place.subject == "milena":
                for broker in cluster.brokers:
                    until(20, f"{count} fetchers", lambda: fetchers(broker) == count)  # noqa: B023
            time.sleep(2)
    ledger.check()
    for number in range(6):
        cluster.partition(ledger.topic, number, error=0, isr=sorted([number % 3, (number + 1) % 3]))
    # What the tree has counts at the next start.
    broker = cluster.brokers[1]
    broker.stop()
    broker.start()
    if place.subject == "milena":
        until(20, "2 fetchers after a start", lambda: fetchers(broker) == 2)
    cluster.partition(ledger.topic, 0, error=0, isr=[0, 1])
    cluster.end()


@scenario(180)
def a_move_taken_back(place):
    """kafka-reassign-partitions --cancel ends a move that crawls: the replicas are those of before, and what was copied goes."""
    move = Move(place)
    move.reassign(move.new, "--throttle", CRAWL, "--execute")
    until(30, "the new replica is there", lambda: (move.cluster.brokers[2].data / f"{move.topic}-0").is_dir())
    contains(move.call("kafka-reassign-partitions", move.new, "--list"), f"{move.topic}-0: replicas: 0,2,1. adding: 2. removing: 1.")
    contains(move.reassign(move.new, "--cancel"), f"Successfully cancelled partition reassignment for: {move.topic}-0")
    seen = move.cluster.partition(move.topic, 0, error=0, replicas=[0, 1], isr=[0, 1])
    equal(seen["leader"], 0, f"leader: {seen}")
    contains(move.call("kafka-reassign-partitions", move.new, "--list"), "No partition reassignments found.")
    if place.subject == "milena":
        # 2.7.2's broker ignores the word to delete it: its epoch is the one that it knows.
        until(60, "what was copied is gone", lambda: not (move.cluster.brokers[2].data / f"{move.topic}-0").exists())
    equal("throttled" in move.described(move.new), False, f"throttles are left: {move.described(move.new)}")
    move.ledger.produce(acks="all")
    move.ledger.check()
    move.cluster.same_logs(move.topic, 1, [0, 1])
    move.cluster.end()
