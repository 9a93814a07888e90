//! Batches in memory: what a leader does to each before it takes the partition's lock.
//!
//! Bound by one core: CRC by its memory bandwidth, the scan of records by branches (one record is some eight varints),
//! codecs by decompression.

use std::hint::black_box;

use milena_engine::config::{Codec, CompressionType};
use milena_engine::record_batch::{Batch, Level, validate};

use super::{Step, Work};
use crate::inputs::{self, NOW, VALUES_SIZE_BYTES};

const fn on_batch(name: &'static str, runs: u32, prepare: fn() -> Work) -> Step {
    Step {
        name,
        unit: "batch",
        units_per_run: 1,
        runs,
        prepare,
    }
}

const fn on_records(name: &'static str, record_size: usize, prepare: fn() -> Work) -> Step {
    Step {
        name,
        unit: "record",
        units_per_run: (VALUES_SIZE_BYTES / record_size) as u32,
        runs: 50,
        prepare,
    }
}

/// Those that need no file.
pub(super) const STEPS: &[Step] = &[
    on_batch("crc_of_64_kib", 100, crc),
    on_records("record_scan_100_b", 100, || record_scan(100)),
    on_records("record_scan_1_kib", 1024, || record_scan(1024)),
    on_records("validation_100_b", 100, || validation(Codec::None, 100)),
    on_batch("validation_none", 50, || validation(Codec::None, 1024)),
    on_batch("validation_gzip", 5, || validation(Codec::Gzip, 1024)),
    on_batch("validation_snappy", 5, || validation(Codec::Snappy, 1024)),
    on_batch("validation_lz4", 5, || validation(Codec::Lz4, 1024)),
    on_batch("validation_zstd", 5, || validation(Codec::Zstd, 1024)),
    on_batch("recompression_lz4_to_zstd", 3, recompression),
];

/// The floor of every check: each byte once.
fn crc() -> Work {
    let bytes = inputs::full_batch(Codec::None, 1024);
    Box::new(move || {
        black_box(crc32c::crc32c(black_box(&bytes[..VALUES_SIZE_BYTES])));
    })
}

/// Every record of an uncompressed batch, decoded.
fn record_scan(record_size: usize) -> Work {
    let bytes = inputs::full_batch(Codec::None, record_size);
    Box::new(move || {
        let batch = Batch::parse(black_box(&bytes)).expect("a sound batch");
        let mut records = batch.records().expect("its records can be read");
        while let Some(record) = records.next_record().expect("a sound record") {
            black_box(record);
        }
    })
}

/// Kafka's checks: CRC and every record's header; with a codec every record is decompressed, and none is kept.
fn validation(codec: Codec, record_size: usize) -> Work {
    let bytes = inputs::full_batch(codec, record_size);
    let rules = inputs::rules(CompressionType::Producer);
    Box::new(move || {
        let set = validate(black_box(&bytes), &rules, NOW, Level::Strict);
        black_box(set.expect("a sound batch"));
    })
}

/// For a topic with `compression.type=zstd`.
fn recompression() -> Work {
    let bytes = inputs::full_batch(Codec::Lz4, 1024);
    let rules = inputs::rules(CompressionType::Always(Codec::Zstd));
    Box::new(move || {
        let set = validate(black_box(&bytes), &rules, NOW, Level::Strict);
        black_box(set.expect("a sound batch"));
    })
}
