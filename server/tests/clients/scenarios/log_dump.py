"""`milena log-dump` beside Kafka's own kafka-dump-log, on what Kafka wrote and on what is left of it when it is damaged."""

import base64
import collections
import functools
import itertools
import json
import random
import re
import shutil
import subprocess

import subject as subjects
from scenario import Skip, equal, scenario, until
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
