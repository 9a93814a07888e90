//! Keys and values of `__consumer_offsets`, as a coordinator loads them from a log that anybody may have written.
//!
//! Input: what it is (its remainder by 3: key, offset, group), then the bytes. Promise: what is read is written in
//! the version of today and read again the same.

use milena_server::group::records::{
    RecordKey, group_key, group_value, offset_key, offset_value, partition_for, read_group_value, read_key,
    read_offset_value,
};

use crate::take;

/// Texts that are not UTF-8 grow when they are read, and may then be too long to be written.
const FITS: &str = "what was written can be read";

pub(crate) fn read_again(mut data: &[u8]) {
    match take(&mut data) % 3 {
        0 => {
            let Ok(key) = read_key(data) else { return };
            let (group_id, written) = match &key {
                RecordKey::Offset { group_id, partition } => (group_id, offset_key(group_id, partition)),
                RecordKey::Group { group_id } => (group_id, group_key(group_id)),
            };
            assert!((0..50).contains(&partition_for(group_id, 50)));
            if let Ok(written) = written {
                assert_eq!(read_key(&written).expect(FITS), key);
            }
        }
        1 => {
            let Ok(value) = read_offset_value(data) else {
                return;
            };
            if let Ok(written) = offset_value(&value) {
                let mut expected = value;
                if expected.expire_timestamp.is_some() {
                    // version 1, which alone can say it, has no epoch
                    expected.leader_epoch = None;
                }
                assert_eq!(read_offset_value(&written).expect(FITS), expected);
            }
        }
        _ => {
            let Ok(value) = read_group_value(data) else { return };
            if let Ok(written) = group_value(&value) {
                assert_eq!(read_group_value(&written).expect(FITS), value);
            }
        }
    }
}
