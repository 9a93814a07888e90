//! What goes wrong in a run, decided before it begins, so that a run can be repeated with less of it; and how all of it is mended.

use std::ops::Range;
use std::rc::Rc;
use std::time::Duration;

use milena_engine::io::simulated::Fault as DiskFault;
use milena_engine::units::TopicPartition;
use tokio::task::spawn_local;
use tokio::time::{Instant, sleep};

use super::network::Place;
use super::{Numbers, Shape, World, checker, node, promise, story};
use crate::coordination::{Operation, znodes};

/// A replica that joins later than this is not waited for.
const JOIN_MAX: Duration = Duration::from_secs(10);

/// One thing that goes wrong, or is mended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    Kill(i32),
    /// Kills who leads the partition so soon after the next time that a replica joins the in-sync ones (milliseconds).
    KillAtJoin(i32, u64),
    /// Next time that a replica joins the in-sync ones of the partition, its leader hears neither from it nor from the controller.
    CutAtJoin(i32),
    /// Kills, and what is not on the medium is gone.
    CutPower(i32),
    /// All machines lose power at once.
    CutAllPower,
    /// Those of these brokers (the lowest bit is broker 0) that are down come up.
    Start(u64),
    /// What the one sends does not arrive at the other any more.
    Cut(Place, Place),
    /// No broker hears of this one, nor it of them.
    Isolate(i32),
    /// One message in so many takes long.
    SlowDown(u64),
    /// One message in so many is lost.
    Lose(u64),
    /// All messages arrive again, and as fast as ever.
    HealNetwork,
    CutZooKeeper(i32),
    /// Nobody reaches ZooKeeper.
    StopZooKeeper,
    ReconnectZooKeeper,
    ExpireSession(i32),
    /// The broker's disk refuses an operation after so many.
    FailDisk(i32, u64, DiskFault),
    /// Somebody else takes the space on the broker's disk, so much below its reserve, for so long (milliseconds).
    FillDisk(i32, u64, u64),
    /// The broker's wall clock is off by so many seconds.
    SetClock(i32, i64),
    /// Somebody asks for the partition to be moved to these brokers; the one after the last of the records is that of the groups.
    Move(i32, [i32; 3]),
    /// Somebody asks for the preferred leaders.
    ElectPreferred,
    /// Somebody has another controller elected; the present one is well, and hears of it so many milliseconds later.
    EndController(u64),
}

/// What happens, and how many milliseconds after what happened before.
pub(super) type Plan = Vec<(u64, Fault)>;

/// Trouble for so long.
pub(super) fn plan(numbers: &Numbers, shape: Shape, may_lose_power: bool, time: Duration) -> Plan {
    let pause_max = Duration::from_millis(200 + numbers.below(4000));
    // The cluster comes up first.
    let mut pause_ms = 2000;
    let mut left = time;
    let mut plan = Plan::new();
    loop {
        let next = numbers.duration(pause_max);
        let Some(rest) = left.checked_sub(next) else {
            return plan;
        };
        left = rest;
        pause_ms += next.as_millis() as u64;
        for (after_ms, fault) in some(numbers, shape, may_lose_power) {
            plan.push((std::mem::take(&mut pause_ms) + after_ms, fault));
        }
    }
}

/// One fault, or two that belong together, and how many milliseconds after the other.
fn some(numbers: &Numbers, shape: Shape, may_lose_power: bool) -> Plan {
    let broker = || numbers.below(shape.brokers as u64) as i32;
    // Who is not registered does not live for those who lost power and do not sync.
    let may_end_sessions = shape.is_synced || !may_lose_power;
    let partition = || numbers.below(shape.partitions as u64 + 1) as i32;
    let fault = match numbers.below(27) {
        0..=2 => Fault::Kill(broker()),
        3 if may_lose_power => Fault::CutPower(broker()),
        23 if may_lose_power && shape.is_synced => Fault::CutAllPower,
        4..=6 => Fault::Start(numbers.next()),
        7 => {
            let (one, other) = (Place::Broker(broker()), Place::Broker(broker()));
            match numbers.once_in(2) {
                true => return vec![(0, Fault::Cut(one, other)), (0, Fault::Cut(other, one))],
                false => Fault::Cut(one, other),
            }
        }
        8 => Fault::Isolate(broker()),
        9 => Fault::Cut(Place::Clients, Place::Broker(broker())),
        10 if may_end_sessions => Fault::CutZooKeeper(broker()),
        11 if may_end_sessions => Fault::ExpireSession(broker()),
        12 => Fault::ReconnectZooKeeper,
        13 => Fault::SlowDown(2 + numbers.below(20)),
        14 if !may_lose_power => {
            let faults = [
                DiskFault::Eio,
                DiskFault::Enospc,
                DiskFault::ShortWrite,
                DiskFault::FailedSync,
            ];
            let fault = faults[numbers.below(faults.len() as u64) as usize];
            Fault::FailDisk(broker(), numbers.below(30), fault)
        }
        15 => Fault::SetClock(broker(), numbers.below(500_000) as i64 - 250_000),
        16 => some_move(numbers, shape),
        17 => Fault::ElectPreferred,
        18 => {
            // It is at work on that when it ends.
            let work = match numbers.below(4) {
                0 => Fault::Kill(broker()),
                1 => Fault::ElectPreferred,
                2 => some_move(numbers, shape),
                _ => return vec![(0, Fault::EndController(0))],
            };
            let heard_after_ms = match may_end_sessions && numbers.once_in(2) {
                true => numbers.below(2000),
                false => 0,
            };
            return vec![
                (0, work),
                (numbers.below(100), Fault::EndController(heard_after_ms)),
            ];
        }
        19 => Fault::KillAtJoin(partition(), numbers.below(40)),
        20 => Fault::Lose(3 + numbers.below(30)),
        21 if may_end_sessions => Fault::StopZooKeeper,
        22 => Fault::FillDisk(
            broker(),
            numbers.below(node::RESERVE_BYTES / 2),
            1000 + numbers.below(20_000),
        ),
        24 => Fault::CutAtJoin(partition()),
        _ => Fault::HealNetwork,
    };
    vec![(0, fault)]
}

fn some_move(numbers: &Numbers, shape: Shape) -> Fault {
    let partition = numbers.below(shape.partitions as u64 + 1) as i32;
    let mut ids: Vec<i32> = (0..shape.brokers).collect();
    let replicas = [(); 3].map(|()| ids.swap_remove(numbers.below(ids.len() as u64) as usize));
    Fault::Move(partition, replicas)
}

/// The same without some of it; the rest happens when it happened.
pub(super) fn without(plan: &Plan, gone: Range<usize>) -> Plan {
    let mut pause_ms = 0;
    let mut rest = Plan::new();
    for (index, (after_ms, fault)) in plan.iter().enumerate() {
        pause_ms += after_ms;
        if !gone.contains(&index) {
            rest.push((std::mem::take(&mut pause_ms), *fault));
        }
    }
    rest
}

/// Has all of it happen.
pub(super) async fn trouble(world: &Rc<World>, plan: &[(u64, Fault)]) {
    for (after_ms, fault) in plan {
        sleep(Duration::from_millis(*after_ms)).await;
        tracing::info!(target: story::EVENTS, "{fault:?}");
        happen(world, *fault);
    }
}

fn happen(world: &Rc<World>, fault: Fault) {
    let ids = 0..world.shape.brokers;
    promise::look(world);
    match fault {
        Fault::Kill(id) if promise::may_end(world, id) => node::kill(world, id),
        Fault::CutPower(id) if promise::may_lose_power(world, id) => node::cut_power(world, id),
        Fault::Kill(_) | Fault::CutPower(_) => {}
        Fault::CutAllPower => ids.for_each(|id| node::cut_power(world, id)),
        Fault::KillAtJoin(partition, after_ms) => {
            let at = world.all_partitions().swap_remove(partition as usize);
            let world = Rc::clone(world);
            spawn_local(async move {
                if joined(&world, &at).await.is_none() {
                    return;
                }
                sleep(Duration::from_millis(after_ms)).await;
                let leader = checker::state_in_tree(&world, &at).and_then(|state| state.leader);
                if let Some(leader) = leader.filter(|_| !world.is_healed.get()) {
                    happen(&world, Fault::Kill(leader));
                }
            });
        }
        Fault::CutAtJoin(partition) => {
            let at = world.all_partitions().swap_remove(partition as usize);
            let world = Rc::clone(world);
            spawn_local(async move {
                let Some((joiner, Some(leader))) = joined(&world, &at).await else {
                    return;
                };
                let others = [Some(joiner), node::controller(&world)];
                for other in others.into_iter().flatten().filter(|id| *id != leader) {
                    world.network.cut(Place::Broker(other), Place::Broker(leader));
                }
            });
        }
        Fault::Start(chosen) => ids
            .filter(|id| chosen >> id & 1 == 1)
            .for_each(|id| node::start(world, id)),
        Fault::Cut(from, to) => world.network.cut(from, to),
        Fault::Isolate(alone) => ids.for_each(|id| {
            world.network.cut(Place::Broker(alone), Place::Broker(id));
            world.network.cut(Place::Broker(id), Place::Broker(alone));
        }),
        Fault::SlowDown(one_in) => world.network.slow_down(one_in),
        Fault::Lose(one_in) => world.network.lose(one_in),
        Fault::HealNetwork => world.network.heal(),
        Fault::CutZooKeeper(id) => node::cut_zookeeper(world, id, true),
        Fault::StopZooKeeper => ids.for_each(|id| node::cut_zookeeper(world, id, true)),
        Fault::ReconnectZooKeeper => ids.for_each(|id| node::cut_zookeeper(world, id, false)),
        Fault::ExpireSession(id) => node::expire_session(world, id),
        Fault::FailDisk(id, after, fault) => node::fail_disk(world, id, after, fault),
        Fault::FillDisk(id, missing_bytes, for_ms) => {
            node::fill_disk(world, id, missing_bytes);
            let world = Rc::clone(world);
            spawn_local(async move {
                sleep(Duration::from_millis(for_ms)).await;
                node::free_disk(&world, id);
            });
        }
        Fault::SetClock(id, seconds) => world.nodes[id as usize].set_clock(seconds),
        Fault::Move(partition, replicas) => {
            let moved = world.all_partitions().swap_remove(partition as usize);
            let moves = [(moved, replicas.to_vec())];
            let data = znodes::topic::encode_reassignment(&moves);
            node::do_as_tool(world, Operation::create(znodes::REASSIGN_PARTITIONS, Some(data)));
        }
        Fault::ElectPreferred => {
            let data = znodes::topic::encode_partitions(&world.all_partitions());
            node::do_as_tool(
                world,
                Operation::create(znodes::PREFERRED_REPLICA_ELECTION, Some(data)),
            );
        }
        Fault::EndController(heard_after_ms) => {
            if let Some(id) = node::controller(world).filter(|_| heard_after_ms > 0) {
                node::cut_zookeeper(world, id, true);
                let world = Rc::clone(world);
                spawn_local(async move {
                    sleep(Duration::from_millis(heard_after_ms)).await;
                    node::cut_zookeeper(&world, id, false);
                });
            }
            node::do_as_tool(world, Operation::delete(znodes::CONTROLLER));
        }
    }
}

/// Waits until a replica joins the in-sync ones; who, and who leads. `None` once nothing is to go wrong any more.
async fn joined(world: &Rc<World>, at: &TopicPartition) -> Option<(i32, Option<i32>)> {
    let deadline = Instant::now() + JOIN_MAX;
    let mut before = checker::state_in_tree(world, at);
    while Instant::now() < deadline {
        sleep(Duration::from_millis(2)).await;
        if world.is_healed.get() {
            return None;
        }
        let now = checker::state_in_tree(world, at);
        if let (Some(before), Some(now)) = (&before, &now)
            && let Some(joiner) = now.isr.iter().find(|id| !before.isr.contains(id))
        {
            return Some((*joiner, now.leader));
        }
        before = now;
    }
    None
}

/// Nothing is wrong any more, but that one broker is down.
pub(super) fn heal_all_but(world: &Rc<World>, down: i32) {
    node::kill(world, down);
    mend(world);
    happen(world, Fault::Start(!(1 << down)));
}

/// Nothing is wrong any more.
pub(super) fn heal(world: &Rc<World>) {
    mend(world);
    happen(world, Fault::Start(u64::MAX));
}

fn mend(world: &Rc<World>) {
    world.is_healed.set(true);
    happen(world, Fault::HealNetwork);
    happen(world, Fault::ReconnectZooKeeper);
    for id in 0..world.shape.brokers {
        node::mend_disk(world, id);
        node::free_disk(world, id);
    }
}
