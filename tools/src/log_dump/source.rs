//! [`Source`]: a file read by large positional pieces, however large it is.

use std::path::Path;

use milena_engine::error::IoError;
use milena_engine::io::{FileHandle, Io, OpenMode};

/// What one read brings, unless a batch is larger.
const WINDOW_SIZE_BYTES: usize = 1 << 20;

/// What is read at a time of a batch that is larger than a window.
const PIECE_SIZE_BYTES: usize = 1 << 18;

/// An open file with a window over it. Memory is the window's, or that of the largest piece asked for.
#[derive(Debug)]
pub(super) struct Source {
    file: FileHandle,
    size_bytes: u64,
    window: Vec<u8>,
    window_position: u64,
}

impl Source {
    pub(super) fn open(io: &dyn Io, path: &Path) -> Result<Source, IoError> {
        let file = io.open(path, OpenMode::Read)?;
        Ok(Source {
            size_bytes: file.size_bytes()?,
            file,
            window: Vec::new(),
            window_position: 0,
        })
    }

    /// When it was opened.
    pub(super) fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// The size that the file has now; what was read of it before is forgotten.
    pub(super) fn refresh(&mut self) -> Result<u64, IoError> {
        self.size_bytes = self.file.size_bytes()?;
        self.window.clear();
        Ok(self.size_bytes)
    }

    /// Hands out `size` bytes from `position` piece by piece; returns how many there were. The window serves what is in it.
    pub(super) fn pieces(
        &mut self,
        position: u64,
        size: usize,
        mut each: impl FnMut(&[u8]),
    ) -> Result<usize, IoError> {
        if size <= WINDOW_SIZE_BYTES {
            let bytes = self.bytes_at(position, size)?;
            each(bytes);
            return Ok(bytes.len());
        }
        let mut piece = vec![0; PIECE_SIZE_BYTES];
        let mut done = 0;
        while done < size {
            let wanted = PIECE_SIZE_BYTES.min(size - done);
            let read = self.file.read_at(position + done as u64, &mut piece[..wanted])?;
            each(&piece[..read]);
            done += read;
            if read < wanted {
                break;
            }
        }
        Ok(done)
    }

    /// `size` bytes from `position`, or as many as there are.
    pub(super) fn bytes_at(&mut self, position: u64, size: usize) -> Result<&[u8], IoError> {
        let left = usize::try_from(self.size_bytes.saturating_sub(position)).unwrap_or(usize::MAX);
        let wanted = size.min(left);
        let window_end = self.window_position + self.window.len() as u64;
        if position < self.window_position || position + wanted as u64 > window_end {
            self.window.resize(wanted.max(WINDOW_SIZE_BYTES).min(left), 0);
            self.window.shrink_to(wanted.max(WINDOW_SIZE_BYTES));
            self.window_position = position;
            let read = self.file.read_at(position, &mut self.window)?;
            self.window.truncate(read);
        }
        let rest = self
            .window
            .get((position - self.window_position) as usize..)
            .unwrap_or_default();
        Ok(&rest[..wanted.min(rest.len())])
    }
}
