//! The broker's own log: log4j's layout, to standard output or to files that are rotated every hour.
//!
//! A line looks as Kafka's do, `[2026-11-22 15:00:00,123] INFO [KafkaServer id=0] started
//! (kafka.server.KafkaServer)`; the name in parentheses is the `target` of the event, fields follow the
//! message as `name=value`. Files are named as with Kafka's `log4j.properties`: `server.log`, and
//! `server.log.2026-11-22-15` for an hour that is over.
//!
//! Which events are written is a matter of [`loggers`], and may change at any time.
//!
//! Promises: an event costs its thread a formatted text and a short lock, never a write, because one thread
//! of its own writes. If that thread cannot keep up (a stopped pipe, a full disk), lines beyond
//! [`QUEUE_LIMIT_BYTES`] are counted and dropped, and the count is reported when writing goes on. A closed
//! standard output is survived in silence. A message cannot forge a line: every line break in it is followed
//! by a tab.

use std::collections::VecDeque;
use std::fmt::{self, Write as _};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use parking_lot::{Condvar, Mutex};
use time::{OffsetDateTime, UtcOffset};
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::subscriber::Interest;
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

use crate::config::LogOutput;

mod loggers;

use loggers::Levels;
pub use loggers::{LoggerLevel, Loggers, ROOT, loggers};

/// Text that may wait to be written: some ten thousand lines, more than any burst that is worth reading.
pub const QUEUE_LIMIT_BYTES: usize = 4 << 20;

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
        .spawn(move || writer.write_to(sink))
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
        self.queue.state.lock().is_over = true;
        self.queue.work.notify_one();
    }
}

/// Whether `milena.log.level` may have this value: `info`, or `info,kafka.controller=debug`.
pub fn is_valid_level(text: &str) -> bool {
    Levels::parse(text).is_some()
}

/// One event on its way to the writer.
struct Line {
    at: SystemTime,
    level: Level,
    target: String,
    text: String,
}

impl Line {
    fn now(level: Level, target: &str, text: String) -> Line {
        Line {
            at: SystemTime::now(),
            level,
            target: target.replace("::", "."),
            text,
        }
    }

    /// `[%d] %p %m (%c)%n`
    fn append_to(&self, buffer: &mut String) {
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

fn local_time(at: SystemTime) -> OffsetDateTime {
    let utc = OffsetDateTime::from(at);
    utc.to_offset(UtcOffset::local_offset_at(utc).unwrap_or(UtcOffset::UTC))
}

/// What waits to be written.
#[derive(Debug, Default)]
struct Queue {
    state: Mutex<QueueState>,
    /// There is something to write, or nothing more will come.
    work: Condvar,
    /// Something was written.
    progress: Condvar,
}

#[derive(Default)]
struct QueueState {
    lines: VecDeque<Line>,
    size_bytes: usize,
    /// Lines dropped since the last report.
    lost_count: u64,
    pushed_count: u64,
    written_count: u64,
    is_over: bool,
}

impl fmt::Debug for QueueState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QueueState")
            .field("waiting", &self.lines.len())
            .field("lost_count", &self.lost_count)
            .finish_non_exhaustive()
    }
}

impl Queue {
    fn push(&self, line: Line) {
        let mut state = self.state.lock();
        if state.size_bytes + line.text.len() > QUEUE_LIMIT_BYTES {
            state.lost_count += 1;
            return;
        }
        state.size_bytes += line.text.len();
        state.pushed_count += 1;
        state.lines.push_back(line);
        drop(state);
        self.work.notify_one();
    }

    /// Everything that waits; blocks while there is nothing. `None` at the end.
    fn take(&self) -> Option<VecDeque<Line>> {
        let mut state = self.state.lock();
        while state.lines.is_empty() {
            if state.is_over {
                return None;
            }
            self.work.wait(&mut state);
        }
        let mut lines = std::mem::take(&mut state.lines);
        if state.lost_count > 0 {
            let text = format!(
                "{} log lines were lost: they could not be written fast enough",
                state.lost_count
            );
            state.lost_count = 0;
            lines.push_back(Line::now(Level::WARN, "milena.logging", text));
            state.pushed_count += 1;
        }
        Some(lines)
    }

    fn written(&self, lines: &VecDeque<Line>) {
        let mut state = self.state.lock();
        state.written_count += lines.len() as u64;
        let reported: usize = lines.iter().map(|line| line.text.len()).sum();
        state.size_bytes = state.size_bytes.saturating_sub(reported);
        self.progress.notify_all();
    }

    fn flush(&self, timeout: Duration) {
        let deadline = Instant::now() + timeout;
        let mut state = self.state.lock();
        let goal = state.pushed_count;
        while state.written_count < goal {
            if self.progress.wait_until(&mut state, deadline).timed_out() {
                return;
            }
        }
    }

    fn write_to(&self, mut sink: Sink) {
        let mut buffer = String::new();
        while let Some(lines) = self.take() {
            sink.write(&lines, &mut buffer);
            self.written(&lines);
        }
    }
}

/// Where lines end.
enum Sink {
    Stdout,
    File(RotatedFile),
}

impl Sink {
    fn write(&mut self, lines: &VecDeque<Line>, buffer: &mut String) {
        buffer.clear();
        match self {
            Sink::Stdout => {
                lines.iter().for_each(|line| line.append_to(buffer));
                let mut stdout = io::stdout().lock();
                // Nobody may be reading any more; that is no reason to stop serving.
                let _ = stdout.write_all(buffer.as_bytes()).and_then(|()| stdout.flush());
            }
            Sink::File(file) => {
                for line in lines {
                    let hour = hour_text(line.at);
                    if hour != file.hour {
                        file.write(buffer);
                        buffer.clear();
                        file.roll(hour);
                    }
                    line.append_to(buffer);
                }
                file.write(buffer);
            }
        }
    }
}

/// `server.log` and its rotated past.
struct RotatedFile {
    directory: PathBuf,
    /// `None` after a failure: the next write tries again.
    file: Option<File>,
    /// The hour whose lines are in the file, `2026-11-22-15`.
    hour: String,
    has_complained: bool,
}

impl RotatedFile {
    fn open(directory: &Path) -> Result<RotatedFile, LoggingError> {
        let path = directory.join("server.log");
        let refuse = |source| LoggingError::Directory {
            directory: directory.to_owned(),
            path: path.clone(),
            source,
        };
        std::fs::create_dir_all(directory).map_err(refuse)?;
        let file = append_to(&path).map_err(refuse)?;
        let metadata = file.metadata().map_err(refuse)?;
        // Lines of an earlier run belong to the hour in which the last of them was written.
        let last = if metadata.len() > 0 {
            metadata.modified().map_err(refuse)?
        } else {
            SystemTime::now()
        };
        Ok(RotatedFile {
            directory: directory.to_owned(),
            file: Some(file),
            hour: hour_text(last),
            has_complained: false,
        })
    }

    fn path(&self) -> PathBuf {
        self.directory.join("server.log")
    }

    fn write(&mut self, text: &str) {
        if text.is_empty() {
            return;
        }
        let file = match self.file.take() {
            Some(file) => Ok(file),
            None => append_to(&self.path()),
        };
        let result = file.and_then(|mut file| file.write_all(text.as_bytes()).map(|()| file));
        match result {
            Ok(file) => {
                self.file = Some(file);
                self.has_complained = false;
            }
            Err(error) if !self.has_complained => {
                self.has_complained = true;
                let _ = writeln!(io::stderr(), "cannot write {}: {error}", self.path().display());
            }
            Err(_) => {}
        }
    }

    /// Puts the file of the hour that is over aside; never over an older file.
    fn roll(&mut self, hour: String) {
        self.file = None;
        let aside = self.directory.join(format!("server.log.{}", self.hour));
        let free = std::iter::once(aside.clone())
            .chain((1..).map(|number| aside.with_extension(format!("{}.{number}", extension(&aside)))))
            .find(|path| !path.exists());
        if let Some(free) = free {
            // If it cannot be renamed, the lines of the new hour follow in the same file.
            let _ = std::fs::rename(self.path(), free);
        }
        self.hour = hour;
    }
}

fn extension(path: &Path) -> String {
    path.extension()
        .map(|text| text.to_string_lossy().into_owned())
        .unwrap_or_default()
}

fn append_to(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

fn hour_text(at: SystemTime) -> String {
    let at = local_time(at);
    format!(
        "{:04}-{:02}-{:02}-{:02}",
        at.year(),
        u8::from(at.month()),
        at.day(),
        at.hour()
    )
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
        let lines = std::mem::take(&mut queue.state.lock().lines);
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

    #[test]
    fn lines_that_cannot_be_written_fast_enough_are_counted_and_not_waited_for() {
        let queue = Queue::default();
        for _ in 0..5 {
            queue.push(Line::now(Level::INFO, "a", "x".repeat(QUEUE_LIMIT_BYTES / 2)));
        }
        let lines = queue.take().unwrap();
        assert_eq!(lines.len(), 3);
        assert_eq!(
            lines[2].text,
            "3 log lines were lost: they could not be written fast enough"
        );
        queue.written(&lines);
        queue.flush(Duration::ZERO);
        assert_eq!(queue.state.lock().size_bytes, 0);
    }

    #[test]
    fn an_hour_that_is_over_gets_a_file_of_its_own() {
        let directory = std::env::temp_dir().join(format!("milena-logging-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let first = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let hour = Duration::from_secs(3600);
        let line = |at, text: &str| Line {
            at,
            level: Level::INFO,
            target: "t".into(),
            text: text.into(),
        };
        let mut file = RotatedFile::open(&directory).unwrap();
        file.hour = hour_text(first);
        let mut sink = Sink::File(file);
        let mut buffer = String::new();
        sink.write(
            &[line(first, "a"), line(first, "b"), line(first + hour, "c")].into(),
            &mut buffer,
        );
        sink.write(
            &[
                line(first + hour, "d"),
                line(first, "again"),
                line(first + hour, "e"),
            ]
            .into(),
            &mut buffer,
        );
        let read = |name: String| {
            let text = std::fs::read_to_string(directory.join(name)).unwrap();
            text.lines()
                .map(|line| line.split(' ').nth(3).unwrap().to_owned())
                .collect::<Vec<_>>()
                .join(" ")
        };
        assert_eq!(read(format!("server.log.{}", hour_text(first))), "a b");
        assert_eq!(read(format!("server.log.{}", hour_text(first + hour))), "c d");
        assert_eq!(read(format!("server.log.{}.1", hour_text(first))), "again");
        assert_eq!(read("server.log".to_owned()), "e");
        std::fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn a_directory_that_cannot_be_written_is_named() {
        let error = RotatedFile::open(Path::new("/proc/milena")).err().unwrap();
        assert!(
            error
                .to_string()
                .starts_with("milena.log.dir=/proc/milena: cannot write"),
            "{error}"
        );
    }
}
