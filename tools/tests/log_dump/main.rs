//! `milena log-dump` beyond Kafka's tool: directories, JSON, summaries, filters, following, comparison of replicas.
//!
//! The files are made here; `MILENA_LOG_DUMP_DIRS=dir:dir` names log directories of a real broker, over which the
//! printers are compared and the filters tried as well.

#![expect(
    clippy::unwrap_used,
    reason = "in helpers as in the tests themselves: it fails the test"
)]

mod agreement;
mod damage;
mod diff;
mod filters;
mod fixture;
mod follow;
mod repair;
