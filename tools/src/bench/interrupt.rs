//! SIGINT and SIGTERM: a bench that is interrupted ends what it started and deletes what it made.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::error::BenchError;
use tokio::signal::unix::{SignalKind, signal as stream_of};

/// Waits for a signal.
///
/// # Errors
/// When signals cannot be received.
pub(crate) async fn signal() -> io::Result<()> {
    let mut interrupt = stream_of(SignalKind::interrupt())?;
    let mut terminate = stream_of(SignalKind::terminate())?;
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    Ok(())
}

/// Whether a signal came. Clones know the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Listens from now on.
    ///
    /// # Errors
    /// When signals cannot be received.
    pub(crate) fn listen() -> io::Result<Interrupt> {
        let interrupt = Interrupt::default();
        let heard = interrupt.clone();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .build()?;
        // The handlers stand before this returns, so that no signal is missed.
        let (ready, stands) = std::sync::mpsc::channel();
        let listen = move || {
            runtime.block_on(async {
                let wait = signal();
                tokio::pin!(wait);
                let first = std::future::poll_fn(|cx| std::task::Poll::Ready(wait.as_mut().poll(cx))).await;
                let failed = match first {
                    std::task::Poll::Ready(Err(error)) => Some(error),
                    _ => None,
                };
                let stands = failed.is_none();
                // Who waits for it is there, or nobody needs it.
                let _ = ready.send(failed);
                if stands && wait.await.is_ok() {
                    heard.0.store(true, Ordering::Relaxed);
                }
            });
        };
        thread::Builder::new().name("signals".to_owned()).spawn(listen)?;
        match stands.recv() {
            Ok(Some(error)) => Err(error),
            _ => Ok(interrupt),
        }
    }

    pub(crate) fn came(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Does something, unless a signal comes first.
    pub(crate) async fn or<T, E: Into<BenchError>>(
        &self,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, BenchError> {
        let heard = async {
            while !self.came() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::select! {
            done = work => done.map_err(Into::into),
            () = heard => Err(BenchError::Interrupted),
        }
    }

    /// Sleeps; false when a signal came meanwhile.
    pub(crate) fn sleep(&self, duration: Duration) -> bool {
        let deadline = Instant::now() + duration;
        while !self.came() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return true;
            }
            thread::sleep(left.min(Duration::from_millis(50)));
        }
        false
    }
}
