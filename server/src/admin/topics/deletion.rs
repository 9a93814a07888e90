//! DeleteTopics: a topic is marked, and the controller deletes it everywhere.

use std::sync::Arc;
use std::time::Duration;

use super::{TopicAdmin, in_time};
use crate::admin::check_topic_name;
use crate::admin::error::{AdminError, AdminErrorKind};
use crate::coordination::{CoordinationError, MultiError, Operation, OperationResult, Watch, znodes};

impl TopicAdmin {
    /// Deletes topics and waits until they are gone; an answer for each, in order. Names must not repeat.
    ///
    /// **Deviation:** Kafka answers when its metadata forgot the topic; here also its nodes are gone, so that a creation of the
    /// same name that follows is not refused.
    pub async fn delete_topics(&self, timeout_ms: i32, names: &[String]) -> Vec<Result<(), AdminError>> {
        let mut answers = Vec::with_capacity(names.len());
        let mut writes = Vec::with_capacity(names.len());
        for name in names {
            writes.push(match self.incarnation(name).await {
                Ok(Some(czxid)) => Ok((czxid, self.coordination.multi(vec![mark(name)]))),
                Ok(None) => Err(AdminError::bare(AdminErrorKind::UnknownTopicOrPartition)),
                Err(error) => Err(error.into()),
            });
        }
        for (name, write) in names.iter().zip(writes) {
            answers.push(match write {
                Err(error) => Err(error),
                Ok((czxid, write)) => self.finish_mark(name, czxid, write.await).await,
            });
        }
        let going: Vec<&str> = names
            .iter()
            .zip(&answers)
            .filter(|(_, answer)| answer.is_ok())
            .map(|(name, _)| name.as_str())
            .collect();
        if timeout_ms > 0 && !going.is_empty() {
            let limit = Duration::from_millis(u64::try_from(timeout_ms).unwrap_or(0));
            let gone = async {
                self.wait_until(timeout_ms, |now| {
                    going.iter().all(|name| !now.contains_topic(name))
                })
                .await;
                for name in &going {
                    if self.wait_until_gone(&znodes::delete_topic(name)).await.is_err() {
                        return;
                    }
                }
            };
            // Out of time: what still exists is answered so below.
            let _ = tokio::time::timeout(limit, gone).await;
        }
        let now = self.metadata.snapshot();
        names
            .iter()
            .zip(answers)
            .map(|(name, answer)| in_time(timeout_ms, answer, |()| !now.contains_topic(name)))
            .collect()
    }

    /// Which topic of this name there is: the transaction that made it.
    async fn incarnation(&self, name: &str) -> Result<Option<i64>, CoordinationError> {
        if check_topic_name(name).is_err() {
            return Ok(None);
        }
        let node = self.coordination.get(&znodes::topic(name), None).await?;
        Ok(node.map(|node| node.stat.czxid))
    }

    /// Judges the attempt to mark a topic. After a lost connection it is made again, but not if meanwhile the topic is gone or
    /// another has its name: that one nobody wanted to delete.
    async fn finish_mark(
        &self,
        name: &str,
        czxid: i64,
        mut written: Result<Vec<OperationResult>, MultiError>,
    ) -> Result<(), AdminError> {
        loop {
            match written.map_err(|failed| failed.error) {
                // Already marked: this request waits like the one that marked it.
                Ok(_) | Err(CoordinationError::NodeExists { .. }) => return Ok(()),
                Err(CoordinationError::ConnectionLoss) => {
                    if self.incarnation(name).await? != Some(czxid) {
                        return Ok(());
                    }
                }
                Err(error) => return Err(error.into()),
            }
            written = self.coordination.multi(vec![mark(name)]).await;
        }
    }

    async fn wait_until_gone(&self, path: &str) -> Result<(), CoordinationError> {
        loop {
            let changed = Arc::new(tokio::sync::Notify::new());
            let notify = Arc::clone(&changed);
            let watch: Watch = Box::new(move |_| notify.notify_one());
            if self.coordination.get(path, Some(watch)).await?.is_none() {
                return Ok(());
            }
            changed.notified().await;
        }
    }
}

/// The wish to delete a topic.
fn mark(name: &str) -> Operation {
    Operation::create(znodes::delete_topic(name), None)
}
