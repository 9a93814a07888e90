//! How many connections are let in: `max.connections`, `max.connections.per.ip` with its overrides, and
//! `max.connection.creation.rate` (`ConnectionQuotas` in `SocketServer.scala`).
//!
//! A connection over the limit of its address is closed at once, as Kafka does. At `max.connections` the acceptor waits, so that
//! the next client is let in when another one leaves.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;

/// The counters and their limits; shared by all listeners.
#[derive(Debug)]
pub struct ConnectionLimits {
    total_max: usize,
    per_address_max: usize,
    per_address_overrides: HashMap<IpAddr, usize>,
    creation_rate_max: u32,
    total: AtomicUsize,
    by_address: Mutex<HashMap<IpAddr, usize>>,
    freed: Notify,
}

/// The place of one connection; freed when dropped.
#[derive(Debug)]
pub(crate) struct Admission {
    limits: Arc<ConnectionLimits>,
    address: IpAddr,
}

impl ConnectionLimits {
    /// `creation_rate_max` is in connections a second; `i32::MAX as u32` and above means unlimited.
    pub fn new(
        total_max: usize,
        per_address_max: usize,
        per_address_overrides: HashMap<IpAddr, usize>,
        creation_rate_max: u32,
    ) -> Arc<ConnectionLimits> {
        Arc::new(ConnectionLimits {
            total_max,
            per_address_max,
            per_address_overrides,
            creation_rate_max,
            total: AtomicUsize::new(0),
            by_address: Mutex::new(HashMap::new()),
            freed: Notify::new(),
        })
    }

    /// Least time between two accepted connections.
    pub(crate) fn creation_interval(&self) -> Option<std::time::Duration> {
        let limited = self.creation_rate_max > 0 && self.creation_rate_max < i32::MAX as u32;
        limited.then(|| std::time::Duration::from_secs(1) / self.creation_rate_max)
    }

    /// Waits until there is room under `max.connections`.
    pub(crate) async fn room(&self) {
        loop {
            let freed = self.freed.notified();
            if self.total.load(Ordering::Acquire) < self.total_max {
                return;
            }
            freed.await;
        }
    }

    /// Counts a connection in; `None` if its address has too many.
    pub(crate) fn admit(self: &Arc<Self>, address: IpAddr) -> Option<Admission> {
        let max = self
            .per_address_overrides
            .get(&address)
            .copied()
            .unwrap_or(self.per_address_max);
        let mut by_address = self.by_address.lock();
        let count = by_address.entry(address).or_insert(0);
        if *count >= max {
            if *count == 0 {
                by_address.remove(&address);
            }
            return None;
        }
        *count += 1;
        self.total.fetch_add(1, Ordering::AcqRel);
        Some(Admission {
            limits: Arc::clone(self),
            address,
        })
    }

    /// Connections now open.
    pub fn open_count(&self) -> usize {
        self.total.load(Ordering::Acquire)
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        let mut by_address = self.limits.by_address.lock();
        if let Some(count) = by_address.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                by_address.remove(&self.address);
            }
        }
        drop(by_address);
        self.limits.total.fetch_sub(1, Ordering::AcqRel);
        self.limits.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_over_its_limit_is_refused_until_one_of_its_connections_ends() {
        let one: IpAddr = [10, 0, 0, 1].into();
        let two: IpAddr = [10, 0, 0, 2].into();
        let limits = ConnectionLimits::new(100, 1, HashMap::from([(two, 2)]), u32::MAX);
        let first = limits.admit(one);
        assert!(first.is_some());
        assert!(limits.admit(one).is_none());
        let others = (limits.admit(two), limits.admit(two));
        assert!(others.0.is_some() && others.1.is_some());
        assert!(limits.admit(two).is_none());
        drop(first);
        assert!(limits.admit(one).is_some());
        drop(others);
        assert_eq!(limits.open_count(), 0);
    }
}
