//! The coordination tree in ZooKeeper: a session with an ensemble, as a body of [`Coordination`].
//!
//! One thread holds the session: [`session`] decides, [`connection`] moves bytes, and this file carries requests, answers, watches
//! and events between them and the callers. A request waits for a connection no longer than the session timeout, and then
//! for its answer as long as the server is heard. Paths here are without the chroot; on the wire they have it.
//!
//! Parts: `connect_string` (`zookeeper.connect`), `jute` and `messages` (the wire), `digest_md5` (SASL), `session` (the machine),
//! `connection`, `tls`. Source classes: `ZooKeeperClient`, `KafkaZkClient`, and of ZooKeeper `ClientCnxn`.

mod connect_string;
mod connection;
mod digest_md5;
mod jute;
mod messages;
mod session;
mod tls;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot, watch};

use super::{
    BoxFuture, Coordination, CoordinationError, MultiError, Node, Operation, OperationResult, SessionEvent,
    SessionListener, Watch, WatchEvent, ancestors, check_path, znodes,
};
pub use connect_string::{ConnectString, ConnectStringError, ServerAddress};
use connection::{Connection, Event};
pub use digest_md5::Credentials;
use messages::{Reply, Request};
pub use session::AuthInfo;
use session::{ConnectionNumber, Input, Output, Session, SessionConfig, Token, WatchId};
pub use tls::{TlsClient, TlsError, TlsMaterial, TlsVersion};

/// The logger of Kafka's own client of ZooKeeper.
const LOGGER: &str = "kafka.zookeeper.ZooKeeperClient";

/// How to reach an ensemble, and as whom.
#[derive(Clone, Debug)]
pub struct ZooKeeperConfig {
    /// `zookeeper.connect`
    pub connect: ConnectString,
    /// `zookeeper.session.timeout.ms`; the servers have bounds of their own.
    pub session_timeout_ms: i32,
    /// `zookeeper.max.in.flight.requests`, from 1.
    pub max_in_flight_requests: usize,
    /// `zookeeper.set.acl`: what is created belongs to who created it.
    pub set_acl: bool,
    /// Said on each connection.
    pub auth: Vec<AuthInfo>,
    /// The `Client` section of a JAAS file: SASL before anything else.
    pub sasl: Option<Credentials>,
    /// Where the servers speak TLS.
    pub tls: Option<TlsClient>,
}

/// Why there is no session within the time that was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    #[error("Timed out waiting for connection while in state: CONNECTING")]
    TimedOut,
    #[error("Auth failed either before or while waiting for connection")]
    AuthenticationFailed,
}

/// What the session is at this moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Connecting,
    Connected,
    AuthenticationFailed,
}

#[derive(Debug)]
enum Command {
    Ask {
        request: Request,
        watch: Option<WatchBox>,
        answer: oneshot::Sender<Result<Reply, CoordinationError>>,
    },
    Close(oneshot::Sender<()>),
}

/// A watch, which has no Debug of its own.
struct WatchBox(Watch);

impl std::fmt::Debug for WatchBox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Watch")
    }
}

/// A session with an ensemble. Dropped without [`Coordination::close`] it ends at the servers when its time is over.
#[derive(Debug)]
pub struct ZooKeeper {
    chroot: Arc<str>,
    set_acl: bool,
    commands: mpsc::UnboundedSender<Command>,
    listeners: Listeners,
    state: watch::Receiver<State>,
    session_id: Arc<AtomicI64>,
}

/// Who hears of the session's events.
#[derive(Clone, Default)]
struct Listeners(Arc<Mutex<Vec<SessionListener>>>);

impl std::fmt::Debug for Listeners {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} listeners", self.0.lock().len())
    }
}

impl ZooKeeper {
    /// Begins a session; requests wait until a server takes it.
    ///
    /// # Errors
    /// There is no thread or runtime for it.
    pub fn begin(mut config: ZooKeeperConfig) -> std::io::Result<ZooKeeper> {
        // As the Java client, so that not all brokers are at the first server.
        shuffle(&mut config.connect.servers);
        let (commands, inbox) = mpsc::unbounded_channel();
        let (state, state_now) = watch::channel(State::Connecting);
        let listeners = Listeners::default();
        let shell = Shell {
            session: Session::new(SessionConfig {
                servers: config.connect.servers.len(),
                timeout_ms: config.session_timeout_ms,
                max_in_flight: config.max_in_flight_requests,
                auth: config.auth,
                sasl: config.sasl,
            }),
            servers: config.connect.servers,
            tls: config.tls,
            began: Instant::now(),
            connection: None,
            answers: HashMap::new(),
            watches: HashMap::new(),
            next: 0,
            closing: None,
            listeners: listeners.clone(),
            state,
            session_id: Arc::default(),
            chroot: Arc::from(config.connect.chroot.as_str()),
        };
        let chroot = Arc::clone(&shell.chroot);
        let session_id = Arc::clone(&shell.session_id);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let run = move || {
            let local = tokio::task::LocalSet::new();
            local.block_on(&runtime, shell.run(inbox));
        };
        std::thread::Builder::new()
            .name("milena-zk".to_owned())
            .spawn(run)?;
        Ok(ZooKeeper {
            chroot,
            set_acl: config.set_acl,
            commands,
            listeners,
            state: state_now,
            session_id,
        })
    }

    /// Waits until there is a session.
    ///
    /// # Errors
    /// None within the time, or none for who we say we are.
    pub async fn connected(&self, within: Duration) -> Result<(), ConnectError> {
        let mut state = self.state.clone();
        let settled = state.wait_for(|state| *state != State::Connecting);
        match tokio::time::timeout(within, settled).await {
            Ok(Ok(state)) if *state == State::Connected => Ok(()),
            Ok(Ok(_)) => Err(ConnectError::AuthenticationFailed),
            Ok(Err(_)) | Err(_) => Err(ConnectError::TimedOut),
        }
    }

    /// [`Coordination::close`] for a thread that waits for it itself.
    pub fn shutdown(&self) {
        let (done, is_done) = oneshot::channel();
        // A session that is closed already is closed.
        let _ = self.commands.send(Command::Close(done));
        let _ = is_done.blocking_recv();
    }

    /// Creates the chroot with its ancestors; fine if it is there.
    ///
    /// # Errors
    /// It is not there and cannot be created.
    pub async fn ensure_chroot(&self) -> Result<(), CoordinationError> {
        if self.chroot.is_empty() {
            return Ok(());
        }
        for path in ancestors(&self.chroot) {
            loop {
                let create = (Operation::create(path, None), znodes::rights(path, self.set_acl));
                match self.ask(Request::Multi(vec![create]), None).await {
                    // Done again it does no harm.
                    Err(CoordinationError::ConnectionLoss) => {}
                    Ok(Reply::Multi(Err(MultiError { error, .. })))
                        if !matches!(error, CoordinationError::NodeExists { .. }) =>
                    {
                        return Err(error);
                    }
                    Ok(_) => break,
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }

    /// Sends at once; the future waits for the answer.
    fn ask(
        &self,
        request: Request,
        watch: Option<Watch>,
    ) -> impl Future<Output = Result<Reply, CoordinationError>> + Send + use<> {
        let (answer, answered) = oneshot::channel();
        let watch = watch.map(WatchBox);
        // A session that was closed drops the answer with the command.
        let _ = self.commands.send(Command::Ask {
            request,
            watch,
            answer,
        });
        async move { answered.await.unwrap_or(Err(CoordinationError::SessionExpired)) }
    }

    /// The path on the wire.
    fn whole(&self, path: &str) -> Result<String, CoordinationError> {
        check_path(path)?;
        Ok(match (&*self.chroot, path) {
            ("", path) => path.to_owned(),
            (chroot, "/") => chroot.to_owned(),
            (chroot, path) => format!("{chroot}{path}"),
        })
    }

    fn read_node(
        &self,
        path: &str,
        watch: Option<Watch>,
    ) -> impl Future<Output = Result<Option<Node>, CoordinationError>> + Send + use<> {
        let request = self.whole(path).map(|path| Request::GetData {
            path,
            watch: watch.is_some(),
        });
        let answer = request.map(|request| self.ask(request, watch));
        let chroot = Arc::clone(&self.chroot);
        async move {
            match answer?.await {
                Ok(Reply::Data(data, stat)) => Ok(Some(Node { data, stat })),
                Ok(other) => unreachable!("getData answered {other:?}"),
                Err(CoordinationError::NoNode { .. }) => Ok(None),
                Err(error) => Err(without_chroot(&chroot, error)),
            }
        }
    }
}

impl Coordination for ZooKeeper {
    fn get(
        &self,
        path: &str,
        watch: Option<Watch>,
    ) -> BoxFuture<'_, Result<Option<Node>, CoordinationError>> {
        Box::pin(self.read_node(path, watch))
    }

    fn children(
        &self,
        path: &str,
        watch: Option<Watch>,
    ) -> BoxFuture<'_, Result<Option<Vec<String>>, CoordinationError>> {
        let request = self.whole(path).map(|path| Request::GetChildren {
            path,
            watch: watch.is_some(),
        });
        let answer = request.map(|request| self.ask(request, watch));
        Box::pin(async move {
            match answer?.await {
                Ok(Reply::Children(mut names)) => {
                    names.sort_unstable();
                    Ok(Some(names))
                }
                Ok(other) => unreachable!("getChildren answered {other:?}"),
                Err(CoordinationError::NoNode { .. }) => Ok(None),
                Err(error) => Err(without_chroot(&self.chroot, error)),
            }
        })
    }

    fn get_many(&self, paths: Vec<String>) -> BoxFuture<'_, Result<Vec<Option<Node>>, CoordinationError>> {
        // All are asked before the first answer is waited for.
        let answers: Vec<_> = paths.iter().map(|path| self.read_node(path, None)).collect();
        Box::pin(async move {
            let mut nodes = Vec::with_capacity(answers.len());
            for answer in answers {
                nodes.push(answer.await?);
            }
            Ok(nodes)
        })
    }

    fn multi(&self, operations: Vec<Operation>) -> BoxFuture<'_, Result<Vec<OperationResult>, MultiError>> {
        let mut whole = Vec::with_capacity(operations.len());
        for (index, mut operation) in operations.into_iter().enumerate() {
            let rights = znodes::rights(operation.path(), self.set_acl);
            match self.whole(operation.path()) {
                Ok(path) => *operation.path_mut() = path,
                Err(error) => return Box::pin(std::future::ready(Err(MultiError { index, error }))),
            }
            whole.push((operation, rights));
        }
        let answer = self.ask(Request::Multi(whole), None);
        Box::pin(async move {
            let relative = |error| without_chroot(&self.chroot, error);
            match answer.await {
                Ok(Reply::Multi(Ok(mut results))) => {
                    for result in &mut results {
                        if let OperationResult::Created { path } = result {
                            *path = strip(&self.chroot, path);
                        }
                    }
                    Ok(results)
                }
                Ok(Reply::Multi(Err(MultiError { index, error }))) => Err(MultiError {
                    index,
                    error: relative(error),
                }),
                Ok(other) => unreachable!("multi answered {other:?}"),
                Err(error) => Err(MultiError {
                    index: 0,
                    error: relative(error),
                }),
            }
        })
    }

    fn session_id(&self) -> i64 {
        self.session_id.load(Ordering::Acquire)
    }

    fn listen(&self, listener: SessionListener) {
        self.listeners.0.lock().push(listener);
    }

    fn close(&self) -> BoxFuture<'_, Result<(), CoordinationError>> {
        let (done, is_done) = oneshot::channel();
        // A session that is closed already is closed.
        let _ = self.commands.send(Command::Close(done));
        Box::pin(async move {
            let _ = is_done.await;
            Ok(())
        })
    }
}

/// A path as callers know it.
fn strip(chroot: &str, path: &str) -> String {
    match path.strip_prefix(chroot) {
        Some("") => "/".to_owned(),
        Some(rest) => rest.to_owned(),
        None => path.to_owned(),
    }
}

fn without_chroot(chroot: &str, mut error: CoordinationError) -> CoordinationError {
    if let Some(path) = error.path_mut() {
        *path = strip(chroot, path);
    }
    error
}

/// What the thread holds.
struct Shell {
    session: Session,
    servers: Vec<ServerAddress>,
    tls: Option<TlsClient>,
    /// When time began for the machine.
    began: Instant,
    connection: Option<Connection>,
    answers: HashMap<Token, oneshot::Sender<Result<Reply, CoordinationError>>>,
    watches: HashMap<WatchId, Watch>,
    /// The next token and watch id.
    next: u64,
    closing: Option<oneshot::Sender<()>>,
    listeners: Listeners,
    state: watch::Sender<State>,
    session_id: Arc<AtomicI64>,
    chroot: Arc<str>,
}

impl Shell {
    /// Until the session is closed or its handle dropped.
    async fn run(mut self, mut commands: mpsc::UnboundedReceiver<Command>) {
        let (events, mut happened) = mpsc::unbounded_channel();
        let mut input = Input::Time;
        loop {
            if self.step(input, &events) {
                return;
            }
            let deadline = self.session.next_deadline_ms().map(|at_ms| {
                let since = Duration::from_millis(u64::try_from(at_ms).unwrap_or(0));
                tokio::time::Instant::from_std(self.began + since)
            });
            let wait = async {
                match deadline {
                    Some(deadline) => tokio::time::sleep_until(deadline).await,
                    None => std::future::pending().await,
                }
            };
            input = tokio::select! {
                command = commands.recv() => match command {
                    None => return,
                    Some(Command::Ask { request, watch, answer }) => self.submit(request, watch, answer),
                    Some(Command::Close(done)) => {
                        self.closing = Some(done);
                        Input::Close
                    }
                },
                // The sender is ours.
                Some((number, event)) = happened.recv() => self.heard(number, event),
                () = wait => Input::Time,
            };
        }
    }

    fn submit(
        &mut self,
        request: Request,
        watch: Option<WatchBox>,
        answer: oneshot::Sender<Result<Reply, CoordinationError>>,
    ) -> Input {
        self.next += 1;
        let token = Token(self.next);
        self.answers.insert(token, answer);
        let watch = watch.map(|WatchBox(watch)| {
            let id = WatchId(self.next);
            self.watches.insert(id, watch);
            id
        });
        Input::Submit {
            token,
            request,
            watch,
        }
    }

    fn heard(&mut self, connection: ConnectionNumber, event: Event) -> Input {
        match event {
            Event::Opened => Input::Opened {
                connection,
                nonce: nonce(),
            },
            Event::Received(frame) => Input::Received { connection, frame },
            Event::Lost(error) => {
                tracing::info!(target: LOGGER, "the connection to {} is lost: {error}", self.server());
                Input::Lost(connection)
            }
        }
    }

    fn server(&self) -> &ServerAddress {
        &self.servers[self.session.server()]
    }

    /// One step of the machine, and what comes of it; true once the session is closed.
    fn step(&mut self, input: Input, events: &mpsc::UnboundedSender<(ConnectionNumber, Event)>) -> bool {
        let now_ms = i64::try_from(self.began.elapsed().as_millis()).unwrap_or(i64::MAX);
        let mut outputs = Vec::new();
        self.session.step(now_ms, input, &mut outputs);
        let mut is_closed = false;
        for output in outputs {
            match output {
                Output::Connect { connection, server } => {
                    let server = self.servers[server].clone();
                    if let Some(former) = self.connection.take() {
                        former.give_up();
                    }
                    self.connection = Some(Connection::open(
                        connection,
                        server,
                        self.tls.clone(),
                        events.clone(),
                    ));
                }
                Output::Disconnect => {
                    if let Some(connection) = self.connection.take() {
                        connection.give_up();
                    }
                }
                Output::Send(frame) => {
                    if let Some(connection) = &self.connection {
                        connection.send(frame);
                    }
                }
                Output::Answer { token, result } => {
                    if let Some(answer) = self.answers.remove(&token) {
                        // Who asked may have gone.
                        let _ = answer.send(result);
                    }
                }
                Output::Fire { watch, event } => {
                    if let Some(watch) = self.watches.remove(&watch) {
                        let path = strip(&self.chroot, &event.path);
                        watch(WatchEvent { path, ..event });
                    }
                }
                Output::Forget(watches) => {
                    for watch in watches {
                        self.watches.remove(&watch);
                    }
                }
                Output::Misunderstood(malformed) => {
                    tracing::error!(target: LOGGER, "{}: {malformed}", self.server());
                }
                Output::Event(event) => self.tell(&event),
                Output::Closed => is_closed = true,
            }
        }
        if is_closed && let Some(done) = self.closing.take() {
            // Who closed it may have gone.
            let _ = done.send(());
        }
        is_closed
    }

    fn tell(&mut self, event: &SessionEvent) {
        let state = match event {
            SessionEvent::Connected => {
                let id = self.session.id();
                self.session_id.store(id, Ordering::Release);
                tracing::info!(target: LOGGER, "connected to {}, session 0x{id:x}", self.server());
                State::Connected
            }
            SessionEvent::AuthenticationFailed => {
                tracing::error!(target: LOGGER, "authentication failed at {}", self.server());
                State::AuthenticationFailed
            }
            SessionEvent::Expired => {
                tracing::warn!(target: LOGGER, "the session expired");
                State::Connecting
            }
            SessionEvent::Disconnected | SessionEvent::Lost(_) => State::Connecting,
        };
        self.state.send_replace(state);
        // Not under the lock: a listener may add another.
        let listeners = self.listeners.0.lock().clone();
        for listener in listeners {
            listener(event.clone());
        }
    }
}

fn shuffle<T>(list: &mut [T]) {
    for end in (1..list.len()).rev() {
        let chosen = nonce() % (end as u128 + 1);
        list.swap(end, chosen as usize);
    }
}

/// A number that nobody can guess.
fn nonce() -> u128 {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).expect("the system gives random bytes");
    u128::from_ne_bytes(bytes)
}
