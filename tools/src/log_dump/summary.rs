//! [`SummaryPrinter`]: in place of lines, what is in each segment, each partition and all of them.
//!
//! A segment is told when the next one begins, so that memory grows with the number of producers alone; of a
//! partition as a table the rows are kept until it ends. What a filter keeps out is not counted, and a ratio of
//! compression is not told then.

use std::collections::BTreeMap;
use std::io::{self, BufWriter, StdoutLock, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::control::Control;
use super::json::write_line;
use super::report::{Mismatch, Printer, Unsaid};
use super::selection::Selected;
use super::thing::{Damage, RecordThing, Thing};

mod table;
mod tally;

use tally::Tally;

pub(super) struct SummaryPrinter {
    out: BufWriter<StdoutLock<'static>>,
    is_json: bool,
    segment: Option<Segment>,
    partition: Option<Partition>,
    total: Tally,
    partition_count: u64,
    segment_count: u64,
}

/// The one that is being read.
struct Segment {
    file: Selected,
    tally: Tally,
}

struct Partition {
    directory: PathBuf,
    topic: Option<String>,
    partition: Option<i32>,
    tally: Tally,
    segment_count: u64,
    /// For the table alone.
    rows: Vec<table::Row>,
    /// By producer, the offset at which its open transaction begins.
    open: BTreeMap<i64, i64>,
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all_fields = "camelCase")]
enum Object<'a> {
    #[serde(rename = "segmentSummary")]
    Segment {
        file: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        topic: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        partition: Option<i32>,
        #[serde(skip_serializing_if = "Option::is_none")]
        base_offset: Option<i64>,
        #[serde(flatten)]
        tally: &'a Tally,
    },
    #[serde(rename = "partitionSummary")]
    Partition {
        directory: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        topic: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        partition: Option<i32>,
        segments: u64,
        #[serde(flatten)]
        tally: &'a Tally,
    },
    #[serde(rename = "totalSummary")]
    Total {
        partitions: u64,
        segments: u64,
        #[serde(flatten)]
        tally: &'a Tally,
    },
}

impl SummaryPrinter {
    /// `is_filtered`: not all records of a batch are seen.
    pub(super) fn new(is_json: bool, is_filtered: bool) -> SummaryPrinter {
        SummaryPrinter {
            out: BufWriter::new(io::stdout().lock()),
            is_json,
            segment: None,
            partition: None,
            total: Tally::new(is_filtered),
            partition_count: 0,
            segment_count: 0,
        }
    }

    fn tally(&mut self) -> &mut Tally {
        match &mut self.segment {
            Some(segment) => &mut segment.tally,
            None => &mut self.total,
        }
    }

    fn end_segment(&mut self) -> io::Result<()> {
        let (Some(mut segment), Some(partition)) = (self.segment.take(), &mut self.partition) else {
            return Ok(());
        };
        self.segment_count += 1;
        partition.segment_count += 1;
        segment.tally.set_open(&partition.open);
        partition.tally.add(&segment.tally);
        if self.is_json {
            let file = segment.file.path.to_string_lossy();
            return write_line(
                &mut self.out,
                &Object::Segment {
                    file: &file,
                    topic: segment.file.topic.as_deref(),
                    partition: segment.file.partition,
                    base_offset: segment.file.base_offset,
                    tally: &segment.tally,
                },
            );
        }
        let name = segment.file.path.file_name().unwrap_or_default();
        partition
            .rows
            .push(table::row(&name.to_string_lossy(), &segment.tally));
        Ok(())
    }

    fn end_partition(&mut self) -> io::Result<()> {
        self.end_segment()?;
        let Some(mut partition) = self.partition.take() else {
            return Ok(());
        };
        self.partition_count += 1;
        partition.tally.set_open(&partition.open);
        self.total.add(&partition.tally);
        let directory = partition.directory.to_string_lossy();
        if self.is_json {
            return write_line(
                &mut self.out,
                &Object::Partition {
                    directory: &directory,
                    topic: partition.topic.as_deref(),
                    partition: partition.partition,
                    segments: partition.segment_count,
                    tally: &partition.tally,
                },
            );
        }
        if self.partition_count > 1 {
            writeln!(self.out)?;
        }
        if partition.rows.len() > 1 {
            partition.rows.push(table::row("all", &partition.tally));
        }
        writeln!(self.out, "{directory}")?;
        table::write(&mut self.out, &partition.rows, &partition.tally)
    }
}

impl Printer for SummaryPrinter {
    fn begin(&mut self, file: &Selected) -> io::Result<()> {
        self.end_segment()?;
        let directory = file.path.parent().unwrap_or(Path::new(""));
        if self
            .partition
            .as_ref()
            .is_none_or(|partition| partition.directory != directory)
        {
            self.end_partition()?;
            self.partition = Some(Partition {
                directory: directory.to_path_buf(),
                topic: file.topic.clone(),
                partition: file.partition,
                tally: Tally::new(self.total.is_filtered()),
                segment_count: 0,
                rows: Vec::new(),
                open: BTreeMap::new(),
            });
        }
        self.segment = Some(Segment {
            file: file.clone(),
            tally: Tally::new(self.total.is_filtered()),
        });
        Ok(())
    }

    fn tell(&mut self, thing: &Thing<'_>) -> io::Result<()> {
        match thing {
            Thing::Batch(batch) => {
                self.tally().batch(batch);
                let raw = batch.raw;
                if raw.is_transactional()
                    && !raw.is_control()
                    && let Some(partition) = &mut self.partition
                {
                    let open = partition.open.entry(raw.producer_id());
                    open.or_insert(raw.base_offset());
                }
            }
            Thing::TrailingBytes { .. } => self.tally().damaged(),
            _ => {}
        }
        Ok(())
    }

    fn record(&mut self, record: &RecordThing<'_>) -> Result<(), Unsaid> {
        if !record.raw.is_control() {
            self.tally().record(record);
            return record
                .content
                .as_ref()
                .map(|_| ())
                .map_err(|what| Unsaid::Content(what.clone().into()));
        }
        let control = record
            .content
            .clone()
            .and_then(|(key, value)| Control::parse(key, value));
        let control = control.map_err(|what| Unsaid::Content(what.into()))?;
        self.tally().control(record, control);
        if control.coordinator_epoch.is_some()
            && let Some(partition) = &mut self.partition
        {
            partition.open.remove(&record.raw.producer_id());
        }
        Ok(())
    }

    fn damage(&mut self, _: &Path, _: Option<u64>, _: &Damage) -> io::Result<()> {
        self.tally().damaged();
        Ok(())
    }

    fn mismatch(&mut self, _: &Path, _: Mismatch, _: (i64, i64)) -> io::Result<()> {
        // Compaction leaves holes between offsets.
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    fn finish(&mut self) -> io::Result<()> {
        self.end_partition()?;
        let (partitions, segments) = (self.partition_count, self.segment_count);
        if self.is_json {
            let tally = &self.total;
            write_line(
                &mut self.out,
                &Object::Total {
                    partitions,
                    segments,
                    tally,
                },
            )?;
        } else if partitions > 1 {
            writeln!(self.out, "\n{partitions} partitions, {segments} segments")?;
            table::write(&mut self.out, &[table::row("all", &self.total)], &self.total)?;
        }
        self.out.flush()
    }
}
