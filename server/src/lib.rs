//! The Milena broker: a library; the binary `milena` is in `tools`.
//!
//! The life of a request: `network` reads a frame on a lane, `handlers` decodes it with `protocol`, calls one domain
//! module and encodes the answer. `docs/architecture.md` has the import law; `tools/tests/tidy.rs` keeps it.

pub mod admin;
pub mod adoption;
pub mod broker;
pub mod client;
pub mod cluster;
pub mod config;
pub mod controller;
pub mod coordination;
pub mod error;
pub mod export_znodes;
pub mod fetch_session;
pub mod group;
pub mod handlers;
pub mod logging;
pub mod metadata_cache;
pub mod network;
mod planted;
pub mod protocol;
pub mod replication;

#[cfg(test)]
mod simulation;
#[cfg(test)]
pub(crate) mod test_cluster;
