//! Batches from a producer or from a disk: parsed, validated for a topic of any settings, converted for old
//! consumers, and read.
//!
//! Input: `shape`, `topic`, then the bytes. `shape`, from the lowest bit: 2 bits say what the bytes are
//! (0 batches; 1 the same with checksums repaired; 2 a v2 header and plain records, compressed here; 3 plain
//! messages, made into a wrapper here), 3 bits the codec, 1 bit the format of a wrapper, 1 bit its inner
//! checksums. `topic`: 2 bits format, 3 bits codec, then time type, bounded times, origin.

use milena_engine::config::{Codec, CompressionType, LogConfig, Magic, TimestampType};
use milena_engine::record_batch::compression::Compressor;
use milena_engine::record_batch::{
    AppendOrigin, Level, RequestRules, ValidationRules, batches, convert_down, validate,
};
use milena_engine::units::{LeaderEpoch, Offset, TimestampMs, TopicPartition};

use crate::memory::{Input, Memory, OWNED};
use crate::{decompress, seal, take};

const NOW: TimestampMs = TimestampMs(1_600_000_000_000);
const CODECS: [Codec; 5] = [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];
const FORMATS: [Magic; 3] = [Magic::V0, Magic::V1, Magic::V2];
const HEADER_SIZE: usize = 61;

/// What is written anew: records grow by their headers when they become messages (29 bytes instead of 7), in buffers
/// that double; and the windows of two codecs.
pub(crate) const REWRITING: Memory = OWNED.and(2 * decompress::ANY_WINDOW).and_per_expanded_byte(32);

/// `topic`, then what the bytes are shaped to.
pub(crate) fn shaped(data: &[u8]) -> Input {
    let mut data = data;
    let (shape, topic) = (take(&mut data), take(&mut data));
    let batches = shape_of(shape, data);
    let expanded = expanded(&batches);
    let mut bytes = vec![topic];
    bytes.extend(batches);
    Input { bytes, expanded }
}

/// Bytes of all records that can be read, decompressed, with some for each.
fn expanded(bytes: &[u8]) -> usize {
    let mut size = 0;
    for batch in batches(bytes).flatten() {
        let Ok(mut records) = batch.records() else {
            continue;
        };
        while let Ok(Some(record)) = records.next_record() {
            let of = |bytes: Option<&[u8]>| bytes.map_or(0, <[u8]>::len);
            let headers = record
                .headers
                .iter()
                .map(|header| header.key.len() + of(header.value) + 2);
            size += of(record.key) + of(record.value) + headers.sum::<usize>() + 7;
        }
    }
    size
}

pub(crate) fn read(bytes: &[u8]) {
    read_all(&bytes[1..]);
}

pub(crate) fn convert(bytes: &[u8]) {
    for (format, first) in [(Magic::V0, 0), (Magic::V1, 1), (Magic::V0, i64::MAX)] {
        if let Ok(converted) = convert_down(&bytes[1..], format, Offset(first)) {
            read_all(&converted);
        }
    }
}

pub(crate) fn accept(bytes: &[u8]) {
    let rules = rules(bytes[0]);
    for level in [Level::Header, Level::Strict] {
        let Ok(mut validated) = validate(&bytes[1..], &rules, NOW, level) else {
            continue;
        };
        let next = validated
            .assign(Offset(7), LeaderEpoch(3))
            .expect("offsets are left");
        std::hint::black_box((validated.offset_of_max_timestamp(), validated.headers().count()));
        if level == Level::Strict {
            let written: Vec<u8> = validated.io_slices().flat_map(|slice| slice.to_vec()).collect();
            check_written(&written, rules.magic, next);
        }
    }
}

fn shape_of(shape: u8, data: &[u8]) -> Vec<u8> {
    let codec = CODECS[usize::from(shape >> 2 & 7) % CODECS.len()];
    let mut bytes = match shape & 3 {
        2 if data.len() >= HEADER_SIZE => {
            let (header, records) = data.split_at(HEADER_SIZE);
            let mut bytes = header.to_vec();
            bytes[16] = Magic::V2 as u8;
            bytes[22] = bytes[22] & !7 | codec as u8;
            let mut compressor = Compressor::new(codec, Magic::V2, bytes);
            compressor.write(records);
            compressor.finish()
        }
        3 => {
            let magic = FORMATS[usize::from(shape >> 5 & 1)];
            let codec = CODECS[1 + usize::from(shape >> 2 & 7) % 3];
            let mut set = data.to_vec();
            if shape & 0x40 == 0 {
                seal(&mut set);
            }
            let mut compressor = Compressor::new(codec, magic, Vec::new());
            compressor.write(&set);
            wrapper(magic, codec, set.first_chunk::<8>(), &compressor.finish())
        }
        _ => data.to_vec(),
    };
    if shape & 3 == 2 && bytes.len() >= HEADER_SIZE {
        let length = (bytes.len() - 12) as u32;
        bytes[8..12].copy_from_slice(&length.to_be_bytes());
    }
    if shape & 3 != 0 {
        seal(&mut bytes);
    }
    bytes
}

/// A message around a compressed set; its offset is that of the first message plus 2.
fn wrapper(magic: Magic, codec: Codec, first: Option<&[u8; 8]>, value: &[u8]) -> Vec<u8> {
    let offset = first
        .map_or(0, |first| i64::from_be_bytes(*first))
        .wrapping_add(2);
    let mut bytes = offset.to_be_bytes().to_vec();
    bytes.extend([0; 8]);
    bytes.extend([magic as u8, codec as u8]);
    if magic == Magic::V1 {
        bytes.extend(NOW.get().to_be_bytes());
    }
    bytes.extend((-1i32).to_be_bytes());
    bytes.extend((value.len() as u32).to_be_bytes());
    bytes.extend(value);
    let size = (bytes.len() - 12) as u32;
    bytes[8..12].copy_from_slice(&size.to_be_bytes());
    bytes
}

fn rules(topic: u8) -> ValidationRules {
    let (client, request) = (AppendOrigin::Client, RequestRules::NONE);
    let mut rules = ValidationRules::new(
        TopicPartition::new("fuzz", 0),
        &LogConfig::default(),
        client,
        request,
    );
    rules.magic = FORMATS[usize::from(topic & 3) % 3];
    rules.compression = CODECS
        .get(usize::from(topic >> 2 & 7))
        .map_or(CompressionType::Producer, |&codec| CompressionType::Always(codec));
    if topic & 0x20 != 0 {
        rules.timestamp_type = TimestampType::LogAppendTime;
    }
    if topic & 0x40 != 0 {
        rules.timestamp_difference_max_ms = 1000;
        rules.compacted = true;
    }
    if topic & 0x80 != 0 {
        rules.origin = AppendOrigin::Coordinator;
    }
    rules
}

/// Everything that readers ask of a batch.
fn read_all(bytes: &[u8]) {
    for batch in batches(bytes).flatten() {
        std::hint::black_box((
            batch.verify_crc(),
            batch.control_record(),
            batch.first_offset_deep(),
        ))
        .0
        .ok();
        let Ok(mut records) = batch.records() else {
            continue;
        };
        while let Ok(Some(record)) = records.next_record() {
            assert_eq!(record.headers.iter().count(), record.headers.len());
        }
    }
}

/// What a leader accepts is sound, in the topic's format, and has the offsets that were given.
fn check_written(written: &[u8], magic: Magic, next: Offset) {
    let mut offset = 7;
    for batch in batches(written) {
        let batch = batch.expect("what is written is whole");
        assert_eq!((batch.magic(), batch.verify_crc()), (magic, Ok(())));
        let mut records = batch.records().expect("what is written can be read");
        while let Some(record) = records.next_record().expect("what is written can be read") {
            assert_eq!(record.offset, Offset(offset));
            offset += 1;
        }
    }
    assert_eq!(Offset(offset), next);
}
