//! A summary for people: aligned columns, and a few lines below them.

use std::io::{self, Write};

use comfy_table::{CellAlignment, Table, presets};

use super::tally::Tally;
use crate::moment::shown;

const HEADINGS: [&str; 13] = [
    "segment",
    "offsets",
    "first time",
    "last time",
    "batches",
    "records",
    "size",
    "codecs",
    "ratio",
    "producers",
    "committed",
    "aborted",
    "damage",
];
/// Columns of text; the others are numbers.
const TEXT_COLUMNS: [usize; 5] = [0, 1, 2, 3, 7];

pub(super) type Row = [String; HEADINGS.len()];

pub(super) fn row(name: &str, tally: &Tally) -> Row {
    let none = || "-".to_owned();
    let codecs: Vec<_> = tally.codecs.keys().copied().collect();
    [
        name.to_owned(),
        tally
            .offsets
            .map_or_else(none, |(first, last)| format!("{first}..{last}")),
        tally.times.map_or_else(none, |times| shown(times.0)),
        tally.times.map_or_else(none, |times| shown(times.1)),
        tally.batches.to_string(),
        tally.records.to_string(),
        size(tally.size_bytes),
        codecs.join(","),
        tally
            .compression_ratio()
            .map_or_else(none, |ratio| format!("{ratio:.2}")),
        tally.producers.len().to_string(),
        tally.committed.to_string(),
        tally.aborted.to_string(),
        tally.damages.to_string(),
    ]
}

/// The rows, and what of their sum no row has room for.
pub(super) fn write(out: &mut impl Write, rows: &[Row], sum: &Tally) -> io::Result<()> {
    let mut table = plain(&HEADINGS);
    table.add_rows(rows);
    for index in (0..HEADINGS.len()).filter(|index| !TEXT_COLUMNS.contains(index)) {
        right(&mut table, index);
    }
    writeln!(out, "{}", table.trim_fmt())?;
    for open in &sum.open {
        writeln!(
            out,
            "open transaction: producer {} from offset {}",
            open.producer_id, open.first_offset
        )?;
    }
    writeln!(
        out,
        "{} null keys, {} tombstones, {} headers, {} control records",
        sum.null_keys, sum.tombstones, sum.headers, sum.control_records
    )?;
    if let Some(largest) = sum.largest_batch {
        writeln!(
            out,
            "largest batch: {} up to offset {}, at byte {}",
            size(largest.size_bytes),
            largest.last_offset,
            largest.position
        )?;
    }
    if sum.codecs.len() > 1 {
        let mut table = plain(&["codec", "batches", "records", "stored", "uncompressed"]);
        for (name, codec) in &sum.codecs {
            table.add_row([
                (*name).to_owned(),
                codec.batches.to_string(),
                codec.records.to_string(),
                size(codec.stored_bytes),
                size(codec.uncompressed_bytes),
            ]);
        }
        (1..5).for_each(|index| right(&mut table, index));
        writeln!(out, "{}", table.trim_fmt())?;
    }
    if sum.records > 0 {
        let mut table = plain(&["key size", "records", "bytes"]);
        for bucket in sum.key_sizes() {
            let range = match (bucket.from, bucket.to) {
                (-1, _) => "null".to_owned(),
                (from, to) if from == to => from.to_string(),
                (from, to) => format!("{from}..{to}"),
            };
            table.add_row([range, bucket.records.to_string(), size(bucket.bytes)]);
        }
        (1..3).for_each(|index| right(&mut table, index));
        writeln!(out, "{}", table.trim_fmt())?;
    }
    Ok(())
}

fn plain(headings: &[&str]) -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_header(headings.iter().copied());
    table
}

fn right(table: &mut Table, index: usize) {
    if let Some(column) = table.column_mut(index) {
        column.set_cell_alignment(CellAlignment::Right);
    }
}

/// `12 B`, `3.4 KiB`.
fn size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times_are_written_for_people() {
        assert_eq!(
            [size(0), size(1023), size(1536), size(5 << 30)],
            ["0 B", "1023 B", "1.5 KiB", "5.0 GiB"]
        );
        assert_eq!(shown(1_700_000_000_000), "2023-11-14T22:13:20.000Z");
        assert_eq!(shown(i64::MAX), i64::MAX.to_string());
    }
}
