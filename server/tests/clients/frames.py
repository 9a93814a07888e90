"""Request frames made from Kafka's own message definitions, which lie as JSON inside its client jar, and ways to spoil them.

`Frames` encodes a plausible request of every key and version (and a few versions that do not exist); `spoiled` gives one
that is truncated, mutated, oversized, or whose lengths are forged.
"""

import json
import struct
import zipfile

import peers

# Requests between brokers, which Apache Kafka obeys from anybody; and those that would make it create millions of partitions.
DANGEROUS = {4, 5, 6, 7, 19, 37, 45, 56, 57}
# How many partitions a request asks for: it may get them.
PARTITION_COUNTS = {"NumPartitions", "Count"}
NAMES = ["hostile-a", "hostile-b", "", "no such", "x" * 300]


def definitions():
    (jar,) = peers.kafka().glob("kafka-clients-*.jar")
    found = {}
    with zipfile.ZipFile(jar) as archive:
        for name in archive.namelist():
            if name.startswith("common/message/") and name.endswith("Request.json"):
                text = "\n".join(line for line in archive.read(name).decode().splitlines()
                                 if not line.lstrip().startswith("//"))
                definition = json.loads(text)
                found[definition["apiKey"]] = definition
    return found


def versions(text, top=32767):
    """The (first, last) of `0-3`, `2+`, `1` or `none`."""
    if text == "none":
        return (1, 0)
    if text.endswith("+"):
        return (int(text[:-1]), top)
    first, _, last = text.partition("-")
    return (int(first), int(last or first))


def within(version, text):
    first, last = versions(text)
    return first <= version <= last


def varint(number):
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


class Frames:
    """Builds frames from a seed's randomness."""

    def __init__(self, rng, without=()):
        self.rng = rng
        self.definitions = {key: value for key, value in definitions().items() if key not in without}
        self.lengths = []

    def scalar(self, kind):
        rng = self.rng
        small = rng.choice([-1, 0, 0, 1, 2, 3])
        return {"bool": lambda: bytes([rng.randrange(2)]),
                "int8": lambda: struct.pack(">b", small),
                "int16": lambda: struct.pack(">h", small),
                "int32": lambda: struct.pack(">i", rng.choice([small, 1000, 100000])),
                "count": lambda: struct.pack(">i", small),
                "int64": lambda: struct.pack(">q", rng.choice([small, 5, 1 << 40])),
                "float64": lambda: struct.pack(">d", rng.random()),
                "uuid": lambda: rng.randbytes(16)}[kind]()

    def length(self, out, number, flexible, wide):
        """Writes a length and notes its place, so that it can be forged."""
        self.lengths.append(len(out))
        out += varint(number + 1) if flexible else struct.pack(">i" if wide else ">h", number)

    def value(self, out, kind, field, version, structs, flexible):
        rng = self.rng
        if kind.startswith("[]"):
            if within(version, field.get("nullableVersions", "none")) and rng.random() < 0.2:
                self.length(out, -1, flexible, True)
                return
            count = rng.randrange(3)
            self.length(out, count, flexible, True)
            for _ in range(count):
                self.value(out, kind[2:], {"fields": field.get("fields", [])}, version, structs, flexible)
        elif kind in ("string", "bytes", "records"):
            if within(version, field.get("nullableVersions", "none")) and rng.random() < 0.3:
                self.length(out, -1, flexible, kind != "string")
                return
            data = rng.choice(NAMES).encode() if kind == "string" else rng.randbytes(rng.choice([0, 1, 61, 200]))
            self.length(out, len(data), flexible, kind != "string")
            out += data
        elif kind[0].isupper():
            self.fields(out, field.get("fields") or structs.get(kind, []), version, structs, flexible)
        else:
            out += self.scalar("count" if field.get("name") in PARTITION_COUNTS else kind)

    def fields(self, out, fields, version, structs, flexible):
        for field in fields:
            if within(version, field["versions"]) and not ("tag" in field and within(version, field["taggedVersions"])):
                self.value(out, field["type"], field, version, structs, flexible
                           and within(version, field.get("flexibleVersions", "0+")))
        if flexible:
            out += b"\0"

    def frame(self, key=None, version=None):
        """(key, version, bytes without the size) of a plausible request; `lengths` has the places of its lengths."""
        rng = self.rng
        key = rng.choice(list(self.definitions)) if key is None else key
        definition = self.definitions[key]
        first, last = versions(definition["validVersions"], 0)
        version = rng.randint(first, max(first, last)) if version is None else version
        flexible = within(version, definition.get("flexibleVersions", "none"))
        structs = {item["name"]: item["fields"] for item in definition.get("commonStructs", [])}
        out = bytearray(struct.pack(">hhi", key, version, rng.randrange(1 << 31)))
        self.lengths = [len(out)]
        client = b"hostile"
        out += struct.pack(">h", len(client)) + client
        if flexible:
            out += b"\0"
        self.fields(out, definition["fields"], version, structs, flexible)
        return key, version, out

    def spoiled(self):
        """(what it is, bytes to send as they are): the size in front may lie too."""
        rng = self.rng
        kind = rng.choice(["whole", "truncated", "mutated", "length", "size", "version", "key", "noise", "tail", "huge"])
        key, version, body = self.frame()
        size = None
        if kind == "truncated":
            body = body[:rng.randrange(len(body))]
            size = rng.choice([None, len(body) + 1, len(body) + 100])
        elif kind == "mutated":
            for _ in range(rng.randint(1, 8)):
                body[rng.randrange(8, len(body))] = rng.randrange(256)
        elif kind == "length":
            at = rng.choice(self.lengths)
            forged = rng.choice([b"\x7f\xff\xff\xff", b"\x80\0\0\0", b"\xff\xff\xff\xff\x7f", b"\x7f\xff", b"\xff\xfe",
                                 b"\xff" * 10])
            body[at:at + len(forged)] = forged
        elif kind == "size":
            size = rng.choice([-1, -(1 << 31), (1 << 31) - 1, 104857601, 104857600, 0, 1, 3, 7])
        elif kind == "version":
            body[2:4] = struct.pack(">h", rng.choice([-1, 99, 32767, -32768, version + 1, version + 5]))
        elif kind == "key":
            body[0:2] = struct.pack(">h", rng.choice([-1, 58, 99, 32767, -32768, 1000]))
        elif kind == "noise":
            body = bytearray(rng.randbytes(rng.randrange(1, 400)))
            if len(body) > 2 and rng.random() < 0.9:
                body[0:2] = struct.pack(">h", key)
        elif kind == "tail":
            body += rng.randbytes(rng.randrange(1, 200))
        elif kind == "huge":
            body += bytes(rng.choice([10_000, 100_000]))
        spelled = f"{kind} {self.definitions[key]['name']} v{version}"
        return spelled, struct.pack(">i", len(body) if size is None else size) + bytes(body)
