"""Two clusters set up to lose what they acknowledged: a harness that reports no loss there proves nothing elsewhere.

`acks1`: followers are held back, the leader alone acknowledges, and dies. `unclean`: the last in-sync replica dies, and one that
was left behind may lead. Both verdicts are turned round: PASS is a loss that was reported as A1.
"""

import checker
import ledger
import librdkafka
import network as networks
from cluster import Cluster
from faults import Strike
from network import wait_until
from trial import HEALED_SECONDS, MACHINES, Trial

COUNT = 300


class Control(Trial):
    session_ms = 4000

    def set_up(self):
        self.network = networks.of(MACHINES)
        # The followers stay in sync for as long as they are held back.
        settings = {"min.insync.replicas": 1, "replica.lag.time.max.ms": 30000, **self.settings()}
        self.cluster = Cluster(self.directory, self.network, self.request["kinds"], settings, session_ms=self.session_ms)
        self.cluster.create(self.topic, 1)

    def send(self, producer, book, bootstrap, acks):
        """Acked records, of which the ledger knows; how many."""
        client = librdkafka.producer(bootstrap, acks=acks, message_timeout_ms=10000)
        acked = [0]

        def noted(counter):
            def outcome(error, message):
                acked[0] += error is None
                book.write("a" if error is None else "u", counter, message.offset() if error is None else error, ledger.now())
            return outcome

        for _ in range(COUNT):
            self.sent += 1
            at = ledger.now()
            book.write("i", self.sent, 0, at, 100)
            client.produce(self.topic, ledger.payload(producer, self.sent, 100), producer, 0, noted(self.sent), timestamp=at,
                           headers=[("n", str(self.sent))])
        client.flush(30)
        return acked[0]

    def strike(self):
        self.sent = 0
        book = ledger.Writer(self.directory / "ledger/control.ledger", "producer", "control", self.topic, "librdkafka")
        if self.send("control", book, self.cluster.bootstrap, "all") != COUNT:
            self.overdue("the healthy cluster does not acknowledge")
        state = self.cluster.state(self.topic, 0)
        leader = self.cluster.brokers[state["leader"]]
        followers = [broker for broker in self.cluster.brokers if broker is not leader]
        self.strikes.append(self.lose(leader, followers, book))
        self.say(self.strikes[-1].what)

    def judged(self):
        if not wait_until(HEALED_SECONDS, lambda: not self.cluster.out_of_sync(), 0.2):
            self.overdue(f"not in sync {HEALED_SECONDS} s after the fault: {self.cluster.out_of_sync()}")
        evidence = self.scan({"librdkafka": self.read_by_librdkafka(), "java": self.read_by_java()})
        found = checker.check(evidence, checker.Rules())
        lost = found.counts["A1"]
        facts = {"records": sum(map(len, evidence.log.values())), "counts": dict(found.counts),
                 "reported": [text for label, text in found if label == "A1"][:3]}
        self.say(f"{lost} acked records are reported as lost")
        # What else is wrong beside the loss is a violation here too.
        others = [one for one in found if one[0] != "A1"]
        return others + ([] if lost else [("control", "nothing is reported as lost")]), facts

    def elected(self, brokers):
        """Waits until one of these leads."""
        def one_leads():
            state = self.cluster.state(self.topic, 0)
            return state and state["leader"] in [broker.number for broker in brokers]

        if not wait_until(60, one_leads):
            self.overdue(f"nobody leads: {self.cluster.state(self.topic, 0)}")


class Acks1(Control):
    def lose(self, leader, followers, book):
        network = self.cluster.network
        for broker in followers:
            network.cut(broker.machine, leader.machine)
            network.cut(leader.machine, broker.machine)
        acked = self.send("control", book, leader.address, 1)
        killed = leader.kill()
        # What the dead leader's kernel still holds for a follower must not get there before another leads.
        self.elected(followers)
        network.heal()
        leader.begin()
        return Strike(f"leader {leader.number} acked {acked} records alone with acks=1 and was killed", killed and acked > 0)


class Unclean(Control):
    def settings(self):
        return {"unclean.leader.election.enable": "true"}

    def lose(self, leader, followers, book):
        for broker in followers:
            broker.kill()
        alone = wait_until(60, lambda: (self.cluster.state(self.topic, 0) or {}).get("isr") == [leader.number])
        acked = self.send("control", book, leader.address, "all")
        killed = leader.kill()
        wait_until(30, lambda: leader.epoch() is None)
        for broker in followers:
            broker.begin()
        self.elected(followers)
        leader.begin()
        return Strike(f"leader {leader.number} acked {acked} records as the only in-sync replica and was killed",
                      bool(alone) and killed and acked > 0)


KINDS = {"control-acks1": Acks1, "control-unclean": Unclean}
