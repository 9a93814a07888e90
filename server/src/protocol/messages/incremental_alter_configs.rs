//! `IncrementalAlterConfigs` (key 44): change single settings and leave the others (KIP-339).
//!
//! Version 1 is flexible. A `resource_type` is as in `configs`. Sources:
//! `IncrementalAlterConfigsRequest.json`, `IncrementalAlterConfigsResponse.json`.

use std::borrow::Cow;

use crate::protocol::schema::{Array, message};

message! {
    /// Asks to change settings.
    pub struct IncrementalAlterConfigsRequest<'a> (IncrementalAlterConfigs, versions 0..=1, flexible 1..) {
        resources: Array<'a, AlterConfigsResource<'a>> [0..],
        /// Whether to check the request and change nothing.
        validate_only: bool [0..],
    }

    /// The changes of one resource.
    pub struct AlterConfigsResource<'a> {
        resource_type: i8 [0..],
        resource_name: Cow<'a, str> [0..],
        configs: Array<'a, AlterableConfig<'a>> [0..],
    }

    /// One change.
    pub struct AlterableConfig<'a> {
        name: Cow<'a, str> [0..],
        /// 0: set; 1: delete; 2: append to a list; 3: take out of a list.
        config_operation: i8 [0..],
        value: Option<Cow<'a, str>> [0..],
    }
}

message! {
    /// Says which resources are changed.
    pub struct IncrementalAlterConfigsResponse<'a> (IncrementalAlterConfigs, versions 0..=1, flexible 1..) {
        throttle_time_ms: i32 [0..],
        responses: Array<'a, AlterConfigsResourceResponse<'a>> [0..],
    }

    /// Result for one resource.
    pub struct AlterConfigsResourceResponse<'a> {
        error_code: i16 [0..],
        error_message: Option<Cow<'a, str>> [0..],
        resource_type: i8 [0..],
        resource_name: Cow<'a, str> [0..],
    }
}
