"""kcat (librdkafka of Debian): metadata, produce, consume, groups, offsets by time."""

import json
import re

import records
from scenario import contains, equal, scenario
from tools import Tools, kcat


@scenario(90)
def metadata(place):
    """kcat -L lists the broker, the controller and the topics."""
    Tools(place).create(place.name(), 3)
    text = kcat("-b", place.bootstrap, "-L")
    contains(text, f"broker 0 at {place.bootstrap} (controller)", f'topic "{place.name()}" with 3 partitions')
    one = json.loads(kcat("-b", place.bootstrap, "-L", "-J", "-t", place.name()))
    equal([len(p["isrs"]) for p in one["topics"][0]["partitions"]], [1, 1, 1], "in-sync replicas")


@scenario(120)
def produce_and_consume(place):
    """kcat -P and -C in every codec: lines with keys, headers, files of 900 KB and 5 MB."""
    tools = Tools(place)
    for codec in ("none", "gzip", "snappy", "lz4", "zstd"):
        topic = place.name(codec)
        tools.create(topic, 1, max_message_bytes=6000000)
        lines = [f"key-{i}:{line}" for i, line in enumerate(records.json_text().decode().splitlines()[:1000])]
        kcat("-b", place.bootstrap, "-P", "-t", topic, "-K:", "-z", codec, "-H", "source=kcat", "-X", "acks=all",
             stdin="\n".join(lines).encode() + b"\n")
        read = kcat("-b", place.bootstrap, "-C", "-t", topic, "-o", "beginning", "-e", "-q", "-f", "%k:%s %h %o\n")
        equal(read.splitlines(), [f"{line} source=kcat {i}" for i, line in enumerate(lines)], f"lines in {codec}")
        for size in (900_000, records.LARGE):
            large = place.directory / f"{codec}-{size}"
            large.write_bytes(records.payloads([size])[0])
            kcat("-b", place.bootstrap, "-P", "-t", topic, "-z", codec, "-X", "message.max.bytes=7000000", large)
            read = kcat("-b", place.bootstrap, "-C", "-t", topic, "-o", "-1", "-c", "1", "-q", "-D", "")
            equal(read.encode(errors="surrogateescape") in (large.read_bytes(), large.read_bytes() + b"\n"), True,
                  f"{size} bytes in {codec}")


@scenario(90)
def group_and_times(place):
    """kcat -G reads in a group and commits; kcat -Q finds offsets by time."""
    topic, group = place.name(), place.name("group")
    Tools(place).create(topic, 2)
    for partition in (0, 1):
        kcat("-b", place.bootstrap, "-P", "-t", topic, "-p", partition, stdin=b"".join(b"%d\n" % i for i in range(50)))
    settings = ("-b", place.bootstrap, "-X", "auto.offset.reset=earliest", "-q", "-e")
    read = kcat(*settings, "-G", group, topic)
    equal(len(read.splitlines()), 100, "lines read by the group")
    equal(kcat(*settings, "-G", group, topic), "", "lines after the commit")
    kcat("-b", place.bootstrap, "-P", "-t", topic, "-p", 1, stdin=b"later\n")
    equal(kcat(*settings, "-G", group, topic).strip(), "later", "what came after the commit")
    found = kcat("-b", place.bootstrap, "-Q", "-t", f"{topic}:0:0", "-t", f"{topic}:1:-1")
    equal(sorted(re.findall(r"\[(\d)\] offset (\d+)", found)), [("0", "0"), ("1", "51")], "offsets by time")
