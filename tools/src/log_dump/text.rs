//! [`TextPrinter`]: the lines of Kafka's tool, and lines in its manner for what that tool does not know.
//!
//! Mismatches are kept for the end, as Kafka's tool does it: at most [`PAIRS_MAX`] of them, the further ones are
//! counted.

use std::io::{self, BufWriter, StdoutLock, Write};
use std::path::{Path, PathBuf};

use super::control::Control;
use super::decoder::MessageParser;
use super::java_text::java_text;
use super::report::{Mismatch, Printer, Unsaid};
use super::selection::Selected;
use super::thing::{BatchThing, Damage, Layout, ProducerEntry, RecordThing, Thing};

/// Pairs that are remembered, over all files.
const PAIRS_MAX: usize = 100_000;

pub(super) struct TextPrinter {
    out: BufWriter<StdoutLock<'static>>,
    parser: Option<MessageParser>,
    mismatches: Vec<Pairs>,
    pair_count: usize,
}

/// Those of one kind in one file.
struct Pairs {
    kind: Mismatch,
    path: PathBuf,
    pairs: Vec<(i64, i64)>,
    further: u64,
}

impl TextPrinter {
    pub(super) fn new(parser: Option<MessageParser>) -> TextPrinter {
        TextPrinter {
            out: BufWriter::with_capacity(1 << 16, io::stdout().lock()),
            parser,
            mismatches: Vec::new(),
            pair_count: 0,
        }
    }

    fn batch(&mut self, thing: &BatchThing<'_>) -> io::Result<()> {
        let batch = thing.raw;
        if batch.magic() < 0 {
            return writeln!(self.out, "{batch}");
        }
        writeln!(
            self.out,
            "{batch} position: {} {}: {} size: {} magic: {} compresscodec: {} crc: {} isvalid: {}",
            thing.position,
            batch.timestamp_type(),
            batch.max_timestamp(),
            batch.size_bytes,
            batch.magic(),
            batch.compression_type().unwrap_or("UNKNOWN"),
            batch.stored_crc(),
            thing.is_valid(),
        )
    }

    fn producer(&mut self, entry: &ProducerEntry) -> io::Result<()> {
        write!(
            self.out,
            "producerId: {} producerEpoch: {} coordinatorEpoch: {} currentTxnFirstOffset: ",
            entry.producer_id, entry.producer_epoch, entry.coordinator_epoch
        )?;
        match entry.current_txn_first_offset {
            Some(offset) => write!(self.out, "Some({offset}) ")?,
            None => write!(self.out, "None ")?,
        }
        match &entry.last_batch {
            Some(batch) => writeln!(
                self.out,
                "firstSequence: {} lastSequence: {} lastOffset: {} offsetDelta: {} timestamp: {}",
                batch.first_sequence,
                batch.last_sequence,
                batch.last_offset,
                batch.offset_delta,
                batch.timestamp
            ),
            None => writeln!(self.out),
        }
    }

    /// What stands behind a record's fields.
    fn content(&self, record: &RecordThing<'_>) -> Result<String, String> {
        if record.raw.is_control() {
            let (key, value) = record.content.clone()?;
            return Control::parse(key, value).map(Control::text);
        }
        let Some(parser) = &self.parser else {
            return Ok(String::new());
        };
        let (key, value) = record.content.clone()?;
        let (key, payload) = parser.parse(key, value)?;
        let mut text = String::new();
        for (name, field) in [(" key: ", key), (" payload: ", payload)] {
            if let Some(field) = field {
                text.push_str(name);
                text.push_str(&field);
            }
        }
        Ok(text)
    }
}

impl Printer for TextPrinter {
    fn begin(&mut self, file: &Selected) -> io::Result<()> {
        writeln!(self.out, "Dumping {}", file.path.display())
    }

    fn tell(&mut self, thing: &Thing<'_>) -> io::Result<()> {
        let out = &mut self.out;
        match thing {
            Thing::SegmentStart { base_offset } => writeln!(out, "Starting offset: {base_offset}"),
            Thing::Batch(batch) => self.batch(batch),
            Thing::TrailingBytes { file_name, count } => {
                writeln!(out, "Found {count} invalid bytes at the end of {file_name}")
            }
            Thing::OffsetEntry { offset, position } => writeln!(out, "offset: {offset} position: {position}"),
            Thing::TimeEntry { timestamp, offset } => {
                writeln!(out, "timestamp: {timestamp} offset: {offset}")
            }
            Thing::TransactionEntry {
                version,
                producer_id,
                first_offset,
                last_offset,
                last_stable_offset,
            } => writeln!(
                out,
                "version: {version} producerId: {producer_id} firstOffset: {first_offset} lastOffset: {last_offset} \
                 lastStableOffset: {last_stable_offset}"
            ),
            Thing::SanityCheck { path, .. } => writeln!(out, "{} passed sanity check.", path.display()),
            Thing::ProducerEntry(entry) => self.producer(entry),
            Thing::CheckpointEntry {
                topic,
                partition,
                offset,
                ..
            } => writeln!(out, "topic: {topic} partition: {partition} offset: {offset}"),
            Thing::EpochEntry { epoch, start_offset } => {
                writeln!(out, "leaderEpoch: {epoch} startOffset: {start_offset}")
            }
            Thing::Properties { properties } => properties
                .iter()
                .try_for_each(|(key, value)| writeln!(out, "{key}={value}")),
            Thing::CleanShutdown { broker_epoch } => match broker_epoch {
                Some(epoch) => writeln!(out, "clean shutdown brokerEpoch: {epoch}"),
                None => writeln!(out, "clean shutdown"),
            },
        }
    }

    fn record(&mut self, record: &RecordThing<'_>) -> Result<(), Unsaid> {
        write!(
            self.out,
            "| offset: {} {}: {} keysize: {} valuesize: {} ",
            record.offset,
            record.raw.timestamp_type(),
            record.timestamp,
            record.key_size,
            record.value_size
        )?;
        match record.layout {
            Layout::Message { crc, is_valid, .. } => write!(self.out, "crc: {crc} isvalid: {is_valid}")?,
            Layout::Record {
                sequence, headers, ..
            } => {
                let keys: Vec<_> = headers.iter().map(|header| java_text(header.key)).collect();
                write!(self.out, "sequence: {sequence} headerKeys: [{}]", keys.join(","))?;
            }
        }
        match self.content(record) {
            Ok(text) => Ok(writeln!(self.out, "{text}")?),
            Err(what) => {
                writeln!(self.out)?;
                Err(Unsaid::Content(what.into()))
            }
        }
    }

    fn damage(&mut self, _: &Path, _: Option<u64>, _: &Damage) -> io::Result<()> {
        Ok(())
    }

    fn mismatch(&mut self, path: &Path, kind: Mismatch, pair: (i64, i64)) -> io::Result<()> {
        let same = |pairs: &Pairs| pairs.kind == kind && pairs.path == path;
        // Those of one file come one after another, of at most three kinds.
        let recent = self.mismatches.len().saturating_sub(3);
        let index = match self.mismatches[recent..].iter().position(same) {
            Some(index) => recent + index,
            None => {
                self.mismatches.push(Pairs {
                    kind,
                    path: path.to_path_buf(),
                    pairs: Vec::new(),
                    further: 0,
                });
                self.mismatches.len() - 1
            }
        };
        let pairs = &mut self.mismatches[index];
        if self.pair_count < PAIRS_MAX {
            self.pair_count += 1;
            pairs.pairs.push(pair);
        } else {
            pairs.further += 1;
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    fn finish(&mut self) -> io::Result<()> {
        self.out.flush()?;
        let mut err = io::stderr().lock();
        self.mismatches.sort_by_key(|pairs| pairs.kind);
        for pairs in &self.mismatches {
            // Nobody may be reading that.
            let _ = pairs.write(&mut err);
        }
        Ok(())
    }
}

impl Pairs {
    fn write(&self, out: &mut impl Write) -> io::Result<()> {
        // As `File.getAbsolutePath`.
        let path = std::path::absolute(&self.path).unwrap_or_else(|_| self.path.clone());
        let path = path.display();
        match self.kind {
            Mismatch::IndexedOffset => writeln!(out, "Mismatches in :{path}"),
            Mismatch::IndexedTimestamp => writeln!(out, "Found timestamp mismatch in :{path}"),
            Mismatch::TimestampOrder => writeln!(out, "Found out of order timestamp in :{path}"),
            Mismatch::OffsetNotFound => {
                writeln!(out, "The following indexed offsets are not found in the log.")
            }
            Mismatch::NonConsecutive => writeln!(out, "Non-consecutive offsets in {path}"),
        }?;
        let mut line = |(first, second): &(i64, i64)| match self.kind {
            Mismatch::IndexedOffset => writeln!(out, "  Index offset: {first}, log offset: {second}"),
            Mismatch::IndexedTimestamp => {
                writeln!(out, "  Index timestamp: {first}, log timestamp: {second}")
            }
            Mismatch::TimestampOrder => {
                writeln!(
                    out,
                    "  Index timestamp: {first}, Previously indexed timestamp: {second}"
                )
            }
            Mismatch::OffsetNotFound => writeln!(out, "Indexed offset: {first}, found log offset: {second}"),
            Mismatch::NonConsecutive => writeln!(out, "  {first} is followed by {second}"),
        };
        // Of these two Kafka's tool has the last pair first.
        match self.kind {
            Mismatch::IndexedOffset | Mismatch::NonConsecutive => {
                self.pairs.iter().rev().try_for_each(&mut line)
            }
            _ => self.pairs.iter().try_for_each(&mut line),
        }?;
        match self.further {
            0 => Ok(()),
            further => writeln!(out, "  and {further} further ones"),
        }
    }
}
