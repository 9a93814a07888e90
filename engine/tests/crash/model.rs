//! What the disk has been promised to hold: the other side of every comparison.
//!
//! A [`Model`] is kept beside the engine while a script runs. Before each step it notes what may happen, after
//! the step what must have happened, so that at any moment it says for each partition: which batches, byte for
//! byte and at which offsets, may be found after a crash, how far they must be there after a power cut or a
//! kill, and where log start and high watermark may lie. It knows nothing of files.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use milena_engine::units::TopicPartition;

/// A small generator with a good enough spread (splitmix64).
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Random {
        Random(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    pub(crate) fn chance(&mut self, one_in: u64) -> bool {
        self.below(one_in) == 0
    }

    pub(crate) fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len() as u64) as usize]
    }
}

/// A batch as it must lie in the log.
#[derive(Debug)]
pub(crate) struct StoredBatch {
    pub(crate) base: i64,
    pub(crate) timestamps: Vec<i64>,
    /// With base offset and leader epoch stamped.
    pub(crate) bytes: Vec<u8>,
    /// As the producer sent it.
    pub(crate) sent: Vec<u8>,
    /// Producer id and first sequence.
    pub(crate) producer: Option<(i64, i32)>,
    pub(crate) epoch: i32,
}

impl StoredBatch {
    pub(crate) fn next(&self) -> i64 {
        self.base + self.timestamps.len() as i64
    }
}

/// One course of a log.
#[derive(Clone, Debug, Default)]
pub(crate) struct Timeline {
    pub(crate) start: i64,
    pub(crate) batches: Vec<Arc<StoredBatch>>,
}

impl Timeline {
    pub(crate) fn end(&self) -> i64 {
        self.batches.last().map_or(self.start, |batch| batch.next())
    }

    /// The beginning of this course that lies below `end`, which is a batch's.
    pub(crate) fn prefix(&self, end: i64) -> Timeline {
        let mut batches = self.batches.clone();
        batches.retain(|batch| batch.next() <= end);
        Timeline {
            start: self.start.min(end),
            batches,
        }
    }

    /// The next sequence of each producer.
    pub(crate) fn sequences(&self) -> BTreeMap<i64, i32> {
        let next = |batch: &Arc<StoredBatch>| {
            let (id, sequence) = batch.producer?;
            Some((id, sequence + batch.timestamps.len() as i32))
        };
        self.batches.iter().filter_map(next).collect()
    }

    /// The batch that begins at `offset`.
    pub(crate) fn at(&self, offset: i64) -> Option<&Arc<StoredBatch>> {
        let index = self
            .batches
            .binary_search_by_key(&offset, |batch| batch.base)
            .ok()?;
        self.batches.get(index)
    }
}

/// Whether a partition is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Existence {
    /// Being created: it may be there, empty.
    Beginning,
    There,
    /// Being deleted: it may be there, as it was.
    Ending,
}

/// One partition from its creation to its deletion.
#[derive(Debug)]
pub(crate) struct History {
    pub(crate) existence: Existence,
    /// What may be found; the last is what the engine works on.
    pub(crate) timelines: Vec<Timeline>,
    /// Everything below was appended with success: a kill does not lose it.
    pub(crate) written: i64,
    /// Everything below was said to be on the medium: a power cut does not lose it.
    pub(crate) synced: Arc<AtomicI64>,
    /// A reader has seen everything below. Counts as synced where records are synced before they are read.
    pub(crate) served: i64,
    /// The log starts within these, both inclusive.
    pub(crate) log_start: (i64, i64),
    /// The highest log start ever: producers whose last batch lies below may be forgotten, though the log may
    /// start lower again after a crash.
    pub(crate) forgotten: i64,
    /// The high watermark was checkpointed here, and never lay higher than the second.
    pub(crate) high_watermark: (i64, i64),
    /// The log is being emptied: what is left of the old records may have gaps.
    pub(crate) is_emptying: bool,
    pub(crate) epoch: i32,
    /// The next sequence of each producer.
    pub(crate) sequences: BTreeMap<i64, i32>,
    /// Whether some operation on it has failed.
    pub(crate) has_failed: bool,
}

impl History {
    pub(crate) fn new() -> History {
        History {
            existence: Existence::Beginning,
            timelines: vec![Timeline::default()],
            written: 0,
            synced: Arc::new(AtomicI64::new(0)),
            served: 0,
            log_start: (0, 0),
            forgotten: 0,
            high_watermark: (0, 0),
            is_emptying: false,
            epoch: 3,
            sequences: BTreeMap::new(),
            has_failed: false,
        }
    }

    pub(crate) fn current(&self) -> &Timeline {
        self.timelines.last().expect("there is always one")
    }

    pub(crate) fn current_mut(&mut self) -> &mut Timeline {
        self.timelines.last_mut().expect("there is always one")
    }

    pub(crate) fn end(&self) -> i64 {
        self.current().end()
    }

    pub(crate) fn synced(&self) -> i64 {
        self.synced.load(Ordering::Relaxed)
    }

    pub(crate) fn note_synced(&self, end: i64) {
        self.synced.fetch_max(end, Ordering::Relaxed);
    }

    /// Nothing at or above `end` is promised any more. Sets a new mark, so that a completion that is late
    /// changes nothing.
    pub(crate) fn lower_to(&mut self, end: i64) {
        self.synced = Arc::new(AtomicI64::new(self.synced().min(end)));
        self.written = self.written.min(end);
        self.served = self.served.min(end);
        self.high_watermark.0 = self.high_watermark.0.min(end);
        self.log_start.0 = self.log_start.0.min(end);
        self.forgotten = self.forgotten.min(end);
    }

    /// What was found after a crash is what there is from now on.
    pub(crate) fn adopt(&mut self, timeline: Timeline, start: i64, high_watermark: i64) {
        let end = timeline.end();
        self.sequences = timeline.sequences();
        self.existence = Existence::There;
        self.timelines = vec![timeline];
        self.lower_to(end);
        self.written = end;
        self.log_start = (self.log_start.0, start);
        self.high_watermark = (self.high_watermark.0, self.high_watermark.1.max(high_watermark));
        self.is_emptying = false;
        self.epoch += 1;
    }
}

/// All partitions.
#[derive(Debug, Default)]
pub(crate) struct Model {
    pub(crate) logs: BTreeMap<TopicPartition, History>,
}

impl Model {
    pub(crate) fn of(&self, partition: &TopicPartition) -> &History {
        &self.logs[partition]
    }

    pub(crate) fn of_mut(&mut self, partition: &TopicPartition) -> &mut History {
        self.logs
            .get_mut(partition)
            .expect("the script uses partitions that it created")
    }
}
