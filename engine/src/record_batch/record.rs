//! Records of a batch: [`Record`], borrowed, and [`RecordIter`], which walks those of a batch of any layout.
//!
//! A v2 record: length varint, attributes i8, timestamp delta varlong, offset delta varint, key and value
//! (length varint, −1 for null, then the bytes), header count varint, headers (key, value). `scan` reads one
//! without allocating or copying; it is on the path of every produce request.
//!
//! Invariants: a record ends exactly where its length says; the last record ends exactly where the batch
//! does. A compressed batch is held in memory one record at a time.
//!
//! Source: `DefaultRecord`, `DefaultRecordBatch.RecordIterator` of 2.7.2.

use super::compression::{RECORD_SIZE_LIMIT, Window};
use super::legacy::{self, WrapperRecords};
use super::varint::{read_varint, read_varlong};
use super::{Batch, BatchError, RECORD_BATCH_OVERHEAD};
use crate::config::{Codec, Magic, TimestampType};
use crate::units::{Offset, TimestampMs};

/// One record. Key, value and headers borrow from the batch or from the iterator's window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    pub offset: Offset,
    /// The append time for all records of a `LogAppendTime` batch; [`TimestampMs::NONE`] in format v0.
    pub timestamp: TimestampMs,
    pub key: Option<&'a [u8]>,
    pub value: Option<&'a [u8]>,
    /// Empty below v2.
    pub headers: Headers<'a>,
}

/// One header of a record. The key is UTF-8 by agreement of the clients; brokers do not look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordHeader<'a> {
    pub key: &'a [u8],
    pub value: Option<&'a [u8]>,
}

/// The headers of a record, checked when the record was, decoded again when iterated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Headers<'a> {
    count: u32,
    bytes: &'a [u8],
}

impl<'a> Headers<'a> {
    /// How many there are.
    pub const fn len(&self) -> usize {
        self.count as usize
    }

    /// The record has none.
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// In the producer's order; a key may recur.
    pub fn iter(&self) -> impl Iterator<Item = RecordHeader<'a>> + use<'a> {
        let (bytes, mut position) = (self.bytes, 0);
        (0..self.count).map_while(move |_| {
            let key = read_field(bytes, &mut position)??;
            let value = read_field(bytes, &mut position)?;
            Some(RecordHeader { key, value })
        })
    }

    /// As encoded, without their count.
    pub(super) const fn encoded(&self) -> &'a [u8] {
        self.bytes
    }
}

/// A nullable byte string with its length before it; the outer `None` means that it is not all there.
#[expect(clippy::option_option, reason = "the two are different: broken, and null")]
fn read_field<'a>(bytes: &'a [u8], position: &mut usize) -> Option<Option<&'a [u8]>> {
    let length = read_varint(bytes, position)?;
    let Ok(length) = usize::try_from(length) else {
        return Some(None);
    };
    let end = position.checked_add(length)?;
    let field = bytes.get(*position..end)?;
    *position = end;
    Some(Some(field))
}

/// Where a key or value lies; a negative length stands for null.
#[derive(Clone, Copy, Debug)]
pub(super) struct Field {
    start: usize,
    length: i32,
}

impl Field {
    pub(super) const fn is_null(self) -> bool {
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
pub(super) struct Scan {
    /// First byte after the record.
    pub(super) end: usize,
    pub(super) timestamp_delta: i64,
    pub(super) offset_delta: i32,
    pub(super) key: Field,
    value: Field,
    header_count: u32,
    headers_start: usize,
}

impl Scan {
    /// The record in the bytes that were scanned.
    fn record<'a>(&self, bytes: &'a [u8], times: &Times) -> Record<'a> {
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
pub(super) struct Times {
    base_offset: i64,
    first_timestamp: i64,
    append_time: Option<TimestampMs>,
}

impl Times {
    pub(super) fn new(batch: &Batch<'_>) -> Times {
        let append_time = batch.timestamp_type() == TimestampType::LogAppendTime;
        Times {
            base_offset: batch.base_offset().get(),
            first_timestamp: batch.first_timestamp().get(),
            append_time: append_time.then(|| batch.max_timestamp()),
        }
    }

    /// Whether timestamps are ordered as the deltas of a [`Run`] are: none of them overflows.
    pub(super) const fn keep_order(&self) -> bool {
        let largest = 1 << 13; // of a varint of two bytes
        self.first_timestamp.checked_add(largest).is_some()
            && self.first_timestamp.checked_sub(largest).is_some()
    }

    /// Wraps on overflow, as Kafka's arithmetic does: a broken delta is the reader's affair, not a crash.
    #[inline(always)]
    pub(super) fn timestamp(&self, delta: i64) -> TimestampMs {
        match self.append_time {
            None => TimestampMs(self.first_timestamp.wrapping_add(delta)),
            Some(time) => time,
        }
    }

    #[inline(always)]
    pub(super) fn offset(&self, delta: i32) -> Offset {
        Offset(self.base_offset.wrapping_add(i64::from(delta)))
    }
}

#[cold]
fn broken(position: usize, expected: &'static str, found: i64) -> BatchError {
    BatchError::Structure {
        position,
        expected,
        found,
    }
}

const LENGTH: &str = "the length of a record";

/// Reads the v2 record at `position` of `bytes` and checks its structure. Positions of errors count from the
/// start of `bytes`.
#[inline(always)]
pub(super) fn scan(bytes: &[u8], position: usize) -> Result<Scan, BatchError> {
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

/// What a validator needs to know of a record.
#[derive(Clone, Copy, Debug)]
pub(super) struct Brief {
    pub(super) timestamp_delta: i64,
    pub(super) offset_delta: i32,
    pub(super) has_key: bool,
}

/// What [`scan_run`] found in the records at the beginning of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    /// First byte after the run.
    pub(super) end: usize,
    /// Its records; their offset deltas are 0, 1, 2, ..
    pub(super) count: i64,
    /// Largest timestamp delta, and the first record that has it; 0 of an empty run.
    pub(super) max_timestamp_delta: i64,
    pub(super) max_timestamp_index: i64,
    /// Every record has a key.
    pub(super) all_keys: bool,
}

/// Steps over the common records that the bytes at `position` begin with, `limit` at most: sound, without headers,
/// with offsets 0, 1, 2, .. and varints of one or two bytes. It stops before any other, a broken one included,
/// and before the last bytes, where a word is too long; [`scan`] takes those.
#[inline(never)]
pub(super) fn scan_run(bytes: &[u8], position: usize, limit: i64) -> Run {
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

/// The records of a compressed v2 batch.
#[derive(Debug)]
pub(super) struct StreamRecords<'a> {
    window: Window<'a>,
    remaining: u32,
    /// Bytes of the window to drop before the next record: the one that was lent out.
    lent: usize,
}

impl<'a> StreamRecords<'a> {
    /// Starts on a batch with at least one record.
    pub(super) fn new(batch: &Batch<'a>, count: u32) -> Result<StreamRecords<'a>, BatchError> {
        let compressed = &batch.bytes()[RECORD_BATCH_OVERHEAD..];
        let window = Window::new(batch.codec(), batch.magic(), compressed)?;
        Ok(StreamRecords {
            window,
            remaining: count,
            lent: 0,
        })
    }

    fn position(&self) -> usize {
        self.window.consumed() as usize
    }

    /// Reads the length of the next record: its value, and the size of the length field. `None` after the
    /// last record, once it is certain that nothing follows.
    fn next_length(&mut self) -> Result<Option<(usize, usize)>, BatchError> {
        self.window.consume(std::mem::take(&mut self.lent));
        if self.remaining == 0 {
            return match self.window.at_end()? {
                true => Ok(None),
                false => Err(broken(self.position(), "no byte after the last record", 1)),
            };
        }
        self.remaining -= 1;
        self.window.fill_to(5)?;
        let mut head = 0;
        let Some(length) = read_varint(self.window.available(), &mut head) else {
            return Err(broken(
                self.position(),
                LENGTH,
                self.window.available().len() as i64,
            ));
        };
        let Ok(body) = usize::try_from(length) else {
            return Err(broken(
                self.position(),
                "a record length of at least 0",
                length.into(),
            ));
        };
        Ok(Some((body, head)))
    }

    fn next_scan(&mut self) -> Result<Option<Scan>, BatchError> {
        let Some((body, head)) = self.next_length()? else {
            return Ok(None);
        };
        let size = head + body;
        if size > RECORD_SIZE_LIMIT {
            return Err(broken(
                self.position(),
                "a record of at most 256 MiB",
                size as i64,
            ));
        }
        self.window.fill_to(size)?;
        let scan = scan(self.window.available(), 0).map_err(|error| error.shifted(self.position()))?;
        self.lent = scan.end;
        Ok(Some(scan))
    }

    /// The next record without its bytes; a record larger than the window is not held in memory.
    pub(super) fn next_brief(&mut self) -> Result<Option<Brief>, BatchError> {
        let Some((body, head)) = self.next_length()? else {
            return Ok(None);
        };
        let size = head + body;
        if size > super::compression::WINDOW_SIZE / 2 {
            return self.skip_through(body, head).map(Some);
        }
        self.window.fill_to(size)?;
        let scan = scan(self.window.available(), 0).map_err(|error| error.shifted(self.position()))?;
        self.lent = scan.end;
        Ok(Some(Brief {
            timestamp_delta: scan.timestamp_delta,
            offset_delta: scan.offset_delta,
            has_key: !scan.key.is_null(),
        }))
    }

    /// Reads a large record field by field, dropping keys and values as they come.
    #[cold]
    fn skip_through(&mut self, body: usize, head: usize) -> Result<Brief, BatchError> {
        self.window.consume(head);
        let mut skipper = Skipper {
            window: &mut self.window,
            left: body,
        };
        skipper.skip(1)?;
        let timestamp_delta = skipper.varint(read_varlong)?;
        let offset_delta = skipper.varint(read_varint)?;
        let key = skipper.field()?;
        skipper.field()?;
        let headers = skipper.varint(read_varint)?;
        if headers < 0 {
            return Err(skipper.broken("a number of headers of at least 0", headers.into()));
        }
        for _ in 0..headers {
            let key = skipper.field()?;
            if key < 0 {
                return Err(skipper.broken("a header key", key.into()));
            }
            skipper.field()?;
        }
        if skipper.left != 0 {
            return Err(skipper.broken("the end of the record", skipper.left as i64));
        }
        Ok(Brief {
            timestamp_delta,
            offset_delta,
            has_key: key >= 0,
        })
    }
}

struct Skipper<'w, 'a> {
    window: &'w mut Window<'a>,
    left: usize,
}

impl Skipper<'_, '_> {
    fn broken(&self, expected: &'static str, found: i64) -> BatchError {
        broken(self.window.consumed() as usize, expected, found)
    }

    fn skip(&mut self, size: usize) -> Result<(), BatchError> {
        if size > self.left {
            return Err(self.broken("a field within its record", size as i64));
        }
        self.left -= size;
        match self.window.skip(size)? {
            true => Ok(()),
            false => Err(self.broken("a record within the batch", size as i64)),
        }
    }

    fn varint<T>(&mut self, read: fn(&[u8], &mut usize) -> Option<T>) -> Result<T, BatchError> {
        self.window.fill_to(self.left.min(10))?;
        let available = self.window.available();
        let mut size = 0;
        match read(&available[..available.len().min(self.left)], &mut size) {
            Some(value) => self.skip(size).map(|()| value),
            None => Err(self.broken("a field within its record", self.left as i64)),
        }
    }

    /// Steps over a nullable byte string; returns its length.
    fn field(&mut self) -> Result<i32, BatchError> {
        let length = self.varint(read_varint)?;
        if length > 0 {
            self.skip(length as usize)?;
        }
        Ok(length)
    }
}

/// The records of one batch, in order.
///
/// It lends each record until the next call, so it is no [`Iterator`]:
/// `while let Some(record) = records.next_record()? { .. }`.
#[derive(Debug)]
pub struct RecordIter<'a> {
    inner: Inner<'a>,
}

#[derive(Debug)]
enum Inner<'a> {
    Empty,
    Slice {
        bytes: &'a [u8],
        position: usize,
        remaining: u32,
        times: Times,
    },
    Stream {
        records: Box<StreamRecords<'a>>,
        times: Times,
    },
    Message(Option<Record<'a>>),
    Wrapper(Box<WrapperRecords<'a>>),
}

impl<'a> RecordIter<'a> {
    pub(super) fn new(batch: &Batch<'a>) -> Result<RecordIter<'a>, BatchError> {
        let inner = match (batch.magic(), batch.codec(), batch.record_count()) {
            (Magic::V2, _, None | Some(0)) => Inner::Empty,
            (Magic::V2, Codec::None, Some(remaining)) => Inner::Slice {
                bytes: batch.bytes(),
                position: RECORD_BATCH_OVERHEAD,
                remaining,
                times: Times::new(batch),
            },
            (Magic::V2, _, Some(count)) => Inner::Stream {
                records: Box::new(StreamRecords::new(batch, count)?),
                times: Times::new(batch),
            },
            (_, Codec::None, _) => Inner::Message(Some(legacy::Message::parse(batch.bytes())?.record())),
            _ => Inner::Wrapper(Box::new(WrapperRecords::new(batch)?)),
        };
        Ok(RecordIter { inner })
    }

    /// The next record, or `None` after the last, once it is certain that the batch holds nothing more.
    ///
    /// # Errors
    /// `Structure` for a broken record, too few records or bytes after the last; `Compression`. After an
    /// error the iterator is finished.
    pub fn next_record(&mut self) -> Result<Option<Record<'_>>, BatchError> {
        match &mut self.inner {
            Inner::Empty => Ok(None),
            Inner::Slice {
                bytes,
                position,
                remaining,
                times,
            } => {
                if *remaining == 0 {
                    let (at, left) = (*position, bytes.len() - *position);
                    *position = bytes.len();
                    return match left {
                        0 => Ok(None),
                        left => Err(broken(at, "no byte after the last record", left as i64)),
                    };
                }
                match scan(bytes, *position) {
                    Ok(scan) => {
                        *remaining -= 1;
                        *position = scan.end;
                        Ok(Some(scan.record(bytes, times)))
                    }
                    Err(error) => {
                        *remaining = 0;
                        *position = bytes.len();
                        Err(error)
                    }
                }
            }
            Inner::Stream { records, times } => match records.next_scan() {
                Ok(scan) => Ok(scan.map(|scan| scan.record(records.window.available(), times))),
                Err(error) => {
                    records.remaining = 0;
                    Err(error)
                }
            },
            Inner::Message(record) => Ok(record.take()),
            Inner::Wrapper(records) => records.next_record(),
        }
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
