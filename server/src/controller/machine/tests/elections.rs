//! Dialogues about leaders that are lost and found again.

use super::*;

#[test]
fn a_dead_broker_loses_its_leaderships_and_leaves_the_in_sync_sets() {
    let reading = ClusterReading {
        brokers: vec![broker(0, 11), broker(1, 12)],
        topics: vec![
            ("t".into(), assignment(&[&[1, 0]])),
            ("u".into(), assignment(&[&[0, 1]])),
        ],
        states: vec![
            (at("t", 0), state(1, 0, &[1, 0], 0)),
            (at("u", 0), state(0, 0, &[0, 1], 0)),
        ],
        ..ClusterReading::default()
    };
    let (mut dialogue, _) = Dialogue::elected(reading);
    assert_eq!(dialogue.tell(Input::Brokers(vec![broker(0, 11)])), ["read [t-0]"]);
    let states = vec![(at("t", 0), state(1, 0, &[1, 0], 0))];
    let said = dialogue.tell(Input::StatesRead(StatesReading {
        states,
        ..Default::default()
    }));
    assert!(
        said[0].contains(r#""leader":0,"version":1,"leader_epoch":1,"isr":[0]"#),
        "{said:?}"
    );
    let said = dialogue.written();
    assert_eq!(
        said,
        ["0 leads t-0 0@1 [0]", "0 hears of [0] t-0 0", "read [t-0, u-0]"]
    );
    let states = vec![
        (at("t", 0), state(0, 1, &[0], 1)),
        (at("u", 0), state(0, 0, &[0, 1], 0)),
    ];
    let said = dialogue.tell(Input::StatesRead(StatesReading {
        states,
        ..Default::default()
    }));
    assert!(
        said[0].starts_with("write =/brokers/topics/u/partitions/0/state"),
        "{said:?}"
    );
    // t-0 is told again: that its replica is out is news to the leader, as in Kafka.
    assert_eq!(
        dialogue.written(),
        ["0 leads t-0 0@1 [0], u-0 0@1 [0]", "0 hears of [0] t-0 0, u-0 0"]
    );
}

#[test]
fn a_state_that_changed_meanwhile_is_read_again_and_the_others_stand() {
    let reading = ClusterReading {
        brokers: vec![broker(0, 11)],
        topics: vec![("t".into(), assignment(&[&[0], &[0]]))],
        states: vec![
            (at("t", 0), state(-1, 0, &[0], 0)),
            (at("t", 1), state(-1, 0, &[0], 0)),
        ],
        ..ClusterReading::default()
    };
    let (mut dialogue, said) = Dialogue::elected(reading);
    assert_eq!(said.last().unwrap(), "read [t-0, t-1]");
    let states = vec![
        (at("t", 0), state(-1, 0, &[0], 0)),
        (at("t", 1), state(-1, 0, &[0], 0)),
    ];
    dialogue.tell(Input::StatesRead(StatesReading {
        states,
        ..Default::default()
    }));
    let said = dialogue.refused(1, bad_version());
    assert!(said[0].contains("/t/partitions/1/state") && !said[0].contains("/t/partitions/0/state"));
    assert_eq!(dialogue.written(), ["read [t-0]"]);
    let states = vec![(at("t", 0), state(-1, 0, &[0], 1))];
    let said = dialogue.tell(Input::StatesRead(StatesReading {
        states,
        ..Default::default()
    }));
    assert!(said[0].ends_with("Exactly(1)"));
    let said = dialogue.written();
    assert_eq!(said[0], "0 leads t-0 0@1 [0], t-1 0@1 [0]");
}

/// Partitions 0 and 1 of both topics are led by broker 1 alone, which is dead; broker 0 has replicas that fell behind.
fn leaderless() -> Dialogue {
    let behind = |topic: &str| {
        let topic: Arc<str> = topic.into();
        (topic, assignment(&[&[1, 0], &[1, 0]]))
    };
    let led = |topic: &str, number| (at(topic, number), state(-1, 3, &[1], 4));
    let (mut dialogue, _) = Dialogue::elected(ClusterReading {
        brokers: vec![broker(0, 20)],
        topics: vec![behind("t"), behind("u")],
        states: vec![led("t", 0), led("t", 1), led("u", 0), led("u", 1)],
        ..ClusterReading::default()
    });
    // The dead broker's replicas, then the election: nobody in sync is alive.
    while let Some(waiting) = &dialogue.machine.waiting {
        if matches!(waiting, Waiting::UncleanTopics { .. }) {
            dialogue.tell(Input::UncleanTopics(BTreeSet::new()));
            continue;
        }
        let states = vec![led("t", 0), led("t", 1), led("u", 0), led("u", 1)];
        dialogue.tell(Input::StatesRead(StatesReading {
            states,
            ..StatesReading::default()
        }));
    }
    dialogue
}

#[test]
fn where_unclean_elections_are_enabled_leaderless_partitions_of_that_topic_get_leaders_at_once() {
    let mut dialogue = leaderless();
    let topic = Some(Arc::from("t"));
    assert_eq!(
        dialogue.tell(Input::UncleanLeaderElectionEnabled { topic }),
        ["read [t-0, t-1]"]
    );
    let reading = StatesReading {
        states: vec![
            (at("t", 0), state(-1, 3, &[1], 4)),
            (at("t", 1), state(-1, 3, &[1], 4)),
        ],
        failed: None,
    };
    assert_eq!(dialogue.tell(Input::StatesRead(reading)), [r#"unclean? {"t"}"#]);
    let written = dialogue.tell(Input::UncleanTopics(BTreeSet::from(["t".into()])));
    assert_eq!(written.len(), 1);
    assert!(
        written[0].contains(r#""leader":0,"version":1,"leader_epoch":4,"isr":[0]"#),
        "{written:?}"
    );
    assert_eq!(
        dialogue.written(),
        ["0 leads t-0 0@4 [0], t-1 0@4 [0]", "0 hears of [0] t-0 0, t-1 0"]
    );
}

#[test]
fn where_unclean_elections_are_enabled_by_default_all_leaderless_partitions_are_looked_at() {
    let mut dialogue = leaderless();
    assert_eq!(
        dialogue.tell(Input::UncleanLeaderElectionEnabled { topic: None }),
        ["read [t-0, t-1, u-0, u-1]"]
    );
}

#[test]
fn enabling_unclean_elections_moves_no_leader_and_nothing_at_all_on_standby() {
    let mut dialogue = Dialogue::alone();
    dialogue.topics(&["t"], vec![("t", assignment(&[&[0]]))]);
    dialogue.written();
    for topic in [None, Some(Arc::from("t")), Some(Arc::from("unknown"))] {
        assert_eq!(
            dialogue.tell(Input::UncleanLeaderElectionEnabled { topic }),
            [""; 0]
        );
    }
    dialogue.tell(Input::Resigned);
    assert_eq!(
        dialogue.tell(Input::UncleanLeaderElectionEnabled { topic: None }),
        [""; 0]
    );
}
