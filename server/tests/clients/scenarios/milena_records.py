"""`milena produce` and `milena consume` against the broker, beside kcat and Kafka's own tools."""

import base64
import collections
import json
import os
import random
import re
import signal
import subprocess

import librdkafka
import records
import subject as subjects
from scenario import Skip, contains, equal, scenario
from tools import Tools, finished, kcat

CODECS = ("none", "gzip", "snappy", "lz4", "zstd")


def milena(place, *words, stdin=b"", wanted=0, bootstrap=None):
    return finished([subjects.Milena.binary, *words, "-b", bootstrap or place.bootstrap], stdin, 60, wanted)


def refused(place, *words, stdin=b"", wanted=3):
    """What is said on standard error by a command that must fail."""
    command = [subjects.Milena.binary, *map(str, words), "-b", place.bootstrap]
    done = subprocess.run(command, input=stdin, capture_output=True, timeout=60)
    equal(done.returncode, wanted, f"exit code of {command}: {done.stderr!r}")
    return done.stderr.decode()


def everything(place, topic, *words, **options):
    return milena(place, "consume", topic, "--from", "earliest", "--until", "end", *words, **options)


@scenario(120)
def round_trip(place):
    """What is written as JSON is read as JSON in every codec, and kcat sees the same."""
    tools = Tools(place)
    rng = random.Random(7)
    objects = [
        {"key": "k", "value": "text with \u00fc and \n", "headers": [{"key": "a", "value": "1"}, {"key": "a", "value": None}]},
        {"key": None, "value": "", "headers": []},
        {"key": "gone", "value": None, "headers": []},
        {"key_base64": base64.b64encode(bytes([255, 0])).decode(), "value_base64": base64.b64encode(rng.randbytes(700_000)).decode(),
         "headers": [{"key": "h", "value_base64": "gA=="}]},
    ] + [{"key": str(i % 7), "value": line, "headers": []} for i, line in enumerate(records.json_text().decode().splitlines()[:2000])]
    for number, one in enumerate(objects):
        one.update(partition=number % 3, timestamp=1_700_000_000_000 + number)
    lines = "\n".join(map(json.dumps, objects)).encode()
    for codec in CODECS:
        topic = place.name(codec)
        tools.create(topic, 3)
        milena(place, "produce", topic, "--format", "json", "--codec", codec, stdin=lines)
        read = [json.loads(line) for line in everything(place, topic, "--json").splitlines()]
        read.sort(key=lambda one: one["timestamp"])
        for number, one in enumerate(read):
            equal((one.pop("topic"), one.pop("offset"), one.pop("timestamp_type")), (topic, number // 3, "CreateTime"), "place")
        equal(read, objects, f"records in {codec}")
        template = "%p %o %T %K %S\n"
        ours = sorted(everything(place, topic, "-f", template).splitlines())
        theirs = kcat("-b", place.bootstrap, "-C", "-t", topic, "-o", "beginning", "-e", "-q", "-f", template.replace("\n", "\\n"))
        equal(ours, sorted(theirs.splitlines()), "what kcat reads")


@scenario(120)
def keys_go_where_kafka_puts_them(place):
    """A key's partition is that of kafka-console-producer; lines with keys, tombstones and headers."""
    tools = Tools(place)
    lines = [f"key-{number * 7919}:{number}" for number in range(300)] + ["\u00fc:umlaut", ":empty key"]
    text = "\n".join(lines).encode() + b"\n"
    kafkas, ours = place.name("kafka"), place.name("milena")
    for topic in (kafkas, ours):
        tools.create(topic, 7)
    tools.script("kafka-console-producer", "--topic", kafkas, "--property", "parse.key=true",
                 "--property", "key.separator=:", stdin=text)
    milena(place, "produce", ours, "-K", ":", stdin=text)
    template = "%p %k:%s\\n"
    equal(sorted(everything(place, ours, "-f", template).splitlines()),
          sorted(everything(place, kafkas, "-f", template).splitlines()), "partitions of keys")

    topic = place.name("one")
    tools.create(topic, 1)
    milena(place, "produce", topic, "--key", "k", "--value", "v", "-H", "source=test", "--acks", "1")
    milena(place, "produce", topic, "--key", "k", "--tombstone", "--acks", "0")
    milena(place, "produce", topic, "-K", "=", "-Z", "NULL", "-D", ";", "--no-idempotence", stdin=b"a=NULL;NULL=b")
    whole = place.directory / "whole"
    whole.write_bytes(b"line\nline\n")
    milena(place, "produce", topic, "--whole", whole)
    equal(everything(place, topic, "-f", "%o %k %s %h;", "-Z", "~"),
          "0 k v source=test;1 k ~ ;2 a ~ ;3 ~ b ;4 ~ line\nline\n ;", "records")
    equal(everything(place, topic, "--format", "hex", "--partition", "0").splitlines()[1], "0\t1\t6b\t-", "hexadecimal")


@scenario(120)
def ranges(place):
    """From and until offsets, times and ends; a count; what is out of range and what does not exist is said."""
    topic = place.name()
    Tools(place).create(topic, 2)
    for number in range(20):
        milena(place, "produce", topic, "--partition", number % 2, "--timestamp", 1_700_000_000_000 + number * 1000,
               "--value", number)
    read = lambda *words: sorted(map(int, milena(place, "consume", topic, *words).split()))
    equal(read("--from", "earliest", "--until", "end"), list(range(20)), "everything")
    equal(read("--from", "-2", "--until", "end"), [16, 17, 18, 19], "the last two of each")
    equal(read("--from", "@2023-11-14T22:13:30Z", "--until", "@1700000015000"), list(range(10, 15)), "between times")
    equal(read("--from", "3", "--until", "5", "--partition", "1"), [7, 9], "between offsets")
    equal(len(read("--from", "earliest", "--count", "5")), 5, "a count")
    equal(read("--from", "earliest", "--idle", "1s"), list(range(20)), "until nothing comes")
    contains(refused(place, "consume", topic, "--from", "11", "--until", "end"), "has no offset 11, but 0 to 10")
    contains(refused(place, "consume", topic, "--partition", "2"), "there is no partition 2")
    contains(refused(place, "consume", topic[:-1], "--until", "end"), f"did you mean {topic}")
    contains(refused(place, "consume", topic, "--from", "soon", wanted=1), "expected earliest")
    contains(refused(place, "produce", topic, "--partition", "5", "--value", "x"), "UNKNOWN_TOPIC_OR_PARTITION")
    contains(refused(place, "produce", topic, "--format", "json", stdin=b'{"value":"x"}\n{"valu":"y"}\n'),
             "standard input: record 2", "unknown field `valu`")
    contains(milena(place, "consume", topic, "--from", "-1", "--until", "end"), "x\n")


@scenario(120)
def too_large(place):
    """Batches that the broker refuses as too large are sent in halves; a record that is too large is named."""
    topic = place.name()
    Tools(place).create(topic, 1, max_message_bytes=2000)
    lines = [f"{number} {'x' * 300}" for number in range(500)]
    milena(place, "produce", topic, stdin="\n".join(lines).encode())
    equal(everything(place, topic).splitlines(), lines, "records")
    said = refused(place, "produce", topic, stdin=b"y\n" + b"z" * 3000)
    contains(said, "MESSAGE_TOO_LARGE")


@scenario(150)
def committed(place):
    """Who reads committed records sees none of an aborted transaction and stops before an open one (Apache Kafka's, always)."""
    broker = place.start(kind="kafka", name="kafka")
    where, topic = broker.bootstrap, place.name()
    librdkafka.create(where, topic, 1)
    producer = librdkafka.producer(where, transactional_id="writer")
    producer.init_transactions(30)
    for number, end in enumerate([producer.commit_transaction, producer.abort_transaction, producer.commit_transaction, None]):
        producer.begin_transaction()
        for i in range(10):
            producer.produce(topic, value=f"{number}-{i}")
        equal(producer.flush(30), 0, "records that were not sent")
        if end:
            end(30)
    read = lambda level: [line[0] for line in everything(place, topic, "--isolation-level", level, bootstrap=where).split()]
    equal(read("read-committed"), ["0"] * 10 + ["2"] * 10, "committed records")
    equal(read("read-uncommitted"), [c for c in "0123" for _ in range(10)], "all records")


@scenario(240)
def a_broker_dies(place):
    """Three Apache brokers, of which a leader is killed while records are written: each is read once, and described are what is left."""
    if place.subject != "milena":
        raise Skip("the brokers are Kafka's either way")
    zookeeper = subjects.ZooKeeper(place.directory / "zookeeper")
    place.started.append(zookeeper)
    zookeeper.start()
    brokers = [place.start({"broker.id": number}, kind="kafka", name=f"kafka-{number}", zookeeper=zookeeper) for number in range(3)]
    where = ",".join(broker.bootstrap for broker in brokers)
    topic = place.name()
    milena(place, "topics", "create", topic, "-p", 6, "-r", 3, "-c", "min.insync.replicas=2", bootstrap=where)
    lines = [f"record {number}" for number in range(30_000)]
    command = [subjects.Milena.binary, "produce", topic, "--acks", "all", "--timeout", "60s", "-b", where]
    producing = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    for number, line in enumerate(lines):
        producing.stdin.write(line + "\n")
        if number == len(lines) // 2:
            producing.stdin.flush()
            brokers[0].process.end(signal.SIGKILL, 30)
    _, said = producing.communicate(timeout=120)
    equal((producing.returncode, said), (0, ""), "produce")
    read = milena(place, "consume", topic, "--from", "earliest", "--until", "end", "-f", "%s\n", bootstrap=where)
    read = collections.Counter(read.splitlines())
    equal(({line: count for line, count in read.items() if count > 1}, sorted(set(lines) - set(read))), ({}, []),
          "records that are read twice, and not")
    described = [json.loads(line) for line in milena(place, "topics", "describe", topic, "--under-replicated", "--json",
                                                     bootstrap=where).splitlines()]
    equal(len(described) > 0, True, "partitions that lack the dead broker")
    alive = milena(place, "brokers", "--json", bootstrap=where).splitlines()
    equal(sorted(json.loads(line)["id"] for line in alive), [1, 2], "brokers")


@scenario(120)
def help_examples(place):
    """Every example of `milena produce --help` and `milena consume --help` does what it says, without a complaint."""
    directory = place.directory / "shell"
    (directory / "bin").mkdir(parents=True)
    (directory / "bin" / "milena").symlink_to(subjects.Milena.binary)
    for name, content in {"lines.txt": "one\ntwo\n", "users.txt": "17:ada\n18:bob\n", "cat.jpg": "\x00cat", "dog.jpg": "\x00dog",
                          "more.txt": "19:eve\n"}.items():
        (directory / name).write_text(content)
    environment = {**os.environ, "PATH": f"{directory / 'bin'}:{os.environ['PATH']}", "MILENA_BOOTSTRAP_SERVER": place.bootstrap}
    environment.pop("KAFKA_BOOTSTRAP_SERVERS", None)
    for topic in ("greetings", "users", "a", "orders-eu"):
        milena(place, "produce", place.name(topic), "--partition", "0", stdin=b"".join(b"%d\n" % i for i in range(30)))
    count = 0
    for command in ("produce", "consume"):
        text = finished([subjects.Milena.binary, command, "--help"])
        examples = re.search(r"\nExamples:\n(.*?)(\n\n|\Z)", text, re.S).group(1)
        for line in re.findall(r"^  (\S.*?)(?:   +\S.*)?$", examples, re.M):
            words = line if "--until" in line or "--count" in line or command == "produce" else f"timeout -s INT 2 {line}"
            words = re.sub(r"(?<= )(greetings|users|images|[ab])(?= |$)|(?<=')(orders-\*)(?=')",
                           lambda topic: place.name(topic[0]), words)
            done = subprocess.run(["bash", "-c", words], cwd=directory, env=environment, capture_output=True, timeout=60)
            # 124: it had to be ended, as those who read on and on have.
            said = re.sub(rb"milena: topic \S+ was not there; the broker made it .*\n", b"", done.stderr)
            equal((done.returncode in ((0, 124) if "timeout" in words else (0,)), said), (True, b""), line)
            count += 1
    equal(count >= 15, True, f"{count} examples")
