//! The session machine against a server of a few lines: what is sent, answered, fired and told, step by step.

use proptest::prelude::*;

use super::*;
use crate::coordination::zookeeper::jute::Writer;
use crate::coordination::{ExpectedVersion, Operation};

const TIMEOUT_MS: i32 = 6000;
const OK: i32 = 0;
const NO_NODE: i32 = -101;
const AUTH_FAILED: i32 = -115;
const SYNC: i32 = 9;

/// The machine, its clock, and what it said that was not looked at yet.
struct Bench {
    session: Session,
    now_ms: i64,
    outputs: VecDeque<Output>,
    connection: ConnectionNumber,
    next_token: u64,
}

fn config() -> SessionConfig {
    SessionConfig {
        servers: 3,
        timeout_ms: TIMEOUT_MS,
        max_in_flight: 2,
        auth: Vec::new(),
        sasl: None,
    }
}

/// A frame of a server, without its length.
fn frame(write: impl FnOnce(&mut Writer)) -> Bytes {
    let mut writer = Writer::new();
    write(&mut writer);
    Bytes::from(writer.finish()).slice(4..)
}

fn stat(writer: &mut Writer) {
    writer
        .long(5)
        .long(6)
        .long(7)
        .long(8)
        .int(1)
        .int(0)
        .int(0)
        .long(0)
        .int(0)
        .int(0)
        .long(5);
}

/// A node with its data, as `getData` answers.
fn node(data: Option<&'static [u8]>) -> impl FnOnce(&mut Writer) {
    move |writer| {
        writer.buffer(data);
        stat(writer);
    }
}

/// The xid and the kind of a frame that was sent.
fn xid_and_kind(frame: &[u8]) -> (i32, i32) {
    let mut reader = Reader::new(Bytes::copy_from_slice(&frame[4..]));
    (reader.int("xid").unwrap(), reader.int("kind").unwrap())
}

impl Bench {
    fn new(config: SessionConfig) -> Bench {
        let mut bench = Bench {
            session: Session::new(config),
            now_ms: 1000,
            outputs: VecDeque::new(),
            connection: ConnectionNumber::default(),
            next_token: 0,
        };
        bench.step(Input::Time);
        bench
    }

    /// One that is connected, with session 0x11.
    fn connected(config: SessionConfig) -> Bench {
        let mut bench = Bench::new(config);
        bench.open();
        bench.welcome(0x11);
        assert_eq!(bench.next(), Output::Event(SessionEvent::Connected));
        bench
    }

    fn step(&mut self, input: Input) {
        let mut outputs = Vec::new();
        self.session.step(self.now_ms, input, &mut outputs);
        self.outputs.extend(outputs);
    }

    fn next(&mut self) -> Output {
        self.outputs.pop_front().expect("an output")
    }

    /// Takes the connection that is asked for and returns the greeting.
    fn open(&mut self) -> Vec<u8> {
        let Output::Connect { connection, .. } = self.next() else {
            panic!("no connection is asked for");
        };
        self.connection = connection;
        self.step(Input::Opened { connection, nonce: 9 });
        self.sent()
    }

    fn sent(&mut self) -> Vec<u8> {
        match self.next() {
            Output::Send(frame) => frame,
            other => panic!("found {other:?}, expected a frame"),
        }
    }

    fn received(&mut self, frame: Bytes) {
        self.step(Input::Received {
            connection: self.connection,
            frame,
        });
    }

    fn welcome(&mut self, session_id: i64) {
        self.received(frame(|writer| {
            let timeout_ms = if session_id == 0 { 0 } else { TIMEOUT_MS };
            writer
                .int(0)
                .int(timeout_ms)
                .long(session_id)
                .buffer(Some(&[7; 16]));
        }));
    }

    fn reply(&mut self, xid: i32, code: i32, body: impl FnOnce(&mut Writer)) {
        self.received(frame(|writer| {
            writer.int(xid).long(50).int(code);
            body(writer);
        }));
    }

    fn notify(&mut self, kind: i32, path: &str) {
        self.reply(xid::NOTIFICATION, OK, |writer| {
            writer.int(kind).int(3).string(path);
        });
    }

    fn submit(&mut self, request: Request, watch: bool) -> (Token, Option<WatchId>) {
        self.next_token += 1;
        let watch = watch.then_some(WatchId(self.next_token));
        let token = Token(self.next_token);
        self.step(Input::Submit {
            token,
            request,
            watch,
        });
        (token, watch)
    }

    fn read(&mut self, path: &str, watch: bool) -> (Token, Option<WatchId>) {
        let path = path.to_owned();
        self.submit(Request::GetData { path, watch }, watch)
    }

    fn write(&mut self, path: &str) -> Token {
        let operation = (Operation::delete(path), &[] as &[_]);
        self.submit(Request::Multi(vec![operation]), false).0
    }

    fn lose(&mut self) {
        self.step(Input::Lost(self.connection));
    }

    /// The server that has the session now is asked to catch up, and did.
    fn synced(&mut self) {
        let (xid, kind) = xid_and_kind(&self.sent());
        assert_eq!(kind, SYNC);
        self.reply(xid, OK, |writer| {
            writer.string("/");
        });
    }

    fn answered(&mut self, token: Token, error: CoordinationError) {
        let result = Err(error);
        assert_eq!(self.next(), Output::Answer { token, result });
    }

    /// Lets the time pass to the machine's own deadline.
    fn pass(&mut self) {
        self.now_ms = self.session.next_deadline_ms().expect("a deadline");
        self.step(Input::Time);
    }
}

#[test]
fn requests_wait_for_the_session_and_then_go_out_as_many_as_may_be_in_flight() {
    let mut bench = Bench::new(config());
    let (first, _) = bench.read("/a", false);
    bench.read("/b", false);
    bench.read("/c", false);
    let greeting = bench.open();
    let mut reader = Reader::new(Bytes::from(greeting).slice(4..));
    assert_eq!(reader.int("version").unwrap(), 0);
    assert_eq!(reader.long("zxid").unwrap(), 0);
    assert_eq!(reader.int("timeout").unwrap(), TIMEOUT_MS);
    assert_eq!(reader.long("session").unwrap(), 0);
    bench.welcome(0x11);
    assert_eq!(bench.next(), Output::Event(SessionEvent::Connected));
    let sent = [bench.sent(), bench.sent()];
    assert!(bench.outputs.is_empty());
    let (xid, kind) = xid_and_kind(&sent[0]);
    assert_eq!(kind, 4);
    bench.reply(xid, OK, node(Some(b"x")));
    let Output::Answer {
        token,
        result: Ok(Reply::Data(data, stat)),
    } = bench.next()
    else {
        panic!("no data");
    };
    assert_eq!(
        (token, data.as_deref(), stat.czxid, stat.version),
        (first, Some(&b"x"[..]), 5, 1)
    );
    assert_eq!(bench.session.id(), 0x11);
    bench.sent();
}

#[test]
fn a_write_that_was_sent_when_the_connection_went_has_an_unknown_outcome_and_what_waited_is_sent_on_the_next()
{
    let mut bench = Bench::connected(config());
    let sent: Vec<Token> = (0..2).map(|_| bench.write("/a")).collect();
    let waiting = bench.write("/b");
    bench.sent();
    let (xid, _) = xid_and_kind(&bench.sent());
    bench.lose();
    for token in sent {
        bench.answered(token, CoordinationError::ConnectionLoss);
    }
    assert_eq!(bench.next(), Output::Event(SessionEvent::Disconnected));
    // What the old connection still says means nothing.
    bench.reply(xid, OK, |_| ());
    let greeting = bench.open();
    assert!(
        greeting.windows(16).any(|bytes| bytes == [7; 16]),
        "the password is shown again"
    );
    bench.welcome(0x11);
    bench.synced();
    assert_eq!(bench.next(), Output::Event(SessionEvent::Connected));
    let (xid, _) = xid_and_kind(&bench.sent());
    bench.reply(xid, NO_NODE, |_| ());
    bench.answered(
        waiting,
        CoordinationError::NoNode {
            path: "/b".to_owned(),
        },
    );
    bench.lose();
    bench.next();
    bench.open();
    bench.welcome(0x11);
    assert_eq!(
        bench.next(),
        Output::Event(SessionEvent::Connected),
        "nothing is unsure any more"
    );
}

#[test]
fn a_server_that_could_not_catch_up_is_left_and_the_next_one_is_asked_to() {
    let mut bench = Bench::connected(config());
    bench.write("/a");
    bench.sent();
    bench.lose();
    bench.next();
    bench.next();
    bench.open();
    bench.welcome(0x11);
    let (xid, kind) = xid_and_kind(&bench.sent());
    assert_eq!(kind, SYNC);
    bench.next();
    bench.reply(xid, -4, |_| ());
    assert!(matches!(bench.next(), Output::Misunderstood(_)));
    assert_eq!(bench.next(), Output::Disconnect);
    assert_eq!(bench.next(), Output::Event(SessionEvent::Disconnected));
    bench.open();
    bench.welcome(0x11);
    bench.synced();
}

#[test]
fn a_server_that_takes_the_session_and_drops_it_at_once_is_not_pestered() {
    let mut bench = Bench::connected(SessionConfig {
        servers: 1,
        ..config()
    });
    let mut tries = Vec::new();
    for _ in 0..3 {
        bench.lose();
        assert_eq!(bench.next(), Output::Event(SessionEvent::Disconnected));
        let lost_at_ms = bench.now_ms;
        bench.pass();
        tries.push(bench.now_ms - lost_at_ms);
        bench.open();
        bench.welcome(0x11);
        bench.next();
    }
    assert_eq!(tries, [100, 200, 400]);
    bench.now_ms += SERVED_MIN_MS;
    bench.lose();
    bench.next();
    bench.open();
}

#[test]
fn a_read_is_sent_again_with_its_watch_in_its_place_until_it_is_answered_or_the_session_ends() {
    let mut bench = Bench::connected(SessionConfig {
        max_in_flight: 3,
        ..config()
    });
    let (first, watch) = bench.read("/a", true);
    let between = bench.write("/b");
    let (second, _) = bench.read("/c", false);
    let (waiting, _) = bench.read("/d", false);
    for _ in 0..3 {
        bench.sent();
    }
    bench.lose();
    bench.answered(between, CoordinationError::ConnectionLoss);
    assert_eq!(bench.next(), Output::Event(SessionEvent::Disconnected));
    // No server for long.
    while bench.now_ms < 20 * i64::from(TIMEOUT_MS) {
        bench.pass();
        bench
            .outputs
            .retain(|output| !matches!(output, Output::Connect { .. } | Output::Disconnect));
        assert_eq!(bench.outputs, []);
    }
    while !matches!(bench.outputs.back(), Some(Output::Connect { .. })) {
        bench.pass();
    }
    bench.outputs.retain(|output| *output != Output::Disconnect);
    bench.open();
    bench.welcome(0x11);
    bench.synced();
    assert_eq!(bench.next(), Output::Event(SessionEvent::Connected));
    let (xid, kind) = xid_and_kind(&bench.sent());
    assert_eq!(kind, 4);
    bench.sent();
    bench.sent();
    bench.reply(xid, OK, node(None));
    assert!(matches!(bench.next(), Output::Answer { token, result: Ok(_) } if token == first));
    bench.notify(3, "/a");
    assert!(matches!(bench.next(), Output::Fire { watch: fired, .. } if Some(fired) == watch));
    bench.lose();
    assert_eq!(bench.next(), Output::Event(SessionEvent::Disconnected));
    bench.open();
    bench.welcome(0);
    for token in [second, waiting] {
        bench.answered(token, CoordinationError::SessionExpired);
    }
    assert_eq!(bench.next(), Output::Event(SessionEvent::Expired));
}

#[test]
fn silence_ends_a_connection_but_never_the_session_and_waits_of_writes_are_bounded() {
    let mut bench = Bench::connected(config());
    let sent = bench.write("/a");
    bench.sent();
    bench.pass();
    assert_eq!(xid_and_kind(&bench.sent()), (xid::PING, 11));
    assert_eq!(bench.now_ms, 1000 + i64::from(TIMEOUT_MS) / 3);
    bench.pass();
    assert_eq!(bench.next(), Output::Disconnect);
    bench.answered(sent, CoordinationError::ConnectionLoss);
    assert_eq!(bench.next(), Output::Event(SessionEvent::Disconnected));
    let waiting = bench.write("/b");
    let began_ms = bench.now_ms;
    let (mut connections, mut answered_ms) = (0, None);
    while bench.now_ms < began_ms + 60_000 {
        match bench.outputs.pop_front() {
            Some(Output::Connect { .. }) => connections += 1,
            Some(Output::Disconnect) => {}
            Some(Output::Answer { token, result }) => {
                assert_eq!((token, result), (waiting, Err(CoordinationError::ConnectionLoss)));
                answered_ms = Some(bench.now_ms);
            }
            Some(other) => panic!("{other:?}"),
            None => bench.pass(),
        }
    }
    assert_eq!(answered_ms, Some(began_ms + i64::from(TIMEOUT_MS)));
    // A third of the timeout for each server, and a second at most between rounds.
    assert!((20..=30).contains(&connections), "{connections}");
}

#[test]
fn servers_that_refuse_are_tried_in_turn_with_waits_that_grow_between_rounds() {
    let mut bench = Bench::new(config());
    let mut tried = Vec::new();
    while tried.len() < 12 {
        match bench.outputs.pop_front() {
            Some(Output::Connect { connection, server }) => {
                tried.push((server, bench.now_ms - 1000));
                bench.step(Input::Lost(connection));
            }
            Some(other) => panic!("{other:?}"),
            None => bench.pass(),
        }
    }
    let servers: Vec<usize> = tried.iter().map(|(server, _)| *server).collect();
    assert_eq!(servers, [0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1, 2]);
    let waits: Vec<i64> = tried.windows(2).map(|pair| pair[1].1 - pair[0].1).collect();
    assert_eq!(waits, [0, 0, 100, 100, 100, 200, 200, 200, 400, 400, 400]);
}

#[test]
fn a_server_that_says_so_ends_the_session_with_all_that_belonged_to_it_and_a_new_one_begins() {
    let mut bench = Bench::connected(config());
    let (_, watch) = bench.read("/a", true);
    let (xid, _) = xid_and_kind(&bench.sent());
    bench.reply(xid, OK, node(None));
    bench.next();
    bench.lose();
    assert_eq!(bench.next(), Output::Event(SessionEvent::Disconnected));
    let (waiting, unset) = bench.read("/b", true);
    bench.open();
    bench.welcome(0);
    assert_eq!(bench.next(), Output::Forget(vec![unset.unwrap()]));
    bench.answered(waiting, CoordinationError::SessionExpired);
    assert_eq!(bench.next(), Output::Forget(vec![watch.unwrap()]));
    assert_eq!(bench.next(), Output::Event(SessionEvent::Expired));
    assert_eq!(bench.next(), Output::Disconnect);
    let greeting = bench.open();
    assert!(
        !greeting.windows(16).any(|bytes| bytes == [7; 16]),
        "nothing of the old one"
    );
    bench.welcome(0x12);
    assert_eq!(bench.next(), Output::Event(SessionEvent::Connected));
    assert!(bench.outputs.is_empty(), "no watch is set again");
    assert_eq!(bench.session.id(), 0x12);
}

#[test]
fn a_server_that_gives_no_session_is_left_and_nothing_has_expired() {
    let mut bench = Bench::new(config());
    bench.open();
    bench.welcome(0);
    assert!(matches!(bench.next(), Output::Misunderstood(_)));
    assert_eq!(bench.next(), Output::Disconnect);
    assert!(matches!(bench.next(), Output::Connect { server: 1, .. }));
}

#[test]
fn a_watch_fires_once_for_what_it_was_set_for() {
    let mut bench = Bench::connected(config());
    let (_, watch) = bench.read("/a", true);
    let (xid, _) = xid_and_kind(&bench.sent());
    bench.reply(xid, OK, node(None));
    bench.next();
    bench.notify(4, "/a");
    bench.notify(3, "/b");
    assert!(bench.outputs.is_empty());
    bench.notify(3, "/a");
    let event = WatchEvent {
        path: "/a".to_owned(),
        kind: WatchEventKind::DataChanged,
    };
    let watch = watch.unwrap();
    assert_eq!(bench.next(), Output::Fire { watch, event });
    bench.notify(3, "/a");
    assert!(bench.outputs.is_empty());
}

#[test]
fn a_node_that_is_not_there_is_watched_for_its_creation() {
    let mut bench = Bench::connected(config());
    let (token, watch) = bench.read("/a", true);
    let (xid, _) = xid_and_kind(&bench.sent());
    bench.reply(xid, NO_NODE, |_| ());
    let (xid, kind) = xid_and_kind(&bench.sent());
    assert_eq!(kind, 3, "exists");
    bench.reply(xid, NO_NODE, |_| ());
    bench.answered(
        token,
        CoordinationError::NoNode {
            path: "/a".to_owned(),
        },
    );
    bench.notify(1, "/a");
    let event = WatchEvent {
        path: "/a".to_owned(),
        kind: WatchEventKind::Created,
    };
    let watch = watch.unwrap();
    assert_eq!(bench.next(), Output::Fire { watch, event });
}

#[test]
fn a_node_that_is_created_while_it_is_asked_for_is_read_after_all() {
    let mut bench = Bench::connected(config());
    let (token, _) = bench.read("/a", true);
    let (xid, _) = xid_and_kind(&bench.sent());
    bench.reply(xid, NO_NODE, |_| ());
    let (xid, _) = xid_and_kind(&bench.sent());
    bench.reply(xid, OK, stat);
    let (xid, kind) = xid_and_kind(&bench.sent());
    assert_eq!(kind, 4, "getData");
    bench.reply(xid, OK, node(Some(b"new")));
    let Output::Answer { token: of, result } = bench.next() else {
        panic!("no answer");
    };
    assert!(of == token && matches!(result, Ok(Reply::Data(Some(data), _)) if data == b"new"[..]));
}

#[test]
fn many_watches_are_set_again_in_requests_that_a_server_takes() {
    let mut bench = Bench::connected(config());
    let paths: Vec<String> = (0..20_000)
        .map(|topic| format!("/kafka/brokers/topics/a-topic-with-a-long-name-{topic:06}"))
        .collect();
    for (number, path) in paths.iter().enumerate() {
        bench.read(path, true);
        let (xid, _) = xid_and_kind(&bench.sent());
        bench.reply(xid, if number % 2 == 0 { OK } else { NO_NODE }, node(None));
        if number % 2 == 1 {
            let (xid, _) = xid_and_kind(&bench.sent());
            bench.reply(xid, NO_NODE, |_| ());
        }
        bench.next();
    }
    bench.lose();
    bench.next();
    bench.open();
    bench.welcome(0x11);
    let mut found: Vec<String> = Vec::new();
    while let Output::Send(frame) = bench.next() {
        assert!(frame.len() < 256 << 10, "{} bytes", frame.len());
        let mut reader = Reader::new(Bytes::from(frame).slice(4..));
        assert_eq!(
            (reader.int("xid").unwrap(), reader.int("kind").unwrap()),
            (xid::SET_WATCHES, 101)
        );
        assert_eq!(reader.long("zxid").unwrap(), 50);
        for _ in 0..3 {
            for _ in 0..reader.count("paths").unwrap() {
                found.push(reader.string("path").unwrap());
            }
        }
        bench.reply(xid::SET_WATCHES, OK, |_| ());
    }
    found.sort();
    assert_eq!(found, paths);
}

#[test]
fn what_is_heard_while_watches_are_not_all_set_again_hides_no_change_of_the_others() {
    let mut bench = Bench::connected(config());
    for number in 0..SET_WATCHES_SIZE_BYTES / 64 {
        bench.read(&format!("/{number:0>80}"), true);
        let (xid, _) = xid_and_kind(&bench.sent());
        bench.reply(xid, OK, node(None));
        bench.next();
    }
    for answered in [1, 0] {
        bench.lose();
        bench.next();
        bench.open();
        bench.welcome(0x11);
        for _ in 0..2 {
            let mut reader = Reader::new(Bytes::from(bench.sent()).slice(12..));
            assert_eq!(reader.long("zxid").unwrap(), 50);
        }
        bench.next();
        for _ in 0..answered {
            bench.received(frame(|writer| {
                writer.int(xid::SET_WATCHES).long(60).int(OK);
            }));
        }
    }
}

#[test]
fn credentials_are_shown_on_each_connection_and_their_refusal_is_final() {
    let credentials = AuthInfo {
        scheme: "digest".to_owned(),
        credentials: b"kafka:secret".to_vec(),
    };
    let mut bench = Bench::new(SessionConfig {
        auth: vec![credentials],
        ..config()
    });
    for _ in 0..2 {
        bench.open();
        bench.welcome(0x11);
        assert_eq!(xid_and_kind(&bench.sent()), (xid::AUTH, 100));
        assert_eq!(bench.next(), Output::Event(SessionEvent::Connected));
        bench.lose();
        assert_eq!(bench.next(), Output::Event(SessionEvent::Disconnected));
    }
    bench.open();
    bench.welcome(0x11);
    let (waiting, _) = bench.read("/a", false);
    bench.outputs.clear();
    bench.reply(xid::AUTH, AUTH_FAILED, |_| ());
    bench.answered(waiting, CoordinationError::AuthenticationFailed);
    assert_eq!(bench.next(), Output::Disconnect);
    assert_eq!(bench.next(), Output::Event(SessionEvent::AuthenticationFailed));
    let (late, _) = bench.read("/a", false);
    bench.answered(late, CoordinationError::AuthenticationFailed);
    assert_eq!(bench.session.next_deadline_ms(), None);
}

#[test]
fn with_sasl_nothing_is_asked_before_both_sides_are_convinced() {
    let credentials = digest_md5::Credentials {
        username: "kafka".to_owned(),
        password: "secret".to_owned(),
    };
    let sasl = Some(credentials);
    let mut bench = Bench::new(SessionConfig { sasl, ..config() });
    bench.read("/a", false);
    bench.open();
    bench.welcome(0x11);
    let (xid, kind) = xid_and_kind(&bench.sent());
    assert_eq!(kind, 102);
    bench.reply(xid, OK, |writer| {
        writer.buffer(Some(
            br#"realm="zk-sasl-md5",nonce="n",qop="auth",algorithm=md5-sess"#,
        ));
    });
    let (xid, kind) = xid_and_kind(&bench.sent());
    assert_eq!(kind, 102);
    assert!(bench.outputs.is_empty());
    bench.reply(xid, OK, |writer| {
        writer.buffer(Some(b"rspauth=00"));
    });
    assert!(matches!(
        bench.next(),
        Output::Answer {
            result: Err(CoordinationError::AuthenticationFailed),
            ..
        }
    ));
}

#[test]
fn a_close_comes_after_what_was_asked_before_and_nothing_comes_after_it() {
    let mut bench = Bench::connected(config());
    let (_, watch) = bench.read("/watched", true);
    let (xid, _) = xid_and_kind(&bench.sent());
    bench.reply(xid, OK, node(None));
    bench.next();
    for _ in 0..3 {
        let path = "/a".to_owned();
        let expected = ExpectedVersion::Any;
        let request = Request::Multi(vec![(Operation::Delete { path, expected }, &[])]);
        bench.submit(request, false);
    }
    bench.step(Input::Close);
    let xids: Vec<i32> = (0..3).map(|_| xid_and_kind(&bench.sent()).0).collect();
    let (close, kind) = xid_and_kind(&bench.sent());
    assert_eq!(kind, -11);
    let (late, _) = bench.read("/a", false);
    bench.answered(late, CoordinationError::SessionExpired);
    bench.notify(3, "/watched");
    for xid in xids {
        bench.reply(xid, OK, |writer| {
            writer.int(2).bool(false).int(0).int(-1).bool(true).int(-1);
        });
        let Output::Answer { result, .. } = bench.next() else {
            panic!("no answer");
        };
        assert_eq!(
            result,
            Ok(Reply::Multi(Ok(vec![
                crate::coordination::OperationResult::Deleted
            ])))
        );
    }
    bench.reply(close, OK, |_| ());
    assert_eq!(bench.next(), Output::Forget(vec![watch.unwrap()]));
    assert_eq!(bench.next(), Output::Disconnect);
    assert_eq!(bench.next(), Output::Closed);
}

#[test]
fn the_operation_that_failed_a_multi_is_told_with_its_error() {
    let mut bench = Bench::connected(config());
    let operations = vec![
        (Operation::create("/a", None), &[][..]),
        (
            Operation::Check {
                path: "/b".to_owned(),
                version: 3,
            },
            &[][..],
        ),
        (Operation::delete("/c"), &[][..]),
    ];
    bench.submit(Request::Multi(operations), false);
    let (xid, _) = xid_and_kind(&bench.sent());
    bench.reply(xid, OK, |writer| {
        for code in [0, -103, -2] {
            writer.int(-1).bool(false).int(code).int(code);
        }
        writer.int(-1).bool(true).int(-1);
    });
    let Output::Answer { result, .. } = bench.next() else {
        panic!("no answer");
    };
    let error = CoordinationError::BadVersion {
        path: "/b".to_owned(),
        expected: 3,
    };
    assert_eq!(
        result,
        Ok(Reply::Multi(Err(crate::coordination::MultiError {
            index: 1,
            error
        })))
    );
}

#[test]
fn a_server_that_does_not_keep_to_the_protocol_is_left() {
    for body in [
        frame(|writer| {
            writer.int(77).long(1).int(0);
        }),
        frame(|writer| {
            writer.int(1).long(1).int(0).int(1 << 30);
        }),
        Bytes::from_static(b"x"),
    ] {
        let mut bench = Bench::connected(config());
        let token = bench.write("/a");
        bench.sent();
        bench.received(body);
        let outputs = std::mem::take(&mut bench.outputs);
        assert!(
            outputs
                .iter()
                .any(|output| matches!(output, Output::Misunderstood(_)))
        );
        assert!(outputs.contains(&Output::Answer {
            token,
            result: Err(CoordinationError::ConnectionLoss)
        }));
        assert!(
            matches!(outputs.back(), Some(Output::Connect { .. })),
            "{outputs:?}"
        );
    }
}

proptest! {
    /// Whatever a server says: no panic, and every request is answered at most once.
    #[test]
    fn arbitrary_frames_are_borne(frames in prop::collection::vec(
        (-8..6i32, -120..1i32, prop::collection::vec(any::<u8>(), 0..80)), 1..20))
    {
        let mut bench = Bench::connected(config());
        for (xid, code, body) in frames {
            bench.read("/a", true);
            let operation = Operation::set("/a", Bytes::new(), ExpectedVersion::Exactly(1));
            bench.submit(Request::Multi(vec![(operation, &[])]), false);
            bench.received(frame(|writer| {
                writer.int(xid).long(3).int(code);
                for byte in &body {
                    writer.bool(*byte & 1 == 1);
                }
                writer.buffer(Some(&body));
            }));
            if let Some(Output::Connect { connection, .. }) = bench
                .outputs.iter().rev().find(|output| matches!(output, Output::Connect { .. }))
            {
                bench.connection = *connection;
                bench.step(Input::Opened { connection: bench.connection, nonce: 9 });
                bench.welcome(0x11);
            }
        }
        let mut answered: Vec<Token> = bench.outputs.iter().filter_map(|output| match output {
            Output::Answer { token, .. } => Some(*token),
            _ => None,
        }).collect();
        let all = answered.len();
        answered.sort();
        answered.dedup();
        prop_assert_eq!(answered.len(), all);
    }
}
