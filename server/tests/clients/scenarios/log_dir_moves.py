"""Replicas move between the log directories of a broker, as Kafka's tools ask for it."""

import json
import time

import librdkafka
from scenario import contains, equal, scenario, until
from scenarios.mixed import Cluster, Ledger
from tools import Tools

# Small steps, so that a rate is kept evenly.
COPIED_BYTES = 100_000
# So few that a move does not end by itself.
CRAWL = 1_000
RATE = "replica.alter.log.dirs.io.max.bytes.per.second"


class Mover:
    """What Kafka's tools say and do about the directories of one broker."""

    def __init__(self, place, broker, bootstrap=None):
        self.place, self.broker = place, broker
        self.tools = Tools(place, bootstrap or broker.bootstrap)
        self.plan = place.directory / "plan.json"

    def named(self, moves):
        """`moves`: directory by (topic, partition); the other replicas stay where they are."""
        replica = lambda at, directory: {"topic": at[0], "partition": at[1], "replicas": [0],  # noqa: E731
                                         "log_dirs": [str(directory)]}
        self.plan.write_text(json.dumps({"version": 1, "partitions": [replica(*one) for one in moves.items()]}))

    def reassign(self, *arguments):
        return self.tools.run("kafka-reassign-partitions", "--reassignment-json-file", self.plan, *arguments)

    def move(self, moves, *arguments):
        self.named(moves)
        contains(self.reassign("--execute", *arguments), "Successfully started log directory move")

    def wait(self, moves):
        self.named(moves)
        until(60, "the moves are over", lambda: "still in progress" not in self.reassign("--verify"))
        for (topic, partition), directory in moves.items():
            contains(self.reassign("--verify"), f"Reassignment of replica {topic}-{partition}-0 completed successfully.")
            equal(self.homes(topic, partition), [directory], f"where {topic}-{partition} lies")

    def set_rate(self, rate):
        self.tools.run("kafka-configs", "--alter", "--entity-type", "brokers", "--entity-name", 0,
                       *(["--add-config", f"{RATE}={rate}"] if rate else ["--delete-config", RATE]))

    def described(self, topic):
        """{(directory, partition, is future): lag} of a topic, as kafka-log-dirs shows it."""
        shown = json.loads(self.tools.run("kafka-log-dirs", "--describe", "--topic-list", topic).splitlines()[-1])
        (broker,) = [one for one in shown["brokers"] if one["broker"] == 0]
        return {(one["logDir"], int(partition["partition"].rsplit("-", 1)[1]), partition["isFuture"]): partition["offsetLag"]
                for one in broker["logDirs"] for partition in one["partitions"]}

    def homes(self, topic, partition):
        return [one for one in self.broker.log_dirs if (one / f"{topic}-{partition}").is_dir()]

    def futures(self, topic):
        return [path for one in self.broker.log_dirs for path in one.glob(f"{topic}-*-future")]


@scenario(300)
def one_broker(place):
    """A broker that stands alone: a throttled move survives a kill, goes on under load, crosses another, is taken back."""
    first, second = dirs = [place.directory / "a", place.directory / "b"]
    broker = place.start({"replica.fetch.max.bytes": COPIED_BYTES}, data=dirs)
    mover = Mover(place, broker)
    topic = place.name("t")
    mover.tools.create(topic, 2, segment_bytes=500_000)
    ledger = Ledger(broker, topic, 2)
    for _ in range(80):
        ledger.produce(acks="all", compression_type="none")
    (home,), (other_home,) = mover.homes(topic, 0), mover.homes(topic, 1)
    away = second if home == first else first

    equal(mover.described(topic), {(str(home), 0, False): 0, (str(other_home), 1, False): 0}, "before any move")
    mover.move({(topic, 0): away}, "--replica-alter-log-dirs-throttle", CRAWL)
    contains(mover.reassign("--verify"), f"Reassignment of replica {topic}-0-0 is still in progress.")
    shown = mover.described(topic)
    equal(shown[(str(home), 0, False)], 0, "the lag of the current log")
    assert shown[(str(away), 0, True)] > 1000, f"the lag of the future log: {shown}"
    ledger.produce(acks="all")
    ledger.check()
    broker.kill()
    broker.start()
    until(30, "the move goes on", lambda: mover.described(topic).get((str(away), 0, True)))
    equal((mover.homes(topic, 0), len(mover.futures(topic))), ([home], 1), "what is there after a kill")
    with ledger.load():
        time.sleep(1)
        mover.set_rate(None)
        mover.wait({(topic, 0): away})
        time.sleep(1)
    ledger.check()
    equal(mover.described(topic)[(str(away), 0, False)], 0, "the lag after the move")

    # Both at once, under load, and each back again.
    back = first if other_home == second else second
    with ledger.load():
        for _ in range(3):
            moves = {(topic, 0): home, (topic, 1): back}
            mover.move(moves)
            mover.wait(moves)
            moves = {(topic, 0): away, (topic, 1): other_home}
            mover.move(moves)
            mover.wait(moves)
    ledger.check()

    # Taken back, and given up with the topic.
    mover.set_rate(CRAWL)
    mover.move({(topic, 0): home})
    until(20, "a future log", lambda: mover.futures(topic))
    mover.move({(topic, 0): away})
    until(20, "no future log", lambda: not mover.futures(topic))
    mover.wait({(topic, 0): away})
    mover.set_rate(CRAWL)
    ledger.produce(acks="all")
    ledger.check()
    broker.stop()
    if place.subject == "milena":
        # Kafka gives the entries of a copy's indexes the offset of all that was copied at a time, not of the batch.
        equal(mover.tools.dump(*dirs), [], "complaints of kafka-dump-log")
    broker.start()
    mover.move({(topic, 0): home})
    until(20, "a future log", lambda: mover.futures(topic))
    mover.tools.run("kafka-topics", "--delete", "--topic", topic)
    until(30, "all directories are gone or going",
          lambda: not mover.futures(topic) and not any(one.joinpath(f"{topic}-0").exists() for one in dirs))
    broker.stop()


@scenario(300)
def refused(place):
    """What cannot be: an unknown directory, a partition that is not there."""
    dirs = [place.directory / "a", place.directory / "b"]
    mover = Mover(place, place.start(data=dirs))
    topic = place.name("t")
    mover.tools.create(topic)
    mover.named({(topic, 0): place.directory / "c"})
    code, output = mover.tools.call("kafka-reassign-partitions", "--bootstrap-server", mover.tools.bootstrap,
                                    "--reassignment-json-file", mover.plan, "--execute", "--timeout", 2000)
    assert code != 0 and "LogDirNotFoundException" in output, (code, output)
    equal(mover.futures(topic), [], "future logs")
    mover.broker.stop()


@scenario(300)
def placed_where_it_was_said(place):
    """A replica that comes to another broker is created in the directory that the move names."""
    cluster = Cluster(place, ["milena"] * 2, "2.7")
    dirs = [place.directory / "a", place.directory / "b"]
    settings = {"broker.id": 2, "broker.rack": "rack-2", "inter.broker.protocol.version": "2.7",
                "log.message.format.version": "2.7", "auto.create.topics.enable": "false"}
    broker = place.start(settings, name="2", data=dirs, zookeeper=cluster.zookeeper, session_ms=4000)
    cluster.brokers.append(broker)
    cluster.agreed(3)
    topic = place.name("t")
    cluster.create(topic, [0, 1], [1, 0], [0, 1])
    ledger = Ledger(cluster, topic, 3)
    ledger.produce(acks="all")
    mover = Mover(place, broker, cluster.bootstrap)
    moves = [{"topic": topic, "partition": number, "replicas": [number % 2, 2], "log_dirs": ["any", str(dirs[1])]}
             for number in range(3)]
    mover.plan.write_text(json.dumps({"version": 1, "partitions": moves}))
    mover.reassign("--execute")
    until(60, "the move is over", lambda: "still in progress" not in mover.reassign("--verify"))
    for number in range(3):
        cluster.partition(topic, number, error=0, replicas=[number % 2, 2], isr=sorted([number % 2, 2]))
        equal(mover.homes(topic, number), [dirs[1]], f"where {topic}-{number} lies")
    # A follower moves while it follows, and then leads.
    with ledger.load():
        for move in moves:
            move["log_dirs"][1] = str(dirs[0])
        mover.plan.write_text(json.dumps({"version": 1, "partitions": moves}))
        mover.reassign("--execute")
        until(60, "the move is over", lambda: "still in progress" not in mover.reassign("--verify"))
    for number in range(3):
        equal(mover.homes(topic, number), [dirs[0]], f"where {topic}-{number} lies")
    ledger.produce(acks="all")
    for other in cluster.brokers[:2]:
        other.stop()
    for number in range(3):
        cluster.partition(topic, number, leader=2)
    equal(len(librdkafka.read_all(broker.bootstrap, topic)) > 300, True, "records of the former follower")
    ledger.check(broker.bootstrap)
    broker.stop()
    equal(mover.tools.dump(*dirs), [], "complaints of kafka-dump-log")
