//! `/feature`: what the cluster has agreed to use (KIP-584). This broker supports no feature that would have to be agreed upon, as
//! 2.7.2 does not, so that any is one too many: a broker that does not understand its cluster must not take part in it.
//!
//! Read at the start and whenever it changes, from `inter.broker.protocol.version` 2.7-IV0 on. What clients are told of it is the
//! version of the node. Source classes: `FinalizedFeatureChangeListener`, `FinalizedFeatureCache`.
//!
//! **Deviation:** a node that was removed and made again between two looks has a smaller version; Kafka takes it for an error and
//! exits, here the new one holds.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use tokio::sync::{Notify, mpsc};

use crate::coordination::znodes::{self, FeatureNode};
use crate::coordination::{Coordination, CoordinationError, SessionEvent};

const LOGGER: &str = "kafka.server.FinalizedFeatureChangeListener";
/// The epoch where nothing is finalized.
pub(super) const NO_EPOCH: i64 = -1;

/// Why a broker cannot go by the features of its cluster.
#[derive(Debug, thiserror::Error)]
pub enum FeatureError {
    #[error(transparent)]
    Coordination(#[from] CoordinationError),
    #[error(
        "FinalizedFeatureCache update failed since feature compatibility checks failed! Supported Features{{}} has \
         incompatibilities with the latest FinalizedFeaturesAndEpoch(features={features}, epoch={epoch})."
    )]
    Incompatible { features: String, epoch: i32 },
    #[error("Timed out after waiting for {timeout_ms}ms for FeatureCache to be updated.")]
    TimedOut { timeout_ms: u32 },
}

/// Looks at `/feature`.
#[derive(Debug)]
pub(super) struct FeatureWatch {
    coordination: Arc<dyn Coordination>,
    changed: Arc<Notify>,
    epoch: Arc<AtomicI64>,
}

impl FeatureWatch {
    /// `epoch` is kept at the epoch of the finalized features, or [`NO_EPOCH`].
    pub(super) fn new(coordination: &Arc<dyn Coordination>, epoch: Arc<AtomicI64>) -> FeatureWatch {
        let changed = Arc::new(Notify::new());
        let heard = Arc::clone(&changed);
        // Watches end with their session.
        coordination.listen(Arc::new(move |event| {
            if event == SessionEvent::Connected {
                heard.notify_one();
            }
        }));
        FeatureWatch {
            coordination: Arc::clone(coordination),
            changed,
            epoch,
        }
    }

    /// Reads the node.
    ///
    /// # Errors
    /// The cluster uses what this broker does not know, or the tree does not answer.
    pub(super) async fn read(&self) -> Result<(), FeatureError> {
        let changed = Arc::clone(&self.changed);
        let watch = Box::new(move |_| changed.notify_one());
        let node = self.coordination.get(znodes::FEATURE, Some(watch)).await?;
        let epoch = match node {
            None => {
                tracing::info!(target: LOGGER, "Feature ZK node at path: {} does not exist", znodes::FEATURE);
                NO_EPOCH
            }
            Some(node) => epoch_of(node.data.as_deref().unwrap_or_default(), node.stat.version)?,
        };
        self.epoch.store(epoch, Ordering::Release);
        Ok(())
    }

    /// Reads it whenever it changes; returns what the broker cannot live with.
    pub(super) async fn run(&self) -> FeatureError {
        loop {
            self.changed.notified().await;
            match self.read().await {
                Ok(()) => {}
                // The next session brings another look.
                Err(FeatureError::Coordination(error)) => tracing::warn!(target: LOGGER, "{error}"),
                Err(error) => return error,
            }
        }
    }
}

/// The epoch of what the node says.
fn epoch_of(data: &[u8], version: i32) -> Result<i64, FeatureError> {
    match FeatureNode::decode(data) {
        Err(error) => {
            tracing::error!(target: LOGGER, "Unable to deserialize feature ZK node: {error}");
            Ok(NO_EPOCH)
        }
        Ok(FeatureNode { enabled: false, .. }) => {
            tracing::info!(target: LOGGER, "Feature ZK node at path: {} is in disabled status.", znodes::FEATURE);
            Ok(NO_EPOCH)
        }
        Ok(FeatureNode { features, .. }) if features.is_empty() => Ok(version.into()),
        Ok(FeatureNode { features, .. }) => {
            let features = features.iter().map(|(name, min, max)| {
                format!("({name} -> FinalizedVersionRange[min_version_level:{min}, max_version_level:{max}])")
            });
            Err(FeatureError::Incompatible {
                features: format!("Features{{{}}}", features.collect::<Vec<_>>().join(", ")),
                epoch: version,
            })
        }
    }
}

/// [`FeatureWatch::run`] until the broker has to stop, and says so.
pub(super) async fn run(watch: FeatureWatch, failures: mpsc::UnboundedSender<String>) {
    let error = watch.run().await;
    // Nobody hears it only if the broker is stopping already.
    let _ = failures.send(format!("Failed to process feature ZK node change event: {error}"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_that_uses_what_nobody_here_knows_is_left() {
        for (data, version, expected) in [
            (r#"{"features":{},"status":1,"version":1}"#, 3, Some(3)),
            (r#"{"features":{},"status":0,"version":1}"#, 3, Some(NO_EPOCH)),
            ("{", 3, Some(NO_EPOCH)),
            (
                r#"{"features":{"group":{"min_version_level":1,"max_version_level":3}},"status":1,"version":1}"#,
                3,
                None,
            ),
        ] {
            let found = epoch_of(data.as_bytes(), version);
            assert_eq!(found.as_ref().ok().copied(), expected, "{data}: {found:?}");
            if let Err(error) = found {
                assert!(
                    error.to_string().contains("compatibility checks failed"),
                    "{error}"
                );
                assert!(error.to_string().contains("group"), "{error}");
            }
        }
    }
}
