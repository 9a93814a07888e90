"""`milena log-dump` beside Kafka's own kafka-dump-log, on what Kafka wrote and on what is left of it when it is damaged."""

import itertools
import random
import re
import shutil
import subprocess

import subject as subjects
from scenario import Skip, equal, scenario
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
