//! The codec against another one: every message of the served APIs, request and response, in every version of
//! 2.7.2.
//!
//! The judge is the crate `kafka-protocol`, which is generated from Kafka's own message definitions. Values
//! are made up from a seed, as bytes, by a third and very plain encoder that walks the declarations
//! (`schema`):
//! - both codecs must read them, agree on every field by name, and write the same bytes again, in both
//!   directions;
//! - tagged fields that nobody knows must change nothing;
//! - truncated, mutated and arbitrary bytes must give an error or a value that can be walked, and never a
//!   panic.
//!
//! What the judge cannot say: Kafka has renamed fields and structs since 2.7.2 (`RENAMED`), and its newer
//! definitions allow null in a few places where 2.7.2 does not. A field that is absent is compared as
//! "nothing", be it null or empty.

use std::fmt;
use std::ops::RangeInclusive;

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages as oracle;
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion};
use milena_server::protocol::messages as ours;
use milena_server::protocol::schema::{Encoding, FieldSchema, StructSchema, TypeSchema};
use milena_server::protocol::{ApiKey, Message, Reader, SERVED, Writer};

/// Struct and field as 2.7.2 calls them, and the field as the judge does.
const RENAMED: &[(&str, &str, &str)] = &[
    ("ProduceRequest", "topics", "topic_data"),
    ("TopicProduceData", "partitions", "partition_data"),
    ("PartitionProduceData", "partition_index", "index"),
    ("TopicProduceResponse", "partitions", "partition_responses"),
    ("PartitionProduceResponse", "partition_index", "index"),
    ("FetchableTopicResponse", "partition_responses", "partitions"),
    ("FetchablePartitionResponse", "partition", "partition_index"),
    ("FetchablePartitionResponse", "record_set", "records"),
    (
        "OffsetCommitRequest",
        "generation_id",
        "generation_id_or_member_epoch",
    ),
    ("OffsetForLeaderTopic", "name", "topic"),
    ("OffsetForLeaderPartition", "partition_index", "partition"),
    ("OffsetForLeaderTopicResult", "name", "topic"),
    ("OffsetForLeaderPartitionResult", "partition_index", "partition"),
    ("DescribableLogDirTopic", "partition_index", "partitions"),
];

/// What a codec made of bytes: how it prints the value, and the bytes it writes for it.
type Verdict = Result<(String, Vec<u8>), String>;

/// One message with both codecs.
struct Case {
    name: &'static str,
    body: StructSchema,
    versions: RangeInclusive<i16>,
    flexible_from: i16,
    ours: fn(&[u8], i16) -> Verdict,
    oracle: fn(&[u8], i16) -> Verdict,
}

fn by_ours<'a, M: Message<'a>>(bytes: &'a [u8], version: i16) -> Verdict {
    let mut reader = Reader::new(bytes);
    let value = M::decode(&mut reader, version).map_err(|e| e.to_string())?;
    if reader.remaining() != 0 {
        return Err(format!("{} bytes left", reader.remaining()));
    }
    let mut writer = Writer::new();
    value.encode(&mut writer, version).map_err(|e| e.to_string())?;
    Ok((format!("{value:?}"), writer.as_slice().to_vec()))
}

fn by_oracle<M: Decodable + Encodable + fmt::Debug>(bytes: &[u8], version: i16) -> Verdict {
    let mut input = Bytes::copy_from_slice(bytes);
    let value = M::decode(&mut input, version).map_err(|e| format!("{e:#}"))?;
    if !input.is_empty() {
        return Err(format!("{} bytes left", input.len()));
    }
    let mut output = BytesMut::new();
    value.encode(&mut output, version).map_err(|e| format!("{e:#}"))?;
    Ok((format!("{value:?}"), output.to_vec()))
}

macro_rules! cases {
    ($($ours:ident = $oracle:ident),* $(,)?) => {
        vec![$(Case {
            name: stringify!($ours),
            body: ours::$ours::SCHEMA,
            versions: <ours::$ours as Message>::VERSIONS,
            flexible_from: <ours::$ours as Message>::SCHEMA.flexible_from,
            ours: |bytes, version| by_ours::<ours::$ours>(bytes, version),
            oracle: by_oracle::<oracle::$oracle>,
        }),*]
    };
}

macro_rules! same {
    ($($name:ident),* $(,)?) => { cases![$($name = $name),*] };
}

fn messages() -> Vec<Case> {
    let mut cases = same![
        ProduceRequest,
        ProduceResponse,
        FetchRequest,
        FetchResponse,
        MetadataRequest,
        MetadataResponse,
        OffsetCommitRequest,
        OffsetCommitResponse,
        OffsetFetchRequest,
        OffsetFetchResponse,
        FindCoordinatorRequest,
        FindCoordinatorResponse,
        JoinGroupRequest,
        JoinGroupResponse,
        HeartbeatRequest,
        HeartbeatResponse,
        LeaveGroupRequest,
        LeaveGroupResponse,
        SyncGroupRequest,
        SyncGroupResponse,
        DescribeGroupsRequest,
        DescribeGroupsResponse,
        ListGroupsRequest,
        ListGroupsResponse,
        ApiVersionsRequest,
        ApiVersionsResponse,
        CreateTopicsRequest,
        CreateTopicsResponse,
        DeleteTopicsRequest,
        DeleteTopicsResponse,
        DeleteRecordsRequest,
        DeleteRecordsResponse,
        InitProducerIdRequest,
        InitProducerIdResponse,
        OffsetForLeaderEpochRequest,
        OffsetForLeaderEpochResponse,
        DescribeAclsRequest,
        DescribeAclsResponse,
        CreateAclsRequest,
        CreateAclsResponse,
        DeleteAclsRequest,
        DeleteAclsResponse,
        DescribeConfigsRequest,
        DescribeConfigsResponse,
        AlterConfigsRequest,
        AlterConfigsResponse,
        DescribeLogDirsRequest,
        DescribeLogDirsResponse,
        CreatePartitionsRequest,
        CreatePartitionsResponse,
        DeleteGroupsRequest,
        DeleteGroupsResponse,
        IncrementalAlterConfigsRequest,
        IncrementalAlterConfigsResponse,
        OffsetDeleteRequest,
        OffsetDeleteResponse,
    ];
    cases.extend(cases![
        ListOffsetRequest = ListOffsetsRequest,
        ListOffsetResponse = ListOffsetsResponse,
    ]);
    cases
}

macro_rules! consumer_protocol_case {
    ($name:ident) => {
        Case {
            name: stringify!($name),
            body: ours::$name::SCHEMA,
            versions: 0..=1,
            flexible_from: i16::MAX,
            ours: |bytes, version| {
                let prefixed = [&version.to_be_bytes(), bytes].concat();
                let value = ours::$name::decode(&prefixed).map_err(|e| e.to_string())?;
                let mut writer = Writer::new();
                value.encode(&mut writer, version).map_err(|e| e.to_string())?;
                Ok((format!("{value:?}"), writer.as_slice()[2..].to_vec()))
            },
            oracle: by_oracle::<oracle::$name>,
        }
    };
}

fn all_cases() -> Vec<Case> {
    let mut cases = messages();
    cases.push(consumer_protocol_case!(ConsumerProtocolSubscription));
    cases.push(consumer_protocol_case!(ConsumerProtocolAssignment));
    cases
}

/// SplitMix64.
#[derive(Clone)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}

/// Makes up values of a declared type and writes them down, knowing nothing of the codec.
struct Generator {
    random: Random,
    encoding: Encoding,
    /// Whether every struct gets a tagged field that nobody knows.
    unknown_tags: bool,
    out: Vec<u8>,
}

impl Generator {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.out.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.out.push(value as u8);
    }

    fn length(&mut self, length: i64, width: usize) {
        if self.encoding.flexible {
            self.varint((length + 1) as u64);
        } else {
            self.out.extend_from_slice(&length.to_be_bytes()[8 - width..]);
        }
    }

    /// A length that now and then needs a varint of two bytes.
    fn size(&mut self, empty: bool) -> usize {
        let size = match self.random.below(8) {
            0 => 0,
            1 => 100 + self.random.below(200),
            _ => 1 + self.random.below(12),
        };
        if empty {
            size as usize
        } else {
            size.max(1) as usize
        }
    }

    fn integer(&mut self, width: usize, trivial: bool) {
        let value = match self.random.below(6) {
            0 if trivial => 0,
            1 if trivial => -1,
            2 => i64::MAX >> (64 - 8 * width),
            3 => i64::MIN >> (64 - 8 * width),
            // Not 0 or −1, which are the defaults of tagged fields.
            _ => self.random.next() as i64 & !4 | 2,
        };
        self.out.extend_from_slice(&value.to_be_bytes()[8 - width..]);
    }

    /// `trivial`: whether the value may be one that looks like a default.
    fn value(&mut self, of: &TypeSchema, null: bool, trivial: bool) {
        match of {
            TypeSchema::Bool => {
                let value = self.random.below(2) as u8;
                self.out.push(value);
            }
            TypeSchema::Int8 => self.integer(1, trivial),
            TypeSchema::Int16 => self.integer(2, trivial),
            TypeSchema::Int32 => self.integer(4, trivial),
            TypeSchema::Int64 => self.integer(8, trivial),
            TypeSchema::String => {
                let count = self.size(trivial);
                let alphabet = ['a', 'Z', '0', '.', '-', '_', 'é', '世', '"', '\\'];
                let text: String = (0..count)
                    .map(|_| alphabet[self.random.below(alphabet.len() as u64) as usize])
                    .collect();
                self.length(text.len() as i64, 2);
                self.out.extend_from_slice(text.as_bytes());
            }
            TypeSchema::Bytes | TypeSchema::Records => {
                let count = self.size(trivial);
                self.length(count as i64, 4);
                for _ in 0..count {
                    let byte = self.random.next() as u8;
                    self.out.push(byte);
                }
            }
            TypeSchema::Array(element) => {
                let count = if trivial {
                    self.random.below(4)
                } else {
                    1 + self.random.below(3)
                };
                self.length(count as i64, 4);
                for _ in 0..count {
                    self.value(element, false, trivial);
                }
            }
            TypeSchema::Nullable(of) => {
                if null && trivial && self.random.below(3) == 0 {
                    let width = if matches!(of, TypeSchema::String) { 2 } else { 4 };
                    self.length(-1, width);
                } else {
                    self.value(of, null, trivial);
                }
            }
            TypeSchema::Struct(of) => self.fields(of, trivial),
        }
    }

    fn field(&mut self, field: &FieldSchema, trivial: bool) {
        let null = field.rule.nullable.contains(self.encoding.version);
        self.value(&field.field_type, null, trivial);
    }

    fn fields(&mut self, of: &StructSchema, trivial: bool) {
        let present = |f: &&FieldSchema| f.rule.versions.contains(self.encoding.version);
        let (tagged, in_line): (Vec<_>, Vec<_>) = of
            .fields
            .iter()
            .filter(present)
            .partition(|f| f.rule.tag.is_some());
        for field in in_line {
            self.field(field, trivial);
        }
        if !self.encoding.flexible {
            assert!(
                tagged.is_empty(),
                "{} has tagged fields in a version that has none",
                of.name
            );
            return;
        }
        let chosen: Vec<_> = tagged.into_iter().filter(|_| self.random.below(2) == 0).collect();
        self.varint(chosen.len() as u64 + u64::from(self.unknown_tags));
        for field in chosen {
            let tag = field.rule.tag.expect("it was chosen among those with a tag");
            self.varint(u64::from(tag));
            let outer = std::mem::take(&mut self.out);
            self.field(field, false);
            let value = std::mem::replace(&mut self.out, outer);
            self.varint(value.len() as u64);
            self.out.extend_from_slice(&value);
        }
        if self.unknown_tags {
            self.varint(40_000);
            self.varint(3);
            self.out.extend_from_slice(&[0xff, 0, 0x80]);
        }
    }
}

fn generate(case: &Case, version: i16, seed: u64, unknown_tags: bool) -> Vec<u8> {
    let encoding = Encoding {
        version,
        flexible: version >= case.flexible_from,
    };
    let mut generator = Generator {
        random: Random(seed),
        encoding,
        unknown_tags,
        out: Vec::new(),
    };
    generator.fields(&case.body, true);
    generator.out
}

/// A printed value, so far as it can be compared.
#[derive(PartialEq, Debug)]
enum Printed {
    /// Null, or empty.
    Nothing,
    Atom(String),
    List(Vec<Printed>),
    Struct(Vec<(String, Printed)>),
}

/// Reads what `{:?}` of derived implementations prints.
struct Parser<'s> {
    text: &'s str,
}

impl<'s> Parser<'s> {
    fn eat(&mut self, token: &str) -> bool {
        match self.text.strip_prefix(token) {
            Some(rest) => {
                self.text = rest;
                true
            }
            None => false,
        }
    }

    /// The inside of a string literal that has been opened, escapes as they are.
    fn literal(&mut self) -> &'s str {
        let mut escaped = false;
        let end = self.text.find(|c| {
            let end = c == '"' && !escaped;
            escaped = c == '\\' && !escaped;
            end
        });
        let (inside, rest) = self.text.split_at(end.expect("a string literal ends"));
        self.text = &rest[1..];
        inside
    }

    fn value(&mut self) -> Printed {
        if self.eat("b\"") {
            let bytes = unescape(self.literal());
            return list(bytes.iter().map(|byte| Printed::Atom(byte.to_string())).collect());
        }
        if self.eat("\"") {
            let text = self.literal();
            return if text.is_empty() {
                Printed::Nothing
            } else {
                Printed::Atom(text.to_owned())
            };
        }
        if self.eat("[") {
            let mut elements = Vec::new();
            while !self.eat("]") {
                elements.push(self.value());
                self.eat(", ");
            }
            return list(elements);
        }
        if self.eat("{}") {
            return Printed::Nothing;
        }
        let end = self
            .text
            .find([',', ' ', ')', ']', '}', '('])
            .unwrap_or(self.text.len());
        let (word, rest) = self.text.split_at(end);
        self.text = rest;
        if self.eat("(") {
            // `Some`, or a newtype.
            let inner = self.value();
            assert!(self.eat(")"), "more than one value in {word}");
            return inner;
        }
        if self.eat(" { ") {
            let mut fields = Vec::new();
            while !self.eat(" }") {
                let colon = self.text.find(": ").expect("a field has a name");
                let name = self.text[..colon].to_owned();
                self.text = &self.text[colon + 2..];
                fields.push((name, self.value()));
                self.eat(", ");
            }
            return Printed::Struct(fields);
        }
        match word {
            "None" | "Null" => Printed::Nothing,
            _ => Printed::Atom(word.to_owned()),
        }
    }
}

fn list(elements: Vec<Printed>) -> Printed {
    if elements.is_empty() {
        Printed::Nothing
    } else {
        Printed::List(elements)
    }
}

/// The bytes of a byte string literal as the crate `bytes` prints it.
fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut chars = text.bytes();
    while let Some(byte) = chars.next() {
        if byte != b'\\' {
            bytes.push(byte);
            continue;
        }
        bytes.push(match chars.next().expect("an escape has a letter") {
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'0' => 0,
            b'x' => {
                let digits = [chars.next(), chars.next()].map(|digit| digit.expect("two digits") as char);
                u8::from_str_radix(&String::from_iter(digits), 16).expect("hexadecimal digits")
            }
            other => other,
        });
    }
    bytes
}

fn parse(text: &str) -> Printed {
    let mut parser = Parser { text };
    let value = parser.value();
    assert_eq!(parser.text, "", "unread");
    value
}

/// Compares a value of ours, whose type is known, with the judge's, field by field.
fn compare(of: &StructSchema, ours: &Printed, theirs: &Printed, path: &str) {
    let (Printed::Struct(mine), Printed::Struct(others)) = (ours, theirs) else {
        assert_eq!(ours, theirs, "{path}");
        return;
    };
    for field in of.fields {
        let path = format!("{path}.{}", field.name);
        let renamed = RENAMED
            .iter()
            .find(|(name, old, _)| *name == of.name && *old == field.name);
        let their_name = renamed.map_or(field.name, |(_, _, new)| new);
        let find = |fields: &'_ [(String, Printed)], name: &str| fields.iter().position(|(n, _)| n == name);
        let mine = &mine[find(mine, field.name).expect("our own field")].1;
        let Some(position) = find(others, their_name) else {
            panic!("{path}: the judge has no {their_name}")
        };
        compare_values(&field.field_type, mine, &others[position].1, &path);
    }
}

fn compare_values(of: &TypeSchema, ours: &Printed, theirs: &Printed, path: &str) {
    match (of, ours, theirs) {
        (TypeSchema::Nullable(of), _, _) => compare_values(of, ours, theirs, path),
        (TypeSchema::Struct(of), _, _) => compare(of, ours, theirs, path),
        (TypeSchema::Array(element), Printed::List(mine), Printed::List(others)) => {
            assert_eq!(mine.len(), others.len(), "{path}");
            for (mine, other) in mine.iter().zip(others) {
                compare_values(element, mine, other, path);
            }
        }
        _ => assert_eq!(ours, theirs, "{path}"),
    }
}

/// Calls `check` with every message, every version and several seeds.
fn for_each_version(seeds: u64, check: impl Fn(&Case, i16, u64)) {
    for (number, case) in all_cases().iter().enumerate() {
        for version in case.versions.clone() {
            for seed in 0..seeds {
                check(case, version, seed << 32 | (number as u64) << 8 | version as u64);
            }
        }
    }
}

#[test]
fn both_codecs_agree_on_every_field_and_every_byte() {
    for_each_version(30, |case, version, seed| {
        let bytes = generate(case, version, seed, false);
        let place = format!("{} v{version} seed {seed:#x}", case.name);
        let (theirs, their_bytes) =
            (case.oracle)(&bytes, version).unwrap_or_else(|e| panic!("{place}: judge: {e}"));
        assert_eq!(
            their_bytes, bytes,
            "{place}: the judge writes other bytes than it has read"
        );
        let (mine, my_bytes) = (case.ours)(&their_bytes, version).unwrap_or_else(|e| panic!("{place}: {e}"));
        assert_eq!(my_bytes, bytes, "{place}: we write other bytes than we have read");
        let (again, _) = (case.oracle)(&my_bytes, version).unwrap_or_else(|e| panic!("{place}: judge: {e}"));
        assert_eq!(again, theirs, "{place}");
        compare(&case.body, &parse(&mine), &parse(&theirs), &place);
    });
}

#[test]
fn tagged_fields_that_nobody_knows_change_nothing() {
    for_each_version(5, |case, version, seed| {
        let plain = generate(case, version, seed, false);
        let tagged = generate(case, version, seed, true);
        assert_eq!(plain == tagged, version < case.flexible_from);
        let place = format!("{} v{version} seed {seed:#x}", case.name);
        assert_eq!(
            (case.ours)(&tagged, version),
            (case.ours)(&plain, version),
            "{place}"
        );
        assert!((case.oracle)(&tagged, version).is_ok(), "{place}");
    });
}

#[test]
fn a_message_cut_short_is_an_error_wherever_it_is_cut() {
    for_each_version(3, |case, version, seed| {
        let bytes = generate(case, version, seed, false);
        let step = 1 + bytes.len() / 200;
        for size in (0..bytes.len()).step_by(step) {
            let verdict = (case.ours)(&bytes[..size], version);
            let error = verdict.expect_err("a value came out of half a message");
            // "Struct.field at byte n: expected x, found y", with a place that is named and lies within.
            let position = error
                .split(" at byte ")
                .nth(1)
                .and_then(|rest| rest.split(':').next());
            let position: usize = position.and_then(|n| n.parse().ok()).expect("a position");
            let base = if case.name.starts_with("ConsumerProtocol") {
                2
            } else {
                0
            };
            assert!(
                position <= size + base && !error.starts_with('.'),
                "{}: {error}",
                case.name
            );
        }
    });
}

#[test]
fn mutated_and_arbitrary_bytes_never_panic() {
    let mut accepted = 0;
    let mut refused = 0;
    for (number, case) in all_cases().iter().enumerate() {
        for version in case.versions.clone() {
            let mut random = Random((number as u64) << 8 | version as u64);
            for round in 0..200 {
                let mut bytes = generate(case, version, random.next() % 16, false);
                if round % 4 == 3 {
                    let size = random.below(200) as usize;
                    bytes = (0..size)
                        .map(|_| random.next() as u8 >> random.below(8))
                        .collect();
                }
                for _ in 0..1 + random.below(4) {
                    if bytes.is_empty() {
                        break;
                    }
                    let at = random.below(bytes.len() as u64) as usize;
                    match random.below(4) {
                        0 => bytes[at] = 0xff,
                        1 => bytes[at] = bytes[at].wrapping_add(1),
                        2 => bytes[at] = random.next() as u8,
                        _ => drop(bytes.remove(at)),
                    }
                }
                // Reading, printing and writing walk over all that was read.
                match (case.ours)(&bytes, version) {
                    Ok(_) => accepted += 1,
                    Err(_) => refused += 1,
                }
            }
        }
    }
    assert!(
        accepted > 1000 && refused > 1000,
        "{accepted} accepted, {refused} refused: a dull test"
    );
}

#[test]
fn a_count_of_billions_is_refused_before_anything_is_read() {
    for (count, flexible) in [
        (&i32::MAX.to_be_bytes()[..], false),
        (&[0xff, 0xff, 0xff, 0xff, 0x07][..], true),
    ] {
        let version = if flexible { 9 } else { 8 };
        let error = (by_ours::<ours::MetadataRequest>)(&[count, &[0; 64]].concat(), version)
            .expect_err("billions of topics in 64 bytes");
        let expected = "MetadataRequest.topics at byte 0: expected at most 32 elements of 2 bytes or more";
        assert!(error.starts_with(expected), "{error}");
    }
}

/// The comparison itself is on trial here: it must refuse what is wrong.
#[test]
fn the_comparison_notices_fields_that_have_changed_places() {
    let of = ours::HeartbeatResponse::SCHEMA;
    let right =
        "HeartbeatResponse { throttle_time_ms: 7, error_code: BrokerId(9), unknown_tagged_fields: {} }";
    let value = parse("HeartbeatResponse { throttle_time_ms: 7, error_code: 9 }");
    compare(&of, &value, &parse(right), "right");
    for wrong in [
        "HeartbeatResponse { throttle_time_ms: 9, error_code: 7 }",
        "HeartbeatResponse { throttle_time_ms: 7, error_code: 10 }",
        "HeartbeatResponse { throttle_time_ms: 7, error_code: None }",
        "HeartbeatResponse { throttle_time_ms: 7 }",
    ] {
        let theirs = parse(wrong);
        let outcome = std::panic::catch_unwind(|| compare(&of, &value, &theirs, "wrong"));
        assert!(outcome.is_err(), "{wrong} was accepted");
    }
    assert_eq!(
        parse(r#"[b"a\0\x80\"", [97, 0, 128, 34]]"#),
        parse(r#"[[97, 0, 128, 34], b"a\0\x80\""]"#)
    );
    assert_ne!(parse(r#"Some("a\"b")"#), parse(r#""ab""#));
}

#[test]
fn every_served_api_is_compared_and_has_the_versions_and_headers_of_the_table() {
    fn check<'a, Q: Message<'a>, A: Message<'a>, OQ: HeaderVersion, OA: HeaderVersion>(
        seen: &mut Vec<ApiKey>,
    ) {
        assert_eq!(Q::KEY, A::KEY);
        let key = Q::KEY;
        seen.push(key);
        assert_eq!(Q::VERSIONS, key.defined_versions(), "{key}");
        assert_eq!(A::VERSIONS, key.defined_versions(), "{key}");
        for schema in [Q::SCHEMA, A::SCHEMA] {
            assert_eq!(
                schema.flexible_from,
                key.flexible_from().unwrap_or(i16::MAX),
                "{key}"
            );
        }
        for version in key.defined_versions() {
            assert_eq!(
                key.request_header_version(version),
                OQ::header_version(version),
                "{key} v{version}"
            );
            assert_eq!(
                key.response_header_version(version),
                OA::header_version(version),
                "{key} v{version}"
            );
        }
    }
    macro_rules! check_all {
        ($seen:ident: $($request:ident $response:ident $their_request:ident $their_response:ident),*) => {
            $(check::<ours::$request, ours::$response, oracle::$their_request, oracle::$their_response>(
                &mut $seen,
            );)*
        };
        ($seen:ident; $($request:ident $response:ident),* $(,)?) => {
            check_all!($seen: $($request $response $request $response),*)
        };
    }
    let mut seen = Vec::new();
    check_all!(seen;
        ProduceRequest ProduceResponse, FetchRequest FetchResponse, MetadataRequest MetadataResponse,
        OffsetCommitRequest OffsetCommitResponse, OffsetFetchRequest OffsetFetchResponse,
        FindCoordinatorRequest FindCoordinatorResponse, JoinGroupRequest JoinGroupResponse,
        HeartbeatRequest HeartbeatResponse, LeaveGroupRequest LeaveGroupResponse,
        SyncGroupRequest SyncGroupResponse, DescribeGroupsRequest DescribeGroupsResponse,
        ListGroupsRequest ListGroupsResponse, ApiVersionsRequest ApiVersionsResponse,
        CreateTopicsRequest CreateTopicsResponse, DeleteTopicsRequest DeleteTopicsResponse,
        DeleteRecordsRequest DeleteRecordsResponse, InitProducerIdRequest InitProducerIdResponse,
        OffsetForLeaderEpochRequest OffsetForLeaderEpochResponse, DescribeAclsRequest DescribeAclsResponse,
        CreateAclsRequest CreateAclsResponse, DeleteAclsRequest DeleteAclsResponse,
        DescribeConfigsRequest DescribeConfigsResponse, AlterConfigsRequest AlterConfigsResponse,
        DescribeLogDirsRequest DescribeLogDirsResponse, CreatePartitionsRequest CreatePartitionsResponse,
        DeleteGroupsRequest DeleteGroupsResponse,
        IncrementalAlterConfigsRequest IncrementalAlterConfigsResponse,
        OffsetDeleteRequest OffsetDeleteResponse,
    );
    check_all!(seen: ListOffsetRequest ListOffsetResponse ListOffsetsRequest ListOffsetsResponse);
    seen.sort();
    assert_eq!(seen, SERVED);
    assert_eq!(messages().len(), 2 * SERVED.len());
}
