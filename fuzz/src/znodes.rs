//! Data of the coordination tree, every kind of node, as an adopted ensemble or a damaged tree may hold it.
//!
//! Input: the kind (by its place in [`KINDS`]), then the data. Promise: what is read is written and read again the
//! same.

use std::fmt::Debug;

use milena_server::coordination::znodes::{
    self, BrokerRegistration, ConfigChange, ControllerNode, EntityConfig, FeatureNode, PartitionState,
    ProducerIdBlock, RegistrationVersion, TopicAssignment, ZnodeError, security,
};

use crate::{take, walk};

const PATH: &str = "/node";

/// Reads, and gives what was read as text with what is written for it.
type Kind = fn(&[u8]) -> Result<(String, Vec<u8>), ZnodeError>;

fn both<T: Debug>(
    value: T,
    written: impl FnOnce(&T) -> bytes::Bytes,
) -> Result<(String, Vec<u8>), ZnodeError> {
    let written = written(&value).to_vec();
    Ok((format!("{value:?}"), written))
}

const KINDS: [Kind; 16] = [
    |data| {
        both(BrokerRegistration::decode(3, data)?, |registration| {
            registration.encode(RegistrationVersion::V5)
        })
    },
    |data| both(TopicAssignment::decode(PATH, data)?, TopicAssignment::encode),
    |data| both(PartitionState::decode(PATH, data, 5)?, PartitionState::encode),
    |data| both(EntityConfig::decode(PATH, Some(data))?, EntityConfig::encode),
    |data| both(ConfigChange::decode(PATH, data)?, ConfigChange::encode),
    |data| both(ControllerNode::decode(data)?, ControllerNode::encode),
    |data| {
        both(znodes::decode_controller_epoch(data)?, |epoch| {
            znodes::encode_controller_epoch(*epoch)
        })
    },
    |data| {
        both(znodes::decode_cluster_id(data)?, |id| {
            znodes::encode_cluster_id(id)
        })
    },
    |data| both(ProducerIdBlock::decode(data)?, ProducerIdBlock::encode),
    |data| both(FeatureNode::decode(data)?, FeatureNode::encode),
    |data| {
        both(znodes::decode_log_dir_event(PATH, data)?, |id| {
            znodes::encode_log_dir_event(*id)
        })
    },
    |data| {
        both(znodes::topic::decode_reassignment(PATH, data)?, |moves| {
            znodes::topic::encode_reassignment(moves)
        })
    },
    |data| {
        both(znodes::topic::decode_partitions(PATH, data)?, |all| {
            znodes::topic::encode_partitions(all)
        })
    },
    |data| {
        both(security::decode_acls(PATH, data)?, |acls| {
            security::encode_acls(acls)
        })
    },
    |data| {
        both(
            security::AclChange::decode_extended(PATH, data)?,
            security::AclChange::encode,
        )
    },
    |data| {
        both(
            security::DelegationToken::decode(PATH, data)?,
            security::DelegationToken::encode,
        )
    },
];

pub(crate) fn read_again(mut data: &[u8]) {
    let kind = KINDS[usize::from(take(&mut data)) % KINDS.len()];
    match kind(data) {
        Ok((value, written)) => {
            let (again, _) = kind(&written).expect("what was written can be read");
            assert_eq!(again, value);
        }
        Err(error) => walk(&error.to_string()),
    }
    let _ = security::AclChange::decode_literal(PATH, data)
        .as_ref()
        .map(|change| walk(change));
    if let Ok(name) = std::str::from_utf8(data) {
        std::hint::black_box(znodes::sequence_number(name));
    }
}
