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

mod error;
mod reader;
mod writer;

pub use error::{DecodeError, EncodeError, EncodeProblem, Problem};
pub use reader::Reader;
pub(crate) use reader::TaggedFields;
pub use writer::{FrameStart, Writer};

/// The longest string in bytes that either dialect can carry (`Short.MAX_VALUE`).
pub const STRING_SIZE_MAX: usize = i16::MAX as usize;
