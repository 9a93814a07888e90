//! Sizes and spans of time as people write them: `64KiB`, `1MB`, `500ms`, `2m`.
//!
//! A number without a unit is bytes or seconds. Units of sizes: B, KB, MB, GB (powers of 1000), KiB, MiB, GiB; of
//! time: us, ms, s, m, h.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::de::{self, Deserialize, Deserializer, Visitor};
use serde::{Serialize, Serializer};

/// A number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ByteSize(pub(crate) u64);

/// A length of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Span(pub(crate) Duration);

const SIZE_UNITS: &[(&str, f64)] = &[
    ("", 1.0),
    ("B", 1.0),
    ("KB", 1e3),
    ("MB", 1e6),
    ("GB", 1e9),
    ("KiB", 1024.0),
    ("MiB", 1_048_576.0),
    ("GiB", 1_073_741_824.0),
];
const TIME_UNITS: &[(&str, f64)] = &[
    ("", 1.0),
    ("us", 1e-6),
    ("ms", 1e-3),
    ("s", 1.0),
    ("m", 60.0),
    ("h", 3600.0),
];

/// The number, times its unit.
fn quantity(text: &str, units: &[(&str, f64)], example: &str) -> Result<f64, String> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.' && c != '_');
    let (number, unit) = text.split_at(end.unwrap_or(text.len()));
    let number: Option<f64> = number.replace('_', "").parse().ok();
    let factor = units.iter().find(|(name, _)| *name == unit.trim());
    match (number, factor) {
        (Some(number), Some((_, factor))) => Ok(number * factor),
        _ => Err(format!(
            "found {text:?}, expected a number with a unit such as {example}"
        )),
    }
}

impl FromStr for ByteSize {
    type Err = String;

    fn from_str(text: &str) -> Result<ByteSize, String> {
        quantity(text, SIZE_UNITS, "64KiB").map(|bytes| ByteSize(bytes.round() as u64))
    }
}

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Span, String> {
        let seconds = quantity(text, TIME_UNITS, "10s or 5ms")?;
        let span = Duration::try_from_secs_f64(seconds);
        span.map(Span).map_err(|error| format!("found {text:?}: {error}"))
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let exact = |(_, factor): &&(&str, f64)| self.0 > 0 && self.0.is_multiple_of(*factor as u64);
        match SIZE_UNITS[5..].iter().rev().find(exact) {
            Some((unit, factor)) => write!(f, "{}{unit}", self.0 / *factor as u64),
            None => write!(f, "{}B", self.0),
        }
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

/// Reads a number or a text.
struct Written<T>(std::marker::PhantomData<T>);

impl<T: FromStr<Err = String>> Visitor<'_> for Written<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number, or a text such as \"64KiB\" or \"5ms\"")
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<T, E> {
        self.visit_str(&number.to_string())
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<T, E> {
        self.visit_str(&number.to_string())
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<T, E> {
        self.visit_str(&number.to_string())
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(E::custom)
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<ByteSize, D::Error> {
        deserializer.deserialize_any(Written(std::marker::PhantomData))
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Span, D::Error> {
        deserializer.deserialize_any(Written(std::marker::PhantomData))
    }
}

impl Serialize for ByteSize {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(self.0)
    }
}

/// In seconds.
impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(self.0.as_secs_f64())
    }
}

/// A number with three digits, or whole.
pub(crate) fn brief(value: f64) -> String {
    match value.abs() {
        size if size >= 1000.0 => {
            let digits = format!("{value:.0}");
            let mut out = String::new();
            for (at, digit) in digits.chars().enumerate() {
                if at > 0 && (digits.len() - at).is_multiple_of(3) && !out.ends_with('-') {
                    out.push(',');
                }
                out.push(digit);
            }
            out
        }
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 1.0 || size == 0.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

/// Microseconds in the unit that suits them.
pub(crate) fn brief_time(microseconds: f64) -> String {
    match microseconds {
        us if us < 1e3 => format!("{} us", brief(us)),
        us if us < 1e6 => format!("{} ms", brief(us / 1e3)),
        us => format!("{} s", brief(us / 1e6)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_spans_are_read_as_people_write_them() {
        for (text, bytes) in [
            ("0", 0),
            ("8196", 8196),
            ("64KiB", 65536),
            ("1.5MB", 1_500_000),
            ("1_000B", 1000),
        ] {
            assert_eq!(text.parse(), Ok(ByteSize(bytes)), "{text}");
        }
        for (text, ms) in [
            ("0", 0),
            ("5ms", 5),
            ("1.5s", 1500),
            ("2m", 120_000),
            ("10", 10_000),
        ] {
            assert_eq!(text.parse(), Ok(Span(Duration::from_millis(ms))), "{text}");
        }
        assert_eq!(ByteSize(65536).to_string(), "64KiB");
        assert_eq!(ByteSize(8196).to_string(), "8196B");
    }

    #[test]
    fn what_is_no_quantity_is_told_with_an_example() {
        for text in ["", "KiB", "5 parsecs", "-1", "1..2"] {
            assert!(
                text.parse::<ByteSize>().unwrap_err().contains("such as 64KiB"),
                "{text}"
            );
            assert!(
                text.parse::<Span>().unwrap_err().contains("such as 10s"),
                "{text}"
            );
        }
    }

    #[test]
    fn numbers_are_brief() {
        let texts = [0.0, 0.1234, 1.234, 12.34, 123.4, 1234.5, 1_234_567.0, -1234.0].map(brief);
        assert_eq!(
            texts,
            [
                "0.00",
                "0.123",
                "1.23",
                "12.3",
                "123",
                "1,234",
                "1,234,567",
                "-1,234"
            ]
        );
        assert_eq!(
            [1.0, 1500.0, 2e6].map(brief_time),
            ["1.00 us", "1.50 ms", "2.00 s"]
        );
    }
}
