//! The records of a compressed v2 batch, as they come out of the decompressor: [`StreamRecords`].
//!
//! Promise: no more than one record is held in memory, and of a large one that is only checked not even that.
//!
//! Source: `DefaultRecordBatch.StreamRecordIterator`, `PartialDefaultRecord` of 2.7.2; KAFKA-8106.

use super::Record;
use super::scan::{LENGTH, Scan, Times, broken, scan};
use crate::record_batch::compression::{RECORD_SIZE_LIMIT, WINDOW_SIZE, Window};
use crate::record_batch::varint::{read_varint, read_varlong};
use crate::record_batch::{Batch, BatchError, RECORD_BATCH_OVERHEAD};

/// What a validator needs to know of a record.
#[derive(Clone, Copy, Debug)]
pub(in crate::record_batch) struct Brief {
    pub(in crate::record_batch) timestamp_delta: i64,
    pub(in crate::record_batch) offset_delta: i32,
    pub(in crate::record_batch) has_key: bool,
}

/// The records of a compressed v2 batch.
#[derive(Debug)]
pub(in crate::record_batch) struct StreamRecords<'a> {
    window: Window<'a>,
    remaining: u32,
    /// Bytes of the window to drop before the next record: the one that was lent out.
    lent: usize,
}

impl<'a> StreamRecords<'a> {
    /// Starts on a batch with at least one record.
    pub(in crate::record_batch) fn new(
        batch: &Batch<'a>,
        count: u32,
    ) -> Result<StreamRecords<'a>, BatchError> {
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

    /// The next record, which borrows from the window until the next call. An error ends the stream.
    pub(super) fn next_record(&mut self, times: &Times) -> Result<Option<Record<'_>>, BatchError> {
        match self.next_scan() {
            Ok(scan) => Ok(scan.map(|scan| scan.record(self.window.available(), times))),
            Err(error) => {
                self.remaining = 0;
                Err(error)
            }
        }
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
    pub(in crate::record_batch) fn next_brief(&mut self) -> Result<Option<Brief>, BatchError> {
        let Some((body, head)) = self.next_length()? else {
            return Ok(None);
        };
        let size = head + body;
        if size > WINDOW_SIZE / 2 {
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
