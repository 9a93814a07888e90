//! The bytes of one v2 record after another: [`scan`] finds the places of its fields, [`scan_run`] steps over many.
//!
//! A record: length varint, attributes i8, timestamp delta varlong, offset delta varint, key and value
//! (length varint, −1 for null, then the bytes), header count varint, headers (key, value).
//!
//! Both are on the path of every produce request, and neither allocates or copies. A run takes the common records in
//! a loop without calls; whatever is uncommon, broken included, is left to `scan`, which alone judges.
//!
//! Source: `DefaultRecord.readFrom` of 2.7.2.

use super::{Headers, Record};
use crate::config::TimestampType;
use crate::record_batch::varint::{read_varint, read_varlong};
use crate::record_batch::{Batch, BatchError};
use crate::units::{Offset, TimestampMs};

/// Where a key or value lies; a negative length stands for null.
#[derive(Clone, Copy, Debug)]
pub(in crate::record_batch) struct Field {
    start: usize,
    length: i32,
}

impl Field {
    pub(in crate::record_batch) const fn is_null(self) -> bool {
        self.length < 0
    }

    /// `scan` has checked that it lies in `bytes`.
    fn of(self, bytes: &[u8]) -> Option<&[u8]> {
        let length = usize::try_from(self.length).ok()?;
        bytes.get(self.start..self.start + length)
    }
}

/// A record as `scan` found it: places, not bytes.
#[derive(Clone, Copy, Debug)]
pub(in crate::record_batch) struct Scan {
    /// First byte after the record.
    pub(in crate::record_batch) end: usize,
    pub(in crate::record_batch) timestamp_delta: i64,
    pub(in crate::record_batch) offset_delta: i32,
    pub(in crate::record_batch) key: Field,
    value: Field,
    header_count: u32,
    headers_start: usize,
}

impl Scan {
    /// The record in the bytes that were scanned.
    pub(super) fn record<'a>(&self, bytes: &'a [u8], times: &Times) -> Record<'a> {
        Record {
            offset: times.offset(self.offset_delta),
            timestamp: times.timestamp(self.timestamp_delta),
            key: self.key.of(bytes),
            value: self.value.of(bytes),
            headers: Headers {
                count: self.header_count,
                bytes: bytes.get(self.headers_start..self.end).unwrap_or_default(),
            },
        }
    }
}

/// What the deltas of a v2 batch are relative to.
#[derive(Clone, Copy, Debug)]
pub(in crate::record_batch) struct Times {
    base_offset: i64,
    first_timestamp: i64,
    append_time: Option<TimestampMs>,
}

impl Times {
    pub(in crate::record_batch) fn new(batch: &Batch<'_>) -> Times {
        let append_time = batch.timestamp_type() == TimestampType::LogAppendTime;
        Times {
            base_offset: batch.base_offset().get(),
            first_timestamp: batch.first_timestamp().get(),
            append_time: append_time.then(|| batch.max_timestamp()),
        }
    }

    /// Whether timestamps are ordered as the deltas of a [`Run`] are: none of them overflows.
    pub(in crate::record_batch) const fn keep_order(&self) -> bool {
        let largest = 1 << 13; // of a varint of two bytes
        self.first_timestamp.checked_add(largest).is_some()
            && self.first_timestamp.checked_sub(largest).is_some()
    }

    /// Wraps on overflow, as Kafka's arithmetic does: a broken delta is the reader's affair, not a crash.
    #[inline(always)]
    pub(in crate::record_batch) fn timestamp(&self, delta: i64) -> TimestampMs {
        match self.append_time {
            None => TimestampMs(self.first_timestamp.wrapping_add(delta)),
            Some(time) => time,
        }
    }

    #[inline(always)]
    pub(in crate::record_batch) fn offset(&self, delta: i32) -> Offset {
        Offset(self.base_offset.wrapping_add(i64::from(delta)))
    }
}

/// A record is not what it must be at `position`.
#[cold]
pub(super) fn broken(position: usize, expected: &'static str, found: i64) -> BatchError {
    BatchError::Structure {
        position,
        expected,
        found,
    }
}

/// What is expected where a record begins.
pub(super) const LENGTH: &str = "the length of a record";

/// Reads the v2 record at `position` of `bytes` and checks its structure. Positions of errors count from the
/// start of `bytes`.
#[inline(always)]
pub(in crate::record_batch) fn scan(bytes: &[u8], position: usize) -> Result<Scan, BatchError> {
    let mut start = position;
    let Some(length) = read_varint(bytes, &mut start) else {
        return Err(broken(position, LENGTH, (bytes.len() - position) as i64));
    };
    let rest = bytes.len() - start;
    let body_size = usize::try_from(length).ok().filter(|&size| size <= rest);
    let Some(body_size) = body_size else {
        return Err(broken(position, "a record within the batch", length.into()));
    };
    let end = start + body_size;
    let bytes = &bytes[..end];
    // one byte of attributes, all unused
    let mut p = start + 1;
    let fields = (|| {
        let timestamp_delta = read_varlong(bytes, &mut p)?;
        let offset_delta = read_varint(bytes, &mut p)?;
        let key = scan_field(bytes, &mut p)?;
        let value = scan_field(bytes, &mut p)?;
        let header_count = read_varint(bytes, &mut p)?;
        Some((timestamp_delta, offset_delta, key, value, header_count))
    })();
    let Some((timestamp_delta, offset_delta, key, value, header_count)) = fields else {
        return Err(broken(p.min(end), "a field within its record", length.into()));
    };
    let headers_start = p;
    if header_count != 0 {
        p = scan_headers(bytes, p, header_count)?;
    }
    if p != end {
        return Err(broken(p, "the end of the record", (end - p) as i64));
    }
    let header_count = header_count as u32;
    Ok(Scan {
        end,
        timestamp_delta,
        offset_delta,
        key,
        value,
        header_count,
        headers_start,
    })
}

/// Steps over a nullable byte string that must end within `bytes`.
#[inline(always)]
fn scan_field(bytes: &[u8], position: &mut usize) -> Option<Field> {
    let length = read_varint(bytes, position)?;
    let start = *position;
    if length > 0 {
        let size = length as usize;
        if size > bytes.len() - start {
            return None;
        }
        *position = start + size;
    }
    Some(Field { start, length })
}

/// Steps over the headers; returns where they end.
fn scan_headers(bytes: &[u8], mut position: usize, count: i32) -> Result<usize, BatchError> {
    if count < 0 {
        return Err(broken(
            position,
            "a number of headers of at least 0",
            count.into(),
        ));
    }
    // the loop ends with the bytes, however large the count
    for _ in 0..count {
        let at = position;
        match scan_field(bytes, &mut position) {
            Some(key) if key.is_null() => return Err(broken(at, "a header key", key.length.into())),
            Some(_) => {}
            None => return Err(broken(at, "a header key within its record", count.into())),
        }
        if scan_field(bytes, &mut position).is_none() {
            return Err(broken(position, "a header value within its record", count.into()));
        }
    }
    Ok(position)
}

/// What [`scan_run`] found in the records at the beginning of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::record_batch) struct Run {
    /// First byte after the run.
    pub(in crate::record_batch) end: usize,
    /// Its records; their offset deltas are 0, 1, 2, ..
    pub(in crate::record_batch) count: i64,
    /// Largest timestamp delta, and the first record that has it; of no meaning in an empty run.
    pub(in crate::record_batch) max_timestamp_delta: i64,
    pub(in crate::record_batch) max_timestamp_index: i64,
    /// Every record has a key.
    pub(in crate::record_batch) all_keys: bool,
}

/// Steps over the common records that the bytes at `position` begin with, `limit` at most: sound, without headers,
/// with offsets 0, 1, 2, .. and varints of one or two bytes. It stops before any other, a broken one included,
/// and before the last bytes, where a word is too long; [`scan`] takes those.
#[inline(never)]
pub(in crate::record_batch) fn scan_run(bytes: &[u8], position: usize, limit: i64) -> Run {
    let mut run = Run {
        end: position,
        count: 0,
        max_timestamp_delta: i64::MIN,
        max_timestamp_index: 0,
        all_keys: true,
    };
    while run.count < limit {
        let Some(common) = scan_common(bytes, run.end, run.count as u64) else {
            break;
        };
        if common.timestamp_delta > run.max_timestamp_delta {
            run.max_timestamp_delta = common.timestamp_delta;
            run.max_timestamp_index = run.count;
        }
        run.all_keys &= common.has_key;
        run.end = common.end;
        run.count += 1;
    }
    run
}

struct Common {
    end: usize,
    timestamp_delta: i64,
    has_key: bool,
}

#[inline(always)]
fn scan_common(bytes: &[u8], position: usize, index: u64) -> Option<Common> {
    let head = word(bytes, position)?;
    let (length, length_bits) = short_varint(head)?;
    let end = position + (length_bits / 8) as usize + (length / 2) as usize;
    // one byte of attributes, all unused; at most 7 bytes are taken from the word
    let rest = head >> (length_bits + 8);
    let (timestamp, timestamp_bits) = short_varint(rest)?;
    let (offset, offset_bits) = short_varint(rest >> timestamp_bits)?;
    let mut at = position + ((length_bits + 8 + timestamp_bits + offset_bits) / 8) as usize;
    let (key, key_bits) = short_varint(word(bytes, at)?)?;
    let has_key = key != NULL;
    at += (key_bits / 8) as usize + if has_key { (key / 2) as usize } else { 0 };
    let (value, value_bits) = short_varint(word(bytes, at)?)?;
    let has_value = value != NULL;
    at += (value_bits / 8) as usize + if has_value { (value / 2) as usize } else { 0 };
    let header_count = u64::from(*bytes.get(at)?);
    // One sum of all that may be wrong: were `end` compared with `at`, the next record would have to wait until all
    // fields of this one are read, and not for its length alone.
    let negative = (length | (key & u64::from(has_key)) | (value & u64::from(has_value))) & 1;
    let wrong = negative | (end ^ (at + 1)) as u64 | (offset ^ (2 * index)) | header_count;
    (wrong == 0).then(|| Common {
        end,
        timestamp_delta: (timestamp >> 1) as i64 ^ -((timestamp & 1) as i64),
        has_key,
    })
}

/// The length of null, as it is encoded.
const NULL: u64 = 1;

/// The eight bytes at `position`, the first the lowest.
#[inline(always)]
fn word(bytes: &[u8], position: usize) -> Option<u64> {
    let bytes = bytes.get(position..)?.first_chunk()?;
    Some(u64::from_le_bytes(*bytes))
}

/// The varint of one or two bytes that a word begins with, as it is encoded, and the bits it takes.
#[inline(always)]
fn short_varint(word: u64) -> Option<(u64, u32)> {
    if word & 0x80 == 0 {
        Some((word & 0x7f, 8))
    } else if word & 0x8000 == 0 {
        Some((word & 0x7f | word >> 1 & 0x3f80, 16))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record_batch::varint::{write_varint, write_varlong};

    fn field(out: &mut Vec<u8>, size: i32) {
        write_varint(out, size);
        out.resize(out.len() + size.max(0) as usize, b'x');
    }

    /// A record with fields of these sizes (-1: null).
    fn encoded(delta: i64, offset: i32, key: i32, value: i32, headers: i32) -> Vec<u8> {
        let mut body = vec![0];
        write_varlong(&mut body, delta);
        write_varint(&mut body, offset);
        field(&mut body, key);
        field(&mut body, value);
        write_varint(&mut body, headers);
        for _ in 0..headers {
            field(&mut body, 1);
            field(&mut body, -1);
        }
        let mut record = Vec::new();
        write_varint(&mut record, body.len() as i32);
        record.extend(body);
        record
    }

    /// What the long way finds in the first `count` records.
    fn walked(bytes: &[u8], count: i64) -> Run {
        let mut run = scan_run(bytes, 0, 0);
        for index in 0..count {
            let scan = scan(bytes, run.end).expect("a sound record");
            assert_eq!(i64::from(scan.offset_delta), index);
            if scan.timestamp_delta > run.max_timestamp_delta {
                run.max_timestamp_delta = scan.timestamp_delta;
                run.max_timestamp_index = index;
            }
            run.all_keys &= !scan.key.is_null();
            run.end = scan.end;
            run.count += 1;
        }
        run
    }

    #[test]
    fn a_run_finds_what_record_after_record_finds_however_they_are_broken() {
        let (mut taken, mut all) = (0, 0);
        let mut compare = |bytes: &[u8]| {
            let run = scan_run(bytes, 0, 2);
            assert_eq!(run, walked(bytes, run.count), "{bytes:?}");
            taken += run.count;
            all += 2;
        };
        for delta in [0, -1, 63, 8191, -8192, 8192, i64::MAX, i64::MIN] {
            for key in [-2, -1, 0, 1, 63, 64] {
                for value in [-2, -1, 0, 5, 64, 8170] {
                    for headers in [0, 1] {
                        let mut sound = encoded(5, 0, 3, 100, 0);
                        let second = sound.len();
                        sound.extend(encoded(delta, 1, key, value, headers));
                        sound.extend([2; 8]);
                        compare(&sound);
                        for at in second..sound.len().min(second + 16) {
                            for bit in 0..8 {
                                let mut broken = sound.clone();
                                broken[at] ^= 1 << bit;
                                compare(&broken);
                            }
                            compare(&sound[..at]);
                            compare(&sound[..sound.len() - (at - second)]);
                        }
                    }
                }
            }
        }
        // every first record, and of the second ones those that are sound and common
        assert!(taken > all / 2 + all / 40, "{taken} of {all}");
        let pair = [encoded(5, 0, 3, 100, 0), encoded(9, 1, -1, 100, 0), vec![2; 8]].concat();
        let expected = Run {
            end: pair.len() - 8,
            count: 2,
            max_timestamp_delta: 9,
            max_timestamp_index: 1,
            all_keys: false,
        };
        assert_eq!(scan_run(&pair, 0, 3), expected);
    }
}
