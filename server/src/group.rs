//! GroupCoordinator: consumer groups and their committed offsets.
//!
//! Source: `kafka.coordinator.group` of 2.7.2; KIP-62, KIP-134, KIP-211, KIP-345, KIP-389, KIP-394, KIP-429, KIP-559.

pub mod config;
pub mod offset_store;
pub mod records;
pub mod requests;
pub mod state;
pub mod subscription;
