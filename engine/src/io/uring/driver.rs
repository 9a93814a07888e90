//! The ring of one thread, and what the kernel is doing for it: [`Driver`].
//!
//! An operation is in one of [`IN_FLIGHT_MAX`] slots while the kernel works on it, or waits in order for one to be
//! free. The thread has a poll of the inbox's eventfd in the ring too, so that one system call submits all that is
//! new and waits for whatever comes first. The completion queue is twice as large as the submission queue, and so
//! cannot overflow.
//!
//! Invariants:
//! - What the kernel was given belongs to it until its completion: the descriptor (kept open by the handle
//!   in the operation's slot), the path and the buffer stay in the slot, which nobody touches meanwhile.
//!   Should the ring break, slots are leaked, not freed.
//! - A failed or cancelled sync is reported as failed and not repeated. A short read goes on where it ended.
//! - A completion is called exactly once, on the thread of the ring or of the fallback.
//!
//! This is the only file of the workspace with `unsafe`: pushing an entry promises the kernel that what it
//! points to stays valid.

#![expect(
    unsafe_code,
    reason = "entries pushed to the ring point to memory and descriptors that must outlive them"
)]

use std::collections::VecDeque;
use std::ffi::CString;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use io_uring::{IoUring, Probe, opcode, squeue, types};
use rustix::event::PollFlags;
use rustix::fs::{CWD, OFlags};
use rustix::io::Errno;

use super::Inbox;
use crate::error::IoError;
use crate::io::syscall::{SyscallIo, WARM_CHUNK_BYTES};
use crate::io::{Completion, Io, Operation};

/// Operations in the kernel at one time; one more entry is the poll of the inbox.
const IN_FLIGHT_MAX: usize = 63;

/// Entries of the submission queue: the operations and the poll.
const ENTRIES: u32 = 64;

/// Warming operations at one time, each with a buffer of its range's size, 256 KiB at most.
const WARMING_MAX: usize = 8;

/// Most worker threads of the kernel for this ring, of each of its two kinds: syncs always run on one.
const WORKERS_MAX: u32 = 4;

/// Marks the completion of the inbox's poll; slots have smaller numbers.
const INBOX: u64 = u64::MAX;

/// Asks the kernel for a small ring, for the operations needed, and for one that does nothing: 200 µs at most.
///
/// # Errors
/// The step that failed, with the system's answer.
pub(super) fn probe() -> Result<(), String> {
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
    /// The file's descriptor, which the operation's handle keeps open.
    Syncing(RawFd),
    /// The path.
    Opening(CString),
    /// The directory's descriptor.
    SyncingDirectory(OwnedFd),
    /// The file's descriptor, likewise, and the buffer. `at` is how far the range is read.
    Warming {
        file: RawFd,
        buffer: Box<[u8]>,
        at: u64,
        end: u64,
    },
}

/// What a completion leads to.
enum Next {
    Again,
    Done(Result<(), IoError>),
}

/// The ring and its operations.
pub(super) struct Driver {
    ring: IoUring,
    slots: Vec<Option<Slot>>,
    free: Vec<usize>,
    waiting: VecDeque<(Operation, Completion)>,
    /// Warming operations that found all buffers in use.
    waiting_to_warm: VecDeque<(Operation, Completion)>,
    warming: usize,
    /// Buffers of cold reads that are over, for the next ones: a fresh one is filled with zeros. None when idle.
    spare: Vec<Box<[u8]>>,
    /// Whether the kernel watches the inbox.
    polling: bool,
}

impl Driver {
    /// Opens a ring for this thread.
    pub(super) fn open() -> std::io::Result<Driver> {
        Ok(Driver {
            ring: open_ring()?,
            slots: (0..IN_FLIGHT_MAX).map(|_| None).collect(),
            free: (0..IN_FLIGHT_MAX).rev().collect(),
            waiting: VecDeque::new(),
            waiting_to_warm: VecDeque::new(),
            warming: 0,
            spare: Vec::new(),
            polling: false,
        })
    }

    /// Until the body was dropped and all is done, or the ring breaks.
    pub(super) fn run(&mut self, inbox: &Inbox) -> std::io::Result<()> {
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
                let entry =
                    opcode::PollAdd::new(types::Fd(inbox.bell.as_raw_fd()), PollFlags::IN.bits().into())
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
        while !self.free.is_empty()
            && let Some((operation, done)) = self.next_waiting()
        {
            if matches!(operation, Operation::Warm { .. }) && self.warming == WARMING_MAX {
                self.waiting_to_warm.push_back((operation, done));
                continue;
            }
            match self.first_stage(&operation) {
                Ok(stage) => self.start(Slot {
                    operation,
                    done,
                    stage,
                })?,
                Err(outcome) => done(outcome),
            }
        }
        Ok(())
    }

    /// One that waits for a buffer goes first once there is one.
    fn next_waiting(&mut self) -> Option<(Operation, Completion)> {
        if self.warming < WARMING_MAX
            && let Some(next) = self.waiting_to_warm.pop_front()
        {
            return Some(next);
        }
        self.waiting.pop_front()
    }

    /// What the kernel is given first, or, as an error, the outcome of what is not for it.
    fn first_stage(&mut self, operation: &Operation) -> Result<Stage, Result<(), IoError>> {
        match operation {
            Operation::Sync { file } => match file.descriptor() {
                Some(descriptor) => Ok(Stage::Syncing(descriptor.as_raw_fd())),
                // A file of another body.
                None => Err(file.sync()),
            },
            Operation::SyncDir { directory } => match CString::new(directory.as_os_str().as_bytes()) {
                Ok(path) => Ok(Stage::Opening(path)),
                Err(error) => Err(Err(IoError::new("open", directory, error.into()))),
            },
            Operation::Warm {
                file,
                position,
                size_bytes,
            } => {
                let Some(descriptor) = file.descriptor() else {
                    return Err(Ok(()));
                };
                self.warming += 1;
                // The range may be stated by anyone: the buffer is at most one step.
                let wanted =
                    usize::try_from(*size_bytes).map_or(WARM_CHUNK_BYTES, |size| size.min(WARM_CHUNK_BYTES));
                let spare = self.spare.pop().filter(|buffer| buffer.len() >= wanted);
                Ok(Stage::Warming {
                    file: descriptor.as_raw_fd(),
                    buffer: spare.unwrap_or_else(|| vec![0; wanted].into_boxed_slice()),
                    at: *position,
                    end: position.saturating_add(*size_bytes),
                })
            }
        }
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
        let entry = slot.entry().user_data(index as u64);
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
                Err(error) => match Errno::from_io_error(&error) {
                    Some(Errno::INTR) => {}
                    // The kernel is short of memory or wants its completions taken first; neither loses an
                    // entry.
                    Some(Errno::AGAIN | Errno::BUSY) => {
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
                    self.spare.push(buffer);
                    if self.warming == 0 {
                        self.spare.clear();
                    }
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
    pub(super) fn abandon(&mut self, error: &std::io::Error, plain: &SyscallIo) {
        for Slot {
            operation,
            done,
            stage,
        } in self.slots.iter_mut().filter_map(Option::take)
        {
            let (call, path) = match &operation {
                Operation::Sync { file } => ("fdatasync", file.path().to_path_buf()),
                Operation::Warm { file, .. } => ("read", file.path().to_path_buf()),
                Operation::SyncDir { directory } => ("fsync", directory.clone()),
            };
            std::mem::forget((operation, stage));
            let reason = std::io::Error::other(error.to_string());
            done(Err(IoError::new(call, path, reason)));
        }
        for (operation, done) in self.waiting.drain(..).chain(self.waiting_to_warm.drain(..)) {
            plain.submit(operation, done);
        }
    }
}

impl Slot {
    /// What the kernel is to do at the present stage.
    fn entry(&mut self) -> squeue::Entry {
        match &mut self.stage {
            Stage::Syncing(file) => opcode::Fsync::new(types::Fd(*file))
                .flags(types::FsyncFlags::DATASYNC)
                .build(),
            Stage::Opening(path) => opcode::OpenAt::new(types::Fd(CWD.as_raw_fd()), path.as_ptr())
                .flags((OFlags::DIRECTORY | OFlags::CLOEXEC).bits() as i32)
                .build(),
            Stage::SyncingDirectory(descriptor) => {
                opcode::Fsync::new(types::Fd(descriptor.as_raw_fd())).build()
            }
            Stage::Warming {
                file,
                buffer,
                at,
                end,
            } => {
                // At most the length of the buffer, 256 KiB.
                let size = (*end - *at).min(buffer.len() as u64) as u32;
                opcode::Read::new(types::Fd(*file), buffer.as_mut_ptr(), size)
                    .offset(*at)
                    .build()
            }
        }
    }

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
                if is_interrupted(result) {
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
            (Stage::Syncing(_), Operation::Sync { file }) if result < 0 => failed("fdatasync", file.path()),
            (Stage::Warming { at, end, .. }, Operation::Warm { file, .. }) => {
                if is_interrupted(result) {
                    return Next::Again;
                }
                if result < 0 {
                    return failed("read", file.path());
                }
                // Not negative, hence a count.
                *at += result as u64;
                if result == 0 || at >= end {
                    Next::Done(Ok(()))
                } else {
                    Next::Again
                }
            }
            _ => Next::Done(Ok(())),
        }
    }
}

/// Whether nothing was done and the same may be asked again.
fn is_interrupted(result: i32) -> bool {
    [Errno::INTR, Errno::AGAIN]
        .iter()
        .any(|errno| result == -errno.raw_os_error())
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
    use std::sync::Arc;
    use std::sync::mpsc::channel;

    use super::*;
    use crate::io::OpenMode;
    use crate::io::conformance::Scratch;

    /// A driver with some operations in the kernel or on the way there, and the rest waiting.
    fn busy(
        plain: &SyscallIo,
        scratch: &Scratch,
        count: usize,
    ) -> Option<(Driver, std::sync::mpsc::Receiver<Result<(), IoError>>)> {
        let Ok(mut driver) = Driver::open() else {
            assert!(probe().is_err(), "probed well, yet there is no ring");
            return None;
        };
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
            assert!(driver.warming + driver.spare.len() <= WARMING_MAX);
            driver.enter().unwrap();
            driver.reap().unwrap();
            driver.start_waiting().unwrap();
            left -= receiver
                .try_iter()
                .inspect(|outcome| assert!(outcome.is_ok()))
                .count();
        }
        assert_eq!((driver.warming, driver.free.len()), (0, IN_FLIGHT_MAX));
        assert!(driver.spare.is_empty());
    }
}
