//! Bytes as the command line writes them: escapes in delimiters and formats.

/// Bytes of a text in which `\n`, `\r`, `\t`, `\0`, `\\` and `\xNN` stand for bytes.
///
/// # Errors
/// Names the escape that is none.
pub(crate) fn unescape(text: &str) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('\\') {
        bytes.extend_from_slice(before.as_bytes());
        let mut letters = after.chars();
        let byte = match letters.next() {
            Some('n') => b'\n',
            Some('r') => b'\r',
            Some('t') => b'\t',
            Some('0') => 0,
            Some('\\') => b'\\',
            Some('x') if after.is_char_boundary(3) => {
                letters.next();
                letters.next();
                u8::from_str_radix(&after[1..3], 16).map_err(|_| wrong_escape(text))?
            }
            _ => return Err(wrong_escape(text)),
        };
        bytes.push(byte);
        rest = letters.as_str();
    }
    bytes.extend_from_slice(rest.as_bytes());
    Ok(bytes)
}

fn wrong_escape(text: &str) -> String {
    format!(r"found {text:?}, expected only \n, \r, \t, \0, \\ and \xNN behind a backslash")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_stand_for_bytes() {
        assert_eq!(unescape(r"a\t\x00\xfF\\n\n").unwrap(), b"a\t\0\xff\\n\n");
        for text in [r"\", r"\q", r"\x1", r"\xüü", r"\xg0"] {
            assert!(
                unescape(text).unwrap_err().contains("behind a backslash"),
                "{text}"
            );
        }
    }
}
