#!/usr/bin/env python3
"""Seeds for the fuzz targets, from real clients and from the files of a real broker: `capture.py [CORPUS]` (default: fuzz/corpus).

Starts Apache Kafka 2.7.2 behind a proxy that keeps every frame, runs clients of four languages against it, stops it, and takes
apart what it left on its disk and in ZooKeeper. Of what is alike one is kept: the smallest frame of a key, version and size, the
smallest batch of a format, codec and kind. Nothing that is there is overwritten or removed; what grew too many is thinned by
`cargo fuzz cmin` (fuzz/README.md).
"""

import os
import shutil
import socket
import struct
import sys
import threading
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
sys.dont_write_bytecode = True

import peers  # noqa: E402

SEED_MAX = 4096  # bytes of a seed; larger ones reach no more code
CODECS = ["none", "gzip", "snappy", "lz4", "zstd"]
# As fuzz/src/recovery.rs numbers them.
PARTITION_FILES = [".log", ".index", ".timeindex", ".snapshot", ".txnindex", ".log.deleted", ".log.swap"]
LEADER_EPOCHS, DIRECTORY_FILES = 7, ["recovery-point-offset-checkpoint", "cleaner-offset-checkpoint", "meta.properties"]


class Proxy:
    """Passes bytes between clients and the broker, and keeps the frames."""

    def __init__(self):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.client, self.broker_port = "none", None
        self.requests, self.responses = {}, {}
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            client, _ = self.listener.accept()
            try:
                broker = socket.create_connection(("127.0.0.1", self.broker_port))
            except OSError:
                client.close()
                continue
            asked = {}
            for source, sink, note in ((client, broker, self.request), (broker, client, self.response)):
                threading.Thread(target=self.pump, args=(source, sink, note, asked, self.client), daemon=True).start()

    def pump(self, source, sink, note, asked, name):
        kept = b""
        try:
            while data := source.recv(1 << 16):
                kept += data
                while len(kept) >= 4 and len(kept) >= 4 + (size := struct.unpack_from(">i", kept)[0]):
                    note(kept[4:4 + size], asked, name)
                    kept = kept[4 + size:]
                sink.sendall(data)
        except OSError:
            pass
        finally:
            for side in (source, sink):
                try:
                    side.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass

    def request(self, frame, asked, name):
        key, version, correlation = struct.unpack_from(">hhi", frame)
        asked[correlation] = (key, version)
        keep(self.requests, (name, key, version), frame)

    def response(self, frame, asked, name):
        key, version = asked.pop(struct.unpack_from(">i", frame)[0], (None, None))
        if key is not None:
            keep(self.responses, (name, key, version), frame)


def keep(seeds, where, data):
    """Of several of a kind the smallest."""
    if len(data) <= SEED_MAX and (where not in seeds or len(data) < len(seeds[where])):
        seeds[where] = data


def run_clients(place, proxy):
    """A bit of everything that each client does."""
    import kafka
    import kafka.admin
    import librdkafka
    import records
    import tools
    from scenarios import kafka_python

    sent = [records.Record(0, -1, records.TIME + at, key, value, (("h", b"x"), ("n", b"")) if at == 1 else ())
            for at, (key, value) in enumerate([(b"k", b"value"), (None, b"v" * 200), (b"k", b"")])]
    plain = [records.replace(record, headers=()) for record in sent]
    drivers = {f"java-{version}": tools.java(place, version) for version in peers.JAVA_CLIENTS}
    drivers["kafkajs"] = tools.node(place)
    for name, driver in drivers.items():
        proxy.client = name
        old = name in ("java-1.1.1", "kafkajs")
        path = records.write(place.directory / f"{name}.sent", plain if old else sent)
        for codec in CODECS[:4] if old else CODECS:
            topic = f"{name}-{codec}"
            proxy.client = "none"
            librdkafka.create(place.bootstrap, topic)
            proxy.client = name
            driver.run(("produce", topic, path, f"compression.type={codec}", *(() if old else ("enable.idempotence=true",))))
            driver.run(("consume", topic, len(sent), place.directory / "read", f"group.id={topic}"))
        driver.run(("admin", f"{name}-admin"))
    for name, module in (("librdkafka", librdkafka), ("kafka-python", kafka_python)):
        for codec in CODECS:
            topic = f"{name}-{codec}"
            proxy.client = "none"
            librdkafka.create(place.bootstrap, topic)
            proxy.client = name
            if module is librdkafka:
                librdkafka.produce(place.bootstrap, topic, sent, compression_type=codec, enable_idempotence=True)
                consumer = librdkafka.consumer(place.bootstrap, topic)
                consumer.subscribe([topic])
                got = []
                while len(got) < len(sent):
                    got += consumer.consume(10, 1)
                consumer.commit(asynchronous=False)
                consumer.close()
            else:
                kafka_python.produce(place, topic, plain, compression_type=None if codec == "none" else codec)
                consumer, _ = kafka_python.consume(place, topic, len(plain), group_id=topic)
                consumer.commit()
                consumer.close()
    client = kafka_python.admin_client(place)
    client.create_topics([kafka.admin.NewTopic("python-admin", 1, 1)])
    client.describe_configs([kafka.admin.ConfigResource(kafka.admin.ConfigResourceType.TOPIC, "python-admin")])
    client.delete_topics(["python-admin"])
    client.close()
    proxy.client = "none"


def varint(data, at):
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return (value >> 1) ^ -(value & 1), at


def batches(data):
    """The whole batches of a file."""
    at = 0
    while at + 17 <= len(data):
        size = 12 + struct.unpack_from(">i", data, at + 8)[0]
        if size <= 12 or at + size > len(data):
            return
        yield data[at:at + size]
        at += size


def records_of(batch):
    """(key, value) of each record of an uncompressed batch of v2."""
    if batch[16] != 2 or batch[22] & 7:
        return
    at = 61
    for _ in range(struct.unpack_from(">i", batch, 57)[0]):
        size, at = varint(batch, at)
        end, at = at + size, at + 1
        _, at = varint(batch, at)
        _, at = varint(batch, at)
        fields = []
        for _ in range(2):
            size, at = varint(batch, at)
            fields.append(batch[at:at + size] if size >= 0 else None)
            at += max(size, 0)
        yield fields
        at = end


def of_batches(data, seeds):
    """The batches of a log, and their compressed streams."""
    for batch in batches(data):
        magic, attributes = batch[16], batch[22] if batch[16] == 2 else batch[17]
        codec = CODECS[attributes & 7]
        kind = f"kafka_v{magic}_{codec}" + "_transactional" * bool(magic == 2 and attributes & 16) + \
            "_control" * bool(magic == 2 and attributes & 32)
        keep(seeds["record_batch"], kind, b"\0\0" + batch)
        if codec == "none":
            continue
        if magic == 2:
            stream = batch[61:]
        else:
            at = 18 if magic == 0 else 26
            stream = batch[at + 8 + max(struct.unpack_from(">i", batch, at)[0], 0):]
        keep(seeds[f"decompress_{codec}"], f"kafka_v{magic}", stream)


def of_group_records(data, seeds):
    """Keys and values of __consumer_offsets, and what consumers told each other, which the values hold."""
    for batch in batches(data):
        for key, value in records_of(batch):
            version = struct.unpack_from(">h", key)[0]
            keep(seeds["group_records"], f"kafka_key_v{version}", b"\0" + key)
            if value is None:
                continue
            kind = b"\1" if version < 2 else b"\2"
            value_version = struct.unpack_from(">h", value)[0]
            keep(seeds["group_records"], f"kafka_{'offset' if version < 2 else 'group'}_v{value_version}_{len(value) // 64}", kind + value)
            if version == 2:
                of_group(value, seeds)


def of_group(value, seeds):
    at = 2

    def take(form):
        nonlocal at
        size = max(struct.unpack_from(form, value, at)[0], 0)
        at += struct.calcsize(form) + size
        return value[at - size:at]

    take(">h")
    at += 4
    take(">h")
    take(">h")
    at += 8
    count, at = struct.unpack_from(">i", value, at)[0], at + 4
    for _ in range(count):
        for _ in range(4):
            take(">h")
        at += 8
        for kind, name in enumerate(("subscription", "assignment")):
            data = take(">i")
            if len(data) >= 2:
                version = struct.unpack_from(">h", data)[0]
                keep(seeds["consumer_protocol"], f"kafka_{name}_v{version}_{len(data) // 16}", bytes([kind]) + data)


def of_partition(directory, seeds):
    """The files of a partition, the log to its last whole batch within the size of a seed."""
    parts = []
    for path in sorted(directory.iterdir()):
        data = path.read_bytes()
        if path.suffix == ".log":
            whole = b""
            for batch in batches(data):
                if len(whole) + len(batch) > SEED_MAX // 2:
                    break
                whole += batch
            data = whole
        if path.suffix in PARTITION_FILES and path.stem.isdigit():
            kind, base = PARTITION_FILES.index(path.suffix), int(path.stem)
        elif path.name == "leader-epoch-checkpoint":
            kind, base = LEADER_EPOCHS, 0
        else:
            continue
        if path.suffix in (".index", ".timeindex"):
            data = data[:48]
        if base < 1 << 16:
            parts.append(struct.pack(">BHH", kind, base, len(data)) + data)
    for at, name in enumerate(DIRECTORY_FILES):
        data = (directory.parent / name).read_bytes() if (directory.parent / name).exists() else b""
        if len(data) < 600:
            parts.append(struct.pack(">BHH", LEADER_EPOCHS + 1 + at, 0, len(data)) + data)
    for flags, name in ((1, "clean"), (2, "other_boot")):
        keep(seeds["recovery"], f"kafka_{directory.name.rsplit('-', 1)[0]}_{name}", bytes([flags, 0]) + b"".join(parts))


def of_zookeeper(zookeeper, seeds):
    """The data of nodes, by kind as fuzz/src/znodes.rs numbers them."""
    from scenarios.cross_open import zookeeper_shell

    paths = [(0, "/brokers/ids/0"), (1, "/brokers/topics/v2-none"), (2, "/brokers/topics/v2-none/partitions/0/state"),
             (3, "/config/topics/v2-none"), (4, "/config/changes/config_change_0000000000"), (5, "/controller"),
             (6, "/controller_epoch"), (7, "/cluster/id"), (8, "/latest_producer_id_block"), (9, "/feature")]
    lines = zookeeper_shell(zookeeper, [f"get {path}" for _, path in paths]).splitlines()
    found = [line for line in lines if line.startswith("{") or line.isdigit()]
    for line in found:
        names = {"endpoints": 0, "adding_replicas": 1, "isr": 2, "config": 3, "entity_path": 4, "brokerid": 5, "id": 7,
                 "block_start": 8, "features": 9}
        kind = 6 if line.isdigit() else next((names[name] for name in names if f'"{name}":' in line), None)
        if kind is not None:
            keep(seeds["znodes"], f"kafka_{paths[kind][1].strip('/').replace('/', '_')}", bytes([kind]) + line.encode())


def served(key):
    """The place of a key among those that Milena serves, as server/src/protocol.rs lists them."""
    keys = [*range(0, 4), *range(8, 17), *range(18, 24), *range(29, 34), 35, 37, 42, 44, 47]
    return keys.index(key) if key in keys else None


def of_frames(proxy, definitions, seeds):
    """Requests as they are; of answers API, version and body."""
    sizes = set()
    for (name, key, version), frame in sorted(proxy.requests.items()):
        if name != "none" and served(key) is not None and (key, version, len(frame)) not in sizes:
            sizes.add((key, version, len(frame)))
            keep(seeds["request"], f"{name}_{definitions[key]['name']}_{version}", frame)
    sizes = set()
    for (name, key, version), frame in sorted(proxy.responses.items()):
        first_flexible = definitions[key]["flexibleVersions"]
        is_flexible = key != 18 and first_flexible != "none" and version >= int(first_flexible.rstrip("+"))
        body = frame[4 + is_flexible:]
        if name != "none" and served(key) is not None and (key, version, len(body)) not in sizes:
            sizes.add((key, version, len(body)))
            keep(seeds["response"], f"{name}_{definitions[key]['name'].replace('Request', 'Response')}_{version}",
                 bytes([served(key), version]) + body)


def main():
    corpus = Path(sys.argv[1] if len(sys.argv) > 1 else HERE.parents[2] / "fuzz/corpus").resolve()
    python = peers.python()
    if Path(sys.prefix).resolve() != python.parents[1].resolve():
        os.execv(python, [str(python), *sys.argv])
    import collections

    import frames
    import scenario
    import subject as subjects
    from scenarios import cross_open

    directory = peers.HOME / "runs" / f"capture-{os.getpid()}"
    proxy = Proxy()
    settings = {**cross_open.SETTINGS, "advertised.listeners": f"PLAINTEXT://127.0.0.1:{proxy.port}", "offsets.topic.num.partitions": "1"}
    broker = subjects.subject("kafka", directory / "broker", settings, session_ms=10000)
    proxy.broker_port = broker.port
    place = scenario.Place("capture", "kafka", f"127.0.0.1:{proxy.port}", directory / "work", None, {})
    seeds = collections.defaultdict(dict)
    try:
        broker.start()
        run_clients(place, proxy)
        cross_open.fill(place, broker)
        of_zookeeper(broker.zookeeper, seeds)
        broker.stop()
        of_frames(proxy, frames.definitions(), seeds)
        for log in sorted(broker.data.glob("*-0/*.log")):
            data = log.read_bytes()
            of_batches(data, seeds)
            if log.parent.name.startswith("__consumer_offsets"):
                of_group_records(data, seeds)
        for topic in ("v0-gzip", "v1-snappy", "v2-zstd", "transactions", "compacted", "__consumer_offsets", "__transaction_state"):
            of_partition(next(broker.data.glob(f"{topic}-*")), seeds)
        settings = (broker.directory / "server.properties").read_bytes()
        keep(seeds["server_properties"], "kafka_subject", settings.replace(str(broker.data).encode(), b"/tmp/kafka-logs"))
    finally:
        broker.close()
    for target, found in sorted(seeds.items()):
        (corpus / target).mkdir(parents=True, exist_ok=True)
        for name, data in found.items():
            path = corpus / target / name
            if not path.exists():
                path.write_bytes(data)
        peers.say(f"{target}: {len(found)} seeds, {sum(map(len, found.values()))} bytes")
    shutil.rmtree(directory)


if __name__ == "__main__":
    main()
