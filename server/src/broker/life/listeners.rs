//! The listeners of a broker: bound at the start, opened and closed while it runs as `listeners` says, and advertised once they are
//! open (`DynamicListenerConfig`, `SocketServer.{addListeners, removeListeners}`).
//!
//! At the start a port is taken before anything else, so that one that is taken stops the broker at once. Until the broker is registered
//! clients are refused and go to another one: a port that answers says that the broker is there.
//!
//! A change binds first, so that what cannot be bound changes nothing; then the connections of listeners that go are ended, new ones
//! are let in, and the broker's registration is written anew. Only a port that one of them gives up and another one takes is bound
//! after the first is closed. What failed is tried again with the next change of settings.
//!
//! **Deviation:** a listener whose name stays and whose address does not is bound anew. 2.7.2 goes on listening at the old address,
//! and advertises the new one.

use std::io;
use std::sync::Arc;

use parking_lot::Mutex;

use super::StartError;
use super::membership::Membership;
use crate::cluster::Endpoint;
use crate::config::{BrokerConfig, EndPoint, local_host_name};
use crate::network::{self, BoundListener, ListenerControl, NetworkConfig, OpenListener};

const LOGGER: &str = "kafka.network.SocketServer";

/// A listener as it is set, and as it is bound.
pub(super) type Bound = (EndPoint, BoundListener);

/// Takes the ports of `wanted` that are not in `bound`, and gives up those of others.
///
/// # Errors
/// [`StartError::Listen`].
pub(super) fn bind(
    bound: &mut Vec<Bound>,
    wanted: &[EndPoint],
    network: &NetworkConfig,
) -> Result<(), StartError> {
    bound.retain(|(endpoint, _)| wanted.contains(endpoint));
    for endpoint in wanted {
        if !bound.iter().any(|(one, _)| one == endpoint) {
            bound.push((endpoint.clone(), take(endpoint, network)?));
        }
    }
    // In the order of the settings, in which they are told.
    bound.sort_by_key(|(endpoint, _)| wanted.iter().position(|one| one == endpoint));
    Ok(())
}

fn take(endpoint: &EndPoint, network: &NetworkConfig) -> Result<BoundListener, StartError> {
    let host = endpoint.host.as_deref().unwrap_or_default();
    let (name, port) = (endpoint.listener_name.as_str(), endpoint.port);
    network::bind(name, host, port, network).map_err(|source| refused(endpoint, source))
}

fn refused(endpoint: &EndPoint, source: io::Error) -> StartError {
    StartError::Listen {
        listener: endpoint.listener_name.as_str().to_owned(),
        host: endpoint.host.clone().unwrap_or_default(),
        port: endpoint.port,
        source,
    }
}

/// Lets clients connect, to be served by lanes that start now or run.
///
/// # Errors
/// [`StartError::Listen`].
pub(super) fn listen(bound: Vec<Bound>) -> Result<Vec<(EndPoint, OpenListener)>, StartError> {
    let listening = bound.into_iter().map(|(endpoint, listener)| {
        let listening = listener.listen().map_err(|source| refused(&endpoint, source))?;
        Ok((endpoint, listening))
    });
    listening.collect()
}

/// Those that are open, with their ports.
pub(super) type Open = Vec<(EndPoint, u16)>;

pub(super) fn ports(bound: &[Bound]) -> Open {
    let ports = bound.iter();
    ports
        .map(|(endpoint, bound)| (endpoint.clone(), bound.address.port()))
        .collect()
}

/// What is advertised, with host and port filled in: of the listeners that are open.
pub(super) fn advertised(open: &Open, config: &BrokerConfig) -> Vec<Endpoint> {
    let local_host = local_host_name();
    let advertised = config.advertised_listeners.iter().filter_map(|advertised| {
        let found = open
            .iter()
            .find(|(endpoint, _)| endpoint.listener_name == advertised.listener_name);
        found.map(|(_, port)| advertised.advertised(&local_host, *port))
    });
    advertised.collect()
}

/// What has to be done for others to be open.
#[derive(Debug, PartialEq, Eq)]
struct Change {
    closed: Vec<EndPoint>,
    /// Can be bound beside what is open.
    opened: Vec<EndPoint>,
    /// Their port is one that is closed.
    reopened: Vec<EndPoint>,
}

impl Change {
    fn between(open: &Open, wanted: &[EndPoint]) -> Change {
        let closed = open.iter().map(|(endpoint, _)| endpoint);
        let closed: Vec<EndPoint> = closed.filter(|one| !wanted.contains(one)).cloned().collect();
        let gives_up = |port: u16| {
            let mut open = open.iter();
            open.any(|(endpoint, bound)| *bound == port && closed.contains(endpoint))
        };
        let new = wanted
            .iter()
            .filter(|one| !open.iter().any(|(endpoint, _)| endpoint == *one));
        let (reopened, opened) = new.cloned().partition(|one| gives_up(one.port));
        Change {
            closed,
            opened,
            reopened,
        }
    }
}

/// The listeners of a broker that runs.
#[derive(Debug)]
pub(super) struct Listeners {
    network: NetworkConfig,
    membership: Arc<Membership>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    open: Open,
    /// Once clients are let in.
    control: Option<ListenerControl>,
}

impl Listeners {
    pub(super) fn new(network: NetworkConfig, membership: Arc<Membership>, open: Open) -> Listeners {
        Listeners {
            network,
            membership,
            state: Mutex::new(State { open, control: None }),
        }
    }

    /// Clients are let in; what the settings have come to say meanwhile is done now.
    pub(super) fn begin(&self, control: ListenerControl, config: &BrokerConfig) {
        self.state.lock().control = Some(control);
        self.follow(config);
    }

    /// Makes it so that what the settings say is open and advertised. Waits for sockets to be closed, not for clients.
    pub(super) fn follow(&self, config: &BrokerConfig) {
        let mut state = self.state.lock();
        let State { open, control } = &mut *state;
        if let Some(control) = control
            && let Err(error) = self.change(open, control, &config.listeners)
        {
            tracing::error!(target: LOGGER, "The listeners stay as they are: {error}");
            return;
        }
        self.membership.advertise(advertised(open, config));
    }

    fn change(
        &self,
        open: &mut Open,
        control: &ListenerControl,
        wanted: &[EndPoint],
    ) -> Result<(), StartError> {
        let change = Change::between(open, wanted);
        let mut bound = Vec::new();
        bind(&mut bound, &change.opened, &self.network)?;
        let mut opened = listen(bound)?;
        if !change.closed.is_empty() {
            tracing::info!(target: LOGGER, "Removing data-plane listeners for endpoints {}", texts(&change.closed));
        }
        for closed in &change.closed {
            control.close(closed.listener_name.as_str());
            open.retain(|(endpoint, _)| endpoint != closed);
        }
        for endpoint in &change.reopened {
            let taken = take(endpoint, &self.network);
            match taken.and_then(|bound| listen(vec![(endpoint.clone(), bound)])) {
                Ok(listening) => opened.extend(listening),
                Err(error) => tracing::error!(target: LOGGER, "Listener {endpoint} is not open: {error}"),
            }
        }
        if !opened.is_empty() {
            let added: Vec<EndPoint> = opened.iter().map(|(endpoint, _)| endpoint.clone()).collect();
            tracing::info!(target: LOGGER, "Adding data-plane listeners for endpoints {}", texts(&added));
        }
        for (endpoint, listener) in opened {
            open.push((endpoint, listener.address.port()));
            control.open(listener);
        }
        Ok(())
    }
}

fn texts(endpoints: &[EndPoint]) -> String {
    let texts: Vec<String> = endpoints.iter().map(EndPoint::to_string).collect();
    texts.join(", ")
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use super::*;

    fn endpoints(listeners: &str) -> Vec<EndPoint> {
        let map = "PLAINTEXT:PLAINTEXT,EXT:PLAINTEXT,NEW:PLAINTEXT";
        let settings = [("listeners", listeners), ("listener.security.protocol.map", map)];
        BrokerConfig::from_settings(&settings).unwrap().listeners
    }

    fn open(listeners: &str) -> Open {
        let endpoints = endpoints(listeners).into_iter();
        endpoints
            .map(|endpoint| {
                (
                    endpoint.clone(),
                    if endpoint.port == 0 { 77 } else { endpoint.port },
                )
            })
            .collect()
    }

    fn change(from: &str, to: &str) -> [String; 3] {
        let Change {
            closed,
            opened,
            reopened,
        } = Change::between(&open(from), &endpoints(to));
        [closed, opened, reopened].map(|endpoints| texts(&endpoints))
    }

    #[test]
    fn listeners_come_go_and_move_and_a_port_that_is_taken_over_is_bound_last() {
        let both = "PLAINTEXT://h:1,EXT://h:2";
        assert_eq!(change("PLAINTEXT://h:1", both), ["", "EXT://h:2", ""]);
        assert_eq!(change(both, "PLAINTEXT://h:1"), ["EXT://h:2", "", ""]);
        assert_eq!(change(both, both), ["", "", ""]);
        assert_eq!(
            change(both, "PLAINTEXT://h:1,EXT://h:3"),
            ["EXT://h:2", "EXT://h:3", ""]
        );
        assert_eq!(
            change(both, "PLAINTEXT://h:1,NEW://h:2"),
            ["EXT://h:2", "", "NEW://h:2"]
        );
        assert_eq!(
            change(both, "PLAINTEXT://h:1,EXT://:2"),
            ["EXT://h:2", "", "EXT://:2"]
        );
        assert_eq!(
            change("PLAINTEXT://h:1,EXT://h:0", "PLAINTEXT://h:1,NEW://h:77"),
            ["EXT://h:0", "", "NEW://h:77"]
        );
        assert_eq!(
            change("PLAINTEXT://h:1,EXT://h:0", "PLAINTEXT://h:1,NEW://h:0"),
            ["EXT://h:0", "NEW://h:0", ""]
        );
    }

    #[test]
    fn what_is_bound_refuses_clients_until_it_listens_and_a_port_listened_on_meanwhile_is_named() {
        let network =
            super::super::network_config(&BrokerConfig::from_settings(&[("broker.id", "1")]).unwrap());
        let wanted = endpoints("PLAINTEXT://127.0.0.1:0");
        let mut bound = Vec::new();
        bind(&mut bound, &wanted, &network).unwrap();
        let address = bound[0].1.address;
        assert_eq!(ports(&bound), [(wanted[0].clone(), address.port())]);
        let refused = TcpStream::connect(address).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        let mut also = Vec::new();
        let same = endpoints(&format!("PLAINTEXT://{address}"));
        let taken = bind(&mut also, &same, &network);
        let _listening = listen(bound).unwrap();
        TcpStream::connect(address).unwrap();
        let error = taken.and_then(|()| listen(also)).unwrap_err().to_string();
        let start = format!("cannot listen on PLAINTEXT://{address}: ");
        assert!(
            error.starts_with(&start) && error.contains("stop that, or choose another port"),
            "{error}"
        );
    }

    #[test]
    fn only_what_is_open_is_advertised() {
        let settings = [
            ("listeners", "PLAINTEXT://:0,EXT://h:2"),
            ("advertised.listeners", "PLAINTEXT://a:0,EXT://b:9"),
            (
                "listener.security.protocol.map",
                "PLAINTEXT:PLAINTEXT,EXT:PLAINTEXT",
            ),
        ];
        let config = BrokerConfig::from_settings(&settings).unwrap();
        let told = |open: &Open| -> Vec<String> {
            advertised(open, &config)
                .iter()
                .map(ToString::to_string)
                .collect()
        };
        assert_eq!(
            told(&open("PLAINTEXT://:0,EXT://h:2")),
            ["PLAINTEXT://a:77", "EXT://b:9"]
        );
        assert_eq!(told(&open("PLAINTEXT://:0")), ["PLAINTEXT://a:77"]);
    }
}
