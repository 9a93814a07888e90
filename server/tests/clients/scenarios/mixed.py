"""Apache Kafka and Milena in one cluster, on one ZooKeeper: each in turn controller, leader and follower.

With Kafka as the subject all brokers are Kafka's, which shows that the scenarios themselves hold.
"""

import struct

import librdkafka
import records
import subject as subjects
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import NewTopic
from scenario import equal, scenario, until
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
    """Brokers 0, 1, ... of these kinds, started in this order: 0 is the controller."""

    def __init__(self, place, kinds, release, **settings):
        self.place = place
        self.zookeeper = subjects.ZooKeeper(place.directory).start()
        place.started.append(self.zookeeper)
        self.brokers = []
        for number, kind in enumerate(kinds):
            name = "kafka" if place.subject == "kafka" else kind
            own = {"broker.id": number, "broker.rack": f"rack-{number}", "inter.broker.protocol.version": release,
                   "log.message.format.version": release, "controlled.shutdown.retry.backoff.ms": 500,
                   "replica.lag.time.max.ms": 5000, "auto.create.topics.enable": "false", **settings}
            self.brokers.append(place.start(own, kind=name, name=f"{number}-{name}", zookeeper=self.zookeeper))
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
        equal(tools.dump(*(broker.data for broker in self.brokers)), [], "complaints of kafka-dump-log")


def samples(partitions, turn):
    return [records.Record(i % partitions, -1, records.TIME + i, f"{turn}-{i}".encode(), f"value {turn} {i}".encode() * 5, ())
            for i in range(300)]


class Ledger:
    """All that was acknowledged of a topic, and a comparison with what is read."""

    def __init__(self, cluster, topic, partitions):
        self.cluster, self.topic, self.partitions = cluster, topic, partitions
        self.acked = {}
        self.turn = 0

    def produce(self, bootstrap=None, **settings):
        self.turn += 1
        sent = samples(self.partitions, self.turn)
        acks = librdkafka.produce(bootstrap or self.cluster.bootstrap, self.topic, sent, **settings)
        for at, record in zip(acks, sent):
            equal(self.acked.setdefault(at, record.value), record.value, f"what was acknowledged at {at}")

    def check(self, bootstrap=None):
        """Every record that was acknowledged is where that was said, and no other is there."""
        read = librdkafka.read_all(bootstrap or self.cluster.bootstrap, self.topic,
                                   make=lambda m: ((m.partition(), m.offset()), m.value()))
        equal(dict(read) == self.acked, True, f"{self.topic}: {len(read)} read, {len(self.acked)} acknowledged")
        equal(len(read), len(self.acked), f"{self.topic}: records")


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


@scenario(240)
def milena_joins_kafka_2_7(place):
    """Milena obeys a controller of Apache Kafka's that speaks 2.7: it hosts what is placed on it, and says what Kafka says."""
    single_replicas(place, ["kafka", "milena"], "2.7")


@scenario(240)
def milena_joins_kafka_2_6(place):
    """The same at inter.broker.protocol.version 2.6."""
    single_replicas(place, ["kafka", "milena"], "2.6")


@scenario(240)
def milena_joins_kafka_1_0(place):
    """The same at inter.broker.protocol.version 1.0: commands without broker epochs."""
    single_replicas(place, ["kafka", "milena"], "1.0")


@scenario(240)
def kafka_joins_milena_2_7(place):
    """Apache Kafka obeys Milena as the controller."""
    single_replicas(place, ["milena", "kafka"], "2.7")


@scenario(240)
def kafka_joins_milena_2_6(place):
    """The same at inter.broker.protocol.version 2.6."""
    single_replicas(place, ["milena", "kafka"], "2.6")


@scenario(240)
def kafka_joins_milena_1_0(place):
    """The same at inter.broker.protocol.version 1.0."""
    single_replicas(place, ["milena", "kafka"], "1.0")
