"""Three brokers, a ZooKeeper and what can be seen of them from outside; each on its machine of the network."""

import json
import re
import signal
import subprocess
from pathlib import Path

import librdkafka
import subject as subjects
from confluent_kafka import KafkaException
from confluent_kafka.admin import NewTopic
from network import wait_until
from znodes import Proxy, ZnodeError, Znodes

SETTINGS = {
    "default.replication.factor": 3, "min.insync.replicas": 2, "offsets.topic.replication.factor": 3,
    "offsets.topic.num.partitions": 4, "unclean.leader.election.enable": "false", "auto.create.topics.enable": "false",
    "log.segment.bytes": 2000000, "log.index.interval.bytes": 1024, "log.cleaner.enable": "false", "log.retention.hours": 1000,
    "replica.lag.time.max.ms": 2500, "replica.socket.timeout.ms": 3000, "controller.socket.timeout.ms": 3000,
    "replica.fetch.backoff.ms": 200, "replica.high.watermark.checkpoint.interval.ms": 1000,
    "leader.imbalance.check.interval.seconds": 5, "group.min.session.timeout.ms": 1000, "zookeeper.connection.timeout.ms": 20000,
    "controlled.shutdown.retry.backoff.ms": 500,
}


class Broker:
    """One broker with its machine, its way to ZooKeeper, and its disk where it has one of its own."""

    def __init__(self, cluster, number, kind, disk=None):
        self.cluster, self.number, self.machine, self.disk = cluster, number, f"b{number}", disk
        network = cluster.network
        self.proxy = Proxy(cluster.zookeeper, network.proxies)
        data = (disk.mount if disk else cluster.directory / str(number)) / "data"
        port = subjects.free_port() if network.address(self.machine) == "127.0.0.1" else 9092
        self.subject = subjects.KINDS[kind](cluster.directory / str(number), port=port, data=data, zookeeper=self.proxy,
                                            session_ms=cluster.session_ms)
        self.subject.host = network.address(self.machine)
        told = network.front(self.machine, port, lambda: self.process.pid, self.proxy)
        self.address = f"{self.subject.host}:{told}"
        self.subject.settings = {"broker.id": number, "listeners": f"PLAINTEXT://{self.subject.bootstrap}",
                                 "advertised.listeners": f"PLAINTEXT://{self.address}",
                                 "inter.broker.protocol.version": "2.7", **SETTINGS, **cluster.settings}

    @property
    def process(self):
        return self.subject.process

    @property
    def log(self):
        return self.subject.log

    def running(self):
        return self.process is not None and self.process.running()

    def command(self):
        subject = self.subject
        command = [*self.cluster.network.prefix(self.machine)]
        if self.disk:
            # A mount namespace of its own: another boot id, and no hold on the others' disks.
            (subject.directory / "boot_id").write_text(self.disk.boot_id)
            others = [str(one.disk.mount) for one in self.cluster.brokers if one.disk and one is not self]
            script = 'for one in $1; do ! mountpoint -q "$one" || umount "$one" || exit 9; done; ' \
                     'mount --bind "$0" /proc/sys/kernel/random/boot_id && shift && exec "$@"'
            command += ["unshare", "--mount", "sh", "-c", script, subject.directory / "boot_id", " ".join(others)]
        return [*command, *subject.command(subject.properties())]

    def begin(self):
        """Starts it, and does not wait."""
        if self.subject.name != "milena":
            # Apache's broker ends at once where it finds the node of its former life.
            wait_until(30, lambda: self.epoch() is None)
        self.begun_at = len(self.log.read_text(errors="replace")) if self.log.exists() else 0
        self.subject.process = subjects.Process(self.command(), self.log, cwd=self.subject.directory)

    def supervise(self):
        """Starts a broker again that ended by itself where 2.7.2 does too, as a supervisor would: Apache's cannot ask ZooKeeper about
        features (and may hang on its way out), or its session ends while it starts. What it was; empty where nothing was to be done."""
        if self.process is None:
            return ""
        text = self.log.read_text(errors="replace")[self.begun_at:]
        if self.subject.name == "milena":
            is_over = not self.running() and "ERROR the session expired" in text
        else:
            is_over = not self.running() or "The broker will eventually exit" in text
        if not is_over:
            return ""
        self.kill()
        self.begin()
        return f"broker {self.number} ended by itself: {text.splitlines()[-1][:200] if text else ''}"

    def mend(self):
        """Where a partition was left out of service with a hole behind what was acknowledged: what its message says, and a new
        start. How many."""
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        holes = sorted(set(re.findall(r"create the empty file (\S+) and start again", text[self.begun_at:])))
        if not holes or not self.running():
            return 0
        self.process.end(signal.SIGTERM, 60)
        for path in holes:
            Path(path).touch()
        self.begin()
        return len(holes)

    def epoch(self):
        found = self.cluster.asked(lambda znodes: znodes.get(f"/brokers/ids/{self.number}"))
        return found and found[1].czxid

    def kill(self):
        """SIGKILL; whether it was there to be killed."""
        was = self.running()
        if self.process is not None:
            code = self.process.end(signal.SIGKILL, 30)
            was = was and code == -signal.SIGKILL
        return was


class Cluster:
    def __init__(self, directory, network, kinds, settings=None, disks=None, session_ms=1500):
        self.directory, self.network, self.session_ms = directory, network, session_ms
        self.settings = dict(settings or {})
        self.zookeeper = subjects.ZooKeeper(directory, settings={"maxSessionTimeout": 60000})
        self.zookeeper.host, self.zookeeper.prefix = network.address("zk"), network.prefix("zk")
        self.zookeeper.start()
        self.znodes = Znodes(self.zookeeper)
        self.brokers = []
        for number, kind in enumerate(kinds):
            self.brokers.append(Broker(self, number, kind, disks[number] if disks else None))
        # The first alone: of Apache's brokers that come to an empty ZooKeeper together, one may end.
        self.brokers[0].begin()
        wait_until(60, self.brokers[0].epoch)
        for broker in self.brokers[1:]:
            broker.begin()
        if not self.registered(90):
            raise subjects.SubjectError("the brokers do not start\n" + "\n".join(subjects.tail(b.log, 8) for b in self.brokers))

    @property
    def bootstrap(self):
        return ",".join(broker.address for broker in self.brokers)

    def asked(self, question):
        """An answer of ZooKeeper; none while it does not answer."""
        try:
            return question(self.znodes)
        except (OSError, ZnodeError, AssertionError):
            self.znodes.used = 0
            return None

    def json(self, path):
        data = self.asked(lambda znodes: znodes.data(path))
        return data and json.loads(data)

    def controller(self):
        found = self.json("/controller")
        return None if found is None else found["brokerid"]

    def state(self, topic, partition):
        return self.json(f"/brokers/topics/{topic}/partitions/{partition}/state")

    def partitions(self):
        """(topic, partition) of all, with their replicas."""
        found = {}
        for topic in self.asked(lambda znodes: znodes.children("/brokers/topics")) or []:
            for partition, replicas in (self.json(f"/brokers/topics/{topic}") or {"partitions": {}})["partitions"].items():
                found[topic, int(partition)] = replicas
        return found

    def registered(self, seconds):
        return wait_until(seconds, lambda: all(broker.epoch() for broker in self.brokers))

    def out_of_sync(self):
        """What is not as it should be: partitions without a leader or with an in-sync set that is not full; dead brokers."""
        odd = [f"broker {b.number} does not run" for b in self.brokers if not b.running()]
        odd += [f"broker {b.number} is not registered" for b in self.brokers if b.epoch() is None]
        for (topic, partition), replicas in self.partitions().items():
            state = self.state(topic, partition)
            if state is None or state["leader"] < 0 or sorted(state["isr"]) != sorted(replicas):
                odd.append(f"{topic}-{partition} {state}")
        return odd

    def create(self, topic, partitions, **config):
        client = librdkafka.admin(self.bootstrap)
        config = {key.replace("_", "."): str(value) for key, value in config.items()}

        def created():
            try:
                client.create_topics([NewTopic(topic, partitions, 3, config=config)])[topic].result(20)
            except KafkaException as error:
                return "ALREADY_EXISTS" in str(error)
            return True

        if not wait_until(60, created):
            raise subjects.SubjectError(f"{topic} cannot be created")
        if not wait_until(60, lambda: len([1 for t, _ in self.partitions() if t == topic]) == partitions
                          and not self.out_of_sync()):
            raise subjects.SubjectError(f"{topic} does not come in sync: {self.out_of_sync()}")

    def panics(self):
        """Lines of the brokers' logs that no fault excuses."""
        found = []
        for broker in self.brokers:
            for line in broker.log.read_text(errors="replace").splitlines() if broker.log.exists() else []:
                if "panicked at" in line or "a fatal error has been detected" in line:
                    found.append(f"broker {broker.number}: {line[:300]}")
        return found

    def close(self):
        for broker in self.brokers:
            if broker.running():
                broker.kill()
            broker.proxy.close()
        self.zookeeper.close()


class Clients:
    """The processes that load the cluster, told what to do by their stdin."""

    def __init__(self, cluster, directory, commands):
        self.processes = []
        self.directory = directory
        for name, command in commands:
            prefix = cluster.network.prefix("clients")
            with open(directory / f"{name}.log", "ab") as log:
                self.processes.append(subprocess.Popen([str(word) for word in [*prefix, *command]], stdin=subprocess.PIPE,
                                                       stdout=log, stderr=subprocess.STDOUT))

    def tell(self, word):
        for process in self.processes:
            try:
                process.stdin.write(f"{word}\n".encode())
                process.stdin.flush()
            except BrokenPipeError:
                pass  # it has ended, which `ended` tells

    def ended(self):
        return [process.args[-1][:60] for process in self.processes if process.poll() is not None]

    def close(self, seconds=0):
        for process in self.processes:
            try:
                process.wait(seconds)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
