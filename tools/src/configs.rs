//! `milena configs`: the settings of topics, brokers, all brokers, and brokers' loggers. It takes the place of
//! `kafka-configs.sh`.

use std::sync::Arc;

use clap::{Args, Subcommand};
use milena_server::client::{Client, ClientError};
use serde_json::{Value, json};

use crate::cluster_args::{ClusterArgs, CommandError, unknown};
use crate::output::{Output, Rows};
use crate::patterns::{Internal, NamePattern, chosen};
use crate::{Exit, complain};

mod alter;
mod settings;

pub(crate) use settings::{Entity, Setting, settings_of};
use settings::{Wanted, described};

const EXAMPLES: &str = "\
Examples:
  milena configs describe --topic orders             what is set for the topic
  milena configs describe --topic orders --all       everything, with where it comes from
  milena configs get --topic orders retention.ms     the value alone
  milena configs set --topic orders retention.ms=86400000 cleanup.policy=compact,delete
  milena configs unset --topic orders retention.ms
  milena configs describe --broker 0 --all
  milena configs set --broker-defaults log.cleaner.threads=2";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ConfigsArgs {
    #[command(subcommand)]
    command: ConfigsCommand,
}

#[derive(Debug, Subcommand)]
enum ConfigsCommand {
    /// Print values alone.
    Get(GetArgs),
    /// Show settings: those that are set, or all with their sources.
    Describe(DescribeArgs),
    /// Set values; also add to lists and take from them.
    Set(alter::SetArgs),
    /// Take settings back, so that they inherit again.
    Unset(alter::UnsetArgs),
}

/// Whose settings are meant.
#[derive(Clone, Debug, Args)]
#[group(skip)]
#[command(group = clap::ArgGroup::new("entity").required(true))]
pub(super) struct EntityArgs {
    /// A topic: its name, a glob, or a regular expression between slashes; may be given several times.
    #[arg(long, value_name = "topic", group = "entity")]
    topic: Vec<NamePattern>,
    /// Brokers by id.
    #[arg(long, value_name = "id,..", value_delimiter = ',', group = "entity")]
    broker: Vec<i32>,
    /// What all brokers have where they have nothing of their own.
    #[arg(long, group = "entity")]
    broker_defaults: bool,
    /// The log levels of brokers by id.
    #[arg(long, value_name = "id,..", value_delimiter = ',', group = "entity")]
    broker_logger: Vec<i32>,
}

impl EntityArgs {
    async fn entities(&self, client: &mut Client, internal: Internal) -> Result<Vec<Entity>, CommandError> {
        if !self.topic.is_empty() {
            let topics = chosen(client, &self.topic, internal).await?;
            return Ok(topics.into_keys().map(Entity::Topic).collect());
        }
        if self.broker_defaults {
            return Ok(vec![Entity::BrokerDefaults]);
        }
        let brokers = self.broker.iter().copied().map(Entity::Broker);
        let loggers = self.broker_logger.iter().copied().map(Entity::BrokerLogger);
        Ok(brokers.chain(loggers).collect())
    }
}

const GET_EXAMPLES: &str = "\
Examples:
  milena configs get --topic orders retention.ms
  milena configs get --broker 0 log.dirs num.io.threads
  milena configs get --topic '*' cleanup.policy --json";

#[derive(Debug, Args)]
#[command(after_help = GET_EXAMPLES)]
struct GetArgs {
    /// Names of settings.
    #[arg(value_name = "name", required = true)]
    names: Vec<String>,
    #[command(flatten)]
    entity: EntityArgs,
    #[command(flatten)]
    cluster: ClusterArgs,
}

const DESCRIBE_EXAMPLES: &str = "\
Examples:
  milena configs describe --topic orders
  milena configs describe --topic orders --all --synonyms
  milena configs describe --topic orders retention.ms --help-text
  milena configs describe --broker 0,1
  milena configs describe --broker-defaults
  milena configs describe --broker-logger 0 --json";

#[derive(Debug, Args)]
#[command(after_help = DESCRIBE_EXAMPLES)]
struct DescribeArgs {
    /// Only these settings.
    #[arg(value_name = "name")]
    names: Vec<String>,
    #[command(flatten)]
    entity: EntityArgs,
    /// Also what is inherited.
    #[arg(short, long)]
    all: bool,
    /// Show all places in which a setting is set, the one that counts first.
    #[arg(long)]
    synonyms: bool,
    /// Explain each setting, as brokers from Kafka 2.6 on can.
    #[arg(long)]
    help_text: bool,
    #[command(flatten)]
    cluster: ClusterArgs,
}

pub(crate) fn run(arguments: &ConfigsArgs) -> Exit {
    match &arguments.command {
        ConfigsCommand::Get(arguments) => arguments.cluster.run(async |client| get(client, arguments).await),
        ConfigsCommand::Describe(arguments) => arguments
            .cluster
            .run(async |client| describe(client, arguments).await),
        ConfigsCommand::Set(arguments) => alter::run_set(arguments),
        ConfigsCommand::Unset(arguments) => alter::run_unset(arguments),
    }
}

async fn get(client: &mut Client, arguments: &GetArgs) -> Result<(), CommandError> {
    let entities = arguments.entity.entities(client, Internal::Included).await?;
    // All are asked for, so that a wrong name can be answered with similar ones.
    let found = described(client, &entities, Wanted::default()).await?;
    let mut out = Output::new();
    for (entity, settings) in entities.iter().zip(found) {
        let settings = settings?;
        for name in &arguments.names {
            let Some(setting) = settings.iter().find(|setting| setting.name == *name) else {
                return Err(no_such_setting(entity, name, &settings));
            };
            let is_alone = entities.len() == 1 && arguments.names.len() == 1;
            if arguments.cluster.json {
                out.json(&object(entity, setting))?;
            } else if is_alone {
                out.line(setting.shown())?;
            } else {
                let place = if entities.len() == 1 {
                    String::new()
                } else {
                    format!("{entity} ")
                };
                out.line(format_args!("{place}{name}={}", setting.shown()))?;
            }
        }
    }
    out.flush()
}

fn no_such_setting(entity: &Entity, name: &str, settings: &[Setting]) -> CommandError {
    let text = unknown("setting", name, settings.iter().map(|setting| &setting.name));
    let list = format!("; `milena configs describe {} --all` lists them", entity.option());
    let text = text.split("; `").next().unwrap_or_default().to_owned();
    CommandError::Failed(if text.contains("did you mean") {
        text
    } else {
        text + &list
    })
}

async fn describe(client: &mut Client, arguments: &DescribeArgs) -> Result<(), CommandError> {
    let entities = arguments.entity.entities(client, Internal::Included).await?;
    let wanted = Wanted {
        synonyms: arguments.synonyms,
        documentation: arguments.help_text,
    };
    let found = described(client, &entities, wanted).await?;
    let mut out = Output::new();
    let mut failed = false;
    let mut is_first = true;
    for (entity, settings) in entities.iter().zip(found) {
        let settings = match settings {
            Ok(settings) => settings,
            Err(error) => {
                failed = true;
                complain(crate::cluster_args::explained(&error, &[]));
                continue;
            }
        };
        for name in &arguments.names {
            if !settings.iter().any(|setting| setting.name == *name) {
                return Err(no_such_setting(entity, name, &settings));
            }
        }
        let is_meant = |setting: &&Setting| match arguments.names.as_slice() {
            [] => arguments.all || setting.is_of(entity),
            names => names.contains(&setting.name),
        };
        let meant: Vec<&Setting> = settings.iter().filter(is_meant).collect();
        if arguments.cluster.json {
            meant
                .iter()
                .try_for_each(|setting| out.json(&object(entity, setting)))?;
            continue;
        }
        if !is_first {
            out.line("")?;
        }
        is_first = false;
        if entities.len() > 1 {
            out.title(format_args!("{entity}"))?;
        }
        if meant.is_empty() && arguments.names.is_empty() {
            out.line(format_args!(
                "nothing is set for {entity}; --all shows what it inherits"
            ))?;
        } else if arguments.help_text {
            explained(&mut out, &meant)?;
        } else {
            tabled(&mut out, arguments, &meant)?;
        }
    }
    out.flush()?;
    if failed { Err(CommandError::Told) } else { Ok(()) }
}

fn tabled(out: &mut Output, arguments: &DescribeArgs, settings: &[&Setting]) -> Result<(), CommandError> {
    if arguments.synonyms {
        let mut rows = Rows::new(["NAME", "VALUE", "SOURCE", "SYNONYMS"]);
        for setting in settings {
            let synonyms: Vec<String> = setting.synonyms.iter().map(ToString::to_string).collect();
            rows.push([
                setting.name.clone(),
                setting.shown(),
                setting.source.to_string(),
                synonyms.join(", "),
            ]);
        }
        return out.table(&rows);
    }
    let mut rows = Rows::new(["NAME", "VALUE", "SOURCE", "KIND"]);
    for setting in settings {
        rows.push([
            setting.name.clone(),
            setting.shown(),
            setting.source.to_string(),
            (if setting.is_read_only { "read-only" } else { "" }).to_owned(),
        ]);
    }
    out.table(&rows)
}

/// Columns of an explanation.
const TEXT_WIDTH: usize = 96;

fn explained(out: &mut Output, settings: &[&Setting]) -> Result<(), CommandError> {
    for setting in settings {
        out.title(format_args!("{}={}", setting.name, setting.shown()))?;
        let text = setting
            .documentation
            .as_deref()
            .unwrap_or("the broker gives no explanation");
        wrapped(text, TEXT_WIDTH)
            .iter()
            .try_for_each(|line| out.line(format_args!("    {line}")))?;
    }
    Ok(())
}

fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let line = lines
            .last_mut()
            .filter(|line| line.is_empty() || line.len() + 1 + word.len() <= width);
        match line {
            Some(line) if line.is_empty() => line.push_str(word),
            Some(line) => {
                line.push(' ');
                line.push_str(word);
            }
            None => lines.push(word.to_owned()),
        }
    }
    lines
}

fn object(entity: &Entity, setting: &Setting) -> Value {
    let synonyms = setting.synonyms.iter().map(|synonym| {
        json!({
            "name": synonym.name,
            "value": synonym.value,
            "source": synonym.source.to_string(),
        })
    });
    json!({
        "entity": entity.kind(),
        "entity_name": entity.name(),
        "name": setting.name,
        "value": setting.value,
        "source": setting.source.to_string(),
        "read_only": setting.is_read_only,
        "sensitive": setting.is_sensitive,
        "synonyms": synonyms.collect::<Vec<Value>>(),
        "documentation": setting.documentation,
    })
}

/// What one entity gave, or why it did not; of several the reason may be the same.
type Described = Result<Vec<Setting>, Arc<ClientError>>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn explanations_are_wrapped_between_words() {
        assert_eq!(wrapped("a bc  def g", 4), ["a bc", "def", "g"]);
        assert_eq!(wrapped("longer-than-that", 4), ["longer-than-that"]);
        assert_eq!(wrapped("", 4), [""]);
    }
}
