//! CreateAcls (key 30): nobody is asked who may do what, so every entry is refused (`KafkaApis.handleCreateAcls`).
//!
//! **Deviation:** unknown types and operations are answered alike; 2.7.2 closes the connection.

use std::borrow::Cow;

use crate::protocol::ErrorCode;
use crate::protocol::messages::acls::{AclCreationResult, CreateAclsRequest, CreateAclsResponse};

pub fn handle(request: &CreateAclsRequest<'_>) -> CreateAclsResponse<'static> {
    let refused = request.creations.iter().map(|_| AclCreationResult {
        error_code: ErrorCode::SecurityDisabled.code(),
        error_message: Some(Cow::Borrowed("No Authorizer is configured on the broker.")),
    });
    CreateAclsResponse {
        results: refused.collect(),
        ..CreateAclsResponse::default()
    }
}
