"""The command line for people: every example of the docs and of --help, and Kafka's own tools on the same cluster.

Blocks of docs/command-line.md and README.md that are marked `console` are run line by line in one directory and must print
what stands there. Comments of these pages say what happens between the blocks: `run: COMMAND`, `member: GROUP TOPIC` (a consumer
joins and commits what it reads), `no member: GROUP` (it leaves).
"""

import json
import os
import re
import signal
import subprocess
from pathlib import Path

import peers
import subject as subjects
from scenario import Skip, contains, equal, scenario, until
from tools import Tools, java

PAGES = ["docs/command-line.md", "README.md"]
STEPS = re.compile(r"^```console\n(.*?)^```$|^<!-- (run|member|no member): (.*?) -->$", re.M | re.S)
# What a placeholder stands for.
KINDS = {"<size>": r"[\d.]+ [KMGT]?i?B", "<n>": r"\d+"}


class Shell:
    """A directory in which examples are run against one broker, with `milena` on the path."""

    def __init__(self, directory, broker):
        self.directory = Path(directory)
        self.bootstrap = broker.bootstrap
        self.members = {}
        programs = self.directory / "bin"
        programs.mkdir(parents=True, exist_ok=True)
        (programs / "milena").symlink_to(subjects.Milena.binary)
        # kcat has no variable for its brokers.
        (programs / "kcat").write_text(f'#!/bin/sh\nexec /usr/bin/env -i PATH="{os.environ["PATH"]}" kcat -b {self.bootstrap} "$@"\n')
        (programs / "kcat").chmod(0o755)
        self.environment = {"PATH": f"{programs}:{os.environ['PATH']}", "HOME": str(self.directory), "LC_ALL": "C.UTF-8",
                            "MILENA_BOOTSTRAP_SERVER": self.bootstrap}

    def run(self, command, seconds=60):
        """(exit code, all output) of a line."""
        done = subprocess.run(["bash", "-c", command], cwd=self.directory, env=self.environment, stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=seconds)
        return done.returncode, done.stdout.decode()

    def objects(self, command):
        """The JSON objects that a command prints."""
        code, output = self.run(f"{command} --json")
        equal(code, 0, f"exit code of {command}: {output}")
        return [json.loads(line) for line in output.splitlines()]

    def join(self, group, topic):
        """A consumer that reads all, commits, and stays."""
        self.members[group] = subjects.Process(
            ["kcat", "-b", self.bootstrap, "-q", "-X", "auto.offset.reset=earliest", "-X", "auto.commit.interval.ms=100",
             "-X", "session.timeout.ms=6000", "-X", "topic.metadata.refresh.interval.ms=500", "-G", group, topic],
            self.directory / f"{group}.log")

        def has_read():
            code, output = self.run(f"milena groups describe {group} --json")
            rows = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
            read = [row for row in rows if row["log_end_offset"]]
            return code == 0 and len(rows) > 1 and read and all(row["lag"] == 0 and row["consumer_id"] for row in read)

        until(60, f"group {group} has read {topic}", has_read)

    def leave(self, group):
        self.members.pop(group).end(signal.SIGTERM, 30)
        until(60, f"group {group} is empty",
              lambda: '"state":"Empty"' in self.run(f"milena groups list {group} --json")[1])

    def step(self, kind, words):
        if kind == "run":
            code, output = self.run(words)
            equal(code, 0, f"exit code of {words}: {output}")
        elif kind == "member":
            self.join(*words.split())
        else:
            self.leave(words)


def commands(block):
    """(command, the lines that it prints) of a block."""
    found = []
    for line in block.splitlines():
        if line.startswith("$ "):
            found.append((line[2:], []))
        else:
            found[-1][1].append(line)
    return found


def pattern(line):
    """What a line of the docs fits, whatever the width of its columns."""
    parts = re.split(r"(<\w+>)", " ".join(line.split()))
    return "".join(KINDS.get(part, r"[^\s\"]+") if re.fullmatch(r"<\w+>", part) else re.escape(part) for part in parts)


# Brokers may take a while to know what was changed, and commands that change nothing can be asked again.
ASKING = re.compile(r"milena (\w+ (list|describe|get)|offsets|logdirs|brokers)\b")


def compare(command, wanted, shell):
    """Runs an example and fails unless its output is what the docs say."""

    def printed():
        _, output = shell.run(command)
        return fits(wanted, output, shell), output

    right, output = printed()
    if not right and ASKING.match(command):
        try:
            until(10, command, lambda: printed()[0])
            return
        except AssertionError:
            right, output = printed()
    if not right:
        raise AssertionError(f"$ {command}\nthe docs say:\n" + "\n".join(wanted) + f"\nit printed:\n{output}")


def fits(wanted, output, shell):
    """Whether the output is what the docs say. Kafka 4.1 has a dynamic default of its own, which shows."""
    port = shell.bootstrap.rsplit(":", 1)[1]
    lines = [" ".join(line.replace(f":{port}", ":9092").replace(f":{port},", ":9092,").split()) for line in output.splitlines()]
    lines = [re.sub(rf"(?<=[ :]){port}(?=[ ,])", "9092", line) for line in lines]
    lines = [line for line in lines if line != "min.insync.replicas=1"]
    expression = "".join(r"(?:[^\n]*\n)*" if line.strip() == "..." else pattern(line) + r"\n" for line in wanted)
    text = "".join(line.replace('"min.insync.replicas":"1"', "") + "\n" for line in lines)
    return re.fullmatch(expression, text) is not None


def run_pages(shell):
    count = 0
    for page in PAGES:
        for block, kind, words in STEPS.findall((peers.ROOT / page).read_text()):
            if kind:
                shell.step(kind, words)
            for command, wanted in commands(block):
                compare(command, wanted, shell)
                count += 1
    if count < 60:
        raise AssertionError(f"{count} examples found in {PAGES}")
    print(f"{count} examples")


def broker_for(place, kind):
    broker = place.start({"offsets.topic.num.partitions": "3"}, kind=kind, name="docs")
    return Shell(place.directory / "shell", broker), broker


@scenario(240)
def docs(place):
    """Every example of docs/command-line.md and README.md prints what the page says."""
    shell, _ = broker_for(place, place.subject)
    run_pages(shell)


HELP = re.compile(r"^  (milena [a-z].*?)(?:  +\S.*)?$", re.M)
# Of these the tests of the broker and of log-dump take care.
OTHERS = ("milena start", "milena export-znodes", "milena log-dump", "milena bench", "milena produce", "milena consume")


def help_examples(shell, words=()):
    """The examples of a command and its subcommands."""
    _, text = shell.run(f"milena {' '.join(words)} --help")
    head, _, examples = text.partition("\nExamples:\n")
    found = [(command, text) for command in HELP.findall(examples)]
    listed = head.partition("\nCommands:\n")[2].partition("\n\n")[0]
    for name in re.findall(r"^  ([a-z][a-z-]+) ", listed, re.M):
        if name != "help":
            found += help_examples(shell, (*words, name))
    return found


def topic_names(shell):
    return {row["topic"] for row in shell.objects("milena topics list")}


def vanish(shell, topics):
    """Deletes topics and waits until they can be made again."""
    names = " ".join(topics)
    shell.step("run", f"milena topics delete {names} --if-exists --yes")
    until(30, f"{names} can be made", lambda: shell.run(f"milena topics create {names} --validate-only")[0] == 0 and
          not set(topics) & topic_names(shell))


def appear(shell, topics):
    """Makes the topics that are missing. Kafka takes one that it is still deleting for one that exists."""

    def are_there():
        missing = topics - topic_names(shell)
        if missing:
            shell.step("run", f"milena topics create {' '.join(missing)} --if-not-exists --partitions 3 -r 1")
        return not missing

    until(30, f"{topics} are there", are_there)


def prepare(shell, command):
    """Brings about what an example takes for granted."""
    topics = {"orders", "audit", "audit-1", "placed", "orders-1"}
    made = re.match(r"milena topics create ((?:[a-z]\S* )*[a-z]\S*)", command)
    gone = set(made.group(1).split()) if made else set()
    if gone:
        vanish(shell, gone)
    appear(shell, topics - gone)
    if "delete-records" in command:
        for partition in range(3):
            shell.run(f"seq 1 200 | kcat -q -P -t orders -p {partition}")
    if "topics alter" in command:
        vanish(shell, ["orders", "placed"])
        appear(shell, {"orders", "placed"})
    if "groups" in command:
        for group in ("billing", "audit", "billing-1", "test-1"):
            code, output = shell.run(f"milena groups reset {group} --topic orders --topic audit --to-latest --execute")
            equal(code, 0, f"a group with offsets: {output}")
    if "plan.csv" in command:
        (shell.directory / "plan.csv").write_text("orders,0,0\n")
    if "delete.json" in command:
        (shell.directory / "delete.json").write_text(
            json.dumps({"version": 1, "partitions": [{"topic": "orders", "partition": 0, "offset": 100}]}))
    if "configs unset" in command:
        shell.run("milena configs set --topic orders retention.ms=86400000 cleanup.policy=compact")
    for directory in (".zfunc", ".config/fish/completions", "etc/bash_completion.d"):
        (shell.directory / directory).mkdir(parents=True, exist_ok=True)


def run_help(shell):
    found = [(command, text) for command, text in help_examples(shell) if not command.startswith(OTHERS)]
    seen = []
    for command, text in found:
        if command in seen:
            continue
        seen.append(command)
        prepare(shell, command)
        line = command.replace("/etc/", "etc/").replace("/usr/", "usr/").replace("kafka-1:9092,kafka-2:9092", shell.bootstrap)
        line = line.replace("--broker 0,1", "--broker 0")
        if re.search(r" delete(-\w+)? ", line) and "--yes" not in line:
            line += " --yes"
        code, output = shell.run(line)
        if code != 0:
            raise AssertionError(f"exit code {code} of an example of --help: {line}\n{output}")
        if output and "--json" in line:
            objects = [json.loads(row) for row in output.splitlines() if not row.startswith("milena: ")]
            equal(all(isinstance(one, dict) for one in objects), True, f"objects of {line}")
    if len(seen) < 70:
        raise AssertionError(f"{len(seen)} examples found in --help")
    print(f"{len(seen)} examples")


@scenario(240)
def help_of_commands(place):
    """Every example of --help works."""
    shell, _ = broker_for(place, place.subject)
    run_help(shell)


def newer(place, kind):
    if place.subject != "milena":
        raise Skip("the command line is Milena's, and so is tried once")
    shell, broker = broker_for(place, kind)
    run_pages(shell)
    run_help(shell)
    return shell, broker


@scenario(300)
def kafka_3_9(place):
    """Every example of the docs and of --help against Apache Kafka 3.9.1."""
    newer(place, "kafka-3.9.1")


@scenario(300)
def kafka_4_1(place):
    """Every example of the docs and of --help against Apache Kafka 4.1.0."""
    shell, broker = newer(place, "kafka-4.1.0")
    # A group in the protocol of KIP-848 is not described to a client of the older one, but its offsets are.
    shell.step("run", "milena topics create new-protocol --partitions 2 && seq 1 10 | kcat -q -P -t new-protocol -p 1")
    java(place, "4.1.0", broker.bootstrap).run(
        ("consume", "new-protocol", 10, place.directory / "read", "group.id=modern", "group.protocol=consumer"))
    rows = shell.objects("milena groups describe modern")
    equal([(row["partition"], row["current_offset"], row["lag"]) for row in rows if row["partition"] == 1], [(1, 10, 0)],
          "offsets of a group in the new protocol")
    equal([row["group"] for row in shell.objects("milena groups list modern")], ["modern"], "the group is listed")


@scenario(240)
def as_kafkas_tools(place):
    """What it shows is what kafka-topics, -consumer-groups, -configs, -log-dirs and GetOffsetShell show of the same cluster."""
    shell, broker = broker_for(place, place.subject)
    tools = Tools(place, broker.bootstrap)
    for line in ("milena topics create orders --partitions 3 --config retention.ms=86400000 --config max.message.bytes=2000000",
                 "milena topics create audit --partitions 2",
                 "seq 1 50 | kcat -q -P -t orders -p 0", "seq 1 70 | kcat -q -P -t orders -p 2",
                 "seq 1 9 | kcat -q -P -t audit -p 1",
                 "milena configs set --broker 0 log.cleaner.threads=2"):
        code, output = shell.run(line)
        equal(code, 0, f"{line}: {output}")
    shell.join("billing", "orders")
    shell.step("run", "milena groups reset lagging --topic orders --topic audit:1 --to-earliest --execute")
    topics(shell, tools)
    groups(shell, tools)
    configs(shell, tools)
    # A pattern that changes something leaves the brokers' own topics alone.
    code, output = shell.run("milena configs set --topic '*' max.message.bytes=2000000 --validate-only")
    equal((code, output), (0, "could set max.message.bytes of topic audit\ncould set max.message.bytes of topic orders\n"), "by pattern")
    places(shell, tools)
    shell.leave("billing")
    resets(shell, tools, place.directory)


def topics(shell, tools):
    names = [row["topic"] for row in shell.objects("milena topics list")]
    equal(names, sorted(tools.run("kafka-topics", "--list").split()), "topics")
    described = tools.run("kafka-topics", "--describe")
    theirs = re.findall(r"Topic: (\S+)\s+Partition: (\d+)\s+Leader: (\S+)\s+Replicas: (\S*)\s+Isr: (\S*)", described)
    configs = dict(re.findall(r"Topic: (\S+)\s+PartitionCount: .*?Configs: (\S*)", described))
    ours = []
    for row in shell.objects("milena topics describe"):
        ours += [(row["topic"], str(one["partition"]), str(one["leader"]), ",".join(map(str, one["replicas"])),
                  ",".join(map(str, one["isr"]))) for one in row["partitions"]]
        text = configs[row["topic"]]
        wanted = dict(part.split("=", 1) for part in text.split(",")) if text else {}
        equal(row["configs"], wanted, f"settings of {row['topic']}")
    equal(sorted(ours), sorted(theirs), "partitions")


def column(value):
    return "-" if value is None else str(value)


def groups(shell, tools):
    equal(sorted(row["group"] for row in shell.objects("milena groups list")),
          sorted(tools.script("kafka-consumer-groups", "--list").split()), "groups")
    for group in ("billing", "lagging"):
        described = tools.run("kafka-consumer-groups", "--describe", "--group", group)
        theirs = [line.split() for line in described.splitlines() if line.startswith(group + " ")]
        keys = ("group", "topic", "partition", "current_offset", "log_end_offset", "lag", "consumer_id", "host", "client_id")
        ours = [[column(row[key]) for key in keys] for row in shell.objects(f"milena groups describe {group}")]
        equal(sorted(ours), sorted(theirs), f"offsets of {group}")
        state = tools.run("kafka-consumer-groups", "--describe", "--group", group, "--state")
        (line,) = [line.split() for line in state.splitlines() if line.startswith(group + " ")]
        (row,) = shell.objects(f"milena groups describe {group} --state")
        assignor = [row["assignor"]] if row["assignor"] else []
        equal([row["group"], shell.bootstrap, f"({row['coordinator']})", *assignor, row["state"], str(row["members"])], line,
              f"state of {group}")
    members = tools.run("kafka-consumer-groups", "--describe", "--group", "billing", "--members", "--verbose")
    theirs = [line.split(None, 5) for line in members.splitlines() if line.startswith("billing ")]
    code, output = shell.run("milena groups describe billing --members")
    ours = [line.split(None, 6) for line in output.splitlines() if line.startswith("billing ")]
    equal([line[:2] + line[3:] for line in ours], [[cell.strip() for cell in line] for line in theirs], "members of billing")


def configs(shell, tools):
    for option, kind, name in (("--topic orders", "topics", "orders"), ("--broker 0", "brokers", "0")):
        described = tools.run("kafka-configs", "--entity-type", kind, "--entity-name", name, "--describe", "--all")
        theirs = {}
        for key, value, sensitive, synonyms in re.findall(
                r"^  (\S+?)=(.*?) sensitive=(true|false) synonyms=\{(.*)\}$", described, re.M):
            theirs[key] = (value, sensitive == "true", synonyms)
        rows = shell.objects(f"milena configs describe {option} --all --synonyms")
        ours = {}
        for row in rows:
            synonyms = ", ".join(f"{one['source']}:{one['name']}={column(one['value']) if one['value'] is not None else 'null'}"
                                 for one in row["synonyms"])
            ours[row["name"]] = ("null" if row["value"] is None else row["value"], row["sensitive"], synonyms)
        equal(ours, theirs, f"settings of {kind} {name}")
        described = tools.run("kafka-configs", "--entity-type", kind, "--entity-name", name, "--describe")
        equal([row["name"] for row in shell.objects(f"milena configs describe {option}")],
              sorted(re.findall(r"^  (\S+?)=", described, re.M)), f"what is set for {kind} {name}")


def places(shell, tools):
    for time in ("-1", "-2"):
        theirs = tools.run("kafka-get-offset-shell", "--broker-list", shell.bootstrap, "--topic", "orders", "--time", time,
                           server=False).split()
        ours = [f"{row['topic']}:{row['partition']}:{row['offset']}" for row in shell.objects(f"milena offsets orders --time {time}")]
        equal(sorted(ours), sorted(theirs), f"offsets at {time}")
    described = json.loads(tools.run("kafka-log-dirs", "--describe").splitlines()[-1])
    theirs = sorted((broker["broker"], directory["logDir"], partition["partition"], partition["size"], partition["offsetLag"],
                     partition["isFuture"])
                    for broker in described["brokers"] for directory in broker["logDirs"] for partition in directory["partitions"])
    ours = sorted((row["broker"], row["directory"], f"{row['topic']}-{row['partition']}", row["bytes"], row["offset_lag"],
                   row["future"]) for row in shell.objects("milena logdirs --by partition"))
    # The group's offsets may be committed between the two.
    steady = [[row for row in rows if not row[2].startswith("__")] for rows in (ours, theirs)]
    equal(steady[0], steady[1], "log directories")
    equal([row[:3] for row in ours], [row[:3] for row in theirs], "partitions of the log directories")


def resets(shell, tools, directory):
    """Each goal gives what kafka-consumer-groups gives, and each reads what the other exports."""
    goals = ["--to-earliest", "--to-latest", "--to-current", "--to-offset 7", "--to-offset 1000", "--shift-by -3", "--shift-by 2",
             "--to-datetime 2020-01-01T00:00:00.000", "--to-datetime 2099-01-01T00:00:00.000", "--by-duration PT1H",
             "--by-duration P1D"]
    for goal in goals:
        words = ["--group", "lagging", "--all-topics", *goal.split()]
        theirs = tools.run("kafka-consumer-groups", "--reset-offsets", *words, "--dry-run")
        theirs = re.findall(r"^lagging\s+(\S+)\s+(\d+)\s+(\d+)", theirs, re.M)
        ours = [(row["topic"], str(row["partition"]), str(row["new_offset"]))
                for row in objects(shell.run(f"milena groups reset lagging --all-topics {goal.replace('by -', 'by=-')} --json")[1])]
        equal(sorted(ours), sorted(theirs), f"the plan of {goal}")
    code, exported = shell.run("milena groups reset lagging --all-topics --to-latest --export 2>/dev/null")
    path = directory / "plan.csv"
    path.write_text(exported)
    output = tools.run("kafka-consumer-groups", "--reset-offsets", "--group", "lagging", "--from-file", path, "--execute")
    equal(len(re.findall(r"^lagging\s+", output, re.M)), len(exported.splitlines()), "lines that Kafka's tool read")
    equal(sum(row["lag"] for row in shell.objects("milena groups describe lagging")), 0, "lag after Kafka's tool read our plan")
    theirs = tools.run("kafka-consumer-groups", "--reset-offsets", "--group", "lagging", "--all-topics", "--to-earliest",
                       "--export", "--dry-run")
    path.write_text("".join(line + "\n" for line in theirs.splitlines() if re.match(r"\"?\w+\"?,\d+,\d+$", line)))
    code, output = shell.run(f"milena groups reset lagging --from-file {path} --execute")
    equal(code, 0, f"a plan of Kafka's tool: {output}")
    rows = shell.objects("milena groups describe lagging")
    equal((len(rows), {row["current_offset"] for row in rows}), (4, {0}), "offsets after we read the plan of Kafka's tool")
    for words, text in ((["--group", "lagging", "--topic", "orders"], "orders"), (["--group", "lagging", "--topic", "audit:1"], "audit")):
        contains(tools.run("kafka-consumer-groups", "--describe", "--group", "lagging"), text)
        shell.step("run", f"milena groups delete-offsets lagging --topic {words[3]} --yes")
    shell.step("run", "milena groups delete lagging --yes || milena groups list")
    equal("lagging" in tools.run("kafka-consumer-groups", "--list").split(), False, "the group is listed")


def objects(output):
    return [json.loads(line) for line in output.splitlines() if line.startswith("{")]
