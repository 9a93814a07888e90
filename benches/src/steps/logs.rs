//! One log on the real disk of the directory for temporary files.
//!
//! An append is bound by the copy into the page cache and the file system's work for each page, neither of which is among
//! the instructions that are counted; a read by nothing but the index; recovery by memory bandwidth (CRC of what lies in
//! the page cache).

use std::hint::black_box;

use milena_engine::config::Codec;
use milena_engine::io::Backend;
use milena_engine::log::UpperBound;
use milena_engine::units::{Offset, TimestampMs};

use super::{Step, Work};
use crate::inputs::{self, BenchLog, NOW};

/// Records of one batch in a log that is read.
const RECORDS_PER_BATCH: usize = 8;
const BATCH_COUNT: usize = 2000;
const RECOVERED_MIB: u32 = 8;

/// Those that read or write the files of a partition.
pub(super) const STEPS: &[Step] = &[
    Step {
        name: "append",
        unit: "batch",
        units_per_run: 1,
        runs: 500,
        prepare: append,
    },
    Step {
        name: "index_lookup",
        unit: "read",
        units_per_run: 1,
        runs: 500,
        prepare: index_lookup,
    },
    Step {
        name: "time_index_lookup",
        unit: "look-up",
        units_per_run: 1,
        runs: 200,
        prepare: time_index_lookup,
    },
    Step {
        name: "recovery",
        unit: "MiB",
        units_per_run: RECOVERED_MIB,
        runs: 1,
        prepare: recovery,
    },
];

/// Validated and written to the page cache: 8 records of 1 KiB.
fn append() -> Work {
    let log = BenchLog::new("append", Backend::Syscall);
    let bytes = inputs::batch(Codec::None, 1024, RECORDS_PER_BATCH, NOW);
    Box::new(move || {
        black_box(log.append(black_box(&bytes)));
    })
}

/// Batches of 1 KiB, a millisecond apart.
fn filled(name: &str) -> BenchLog {
    let log = BenchLog::new(name, Backend::Syscall);
    for number in 0..BATCH_COUNT {
        let time = TimestampMs(NOW.get() + number as i64);
        log.append(&inputs::batch(Codec::None, 128, RECORDS_PER_BATCH, time));
    }
    log
}

/// Where the next MiB lies: what a fetch asks of the log.
fn index_lookup() -> Work {
    let log = filled("read");
    let end = log.log().log_end_offset().get();
    let mut from = 0;
    Box::new(move || {
        from = (from + 12_345) % end;
        let found = log.log().read(Offset(from), 1 << 20, UpperBound::LogEnd, true);
        black_box(
            found
                .expect("a healthy disk")
                .records
                .expect("it is below the end"),
        );
    })
}

/// What `offsetsForTimes` asks.
fn time_index_lookup() -> Work {
    let log = filled("time");
    let mut after = 0;
    Box::new(move || {
        after = (after + 1_234) % BATCH_COUNT as i64;
        let found = log
            .log()
            .offset_for_timestamp(TimestampMs(NOW.get() + after), UpperBound::LogEnd);
        black_box(found.expect("a healthy disk").expect("a record is that late"));
    })
}

/// What lies in the page cache is checked and indexed anew, as after a kill.
fn recovery() -> Work {
    let log = BenchLog::new("recovery", Backend::Syscall);
    let bytes = inputs::full_batch(Codec::None, 1024);
    while log.log().size_bytes() < u64::from(RECOVERED_MIB) << 20 {
        log.append(&bytes);
    }
    Box::new(move || {
        black_box(log.recover());
    })
}
