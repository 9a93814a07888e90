//! The few threads that run submitted operations by blocking calls.
//!
//! Promise: every submitted operation runs once and its completion is called once, on a thread of the pool.
//! A thread is started when an operation arrives and none is idle, up to the limit; all but the first end
//! when they found nothing to do for [`IDLE_MAX`]. While nothing is submitted nothing wakes up. What a
//! completion submits its own thread takes next: a chain of syncs wakes nobody else.
//!
//! Operations may overtake each other: nobody may rely on their order.

use std::cell::Cell;
use std::collections::VecDeque;
use std::ptr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use crate::io::{Completion, Operation};

/// How long a thread beyond the first waits for more work.
const IDLE_MAX: Duration = Duration::from_secs(10);

thread_local! {
    /// The pool whose completion this thread runs: it will be idle in a moment, since completions do not block.
    static COMPLETING: Cell<*const Shared> = const { Cell::new(ptr::null()) };
}

#[derive(Debug)]
pub(super) struct Pool {
    shared: Arc<Shared>,
    threads_max: usize,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    arrived: Condvar,
}

#[derive(Default)]
struct State {
    queue: VecDeque<(Operation, Completion)>,
    threads: usize,
    idle: usize,
    closed: bool,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State")
            .field("queued", &self.queue.len())
            .field("threads", &self.threads)
            .field("idle", &self.idle)
            .field("closed", &self.closed)
            .finish()
    }
}

impl Pool {
    pub(super) fn new(threads_max: usize) -> Pool {
        Pool {
            shared: Arc::new(Shared {
                state: Mutex::new(State::default()),
                arrived: Condvar::new(),
            }),
            threads_max,
        }
    }

    /// Queues the operation. If not even one thread can be started it runs here, before this returns.
    pub(super) fn submit(&self, operation: Operation, done: Completion) {
        let is_ours = COMPLETING.get() == Arc::as_ptr(&self.shared);
        let mut state = self.shared.state.lock();
        state.queue.push_back((operation, done));
        if is_ours && state.queue.len() == 1 {
            return;
        }
        let idle = state.idle + usize::from(is_ours);
        if idle >= state.queue.len() || state.threads == self.threads_max {
            self.shared.arrived.notify_one();
            return;
        }
        let shared = Arc::clone(&self.shared);
        let started = std::thread::Builder::new()
            .name("milena-io".to_owned())
            .spawn(move || serve(&shared));
        if started.is_ok() {
            state.threads += 1;
        } else if state.threads == 0 {
            let task = state.queue.pop_back();
            drop(state);
            if let Some((operation, done)) = task {
                done(super::run(&operation));
            }
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.state.lock().closed = true;
        self.shared.arrived.notify_all();
    }
}

/// Keeps the count of threads right even if a completion panics.
struct Counted<'a> {
    shared: &'a Shared,
    running: bool,
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        if self.running {
            self.shared.state.lock().threads -= 1;
        }
    }
}

fn serve(shared: &Shared) {
    let mut counted = Counted {
        shared,
        running: true,
    };
    while let Some((operation, done)) = next(shared) {
        let outcome = super::run(&operation);
        COMPLETING.set(shared);
        done(outcome);
        COMPLETING.set(ptr::null());
        // The last handle of a file closes here, after its completion.
        drop(operation);
    }
    counted.running = false;
}

/// Waits for work. `None` when the thread shall end; it is then no longer counted, so that the next
/// submission starts another.
fn next(shared: &Shared) -> Option<(Operation, Completion)> {
    let mut state = shared.state.lock();
    loop {
        if let Some(task) = state.queue.pop_front() {
            return Some(task);
        }
        if state.closed {
            state.threads -= 1;
            return None;
        }
        state.idle += 1;
        let timed_out = if state.threads > 1 {
            shared.arrived.wait_for(&mut state, IDLE_MAX).timed_out()
        } else {
            shared.arrived.wait(&mut state);
            false
        };
        state.idle -= 1;
        if timed_out && state.queue.is_empty() && state.threads > 1 {
            state.threads -= 1;
            return None;
        }
    }
}
