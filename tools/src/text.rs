//! How the command line writes bytes and times: escapes in delimiters and formats, points in time.

use std::time::{SystemTime, UNIX_EPOCH};

use jiff::{SignedDuration, Timestamp};

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

/// Milliseconds since 1970 of a time as users write it: `2026-01-31T12:00:00Z`, `1767268800000` (milliseconds), `now`, or
/// a span from now, `-1h`.
///
/// # Errors
/// Says what is expected.
pub(crate) fn time_ms(text: &str) -> Result<i64, String> {
    let now = || {
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_millis() as i64)
    };
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let parsed = if text == "now" {
        Some(now())
    } else if is_number {
        text.parse().ok()
    } else if let Some(span) = text.strip_prefix(['-', '+']) {
        let span: Option<SignedDuration> = span.parse().ok();
        span.and_then(|span| i64::try_from(span.as_millis()).ok())
            .map(|span| {
                if text.starts_with('-') {
                    now() - span
                } else {
                    now() + span
                }
            })
    } else {
        text.parse::<Timestamp>().ok().map(Timestamp::as_millisecond)
    };
    parsed.filter(|&time| time >= 0).ok_or_else(|| {
        format!("found {text:?}, expected a time as 2026-01-31T12:00:00Z, 1767268800000 (ms), now or -1h")
    })
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

    #[test]
    fn times_are_absolute_or_counted_from_now() {
        assert_eq!(time_ms("1970-01-01T00:00:01Z").unwrap(), 1000);
        assert_eq!(time_ms("1970-01-01T01:00:01.5+01:00").unwrap(), 1500);
        assert_eq!(time_ms("1700000000000").unwrap(), 1_700_000_000_000);
        let hour = time_ms("now").unwrap() - time_ms("-1h").unwrap();
        assert!((3_599_000..=3_600_000).contains(&hour), "{hour}");
        for text in [
            "",
            "yesterday",
            "2026-13-01T00:00:00Z",
            "-",
            "1960-01-01T00:00:00Z",
            "99999999999999999999",
        ] {
            assert!(time_ms(text).unwrap_err().contains("expected a time"), "{text}");
        }
    }
}
