//! Topics of the tree, compared with the log directories.

use std::collections::BTreeMap;
use std::sync::Arc;

use milena_engine::log_manager::FoundPartition;
use milena_engine::units::TopicPartition;

use crate::cluster::LeaderAndIsr;
use crate::coordination::znodes::{
    self, EntityConfig, EntityType, PartitionState, ReplicaAssignment, TopicAssignment, config::entity_path,
};

use super::evidence::{ABSENT, Visit};
use super::new_topics::{keeps_everything, settings_text};
use super::registration::{absent, is_absent, led_by, partitions_text, write};
use super::{Adoption, AdoptionError, Severity};

/// What the directories and the states say about one topic.
struct Comparison {
    /// Present states of the partitions of the assignment; those without one were never started.
    states: BTreeMap<i32, LeaderAndIsr>,
    found: BTreeMap<i32, Option<FoundPartition>>,
    /// Found, and not in the assignment.
    added: Vec<i32>,
    /// Led here at some time, and without a directory.
    gone: Vec<i32>,
}

impl Adoption<'_> {
    /// Makes the tree follow what happened to a topic that it knows.
    pub(super) async fn reconcile(
        &mut self,
        topic: &Arc<str>,
        assignment: TopicAssignment,
        version: i32,
    ) -> Result<(), AdoptionError> {
        self.import_settings(topic).await?;
        let me = self.start.broker_id;
        let found = self.found.get(topic).cloned().unwrap_or_default();
        let added: Vec<i32> = found
            .keys()
            .filter(|number| !assignment.partitions.contains_key(number))
            .copied()
            .collect();
        let missing: Vec<i32> = assignment
            .partitions
            .iter()
            .filter(|(number, one)| one.replicas.contains(&me) && !found.contains_key(number))
            .map(|(number, _)| *number)
            .collect();
        let visited = self.evidence.visit() != Visit::None;
        let was_absent = self.with_absent.contains(&**topic);
        if added.is_empty() && missing.is_empty() && !visited && !was_absent {
            return Ok(());
        }
        let states = self.read_states(topic, &assignment).await?;
        let gone = missing
            .into_iter()
            .filter(|number| states.get(number).is_some_and(|state| !is_absent(state)))
            .collect();
        let comparison = Comparison {
            states,
            found,
            added,
            gone,
        };
        if self.remove_deleted(topic, &assignment, &comparison).await? {
            return Ok(());
        }
        self.extend(topic, assignment, version, &comparison).await
    }

    /// An import settles a topic that has only what it got when it was found.
    async fn import_settings(&mut self, topic: &Arc<str>) -> Result<(), AdoptionError> {
        let Some(import) = self.start.import else {
            return Ok(());
        };
        let imported = import
            .topics
            .get(&**topic)
            .and_then(|topic| topic.settings.as_ref());
        let Some(settings) = imported else { return Ok(()) };
        let path = entity_path(EntityType::Topics, topic);
        let data = self.tree.get(&path, None).await?.and_then(|node| node.data);
        let present = EntityConfig::decode(&path, data.as_deref())?;
        if present == *settings {
            return Ok(());
        }
        if present != keeps_everything() {
            let text = format!(
                "Topic {topic} has settings of its own already ({}); those of {} are not taken. Use kafka-configs to change \
                 them.",
                settings_text(&present),
                import.path.display()
            );
            self.report.say(Severity::Info, text);
            return Ok(());
        }
        self.tree.set_or_create(&path, settings.encode()).await?;
        let text = format!(
            "Topic {topic}: its settings are now those of {} ({}).",
            import.path.display(),
            settings_text(settings)
        );
        self.report.say(Severity::Info, text);
        self.report.imported.push(Arc::clone(topic));
        Ok(())
    }

    async fn read_states(
        &mut self,
        topic: &str,
        assignment: &TopicAssignment,
    ) -> Result<BTreeMap<i32, LeaderAndIsr>, AdoptionError> {
        let numbers: Vec<i32> = assignment.partitions.keys().copied().collect();
        let path = |number: &i32| znodes::partition_state(topic, *number);
        let nodes = self.tree.get_many(numbers.iter().map(path).collect()).await?;
        let mut states = BTreeMap::new();
        for (number, node) in numbers.iter().zip(nodes) {
            let Some(node) = node else { continue };
            let data = node.data.unwrap_or_default();
            match PartitionState::decode(&path(number), &data, node.stat.version) {
                Ok(state) => {
                    states.insert(*number, state.leader_and_isr);
                }
                Err(error) => self.report.say(Severity::Error, error.to_string()),
            }
        }
        Ok(states)
    }

    /// Forgets what another broker deleted. Returns whether the topic is gone as a whole.
    async fn remove_deleted(
        &mut self,
        topic: &Arc<str>,
        assignment: &TopicAssignment,
        comparison: &Comparison,
    ) -> Result<bool, AdoptionError> {
        let gone = &comparison.gone;
        if gone.is_empty() {
            return Ok(false);
        }
        let was_deleted = |number: &i32| {
            self.evidence
                .was_deleted(&TopicPartition::new(Arc::clone(topic), *number))
        };
        let all_deleted = gone.iter().all(was_deleted);
        if all_deleted && comparison.found.is_empty() {
            let path = entity_path(EntityType::Topics, topic);
            let data = self.tree.get(&path, None).await?.and_then(|node| node.data);
            let settings = EntityConfig::decode(&path, data.as_deref()).unwrap_or_default();
            let mut deleted = self.tree.subtree(&znodes::topic(topic)).await?;
            if self.tree.get(&path, None).await?.is_some() {
                deleted.push(path);
            }
            if self.with_absent.contains(&**topic) {
                deleted.push(format!("{ABSENT}/{topic}"));
            }
            write(self.tree, Vec::new(), deleted).await?;
            let text = format!(
                "Topic {topic} was deleted by the broker that used the log directories since Milena last ran: none of its {} \
                 partitions has a directory any more. It is removed; its settings were: {}.",
                assignment.partitions.len(),
                settings_text(&settings)
            );
            self.report.say(Severity::Warning, text);
            self.report.removed.push(Arc::clone(topic));
            return Ok(true);
        }
        let highest = comparison.found.keys().next_back().copied();
        let only_first = comparison.added.is_empty()
            && gone.iter().all(|number| Some(*number) > highest)
            && assignment
                .partitions
                .keys()
                .all(|number| Some(*number) <= highest || gone.contains(number));
        if all_deleted && only_first {
            let mut shorter = assignment.clone();
            shorter.partitions.retain(|number, _| !gone.contains(number));
            let mut deleted = Vec::new();
            for number in gone {
                deleted.extend(self.tree.subtree(&znodes::partition(topic, *number)).await?);
            }
            let nodes = vec![(znodes::topic(topic), Some(shorter.encode()))];
            write(self.tree, nodes, deleted).await?;
            let text = format!(
                "Topic {topic} was deleted and created with fewer partitions by the broker that used the log directories since \
                 Milena last ran: {} removed.",
                partitions_text(gone)
            );
            self.report.say(Severity::Warning, text);
            self.report.removed.push(Arc::clone(topic));
            return Ok(false);
        }
        let offline = &self.start.survey.offline;
        let text = if offline.is_empty() {
            format!(
                "Topic {topic}: no log directory has {}, which this broker led. The topic stays as it is registered, and what \
                 is missing begins anew, empty.",
                partitions_text(gone)
            )
        } else {
            format!(
                "Topic {topic}: no log directory that can be used has {}, which this broker led; they may be in one that is \
                 offline, and stay registered.",
                partitions_text(gone)
            )
        };
        self.report.say(Severity::Warning, text);
        Ok(false)
    }

    /// Registers partitions that came, leads those whose records came, and follows leader epochs that another
    /// broker raised.
    async fn extend(
        &mut self,
        topic: &Arc<str>,
        mut assignment: TopicAssignment,
        version: i32,
        comparison: &Comparison,
    ) -> Result<(), AdoptionError> {
        let me = self.start.broker_id;
        let mut nodes = Vec::new();
        let mut states: Vec<(i32, PartitionState)> = Vec::new();
        let (mut returned, mut epochs_changed) = (Vec::new(), Vec::new());
        for (number, details) in &comparison.found {
            let epoch = details.as_ref().and_then(|details| details.last_leader_epoch);
            let present = comparison.states.get(number);
            let new_state = match present {
                None if comparison.added.contains(number) => {
                    Some(led_by(me, epoch.unwrap_or_default(), self.controller_epoch))
                }
                // The controller starts it, at epoch 0, unless its log has gone further.
                None => epoch.map(|epoch| led_by(me, epoch, self.controller_epoch)),
                Some(state) if is_absent(state) && self.has_records(details.as_ref()) => {
                    returned.push(*number);
                    let epoch = epoch.unwrap_or(state.leader_epoch);
                    Some(led_by(me, epoch, self.controller_epoch))
                }
                Some(state) => {
                    let directory = details.as_ref().map(|details| details.directory.as_path());
                    let certain = directory.is_some_and(|directory| self.evidence.is_visited(directory));
                    let wanted = epoch.filter(|epoch| {
                        *epoch > state.leader_epoch || certain && *epoch != state.leader_epoch
                    });
                    wanted.map(|leader_epoch| {
                        epochs_changed.push(*number);
                        let leader_and_isr = LeaderAndIsr {
                            leader_epoch,
                            ..state.clone()
                        };
                        PartitionState {
                            controller_epoch: self.controller_epoch,
                            leader_and_isr,
                        }
                    })
                }
            };
            states.extend(new_state.map(|state| (*number, state)));
        }
        let mut between = Vec::new();
        if !comparison.added.is_empty() {
            let replicas = ReplicaAssignment::new([me]);
            for number in &comparison.added {
                assignment.partitions.insert(*number, replicas.clone());
            }
            between = self.gaps(&assignment);
            for number in &between {
                assignment.partitions.insert(*number, replicas.clone());
                states.push((*number, absent(Default::default(), self.controller_epoch)));
            }
            nodes.push((znodes::topic(topic), Some(assignment.encode())));
        }
        let now_led = |number: &i32| states.iter().any(|(led, _)| led == number);
        let still_absent = !between.is_empty()
            || comparison
                .states
                .iter()
                .any(|(number, state)| is_absent(state) && !now_led(number));
        let marked = self.with_absent.contains(&**topic);
        let mut deleted = Vec::new();
        if marked && !still_absent {
            deleted.push(format!("{ABSENT}/{topic}"));
        }
        if nodes.is_empty() && states.is_empty() && deleted.is_empty() {
            return Ok(());
        }
        if still_absent && !marked {
            self.tree.ensure(ABSENT).await?;
            nodes.push((format!("{ABSENT}/{topic}"), None));
        }
        tracing::debug!(target: super::LOGGER, "topic {topic} changes from version {version}");
        self.tree.ensure(&znodes::partitions(topic)).await?;
        for (number, state) in states {
            nodes.push((znodes::partition(topic, number), None));
            nodes.push((znodes::partition_state(topic, number), Some(state.encode())));
        }
        write(self.tree, nodes, deleted).await?;
        self.say_extended(topic, &comparison.added, &returned, &between, &epochs_changed);
        Ok(())
    }

    /// Numbers below the highest that no partition has.
    fn gaps(&self, assignment: &TopicAssignment) -> Vec<i32> {
        let count = assignment
            .partitions
            .keys()
            .next_back()
            .map_or(0, |last| last.saturating_add(1));
        if count > super::new_topics::PARTITIONS_MAX {
            return Vec::new();
        }
        (0..count)
            .filter(|number| !assignment.partitions.contains_key(number))
            .collect()
    }

    fn say_extended(
        &mut self,
        topic: &Arc<str>,
        added: &[i32],
        returned: &[i32],
        between: &[i32],
        epochs_changed: &[i32],
    ) {
        if !added.is_empty() || !returned.is_empty() {
            self.report.extended.push(Arc::clone(topic));
        }
        let mut say = |severity, numbers: &[i32], what: &str| {
            if !numbers.is_empty() {
                let text = format!("Topic {topic}: {} {what}.", partitions_text(numbers));
                self.report.say(severity, text);
            }
        };
        say(Severity::Info, added, "found in the log directories and added");
        say(
            Severity::Info,
            returned,
            "found in the log directories at last, and led by this broker",
        );
        say(
            Severity::Warning,
            between,
            "must exist, but no log directory has them; they are offline, without a leader",
        );
        say(
            Severity::Info,
            epochs_changed,
            "now at the leader epoch that its log ends with",
        );
    }

    /// Whether a partition's directory has anything but an empty log. What cannot be looked at counts as
    /// empty.
    fn has_records(&self, details: Option<&FoundPartition>) -> bool {
        let Some(details) = details else { return false };
        let io = self.start.io;
        let path = details.directory.join(details.partition.to_string());
        let has_bytes = |name: &str| {
            let stat = io.stat(&path.join(name)).ok().flatten();
            name.ends_with(".log") && stat.is_some_and(|stat| stat.size_bytes > 0)
        };
        let entries = io.list(&path).unwrap_or_default();
        entries.iter().any(|entry| has_bytes(&entry.name))
    }
}
