//! Batches that no honest producer sends, with right checksums: each is refused by its name or read, and none
//! ends the process. The first tests are stories of bytes that once did.

use proptest::prelude::*;
use proptest::sample::Index;

use super::tests::{
    CODECS, NOW, around, builder, bytes_of, check_refused, patched, raw, rules, strict, three,
};
use super::*;
use crate::record_batch::compression::Compressor;
use crate::record_batch::varint::{write_varint, write_varlong};
use crate::record_batch::{BatchError, RECORD_BATCH_OVERHEAD, batches, convert_down};
use crate::units::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, Sequence};

fn compressed(codec: Codec, magic: Magic, bytes: &[u8]) -> Vec<u8> {
    let mut compressor = Compressor::new(codec, magic, Vec::new());
    compressor.write(bytes);
    compressor.finish()
}

/// One message of format v0 or v1 with a right checksum.
fn message(offset: i64, magic: u8, attributes: u8, timestamp: i64, value: Option<&[u8]>) -> Vec<u8> {
    let mut bytes = offset.to_be_bytes().to_vec();
    bytes.extend([0; 8]);
    bytes.extend([magic, attributes]);
    if magic > 0 {
        bytes.extend(timestamp.to_be_bytes());
    }
    bytes.extend((-1i32).to_be_bytes());
    bytes.extend(value.map_or(-1, |value| value.len() as i32).to_be_bytes());
    bytes.extend(value.unwrap_or_default());
    let size = bytes.len() as u32 - 12;
    bytes[8..12].copy_from_slice(&size.to_be_bytes());
    sealed(bytes)
}

/// The same with the checksum that its bytes have.
fn sealed(bytes: Vec<u8>) -> Vec<u8> {
    match bytes.get(16).copied() {
        Some(2) if bytes.len() >= RECORD_BATCH_OVERHEAD => patched(bytes, 16, &[2]),
        Some(magic) if magic != 2 => patched(bytes, 16, &[magic]),
        _ => bytes,
    }
}

/// A v2 record without key, value and headers.
fn record(offset_delta: i32) -> Vec<u8> {
    let mut body = vec![0, 0];
    write_varint(&mut body, offset_delta);
    body.extend([1, 1, 0]);
    let mut out = Vec::new();
    write_varint(&mut out, body.len() as i32);
    out.extend(body);
    out
}

#[test]
fn a_consumer_of_an_old_format_is_refused_a_batch_whose_offsets_lie_further_apart_than_2_to_the_31() {
    let far = |bytes: &[u8], target| match convert_down(bytes, target, Offset(0)) {
        Err(BatchError::Structure { expected, .. }) => assert!(expected.starts_with("offsets that increase")),
        other => panic!("{target:?}: {other:?}"),
    };
    // inner offsets of a v1 wrapper: 0 and 2^31, the wrapper's own is that of the last
    for codec in [Codec::Gzip, Codec::Snappy, Codec::Lz4] {
        let set = [message(0, 1, 0, 5, None), message(1 << 31, 1, 0, 5, None)].concat();
        let wrapper = message(
            1 << 31,
            1,
            codec as u8,
            5,
            Some(&compressed(codec, Magic::V1, &set)),
        );
        far(&wrapper, Magic::V0);
    }
    // offset deltas of a v2 batch: from the smallest to the largest
    let base = patched(
        raw(2, Codec::Gzip, &[record(i32::MIN), record(i32::MAX)].concat()),
        0,
        &(1i64 << 40).to_be_bytes(),
    );
    far(&base, Magic::V0);
    far(&base, Magic::V1);
    // and such that the offset would be negative
    let negative = raw(2, Codec::None, &[record(-7), record(0)].concat());
    let mut converted = convert_down(&negative, Magic::V1, Offset(0)).expect("the first is not asked for");
    converted.truncate(8);
    assert_eq!(converted, [0; 8]);
    far(&raw(1, Codec::Gzip, &record(-7)), Magic::V1);
}

#[test]
fn offsets_from_one_end_of_the_range_to_the_other_do_not_overflow_when_converted() {
    let set = [message(-5, 0, 0, 0, None), message(i64::MAX - 1, 0, 0, 0, None)].concat();
    let set = [&set[..], &message(i64::MAX, 1, 0, 0, None)[..]].concat();
    let wrapper = message(
        0,
        1,
        Codec::Gzip as u8,
        0,
        Some(&compressed(Codec::Gzip, Magic::V1, &set)),
    );
    assert!(matches!(
        convert_down(&wrapper, Magic::V0, Offset(0)),
        Err(BatchError::Structure { .. })
    ));
}

#[test]
fn a_batch_that_must_be_rewritten_names_a_whole_producer() {
    let stamped = three(builder().producer(ProducerId(7), ProducerEpoch(0), Some(Sequence(0))));
    let no_epoch = patched(stamped.clone(), 51, &(-1i16).to_be_bytes());
    let lowest_epoch = patched(stamped.clone(), 51, &i16::MIN.to_be_bytes());
    let no_producer = patched(three(builder()), 21, &[0, 0x10]);
    let plain = rules(|_| {});
    for target in [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
        let other = rules(|rules| rules.compression = CompressionType::Always(target));
        let expected = "Record batch with a producer id without an epoch in topic partition topic-3.";
        check_refused("epoch -1", &no_epoch, &other, expected);
        check_refused("the lowest epoch", &lowest_epoch, &other, expected);
        let expected = "Record batch with a transaction without a producer id in topic partition topic-3.";
        check_refused("no producer", &no_producer, &other, expected);
        let coordinator = rules(|rules| {
            rules.compression = CompressionType::Always(target);
            rules.origin = AppendOrigin::Coordinator;
        });
        let no_sequence = patched(stamped.clone(), 53, &(-1i32).to_be_bytes());
        check_refused(
            "no sequence",
            &no_sequence,
            &coordinator,
            "without a sequence number",
        );
    }
    // as in Kafka, what stays as it is stays
    for bytes in [&no_epoch, &lowest_epoch, &no_producer] {
        let mut validated = strict(bytes, &plain).expect("kept");
        validated
            .assign(Offset(0), LeaderEpoch(-1))
            .expect("offsets are left");
        assert_eq!(&bytes_of(&validated)[16..], &bytes[16..]);
    }
    // offsets with a gap have it rewritten
    let gap = [record(0), record(5)].concat();
    let gap = patched(raw(2, Codec::None, &gap), 43, &7i64.to_be_bytes());
    let gap = patched(gap, 51, &[0xff, 0xff, 0, 0, 0, 0]);
    check_refused("a gap", &gap, &plain, "without an epoch");
}

/// Numbers at which arithmetic goes wrong.
const EDGES: [i64; 11] = [
    -1,
    0,
    1,
    -2,
    (1 << 31) - 1,
    -1 << 31,
    1 << 31,
    -1 << 15,
    i64::MAX,
    i64::MAX - 1,
    i64::MIN,
];

fn number() -> impl Strategy<Value = i64> {
    prop_oneof![
        4 => prop::sample::select(&EDGES[..]).boxed(),
        2 => (0i64..5).boxed(),
        1 => any::<i64>().boxed()
    ]
}

/// Header fields of a v2 batch that the test overwrites: position and width.
const V2_FIELDS: [(usize, usize); 11] = [
    (0, 8),
    (12, 4),
    (21, 2),
    (23, 4),
    (27, 8),
    (35, 8),
    (43, 8),
    (51, 2),
    (53, 4),
    (57, 4),
    (8, 4),
];

/// The payload of a v2 batch: the numbers of each record are anything, its length is mostly right.
fn v2_payload() -> impl Strategy<Value = (u32, Vec<u8>)> {
    let mostly = |usual: i64| prop_oneof![6 => Just(Some(usual)), 1 => number().prop_map(Some)];
    let one = (
        prop_oneof![3 => Just(None), 1 => number().prop_map(Some)],
        number(),
        prop::collection::vec(mostly(-1), 3),
        mostly(0),
        prop::collection::vec(any::<u8>(), 0..3),
    );
    prop::collection::vec(one, 1..5).prop_map(|records| {
        let mut out = Vec::new();
        for (index, (offset, time, fields, headers, rest)) in records.iter().enumerate() {
            let mut body = vec![0];
            write_varlong(&mut body, *time);
            write_varint(&mut body, offset.unwrap_or(index as i64) as i32);
            for field in &fields[1..] {
                write_varint(&mut body, field.unwrap_or(-1) as i32);
            }
            write_varint(&mut body, headers.unwrap_or(0) as i32);
            if headers != &Some(0) {
                body.extend(rest);
            }
            write_varint(
                &mut out,
                fields[0]
                    .filter(|&length| length >= 0)
                    .unwrap_or(body.len() as i64) as i32,
            );
            out.extend(body);
        }
        (records.len() as u32, out)
    })
}

fn v2_batch() -> impl Strategy<Value = Vec<u8>> {
    let fields = prop::collection::vec((any::<Index>(), number()), 0..4);
    (v2_payload(), 0usize..5, fields).prop_map(|((count, payload), codec, fields)| {
        let mut bytes = around(
            count,
            CODECS[codec],
            &compressed(CODECS[codec], Magic::V2, &payload),
        );
        for (index, value) in fields {
            let (at, width) = V2_FIELDS[index.index(V2_FIELDS.len())];
            let value = if at == 21 {
                // keep the codec; time type, transaction and control bits are free
                (value << 3) | CODECS[codec] as i64
            } else {
                value
            };
            bytes[at..at + width].copy_from_slice(&value.to_be_bytes()[8 - width..]);
        }
        sealed(bytes)
    })
}

/// Messages of the formats v0 and v1, some of them wrappers around others, wrappers included.
fn message_set(depth: u32) -> BoxedStrategy<Vec<u8>> {
    let leaf = (
        number(),
        0u8..2,
        prop_oneof![5 => Just(0u8), 1 => any::<u8>()],
        number(),
    );
    let leaf = leaf.prop_map(|(offset, magic, attributes, time)| {
        message(offset, magic, attributes, time, Some(b"value"))
    });
    let one = if depth == 0 {
        leaf.boxed()
    } else {
        let wrapper = (
            message_set(depth - 1),
            number(),
            0u8..2,
            1usize..4,
            any::<bool>(),
            number(),
        );
        let wrapper = wrapper.prop_map(|(set, offset, magic, codec, append_time, time)| {
            let value = compressed(CODECS[codec], [Magic::V0, Magic::V1][usize::from(magic)], &set);
            let attributes = CODECS[codec] as u8 | u8::from(append_time) << 3;
            message(offset, magic, attributes, time, Some(&value))
        });
        prop_oneof![1 => leaf, 2 => wrapper].boxed()
    };
    prop::collection::vec(one, 1..4)
        .prop_map(|messages| messages.concat())
        .boxed()
}

/// How the topic wants it.
fn target() -> impl Strategy<Value = ValidationRules> {
    let origin = prop_oneof![Just(AppendOrigin::Client), Just(AppendOrigin::Coordinator)];
    (0usize..3, 0usize..6, any::<[bool; 3]>(), origin).prop_map(
        |(magic, codec, [append, bound, compact], origin)| {
            rules(|rules| {
                rules.magic = [Magic::V0, Magic::V1, Magic::V2][magic];
                rules.request = RequestRules::NONE;
                rules.origin = origin;
                rules.compacted = compact && codec == 0;
                rules.compression = CODECS
                    .get(codec)
                    .map_or(CompressionType::Producer, |&codec| CompressionType::Always(codec));
                if append {
                    rules.timestamp_type = TimestampType::LogAppendTime;
                }
                if bound {
                    rules.timestamp_difference_max_ms = 1000;
                }
            })
        },
    )
}

/// All that a broker does with a batch, whatever it is.
fn check_survives(bytes: &[u8], targets: &[ValidationRules]) {
    for batch in batches(bytes).flatten() {
        let _ = (
            batch.verify_crc(),
            batch.control_record(),
            batch.first_offset_deep(),
        );
        if let Ok(mut records) = batch.records() {
            while let Ok(Some(record)) = records.next_record() {
                assert_eq!(record.headers.iter().count(), record.headers.len());
            }
        }
    }
    for target in [Magic::V0, Magic::V1, Magic::V2] {
        for first in [0, 1, i64::MAX] {
            let _ = convert_down(bytes, target, Offset(first));
        }
    }
    for rules in targets {
        for level in [Level::Strict, Level::Header] {
            let Ok(mut validated) = validate(bytes, rules, NOW, level) else {
                continue;
            };
            let next = validated
                .assign(Offset(10), LeaderEpoch(1))
                .expect("offsets are left");
            let _ = (validated.offset_of_max_timestamp(), validated.headers().count());
            if level == Level::Header {
                continue;
            }
            let (written, mut offset) = (bytes_of(&validated), 10);
            for batch in batches(&written) {
                let batch = batch.expect("what is written is whole");
                assert_eq!((batch.magic(), batch.verify_crc()), (rules.magic, Ok(())));
                let mut records = batch.records().expect("what is written is read");
                while let Some(record) = records.next_record().expect("what is written is read") {
                    assert_eq!(record.offset, Offset(offset));
                    offset += 1;
                }
            }
            assert_eq!(Offset(offset), next);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_batch_of_lies_with_a_right_checksum_is_refused_or_read_but_never_crashes(
        honest in v2_batch(),
        targets in prop::collection::vec(target(), 4),
    ) {
        check_survives(&honest, &targets);
    }

    #[test]
    fn wrappers_of_wrappers_of_anything_are_refused_or_read_but_never_crash(
        set in message_set(2),
        targets in prop::collection::vec(target(), 4),
    ) {
        check_survives(&set, &targets);
    }

    #[test]
    fn any_byte_changed_behind_a_right_checksum_is_refused_or_read_but_never_crashes(
        codec in 0usize..5,
        magic in 0usize..3,
        changes in prop::collection::vec((any::<Index>(), any::<u8>()), 1..6),
        cut in prop::option::of(any::<Index>()),
        targets in prop::collection::vec(target(), 4),
    ) {
        let magic = [Magic::V0, Magic::V1, Magic::V2][magic];
        prop_assume!(magic == Magic::V2 || CODECS[codec] != Codec::Zstd);
        let mut bytes = three(builder().magic(magic).codec(CODECS[codec]));
        for (index, value) in changes {
            let index = index.index(bytes.len());
            bytes[index] = value;
        }
        match cut {
            None => bytes = sealed(bytes),
            Some(cut) => bytes.truncate(cut.index(bytes.len())),
        }
        check_survives(&bytes, &targets);
    }
}
