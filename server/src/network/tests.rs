//! Real sockets against lanes with a handler that does as its frames say.
//!
//! The first byte of a frame is what to do: `e` echoes the frame at once, `h` holds the answer until an `r` of any connection
//! releases all that are held, `n` answers nothing, `c` closes, `b` answers with [`BIG_SIZE_BYTES`] bytes; `H` and `E` do what `h` and
//! `e` do but go with nothing else, `f` does what `e` does in a class of its own.

mod quotas;

use std::cell::RefCell;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use tokio::sync::oneshot;

use super::*;

const BIG_SIZE_BYTES: usize = 1 << 20;
/// Longer than anything here takes; only a failure waits for it.
const PATIENCE: Duration = Duration::from_secs(20);

struct Scripted {
    held: RefCell<Vec<oneshot::Sender<()>>>,
    taken: Arc<AtomicUsize>,
}

fn framed(body: &[u8]) -> Vec<u8> {
    let mut frame = u32::try_from(body.len()).unwrap().to_be_bytes().to_vec();
    frame.extend_from_slice(body);
    frame
}

fn answer(body: &[u8]) -> Reply {
    let mut bytes = BytesMut::new();
    bytes.put_slice(&framed(body));
    Reply::Ready(Response {
        bytes,
        ranges: Vec::new(),
    })
}

impl RequestHandler for Rc<Scripted> {
    fn class(&self, frame: &[u8]) -> Option<RequestClass> {
        match frame.first() {
            Some(b'H' | b'E') => None,
            Some(b'f') => Some(RequestClass(1)),
            _ => Some(RequestClass(0)),
        }
    }

    fn handle(&self, _: &Arc<Peer>, frames: &mut Vec<Bytes>, replies: &mut Vec<Reply>) {
        for frame in frames.drain(..) {
            self.taken.fetch_add(1, Ordering::SeqCst);
            replies.push(match frame.first() {
                Some(b'h' | b'H') => {
                    let (release, released) = oneshot::channel();
                    self.held.borrow_mut().push(release);
                    Reply::Later(Box::pin(async move {
                        // Refused when the test ends before it releases.
                        let _ = released.await;
                        answer(&frame)
                    }))
                }
                Some(b'r') => {
                    for held in self.held.take() {
                        // Refused where the connection has ended.
                        let _ = held.send(());
                    }
                    answer(&frame)
                }
                Some(b'n') => Reply::Nothing,
                Some(b'c') => Reply::Close("asked to".to_owned()),
                Some(b'b') => answer(&vec![b'b'; BIG_SIZE_BYTES]),
                _ => answer(&frame),
            });
        }
    }
}

/// A listener on 127.0.0.1 that can be connected to.
/// Without limits but that of a request's size.
fn config(lane_count: usize) -> NetworkConfig {
    NetworkConfig {
        lane_count,
        reserved_listener: None,
        request_size_bytes_max: 4 << 20,
        queued_size_bytes_max: None,
        idle_max: None,
        send_buffer_bytes: None,
        receive_buffer_bytes: None,
    }
}

fn listening(name: &str, port: u16, config: &NetworkConfig) -> OpenListener {
    let bound = bind(name, "127.0.0.1", port, config).expect("the port is free");
    bound.listen().unwrap()
}

/// One lane on a port of its own; stopped when dropped.
struct Server {
    lanes: Option<Lanes>,
    address: SocketAddr,
    taken: Arc<AtomicUsize>,
}

impl Server {
    fn start(limits: Arc<ConnectionLimits>, change: impl FnOnce(&mut NetworkConfig)) -> Server {
        let mut config = config(1);
        change(&mut config);
        let listener = listening("PLAINTEXT", 0, &config);
        let address = listener.address;
        let taken = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&taken);
        let handler = move |_| {
            Rc::new(Scripted {
                held: RefCell::default(),
                taken: Arc::clone(&counted),
            })
        };
        let lanes = Lanes::start(config, vec![listener], limits, handler).unwrap();
        Server {
            lanes: Some(lanes),
            address,
            taken,
        }
    }

    fn unlimited() -> Server {
        Server::start(limits(u32::MAX, u32::MAX), |_| {})
    }

    fn connect(&self) -> Client {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Client(stream)
    }

    /// Waits, by asking on a connection of its own, until `count` frames beside its own were taken; how many its own were.
    fn wait_for_frames(&self, count: usize) -> usize {
        let mut asker = self.connect();
        let mut own = 0;
        while self.taken.load(Ordering::SeqCst) < count + own {
            own += 1;
            asker.send(b"e");
            asker.expect(b"e");
        }
        own
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.lanes.take().into_iter().for_each(Lanes::stop);
    }
}

fn limits(total: u32, per_address: u32) -> Arc<ConnectionLimits> {
    let quotas = ConnectionQuotas {
        per_address_max: per_address,
        ..quotas::quotas(total)
    };
    ConnectionLimits::new(quotas, quotas::WINDOWS)
}

struct Client(TcpStream);

impl Client {
    fn send(&mut self, body: &[u8]) {
        self.0.write_all(&framed(body)).unwrap();
    }

    fn receive(&mut self) -> Vec<u8> {
        let mut size = [0; 4];
        self.0.read_exact(&mut size).unwrap();
        let mut body = vec![0; u32::from_be_bytes(size) as usize];
        self.0.read_exact(&mut body).unwrap();
        body
    }

    fn expect(&mut self, body: &[u8]) {
        assert_eq!(
            String::from_utf8_lossy(&self.receive()),
            String::from_utf8_lossy(body)
        );
    }

    /// The broker ends the connection without another byte.
    fn expect_end(mut self) {
        let mut rest = Vec::new();
        match self.0.read_to_end(&mut rest) {
            Ok(_) => assert_eq!(rest, b""),
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset),
        }
    }
}

#[test]
fn answers_come_in_the_order_of_requests_whichever_is_ready_first() {
    let server = Server::unlimited();
    let mut client = server.connect();
    let requests: [&[u8]; 5] = [b"h first", b"e second", b"n no answer", b"h third", b"e fourth"];
    client.0.write_all(&requests.map(framed).concat()).unwrap();
    server.wait_for_frames(requests.len());
    let mut other = server.connect();
    other.send(b"r");
    other.expect(b"r");
    for expected in ["h first", "e second", "h third", "e fourth"] {
        client.expect(expected.as_bytes());
    }
}

#[test]
fn a_frame_may_arrive_byte_by_byte_and_many_frames_at_once() {
    let server = Server::unlimited();
    let mut client = server.connect();
    for byte in framed(b"e slowly") {
        client.0.write_all(&[byte]).unwrap();
    }
    client.expect(b"e slowly");
    let bodies: Vec<Vec<u8>> = (0..200).map(|n| format!("e {n}").into_bytes()).collect();
    let burst: Vec<u8> = bodies.iter().flat_map(|body| framed(body)).collect();
    client.0.write_all(&burst).unwrap();
    bodies.iter().for_each(|body| client.expect(body));
    // Larger than any buffer that is kept, then small again.
    let large = vec![b'e'; 3 << 20];
    client.send(&large);
    assert!(client.receive() == large);
    client.send(b"e small");
    client.expect(b"e small");
}

#[test]
fn lengths_out_of_range_end_their_connection_after_the_answers_before_and_no_other() {
    let server = Server::unlimited();
    let mut bystander = server.connect();
    for length in [-1, i32::MIN, (4 << 20) + 1, i32::MAX] {
        let mut client = server.connect();
        let mut bytes = framed(b"e before");
        bytes.extend_from_slice(&length.to_be_bytes());
        client.0.write_all(&bytes).unwrap();
        client.expect(b"e before");
        client.expect_end();
        bystander.send(b"e");
        bystander.expect(b"e");
    }
}

#[test]
fn a_handler_that_closes_ends_the_connection_after_the_answers_before() {
    let server = Server::unlimited();
    let mut client = server.connect();
    client
        .0
        .write_all(&[b"e before".as_slice(), b"c", b"e behind"].map(framed).concat())
        .unwrap();
    client.expect(b"e before");
    client.expect_end();
}

#[test]
fn requests_beyond_those_in_work_stay_in_the_socket() {
    let server = Server::unlimited();
    let mut client = server.connect();
    let held = connection::IN_FLIGHT_COUNT_MAX;
    for _ in 0..held {
        client.send(b"h");
    }
    server.wait_for_frames(held);
    let taken = server.taken.load(Ordering::SeqCst);
    client.send(b"e late");
    // Another connection is served often enough for the late frame to have been taken, were it read.
    let mut other = server.connect();
    for _ in 0..50 {
        other.send(b"e");
        other.expect(b"e");
    }
    assert_eq!(server.taken.load(Ordering::SeqCst), taken + 50);
    other.send(b"r");
    other.expect(b"r");
    (0..held).for_each(|_| client.expect(b"h"));
    client.expect(b"e late");
}

#[test]
fn of_many_requests_in_one_read_no_more_are_taken_than_may_be_in_work_and_the_rest_follows_by_itself() {
    let server = Server::unlimited();
    let mut client = server.connect();
    let at_most = connection::IN_FLIGHT_COUNT_MAX;
    let bodies: Vec<Vec<u8>> = (0..20 * at_most)
        .map(|n| format!("{} {n}", if n < 2 * at_most { 'h' } else { 'e' }).into_bytes())
        .collect();
    let burst: Vec<u8> = bodies.iter().flat_map(|body| framed(body)).collect();
    assert!(
        burst.len() < connection::READ_BUFFER_SIZE_BYTES,
        "one read takes it"
    );
    client.0.write_all(&burst).unwrap();
    let mut other = server.connect();
    let mut own = 0;
    for released in 0..2 {
        own += server.wait_for_frames((released + 1) * at_most + own);
        for _ in 0..50 {
            other.send(b"e");
            other.expect(b"e");
        }
        own += 50;
        assert_eq!(
            server.taken.load(Ordering::SeqCst),
            (released + 1) * at_most + own
        );
        other.send(b"r");
        other.expect(b"r");
        own += 1;
        let answered = &bodies[released * at_most..(released + 1) * at_most];
        answered.iter().for_each(|body| client.expect(body));
    }
    bodies[2 * at_most..].iter().for_each(|body| client.expect(body));
}

#[test]
fn a_request_is_handed_on_once_those_before_it_are_answered_unless_all_are_of_one_class() {
    // A commit of offsets, and a fetch of them, are like `H` and `E`.
    let cases: [(&[&[u8]], usize); 6] = [
        (&[b"H commit", b"E fetch"], 1),
        (&[b"H alone", b"H alone"], 1),
        (&[b"H alone", b"e in a class"], 1),
        (&[b"h in a class", b"E alone", b"e behind"], 1),
        (
            &[b"h in a class", b"e in the same", b"f in another", b"e behind"],
            2,
        ),
        (&[b"h in a class", b"h in the same", b"e in the same"], 3),
    ];
    for (requests, at_once) in cases {
        let framed_requests: Vec<Vec<u8>> = requests.iter().map(|body| framed(body)).collect();
        for parts in [vec![framed_requests.concat()], framed_requests] {
            let server = Server::unlimited();
            let mut client = server.connect();
            for part in parts {
                client.0.write_all(&part).unwrap();
            }
            let mut own = server.wait_for_frames(at_once);
            let mut other = server.connect();
            for _ in 0..50 {
                other.send(b"e");
                other.expect(b"e");
                own += 1;
            }
            assert_eq!(server.taken.load(Ordering::SeqCst), at_once + own, "{requests:?}");
            // As often as something is held.
            for _ in requests {
                other.send(b"r");
                other.expect(b"r");
                own += 1;
            }
            own += server.wait_for_frames(requests.len() + own);
            other.send(b"r");
            other.expect(b"r");
            own += 1;
            assert_eq!(server.taken.load(Ordering::SeqCst), requests.len() + own);
            requests.iter().for_each(|body| client.expect(body));
        }
    }
}

#[test]
fn a_client_that_does_not_read_is_not_read_from_and_harms_nobody() {
    let server = Server::unlimited();
    let mut stuck = server.connect();
    let asked = 40;
    let requests: Vec<u8> = (0..asked).flat_map(|_| framed(b"b")).collect();
    stuck.0.write_all(&requests).unwrap();
    let mut other = server.connect();
    for _ in 0..50 {
        other.send(b"e");
        other.expect(b"e");
    }
    (0..asked).for_each(|_| assert_eq!(stuck.receive().len(), BIG_SIZE_BYTES));
}

#[test]
fn an_idle_connection_is_ended_and_a_busy_one_is_not() {
    let server = Server::start(limits(u32::MAX, u32::MAX), |config| {
        config.idle_max = Some(Duration::from_secs(1));
    });
    let idle = server.connect();
    let mut busy = server.connect();
    let ended = std::thread::spawn(move || idle.expect_end());
    while !ended.is_finished() {
        busy.send(b"e");
        busy.expect(b"e");
    }
    ended.join().unwrap();
    busy.send(b"e");
    busy.expect(b"e");
}

#[test]
fn the_connection_over_the_limit_of_an_address_is_ended_and_a_place_that_is_left_is_given_again() {
    let server = Server::start(limits(u32::MAX, 1), |_| {});
    let mut first = server.connect();
    first.send(b"e");
    first.expect(b"e");
    server.connect().expect_end();
    drop(first);
    // The place is free once the lane has seen the end; until then clients are turned away.
    loop {
        let mut next = server.connect();
        // The broker may have ended it already.
        let _ = next.0.write_all(&framed(b"e"));
        let mut size = [0; 4];
        if next.0.read_exact(&mut size).is_ok() {
            break;
        }
    }
}

#[test]
fn at_the_limit_of_all_connections_the_next_waits_until_one_leaves() {
    let server = Server::start(limits(1, u32::MAX), |_| {});
    let mut first = server.connect();
    first.send(b"e");
    first.expect(b"e");
    let mut waiting = server.connect();
    waiting.send(b"e waited");
    drop(first);
    waiting.expect(b"e waited");
}

/// Answers with the number of its lane.
struct Numbered(u8);

impl RequestHandler for Numbered {
    fn class(&self, _: &[u8]) -> Option<RequestClass> {
        None
    }

    fn handle(&self, _: &Arc<Peer>, frames: &mut Vec<Bytes>, replies: &mut Vec<Reply>) {
        replies.extend(frames.drain(..).map(|_| answer(&[self.0])));
    }
}

#[test]
fn a_port_that_is_only_bound_refuses_clients_and_a_second_taker_is_told_at_the_latest_when_it_listens() {
    let config = config(1);
    let take = |port| bind("PLAINTEXT", "127.0.0.1", port, &config);
    let first = take(0).unwrap();
    let address = first.address;
    assert_ne!(address.port(), 0, "the port is known");
    let refused = TcpStream::connect(address).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    let second = take(address.port());
    let open = first.listen().unwrap();
    TcpStream::connect(address).unwrap();
    // Whether two may bind what nobody listens on is up to the system.
    let late = second.and_then(BoundListener::listen).unwrap_err();
    assert_eq!(late.kind(), std::io::ErrorKind::AddrInUse);
    let third = take(address.port()).unwrap_err();
    assert_eq!(third.kind(), std::io::ErrorKind::AddrInUse);
    drop(open);
}

#[test]
fn a_reserved_listener_has_a_lane_of_its_own() {
    let config = NetworkConfig {
        reserved_listener: Some("CONTROL".into()),
        ..config(2)
    };
    let listeners = ["PLAINTEXT", "CONTROL"].map(|name| listening(name, 0, &config));
    let addresses = [listeners[0].address, listeners[1].address];
    let handler = |lane| Numbered(u8::try_from(lane).unwrap());
    let lanes = Lanes::start(config, listeners.into(), limits(u32::MAX, u32::MAX), handler).unwrap();
    let lanes_of = addresses.map(|address| {
        [(); 4].map(|()| {
            let mut client = Client(TcpStream::connect(address).unwrap());
            client.0.set_read_timeout(Some(PATIENCE)).unwrap();
            client.send(b"x");
            client.receive()[0]
        })
    });
    assert_eq!(lanes_of, [[0, 1, 0, 1], [2; 4]]);
    lanes.stop();
}

#[test]
fn a_listener_comes_while_others_serve_and_goes_with_its_connections_alone() {
    let config = config(2);
    let new = |name| listening(name, 0, &config);
    let connect = |address: SocketAddr| {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Client(stream)
    };
    let ask = |client: &mut Client| {
        client.send(b"x");
        client.receive()
    };
    let first = new("PLAINTEXT");
    let staying = first.address;
    let handler = |_| Numbered(7);
    let lanes = Lanes::start(config.clone(), vec![first], limits(u32::MAX, u32::MAX), handler).unwrap();
    let control = lanes.listeners();
    let mut stays = connect(staying);
    ask(&mut stays);
    let second = new("EXT");
    let passing = second.address;
    control.open(second);
    let mut on_both_lanes = [connect(passing), connect(passing)];
    for client in &mut on_both_lanes {
        ask(client);
    }
    control.close("EXT");
    let again = listening("EXT", passing.port(), &config);
    on_both_lanes.into_iter().for_each(Client::expect_end);
    ask(&mut stays);
    control.open(again);
    ask(&mut connect(passing));
    control.close("nobody");
    ask(&mut connect(staying));
    lanes.stop();
    control.close("EXT");
}
