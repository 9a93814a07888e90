//! [`Progress`]: how far an examination has come, on a terminal alone.

use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Between two looks.
const INTERVAL: Duration = Duration::from_millis(200);

/// Counts bytes; see the module.
#[derive(Debug, Default)]
pub(in crate::log_dump) struct Progress {
    done_bytes: AtomicU64,
    is_over: AtomicBool,
}

impl Progress {
    /// So many bytes more were looked at.
    pub(super) fn add(&self, bytes: u64) {
        self.done_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Ends [`Progress::show`], which runs on the given thread.
    pub(super) fn end(&self, shower: &std::thread::Thread) {
        self.is_over.store(true, Ordering::Release);
        shower.unpark();
    }

    /// Keeps a line on standard error up to date until the end, if that is a terminal.
    pub(super) fn show(&self, total_bytes: u64) {
        let mut out = io::stderr();
        if !out.is_terminal() {
            return;
        }
        let begun = Instant::now();
        while !self.is_over.load(Ordering::Acquire) {
            std::thread::park_timeout(INTERVAL);
            let done = self.done_bytes.load(Ordering::Relaxed).min(total_bytes);
            let percent = done.saturating_mul(100).checked_div(total_bytes).unwrap_or(100);
            let speed = done as f64 / begun.elapsed().as_secs_f64().max(1e-3) / 1e6;
            // Nobody may be looking any more.
            let _ = write!(
                out,
                "\r\x1b[K{percent} % of {} at {speed:.0} MB/s",
                size(total_bytes)
            );
            let _ = out.flush();
        }
        let _ = write!(out, "\r\x1b[K");
        let _ = out.flush();
    }
}

/// A size for people.
pub(in crate::log_dump) fn size(bytes: u64) -> String {
    let units = ["bytes", "kB", "MB", "GB", "TB", "PB"];
    let (mut value, mut unit) = (bytes as f64, 0);
    while value >= 1000.0 && unit + 1 < units.len() {
        (value, unit) = (value / 1000.0, unit + 1);
    }
    match unit {
        0 => format!("{bytes} bytes"),
        _ => format!("{value:.1} {}", units[unit]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_has_three_digits_and_a_unit() {
        for (bytes, text) in [
            (0, "0 bytes"),
            (999, "999 bytes"),
            (1500, "1.5 kB"),
            (u64::MAX, "18446.7 PB"),
        ] {
            assert_eq!(size(bytes), text);
        }
    }
}
