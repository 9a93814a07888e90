//! [`Source`]: a file read by large positional pieces, however large it is.

use std::ops::Range;
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

    /// Hands out `size` bytes from `position` piece by piece; returns how many there were. The window serves what is
    /// in it.
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

    /// Whether a range holds nothing but zeros.
    pub(super) fn is_zero(&mut self, range: Range<u64>) -> Result<bool, IoError> {
        let mut position = range.start;
        while position < range.end {
            let size = usize::try_from(range.end - position).unwrap_or(usize::MAX);
            let bytes = self.bytes_at(position, size.min(WINDOW_SIZE_BYTES))?;
            if bytes.is_empty() || bytes.iter().any(|byte| *byte != 0) {
                return Ok(false);
            }
            position += bytes.len() as u64;
        }
        Ok(true)
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

#[cfg(test)]
mod tests {
    use milena_engine::io::{Backend, open};

    use super::*;

    #[test]
    fn pieces_and_windows_give_the_bytes_of_the_file_and_no_more_than_there_are() {
        let path = std::env::temp_dir().join(format!("milena-source-{}", std::process::id()));
        let content: Vec<u8> = (0..3 * WINDOW_SIZE_BYTES)
            .map(|index| (index / 7) as u8)
            .collect();
        std::fs::write(&path, &content).unwrap();
        let io = open(Backend::Syscall).unwrap();
        let mut source = Source::open(&*io, &path).unwrap();
        for (position, size) in [
            (0, 10),
            (5, 2 * WINDOW_SIZE_BYTES),
            (2 << 20, 1 << 20),
            (100, 1 << 19),
        ] {
            let wanted = &content[position..position + size];
            assert_eq!(source.bytes_at(position as u64, size).unwrap(), wanted);
            let mut pieces = Vec::new();
            let read = source
                .pieces(position as u64, size, |piece| pieces.extend_from_slice(piece))
                .unwrap();
            assert!(read == size && pieces == wanted, "{size} bytes from {position}");
        }
        let behind = 3 * WINDOW_SIZE_BYTES as u64 - 4;
        assert_eq!(source.bytes_at(behind, usize::MAX).unwrap().len(), 4);
        assert_eq!(source.pieces(behind, 1 << 30, |_| {}).unwrap(), 4);
        std::fs::OpenOptions::new()
            .write(true)
            .open(&path)
            .unwrap()
            .set_len(7)
            .unwrap();
        assert_eq!(source.refresh().unwrap(), 7);
        assert_eq!(source.bytes_at(5, 10).unwrap(), &content[5..7]);
        std::fs::remove_file(&path).unwrap();
    }
}
