"""A cheap producer over raw sockets, which knows to the millisecond when each partition took a record.

One connection for each partition and leader, one small record under way on it with acks=all, the next after a pause. Who leads
it is told by metadata as any client is: asked for at once when a leader says that it leads no more or its connection is lost,
and never taken from an older leader epoch. A thread of its own does all of it.
"""

import bisect
import collections
import heapq
import select
import socket
import struct
import threading
import time

import crc32c

PRODUCE, METADATA = 0, 3
PRODUCE_VERSION, METADATA_VERSION = 7, 7
# What a client tries again after: it looks for the leader anew, or waits a moment.
LOST = {3: "UNKNOWN_TOPIC_OR_PARTITION", 5: "LEADER_NOT_AVAILABLE", 6: "NOT_LEADER_OR_FOLLOWER", 56: "KAFKA_STORAGE_ERROR",
        9: "REPLICA_NOT_AVAILABLE"}
AGAIN = {7: "REQUEST_TIMED_OUT", 19: "NOT_ENOUGH_REPLICAS", 20: "NOT_ENOUGH_REPLICAS_AFTER_APPEND"}
RETRY = 0.005


def text(name):
    return struct.pack(">h", len(name)) + name.encode()


def batch(now_ms):
    """A batch with one record of now, without a key, whose value is x."""
    record = bytes.fromhex("0e00000001027800")
    after_crc = struct.pack(">hiqqqhii", 0, 0, now_ms, now_ms, -1, -1, -1, 1) + record
    body = struct.pack(">ib", 0, 2) + struct.pack(">I", crc32c.crc32c(after_crc)) + after_crc
    return struct.pack(">qi", 0, len(body)) + body


def produce_request(topic, partition, now_ms):
    records = batch(now_ms)
    body = struct.pack(">hhi", PRODUCE, PRODUCE_VERSION, 0) + text("probe") + struct.pack(">hhii", -1, -1, 10000, 1)
    body += text(topic) + struct.pack(">iii", 1, partition, len(records)) + records
    return struct.pack(">i", len(body)) + body


def metadata_request(topics=None):
    """About these topics, or all."""
    body = struct.pack(">hhi", METADATA, METADATA_VERSION, 0) + text("probe")
    body += struct.pack(">i", -1 if topics is None else len(topics)) + b"".join(text(topic) for topic in topics or ()) + b"\0"
    return struct.pack(">i", len(body)) + body


def partitions_of(answer):
    """(controller, [(topic, partition, error, leader, leader epoch, replicas, in-sync replicas)]) of an answer to Metadata v7."""
    unpack, at = struct.unpack_from, 12
    for _ in range(unpack(">i", answer, 8)[0]):
        at += 4
        at += 2 + unpack(">h", answer, at)[0] + 4
        at += 2 + max(unpack(">h", answer, at)[0], 0)
    at += 2 + max(unpack(">h", answer, at)[0], 0)
    controller, topics = unpack(">ii", answer, at)
    at += 8
    found = []
    for _ in range(topics):
        size = unpack(">h", answer, at + 2)[0]
        topic = answer[at + 4:at + 4 + size].decode()
        at += 5 + size
        count = unpack(">i", answer, at)[0]
        at += 4
        for _ in range(count):
            error, partition, leader, epoch, width = unpack(">hiiii", answer, at)
            replicas = unpack(f">{width}i", answer, at + 18)
            at += 18 + 4 * width
            width = unpack(">i", answer, at)[0]
            in_sync = unpack(f">{width}i", answer, at + 4)
            at += 4 + 4 * width
            at += 4 + 4 * unpack(">i", answer, at)[0]
            found.append((topic, partition, error, leader, epoch, replicas, in_sync))
    return controller, found


class Connection:
    """One socket to one broker: whole answers out of what arrives."""

    def __init__(self, port, owner, broker):
        self.owner, self.broker = owner, broker
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=1)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.settimeout(5)
        self.data = b""

    def answer(self):
        """What has arrived, if it is a whole answer; fails where the connection is lost."""
        more = self.socket.recv(1 << 18)
        if not more:
            raise OSError("closed")
        self.data += more
        if len(self.data) < 4 or len(self.data) < 4 + int.from_bytes(self.data[:4], "big"):
            return None
        whole, self.data = self.data[4:], b""
        return whole


class Lane:
    """What is known of one partition."""

    def __init__(self, topic, partition, request):
        self.topic, self.partition, self.request = topic, partition, request
        self.code_at = 4 + 4 + 2 + len(topic) + 4 + 4
        self.leader, self.epoch = -1, -1
        self.connections = {}
        self.waits_for = None  # the connection on which a record is under way
        self.acks, self.offsets = [], []

    def first_ack_after(self, moment):
        """When the partition took the first record after a moment; none if it did not yet."""
        at = bisect.bisect_right(self.acks, moment)
        return self.acks[at] if at < len(self.acks) else None

    def longest_gap(self, begin, end):
        """The longest time between two acks in a row of which a part lies between these moments, and when it began."""
        inside = self.acks[max(bisect.bisect_right(self.acks, begin) - 1, 0):bisect.bisect_left(self.acks, end) + 1]
        return max(((later - earlier, earlier) for earlier, later in zip(inside, inside[1:])), default=(end - begin, begin))


class Probe(threading.Thread):
    """Sends to partitions of these topics (names with a number of partitions each) until stopped; `ports` by broker."""

    def __init__(self, ports, topics, pause):
        super().__init__(daemon=True)
        self.ports, self.pause = ports, pause
        now_ms = int(time.time() * 1000)
        self.lanes = {(topic, number): Lane(topic, number, produce_request(topic, number, now_ms))
                      for topic, count in topics for number in range(count)}
        self.seeking = set(self.lanes.values())  # whose leader is looked for
        self.asks = metadata_request([topic for topic, _ in topics])
        self.codes = collections.Counter()
        self.poll = select.epoll()
        self.connections = {}
        self.due = []  # (when, tie, lane): to be sent to
        self.tie = 0
        self.asked = None  # the connection that metadata are under way on
        self.ask_at = 0
        self.asked_last = -1
        self.ending = threading.Event()
        self.failure = None
        self.start()

    def run(self):
        try:
            while not self.ending.is_set():
                self.turn()
        except Exception as error:  # told to whoever stops the probe
            self.failure = error

    def stop(self):
        """Ends the thread. Fails if it met what no client should, or an acked record's place was given to another."""
        self.ending.set()
        self.join(10)
        for connection in list(self.connections.values()):
            connection.socket.close()
        if self.failure:
            raise self.failure
        wrong = [f"{lane.topic}-{lane.partition}" for lane in self.lanes.values()
                 if any(later <= earlier for earlier, later in zip(lane.offsets, lane.offsets[1:]))]
        if wrong:
            raise AssertionError(f"an acked offset was given to a later record as well, in {wrong[:5]}")

    def turn(self):
        now = time.monotonic()
        until = self.due[0][0] if self.due else now + 0.02
        if self.seeking and self.asked is None:
            if now >= self.ask_at:
                self.ask()
            until = min(until, self.ask_at)
        for number, _ in self.poll.poll(max(until - now, 0)):
            self.arrived(self.connections.get(number))
        now = time.monotonic()
        while self.due and self.due[0][0] <= now:
            self.send(heapq.heappop(self.due)[2])

    def schedule(self, lane, when):
        self.tie += 1
        heapq.heappush(self.due, (when, self.tie, lane))

    def connect(self, owner, broker):
        connection = Connection(self.ports[broker], owner, broker)
        self.connections[connection.socket.fileno()] = connection
        self.poll.register(connection.socket, select.EPOLLIN)
        return connection

    def close(self, connection):
        del self.connections[connection.socket.fileno()]
        self.poll.unregister(connection.socket)
        connection.socket.close()

    def ask(self):
        """Asks the next broker in turn for metadata."""
        brokers = list(self.ports)
        self.asked_last = (self.asked_last + 1) % len(brokers)
        self.ask_at = time.monotonic() + RETRY
        broker = brokers[self.asked_last]
        known = next((one for one in self.connections.values() if one.owner is None and one.broker == broker), None)
        try:
            self.asked = known or self.connect(None, broker)
            self.asked.socket.sendall(self.asks)
        except OSError:
            # It is away; another one is asked next.
            if self.asked is not None:
                self.close(self.asked)
            self.asked = None

    def send(self, lane):
        if lane in self.seeking or lane.waits_for is not None:
            return
        try:
            connection = lane.connections.get(lane.leader)
            if connection is None:
                connection = lane.connections[lane.leader] = self.connect(lane, lane.leader)
            connection.socket.sendall(lane.request)
            lane.waits_for = connection
        except OSError:
            if (connection := lane.connections.pop(lane.leader, None)) is not None:
                self.close(connection)
            self.seeking.add(lane)

    def arrived(self, connection):
        # Closed by what was handled before it in the same turn.
        if connection is None:
            return
        try:
            answer = connection.answer()
        except OSError:
            self.lost(connection)
            return
        if answer is None:
            return
        if connection.owner is None:
            self.asked = None
            self.learn(answer)
        else:
            self.told(connection.owner, answer)

    def lost(self, connection):
        self.close(connection)
        lane = connection.owner
        if lane is None:
            if self.asked is connection:
                self.asked = None
            return
        del lane.connections[connection.broker]
        if lane.waits_for is connection or lane.leader == connection.broker:
            lane.waits_for = None
            self.seeking.add(lane)

    def told(self, lane, answer):
        lane.waits_for = None
        now = time.monotonic()
        code, offset = struct.unpack_from(">hq", answer, lane.code_at)
        if code == 0:
            lane.acks.append(now)
            lane.offsets.append(offset)
            self.schedule(lane, now + self.pause)
            return
        self.codes[LOST.get(code) or AGAIN.get(code) or f"error {code}"] += 1
        if code in LOST:
            self.seeking.add(lane)
        else:
            self.schedule(lane, now + RETRY)

    def learn(self, answer):
        now = time.monotonic()
        for topic, partition, _, leader, epoch, _, _ in partitions_of(answer)[1]:
            lane = self.lanes[topic, partition]
            if lane in self.seeking and leader >= 0 and epoch >= lane.epoch:
                lane.leader, lane.epoch = leader, epoch
                self.seeking.remove(lane)
                self.schedule(lane, now)

    def unexpected(self):
        """Errors that a client does not simply try again after."""
        return {name: count for name, count in self.codes.items() if name.startswith("error ")}
