"""ZooKeeper from outside: a client of a few lines, and a proxy that ends the session of whoever talks through it.

The wire is jute: big-endian numbers, strings and buffers with their length. Sources: `ClientCnxn.java`, `zookeeper.jute`.
"""

import socket
import struct
import threading
import time

from scenario import until

NO_PASSWORD = bytes(16)
OPEN_UNSAFE = struct.pack(">ii", 1, 31) + struct.pack(">i", 5) + b"world" + struct.pack(">i", 6) + b"anyone"
CREATE, DELETE, EXISTS, GET_DATA, SET_DATA, GET_CHILDREN, PING, MULTI, CLOSE = 1, 2, 3, 4, 5, 8, 11, 14, -11
NO_NODE = -101


class ZnodeError(Exception):
    """ZooKeeper refused; `code` says why."""

    def __init__(self, path, code):
        super().__init__(f"{path}: ZooKeeper's code {code}")
        self.code = code


def buffer(data):
    return struct.pack(">i", -1) if data is None else struct.pack(">i", len(data)) + data


def text(string):
    return buffer(string.encode())


def shut(end):
    try:
        end.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass


class Stat:
    """What ZooKeeper knows of a node beside its data."""

    def __init__(self, raw):
        (self.czxid, self.mzxid, self.ctime, self.mtime, self.version, _, _, self.owner, _, _, _) = struct.unpack(
            ">qqqqiiiqiiq", raw)


class Znodes:
    """A client; with another's session, if its id and password are given. Its own it renews when it was not used for long."""

    def __init__(self, server, session=0, password=NO_PASSWORD):
        self.server = server
        self.identity = (session, password)
        self.connection = None
        self.used = 0
        self.xid = 0

    def open(self):
        # It answers words before it has sessions.
        until(30, "a session with ZooKeeper", self.opened)

    def opened(self):
        """Whether it takes the session."""
        try:
            self.connection = socket.create_connection((self.server.host, self.server.port), timeout=30)
            session, password = self.identity
            self.send(struct.pack(">iqiq", 0, 0, 10000, session) + buffer(password) + b"\0")
            self.receive()
        except OSError:
            return False
        return True

    def send(self, body):
        self.connection.sendall(struct.pack(">i", len(body)) + body)

    def receive(self):
        size = struct.unpack(">i", self.exactly(4))[0]
        return self.exactly(size)

    def exactly(self, size):
        data = b""
        while len(data) < size:
            more = self.connection.recv(size - len(data))
            if not more:
                raise OSError("ZooKeeper closed the connection")
            data += more
        return data

    def ask(self, kind, path, body):
        if time.monotonic() - self.used > 3:
            self.open()
        self.used = time.monotonic()
        self.xid += 1
        self.send(struct.pack(">ii", self.xid, kind) + body)
        answer = self.receive()
        code = struct.unpack_from(">i", answer, 12)[0]
        if code:
            raise ZnodeError(path, code)
        return answer[16:]

    def get(self, path):
        """Data and stat, or none."""
        try:
            answer = self.ask(GET_DATA, path, text(path) + b"\0")
        except ZnodeError as error:
            if error.code == NO_NODE:
                return None
            raise
        size = struct.unpack_from(">i", answer)[0]
        return (answer[4:4 + size] if size >= 0 else None), Stat(answer[4 + max(size, 0):4 + max(size, 0) + 68])

    def data(self, path):
        found = self.get(path)
        return found and found[0]

    def children(self, path):
        answer = self.ask(GET_CHILDREN, path, text(path) + b"\0")
        count, at, names = struct.unpack_from(">i", answer)[0], 4, []
        for _ in range(count):
            size = struct.unpack_from(">i", answer, at)[0]
            names.append(answer[at + 4:at + 4 + size].decode())
            at += 4 + size
        return sorted(names)

    def create(self, path, data, ephemeral=False):
        self.ask(CREATE, path, text(path) + buffer(data) + OPEN_UNSAFE + struct.pack(">i", 1 if ephemeral else 0))

    def set(self, path, data):
        self.ask(SET_DATA, path, text(path) + buffer(data) + struct.pack(">i", -1))

    def below(self, path):
        """Paths and data of everything below a path, and of itself."""
        found = {path or "/": self.data(path or "/")}
        for child in self.children(path or "/"):
            found |= self.below(f"{path}/{child}")
        return found

    def end(self):
        """Ends the session."""
        self.open()
        self.xid += 1
        self.send(struct.pack(">ii", self.xid, CLOSE))
        self.receive()
        self.connection.close()


class Deletion(Znodes):
    """Waits for a node to be deleted, by a watch; `at` is then the monotonic time of it, and `clock_ms` that of the clock."""

    def __init__(self, server, path):
        super().__init__(server)
        self.at = self.clock_ms = None
        self.ask(EXISTS, path, text(path) + b"\1")
        self.connection.settimeout(2)
        threading.Thread(target=self.wait, daemon=True).start()

    def wait(self):
        while self.at is None:
            try:
                answer = self.receive()
                # That of a watch; it sees nothing of this node but its deletion: nobody writes it again.
                if struct.unpack_from(">i", answer)[0] == -1:
                    self.at, self.clock_ms = time.monotonic(), time.time() * 1000
            except socket.timeout:
                self.send(struct.pack(">ii", -2, PING))
        self.connection.close()


def password(session):
    """The password that ZooKeeper gave a session, which it makes of the session's number (`SessionTrackerImpl`, `java.util.Random`)."""
    mask = (1 << 48) - 1
    seed = ((session ^ 0xB3415C00) ^ 0x5DEECE66D) & mask
    words = b""
    for _ in range(4):
        seed = (seed * 0x5DEECE66D + 0xB) & mask
        words += struct.pack("<I", seed >> 16)
    return words


def expire(server, session):
    """Ends somebody's session as its own client would: ZooKeeper then tells that one that it is over."""
    until(30, "the end of a session", lambda: expired(server, session))


def expired(server, session):
    """Whether it is over. Whose session it is takes it back at once, so it is taken and ended in one breath, perhaps in vain."""
    taken = struct.pack(">iqiq", 0, 0, 10000, session) + buffer(password(session)) + b"\0"
    ended = struct.pack(">ii", 1, CLOSE)
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        try:
            connection.sendall(buffer(taken) + buffer(ended))
            answers = connection.makefile("rb").read()
        except OSError:
            return False
    # The first answer has the session's number, which is 0 if there is none any more; the second says that it is ended.
    (size,) = struct.unpack_from(">i", answers) if answers else (0,)
    return size > 0 and (struct.unpack_from(">q", answers, 12)[0] == 0 or len(answers) > 4 + size)


class Proxy:
    """Between a broker and its ZooKeeper: knows the broker's session, and can end it, cut the wire, or swallow what goes over it."""

    def __init__(self, server, host="127.0.0.1"):
        self.server = server
        self.host = host
        self.identity = None
        self.is_cut = False
        self.mutes = frozenset()
        self.swallowed = {"up": 0, "down": 0}
        self.pairs = []
        self.listener = socket.create_server((host, 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    @property
    def connect(self):
        return f"{self.host}:{self.port}"

    def accept(self):
        while True:
            try:
                near, _ = self.listener.accept()
            except OSError:
                return
            if self.is_cut:
                near.close()
                continue
            try:
                far = socket.create_connection((self.server.host, self.server.port))
            except OSError:
                near.close()
                continue
            self.pairs.append((near, far))
            threading.Thread(target=self.carry, args=(near, far, "up", None), daemon=True).start()
            threading.Thread(target=self.carry, args=(far, near, "down", self.learn), daemon=True).start()

    def learn(self, first):
        """The first answer of a server: version, timeout, session, password."""
        if len(first) >= 40:
            session = struct.unpack_from(">q", first, 12)[0]
            if session:
                self.identity = (session, first[24:40])

    def carry(self, source, target, way, learn):
        try:
            while data := source.recv(65536):
                if way in self.mutes:
                    self.swallowed[way] += len(data)
                    continue
                if learn:
                    learn(data)
                    learn = None
                target.sendall(data)
        except OSError:
            pass
        for end in (source, target):
            shut(end)

    def expire(self):
        """Ends the session as its own client would: ZooKeeper then tells the broker that it is over."""
        session, password = self.identity
        # The broker must not take it back meanwhile.
        self.is_cut = True
        Znodes(self.server, session, password).end()
        self.is_cut = False

    def mute(self, *ways):
        """From now on swallows what goes up (to ZooKeeper) or down, and leaves the connections open; with no way named, that ends,
        and so do the connections, which have lost bytes."""
        had, self.mutes = self.mutes, frozenset(ways)
        if had and not ways:
            self.drop_connections()

    def cut(self, is_cut=True):
        """No connection from now on, or again."""
        self.is_cut = is_cut
        if is_cut:
            self.drop_connections()

    def drop_connections(self):
        pairs, self.pairs = self.pairs, []
        for pair in pairs:
            for end in pair:
                shut(end)

    def close(self):
        self.listener.close()
        self.cut()


class Dam(Proxy):
    """Lets so many writes through, and nothing that its client says after them."""

    def __init__(self, server, writes):
        super().__init__(server)
        self.writes = writes
        self.is_reached = threading.Event()

    def carry(self, source, target, way, learn):
        if way == "down":
            return super().carry(source, target, way, learn)
        stream = source.makefile("rb")
        try:
            while size := stream.read(4):
                frame = stream.read(struct.unpack(">i", size)[0])
                if struct.unpack_from(">i", frame, 4)[0] == MULTI:
                    self.writes -= 1
                if self.writes < 0:
                    self.is_reached.set()
                    return None
                target.sendall(size + frame)
        except (OSError, struct.error):
            pass
        for end in (source, target):
            shut(end)
        return None
