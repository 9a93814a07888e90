//! In which versions a broker asks another: `inter.broker.protocol.version` alone decides, nothing is negotiated, so that a
//! cluster whose brokers are replaced one after the other speaks like its oldest one.
//!
//! **Deviation:** in a cluster 0.11.0-IV2 is the oldest, and a broker with an older one refuses to start; 2.7.2 goes back to 0.8.0.
//! Before it, followers knew nothing of leader epochs and cut their logs at the high watermark (KIP-101).
//!
//! Sources: `ControllerChannelManager`, `ReplicaFetcherThread`, `KafkaServer.controlledShutdown`, `AlterIsrManager` and
//! `ApiVersion`.

use super::ApiVersion;

/// The versions that one release uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InterBrokerVersions {
    pub leader_and_isr: i16,
    pub stop_replica: i16,
    pub update_metadata: i16,
    pub controlled_shutdown: i16,
    /// Of a follower.
    pub fetch: i16,
    pub list_offsets: i16,
    /// `None` where followers know nothing of epochs.
    pub offset_for_leader_epoch: Option<i16>,
    /// `None` where leaders write the in-sync replicas into the tree themselves.
    pub alter_isr: Option<i16>,
}

impl InterBrokerVersions {
    pub fn of(release: ApiVersion) -> InterBrokerVersions {
        let newest = |table: &[(&str, i16)]| {
            let reached = |first: &str| ApiVersion::parse(first).is_some_and(|first| release >= first);
            let found = table.iter().find(|(first, _)| reached(first));
            found.map(|(_, version)| *version)
        };
        // The first release with each version; newest first.
        let leader_and_isr = [("2.4-IV1", 4), ("2.4-IV0", 3), ("2.2-IV0", 2), ("1.0-IV0", 1)];
        let stop_replica = [("2.6-IV0", 3), ("2.4-IV1", 2), ("2.2-IV0", 1)];
        let update_metadata = [
            ("2.4-IV1", 6),
            ("2.2-IV0", 5),
            ("1.0-IV0", 4),
            ("0.10.2-IV0", 3),
            ("0.10.0-IV1", 2),
            ("0.9.0", 1),
        ];
        let controlled_shutdown = [("2.4-IV1", 3), ("2.2-IV0", 2), ("0.9.0", 1)];
        let fetch = [
            ("2.7-IV1", 12),
            ("2.3-IV1", 11),
            ("2.1-IV2", 10),
            ("2.0-IV1", 8),
            ("1.1-IV0", 7),
            ("0.11.0-IV1", 5),
            ("0.11.0-IV0", 4),
            ("0.10.1-IV1", 3),
            ("0.10.0-IV0", 2),
            ("0.9.0", 1),
        ];
        let list_offsets = [
            ("2.2-IV1", 5),
            ("2.1-IV1", 4),
            ("2.0-IV1", 3),
            ("0.11.0-IV0", 2),
            ("0.10.1-IV2", 1),
        ];
        let offset_for_leader_epoch = [("2.3-IV1", 3), ("2.1-IV1", 2), ("2.0-IV0", 1), ("0.11.0-IV2", 0)];
        InterBrokerVersions {
            leader_and_isr: newest(&leader_and_isr).unwrap_or(0),
            stop_replica: newest(&stop_replica).unwrap_or(0),
            update_metadata: newest(&update_metadata).unwrap_or(0),
            controlled_shutdown: newest(&controlled_shutdown).unwrap_or(0),
            fetch: newest(&fetch).unwrap_or(0),
            list_offsets: newest(&list_offsets).unwrap_or(0),
            offset_for_leader_epoch: newest(&offset_for_leader_epoch),
            alter_isr: newest(&[("2.7-IV2", 0)]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brokers_ask_each_other_in_the_versions_of_the_release() {
        // LeaderAndIsr, StopReplica, UpdateMetadata, ControlledShutdown
        for (release, commands, fetch, list_offsets, epochs, alter_isr) in [
            ("2.7-IV2", [4, 3, 6, 3], 12, 5, Some(3), Some(0)),
            ("2.7-IV1", [4, 3, 6, 3], 12, 5, Some(3), None),
            ("2.7-IV0", [4, 3, 6, 3], 11, 5, Some(3), None),
            ("2.6", [4, 3, 6, 3], 11, 5, Some(3), None),
            ("2.5", [4, 2, 6, 3], 11, 5, Some(3), None),
            ("2.4-IV0", [3, 1, 5, 2], 11, 5, Some(3), None),
            ("2.2-IV0", [2, 1, 5, 2], 10, 4, Some(2), None),
            ("2.1", [1, 0, 4, 1], 10, 4, Some(2), None),
            ("1.0", [1, 0, 4, 1], 5, 2, Some(0), None),
            ("0.11.0-IV1", [0, 0, 3, 1], 5, 2, None, None),
            ("0.10.1", [0, 0, 2, 1], 3, 1, None, None),
            ("0.9.0", [0, 0, 1, 1], 1, 0, None, None),
            ("0.8.2", [0, 0, 0, 0], 0, 0, None, None),
        ] {
            let [leader_and_isr, stop_replica, update_metadata, controlled_shutdown] = commands;
            let expected = InterBrokerVersions {
                leader_and_isr,
                stop_replica,
                update_metadata,
                controlled_shutdown,
                fetch,
                list_offsets,
                offset_for_leader_epoch: epochs,
                alter_isr,
            };
            let found = InterBrokerVersions::of(ApiVersion::parse(release).unwrap());
            assert_eq!(found, expected, "{release}");
        }
    }
}
