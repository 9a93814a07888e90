"""The means of the client tests: packages, libraries and jars, installed where they are missing.

Everything comes from Debian, PyPI, npm and Maven by their ordinary clients. All but the Debian packages is kept, caches
included, in `.peers` at the root of the checkout (`$MILENA_PEERS` names another place). What is installed is said; what
cannot be installed is said with the command that would. `python3 peers.py` does the whole set-up and nothing else.
"""

import fcntl
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import venv
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
HOME = Path(os.environ.get("MILENA_PEERS") or ROOT / ".peers").resolve()

PYTHON_LIBRARIES = ["kafka-python==2.3.3", "confluent-kafka==2.11.1", "lz4==4.4.4", "python-snappy==0.7.3",
                    "zstandard==0.23.0", "crc32c==2.7.1"]
NODE_LIBRARIES = ["kafkajs@2.2.4", "kafkajs-snappy@1.1.0", "kafkajs-lz4@2.0.0-beta.0"]
KAFKA = "2.7.2"
JAVA_CLIENTS = ["1.1.1", "2.7.2", "3.9.1", "4.1.0"]
# Newer brokers, without ZooKeeper, that our command line is tried against; each with what it logs by.
NEWER_KAFKAS = {"3.9.1": "org.slf4j:slf4j-reload4j:1.7.36", "4.1.0": "org.apache.logging.log4j:log4j-slf4j-impl:2.24.3"}

# Servers of ZooKeeper beside the 3.5.9 that comes with Kafka; each with what it needs and does not bring.
ZOOKEEPERS = {
    "3.4.14": [],
    "3.8.4": ["io.dropwizard.metrics:metrics-core:4.1.12.1", "org.xerial.snappy:snappy-java:1.1.10.5"],
    "3.9.3": ["io.dropwizard.metrics:metrics-core:4.1.12.1", "org.xerial.snappy:snappy-java:1.1.10.5",
              "org.slf4j:slf4j-nop:1.7.30"],
}


class PeerError(Exception):
    """Something that the tests need cannot be had; the text says what to do."""


def say(text):
    print(text, flush=True)


def run(command, what, seconds=300, attempts=1, **options):
    """Runs a command to its end, again where it failed and may be tried again; what it does not do in time has failed."""
    command = [str(word) for word in command]
    for attempt in range(1, attempts + 1):
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                   text=True, start_new_session=True, **options)
        try:
            output, _ = process.communicate(timeout=seconds)
            failure = f"failed with {process.returncode}"
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            output, _ = process.communicate()
            failure = f"was not done in {seconds} s"
        if failure == "failed with 0":
            return output
        if attempt < attempts:
            say(f"{what} {failure}, once more: {output[-300:]}")
    raise PeerError(f"{what} {failure}: {' '.join(command)}\n{output[-4000:]}")


def debian_packages():
    lines = (HERE / "debian-packages").read_text().splitlines()
    wanted = [line.split() for line in lines if not line.startswith("#")]
    missing = sorted({package for command, package in wanted if shutil.which(command) is None})
    if not missing:
        return
    by_hand = f"    sudo apt-get install {' '.join(missing)}"
    if shutil.which("apt-get") is None:
        raise PeerError(f"the client tests need these packages (Debian's names): {' '.join(missing)}")
    get = ["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-q", "-o", "Acquire::Retries=3", "-o",
           "Acquire::http::Timeout=30", "-o", "DPkg::Lock::Timeout=120"]
    if os.geteuid() != 0:
        if shutil.which("sudo") is None or subprocess.run(["sudo", "-n", "true"], capture_output=True).returncode:
            raise PeerError(f"the client tests need Debian packages; install them with\n{by_hand}")
        get = ["sudo", "-n", *get]
    say(f"installing Debian packages: {' '.join(missing)}")
    run([*get, "update"], "apt-get update")
    run([*get, "install", "-y", "--no-install-recommends", *missing], "apt-get install", seconds=600)


def once(name, recipe, build):
    """Builds the directory `name` unless it was built from the same recipe before."""
    target = HOME / name
    mark = target / ".built"
    wanted = hashlib.sha256(repr(recipe).encode()).hexdigest()
    if mark.exists() and mark.read_text() == wanted:
        return target
    HOME.mkdir(parents=True, exist_ok=True)
    with open(HOME / ".lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"another process sets up in {HOME}; waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        if mark.exists() and mark.read_text() == wanted:
            return target
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        say(f"installing into {target}: {recipe if isinstance(recipe, str) else ' '.join(recipe)}")
        build(target)
        mark.write_text(wanted)
    return target


def python():
    """A Python with the client libraries."""

    def build(target):
        venv.create(target, with_pip=True)
        run([target / "bin/pip", "--cache-dir", HOME / "cache/pip", "install", "-q", "--timeout", "30", "--retries", "3",
             *PYTHON_LIBRARIES], "pip", attempts=2)

    return once("python", [sys.version.split()[0], *PYTHON_LIBRARIES], build) / "bin/python"


def node():
    """A directory whose node_modules has the client libraries."""

    def build(target):
        (target / "package.json").write_text('{"private": true}')
        run(["npm", "install", "--silent", "--no-audit", "--no-fund", "--cache", HOME / "cache/npm",
             "--fetch-timeout", "30000", "--fetch-retries", "3", *NODE_LIBRARIES], "npm", attempts=2, cwd=target)

    return once("node", NODE_LIBRARIES, build)


def jars(name, artifacts):
    """A directory with these Maven artifacts and all that they need at run time."""

    def build(target):
        dependencies = "".join(
            "<dependency><groupId>{}</groupId><artifactId>{}</artifactId><version>{}</version></dependency>".format(
                *artifact.split(":")) for artifact in artifacts)
        (target / "pom.xml").write_text(
            '<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>'
            "<groupId>milena</groupId><artifactId>peers</artifactId><version>1</version><packaging>pom</packaging>"
            f"<dependencies>{dependencies}</dependencies></project>")
        # Maven's own limit on a read is half an hour. Two names: that of Maven 3.8, and that of 3.9 and later.
        limits = ["-Dmaven.wagon.rto=30000", "-Daether.connector.requestTimeout=30000"]
        run(["mvn", "-B", "-q", *limits, f"-Dmaven.repo.local={HOME}/cache/maven", "dependency:copy-dependencies",
             "-DincludeScope=runtime", f"-DoutputDirectory={target}"], "mvn", attempts=2, cwd=target)

    return once(name, artifacts, build)


def kafka():
    """The jars of Apache Kafka's broker, its tools and ZooKeeper."""
    return jars(f"kafka-{KAFKA}", [f"org.apache.kafka:kafka_2.12:{KAFKA}", f"org.apache.kafka:kafka-tools:{KAFKA}",
                                   "org.slf4j:slf4j-log4j12:1.7.30"])


def newer_kafka(version):
    """The jars of a broker that needs no ZooKeeper."""
    return jars(f"kafka-{version}", [f"org.apache.kafka:kafka_2.13:{version}", NEWER_KAFKAS[version]])


def zookeeper(version):
    """The jars of a server of ZooKeeper."""
    return jars(f"zookeeper-{version}", [f"org.apache.zookeeper:zookeeper:{version}", *ZOOKEEPERS[version]])


def compiled(name, source, folder):
    """The class path of one of our Java programs, compiled against the jars of a folder."""
    source = HERE / source
    recipe = f"{source.name} {hashlib.sha256(source.read_bytes()).hexdigest()}"
    classes = once(name, recipe, lambda target: run(
        ["javac", "-nowarn", "-proc:none", "-Xlint:none", "-cp", f"{folder}/*", "-d", target, source], "javac"))
    return f"{classes}:{folder}/*"


def java_client(version):
    """The class path of our driver with one version of the Java client."""
    folder = jars(f"java-{version}", [f"org.apache.kafka:kafka-clients:{version}", "org.slf4j:slf4j-nop:1.7.30"])
    return compiled(f"driver-{version}", "Driver.java", folder)


def java_load():
    """The class path of the program that produces and consumes with the Java client of Kafka's release until it is told to end."""
    folder = jars(f"java-{KAFKA}", [f"org.apache.kafka:kafka-clients:{KAFKA}", "org.slf4j:slf4j-nop:1.7.30"])
    return compiled("java-load", "Load.java", folder)


def tool_runner():
    """The class path of Kafka's tools with the program that runs many of them in one JVM."""
    return compiled("tool-runner", "ToolRunner.java", kafka())


def judge():
    """The class path of the program that reads bytes by Kafka's own classes."""
    return compiled("judge", "Judge.java", kafka())


def all_of_them():
    debian_packages()
    python()
    node()
    tool_runner()
    judge()
    java_load()
    for version in JAVA_CLIENTS:
        java_client(version)
    for version in NEWER_KAFKAS:
        newer_kafka(version)
    for version in ZOOKEEPERS:
        zookeeper(version)


if __name__ == "__main__":
    try:
        all_of_them()
    except PeerError as error:
        sys.exit(str(error))
