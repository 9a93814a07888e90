//! `zookeeper.*`: how a broker of a cluster reaches the ensemble in which the cluster lives.
//!
//! Without `zookeeper.connect` there is none of it: the broker stands alone. Source: `KafkaConfig.scala`.

use super::sources::Values;
use crate::coordination::zookeeper::ConnectString;

const SERVERS: &str = "host:port, separated by commas, with an optional /chroot";
const POSITIVE_MS: &str = "milliseconds, at least 1";

/// How to reach ZooKeeper.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ZooKeeperSettings {
    /// `zookeeper.connect`
    pub connect: ConnectString,
    /// `zookeeper.session.timeout.ms`, at least 1.
    pub session_timeout_ms: i32,
    /// `zookeeper.connection.timeout.ms`, at least 1; the session timeout if unset.
    pub connection_timeout_ms: u32,
    /// `zookeeper.max.in.flight.requests`, at least 1.
    pub max_in_flight_requests: u32,
    /// `zookeeper.set.acl`
    pub set_acl: bool,
}

/// The settings, if the broker does not stand alone; `wrong` hears key, message and what would be right.
pub(super) fn settings(
    values: &Values,
    mut wrong: impl FnMut(&str, String, Option<&str>),
) -> Option<ZooKeeperSettings> {
    let text = values
        .text("zookeeper.connect")
        .filter(|text| !text.trim().is_empty())?;
    let connect = text.parse::<ConnectString>();
    let connect = connect
        .map_err(|error| {
            wrong(
                "zookeeper.connect",
                format!("zookeeper.connect: {error}"),
                Some(SERVERS),
            )
        })
        .ok();
    let mut timeout = |key, value: i64| {
        let timeout = u32::try_from(value).ok().filter(|&timeout| timeout > 0);
        if timeout.is_none() {
            wrong(key, format!("{key} is no time to wait"), Some(POSITIVE_MS));
        }
        timeout
    };
    let session_key = "zookeeper.session.timeout.ms";
    let session_timeout_ms = timeout(session_key, values.i64(session_key));
    let connection_timeout_ms = match values.integer("zookeeper.connection.timeout.ms") {
        Some(value) => timeout("zookeeper.connection.timeout.ms", value),
        None => session_timeout_ms,
    };
    for (key, reason) in [
        ("zookeeper.ssl.client.enable", "TLS to ZooKeeper is not built yet"),
        (
            "zookeeper.set.acl",
            "nobody can be told apart at ZooKeeper: neither SASL nor TLS to it is built yet",
        ),
    ] {
        if values.boolean(key) {
            wrong(key, format!("{key}=true cannot be served: {reason}"), None);
        }
    }
    Some(ZooKeeperSettings {
        connect: connect?,
        session_timeout_ms: i32::try_from(session_timeout_ms?).expect("its type is INT"),
        connection_timeout_ms: connection_timeout_ms?,
        max_in_flight_requests: values.u32("zookeeper.max.in.flight.requests"),
        set_acl: values.boolean("zookeeper.set.acl"),
    })
}

#[cfg(test)]
mod tests {
    use crate::config::BrokerConfig;

    #[test]
    fn a_broker_with_zookeeper_connect_is_no_broker_alone() {
        let config = BrokerConfig::from_settings(&[
            ("zookeeper.connect", "h121:2181,h122:2181/kafka"),
            ("zookeeper.session.timeout.ms", "6000"),
        ])
        .unwrap();
        let zookeeper = config.zookeeper.unwrap();
        assert_eq!(zookeeper.connect.servers.len(), 2);
        assert_eq!(zookeeper.connect.chroot, "/kafka");
        assert_eq!(
            (
                zookeeper.session_timeout_ms,
                zookeeper.connection_timeout_ms,
                zookeeper.max_in_flight_requests
            ),
            (6000, 6000, 10)
        );
        assert_eq!(config.offsets.topic_replication_factor, 3);
        assert!(
            BrokerConfig::from_settings(&[("zookeeper.connect", " ")])
                .unwrap()
                .zookeeper
                .is_none()
        );
    }

    #[test]
    fn what_would_weaken_the_node_is_refused_by_name() {
        for (key, text) in [
            ("zookeeper.ssl.client.enable", "true"),
            ("zookeeper.set.acl", "true"),
            ("zookeeper.session.timeout.ms", "0"),
            ("zookeeper.connection.timeout.ms", "-1"),
        ] {
            let settings = [("zookeeper.connect", "a:2181"), (key, text)];
            let error = BrokerConfig::from_settings(&settings).unwrap_err().to_string();
            assert!(error.contains(key), "{error}");
            BrokerConfig::from_settings(&[(key, text)]).unwrap();
        }
    }
}
