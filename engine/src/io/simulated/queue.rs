//! Operations submitted to a simulated disk and not run yet.

use std::sync::mpsc::{Sender, channel};

use parking_lot::Mutex;

use super::content::Snapshot;
use super::random::Random;
use super::tree::NodeId;
use super::{Completions, SimulatedDisk};
use crate::io::{Completion, Operation};

pub(super) struct Task {
    pub(super) operation: Operation,
    /// For a sync: the file as it was when the operation was submitted.
    pub(super) snapshot: Option<(NodeId, Snapshot)>,
    pub(super) done: Completion,
}

pub(super) type Listener = Box<dyn Fn() + Send>;

pub(super) struct Queue {
    state: Mutex<QueueState>,
}

struct QueueState {
    mode: Completions,
    waiting: Vec<Task>,
    /// Hears of each that waits.
    listener: Option<Listener>,
    /// To the thread that completes, once there is one. It ends with the disk.
    thread: Option<Sender<(SimulatedDisk, Task)>>,
}

impl Queue {
    pub(super) fn new(mode: Completions) -> Queue {
        Queue {
            state: Mutex::new(QueueState {
                mode,
                waiting: Vec::new(),
                listener: None,
                thread: None,
            }),
        }
    }

    pub(super) fn mode(&self) -> Completions {
        self.state.lock().mode
    }

    pub(super) fn set_mode(&self, mode: Completions) {
        self.state.lock().mode = mode;
    }

    pub(super) fn set_listener(&self, listener: Listener) {
        self.state.lock().listener = Some(listener);
    }

    pub(super) fn waiting(&self) -> usize {
        self.state.lock().waiting.len()
    }

    pub(super) fn push(&self, disk: &SimulatedDisk, task: Task) {
        let mut state = self.state.lock();
        match state.mode {
            Completions::Manual => {
                state.waiting.push(task);
                if let Some(listener) = &state.listener {
                    listener();
                }
            }
            Completions::Automatic => {
                let thread = state.thread.get_or_insert_with(|| {
                    let (sender, receiver) = channel::<(SimulatedDisk, Task)>();
                    std::thread::spawn(move || {
                        while let Ok((disk, task)) = receiver.recv() {
                            disk.run(task);
                        }
                    });
                    sender
                });
                thread
                    .send((disk.clone(), task))
                    .expect("a completion does not panic, so the thread lives");
            }
        }
    }

    /// Any of the waiting tasks.
    pub(super) fn take(&self, random: &mut Random) -> Option<Task> {
        let mut state = self.state.lock();
        if state.waiting.is_empty() {
            return None;
        }
        let index = random.below(state.waiting.len() as u64);
        Some(state.waiting.swap_remove(usize::try_from(index).unwrap_or(0)))
    }
}
