//! Batches in memory: what a leader does to each before it takes the partition's lock.
//!
//! Bound by one core; CRC by its memory bandwidth, the scan of records by branches (one record is some eight
//! varints), codecs by decompression. A batch has 64 KiB of values, as Kafka's producers send under load.

use divan::counter::{BytesCount, ItemsCount};
use divan::{Bencher, black_box};
use milena_engine::config::{Codec, LogConfig, Magic};
use milena_engine::record_batch::{
    AppendOrigin, Level, RecordBatchBuilder, RequestRules, ValidationRules, convert_down, validate,
};
use milena_engine::units::{Offset, TimestampMs, TopicPartition};

const NOW: TimestampMs = TimestampMs(1_700_000_000_000);
const VALUES_SIZE_BYTES: usize = 64 << 10;
const RECORD_SIZES: [usize; 3] = [10, 100, 1024];
const CODECS: [Codec; 5] = [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];

fn main() {
    divan::main();
}

/// JSON-like values, so that codecs have something to find.
fn value(number: usize, size: usize) -> Vec<u8> {
    let text = format!(
        "{{\"id\":\"{number:08x}\",\"type\":\"payment\",\"amount\":{}}}",
        number % 977
    );
    text.bytes().cycle().take(size).collect()
}

fn batch(codec: Codec, record_size: usize) -> Vec<u8> {
    let mut builder = RecordBatchBuilder::new().codec(codec);
    for number in 0..VALUES_SIZE_BYTES / record_size {
        builder.append(NOW, None, Some(&value(number, record_size)));
    }
    builder.build()
}

fn rules() -> ValidationRules {
    let config = LogConfig::default();
    let request = RequestRules::produce(8);
    ValidationRules::new(
        TopicPartition::new("bench", 0),
        &config,
        AppendOrigin::Client,
        request,
    )
}

/// The floor of every check: each byte once.
#[divan::bench]
fn crc_of_64_kib(bencher: Bencher<'_, '_>) {
    let bytes = batch(Codec::None, 1024);
    bencher
        .counter(BytesCount::new(bytes.len()))
        .bench(|| crc32c::crc32c(black_box(&bytes)));
}

/// Kafka's checks of an uncompressed batch: CRC and every record's header.
#[divan::bench(args = RECORD_SIZES)]
fn strict_validation(bencher: Bencher<'_, '_>, record_size: usize) {
    let (bytes, rules) = (batch(Codec::None, record_size), rules());
    bencher
        .counter(BytesCount::new(bytes.len()))
        .counter(ItemsCount::new(VALUES_SIZE_BYTES / record_size))
        .bench(|| validate(black_box(&bytes), &rules, NOW, Level::Strict).is_ok());
}

/// The same with a codec: every record is decompressed and looked at, none is kept.
#[divan::bench(args = CODECS)]
fn strict_validation_with_codec(bencher: Bencher<'_, '_>, codec: Codec) {
    let (bytes, rules) = (batch(codec, 1024), rules());
    bencher
        .counter(BytesCount::new(VALUES_SIZE_BYTES))
        .bench(|| validate(black_box(&bytes), &rules, NOW, Level::Strict).is_ok());
}

/// For consumers of message format v1.
#[divan::bench(args = RECORD_SIZES)]
fn conversion_down(bencher: Bencher<'_, '_>, record_size: usize) {
    let bytes = batch(Codec::None, record_size);
    bencher
        .counter(BytesCount::new(bytes.len()))
        .bench(|| convert_down(black_box(&bytes), Magic::V1, Offset(0)).is_ok());
}
