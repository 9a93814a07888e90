//! Lets clients in: binds the listeners, keeps the connection limits, deals connections to the lanes in turn.

use std::cell::Cell;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tracing::{info, warn};

use super::lane::{Accepted, LaneInput};
use super::limits::ConnectionLimits;
use super::{NetworkConfig, Peer};

/// Connections the kernel may hold before they are accepted.
const BACKLOG: i32 = 1024;
/// How long to stop accepting when the process has no descriptors left; rolls and deletions need them first.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(200);

/// A listener that has its port but lets nobody in yet: who connects is refused.
#[derive(Debug)]
pub struct BoundListener {
    pub name: Arc<str>,
    pub address: SocketAddr,
    socket: Socket,
}

/// A listener that clients can connect to; they are served once it is given to the lanes.
#[derive(Debug)]
pub struct OpenListener {
    pub name: Arc<str>,
    pub address: SocketAddr,
    socket: std::net::TcpListener,
}

impl BoundListener {
    /// Lets clients connect.
    ///
    /// # Errors
    /// Of the system. [`io::ErrorKind::AddrInUse`] if another process has taken the port and was the first to listen: a port that
    /// nobody listens on can be taken twice.
    pub fn listen(self) -> io::Result<OpenListener> {
        self.socket.listen(BACKLOG)?;
        Ok(OpenListener {
            name: self.name,
            address: self.address,
            socket: self.socket.into(),
        })
    }
}

/// Takes the port of a listener; an empty host means all interfaces. Port 0 lets the system choose.
///
/// # Errors
/// Of the system. [`io::ErrorKind::AddrInUse`] if somebody listens on the port.
pub fn bind(name: &str, host: &str, port: u16, config: &NetworkConfig) -> io::Result<BoundListener> {
    let candidates: Vec<SocketAddr> = if host.is_empty() {
        vec![
            (std::net::Ipv6Addr::UNSPECIFIED, port).into(),
            (std::net::Ipv4Addr::UNSPECIFIED, port).into(),
        ]
    } else {
        (host, port).to_socket_addrs()?.collect()
    };
    let mut last = io::Error::new(io::ErrorKind::NotFound, format!("{host} has no address"));
    for address in candidates {
        match bound_socket(address, config) {
            Ok((socket, address)) => {
                return Ok(BoundListener {
                    name: name.into(),
                    address,
                    socket,
                });
            }
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => return Err(error),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// The socket, and its address with the port that was chosen.
fn bound_socket(address: SocketAddr, config: &NetworkConfig) -> io::Result<(Socket, SocketAddr)> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    // Accepted sockets inherit it; set before `listen`, it takes part in the window negotiation.
    if let Some(size) = config.receive_buffer_bytes {
        socket.set_recv_buffer_size(size)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    let bound = socket.local_addr()?.as_socket().unwrap_or(address);
    Ok((socket, bound))
}

pub(super) async fn run(
    listener: OpenListener,
    lanes: Vec<mpsc::UnboundedSender<LaneInput>>,
    next: Rc<Cell<usize>>,
    limits: Arc<ConnectionLimits>,
    config: NetworkConfig,
) {
    let name = Arc::clone(&listener.name);
    let socket = match TcpListener::from_std(listener.socket) {
        Ok(socket) => socket,
        Err(error) => {
            warn!(target: "kafka.network.Acceptor", "listener {name} cannot accept: {error}");
            return;
        }
    };
    loop {
        let (stream, address) = match socket.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                warn!(target: "kafka.network.Acceptor", "listener {name}: {error}");
                if error.raw_os_error().is_some_and(is_exhaustion) {
                    tokio::time::sleep(EXHAUSTED_PAUSE).await;
                }
                continue;
            }
        };
        let address = unmapped(address);
        let Some(admission) = limits.admit(&name, address.ip()).await else {
            info!(
                target: "kafka.network.Acceptor",
                "Rejected connection from {}, address already has the configured maximum of connections.",
                address.ip()
            );
            continue;
        };
        let accepted = prepare(stream, &config).and_then(|stream| {
            let local = stream.local_addr()?;
            let host = format!("/{}", address.ip()).into();
            Ok(Accepted {
                peer: Arc::new(Peer {
                    address,
                    host,
                    listener: Arc::clone(&name),
                    local,
                }),
                stream,
                admission,
            })
        });
        match accepted {
            Ok(accepted) => {
                let lane = next.get() % lanes.len();
                next.set(lane + 1);
                if lanes[lane].send(LaneInput::Serve(accepted)).is_err() {
                    return;
                }
            }
            Err(error) => info!(target: "kafka.network.Acceptor", "{address} left at once: {error}"),
        }
    }
}

fn prepare(stream: tokio::net::TcpStream, config: &NetworkConfig) -> io::Result<std::net::TcpStream> {
    let stream = stream.into_std()?;
    let socket = SockRef::from(&stream);
    socket.set_tcp_nodelay(true)?;
    socket.set_keepalive(true)?;
    if let Some(size) = config.send_buffer_bytes {
        socket.set_send_buffer_size(size)?;
    }
    Ok(stream)
}

/// EMFILE, ENFILE: no descriptors left in the process, in the system.
fn is_exhaustion(code: i32) -> bool {
    [rustix::io::Errno::MFILE, rustix::io::Errno::NFILE]
        .iter()
        .any(|errno| errno.raw_os_error() == code)
}

/// An IPv4 client of a dual-stack socket is shown by its IPv4 address.
fn unmapped(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
