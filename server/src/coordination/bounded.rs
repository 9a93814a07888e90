//! A session for who answers clients: it waits for a lost connection only so long, and then no longer for any request.
//!
//! The session itself repeats reads for as long as it takes, and who looks after the cluster wants that. A client wants an answer: once
//! the connection has been lost for [`BoundedCoordination`]'s limit, what waits is answered with
//! [`CoordinationError::TimedOut`], and what is asked then is answered so at once, until there is a connection again.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::{
    BoxFuture, Coordination, CoordinationError, MultiError, Node, Operation, OperationResult, SessionEvent,
    SessionListener, Watch,
};

/// Another handle of a session, whose waits are bounded.
#[derive(Debug)]
pub struct BoundedCoordination {
    session: Arc<dyn Coordination>,
    limit: Duration,
    /// Since when there is no connection.
    lost: watch::Receiver<Option<Instant>>,
}

impl BoundedCoordination {
    /// `session` is connected at this moment.
    pub fn new(session: Arc<dyn Coordination>, limit: Duration) -> BoundedCoordination {
        let (tell, lost) = watch::channel(None);
        session.listen(Arc::new(move |event| {
            let is_connected = event == SessionEvent::Connected;
            tell.send_if_modified(|since| {
                let was_connected = since.is_none();
                if is_connected {
                    *since = None;
                } else if was_connected {
                    *since = Some(Instant::now());
                }
                was_connected != is_connected
            });
        }));
        BoundedCoordination { session, limit, lost }
    }

    /// Ends once the connection has been lost for too long.
    async fn given_up(&self) {
        let mut lost = self.lost.clone();
        loop {
            let since = *lost.borrow_and_update();
            let too_long = async {
                match since {
                    Some(since) => sleep_until(since + self.limit).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = too_long => return,
                changed = lost.changed() => if changed.is_err() {
                    // Nobody will tell any more: the session answers by itself.
                    std::future::pending().await
                },
            }
        }
    }

    fn is_given_up(&self) -> bool {
        self.lost
            .borrow()
            .is_some_and(|since| since.elapsed() >= self.limit)
    }

    /// Asks at once, as the session does, unless it would be in vain; waits for the answer no longer than is worth while.
    fn bounded<'s, T: Send + 's, E: Send + 's>(
        &'s self,
        ask: impl FnOnce(&'s dyn Coordination) -> BoxFuture<'s, Result<T, E>>,
        timed_out: impl FnOnce(CoordinationError) -> E + Send + 's,
    ) -> BoxFuture<'s, Result<T, E>> {
        if self.is_given_up() {
            return Box::pin(std::future::ready(Err(timed_out(CoordinationError::TimedOut))));
        }
        let answer = ask(&*self.session);
        Box::pin(async move {
            tokio::select! {
                biased;
                answer = answer => answer,
                () = self.given_up() => Err(timed_out(CoordinationError::TimedOut)),
            }
        })
    }
}

impl Coordination for BoundedCoordination {
    fn get(
        &self,
        path: &str,
        watch: Option<Watch>,
    ) -> BoxFuture<'_, Result<Option<Node>, CoordinationError>> {
        self.bounded(|session| session.get(path, watch), |error| error)
    }

    fn children(
        &self,
        path: &str,
        watch: Option<Watch>,
    ) -> BoxFuture<'_, Result<Option<Vec<String>>, CoordinationError>> {
        self.bounded(|session| session.children(path, watch), |error| error)
    }

    fn get_many(&self, paths: Vec<String>) -> BoxFuture<'_, Result<Vec<Option<Node>>, CoordinationError>> {
        self.bounded(|session| session.get_many(paths), |error| error)
    }

    fn multi(&self, operations: Vec<Operation>) -> BoxFuture<'_, Result<Vec<OperationResult>, MultiError>> {
        let whole = |error| MultiError { index: 0, error };
        self.bounded(|session| session.multi(operations), whole)
    }

    fn session_id(&self) -> i64 {
        self.session.session_id()
    }

    fn listen(&self, listener: SessionListener) {
        self.session.listen(listener);
    }

    fn close(&self) -> BoxFuture<'_, Result<(), CoordinationError>> {
        self.session.close()
    }
}

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;

    use super::*;
    use crate::test_cluster::run;

    /// A session whose connection the test has, and that never answers without one.
    #[derive(Default)]
    struct Wire {
        listeners: Mutex<Vec<SessionListener>>,
        is_down: Mutex<bool>,
        asked: Mutex<u32>,
    }

    impl std::fmt::Debug for Wire {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("Wire")
        }
    }

    impl Wire {
        fn tell(&self, event: &SessionEvent) {
            *self.is_down.lock() = *event != SessionEvent::Connected;
            for listener in self.listeners.lock().iter() {
                listener(event.clone());
            }
        }

        fn answer<T: Send + 'static>(&self, answer: T) -> BoxFuture<'_, T> {
            *self.asked.lock() += 1;
            match *self.is_down.lock() {
                true => Box::pin(std::future::pending()),
                false => Box::pin(std::future::ready(answer)),
            }
        }
    }

    impl Coordination for Wire {
        fn get(&self, _: &str, _: Option<Watch>) -> BoxFuture<'_, Result<Option<Node>, CoordinationError>> {
            self.answer(Ok(None))
        }

        fn children(
            &self,
            _: &str,
            _: Option<Watch>,
        ) -> BoxFuture<'_, Result<Option<Vec<String>>, CoordinationError>> {
            self.answer(Ok(None))
        }

        fn get_many(&self, _: Vec<String>) -> BoxFuture<'_, Result<Vec<Option<Node>>, CoordinationError>> {
            self.answer(Ok(Vec::new()))
        }

        fn multi(&self, _: Vec<Operation>) -> BoxFuture<'_, Result<Vec<OperationResult>, MultiError>> {
            self.answer(Ok(Vec::new()))
        }

        fn session_id(&self) -> i64 {
            1
        }

        fn listen(&self, listener: SessionListener) {
            self.listeners.lock().push(listener);
        }

        fn close(&self) -> BoxFuture<'_, Result<(), CoordinationError>> {
            self.answer(Ok(()))
        }
    }

    #[test]
    fn who_answers_clients_waits_for_a_lost_connection_once_and_not_for_every_request() {
        run(async {
            let wire = Arc::new(Wire::default());
            let limit = Duration::from_millis(20);
            let bounded = BoundedCoordination::new(Arc::clone(&wire) as Arc<dyn Coordination>, limit);
            assert_eq!(bounded.get("/a", None).await, Ok(None));
            wire.tell(&SessionEvent::Disconnected);
            let began = Instant::now();
            assert_eq!(bounded.get("/a", None).await, Err(CoordinationError::TimedOut));
            assert!(began.elapsed() >= limit);
            let asked = *wire.asked.lock();
            wire.tell(&SessionEvent::Expired);
            let refused = bounded.multi(Vec::new()).await.unwrap_err();
            assert_eq!(refused.error, CoordinationError::TimedOut);
            assert_eq!(*wire.asked.lock(), asked, "it is not even asked");
            wire.tell(&SessionEvent::Connected);
            assert_eq!(bounded.children("/a", None).await, Ok(None));
        });
    }
}
