"""`milena log-dump repair` on thousands of damaged copies of what Kafka wrote: Kafka and Milena open what it makes of them."""

import json
import random
import re
import shutil
import struct
import subprocess
from pathlib import Path

import librdkafka
import records
import subject as subjects
from scenario import Skip, equal, scenario
from scenarios import cross_open

# Nothing may go but what recovery cuts.
QUIET = {"log.retention.ms": "-1", "log.cleaner.enable": "false", "log.retention.check.interval.ms": "86400000"}
CHECKPOINTS = ("recovery-point-offset-checkpoint", "replication-offset-checkpoint", "log-start-offset-checkpoint",
               "cleaner-offset-checkpoint")
PER_START = 1000


def fill(place, broker):
    """Partitions of all formats and codecs, of several segments, with transactions that were aborted."""
    cross_open.fill(place, broker)
    where = broker.bootstrap
    for codec in cross_open.CODECS:
        topic = f"segments-{codec}"
        librdkafka.create(where, topic, 1, segment_bytes=20000, index_interval_bytes=1000)
        sent = [records.Record(0, -1, records.TIME + i, b"%d" % i, random.Random(i).randbytes(60), ()) for i in range(2000)]
        librdkafka.produce(where, topic, sent, compression_type=codec, batch_num_messages=20, enable_idempotence=True)
    librdkafka.create(where, "aborted", 1, segment_bytes=14000)
    producer = librdkafka.producer(where, transactional_id="aborter")
    producer.init_transactions(30)
    for number in range(60):
        producer.begin_transaction()
        for i in range(20):
            producer.produce("aborted", value=f"{number}-{i}" * 10)
        equal(producer.flush(30), 0, "records of a transaction that were not sent")
        (producer.abort_transaction if number % 3 else producer.commit_transaction)(30)


def batches(data):
    """Where each batch of a log begins and ends."""
    at, found = 0, []
    while at + 17 <= len(data):
        size = 12 + struct.unpack_from(">i", data, at + 8)[0]
        if at + size > len(data) or size < 26:
            break
        found.append((at, at + size))
        at += size
    return found


def damage(path, rng):
    """Damages a file in one of the ways of disks; returns the ranges that are not what they were (None: all)."""
    data = bytearray(path.read_bytes())
    kind = rng.choice(["flip", "flip", "cut", "zero", "swap", "missing"])
    if kind == "missing" or not data:
        path.unlink()
        return None
    touched = []
    if kind == "flip":
        for _ in range(rng.choice([1, 1, 2, 5])):
            at = rng.randrange(len(data) if rng.random() < 0.7 else min(len(data), 70))
            data[at] ^= 1 << rng.randrange(8)
            touched.append((at, at + 1))
    elif kind == "cut":
        at = rng.randrange(len(data))
        touched.append((at, len(data)))
        del data[at:]
    else:
        page = rng.choice([512, 4096])
        pages = range((len(data) + page - 1) // page)
        one, other = (rng.choice(pages) * page for _ in range(2))
        if kind == "zero":
            data[one:one + page] = bytes(len(data[one:one + page]))
            touched.append((one, one + page))
        elif one != other and len(data) >= max(one, other) + page:
            data[one:one + page], data[other:other + page] = data[other:other + page], data[one:one + page]
            touched += [(one, one + page), (other, other + page)]
    path.write_bytes(data)
    return touched


def tree(directory):
    """Every file with its bytes."""
    return {str(path.relative_to(directory)): path.read_bytes() for path in sorted(directory.rglob("*"))
            if path.is_file() and path.name != ".lock"}


def logs(directory):
    """The logs alone: a broker that runs has indexes of 10 MB beside each."""
    return {str(path.relative_to(directory)): path.read_bytes() for path in sorted(directory.rglob("*.log"))}


def command(*words):
    done = subprocess.run([subjects.Milena.binary, "log-dump", *map(str, words)], capture_output=True, timeout=600)
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def damaged_copies(data, sources, count, rng, how):
    """Fills a log directory with damaged copies; returns what was done to each."""
    done, ends = {}, {}
    data.mkdir(parents=True)
    for number in range(count):
        source, end = rng.choice(sources)
        copy = data / f"dmg{number:04}-0"
        shutil.copytree(source, copy)
        files = sorted(path for path in copy.iterdir() if path.is_file())
        chosen = [path for path in files if path.suffix == ".log"] if rng.random() < 0.6 else files
        victim = rng.choice(chosen)
        original = victim.read_bytes()
        touched = damage(victim, rng)
        done[copy.name] = (source, victim.name, original, touched)
        ends[copy.name] = end
    (data / "meta.properties").write_text("version=0\nbroker.id=0\n")
    lines = [f"{name[:-2]} 0 {end}" for name, end in ends.items()]
    (data / "replication-offset-checkpoint").write_text("\n".join(["0", str(len(lines)), *lines, ""]))
    if how == "recovery points":
        shutil.copy(data / "replication-offset-checkpoint", data / "recovery-point-offset-checkpoint")
        compacted = [f"{name[:-2]} 0 {ends[name]}" for name, (source, *_) in done.items() if source.name == "compacted-0"]
        (data / "cleaner-offset-checkpoint").write_text("\n".join(["0", str(len(compacted)), *compacted, ""]))
    elif how == "clean":
        (data / ".kafka_cleanshutdown").touch()
    for name in CHECKPOINTS + ("meta.properties",):
        if (data / name).exists() and rng.random() < 0.3:
            damage(data / name, rng)
    return done


def undamaged(original, touched):
    """The batches of a log that no damage touched, in front of it and behind."""
    whole = batches(original)
    first = min((start for start, _ in touched), default=len(original))
    is_hit = lambda batch: any(start < batch[1] and end > batch[0] for start, end in touched)
    before = [batch for batch in whole if batch[1] <= first]
    behind = [batch for batch in whole if batch[0] >= first and not is_hit(batch)]
    return [original[start:end] for start, end in before], [original[start:end] for start, end in behind]


def kept(data, done, choice):
    """Fails unless every sound batch in front of the damage is there, byte for byte; with `keep` those behind it too."""
    lost = 0
    for name, (source, victim, original, touched) in done.items():
        after = {path.name: path.read_bytes() for path in (data / name).glob("*.log")}
        for path in sorted(source.glob("*.log")):
            if path.name != victim:
                if choice == "keep" or path.name < victim or not victim.endswith(".log") or touched is None:
                    equal(after.get(path.name) == path.read_bytes(), True, f"{name}/{path.name} is what it was, {victim} damaged")
                continue
            if touched is None:
                continue
            before, behind = undamaged(original, touched)
            found = after.get(path.name, b"")
            wanted = b"".join(before)
            equal(found[:len(wanted)] == wanted, True, f"{name}/{path.name} begins with its {len(before)} sound batches")
            if choice == "keep":
                lost += sum(batch not in found for batch in behind)
    return lost


def ends(data):
    """Log end offsets, and what `verify` still finds."""
    code, out, said = command("verify", "--json", data)
    told = [json.loads(line) for line in out.splitlines()]
    left = [one for one in told if one["type"] == "finding" and one["severity"] != "note" and one["kind"] != "gap"]
    equal((left[:3], said), ([], ""), "what verify finds in a repaired directory")
    return {Path(one["path"]).name: one["logEndOffset"] or 0 for one in told if one["type"] == "partition"}


def opens(broker, wanted):
    """Starts a broker on its directory: no record is cut, nothing goes offline, and every log ends where it did."""
    # Milena takes an empty segment behind missing offsets for one that a crash left: such a log ends earlier there.
    before = {name: data for name, data in logs(broker.data).items() if data or broker.name == "kafka"}
    wanted = {name: end for name, end in wanted.items() if broker.name == "kafka" or not empty_end(broker.data / name)}
    broker.start()
    running = logs(broker.data)
    equal([name for name in before if running.get(name) != before[name]][:5], [], f"logs that {broker.name} changed")
    broker.stop()
    after = logs(broker.data)
    equal([name for name in before if after.get(name) != before[name]][:5], [], f"logs that {broker.name} changed")
    said = Path(broker.log).read_text(errors="replace")
    bad = [line for line in said.splitlines() if re.search(r"\bERROR\b|\bFATAL\b|out of service|is offline|Truncating|[Cc]orrupt", line)]
    equal(bad[:5], [], f"complaints of {broker.name}")
    lines = (broker.data / "recovery-point-offset-checkpoint").read_text().splitlines()[2:]
    found = {f"{topic}-{number}": int(offset) for topic, number, offset in map(str.split, lines)}
    equal({name: found.get(name) for name in wanted if found.get(name) != wanted[name]}, {}, f"ends of logs in {broker.name}")


def empty_end(partition):
    segments = sorted(partition.glob("*.log"))
    return bool(segments) and segments[-1].stat().st_size == 0


def turn(place, sources, number, count, rng, brokers):
    """One directory of damaged copies: repaired, put back, repaired again and opened."""
    choice = ("cut", "keep")[number % 2]
    how = ("recover all", "clean", "recovery points")[number // 2 % 3]
    home = place.directory / f"turn{number}"
    shutil.rmtree(home, ignore_errors=True)
    data = home / "data"
    done = damaged_copies(data, sources, count, rng, how)
    damaged = tree(data)
    repair = ("repair", "--apply", "--at-damage", choice, data)
    code, out, said = command(*repair)
    equal((code in (0, 3), said), (True, ""), f"repair {choice}, {how}: {said}")
    for undo in home.glob("data.milena-undo-*"):
        code, _, said = command("repair", "--undo", undo)
        equal((code, said), (0, ""), "undo")
        shutil.rmtree(undo)
    back = tree(data)
    equal([name for name in sorted({*damaged, *back}) if damaged.get(name) != back.get(name)][:5], [], "what an undo did not restore")
    code, out, said = command(*repair)
    equal((code in (0, 3), said), (True, ""), f"repair {choice}, {how}: {said}")
    lost = kept(data, done, choice)
    wanted = ends(data)
    for kind in brokers:
        copy = home / kind / "data"
        shutil.copytree(data, copy)
        broker = subjects.subject(kind, home / kind / "home", QUIET, data=copy)
        place.started.append(broker)
        opens(broker, wanted)
        broker.close()
    shutil.rmtree(home)
    return lost


@scenario(240)
def damaged_partitions(place):
    """Damaged copies of what Kafka wrote, repaired: both brokers open them and cut nothing, and the undo restores them."""
    if place.subject != "milena":
        raise Skip("log-dump is Milena's")
    broker = place.start(cross_open.SETTINGS, kind="kafka")
    fill(place, broker)
    broker.stop()
    sources = []
    found = ends(broker.data)
    for path in sorted(broker.data.glob("*-*")):
        if path.is_dir() and any(log.stat().st_size for log in path.glob("*.log")):
            sources.append((path, found[path.name]))
    rng, left, number, lost = random.Random(place.options["seed"]), place.options["damages"] // 2, 0, 0
    while left > 0:
        count = min(left, PER_START)
        lost += turn(place, sources, number, count, rng, ("kafka", "milena"))
        left, number = left - count, number + 1
        print(f"{place.options['damages'] // 2 - left} damaged partitions of {len(sources)} repaired, opened by both brokers")
    print(f"with keep, {lost} sound batches behind damage were given up")
