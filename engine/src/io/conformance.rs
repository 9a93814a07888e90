//! One script of operations, given to every body of [`Io`]: all must answer alike, errors included.
//!
//! What the bodies may answer differently (modification times, sizes of directories, residency) is left out
//! of the transcript.

use std::fmt::Write;
use std::io::IoSlice;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Barrier};

use super::simulated::SimulatedDisk;
use super::syscall::SyscallIo;
use super::{Backend, FileKind, Io, OpenMode, Operation, open};
use crate::error::IoError;
use crate::units::TimestampMs;

/// A directory of its own, gone with the test.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    pub(crate) fn new() -> Scratch {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name = format!(
            "milena-io-{}-{}",
            std::process::id(),
            COUNT.fetch_add(1, Ordering::Relaxed)
        );
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).unwrap();
        Scratch(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The bodies that exist here. Where the kernel refuses a ring, its part is the fallback.
fn bodies() -> Vec<(Arc<dyn Io>, Option<Scratch>)> {
    vec![
        (Arc::new(SyscallIo::new("test")), Some(Scratch::new())),
        (open(Backend::Auto).unwrap(), Some(Scratch::new())),
        (Arc::new(SimulatedDisk::new(1)), None),
    ]
}

fn each(check: impl Fn(&Arc<dyn Io>, &Path)) {
    for (io, scratch) in bodies() {
        let root = scratch.as_ref().map_or(Path::new("/scratch"), Scratch::path);
        io.create_dir_all(root).unwrap();
        check(&io, root);
    }
}

fn say<T: std::fmt::Debug>(outcome: Result<T, IoError>) -> String {
    match outcome {
        Ok(value) => format!("{value:?}"),
        Err(error) => format!("{} {:?}", error.operation, error.kind()),
    }
}

fn wait(io: &Arc<dyn Io>, operation: Operation) -> Result<(), IoError> {
    let (sender, receiver) = channel();
    io.submit(operation, Box::new(move |outcome| sender.send(outcome).unwrap()));
    receiver.recv().unwrap()
}

/// Runs the script and writes down every answer.
fn transcript(io: &Arc<dyn Io>, root: &Path) -> String {
    let mut text = String::new();
    macro_rules! note {
        ($what:expr, $answer:expr) => {
            writeln!(text, "{}: {}", $what, $answer).unwrap()
        };
    }
    let at = |name: &str| root.join(name);
    let stat = |name: &str| {
        say(io.stat(&root.join(name)).map(|found| {
            found.map(|stat| {
                (
                    stat.kind,
                    if stat.kind == FileKind::File {
                        stat.size_bytes
                    } else {
                        0
                    },
                )
            })
        }))
    };

    for (mode, name) in [
        (OpenMode::Read, "read"),
        (OpenMode::ReadWrite, "read-write"),
        (OpenMode::CreateNew, "new"),
        (OpenMode::CreateNew, "new"),
        (OpenMode::ReadWriteCreate, "created"),
        (OpenMode::ReadWriteCreate, "missing/created"),
        (OpenMode::ReadWriteCreate, "new/below-a-file"),
    ] {
        note!(
            format!("open {mode:?} {name}"),
            say(io.open(&at(name), mode).map(|_| ()))
        );
    }
    note!("stat", stat("new"));
    note!("stat missing", stat("nothing"));
    note!("stat below a file", stat("new/below"));

    let file = io.open(&at("f"), OpenMode::CreateNew).unwrap();
    note!("empty write", say(file.write_vectored_at(0, &[])));
    note!(
        "write",
        say(file.write_vectored_at(0, &[IoSlice::new(b"hello"), IoSlice::new(b" world")]))
    );
    note!(
        "write behind the end",
        say(file.write_vectored_at(20, &[IoSlice::new(b"!")]))
    );
    note!("size", say(file.size_bytes()));
    let mut buffer = [9; 32];
    note!("read", say(file.read_at(0, &mut buffer)));
    note!("bytes", format!("{buffer:?}"));
    note!("read at the end", say(file.read_at(21, &mut buffer)));
    note!("read behind the end", say(file.read_at(1000, &mut buffer)));
    note!("read nothing", say(file.read_at(0, &mut [])));
    note!("cut", say(file.set_len(5)));
    note!("extend", say(file.set_len(8)));
    note!("read", say(file.read_at(0, &mut buffer)));
    note!("bytes", format!("{:?}", &buffer[..8]));
    file.reserve(8, 1 << 16);
    note!("size after reserving", say(file.size_bytes()));
    note!("allocate", say(file.allocate(4096)));
    note!("size", say(file.size_bytes()));
    note!("allocate less", say(file.allocate(100)));
    note!("size", say(file.size_bytes()));
    note!("sync", say(file.sync()));
    note!(
        "submit sync",
        say(wait(
            io,
            Operation::Sync {
                file: Arc::clone(&file)
            }
        ))
    );
    let warm = Operation::Warm {
        file: Arc::clone(&file),
        position: 50,
        size_bytes: 1 << 40,
    };
    note!("submit warm beyond the end", say(wait(io, warm)));
    note!(
        "submit sync of a directory",
        say(wait(
            io,
            Operation::SyncDir {
                directory: root.to_path_buf()
            }
        ))
    );
    let missing = Operation::SyncDir {
        directory: at("nothing"),
    };
    note!(
        "submit sync of no directory",
        wait(io, missing).unwrap_err().kind()
    );
    note!(
        "sync of no directory",
        io.sync_dir(&at("nothing")).unwrap_err().kind()
    );
    note!("resident after reading", file.is_resident(0, 100));
    let reader = io.open(&at("f"), OpenMode::Read).unwrap();
    note!(
        "write through a reader",
        say(reader.write_vectored_at(0, &[IoSlice::new(b"x")])).contains("pwritev")
    );

    note!("rename", say(io.rename(&at("f"), &at("g"))));
    note!("rename nothing", say(io.rename(&at("f"), &at("h"))));
    note!("read through the old handle", say(reader.read_at(0, &mut buffer)));
    note!("replace", say(io.rename(&at("g"), &at("new"))));
    note!("stat", stat("new"));
    note!("directories", say(io.create_dir_all(&at("a/b/c"))));
    note!("directories again", say(io.create_dir_all(&at("a/b"))));
    note!(
        "file in a directory",
        say(io.open(&at("a/b/x"), OpenMode::CreateNew).map(|_| ()))
    );
    note!("rename a directory", say(io.rename(&at("a"), &at("z"))));
    note!("stat", stat("z/b/x"));
    note!(
        "rename onto a full directory",
        say(io.create_dir_all(&at("y")).and(io.rename(&at("y"), &at("z"))))
    );
    note!(
        "rename onto an empty directory",
        say(io.rename(&at("z"), &at("y")))
    );
    note!(
        "rename a file onto a directory",
        say(io.rename(&at("new"), &at("y")))
    );
    note!(
        "rename a directory onto a file",
        say(io.rename(&at("y"), &at("new")))
    );
    note!("list", say(io.list(root)));
    note!("list below", say(io.list(&at("y/b"))));
    note!("list nothing", say(io.list(&at("nothing"))));
    note!("list a file", say(io.list(&at("new"))));
    note!(
        "truncate",
        say(io.open(&at("new"), OpenMode::Truncate).map(|_| ()))
    );
    note!("stat", stat("new"));
    note!("remove file", say(io.remove_file(&at("new"))));
    note!("remove file again", say(io.remove_file(&at("new"))));
    note!("remove tree", say(io.remove_dir_all(&at("y"))));
    note!("remove tree again", say(io.remove_dir_all(&at("y"))));
    note!(
        "write to the removed",
        say(file.write_vectored_at(0, &[IoSlice::new(b"still")]))
    );
    note!("read from the removed", say(reader.read_at(0, &mut buffer[..5])));
    note!("bytes", format!("{:?}", &buffer[..5]));
    note!("list", say(io.list(root)));

    let moment = TimestampMs(1_234_567_890_123);
    note!("set modified", say(io.set_modified(&at("created"), moment)));
    note!(
        "modified",
        say(io.stat(&at("created")).map(|found| found.unwrap().modified))
    );
    note!(
        "set modified of nothing",
        say(io.set_modified(&at("nothing"), moment))
    );
    let space = io.space(root).unwrap();
    note!(
        "space",
        space.available_bytes <= space.total_bytes && space.total_bytes > 0
    );
    let lock = io.lock(&at(".lock")).unwrap();
    note!("lock", lock.is_some());
    note!("lock twice", io.lock(&at(".lock")).unwrap().is_some());
    note!("lock another", io.lock(&at(".lock2")).unwrap().is_some());
    drop(lock);
    note!("lock freed", io.lock(&at(".lock")).unwrap().is_some());
    note!(
        "lock nowhere",
        say(io.lock(&at("nothing/.lock")).map(|lock| lock.is_some()))
    );
    note!("boot id", io.boot_id().unwrap().len());
    text
}

#[test]
fn all_bodies_answer_the_same_script_alike() {
    let transcripts = parking_lot::Mutex::new(Vec::new());
    each(|io, root| transcripts.lock().push((io.describe(), transcript(io, root))));
    let transcripts = transcripts.into_inner();
    let first = &transcripts[0].1;
    assert!(
        first.contains("\nread: 21\nbytes: [104, 101, 108, 108, 111, 32, 119,"),
        "{first}"
    );
    assert!(
        first.contains("\nlock: true\nlock twice: false\nlock another: true\nlock freed: true\n"),
        "{first}"
    );
    for (body, text) in &transcripts[1..] {
        for (expected, found) in first.lines().zip(text.lines()) {
            assert_eq!(found, expected, "{body}");
        }
        assert_eq!(text.lines().count(), first.lines().count(), "{body}");
    }
}

#[test]
fn more_buffers_than_one_call_takes_arrive_in_order() {
    each(|io, root| {
        let parts: Vec<Vec<u8>> = (0..3000_u32)
            .map(|n| n.to_be_bytes()[..n as usize % 5].to_vec())
            .collect();
        let slices: Vec<IoSlice<'_>> = parts.iter().map(|part| IoSlice::new(part)).collect();
        let file = io.open(&root.join("f"), OpenMode::CreateNew).unwrap();
        file.write_vectored_at(3, &slices).unwrap();
        let expected = parts.concat();
        let mut found = vec![0; expected.len() + 3];
        assert_eq!(
            file.read_at(0, &mut found).unwrap(),
            found.len(),
            "{}",
            io.describe()
        );
        assert_eq!(&found[3..], &expected, "{}", io.describe());
    });
}

#[test]
fn every_submitted_operation_completes_once_from_many_threads() {
    const THREADS: usize = 4;
    const EACH: usize = 200;
    each(|io, root| {
        let (sender, receiver) = channel();
        let barrier = Barrier::new(THREADS);
        std::thread::scope(|scope| {
            for thread in 0..THREADS {
                let (sender, barrier) = (sender.clone(), &barrier);
                let file = io
                    .open(&root.join(format!("f{thread}")), OpenMode::CreateNew)
                    .unwrap();
                scope.spawn(move || {
                    barrier.wait();
                    for number in 0..EACH {
                        file.write_vectored_at(number as u64 * 600, &[IoSlice::new(&[7; 600])])
                            .unwrap();
                        let file = Arc::clone(&file);
                        let operation = match number % 3 {
                            0 => Operation::Sync { file },
                            1 => Operation::Warm {
                                file,
                                position: 0,
                                size_bytes: 1 << 20,
                            },
                            _ => Operation::SyncDir {
                                directory: root.to_path_buf(),
                            },
                        };
                        let sender = sender.clone();
                        let done = move |outcome: Result<(), IoError>| {
                            outcome.unwrap();
                            sender.send(thread * EACH + number).unwrap();
                        };
                        io.submit(operation, Box::new(done));
                    }
                });
            }
        });
        drop(sender);
        let mut found: Vec<usize> = receiver.iter().collect();
        found.sort_unstable();
        assert_eq!(
            found,
            (0..THREADS * EACH).collect::<Vec<_>>(),
            "{}",
            io.describe()
        );
    });
}

#[test]
fn what_was_submitted_completes_although_the_body_is_dropped() {
    for (io, scratch) in bodies() {
        let root = scratch
            .as_ref()
            .map_or(Path::new("/scratch"), Scratch::path)
            .to_path_buf();
        io.create_dir_all(&root).unwrap();
        let (sender, receiver) = channel();
        for number in 0..100 {
            let file = io
                .open(&root.join(number.to_string()), OpenMode::CreateNew)
                .unwrap();
            file.write_vectored_at(0, &[IoSlice::new(b"x")]).unwrap();
            let sender = sender.clone();
            let done = move |outcome: Result<(), IoError>| sender.send(outcome.is_ok()).unwrap();
            io.submit(Operation::Sync { file }, Box::new(done));
        }
        drop((io, sender));
        assert_eq!(receiver.iter().filter(|ok| *ok).count(), 100);
    }
}

#[test]
fn a_completion_may_submit_the_next_operation() {
    fn chain(io: Arc<dyn Io>, file: super::FileHandle, left: u32, end: std::sync::mpsc::Sender<()>) {
        if left == 0 {
            end.send(()).unwrap();
            return;
        }
        let (next_io, next_file) = (Arc::clone(&io), Arc::clone(&file));
        let done = move |outcome: Result<(), IoError>| {
            outcome.unwrap();
            chain(next_io, next_file, left - 1, end);
        };
        io.submit(Operation::Sync { file }, Box::new(done));
    }
    each(|io, root| {
        let (sender, receiver) = channel();
        let file = io.open(&root.join("f"), OpenMode::CreateNew).unwrap();
        chain(Arc::clone(io), file, 50, sender);
        receiver.recv().unwrap();
    });
}

#[test]
fn a_refused_sync_is_reported_by_either_real_body() {
    // A device that cannot be synced: fdatasync answers EINVAL.
    let device = Path::new("/dev/null");
    for backend in [Backend::Syscall, Backend::Auto] {
        let io = open(backend).unwrap();
        let file = io.open(device, OpenMode::ReadWrite).unwrap();
        for error in [
            file.sync().unwrap_err(),
            wait(
                &io,
                Operation::Sync {
                    file: Arc::clone(&file),
                },
            )
            .unwrap_err(),
        ] {
            assert_eq!(
                (error.operation, error.path.as_path()),
                ("fdatasync", device),
                "{}",
                io.describe()
            );
            assert_eq!(
                error.kind(),
                std::io::ErrorKind::InvalidInput,
                "{}",
                io.describe()
            );
        }
    }
}

#[test]
fn a_demanded_ring_is_given_or_refused_with_a_reason() {
    match open(Backend::Uring) {
        Ok(io) => assert!(io.describe().starts_with("uring"), "{}", io.describe()),
        Err(refused) => {
            let fallback = open(Backend::Auto).unwrap();
            assert_eq!(fallback.describe(), format!("syscall ({})", refused.reason));
        }
    }
    let plain = open(Backend::Syscall).unwrap();
    assert_eq!(plain.describe(), "syscall (milena.io.backend=syscall)");
}
