//! `zookeeper.*`: how a broker of a cluster reaches the ensemble in which the cluster lives.
//!
//! Without `zookeeper.connect` there is none of it: the broker stands alone. Source: `KafkaConfig.scala`.

use std::path::PathBuf;

use super::jaas;
use super::sources::Values;
use crate::coordination::zookeeper::{AuthInfo, ConnectString, Credentials, TlsVersion};

/// Who this broker is at ZooKeeper.
pub(super) const LOGIN_KEY: &str = "milena.zookeeper.sasl.jaas.config";
const DIGEST_KEY: &str = "milena.zookeeper.digest";
const CONVERSION: &str = "keytool -importkeystore -deststoretype PKCS12 .., then openssl pkcs12 -nodes ..";
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
    /// `milena.zookeeper.digest`
    pub digest: Option<AuthInfo>,
    /// `zookeeper.ssl.client.enable`
    pub tls: Option<ZooKeeperTls>,
}

/// `zookeeper.ssl.*`: files in PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ZooKeeperTls {
    /// `zookeeper.ssl.truststore.location`
    pub truststore: PathBuf,
    /// `zookeeper.ssl.keystore.location`: certificates and key.
    pub keystore: Option<PathBuf>,
    /// `zookeeper.ssl.enabled.protocols`, else `zookeeper.ssl.protocol`; at least one.
    pub versions: Vec<TlsVersion>,
    /// `zookeeper.ssl.endpoint.identification.algorithm` is not empty.
    pub verifies_host_name: bool,
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
    let tls = match values.boolean("zookeeper.ssl.client.enable") {
        true => Some(tls(values, &mut wrong)?),
        false => None,
    };
    let login = values.text(LOGIN_KEY).map(credentials).transpose();
    let sasl = login
        .map_err(|reason| wrong(LOGIN_KEY, format!("{LOGIN_KEY}: {reason}"), Some(LOGIN)))
        .ok()?;
    let digest = match values.text(DIGEST_KEY) {
        Some(text) if text.find(':').is_none_or(|name_size| name_size == 0) => {
            let message = format!("{DIGEST_KEY} is no name and password");
            wrong(DIGEST_KEY, message, Some("name:password"));
            return None;
        }
        text => text.map(|text| AuthInfo {
            scheme: "digest".to_owned(),
            credentials: text.as_bytes().to_vec(),
        }),
    };
    let set_acl = values.boolean("zookeeper.set.acl");
    let has_certificate = tls.as_ref().is_some_and(|tls| tls.keystore.is_some());
    if set_acl && sasl.is_none() && digest.is_none() && !has_certificate {
        let message = "zookeeper.set.acl is true, but nobody says who this broker is at ZooKeeper: there is no \
                       milena.zookeeper.sasl.jaas.config or milena.zookeeper.digest, no Client section in a file that KAFKA_OPTS names by \
                       -Djava.security.auth.login.config, and no zookeeper.ssl.keystore.location with \
                       zookeeper.ssl.client.enable";
        wrong("zookeeper.set.acl", message.to_owned(), None);
    }
    Some(ZooKeeperSettings {
        connect: connect?,
        session_timeout_ms: i32::try_from(session_timeout_ms?).expect("its type is INT"),
        connection_timeout_ms: connection_timeout_ms?,
        max_in_flight_requests: values.u32("zookeeper.max.in.flight.requests"),
        set_acl,
        sasl,
        digest,
        tls,
    })
}

/// `None` after a fault.
fn tls(values: &Values, wrong: &mut impl FnMut(&str, String, Option<&str>)) -> Option<ZooKeeperTls> {
    let mut is_right = true;
    let mut refuse = |key: &str, message: String, allowed: Option<&str>| {
        is_right = false;
        wrong(key, message, allowed);
    };
    let mut store = |kind: &str| {
        let key = format!("zookeeper.ssl.{kind}.location");
        let path = values.text(&key).filter(|text| !text.is_empty())?;
        let stated = values
            .text(&format!("zookeeper.ssl.{kind}.type"))
            .filter(|text| !text.is_empty());
        let is_pem = match stated {
            Some(stated) => stated.eq_ignore_ascii_case("PEM"),
            None => path.ends_with(".pem"),
        };
        if !is_pem {
            let message =
                format!("{key}: only stores in PEM (.pem, or zookeeper.ssl.{kind}.type=PEM) are read here");
            refuse(&key, message, Some(CONVERSION));
        }
        Some(PathBuf::from(path))
    };
    let (truststore, keystore) = (store("truststore"), store("keystore"));
    if truststore.is_none() {
        let key = "zookeeper.ssl.truststore.location";
        let message = format!("{key} is missing: there is no trust store of Java's here to fall back to");
        refuse(key, message, None);
    }
    for key in ["zookeeper.ssl.crl.enable", "zookeeper.ssl.ocsp.enable"] {
        if values.boolean(key) {
            refuse(
                key,
                format!("{key}=true cannot be served: revocation is not looked at yet"),
                None,
            );
        }
    }
    if !values.list("zookeeper.ssl.cipher.suites").is_empty() {
        let key = "zookeeper.ssl.cipher.suites";
        refuse(
            key,
            format!("{key} cannot be chosen here; they are those that rustls takes for safe"),
            None,
        );
    }
    let enabled = values.list("zookeeper.ssl.enabled.protocols");
    let (key, names) = match enabled.is_empty() {
        false => ("zookeeper.ssl.enabled.protocols", enabled),
        true => (
            "zookeeper.ssl.protocol",
            values
                .text("zookeeper.ssl.protocol")
                .map(str::to_owned)
                .into_iter()
                .collect(),
        ),
    };
    let mut versions = Vec::new();
    for name in names {
        match name.as_str() {
            "TLSv1.2" => versions.push(TlsVersion::Tls12),
            "TLSv1.3" => versions.push(TlsVersion::Tls13),
            _ => refuse(
                key,
                format!("{key}: {name} cannot be spoken here"),
                Some("TLSv1.2 and TLSv1.3"),
            ),
        }
    }
    let algorithm = values.text("zookeeper.ssl.endpoint.identification.algorithm");
    let tls = ZooKeeperTls {
        truststore: truststore?,
        keystore,
        versions,
        verifies_host_name: algorithm.is_some_and(|algorithm| !algorithm.trim().is_empty()),
    };
    is_right.then_some(tls)
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
    use super::TlsVersion;
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
            ("zookeeper.set.acl", "true"),
            (
                "milena.zookeeper.sasl.jaas.config",
                "com.sun.security.auth.module.Krb5LoginModule required;",
            ),
            ("milena.zookeeper.digest", ":secret"),
            ("milena.zookeeper.digest", "secret"),
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

    #[test]
    fn tls_is_served_by_stores_in_pem_and_the_rest_is_refused_by_name() {
        let on = [
            ("zookeeper.connect", "a:2182"),
            ("zookeeper.ssl.client.enable", "true"),
            (
                "zookeeper.clientCnxnSocket",
                "org.apache.zookeeper.ClientCnxnSocketNetty",
            ),
            ("zookeeper.ssl.truststore.location", "/t.pem"),
        ];
        let with = |more: &[(&'static str, &'static str)]| [&on[..], more].concat();
        let tls = |settings: &[(&str, &str)]| {
            BrokerConfig::from_settings(settings)
                .unwrap()
                .zookeeper
                .unwrap()
                .tls
        };
        let plain = tls(&on).unwrap();
        assert_eq!(
            (plain.versions, plain.verifies_host_name, plain.keystore),
            (vec![TlsVersion::Tls12], true, None)
        );
        let more = tls(&with(&[
            ("zookeeper.ssl.enabled.protocols", "TLSv1.3,TLSv1.2"),
            ("zookeeper.ssl.endpoint.identification.algorithm", ""),
            ("zookeeper.ssl.keystore.location", "/k"),
            ("zookeeper.ssl.keystore.type", "PEM"),
            ("zookeeper.set.acl", "true"),
        ]));
        let more = more.unwrap();
        assert_eq!(more.versions, [TlsVersion::Tls13, TlsVersion::Tls12]);
        assert!(!more.verifies_host_name && more.keystore.is_some());
        for (key, text) in [
            ("zookeeper.ssl.truststore.location", "/t.jks"),
            ("zookeeper.ssl.truststore.type", "JKS"),
            ("zookeeper.ssl.keystore.location", "/k.p12"),
            ("zookeeper.ssl.crl.enable", "true"),
            ("zookeeper.ssl.ocsp.enable", "true"),
            ("zookeeper.ssl.cipher.suites", "TLS_RSA_WITH_AES_128_CBC_SHA"),
            ("zookeeper.ssl.protocol", "SSLv3"),
            ("zookeeper.ssl.enabled.protocols", "TLSv1.1"),
            ("zookeeper.set.acl", "true"),
        ] {
            let error = BrokerConfig::from_settings(&with(&[(key, text)]))
                .unwrap_err()
                .to_string();
            assert!(error.contains(&key.replace(".type", ".location")), "{error}");
        }
        let error = BrokerConfig::from_settings(&on[..3]).unwrap_err().to_string();
        assert!(
            error.contains("zookeeper.ssl.truststore.location is missing"),
            "{error}"
        );
    }
}
