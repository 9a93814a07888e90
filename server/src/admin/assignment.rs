//! Where replicas of new partitions go: round robin over the brokers, and over their racks if all have one.
//!
//! The first replicas of consecutive partitions lie on consecutive brokers, from a start that is chosen at random; the others
//! follow at a distance that grows with every round, so that the partitions of one broker have their followers spread. Source:
//! `kafka.admin.AdminUtils`.

use std::collections::{BTreeMap, BTreeSet};

use super::error::{AdminError, AdminErrorKind};

/// Partitions of one topic.
///
/// **Deviation:** Kafka has no limit of its own and fails when the assignment outgrows a node of ZooKeeper (1 MiB, of which a
/// partition takes some 12 bytes); a request must not make the broker allocate without end before that.
pub const PARTITION_COUNT_MAX: i32 = 100_000;

/// A broker that can take replicas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    pub id: i32,
    pub rack: Option<String>,
}

/// What happens to racks if only some brokers have one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RackAwareness {
    /// The wish is refused.
    Enforced,
    /// They are ignored (automatic creation).
    Safe,
}

/// Where to begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    Random,
    /// This index among the brokers, for partitions that join others.
    Fixed {
        index: usize,
        first_partition: i32,
    },
}

/// Replicas of `partition_count` new partitions, by partition. `brokers` are sorted by id.
///
/// # Errors
/// Counts that are not positive, more replicas than brokers, racks on some brokers only.
pub fn assign_replicas(
    brokers: &[Candidate],
    partition_count: i32,
    replication_factor: i32,
    racks: RackAwareness,
    start: Start,
) -> Result<BTreeMap<i32, Vec<i32>>, AdminError> {
    let refuse = |kind, message: String| Err(AdminError::new(kind, message));
    if partition_count <= 0 {
        return refuse(
            AdminErrorKind::InvalidPartitions,
            "Number of partitions must be larger than 0.".into(),
        );
    }
    if partition_count > PARTITION_COUNT_MAX {
        return refuse(
            AdminErrorKind::InvalidPartitions,
            format!(
                "A topic cannot have more than {PARTITION_COUNT_MAX} partitions, requested were {partition_count}."
            ),
        );
    }
    if replication_factor <= 0 {
        return refuse(
            AdminErrorKind::InvalidReplicationFactor,
            "Replication factor must be larger than 0.".into(),
        );
    }
    let Some(replica_count) = usize::try_from(replication_factor)
        .ok()
        .filter(|count| *count <= brokers.len())
    else {
        return refuse(
            AdminErrorKind::InvalidReplicationFactor,
            format!(
                "Replication factor: {replication_factor} larger than available brokers: {}.",
                brokers.len()
            ),
        );
    };
    let with_rack = brokers.iter().filter(|broker| broker.rack.is_some()).count();
    let by_rack = match (with_rack, racks) {
        (0, _) => false,
        (all, _) if all == brokers.len() => true,
        (_, RackAwareness::Safe) => false,
        (_, RackAwareness::Enforced) => {
            return refuse(
                AdminErrorKind::UnknownServerError,
                "Not all brokers have rack information for replica rack aware assignment.".into(),
            );
        }
    };
    let ring: Vec<(i32, Option<&str>)> = if by_rack {
        alternate_racks(brokers)
    } else {
        brokers.iter().map(|broker| (broker.id, None)).collect()
    };
    let rack_count = ring
        .iter()
        .filter_map(|(_, rack)| *rack)
        .collect::<BTreeSet<_>>()
        .len();
    let (start_index, mut shift, first) = match start {
        Start::Random => (random(ring.len()), random(ring.len()), 0),
        Start::Fixed {
            index,
            first_partition,
        } => (index, index, first_partition.max(0)),
    };
    let mut assignment = BTreeMap::new();
    for partition in first..first.saturating_add(partition_count) {
        let position = usize::try_from(partition).unwrap_or(0);
        if position > 0 && position.is_multiple_of(ring.len()) {
            shift += 1;
        }
        let leader = (position + start_index) % ring.len();
        let mut replicas = vec![ring[leader].0];
        let mut racks_used: BTreeSet<&str> = ring[leader].1.into_iter().collect();
        let mut step = 0;
        while replicas.len() < replica_count {
            let base = if by_rack { shift * rack_count } else { shift };
            let (id, rack) = ring[follower(leader, base, step, ring.len())];
            step += 1;
            // With racks: one of each before a second of any. Without: the ring never meets a broker twice.
            let rack_is_fine =
                rack.is_none_or(|rack| !racks_used.contains(rack) || racks_used.len() == rack_count);
            if rack_is_fine && !replicas.contains(&id) {
                replicas.push(id);
                racks_used.extend(rack);
            }
        }
        assignment.insert(partition, replicas);
    }
    Ok(assignment)
}

fn follower(leader: usize, shift: usize, step: usize, broker_count: usize) -> usize {
    let distance = 1 + (shift + step) % (broker_count - 1);
    (leader + distance) % broker_count
}

/// One broker of each rack in turn.
fn alternate_racks(brokers: &[Candidate]) -> Vec<(i32, Option<&str>)> {
    let mut racks: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
    for broker in brokers {
        racks
            .entry(broker.rack.as_deref().unwrap_or_default())
            .or_default()
            .push(broker.id);
    }
    let tallest = racks.values().map(Vec::len).max().unwrap_or(0);
    let round = |turn: usize| {
        racks
            .iter()
            .filter_map(move |(rack, ids)| Some((*ids.get(turn)?, Some(*rack))))
    };
    (0..tallest).flat_map(round).collect()
}

fn random(below: usize) -> usize {
    // Without randomness the placement is still right, only the same each time.
    let number = getrandom::u32().unwrap_or(0);
    usize::try_from(number).unwrap_or(0) % below.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn brokers(racks: &[(i32, Option<&str>)]) -> Vec<Candidate> {
        racks
            .iter()
            .map(|(id, rack)| Candidate {
                id: *id,
                rack: rack.map(str::to_owned),
            })
            .collect()
    }

    fn plain(count: i32) -> Vec<Candidate> {
        (0..count).map(|id| Candidate { id, rack: None }).collect()
    }

    const FROM_ZERO: Start = Start::Fixed {
        index: 0,
        first_partition: 0,
    };

    #[test]
    fn replicas_go_round_with_a_distance_that_grows() {
        let found = assign_replicas(&plain(5), 10, 3, RackAwareness::Enforced, FROM_ZERO).unwrap();
        // The table in Kafka's own description of the algorithm.
        let expected = [
            [0, 1, 2],
            [1, 2, 3],
            [2, 3, 4],
            [3, 4, 0],
            [4, 0, 1],
            [0, 2, 3],
            [1, 3, 4],
            [2, 4, 0],
            [3, 0, 1],
            [4, 1, 2],
        ];
        for (partition, replicas) in (0..).zip(expected) {
            assert_eq!(found[&partition], replicas, "partition {partition}");
        }
    }

    #[test]
    fn replicas_of_one_partition_lie_in_different_racks() {
        let six = brokers(&[
            (0, Some("rack1")),
            (1, Some("rack3")),
            (2, Some("rack3")),
            (3, Some("rack2")),
            (4, Some("rack2")),
            (5, Some("rack1")),
        ]);
        assert_eq!(
            alternate_racks(&six)
                .iter()
                .map(|(id, _)| *id)
                .collect::<Vec<_>>(),
            [0, 3, 1, 5, 4, 2]
        );
        let rack = |id: i32| six[usize::try_from(id).unwrap()].rack.clone();
        for start in [FROM_ZERO, Start::Random] {
            let found = assign_replicas(&six, 18, 3, RackAwareness::Enforced, start).unwrap();
            for replicas in found.values() {
                let racks: BTreeSet<_> = replicas.iter().map(|id| rack(*id)).collect();
                assert_eq!(racks.len(), 3, "{replicas:?}");
            }
        }
        let all = assign_replicas(&six, 6, 6, RackAwareness::Enforced, Start::Random).unwrap();
        assert!(
            all.values()
                .all(|replicas| replicas.iter().collect::<BTreeSet<_>>().len() == 6)
        );
    }

    #[test]
    fn new_partitions_continue_where_the_old_ones_ended() {
        let start = Start::Fixed {
            index: 0,
            first_partition: 5,
        };
        let found = assign_replicas(&plain(5), 2, 3, RackAwareness::Enforced, start).unwrap();
        assert_eq!(found[&5], [0, 2, 3]);
        assert_eq!(found.keys().copied().collect::<Vec<_>>(), [5, 6]);
    }

    #[test]
    fn wishes_that_cannot_be_met_are_refused_in_kafkas_words() {
        use AdminErrorKind::*;
        let some = brokers(&[(0, Some("a")), (1, None)]);
        let table = [
            (
                plain(1),
                0,
                1,
                InvalidPartitions,
                "Number of partitions must be larger than 0.",
            ),
            (
                plain(1),
                1,
                0,
                InvalidReplicationFactor,
                "Replication factor must be larger than 0.",
            ),
            (
                plain(1),
                i32::MAX,
                1,
                InvalidPartitions,
                "A topic cannot have more than 100000 partitions, requested were 2147483647.",
            ),
            (
                plain(1),
                1,
                3,
                InvalidReplicationFactor,
                "Replication factor: 3 larger than available brokers: 1.",
            ),
            (
                plain(0),
                1,
                1,
                InvalidReplicationFactor,
                "Replication factor: 1 larger than available brokers: 0.",
            ),
            (
                some.clone(),
                1,
                1,
                UnknownServerError,
                "Not all brokers have rack information for replica rack aware assignment.",
            ),
        ];
        for (brokers, partitions, replicas, kind, message) in table {
            let refused = assign_replicas(
                &brokers,
                partitions,
                replicas,
                RackAwareness::Enforced,
                Start::Random,
            );
            assert_eq!(refused, Err(AdminError::new(kind, message)));
        }
        assert!(assign_replicas(&some, 4, 2, RackAwareness::Safe, Start::Random).is_ok());
    }
}
