//! The end of the manager: everything synced and closed, and only then said to be.
//!
//! In this order, for each directory on its own: each log is flushed and closed, whatever becomes of the
//! others; recovery points, log start offsets and high watermarks are written; `milena.state` with the synced
//! ends; `.kafka_cleanshutdown`, if nothing before it failed. Then the lock is released.
//!
//! A log that was out of service does not keep the marker from its directory: without it, an Apache Kafka
//! that came next would recover the log by cutting it at the damage. `milena.out-of-service` has this broker
//! check it again. Source: `LogManager.shutdown`.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use crate::checkpoint;

use super::checkpoints::tolerate_full;
use super::{Home, HostedLog, LogManager};

/// How the directories were left.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct ShutdownReport {
    /// Their next start recovers nothing.
    pub clean: Vec<PathBuf>,
    /// Their next start recovers, for this reason.
    pub unclean: Vec<(PathBuf, String)>,
}

impl LogManager {
    /// Syncs and closes all logs, writes what the next start needs and releases the directories. Nothing may
    /// be appended any more when this is called, and nothing else of the manager be used afterwards.
    pub fn shutdown(&self) -> ShutdownReport {
        let _changing = self.changing.lock();
        self.note_out_of_service();
        let report = Mutex::new(ShutdownReport::default());
        std::thread::scope(|scope| {
            for home in &self.homes {
                let report = &report;
                let work = move || {
                    let path = home.directory.path().to_owned();
                    match self.shut_down_directory(home) {
                        Ok(()) => report.lock().clean.push(path),
                        Err(reason) => report.lock().unclean.push((path, reason)),
                    }
                    home.lock.lock().take();
                };
                if self.homes.len() == 1 {
                    work();
                } else {
                    scope.spawn(work);
                }
            }
        });
        let mut report = report.into_inner();
        let offline = self.offline_from_start.iter();
        report.unclean.extend(offline.map(|directory| {
            (
                directory.path().to_owned(),
                directory.offline_reason().unwrap_or_default().to_owned(),
            )
        }));
        for (path, reason) in &report.unclean {
            tracing::warn!(
                "log directory {} was not shut down cleanly: {reason}",
                path.display()
            );
        }
        self.logs.write().clear();
        self.futures.write().clear();
        report
    }

    fn shut_down_directory(&self, home: &Arc<Home>) -> Result<(), String> {
        let logs = self.hosted_in(home);
        let failure = self.close_all(&logs);
        if let Some(reason) = home.directory.offline_reason() {
            return Err(reason.to_owned());
        }
        let written = self.write_recovery_points(home).is_some()
            & self.write_log_start_offsets(home)
            & self.write_high_watermarks(home)
            & self.write_state(home, failure.is_none());
        if let Some(failure) = failure {
            return Err(failure);
        }
        if !written {
            return Err("its checkpoints could not be written".to_owned());
        }
        if !self.are_lost_writes_settled.load(Ordering::Acquire) {
            return Err("others may still count on what it lost with the power".to_owned());
        }
        checkpoint::create_clean_shutdown_marker(&*self.io, home.directory.path()).map_err(|error| {
            tolerate_full(&home.directory, &error);
            error.to_string()
        })
    }

    /// Flushes and closes each log, by the directory's number of threads; returns the first failure.
    fn close_all(&self, logs: &[Arc<HostedLog>]) -> Option<String> {
        let next = AtomicUsize::new(0);
        let failure = Mutex::new(None);
        let work = || {
            while let Some(hosted) = logs.get(next.fetch_add(1, Ordering::Relaxed)) {
                if hosted.log.out_of_service().is_some() {
                    continue;
                }
                if let Err(error) = hosted.log.close() {
                    tracing::error!("Error closing {}: {error}", hosted.log.partition());
                    failure.lock().get_or_insert_with(|| error.to_string());
                }
            }
        };
        std::thread::scope(|scope| {
            let threads = self.config.recovery_threads_per_dir.clamp(1, logs.len().max(1));
            for _ in 1..threads {
                scope.spawn(work);
            }
            work();
        });
        failure.into_inner()
    }
}
