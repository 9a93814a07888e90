//! [`LogDirectory`]: one entry of `log.dirs`, as everything that writes below it shares it.
//!
//! It promises that the first failed write or sync is final: [`LogDirectory::fail`] takes the directory
//! offline once, in the step that saw the error, and every later operation on any log below it is refused. It
//! also carries the free space that the log manager last saw, so that appends stop before the file system is
//! full.
//!
//! It leaves to others: listing and locking the directory ([`crate::log_manager`]), and what the broker does
//! when it goes offline (the callback). Source: `LogDirFailureChannel` of 2.7.2; KIP-112.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::error::{IoError, StorageError};

/// Told once, by the thread that saw the failure: the directory's path and the reason. Must not block.
pub(crate) type OfflineCallback = Box<dyn FnOnce(&Path, &str) + Send>;

/// One log directory and whether it can still serve.
pub struct LogDirectory {
    path: PathBuf,
    offline: OnceLock<String>,
    on_offline: Mutex<Option<OfflineCallback>>,
    available_bytes: AtomicU64,
    reserve_bytes: AtomicU64,
}

impl LogDirectory {
    /// An online directory; nothing is opened or checked.
    pub fn new(path: impl Into<PathBuf>) -> LogDirectory {
        LogDirectory {
            path: path.into(),
            offline: OnceLock::new(),
            on_offline: Mutex::new(None),
            available_bytes: AtomicU64::new(u64::MAX),
            reserve_bytes: AtomicU64::new(0),
        }
    }

    /// As `log.dirs` names it.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Sets what is called when the directory goes offline; called at once if it already is.
    pub(crate) fn set_on_offline(&self, callback: OfflineCallback) {
        let mut slot = self.on_offline.lock();
        match self.offline.get() {
            None => *slot = Some(callback),
            Some(reason) => {
                drop(slot);
                callback(&self.path, reason);
            }
        }
    }

    /// Takes the directory offline because of a failed write or sync. Only the first call counts; it tells
    /// the callback.
    pub(crate) fn fail(&self, error: &IoError) {
        self.take_offline(error.to_string());
    }

    /// Takes the directory offline for a reason of another kind (its lock was lost, a person asked).
    pub fn take_offline(&self, reason: String) {
        if self.offline.set(reason).is_ok() {
            let callback = self.on_offline.lock().take();
            let reason = self.offline.get().expect("set in the line above");
            tracing::error!("Stopping serving logs in dir {}: {reason}", self.path.display());
            if let Some(callback) = callback {
                callback(&self.path, reason);
            }
        }
    }

    /// Why it is offline; `None` while it is online.
    pub fn offline_reason(&self) -> Option<&str> {
        self.offline.get().map(String::as_str)
    }

    /// Whether nothing has failed so far.
    pub fn is_online(&self) -> bool {
        self.offline.get().is_none()
    }

    /// The free space last seen and the reserve below which appends stop (`milena.disk.reserve.bytes`).
    pub(crate) fn set_space(&self, available_bytes: u64, reserve_bytes: u64) {
        self.reserve_bytes.store(reserve_bytes, Ordering::Relaxed);
        self.available_bytes.store(available_bytes, Ordering::Relaxed);
    }

    /// Counts what an append wrote against the free space last seen, so that the reserve holds between two
    /// looks at it.
    #[inline]
    pub(crate) fn note_appended(&self, written_bytes: u64) {
        let less = |available: u64| Some(available.saturating_sub(written_bytes));
        let _always_set = self
            .available_bytes
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
    }

    /// Before anything is written or read below it.
    ///
    /// # Errors
    /// [`StorageError::Offline`] once it has failed.
    #[inline]
    pub(crate) fn check_online(&self) -> Result<(), StorageError> {
        match self.offline.get() {
            None => Ok(()),
            Some(_) => Err(self.offline_error()),
        }
    }

    /// Before records are written below it.
    ///
    /// # Errors
    /// [`StorageError::Offline`], or [`StorageError::ReserveReached`] while less than the reserve is free.
    #[inline]
    pub(crate) fn check_appendable(&self) -> Result<(), StorageError> {
        self.check_online()?;
        let available_bytes = self.available_bytes.load(Ordering::Relaxed);
        let reserve_bytes = self.reserve_bytes.load(Ordering::Relaxed);
        if available_bytes < reserve_bytes {
            return Err(StorageError::ReserveReached {
                directory: self.path.clone(),
                available_bytes,
                reserve_bytes,
            });
        }
        Ok(())
    }

    /// The error of every operation after the failure.
    #[cold]
    pub(crate) fn offline_error(&self) -> StorageError {
        StorageError::Offline {
            directory: self.path.clone(),
            reason: self.offline.get().cloned().unwrap_or_default(),
        }
    }
}

impl fmt::Debug for LogDirectory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogDirectory")
            .field("path", &self.path)
            .field("offline", &self.offline.get())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;

    use super::*;

    fn eio() -> IoError {
        IoError::new(
            "fdatasync",
            "/data/t-0/00000000000000000000.log",
            std::io::Error::from_raw_os_error(5),
        )
    }

    #[test]
    fn only_the_first_failure_is_reported_and_it_is_final() {
        let directory = LogDirectory::new("/data");
        let calls = Arc::new(AtomicUsize::new(0));
        let seen = calls.clone();
        directory.set_on_offline(Box::new(move |_, _| {
            seen.fetch_add(1, Ordering::Relaxed);
        }));
        assert!(directory.check_online().is_ok());
        directory.fail(&eio());
        directory.take_offline("again".to_owned());
        assert_eq!(calls.load(Ordering::Relaxed), 1);
        assert!(directory.offline_reason().expect("offline").contains("fdatasync"));
        assert!(matches!(
            directory.check_appendable(),
            Err(StorageError::Offline { .. })
        ));
    }

    #[test]
    fn appends_stop_below_the_reserve_and_resume_by_themselves() {
        let directory = LogDirectory::new("/data");
        directory.set_space(99, 100);
        assert!(matches!(
            directory.check_appendable(),
            Err(StorageError::ReserveReached { .. })
        ));
        assert!(directory.check_online().is_ok());
        directory.set_space(100, 100);
        assert!(directory.check_appendable().is_ok());
        directory.note_appended(1);
        assert!(
            directory.check_appendable().is_err(),
            "appends count against what was free"
        );
    }
}
