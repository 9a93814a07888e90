"""`milena log-dump` beside Kafka's own kafka-dump-log, on what Kafka wrote and on what is left of it when it is damaged.

The examples of docs/log-dump.md and of the helps are run as they stand, on what the subject wrote.
"""

import base64
import collections
import functools
import itertools
import json
import random
import re
import shutil
import signal
import subprocess
import time

import librdkafka
import peers
import records
import subject as subjects
from confluent_kafka import TopicPartition
from scenario import Skip, contains, equal, scenario, until
from scenarios import cross_open
from tools import Tools

OF_LOGS = [(), ("--deep-iteration",), ("--print-data-log",)]
OF_INDEXES = [(), ("--index-sanity-check",), ("--verify-index-only",), ("--max-message-size", "2000")]
DECODERS = {"__consumer_offsets": "--offsets-decoder", "__transaction_state": "--transaction-log-decoder"}
OPTIONS = {".log": OF_LOGS, ".index": OF_INDEXES, ".timeindex": OF_INDEXES, ".txnindex": [()], ".snapshot": [()]}


def options(path):
    """All that may be asked of a file."""
    topic = path.parent.name.rsplit("-", 1)[0]
    return OPTIONS[path.suffix] + ([(DECODERS[topic],)] if path.suffix == ".log" and topic in DECODERS else [])


def compare(tools, path, asked):
    """Fails unless both print the same; where Kafka's tool dies, the same up to there. Returns whether it died."""
    arguments = ["--files", str(path), *asked]
    code, wanted, said = tools.streams("kafka-dump-log", *arguments)
    done = subprocess.run([subjects.Milena.binary, "log-dump", *arguments], capture_output=True, timeout=60)
    found, exit_code, what = done.stdout, done.returncode, f"log-dump {' '.join(arguments)}\nKafka: {said[-600:]}\nMilena: {done.stderr[-600:]}"
    if b" data at byte " in done.stderr:
        # Java's decompressors let through some streams that ours refuse. The batches around the records must be the same.
        wanted, found, exit_code = batches(wanted), batches(found), 0
    if code == 0:
        equal(exit_code, 0, f"exit code of {what}")
        if found != wanted:
            pair = next((a, b) for a, b in itertools.zip_longest(wanted.splitlines(), found.splitlines()) if a != b)
            raise AssertionError(f"{what}\nexpected {pair[0]}\ngot      {pair[1]}")
    else:
        equal(found[:len(wanted)], wanted, f"what Kafka's tool printed before it died, {what}")
    return code != 0


def batches(output):
    """The lines that are of batches."""
    return b"\n".join(re.findall(rb"^(?:baseOffset|offset): -?\d+ .*compresscodec: .*", output, re.MULTILINE))


def damage(data, rng):
    """One to five bits, bytes or pieces of the bytes are changed, lost or added, more often near the beginning."""
    for _ in range(rng.choice([1, 1, 2, 5])):
        if not data:
            return
        at = rng.randrange(len(data) if rng.random() < 0.5 else min(len(data), 300))
        size = min(rng.choice([1, 8, 64, 4096]), len(data) - at)
        kind = rng.random()
        if kind < 0.6:
            data[at] ^= 1 << rng.randrange(8)
        elif kind < 0.7:
            data[at] = rng.randrange(256)
        elif kind < 0.8:
            del data[at:]
        elif kind < 0.9:
            data[at:at + size] = bytes(size)
        else:
            data[at:at] = rng.randbytes(rng.choice([1, 4, 30]))


@scenario(240)
def as_kafkas(place):
    """Every file of all formats and codecs with every option, and damaged copies of them: the lines of Kafka's tool."""
    if place.subject != "milena":
        raise Skip("log-dump is Milena's")
    tools = Tools(place)
    broker = place.start(cross_open.SETTINGS, kind="kafka")
    cross_open.fill(place, broker)
    broker.stop()
    files = sorted(path for path in broker.data.glob("*-*/*") if path.suffix in OPTIONS and path.stem.isdigit())
    equal({path.suffix for path in files}, set(OPTIONS), "kinds of files")
    for path in files:
        for asked in options(path):
            died = compare(tools, path, asked)
            # It dies of a batch that is larger than it was told, and of nothing else here.
            equal(died and "--max-message-size" not in asked, False, f"Kafka's tool dies of {path}")

    kinds = {}
    for path in files:
        if path.stat().st_size:
            kinds.setdefault((path.suffix, path.parent.name.rsplit("-", 1)[0]), []).append(path)
    rng, deaths = random.Random(place.options["seed"]), 0
    for number in range(place.options["damages"]):
        path = rng.choice(kinds[rng.choice(sorted(kinds))])
        # The name of the topic chooses the decoder, the files beside it are what an index is held against.
        copy = place.directory / "damaged" / path.parent.name
        shutil.rmtree(copy.parent, ignore_errors=True)
        copy.mkdir(parents=True)
        for beside in (".log", ".index", ".timeindex", path.suffix):
            if path.with_suffix(beside).exists():
                shutil.copy(path.with_suffix(beside), copy)
        victim = copy / path.name
        if rng.random() < 0.2 and victim.with_suffix(".log").exists():
            victim = victim.with_suffix(".log")
        data = bytearray(victim.read_bytes())
        damage(data, rng)
        victim.write_bytes(data)
        deaths += compare(tools, copy / path.name, rng.choice(options(path)))
    print(f"{len(files)} files alike, {place.options['damages']} damaged ones alike, of {deaths} Kafka's tool died")


def milena(*arguments, wanted=0):
    """The standard output of log-dump, which must end with the wanted code."""
    done = subprocess.run([subjects.Milena.binary, "log-dump", *map(str, arguments)], capture_output=True, timeout=120)
    equal(done.returncode, wanted, f"exit code of log-dump {' '.join(map(str, arguments))}: {done.stdout[-1500:]}{done.stderr[-1500:]}")
    return done.stdout.decode()


def field(thing, name):
    """A key or a value as Kafka's tool prints it; None for null."""
    encoded = thing.get(f"{name}Base64")
    return thing[name] if encoded is None else base64.b64decode(encoded).decode(errors="replace")


def decoded(record):
    """What Kafka's tool prints of a record of an internal topic."""
    inner = record["decoded"]
    kind, value = inner["kind"], inner["value"]
    if kind == "offsetCommit":
        key = f"offset_commit::group={inner['group']},partition={inner['topic']}-{inner['partition']}"
        payload = value and f"offset={value['offset']}" + (f",metadata={value['metadata']}" if value["metadata"] else "")
    elif kind == "groupMetadata":
        key = f"group_metadata::group={inner['group']}"
        members = value and ",".join(f"{m['memberId']}=[{', '.join(m['assignment'])}]" for m in value["members"])
        payload = value and json.dumps({"protocolType": value["protocolType"], "protocol": value["protocol"],
                                        "generationId": value["generationId"], "assignment": f"{{{members}}}"},
                                       separators=(",", ":"))
    else:
        key = f"transaction_metadata::transactionalId={inner['transactionalId']}"
        payload = value and (f"producerId:{value['producerId']},producerEpoch:{value['producerEpoch']},state={value['state']},"
                             f"partitions=[{','.join(value['partitions'])}],txnLastUpdateTimestamp={value['lastUpdateTimestamp']},"
                             f"txnTimeoutMs={value['timeoutMs']}")
    return f" key: {key} payload: {payload or '<DELETE>'}"


BATCH = ["baseOffset", "lastOffset", "count", "baseSequence", "lastSequence", "producerId", "producerEpoch",
         "partitionLeaderEpoch", "isTransactional", "isControl"]
ENTRIES = {"offsetEntry": ["offset", "position"], "timeEntry": ["timestamp", "offset"],
           "transactionEntry": ["version", "producerId", "firstOffset", "lastOffset", "lastStableOffset"]}
LAST_BATCH = ["firstSequence", "lastSequence", "lastOffset", "offsetDelta", "timestamp"]


def line_of(thing, asked):
    """The line that Kafka's tool has for a thing; None for what that tells on standard error or not at all."""
    def fields(names):
        return " ".join(f"{name}: {json.dumps(thing[name])}" for name in names)

    kind = thing["type"]
    if kind == "file":
        return f"Dumping {thing['file']}"
    if kind == "segmentStart":
        return f"Starting offset: {thing['baseOffset']}"
    if kind == "batch":
        begin = fields(BATCH) if thing["magic"] == 2 else f"offset: {thing['lastOffset']}"
        return (f"{begin} position: {thing['position']} {thing['timestampType']}: {thing['maxTimestamp']} size: {thing['sizeBytes']} "
                f"magic: {thing['magic']} compresscodec: {thing['compression'].upper()} crc: {thing['crc']} "
                f"isvalid: {json.dumps(thing['isValid'])}")
    if kind == "record":
        line = (f"| offset: {thing['offset']} {thing['timestampType']}: {thing['timestamp']} keysize: {thing['keySize']} "
                f"valuesize: {thing['valueSize']} ")
        if "headers" in thing:
            line += f"sequence: {thing['sequence']} headerKeys: [{','.join(field(h, 'key') for h in thing['headers'])}]"
        else:
            line += f"crc: {thing['crc']} isvalid: {json.dumps(thing['isValid'])}"
        if "control" in thing:
            return f"{line} endTxnMarker: {thing['control']['name']} coordinatorEpoch: {thing['control']['coordinatorEpoch']}"
        if "decoded" in thing:
            return line + decoded(thing)
        for name, told in (("key", " key: "), ("value", " payload: ")):
            if "--print-data-log" in asked and (found := field(thing, name)) is not None:
                line += told + found
        return line
    if kind in ENTRIES:
        return fields(ENTRIES[kind])
    if kind == "sanityCheck":
        return f"{thing['file']} passed sanity check."
    if kind == "producerEntry":
        begun = "None" if thing["currentTxnFirstOffset"] is None else f"Some({thing['currentTxnFirstOffset']})"
        last = fields(LAST_BATCH) if "lastOffset" in thing else ""
        return fields(["producerId", "producerEpoch", "coordinatorEpoch"]) + f" currentTxnFirstOffset: {begun} {last}"
    equal(kind in ("damage", "mismatch"), True, f"{thing} is known")
    return None


@scenario(300)
def beyond_kafkas(place):
    """JSON has every field of Kafka's tool's lines; a replica that Kafka compacted, or of other segments, is the same to diff."""
    if place.subject != "milena":
        raise Skip("log-dump is Milena's")
    tools, pair = Tools(place), cross_open.Pair(place, ["data"], {"log.cleaner.enable": "false"})
    (data,) = pair.log_dirs
    broker = pair.kafka()
    topics = cross_open.fill(place, broker)
    broker.stop()
    files = sorted(path for path in data.glob("*-*/*") if path.suffix in OPTIONS and path.stem.isdigit())
    seen = collections.Counter()
    for path in files:
        for asked in options(path):
            if "--max-message-size" in asked:
                continue  # At a batch that is larger Kafka's tool dies.
            code, wanted, said = tools.streams("kafka-dump-log", "--files", str(path), *asked)
            equal(code, 0, f"exit code of Kafka's tool: {said[-600:]}")
            things = [json.loads(line) for line in milena("--json", "--files", path, *asked).splitlines()]
            seen.update(thing["type"] for thing in things)
            lines = [line for thing in things if (line := line_of(thing, asked)) is not None]
            one = functools.partial(re.sub, "\ufffd+", "\ufffd")
            got, wanted = one("\n".join(lines)).splitlines(), one(wanted.decode(errors="replace")).splitlines()
            for number, (expected, found) in enumerate(itertools.zip_longest(wanted, got)):
                equal(found, expected, f"line {number} of {path} {asked} made of JSON")
    equal({"batch", "record", "producerEntry", *ENTRIES} - set(seen), set(), "types of things that Kafka's files did not have")
    for path in [data, *(data / f"{topic}-0" for topic in topics)]:
        milena("--summary", path)
        milena("diff", path, path)

    # The other replica: this one as it was.
    before = place.directory / "before"
    shutil.copytree(data, before)
    size = sum(path.stat().st_size for path in (data / "compacted-0").glob("*.log"))
    pair.settings["log.cleaner.enable"] = "true"
    broker = pair.kafka()
    until(60, "Kafka compacts", lambda: sum(path.stat().st_size for path in (data / "compacted-0").glob("*.log")) < size / 2)
    broker.stop()
    found = json.loads(milena("diff", "--json", before / "compacted-0", data / "compacted-0").splitlines()[0])
    equal((found["same"], found["compactedAway"]["a"], found["differingRecords"]), (True, 0, 0), f"compacted by Kafka: {found}")
    equal(found["compactedAway"]["b"] > 1000, True, f"records that Kafka compacted away: {found}")
    milena("diff", before, data)

    # Other segments: all of a partition's in one.
    joined = place.directory / "joined" / "v2-none-0"
    joined.mkdir(parents=True)
    for path in sorted((data / "v2-none-0").glob("*.log")):
        with open(joined / "00000000000000000000.log", "ab") as out:
            out.write(path.read_bytes())
    equal(milena("diff", data / "v2-none-0", joined).splitlines()[0].split(",")[0], "v2-none-0: the same records", "diff of other segments")
    # Other records with the checksum that belongs to them: those of the second batch in place of those of the first.
    (path, *_) = sorted((before / "compacted-0").glob("*.log"))
    other = place.directory / "other" / "compacted-0"
    shutil.copytree(path.parent, other)
    content = path.read_bytes()
    (first, second, *_) = [t for t in map(json.loads, milena("--json", path).splitlines()) if t["type"] == "batch"]
    equal(first["count"], second["count"], "records of the batches")
    begin, end = second["position"], second["position"] + second["sizeBytes"]
    (other / path.name).write_bytes(first["baseOffset"].to_bytes(8, "big") + content[begin + 8:end] + content[begin:])
    found = json.loads(milena("diff", "--json", path.parent, other, wanted=3).splitlines()[0])
    equal((found["same"], found["firstDifference"]["offset"], found["differingRecords"]),
          (False, first["baseOffset"], first["count"]), f"other records: {found}")
    print(f"{len(files)} files alike as JSON: {dict(seen)}")


def written_by_newer(place, broker):
    """What a broker without ZooKeeper may have in its directory: every codec, transactions, compaction, deletions, a group."""
    where = broker.bootstrap
    for codec in cross_open.CODECS:
        client = librdkafka.create(where, f"v2-{codec}", 2, segment_bytes=1 << 20)
        librdkafka.produce(where, f"v2-{codec}", records.samples(2), compression_type=codec, enable_idempotence=True)
    librdkafka.create(where, "transactions", 1, segment_bytes=1 << 20)
    producer = librdkafka.producer(where, transactional_id="writer")
    producer.init_transactions(30)
    for number in range(30):
        producer.begin_transaction()
        for i in range(20):
            producer.produce("transactions", value=f"{number}-{i}" * 1000)
        equal(producer.flush(30), 0, "records of a transaction that were not sent")
        (producer.abort_transaction if number % 3 == 1 else producer.commit_transaction)(30)
    # A transaction that stays open.
    producer.begin_transaction()
    producer.produce("transactions", value="open")
    equal(producer.flush(30), 0, "records of a transaction that were not sent")
    librdkafka.create(where, "compacted", 1, cleanup_policy="compact", segment_bytes=1 << 20, min_cleanable_dirty_ratio=0.01)
    sent = [records.Record(0, -1, records.TIME + i, f"k{i % 50}".encode(), f"{i}".encode() * 250, ()) for i in range(4000)]
    librdkafka.produce(where, "compacted", sent, batch_num_messages=50)
    cross_open.commit_offsets(where)
    # Records are deleted up to the middle of a segment, and up to the end; topics are deleted.
    librdkafka.produce(where, "v2-lz4", records.samples(2), compression_type="lz4")
    for future in client.delete_records([TopicPartition("v2-lz4", 0, 7), TopicPartition("v2-gzip", 0, -1)]).values():
        future.result(30)
    librdkafka.create(where, "gone", 3)
    for future in client.delete_topics(["gone"]).values():
        future.result(30)
    until(30, "a snapshot of the metadata", lambda: list(broker.data.glob("__cluster_metadata-0/*.checkpoint")))
    log = broker.data / "compacted-0"
    until(60, "compaction", lambda: "compacted" in (broker.data / "cleaner-offset-checkpoint").read_text() and
          sum(path.stat().st_size for path in log.glob("*.log")) < 2 << 20)


def is_sound(directory):
    """Fails unless there is nothing to find and nothing to do."""
    for words in (("verify",), ("verify", "--deep"), ("repair",)):
        told = [json.loads(line) for line in milena(*words, "--json", directory).splitlines()]
        found = [one for one in told if one.get("severity", "note") != "note" or one["type"] == "step"]
        equal(found, [], f"what {' '.join(words)} has against a sound directory")
    return told


def sound_directories(place, kind):
    if place.subject != "milena":
        raise Skip("log-dump is Milena's")
    broker = place.start({"log.cleaner.backoff.ms": "500", "log.retention.ms": "-1", "log.initial.task.delay.ms": "500",
                          "metadata.log.max.record.bytes.between.snapshots": "3000", "offsets.topic.num.partitions": "3",
                          "transaction.state.log.num.partitions": "3"}, kind=kind)
    written_by_newer(place, broker)
    # While it runs: what it writes at that moment can look torn.
    def looks_sound():
        return subprocess.run([subjects.Milena.binary, "log-dump", "verify", broker.data], capture_output=True).returncode == 0

    until(20, "a running broker's directory is sound", looks_sound)
    broker.kill()
    is_sound(broker.data)
    milena("--summary", broker.data)
    broker.start()
    librdkafka.produce(broker.bootstrap, "v2-none", records.samples(2), enable_idempotence=True)
    broker.stop()
    equal((broker.data / ".kafka_cleanshutdown").exists(), True, "the shutdown was clean")
    is_sound(broker.data)
    # The snapshots of the metadata are looked into as logs are.
    snapshot = max(broker.data.glob("__cluster_metadata-0/*.checkpoint"))
    content = bytearray(snapshot.read_bytes())
    content[len(content) // 2] ^= 1
    snapshot.write_bytes(content)
    told = [json.loads(line) for line in milena("verify", "--json", broker.data, wanted=3).splitlines()]
    equal([(one["kind"], one["file"]) for one in told if one.get("severity") == "damage"], [("metadata-snapshot", str(snapshot))],
          "a damaged snapshot")


@scenario(120)
def sound_of_kafka_3_9(place):
    """What Apache Kafka 3.9.1 wrote is sound to verify and repair: running, killed and stopped."""
    sound_directories(place, "kafka-3.9.1")


@scenario(120)
def sound_of_kafka_4_1(place):
    """What Apache Kafka 4.1.0 wrote is sound to verify and repair: running, killed and stopped."""
    sound_directories(place, "kafka-4.1.0")


# Where the examples have a log directory, a copy of it on another machine, and one that is verified and repaired.
PLACES = {"/data": "data", "/mnt/other": "other", "/var/lib/kafka": "kafka"}
BACKUPS = "/backups"


def examples():
    """The lines with `milena log-dump` of the document, of the manual and of the helps, without what is said behind them."""
    lines = [line for page in ("docs/log-dump.md", "docs/operations.md") for line in (peers.ROOT / page).read_text().splitlines()]
    for words in ([], ["verify"], ["repair"], ["diff"]):
        lines += milena(*words, "--help").partition("\nExamples:\n")[2].splitlines()
    found = [re.split(r"\s{2,}", line.strip())[0] for line in lines
             if re.match(r"\s*(milena|find .*milena) log-dump ", line)]
    return list(dict.fromkeys(example for example in found if "`" not in example))


def written_for_examples(broker):
    """What the examples take for granted: orders-0 to -3 with offsets beyond 1010, topics `t` and `longs`, a group in __consumer_offsets-7."""
    where, now = broker.bootstrap, int(time.time() * 1000)
    librdkafka.create(where, "orders", 4, segment_bytes=1 << 20)
    sent = [records.Record(i % 4, -1, now - 60_000 + i, b"customer-%d" % (i // 4 % 40), b'{"number":%d}' % i, ()) for i in range(8000)]
    librdkafka.produce(where, "orders", sent, batch_num_messages=100)
    librdkafka.create(where, "t", 1)
    librdkafka.create(where, "longs", 1)
    for topic, value in (("t", b"text"), ("longs", bytes(8))):
        librdkafka.produce(where, topic, [records.replace(record, partition=0, value=value) for record in sent[:50]])
    consumer = librdkafka.consumer(where, group_in(7, 8))
    consumer.commit(offsets=[TopicPartition("orders", 0, 5)], asynchronous=False)
    consumer.close()


def group_in(partition, count):
    """A group whose offsets lie in that partition of __consumer_offsets, by Java's hash of its name."""
    def is_there(name):
        value = functools.reduce(lambda value, letter: (31 * value + ord(letter)) & 0xffffffff, name, 0)
        return (value & 0x7fffffff) % count == partition

    return next(name for name in map("readers-{}".format, itertools.count()) if is_there(name))


def followed(command, directory, log):
    """What an example with -f prints of a batch that is appended meanwhile; Ctrl-C ends it with code 0."""
    (*_, last) = [t for t in map(json.loads, milena("--json", log).splitlines()) if t["type"] == "batch"]
    batch = bytearray(log.read_bytes()[last["position"]:])
    batch[:8] = (last["lastOffset"] + 1).to_bytes(8, "big")
    with open(directory / "followed", "w") as out:
        process = subprocess.Popen(["bash", "-c", f"exec {command}"], cwd=directory / "data", stdout=out, stderr=subprocess.STDOUT)
    try:
        # It prints nothing before that tells that it has begun.
        def appended():
            with open(log, "ab") as end:
                end.write(batch)
            batch[:8] = (int.from_bytes(batch[:8], "big") + last["count"]).to_bytes(8, "big")
            return (directory / "followed").read_text()

        until(20, f"{command} prints what is appended", appended)
        process.send_signal(signal.SIGINT)
        equal(process.wait(20), 0, f"exit code of {command} after Ctrl-C")
    finally:
        process.kill()
        process.wait()
    return (directory / "followed").read_text()


def placed(example, directory):
    """The same example in this directory."""
    for path, name in PLACES.items():
        example = re.sub(rf"(?<![\w/]){path}\b", str(directory / name), example)
    example = example.replace(BACKUPS, str(directory))
    (undo, *_) = [*sorted(directory.glob("kafka.milena-undo-*")), "nothing"]
    example = re.sub(r"\S*\.milena-undo-\d+", str(undo), example)
    example = re.sub(r"--files FILE\b", "--files longs-0/00000000000000000000.log", example)
    return example.replace("milena log-dump", f"{subjects.Milena.binary} log-dump")


@scenario(120)
def documented(place):
    """Every example of docs/log-dump.md, docs/operations.md and the helps, on what the subject wrote."""
    directory, started = place.directory, place.start({"offsets.topic.num.partitions": "8"})
    written_for_examples(started)
    started.stop()
    for name in PLACES.values():
        shutil.copytree(started.data, directory / name, ignore=shutil.ignore_patterns(".lock"))
    found = examples()
    if len(found) < 20:
        raise AssertionError(f"examples are missing: {found}")
    # What is sound is looked at first; then something is damaged, told, repaired and put back.
    repairs = [example for example in found if " repair " in example]
    log, original = directory / "kafka/orders-3/00000000000000000000.log", None
    for example in [example for example in found if example not in repairs] + repairs:
        command = placed(example, directory)
        if re.search(r" (-f|--follow) ", example):
            contains(followed(command, directory, directory / "data/orders-0/00000000000000000000.log"), "customer-")
            # The other replica has that too.
            shutil.rmtree(directory / "other")
            shutil.copytree(directory / "data", directory / "other")
            continue
        wanted, said = 0, None
        if example in repairs:
            is_undo = "--undo " in example
            if not is_undo and original is None:
                original = log.read_bytes()
                damaged = bytearray(original)
                damaged[len(damaged) // 2] ^= 1
                log.write_bytes(damaged)
            wanted = 0 if is_undo or "--apply" in example else 3
            said = "changes are undone" if is_undo else "all repaired" if "--apply" in example else "--apply does what is said"
        done = subprocess.run(["bash", "-o", "pipefail", "-c", command], cwd=directory / "data", capture_output=True, text=True, timeout=60)
        equal((done.returncode, done.stderr), (wanted, ""), f"exit code and complaints of {example}\n{done.stdout[-2000:]}")
        if said is not None:
            contains(done.stdout, said)
        elif ".severity" in example:
            equal(done.stdout, "", f"damage in a sound directory, by {example}")
        else:
            equal(bool(done.stdout), True, f"{example} prints something")
        if "--at-damage keep" in example:
            equal(log.read_bytes() in original, False, "the damaged bytes are gone")
        if example in repairs and "--undo " in example:
            equal(log.read_bytes() == bytes(damaged), True, f"{example} puts every byte back")
    print(f"{len(found)} examples")
