//! [`BatchScanner`]: walks the batches of a segment file by large positional reads.
//!
//! It never trusts a length: its buffer grows to the size of a batch only as far as the file really reaches.
//! It stops at the first thing that is not a batch and says what it is; telling a torn tail from damage is
//! `recovery`'s.

use crate::error::IoError;
use crate::io::File;
use crate::record_batch::{Batch, BatchError, BatchHeader};

/// A positional read of a scan, for a pass over the whole segment.
pub(crate) const SCAN_WINDOW_SIZE_BYTES: usize = 1 << 20;
/// A positional read of a lookup, which rarely passes more than one index interval.
pub(crate) const LOOKUP_WINDOW_SIZE_BYTES: usize = 4 << 10;

/// What is at the scanner's position.
#[derive(Debug)]
pub(crate) enum Step {
    /// A batch whose header is sound and which lies within the bounds; the scanner now stands behind it.
    Batch { position: u64, header: BatchHeader },
    /// The end of the range, at a batch boundary.
    End,
    /// No batch; the scanner stays.
    Bad { position: u64, error: BatchError },
}

#[derive(Debug)]
pub(crate) struct BatchScanner<'a> {
    file: &'a dyn File,
    position: u64,
    end: u64,
    window_size: usize,
    buffer: Vec<u8>,
    buffer_position: u64,
}

impl<'a> BatchScanner<'a> {
    /// Over `position..end` of the file; `position` must be a batch boundary.
    pub(crate) fn new(file: &'a dyn File, position: u64, end: u64, window_size: usize) -> BatchScanner<'a> {
        BatchScanner {
            file,
            position,
            end,
            window_size,
            buffer: Vec::new(),
            buffer_position: 0,
        }
    }

    /// The bytes at `position`, at least `size` of them if the range has so many.
    fn bytes_at(&mut self, position: u64, size: usize) -> Result<&[u8], IoError> {
        let remaining = usize::try_from(self.end.saturating_sub(position)).unwrap_or(usize::MAX);
        let wanted = size.min(remaining);
        let buffered_end = self.buffer_position + self.buffer.len() as u64;
        if position < self.buffer_position || position + wanted as u64 > buffered_end {
            let size = wanted.max(self.window_size).min(remaining);
            self.buffer.resize(size, 0);
            let read = self.file.read_at(position, &mut self.buffer)?;
            self.buffer.truncate(read);
            self.buffer_position = position;
        }
        Ok(&self.buffer[(position - self.buffer_position) as usize..])
    }

    /// Reads in larger pieces from here on.
    pub(crate) fn widen(&mut self, window_size: usize) {
        self.window_size = window_size;
    }

    /// Reads the next header and moves behind its batch.
    ///
    /// # Errors
    /// The failed read.
    pub(crate) fn step(&mut self) -> Result<Step, IoError> {
        let position = self.position;
        if position >= self.end {
            return Ok(Step::End);
        }
        let remaining = self.end - position;
        let prefix = self.bytes_at(position, BatchHeader::SIZE_MAX)?;
        Ok(match BatchHeader::parse(prefix) {
            Ok(header) if header.size_bytes as u64 <= remaining => {
                self.position = position + header.size_bytes as u64;
                Step::Batch { position, header }
            }
            Ok(header) => {
                let found = usize::try_from(remaining).unwrap_or(usize::MAX);
                let error = BatchError::Partial {
                    position: 0,
                    expected: header.size_bytes,
                    found,
                };
                Step::Bad { position, error }
            }
            Err(error) => Step::Bad { position, error },
        })
    }

    /// The whole batch that [`BatchScanner::step`] found at `position`.
    ///
    /// # Errors
    /// Outside, the failed read. Inside, bytes that are no longer the batch that the step saw (the file
    /// shrank).
    pub(crate) fn batch(
        &mut self,
        position: u64,
        header: &BatchHeader,
    ) -> Result<Result<Batch<'_>, BatchError>, IoError> {
        let size = header.size_bytes;
        let bytes = self.bytes_at(position, size)?;
        Ok(Batch::parse(&bytes[..size.min(bytes.len())]))
    }
}

/// Whether all bytes of `position..end` are zero.
pub(crate) fn is_zero(file: &dyn File, mut position: u64, end: u64) -> Result<bool, IoError> {
    let mut buffer = vec![0; 64 << 10];
    while position < end {
        let size = usize::try_from(end - position)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        let read = file.read_at(position, &mut buffer[..size])?;
        if buffer[..read].iter().any(|byte| *byte != 0) {
            return Ok(false);
        }
        if read < size {
            break;
        }
        position += read as u64;
    }
    Ok(true)
}
