//! What is refused at the start, in which words, and what listeners and limits come out.

use super::*;

/// The texts of all problems with these settings, without what was found.
fn problems(settings: &[(&str, &str)]) -> Vec<String> {
    let error = BrokerConfig::from_settings(settings).err();
    let problems = error.into_iter().flat_map(|error| error.problems);
    let text = |message: &str| message.split(" (found: ").next().map(str::to_owned);
    problems.filter_map(|problem| text(&problem.message)).collect()
}

#[test]
fn settings_that_contradict_each_other_are_refused_in_kafkas_words() {
    let cases: &[(&[(&str, &str)], &str)] = &[
        (
            &[("broker.id", "1001")],
            "broker.id must be equal or greater than -1 and not greater than reserved.broker.max.id",
        ),
        (
            &[("broker.id.generation.enable", "false")],
            "broker.id must be equal or greater than 0",
        ),
        (
            &[("log.roll.ms", "0")],
            "log.roll.ms must be equal or greater than 1",
        ),
        (
            &[("log.retention.minutes", "0")],
            "log.retention.ms must be unlimited (-1) or, equal or greater than 1",
        ),
        (
            &[("log.dirs", " , ")],
            "At least one log directory must be defined via log.dirs or log.dir.",
        ),
        (
            &[("log.cleaner.threads", "0")],
            "log.cleaner.dedupe.buffer.size must be at least 1MB per cleaner thread.",
        ),
        (
            &[
                ("replica.fetch.wait.max.ms", "40000"),
                ("replica.lag.time.max.ms", "50000"),
            ],
            "replica.socket.timeout.ms should always be at least replica.fetch.wait.max.ms to prevent \
             unnecessary socket timeouts",
        ),
        (
            &[("offsets.commit.required.acks", "2")],
            "offsets.commit.required.acks must be greater or equal -1 and less or equal to \
             offsets.topic.replication.factor",
        ),
        (
            &[("compression.type", "none")],
            "compression.type : none is not valid. Valid options are \
             uncompressed,zstd,lz4,snappy,gzip,producer",
        ),
        (
            &[("inter.broker.protocol.version", "0.10.0")],
            "log.message.format.version 2.7-IV2 can only be used when inter.broker.protocol.version is \
             set \
             to version 0.11.0 or higher",
        ),
        (
            &[
                ("zookeeper.connect", "a:2181"),
                ("inter.broker.protocol.version", "0.11.0-IV1"),
            ],
            "inter.broker.protocol.version 0.11.0-IV1 cannot be served in a cluster: followers would cut their logs at \
             the high watermark, which loses acknowledged records (KIP-101) (allowed: 0.11.0-IV2 or later)",
        ),
        (
            &[("queued.max.request.bytes", "5")],
            "queued.max.request.bytes must be larger or equal to socket.request.max.bytes",
        ),
        (
            &[("max.connections.per.ip", "0")],
            "max.connections.per.ip can be set to zero only if max.connections.per.ip.overrides \
             property is \
             set.",
        ),
        (
            &[("max.connections.per.ip.overrides", "a b:1")],
            "max.connections.per.ip.overrides contains invalid addresses : a b",
        ),
        (
            &[("connections.max.idle.ms", "100")],
            "connection.failed.authentication.delay.ms=100 should always be less than \
             connections.max.idle.ms=100 to prevent failed authentication responses from timing out",
        ),
        (
            &[("listeners", "PLAINTEXT://0.0.0.0:9092")],
            "advertised.listeners cannot use the nonroutable meta-address 0.0.0.0. Use a routable IP \
             address.",
        ),
        (
            &[("advertised.listeners", "PLAINTEXT://a:1,SSL://a:2")],
            "advertised.listeners listener names must be equal to or a subset of the ones defined in \
             listeners. Found PLAINTEXT,SSL. The valid options based on the current configuration are \
             PLAINTEXT",
        ),
        (
            &[("inter.broker.listener.name", "ssl")],
            "inter.broker.listener.name must be a listener name defined in advertised.listeners. The \
             valid \
             options based on currently configured listeners are PLAINTEXT",
        ),
        (
            &[
                ("inter.broker.listener.name", "X"),
                ("security.inter.broker.protocol", "PLAINTEXT"),
            ],
            "Only one of inter.broker.listener.name and security.inter.broker.protocol should be set.",
        ),
        (
            &[("inter.broker.listener.name", "X")],
            "Listener with name X defined in inter.broker.listener.name not found in \
             listener.security.protocol.map.",
        ),
        (
            &[("log.flush.interval.ms", "-1")],
            "Invalid value -1 for configuration log.flush.interval.ms: Value must be at least 0",
        ),
        (
            &[("offsets.topic.compression.codec", "5")],
            "5 is an unknown compression codec (0 none, 1 gzip, 2 snappy, 3 lz4, 4 zstd)",
        ),
    ];
    for (settings, expected) in cases {
        assert_eq!(problems(settings), [*expected], "{settings:?}");
    }
}

#[test]
fn what_is_not_built_and_would_weaken_the_node_is_refused_by_name() {
    for (key, text) in [
        ("authorizer.class.name", "kafka.security.authorizer.AclAuthorizer"),
        ("create.topic.policy.class.name", "a.B"),
        ("alter.config.policy.class.name", "a.B"),
        ("client.quota.callback.class", "a.B"),
        ("password.encoder.secret", "x"),
        ("delegation.token.master.key", "x"),
        ("config.providers", "file"),
    ] {
        let found = problems(&[(key, text)]);
        assert!(
            found.len() == 1 && found[0].starts_with(&format!("{key} cannot be set: ")),
            "{found:?}"
        );
        assert_eq!(
            problems(&[(key, " ")]).is_empty(),
            key != "config.providers",
            "{key} is not set"
        );
    }
    let found = problems(&[
        ("listeners", "PLAINTEXT://a:1,SSL://a:2"),
        ("advertised.listeners", "PLAINTEXT://a:1"),
    ]);
    assert_eq!(
        found,
        ["listener SSL://a:2 needs SSL, which is not built yet; only PLAINTEXT listeners can be served"]
    );
}

#[test]
fn listeners_come_from_the_old_keys_too() {
    let shown = |settings: &[(&str, &str)]| {
        let config = BrokerConfig::from_settings(settings).unwrap();
        let text = |list: &[EndPoint]| list.iter().map(EndPoint::to_string).collect::<Vec<_>>().join(" ");
        format!(
            "{} as {}",
            text(&config.listeners),
            text(&config.advertised_listeners)
        )
    };
    assert_eq!(
        shown(&[]),
        "PLAINTEXT://127.0.0.1:9092 as PLAINTEXT://127.0.0.1:9092"
    );
    assert_eq!(shown(&[("port", "7")]), "PLAINTEXT://:7 as PLAINTEXT://:7");
    assert_eq!(
        shown(&[("host.name", "h"), ("advertised.port", "8")]),
        "PLAINTEXT://h:9092 as PLAINTEXT://h:8"
    );
    assert_eq!(
        shown(&[
            ("listeners", "A://:1,PLAINTEXT://:2"),
            (
                "listener.security.protocol.map",
                "A:PLAINTEXT,PLAINTEXT:PLAINTEXT"
            )
        ]),
        "A://:1 PLAINTEXT://:2 as A://:1 PLAINTEXT://:2"
    );
}

#[test]
fn typed_values_follow_the_texts() {
    let config = BrokerConfig::from_settings(&[
        ("log.dirs", "/a, /b,"),
        ("broker.id", "7"),
        ("socket.send.buffer.bytes", "-1"),
        ("connections.max.idle.ms", "-1"),
        ("max.connections.per.ip.overrides", "10.0.0.1:5, ::1:6"),
        ("offsets.retention.minutes", "2"),
        ("milena.io.backend", "syscall"),
    ]);
    let config = config.unwrap();
    assert_eq!(config.log_dirs, [PathBuf::from("/a"), PathBuf::from("/b")]);
    assert_eq!(
        (config.broker_id, config.network.socket_send_buffer_bytes),
        (Some(7), None)
    );
    assert_eq!(config.network.connections_max_idle_ms, None);
    let overrides = [("10.0.0.1".to_owned(), 5), ("::1".to_owned(), 6)];
    assert_eq!(config.network.max_connections_per_ip_overrides, overrides);
    assert_eq!(
        (config.offsets.retention_ms, config.io_backend),
        (120_000, IoBackend::Syscall)
    );
    assert_eq!(BrokerConfig::from_settings(&[]).unwrap().broker_id, None);
}

#[test]
fn the_listener_of_controllers_is_advertised_and_not_that_of_brokers() {
    let map = (
        "listener.security.protocol.map",
        "PLAINTEXT:PLAINTEXT,CONTROL:PLAINTEXT",
    );
    let listeners = ("listeners", "PLAINTEXT://a:1,CONTROL://a:2");
    let key = "control.plane.listener.name";
    let config = BrokerConfig::from_settings(&[map, listeners, (key, "control")]).unwrap();
    assert_eq!(config.control_plane_listener_name.unwrap().as_str(), "CONTROL");
    for (settings, expected) in [
        (
            vec![map, listeners, (key, "PLAINTEXT")],
            "control.plane.listener.name, when defined, should have a different value from the inter broker listener name. \
             Currently they both have the value PLAINTEXT",
        ),
        (
            vec![map, ("listeners", "PLAINTEXT://a:1"), (key, "CONTROL")],
            "control.plane.listener.name must be a listener name defined in advertised.listeners. The valid options based \
             on currently configured listeners are PLAINTEXT",
        ),
        (
            vec![listeners, map, (key, "OTHER")],
            "Listener with OTHER defined in control.plane.listener.name not found in listener.security.protocol.map.",
        ),
    ] {
        let found = problems(&settings);
        assert!(found.len() == 1 && found[0].starts_with(expected), "{found:?}");
    }
}
