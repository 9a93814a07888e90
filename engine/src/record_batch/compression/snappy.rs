//! Snappy in the block framing of snappy-java ("xerial"), and raw snappy as that library accepts it.
//!
//! Framing: magic `82 "SNAPPY" 00`, version i32 = 1, compatible version i32 = 1, then blocks of `size i32`
//! and raw snappy, all big-endian. A header may recur between blocks (concatenated streams). Fewer than 4
//! bytes after a block are ignored. Input without the magic is one raw snappy block.

use super::{fill_block, give_back, take_buffer};
use crate::config::Codec;
use crate::record_batch::{BatchError, array};

const MAGIC: [u8; 8] = [0x82, b'S', b'N', b'A', b'P', b'P', b'Y', 0];
/// Magic 8, version 4, compatible version 4.
const HEADER: usize = 16;
/// Uncompressed bytes per block, snappy-java's default.
const BLOCK_SIZE: usize = 32 * 1024;
/// A copy of 64 bytes takes 3 bytes of input, so that no block expands more than 64 / 3 times.
const EXPANSION_MAX: usize = 22;

#[derive(Debug)]
pub(super) struct Reader<'a> {
    input: &'a [u8],
    position: usize,
    /// Whether blocks have a size before them.
    framed: bool,
    block: Vec<u8>,
    block_position: usize,
}

fn error(position: usize, reason: &'static str) -> BatchError {
    BatchError::Compression {
        codec: Codec::Snappy,
        position,
        reason,
    }
}

impl<'a> Reader<'a> {
    pub(super) fn new(input: &'a [u8]) -> Result<Reader<'a>, BatchError> {
        if input.is_empty() {
            return Err(error(0, "empty input"));
        }
        let framed = input.len() >= HEADER && input.starts_with(&MAGIC);
        let position = if framed { HEADER } else { 0 };
        let block = take_buffer();
        Ok(Reader {
            input: &input[position..],
            position,
            framed,
            block,
            block_position: 0,
        })
    }

    pub(super) fn read(&mut self, out: &mut [u8]) -> Result<usize, BatchError> {
        while self.block_position == self.block.len() {
            if !self.next_block()? {
                return Ok(0);
            }
        }
        let rest = &self.block[self.block_position..];
        let count = rest.len().min(out.len());
        out[..count].copy_from_slice(&rest[..count]);
        self.block_position += count;
        Ok(count)
    }

    fn next_block(&mut self) -> Result<bool, BatchError> {
        self.block.clear();
        self.block_position = 0;
        let size = if self.framed {
            loop {
                let Some(head) = array::<4>(self.input, 0) else {
                    return Ok(false);
                };
                if head != MAGIC[..4] {
                    break self.block_size(head)?;
                }
                let header = self.input.get(..HEADER).ok_or_else(|| {
                    error(self.position, "the header of a concatenated stream is incomplete")
                })?;
                if !header.starts_with(&MAGIC) {
                    return Ok(false);
                }
                self.advance(HEADER);
            }
        } else if self.input.is_empty() {
            return Ok(false);
        } else {
            self.input.len()
        };
        let compressed = &self.input[..size];
        let expected = snap::raw::decompress_len(compressed)
            .map_err(|_| error(self.position, "the size of a snappy block is broken"))?;
        if expected > size.saturating_mul(EXPANSION_MAX) {
            return Err(error(
                self.position,
                "a snappy block states more bytes than it can hold",
            ));
        }
        self.block.resize(expected, 0);
        let written = snap::raw::Decoder::new()
            .decompress(compressed, &mut self.block)
            .map_err(|_| error(self.position, "a snappy block is broken"))?;
        self.block.truncate(written);
        self.advance(size);
        Ok(true)
    }

    /// Takes the size of a block and checks that the block is there.
    fn block_size(&mut self, head: [u8; 4]) -> Result<usize, BatchError> {
        let size = i32::from_be_bytes(head);
        let there = self.input.len() - 4;
        match usize::try_from(size) {
            Ok(size) if size <= there => {
                self.advance(4);
                Ok(size)
            }
            _ => Err(error(self.position, "a snappy block has an impossible size")),
        }
    }

    fn advance(&mut self, size: usize) {
        self.input = &self.input[size..];
        self.position += size;
    }
}

impl Drop for Reader<'_> {
    fn drop(&mut self) {
        give_back(std::mem::take(&mut self.block));
    }
}

/// Writes xerial framing, as Kafka's Java clients do.
pub(super) struct Writer {
    out: Vec<u8>,
    block: Vec<u8>,
    encoder: snap::raw::Encoder,
}

impl Writer {
    pub(super) fn new(mut out: Vec<u8>) -> Writer {
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&1i32.to_be_bytes());
        out.extend_from_slice(&1i32.to_be_bytes());
        Writer {
            out,
            block: take_buffer(),
            encoder: snap::raw::Encoder::new(),
        }
    }

    pub(super) fn write(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if fill_block(&mut self.block, &mut bytes, BLOCK_SIZE) {
                self.end_block();
            }
        }
    }

    fn end_block(&mut self) {
        if self.block.is_empty() {
            return;
        }
        let start = self.out.len();
        self.out
            .resize(start + 4 + snap::raw::max_compress_len(self.block.len()), 0);
        let size = self
            .encoder
            .compress(&self.block, &mut self.out[start + 4..])
            .expect("the output has room for the worst case of a block of 32 KiB");
        self.out[start..start + 4].copy_from_slice(&(size as u32).to_be_bytes());
        self.out.truncate(start + 4 + size);
        self.block.clear();
    }

    pub(super) fn size_bytes(&self) -> usize {
        self.out.len()
    }

    pub(super) fn finish(mut self) -> Vec<u8> {
        self.end_block();
        give_back(self.block);
        self.out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_all(input: &[u8]) -> Result<Vec<u8>, BatchError> {
        let mut reader = Reader::new(input)?;
        let (mut all, mut out) = (Vec::new(), [0; 100]);
        loop {
            match reader.read(&mut out)? {
                0 => return Ok(all),
                count => all.extend_from_slice(&out[..count]),
            }
        }
    }

    fn framed(bytes: &[u8]) -> Vec<u8> {
        let mut writer = Writer::new(Vec::new());
        writer.write(bytes);
        writer.finish()
    }

    #[test]
    fn raw_snappy_and_concatenated_streams_are_read() {
        let raw = snap::raw::Encoder::new()
            .compress_vec(b"raw as some clients send it")
            .unwrap();
        assert_eq!(read_all(&raw).as_deref(), Ok(&b"raw as some clients send it"[..]));
        let mut two = framed(b"one ");
        two.extend(framed(b"two"));
        two.extend([0, 0]);
        assert_eq!(read_all(&two).as_deref(), Ok(&b"one two"[..]));
    }

    #[test]
    fn a_block_that_states_gigabytes_is_refused_before_they_are_allocated() {
        // 0xffffffff as the uncompressed size
        let mut bytes = framed(b"");
        bytes.extend([0, 0, 0, 6, 0xff, 0xff, 0xff, 0xff, 0x0f, 0]);
        assert!(matches!(
            read_all(&bytes),
            Err(BatchError::Compression { position: 20, .. })
        ));
        let raw = [0xff, 0xff, 0xff, 0xff, 0x0f, 0];
        assert!(matches!(
            read_all(&raw),
            Err(BatchError::Compression { position: 0, .. })
        ));
    }
}
