//! How a record is printed: as text, in hexadecimal, as JSON, or as a format says that is written like kcat's.

use std::io::{self, Write};

use milena_server::client::ConsumerRecord;

use crate::escapes::unescape;
use crate::record_json::to_json;

/// How records are printed.
#[derive(Debug)]
pub(super) enum Format {
    Json,
    Template(Template),
}

/// A format that is taken apart.
#[derive(Debug)]
pub(super) struct Template {
    pieces: Vec<Piece>,
    /// What stands for a null key or value.
    null: Vec<u8>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Literal(Vec<u8>),
    Topic,
    Partition,
    Offset,
    Timestamp,
    Key,
    KeyHex,
    KeySize,
    Value,
    ValueHex,
    ValueSize,
    /// In four bytes, big-endian.
    ValueSizeBinary,
    Headers,
}

impl Format {
    /// The value, behind the key and a delimiter if there is one, and what ends a record.
    pub(super) fn text(key_delimiter: Option<&[u8]>, delimiter: &[u8], null: &[u8]) -> Format {
        let mut pieces = Vec::new();
        if let Some(key_delimiter) = key_delimiter {
            pieces.extend([Piece::Key, Piece::Literal(key_delimiter.to_vec())]);
        }
        pieces.extend([Piece::Value, Piece::Literal(delimiter.to_vec())]);
        let null = null.to_vec();
        Format::Template(Template { pieces, null })
    }

    /// A line with partition, offset, key and value.
    pub(super) fn hex() -> Format {
        let tab = || Piece::Literal(b"\t".to_vec());
        let end = Piece::Literal(b"\n".to_vec());
        let pieces = vec![
            Piece::Partition,
            tab(),
            Piece::Offset,
            tab(),
            Piece::KeyHex,
            tab(),
            Piece::ValueHex,
            end,
        ];
        let null = b"-".to_vec();
        Format::Template(Template { pieces, null })
    }

    /// # Errors
    /// Names the letter behind a `%` that means nothing.
    pub(super) fn template(text: &str, null: &[u8]) -> Result<Format, String> {
        let mut pieces = Vec::new();
        let mut rest = text;
        loop {
            let (literal, after) = match rest.split_once('%') {
                Some((literal, after)) => (literal, Some(after)),
                None => (rest, None),
            };
            if !literal.is_empty() {
                pieces.push(Piece::Literal(unescape(literal)?));
            }
            let Some(after) = after else { break };
            let mut letters = after.chars();
            pieces.push(match letters.next() {
                Some('t') => Piece::Topic,
                Some('p') => Piece::Partition,
                Some('o') => Piece::Offset,
                Some('T') => Piece::Timestamp,
                Some('k') => Piece::Key,
                Some('K') => Piece::KeySize,
                Some('s') => Piece::Value,
                Some('S') => Piece::ValueSize,
                Some('R') => Piece::ValueSizeBinary,
                Some('h') => Piece::Headers,
                Some('x') => Piece::ValueHex,
                Some('X') => Piece::KeyHex,
                Some('%') => Piece::Literal(b"%".to_vec()),
                other => {
                    let found = other.map_or_else(|| "nothing".to_owned(), |letter| format!("{letter:?}"));
                    return Err(format!(
                        "found {found} behind % in {text:?}, expected one of t p o T k K X s S R x h %"
                    ));
                }
            });
            rest = letters.as_str();
        }
        let null = null.to_vec();
        Ok(Format::Template(Template { pieces, null }))
    }

    /// # Errors
    /// Those of `out`.
    pub(super) fn write(&self, shown: &ConsumerRecord<'_>, out: &mut impl Write) -> io::Result<()> {
        match self {
            Format::Json => writeln!(out, "{}", to_json(shown)),
            Format::Template(template) => template
                .pieces
                .iter()
                .try_for_each(|piece| template.piece(piece, shown, out)),
        }
    }
}

impl Template {
    fn piece(&self, piece: &Piece, shown: &ConsumerRecord<'_>, out: &mut impl Write) -> io::Result<()> {
        let record = &shown.record;
        match piece {
            Piece::Literal(bytes) => out.write_all(bytes),
            Piece::Topic => write!(out, "{}", shown.partition.topic),
            Piece::Partition => write!(out, "{}", shown.partition.partition),
            Piece::Offset => write!(out, "{}", record.offset.get()),
            Piece::Timestamp => write!(out, "{}", record.timestamp.get()),
            Piece::Key => out.write_all(record.key.unwrap_or(&self.null)),
            Piece::KeyHex => self.hex(record.key, out),
            Piece::KeySize => write!(out, "{}", size(record.key)),
            Piece::Value => out.write_all(record.value.unwrap_or(&self.null)),
            Piece::ValueHex => self.hex(record.value, out),
            Piece::ValueSize => write!(out, "{}", size(record.value)),
            Piece::ValueSizeBinary => out.write_all(&(size(record.value) as i32).to_be_bytes()),
            Piece::Headers => {
                for (number, header) in record.headers.iter().enumerate() {
                    if number > 0 {
                        out.write_all(b",")?;
                    }
                    out.write_all(header.key)?;
                    out.write_all(b"=")?;
                    out.write_all(header.value.unwrap_or(&self.null))?;
                }
                Ok(())
            }
        }
    }

    fn hex(&self, field: Option<&[u8]>, out: &mut impl Write) -> io::Result<()> {
        match field {
            None => out.write_all(&self.null),
            Some(bytes) => bytes.iter().try_for_each(|byte| write!(out, "{byte:02x}")),
        }
    }
}

/// −1 for null.
fn size(field: Option<&[u8]>) -> i64 {
    field.map_or(-1, |bytes| bytes.len() as i64)
}

#[cfg(test)]
mod tests {
    use milena_engine::config::TimestampType;
    use milena_engine::record_batch::{Batch, RecordBatchBuilder, RecordHeader};
    use milena_engine::units::{Offset, TimestampMs, TopicPartition};

    use super::*;

    fn printed(format: &Format, key: Option<&[u8]>, value: Option<&[u8]>) -> String {
        let mut builder = RecordBatchBuilder::new().base_offset(Offset(9));
        let headers = [
            RecordHeader {
                key: b"a",
                value: Some(b"1"),
            },
            RecordHeader {
                key: b"b",
                value: None,
            },
        ];
        builder.append_with_headers(TimestampMs(7), key, value, &headers);
        let bytes = builder.build();
        let batch = Batch::parse(&bytes).unwrap();
        let mut records = batch.records().unwrap();
        let record = records.next_record().unwrap().unwrap();
        let partition = TopicPartition::new("t", 3);
        let shown = ConsumerRecord {
            partition: &partition,
            timestamp_type: TimestampType::CreateTime,
            record,
        };
        let mut out = Vec::new();
        format.write(&shown, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_template_prints_each_part_of_a_record() {
        let format = Format::template(r"%t [%p] at %o, %T: %K/%S %k=%s %X %x (%h) 100%%\n", b"NULL").unwrap();
        let text = printed(&format, Some(b"k"), Some(b"v1"));
        assert_eq!(text, "t [3] at 9, 7: 1/2 k=v1 6b 7631 (a=1,b=NULL) 100%\n");
        let text = printed(&format, None, None);
        assert_eq!(
            text,
            "t [3] at 9, 7: -1/-1 NULL=NULL NULL NULL (a=1,b=NULL) 100%\n"
        );
        let binary = Format::template("%R%s", b"").unwrap();
        assert_eq!(printed(&binary, None, Some(b"abc")), "\0\0\0\x03abc");
    }

    #[test]
    fn text_and_hexadecimal_are_lines() {
        let text = Format::text(Some(b":"), b"\n", b"~");
        assert_eq!(printed(&text, Some(b"k"), None), "k:~\n");
        assert_eq!(
            printed(&Format::text(None, b";", b""), Some(b"k"), Some(b"v")),
            "v;"
        );
        assert_eq!(printed(&Format::hex(), None, Some(b"\0A")), "3\t9\t-\t0041\n");
    }

    #[test]
    fn a_letter_that_means_nothing_is_named() {
        assert!(
            Format::template("%q", b"")
                .unwrap_err()
                .starts_with("found 'q' behind %")
        );
        assert!(
            Format::template("100%", b"")
                .unwrap_err()
                .starts_with("found nothing behind %")
        );
        assert!(
            Format::template(r"\q", b"")
                .unwrap_err()
                .contains("behind a backslash")
        );
    }
}
