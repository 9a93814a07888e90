//! Where lines end: standard output, or `server.log`.
//!
//! Files are named as with Kafka's `log4j.properties`: `server.log`, and `server.log.2026-11-22-15` for an hour that is over;
//! no file is ever written over. A closed standard output is survived in silence; a file that cannot be written is told on
//! standard error once and tried again with the next lines.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::LoggingError;
use super::line::{Line, local_time};
use super::queue::Queue;

/// Where lines end.
pub(super) enum Sink {
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

    /// Writes what comes until the queue's end.
    pub(super) fn write_all(mut self, queue: &Queue) {
        let mut buffer = String::new();
        while let Some(lines) = queue.take() {
            self.write(&lines, &mut buffer);
            queue.written(&lines);
        }
    }
}

/// `server.log` and its rotated past.
pub(super) struct RotatedFile {
    directory: PathBuf,
    /// `None` after a failure: the next write tries again.
    file: Option<File>,
    /// The hour whose lines are in the file, `2026-11-22-15`.
    hour: String,
    has_complained: bool,
}

impl RotatedFile {
    pub(super) fn open(directory: &Path) -> Result<RotatedFile, LoggingError> {
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tracing::Level;

    use super::*;

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
