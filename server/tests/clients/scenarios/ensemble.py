"""Brokers on an ensemble of three ZooKeeper servers, of each version, which loses its leader."""

import subject as subjects
from scenario import equal, scenario, until
from scenarios.mixed import Cluster, Ledger
from znodes import Znodes


class Ensemble:
    """Three servers of a version, with a leader."""

    def __init__(self, place, version):
        ports = [(subjects.free_port(), subjects.free_port()) for _ in range(3)]
        self.servers = [subjects.ZooKeeper(place.directory / f"zookeeper-{number}", version, ports, number) for number in (1, 2, 3)]
        for server in self.servers:
            server.begin()
            place.started.append(server)
        self.leader()

    @property
    def connect(self):
        return ",".join(server.connect for server in self.servers) + "/kafka"

    def leader(self):
        def leading():
            return [server for server in self.servers if "Mode: leader" in server.asked("srvr")]
        return until(60, "the ensemble has a leader", leading)[0]


def loses_its_leader(place, version):
    ensemble = Ensemble(place, version)
    cluster = Cluster(place, ["milena"] * 3, "2.7", session_ms=6000, zookeeper=ensemble)
    topic, all_of_them = place.name("t"), [0, 1, 2]
    cluster.create(topic, [0, 1, 2], [1, 2, 0], [2, 0, 1], min_insync_replicas=2)
    ledger = Ledger(cluster, topic, 3)

    def epochs(server):
        znodes = Znodes(server)
        return [znodes.get(f"/kafka/brokers/ids/{number}")[1].czxid for number in all_of_them]

    before = epochs(ensemble.servers[0])
    with ledger.load():
        gone = ensemble.leader()
        gone.close()
        following = ensemble.leader()
        # Asked of a controller that has its session again.
        cluster.create(place.name("later"), [1, 2, 0])
        equal(epochs(following), before, "no broker had to register anew")
        for partition in range(3):
            cluster.partition(topic, partition, error=0, leader=partition, isr=all_of_them)
        cluster.brokers[0].kill()
        for partition in range(3):
            cluster.partition(topic, partition, error=0, isr=[1, 2], offline=[0])
        cluster.brokers[0].start()
        gone.begin()
        for partition in range(3):
            cluster.partition(topic, partition, error=0, isr=all_of_them, offline=[])
    ledger.check()
    cluster.end()


@scenario(240)
def of_3_8(place):
    """Its leader is killed under load: sessions, leaders and controller stay, topics are made; a broker that dies then is followed."""
    loses_its_leader(place, "3.8.4")


@scenario(240, campaign=True)
def of_3_4(place):
    """The same with ZooKeeper 3.4."""
    loses_its_leader(place, "3.4.14")


@scenario(240, campaign=True)
def of_3_9(place):
    """The same with ZooKeeper 3.9."""
    loses_its_leader(place, "3.9.3")
