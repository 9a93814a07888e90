//! The types of fields: integers, strings, byte sequences and record data, with their null where Kafka has
//! one.
//!
//! Strings and byte sequences borrow from the frame. [`Payload`] is the record data of a fetch response,
//! which may stay in a file until the network sends it.

use std::borrow::Cow;

use super::{Encoding, Nullness, TypeSchema, WireType};
use crate::protocol::primitives::{DecodeError, EncodeError, Problem, Reader, Writer};

macro_rules! fixed_type {
    ($type:ty, $schema:ident, $size:literal, $method:ident) => {
        impl<'a> WireType<'a> for $type {
            const TYPE: TypeSchema = TypeSchema::$schema;

            #[inline]
            fn size_min(_: Encoding) -> usize {
                $size
            }

            #[inline]
            fn size_fixed(_: Encoding) -> Option<usize> {
                Some($size)
            }

            #[inline]
            fn read(reader: &mut Reader<'a>, _: Encoding) -> Result<Self, DecodeError> {
                reader.$method()
            }

            #[inline]
            fn skip(reader: &mut Reader<'a>, _: Encoding) -> Result<Nullness, DecodeError> {
                reader.take($size)?;
                Ok(Nullness::Value)
            }

            #[inline]
            fn write(&self, writer: &mut Writer, _: Encoding) -> Result<(), EncodeError> {
                writer.$method(*self);
                Ok(())
            }
        }
    };
}

fixed_type!(bool, Bool, 1, bool);
fixed_type!(i8, Int8, 1, i8);
fixed_type!(i16, Int16, 2, i16);
fixed_type!(i32, Int32, 4, i32);
fixed_type!(i64, Int64, 8, i64);

/// A type with a length in front, which can say null. `T` itself refuses the null, `Option<T>` takes it.
pub(crate) trait NullableType<'a>: Sized {
    const NON_NULL: TypeSchema;

    fn size_min(encoding: Encoding) -> usize;
    fn read_nullable(reader: &mut Reader<'a>, encoding: Encoding) -> Result<Option<Self>, DecodeError>;
    fn skip_nullable(reader: &mut Reader<'a>, encoding: Encoding) -> Result<Nullness, DecodeError>;
    fn write_nullable(
        value: Option<&Self>,
        writer: &mut Writer,
        encoding: Encoding,
    ) -> Result<(), EncodeError>;
}

macro_rules! nullable_type {
    ([$($generics:tt)*] $type:ty) => {
        impl<'a, $($generics)*> WireType<'a> for $type {
            const TYPE: TypeSchema = <Self as NullableType<'a>>::NON_NULL;

            #[inline]
            fn size_min(encoding: Encoding) -> usize {
                <Self as NullableType<'a>>::size_min(encoding)
            }

            #[inline]
            fn size_fixed(_: Encoding) -> Option<usize> {
                None
            }

            #[inline]
            fn read(reader: &mut Reader<'a>, encoding: Encoding) -> Result<Self, DecodeError> {
                let start = reader.position();
                Self::read_nullable(reader, encoding)?
                    .ok_or_else(|| Reader::failure(start, Problem::Null))
            }

            #[inline]
            fn skip(reader: &mut Reader<'a>, encoding: Encoding) -> Result<Nullness, DecodeError> {
                let start = reader.position();
                match Self::skip_nullable(reader, encoding)? {
                    Nullness::Null => Err(Reader::failure(start, Problem::Null)),
                    Nullness::Value => Ok(Nullness::Value),
                }
            }

            #[inline]
            fn write(&self, writer: &mut Writer, encoding: Encoding) -> Result<(), EncodeError> {
                Self::write_nullable(Some(self), writer, encoding)
            }
        }

        impl<'a, $($generics)*> WireType<'a> for Option<$type> {
            const TYPE: TypeSchema = TypeSchema::Nullable(&<$type as NullableType<'a>>::NON_NULL);

            #[inline]
            fn size_min(encoding: Encoding) -> usize {
                <$type as NullableType<'a>>::size_min(encoding)
            }

            #[inline]
            fn size_fixed(_: Encoding) -> Option<usize> {
                None
            }

            #[inline]
            fn read(reader: &mut Reader<'a>, encoding: Encoding) -> Result<Self, DecodeError> {
                <$type>::read_nullable(reader, encoding)
            }

            #[inline]
            fn skip(reader: &mut Reader<'a>, encoding: Encoding) -> Result<Nullness, DecodeError> {
                <$type>::skip_nullable(reader, encoding)
            }

            #[inline]
            fn write(&self, writer: &mut Writer, encoding: Encoding) -> Result<(), EncodeError> {
                <$type>::write_nullable(self.as_ref(), writer, encoding)
            }

            #[inline]
            fn nullness(&self) -> Nullness {
                if self.is_none() { Nullness::Null } else { Nullness::Value }
            }
        }
    };
}

nullable_type!([] Cow<'a, str>);
nullable_type!([] Cow<'a, [u8]>);
nullable_type!([T: WireType<'a>] super::Array<'a, T>);

fn nullness_of<T>(value: Option<T>) -> Nullness {
    if value.is_none() {
        Nullness::Null
    } else {
        Nullness::Value
    }
}

impl<'a> NullableType<'a> for Cow<'a, str> {
    const NON_NULL: TypeSchema = TypeSchema::String;

    #[inline]
    fn size_min(encoding: Encoding) -> usize {
        if encoding.flexible { 1 } else { 2 }
    }

    #[inline]
    fn read_nullable(reader: &mut Reader<'a>, encoding: Encoding) -> Result<Option<Self>, DecodeError> {
        Ok(reader
            .string_bytes(encoding.flexible)?
            .map(String::from_utf8_lossy))
    }

    #[inline]
    fn skip_nullable(reader: &mut Reader<'a>, encoding: Encoding) -> Result<Nullness, DecodeError> {
        reader.string_bytes(encoding.flexible).map(nullness_of)
    }

    #[inline]
    fn write_nullable(
        value: Option<&Self>,
        writer: &mut Writer,
        encoding: Encoding,
    ) -> Result<(), EncodeError> {
        writer
            .string_length(value.map(|value| value.len()), encoding.flexible)
            .map_err(|problem| EncodeError::nameless(encoding.version, problem))?;
        writer.bytes(value.map_or(&[], |value| value.as_bytes()));
        Ok(())
    }
}

impl<'a> NullableType<'a> for Cow<'a, [u8]> {
    const NON_NULL: TypeSchema = TypeSchema::Bytes;

    #[inline]
    fn size_min(encoding: Encoding) -> usize {
        if encoding.flexible { 1 } else { 4 }
    }

    #[inline]
    fn read_nullable(reader: &mut Reader<'a>, encoding: Encoding) -> Result<Option<Self>, DecodeError> {
        Ok(reader.byte_sequence(encoding.flexible)?.map(Cow::Borrowed))
    }

    #[inline]
    fn skip_nullable(reader: &mut Reader<'a>, encoding: Encoding) -> Result<Nullness, DecodeError> {
        reader.byte_sequence(encoding.flexible).map(nullness_of)
    }

    #[inline]
    fn write_nullable(
        value: Option<&Self>,
        writer: &mut Writer,
        encoding: Encoding,
    ) -> Result<(), EncodeError> {
        writer
            .length(value.map(|value| value.len()), encoding.flexible)
            .map_err(|problem| EncodeError::nameless(encoding.version, problem))?;
        writer.bytes(value.map_or(&[], |value| value));
        Ok(())
    }
}

/// Record data in a response: null, here, or in a file from which the network sends it.
///
/// The default is no records (not null): that is what a partition with an error carries.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Payload<'a> {
    Null,
    Bytes(Cow<'a, [u8]>),
    /// `size_bytes` bytes that are not copied into the buffer: only their length is written, and the place
    /// behind it is noted in [`Writer::splices`]. Never comes from decoding.
    Extern {
        size_bytes: usize,
    },
}

impl Payload<'_> {
    /// No records.
    pub const EMPTY: Payload<'static> = Payload::Bytes(Cow::Borrowed(&[]));

    /// How many bytes the records take; 0 when null.
    pub fn size_bytes(&self) -> usize {
        match self {
            Payload::Null => 0,
            Payload::Bytes(bytes) => bytes.len(),
            Payload::Extern { size_bytes } => *size_bytes,
        }
    }
}

impl Default for Payload<'_> {
    fn default() -> Self {
        Payload::EMPTY
    }
}

impl<'a> WireType<'a> for Payload<'a> {
    const TYPE: TypeSchema = TypeSchema::Nullable(&TypeSchema::Records);

    fn size_min(encoding: Encoding) -> usize {
        <Cow<'a, [u8]> as NullableType>::size_min(encoding)
    }

    fn size_fixed(_: Encoding) -> Option<usize> {
        None
    }

    fn read(reader: &mut Reader<'a>, encoding: Encoding) -> Result<Self, DecodeError> {
        let bytes = reader.byte_sequence(encoding.flexible)?;
        Ok(bytes.map_or(Payload::Null, |bytes| Payload::Bytes(Cow::Borrowed(bytes))))
    }

    fn skip(reader: &mut Reader<'a>, encoding: Encoding) -> Result<Nullness, DecodeError> {
        reader.byte_sequence(encoding.flexible).map(nullness_of)
    }

    fn write(&self, writer: &mut Writer, encoding: Encoding) -> Result<(), EncodeError> {
        let size = match self {
            Payload::Null => None,
            payload => Some(payload.size_bytes()),
        };
        writer
            .length(size, encoding.flexible)
            .map_err(|problem| EncodeError::nameless(encoding.version, problem))?;
        match self {
            Payload::Null => {}
            Payload::Bytes(bytes) => writer.bytes(bytes),
            Payload::Extern { size_bytes } => writer.splice(*size_bytes),
        }
        Ok(())
    }

    fn nullness(&self) -> Nullness {
        if matches!(self, Payload::Null) {
            Nullness::Null
        } else {
            Nullness::Value
        }
    }
}
