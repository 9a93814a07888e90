"""Records as the tests compare them, the payloads they carry, and the file format shared with the Node and Java drivers.

A line of such a file: partition, offset, timestamp, key, value, headers, set apart by tabs. Null is `-`, bytes are base64,
headers are `name:bytes;name:bytes`. Files of records read back hold `size:sha256` in place of the value.
"""

import base64
import hashlib
import random
import time
import zipfile
from dataclasses import dataclass, field, replace
from pathlib import Path

import peers

SIZES = [1, 2, 10, 100, 1000, 1024, 5000, 16384, 65536, 100_000, 300_000, 900_000]
LARGE = 5_000_000
# An hour ago, to the hour: retention takes no record away while the tests run.
TIME = (int(time.time()) // 3600 - 1) * 3_600_000


def digest(value):
    return None if value is None else f"{len(value)}:{hashlib.sha256(value).hexdigest()}"


@dataclass(frozen=True, order=True)
class Record:
    """One record; `value` is the bytes to be sent, or the digest of what was read."""

    partition: int
    offset: int
    timestamp: int
    key: bytes
    value: object
    headers: tuple = field(default=())

    def line(self):
        value = self.value if isinstance(self.value, str) else encoded(self.value)
        headers = ";".join(f"{name}:{encoded(data)}" for name, data in self.headers)
        return f"{self.partition}\t{self.offset}\t{self.timestamp}\t{encoded(self.key)}\t{value}\t{headers}\n"

    def read(self):
        """The same record as one that was read: with the value's digest."""
        return self if isinstance(self.value, str) else replace(self, value=digest(self.value))


def encoded(data):
    return "-" if data is None else base64.b64encode(data).decode()


def decoded(text):
    return None if text == "-" else base64.b64decode(text)


def write(path, records):
    with open(path, "w") as out:
        out.writelines(record.line() for record in records)
    return path


def load(path):
    """The records of a file that a driver wrote."""
    found = []
    with open(path) as lines:
        for line in lines:
            partition, offset, timestamp, key, value, headers = line.rstrip("\n").split("\t")
            pairs = tuple((name, decoded(data)) for name, data in
                          (pair.split(":") for pair in headers.split(";") if pair))
            found.append(Record(int(partition), int(offset), int(timestamp), decoded(key),
                                None if value == "-" else value, pairs))
    return found


def json_text():
    """Real JSON: the message definitions inside Kafka's own client jar, comments dropped."""
    (jar,) = peers.kafka().glob("kafka-clients-*.jar")
    with zipfile.ZipFile(jar) as archive:
        parts = [archive.read(name).decode() for name in sorted(archive.namelist()) if name.endswith("Request.json")
                 or name.endswith("Response.json")]
    lines = [line for part in parts for line in part.splitlines() if not line.lstrip().startswith("//")]
    return "\n".join(lines).encode()


def prose():
    """Real text: what this repository says about itself."""
    files = sorted([*peers.ROOT.glob("*.md"), *peers.ROOT.glob("docs/**/*.md"), *peers.ROOT.glob("server/src/**/*.rs"),
                    *peers.ROOT.glob("engine/src/**/*.rs")])
    return b"\n".join(Path(path).read_bytes() for path in files)


def payloads(sizes=None):
    """A value of text and one of JSON for each size."""
    values = []
    for source in (prose(), json_text()):
        for at, size in enumerate(sizes or SIZES):
            start = (at * 7919) % max(1, len(source) - size)
            value = source[start:start + size]
            values.append((value * (size // max(1, len(value)) + 1))[:size])
    return values


def samples(partitions=3, sizes=None, headers=True, keys=True, seed=0):
    """Records to be sent: every size of payload, a null value, empty and null keys, headers with null and empty values.

    Timestamps lie in the past and are not monotonic.
    """
    rng = random.Random(seed)
    values = [*payloads(sizes), b"", None, "Grüße, 世界 🌍".encode()]
    found = []
    for at, value in enumerate(values):
        key = f"key-{at}".encode() if keys and at % 5 else (b"" if at % 2 else None)
        if value is None:
            key = b"tombstone"
        marks = ()
        if headers and at % 3:
            marks = (("trace", f"{at}".encode()), ("empty", b""), ("trace", b"\x00\xff"))[:1 + at % 3]
            marks += (("null", None),) if at % 2 else ()
        found.append(Record(at % partitions, -1, TIME + rng.randrange(1_000_000), key, value, marks))
    return found


def compare(sent, got, what, timestamps=True, headers=True):
    """Fails unless the same records stand in each partition, in the order in which they were sent."""

    def plain(records):
        by_partition = {}
        for record in sorted((record.read() for record in records), key=lambda r: (r.partition, r.offset)):
            record = replace(record, offset=-1, timestamp=record.timestamp if timestamps else -1,
                             headers=record.headers if headers else ())
            by_partition.setdefault(record.partition, []).append(record)
        return by_partition

    wanted, found = plain(sent), plain(got)
    if wanted == found:
        return
    for partition in sorted({*wanted, *found}):
        left, right = wanted.get(partition, []), found.get(partition, [])
        for at, (one, other) in enumerate(zip(left, right)):
            if one != other:
                raise AssertionError(f"{what}: partition {partition}, record {at}:\n  sent {one}\n  read {other}")
        if len(left) != len(right):
            raise AssertionError(f"{what}: partition {partition}: sent {len(left)} records, read {len(right)}")
