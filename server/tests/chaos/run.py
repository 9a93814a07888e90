#!/usr/bin/env python3
"""Real brokers under real faults: `run.py --fault kill --cycles 1000 --subject milena --binary B --seed 7 --out DIR`.

A run is a fresh cluster of three brokers and a ZooKeeper under load, some strikes of a fault, healing, and a verdict. Each
run is a line of JSON in DIR/results.jsonl, with commit, seed, subject, fault, verdict and counts. Started again with the same
arguments, it goes on where it was. `--summary DIR` prints a table of what is there. `--sample` is what `tools/check` runs: a few
strikes of several faults, a line for each, and `N passed, N failed, N skipped` at the end.
"""

import argparse
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "clients")]
sys.dont_write_bytecode = True

import peers  # noqa: E402

MIXTURES = {"milena": ["milena"] * 3, "kafka": ["kafka"] * 3, "mixed": ["milena", "kafka", "milena"]}
FAULTS = ["kill", "stop", "cut", "expiry", "outage", "mixed", "power", "power-all", "full"]
CONTROLS = ["control-acks1", "control-unclean"]
ON_DISKS = {"power", "power-all", "full"}
RESULTS = "results.jsonl"
# What the test command runs: faults, and how many strikes of each.
SAMPLE = {"kill": 6, "mixed": 8, "power-all": 2, "full": 1, "control-acks1": 1}


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fault", choices=[*FAULTS, *CONTROLS], default="kill")
    parser.add_argument("--cycles", type=int, default=1000, help="strikes in all (default: 1000)")
    parser.add_argument("--per-run", type=int, default=20, help="strikes of one cluster (default: 20)")
    parser.add_argument("--subject", choices=list(MIXTURES), default="milena")
    parser.add_argument("--binary", help="Milena's binary (default: target/release/milena)")
    parser.add_argument("--seed", type=int, default=1, help="of the first run; each further one has the next")
    parser.add_argument("--session-ms", type=int, default=1500, help="zookeeper.session.timeout.ms (default: 1500); on a busy "
                        "machine short sessions end by themselves")
    parser.add_argument("--out", type=Path, help="where results and the evidence of failed runs go")
    parser.add_argument("--keep-going", action="store_true", help="go on after a run that FAILs")
    parser.add_argument("--keep", action="store_true", help="keep the directories of all runs")
    parser.add_argument("--sample", action="store_true", help="a short run of several faults")
    parser.add_argument("--summary", type=Path, metavar="DIR", help="print a table of the results in DIR")
    parser.add_argument("--inner", help=argparse.SUPPRESS)
    return parser.parse_args()


def results(directory):
    path = directory / RESULTS
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def summary(directory):
    groups = {}
    for one in results(directory):
        groups.setdefault((one["subject"], one["fault"], one["commit"][:10]), []).append(one)
    print(f"{'subject':8} {'fault':10} {'commit':10} {'runs':>5} {'cycles':>7} {'hit':>6} {'acked':>10} {'PASS':>5} {'FAIL':>5} "
          f"{'INC':>4} {'resent':>7} {'minutes':>8}")
    for (subject, fault, commit), runs in sorted(groups.items()):
        verdicts = Counter(one["verdict"] for one in runs)
        print(f"{subject:8} {fault:10} {commit:10} {len(runs):5} {sum(r['cycles'] for r in runs):7} {sum(r['hits'] for r in runs):6} "
              f"{sum(r['acked'] for r in runs):10} {verdicts['PASS']:5} {verdicts['FAIL']:5} {verdicts['INCONCLUSIVE']:4} "
              f"{sum(r.get('counts', {}).get('resent', 0) for r in runs):7} "
              f"{sum(r['seconds'] for r in runs) / 60:8.1f}")
        for one in runs:
            for label, text in one["violations"][:3]:
                print(f"    seed {one['seed']}: {label} {text}")
            if one.get("error"):
                print(f"    seed {one['seed']}: {one['error'][:200]}")


def commit():
    words = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    done = subprocess.run(words, cwd=HERE, capture_output=True, text=True)
    return done.stdout.strip() or "unknown"


def one_run(options, seed, cycles, binary, known):
    directory = options.out / f"{options.subject}-{options.fault}-{seed}"
    directory.mkdir(parents=True, exist_ok=True)
    result = directory / "result"
    result.unlink(missing_ok=True)
    request = {**known, "fault": options.fault, "kinds": MIXTURES[options.subject], "seed": seed, "cycles": cycles,
               "session_ms": options.session_ms,
               "directory": str(directory / "work"), "binary": str(binary), "result": str(result)}
    limit = 300 + cycles * 90
    with open(directory / "log", "w") as log:
        process = subprocess.Popen([sys.executable, HERE / "run.py", "--inner", json.dumps(request)], stdin=subprocess.DEVNULL,
                                   stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            process.wait(limit)
        except subprocess.TimeoutExpired:
            log.write(f"not done after {limit} s\n")
        finally:
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            process.wait()
    if result.exists():
        found = json.loads(result.read_text())
    else:
        found = {"verdict": "INCONCLUSIVE", "cycles": 0, "hits": 0, "acked": 0, "seconds": limit, "violations": [],
                 "error": "the run did not end by itself"}
    if found["verdict"] == "PASS" and not found["violations"] and not options.keep:
        shutil.rmtree(directory)
    return found


def campaign(options, binary, known):
    """Runs until there are so many strikes; whether a run FAILed."""
    stamp = {"subject": options.subject, "fault": options.fault}
    if options.subject != "kafka":
        stamp["binary"] = hashlib.sha256(binary.read_bytes()).hexdigest()[:16]
    mine = [one for one in results(options.out) if (one["subject"], one["fault"]) == (options.subject, options.fault)]
    done, seed = sum(max(1, one["cycles"]) for one in mine), max([one["seed"] + 1 for one in mine] + [options.seed])
    failed = False
    while done < options.cycles:
        cycles = min(options.per_run, options.cycles - done)
        begun_at = commit()
        found = one_run(options, seed, cycles, binary, known)
        line = {"time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "commit": begun_at, **stamp, "seed": seed, **found}
        with open(options.out / RESULTS, "a") as out:
            out.write(json.dumps(line) + "\n")
        done += max(1, found["cycles"])
        print(f"{found['verdict']} {options.subject} {options.fault} seed {seed}: {told(found)}", flush=True)
        for text in reasons(found, 10):
            print(f"    {text}", flush=True)
        failed = failed or found["verdict"] == "FAIL"
        if failed and not options.keep_going:
            break
        seed += 1
    return failed


def told(found):
    locked_up = f", {found['locked_up']} readers locked up" if found.get("locked_up") else ""
    return f"{found['cycles']} cycles, {found['hits']} hit, {found['acked']} acked, {found['seconds']} s{locked_up}"


def reasons(found, count):
    return [f"{label} {text}" for label, text in found["violations"][:count]] + ([found["error"]] if found.get("error") else [])


def sample(options, binary, known):
    """A line for each fault; whether one of them failed."""
    import disks

    # Others work on the machine of a test command.
    options.session_ms = 4000
    counts = Counter()

    def result(verdict, text):
        counts[verdict] += 1
        print(f"{verdict}: chaos.{text}", flush=True)

    done = subprocess.run([sys.executable, HERE / "check_checker.py", "20"], capture_output=True, text=True)
    result("failed" if done.returncode else "passed", f"checker ({(done.stdout or done.stderr).strip()})")
    for fault, cycles in SAMPLE.items():
        if fault in ON_DISKS and (why := disks.missing("ext4", "xfs") or known["why"]):
            result("skipped", f"{fault}: {why}")
            continue
        options.fault = fault
        # A busy machine may keep a fault from hitting; once more, then.
        for seed in (options.seed, options.seed + 1):
            found = one_run(options, seed, cycles, binary, known)
            if found["verdict"] != "INCONCLUSIVE":
                break
        result("passed" if found["verdict"] == "PASS" else "failed", f"{fault} ({told(found)})")
        if found["verdict"] != "PASS":
            lines = reasons(found, 10) + [f"kept: {options.out}/{options.subject}-{fault}-{seed}"]
            print("\n".join(f"  | {found['verdict']} {line}" for line in lines), flush=True)
    print(f"{counts['passed']} passed, {counts['failed']} failed, {counts['skipped']} skipped")
    return counts["failed"] > 0


def main():
    options = arguments()
    if options.summary:
        summary(options.summary)
        return 0
    if options.inner:
        import trial

        trial.main(json.loads(options.inner))
    python = peers.python()
    if Path(sys.executable).resolve() != python.resolve() or sys.prefix != str(python.parent.parent):
        os.execv(python, [str(python), *sys.argv])
    if options.out is None and not options.sample:
        sys.exit("--out names the directory of the results")
    options.out = (options.out or peers.HOME / "chaos").resolve()
    options.out.mkdir(parents=True, exist_ok=True)
    target = Path(os.environ.get("CARGO_TARGET_DIR") or peers.ROOT / "target")
    binary = Path(options.binary or target / "release/milena").resolve()
    if (options.subject != "kafka" or options.sample) and not binary.exists():
        sys.exit(f"{binary} is missing; build it with: cargo build --release")
    import network

    why = network.missing()
    if why:
        print(f"{why}: brokers share 127.0.0.1, and proxies cut the ways between them", flush=True)
    driver = peers.java_client("2.7.2")
    known = {"java": driver.split(":")[1].removesuffix("/*"), "driver": driver, "why": why}
    peers.compiled("chaos-load", HERE / "Load.java", known["java"])
    if not options.sample and options.fault in ON_DISKS and why:
        sys.exit(f"{options.fault}: {why}")
    return 1 if (sample if options.sample else campaign)(options, binary, known) else 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        sys.exit(main())
    except peers.PeerError as error:
        sys.exit(str(error))
