//! The codecs of record batches: streaming decompression through a bounded [`Window`], and [`Compressor`].
//!
//! Promise: memory is bounded by the window and the block size of the codec, never by what a stream claims to
//! expand to; the bytes produced are counted and end at [`OUTPUT_SIZE_LIMIT`]. Decompressors and window
//! buffers are kept per thread.
//!
//! | codec | window beside ours | framing |
//! |---|---|---|
//! | gzip | 32 KiB | RFC 1952, several members allowed, trailing bytes ignored |
//! | snappy | one block, at most 22 times its compressed size | xerial blocks, or one raw block |
//! | lz4 | one block, at most 4 MiB | LZ4 frame, independent blocks; in magic 0 a wrong header checksum |
//! | zstd | as the frame says, at most 128 MiB, touched only as output is produced | frames |
//!
//! What a broken stream means for the sender is the caller's affair.
//!
//! Source: `CompressionType`, `KafkaLZ4Block{Input,Output}Stream` of 2.7.2; `Snappy{Input,Output}Stream` of
//! snappy-java 1.1.7.7.

mod gzip;
mod lz4;
mod snappy;
mod zstd;

use std::cell::RefCell;

use super::BatchError;
use crate::config::{Codec, Magic};

/// Usual size of a window, in bytes: the block size of Kafka's own LZ4 writer.
pub const WINDOW_SIZE: usize = 64 * 1024;
/// Bytes that one compressed batch may expand to: what Kafka's 32-bit counters can hold.
pub(super) const OUTPUT_SIZE_LIMIT: u64 = i32::MAX as u64;
/// Bytes that one record of a compressed batch may have where it must be held in memory as a whole.
///
/// **Deviation:** Kafka allocates whatever the record states; no producer of 2.7.2 can send a record larger
/// than this, since `max.request.size` counts uncompressed bytes.
pub(super) const RECORD_SIZE_LIMIT: usize = 256 << 20;

/// Buffers larger than this are not kept for the next batch.
const POOLED_BUFFER_MAX: usize = 4 << 20;
/// Buffers kept per thread: two windows and two blocks.
const POOLED_BUFFERS: usize = 4;

thread_local! {
    static BUFFERS: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// An empty buffer, with capacity if this thread has one to spare.
fn take_buffer() -> Vec<u8> {
    BUFFERS
        .try_with(|pool| pool.borrow_mut().pop())
        .ok()
        .flatten()
        .unwrap_or_default()
}

fn give_back(mut buffer: Vec<u8>) {
    if buffer.capacity() == 0 || buffer.capacity() > POOLED_BUFFER_MAX {
        return;
    }
    // a thread that is ending has no pool any more; the buffer is then simply freed
    let _ = BUFFERS.try_with(|pool| {
        let mut pool = pool.borrow_mut();
        if pool.len() < POOLED_BUFFERS {
            buffer.clear();
            pool.push(buffer);
        }
    });
}

/// Moves bytes into a block that ends at `size` bytes; returns whether it is full.
fn fill_block(block: &mut Vec<u8>, bytes: &mut &[u8], size: usize) -> bool {
    let (now, later) = bytes.split_at(bytes.len().min(size - block.len()));
    block.extend_from_slice(now);
    *bytes = later;
    block.len() == size
}

/// Reading side of one codec: `read` fills from the front of `out`, 0 is the end of the stream.
#[derive(Debug)]
enum Decompressor<'a> {
    None { input: &'a [u8] },
    Gzip(gzip::Reader<'a>),
    Snappy(snappy::Reader<'a>),
    Lz4(lz4::Reader<'a>),
    Zstd(zstd::Reader<'a>),
}

impl Decompressor<'_> {
    fn read(&mut self, out: &mut [u8]) -> Result<usize, BatchError> {
        match self {
            Decompressor::None { input } => {
                let count = out.len().min(input.len());
                out[..count].copy_from_slice(&input[..count]);
                *input = &input[count..];
                Ok(count)
            }
            Decompressor::Gzip(reader) => reader.read(out),
            Decompressor::Snappy(reader) => reader.read(out),
            Decompressor::Lz4(reader) => reader.read(out),
            Decompressor::Zstd(reader) => reader.read(out),
        }
    }
}

/// A sliding view over a decompressed stream.
#[derive(Debug)]
pub struct Window<'a> {
    decompressor: Decompressor<'a>,
    buffer: Vec<u8>,
    /// `buffer[start..end]` is decompressed and not yet consumed.
    start: usize,
    end: usize,
    ended: bool,
    consumed: u64,
    codec: Codec,
}

impl<'a> Window<'a> {
    /// Starts on `compressed`; `magic` is that of the batch around it.
    ///
    /// # Errors
    /// `Compression` if the stream's own header is broken; `UnsupportedCompression` for zstd below v2.
    pub fn new(codec: Codec, magic: Magic, compressed: &'a [u8]) -> Result<Window<'a>, BatchError> {
        let decompressor = match codec {
            Codec::None => Decompressor::None { input: compressed },
            Codec::Gzip => Decompressor::Gzip(gzip::Reader::new(compressed)?),
            Codec::Snappy => Decompressor::Snappy(snappy::Reader::new(compressed)?),
            Codec::Lz4 => Decompressor::Lz4(lz4::Reader::new(compressed, magic == Magic::V0)?),
            Codec::Zstd if magic < Magic::V2 => {
                return Err(BatchError::UnsupportedCompression { codec, magic });
            }
            Codec::Zstd => Decompressor::Zstd(zstd::Reader::new(compressed)?),
        };
        let mut buffer = take_buffer();
        buffer.resize(WINDOW_SIZE, 0);
        Ok(Window {
            decompressor,
            buffer,
            start: 0,
            end: 0,
            ended: false,
            consumed: 0,
            codec,
        })
    }

    /// What is decompressed and not yet consumed.
    #[inline]
    pub fn available(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    /// Decompressed bytes consumed so far.
    pub fn consumed(&self) -> u64 {
        self.consumed
    }

    /// Makes at least `size` bytes available, growing the buffer only as bytes arrive; `false` if the stream
    /// ends before.
    ///
    /// # Errors
    /// `Compression`, also when [`OUTPUT_SIZE_LIMIT`] is passed.
    #[inline]
    pub fn fill_to(&mut self, size: usize) -> Result<bool, BatchError> {
        if self.end - self.start >= size {
            Ok(true)
        } else {
            self.fill_slowly(size)
        }
    }

    fn fill_slowly(&mut self, size: usize) -> Result<bool, BatchError> {
        while self.end - self.start < size {
            if self.ended {
                return Ok(false);
            }
            if self.start > 0 {
                self.buffer.copy_within(self.start..self.end, 0);
                self.end -= self.start;
                self.start = 0;
            }
            if self.end == self.buffer.len() {
                self.buffer.resize(self.buffer.len() * 2, 0);
            }
            let count = self.decompressor.read(&mut self.buffer[self.end..])?;
            self.ended = count == 0;
            self.end += count;
            if self.consumed + self.end as u64 > OUTPUT_SIZE_LIMIT {
                return Err(BatchError::Compression {
                    codec: self.codec,
                    position: 0,
                    reason: "more than 2147483647 bytes when decompressed",
                });
            }
        }
        Ok(true)
    }

    /// Drops the first `size` available bytes.
    #[inline]
    pub fn consume(&mut self, size: usize) {
        debug_assert!(size <= self.end - self.start);
        self.start += size;
        self.consumed += size as u64;
    }

    /// Drops `size` bytes, decompressing but not holding those that are not available yet; `false` if the
    /// stream ends before.
    ///
    /// # Errors
    /// As [`Window::fill_to`].
    pub fn skip(&mut self, mut size: usize) -> Result<bool, BatchError> {
        loop {
            let available = self.end - self.start;
            if size <= available {
                self.consume(size);
                return Ok(true);
            }
            self.consume(available);
            size -= available;
            if !self.fill_to(1)? {
                return Ok(false);
            }
        }
    }

    /// Whether the stream has no byte left.
    ///
    /// # Errors
    /// As [`Window::fill_to`].
    pub fn at_end(&mut self) -> Result<bool, BatchError> {
        Ok(!self.fill_to(1)?)
    }
}

impl Drop for Window<'_> {
    fn drop(&mut self) {
        give_back(std::mem::take(&mut self.buffer));
    }
}

/// Compresses into a growing buffer, behind whatever that buffer held before.
#[derive(Debug)]
pub struct Compressor {
    inner: Inner,
}

enum Inner {
    None(Vec<u8>),
    Gzip(flate2::write::GzEncoder<Vec<u8>>),
    Snappy(Box<snappy::Writer>),
    Lz4(lz4::Writer),
    Zstd(::zstd::stream::write::Encoder<'static, Vec<u8>>),
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Inner::None(_) => "None",
            Inner::Gzip(_) => "Gzip",
            Inner::Snappy(_) => "Snappy",
            Inner::Lz4(_) => "Lz4",
            Inner::Zstd(_) => "Zstd",
        })
    }
}

const INTO_MEMORY: &str = "compression into a Vec has no source of errors";

impl Compressor {
    /// Writes behind the present content of `out`. `magic` decides on the checksum of the LZ4 header.
    pub fn new(codec: Codec, magic: Magic, out: Vec<u8>) -> Compressor {
        let inner = match codec {
            Codec::None => Inner::None(out),
            Codec::Gzip => Inner::Gzip(flate2::write::GzEncoder::new(out, flate2::Compression::default())),
            Codec::Snappy => Inner::Snappy(Box::new(snappy::Writer::new(out))),
            Codec::Lz4 => Inner::Lz4(lz4::Writer::new(out, magic == Magic::V0)),
            Codec::Zstd => {
                let level = ::zstd::DEFAULT_COMPRESSION_LEVEL;
                let encoder = ::zstd::stream::write::Encoder::new(out, level)
                    .expect("the default level is valid, and creation fails for no other reason but memory");
                Inner::Zstd(encoder)
            }
        };
        Compressor { inner }
    }

    /// Appends uncompressed bytes.
    pub fn write(&mut self, bytes: &[u8]) {
        use std::io::Write as _;
        match &mut self.inner {
            Inner::None(out) => out.extend_from_slice(bytes),
            Inner::Gzip(encoder) => encoder.write_all(bytes).expect(INTO_MEMORY),
            Inner::Snappy(writer) => writer.write(bytes),
            Inner::Lz4(writer) => writer.write(bytes),
            Inner::Zstd(encoder) => encoder.write_all(bytes).expect(INTO_MEMORY),
        }
    }

    /// Bytes in the output so far, what stood there before included; what the codec still holds back is not.
    pub(super) fn size_bytes(&self) -> usize {
        match &self.inner {
            Inner::None(out) => out.len(),
            Inner::Gzip(encoder) => encoder.get_ref().len(),
            Inner::Snappy(writer) => writer.size_bytes(),
            Inner::Lz4(writer) => writer.size_bytes(),
            Inner::Zstd(encoder) => encoder.get_ref().len(),
        }
    }

    /// Ends the stream and returns the buffer.
    pub fn finish(self) -> Vec<u8> {
        match self.inner {
            Inner::None(out) => out,
            Inner::Gzip(encoder) => encoder.finish().expect(INTO_MEMORY),
            Inner::Snappy(writer) => writer.finish(),
            Inner::Lz4(writer) => writer.finish(),
            Inner::Zstd(encoder) => encoder.finish().expect(INTO_MEMORY),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) const ALL: [Codec; 5] = [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];

    fn compress(codec: Codec, magic: Magic, bytes: &[u8]) -> Vec<u8> {
        let mut compressor = Compressor::new(codec, magic, Vec::new());
        for piece in bytes.chunks(1000) {
            compressor.write(piece);
        }
        compressor.finish()
    }

    fn decompress(codec: Codec, magic: Magic, bytes: &[u8]) -> Result<Vec<u8>, BatchError> {
        let mut window = Window::new(codec, magic, bytes)?;
        let mut out = Vec::new();
        while window.fill_to(1)? {
            out.extend_from_slice(window.available());
            let size = window.available().len();
            window.consume(size);
        }
        Ok(out)
    }

    /// Half of it repetitive, half not.
    fn sample(size: usize) -> Vec<u8> {
        let mut state = 1u32;
        (0..size)
            .map(|index| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                if index / 512 % 2 == 0 {
                    (state >> 24) as u8
                } else {
                    b'a'
                }
            })
            .collect()
    }

    #[test]
    fn every_codec_gives_back_what_went_in_at_all_sizes() {
        for codec in ALL {
            for magic in [Magic::V0, Magic::V1, Magic::V2] {
                if codec == Codec::Zstd && magic < Magic::V2 {
                    continue;
                }
                for size in [0, 1, 100, WINDOW_SIZE - 1, WINDOW_SIZE, 3 * WINDOW_SIZE + 7] {
                    let bytes = sample(size);
                    let compressed = compress(codec, magic, &bytes);
                    let back = decompress(codec, magic, &compressed);
                    assert_eq!(back.as_deref(), Ok(&bytes[..]), "{codec:?} {magic:?} {size}");
                }
            }
        }
    }

    #[test]
    fn a_stream_cut_anywhere_ends_early_or_is_refused_and_never_panics() {
        let bytes = sample(2 * WINDOW_SIZE);
        for codec in ALL {
            let compressed = compress(codec, Magic::V2, &bytes);
            for cut in (0..compressed.len())
                .step_by(997)
                .chain(0..40.min(compressed.len()))
            {
                if let Ok(short) = decompress(codec, Magic::V2, &compressed[..cut]) {
                    assert!(bytes.starts_with(&short), "{codec:?} {cut}");
                    assert!(short.len() < bytes.len(), "{codec:?} {cut}");
                }
            }
        }
    }

    #[test]
    fn a_stream_with_flipped_bits_never_panics() {
        let bytes = sample(WINDOW_SIZE);
        for codec in ALL {
            let compressed = compress(codec, Magic::V2, &bytes);
            for position in (0..compressed.len())
                .step_by(211)
                .chain(0..40.min(compressed.len()))
            {
                let mut broken = compressed.clone();
                broken[position] ^= 0x55;
                let _ = decompress(codec, Magic::V2, &broken);
            }
        }
    }

    #[test]
    fn a_window_grows_only_when_asked_to_and_skips_without_growing() {
        let bytes = vec![b'x'; 40 * WINDOW_SIZE];
        for codec in ALL {
            let compressed = compress(codec, Magic::V2, &bytes);
            let mut window = Window::new(codec, Magic::V2, &compressed).unwrap();
            assert_eq!(window.skip(30 * WINDOW_SIZE), Ok(true), "{codec:?}");
            assert_eq!(window.buffer.len(), WINDOW_SIZE, "{codec:?}");
            assert_eq!(window.fill_to(5 * WINDOW_SIZE), Ok(true));
            assert_eq!(window.buffer.len(), 8 * WINDOW_SIZE);
            assert_eq!(window.skip(11 * WINDOW_SIZE), Ok(false));
            assert_eq!(window.consumed(), 40 * WINDOW_SIZE as u64);
        }
    }
}
