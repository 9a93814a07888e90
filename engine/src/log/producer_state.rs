//! What a log knows of the producers that wrote to it: the state machine behind idempotence and transactions.
//!
//! Pure: no I/O, no clock, no threads; the log holds it under its own lock, feeds it each batch in offset
//! order and writes the snapshot bytes it hands out. For each producer id it keeps the epoch, the last
//! [`BATCHES_TO_RETAIN`] batches (an exact repeat of one is a duplicate and is answered with the original
//! offsets), the epoch of the last transaction coordinator and the first offset of the open transaction.
//!
//! One producer's transaction in this log:
//!
//! ```text
//!          transactional batch          marker, abort or commit
//!   (none) ---------------------> ongoing ---------------------> unreplicated ----------------------> (none)
//!      \________________ marker without data ________________________^    high watermark or log start
//!                                                                         passes the marker
//! ```
//!
//! The first offset of an ongoing or unreplicated transaction is *unstable*: a `read_committed` reader goes
//! no further.
//!
//! Who is checked:
//!
//! | origin        | epoch | sequence and duplicates | open transaction | coordinator epoch |
//! |---------------|-------|-------------------------|------------------|-------------------|
//! | `Client`      | yes   | yes                     | yes              | yes               |
//! | `Coordinator` | yes   | no                      | yes              | yes               |
//! | `Replication` | no    | no                      | no               | no                |
//!
//! Invariants:
//! - `map_end_offset` is the offset up to which (exclusive) batches were applied; a snapshot is named by it.
//! - A refused or duplicate set of batches leaves no trace.
//! - State is applied before the log writes the bytes. This is sound because a failed write is final for the
//!   directory.
//! - Each ongoing transaction belongs to a producer whose entry names the same first offset.
//!
//! Left to the log: reading and writing `.snapshot` files, deciding which to keep, replaying batches after
//! one was loaded. Source: `ProducerStateManager.scala`, `ProducerAppendInfo`; KIP-98, KIP-360.
//!
//! **Deviation:** a replicated or replayed non-transactional batch inside an open transaction is accepted.
//! Kafka throws, so a log that has one (written by a leader of another version) could be neither recovered
//! nor followed.
//!
//! **Deviation:** a repeat of a batch that is remembered no more is a duplicate too, answered without an offset, if the sequences from
//! it to the last one are known to be in the log and no record of it is newer than the last one: then it is not another producer's,
//! which was given the same id in another cluster. Kafka says OUT_OF_ORDER_SEQUENCE_NUMBER. A client whose leader went silently waits
//! for the answer to a batch while more than five later ones go to the next leader and are acknowledged. Told that the repeat is out of
//! order, the Java client repeats it until `delivery.timeout.ms` is over, or takes a new epoch and sends again what is in the log already.

mod snapshot;

use std::collections::{BTreeMap, HashMap};

use crate::error::ProducerRefusal;
use crate::units::{Offset, ProducerEpoch, ProducerId, Sequence, TimestampMs, TopicPartition};

pub(crate) use crate::record_batch::AppendOrigin;
pub(crate) use snapshot::encode_snapshot;
pub use snapshot::{CorruptSnapshot, SnapshotEntry, decode_snapshot};

/// Batches remembered for each producer, as many as a client may have in flight
/// (`ProducerStateEntry.NumBatchesToRetain`).
pub(crate) const BATCHES_TO_RETAIN: usize = 5;

/// What the state machine needs of one batch that carries a producer id; offsets as assigned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ProducerBatch {
    pub(crate) producer_id: ProducerId,
    pub(crate) epoch: ProducerEpoch,
    pub(crate) base_offset: Offset,
    /// Inclusive.
    pub(crate) last_offset: Offset,
    /// The largest timestamp in the batch; for a control batch, that of its record.
    pub(crate) max_timestamp: TimestampMs,
    pub(crate) content: BatchContent,
}

/// What a batch with a producer id holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BatchContent {
    /// Records. `base_sequence` and `last_sequence` are `None` where the writer has none (a coordinator).
    Data {
        base_sequence: Option<Sequence>,
        last_sequence: Option<Sequence>,
        transactional: bool,
    },
    /// The end of the producer's transaction.
    EndTransaction {
        outcome: TransactionOutcome,
        coordinator_epoch: i32,
    },
    /// A control batch whose record was compacted away, or one of a kind that ends no transaction: changes
    /// nothing.
    EmptyControl,
}

/// How a transaction ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TransactionOutcome {
    Abort,
    Commit,
}

/// What is to be done with a set of batches that is not refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Not seen before: write it.
    New,
    /// Written already: answer with the original offsets (`last_offset` inclusive), write nothing. Of a batch that is not
    /// remembered, `last_offset` is where it ends at the latest.
    Duplicate {
        first_offset: Option<Offset>,
        last_offset: Offset,
        timestamp: TimestampMs,
    },
}

/// One aborted transaction, as an entry of `.txnindex` and of a Fetch response. Both offsets are inclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AbortedTransaction {
    pub producer_id: ProducerId,
    /// Of the first batch of the transaction; of the marker itself if there was no data.
    pub first_offset: Offset,
    /// Of the abort marker.
    pub last_offset: Offset,
    /// The last stable offset (exclusive) that the marker made possible, the high watermark aside.
    pub last_stable_offset: Offset,
}

/// One remembered batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchMetadata {
    pub last_sequence: Option<Sequence>,
    pub last_offset: Offset,
    /// Last offset minus first offset.
    pub offset_delta: i32,
    pub timestamp: TimestampMs,
}

impl BatchMetadata {
    /// Sequence of the first record, counted back from the last, wrapping from 0 to `i32::MAX`.
    pub(crate) fn first_sequence(&self) -> Option<Sequence> {
        let last = i64::from(self.last_sequence?.get());
        let first = last - i64::from(self.offset_delta);
        let wrapped = if first < 0 {
            first + i64::from(i32::MAX) + 1
        } else {
            first
        };
        i32::try_from(wrapped).ok().map(Sequence)
    }

    pub(crate) fn first_offset(&self) -> Offset {
        Offset(self.last_offset.get() - i64::from(self.offset_delta))
    }
}

/// What is known of one producer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ProducerEntry {
    /// `None` only after a snapshot that says so.
    epoch: Option<ProducerEpoch>,
    /// Of the last transaction marker; `None` before the first.
    coordinator_epoch: Option<i32>,
    /// Of the last batch or marker.
    last_timestamp: TimestampMs,
    current_transaction_first_offset: Option<Offset>,
    /// Oldest first; those at `batch_count` and beyond are unused.
    batches: [Option<BatchMetadata>; BATCHES_TO_RETAIN],
    batch_count: u8,
    /// How many records up to the last one have sequences without a gap: so many are known to be in the log.
    unbroken: i64,
}

impl ProducerEntry {
    const EMPTY: ProducerEntry = ProducerEntry {
        epoch: None,
        coordinator_epoch: None,
        last_timestamp: TimestampMs::NONE,
        current_transaction_first_offset: None,
        batches: [None; BATCHES_TO_RETAIN],
        batch_count: 0,
        unbroken: 0,
    };

    /// The remembered batches of the present epoch, oldest first.
    pub(crate) fn batches(&self) -> impl DoubleEndedIterator<Item = &BatchMetadata> {
        self.batches[..usize::from(self.batch_count)].iter().flatten()
    }

    fn last_batch(&self) -> Option<&BatchMetadata> {
        self.batches().next_back()
    }

    fn last_sequence(&self) -> Option<Sequence> {
        self.last_batch().and_then(|batch| batch.last_sequence)
    }

    /// Remembered batches belong to one epoch: another one forgets them.
    fn set_epoch(&mut self, epoch: ProducerEpoch) {
        if self.epoch != Some(epoch) {
            self.batches = [None; BATCHES_TO_RETAIN];
            self.batch_count = 0;
            self.epoch = Some(epoch);
        }
    }

    fn push(&mut self, batch: BatchMetadata) {
        let next = self.last_sequence().map(|last| last.plus(1));
        let before = if next.is_some() && next == batch.first_sequence() {
            self.unbroken
        } else {
            0
        };
        self.unbroken = before + i64::from(batch.offset_delta) + 1;
        let count = usize::from(self.batch_count);
        if count == BATCHES_TO_RETAIN {
            self.batches.rotate_left(1);
            self.batches[BATCHES_TO_RETAIN - 1] = Some(batch);
        } else {
            self.batches[count] = Some(batch);
            self.batch_count += 1;
        }
    }

    fn duplicate_of(&self, batch: &ProducerBatch) -> Option<&BatchMetadata> {
        let BatchContent::Data {
            base_sequence,
            last_sequence,
            ..
        } = batch.content
        else {
            return None;
        };
        if self.epoch != Some(batch.epoch) || base_sequence.is_none() {
            return None;
        }
        self.batches()
            .find(|kept| kept.last_sequence == last_sequence && kept.first_sequence() == base_sequence)
    }

    /// The last offset that a batch can have which is in the log, behind all that are remembered; `None` if it is not known to be
    /// there.
    fn forgotten(&self, batch: &ProducerBatch) -> Option<Offset> {
        let BatchContent::Data {
            base_sequence: Some(base),
            last_sequence: Some(last),
            ..
        } = batch.content
        else {
            return None;
        };
        let oldest = self.batches().next()?;
        let is_in_the_log = sequences_between(base, self.last_sequence()?) < self.unbroken.min(FAR);
        let is_behind = (1..FAR).contains(&sequences_between(last, oldest.first_sequence()?));
        let is_of_this_epoch = self.epoch == Some(batch.epoch);
        let is_of_its_time = (TimestampMs(0)..=self.last_timestamp).contains(&batch.max_timestamp);
        (is_of_this_epoch && is_of_its_time && is_in_the_log && is_behind)
            .then(|| oldest.first_offset().plus(-1))
    }

    /// The batches up to the last one that were known before, if they were more.
    fn recall(&mut self, before: &ProducerEntry) {
        let last = self.last_batch();
        let Some(kept) = before.batches().position(|batch| Some(batch) == last) else {
            return;
        };
        let count = |batch: &BatchMetadata| i64::from(batch.offset_delta) + 1;
        let cut: i64 = before.batches().skip(kept + 1).map(count).sum();
        self.unbroken = self.unbroken.max(before.unbroken - cut);
        if kept >= usize::from(self.batch_count) {
            self.batches = before.batches;
            self.batch_count = kept as u8 + 1;
        }
    }

    fn to_snapshot(&self, producer_id: ProducerId) -> SnapshotEntry {
        SnapshotEntry {
            producer_id,
            epoch: self.epoch,
            last_batch: self.last_batch().copied(),
            timestamp: self.last_timestamp,
            coordinator_epoch: self.coordinator_epoch,
            current_transaction_first_offset: self.current_transaction_first_offset,
        }
    }

    fn from_snapshot(entry: &SnapshotEntry) -> ProducerEntry {
        let mut producer = ProducerEntry {
            epoch: entry.epoch,
            coordinator_epoch: entry.coordinator_epoch,
            last_timestamp: entry.timestamp,
            current_transaction_first_offset: entry.current_transaction_first_offset,
            ..ProducerEntry::EMPTY
        };
        if let Some(batch) = entry.last_batch {
            producer.push(batch);
        }
        producer
    }
}

/// Further apart, one sequence is as well before as behind another: they wrap.
const FAR: i64 = 1 << 30;

/// How far it is from one sequence on to another, wrapping.
fn sequences_between(from: Sequence, to: Sequence) -> i64 {
    (i64::from(to.get()) - i64::from(from.get())).rem_euclid(1 << 31)
}

/// A transaction that keeps its first offset unstable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Transaction {
    producer_id: ProducerId,
    /// Of the marker; `None` while it is ongoing.
    last_offset: Option<Offset>,
}

/// The producer state of one log. See the module's text for its invariants.
#[derive(Clone, Debug)]
pub(crate) struct ProducerStateManager {
    topic_partition: TopicPartition,
    producer_id_expiration_ms: i64,
    producers: HashMap<ProducerId, ProducerEntry>,
    map_end_offset: Offset,
    last_snapshot_offset: Offset,
    /// By first offset.
    ongoing: BTreeMap<Offset, Transaction>,
    /// Completed, but with markers at or above the high watermark; by first offset.
    unreplicated: BTreeMap<Offset, Transaction>,
}

impl ProducerStateManager {
    /// Knows nothing, ends at offset 0. `producer_id_expiration_ms` is `transactional.id.expiration.ms`.
    pub(crate) fn new(
        topic_partition: TopicPartition,
        producer_id_expiration_ms: i64,
    ) -> ProducerStateManager {
        ProducerStateManager {
            topic_partition,
            producer_id_expiration_ms,
            producers: HashMap::new(),
            map_end_offset: Offset::ZERO,
            last_snapshot_offset: Offset::ZERO,
            ongoing: BTreeMap::new(),
            unreplicated: BTreeMap::new(),
        }
    }

    /// Judges one batch and changes nothing. A duplicate is looked for only with origin `Client`.
    ///
    /// # Errors
    /// The refusal; never with origin `Replication`.
    pub(crate) fn check(
        &self,
        batch: &ProducerBatch,
        origin: AppendOrigin,
    ) -> Result<Verdict, ProducerRefusal> {
        let entry = self.producers.get(&batch.producer_id);
        if origin == AppendOrigin::Replication || batch.content == BatchContent::EmptyControl {
            return Ok(Verdict::New);
        }
        if origin == AppendOrigin::Client
            && let Some(kept) = entry.and_then(|entry| entry.duplicate_of(batch))
        {
            return Ok(Verdict::Duplicate {
                first_offset: Some(kept.first_offset()),
                last_offset: kept.last_offset,
                timestamp: kept.timestamp,
            });
        }
        if origin == AppendOrigin::Client
            && let Some(last_offset) = entry.and_then(|entry| entry.forgotten(batch))
        {
            return Ok(Verdict::Duplicate {
                first_offset: None,
                last_offset,
                timestamp: TimestampMs::NONE,
            });
        }
        let Some(entry) = entry else {
            return Ok(Verdict::New);
        };
        self.check_epoch(entry, batch)?;
        match batch.content {
            BatchContent::Data {
                base_sequence,
                transactional,
                ..
            } => {
                if origin == AppendOrigin::Client {
                    self.check_sequence(entry, batch, base_sequence)?;
                }
                if entry.current_transaction_first_offset.is_some() && !transactional {
                    return Err(ProducerRefusal::InvalidTransactionState {
                        producer_id: batch.producer_id,
                        partition: self.topic_partition.clone(),
                    });
                }
            }
            BatchContent::EndTransaction {
                coordinator_epoch, ..
            } => {
                if let Some(current) = entry
                    .coordinator_epoch
                    .filter(|current| *current > coordinator_epoch)
                {
                    return Err(ProducerRefusal::CoordinatorFenced {
                        producer_id: batch.producer_id,
                        partition: self.topic_partition.clone(),
                        found: coordinator_epoch,
                        current,
                    });
                }
            }
            BatchContent::EmptyControl => {}
        }
        Ok(Verdict::New)
    }

    fn check_epoch(&self, entry: &ProducerEntry, batch: &ProducerBatch) -> Result<(), ProducerRefusal> {
        match entry.epoch {
            Some(current) if batch.epoch < current => Err(ProducerRefusal::StaleEpoch {
                producer_id: batch.producer_id,
                offset: batch.base_offset,
                partition: self.topic_partition.clone(),
                found: batch.epoch,
                current,
            }),
            _ => Ok(()),
        }
    }

    fn check_sequence(
        &self,
        entry: &ProducerEntry,
        batch: &ProducerBatch,
        base_sequence: Option<Sequence>,
    ) -> Result<(), ProducerRefusal> {
        let Some(current_epoch) = entry.epoch else {
            return Ok(());
        };
        let found = base_sequence.unwrap_or(Sequence(-1));
        if batch.epoch != current_epoch {
            if found == Sequence(0) {
                return Ok(());
            }
            return Err(ProducerRefusal::NewEpochSequence {
                producer_id: batch.producer_id,
                offset: batch.base_offset,
                partition: self.topic_partition.clone(),
                epoch: batch.epoch,
                found,
            });
        }
        let last = entry.last_sequence().unwrap_or(Sequence(-1));
        if found == last.plus(1) {
            return Ok(());
        }
        Err(ProducerRefusal::OutOfOrderSequence {
            producer_id: batch.producer_id,
            offset: batch.base_offset,
            partition: self.topic_partition.clone(),
            found,
            last,
        })
    }

    /// Takes a batch that was judged `New` into the state. Returns the aborted transaction if the batch is
    /// its marker: the log appends it to the `.txnindex` of the segment that holds the marker.
    ///
    /// `map_end_offset` does not move: the log moves it past the whole append with
    /// [`Self::set_map_end_offset`], also for appends without producer ids.
    pub(crate) fn apply(&mut self, batch: &ProducerBatch) -> Option<AbortedTransaction> {
        let entry = match batch.content {
            BatchContent::EmptyControl => return None,
            _ => self
                .producers
                .entry(batch.producer_id)
                .or_insert(ProducerEntry::EMPTY),
        };
        entry.set_epoch(batch.epoch);
        entry.last_timestamp = batch.max_timestamp;
        match batch.content {
            BatchContent::EmptyControl => None,
            BatchContent::Data {
                last_sequence,
                transactional,
                ..
            } => {
                entry.push(BatchMetadata {
                    last_sequence,
                    last_offset: batch.last_offset,
                    offset_delta: i32::try_from(batch.last_offset.since(batch.base_offset))
                        .unwrap_or(i32::MAX),
                    timestamp: batch.max_timestamp,
                });
                if transactional && entry.current_transaction_first_offset.is_none() {
                    entry.current_transaction_first_offset = Some(batch.base_offset);
                    let transaction = Transaction {
                        producer_id: batch.producer_id,
                        last_offset: None,
                    };
                    self.ongoing.insert(batch.base_offset, transaction);
                }
                None
            }
            BatchContent::EndTransaction {
                outcome,
                coordinator_epoch,
            } => {
                entry.coordinator_epoch = Some(coordinator_epoch);
                let first_offset = entry
                    .current_transaction_first_offset
                    .take()
                    .unwrap_or(batch.base_offset);
                self.ongoing.remove(&first_offset);
                let last_stable_offset = self
                    .ongoing
                    .keys()
                    .next()
                    .copied()
                    .unwrap_or(batch.base_offset.plus(1));
                let completed = Transaction {
                    producer_id: batch.producer_id,
                    last_offset: Some(batch.base_offset),
                };
                self.unreplicated.insert(first_offset, completed);
                (outcome == TransactionOutcome::Abort).then_some(AbortedTransaction {
                    producer_id: batch.producer_id,
                    first_offset,
                    last_offset: batch.base_offset,
                    last_stable_offset,
                })
            }
        }
    }

    /// Checks and applies the batches of one append, all or none: after a refusal or a duplicate the state is
    /// as before. Aborted transactions are added to `aborted`, in offset order.
    ///
    /// As in Kafka, a duplicate anywhere makes the whole set a duplicate (a client's set has one batch).
    ///
    /// # Errors
    /// The first refusal; never with origin `Replication`.
    pub(crate) fn append(
        &mut self,
        batches: impl IntoIterator<Item = ProducerBatch>,
        origin: AppendOrigin,
        aborted: &mut Vec<AbortedTransaction>,
    ) -> Result<Verdict, ProducerRefusal> {
        let mut batches = batches.into_iter();
        let Some(mut batch) = batches.next() else {
            return Ok(Verdict::New);
        };
        let aborted_before = aborted.len();
        let mut before: Option<ProducerStateManager> = None;
        loop {
            match self.check(&batch, origin) {
                Ok(Verdict::New) => {}
                other => {
                    if let Some(before) = before {
                        *self = before;
                        aborted.truncate(aborted_before);
                    }
                    return other;
                }
            }
            let next = batches.next();
            // Only a set of several batches that can be refused half way needs a way back.
            if next.is_some() && before.is_none() && origin != AppendOrigin::Replication {
                before = Some(self.clone());
            }
            aborted.extend(self.apply(&batch));
            match next {
                Some(following) => batch = following,
                None => return Ok(Verdict::New),
            }
        }
    }

    /// The smallest offset that a `read_committed` reader must not pass: of an ongoing transaction, or of a
    /// completed one whose marker is not below the high watermark.
    pub(crate) fn first_unstable_offset(&self) -> Option<Offset> {
        let unreplicated = self.unreplicated.keys().next().copied();
        match (self.first_undecided_offset(), unreplicated) {
            (Some(left), Some(right)) => Some(left.min(right)),
            (left, right) => left.or(right),
        }
    }

    /// The first offset of the oldest ongoing transaction.
    pub(crate) fn first_undecided_offset(&self) -> Option<Offset> {
        self.ongoing.keys().next().copied()
    }

    /// Forgets completed transactions whose markers are now replicated (below `high_watermark`).
    pub(crate) fn on_high_watermark_updated(&mut self, high_watermark: Offset) {
        self.remove_unreplicated(high_watermark);
    }

    fn remove_unreplicated(&mut self, offset: Offset) {
        if !self.unreplicated.is_empty() {
            self.unreplicated
                .retain(|_, transaction| transaction.last_offset.is_none_or(|last| last >= offset));
        }
    }

    /// Up to where (exclusive) the state covers the log.
    pub(crate) fn map_end_offset(&self) -> Offset {
        self.map_end_offset
    }

    /// Called after each append with the offset that follows its last record.
    pub(crate) fn set_map_end_offset(&mut self, offset: Offset) {
        self.map_end_offset = offset;
    }

    /// No producers and no transactions: there is nothing that a truncation could undo.
    pub(crate) fn is_empty(&self) -> bool {
        self.producers.is_empty() && self.unreplicated.is_empty()
    }

    /// All known producers, in no order.
    pub(crate) fn producers(&self) -> impl Iterator<Item = (ProducerId, &ProducerEntry)> {
        self.producers.iter().map(|(id, entry)| (*id, entry))
    }

    /// The bytes of a snapshot file named by the returned offset, or `None` if the state did not move since
    /// the last one. Afterwards the snapshot counts as taken: a failed write of it is final for the
    /// directory.
    pub(crate) fn take_snapshot(&mut self) -> Option<(Offset, Vec<u8>)> {
        if self.map_end_offset <= self.last_snapshot_offset {
            return None;
        }
        self.last_snapshot_offset = self.map_end_offset;
        Some((self.map_end_offset, self.encode()))
    }

    /// The present state as the bytes of a snapshot file: producers in order of their ids, the last batch of
    /// each.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut entries: Vec<SnapshotEntry> = self
            .producers
            .iter()
            .map(|(id, entry)| entry.to_snapshot(*id))
            .collect();
        entries.sort_unstable_by_key(|entry| entry.producer_id);
        encode_snapshot(&entries)
    }

    /// Replaces everything by the snapshot that was taken at `offset` (its name). Expired producers are left
    /// out.
    ///
    /// # Errors
    /// The bytes are not a snapshot; the state is unchanged and the caller tries an older one.
    pub(crate) fn load_snapshot(
        &mut self,
        offset: Offset,
        bytes: &[u8],
        now: TimestampMs,
    ) -> Result<(), CorruptSnapshot> {
        let entries = decode_snapshot(bytes)?;
        self.clear_and_start_at(offset);
        for entry in entries {
            let producer = ProducerEntry::from_snapshot(&entry);
            if self.is_expired(&producer, now) {
                continue;
            }
            if let Some(first_offset) = producer.current_transaction_first_offset {
                let transaction = Transaction {
                    producer_id: entry.producer_id,
                    last_offset: None,
                };
                self.ongoing.insert(first_offset, transaction);
            }
            self.producers.insert(entry.producer_id, producer);
        }
        Ok(())
    }

    /// After the log's end was removed and the rest loaded anew: a snapshot has the last batch of each producer only, and a client may
    /// repeat one of those before it.
    pub(crate) fn recall(&mut self, before: &ProducerStateManager) {
        for (id, entry) in &mut self.producers {
            if let Some(before) = before.producers.get(id) {
                entry.recall(before);
            }
        }
    }

    /// Knows nothing and covers the log up to `offset`, as though a snapshot without producers had been
    /// loaded: the start of a rebuild without a usable snapshot (`offset` = log start offset).
    pub(crate) fn clear_and_start_at(&mut self, offset: Offset) {
        self.producers.clear();
        self.ongoing.clear();
        self.unreplicated.clear();
        self.map_end_offset = offset;
        self.last_snapshot_offset = offset;
    }

    /// After the log's head was removed: `latest_snapshot` is the offset of the newest snapshot file that
    /// remains once those below `log_start_offset` are deleted. Producers stay known.
    pub(crate) fn truncate_head(&mut self, log_start_offset: Offset, latest_snapshot: Option<Offset>) {
        self.remove_unreplicated(log_start_offset);
        self.map_end_offset = self.map_end_offset.max(log_start_offset);
        self.last_snapshot_offset = latest_snapshot.unwrap_or(log_start_offset);
    }

    /// After the log was emptied to start at `offset`; the log deletes all snapshot files.
    pub(crate) fn truncate_fully_and_start_at(&mut self, offset: Offset) {
        self.clear_and_start_at(offset);
        self.last_snapshot_offset = Offset::ZERO;
    }

    /// Forgets producers idle for `transactional.id.expiration.ms` or longer, except those with an open
    /// transaction. Returns how many.
    pub(crate) fn remove_expired(&mut self, now: TimestampMs) -> usize {
        let before = self.producers.len();
        let limit = self.producer_id_expiration_ms;
        self.producers.retain(|_, entry| !is_expired(entry, now, limit));
        before - self.producers.len()
    }

    fn is_expired(&self, entry: &ProducerEntry, now: TimestampMs) -> bool {
        is_expired(entry, now, self.producer_id_expiration_ms)
    }
}

fn is_expired(entry: &ProducerEntry, now: TimestampMs, limit_ms: i64) -> bool {
    entry.current_transaction_first_offset.is_none()
        && now.get().saturating_sub(entry.last_timestamp.get()) >= limit_ms
}

#[cfg(test)]
mod tests;
