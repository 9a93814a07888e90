"""Listeners that come and go while the broker runs, by kafka-configs: the same on both kinds of broker."""

import json
import socket

import librdkafka
import records
import subject as subjects
from scenario import contains, equal, scenario, until
from tools import Tools
from znodes import Znodes

MAP = "listener.security.protocol.map=[PLAINTEXT:PLAINTEXT,EXT:PLAINTEXT,OTHER:PLAINTEXT]"


class Broker:
    """A broker of the subject on a ZooKeeper, and kafka-configs."""

    def __init__(self, place):
        zookeeper = subjects.ZooKeeper(place.directory / "zookeeper").start()
        place.started.append(zookeeper)
        self.znodes = Znodes(zookeeper)
        self.subject = place.start(zookeeper=zookeeper)
        self.tools = Tools(place, self.subject.bootstrap)
        self.own = f"PLAINTEXT://{self.subject.bootstrap}"

    def alter(self, *settings, delete=()):
        words = ["--bootstrap-server", self.subject.bootstrap, "--alter", "--entity-type", "brokers", "--entity-name", "0"]
        words += ["--add-config", ",".join(settings)] if settings else []
        words += ["--delete-config", ",".join(delete)] if delete else []
        return self.tools.call("kafka-configs", *words)

    def changed(self, *settings, delete=()):
        code, output = self.alter(*settings, delete=delete)
        equal(code, 0, output)

    def registered(self):
        return json.loads(self.znodes.data("/brokers/ids/0"))

    def advertises(self, *wanted):
        until(30, f"{wanted} are advertised", lambda: self.registered()["endpoints"] == list(wanted))


def is_open(port):
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except ConnectionRefusedError:
        return False
    return True


def is_ended(connection):
    """Whether the broker has closed a connection."""
    connection.settimeout(30)
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True


@scenario(240)
def come_and_go(place):
    """A new one serves and is advertised at once; one that goes takes its connections along; a restart keeps what was set."""
    broker = Broker(place)
    epoch = broker.znodes.get("/brokers/ids/0")[1].czxid
    ext, other = subjects.free_port(), subjects.free_port()
    own_connection = socket.create_connection(("127.0.0.1", broker.subject.port))
    broker.changed(MAP, f"listeners=[{broker.own},EXT://127.0.0.1:{ext}]")
    broker.advertises(broker.own, f"EXT://127.0.0.1:{ext}")
    equal(broker.registered()["listener_security_protocol_map"], {"PLAINTEXT": "PLAINTEXT", "EXT": "PLAINTEXT"}, "protocols")
    equal(broker.znodes.get("/brokers/ids/0")[1].czxid, epoch, "broker epoch")
    outside = f"127.0.0.1:{ext}"
    until(30, "clients from outside are told of it", lambda: [one.port for one in librdkafka.admin(outside).list_topics(
        timeout=20).brokers.values()] == [ext])
    librdkafka.create(outside, "t", 1)
    librdkafka.produce(outside, "t", records.samples(1))

    leaving = socket.create_connection(("127.0.0.1", ext))
    broker.changed(f"listeners=[{broker.own},OTHER://127.0.0.1:{other}]")
    broker.advertises(broker.own, f"OTHER://127.0.0.1:{other}")
    until(30, "the old one is closed", lambda: not is_open(ext))
    equal(is_ended(leaving), True, "its connections end")
    equal(len(librdkafka.read_all(f"127.0.0.1:{other}", "t")), len(records.samples(1)), "by the new one")

    # What is advertised may be a part of it, and lie elsewhere.
    broker.changed(f"advertised.listeners=[{broker.own},OTHER://127.0.0.2:{other}]")
    broker.advertises(broker.own, f"OTHER://127.0.0.2:{other}")
    broker.changed(f"advertised.listeners=[{broker.own}]")
    broker.advertises(broker.own)
    equal(is_open(other), True, "it stays open")
    broker.subject.stop()
    broker.subject.start()
    equal(is_open(other), True, "after a restart")
    broker.advertises(broker.own)
    broker.changed(delete=["listeners", "advertised.listeners"])
    until(30, "the settings of the file hold", lambda: not is_open(other))
    broker.advertises(broker.own)
    equal(len(librdkafka.read_all(broker.subject.bootstrap, "t")), len(records.samples(1)), "by the first")
    own_connection.close()


@scenario(120)
def what_is_refused(place):
    """The listener between brokers stays; names, ports and protocols must fit. A connection of the first one outlives all of it."""
    broker = Broker(place)
    staying = socket.create_connection(("127.0.0.1", broker.subject.port))
    ext = subjects.free_port()
    before = broker.registered()["endpoints"]
    for settings, words in (
        ((MAP, f"listeners=[EXT://127.0.0.1:{ext}]"), "listener"),
        ((f"listeners=[{broker.own},EXT://127.0.0.1:{ext}]",), "No security protocol defined for listener EXT"),
        ((MAP, f"listeners=[{broker.own},EXT://127.0.0.1:{broker.subject.port}]"), "Each listener must have a different port"),
        ((MAP, f"listeners=[{broker.own},PLAINTEXT://127.0.0.1:{ext}]"), "Each listener must have a different name"),
        ((f"advertised.listeners=[{broker.own},SSL://127.0.0.1:{ext}]",), "advertised.listeners listener names must be"),
        (("listeners=[PLAINTEXT]",), "Unable to parse PLAINTEXT to a broker endpoint"),
    ):
        code, output = broker.alter(*settings)
        equal(code != 0, True, f"{settings}: {output}")
        contains(output, words)
    equal(broker.registered()["endpoints"], before, "endpoints")
    equal(is_open(ext), False, "nothing was opened")
    staying.settimeout(0.2)
    try:
        equal(staying.recv(1), None, "the connection ended")
    except socket.timeout:
        pass
    # A port that another program has: told in the log, nothing changes, and the next change makes up for it.
    taken = socket.create_server(("127.0.0.1", ext))
    broker.changed(MAP, f"listeners=[{broker.own},EXT://127.0.0.1:{ext}]")
    if place.subject == "milena":
        until(30, "the log tells it", lambda: f"The listeners stay as they are: cannot listen on EXT://127.0.0.1:{ext}" in
              broker.subject.log.read_text())
        equal(broker.registered()["endpoints"], before, "endpoints")
        taken.close()
        broker.changed("log.cleaner.backoff.ms=15001")
        broker.advertises(broker.own, f"EXT://127.0.0.1:{ext}")
        equal(is_open(ext), True, "the second time")
    taken.close()


@scenario(120)
def moved(place):
    """A listener whose address changes is bound anew, also at a port that another one gave up; 2.7.2 does the latter only."""
    broker = Broker(place)
    first, second = subjects.free_port(), subjects.free_port()
    broker.changed(MAP, f"listeners=[{broker.own},EXT://127.0.0.1:{first}]")
    broker.advertises(broker.own, f"EXT://127.0.0.1:{first}")
    broker.changed(f"listeners=[{broker.own},OTHER://127.0.0.1:{first}]")
    broker.advertises(broker.own, f"OTHER://127.0.0.1:{first}")
    until(30, "the port is served", lambda: is_open(first))
    if place.subject == "milena":
        broker.changed(f"listeners=[{broker.own},OTHER://127.0.0.1:{second}]")
        broker.advertises(broker.own, f"OTHER://127.0.0.1:{second}")
        equal((is_open(first), is_open(second)), (False, True), "ports")
