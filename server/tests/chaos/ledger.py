"""The ledger: what every client did and was told, one append-only file each, a line an event, its fields set apart by tabs.

A producer's file: `producer NAME TOPIC LIBRARY`, then
  i COUNTER PARTITION TIMESTAMP SIZE    before the send
  a COUNTER OFFSET MS                   the ack (offset -1: the client was not told where)
  f COUNTER ERROR                       refused for certain: it is in no log
  u COUNTER ERROR                       given up: it may be there or not
  x ERROR                               the client said it cannot go on
A consumer's file: `consumer NAME GROUP LIBRARY` (a group of `-`: partitions are assigned), then
  s TOPIC PARTITION OFFSET MS           a partition became its own; the offset the coordinator has (-1: none), asked after MS
  r TOPIC PARTITION OFFSET PRODUCER COUNTER MARK   a record; MARK is `ok`, or what is wrong with its payload
  c TOPIC PARTITION OFFSET MS           a commit that was answered
  o TOPIC PARTITION OFFSET MS           a committed offset that an onlooker was told, asked after MS
  h MS                                  the library locked itself up; another client goes on

A payload is `PRODUCER|COUNTER|SIZE|filler` and ends with the CRC of all before it. Key, header and timestamp say the same again.
"""

import os
import time
import zlib
from dataclasses import dataclass, field
from pathlib import Path

FILLER = b"the quick brown fox jumps over the lazy dog; " * 23302
CRC_DIGITS = 8


def now():
    return int(time.time() * 1000)


def payload(producer, counter, size):
    """Of that size, or as short as it can be."""
    head = f"{producer}|{counter}|{size}|".encode()
    body = head + FILLER[:max(0, size - len(head) - CRC_DIGITS)]
    return body + b"%08x" % zlib.crc32(body)


def read_payload(value):
    """(producer, counter, mark)."""
    try:
        producer, counter, size, _ = value.split(b"|", 3)
        producer, counter, size = producer.decode(), int(counter), int(size)
    except (ValueError, AttributeError):
        return "?", -1, "not a payload"
    if b"%08x" % zlib.crc32(value[:-CRC_DIGITS]) != value[-CRC_DIGITS:]:
        return producer, counter, "wrong CRC"
    if len(value) != size and len(value) != len(payload(producer, counter, size)):
        return producer, counter, "wrong length"
    return producer, counter, "ok"


class Writer:
    """Appends lines; each is in the file when `write` returns."""

    def __init__(self, path, *header):
        self.descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        self.write(*header)

    def write(self, *fields):
        os.write(self.descriptor, ("\t".join(map(str, fields)) + "\n").encode())


@dataclass
class Producer:
    name: str
    topic: str
    library: str
    intents: dict = field(default_factory=dict)  # counter -> (partition, timestamp, size)
    acked: dict = field(default_factory=dict)  # counter -> (offset, ms)
    failed: dict = field(default_factory=dict)
    unknown: dict = field(default_factory=dict)
    ended: list = field(default_factory=list)

    def open(self):
        """How many records have no outcome."""
        return len(self.intents) - len(self.acked) - len(self.failed) - len(self.unknown)


@dataclass
class Consumer:
    name: str
    group: str
    library: str
    events: list = field(default_factory=list)  # (kind, topic, partition, offset, ...)


class Reader:
    """Follows the files of a directory as they grow."""

    def __init__(self, directory):
        self.directory = Path(directory)
        self.at = {}
        self.producers, self.consumers = {}, {}
        self.owners = {}
        self.acks = 0
        self.locked_up = 0
        self.positions = {}  # (group or name, topic, partition) -> offset after the last record read

    def update(self):
        for path in sorted(self.directory.glob("*.ledger")):
            with open(path, "rb") as lines:
                lines.seek(self.at.get(path, 0))
                data = lines.read()
            whole = data.rfind(b"\n") + 1
            self.at[path] = self.at.get(path, 0) + whole
            for line in data[:whole].decode().splitlines():
                self.line(path, line.split("\t"))
        return self

    def line(self, path, fields):
        kind = fields[0]
        if kind == "producer":
            self.owners[path] = self.producers[fields[1]] = Producer(*fields[1:])
        elif kind == "consumer":
            self.owners[path] = self.consumers[fields[1]] = Consumer(*fields[1:])
        elif kind == "i":
            self.owners[path].intents[int(fields[1])] = tuple(map(int, fields[2:]))
        elif kind == "a":
            self.owners[path].acked[int(fields[1])] = (int(fields[2]), int(fields[3]))
            self.acks += 1
        elif kind == "f":
            self.owners[path].failed[int(fields[1])] = fields[2]
        elif kind == "u":
            self.owners[path].unknown[int(fields[1])] = fields[2]
        elif kind == "x":
            self.owners[path].ended.append(fields[1])
        elif kind == "h":
            self.locked_up += 1
        elif kind == "r":
            owner = self.owners[path]
            where = owner.name if owner.group == "-" else owner.group
            partition, offset = int(fields[2]), int(fields[3])
            owner.events.append(("r", fields[1], partition, offset, fields[4], int(fields[5]), fields[6]))
            key = (where, fields[1], partition)
            self.positions[key] = max(self.positions.get(key, 0), offset + 1)
        else:
            self.owners[path].events.append((kind, fields[1], *map(int, fields[2:])))
