//! What the handlers of settings share: resources from the wire, and the protocol error of each refusal.

use std::borrow::Cow;

use crate::admin::configs::{ConfigAdminError, ConfigResource, ConfigResourceType};
use crate::admin::dynamic::ConfigTreeError;
use crate::protocol::ErrorCode;

/// A resource as it is named on the wire.
pub(super) fn resource(resource_type: i8, name: &str) -> ConfigResource {
    ConfigResource {
        resource_type: ConfigResourceType::from_id(resource_type),
        name: name.to_owned(),
    }
}

/// The numbers and texts on the wire of a refusal. What concerns the tree is logged, and never told.
pub(super) fn refusal(
    error: &ConfigAdminError,
    resource: &ConfigResource,
) -> (i16, Option<Cow<'static, str>>) {
    let told = |code: ErrorCode, text: &str| (code.code(), Some(Cow::Owned(text.to_owned())));
    match error {
        ConfigAdminError::InvalidTopicName(text) => told(ErrorCode::InvalidTopicException, text),
        ConfigAdminError::UnknownTopic(text) => (
            ErrorCode::UnknownTopicOrPartition.code(),
            text.clone().map(Cow::Owned),
        ),
        ConfigAdminError::InvalidRequest(text) => told(ErrorCode::InvalidRequest, text),
        ConfigAdminError::InvalidConfig(text) => told(ErrorCode::InvalidConfig, text),
        ConfigAdminError::Tree(error) => {
            tracing::error!(
                target: "kafka.server.AdminManager",
                "Error processing settings of {} '{}': {error}", resource.resource_type.name(), resource.name
            );
            let is_passing = matches!(error, ConfigTreeError::Coordination(error) if error.is_passing());
            match is_passing {
                true => (ErrorCode::RequestTimedOut.code(), None),
                false => (ErrorCode::UnknownServerError.code(), None),
            }
        }
    }
}
