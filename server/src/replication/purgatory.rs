//! Who waits for a partition's readable end to move: long polls now, `acks=all` across replicas later.
//!
//! The append that satisfies a waiter wakes exactly that waiter. A waiter registers first and looks again afterwards; the
//! appender moves the end first and looks for waiters afterwards: with both in sequentially consistent order no wake-up is lost.
//! An append on a partition that nobody waits for costs one load.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering, fence};

use milena_engine::units::Offset;
use parking_lot::Mutex;
use tokio::sync::Notify;

#[derive(Debug)]
struct Waiter {
    /// Satisfied once the readable end is beyond this offset.
    beyond: Offset,
    wake: Arc<Notify>,
}

/// The waiters of one partition.
#[derive(Debug, Default)]
pub struct Purgatory {
    count: AtomicUsize,
    waiters: Mutex<Vec<Waiter>>,
}

impl Purgatory {
    /// Registers; the caller must look at the end once more before it sleeps.
    pub fn watch(&self, beyond: Offset, wake: &Arc<Notify>) {
        let mut waiters = self.waiters.lock();
        waiters.push(Waiter {
            beyond,
            wake: Arc::clone(wake),
        });
        self.count.store(waiters.len(), Ordering::SeqCst);
        fence(Ordering::SeqCst);
    }

    /// Takes back a registration, whether or not it was woken.
    pub fn unwatch(&self, wake: &Arc<Notify>) {
        let mut waiters = self.waiters.lock();
        waiters.retain(|waiter| !Arc::ptr_eq(&waiter.wake, wake));
        self.count.store(waiters.len(), Ordering::SeqCst);
    }

    /// The readable end is now `end`: wakes those it satisfies.
    pub fn end_moved(&self, end: Offset) {
        fence(Ordering::SeqCst);
        if self.count.load(Ordering::SeqCst) == 0 {
            return;
        }
        self.wake_if(|waiter| end > waiter.beyond);
    }

    /// The partition changed in another way (leadership, storage): everybody must look again.
    pub fn wake_all(&self) {
        self.wake_if(|_| true);
    }

    fn wake_if(&self, satisfied: impl Fn(&Waiter) -> bool) {
        let mut waiters = self.waiters.lock();
        waiters.retain(|waiter| {
            let wake = satisfied(waiter);
            if wake {
                waiter.wake.notify_one();
            }
            !wake
        });
        self.count.store(waiters.len(), Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_waiters_that_the_end_has_passed_are_woken() {
        let purgatory = Purgatory::default();
        let (near, far) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        purgatory.watch(Offset(4), &near);
        purgatory.watch(Offset(9), &far);
        purgatory.end_moved(Offset(5));
        assert_eq!(purgatory.count.load(Ordering::SeqCst), 1);
        purgatory.end_moved(Offset(9));
        assert_eq!(purgatory.count.load(Ordering::SeqCst), 1);
        purgatory.unwatch(&far);
        assert_eq!(purgatory.count.load(Ordering::SeqCst), 0);
    }
}
