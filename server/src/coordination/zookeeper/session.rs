//! The session with a ZooKeeper ensemble as a pure machine: greeting, heartbeats, requests in flight, watches, expiry.
//!
//! `step(now, input, &mut outputs)` is all that happens; sockets, clock and callers belong to the shell. The same inputs give
//! the same outputs.
//!
//! Promises:
//! - every request is answered once, in the order of the server's replies. A write that was sent when the connection went gets
//!   [`CoordinationError::ConnectionLoss`] and is never sent again, one that was not waits for the next connection, but no
//!   longer than the session timeout. A read waits, and is sent again with its watch, as long as there is a session;
//! - what is read after that answer shows whether the write happened: the server that has the session next, which may be behind,
//!   is asked first to catch up with its leader (`sync`);
//! - the session expires only on a server's word. Then, before anything else, all requests are answered with
//!   [`CoordinationError::SessionExpired`], watches are forgotten and [`SessionEvent::Expired`] is told; only then a new
//!   session is asked for;
//! - a watch fires once, and not before the caller's own request that set it is answered; after a reconnect all watches are set again
//!   by one request or several of bounded size, and the server tells what was missed;
//! - a server that refuses the credentials ends the session for good.
//!
//! **Deviation:** the Java client waits up to a second, at random, before each try of a server. Here a lost connection is
//! replaced at once; only after a round of all servers without success it waits, 100 ms at first and 1 s at most. A server that takes
//! a session and drops it within a second counts as one without success.
//!
//! Sources: `ClientCnxn.java`, `ZKWatchManager` of ZooKeeper 3.5, `ZooKeeperSaslClient.java`.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use super::digest_md5::{self, DigestMd5};
use super::jute::{Malformed, Reader};
use super::messages::{
    self, Greeting, PASSWORD_SIZE_BYTES, Reply, ReplyHeader, Request, WatchedPaths, Welcome, xid,
};
use crate::coordination::{CoordinationError, SessionEvent, WatchEvent, WatchEventKind};

/// Bytes of paths in one request that sets watches again; a server takes no frame above 1 MiB (`jute.maxbuffer`).
const SET_WATCHES_SIZE_BYTES: usize = 128 << 10;
/// A wait after a round of all servers without success: the first, and the longest.
const BACKOFF_MS: (i64, i64) = (100, 1000);
/// Who keeps a session shorter than this did not serve it.
const SERVED_MIN_MS: i64 = 1000;
/// A connection is not idle longer than this without a ping, whatever the timeout.
const PING_INTERVAL_MAX_MS: i64 = 10_000;

/// Who the client is, by a scheme that takes one step: `digest` with `name:password`.
#[derive(Clone, PartialEq, Eq)]
pub struct AuthInfo {
    pub scheme: String,
    pub credentials: Vec<u8>,
}

impl std::fmt::Debug for AuthInfo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "AuthInfo({})", self.scheme)
    }
}

/// What a session is made with.
#[derive(Clone, Debug)]
pub(super) struct SessionConfig {
    /// Servers are tried in the order of their numbers, from 0, round and round.
    pub(super) servers: usize,
    /// What is asked for; a server may grant another.
    pub(super) timeout_ms: i32,
    pub(super) max_in_flight: usize,
    pub(super) auth: Vec<AuthInfo>,
    pub(super) sasl: Option<digest_md5::Credentials>,
}

/// Names a request; unique in one session machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Token(pub(super) u64);

/// Names a watch; unique in one session machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct WatchId(pub(super) u64);

/// Names a connection: what is heard of an earlier one means nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ConnectionNumber(pub(super) u64);

#[derive(Debug)]
pub(super) enum Input {
    /// Nothing but the time.
    Time,
    /// The connection that [`Output::Connect`] asked for stands; `nonce` is for a conversation by SASL on it.
    Opened {
        connection: ConnectionNumber,
        nonce: u128,
    },
    /// It could not be opened, or is gone.
    Lost(ConnectionNumber),
    /// A frame of the server, without its length.
    Received {
        connection: ConnectionNumber,
        frame: Bytes,
    },
    Submit {
        token: Token,
        request: Request,
        watch: Option<WatchId>,
    },
    /// Ends the session. Later requests get [`CoordinationError::SessionExpired`].
    Close,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Output {
    /// Open a connection to this server; the one before is to be given up.
    Connect {
        connection: ConnectionNumber,
        server: usize,
    },
    /// Give the connection up, after all that was sent.
    Disconnect,
    /// A frame with its length.
    Send(Vec<u8>),
    Answer {
        token: Token,
        result: Result<Reply, CoordinationError>,
    },
    Fire {
        watch: WatchId,
        event: WatchEvent,
    },
    /// These will never fire.
    Forget(Vec<WatchId>),
    Event(SessionEvent),
    /// The server said something that is not the protocol.
    Misunderstood(Malformed),
    /// [`Input::Close`] is done.
    Closed,
}

/// What the server knows us by.
#[derive(Debug)]
struct Identity {
    id: i64,
    password: Bytes,
    timeout_ms: i64,
    /// The last that was heard of: no server behind that may have the session.
    last_zxid: i64,
    /// Up to there watches have told all.
    watched_zxid: i64,
}

impl Identity {
    fn none(timeout_ms: i32) -> Identity {
        Identity {
            id: 0,
            password: Bytes::from_static(&[0; PASSWORD_SIZE_BYTES]),
            timeout_ms: i64::from(timeout_ms),
            last_zxid: 0,
            watched_zxid: 0,
        }
    }
}

#[derive(Debug)]
enum Phase {
    /// No connection until then.
    Waiting {
        until_ms: i64,
    },
    Connecting {
        until_ms: i64,
    },
    /// The greeting is sent.
    Greeting {
        until_ms: i64,
        nonce: u128,
    },
    /// A conversation by SASL; requests wait.
    Authenticating(DigestMd5),
    Serving,
    /// The end of the session is asked for.
    Closing {
        xid: i32,
        until_ms: i64,
    },
    Ended(CoordinationError),
}

#[derive(Debug)]
struct Waiting {
    token: Token,
    request: Request,
    watch: Option<WatchId>,
    /// For a write without a connection.
    until_ms: i64,
}

#[derive(Debug)]
struct InFlight {
    xid: i32,
    token: Token,
    request: Request,
    watch: Option<WatchId>,
}

/// Paths and who watches them, by what a server distinguishes.
#[derive(Debug, Default)]
struct Watches {
    data: BTreeMap<String, Vec<WatchId>>,
    existence: BTreeMap<String, Vec<WatchId>>,
    children: BTreeMap<String, Vec<WatchId>>,
}

impl Watches {
    fn all(&self) -> [&BTreeMap<String, Vec<WatchId>>; 3] {
        [&self.data, &self.existence, &self.children]
    }

    /// Those that an event fires.
    fn take(&mut self, kind: WatchEventKind, path: &str) -> Vec<WatchId> {
        let lists = match kind {
            WatchEventKind::Created | WatchEventKind::DataChanged => {
                vec![&mut self.data, &mut self.existence]
            }
            WatchEventKind::ChildrenChanged => vec![&mut self.children],
            WatchEventKind::Deleted => vec![&mut self.data, &mut self.existence, &mut self.children],
        };
        lists
            .into_iter()
            .filter_map(|list| list.remove(path))
            .flatten()
            .collect()
    }

    fn take_all(&mut self) -> Vec<WatchId> {
        let all = std::mem::take(self);
        [all.data, all.existence, all.children]
            .into_iter()
            .flat_map(BTreeMap::into_values)
            .flatten()
            .collect()
    }
}

/// The machine.
#[derive(Debug)]
pub(super) struct Session {
    config: SessionConfig,
    identity: Identity,
    phase: Phase,
    connection: ConnectionNumber,
    /// Of the server that is tried or used.
    server: usize,
    /// Servers that were tried in vain since the last success.
    failures: usize,
    /// Servers that took the session and soon dropped it, one after the other.
    drops: usize,
    next_xid: i32,
    waiting: VecDeque<Waiting>,
    in_flight: VecDeque<InFlight>,
    watches: Watches,
    /// Requests that set watches again and are not answered yet.
    watches_unset: usize,
    /// It is not known whether a write happened.
    is_unsure: bool,
    /// The xid of the request to catch up, while it is not answered.
    sync: Option<i32>,
    serving_since_ms: i64,
    last_sent_ms: i64,
    last_heard_ms: i64,
}

impl Session {
    /// A machine that asks for its first connection on its first step.
    pub(super) fn new(config: SessionConfig) -> Session {
        Session {
            identity: Identity::none(config.timeout_ms),
            phase: Phase::Waiting { until_ms: i64::MIN },
            connection: ConnectionNumber::default(),
            server: config.servers - 1,
            failures: 0,
            drops: 0,
            next_xid: 1,
            waiting: VecDeque::new(),
            in_flight: VecDeque::new(),
            watches: Watches::default(),
            watches_unset: 0,
            is_unsure: false,
            sync: None,
            serving_since_ms: 0,
            last_sent_ms: 0,
            last_heard_ms: 0,
            config,
        }
    }

    /// The session's id at the servers; 0 if there is none.
    pub(super) fn id(&self) -> i64 {
        self.identity.id
    }

    /// The number of the server that is tried or used.
    pub(super) fn server(&self) -> usize {
        self.server
    }

    /// When the machine wants its next step, if nothing happens before.
    pub(super) fn next_deadline_ms(&self) -> Option<i64> {
        let connection = match self.phase {
            Phase::Ended(_) => return None,
            Phase::Waiting { until_ms }
            | Phase::Connecting { until_ms }
            | Phase::Greeting { until_ms, .. }
            | Phase::Closing { until_ms, .. } => until_ms,
            Phase::Authenticating(_) => self.lost_at_ms(),
            Phase::Serving => self.lost_at_ms().min(self.ping_at_ms()),
        };
        Some(
            self.next_given_up_ms()
                .map_or(connection, |first| first.min(connection)),
        )
    }

    pub(super) fn step(&mut self, now_ms: i64, input: Input, outputs: &mut Vec<Output>) {
        match input {
            Input::Time => {}
            Input::Opened { connection, nonce } => self.opened(now_ms, connection, nonce, outputs),
            Input::Lost(connection) => {
                if connection == self.connection {
                    self.lost(now_ms, outputs);
                }
            }
            Input::Received { connection, frame } => {
                if connection == self.connection {
                    self.last_heard_ms = now_ms;
                    if let Err(malformed) = self.received(now_ms, frame, outputs) {
                        outputs.push(Output::Misunderstood(malformed));
                        outputs.push(Output::Disconnect);
                        self.lost(now_ms, outputs);
                    }
                }
            }
            Input::Submit {
                token,
                request,
                watch,
            } => match &self.phase {
                Phase::Ended(error) => fail(token, watch, error, outputs),
                Phase::Closing { .. } => fail(token, watch, &CoordinationError::SessionExpired, outputs),
                _ => self.waiting.push_back(Waiting {
                    token,
                    request,
                    watch,
                    until_ms: now_ms + self.identity.timeout_ms,
                }),
            },
            Input::Close => self.close(now_ms, outputs),
        }
        self.pass_time(now_ms, outputs);
        self.send_waiting(now_ms, self.config.max_in_flight, outputs);
    }

    fn lost_at_ms(&self) -> i64 {
        self.last_heard_ms + self.identity.timeout_ms * 2 / 3
    }

    fn ping_at_ms(&self) -> i64 {
        self.last_sent_ms + (self.identity.timeout_ms / 3).min(PING_INTERVAL_MAX_MS)
    }

    fn send(&mut self, now_ms: i64, frame: Vec<u8>, outputs: &mut Vec<Output>) {
        self.last_sent_ms = now_ms;
        outputs.push(Output::Send(frame));
    }

    fn xid(&mut self) -> i32 {
        let xid = self.next_xid;
        // Negative numbers have meanings of their own.
        self.next_xid = if xid == i32::MAX { 1 } else { xid + 1 };
        xid
    }

    fn pass_time(&mut self, now_ms: i64, outputs: &mut Vec<Output>) {
        match self.phase {
            Phase::Waiting { until_ms } if until_ms <= now_ms => self.connect(now_ms, outputs),
            Phase::Connecting { until_ms } | Phase::Greeting { until_ms, .. } if until_ms <= now_ms => {
                outputs.push(Output::Disconnect);
                self.lost(now_ms, outputs);
            }
            Phase::Closing { until_ms, .. } if until_ms <= now_ms => self.ended(outputs),
            Phase::Authenticating(_) | Phase::Serving if self.lost_at_ms() <= now_ms => {
                outputs.push(Output::Disconnect);
                self.lost(now_ms, outputs);
            }
            Phase::Serving if self.ping_at_ms() <= now_ms => self.send(now_ms, messages::ping(), outputs),
            _ => {}
        }
        if self.next_given_up_ms().is_some_and(|first| first <= now_ms) {
            self.waiting.retain(|waiting| {
                let is_kept = waiting.request.is_read() || waiting.until_ms > now_ms;
                if !is_kept {
                    fail(
                        waiting.token,
                        waiting.watch,
                        &CoordinationError::ConnectionLoss,
                        outputs,
                    );
                }
                is_kept
            });
        }
    }

    /// When a write has waited for a connection as long as one does; never while there is one.
    fn next_given_up_ms(&self) -> Option<i64> {
        if matches!(self.phase, Phase::Serving) {
            return None;
        }
        let writes = self.waiting.iter().filter(|waiting| !waiting.request.is_read());
        writes.map(|waiting| waiting.until_ms).min()
    }

    fn connect(&mut self, now_ms: i64, outputs: &mut Vec<Output>) {
        self.server = (self.server + 1) % self.config.servers;
        self.connection.0 += 1;
        let share_ms = (self.identity.timeout_ms / self.config.servers as i64).max(1);
        self.phase = Phase::Connecting {
            until_ms: now_ms + share_ms,
        };
        outputs.push(Output::Connect {
            connection: self.connection,
            server: self.server,
        });
    }

    fn opened(&mut self, now_ms: i64, connection: ConnectionNumber, nonce: u128, outputs: &mut Vec<Output>) {
        let Phase::Connecting { until_ms } = self.phase else {
            return;
        };
        if connection != self.connection {
            return;
        }
        self.phase = Phase::Greeting { until_ms, nonce };
        let greeting = Greeting {
            last_zxid: self.identity.last_zxid,
            timeout_ms: self.config.timeout_ms,
            session_id: self.identity.id,
            password: &self.identity.password,
        };
        let frame = greeting.encode();
        self.send(now_ms, frame, outputs);
    }

    /// The connection is gone: what was sent may or may not have happened.
    fn lost(&mut self, now_ms: i64, outputs: &mut Vec<Output>) {
        let had_session = match self.phase {
            Phase::Ended(_) | Phase::Waiting { .. } => return,
            Phase::Closing { .. } => return self.ended(outputs),
            Phase::Serving => true,
            Phase::Connecting { .. } | Phase::Greeting { .. } | Phase::Authenticating(_) => false,
        };
        // What is heard of it from now on means nothing.
        self.connection.0 += 1;
        // From the last to the first, each before those that waited behind it.
        let mut writes = Vec::new();
        while let Some(lost) = self.in_flight.pop_back() {
            if lost.request.is_read() {
                self.waiting.push_front(Waiting {
                    token: lost.token,
                    request: lost.request,
                    watch: lost.watch,
                    until_ms: now_ms,
                });
            } else {
                writes.push(lost);
            }
        }
        self.is_unsure |= !writes.is_empty();
        self.sync = None;
        for lost in writes.into_iter().rev() {
            fail(
                lost.token,
                lost.watch,
                &CoordinationError::ConnectionLoss,
                outputs,
            );
        }
        if had_session {
            self.failures = 0;
            self.drops = match now_ms - self.serving_since_ms < SERVED_MIN_MS {
                true => self.drops + 1,
                false => 0,
            };
            outputs.push(Output::Event(SessionEvent::Disconnected));
        } else {
            self.failures += 1;
        }
        let rounds = self.failures.max(self.drops) / self.config.servers;
        let wait_ms = match rounds {
            0 => 0,
            rounds => BACKOFF_MS.1.min(BACKOFF_MS.0 << (rounds - 1).min(4)),
        };
        self.phase = Phase::Waiting {
            until_ms: now_ms + wait_ms,
        };
    }

    fn received(&mut self, now_ms: i64, frame: Bytes, outputs: &mut Vec<Output>) -> Result<(), Malformed> {
        match self.phase {
            Phase::Greeting { nonce, .. } => {
                self.welcomed(now_ms, &Welcome::decode(frame)?, nonce, outputs)?
            }
            Phase::Authenticating(_) | Phase::Serving | Phase::Closing { .. } => {
                let mut reader = Reader::new(frame);
                let header = ReplyHeader::read(&mut reader)?;
                self.replied(now_ms, header, &mut reader, outputs)?;
            }
            Phase::Waiting { .. } | Phase::Connecting { .. } | Phase::Ended(_) => {}
        }
        Ok(())
    }

    fn welcomed(
        &mut self,
        now_ms: i64,
        welcome: &Welcome,
        nonce: u128,
        outputs: &mut Vec<Output>,
    ) -> Result<(), Malformed> {
        if welcome.timeout_ms <= 0 || welcome.session_id == 0 {
            if self.identity.id == 0 {
                return Err(Malformed {
                    what: "session",
                    found: "an expired one where a new one was asked for".to_owned(),
                });
            }
            self.expired(outputs);
            outputs.push(Output::Disconnect);
            self.connection.0 += 1;
            self.phase = Phase::Waiting { until_ms: now_ms };
            return Ok(());
        }
        self.identity.id = welcome.session_id;
        self.identity.password = welcome.password.clone();
        self.identity.timeout_ms = i64::from(welcome.timeout_ms);
        match &self.config.sasl {
            Some(credentials) => {
                self.phase = Phase::Authenticating(DigestMd5::new(credentials.clone(), nonce));
                // Empty, so that the server speaks first.
                let xid = self.xid();
                self.send(now_ms, messages::sasl(xid, &[]), outputs);
            }
            None => self.serve(now_ms, outputs),
        }
        Ok(())
    }

    /// There is a session and we are who we are: says so, and takes up the watches.
    fn serve(&mut self, now_ms: i64, outputs: &mut Vec<Output>) {
        self.phase = Phase::Serving;
        self.serving_since_ms = now_ms;
        self.failures = 0;
        for auth in self.config.auth.clone() {
            self.send(now_ms, messages::auth(&auth.scheme, &auth.credentials), outputs);
        }
        if self.is_unsure {
            let xid = self.xid();
            self.send(now_ms, messages::sync(xid), outputs);
            self.sync = Some(xid);
        }
        let again = self.watches_again();
        self.watches_unset = again.len();
        for frame in again {
            self.send(now_ms, frame, outputs);
        }
        outputs.push(Output::Event(SessionEvent::Connected));
    }

    /// The watches as requests of bounded size.
    fn watches_again(&self) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        let mut chunk = WatchedPaths::default();
        let mut size = 0;
        for (list, watched) in self.watches.all().into_iter().enumerate() {
            for path in watched.keys() {
                if size + path.len() > SET_WATCHES_SIZE_BYTES {
                    frames.push(std::mem::take(&mut chunk).encode(self.identity.watched_zxid));
                    size = 0;
                }
                size += 4 + path.len();
                match list {
                    0 => chunk.data.push(path),
                    1 => chunk.existence.push(path),
                    _ => chunk.children.push(path),
                }
            }
        }
        if size > 0 {
            frames.push(chunk.encode(self.identity.watched_zxid));
        }
        frames
    }

    fn replied(
        &mut self,
        now_ms: i64,
        header: ReplyHeader,
        reader: &mut Reader,
        outputs: &mut Vec<Output>,
    ) -> Result<(), Malformed> {
        if header.xid == xid::SET_WATCHES {
            self.watches_unset = self.watches_unset.saturating_sub(1);
        }
        self.identity.last_zxid = self.identity.last_zxid.max(header.zxid);
        if self.watches_unset == 0 {
            self.identity.watched_zxid = self.identity.last_zxid;
        }
        match header.xid {
            xid::PING | xid::SET_WATCHES => return Ok(()),
            own if Some(own) == self.sync => {
                if header.code != 0 {
                    let found = format!("code {}", header.code);
                    return Err(Malformed { what: "sync", found });
                }
                (self.sync, self.is_unsure) = (None, false);
                return Ok(());
            }
            xid::AUTH => {
                if header.code != 0 {
                    self.refused(outputs);
                }
                return Ok(());
            }
            // The end of a session takes its ephemeral nodes, which is no news to it.
            xid::NOTIFICATION if matches!(self.phase, Phase::Closing { .. }) => return Ok(()),
            xid::NOTIFICATION => {
                if let Some((kind, path)) = messages::read_notification(reader)? {
                    for watch in self.watches.take(kind, &path) {
                        let event = WatchEvent {
                            path: path.clone(),
                            kind,
                        };
                        outputs.push(Output::Fire { watch, event });
                    }
                }
                return Ok(());
            }
            _ => {}
        }
        match &mut self.phase {
            Phase::Authenticating(conversation) => {
                let answer = match header.code {
                    0 => conversation.step(&reader.buffer("SASL token")?.unwrap_or_default()),
                    _ => Err(digest_md5::Refused),
                };
                match answer {
                    Err(digest_md5::Refused) => self.refused(outputs),
                    Ok(Some(token)) => {
                        let xid = self.xid();
                        self.send(now_ms, messages::sasl(xid, &token), outputs);
                    }
                    Ok(None) => self.serve(now_ms, outputs),
                }
            }
            Phase::Closing { xid, .. } if *xid == header.xid => self.ended(outputs),
            _ => {
                let sent = match self.in_flight.front() {
                    Some(first) if first.xid == header.xid => self.in_flight.pop_front(),
                    _ => None,
                };
                let sent = sent.ok_or_else(|| Malformed {
                    what: "reply",
                    found: format!("xid {} out of turn", header.xid),
                })?;
                self.answer(now_ms, sent, header.code, reader, outputs)?;
            }
        }
        Ok(())
    }

    fn answer(
        &mut self,
        now_ms: i64,
        sent: InFlight,
        code: i32,
        reader: &mut Reader,
        outputs: &mut Vec<Output>,
    ) -> Result<(), Malformed> {
        let result = sent.request.read_reply(code, reader);
        if let Some(watch) = sent.watch
            && let Some(next) = continuation(&sent.request, &result)
        {
            // Before all that came later, as if it were one request.
            self.waiting.push_front(Waiting {
                token: sent.token,
                request: next,
                watch: Some(watch),
                until_ms: now_ms + self.identity.timeout_ms,
            });
            return Ok(());
        }
        let answer = match &result {
            Ok(answer) => answer.clone(),
            // It may have happened; this connection does not tell any more.
            Err(_) => Err(CoordinationError::ConnectionLoss),
        };
        self.is_unsure |= result.is_err() && !sent.request.is_read();
        if let Some(watch) = sent.watch {
            let list = match (&sent.request, &answer) {
                (Request::GetData { path, .. }, Ok(_)) => Some((&mut self.watches.data, path)),
                (Request::Exists { path, .. }, Err(CoordinationError::NoNode { .. })) => {
                    Some((&mut self.watches.existence, path))
                }
                (Request::GetChildren { path, .. }, Ok(_)) => Some((&mut self.watches.children, path)),
                _ => None,
            };
            match list {
                Some((list, path)) => list.entry(path.clone()).or_default().push(watch),
                None => outputs.push(Output::Forget(vec![watch])),
            }
        }
        outputs.push(Output::Answer {
            token: sent.token,
            result: answer,
        });
        result.map(drop)
    }

    /// Sends what waits, as long as no more than so many are in flight.
    fn send_waiting(&mut self, now_ms: i64, max_in_flight: usize, outputs: &mut Vec<Output>) {
        if !matches!(self.phase, Phase::Serving) {
            return;
        }
        while self.in_flight.len() < max_in_flight
            && let Some(waiting) = self.waiting.pop_front()
        {
            let xid = self.xid();
            let frame = waiting.request.encode(xid);
            self.send(now_ms, frame, outputs);
            self.in_flight.push_back(InFlight {
                xid,
                token: waiting.token,
                request: waiting.request,
                watch: waiting.watch,
            });
        }
    }

    /// The server's word: nothing of the session is left.
    fn expired(&mut self, outputs: &mut Vec<Output>) {
        self.give_up(&CoordinationError::SessionExpired, outputs);
        self.identity = Identity::none(self.config.timeout_ms);
        outputs.push(Output::Event(SessionEvent::Expired));
    }

    /// Answers everything with an error and forgets the watches.
    fn give_up(&mut self, error: &CoordinationError, outputs: &mut Vec<Output>) {
        let in_flight = self.in_flight.drain(..).map(|sent| (sent.token, sent.watch));
        let waiting = self
            .waiting
            .drain(..)
            .map(|waiting| (waiting.token, waiting.watch));
        for (token, watch) in in_flight.chain(waiting) {
            fail(token, watch, error, outputs);
        }
        let watches = self.watches.take_all();
        if !watches.is_empty() {
            outputs.push(Output::Forget(watches));
        }
    }

    fn refused(&mut self, outputs: &mut Vec<Output>) {
        self.phase = Phase::Ended(CoordinationError::AuthenticationFailed);
        self.give_up(&CoordinationError::AuthenticationFailed, outputs);
        outputs.push(Output::Disconnect);
        outputs.push(Output::Event(SessionEvent::AuthenticationFailed));
    }

    fn close(&mut self, now_ms: i64, outputs: &mut Vec<Output>) {
        match self.phase {
            Phase::Serving => {
                // What waits was asked for before.
                self.send_waiting(now_ms, usize::MAX, outputs);
                let xid = self.xid();
                self.send(now_ms, messages::close(xid), outputs);
                self.phase = Phase::Closing {
                    xid,
                    until_ms: now_ms + self.identity.timeout_ms,
                };
            }
            Phase::Closing { .. } => {}
            // Nobody can be told: the servers end it when its time is over.
            _ => self.ended(outputs),
        }
    }

    fn ended(&mut self, outputs: &mut Vec<Output>) {
        if !matches!(self.phase, Phase::Ended(_)) {
            self.phase = Phase::Ended(CoordinationError::SessionExpired);
            self.give_up(&CoordinationError::SessionExpired, outputs);
            outputs.push(Output::Disconnect);
        }
        outputs.push(Output::Closed);
    }
}

/// A read of a node that is not there watches for its creation; one that meanwhile was created is read after all.
fn continuation(
    request: &Request,
    result: &Result<Result<Reply, CoordinationError>, Malformed>,
) -> Option<Request> {
    match (request, result) {
        (Request::GetData { path, .. }, Ok(Err(CoordinationError::NoNode { .. }))) => Some(Request::Exists {
            path: path.clone(),
            watch: true,
        }),
        (Request::Exists { path, .. }, Ok(Ok(_))) => Some(Request::GetData {
            path: path.clone(),
            watch: true,
        }),
        _ => None,
    }
}

/// Answers a request with an error; a watch that it would have set is none.
fn fail(token: Token, watch: Option<WatchId>, error: &CoordinationError, outputs: &mut Vec<Output>) {
    if let Some(watch) = watch {
        outputs.push(Output::Forget(vec![watch]));
    }
    outputs.push(Output::Answer {
        token,
        result: Err(error.clone()),
    });
}

#[cfg(test)]
mod tests;
