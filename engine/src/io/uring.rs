//! [`Io`] over io_uring: syncs of many files at once, and cold reads, from one thread.
//!
//! Promise: submitted operations run in the kernel, together; everything else is a plain call of
//! [`SyscallIo`], appends included (`pwritev` to ext4 is faster than the ring, and its order is the
//! caller's). So is a sync while no other is under way: the kernel runs syncs of a ring on threads of its own,
//! so that one alone only pays for two more switches of threads. The ring and its thread come with the first
//! operation for it. Without work the thread sleeps in `io_uring_enter`; nothing polls.
//!
//! Submitters push into an inbox and write to an eventfd if the inbox was empty; the thread takes from it what
//! is new and drives the ring ([`driver`]).
//!
//! Invariants:
//! - A completion is called exactly once, on the thread of the ring or of the fallback.
//! - Dropping the body does not wait; what was submitted still completes, and then the thread ends.
//!
//! If the ring cannot be had when the thread starts, or breaks later, the system calls take over; a warning
//! says so.

mod driver;

use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use rustix::event::EventfdFlags;

use super::syscall::SyscallIo;
use super::{
    Completion, DirEntry, DirectoryLock, FileHandle, FileStat, Io, OpenMode, Operation, Owner, Space,
};
use crate::error::IoError;
use crate::units::TimestampMs;

use driver::Driver;

/// The disk by a ring and system calls.
#[derive(Debug)]
pub(super) struct UringIo {
    plain: Arc<SyscallIo>,
    inbox: Arc<Inbox>,
    /// Whether a sync runs beside the ring.
    syncs_alone: Arc<AtomicBool>,
}

/// Where submitters and the ring's thread meet.
#[derive(Debug)]
struct Inbox {
    state: Mutex<InboxState>,
    bell: OwnedFd,
}

#[derive(Default)]
struct InboxState {
    arrived: Vec<(Operation, Completion)>,
    thread: Thread,
    closed: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Thread {
    #[default]
    NotStarted,
    Running,
    /// It could not start, or its ring broke: system calls from now on.
    Gone,
}

impl std::fmt::Debug for InboxState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("InboxState")
            .field("arrived", &self.arrived.len())
            .field("thread", &self.thread)
            .field("closed", &self.closed)
            .finish()
    }
}

impl UringIo {
    /// Asks the kernel whether a ring can be had, and keeps none.
    ///
    /// # Errors
    /// The step that failed with the system's answer, for the log.
    pub(super) fn probe() -> Result<UringIo, String> {
        driver::probe()?;
        let bell = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|errno| format!("eventfd: {errno}"))?;
        Ok(UringIo {
            plain: Arc::new(SyscallIo::new("beside the ring")),
            inbox: Arc::new(Inbox {
                state: Mutex::new(InboxState::default()),
                bell,
            }),
            syncs_alone: Arc::default(),
        })
    }
}

impl Io for UringIo {
    fn open(&self, path: &Path, mode: OpenMode) -> Result<FileHandle, IoError> {
        self.plain.open(path, mode)
    }

    fn stat(&self, path: &Path) -> Result<Option<FileStat>, IoError> {
        self.plain.stat(path)
    }

    fn list(&self, directory: &Path) -> Result<Vec<DirEntry>, IoError> {
        self.plain.list(directory)
    }

    fn create_dir_all(&self, directory: &Path) -> Result<(), IoError> {
        self.plain.create_dir_all(directory)
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<(), IoError> {
        self.plain.rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> Result<(), IoError> {
        self.plain.remove_file(path)
    }

    fn remove_dir_all(&self, directory: &Path) -> Result<(), IoError> {
        self.plain.remove_dir_all(directory)
    }

    fn sync_dir(&self, directory: &Path) -> Result<(), IoError> {
        self.plain.sync_dir(directory)
    }

    fn set_modified(&self, path: &Path, modified: TimestampMs) -> Result<(), IoError> {
        self.plain.set_modified(path, modified)
    }

    fn owner(&self, path: &Path) -> Result<Option<Owner>, IoError> {
        self.plain.owner(path)
    }

    fn set_owner(&self, path: &Path, owner: Owner) -> Result<(), IoError> {
        self.plain.set_owner(path, owner)
    }

    fn space(&self, directory: &Path) -> Result<Space, IoError> {
        self.plain.space(directory)
    }

    fn lock(&self, path: &Path) -> Result<Option<Box<dyn DirectoryLock>>, IoError> {
        self.plain.lock(path)
    }

    fn submit(&self, operation: Operation, done: Completion) {
        if matches!(operation, Operation::Sync { .. }) && !self.syncs_alone.swap(true, Ordering::AcqRel) {
            let syncs_alone = Arc::clone(&self.syncs_alone);
            let done = move |outcome| {
                // Before it is told, since it may ask for the next sync.
                syncs_alone.store(false, Ordering::Release);
                done(outcome);
            };
            return self.plain.submit(operation, Box::new(done));
        }
        let mut state = self.inbox.state.lock();
        if state.thread == Thread::NotStarted {
            let inbox = Arc::clone(&self.inbox);
            let plain = Arc::clone(&self.plain);
            let started = std::thread::Builder::new()
                .name("milena-uring".to_owned())
                .spawn(move || serve(&inbox, &plain));
            state.thread = if started.is_ok() {
                Thread::Running
            } else {
                Thread::Gone
            };
        }
        if state.thread == Thread::Gone {
            drop(state);
            self.plain.submit(operation, done);
            return;
        }
        state.arrived.push((operation, done));
        let first = state.arrived.len() == 1;
        drop(state);
        if first {
            self.inbox.ring_bell();
        }
    }

    fn boot_id(&self) -> Result<String, IoError> {
        self.plain.boot_id()
    }

    fn describe(&self) -> String {
        match self.inbox.state.lock().thread {
            Thread::Gone => "syscall (the ring was given up)".to_owned(),
            Thread::NotStarted | Thread::Running => {
                "uring (parallel syncs and cold reads; appends by pwritev)".to_owned()
            }
        }
    }
}

impl Drop for UringIo {
    fn drop(&mut self) {
        self.inbox.state.lock().closed = true;
        self.inbox.ring_bell();
    }
}

impl Inbox {
    fn ring_bell(&self) {
        // Fails only when the counter is full, and then the bell rings already.
        let _ = rustix::io::write(&self.bell, &1_u64.to_ne_bytes());
    }

    /// Stills the bell before the inbox is looked into, so that no ring is missed.
    fn still_bell(&self) {
        // Fails only when it does not ring.
        let _ = rustix::io::read(&self.bell, &mut [0_u8; 8]);
    }
}

/// The thread of the ring.
fn serve(inbox: &Inbox, plain: &SyscallIo) {
    let outcome = Driver::open().and_then(|mut driver| {
        let outcome = driver.run(inbox);
        if let Err(error) = &outcome {
            driver.abandon(error, plain);
        }
        outcome
    });
    if let Err(error) = outcome {
        tracing::warn!("io_uring is given up ({error}); system calls are used from now on");
        let rest = {
            let mut state = inbox.state.lock();
            state.thread = Thread::Gone;
            std::mem::take(&mut state.arrived)
        };
        for (operation, done) in rest {
            plain.submit(operation, done);
        }
    }
}
