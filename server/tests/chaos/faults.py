"""The faults. Each strikes a running cluster once and heals again, and says what it did and whether that really hit.

`FAULTS[name](run)` returns a `Strike`. A strike that did not hit counts for nothing; one after which a broker does not come
back is a violation (`run.overdue`).
"""

import os
import signal
import time
from dataclasses import dataclass

import disks
import ledger
import segments
from disks import stopped
from network import wait_until

BACK_SECONDS = 60


@dataclass
class Strike:
    what: str
    hit: bool


def coordinator_partition(group, count):
    """As GroupMetadataManager places a group: Java's hash of its name."""
    hashed = 0
    for letter in group:
        hashed = (hashed * 31 + ord(letter)) & 0xFFFFFFFF
    hashed = hashed - (1 << 32) if hashed >= 1 << 31 else hashed
    return (0 if hashed == -(1 << 31) else abs(hashed)) % count


def victim(run, role):
    """The broker that has a role now; any, where nobody has it."""
    cluster, rng = run.cluster, run.rng
    number = None
    if role == "controller":
        number = cluster.controller()
    elif role in ("leader", "follower"):
        state = cluster.state(run.topic, rng.randrange(run.partitions))
        if state and role == "leader":
            number = state["leader"]
        elif state:
            number = rng.choice([one for one in state["isr"] if one != state["leader"]] or [None])
    elif role == "coordinator":
        state = cluster.state("__consumer_offsets", coordinator_partition(rng.choice(run.groups), 4))
        number = state and state["leader"]
    if number is None or number < 0:
        number = rng.randrange(len(cluster.brokers))
    return cluster.brokers[number]


def some(run, roles=("leader", "leader", "follower", "controller", "controller", "coordinator", "random")):
    role = run.rng.choice(roles)
    return role, victim(run, role)


def back(run, brokers, epochs, what):
    """Waits until brokers are registered anew, each brought back as its own log says where it cannot come by itself."""
    def all_there():
        run.supervise()
        for broker in brokers:
            run.mended += broker.mend()
        return all(broker.epoch() not in (None, epochs[broker.number]) for broker in brokers)

    if not wait_until(BACK_SECONDS, all_there):
        gone = [f"{b.number} ({'runs' if b.running() else 'ended'})" for b in brokers
                if b.epoch() in (None, epochs[b.number])]
        run.overdue(f"{what}: brokers {gone} are not back after {BACK_SECONDS} s")


def registered(run, broker, what):
    """Waits until a broker that went on running is registered, in its old session or a new one."""
    if not wait_until(BACK_SECONDS, lambda: broker.epoch() is not None):
        run.overdue(f"{what}: not registered {BACK_SECONDS} s after it")


def kill(run):
    rng = run.rng
    if (dice := rng.random()) < 0.1:
        role, victims = "all", list(run.cluster.brokers)
    elif dice < 0.2:
        role, victims = "two", rng.sample(run.cluster.brokers, 2)
    else:
        role, one = some(run)
        victims = [one]
    epochs = {broker.number: broker.epoch() for broker in victims}
    killed = [broker.kill() for broker in victims]
    time.sleep(rng.choice([0, rng.uniform(0, 0.5), rng.uniform(0, 2.5)]))
    rng.shuffle(victims)
    for broker in victims:
        broker.begin()
        time.sleep(rng.choice([0, 0, rng.uniform(0, 0.5)]))
    what = f"kill {role} {[broker.number for broker in victims]}"
    back(run, victims, epochs, what)
    return Strike(what, all(killed))


def stop(run):
    rng = run.rng
    role, broker = some(run)
    seconds = rng.choice([rng.uniform(1, 3), rng.uniform(1, 3), rng.uniform(2, 6), rng.uniform(6, 20)])
    epoch = broker.epoch()
    os.kill(broker.process.pid, signal.SIGSTOP)
    hit = wait_until(5, lambda: stopped(broker.process.pid)) is not None
    time.sleep(seconds)
    # Long enough, and the cluster has gone on without it.
    hit = hit and stopped(broker.process.pid) and (seconds < 4 or broker.epoch() != epoch)
    os.kill(broker.process.pid, signal.SIGCONT)
    what = f"stop {role} {broker.number} for {seconds:.1f} s"
    registered(run, broker, what)
    return Strike(what, hit)


def cut(run):
    """Ways between brokers, to ZooKeeper, and to clients; both ways or one."""
    rng, network = run.rng, run.cluster.network
    role, broker = some(run)
    others = [one for one in run.cluster.brokers if one is not broker]
    kind = rng.choice(["broker", "brokers", "zookeeper", "zookeeper", "clients", "all"])
    peers = {"broker": [rng.choice(others).machine], "brokers": [one.machine for one in others], "zookeeper": ["proxies"],
             "clients": ["clients"], "all": [*(one.machine for one in others), "proxies", "clients"]}[kind]
    ways = rng.choice(["both", "to", "from"])
    for peer in peers:
        if ways in ("both", "to"):
            network.cut(broker.machine, peer)
        if ways in ("both", "from"):
            network.cut(peer, broker.machine)
    seconds = rng.choice([rng.uniform(0.5, 2), rng.uniform(2, 5), rng.uniform(4, 10)])
    time.sleep(seconds)
    dropped = network.dropped()
    network.heal()
    what = f"cut {role} {broker.number} ({ways}) {kind} for {seconds:.1f} s: {dropped} bytes"
    registered(run, broker, what)
    return Strike(what, dropped > 0)


def expiry(run):
    """A session that ends, or the ways in which a connection to ZooKeeper fails: closed in between, answers lost, half open."""
    rng = run.rng
    role, broker = some(run, ("controller", "controller", "leader", "coordinator", "random"))
    kind = rng.choice(["expire", "expire", "expire", "answers", "half-open", "drop"])
    epoch, proxy = broker.epoch(), broker.proxy
    before = dict(proxy.swallowed)
    if kind == "expire":
        proxy.expire()
        what = f"expire the session of {role} {broker.number}"
        back(run, [broker], {broker.number: epoch}, what)
        return Strike(what, broker.epoch() != epoch)
    if kind == "drop":
        connections = len(proxy.pairs)
        proxy.drop_connections()
        hit = connections > 0
        seconds = 0
    else:
        proxy.mute(*(["down"] if kind == "answers" else ["up", "down"]))
        seconds = rng.choice([rng.uniform(0.2, 0.8), rng.uniform(1, 5)])
        time.sleep(seconds)
        proxy.mute()
        way = "down" if kind == "answers" else "up"
        hit = proxy.swallowed[way] > before[way]
    what = f"{kind} at ZooKeeper for {role} {broker.number}, {seconds:.1f} s"
    registered(run, broker, what)
    return Strike(what, hit)


def outage(run):
    """ZooKeeper is away: killed and started again, or stopped."""
    rng, zookeeper = run.rng, run.cluster.zookeeper
    seconds = rng.choice([rng.uniform(0.2, 2), rng.uniform(2, 6), rng.uniform(6, 15)])
    if rng.random() < 0.5:
        kind = "kill"
        zookeeper.process.end(signal.SIGKILL, 30)
        hit = zookeeper.asked("ruok") == ""
        time.sleep(seconds)
        zookeeper.start()
    else:
        kind = "stop"
        os.kill(zookeeper.process.pid, signal.SIGSTOP)
        hit = wait_until(5, lambda: stopped(zookeeper.process.pid)) is not None
        time.sleep(seconds)
        os.kill(zookeeper.process.pid, signal.SIGCONT)
    run.cluster.znodes.used = 0
    what = f"ZooKeeper {kind} for {seconds:.1f} s"
    if not run.cluster.registered(BACK_SECONDS):
        run.overdue(f"{what}: not all brokers are registered {BACK_SECONDS} s after it")
    return Strike(what, hit)


def power_cut(run, victims, what):
    """The machines lose their power at once: no byte of theirs gets out any more, their threads stop where they are, and what was not
    synced is gone. They boot again with another boot id. ZooKeeper has its own machine, which keeps its power."""
    rng, cluster = run.rng, run.cluster
    epochs = {broker.number: broker.epoch() for broker in victims}
    for broker in victims:
        cluster.network.isolate(broker.machine)
    for broker in victims:
        disks.freeze(broker.process)
    written = {broker.number: segments.bytes_in(broker.subject.data) for broker in victims}
    for broker in victims:
        broker.disk.cut()
    killed = [broker.kill() for broker in victims]
    for broker in victims:
        broker.disk.detach()
        broker.disk.attach()
        broker.disk.boot_id = disks.new_boot_id()
    lost = sum(max(0, size - segments.bytes_in(broker.subject.data).get(path, 0))
               for broker in victims for path, size in written[broker.number].items())
    run.cuts.append(ledger.now())
    time.sleep(rng.choice([0, rng.uniform(0, 1), rng.uniform(0, 3)]))
    rng.shuffle(victims)
    for broker in victims:
        cluster.network.heal(broker.machine)
        broker.begin()
    what = f"{what} {[(broker.number, broker.disk.kind) for broker in victims]}: {lost} bytes lost"
    back(run, victims, epochs, what)
    return Strike(what, all(killed) and lost > 0)


def power(run):
    """One machine at a time: unsynced acknowledgements hold as long as another in-sync replica lives, so all are in sync before."""
    if not wait_until(BACK_SECONDS, lambda: not run.cluster.out_of_sync(), 0.1):
        run.overdue(f"not in sync {BACK_SECONDS} s after a power cut: {run.cluster.out_of_sync()}")
    role, broker = some(run)
    return power_cut(run, [broker], f"power cut of {role}")


def power_all(run):
    return power_cut(run, list(run.cluster.brokers), "power cut of all")


def full(run):
    """Somebody else fills the disk of a broker, all but a little, and takes it away again once the broker has noticed."""
    rng = run.rng
    role, broker = some(run, ("leader", "leader", "follower", "coordinator", "random"))
    ballast = broker.disk.mount / "ballast"

    def refusals():
        return broker.log.read_text(errors="replace").count(run.refusal)

    before = refusals()
    with open(ballast, "wb") as out:
        os.posix_fallocate(out.fileno(), 0, broker.disk.free() - rng.choice([1 << 20, 4 << 20, 12 << 20]))
    left = broker.disk.free()
    noticed = wait_until(20, lambda: refusals() > before or not broker.running(), 0.1)
    seconds = rng.uniform(0, 6)
    time.sleep(seconds)
    ballast.unlink()
    what = f"disk of {role} {broker.number} ({broker.disk.kind}) full for {seconds:.1f} s, {left} bytes left"
    if not broker.running():
        # Apache's broker ends with its only log directory; it is started again by `supervise`.
        run.supervise()
    registered(run, broker, what)
    return Strike(what, bool(noticed))


def mixed(run):
    return FAULTS[run.rng.choice(["kill", "stop", "cut", "expiry"])](run)


FAULTS = {"kill": kill, "stop": stop, "cut": cut, "expiry": expiry, "outage": outage, "mixed": mixed, "power": power,
          "power-all": power_all, "full": full}
