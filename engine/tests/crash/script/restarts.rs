//! Restarts inside a script: a clean stop, a kill, a power cut. What the start finds is checked against the
//! model, which goes on with it.

use milena_engine::units::TopicPartition;

use super::Script;
use crate::check::{self, Crash, Violation};
use crate::model::Existence;
use crate::node::{PASSING, TOPICS, partition};

impl Script {
    pub(super) fn stop(&mut self) -> Result<(), Violation> {
        let Some(node) = &self.node else { return Ok(()) };
        if !self.settings.restarts {
            return Ok(());
        }
        let report = node.manager.shutdown();
        if !report.unclean.is_empty() {
            self.tolerate(&format!("a clean stop: {:?}", report.unclean))?;
        } else if self.disk.is_powered() {
            for history in self.model.logs.values_mut() {
                history.note_synced(history.written);
            }
        }
        self.node = None;
        self.start()?;
        self.look_after()
    }

    pub(super) fn kill(&mut self) -> Result<(), Violation> {
        if !self.settings.restarts || !self.disk.is_powered() {
            return Ok(());
        }
        self.harvest();
        let image = self.disk.process_kill();
        self.node = None;
        self.disk = image;
        self.arm();
        self.start()?;
        self.look_after()
    }

    pub(super) fn cut(&mut self) -> Result<(), Violation> {
        if !self.settings.restarts || !self.disk.is_powered() {
            return Ok(());
        }
        self.harvest();
        let image = self.disk.power_cut(self.random.next());
        self.pending = Crash::PowerCut;
        self.spent += self.disk.op_count();
        self.node = None;
        self.disk = image;
        self.arm();
        self.start()?;
        self.look_after()
    }

    /// Checks what a start inside the script found, and goes on with it.
    fn look_after(&mut self) -> Result<(), Violation> {
        let Some(node) = &self.node else { return Ok(()) };
        if !self.disk.is_powered() {
            return Ok(());
        }
        let found = check::logs(node, &self.model, self.pending)?;
        self.pending = Crash::Kill;
        let adopted: Vec<TopicPartition> = found.logs.keys().cloned().collect();
        for (partition, log) in found.logs {
            let high_watermark = log.high_watermark;
            self.model
                .of_mut(&partition)
                .adopt(log.timeline, log.start, high_watermark);
        }
        let gone: Vec<TopicPartition> = self
            .model
            .logs
            .keys()
            .filter(|partition| !adopted.contains(partition))
            .cloned()
            .collect();
        for partition in gone {
            if found.out_of_service.contains(&partition) {
                // Somebody gives it up.
                self.model.of_mut(&partition).existence = Existence::Ending;
                let node = self.node.as_ref().expect("it was looked at above");
                let deleted = node.manager.delete(&partition);
                if !self.disk.is_powered() {
                    self.pending = Crash::PowerCut;
                    return Ok(());
                }
                deleted.map_err(|error| format!("{partition} cannot be given up: {error}"))?;
            }
            self.model.logs.remove(&partition);
        }
        for topic in TOPICS {
            if topic != PASSING && !self.model.logs.contains_key(&partition(topic)) {
                self.create(topic)?;
            }
        }
        Ok(())
    }
}
