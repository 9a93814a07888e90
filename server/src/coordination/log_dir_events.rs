//! What a broker writes below `/log_dir_event_notification`, and what a controller then does: it asks for all replicas of that broker, and
//! learns which are offline with a log directory.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use super::{Coordination, CreateMode, znodes};

/// Before the controller is told again.
const PAUSE: Duration = Duration::from_secs(1);

/// Tells the controller, whenever notified, that replicas of this broker went offline with a directory or can be served again: by
/// a node of that path (`ReplicaManager.handleLogDirFailure`).
pub async fn tell_controller(broker_id: i32, coordination: Arc<dyn Coordination>, news: Arc<Notify>) {
    loop {
        news.notified().await;
        let data = Some(znodes::encode_log_dir_event(broker_id));
        let prefix = znodes::LOG_DIR_EVENT_PREFIX;
        match coordination
            .create(prefix, data, CreateMode::PersistentSequential)
            .await
        {
            Ok(_) => {}
            // Told twice, the controller asks twice.
            Err(error) if error.is_passing() => {
                tokio::time::sleep(PAUSE).await;
                news.notify_one();
            }
            Err(error) => tracing::error!(
                target: "kafka.server.ReplicaManager",
                "the controller does not know of a change of the log directories: {error}"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use milena_engine::io::simulated::ManualClock;
    use milena_engine::units::TimestampMs;

    use super::*;
    use crate::test_cluster::{embedded_tree, run};

    #[test]
    fn the_controller_is_told_of_what_happened_before_anybody_listened() {
        run(async {
            let tree = embedded_tree(&Arc::new(ManualClock::new(TimestampMs(1))));
            let session: Arc<dyn Coordination> = tree.session();
            session.ensure(znodes::LOG_DIR_EVENT_NOTIFICATION).await.unwrap();
            let news: Arc<Notify> = Arc::default();
            news.notify_one();
            tokio::spawn(tell_controller(7, Arc::clone(&session), news));
            let told = loop {
                let came = Arc::new(Notify::new());
                let notify = Arc::clone(&came);
                let watch = Box::new(move |_| notify.notify_one());
                let found = session
                    .children(znodes::LOG_DIR_EVENT_NOTIFICATION, Some(watch))
                    .await;
                match found.unwrap().unwrap().pop() {
                    Some(name) => break name,
                    None => came.notified().await,
                }
            };
            let path = format!("{}/{told}", znodes::LOG_DIR_EVENT_NOTIFICATION);
            let node = session.get(&path, None).await.unwrap().unwrap();
            assert_eq!(node.data.unwrap(), r#"{"version":1,"broker":7,"event":1}"#);
        });
    }
}
