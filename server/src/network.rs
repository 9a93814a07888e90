//! The network: bytes of sockets to frames of requests and back.
//!
//! One *lane* per core: a thread with a current-thread runtime. A connection stays on its lane for life, and everything its
//! requests need at once is done there, without a hand-off. Complete frames that may be in work together are handed on together and all
//! answers that are ready leave in one send (benchmark: S4 of `docs/benchmarks.md`).
//!
//! Invariants:
//! - answers leave in the order of their requests, however many are being worked on;
//! - a request is handed on once those before it on its connection are answered; only those of one [`RequestClass`] go together;
//! - a declared frame length allocates nothing: buffers grow with the bytes that arrived;
//! - an idle connection holds no buffer and no timer;
//! - a connection that does not read its answers is not read from either, and harms no other.
//!
//! It knows no request by name: [`RequestHandler`] does. Framing: Kafka protocol guide, `SocketServer.scala`,
//! `NetworkReceive.java`.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use milena_engine::io::FileHandle;

mod acceptor;
mod connection;
mod connection_rate;
mod lane;
mod limits;
mod memory;
mod outbound;
#[cfg(test)]
mod tests;

pub use acceptor::{BoundListener, OpenListener, bind};
pub use connection_rate::RateWindows;
pub use lane::{Lanes, ListenerControl};
pub use limits::{ConnectionLimits, ConnectionQuota, ConnectionQuotas};

/// A range of a file that is sent without passing through user memory.
#[derive(Clone, Debug)]
pub struct FileRange {
    pub file: FileHandle,
    pub position: u64,
    pub size_bytes: usize,
}

/// One framed answer: its bytes, length prefix included, with file ranges to be sent between them.
#[derive(Debug, Default)]
pub struct Response {
    pub bytes: BytesMut,
    /// Each range goes out before the byte of `bytes` at its index; indexes ascend.
    pub ranges: Vec<(usize, FileRange)>,
}

/// What became of one request.
pub enum Reply {
    Ready(Response),
    /// The answer needs to wait (a long poll, a sync, a group's members); the connection goes on meanwhile with requests of the same
    /// [`RequestClass`].
    Later(Pin<Box<dyn Future<Output = Reply>>>),
    /// The request asks for no answer (`acks=0`).
    Nothing,
    /// The connection cannot go on; the reason is for the log.
    Close(String),
}

impl std::fmt::Debug for Reply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Reply::Ready(response) => f.debug_tuple("Ready").field(response).finish(),
            Reply::Later(_) => f.write_str("Later"),
            Reply::Nothing => f.write_str("Nothing"),
            Reply::Close(reason) => f.debug_tuple("Close").field(reason).finish(),
        }
    }
}

/// Who is at the other end.
#[derive(Debug)]
pub struct Peer {
    pub address: SocketAddr,
    /// As Kafka shows it in group descriptions: `/127.0.0.1`.
    pub host: Arc<str>,
    /// Name of the listener through which it came.
    pub listener: Arc<str>,
    /// The address that it reached, for messages.
    pub local: SocketAddr,
}

/// Requests that follow each other on a connection and may be in work together: their answers are the same as if each had waited
/// for the answer to the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestClass(pub i16);

/// Handles the requests of one lane. Lives on that lane's thread.
pub trait RequestHandler: 'static {
    /// The class of a request, by its frame without the length prefix; `None` if it can be in work only by itself.
    fn class(&self, frame: &[u8]) -> Option<RequestClass>;

    /// Takes complete frames (without their length prefix) of one connection, in order, and pushes one reply for each. If there are
    /// several, they are of one class.
    fn handle(&self, peer: &Arc<Peer>, frames: &mut Vec<Bytes>, replies: &mut Vec<Reply>);
}

/// Settings of the network; Kafka's names in the comments.
#[derive(Clone, Debug)]
pub struct NetworkConfig {
    pub lane_count: usize,
    /// `control.plane.listener.name`: what comes through this listener has a lane of its own, so that nobody else's requests hold
    /// it up.
    pub reserved_listener: Option<Arc<str>>,
    /// `socket.request.max.bytes`
    pub request_size_bytes_max: usize,
    /// `queued.max.request.bytes`; `None` reads whatever comes.
    pub queued_size_bytes_max: Option<u64>,
    /// `connections.max.idle.ms`; `None` keeps idle connections for ever.
    pub idle_max: Option<Duration>,
    /// `socket.send.buffer.bytes`; `None` leaves the system's.
    pub send_buffer_bytes: Option<usize>,
    /// `socket.receive.buffer.bytes`; `None` leaves the system's.
    pub receive_buffer_bytes: Option<usize>,
}
