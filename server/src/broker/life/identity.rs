//! Who this broker is: the id of its cluster, and its own.
//!
//! Both are kept twice, in the tree and in `meta.properties` of every log directory, and must agree: a directory of another
//! broker or cluster is refused.

use milena_engine::log_manager::Survey;

use super::{LOGGER, StartError};
use crate::config::BrokerConfig;
use crate::coordination::{Coordination, startup};

/// What brokers that stand alone call themselves.
const FIRST_BROKER_ID: i32 = 0;

/// The cluster's id and the broker's; what is not stated or stored anywhere is made up.
///
/// Alone, the cluster is that of the directories. In ZooKeeper a cluster without an id is a new one, and directories of another
/// do not belong to it.
pub(super) async fn establish(
    coordination: &dyn Coordination,
    survey: &Survey,
    config: &BrokerConfig,
) -> Result<(String, i32), StartError> {
    let known = survey.metadata();
    let is_alone = config.zookeeper.is_none();
    let proposed = known
        .and_then(|known| known.cluster_id.clone())
        .filter(|_| is_alone)
        .unwrap_or_else(new_cluster_id);
    let cluster_id = startup::get_or_create_cluster_id(coordination, &proposed).await?;
    tracing::info!(target: LOGGER, "Cluster ID = {cluster_id}");
    survey.check_identity(config.broker_id, Some(&cluster_id))?;
    let stored_id = known.map(|known| known.broker_id);
    let id = match config.broker_id.or(stored_id) {
        Some(id) => id,
        None if is_alone => FIRST_BROKER_ID,
        None => startup::generate_broker_id(coordination, config.reserved_broker_max_id).await?,
    };
    Ok((cluster_id, id))
}

/// A random UUID in the 22 characters that Kafka uses (`Uuid` in base64 for URLs, without padding).
fn new_cluster_id() -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).expect("the kernel gives random bytes once it has booted");
    // Version 4, variant 1, as `UUID.randomUUID`.
    bytes[6] = (bytes[6] & 0x0f) | 0x40;
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    let mut text = String::with_capacity(22);
    for chunk in bytes.chunks(3) {
        let mut group = [0; 3];
        group[..chunk.len()].copy_from_slice(chunk);
        let bits = u32::from_be_bytes([0, group[0], group[1], group[2]]);
        for position in 0..=chunk.len() {
            let index = (bits >> (18 - 6 * position)) & 63;
            text.push(char::from(ALPHABET[index as usize]));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_id_has_22_characters_and_is_another_each_time() {
        let (one, other) = (new_cluster_id(), new_cluster_id());
        assert_eq!(one.len(), 22);
        assert_ne!(one, other);
    }
}
