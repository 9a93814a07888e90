#!/usr/bin/env python3
"""Runs real clients against a broker: `run.py --subject milena|kafka|both [--only PATTERN]`.

Sets up what is missing (peers.py), starts the subject on a free port and a fresh directory, runs every scenario of
`scenarios/` in a process of its own, two at a time, and prints a line for each. Ends with `N passed, N failed, N skipped`.
For what failed the ends of the scenario's and the broker's logs are shown, and their directory is kept.
"""

import argparse
import concurrent.futures
import fnmatch
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import traceback
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
sys.dont_write_bytecode = True

import figures  # noqa: E402
import peers  # noqa: E402
import subject as subjects  # noqa: E402

PASSED, FAILED, SKIPPED = "passed", "FAILED", "skipped"
SKIP_CODE = 77
REASON = "reason"  # the file in which a failed scenario leaves the text of its exception


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--subject", choices=["milena", "kafka", "both"], default="milena")
    parser.add_argument("--only", metavar="PATTERN", help="scenarios whose name has this part, or fits this glob; "
                        "those of campaigns run only so")
    parser.add_argument("--binary", help="Milena's binary (default: target/release/milena)")
    parser.add_argument("--jobs", type=int, default=2, help="scenarios at a time (default: 2)")
    parser.add_argument("--cycles", type=int, default=6, help="kills of crash.* (default: 6; the campaign: 200)")
    parser.add_argument("--frames", type=int, default=2000, help="frames of hostile.* (default: 2000; the campaign: 100000)")
    parser.add_argument("--damages", type=int, default=500, help="damaged files of log_dump.*, twice the damaged partitions of repair.* (default: 500; the campaign: 20000)")
    parser.add_argument("--cases", type=int, default=5000, help="cases of differential.* (default: 5000; the campaign: 1000000)")
    parser.add_argument("--rounds", type=int, help="rounds of failover.* (default: what takes some minutes; rolling restarts: 100)")
    parser.add_argument("--figures", metavar="FILE", help="adds what scenarios measured, a line of JSON each")
    parser.add_argument("--seed", type=int, default=1, help="seed of what is random")
    parser.add_argument("--list", action="store_true", help="names the scenarios and ends")
    parser.add_argument("--keep", action="store_true", help="keeps the directory of the run")
    parser.add_argument("--inner", help=argparse.SUPPRESS)
    return parser.parse_args()


def milena_binary(given):
    target = Path(os.environ.get("CARGO_TARGET_DIR") or peers.ROOT / "target")
    binary = Path(given or target / "release/milena").resolve()
    if not binary.exists():
        raise peers.PeerError(f"{binary} is missing; build it with: cargo build --release")
    return binary


def inner(request):
    """Runs one scenario in this process."""
    import scenario

    subjects.Milena.binary = request["binary"]
    entry = scenario.load()[request["scenario"]]
    place = scenario.Place(request["scenario"], request["subject"], request["bootstrap"], request["directory"],
                           request["tool_port"], request["options"])
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    code = 0
    try:
        entry.run(place)
    except scenario.Skip as reason:
        print(reason)
        code = SKIP_CODE
    except BaseException as error:
        traceback.print_exc()
        (place.directory / REASON).write_text(f"{type(error).__name__}: {error}\n")
        code = 1
    finally:
        try:
            place.close()
        except subjects.SubjectError:
            traceback.print_exc()
            code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    subjects.end_all()
    os._exit(code)


def complaints(log):
    """The end of a broker's log, and of what it warned of."""
    lines = subjects.tail(log, 100_000).splitlines()
    odd = [line for line in lines if re.search(r"\b(WARN|ERROR|FATAL)\b|panicked|Exception", line)]
    return "\n".join([*odd[-12:], *lines[-4:]])


class Run:
    """One pass over the scenarios with one subject."""

    def __init__(self, options, subject_name, scenarios, python):
        self.options = options
        self.subject = subject_name
        self.scenarios = scenarios
        self.python = python
        self.directory = peers.HOME / "runs" / f"{subject_name}-{os.getpid()}"
        self.counts = {PASSED: 0, FAILED: 0, SKIPPED: 0}
        self.figures = []

    def scenario(self, entry):
        directory = self.directory / entry.name
        directory.mkdir(parents=True, exist_ok=True)
        request = {"scenario": entry.name, "subject": self.subject, "bootstrap": self.broker.bootstrap,
                   "directory": str(directory / "work"), "tool_port": self.tool_port,
                   "binary": str(subjects.Milena.binary or ""),
                   "options": {"cycles": self.options.cycles, "frames": self.options.frames, "damages": self.options.damages,
                               "cases": self.options.cases, "rounds": self.options.rounds,
                               "seed": self.options.seed, "pid": self.broker.process.pid,
                               "data": str(self.broker.data)}}
        log = directory / "scenario.log"
        limit = entry.seconds + self.options.cycles * 20 * ("crash" in entry.name) + \
            self.options.frames // 20 * ("hostile" in entry.name) + self.options.damages // 10 * ("log_dump" in entry.name or "repair" in entry.name) + \
            self.options.cases // 200 * ("differential" in entry.name) + (self.options.rounds or 0) * 60 * ("failover" in entry.name)
        began = time.monotonic()
        with open(log, "w") as out:
            process = subprocess.Popen([self.python, HERE / "run.py", "--inner", json.dumps(request)],
                                       stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT,
                                       start_new_session=True)
            try:
                code = process.wait(limit)
            except subprocess.TimeoutExpired:
                out.write(f"\nnot done after {limit} s\n")
                process.terminate()
                try:
                    process.wait(20)
                except subprocess.TimeoutExpired:
                    pass
                code = 1
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            process.wait()
        seconds = time.monotonic() - began
        result = {0: PASSED, SKIP_CODE: SKIPPED}.get(code, FAILED)
        self.counts[result] += 1
        self.figures += figures.read(directory / "work" / figures.NAME)
        text = f"{result:7} {self.subject:6} {entry.name} {seconds:.1f} s"
        if result == SKIPPED:
            text += f" ({subjects.tail(log, 1)})"
        if result == FAILED:
            brokers = [*sorted(directory.glob("work/*/broker.log")), self.broker.log]
            reason = directory / "work" / REASON
            said = [(reason, reason.read_text())] if reason.exists() else []
            for path, lines in [*said, (log, subjects.tail(log, 25)), *((path, complaints(path)) for path in brokers)]:
                text += f"\n  --- {path}\n" + "\n".join("  | " + line[:600] for line in lines.splitlines())
        peers.say(text)

    def __call__(self):
        shutil.rmtree(self.directory, ignore_errors=True)
        # Nobody kills this one: its session may be long, so that a busy machine does not end it.
        options = {"session_ms": 10000} if self.subject == "kafka" else {}
        self.broker = subjects.subject(self.subject, self.directory / "broker", **options)
        tools = subjects.Process(
            ["java", "-Xmx512M", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1",
             f"-Dlog4j.configuration=file:{self.log4j()}", "-cp", peers.tool_runner(), "ToolRunner"],
            self.directory / "tool-runner.log")
        began = time.monotonic()
        try:
            seconds = self.broker.start()
            peers.say(f"{self.subject} serves on {self.broker.bootstrap} after {seconds:.2f} s")
            while "\n" not in (text := tools.log.read_text()):
                if not tools.running() or time.monotonic() - began > 60:
                    raise subjects.SubjectError(f"the JVM of the tools does not start\n{subjects.tail(tools.log)}")
                time.sleep(0.02)
            self.tool_port = int(text.split("\n")[0])
            with concurrent.futures.ThreadPoolExecutor(self.options.jobs) as pool:
                for done in [pool.submit(self.scenario, entry) for entry in self.scenarios]:
                    done.result()
            if not self.broker.process.running():
                self.counts[FAILED] += 1
                peers.say(f"FAILED  {self.subject} the broker ended on its own\n{subjects.tail(self.broker.log)}")
            else:
                self.broker.stop()
                self.counts[PASSED] += 1
                peers.say(f"passed  {self.subject:6} the broker served all the while and stopped on SIGTERM")
        except subjects.SubjectError as error:
            self.counts[FAILED] += 1
            peers.say(f"FAILED  {self.subject} broker: {error}")
        finally:
            tools.end(signal.SIGKILL, 10)
            self.broker.close()
            if self.options.keep or self.counts[FAILED]:
                peers.say(f"kept: {self.directory}")
            else:
                shutil.rmtree(self.directory, ignore_errors=True)
        return self.counts

    def log4j(self):
        path = self.directory / "tools-log4j.properties"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("log4j.rootLogger=WARN, stderr\n"
                        "log4j.logger.org.apache.kafka.common.utils.AppInfoParser=ERROR\nlog4j.appender.stderr=org.apache.log4j.ConsoleAppender\n"
                        "log4j.appender.stderr.layout=org.apache.log4j.PatternLayout\n"
                        "log4j.appender.stderr.layout.ConversionPattern=[%d] %p %m (%c)%n\n"
                        "log4j.appender.stderr.Target=System.err\n")
        return path


def main():
    options = arguments()
    if options.inner:
        inner(json.loads(options.inner))
    python = peers.python()
    if not os.environ.get("MILENA_CLIENTS_READY"):
        peers.all_of_them()
        os.environ["MILENA_CLIENTS_READY"] = "1"
        os.execv(python, [str(python), *sys.argv])
    import scenario

    pattern = options.only or "*"
    scenarios = [entry for entry in scenario.load().values()
                 if (pattern in entry.name or fnmatch.fnmatch(entry.name, pattern))
                 and not (entry.campaign and options.only is None)]
    # The long ones first, so that none of them is left to run alone at the end.
    scenarios.sort(key=lambda entry: -entry.seconds)
    if options.list:
        for entry in sorted(scenarios, key=lambda entry: entry.name):
            peers.say(f"{entry.name}: {entry.doc}")
        return 0
    names = ["milena", "kafka"] if options.subject == "both" else [options.subject]
    if "milena" in names:
        subjects.Milena.binary = milena_binary(options.binary)
    elif options.binary:
        subjects.Milena.binary = milena_binary(options.binary)
    began = time.monotonic()
    total, measured = {PASSED: 0, FAILED: 0, SKIPPED: 0}, []
    for name in names:
        run = Run(options, name, scenarios, python)
        for result, count in run().items():
            total[result] += count
        measured += run.figures
    for line in figures.table(measured):
        peers.say(line)
    if options.figures:
        with open(options.figures, "a") as out:
            out.writelines(json.dumps(one) + "\n" for one in measured)
    peers.say(f"client suite: {time.monotonic() - began:.0f} s")
    peers.say(f"{total[PASSED]} passed, {total[FAILED]} failed, {total[SKIPPED]} skipped")
    return 1 if total[FAILED] or not total[PASSED] else 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        sys.exit(main())
    except peers.PeerError as error:
        sys.exit(str(error))
