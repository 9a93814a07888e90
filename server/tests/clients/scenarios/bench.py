"""`milena bench` against the broker under test: every workload, with everything read back, and a small comparison."""

import json
import subprocess

import peers
import subject as subjects
from scenario import Skip, contains, equal, scenario

LOADS = [
    ("produce", "--records 20000 --batch-size 64KiB --partitions 3 --producers 2 --check", 20000, 0),
    ("produce", "--records 5000 --acks all --idempotence --codec zstd --payload json --keys 100 --check", 5000, 0),
    ("produce", "--records 5000 --codec lz4 --topic-config compression.type=gzip --check", 5000, 0),
    ("produce", "--records 3000 --acks 0 --check", 3000, 0),
    ("produce", "--rate 2000 --duration 1s --batch-records 1 --topic-config flush.messages=1 --check", 2000, 0),
    ("consume", "--records 20000 --partitions 2 --consumers 2 --fan-out 2 --check", 0, 40000),
    ("e2e", "--rate 1000 --duration 1s --fan-out 2 --check", 1000, 2000),
    ("mixed", "--rate 1000 --duration 1s --backlog 20000 --partitions 2 --check", 1000, None),
]


def bench(*words, seconds=100, wanted=0):
    """Runs the bench; returns (stdout, stderr)."""
    done = subprocess.run([str(subjects.Milena.binary), "bench", *map(str, words)], capture_output=True, text=True,
                          timeout=seconds)
    equal(done.returncode, wanted, f"exit code of bench {' '.join(map(str, words))}\n{done.stdout}{done.stderr}")
    return done.stdout, done.stderr


@scenario(120)
def workloads(place):
    """Every workload counts what was asked for, and what was written is read back as it was."""
    for workload, words, produced, consumed in LOADS:
        out, _ = bench(workload, "-b", place.bootstrap, "--warm-up", "100ms", "--json", "-", *words.split())
        run = json.loads(out)["runs"][0]
        what = f"bench {workload} {words}"
        equal((run["produced"] or {}).get("records", 0), produced, f"{what}: records produced")
        if consumed is not None:
            equal((run["consumed"] or {}).get("records", 0), consumed, f"{what}: records consumed")
        stored = run["checked_records"]
        # The warm-up and what was there beforehand are read back as well.
        if stored is None or stored < produced:
            raise AssertionError(f"{what}: {stored} records read back")
        if workload in ("e2e", "mixed"):
            equal(run["end_to_end_latency"]["count"], consumed or produced, f"{what}: latencies")


@scenario(120)
def comparison(place):
    """Milena beside Apache Kafka in two rounds: a table, records read back, a page, and nobody is left running."""
    if place.subject != "milena":
        raise Skip("compare starts its brokers itself")
    document, page = place.directory / "compare.json", place.directory / "compare.html"
    out, _ = bench("compare", "S2r", "S7-1k", "--kafka", peers.kafka(), "--rounds", 2, "--records", 20000, "--duration", "1s",
                   "--warm-up", 0, "--work-dir", place.directory, "--json", document)
    contains(out, "CPU-s a GB", "milena", "kafka", "produce p99, ms", "voluntary switches", "S7-1k")
    found = json.loads(document.read_text())
    equal(found["subjects"], ["milena", "kafka"], "subjects")
    equal([(r["scenario"], r["subject"], r["number"]) for r in found["rounds"]][:4],
          [("S2r", "milena", 1), ("S2r", "kafka", 1), ("S2r", "kafka", 2), ("S2r", "milena", 2)], "the order of the rounds")
    for round_ in found["rounds"]:
        if not round_["run"]["checked_records"]:
            raise AssertionError(f"nothing was read back: {round_}")
    bench("plot", document, "--output", page)
    contains(page.read_text(), "<svg", "milena", "kafka", "S2r")
    equal(list(place.directory.glob("milena-bench-*")), [], "directories that are left")
