//! Golden bytes and round trips of the records of `__consumer_offsets`.

use super::*;

fn offset(expire: Option<i64>) -> OffsetAndMetadata {
    OffsetAndMetadata {
        offset: Offset(42),
        leader_epoch: Some(7),
        metadata: "m".into(),
        commit_timestamp: TimestampMs(1_000),
        expire_timestamp: expire.map(TimestampMs),
    }
}

#[test]
fn a_group_lives_in_the_partition_that_java_computes() {
    // String.hashCode of "test" is 3556498, of "" 0, of "polygenelubricants" Integer.MIN_VALUE.
    assert_eq!(partition_for("test", 50), 3556498 % 50);
    assert_eq!(partition_for("", 50), 0);
    assert_eq!(partition_for("polygenelubricants", 50), 0);
    // Negative: "console-consumer-12345" and one outside the basic plane (two UTF-16 units: 0xD83D, 0xDE00).
    assert_eq!(partition_for("\u{1F600}", i32::MAX), 0xD83D * 31 + 0xDE00);
}

#[test]
fn an_offset_is_written_as_version_3() {
    let key = offset_key("g", &TopicPartition::new("t", 5)).expect("short");
    assert_eq!(key[..], [0, 1, 0, 1, b'g', 0, 1, b't', 0, 0, 0, 5]);
    let value = offset_value(&offset(None)).expect("short");
    let golden = [
        0, 3, // version
        0, 0, 0, 0, 0, 0, 0, 42, // offset
        0, 0, 0, 7, // leader epoch
        0, 1, b'm', // metadata
        0, 0, 0, 0, 0, 0, 3, 232, // commit timestamp
    ];
    assert_eq!(value[..], golden);
    assert_eq!(read_offset_value(&value), Ok(offset(None)));
}

#[test]
fn an_offset_with_an_expire_timestamp_is_written_as_version_1_without_its_epoch() {
    let value = offset_value(&offset(Some(2_000))).expect("short");
    let golden = [
        0, 1, // version
        0, 0, 0, 0, 0, 0, 0, 42, // offset
        0, 1, b'm', // metadata
        0, 0, 0, 0, 0, 0, 3, 232, // commit timestamp
        0, 0, 0, 0, 0, 0, 7, 208, // expire timestamp
    ];
    assert_eq!(value[..], golden);
    let read = read_offset_value(&value).expect("just written");
    assert_eq!(
        read,
        OffsetAndMetadata {
            leader_epoch: None,
            ..offset(Some(2_000))
        }
    );
}

#[test]
fn offsets_of_all_versions_are_read() {
    let tail = [0, 1, b'm', 0, 0, 0, 0, 0, 0, 3, 232];
    let head = [0, 0, 0, 0, 0, 0, 0, 42];
    let expected = OffsetAndMetadata {
        leader_epoch: None,
        ..offset(None)
    };
    for version in [0, 2] {
        let bytes = [&[0, version][..], &head, &tail].concat();
        assert_eq!(
            read_offset_value(&bytes),
            Ok(expected.clone()),
            "version {version}"
        );
    }
    let without_expiry = [&[0, 1][..], &head, &tail, &[255; 8]].concat();
    assert_eq!(read_offset_value(&without_expiry), Ok(expected.clone()));
    let without_epoch = [&[0, 3][..], &head, &[255; 4], &tail].concat();
    assert_eq!(read_offset_value(&without_epoch), Ok(expected));
}

fn group() -> GroupMetadataValue {
    GroupMetadataValue {
        protocol_type: "consumer".into(),
        generation_id: 3,
        protocol_name: Some("range".into()),
        leader_id: Some("m".into()),
        current_state_timestamp: Some(TimestampMs(1_000)),
        members: vec![MemberValue {
            member_id: "m".into(),
            group_instance_id: Some("i".into()),
            client_id: "c".into(),
            client_host: "/h".into(),
            rebalance_timeout_ms: 300,
            session_timeout_ms: 100,
            subscription: Bytes::from_static(b"s"),
            assignment: Bytes::from_static(b"as"),
        }],
    }
}

#[test]
fn a_group_is_written_as_version_3() {
    assert_eq!(group_key("gr").expect("short")[..], [0, 2, 0, 2, b'g', b'r']);
    let golden = [
        &[0, 3, 0, 8][..],
        b"consumer",
        &[0, 0, 0, 3, 0, 5],
        b"range",
        &[0, 1, b'm'],
        &[0, 0, 0, 0, 0, 0, 3, 232], // current state timestamp
        &[0, 0, 0, 1],               // one member
        &[0, 1, b'm', 0, 1, b'i', 0, 1, b'c', 0, 2, b'/', b'h'],
        &[0, 0, 1, 44, 0, 0, 0, 100], // rebalance timeout, session timeout
        &[0, 0, 0, 1, b's', 0, 0, 0, 2, b'a', b's'],
    ]
    .concat();
    assert_eq!(group_value(&group()).expect("short")[..], golden[..]);
    assert_eq!(read_group_value(&golden), Ok(group()));
}

#[test]
fn groups_of_all_versions_are_read() {
    let head = [
        &[0, 8][..],
        b"consumer",
        &[0, 0, 0, 3, 0, 5],
        b"range",
        &[0, 1, b'm'],
    ]
    .concat();
    let timestamp = [0, 0, 0, 0, 0, 0, 3, 232];
    let member = [0, 1, b'm', 0, 1, b'c', 0, 2, b'/', b'h'];
    let tail = [0, 0, 0, 1, b's', 0, 0, 0, 2, b'a', b's'];
    let mut expected = group();
    expected.members[0].group_instance_id = None;

    let v2 = [
        &[0, 2][..],
        &head,
        &timestamp,
        &[0, 0, 0, 1],
        &member,
        &[0, 0, 1, 44, 0, 0, 0, 100],
        &tail,
    ]
    .concat();
    assert_eq!(read_group_value(&v2), Ok(expected.clone()));
    expected.current_state_timestamp = None;
    let v1 = [
        &[0, 1][..],
        &head,
        &[0, 0, 0, 1],
        &member,
        &[0, 0, 1, 44, 0, 0, 0, 100],
        &tail,
    ]
    .concat();
    assert_eq!(read_group_value(&v1), Ok(expected.clone()));
    expected.members[0].rebalance_timeout_ms = 100;
    let v0 = [&[0, 0][..], &head, &[0, 0, 0, 1], &member, &[0, 0, 0, 100], &tail].concat();
    assert_eq!(read_group_value(&v0), Ok(expected));
}

#[test]
fn an_empty_group_without_protocol_and_leader_survives_the_round_trip() {
    let empty = GroupMetadataValue {
        protocol_name: None,
        leader_id: None,
        members: Vec::new(),
        ..group()
    };
    let bytes = group_value(&empty).expect("short");
    assert_eq!(read_group_value(&bytes), Ok(empty));
}

#[test]
fn keys_are_read_back_and_old_ones_too() {
    let partition = TopicPartition::new("t", 5);
    let key = offset_key("g", &partition).expect("short");
    let expected = RecordKey::Offset {
        group_id: "g".into(),
        partition,
    };
    assert_eq!(read_key(&key), Ok(expected.clone()));
    let mut old = key.to_vec();
    old[1] = 0;
    assert_eq!(read_key(&old), Ok(expected));
    let key = group_key("g").expect("short");
    assert_eq!(read_key(&key), Ok(RecordKey::Group { group_id: "g".into() }));
}

#[test]
fn cut_and_forged_records_are_errors_with_a_place_and_never_panics() {
    let value = group_value(&group()).expect("short");
    for size in 0..value.len() {
        assert!(read_group_value(&value[..size]).is_err(), "{size} bytes");
    }
    let value = offset_value(&offset(None)).expect("short");
    for size in 0..value.len() {
        assert!(read_offset_value(&value[..size]).is_err(), "{size} bytes");
    }
    let key = offset_key("g", &TopicPartition::new("t", 5)).expect("short");
    for size in 0..key.len() {
        assert!(read_key(&key[..size]).is_err(), "{size} bytes");
    }
    let unknown = read_key(&[0, 3, 0, 1, b'g']).expect_err("a later version");
    assert_eq!(
        unknown.to_string(),
        "key of __consumer_offsets: byte 0: version 3, expected version 0, 1 or 2"
    );
    let forged = read_key(&[0, 2, 0x7f, 0xff, b'g']).expect_err("a forged length");
    assert_eq!(
        forged.to_string(),
        "key of __consumer_offsets: byte 4: 32767 bytes needed, 1 left, expected a string"
    );
    let lossy = RecordKey::Group {
        group_id: "g\u{fffd}".into(),
    };
    assert_eq!(read_key(&[0, 2, 0, 2, b'g', 0xff]), Ok(lossy));
    assert!(
        read_group_value(
            &[
                &[0, 0, 0, 0, 0, 0, 0, 1, 255, 255, 255, 255][..],
                &[127, 255, 255, 255]
            ]
            .concat()
        )
        .is_err()
    );
}

#[test]
fn a_field_that_does_not_fit_is_refused_before_it_is_written() {
    let long = "x".repeat(32_768);
    assert_eq!(group_key(&long), Err(FieldTooLong { size_bytes: 32_768 }));
    assert!(group_key(&long[..32_767]).is_ok());
}
