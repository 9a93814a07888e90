//! What interrupted operations left in a partition's directory, and how each is finished or undone.
//!
//! | found                                            | then                                                |
//! |--------------------------------------------------|-----------------------------------------------------|
//! | `*.deleted`                                      | removed                                             |
//! | `*.cleaned`                                      | removed: the output was not complete                |
//! | `*.log.swap` at or above the smallest `.cleaned` | removed: a split that was not complete              |
//! | another `*.log.swap`                             | replaces what it covers; its indexes are built anew |
//! | `*.index.swap` and those of the other indexes    | removed with the plain indexes: built anew          |
//! | an index without its `.log`                      | removed                                             |
//!
//! Source: `Log.removeTempFilesAndCollectSwapFiles`, `Log.completeSwapOperations`, KAFKA-6264.

use crate::error::{IoError, StorageError};
use crate::io::FileKind;
use crate::log::names::{self, ParsedName};
use crate::log::scan::{BatchScanner, LOOKUP_WINDOW_SIZE_BYTES, Step};
use crate::units::Offset;

use super::{Loader, LogOpenError};

const INDEX_SUFFIXES: [&str; 3] = [names::OFFSET_INDEX, names::TIME_INDEX, names::TRANSACTION_INDEX];

impl Loader<'_> {
    /// Settles leftovers and returns the names of the segments' files that remain.
    pub(super) fn settle_leftovers(&self) -> Result<Vec<ParsedName>, LogOpenError> {
        let entries = self.place.io.list(&self.place.path())?;
        let mut plain = Vec::new();
        let mut cleaned = Vec::new();
        let mut swapped = Vec::new();
        for entry in entries.iter().filter(|entry| entry.kind == FileKind::File) {
            if entry.name.ends_with(names::DELETED) {
                self.place.remove(&entry.name)?;
                continue;
            }
            match names::parse(&entry.name) {
                None if entry.name == names::HOLE_CUT => self.has_cut_hole.set(true),
                None => {}
                Some(parsed) if parsed.kind == names::SNAPSHOT => {}
                Some(parsed) if parsed.stage == names::CLEANED => cleaned.push(parsed),
                Some(parsed) if parsed.stage == names::SWAP => swapped.push(parsed),
                Some(parsed) => plain.push(parsed),
            }
        }
        if !cleaned.is_empty() || !swapped.is_empty() {
            self.finish_swaps(&mut plain, &cleaned, &swapped)?;
        }
        let has_log = |offset: Offset, plain: &[ParsedName]| {
            plain
                .iter()
                .any(|other| other.offset == offset && other.kind == names::LOG)
        };
        let (kept, orphans): (Vec<_>, Vec<_>) = plain
            .iter()
            .copied()
            .partition(|parsed| has_log(parsed.offset, &plain));
        for orphan in orphans {
            let name = names::file_name(orphan.offset, orphan.kind);
            tracing::warn!("{}: removing index {name}, which has no log file", self.partition);
            self.place.remove(&name)?;
        }
        Ok(kept)
    }

    fn finish_swaps(
        &self,
        plain: &mut Vec<ParsedName>,
        cleaned: &[ParsedName],
        swapped: &[ParsedName],
    ) -> Result<(), LogOpenError> {
        let staged =
            |parsed: &ParsedName| format!("{}{}", names::file_name(parsed.offset, parsed.kind), parsed.stage);
        let first_cleaned = cleaned.iter().map(|parsed| parsed.offset).min();
        for parsed in cleaned {
            self.place.remove(&staged(parsed))?;
        }
        for parsed in swapped.iter().filter(|parsed| parsed.kind != names::LOG) {
            self.place.remove(&staged(parsed))?;
        }
        for parsed in swapped {
            for suffix in INDEX_SUFFIXES {
                self.place.remove(&names::file_name(parsed.offset, suffix))?;
            }
            plain.retain(|other| other.offset != parsed.offset || other.kind == names::LOG);
        }
        for swap in swapped.iter().filter(|parsed| parsed.kind == names::LOG) {
            if first_cleaned.is_some_and(|first| swap.offset >= first) {
                self.place.remove(&staged(swap))?;
                continue;
            }
            tracing::info!(
                "{}: finishing the interrupted swap of segment {}",
                self.partition,
                swap.offset
            );
            let swap_end = self.next_offset_of(&staged(swap), swap.offset)?;
            let mut covered = Vec::new();
            for old in plain.iter().filter(|parsed| parsed.kind == names::LOG) {
                if old.offset >= swap_end && old.offset != swap.offset {
                    continue;
                }
                let name = names::file_name(old.offset, names::LOG);
                if old.offset >= swap.offset || self.next_offset_of(&name, old.offset)? > swap.offset {
                    covered.push(old.offset);
                }
            }
            // First the old ones out, then the new one in: after a crash in between the swap file is still
            // there.
            for offset in &covered {
                for suffix in names::SEGMENT_SUFFIXES {
                    self.place.remove(&names::file_name(*offset, suffix))?;
                }
            }
            plain.retain(|parsed| !covered.contains(&parsed.offset));
            self.place
                .rename_file(&staged(swap), &names::file_name(swap.offset, names::LOG))?;
            plain.push(ParsedName {
                offset: swap.offset,
                kind: names::LOG,
                stage: "",
            });
        }
        Ok(self.place.sync_dir()?)
    }

    /// The offset after the last batch of a file, by its headers.
    fn next_offset_of(&self, name: &str, base: Offset) -> Result<Offset, LogOpenError> {
        let file = self.place.open_to_read(name)?;
        let size = file.size_bytes()?;
        let mut scanner = BatchScanner::new(file.as_ref(), 0, size, LOOKUP_WINDOW_SIZE_BYTES);
        let mut next = base;
        loop {
            match scanner
                .step()
                .map_err(|error: IoError| StorageError::from(error))?
            {
                Step::Batch { header, .. } => next = header.next_offset(),
                Step::End | Step::Bad { .. } => return Ok(next),
            }
        }
    }
}
