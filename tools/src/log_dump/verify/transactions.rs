//! The transaction index of a segment, held against the markers in its log.
//!
//! Entries stand in the order of their markers; each names the producer, the first offset of the transaction and the
//! marker. Source: `TransactionIndex`, `ProducerAppendInfo.appendEndTxnMarker`.

use milena_engine::io::Io;
use milena_engine::log::derived::{AbortedTransaction, decode_transaction_index};
use milena_engine::log::names;
use milena_engine::units::Offset;

use super::finding::{Finding, Kind, Start};
use super::producers::{Abort, Transaction};
use super::segment::Segment;
use super::window::Window;
use crate::log_dump::report::Read;

const ENTRY_SIZE_BYTES: usize = 34;

/// What earlier segments say of a producer's transaction; `None` if not all of them is known.
pub(super) type Before<'b> = Option<&'b dyn Fn(i64) -> Transaction>;

/// What is wrong with the index of `segment`. `before` tells of transactions that began before; without it the markers in
/// the log are not all there are, and the file is looked at alone.
pub(super) fn check(
    io: &dyn Io,
    segment: &Segment,
    before: Before<'_>,
    start: Start,
    next_base: Option<i64>,
) -> Read<Option<Finding>> {
    let path = segment
        .path
        .with_file_name(names::file_name(Offset(segment.base), names::TRANSACTION_INDEX));
    let kind = Kind::TransactionIndex { base: segment.base };
    let wrong = |found: String, expected: String, is_refused: bool| {
        let at_start = start.of_transaction_index(next_base, is_refused);
        Some(Finding::new(kind.clone(), &path, found, expected, at_start))
    };
    let mut aborts = segment.producers.aborts.iter();
    if io.stat(&path)?.is_none() {
        return Ok(match aborts.next().filter(|_| before.is_some()) {
            Some(abort) => wrong("no such file".to_owned(), described(abort, before), false),
            None => None,
        });
    }
    let mut window = Window::open(io, &path)?;
    let mut last: Option<AbortedTransaction> = None;
    let mut position = 0;
    loop {
        let bytes = window.at(position, ENTRY_SIZE_BYTES)?;
        if bytes.is_empty() {
            break;
        }
        let entry = match decode_transaction_index(bytes, Offset(segment.base)).as_deref() {
            Ok([entry]) => *entry,
            Ok(_) => return Ok(wrong("no entry".to_owned(), "one".to_owned(), true)),
            Err(reason) => {
                let finding = wrong(reason.clone(), "whole entries of version 0".to_owned(), true);
                return Ok(finding.map(|finding| finding.at(position)));
            }
        };
        let found = format!(
            "producer {} aborted from offset {} to {}",
            entry.producer_id, entry.first_offset, entry.last_offset
        );
        let is_sane = entry.first_offset <= entry.last_offset
            && entry.last_offset.get() < segment.next_offset()
            && last.is_none_or(|last| last.last_offset < entry.last_offset);
        if !is_sane {
            let expected = format!("increasing offsets below {}", segment.next_offset());
            return Ok(wrong(found, expected, false).map(|finding| finding.at(position)));
        }
        if before.is_some() {
            let abort = aborts.next();
            if !abort.is_some_and(|abort| is_same(&entry, abort, before)) {
                let expected = abort.map_or("no more entries".to_owned(), |abort| described(abort, before));
                return Ok(wrong(found, expected, false).map(|finding| finding.at(position)));
            }
        }
        last = Some(entry);
        position += ENTRY_SIZE_BYTES as u64;
    }
    Ok(match aborts.next().filter(|_| before.is_some()) {
        Some(abort) => wrong("the end of the file".to_owned(), described(abort, before), false)
            .map(|finding| finding.at(position)),
        None => None,
    })
}

/// Where the transaction of a marker began, as far as the log tells.
fn first_offset(abort: &Abort, before: Before<'_>) -> Option<i64> {
    abort.first_offset(before.map_or(Transaction::None, |before| before(abort.producer_id)))
}

fn is_same(entry: &AbortedTransaction, abort: &Abort, before: Before<'_>) -> bool {
    entry.producer_id.get() == abort.producer_id
        && entry.last_offset.get() == abort.last_offset
        && first_offset(abort, before).is_none_or(|first| first == entry.first_offset.get())
}

fn described(abort: &Abort, before: Before<'_>) -> String {
    let from = first_offset(abort, before).map_or(String::new(), |first| format!(" from offset {first}"));
    format!(
        "producer {} aborted{from} to {}",
        abort.producer_id, abort.last_offset
    )
}
