//! Lanes with real sockets and a handler of a few lines: an answer is an empty frame, at once or when told.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::mpsc::{Receiver, Sender, channel};

use tokio::sync::watch;

use super::super::*;

/// Answers each request once the gate is open; reports what it got, and that it answered.
#[derive(Clone)]
struct Gate {
    events: Sender<String>,
    is_open: watch::Receiver<bool>,
}

impl RequestHandler for Gate {
    fn class(&self, _: &[u8]) -> Option<RequestClass> {
        Some(RequestClass(0))
    }

    fn handle(&self, _: &Arc<Peer>, frames: &mut Vec<Bytes>, replies: &mut Vec<Reply>) {
        for frame in frames.drain(..) {
            let name = frame.first().map_or('0', |name| char::from(*name));
            let (events, mut is_open) = (self.events.clone(), self.is_open.clone());
            let _ = events.send(format!("{name} came"));
            replies.push(Reply::Later(Box::pin(async move {
                let _ = is_open.wait_for(|open| *open).await;
                let _ = events.send(format!("{name} is answered"));
                Reply::Ready(Response {
                    bytes: BytesMut::from(&[0; 4][..]),
                    ranges: Vec::new(),
                })
            })));
        }
    }
}

struct Server {
    lanes: Lanes,
    limits: Arc<ConnectionLimits>,
    address: SocketAddr,
    events: Receiver<String>,
    gate: watch::Sender<bool>,
}

/// Bytes of a request's length.
const PREFIX: usize = 4;

pub(super) const WINDOWS: RateWindows = RateWindows {
    count: 11,
    size: Duration::from_secs(1),
};

pub(super) fn quotas(connections_max: u32) -> ConnectionQuotas {
    ConnectionQuotas {
        broker: ConnectionQuota {
            connections_max,
            creation_rate_max: u32::MAX,
        },
        listeners: Default::default(),
        per_address_max: u32::MAX,
        per_address_overrides: Default::default(),
        protected_listener: None,
    }
}

impl Server {
    fn start(is_open: bool, queued_size_bytes_max: Option<u64>) -> Server {
        let config = NetworkConfig {
            reserved_listener: None,
            lane_count: 1,
            request_size_bytes_max: 1 << 20,
            queued_size_bytes_max,
            idle_max: None,
            send_buffer_bytes: None,
            receive_buffer_bytes: None,
        };
        let listener = bind("A", "127.0.0.1", 0, &config).unwrap().listen().unwrap();
        let address = listener.address;
        let limits = ConnectionLimits::new(quotas(u32::MAX), WINDOWS);
        let (gate, is_open) = watch::channel(is_open);
        let (events, received) = channel();
        let handler = Gate { events, is_open };
        let lanes = Lanes::start(config, vec![listener], Arc::clone(&limits), move |_| {
            handler.clone()
        })
        .unwrap();
        Server {
            lanes,
            limits,
            address,
            events: received,
            gate,
        }
    }

    fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).unwrap()
    }

    fn next_events<const N: usize>(&self) -> [String; N] {
        std::array::from_fn(|_| self.events.recv_timeout(Duration::from_secs(30)).unwrap())
    }
}

fn request(name: u8, size: usize) -> Vec<u8> {
    let mut request = (size as u32).to_be_bytes().to_vec();
    request.extend(std::iter::repeat_n(name, size));
    request
}

fn send(stream: &mut TcpStream, name: u8, size: usize) {
    stream.write_all(&request(name, size)).unwrap();
}

fn receive(stream: &mut TcpStream) {
    stream.read_exact(&mut [0; 4]).unwrap();
}

#[test]
fn no_more_is_read_while_requests_that_arrive_use_up_the_memory_and_reading_goes_on_by_itself() {
    let server = Server::start(false, Some(1000));
    let (mut one, mut two) = (server.connect(), server.connect());
    let large = request(b'b', 600_000);
    // With the length of the next one, which may be larger than what is left, and is read to its end.
    one.write_all(&[&request(b'a', 999), &large[..PREFIX]].concat())
        .unwrap();
    assert_eq!(server.next_events(), ["a came"]);
    send(&mut two, b'0', 0);
    assert_eq!(server.next_events(), ["0 came"], "nothing needs no memory");
    send(&mut two, b'c', 1);
    assert!(server.events.recv_timeout(Duration::from_millis(100)).is_err());
    one.write_all(&large[PREFIX..]).unwrap();
    assert_eq!(server.next_events(), ["b came", "c came"]);
    server.gate.send_replace(true);
    for stream in [&mut one, &mut two] {
        receive(stream);
        receive(stream);
    }
    server.lanes.stop();
}

#[test]
fn requests_that_wait_for_their_answers_hold_none_of_the_memory() {
    let server = Server::start(false, Some(1000));
    let mut one = server.connect();
    let together = [(b'a', 1000), (b'b', 1), (b'c', 1000), (b'd', 1)].map(|(name, size)| request(name, size));
    one.write_all(&together.concat()).unwrap();
    assert_eq!(server.next_events(), ["a came", "b came", "c came", "d came"]);
    server.gate.send_replace(true);
    (0..4).for_each(|_| receive(&mut one));
    server.lanes.stop();
}

#[test]
fn without_a_limit_everything_is_read() {
    let server = Server::start(false, None);
    let mut one = server.connect();
    send(&mut one, b'a', 600_000);
    send(&mut one, b'b', 600_000);
    assert_eq!(server.next_events(), ["a came", "b came"]);
    server.gate.send_replace(true);
    receive(&mut one);
    receive(&mut one);
    server.lanes.stop();
}

#[test]
fn a_lowered_max_connections_closes_those_that_were_idle_for_longest() {
    let server = Server::start(true, None);
    let (mut old, mut busy) = (server.connect(), server.connect());
    for stream in [&mut old, &mut busy] {
        send(stream, b'a', 1);
        receive(stream);
    }
    server.limits.update(quotas(1));
    assert_eq!(old.read(&mut [0; 1]).unwrap(), 0, "closed");
    send(&mut busy, b'b', 1);
    receive(&mut busy);
    assert_eq!(server.limits.open_count(), 1);
    server.lanes.stop();
}
