//! Moments as people write them, and as they are shown: `earliest`, `latest`, milliseconds since 1970, ISO 8601 (UTC
//! unless it says otherwise), or a span before now (`2h ago`,
//! `-2h`).

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Span, SpanRelativeTo, Timestamp};

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moment {
    Earliest,
    Latest,
    /// Milliseconds since 1970.
    At(i64),
}

impl Moment {
    /// What ListOffsets calls it.
    pub(crate) fn timestamp(self) -> i64 {
        match self {
            Moment::Earliest => -2,
            Moment::Latest => -1,
            Moment::At(ms) => ms,
        }
    }

    /// For the command line; −1 and −2 are those of Kafka's GetOffsetShell.
    pub(crate) fn parse(text: &str) -> Result<Moment, String> {
        match text {
            "earliest" | "-2" => return Ok(Moment::Earliest),
            "latest" | "-1" => return Ok(Moment::Latest),
            "now" => return Ok(Moment::At(Timestamp::now().as_millisecond())),
            _ => {}
        }
        if let Ok(ms) = text.parse::<u64>() {
            return i64::try_from(ms).map(Moment::At).map_err(|_| expected(text));
        }
        if let Ok(ms) = date_time(text) {
            return Ok(Moment::At(ms));
        }
        let span = span(text)
            .filter(SignedDuration::is_negative)
            .ok_or_else(|| expected(text))?;
        let then = Timestamp::now().checked_add(span).map_err(|_| expected(text))?;
        Ok(Moment::At(then.as_millisecond()))
    }
}

/// Milliseconds since 1970 of a [`Moment`] that is none of the ends.
pub(crate) fn time_ms(text: &str) -> Result<i64, String> {
    match Moment::parse(text) {
        Ok(Moment::At(ms)) => Ok(ms),
        _ => Err(format!(
            "found {text:?}, expected a time as 2026-01-31T12:00:00Z, 1767268800000 (ms), now or '2h ago'"
        )),
    }
}

fn expected(text: &str) -> String {
    format!(
        "found {text:?}, expected earliest, latest, 2026-01-31T12:00:00Z, '2h ago' or milliseconds since 1970"
    )
}

/// A span of time as people (`1h 30m`, `2 days ago`) or ISO 8601 (`PT1H`) write it; a day has 24 hours.
pub(crate) fn span(text: &str) -> Option<SignedDuration> {
    let span: Span = text.parse().ok()?;
    span.to_duration(SpanRelativeTo::days_are_24_hours()).ok()
}

/// Milliseconds since 1970 of an ISO 8601 date, with or without time and zone.
pub(crate) fn date_time(text: &str) -> Result<i64, String> {
    if let Ok(zoned) = text.parse::<Timestamp>() {
        return Ok(zoned.as_millisecond());
    }
    let civil = text.parse::<DateTime>().map_err(|error| error.to_string())?;
    let timestamp = TimeZone::UTC
        .to_timestamp(civil)
        .map_err(|error| error.to_string())?;
    Ok(timestamp.as_millisecond())
}

/// Milliseconds since 1970 as people read them.
pub(crate) fn shown(ms: i64) -> String {
    Timestamp::from_millisecond(ms).map_or_else(|_| ms.to_string(), |then| format!("{then:.3}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_read_as_people_write_them_and_without_a_zone_as_utc() {
        for (text, ms) in [
            ("1577836800000", 1_577_836_800_000),
            ("2020-01-01", 1_577_836_800_000),
            ("2020-01-01T00:00", 1_577_836_800_000),
            ("2020-01-01T00:00:00.123", 1_577_836_800_123),
            ("2020-01-01T02:00:00+02:00", 1_577_836_800_000),
            ("2020-01-01T00:00:00Z", 1_577_836_800_000),
        ] {
            assert_eq!(Moment::parse(text), Ok(Moment::At(ms)), "{text}");
        }
        assert_eq!(Moment::parse("-2").unwrap().timestamp(), -2);
        assert_eq!(Moment::parse("latest").unwrap().timestamp(), -1);
        assert_eq!(shown(1_577_836_800_123), "2020-01-01T00:00:00.123Z");
    }

    #[test]
    fn a_span_is_before_now_and_never_after() {
        let now = Timestamp::now().as_millisecond();
        let Ok(Moment::At(then)) = Moment::parse("2h ago") else {
            panic!()
        };
        assert!((now - 7_200_000 - then).abs() < 60_000, "{then}");
        assert!((time_ms("now").unwrap() - time_ms("-1h30m").unwrap() - 5_400_000).abs() < 60_000);
        for wrong in ["2h", "yesterday", "-3", ""] {
            assert!(
                Moment::parse(wrong).unwrap_err().contains("expected earliest"),
                "{wrong}"
            );
        }
        for wrong in ["latest", "-1", "1h", "now-ish"] {
            assert!(time_ms(wrong).unwrap_err().contains("expected a time"), "{wrong}");
        }
    }
}
