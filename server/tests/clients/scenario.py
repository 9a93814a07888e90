"""What a scenario is: a function with a name, a time limit and a place to work.

`@scenario(seconds)` registers it under `file.function`. Each runs in a process of its own with a `Place`, which gives it the
shared broker, names of its own for topics and groups, a directory, and further brokers when it asks for them.
"""

import importlib
import json
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import peers
import subject as subjects

REGISTRY = {}


class Skip(Exception):
    """The scenario does not apply here; the text says why."""


@dataclass
class Scenario:
    name: str
    run: object
    seconds: int
    doc: str
    # Run when it is named only: it repeats another in another setting.
    campaign: bool


def scenario(seconds=120, campaign=False):
    def register(function):
        name = f"{function.__module__.rsplit('.', 1)[-1]}.{function.__name__}"
        doc = (function.__doc__ or "").strip().splitlines()[0]
        REGISTRY[name] = Scenario(name, function, seconds, doc, campaign)
        return function

    return register


def load():
    for path in sorted((Path(__file__).parent / "scenarios").glob("*.py")):
        importlib.import_module(f"scenarios.{path.stem}")
    return REGISTRY


def examples(*names):
    """Builds example programs with the features of the workspace, as the tests are built, and returns where they are."""
    build = ["cargo", "build", "--quiet", "--workspace", "--message-format=json"]
    build += [word for name in names for word in ("--example", name)]
    done = subprocess.run(build, cwd=peers.ROOT, capture_output=True, text=True, timeout=550)
    if done.returncode:
        raise AssertionError(f"{' '.join(build)}: exit code {done.returncode}\n{done.stderr[-3000:]}")
    # Cargo knows where its target directory is.
    built = [json.loads(line) for line in done.stdout.splitlines()]
    found = {one["target"]["name"]: one["executable"] for one in built if one.get("executable")}
    return [found[name] for name in names]


class Place:
    """Where one scenario runs."""

    def __init__(self, scenario_name, subject_name, bootstrap, directory, tool_port, options):
        self.scenario = scenario_name
        self.subject = subject_name
        self.bootstrap = bootstrap
        self.directory = Path(directory)
        self.tool_port = tool_port
        self.options = options
        self.started = []
        shutil.rmtree(self.directory, ignore_errors=True)
        self.directory.mkdir(parents=True)

    def name(self, suffix=""):
        """A name for a topic or a group that no other scenario uses."""
        return f"{self.scenario}{'-' if suffix else ''}{suffix}"

    def start(self, settings=None, kind=None, name="own", **options):
        """A broker for this scenario alone, ended with it."""
        broker = subjects.subject(kind or self.subject, self.directory / name, settings, **options)
        self.started.append(broker)
        broker.start()
        return broker

    def close(self):
        for broker in self.started:
            broker.close()


def until(seconds, what, check):
    """Waits until `check` returns something true, and returns that."""
    deadline = time.monotonic() + seconds
    while True:
        found = check()
        if found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {what}")
        time.sleep(0.05)


def equal(got, wanted, what):
    if got != wanted:
        raise AssertionError(f"{what}: expected {wanted!r}, got {got!r}")


def contains(text, *parts):
    for part in parts:
        if part not in text:
            raise AssertionError(f"expected {part!r} in:\n{text}")
