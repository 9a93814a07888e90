//! [`Window`]: a file read by positional pieces of one size, and checksums over ranges that are larger than a piece.

use std::ops::Range;
use std::path::Path;

use milena_engine::config::Magic;
use milena_engine::io::{FileHandle, Io, OpenMode};

use crate::log_dump::report::Read;

/// All that is held of a file, whatever lengths it states.
pub(super) const WINDOW_SIZE_BYTES: usize = 1 << 20;

/// See the module.
#[derive(Debug)]
pub(in crate::log_dump) struct Window {
    file: FileHandle,
    size_bytes: u64,
    buffer: Vec<u8>,
    /// What of the buffer holds bytes of the file, from `start` on.
    filled: usize,
    start: u64,
}

impl Window {
    pub(in crate::log_dump) fn open(io: &dyn Io, path: &Path) -> Read<Window> {
        let file = io.open(path, OpenMode::Read)?;
        Ok(Window {
            size_bytes: file.size_bytes()?,
            file,
            buffer: Vec::new(),
            filled: 0,
            start: 0,
        })
    }

    /// When it was opened.
    pub(in crate::log_dump) fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// The bytes that are held from `position` on.
    fn held(&self, position: u64) -> &[u8] {
        let at = position
            .checked_sub(self.start)
            .and_then(|at| usize::try_from(at).ok());
        at.and_then(|at| self.buffer[..self.filled].get(at..))
            .unwrap_or_default()
    }

    fn fill(&mut self, position: u64) -> Read<()> {
        let left = usize::try_from(self.size_bytes.saturating_sub(position)).unwrap_or(usize::MAX);
        let size = left.min(WINDOW_SIZE_BYTES);
        if self.buffer.len() < size {
            self.buffer.resize(size, 0);
        }
        (self.start, self.filled) = (position, 0);
        self.filled = self.file.read_at(position, &mut self.buffer[..size])?;
        Ok(())
    }

    /// `size` bytes from `position`, or as many as there are; at most a window.
    pub(in crate::log_dump) fn at(&mut self, position: u64, size: usize) -> Read<&[u8]> {
        let left = usize::try_from(self.size_bytes.saturating_sub(position)).unwrap_or(usize::MAX);
        let wanted = size.min(left).min(WINDOW_SIZE_BYTES);
        if self.held(position).len() < wanted {
            self.fill(position)?;
        }
        let held = self.held(position);
        Ok(&held[..wanted.min(held.len())])
    }

    /// All that is held from `position` on, at least `size` bytes where there are so many.
    pub(super) fn ahead(&mut self, position: u64, size: usize) -> Read<&[u8]> {
        self.at(position, size)?;
        Ok(self.held(position))
    }

    /// Hands over the bytes of a range piece by piece; fewer if the file shrank.
    fn each_piece(&mut self, range: Range<u64>, mut each: impl FnMut(&[u8])) -> Read<()> {
        let mut position = range.start;
        while position < range.end {
            if self.held(position).is_empty() {
                self.fill(position)?;
            }
            let held = self.held(position);
            if held.is_empty() {
                break;
            }
            let size = usize::try_from(range.end - position)
                .unwrap_or(usize::MAX)
                .min(held.len());
            each(&held[..size]);
            position += size as u64;
        }
        Ok(())
    }

    /// The checksum of a range as batches of this format carry it.
    pub(super) fn checksum(&mut self, range: Range<u64>, magic: Magic) -> Read<u32> {
        if magic == Magic::V2 {
            let mut crc = 0;
            self.each_piece(range, |piece| crc = crc32c::crc32c_append(crc, piece))?;
            return Ok(crc);
        }
        let mut hasher = crc32fast::Hasher::new();
        self.each_piece(range, |piece| hasher.update(piece))?;
        Ok(hasher.finalize())
    }

    /// Whether a range holds only zeros.
    pub(super) fn is_zero(&mut self, range: Range<u64>) -> Read<bool> {
        let mut position = range.start;
        while position < range.end {
            let size = usize::try_from(range.end - position).unwrap_or(usize::MAX);
            let bytes = self.at(position, size)?;
            if bytes.is_empty() || bytes.iter().any(|byte| *byte != 0) {
                return Ok(bytes.is_empty());
            }
            position += bytes.len() as u64;
        }
        Ok(true)
    }

    /// A whole range in memory of its own. The caller knows that its length is no lie.
    pub(super) fn copy(&mut self, range: Range<u64>) -> Read<Vec<u8>> {
        let mut bytes = Vec::new();
        self.each_piece(range, |piece| bytes.extend_from_slice(piece))?;
        Ok(bytes)
    }
}
