//! The messages, one file per family of APIs. Each file opens with a diary of its versions.
//!
//! Names of structs and fields are those of Kafka's message definitions. Of a field, the declaration gives
//! type, versions and default; its comment gives unit and meaning. An `error_code` is a number of
//! `ErrorCode`, 0 when all went well; a `throttle_time_ms` is how long in milliseconds the broker held the
//! answer back, or asks the client to wait, because a quota was exceeded; a `partition_index` counts from 0.

pub mod api_versions;
pub mod fetch;
pub mod metadata;
pub mod produce;

pub use api_versions::*;
pub use fetch::*;
pub use metadata::*;
pub use produce::*;
