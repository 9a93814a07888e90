//! Tests of the leader's checks: what is refused, with which words, and what is kept, byte for byte.

use proptest::prelude::*;

use super::refusal::REFUSALS_MAX;
use super::*;
use crate::config::LogConfig;
use crate::error::RecordRefusal;
use crate::record_batch::compression::{Compressor, WINDOW_SIZE};
use crate::record_batch::varint::write_varint;
use crate::record_batch::{
    CRC_START, ControlKind, ControlRecord, ProducerStamp, RECORD_BATCH_OVERHEAD, RecordBatchBuilder,
    RecordHeader, batches,
};
use crate::units::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, Sequence, TopicPartition};

pub(super) const NOW: TimestampMs = TimestampMs(1_000_000);
pub(super) const CODECS: [Codec; 5] = [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];

pub(super) fn rules(change: impl FnOnce(&mut ValidationRules)) -> ValidationRules {
    let partition = TopicPartition::new("topic", 3);
    let config = LogConfig::default();
    let mut rules = ValidationRules::new(partition, &config, AppendOrigin::Client, RequestRules::produce(8));
    change(&mut rules);
    rules
}

pub(super) fn builder() -> RecordBatchBuilder {
    RecordBatchBuilder::new()
}

/// Three records with keys, the largest timestamp in the middle.
pub(super) fn three(mut builder: RecordBatchBuilder) -> Vec<u8> {
    for (timestamp, key, value) in [(1000, "a", "1"), (3000, "b", "2"), (2000, "c", "3")] {
        builder.append(
            TimestampMs(timestamp),
            Some(key.as_bytes()),
            Some(value.as_bytes()),
        );
    }
    builder.build()
}

/// Changes bytes and makes the CRC right again.
pub(super) fn patched(mut bytes: Vec<u8>, position: usize, with: &[u8]) -> Vec<u8> {
    bytes[position..position + with.len()].copy_from_slice(with);
    let (at, crc) = match bytes[16] {
        2 => (17, crc32c::crc32c(&bytes[CRC_START..])),
        _ => (12, crc32fast::hash(&bytes[16..])),
    };
    bytes[at..at + 4].copy_from_slice(&crc.to_be_bytes());
    bytes
}

/// A v2 batch with these raw bytes as its records.
pub(super) fn raw(count: u32, codec: Codec, records: &[u8]) -> Vec<u8> {
    let mut compressor = Compressor::new(codec, Magic::V2, Vec::new());
    compressor.write(records);
    around(count, codec, &compressor.finish())
}

/// A v2 batch with these compressed bytes behind its header.
pub(super) fn around(count: u32, codec: Codec, compressed: &[u8]) -> Vec<u8> {
    let mut bytes = three(builder());
    bytes.truncate(RECORD_BATCH_OVERHEAD);
    bytes.extend_from_slice(compressed);
    let length = bytes.len() as u32 - 12;
    bytes[8..12].copy_from_slice(&length.to_be_bytes());
    bytes[22] = codec as u8;
    bytes[23..27].copy_from_slice(&count.wrapping_sub(1).to_be_bytes());
    patched(bytes, 57, &count.to_be_bytes())
}

pub(super) fn strict<'a>(
    records: &'a [u8],
    rules: &ValidationRules,
) -> Result<ValidatedBatches<'a>, InvalidRecords> {
    validate(records, rules, NOW, Level::Strict)
}

pub(super) fn bytes_of(validated: &ValidatedBatches<'_>) -> Vec<u8> {
    validated.io_slices().flat_map(|slice| slice.to_vec()).collect()
}

pub(super) fn check_refused(what: &str, records: &[u8], rules: &ValidationRules, expected: &str) {
    let error = strict(records, rules)
        .map(|validated| bytes_of(&validated))
        .expect_err(what);
    assert!(
        format!("{error:?}").contains(expected),
        "{what}: {error:?}\nexpected: {expected}"
    );
}

#[test]
fn what_is_against_the_rules_is_refused_with_kafka_s_words() {
    let plain = rules(|_| {});
    let good = three(builder());
    let stamped = |sequence: i32| {
        let bytes = three(builder().producer(ProducerId(7), ProducerEpoch(0), Some(Sequence(0))));
        patched(bytes, 53, &sequence.to_be_bytes())
    };
    let produce = |version| rules(|rules| rules.request = RequestRules::produce(version));
    let two = [good.clone(), good.clone()].concat();
    let marker = RecordBatchBuilder::end_transaction_marker(
        ControlRecord {
            kind: ControlKind::Abort,
            coordinator_epoch: 1,
        },
        ProducerId(7),
        ProducerEpoch(0),
        NOW,
    );
    let v1 = three(builder().magic(Magic::V1));
    let mixed = [three(builder().magic(Magic::V0)), v1.clone()].concat();
    let compressed_after = [v1.clone(), three(builder().magic(Magic::V1).codec(Codec::Gzip))].concat();
    let cases: &[(&str, Vec<u8>, ValidationRules, &str)] = &[
        (
            "no batch",
            vec![],
            produce(3),
            "Produce requests with version 3 must have at least one record batch",
        ),
        (
            "half a batch",
            good[..70].to_vec(),
            produce(8),
            "must have at least one record batch",
        ),
        (
            "two batches",
            two.clone(),
            produce(8),
            "version 8 are only allowed to contain exactly one record batch",
        ),
        (
            "two v2 batches, old request",
            two,
            produce(2),
            "Compressed outer record has more than one batch",
        ),
        (
            "v1 in a new request",
            v1,
            produce(3),
            "only allowed to contain record batches with magic version 2",
        ),
        (
            "zstd before version 7",
            three(builder().codec(Codec::Zstd)),
            produce(6),
            "UnsupportedCompression { message: \"Produce requests with version 6 are not allowed",
        ),
        (
            "base offset",
            three(builder().base_offset(Offset(5))),
            plain.clone(),
            "The baseOffset of the record batch in the append to topic-3 should be 0, but it is 5",
        ),
        (
            "crc",
            {
                let mut bad = good.clone();
                bad[70] ^= 1;
                bad
            },
            plain.clone(),
            "Corrupt { position: 17",
        ),
        (
            "length",
            {
                let mut bad = good.clone();
                bad[8] = 0x80;
                bad
            },
            plain.clone(),
            "Corrupt { position: 8",
        ),
        (
            "magic",
            {
                let mut bad = good.clone();
                bad[16] = 3;
                bad
            },
            plain.clone(),
            "Corrupt { position: 16",
        ),
        (
            "codec 5",
            patched(good.clone(), 22, &[5]),
            plain.clone(),
            "Invalid { message: \"batch at byte 22 has",
        ),
        (
            "too large",
            good.clone(),
            rules(|rules| rules.max_message_bytes = 50),
            "TooLarge { size_bytes: 90, limit_bytes: 50 }",
        ),
        (
            "last offset delta",
            patched(good.clone(), 23, &(-1i32).to_be_bytes()),
            plain.clone(),
            "Batch has an invalid offset range: [0, -1] in topic partition topic-3.",
        ),
        (
            "count and offsets",
            patched(good.clone(), 23, &7i32.to_be_bytes()),
            plain.clone(),
            "Inconsistent batch offset range [0, 7] and count of records 3 in topic partition topic-3.",
        ),
        (
            "negative count",
            patched(good.clone(), 57, &(-3i32).to_be_bytes()),
            plain.clone(),
            "Invalid reported count for record batch: -3 in topic partition topic-3.",
        ),
        (
            "count of 0",
            patched(good.clone(), 57, &0i32.to_be_bytes()),
            plain.clone(),
            "Invalid reported count for record batch: 0 in topic partition topic-3.",
        ),
        (
            "control batch",
            marker,
            plain.clone(),
            "Clients are not allowed to write control records in topic partition topic-3.",
        ),
        (
            "sequence",
            stamped(-5),
            plain.clone(),
            "Invalid sequence number -5 in record batch with producerId 7 in topic partition topic-3.",
        ),
        (
            "idempotence in an old format",
            stamped(0),
            rules(|rules| rules.magic = Magic::V1),
            "UnsupportedForFormat { message: \"Idempotent records cannot be used with magic version 1",
        ),
        (
            "append time from a producer",
            three(builder().log_append_time(NOW)),
            plain.clone(),
            "Producer should not set timestamp type to LogAppendTime.",
        ),
        (
            "mixed magic",
            mixed,
            produce(2),
            "Batch magic 1 is not the same as the first batch'es magic byte 0",
        ),
        (
            "plain and compressed",
            compressed_after,
            produce(2),
            "Compressed outer record has more than one batch",
        ),
        (
            "zstd for an old format",
            three(builder()),
            rules(|rules| {
                rules.magic = Magic::V1;
                rules.compression = CompressionType::Always(Codec::Zstd);
            }),
            "ZStandard compression is not supported for magic 1",
        ),
    ];
    for (what, records, rules, expected) in cases {
        check_refused(what, records, rules, expected);
    }
}

#[test]
fn refused_records_are_named_by_their_index() {
    for codec in CODECS {
        let mut builder = builder().codec(codec);
        builder.append(NOW, None, Some(b"1"));
        builder.append(TimestampMs(5), Some(b"k"), Some(b"2"));
        builder.append(NOW, Some(b"k"), Some(b"3"));
        let bytes = builder.build();
        let compacted = rules(|rules| rules.compacted = true);
        let message = "Compacted topic cannot accept message without key in topic partition topic-3.";
        let refusal = |batch_index, message: &str| RecordRefusal {
            batch_index,
            message: Some(message.into()),
        };
        assert_eq!(
            strict(&bytes, &compacted).map(|_| ()),
            Err(InvalidRecords::Invalid {
                message: "One or more records have been rejected".into(),
                records: vec![refusal(0, message)],
            })
        );
        let bounded = rules(|rules| {
            rules.compacted = true;
            rules.timestamp_difference_max_ms = 1000;
        });
        let late = "Timestamp 5 of message with offset 1 is out of range. The timestamp should be within \
                    [999000, 1001000]";
        assert_eq!(
            strict(&bytes, &bounded).map(|_| ()),
            Err(InvalidRecords::Timestamp {
                message: "One or more records have been rejected due to invalid timestamp".into(),
                records: vec![refusal(0, message), refusal(1, late)],
            })
        );
    }
}

#[test]
fn of_very_many_refused_records_the_first_are_named() {
    let mut builder = builder();
    for _ in 0..=REFUSALS_MAX {
        builder.append(NOW, None, Some(b"without a key"));
    }
    let bytes = builder.build();
    match strict(&bytes, &rules(|rules| rules.compacted = true)) {
        Err(InvalidRecords::Invalid { records, .. }) => {
            let indexes: Vec<i32> = records.iter().map(|record| record.batch_index).collect();
            assert_eq!(indexes, (0..REFUSALS_MAX as i32).collect::<Vec<_>>());
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn records_that_are_broken_inside_a_sound_batch_are_invalid_with_and_without_a_codec() {
    // length, attributes, timestamp delta, offset delta, key length, value length, header count
    let whole = [12, 0, 0, 0, 1, 1, 0];
    let cases: &[(&str, u32, &[u8])] = &[
        ("too few records", 2, &whole),
        ("bytes after the last record", 1, &[12, 0, 0, 0, 1, 1, 0, 0]),
        ("a length beyond the batch", 1, &[126, 0, 0, 0, 1, 1, 0]),
        ("a negative length", 1, &[1, 0, 0, 0, 1, 1, 0]),
        ("a length of 0", 1, &[0]),
        (
            "a length that does not end",
            1,
            &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
        ),
        ("a record shorter than stated", 1, &[14, 0, 0, 0, 1, 1, 0, 0]),
        ("a key beyond the record", 1, &[12, 0, 0, 0, 126, 1, 0]),
        (
            "a huge key",
            1,
            &[20, 0, 0, 0, 0xfe, 0xff, 0xff, 0xff, 0x0f, 1, 0],
        ),
        ("a negative number of headers", 1, &[12, 0, 0, 0, 1, 1, 1]),
        (
            "a huge number of headers",
            1,
            &[20, 0, 0, 0, 1, 1, 0xfe, 0xff, 0xff, 0xff, 0x0f],
        ),
        ("a header without a key", 1, &[16, 0, 0, 0, 1, 1, 2, 1, 1]),
        (
            "a header value beyond the record",
            1,
            &[16, 0, 0, 0, 1, 1, 2, 0, 10],
        ),
        ("no records at all", 1, &[]),
        ("a count beyond the bytes", u32::MAX / 2, &whole),
    ];
    for (what, count, records) in cases {
        for codec in CODECS {
            let bytes = raw(*count, codec, records);
            for (level, target) in [(Level::Strict, None), (Level::Strict, Some(Codec::Gzip))] {
                let rules = rules(|rules| {
                    rules.compression = target.map_or(CompressionType::Producer, CompressionType::Always);
                });
                match validate(&bytes, &rules, NOW, level) {
                    Err(InvalidRecords::Invalid { .. }) => {}
                    other => panic!("{what} {codec:?}: {other:?}"),
                }
            }
        }
    }
    assert!(strict(&raw(1, Codec::None, &whole), &rules(|_| {})).is_ok());
}

#[test]
fn a_batch_that_may_stay_is_stamped_outside_its_crc_and_nothing_else_changes() {
    for codec in CODECS {
        let stamp = ProducerStamp {
            id: ProducerId(7),
            epoch: ProducerEpoch(2),
            base_sequence: Some(Sequence(i32::MAX)),
            last_sequence: Some(Sequence(1)),
        };
        let builder = builder().codec(codec).transactional(true);
        let bytes = three(builder.producer(stamp.id, stamp.epoch, stamp.base_sequence));
        for level in [Level::Strict, Level::Header] {
            let mut validated = validate(&bytes, &rules(|_| {}), NOW, level).unwrap();
            assert_eq!(validated.record_count(), 3);
            assert_eq!(validated.converted_record_count(), 0);
            for base in [100, 200] {
                assert_eq!(
                    validated.assign(Offset(base), LeaderEpoch(9)),
                    Ok(Offset(base + 3))
                );
                let mut expected = bytes.clone();
                expected[0..8].copy_from_slice(&base.to_be_bytes());
                expected[12..16].copy_from_slice(&9i32.to_be_bytes());
                assert_eq!(bytes_of(&validated), expected, "{codec:?} {level:?}");
                let header = validated.headers().next().unwrap();
                assert_eq!(header.producer, Some(stamp));
                assert_eq!(header.last_offset, Offset(base + 2));
                assert!(header.is_transactional);
            }
            assert_eq!(validated.max_timestamp(), TimestampMs(3000));
            let at = if codec == Codec::None && level == Level::Strict {
                201
            } else {
                202
            };
            assert_eq!(
                validated.offset_of_max_timestamp(),
                Some(Offset(at)),
                "{codec:?} {level:?}"
            );
            let tail = validated.io_slices().nth(1).unwrap().as_ptr();
            assert_eq!(
                tail,
                bytes[RECORD_BATCH_OVERHEAD..].as_ptr(),
                "the producer's own bytes"
            );
        }
    }
}

#[test]
fn a_wrong_max_timestamp_is_corrected_and_append_time_is_set_with_a_new_crc() {
    for codec in CODECS {
        let bytes = patched(three(builder().codec(codec)), 35, &9_999i64.to_be_bytes());
        let mut validated = strict(&bytes, &rules(|_| {})).unwrap();
        validated.assign(Offset(5), LeaderEpoch(0)).unwrap();
        let written = bytes_of(&validated);
        let batch = Batch::parse(&written).unwrap();
        assert_eq!(
            (batch.max_timestamp(), batch.verify_crc()),
            (TimestampMs(3000), Ok(()))
        );

        let append_time = rules(|rules| rules.timestamp_type = TimestampType::LogAppendTime);
        let mut validated = strict(&bytes, &append_time).unwrap();
        validated.assign(Offset(5), LeaderEpoch(0)).unwrap();
        let written = bytes_of(&validated);
        let batch = Batch::parse(&written).unwrap();
        assert_eq!((batch.max_timestamp(), batch.verify_crc()), (NOW, Ok(())));
        assert_eq!(batch.timestamp_type(), TimestampType::LogAppendTime);
        assert_eq!(validated.log_append_time(), Some(NOW));
        assert_eq!(validated.offset_of_max_timestamp(), Some(Offset(7)));
        let mut records = batch.records().unwrap();
        assert_eq!(records.next_record().unwrap().unwrap().timestamp, NOW);
    }
}

#[test]
fn offsets_that_are_not_dense_are_written_anew() {
    // two records with offset deltas 0 and 5
    let records = [12, 0, 0, 0, 1, 1, 0, 12, 0, 0, 10, 1, 1, 0];
    for codec in CODECS {
        let bytes = raw(2, codec, &records);
        let mut validated = strict(&bytes, &rules(|_| {})).unwrap();
        assert_eq!(validated.converted_record_count(), 2);
        validated.assign(Offset(40), LeaderEpoch(1)).unwrap();
        let written = bytes_of(&validated);
        let batch = Batch::parse(&written).unwrap();
        assert_eq!(batch.codec(), codec);
        let mut records = batch.records().unwrap();
        assert_eq!(records.next_record().unwrap().unwrap().offset, Offset(40));
        assert_eq!(records.next_record().unwrap().unwrap().offset, Offset(41));
        assert_eq!(records.next_record(), Ok(None));
    }
}

#[test]
fn a_coordinator_may_write_markers_which_stay_uncompressed() {
    let marker = ControlRecord {
        kind: ControlKind::Commit,
        coordinator_epoch: 12,
    };
    let bytes = RecordBatchBuilder::end_transaction_marker(marker, ProducerId(1), ProducerEpoch(0), NOW);
    let rules = rules(|rules| {
        rules.origin = AppendOrigin::Coordinator;
        rules.request = RequestRules::NONE;
        rules.compression = CompressionType::Always(Codec::Lz4);
    });
    let mut validated = strict(&bytes, &rules).unwrap();
    assert_eq!(validated.control_record(), Some(marker));
    validated.assign(Offset(8), LeaderEpoch(1)).unwrap();
    let header = validated.headers().next().unwrap();
    assert!(header.is_control && header.codec == Codec::None);
}

#[test]
fn a_rebuilt_batch_must_fit_too() {
    let mut builder = builder().codec(Codec::Zstd);
    for _ in 0..100 {
        builder.append(NOW, None, Some(&[b'x'; 1000]));
    }
    let bytes = builder.build();
    let rules = rules(|rules| {
        rules.compression = CompressionType::Always(Codec::None);
        rules.max_message_bytes = 50_000;
    });
    check_refused("grown", &bytes, &rules, "TooLarge");
}

#[test]
fn an_incomplete_batch_at_the_end_is_left_out() {
    let good = three(builder());
    let rules = rules(|_| {});
    for cut in [1, 11, 16, 60, good.len() - 1] {
        let bytes = [&good[..], &good[..cut]].concat();
        assert_eq!(strict(&bytes, &rules).unwrap().size_bytes(), good.len(), "{cut}");
    }
}

#[test]
fn a_small_batch_that_expands_to_hundreds_of_megabytes_is_checked_in_passing_and_not_rewritten() {
    // attributes, timestamp delta, offset delta, null key, value of 300 MiB, no headers
    let size = 300usize << 20;
    let mut value = Vec::new();
    write_varint(&mut value, i32::try_from(size).unwrap());
    let mut head = Vec::new();
    write_varint(&mut head, i32::try_from(4 + value.len() + size + 1).unwrap());
    head.extend([0, 0, 0, 1]);
    head.extend(value);
    let mut compressor = Compressor::new(Codec::Zstd, Magic::V2, Vec::new());
    compressor.write(&head);
    let zeros = vec![0; WINDOW_SIZE];
    for _ in 0..size / WINDOW_SIZE {
        compressor.write(&zeros);
    }
    compressor.write(&[0]);
    let bytes = around(1, Codec::Zstd, &compressor.finish());
    assert!(bytes.len() < 1 << 20);
    assert_eq!(
        strict(&bytes, &rules(|_| {})).map(|validated| validated.record_count()),
        Ok(1)
    );
    // to be rewritten it would have to be held in memory
    let gzip = rules(|rules| rules.compression = CompressionType::Always(Codec::Gzip));
    check_refused("rewritten", &bytes, &gzip, "expected a record of at most 256 MiB");
    // the same with a length that is one off
    let long = around(2, Codec::Zstd, &bytes[RECORD_BATCH_OVERHEAD..]);
    check_refused(
        "one record missing",
        &long,
        &rules(|_| {}),
        "the length of a record",
    );
}

fn arbitrary_record() -> impl Strategy<Value = (i64, Option<Vec<u8>>, Option<Vec<u8>>, u8)> {
    let bytes = || proptest::option::of(proptest::collection::vec(any::<u8>(), 0..300));
    (-1i64..1 << 45, bytes(), bytes(), 0u8..4)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_built_is_parsed_validated_and_read_back(
        records in proptest::collection::vec(arbitrary_record(), 1..40),
        codec in 0u8..5,
        magic in 0u8..3,
        base in 0i64..1 << 40,
        target in proptest::option::of(0u8..5),
    ) {
        let magic = [Magic::V0, Magic::V1, Magic::V2][usize::from(magic)];
        let codec = Codec::from_id(codec).unwrap();
        let target = target.and_then(Codec::from_id);
        let old = magic < Magic::V2;
        prop_assume!(!old || (codec != Codec::Zstd && target != Some(Codec::Zstd)));
        let mut builder = builder().magic(magic).codec(codec);
        let header = RecordHeader { key: b"name", value: Some(b"value") };
        let null = RecordHeader { key: b"", value: None };
        for (timestamp, key, value, headers) in &records {
            let headers: &[RecordHeader<'_>] = match headers {
                _ if old => &[],
                1 => &[header],
                2 => &[header, null],
                _ => &[],
            };
            builder.append_with_headers(TimestampMs(*timestamp), key.as_deref(), value.as_deref(), headers);
        }
        let bytes = builder.build();
        let rules = rules(|rules| {
            rules.magic = magic;
            rules.request = RequestRules::produce(2);
            rules.compression = target.map_or(CompressionType::Producer, CompressionType::Always);
        });
        // request version 2 is below 3: no rule on zstd or magic
        let mut validated = strict(&bytes, &rules).unwrap();
        let end = Offset(base + records.len() as i64);
        prop_assert_eq!(validated.assign(Offset(base), LeaderEpoch(4)), Ok(end));
        let written = bytes_of(&validated);
        let mut expected = records.iter().enumerate();
        for batch in batches(&written) {
            let batch = batch.unwrap();
            prop_assert_eq!(batch.verify_crc(), Ok(()));
            let mut found = batch.records().unwrap();
            while let Some(record) = found.next_record().unwrap() {
                let (index, (timestamp, key, value, headers)) = expected.next().unwrap();
                prop_assert_eq!(record.offset, Offset(base + index as i64));
                prop_assert_eq!(record.key, key.as_deref());
                prop_assert_eq!(record.value, value.as_deref());
                if magic > Magic::V0 {
                    prop_assert_eq!(record.timestamp, TimestampMs(*timestamp));
                }
                let count = if old { 0 } else { usize::from(*headers % 3) };
                prop_assert_eq!(record.headers.len(), count);
                prop_assert_eq!(record.headers.iter().count(), count);
            }
        }
        prop_assert!(expected.next().is_none());
    }
}
