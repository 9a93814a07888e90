//! Records of a batch: [`Record`], borrowed, and [`RecordIter`], which walks those of a batch of any layout.
//!
//! Invariants: a record ends exactly where its length says; the last record ends exactly where the batch
//! does. A compressed batch is held in memory one record at a time.
//!
//! Source: `DefaultRecord`, `DefaultRecordBatch.RecordIterator` of 2.7.2.

mod scan;
mod stream;

pub(super) use scan::{Times, scan, scan_run};
pub(super) use stream::StreamRecords;

use super::legacy::{self, WrapperRecords};
use super::varint::read_varint;
use super::{Batch, BatchError, RECORD_BATCH_OVERHEAD};
use crate::config::{Codec, Magic};
use crate::units::{Offset, TimestampMs};

use scan::broken;

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
            Inner::Stream { records, times } => records.next_record(times),
            Inner::Message(record) => Ok(record.take()),
            Inner::Wrapper(records) => records.next_record(),
        }
    }
}
