//! What is wrong with a partition, by the rules of `kafka-topics.sh`: fewer replicas in sync than it should have, or than
//! `min.insync.replicas`, or nobody who leads it.
//!
//! A replica that a reassignment adds is not missing before it is there (`TopicCommand.PartitionDescription`).

use std::collections::HashMap;

use milena_server::client::{Client, ClientError, PartitionMetadata, Target};
use milena_server::protocol::messages::reassignments::{
    ListPartitionReassignmentsRequest, ListPartitionReassignmentsResponse,
};

use super::create::timeout_ms;
use crate::cluster_args::CommandError;
use crate::configs::Setting;

/// See the module.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Trouble {
    pub(super) under_replicated: bool,
    pub(super) at_min_isr: bool,
    pub(super) under_min_isr: bool,
    pub(super) unavailable: bool,
}

impl Trouble {
    /// `adding` replicas are on their way; `min_isr` is `min.insync.replicas`, if it is known.
    pub(super) fn of(
        partition: &PartitionMetadata,
        adding: usize,
        min_isr: Option<usize>,
        is_alive: impl Fn(i32) -> bool,
    ) -> Trouble {
        let in_sync = partition.isr.len();
        let unavailable = partition.leader.is_none_or(|id| !is_alive(id));
        Trouble {
            under_replicated: in_sync < partition.replicas.len().saturating_sub(adding),
            at_min_isr: Some(in_sync) == min_isr,
            under_min_isr: unavailable || min_isr.is_some_and(|min| in_sync < min),
            unavailable,
        }
    }
}

pub(super) fn min_insync_replicas(settings: &[Setting]) -> Option<usize> {
    let setting = settings
        .iter()
        .find(|setting| setting.name == "min.insync.replicas");
    setting?.value.as_ref()?.parse().ok()
}

/// How many replicas each partition gets that is being moved. Brokers before Kafka 2.4 do not tell, and are not asked.
pub(super) async fn replicas_to_come(
    client: &mut Client,
) -> Result<HashMap<(String, i32), usize>, CommandError> {
    let request = ListPartitionReassignmentsRequest {
        timeout_ms: timeout_ms(&client.config().connection.request_timeout),
        topics: None,
    };
    let asked = client.retry(async |client| {
        let answer = client.call(Target::Controller, &request).await?;
        let response: ListPartitionReassignmentsResponse<'_> = answer.decode()?;
        let what = || "reassignments".to_owned();
        ClientError::check(response.error_code, response.error_message.as_deref(), what)?;
        let mut coming = HashMap::new();
        for topic in response.topics.iter() {
            for partition in topic.partitions.iter() {
                let adding = partition.adding_replicas.iter().count();
                coming.insert((topic.name.to_string(), partition.partition_index), adding);
            }
        }
        Ok(coming)
    });
    match asked.await {
        Err(ClientError::Unsupported { .. }) => Ok(HashMap::new()),
        asked => Ok(asked?),
    }
}

#[cfg(test)]
mod tests {
    use milena_server::protocol::ErrorCode;

    use super::*;

    fn partition(leader: Option<i32>, replicas: &[i32], isr: &[i32]) -> PartitionMetadata {
        PartitionMetadata {
            id: 0,
            error: ErrorCode::None,
            leader,
            leader_epoch: 0,
            replicas: replicas.to_vec(),
            isr: isr.to_vec(),
            offline_replicas: Vec::new(),
        }
    }

    #[test]
    fn a_partition_is_judged_as_kafkas_tool_judges_it() {
        let of = |leader, replicas: &[i32], isr: &[i32], adding, min| {
            let trouble = Trouble::of(&partition(leader, replicas, isr), adding, min, |id| id != 9);
            let flags = [
                (trouble.under_replicated, "under-replicated"),
                (trouble.at_min_isr, "at"),
                (trouble.under_min_isr, "under"),
                (trouble.unavailable, "unavailable"),
            ];
            let set: Vec<&str> = flags
                .iter()
                .filter(|(is, _)| *is)
                .map(|(_, name)| *name)
                .collect();
            set.join(" ")
        };
        assert_eq!(of(Some(1), &[1, 2, 3], &[1, 2, 3], 0, Some(2)), "");
        assert_eq!(
            of(Some(1), &[1, 2, 3], &[1, 2], 0, Some(2)),
            "under-replicated at"
        );
        assert_eq!(
            of(Some(1), &[1, 2, 3], &[1], 0, Some(2)),
            "under-replicated under"
        );
        assert_eq!(
            of(Some(1), &[1, 2, 3], &[1, 2], 1, Some(1)),
            "",
            "one is on its way"
        );
        assert_eq!(of(None, &[1], &[1], 0, Some(1)), "at under unavailable");
        assert_eq!(
            of(Some(9), &[9], &[9], 0, None),
            "under unavailable",
            "its broker is gone"
        );
    }
}
