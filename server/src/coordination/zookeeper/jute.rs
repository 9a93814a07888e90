//! Jute, ZooKeeper's encoding: big-endian numbers, and byte strings and lists with their length in front, −1 for null.
//!
//! A length that the input does not have is refused before anything is made of its size. Source: `BinaryInputArchive.java`,
//! `BinaryOutputArchive.java`.

use bytes::Bytes;

/// Bytes from a server that are not what the protocol has there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed {what}: found {found}")]
pub(super) struct Malformed {
    pub(super) what: &'static str,
    pub(super) found: String,
}

/// Reads one frame.
#[derive(Debug)]
pub(super) struct Reader {
    rest: Bytes,
}

impl Reader {
    pub(super) fn new(frame: Bytes) -> Reader {
        Reader { rest: frame }
    }

    fn take<const SIZE: usize>(&mut self, what: &'static str) -> Result<[u8; SIZE], Malformed> {
        if self.rest.len() < SIZE {
            let found = format!("its end after {} bytes, expected {SIZE}", self.rest.len());
            return Err(Malformed { what, found });
        }
        let mut taken = [0; SIZE];
        taken.copy_from_slice(&self.rest.split_to(SIZE));
        Ok(taken)
    }

    pub(super) fn int(&mut self, what: &'static str) -> Result<i32, Malformed> {
        self.take(what).map(i32::from_be_bytes)
    }

    pub(super) fn long(&mut self, what: &'static str) -> Result<i64, Malformed> {
        self.take(what).map(i64::from_be_bytes)
    }

    pub(super) fn bool(&mut self, what: &'static str) -> Result<bool, Malformed> {
        match self.take(what)? {
            [0] => Ok(false),
            [1] => Ok(true),
            [other] => Err(Malformed {
                what,
                found: format!("{other}, expected 0 or 1"),
            }),
        }
    }

    pub(super) fn buffer(&mut self, what: &'static str) -> Result<Option<Bytes>, Malformed> {
        let size = self.int(what)?;
        if size == -1 {
            return Ok(None);
        }
        match usize::try_from(size).ok().filter(|&size| size <= self.rest.len()) {
            Some(size) => Ok(Some(self.rest.split_to(size))),
            None => Err(Malformed {
                what,
                found: format!("a length of {size}, expected -1 to {}", self.rest.len()),
            }),
        }
    }

    pub(super) fn string(&mut self, what: &'static str) -> Result<String, Malformed> {
        let bytes = self.buffer(what)?.unwrap_or_default();
        String::from_utf8(bytes.to_vec()).map_err(|error| Malformed {
            what,
            found: format!("no UTF-8: {error}"),
        })
    }

    /// The number of elements that follow, each of at least one byte.
    pub(super) fn count(&mut self, what: &'static str) -> Result<usize, Malformed> {
        match self.int(what)? {
            -1 => Ok(0),
            count => usize::try_from(count)
                .ok()
                .filter(|&count| count <= self.rest.len())
                .ok_or_else(|| Malformed {
                    what,
                    found: format!("{count} elements in {} bytes", self.rest.len()),
                }),
        }
    }
}

/// Writes one frame.
#[derive(Debug)]
pub(super) struct Writer {
    frame: Vec<u8>,
}

impl Writer {
    pub(super) fn new() -> Writer {
        Writer { frame: vec![0; 4] }
    }

    pub(super) fn int(&mut self, value: i32) -> &mut Writer {
        self.frame.extend_from_slice(&value.to_be_bytes());
        self
    }

    pub(super) fn long(&mut self, value: i64) -> &mut Writer {
        self.frame.extend_from_slice(&value.to_be_bytes());
        self
    }

    pub(super) fn bool(&mut self, value: bool) -> &mut Writer {
        self.frame.push(u8::from(value));
        self
    }

    pub(super) fn buffer(&mut self, value: Option<&[u8]>) -> &mut Writer {
        match value {
            None => self.int(-1),
            Some(bytes) => {
                self.count(bytes.len());
                self.frame.extend_from_slice(bytes);
                self
            }
        }
    }

    pub(super) fn string(&mut self, value: &str) -> &mut Writer {
        self.buffer(Some(value.as_bytes()))
    }

    pub(super) fn count(&mut self, count: usize) -> &mut Writer {
        self.int(i32::try_from(count).expect("what one request holds fits in 2 GiB"))
    }

    pub(super) fn strings<'a>(&mut self, values: impl ExactSizeIterator<Item = &'a str>) -> &mut Writer {
        self.count(values.len());
        for value in values {
            self.string(value);
        }
        self
    }

    /// The frame with its length in front.
    pub(super) fn finish(mut self) -> Vec<u8> {
        let size = i32::try_from(self.frame.len() - 4).expect("one request fits in 2 GiB");
        self.frame[..4].copy_from_slice(&size.to_be_bytes());
        self.frame
    }
}
