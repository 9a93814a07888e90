//! [`parse`]: a time on a command line: milliseconds since 1970, RFC 3339, or counted back from now (`-1h30m`).

use milena_engine::io::{Clock, SystemClock};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

const UNITS: [(&str, i64); 6] = [
    ("ms", 1),
    ("s", 1_000),
    ("m", 60_000),
    ("h", 3_600_000),
    ("d", 86_400_000),
    ("w", 604_800_000),
];

/// Milliseconds since 1970.
///
/// # Errors
/// What was expected in place of what.
pub(super) fn parse(text: &str) -> Result<i64, String> {
    parse_at(text, SystemClock::new().wall().get())
}

fn parse_at(text: &str, now: i64) -> Result<i64, String> {
    let expected = || {
        format!(
            "found {text:?}, expected milliseconds since 1970, a time like 2026-11-22T15:00:00Z, or a while ago like -90s, -1h30m, -7d"
        )
    };
    if text == "now" {
        return Ok(now);
    }
    if let Some(ago) = text.strip_prefix('-') {
        return duration(ago)
            .and_then(|ago| now.checked_sub(ago))
            .ok_or_else(expected);
    }
    if let Ok(milliseconds) = text.parse() {
        return Ok(milliseconds);
    }
    let time = OffsetDateTime::parse(text, &Rfc3339).map_err(|_| expected())?;
    i64::try_from(time.unix_timestamp_nanos().div_euclid(1_000_000)).map_err(|_| expected())
}

/// `1h30m` in milliseconds.
fn duration(mut text: &str) -> Option<i64> {
    let mut total = 0i64;
    loop {
        let digits = text.find(|c: char| !c.is_ascii_digit())?;
        let count: i64 = text[..digits].parse().ok()?;
        text = &text[digits..];
        let end = text.find(|c: char| c.is_ascii_digit()).unwrap_or(text.len());
        let (_, unit) = UNITS.iter().find(|(name, _)| *name == &text[..end])?;
        total = total.checked_add(count.checked_mul(*unit)?)?;
        text = &text[end..];
        if text.is_empty() {
            return Some(total);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_milliseconds_rfc_3339_or_a_while_ago() {
        let now = 1_000_000_000;
        for (text, expected) in [
            ("0", 0),
            ("1700000000123", 1_700_000_000_123),
            ("now", now),
            ("-90s", now - 90_000),
            ("-1h30m", now - 5_400_000),
            ("-1w2d", now - 777_600_000),
            ("-250ms", now - 250),
            ("1970-01-01T01:00:00.5+01:00", 500),
            ("2023-11-14T22:13:20Z", 1_700_000_000_000),
        ] {
            assert_eq!(parse_at(text, now), Ok(expected), "{text}");
        }
        for text in [
            "",
            "-",
            "-1",
            "-h",
            "-1x",
            "1h",
            "yesterday",
            "2023-11-14",
            "-99999999999999w",
        ] {
            let error = parse_at(text, now).unwrap_err();
            assert!(
                error.contains("expected milliseconds since 1970"),
                "{text}: {error}"
            );
        }
    }
}
