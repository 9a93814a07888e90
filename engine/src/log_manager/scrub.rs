//! The background scrub: reads what is there again, slowly, and checks the CRC of every batch.
//!
//! It goes through the partitions in the order of their names, in steps of [`STEP_SIZE_BYTES`], no faster
//! than `scrub_bytes_per_second`; a pass over everything is followed by a pause of `scrub_interval_ms`. The
//! partition that it is at is kept in `milena.scrub` of the first directory in use, so that restarts do not
//! keep it at the beginning for ever. A bad batch takes its partition out of service, durably.
//!
//! Kafka has nothing like it: there a batch that rotted is found by the consumer that gets it.

use std::ops::{Bound, RangeBounds};
use std::time::Duration;

use crate::log::ScrubCursor;
use crate::units::{Offset, TopicPartition};

use super::checkpoints::{Offsets, tolerate_full};
use super::{LogManager, millis};

/// From the start of the broker: time to start, to be idle, to be measured.
pub(super) const FIRST_DELAY: Duration = Duration::from_secs(15 * 60);
/// Read at once: some milliseconds of a slow disk.
const STEP_SIZE_BYTES: u64 = 1 << 20;
/// Between two writes of the position; a pass that is shorter writes none.
const SAVE_INTERVAL_MS: i64 = 60_000;

/// Where the scrub is.
#[derive(Debug)]
pub(super) struct Scrub {
    /// The saved position was looked up.
    is_resumed: bool,
    /// `None` between passes.
    position: Option<(TopicPartition, ScrubCursor)>,
    saved_at_ms: i64,
}

impl Scrub {
    pub(super) fn new() -> Scrub {
        Scrub {
            is_resumed: false,
            position: None,
            saved_at_ms: 0,
        }
    }
}

impl LogManager {
    /// Checks one step; returns when the next is due.
    pub(super) fn scrub_step(&self, now: Duration) -> Option<Duration> {
        let mut scrub = self.scrub.lock();
        if !scrub.is_resumed {
            scrub.is_resumed = true;
            scrub.saved_at_ms = millis(now);
            let saved = self.saved_scrub_position();
            scrub.position = saved.map(|partition| (partition, ScrubCursor::default()));
        }
        if scrub.position.is_none() {
            scrub.saved_at_ms = millis(now);
        }
        let at_hand = match scrub.position.take() {
            Some((partition, cursor)) if self.get(&partition).is_some() => Some((partition, cursor)),
            Some((gone, _)) => self.partition_after(Some(&gone)),
            None => self.partition_after(None),
        };
        let mut checked_bytes = 0;
        if let Some((partition, mut cursor)) = at_hand
            && let Some(log) = self.get(&partition)
        {
            let is_complete = match log.scrub(&mut cursor, STEP_SIZE_BYTES) {
                Ok(progress) => {
                    checked_bytes = progress.checked_bytes;
                    progress.is_complete
                }
                Err(error) => {
                    tracing::error!("the background scrub passes over {partition}: {error}");
                    self.note_out_of_service();
                    true
                }
            };
            scrub.position = if is_complete {
                self.partition_after(Some(&partition))
            } else {
                Some((partition, cursor))
            };
        }
        let is_finished = scrub.position.is_none();
        if is_finished || millis(now).saturating_sub(scrub.saved_at_ms) >= SAVE_INTERVAL_MS {
            scrub.saved_at_ms = millis(now);
            self.save_scrub_position(scrub.position.as_ref().map(|(partition, _)| partition));
        }
        if is_finished {
            return now.checked_add(Duration::from_millis(self.config.scrub_interval_ms));
        }
        let pace = checked_bytes as f64 / self.config.scrub_bytes_per_second.max(1) as f64;
        Some(now + Duration::from_secs_f64(pace))
    }

    /// The beginning of the log that follows by name.
    fn partition_after(&self, partition: Option<&TopicPartition>) -> Option<(TopicPartition, ScrubCursor)> {
        let range = (
            partition.map_or(Bound::Unbounded, Bound::Excluded),
            Bound::Unbounded,
        );
        let logs = self.logs.read();
        let serving = logs
            .iter()
            .filter(|(_, hosted)| hosted.log.check_serving().is_ok());
        let next = serving
            .map(|(partition, _)| partition)
            .filter(|found| range.contains(*found))
            .min();
        next.map(|partition| (partition.clone(), ScrubCursor::default()))
    }

    fn saved_scrub_position(&self) -> Option<TopicPartition> {
        self.online_homes()
            .find_map(|home| home.checkpoints.scrub.all().into_keys().next())
    }

    fn save_scrub_position(&self, partition: Option<&TopicPartition>) {
        let Some(home) = self.online_homes().next() else {
            return;
        };
        let entries: Offsets = partition
            .map(|partition| (partition.clone(), Offset::ZERO))
            .into_iter()
            .collect();
        if let Err(error) = home.checkpoints.scrub.write(&*self.io, entries) {
            tolerate_full(&home.directory, &error);
        }
    }
}
