//! [`SparseIndex`]: the file of fixed-size entries that `.index` and `.timeindex` share.
//!
//! Entries are appended in memory and written through in small batches, at a roll, a flush and a clean close;
//! they are read by positional reads, never mapped. The file holds whole entries only and is never sized
//! ahead. Promise: after [`SparseIndex::write_through`] the file holds exactly the entries. Everything read
//! from it is a hint: the caller checks what it finds at the position that an entry names.
//!
//! Invariant: entries `0..written` are in the file, the rest in `tail`. Source: `AbstractIndex.scala`.
//!
//! **Deviation:** 2.7.2 sizes the active segment's index files ahead to `segment.index.bytes` and maps them;
//! after a crash they end in zeros. Ours are short instead: both are rebuilt by recovery.

use std::io::IoSlice;

use crate::error::IoError;
use crate::io::{FileHandle, OpenMode};
use crate::log::names;
use crate::log::place::Place;
use crate::units::Offset;

/// Entries kept in memory before they are written: 512 of them span 2 MiB of log at the default interval of 4
/// KiB.
const TAIL_COUNT_MAX: usize = 512;
/// Entries read at once when a search has narrowed that far: 4 KiB and a little.
const WINDOW_COUNT: u32 = 512;

/// One entry of an index file.
pub(crate) trait Entry: Copy {
    const SIZE_BYTES: usize;
    /// The ending of the file's name.
    const SUFFIX: &'static str;
    /// Appends the entry's bytes; offsets are stored relative to `base`.
    fn encode(&self, base: Offset, out: &mut Vec<u8>);
    /// Any `SIZE_BYTES` bytes decode to something.
    fn decode(base: Offset, bytes: &[u8]) -> Self;
}

/// The entries of one index, in memory as far as they are not written. See the module for what it promises.
#[derive(Debug)]
pub(crate) struct SparseIndex<E> {
    /// `None` until the file was looked at.
    written: Option<u32>,
    tail: Vec<E>,
    last: Option<E>,
    /// The file may not end where the entries do.
    ragged: bool,
    file: Option<FileHandle>,
}

impl<E: Entry> SparseIndex<E> {
    /// Of a segment that is being created: there is no file yet.
    pub(crate) fn new_empty() -> SparseIndex<E> {
        SparseIndex {
            written: Some(0),
            tail: Vec::new(),
            last: None,
            ragged: true,
            file: None,
        }
    }

    /// Of a segment found on disk: the file is looked at when it is needed.
    pub(crate) fn on_disk() -> SparseIndex<E> {
        SparseIndex {
            written: None,
            tail: Vec::new(),
            last: None,
            ragged: false,
            file: None,
        }
    }

    fn name(base: Offset) -> String {
        names::file_name(base, E::SUFFIX)
    }

    fn load(&mut self, place: &Place, base: Offset) -> Result<u32, IoError> {
        if let Some(written) = self.written {
            return Ok(written);
        }
        let written = match place.open_to_read(&Self::name(base)) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                self.ragged = true;
                0
            }
            Err(error) => return Err(error),
            Ok(file) => {
                let size = file.size_bytes()?;
                let count = u32::try_from(size / E::SIZE_BYTES as u64).unwrap_or(u32::MAX);
                self.ragged = size % E::SIZE_BYTES as u64 != 0;
                self.file = Some(file);
                count
            }
        };
        self.last = match written.checked_sub(1) {
            Some(index) => self.read(place, base, index, 1)?.pop(),
            None => None,
        };
        self.written = Some(written);
        Ok(written)
    }

    /// Entries `first..first + count` of the file, fewer if it is shorter.
    fn read(&mut self, place: &Place, base: Offset, first: u32, count: u32) -> Result<Vec<E>, IoError> {
        let file = match &self.file {
            Some(file) => file,
            None => self.file.insert(place.open_to_read(&Self::name(base))?),
        };
        let mut bytes = vec![0; count as usize * E::SIZE_BYTES];
        let read = file.read_at(u64::from(first) * E::SIZE_BYTES as u64, &mut bytes)?;
        Ok(bytes[..read]
            .chunks_exact(E::SIZE_BYTES)
            .map(|bytes| E::decode(base, bytes))
            .collect())
    }

    pub(crate) fn count(&mut self, place: &Place, base: Offset) -> Result<u32, IoError> {
        Ok(self.load(place, base)? + self.tail.len() as u32)
    }

    /// The last entry; `None` in an empty index.
    pub(crate) fn last(&mut self, place: &Place, base: Offset) -> Result<Option<E>, IoError> {
        self.load(place, base)?;
        Ok(self.tail.last().copied().or(self.last))
    }

    pub(crate) fn get(&mut self, place: &Place, base: Offset, index: u32) -> Result<Option<E>, IoError> {
        let written = self.load(place, base)?;
        if index >= written {
            return Ok(self.tail.get((index - written) as usize).copied());
        }
        Ok(self.read(place, base, index, 1)?.pop())
    }

    /// How many leading entries satisfy `before`, which must hold for a prefix of them.
    pub(crate) fn partition_point(
        &mut self,
        place: &Place,
        base: Offset,
        before: impl Fn(&E) -> bool,
    ) -> Result<u32, IoError> {
        let written = self.load(place, base)?;
        if self.last.is_none_or(|last| before(&last)) {
            return Ok(written + self.tail.partition_point(before) as u32);
        }
        let (mut low, mut high) = (0, written);
        while high - low > WINDOW_COUNT {
            let middle = low + (high - low) / 2;
            match self.read(place, base, middle, 1)?.first() {
                Some(entry) if before(entry) => low = middle + 1,
                _ => high = middle,
            }
        }
        let window = self.read(place, base, low, high - low)?;
        Ok(low + window.partition_point(before) as u32)
    }

    /// Adds an entry in memory. The file must have been looked at ([`SparseIndex::count`]).
    pub(crate) fn push(&mut self, entry: E) {
        debug_assert!(
            self.written.is_some(),
            "an index is loaded before it is appended to"
        );
        self.tail.push(entry);
    }

    /// Whether enough has gathered in memory to be written.
    pub(crate) fn wants_write(&self) -> bool {
        self.tail.len() >= TAIL_COUNT_MAX
    }

    /// Writes what is in memory and trims the file to whole entries, creating it if missing. Nothing is
    /// synced. A failure is final for the directory.
    pub(crate) fn write_through(&mut self, place: &Place, base: Offset) -> Result<(), IoError> {
        let written = self.load(place, base)?;
        if self.tail.is_empty() && !self.ragged {
            return Ok(());
        }
        let file = place.open_to_write(&Self::name(base), OpenMode::ReadWriteCreate)?;
        if self.ragged {
            file.set_len(u64::from(written) * E::SIZE_BYTES as u64)
                .map_err(|error| place.fatal(error))?;
            self.ragged = false;
        }
        if !self.tail.is_empty() {
            let mut bytes = Vec::with_capacity(self.tail.len() * E::SIZE_BYTES);
            for entry in &self.tail {
                entry.encode(base, &mut bytes);
            }
            file.write_vectored_at(u64::from(written) * E::SIZE_BYTES as u64, &[IoSlice::new(&bytes)])
                .map_err(|error| place.fatal(error))?;
            self.written = Some(written + self.tail.len() as u32);
            self.last = self.tail.last().copied();
            self.tail = Vec::new();
        }
        self.file = None;
        Ok(())
    }

    /// Keeps the first `count` entries, in memory and in the file. A failure is final for the directory.
    pub(crate) fn truncate(&mut self, place: &Place, base: Offset, count: u32) -> Result<(), IoError> {
        let written = self.load(place, base)?;
        if count >= written {
            self.tail.truncate((count - written) as usize);
            return Ok(());
        }
        self.tail.clear();
        let file = place.open_to_write(&Self::name(base), OpenMode::ReadWriteCreate)?;
        file.set_len(u64::from(count) * E::SIZE_BYTES as u64)
            .map_err(|error| place.fatal(error))?;
        self.ragged = false;
        self.written = Some(count);
        self.file = Some(file);
        self.last = match count.checked_sub(1) {
            Some(index) => self.read(place, base, index, 1)?.pop(),
            None => None,
        };
        Ok(())
    }

    /// Closes the file until it is needed again.
    pub(crate) fn release(&mut self) {
        self.file = None;
    }
}
