//! How many connections are let in: `max.connections`, of the broker and of each listener, `max.connections.per.ip` with its
//! overrides, and `max.connection.creation.rate` (`ConnectionQuotas` in `SocketServer.scala`). All may change at run time.
//!
//! A connection over the limit of its address is closed at once, as in Kafka. One that comes faster than a rate allows is held
//! back (`connection_rate.rs`), and with it those behind it on its listener; a changed rate holds from the next one on. At
//! `max.connections` the acceptor waits, so that the next client is let in when another one leaves. The listener between
//! brokers, if it is not the only one, does not wait for the broker's limits. What is then open beyond them, or because they
//! were lowered, is made up for by closing the connections of other listeners that were idle for longest, each lane among its
//! own.

use std::collections::HashMap;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use super::connection_rate::{ConnectionRate, RateWindows};

/// The limits that hold; Kafka's names in the comments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionQuotas {
    /// `max.connections`, `max.connection.creation.rate`
    pub broker: ConnectionQuota,
    /// `listener.name.{listener}.max.connections` and so on; of a listener that is not here, those of the broker.
    pub listeners: HashMap<Arc<str>, ConnectionQuota>,
    /// `max.connections.per.ip`
    pub per_address_max: u32,
    /// `max.connections.per.ip.overrides`
    pub per_address_overrides: HashMap<IpAddr, u32>,
    /// The listener that does not wait for the broker's limits.
    pub protected_listener: Option<Arc<str>>,
}

/// Limits of the whole broker or of one listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionQuota {
    pub connections_max: u32,
    /// In connections a second; 0 lets in one in each of [`RateWindows`].
    pub creation_rate_max: u32,
}

/// The counters and their limits; shared by all listeners and lanes.
#[derive(Debug)]
pub struct ConnectionLimits {
    state: Mutex<State>,
    rate_windows: RateWindows,
    /// A connection ended, or limits changed.
    freed: Notify,
    /// More are open than may be.
    exceeded: watch::Sender<()>,
}

#[derive(Debug)]
struct State {
    quotas: ConnectionQuotas,
    total: Count,
    listeners: HashMap<Arc<str>, Count>,
    by_address: HashMap<IpAddr, u32>,
    /// Connections that are being closed to make room.
    doomed: u32,
}

#[derive(Debug, Default)]
struct Count {
    open: u32,
    rate: ConnectionRate,
}

impl State {
    fn quota_of(&self, listener: &str) -> ConnectionQuota {
        let own = self.quotas.listeners.get(listener).copied();
        own.unwrap_or(self.quotas.broker)
    }

    fn is_protected(&self, listener: &str) -> bool {
        self.quotas.protected_listener.as_deref() == Some(listener)
    }

    fn has_room(&self, listener: &str) -> bool {
        let open = self.listeners.get(listener).map_or(0, |count| count.open);
        open < self.quota_of(listener).connections_max
            && (self.is_protected(listener) || self.total.open < self.quotas.broker.connections_max)
    }

    fn is_exceeded(&self) -> bool {
        self.total.open - self.doomed > self.quotas.broker.connections_max
    }
}

/// The place of one connection; freed when dropped.
#[derive(Debug)]
pub(crate) struct Admission {
    limits: Arc<ConnectionLimits>,
    listener: Arc<str>,
    address: IpAddr,
    is_doomed: bool,
}

impl ConnectionLimits {
    pub fn new(quotas: ConnectionQuotas, rate_windows: RateWindows) -> Arc<ConnectionLimits> {
        Arc::new(ConnectionLimits {
            rate_windows,
            state: Mutex::new(State {
                quotas,
                total: Count::default(),
                listeners: HashMap::new(),
                by_address: HashMap::new(),
                doomed: 0,
            }),
            freed: Notify::new(),
            exceeded: watch::Sender::new(()),
        })
    }

    /// Other limits, from now on. Who waits is let in if they allow it; connections over the limit of their address stay.
    pub fn update(&self, quotas: ConnectionQuotas) {
        let is_exceeded = {
            let mut state = self.state.lock();
            state.quotas = quotas;
            state.is_exceeded()
        };
        self.freed.notify_waiters();
        if is_exceeded {
            self.exceeded.send_replace(());
        }
    }

    /// Counts a connection in, once there is room for it; `None` if its address has too many.
    pub(crate) async fn admit(self: &Arc<Self>, listener: &Arc<str>, address: IpAddr) -> Option<Admission> {
        let now = Instant::now();
        let wait = self.record(listener, now);
        if !wait.is_zero() {
            tokio::time::sleep_until((now + wait).into()).await;
        }
        loop {
            let mut freed = pin!(self.freed.notified());
            freed.as_mut().enable();
            {
                let mut state = self.state.lock();
                if state.has_room(listener) {
                    return self.take_place(&mut state, listener, address);
                }
            }
            freed.await;
        }
    }

    /// Counts a connection that came, and tells for how long the rates hold it back.
    fn record(&self, listener: &Arc<str>, now: Instant) -> Duration {
        let mut state = self.state.lock();
        let of_listener = state.quota_of(listener).creation_rate_max;
        let of_broker = (!state.is_protected(listener)).then_some(state.quotas.broker.creation_rate_max);
        let own = state.listeners.entry(Arc::clone(listener)).or_default();
        let wait = own.rate.record(of_listener, self.rate_windows, now);
        of_broker.map_or(wait, |rate_max| {
            wait.max(state.total.rate.record(rate_max, self.rate_windows, now))
        })
    }

    fn take_place(
        self: &Arc<Self>,
        state: &mut State,
        listener: &Arc<str>,
        address: IpAddr,
    ) -> Option<Admission> {
        let quotas = &state.quotas;
        let max = quotas.per_address_overrides.get(&address).copied();
        let max = max.unwrap_or(quotas.per_address_max);
        let open = state.by_address.get(&address).copied().unwrap_or(0);
        if open >= max {
            return None;
        }
        state.by_address.insert(address, open + 1);
        state.listeners.entry(Arc::clone(listener)).or_default().open += 1;
        state.total.open += 1;
        if state.is_exceeded() {
            self.exceeded.send_replace(());
        }
        Some(Admission {
            limits: Arc::clone(self),
            listener: Arc::clone(listener),
            address,
            is_doomed: false,
        })
    }

    /// Changes whenever more are open than may be.
    pub(crate) fn excess(&self) -> watch::Receiver<()> {
        self.exceeded.subscribe()
    }

    /// Whether one more connection of `listener` has to be closed; the caller closes it, and says so by [`Admission::doom`].
    pub(crate) fn take_excess(&self, listener: &str) -> bool {
        let mut state = self.state.lock();
        let taken = state.is_exceeded() && !state.is_protected(listener);
        state.doomed += u32::from(taken);
        taken
    }

    /// Connections now open.
    pub fn open_count(&self) -> usize {
        self.state.lock().total.open as usize
    }
}

impl Admission {
    /// It ends because [`ConnectionLimits::take_excess`] asked for it.
    pub(crate) fn doom(&mut self) {
        self.is_doomed = true;
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        {
            let mut state = self.limits.state.lock();
            if let Some(count) = state.by_address.get_mut(&self.address) {
                *count -= 1;
                if *count == 0 {
                    state.by_address.remove(&self.address);
                }
            }
            if let Some(count) = state.listeners.get_mut(&self.listener) {
                count.open -= 1;
            }
            state.total.open -= 1;
            state.doomed -= u32::from(self.is_doomed);
        }
        self.limits.freed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::task::{Context, Poll, Waker};

    use super::*;

    const UNLIMITED: u32 = u32::MAX;
    const WINDOWS: RateWindows = RateWindows {
        count: 11,
        size: Duration::from_secs(1),
    };
    const ONE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));
    const TWO: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2));

    fn quotas(connections_max: u32) -> ConnectionQuotas {
        ConnectionQuotas {
            broker: ConnectionQuota {
                connections_max,
                creation_rate_max: UNLIMITED,
            },
            listeners: HashMap::new(),
            per_address_max: UNLIMITED,
            per_address_overrides: HashMap::new(),
            protected_listener: None,
        }
    }

    /// The answer, if it is there at once.
    fn admit(limits: &Arc<ConnectionLimits>, listener: &str, address: IpAddr) -> Poll<Option<Admission>> {
        let listener = listener.into();
        pin!(limits.admit(&listener, address)).poll(&mut Context::from_waker(Waker::noop()))
    }

    fn admitted(limits: &Arc<ConnectionLimits>, listener: &str, address: IpAddr) -> Admission {
        match admit(limits, listener, address) {
            Poll::Ready(Some(admission)) => admission,
            other => panic!("not let in: {other:?}"),
        }
    }

    fn is_refused(limits: &Arc<ConnectionLimits>, address: IpAddr) -> bool {
        matches!(admit(limits, "A", address), Poll::Ready(None))
    }

    #[test]
    fn an_address_over_its_limit_is_refused_until_one_of_its_connections_ends_or_the_limit_is_raised() {
        let of_addresses = |per_address_max, overrides: &[(IpAddr, u32)]| ConnectionQuotas {
            per_address_max,
            per_address_overrides: overrides.iter().copied().collect(),
            ..quotas(UNLIMITED)
        };
        let limits = ConnectionLimits::new(of_addresses(1, &[(TWO, 2)]), WINDOWS);
        let first = admitted(&limits, "A", ONE);
        assert!(is_refused(&limits, ONE));
        let others = (admitted(&limits, "A", TWO), admitted(&limits, "B", TWO));
        assert!(is_refused(&limits, TWO));
        drop(first);
        let first = admitted(&limits, "A", ONE);
        limits.update(of_addresses(2, &[]));
        let second = admitted(&limits, "A", ONE);
        assert!(is_refused(&limits, ONE) && is_refused(&limits, TWO));
        drop((first, second, others));
        assert_eq!(limits.open_count(), 0);
    }

    #[test]
    fn at_max_connections_the_next_waits_until_one_ends_or_more_are_allowed() {
        let limits = ConnectionLimits::new(quotas(1), WINDOWS);
        let first = admitted(&limits, "A", ONE);
        let name = "A".into();
        let mut second = pin!(limits.admit(&name, TWO));
        let mut third = pin!(limits.admit(&name, TWO));
        let mut cx = Context::from_waker(Waker::noop());
        assert!(second.as_mut().poll(&mut cx).is_pending() && third.as_mut().poll(&mut cx).is_pending());
        limits.update(quotas(2));
        let Poll::Ready(Some(_second)) = second.as_mut().poll(&mut cx) else {
            panic!("there is room for two")
        };
        assert!(third.as_mut().poll(&mut cx).is_pending());
        drop(first);
        assert!(third.as_mut().poll(&mut cx).is_ready());
    }

    #[test]
    fn a_listener_has_limits_of_its_own_beside_those_of_the_broker() {
        let of_listener = |connections_max| {
            let quota = ConnectionQuota {
                connections_max,
                creation_rate_max: UNLIMITED,
            };
            ConnectionQuotas {
                listeners: HashMap::from([("A".into(), quota)]),
                ..quotas(3)
            }
        };
        let limits = ConnectionLimits::new(of_listener(1), WINDOWS);
        let _first = admitted(&limits, "A", ONE);
        assert!(admit(&limits, "A", ONE).is_pending());
        let _second = admitted(&limits, "B", ONE);
        limits.update(of_listener(100));
        let _third = admitted(&limits, "A", ONE);
        assert!(admit(&limits, "A", ONE).is_pending(), "the broker has three");
    }

    fn of_rate(creation_rate_max: u32) -> ConnectionQuota {
        ConnectionQuota {
            connections_max: UNLIMITED,
            creation_rate_max,
        }
    }

    #[test]
    fn connections_are_held_back_by_the_rate_that_holds_now() {
        let at_rate = |creation_rate_max| ConnectionQuotas {
            broker: of_rate(creation_rate_max),
            ..quotas(0)
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        runtime.block_on(async {
            let limits = ConnectionLimits::new(at_rate(0), WINDOWS);
            assert!(admit(&limits, "A", ONE).is_pending());
            limits.update(at_rate(UNLIMITED));
            let _first = admitted(&limits, "A", ONE);
        });
    }

    #[test]
    fn a_rate_is_that_of_the_broker_or_of_the_listener_and_the_protected_listener_has_only_its_own() {
        let quotas = ConnectionQuotas {
            broker: of_rate(2),
            listeners: HashMap::from([("A".into(), of_rate(1)), ("BROKERS".into(), of_rate(UNLIMITED))]),
            protected_listener: Some("BROKERS".into()),
            ..quotas(0)
        };
        let limits = ConnectionLimits::new(quotas, WINDOWS);
        let now = Instant::now();
        let is_held_back = |listener: &str| !limits.record(&listener.into(), now).is_zero();
        assert!((0..100).all(|_| !is_held_back("BROKERS")));
        // Ten windows of each rate.
        assert!((0..10).all(|_| !is_held_back("A")));
        assert!(is_held_back("A"));
        assert!((0..9).all(|_| !is_held_back("B")));
        assert!(is_held_back("B"), "the broker has let in twenty");
        assert!(!is_held_back("BROKERS"));
    }

    #[test]
    fn a_lowered_limit_and_the_protected_listener_make_others_leave() {
        let protecting = |connections_max| ConnectionQuotas {
            protected_listener: Some("BROKERS".into()),
            ..quotas(connections_max)
        };
        let limits = ConnectionLimits::new(protecting(3), WINDOWS);
        let excess = limits.excess();
        let mut first = admitted(&limits, "A", ONE);
        let _second = admitted(&limits, "A", ONE);
        assert!(!limits.take_excess("A") && !excess.has_changed().unwrap());
        limits.update(protecting(1));
        assert!(excess.has_changed().unwrap());
        assert!(!limits.take_excess("BROKERS"));
        assert!(limits.take_excess("A"));
        assert!(!limits.take_excess("A"), "one is being closed already");
        first.doom();
        let _third = admitted(&limits, "BROKERS", ONE);
        assert!(limits.take_excess("A"), "the protected listener does not wait");
        drop(first);
        assert!(!limits.take_excess("A"));
        assert_eq!(limits.open_count(), 2);
    }
}
