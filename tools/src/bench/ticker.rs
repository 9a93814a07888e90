//! Waiting for a point in time to the microsecond: a timer of the kernel, where the runtime's own counts milliseconds.

use std::io;
use std::os::fd::OwnedFd;

use rustix::time::{
    ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, clock_gettime,
    timerfd_create, timerfd_settime,
};
use tokio::io::unix::AsyncFd;

/// Nanoseconds of the clock that never jumps.
pub(crate) fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// Milliseconds since 1970.
pub(crate) fn now_ms() -> i64 {
    let now = clock_gettime(ClockId::Realtime);
    now.tv_sec * 1000 + now.tv_nsec / 1_000_000
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Ticker {
    timer: AsyncFd<OwnedFd>,
    /// When it rings, or rang.
    set_ns: u64,
}

impl Ticker {
    /// # Errors
    /// When the system has no descriptor left.
    pub(crate) fn new() -> io::Result<Ticker> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        #[expect(
            deprecated,
            reason = "its danger is a type that shows another descriptor later; an OwnedFd shows its own for ever"
        )]
        let timer = AsyncFd::new(timer)?;
        Ok(Ticker { timer, set_ns: 0 })
    }

    /// Returns at `at_ns` of [`now_ns`] or later, never before. May be given up.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) async fn wait_until(&mut self, at_ns: u64) -> io::Result<()> {
        if self.set_ns != at_ns {
            let spec = Itimerspec {
                it_interval: Timespec {
                    tv_sec: 0,
                    tv_nsec: 0,
                },
                it_value: Timespec {
                    tv_sec: (at_ns / 1_000_000_000) as i64,
                    tv_nsec: (at_ns % 1_000_000_000) as i64,
                },
            };
            timerfd_settime(self.timer.get_ref(), TimerfdTimerFlags::ABSTIME, &spec)?;
            self.set_ns = at_ns;
        }
        while now_ns() < at_ns {
            self.timer.readable().await?.clear_ready();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_never_rings_early_and_can_be_set_again_before_it_rang() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let mut ticker = Ticker::new().unwrap();
            let far = now_ns() + 3_600_000_000_000;
            let started = std::time::Duration::from_millis(1);
            assert!(
                tokio::time::timeout(started, ticker.wait_until(far))
                    .await
                    .is_err()
            );
            for _ in 0..20 {
                let at = now_ns() + 200_000;
                ticker.wait_until(at).await.unwrap();
                assert!(now_ns() >= at);
            }
            ticker.wait_until(now_ns() - 1).await.unwrap();
        });
    }
}
