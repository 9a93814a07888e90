//! The messages, one file per family of APIs. Each file opens with a diary of its versions.
//!
//! Names of structs and fields are those of Kafka's message definitions. Of a field, the declaration gives
//! type, versions and default; its comment gives unit and meaning. An `error_code` is a number of
//! `ErrorCode`, 0 when all went well; a `throttle_time_ms` is how long in milliseconds the broker held the
//! answer back, or asks the client to wait, because a quota was exceeded; a `partition_index` counts from 0;
//! `authorized_operations` have a bit for each operation, and are `i32::MIN` when nobody asked for them.

pub mod acls;
pub mod alter_isr;
pub mod api_versions;
pub mod configs;
pub mod consumer_protocol;
pub mod controller_commands;
pub mod delete_records;
pub mod features;
pub mod fetch;
pub mod find_coordinator;
pub mod group_membership;
pub mod groups;
pub mod incremental_alter_configs;
pub mod leader_epochs;
pub mod list_offsets;
pub mod log_dirs;
pub mod metadata;
pub mod offsets;
pub mod produce;
pub mod producer_ids;
pub mod reassignments;
pub mod topics;
pub mod transaction_markers;

pub use acls::*;
pub use alter_isr::*;
pub use api_versions::*;
pub use configs::*;
pub use consumer_protocol::{ConsumerProtocolAssignment, ConsumerProtocolSubscription};
pub use controller_commands::*;
pub use delete_records::*;
pub use features::*;
pub use fetch::*;
pub use find_coordinator::*;
pub use group_membership::*;
pub use groups::*;
pub use incremental_alter_configs::{IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse};
pub use leader_epochs::*;
pub use list_offsets::*;
pub use log_dirs::*;
pub use metadata::*;
pub use offsets::*;
pub use produce::*;
pub use producer_ids::*;
pub use reassignments::*;
pub use topics::*;
pub use transaction_markers::*;
