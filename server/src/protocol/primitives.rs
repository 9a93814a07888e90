//! The alphabet of the wire: a borrowing [`Reader`], a [`Writer`] over one reused buffer, and the two errors
//! of the codec.
//!
//! Promises of the reader: it never panics, never allocates, and takes every length for an enemy's; a failure
//! says which field of which struct, at which byte, what was expected and what was there. Promises of the
//! writer: it only appends, patches the frame length at the end, and where record data stays in a file it
//! notes the place instead of the bytes.
//!
//! All integers are big-endian. Lengths come in two dialects: fixed-width and signed (negative means null),
//! or, in *flexible* versions, an unsigned varint of the length plus one (0 means null). A string is at most
//! 32767 bytes in both. What the fields of a message are is left to `schema`. Sources: the protocol guide,
//! KIP-482, `Type.java`, `ByteUtils.java`.

use std::fmt;

use bytes::{BufMut, BytesMut};

/// The longest string in bytes that either dialect can carry (`Short.MAX_VALUE`).
pub const STRING_SIZE_MAX: usize = i16::MAX as usize;

/// Bytes from the wire that are not the message they claim to be. The client broke the protocol: close its
/// connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{struct_name}.{field} at byte {position}: {problem}")]
pub struct DecodeError {
    /// The innermost struct being read, by Kafka's name.
    pub struct_name: &'static str,
    /// Its field, or a part of the encoding in parentheses.
    pub field: &'static str,
    /// Distance in bytes from the start of what the reader was given, at which the offending value begins.
    pub position: usize,
    pub problem: Problem,
}

/// What is wrong with the bytes; its two descriptions are the "expected" and "found" of [`DecodeError`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Problem {
    /// A value reaches beyond the end of the frame, or of the tagged field that holds it.
    Truncated { needed: usize, remaining: usize },
    /// A field that cannot be null in this version is.
    Null,
    /// An array states more elements than the rest of the frame could hold at their smallest.
    ArrayTooLong {
        count: usize,
        element_size_min: usize,
        remaining: usize,
    },
    /// A string states more than 32767 bytes.
    StringTooLong { size: usize },
    /// A varint does not end after 5 bytes.
    VarintTooLong,
    /// Tags must ascend.
    TagOutOfOrder { tag: u32, previous: u32 },
    /// A tagged field of a known kind is longer than its value.
    TaggedFieldTooLong { tag: u32, excess: usize },
    /// The message does not exist in this version.
    UnsupportedVersion { version: i16, min: i16, max: i16 },
}

struct Expected(Problem);

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Problem::Truncated { needed, .. } => write!(f, "{needed} bytes"),
            Problem::Null => f.write_str("a value"),
            Problem::ArrayTooLong {
                element_size_min,
                remaining,
                ..
            } => {
                let most = remaining / element_size_min;
                write!(f, "at most {most} elements of {element_size_min} bytes or more")
            }
            Problem::StringTooLong { .. } => write!(f, "a string of at most {STRING_SIZE_MAX} bytes"),
            Problem::VarintTooLong => f.write_str("a varint of at most 5 bytes"),
            Problem::TagOutOfOrder { previous, .. } => write!(f, "a tag above {previous}"),
            Problem::TaggedFieldTooLong { tag, .. } => write!(f, "tag {tag} to end with its value"),
            Problem::UnsupportedVersion { min, max, .. } => write!(f, "a version from {min} to {max}"),
        }
    }
}

struct Found(Problem);

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Problem::Truncated { remaining, .. } => write!(f, "{remaining}"),
            Problem::Null => f.write_str("null"),
            Problem::ArrayTooLong { count, .. } => write!(f, "{count}"),
            Problem::StringTooLong { size } => write!(f, "{size}"),
            Problem::VarintTooLong => f.write_str("a longer one"),
            Problem::TagOutOfOrder { tag, .. } => write!(f, "{tag}"),
            Problem::TaggedFieldTooLong { excess, .. } => write!(f, "{excess} bytes more"),
            Problem::UnsupportedVersion { version, .. } => write!(f, "{version}"),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "expected {}, found {}", self.expected(), self.found())
    }
}

impl Problem {
    /// What would have been right, for people.
    pub fn expected(self) -> impl fmt::Display {
        Expected(self)
    }

    /// What was there instead, for people.
    pub fn found(self) -> impl fmt::Display {
        Found(self)
    }
}

impl DecodeError {
    /// Names the place unless a more deeply nested one has been named already.
    #[cold]
    pub(crate) fn within(mut self, struct_name: &'static str, field: &'static str) -> DecodeError {
        if self.struct_name.is_empty() {
            self.struct_name = struct_name;
            self.field = field;
        }
        self
    }
}

/// A message of ours that cannot be said in the version asked for. Always a fault of the caller, never of the
/// client.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{struct_name}.{field} cannot be written in version {version}: {problem}")]
pub struct EncodeError {
    /// The innermost struct being written, by Kafka's name.
    pub struct_name: &'static str,
    pub field: &'static str,
    pub version: i16,
    pub problem: EncodeProblem,
}

/// Why a value cannot be written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum EncodeProblem {
    #[error(
        "the field does not exist there, its value is not the default, and losing it would change the meaning"
    )]
    NotInVersion,
    #[error("it must not be null there")]
    Null,
    #[error("{size} is more than its length prefix can say ({max})")]
    TooLong { size: usize, max: usize },
    #[error("versions go from {min} to {max}")]
    UnsupportedVersion { min: i16, max: i16 },
}

impl EncodeError {
    #[cold]
    pub(crate) fn nameless(version: i16, problem: EncodeProblem) -> EncodeError {
        EncodeError {
            struct_name: "",
            field: "",
            version,
            problem,
        }
    }

    /// Names the place unless a more deeply nested one has been named already.
    #[cold]
    pub(crate) fn within(mut self, struct_name: &'static str, field: &'static str) -> EncodeError {
        if self.struct_name.is_empty() {
            self.struct_name = struct_name;
            self.field = field;
        }
        self
    }
}

/// A position in borrowed bytes. Cheap to copy: a copy is a look ahead.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    /// From the start of the frame, so that positions in errors count from there, to the limit of what may be
    /// read.
    bytes: &'a [u8],
    position: usize,
}

impl<'a> Reader<'a> {
    /// Reads `bytes` from the beginning.
    pub fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { bytes, position: 0 }
    }

    /// Bytes read so far.
    #[inline]
    pub fn position(&self) -> usize {
        self.position
    }

    /// Bytes left.
    #[inline]
    pub fn remaining(&self) -> usize {
        self.bytes.len() - self.position
    }

    /// All that is left, without reading it.
    pub fn rest(&self) -> &'a [u8] {
        &self.bytes[self.position..]
    }

    /// A failure of the value that begins at `position`; its struct and field are named by the callers.
    #[cold]
    pub(crate) fn failure(position: usize, problem: Problem) -> DecodeError {
        DecodeError {
            struct_name: "",
            field: "",
            position,
            problem,
        }
    }

    /// The next `size` bytes.
    ///
    /// # Errors
    /// [`Problem::Truncated`] when fewer are left; nothing is read then.
    #[inline]
    pub fn take(&mut self, size: usize) -> Result<&'a [u8], DecodeError> {
        let Some((taken, _)) = self.bytes[self.position..].split_at_checked(size) else {
            let problem = Problem::Truncated {
                needed: size,
                remaining: self.remaining(),
            };
            return Err(Reader::failure(self.position, problem));
        };
        self.position += size;
        Ok(taken)
    }

    #[inline]
    fn take_chunk<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let Some(chunk) = self.bytes[self.position..].first_chunk::<N>() else {
            let problem = Problem::Truncated {
                needed: N,
                remaining: self.remaining(),
            };
            return Err(Reader::failure(self.position, problem));
        };
        self.position += N;
        Ok(*chunk)
    }

    /// A reader of the next `size` bytes alone; this reader moves past them.
    #[inline]
    pub fn sub_reader(&mut self, size: usize) -> Result<Reader<'a>, DecodeError> {
        let start = self.position;
        self.take(size)?;
        Ok(Reader {
            bytes: &self.bytes[..self.position],
            position: start,
        })
    }

    /// Any byte but 0 is true, as in Kafka.
    #[inline]
    pub fn bool(&mut self) -> Result<bool, DecodeError> {
        Ok(self.take_chunk::<1>()?[0] != 0)
    }

    #[inline]
    pub fn i8(&mut self) -> Result<i8, DecodeError> {
        Ok(i8::from_be_bytes(self.take_chunk()?))
    }

    #[inline]
    pub fn i16(&mut self) -> Result<i16, DecodeError> {
        Ok(i16::from_be_bytes(self.take_chunk()?))
    }

    #[inline]
    pub fn i32(&mut self) -> Result<i32, DecodeError> {
        Ok(i32::from_be_bytes(self.take_chunk()?))
    }

    #[inline]
    pub fn i64(&mut self) -> Result<i64, DecodeError> {
        Ok(i64::from_be_bytes(self.take_chunk()?))
    }

    /// Seven bits a byte, the lowest first. As in Kafka a fifth byte loses the bits above the 32nd.
    #[inline]
    pub fn unsigned_varint(&mut self) -> Result<u32, DecodeError> {
        let start = self.position;
        let mut value = 0u32;
        for shift in [0, 7, 14, 21, 28] {
            let byte = self.take_chunk::<1>()?[0];
            value |= u32::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Reader::failure(start, Problem::VarintTooLong))
    }

    /// A length of the flexible dialect; `None` is null. Lengths beyond `i32::MAX` are null too, since
    /// Kafka's are signed.
    #[inline]
    pub(crate) fn compact_length(&mut self) -> Result<Option<usize>, DecodeError> {
        let length = (self.unsigned_varint()? as i32).wrapping_sub(1);
        Ok(usize::try_from(length).ok())
    }

    /// The bytes of a string; `None` is null. They are UTF-8 only if the sender is honest.
    ///
    /// # Errors
    /// [`Problem::StringTooLong`], [`Problem::Truncated`], [`Problem::VarintTooLong`].
    #[inline]
    pub fn string_bytes(&mut self, flexible: bool) -> Result<Option<&'a [u8]>, DecodeError> {
        let start = self.position;
        let size = if flexible {
            self.compact_length()?
        } else {
            usize::try_from(self.i16()?).ok()
        };
        match size {
            Some(size) if size > STRING_SIZE_MAX => {
                Err(Reader::failure(start, Problem::StringTooLong { size }))
            }
            Some(size) => self.take(size).map(Some),
            None => Ok(None),
        }
    }

    /// A byte sequence; `None` is null.
    ///
    /// # Errors
    /// [`Problem::Truncated`], [`Problem::VarintTooLong`].
    #[inline]
    pub fn byte_sequence(&mut self, flexible: bool) -> Result<Option<&'a [u8]>, DecodeError> {
        let size = if flexible {
            self.compact_length()?
        } else {
            usize::try_from(self.i32()?).ok()
        };
        size.map(|size| self.take(size)).transpose()
    }

    /// The number of elements of an array; `None` is null. What is left is enough for that many elements at
    /// their smallest, so a caller may trust the count as far as it trusts the size of the frame.
    ///
    /// # Errors
    /// [`Problem::ArrayTooLong`], [`Problem::Truncated`], [`Problem::VarintTooLong`].
    #[inline]
    pub fn array_count(
        &mut self,
        flexible: bool,
        element_size_min: usize,
    ) -> Result<Option<usize>, DecodeError> {
        let start = self.position;
        let count = if flexible {
            self.compact_length()?
        } else {
            usize::try_from(self.i32()?).ok()
        };
        let Some(count) = count else { return Ok(None) };
        let element_size_min = element_size_min.max(1);
        if count > self.remaining() / element_size_min {
            let problem = Problem::ArrayTooLong {
                count,
                element_size_min,
                remaining: self.remaining(),
            };
            return Err(Reader::failure(start, problem));
        }
        Ok(Some(count))
    }

    /// Begins the tagged fields at the end of a struct.
    #[inline]
    pub(crate) fn tagged_fields(&mut self) -> Result<TaggedFields, DecodeError> {
        // The count sizes nothing: a forged one merely runs into the end of the frame.
        Ok(TaggedFields {
            left: self.unsigned_varint()?,
            previous: None,
        })
    }

    /// Passes over tagged fields of which none is known; they are not kept.
    #[inline]
    pub fn skip_tagged_fields(&mut self) -> Result<(), DecodeError> {
        let mut fields = self.tagged_fields()?;
        while fields.next(self)?.is_some() {}
        Ok(())
    }
}

/// The walk over the tagged fields of one struct.
#[derive(Debug)]
pub(crate) struct TaggedFields {
    left: u32,
    previous: Option<u32>,
}

impl TaggedFields {
    /// The next tag and a reader of its value alone; `reader` moves past it. `None` after the last.
    #[inline]
    pub(crate) fn next<'a>(
        &mut self,
        reader: &mut Reader<'a>,
    ) -> Result<Option<(u32, Reader<'a>)>, DecodeError> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        let start = reader.position();
        let tag = reader.unsigned_varint()?;
        if let Some(previous) = self.previous.replace(tag)
            && tag <= previous
        {
            return Err(Reader::failure(start, Problem::TagOutOfOrder { tag, previous }));
        }
        let size = reader.unsigned_varint()? as usize;
        Ok(Some((tag, reader.sub_reader(size)?)))
    }

    /// Checks that the value of a known tag filled its field.
    #[inline]
    pub(crate) fn finish(tag: u32, value: &Reader<'_>) -> Result<(), DecodeError> {
        match value.remaining() {
            0 => Ok(()),
            excess => Err(Reader::failure(
                value.position(),
                Problem::TaggedFieldTooLong { tag, excess },
            )),
        }
    }
}

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

    fn problem<T: fmt::Debug>(result: Result<T, DecodeError>) -> (usize, Problem) {
        let error = result.unwrap_err();
        (error.position, error.problem)
    }

    #[test]
    fn integers_are_big_endian_and_end_where_the_bytes_end() {
        let bytes = [0xff, 1, 0, 0x80, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2, 7];
        let mut reader = Reader::new(&bytes);
        assert_eq!(reader.i8(), Ok(-1));
        assert_eq!(reader.bool(), Ok(true));
        assert_eq!(reader.i16(), Ok(0x80));
        assert_eq!(reader.i32(), Ok(1));
        assert_eq!(reader.i64(), Ok(2));
        assert_eq!(
            problem(reader.i32()),
            (
                16,
                Problem::Truncated {
                    needed: 4,
                    remaining: 1
                }
            )
        );
        assert_eq!(reader.bool(), Ok(true), "a failure reads nothing");
        assert_eq!(
            problem(reader.i8()),
            (
                17,
                Problem::Truncated {
                    needed: 1,
                    remaining: 0
                }
            )
        );
    }

    #[test]
    fn varints_are_as_in_kafka() {
        for (bytes, value) in [
            (&[0][..], 0),
            (&[0x7f], 127),
            (&[0x80, 0x01], 128),
            (&[0x80, 0x00], 0),
            (&[0xff, 0xff, 0xff, 0xff, 0x0f], u32::MAX),
            // The fifth byte has room for seven bits, of which four count.
            (&[0x80, 0x80, 0x80, 0x80, 0x71], 0x1000_0000),
        ] {
            assert_eq!(Reader::new(bytes).unsigned_varint(), Ok(value), "{bytes:x?}");
        }
        let endless = [0x80; 9];
        assert_eq!(
            problem(Reader::new(&endless).unsigned_varint()),
            (0, Problem::VarintTooLong)
        );
        let cut = [0x80, 0x80];
        let expected = (
            2,
            Problem::Truncated {
                needed: 1,
                remaining: 0,
            },
        );
        assert_eq!(problem(Reader::new(&cut).unsigned_varint()), expected);
        for value in [0, 1, 127, 128, 16383, 16384, 1 << 21, u32::MAX] {
            let mut writer = Writer::new();
            writer.unsigned_varint(value);
            assert_eq!(Reader::new(writer.as_slice()).unsigned_varint(), Ok(value));
        }
    }

    #[test]
    fn a_string_is_null_when_its_length_is_negative_and_never_longer_than_32767() {
        assert_eq!(
            Reader::new(&[0, 2, b'h', b'i']).string_bytes(false),
            Ok(Some(&b"hi"[..]))
        );
        assert_eq!(
            Reader::new(&[3, b'h', b'i']).string_bytes(true),
            Ok(Some(&b"hi"[..]))
        );
        assert_eq!(Reader::new(&[1]).string_bytes(true), Ok(Some(&b""[..])));
        for null in [&[0xff, 0xff][..], &[0x80, 0x00]] {
            assert_eq!(Reader::new(null).string_bytes(false), Ok(None));
        }
        for null in [&[0][..], &[0xff, 0xff, 0xff, 0xff, 0x0f]] {
            assert_eq!(Reader::new(null).string_bytes(true), Ok(None));
        }
        // 32769 - 1 bytes in the compact form.
        let mut long = vec![0x81, 0x80, 0x02];
        long.resize(40_000, b'x');
        let expected = (0, Problem::StringTooLong { size: 32768 });
        assert_eq!(problem(Reader::new(&long).string_bytes(true)), expected);
        long[0] = 0x80;
        assert_eq!(
            Reader::new(&long).string_bytes(true).unwrap().unwrap().len(),
            32767
        );
        let expected = (
            2,
            Problem::Truncated {
                needed: 5,
                remaining: 1,
            },
        );
        assert_eq!(problem(Reader::new(&[0, 5, b'x']).string_bytes(false)), expected);
    }

    #[test]
    fn a_byte_sequence_longer_than_the_frame_is_refused_without_being_allocated() {
        let forged = [0x7f, 0xff, 0xff, 0xff, 1, 2, 3];
        let expected = (
            4,
            Problem::Truncated {
                needed: i32::MAX as usize,
                remaining: 3,
            },
        );
        assert_eq!(problem(Reader::new(&forged).byte_sequence(false)), expected);
        let forged = [0xff, 0xff, 0xff, 0xff, 0x07, 1];
        let expected = (
            5,
            Problem::Truncated {
                needed: i32::MAX as usize - 1,
                remaining: 1,
            },
        );
        assert_eq!(problem(Reader::new(&forged).byte_sequence(true)), expected);
        assert_eq!(
            Reader::new(&[0xff, 0xff, 0xff, 0xfe]).byte_sequence(false),
            Ok(None)
        );
    }

    #[test]
    fn a_count_of_elements_has_to_fit_into_what_is_left() {
        let mut frame = vec![0, 0, 0, 3];
        frame.resize(4 + 12, 0);
        assert_eq!(Reader::new(&frame).array_count(false, 4), Ok(Some(3)));
        let expected = (
            0,
            Problem::ArrayTooLong {
                count: 3,
                element_size_min: 5,
                remaining: 12,
            },
        );
        assert_eq!(problem(Reader::new(&frame).array_count(false, 5)), expected);
        // Elements without bytes count as one byte each, or a count could be anything.
        frame[0] = 1;
        assert!(Reader::new(&frame).array_count(false, 0).is_err());
        assert_eq!(Reader::new(&[0xff; 4]).array_count(false, 4), Ok(None));
        assert_eq!(Reader::new(&[0]).array_count(true, 4), Ok(None));
        assert_eq!(Reader::new(&[1]).array_count(true, 4), Ok(Some(0)));
    }

    #[test]
    fn tagged_fields_have_to_ascend_and_to_stay_within_their_size() {
        assert_eq!(Reader::new(&[2, 0, 1, 9, 7, 0]).skip_tagged_fields(), Ok(()));
        for (bytes, position, expected) in [
            (
                &[2, 3, 0, 3, 0][..],
                3,
                Problem::TagOutOfOrder { tag: 3, previous: 3 },
            ),
            (
                &[2, 3, 0, 1, 0],
                3,
                Problem::TagOutOfOrder { tag: 1, previous: 3 },
            ),
            (
                &[1, 0, 9, 1],
                3,
                Problem::Truncated {
                    needed: 9,
                    remaining: 1,
                },
            ),
        ] {
            assert_eq!(
                problem(Reader::new(bytes).skip_tagged_fields()),
                (position, expected)
            );
        }
    }

    #[test]
    fn a_sub_reader_cannot_leave_its_part_and_counts_positions_from_the_frame() {
        let bytes = [0, 1, 2, 3, 4, 5];
        let mut reader = Reader::new(&bytes);
        reader.i8().unwrap();
        let mut part = reader.sub_reader(2).unwrap();
        assert_eq!(part.i16(), Ok(0x0102));
        assert_eq!(
            problem(part.i8()),
            (
                3,
                Problem::Truncated {
                    needed: 1,
                    remaining: 0
                }
            )
        );
        assert_eq!(reader.rest(), [3, 4, 5]);
    }

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
