//! `DescribeConfigs` (key 32), `AlterConfigs` (33): settings of topics and brokers. `IncrementalAlterConfigs`
//! has a file of its own, since Kafka gives its parts the same names.
//!
//! `DescribeConfigs`: 1 can tell what a setting falls back to, and tells the source in place of a mere mark
//! for defaults (KIP-226); 2 changes nothing; 3 can add documentation, and tells the type (KIP-569). None is
//! flexible.
//!
//! `AlterConfigs`: 1 changes nothing. None is flexible.
//!
//! A `resource_type` is 2 for a topic, 4 for a broker, 8 for a broker's loggers. Sources: the four
//! definitions of those names.

use std::borrow::Cow;

use crate::protocol::schema::{Array, message};

message! {
    /// Asks for settings.
    pub struct DescribeConfigsRequest<'a> (DescribeConfigs, versions 0..=3) {
        resources: Array<'a, DescribeConfigsResource<'a>> [0..],
        include_synonyms: bool [1..],
        include_documentation: bool [3..],
    }

    /// What to tell of one resource.
    pub struct DescribeConfigsResource<'a> {
        resource_type: i8 [0..],
        resource_name: Cow<'a, str> [0..],
        /// Names of settings; null for all.
        configuration_keys: Option<Array<'a, Cow<'a, str>>> [0..],
    }
}

message! {
    /// Tells settings.
    pub struct DescribeConfigsResponse<'a> (DescribeConfigs, versions 0..=3) {
        throttle_time_ms: i32 [0..],
        results: Array<'a, DescribeConfigsResult<'a>> [0..],
    }

    /// The settings of one resource.
    pub struct DescribeConfigsResult<'a> {
        error_code: i16 [0..],
        error_message: Option<Cow<'a, str>> [0..],
        resource_type: i8 [0..],
        resource_name: Cow<'a, str> [0..],
        configs: Array<'a, DescribeConfigsResourceResult<'a>> [0..],
    }

    /// One setting.
    pub struct DescribeConfigsResourceResult<'a> {
        name: Cow<'a, str> [0..],
        /// Null when it is sensitive, or not set.
        value: Option<Cow<'a, str>> [0..],
        read_only: bool [0..],
        /// Whether nobody has set it; to be left false from version 1 on, which has the source.
        is_default: bool [0..=0],
        /// 1: the topic; 2: the broker, dynamically; 3: all brokers, dynamically; 4: the broker's file; 5:
        /// default; 6: the broker's loggers, dynamically; 0: unknown.
        config_source: i8 [1.., ignorable] = -1,
        is_sensitive: bool [0..],
        /// All sources in which it is set, the one that counts first.
        synonyms: Array<'a, DescribeConfigsSynonym<'a>> [1.., ignorable],
        /// 1: boolean; 2: string; 3: int; 4: short; 5: long; 6: double; 7: list; 8: class; 9: password; 0:
        /// unknown.
        config_type: i8 [3.., ignorable],
        documentation: Option<Cow<'a, str>> [3.., ignorable],
    }

    /// One source of a setting.
    pub struct DescribeConfigsSynonym<'a> {
        name: Cow<'a, str> [1..],
        value: Option<Cow<'a, str>> [1..],
        /// As `config_source`.
        source: i8 [1..],
    }
}

message! {
    /// Asks to replace all settings of resources.
    pub struct AlterConfigsRequest<'a> (AlterConfigs, versions 0..=1) {
        resources: Array<'a, AlterConfigsResource<'a>> [0..],
        /// Whether to check the request and change nothing.
        validate_only: bool [0..],
    }

    /// All settings that one resource is to have.
    pub struct AlterConfigsResource<'a> {
        resource_type: i8 [0..],
        resource_name: Cow<'a, str> [0..],
        configs: Array<'a, AlterableConfig<'a>> [0..],
    }

    /// One setting.
    pub struct AlterableConfig<'a> {
        name: Cow<'a, str> [0..],
        value: Option<Cow<'a, str>> [0..],
    }
}

message! {
    /// Says which resources have them now.
    pub struct AlterConfigsResponse<'a> (AlterConfigs, versions 0..=1) {
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
