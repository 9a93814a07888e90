//! Space that is reserved behind a segment that grows, on the real disk.

use std::os::unix::fs::MetadataExt;

use crate::io::conformance::Scratch;
use crate::io::syscall::SyscallIo;

use super::*;

/// (bytes of the file, bytes that it takes on the disk)
fn sizes(path: &Path) -> (u64, u64) {
    let metadata = std::fs::metadata(path).unwrap();
    (metadata.len(), metadata.blocks() * 512)
}

#[test]
fn a_large_segment_reserves_space_and_gives_it_back_at_a_roll_and_at_a_close() {
    let scratch = Scratch::new();
    let open = || {
        Log::open(
            Arc::new(LogDirectory::new(scratch.path())),
            "t-0",
            TopicPartition::new("t", 0),
            Arc::new(LogConfig::default()),
            &OpenOptions::default(),
            Arc::new(SyscallIo::new("a test")),
            Arc::new(ManualClock::new(NOW)),
        )
        .unwrap()
    };
    let grow = |log: &Log| {
        for _ in 0..6 {
            append_one(log, batch(1, NOW.get(), 1_000_000));
        }
    };
    let log = open();
    let first = scratch.path().join("t-0/00000000000000000000.log");
    append_one(&log, batch(1, NOW.get(), 1_000_000));
    let (size, taken) = sizes(&first);
    assert!(
        taken < size + (64 << 10),
        "{taken} bytes taken for {size} while the segment is small"
    );
    grow(&log);
    let (size, taken) = sizes(&first);
    // A file system that cannot reserve takes what it is given.
    let probe = Arc::new(SyscallIo::new("a test")).open(&scratch.path().join("probe"), OpenMode::CreateNew);
    probe.unwrap().reserve(0, 1 << 20);
    if sizes(&scratch.path().join("probe")).1 >= 1 << 20 {
        assert!(taken > size + (512 << 10), "{taken} bytes taken for {size}");
    }
    log.roll().unwrap();
    let (size, taken) = sizes(&first);
    assert!(
        taken < size + (64 << 10),
        "{taken} bytes taken for {size} after the roll"
    );

    grow(&log);
    let second = scratch.path().join(format!("t-0/{:020}.log", 7));
    log.close().unwrap();
    let (size, taken) = sizes(&second);
    assert!(
        taken < size + (64 << 10),
        "{taken} bytes taken for {size} after the close"
    );
    let log = open();
    grow(&log);
    assert_eq!(offsets_from(&log, Offset(0)).len(), 19);
}
