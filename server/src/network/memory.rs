//! `queued.max.request.bytes`: how many bytes of requests the broker holds before it reads no more (`SimpleMemoryPool.java`).
//!
//! A request counts from the moment its length is known until it is handled, as in Kafka (`KafkaRequestHandler.scala`); its answer may
//! be waited for longer. All of it is taken as soon as
//! anything is left, so that what is being read can never stand in its own way: the limit may be exceeded by one request in all,
//! however many connections and lanes there are. Connections that must wait are woken once something is left again. Without a
//! limit there is no account, and nothing is counted.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::task::{Context, Waker};

use parking_lot::Mutex;

/// The budget of the whole broker.
#[derive(Debug)]
pub(crate) struct RequestMemory {
    /// Below zero by what the last request that was let in has too much.
    available_bytes: AtomicI64,
    next_account: AtomicU64,
    /// Who waits for something to be left, by account.
    waiting: Mutex<HashMap<u64, Waker>>,
}

/// What one connection holds; given back when dropped.
#[derive(Debug)]
pub(crate) struct RequestMemoryAccount {
    memory: Arc<RequestMemory>,
    number: u64,
    held_bytes: i64,
}

impl RequestMemory {
    pub(crate) fn new(limit_bytes: u64) -> Arc<RequestMemory> {
        Arc::new(RequestMemory {
            available_bytes: AtomicI64::new(signed(limit_bytes)),
            next_account: AtomicU64::new(0),
            waiting: Mutex::new(HashMap::new()),
        })
    }

    pub(crate) fn account(self: &Arc<Self>) -> RequestMemoryAccount {
        RequestMemoryAccount {
            memory: Arc::clone(self),
            number: self.next_account.fetch_add(1, Ordering::Relaxed),
            held_bytes: 0,
        }
    }

    fn try_take(&self, size_bytes: i64) -> bool {
        let take = |available: i64| (available > 0).then(|| available - size_bytes);
        self.available_bytes
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, take)
            .is_ok()
    }

    fn give_back(&self, size_bytes: i64) {
        let before = self.available_bytes.fetch_add(size_bytes, Ordering::AcqRel);
        if before <= 0 && before + size_bytes > 0 {
            let waiting = std::mem::take(&mut *self.waiting.lock());
            waiting.into_values().for_each(Waker::wake);
        }
    }
}

impl RequestMemoryAccount {
    /// Takes what a request needs, if anything is left; if not, the task is woken when it may try again.
    pub(crate) fn try_take(&mut self, size_bytes: usize, cx: &Context<'_>) -> bool {
        let size_bytes = signed(size_bytes as u64);
        let mut is_taken = self.memory.try_take(size_bytes);
        if !is_taken {
            self.memory.waiting.lock().insert(self.number, cx.waker().clone());
            // Something may have been given back meanwhile.
            is_taken = self.memory.try_take(size_bytes);
        }
        if is_taken {
            self.held_bytes += size_bytes;
        }
        is_taken
    }

    pub(crate) fn give_back(&mut self, size_bytes: usize) {
        let size_bytes = signed(size_bytes as u64);
        self.held_bytes -= size_bytes;
        self.memory.give_back(size_bytes);
    }
}

impl Drop for RequestMemoryAccount {
    fn drop(&mut self) {
        self.memory.waiting.lock().remove(&self.number);
        self.memory.give_back(self.held_bytes);
    }
}

/// Limits beyond what can be counted limit nothing.
fn signed(size_bytes: u64) -> i64 {
    i64::try_from(size_bytes).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Wakes(AtomicUsize);

    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn the_last_request_may_take_more_than_is_left_and_who_waits_is_woken_when_something_is_left_again() {
        let wakes = Arc::new(Wakes::default());
        let waker = Waker::from(Arc::clone(&wakes));
        let cx = Context::from_waker(&waker);
        let memory = RequestMemory::new(100);
        let (mut one, mut two) = (memory.account(), memory.account());
        assert!(one.try_take(99, &cx) && two.try_take(50, &cx));
        assert!(!one.try_take(1, &cx) && !one.try_take(1, &cx));
        two.give_back(49);
        assert_eq!(wakes.0.load(Ordering::Relaxed), 0, "100 bytes are held");
        assert!(!one.try_take(1, &cx));
        two.give_back(1);
        assert_eq!(wakes.0.load(Ordering::Relaxed), 1);
        assert!(one.try_take(1, &cx));
    }

    #[test]
    fn however_many_ask_at_once_the_limit_is_exceeded_by_one_request() {
        const LIMIT: i64 = 1000;
        const SIZE: i64 = 700;
        let memory = RequestMemory::new(LIMIT as u64);
        let ask = || {
            let mut account = memory.account();
            let cx = Context::from_waker(Waker::noop());
            for _ in 0..10_000 {
                if account.try_take(SIZE as usize, &cx) {
                    let available = memory.available_bytes.load(Ordering::Relaxed);
                    assert!(available >= 1 - SIZE, "{available}");
                    account.give_back(SIZE as usize);
                }
            }
        };
        std::thread::scope(|threads| {
            for _ in 0..4 {
                threads.spawn(ask);
            }
        });
        assert_eq!(memory.available_bytes.load(Ordering::Relaxed), LIMIT);
    }

    #[test]
    fn a_connection_that_ends_gives_back_what_it_held() {
        let wakes = Arc::new(Wakes::default());
        let waker = Waker::from(Arc::clone(&wakes));
        let cx = Context::from_waker(&waker);
        let memory = RequestMemory::new(100);
        let (mut one, mut two) = (memory.account(), memory.account());
        assert!(one.try_take(1000, &cx) && !two.try_take(1, &cx));
        drop(one);
        assert!(wakes.0.load(Ordering::Relaxed) == 1 && two.try_take(1, &cx));
        drop(two);
        assert_eq!(memory.available_bytes.load(Ordering::Relaxed), 100);
    }
}
