//! Zstandard frames, by the decoder of the reference library.
//!
//! As zstd-jni's `ZstdInputStream`: frames follow each other, a frame that is cut is an error, windows up to
//! 2^27 bytes.

use std::cell::RefCell;

use zstd::stream::raw::{Decoder, InBuffer, Operation as _, OutBuffer};

use crate::config::Codec;
use crate::record_batch::BatchError;

/// Decoders that saw a larger window are not kept: they hold on to it. 2^23 is what levels up to 19 use.
const POOLED_WINDOW_MAX: u64 = 1 << 23;

thread_local! {
    static DECODERS: RefCell<Vec<Decoder<'static>>> = const { RefCell::new(Vec::new()) };
}

pub(super) struct Reader<'a> {
    input: &'a [u8],
    position: usize,
    /// `None` only while being dropped.
    decoder: Option<Decoder<'static>>,
    /// Whether a frame has begun and not ended.
    in_frame: bool,
    keep: bool,
}

impl std::fmt::Debug for Reader<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("zstd::Reader")
            .field("position", &self.position)
            .finish_non_exhaustive()
    }
}

fn error(position: usize, reason: &'static str) -> BatchError {
    BatchError::Compression {
        codec: Codec::Zstd,
        position,
        reason,
    }
}

/// The window that a frame asks for: descriptor bits 7-6 and 5 (single segment), then the window byte. A
/// single segment's window is its content, which is no larger than what the stream really holds times its
/// expansion; it counts as large.
fn window_size(input: &[u8]) -> u64 {
    match input.get(4..6) {
        Some(&[descriptor, window]) if descriptor & 0x20 == 0 => {
            let base = 1u64 << (10 + (window >> 3));
            base + base / 8 * u64::from(window & 7)
        }
        Some(&[descriptor, content]) if descriptor >> 6 == 0 => u64::from(content),
        Some(&[descriptor, _]) if descriptor >> 6 == 1 => 1 << 16,
        _ => u64::MAX,
    }
}

impl<'a> Reader<'a> {
    pub(super) fn new(input: &'a [u8]) -> Result<Reader<'a>, BatchError> {
        let pooled = DECODERS.try_with(|pool| pool.borrow_mut().pop()).ok().flatten();
        let decoder = match pooled {
            Some(decoder) => decoder,
            None => Decoder::new().map_err(|_| error(0, "no memory for a decoder"))?,
        };
        Ok(Reader {
            input,
            position: 0,
            decoder: Some(decoder),
            in_frame: false,
            keep: true,
        })
    }

    pub(super) fn read(&mut self, out: &mut [u8]) -> Result<usize, BatchError> {
        let decoder = self.decoder.as_mut().expect("present until the drop");
        loop {
            if !self.in_frame {
                if self.position == self.input.len() {
                    return Ok(0);
                }
                self.keep &= window_size(&self.input[self.position..]) <= POOLED_WINDOW_MAX;
                decoder
                    .reinit()
                    .map_err(|_| error(self.position, "the decoder cannot be reset"))?;
                self.in_frame = true;
            }
            let mut source = InBuffer::around(&self.input[self.position..]);
            let mut target = OutBuffer::around(&mut *out);
            let hint = decoder
                .run(&mut source, &mut target)
                .map_err(|_| error(self.position, "the zstd stream is broken"))?;
            let (read, written) = (source.pos(), target.pos());
            self.position += read;
            if hint == 0 {
                self.in_frame = false;
            } else if written == 0 && self.position == self.input.len() {
                return Err(error(self.position, "the zstd stream ends too early"));
            }
            if written > 0 {
                return Ok(written);
            }
        }
    }
}

impl Drop for Reader<'_> {
    fn drop(&mut self) {
        let Some(decoder) = self.decoder.take() else {
            return;
        };
        if !self.keep {
            return;
        }
        // a thread that is ending has no pool any more
        let _ = DECODERS.try_with(|pool| {
            let mut pool = pool.borrow_mut();
            if pool.len() < 2 {
                pool.push(decoder);
            }
        });
    }
}
