//! Random operations on a log, compared with a list of records: whatever is done, the log holds what the list
//! holds.
//!
//! Each seed runs one script on the simulated disk: appends of several sets in every codec, reads at any
//! offset and size, searches by timestamp, flushes, rolls, truncations, moves of the log start, retention,
//! clean stops, kills, indexes that are missing or wrong. It leaves power cuts to `crash/`. A failure names
//! its seed; `MILENA_MODEL_SEED` repeats one, `MILENA_MODEL_SEED_COUNT` runs so many.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use milena_engine::config::{Codec, LogConfig};
use milena_engine::io::simulated::{Completions, ManualClock, SimulatedDisk};
use milena_engine::io::{Clock, Io};
use milena_engine::log::{
    BootEvidence, Log, LogDirectory, LogStartOffsetIncrementReason, OpenOptions, UpperBound,
};
use milena_engine::record_batch::{
    AppendOrigin, Level, RecordBatchBuilder, RequestRules, ValidationRules, batches, validate,
};
use milena_engine::units::{
    LeaderEpoch, Offset, ProducerEpoch, ProducerId, Sequence, TimestampMs, TopicPartition,
};

const START: TimestampMs = TimestampMs(1_600_000_000_000);
const SEED_COUNT: u64 = 150;
const STEP_COUNT: usize = 120;

/// A small generator with a good enough spread (xorshift64*).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % limit
    }

    fn chance(&mut self, one_in: u64) -> bool {
        self.below(one_in) == 0
    }
}

#[derive(Clone, Debug, PartialEq)]
struct Stored {
    offset: i64,
    timestamp: i64,
    value: Vec<u8>,
}

struct Model {
    seed: u64,
    random: Random,
    disk: SimulatedDisk,
    clock: Arc<ManualClock>,
    config: LogConfig,
    log: Arc<Log>,
    records: Vec<Stored>,
    log_start: i64,
    end: i64,
    producer: i64,
    /// The next sequence of that producer, and its last set, which may be sent again.
    sequence: i32,
    last_set: Option<(Vec<u8>, i64)>,
    value: u32,
}

fn open(
    disk: &SimulatedDisk,
    clock: &Arc<ManualClock>,
    config: &LogConfig,
    options: &OpenOptions,
) -> Arc<Log> {
    Log::open(
        Arc::new(LogDirectory::new("/data")),
        "model-0",
        TopicPartition::new("model", 0),
        Arc::new(config.clone()),
        options,
        Arc::new(disk.clone()),
        clock.clone(),
    )
    .expect("a log without damage opens")
}

impl Model {
    fn new(seed: u64) -> Model {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let disk = SimulatedDisk::new(seed);
        disk.create_dir_all(Path::new("/data")).expect("a healthy disk");
        let clock = Arc::new(ManualClock::new(START));
        disk.set_clock(clock.clone());
        disk.set_completions(Completions::Manual);
        let config = LogConfig {
            segment_size_bytes: 1500 + random.below(6000) as u32,
            index_interval_bytes: random.below(1500) as u32,
            segment_index_size_bytes: 120 + random.below(4000) as u32,
            preallocate: random.chance(4),
            flush_messages: [None, None, Some(7), Some(1)][random.below(4) as usize],
            ..LogConfig::default()
        };
        let log = open(&disk, &clock, &config, &OpenOptions::default());
        Model {
            seed,
            random,
            disk,
            clock,
            config,
            log,
            records: Vec::new(),
            log_start: 0,
            end: 0,
            producer: 1,
            sequence: 0,
            last_set: None,
            value: 0,
        }
    }

    fn step(&mut self) {
        self.clock
            .advance(std::time::Duration::from_millis(self.random.below(50)));
        match self.random.below(20) {
            0..=8 => self.append(),
            9 => {
                self.log.flush().expect("a healthy disk");
                assert_eq!(self.log.recovery_point().get(), self.end);
            }
            10 => {
                self.log.roll().expect("a healthy disk");
            }
            11 => self.truncate(),
            12 => self.advance_log_start(),
            13 => self.stop(true),
            14 => self.stop(false),
            15 => self.search(),
            16 => {
                self.disk.run_completions(self.seed);
                self.log.release_descriptors();
                self.log.run_due_deletions().expect("a healthy disk");
                self.log
                    .delete_snapshots_after_checkpoint()
                    .expect("a healthy disk");
            }
            _ => self.read(),
        }
        self.check_ends();
    }

    fn append(&mut self) {
        let count = 1 + self.random.below(3);
        let mut sets = Vec::new();
        let mut expected = Vec::new();
        let mut next = self.end;
        for _ in 0..count {
            let is_idempotent = self.random.chance(3);
            if is_idempotent
                && self.random.chance(4)
                && let Some((set, base)) = &self.last_set
            {
                sets.push(set.clone());
                expected.push(*base);
                continue;
            }
            let codecs = [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];
            let mut builder = RecordBatchBuilder::new().codec(codecs[self.random.below(5) as usize]);
            let record_count = 1 + self.random.below(4) as i64;
            if is_idempotent {
                builder = builder.producer(
                    ProducerId(self.producer),
                    ProducerEpoch(0),
                    Some(Sequence(self.sequence)),
                );
                self.sequence += record_count as i32;
            }
            for index in 0..record_count {
                self.value += 1;
                let mut value = self.value.to_be_bytes().to_vec();
                value.resize(4 + self.random.below(300) as usize, b'v');
                let timestamp = self.clock.wall().get() - self.random.below(200) as i64;
                builder.append(TimestampMs(timestamp), None, Some(&value));
                self.records.push(Stored {
                    offset: next + index,
                    timestamp,
                    value,
                });
            }
            let set = builder.build();
            if is_idempotent {
                self.last_set = Some((set.clone(), next));
            }
            sets.push(set);
            expected.push(next);
            next += record_count;
        }
        let rules = ValidationRules::new(
            self.log.partition().clone(),
            &self.config,
            AppendOrigin::Client,
            RequestRules::NONE,
        );
        let mut validated: Vec<_> = sets
            .iter()
            .map(|set| validate(set, &rules, self.clock.wall(), Level::Strict).expect("sound records"))
            .collect();
        let results = self
            .log
            .append_as_leader(&mut validated, AppendOrigin::Client, LeaderEpoch(1));
        for (result, expected) in results.into_iter().zip(expected) {
            let info = result.expect("a healthy disk");
            assert_eq!(info.first_offset, Some(Offset(expected)), "seed {}", self.seed);
        }
        self.end = next;
        if self.config.flush_messages == Some(1) {
            self.disk.run_completions(self.seed);
        }
        self.log.set_high_watermark(Offset(next));
    }

    fn truncate(&mut self) {
        if !self.random.chance(4) || self.end == self.log_start {
            return;
        }
        let at = self.log_start + self.random.below((self.end - self.log_start) as u64 + 1) as i64;
        // A boundary, as replication asks for: the batch that holds the offset goes as a whole.
        let at = match self
            .log
            .read(Offset(at), 1, UpperBound::LogEnd, true)
            .expect("in range")
            .records
        {
            Some(slice) => {
                let bytes = slice.read().expect("a healthy disk");
                batches(&bytes)
                    .next()
                    .expect("a batch")
                    .expect("whole")
                    .base_offset()
                    .get()
            }
            None => at,
        };
        if at < self.log_start {
            return;
        }
        self.log.truncate_to(Offset(at)).expect("a healthy disk");
        self.records.retain(|record| record.offset < at);
        self.end = self.end.min(at);
        self.new_producer();
    }

    /// Which of a producer's sets are still known is not modelled: after a cut another one goes on.
    fn new_producer(&mut self) {
        self.producer += 1;
        self.sequence = 0;
        self.last_set = None;
    }

    fn advance_log_start(&mut self) {
        let to = self.log_start + self.random.below((self.end - self.log_start) as u64 + 1) as i64;
        let to = to.min(self.log.high_watermark().get());
        let reason = LogStartOffsetIncrementReason::ClientRecordDeletion;
        let moved = self
            .log
            .advance_log_start_offset(Offset(to), reason)
            .expect("not above the high watermark");
        assert_eq!(moved, to > self.log_start);
        self.log_start = self.log_start.max(to);
        self.log.delete_old_segments().expect("a healthy disk");
        self.records.retain(|record| record.offset >= self.log_start);
    }

    /// Stops, cleanly or not, and starts again; in between an index may vanish.
    fn stop(&mut self, clean: bool) {
        let recovery_point = self.log.recovery_point();
        if clean {
            self.log.close().expect("a healthy disk");
        } else {
            self.log.abandon();
        }
        self.disk = self.disk.process_kill();
        self.disk.set_clock(self.clock.clone());
        self.disk.set_completions(Completions::Manual);
        if self.random.chance(3) {
            let indexes = self.index_files();
            if !indexes.is_empty() {
                let index = &indexes[self.random.below(indexes.len() as u64) as usize];
                self.disk.remove_file(index).expect("a healthy disk");
            }
        } else if self.random.chance(3) {
            let indexes = self.index_files();
            if !indexes.is_empty() {
                let index = &indexes[self.random.below(indexes.len() as u64) as usize];
                let position = self.random.below(40);
                self.disk.flip_bit(index, position, self.random.below(8) as u8);
            }
        }
        let options = OpenOptions {
            recovery_point,
            log_start_offset: Some(Offset(self.log_start)),
            high_watermark: Some(Offset(self.end)),
            clean_shutdown: clean,
            boot: BootEvidence::SameBoot,
            ..OpenOptions::default()
        };
        self.log = open(&self.disk, &self.clock, &self.config, &options);
        if self
            .last_set
            .as_ref()
            .is_some_and(|(_, base)| *base < self.log_start)
        {
            self.new_producer();
        }
    }

    fn index_files(&self) -> Vec<PathBuf> {
        let directory = Path::new("/data/model-0");
        let entries = self.disk.list(directory).expect("a healthy disk");
        entries
            .into_iter()
            .filter(|entry| entry.name.ends_with(".index") || entry.name.ends_with(".timeindex"))
            .map(|entry| directory.join(entry.name))
            .collect()
    }

    fn read(&mut self) {
        let from = self.log_start + self.random.below((self.end - self.log_start) as u64 + 1) as i64;
        let max_bytes = self.random.below(4000) as usize;
        let found = self.read_from(from, max_bytes);
        let expected: Vec<&Stored> = self
            .records
            .iter()
            .filter(|record| record.offset >= from)
            .take(found.len())
            .collect();
        assert_eq!(
            found.iter().collect::<Vec<_>>(),
            expected,
            "seed {} from {from}",
            self.seed
        );
        assert_eq!(
            found.is_empty(),
            from == self.end,
            "seed {} from {from}",
            self.seed
        );
    }

    /// The records at or after `from` in one read, those of a cut last batch left out.
    fn read_from(&self, from: i64, max_bytes: usize) -> Vec<Stored> {
        let info = self
            .log
            .read(Offset(from), max_bytes, UpperBound::HighWatermark, true)
            .expect("in range");
        let Some(slice) = info.records else {
            return Vec::new();
        };
        let bytes = slice.read().expect("a healthy disk");
        let mut found = Vec::new();
        for batch in batches(&bytes).map_while(Result::ok) {
            batch.verify_crc().expect("sound bytes");
            let mut records = batch.records().expect("sound records");
            while let Some(record) = records.next_record().expect("sound records") {
                if record.offset.get() >= from {
                    found.push(Stored {
                        offset: record.offset.get(),
                        timestamp: record.timestamp.get(),
                        value: record.value.unwrap_or_default().to_vec(),
                    });
                }
            }
        }
        found
    }

    fn search(&mut self) {
        let span = (self.clock.wall().get() - START.get() + 400) as u64;
        let target = START.get() - 200 + self.random.below(span) as i64;
        let found = self
            .log
            .offset_for_timestamp(TimestampMs(target), UpperBound::HighWatermark)
            .expect("a healthy disk")
            .map(|found| (found.offset.get(), found.timestamp.get()));
        let expected = self
            .records
            .iter()
            .find(|record| record.timestamp >= target)
            .map(|record| (record.offset, record.timestamp));
        assert_eq!(found, expected, "seed {} target {target}", self.seed);
    }

    fn check_ends(&self) {
        let offsets = self.log.offsets();
        let context = format!("seed {}: {offsets:?}", self.seed);
        assert_eq!(offsets.log_end_offset.get(), self.end, "{context}");
        assert_eq!(offsets.log_start_offset.get(), self.log_start, "{context}");
        assert!(offsets.high_watermark <= offsets.log_end_offset, "{context}");
        assert!(offsets.synced_end <= offsets.log_end_offset, "{context}");
        assert!(self.log.recovery_point() <= offsets.log_end_offset, "{context}");
        assert!(self.log.directory().is_online(), "{context}");
    }

    fn run(mut self) {
        for _ in 0..STEP_COUNT {
            self.step();
        }
        self.disk.run_completions(self.seed);
        let mut from = self.log_start;
        let mut all = Vec::new();
        while from < self.end {
            let found = self.read_from(from, 700);
            from = found.last().expect("more is there").offset + 1;
            all.extend(found);
        }
        assert_eq!(all, self.records, "seed {}", self.seed);
    }
}

#[test]
fn a_log_holds_what_a_list_holds_whatever_is_done() {
    if let Ok(seed) = std::env::var("MILENA_MODEL_SEED") {
        return Model::new(seed.parse().expect("MILENA_MODEL_SEED is a number")).run();
    }
    let count = std::env::var("MILENA_MODEL_SEED_COUNT");
    let count = count.map_or(SEED_COUNT, |count| {
        count.parse().expect("MILENA_MODEL_SEED_COUNT is a number")
    });
    for seed in 0..count {
        Model::new(seed).run();
    }
}
