//! Operations on a log, compared with a list of batches: the log holds the bytes that the list holds.
//!
//! Input: operations, one byte each with its arguments behind it; see [`Model::step`]. Records come from an
//! honest producer and, as a follower takes them, from anywhere.

use std::path::Path;
use std::sync::Arc;

use milena_engine::config::{Codec, LogConfig, Magic};
use milena_engine::io::Io;
use milena_engine::io::simulated::{Completions, ManualClock, SimulatedDisk};
use milena_engine::log::{
    BootEvidence, Log, LogDirectory, LogStartOffsetIncrementReason, OpenOptions, UpperBound,
};
use milena_engine::record_batch::{
    AppendOrigin, Level, RecordBatchBuilder, RequestRules, ValidationRules, batches, validate,
};
use milena_engine::units::{
    LeaderEpoch, Offset, ProducerEpoch, ProducerId, Sequence, TimestampMs, TopicPartition,
};

use crate::{seal, take};

const NOW: TimestampMs = TimestampMs(1_600_000_000_000);
/// The simulated disk and the list, each with all that 200 batches make, however few bytes ask for them.
pub(crate) const DISK: usize = 16 << 20;
const CODECS: [Codec; 5] = [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];

pub(crate) fn run(mut data: &[u8]) {
    let mut model = Model::new(take(&mut data));
    while !data.is_empty() && model.batches.len() < 200 {
        model.step(&mut data);
    }
    model.check();
}

/// One batch as it must lie in the file.
#[derive(Clone, Debug, PartialEq)]
struct Stored {
    base: Offset,
    next: Offset,
    bytes: Vec<u8>,
}

struct Model {
    disk: SimulatedDisk,
    config: LogConfig,
    log: Arc<Log>,
    batches: Vec<Stored>,
    start: Offset,
    end: Offset,
    sequence: i32,
}

fn open(disk: &SimulatedDisk, config: &LogConfig, options: &OpenOptions) -> Arc<Log> {
    Log::open(
        Arc::new(LogDirectory::new("/data")),
        "fuzz-0",
        TopicPartition::new("fuzz", 0),
        Arc::new(config.clone()),
        options,
        Arc::new(disk.clone()),
        Arc::new(ManualClock::new(NOW)),
    )
    .expect("a log without damage opens")
}

impl Model {
    fn new(shape: u8) -> Model {
        let disk = SimulatedDisk::new(1);
        disk.create_dir_all(Path::new("/data")).expect("a healthy disk");
        disk.set_clock(Arc::new(ManualClock::new(NOW)));
        disk.set_completions(Completions::Manual);
        let config = LogConfig {
            segment_size_bytes: 512 << (shape & 3),
            index_interval_bytes: 64 << (shape >> 2 & 3),
            segment_index_size_bytes: 64 << (shape >> 4 & 3),
            message_format: Magic::V2,
            retention_ms: None,
            ..LogConfig::default()
        };
        let log = open(&disk, &config, &OpenOptions::default());
        Model {
            disk,
            config,
            log,
            batches: Vec::new(),
            start: Offset::ZERO,
            end: Offset::ZERO,
            sequence: 0,
        }
    }

    fn step(&mut self, data: &mut &[u8]) {
        match take(data) % 9 {
            0 | 1 => self.append_as_leader(take(data), take(data)),
            2 => self.append_as_follower(take(data), data),
            3 => {
                self.log.flush().expect("a healthy disk");
                assert_eq!(self.log.recovery_point(), self.end);
            }
            4 => {
                self.log.roll().expect("a healthy disk");
            }
            5 => self.truncate(take(data)),
            6 => self.advance_log_start(take(data)),
            7 => self.kill(),
            _ => self.check(),
        }
        assert_eq!(self.log.log_end_offset(), self.end);
        assert_eq!(self.log.log_start_offset(), self.start);
        assert!(self.log.directory().is_online());
    }

    /// `shape`: 2 bits number of records, 3 bits codec, idempotent.
    fn append_as_leader(&mut self, shape: u8, value_size: u8) {
        let mut builder = RecordBatchBuilder::new().codec(CODECS[usize::from(shape >> 2 & 7) % 5]);
        let count = i32::from(shape & 3) + 1;
        if shape & 0x20 != 0 {
            let sequence = Sequence(self.sequence);
            builder = builder.producer(ProducerId(1), ProducerEpoch(0), Some(sequence));
        }
        for index in 0..count {
            let time = TimestampMs(NOW.get() + i64::from(index));
            builder.append(time, Some(b"key"), Some(&vec![b'v'; value_size.into()]));
        }
        let set = builder.build();
        let origin = AppendOrigin::Client;
        let rules = ValidationRules::new(
            self.log.partition().clone(),
            &self.config,
            origin,
            RequestRules::NONE,
        );
        let validated = validate(&set, &rules, NOW, Level::Strict).expect("sound records");
        let mut sets = [validated];
        let results = self.log.append_as_leader(&mut sets, origin, LeaderEpoch(1));
        match &results[0] {
            Ok(info) if info.is_duplicate => return,
            Ok(info) => assert_eq!(info.first_offset, Some(self.end)),
            // larger than a segment, or a sequence that a truncation made wrong
            Err(_) => return,
        }
        if shape & 0x20 != 0 {
            self.sequence += count;
        }
        let bytes = sets[0].io_slices().flat_map(|slice| slice.to_vec()).collect();
        self.push(Stored {
            base: self.end,
            next: self.end.plus(count.into()),
            bytes,
        });
        self.log.set_high_watermark(self.end);
    }

    fn push(&mut self, stored: Stored) {
        self.end = stored.next;
        self.batches.push(stored);
    }

    /// The next `size` bytes of the input as a leader's answer; some with offsets that go on from the end.
    fn append_as_follower(&mut self, size: u8, data: &mut &[u8]) {
        let size = (usize::from(size) * 4).min(data.len());
        let (bytes, rest) = data.split_at(size);
        *data = rest;
        let mut bytes = bytes.to_vec();
        if let Some(base) = bytes.first_chunk_mut::<8>()
            && base[0] & 0xc0 == 0
        {
            let gap = i64::from(base[7] & 3);
            *base = self.end.plus(gap).get().to_be_bytes();
        }
        seal(&mut bytes);
        let Ok(info) = self.log.append_as_follower(&bytes) else {
            return;
        };
        for batch in batches(&bytes[..info.size_bytes]) {
            let batch = batch.expect("what was taken is whole");
            self.push(Stored {
                base: batch.base_offset(),
                next: batch.next_offset(),
                bytes: batch.bytes().to_vec(),
            });
        }
        self.log.set_high_watermark(self.end);
    }

    /// To the beginning of a batch, as replication asks for.
    fn truncate(&mut self, which: u8) {
        let Some(at) = self.batches.get(usize::from(which) % (self.batches.len() + 1)) else {
            return;
        };
        let (target, index) = (at.base, usize::from(which) % (self.batches.len() + 1));
        // the offset of a compressed set of the old formats is that of its last message
        if target < self.start || self.batches.iter().any(|batch| batch.bytes[16] < 2) {
            return;
        }
        self.log.truncate_to(target).expect("a healthy disk");
        self.batches.truncate(index);
        self.end = self.log.log_end_offset();
        assert!(self.end <= target);
        assert!(self.batches.last().is_none_or(|last| last.next <= self.end));
    }

    fn advance_log_start(&mut self, by: u8) {
        let target = Offset(self.start.get().saturating_add(by.into())).min(self.log.high_watermark());
        let reason = LogStartOffsetIncrementReason::ClientRecordDeletion;
        let moved = self.log.advance_log_start_offset(target, reason);
        moved.expect("not above the high watermark");
        self.start = self.start.max(target);
        self.log.delete_old_segments().expect("a healthy disk");
    }

    fn kill(&mut self) {
        let recovery_point = self.log.recovery_point();
        self.log.abandon();
        self.disk.run_completions(1);
        self.disk = self.disk.process_kill();
        self.disk.set_completions(Completions::Manual);
        let options = OpenOptions {
            recovery_point,
            log_start_offset: Some(self.start),
            high_watermark: Some(self.end),
            clean_shutdown: false,
            boot: BootEvidence::SameBoot,
            ..OpenOptions::default()
        };
        self.log = open(&self.disk, &self.config, &options);
    }

    /// Reads all of it and compares the bytes.
    fn check(&self) {
        let (mut from, mut found) = (self.start, Vec::new());
        while from < self.end {
            let info = self.log.read(from, 700, UpperBound::LogEnd, true);
            let Some(slice) = info.expect("in range").records else {
                break;
            };
            let bytes = slice.read().expect("a healthy disk");
            for batch in batches(&bytes).map_while(Result::ok) {
                from = batch.next_offset();
                found.push(Stored {
                    base: batch.base_offset(),
                    next: from,
                    bytes: batch.bytes().to_vec(),
                });
            }
        }
        let expected = self.batches.iter().filter(|batch| batch.next > self.start);
        assert!(
            found.iter().eq(expected),
            "found {found:?}, expected {:?}",
            self.batches
        );
    }
}
