//! `FindCoordinator` (key 10): which broker coordinates this group or transactional id?
//!
//! Versions of the request: 0 knows groups only; 1 adds the kind of key; 2 changes nothing; 3 is flexible.
//! Versions of the response: 1 adds the throttle time and an error message; 3 is flexible.
//!
//! Sources: `FindCoordinatorRequest.json`, `FindCoordinatorResponse.json`.

use std::borrow::Cow;

use crate::protocol::schema::message;

message! {
    /// Asks for a coordinator.
    pub struct FindCoordinatorRequest<'a> (FindCoordinator, versions 0..=3, flexible 3..) {
        /// The group id or transactional id.
        key: Cow<'a, str> [0..],
        /// 0: group; 1: transactional id.
        key_type: i8 [1..],
    }
}

message! {
    /// Names the coordinator; id −1, an empty host and port −1 after an error.
    pub struct FindCoordinatorResponse<'a> (FindCoordinator, versions 0..=3, flexible 3..) {
        throttle_time_ms: i32 [1.., ignorable],
        error_code: i16 [0..],
        error_message: Option<Cow<'a, str>> [1.., ignorable],
        node_id: i32 [0..],
        host: Cow<'a, str> [0..],
        port: i32 [0..],
    }
}
