"""Reads the files of a partition by itself: batches of format v2, and the records in them.

Written from the format's description and shared with nothing that is under test. A file may end with zeros (space that is
reserved) or with the beginning of a batch that is being written.
"""

import gzip
import hashlib
import struct
from dataclasses import dataclass
from pathlib import Path

import crc32c
import lz4.frame
import zstandard

HEADER = struct.Struct(">qiibIhiqqqhii")
OVERHEAD = 61
CRC_FROM = 21


class Damaged(Exception):
    """What is not a batch, and not the end of a file either."""


@dataclass
class Batch:
    base: int
    end: int
    epoch: int
    attributes: int
    first_timestamp: int
    producer: int
    producer_epoch: int
    sequence: int
    count: int
    raw: bytes


def varint(data, at):
    shift = number = 0
    while True:
        byte = data[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return (number >> 1) ^ -(number & 1), at
        shift += 7


def batches(path):
    """The batches of one file, and how many bytes they take."""
    data = Path(path).read_bytes()
    found, at = [], 0
    while at + OVERHEAD <= len(data):
        (base, length, epoch, magic, crc, attributes, last, first_timestamp, _, producer, producer_epoch, sequence,
         count) = HEADER.unpack_from(data, at)
        if length == 0 and base == 0:
            break
        if magic != 2 or length < OVERHEAD - 12 or last < 0:
            raise Damaged(f"{path}: no batch at byte {at}: base offset {base}, length {length}, magic {magic}")
        end = at + 12 + length
        if end > len(data):
            break
        raw = data[at:end]
        if crc32c.crc32c(raw[CRC_FROM:]) != crc:
            raise Damaged(f"{path}: wrong CRC of the batch at byte {at}, base offset {base}")
        found.append(Batch(base, base + last + 1, epoch, attributes, first_timestamp, producer, producer_epoch, sequence, count,
                           raw))
        at = end
    if data[at:].strip(b"\0") and at + OVERHEAD <= len(data):
        # What is left is the beginning of one batch: its length goes beyond the end of the file.
        length = struct.unpack_from(">i", data, at + 8)[0]
        if at + 12 + length <= len(data):
            raise Damaged(f"{path}: bytes after the last batch, from byte {at}")
    return found, at


def bytes_in(data):
    """Of each file of a log in a data directory, how many bytes look like batches; nothing is checked."""
    found = {}
    for path in Path(data).glob("*-*/*.log"):
        raw, at = path.read_bytes(), 0
        while at + OVERHEAD <= len(raw):
            base, length, _, magic = struct.unpack_from(">qiib", raw, at)
            if magic != 2 or length < OVERHEAD - 12 or at + 12 + length > len(raw):
                break
            at += 12 + length
        found[path.relative_to(data)] = at
    return found


def replica(directory):
    """All batches of a partition's directory in order."""
    found = []
    for path in sorted(Path(directory).glob("*.log")):
        found += batches(path)[0]
    for one, after in zip(found, found[1:]):
        if after.base != one.end:
            raise Damaged(f"{directory}: offset {after.base} follows {one.end - 1}")
        if after.epoch < one.epoch:
            raise Damaged(f"{directory}: leader epoch {after.epoch} follows {one.epoch} at offset {after.base}")
    return found


def digest(found):
    total = hashlib.sha256()
    for batch in found:
        total.update(batch.raw)
    return total.hexdigest()


def difference(one, other):
    """Where two replicas part, as text; none where they are the same."""
    for left, right in zip(one, other):
        if left.raw != right.raw:
            return f"at offset {left.base} epoch {left.epoch} producer {left.producer}/{left.sequence} has " \
                   f"{left.count} records; the other at offset {right.base} epoch {right.epoch} producer " \
                   f"{right.producer}/{right.sequence} has {right.count}"
    if len(one) != len(other):
        return f"ends at {one[-1].end if one else 0}, the other at {other[-1].end if other else 0}"
    return None


def snappy(data):
    import snappy as library

    if not data.startswith(b"\x82SNAPPY\0"):
        return library.uncompress(data)
    at, out = 16, []
    while at < len(data):
        size = struct.unpack_from(">i", data, at)[0]
        out.append(library.uncompress(data[at + 4:at + 4 + size]))
        at += 4 + size
    return b"".join(out)


CODECS = {0: lambda data: data, 1: gzip.decompress, 2: snappy, 3: lz4.frame.decompress,
          4: lambda data: zstandard.ZstdDecompressor().decompressobj().decompress(data)}


def records(batch):
    """(offset, timestamp, key, value, headers) of each record."""
    data = CODECS[batch.attributes & 7](batch.raw[OVERHEAD:])
    at = 0
    for _ in range(batch.count):
        _, at = varint(data, at)
        at += 1
        timestamp, at = varint(data, at)
        offset, at = varint(data, at)
        fields = []
        for _ in range(2):
            size, at = varint(data, at)
            fields.append(None if size < 0 else data[at:at + size])
            at += max(size, 0)
        count, at = varint(data, at)
        headers = []
        for _ in range(count):
            size, at = varint(data, at)
            name = data[at:at + size].decode()
            at += size
            size, at = varint(data, at)
            headers.append((name, None if size < 0 else data[at:at + size]))
            at += max(size, 0)
        yield batch.base + offset, batch.first_timestamp + timestamp, fields[0], fields[1], tuple(headers)


def committed(found):
    """(group, topic, partition, offset, ms) of each record of __consumer_offsets that commits one, in order; offset none: deleted."""
    for batch in found:
        for _, timestamp, key, value, _ in records(batch):
            if key is None or struct.unpack_from(">h", key)[0] not in (0, 1):
                continue
            names, at = [], 2
            for _ in range(2):
                size = struct.unpack_from(">h", key, at)[0]
                names.append(key[at + 2:at + 2 + size].decode())
                at += 2 + size
            partition = struct.unpack_from(">i", key, at)[0]
            offset = None if value is None else struct.unpack_from(">q", value, 2)[0]
            yield names[0], names[1], partition, offset, timestamp
