//! DescribeAcls (key 29): nobody is asked who may do what, so there is nothing to describe (`KafkaApis.handleDescribeAcls`).

use std::borrow::Cow;

use crate::protocol::ErrorCode;
use crate::protocol::messages::acls::{DescribeAclsRequest, DescribeAclsResponse};

pub fn handle(_request: &DescribeAclsRequest<'_>) -> DescribeAclsResponse<'static> {
    DescribeAclsResponse {
        error_code: ErrorCode::SecurityDisabled.code(),
        error_message: Some(Cow::Borrowed("No Authorizer is configured on the broker")),
        ..DescribeAclsResponse::default()
    }
}
