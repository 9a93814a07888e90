//! Names of the files in a partition's directory, as `Log.scala` makes and reads them.
//!
//! Three names are ours: that of bytes which recovery cut aside (`<base>.log.cut-<position>-<time>`),
//! `milena.give-up-from-<offset>`, by which a person gives up what lies behind damage, and [`HOLE_CUT`]. 2.7.2
//! looks at names by their endings (`.log`, `.index`, `.timeindex`, `.txnindex`, `.snapshot`, `.deleted`, `.cleaned`, `.swap`)
//! and ignores all others.

use std::fmt;

use crate::units::{Offset, TimestampMs};

/// The batches of a segment.
pub const LOG: &str = ".log";
/// Offset to position.
pub const OFFSET_INDEX: &str = ".index";
/// Timestamp to offset.
pub const TIME_INDEX: &str = ".timeindex";
/// Aborted transactions.
pub const TRANSACTION_INDEX: &str = ".txnindex";
/// Producer state at an offset.
pub const SNAPSHOT: &str = ".snapshot";
/// About to be removed.
pub const DELETED: &str = ".deleted";
/// Output of compaction that is not complete.
pub const CLEANED: &str = ".cleaned";
/// Complete output of compaction that is about to take its place.
pub const SWAP: &str = ".swap";
/// The list of leader epochs.
pub const LEADER_EPOCHS: &str = "leader-epoch-checkpoint";
/// There, empty, from before a hole is cut until nobody counts any more on what lay there.
pub const HOLE_CUT: &str = "milena.hole-cut";

/// All files of a segment.
pub const SEGMENT_SUFFIXES: [&str; 4] = [LOG, OFFSET_INDEX, TIME_INDEX, TRANSACTION_INDEX];

/// The offset in 20 digits, then the suffix.
pub fn file_name(offset: Offset, suffix: &str) -> String {
    format!("{:020}{suffix}", offset.get())
}

/// Where recovery keeps what it cut from the segment at `base`, from `position` on.
pub fn cut_name(base: Offset, position: u64, now: TimestampMs) -> String {
    format!("{:020}{LOG}.cut-{position}-{}", base.get(), now.get())
}

/// What a person calls an empty file to give up what a damaged log holds from `offset` on.
pub fn give_up_name(offset: impl fmt::Display) -> String {
    format!("milena.give-up-from-{offset}")
}

/// A name that belongs to a log: its offset, what kind of file, and whether it is on its way in or out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParsedName {
    pub offset: Offset,
    /// One of the constants above, of the segment's files or `SNAPSHOT`.
    pub kind: &'static str,
    /// `""`, `CLEANED` or `SWAP`.
    pub stage: &'static str,
}

/// Takes a name apart; `None` for anything that is not digits followed by a known ending.
pub fn parse(name: &str) -> Option<ParsedName> {
    let (stem, stage) = if let Some(stem) = name.strip_suffix(CLEANED) {
        (stem, CLEANED)
    } else if let Some(stem) = name.strip_suffix(SWAP) {
        (stem, SWAP)
    } else {
        (name, "")
    };
    let (digits, kind) = [LOG, TIME_INDEX, TRANSACTION_INDEX, OFFSET_INDEX, SNAPSHOT]
        .into_iter()
        .find_map(|kind| Some((stem.strip_suffix(kind)?, kind)))?;
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some(ParsedName {
        offset: Offset(digits.parse().ok()?),
        kind,
        stage,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind_of(name: &str) -> Option<(i64, &'static str, &'static str)> {
        parse(name).map(|parsed| (parsed.offset.get(), parsed.kind, parsed.stage))
    }

    #[test]
    fn names_are_made_and_read_as_kafka_does() {
        assert_eq!(file_name(Offset(42), LOG), "00000000000000000042.log");
        assert_eq!(kind_of("00000000000000000042.log"), Some((42, LOG, "")));
        assert_eq!(
            kind_of("00000000000000000042.timeindex"),
            Some((42, TIME_INDEX, ""))
        );
        assert_eq!(
            kind_of("00000000000000000042.index.swap"),
            Some((42, OFFSET_INDEX, SWAP))
        );
        assert_eq!(
            kind_of("00000000000000000042.txnindex.cleaned"),
            Some((42, TRANSACTION_INDEX, CLEANED))
        );
        assert_eq!(kind_of("00000000000000000007.snapshot"), Some((7, SNAPSHOT, "")));
    }

    #[test]
    fn what_recovery_cut_aside_and_foreign_files_are_not_part_of_the_log() {
        assert_eq!(kind_of(&cut_name(Offset(3), 77, TimestampMs(5))), None);
        assert_eq!(kind_of("notes.log"), None);
        assert_eq!(kind_of(&give_up_name(Offset(42))), None);
        assert_eq!(kind_of(HOLE_CUT), None);
        assert_eq!(kind_of("leader-epoch-checkpoint"), None);
        assert_eq!(kind_of("99999999999999999999.log"), None);
    }
}
