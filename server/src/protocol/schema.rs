//! One declaration per message: the macro `message!` turns it into the struct, its
//! default, both directions of the codec, and a description that tests and documents walk.
//!
//! ```text
//! message! {
//!     /// What it asks.
//!     pub struct ExampleRequest<'a> (ListGroups, versions 0..=4, flexible 3..) {
//!         /// A field present in all versions.
//!         group_id: Cow<'a, str> [0..],
//!         /// Present from version 3 on; `Some(null)` is allowed from 5 on only; without it −1 is meant.
//!         topics: Option<Array<'a, ExampleTopic<'a>>> [3.., nullable 5..],
//!         /// Dropped without complaint from an answer in a version that does not know it.
//!         throttle_time_ms: i32 [1.., ignorable] = -1,
//!         /// A tagged field, sent only when it is not the default.
//!         epoch: i64 [3.., tag 0] = -1,
//!     }
//!     /// Each element of `topics`.
//!     pub struct ExampleTopic<'a> { name: Cow<'a, str> [0..] }
//! }
//! ```
//!
//! Names, numbers and order are Kafka's (`clients/src/main/resources/common/message/*.json`), in snake case.
//! Rules:
//! - decoding borrows: strings and bytes point into the frame, arrays stay there ([`Array`]), tagged fields
//!   that are not known are passed over. What decoding allocates does not depend on any count in the input;
//! - a string that is not UTF-8 is read with U+FFFD in place of what is wrong, as Java reads it (**Deviation:** three
//!   of them for a surrogate that is encoded, where Java has one);
//! - a field that the version lacks takes its default on decode; on encode a value other than the default is
//!   an error, unless the field is `ignorable`;
//! - bytes after the end of a body are ignored, as in 2.7.2 (`RequestContext.parseRequest` does not look).
//!
//! **Deviation:** a nullable field without a stated default is null by default, where Kafka's generated
//! classes start with an empty string or array: a message that no one set should not look like one that is
//! empty. It shows only in fields that a version lacks, never on the wire. **Deviation:** a tagged field of a
//! known tag must fill exactly the size it states; 2.7.2 does not compare them.

mod array;
#[cfg(test)]
#[expect(
    unreachable_pub,
    reason = "the sample message is declared public, as every message is"
)]
mod tests;
mod types;

pub use array::{Array, ArrayIter, WireArray};
pub use types::Payload;

use std::fmt;
use std::ops::RangeInclusive;

use super::api_key::ApiKey;
use super::primitives::{DecodeError, EncodeError, EncodeProblem, Problem, Reader, Writer};

/// How the fields of a message are laid out: in which version, and in which of the two dialects.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Encoding {
    pub version: i16,
    /// Compact lengths, and tagged fields at the end of every struct (KIP-482).
    pub flexible: bool,
}

/// A range of versions, both ends inclusive.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct VersionRange {
    pub first: i16,
    /// `i16::MAX` when the range is open.
    pub last: i16,
}

impl VersionRange {
    #[inline]
    pub const fn contains(self, version: i16) -> bool {
        self.first <= version && version <= self.last
    }
}

/// What stands in the brackets behind a field.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FieldRule {
    /// Versions in which the field exists.
    pub versions: VersionRange,
    /// Versions in which it may be null; meaningful only where the type has a null.
    pub nullable: VersionRange,
    /// The tag, when it is not in line with the others but among the tagged fields.
    pub tag: Option<u32>,
    /// Whether it may be left out silently where the version lacks it.
    pub ignorable: bool,
}

impl FieldRule {
    pub(crate) const fn of(first: i16, last: i16) -> FieldRule {
        let nullable = VersionRange {
            first: i16::MIN,
            last: i16::MAX,
        };
        FieldRule {
            versions: VersionRange { first, last },
            nullable,
            tag: None,
            ignorable: false,
        }
    }

    pub(crate) const fn ignorable(mut self) -> FieldRule {
        self.ignorable = true;
        self
    }

    pub(crate) const fn tag(mut self, tag: u32) -> FieldRule {
        self.tag = Some(tag);
        self
    }

    pub(crate) const fn nullable(mut self, first: i16) -> FieldRule {
        self.nullable.first = first;
        self
    }

    /// Whether the field stands in line in this version.
    #[inline]
    pub const fn in_line(&self, version: i16) -> bool {
        self.tag.is_none() && self.versions.contains(version)
    }

    /// Whether the field stands among the tagged ones in this encoding.
    #[inline]
    pub const fn tagged(&self, encoding: Encoding) -> bool {
        self.tag.is_some() && encoding.flexible && self.versions.contains(encoding.version)
    }
}

/// The type of a field, as a value, for those who walk a message without knowing it.
#[derive(Clone, Copy, Debug)]
pub enum TypeSchema {
    Bool,
    Int8,
    Int16,
    Int32,
    Int64,
    String,
    Bytes,
    Records,
    Array(&'static TypeSchema),
    Struct(&'static StructSchema),
    Nullable(&'static TypeSchema),
}

/// A struct, as a value.
#[derive(Clone, Copy, Debug)]
pub struct StructSchema {
    /// Kafka's name.
    pub name: &'static str,
    /// In the order of the wire.
    pub fields: &'static [FieldSchema],
}

/// A field, as a value.
#[derive(Clone, Copy, Debug)]
pub struct FieldSchema {
    /// Kafka's name in snake case.
    pub name: &'static str,
    pub rule: FieldRule,
    pub field_type: TypeSchema,
}

/// Whatever can be a field or an element of an array.
pub trait WireType<'a>: Sized + Clone + PartialEq + fmt::Debug {
    const TYPE: TypeSchema;

    /// The size in bytes of the smallest value.
    fn size_min(encoding: Encoding) -> usize;

    /// The size in bytes of every value, when they are all equally long.
    fn size_fixed(encoding: Encoding) -> Option<usize>;

    /// Reads one value.
    ///
    /// # Errors
    /// [`DecodeError`] when the bytes are no such value.
    fn read(reader: &mut Reader<'a>, encoding: Encoding) -> Result<Self, DecodeError>;

    /// Passes over one value, accepting and refusing exactly what [`WireType::read`] does, and says whether
    /// it was null.
    ///
    /// # Errors
    /// Those of [`WireType::read`].
    fn skip(reader: &mut Reader<'a>, encoding: Encoding) -> Result<Nullness, DecodeError>;

    /// Writes the value.
    ///
    /// # Errors
    /// [`EncodeError`] when this version cannot say it.
    fn write(&self, writer: &mut Writer, encoding: Encoding) -> Result<(), EncodeError>;

    /// Whether the value is null.
    #[inline]
    fn nullness(&self) -> Nullness {
        Nullness::Value
    }
}

/// Whether there was a value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Nullness {
    Null,
    Value,
}

/// A message, as a value.
#[derive(Clone, Copy, Debug)]
pub struct MessageSchema {
    pub key: ApiKey,
    pub versions: VersionRange,
    /// `i16::MAX` when no version is.
    pub flexible_from: i16,
    pub body: StructSchema,
}

impl MessageSchema {
    /// The layout of a version; `None` for a version that does not exist.
    #[inline]
    pub const fn encoding(&self, version: i16) -> Option<Encoding> {
        if self.versions.contains(version) {
            Some(Encoding {
                version,
                flexible: version >= self.flexible_from,
            })
        } else {
            None
        }
    }
}

/// The body of a request or a response: what follows the header of a frame.
pub trait Message<'a>: WireType<'a> {
    const SCHEMA: MessageSchema;

    /// The API that it belongs to; a request and its response have the same.
    const KEY: ApiKey = Self::SCHEMA.key;

    /// The versions that are declared, inclusive.
    const VERSIONS: RangeInclusive<i16> = Self::SCHEMA.versions.first..=Self::SCHEMA.versions.last;

    /// Reads the body that begins where the reader stands. Bytes behind it are left unread.
    ///
    /// # Errors
    /// [`DecodeError`] when the bytes are no such message, or the version does not exist.
    fn decode(reader: &mut Reader<'a>, version: i16) -> Result<Self, DecodeError> {
        let Some(encoding) = Self::SCHEMA.encoding(version) else {
            let VersionRange {
                first: min,
                last: max,
            } = Self::SCHEMA.versions;
            let problem = Problem::UnsupportedVersion { version, min, max };
            return Err(
                Reader::failure(reader.position(), problem).within(Self::SCHEMA.body.name, "(version)")
            );
        };
        Self::read(reader, encoding)
    }

    /// Appends the body. After an error the buffer holds a part of it: abandon the frame.
    ///
    /// # Errors
    /// [`EncodeError`] when this version cannot say it, or does not exist.
    fn encode(&self, writer: &mut Writer, version: i16) -> Result<(), EncodeError> {
        let Some(encoding) = Self::SCHEMA.encoding(version) else {
            let VersionRange {
                first: min,
                last: max,
            } = Self::SCHEMA.versions;
            let problem = EncodeProblem::UnsupportedVersion { min, max };
            return Err(EncodeError::nameless(version, problem).within(Self::SCHEMA.body.name, "(version)"));
        };
        self.write(writer, encoding)
    }
}

/// Reads one field and refuses a null where the version has none.
#[inline]
pub(crate) fn read_field<'a, T: WireType<'a>>(
    reader: &mut Reader<'a>,
    encoding: Encoding,
    rule: FieldRule,
    place: (&'static str, &'static str),
) -> Result<T, DecodeError> {
    let start = reader.position();
    let value = T::read(reader, encoding).map_err(|e| e.within(place.0, place.1))?;
    check_null(value.nullness(), start, encoding, rule, place)?;
    Ok(value)
}

/// [`read_field`] without keeping the value.
#[inline]
pub(crate) fn skip_field<'a, T: WireType<'a>>(
    reader: &mut Reader<'a>,
    encoding: Encoding,
    rule: FieldRule,
    place: (&'static str, &'static str),
) -> Result<(), DecodeError> {
    let start = reader.position();
    let nullness = T::skip(reader, encoding).map_err(|e| e.within(place.0, place.1))?;
    check_null(nullness, start, encoding, rule, place)
}

#[inline]
fn check_null(
    nullness: Nullness,
    start: usize,
    encoding: Encoding,
    rule: FieldRule,
    place: (&'static str, &'static str),
) -> Result<(), DecodeError> {
    if nullness == Nullness::Null && !rule.nullable.contains(encoding.version) {
        return Err(Reader::failure(start, Problem::Null).within(place.0, place.1));
    }
    Ok(())
}

/// Writes one field and refuses a null where the version has none.
#[inline]
pub(crate) fn write_field<'a, T: WireType<'a>>(
    value: &T,
    writer: &mut Writer,
    encoding: Encoding,
    rule: FieldRule,
    place: (&'static str, &'static str),
) -> Result<(), EncodeError> {
    if value.nullness() == Nullness::Null && !rule.nullable.contains(encoding.version) {
        return Err(EncodeError::nameless(encoding.version, EncodeProblem::Null).within(place.0, place.1));
    }
    value
        .write(writer, encoding)
        .map_err(|e| e.within(place.0, place.1))
}

/// The error of a field that the version lacks and whose value must not be lost.
#[cold]
pub(crate) fn not_in_version(version: i16, place: (&'static str, &'static str)) -> EncodeError {
    EncodeError::nameless(version, EncodeProblem::NotInVersion).within(place.0, place.1)
}

/// The brackets behind a field, as a [`FieldRule`].
macro_rules! field_rule {
    (@more $rule:expr) => { $rule };
    (@more $rule:expr, ignorable $($rest:tt)*) => {
        $crate::protocol::schema::field_rule!(@more $rule.ignorable() $($rest)*)
    };
    (@more $rule:expr, tag $tag:literal $($rest:tt)*) => {
        $crate::protocol::schema::field_rule!(@more $rule.tag($tag) $($rest)*)
    };
    (@more $rule:expr, nullable $first:literal .. $($rest:tt)*) => {
        $crate::protocol::schema::field_rule!(@more $rule.nullable($first) $($rest)*)
    };
    (@of $first:expr, $last:expr; $($rest:tt)*) => {
        $crate::protocol::schema::field_rule!(
            @more $crate::protocol::schema::FieldRule::of($first, $last) $($rest)*
        )
    };
    ($first:literal ..= $last:literal $($rest:tt)*) => {
        $crate::protocol::schema::field_rule!(@of $first, $last; $($rest)*)
    };
    ($first:literal .. $($rest:tt)*) => {
        $crate::protocol::schema::field_rule!(@of $first, i16::MAX; $($rest)*)
    };
}
pub(crate) use field_rule;

/// The value of a field that nobody set.
macro_rules! field_default {
    ($type:ty) => {
        <$type as Default>::default()
    };
    ($type:ty, $default:expr) => {
        $default
    };
}
pub(crate) use field_default;

/// Declares a message and the structs of its fields; the module documentation shows how.
macro_rules! message {
    () => {};
    (
        $(#[$meta:meta])*
        pub struct $name:ident $(<$lifetime:lifetime>)?
            ($key:ident, versions $first:literal ..= $last:literal $(, flexible $flexible:literal ..)?)
            { $($body:tt)* }
        $($rest:tt)*
    ) => {
        $crate::protocol::schema::message! { @struct
            [$(#[$meta])*] [concat!(
                "`", stringify!($key), "`, versions ", $first, " to ", $last,
                $(", flexible from ", $flexible,)? "."
            )]
            $name [$(<$lifetime>)?] { $($body)* }
        }

        impl<'a> $crate::protocol::schema::Message<'a> for $name $(<$lifetime>)? {
            const SCHEMA: $crate::protocol::schema::MessageSchema = $crate::protocol::schema::MessageSchema {
                key: $crate::protocol::api_key::ApiKey::$key,
                versions: $crate::protocol::schema::VersionRange { first: $first, last: $last },
                flexible_from: $crate::protocol::schema::message!(@flexible $($flexible)?),
                body: $name::SCHEMA,
            };
        }

        $crate::protocol::schema::message! { $($rest)* }
    };
    (
        $(#[$meta:meta])*
        pub struct $name:ident $(<$lifetime:lifetime>)?
            (no key, versions $first:literal ..= $last:literal)
            { $($body:tt)* }
        $($rest:tt)*
    ) => {
        $crate::protocol::schema::message! { @struct
            [$(#[$meta])*] [concat!("Not a request or response; versions ", $first, " to ", $last, ".")]
            $name [$(<$lifetime>)?] { $($body)* }
        }

        impl $(<$lifetime>)? $name $(<$lifetime>)? {
            /// The versions that are declared.
            pub const VERSIONS: $crate::protocol::schema::VersionRange =
                $crate::protocol::schema::VersionRange { first: $first, last: $last };
        }

        $crate::protocol::schema::message! { $($rest)* }
    };
    (
        $(#[$meta:meta])*
        pub struct $name:ident $(<$lifetime:lifetime>)? { $($body:tt)* }
        $($rest:tt)*
    ) => {
        $crate::protocol::schema::message! { @struct
            [$(#[$meta])*] ["A part of the message above."] $name [$(<$lifetime>)?] { $($body)* }
        }
        $crate::protocol::schema::message! { $($rest)* }
    };
    (@flexible) => { i16::MAX };
    (@flexible $flexible:literal) => { $flexible };
    (@struct
        [$($meta:tt)*] [$doc:expr] $name:ident [$($generics:tt)*] {
            $(
                $(#[$field_meta:meta])*
                $field:ident : $type:ty [$($rule:tt)+] $(= $default:expr)?
            ),* $(,)?
        }
    ) => {
        $($meta)*
        ///
        #[doc = $doc]
        #[derive(Clone, PartialEq, Debug)]
        pub struct $name $($generics)* {
            $(
                $(#[$field_meta])*
                ///
                #[doc = concat!(
                    "Versions `", stringify!($($rule)+), "`",
                    $(", default `", stringify!($default), "`",)? "."
                )]
                pub $field: $type,
            )*
        }

        const _: () = {
            use $crate::protocol::primitives::{DecodeError, EncodeError, Reader, TaggedFields, Writer};
            use $crate::protocol::schema::{
                Encoding, FieldSchema, Nullness, StructSchema, TypeSchema, WireType,
                field_default, field_rule, not_in_version, read_field, skip_field, write_field,
            };

            impl $($generics)* Default for $name $($generics)* {
                fn default() -> Self {
                    $name { $($field: field_default!($type $(, $default)?),)* }
                }
            }

            impl $($generics)* $name $($generics)* {
                /// The declaration, as a value.
                pub const SCHEMA: StructSchema = StructSchema {
                    name: stringify!($name),
                    fields: &[$(FieldSchema {
                        name: stringify!($field),
                        rule: field_rule!($($rule)+),
                        field_type: <$type as WireType<'_>>::TYPE,
                    }),*],
                };
            }

            impl<'a> WireType<'a> for $name $($generics)* {
                const TYPE: TypeSchema =
                    TypeSchema::Struct(&$name::SCHEMA);

                fn size_min(encoding: Encoding) -> usize {
                    let mut size = usize::from(encoding.flexible);
                    $(
                        if const { field_rule!($($rule)+) }.in_line(encoding.version) {
                            size += <$type as WireType<'a>>::size_min(encoding);
                        }
                    )*
                    size
                }

                fn size_fixed(encoding: Encoding) -> Option<usize> {
                    if encoding.flexible {
                        return None;
                    }
                    let mut size = 0;
                    $(
                        if const { field_rule!($($rule)+) }.in_line(encoding.version) {
                            size += <$type as WireType<'a>>::size_fixed(encoding)?;
                        }
                    )*
                    Some(size)
                }

                fn read(
                    reader: &mut Reader<'a>,
                    encoding: Encoding,
                ) -> Result<Self, DecodeError> {
                    let mut value = Self::default();
                    $(
                        let rule = const { field_rule!($($rule)+) };
                        if rule.in_line(encoding.version) {
                            let place = (stringify!($name), stringify!($field));
                            value.$field = read_field(reader, encoding, rule, place)?;
                        }
                    )*
                    if encoding.flexible {
                        let place = (stringify!($name), "(tagged fields)");
                        let mut fields = reader.tagged_fields().map_err(|e| e.within(place.0, place.1))?;
                        while let Some((tag, mut part)) =
                            fields.next(reader).map_err(|e| e.within(place.0, place.1))?
                        {
                            let _ = (tag, &mut part);
                            $(
                                let rule = const { field_rule!($($rule)+) };
                                if rule.tagged(encoding) && rule.tag == Some(tag) {
                                    let place = (stringify!($name), stringify!($field));
                                    value.$field =
                                        read_field(&mut part, encoding, rule, place)?;
                                    TaggedFields::finish(tag, &part)
                                        .map_err(|e| e.within(place.0, place.1))?;
                                }
                            )*
                        }
                    }
                    Ok(value)
                }

                fn skip(
                    reader: &mut Reader<'a>,
                    encoding: Encoding,
                ) -> Result<Nullness, DecodeError> {
                    $(
                        let rule = const { field_rule!($($rule)+) };
                        if rule.in_line(encoding.version) {
                            let place = (stringify!($name), stringify!($field));
                            skip_field::<$type>(reader, encoding, rule, place)?;
                        }
                    )*
                    if encoding.flexible {
                        let place = (stringify!($name), "(tagged fields)");
                        let mut fields = reader.tagged_fields().map_err(|e| e.within(place.0, place.1))?;
                        while let Some((tag, mut part)) =
                            fields.next(reader).map_err(|e| e.within(place.0, place.1))?
                        {
                            let _ = (tag, &mut part);
                            $(
                                let rule = const { field_rule!($($rule)+) };
                                if rule.tagged(encoding) && rule.tag == Some(tag) {
                                    let place = (stringify!($name), stringify!($field));
                                    skip_field::<$type>(&mut part, encoding, rule, place)?;
                                    TaggedFields::finish(tag, &part)
                                        .map_err(|e| e.within(place.0, place.1))?;
                                }
                            )*
                        }
                    }
                    Ok(Nullness::Value)
                }

                fn write(
                    &self,
                    writer: &mut Writer,
                    encoding: Encoding,
                ) -> Result<(), EncodeError> {
                    let mut tagged_count = 0u32;
                    $(
                        let rule = const { field_rule!($($rule)+) };
                        let place = (stringify!($name), stringify!($field));
                        if rule.in_line(encoding.version) {
                            write_field(&self.$field, writer, encoding, rule, place)?;
                        } else if (rule.tag.is_some() || !rule.ignorable)
                            && self.$field != field_default!($type $(, $default)?)
                        {
                            if rule.tagged(encoding) {
                                tagged_count += 1;
                            } else if !rule.ignorable {
                                return Err(not_in_version(encoding.version, place));
                            }
                        }
                    )*
                    if encoding.flexible {
                        writer.unsigned_varint(tagged_count);
                        if tagged_count > 0 {
                            $(
                                let rule = const { field_rule!($($rule)+) };
                                if let Some(tag) = rule.tag
                                    && rule.tagged(encoding)
                                    && self.$field != field_default!($type $(, $default)?)
                                {
                                    let place = (stringify!($name), stringify!($field));
                                    writer.tagged_field(tag, |writer| {
                                        write_field(
                                            &self.$field, writer, encoding, rule, place,
                                        )
                                    })?;
                                }
                            )*
                        }
                    }
                    Ok(())
                }
            }
        };
    };
}
pub(crate) use message;
