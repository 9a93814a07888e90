//! `milena configs set` and `milena configs unset`: single settings are changed, the others stay.

use clap::Args;
use milena_server::client::{Client, ClientError};
use milena_server::protocol::messages::incremental_alter_configs::{
    AlterConfigsResource, AlterableConfig, IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse,
};
use serde_json::json;

use super::settings::{Entity, settings_of};
use super::{EntityArgs, no_such_setting};
use crate::cluster_args::{ClusterArgs, CommandError};
use crate::output::Output;
use crate::patterns::Internal;
use crate::{Exit, complain};

const SET_EXAMPLES: &str = "\
Examples:
  milena configs set --topic orders retention.ms=86400000
  milena configs set --topic orders --topic audit max.message.bytes=2000000 --validate-only
  milena configs set --topic orders cleanup.policy+=compact   adds to a list
  milena configs set --topic orders cleanup.policy-=compact   takes from a list
  milena configs set --broker 0 log.cleaner.threads=2
  milena configs set --broker-defaults log.retention.ms=86400000
  milena configs set --broker-logger 0 kafka.server.KafkaApis=DEBUG";

#[derive(Debug, Args)]
#[command(after_help = SET_EXAMPLES)]
pub(super) struct SetArgs {
    /// Settings with their values; += and -= change lists.
    #[arg(value_name = "name=value", required = true, value_parser = change)]
    changes: Vec<Change>,
    #[command(flatten)]
    entity: EntityArgs,
    /// Let the broker check everything and change nothing.
    #[arg(long)]
    validate_only: bool,
    #[command(flatten)]
    cluster: ClusterArgs,
}

const UNSET_EXAMPLES: &str = "\
Examples:
  milena configs unset --topic orders retention.ms cleanup.policy
  milena configs unset --broker 0 log.cleaner.threads
  milena configs unset --broker-defaults log.retention.ms";

#[derive(Debug, Args)]
#[command(after_help = UNSET_EXAMPLES)]
pub(super) struct UnsetArgs {
    /// Names of settings.
    #[arg(value_name = "name", required = true)]
    names: Vec<String>,
    #[command(flatten)]
    entity: EntityArgs,
    /// Let the broker check everything and change nothing.
    #[arg(long)]
    validate_only: bool,
    #[command(flatten)]
    cluster: ClusterArgs,
}

/// What is done with a setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operation {
    Set = 0,
    Delete = 1,
    Append = 2,
    Subtract = 3,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Change {
    name: String,
    operation: Operation,
    value: Option<String>,
}

/// `name=value`, `name+=value`, `name-=value`; the value may be empty and may hold further `=`.
fn change(text: &str) -> Result<Change, String> {
    let wrong = || format!("found {text:?}, expected name=value, name+=value or name-=value");
    let (name, value) = text.split_once('=').ok_or_else(wrong)?;
    let (name, operation) = match (name.strip_suffix('+'), name.strip_suffix('-')) {
        (Some(name), _) => (name, Operation::Append),
        (_, Some(name)) => (name, Operation::Subtract),
        _ => (name, Operation::Set),
    };
    if name.trim().is_empty() {
        return Err(wrong());
    }
    Ok(Change {
        name: name.trim().to_owned(),
        operation,
        value: Some(value.to_owned()),
    })
}

pub(super) fn run_set(arguments: &SetArgs) -> Exit {
    let SetArgs {
        changes,
        entity,
        validate_only,
        cluster,
    } = arguments;
    let verb = if *validate_only { "could set" } else { "set" };
    cluster.run(async |client| alter(client, entity, changes, *validate_only, verb, cluster.json).await)
}

pub(super) fn run_unset(arguments: &UnsetArgs) -> Exit {
    let UnsetArgs {
        names,
        entity,
        validate_only,
        cluster,
    } = arguments;
    let change = |name: &String| Change {
        name: name.clone(),
        operation: Operation::Delete,
        value: None,
    };
    let changes: Vec<Change> = names.iter().map(change).collect();
    let verb = if *validate_only { "could unset" } else { "unset" };
    cluster.run(async |client| alter(client, entity, &changes, *validate_only, verb, cluster.json).await)
}

async fn alter(
    client: &mut Client,
    entity: &EntityArgs,
    changes: &[Change],
    validate_only: bool,
    verb: &str,
    json: bool,
) -> Result<(), CommandError> {
    let entities = entity.entities(client, Internal::Excluded).await?;
    let removed: Vec<&Change> = changes
        .iter()
        .filter(|change| change.operation == Operation::Delete)
        .collect();
    if !removed.is_empty() {
        check_known(client, &entities, &removed).await?;
    }
    let mut out = Output::new();
    let mut failed = false;
    for batch in entities.chunk_by(|a, b| a.target() == b.target()) {
        let request = request(batch, changes, validate_only);
        let asked = client
            .retry(async |client| ask(client, batch, &request).await)
            .await;
        for (entity, result) in asked.map_err(too_old)? {
            let names: Vec<&str> = changes.iter().map(|change| change.name.as_str()).collect();
            match result {
                Ok(()) if json => out.json(&json!({
                    "entity": entity.kind(),
                    "entity_name": entity.name(),
                    "done": verb,
                    "names": names,
                }))?,
                Ok(()) => out.line(format_args!("{verb} {} of {entity}", names.join(", ")))?,
                Err(error) => {
                    failed = true;
                    complain(&error);
                    suggest(client, entity, changes).await;
                }
            }
        }
    }
    out.flush()?;
    if failed { Err(CommandError::Told) } else { Ok(()) }
}

/// Brokers forget a setting that they never knew without a word, where it is likely a mistyped one.
async fn check_known(
    client: &mut Client,
    entities: &[Entity],
    changes: &[&Change],
) -> Result<(), CommandError> {
    // Of these a broker lists every setting that there is.
    let listed = |entity: &&Entity| matches!(entity.kind(), "topic" | "broker");
    let entities: Vec<Entity> = entities.iter().filter(listed).cloned().collect();
    for (entity, known) in entities.iter().zip(settings_of(client, &entities).await?) {
        let is_known = |change: &&&Change| known.iter().any(|setting| setting.name == change.name);
        if let Some(change) = changes.iter().find(|change| !is_known(change)) {
            return Err(no_such_setting(entity, &change.name, &known));
        }
    }
    Ok(())
}

/// Brokers before 2.3 only know how to replace all settings of a resource at once, which loses what others change.
fn too_old(error: ClientError) -> CommandError {
    match error {
        ClientError::Unsupported { address, .. } => CommandError::Failed(format!(
            "{address}: this broker cannot change single settings, as brokers do from Apache Kafka 2.3 on; use \
             kafka-configs.sh of its own release"
        )),
        other => other.into(),
    }
}

/// After a refusal: perhaps a name was mistyped. What cannot be found out here is not told.
async fn suggest(client: &mut Client, entity: &Entity, changes: &[Change]) {
    let Ok(known) = settings_of(client, std::slice::from_ref(entity)).await else {
        return;
    };
    let known = known.concat();
    for change in changes {
        if known.iter().any(|setting| setting.name == change.name) {
            continue;
        }
        if let CommandError::Failed(text) = no_such_setting(entity, &change.name, &known) {
            complain(text);
        }
    }
}

fn request<'c>(
    entities: &[Entity],
    changes: &'c [Change],
    validate_only: bool,
) -> IncrementalAlterConfigsRequest<'c> {
    let config = |change: &'c Change| AlterableConfig {
        name: change.name.as_str().into(),
        config_operation: change.operation as i8,
        value: change.value.as_deref().map(Into::into),
    };
    let resource = |entity: &Entity| AlterConfigsResource {
        resource_type: entity.resource_type(),
        resource_name: entity.name().into(),
        configs: changes.iter().map(config).collect(),
    };
    IncrementalAlterConfigsRequest {
        resources: entities.iter().map(resource).collect(),
        validate_only,
    }
}

async fn ask<'e>(
    client: &mut Client,
    entities: &'e [Entity],
    request: &IncrementalAlterConfigsRequest<'_>,
) -> Result<Vec<(&'e Entity, Result<(), ClientError>)>, ClientError> {
    let answer = client.call(entities[0].target(), request).await?;
    let response: IncrementalAlterConfigsResponse<'_> = answer.decode()?;
    let mut results = Vec::new();
    for result in &response.responses {
        let entity = entities.iter().find(|entity| {
            entity.resource_type() == result.resource_type && entity.name() == result.resource_name
        });
        if let Some(entity) = entity {
            let message = result.error_message.as_deref();
            let checked = ClientError::check(result.error_code, message, || entity.to_string());
            results.push((entity, checked));
        }
    }
    Ok(results)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broker_that_cannot_change_single_settings_is_told_to_be_old() {
        let error = ClientError::Unsupported {
            address: "a:9092".parse().unwrap(),
            api_key: milena_server::protocol::ApiKey::IncrementalAlterConfigs,
            ours: 0..=1,
            theirs: None,
        };
        let CommandError::Failed(text) = too_old(error) else {
            panic!()
        };
        assert!(
            text.starts_with("a:9092: ") && text.contains("from Apache Kafka 2.3 on"),
            "{text}"
        );
    }

    #[test]
    fn a_change_sets_adds_or_takes_away() {
        let parts = |text: &str| {
            let change = change(text).unwrap();
            (change.name, change.operation as i8, change.value.unwrap())
        };
        let owned = |name: &str, operation: i8, value: &str| (name.to_owned(), operation, value.to_owned());
        assert_eq!(parts("a.b=c=d"), owned("a.b", 0, "c=d"));
        assert_eq!(parts("a="), owned("a", 0, ""));
        assert_eq!(parts("a+=b,c"), owned("a", 2, "b,c"));
        assert_eq!(parts("a-=b"), owned("a", 3, "b"));
        for wrong in ["a", "=b", "+=b", ""] {
            assert!(
                change(wrong).unwrap_err().contains("expected name=value"),
                "{wrong}"
            );
        }
    }
}
