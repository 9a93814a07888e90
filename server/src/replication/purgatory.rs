//! Who waits for an end of a partition's log to move: long polls of consumers and followers, `acks=all`, deletions of records.
//!
//! The move that satisfies a waiter wakes exactly that waiter. A waiter registers first and looks again afterwards; the
//! mover moves the end first and looks for waiters afterwards: with both in sequentially consistent order no wake-up is lost.
//! A move on a partition that nobody waits for costs one load.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering, fence};

use milena_engine::units::{LeaderEpoch, Offset};
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::hosted::Acknowledgement;

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// What followers read up to.
    Log,
    /// What consumers read up to.
    HighWatermark,
    /// Where the logs of all live replicas start.
    LowWatermark,
}

/// Told once what became of `acks=all`; never [`Acknowledgement::Waiting`].
pub type AcknowledgementDone = Box<dyn FnOnce(Acknowledgement) + Send>;

/// An append that waits for the in-sync replicas.
pub(super) struct PendingAcknowledgement {
    pub(super) leader_epoch: LeaderEpoch,
    pub(super) last_offset: Offset,
    pub(super) done: AcknowledgementDone,
}

/// Names a [`PendingAcknowledgement`] in its partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AcknowledgementId(u64);

/// A [`PendingAcknowledgement`] that stays where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) id: AcknowledgementId,
    pub(super) leader_epoch: LeaderEpoch,
    pub(super) last_offset: Offset,
}

enum Waiter {
    Reader {
        end: End,
        /// Satisfied once the end is beyond this offset.
        beyond: Offset,
        wake: Arc<Notify>,
    },
    Acknowledgement(AcknowledgementId, PendingAcknowledgement),
}

impl fmt::Debug for Waiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Waiter::Reader { end, beyond, .. } => write!(f, "Reader({end:?} beyond {beyond})"),
            Waiter::Acknowledgement(_, pending) => write!(f, "Acknowledgement({})", pending.last_offset),
        }
    }
}

#[derive(Debug, Default)]
struct Waiters {
    list: Vec<Waiter>,
    next_id: u64,
}

/// The waiters of one partition.
#[derive(Debug, Default)]
pub struct Purgatory {
    count: AtomicUsize,
    waiters: Mutex<Waiters>,
}

impl Purgatory {
    /// How many wait.
    #[cfg(test)]
    pub(crate) fn waiting_count(&self) -> usize {
        self.waiters.lock().list.len()
    }

    /// Registers; the caller must look at the end once more before it sleeps.
    pub fn watch(&self, end: End, beyond: Offset, wake: &Arc<Notify>) {
        let wake = Arc::clone(wake);
        self.change(|waiters| waiters.list.push(Waiter::Reader { end, beyond, wake }));
        fence(Ordering::SeqCst);
    }

    /// Takes back a registration, whether or not it was woken.
    pub fn unwatch(&self, wake: &Arc<Notify>) {
        let is_other = |waiter: &Waiter| match waiter {
            Waiter::Reader { wake: other, .. } => !Arc::ptr_eq(other, wake),
            Waiter::Acknowledgement(..) => true,
        };
        self.change(|waiters| waiters.list.retain(is_other));
    }

    /// Registers an append; the caller must look once more whether it is replicated.
    pub(super) fn hold(&self, pending: PendingAcknowledgement) -> AcknowledgementId {
        let id = self.change(|waiters| {
            waiters.next_id += 1;
            let id = AcknowledgementId(waiters.next_id);
            waiters.list.push(Waiter::Acknowledgement(id, pending));
            id
        });
        fence(Ordering::SeqCst);
        id
    }

    /// Takes an append back; `None` if it was woken.
    pub(super) fn release(&self, id: AcknowledgementId) -> Option<PendingAcknowledgement> {
        self.change(|waiters| {
            let is_it = |waiter: &Waiter| matches!(waiter, Waiter::Acknowledgement(other, _) if *other == id);
            let at = waiters.list.iter().position(is_it)?;
            match waiters.list.swap_remove(at) {
                Waiter::Acknowledgement(_, pending) => Some(pending),
                Waiter::Reader { .. } => unreachable!("it was looked at"),
            }
        })
    }

    /// Ends moved: wakes the readers that they satisfy, and returns the appends that are replicated.
    #[must_use]
    pub(super) fn ends_moved(&self, log_end: Offset, high_watermark: Offset) -> Vec<PendingAcknowledgement> {
        self.wake_if(|waiter| match waiter {
            Waiter::Reader { end, beyond, .. } => match end {
                End::Log => log_end > *beyond,
                End::HighWatermark => high_watermark > *beyond,
                End::LowWatermark => false,
            },
            Waiter::Acknowledgement(_, pending) => high_watermark > pending.last_offset,
        })
    }

    /// The low watermark may have moved: whoever waits for it looks again.
    pub(super) fn low_watermark_moved(&self) {
        let woken = self.wake_if(|waiter| {
            matches!(
                waiter,
                Waiter::Reader {
                    end: End::LowWatermark,
                    ..
                }
            )
        });
        debug_assert!(woken.is_empty(), "only readers were chosen");
    }

    /// The partition changed in another way (leadership, in-sync replicas): wakes the readers, and names the appends that must be looked
    /// at. They stay held, so that who gives one up finds it.
    #[must_use]
    pub(super) fn changed(&self) -> Vec<Held> {
        let woken = self.wake_if(|waiter| matches!(waiter, Waiter::Reader { .. }));
        debug_assert!(woken.is_empty(), "only readers were chosen");
        let waiters = self.waiters.lock();
        let held = waiters.list.iter().filter_map(|waiter| match waiter {
            Waiter::Reader { .. } => None,
            Waiter::Acknowledgement(id, pending) => Some(Held {
                id: *id,
                leader_epoch: pending.leader_epoch,
                last_offset: pending.last_offset,
            }),
        });
        held.collect()
    }

    /// The partition is served no more: nobody waits any longer.
    #[must_use]
    pub(super) fn wake_all(&self) -> Vec<PendingAcknowledgement> {
        self.wake_if(|_| true)
    }

    fn wake_if(&self, satisfied: impl Fn(&Waiter) -> bool) -> Vec<PendingAcknowledgement> {
        let mut woken = Vec::new();
        fence(Ordering::SeqCst);
        if self.count.load(Ordering::SeqCst) == 0 {
            return woken;
        }
        self.change(|waiters| {
            for waiter in waiters.list.extract_if(.., |waiter| satisfied(waiter)) {
                match waiter {
                    Waiter::Reader { wake, .. } => wake.notify_one(),
                    Waiter::Acknowledgement(_, pending) => woken.push(pending),
                }
            }
        });
        woken
    }

    fn change<T>(&self, change: impl FnOnce(&mut Waiters) -> T) -> T {
        let mut waiters = self.waiters.lock();
        let changed = change(&mut waiters);
        self.count.store(waiters.list.len(), Ordering::SeqCst);
        changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_waiters_whose_end_has_passed_are_woken() {
        let purgatory = Purgatory::default();
        let wakes: Vec<Arc<Notify>> = (0..4).map(|_| Arc::default()).collect();
        purgatory.watch(End::HighWatermark, Offset(4), &wakes[0]);
        purgatory.watch(End::HighWatermark, Offset(9), &wakes[1]);
        purgatory.watch(End::Log, Offset(9), &wakes[2]);
        purgatory.watch(End::LowWatermark, Offset(0), &wakes[3]);
        let left = || purgatory.count.load(Ordering::SeqCst);
        assert!(purgatory.ends_moved(Offset(9), Offset(5)).is_empty());
        assert_eq!(left(), 3);
        assert!(purgatory.ends_moved(Offset(10), Offset(9)).is_empty());
        assert_eq!(left(), 2);
        purgatory.low_watermark_moved();
        assert_eq!(left(), 1);
        purgatory.unwatch(&wakes[1]);
        assert_eq!(left(), 0);
        purgatory.watch(End::Log, Offset(100), &wakes[0]);
        assert!(purgatory.wake_all().is_empty());
        assert_eq!(left(), 0);
    }

    #[test]
    fn an_append_waits_for_the_high_watermark_and_can_be_taken_back() {
        let purgatory = Purgatory::default();
        let pending = |last_offset| PendingAcknowledgement {
            leader_epoch: LeaderEpoch(0),
            last_offset: Offset(last_offset),
            done: Box::new(|_| {}),
        };
        let first = purgatory.hold(pending(4));
        let second = purgatory.hold(pending(7));
        assert!(purgatory.ends_moved(Offset(20), Offset(4)).is_empty());
        let woken = purgatory.ends_moved(Offset(20), Offset(5));
        assert_eq!(
            woken.iter().map(|one| one.last_offset).collect::<Vec<_>>(),
            [Offset(4)]
        );
        assert!(purgatory.release(first).is_none());
        let held = purgatory.changed();
        assert_eq!(held.iter().map(|one| one.id).collect::<Vec<_>>(), [second]);
        assert!(purgatory.release(second).is_some());
        assert!(purgatory.wake_all().is_empty());
    }
}
