//! [`Io`] over io_uring: syncs of many files at once, and cold reads, from one thread.
//!
//! Promise: submitted operations run in the kernel, together; everything else is a plain call of
//! [`SyscallIo`], appends included (`pwritev` to ext4 is faster than the ring, and its order is the
//! caller's). So is a sync while no other is under way: the kernel runs syncs of a ring on threads of its own,
//! so that one alone only pays for two more switches of threads. The ring and its thread come with the first
//! operation for it. Without work the thread sleeps in `io_uring_enter`; nothing polls.
//!
//! How it works: submitters push into an inbox and write to an eventfd if the inbox was empty; the thread
//! has a poll of that eventfd in the ring, so that one system call submits all that is new and waits for
//! whatever comes first. At most [`IN_FLIGHT_MAX`] operations are in the kernel, the rest waits in order;
//! the completion queue is twice as large, and so cannot overflow.
//!
//! Invariants:
//! - What the kernel was given belongs to it until its completion: the descriptor (kept open by the handle
//!   in the operation's slot), the path and the buffer stay in the slot, which nobody touches meanwhile.
//!   Should the ring break, slots are leaked, not freed.
//! - A failed or cancelled sync is reported as failed and not repeated. A short read goes on where it ended.
//! - A completion is called exactly once, on the thread of the ring or of the fallback.
//! - Dropping the body does not wait; what was submitted still completes, and then the thread ends.
//!
//! If the ring cannot be had when the thread starts, or breaks later, the system calls take over; a warning
//! says so.
//!
//! This is the only file of the workspace with `unsafe`: pushing an entry promises the kernel that what it
//! points to stays valid.

#![expect(
    unsafe_code,
    reason = "entries pushed to the ring point to memory and descriptors that must outlive them"
)]

use std::collections::VecDeque;
use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use io_uring::{IoUring, Probe, opcode, squeue, types};
use parking_lot::Mutex;
use rustix::event::EventfdFlags;

use super::syscall::{SyscallIo, WARM_CHUNK_BYTES};
use super::{Completion, DirEntry, DirectoryLock, FileHandle, FileStat, Io, OpenMode, Operation, Space};
use crate::error::IoError;
use crate::units::TimestampMs;

/// Operations in the kernel at one time; one more entry is the poll of the inbox.
pub const IN_FLIGHT_MAX: usize = 63;

/// Entries of the submission queue: the operations and the poll.
const ENTRIES: u32 = 64;

/// Warming operations at one time, each with a buffer of 256 KiB.
const WARMING_MAX: usize = 8;

/// Most worker threads of the kernel for this ring, of each of its two kinds: syncs always run on one.
const WORKERS_MAX: u32 = 4;

/// Marks the completion of the inbox's poll; slots have smaller numbers.
const INBOX: u64 = u64::MAX;

const EINTR: i32 = 4;
const EAGAIN: i32 = 11;
const EBUSY: i32 = 16;
const POLLIN: u32 = 1;
const O_RDONLY_DIRECTORY_CLOEXEC: i32 =
    (rustix::fs::OFlags::DIRECTORY.bits() | rustix::fs::OFlags::CLOEXEC.bits()) as i32;
const AT_FDCWD: i32 = -100;

/// The disk by a ring and system calls.
#[derive(Debug)]
pub struct UringIo {
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
    /// Asks the kernel for a small ring, the operations needed and one that does nothing. Keeps no ring.
    ///
    /// # Errors
    /// The step that failed with the system's answer, for the log.
    pub fn probe() -> Result<UringIo, String> {
        probe()?;
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

/// One ring, used once and dropped: 200 µs at most.
fn probe() -> Result<(), String> {
    let mut ring = IoUring::new(2).map_err(|error| format!("io_uring_setup: {error}"))?;
    if !ring.params().is_feature_nodrop() {
        return Err("io_uring: the kernel may drop completions (before Linux 5.5)".to_owned());
    }
    let mut found = Probe::new();
    ring.submitter()
        .register_probe(&mut found)
        .map_err(|error| format!("io_uring_register(PROBE): {error}"))?;
    for (code, name) in [
        (opcode::Nop::CODE, "NOP"),
        (opcode::Fsync::CODE, "FSYNC"),
        (opcode::Read::CODE, "READ"),
        (opcode::OpenAt::CODE, "OPENAT"),
        (opcode::PollAdd::CODE, "POLL_ADD"),
    ] {
        if !found.is_supported(code) {
            return Err(format!("io_uring: operation {name} is not supported"));
        }
    }
    let entry = opcode::Nop::new().build().user_data(7);
    // SAFETY: a NOP points to nothing.
    unsafe { ring.submission().push(&entry) }.map_err(|_| "io_uring: no room for a NOP".to_owned())?;
    ring.submit_and_wait(1)
        .map_err(|error| format!("io_uring_enter: {error}"))?;
    match ring.completion().next() {
        Some(entry) if entry.user_data() == 7 && entry.result() == 0 => Ok(()),
        Some(entry) => Err(format!("io_uring: a NOP answered {}", entry.result())),
        None => Err("io_uring: a NOP did not complete".to_owned()),
    }
}

/// The ring of this thread, with the flags that suit a thread which waits in `io_uring_enter`, or without
/// them on older kernels.
fn open_ring() -> std::io::Result<IoUring> {
    let ring = IoUring::builder()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_submit_all()
        .build(ENTRIES)
        .or_else(|_| IoUring::new(ENTRIES))?;
    // A limit that an older kernel does not know is no reason to do without the ring.
    let _ = ring
        .submitter()
        .register_iowq_max_workers(&mut [WORKERS_MAX, WORKERS_MAX]);
    Ok(ring)
}

/// An operation in the kernel.
struct Slot {
    operation: Operation,
    done: Completion,
    stage: Stage,
}

/// What the kernel holds of a slot.
enum Stage {
    /// Its file's descriptor, which the operation's handle keeps open.
    Syncing,
    /// The path.
    Opening(CString),
    /// The directory's descriptor.
    SyncingDirectory(OwnedFd),
    /// The buffer, and how far the range is read.
    Warming { buffer: Box<[u8]>, at: u64 },
}

/// What a completion leads to.
enum Next {
    Again,
    Done(Result<(), IoError>),
}

struct Driver {
    ring: IoUring,
    slots: Vec<Option<Slot>>,
    free: Vec<usize>,
    waiting: VecDeque<(Operation, Completion)>,
    /// Warming operations that found all buffers in use.
    waiting_to_warm: VecDeque<(Operation, Completion)>,
    warming: usize,
    /// One buffer is kept for the next cold read.
    spare: Option<Box<[u8]>>,
    polling: bool,
}

fn serve(inbox: &Inbox, plain: &SyscallIo) {
    let outcome = open_ring().and_then(|ring| {
        let mut driver = Driver::new(ring);
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

impl Driver {
    fn new(ring: IoUring) -> Driver {
        Driver {
            ring,
            slots: (0..IN_FLIGHT_MAX).map(|_| None).collect(),
            free: (0..IN_FLIGHT_MAX).rev().collect(),
            waiting: VecDeque::new(),
            waiting_to_warm: VecDeque::new(),
            warming: 0,
            spare: None,
            polling: false,
        }
    }

    /// Until the body was dropped and all is done, or the ring breaks.
    fn run(&mut self, inbox: &Inbox) -> std::io::Result<()> {
        loop {
            inbox.still_bell();
            let closed = {
                let mut state = inbox.state.lock();
                self.waiting.extend(state.arrived.drain(..));
                state.closed
            };
            self.start_waiting()?;
            if closed && self.free.len() == IN_FLIGHT_MAX {
                return Ok(());
            }
            if !self.polling {
                let entry = opcode::PollAdd::new(types::Fd(inbox.bell.as_raw_fd()), POLLIN)
                    .build()
                    .user_data(INBOX);
                // SAFETY: the eventfd is open as long as the inbox, which `serve` borrows for the life of
                // this thread; dropping the ring cancels the poll.
                unsafe { self.push(&entry) }?;
                self.polling = true;
            }
            self.enter()?;
            self.reap()?;
        }
    }

    /// Gives the kernel as many of the waiting operations as there are slots.
    fn start_waiting(&mut self) -> std::io::Result<()> {
        while !self.free.is_empty() {
            let next = match self.waiting_to_warm.pop_front() {
                Some(next) if self.warming < WARMING_MAX => Some(next),
                Some(next) => {
                    self.waiting_to_warm.push_front(next);
                    self.waiting.pop_front()
                }
                None => self.waiting.pop_front(),
            };
            let Some((operation, done)) = next else { break };
            let stage = match &operation {
                Operation::Sync { file } => {
                    if file.descriptor().is_none() {
                        // A file of another body.
                        done(file.sync());
                        continue;
                    }
                    Stage::Syncing
                }
                Operation::SyncDir { directory } => match CString::new(directory.as_os_str().as_bytes()) {
                    Ok(path) => Stage::Opening(path),
                    Err(error) => {
                        done(Err(IoError::new("open", directory, error.into())));
                        continue;
                    }
                },
                Operation::Warm { file, position, .. } => {
                    if file.descriptor().is_none() {
                        done(Ok(()));
                        continue;
                    }
                    if self.warming == WARMING_MAX {
                        self.waiting_to_warm.push_back((operation, done));
                        continue;
                    }
                    self.warming += 1;
                    let buffer = self
                        .spare
                        .take()
                        .unwrap_or_else(|| vec![0; WARM_CHUNK_BYTES].into_boxed_slice());
                    Stage::Warming {
                        buffer,
                        at: *position,
                    }
                }
            };
            self.start(Slot {
                operation,
                done,
                stage,
            })?;
        }
        Ok(())
    }

    /// Puts the operation into a free slot and its entry into the queue.
    fn start(&mut self, slot: Slot) -> std::io::Result<()> {
        let index = self.free.pop().expect("the caller found a free slot");
        self.slots[index] = Some(slot);
        self.push_slot(index)
    }

    /// Queues the entry for the present stage of a slot.
    fn push_slot(&mut self, index: usize) -> std::io::Result<()> {
        let slot = self.slots[index]
            .as_mut()
            .expect("a slot is filled until its operation is done");
        let file_descriptor = match &slot.operation {
            Operation::Sync { file } | Operation::Warm { file, .. } => {
                file.descriptor().map_or(-1, |descriptor| descriptor.as_raw_fd())
            }
            Operation::SyncDir { .. } => -1,
        };
        let end = match &slot.operation {
            Operation::Warm {
                position, size_bytes, ..
            } => position.saturating_add(*size_bytes),
            Operation::Sync { .. } | Operation::SyncDir { .. } => 0,
        };
        let entry = match &mut slot.stage {
            Stage::Syncing => opcode::Fsync::new(types::Fd(file_descriptor))
                .flags(types::FsyncFlags::DATASYNC)
                .build(),
            Stage::Opening(path) => opcode::OpenAt::new(types::Fd(AT_FDCWD), path.as_ptr())
                .flags(O_RDONLY_DIRECTORY_CLOEXEC)
                .build(),
            Stage::SyncingDirectory(descriptor) => {
                opcode::Fsync::new(types::Fd(descriptor.as_fd().as_raw_fd())).build()
            }
            Stage::Warming { buffer, at } => {
                let size = (end - *at).min(buffer.len() as u64);
                // At most the length of the buffer, 256 KiB.
                opcode::Read::new(types::Fd(file_descriptor), buffer.as_mut_ptr(), size as u32)
                    .offset(*at)
                    .build()
            }
        };
        let entry = entry.user_data(index as u64);
        // SAFETY: descriptor, path and buffer are owned by the slot (the buffer and the path on the heap,
        // so that they do not move). The slot is emptied or advanced only in `reap`, after the completion
        // of this entry, and `abandon` leaks it.
        unsafe { self.push(&entry) }
    }

    /// Queues an entry.
    ///
    /// # Safety
    /// What the entry points to must stay valid and untouched until its completion was reaped.
    unsafe fn push(&mut self, entry: &squeue::Entry) -> std::io::Result<()> {
        // SAFETY: as the caller promises.
        unsafe { self.ring.submission().push(entry) }.map_err(|_| {
            // Cannot be: there are as many entries as slots and polls, and each has at most one queued.
            std::io::Error::other("the submission queue is full")
        })
    }

    /// Submits what is queued and waits for a completion.
    fn enter(&mut self) -> std::io::Result<()> {
        loop {
            match self.ring.submit_and_wait(1) {
                Ok(_) => return Ok(()),
                Err(error) => match error.raw_os_error() {
                    Some(EINTR) => {}
                    // The kernel is short of memory or wants its completions taken first; neither loses an
                    // entry.
                    Some(EAGAIN) | Some(EBUSY) => {
                        if !self.ring.completion().is_empty() {
                            return Ok(());
                        }
                        std::thread::sleep(Duration::from_millis(1));
                    }
                    _ => return Err(error),
                },
            }
        }
    }

    /// Takes all completions there are.
    fn reap(&mut self) -> std::io::Result<()> {
        if self.ring.completion().overflow() > 0 {
            return Err(std::io::Error::other("the completion queue has overflowed"));
        }
        while let Some((index, result)) = {
            let mut queue = self.ring.completion();
            queue.next().map(|entry| (entry.user_data(), entry.result()))
        } {
            if index == INBOX {
                self.polling = false;
                continue;
            }
            // Ours are below IN_FLIGHT_MAX.
            self.completed(index as usize, result)?;
        }
        Ok(())
    }

    /// The kernel has answered for the slot: what it held is ours again.
    fn completed(&mut self, index: usize, result: i32) -> std::io::Result<()> {
        let slot = self.slots[index]
            .as_mut()
            .expect("a slot is filled until its operation is done");
        match slot.advance(result) {
            Next::Again => self.push_slot(index),
            Next::Done(outcome) => {
                let slot = self.slots[index].take().expect("it was there above");
                self.free.push(index);
                if let Stage::Warming { buffer, .. } = slot.stage {
                    self.warming -= 1;
                    self.spare = (self.warming > 0).then_some(buffer);
                }
                (slot.done)(outcome);
                // The last handle of a file closes here, after its completion.
                drop(slot.operation);
                Ok(())
            }
        }
    }

    /// The ring is broken. What the kernel may still hold is leaked with its slot; its fate is unknown,
    /// hence failed. The rest goes to the system calls.
    fn abandon(&mut self, error: &std::io::Error, plain: &SyscallIo) {
        for slot in self.slots.iter_mut().filter_map(Option::take) {
            let (operation, path) = match &slot.operation {
                Operation::Sync { file } => ("fdatasync", file.path().to_path_buf()),
                Operation::Warm { file, .. } => ("read", file.path().to_path_buf()),
                Operation::SyncDir { directory } => ("fsync", directory.clone()),
            };
            (slot.done)(Err(IoError::new(
                operation,
                path,
                std::io::Error::other(error.to_string()),
            )));
            std::mem::forget((slot.operation, slot.stage));
        }
        for (operation, done) in self.waiting.drain(..).chain(self.waiting_to_warm.drain(..)) {
            plain.submit(operation, done);
        }
    }
}

impl Slot {
    /// What follows from the kernel's answer: a count, a descriptor, or a negative error number.
    fn advance(&mut self, result: i32) -> Next {
        let failed = |operation: &'static str, path: &Path| {
            Next::Done(Err(IoError::new(
                operation,
                path,
                std::io::Error::from_raw_os_error(-result),
            )))
        };
        match (&mut self.stage, &self.operation) {
            (Stage::Opening(_), Operation::SyncDir { directory }) => {
                if result == -EINTR || result == -EAGAIN {
                    return Next::Again;
                }
                if result < 0 {
                    return failed("open", directory);
                }
                // SAFETY: the kernel has just opened this descriptor for us; nobody else knows it.
                let descriptor = unsafe { OwnedFd::from_raw_fd(result) };
                self.stage = Stage::SyncingDirectory(descriptor);
                Next::Again
            }
            (Stage::SyncingDirectory(_), Operation::SyncDir { directory }) if result < 0 => {
                failed("fsync", directory)
            }
            (Stage::Syncing, Operation::Sync { file }) if result < 0 => failed("fdatasync", file.path()),
            (
                Stage::Warming { at, .. },
                Operation::Warm {
                    file,
                    position,
                    size_bytes,
                },
            ) => {
                if result == -EINTR || result == -EAGAIN {
                    return Next::Again;
                }
                if result < 0 {
                    return failed("read", file.path());
                }
                // Not negative, hence a count.
                *at += result as u64;
                if result == 0 || *at >= position.saturating_add(*size_bytes) {
                    Next::Done(Ok(()))
                } else {
                    Next::Again
                }
            }
            _ => Next::Done(Ok(())),
        }
    }
}

/// A ring that goes away while the kernel still works (a completion panicked) leaves it what it holds.
impl Drop for Driver {
    fn drop(&mut self) {
        self.slots.drain(..).flatten().for_each(std::mem::forget);
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Error, IoSlice};
    use std::sync::mpsc::channel;

    use super::*;
    use crate::io::Backend;
    use crate::io::conformance::Scratch;

    /// A driver with some operations in the kernel or on the way there, and the rest waiting.
    fn busy(
        plain: &SyscallIo,
        scratch: &Scratch,
        count: usize,
    ) -> Option<(Driver, std::sync::mpsc::Receiver<Result<(), IoError>>)> {
        let Ok(ring) = open_ring() else {
            assert!(
                super::super::open(Backend::Uring).is_err(),
                "probed well, yet there is no ring"
            );
            return None;
        };
        let mut driver = Driver::new(ring);
        let (sender, receiver) = channel();
        for number in 0..count {
            let path = scratch.path().join(number.to_string());
            let file = plain.open(&path, OpenMode::CreateNew).unwrap();
            file.write_vectored_at(0, &[IoSlice::new(&[1; 9000])]).unwrap();
            let operation = match number % 3 {
                0 => Operation::Sync { file },
                1 => Operation::Warm {
                    file,
                    position: 0,
                    size_bytes: 9000,
                },
                _ => Operation::SyncDir {
                    directory: scratch.path().to_path_buf(),
                },
            };
            let sender = sender.clone();
            driver
                .waiting
                .push_back((operation, Box::new(move |outcome| sender.send(outcome).unwrap())));
        }
        driver.start_waiting().unwrap();
        Some((driver, receiver))
    }

    #[test]
    fn a_broken_ring_fails_what_the_kernel_had_and_hands_the_rest_to_system_calls() {
        let scratch = Scratch::new();
        let plain = SyscallIo::new("test");
        let Some((mut driver, receiver)) = busy(&plain, &scratch, 100) else {
            return;
        };
        let held = IN_FLIGHT_MAX - driver.free.len();
        assert!(held > WARMING_MAX && held < 100, "{held}");
        driver.ring.submit().unwrap();
        driver.abandon(&Error::other("broken"), &plain);
        drop((driver, plain));
        let outcomes: Vec<_> = receiver.iter().collect();
        assert_eq!(outcomes.len(), 100);
        assert_eq!(outcomes.iter().filter(|outcome| outcome.is_err()).count(), held);
    }

    #[test]
    fn a_driver_that_is_dropped_midway_frees_nothing_that_the_kernel_holds() {
        let scratch = Scratch::new();
        let plain = SyscallIo::new("test");
        let Some((driver, receiver)) = busy(&plain, &scratch, 9) else {
            return;
        };
        driver.ring.submit().unwrap();
        let files: Vec<std::sync::Weak<dyn crate::io::File>> = driver
            .slots
            .iter()
            .flatten()
            .filter_map(|slot| match &slot.operation {
                Operation::Sync { file } | Operation::Warm { file, .. } => Some(Arc::downgrade(file)),
                Operation::SyncDir { .. } => None,
            })
            .collect();
        drop(driver);
        assert_eq!(files.len(), 6);
        assert!(files.iter().all(|file| file.strong_count() == 1));
        assert!(receiver.try_recv().is_err());
    }

    #[test]
    fn at_most_the_permitted_number_of_buffers_is_in_use_and_none_when_idle() {
        let scratch = Scratch::new();
        let plain = SyscallIo::new("test");
        let Some((mut driver, receiver)) = busy(&plain, &scratch, 60) else {
            return;
        };
        let mut left = 60;
        while left > 0 {
            assert!(driver.warming <= WARMING_MAX);
            driver.enter().unwrap();
            driver.reap().unwrap();
            driver.start_waiting().unwrap();
            left -= receiver
                .try_iter()
                .inspect(|outcome| assert!(outcome.is_ok()))
                .count();
        }
        assert_eq!((driver.warming, driver.free.len()), (0, IN_FLIGHT_MAX));
        assert!(driver.spare.is_none());
    }
}
