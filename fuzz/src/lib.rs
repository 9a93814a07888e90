//! What Milena reads from outside, one module per target: its steps take any bytes and panic only where Milena
//! does, or breaks a promise that is written there.
//!
//! Three ways to run them, all described in `README.md`: `cargo fuzz` looks for bytes by coverage;
//! `cargo test -p milena-fuzz` replays `corpus/` and mutations of it from a seed; the programs of an ordinary build
//! replay the files they are given. In all of them the allocator counts, and every step must stay within the memory
//! that [`TARGETS`] gives it.
//!
//! | target | bytes | promise beside not to panic |
//! |---|---|---|
//! | `record_batch` | batches, some with repaired checksums or compressed here | what is accepted can be read |
//! | `decompress_*` | a compressed stream of any framing | what came out comes out again, in pieces of any size |
//! | `request`, `response` | an API, a version, a body | what is read is written and read again the same |
//! | `consumer_protocol` | what consumers tell each other | as above |
//! | `group_records` | keys and values of `__consumer_offsets` | as above |
//! | `server_properties` | a file of settings | a refusal names a setting or a line |
//! | `znodes` | data of the coordination tree | what is read is written and read again the same |
//! | `recovery` | files of a partition and of a log directory | a second opening changes nothing |
//! | `log_ops` | operations on a log | it holds what a list holds |
//! | `canary` | anything | none: it must be caught |
//!
//! No target reads a clock, a file or randomness, so that the same bytes do the same.

pub mod canary;
mod consumer_protocol;
mod decompress;
mod group_records;
mod log_ops;
pub mod memory;
pub mod mutate;
mod record_batch;
mod recovery;
mod request;
mod response;
mod server_properties;
pub mod wire;
mod znodes;

use std::panic::{AssertUnwindSafe, catch_unwind};

use memory::{Input, LAZY, Memory, OWNED};

/// A part of what a target does, and the memory that it may take for it.
pub type Step = (fn(&[u8]), Memory);

/// A reader and its promises.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Also that of its corpus and its program.
    pub name: &'static str,
    /// Makes of the fuzzer's bytes what the steps are given.
    prepare: fn(&[u8]) -> Input,
    steps: &'static [Step],
}

const fn target(name: &'static str, steps: &'static [Step]) -> Target {
    Target {
        name,
        prepare: Input::plain,
        steps,
    }
}

/// The targets that must hold.
pub const TARGETS: [Target; 13] = [
    Target {
        name: "record_batch",
        prepare: record_batch::shaped,
        steps: &[
            (record_batch::read, LAZY.and(decompress::ANY_WINDOW)),
            (record_batch::convert, record_batch::REWRITING),
            (record_batch::accept, record_batch::REWRITING),
        ],
    },
    target(
        "decompress_gzip",
        &[
            (decompress::gzip, LAZY.and(decompress::GZIP_WINDOW)),
            (decompress::gzip_again, decompress::AGAIN),
        ],
    ),
    target(
        "decompress_snappy",
        &[
            (
                decompress::snappy,
                LAZY.and(decompress::WINDOW)
                    .and_per_byte(decompress::SNAPPY_BLOCK_PER_BYTE),
            ),
            (decompress::snappy_again, decompress::AGAIN),
        ],
    ),
    target(
        "decompress_lz4",
        &[
            (decompress::lz4, LAZY.and(decompress::LZ4_WINDOW)),
            (decompress::lz4_again, decompress::AGAIN),
        ],
    ),
    target(
        "decompress_zstd",
        &[
            (decompress::zstd, LAZY.and(decompress::WINDOW)),
            (decompress::zstd_again, decompress::AGAIN),
        ],
    ),
    target("request", &[(request::read, LAZY), (request::read_again, OWNED)]),
    target(
        "response",
        &[(response::read, LAZY), (response::read_again, OWNED)],
    ),
    target(
        "consumer_protocol",
        &[
            (consumer_protocol::read, LAZY),
            (consumer_protocol::read_again, OWNED),
            (consumer_protocol::topics, OWNED),
        ],
    ),
    target("group_records", &[(group_records::read_again, OWNED)]),
    target(
        "server_properties",
        &[(server_properties::load, OWNED.and(server_properties::TABLE))],
    ),
    target("znodes", &[(znodes::read_again, OWNED)]),
    target("recovery", &[(recovery::run, OWNED.and(recovery::DISK))]),
    target("log_ops", &[(log_ops::run, OWNED.and(log_ops::DISK))]),
];

/// The target that must not hold: see [`canary`].
pub const CANARY: Target = target("canary", &[(canary::run, LAZY)]);

/// Bytes of input that are looked at: more do not reach more code.
pub const INPUT_SIZE_MAX: usize = 64 << 10;

impl Target {
    /// The target of a name, be it the canary.
    pub fn named(name: &str) -> Option<&'static Target> {
        const ALL: [&[Target]; 2] = [&TARGETS, &[CANARY]];
        ALL.into_iter().flatten().find(|target| target.name == name)
    }

    /// Runs every step; panics where a promise is broken. One at a time: the memory counted is the process's.
    pub fn run(&self, data: &[u8]) {
        let input = (self.prepare)(&data[..data.len().min(INPUT_SIZE_MAX)]);
        for (step, memory) in self.steps {
            memory.bound(self.name, &input, *step);
        }
    }

    /// What is wrong with the target on these bytes: the text of the panic.
    pub fn fault(&self, data: &[u8]) -> Option<String> {
        let panic = catch_unwind(AssertUnwindSafe(|| self.run(data))).err()?;
        let text = panic
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| panic.downcast_ref::<&str>().copied());
        Some(format!("a panic: {}", text.unwrap_or("without a text")))
    }
}

/// The program of a target: under the fuzzer its entry, else a replay of the files that the command line names.
#[macro_export]
macro_rules! program {
    ($name:ident) => {
        #[cfg(fuzzing)]
        libfuzzer_sys::fuzz_target!(|data: &[u8]| {
            let target = $crate::Target::named(stringify!($name));
            target.expect("a target of the table").run(data)
        });

        #[cfg(not(fuzzing))]
        fn main() -> std::io::Result<()> {
            let target = $crate::Target::named(stringify!($name)).expect("a target of the table");
            for path in std::env::args_os().skip(1) {
                target.run(&std::fs::read(path)?);
            }
            Ok(())
        }
    };
}

/// The batches that a seed of `record_batch` stands for.
pub fn shaped_batches(data: &[u8]) -> Vec<u8> {
    record_batch::shaped(data).bytes.split_off(1)
}

/// Takes the first byte, or 0 if there is none.
fn take(data: &mut &[u8]) -> u8 {
    let Some((&first, rest)) = data.split_first() else {
        return 0;
    };
    *data = rest;
    first
}

/// Prints a value to nobody, so that all of it is walked and nothing is allocated.
fn walk(value: &dyn std::fmt::Debug) {
    struct Nobody;
    impl std::fmt::Write for Nobody {
        fn write_str(&mut self, text: &str) -> std::fmt::Result {
            std::hint::black_box(text);
            Ok(())
        }
    }
    std::fmt::write(&mut Nobody, format_args!("{value:?}")).expect("nobody refuses");
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
