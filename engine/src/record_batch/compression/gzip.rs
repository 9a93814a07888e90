//! Gzip (RFC 1952) over a slice: headers and trailers by hand, so that the inflater can be reused.
//!
//! As Java's `GZIPInputStream`: several members are one stream, bytes after the last member that are no member are
//! ignored, and so are reserved flags.
//!
//! **Deviation:** a stream that reaches back to before its beginning reads zeros there, and must then agree with its
//! checksum and size as any other; Java refuses it at once.

use std::cell::RefCell;

use flate2::{Decompress, FlushDecompress, Status};

use crate::config::Codec;
use crate::record_batch::BatchError;

/// Magic 2, method 1, flags 1, time 4, extra flags 1, system 1.
const FIXED_HEADER: usize = 10;
/// CRC-32 and size modulo 2^32, little-endian.
const TRAILER: usize = 8;
const HEADER_CRC: u8 = 2;
const EXTRA: u8 = 4;
const NAME: u8 = 8;
const COMMENT: u8 = 16;

thread_local! {
    static INFLATERS: RefCell<Vec<Decompress>> = const { RefCell::new(Vec::new()) };
}

pub(super) struct Reader<'a> {
    input: &'a [u8],
    /// Of the next input byte, in the whole.
    position: usize,
    /// `None` only while being dropped.
    inflater: Option<Decompress>,
    crc: crc32fast::Hasher,
    member_size: u32,
    ended: bool,
}

impl std::fmt::Debug for Reader<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("gzip::Reader")
            .field("position", &self.position)
            .finish_non_exhaustive()
    }
}

fn error(position: usize, reason: &'static str) -> BatchError {
    BatchError::Compression {
        codec: Codec::Gzip,
        position,
        reason,
    }
}

/// Size of the member header at the start of `input`.
fn header_size(input: &[u8]) -> Result<usize, &'static str> {
    const SHORT: &str = "the gzip header is incomplete";
    let fixed = input.get(..FIXED_HEADER).ok_or(SHORT)?;
    if fixed[..2] != [0x1f, 0x8b] {
        return Err("not in gzip format");
    }
    if fixed[2] != 8 {
        return Err("the gzip method is not deflate");
    }
    let flags = fixed[3];
    let mut size = FIXED_HEADER;
    if flags & EXTRA != 0 {
        let length = input.get(size..size + 2).ok_or(SHORT)?;
        size += 2 + usize::from(u16::from_le_bytes([length[0], length[1]]));
    }
    for flag in [NAME, COMMENT] {
        if flags & flag != 0 {
            let rest = input.get(size..).ok_or(SHORT)?;
            size += rest.iter().position(|&byte| byte == 0).ok_or(SHORT)? + 1;
        }
    }
    if flags & HEADER_CRC != 0 {
        let stored = input.get(size..size + 2).ok_or(SHORT)?;
        if u16::from_le_bytes([stored[0], stored[1]]) != crc32fast::hash(&input[..size]) as u16 {
            return Err("the crc of the gzip header is wrong");
        }
        size += 2;
    }
    if size > input.len() { Err(SHORT) } else { Ok(size) }
}

impl<'a> Reader<'a> {
    pub(super) fn new(input: &'a [u8]) -> Result<Reader<'a>, BatchError> {
        let size = header_size(input).map_err(|reason| error(0, reason))?;
        let pooled = INFLATERS.try_with(|pool| pool.borrow_mut().pop()).ok().flatten();
        let inflater = match pooled {
            Some(mut inflater) => {
                inflater.reset(false);
                inflater
            }
            None => Decompress::new(false),
        };
        Ok(Reader {
            input: &input[size..],
            position: size,
            inflater: Some(inflater),
            crc: crc32fast::Hasher::new(),
            member_size: 0,
            ended: false,
        })
    }

    pub(super) fn read(&mut self, out: &mut [u8]) -> Result<usize, BatchError> {
        while !self.ended {
            let inflater = self.inflater.as_mut().expect("present until the drop");
            let (before_in, before_out) = (inflater.total_in(), inflater.total_out());
            let status = inflater
                .decompress(self.input, out, FlushDecompress::None)
                .map_err(|_| error(self.position, "the deflate stream is broken"))?;
            let read = (inflater.total_in() - before_in) as usize;
            let written = (inflater.total_out() - before_out) as usize;
            self.input = &self.input[read..];
            self.position += read;
            self.crc.update(&out[..written]);
            self.member_size = self.member_size.wrapping_add(written as u32);
            if status == Status::StreamEnd {
                self.end_member()?;
            } else if written == 0 && read == 0 && !out.is_empty() {
                return Err(error(self.position, "the deflate stream ends too early"));
            }
            if written > 0 {
                return Ok(written);
            }
        }
        Ok(0)
    }

    /// Checks the trailer and steps to the next member, if there is one.
    fn end_member(&mut self) -> Result<(), BatchError> {
        let Some(trailer) = self.input.first_chunk::<TRAILER>() else {
            return Err(error(self.position, "the gzip trailer is incomplete"));
        };
        let crc = std::mem::take(&mut self.crc).finalize();
        if trailer[..4] != crc.to_le_bytes() || trailer[4..] != self.member_size.to_le_bytes() {
            return Err(error(self.position, "the gzip trailer does not match the data"));
        }
        self.member_size = 0;
        self.input = &self.input[TRAILER..];
        self.position += TRAILER;
        match header_size(self.input) {
            Ok(size) => {
                self.input = &self.input[size..];
                self.position += size;
                if let Some(inflater) = &mut self.inflater {
                    inflater.reset(false);
                }
            }
            Err(_) => self.ended = true,
        }
        Ok(())
    }
}

impl Drop for Reader<'_> {
    fn drop(&mut self) {
        let Some(inflater) = self.inflater.take() else {
            return;
        };
        // a thread that is ending has no pool any more
        let _ = INFLATERS.try_with(|pool| {
            let mut pool = pool.borrow_mut();
            if pool.len() < 2 {
                pool.push(inflater);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn member(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::GzBuilder::new()
            .filename("name")
            .comment("why")
            .extra(vec![1, 2, 3])
            .write(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn read_all(input: &[u8]) -> Result<Vec<u8>, BatchError> {
        let mut reader = Reader::new(input)?;
        let (mut all, mut out) = (Vec::new(), [0; 7]);
        loop {
            match reader.read(&mut out)? {
                0 => return Ok(all),
                count => all.extend_from_slice(&out[..count]),
            }
        }
    }

    #[test]
    fn members_with_all_header_fields_are_one_stream_and_trailing_bytes_are_ignored() {
        let mut bytes = member(b"one ");
        bytes.extend(member(b""));
        bytes.extend(member(b"two"));
        bytes.extend(b"garbage");
        assert_eq!(read_all(&bytes).as_deref(), Ok(&b"one two"[..]));
    }

    #[test]
    fn reserved_flags_are_ignored_as_java_ignores_them() {
        let mut bytes = member(b"one");
        bytes[3] |= 0xe0;
        assert_eq!(read_all(&bytes).as_deref(), Ok(&b"one"[..]));
    }

    #[test]
    fn a_wrong_trailer_is_refused() {
        let mut bytes = member(b"one");
        let position = bytes.len() - 5;
        bytes[position] ^= 1;
        assert!(matches!(read_all(&bytes), Err(BatchError::Compression { .. })));
    }
}
