//! What a declaration promises, tried on a message that has one of everything.

use std::borrow::Cow;

use super::*;

message! {
    /// One of everything.
    pub struct SampleRequest<'a> (ListGroups, versions 0..=4, flexible 3..) {
        name: Cow<'a, str> [0..],
        note: Option<Cow<'a, str>> [0.., nullable 2..],
        replicas: Array<'a, i32> [0..],
        epoch: i32 [1..] = -1,
        throttle_time_ms: i32 [2.., ignorable],
        parts: Option<Array<'a, SamplePart<'a>>> [0.., nullable 1..],
        records: Payload<'a> [4..],
        generation: i64 [3.., tag 0] = -1,
        hint: Cow<'a, str> [4.., tag 5, ignorable],
    }

    /// An element.
    pub struct SamplePart<'a> {
        name: Cow<'a, str> [0..],
        data: Cow<'a, [u8]> [0..],
    }
}

fn sample() -> SampleRequest<'static> {
    SampleRequest {
        name: "topic".into(),
        note: Some("n".into()),
        replicas: vec![1, 2, 3].into(),
        parts: Some(
            vec![SamplePart {
                name: "p".into(),
                data: vec![9].into(),
            }]
            .into(),
        ),
        ..Default::default()
    }
}

fn encode(value: &SampleRequest<'_>, version: i16) -> Result<Vec<u8>, EncodeError> {
    let mut writer = Writer::new();
    value.encode(&mut writer, version)?;
    Ok(writer.as_slice().to_vec())
}

fn decode(bytes: &[u8], version: i16) -> Result<SampleRequest<'_>, DecodeError> {
    SampleRequest::decode(&mut Reader::new(bytes), version)
}

#[test]
fn a_message_is_what_it_was_in_every_version() {
    for version in 0..=4 {
        let bytes = encode(&sample(), version).unwrap();
        let decoded = decode(&bytes, version).unwrap();
        assert_eq!(decoded, sample(), "version {version}");
        assert!(
            matches!(decoded.replicas, Array::Wire(_)),
            "arrays stay on the wire"
        );
        assert!(matches!(decoded.name, Cow::Borrowed(_)), "strings are borrowed");
        assert_eq!(encode(&decoded, version).unwrap(), bytes);
    }
}

#[test]
fn the_layout_is_that_of_the_protocol_guide() {
    let fixed = encode(&sample(), 0).unwrap();
    let expected = [
        &b"\x00\x05topic\x00\x01n"[..],
        &[0, 0, 0, 3, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3],
        &b"\x00\x00\x00\x01\x00\x01p\x00\x00\x00\x01\x09"[..],
    ];
    assert_eq!(fixed, expected.concat());
    let tagged = SampleRequest {
        generation: 4,
        hint: "x".into(),
        throttle_time_ms: 1,
        ..sample()
    };
    let flexible = encode(&tagged, 4).unwrap();
    let expected = [
        &b"\x06topic\x02n"[..],
        &[4, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3],
        &[0xff, 0xff, 0xff, 0xff, 0, 0, 0, 1],
        &b"\x02\x02p\x02\x09\x00"[..],
        // No records; tag 0 of 8 bytes, tag 5 of 2 bytes.
        &[1, 2, 0, 8, 0, 0, 0, 0, 0, 0, 0, 4, 5, 2, 2, b'x'],
    ];
    assert_eq!(flexible, expected.concat());
    assert_eq!(decode(&flexible, 4).unwrap(), tagged);
}

#[test]
fn what_a_version_lacks_is_refused_unless_it_may_be_ignored() {
    let not_in_version =
        |value: &SampleRequest<'_>, version| encode(value, version).map_err(|e| (e.field, e.problem));
    let epoch = SampleRequest { epoch: 5, ..sample() };
    assert_eq!(
        not_in_version(&epoch, 0),
        Err(("epoch", EncodeProblem::NotInVersion))
    );
    assert!(not_in_version(&epoch, 1).is_ok());
    let tagged = SampleRequest {
        generation: 0,
        ..sample()
    };
    assert_eq!(
        not_in_version(&tagged, 2),
        Err(("generation", EncodeProblem::NotInVersion))
    );
    let ignorable = SampleRequest {
        throttle_time_ms: 9,
        hint: "x".into(),
        ..sample()
    };
    assert_eq!(encode(&ignorable, 0), encode(&sample(), 0));
    assert_eq!(
        encode(&ignorable, 3).map(|bytes| decode(&bytes, 3).unwrap().hint.into_owned()),
        Ok(String::new())
    );
}

#[test]
fn null_is_refused_where_the_version_has_none() {
    let null = SampleRequest {
        note: None,
        parts: None,
        ..sample()
    };
    let error = encode(&null, 1).unwrap_err();
    assert_eq!(
        error.to_string(),
        "SampleRequest.note cannot be written in version 1: it must not be null there"
    );
    let bytes = encode(&null, 2).unwrap();
    assert_eq!(decode(&bytes, 2).unwrap(), null);

    let bytes = b"\x00\x01t\xff\xff";
    let error = decode(bytes, 1).unwrap_err();
    assert_eq!(
        error.to_string(),
        "SampleRequest.note at byte 3: expected a value, found null"
    );
    let error = decode(b"\xff\xff", 2).unwrap_err();
    assert_eq!((error.field, error.problem), ("name", Problem::Null));
}

#[test]
fn an_error_names_the_innermost_place() {
    let mut bytes = encode(&sample(), 0).unwrap();
    let size = bytes.len();
    bytes[size - 2] = 2;
    let error = decode(&bytes, 0).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("SamplePart.data at byte {}: expected 2 bytes, found 1", size - 1)
    );
}

#[test]
fn a_version_that_does_not_exist_is_refused_both_ways() {
    for version in [-1, 5] {
        assert!(matches!(
            decode(&[], version).unwrap_err().problem,
            Problem::UnsupportedVersion { .. }
        ));
        assert!(matches!(
            encode(&sample(), version).unwrap_err().problem,
            EncodeProblem::UnsupportedVersion { .. }
        ));
    }
}

#[test]
fn a_string_that_is_not_utf_8_is_read_with_replacement_characters() {
    let mut bytes = encode(&sample(), 0).unwrap();
    bytes[2] = 0xff;
    assert_eq!(decode(&bytes, 0).unwrap().name, "\u{fffd}opic");
}

#[test]
fn a_known_tag_has_to_fill_its_field() {
    let bytes = encode(
        &SampleRequest {
            generation: 4,
            ..sample()
        },
        3,
    )
    .unwrap();
    let tags = bytes.len() - 11;
    assert_eq!(bytes[tags..tags + 3], [1, 0, 8]);
    let longer = [&bytes[..tags], &[1, 0, 9], &bytes[tags + 3..], &[0]].concat();
    let expected = Problem::TaggedFieldTooLong { tag: 0, excess: 1 };
    assert_eq!(decode(&longer, 3).unwrap_err().problem, expected);
    let shorter = [&bytes[..tags], &[1, 0, 7], &bytes[tags + 3..]].concat();
    let expected = Problem::Truncated {
        needed: 8,
        remaining: 7,
    };
    assert_eq!(decode(&shorter, 3).unwrap_err().problem, expected);
}

#[test]
fn bytes_behind_the_body_are_left_alone() {
    let mut bytes = encode(&sample(), 0).unwrap();
    bytes.extend_from_slice(b"tail");
    let mut reader = Reader::new(&bytes);
    assert_eq!(SampleRequest::decode(&mut reader, 0).unwrap(), sample());
    assert_eq!(reader.rest(), b"tail");
}

#[test]
fn records_that_are_elsewhere_leave_their_length_and_a_splice_point() {
    for (payload, prefix) in [
        (Payload::Null, vec![0]),
        (Payload::EMPTY, vec![1]),
        (Payload::Bytes(vec![7, 8].into()), vec![3, 7, 8]),
        (Payload::Extern { size_bytes: 300 }, vec![0xad, 0x02]),
    ] {
        let value = SampleRequest {
            records: payload.clone(),
            ..sample()
        };
        let without = encode(&sample(), 4).unwrap();
        let mut writer = Writer::new();
        let frame = writer.begin_frame();
        value.encode(&mut writer, 4).unwrap();
        writer.end_frame(frame).unwrap();
        let (bytes, splices) = writer.take();
        // The last two bytes without records are the empty records and the empty tags.
        let body = [&without[..without.len() - 2], &prefix, &[0]].concat();
        assert_eq!(bytes[4..], body);
        let elsewhere = if splices.is_empty() { 0 } else { 300 };
        assert_eq!(bytes[..4], (body.len() as u32 + elsewhere).to_be_bytes());
        if let Payload::Extern { .. } = payload {
            assert_eq!(splices, [bytes.len() - 1]);
        } else {
            assert!(splices.is_empty());
            assert_eq!(decode(&bytes[4..], 4).unwrap().records, payload);
        }
    }
}

#[test]
fn an_array_is_walked_alike_on_the_wire_and_owned() {
    let owned = sample().replicas;
    let bytes = encode(&sample(), 0).unwrap();
    let wire = decode(&bytes, 0).unwrap().replicas;
    assert_eq!(wire, owned);
    for array in [wire, owned] {
        assert_eq!(
            (array.len(), array.is_empty(), array.first()),
            (3, false, Some(1))
        );
        assert_eq!(array.iter().collect::<Vec<_>>(), [1, 2, 3]);
        assert_eq!(array.iter().len(), 3);
        assert_eq!(format!("{array:?}"), "[1, 2, 3]");
        assert_eq!(array.into_iter().sum::<i32>(), 6);
    }
    assert_eq!(Array::<i32>::empty().first(), None);
}
