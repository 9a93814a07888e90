//! Steps of a script that take records away: retention as time passes, DeleteRecords, and a follower that truncates.
//!
//! The log start may move before the step is over, and must lie where the log says once it is: between the two
//! the model allows both. What a truncation cuts is promised to nobody from the moment it is asked for.

use std::time::Duration;

use milena_engine::log::LogStartOffsetIncrementReason;
use milena_engine::units::{Offset, TopicPartition};

use super::Script;
use crate::check::Violation;
use crate::model::Timeline;
use crate::node::{FOLLOWER, partition};

impl Script {
    pub(super) fn pass(&mut self) -> Result<(), Violation> {
        let seconds = *self.random.pick(&[1, 3, 6, 6, 31, 31, 62, 62, 301]);
        for history in self.model.logs.values_mut() {
            // Retention may raise it so far.
            history.log_start.1 = history.log_start.1.max(history.high_watermark.1);
        }
        if let Some(node) = &self.node {
            node.pass(Duration::from_secs(seconds));
        }
        self.settle_log_starts();
        Ok(())
    }

    pub(super) fn delete_records(&mut self, partition: &TopicPartition) -> Result<(), Violation> {
        let Some(log) = self.log(partition) else {
            return Ok(());
        };
        let (from, to) = (log.log_start_offset().get(), log.high_watermark().get());
        let start = from + self.random.below((to - from).max(0) as u64 + 1) as i64;
        let history = self.model.of_mut(partition);
        history.log_start.1 = history.log_start.1.max(start);
        history.forgotten = history.forgotten.max(start);
        let moved =
            log.advance_log_start_offset(Offset(start), LogStartOffsetIncrementReason::ClientRecordDeletion);
        if let Err(error) = moved {
            return self.failed(partition, &format!("DeleteRecords failed: {error}"));
        }
        if self.random.chance(2) {
            let history = self.model.of_mut(partition);
            // Retention by size may raise it further.
            history.log_start.1 = history.log_start.1.max(history.high_watermark.1);
            if let Err(error) = log.delete_old_segments() {
                return self.failed(partition, &format!("retention failed: {error}"));
            }
        }
        self.settle_log_starts();
        Ok(())
    }

    /// The step that moves log starts is over, unless the power is.
    fn settle_log_starts(&mut self) {
        if !self.disk.is_powered() {
            return;
        }
        let Some(node) = &self.node else { return };
        for (partition, history) in &mut self.model.logs {
            if let Some(log) = node.log(partition) {
                history.log_start.1 = log.log_start_offset().get();
                history.forgotten = history.forgotten.max(history.log_start.1);
            }
        }
    }

    /// As a follower that learns of another course.
    pub(super) fn truncate(&mut self) -> Result<(), Violation> {
        let partition = partition(FOLLOWER);
        let Some(log) = self.log(&partition) else {
            return Ok(());
        };
        if !log.directory().is_online() {
            return Ok(());
        }
        let start = log.log_start_offset().get();
        let history = self.model.of_mut(&partition);
        let timeline = history.current().clone();
        let ends: Vec<i64> = timeline
            .batches
            .iter()
            .map(|batch| batch.base)
            .filter(|base| *base >= start)
            .collect();
        if ends.is_empty() {
            return Ok(());
        }
        let newest = ends.len().saturating_sub(8);
        let end = *self.random.pick(&ends[newest..]);
        history.lower_to(end);
        history.timelines.push(timeline.prefix(end));
        history.epoch += 1;
        let node = self.node.as_ref().expect("there is a log");
        let truncated = node.manager.truncate_to(&[(partition.clone(), Offset(end))]);
        let history = self.model.of_mut(&partition);
        history.sequences = timeline.prefix(end).sequences();
        match truncated {
            Ok(()) if self.disk.is_powered() => {
                history.timelines.remove(0);
            }
            Ok(()) => {}
            Err(error) => self.failed(&partition, &format!("a truncation failed: {error}"))?,
        }
        Ok(())
    }

    /// As a follower whose leader has nothing of what it has.
    pub(super) fn empty(&mut self) -> Result<(), Violation> {
        if !self.random.chance(3) {
            return Ok(());
        }
        let partition = partition(FOLLOWER);
        let Some(log) = self.log(&partition) else {
            return Ok(());
        };
        if !log.directory().is_online() {
            return Ok(());
        }
        let start = log.log_end_offset().get() + self.random.below(20) as i64;
        let history = self.model.of_mut(&partition);
        history.lower_to(0);
        history.is_emptying = true;
        history.log_start.1 = start;
        history.high_watermark.1 = history.high_watermark.1.max(start);
        history.sequences.clear();
        history.epoch += 1;
        history.timelines.push(Timeline {
            start,
            batches: Vec::new(),
        });
        let node = self.node.as_ref().expect("there is a log");
        let emptied = node
            .manager
            .truncate_fully_and_start_at(&partition, Offset(start));
        match emptied {
            Ok(()) if self.disk.is_powered() => {
                let history = self.model.of_mut(&partition);
                history.timelines.remove(0);
                history.is_emptying = false;
                history.written = start;
                history.note_synced(start);
                history.log_start.0 = 0;
            }
            Ok(()) => {}
            Err(error) => self.failed(&partition, &format!("an emptying failed: {error}"))?,
        }
        Ok(())
    }
}
