//! A ZooKeeper ensemble in memory, for simulations: seeded, on the simulated time of the runtime that it is used in.
//!
//! What brokers may rely on with ZooKeeper holds here, and no more. Writes are decided by one leader, in order. Each session speaks to
//! one server, which may lag behind: a read sees what that server has applied, a session's own writes always. Watches fire where
//! the server applies the change, before any later read of that session is answered; what a session sends and hears keeps
//! its order. A connection that is lost answers the writes under way with [`CoordinationError::ConnectionLoss`], done or not; reads
//! are asked again, as [`super::zookeeper`] does; the next one is to any server, which is not behind what the session saw or wrote. A
//! session that is cut off longer than its timeout expires at the servers, and its owner learns it only when it is connected again.
//!
//! The tree's rules are meant to be those of [`super::embedded`], which `examples/tree_differential.rs` compares with a real ZooKeeper's.

mod tree;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use milena_engine::io::Clock;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep, sleep_until};

use super::{
    BoxFuture, Coordination, CoordinationError, MultiError, Node, Operation, OperationResult, SessionEvent,
    SessionListener, Watch, WatchEvent, WatchEventKind, check_path,
};
use tree::{Transaction, Tree};

/// How long a client waits before it asks again.
const RETRY: Duration = Duration::from_millis(20);

/// How an ensemble behaves.
#[derive(Clone, Copy, Debug)]
pub struct EnsembleRules {
    pub servers: usize,
    pub session_timeout: Duration,
    /// Of each way between client and server.
    pub delay_max: Duration,
    /// How far a server may lag behind the leader.
    pub lag_max: Duration,
}

/// Numbers for delays: the caller's seeded generator.
pub type Numbers = Arc<Mutex<dyn FnMut(u64) -> u64 + Send>>;

/// An ensemble; clones are the same one.
#[derive(Clone)]
pub struct Ensemble(Arc<Shared>);

struct Shared {
    rules: EnsembleRules,
    clock: Arc<dyn Clock>,
    /// A number below the one given.
    numbers: Numbers,
    state: Mutex<State>,
}

struct State {
    leader: Tree,
    transactions: Vec<Transaction>,
    zxid: i64,
    servers: Vec<Server>,
    sessions: HashMap<i64, Registered>,
    next_session: i64,
}

struct Server {
    tree: Tree,
    /// Transactions applied.
    applied: usize,
    watches: HashMap<(String, WatchKind), Vec<(i64, Watch)>>,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum WatchKind {
    Node,
    Children,
}

/// What the servers know of a session.
struct Registered {
    server: usize,
    heard: mpsc::UnboundedSender<Heard>,
    /// Since when the servers hear nothing of it.
    cut_since: Option<Instant>,
}

/// What a client hears of its server, in order.
enum Heard {
    Fired(Watch, WatchEvent),
    /// On this connection; lost with it.
    Answer(u64, Box<dyn FnOnce() + Send>),
}

impl std::fmt::Debug for Ensemble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Ensemble of {}", self.0.rules.servers)
    }
}

impl Ensemble {
    pub fn new(rules: EnsembleRules, clock: Arc<dyn Clock>, numbers: Numbers) -> Ensemble {
        let servers = (0..rules.servers).map(|_| Server {
            tree: Tree::new(),
            applied: 0,
            watches: HashMap::new(),
        });
        let state = State {
            leader: Tree::new(),
            transactions: Vec::new(),
            zxid: 0,
            servers: servers.collect(),
            sessions: HashMap::new(),
            next_session: 1,
        };
        Ensemble(Arc::new(Shared {
            rules,
            clock,
            numbers,
            state: Mutex::new(state),
        }))
    }

    /// One server, which never lags and answers at once.
    pub fn of_one_server(clock: Arc<dyn Clock>) -> Ensemble {
        let rules = EnsembleRules {
            servers: 1,
            session_timeout: Duration::from_secs(6),
            delay_max: Duration::ZERO,
            lag_max: Duration::ZERO,
        };
        Ensemble::new(rules, clock, Arc::new(Mutex::new(|_| 0)))
    }

    /// A session. It lives until it is closed, expires, or [`SimulatedZooKeeper::vanish`] says that its process is gone.
    pub fn session(&self) -> Arc<SimulatedZooKeeper> {
        let session = Arc::new(SimulatedZooKeeper {
            ensemble: self.clone(),
            client: Mutex::new(Client {
                session: 0,
                requests: mpsc::unbounded_channel().0,
                connection: watch::Sender::new(0),
                is_gone: false,
                has_expired: false,
                listeners: Vec::new(),
            }),
        });
        session.begin();
        session
    }

    /// What the leader has at a path, as an observer sees it.
    pub fn look(&self, path: &str) -> Option<Node> {
        self.0.state.lock().leader.get(path)
    }

    /// The children that the leader has at a path.
    pub fn look_below(&self, path: &str) -> Vec<String> {
        self.0.state.lock().leader.children(path).unwrap_or_default()
    }

    fn below(&self, bound: Duration) -> Duration {
        let bound = u64::try_from(bound.as_micros()).unwrap_or(u64::MAX);
        let number = (self.0.numbers.lock())(bound.max(1));
        Duration::from_micros(number)
    }

    /// Decides a transaction and has the session's server apply it.
    fn write(&self, session: i64, operations: Vec<Operation>) -> Result<Vec<OperationResult>, MultiError> {
        let mut state = self.0.state.lock();
        if !state.sessions.contains_key(&session) {
            let error = CoordinationError::SessionExpired;
            return Err(MultiError { index: 0, error });
        }
        let server = state.sessions[&session].server;
        let results = self.decide(&mut state, session, operations);
        let upto = state.transactions.len();
        apply(&mut state, server, upto);
        results
    }

    fn decide(
        &self,
        state: &mut State,
        session: i64,
        operations: Vec<Operation>,
    ) -> Result<Vec<OperationResult>, MultiError> {
        state.zxid += 1;
        let transaction = Transaction {
            zxid: state.zxid,
            time: self.0.clock.wall(),
            session,
            operations,
        };
        let results = state.leader.decide(&transaction)?;
        state.transactions.push(transaction);
        let upto = state.transactions.len();
        for server in 0..self.0.rules.servers {
            let (ensemble, lag) = (self.clone(), self.below(self.0.rules.lag_max));
            tokio::spawn(async move {
                sleep(lag).await;
                apply(&mut ensemble.0.state.lock(), server, upto);
            });
        }
        Ok(results)
    }

    /// The servers give a session up: its ephemeral nodes go, and its watches.
    fn end(&self, session: i64) {
        let mut state = self.0.state.lock();
        if state.sessions.remove(&session).is_none() {
            return;
        }
        for server in &mut state.servers {
            for waiting in server.watches.values_mut() {
                waiting.retain(|(owner, _)| *owner != session);
            }
        }
        let owned = state.leader.owned_by(session);
        let deletions: Vec<Operation> = owned.into_iter().map(Operation::delete).collect();
        if !deletions.is_empty() {
            self.decide(&mut state, session, deletions)
                .expect("ephemeral nodes have no children");
        }
    }
}

/// A server applies what was decided, up to a number of transactions, and tells who watches.
fn apply(state: &mut State, server: usize, upto: usize) {
    while state.servers[server].applied < upto {
        let transaction = state.transactions[state.servers[server].applied].clone();
        let copy = &mut state.servers[server];
        copy.applied += 1;
        let events = copy.tree.follow(&transaction);
        for event in events {
            for kind in kinds(event.kind) {
                let waiting = state.servers[server].watches.remove(&(event.path.clone(), *kind));
                for (session, watch) in waiting.into_iter().flatten() {
                    if let Some(owner) = state.sessions.get(&session) {
                        // The client is gone with its process.
                        let _ = owner.heard.send(Heard::Fired(watch, event.clone()));
                    }
                }
            }
        }
    }
}

/// A session is another server's from now on, with its watches.
fn move_session(state: &mut State, session: i64, to: usize) {
    let Some(registered) = state.sessions.get_mut(&session) else {
        return;
    };
    let from = std::mem::replace(&mut registered.server, to);
    if from == to {
        return;
    }
    // What it was not told of yet it is told of.
    let upto = state.servers[from].applied.max(state.servers[to].applied);
    apply(state, from, upto);
    apply(state, to, upto);
    let mut moved = Vec::new();
    for (of, waiting) in &mut state.servers[from].watches {
        let own = waiting.extract_if(.., |(owner, _)| *owner == session);
        moved.extend(own.map(|watch| (of.clone(), watch)));
    }
    for (of, watch) in moved {
        state.servers[to].watches.entry(of).or_default().push(watch);
    }
}

fn kinds(event: WatchEventKind) -> &'static [WatchKind] {
    match event {
        WatchEventKind::Created | WatchEventKind::DataChanged => &[WatchKind::Node],
        WatchEventKind::Deleted => &[WatchKind::Node, WatchKind::Children],
        WatchEventKind::ChildrenChanged => &[WatchKind::Children],
    }
}

/// What is asked on a connection; lost with it if it has not arrived.
struct Request {
    connection: u64,
    ask: Box<Ask>,
}

/// Done at the server of a session, which is told the answer.
type Ask = dyn FnOnce(&Ensemble, i64, &mpsc::UnboundedSender<Heard>) + Send;

/// A client's session with an [`Ensemble`].
pub struct SimulatedZooKeeper {
    ensemble: Ensemble,
    client: Mutex<Client>,
}

struct Client {
    session: i64,
    requests: mpsc::UnboundedSender<Request>,
    /// The number of the present connection; odd: there is none.
    connection: watch::Sender<u64>,
    /// Closed, or its process is gone.
    is_gone: bool,
    /// Told so, and not yet in a new session.
    has_expired: bool,
    listeners: Vec<SessionListener>,
}

impl Client {
    fn is_cut(&self) -> bool {
        !is_connected(&self.connection.borrow())
    }

    /// What was asked in that session is answered by its end.
    fn is_over(&self, session: i64) -> bool {
        self.has_expired || self.session != session
    }
}

fn is_connected(connection: &u64) -> bool {
    connection.is_multiple_of(2)
}

impl std::fmt::Debug for SimulatedZooKeeper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SimulatedZooKeeper({:#x})", self.client.lock().session)
    }
}

impl SimulatedZooKeeper {
    /// Begins a session at some server.
    fn begin(self: &Arc<Self>) {
        let servers = self.ensemble.0.rules.servers as u64;
        let server = (self.ensemble.0.numbers.lock())(servers) as usize;
        let (heard, hears) = mpsc::unbounded_channel();
        let (requests, inbox) = mpsc::unbounded_channel();
        let session = {
            let mut state = self.ensemble.0.state.lock();
            let session = state.next_session;
            state.next_session += 1;
            let registered = Registered {
                server,
                heard: heard.clone(),
                cut_since: None,
            };
            state.sessions.insert(session, registered);
            session
        };
        let connection = {
            let mut client = self.client.lock();
            client.session = session;
            client.requests = requests;
            client.has_expired = false;
            client.connection.subscribe()
        };
        let ensemble = self.ensemble.clone();
        tokio::spawn(serve(ensemble.clone(), session, inbox, heard, connection.clone()));
        tokio::spawn(listen(ensemble, session, hears, connection));
    }

    /// The way between this client and the ensemble is cut, or mended. After more than the session timeout the session is over; its
    /// owner hears of it when the way is mended.
    pub fn cut(self: &Arc<Self>, is_cut: bool) {
        let session = {
            let client = self.client.lock();
            if client.is_gone || client.is_cut() == is_cut {
                return;
            }
            client.connection.send_modify(|connection| *connection += 1);
            client.session
        };
        let mut state = self.ensemble.0.state.lock();
        if !is_cut {
            let servers = self.ensemble.0.rules.servers as u64;
            let server = (self.ensemble.0.numbers.lock())(servers) as usize;
            move_session(&mut state, session, server);
        }
        let registered = state.sessions.get_mut(&session);
        let is_over = registered.is_none();
        if let Some(registered) = registered {
            let now = Instant::now();
            registered.cut_since = is_cut.then_some(now);
            if is_cut {
                self.end_when_over(session, now);
            }
        }
        drop(state);
        if is_cut {
            self.tell(&SessionEvent::Disconnected);
        } else if is_over {
            self.expired();
        } else {
            self.tell(&SessionEvent::Connected);
        }
    }

    /// The process is gone without a word: the servers give the session up after its timeout.
    pub fn vanish(&self) {
        let session = {
            let mut client = self.client.lock();
            client.is_gone = true;
            client.listeners.clear();
            client.session
        };
        let now = Instant::now();
        if let Some(registered) = self.ensemble.0.state.lock().sessions.get_mut(&session) {
            registered.cut_since = Some(now);
        }
        self.end_when_over(session, now);
    }

    /// Somebody else ends the session: it expires while it is connected.
    pub fn expire(self: &Arc<Self>) {
        let session = self.client.lock().session;
        self.ensemble.end(session);
        let client = self.client.lock();
        if !client.is_gone && !client.is_cut() {
            drop(client);
            self.expired();
        }
    }

    fn end_when_over(&self, session: i64, since: Instant) {
        let ensemble = self.ensemble.clone();
        tokio::spawn(async move {
            sleep_until(since + ensemble.0.rules.session_timeout).await;
            let is_over = {
                let state = ensemble.0.state.lock();
                state
                    .sessions
                    .get(&session)
                    .is_some_and(|registered| registered.cut_since == Some(since))
            };
            if is_over {
                ensemble.end(session);
            }
        });
    }

    /// Its owner hears that the session is over; then there is a new one.
    fn expired(self: &Arc<Self>) {
        {
            let mut client = self.client.lock();
            if std::mem::replace(&mut client.has_expired, true) {
                // The next session is under way.
                return;
            }
            // What was asked in the old session is answered by its end.
            client.requests = mpsc::unbounded_channel().0;
        }
        self.tell(&SessionEvent::Expired);
        let client = Arc::clone(self);
        tokio::spawn(async move {
            sleep(client.ensemble.below(client.ensemble.0.rules.delay_max)).await;
            if !client.client.lock().is_gone {
                client.begin();
                client.tell(&SessionEvent::Connected);
            }
        });
    }

    fn tell(&self, event: &SessionEvent) {
        let listeners = self.client.lock().listeners.clone();
        for listener in listeners {
            listener(event.clone());
        }
    }

    /// Sends a request in the present session and waits for its answer.
    async fn ask<T: Send + 'static>(
        &self,
        request: impl FnOnce(&Ensemble, i64) -> T + Send + 'static,
    ) -> Result<T, CoordinationError> {
        let session = self.client.lock().session;
        self.ask_in(session, request).await
    }

    /// [`Self::ask`], unless another session has begun since.
    async fn ask_in<T: Send + 'static>(
        &self,
        session: i64,
        request: impl FnOnce(&Ensemble, i64) -> T + Send + 'static,
    ) -> Result<T, CoordinationError> {
        let began = Instant::now();
        let (answer, answered) = oneshot::channel();
        loop {
            {
                let client = self.client.lock();
                if client.is_gone || client.is_over(session) {
                    return Err(CoordinationError::SessionExpired);
                }
                if !client.is_cut() {
                    let connection = *client.connection.borrow();
                    let ask = move |ensemble: &Ensemble, session, heard: &mpsc::UnboundedSender<Heard>| {
                        let result = request(ensemble, session);
                        // Told in the order of everything that the server says.
                        let told = Box::new(move || drop(answer.send(result)));
                        let _ = heard.send(Heard::Answer(connection, told));
                    };
                    let ask = Box::new(ask);
                    let _ = client.requests.send(Request { connection, ask });
                    break;
                }
            }
            if began.elapsed() > self.ensemble.0.rules.session_timeout {
                return Err(CoordinationError::ConnectionLoss);
            }
            sleep(RETRY).await;
        }
        answered
            .await
            .map_err(|_| match self.client.lock().is_over(session) {
                true => CoordinationError::SessionExpired,
                false => CoordinationError::ConnectionLoss,
            })
    }

    /// Asks again for what can be asked again.
    async fn ask_until_answered<T: Send + 'static>(
        &self,
        request: impl Fn(&Ensemble, i64) -> T + Clone + Send + 'static,
    ) -> Result<T, CoordinationError> {
        let session = self.client.lock().session;
        loop {
            match self.ask_in(session, request.clone()).await {
                Err(CoordinationError::ConnectionLoss) => sleep(RETRY).await,
                answered => return answered,
            }
        }
    }
}

/// The server's side of a session: requests in order, each after its way.
async fn serve(
    ensemble: Ensemble,
    session: i64,
    mut inbox: mpsc::UnboundedReceiver<Request>,
    heard: mpsc::UnboundedSender<Heard>,
    connection: watch::Receiver<u64>,
) {
    while let Some(request) = inbox.recv().await {
        sleep(ensemble.below(ensemble.0.rules.delay_max)).await;
        if !ensemble.0.state.lock().sessions.contains_key(&session) {
            return;
        }
        if request.connection == *connection.borrow() {
            (request.ask)(&ensemble, session, &heard);
        }
    }
}

/// The client's side of a session: what it hears, in order, each after its way. What fired while it was cut off it hears with the next
/// connection, where a client registers its watches again.
async fn listen(
    ensemble: Ensemble,
    session: i64,
    mut hears: mpsc::UnboundedReceiver<Heard>,
    mut connection: watch::Receiver<u64>,
) {
    while let Some(heard) = hears.recv().await {
        sleep(ensemble.below(ensemble.0.rules.delay_max)).await;
        match heard {
            Heard::Fired(watch, event) => {
                let is_here = is_connected(&connection.borrow());
                if !is_here {
                    // The client is gone with its process, or its session is over.
                    let is_back = connection.wait_for(is_connected).await.is_ok();
                    if !is_back || !ensemble.0.state.lock().sessions.contains_key(&session) {
                        return;
                    }
                }
                watch(event);
            }
            Heard::Answer(on, tell) if on == *connection.borrow() => tell(),
            Heard::Answer(..) => {}
        }
    }
}

/// A watch that a request brings; a request that is asked again brings none.
type Brought = Arc<Mutex<Option<(Watch, WatchKind)>>>;

fn read<T>(
    ensemble: &Ensemble,
    session: i64,
    path: &str,
    watch: &Brought,
    read: impl FnOnce(&Tree) -> Option<T>,
    keeps_watch_on_nothing: bool,
) -> Option<T> {
    let mut state = ensemble.0.state.lock();
    let server = state.sessions.get(&session)?.server;
    let server = &mut state.servers[server];
    let found = read(&server.tree);
    if (found.is_some() || keeps_watch_on_nothing)
        && let Some((watch, kind)) = watch.lock().take()
    {
        let waiting = server.watches.entry((path.to_owned(), kind)).or_default();
        waiting.push((session, watch));
    }
    found
}

impl Coordination for SimulatedZooKeeper {
    fn get(
        &self,
        path: &str,
        watch: Option<Watch>,
    ) -> BoxFuture<'_, Result<Option<Node>, CoordinationError>> {
        let path = path.to_owned();
        let watch: Brought = Arc::new(Mutex::new(watch.map(|watch| (watch, WatchKind::Node))));
        Box::pin(async move {
            check_path(&path)?;
            self.ask_until_answered(move |ensemble, session| {
                read(ensemble, session, &path, &watch, |tree| tree.get(&path), true)
            })
            .await
        })
    }

    fn children(
        &self,
        path: &str,
        watch: Option<Watch>,
    ) -> BoxFuture<'_, Result<Option<Vec<String>>, CoordinationError>> {
        let path = path.to_owned();
        let watch: Brought = Arc::new(Mutex::new(watch.map(|watch| (watch, WatchKind::Children))));
        Box::pin(async move {
            check_path(&path)?;
            self.ask_until_answered(move |ensemble, session| {
                read(
                    ensemble,
                    session,
                    &path,
                    &watch,
                    |tree| tree.children(&path),
                    false,
                )
            })
            .await
        })
    }

    fn get_many(&self, paths: Vec<String>) -> BoxFuture<'_, Result<Vec<Option<Node>>, CoordinationError>> {
        Box::pin(async move {
            for path in &paths {
                check_path(path)?;
            }
            self.ask_until_answered(move |ensemble, session| {
                let state = ensemble.0.state.lock();
                let Some(registered) = state.sessions.get(&session) else {
                    return vec![None; paths.len()];
                };
                let tree = &state.servers[registered.server].tree;
                paths.iter().map(|path| tree.get(path)).collect()
            })
            .await
        })
    }

    fn multi(&self, operations: Vec<Operation>) -> BoxFuture<'_, Result<Vec<OperationResult>, MultiError>> {
        let bad = operations.iter().enumerate().find_map(|(index, operation)| {
            let error = check_path(operation.path()).err()?;
            Some(MultiError { index, error })
        });
        if let Some(bad) = bad {
            return Box::pin(std::future::ready(Err(bad)));
        }
        Box::pin(async move {
            let answered = self
                .ask(move |ensemble, session| ensemble.write(session, operations))
                .await;
            answered.unwrap_or_else(|error| Err(MultiError { index: 0, error }))
        })
    }

    fn session_id(&self) -> i64 {
        self.client.lock().session
    }

    fn listen(&self, listener: SessionListener) {
        self.client.lock().listeners.push(listener);
    }

    fn close(&self) -> BoxFuture<'_, Result<(), CoordinationError>> {
        Box::pin(async move {
            let session = {
                let mut client = self.client.lock();
                client.is_gone = true;
                client.session
            };
            self.ensemble.end(session);
            Ok(())
        })
    }
}
