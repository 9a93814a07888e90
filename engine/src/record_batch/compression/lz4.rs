//! LZ4 frames as Kafka's own reader and writer understand them: independent blocks only, one frame, nothing
//! skippable.
//!
//! Kafka's message format v0 carries a frame header whose checksum was computed over the frame magic too.
//! Magic 0 is therefore written with that wrong checksum, and read without looking at it. The content
//! checksum is stepped over, not verified.
//!
//! **Deviation:** a match at distance 0, which the format forbids, is refused; lz4-java copies what lies there.

use super::{fill_block, give_back, take_buffer};
use crate::config::Codec;
use crate::record_batch::{BatchError, array};

const MAGIC: [u8; 4] = 0x184d_2204u32.to_le_bytes();
const UNCOMPRESSED: u32 = 0x8000_0000;
/// Version 1, independent blocks.
const FLAGS: u8 = 0x60;
/// Blocks of 64 KiB.
const DESCRIPTOR: u8 = 0x40;
const BLOCK_SIZE: usize = 64 * 1024;

#[derive(Debug)]
pub(super) struct Reader<'a> {
    input: &'a [u8],
    position: usize,
    block_checksum: bool,
    block_size_max: usize,
    block: Vec<u8>,
    block_position: usize,
    ended: bool,
}

fn error(position: usize, reason: &'static str) -> BatchError {
    BatchError::Compression {
        codec: Codec::Lz4,
        position,
        reason,
    }
}

const SHORT: &str = "the stream ends too early";

impl<'a> Reader<'a> {
    pub(super) fn new(input: &'a [u8], ignore_header_checksum: bool) -> Result<Reader<'a>, BatchError> {
        let Some(&[m0, m1, m2, m3, flags, descriptor]) = input.first_chunk::<6>() else {
            return Err(error(0, SHORT));
        };
        if [m0, m1, m2, m3] != MAGIC {
            return Err(error(0, "not an LZ4 frame"));
        }
        if flags >> 6 != 1 || flags & 3 != 0 {
            return Err(error(4, "unknown version or flags"));
        }
        if flags & 0x20 == 0 {
            return Err(error(4, "dependent blocks are not supported"));
        }
        let size_code = descriptor >> 4;
        if descriptor & 0x8f != 0 || !(4..=7).contains(&size_code) {
            return Err(error(
                5,
                "the block size is not one of 64 KiB, 256 KiB, 1 MiB, 4 MiB",
            ));
        }
        let checksum_at = if flags & 8 == 0 { 6 } else { 14 };
        let stored = *input.get(checksum_at).ok_or_else(|| error(6, SHORT))?;
        if !ignore_header_checksum && stored != header_checksum(&input[4..checksum_at]) {
            return Err(error(checksum_at, "the checksum of the frame header is wrong"));
        }
        Ok(Reader {
            input: &input[checksum_at + 1..],
            position: checksum_at + 1,
            block_checksum: flags & 0x10 != 0,
            block_size_max: 1 << (2 * size_code + 8),
            block: take_buffer(),
            block_position: 0,
            ended: false,
        })
    }

    pub(super) fn read(&mut self, out: &mut [u8]) -> Result<usize, BatchError> {
        while self.block_position == self.block.len() {
            if self.ended {
                return Ok(0);
            }
            self.next_block()?;
        }
        let rest = &self.block[self.block_position..];
        let count = rest.len().min(out.len());
        out[..count].copy_from_slice(&rest[..count]);
        self.block_position += count;
        Ok(count)
    }

    fn next_block(&mut self) -> Result<(), BatchError> {
        self.block.clear();
        self.block_position = 0;
        let word = u32::from_le_bytes(array(self.input, 0).ok_or_else(|| error(self.position, SHORT))?);
        let size = (word & !UNCOMPRESSED) as usize;
        if size == 0 {
            // whether or not a content checksum follows: the frame ends here, and one frame is all
            self.ended = true;
            return Ok(());
        }
        if size > self.block_size_max {
            return Err(error(self.position, "a block is larger than the frame allows"));
        }
        let data = self
            .input
            .get(4..4 + size)
            .ok_or_else(|| error(self.position, SHORT))?;
        if word & UNCOMPRESSED == 0 {
            // bounded by 255 times the input and by 4 MiB
            self.block
                .resize(self.block_size_max.min(size.saturating_mul(255)), 0);
            let written = lz4_flex::block::decompress_into(data, &mut self.block)
                .map_err(|_| error(self.position, "a block is broken"))?;
            self.block.truncate(written);
        } else {
            self.block.extend_from_slice(data);
        }
        let mut used = 4 + size;
        if self.block_checksum {
            let stored = array(self.input, used).ok_or_else(|| error(self.position, SHORT))?;
            if u32::from_le_bytes(stored) != xxh32(data) {
                return Err(error(self.position, "the checksum of a block is wrong"));
            }
            used += 4;
        }
        self.input = &self.input[used..];
        self.position += used;
        Ok(())
    }
}

impl Drop for Reader<'_> {
    fn drop(&mut self) {
        give_back(std::mem::take(&mut self.block));
    }
}

pub(super) struct Writer {
    out: Vec<u8>,
    block: Vec<u8>,
}

impl Writer {
    pub(super) fn new(mut out: Vec<u8>, wrong_header_checksum: bool) -> Writer {
        let start = out.len();
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&[FLAGS, DESCRIPTOR]);
        let covered = if wrong_header_checksum {
            start
        } else {
            start + MAGIC.len()
        };
        let checksum = header_checksum(&out[covered..]);
        out.push(checksum);
        Writer {
            out,
            block: take_buffer(),
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
        let room = lz4_flex::block::get_maximum_output_size(self.block.len());
        self.out.resize(start + 4 + room, 0);
        let size = lz4_flex::block::compress_into(&self.block, &mut self.out[start + 4..])
            .expect("the output has room for the worst case");
        let word = if size < self.block.len() {
            self.out.truncate(start + 4 + size);
            size as u32
        } else {
            self.out.truncate(start + 4);
            self.out.extend_from_slice(&self.block);
            self.block.len() as u32 | UNCOMPRESSED
        };
        self.out[start..start + 4].copy_from_slice(&word.to_le_bytes());
        self.block.clear();
    }

    pub(super) fn size_bytes(&self) -> usize {
        self.out.len()
    }

    pub(super) fn finish(mut self) -> Vec<u8> {
        self.end_block();
        self.out.extend_from_slice(&[0; 4]);
        give_back(self.block);
        self.out
    }
}

fn header_checksum(covered: &[u8]) -> u8 {
    (xxh32(covered) >> 8) as u8
}

/// XXH32 with seed 0, the checksum of LZ4 frames.
fn xxh32(bytes: &[u8]) -> u32 {
    const P: [u32; 5] = [0x9e37_79b1, 0x85eb_ca77, 0xc2b2_ae3d, 0x27d4_eb2f, 0x1656_67b1];
    let word = |bytes: &[u8]| u32::from_le_bytes(array(bytes, 0).unwrap_or_default());
    let stripes = bytes.chunks_exact(16);
    let mut rest = stripes.remainder();
    let mut hash = if bytes.len() >= 16 {
        let mut lanes = [P[0].wrapping_add(P[1]), P[1], 0, 0u32.wrapping_sub(P[0])];
        for stripe in stripes {
            for (lane, input) in lanes.iter_mut().zip(stripe.chunks_exact(4)) {
                *lane = lane
                    .wrapping_add(word(input).wrapping_mul(P[1]))
                    .rotate_left(13)
                    .wrapping_mul(P[0]);
            }
        }
        let [a, b, c, d] = lanes;
        a.rotate_left(1)
            .wrapping_add(b.rotate_left(7))
            .wrapping_add(c.rotate_left(12))
            .wrapping_add(d.rotate_left(18))
    } else {
        P[4]
    };
    hash = hash.wrapping_add(bytes.len() as u32);
    while rest.len() >= 4 {
        hash = hash
            .wrapping_add(word(rest).wrapping_mul(P[2]))
            .rotate_left(17)
            .wrapping_mul(P[3]);
        rest = &rest[4..];
    }
    for &byte in rest {
        hash = hash
            .wrapping_add(u32::from(byte).wrapping_mul(P[4]))
            .rotate_left(11)
            .wrapping_mul(P[0]);
    }
    hash = (hash ^ (hash >> 15)).wrapping_mul(P[1]);
    hash = (hash ^ (hash >> 13)).wrapping_mul(P[2]);
    hash ^ (hash >> 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn xxh32_has_the_published_values() {
        assert_eq!(xxh32(b""), 0x02cc_5d05);
        assert_eq!(xxh32(b"a"), 0x550d_7456);
        assert_eq!(xxh32(b"abc"), 0x32d1_53ff);
        assert_eq!(xxh32(b"Nobody inspects the spammish repetition"), 0xe229_3b2f);
    }

    #[test]
    fn the_reference_implementation_reads_our_frames_and_we_read_its_independent_blocks() {
        use std::io::{Read as _, Write as _};
        let bytes: Vec<u8> = (0..200_000u32).map(|i| (i.wrapping_mul(i) >> 7) as u8).collect();
        let mut writer = Writer::new(Vec::new(), false);
        writer.write(&bytes);
        let mut back = Vec::new();
        lz4_flex::frame::FrameDecoder::new(&writer.finish()[..])
            .read_to_end(&mut back)
            .unwrap();
        assert_eq!(back, bytes);

        let info = lz4_flex::frame::FrameInfo::new()
            .block_checksums(true)
            .content_checksum(true)
            .content_size(Some(bytes.len() as u64));
        let mut encoder = lz4_flex::frame::FrameEncoder::with_frame_info(info, Vec::new());
        encoder.write_all(&bytes).unwrap();
        let frame = encoder.finish().unwrap();
        let mut reader = Reader::new(&frame, false).unwrap();
        let (mut back, mut out) = (Vec::new(), [0; 1000]);
        loop {
            match reader.read(&mut out).unwrap() {
                0 => break,
                count => back.extend_from_slice(&out[..count]),
            }
        }
        assert_eq!(back, bytes);
    }

    #[test]
    fn the_wrong_header_checksum_of_magic_0_is_written_and_tolerated_there_alone() {
        let wrong = Writer::new(Vec::new(), true).finish();
        let right = Writer::new(Vec::new(), false).finish();
        assert_ne!(wrong[6], right[6]);
        assert!(Reader::new(&wrong, true).is_ok());
        assert!(Reader::new(&right, true).is_ok());
        assert!(Reader::new(&right, false).is_ok());
        assert!(Reader::new(&wrong, false).is_err());
    }
}
