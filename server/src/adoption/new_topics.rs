//! Topics that are in the log directories and not in the tree; and what an import says beyond topics.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use milena_engine::units::{LeaderEpoch, ProducerId};

use crate::config::TopicConfig;
use crate::coordination::producer_ids::raise_above;
use crate::coordination::znodes::{
    self, EntityConfig, EntityType, ReplicaAssignment, TopicAssignment, config::entity_path,
};
use crate::coordination::{CoordinationError, CreateMode};

use super::evidence::ABSENT;
use super::import::ImportedTopic;
use super::registration::{absent, led_by, partitions_text, ranges_text, write};
use super::{Adoption, AdoptionError, Severity};

/// Kafka's internal topics, whose settings their coordinators know.
const CONSUMER_OFFSETS: &str = crate::group::GROUP_METADATA_TOPIC_NAME;
const TRANSACTION_STATE: &str = "__transaction_state";

/// Partitions of one topic up to which gaps are registered: a directory's name must not decide how much is
/// written. Clusters stay below 200,000 partitions in all.
pub(super) const PARTITIONS_MAX: i32 = 200_000;

/// Where the settings of a topic come from.
enum Origin {
    Import,
    Internal,
    Unknown,
}

impl Adoption<'_> {
    /// What the import knows besides topics, where the tree has nothing: settings of brokers, clients and
    /// users, the controller's epoch. Producer ids are kept above its block.
    pub(super) async fn import_nodes(&mut self) -> Result<(), AdoptionError> {
        let Some(import) = self.start.import else {
            return Ok(());
        };
        let mut nodes: Vec<(&str, Bytes)> = Vec::new();
        for (path, config) in &import.entities {
            nodes.push((path, config.encode()));
        }
        if let Some(epoch) = import.controller_epoch {
            nodes.push((znodes::CONTROLLER_EPOCH, znodes::encode_controller_epoch(epoch)));
        }
        for (path, data) in nodes {
            if self.tree.get(path, None).await?.is_none() {
                if let Some((parent, _)) = path.rsplit_once('/').filter(|(parent, _)| !parent.is_empty()) {
                    self.tree.ensure(parent).await?;
                }
                match self.tree.create(path, Some(data), CreateMode::Persistent).await {
                    Ok(_) => {
                        let text = format!("{path} is taken over from {}.", import.path.display());
                        self.report.say(Severity::Info, text);
                    }
                    Err(CoordinationError::NodeExists { .. }) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
        if let Some(block) = import.producer_ids {
            raise_above(self.tree, self.start.broker_id, ProducerId(block.last)).await?;
        }
        Ok(())
    }

    /// Registers a topic of which partitions were found.
    pub(super) async fn register_new(&mut self, topic: &Arc<str>) -> Result<(), AdoptionError> {
        let me = self.start.broker_id;
        let imported = self.start.import.and_then(|import| import.topics.get(&**topic));
        let found = self.found.get(topic).cloned().unwrap_or_default();
        let here: Vec<i32> = found.keys().copied().collect();
        let missing = self.missing_numbers(topic, &here, imported);

        let mut assignment = TopicAssignment::default();
        let mut states = Vec::new();
        let mut epochs: Vec<i32> = Vec::new();
        for (number, details) in &found {
            let in_log = details.as_ref().and_then(|details| details.last_leader_epoch);
            let epoch = in_log
                .or(imported_epoch(imported, *number))
                .unwrap_or(LeaderEpoch(0));
            epochs.push(epoch.get());
            states.push((*number, led_by(me, epoch, self.controller_epoch)));
        }
        for number in &missing {
            let epoch = imported_epoch(imported, *number).unwrap_or(LeaderEpoch(0));
            states.push((*number, absent(epoch, self.controller_epoch)));
        }
        let replicas = ReplicaAssignment::new([me]);
        for (number, _) in &states {
            assignment.partitions.insert(*number, replicas.clone());
        }

        let (settings, origin) = self.settings_of(topic, imported);
        let mut nodes = vec![
            (znodes::topic(topic), Some(assignment.encode())),
            (znodes::partitions(topic), None),
            (entity_path(EntityType::Topics, topic), Some(settings.encode())),
        ];
        for (number, state) in states {
            nodes.push((znodes::partition(topic, number), None));
            nodes.push((znodes::partition_state(topic, number), Some(state.encode())));
        }
        if !missing.is_empty() {
            self.tree.ensure(ABSENT).await?;
            nodes.push((format!("{ABSENT}/{topic}"), None));
        }
        write(self.tree, nodes, Vec::new()).await?;
        self.report.adopted.push(Arc::clone(topic));
        epochs.sort_unstable();
        epochs.dedup();
        self.say_registered(topic, &here, &epochs, &settings, &origin);
        self.say_absent(topic, &here, &missing, imported);
        Ok(())
    }

    /// The partitions that must exist besides those that were found.
    fn missing_numbers(&self, topic: &str, here: &[i32], imported: Option<&ImportedTopic>) -> Vec<i32> {
        let count = here.last().map_or(0, |last| last.saturating_add(1));
        let has_gaps = here.len() < count as usize;
        let count = match imported.filter(|topic| !topic.partitions.is_empty()) {
            Some(topic) => count.max(topic.partition_count()),
            // Groups and transactional ids are spread by the number of partitions: guessed too low, they
            // would be looked for in the wrong ones. Without gaps, the topic is all here.
            None if has_gaps && topic == CONSUMER_OFFSETS => {
                count.max(self.start.config.offsets.topic_num_partitions)
            }
            None if has_gaps && topic == TRANSACTION_STATE => {
                count.max(self.start.config.transactions.state_log_num_partitions)
            }
            None => count,
        };
        if count > PARTITIONS_MAX {
            return Vec::new();
        }
        let here: BTreeSet<i32> = here.iter().copied().collect();
        (0..count).filter(|number| !here.contains(number)).collect()
    }

    fn settings_of(&self, topic: &str, imported: Option<&ImportedTopic>) -> (EntityConfig, Origin) {
        if let Some(settings) = imported.and_then(|topic| topic.settings.clone()) {
            return (settings, Origin::Import);
        }
        let internal = match topic {
            CONSUMER_OFFSETS => Some(TopicConfig::consumer_offsets(self.start.config)),
            TRANSACTION_STATE => Some(TopicConfig::transaction_state(self.start.config)),
            _ => None,
        };
        match internal {
            Some(config) => (EntityConfig(config.overrides().clone()), Origin::Internal),
            None => (keeps_everything(), Origin::Unknown),
        }
    }

    fn say_registered(
        &mut self,
        topic: &str,
        here: &[i32],
        epochs: &[i32],
        settings: &EntityConfig,
        origin: &Origin,
    ) {
        let settings = match origin {
            Origin::Unknown => {
                "its settings are not known, so it keeps everything (retention.ms=-1, retention.bytes=-1) until it is told \
                 otherwise"
                    .to_owned()
            }
            Origin::Internal => format!("it has Kafka's settings of this topic ({})", settings_text(settings)),
            Origin::Import => {
                let path = self.start.import.map(|import| import.path.display().to_string());
                let path = path.unwrap_or_default();
                format!("its settings are those of {path} ({})", settings_text(settings))
            }
        };
        let noun = if epochs.len() == 1 { "epoch" } else { "epochs" };
        let text = format!(
            "Topic {topic} is registered with {} at leader {noun} {}; {settings}.",
            partitions_text(here),
            ranges_text(epochs),
        );
        self.report.say(Severity::Info, text);
    }

    /// Names what the cluster had and this node has not.
    fn say_absent(&mut self, topic: &str, here: &[i32], missing: &[i32], imported: Option<&ImportedTopic>) {
        let me = self.start.broker_id;
        let elsewhere = |numbers: &[i32]| -> Vec<i32> {
            let mut brokers = BTreeSet::new();
            for number in numbers {
                let replicas = imported.and_then(|topic| topic.partitions.get(number));
                brokers.extend(
                    replicas
                        .iter()
                        .flat_map(|partition| partition.replicas.iter().copied()),
                );
            }
            brokers.remove(&me);
            brokers.into_iter().collect()
        };
        let others = elsewhere(here);
        if !others.is_empty() {
            let text = format!(
                "Topic {topic}: the replicas of brokers {} are absent; this broker serves {} alone.",
                ranges_text(&others),
                partitions_text(here),
            );
            self.report.say(Severity::Warning, text);
        }
        if !missing.is_empty() {
            let holders = elsewhere(missing);
            let holders = if holders.is_empty() {
                String::new()
            } else {
                format!(" (brokers {} had replicas)", ranges_text(&holders))
            };
            let text = format!(
                "Topic {topic}: {} must exist, but no log directory has them{holders}. They are offline, without a leader. To \
                 bring their records, stop Milena and copy their directories into a log directory; to go on without them, set \
                 unclean.leader.election.enable=true for the topic and start again.",
                partitions_text(missing),
            );
            self.report.say(Severity::Warning, text);
        }
        if here.last().is_some_and(|last| *last >= PARTITIONS_MAX) {
            let text = format!(
                "Topic {topic}: its highest partition is above {PARTITIONS_MAX}; the lower ones that are not here are not \
                 registered."
            );
            self.report.say(Severity::Warning, text);
        }
    }

    /// A topic of the import that nobody has heard of may be a slip of the pen.
    pub(super) fn note_unused_import(&mut self) {
        let Some(import) = self.start.import else { return };
        let unused: Vec<&str> = import
            .topics
            .keys()
            .map(String::as_str)
            .filter(|topic| !self.found.contains_key(*topic))
            .collect();
        if !unused.is_empty() {
            let text = format!(
                "{} names topics of which no log directory has a partition; they are not created: {}.",
                import.path.display(),
                unused.join(", ")
            );
            self.report.say(Severity::Warning, text);
        }
    }
}

/// The settings of a topic of which nothing is known.
pub(super) fn keeps_everything() -> EntityConfig {
    EntityConfig(TopicConfig::found_on_disk().overrides().clone())
}

fn imported_epoch(imported: Option<&ImportedTopic>, number: i32) -> Option<LeaderEpoch> {
    imported?.partitions.get(&number)?.leader_epoch
}

pub(super) fn settings_text(settings: &EntityConfig) -> String {
    let EntityConfig(settings): &EntityConfig = settings;
    let settings: &BTreeMap<String, String> = settings;
    if settings.is_empty() {
        return "none of its own".to_owned();
    }
    let pairs: Vec<String> = settings
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    pairs.join(", ")
}
