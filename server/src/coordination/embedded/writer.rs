//! The thread that writes the tree, and what lives with the process only: sessions and watches.
//!
//! Changes that wait are committed together, each as a whole or not at all; then watches fire and callers are answered, in
//! the order of the changes. Watches and listeners are called without the lock.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::mpsc;

use milena_engine::io::Clock;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::store::{Change, Outcome, Store};
use crate::coordination::{
    BoxFuture, CoordinationError, MultiError, Operation, OperationResult, SessionEvent, SessionListener,
    Watch, WatchEvent, WatchEventKind,
};

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) store: Store,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) live: Mutex<Live>,
}

/// What lives with the process only.
#[derive(Default)]
pub(super) struct Live {
    pub(super) watches: HashMap<(String, WatchKind), Vec<Waiting>>,
    pub(super) sessions: HashMap<i64, SessionState>,
    pub(super) last_session: i64,
    pub(super) lost: Option<String>,
}

impl std::fmt::Debug for Live {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Live")
            .field("watches", &self.watches.len())
            .field("sessions", &self.sessions.len())
            .field("lost", &self.lost)
            .finish()
    }
}

#[derive(Default)]
pub(super) struct SessionState {
    pub(super) ephemerals: BTreeSet<String>,
    pub(super) listeners: Vec<SessionListener>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum WatchKind {
    Node,
    Children,
}

pub(super) struct Waiting {
    pub(super) session: i64,
    /// The last transaction that its caller saw: only later ones fire it.
    pub(super) seen_zxid: i64,
    pub(super) watch: Watch,
}

pub(super) enum Command {
    Multi {
        session: i64,
        operations: Vec<Operation>,
        answer: oneshot::Sender<Result<Vec<OperationResult>, MultiError>>,
    },
    EndSession {
        session: i64,
        expired: bool,
        answer: oneshot::Sender<Result<(), CoordinationError>>,
    },
    Stop,
}

/// Takes what waits, up to a commit of this many operations: bounds its memory.
const COMMIT_OPERATIONS_MAX: usize = 16_384;

pub(super) fn write_until_stopped(shared: &Shared, inbox: &mpsc::Receiver<Command>) {
    let mut next = None;
    loop {
        let Some(first) = next.take().or_else(|| inbox.recv().ok()) else {
            return;
        };
        match first {
            Command::Stop => return,
            Command::EndSession {
                session,
                expired,
                answer,
            } => {
                let _ = answer.send(shared.remove_session(session, expired));
            }
            Command::Multi {
                session,
                operations,
                answer,
            } => {
                let mut count = operations.len();
                let mut changes = vec![Change { session, operations }];
                let mut answers = vec![answer];
                while count < COMMIT_OPERATIONS_MAX {
                    match inbox.try_recv() {
                        Ok(Command::Multi {
                            session,
                            operations,
                            answer,
                        }) => {
                            count += operations.len();
                            changes.push(Change { session, operations });
                            answers.push(answer);
                        }
                        Ok(other) => {
                            next = Some(other);
                            break;
                        }
                        Err(_) => break,
                    }
                }
                shared.commit(changes, answers);
            }
        }
    }
}

impl Shared {
    /// The error of a session that may not speak any more.
    pub(super) fn refusal(&self, live: &Live, session: i64) -> Option<CoordinationError> {
        if let Some(reason) = &live.lost {
            return Some(self.lost_error(reason));
        }
        (!live.sessions.contains_key(&session)).then_some(CoordinationError::SessionExpired)
    }

    fn lost_error(&self, reason: &str) -> CoordinationError {
        CoordinationError::Lost {
            path: self.store.path().display().to_string(),
            reason: reason.to_owned(),
        }
    }

    fn commit(
        &self,
        changes: Vec<Change>,
        answers: Vec<oneshot::Sender<Result<Vec<OperationResult>, MultiError>>>,
    ) {
        // A session that ended while its change waited must not leave ephemeral nodes behind.
        let (mut accepted, mut waiting) = (Vec::new(), Vec::new());
        {
            let live = self.live.lock();
            for (change, answer) in changes.into_iter().zip(answers) {
                match self.refusal(&live, change.session) {
                    Some(error) => drop(answer.send(Err(MultiError { index: 0, error }))),
                    None => {
                        waiting.push((change.session, answer));
                        accepted.push(change);
                    }
                }
            }
        }
        if accepted.is_empty() {
            return;
        }
        match self.store.apply(self.clock.wall(), accepted) {
            Ok(outcomes) => {
                for (outcome, (session, answer)) in outcomes.into_iter().zip(waiting) {
                    self.publish(session, &outcome);
                    // The caller may have gone away.
                    let _ = answer.send(outcome.result);
                }
            }
            Err(error) => {
                self.lose(&lost_reason(&error));
                for (_, answer) in waiting {
                    let _ = answer.send(Err(MultiError {
                        index: 0,
                        error: error.clone(),
                    }));
                }
            }
        }
    }

    /// Fires the watches of a committed change.
    fn publish(&self, session: i64, outcome: &Outcome) {
        let mut fired = Vec::new();
        {
            let mut live = self.live.lock();
            if let Some(state) = live.sessions.get_mut(&session) {
                state.ephemerals.extend(outcome.ephemerals.iter().cloned());
            }
            for event in &outcome.events {
                if event.kind == WatchEventKind::Deleted {
                    for state in live.sessions.values_mut() {
                        state.ephemerals.remove(&event.path);
                    }
                }
                let kinds: &[WatchKind] = match event.kind {
                    WatchEventKind::Created | WatchEventKind::DataChanged => &[WatchKind::Node],
                    WatchEventKind::ChildrenChanged => &[WatchKind::Children],
                    WatchEventKind::Deleted => &[WatchKind::Node, WatchKind::Children],
                };
                for kind in kinds {
                    fired.extend(live.take(event, *kind, outcome.zxid));
                }
            }
        }
        for (watch, event) in fired {
            watch(event);
        }
    }

    fn remove_session(&self, session: i64, expired: bool) -> Result<(), CoordinationError> {
        let (state, watches) = {
            let mut live = self.live.lock();
            let Some(state) = live.sessions.remove(&session) else {
                return Ok(());
            };
            let mut dropped = Vec::new();
            live.watches.retain(|_, waiting| {
                dropped.extend(waiting.extract_if(.., |one| one.session == session));
                !waiting.is_empty()
            });
            (state, dropped)
        };
        drop(watches);
        if expired {
            for listener in &state.listeners {
                listener(SessionEvent::Expired);
            }
        }
        if state.ephemerals.is_empty() {
            return Ok(());
        }
        let outcomes = self
            .delete(state.ephemerals)
            .inspect_err(|error| self.lose(&lost_reason(error)))?;
        for outcome in outcomes {
            self.publish(0, &outcome);
            outcome.result.map_err(|failed| failed.error)?;
        }
        Ok(())
    }

    /// Removes the ephemeral nodes of former processes.
    pub(super) fn remove_former_ephemerals(&self) -> Result<(), CoordinationError> {
        let stale = self.store.ephemerals()?;
        if stale.is_empty() {
            return Ok(());
        }
        for outcome in self.delete(stale)? {
            outcome.result.map_err(|failed| failed.error)?;
        }
        Ok(())
    }

    /// Deletes these nodes in one change of no session.
    fn delete(&self, paths: impl IntoIterator<Item = String>) -> Result<Vec<Outcome>, CoordinationError> {
        let operations = paths.into_iter().map(Operation::delete).collect();
        let change = Change {
            session: 0,
            operations,
        };
        self.store.apply(self.clock.wall(), vec![change])
    }

    pub(super) fn end_session(
        &self,
        commands: &mpsc::Sender<Command>,
        session: i64,
        expired: bool,
    ) -> BoxFuture<'static, Result<(), CoordinationError>> {
        let (answer, answered) = oneshot::channel();
        // A stopped writer drops the answer with the command.
        let _ = commands.send(Command::EndSession {
            session,
            expired,
            answer,
        });
        Box::pin(async move { answered.await.unwrap_or(Ok(())) })
    }

    pub(super) fn lose(&self, reason: &str) {
        let listeners: Vec<SessionListener> = {
            let mut live = self.live.lock();
            if live.lost.is_some() {
                return;
            }
            live.lost = Some(reason.to_owned());
            live.sessions
                .values()
                .flat_map(|state| state.listeners.iter().cloned())
                .collect()
        };
        let message = self.lost_error(reason).to_string();
        for listener in listeners {
            listener(SessionEvent::Lost(message.clone()));
        }
    }
}

fn lost_reason(error: &CoordinationError) -> String {
    match error {
        CoordinationError::Lost { reason, .. } => reason.clone(),
        other => other.to_string(),
    }
}

impl Live {
    fn take(&mut self, event: &WatchEvent, kind: WatchKind, zxid: i64) -> Vec<(Watch, WatchEvent)> {
        let key = (event.path.clone(), kind);
        let Some(waiting) = self.watches.get_mut(&key) else {
            return Vec::new();
        };
        let fired = waiting
            .extract_if(.., |one| one.seen_zxid < zxid)
            .map(|one| (one.watch, event.clone()));
        let fired = fired.collect();
        if waiting.is_empty() {
            self.watches.remove(&key);
        }
        fired
    }
}
