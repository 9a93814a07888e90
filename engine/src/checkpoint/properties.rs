//! The text form of `java.util.Properties`, both ways.
//!
//! Reading follows `Properties.load(InputStream)`: bytes are ISO 8859-1; `#` and `!` begin comment lines; a
//! line that ends in an odd number of backslashes continues on the next, whose leading white space is
//! dropped; the key ends at the first `=`, `:` or white space that is not escaped; `\t \n \r \f` and
//! `\uXXXX` mean what they mean in Java and any other escaped character itself. Writing follows
//! `Properties.store(OutputStream)`.

use std::fmt::Write;

use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;

use crate::units::TimestampMs;

/// One `key=value` of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Property {
    pub key: String,
    pub value: String,
    /// Where its first line stands, from 1.
    pub line: usize,
}

/// `\u` without four hexadecimal digits: the only thing that Java refuses.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: '\\u{found}', expected four hexadecimal digits after '\\u'")]
pub struct PropertiesError {
    /// From 1.
    pub line: usize,
    pub found: String,
}

/// `Date.toString`, in UTC: `Sun Nov 22 15:00:00 UTC 2026`.
const JAVA_DATE: &[BorrowedFormatItem<'_>] =
    format_description!("[weekday repr:short] [month repr:short] [day] [hour]:[minute]:[second] UTC [year]");

/// All properties in the file's order; keys may repeat, and Java then keeps the last.
///
/// # Errors
/// See [`PropertiesError`].
pub fn parse(content: &[u8]) -> Result<Vec<Property>, PropertiesError> {
    let mut properties = Vec::new();
    let mut natural = super::text::lines(content).enumerate();
    while let Some((index, line)) = natural.next() {
        let line = trim_start(line);
        if line.is_empty() || matches!(line[0], b'#' | b'!') {
            continue;
        }
        let mut logical = line.to_vec();
        while ends_in_continuation(&logical) {
            logical.pop();
            match natural.next() {
                Some((_, next)) => logical.extend_from_slice(trim_start(next)),
                None => break,
            }
        }
        properties.push(split(&logical, index + 1)?);
    }
    Ok(properties)
}

/// A file with `comment` (one line), the date and the pairs, as Java writes it; the text is ASCII.
pub fn render(comment: &str, now: TimestampMs, pairs: &[(&str, &str)]) -> String {
    let instant =
        OffsetDateTime::from_unix_timestamp(now.get().div_euclid(1000)).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    let date = instant.format(JAVA_DATE).unwrap_or_default();
    let mut text = format!("#{comment}\n#{date}\n");
    for (key, value) in pairs {
        escape(&mut text, key, true);
        text.push('=');
        escape(&mut text, value, false);
        text.push('\n');
    }
    text
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | 0x0C)
}

fn trim_start(line: &[u8]) -> &[u8] {
    let start = line
        .iter()
        .position(|byte| !is_space(*byte))
        .unwrap_or(line.len());
    &line[start..]
}

fn ends_in_continuation(line: &[u8]) -> bool {
    line.iter().rev().take_while(|byte| **byte == b'\\').count() % 2 == 1
}

/// Cuts a logical line into key and value.
fn split(logical: &[u8], line: usize) -> Result<Property, PropertiesError> {
    let mut escaped = false;
    let key_end = logical
        .iter()
        .position(|byte| {
            let ends = !escaped && (is_space(*byte) || matches!(byte, b'=' | b':'));
            escaped = *byte == b'\\' && !escaped;
            ends
        })
        .unwrap_or(logical.len());
    let mut value = trim_start(&logical[key_end..]);
    if let [b'=' | b':', rest @ ..] = value {
        value = trim_start(rest);
    }
    Ok(Property {
        key: unescape(&logical[..key_end], line)?,
        value: unescape(value, line)?,
        line,
    })
}

fn unescape(bytes: &[u8], line: usize) -> Result<String, PropertiesError> {
    // Escapes are UTF-16 units: a character beyond the first plane takes two of them.
    let mut units = Vec::with_capacity(bytes.len());
    let mut rest = bytes.iter().copied();
    while let Some(byte) = rest.next() {
        if byte != b'\\' {
            units.push(u16::from(byte));
            continue;
        }
        match rest.next() {
            None => {}
            Some(b'u') => {
                let digits: Vec<u8> = rest.by_ref().take(4).collect();
                let unit = std::str::from_utf8(&digits)
                    .ok()
                    .filter(|text| text.len() == 4 && text.bytes().all(|byte| byte.is_ascii_hexdigit()))
                    .and_then(|text| u16::from_str_radix(text, 16).ok());
                units.push(unit.ok_or_else(|| PropertiesError {
                    line,
                    found: String::from_utf8_lossy(&digits).into_owned(),
                })?);
            }
            Some(b't') => units.push(u16::from(b'\t')),
            Some(b'n') => units.push(u16::from(b'\n')),
            Some(b'r') => units.push(u16::from(b'\r')),
            Some(b'f') => units.push(0x0C),
            Some(other) => units.push(u16::from(other)),
        }
    }
    Ok(String::from_utf16_lossy(&units))
}

fn escape(text: &mut String, plain: &str, is_key: bool) {
    for (index, char) in plain.chars().enumerate() {
        match char {
            ' ' if is_key || index == 0 => text.push_str("\\ "),
            '\t' => text.push_str("\\t"),
            '\n' => text.push_str("\\n"),
            '\r' => text.push_str("\\r"),
            '\x0C' => text.push_str("\\f"),
            '\\' | '=' | ':' | '#' | '!' => {
                text.push('\\');
                text.push(char);
            }
            ' '..='~' => text.push(char),
            other => {
                for unit in other.encode_utf16(&mut [0; 2]) {
                    // Writing to a String cannot fail.
                    let _ = write!(text, "\\u{unit:04X}");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(content: &str, expected: &[(&str, &str)]) {
        let found: Vec<_> = parse(content.as_bytes())
            .unwrap()
            .into_iter()
            .map(|property| (property.key, property.value))
            .collect();
        let expected: Vec<_> = expected
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect();
        assert_eq!(found, expected, "{content:?}");
    }

    #[test]
    fn lines_are_read_as_java_reads_them() {
        check("", &[]);
        check("# a=b\n  ! c=d\n\n\t\n", &[]);
        check("a=b", &[("a", "b")]);
        check("a : b \r\nc d\re", &[("a", "b "), ("c", "d"), ("e", "")]);
        check("a==b\n=x\n", &[("a", "=b"), ("", "x")]);
        check("a\\=b\\:c\\ d = e", &[("a=b:c d", "e")]);
        check("a = one,\\\n     two\nb=3", &[("a", "one,two"), ("b", "3")]);
        check("a=end\\\\\nb=\\", &[("a", "end\\"), ("b", "")]);
        check("a=\\t\\n\\u0041\\q\\uD83D\\ude00", &[("a", "\t\nAq\u{1F600}")]);
        check("a=1\na=2", &[("a", "1"), ("a", "2")]);
        check("a\\\n# no comment=b", &[("a#", "no comment=b")]);
    }

    #[test]
    fn bytes_beyond_ascii_are_latin_1() {
        assert_eq!(parse(b"k=caf\xe9").unwrap()[0].value, "caf\u{e9}");
    }

    #[test]
    fn a_broken_unicode_escape_is_refused_with_its_line() {
        let error = parse(b"a=b\nc=\\u12").unwrap_err();
        assert_eq!(
            error,
            PropertiesError {
                line: 2,
                found: "12".to_owned()
            }
        );
        assert!(parse(b"c=\\u+123").is_err());
    }

    #[test]
    fn what_is_written_is_what_java_writes_and_reads_back_equal() {
        let pairs = [("a key", " v=1 x"), ("b", "caf\u{e9} \u{1F600}\t#")];
        let text = render("", TimestampMs(1_795_359_600_123), &pairs);
        assert_eq!(
            text,
            "#\n#Sun Nov 22 15:00:00 UTC 2026\na\\ key=\\ v\\=1 x\nb=caf\\u00E9 \\uD83D\\uDE00\\t\\#\n"
        );
        check(&text, &pairs);
    }
}
