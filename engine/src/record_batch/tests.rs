//! Tests of the batch views: what a header may say, and where a scan ends.

use super::*;

fn batch() -> Vec<u8> {
    let mut builder = RecordBatchBuilder::new()
        .base_offset(Offset(10))
        .leader_epoch(LeaderEpoch(3));
    builder.append(TimestampMs(1), Some(b"key"), Some(b"value"));
    builder.append(TimestampMs(2), None, None);
    builder.build()
}

#[test]
fn a_header_is_read_from_its_first_61_bytes_and_is_the_batch_s_own() {
    let bytes = batch();
    let whole = Batch::parse(&bytes).unwrap();
    assert_eq!(
        BatchHeader::parse(&bytes[..RECORD_BATCH_OVERHEAD]),
        Ok(*whole.header())
    );
    assert_eq!(
        BatchHeader::size_of(&bytes[..HEADER_SIZE_UP_TO_MAGIC]),
        Ok(bytes.len())
    );
    assert_eq!(
        (whole.base_offset(), whole.last_offset(), whole.next_offset()),
        (Offset(10), Offset(11), Offset(12))
    );
    assert_eq!(
        (whole.leader_epoch(), whole.record_count()),
        (Some(LeaderEpoch(3)), Some(2))
    );
    assert_eq!(whole.producer(), None);
}

#[test]
fn an_impossible_header_is_refused_by_the_field_that_is() {
    let change = |position: usize, with: &[u8]| {
        let mut bytes = batch();
        bytes[position..position + with.len()].copy_from_slice(with);
        Batch::parse(&bytes).map(|batch| batch.size_bytes())
    };
    let size = |found, minimum| {
        Err(BatchError::Size {
            position: 8,
            found,
            minimum,
        })
    };
    let range = |base, delta| {
        Err(BatchError::OffsetRange {
            position: 0,
            base,
            delta,
        })
    };
    assert_eq!(change(8, &13i32.to_be_bytes()), size(13, 14));
    assert_eq!(change(8, &48i32.to_be_bytes()), size(48, 49));
    assert_eq!(change(8, &(-1i32).to_be_bytes()), size(-1, 14));
    assert_eq!(
        change(16, &[0x80]),
        Err(BatchError::Magic {
            position: 16,
            found: -128
        })
    );
    assert_eq!(
        change(22, &[7]),
        Err(BatchError::UnknownCodec {
            position: 22,
            found: 7
        })
    );
    assert_eq!(change(0, &(-1i64).to_be_bytes()), range(-1, 1));
    assert_eq!(change(0, &(i64::MAX - 1).to_be_bytes()), range(i64::MAX - 1, 1));
    assert_eq!(change(23, &(-2i32).to_be_bytes()), range(10, -2));
    assert_eq!(
        change(57, &(-2i32).to_be_bytes()),
        Err(BatchError::RecordCount {
            position: 57,
            found: -2
        })
    );
    assert!(change(8, &i32::MAX.to_be_bytes()).is_err_and(|error| error.is_partial()));
}

#[test]
fn iteration_yields_whole_batches_and_stops_at_an_incomplete_one() {
    let one = batch();
    let set = [&one[..], &one[..], &one[..20]].concat();
    let mut all = batches(&set);
    assert_eq!(
        all.next().map(|batch| batch.map(|batch| batch.size_bytes())),
        Some(Ok(one.len()))
    );
    assert!(all.next().is_some_and(|batch| batch.is_ok()));
    let expected = BatchError::Partial {
        position: 2 * one.len(),
        expected: one.len(),
        found: 20,
    };
    assert_eq!(
        all.next().map(|batch| batch.map(|batch| batch.size_bytes())),
        Some(Err(expected))
    );
    assert!(all.next().is_none());
    assert_eq!(all.position(), 2 * one.len());
}

#[test]
fn a_control_record_is_refused_where_it_is_not_a_marker() {
    type Case<'a> = (Option<&'a [u8]>, Option<&'a [u8]>);
    let cases: &[Case<'_>] = &[
        (None, Some(&[0; 6])),
        (Some(&[0; 3]), Some(&[0; 6])),
        (Some(&[0; 4]), Some(&[0; 5])),
        (Some(&[0; 4]), None),
        (Some(&[0xff, 0, 0, 0]), Some(&[0; 6])),
        (Some(&[0, 0, 0, 2]), Some(&[0; 6])),
        (Some(&[0; 4]), Some(&[0xff, 0, 0, 0, 0, 0])),
    ];
    for (key, value) in cases {
        assert!(ControlRecord::parse(*key, *value).is_err(), "{key:?} {value:?}");
    }
    let later = ControlRecord::parse(Some(&[0, 5, 0, 1, 9]), Some(&[0, 5, 0, 0, 0, 8, 9]));
    assert_eq!(
        later,
        Ok(ControlRecord {
            kind: ControlKind::Commit,
            coordinator_epoch: 8
        })
    );
    let plain = batch();
    assert!(Batch::parse(&plain).unwrap().control_record().is_err());
}
