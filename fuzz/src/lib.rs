//! What Milena reads from outside, one module per target: each has `run`, which takes any bytes and panics only
//! where Milena does, or breaks a promise that is written there.
//!
//! Three ways to run them, all described in `docs/hacking.md`: `cargo fuzz` looks for bytes by coverage;
//! `cargo test -p milena-fuzz` replays `corpus/` and mutations of it from a seed, and measures memory; the
//! programs of an ordinary build replay the files they are given.
//!
//! | target | bytes | promise beside not to panic |
//! |---|---|---|
//! | `record_batch` | batches, some with repaired checksums or compressed here | what is accepted can be read |
//! | `request`, `response` | an API, a version, a body | what is read is written and read again the same |
//! | `recovery` | files of a partition and of a log directory | a second opening changes nothing |
//! | `log_ops` | operations on a log | it holds what a list holds |
//! | `canary` | anything | none: it must be caught |
//!
//! No target reads a clock, a file or randomness, so that the same bytes do the same.

pub mod canary;
pub mod log_ops;
pub mod mutate;
pub mod record_batch;
pub mod recovery;
pub mod request;
pub mod response;
mod wire;

/// A target.
pub type Run = fn(&[u8]);

/// The targets that must hold, by the name of their corpus.
pub const TARGETS: [(&str, Run); 5] = [
    ("record_batch", record_batch::run),
    ("request", request::run),
    ("response", response::run),
    ("recovery", recovery::run),
    ("log_ops", log_ops::run),
];

/// Bytes of input that are looked at: more do not reach more code.
pub const INPUT_SIZE_MAX: usize = 64 << 10;

/// Runs a target on the files that the command line names.
///
/// # Errors
/// A file cannot be read.
pub fn replay(run: Run) -> std::io::Result<()> {
    for path in std::env::args_os().skip(1) {
        run(&std::fs::read(path)?);
    }
    Ok(())
}

/// Takes the first byte, or 0 if there is none.
fn take(data: &mut &[u8]) -> u8 {
    let Some((&first, rest)) = data.split_first() else {
        return 0;
    };
    *data = rest;
    first
}

/// Makes the checksums of all whole batches right, so that what lies behind them is reached.
pub fn seal(bytes: &mut [u8]) {
    let mut rest = bytes;
    while let Some(length) = rest.get(8..12) {
        let length = i32::from_be_bytes([length[0], length[1], length[2], length[3]]);
        let Some(size) = usize::try_from(length).ok().map(|length| length + 12) else {
            return;
        };
        if size < 26 || size > rest.len() {
            return;
        }
        let (batch, after) = rest.split_at_mut(size);
        if batch[16] == 2 && size >= 61 {
            let crc = crc32c::crc32c(&batch[21..]);
            batch[17..21].copy_from_slice(&crc.to_be_bytes());
        } else if batch[16] < 2 {
            let crc = crc32fast::hash(&batch[16..]);
            batch[12..16].copy_from_slice(&crc.to_be_bytes());
        }
        rest = after;
    }
}
