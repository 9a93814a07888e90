"""Kafka's own command line tools, the main ones as users run them."""

import json
import re

import records
from scenario import contains, equal, scenario, until
from tools import Tools


@scenario(150)
def topics(place):
    """kafka-topics: create, list, describe, widen, alter, delete."""
    tools = Tools(place)
    topic = place.name()
    output = tools.script("kafka-topics", "--create", "--topic", topic, "--partitions", "3", "--replication-factor", "1",
                          "--config", "retention.ms=3600000")
    contains(output, f"Created topic {topic}.")
    contains(tools.run("kafka-topics", "--list"), topic)
    described = tools.run("kafka-topics", "--describe", "--topic", topic)
    contains(described, "PartitionCount: 3", "ReplicationFactor: 1", "retention.ms=3600000")
    equal(len(re.findall(r"Partition: \d+\s+Leader: 0\s+Replicas: 0\s+Isr: 0", described)), 3, "partitions described")
    output = tools.run("kafka-topics", "--create", "--topic", topic, "--partitions", "1", "--replication-factor", "1",
                       wanted=1)
    contains(output, f"Topic '{topic}' already exists.")
    tools.run("kafka-topics", "--create", "--if-not-exists", "--topic", topic)
    tools.run("kafka-topics", "--alter", "--topic", topic, "--partitions", "5")
    until(10, "5 partitions", lambda: "PartitionCount: 5" in tools.run("kafka-topics", "--describe", "--topic", topic))
    output = tools.run("kafka-topics", "--alter", "--topic", topic, "--partitions", "2", wanted=1)
    contains(output, "currently has 5 partitions, which is higher than the requested 2")
    equal(tools.run("kafka-topics", "--describe", "--under-replicated-partitions").strip(), "", "under-replicated")
    equal(tools.run("kafka-topics", "--describe", "--unavailable-partitions").strip(), "", "unavailable")
    contains(tools.run("kafka-topics", "--describe", "--topics-with-overrides"), topic)
    for wrong, text in [(["--topic", "bad name"], "illegal, it contains a character other than"),
                        (["--topic", topic + "-x", "--replication-factor", "2"], "Replication factor: 2 larger than"),
                        (["--topic", topic + "-y", "--config", "no.such=1"], "Unknown topic config name: no.such"),
                        (["--topic", topic + "-z", "--partitions", "0"], "")]:
        contains(tools.run("kafka-topics", "--create", *wrong, wanted=1), text)
    tools.run("kafka-topics", "--create", "--topic", topic + "-assigned", "--replica-assignment", "0,0,0")
    contains(tools.run("kafka-topics", "--describe", "--topic", topic + "-assigned"), "PartitionCount: 3")
    for name in (topic, topic + "-assigned"):
        tools.run("kafka-topics", "--delete", "--topic", name)
        until(10, "the topic is gone", lambda: name not in tools.run("kafka-topics", "--list").split())
    contains(tools.run("kafka-topics", "--delete", "--topic", topic, wanted=1), "does not exist as expected")


@scenario(150)
def console(place):
    """kafka-console-producer and -consumer: text, keys, groups, from the beginning, every codec."""
    tools = Tools(place)
    topic = place.name()
    tools.create(topic, 1)
    lines = [line for line in records.json_text().decode().splitlines() if line.strip()][:2000]
    tools.script("kafka-console-producer", "--topic", topic, stdin="\n".join(lines).encode() + b"\n")
    read = tools.script("kafka-console-consumer", "--topic", topic, "--from-beginning", "--max-messages", "2000",
                        "--group", place.name("group"))
    equal(read.splitlines(), lines, "lines read")
    # The group committed: it goes on where it stopped.
    tools.run("kafka-console-producer", "--topic", topic, stdin=b"one more\n")
    read = tools.script("kafka-console-consumer", "--topic", topic, "--max-messages", "1", "--group", place.name("group"))
    equal(read.splitlines(), ["one more"], "after the committed offset")
    for codec in ("none", "gzip", "snappy", "lz4", "zstd"):
        name = place.name(codec)
        tools.create(name, 2)
        sent = "".join(f"k{i}\t{line}\n" for i, line in enumerate(lines[:500]))
        tools.run("kafka-console-producer", "--topic", name, "--compression-codec", codec, "--property",
                  "parse.key=true", "--property", "acks=all", stdin=sent.encode())
        read = tools.script("kafka-console-consumer", "--topic", name, "--from-beginning", "--max-messages", "500",
                            "--property", "print.key=true", "--timeout-ms", "30000")
        equal(sorted(read.splitlines()), sorted(sent.splitlines()), f"lines in {codec}")


@scenario(200)
def consumer_groups(place):
    """kafka-consumer-groups: list, describe, state, members, reset, delete offsets, delete."""
    tools = Tools(place)
    topic, group = place.name(), place.name("group")
    tools.create(topic, 2)
    stdin = "".join(f"{i}\t{i}\n" for i in range(100)).encode()
    tools.run("kafka-console-producer", "--topic", topic, "--property", "parse.key=true", stdin=stdin)
    tools.script("kafka-console-consumer", "--topic", topic, "--from-beginning", "--max-messages", "100", "--group", group)

    def groups(*arguments, wanted=0):
        return tools.run("kafka-consumer-groups", *arguments, wanted=wanted)

    def rows(text):
        """(partition, current offset, end, lag) of a description."""
        return sorted(tuple(int(n) for n in found) for found in
                      re.findall(rf"^{re.escape(group)}\s+{re.escape(topic)}\s+(\d+)\s+(\d+)\s+(\d+)\s+(\d+)", text, re.M))

    contains(tools.script("kafka-consumer-groups", "--list"), group)
    contains(groups("--list", "--state"), group, "Empty")
    described = rows(groups("--describe", "--group", group))
    equal([row[0] for row in described], [0, 1], "partitions")
    equal(sum(row[1] for row in described), 100, "committed")
    equal([row[3] for row in described], [0, 0], "lag")
    contains(groups("--describe", "--group", group, "--state"), "Empty")
    contains(groups("--describe", "--group", group, "--members"), "has no active members")

    def reset(*how):
        return rows_of_reset(groups("--reset-offsets", "--group", group, "--topic", topic, "--execute", *how))

    def rows_of_reset(text):
        return sorted((int(p), int(o)) for p, o in
                      re.findall(rf"{re.escape(group)}\s+{re.escape(topic)}\s+(\d+)\s+(\d+)", text))

    ends = [(row[0], row[2]) for row in described]
    equal(reset("--to-earliest"), [(0, 0), (1, 0)], "to earliest")
    equal(reset("--shift-by", "7"), [(0, 7), (1, 7)], "shift by 7")
    equal(reset("--to-offset", "3"), [(0, 3), (1, 3)], "to offset 3")
    equal(reset("--to-latest"), ends, "to latest")
    equal(reset("--to-datetime", "2020-01-01T00:00:00.000"), [(0, 0), (1, 0)], "to a time before all")
    equal(reset("--by-duration", "PT0S"), ends, "by duration")
    equal(sum(row[3] for row in rows(groups("--describe", "--group", group))), 0, "lag after the reset")
    groups("--delete-offsets", "--group", group, "--topic", f"{topic}:0")
    equal([row[0] for row in rows(groups("--describe", "--group", group))], [1], "partitions with an offset")
    contains(groups("--delete", "--group", group), "Deletion of requested consumer groups", "was successful")
    equal(group in groups("--list").split(), False, "the group is listed")
    contains(groups("--describe", "--group", group, wanted=None), "does not exist")


@scenario(150)
def configs(place):
    """kafka-configs: topics and brokers described, altered, taken back; wrong values refused."""
    tools = Tools(place)
    topic = place.name()
    tools.create(topic, 1)

    def of_topic(*arguments, wanted=0):
        return tools.run("kafka-configs", "--entity-type", "topics", "--entity-name", topic, *arguments, wanted=wanted)

    def of_broker(*arguments, wanted=0):
        return tools.run("kafka-configs", "--entity-type", "brokers", *arguments, wanted=wanted)

    altered = tools.script("kafka-configs", "--entity-type", "topics", "--entity-name", topic, "--alter",
                           "--add-config", "retention.ms=7200000,cleanup.policy=[compact,delete]")
    contains(altered, f"Completed updating config for topic {topic}.")
    contains(of_topic("--describe"), "retention.ms=7200000", "cleanup.policy=compact,delete",
             "DYNAMIC_TOPIC_CONFIG:retention.ms=7200000")
    everything = of_topic("--describe", "--all")
    contains(everything, "segment.bytes=1073741824", "DEFAULT_CONFIG:log.segment.bytes=1073741824")
    equal(len(re.findall(r"^  [a-z.]+=", everything, re.M)), 26, "topic settings described")
    contains(of_topic("--alter", "--add-config", "retention.ms=soon", wanted=1), "retention.ms")
    contains(of_topic("--alter", "--add-config", "no.such.setting=1", wanted=1), "no.such.setting")
    of_topic("--alter", "--delete-config", "cleanup.policy")
    left = of_topic("--describe")
    contains(left, "retention.ms=7200000")
    equal("cleanup.policy" in left, False, "a deleted setting is described")
    contains(of_broker("--entity-name", "0", "--describe", "--all"), "log.retention.hours=168", "broker.id=0")
    of_broker("--entity-name", "0", "--alter", "--add-config", "log.cleaner.threads=2")
    contains(of_broker("--entity-name", "0", "--describe"), "log.cleaner.threads=2", "DYNAMIC_BROKER_CONFIG")
    of_broker("--entity-default", "--alter", "--add-config", "log.retention.ms=500000000")
    contains(of_broker("--entity-default", "--describe"), "log.retention.ms=500000000")
    # A topic without the setting inherits it, and says from where.
    tools.create(topic + "-heir", 1)
    heir = tools.run("kafka-configs", "--entity-type", "topics", "--entity-name", topic + "-heir", "--describe", "--all")
    contains(heir, "retention.ms=500000000", "DYNAMIC_DEFAULT_BROKER_CONFIG:log.retention.ms=500000000")
    contains(of_broker("--entity-name", "0", "--alter", "--add-config", "broker.id=5", wanted=1), "broker.id")
    of_broker("--entity-name", "0", "--alter", "--delete-config", "log.cleaner.threads")
    of_broker("--entity-default", "--alter", "--delete-config", "log.retention.ms")
    equal("log.retention.ms=500000000" in of_broker("--entity-default", "--describe"), False, "taken back")


@scenario(200)
def performance(place):
    """kafka-producer-perf-test and kafka-consumer-perf-test count what they sent and read."""
    tools = Tools(place)
    topic = place.name()
    tools.create(topic, 2)
    output = tools.script("kafka-producer-perf-test", "--topic", topic, "--num-records", "100000", "--record-size", "200",
                          "--throughput", "-1", "--producer-props", f"bootstrap.servers={tools.bootstrap}", "acks=all",
                          "compression.type=lz4", server=False)
    contains(output, "100000 records sent")
    output = tools.script("kafka-consumer-perf-test", "--topic", topic, "--messages", "100000", "--timeout", "30000")
    row = output.strip().splitlines()[-1].split(", ")
    equal(int(row[4]) >= 100000, True, f"records read of {row}")


@scenario(150)
def places(place):
    """kafka-log-dirs, kafka-delete-records, GetOffsetShell, kafka-broker-api-versions, kafka-acls without authorizer."""
    tools = Tools(place)
    topic = place.name()
    tools.create(topic, 1)
    tools.run("kafka-console-producer", "--topic", topic, stdin=b"".join(b"record %d\n" % i for i in range(50)))
    output = tools.run("kafka-log-dirs", "--describe", "--topic-list", topic)
    (directory,) = json.loads(output.splitlines()[-1])["brokers"][0]["logDirs"]
    equal(directory["error"], None, "error of the log directory")
    (partition,) = directory["partitions"]
    equal((partition["partition"], partition["size"] > 0, partition["offsetLag"]), (f"{topic}-0", True, 0), "partition")

    def offset(time):
        return tools.run("kafka-get-offset-shell", "--broker-list", tools.bootstrap, "--topic", topic, "--time", time,
                         server=False).strip()

    equal((offset("-1"), offset("-2")), (f"{topic}:0:50", f"{topic}:0:0"), "offsets")
    path = place.directory / "delete.json"
    path.write_text(json.dumps({"version": 1, "partitions": [{"topic": topic, "partition": 0, "offset": 20}]}))
    contains(tools.run("kafka-delete-records", "--offset-json-file", path), f"partition: {topic}-0\tlow_watermark: 20")
    equal(offset("-2"), f"{topic}:0:20", "first offset after deleting")
    read = tools.script("kafka-console-consumer", "--topic", topic, "--from-beginning", "--max-messages", "30")
    equal(read.splitlines()[0], "record 20", "first record after deleting")
    versions = tools.run("kafka-broker-api-versions")
    # Java's client prints each API that the broker advertises, and that it can use.
    for api in ("Produce(0): 0 to 8", "Fetch(1): 0 to 12", "ListOffsets(2): 0 to 5", "Metadata(3): 0 to 9",
                "ApiVersions(18): 0 to 3", "JoinGroup(11): 0 to 7", "OffsetCommit(8): 0 to 8"):
        contains(versions, api)
    contains(tools.run("kafka-acls", "--list", wanted=1), "SecurityDisabledException")


@scenario(150)
def verifiable(place):
    """kafka-verifiable-producer and -consumer agree on what was acked."""
    tools = Tools(place)
    topic = place.name()
    tools.create(topic, 3)
    output = tools.script("kafka-verifiable-producer", "--topic", topic, "--max-messages", "2000", "--acks", "-1")
    acked = [event for event in map(json.loads, output.splitlines()) if event["name"] == "producer_send_success"]
    equal(len(acked), 2000, "acks")
    output = tools.script("kafka-verifiable-consumer", "--topic", topic, "--max-messages", "2000", "--group-id",
                          place.name("group"), "--verbose", "--reset-policy", "earliest")
    events = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    read = {(event["partition"], event["offset"], event["value"]) for event in events if event["name"] == "record_data"}
    equal(read, {(event["partition"], event["offset"], event["value"]) for event in acked}, "records read")
    equal(any(event["name"] == "offsets_committed" and event["success"] for event in events), True, "committed")


@scenario(120)
def dump_log(place):
    """kafka-dump-log finds no mismatch in the files that the broker wrote, rolled segments included."""
    broker = place.start()
    tools = Tools(place, broker.bootstrap)
    topic = place.name()
    tools.create(topic, 2, segment_bytes=200000, index_interval_bytes=1000)
    for codec in ("none", "lz4", "gzip"):
        tools.run("kafka-producer-perf-test", "--topic", topic, "--num-records", 20000, "--record-size", 100,
                  "--throughput", -1, "--producer-props", f"bootstrap.servers={broker.bootstrap}",
                  f"compression.type={codec}", "batch.size=4000", server=False)
    broker.stop()
    segments = list(broker.data.glob(f"{topic}-*/*.log"))
    equal(len(segments) > 6, True, f"more than 6 segments, {len(segments)} found")
    complaints = tools.dump(broker.data)
    if place.subject == "kafka":
        # Of an uncompressed batch Kafka indexes the time of the very record, which its own tool then does not find.
        complaints = [line for line in complaints if ".timeindex: Indexed offset: " not in line]
    equal(complaints, [], "complaints")
