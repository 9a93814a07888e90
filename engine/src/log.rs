//! One partition's log: its segments in order, and what is known about them.

pub mod leader_epoch_cache;
pub mod producer_state;
