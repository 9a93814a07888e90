//! Appends of a script: what is sent, what the model takes for written, and what an acknowledgement promises.
//!
//! Before a call the model knows what may be found; after it, what must be. A leader's sets may hold a retry,
//! which must be answered with the offsets of the first time; a follower's chunk is taken as it is.

use std::sync::Arc;

use milena_engine::config::Codec;
use milena_engine::error::AppendError;
use milena_engine::io::Clock;
use milena_engine::log::{AppendInfo, Log};
use milena_engine::record_batch::{
    AppendOrigin, Level, RecordBatchBuilder, RequestRules, ValidationRules, validate,
};
use milena_engine::units::{
    LeaderEpoch, Offset, ProducerEpoch, ProducerId, Sequence, TimestampMs, TopicPartition,
};

use super::Script;
use crate::check::Violation;
use crate::model::StoredBatch;
use crate::node::{self, FOLLOWER};

impl Script {
    pub(super) fn append(&mut self, partition: &TopicPartition) -> Result<(), Violation> {
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
}

/// Appends as a leader, one answer for each set.
pub(crate) fn append_sets(log: &Log, sent: &[&[u8]], epoch: i32) -> Vec<Result<AppendInfo, AppendError>> {
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
