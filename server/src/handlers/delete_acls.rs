//! DeleteAcls (key 31): nobody is asked who may do what, so every filter is refused (`KafkaApis.handleDeleteAcls`).

use std::borrow::Cow;

use crate::protocol::ErrorCode;
use crate::protocol::messages::acls::{DeleteAclsFilterResult, DeleteAclsRequest, DeleteAclsResponse};

pub fn handle(request: &DeleteAclsRequest<'_>) -> DeleteAclsResponse<'static> {
    let refused = request.filters.iter().map(|_| DeleteAclsFilterResult {
        error_code: ErrorCode::SecurityDisabled.code(),
        error_message: Some(Cow::Borrowed("No Authorizer is configured on the broker.")),
        ..DeleteAclsFilterResult::default()
    });
    DeleteAclsResponse {
        filter_results: refused.collect(),
        ..DeleteAclsResponse::default()
    }
}
