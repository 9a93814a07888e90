//! Arrays that stay on the wire until someone walks over them.
//!
//! Promise: decoding an array allocates nothing, whatever count it states; it checks every element once and
//! remembers where they lie. Each walk decodes them again, one at a time. An array that is built to be sent
//! is a `Vec` inside.

use std::fmt;
use std::slice;
use std::vec;

use super::{Encoding, Nullness, TypeSchema, WireType, types::NullableType};
use crate::protocol::primitives::{DecodeError, EncodeError, Reader, Writer};

/// A sequence of elements, still encoded (after decoding) or owned (for encoding).
#[derive(Clone)]
pub enum Array<'a, T> {
    Wire(WireArray<'a>),
    Owned(Vec<T>),
}

/// The encoded elements of an array, all of them checked.
#[derive(Clone, Copy, Debug)]
pub struct WireArray<'a> {
    /// Stands at the first element.
    reader: Reader<'a>,
    encoding: Encoding,
    count: usize,
}

impl<'a, T: WireType<'a>> Array<'a, T> {
    /// An array without elements; allocates nothing.
    pub const fn empty() -> Array<'a, T> {
        Array::Owned(Vec::new())
    }

    /// How many elements there are.
    #[inline]
    pub fn len(&self) -> usize {
        match self {
            Array::Wire(wire) => wire.count,
            Array::Owned(elements) => elements.len(),
        }
    }

    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Walks over the elements by value: decodes them when they are still on the wire (without allocation),
    /// clones them when they are owned.
    #[inline]
    pub fn iter(&self) -> ArrayIter<'_, 'a, T> {
        ArrayIter(match self {
            Array::Wire(wire) => Elements::Wire(*wire),
            Array::Owned(elements) => Elements::Owned(elements.iter()),
        })
    }

    /// The first element.
    pub fn first(&self) -> Option<T> {
        self.iter().next()
    }
}

impl<'a> WireArray<'a> {
    #[inline]
    fn next<T: WireType<'a>>(&mut self) -> Option<T> {
        self.count = self.count.checked_sub(1)?;
        Some(
            T::read(&mut self.reader, self.encoding)
                .expect("the elements were checked when the array was decoded"),
        )
    }
}

/// See [`Array::iter`].
#[derive(Clone, Debug)]
pub struct ArrayIter<'s, 'a, T>(Elements<'a, slice::Iter<'s, T>>);

/// See [`Array::into_iter`].
#[derive(Clone, Debug)]
pub struct ArrayIntoIter<'a, T>(Elements<'a, vec::IntoIter<T>>);

#[derive(Clone, Debug)]
enum Elements<'a, I> {
    Wire(WireArray<'a>),
    Owned(I),
}

impl<'a, T: WireType<'a>> Iterator for ArrayIter<'_, 'a, T> {
    type Item = T;

    #[inline]
    fn next(&mut self) -> Option<T> {
        match &mut self.0 {
            Elements::Wire(wire) => wire.next(),
            Elements::Owned(elements) => elements.next().cloned(),
        }
    }

    #[inline]
    fn size_hint(&self) -> (usize, Option<usize>) {
        let count = match &self.0 {
            Elements::Wire(wire) => wire.count,
            Elements::Owned(elements) => elements.len(),
        };
        (count, Some(count))
    }
}

impl<'a, T: WireType<'a>> ExactSizeIterator for ArrayIter<'_, 'a, T> {}

impl<'a, T: WireType<'a>> Iterator for ArrayIntoIter<'a, T> {
    type Item = T;

    #[inline]
    fn next(&mut self) -> Option<T> {
        match &mut self.0 {
            Elements::Wire(wire) => wire.next(),
            Elements::Owned(elements) => elements.next(),
        }
    }

    #[inline]
    fn size_hint(&self) -> (usize, Option<usize>) {
        let count = match &self.0 {
            Elements::Wire(wire) => wire.count,
            Elements::Owned(elements) => elements.len(),
        };
        (count, Some(count))
    }
}

impl<'a, T: WireType<'a>> ExactSizeIterator for ArrayIntoIter<'a, T> {}

impl<'a, T: WireType<'a>> IntoIterator for Array<'a, T> {
    type Item = T;
    type IntoIter = ArrayIntoIter<'a, T>;

    /// Walks over the elements and clones none.
    fn into_iter(self) -> ArrayIntoIter<'a, T> {
        ArrayIntoIter(match self {
            Array::Wire(wire) => Elements::Wire(wire),
            Array::Owned(elements) => Elements::Owned(elements.into_iter()),
        })
    }
}

impl<'s, 'a, T: WireType<'a>> IntoIterator for &'s Array<'a, T> {
    type Item = T;
    type IntoIter = ArrayIter<'s, 'a, T>;

    fn into_iter(self) -> ArrayIter<'s, 'a, T> {
        self.iter()
    }
}

impl<T> Default for Array<'_, T> {
    fn default() -> Self {
        Array::Owned(Vec::new())
    }
}

impl<T> From<Vec<T>> for Array<'_, T> {
    fn from(elements: Vec<T>) -> Self {
        Array::Owned(elements)
    }
}

impl<T> FromIterator<T> for Array<'_, T> {
    fn from_iter<I: IntoIterator<Item = T>>(elements: I) -> Self {
        Array::Owned(elements.into_iter().collect())
    }
}

/// Equal when the elements are, wherever they lie.
impl<'a, T: WireType<'a>> PartialEq for Array<'a, T> {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Array::Owned(mine), Array::Owned(theirs)) => mine == theirs,
            _ => self.len() == other.len() && self.iter().eq(other.iter()),
        }
    }
}

/// The elements, wherever they lie.
impl<'a, T: WireType<'a>> fmt::Debug for Array<'a, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Array::Wire(_) => f.debug_list().entries(self.iter()).finish(),
            Array::Owned(elements) => f.debug_list().entries(elements).finish(),
        }
    }
}

impl<'a, T: WireType<'a>> NullableType<'a> for Array<'a, T> {
    const NON_NULL: TypeSchema = TypeSchema::Array(&T::TYPE);

    fn size_min(encoding: Encoding) -> usize {
        if encoding.flexible { 1 } else { 4 }
    }

    #[inline]
    fn read_nullable(reader: &mut Reader<'a>, encoding: Encoding) -> Result<Option<Self>, DecodeError> {
        let Some(count) = reader.array_count(encoding.flexible, T::size_min(encoding))? else {
            return Ok(None);
        };
        let wire = WireArray {
            reader: *reader,
            encoding,
            count,
        };
        skip_elements::<T>(reader, encoding, count)?;
        Ok(Some(Array::Wire(wire)))
    }

    #[inline]
    fn skip_nullable(reader: &mut Reader<'a>, encoding: Encoding) -> Result<Nullness, DecodeError> {
        let Some(count) = reader.array_count(encoding.flexible, T::size_min(encoding))? else {
            return Ok(Nullness::Null);
        };
        skip_elements::<T>(reader, encoding, count)?;
        Ok(Nullness::Value)
    }

    fn write_nullable(
        value: Option<&Self>,
        writer: &mut Writer,
        encoding: Encoding,
    ) -> Result<(), EncodeError> {
        writer
            .length(value.map(Array::len), encoding.flexible)
            .map_err(|problem| EncodeError::nameless(encoding.version, problem))?;
        match value {
            Some(Array::Owned(elements)) => elements
                .iter()
                .try_for_each(|element| element.write(writer, encoding)),
            Some(wire) => wire
                .iter()
                .try_for_each(|element| element.write(writer, encoding)),
            None => Ok(()),
        }
    }
}

/// Checks the elements; those of a fixed size are right as soon as they are there.
#[inline]
fn skip_elements<'a, T: WireType<'a>>(
    reader: &mut Reader<'a>,
    encoding: Encoding,
    count: usize,
) -> Result<(), DecodeError> {
    match T::size_fixed(encoding) {
        // No overflow: `array_count` has compared count * size_min, which is the same, with what is left.
        Some(size) => reader.take(count * size).map(drop),
        None => {
            for _ in 0..count {
                let start = reader.position();
                if T::skip(reader, encoding)? == Nullness::Null {
                    return Err(Reader::failure(start, crate::protocol::primitives::Problem::Null));
                }
            }
            Ok(())
        }
    }
}
