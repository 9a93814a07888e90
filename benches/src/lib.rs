//! What single steps of the broker cost: the steps and their inputs, in one place for all who measure them.
//!
//! - [`steps`]: each step by name, ready to be run again and again
//! - [`inputs`]: the batches, logs and directories that they work on
//! - [`baseline`]: the instructions that each step took, and when two counts may be compared
//!
//! `cargo bench -p milena-benches` takes their times; the program `counts` has callgrind count their instructions, which
//! are the same on a busy machine. What a broker costs as a whole, beside Apache Kafka, is in `docs/benchmarks.md`.

pub mod baseline;
pub mod inputs;
pub mod steps;
