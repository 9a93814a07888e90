//! CreateTopics, and topics that come to be because someone asked for them.
//!
//! A topic is made in one transaction: its settings node, written even if there are no settings (as in Kafka), and its
//! assignment node. A settings node that a former topic left behind is replaced.

use std::collections::{BTreeMap, BTreeSet};

use super::{TopicAdmin, has_leaders, in_time, joined};
use crate::admin::assignment::{RackAwareness, Start, assign_replicas};
use crate::admin::error::{AdminError, AdminErrorKind};
use crate::admin::{check_topic_name, topic_name};
use crate::config::{BrokerConfig, ConfigEntry, TopicConfig};
use crate::coordination::znodes::{
    self, EntityConfig, EntityType, ReplicaAssignment, TopicAssignment, config::entity_path,
};
use crate::coordination::{
    CoordinationError, CreateMode, ExpectedVersion, MultiError, Operation, OperationResult,
};

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

/// A checked topic.
struct Plan {
    assignment: TopicAssignment,
    configs: TopicConfig,
}

impl Plan {
    fn partition_count(&self) -> i32 {
        i32::try_from(self.assignment.partitions.len()).unwrap_or(i32::MAX)
    }
}

impl TopicAdmin {
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
                Some((topic.name.as_str(), answer.as_ref().ok()?.partition_count()))
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
                let is_led = |plan: &Plan| has_leaders(&now, &topic.name, plan.partition_count());
                in_time(timeout_ms, answer, is_led).map(|plan| created(&plan, &config))
            })
            .collect()
    }

    /// Creates a topic that someone asked for, with the broker's defaults, or as Kafka's own topics need it. Does not wait for
    /// leaders: the client is told LEADER_NOT_AVAILABLE and asks again.
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
        if self.metadata.contains_topic(&topic.name) {
            return Err(already_exists(&topic.name));
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
            return Err(already_exists(&topic.name));
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

    /// Judges the first attempt to write a topic; repeats it where the settings node of a former topic stands in the way, and after
    /// a lost connection if it did not happen.
    async fn finish_creation(
        &self,
        name: &str,
        plan: &Plan,
        mut written: Result<Vec<OperationResult>, MultiError>,
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
                        return Err(already_exists(name));
                    }
                    true
                }
                Err(MultiError {
                    error: CoordinationError::NoNode { path },
                    ..
                }) if path == config_path => false,
                Err(MultiError {
                    error: CoordinationError::ConnectionLoss,
                    ..
                }) => {
                    let present = self.coordination.get(&znodes::topic(name), None).await?;
                    match present {
                        // It was not there before: it is ours, or another client's who wanted the very same.
                        Some(node) if node.data.as_ref() == Some(&plan.assignment.encode()) => return Ok(()),
                        Some(_) => return Err(already_exists(name)),
                        None => self.coordination.get(&config_path, None).await?.is_some(),
                    }
                }
                Err(failed) => return Err(failed.error.into()),
            };
            written = self.coordination.multi(creation(name, plan, config_exists)).await;
        }
    }
}

fn already_exists(name: &str) -> AdminError {
    let message = format!("Topic '{name}' already exists.");
    AdminError::new(AdminErrorKind::TopicAlreadyExists, message)
}

/// The transaction that makes a topic.
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
    let replicas = plan
        .assignment
        .partitions
        .first_key_value()
        .map_or(0, |(_, one)| one.replicas.len());
    CreatedTopic {
        partition_count: plan.partition_count(),
        replication_factor: i16::try_from(replicas).unwrap_or(i16::MAX),
        configs: config.describe_topic(&plan.configs),
    }
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
