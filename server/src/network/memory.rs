//! `queued.max.request.bytes`: how many bytes of requests the broker holds before it reads no more (`SimpleMemoryPool.java`).
//!
//! A request counts from the moment its length is known until it is answered. As in Kafka, one that begins while anything is
//! left is read to its end, so that what is being read can never stand in its own way; the limit may be exceeded by one request
//! for each connection. Connections that must wait are woken once there is room again. Without a limit there is no account, and
//! nothing is counted.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Waker};

use parking_lot::Mutex;

/// The budget of the whole broker.
#[derive(Debug)]
pub(crate) struct RequestMemory {
    limit_bytes: u64,
    held_bytes: AtomicU64,
    next_account: AtomicU64,
    /// Who waits for room, by account.
    waiting: Mutex<HashMap<u64, Waker>>,
}

/// What one connection holds; given back when dropped.
#[derive(Debug)]
pub(crate) struct RequestMemoryAccount {
    memory: Arc<RequestMemory>,
    number: u64,
    held_bytes: u64,
}

impl RequestMemory {
    pub(crate) fn new(limit_bytes: u64) -> Arc<RequestMemory> {
        Arc::new(RequestMemory {
            limit_bytes,
            held_bytes: AtomicU64::new(0),
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

    fn has_room(&self) -> bool {
        self.held_bytes.load(Ordering::Acquire) < self.limit_bytes
    }
}

impl RequestMemoryAccount {
    /// Whether a request may begin; if not, the task is woken when one may.
    pub(crate) fn poll_room(&self, cx: &Context<'_>) -> bool {
        if self.memory.has_room() {
            return true;
        }
        self.memory.waiting.lock().insert(self.number, cx.waker().clone());
        // It may have come meanwhile.
        self.memory.has_room()
    }

    pub(crate) fn take(&mut self, size_bytes: usize) {
        self.held_bytes += size_bytes as u64;
        self.memory
            .held_bytes
            .fetch_add(size_bytes as u64, Ordering::AcqRel);
    }

    pub(crate) fn give_back(&mut self, size_bytes: usize) {
        let size_bytes = size_bytes as u64;
        self.held_bytes -= size_bytes;
        let before = self.memory.held_bytes.fetch_sub(size_bytes, Ordering::AcqRel);
        let (limit, now) = (self.memory.limit_bytes, before - size_bytes);
        if before >= limit && now < limit {
            let waiting = std::mem::take(&mut *self.memory.waiting.lock());
            waiting.into_values().for_each(Waker::wake);
        }
    }
}

impl Drop for RequestMemoryAccount {
    fn drop(&mut self) {
        self.memory.waiting.lock().remove(&self.number);
        self.give_back(usize::try_from(self.held_bytes).unwrap_or(usize::MAX));
    }
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
    fn a_request_may_begin_while_anything_is_left_and_who_waits_is_woken_when_there_is_room() {
        let wakes = Arc::new(Wakes::default());
        let waker = Waker::from(Arc::clone(&wakes));
        let cx = Context::from_waker(&waker);
        let memory = RequestMemory::new(100);
        let (mut one, mut two) = (memory.account(), memory.account());
        one.take(99);
        assert!(two.poll_room(&cx));
        two.take(50);
        assert!(!one.poll_room(&cx) && !one.poll_room(&cx));
        two.give_back(49);
        assert_eq!(wakes.0.load(Ordering::Relaxed), 0, "100 bytes are held");
        two.give_back(1);
        assert_eq!(wakes.0.load(Ordering::Relaxed), 1);
        assert!(one.poll_room(&cx));
    }

    #[test]
    fn a_connection_that_ends_gives_back_what_it_held() {
        let wakes = Arc::new(Wakes::default());
        let waker = Waker::from(Arc::clone(&wakes));
        let cx = Context::from_waker(&waker);
        let memory = RequestMemory::new(100);
        let (mut one, two) = (memory.account(), memory.account());
        one.take(1000);
        assert!(!two.poll_room(&cx));
        drop(one);
        assert!(wakes.0.load(Ordering::Relaxed) == 1 && two.poll_room(&cx));
        assert_eq!(memory.held_bytes.load(Ordering::Relaxed), 0);
    }
}
