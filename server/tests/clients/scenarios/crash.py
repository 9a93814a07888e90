"""`kill -9` and power cuts again and again under load, checked against a ledger of every ack."""

import contextlib
import random
import re
import time
from pathlib import Path

import crash_writers
import disks
import history
import librdkafka
import subject as subjects
from scenario import Skip, equal, scenario

WRITERS = [("acks=1", 0, {"acks": 1}), ("acks=1, lz4", 1, {"acks": 1, "compression_type": "lz4"}),
           ("idempotent", 2, {"enable_idempotence": True}),
           ("idempotent, zstd", 3, {"enable_idempotence": True, "compression_type": "zstd"})]


def write(broker, topic, writers):
    """Creates the topic and starts its writers."""
    librdkafka.create(broker.bootstrap, topic, len(writers))
    return [crash_writers.Writer(broker.bootstrap, topic, name, partition, settings) for name, partition, settings in writers]


def under_load(place, broker, interrupt):
    """Writes while `interrupt` ends and starts the broker again and again; then every ack is compared with the log."""
    cycles, rng = place.options["cycles"], random.Random(place.options["seed"])
    topic = place.name()
    writers = write(broker, topic, WRITERS)
    downtime = []
    for _ in range(cycles):
        crash_writers.all_acked(writers, 50)
        time.sleep(rng.uniform(0, 0.5))
        downtime.append(interrupt())
    left = [writer.finish() for writer in writers]
    equal([w.errors[:3] for w in writers], [[] for _ in writers], "errors of the writers")
    equal(left, [0] * len(writers), "records without an outcome")
    # Once more, with nobody to append afterwards: what is there must be readable by itself.
    downtime.append(interrupt())
    histories = [writer.history for writer in writers]
    log = librdkafka.read_all(broker.bootstrap, topic, seconds=300, make=crash_writers.entry)
    again = {h.producer: sum(1 for p, _, _ in log if p == h.partition) - len(h.sent) for h in histories}
    print(f"{len(downtime)} times ended, {sum(len(h.acked) for h in histories)} acked, {len(log)} in the log, beyond those sent: {again}, "
          f"serving again after {max(downtime):.2f} s at most")
    violations = history.check(histories, log)
    if violations:
        raise AssertionError(f"{len(violations)} violations:\n" + "\n".join(violations[:20]))
    for name, mutated, mutated_log in history.mutations(*history.beginning(histories, log, 2000)):
        equal(bool(history.check(mutated, mutated_log)), True, f"the checker finds: {name}")
    broker.stop()


@scenario(120)
def kills(place):
    """N kills under load: acks=1 nothing acked is lost; idempotent acks=all nothing is lost, doubled or reordered."""
    broker = place.start({"log.segment.bytes": "4000000", "log.index.interval.bytes": "512"})

    def interrupt():
        broker.kill()
        return broker.start()

    under_load(place, broker, interrupt)


class Machine(subjects.Milena):
    """Milena on a machine that is switched off and on: each start after a cut sees another boot id."""

    disk = None
    holes = 0

    def command(self, properties):
        return ["unshare", "--mount", "sh", "-c", 'mount --bind "$0" /proc/sys/kernel/random/boot_id && exec "$@"',
                self.directory / "boot_id", *super().command(properties)]

    def boot(self):
        (self.directory / "boot_id").write_text(disks.new_boot_id())
        known = self.log.stat().st_size if self.log.exists() else 0
        seconds = self.start()
        holes = set(re.findall(r"create the empty file (\S+) and start again", self.log.read_text()[known:]))
        if holes:
            # A batch that was not acknowledged arrived torn and one behind it whole: what the message says brings the rest back.
            self.holes += len(holes)
            self.stop()
            for path in holes:
                Path(path).touch()
            seconds += self.start()
        return seconds

    def lose_power(self):
        disks.freeze(self.process)
        self.disk.cut()
        self.kill()
        self.disk.detach()
        self.disk.attach()
        return self.boot()


@contextlib.contextmanager
def machine(place, settings):
    """A broker on a machine and a disk of its own."""
    if place.subject != "milena":
        raise Skip("Kafka syncs no directory (KAFKA-3968)")
    if why := disks.missing("ext4"):
        raise Skip(why)
    broker = Machine(place.directory / "own", {"log.segment.bytes": "400000", "log.index.interval.bytes": "512", **settings},
                     place.directory / "disk/data")
    disks.own_mounts()
    broker.disk = disks.Disk(place.directory)
    try:
        broker.boot()
        yield broker
    finally:
        broker.kill()
        broker.disk.detach()


@scenario(120)
def power_cuts(place):
    """N power cuts of an ext4 under load, with flush.messages=1: nothing acked is lost, doubled or reordered."""
    with machine(place, {"log.flush.interval.messages": "1"}) as broker:
        under_load(place, broker, broker.lose_power)
        print(f"{broker.holes} partitions with a hole behind what was acknowledged")


@scenario(60)
def power_cut_unsynced(place):
    """The same without flush.messages=1 loses what was acked: the power cuts are real, and the check sees a loss."""
    with machine(place, {}) as broker:
        # Idempotent producers would stop at the loss.
        writers = write(broker, topic := place.name(), WRITERS[:2])
        crash_writers.all_acked(writers, 200)
        broker.lose_power()
        left = [writer.finish() for writer in writers]
        equal(left, [0] * len(writers), "records without an outcome")
        log = librdkafka.read_all(broker.bootstrap, topic, make=crash_writers.entry)
        lost = history.check([writer.history for writer in writers], log)
        equal(any("was acked at" in one for one in lost), True, f"acked records are lost, of which {len(log)} are left")
