"""A cluster of three that loses brokers: how long it is without leaders or a controller, measured beside Apache Kafka 2.7.2.

What must hold is judged; times are noted (figures.py) and judged by who reads them, since a busy machine makes them longer.
ZooKeeper's tickTime is 500 ms. Kafka's brokers have the JVM options of its own scripts, and settings are the defaults of 2.7.2
but for a shorter session where brokers are killed, so that they are missed sooner; no figure has the session's time in it.
"""

import datetime
import json
import re
import signal
import sys
import time

import crash_writers
import figures
import history
import librdkafka
import loads
import peers
import records
import subject as subjects
from confluent_kafka import KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import NewTopic
from probe import Probe, metadata_request, partitions_of
from scenario import contains, equal, scenario, until
from scenarios import mixed
from tools import JVM, Tools, finished
from znodes import Deletion, Znodes, expire

# Many topics, since real clusters have them. The sampled are spread over their order, the first and the last among them.
MANY = [(f"t{number:02}", 50) for number in range(40)]
SAMPLED = [MANY[0], MANY[13], MANY[26], MANY[39]]


class Cluster(mixed.Cluster):
    """Three brokers of one kind, and topics of three replicas, two of which must have a record; leaders are spread evenly."""

    def __init__(self, place, topics, session_ms=10000, **settings):
        sys.setswitchinterval(0.001)  # the probe's thread waits for no other
        own = {"replica.lag.time.max.ms": 30000, "controlled.shutdown.retry.backoff.ms": 5000, "min.insync.replicas": 2,
               "offsets.topic.replication.factor": 3, "auto.leader.rebalance.enable": "false", **settings}
        super().__init__(place, ["milena"] * 3, "2.7", session_ms=session_ms, apache="kafka-as-shipped", **own)
        self.znodes = Znodes(self.zookeeper)
        self.topics = dict(topics)
        self.tools = Tools(place, self.bootstrap)
        new = [NewTopic(topic, count, replica_assignment=[[(number + at) % 3 for at in range(3)] for number in range(count)])
               for topic, count in topics]
        admin = librdkafka.admin(self.bootstrap)
        for future in admin.create_topics(new, request_timeout=60).values():
            try:
                future.result(90)
            except KafkaException as error:
                # Who needs longer for so many goes on with them.
                if error.args[0].code() not in (KafkaError._TIMED_OUT, KafkaError.REQUEST_TIMED_OUT):
                    raise
        self.settled(preferred=False)
        self.rebalance()

    @property
    def ports(self):
        return {number: broker.port for number, broker in enumerate(self.brokers)}

    def say(self, request):
        """What each live broker says in answer to Metadata."""
        for broker in self.live():
            yield partitions_of(subjects.exchange(broker.port, request[4:]))

    def settled(self, seconds=240, preferred=True):
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

    def ready(self):
        """When the last one said that it is ready to serve as the controller, by the clock in ms."""
        said = re.findall(r"\[(\S+ \S+)\] INFO .*Ready to serve as the new controller", self.brokers[self.controller()].log.read_text())
        return datetime.datetime.strptime(said[-1], "%Y-%m-%d %H:%M:%S,%f").timestamp() * 1000 if said else 0

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
    cluster = Cluster(place, [(topic, 30)], session_ms=2000)
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
        gaps = {lane: lane.longest_gap(begin, ended) for lane in those}
        steps[step] += [seconds for seconds, _ in gaps.values()]
        lane = max(gaps, key=gaps.get)
        seconds, since = gaps[lane]
        clock = time.strftime("%H:%M:%S", time.localtime(time.time() - time.monotonic() + since))
        return f"{seconds * 1000:.0f} ms ({lane.topic}-{lane.partition} since {clock})"

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
        # What begins to be late up to now counts, however late it is.
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
              f"after {returned:.2f} s; longest gaps {', '.join(worst)}")
    cluster.finish(probe)
    for step, gaps in steps.items():
        figures.note(place, f"between acks while {step}", milliseconds(gaps), "" if step == "nothing happens" else target)


@scenario(300, campaign=True)
def controlled_shutdown_of_100(place):
    """Controlled shutdown and return with 100 partitions: how long each took no record."""
    topics = [(place.name(str(number)), 25) for number in range(4)]
    controlled_shutdown(place, topics, topics, 0.02, 6, "p99 250")


@scenario(600, campaign=True)
def controlled_shutdown_of_2000(place):
    """The same with 2,000, of which 200 are sampled."""
    controlled_shutdown(place, MANY, SAMPLED, 0.1, 3, "p99 1000")


@scenario(600, campaign=True)
def controller(place):
    """2,000 partitions: from the deletion of /controller to the last state written, where it is killed and where its session is over."""
    rounds = place.options["rounds"] or 3
    cluster = Cluster(place, MANY, session_ms=2000)
    written, elected, ready = [], [], {"killed": [], "its session over": []}
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
        took = [stat.mtime - deletion.clock_ms for _, stat in states.values()]
        written.append(max(took))
        elected.append(cluster.znodes.get("/controller")[1].ctime - deletion.clock_ms)
        ready["killed"].append(cluster.ready() - deletion.clock_ms)
        print(f"killed {victim}: another was elected {elected[-1]:.0f} ms after the deletion and said that it is ready after "
              f"{ready['killed'][-1]:.0f} ms; states were written {min(took):.0f} to {max(took):.0f} ms after it")
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
        until(60, "another controller that is ready", lambda: cluster.ready() > deletion.clock_ms)
        ready["its session over"].append(cluster.ready() - deletion.clock_ms)
        cluster.settled(preferred=False)
        written_again = [stat.mtime - deletion.clock_ms for at, (_, stat) in cluster.states().items() if stat.version != versions[at]]
        print(f"the session of {victim} ended: {cluster.controller()} was ready {ready['its session over'][-1]:.0f} ms after it; "
              f"{len(written_again)} states were written, the last, which may be that of a replica in sync again, "
              f"{max(written_again, default=0):.0f} ms after it")
        cluster.rebalance()
    figures.note(place, "killed, from the deletion of /controller to the last state written", written, "max 2000")
    figures.note(place, "killed, from the deletion to another's /controller", elected)
    for how, took in ready.items():
        figures.note(place, f"{how}, from the deletion to another's word that it is ready to serve", took, "max 2000")


@scenario(2400, campaign=True)
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
            begin = time.monotonic()
            # Restarts that come faster than a member finds its coordinator would end its session.
            until(60, "a commit of each member", lambda: running[rdkafka].has_committed_since(begin))
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


# What a 2.7.2 broker writes of itself, in this order, without a rack; of others the type.
REGISTRATION = [("listener_security_protocol_map", {"PLAINTEXT": "PLAINTEXT"}), ("endpoints", list), ("rack", str), ("jmx_port", -1),
                ("features", {}), ("host", "127.0.0.1"), ("timestamp", str), ("port", int), ("version", 5)]


@scenario(300, campaign=True)
def walk_through(place):
    """Three brokers as ZooKeeper's own shell and Kafka's tools see them, old and new; each stops in turn and comes back in sync."""
    topic, group = place.name("t"), place.name("group")
    cluster = Cluster(place, [(topic, 6)])
    tools, old, new = cluster.tools, ["--zookeeper", cluster.zookeeper.connect], ["--bootstrap-server", cluster.bootstrap]

    def shell(*words):
        command = [*JVM, f"-Dlog4j.configuration=file:{tools.log4j}", "-cp", f"{peers.kafka()}/*", "org.apache.zookeeper.ZooKeeperMain",
                   "-server", cluster.zookeeper.connect, *words]
        return finished(command).splitlines()[-1]

    def call(tool, where, *words):
        return tools.run(tool, *where, *words, server=False)

    def described():
        """(leader, in-sync replicas) of each partition, as kafka-topics prints them."""
        lines = [dict(field.split(": ", 1) for field in line.strip().split("\t") if ": " in field)
                 for line in call("kafka-topics", new, "--describe", "--topic", topic).splitlines() if "\tPartition: " in line]
        return [(int(one["Leader"]), sorted(map(int, one["Isr"].split(",")))) for one in lines]

    equal(shell("ls", "/brokers/ids"), "[0, 1, 2]", "ls /brokers/ids")
    registered = json.loads(shell("get", "/brokers/ids/0"))
    equal(list(registered), [key for key, _ in REGISTRATION], "keys of /brokers/ids/0")
    for key, wanted in REGISTRATION:
        found = registered[key]
        equal(type(found) if isinstance(wanted, type) else found, wanted, f"{key} of /brokers/ids/0")
    equal(registered["endpoints"], [f"PLAINTEXT://{cluster.brokers[0].bootstrap}"], "endpoints")

    entity = ["--entity-type", "topics", "--entity-name", topic]
    for where, others, setting in ((old, new, "retention.ms=7654321"), (new, old, "segment.ms=7654321")):
        contains(call("kafka-topics", where, "--list"), topic)
        call("kafka-configs", where, *entity, "--alter", "--add-config", setting)
        until(30, f"{setting}, told by the other way", lambda: setting in call("kafka-configs", others, *entity, "--describe"))  # noqa: B023
    brokers = ["--entity-type", "brokers", "--entity-name", "1"]
    call("kafka-configs", new, *brokers, "--alter", "--add-config", "log.cleaner.threads=2")
    contains(call("kafka-configs", old, *brokers, "--describe"), "log.cleaner.threads=2")
    contains(call("kafka-configs", new, *brokers, "--describe"), "log.cleaner.threads=2")

    # Preferred leaders are asked for by the tool of old, and by its successor.
    moves = {"version": 1, "partitions": [{"topic": topic, "partition": number, "replicas": [(number + at) % 3 for at in (1, 2, 0)]}
                                          for number in range(6)]}
    plan = place.directory / "plan.json"
    plan.write_text(json.dumps(moves))
    for where in (old, new):
        contains(call("kafka-reassign-partitions", where, "--reassignment-json-file", plan, "--execute"), "Successfully started")
        until(60, "the reassignment is over", lambda: "still in progress" not in call(
            "kafka-reassign-partitions", where, "--reassignment-json-file", plan, "--verify"))  # noqa: B023
        if where is old:
            call("kafka-preferred-replica-election", old, "--path-to-json-file", plan)
        else:
            cluster.rebalance()
        until(30, "first replicas lead", lambda: described() == [
            (one["replicas"][0], [0, 1, 2]) for one in moves["partitions"]])
        for one in moves["partitions"]:
            one["replicas"].append(one["replicas"].pop(0))
        plan.write_text(json.dumps(moves))

    sent = [records.Record(number % 6, -1, records.TIME, None, b"%d" % number, ()) for number in range(60)]
    librdkafka.produce(cluster.bootstrap, topic, sent, enable_idempotence=True)
    client = librdkafka.consumer(cluster.bootstrap, group)
    client.subscribe([topic])
    count = 0
    while count < len(sent):
        count += len(client.consume(100, timeout=30))
    client.commit(asynchronous=False)
    client.close()
    contains(call("kafka-consumer-groups", new, "--list"), group)
    about = ["--group", group]
    equal(call("kafka-consumer-groups", new, *about, "--describe").count(topic), 6, "partitions with an offset")
    call("kafka-consumer-groups", new, *about, "--topic", topic, "--reset-offsets", "--to-earliest", "--execute")
    client = librdkafka.consumer(cluster.bootstrap, group)
    found = client.committed([TopicPartition(topic, number) for number in range(6)], timeout=30)
    client.close()
    equal([one.offset for one in found], [0] * 6, "offsets after the reset")

    for number, broker in enumerate(cluster.brokers):
        others = [one for one in range(3) if one != number]
        equal(number in [leader for leader, _ in described()], True, f"{number} leads something")
        broker.stop()
        # Kafka's brokers take one that stops back into in-sync sets, and miss it after replica.lag.time.max.ms.
        until(60, f"others lead what {number} led", lambda: all(
            leader in others and in_sync == others for leader, in_sync in described()))  # noqa: B023
        equal(shell("ls", "/brokers/ids"), str(others), "ls /brokers/ids")
        broker.start()
        cluster.settled(preferred=False)
        equal([in_sync for _, in_sync in described()], [[0, 1, 2]] * 6, "replicas in sync")
        cluster.rebalance()
    call("kafka-consumer-groups", new, *about, "--delete")
    cluster.end()
