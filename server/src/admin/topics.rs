//! Topics: created, grown and deleted at a client's wish, or created because someone asked for them.
//!
//! A topic is its settings node and its assignment node, written in one transaction; the controller does the rest. All wishes
//! of one request are written before the first is waited for, so that they share commits. A wish is checked as Kafka does, in
//! Kafka's order and words; then [`TopicAdmin`] waits until the controller has carried it out and this broker has heard of it,
//! or the request's time is up. Source classes: `AdminManager`, `AdminZkClient`, `DelayedCreatePartitions`, `DelayedDeleteTopics`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;

use super::assignment::{Candidate, PARTITION_COUNT_MAX, RackAwareness, Start, assign_replicas};
use super::error::{AdminError, AdminErrorKind};
use super::{check_topic_name, topic_name};
use crate::config::{BrokerConfig, ConfigEntry, TopicConfig};
use crate::coordination::znodes::{
    self, EntityConfig, EntityType, ReplicaAssignment, TopicAssignment, config::entity_path,
};
use crate::coordination::{
    Coordination, CoordinationError, CreateMode, ExpectedVersion, MultiError, Operation, Watch,
};
use crate::metadata_cache::{MetadataCache, MetadataSnapshot};

/// A topic to be created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewTopic {
    pub name: String,
    /// −1: `num.partitions`, or what the assignments say.
    pub partition_count: i32,
    /// −1: `default.replication.factor`, or what the assignments say.
    pub replication_factor: i16,
    /// Replicas by partition; empty for automatic placement.
    pub assignments: Vec<(i32, Vec<i32>)>,
    pub configs: Vec<(String, Option<String>)>,
}

/// What was created, or would be.
#[derive(Clone, Debug, PartialEq)]
pub struct CreatedTopic {
    pub partition_count: i32,
    pub replication_factor: i16,
    /// The topic's settings, all of them.
    pub configs: Vec<ConfigEntry>,
}

/// Partitions to be added.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewPartitions {
    pub topic: String,
    /// How many the topic shall have in all.
    pub total_count: i32,
    /// Replicas of each new partition; `None` for automatic placement.
    pub assignments: Option<Vec<Vec<i32>>>,
}

/// A checked topic.
struct Plan {
    assignment: TopicAssignment,
    configs: TopicConfig,
}

/// Creates, grows and deletes topics. Shared by all lanes.
#[derive(Debug)]
pub struct TopicAdmin {
    broker_id: i32,
    coordination: Arc<dyn Coordination>,
    metadata: Arc<MetadataCache>,
    config: Arc<ArcSwap<BrokerConfig>>,
}

impl TopicAdmin {
    /// `config` is [`super::dynamic::DynamicConfigManager::config`].
    pub fn new(
        broker_id: i32,
        coordination: Arc<dyn Coordination>,
        metadata: Arc<MetadataCache>,
        config: Arc<ArcSwap<BrokerConfig>>,
    ) -> TopicAdmin {
        TopicAdmin {
            broker_id,
            coordination,
            metadata,
            config,
        }
    }

    /// Whether this broker is the controller, as far as it was told: only the controller answers these wishes.
    pub fn is_controller(&self) -> bool {
        self.metadata.load().controller_id() == Some(self.broker_id)
    }

    /// `delete.topic.enable`
    pub fn is_deletion_enabled(&self) -> bool {
        self.config.load().topics.delete_topic_enable
    }

    pub fn is_known(&self, topic: &str) -> bool {
        self.metadata.contains_topic(topic)
    }

    /// Waits until the metadata cache is as `what` wants it; `false` if the time was up before.
    async fn wait_until(&self, timeout_ms: i32, what: impl Fn(&MetadataSnapshot) -> bool) -> bool {
        let mut updates = self.metadata.subscribe();
        let seen = async {
            while !what(&self.metadata.load()) {
                if updates.changed().await.is_err() {
                    return;
                }
            }
        };
        let limit = Duration::from_millis(u64::try_from(timeout_ms).unwrap_or(0));
        // At the very end of the time, what is so counts.
        tokio::time::timeout(limit, seen).await.is_ok() || what(&self.metadata.load())
    }

    /// Creates topics and waits until all their partitions have leaders; an answer for each, in order. Names must not repeat.
    ///
    /// With a `timeout_ms` that is not positive the topics are created, and answered with
    /// [`AdminErrorKind::RequestTimedOut`]. With `validate_only` nothing is written.
    pub async fn create_topics(
        &self,
        timeout_ms: i32,
        validate_only: bool,
        topics: &[NewTopic],
    ) -> Vec<Result<CreatedTopic, AdminError>> {
        let config = self.config.load_full();
        let mut names = None;
        let mut plans = Vec::with_capacity(topics.len());
        for topic in topics {
            plans.push(
                self.plan_topic(topic, &config, RackAwareness::Enforced, &mut names)
                    .await,
            );
        }
        if validate_only {
            return plans
                .into_iter()
                .map(|plan| plan.map(|plan| created(&plan, &config)))
                .collect();
        }
        let mut answers = Vec::with_capacity(topics.len());
        let writes: Vec<_> = topics
            .iter()
            .zip(plans)
            .map(|(topic, plan)| {
                plan.map(|plan| {
                    let write = self.coordination.multi(creation(&topic.name, &plan, false));
                    (write, plan)
                })
            })
            .collect();
        for (topic, written) in topics.iter().zip(writes) {
            answers.push(match written {
                Err(error) => Err(error),
                Ok((write, plan)) => self
                    .finish_creation(&topic.name, &plan, write.await)
                    .await
                    .map(|()| plan),
            });
        }
        let waits: Vec<(&str, i32)> = topics
            .iter()
            .zip(&answers)
            .filter_map(|(topic, answer)| {
                let partitions = answer.as_ref().ok()?.assignment.partitions.len();
                Some((topic.name.as_str(), i32::try_from(partitions).unwrap_or(i32::MAX)))
            })
            .collect();
        if timeout_ms > 0 {
            self.wait_until(timeout_ms, |now| {
                waits.iter().all(|(name, count)| has_leaders(now, name, *count))
            })
            .await;
        }
        let now = self.metadata.snapshot();
        topics
            .iter()
            .zip(answers)
            .map(|(topic, answer)| {
                let plan = answer?;
                let count = i32::try_from(plan.assignment.partitions.len()).unwrap_or(i32::MAX);
                if timeout_ms <= 0 || !has_leaders(&now, &topic.name, count) {
                    return Err(AdminError::bare(AdminErrorKind::RequestTimedOut));
                }
                Ok(created(&plan, &config))
            })
            .collect()
    }

    /// Creates a topic that someone asked for, with the broker's defaults, or as Kafka's own topics need it. Does not wait for
    /// leaders: the client is told LEADER_NOT_AVAILABLE, or [`TopicAdmin::wait_for_topic`] is called.
    ///
    /// Whether it is allowed (`auto.create.topics.enable`) is the caller's question.
    ///
    /// # Errors
    /// [`AdminErrorKind::CoordinatorNotAvailable`] if fewer brokers are alive than one of Kafka's own topics needs replicas
    /// (Metadata answers INVALID_REPLICATION_FACTOR for it); those of a creation. That it exists already is none.
    pub async fn auto_create_topic(&self, name: &str) -> Result<(), AdminError> {
        let config = self.config.load_full();
        let (partition_count, replication_factor, configs) = match name {
            topic_name::CONSUMER_OFFSETS => (
                config.offsets.topic_num_partitions,
                config.offsets.topic_replication_factor,
                TopicConfig::consumer_offsets(&config),
            ),
            topic_name::TRANSACTION_STATE => (
                config.transactions.state_log_num_partitions,
                config.transactions.state_log_replication_factor,
                TopicConfig::transaction_state(&config),
            ),
            _ => {
                let factor = config.topics.default_replication_factor;
                let factor = i16::try_from(factor).unwrap_or(i16::MAX);
                (config.topics.num_partitions, factor, TopicConfig::default())
            }
        };
        let alive = self.metadata.load().broker_count();
        if topic_name::is_internal(name) && alive < usize::try_from(replication_factor).unwrap_or(0) {
            tracing::error!(
                target: "kafka.server.KafkaApis",
                "Number of alive brokers '{alive}' does not meet the required replication factor \
                 '{replication_factor}' for {name}. This error can be ignored if the cluster is starting up and not all \
                 brokers are up yet."
            );
            return Err(AdminError::bare(AdminErrorKind::CoordinatorNotAvailable));
        }
        let topic = NewTopic {
            name: name.to_owned(),
            partition_count,
            replication_factor,
            assignments: Vec::new(),
            configs: configs
                .overrides()
                .iter()
                .map(|(key, value)| (key.clone(), Some(value.clone())))
                .collect(),
        };
        let written = match self
            .plan_topic(&topic, &config, RackAwareness::Safe, &mut None)
            .await
        {
            Ok(plan) => {
                let write = self.coordination.multi(creation(name, &plan, false)).await;
                self.finish_creation(name, &plan, write).await
            }
            Err(error) => Err(error),
        };
        match written {
            // Another client, or another broker, was faster.
            Err(error) if error.kind == AdminErrorKind::TopicAlreadyExists => Ok(()),
            Ok(()) => {
                tracing::info!(
                    target: "kafka.server.KafkaApis",
                    "Auto creation of topic {name} with {partition_count} partitions and replication factor \
                     {replication_factor} is successful"
                );
                Ok(())
            }
            other => other,
        }
    }

    /// Waits until every known partition of a topic has a leader; `false` if the time was up before.
    pub async fn wait_for_topic(&self, name: &str, timeout_ms: i32) -> bool {
        let led = |now: &MetadataSnapshot| {
            now.topic(name)
                .is_some_and(|topic| topic.partitions.iter().all(|one| one.leader.is_some()))
        };
        self.wait_until(timeout_ms, led).await
    }

    /// Deletes topics and waits until they are gone; an answer for each, in order. Names must not repeat.
    ///
    /// **Deviation:** Kafka answers when its metadata forgot the topic; here also its nodes are gone, so that a creation of the
    /// same name that follows is not refused.
    pub async fn delete_topics(&self, timeout_ms: i32, names: &[String]) -> Vec<Result<(), AdminError>> {
        let mut answers = Vec::with_capacity(names.len());
        let mut writes = Vec::with_capacity(names.len());
        for name in names {
            let exists = async {
                if check_topic_name(name).is_err() {
                    return Ok(false);
                }
                Ok::<_, CoordinationError>(self.coordination.get(&znodes::topic(name), None).await?.is_some())
            };
            writes.push(match exists.await {
                Ok(true) => {
                    let request = Operation::create(znodes::delete_topic(name), None);
                    Ok(self.coordination.multi(vec![request]))
                }
                Ok(false) => Err(AdminError::bare(AdminErrorKind::UnknownTopicOrPartition)),
                Err(error) => Err(error.into()),
            });
        }
        for write in writes {
            answers.push(match write {
                Err(error) => Err(error),
                Ok(write) => match write.await {
                    // Already marked: this request waits like the one that marked it.
                    Ok(_)
                    | Err(MultiError {
                        error: CoordinationError::NodeExists { .. },
                        ..
                    }) => Ok(()),
                    Err(failed) => Err(failed.error.into()),
                },
            });
        }
        let going: Vec<&str> = names
            .iter()
            .zip(&answers)
            .filter(|(_, answer)| answer.is_ok())
            .map(|(name, _)| name.as_str())
            .collect();
        if timeout_ms > 0 && !going.is_empty() {
            let limit = Duration::from_millis(u64::try_from(timeout_ms).unwrap_or(0));
            let gone = async {
                self.wait_until(timeout_ms, |now| {
                    going.iter().all(|name| !now.contains_topic(name))
                })
                .await;
                for name in &going {
                    if self.wait_until_gone(&znodes::delete_topic(name)).await.is_err() {
                        return;
                    }
                }
            };
            // Out of time: what still exists is answered so below.
            let _ = tokio::time::timeout(limit, gone).await;
        }
        let now = self.metadata.snapshot();
        let timed_out = |name: &str| timeout_ms <= 0 || now.contains_topic(name);
        names
            .iter()
            .zip(answers)
            .map(|(name, answer)| {
                answer.and_then(|()| match timed_out(name) {
                    true => Err(AdminError::bare(AdminErrorKind::RequestTimedOut)),
                    false => Ok(()),
                })
            })
            .collect()
    }

    /// Adds partitions and waits until they have leaders; an answer for each topic, in order. Names must not repeat.
    pub async fn create_partitions(
        &self,
        timeout_ms: i32,
        validate_only: bool,
        topics: &[NewPartitions],
    ) -> Vec<Result<(), AdminError>> {
        let mut answers = Vec::with_capacity(topics.len());
        for topic in topics {
            answers.push(self.grow_topic(topic, validate_only).await);
        }
        if validate_only {
            return answers;
        }
        let grown: Vec<&NewPartitions> = topics
            .iter()
            .zip(&answers)
            .filter(|(_, answer)| answer.is_ok())
            .map(|(topic, _)| topic)
            .collect();
        if timeout_ms > 0 {
            let led = |now: &MetadataSnapshot| {
                grown
                    .iter()
                    .all(|topic| has_leaders(now, &topic.topic, topic.total_count))
            };
            self.wait_until(timeout_ms, led).await;
        }
        let now = self.metadata.snapshot();
        let timed_out =
            |topic: &NewPartitions| timeout_ms <= 0 || !has_leaders(&now, &topic.topic, topic.total_count);
        topics
            .iter()
            .zip(answers)
            .map(|(topic, answer)| {
                answer.and_then(|()| match timed_out(topic) {
                    true => Err(AdminError::bare(AdminErrorKind::RequestTimedOut)),
                    false => Ok(()),
                })
            })
            .collect()
    }

    /// Checks a topic to be created, in Kafka's order of complaints. `names` are those in the tree, read once per request and
    /// only if needed.
    async fn plan_topic(
        &self,
        topic: &NewTopic,
        config: &BrokerConfig,
        racks: RackAwareness,
        names: &mut Option<BTreeSet<String>>,
    ) -> Result<Plan, AdminError> {
        use AdminErrorKind::{InvalidReplicaAssignment, InvalidRequest, InvalidTopic};
        let exists = || {
            let message = format!("Topic '{}' already exists.", topic.name);
            AdminError::new(AdminErrorKind::TopicAlreadyExists, message)
        };
        if self.metadata.contains_topic(&topic.name) {
            return Err(exists());
        }
        let nulls: Vec<&str> = topic
            .configs
            .iter()
            .filter(|(_, value)| value.is_none())
            .map(|(name, _)| &**name)
            .collect();
        if !nulls.is_empty() {
            let message = format!("Null value not supported for topic configs : {}", nulls.join(","));
            return Err(AdminError::new(InvalidRequest, message));
        }
        let by_hand = !topic.assignments.is_empty();
        if by_hand && (topic.partition_count != -1 || topic.replication_factor != -1) {
            let message = "Both numPartitions or replicationFactor and replicasAssignments were set. Both cannot be \
                           used at the same time.";
            return Err(AdminError::new(InvalidRequest, message));
        }
        let assignment: BTreeMap<i32, Vec<i32>> = if by_hand {
            topic.assignments.iter().cloned().collect()
        } else {
            let or = |value: i32, default: i32| if value == -1 { default } else { value };
            assign_replicas(
                &self.candidates(),
                or(topic.partition_count, config.topics.num_partitions),
                or(
                    topic.replication_factor.into(),
                    config.topics.default_replication_factor,
                ),
                racks,
                Start::Random,
            )?
        };
        check_topic_name(&topic.name).map_err(|text| AdminError::new(InvalidTopic, text))?;
        if self
            .coordination
            .get(&znodes::topic(&topic.name), None)
            .await?
            .is_some()
        {
            return Err(exists());
        }
        if topic_name::has_collision_characters(&topic.name) {
            if names.is_none() {
                let all = self.coordination.children(znodes::TOPICS, None).await?;
                *names = Some(all.unwrap_or_default().into_iter().collect());
            }
            let all = names.get_or_insert_default();
            let colliding: Vec<&str> = all
                .iter()
                .filter(|other| topic_name::collide(&topic.name, other))
                .map(String::as_str)
                .collect();
            if !colliding.is_empty() {
                let (name, others) = (&topic.name, colliding.join(", "));
                let message = format!("Topic '{name}' collides with existing topics: {others}");
                return Err(AdminError::new(InvalidTopic, message));
            }
        }
        check_assignment(&assignment)
            .map_err(|message| AdminError::new(InvalidReplicaAssignment, message))?;
        let given = topic
            .configs
            .iter()
            .filter_map(|(name, value)| Some((name.clone(), value.clone()?)));
        let configs = TopicConfig::parse(given).map_err(|error| AdminError::of_config(&error))?;
        if let Some(names) = names {
            // The next topics of the request must not collide with this one.
            names.insert(topic.name.clone());
        }
        let partitions = assignment
            .into_iter()
            .map(|(number, ids)| (number, ReplicaAssignment::new(ids)));
        Ok(Plan {
            assignment: TopicAssignment {
                partitions: partitions.collect(),
            },
            configs,
        })
    }

    /// Judges the first attempt to write a topic; repeats it where the settings node of a former topic stands in the way.
    async fn finish_creation(
        &self,
        name: &str,
        plan: &Plan,
        mut written: Result<Vec<crate::coordination::OperationResult>, MultiError>,
    ) -> Result<(), AdminError> {
        let config_path = entity_path(EntityType::Topics, name);
        loop {
            let config_exists = match written {
                Ok(_) => {
                    tracing::info!(
                        target: "kafka.zk.AdminZkClient",
                        "Creating topic {name} with configuration {:?} and {} partitions",
                        plan.configs.overrides(),
                        plan.assignment.partitions.len()
                    );
                    return Ok(());
                }
                Err(MultiError {
                    error: CoordinationError::NodeExists { path },
                    ..
                }) => {
                    if path != config_path {
                        let message = format!("Topic '{name}' already exists.");
                        return Err(AdminError::new(AdminErrorKind::TopicAlreadyExists, message));
                    }
                    true
                }
                Err(MultiError {
                    error: CoordinationError::NoNode { path },
                    ..
                }) if path == config_path => false,
                Err(failed) => return Err(failed.error.into()),
            };
            written = self.coordination.multi(creation(name, plan, config_exists)).await;
        }
    }

    async fn grow_topic(&self, wanted: &NewPartitions, validate_only: bool) -> Result<(), AdminError> {
        use AdminErrorKind::{InvalidPartitions, InvalidReplicaAssignment};
        let refuse = |kind, message: String| Err(AdminError::new(kind, message));
        let topic = wanted.topic.as_str();
        let path = znodes::topic(topic);
        let unknown = || {
            let message = format!("The topic '{topic}' does not exist.");
            AdminError::new(AdminErrorKind::UnknownTopicOrPartition, message)
        };
        if check_topic_name(topic).is_err() {
            return Err(unknown());
        }
        if self
            .coordination
            .get(&znodes::delete_topic(topic), None)
            .await?
            .is_some()
        {
            return refuse(
                AdminErrorKind::InvalidTopic,
                "The topic is queued for deletion.".into(),
            );
        }
        let node = self.coordination.get(&path, None).await?.ok_or_else(unknown)?;
        let mut assignment = TopicAssignment::decode(&path, node.data.as_deref().unwrap_or_default())?;
        if assignment
            .partitions
            .values()
            .any(ReplicaAssignment::is_being_reassigned)
        {
            let message = format!("A partition reassignment is in progress for the topic '{topic}'.");
            return refuse(AdminErrorKind::ReassignmentInProgress, message);
        }
        let old_count = i32::try_from(assignment.partitions.len()).unwrap_or(i32::MAX);
        let total = wanted.total_count;
        if total < old_count {
            let message = format!(
                "Topic currently has {old_count} partitions, which is higher than the requested {total}."
            );
            return refuse(InvalidPartitions, message);
        }
        if total == old_count {
            return refuse(
                InvalidPartitions,
                format!("Topic already has {old_count} partitions."),
            );
        }
        if total > PARTITION_COUNT_MAX {
            let message = format!(
                "A topic cannot have more than {PARTITION_COUNT_MAX} partitions, requested were {total}."
            );
            return refuse(InvalidPartitions, message);
        }
        let added = total - old_count;
        let candidates = self.candidates();
        let Some(first) = assignment.partitions.get(&0).map(|one| Arc::clone(&one.replicas)) else {
            let message = format!(
                "Unexpected existing replica assignment for topic '{topic}', partition id 0 is missing."
            );
            return refuse(AdminErrorKind::UnknownServerError, message);
        };
        let new = match &wanted.assignments {
            None => {
                let preferred = first.first().copied().unwrap_or(0);
                let index = candidates
                    .iter()
                    .position(|broker| broker.id >= preferred)
                    .unwrap_or(0);
                let start = Start::Fixed {
                    index,
                    first_partition: old_count,
                };
                let factor = i32::try_from(first.len()).unwrap_or(i32::MAX);
                assign_replicas(&candidates, added, factor, RackAwareness::Enforced, start)?
            }
            Some(given) => {
                let alive: BTreeSet<i32> = candidates.iter().map(|broker| broker.id).collect();
                let named: BTreeSet<i32> = given.iter().flatten().copied().collect();
                let unknown: Vec<String> = named.difference(&alive).map(i32::to_string).collect();
                if !unknown.is_empty() {
                    let message = format!("Unknown broker(s) in replica assignment: {}.", unknown.join(", "));
                    return refuse(InvalidReplicaAssignment, message);
                }
                if given.len() != usize::try_from(added).unwrap_or(0) {
                    let message = format!(
                        "Increasing the number of partitions by {added} but {} assignments provided.",
                        given.len()
                    );
                    return refuse(InvalidReplicaAssignment, message);
                }
                let new: BTreeMap<i32, Vec<i32>> = (old_count..).zip(given.iter().cloned()).collect();
                check_new_replicas(&new, first.len())
                    .map_err(|message| AdminError::new(InvalidReplicaAssignment, message))?;
                new
            }
        };
        if validate_only {
            return Ok(());
        }
        let new = new
            .into_iter()
            .map(|(number, ids)| (number, ReplicaAssignment::new(ids)));
        assignment.partitions.extend(new);
        let expected = ExpectedVersion::Exactly(node.stat.version);
        match self.coordination.set(&path, assignment.encode(), expected).await {
            Ok(_) => Ok(()),
            // Someone else changed the topic in between: the client looks again.
            Err(CoordinationError::BadVersion { .. }) => {
                let message = format!("Topic '{topic}' was changed by another request.");
                refuse(AdminErrorKind::UnknownServerError, message)
            }
            Err(CoordinationError::NoNode { .. }) => Err(unknown()),
            Err(error) => Err(error.into()),
        }
    }

    /// The live brokers, by id.
    fn candidates(&self) -> Vec<Candidate> {
        let now = self.metadata.load();
        let candidate = |broker: &crate::cluster::Broker| Candidate {
            id: broker.id,
            rack: broker.rack.as_deref().map(str::to_owned),
        };
        now.brokers().map(candidate).collect()
    }

    async fn wait_until_gone(&self, path: &str) -> Result<(), CoordinationError> {
        loop {
            let changed = Arc::new(tokio::sync::Notify::new());
            let notify = Arc::clone(&changed);
            let watch: Watch = Box::new(move |_| notify.notify_one());
            if self.coordination.get(path, Some(watch)).await?.is_none() {
                return Ok(());
            }
            changed.notified().await;
        }
    }
}

/// The transaction that makes a topic. The settings node is written even if there are no settings, as Kafka does.
fn creation(name: &str, plan: &Plan, config_exists: bool) -> Vec<Operation> {
    let configs = EntityConfig(plan.configs.overrides().clone()).encode();
    let path = entity_path(EntityType::Topics, name);
    let config = match config_exists {
        true => Operation::set(path, configs, ExpectedVersion::Any),
        false => Operation::create(path, Some(configs)),
    };
    let topic = Operation::Create {
        path: znodes::topic(name),
        data: Some(plan.assignment.encode()),
        mode: CreateMode::Persistent,
    };
    vec![config, topic]
}

fn created(plan: &Plan, config: &BrokerConfig) -> CreatedTopic {
    let partitions = &plan.assignment.partitions;
    let replicas = partitions
        .first_key_value()
        .map_or(0, |(_, one)| one.replicas.len());
    CreatedTopic {
        partition_count: i32::try_from(partitions.len()).unwrap_or(i32::MAX),
        replication_factor: i16::try_from(replicas).unwrap_or(i16::MAX),
        configs: config.describe_topic(&plan.configs),
    }
}

fn has_leaders(now: &MetadataSnapshot, topic: &str, partition_count: i32) -> bool {
    let Some(topic) = now.topic(topic) else {
        return false;
    };
    let led = topic
        .partitions
        .iter()
        .filter(|one| one.partition < partition_count && one.leader.is_some());
    led.count() >= usize::try_from(partition_count).unwrap_or(0)
}

/// Of a topic to be created, by hand or not.
fn check_assignment(assignment: &BTreeMap<i32, Vec<i32>>) -> Result<(), String> {
    let mut sizes = assignment.values().map(Vec::len);
    let first = sizes.next();
    if first.is_none() || sizes.any(|size| Some(size) != first) {
        return Err("All partitions should have the same number of replicas".into());
    }
    let distinct = |ids: &Vec<i32>| ids.iter().collect::<BTreeSet<_>>().len() == ids.len();
    if !assignment.values().all(distinct) {
        let shown: Vec<String> = assignment
            .iter()
            .map(|(partition, ids)| format!("{partition} -> ArrayBuffer({})", joined(ids)))
            .collect();
        return Err(format!(
            "Duplicate replica assignment found: HashMap({})",
            shown.join(", ")
        ));
    }
    if !assignment.keys().copied().eq((0..).take(assignment.len())) {
        return Err("partitions should be a consecutive 0-based integer sequence".into());
    }
    if first == Some(0) {
        // **Deviation:** Kafka accepts a partition without replicas by hand, and it never gets a leader.
        return Err("Cannot have replication factor of 0 for partition id 0.".into());
    }
    Ok(())
}

/// Of partitions to be added by hand; partition 0 has `factor` replicas.
fn check_new_replicas(new: &BTreeMap<i32, Vec<i32>>, factor: usize) -> Result<(), String> {
    for (partition, ids) in new {
        if ids.is_empty() {
            return Err(format!(
                "Cannot have replication factor of 0 for partition id {partition}."
            ));
        }
        if ids.iter().collect::<BTreeSet<_>>().len() != ids.len() {
            return Err(format!(
                "Duplicate brokers not allowed in replica assignment: {} for partition id {partition}.",
                joined(ids)
            ));
        }
    }
    let bad: Vec<(&i32, &Vec<i32>)> = new.iter().filter(|(_, ids)| ids.len() != factor).collect();
    if bad.is_empty() {
        return Ok(());
    }
    let partitions: Vec<i32> = bad.iter().map(|(partition, _)| **partition).collect();
    let factors: Vec<usize> = bad.iter().map(|(_, ids)| ids.len()).collect();
    Err(format!(
        "Inconsistent replication factor between partitions, partition 0 has {factor} while partitions [{}] have \
         replication factors [{}], respectively.",
        joined(&partitions),
        joined(&factors)
    ))
}

fn joined(items: &[impl ToString]) -> String {
    items
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(", ")
}

#[cfg(test)]
mod tests;
