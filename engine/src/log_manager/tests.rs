//! What the log manager promises, on the simulated disk: the set-up that the files below share.

use std::collections::BTreeMap;
use std::io::IoSlice;

use super::*;
use crate::checkpoint::{self, OffsetCheckpoint, RunState};
use crate::io::OpenMode;
use crate::io::simulated::{Fault, ManualClock, SimulatedDisk};
use crate::units::TimestampMs;

mod crash;
mod damage;
mod futures;
mod lifetimes;
mod offline;
mod records;
mod small_files;

const GIB: u64 = 1 << 30;

fn partition(name: &str) -> TopicPartition {
    let (topic, number) = name.rsplit_once('-').unwrap();
    TopicPartition::new(topic, number.parse().unwrap())
}

fn wanted(name: &str) -> WantedLog {
    WantedLog {
        partition: partition(name),
        config: Arc::new(LogConfig::default()),
        is_new: true,
        preferred_directory: None,
    }
}

/// Remembers what it was told.
#[derive(Default)]
struct Observer(Mutex<Vec<String>>);

impl Observer {
    fn told(&self) -> Vec<String> {
        let mut told = self.0.lock().clone();
        told.sort();
        told
    }
}

impl LogManagerObserver for Observer {
    fn loaded(&self, progress: &LoadProgress<'_>) {
        let outcome = if progress.failure.is_some() {
            "failed"
        } else {
            "loaded"
        };
        self.0.lock().push(format!(
            "{outcome} {} of {}",
            progress.partition, progress.total_count
        ));
    }

    fn directory_offline(&self, directory: &Path, _reason: &str) {
        self.0.lock().push(format!("offline {}", directory.display()));
    }

    fn partition_out_of_service(&self, partition: &TopicPartition, _reason: &str) {
        self.0.lock().push(format!("out of service {partition}"));
    }
}

/// One broker's life on one disk.
struct Node {
    disk: SimulatedDisk,
    clock: Arc<ManualClock>,
    observer: Arc<Observer>,
    manager: LogManager,
}

fn try_open(
    disk: &SimulatedDisk,
    directories: &[&str],
    config: LogManagerConfig,
) -> Result<Node, LogDirsError> {
    try_open_with(disk, directories, config, LogConfig::default())
}

/// Every log has these settings.
fn try_open_with(
    disk: &SimulatedDisk,
    directories: &[&str],
    config: LogManagerConfig,
    settings: LogConfig,
) -> Result<Node, LogDirsError> {
    let clock = Arc::new(ManualClock::new(TimestampMs(1_700_000_000_000)));
    let observer = Arc::new(Observer::default());
    let paths: Vec<PathBuf> = directories.iter().map(PathBuf::from).collect();
    let survey = Survey::of(&paths, disk)?;
    let settings = Arc::new(settings);
    let manager = LogManager::open(
        survey,
        config,
        &|_| settings.clone(),
        observer.clone(),
        Arc::new(disk.clone()),
        clock.clone(),
    )?;
    Ok(Node {
        disk: disk.clone(),
        clock,
        observer,
        manager,
    })
}

fn open(disk: &SimulatedDisk, directories: &[&str]) -> Node {
    try_open(disk, directories, LogManagerConfig::default()).unwrap()
}

impl Node {
    /// Lets time pass, doing what is due when it is due.
    fn pass(&self, time: Duration) {
        let end = self.clock.monotonic() + time;
        loop {
            let next = self.manager.run_due(self.clock.monotonic());
            assert!(next > self.clock.monotonic(), "the next deadline lies ahead");
            if next > end {
                break;
            }
            self.clock.advance(next - self.clock.monotonic());
        }
        self.clock.advance(end - self.clock.monotonic());
        self.manager.run_due(self.clock.monotonic());
    }

    fn create(&self, name: &str) -> Arc<Log> {
        self.manager.get_or_create(wanted(name)).unwrap()
    }

    /// An empty log from `offset` on, that is synced.
    fn start_at(&self, name: &str, offset: i64) {
        self.manager
            .truncate_fully_and_start_at(&partition(name), Offset(offset))
            .unwrap();
        self.log(name).flush().unwrap();
    }

    fn log(&self, name: &str) -> Arc<Log> {
        self.manager.get(&partition(name)).unwrap()
    }

    fn home_of(&self, name: &str) -> PathBuf {
        self.manager
            .directory_of(&partition(name))
            .unwrap()
            .path()
            .to_owned()
    }

    fn partitions(&self) -> Vec<String> {
        let mut names: Vec<String> = self
            .manager
            .logs()
            .iter()
            .map(|(name, _)| name.to_string())
            .collect();
        names.sort();
        names
    }
}

fn names(disk: &SimulatedDisk, directory: &str) -> Vec<String> {
    disk.list(Path::new(directory))
        .unwrap()
        .into_iter()
        .map(|entry| entry.name)
        .collect()
}

/// The lines of a checkpoint: partition and offset.
fn offsets(disk: &SimulatedDisk, directory: &str, name: &str) -> Vec<String> {
    let checkpoint = OffsetCheckpoint::new(Path::new(directory), name);
    let entries = checkpoint.read(disk).unwrap();
    entries
        .iter()
        .map(|(partition, offset)| format!("{partition} {offset}"))
        .collect()
}

fn write(disk: &SimulatedDisk, path: &str, content: &[u8]) {
    let file = disk.open(Path::new(path), OpenMode::Truncate).unwrap();
    file.write_vectored_at(0, &[IoSlice::new(content)]).unwrap();
    file.sync().unwrap();
}

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}
