//! The benchmarks of the engine's steps; each is a program of its own beside this: `cargo bench -p milena-benches`.
//!
//! They tell where time goes inside the broker. What a broker costs as a whole, beside Apache Kafka, is in
//! `docs/benchmarks.md`.
