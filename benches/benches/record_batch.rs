//! Batches in memory by the size of their records. What bounds them is said in `src/steps/batches.rs`.

use divan::counter::{BytesCount, ItemsCount};
use divan::{Bencher, black_box};
use milena_benches::inputs::{NOW, VALUES_SIZE_BYTES, full_batch, rules};
use milena_engine::config::{Codec, CompressionType, Magic};
use milena_engine::record_batch::{Level, convert_down, validate};
use milena_engine::units::Offset;

const RECORD_SIZES: [usize; 3] = [10, 100, 1024];

fn main() {
    divan::main();
}

/// Kafka's checks of an uncompressed batch: CRC and every record's header.
#[divan::bench(args = RECORD_SIZES)]
fn strict_validation(bencher: Bencher<'_, '_>, record_size: usize) {
    let bytes = full_batch(Codec::None, record_size);
    let rules = rules(CompressionType::Producer);
    bencher
        .counter(BytesCount::new(bytes.len()))
        .counter(ItemsCount::new(VALUES_SIZE_BYTES / record_size))
        .bench(|| validate(black_box(&bytes), &rules, NOW, Level::Strict).is_ok());
}

/// For consumers of message format v1.
#[divan::bench(args = RECORD_SIZES)]
fn conversion_down(bencher: Bencher<'_, '_>, record_size: usize) {
    let bytes = full_batch(Codec::None, record_size);
    bencher
        .counter(BytesCount::new(bytes.len()))
        .bench(|| convert_down(black_box(&bytes), Magic::V1, Offset(0)).is_ok());
}
