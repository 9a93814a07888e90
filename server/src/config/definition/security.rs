//! Definitions: TLS, SASL, delegation tokens and stored passwords.
//!
//! Names, types, defaults, limits and dynamic kinds are Kafka 2.7.2's (`KafkaConfig.scala`,
//! `LogConfig.scala`, `DynamicBrokerConfig.scala`); the sentences and the effect are ours. One row: name,
//! type, default, limits, importance, how it may change while running, effect; sentence.

use super::*;

definitions! {
    SECURITY;

    "connections.max.reauth.ms": Long = "0", ANY, Medium, Fixed, NoEffectHere(SASL);
        "A SASL client must authenticate again after this time, in milliseconds; 0 never.";
    "security.providers": String = none, ANY, Low, Fixed, NoEffectHere(JAVA);
        "Java classes that provide security algorithms.";
    "principal.builder.class": Class = none, ANY, Medium, PerBroker, NoEffectHere(SASL);
        "Java class that names the user of a connection.";
    "ssl.protocol": String = "TLSv1.3", ANY, Medium, PerBroker, NoEffectHere(SSL);
        "TLS version to negotiate.";
    "ssl.provider": String = none, ANY, Medium, PerBroker, NoEffectHere(JAVA);
        "Java security provider for TLS.";
    "ssl.enabled.protocols": List = "TLSv1.2,TLSv1.3", ANY, Medium, PerBroker, NoEffectHere(SSL);
        "TLS versions allowed.";
    "ssl.keystore.type": String = "JKS", ANY, Medium, ListenerPrefix, NoEffectHere(SSL);
        "Format of the key store.";
    "ssl.keystore.location": String = none, ANY, Medium, ListenerPrefix, NoEffectHere(SSL);
        "File with this broker's private key and certificate.";
    "ssl.keystore.password": Password = none, ANY, Medium, ListenerPrefix, NoEffectHere(SSL);
        "Password of the key store.";
    "ssl.key.password": Password = none, ANY, Medium, ListenerPrefix, NoEffectHere(SSL);
        "Password of the private key.";
    "ssl.keystore.key": Password = none, ANY, Medium, ListenerPrefix, NoEffectHere(SSL);
        "The private key itself, in PEM.";
    "ssl.keystore.certificate.chain": Password = none, ANY, Medium, ListenerPrefix, NoEffectHere(SSL);
        "The certificate chain itself, in PEM.";
    "ssl.truststore.type": String = "JKS", ANY, Medium, ListenerPrefix, NoEffectHere(SSL);
        "Format of the trust store.";
    "ssl.truststore.location": String = none, ANY, Medium, ListenerPrefix, NoEffectHere(SSL);
        "File with the certificates that are trusted.";
    "ssl.truststore.password": Password = none, ANY, Medium, ListenerPrefix, NoEffectHere(SSL);
        "Password of the trust store.";
    "ssl.truststore.certificates": Password = none, ANY, Medium, ListenerPrefix, NoEffectHere(SSL);
        "The trusted certificates themselves, in PEM.";
    "ssl.keymanager.algorithm": String = "SunX509", ANY, Medium, PerBroker, NoEffectHere(JAVA);
        "Java algorithm of the key manager.";
    "ssl.trustmanager.algorithm": String = "PKIX", ANY, Medium, PerBroker, NoEffectHere(JAVA);
        "Java algorithm of the trust manager.";
    "ssl.endpoint.identification.algorithm": String = "https", ANY, Low, PerBroker, NoEffectHere(SSL);
        "Whether a server's host name is verified: https, or empty for no.";
    "ssl.secure.random.implementation": String = none, ANY, Low, PerBroker, NoEffectHere(JAVA);
        "Java source of random numbers for TLS.";
    "ssl.client.auth": String = "none", one_of(&["required", "requested", "none"]), Medium, PerBroker,
        NoEffectHere(SSL);
        "Whether clients need a certificate: required, requested or none.";
    "ssl.cipher.suites": List = "", ANY, Medium, PerBroker, NoEffectHere(SSL);
        "Cipher suites allowed.";
    "ssl.principal.mapping.rules": String = "DEFAULT", ANY, Low, Fixed, NoEffectHere(SSL);
        "Rules that make a user name of a certificate's subject.";
    "ssl.engine.factory.class": Class = none, ANY, Low, PerBroker, NoEffectHere(JAVA);
        "Java class that makes TLS engines.";
    "sasl.mechanism.inter.broker.protocol": String = "GSSAPI", ANY, Medium, PerBroker, NoEffectHere(SASL);
        "SASL mechanism between brokers.";
    "sasl.jaas.config": Password = none, ANY, Medium, PerBroker, NoEffectHere(SASL);
        "JAAS login configuration.";
    "sasl.enabled.mechanisms": List = "GSSAPI", ANY, Medium, PerBroker, NoEffectHere(SASL);
        "SASL mechanisms that clients may use.";
    "sasl.server.callback.handler.class": Class = none, ANY, Medium, Fixed, NoEffectHere(JAVA);
        "Java class that answers a SASL server's questions.";
    "sasl.client.callback.handler.class": Class = none, ANY, Medium, Fixed, NoEffectHere(JAVA);
        "Java class that answers a SASL client's questions.";
    "sasl.login.class": Class = none, ANY, Medium, Fixed, NoEffectHere(JAVA);
        "Java class that logs in.";
    "sasl.login.callback.handler.class": Class = none, ANY, Medium, Fixed, NoEffectHere(JAVA);
        "Java class that answers a login's questions.";
    "sasl.kerberos.service.name": String = none, ANY, Medium, PerBroker, NoEffectHere(SASL);
        "Kerberos service name of the brokers.";
    "sasl.kerberos.kinit.cmd": String = "/usr/bin/kinit", ANY, Medium, PerBroker, NoEffectHere(SASL);
        "Path of kinit.";
    "sasl.kerberos.ticket.renew.window.factor": Double = "0.8", ANY, Medium, PerBroker, NoEffectHere(SASL);
        "Share of a ticket's life after which it is renewed.";
    "sasl.kerberos.ticket.renew.jitter": Double = "0.05", ANY, Medium, PerBroker, NoEffectHere(SASL);
        "Share of chance in the time of renewal.";
    "sasl.kerberos.min.time.before.relogin": Long = "60000", ANY, Medium, PerBroker, NoEffectHere(SASL);
        "Shortest time between two logins, in milliseconds.";
    "sasl.kerberos.principal.to.local.rules": List = "DEFAULT", ANY, Medium, PerBroker, NoEffectHere(SASL);
        "Rules that make a user name of a Kerberos principal.";
    "sasl.login.refresh.window.factor": Double = "0.8", ANY, Medium, PerBroker, NoEffectHere(SASL);
        "Share of a token's life after which it is renewed.";
    "sasl.login.refresh.window.jitter": Double = "0.05", ANY, Medium, PerBroker, NoEffectHere(SASL);
        "Share of chance in the time of a token's renewal.";
    "sasl.login.refresh.min.period.seconds": Short = "60", ANY, Medium, PerBroker, NoEffectHere(SASL);
        "Shortest time between two renewals of a token, in seconds.";
    "sasl.login.refresh.buffer.seconds": Short = "300", ANY, Medium, PerBroker, NoEffectHere(SASL);
        "Time before its end at which a token is renewed, in seconds.";
    "delegation.token.master.key": Password = none, ANY, Medium, Fixed, RefusesToStart(TOKENS);
        "Secret that signs delegation tokens.";
    "delegation.token.max.lifetime.ms": Long = "604800000", at_least(1), Medium, Fixed, NoEffectHere(SASL);
        "Longest life of a delegation token, in milliseconds.";
    "delegation.token.expiry.time.ms": Long = "86400000", at_least(1), Medium, Fixed, NoEffectHere(SASL);
        "Life of a delegation token that is not renewed, in milliseconds.";
    "delegation.token.expiry.check.interval.ms": Long = "3600000", at_least(1), Low, Fixed,
        NoEffectHere(SASL);
        "Time between two looks for expired tokens, in milliseconds.";
    "password.encoder.secret": Password = none, ANY, Medium, Fixed, RefusesToStart(PASSWORDS);
        "Secret that encrypts passwords stored as dynamic settings.";
    "password.encoder.old.secret": Password = none, ANY, Medium, Fixed, RefusesToStart(PASSWORDS);
        "The secret used before, for a change of secrets.";
    "password.encoder.keyfactory.algorithm": String = none, ANY, Low, Fixed, NoEffectHere(PASSWORDS_UNUSED);
        "Key factory of the password encryption.";
    "password.encoder.cipher.algorithm": String = "AES/CBC/PKCS5Padding", ANY, Low, Fixed,
        NoEffectHere(PASSWORDS_UNUSED);
        "Cipher of the password encryption.";
    "password.encoder.key.length": Int = "128", at_least(8), Low, Fixed, NoEffectHere(PASSWORDS_UNUSED);
        "Key length of the password encryption, in bits.";
    "password.encoder.iterations": Int = "4096", at_least(1024), Low, Fixed, NoEffectHere(PASSWORDS_UNUSED);
        "Iterations of the password encryption.";
}
