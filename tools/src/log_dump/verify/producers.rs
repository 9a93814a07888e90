//! What the batches of a log say of its producers, part by part, so that segments can be read at the same time and put
//! together afterwards.
//!
//! A part ends where a snapshot lies, or at the end of a segment. Memory is that of the producers in it. Source:
//! `ProducerStateManager`, `ProducerAppendInfo`.

use std::collections::HashMap;

use milena_engine::log::derived::SnapshotEntry;
use milena_engine::record_batch::{BatchHeader, ControlKind, ControlRecord};

/// What a part of a log does to a producer's transaction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Transaction {
    /// Nothing, or nobody knows.
    #[default]
    None,
    /// It has a batch at this offset; it may have begun before the part.
    Continued(i64),
    /// It began at this offset.
    Opened(i64),
    Closed,
}

impl Transaction {
    /// Both, one after the other.
    pub(super) fn then(self, later: Transaction) -> Transaction {
        match (self, later) {
            (earlier, Transaction::None) => earlier,
            (Transaction::Closed, Transaction::Continued(offset)) => Transaction::Opened(offset),
            (Transaction::Opened(_) | Transaction::Continued(_), Transaction::Continued(_)) => self,
            (_, later) => later,
        }
    }
}

/// A marker that aborts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Abort {
    pub(super) producer_id: i64,
    /// The transaction, as far as its segment knows.
    pub(super) transaction: Transaction,
    pub(super) last_offset: i64,
}

impl Abort {
    /// Where the transaction began, if that is known; `before` is what earlier segments say of it.
    pub(super) fn first_offset(&self, before: Transaction) -> Option<i64> {
        match before.then(self.transaction) {
            Transaction::Opened(offset) => Some(offset),
            Transaction::Closed => Some(self.last_offset),
            Transaction::None | Transaction::Continued(_) => None,
        }
    }
}

/// What a part of the log says of one producer.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Producer {
    epoch: i16,
    /// The last sequence and offset of the last batch with records in that epoch.
    last_batch: Option<(i32, i64)>,
    /// The epoch changed in this part.
    is_new_epoch: bool,
    pub(super) transaction: Transaction,
}

/// By producer id.
pub(super) type Producers = HashMap<i64, Producer>;

impl Producer {
    /// Of which nothing is known before this part; `from_start` if there is no log before it.
    pub(super) fn unknown(from_start: bool) -> Producer {
        let transaction = if from_start {
            Transaction::Closed
        } else {
            Transaction::None
        };
        Producer {
            transaction,
            ..Producer::default()
        }
    }

    /// Goes on with the next part.
    pub(super) fn apply(&mut self, next: &Producer) {
        if next.epoch != self.epoch || next.is_new_epoch {
            self.last_batch = None;
        }
        self.epoch = next.epoch;
        self.last_batch = next.last_batch.or(self.last_batch);
        self.transaction = self.transaction.then(next.transaction);
    }
}

/// The producers of one segment.
#[derive(Clone, Debug, Default)]
pub(super) struct ProducerParts {
    pub(super) parts: Vec<Producers>,
    pub(super) aborts: Vec<Abort>,
}

impl ProducerParts {
    /// Takes the next batch; `snapshots` are the offsets at which a part ends, in order.
    pub(super) fn batch(&mut self, header: &BatchHeader, control: Option<ControlRecord>, snapshots: &[i64]) {
        let first = header.base_offset.get();
        self.begin_parts(snapshots.iter().filter(|offset| **offset <= first).count());
        let Some(stamp) = header
            .producer
            .filter(|_| !header.is_control || control.is_some())
        else {
            return;
        };
        let (id, epoch) = (stamp.id.get(), stamp.epoch.get());
        let earlier = self.parts.iter().filter_map(|part| part.get(&id));
        let begun = earlier.fold(Transaction::None, |begun, part| begun.then(part.transaction));
        let Some(part) = self.parts.last_mut() else { return };
        let producer = part.entry(id).or_insert(Producer {
            epoch,
            ..Producer::default()
        });
        if producer.epoch != epoch {
            let transaction = producer.transaction;
            *producer = Producer {
                epoch,
                is_new_epoch: true,
                last_batch: None,
                transaction,
            };
        }
        match control {
            Some(control) => {
                producer.transaction = Transaction::Closed;
                if control.kind == ControlKind::Abort {
                    self.aborts.push(Abort {
                        producer_id: id,
                        transaction: begun,
                        last_offset: first,
                    });
                }
            }
            None => {
                let sequence = stamp.last_sequence.map_or(-1, |sequence| sequence.get());
                producer.last_batch = Some((sequence, header.last_offset.get()));
                if header.is_transactional {
                    producer.transaction = begun.then(Transaction::Continued(first));
                }
            }
        }
    }

    /// So many snapshots were passed.
    pub(super) fn begin_parts(&mut self, passed: usize) {
        while self.parts.len() <= passed {
            self.parts.push(Producers::new());
        }
    }
}

/// What of a snapshot is not what the log says, and what the log says. The log begins at `first`.
pub(super) fn contradiction(
    entries: &[SnapshotEntry],
    known: &Producers,
    first: i64,
) -> Option<(String, String)> {
    entries.iter().find_map(|entry| {
        let id = entry.producer_id.get();
        let Some(known) = known.get(&id) else {
            // Its batches may have been deleted with the head of the log.
            let offset = entry.last_batch.map(|batch| batch.last_offset.get())?;
            let found = format!("producer {id} with offset {offset}");
            return (offset >= first).then(|| (found, "no such producer".to_owned()));
        };
        let epoch = entry.epoch.map_or(-1, |epoch| epoch.get());
        if epoch != known.epoch {
            return Some((
                format!("producer {id} in epoch {epoch}"),
                format!("epoch {}", known.epoch),
            ));
        }
        if let (Some(batch), Some(known)) = (entry.last_batch, known.last_batch) {
            let found = (
                batch.last_sequence.map_or(-1, |sequence| sequence.get()),
                batch.last_offset.get(),
            );
            if found != known {
                return Some((
                    format!("producer {id} with sequence {} at offset {}", found.0, found.1),
                    format!("sequence {} at offset {}", known.0, known.1),
                ));
            }
        }
        let open = entry.current_transaction_first_offset.map(|offset| offset.get());
        let found = match open {
            Some(offset) => format!("producer {id} with a transaction from offset {offset}"),
            None => format!("producer {id} without a transaction"),
        };
        match known.transaction {
            Transaction::Opened(offset) if open != Some(offset) => {
                Some((found, format!("one from offset {offset}")))
            }
            Transaction::Closed if open.is_some() => Some((found, "none".to_owned())),
            _ => None,
        }
    })
}
