//! What a broker must know of a directory that Apache Kafka wrote before it takes the partitions over: which
//! there are, the last leader epoch of each, and the highest producer id, above which new ones must be given.
//!
//! Read from the small files alone (`leader-epoch-checkpoint`, `.snapshot`, `.txnindex`), so that it costs
//! little beside the loading of the logs. Files that cannot be read or understood are left out: they are
//! derived data. What lies beyond the last snapshot is known once the logs are loaded
//! ([`LogManager::highest_producer_id`]).
//!
//! An id whose producer expired before the last snapshot, that never aborted a transaction, and whose records
//! are still there, is not found; nothing that judges a producer would remember it either.

use std::path::{Path, PathBuf};

use crate::checkpoint::{self, LeaderEpochCheckpoint};
use crate::io::Io;
use crate::log::producer_state::decode_snapshot;
use crate::log::{Log, UpperBound, transaction_index};
use crate::record_batch::batches;
use crate::units::{LeaderEpoch, ProducerId, TopicPartition};

use super::LogManager;
use super::survey::Survey;

/// Holds the producer id of each transactional id.
const TRANSACTION_STATE_TOPIC: &str = "__transaction_state";
/// Read at once of that topic.
const READ_SIZE_BYTES: usize = 1 << 20;

/// A partition as its small files tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundPartition {
    pub partition: TopicPartition,
    pub directory: PathBuf,
    /// `None` before message format v2, and where no leader was ever elected.
    pub last_leader_epoch: Option<LeaderEpoch>,
    pub highest_producer_id: Option<ProducerId>,
}

impl Survey {
    /// Each partition found, in the order of directories and names.
    pub fn found_partitions(&self, io: &dyn Io) -> Vec<FoundPartition> {
        self.partitions()
            .map(|(partition, directory)| {
                let path = directory.join(partition.to_string());
                let epochs = LeaderEpochCheckpoint::new(&path).read(io).unwrap_or_default();
                FoundPartition {
                    partition: partition.clone(),
                    directory: directory.to_owned(),
                    last_leader_epoch: epochs.iter().map(|entry| entry.epoch).max(),
                    highest_producer_id: highest_producer_id_in(&path, io),
                }
            })
            .collect()
    }
}

impl LogManager {
    /// The highest producer id that a log in service has in its state, or that a transactional id was given
    /// (`__transaction_state` is read as a whole for it).
    pub fn highest_producer_id(&self) -> Option<ProducerId> {
        let hosted = self.hosted();
        let in_state = hosted
            .iter()
            .filter_map(|hosted| hosted.log.largest_producer_id());
        let coordinated = hosted
            .iter()
            .filter(|hosted| &*hosted.log.partition().topic == TRANSACTION_STATE_TOPIC);
        in_state
            .chain(coordinated.filter_map(|hosted| highest_coordinated_id(&hosted.log)))
            .max()
    }
}

/// The highest producer id in the values of a partition of `__transaction_state`, up to the first batch that
/// cannot be read.
fn highest_coordinated_id(log: &Log) -> Option<ProducerId> {
    let mut highest = None;
    let mut from = log.log_start_offset();
    while let Ok(info) = log.read(from, READ_SIZE_BYTES, UpperBound::LogEnd, true) {
        let Some(bytes) = info.records.and_then(|slice| slice.read().ok()) else {
            break;
        };
        let before = from;
        for batch in batches(&bytes).map_while(Result::ok) {
            from = batch.next_offset();
            let Ok(mut records) = batch.records() else {
                continue;
            };
            while let Ok(Some(record)) = records.next_record() {
                highest = highest.max(
                    record
                        .value
                        .filter(|_| !batch.is_control())
                        .and_then(producer_id_of),
                );
            }
        }
        if from <= before {
            break;
        }
    }
    highest
}

/// From a value of `__transaction_state`: version (2) = 0, producer id (8), and what follows.
fn producer_id_of(value: &[u8]) -> Option<ProducerId> {
    let (version, rest) = value.split_first_chunk()?;
    let (id, _) = rest.split_first_chunk()?;
    (i16::from_be_bytes(*version) == 0).then(|| ProducerId(i64::from_be_bytes(*id)))
}

fn highest_producer_id_in(path: &Path, io: &dyn Io) -> Option<ProducerId> {
    let entries = io.list(path).unwrap_or_default();
    let ids = entries.iter().filter_map(|entry| {
        let read = || checkpoint::read_file(io, &path.join(&entry.name)).ok().flatten();
        if entry.name.ends_with(".snapshot") {
            let producers = decode_snapshot(&read()?).ok()?;
            producers.iter().map(|producer| producer.producer_id).max()
        } else if entry.name.ends_with(".txnindex") {
            transaction_index::producer_ids(&read()?).max()
        } else {
            None
        }
    });
    ids.max()
}

#[cfg(test)]
mod tests {
    use std::io::IoSlice;

    use super::*;
    use crate::io::OpenMode;
    use crate::io::simulated::SimulatedDisk;
    use crate::log::producer_state::{SnapshotEntry, encode_snapshot};
    use crate::units::TimestampMs;

    fn write(disk: &SimulatedDisk, path: &str, bytes: &[u8]) {
        let path = Path::new(path);
        disk.create_dir_all(path.parent().unwrap()).unwrap();
        let file = disk.open(path, OpenMode::Truncate).unwrap();
        file.write_vectored_at(0, &[IoSlice::new(bytes)]).unwrap();
    }

    fn snapshot(ids: &[i64]) -> Vec<u8> {
        let entry = |id| SnapshotEntry {
            producer_id: ProducerId(id),
            epoch: None,
            last_batch: None,
            timestamp: TimestampMs(0),
            coordinator_epoch: None,
            current_transaction_first_offset: None,
        };
        encode_snapshot(&ids.iter().map(|id| entry(*id)).collect::<Vec<_>>())
    }

    #[test]
    fn epochs_and_producer_ids_are_found_in_the_small_files_and_damaged_ones_are_left_out() {
        let disk = SimulatedDisk::new(1);
        write(&disk, "/d/t-0/leader-epoch-checkpoint", b"0\n2\n0 0\n7 12\n");
        write(&disk, "/d/t-0/00000000000000000005.snapshot", &snapshot(&[3, 41]));
        write(&disk, "/d/t-0/00000000000000000009.snapshot", &snapshot(&[4]));
        write(&disk, "/d/u-0/leader-epoch-checkpoint", b"0\n9\n0 0\n");
        write(&disk, "/d/u-0/00000000000000000005.snapshot", b"no snapshot");
        let mut aborted = vec![0; 34];
        aborted[2..10].copy_from_slice(&77i64.to_be_bytes());
        aborted.extend_from_slice(&[0xff; 20]);
        write(&disk, "/d/v-0/00000000000000000000.txnindex", &aborted);

        let survey = Survey::of(&[PathBuf::from("/d")], &disk).unwrap();
        let found: Vec<_> = survey
            .found_partitions(&disk)
            .into_iter()
            .map(|found| {
                (
                    found.partition.to_string(),
                    found.last_leader_epoch,
                    found.highest_producer_id,
                )
            })
            .collect();
        let expected = [
            ("t-0".to_owned(), Some(LeaderEpoch(7)), Some(ProducerId(41))),
            ("u-0".to_owned(), None, None),
            ("v-0".to_owned(), None, Some(ProducerId(77))),
        ];
        assert_eq!(found, expected);
    }
}
