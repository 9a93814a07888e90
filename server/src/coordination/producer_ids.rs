//! Producer ids: unique in the cluster, taken from the tree in blocks of a thousand.
//!
//! [`ProducerIdManager::generate`] costs a counter's increment; once in a thousand it takes a new block by a conditional write.
//! An id that was given out is never given again, not even after a crash: a block is durable before its first id leaves, and
//! what a stopped broker did not use of its block is lost. Source class: `ProducerIdManager`.
//!
//! **Deviation:** the first block is taken when the first id is asked for, not on every start, so that a start writes nothing.

use std::sync::Arc;

use milena_engine::units::ProducerId;

use super::znodes::{self, ProducerIdBlock, ZnodeError};
use super::{Coordination, CoordinationError, CreateMode, ExpectedVersion};

/// Ids in a block.
pub const PRODUCER_ID_BLOCK_SIZE: i64 = 1000;

/// Why no id could be had; the producer tries again later.
#[derive(Debug, thiserror::Error)]
pub enum ProducerIdError {
    #[error(transparent)]
    Coordination(#[from] CoordinationError),
    #[error(transparent)]
    Znode(#[from] ZnodeError),
    #[error("all producer ids have been given out: the last block ends at {last}")]
    Exhausted { last: i64 },
}

/// Hands out producer ids.
#[derive(Debug)]
pub struct ProducerIdManager {
    broker_id: i32,
    coordination: Arc<dyn Coordination>,
    /// The ids left: the next one, and the last of the block. Held while a new block is fetched.
    left: tokio::sync::Mutex<Option<(i64, i64)>>,
}

impl ProducerIdManager {
    pub fn new(broker_id: i32, coordination: Arc<dyn Coordination>) -> ProducerIdManager {
        ProducerIdManager {
            broker_id,
            coordination,
            left: tokio::sync::Mutex::new(None),
        }
    }

    /// A new id.
    pub async fn generate(&self) -> Result<ProducerId, ProducerIdError> {
        let mut left = self.left.lock().await;
        let (next, last) = match *left {
            Some(range) => range,
            None => {
                let block = take_block(self.coordination.as_ref(), self.broker_id).await?;
                tracing::info!(
                    target: "kafka.coordinator.transaction.ProducerIdManager",
                    "[ProducerId Manager {}]: Acquired new producerId block ({}, {})",
                    self.broker_id,
                    block.first,
                    block.last
                );
                (block.first, block.last)
            }
        };
        *left = (next < last).then_some((next + 1, last));
        Ok(ProducerId(next))
    }
}

/// The next block, as this broker's; durable on return.
pub async fn take_block(
    coordination: &dyn Coordination,
    broker_id: i32,
) -> Result<ProducerIdBlock, ProducerIdError> {
    loop {
        let node = coordination.get(znodes::PRODUCER_ID_BLOCK, None).await?;
        let (data, version) = match &node {
            Some(node) => (
                node.data.as_deref().filter(|data| !data.is_empty()),
                Some(node.stat.version),
            ),
            None => (None, None),
        };
        let first = match data {
            None => 0,
            Some(data) => {
                let last = ProducerIdBlock::decode(data)?.last;
                if last > i64::MAX - PRODUCER_ID_BLOCK_SIZE {
                    return Err(ProducerIdError::Exhausted { last });
                }
                last + 1
            }
        };
        let block = ProducerIdBlock {
            broker_id,
            first,
            last: first + PRODUCER_ID_BLOCK_SIZE - 1,
        };
        let written = match version {
            Some(version) => {
                let expected = ExpectedVersion::Exactly(version);
                coordination
                    .set(znodes::PRODUCER_ID_BLOCK, block.encode(), expected)
                    .await
                    .map(drop)
            }
            None => {
                let data = Some(block.encode());
                coordination
                    .create(znodes::PRODUCER_ID_BLOCK, data, CreateMode::Persistent)
                    .await
                    .map(drop)
            }
        };
        match written {
            Ok(()) => return Ok(block),
            // Another broker was faster, or the answer to a write that happened was lost, and with it a block that nobody misses:
            // either way the next is taken.
            Err(
                CoordinationError::ConnectionLoss
                | CoordinationError::BadVersion { .. }
                | CoordinationError::NodeExists { .. }
                | CoordinationError::NoNode { .. },
            ) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Makes sure that every block taken from now on lies above `seen`, an id found in a log or a snapshot. Returns whether the
/// tree had to be changed.
pub async fn raise_above(
    coordination: &dyn Coordination,
    broker_id: i32,
    seen: ProducerId,
) -> Result<bool, ProducerIdError> {
    let node = coordination.get(znodes::PRODUCER_ID_BLOCK, None).await?;
    let data = node
        .as_ref()
        .and_then(|node| node.data.as_deref())
        .filter(|data| !data.is_empty());
    let last = data
        .map(ProducerIdBlock::decode)
        .transpose()?
        .map(|block| block.last);
    if last.is_some_and(|last| last >= seen.get()) {
        return Ok(false);
    }
    let first = seen.get() - seen.get() % PRODUCER_ID_BLOCK_SIZE;
    let last = first.saturating_add(PRODUCER_ID_BLOCK_SIZE - 1);
    let block = ProducerIdBlock {
        broker_id,
        first,
        last,
    };
    coordination
        .set_or_create(znodes::PRODUCER_ID_BLOCK, block.encode())
        .await?;
    Ok(true)
}
