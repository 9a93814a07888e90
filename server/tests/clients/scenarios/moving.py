"""A node of Milena that stood alone becomes a broker of a cluster: `milena export-znodes --to-zookeeper`, and what serves afterwards."""

import collections
import json
import shutil
import subprocess

import librdkafka
import records
import subject as subjects
from confluent_kafka import TopicPartition
from scenario import contains, equal, scenario, until
from scenarios.cluster import Cluster, begin, refused
from tools import Tools
from znodes import Dam

TOPICS = {"plain": 1, "compressed": 3}


class Node:
    """A Milena that stood alone, is stopped, and has records, settings and offsets."""

    def __init__(self, cluster, number=7):
        self.cluster = cluster
        directory = cluster.place.directory / "node"
        self.broker = subjects.subject("milena", directory, {"broker.id": str(number)}, session_ms=2000)
        cluster.parts.append(self.broker)
        self.broker.start()
        where = self.broker.bootstrap
        for topic, partitions in TOPICS.items():
            librdkafka.create(where, topic, partitions, retention_ms=123456789)
            librdkafka.produce(where, topic, records.samples(partitions), compression_type="lz4", enable_idempotence=True)
        consumer = librdkafka.consumer(where, "readers")
        consumer.commit(offsets=[TopicPartition("plain", 0, 5, "kept")], asynchronous=False)
        consumer.close()
        self.before = contents(self.broker)
        self.broker.kill()
        meta = (self.broker.data / "meta.properties").read_text()
        self.cluster_id = next(line.split("=", 1)[1] for line in meta.splitlines() if line.startswith("cluster.id"))

    def command(self, connect, *options):
        properties = self.broker.directory / "moving.properties"
        properties.write_text(f"broker.id={self.broker.settings['broker.id']}\nlog.dirs={self.broker.data}\n"
                              f"zookeeper.connect={connect}\n")
        return [subjects.Milena.binary, "export-znodes", properties, "--to-zookeeper", *options]

    def move(self, connect, *options, code=0):
        """Standard output and the complaints of a move."""
        done = subprocess.run(self.command(connect, *options), capture_output=True, text=True, timeout=60)
        equal(done.returncode, code, f"exit code: {done.stdout}{done.stderr}")
        print(done.stdout, done.stderr)
        return done.stdout, done.stderr

    def as_broker(self, kind, connect):
        """The same directories under a broker of the cluster."""
        broker = self.cluster.broker(kind, self.broker.settings["broker.id"], data=self.broker.data, port=self.broker.port)
        broker.zookeeper = Connect(connect)
        return broker


class Connect:
    """A ZooKeeper of which only the address counts, with a path."""

    def __init__(self, connect):
        self.connect = connect

    def close(self):
        pass


def contents(broker):
    """Records by topic, and what the group committed."""
    found = {topic: collections.Counter(librdkafka.read_all(broker.bootstrap, topic)) for topic in TOPICS}
    consumer = librdkafka.consumer(broker.bootstrap, "readers")
    committed = consumer.committed([TopicPartition("plain", 0)], timeout=30)
    consumer.close()
    return found | {"offsets": [(one.offset, one.metadata) for one in committed]}


def served(node, broker):
    """Everything is there at its place, and what is written next comes behind it, under ids that were never used."""
    until(60, "leaders", lambda: all(led(broker, topic) for topic in TOPICS))
    equal(contents(broker), node.before, f"what {broker.name} serves")
    described = Tools(node.cluster.place, broker.bootstrap).run("kafka-topics", "--describe", "--topic", "plain")
    contains(described, "retention.ms=123456789")
    more = [records.Record(0, -1, records.TIME, None, f"{number}".encode(), ()) for number in range(100)]
    librdkafka.produce(broker.bootstrap, "plain", more, enable_idempotence=True)
    node.before = contents(broker)
    equal(max(one.offset for one in node.before["plain"]) + 1, sum(node.before["plain"].values()), "offsets without a gap")


def led(broker, topic):
    found = librdkafka.admin(broker.bootstrap).list_topics(timeout=20).topics
    return topic in found and found[topic].partitions and all(one.leader >= 0 for one in found[topic].partitions.values())


@scenario(240)
def to_an_empty_path(place):
    """Planned, moved, and served by Milena and by Apache Kafka in turn; the node does not stand alone by mistake afterwards."""
    with Cluster(place) as cluster:
        node = Node(cluster)
        znodes, connect = cluster.znodes, f"{cluster.zookeeper.connect}/new/path"
        planned, complaints = node.move(connect, "--dry-run")
        contains(planned, "create /brokers/topics/plain {", "create /latest_producer_id_block {")
        equal(planned.splitlines()[-1], f'create /cluster/id {{"version":"1","id":"{node.cluster_id}"}}', "the last write")
        contains(complaints, "3 topics with ")
        equal(znodes.children("/"), ["zookeeper"], "a dry run writes nothing")
        kafka = node.as_broker("milena", connect)
        contains(refused(kafka), "milena export-znodes --to-zookeeper", "milena.tree")

        done, _ = node.move(connect)
        contains(done, "moved 3 topics with ", " 0 were there", "milena.tree.moved")
        written = znodes.below("/new/path")
        equal({f"create {path.removeprefix('/new/path')}" for path in written} - {"create "},
              {" ".join(line.split(" ")[:2]) for line in planned.splitlines()}, "what was planned")
        equal(json.loads(written["/new/path/brokers/topics/plain/partitions/0/state"])["leader_epoch"], 1, "above the last")
        contains(node.move(connect)[0], "moved before")
        contains(refused(node.broker), "this node was moved into ZooKeeper", "milena.tree.moved")
        for kind in ("milena", "kafka", "milena"):
            broker = node.as_broker(kind, connect)
            broker.start()
            served(node, broker)
            broker.stop()
        block = json.loads(znodes.data("/new/path/latest_producer_id_block"))
        equal(int(block["block_start"]) > 0, True, f"above the first block: {block}")


def own_cluster(node, kinds):
    """A cluster of the node's id with brokers of these kinds, the first of which is controller, and a topic of its own."""
    cluster = node.cluster
    for path, data in (("/cluster", None), ("/cluster/id", json.dumps({"version": "1", "id": node.cluster_id}).encode())):
        cluster.znodes.create(path, data)
    brokers = []
    for number, kind in enumerate(kinds, 1):
        brokers.append(cluster.broker(kind, number))
        begin(brokers[-1])
    until(30, "the first is controller", lambda: cluster.controller() == 1)
    librdkafka.create(brokers[0].bootstrap, "theirs", 1)
    librdkafka.produce(brokers[0].bootstrap, "theirs", records.samples(1))
    return brokers


def into_a_running_cluster(place, kinds):
    with Cluster(place) as cluster:
        node = Node(cluster)
        connect = cluster.zookeeper.connect
        brokers = own_cluster(node, kinds)

        def stable():
            # What a controller does by itself is not looked at.
            return {path: data for path, data in cluster.znodes.below("").items() if path != "/controller"}

        client = librdkafka.create(brokers[0].bootstrap, "plain", 2)
        before = stable()
        _, complaints = node.move(connect, code=3)
        contains(complaints, "/brokers/topics/plain: a topic of this name is there, with other partitions or replicas",
                 "nothing was written")
        equal(stable(), before, "after a refusal")
        client.delete_topics(["plain"])["plain"].result(30)
        until(30, "its end", lambda: "plain" not in cluster.znodes.children("/brokers/topics"))

        controller = cluster.znodes.get("/controller")[1].czxid
        done, _ = node.move(connect)
        contains(done, "moved 3 topics with ", "the cluster elects another controller")
        until(30, "another term", lambda: cluster.controller() and cluster.znodes.get("/controller")[1].czxid != controller)
        # What it gives out as producer ids from now on is above what the node gave out.
        brokers[0].stop()
        brokers[0].start()
        broker = node.as_broker("milena", connect)
        broker.start()
        served(node, broker)
        equal(len(librdkafka.read_all(broker.bootstrap, "theirs")), len(records.samples(1)), "what the cluster had")
        # What came is the cluster's: it has a replica elsewhere, which then leads.
        moves = {"version": 1, "partitions": [{"topic": "plain", "partition": 0, "replicas": [1, 7]}]}
        cluster.znodes.create("/admin/reassign_partitions", json.dumps(moves).encode())
        state = "/brokers/topics/plain/partitions/0/state"
        until(60, "a second replica in sync", lambda: sorted(cluster.json(state)["isr"]) == [1, 7])
        broker.stop()
        until(30, "another leader", lambda: cluster.json(state)["leader"] == 1)
        equal(collections.Counter(librdkafka.read_all(brokers[0].bootstrap, "plain")), node.before["plain"], "on the other broker")


@scenario(240)
def into_a_cluster_of_kafka(place):
    """Under Apache's controller: a clash refuses the whole; then the topics are led by who brought them, and may move on."""
    into_a_running_cluster(place, ["kafka"])


@scenario(240)
def into_a_cluster_of_milena(place):
    """The same under Milena's controller."""
    into_a_running_cluster(place, ["milena"])


@scenario(120)
def into_the_wrong_cluster(place):
    """Another cluster's id is refused with what to do, and so is the id of a broker that lives; nothing is written."""
    with Cluster(place) as cluster:
        node = Node(cluster)
        other = cluster.broker("milena", 7)
        begin(other)
        theirs = cluster.json("/cluster/id")["id"]
        before = cluster.znodes.below("")
        _, complaints = node.move(cluster.zookeeper.connect, code=3)
        contains(complaints, theirs, node.cluster_id, "name an empty one in zookeeper.connect")
        cluster.znodes.set("/cluster/id", json.dumps({"version": "1", "id": node.cluster_id}).encode())
        _, complaints = node.move(cluster.zookeeper.connect, code=3)
        contains(complaints, "/brokers/ids/7: a broker with this node's id runs there")
        cluster.znodes.set("/cluster/id", json.dumps({"version": "1", "id": theirs}, separators=(",", ":")).encode())
        equal(cluster.znodes.below(""), before, "what is there")


@scenario(300)
def killed_at_each_write(place):
    """kill -9 when so many writes have gone out: no topic is there by half, no broker takes part, and the next run finishes it."""
    with Cluster(place) as cluster:
        node = Node(cluster)
        tree = node.broker.data / "milena.tree"
        shutil.copy(tree, node.broker.directory / "kept")
        node.move(f"{cluster.zookeeper.connect}/whole")
        whole = below(cluster, "/whole")
        number = 0
        while True:
            shutil.copy(node.broker.directory / "kept", tree)
            (node.broker.data / "milena.tree.moved").unlink()
            path = f"/part{number}"
            dam = Dam(cluster.zookeeper, number)
            cluster.parts.append(dam)
            process = subjects.Process(node.command(f"{dam.connect}{path}"), place.directory / "moving.log")
            until(30, "the last write, or the end", lambda: dam.is_reached.is_set() or not process.running())
            is_through = not process.running()
            process.end(9, 10)
            if is_through:
                break
            found = below(cluster, path) if path[1:] in cluster.znodes.children("/") else {}
            for topic in (name for name in found if name.count("/") == 3 and name.startswith("/brokers/topics/")):
                equal({name for name in found if name.startswith(topic + "/")},
                      {name for name in whole if name.startswith(topic + "/")}, f"{topic} after {number} writes")
            equal("/cluster/id" in found, found == whole, f"the cluster id after {number} writes")
            done, _ = node.move(f"{cluster.zookeeper.connect}{path}")
            contains(done, "moved 3 topics with ")
            equal(below(cluster, path), whole, f"finished after {number} writes")
            number += 1
        equal(number >= 4, True, f"the path, the tree, topics, the cluster id: {number} writes")
        for kind in ("milena", "kafka"):
            broker = node.as_broker(kind, f"{cluster.zookeeper.connect}/part{number - 1}")
            broker.start()
            served(node, broker)
            broker.stop()


def below(cluster, path):
    return {name.removeprefix(path): data for name, data in cluster.znodes.below(path).items()}
