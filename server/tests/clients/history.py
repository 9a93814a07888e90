"""The checker of what producers were told against what the log holds.

A history is what each producer sent (a sequence of numbers in one partition), which of them were acked and where. The log is
what a reader found. `check` names every violation; `mutations` breaks a good pair on purpose, so that the checker is seen
to fail.
"""

from dataclasses import dataclass, field, replace


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
    entries = {}
    for partition, offset, value in log:
        known = entries.setdefault(partition, {})
        if offset in known:
            found.append(f"partition {partition}: offset {offset} is there twice")
        known[offset] = value
    for partition, there in entries.items():
        sent = set().union(*(h.sent for h in histories if h.partition == partition))
        found += [f"partition {partition}: {value!r} at {offset} was never sent" for offset, value in there.items()
                  if value not in sent]
    for history in histories:
        there = entries.get(history.partition, {})
        for value, offset in history.acked.items():
            if there.get(offset) != value:
                found.append(f"{history.producer}: {value} was acked at {offset} and {there.get(offset)!r} is there")
        if history.idempotent:
            position = {value: index for index, value in enumerate(history.sent)}
            order = [position[value] for value in there.values() if value in position]
            twice = len(order) - len(set(order))
            if twice:
                found.append(f"{history.producer}: {twice} records stand twice")
            if any(a > b for a, b in zip(order, order[1:])):
                found.append(f"{history.producer}: records are out of order")
    return found


def beginning(histories, log, end):
    """The same below an offset: what is true of all of it is true of this."""
    cut = [replace(h, acked={value: offset for value, offset in h.acked.items() if offset < end}) for h in histories]
    return cut, [entry for entry in log if entry[1] < end]


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
