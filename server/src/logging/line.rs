//! One line of the log, as Kafka's look: `[2026-11-22 15:00:00,123] INFO [KafkaServer id=0] started
//! (kafka.server.KafkaServer)`.
//!
//! A message cannot forge a line: every line break in it is followed by a tab.

use std::fmt::Write as _;
use std::time::SystemTime;

use time::{OffsetDateTime, UtcOffset};
use tracing::Level;

/// One event on its way to the writer.
pub(super) struct Line {
    pub(super) at: SystemTime,
    pub(super) level: Level,
    pub(super) target: String,
    pub(super) text: String,
}

impl Line {
    pub(super) fn now(level: Level, target: &str, text: String) -> Line {
        Line {
            at: SystemTime::now(),
            level,
            target: target.replace("::", "."),
            text,
        }
    }

    /// `[%d] %p %m (%c)%n`
    pub(super) fn append_to(&self, buffer: &mut String) {
        let at = local_time(self.at);
        let text = self.text.replace('\n', "\n\t").replace('\r', "\\r");
        // Writing to a String cannot fail.
        let _ = writeln!(
            buffer,
            "[{:04}-{:02}-{:02} {:02}:{:02}:{:02},{:03}] {} {text} ({})",
            at.year(),
            u8::from(at.month()),
            at.day(),
            at.hour(),
            at.minute(),
            at.second(),
            at.millisecond(),
            self.level,
            self.target
        );
    }
}

pub(super) fn local_time(at: SystemTime) -> OffsetDateTime {
    let utc = OffsetDateTime::from(at);
    utc.to_offset(UtcOffset::local_offset_at(utc).unwrap_or(UtcOffset::UTC))
}
