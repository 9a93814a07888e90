"""The broker under test: Milena, or Apache Kafka 2.7.2 with a ZooKeeper of its own, on free loopback ports.

Both are started from the same server.properties, are known by their pids, and are ended by their pids only. A subject
keeps its port and its directory over restarts. Its log is one file, appended to by each start.
"""

import atexit
import base64
import os
import shutil
import signal
import socket
import struct
import subprocess
import time
from pathlib import Path

import peers

LOG4J = """log4j.rootLogger=INFO, stdout
log4j.appender.stdout=org.apache.log4j.ConsoleAppender
log4j.appender.stdout.layout=org.apache.log4j.PatternLayout
log4j.appender.stdout.layout.ConversionPattern=[%d] %p %m (%c)%n
log4j.logger.org.apache.zookeeper=WARN
"""
RUNNING = {}
GIVEN_PORTS = set()


class SubjectError(Exception):
    """The broker did not start or did not stop; the text has the end of its log."""


def free_port():
    """A port that nobody listens on. Below the range from which the system gives out ports, so that no client takes it."""
    while True:
        port = 10000 + int.from_bytes(os.urandom(2), "big") % 20000
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        if port not in GIVEN_PORTS:
            GIVEN_PORTS.add(port)
            return port


def tail(path, lines=30):
    try:
        with open(path, "rb") as log:
            log.seek(max(0, os.path.getsize(path) - 65536))
            return "\n".join(log.read().decode(errors="replace").splitlines()[-lines:])
    except OSError as error:
        return str(error)


def exchange(port, request, timeout=5, host="127.0.0.1"):
    """Sends one frame on a new connection and returns the answer's bytes."""
    with socket.create_connection((host, port), timeout=timeout) as connection:
        connection.sendall(struct.pack(">i", len(request)) + request)
        stream = connection.makefile("rb")
        size = stream.read(4)
        if len(size) < 4:
            raise OSError("closed without an answer")
        body = stream.read(struct.unpack(">i", size)[0])
        return body


def answers_metadata(port):
    """Whether the broker answers Metadata v1 and names itself and a controller."""
    try:
        body = exchange(port, struct.pack(">hhih", 3, 1, 7, -1) + struct.pack(">i", 0), timeout=2)
        (brokers,) = struct.unpack_from(">i", body, 4)
        at = 8
        for _ in range(brokers):
            (host,) = struct.unpack_from(">h", body, at + 4)
            at += 6 + host + 4
            (rack,) = struct.unpack_from(">h", body, at)
            at += 2 + max(rack, 0)
        return brokers >= 1 and struct.unpack_from(">i", body, at)[0] >= 0
    except (OSError, struct.error):
        return False


# Variables of these tests, which a broker would take for settings.
OF_THE_TESTS = ("MILENA_PEERS", "MILENA_CLIENTS_READY")


class Process:
    """One process with its log file."""

    def __init__(self, command, log, **options):
        self.log = Path(log)
        self.log.parent.mkdir(parents=True, exist_ok=True)
        environment = {name: text for name, text in os.environ.items() if name not in OF_THE_TESTS}
        options.setdefault("env", environment)
        with open(self.log, "ab") as out:
            self.process = subprocess.Popen([str(word) for word in command], stdin=subprocess.DEVNULL, stdout=out,
                                            stderr=subprocess.STDOUT, **options)
        self.pid = self.process.pid
        RUNNING[self.pid] = self

    def running(self):
        return self.process.poll() is None

    def end(self, signal_number, seconds):
        if self.running():
            self.process.send_signal(signal_number)
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise SubjectError(f"pid {self.pid} did not end in {seconds} s\n{tail(self.log)}") from None
        finally:
            RUNNING.pop(self.pid, None)
        return self.process.returncode


@atexit.register
def end_all():
    for process in list(RUNNING.values()):
        process.process.kill()
        process.process.wait()


class Subject:
    """One broker: `start`, `stop` (SIGTERM), `kill` (SIGKILL), any number of times. `data` is a directory or several."""

    name = None
    start_seconds = 60
    host = "127.0.0.1"

    def __init__(self, directory, settings=None, data=None, port=None, zookeeper=None, session_ms=2000):
        self.directory = Path(directory)
        self.zookeeper = zookeeper
        self.session_ms = session_ms
        self.log_dirs = [Path(one) for one in (data if isinstance(data, list) else [data or self.directory / "data"])]
        self.log = self.directory / "broker.log"
        self.port = port or free_port()
        self.settings = dict(settings or {})
        self.process = None
        self.directory.mkdir(parents=True, exist_ok=True)

    @property
    def data(self):
        """The only log directory."""
        (data,) = self.log_dirs
        return data

    @property
    def bootstrap(self):
        return f"{self.host}:{self.port}"

    def properties(self):
        wanted = {
            "broker.id": "0",
            "listeners": f"PLAINTEXT://{self.bootstrap}",
            "log.dirs": ",".join(map(str, self.log_dirs)),
            "offsets.topic.replication.factor": "1",
            "transaction.state.log.replication.factor": "1",
            "transaction.state.log.min.isr": "1",
            "group.initial.rebalance.delay.ms": "0",
        }
        if self.zookeeper is not None:
            wanted |= {"zookeeper.connect": self.zookeeper.connect, "zookeeper.session.timeout.ms": self.session_ms,
                       "zookeeper.connection.timeout.ms": 30000}
        wanted.update(self.settings)
        path = self.directory / "server.properties"
        path.write_text("".join(f"{key}={value}\n" for key, value in wanted.items()))
        return path

    def command(self, properties):
        raise NotImplementedError

    def start(self):
        """Starts the broker and returns once it serves; returns the seconds that took."""
        began = time.monotonic()
        self.process = Process(self.command(self.properties()), self.log, cwd=self.directory)
        while not answers_metadata(self.port):
            if not self.process.running():
                self.process.end(signal.SIGKILL, 5)
                raise SubjectError(f"{self.name} ended at its start\n{tail(self.log)}")
            if time.monotonic() - began > self.start_seconds:
                raise SubjectError(f"{self.name} does not serve after {self.start_seconds} s\n{tail(self.log)}")
            time.sleep(0.02)
        return time.monotonic() - began

    def stop(self):
        """Ends the broker by SIGTERM; an exit code other than 0 (or 143, a JVM's) is an error."""
        code = self.process.end(signal.SIGTERM, 60)
        if code not in (0, 143):
            raise SubjectError(f"{self.name} ended with {code} on SIGTERM\n{tail(self.log)}")

    def kill(self):
        if self.process is not None:
            self.process.end(signal.SIGKILL, 30)

    def close(self):
        """Ends everything of this subject, whatever state it is in."""
        self.kill()

    def resident_bytes(self):
        """Memory of the process that is its own: resident pages without those of files."""
        with open(f"/proc/{self.process.pid}/status") as status:
            fields = dict(line.split(":", 1) for line in status)
        return int(fields["RssAnon"].split()[0]) * 1024


class Milena(Subject):
    """Milena; alone, or in the cluster of a ZooKeeper."""

    name = "milena"
    binary = None

    def command(self, properties):
        return [self.binary, "start", properties]


class ZooKeeper:
    """A ZooKeeper server with short sessions, so that a killed broker can come back soon; 3.5.9, if no version is named.

    `ensemble` has the ports for the other servers, two of each, and `number` (from 1) which of them this one is. `prefix` is
    what the command runs under.
    """

    host = "127.0.0.1"
    prefix = ()

    def __init__(self, directory, version=None, ensemble=None, number=1, settings=None, java_options=()):
        self.directory = Path(directory)
        self.port = free_port()
        self.jars = peers.kafka() if version is None else peers.zookeeper(version)
        self.ensemble = ensemble or []
        self.number = number
        self.settings = settings or {}
        self.java_options = java_options
        self.process = None

    @property
    def connect(self):
        return f"{self.host}:{self.port}"

    def begin(self):
        data = self.directory / "zookeeper"
        data.mkdir(parents=True, exist_ok=True)
        properties = self.directory / "zookeeper.properties"
        settings = {"dataDir": data, "clientPort": self.port, "clientPortAddress": self.host, "tickTime": 500,
                    "maxClientCnxns": 0, "admin.enableServer": "false", "4lw.commands.whitelist": "*", **self.settings}
        if self.ensemble:
            (data / "myid").write_text(str(self.number))
            settings |= {"initLimit": 20, "syncLimit": 10}
            settings |= {f"server.{number}": f"127.0.0.1:{one}:{other}"
                         for number, (one, other) in enumerate(self.ensemble, 1)}
        properties.write_text("".join(f"{key}={value}\n" for key, value in settings.items()))
        (self.directory / "logback.xml").write_text('<configuration><root level="OFF"/></configuration>')
        options = [f"-Dlogback.configurationFile={self.directory}/logback.xml", *self.java_options]
        command = java_command(self.directory, "org.apache.zookeeper.server.quorum.QuorumPeerMain", [properties], "-Xmx128M",
                               self.jars, options)
        self.process = Process([*self.prefix, *command], self.directory / "zookeeper.log")

    def start(self):
        self.begin()
        began = time.monotonic()
        while not self.asked("ruok"):
            if time.monotonic() - began > 60 or not self.process.running():
                raise SubjectError(f"ZooKeeper does not start\n{tail(self.process.log)}")
            time.sleep(0.05)
        return self

    def asked(self, word):
        """The answer to a word of four letters; empty where nobody answers."""
        try:
            with socket.create_connection((self.host, self.port), timeout=2) as connection:
                connection.sendall(word.encode())
                return connection.makefile("rb").read().decode()
        except OSError:
            return ""

    def close(self):
        if self.process is not None:
            self.process.end(signal.SIGKILL, 30)


def java_command(directory, main, arguments, heap, jars=None, options=()):
    log4j = Path(directory) / "log4j.properties"
    log4j.write_text(LOG4J)
    return ["java", heap, "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Djava.awt.headless=true",
            f"-Dlog4j.configuration=file:{log4j}", *options, "-cp", f"{jars or peers.kafka()}/*", main, *arguments]


class Kafka(Subject):
    name = "kafka"

    def __init__(self, directory, settings=None, **options):
        super().__init__(directory, settings, **options)
        self.own_zookeeper = self.zookeeper is None

    def properties(self):
        if self.zookeeper is None:
            self.zookeeper = ZooKeeper(self.directory).start()
        return super().properties()

    def command(self, properties):
        return java_command(self.directory, "kafka.Kafka", [properties], "-Xmx640M")

    def kill(self):
        super().kill()
        # The node of a killed broker stays until its session ends, and a broker that finds it refuses to start.
        time.sleep(self.session_ms / 1000 + 1)

    def close(self):
        if self.process is not None:
            self.process.end(signal.SIGKILL, 30)
        if self.own_zookeeper and self.zookeeper is not None:
            self.zookeeper.close()


class KafkaAsShipped(Kafka):
    """The same with the JVM's options of its own scripts (`kafka-server-start.sh`, `kafka-run-class.sh`), as it is measured."""

    def command(self, properties):
        small = {"-Xmx640M", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"}
        java, *words = [word for word in super().command(properties) if word not in small]
        return [java, "-Xmx1G", "-Xms1G", "-server", "-XX:+UseG1GC", "-XX:MaxGCPauseMillis=20",
                "-XX:InitiatingHeapOccupancyPercent=35", "-XX:+ExplicitGCInvokesConcurrent", "-XX:MaxInlineLevel=15", *words]


class NewerKafka(Subject):
    """Apache Kafka 3.9 or 4.x, broker and controller in one process, without ZooKeeper."""

    version = None

    def properties(self):
        controller = free_port()
        path = super().properties()
        with open(path, "a") as out:
            out.write(f"node.id=0\nprocess.roles=broker,controller\ncontroller.quorum.voters=0@127.0.0.1:{controller}\n"
                      f"listeners=PLAINTEXT://{self.bootstrap},CONTROLLER://127.0.0.1:{controller}\n"
                      f"advertised.listeners=PLAINTEXT://{self.bootstrap}\ncontroller.listener.names=CONTROLLER\n"
                      "listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT\n")
        return path

    def command(self, properties):
        log4j = self.directory / "log4j.properties"
        log4j.write_text(LOG4J)
        java = ["java", "-Xmx512M", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Djava.awt.headless=true",
                f"-Dlog4j.configuration=file:{log4j}", "-cp", f"{peers.newer_kafka(self.version)}/*"]
        if not (self.data / "meta.properties").exists():
            cluster = base64.urlsafe_b64encode(os.urandom(16)).decode().rstrip("=")
            peers.run([*java, "kafka.tools.StorageTool", "format", f"--cluster-id={cluster}", "-c", properties],
                      "kafka-storage")
        return [*java, "kafka.Kafka", properties]


class Kafka39(NewerKafka):
    name = "kafka 3.9.1"
    version = "3.9.1"


class Kafka41(NewerKafka):
    name = "kafka 4.1.0"
    version = "4.1.0"


KINDS = {"milena": Milena, "kafka": Kafka, "kafka-as-shipped": KafkaAsShipped, "kafka-3.9.1": Kafka39, "kafka-4.1.0": Kafka41}


def subject(name, directory, settings=None, **options):
    """A subject that is not started yet, in a fresh directory."""
    shutil.rmtree(directory, ignore_errors=True)
    return KINDS[name](directory, settings, **options)
