//! Writing: integers, lengths and tagged fields behind each other into one buffer that is used again and
//! again.
//!
//! The length of a frame is patched in when the frame is complete. Record data that stays in a file is not
//! copied: its place is noted, its size counts for the frame, and the network sends it from the file
//! (`sendfile`). Bytes written are never moved, but for a tagged field, whose size goes in front of it.
//! Source: `ByteUtils.java`.

use bytes::{BufMut, BytesMut};

use super::{EncodeError, EncodeProblem, STRING_SIZE_MAX};

/// Where a frame began; see [`Writer::begin_frame`].
#[derive(Clone, Copy, Debug)]
#[must_use = "a frame that is begun must be ended or abandoned"]
pub struct FrameStart {
    position: usize,
    extern_size_bytes: u64,
    splice_count: usize,
}

/// Appends messages to one buffer. Frame after frame goes into it, so that the answers to a whole read of the
/// socket are sent at once; [`Writer::take`] hands them over and leaves the allocation's rest for the next.
#[derive(Debug, Default)]
pub struct Writer {
    buffer: BytesMut,
    /// Places in the buffer, ascending, before which record data that is not in the buffer has to be sent:
    /// one for each `Payload::Extern` in the order of writing.
    pub splices: Vec<usize>,
    extern_size_bytes: u64,
}

impl Writer {
    pub fn new() -> Writer {
        Writer::default()
    }

    /// Writes behind what `buffer` holds already.
    pub fn over(buffer: BytesMut) -> Writer {
        Writer {
            buffer,
            splices: Vec::new(),
            extern_size_bytes: 0,
        }
    }

    /// Bytes written, without those that are elsewhere.
    #[inline]
    pub fn len(&self) -> usize {
        self.buffer.len()
    }

    pub fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    pub fn as_slice(&self) -> &[u8] {
        &self.buffer
    }

    /// Hands over all bytes and splice points; the writer is empty afterwards and keeps the buffer's spare
    /// room.
    pub fn take(&mut self) -> (BytesMut, Vec<usize>) {
        self.extern_size_bytes = 0;
        (self.buffer.split(), std::mem::take(&mut self.splices))
    }

    /// Leaves room for the length of a frame.
    pub fn begin_frame(&mut self) -> FrameStart {
        let start = FrameStart {
            position: self.buffer.len(),
            extern_size_bytes: self.extern_size_bytes,
            splice_count: self.splices.len(),
        };
        self.buffer.put_i32(0);
        start
    }

    /// Fills in the length of the frame, the spliced bytes included.
    ///
    /// # Errors
    /// [`EncodeProblem::TooLong`] when the frame is longer than `i32::MAX` bytes; abandon it then.
    pub fn end_frame(&mut self, start: FrameStart) -> Result<(), EncodeError> {
        let inline = (self.buffer.len() - start.position - 4) as u64;
        let size = inline + (self.extern_size_bytes - start.extern_size_bytes);
        let length = i32::try_from(size).map_err(|_| {
            let problem = EncodeProblem::TooLong {
                size: size as usize,
                max: i32::MAX as usize,
            };
            EncodeError {
                struct_name: "(frame)",
                field: "size",
                version: 0,
                problem,
            }
        })?;
        self.buffer[start.position..start.position + 4].copy_from_slice(&length.to_be_bytes());
        Ok(())
    }

    /// Takes the frame back, as though it had not been begun.
    pub fn abandon_frame(&mut self, start: FrameStart) {
        self.buffer.truncate(start.position);
        self.splices.truncate(start.splice_count);
        self.extern_size_bytes = start.extern_size_bytes;
    }

    /// Notes that `size_bytes` bytes belong here which the sender has elsewhere.
    pub(crate) fn splice(&mut self, size_bytes: usize) {
        self.splices.push(self.buffer.len());
        self.extern_size_bytes += size_bytes as u64;
    }

    #[inline]
    pub fn bool(&mut self, value: bool) {
        self.buffer.put_u8(u8::from(value));
    }

    #[inline]
    pub fn i8(&mut self, value: i8) {
        self.buffer.put_i8(value);
    }

    #[inline]
    pub fn i16(&mut self, value: i16) {
        self.buffer.put_i16(value);
    }

    #[inline]
    pub fn i32(&mut self, value: i32) {
        self.buffer.put_i32(value);
    }

    #[inline]
    pub fn i64(&mut self, value: i64) {
        self.buffer.put_i64(value);
    }

    #[inline]
    pub fn bytes(&mut self, value: &[u8]) {
        self.buffer.put_slice(value);
    }

    #[inline]
    pub fn unsigned_varint(&mut self, value: u32) {
        let (bytes, size) = unsigned_varint_bytes(value);
        self.buffer.put_slice(&bytes[..size]);
    }

    /// The length before a string; `None` is null.
    #[inline]
    pub(crate) fn string_length(&mut self, size: Option<usize>, flexible: bool) -> Result<(), EncodeProblem> {
        let size = size.map(|size| fit(size, STRING_SIZE_MAX)).transpose()?;
        match (size, flexible) {
            (size, true) => self.unsigned_varint(size.map_or(0, |size| size as u32 + 1)),
            (size, false) => self.buffer.put_i16(size.map_or(-1, |size| size as i16)),
        }
        Ok(())
    }

    /// The length before a byte sequence or an array; `None` is null.
    #[inline]
    pub(crate) fn length(&mut self, size: Option<usize>, flexible: bool) -> Result<(), EncodeProblem> {
        let size = size.map(|size| fit(size, i32::MAX as usize)).transpose()?;
        match (size, flexible) {
            (size, true) => self.unsigned_varint(size.map_or(0, |size| size as u32 + 1)),
            (size, false) => self.buffer.put_i32(size.map_or(-1, |size| size as i32)),
        }
        Ok(())
    }

    /// A tag, the size of the value, the value. The size is put in front once the value is there: tagged
    /// fields are few and short.
    pub(crate) fn tagged_field(
        &mut self,
        tag: u32,
        value: impl FnOnce(&mut Writer) -> Result<(), EncodeError>,
    ) -> Result<(), EncodeError> {
        self.unsigned_varint(tag);
        let start = self.buffer.len();
        value(self)?;
        let end = self.buffer.len();
        let (prefix, prefix_size) = unsigned_varint_bytes((end - start) as u32);
        self.buffer.put_slice(&prefix[..prefix_size]);
        self.buffer[start..].rotate_right(prefix_size);
        Ok(())
    }
}

fn fit(size: usize, max: usize) -> Result<usize, EncodeProblem> {
    if size > max {
        Err(EncodeProblem::TooLong { size, max })
    } else {
        Ok(size)
    }
}

fn unsigned_varint_bytes(mut value: u32) -> ([u8; 5], usize) {
    let mut bytes = [0; 5];
    let mut size = 0;
    while value >= 0x80 {
        bytes[size] = value as u8 | 0x80;
        value >>= 7;
        size += 1;
    }
    bytes[size] = value as u8;
    (bytes, size + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_follow_each_other_with_their_lengths_and_splices() {
        let mut writer = Writer::new();
        let first = writer.begin_frame();
        writer.i16(7);
        writer.end_frame(first).unwrap();
        let second = writer.begin_frame();
        writer.i8(1);
        writer.splice(1000);
        writer.i8(2);
        writer.splice(24);
        writer.end_frame(second).unwrap();
        let third = writer.begin_frame();
        writer.i64(0);
        writer.splice(5);
        writer.abandon_frame(third);
        let fourth = writer.begin_frame();
        writer.end_frame(fourth).unwrap();
        let (bytes, splices) = writer.take();
        assert_eq!(bytes[..], [0, 0, 0, 2, 0, 7, 0, 0, 4, 2, 1, 2, 0, 0, 0, 0]);
        assert_eq!(splices, [11, 12]);
        assert!(writer.is_empty() && writer.splices.is_empty());
    }

    #[test]
    fn a_frame_too_long_for_its_length_is_an_error() {
        let mut writer = Writer::new();
        let frame = writer.begin_frame();
        writer.splice(i32::MAX as usize);
        assert!(writer.end_frame(frame).is_ok());
        writer.i8(0);
        let too_long = EncodeProblem::TooLong {
            size: i32::MAX as usize + 1,
            max: i32::MAX as usize,
        };
        assert_eq!(writer.end_frame(frame).unwrap_err().problem, too_long);
    }

    #[test]
    fn a_string_too_long_for_the_wire_is_an_error() {
        let mut writer = Writer::new();
        assert_eq!(writer.string_length(Some(32767), false), Ok(()));
        let too_long = Err(EncodeProblem::TooLong {
            size: 32768,
            max: 32767,
        });
        assert_eq!(writer.string_length(Some(32768), false), too_long);
        assert_eq!(writer.string_length(Some(32768), true), too_long);
    }
}
