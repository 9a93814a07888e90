//! UpdateFeatures (key 57): levels of features that the whole cluster agrees on (KIP-584). Answered by the controller alone.
//!
//! 2.7.2 has no features, and a cluster that has finalized any has no such broker: whatever is asked for is refused, in Kafka's order
//! and words. Source: `KafkaApis.handleUpdateFeatures`, `KafkaController.validateFeatureUpdate`.

use std::borrow::Cow;
use std::collections::BTreeSet;

use crate::protocol::ErrorCode;
use crate::protocol::messages::features::{
    FeatureUpdateKey, UpdatableFeatureResult, UpdateFeaturesRequest, UpdateFeaturesResponse,
};

/// `is_versioned`: whether `inter.broker.protocol.version` knows features at all.
pub fn handle(
    is_controller: bool,
    is_versioned: bool,
    request: &UpdateFeaturesRequest<'_>,
) -> UpdateFeaturesResponse<'static> {
    let refusal = if !is_controller {
        Some((ErrorCode::NotController, ErrorCode::NotController.message()))
    } else if !is_versioned {
        Some((
            ErrorCode::InvalidRequest,
            Some("Feature versioning system is disabled."),
        ))
    } else {
        None
    };
    if let Some((code, message)) = refusal {
        return UpdateFeaturesResponse {
            error_code: code.code(),
            error_message: message.map(Cow::Borrowed),
            ..UpdateFeaturesResponse::default()
        };
    }
    let mut seen = BTreeSet::new();
    let updates = request.feature_updates.iter();
    let updates = updates.filter(|update| seen.insert(update.feature.to_string()));
    let results = updates.map(|update| UpdatableFeatureResult {
        feature: Cow::Owned(update.feature.to_string()),
        error_code: ErrorCode::InvalidRequest.code(),
        error_message: Some(refused(&update)),
    });
    UpdateFeaturesResponse {
        results: results.collect::<Vec<_>>().into(),
        ..UpdateFeaturesResponse::default()
    }
}

fn refused(update: &FeatureUpdateKey<'_>) -> Cow<'static, str> {
    let level = update.max_version_level;
    if update.feature.is_empty() {
        "Feature name can not be empty.".into()
    } else if level < 1 && update.allow_downgrade {
        "Can not delete non-existing finalized feature.".into()
    } else if level < 1 {
        format!(
            "Can not provide maxVersionLevel: {level} less than 1 without setting the allowDowngrade flag to true in the \
             request."
        )
        .into()
    } else {
        "Could not apply finalized feature update because the provided feature is not supported.".into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(
        updates: &[(&str, i16, bool)],
        is_controller: bool,
        is_versioned: bool,
    ) -> UpdateFeaturesResponse<'static> {
        let updates = updates
            .iter()
            .map(|(feature, max_version_level, allow_downgrade)| FeatureUpdateKey {
                feature: Cow::Owned((*feature).to_owned()),
                max_version_level: *max_version_level,
                allow_downgrade: *allow_downgrade,
            });
        let request = UpdateFeaturesRequest {
            feature_updates: updates.collect::<Vec<_>>().into(),
            ..UpdateFeaturesRequest::default()
        };
        handle(is_controller, is_versioned, &request)
    }

    #[test]
    fn whatever_is_asked_for_is_refused_with_the_reason() {
        let updates = [
            ("", 1, false),
            ("a", 0, true),
            ("b", 0, false),
            ("c", 1, false),
            ("c", 2, false),
        ];
        let response = asked(&updates, true, true);
        assert_eq!(response.error_code, 0);
        let results: Vec<(String, i16, String)> = response
            .results
            .iter()
            .map(|one| {
                let message = one.error_message.unwrap().into_owned();
                (one.feature.into_owned(), one.error_code, message)
            })
            .collect();
        let texts = [
            ("", "Feature name can not be empty."),
            ("a", "Can not delete non-existing finalized feature."),
            (
                "b",
                "Can not provide maxVersionLevel: 0 less than 1 without setting the allowDowngrade flag to true in the request.",
            ),
            (
                "c",
                "Could not apply finalized feature update because the provided feature is not supported.",
            ),
        ];
        let expected =
            texts.map(|(name, text)| (name.to_owned(), ErrorCode::InvalidRequest.code(), text.to_owned()));
        assert_eq!(results, expected);
    }

    #[test]
    fn others_than_the_controller_and_old_protocols_refuse_the_request() {
        let response = asked(&[("a", 1, false)], false, true);
        assert_eq!(response.error_code, ErrorCode::NotController.code());
        let response = asked(&[("a", 1, false)], true, false);
        assert_eq!(response.error_code, ErrorCode::InvalidRequest.code());
        assert!(response.results.is_empty());
    }
}
