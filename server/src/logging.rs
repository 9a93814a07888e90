//! The broker's own log: log4j's layout, to standard output or to files that are rotated every hour.
//!
//! Events of `tracing` become lines; the name in a line's parentheses is the `target` of the event, fields follow the message
//! as `name=value`. Which events are written is a matter of [`loggers`], and may change at any time.
//!
//! Promises: an event costs its thread a formatted text and a short lock, never a write, because one thread of its own
//! writes (`queue`). A closed standard output is survived in silence (`sink`). A message cannot forge a line (`line`).

use std::fmt::{self, Write as _};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::subscriber::Interest;
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

mod line;
mod loggers;
mod queue;
mod sink;

use line::Line;
use loggers::Levels;
pub use loggers::{LoggerLevel, Loggers, ROOT, loggers};
use queue::Queue;
use sink::{RotatedFile, Sink};

/// How long the end of the process waits for the last lines.
const LAST_WORDS_TIMEOUT: Duration = Duration::from_secs(2);

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    #[error("milena.log.dir={}: cannot write {}: {source}", directory.display(), path.display())]
    Directory {
        directory: PathBuf,
        path: PathBuf,
        source: io::Error,
    },
    #[error("milena.log.level={level}: not a level")]
    Level { level: String },
    #[error("cannot start the thread that writes the log: {0}")]
    Thread(io::Error),
    /// Something in this process set a subscriber before.
    #[error("logging is set up already")]
    AlreadySet,
}

/// Where the broker's own log goes.
#[derive(Clone, Debug)]
pub struct LogOutput {
    /// `milena.log.dir`; `None` is standard output.
    pub directory: Option<PathBuf>,
    /// `milena.log.level`, valid as [`is_valid_level`] says.
    pub level: String,
}

/// Keeps the log going; dropping it writes what is still waiting.
#[derive(Debug)]
pub struct Logging {
    queue: Arc<Queue>,
}

/// Sets up logging for the whole process, panics included.
///
/// # Errors
/// See [`LoggingError`]; nothing is set up then.
pub fn init(output: &LogOutput) -> Result<Logging, LoggingError> {
    let levels = Levels::parse(&output.level).ok_or_else(|| LoggingError::Level {
        level: output.level.clone(),
    })?;
    let sink = match &output.directory {
        None => Sink::Stdout,
        Some(directory) => Sink::File(RotatedFile::open(directory)?),
    };
    let queue = Arc::new(Queue::default());
    let loggers = loggers();
    loggers.replace(levels);
    let layer = Log4jLayer {
        queue: Arc::clone(&queue),
        loggers,
    };
    let subscriber = tracing_subscriber::registry().with(layer);
    tracing::subscriber::set_global_default(subscriber).map_err(|_| LoggingError::AlreadySet)?;
    let writer = Arc::clone(&queue);
    std::thread::Builder::new()
        .name("milena-log".to_owned())
        .spawn(move || sink.write_all(&writer))
        .map_err(LoggingError::Thread)?;
    let panics = Arc::clone(&queue);
    let previous = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        previous(info);
        panics.push(Line::now(
            Level::ERROR,
            "milena",
            format!("a broken invariant ends this process: {info}"),
        ));
        panics.flush(LAST_WORDS_TIMEOUT);
    }));
    Ok(Logging { queue })
}

impl Logging {
    /// Waits until everything logged so far is written, at most two seconds.
    pub fn flush(&self) {
        self.queue.flush(LAST_WORDS_TIMEOUT);
    }
}

impl Drop for Logging {
    fn drop(&mut self) {
        self.queue.flush(LAST_WORDS_TIMEOUT);
        self.queue.end();
    }
}

/// Whether `milena.log.level` may have this value: `info`, or `info,kafka.controller=debug`.
pub fn is_valid_level(text: &str) -> bool {
    Levels::parse(text).is_some()
}

/// Turns events into lines.
struct Log4jLayer {
    queue: Arc<Queue>,
    loggers: Arc<Loggers>,
}

impl Log4jLayer {
    fn is_written(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= self.loggers.filter_of(metadata.target())
    }
}

impl<S: Subscriber> Layer<S> for Log4jLayer {
    /// Asked once for each place in the code, and again after a change of levels.
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if self.is_written(metadata) {
            Interest::always()
        } else {
            Interest::never()
        }
    }

    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        self.is_written(metadata)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(self.loggers.most())
    }

    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        let mut text = EventText::default();
        event.record(&mut text);
        let metadata = event.metadata();
        let message = match (text.message.is_empty(), text.fields.is_empty()) {
            (true, _) => text.fields,
            (false, true) => text.message,
            (false, false) => format!("{} {}", text.message, text.fields),
        };
        self.queue
            .push(Line::now(*metadata.level(), metadata.target(), message));
    }
}

/// The message of an event, and its other fields as `name=value`.
#[derive(Default)]
struct EventText {
    message: String,
    fields: String,
}

impl Visit for EventText {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing to a String cannot fail.
        if field.name() == "message" {
            let _ = write!(self.message, "{value:?}");
        } else {
            let separator = if self.fields.is_empty() { "" } else { " " };
            let _ = write!(self.fields, "{separator}{}={value:?}", field.name());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the events of `work` look like, without their times.
    fn logged(level: &str, work: impl FnOnce(&Loggers)) -> Vec<String> {
        let queue = Arc::new(Queue::default());
        let loggers = Arc::new(Loggers::default());
        loggers.replace(Levels::parse(level).unwrap());
        let layer = Log4jLayer {
            queue: Arc::clone(&queue),
            loggers: Arc::clone(&loggers),
        };
        let subscriber = tracing_subscriber::registry().with(layer);
        let work = || work(&loggers);
        tracing::subscriber::with_default(subscriber, work);
        queue.end();
        let lines = queue.take().unwrap_or_default();
        let text = |line: &Line| {
            let mut buffer = String::new();
            line.append_to(&mut buffer);
            buffer.split_once("] ").unwrap().1.to_owned()
        };
        lines.iter().map(text).collect()
    }

    #[test]
    fn a_line_has_log4js_layout() {
        let lines = logged("info", |_| {
            tracing::info!(target: "kafka.server.KafkaServer", "[KafkaServer id=0] started");
            tracing::warn!(target: "kafka.log.LogManager", dir = "/data", count = 3, "found {} logs", 2);
            tracing::error!("one\ntwo\r");
            tracing::debug!("not shown");
        });
        assert_eq!(
            lines,
            [
                "INFO [KafkaServer id=0] started (kafka.server.KafkaServer)\n",
                "WARN found 2 logs dir=/data count=3 (kafka.log.LogManager)\n",
                "ERROR one\n\ttwo\\r (milena_server.logging.tests)\n",
            ]
        );
        let mut buffer = String::new();
        Line::now(Level::INFO, "a", "b".into()).append_to(&mut buffer);
        let digits: String = buffer
            .chars()
            .map(|char| if char.is_ascii_digit() { '0' } else { char })
            .collect();
        assert_eq!(digits, "[0000-00-00 00:00:00,000] INFO b (a)\n");
    }

    #[test]
    fn levels_may_differ_by_logger() {
        let lines = logged("WARN,kafka.controller=debug,kafka::log=error", |_| {
            tracing::info!(target: "kafka.server", "a");
            tracing::warn!(target: "kafka.server", "b");
            tracing::debug!(target: "kafka.controller.KafkaController", "c");
            tracing::warn!(target: "kafka.log.LogManager", "d");
        });
        assert_eq!(
            lines,
            [
                "WARN b (kafka.server)\n",
                "DEBUG c (kafka.controller.KafkaController)\n"
            ]
        );
        for (text, valid) in [
            ("INFO", true),
            ("off", true),
            ("fatal", true),
            ("info,root=debug", true),
            ("loud", false),
            ("", false),
            ("3", false),
            ("info,x", false),
            ("info,x=y", false),
        ] {
            assert_eq!(is_valid_level(text), valid, "{text}");
        }
    }

    #[test]
    fn a_change_of_levels_holds_at_once_for_places_that_were_passed_before() {
        let place = || tracing::debug!(target: "kafka.server.KafkaApis", "details");
        let lines = logged("info", |loggers| {
            let set = |logger: &str, level| loggers.set([(logger.to_owned(), level)]);
            place();
            set("kafka.server", Some(LoggerLevel::Debug));
            place();
            set("kafka.server", None);
            place();
            set(ROOT, Some(LoggerLevel::Trace));
            place();
            set(ROOT, Some(LoggerLevel::Fatal));
            place();
            tracing::error!(target: "kafka.server.KafkaApis", "not fatal");
        });
        assert_eq!(lines, ["DEBUG details (kafka.server.KafkaApis)\n"; 2]);
    }
}
