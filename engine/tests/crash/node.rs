//! A log manager on a simulated disk, with topics whose names say what their settings are.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use milena_engine::config::LogConfig;
use milena_engine::io::simulated::{Completions, ManualClock, SimulatedDisk};
use milena_engine::io::{Clock, Io};
use milena_engine::log::Log;
use milena_engine::log_manager::{LogManager, LogManagerConfig, LogManagerObserver, Survey, WantedLog};
use milena_engine::units::{TimestampMs, TopicPartition};
use parking_lot::Mutex;

pub(crate) const START: TimestampMs = TimestampMs(1_600_000_000_000);

/// Page cache, tiny segments and indexes.
pub(crate) const PLAIN: &str = "plain";
/// `flush.messages=1`
pub(crate) const SYNCED: &str = "synced";
/// `flush.messages=3`
pub(crate) const COUNTED: &str = "counted";
/// `flush.ms`, retention by size, preallocation.
pub(crate) const SHORT: &str = "short";
/// Written as a follower writes; its indexes fill before its segments.
pub(crate) const FOLLOWER: &str = "follower";
/// Comes and goes.
pub(crate) const PASSING: &str = "passing";

pub(crate) const TOPICS: [&str; 6] = [PLAIN, SYNCED, COUNTED, SHORT, FOLLOWER, PASSING];

pub(crate) fn partition(topic: &str) -> TopicPartition {
    TopicPartition::new(topic, 0)
}

pub(crate) fn config_of(topic: &str) -> LogConfig {
    let base = LogConfig {
        segment_size_bytes: 3000,
        index_interval_bytes: 150,
        file_delete_delay_ms: 20_000,
        retention_ms: None,
        ..LogConfig::default()
    };
    match topic {
        SYNCED => LogConfig {
            flush_messages: Some(1),
            ..base
        },
        COUNTED => LogConfig {
            flush_messages: Some(3),
            segment_size_bytes: 5000,
            ..base
        },
        SHORT => LogConfig {
            flush_ms: Some(7_000),
            retention_bytes: Some(6000),
            preallocate: true,
            ..base
        },
        FOLLOWER => LogConfig {
            segment_size_bytes: 20_000,
            segment_index_size_bytes: 100,
            ..base
        },
        _ => base,
    }
}

/// Remembers what the manager told.
#[derive(Default)]
pub(crate) struct Told(Mutex<Vec<String>>);

impl Told {
    /// How often it was told that this directory went offline.
    pub(crate) fn offline_count(&self, directory: &str) -> usize {
        let told = self.0.lock();
        told.iter().filter(|told| *told == directory).count()
    }
}

impl LogManagerObserver for Told {
    fn directory_offline(&self, directory: &Path, _reason: &str) {
        self.0.lock().push(directory.display().to_string());
    }
}

pub(crate) struct Node {
    pub(crate) disk: SimulatedDisk,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) told: Arc<Told>,
    pub(crate) manager: LogManager,
}

impl Node {
    /// Starts on what is there.
    pub(crate) fn open(
        disk: &SimulatedDisk,
        io: Arc<dyn Io>,
        clock: &Arc<ManualClock>,
        directories: &[&str],
    ) -> Result<Node, String> {
        disk.set_clock(clock.clone());
        disk.set_completions(Completions::Manual);
        let told = Arc::new(Told::default());
        let paths: Vec<PathBuf> = directories.iter().map(PathBuf::from).collect();
        let survey = Survey::of(&paths, &*io).map_err(|error| error.to_string())?;
        let manager = LogManager::open(
            survey,
            LogManagerConfig::default(),
            &|partition| Arc::new(config_of(&partition.topic)),
            told.clone(),
            io,
            clock.clone(),
        )
        .map_err(|error| error.to_string())?;
        // Nobody else has these partitions.
        manager.settle_lost_writes();
        Ok(Node {
            disk: disk.clone(),
            clock: clock.clone(),
            told,
            manager,
        })
    }

    /// Lets time pass, doing what is due when it is due.
    pub(crate) fn pass(&self, time: Duration) {
        let end = self.clock.monotonic() + time;
        loop {
            let next = self.manager.run_due(self.clock.monotonic());
            if next > end || !self.disk.is_powered() {
                break;
            }
            self.clock.advance(
                next.saturating_sub(self.clock.monotonic())
                    .max(Duration::from_millis(1)),
            );
        }
        self.clock.advance(end.saturating_sub(self.clock.monotonic()));
        self.manager.run_due(self.clock.monotonic());
    }

    pub(crate) fn wanted(topic: &str, directory: Option<&str>) -> WantedLog {
        WantedLog {
            partition: partition(topic),
            config: Arc::new(config_of(topic)),
            is_new: true,
            preferred_directory: directory.map(PathBuf::from),
        }
    }

    pub(crate) fn log(&self, partition: &TopicPartition) -> Option<Arc<Log>> {
        self.manager.get(partition)
    }
}
