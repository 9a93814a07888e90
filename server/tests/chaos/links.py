"""The same as namespaces without root: every machine is a port of 127.0.0.1.

A broker tells everybody the port of a proxy in front of it. The proxy finds out which process a connection comes from, so that the
way between two machines can be cut, in one direction too: what would go that way is swallowed. The way to ZooKeeper has a proxy
of its own in any case (`znodes.py`).
"""

import os
import socket
import threading
from pathlib import Path

from znodes import shut

HERE = "127.0.0.1"


def owner(near, processes):
    """Whose connection it is: the name of the process that has its other end, `clients` where it is none of these."""
    host, port = near.getpeername()
    wanted = "".join(f"{int(part):02X}" for part in reversed(host.split("."))) + f":{port:04X}"
    inode = next((fields[9] for fields in map(str.split, Path("/proc/net/tcp").read_text().splitlines()[1:])
                  if fields[1] == wanted), None)
    for name, pid in processes.items():
        try:
            if any(os.readlink(one) == f"socket:[{inode}]" for one in Path(f"/proc/{pid()}/fd").iterdir()):
                return name
        except OSError:
            continue
    return "clients"


class Ports:
    name = "ports"
    proxies = HERE

    def __init__(self, machines):
        self.machines = machines
        self.processes = {}  # machine -> what gives its process id
        self.zookeeper = {}  # machine -> its proxy to ZooKeeper
        self.cuts = set()
        self.swallowed = self.healed_at = 0
        self.connections = []  # (source, target, near, far)

    def address(self, _):
        return HERE

    def prefix(self, _):
        return []

    def front(self, machine, port, pid, zookeeper):
        """Puts a proxy before the port of a broker; returns the port that is told to others."""
        self.processes[machine], self.zookeeper[machine] = pid, zookeeper
        listener = socket.create_server((HERE, 0))
        threading.Thread(target=self.accept, args=(listener, machine, port), daemon=True).start()
        return listener.getsockname()[1]

    def accept(self, listener, machine, port):
        while True:
            near, _ = listener.accept()
            try:
                source = owner(near, self.processes)
                far = socket.create_connection((HERE, port))
            except OSError:
                near.close()
                continue
            connection = (source, machine, near, far)
            self.connections.append(connection)
            threading.Thread(target=self.carry, args=(near, far, (source, machine)), daemon=True).start()
            threading.Thread(target=self.carry, args=(far, near, (machine, source)), daemon=True).start()

    def carry(self, source, target, way):
        try:
            while data := source.recv(65536):
                if way in self.cuts:
                    self.swallowed += len(data)
                    continue
                target.sendall(data)
        except OSError:
            pass
        if way not in self.cuts:
            for end in (source, target):
                shut(end)

    def cut(self, source, target):
        for machine, way in ((source, "up"), (target, "down")):
            if "proxies" in (source, target) and machine != "proxies":
                proxy = self.zookeeper[machine]
                proxy.mute(*proxy.mutes, way)
        self.cuts.add((source, target))

    def heal(self, *_):
        """All ways are open; connections that lost bytes end, as does whatever else of them was to be told."""
        cuts, self.cuts = self.cuts, set()
        for proxy in self.zookeeper.values():
            proxy.mute()
        for connection in list(self.connections):
            source, target, near, far = connection
            if {(source, target), (target, source)} & cuts:
                shut(near)
                shut(far)
                self.connections.remove(connection)
        self.healed_at = self.all_swallowed()

    def all_swallowed(self):
        return self.swallowed + sum(sum(proxy.swallowed.values()) for proxy in self.zookeeper.values())

    def dropped(self, *_):
        """Bytes swallowed since the last heal."""
        return self.all_swallowed() - self.healed_at
