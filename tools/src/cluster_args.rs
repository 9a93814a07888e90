//! What every command that asks a cluster shares: which cluster and how patiently, how it is run, and how it fails.
//!
//! Promise: a failure is one line on standard error that says what to do next, and an exit code by which scripts tell a
//! wrong command line, a cluster that cannot be reached and a refusal apart. Ctrl-C ends a command at once; whoever
//! reads its output may leave at any time.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use milena_server::client::{Address, Client, ClientConfig, ClientError, ConnectionConfig, Topics};
use milena_server::protocol::ErrorCode;
use tokio::runtime::Builder;

use crate::moment;
use crate::nearest::nearest;
use crate::release::release_like;
use crate::{Exit, complain};

/// Where the addresses are taken from when the command line has none; the first that is set counts.
const VARIABLES: [&str; 2] = ["MILENA_BOOTSTRAP_SERVER", "KAFKA_BOOTSTRAP_SERVERS"];
const BOOTSTRAP_DEFAULT: &str = "127.0.0.1:9092";
/// Longest wait for a connection and for one answer; `--timeout` shortens both.
const CONNECT_TIMEOUT_MAX: Duration = Duration::from_secs(10);
const REQUEST_TIMEOUT_MAX: Duration = Duration::from_secs(30);

/// Which cluster, and how patiently it is asked.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Cluster and output")]
pub(crate) struct ClusterArgs {
    #[command(flatten)]
    bootstrap: BootstrapArgs,
    /// How long an operation may take with all its attempts: 500ms, 30s, 2m.
    #[arg(long, value_name = "time", default_value = "30s", value_parser = duration)]
    pub(crate) timeout: Duration,
    /// The name by which brokers know this client, for quotas and logs.
    #[arg(long, value_name = "name", default_value = "milena")]
    pub(crate) client_id: String,
    /// Print one JSON object per line, for scripts.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Where to begin.
#[derive(Clone, Debug, Args)]
pub(crate) struct BootstrapArgs {
    /// Brokers to begin with; one that answers is enough. Without it $MILENA_BOOTSTRAP_SERVER, then
    /// $KAFKA_BOOTSTRAP_SERVERS, then 127.0.0.1:9092.
    #[arg(short = 'b', long, value_name = "host:port,..")]
    bootstrap_server: Option<String>,
}

impl BootstrapArgs {
    /// As the command line or the environment says.
    ///
    /// # Errors
    /// Names the place of a wrong address.
    pub(crate) fn addresses(&self) -> Result<Vec<Address>, String> {
        let from_environment = || {
            let set = VARIABLES
                .iter()
                .map(|name| (*name, std::env::var(name).unwrap_or_default()));
            set.into_iter().find(|(_, value)| !value.is_empty())
        };
        let (place, text) = match &self.bootstrap_server {
            Some(text) => ("--bootstrap-server", text.clone()),
            None => from_environment().unwrap_or(("", BOOTSTRAP_DEFAULT.to_owned())),
        };
        Address::list(&text).map_err(|error| format!("{place}: {error}"))
    }
}

/// A time span: `30s`, `1h 30m`, `PT5M`, or a plain number of seconds.
pub(crate) fn duration_or_zero(text: &str) -> Result<Duration, String> {
    let parsed = match text.parse::<u32>() {
        Ok(seconds) => Some(Duration::from_secs(seconds.into())),
        Err(_) => moment::span(text).and_then(|span| span.try_into().ok()),
    };
    parsed.ok_or_else(|| format!("found {text:?}, expected a time as 500ms, 30s or 2m"))
}

/// [`duration_or_zero`], but not zero.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    match duration_or_zero(text)? {
        Duration::ZERO => Err(format!(
            "found {text:?}, expected a time above zero, as 500ms, 30s or 2m"
        )),
        span => Ok(span),
    }
}

/// Why a command ends without success.
#[derive(Debug)]
pub(crate) enum CommandError {
    /// What the user asked for makes no sense.
    Usage(String),
    Client(ClientError),
    /// What several things have in common.
    Shared(Arc<ClientError>),
    /// Refused or failed; the text says what to do.
    Failed(String),
    /// Refused or failed in parts, each of which was told already.
    Told,
    /// Standard output takes no more.
    Output(io::Error),
}

impl From<ClientError> for CommandError {
    fn from(error: ClientError) -> CommandError {
        CommandError::Client(error)
    }
}

impl From<Arc<ClientError>> for CommandError {
    fn from(error: Arc<ClientError>) -> CommandError {
        CommandError::Shared(error)
    }
}

impl ClusterArgs {
    /// [`BootstrapArgs::addresses`].
    ///
    /// # Errors
    /// [`CommandError::Usage`].
    pub(crate) fn bootstrap(&self) -> Result<Vec<Address>, CommandError> {
        self.bootstrap.addresses().map_err(CommandError::Usage)
    }

    pub(crate) fn client_config(&self) -> ClientConfig {
        ClientConfig {
            connection: ConnectionConfig {
                client_id: self.client_id.clone(),
                connect_timeout: self.timeout.min(CONNECT_TIMEOUT_MAX),
                request_timeout: self.timeout.min(REQUEST_TIMEOUT_MAX),
            },
            operation_timeout: self.timeout,
        }
    }

    /// Connects and runs a command, which Ctrl-C ends.
    pub(crate) fn run(&self, command: impl AsyncFnOnce(&mut Client) -> Result<(), CommandError>) -> Exit {
        self.run_to_its_end(async |client| {
            tokio::select! {
                done = command(client) => done.map(|()| Exit::Success),
                _ = tokio::signal::ctrl_c() => Ok(Exit::Interrupted),
            }
        })
    }

    /// Connects and runs a command that takes care of Ctrl-C itself, once it is connected.
    pub(crate) fn run_to_its_end(
        &self,
        command: impl AsyncFnOnce(&mut Client) -> Result<Exit, CommandError>,
    ) -> Exit {
        let bootstrap = match self.bootstrap() {
            Ok(bootstrap) => bootstrap,
            Err(error) => return end(error, &[]),
        };
        let runtime = match Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => return end(CommandError::Failed(format!("cannot run: {error}")), &[]),
        };
        let done = runtime.block_on(async {
            let mut client = tokio::select! {
                client = Client::connect(bootstrap.clone(), self.client_config()) => client?,
                _ = tokio::signal::ctrl_c() => return Ok(Exit::Interrupted),
            };
            match command(&mut client).await {
                Err(CommandError::Client(error)) => Err(dated(&mut client, error).await),
                done => done,
            }
        });
        // A name that is still looked up on a thread keeps nobody waiting.
        runtime.shutdown_background();
        done.unwrap_or_else(|error| end(error, &bootstrap))
    }
}

/// Of a broker that is too old, or too new, also tells how old it is.
async fn dated(client: &mut Client, error: ClientError) -> CommandError {
    let (ClientError::Unsupported { address, .. } | ClientError::Inexpressible { address, .. }) = &error
    else {
        return error.into();
    };
    let mut brokers = client.cluster().brokers.values();
    let broker = brokers.find(|node| node.address == *address).map(|node| node.id);
    let versions = match broker {
        Some(broker) => client.versions(broker).await.ok(),
        None => None,
    };
    match versions.as_ref().and_then(release_like) {
        Some(release) => {
            CommandError::Failed(format!("{error}; its APIs are those of Apache Kafka {release}"))
        }
        None => error.into(),
    }
}

/// Tells what is left to be told.
fn end(error: CommandError, bootstrap: &[Address]) -> Exit {
    match error {
        // Whoever read has enough.
        CommandError::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => Exit::Success,
        CommandError::Output(error) => {
            complain(format_args!("standard output: {error}"));
            Exit::Failed
        }
        CommandError::Usage(text) => {
            complain(text);
            Exit::Usage
        }
        CommandError::Failed(text) => {
            complain(text);
            Exit::Failed
        }
        CommandError::Told => Exit::Failed,
        CommandError::Client(error) => refused(&error, bootstrap),
        CommandError::Shared(error) => refused(&error, bootstrap),
    }
}

fn refused(error: &ClientError, bootstrap: &[Address]) -> Exit {
    complain(explained(error, bootstrap));
    exit_of(error)
}

pub(crate) fn exit_of(error: &ClientError) -> Exit {
    match error {
        ClientError::Unreachable { .. }
        | ClientError::NoBroker(_)
        | ClientError::Disconnected { .. }
        | ClientError::Shunned { .. }
        | ClientError::NotKafka { .. }
        | ClientError::TimedOut { .. } => Exit::NoBroker,
        ClientError::Unsupported { .. }
        | ClientError::Malformed { .. }
        | ClientError::OutOfOrder { .. }
        | ClientError::Inexpressible { .. }
        | ClientError::Refused { .. } => Exit::Failed,
    }
}

/// The error in one line, with what to do about it.
pub(crate) fn explained(error: &ClientError, bootstrap: &[Address]) -> String {
    let text = error.to_string().replace("\n  ", "; ");
    match advice(error, bootstrap) {
        Some(advice) => format!("{text}; {advice}"),
        None => text,
    }
}

fn advice(error: &ClientError, bootstrap: &[Address]) -> Option<&'static str> {
    match error {
        ClientError::Unreachable { address, .. } if !bootstrap.is_empty() && !bootstrap.contains(address) => {
            Some(
                "this is where the cluster says that the broker listens: see its advertised.listeners, or work from \
             where this address can be reached",
            )
        }
        ClientError::Unreachable { source, .. } if source.kind() == io::ErrorKind::ConnectionRefused => {
            Some("is a broker running there? `milena start` starts one, --bootstrap-server names another")
        }
        ClientError::Unreachable { .. } | ClientError::NoBroker(_) => {
            Some("check the address and the network, or name another broker with --bootstrap-server")
        }
        ClientError::Disconnected { .. } => Some("the broker's log may say why"),
        ClientError::TimedOut { .. } => Some("--timeout grants more time"),
        ClientError::Refused { code, .. } => match code {
            ErrorCode::TopicAuthorizationFailed
            | ErrorCode::GroupAuthorizationFailed
            | ErrorCode::ClusterAuthorizationFailed => {
                Some("this client does not log in, so it may do what the user ANONYMOUS may do")
            }
            ErrorCode::NotController | ErrorCode::CoordinatorNotAvailable => Some(
                "the cluster has none at the moment; try again, with a longer --timeout if it starts slowly",
            ),
            ErrorCode::BrokerNotAvailable => Some("`milena brokers` shows those that are alive"),
            ErrorCode::RequestTimedOut => {
                Some("what was asked may be done nevertheless; look before trying again")
            }
            _ => None,
        },
        ClientError::Shunned { .. }
        | ClientError::NotKafka { .. }
        | ClientError::Unsupported { .. }
        | ClientError::Malformed { .. }
        | ClientError::OutOfOrder { .. }
        | ClientError::Inexpressible { .. } => None,
    }
}

/// The error of a topic that is not there, with the names that are nearest to it.
pub(crate) async fn no_such_topic(client: &mut Client, topic: &str) -> CommandError {
    match client.metadata(Topics::All).await {
        Ok(all) => CommandError::Failed(unknown("topic", topic, all.topics.keys())),
        Err(error) => error.into(),
    }
}

/// Says that there is no such thing, and which there are with a similar name.
pub(crate) fn unknown<'n>(noun: &str, name: &str, known: impl Iterator<Item = &'n String>) -> String {
    let mut count = 0;
    let similar = nearest(name, known.inspect(|_| count += 1).map(String::as_str));
    match similar.as_slice() {
        [] if count == 0 => format!("there is no {noun} {name}, nor any other"),
        [] => format!("there is no {noun} {name}; `milena {noun}s list` lists those that there are"),
        names => format!("there is no {noun} {name}; did you mean {}?", names.join(" or ")),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        cluster: ClusterArgs,
    }

    fn parse(line: &str) -> Result<ClusterArgs, clap::Error> {
        Line::try_parse_from(line.split(' ')).map(|line| line.cluster)
    }

    #[test]
    fn a_timeout_shortens_every_wait_and_is_written_as_people_do() {
        let config = |line| parse(line).unwrap().client_config();
        let waits = |line| {
            let config = config(line);
            let connection = config.connection;
            [
                connection.connect_timeout,
                connection.request_timeout,
                config.operation_timeout,
            ]
            .map(|wait| wait.as_millis())
        };
        assert_eq!(waits("x"), [10_000, 30_000, 30_000]);
        assert_eq!(waits("x --timeout 500ms"), [500, 500, 500]);
        assert_eq!(waits("x --timeout 2m"), [10_000, 30_000, 120_000]);
        assert_eq!(waits("x --timeout 20"), [10_000, 20_000, 20_000]);
        for wrong in ["0", "0s", "soon", "-1s", ""] {
            assert!(
                duration(wrong).unwrap_err().contains("expected a time"),
                "{wrong}"
            );
        }
        assert_eq!(duration_or_zero("0"), Ok(Duration::ZERO));
        assert_eq!(duration_or_zero("0ms"), Ok(Duration::ZERO));
        assert!(duration_or_zero("-1s").is_err());
    }

    #[test]
    fn a_wrong_address_names_the_option() {
        let error = parse("x -b a:0").unwrap().bootstrap().unwrap_err();
        let CommandError::Usage(text) = error else {
            panic!("{error:?}")
        };
        assert_eq!(text, "--bootstrap-server: found \"a:0\", expected host:port");
    }

    #[test]
    fn nobody_listening_and_an_address_that_only_the_cluster_knows_are_explained_differently() {
        let address: Address = "a:9092".parse().unwrap();
        let unreachable = |address: &Address| ClientError::Unreachable {
            address: address.clone(),
            source: io::ErrorKind::ConnectionRefused.into(),
        };
        let first = explained(&unreachable(&address), std::slice::from_ref(&address));
        assert!(first.contains("`milena start`"), "{first}");
        let other: Address = "inner:9092".parse().unwrap();
        let second = explained(&unreachable(&other), std::slice::from_ref(&address));
        assert!(second.contains("advertised.listeners"), "{second}");
        let both = ClientError::NoBroker(vec![unreachable(&address), unreachable(&other)]);
        let text = explained(&both, &[address, other]);
        assert!(
            !text.contains('\n') && text.contains("a:9092") && text.contains("inner:9092"),
            "{text}"
        );
        assert_eq!(exit_of(&both), Exit::NoBroker);
    }

    #[test]
    fn a_name_that_is_unknown_is_answered_with_similar_ones() {
        let known = ["orders", "order-items", "payments"].map(str::to_owned);
        assert_eq!(
            unknown("topic", "ordrs", known.iter()),
            "there is no topic ordrs; did you mean orders or order-items?"
        );
        let text = unknown("topic", "zzz", known.iter());
        assert_eq!(
            text,
            "there is no topic zzz; `milena topics list` lists those that there are"
        );
        assert_eq!(
            unknown("group", "g", [].iter()),
            "there is no group g, nor any other"
        );
    }
}
