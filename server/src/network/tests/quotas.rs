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
fn no_more_is_read_while_unanswered_requests_use_up_the_memory_and_reading_goes_on_by_itself() {
    let server = Server::start(false, Some(1000));
    let (mut one, mut two) = (server.connect(), server.connect());
    send(&mut one, b'a', 999);
    assert_eq!(server.next_events(), ["a came"]);
    // Begun while a byte is left, so it is read to its end, in several parts.
    send(&mut two, b'b', 600_000);
    assert_eq!(server.next_events(), ["b came"]);
    send(&mut one, b'c', 1);
    send(&mut two, b'd', 1);
    server.gate.send_replace(true);
    let events: [String; 6] = server.next_events();
    let at = |event: &str| events.iter().position(|one| one == event).unwrap();
    assert!(at("b is answered") < at("c came").min(at("d came")), "{events:?}");
    for stream in [&mut one, &mut two] {
        receive(stream);
        receive(stream);
    }
    server.lanes.stop();
}

#[test]
fn of_requests_that_arrive_together_those_beyond_the_limit_wait_for_the_answers_of_those_before() {
    let server = Server::start(false, Some(1000));
    let (mut one, mut two) = (server.connect(), server.connect());
    let together: Vec<u8> = [(b'a', 1000), (b'b', 1), (b'c', 1000), (b'd', 1)]
        .into_iter()
        .flat_map(|(name, size)| request(name, size))
        .collect();
    one.write_all(&together).unwrap();
    assert_eq!(server.next_events(), ["a came"]);
    send(&mut two, b'e', 0);
    assert_eq!(server.next_events(), ["0 came"], "nothing needs no memory");
    server.gate.send_replace(true);
    let events: [String; 8] = server.next_events();
    let mut of_one: Vec<&str> = events.iter().map(String::as_str).collect();
    of_one.retain(|event| !event.starts_with('0'));
    let at = |event: &str| of_one.iter().position(|one| *one == event).unwrap();
    assert_eq!(at("a is answered"), 0);
    assert!(at("c is answered") < at("d came"), "{events:?}");
    (0..4).for_each(|_| receive(&mut one));
    receive(&mut two);
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
