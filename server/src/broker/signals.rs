//! The signals that end a broker: SIGTERM, SIGINT, and SIGHUP unless it was ignored from the beginning (`nohup`), as the JVM
//! has it.
//!
//! They are heard from before the start on: one that comes during the start ends it at once, which is safe because nobody was
//! answered yet. A process that is the first of a container would otherwise not hear them at all. A further signal during an
//! orderly stop changes nothing.

use std::io;

use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;

/// Hears the signals as long as it lives.
#[derive(Debug)]
pub struct Signals {
    runtime: Runtime,
    heard: Heard,
}

#[derive(Debug)]
struct Heard {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Option<Signal>,
}

impl Heard {
    async fn any(&mut self) {
        let hang_up = async {
            match &mut self.hang_up {
                Some(signal) => signal.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
            _ = hang_up => {}
        }
    }
}

impl Signals {
    /// # Errors
    /// If the system lacks the means (file descriptors).
    pub fn listen() -> io::Result<Signals> {
        let runtime = Builder::new_current_thread().enable_io().build()?;
        let entered = runtime.enter();
        let heard = Heard {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: (!ignores_hang_up())
                .then(|| signal(SignalKind::hangup()))
                .transpose()?,
        };
        drop(entered);
        Ok(Signals { runtime, heard })
    }

    /// Does `work` on a thread of its own; `None` if a signal comes first, and then the work goes on until the process ends.
    ///
    /// # Errors
    /// If there can be no thread, or the work panicked.
    pub fn unless_one_comes<T: Send + 'static>(
        &mut self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<Option<T>> {
        let (done, result) = oneshot::channel();
        let work = move || {
            // Nobody waits for the result of a start that was called off.
            let _ = done.send(work());
        };
        std::thread::Builder::new().name("start".to_owned()).spawn(work)?;
        self.runtime.block_on(async {
            tokio::select! {
                biased;
                result = result => result.map(Some).map_err(io::Error::other),
                () = self.heard.any() => Ok(None),
            }
        })
    }

    /// Waits for a signal or for `other`, whichever comes first; `None` for a signal.
    pub(super) fn wait_or<T>(&mut self, other: impl Future<Output = T>) -> Option<T> {
        self.runtime.block_on(async {
            tokio::select! {
                () = self.heard.any() => None,
                other = other => Some(other),
            }
        })
    }
}

/// Whether whoever started this process wants SIGHUP ignored: the first bit of `SigIgn` in `/proc/self/status`.
fn ignores_hang_up() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    ignored_signals(&status) & 1 == 1
}

fn ignored_signals(status: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    line.and_then(|digits| u64::from_str_radix(digits.trim(), 16).ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ignored_hang_up_is_seen_in_the_status_of_the_process() {
        assert_eq!(
            ignored_signals("Name:\tx\nSigIgn:\t0000000000001001\nSigCgt:\t0\n"),
            0x1001
        );
        assert_eq!(ignored_signals(""), 0);
    }

    #[test]
    fn work_that_no_signal_interrupts_gives_its_result() {
        let mut signals = Signals::listen().unwrap();
        assert_eq!(signals.unless_one_comes(|| 5).unwrap(), Some(5));
        assert_eq!(signals.wait_or(async { "done" }), Some("done"));
    }
}
