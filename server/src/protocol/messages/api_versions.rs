//! `ApiVersions` (key 18): what does this broker speak?
//!
//! Versions of the request: 0 to 2 have no body; 3 is flexible and names the client's software (KIP-511).
//!
//! Versions of the response: 1 adds the throttle time, 2 changes nothing, 3 is flexible and adds the features
//! in tagged fields (KIP-584). Its header is always of version 0, and a request in a version that the broker
//! does not know is answered in version 0, so that a client of any age can read it.
//!
//! Sources: `ApiVersionsRequest.json`, `ApiVersionsResponse.json`, `ApiVersionsRequest.java`.

use std::borrow::Cow;

use crate::protocol::schema::{Array, message};
use crate::protocol::{ApiKey, ErrorCode, SERVED};

message! {
    /// Asks for the table of APIs.
    pub struct ApiVersionsRequest<'a> (ApiVersions, versions 0..=3, flexible 3..) {
        /// Name of the client library.
        client_software_name: Cow<'a, str> [3.., ignorable],
        /// Its version.
        client_software_version: Cow<'a, str> [3.., ignorable],
    }
}

message! {
    /// The table of APIs.
    pub struct ApiVersionsResponse<'a> (ApiVersions, versions 0..=3, flexible 3..) {
        error_code: i16 [0..],
        api_keys: Array<'a, ApiVersionsResponseKey> [0..],
        throttle_time_ms: i32 [1.., ignorable],
        supported_features: Array<'a, SupportedFeatureKey<'a>> [3.., tag 0],
        /// Number of the finalized features' generation; −1 when there is none.
        finalized_features_epoch: i64 [3.., tag 1, ignorable] = -1,
        finalized_features: Array<'a, FinalizedFeatureKey<'a>> [3.., tag 2],
    }

    /// One API; both versions inclusive.
    pub struct ApiVersionsResponseKey {
        api_key: i16 [0..],
        min_version: i16 [0..],
        max_version: i16 [0..],
    }

    /// A feature that this broker has; both versions inclusive.
    pub struct SupportedFeatureKey<'a> {
        name: Cow<'a, str> [3..],
        min_version: i16 [3..],
        max_version: i16 [3..],
    }

    /// A feature that the whole cluster has agreed on; both levels inclusive.
    pub struct FinalizedFeatureKey<'a> {
        name: Cow<'a, str> [3..],
        max_version_level: i16 [3..],
        min_version_level: i16 [3..],
    }
}

/// The row of one API: the versions that are served.
fn row(api_key: ApiKey) -> ApiVersionsResponseKey {
    let versions = api_key.defined_versions();
    ApiVersionsResponseKey {
        api_key: api_key.id(),
        min_version: *versions.start(),
        max_version: *versions.end(),
    }
}

/// The answer that lists everything that is served, without features.
pub fn served_response() -> ApiVersionsResponse<'static> {
    ApiVersionsResponse {
        api_keys: SERVED.iter().copied().map(row).collect(),
        ..Default::default()
    }
}

/// The answer to an `ApiVersions` request in a version that is not served: UNSUPPORTED_VERSION, and in the
/// table only `ApiVersions` itself, from which the client learns what to ask next. To be encoded in version
/// 0.
pub fn unsupported_version_response() -> ApiVersionsResponse<'static> {
    ApiVersionsResponse {
        error_code: ErrorCode::UnsupportedVersion.code(),
        api_keys: vec![row(ApiKey::ApiVersions)].into(),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{Message, Writer};

    #[test]
    fn a_version_from_the_future_is_answered_with_one_row_in_version_0() {
        let mut writer = Writer::new();
        unsupported_version_response().encode(&mut writer, 0).unwrap();
        assert_eq!(writer.as_slice(), [0, 35, 0, 0, 0, 1, 0, 18, 0, 0, 0, 3]);
    }

    #[test]
    fn features_without_content_take_no_room() {
        let mut writer = Writer::new();
        let response = ApiVersionsResponse {
            finalized_features_epoch: 0,
            ..Default::default()
        };
        response.encode(&mut writer, 3).unwrap();
        // Error, an empty array, throttle time, one tagged field: tag 1 of 8 bytes.
        let expected = [&[0, 0, 1, 0, 0, 0, 0, 1, 1, 8][..], &[0; 8]].concat();
        assert_eq!(writer.as_slice(), expected);
    }
}
