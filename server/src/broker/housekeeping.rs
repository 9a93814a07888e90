//! The thread that does what the log manager has due: retention, checkpoints, delayed deletions, the scrub. It sleeps exactly
//! until the next deadline, so that an idle broker is hardly ever woken.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use milena_engine::io::Clock;
use milena_engine::log_manager::LogManager;
use parking_lot::{Condvar, Mutex};

/// The running thread.
#[derive(Debug)]
pub(super) struct Housekeeping {
    thread: JoinHandle<()>,
    signal: Arc<Signal>,
}

#[derive(Debug, Default)]
struct Signal {
    stop: Mutex<bool>,
    changed: Condvar,
}

impl Housekeeping {
    pub(super) fn start(logs: Arc<LogManager>, clock: Arc<dyn Clock>) -> io::Result<Housekeeping> {
        let signal = Arc::new(Signal::default());
        let shared = Arc::clone(&signal);
        let work = move || {
            loop {
                let next = logs.run_due(clock.monotonic());
                let mut stop = shared.stop.lock();
                if !*stop {
                    let wait = next
                        .saturating_sub(clock.monotonic())
                        .max(Duration::from_millis(1));
                    shared.changed.wait_for(&mut stop, wait);
                }
                if *stop {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new()
            .name("housekeeping".to_owned())
            .spawn(work)?;
        Ok(Housekeeping { thread, signal })
    }

    /// Ends after what is being done.
    pub(super) fn stop(self) {
        *self.signal.stop.lock() = true;
        self.signal.changed.notify_one();
        if self.thread.join().is_err() {
            tracing::error!(target: "kafka.log.LogManager", "the housekeeping thread ended by a panic");
        }
    }
}
