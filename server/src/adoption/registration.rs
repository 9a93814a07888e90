//! The nodes of a topic as data, written in one transaction; and lists of partition numbers for messages.

use bytes::Bytes;
use milena_engine::units::LeaderEpoch;

use crate::cluster::LeaderAndIsr;
use crate::coordination::znodes::PartitionState;
use crate::coordination::{Coordination, ExpectedVersion, Operation};

use super::AdoptionError;

/// The state of a partition whose records are here: this broker leads it alone.
pub(super) fn led_by(broker_id: i32, leader_epoch: LeaderEpoch, controller_epoch: i32) -> PartitionState {
    PartitionState {
        controller_epoch,
        leader_and_isr: LeaderAndIsr {
            leader: Some(broker_id),
            leader_epoch,
            isr: [broker_id].into(),
            zk_version: 0,
        },
    }
}

/// The state of a partition whose records are elsewhere: nobody leads it, and nobody may without an unclean
/// election.
pub(super) fn absent(leader_epoch: LeaderEpoch, controller_epoch: i32) -> PartitionState {
    PartitionState {
        controller_epoch,
        leader_and_isr: LeaderAndIsr {
            leader: None,
            leader_epoch,
            isr: [].into(),
            zk_version: 0,
        },
    }
}

/// Whether a state was made by [`absent`].
pub(super) fn is_absent(state: &LeaderAndIsr) -> bool {
    state.leader.is_none() && state.isr.is_empty()
}

/// Writes nodes, parents before children, and deletes others, in one transaction: a missing node is created,
/// one that exists gets the data, if there is any.
pub(super) async fn write(
    tree: &dyn Coordination,
    nodes: Vec<(String, Option<Bytes>)>,
    deleted: Vec<String>,
) -> Result<(), AdoptionError> {
    let paths = nodes.iter().map(|(path, _)| path.clone()).collect();
    let present = tree.get_many(paths).await?;
    let mut operations = Vec::with_capacity(nodes.len() + deleted.len());
    for ((path, data), present) in nodes.into_iter().zip(present) {
        match (present, data) {
            (None, data) => operations.push(Operation::create(path, data)),
            (Some(_), Some(data)) => operations.push(Operation::set(path, data, ExpectedVersion::Any)),
            (Some(_), None) => {}
        }
    }
    operations.extend(deleted.into_iter().map(Operation::delete));
    if !operations.is_empty() {
        tree.multi(operations).await?;
    }
    Ok(())
}

/// `partition 3`, `partitions 0-4, 7`: ascending numbers for a person.
pub(super) fn partitions_text(numbers: &[i32]) -> String {
    let noun = if numbers.len() == 1 {
        "partition"
    } else {
        "partitions"
    };
    format!("{noun} {}", ranges_text(numbers))
}

/// `0-4, 7` of ascending numbers.
pub(super) fn ranges_text(numbers: &[i32]) -> String {
    let mut text = String::new();
    for run in numbers.chunk_by(|one, next| one.checked_add(1) == Some(*next)) {
        if !text.is_empty() {
            text.push_str(", ");
        }
        match run {
            [one] => text.push_str(&one.to_string()),
            [first, .., last] => text.push_str(&format!("{first}-{last}")),
            [] => {}
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_told_as_ranges() {
        for (numbers, expected) in [
            (&[3][..], "partition 3"),
            (&[0, 1], "partitions 0-1"),
            (&[0, 1, 2, 5, 7, 8], "partitions 0-2, 5, 7-8"),
            (&[i32::MAX], "partition 2147483647"),
        ] {
            assert_eq!(partitions_text(numbers), expected);
        }
    }
}
