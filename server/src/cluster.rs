//! The nouns of a cluster that several modules share: a broker as others see it, its endpoints, a security protocol, the
//! leader and in-sync replicas of a partition.
//!
//! Pure data without behaviour; who is alive is the controller's and the metadata cache's business. Source classes:
//! `kafka.cluster.{Broker, EndPoint}`, `SecurityProtocol`, `kafka.api.LeaderAndIsr`.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use milena_engine::units::LeaderEpoch;

/// A future that may travel between threads, for traits that have more than one body.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// How a listener is protected, with Kafka's names and wire ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(i16)]
pub enum SecurityProtocol {
    Plaintext = 0,
    Ssl = 1,
    SaslPlaintext = 2,
    SaslSsl = 3,
}

impl SecurityProtocol {
    /// The wire id of UpdateMetadata.
    pub const fn id(self) -> i16 {
        self as i16
    }

    /// `None` for an id that 2.7.2 does not know.
    pub const fn from_id(id: i16) -> Option<SecurityProtocol> {
        match id {
            0 => Some(SecurityProtocol::Plaintext),
            1 => Some(SecurityProtocol::Ssl),
            2 => Some(SecurityProtocol::SaslPlaintext),
            3 => Some(SecurityProtocol::SaslSsl),
            _ => None,
        }
    }

    pub const fn name(self) -> &'static str {
        match self {
            SecurityProtocol::Plaintext => "PLAINTEXT",
            SecurityProtocol::Ssl => "SSL",
            SecurityProtocol::SaslPlaintext => "SASL_PLAINTEXT",
            SecurityProtocol::SaslSsl => "SASL_SSL",
        }
    }

    /// Any case is understood, as Kafka does.
    pub fn from_name(name: &str) -> Option<SecurityProtocol> {
        [
            SecurityProtocol::Plaintext,
            SecurityProtocol::Ssl,
            SecurityProtocol::SaslPlaintext,
            SecurityProtocol::SaslSsl,
        ]
        .into_iter()
        .find(|protocol| protocol.name().eq_ignore_ascii_case(name))
    }
}

/// One advertised listener of a broker.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// Upper-case listener name, `PLAINTEXT`.
    pub listener: Arc<str>,
    pub host: Arc<str>,
    pub port: i32,
    pub security_protocol: SecurityProtocol,
}

/// `PLAINTEXT://host:9092`, as in `advertised.listeners`; an IPv6 host in brackets.
impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "{}://[{}]:{}", self.listener, self.host, self.port)
        } else {
            write!(f, "{}://{}:{}", self.listener, self.host, self.port)
        }
    }
}

/// A broker as the others see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broker {
    pub id: i32,
    pub endpoints: Vec<Endpoint>,
    /// `broker.rack`
    pub rack: Option<Arc<str>>,
}

impl Broker {
    /// The endpoint of a listener, by exact name.
    pub fn endpoint(&self, listener: &str) -> Option<&Endpoint> {
        self.endpoints
            .iter()
            .find(|endpoint| &*endpoint.listener == listener)
    }
}

/// Leader and in-sync replicas of one partition, as stored in its state node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaderAndIsr {
    /// `None` while there is no leader (−1 on the wire).
    pub leader: Option<i32>,
    pub leader_epoch: LeaderEpoch,
    pub isr: Arc<[i32]>,
    /// Data version of the state node.
    pub zk_version: i32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_written_as_in_advertised_listeners() {
        let endpoint = |host: &str| Endpoint {
            listener: "EXT".into(),
            host: host.into(),
            port: 9093,
            security_protocol: SecurityProtocol::Plaintext,
        };
        assert_eq!(endpoint("h").to_string(), "EXT://h:9093");
        assert_eq!(endpoint("::1").to_string(), "EXT://[::1]:9093");
    }

    #[test]
    fn a_security_protocol_is_found_by_id_and_by_name_in_any_case() {
        for id in 0..4 {
            let protocol = SecurityProtocol::from_id(id).unwrap();
            assert_eq!(protocol.id(), id);
            assert_eq!(
                SecurityProtocol::from_name(&protocol.name().to_lowercase()),
                Some(protocol)
            );
        }
        assert_eq!(SecurityProtocol::from_id(4), None);
        assert_eq!(SecurityProtocol::from_name("TLS"), None);
    }
}
