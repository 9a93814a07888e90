"""The clients that are programs: Kafka's tools, kcat, and the Node and Java drivers.

`Tools.run` runs a tool inside the shared JVM of ToolRunner.java, `Tools.script` as a user does, in a JVM of its own.
"""

import re
import socket
import struct
import subprocess
from pathlib import Path

import peers
import records

CLASSES = {
    "kafka-topics": "kafka.admin.TopicCommand",
    "kafka-configs": "kafka.admin.ConfigCommand",
    "kafka-consumer-groups": "kafka.admin.ConsumerGroupCommand",
    "kafka-log-dirs": "kafka.admin.LogDirsCommand",
    "kafka-delete-records": "kafka.admin.DeleteRecordsCommand",
    "kafka-reassign-partitions": "kafka.admin.ReassignPartitionsCommand",
    "kafka-leader-election": "kafka.admin.LeaderElectionCommand",
    "kafka-preferred-replica-election": "kafka.admin.PreferredReplicaLeaderElectionCommand",
    "kafka-broker-api-versions": "kafka.admin.BrokerApiVersionsCommand",
    "kafka-acls": "kafka.admin.AclCommand",
    "kafka-leader-election": "kafka.admin.LeaderElectionCommand",
    "kafka-reassign-partitions": "kafka.admin.ReassignPartitionsCommand",
    "kafka-get-offset-shell": "kafka.tools.GetOffsetShell",
    "kafka-console-producer": "kafka.tools.ConsoleProducer",
    "kafka-console-consumer": "kafka.tools.ConsoleConsumer",  # by `script` only: it counts in a static field
    "kafka-consumer-perf-test": "kafka.tools.ConsumerPerformance",
    "kafka-producer-perf-test": "org.apache.kafka.tools.ProducerPerformance",
    "kafka-verifiable-producer": "org.apache.kafka.tools.VerifiableProducer",
    "kafka-verifiable-consumer": "org.apache.kafka.tools.VerifiableConsumer",
    "kafka-dump-log": "kafka.tools.DumpLogSegments",
}
JVM = ["java", "-Xmx256M", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]


def finished(command, stdin=None, seconds=100, wanted=0):
    """Runs a program to its end; returns stdout, and fails with all output on another exit code."""
    done = subprocess.run([str(word) for word in command], input=stdin or b"", capture_output=True, timeout=seconds)
    if done.returncode != wanted:
        raise AssertionError(f"exit code {done.returncode} of {' '.join(map(str, command))[:2000]}\n"
                             f"{done.stdout[-3000:].decode(errors='replace')}\n{done.stderr[-3000:].decode(errors='replace')}")
    return done.stdout.decode(errors="surrogateescape")


class Tools:
    """Kafka's command line tools against one broker."""

    def __init__(self, place, bootstrap=None):
        self.bootstrap = bootstrap or place.bootstrap
        self.port = place.tool_port
        self.log4j = next(parent / "tools-log4j.properties" for parent in place.directory.parents
                          if (parent / "tools-log4j.properties").exists())

    def call(self, tool, *arguments, stdin=b""):
        """(exit code, output) of a tool in the shared JVM."""
        code, _, output = self.streams(tool, *arguments, stdin=stdin)
        return code, output.decode(errors="replace")

    def streams(self, tool, *arguments, stdin=b""):
        """(exit code, standard output, all output) of a tool in the shared JVM."""
        arguments = [str(argument) for argument in arguments]
        with socket.create_connection(("127.0.0.1", self.port)) as connection:
            connection.settimeout(110)
            for part in [CLASSES[tool].encode(), str(len(arguments)).encode(), *(a.encode() for a in arguments), stdin]:
                connection.sendall(struct.pack(">i", len(part)) + part)
            answer = connection.makefile("rb").read()
        code, size = struct.unpack(">ii", answer[:8])
        return code, answer[8:8 + size], answer[8 + size:]

    def run(self, tool, *arguments, stdin=b"", wanted=0, server=True):
        """The output of a tool in the shared JVM, which must end with the wanted code (None: any)."""
        where = ["--bootstrap-server", self.bootstrap] if server else []
        code, output = self.call(tool, *where, *arguments, stdin=stdin)
        if wanted is not None and code != wanted:
            raise AssertionError(f"exit code {code} of {tool} {arguments}\n{output}")
        return output

    def script(self, tool, *arguments, stdin=b"", seconds=100, server=True):
        """The stdout of a tool that runs by itself."""
        where = ["--bootstrap-server", self.bootstrap] if server else []
        return finished([*JVM, f"-Dlog4j.configuration=file:{self.log4j}", "-cp", f"{peers.kafka()}/*", CLASSES[tool],
                         *where, *arguments], stdin, seconds)

    def create(self, topic, partitions=1, **settings):
        more = [word for key, value in settings.items() for word in ("--config", f"{key.replace('_', '.')}={value}")]
        return self.run("kafka-topics", "--create", "--topic", topic, "--partitions", partitions,
                        "--replication-factor", 1, *more)

    def dump(self, *directories):
        """What kafka-dump-log complains about in the files of log directories: a sorted list of `partition/file: line`."""
        complaints = []
        for directory in map(Path, directories):
            partitions = [path for path in directory.glob("*-[0-9]*") if not path.name.endswith("-delete")]
            files = sorted(path for one in partitions for pattern in ("*.log", "*.index") for path in one.glob(pattern))
            runs = [files[at:at + 100] for at in range(0, len(files), 100)]
            # Of a time index it does not say which one it complains about.
            runs += [[path] for one in sorted(partitions) for path in sorted(one.glob("*.timeindex"))]
            for part in runs:
                about = f"{part[0].parent.name}/{part[0].name}: " if len(part) == 1 else ""
                output = self.run("kafka-dump-log", "--files", ",".join(map(str, part)), "--deep-iteration",
                                  server=False, wanted=None)
                for line in map(str.strip, output.splitlines()):
                    known = re.match(r"Dumping|Starting offset|(base|)[oO]ffset: |\| offset|timestamp: |$|.* offset: \d+ |"
                                     r"The following indexed offsets are not found in the log", line)
                    if not known or "isvalid: false" in line:
                        complaints.append(about + line.replace(f"{directory}/", ""))
        return sorted(complaints)


def kcat(*arguments, stdin=b"", seconds=60):
    return finished(["kcat", *arguments], stdin, seconds)


class Driver:
    """A program that takes commands from stdin; see Driver.java."""

    def __init__(self, command, directory):
        self.command = command
        self.directory = Path(directory)

    def run(self, *commands, seconds=150):
        """Sends commands (tuples of words); returns the lines of each. Fails at the first that failed."""
        stdin = "".join("\t".join(map(str, words)) + "\n" for words in commands).encode()
        done = subprocess.run([str(word) for word in self.command], input=stdin, capture_output=True, timeout=seconds)
        answers, lines = [], []
        for line in done.stdout.decode().splitlines():
            if line == "ok":
                answers.append(lines)
                lines = []
            elif line.startswith("failed: "):
                raise AssertionError(f"{commands[len(answers)]} {line}\n{done.stderr.decode(errors='replace')[-4000:]}")
            else:
                lines.append(line)
        if len(answers) != len(commands):
            raise AssertionError(f"{commands[len(answers)]}: no answer, exit code {done.returncode}\n"
                                 f"{done.stdout[-500:].decode()}\n{done.stderr.decode(errors='replace')[-4000:]}")
        return answers

    def round_trip(self, topic, group, sent, what, produce=(), consume=(), **differences):
        """Produces and consumes the records through the driver; compares them, and what the acks say."""
        path = records.write(self.directory / f"{topic}.sent", sent)
        back = self.directory / f"{topic}.read"
        acks, _ = self.run(("produce", topic, path, *produce),
                           ("consume", topic, len(sent), back, f"group.id={group}", *consume))
        got = records.load(back)
        records.compare(sent, got, what, **differences)
        if sorted(f"{r.partition} {r.offset}" for r in got) != sorted(acks):
            raise AssertionError(f"{what}: acked {sorted(acks)}, read others")
        return got


def java(place, version, bootstrap=None):
    return Driver(["java", "-Xmx512M", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", peers.java_client(version),
                   "Driver", bootstrap or place.bootstrap], place.directory)


def node(place, bootstrap=None):
    return Driver(["node", peers.HERE / "driver.js", peers.node() / "node_modules", bootstrap or place.bootstrap],
                  place.directory)
