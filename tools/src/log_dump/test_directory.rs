//! A log directory in memory for tests: partitions of all formats with everything that is derived from them, and seeded
//! damage.

use std::collections::BTreeMap;
use std::io::IoSlice;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use milena_engine::config::{Codec, Magic};
use milena_engine::io::simulated::SimulatedDisk;
use milena_engine::io::{FileKind, Io, OpenMode};
use milena_engine::log::derived::Derivation;
use milena_engine::log::names;
use milena_engine::record_batch::{Batch, BatchHeader, ControlKind, ControlRecord, RecordBatchBuilder};
use milena_engine::units::{
    LeaderEpoch, Offset, ProducerEpoch, ProducerId, Sequence, TimestampMs, TopicPartition,
};

pub(super) const LOG_DIR: &str = "/data/logs";

/// Numbers that follow from a seed (SplitMix64).
#[derive(Debug)]
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % end
    }
}

pub(super) fn write(disk: &SimulatedDisk, path: &Path, content: &[u8]) {
    let file = disk.open(path, OpenMode::Truncate).unwrap();
    if !content.is_empty() {
        file.write_vectored_at(0, &[IoSlice::new(content)]).unwrap();
    }
    file.sync().unwrap();
    disk.sync_dir(path.parent().unwrap()).unwrap();
}

pub(super) fn read(disk: &SimulatedDisk, path: &Path) -> Vec<u8> {
    let file = disk.open(path, OpenMode::Read).unwrap();
    let mut content = vec![0; file.size_bytes().unwrap() as usize];
    file.read_at(0, &mut content).unwrap();
    content
}

/// Every file below a directory.
pub(super) fn tree(disk: &SimulatedDisk, directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in disk.list(directory).unwrap() {
        let path = directory.join(&entry.name);
        match entry.kind {
            FileKind::Directory => found.extend(tree(disk, &path)),
            _ => drop(found.insert(path.clone(), read(disk, &path))),
        }
    }
    found
}

/// Batches of one log, by segment, with what is derived from them.
#[derive(Debug)]
struct Writer {
    directory: PathBuf,
    derivation: Derivation,
    base: i64,
    next: i64,
    log: Vec<u8>,
    files: Vec<(String, Vec<u8>)>,
}

impl Writer {
    fn new(name: &str, partition: TopicPartition) -> Writer {
        let mut derivation = Derivation::new(partition, Offset(0));
        derivation.begin_segment(Offset(0));
        let directory = Path::new(LOG_DIR).join(name);
        Writer {
            directory,
            derivation,
            base: 0,
            next: 0,
            log: Vec::new(),
            files: Vec::new(),
        }
    }

    fn batch(&mut self, bytes: &[u8]) {
        let batch = Batch::parse(bytes).unwrap();
        self.derivation.add(batch.header(), batch.control_record().ok());
        self.next = batch.next_offset().get();
        self.log.extend_from_slice(bytes);
    }

    fn roll(&mut self) {
        let name = |suffix| names::file_name(Offset(self.base), suffix);
        let files = self.derivation.segment_files();
        self.files.push((name(names::LOG), std::mem::take(&mut self.log)));
        self.files.push((name(names::OFFSET_INDEX), files.offset_index));
        self.files.push((name(names::TIME_INDEX), files.time_index));
        if !files.transaction_index.is_empty() {
            self.files
                .push((name(names::TRANSACTION_INDEX), files.transaction_index));
        }
        let snapshot = names::file_name(Offset(self.next), names::SNAPSHOT);
        self.files.push((snapshot, self.derivation.snapshot()));
        self.base = self.next;
        self.derivation.begin_segment(Offset(self.base));
    }

    fn put(mut self, disk: &SimulatedDisk, epochs: Option<&str>) {
        if !self.log.is_empty() {
            self.roll();
        }
        disk.create_dir_all(&self.directory).unwrap();
        let epochs = epochs.map(|text| (names::LEADER_EPOCHS.to_owned(), text.as_bytes().to_vec()));
        for (name, content) in self.files.into_iter().chain(epochs) {
            write(disk, &self.directory.join(name), &content);
        }
    }
}

fn value(random: &mut Random, size: u64) -> Vec<u8> {
    (0..size).map(|_| random.below(256) as u8).collect()
}

/// `t-0`: three segments of format v2 with all codecs, a producer and its transactions, two leader epochs.
fn transactions(disk: &SimulatedDisk, random: &mut Random) {
    let (id, epoch) = (ProducerId(7), ProducerEpoch(0));
    let mut writer = Writer::new("t-0", TopicPartition::new("t", 0));
    let mut sequence = 0;
    let codecs = [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];
    for number in 0..36i64 {
        let time = TimestampMs(1_700_000_000_000 + number * 10);
        let leader_epoch = LeaderEpoch(if writer.next < 30 { 0 } else { 2 });
        let bytes = if number % 5 == 4 {
            let kind = if number % 2 == 0 {
                ControlKind::Abort
            } else {
                ControlKind::Commit
            };
            let marker = ControlRecord {
                kind,
                coordinator_epoch: 1,
            };
            let mut bytes = RecordBatchBuilder::end_transaction_marker(marker, id, epoch, time);
            // Neither is covered by the checksum.
            bytes[..8].copy_from_slice(&writer.next.to_be_bytes());
            bytes[12..16].copy_from_slice(&leader_epoch.get().to_be_bytes());
            bytes
        } else {
            let mut builder = RecordBatchBuilder::new()
                .base_offset(Offset(writer.next))
                .leader_epoch(leader_epoch)
                .codec(codecs[number as usize % codecs.len()])
                .producer(id, epoch, Some(Sequence(sequence)))
                .transactional(true);
            for _ in 0..2 {
                builder.append(time, Some(b"key"), Some(&value(random, 900)));
            }
            sequence += 2;
            builder.build()
        };
        writer.batch(&bytes);
        if number % 12 == 11 {
            writer.roll();
        }
    }
    writer.put(disk, Some("0\n2\n0 0\n2 30\n"));
}

/// `old-1`: messages of formats v0 and v1, plain and compressed.
fn old_formats(disk: &SimulatedDisk, random: &mut Random) {
    let mut writer = Writer::new("old-1", TopicPartition::new("old", 1));
    for number in 0..24 {
        let magic = if number < 12 { Magic::V0 } else { Magic::V1 };
        let codec = if number % 2 == 0 { Codec::None } else { Codec::Gzip };
        let mut builder = RecordBatchBuilder::new()
            .magic(magic)
            .codec(codec)
            .base_offset(Offset(writer.next));
        for _ in 0..if codec == Codec::None { 1 } else { 3 } {
            let time = if magic == Magic::V0 {
                TimestampMs::NONE
            } else {
                TimestampMs(1_600_000_000_000 + number)
            };
            builder.append(time, Some(b"key"), Some(&value(random, 700)));
        }
        let bytes = builder.build();
        writer.batch(&bytes);
        if number == 15 {
            writer.roll();
        }
    }
    writer.put(disk, None);
}

/// A directory that is sound. Its partitions end at 65 and 48.
pub(super) fn sound_directory(is_clean: bool) -> SimulatedDisk {
    static MADE: [OnceLock<SimulatedDisk>; 2] = [OnceLock::new(), OnceLock::new()];
    MADE[usize::from(is_clean)]
        .get_or_init(|| make(is_clean))
        .process_kill()
}

fn make(is_clean: bool) -> SimulatedDisk {
    let disk = SimulatedDisk::new(1);
    let mut random = Random(5);
    disk.create_dir_all(Path::new(LOG_DIR)).unwrap();
    for directory in ["/", "/data", LOG_DIR] {
        disk.sync_dir(Path::new(directory)).unwrap();
    }
    transactions(&disk, &mut random);
    old_formats(&disk, &mut random);
    let small = [
        ("meta.properties", "version=0\nbroker.id=0\n"),
        ("recovery-point-offset-checkpoint", "0\n2\nt 0 20\nold 1 0\n"),
        ("replication-offset-checkpoint", "0\n2\nt 0 65\nold 1 48\n"),
        ("log-start-offset-checkpoint", "0\n0\n"),
        ("cleaner-offset-checkpoint", "0\n0\n"),
    ];
    let marker = is_clean.then_some((".kafka_cleanshutdown", ""));
    for (name, content) in small.into_iter().chain(marker) {
        write(&disk, &Path::new(LOG_DIR).join(name), content.as_bytes());
    }
    disk.sync_dir(Path::new(LOG_DIR)).unwrap();
    disk
}

/// The whole batches of a log with their positions.
pub(super) fn batches(log: &[u8]) -> Vec<(usize, BatchHeader)> {
    let mut found = Vec::new();
    let mut position = 0;
    while let Ok(batch) = Batch::parse(&log[position..]) {
        found.push((position, *batch.header()));
        position += batch.size_bytes();
    }
    found
}

/// Damages one to three files: bits, cuts, zeroed and swapped pieces, files that are gone.
pub(super) fn damage(disk: &SimulatedDisk, random: &mut Random) {
    for _ in 0..1 + random.below(3) {
        let files: Vec<PathBuf> = tree(disk, Path::new(LOG_DIR)).into_keys().collect();
        let path = &files[random.below(files.len() as u64) as usize];
        let mut content = read(disk, path);
        let size = content.len() as u64;
        if size == 0 || random.below(6) == 0 {
            disk.remove_file(path).unwrap();
            disk.sync_dir(path.parent().unwrap()).unwrap();
            continue;
        }
        let at = random.below(size) as usize;
        let piece = (1 + random.below(600) as usize).min(content.len() - at);
        match random.below(5) {
            0 | 1 => content[at] ^= 1 << random.below(8),
            2 => content.truncate(at),
            3 => content[at..at + piece].fill(0),
            _ => {
                let other = random.below(size - piece as u64 + 1) as usize;
                let moved = content[at..at + piece].to_vec();
                content[other..other + piece].copy_from_slice(&moved);
            }
        }
        write(disk, path, &content);
    }
}
