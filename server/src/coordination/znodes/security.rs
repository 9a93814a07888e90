//! Access control lists, their change notifications, and delegation tokens: paths and data.
//!
//! Milena has no authorizer yet; these are here because they are part of the tree. Names are not sanitized. Sources:
//! `kafka.zk.{ZkAclStore, ResourceZNode, DelegationTokenInfoZNode}`, `AclEntry`.

use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::{Object, ZnodeError, encode};

pub const DELEGATION_TOKENS: &str = "/delegation_token/tokens";
pub const TOKEN_CHANGE_PREFIX: &str = "/delegation_token/token_changes/token_change_";
pub const LITERAL_ACL_CHANGE_PREFIX: &str = "/kafka-acl-changes/acl_changes_";
pub const PREFIXED_ACL_CHANGE_PREFIX: &str = "/kafka-acl-extended-changes/acl_changes_";

/// How a resource's name is matched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatternType {
    Literal,
    Prefixed,
}

/// `/kafka-acl/{type}/{name}` or `/kafka-acl-extended/prefixed/{type}/{name}`; the type as in `Topic`, `Group`, `Cluster`,
/// `TransactionalId`, `DelegationToken`.
pub fn acl_path(pattern: PatternType, resource_type: &str, name: &str) -> String {
    match pattern {
        PatternType::Literal => format!("/kafka-acl/{resource_type}/{name}"),
        PatternType::Prefixed => format!("/kafka-acl-extended/prefixed/{resource_type}/{name}"),
    }
}

/// One entry of an access control list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AclEntry {
    /// `User:alice`
    pub principal: String,
    /// `Allow`, `Deny`
    pub permission_type: String,
    /// `Read`, `Write`, `All`, ...
    pub operation: String,
    pub host: String,
}

pub fn encode_acls(entries: &[AclEntry]) -> Bytes {
    let acls: Vec<Value> = entries
        .iter()
        .map(|entry| {
            json!({
                "principal": entry.principal,
                "permissionType": entry.permission_type,
                "operation": entry.operation,
                "host": entry.host,
            })
        })
        .collect();
    encode(&json!({"version": 1, "acls": acls}))
}

pub fn decode_acls(path: &str, data: &[u8]) -> Result<Vec<AclEntry>, ZnodeError> {
    let object = Object::parse(path, data)?;
    let version = object.i32("version")?;
    if version != 1 {
        return Err(ZnodeError::new(path, "version 1", format!("version {version}")));
    }
    let entry = |value: &Value| {
        let text = |key: &str| value.get(key)?.as_str().map(str::to_owned);
        Some(AclEntry {
            principal: text("principal")?,
            permission_type: text("permissionType")?,
            operation: text("operation")?,
            host: text("host")?,
        })
    };
    let entries = object.array("acls")?.iter();
    entries
        .map(|value| {
            let expected = "principal, permissionType, operation and host of each entry";
            entry(value).ok_or_else(|| ZnodeError::new(path, expected, super::shown(value)))
        })
        .collect()
}

/// Which access control list changed: literal ones as `TOPIC:name`, prefixed ones as JSON.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AclChange {
    pub pattern: PatternType,
    /// In upper case, `TOPIC`.
    pub resource_type: String,
    pub name: String,
}

impl AclChange {
    pub fn encode(&self) -> Bytes {
        match self.pattern {
            PatternType::Literal => Bytes::from(format!("{}:{}", self.resource_type, self.name)),
            PatternType::Prefixed => encode(&json!({
                "version": 1,
                "resourceType": self.resource_type,
                "name": self.name,
                "patternType": "PREFIXED",
            })),
        }
    }

    pub fn decode_literal(path: &str, data: &[u8]) -> Result<AclChange, ZnodeError> {
        let split = std::str::from_utf8(data)
            .ok()
            .and_then(|text| text.split_once(':'));
        let (resource_type, name) =
            split.ok_or_else(|| ZnodeError::new(path, "TYPE:name", super::shown_bytes(data)))?;
        Ok(AclChange {
            pattern: PatternType::Literal,
            resource_type: resource_type.to_owned(),
            name: name.to_owned(),
        })
    }

    pub fn decode_extended(path: &str, data: &[u8]) -> Result<AclChange, ZnodeError> {
        let object = Object::parse(path, data)?;
        let pattern = match object.string("patternType")? {
            "PREFIXED" => PatternType::Prefixed,
            "LITERAL" => PatternType::Literal,
            other => return Err(ZnodeError::new(path, "patternType PREFIXED or LITERAL", other)),
        };
        Ok(AclChange {
            pattern,
            resource_type: object.string("resourceType")?.to_owned(),
            name: object.string("name")?.to_owned(),
        })
    }
}

/// `/delegation_token/tokens/{id}`. The secret is not stored: it follows from the master key and the id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DelegationToken {
    pub token_id: String,
    /// `User:alice`
    pub owner: String,
    pub renewers: Vec<String>,
    pub issue_timestamp_ms: i64,
    pub max_timestamp_ms: i64,
    pub expiry_timestamp_ms: i64,
}

impl DelegationToken {
    pub fn encode(&self) -> Bytes {
        let mut node = Map::new();
        node.insert("issueTimestamp".into(), json!(self.issue_timestamp_ms));
        node.insert("renewers".into(), json!(self.renewers));
        node.insert("tokenId".into(), json!(self.token_id));
        node.insert("owner".into(), json!(self.owner));
        node.insert("expiryTimestamp".into(), json!(self.expiry_timestamp_ms));
        node.insert("maxTimestamp".into(), json!(self.max_timestamp_ms));
        node.insert("version".into(), json!(1));
        encode(&Value::Object(node))
    }

    pub fn decode(path: &str, data: &[u8]) -> Result<DelegationToken, ZnodeError> {
        let object = Object::parse(path, data)?;
        let renewers: Option<Vec<String>> = object
            .array("renewers")?
            .iter()
            .map(|one| one.as_str().map(str::to_owned))
            .collect();
        Ok(DelegationToken {
            token_id: object.string("tokenId")?.to_owned(),
            owner: object.string("owner")?.to_owned(),
            renewers: renewers.ok_or_else(|| ZnodeError::new(path, "renewers to be strings", "others"))?,
            issue_timestamp_ms: object.i64_text("issueTimestamp")?,
            max_timestamp_ms: object.i64_text("maxTimestamp")?,
            expiry_timestamp_ms: object.i64_text("expiryTimestamp")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(bytes: &Bytes) -> &str {
        std::str::from_utf8(bytes).unwrap()
    }

    #[test]
    fn access_control_lists_are_read_and_written_as_kafka_does() {
        let captured = concat!(
            r#"{"version":1,"acls":[{"principal":"User:a","permissionType":"Allow","#,
            r#""operation":"Read","host":"*"}]}"#
        );
        let acls = decode_acls("/x", captured.as_bytes()).unwrap();
        assert_eq!(acls[0].principal, "User:a");
        assert_eq!(text(&encode_acls(&acls)), captured);
        assert_eq!(acl_path(PatternType::Literal, "Topic", "t"), "/kafka-acl/Topic/t");
        assert_eq!(
            acl_path(PatternType::Prefixed, "Group", "g"),
            "/kafka-acl-extended/prefixed/Group/g"
        );
    }

    #[test]
    fn a_literal_change_is_plain_text_whose_first_colon_separates() {
        let change = AclChange::decode_literal("/x", b"TOPIC:a:b").unwrap();
        assert_eq!(
            (change.resource_type.as_str(), change.name.as_str()),
            ("TOPIC", "a:b")
        );
        assert_eq!(text(&change.encode()), "TOPIC:a:b");
        let prefixed = r#"{"version":1,"resourceType":"TOPIC","name":"n","patternType":"PREFIXED"}"#;
        let change = AclChange::decode_extended("/x", prefixed.as_bytes()).unwrap();
        assert_eq!(text(&change.encode()), prefixed);
    }

    #[test]
    fn a_delegation_token_comes_back_as_it_was_written() {
        let token = DelegationToken {
            token_id: "id".into(),
            owner: "User:a".into(),
            renewers: vec!["User:b".into()],
            issue_timestamp_ms: 1,
            max_timestamp_ms: 3,
            expiry_timestamp_ms: 2,
        };
        assert_eq!(DelegationToken::decode("/x", &token.encode()).unwrap(), token);
    }
}
