//! [`java_text`]: bytes as `new String(bytes, UTF_8)` reads them.
//!
//! Java and Rust put one U+FFFD where a sequence breaks off, with one difference: a surrogate, which UTF-8 does not
//! have, is one mistake to Java and three to Rust. Source: `java.lang.String.decodeUTF8_UTF16`.

pub(super) fn java_text(mut bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    loop {
        let error = match std::str::from_utf8(bytes) {
            Ok(rest) => {
                text.push_str(rest);
                return text;
            }
            Err(error) => error,
        };
        let (valid, broken) = bytes.split_at(error.valid_up_to());
        text.push_str(&String::from_utf8_lossy(valid));
        text.push(char::REPLACEMENT_CHARACTER);
        let size = match broken {
            [0xed, 0xa0..=0xbf, 0x80..=0xbf, ..] => 3,
            [0xed, 0xa0..=0xbf, ..] => 2,
            _ => error.error_len().unwrap_or(broken.len()),
        };
        bytes = &broken[size..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broken_sequence_is_one_replacement_a_surrogate_too() {
        for (bytes, expected) in [
            (&b"plain \xc3\xa4"[..], "plain ä"),
            (b"\xed\xa0\x80a", "\u{fffd}a"),
            (b"\xed\xa0a", "\u{fffd}a"),
            (b"\xed\xa0", "\u{fffd}"),
            (b"\xe1\x80a", "\u{fffd}a"),
            (b"\xe0\x80a", "\u{fffd}\u{fffd}a"),
            (b"\xf1\x80\x80", "\u{fffd}"),
            (b"\xf5\x80", "\u{fffd}\u{fffd}"),
            (b"\xc0\xafz", "\u{fffd}\u{fffd}z"),
        ] {
            assert_eq!(java_text(bytes), expected, "{bytes:x?}");
        }
    }
}
