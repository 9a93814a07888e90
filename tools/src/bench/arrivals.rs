//! End-to-end latencies: what producers know of a batch (when its records started) and what readers know (when it came)
//! meet by its offset. A pure machine for one partition.
//!
//! Either may be first: an acknowledgement can come after the reader has the records. A batch is forgotten once it is
//! acknowledged and all readers have it, so that memory holds what is under way.

use std::collections::BTreeMap;

use parking_lot::Mutex;

use super::schedule::Starts;

/// A batch whose latencies are to be noted: when its records started, how many there are, and when they came.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Met {
    pub(crate) starts: Starts,
    pub(crate) records: u32,
    pub(crate) came_ns: u64,
}

#[derive(Debug, Default)]
struct Batch {
    acknowledged: Option<(Starts, u32)>,
    /// How many readers have it.
    readers: u32,
    /// Arrivals before the acknowledgement.
    came_ns: Vec<u64>,
}

/// One partition's. See the module.
#[derive(Debug, Default)]
struct Partition(BTreeMap<i64, Batch>);

impl Partition {
    fn acknowledged(&mut self, base_offset: i64, starts: Starts, records: u32, readers: u32) -> Vec<Met> {
        let batch = self.0.entry(base_offset).or_default();
        batch.acknowledged = Some((starts, records));
        let met = std::mem::take(&mut batch.came_ns).into_iter().map(|came_ns| Met {
            starts,
            records,
            came_ns,
        });
        let met = met.collect();
        self.forget(base_offset, readers);
        met
    }

    fn arrived(&mut self, base_offset: i64, came_ns: u64, readers: u32) -> Option<Met> {
        let batch = self.0.entry(base_offset).or_default();
        batch.readers += 1;
        let met = match batch.acknowledged {
            Some((starts, records)) => Some(Met {
                starts,
                records,
                came_ns,
            }),
            None => {
                batch.came_ns.push(came_ns);
                None
            }
        };
        self.forget(base_offset, readers);
        met
    }

    fn forget(&mut self, base_offset: i64, readers: u32) {
        let done = |batch: &Batch| batch.acknowledged.is_some() && batch.readers >= readers;
        if self.0.get(&base_offset).is_some_and(done) {
            self.0.remove(&base_offset);
        }
    }
}

/// All partitions, shared by producers and readers.
#[derive(Debug)]
pub(crate) struct Arrivals {
    partitions: Vec<Mutex<Partition>>,
    /// Who reads each partition.
    readers: u32,
}

impl Arrivals {
    pub(crate) fn new(partitions: usize, readers: u32) -> Arrivals {
        Arrivals {
            partitions: (0..partitions).map(|_| Mutex::default()).collect(),
            readers,
        }
    }

    /// A producer was told where its records are; those that readers had already.
    pub(crate) fn acknowledged(
        &self,
        partition: usize,
        base_offset: i64,
        starts: Starts,
        records: u32,
    ) -> Vec<Met> {
        let mut partition = self.partitions[partition].lock();
        partition.acknowledged(base_offset, starts, records, self.readers)
    }

    /// A reader has a batch.
    pub(crate) fn arrived(&self, partition: usize, base_offset: i64, came_ns: u64) -> Option<Met> {
        let mut partition = self.partitions[partition].lock();
        partition.arrived(base_offset, came_ns, self.readers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STARTS: Starts = Starts {
        first_ns: 100,
        gap_ns: 0.0,
    };

    fn met(came_ns: u64) -> Met {
        Met {
            starts: STARTS,
            records: 5,
            came_ns,
        }
    }

    #[test]
    fn acknowledgement_and_arrivals_meet_in_any_order_and_are_forgotten() {
        let mut partition = Partition::default();
        assert_eq!(partition.arrived(0, 150, 2), None);
        assert_eq!(partition.acknowledged(0, STARTS, 5, 2), [met(150)]);
        assert_eq!(partition.arrived(0, 170, 2), Some(met(170)));
        assert!(partition.0.is_empty());

        assert_eq!(partition.acknowledged(5, STARTS, 5, 2), []);
        assert_eq!(partition.arrived(5, 200, 2), Some(met(200)));
        assert_eq!(partition.arrived(5, 201, 2), Some(met(201)));
        assert!(partition.0.is_empty());

        assert_eq!(partition.arrived(10, 300, 2), None);
        assert_eq!(partition.arrived(10, 301, 2), None);
        assert_eq!(partition.acknowledged(10, STARTS, 5, 2), [met(300), met(301)]);
        assert!(partition.0.is_empty());
    }

    #[test]
    fn acknowledgements_of_several_producers_may_come_out_of_order() {
        let mut partition = Partition::default();
        assert_eq!(partition.acknowledged(5, STARTS, 5, 1), []);
        assert_eq!(partition.arrived(0, 7, 1), None);
        assert_eq!(partition.arrived(5, 8, 1), Some(met(8)));
        assert_eq!(partition.acknowledged(0, STARTS, 5, 1), [met(7)]);
        assert!(partition.0.is_empty());
    }
}
