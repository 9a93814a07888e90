//! Listeners: `NAME://host:port`, and which security protocol a name stands for.
//!
//! Behaviour of `EndPoint.scala`, `ListenerName.java`, `CoreUtils.listenerListToEndPoints`.

use std::fmt;

use crate::cluster::{Endpoint, SecurityProtocol};

/// Name of a listener, in capitals.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ListenerName(String);

impl ListenerName {
    /// Any spelling; kept in capitals.
    pub fn new(name: &str) -> ListenerName {
        ListenerName(name.to_uppercase())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ListenerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One address to listen on, or one that clients are told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndPoint {
    pub listener_name: ListenerName,
    pub security_protocol: SecurityProtocol,
    /// Name or address, IPv6 without brackets; `None` listens on every interface and advertises
    /// [`local_host_name`].
    pub host: Option<String>,
    /// 0: the system chooses a free one.
    pub port: u16,
}

impl EndPoint {
    /// What clients are told, once the port of the listener of this name is bound: an absent host becomes
    /// `local_host` ([`local_host_name`]), port 0 becomes `bound_port`.
    pub fn advertised(&self, local_host: &str, bound_port: u16) -> Endpoint {
        Endpoint {
            listener: self.listener_name.as_str().into(),
            host: self.host.as_deref().unwrap_or(local_host).into(),
            port: if self.port == 0 {
                bound_port.into()
            } else {
                self.port.into()
            },
            security_protocol: self.security_protocol,
        }
    }
}

/// `NAME://host:port`, IPv6 in brackets.
impl fmt::Display for EndPoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let EndPoint {
            listener_name, port, ..
        } = self;
        match self.host.as_deref() {
            None => write!(f, "{listener_name}://:{port}"),
            Some(host) if host.contains(':') => write!(f, "{listener_name}://[{host}]:{port}"),
            Some(host) => write!(f, "{listener_name}://{host}:{port}"),
        }
    }
}

/// Which protocol each listener name stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SecurityProtocolMap(Vec<(ListenerName, SecurityProtocol)>);

impl SecurityProtocolMap {
    /// `NAME:PROTOCOL,...`
    pub(super) fn parse(text: &str) -> Result<SecurityProtocolMap, String> {
        let key = "listener.security.protocol.map";
        let mut map: Vec<(ListenerName, SecurityProtocol)> = Vec::new();
        for entry in text.split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
            let (name, protocol) = entry.rsplit_once(':').ok_or_else(|| {
                format!(
                    "Error parsing configuration property '{key}': found {entry:?}, expected NAME:PROTOCOL"
                )
            })?;
            let protocol = SecurityProtocol::from_name(protocol.trim())
                .ok_or_else(|| format!("Invalid security protocol `{}` defined in {key}", protocol.trim()))?;
            let name = ListenerName::new(name.trim());
            map.retain(|(known, _)| *known != name);
            map.push((name, protocol));
        }
        Ok(SecurityProtocolMap(map))
    }

    pub(super) fn get(&self, name: &ListenerName) -> Option<SecurityProtocol> {
        self.0
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, protocol)| *protocol)
    }
}

/// Whether two listeners may have one port: not to listen on, but to advertise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ports {
    Distinct,
    Any,
}

/// `NAME://host:port,...`; the texts of the errors are Kafka's.
pub(super) fn parse_listeners(
    text: &str,
    map: &SecurityProtocolMap,
    ports: Ports,
) -> Result<Vec<EndPoint>, String> {
    let mut endpoints: Vec<EndPoint> = Vec::new();
    for entry in text.split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
        let endpoint = parse_endpoint(entry, map)
            .map_err(|problem| format!("Error creating broker listeners from '{text}': {problem}"))?;
        if endpoints
            .iter()
            .any(|other| other.listener_name == endpoint.listener_name)
        {
            return Err(format!(
                "Each listener must have a different name, listeners: {text}"
            ));
        }
        let taken = endpoint.port != 0 && endpoints.iter().any(|other| other.port == endpoint.port);
        if ports == Ports::Distinct && taken {
            return Err(format!(
                "Each listener must have a different port, listeners: {text}"
            ));
        }
        endpoints.push(endpoint);
    }
    Ok(endpoints)
}

fn parse_endpoint(text: &str, map: &SecurityProtocolMap) -> Result<EndPoint, String> {
    let unparsed = || format!("Unable to parse {text} to a broker endpoint");
    let (name, address) = text.rsplit_once("://").ok_or_else(unparsed)?;
    let (host, port) = address.rsplit_once(':').ok_or_else(unparsed)?;
    let host = host.strip_prefix('[').unwrap_or(host);
    let host = host.strip_suffix(']').unwrap_or(host);
    let port_digits = port.strip_prefix('-').unwrap_or(port);
    let is_number = !port_digits.is_empty() && port_digits.bytes().all(|byte| byte.is_ascii_digit());
    if !is_valid_host(host) || !is_number {
        return Err(unparsed());
    }
    let port = port
        .parse()
        .map_err(|_| format!("found port {port} in {text}, expected one from 0 to 65535"))?;
    let listener_name = ListenerName::new(name);
    let security_protocol = map
        .get(&listener_name)
        .ok_or_else(|| format!("No security protocol defined for listener {listener_name}"))?;
    let host = (!host.is_empty()).then(|| host.to_owned());
    Ok(EndPoint {
        listener_name,
        security_protocol,
        host,
        port,
    })
}

/// `Utils.validHostPattern`
pub(super) fn is_valid_host(host: &str) -> bool {
    host.bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || b"-%._:".contains(&byte))
}

/// The name of this machine, for listeners that are bound to every interface and advertise none.
///
/// **Deviation:** Kafka asks the name service for the canonical name; this is the name the system itself has,
/// without a look-up that may block the start.
pub fn local_host_name() -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    if name.is_empty() {
        "localhost".to_owned()
    } else {
        name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map() -> SecurityProtocolMap {
        SecurityProtocolMap::parse("PLAINTEXT:PLAINTEXT, ssl:SSL,Client:plaintext").unwrap()
    }

    #[test]
    fn addresses_are_read_as_kafka_reads_them() {
        let cases = [
            ("PLAINTEXT://localhost:9092", "PLAINTEXT://localhost:9092"),
            ("plaintext://:9092", "PLAINTEXT://:9092"),
            ("CLIENT://[::1]:9092", "CLIENT://[::1]:9092"),
            ("CLIENT://::1:9092", "CLIENT://[::1]:9092"),
            ("CLIENT://[fe80::1%eth0]:0", "CLIENT://[fe80::1%eth0]:0"),
            ("client://a_b.c-d:1 , SSL://:2", "CLIENT://a_b.c-d:1 SSL://:2"),
            ("SSL://:0,CLIENT://:0", "SSL://:0 CLIENT://:0"),
        ];
        for (text, expected) in cases {
            let found = parse_listeners(text, &map(), Ports::Distinct).unwrap();
            assert_eq!(
                found
                    .iter()
                    .map(EndPoint::to_string)
                    .collect::<Vec<_>>()
                    .join(" "),
                expected,
                "{text}"
            );
        }
    }

    #[test]
    fn wrong_addresses_are_refused_in_kafkas_words() {
        let cases = [
            (
                "localhost:9092",
                "Error creating broker listeners from 'localhost:9092': Unable to parse localhost:9092 to \
                 a broker endpoint",
            ),
            (
                "PLAINTEXT://a b:1",
                "Error creating broker listeners from 'PLAINTEXT://a b:1': Unable to parse PLAINTEXT://a \
                 b:1 to a broker endpoint",
            ),
            (
                "PLAINTEXT://a",
                "Error creating broker listeners from 'PLAINTEXT://a': Unable to parse PLAINTEXT://a to a \
                 broker endpoint",
            ),
            (
                "OTHER://a:1",
                "Error creating broker listeners from 'OTHER://a:1': No security protocol defined for \
                 listener OTHER",
            ),
            (
                "PLAINTEXT://:1,plaintext://:2",
                "Each listener must have a different name, listeners: PLAINTEXT://:1,plaintext://:2",
            ),
            (
                "PLAINTEXT://:1,SSL://:1",
                "Each listener must have a different port, listeners: PLAINTEXT://:1,SSL://:1",
            ),
            (
                "PLAINTEXT://:70000",
                "Error creating broker listeners from 'PLAINTEXT://:70000': found port 70000 in \
                 PLAINTEXT://:70000, expected one from 0 to 65535",
            ),
        ];
        for (text, expected) in cases {
            assert_eq!(
                parse_listeners(text, &map(), Ports::Distinct).unwrap_err(),
                expected
            );
        }
        assert_eq!(
            parse_listeners("PLAINTEXT://a:1,SSL://b:1", &map(), Ports::Any)
                .unwrap()
                .len(),
            2
        );
    }

    #[test]
    fn what_is_left_open_is_filled_in_for_clients() {
        let endpoint = |text| parse_listeners(text, &map(), Ports::Any).unwrap().remove(0);
        assert_eq!(
            endpoint("CLIENT://:0").advertised("me", 77).to_string(),
            "CLIENT://me:77"
        );
        assert_eq!(
            endpoint("CLIENT://h:1").advertised("me", 77).to_string(),
            "CLIENT://h:1"
        );
    }

    #[test]
    fn a_map_names_what_it_cannot_read() {
        assert_eq!(
            SecurityProtocolMap::parse("A:TLS").unwrap_err(),
            "Invalid security protocol `TLS` defined in listener.security.protocol.map"
        );
        assert!(
            SecurityProtocolMap::parse("PLAINTEXT")
                .unwrap_err()
                .contains("expected NAME:PROTOCOL")
        );
    }
}
