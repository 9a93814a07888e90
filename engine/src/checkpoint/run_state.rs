//! `milena.state`: what this broker knew about the durability of a log directory when it last wrote.
//!
//! Kafka cannot tell a killed process from a machine that lost power. The first loses nothing, since the
//! page cache survives; the second may lose every byte that was not synced. The kernel's boot id tells them
//! apart:
//!
//! | marker `.kafka_cleanshutdown` | `milena.state` | boot id | what is known |
//! |---|---|---|---|
//! | there | any | any | every log was synced and closed; nothing is missing |
//! | missing | readable | same | no restart of the machine since: all bytes written are still there |
//! | missing | readable | other | bytes beyond a partition's synced end may be missing |
//! | missing | absent or unreadable | - | nothing: as in the line above, with a synced end of 0 |
//!
//! The file may be older than the run of a Java broker in the same directory. The table stays true: the
//! same boot id means no restart since this file was written, whoever wrote after it.
//!
//! Layout, of our own (a plain file, which Java brokers ignore): text lines, the last with the CRC32C of
//! all bytes before it.
//! ```text
//! milena.state 1
//! boot-id 4f6c0c9e-6a5b-4a57-8f2e-0d2a3b0a6f11
//! stopped clean                      (or: stopped no)
//! synced-ends 2
//! topicA 0 1234
//! topicB 3 77
//! crc32c 1a2b3c4d
//! ```

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};

use super::offsets::Line;
use crate::error::IoError;
use crate::io::Io;
use crate::units::{Offset, TopicPartition};

const FIRST_LINE: &str = "milena.state 1";

/// What the last writer knew.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct RunState {
    /// [`Io::boot_id`] of the run that wrote this; of no boot, while others may count on what a power cut cost.
    pub boot_id: String,
    /// Whether that run had closed every log of the directory. Trusted only together with the
    /// clean-shutdown marker.
    pub stopped_clean: bool,
    /// Per partition, the offset up to which (exclusive) its records were synced when this was written.
    pub synced_ends: BTreeMap<TopicPartition, Offset>,
}

/// `milena.state` is there but tells nothing. To be logged as a warning and treated as absent.
#[derive(Debug, thiserror::Error)]
#[error("{} is ignored: {reason}", path.display())]
pub struct RunStateUnreadable {
    pub path: PathBuf,
    pub reason: String,
}

impl RunState {
    /// `None` if the directory has none.
    ///
    /// # Errors
    /// A file that cannot be read or is damaged: the caller logs the warning and goes on as if it were
    /// absent.
    pub fn read(io: &dyn Io, log_dir: &Path) -> Result<Option<RunState>, RunStateUnreadable> {
        let path = log_dir.join(super::RUN_STATE_FILE);
        let unreadable = |reason: String| RunStateUnreadable {
            path: path.clone(),
            reason,
        };
        match super::read_file(io, &path) {
            Ok(None) => Ok(None),
            Ok(Some(content)) => RunState::parse(&content).map(Some).map_err(unreadable),
            Err(error) => Err(unreadable(error.to_string())),
        }
    }

    /// Replaces the file, durably when it returns.
    ///
    /// # Errors
    /// Final for the directory; the file has its old or its new content.
    pub fn write(&self, io: &dyn Io, log_dir: &Path) -> Result<(), IoError> {
        super::replace_file(io, &log_dir.join(super::RUN_STATE_FILE), self.render().as_bytes())
    }

    fn render(&self) -> String {
        let mut text = String::with_capacity(128 + 32 * self.synced_ends.len());
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{FIRST_LINE}");
        let _ = writeln!(text, "boot-id {}", self.boot_id);
        let _ = writeln!(
            text,
            "stopped {}",
            if self.stopped_clean { "clean" } else { "no" }
        );
        let _ = writeln!(text, "synced-ends {}", self.synced_ends.len());
        for (partition, offset) in &self.synced_ends {
            let _ = writeln!(text, "{}", Line(partition, *offset));
        }
        let crc = crc32c::crc32c(text.as_bytes());
        let _ = writeln!(text, "crc32c {crc:08x}");
        text
    }

    fn parse(content: &[u8]) -> Result<RunState, String> {
        let text = std::str::from_utf8(content).map_err(|error| error.to_string())?;
        let body_end = text
            .trim_end_matches('\n')
            .rfind('\n')
            .map_or(0, |newline| newline + 1);
        let (body, last) = text.split_at(body_end);
        let stated = last
            .strip_prefix("crc32c ")
            .and_then(|rest| rest.strip_suffix('\n'))
            .filter(|digits| digits.len() == 8)
            .and_then(|digits| u32::from_str_radix(digits, 16).ok())
            .ok_or("the last line is not 'crc32c' with 8 digits")?;
        let computed = crc32c::crc32c(body.as_bytes());
        if stated != computed {
            return Err(format!("its CRC32C is {computed:08x}, expected {stated:08x}"));
        }

        let mut lines = body.lines();
        let mut next = |name: &str| {
            let line = lines.next().unwrap_or_default();
            line.strip_prefix(name)
                .map(str::to_owned)
                .ok_or_else(|| format!("found '{line}', expected a line that starts with '{name}'"))
        };
        next(FIRST_LINE)?;
        let boot_id = next("boot-id ")?;
        let stopped_clean = match next("stopped ")?.as_str() {
            "clean" => true,
            "no" => false,
            other => return Err(format!("found 'stopped {other}', expected 'clean' or 'no'")),
        };
        let count = next("synced-ends ")?;
        let mut synced_ends = BTreeMap::new();
        for line in lines {
            let entry = match *line.split(' ').collect::<Vec<_>>().as_slice() {
                [topic, partition, offset] => partition
                    .parse()
                    .ok()
                    .zip(offset.parse().ok())
                    .map(|(partition, offset)| (TopicPartition::new(topic, partition), Offset(offset))),
                _ => None,
            };
            let (partition, offset) =
                entry.ok_or_else(|| format!("found '{line}', expected 'topic partition offset'"))?;
            synced_ends.insert(partition, offset);
        }
        if count.parse() != Ok(synced_ends.len()) {
            return Err(format!(
                "it announces {count} synced ends, found {}",
                synced_ends.len()
            ));
        }
        Ok(RunState {
            boot_id,
            stopped_clean,
            synced_ends,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::simulated::SimulatedDisk;
    use crate::io::{Io, OpenMode};

    fn example() -> RunState {
        RunState {
            boot_id: "4f6c0c9e-6a5b-4a57-8f2e-0d2a3b0a6f11".to_owned(),
            stopped_clean: false,
            synced_ends: BTreeMap::from([
                (TopicPartition::new("a", 0), Offset(12)),
                (TopicPartition::new("b.c_d-1", 31), Offset(i64::MAX)),
            ]),
        }
    }

    #[test]
    fn what_was_written_is_read_again() {
        let disk = SimulatedDisk::new(1);
        disk.create_dir_all(Path::new("/logs")).unwrap();
        assert_eq!(RunState::read(&disk, Path::new("/logs")).unwrap(), None);
        for state in [
            example(),
            RunState {
                stopped_clean: true,
                ..RunState::default()
            },
        ] {
            state.write(&disk, Path::new("/logs")).unwrap();
            assert_eq!(RunState::read(&disk, Path::new("/logs")).unwrap(), Some(state));
        }
    }

    #[test]
    fn every_flipped_bit_and_every_cut_makes_it_a_warning() {
        let good = example().render().into_bytes();
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            // A CRC digit may change its case, which changes nothing.
            if let Ok(found) = RunState::parse(&bad) {
                assert_eq!(found, example(), "bit {bit}");
                assert!(bad.eq_ignore_ascii_case(&good), "bit {bit}");
            }
        }
        for end in 0..good.len() {
            assert!(RunState::parse(&good[..end]).is_err(), "cut after {end} bytes");
        }
    }

    #[test]
    fn a_damaged_file_is_named_in_the_warning() {
        let disk = SimulatedDisk::new(1);
        disk.create_dir_all(Path::new("/logs")).unwrap();
        disk.open(Path::new("/logs/milena.state"), OpenMode::CreateNew)
            .unwrap();
        let warning = RunState::read(&disk, Path::new("/logs")).unwrap_err();
        assert_eq!(
            warning.to_string(),
            "/logs/milena.state is ignored: the last line is not 'crc32c' with 8 digits"
        );
    }
}
