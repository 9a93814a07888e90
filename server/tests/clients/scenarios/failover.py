"""A cluster of three that loses brokers: how long it is without leaders or a controller, measured beside Apache Kafka 2.7.2.

What must hold is judged; times are noted (figures.py) and judged by who reads them, since a busy machine makes them longer.
ZooKeeper's tickTime is 500 ms. Kafka's brokers have the JVM options of its own scripts, and settings are the defaults of 2.7.2
but for a shorter session, so that a killed broker is missed sooner; no figure has the session's time in it.
"""

import json
import signal
import sys
import time

import crash_writers
import figures
import history
import librdkafka
import loads
import subject as subjects
from confluent_kafka.admin import NewTopic
from probe import Probe, metadata_request, partitions_of
from scenario import equal, scenario, until
from scenarios import mixed
from tools import Tools
from znodes import Deletion, Znodes, expire

# Many topics, since real clusters have them. The sampled are spread over their order, the first and the last among them.
MANY = [(f"t{number:02}", 50) for number in range(40)]
SAMPLED = [MANY[0], MANY[13], MANY[26], MANY[39]]


class Cluster(mixed.Cluster):
    """Three brokers of one kind, and topics of three replicas, two of which must have a record; leaders are spread evenly."""

    def __init__(self, place, topics, **settings):
        sys.setswitchinterval(0.001)  # the probe's thread waits for no other
        own = {"replica.lag.time.max.ms": 30000, "controlled.shutdown.retry.backoff.ms": 5000, "min.insync.replicas": 2,
               "offsets.topic.replication.factor": 3, "auto.leader.rebalance.enable": "false", **settings}
        super().__init__(place, ["milena"] * 3, "2.7", session_ms=2000, apache="kafka-as-shipped", **own)
        self.znodes = Znodes(self.zookeeper)
        self.topics = dict(topics)
        self.tools = Tools(place, self.bootstrap)
        new = [NewTopic(topic, count, replica_assignment=[[(number + at) % 3 for at in range(3)] for number in range(count)])
               for topic, count in topics]
        admin = librdkafka.admin(self.bootstrap)
        for future in admin.create_topics(new, request_timeout=120, operation_timeout=120).values():
            future.result(150)
        self.settled()

    @property
    def ports(self):
        return {number: broker.port for number, broker in enumerate(self.brokers)}

    def say(self, request):
        """What each live broker says in answer to Metadata."""
        for broker in self.live():
            yield partitions_of(subjects.exchange(broker.port, request[4:]))

    def settled(self, seconds=180, preferred=True):
        """Waits until every broker says that all replicas are in sync, and first replicas lead if they should."""
        count = sum(self.topics.values())

        def is_settled():
            time.sleep(0.1)  # an answer about thousands of partitions is not cheap
            try:
                return len(self.live()) == 3 and all(
                    sum(topic in self.topics for topic, *_ in found) == count
                    and all(error == 0 and len(in_sync) == len(replicas) and leader in (replicas[:1] if preferred else replicas)
                            for _, _, error, leader, _, replicas, in_sync in found)
                    for _, found in self.say(metadata_request()))
            except OSError:
                return False

        until(seconds, "all replicas are in sync" + " and first replicas lead" * preferred, is_settled)

    def rebalance(self):
        """Has first replicas lead. Not by librdkafka: it may ask a former controller, which then answers that nothing was to do."""
        self.tools.run("kafka-leader-election", "--election-type", "preferred", "--all-topic-partitions")
        self.settled()

    def controller(self):
        data = until(30, "a controller", lambda: self.znodes.data("/controller"))
        return json.loads(data)["brokerid"]

    def states(self):
        """(leader and in-sync replicas, stat) of each partition, as the tree has it."""
        found = {}
        for topic, count in self.topics.items():
            for number in range(count):
                data, stat = self.znodes.get(f"/brokers/topics/{topic}/partitions/{number}/state")
                found[topic, number] = (json.loads(data), stat)
        return found

    def probe(self, topics, pause):
        """A probe that every partition has answered."""
        probe = Probe(self.ports, topics, pause)
        self.place.started.append(Closing(probe))
        until(60, "each partition takes records", lambda: all(len(lane.acks) > 5 for lane in probe.lanes.values()))
        return probe

    def finish(self, probe):
        """What must hold of a run: the probe met no error that a client does not simply try again after."""
        probe.stop()
        print(f"{sum(len(lane.acks) for lane in probe.lanes.values())} acks, errors {dict(probe.codes)}")
        equal(probe.unexpected(), {}, "errors that a client does not try again after")


class Closing:
    """Ends a probe with its scenario, whatever became of that."""

    def __init__(self, probe):
        self.probe = probe

    def close(self):
        self.probe.ending.set()


def milliseconds(seconds):
    return [one * 1000 for one in seconds]


@scenario(300, campaign=True)
def leader_killed(place):
    """SIGKILL of leaders: from the deletion of /brokers/ids/N to the next ack on each partition; every other time the controller's."""
    rounds = place.options["rounds"] or 10
    topic = place.name()
    cluster = Cluster(place, [(topic, 30)])
    probe = cluster.probe([(topic, 30)], 0.01)
    lanes = list(probe.lanes.values())
    led, followed = {False: [], True: []}, []
    for number in range(rounds):
        of_controller = number % 2 == 1
        controller = cluster.controller()
        victim = controller if of_controller else (controller + 1 + number // 2 % 2) % 3
        of_victim = [lane for lane in lanes if lane.leader == victim]
        equal(len(of_victim), 10, "partitions that it leads")
        deletion = Deletion(cluster.zookeeper, f"/brokers/ids/{victim}")
        cluster.brokers[victim].process.end(signal.SIGKILL, 30)
        until(30, "the end of its session", lambda: deletion.at)
        until(60, "an ack on each partition", lambda: all(lane.first_ack_after(deletion.at) for lane in lanes))
        took = {lane: lane.first_ack_after(deletion.at) - deletion.at for lane in lanes}
        led[of_controller] += [took[lane] for lane in of_victim]
        followed += [took[lane] for lane in lanes if lane not in of_victim]
        last = max(stat.mtime for _, stat in cluster.states().values()) - deletion.clock_ms
        print(f"broker {victim}{', the controller,' * of_controller} killed: last state written {last:.0f} ms after the deletion, "
              f"acks {min(milliseconds(took.values())):.0f} to {max(milliseconds(took.values())):.0f} ms after it")
        cluster.brokers[victim].start()
        cluster.settled(preferred=False)
        cluster.rebalance()
    cluster.finish(probe)
    target = "max 1000"
    figures.note(place, "from the deletion to an ack, partitions that it led", milliseconds(led[False]), target)
    if led[True]:
        figures.note(place, "the same where it was the controller too", milliseconds(led[True]), target)
    figures.note(place, "the same on partitions that others led", milliseconds(followed))


def controlled_shutdown(place, topics, sampled, pause, rounds, target):
    """Each broker in turn stops and returns: the longest time between two acks of each partition in each step."""
    rounds = place.options["rounds"] or rounds
    cluster = Cluster(place, topics)
    probe = cluster.probe(sampled, pause)
    lanes = list(probe.lanes.values())
    steps = {"nothing happens": [], "it stops, partitions that it led": [], "it stops, the others": [], "it returns": [],
             "first replicas lead again": []}

    def note(step, begin, those=lanes):
        until(60, "an ack on each partition", lambda: all(lane.first_ack_after(ended) for lane in lanes))
        steps[step] += [lane.longest_gap(begin, ended) for lane in those]
        return max(milliseconds(lane.longest_gap(begin, ended) for lane in those))

    for number in range(rounds):
        victim = number % 3
        broker = cluster.brokers[victim]
        is_controller = cluster.controller() == victim
        begin = time.monotonic()
        time.sleep(2)
        ended = time.monotonic()
        note("nothing happens", begin)
        of_victim = [lane for lane in lanes if lane.leader == victim]
        begin = time.monotonic()
        broker.stop()
        stopped = time.monotonic() - begin
        # What is late because of it is late by less.
        time.sleep(1)
        ended = time.monotonic()
        worst = [note("it stops, partitions that it led", begin, of_victim),
                 note("it stops, the others", begin, [lane for lane in lanes if lane not in of_victim])]
        begin = time.monotonic()
        started = broker.start()
        cluster.settled(preferred=False)
        ended = time.monotonic()
        returned = ended - begin
        worst.append(note("it returns", begin))
        begin = time.monotonic()
        cluster.rebalance()
        ended = time.monotonic()
        worst.append(note("first replicas lead again", begin))
        print(f"broker {victim}{', the controller' * is_controller}: stopped in {stopped:.2f} s, served after {started:.2f} s, in sync "
              f"after {returned:.2f} s; longest gaps {', '.join(f'{one:.0f}' for one in worst)} ms")
    cluster.finish(probe)
    for step, gaps in steps.items():
        figures.note(place, f"between acks while {step}", milliseconds(gaps), "" if step == "nothing happens" else target)


@scenario(300, campaign=True)
def controlled_shutdown_of_100(place):
    """Controlled shutdown and return with 100 partitions: how long each took no record."""
    topics = [(place.name(str(number)), 25) for number in range(4)]
    controlled_shutdown(place, topics, topics, 0.02, 6, "p99 250")


@scenario(420, campaign=True)
def controlled_shutdown_of_2000(place):
    """The same with 2,000, of which 200 are sampled."""
    controlled_shutdown(place, MANY, SAMPLED, 0.1, 3, "p99 1000")


@scenario(420, campaign=True)
def controller(place):
    """2,000 partitions: from the deletion of /controller to the last state written, where it is killed and where its session is over."""
    rounds = place.options["rounds"] or 3
    cluster = Cluster(place, MANY)
    killed, elected, expired, named = [], [], [], []
    for number in range(rounds):
        victim = cluster.controller()
        deletion = Deletion(cluster.zookeeper, "/controller")
        cluster.brokers[victim].process.end(signal.SIGKILL, 30)
        until(30, "the end of its session", lambda: deletion.at)
        time.sleep(2)  # who reads thousands of nodes meanwhile makes their writer wait

        def without():
            time.sleep(0.5)
            states = cluster.states()
            return states if all(victim not in (state["leader"], *state["isr"]) for state, _ in states.values()) else None  # noqa: B023

        states = until(120, "states without it", without)
        written = [stat.mtime - deletion.clock_ms for _, stat in states.values()]
        reign = cluster.znodes.get("/controller")[1].ctime - deletion.clock_ms
        print(f"killed {victim}: another was elected {reign:.0f} ms after the deletion, states were written {min(written):.0f} to "
              f"{max(written):.0f} ms after it")
        killed.append(max(written))
        elected.append(reign)
        cluster.brokers[victim].start()
        cluster.settled(preferred=False)
        cluster.rebalance()
    for number in range(rounds):
        victim = cluster.controller()
        versions = {at: stat.version for at, (_, stat) in cluster.states().items()}
        session = cluster.znodes.get("/controller")[1].owner
        deletion = Deletion(cluster.zookeeper, "/controller")
        expire(cluster.zookeeper, session)
        until(30, "the end of its session", lambda: deletion.at)
        now = until(30, "another controller", lambda: cluster.znodes.data("/controller"))
        now = json.loads(now)["brokerid"]
        until(60, "all name it", lambda: all(one == now for one, _ in cluster.say(metadata_request([]))))  # noqa: B023
        named.append(time.monotonic() - deletion.at)
        time.sleep(2)
        cluster.settled(preferred=False)
        states = cluster.states()
        changed = {at: stat.mtime - deletion.clock_ms for at, (_, stat) in states.items() if stat.version != versions[at]}
        expired.append(max(changed.values(), default=0))
        print(f"the session of {victim} ended: {now} was elected, all brokers named it after {named[-1]:.2f} s; {len(changed)} states "
              f"were written, the last after {expired[-1]:.0f} ms")
        cluster.rebalance()
    figures.note(place, "killed: from the deletion of /controller to the last state written", killed, "max 2000")
    figures.note(place, "killed: from the deletion to another's /controller", elected)
    figures.note(place, "session over: from the deletion to the last state written (0 where none was)", expired, "max 2000")
    figures.note(place, "session over: from the deletion to all brokers naming the new one", milliseconds(named))


@scenario(300, campaign=True)
def rolling_restarts(place):
    """Each broker stops and returns in turn, again and again, under idempotent producers and groups of two libraries: nothing is
    lost, nothing stands twice, order is kept, and clients see no error but such as are tried again after."""
    rounds = place.options["rounds"] or 100
    topics = [(place.name("java"), 6), (place.name("rdkafka"), 3)]
    cluster = Cluster(place, topics)
    (java, _), (rdkafka, _) = topics
    running = {java: loads.Java(place, cluster.bootstrap, *topics[0], 3), rdkafka: loads.Rdkafka(place, cluster.bootstrap, *topics[1], 3)}
    stopped, back = [], []
    for number in range(rounds):
        for broker in cluster.brokers:
            begin = time.monotonic()
            broker.stop()
            stopped.append(time.monotonic() - begin)
            broker.start()
            cluster.settled(preferred=False)
            back.append(time.monotonic() - begin)
        if number % 10 == 9:
            print(f"round {number + 1}", flush=True)
    violations, forbidden, seen = [], [], {}
    for topic, load in running.items():
        histories, errors, fatal, wrong = load.finish()
        make = crash_writers.entry if topic == rdkafka else lambda m: (m.partition(), m.offset(), int(m.value()))
        log = librdkafka.read_all(cluster.bootstrap, topic, seconds=300, make=make)
        histories = loads.found(histories, log)
        seen |= errors
        violations += history.check(histories, log) + wrong
        violations += [f"{one.producer}: {len(one.sent) - len(one.acked)} records were not acknowledged" for one in histories
                       if len(one.sent) != len(one.acked)]
        forbidden += fatal
        equal(len(log), sum(len(one.sent) for one in histories), f"records in {topic}")
    print(f"{rounds} rounds of {len(cluster.brokers)} brokers; errors that clients showed: {dict(seen)}")
    equal(violations[:10], [], f"{len(violations)} violations")
    equal(forbidden[:10], [], f"{len(forbidden)} errors that are not simply tried again after")
    figures.note(place, "from SIGTERM to the end of a broker", milliseconds(stopped))
    figures.note(place, "from SIGTERM until it is in sync again", milliseconds(back))
