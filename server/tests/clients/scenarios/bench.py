"""`milena bench` against the broker under test: every workload, with everything read back, and a small comparison."""

import json
import re
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


def examples():
    """The lines with `milena bench` of the document and of the helps, without what is said behind them."""
    lines = (peers.ROOT / "docs/bench.md").read_text().splitlines()
    for words in ([], ["compare"]):
        lines += bench(*words, "--help")[0].splitlines()
    found = [re.split(r"\s{2,}", line.strip())[0] for line in lines if line.strip().startswith("milena bench ")]
    return list(dict.fromkeys(found))


def small(example, bootstrap):
    """The same example against this broker, with less to do."""
    for option, less in [("duration", "300ms"), ("records", "3000"), ("backlog", "3000"), ("rounds", "2")]:
        example = re.sub(rf"--{option} \S+", f"--{option} {less}", example)
    example = re.sub(r" -b \S+", "", example)
    example = example.replace("/opt/kafka", str(peers.kafka())).replace("/usr/bin/milena", str(subjects.Milena.binary))
    verb = example.split()[2]
    # What is redirected stays the last.
    example, *redirection = example.split(" > ")
    if verb in ("produce", "consume", "e2e", "mixed", "run", "compare", "validate"):
        example += " --warm-up 0"
        example += "" if "--duration" in example else " --duration 300ms"
        example += "" if "--records" in example or verb not in ("run", "compare", "validate") else " --records 3000"
    if verb in ("produce", "consume", "e2e", "mixed", "run"):
        example += f" -b {bootstrap}"
    if verb == "compare" and "--kafka" not in example:
        example += f" --kafka {peers.kafka()}"
    return " > ".join([example.replace("milena", str(subjects.Milena.binary), 1), *redirection])


@scenario(240)
def documented(place):
    """Every example of docs/bench.md and of the help, as it is written but shorter."""
    document = (peers.ROOT / "docs/bench.md").read_text()
    orders = re.search(r"```toml\n(.*?)```", document, re.DOTALL).group(1)
    (place.directory / "orders.toml").write_text(orders)
    (place.directory / "my.toml").write_text(orders.replace("orders", "nightly").replace("= 3", "= 1").replace("=2", "=1"))
    found = examples()
    # Files that are drawn are written first; what starts its own brokers is the same whoever is the subject.
    found.sort(key=lambda example: " plot " in example)
    if place.subject != "milena":
        found = [example for example in found if not re.search(" (compare|validate|plot .*compare|plot result)", example)]
    for example in found:
        words = example.split()
        if words[2] in ("null-server", "scenarios") and "--port" in words:
            continue
        command = small(example, place.bootstrap)
        done = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=100, cwd=place.directory)
        # What so short a run finds of the generator's share is this machine's moment, and no error.
        is_judgement = " validate" in example and "the generator costs as much" in done.stdout + done.stderr
        equal(done.returncode, 3 if is_judgement else 0, f"exit code of {command}\n{done.stdout}{done.stderr}")
    if len(found) < 8:
        raise AssertionError(f"examples are missing: {found}")
    print(f"{len(found)} examples")
