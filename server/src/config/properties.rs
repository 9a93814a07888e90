//! Java properties files: `key=value`, `key: value` or `key value`, comments, escapes, continued lines.
//!
//! Behaviour of `java.util.Properties.load`. Order and line numbers are kept; of a key given twice the last
//! counts, which is for the caller to apply.
//!
//! **Deviation:** a file that is valid UTF-8 is read as UTF-8. Java reads every file as ISO-8859-1 and would
//! garble a rack or a path that was typed in UTF-8; a file that is not valid UTF-8 is read as ISO-8859-1 here
//! too.

/// One entry of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Property {
    pub key: String,
    pub value: String,
    /// Where the entry begins, from 1.
    pub line: usize,
}

/// Bytes that are no properties file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "line {line}: Malformed \\uxxxx encoding: found {found:?}, expected four hexadecimal digits after \\u"
)]
pub struct PropertiesError {
    /// From 1.
    pub line: usize,
    pub found: String,
}

/// Reads all entries.
///
/// # Errors
/// Only a broken `\u` escape: everything else means something in a properties file.
pub fn parse_properties(bytes: &[u8]) -> Result<Vec<Property>, PropertiesError> {
    let bytes = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes);
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => bytes.iter().map(|byte| char::from(*byte)).collect(),
    };
    let mut properties = Vec::new();
    let mut lines = natural_lines(&text);
    while let Some((line, first)) = lines.next() {
        let first = first.trim_start_matches(is_blank);
        if first.is_empty() || first.starts_with(['#', '!']) {
            continue;
        }
        let mut logical = first.to_owned();
        while logical.bytes().rev().take_while(|byte| *byte == b'\\').count() % 2 == 1 {
            logical.pop();
            match lines.next() {
                Some((_, next)) => logical.push_str(next.trim_start_matches(is_blank)),
                None => break,
            }
        }
        let (key, value) = split(&logical);
        properties.push(Property {
            key: unescape(key, line)?,
            value: unescape(value, line)?,
            line,
        });
    }
    Ok(properties)
}

fn is_blank(char: char) -> bool {
    matches!(char, ' ' | '\t' | '\u{c}')
}

/// Lines ended by `\n`, `\r` or `\r\n`, with their numbers.
fn natural_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut rest = Some(text);
    let lines = std::iter::from_fn(move || {
        let current = rest?;
        match current.find(['\n', '\r']) {
            None => {
                rest = None;
                Some(current)
            }
            Some(end) => {
                let width = if current[end..].starts_with("\r\n") { 2 } else { 1 };
                rest = Some(&current[end + width..]);
                Some(&current[..end])
            }
        }
    });
    lines.zip(1..).map(|(line, number)| (number, line))
}

/// Cuts a logical line at its first separator that is not escaped.
fn split(line: &str) -> (&str, &str) {
    let mut escaped = false;
    let end = line.find(|char: char| {
        if escaped {
            escaped = false;
            return false;
        }
        escaped = char == '\\';
        matches!(char, '=' | ':') || is_blank(char)
    });
    let Some(end) = end else { return (line, "") };
    let value = line[end..].trim_start_matches(is_blank);
    let value = value
        .strip_prefix(['=', ':'])
        .unwrap_or(value)
        .trim_start_matches(is_blank);
    (&line[..end], value)
}

fn unescape(text: &str, line: usize) -> Result<String, PropertiesError> {
    if !text.contains('\\') {
        return Ok(text.to_owned());
    }
    // Two \u escapes may be one character beyond the basic plane, so the result is gathered as Java's chars.
    let mut units: Vec<u16> = Vec::with_capacity(text.len());
    let mut buffer = [0u16; 2];
    let mut chars = text.chars();
    while let Some(char) = chars.next() {
        let plain = match char {
            '\\' => match chars.next() {
                None => break,
                Some('t') => '\t',
                Some('n') => '\n',
                Some('r') => '\r',
                Some('f') => '\u{c}',
                Some('u') => {
                    let digits: String = chars.by_ref().take(4).collect();
                    let hexadecimal =
                        digits.len() == 4 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
                    let unit = u16::from_str_radix(&digits, 16).ok().filter(|_| hexadecimal);
                    units.push(unit.ok_or(PropertiesError { line, found: digits })?);
                    continue;
                }
                Some(other) => other,
            },
            other => other,
        };
        units.extend_from_slice(plain.encode_utf16(&mut buffer));
    }
    Ok(String::from_utf16_lossy(&units))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(bytes: &[u8], expected: &[(&str, &str, usize)]) {
        let found = parse_properties(bytes).unwrap();
        let found: Vec<_> = found
            .iter()
            .map(|p| (p.key.as_str(), p.value.as_str(), p.line))
            .collect();
        assert_eq!(found, expected, "{}", String::from_utf8_lossy(bytes));
    }

    #[test]
    fn every_separator_comment_escape_and_continuation_is_read_as_java_reads_it() {
        check(
            b"a=1\nb: 2\rc 3\r\n  d\t=\t4  \n",
            &[("a", "1", 1), ("b", "2", 2), ("c", "3", 3), ("d", "4  ", 4)],
        );
        check(b"# x=1\n  ! y=2\n\nz", &[("z", "", 4)]);
        check(
            b"a==1\nb=:2\nc = = 3\n",
            &[("a", "=1", 1), ("b", ":2", 2), ("c", "= 3", 3)],
        );
        check(
            b"a=1,\\\n   2,\\\n   3\nb=2\n",
            &[("a", "1,2,3", 1), ("b", "2", 4)],
        );
        check(b"a=x\\\\\nb=y\\", &[("a", "x\\", 1), ("b", "y", 2)]);
        check(b"a\\ b\\:c\\=d=e\\tf\\q\n", &[("a b:c=d", "e\tfq", 1)]);
        check(b"a=\\u00e9\\ud83d\\ude00\n", &[("a", "é😀", 1)]);
        check(b"a=1\\\n# no comment here\n", &[("a", "1# no comment here", 1)]);
        check(b"=v\n", &[("", "v", 1)]);
        check(b"", &[]);
        check(b"\n\n", &[]);
    }

    #[test]
    fn utf_8_is_read_as_such_and_anything_else_as_latin_1() {
        check("rack=Zürich".as_bytes(), &[("rack", "Zürich", 1)]);
        check(b"rack=Z\xfcrich", &[("rack", "Zürich", 1)]);
        check(b"\xEF\xBB\xBFrack=a", &[("rack", "a", 1)]);
    }

    #[test]
    fn a_broken_unicode_escape_names_its_line() {
        let error = parse_properties(b"a=1\nb=\\u12x4\n").unwrap_err();
        assert_eq!(
            error,
            PropertiesError {
                line: 2,
                found: "12x4".into()
            }
        );
    }

    #[test]
    fn no_bytes_make_the_parser_panic() {
        let mut state = 7u64;
        for _ in 0..20_000 {
            let bytes: Vec<u8> = (0..state % 23)
                .map(|_| {
                    state = state
                        .wrapping_mul(6364136223846793005)
                        .wrapping_add(1442695040888963407);
                    b"\\u0f=: \n\r\t#ab\xc3\xa9\xff"[(state >> 33) as usize % 16]
                })
                .collect();
            let _ = parse_properties(&bytes);
            state = state.wrapping_add(1);
        }
    }
}
