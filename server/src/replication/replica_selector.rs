//! From which replica a consumer had better read (KIP-392, `ReplicaManager.findPreferredReadReplica`,
//! `RackAwareReplicaSelector.java`).

use std::cmp::Reverse;
use std::time::Duration;

use milena_engine::units::Offset;

/// A replica that has what the consumer asks for and that the consumer can reach.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaView<'v> {
    pub broker: i32,
    pub rack: Option<&'v str>,
    pub log_end: Offset,
    /// How long ago it had all that the leader had.
    pub since_caught_up: Duration,
}

/// The other replica that a consumer in `rack` reads from; `None` if the leader does as well. Of several in its rack the one that
/// came farthest, then the one that was caught up last, then the one with the highest id.
pub fn rack_aware<'v>(
    rack: &str,
    leader_rack: Option<&str>,
    others: impl Iterator<Item = ReplicaView<'v>>,
) -> Option<i32> {
    if rack.is_empty() || leader_rack == Some(rack) {
        return None;
    }
    let near = others.filter(|view| view.rack == Some(rack));
    near.max_by_key(|view| (view.log_end, Reverse(view.since_caught_up), view.broker))
        .map(|view| view.broker)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_consumer_reads_in_its_own_rack_if_a_replica_there_has_what_it_wants() {
        let view = |broker, rack, end, seconds| ReplicaView {
            broker,
            rack: Some(rack),
            log_end: Offset(end),
            since_caught_up: Duration::from_secs(seconds),
        };
        let others = [
            view(2, "b", 10, 0),
            view(3, "c", 9, 0),
            view(4, "c", 10, 2),
            view(5, "c", 10, 1),
            view(6, "c", 10, 1),
        ];
        for (rack, expected) in [
            ("a", None),
            ("b", Some(2)),
            ("c", Some(6)),
            ("d", None),
            ("", None),
        ] {
            assert_eq!(
                rack_aware(rack, Some("a"), others.iter().cloned()),
                expected,
                "{rack}"
            );
        }
        assert_eq!(rack_aware("b", None, others.into_iter()), Some(2));
    }
}
