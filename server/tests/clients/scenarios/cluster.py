"""Milena as a broker of a cluster: its life on a ZooKeeper, beside Apache Kafka's."""

import json
import os
import re
import signal
import struct
import subprocess
import time

import peers
import subject as subjects
from scenario import Skip, contains, equal, scenario, until
from znodes import Proxy, ZnodeError, Znodes

SESSION_MS = 2000
# One record, without a key, whose value is x.
BATCH = bytes.fromhex("0000000000000000000000390000000002dbcd7cd800000000000000000174876e80000000017487"
                      "6e8000ffffffffffffffffffffffffffff000000010e00000001027800")


class Cluster:
    """A ZooKeeper, brokers on it, and a look into it."""

    def __init__(self, place, **options):
        if place.subject != "milena":
            raise Skip("Apache's brokers take part beside Milena's")
        self.place = place
        settings = {"maxSessionTimeout": 60000, **options.pop("settings", {})}
        self.zookeeper = subjects.ZooKeeper(place.directory / "zookeeper", settings=settings, **options).start()
        self.znodes = Znodes(self.zookeeper)
        self.parts = [self.zookeeper]

    def broker(self, kind, number, settings=None, zookeeper=None, **options):
        """A broker that is not started yet."""
        settings = {"broker.id": str(number), **(settings or {})}
        broker = subjects.subject(kind, self.place.directory / f"{kind}-{number}", settings,
                                  zookeeper=zookeeper or self.zookeeper, session_ms=SESSION_MS, **options)
        self.parts.append(broker)
        return broker

    def proxy(self):
        proxy = Proxy(self.zookeeper)
        self.parts.append(proxy)
        return proxy

    def json(self, path):
        return json.loads(self.znodes.data(path))

    def epoch(self, number):
        """The broker's epoch: the czxid of its node."""
        found = self.znodes.get(f"/brokers/ids/{number}")
        return found and found[1].czxid

    def controller(self):
        data = self.znodes.data("/controller")
        return data and json.loads(data)["brokerid"]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for part in reversed(self.parts):
            part.close()


def begin(broker, **environment):
    """Starts a broker that need not know of a controller yet."""
    before = len(broker.log.read_text()) if broker.log.exists() else 0
    inherited = {name: text for name, text in os.environ.items() if name not in subjects.OF_THE_TESTS}
    broker.process = subjects.Process(broker.command(broker.properties()), broker.log, cwd=broker.directory,
                                      env=inherited | environment)
    until(60, f"{broker.name} started", lambda: re.search(r"\[KafkaServer id=\d+\] started", broker.log.read_text()[before:]))


def refused(broker):
    """Starts a broker that must not start; returns its log."""
    process = subjects.Process(broker.command(broker.properties()), broker.log, cwd=broker.directory)
    until(60, "the end of a start that is refused", lambda: not process.running())
    code = process.end(9, 5)
    if code == 0:
        raise AssertionError("the start was not refused")
    return broker.log.read_text()


def meta(broker):
    lines = (broker.data / "meta.properties").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if not line.startswith("#"))


@scenario(240)
def registered_as_kafka(place):
    """The same settings make the same node, key by key and in the same order, at each protocol version; ids and cluster agree."""
    with Cluster(place) as cluster:
        settings = {
            "listeners": "PLAINTEXT://127.0.0.1:{0},EXT://127.0.0.1:{1}",
            "advertised.listeners": "PLAINTEXT://h:9092,EXT://g:9093",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,EXT:PLAINTEXT",
            "broker.rack": "r1",
            # Nobody is at h.
            "controlled.shutdown.enable": "false",
        }
        for protocol in ("2.7", "2.6", "1.0"):
            written = {}
            for kind in ("kafka", "milena"):
                settings["inter.broker.protocol.version"] = protocol
                broker = cluster.broker(kind, 7, settings)
                broker.settings["listeners"] = settings["listeners"].format(broker.port, subjects.free_port())
                begin(broker)
                data, stat = cluster.znodes.get("/brokers/ids/7")
                written[kind] = (re.sub(rb'"timestamp":"\d+"', b'"timestamp":""', data), stat.version)
                if protocol == "2.7":
                    equal(meta(broker)["cluster.id"], cluster.json("/cluster/id")["id"], "cluster.id")
                    equal(meta(broker)["broker.id"], "7", "broker.id")
                broker.stop()
                until(10, "the end of its node", lambda: cluster.epoch(7) is None)
            print(protocol, *written.values())
            equal(written["milena"], written["kafka"], f"/brokers/ids/7 at {protocol}")


@scenario(180)
def who_is_who(place):
    """Generated ids lie above the reserved ones and stay; another's id, address, directory or cluster is refused in Kafka's words."""
    with Cluster(place) as cluster:
        kafka = cluster.broker("kafka", -1)
        begin(kafka)
        milena = cluster.broker("milena", -1, {"reserved.broker.max.id": "2000"})
        begin(milena)
        equal(cluster.znodes.children("/brokers/ids"), ["1001", "2002"], "generated ids")
        milena.stop()
        begin(milena)
        equal(cluster.znodes.children("/brokers/ids"), ["1001", "2002"], "the id of meta.properties")
        high = {"reserved.broker.max.id": "5000"}
        twin = cluster.broker("milena", 1001, high)
        began = time.monotonic()
        contains(refused(twin), "Error while creating ephemeral at /brokers/ids/1001, node already exists and owner")
        if time.monotonic() - began < SESSION_MS / 1000:
            raise AssertionError("the session of the other might have ended")
        squatter = cluster.broker("milena", 3, {"advertised.listeners": f"PLAINTEXT://127.0.0.1:{kafka.port}"})
        contains(refused(squatter), f"Configured end points 127.0.0.1:{kafka.port} in advertised listeners are already "
                                    "registered by broker 1001")
        milena.stop()
        milena.settings |= {"broker.id": "5", **high}
        contains(refused(milena), "Configured broker.id 5 doesn't match stored broker.id 2002")
        milena.settings |= {"broker.id": "2002", "zookeeper.connect": f"{cluster.zookeeper.connect}/elsewhere"}
        contains(refused(milena), "doesn't match stored clusterId", "Configured zookeeper.connect may be wrong")
        equal(cluster.znodes.children("/elsewhere/brokers/ids"), [], "registered in the wrong cluster")


@scenario(120)
def killed_and_back(place):
    """A broker that was killed waits for its own former session, and then has a later epoch."""
    with Cluster(place) as cluster:
        broker = cluster.broker("milena", 0)
        broker.start()
        before = cluster.epoch(0)
        subjects.Subject.kill(broker)
        seconds = broker.start()
        contains(broker.log.read_text(), "/brokers/ids/0 belongs to session 0x")
        if not before < cluster.epoch(0):
            raise AssertionError("the epoch did not grow")
        print(f"back after {seconds:.1f} s with sessions of {SESSION_MS} ms")
        until(20, "controller again", lambda: cluster.controller() == 0)


@scenario(180)
def a_session_that_ends(place):
    """Ended from outside, a session is followed by another: a later epoch, a controller again, and clients served all the time."""
    with Cluster(place) as cluster:
        proxy = cluster.proxy()
        broker = cluster.broker("milena", 0, zookeeper=proxy)
        broker.start()
        until(20, "a controller", lambda: cluster.controller() == 0)
        equal(create_topic(broker.port, "t", 20), 0, "CreateTopics")
        epoch, controller_epoch = cluster.epoch(0), int(cluster.znodes.data("/controller_epoch"))
        for _ in range(5):
            proxy.expire()
            equal(produce(broker.port, "t", 0), 0, "an acknowledged record, at once")
            until(20, "a new registration", lambda: (cluster.epoch(0) or 0) > epoch)
            until(20, "a controller", lambda: cluster.controller() == 0)
            if not subjects.answers_metadata(broker.port):
                raise AssertionError("the broker does not answer")
            now = int(cluster.znodes.data("/controller_epoch"))
            if not now > controller_epoch:
                raise AssertionError(f"controller epoch {now} after {controller_epoch}")
            epoch, controller_epoch = cluster.epoch(0), now
        # The line of an election follows its node by a moment.
        until(10, "the last election in the log", lambda: broker.log.read_text().count("successfully elected") >= 6)
        log = broker.log.read_text()
        equal(log.count("WARN the session expired"), 5, "sessions that ended")
        # Registered before elected, each time.
        order = re.findall(r"Registered broker 0|successfully elected", log)
        equal(order, ["Registered broker 0", "successfully elected"] * 6, "order")


@scenario(180)
def a_zookeeper_that_is_away(place):
    """Without ZooKeeper, wishes of clients are answered in time; afterwards they are granted, in the session of before."""
    with Cluster(place) as cluster:
        proxy = cluster.proxy()
        # The session outlives the outage.
        broker = cluster.broker("milena", 0, {"zookeeper.session.timeout.ms": "60000"}, zookeeper=proxy)
        broker.start()
        until(20, "a controller", lambda: cluster.controller() == 0)
        epoch = cluster.epoch(0)
        proxy.cut()
        began = time.monotonic()
        equal(create_topic(broker.port, "t", 20), 7, "CreateTopics without ZooKeeper: REQUEST_TIMED_OUT")
        took = time.monotonic() - began
        print(f"answered after {took:.1f} s")
        if took > 18:
            raise AssertionError(f"answered after {took:.1f} s")
        proxy.cut(False)
        until(30, "ZooKeeper again", lambda: create_topic(broker.port, "u", 20) == 0)
        if cluster.epoch(0) < epoch:
            raise AssertionError("the epoch went back")


def create_topic(port, name, timeout):
    """The error code of CreateTopics v0 for one partition of one replica."""
    topic = name.encode()
    body = struct.pack(">hhih", 19, 0, 1, -1) + struct.pack(">i", 1)
    body += struct.pack(">h", len(topic)) + topic + struct.pack(">ihii", 1, 1, 0, 0) + struct.pack(">i", 15000)
    answer = subjects.exchange(port, body, timeout=timeout)
    return struct.unpack_from(">h", answer, 10 + len(topic))[0]


@scenario(120)
def features_that_nobody_here_knows(place):
    """A finalized feature is one too many: at the start, and while the broker runs."""
    with Cluster(place) as cluster:
        broker = cluster.broker("milena", 0)
        broker.start()
        unknown = b'{"features":{"group":{"min_version_level":1,"max_version_level":3}},"status":1,"version":1}'
        if cluster.znodes.get("/feature") is None:
            cluster.znodes.create("/feature", unknown)
        else:
            cluster.znodes.set("/feature", unknown)
        until(20, "the end of the broker", lambda: not broker.process.running())
        equal(broker.process.end(9, 5), 3, "exit code")
        words = "FinalizedFeatureCache update failed since feature compatibility checks failed!"
        contains(broker.log.read_text(), words)
        contains(refused(cluster.broker("milena", 1)), words)
        cluster.broker("milena", 2, {"inter.broker.protocol.version": "2.6"}).start()


@scenario(120)
def a_node_that_stood_alone(place):
    """A directory with an embedded tree is not taken into a cluster, and stays as it is."""
    with Cluster(place) as cluster:
        alone = subjects.subject("milena", place.directory / "alone", {"broker.id": "0"})
        cluster.parts.append(alone)
        alone.start()
        alone.stop()
        alone.zookeeper = cluster.zookeeper
        contains(refused(alone), "milena export-znodes", str(alone.data / "milena.tree"))
        alone.zookeeper = None
        alone.start()


@scenario(180)
def leadership_is_handed_over(place):
    """Before it stops, a broker has Apache's controller move what it leads; afterwards it follows."""
    with Cluster(place) as cluster:
        kafka = cluster.broker("kafka", 1)
        begin(kafka)
        milena = cluster.broker("milena", 2)
        begin(milena)
        equal(cluster.controller(), 1, "controller")
        partitions = {str(number): [2, 1] for number in range(10)}
        assignment = {"version": 2, "partitions": partitions, "adding_replicas": {}, "removing_replicas": {}}
        cluster.znodes.create("/brokers/topics/t", json.dumps(assignment, separators=(",", ":")).encode())

        def states():
            paths = [f"/brokers/topics/t/partitions/{number}/state" for number in partitions]
            found = [cluster.znodes.data(path) for path in paths]
            return all(found) and [(state["leader"], sorted(state["isr"])) for state in map(json.loads, found)]

        until(30, "Milena leads", lambda: states() == [(2, [1, 2])] * 10)
        milena.stop()
        log = milena.log.read_text()
        contains(log, "Controlled shutdown succeeded")
        equal("Retrying controlled shutdown" in log, False, "tried again")
        equal(states(), [(1, [1])] * 10, "leaders and in-sync replicas")
        begin(milena)
        until(60, "Milena in sync again", lambda: states() == [(1, [1, 2])] * 10)


@scenario(240)
def a_listener_for_controllers(place):
    """control.plane.listener.name: commands come and go by that listener, whoever is controller; leaders are found on the other."""
    with Cluster(place) as cluster:
        brokers = {}
        for number, kind in ((1, "kafka"), (2, "milena")):
            port = subjects.free_port()
            broker = cluster.broker(kind, number, {
                "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROL:PLAINTEXT",
                "control.plane.listener.name": "CONTROL",
            })
            broker.settings["listeners"] = f"PLAINTEXT://{broker.bootstrap},CONTROL://127.0.0.1:{port}"
            begin(broker)
            brokers[number] = broker
        for number, topic in ((1, "t"), (2, "u")):
            until(30, f"{number} is controller", lambda: cluster.controller() == number)
            partitions = {"0": [1, 2], "1": [2, 1]}
            assignment = {"version": 2, "partitions": partitions, "adding_replicas": {}, "removing_replicas": {}}
            cluster.znodes.create(f"/brokers/topics/{topic}", json.dumps(assignment, separators=(",", ":")).encode())
            for partition, leader in ((0, 1), (1, 2)):
                path = f"/brokers/topics/{topic}/partitions/{partition}/state"

                def state():
                    data = cluster.znodes.data(path)
                    found = json.loads(data) if data else {"leader": None, "isr": []}
                    return found["leader"], sorted(found["isr"])

                until(30, f"{path} is led by {leader}, which the other follows", lambda: state() == (leader, [1, 2]))
                until(20, "an acknowledged record", lambda: produce(brokers[leader].port, topic, partition) == 0)
            if number == 1:
                brokers[1].stop()
                until(30, "another controller", lambda: cluster.controller() == 2)
                begin(brokers[1])


def produce(port, topic, partition):
    """The error code of Produce v3 with acks=all for one record."""
    name = topic.encode()
    body = struct.pack(">hhih", 0, 3, 1, -1) + struct.pack(">h", -1) + struct.pack(">hi", -1, 10000)
    body += struct.pack(">i", 1) + struct.pack(">h", len(name)) + name + struct.pack(">ii", 1, partition)
    body += struct.pack(">i", len(BATCH)) + BATCH
    answer = subjects.exchange(port, body, timeout=15)
    return struct.unpack_from(">h", answer, 4 + 4 + 2 + len(name) + 4 + 4)[0]


@scenario(120)
def advertised_elsewhere(place):
    """advertised.listeners changed while the broker runs change its node, not its epoch; what cannot be is refused."""
    with Cluster(place) as cluster:
        broker = cluster.broker("milena", 0)
        broker.start()
        epoch = cluster.epoch(0)
        elsewhere = f"PLAINTEXT://127.0.0.2:{broker.port}"
        cluster.znodes.create("/config/brokers/0", json.dumps({"version": 1, "config": {"advertised.listeners": elsewhere}}).encode())
        cluster.znodes.create("/config/changes/config_change_0000000000", b'{"version":2,"entity_path":"brokers/0"}')
        until(20, "another address", lambda: cluster.json("/brokers/ids/0")["endpoints"] == [elsewhere])
        equal(cluster.epoch(0), epoch, "epoch")
        cluster.znodes.set("/config/brokers/0", b'{"version":1,"config":{"advertised.listeners":"OTHER://h:1"}}')
        cluster.znodes.create("/config/changes/config_change_0000000001", b'{"version":2,"entity_path":"brokers/0"}')
        until(20, "the refusal", lambda: "Per-broker configs could not be applied" in broker.log.read_text())
        broker.stop()
        broker.start()
        equal(cluster.json("/brokers/ids/0")["endpoints"], [f"PLAINTEXT://{broker.bootstrap}"], "what is stored cannot be")


@scenario(180)
def nodes_of_our_own(place):
    """zookeeper.set.acl with the Client section of one JAAS file: Apache's broker and Milena change what nobody else may."""
    jaas = place.directory / "jaas.conf"
    jaas.write_text("""Server { org.apache.zookeeper.server.auth.DigestLoginModule required user_kafka="secret"; };
                       Client { org.apache.zookeeper.server.auth.DigestLoginModule required username="kafka" password="secret"; };
                    """)
    login = f"-Djava.security.auth.login.config={jaas}"
    provider = {"authProvider.1": "org.apache.zookeeper.server.auth.SASLAuthenticationProvider"}
    with Cluster(place, settings=provider, java_options=[login]) as cluster:
        acl = {"zookeeper.set.acl": "true"}
        milena = cluster.broker("milena", 2, acl)
        begin(milena, KAFKA_OPTS=login)
        begin(cluster.broker("kafka", 1, acl), JAVA_TOOL_OPTIONS=login)
        equal(cluster.znodes.children("/brokers/ids"), ["1", "2"], "brokers")
        for path in ("/brokers/ids/2", "/controller_epoch", "/brokers/ids/1"):
            equal(code_of(lambda: cluster.znodes.set(path, b"x")), NO_AUTH, f"{path}, written by anyone")
        equal(code_of(lambda: cluster.znodes.get("/config/brokers")), NO_AUTH, "what is secret")
        # The old controller's successor writes what its predecessor made.
        milena.stop()
        until(30, "Apache's controller", lambda: cluster.controller() == 1)
        begin(milena, KAFKA_OPTS=login)
        impostor = cluster.broker("milena", 3, {
            "milena.zookeeper.sasl.jaas.config":
                'org.apache.zookeeper.server.auth.DigestLoginModule required username="kafka" password="wrong";'})
        contains(refused(impostor), "Auth failed either before or while waiting for connection")
        contains(refused(cluster.broker("milena", 4, acl)), "zookeeper.set.acl is true, but nobody says who this broker is")


@scenario(60)
def nodes_of_our_own_by_digest(place):
    """zookeeper.set.acl with milena.zookeeper.digest, which needs nothing at ZooKeeper: who has another password changes nothing."""
    with Cluster(place) as cluster:
        own = {"zookeeper.set.acl": "true", "milena.zookeeper.digest": "kafka:secret"}
        for number in (1, 2):
            begin(cluster.broker("milena", number, own))
        equal(cluster.znodes.children("/brokers/ids"), ["1", "2"], "brokers")
        for path in ("/brokers/ids/2", "/controller_epoch"):
            equal(code_of(lambda: cluster.znodes.set(path, b"x")), NO_AUTH, f"{path}, written by anyone")
        equal(code_of(lambda: cluster.znodes.get("/config/brokers")), NO_AUTH, "what is secret")
        impostor = cluster.broker("milena", 3, {"milena.zookeeper.digest": "kafka:wrong"})
        contains(refused(impostor), "not permitted to who we are at ZooKeeper")


NO_AUTH = -102


def code_of(ask):
    """ZooKeeper's code for what it refuses."""
    try:
        ask()
    except ZnodeError as error:
        return error.code
    return 0


@scenario(180)
def one_command(place):
    """tools/cluster starts three brokers that know each other, and stops them on SIGTERM."""
    with Cluster(place) as cluster:
        command = [peers.ROOT / "tools/cluster", place.directory / "trial", "--zookeeper", cluster.zookeeper.connect,
                   "--port", subjects.free_port(), "--milena", subjects.Milena.binary,
                   "--override", "controlled.shutdown.retry.backoff.ms=100"]
        log = place.directory / "command.log"
        process = subjects.Process(command, log)
        until(60, "its words", lambda: "Ctrl-C stops them" in log.read_text())
        equal(cluster.znodes.children("/brokers/ids"), ["0", "1", "2"], "brokers")
        bootstrap = re.search(r"brokers\s+(\S+)", log.read_text())[1].split(",")[0]
        create = [subjects.Milena.binary, "topics", "create", "t", "--partitions", "6", "--bootstrap-server", bootstrap]
        done = subprocess.run(create, capture_output=True, text=True)
        contains(done.stdout, "created t: partitions 6, replication factor 3")
        equal(process.end(signal.SIGTERM, 60), 0, log.read_text())
        equal(cluster.znodes.children("/brokers/ids"), [], "brokers")


def openssl(*words):
    done = subprocess.run(["openssl", *map(str, words)], capture_output=True, text=True)
    if done.returncode:
        raise AssertionError(f"openssl {words}: {done.stderr}")


def certified(directory, name, authority, names):
    """Certificate and key in one PEM file, vouched for by the authority; itself one where that is none."""
    key, request, certificate = (directory / f"{name}.{end}" for end in ("key", "csr", "crt"))
    if authority is None:
        openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", certificate, "-days", 2,
                "-subj", f"/CN={name}")
    else:
        openssl("req", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", request, "-subj", f"/CN={name}")
        extensions = directory / f"{name}.ext"
        extensions.write_text(f"subjectAltName={names}\n")
        openssl("x509", "-req", "-in", request, "-CA", f"{authority}.crt", "-CAkey", f"{authority}.key", "-CAcreateserial",
                "-out", certificate, "-days", 2, "-extfile", extensions)
    both = directory / f"{name}.pem"
    both.write_text(certificate.read_text() + key.read_text())
    return both


@scenario(180)
def zookeeper_by_tls(place):
    """Certificates in PEM: a server that is vouched for and has the name is spoken to, by our own certificate; others are not."""
    directory = place.directory
    certified(directory, "authority", None, None)
    certified(directory, "stranger", None, None)
    authority = directory / "authority"
    server = certified(directory, "server", authority, "IP:127.0.0.1")
    misnamed = certified(directory, "misnamed", authority, "DNS:elsewhere")
    client = certified(directory, "client", authority, "DNS:client")
    for name, certificate, algorithm, trusted, is_taken in (
        ("taken", server, None, "authority", True),
        ("stranger", server, None, "stranger", False),
        ("misnamed", misnamed, None, "authority", False),
        ("any-name", misnamed, "", "authority", True),
        ("any-name-of-a-stranger", misnamed, "", "stranger", False),
    ):
        (directory / name).mkdir()
        other = Place(place, directory / name)
        port = subjects.free_port()
        settings = {"secureClientPort": port, "secureClientPortAddress": "127.0.0.1",
                    "serverCnxnFactory": "org.apache.zookeeper.server.NettyServerCnxnFactory",
                    "authProvider.x509": "org.apache.zookeeper.server.auth.X509AuthenticationProvider",
                    "ssl.keyStore.location": certificate, "ssl.trustStore.location": f"{authority}.crt.pem"}
        (directory / "authority.crt.pem").write_text((directory / "authority.crt").read_text())
        (directory / "stranger.crt.pem").write_text((directory / "stranger.crt").read_text())
        with Cluster(other, settings=settings) as cluster:
            broker = cluster.broker("milena", 0, {
                "zookeeper.connect": f"127.0.0.1:{port}", "zookeeper.connection.timeout.ms": 6000,
                "zookeeper.ssl.client.enable": "true", "zookeeper.set.acl": "true",
                "zookeeper.ssl.truststore.location": directory / f"{trusted}.crt.pem",
                "zookeeper.ssl.keystore.location": client,
                **({} if algorithm is None else {"zookeeper.ssl.endpoint.identification.algorithm": algorithm}),
            })
            if is_taken:
                begin(broker)
                equal(code_of(lambda: cluster.znodes.set("/brokers/ids/0", b"x")), NO_AUTH, "written by anyone")
                broker.stop()
            else:
                contains(refused(broker), "Timed out waiting for connection while in state: CONNECTING")


class Place:
    """A directory of the scenario's place."""

    def __init__(self, place, directory):
        self.subject = place.subject
        self.directory = directory
