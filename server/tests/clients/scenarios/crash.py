"""`kill -9` again and again under load, checked against a ledger of every ack."""

import random
import time

import crash_writers
import history
import librdkafka
from scenario import equal, scenario

WRITERS = [("acks=1", 0, {"acks": 1}), ("acks=1, lz4", 1, {"acks": 1, "compression_type": "lz4"}),
           ("idempotent", 2, {"enable_idempotence": True}),
           ("idempotent, zstd", 3, {"enable_idempotence": True, "compression_type": "zstd"})]


@scenario(120)
def kills(place):
    """N kills under load: acks=1 nothing acked is lost; idempotent acks=all nothing is lost, doubled or reordered."""
    cycles, rng = place.options["cycles"], random.Random(place.options["seed"])
    broker = place.start({"log.segment.bytes": "4000000", "log.index.interval.bytes": "512"})
    topic = place.name()
    librdkafka.create(broker.bootstrap, topic, len(WRITERS))
    writers = [crash_writers.Writer(broker.bootstrap, topic, name, partition, settings) for name, partition, settings in WRITERS]
    downtime = []
    for _ in range(cycles):
        crash_writers.all_acked(writers, 50)
        time.sleep(rng.uniform(0, 0.5))
        broker.kill()
        downtime.append(broker.start())
    left = [writer.finish() for writer in writers]
    equal([w.errors[:3] for w in writers], [[] for _ in writers], "errors of the writers")
    equal(left, [0] * len(writers), "records without an outcome")
    # Once more, with nobody to append afterwards: what is there must be readable by itself.
    broker.kill()
    downtime.append(broker.start())
    histories = [writer.history for writer in writers]
    log = librdkafka.read_all(broker.bootstrap, topic, seconds=300, make=crash_writers.entry)
    again = {h.producer: sum(1 for p, _, _ in log if p == h.partition) - len(h.sent) for h in histories}
    print(f"{len(downtime)} kills, {sum(len(h.acked) for h in histories)} acked, {len(log)} in the log, beyond those sent: {again}, "
          f"serving again after {max(downtime):.2f} s at most")
    violations = history.check(histories, log)
    if violations:
        raise AssertionError(f"{len(violations)} violations:\n" + "\n".join(violations[:20]))
    for name, mutated, mutated_log in history.mutations(*history.beginning(histories, log, 2000)):
        equal(bool(history.check(mutated, mutated_log)), True, f"the checker finds: {name}")
    broker.stop()
