//! `/feature`: whether the cluster may finalize features, set up by each new controller (KIP-584).
//!
//! 2.7.2 has no features of its own; the node says by its status whether brokers look at it. Source: `KafkaController`
//! (`maybeSetupFeatureVersioning`).

use bytes::Bytes;

use super::shell::Shell;
use crate::coordination::znodes::{self, FeatureNode};
use crate::coordination::{CoordinationError, ExpectedVersion, Operation};

/// What the node is to be; `None` if it is so.
fn wanted(versioning: bool, present: Option<&FeatureNode>) -> Option<FeatureNode> {
    let features = match present {
        // What is finalized stays finalized.
        Some(present) if versioning && present.enabled => present.features.clone(),
        _ => Vec::new(),
    };
    let wanted = FeatureNode {
        enabled: versioning,
        features,
    };
    (present != Some(&wanted)).then_some(wanted)
}

impl Shell {
    pub(super) async fn set_up_features(&self, fence: &Operation) -> Result<(), CoordinationError> {
        loop {
            let node = self.get(znodes::FEATURE, None).await?;
            let present = node.as_ref().map(|node| {
                let data = node.data.clone().unwrap_or_else(Bytes::new);
                FeatureNode::decode(&data).inspect_err(|error| self.log_error(&error.to_string()))
            });
            let present = present.and_then(Result::ok);
            let Some(wanted) = wanted(self.settings.feature_versioning, present.as_ref()) else {
                return Ok(());
            };
            self.log(&format!("{} becomes {wanted:?}", znodes::FEATURE));
            let write = match &node {
                None => Operation::create(znodes::FEATURE, Some(wanted.encode())),
                Some(node) => {
                    let expected = ExpectedVersion::Exactly(node.stat.version);
                    Operation::set(znodes::FEATURE, wanted.encode(), expected)
                }
            };
            match self.write(vec![fence.clone(), write]).await {
                Ok(()) => return Ok(()),
                // Someone else wrote it meanwhile.
                Err(failed)
                    if failed.index == 1
                        && matches!(
                            failed.error,
                            CoordinationError::NodeExists { .. }
                                | CoordinationError::NoNode { .. }
                                | CoordinationError::BadVersion { .. }
                        ) => {}
                Err(failed) => return Err(failed.error),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_stay_enabled_with_what_is_finalized_and_are_emptied_when_disabled() {
        let node = |enabled, features: &[(&str, i16, i16)]| {
            let features = features
                .iter()
                .map(|(name, min, max)| ((*name).to_owned(), *min, *max));
            FeatureNode {
                enabled,
                features: features.collect(),
            }
        };
        let (on, off) = (node(true, &[]), node(false, &[]));
        let finalized = node(true, &[("f", 1, 3)]);
        // with versioning, the node -> what it becomes
        let table = [
            (true, None, Some(&on)),
            (true, Some(&on), None),
            (true, Some(&finalized), None),
            (true, Some(&off), Some(&on)),
            (false, None, Some(&off)),
            (false, Some(&off), None),
            (false, Some(&finalized), Some(&off)),
        ];
        for (versioning, present, expected) in table {
            assert_eq!(
                wanted(versioning, present).as_ref(),
                expected,
                "{versioning} {present:?}"
            );
        }
    }
}
