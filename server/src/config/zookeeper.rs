//! `zookeeper.*`: how a broker of a cluster reaches the ensemble in which the cluster lives.
//!
//! Without `zookeeper.connect` there is none of it: the broker stands alone. Source: `KafkaConfig.scala`.

use super::jaas;
use super::sources::Values;
use crate::coordination::zookeeper::{ConnectString, Credentials};

/// Who this broker is at ZooKeeper.
pub(super) const LOGIN_KEY: &str = "milena.zookeeper.sasl.jaas.config";
const LOGIN: &str =
    "org.apache.zookeeper.server.auth.DigestLoginModule required username=\"..\" password=\"..\";";

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
    /// `milena.zookeeper.sasl.jaas.config`, or the `Client` section of the JAAS file that `KAFKA_OPTS` names.
    pub sasl: Option<Credentials>,
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
    let tls_key = "zookeeper.ssl.client.enable";
    if values.boolean(tls_key) {
        let message = format!("{tls_key}=true cannot be served: TLS to ZooKeeper is not built yet");
        wrong(tls_key, message, None);
    }
    let login = values.text(LOGIN_KEY).map(credentials).transpose();
    let sasl = login
        .map_err(|reason| wrong(LOGIN_KEY, format!("{LOGIN_KEY}: {reason}"), Some(LOGIN)))
        .ok()?;
    let set_acl = values.boolean("zookeeper.set.acl");
    if set_acl && sasl.is_none() {
        let message = "zookeeper.set.acl is true, but nobody says who this broker is at ZooKeeper: there is no \
                       milena.zookeeper.sasl.jaas.config, and no Client section in a file that KAFKA_OPTS names by \
                       -Djava.security.auth.login.config";
        wrong("zookeeper.set.acl", message.to_owned(), None);
    }
    Some(ZooKeeperSettings {
        connect: connect?,
        session_timeout_ms: i32::try_from(session_timeout_ms?).expect("its type is INT"),
        connection_timeout_ms: connection_timeout_ms?,
        max_in_flight_requests: values.u32("zookeeper.max.in.flight.requests"),
        set_acl,
        sasl,
    })
}

/// Name and password of a login module, of whatever class but Kerberos' has them.
fn credentials(text: &str) -> Result<Credentials, String> {
    let modules = jaas::modules(text).map_err(|error| error.to_string())?;
    let [module] = modules.as_slice() else {
        return Err(format!("found {} login modules, expected one", modules.len()));
    };
    let option = |name: &str| {
        let found = module.options.get(name).cloned();
        found.ok_or_else(|| {
            format!(
                "{} has no {name}, and only logins by name and password are built yet",
                module.class
            )
        })
    };
    Ok(Credentials {
        username: option("username")?,
        password: option("password")?,
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
            (
                "milena.zookeeper.sasl.jaas.config",
                "com.sun.security.auth.module.Krb5LoginModule required;",
            ),
            ("zookeeper.session.timeout.ms", "0"),
            ("zookeeper.connection.timeout.ms", "-1"),
        ] {
            let settings = [("zookeeper.connect", "a:2181"), (key, text)];
            let error = BrokerConfig::from_settings(&settings).unwrap_err().to_string();
            assert!(error.contains(key), "{error}");
            BrokerConfig::from_settings(&[(key, text)]).unwrap();
        }
    }

    #[test]
    fn who_we_are_comes_from_the_settings_or_from_the_jaas_file_of_java_options() {
        let connect = ("zookeeper.connect".to_owned(), "a:2181".to_owned());
        let path = std::env::temp_dir().join(format!("milena-jaas-{}", std::process::id()));
        let class = "org.apache.zookeeper.server.auth.DigestLoginModule";
        std::fs::write(
            &path,
            format!("Client {{ {class} required username=\"k\" password=\"s\"; }};"),
        )
        .unwrap();
        let options = format!("-Djava.security.auth.login.config={}", path.display());
        let environment = [("KAFKA_OPTS".to_owned(), options.clone())];
        let set_acl = ("zookeeper.set.acl".to_owned(), "true".to_owned());
        let told = [connect.clone(), set_acl];
        let (config, warnings) = BrokerConfig::load(None, &told, environment.clone()).unwrap();
        assert_eq!(warnings, []);
        let zookeeper = config.zookeeper.unwrap();
        let sasl = zookeeper.sasl.unwrap();
        assert_eq!(
            (sasl.username.as_str(), sasl.password.as_str(), zookeeper.set_acl),
            ("k", "s", true)
        );
        let own = (
            super::LOGIN_KEY.to_owned(),
            format!("{class} required username=own password=\"t\";"),
        );
        let told = [connect.clone(), own];
        let (config, _) = BrokerConfig::load(None, &told, environment).unwrap();
        assert_eq!(config.zookeeper.unwrap().sasl.unwrap().username, "own");
        let off = [(
            "KAFKA_OPTS".to_owned(),
            format!("{options} -Dzookeeper.sasl.client=false"),
        )];
        let error = BrokerConfig::load(None, std::slice::from_ref(&connect), off)
            .unwrap_err()
            .to_string();
        assert!(error.contains("zookeeper.sasl.client is false"), "{error}");
        std::fs::remove_file(&path).unwrap();
        let gone = [("KAFKA_OPTS".to_owned(), options)];
        let error = BrokerConfig::load(None, &[connect], gone)
            .unwrap_err()
            .to_string();
        assert!(error.starts_with("environment variable KAFKA_OPTS: "), "{error}");
    }
}
