//! The ways between brokers, and from clients to brokers: delayed, cut one way or both, slow or lossy for a while; and what arrives twice.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::sleep;

use super::Numbers;

/// So much later may a message arrive a second time.
const AGAIN_MAX: Duration = Duration::from_secs(3);

/// Who sends or receives; clients are one place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    Broker(i32),
    Clients,
}

pub(super) struct Network {
    numbers: Numbers,
    delay_max: Duration,
    cuts: RefCell<BTreeSet<(Place, Place)>>,
    /// One message in so many takes long; 0: none.
    slow_one_in: Cell<u64>,
    /// One message in so many is lost with its connection; 0: none.
    lost_one_in: Cell<u64>,
    /// One message in so many arrives twice; 0: none.
    twice_one_in: u64,
}

impl Network {
    pub(super) fn new(numbers: Numbers, delay_max: Duration) -> Network {
        Network {
            twice_one_in: [0, 3, 50][numbers.below(3) as usize],
            numbers,
            delay_max,
            cuts: RefCell::default(),
            slow_one_in: Cell::new(0),
            lost_one_in: Cell::new(0),
        }
    }

    /// A message on its way; `false`: it never arrives.
    pub(super) async fn travel(&self, from: Place, to: Place) -> bool {
        let slow = self.slow_one_in.get();
        let delay_max = match slow > 0 && self.numbers.once_in(slow) {
            true => self.delay_max * 100,
            false => self.delay_max,
        };
        sleep(self.numbers.duration(delay_max)).await;
        let lost = self.lost_one_in.get();
        let is_lost = lost > 0 && self.numbers.once_in(lost);
        !is_lost && !self.cuts.borrow().contains(&(from, to))
    }

    /// When what arrived arrives once more, if it does: its sender did not hear of it and sent it again over another connection, and
    /// what the first one held comes after what the second brought.
    pub(super) fn again(&self) -> Option<Duration> {
        let is_sent_twice = self.twice_one_in > 0 && self.numbers.once_in(self.twice_one_in);
        is_sent_twice.then(|| self.numbers.duration(AGAIN_MAX))
    }

    pub(super) fn cut(&self, from: Place, to: Place) {
        self.cuts.borrow_mut().insert((from, to));
    }

    pub(super) fn slow_down(&self, one_in: u64) {
        self.slow_one_in.set(one_in);
    }

    pub(super) fn lose(&self, one_in: u64) {
        self.lost_one_in.set(one_in);
    }

    pub(super) fn heal(&self) {
        self.cuts.borrow_mut().clear();
        self.slow_one_in.set(0);
        self.lost_one_in.set(0);
    }
}
