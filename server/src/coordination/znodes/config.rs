//! Settings of topics, brokers, clients and users, and the notifications that they changed.
//!
//! Sources: `kafka.zk.{ConfigEntityZNode, ConfigEntityChangeNotificationZNode}`, `Sanitizer`,
//! `kafka.server.DynamicConfigManager`.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::{Object, ZnodeError, encode};

/// The name that stands for all entities of a type.
pub const DEFAULT_ENTITY: &str = "<default>";

/// What a setting belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EntityType {
    Topics,
    Brokers,
    Clients,
    Users,
}

impl EntityType {
    pub const fn name(self) -> &'static str {
        match self {
            EntityType::Topics => "topics",
            EntityType::Brokers => "brokers",
            EntityType::Clients => "clients",
            EntityType::Users => "users",
        }
    }

    pub fn from_name(name: &str) -> Option<EntityType> {
        [
            EntityType::Topics,
            EntityType::Brokers,
            EntityType::Clients,
            EntityType::Users,
        ]
        .into_iter()
        .find(|kind| kind.name() == name)
    }
}

/// `/config/{type}/{name}`; the name is already [`sanitize`]d, or [`DEFAULT_ENTITY`].
pub fn entity_path(kind: EntityType, name: &str) -> String {
    format!("/config/{}/{name}", kind.name())
}

/// As the name of a config entity in a path: bytes other than ASCII letters, digits, `.`, `-` and `_` become `%XX`.
pub fn sanitize(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'-' | b'_' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// Settings of one entity, by name. A missing node means none.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct EntityConfig(pub BTreeMap<String, String>);

impl EntityConfig {
    /// Names in ascending order (Kafka's order is that of a hash table).
    pub fn encode(&self) -> Bytes {
        let config: Map<String, Value> = self
            .0
            .iter()
            .map(|(name, value)| (name.clone(), json!(value)))
            .collect();
        encode(&json!({"version": 1, "config": config}))
    }

    /// Null data means no settings.
    pub fn decode(path: &str, data: Option<&[u8]>) -> Result<EntityConfig, ZnodeError> {
        let Some(data) = data.filter(|data| !data.is_empty()) else {
            return Ok(EntityConfig::default());
        };
        let object = Object::parse(path, data)?;
        let version = object.i32("version")?;
        if version != 1 {
            return Err(ZnodeError::new(path, "version 1", format!("version {version}")));
        }
        let config = object.each("config", "strings by name", |name, value| {
            Some((name.to_owned(), value.as_str()?.to_owned()))
        })?;
        Ok(EntityConfig(config.into_iter().collect()))
    }
}

/// One node of `/config/changes`: settings of this entity changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigChange {
    /// `topics/foo`, `brokers/0`, `brokers/<default>`, `users/u/clients/c`.
    pub entity_path: String,
}

impl ConfigChange {
    pub fn new(kind: EntityType, name: &str) -> ConfigChange {
        ConfigChange {
            entity_path: format!("{}/{name}", kind.name()),
        }
    }

    pub fn encode(&self) -> Bytes {
        encode(&json!({"version": 2, "entity_path": self.entity_path}))
    }

    /// Versions 1 (type and name apart) and 2.
    pub fn decode(path: &str, data: &[u8]) -> Result<ConfigChange, ZnodeError> {
        let object = Object::parse(path, data)?;
        let entity_path = match object.i32("version")? {
            1 => format!(
                "{}/{}",
                object.string("entity_type")?,
                object.string("entity_name")?
            ),
            2 => object.string("entity_path")?.to_owned(),
            version => {
                return Err(ZnodeError::new(
                    path,
                    "version 1 or 2",
                    format!("version {version}"),
                ));
            }
        };
        Ok(ConfigChange { entity_path })
    }

    /// Type and the rest of the path.
    pub fn entity(&self) -> Option<(EntityType, &str)> {
        let (kind, name) = self.entity_path.split_once('/')?;
        Some((EntityType::from_name(kind)?, name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(bytes: &Bytes) -> &str {
        std::str::from_utf8(bytes).unwrap()
    }

    #[test]
    fn what_a_real_broker_wrote_is_read_and_written_again_byte_for_byte() {
        let captured = r#"{"version":1,"config":{"retention.ms":"1000000"}}"#;
        let config = EntityConfig::decode("/x", Some(captured.as_bytes())).unwrap();
        assert_eq!(config.0["retention.ms"], "1000000");
        assert_eq!(text(&config.encode()), captured);
        assert_eq!(
            text(&EntityConfig::default().encode()),
            r#"{"version":1,"config":{}}"#
        );
        assert_eq!(EntityConfig::decode("/x", None).unwrap(), EntityConfig::default());

        let captured = r#"{"version":2,"entity_path":"brokers/0"}"#;
        let change = ConfigChange::decode("/x", captured.as_bytes()).unwrap();
        assert_eq!(change.entity(), Some((EntityType::Brokers, "0")));
        assert_eq!(text(&change.encode()), captured);
    }

    #[test]
    fn a_notification_of_the_old_form_is_understood() {
        let old = br#"{"version":1,"entity_type":"topics","entity_name":"foo"}"#;
        assert_eq!(
            ConfigChange::decode("/x", old).unwrap(),
            ConfigChange::new(EntityType::Topics, "foo")
        );
        assert!(ConfigChange::decode("/x", br#"{"version":3}"#).is_err());
        assert_eq!(
            ConfigChange {
                entity_path: "users/u/clients/c".into()
            }
            .entity()
            .unwrap()
            .1,
            "u/clients/c"
        );
    }

    #[test]
    fn an_entity_name_is_sanitized_as_kafka_does() {
        for (name, expected) in [
            ("plain-1.2_3", "plain-1.2_3"),
            ("a b", "a%20b"),
            ("*", "%2A"),
            ("~+", "%7E%2B"),
            ("CN=ä", "CN%3D%C3%A4"),
        ] {
            assert_eq!(sanitize(name), expected);
        }
    }
}
