#!/usr/bin/env python3
"""The checker is seen to fail: a good history, broken on purpose in each of these ways, is reported under the right label.

`check_checker.py [ROUNDS]`: so many random positions for each mutation (default: 100).
"""

import copy
import random
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
sys.dont_write_bytecode = True

import checker  # noqa: E402
import ledger  # noqa: E402

PARTITIONS = 3
RULES = checker.Rules(groups=(("g", "t"),))


def history(rng):
    """Two producers, a reader by assignment and a group, without a fault in it."""
    producers = {name: ledger.Producer(name, "t", "librdkafka") for name in ("one", "two")}
    log = {("t", partition): [] for partition in range(PARTITIONS)}
    time = 1000
    for counter in range(1, 121):
        for name, producer in producers.items():
            time += rng.randrange(3)
            partition = rng.randrange(PARTITIONS)
            producer.intents[counter] = (partition, time, 50)
            if rng.random() < 0.03:
                producer.failed[counter] = "too large"
                continue
            entries = log["t", partition]
            producer.acked[counter] = (len(entries), time + 5)
            entries.append((len(entries), name, counter, time, "ok"))
    consumers = {"reader": ledger.Consumer("reader", "-", "librdkafka"), "member": ledger.Consumer("member", "g", "java"),
                 "onlooker": ledger.Consumer("onlooker", "g", "librdkafka")}
    commits = {}
    for (topic, partition), entries in log.items():
        for name in ("reader", "member"):
            consumers[name].events += [("r", topic, partition, *entry[:3], entry[4]) for entry in entries]
        consumers["member"].events.append(("s", topic, partition, -1, 900))
        at = 2000
        for offset in range(5, len(entries), 5):
            at += 10
            commits.setdefault(("g", topic, partition), []).append((offset, at - 5))
            consumers["member"].events.append(("c", topic, partition, offset, at))
            consumers["onlooker"].events.append(("o", topic, partition, offset, at + 1))
    reads = {"librdkafka": copy.deepcopy(log), "java": copy.deepcopy(log)}
    return checker.Evidence(producers, consumers, log, reads, commits)


def somewhere(rng, evidence):
    """A partition and a place in it that is neither the first nor the last."""
    where = rng.choice(list(evidence.log))
    return where, rng.randrange(1, len(evidence.log[where]) - 1)


def everywhere(evidence, where, entries):
    """The same log for all: in the files and in what the readers at the end saw."""
    evidence.log[where] = entries
    for reads in evidence.reads.values():
        reads[where] = list(entries)


def renumbered(entries):
    return [(offset, *entry[1:]) for offset, entry in enumerate(entries)]


def lose_acked(rng, evidence):
    where, at = somewhere(rng, evidence)
    entries = evidence.log[where]
    everywhere(evidence, where, renumbered(entries[:at] + entries[at + 1:]))


def lose_the_end(rng, evidence):
    where, at = somewhere(rng, evidence)
    everywhere(evidence, where, evidence.log[where][:at])


def swap(rng, evidence):
    where, at = somewhere(rng, evidence)
    entries = list(evidence.log[where])
    name = entries[at][1]
    other = next((i for i in range(at + 1, len(entries)) if entries[i][1] == name), None)
    if other is None:
        other = next(i for i in range(at - 1, -1, -1) if entries[i][1] == name)
    entries[at], entries[other] = entries[other], entries[at]
    everywhere(evidence, where, renumbered(entries))


def duplicate(rng, evidence):
    where, at = somewhere(rng, evidence)
    entries = evidence.log[where]
    everywhere(evidence, where, renumbered([*entries, entries[at]]))


def sent_again(rng, evidence):
    """By the client, which took a new epoch."""
    where, at = somewhere(rng, evidence)
    evidence.lives |= {(*where, at): (7, 0), (*where, len(evidence.log[where])): (7, 1)}
    everywhere(evidence, where, renumbered([*evidence.log[where], evidence.log[where][at]]))


def byte_in_the_log(rng, evidence):
    where, at = somewhere(rng, evidence)
    entries = list(evidence.log[where])
    entries[at] = (*entries[at][:4], "wrong CRC")
    everywhere(evidence, where, entries)


def timestamp(rng, evidence):
    where, at = somewhere(rng, evidence)
    entries = list(evidence.log[where])
    entries[at] = (*entries[at][:3], entries[at][3] + 1, entries[at][4])
    everywhere(evidence, where, entries)


def refused_is_there(rng, evidence):
    where, at = somewhere(rng, evidence)
    _, name, counter, _, _ = evidence.log[where][at]
    producer = evidence.producers[name]
    del producer.acked[counter]
    producer.failed[counter] = "refused"


def nobody_sent(rng, evidence):
    where, _ = somewhere(rng, evidence)
    entries = evidence.log[where]
    everywhere(evidence, where, [*entries, (len(entries), "one", 100000, 1, "ok")])


def another_value(rng, evidence):
    where, at = somewhere(rng, evidence)
    reads = evidence.reads[rng.choice(list(evidence.reads))]
    reads[where][at] = (at, *reads[where][at - 1][1:])


def read_of_what_went(rng, evidence):
    where, _ = somewhere(rng, evidence)
    member = evidence.consumers["member"]
    member.events.append(("r", *where, len(evidence.log[where]), "one", 1, "ok"))


def reader_gets_less(rng, evidence):
    where, at = somewhere(rng, evidence)
    del evidence.reads[rng.choice(list(evidence.reads))][where][at:]


def reads_of(evidence, name, where):
    events = evidence.consumers[name].events
    return events, [i for i, event in enumerate(events) if event[0] == "r" and event[1:3] == where]


def position_back(rng, evidence):
    where, at = somewhere(rng, evidence)
    events, places = reads_of(evidence, "reader", where)
    events.insert(places[at] + 1, events[places[at - 1]])


def position_skips(rng, evidence):
    where, at = somewhere(rng, evidence)
    events, places = reads_of(evidence, "reader", where)
    del events[places[at]]


def commit_back(rng, evidence):
    key = rng.choice(list(evidence.commits))
    commits = evidence.commits[key]
    at = rng.randrange(1, len(commits))
    commits.insert(at + 1, (commits[at][0] - rng.randrange(1, 5), commits[at][1] + 1))


def commit_deleted(rng, evidence):
    key = rng.choice(list(evidence.commits))
    evidence.commits[key].append((None, 9000))


def commit_lost(rng, evidence):
    key = rng.choice(list(evidence.commits))
    del evidence.commits[key][-1]


def told_less(rng, evidence):
    key = rng.choice(list(evidence.commits))
    evidence.consumers["onlooker"].events.append(("o", *key[1:], evidence.commits[key][-1][0] - rng.randrange(1, 5), 9000))


def begins_before(rng, evidence):
    key = rng.choice(list(evidence.commits))
    evidence.consumers["member"].events.append(("s", *key[1:], evidence.commits[key][-1][0] - rng.randrange(1, 5), 9000))


def replica_differs(rng, evidence):
    evidence.divergence.append("t-0: replica 0 ends at 1, the other at 2")


def no_outcome(rng, evidence):
    producer = evidence.producers[rng.choice(["one", "two"])]
    producer.intents[max(producer.intents) + 1] = (0, 5000, 10)


def group_skips(rng, evidence):
    where, at = somewhere(rng, evidence)
    events, places = reads_of(evidence, "member", where)
    del events[places[at]]


def producer_ends(rng, evidence):
    evidence.producers["one"].ended.append("out of order sequence number")


MUTATIONS = {
    "A1": [lose_acked, lose_the_end, swap], "A3": [duplicate], "resent": [sent_again], "A4": [swap],
    "A2": [refused_is_there], "A0": [nobody_sent],
    "A10": [byte_in_the_log, timestamp], "A5": [another_value, read_of_what_went, reader_gets_less],
    "A6": [position_back, position_skips], "A7": [commit_back, commit_deleted, commit_lost, told_less, begins_before],
    "A11": [replica_differs], "A12": [no_outcome, group_skips, producer_ends],
}


def main():
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    count = 0
    for label, mutations in MUTATIONS.items():
        for mutation in mutations:
            for seed in range(rounds):
                rng = random.Random(f"{mutation.__name__} {seed}")
                evidence = history(rng)
                if wrong := checker.check(evidence, RULES):
                    sys.exit(f"a good history is taken for a bad one: {wrong}")
                mutation(rng, evidence)
                labels = {found for found, _ in checker.check(evidence, RULES)}
                if label not in labels:
                    sys.exit(f"{mutation.__name__}, seed {seed}: reported as {sorted(labels)}, expected {label}")
                count += 1
    allowances()
    unacked_commits()
    print(f"{count} broken histories of {sum(map(len, MUTATIONS.values()))} kinds, all reported under the right label")


def unacked_commits():
    """A commit that nobody was told of, and that the coordinator does not know, is none."""
    for seed in range(20):
        evidence = history(random.Random(f"unacked {seed}"))
        for commits in evidence.commits.values():
            commits.insert(len(commits) // 2, (commits[-1][0] + 10, commits[len(commits) // 2][1]))
        if wrong := checker.check(evidence, RULES):
            sys.exit(f"seed {seed}: a commit without an answer is taken for one: {wrong}")


def allowances():
    """Where the end of a log may be lost at a cut: the end may go, a gap may not, and nothing may go after the last cut."""
    for seed in range(100):
        rng = random.Random(f"allowances {seed}")
        evidence = history(rng)
        where, _ = somewhere(rng, evidence)
        del evidence.consumers["reader"], evidence.consumers["member"], evidence.consumers["onlooker"]
        evidence.commits.clear()
        whole = evidence.log[where]
        at = len(whole) // 2
        lost = max(entry[3] for entry in whole) + 100
        rules = checker.Rules(loses=frozenset({"t"}), cuts=(lost,))
        everywhere(evidence, where, whole[:at])
        if wrong := checker.check(evidence, rules):
            sys.exit(f"seed {seed}: a lost end is taken for more: {wrong}")
        early = checker.Rules(loses=frozenset({"t"}), cuts=(whole[at][3] - 100,))
        if "A1" not in {label for label, _ in checker.check(evidence, early)}:
            sys.exit(f"seed {seed}: what was lost without a cut is not reported")
        everywhere(evidence, where, whole[:at] + whole[at + 1:at + 2])
        if "A1" not in {label for label, _ in checker.check(evidence, rules)}:
            sys.exit(f"seed {seed}: a gap is not reported")


if __name__ == "__main__":
    main()
