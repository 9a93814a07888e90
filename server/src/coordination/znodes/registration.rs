//! `/brokers/ids/{id}`: a broker that is alive, and how to reach it.
//!
//! Written in the version of `inter.broker.protocol.version`, key by key as a 2.7.2 broker does; versions 1 to 5 are read.
//! Source: `kafka.zk.BrokerIdZNode`.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::{Object, ZnodeError, broker_id, encode};
use crate::cluster::{Broker, Endpoint, SecurityProtocol};

/// The form of a broker's node: a later one says more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RegistrationVersion {
    /// Without listener names and rack.
    V2 = 2,
    V4 = 4,
    /// With features.
    V5 = 5,
}

/// The data of a broker's node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerRegistration {
    pub broker: Broker,
    /// −1: none.
    pub jmx_port: i32,
    /// When it registered.
    pub timestamp_ms: i64,
}

impl BrokerRegistration {
    pub fn encode(&self, version: RegistrationVersion) -> Bytes {
        let mut node = Map::new();
        let protocols: Map<String, Value> = self
            .broker
            .endpoints
            .iter()
            .map(|endpoint| {
                (
                    endpoint.listener.to_string(),
                    json!(endpoint.security_protocol.name()),
                )
            })
            .collect();
        if version >= RegistrationVersion::V4 {
            node.insert("listener_security_protocol_map".into(), Value::Object(protocols));
        }
        let endpoints: Vec<String> = self.broker.endpoints.iter().map(ToString::to_string).collect();
        node.insert("endpoints".into(), json!(endpoints));
        if let Some(rack) = self
            .broker
            .rack
            .as_ref()
            .filter(|_| version >= RegistrationVersion::V4)
        {
            node.insert("rack".into(), json!(&**rack));
        }
        node.insert("jmx_port".into(), json!(self.jmx_port));
        if version >= RegistrationVersion::V5 {
            node.insert("features".into(), json!({}));
        }
        // For clients of old: the first plaintext endpoint, or none.
        let plain = self
            .broker
            .endpoints
            .iter()
            .find(|endpoint| endpoint.security_protocol == SecurityProtocol::Plaintext);
        node.insert(
            "host".into(),
            plain.map_or(Value::Null, |endpoint| json!(&*endpoint.host)),
        );
        node.insert("timestamp".into(), json!(self.timestamp_ms.to_string()));
        node.insert("port".into(), json!(plain.map_or(-1, |endpoint| endpoint.port)));
        node.insert("version".into(), json!(version as i32));
        encode(&Value::Object(node))
    }

    pub fn decode(id: i32, data: &[u8]) -> Result<BrokerRegistration, ZnodeError> {
        let path = broker_id(id);
        let object = Object::parse(&path, data)?;
        let version = object.i32("version")?;
        let endpoints = match version {
            ..1 => {
                return Err(ZnodeError::new(
                    &path,
                    "version 1 or later",
                    format!("version {version}"),
                ));
            }
            1 => vec![Endpoint {
                listener: "PLAINTEXT".into(),
                host: object.string("host")?.into(),
                port: object.i32("port")?,
                security_protocol: SecurityProtocol::Plaintext,
            }],
            _ => {
                let protocols = object.each(
                    "listener_security_protocol_map",
                    "security protocols by listener",
                    |listener, protocol| {
                        Some((
                            listener.to_owned(),
                            SecurityProtocol::from_name(protocol.as_str()?)?,
                        ))
                    },
                )?;
                let written = object.array("endpoints")?.iter();
                written
                    .map(|text| {
                        let endpoint = text.as_str().and_then(|text| endpoint(text, &protocols));
                        endpoint.ok_or_else(|| {
                            let expected = "LISTENER://host:port with a known security protocol";
                            ZnodeError::new(&path, expected, format!("endpoint {text}"))
                        })
                    })
                    .collect::<Result<_, _>>()?
            }
        };
        let rack = object.value("rack").and_then(Value::as_str).map(Arc::from);
        Ok(BrokerRegistration {
            broker: Broker { id, endpoints, rack },
            jmx_port: object.i32("jmx_port").unwrap_or(-1),
            timestamp_ms: object.i64_text("timestamp").unwrap_or(-1),
        })
    }
}

/// `LISTENER://host:port`; without a map the listener's name is its security protocol.
fn endpoint(text: &str, protocols: &[(String, SecurityProtocol)]) -> Option<Endpoint> {
    let (listener, address) = text.split_once("://")?;
    let (host, port) = address.rsplit_once(':')?;
    let host = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .unwrap_or(host);
    let known = protocols
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case(listener));
    let security_protocol = match known {
        Some((_, protocol)) => *protocol,
        None => SecurityProtocol::from_name(listener)?,
    };
    Some(Endpoint {
        listener: listener.to_uppercase().into(),
        host: host.into(),
        port: port.parse().ok()?,
        security_protocol,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_cluster::registration;

    fn check(id: i32, captured: &str) -> BrokerRegistration {
        let node = BrokerRegistration::decode(id, captured.as_bytes()).unwrap();
        let written = node.encode(RegistrationVersion::V5);
        assert_eq!(std::str::from_utf8(&written).unwrap(), captured);
        node
    }

    #[test]
    fn what_a_real_broker_registered_is_read_and_written_again_byte_for_byte() {
        let node = check(
            1,
            concat!(
                r#"{"listener_security_protocol_map":{"PLAINTEXT":"PLAINTEXT","EXT":"PLAINTEXT"},"#,
                r#""endpoints":["PLAINTEXT://h:9092","EXT://h:9093"],"rack":"r1","jmx_port":-1,"#,
                r#""features":{},"host":"h","timestamp":"1795361230473","port":9092,"version":5}"#
            ),
        );
        assert_eq!(node.broker.endpoint("EXT").unwrap().port, 9093);
        assert_eq!(node.broker.rack.as_deref(), Some("r1"));
        check(
            0,
            concat!(
                r#"{"listener_security_protocol_map":{"PLAINTEXT":"PLAINTEXT"},"#,
                r#""endpoints":["PLAINTEXT://h:9092"],"jmx_port":-1,"features":{},"host":"h","#,
                r#""timestamp":"1600000000000","port":9092,"version":5}"#
            ),
        );
    }

    #[test]
    fn a_broker_without_a_plaintext_endpoint_has_a_null_host_and_port_minus_one() {
        let node = check(
            2,
            concat!(
                r#"{"listener_security_protocol_map":{"S":"SSL"},"endpoints":["S://[::1]:9092"],"#,
                r#""jmx_port":-1,"features":{},"host":null,"timestamp":"1","port":-1,"version":5}"#
            ),
        );
        assert_eq!(&*node.broker.endpoints[0].host, "::1");
    }

    #[test]
    fn an_older_protocol_between_brokers_says_less() {
        let node = registration(7, 9092);
        let four = concat!(
            r#"{"listener_security_protocol_map":{"PLAINTEXT":"PLAINTEXT"},"endpoints":["PLAINTEXT://h:9092"],"#,
            r#""rack":"r1","jmx_port":-1,"host":"h","timestamp":"1","port":9092,"version":4}"#
        );
        let two = concat!(
            r#"{"endpoints":["PLAINTEXT://h:9092"],"jmx_port":-1,"host":"h","timestamp":"1","port":9092,"#,
            r#""version":2}"#
        );
        let mut racked = node.clone();
        racked.broker.rack = Some("r1".into());
        for (version, written) in [(RegistrationVersion::V4, four), (RegistrationVersion::V2, two)] {
            assert_eq!(racked.encode(version), written);
        }
        assert_eq!(BrokerRegistration::decode(7, four.as_bytes()), Ok(racked));
        assert_eq!(BrokerRegistration::decode(7, two.as_bytes()), Ok(node));
    }

    #[test]
    fn older_versions_are_read() {
        let one = br#"{"version":1,"host":"a","port":9092,"jmx_port":9999,"timestamp":"1"}"#;
        let one = BrokerRegistration::decode(0, one).unwrap();
        assert_eq!(
            (one.broker.endpoints[0].to_string().as_str(), one.jmx_port),
            ("PLAINTEXT://a:9092", 9999)
        );
        let two = br#"{"version":2,"endpoints":["SASL_SSL://a:1"],"host":null,"port":-1}"#;
        let two = BrokerRegistration::decode(0, two).unwrap();
        assert_eq!(
            two.broker.endpoints[0].security_protocol,
            SecurityProtocol::SaslSsl
        );
        assert!(BrokerRegistration::decode(0, br#"{"version":2,"endpoints":["X://a:1"]}"#).is_err());
        assert!(BrokerRegistration::decode(0, br#"{"version":0}"#).is_err());
    }
}
