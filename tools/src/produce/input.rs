//! Cuts what is read from a file or standard input into records.
//!
//! Promise: memory holds one block and one record, which may have 100 MiB. Source: `ConsoleProducer.LineMessageReader` of 2.7.2, kcat.

use std::io::{ErrorKind, Read};

use crate::record_json::{InputRecord, from_json};

/// How much is read at once.
const BLOCK_SIZE_BYTES: usize = 64 << 10;

/// More in one record is an input without its delimiter: no broker takes a tenth of it by default.
const RECORD_SIZE_MAX_BYTES: usize = 100 << 20;

/// How bytes become records.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    /// Between records; everything is one record, if `None`.
    pub(super) delimiter: Option<Vec<u8>>,
    pub(super) content: Content,
}

/// What stands between two delimiters.
#[derive(Clone, Debug)]
pub(super) enum Content {
    Json,
    Text {
        /// Between key and value, if there is a key.
        key_delimiter: Option<Vec<u8>>,
        /// The text that stands for null.
        null: Option<Vec<u8>>,
    },
}

impl Layout {
    /// # Errors
    /// Says why this is no record.
    pub(super) fn record(&self, bytes: &[u8]) -> Result<InputRecord, String> {
        let Content::Text { key_delimiter, null } = &self.content else {
            return from_json(bytes);
        };
        let nullable = |bytes: &[u8]| (null.as_deref() != Some(bytes)).then(|| bytes.to_vec());
        let (key, value) = match key_delimiter {
            None => (None, bytes),
            Some(delimiter) => {
                let at = position(bytes, delimiter).ok_or("there is no key delimiter in it")?;
                (nullable(&bytes[..at]), &bytes[at + delimiter.len()..])
            }
        };
        Ok(InputRecord {
            partition: None,
            timestamp: None,
            key,
            value: nullable(value),
            headers: Vec::new(),
        })
    }
}

fn position(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

/// Reads `source` to its end and hands over pieces that hold whole records, each with its delimiter; the last may lack it.
/// `false` from `take` ends the reading.
///
/// # Errors
/// Those of `source`.
pub(super) fn read_blocks(
    mut source: impl Read,
    delimiter: Option<&[u8]>,
    mut take: impl FnMut(Vec<u8>) -> bool,
) -> std::io::Result<()> {
    let mut pending: Vec<u8> = Vec::new();
    // Bytes at the start of `pending` in which no delimiter begins.
    let mut searched = 0;
    loop {
        let begin = pending.len();
        pending.resize(begin + BLOCK_SIZE_BYTES, 0);
        let size = loop {
            match source.read(&mut pending[begin..]) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                read => break read?,
            }
        };
        pending.truncate(begin + size);
        if size == 0 {
            if !pending.is_empty() {
                take(pending);
            }
            return Ok(());
        }
        if pending.len() > RECORD_SIZE_MAX_BYTES {
            return Err(std::io::Error::other(format!(
                "found no end of a record in {RECORD_SIZE_MAX_BYTES} bytes; is the delimiter right?"
            )));
        }
        let Some(delimiter) = delimiter else { continue };
        let last = pending[searched..]
            .windows(delimiter.len())
            .rposition(|window| window == delimiter);
        match last {
            Some(at) => {
                let rest = pending.split_off(searched + at + delimiter.len());
                if !take(std::mem::replace(&mut pending, rest)) {
                    return Ok(());
                }
                searched = 0;
            }
            None => searched = pending.len().saturating_sub(delimiter.len() - 1),
        }
    }
}

/// The records of a piece, without their delimiters.
pub(super) fn split<'b>(bytes: &'b [u8], delimiter: Option<&'b [u8]>) -> impl Iterator<Item = &'b [u8]> {
    let mut rest = Some(bytes);
    std::iter::from_fn(move || {
        let bytes = rest.filter(|bytes| !bytes.is_empty())?;
        match delimiter.and_then(|delimiter| Some((position(bytes, delimiter)?, delimiter.len()))) {
            Some((at, size)) => {
                rest = Some(&bytes[at + size..]);
                Some(&bytes[..at])
            }
            None => {
                rest = None;
                Some(bytes)
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives a few bytes at a time.
    struct Slow<'b>(&'b [u8], usize);

    impl Read for Slow<'_> {
        fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
            let size = self.1.min(self.0.len()).min(out.len());
            out[..size].copy_from_slice(&self.0[..size]);
            self.0 = &self.0[size..];
            Ok(size)
        }
    }

    fn records(text: &str, step: usize, delimiter: Option<&str>) -> Vec<String> {
        let delimiter = delimiter.map(str::as_bytes);
        let mut found = Vec::new();
        let taken = read_blocks(Slow(text.as_bytes(), step), delimiter, |block| {
            let texts = split(&block, delimiter).map(|record| String::from_utf8(record.to_vec()).unwrap());
            found.extend(texts);
            true
        });
        taken.unwrap();
        found
    }

    #[test]
    fn records_are_the_same_however_the_bytes_arrive() {
        for step in 1..8 {
            assert_eq!(records("a\n\nbc\nd", step, Some("\n")), ["a", "", "bc", "d"]);
            assert_eq!(records("a--b-c--", step, Some("--")), ["a", "b-c"]);
            assert_eq!(records("a\nb\n", step, None), ["a\nb\n"]);
            assert_eq!(records("", step, Some("\n")), [""; 0]);
        }
    }

    #[test]
    fn an_input_without_an_end_is_given_up() {
        let endless = read_blocks(std::io::repeat(0), Some(b"\n"), |_| true).unwrap_err();
        assert!(
            endless.to_string().contains("is the delimiter right?"),
            "{endless}"
        );
    }

    #[test]
    fn a_key_ends_at_the_first_delimiter_and_null_is_a_text_of_choice() {
        let layout = Layout {
            delimiter: None,
            content: Content::Text {
                key_delimiter: Some(b"::".to_vec()),
                null: Some(b"NULL".to_vec()),
            },
        };
        let pair = |text: &str| {
            let record = layout.record(text.as_bytes())?;
            let text = |bytes: Option<Vec<u8>>| bytes.map(|bytes| String::from_utf8(bytes).unwrap());
            Ok::<_, String>((text(record.key), text(record.value)))
        };
        assert_eq!(
            pair("k::v::w").unwrap(),
            (Some("k".to_owned()), Some("v::w".to_owned()))
        );
        assert_eq!(pair("NULL::NULL").unwrap(), (None, None));
        assert_eq!(pair("::").unwrap(), (Some(String::new()), Some(String::new())));
        assert!(pair("k:v").is_err());
    }
}
