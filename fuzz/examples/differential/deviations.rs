//! Where Milena may differ from Kafka's classes, each with its reason and a case that shows it. Whatever differs
//! otherwise is a fault.

use milena_server::group::records::read_group_value;
use milena_server::group::subscription::subscribed_topics;
use milena_server::protocol::{ApiKey, supported_versions};

use crate::cases::{Case, Kind};

pub(crate) struct Deviation {
    pub(crate) name: &'static str,
    pub(crate) reason: &'static str,
    /// Whether this is the difference, given both texts.
    pub(crate) is_it: fn(&Case, &Difference<'_>) -> bool,
    /// Bytes that show it; asked first in every run, so that an entry that is no longer true fails.
    pub(crate) example: fn() -> Case,
}

/// The first piece of two texts that differs: a batch, or all of it.
pub(crate) struct Difference<'a> {
    pub(crate) ours: &'a str,
    pub(crate) kafkas: &'a str,
}

pub(crate) const DEVIATIONS: &[Deviation] = &[
    Deviation {
        name: "a header that cannot be",
        reason: "a batch with an unknown codec, a negative count, too short a length, or offsets that are negative or \
                 go back is refused as it is parsed, and what follows it is not looked at; Kafka's view is lazy, and \
                 its broker refuses the same where it is produced (LogValidator), negative base offsets apart, which \
                 no client sends",
        is_it: |case, difference| {
            let states = [
                "has base offset",
                "has record count",
                "has compression codec",
                "states a length",
            ];
            case.kind == Kind::Batches
                && difference.ours.starts_with("!batch")
                && states.iter().any(|stated| difference.ours.contains(stated))
        },
        example: || batch(|header| header[57..61].fill(0xff)),
    },
    Deviation {
        name: "a length that overflows",
        reason: "near 2 GiB, length and overhead are a negative number to Kafka and an error; here the batch is not all \
                 there",
        is_it: |case, difference| {
            case.kind == Kind::Batches
                && difference.ours.is_empty()
                && difference.kafkas == "!batch IllegalArgumentException"
        },
        example: || {
            let mut case = batch(|_| {});
            case.bytes[8..12].copy_from_slice(&0x7fff_ffffu32.to_be_bytes());
            case
        },
    },
    Deviation {
        name: "inner messages of an unknown format",
        reason: "a message in a compressed set of v0 or v1 has that format or the other; Kafka's iterator reads \
                 whatever is there by the wrapper's eyes, and its broker refuses what differs from the wrapper",
        is_it: |case, difference| {
            case.kind == Kind::Batches
                && difference.ours.contains("!records batch at byte ")
                && difference.ours.contains(" has magic ")
                && !difference.kafkas.contains('!')
        },
        example: || {
            in_a_set(|set| {
                set[11] += 8;
                set[16] = 9;
                set.extend([0xff; 8]);
            })
        },
    },
    Deviation {
        name: "memory by a length",
        reason: "the iterator of v0 and v1 allocates what an inner message states before it reads it, and dies of it; \
                 with a larger heap it ends the set there, as Milena does",
        is_it: |case, difference| {
            case.kind == Kind::Batches
                && difference.kafkas.contains("!records OutOfMemoryError")
                && difference.ours.starts_with("{magic=")
        },
        example: || in_a_set(|set| set.extend([0, 0, 0, 0, 0, 0, 0, 0, 0x0f, 0, 0, 0])),
    },
    Deviation {
        name: "an lz4 distance of 0",
        reason: "the specification forbids it and lz4_flex refuses it; lz4-java copies what lies there",
        is_it: |case, difference| {
            case.kind == Kind::Batches
                && difference.ours.contains("codec=lz4")
                && difference.ours.contains("a block is broken")
                && !difference.kafkas.contains('!')
        },
        example: || wrapper(3, ZERO_DISTANCE),
    },
    Deviation {
        name: "a zstd stream that a newer library refuses",
        reason: "the reference library of today looks closer at tables than 1.4.5, which Kafka brings along; no encoder \
                 writes what it refuses",
        is_it: |case, difference| {
            case.kind == Kind::Batches
                && difference.ours.contains("codec=zstd")
                && difference.ours.contains("the zstd stream is broken")
                && !difference.kafkas.contains('!')
        },
        example: || Case {
            kind: Kind::Batches,
            bytes: READ_BY_ZSTD_1_4.to_vec(),
        },
    },
    Deviation {
        name: "a gzip stream that reaches before its beginning",
        reason: "Java's inflater refuses it; ours reads zeros there, and the checksum and the size behind the stream \
                 hold over what comes out",
        is_it: |case, difference| {
            case.kind == Kind::Batches
                && difference.ours.contains("codec=gzip")
                && !difference.ours.contains('!')
                && difference.kafkas.contains("!records")
        },
        example: || wrapper(1, BEFORE_THE_BEGINNING),
    },
    Deviation {
        name: "offsets of a set that overflow",
        reason: "an inner offset so far below 0 that the base of a v1 set is none is refused; Kafka counts on beyond the \
                 largest offset, from the smallest",
        is_it: |case, difference| {
            case.kind == Kind::Batches
                && difference
                    .ours
                    .contains("a wrapper offset not below that of the last inner message")
                && difference.kafkas.contains(" (-9")
        },
        example: || {
            in_a_set(|set| {
                let first = set.clone();
                set[..8].copy_from_slice(&i64::MIN.to_be_bytes());
                set.splice(0..0, first);
            })
        },
    },
    Deviation {
        name: "an encoded surrogate",
        reason: "no UTF-8, and three U+FFFD to Rust, one for each byte; Java has one for the three \
                 (server/src/protocol/schema.rs)",
        is_it: |case, difference| {
            let is_surrogate = |pair: &[u8]| pair[0] == 0xed && pair[1] >= 0xa0;
            case.bytes.windows(2).any(is_surrogate) && once(difference.ours) == once(difference.kafkas)
        },
        example: || Case {
            kind: Kind::Assignment,
            bytes: vec![
                0, 0, 0, 0, 0, 1, 0, 3, 0xed, 0xa0, 0x80, 0, 0, 0, 1, 0, 0, 0, 7, 0xff, 0xff, 0xff, 0xff,
            ],
        },
    },
    Deviation {
        name: "a group whose member's subscription is none",
        reason: "the group is loaded, and its topics are unknown; in 2.7.2 the exception ends the load of the partition \
                 (server/src/group/loading.rs)",
        is_it: |case, difference| {
            case.kind == Kind::Group
                && difference.ours.starts_with("{type=\"636f6e73756d6572\"")
                && difference.kafkas.starts_with("!read")
                && read_group_value(&case.bytes).is_ok_and(|group| {
                    let mut members = group.members.iter();
                    members.any(|member| subscribed_topics(&member.subscription).is_err())
                })
        },
        example: || {
            let mut bytes = vec![0, 0, 0, 8];
            bytes.extend(b"consumer");
            bytes.extend([
                0, 0, 0, 1, 0, 1, b'p', 0, 1, b'm', 0, 0, 0, 1, 0, 1, b'm', 0, 1, b'c', 0, 1, b'h',
            ]);
            // session timeout, a subscription with the length of user data that is not there, no assignment
            bytes.extend([0, 0, 0, 9, 0, 0, 0, 10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0]);
            let kind = Kind::Group;
            Case { kind, bytes }
        },
    },
    Deviation {
        name: "an API that is not served",
        reason: "Kafka closes the connection of a request that it does not know; which ones Milena does not know stands \
                 in server/src/protocol.rs",
        is_it: |case, difference| {
            let key = case.bytes.first_chunk::<2>().map(|key| i16::from_be_bytes(*key));
            case.kind == Kind::Request
                && difference.ours.starts_with("!header")
                && key
                    .and_then(ApiKey::from_id)
                    .is_some_and(|key| supported_versions(key).is_none())
        },
        example: || request(&[0, 17, 0, 1, 0, 0, 0, 1, 0xff, 0xff, 0, 1, b'm']),
    },
    Deviation {
        name: "tags of a header out of order",
        reason: "2.7.2 looks at the order of tags in a body and not in a header; here both are looked at",
        is_it: |case, difference| {
            case.kind == Kind::Request
                && difference
                    .ours
                    .starts_with("!header RequestHeader.(tagged fields)")
                && difference.ours.contains("expected a tag above")
        },
        example: || request(&[0, 18, 0, 3, 0, 0, 0, 1, 0xff, 0xff, 2, 0, 0, 0, 0, 1, 1, 0]),
    },
    Deviation {
        name: "a tagged field that is not as long as it states",
        reason: "2.7.2 does not compare the size of a known tagged field with its value (server/src/protocol/schema.rs)",
        is_it: |case, difference| {
            // those that have tagged fields
            let key = case.bytes.first_chunk::<2>().map(|key| i16::from_be_bytes(*key));
            let is_one =
                matches!(key, Some(1 | 18 | 19)) && matches!(case.kind, Kind::Request | Kind::Response);
            is_one
                && difference.ours.starts_with("!read")
                && (difference.ours.contains("to end with its value")
                    || TAGGED.iter().any(|place| difference.ours.contains(place)))
                && !difference.kafkas.starts_with('!')
        },
        // Fetch v12: no topics, none forgotten, no rack, and a cluster id of 1 byte in 3
        example: || {
            request(&[
                0, 1, 0, 12, 0, 0, 0, 1, 0xff, 0xff, 0, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
                0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 0, 3, 2, b'c', 0,
            ])
        },
    },
    Deviation {
        name: "a Produce whose records are no batch",
        reason: "answered for its partition; Kafka closes the connection",
        is_it: |case, difference| meaning(case, difference, 0),
        example: || {
            request(&[
                0, 0, 0, 3, 0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 1, b't', 0,
                0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0,
            ])
        },
    },
    Deviation {
        name: "a CreateAcls with an unknown word",
        reason: "answered SECURITY_DISABLED, as any other; Kafka closes the connection",
        is_it: |case, difference| meaning(case, difference, 30),
        example: || {
            request(&[
                0, 30, 0, 0, 0, 0, 0, 1, 0xff, 0xff, 0, 0, 0, 1, 0, 0, 1, b't', 0, 1, b'p', 0, 1, b'h', 0, 0,
            ])
        },
    },
    Deviation {
        name: "an UpdateMetadata with an unknown security protocol",
        reason: "the connection is closed by who would obey it, as Kafka closes it where it is read",
        is_it: |case, difference| meaning(case, difference, 6),
        // UpdateMetadata v1: controller 0 of epoch 1, no partitions, a broker with one endpoint
        example: || {
            request(&[
                0, 6, 0, 1, 0, 0, 0, 1, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0,
                0, 0, 0, 0, 1, 0, 0, 0x23, 0x84, 0, 1, b'h', 0x7e, 0x6b,
            ])
        },
    },
];

/// Where the size of a tagged field is found to be wrong.
const TAGGED: [&str; 11] = [
    "(tagged fields)",
    ".cluster_id ",
    ".diverging_epoch ",
    ".current_leader ",
    "EpochEndOffset.",
    "LeaderIdAndEpoch.",
    ".topic_config_error_code ",
    ".supported_features ",
    ".finalized_features",
    "SupportedFeatureKey.",
    "FinalizedFeatureKey.",
];
/// A batch whose stream zstd-jni 1.4.5 reads; found by this test.
const READ_BY_ZSTD_1_4: &[u8] = include_bytes!("zstd_1_4.bin");
/// A message of v0 in an LZ4 frame: 12 literals, a match of 4 at distance 0, 10 literals.
const ZERO_DISTANCE: &[u8] = &[
    4, 0x22, 0x4d, 0x18, 0x60, 0x40, 0, 26, 0, 0, 0, 0xc0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 14, 0, 0, 0xa0,
    0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0,
];
/// A message of v0, gzipped by hand: its first 11 zeros are copied from distance 1.
const BEFORE_THE_BEGINNING: &[u8] = &[
    0x1f, 0x8b, 0x08, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0xff, 0x43, 0x02, 0x7c, 0x8c, 0x4c, 0xcc, 0x2c,
    0x0c, 0x0c, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x00, 0x7d, 0x53, 0xed, 0x3c, 0x1a,
    0x00, 0x00, 0x00,
];

/// The text with one U+FFFD where there are several.
fn once(text: &str) -> String {
    let mut text = text.to_owned();
    while text.contains("efbfbdefbfbd") {
        text = text.replace("efbfbdefbfbd", "efbfbd");
    }
    text
}

/// Whether Kafka's classes read the same fields of this API and then refuse what they say.
fn meaning(case: &Case, difference: &Difference<'_>, key: u8) -> bool {
    let refused = difference.kafkas.strip_prefix(difference.ours);
    case.kind == Kind::Request
        && case.bytes[..2] == [0, key]
        && refused.is_some_and(|rest| rest.starts_with(" !meaning"))
}

fn request(frame: &[u8]) -> Case {
    Case {
        kind: Kind::Request,
        bytes: frame.to_vec(),
    }
}

/// A v2 batch without records whose header was changed.
fn batch(change: fn(&mut [u8])) -> Case {
    let mut bytes = vec![0; 61];
    bytes[8..12].copy_from_slice(&49u32.to_be_bytes());
    bytes[16] = 2;
    bytes[43..57].fill(0xff);
    change(&mut bytes);
    milena_fuzz::seal(&mut bytes);
    let kind = Kind::Batches;
    Case { kind, bytes }
}

/// A message of v0 around a compressed set.
fn wrapper(codec: u8, value: &[u8]) -> Case {
    let mut bytes = vec![0; 12];
    bytes.extend([0, 0, 0, 0, 0, codec, 0xff, 0xff, 0xff, 0xff]);
    bytes.extend((value.len() as u32).to_be_bytes());
    bytes.extend(value);
    let size = bytes.len() as u32 - 12;
    bytes[8..12].copy_from_slice(&size.to_be_bytes());
    milena_fuzz::seal(&mut bytes);
    let kind = Kind::Batches;
    Case { kind, bytes }
}

/// A message of v0, changed, in a set that snappy compresses into a message of v1.
fn in_a_set(change: fn(&mut Vec<u8>)) -> Case {
    const SHAPE: [u8; 2] = [0x67, 0];
    let mut set = vec![0; 26];
    set[11] = 14;
    set[18..].fill(0xff);
    change(&mut set);
    let kind = Kind::Batches;
    let bytes = milena_fuzz::shaped_batches(&[&SHAPE[..], &set].concat());
    Case { kind, bytes }
}
