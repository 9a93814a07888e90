//! ApiVersions (key 18): what is served, and in which versions.
//!
//! A request of a version that is not known is answered in version 0 before it comes here (KIP-511). A client that names itself
//! with other characters than letters, digits, dots and hyphens is refused (`ApiVersionsRequest.java`).

use crate::protocol::ErrorCode;
use crate::protocol::messages::api_versions::{ApiVersionsRequest, ApiVersionsResponse, served_response};

/// `features_epoch` is that of the cluster's finalized features, of which there are none.
pub fn handle(
    version: i16,
    request: &ApiVersionsRequest<'_>,
    features_epoch: i64,
) -> ApiVersionsResponse<'static> {
    let names = [&request.client_software_name, &request.client_software_version];
    if version >= 3 && !names.iter().all(|name| is_software_name(name)) {
        return ApiVersionsResponse {
            error_code: ErrorCode::InvalidRequest.code(),
            ..ApiVersionsResponse::default()
        };
    }
    ApiVersionsResponse {
        finalized_features_epoch: features_epoch,
        ..served_response()
    }
}

/// `[a-zA-Z0-9](?:[a-zA-Z0-9\-.]*[a-zA-Z0-9])?`
fn is_software_name(name: &str) -> bool {
    let bytes = name.as_bytes();
    let ends = [bytes.first(), bytes.last()];
    ends.iter().all(|end| end.is_some_and(u8::is_ascii_alphanumeric))
        && bytes
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn software_names_are_letters_digits_dots_and_hyphens_with_a_letter_or_digit_at_both_ends() {
        let cases = [
            ("a", true),
            ("apache-kafka.java", true),
            ("2.7.2", true),
            ("", false),
            ("-a", false),
        ];
        let more = [("a.", false), ("a b", false), ("a_b", false)];
        for (name, expected) in cases.into_iter().chain(more) {
            assert_eq!(is_software_name(name), expected, "{name:?}");
        }
    }
}
