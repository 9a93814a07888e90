"""The machines of a cluster and the ways between them.

Every machine has a network namespace, and all are joined by a bridge; a way is cut by a rule of nft that counts
what it drops, at the machine that would receive it. They live in a namespace of the process that made them, and go with it:
nothing of the host's own network is touched, and nothing is left behind however the process ends.
Without root it is done by ports and proxies: `links.py`.
"""

import ctypes
import json
import os
import shutil
import subprocess
import time

from links import Ports

NEW_NAMESPACES = 0x40000000 | 0x00020000  # CLONE_NEWNET | CLONE_NEWNS
BRIDGE = "10.66.0.254"
PROXIES = "10.66.0.253"
TOOLS = ("ip", "nft", "nsenter", "unshare", "mount")


def sh(*command, text=None):
    done = subprocess.run([str(word) for word in command], input=text, capture_output=True, text=True)
    if done.returncode:
        raise OSError(f"{' '.join(map(str, command))}: {done.stderr.strip() or done.returncode}")
    return done.stdout


def missing():
    """Why this process cannot have namespaces; empty where it can."""
    absent = [tool for tool in TOOLS if shutil.which(tool) is None]
    if os.geteuid() != 0:
        return "network namespaces need root"
    return f"not installed: {' '.join(absent)}" if absent else ""


class Namespaces:
    """Machines by name; the calling process is on the bridge itself."""

    name = "namespaces"
    proxies = PROXIES

    def __init__(self, machines):
        if ctypes.CDLL(None, use_errno=True).unshare(NEW_NAMESPACES):
            raise OSError(ctypes.get_errno(), "no namespaces can be had here")
        sh("mount", "--make-rprivate", "/")
        os.makedirs("/run/netns", exist_ok=True)
        sh("mount", "-t", "tmpfs", "none", "/run/netns")
        sh("ip", "link", "set", "lo", "up")
        sh("ip", "link", "add", "bridge", "type", "bridge")
        for address in (BRIDGE, PROXIES):
            sh("ip", "address", "add", f"{address}/24", "dev", "bridge")
        sh("ip", "link", "set", "bridge", "up")
        self.addresses = {}
        for number, machine in enumerate(machines, 1):
            self.addresses[machine] = f"10.66.0.{number}"
            sh("ip", "netns", "add", machine)
            sh("ip", "link", "add", machine, "type", "veth", "peer", "name", "eth0", "netns", machine)
            sh("ip", "link", "set", machine, "master", "bridge", "up")
            sh("ip", "-n", machine, "address", "add", f"{self.addresses[machine]}/24", "dev", "eth0")
            sh("ip", "-n", machine, "link", "set", "eth0", "up")
            sh("ip", "-n", machine, "link", "set", "lo", "up")
            self.heal(machine)
        self.addresses["proxies"] = PROXIES

    def address(self, machine):
        return self.addresses[machine]

    def front(self, machine, port, pid, zookeeper):
        """The port that is told to others: no proxy is needed before it."""
        return port

    def prefix(self, machine):
        """What a command runs under to be on that machine."""
        return ["nsenter", f"--net=/run/netns/{machine}"]

    def nft(self, machine, *words, text=None):
        return sh(*self.prefix(machine), "nft", *words, text=text)

    def cut(self, source, target):
        """Nothing from one reaches the other any more. Either may be a name of a machine, `proxies`, or (as source) `all`."""
        at, direction, peer = (target, "in", source) if target in self.addresses and target != "proxies" else \
            (source, "out", target)
        match = "" if peer == "all" else f"ip {'saddr' if direction == 'in' else 'daddr'} {self.addresses[peer]} "
        self.nft(at, "add", "rule", "inet", "chaos", direction, *f"{match}counter drop".split())

    def isolate(self, machine):
        """Nothing goes in or out any more."""
        for direction in ("in", "out"):
            self.nft(machine, "add", "rule", "inet", "chaos", direction, "counter", "drop")

    def heal(self, *machines):
        """All ways into and out of these machines are open; of all, if none is named."""
        for machine in machines or [name for name in self.addresses if name != "proxies"]:
            self.nft(machine, "-f", "-", text="add table inet chaos\ndelete table inet chaos\ntable inet chaos {\n"
                     "chain in { type filter hook input priority 0; policy accept; }\n"
                     "chain out { type filter hook output priority 0; policy accept; }\n}\n")

    def dropped(self, *machines):
        """Bytes dropped since the last heal."""
        total = 0
        for machine in machines or [name for name in self.addresses if name != "proxies"]:
            listed = json.loads(self.nft(machine, "-j", "list", "table", "inet", "chaos"))["nftables"]
            total += sum(part["counter"]["bytes"] for one in listed if "rule" in one
                         for part in one["rule"]["expr"] if "counter" in part)
        return total


def of(machines):
    """Namespaces where they can be had, else ports."""
    return Ports(machines) if missing() or os.environ.get("MILENA_CHAOS_PORTS") else Namespaces(machines)


def wait_until(seconds, check, pause=0.03):
    """What `check` returned once it was true; none if it never was."""
    deadline = time.monotonic() + seconds
    while True:
        found = check()
        if found or time.monotonic() > deadline:
            return found or None
        time.sleep(pause)
