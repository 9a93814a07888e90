//! Reading: integers, lengths and tagged fields out of borrowed bytes.
//!
//! Promise: no panic and no allocation, whatever the bytes are. Every length is compared with what is left
//! before it is believed, every position in an error counts from the start of the frame, and a failed read of
//! a fixed size moves nothing. What the fields of a message are is left to `schema`. Source: `Type.java`,
//! `ByteUtils.java`.

use super::{DecodeError, Problem, STRING_SIZE_MAX};

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
            // other than of strings and bytes, a negative length is no null, and too long for any frame
            self.unsigned_varint()?.checked_sub(1).map(|count| count as usize)
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
        // The count sizes nothing: a forged one merely runs into the end of the frame. To Kafka it is a signed number, and
        // a negative one is none.
        let count = self.unsigned_varint()?;
        let left = if i32::try_from(count).is_ok() { count } else { 0 };
        Ok(TaggedFields { left, previous: None })
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
        let previous = self.previous.replace(tag);
        // to Kafka a tag, too, is a signed number, and a negative one below all others
        if previous.is_some_and(|previous| tag <= previous) || i32::try_from(tag).is_err() {
            let previous = previous.unwrap_or_default();
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

#[cfg(test)]
mod tests {
    use std::fmt;

    use super::*;
    use crate::protocol::primitives::Writer;

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
        // -1 is no null in the flexible dialect, whose null is 0
        assert!(
            Reader::new(&[0xff, 0xff, 0xff, 0xff, 0x0f])
                .array_count(true, 4)
                .is_err()
        );
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
    fn a_negative_count_of_tagged_fields_is_none_and_a_negative_tag_is_refused() {
        let mut reader = Reader::new(&[0x80, 0x80, 0x80, 0x80, 0x08, 7]);
        assert_eq!(reader.skip_tagged_fields(), Ok(()));
        assert_eq!(reader.rest(), [7]);
        let tag = 1 << 31;
        let bytes = [1, 0x80, 0x80, 0x80, 0x80, 0x08, 0];
        assert_eq!(
            problem(Reader::new(&bytes).skip_tagged_fields()),
            (1, Problem::TagOutOfOrder { tag, previous: 0 })
        );
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
}
