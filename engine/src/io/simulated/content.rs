//! The bytes of one simulated file: what its readers see, what the medium holds, and what lies between.
//!
//! A sector of 512 bytes is the unit that is written whole or not at all. Since the last sync a sector may
//! have had several contents, any of which the kernel may have written back; so each is kept (the newest
//! few, [`OLDER_MAX`]).
//!
//! Invariants:
//! - `live` and `durable` are equal in every sector that is neither dirty nor lost.
//! - A sector that was never on the medium is zeros there; so is everything beyond the durable length.
//! - Writes carry ascending sequence numbers; a sync covers those up to its own, and never undoes a later
//!   one.

use std::collections::{BTreeMap, BTreeSet};

use super::random::Random;

/// What a disk writes whole or not at all.
pub(super) const SECTOR_BYTES: usize = 512;

/// Earlier contents of a dirty sector that a power cut may choose from.
const OLDER_MAX: usize = 4;

type Sector = [u8; SECTOR_BYTES];

#[derive(Clone, Debug, Default)]
pub(super) struct Content {
    live: Vec<u8>,
    durable: Vec<u8>,
    durable_size: usize,
    dirty: BTreeMap<usize, Dirty>,
    /// Lengths since the last sync, with the sequence of their change; the last is that of `live`.
    sizes: Vec<(u64, usize)>,
    /// Clean for the kernel since a failed sync, yet not on the medium.
    lost: BTreeSet<usize>,
    synced: u64,
}

#[derive(Clone, Debug)]
struct Dirty {
    last_write: u64,
    /// Contents before the last write and after the last sync, oldest first.
    older: Vec<(u64, Box<Sector>)>,
}

/// What a sync will make durable: the state of the file when it was submitted.
#[derive(Debug)]
pub(super) struct Snapshot {
    sequence: u64,
    size: usize,
    sectors: Vec<(usize, Box<Sector>)>,
}

impl Content {
    pub(super) fn size(&self) -> usize {
        self.live.len()
    }

    pub(super) fn live(&self) -> &[u8] {
        &self.live
    }

    pub(super) fn durable(&self) -> &[u8] {
        &self.durable[..self.durable_size]
    }

    /// Whether a power cut could change anything.
    pub(super) fn is_clean(&self) -> bool {
        self.dirty.is_empty() && self.sizes.is_empty() && self.lost.is_empty()
    }

    pub(super) fn write(&mut self, sequence: u64, position: usize, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let end = position + bytes.len();
        for sector in position / SECTOR_BYTES..end.div_ceil(SECTOR_BYTES) {
            self.touch(sequence, sector);
        }
        if end > self.live.len() {
            self.live.resize(end, 0);
            self.sizes.push((sequence, end));
        }
        self.live[position..end].copy_from_slice(bytes);
    }

    pub(super) fn set_size(&mut self, sequence: u64, size: usize) {
        if size == self.live.len() {
            return;
        }
        for sector in size / SECTOR_BYTES..self.live.len().div_ceil(SECTOR_BYTES) {
            self.touch(sequence, sector);
        }
        self.live.resize(size, 0);
        self.sizes.push((sequence, size));
    }

    /// Notes that the sector is about to change.
    fn touch(&mut self, sequence: u64, sector: usize) {
        self.lost.remove(&sector);
        let before = sector_of(&self.live, sector);
        match self.dirty.get_mut(&sector) {
            Some(dirty) => {
                dirty.older.push((dirty.last_write, Box::new(before)));
                if dirty.older.len() > OLDER_MAX {
                    dirty.older.remove(0);
                }
                dirty.last_write = sequence;
            }
            None => {
                self.dirty.insert(
                    sector,
                    Dirty {
                        last_write: sequence,
                        older: Vec::new(),
                    },
                );
            }
        }
    }

    pub(super) fn snapshot(&self, sequence: u64) -> Snapshot {
        let sectors = self
            .dirty
            .keys()
            .map(|sector| (*sector, Box::new(sector_of(&self.live, *sector))))
            .collect();
        Snapshot {
            sequence,
            size: self.live.len(),
            sectors,
        }
    }

    /// A sync that did what it said.
    pub(super) fn commit(&mut self, snapshot: &Snapshot) {
        if snapshot.sequence < self.synced {
            return;
        }
        for (sector, bytes) in &snapshot.sectors {
            self.store(*sector, bytes);
        }
        self.set_durable_size(snapshot.size);
        self.settle(snapshot.sequence);
        self.sizes.retain(|(sequence, _)| *sequence > snapshot.sequence);
    }

    /// A sync that failed: each sector may have arrived; those that did not are forgotten by the kernel,
    /// which takes them for clean.
    pub(super) fn fail(&mut self, snapshot: &Snapshot, random: &mut Random) {
        if snapshot.sequence < self.synced {
            return;
        }
        for (sector, bytes) in &snapshot.sectors {
            let still_dirty = self
                .dirty
                .get(sector)
                .is_some_and(|dirty| dirty.last_write > snapshot.sequence);
            if random.coin() {
                self.store(*sector, bytes);
            } else if !still_dirty {
                self.lost.insert(*sector);
            }
        }
        self.settle(snapshot.sequence);
    }

    fn settle(&mut self, sequence: u64) {
        self.synced = sequence;
        self.dirty.retain(|_, dirty| {
            dirty.older.retain(|(written, _)| *written > sequence);
            dirty.last_write > sequence
        });
    }

    fn store(&mut self, sector: usize, bytes: &Sector) {
        let end = (sector + 1) * SECTOR_BYTES;
        if self.durable.len() < end {
            self.durable.resize(end, 0);
        }
        self.durable[end - SECTOR_BYTES..end].copy_from_slice(bytes);
    }

    fn set_durable_size(&mut self, size: usize) {
        if size < self.durable.len() {
            self.durable[size..].fill(0);
            self.durable.truncate(size.next_multiple_of(SECTOR_BYTES));
        } else {
            self.durable.resize(size, 0);
        }
        self.durable_size = size;
    }

    /// The kernel drops its pages: what a failed sync lost is gone for readers too.
    pub(super) fn evict(&mut self) {
        for sector in std::mem::take(&mut self.lost) {
            let stored = sector_of(&self.durable, sector);
            let start = sector * SECTOR_BYTES;
            if start < self.live.len() {
                let end = self.live.len().min(start + SECTOR_BYTES);
                self.live[start..end].copy_from_slice(&stored[..end - start]);
            }
        }
    }

    /// Turns a bit, on the medium and in memory; nothing beyond the end.
    pub(super) fn flip(&mut self, position: usize, mask: u8) {
        for bytes in [&mut self.live, &mut self.durable] {
            if let Some(byte) = bytes.get_mut(position) {
                *byte ^= mask;
            }
        }
    }

    /// What the medium holds after the power was cut: one of the permitted images.
    pub(super) fn after_power_cut(&self, random: &mut Random) -> Content {
        let mut image = Content {
            durable: self.durable.clone(),
            durable_size: self.durable_size,
            ..Content::default()
        };
        let style = random.below(5);
        let size = match style {
            // Nothing was written back.
            0 => self.durable_size,
            // Everything was.
            1 => {
                for sector in self.dirty.keys() {
                    image.store(*sector, &sector_of(&self.live, *sector));
                }
                self.live.len()
            }
            // In order up to some point, the length following the data.
            2 => {
                let count = usize::try_from(random.below(self.dirty.len() as u64 + 1)).unwrap_or(0);
                let mut reached = self.durable_size.min(self.live.len());
                for sector in self.dirty.keys().take(count) {
                    image.store(*sector, &sector_of(&self.live, *sector));
                    reached = reached.max(((sector + 1) * SECTOR_BYTES).min(self.live.len()));
                }
                reached
            }
            // Any of its contents for each sector, any length.
            _ => {
                for (sector, dirty) in &self.dirty {
                    let choice = random.below(dirty.older.len() as u64 + 2);
                    match usize::try_from(choice).unwrap_or(0).checked_sub(1) {
                        None => {}
                        Some(index) => match dirty.older.get(index) {
                            Some((_, bytes)) => image.store(*sector, bytes),
                            None => image.store(*sector, &sector_of(&self.live, *sector)),
                        },
                    }
                }
                self.any_size(random)
            }
        };
        image.set_durable_size(size);
        image.live = image.durable[..size].to_vec();
        image
    }

    fn any_size(&self, random: &mut Random) -> usize {
        if self.sizes.is_empty() {
            return self.durable_size;
        }
        let choice = random.below(self.sizes.len() as u64 + 3);
        let choice = usize::try_from(choice).unwrap_or(0);
        match choice.checked_sub(2) {
            None => self.durable_size,
            Some(0) => {
                // The length may follow the data as it is written back.
                let least = self.durable_size.min(self.live.len());
                let span = self.durable_size.max(self.live.len()) - least;
                let steps = random.below((span / SECTOR_BYTES) as u64 + 1);
                let size = least + usize::try_from(steps).unwrap_or(0) * SECTOR_BYTES;
                if size == least {
                    size
                } else {
                    size / SECTOR_BYTES * SECTOR_BYTES
                }
            }
            Some(index) => self.sizes[index - 1].1,
        }
    }
}

fn sector_of(bytes: &[u8], sector: usize) -> Sector {
    let mut copy = [0; SECTOR_BYTES];
    let start = sector * SECTOR_BYTES;
    if start < bytes.len() {
        let end = bytes.len().min(start + SECTOR_BYTES);
        copy[..end - start].copy_from_slice(&bytes[start..end]);
    }
    copy
}
