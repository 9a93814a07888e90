//! The thread that loads partitions: begun by the first load that is asked for, ended with the last.
//!
//! It reads a partition in chunks of `offsets.load.buffer.size`, as long as its machine still wants the load; what the records
//! mean is [`super::loading`]'s. A load that cannot be done is told to the machine.

use std::collections::VecDeque;

use milena_engine::units::Offset;

use super::loading::PartitionLoader;
use super::machine::Input;
use super::{AppendFailure, GroupCoordinator};

/// Partitions to be loaded, with their epochs.
#[derive(Debug, Default)]
pub(super) struct Loads {
    queue: VecDeque<(i32, i32)>,
    is_running: bool,
}

impl GroupCoordinator {
    pub(super) fn load(&self, partition: i32, epoch: i32) {
        {
            let mut loads = self.loads.lock();
            loads.queue.push_back((partition, epoch));
            if loads.is_running {
                return;
            }
            loads.is_running = true;
        }
        let me = self.me.clone();
        let run = move || {
            if let Some(me) = me.upgrade() {
                me.run_loads();
            }
        };
        if let Err(error) = (self.surroundings.run_apart)(Box::new(run)) {
            let queue = {
                let mut loads = self.loads.lock();
                loads.is_running = false;
                std::mem::take(&mut loads.queue)
            };
            for (partition, epoch) in queue {
                let failure = AppendFailure::Other(format!("no thread to load with: {error}"));
                self.step(partition, Input::LoadFailed { epoch, failure });
            }
        }
    }

    fn run_loads(&self) {
        loop {
            let (partition, epoch) = {
                let mut loads = self.loads.lock();
                match loads.queue.pop_front() {
                    Some(load) => load,
                    None => {
                        loads.is_running = false;
                        return;
                    }
                }
            };
            let input = match self.load_partition(partition, epoch) {
                Ok(loader) => Input::Loaded {
                    epoch,
                    partition: Box::new(loader.finish()),
                },
                Err(failure) => Input::LoadFailed { epoch, failure },
            };
            self.step(partition, input);
        }
    }

    fn load_partition(&self, partition: i32, epoch: i32) -> Result<PartitionLoader, AppendFailure> {
        let mut loader = PartitionLoader::new();
        let mut from = Offset::ZERO;
        while self.slot(partition).state.lock().machine.is_loading_in(epoch) {
            let chunk = self
                .log
                .read(partition, from, self.config.offsets_load_buffer_size_bytes)?;
            if chunk.bytes.is_empty() {
                break;
            }
            let next = loader
                .replay(&chunk.bytes, from)
                .map_err(|error| AppendFailure::Other(error.to_string()))?;
            from = next.ok_or_else(|| AppendFailure::Other(format!("no whole batch at offset {from}")))?;
            if from >= chunk.log_end_offset {
                break;
            }
        }
        Ok(loader)
    }
}
