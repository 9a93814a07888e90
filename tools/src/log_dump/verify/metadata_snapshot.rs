//! A snapshot of KRaft's metadata (`.checkpoint`): batches from offset 0 on, the first and the last of them control batches.
//!
//! Source: `RecordsSnapshotWriter` and `Snapshots` of Kafka 3.9; `BatchFileWriter` for `bootstrap.checkpoint`.

use std::path::Path;

use milena_engine::io::Io;

use super::finding::{Finding, Kind};
use super::segment::{Found, look, wrong_records};
use super::window::Window;
use crate::log_dump::report::Read;

/// Whether a file is one by its name, which begins with the offset and epoch that it stands for.
pub(super) fn is_named(name: &str) -> bool {
    let digits = |text: &str, count| text.len() == count && text.bytes().all(|byte| byte.is_ascii_digit());
    let Some((offset, epoch)) = name.strip_suffix(".checkpoint").and_then(|id| id.split_once('-')) else {
        return false;
    };
    digits(offset, 20) && digits(epoch, 10)
}

/// What is wrong with it first, if anything; `deep` looks at its records.
pub(super) fn check(io: &dyn Io, path: &Path, deep: bool) -> Read<Option<Finding>> {
    let mut window = Window::open(io, path)?;
    let end = window.size_bytes();
    let (mut position, mut due, mut is_ended) = (0, 0, false);
    let wrong = |position: u64, found: String, expected: String| {
        let at_start = "it is not looked at; a later version does not start with it if it is the newest";
        let finding = Finding::new(Kind::MetadataSnapshot, path, found, expected, at_start);
        Ok(Some(finding.at(position)))
    };
    while position < end {
        let header = match look(&mut window, position, end)? {
            Found::Sound(header) => header,
            Found::Bad { found, expected, .. } => return wrong(position, found, expected),
        };
        if header.base_offset.get() != due {
            return wrong(
                position,
                format!("a batch from offset {}", header.base_offset),
                due.to_string(),
            );
        }
        if position == 0 && !header.is_control {
            return wrong(
                position,
                "a batch of records".to_owned(),
                "the header of a snapshot".to_owned(),
            );
        }
        if deep && let Some(found) = wrong_records(&mut window, position, &header)? {
            return wrong(position, found, "whole records".to_owned());
        }
        due = header.next_offset().get();
        is_ended = header.is_control && position > 0;
        position += header.size_bytes as u64;
    }
    if is_ended {
        return Ok(None);
    }
    wrong(
        end,
        "the end of the file".to_owned(),
        "the footer of a snapshot".to_owned(),
    )
}
