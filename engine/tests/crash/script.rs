//! A script: random operations on a node, each noted in the [`Model`] before and after.
//!
//! The seed settles the script, and the disk counts its operations, so that the same script can be run again and again and
//! be hit at each of them. A script that may restart goes through clean stops, kills and power cuts by itself; each start is
//! checked, and what was found is what the model goes on with.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use milena_engine::checkpoint::{LOG_START_OFFSET_FILE, OffsetCheckpoint, REPLICATION_OFFSET_FILE};
use milena_engine::config::Codec;
use milena_engine::error::AppendError;
use milena_engine::io::simulated::{ManualClock, SimulatedDisk};
use milena_engine::io::{Clock, Io};
use milena_engine::log::{Log, LogStartOffsetIncrementReason, UpperBound};
use milena_engine::record_batch::{
    AppendOrigin, Level, RecordBatchBuilder, RequestRules, ValidationRules, batches, validate,
};
use milena_engine::units::{
    LeaderEpoch, Offset, ProducerEpoch, ProducerId, Sequence, TimestampMs, TopicPartition,
};

use crate::check::{self, Crash, Violation};
use crate::model::{Existence, History, Model, Random, StoredBatch, Timeline};
use crate::node::{self, FOLLOWER, Node, PASSING, SYNCED, TOPICS, partition};

/// What a script may do and how it reaches the disk.
#[derive(Clone, Copy)]
pub(crate) struct Settings {
    pub(crate) directories: &'static [&'static str],
    pub(crate) step_count: usize,
    /// Stops, kills and power cuts inside the script.
    pub(crate) restarts: bool,
    /// Operations may fail: their directory must then be offline.
    pub(crate) is_faulty: bool,
    /// What lies between the engine and the disk.
    pub(crate) wrap: fn(&SimulatedDisk) -> Arc<dyn Io>,
    /// A reader that is shown what is not synced (planted).
    pub(crate) reads_unsynced: bool,
}

impl Settings {
    pub(crate) const ONE: Settings = Settings {
        directories: &["/a"],
        step_count: 60,
        restarts: true,
        is_faulty: false,
        wrap: plain,
        reads_unsynced: false,
    };
}

pub(crate) fn plain(disk: &SimulatedDisk) -> Arc<dyn Io> {
    Arc::new(disk.clone())
}

pub(crate) struct Script {
    pub(crate) settings: Settings,
    pub(crate) disk: SimulatedDisk,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) node: Option<Node>,
    pub(crate) model: Model,
    random: Random,
    seed: u64,
    /// Operations after which the power goes.
    cut_at: Option<u64>,
    /// Operations on disks that came before this one.
    spent: u64,
    /// What the disk has gone through since its content was last compared.
    pub(crate) pending: Crash,
    value: u32,
}

impl Script {
    /// On an empty disk; the power goes after `cut_at` operations.
    pub(crate) fn new(seed: u64, settings: Settings, cut_at: Option<u64>) -> Script {
        let disk = SimulatedDisk::new(seed);
        for directory in settings.directories {
            disk.create_dir_all(Path::new(directory)).expect("a healthy disk");
        }
        disk.sync_dir(Path::new("/")).expect("a healthy disk");
        let before = disk.op_count();
        let script = Script {
            settings,
            disk,
            clock: Arc::new(ManualClock::new(node::START)),
            node: None,
            model: Model::default(),
            random: Random::new(seed),
            seed,
            cut_at: cut_at.map(|count| count + before),
            spent: 0,
            pending: Crash::Kill,
            value: 0,
        };
        script.arm();
        script
    }

    fn arm(&self) {
        if let Some(cut_at) = self.cut_at {
            let done = self.spent + self.disk.op_count();
            self.disk.cut_power_after(cut_at.saturating_sub(done));
        }
    }

    /// Operations so far.
    pub(crate) fn op_count(&self) -> u64 {
        self.spent + self.disk.op_count()
    }

    /// Runs until the end or until the power is gone.
    pub(crate) fn run(&mut self) -> Result<(), Violation> {
        self.start()?;
        for topic in TOPICS {
            if topic != PASSING {
                self.create(topic)?;
            }
        }
        for _ in 0..self.settings.step_count {
            if !self.disk.is_powered() {
                break;
            }
            self.step()?;
        }
        self.harvest();
        Ok(())
    }

    /// The process is gone; its locks go with the image that is taken of the disk.
    pub(crate) fn end(&mut self) {
        self.harvest();
        self.node = None;
    }

    fn start(&mut self) -> Result<(), Violation> {
        let io = (self.settings.wrap)(&self.disk);
        match Node::open(&self.disk, io, &self.clock, self.settings.directories) {
            Ok(node) => {
                self.node = Some(node);
                Ok(())
            }
            Err(reason) => self.tolerate(&format!("the start failed: {reason}")),
        }
    }

    /// An operation failed: fine only if it was made to.
    fn tolerate(&self, what: &str) -> Result<(), Violation> {
        if self.settings.is_faulty || !self.disk.is_powered() {
            Ok(())
        } else {
            Err(format!("on a healthy disk: {what}"))
        }
    }

    /// An operation on this partition failed: on a faulty disk its directory must be offline then.
    fn failed(&mut self, partition: &TopicPartition, what: &str) -> Result<(), Violation> {
        if self.settings.is_faulty && what.contains("no storage space") && !what.starts_with("an append") {
            // The old small file stands, the operation was refused.
            return Ok(());
        }
        self.model.of_mut(partition).has_failed = true;
        if self.settings.is_faulty {
            let node = self.node.as_ref().expect("operations need a node");
            let directory = node.manager.directory_of(partition);
            if directory.is_some_and(|directory| directory.is_online()) {
                return Err(format!("{partition}: {what}, but its directory is online"));
            }
        }
        self.tolerate(what)
    }

    fn log(&self, partition: &TopicPartition) -> Option<Arc<Log>> {
        self.node.as_ref()?.log(partition)
    }

    /// Copies what the engine promises into the model.
    pub(crate) fn harvest(&mut self) {
        let Some(node) = &self.node else { return };
        for (partition, history) in &mut self.model.logs {
            let Some(log) = node.log(partition) else { continue };
            if history.existence == Existence::There && !history.is_emptying {
                history.note_synced(log.synced_end().get());
                history.note_synced(log.recovery_point().get());
            }
        }
    }

    fn step(&mut self) -> Result<(), Violation> {
        self.clock.advance(Duration::from_millis(self.random.below(40)));
        let topics: Vec<TopicPartition> = self
            .model
            .logs
            .iter()
            .filter(|(_, history)| history.existence == Existence::There)
            .map(|(partition, _)| partition.clone())
            .collect();
        if self.node.is_none() || topics.is_empty() {
            return Ok(());
        }
        let partition = self.random.pick(&topics).clone();
        let what = self.random.below(40);
        tracing::debug!("step {what} {partition} at operation {}", self.op_count());
        match what {
            0..=19 => self.append(&partition)?,
            20..=24 => self.complete(),
            25..=27 => self.pass()?,
            28 => self.flush(&partition)?,
            29 => self.roll(&partition)?,
            30..=31 => self.delete_records(&partition)?,
            32 => self.truncate()?,
            33 => self.empty()?,
            34..=35 => self.create_or_delete()?,
            36 => self.stop()?,
            37 => self.kill()?,
            38 => self.cut()?,
            _ => self.disk.drop_caches(),
        }
        if self.random.chance(3) {
            let seed = self.random.next();
            self.disk.run_one_completion(seed);
        }
        self.read_synced()?;
        self.harvest();
        self.note_checkpoints();
        Ok(())
    }

    /// What the small files say is durable once a step is over.
    fn note_checkpoints(&mut self) {
        if !self.disk.is_powered() || self.settings.is_faulty {
            return;
        }
        for directory in self.settings.directories {
            let read = |name| OffsetCheckpoint::new(Path::new(directory), name).read(&self.disk);
            if let Ok(starts) = read(LOG_START_OFFSET_FILE) {
                for (partition, start) in starts {
                    if let Some(history) = self.model.logs.get_mut(&partition) {
                        history.log_start.0 = history.log_start.0.max(start.get());
                    }
                }
            }
            if let Ok(marks) = read(REPLICATION_OFFSET_FILE) {
                for (partition, mark) in marks {
                    if let Some(history) = self.model.logs.get_mut(&partition) {
                        history.high_watermark.0 = mark.get();
                    }
                }
            }
        }
    }

    fn batch(&mut self, partition: &TopicPartition, base: i64) -> Arc<StoredBatch> {
        let random = &mut self.random;
        let history = self.model.of_mut(partition);
        let count = 1 + random.below(5) as i64;
        let producer = (random.below(2) == 0).then(|| 1 + random.below(2) as i64);
        let codec = *random.pick(&[
            Codec::None,
            Codec::None,
            Codec::None,
            Codec::Gzip,
            Codec::Snappy,
            Codec::Lz4,
            Codec::Zstd,
        ]);
        let mut builder = RecordBatchBuilder::new().codec(codec);
        let mut stamp = None;
        if let Some(id) = producer {
            let sequence = history.sequences.entry(id).or_insert(0);
            stamp = Some((id, *sequence));
            builder = builder.producer(ProducerId(id), ProducerEpoch(0), Some(Sequence(*sequence)));
            *sequence += count as i32;
        }
        let size = [3, 40, 40, 300, 500][random.below(5) as usize];
        let mut timestamps = Vec::new();
        for _ in 0..count {
            self.value += 1;
            let mut value = format!("{}/{}/", self.value, partition.topic).into_bytes();
            while value.len() < size {
                value.push(random.next() as u8);
            }
            // Mostly rising, sometimes from the past.
            let timestamp = self.clock.wall().get() - random.below(30) as i64;
            timestamps.push(timestamp);
            builder.append(TimestampMs(timestamp), None, Some(&value));
        }
        let sent = builder.build();
        let epoch = history.epoch;
        let mut bytes = sent.clone();
        bytes[..8].copy_from_slice(&base.to_be_bytes());
        bytes[12..16].copy_from_slice(&epoch.to_be_bytes());
        Arc::new(StoredBatch {
            base,
            timestamps,
            bytes,
            sent,
            producer: stamp,
            epoch,
        })
    }

    fn append(&mut self, partition: &TopicPartition) -> Result<(), Violation> {
        let Some(log) = self.log(partition) else {
            return Ok(());
        };
        if self.settings.is_faulty && !log.directory().is_online() {
            return self.probe_offline(partition, &log);
        }
        if &*partition.topic == FOLLOWER {
            return self.append_as_follower(partition, &log);
        }
        let count = 1 + self.random.below(3);
        let mut new = Vec::new();
        let mut base = self.model.of(partition).end();
        for _ in 0..count {
            let batch = self.batch(partition, base);
            base = batch.next();
            new.push(batch);
        }
        let epoch = self.model.of(partition).epoch;
        self.model
            .of_mut(partition)
            .current_mut()
            .batches
            .extend(new.iter().cloned());
        // A retry of the last batch of a producer may be among the sets.
        let retried = if self.random.chance(4) {
            self.last_of_a_producer(partition)
        } else {
            None
        };
        let sent = new.iter().chain(&retried).map(|batch| &*batch.sent);
        let sent: Vec<&[u8]> = sent.collect();
        let results = append_sets(&log, &sent, epoch);
        for (batch, result) in new.iter().chain(&retried).zip(results) {
            match result {
                Ok(info) => {
                    if info.first_offset != Some(Offset(batch.base)) {
                        return Err(format!("{partition}: {} became {info:?}", batch.base));
                    }
                    self.acknowledged(partition, &log, batch, info.sync_before_ack)?;
                }
                Err(error) => self.failed(partition, &format!("an append failed: {error}"))?,
            }
        }
        log.set_high_watermark(log.offsets().replicable_end);
        self.note_high_watermark(partition, &log);
        Ok(())
    }

    fn acknowledged(
        &mut self,
        partition: &TopicPartition,
        log: &Arc<Log>,
        batch: &StoredBatch,
        sync_before_ack: Option<Offset>,
    ) -> Result<(), Violation> {
        let is_faulty = self.settings.is_faulty;
        let history = self.model.of_mut(partition);
        if is_faulty && history.has_failed {
            return Err(format!(
                "{partition}: {} was acknowledged after a failure",
                batch.base
            ));
        }
        history.written = history.written.max(batch.next());
        if let Some(upto) = sync_before_ack {
            let synced = history.synced.clone();
            let next = batch.next();
            if upto.get() < next {
                return Err(format!("{partition}: {next} waits for a sync up to {upto} only"));
            }
            log.when_synced(
                upto,
                Box::new(move |result| {
                    if result.is_ok() {
                        synced.fetch_max(next, std::sync::atomic::Ordering::Relaxed);
                    }
                }),
            );
        }
        Ok(())
    }

    fn note_high_watermark(&mut self, partition: &TopicPartition, log: &Log) {
        let history = self.model.of_mut(partition);
        history.high_watermark.1 = history.high_watermark.1.max(log.high_watermark().get());
    }

    /// The newest batch in the log of one of its producers.
    fn last_of_a_producer(&mut self, partition: &TopicPartition) -> Option<Arc<StoredBatch>> {
        let id = 1 + self.random.below(2) as i64;
        let history = self.model.of(partition);
        let start = history.log_start.1.max(history.forgotten);
        let of_producer = |batch: &&Arc<StoredBatch>| batch.producer.is_some_and(|(of, _)| of == id);
        history
            .current()
            .batches
            .iter()
            .rev()
            .find(of_producer)
            .filter(|batch| batch.base >= start)
            .cloned()
    }

    fn append_as_follower(&mut self, partition: &TopicPartition, log: &Arc<Log>) -> Result<(), Violation> {
        let mut chunk = Vec::new();
        for _ in 0..1 + self.random.below(4) {
            let batch = self.batch(partition, self.model.of(partition).end());
            chunk.extend_from_slice(&batch.bytes);
            self.model.of_mut(partition).current_mut().batches.push(batch);
        }
        match log.append_as_follower(&chunk) {
            Ok(_) => {
                let history = self.model.of_mut(partition);
                if self.settings.is_faulty && history.has_failed {
                    return Err(format!("{partition}: a chunk was taken after a failure"));
                }
                history.written = history.end();
            }
            Err(error) => self.failed(partition, &format!("an append failed: {error}"))?,
        }
        log.set_high_watermark(log.log_end_offset());
        self.note_high_watermark(partition, log);
        Ok(())
    }

    /// Nothing is taken and nobody is told that something is synced once the directory is offline.
    fn probe_offline(&mut self, partition: &TopicPartition, log: &Arc<Log>) -> Result<(), Violation> {
        self.model.of_mut(partition).has_failed = true;
        let mut builder = RecordBatchBuilder::new();
        builder.append(node::START, None, Some(b"late"));
        let sent = builder.build();
        if append_sets(log, &[&sent], 1000).iter().any(Result::is_ok) {
            return Err(format!(
                "{partition}: an append was taken by an offline directory"
            ));
        }
        Ok(())
    }

    fn complete(&mut self) {
        for _ in 0..1 + self.random.below(4) {
            let seed = self.random.next();
            self.disk.run_one_completion(seed);
        }
    }

    fn pass(&mut self) -> Result<(), Violation> {
        let seconds = *self.random.pick(&[1, 3, 6, 6, 31, 31, 62, 62, 301]);
        for history in self.model.logs.values_mut() {
            // Retention may raise it so far.
            history.log_start.1 = history.log_start.1.max(history.high_watermark.1);
        }
        if let Some(node) = &self.node {
            node.pass(Duration::from_secs(seconds));
        }
        self.settle_log_starts();
        Ok(())
    }

    /// The step that moves log starts is over, unless the power is.
    fn settle_log_starts(&mut self) {
        if !self.disk.is_powered() {
            return;
        }
        let Some(node) = &self.node else { return };
        for (partition, history) in &mut self.model.logs {
            if let Some(log) = node.log(partition) {
                history.log_start.1 = log.log_start_offset().get();
                history.forgotten = history.forgotten.max(history.log_start.1);
            }
        }
    }

    fn flush(&mut self, partition: &TopicPartition) -> Result<(), Violation> {
        let Some(log) = self.log(partition) else {
            return Ok(());
        };
        let end = log.log_end_offset().get();
        match log.flush() {
            Ok(_) => self.model.of_mut(partition).note_synced(end),
            Err(error) => self.failed(partition, &format!("a flush failed: {error}"))?,
        }
        Ok(())
    }

    fn roll(&mut self, partition: &TopicPartition) -> Result<(), Violation> {
        let Some(log) = self.log(partition) else {
            return Ok(());
        };
        match log.roll() {
            Ok(_) => Ok(()),
            Err(error) => self.failed(partition, &format!("a roll failed: {error}")),
        }
    }

    fn delete_records(&mut self, partition: &TopicPartition) -> Result<(), Violation> {
        let Some(log) = self.log(partition) else {
            return Ok(());
        };
        let (from, to) = (log.log_start_offset().get(), log.high_watermark().get());
        let start = from + self.random.below((to - from).max(0) as u64 + 1) as i64;
        let history = self.model.of_mut(partition);
        history.log_start.1 = history.log_start.1.max(start);
        history.forgotten = history.forgotten.max(start);
        let moved =
            log.advance_log_start_offset(Offset(start), LogStartOffsetIncrementReason::ClientRecordDeletion);
        if let Err(error) = moved {
            return self.failed(partition, &format!("DeleteRecords failed: {error}"));
        }
        if self.random.chance(2) {
            let history = self.model.of_mut(partition);
            // Retention by size may raise it further.
            history.log_start.1 = history.log_start.1.max(history.high_watermark.1);
            if let Err(error) = log.delete_old_segments() {
                return self.failed(partition, &format!("retention failed: {error}"));
            }
        }
        self.settle_log_starts();
        Ok(())
    }

    /// As a follower that learns of another course.
    fn truncate(&mut self) -> Result<(), Violation> {
        let partition = partition(FOLLOWER);
        let Some(log) = self.log(&partition) else {
            return Ok(());
        };
        if !log.directory().is_online() {
            return Ok(());
        }
        let start = log.log_start_offset().get();
        let history = self.model.of_mut(&partition);
        let timeline = history.current().clone();
        let ends: Vec<i64> = timeline
            .batches
            .iter()
            .map(|batch| batch.base)
            .filter(|base| *base >= start)
            .collect();
        if ends.is_empty() {
            return Ok(());
        }
        let newest = ends.len().saturating_sub(8);
        let end = *self.random.pick(&ends[newest..]);
        history.lower_to(end);
        history.timelines.push(timeline.prefix(end));
        history.epoch += 1;
        let node = self.node.as_ref().expect("there is a log");
        let truncated = node.manager.truncate_to(&[(partition.clone(), Offset(end))]);
        let history = self.model.of_mut(&partition);
        history.sequences.clear();
        for batch in &timeline.prefix(end).batches {
            if let Some((id, sequence)) = batch.producer {
                let next = sequence + batch.timestamps.len() as i32;
                history.sequences.insert(id, next);
            }
        }
        match truncated {
            Ok(()) if self.disk.is_powered() => {
                history.timelines.remove(0);
            }
            Ok(()) => {}
            Err(error) => self.failed(&partition, &format!("a truncation failed: {error}"))?,
        }
        Ok(())
    }

    /// As a follower whose leader has nothing of what it has.
    fn empty(&mut self) -> Result<(), Violation> {
        if !self.random.chance(3) {
            return Ok(());
        }
        let partition = partition(FOLLOWER);
        let Some(log) = self.log(&partition) else {
            return Ok(());
        };
        if !log.directory().is_online() {
            return Ok(());
        }
        let start = log.log_end_offset().get() + self.random.below(20) as i64;
        let history = self.model.of_mut(&partition);
        history.lower_to(0);
        history.is_emptying = true;
        history.log_start.1 = start;
        history.high_watermark.1 = history.high_watermark.1.max(start);
        history.sequences.clear();
        history.epoch += 1;
        history.timelines.push(Timeline {
            start,
            batches: Vec::new(),
        });
        let node = self.node.as_ref().expect("there is a log");
        let emptied = node
            .manager
            .truncate_fully_and_start_at(&partition, Offset(start));
        match emptied {
            Ok(()) if self.disk.is_powered() => {
                let history = self.model.of_mut(&partition);
                history.timelines.remove(0);
                history.is_emptying = false;
                history.written = start;
                history.note_synced(start);
                history.log_start.0 = 0;
            }
            Ok(()) => {}
            Err(error) => self.failed(&partition, &format!("an emptying failed: {error}"))?,
        }
        Ok(())
    }

    fn create(&mut self, topic: &str) -> Result<(), Violation> {
        let Some(node) = &self.node else { return Ok(()) };
        let partition = partition(topic);
        let directories = self.settings.directories;
        let index = TOPICS.iter().position(|of| *of == topic).unwrap_or(0);
        let directory = directories[index % directories.len()];
        self.model.logs.insert(partition.clone(), History::new());
        match node.manager.get_or_create(Node::wanted(topic, Some(directory))) {
            Ok(_) if self.disk.is_powered() => {
                self.model.of_mut(&partition).existence = Existence::There;
                Ok(())
            }
            Ok(_) => Ok(()),
            Err(error) => {
                self.model.of_mut(&partition).has_failed = true;
                self.tolerate(&format!("a creation failed: {error}"))
            }
        }
    }

    fn create_or_delete(&mut self) -> Result<(), Violation> {
        let partition = partition(PASSING);
        let Some(history) = self.model.logs.get_mut(&partition) else {
            return self.create(PASSING);
        };
        if history.existence != Existence::There || history.has_failed {
            return Ok(());
        }
        history.existence = Existence::Ending;
        let node = self.node.as_ref().expect("a step needs a node");
        match node.manager.delete(&partition) {
            Ok(true) if self.disk.is_powered() => {
                self.model.logs.remove(&partition);
                Ok(())
            }
            Ok(true) => Ok(()),
            Ok(false) => Err(format!("{partition} was to be deleted and is not known")),
            Err(error) => {
                self.model.of_mut(&partition).has_failed = true;
                self.tolerate(&format!("a deletion failed: {error}"))
            }
        }
    }

    fn stop(&mut self) -> Result<(), Violation> {
        let Some(node) = &self.node else { return Ok(()) };
        if !self.settings.restarts {
            return Ok(());
        }
        let report = node.manager.shutdown();
        if !report.unclean.is_empty() {
            self.tolerate(&format!("a clean stop: {:?}", report.unclean))?;
        } else if self.disk.is_powered() {
            for history in self.model.logs.values_mut() {
                history.note_synced(history.written);
            }
        }
        self.node = None;
        self.start()?;
        self.look_after()
    }

    fn kill(&mut self) -> Result<(), Violation> {
        if !self.settings.restarts || !self.disk.is_powered() {
            return Ok(());
        }
        self.harvest();
        let image = self.disk.process_kill();
        self.node = None;
        self.disk = image;
        self.arm();
        self.start()?;
        self.look_after()
    }

    fn cut(&mut self) -> Result<(), Violation> {
        if !self.settings.restarts || !self.disk.is_powered() {
            return Ok(());
        }
        self.harvest();
        let image = self.disk.power_cut(self.random.next());
        self.pending = Crash::PowerCut;
        self.spent += self.disk.op_count();
        self.node = None;
        self.disk = image;
        self.arm();
        self.start()?;
        self.look_after()
    }

    /// Checks what a start inside the script found, and goes on with it.
    fn look_after(&mut self) -> Result<(), Violation> {
        let Some(node) = &self.node else { return Ok(()) };
        if !self.disk.is_powered() {
            return Ok(());
        }
        let found = check::logs(node, &self.model, self.pending)?;
        self.pending = Crash::Kill;
        let adopted: Vec<TopicPartition> = found.logs.keys().cloned().collect();
        for (partition, log) in found.logs {
            let high_watermark = log.high_watermark;
            self.model
                .of_mut(&partition)
                .adopt(log.timeline, log.start, high_watermark);
        }
        let gone: Vec<TopicPartition> = self
            .model
            .logs
            .keys()
            .filter(|partition| !adopted.contains(partition))
            .cloned()
            .collect();
        for partition in gone {
            if found.out_of_service.contains(&partition) {
                // Somebody gives it up.
                self.model.of_mut(&partition).existence = Existence::Ending;
                let node = self.node.as_ref().expect("it was looked at above");
                let deleted = node.manager.delete(&partition);
                if !self.disk.is_powered() {
                    self.pending = Crash::PowerCut;
                    return Ok(());
                }
                deleted.map_err(|error| format!("{partition} cannot be given up: {error}"))?;
            }
            self.model.logs.remove(&partition);
        }
        for topic in TOPICS {
            if topic != PASSING && !self.model.logs.contains_key(&partition(topic)) {
                self.create(topic)?;
            }
        }
        Ok(())
    }

    /// A consumer of the synced topic: what it sees must survive a power cut.
    fn read_synced(&mut self) -> Result<(), Violation> {
        let partition = partition(SYNCED);
        let Some(log) = self.log(&partition) else {
            return Ok(());
        };
        let Some(history) = self.model.logs.get_mut(&partition) else {
            return Ok(());
        };
        if history.existence != Existence::There {
            return Ok(());
        }
        if self.settings.reads_unsynced {
            history.served = log.log_end_offset().get();
            return Ok(());
        }
        let from = history.served.max(log.log_start_offset().get());
        let Ok(info) = log.read(Offset(from), 1 << 20, UpperBound::LogEnd, true) else {
            return Ok(());
        };
        let bytes = match info.records.map(|slice| slice.read()) {
            Some(Ok(bytes)) => bytes,
            _ => return Ok(()),
        };
        for batch in batches(&bytes) {
            let Ok(batch) = batch else { break };
            history.served = history.served.max(batch.next_offset().get());
        }
        if history.served > history.synced().max(log.synced_end().get()) {
            return Err(format!(
                "{partition}: a reader saw up to {} and only {} is synced",
                history.served,
                log.synced_end()
            ));
        }
        Ok(())
    }

    /// For messages.
    pub(crate) fn describe(&self) -> String {
        format!("script {} at operation {}", self.seed, self.op_count())
    }
}

/// Appends as a leader, one answer for each set.
pub(crate) fn append_sets(
    log: &Log,
    sent: &[&[u8]],
    epoch: i32,
) -> Vec<Result<milena_engine::log::AppendInfo, AppendError>> {
    let config = log.config();
    let rules = ValidationRules::new(
        log.partition().clone(),
        &config,
        AppendOrigin::Client,
        RequestRules::NONE,
    );
    let mut sets: Vec<_> = sent
        .iter()
        .map(|set| validate(set, &rules, node::START, Level::Strict).expect("the script sends sound batches"))
        .collect();
    log.append_as_leader(&mut sets, AppendOrigin::Client, LeaderEpoch(epoch))
}
