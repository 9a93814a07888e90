//! The two errors of the codec: bytes that are not what they claim to be, and values that cannot be said.
//!
//! Both name the innermost struct and field by Kafka's names. A [`DecodeError`] is the fault of whoever sent
//! the bytes: its connection is closed. An [`EncodeError`] is a fault of this broker, and never of a client.

use std::fmt;

use super::STRING_SIZE_MAX;

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
