"""Apache Kafka and Milena in one cluster, on one ZooKeeper: each in turn controller, leader and follower.

With Kafka as the subject all brokers are Kafka's, which shows that the scenarios themselves hold.
"""

import contextlib
import json
import re
import signal
import struct
import threading

import librdkafka
import records
import subject as subjects
from confluent_kafka import KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import NewTopic
from scenario import Skip, contains, equal, scenario, until
from tools import Tools

METADATA_VERSION = 7


class Fields:
    """Reads the fields of an answer."""

    def __init__(self, body):
        self.body, self.at = body, 0

    def number(self, form):
        (value,) = struct.unpack_from(">" + form, self.body, self.at)
        self.at += struct.calcsize(form)
        return value

    def text(self):
        size = self.number("h")
        if size < 0:
            return None
        self.at += size
        return self.body[self.at - size:self.at].decode()

    def list(self, one):
        return [one() for _ in range(self.number("i"))]


def metadata(broker):
    """What a broker says of the cluster: cluster id, controller, brokers, and all that it knows of each partition."""
    request = struct.pack(">hhih", 3, METADATA_VERSION, 7, -1) + struct.pack(">i?", -1, False)
    fields = Fields(subjects.exchange(broker.port, request))
    ids = lambda: fields.list(lambda: fields.number("i"))  # noqa: E731
    fields.number("i"), fields.number("i")
    brokers = fields.list(lambda: (fields.number("i"), fields.text(), fields.number("i"), fields.text()))
    cluster, controller = fields.text(), fields.number("i")

    def partition():
        error, index, leader, epoch = (fields.number(form) for form in "hiii")
        return index, {"error": error, "leader": leader, "epoch": epoch, "replicas": ids(), "isr": sorted(ids()),
                       "offline": ids()}

    def topic():
        error, name, internal = fields.number("h"), fields.text(), fields.number("?")
        return name, (error, internal, dict(fields.list(partition)))

    topics = dict(fields.list(topic))
    return {"cluster": cluster, "controller": controller, "brokers": sorted(brokers), "topics": topics}


class Cluster:
    """Brokers 0, 1, ... of these kinds, started in this order: 0 is the controller.

    `apache` is the kind of all of them with Kafka as the subject.
    """

    def __init__(self, place, kinds, release, session_ms=4000, apache="kafka", zookeeper=None, **settings):
        self.place = place
        self.zookeeper = zookeeper
        if zookeeper is None:
            self.zookeeper = subjects.ZooKeeper(place.directory).start()
            place.started.append(self.zookeeper)
        self.brokers = []
        for number, kind in enumerate(kinds):
            name = apache if place.subject == "kafka" else kind
            own = {"broker.id": number, "broker.rack": f"rack-{number}", "inter.broker.protocol.version": release,
                   "log.message.format.version": release, "controlled.shutdown.retry.backoff.ms": 500,
                   "replica.lag.time.max.ms": 5000, "auto.create.topics.enable": "false", **settings}
            self.brokers.append(place.start(own, kind=name, name=f"{number}-{name}", zookeeper=self.zookeeper,
                                            session_ms=session_ms))
        self.agreed(len(kinds))
        equal(metadata(self.brokers[0])["controller"], 0, "controller")

    @property
    def bootstrap(self):
        return ",".join(broker.bootstrap for broker in self.brokers)

    def live(self):
        return [broker for broker in self.brokers if broker.process is not None and broker.process.running()]

    def agreed(self, count=None, what="all brokers say the same", where=lambda seen: True):
        """What all live brokers say of the cluster, once they say the same, name `count` brokers, and `where` holds."""
        seen = []

        def same():
            seen[:] = [metadata(broker) for broker in self.live()]
            enough = count is None or len(seen[0]["brokers"]) == count
            return seen[0] if enough and all(one == seen[0] for one in seen) and where(seen[0]) else None

        try:
            return until(60, what, same)
        except AssertionError as error:
            raise AssertionError(f"{error}: {seen}") from None

    def partition(self, topic, number, **wanted):
        """Waits until all say this of a partition; returns all that they say of it."""
        def holds(seen):
            found = seen["topics"].get(topic, (0, False, {}))[2].get(number)
            return found and all(found[key] == value for key, value in wanted.items())

        return self.agreed(what=f"{topic}-{number} with {wanted}", where=holds)["topics"][topic][2][number]

    def create(self, topic, *replicas, **config):
        """A topic whose partitions have these replicas."""
        new = NewTopic(topic, len(replicas), replica_assignment=[list(one) for one in replicas],
                       config={key.replace("_", "."): str(value) for key, value in config.items()})
        client = librdkafka.admin(self.bootstrap)

        def created():
            try:
                client.create_topics([new])[topic].result(30)
                return True
            except KafkaException as error:
                # One of that name may still be on its way out of the tree.
                if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                    raise
                return False

        until(30, f"{topic} is created", created)
        for number, one in enumerate(replicas):
            self.partition(topic, number, error=0, leader=one[0], replicas=list(one), isr=sorted(one), offline=[])

    def delete(self, topic):
        client = librdkafka.admin(self.bootstrap)
        client.delete_topics([topic])[topic].result(30)
        self.agreed(what=f"{topic} is gone", where=lambda seen: topic not in seen["topics"])
        until(60, f"directories of {topic} are gone", lambda: not self.directories(topic))

    def directories(self, topic):
        """(broker, partition) of each directory of a topic; those that are only still to be removed do not count."""
        return sorted((number, int(path.name.rsplit("-", 1)[1])) for number, broker in enumerate(self.brokers)
                      for path in broker.data.glob(f"{topic}-*") if path.name.removeprefix(f"{topic}-").isdigit())

    def end(self):
        """Stops all, and has Kafka's own tool look at every file."""
        for broker in reversed(self.live()):
            broker.stop()
        tools = Tools(self.place, self.bootstrap)
        for broker in self.brokers:
            complaints = tools.dump(broker.data)
            if broker.name == "kafka":
                # As a follower it gives entries of its indexes the offset of all that it fetched, not of the batch.
                own_way = (r"Index offset: \d+, log offset: \d+$|Mismatches in .*\.index$|"
                           r".*\.timeindex: (Indexed offset: \d+, found log offset: \d+|Found timestamp mismatch in .*)$")
                complaints = [line for line in complaints if not re.match(own_way, line)]
            equal(complaints, [], f"complaints of kafka-dump-log about {broker.directory.name}")

    def same_logs(self, topic, partitions, brokers=None):
        """All replicas of a topic have the same bytes."""
        for partition in range(partitions):
            copies = [b"".join(path.read_bytes() for path in sorted(directory.glob("*.log")))
                      for number, broker in enumerate(self.brokers) if brokers is None or number in brokers
                      for directory in [broker.data / f"{topic}-{partition}"]]
            equal([len(copy) for copy in copies], [len(copies[0])] * len(copies), f"bytes of {topic}-{partition}")
            equal(len(set(copies)), 1, f"different logs of {topic}-{partition}")


def samples(partitions, turn):
    return [records.Record(i % partitions, -1, records.TIME + i, f"{turn}-{i}".encode(), f"value {turn} {i}".encode() * 5, ())
            for i in range(300)]


class Ledger:
    """All that was acknowledged of a topic, and a comparison with what is read."""

    def __init__(self, cluster, topic, partitions):
        self.cluster, self.topic, self.partitions = cluster, topic, partitions
        self.acked = {}
        self.somewhere = []
        self.turn = 0

    def produce(self, bootstrap=None, **settings):
        self.turn += 1
        sent = samples(self.partitions, self.turn)
        acks = librdkafka.produce(bootstrap or self.cluster.bootstrap, self.topic, sent, **settings)
        for at, record in zip(acks, sent):
            equal(self.acked.setdefault(at, record.value), record.value, f"what was acknowledged at {at}")

    @contextlib.contextmanager
    def load(self):
        """An idempotent producer goes on meanwhile; at the end all that it sent must have been acknowledged."""
        self.turn += 1
        turn, count, errors, stop = self.turn, [0], [], threading.Event()
        producer = librdkafka.producer(self.cluster.bootstrap, enable_idempotence=True, message_timeout_ms=120000,
                                       reconnect_backoff_max_ms=500, retry_backoff_ms=50)

        def delivered(error, message):
            at = (message.partition(), message.offset())
            if error is None and message.offset() is None:
                # Of a retry that a later acknowledgement answered, librdkafka does not know the offset.
                self.somewhere.append((message.partition(), message.value()))
            elif error or self.acked.setdefault(at, message.value()) != message.value():
                errors.append((error, at))

        def produce():
            while not stop.is_set():
                producer.poll(0.002)
                try:
                    producer.produce(self.topic, value=f"load {turn} {count[0]}".encode(),
                                     partition=count[0] % self.partitions, on_delivery=delivered)
                except KafkaException as error:
                    # Kafka's broker says so while it has just started and has not heard of the controller yet.
                    if error.args[0].code() != KafkaError._UNKNOWN_TOPIC:
                        raise
                    continue
                count[0] += 1
                while len(producer) > 2000:
                    producer.poll(0.01)

        loading = threading.Thread(target=produce, daemon=True)
        loading.start()
        try:
            yield
        finally:
            stop.set()
            loading.join(30)
        left = producer.flush(120)
        equal((left, errors[:3]), (0, []), f"records without an ack and errors, of {count[0]}")

    def check(self, bootstrap=None):
        """Every record that was acknowledged is where that was said, and no other is there."""
        read = librdkafka.read_all(bootstrap or self.cluster.bootstrap, self.topic,
                                   make=lambda m: ((m.partition(), m.offset()), m.value()))
        found = dict(read)
        equal(len(found), len(read), "records at different places")
        wrong = {at: (value, found.get(at)) for at, value in self.acked.items() if found.get(at) != value}
        equal(sorted(wrong.items())[:6], [], f"what was acknowledged and read, at {len(wrong)} places")
        others = sorted((partition, value) for (partition, offset), value in read if (partition, offset) not in self.acked)
        equal(others[:6], sorted(self.somewhere)[:6], f"{len(read)} records read; those without a known place")
        equal(len(others), len(self.somewhere), "records without a known place")


def single_replicas(place, kinds, release):
    """Two brokers, one replica each: metadata, records, deletion, a bounce and a kill of the one that is not controller."""
    cluster = Cluster(place, kinds, release)
    _, other = cluster.brokers
    topic = place.name("t")
    cluster.create(topic, [1], [0], [1])
    equal(cluster.directories(topic), [(0, 1), (1, 0), (1, 2)], "directories")
    ledger = Ledger(cluster, topic, 3)
    for broker in cluster.brokers:
        ledger.produce(broker.bootstrap, enable_idempotence=True, compression_type="lz4")
    ledger.check()

    gone = place.name("gone")
    cluster.create(gone, [1], [0])
    librdkafka.produce(cluster.bootstrap, gone, samples(2, 1))
    cluster.delete(gone)
    equal(cluster.directories(topic), [(0, 1), (1, 0), (1, 2)], "directories that stay")
    # Again under the same name: nothing of the former one is there.
    cluster.create(gone, [1])
    equal(librdkafka.read_all(cluster.bootstrap, gone), [], "records of the former topic")

    epoch = cluster.partition(topic, 0)["epoch"]
    other.stop()
    # A stop hands over what it leads; nobody is there to take it.
    seen = cluster.partition(topic, 0, leader=-1)
    equal((seen["error"], seen["isr"], seen["offline"]), (5, [1], [1]), "a partition whose broker stopped")
    other.start()
    seen = cluster.partition(topic, 0, leader=1, error=0, offline=[])
    equal(seen["epoch"] > epoch, True, f"leader epoch {seen['epoch']} after {epoch}")
    ledger.check()
    ledger.produce()
    other.kill()
    other.start()
    cluster.partition(topic, 2, leader=1, error=0, offline=[])
    ledger.check()
    ledger.produce()
    ledger.check()
    cluster.end()


class Groups:
    """Groups enough to have a coordinator on each broker, and what each has committed."""

    def __init__(self, cluster, topic):
        self.cluster, self.topic = cluster, topic
        self.names = [cluster.place.name(f"group-{number}") for number in range(6)]
        self.turn = 0

    def offsets(self):
        return [TopicPartition(self.topic, 0, self.turn, f"turn {self.turn}")]

    def commit(self):
        self.turn += 1
        for name in self.names:
            client = librdkafka.consumer(self.cluster.bootstrap, name)

            def committed():
                try:
                    client.commit(offsets=self.offsets(), asynchronous=False)  # noqa: B023
                    return True
                except KafkaException as error:
                    if not error.args[0].retriable() and error.args[0].code() not in librdkafka.MOVING:
                        raise
                    return False

            until(60, f"a commit of {name}", committed)
            client.close()

    def check(self):
        """Whoever coordinates now has the last commit of each group, and no older one."""
        for name in self.names:
            client = librdkafka.consumer(self.cluster.bootstrap, name)

            def read():
                try:
                    return client.committed([TopicPartition(self.topic, 0)], timeout=10)  # noqa: B023
                except KafkaException:
                    return None

            (found,) = until(60, f"the commit of {name}", read)
            equal((found.offset, found.metadata), (self.turn, f"turn {self.turn}"), f"what {name} has committed")
            client.close()


def replicated(place, kinds, release):
    """Three brokers, three replicas, under load: each is killed, one is stopped; nothing acknowledged is lost, all is copied."""
    cluster = Cluster(place, kinds, release, **{"offsets.topic.replication.factor": 3, "offsets.topic.num.partitions": 6})
    topic, all_of_them = place.name("t"), [0, 1, 2]
    cluster.create(topic, [1, 2, 0], [2, 1, 0], [0, 1, 2], min_insync_replicas=2)
    ledger, groups = Ledger(cluster, topic, 3), Groups(cluster, topic)
    ledger.produce(enable_idempotence=True, compression_type="lz4")
    ledger.check()
    groups.commit()
    for number, end in ((1, "kill"), (2, "kill"), (1, "stop"), (0, "kill")):
        broker = cluster.brokers[number]
        print(f"{end} of broker {number}, {broker.name}")
        others = [one for one in all_of_them if one != number]
        with ledger.load():
            getattr(broker, end)()
            for partition in range(3):
                seen = cluster.partition(topic, partition, error=0, isr=others, offline=[number])
                equal(seen["leader"] in others, True, f"leader {seen['leader']}")
            groups.check()
            groups.commit()
            broker.start()
            for partition in range(3):
                cluster.partition(topic, partition, error=0, isr=all_of_them, offline=[])
        ledger.check()
        groups.check()
    tools = Tools(place, cluster.bootstrap)
    tools.run("kafka-leader-election", "--election-type", "preferred", "--all-topic-partitions")
    for partition, leader in enumerate((1, 2, 0)):
        cluster.partition(topic, partition, leader=leader)
    reassign(cluster, ledger, tools)
    ledger.produce(enable_idempotence=True)
    ledger.check()
    cluster.end()
    cluster.same_logs(topic, 3)


def reassign(cluster, ledger, tools):
    """Moves partitions to other replicas and back by Kafka's tool, under load."""
    topic = ledger.topic
    plans = [[[2], [0], [1]], [[0, 2], [1, 0], [2, 1]], [[1, 2, 0], [2, 1, 0], [0, 1, 2]]]
    with ledger.load():
        for number, plan in enumerate(plans):
            path = cluster.place.directory / f"plan-{number}.json"
            partitions = [{"topic": topic, "partition": at, "replicas": replicas} for at, replicas in enumerate(plan)]
            path.write_text(json.dumps({"version": 1, "partitions": partitions}))
            contains(tools.run("kafka-reassign-partitions", "--reassignment-json-file", path, "--execute"),
                     "Successfully started")
            for at, replicas in enumerate(plan):
                cluster.partition(topic, at, error=0, replicas=replicas, isr=sorted(replicas), offline=[])
            wanted = sorted((replica, at) for at, replicas in enumerate(plan) for replica in replicas)
            until(60, f"directories {wanted}", lambda: cluster.directories(topic) == wanted)  # noqa: B023
            contains(tools.run("kafka-reassign-partitions", "--reassignment-json-file", path, "--verify"), "is complete")
    ledger.check()


def diverged(place, kinds, release):
    """A leader dies with records that nobody else has: the next one goes on without them, and it gives them up on its return."""
    cluster = Cluster(place, kinds, release, session_ms=9000)
    controller, leader, follower = cluster.brokers
    topic = place.name("t")
    cluster.create(topic, [1, 2], unclean_leader_election_enable="false")
    librdkafka.produce(cluster.bootstrap, topic, samples(1, 1), acks="all")
    follower.process.process.send_signal(signal.SIGSTOP)
    # Acknowledged by the leader alone: such records may be lost, and are. The first may go to the fetch that waits.
    for turn, count in ((2, 1), (3, 50)):
        librdkafka.produce(leader.bootstrap, topic, samples(1, turn)[:count], acks=1)
    leader.process.end(signal.SIGKILL, 30)
    follower.process.process.send_signal(signal.SIGCONT)
    cluster.partition(topic, 0, error=0, leader=2, isr=[2])
    acks = librdkafka.produce(f"{controller.bootstrap},{follower.bootstrap}", topic, samples(1, 4)[:20], acks="all")
    survivors = acks[0][1] - 300
    equal(survivors in (0, 1), True, f"{survivors} of the records survived that the leader alone had")
    leader.start()
    cluster.partition(topic, 0, error=0, leader=2, isr=[1, 2])
    librdkafka.produce(cluster.bootstrap, topic, samples(1, 5), acks="all")
    wanted = [record.value for turn, end in ((1, 300), (2, survivors), (4, 20), (5, 300)) for record in samples(1, turn)[:end]]
    read = librdkafka.read_all(cluster.bootstrap, topic, make=lambda m: (m.offset(), m.value()))
    equal([value for _, value in read] == wanted, True, f"{len(read)} records, of which {len(wanted)} are wanted")
    cluster.end()
    cluster.same_logs(topic, 1, brokers=(1, 2))


def upgraded(place, kinds):
    """Brokers are restarted one after the other in newer versions of inter.broker.protocol.version, under load."""
    cluster = Cluster(place, kinds, "1.0")
    topic, all_of_them = place.name("t"), [0, 1, 2]
    cluster.create(topic, [1, 2, 0], [2, 1, 0], [0, 1, 2], min_insync_replicas=2)
    ledger = Ledger(cluster, topic, 3)
    with ledger.load():
        for release in ("2.6", "2.7"):
            for broker in cluster.brokers:
                broker.settings |= {"inter.broker.protocol.version": release, "log.message.format.version": release}
                broker.stop()
                broker.start()
                for partition in range(3):
                    cluster.partition(topic, partition, error=0, isr=all_of_them, offline=[])
    ledger.check()
    cluster.end()
    cluster.same_logs(topic, 3)


def transactions(place, release):
    """A coordinator of Apache Kafka's ends transactions whose records Milena leads."""
    cluster = Cluster(place, ["kafka", "milena"], release, **{"transaction.state.log.num.partitions": 3})
    # Milena does not coordinate: what is there before the first transaction is Kafka's.
    cluster.create("__transaction_state", [0], [0], [0], cleanup_policy="compact")
    topic = place.name("t")
    cluster.create(topic, [1], [0])
    producer = librdkafka.producer(cluster.bootstrap, transactional_id=place.name("writer"))
    producer.init_transactions(30)
    wanted = []
    for turn, commit in enumerate((True, False, True, False)):
        producer.begin_transaction()
        for number in range(100):
            producer.produce(topic, value=f"{turn} {number}", partition=number % 2)
        equal(producer.flush(30), 0, "records of a transaction that were not sent")
        (producer.commit_transaction if commit else producer.abort_transaction)(30)
        wanted += [(number % 2, f"{turn} {number}".encode()) for number in range(100) if commit]
    for isolation, count in (("read_committed", 200), ("read_uncommitted", 400)):
        read = librdkafka.read_all(cluster.bootstrap, topic, isolation, make=lambda m: (m.partition(), m.offset(), m.value()))
        equal(len(read), count, f"records of {isolation}")
        if isolation == "read_committed":
            equal(sorted((partition, value) for partition, _, value in read) == sorted(wanted), True, "what was committed")
    cluster.end()


def only_mixed(place):
    if place.subject == "kafka":
        raise Skip("with Kafka alone it is the same as the scenario beside it")


@scenario(240)
def milena_joins_kafka_2_7(place):
    """Milena obeys a controller of Apache Kafka's: it hosts what is placed on it, and says what Kafka says."""
    single_replicas(place, ["kafka", "milena"], "2.7")


@scenario(240, campaign=True)
def milena_joins_kafka_2_6(place):
    """The same at inter.broker.protocol.version 2.6."""
    single_replicas(place, ["kafka", "milena"], "2.6")


@scenario(240)
def milena_joins_kafka_1_0(place):
    """The same at 1.0: commands without broker epochs."""
    single_replicas(place, ["kafka", "milena"], "1.0")


@scenario(240)
def kafka_joins_milena_2_7(place):
    """Apache Kafka obeys Milena as the controller."""
    only_mixed(place)
    single_replicas(place, ["milena", "kafka"], "2.7")


@scenario(240, campaign=True)
def kafka_joins_milena_2_6(place):
    """The same at inter.broker.protocol.version 2.6."""
    only_mixed(place)
    single_replicas(place, ["milena", "kafka"], "2.6")


@scenario(240)
def kafka_joins_milena_1_0(place):
    """The same at 1.0."""
    only_mixed(place)
    single_replicas(place, ["milena", "kafka"], "1.0")


@scenario(420)
def one_milena_of_three_2_7(place):
    """Milena follows, leads and coordinates beside two of Apache Kafka, of which one is the controller first (AlterIsr)."""
    replicated(place, ["kafka", "kafka", "milena"], "2.7")


@scenario(420, campaign=True)
def one_milena_of_three_2_6(place):
    """The same at inter.broker.protocol.version 2.6: leaders write the in-sync replicas into ZooKeeper."""
    replicated(place, ["kafka", "kafka", "milena"], "2.6")


@scenario(420, campaign=True)
def one_milena_of_three_1_0(place):
    """The same at 1.0."""
    replicated(place, ["kafka", "kafka", "milena"], "1.0")


@scenario(420)
def one_kafka_of_three_2_7(place):
    """Apache Kafka follows, leads and coordinates beside two of Milena, of which one is the controller first (AlterIsr)."""
    only_mixed(place)
    replicated(place, ["milena", "milena", "kafka"], "2.7")


@scenario(420, campaign=True)
def one_kafka_of_three_2_6(place):
    """The same at inter.broker.protocol.version 2.6: leaders write the in-sync replicas into ZooKeeper."""
    only_mixed(place)
    replicated(place, ["milena", "milena", "kafka"], "2.6")


@scenario(420, campaign=True)
def one_kafka_of_three_1_0(place):
    """The same at 1.0."""
    only_mixed(place)
    replicated(place, ["milena", "milena", "kafka"], "1.0")


@scenario(180)
def milena_leads_on_after_kafka(place):
    """Kafka's broker dies as the leader with records of its own, Milena goes on, and Kafka cuts its log."""
    diverged(place, ["kafka", "kafka", "milena"], "2.7")


@scenario(180)
def kafka_leads_on_after_milena(place):
    """The reverse: Milena cuts its log."""
    only_mixed(place)
    diverged(place, ["milena", "milena", "kafka"], "2.7")


@scenario(300, campaign=True)
def versions_rise_beside_kafka(place):
    """One Milena of three goes from inter.broker.protocol.version 1.0 over 2.6 to 2.7 without a lost record."""
    upgraded(place, ["kafka", "milena", "kafka"])


@scenario(300, campaign=True)
def versions_rise_beside_milena(place):
    """The same with one of Apache Kafka."""
    only_mixed(place)
    upgraded(place, ["milena", "kafka", "milena"])


@scenario(120)
def kafka_ends_transactions_on_milena(place):
    """Transactions whose coordinator is Apache Kafka's, on partitions that Milena leads."""
    transactions(place, "2.7")
