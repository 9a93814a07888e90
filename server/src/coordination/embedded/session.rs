//! What a broker holds of the embedded tree: a session, with its ephemeral nodes and watches.
//!
//! Writes go to the writing thread and are answered once they last; reads are answered at once, from the last commit.

use std::sync::Arc;
use std::sync::mpsc;

use tokio::sync::oneshot;

use super::store::Store;
use super::writer::{Command, Shared, Waiting, WatchKind};
use crate::coordination::{
    BoxFuture, Coordination, CoordinationError, MultiError, Node, Operation, OperationResult,
    SessionListener, Watch, check_path,
};

/// One session on the embedded tree.
#[derive(Debug)]
pub struct EmbeddedSession {
    pub(super) id: i64,
    pub(super) shared: Arc<Shared>,
    pub(super) commands: mpsc::Sender<Command>,
}

impl EmbeddedSession {
    /// Reads with `read`, which also tells the last transaction it saw; sets the watch if `keep` says so of the answer.
    fn read<T>(
        &self,
        path: &str,
        watch: Option<(Watch, WatchKind)>,
        read: impl FnOnce(&Store) -> Result<(T, i64), CoordinationError>,
        keep: impl FnOnce(&T) -> bool,
    ) -> Result<T, CoordinationError> {
        check_path(path)?;
        let mut live = self.shared.live.lock();
        if let Some(error) = self.shared.refusal(&live, self.id) {
            return Err(error);
        }
        let Some((watch, kind)) = watch else {
            drop(live);
            return Ok(read(&self.shared.store)?.0);
        };
        // Under the lock, so that no change between the reading and the setting of the watch goes unnoticed.
        let (answer, seen_zxid) = read(&self.shared.store)?;
        if keep(&answer) {
            let waiting = Waiting {
                session: self.id,
                seen_zxid,
                watch,
            };
            live.watches
                .entry((path.to_owned(), kind))
                .or_default()
                .push(waiting);
        }
        Ok(answer)
    }
}

impl Coordination for EmbeddedSession {
    fn get(
        &self,
        path: &str,
        watch: Option<Watch>,
    ) -> BoxFuture<'_, Result<Option<Node>, CoordinationError>> {
        let watch = watch.map(|watch| (watch, WatchKind::Node));
        let answer = self.read(path, watch, |store| store.get(path), |_| true);
        Box::pin(std::future::ready(answer))
    }

    fn children(
        &self,
        path: &str,
        watch: Option<Watch>,
    ) -> BoxFuture<'_, Result<Option<Vec<String>>, CoordinationError>> {
        let watch = watch.map(|watch| (watch, WatchKind::Children));
        let answer = self.read(path, watch, |store| store.children(path), Option::is_some);
        Box::pin(std::future::ready(answer))
    }

    fn get_many(&self, paths: Vec<String>) -> BoxFuture<'_, Result<Vec<Option<Node>>, CoordinationError>> {
        let answer = self.read(
            "/",
            None,
            |store| {
                for path in &paths {
                    check_path(path)?;
                }
                store.get_many(&paths)
            },
            |_| false,
        );
        Box::pin(std::future::ready(answer))
    }

    fn multi(&self, operations: Vec<Operation>) -> BoxFuture<'_, Result<Vec<OperationResult>, MultiError>> {
        let bad = operations.iter().enumerate().find_map(|(index, operation)| {
            check_path(operation.path())
                .err()
                .map(|error| MultiError { index, error })
        });
        if let Some(bad) = bad {
            return Box::pin(std::future::ready(Err(bad)));
        }
        let (answer, answered) = oneshot::channel();
        // A stopped writer drops the answer with the command.
        let _ = self.commands.send(Command::Multi {
            session: self.id,
            operations,
            answer,
        });
        Box::pin(async move {
            answered.await.unwrap_or(Err(MultiError {
                index: 0,
                error: CoordinationError::SessionExpired,
            }))
        })
    }

    fn session_id(&self) -> i64 {
        self.id
    }

    fn listen(&self, listener: SessionListener) {
        if let Some(state) = self.shared.live.lock().sessions.get_mut(&self.id) {
            state.listeners.push(listener);
        }
    }

    fn close(&self) -> BoxFuture<'_, Result<(), CoordinationError>> {
        self.shared.end_session(&self.commands, self.id, false)
    }
}
