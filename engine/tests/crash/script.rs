//! A script: random operations on a node, each noted in the [`Model`] before and after.
//!
//! The seed settles the script, and the disk counts its operations, so that the same script can be run again and
//! again and be hit at each of them. A script that may restart goes through clean stops, kills and power cuts by
//! itself; each start is checked, and what was found is what the model goes on with.

mod appends;
mod removals;
mod restarts;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use milena_engine::checkpoint::{LOG_START_OFFSET_FILE, OffsetCheckpoint, REPLICATION_OFFSET_FILE};
use milena_engine::io::Io;
use milena_engine::io::simulated::{ManualClock, SimulatedDisk};
use milena_engine::log::{Log, UpperBound};
use milena_engine::record_batch::batches;
use milena_engine::units::{Offset, TopicPartition};

use crate::check::{Crash, Violation};
use crate::model::{Existence, History, Model, Random};
use crate::node::{self, Node, PASSING, SYNCED, TOPICS, partition};

pub(crate) use appends::append_sets;

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

    fn complete(&mut self) {
        for _ in 0..1 + self.random.below(4) {
            let seed = self.random.next();
            self.disk.run_one_completion(seed);
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
