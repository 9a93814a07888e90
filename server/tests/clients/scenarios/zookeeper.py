"""Our client of ZooKeeper: beside the embedded tree, and through what happens to servers, connections and sessions."""

import re
import signal
import subprocess
import threading

import peers
import subject as subjects
from scenario import Skip, equal, examples, scenario, until

VERSIONS = [None, *peers.ZOOKEEPERS]
# Of tickTime 500; servers allow 1 to 10 s.
SESSION_MS = 2000


class Client:
    """Our client in a process, led line by line."""

    def __init__(self, program, *arguments):
        command = [program, *map(str, arguments)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.lines = []
        self.number = 0
        threading.Thread(target=lambda: self.lines.extend(iter(self.process.stdout.readline, "")), daemon=True).start()

    def send(self, line):
        """Asks; returns the number of the request."""
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        self.number += 1
        return self.number - 1

    def find(self, pattern):
        return next((line.strip() for line in list(self.lines) if re.match(pattern, line)), None)

    def wait(self, pattern, seconds=30):
        return until(seconds, f"{pattern!r} in {self.lines[-20:]}", lambda: self.find(pattern))

    def ask(self, line, seconds=30):
        number = self.send(line)
        return self.wait(f"{number} ", seconds).split(" ", 1)[1]

    def events(self):
        return [line.split()[1] for line in list(self.lines) if line.startswith("session ")]

    def close(self):
        self.process.kill()
        self.process.wait()


class World:
    """Servers and clients of one scenario, ended with it."""

    def __init__(self, place):
        if place.subject != "milena":
            raise Skip("the client is Milena's")
        self.place = place
        self.differential, self.program = examples("tree_differential", "zookeeper_client")
        self.parts = []

    def server(self, name, **options):
        server = subjects.ZooKeeper(self.place.directory / name, **options)
        self.parts.append(server)
        return server

    def client(self, *arguments):
        client = Client(self.program, *arguments)
        self.parts.append(client)
        return client

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for part in reversed(self.parts):
            part.close()


@scenario(300)
def same_tree(place):
    """Random operations, sessions and watches: ZooKeeper 3.4 to 3.9, the embedded tree and the simulated ensemble answer and fire alike."""
    with World(place) as world:
        for version in VERSIONS:
            server = world.server(f"zookeeper-{version}", version=version).start()
            seed = str(place.options["seed"] or 1)
            done = subprocess.run([world.differential, f"{server.connect}/a/chroot", seed, "3000"], capture_output=True,
                                  text=True, timeout=120)
            print(version, done.stdout)
            equal(done.returncode, 0, f"{version}: {done.stdout[-6000:]}{done.stderr}")
            server.close()


@scenario(180)
def a_leader_dies(place):
    """An ensemble of three loses its leader: the same session goes on elsewhere, with its nodes and watches."""
    with World(place) as world:
        ports = [(subjects.free_port(), subjects.free_port()) for _ in range(3)]
        servers = [world.server(f"server-{number}", version="3.8.4", ensemble=ports, number=number) for number in (1, 2, 3)]
        for server in servers:
            server.begin()
        until(60, "a leader", lambda: any("Mode: leader" in server.asked("srvr") for server in servers))
        connect = ",".join(server.connect for server in servers) + "/kafka"
        client = world.client(connect, 6000)
        client.ask("create /e x ephemeral")
        owner = client.ask("get /e").split()[-1]
        watching = client.send("get /w watch")
        client.wait(f"{watching} ")
        leader = next(server for server in servers if "Mode: leader" in server.asked("srvr"))
        leader.close()
        client.wait("session Disconnected")
        until(30, "connected again", lambda: client.events()[-1] == "Connected")
        equal(client.ask("get /e").split()[-1], owner, "owner of the ephemeral node")
        equal(client.ask("create /w y"), "/w", "created")
        client.wait(f"fired {watching} Created /w")
        equal(set(client.events()), {"Connected", "Disconnected"}, "events")


@scenario(180)
def expiry_is_the_servers_word(place):
    """A client that slept too long is told so; one without any server waits, and has its session still when a server is back."""
    with World(place) as world:
        server = world.server("zookeeper").start()
        client, other = world.client(server.connect, SESSION_MS), world.client(server.connect, 10000)
        client.ask("create /e x ephemeral")
        watching = client.send("get /w watch")
        client.wait(f"{watching} ")
        client.process.send_signal(signal.SIGSTOP)
        until(30, "the end of the session", lambda: other.ask("get /e") == "none")
        other.ask("create /w y")
        client.process.send_signal(signal.SIGCONT)
        until(30, "a new session", lambda: client.events()[-2:] == ["Expired", "Connected"])
        equal(client.find("fired"), None, "a watch of the session before")
        equal(client.ask("create /e x ephemeral"), "/e", "in the new session")
        owner = client.ask("get /e").split()[-1]
        server.close()
        until(30, "loss", lambda: client.events()[-1] == "Disconnected")
        for _ in range(2):
            # Each is given up after the session's time.
            equal(client.ask("set /e y"), "error the connection to the coordination service was lost", "a write that waited")
        equal(client.events()[-1], "Disconnected", "no server, no expiry")
        server.start()
        until(30, "a connection", lambda: client.events()[-1] == "Connected")
        equal(client.ask("get /e").split()[-1], owner, "owner of the ephemeral node")


@scenario(240)
def many_watches(place):
    """20,000 watches of a megabyte of paths survive a restart of the server, and tell what changed meanwhile."""
    with World(place) as world:
        options = ["-Dzookeeper.forceSync=no"]
        server = world.server("zookeeper", java_options=options).start()
        client, other = world.client(f"{server.connect}/kafka", 10000), world.client(f"{server.connect}/kafka", 10000)
        paths = [f"/topic-with-a-name-of-some-length-{number:06}" for number in range(20000)]
        for path in paths[::2]:
            other.send(f"create {path} x")
        last = other.send("get /")
        other.wait(f"{last} ", 120)
        first = client.number
        for path in paths:
            client.send(f"get {path} watch")
        client.wait(f"{client.number - 1} ", 120)
        server.close()
        server.start()
        until(60, "connections", lambda: client.events()[-1] == other.events()[-1] == "Connected")
        for number in (0, 9999, 19998, 19999):
            other.ask(f"delete {paths[number]}" if number % 2 == 0 else f"create {paths[number]} x")
            kind = "Deleted" if number % 2 == 0 else "Created"
            client.wait(f"fired {first + number} {kind} {paths[number]}$")
        equal(sum(line.startswith("fired") for line in client.lines), 4, "watches that fired")
        equal(set(client.events()), {"Connected", "Disconnected"}, "events")


@scenario(180)
def who_we_are(place):
    """By digest and by SASL: what is ours nobody else changes, what is secret nobody reads, and a wrong password is final."""
    with World(place) as world:
        jaas = place.directory / "jaas.conf"
        jaas.write_text('Server { org.apache.zookeeper.server.auth.DigestLoginModule required user_kafka="secret"; };\n')
        options = [f"-Djava.security.auth.login.config={jaas}"]
        settings = {"authProvider.1": "org.apache.zookeeper.server.auth.SASLAuthenticationProvider"}
        for name, version in (("3.5", None), ("3.9", "3.9.3")):
            server = world.server(name, version=version, settings=settings, java_options=options).start()
            anyone = world.client(server.connect, 6000)
            for number, means in enumerate((["digest", "kafka:secret"], ["sasl", "kafka", "secret"])):
                owner = world.client(server.connect, 6000, *means, "acl")
                equal(owner.ask(f"create /ours-{number} x"), f"/ours-{number}", means)
                equal(anyone.ask(f"get /ours-{number}").split()[0], "x", "readers")
                refused = f"error /ours-{number}: not permitted to who we are at ZooKeeper"
                equal(anyone.ask(f"set /ours-{number} y"), refused, "another's")
                equal(owner.ask(f"set /ours-{number} y"), "version 1", "the owner's")
                if number == 0:
                    owner.ask("create /config x")
                    owner.ask("create /config/users x")
                    equal(anyone.ask("get /config/users"),
                          "error /config/users: not permitted to who we are at ZooKeeper", "what is secret")
            impostor = world.client(server.connect, 6000, "sasl", "kafka", "wrong")
            impostor.wait("session AuthenticationFailed")
            server.close()
