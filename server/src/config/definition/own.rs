//! Definitions: the keys that Kafka does not know. All begin with `milena.`, which no
//! Kafka will ever give another meaning.

use super::*;

definitions! {
    OWN;

    "milena.io.backend": String = "auto", one_of(&["auto", "uring", "syscall"]), Low, Fixed, Served;
        "How syncs and cold reads reach the disk: io_uring, threads, or what a probe at start finds.";
    "milena.disk.reserve.bytes": Long = "268435456", at_least(0), Medium, Fixed, Served;
        "Free bytes of a log directory below which appends are refused; 0 appends until the disk is full.";
    "milena.lanes": Int = none, at_least(1), Medium, Fixed, Served;
        "Network lanes, each one thread that reads, handles and answers requests; one per core if unset.";
    "milena.zookeeper.sasl.jaas.config": Password = none, ANY, Medium, Fixed, OnlyInCluster(ALONE);
        "Who this broker is at ZooKeeper, in place of the Client section of a JAAS file: a login module with username and password.";
    "milena.zookeeper.digest": Password = none, ANY, Medium, Fixed, OnlyInCluster(ALONE);
        "Who this broker is at ZooKeeper by its scheme digest, with or without a login by SASL: name:password.";
    "milena.log.dir": String = none, ANY, Low, Fixed, Served;
        "Directory of the broker's own log (server.log, rotated hourly); standard output if unset.";
    "milena.log.level": String = "info", LOG_LEVEL, Low, Fixed, Served;
        "Least important log lines written: trace, debug, info, warn, error or off; logger=level may follow.";
}
