//! The storage engine of Milena: Kafka 2.7.2's log directories, read and written in place.
//!
//! It knows bytes, offsets and files. It knows no sockets, requests, brokers or ZooKeeper, and names no async runtime.
//!
//! What it promises:
//! - **Order.** Records of one log get consecutive offsets in the order in which `append` was called.
//! - **Durability.** A record is in the page cache when `append` returns; it is on the medium when the log's
//!   synced end has passed it. `docs/durability.md` says which of the two an acknowledgement means under which
//!   setting.
//! - **Finality.** The first failed write or sync takes the log directory offline for good; it is never retried.
//! - **Bytes.** A producer's bytes are kept as sent unless the topic's settings demand a rewrite.
//!
//! The modules, each of which may use those before it: [`units`], [`error`], [`config`], [`io`], [`checkpoint`],
//! [`record_batch`], [`log`], [`log_manager`].

pub mod checkpoint;
pub mod config;
pub mod error;
pub mod io;
pub mod log;
pub mod log_manager;
pub mod record_batch;
pub mod units;
