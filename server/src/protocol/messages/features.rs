//! `UpdateFeatures` (key 57): raise or lower the version levels of features that the whole cluster agrees on (KIP-584).
//!
//! Sources: `UpdateFeaturesRequest.json`, `UpdateFeaturesResponse.json`.

use std::borrow::Cow;

use crate::protocol::schema::{Array, message};

message! {
    /// Asks for other levels.
    pub struct UpdateFeaturesRequest<'a> (UpdateFeatures, versions 0..=0, flexible 0..) {
        /// Milliseconds.
        timeout_ms: i32 [0..] = 60000,
        feature_updates: Array<'a, FeatureUpdateKey<'a>> [0..],
    }

    /// One feature.
    pub struct FeatureUpdateKey<'a> {
        feature: Cow<'a, str> [0..],
        /// Below 1: the feature is to be deleted.
        max_version_level: i16 [0..],
        allow_downgrade: bool [0..],
    }
}

message! {
    /// Says which levels changed.
    pub struct UpdateFeaturesResponse<'a> (UpdateFeatures, versions 0..=0, flexible 0..) {
        throttle_time_ms: i32 [0..],
        error_code: i16 [0..],
        error_message: Option<Cow<'a, str>> [0..],
        results: Array<'a, UpdatableFeatureResult<'a>> [0..],
    }

    /// Result for one feature.
    pub struct UpdatableFeatureResult<'a> {
        feature: Cow<'a, str> [0..],
        error_code: i16 [0..],
        error_message: Option<Cow<'a, str>> [0..],
    }
}
