//! What goes wrong in a run, and how all of it is mended.

use std::rc::Rc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::network::Place;
use super::{World, node};

/// Makes trouble for so long; returns how many faults there were.
pub(super) async fn trouble(world: &Rc<World>, time: Duration) -> usize {
    let end = Instant::now() + time;
    let pause_max = Duration::from_millis(200 + world.numbers.below(4000));
    let mut count = 0;
    // The cluster comes up first.
    sleep(Duration::from_secs(2)).await;
    while Instant::now() < end {
        sleep(world.numbers.duration(pause_max)).await;
        one(world);
        count += 1;
    }
    count
}

fn one(world: &Rc<World>) {
    let numbers = &world.numbers;
    let broker = || numbers.below(world.shape.brokers as u64) as i32;
    match numbers.below(16) {
        0..=2 => node::kill(world, broker()),
        3 if world.shape.is_synced => node::cut_power(world, broker()),
        4..=6 => {
            // Brokers that are down come up.
            for id in 0..world.shape.brokers {
                if numbers.once_in(2) {
                    node::start(world, id);
                }
            }
        }
        7 => {
            let (one, other) = (Place::Broker(broker()), Place::Broker(broker()));
            world.network.cut(one, other);
            if numbers.once_in(2) {
                world.network.cut(other, one);
            }
        }
        8 => {
            let alone = broker();
            for id in 0..world.shape.brokers {
                world.network.cut(Place::Broker(alone), Place::Broker(id));
                world.network.cut(Place::Broker(id), Place::Broker(alone));
            }
        }
        9 => world.network.cut(Place::Clients, Place::Broker(broker())),
        10 => node::cut_zookeeper(world, broker(), true),
        11 => node::expire_session(world, broker()),
        12 => {
            for id in 0..world.shape.brokers {
                node::cut_zookeeper(world, id, false);
            }
        }
        13 => world.network.slow_down(2 + numbers.below(20)),
        _ => world.network.heal(),
    }
}

/// Nothing is wrong any more.
pub(super) fn heal(world: &Rc<World>) {
    world.network.heal();
    for id in 0..world.shape.brokers {
        node::cut_zookeeper(world, id, false);
        node::start(world, id);
    }
}
