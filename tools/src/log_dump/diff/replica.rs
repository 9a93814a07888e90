//! [`Replica`]: the records of one side in their order, batch by batch through all segments.

use std::collections::{BTreeSet, VecDeque};
use std::path::{Path, PathBuf};

use milena_engine::io::Io;

use super::super::control::Control;
use super::super::raw_batch::{RawBatch, Step, step};
use super::super::records::each_record;
use super::super::report::{Read, too_large, unknown_codec};
use super::super::segment::next_sound_batch;
use super::super::selection::{Selected, logs_in};
use super::super::source::Source;
use super::super::thing::{BatchThing, Damage, Layout, RecordThing};

/// Records of a batch that are looked at together; a batch with more of them is read several times.
const CHUNK: usize = 1 << 15;

/// What is compared of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) offset: i64,
    pub(super) timestamp: i64,
    pub(super) key: Digest,
    pub(super) value: Digest,
    pub(super) headers: Digest,
    /// Id, epoch and sequence.
    pub(super) producer: (i64, i16, i32),
    pub(super) is_transactional: bool,
    pub(super) is_control: bool,
    pub(super) is_abort: bool,
    pub(super) leader_epoch: i32,
}

/// Of bytes: how many there are, −1 for null, and two checksums of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Digest(i64, u32, u32);

impl Digest {
    fn of(bytes: Option<&[u8]>) -> Digest {
        match bytes {
            None => Digest(-1, 0, 0),
            Some(bytes) => Digest(bytes.len() as i64, crc32c::crc32c(bytes), crc32fast::hash(bytes)),
        }
    }

    pub(super) fn is_null(self) -> bool {
        self.0 < 0
    }

    /// Of headers, each part behind its size.
    fn of_headers(record: &RecordThing<'_>) -> Digest {
        let Layout::Record { headers, .. } = record.layout else {
            return Digest(0, 0, 0);
        };
        let (mut first, mut second) = (0, crc32fast::Hasher::new());
        let mut add = |bytes: Option<&[u8]>| {
            let size = bytes.map_or(-1, |bytes| bytes.len() as i64);
            for part in [&size.to_be_bytes()[..], bytes.unwrap_or_default()] {
                first = crc32c::crc32c_append(first, part);
                second.update(part);
            }
        };
        for header in headers.iter() {
            add(Some(header.key));
            add(header.value);
        }
        Digest(headers.len() as i64, first, second.finalize())
    }
}

impl Entry {
    fn of(record: &RecordThing<'_>) -> Result<Entry, Damage> {
        let (key, value) = record.content.clone()?;
        let raw = record.raw;
        let sequence = match record.layout {
            Layout::Record { sequence, .. } => sequence,
            Layout::Message { .. } => -1,
        };
        Ok(Entry {
            offset: record.offset,
            timestamp: record.timestamp,
            key: Digest::of(key),
            value: Digest::of(value),
            headers: Digest::of_headers(record),
            producer: match raw.is_v2() {
                true => (raw.producer_id(), raw.producer_epoch(), sequence),
                false => (-1, -1, -1),
            },
            is_transactional: raw.is_transactional(),
            is_control: raw.is_control(),
            is_abort: raw.is_control() && Control::parse(key, value).is_ok_and(Control::is_abort),
            leader_epoch: leader_epoch(raw),
        })
    }
}

/// −1 where the format has none.
pub(super) fn leader_epoch(raw: &RawBatch) -> i32 {
    if raw.is_v2() {
        raw.partition_leader_epoch()
    } else {
        -1
    }
}

/// Where something is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct At {
    pub(super) file: PathBuf,
    pub(super) position: u64,
}

/// Damage of a side, and where.
pub(super) type Damages = Vec<(At, Damage)>;

pub(super) struct Replica<'a> {
    io: &'a dyn Io,
    segments: VecDeque<Selected>,
    max_batch_size: usize,
    open: Option<Open>,
    chunk: Option<Chunk>,
    /// Found since they were taken last.
    pub(super) damages: Damages,
    /// The base offset of the first segment.
    pub(super) start: i64,
    /// Behind the last offset so far.
    pub(super) end: i64,
    pub(super) segment_count: u64,
    pub(super) batch_count: u64,
    pub(super) codecs: BTreeSet<&'static str>,
    pub(super) formats: BTreeSet<i8>,
}

/// The segment that is being read.
struct Open {
    file: Selected,
    source: Source,
    position: u64,
    end: u64,
}

/// Records of the batch at the position.
struct Chunk {
    entries: Vec<Entry>,
    next: usize,
    /// Of the batch, before these.
    before: usize,
    is_last: bool,
    raw: RawBatch,
}

enum Stopped {
    Full,
    Broken(Damage),
}

impl From<Damage> for Stopped {
    fn from(damage: Damage) -> Stopped {
        Stopped::Broken(damage)
    }
}

impl<'a> Replica<'a> {
    pub(super) fn open(io: &'a dyn Io, directory: &Path, max_batch_size: usize) -> Replica<'a> {
        let mut damages = Damages::new();
        let segments: VecDeque<_> = match logs_in(io, directory) {
            Ok(files) => files.into(),
            Err(error) => {
                let at = At {
                    file: directory.to_path_buf(),
                    position: 0,
                };
                damages.push((at, error.to_string().into()));
                VecDeque::new()
            }
        };
        Replica {
            io,
            start: segments.front().and_then(|file| file.base_offset).unwrap_or(0),
            end: 0,
            segment_count: segments.len() as u64,
            segments,
            max_batch_size,
            open: None,
            chunk: None,
            damages,
            batch_count: 0,
            codecs: BTreeSet::new(),
            formats: BTreeSet::new(),
        }
    }

    /// Where the batch is that is being read.
    pub(super) fn at(&self) -> At {
        self.open.as_ref().map_or_else(
            || At {
                file: PathBuf::new(),
                position: 0,
            },
            |open| At {
                file: open.file.path.clone(),
                position: open.position,
            },
        )
    }

    fn damaged(&mut self, damage: Damage) {
        let at = self.at();
        self.damages.push((at, damage));
    }

    /// No batch was begun that is not all read.
    pub(super) fn is_between_batches(&self) -> bool {
        self.chunk.is_none()
    }

    /// The batch that comes next, between batches.
    pub(super) fn batch(&mut self) -> Read<Option<RawBatch>> {
        loop {
            let Some(open) = &mut self.open else {
                let Some(file) = self.segments.pop_front() else {
                    return Ok(None);
                };
                let source = Source::open(self.io, &file.path)?;
                if let Some(base) = file.base_offset {
                    self.end = self.end.max(base);
                }
                self.open = Some(Open {
                    end: source.size_bytes(),
                    file,
                    source,
                    position: 0,
                });
                continue;
            };
            match step(&mut open.source, open.position, open.end)? {
                Step::Batch(batch) => return Ok(Some(batch)),
                Step::End => {
                    let left = open.end - open.position;
                    if left > 0 {
                        self.damaged(format!("found {left} bytes behind the last whole batch").into());
                    }
                    self.open = None;
                }
                Step::Broken(damage) => {
                    let (base, from, end) = (open.file.base_offset, open.position + 1, open.end);
                    let next = next_sound_batch(&mut open.source, base, from, end)?;
                    self.damaged(damage);
                    match (next, &mut self.open) {
                        (Some(next), Some(open)) => open.position = next,
                        _ => self.open = None,
                    }
                }
            }
        }
    }

    /// Whether the next batch has the checksum that it states.
    pub(super) fn is_valid(&mut self, batch: &RawBatch) -> Read<bool> {
        match &mut self.open {
            Some(open) => batch.is_valid_at(&mut open.source, open.position),
            None => Ok(false),
        }
    }

    /// Goes behind the next batch.
    pub(super) fn pass(&mut self, batch: &RawBatch) {
        self.batch_count += 1;
        self.codecs.insert(batch.compression_type().unwrap_or("UNKNOWN"));
        self.formats.insert(batch.magic());
        self.end = self.end.max(batch.last_offset().saturating_add(1));
        self.chunk = None;
        if let Some(open) = &mut self.open {
            open.position += batch.size_bytes as u64;
        }
    }

    /// The record that comes next.
    pub(super) fn record(&mut self) -> Read<Option<&Entry>> {
        loop {
            match &self.chunk {
                Some(chunk) if chunk.next < chunk.entries.len() => break,
                Some(chunk) if chunk.is_last => {
                    let raw = chunk.raw;
                    self.pass(&raw);
                }
                Some(chunk) => {
                    let (raw, before) = (chunk.raw, chunk.before + chunk.entries.len());
                    self.load(raw, before)?;
                }
                None => {
                    let Some(raw) = self.batch()? else {
                        return Ok(None);
                    };
                    self.check(&raw)?;
                    self.load(raw, 0)?;
                }
            }
        }
        Ok(self
            .chunk
            .as_ref()
            .and_then(|chunk| chunk.entries.get(chunk.next)))
    }

    pub(super) fn advance(&mut self) -> Read<()> {
        let Some(chunk) = &mut self.chunk else {
            return Ok(());
        };
        chunk.next += 1;
        if chunk.next == chunk.entries.len() && chunk.is_last {
            let raw = chunk.raw;
            self.pass(&raw);
        }
        Ok(())
    }

    fn check(&mut self, raw: &RawBatch) -> Read<()> {
        let Some(open) = &mut self.open else {
            return Ok(());
        };
        let position = open.position;
        let computed_crc = raw.computed_crc(&mut open.source, position)?;
        let thing = BatchThing {
            raw,
            position,
            computed_crc,
        };
        if !thing.is_valid() {
            self.damaged(thing.wrong_crc());
        }
        Ok(())
    }

    fn load(&mut self, raw: RawBatch, before: usize) -> Read<()> {
        let mut entries = Vec::new();
        let mut is_last = true;
        let damage = if raw.magic() < 0 {
            Some(Damage::found(format_args!("magic {}", raw.magic()), "0, 1 or 2"))
        } else if let Err(id) = raw.compression_type() {
            Some(unknown_codec(id))
        } else if raw.size_bytes > self.max_batch_size {
            Some(too_large(&raw, self.max_batch_size))
        } else if let Some(open) = &mut self.open {
            let bytes = open.source.bytes_at(open.position, raw.size_bytes)?;
            let mut index = 0;
            let walked = each_record(bytes, &raw, |record| {
                index += 1;
                if index <= before {
                    return Ok(());
                }
                if entries.len() == CHUNK {
                    return Err(Stopped::Full);
                }
                entries.push(Entry::of(record)?);
                Ok(())
            });
            match walked {
                Ok(()) => None,
                Err(Stopped::Full) => {
                    is_last = false;
                    None
                }
                Err(Stopped::Broken(damage)) => Some(damage),
            }
        } else {
            None
        };
        if let Some(damage) = damage {
            self.damaged(damage);
        }
        self.chunk = Some(Chunk {
            entries,
            next: 0,
            before,
            is_last,
            raw,
        });
        Ok(())
    }
}
