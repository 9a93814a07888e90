//! The codec against another one: every message that is declared, request and response, in every version of 2.7.2.
//!
//! The judge is the crate `kafka-protocol`, which is generated from Kafka's own message definitions. Values are made up from a
//! seed, as bytes, by a third and very plain encoder that walks the declarations (`generator`):
//! - both codecs must read them, agree on every field by name, and write the same bytes again, in both directions;
//! - tagged fields that nobody knows must change nothing;
//! - truncated, mutated and arbitrary bytes must give an error or a value that can be walked, and never a panic.

mod codecs;
mod generator;
mod printed;

use codecs::{Case, all_cases, by_ours, messages};
use generator::{Random, generate};
use kafka_protocol::messages as oracle;
use kafka_protocol::protocol::HeaderVersion;
use milena_server::protocol::messages as ours;
use milena_server::protocol::schema::Encoding;
use milena_server::protocol::{ApiKey, Message, SERVED};
use printed::{compare, parse};

fn generate_case(case: &Case, version: i16, seed: u64, unknown_tags: bool) -> Vec<u8> {
    let flexible = version >= case.flexible_from;
    generate(&case.body, Encoding { version, flexible }, seed, unknown_tags)
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
        let bytes = generate_case(case, version, seed, false);
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
        let plain = generate_case(case, version, seed, false);
        let tagged = generate_case(case, version, seed, true);
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
        let bytes = generate_case(case, version, seed, false);
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
                let mut bytes = generate_case(case, version, random.next() % 16, false);
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
fn every_api_is_compared_and_has_the_versions_and_headers_of_the_table() {
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
        LeaderAndIsrRequest LeaderAndIsrResponse, StopReplicaRequest StopReplicaResponse,
        UpdateMetadataRequest UpdateMetadataResponse, ControlledShutdownRequest ControlledShutdownResponse,
        WriteTxnMarkersRequest WriteTxnMarkersResponse, AlterReplicaLogDirsRequest AlterReplicaLogDirsResponse,
        ElectLeadersRequest ElectLeadersResponse,
        AlterPartitionReassignmentsRequest AlterPartitionReassignmentsResponse,
        ListPartitionReassignmentsRequest ListPartitionReassignmentsResponse,
        UpdateFeaturesRequest UpdateFeaturesResponse,
    );
    check_all!(seen:
        ListOffsetRequest ListOffsetResponse ListOffsetsRequest ListOffsetsResponse,
        AlterIsrRequest AlterIsrResponse AlterPartitionRequest AlterPartitionResponse
    );
    assert!(SERVED.iter().all(|key| seen.contains(key)));
    assert_eq!(messages().len(), 2 * seen.len());
}
