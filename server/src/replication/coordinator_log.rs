//! The group coordinator's door to `__consumer_offsets`, through the partitions that this broker leads.
//!
//! An append is acknowledged as `acks=all` is: once all in-sync replicas have it, and on the medium where the topic's
//! `flush.messages` asks for that.

use std::sync::Arc;

use bytes::Bytes;
use milena_engine::error::{AppendError, InvalidRecords, ReadError};
use milena_engine::io::Clock;
use milena_engine::log::UpperBound;
use milena_engine::record_batch::{AppendOrigin, Level, RequestRules, ValidationRules, validate};
use milena_engine::units::{LeaderEpoch, Offset};

use super::{Acknowledgement, Partition, PartitionRefusal, ReplicaManager};
use crate::group::GROUP_METADATA_TOPIC_NAME;
use crate::group::offset_store::{AppendDone, AppendFailure, CoordinatorLog, ReadChunk};

/// Reads and writes one internal topic through the replica manager.
#[derive(Debug)]
pub struct OffsetsTopic {
    replicas: Arc<ReplicaManager>,
    clock: Arc<dyn Clock>,
}

impl OffsetsTopic {
    pub fn new(replicas: Arc<ReplicaManager>, clock: Arc<dyn Clock>) -> OffsetsTopic {
        OffsetsTopic { replicas, clock }
    }

    fn led(&self, partition: i32) -> Result<Arc<Partition>, AppendFailure> {
        let partition = self
            .replicas
            .partition(GROUP_METADATA_TOPIC_NAME, partition)
            .map_err(failure)?;
        partition.check_leader(-1).map_err(failure)?;
        Ok(partition)
    }

    fn write(&self, partition: &Partition, batch: &[u8]) -> Result<Written, AppendFailure> {
        if !partition.has_enough_replicas() {
            return Err(AppendFailure::NotEnoughReplicas);
        }
        let config = partition.log().config();
        let origin = AppendOrigin::Coordinator;
        let rules = ValidationRules::new(partition.name().clone(), &config, origin, RequestRules::NONE);
        let batches = validate(batch, &rules, self.clock.wall(), Level::Strict)
            .map_err(|error| append_failure(&AppendError::Invalid(error)))?;
        let mut appended = partition.append(&mut [batches], origin).map_err(failure)?;
        let info = appended.results.pop().expect("one set gives one result");
        let info = info.map_err(|error| append_failure(&error))?;
        Ok(Written {
            leader_epoch: appended.leader_epoch,
            first_offset: info.first_offset.unwrap_or(info.last_offset),
            last_offset: info.last_offset,
            sync_before_ack: info.sync_before_ack,
        })
    }
}

/// An append that is not acknowledged yet.
struct Written {
    leader_epoch: LeaderEpoch,
    first_offset: Offset,
    last_offset: Offset,
    sync_before_ack: Option<Offset>,
}

impl Written {
    /// Tells `done` once the in-sync replicas have it. Who waits has a time limit of its own.
    fn acknowledge(self, partition: &Partition, done: AppendDone) {
        let told = move |acknowledgement| {
            done(match acknowledgement {
                Acknowledgement::Done => Ok(self.first_offset),
                Acknowledgement::NotEnoughReplicas => Err(AppendFailure::NotEnoughReplicasAfterAppend),
                Acknowledgement::NotLeader | Acknowledgement::Waiting => Err(AppendFailure::NotLeader),
            });
        };
        partition.when_acknowledged(self.leader_epoch, self.last_offset, Box::new(told));
    }
}

impl CoordinatorLog for OffsetsTopic {
    fn append(&self, partition: i32, batch: Bytes, done: AppendDone) {
        let written = self
            .led(partition)
            .and_then(|led| Ok((self.write(&led, &batch)?, led)));
        let (written, led) = match written {
            Err(failure) => return done(Err(failure)),
            Ok(written) => written,
        };
        let Some(end) = written.sync_before_ack else {
            return written.acknowledge(&led, done);
        };
        let log = led.log();
        let synced = move |result: Result<(), _>| match result {
            Ok(()) => written.acknowledge(&led, done),
            Err(_) => done(Err(AppendFailure::Storage)),
        };
        log.when_synced(end, Box::new(synced));
    }

    fn read(&self, partition: i32, from: Offset, max_bytes: usize) -> Result<ReadChunk, AppendFailure> {
        let led = self.led(partition)?;
        let log = led.log();
        let from = from.max(log.log_start_offset());
        let info = log
            .read(from, max_bytes, UpperBound::LogEnd, true)
            .map_err(|error| match error {
                ReadError::OffsetOutOfRange { .. } => AppendFailure::Other(error.to_string()),
                ReadError::Storage(_) => AppendFailure::Storage,
            })?;
        let bytes = match info.records {
            Some(slice) => slice.read().map_err(|_| AppendFailure::Storage)?,
            None => Vec::new(),
        };
        Ok(ReadChunk {
            bytes: bytes.into(),
            log_end_offset: info.log_end_offset,
        })
    }
}

fn failure(refusal: PartitionRefusal) -> AppendFailure {
    match refusal {
        PartitionRefusal::Unknown => AppendFailure::UnknownTopicOrPartition,
        PartitionRefusal::Offline => AppendFailure::Storage,
        _ => AppendFailure::NotLeader,
    }
}

fn append_failure(error: &AppendError) -> AppendFailure {
    match error {
        AppendError::Invalid(InvalidRecords::TooLarge { .. } | InvalidRecords::SetTooLarge { .. }) => {
            AppendFailure::TooLarge
        }
        AppendError::Storage(_) => AppendFailure::Storage,
        other => AppendFailure::Other(other.to_string()),
    }
}
