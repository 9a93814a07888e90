//! The controller: the one broker that decides who leads which partition, and tells the others.
//!
//! [`command`] has what it tells them.

pub mod command;
pub mod context;
pub mod election;
pub mod machine;
mod request_batch;
