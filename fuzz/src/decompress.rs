//! The four decompressors, each on a bare stream, as the records of a batch are: gzip; snappy, raw and in xerial
//! frames; LZ4, with the header checksum of magic 0 and with the right one; zstd.
//!
//! Input: the stream. Promise: what comes out does not depend on the pieces in which it is taken, and comes out again
//! of what it is compressed to here.

use milena_engine::config::{Codec, Magic};
use milena_engine::record_batch::BatchError;
use milena_engine::record_batch::compression::{Compressor, WINDOW_SIZE, Window};

use crate::memory::{Memory, OWNED};

/// The window in which records are read.
pub(crate) const WINDOW: usize = WINDOW_SIZE;
/// Beside it, the state of the inflater with its 32 KiB.
pub(crate) const GZIP_WINDOW: usize = WINDOW + (64 << 10);
/// A block of raw snappy is held as a whole, decompressed; it expands 22 times at most.
pub(crate) const SNAPPY_BLOCK_PER_BYTE: usize = 22;
/// Beside it, a block of the largest size that a frame may state, and the shorter one that it replaces.
pub(crate) const LZ4_WINDOW: usize = WINDOW + 2 * (4 << 20);
/// That of any of them: snappy's blocks among records are no larger than LZ4's.
pub(crate) const ANY_WINDOW: usize = LZ4_WINDOW;
/// What the second step holds: the output twice, compressed once, in buffers that double.
pub(crate) const AGAIN: Memory = OWNED.and(8 * OUTPUT_MAX + (2 << 20)).and(LZ4_WINDOW);

/// Bytes of output after which nobody looks any further: a few bytes of zstd are gigabytes.
const OUTPUT_MAX: usize = 1 << 20;

pub(crate) fn gzip(stream: &[u8]) {
    consume(Codec::Gzip, Magic::V2, stream);
}

pub(crate) fn gzip_again(stream: &[u8]) {
    again(Codec::Gzip, Magic::V2, stream);
}

pub(crate) fn snappy(stream: &[u8]) {
    consume(Codec::Snappy, Magic::V2, stream);
}

pub(crate) fn snappy_again(stream: &[u8]) {
    again(Codec::Snappy, Magic::V2, stream);
}

pub(crate) fn lz4(stream: &[u8]) {
    for magic in [Magic::V0, Magic::V1] {
        consume(Codec::Lz4, magic, stream);
    }
}

pub(crate) fn lz4_again(stream: &[u8]) {
    for magic in [Magic::V0, Magic::V1] {
        again(Codec::Lz4, magic, stream);
    }
}

pub(crate) fn zstd(stream: &[u8]) {
    consume(Codec::Zstd, Magic::V2, stream);
}

pub(crate) fn zstd_again(stream: &[u8]) {
    again(Codec::Zstd, Magic::V2, stream);
}

fn consume(codec: Codec, magic: Magic, stream: &[u8]) {
    let Ok(mut window) = Window::new(codec, magic, stream) else {
        return;
    };
    while window.consumed() < OUTPUT_MAX as u64 {
        match window.fill_to(1) {
            Ok(true) => window.consume(std::hint::black_box(window.available()).len()),
            Ok(false) | Err(_) => return,
        }
    }
}

/// The output in pieces of `size` bytes, up to its end, an error or [`OUTPUT_MAX`].
fn pieces(codec: Codec, magic: Magic, stream: &[u8], size: usize) -> (Vec<u8>, Result<(), BatchError>) {
    let mut out = Vec::new();
    let outcome = Window::new(codec, magic, stream).and_then(|mut window| {
        while out.len() < OUTPUT_MAX {
            if !window.fill_to(size)? && window.available().is_empty() {
                break;
            }
            let taken = size.min(window.available().len()).min(OUTPUT_MAX - out.len());
            out.extend_from_slice(&window.available()[..taken]);
            window.consume(taken);
        }
        Ok(())
    });
    (out, outcome)
}

fn again(codec: Codec, magic: Magic, stream: &[u8]) {
    let (all, outcome) = pieces(codec, magic, stream, 1 << 16);
    let (small, same) = pieces(codec, magic, stream, 100);
    // who asks for more than is left in front of an error is given none of it
    let common = all.len().min(small.len());
    assert!(all[..common] == small[..common], "{codec:?}: pieces differ");
    if all.len().max(small.len()) < OUTPUT_MAX {
        assert_eq!(
            outcome.is_ok(),
            same.is_ok(),
            "{codec:?}: {outcome:?} or {same:?}"
        );
        assert!(
            outcome.is_err() || all.len() == small.len(),
            "{codec:?}: pieces differ in size"
        );
    }
    drop(small);
    let mut compressor = Compressor::new(codec, magic, Vec::new());
    compressor.write(&all);
    let compressed = compressor.finish();
    let (back, outcome) = pieces(codec, magic, &compressed, 1 << 16);
    assert_eq!(outcome, Ok(()), "{codec:?}: what was compressed here");
    assert!(back == all, "{codec:?}: other bytes than were compressed here");
}
