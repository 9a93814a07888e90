"""What must be true of a run, judged from the ledger, the reads and the files; pure: nothing here talks to a broker.

Labels: A1 an acked record is at its offset. A2 what was refused for certain is in no log. A3 each record is there at most once; in
two epochs of its producer it is `resent`. A4 the records of a producer in a partition stand in the order of its sends. A5 an offset
never holds two values, in any read of any client. A6 who reads by assignment sees each offset once, in order, without a gap. A7 what a
group has committed never goes back. A10 payload, key, header and timestamp are as sent. A11 replicas are identical. A12 it goes on:
every send has an outcome, every record is read by every group. A0 nobody sent what is there. (A8 is for transactions; A9 is
checked in the simulator.)
"""

from collections import defaultdict
from dataclasses import dataclass, field


@dataclass
class Evidence:
    """All that is known at the end of a run. `log`: (topic, partition) -> [(offset, producer, counter, timestamp, mark)], from the
    files. `reads`: {reader: the same} of readers at the end. `commits`: (group, topic, partition) -> [(offset, ms)] in the order
    of the log. `divergence`: text for each pair of replicas that differ."""

    producers: dict
    consumers: dict
    log: dict
    reads: dict = field(default_factory=dict)
    commits: dict = field(default_factory=dict)
    divergence: list = field(default_factory=list)
    lives: dict = field(default_factory=dict)  # (topic, partition, offset) -> (producer id, its epoch), from the files


@dataclass
class Rules:
    """What the faults of a run allow. `loses`: topics that may lose the end of their logs at one of `cuts` (times in ms).
    `stale`: a coordinator that does not know yet that it is none may answer with older offsets for a while, and what was sent over a
    connection that was given up may still arrive: a commit that was repeated meanwhile, which no coordinator can tell from a new one."""

    loses: frozenset = frozenset()
    cuts: tuple = ()
    stale: bool = False
    groups: tuple = ()

    def interval(self, at):
        """How many cuts lie before that time."""
        return sum(1 for cut in self.cuts if cut <= at)


LIMIT = 8
# The brokers' clocks and the clients' are the same, but for how they are rounded.
CLOCKS_MS = 50


# What is reported and counted, and decides nothing.
REMARKS = {"resent", "overdue", "late_commit"}


class Violations(list):
    """(label, text); of each label only the first few are spelled out."""

    def __init__(self):
        super().__init__()
        self.counts = defaultdict(int)

    def add(self, label, text):
        self.counts[label] += 1
        if self.counts[label] <= LIMIT:
            self.append((label, text))


def check(evidence, rules=Rules()):
    found = Violations()
    log = {where: {entry[0]: entry for entry in entries} for where, entries in evidence.log.items()}
    for where, entries in evidence.log.items():
        for one, after in zip(entries, entries[1:]):
            if after[0] != one[0] + 1:
                found.add("A11", f"{where}: offset {after[0]} follows {one[0]}")
    for text in evidence.divergence:
        found.add("A11", text)
    content(evidence, found)
    acks(evidence, log, rules, found)
    places(evidence, log, found)
    same_values(evidence, log, rules, found)
    assigned(evidence, rules, found)
    commits(evidence, rules, found)
    progress(evidence, log, rules, found)
    return found


def content(evidence, found):
    """Whatever is in a log is what somebody sent, as it was sent."""
    for where, entries in evidence.log.items():
        for offset, name, counter, timestamp, mark in entries:
            producer = evidence.producers.get(name)
            sent = producer and producer.topic == where[0] and producer.intents.get(counter)
            if mark != "ok":
                found.add("A10", f"{where} offset {offset}: {name} {counter}: {mark}")
            elif not sent or sent[0] != where[1]:
                found.add("A0", f"{where} offset {offset}: {name} {counter} was not sent there")
            elif sent[1] != timestamp:
                found.add("A10", f"{where} offset {offset}: {name} {counter} has timestamp {timestamp}, sent {sent[1]}")


def acks(evidence, log, rules, found):
    """Whatever was acked is where the ack said, but for what a cut may have taken."""
    lost, survives = [], {}
    where_is = {entry[1:3] for entries in log.values() for entry in entries.values()}
    for producer in evidence.producers.values():
        for counter, (offset, at) in producer.acked.items():
            place = producer.topic, producer.intents[counter][0]
            entry = log.get(place, {}).get(offset)
            if offset < 0 and (producer.name, counter) in where_is:
                continue
            if entry is None or entry[1:3] != (producer.name, counter):
                # Without an offset a client concludes from a later ack that what it had no answer for was appended when it was sent.
                appended = at if offset >= 0 else producer.intents[counter][1]
                lost.append((place, offset, producer.name, counter, rules.interval(appended), entry))
            else:
                key = place, rules.interval(at)
                survives[key] = max(survives.get(key, -1), offset)
        for error in producer.ended if producer.topic not in rules.loses else []:
            found.add("A12", f"{producer.name} could not go on: {error}")
    for place, offset, name, counter, interval, entry in lost:
        # Gone with a cut is no loss, where nothing acked before the same cut survives behind it.
        survivor = survives.get((place, interval), -1)
        if place[0] in rules.loses and interval < len(rules.cuts) and (offset < 0 or survivor < offset):
            continue
        there = "nothing" if entry is None else f"{entry[1]} {entry[2]}"
        found.add("A1", f"{place}: {name} {counter} was acked at {offset}, {there} is there")


def places(evidence, log, found):
    seen = {}
    last = {}
    for where, entries in evidence.log.items():
        for offset, name, counter, _, _ in entries:
            if (name, counter) in seen:
                # A client that was refused a sequence may take a new epoch by itself and send again what it has no answer for:
                # no broker can tell that from new records. Counted apart; Apache's brokers see it too.
                lives = [evidence.lives.get(place) for place in (seen[name, counter], (*where, offset))]
                label = "resent" if None not in lives and lives[0] != lives[1] else "A3"
                found.add(label, f"{name} {counter} is at {seen[name, counter]} and at {(*where, offset)}, {lives}")
                continue
            seen[name, counter] = (*where, offset)
            if counter < last.get((name, where), 0):
                found.add("A4", f"{where} offset {offset}: {name} {counter} after {last[name, where]}")
            last[name, where] = max(counter, last.get((name, where), 0))
    for producer in evidence.producers.values():
        for counter, error in producer.failed.items():
            if (producer.name, counter) in seen:
                found.add("A2", f"{producer.name} {counter} was refused ({error}) and is at {seen[producer.name, counter]}")


def same_values(evidence, log, rules, found):
    for consumer in evidence.consumers.values():
        for event in consumer.events:
            if event[0] != "r" or event[1] in rules.loses:
                continue
            _, topic, partition, offset, name, counter, mark = event
            entry = log.get((topic, partition), {}).get(offset)
            if mark != "ok":
                found.add("A10", f"{consumer.name} read {topic}-{partition} offset {offset}: {mark}")
            elif entry is None or entry[1:3] != (name, counter):
                there = "nothing" if entry is None else f"{entry[1]} {entry[2]}"
                found.add("A5", f"{consumer.name} read {name} {counter} at {topic}-{partition} offset {offset}, where {there} is")
    for reader, reads in evidence.reads.items():
        for where in {*reads, *evidence.log}:
            there, read = evidence.log.get(where, []), reads.get(where, [])
            if there != read:
                at = next((one for one, other in zip(there, read) if one != other), None)
                label = "A10" if at and at[1:3] == read[there.index(at)][1:3] else "A5"
                found.add(label, f"{reader} reads {len(read)} records of {where}, the files have {len(there)}; the first "
                          f"that differs: {at} and {at and read[there.index(at)]}")


def assigned(evidence, rules, found):
    for consumer in evidence.consumers.values():
        if consumer.group != "-":
            continue
        position = {}
        for event in consumer.events:
            if event[0] != "r" or event[1] in rules.loses:
                continue
            where, offset = event[1:3], event[3]
            if offset != position.get(where, 0):
                found.add("A6", f"{consumer.name} read offset {offset} of {where} at position {position.get(where, 0)}")
            position[where] = offset + 1


def asked_first(event):
    """By time; of the same millisecond, who asked did so before the answer of a commit."""
    return event[0], event[1] == "c"


def commits(evidence, rules, found):
    """A commit that nobody was told of may be in the log and not in the coordinator's memory; what was acked counts."""
    told = defaultdict(list)
    for consumer in evidence.consumers.values():
        for event in consumer.events:
            if event[0] in "cso" and event[1] not in rules.loses:
                told[(consumer.group, *event[1:3])].append((event[4], event[0], event[3], consumer.name))
    for where, events in told.items():
        highest = -1
        for _, kind, offset, name in sorted(events, key=asked_first):
            if kind == "s" and offset < highest:
                found.add("A7", f"{where}: {name} begins at {offset}, {highest} was committed before it asked")
            elif kind == "o" and offset < highest and not rules.stale:
                found.add("A7", f"{where}: {name} was told {offset}, {highest} was committed before it asked")
            highest = max(highest, offset) if kind == "c" else highest
        kept = evidence.commits.get(where, [])
        highest_acked = -1
        acked = acked_places(kept, [event for event in events if event[1] == "c"])
        for at, (offset, _) in enumerate(kept):
            if offset is None or offset < highest_acked:
                is_late = rules.stale and any(offset == before for before, _ in kept[:at])
                found.add("late_commit" if is_late else "A7", f"{where}: {offset} is committed after {highest_acked}, which was acked")
            highest_acked = max(highest_acked, offset or -1) if at in acked else highest_acked
        if kept and highest_acked < highest:
            found.add("A7", f"{where}: {highest} was acked and is not committed; {highest_acked} is")


def acked_places(kept, acks):
    """Which commits of the log were acked: the last of the same offset that was there by the time of the ack."""
    found = set()
    for time, _, offset, *_ in acks:
        places = [at for at, (value, written) in enumerate(kept) if value == offset and written <= time + CLOCKS_MS]
        found.update(places[-1:])
    return found


def stale_reads(evidence):
    """How often an onlooker was told less than was acked before it asked."""
    count = 0
    told = defaultdict(list)
    for consumer in evidence.consumers.values():
        for event in consumer.events:
            if event[0] in "co":
                told[(consumer.group, *event[1:3])].append((event[4], event[0], event[3]))
    for events in told.values():
        highest = -1
        for _, kind, offset in sorted(events, key=asked_first):
            count += kind == "o" and offset < highest
            highest = max(highest, offset) if kind == "c" else highest
    return count


def progress(evidence, log, rules, found):
    for producer in evidence.producers.values():
        if producer.open() and producer.topic not in rules.loses:
            found.add("A12", f"{producer.open()} records of {producer.name} have no outcome")
    read = defaultdict(set)
    for consumer in evidence.consumers.values():
        for event in consumer.events:
            if event[0] == "r":
                read[(consumer.group, event[1], event[2])].add(event[3])
    for group, topic in rules.groups:
        for where, entries in log.items():
            left = set(entries) - read[(group, *where)] if where[0] == topic else set()
            if left and topic not in rules.loses:
                found.add("A12", f"{group} did not read {len(left)} offsets of {where}, the first {min(left)}")
