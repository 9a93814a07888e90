"""The checker of what producers were told against what the log holds.

A history is what each producer sent (a sequence of numbers in one partition), which of them were acked and where. The log is
what a reader found. `check` names every violation; `mutations` breaks a good pair on purpose, so that the checker is seen
to fail.
"""

from collections import Counter
from dataclasses import dataclass, field


@dataclass
class History:
    """One producer, one partition: `sent` values in order, `acked` value -> offset."""

    producer: str
    partition: int
    idempotent: bool
    sent: list = field(default_factory=list)
    acked: dict = field(default_factory=dict)


def check(histories, log):
    """Violations as text. `log` is a list of (partition, offset, value), sorted."""
    found = []
    at = {}
    places = {}
    last = {}
    for partition, offset, value in log:
        if offset <= last.get(partition, -1):
            found.append(f"partition {partition}: offset {offset} follows {last[partition]}")
        last[partition] = offset
        at[partition, offset] = value
        places.setdefault((partition, value), []).append(offset)
    known = {(h.partition, value) for h in histories for value in h.sent}
    for key in places.keys() - known:
        found.append(f"{key} was never sent")
    for history in histories:
        for value, offset in history.acked.items():
            if at.get((history.partition, offset)) != value:
                found.append(f"{history.producer}: {value} was acked at {offset} and "
                             f"{at.get((history.partition, offset))} is there")
        if history.idempotent:
            order = [value for partition, _, value in log if partition == history.partition and value in set_of(history)]
            twice = [value for value, count in Counter(order).items() if count > 1]
            if twice:
                found.append(f"{history.producer}: {len(twice)} records stand twice, {twice[:3]} among them")
            position = {value: index for index, value in enumerate(history.sent)}
            if any(position[a] > position[b] for a, b in zip(order, order[1:])):
                found.append(f"{history.producer}: records are out of order")
    return found


def set_of(history):
    if not hasattr(history, "known") or len(history.known) != len(history.sent):
        history.known = set(history.sent)
    return history.known


def mutations(histories, log):
    """(name, histories, log) of broken copies; each must be found by `check`."""
    idempotent = next(h for h in histories if h.idempotent and len(h.acked) > 2)
    value, offset = sorted(idempotent.acked.items(), key=lambda pair: pair[1])[1]
    entry = (idempotent.partition, offset, value)
    end = max(o for p, o, _ in log if p == idempotent.partition) + 1
    yield "an acked record is lost", histories, [e for e in log if e != entry]
    yield "a record stands twice", histories, sorted([*log, (idempotent.partition, end, value)])
    yield "a record nobody sent", histories, sorted([*log, (idempotent.partition, end, "nobody's")])
    after = next(e for e in log if e[0] == entry[0] and e[1] > offset)
    swapped = [e for e in log if e not in (entry, after)]
    swapped += [(entry[0], entry[1], after[2]), (after[0], after[1], entry[2])]
    yield "two records changed places", histories, sorted(swapped)
    plain = next(h for h in histories if not h.idempotent and h.acked)
    value, offset = next(iter(plain.acked.items()))
    yield "an acked record is lost, acks=1", histories, [e for e in log if e != (plain.partition, offset, value)]
