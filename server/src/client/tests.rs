//! A broker that says what it is told to, at the other end of a real connection.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};

use super::{Address, Client, ClientConfig, ClientError, Connection, ConnectionConfig, Target, Topics};
use crate::protocol::messages::api_versions::{ApiVersionsResponse, ApiVersionsResponseKey, served_response};
use crate::protocol::messages::metadata::{
    MetadataRequest, MetadataResponse, MetadataResponseBroker, MetadataResponseTopic,
};
use crate::protocol::{ApiKey, ErrorCode, Message, Reader, RequestHeader, ResponseHeader, Writer};

mod records;

/// A question that arrived.
struct Question {
    key: ApiKey,
    version: i16,
    correlation_id: i32,
}

fn ask(stream: &mut TcpStream) -> Option<Question> {
    let mut length = [0; 4];
    stream.read_exact(&mut length).ok()?;
    let mut frame = vec![0; u32::from_be_bytes(length) as usize];
    stream.read_exact(&mut frame).unwrap();
    let header = RequestHeader::decode(&mut Reader::new(&frame)).unwrap();
    Some(Question {
        key: header.api_key,
        version: header.api_version,
        correlation_id: header.correlation_id,
    })
}

fn reply<'a, A: Message<'a>>(question: &Question, body: &A) -> Vec<u8> {
    let mut writer = Writer::new();
    let frame = writer.begin_frame();
    let correlation_id = question.correlation_id;
    ResponseHeader { correlation_id }.encode(&mut writer, question.key, question.version);
    body.encode(&mut writer, question.version).unwrap();
    writer.end_frame(frame).unwrap();
    writer.as_slice().to_vec()
}

/// Serves one connection after another, each with the same script: what is sent for a question; `None` hangs up.
fn broker(
    connections: usize,
    mut script: impl FnMut(usize, &Question, &Address) -> Option<Vec<u8>> + Send + 'static,
) -> (Address, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address: Address = listener.local_addr().unwrap().to_string().parse().unwrap();
    let own = address.clone();
    let serving = thread::spawn(move || {
        for number in 0..connections {
            let (mut stream, _) = listener.accept().unwrap();
            while let Some(question) = ask(&mut stream) {
                let Some(bytes) = script(number, &question, &own) else {
                    break;
                };
                stream.write_all(&bytes).unwrap();
            }
        }
    });
    (address, serving)
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

fn cluster(address: &Address, topic_error: ErrorCode) -> MetadataResponse<'static> {
    let broker = MetadataResponseBroker {
        node_id: 7,
        host: address.host.to_string().into(),
        port: address.port.into(),
        ..Default::default()
    };
    let topic = MetadataResponseTopic {
        error_code: topic_error.code(),
        name: "t".into(),
        ..Default::default()
    };
    MetadataResponse {
        brokers: vec![broker].into(),
        controller_id: 7,
        topics: vec![topic].into(),
        ..Default::default()
    }
}

fn served(question: &Question, address: &Address) -> Vec<u8> {
    match question.key {
        ApiKey::ApiVersions => reply(question, &served_response()),
        _ => reply(question, &cluster(address, ErrorCode::None)),
    }
}

fn patient(milliseconds: u64) -> ClientConfig {
    ClientConfig {
        operation_timeout: Duration::from_millis(milliseconds),
        ..Default::default()
    }
}

#[test]
fn answers_arrive_in_the_order_of_the_questions_however_they_are_cut() {
    let (address, serving) = broker(1, |_, question, address| Some(served(question, address)));
    runtime().block_on(async {
        let mut connection = Connection::open(&address, &ConnectionConfig::default())
            .await
            .unwrap();
        for _ in 0..5 {
            connection.send(&MetadataRequest::default()).unwrap();
        }
        assert_eq!(connection.pending(), 5);
        for left in (0..5).rev() {
            let answer = connection.receive().await.unwrap();
            let response: MetadataResponse<'_> = answer.decode().unwrap();
            assert_eq!(response.controller_id, 7);
            assert_eq!((answer.version(), connection.pending()), (9, left));
        }
    });
    serving.join().unwrap();
}

#[test]
fn a_broker_that_knows_an_old_table_only_is_spoken_to_in_its_versions() {
    let (address, serving) = broker(1, |_, question, _| {
        let rows = |keys: &[(ApiKey, i16, i16)]| -> Vec<ApiVersionsResponseKey> {
            let row = |&(key, min_version, max_version): &(ApiKey, i16, i16)| ApiVersionsResponseKey {
                api_key: key.id(),
                min_version,
                max_version,
            };
            keys.iter().map(row).collect()
        };
        let question = match question.version {
            0 => question,
            _ => &Question {
                version: 0,
                ..*question
            },
        };
        let first = question.correlation_id == 0;
        Some(reply(
            question,
            &ApiVersionsResponse {
                error_code: if first {
                    ErrorCode::UnsupportedVersion.code()
                } else {
                    0
                },
                api_keys: rows(&[(ApiKey::Metadata, 0, 2), (ApiKey::Fetch, 13, 17)]).into(),
                ..Default::default()
            },
        ))
    });
    runtime().block_on(async {
        let connection = Connection::open(&address, &ConnectionConfig::default())
            .await
            .unwrap();
        assert_eq!(connection.version_of::<MetadataRequest<'_>>().unwrap(), 2);
        let error = connection
            .version_of::<crate::protocol::messages::fetch::FetchRequest<'_>>()
            .unwrap_err();
        let text = "the broker serves Fetch in versions 13 to 17, this client speaks 0 to 12";
        assert!(error.to_string().ends_with(text), "{error}");
        let error = connection
            .version_of::<crate::protocol::messages::produce::ProduceRequest<'_>>()
            .unwrap_err();
        assert!(
            error.to_string().ends_with("the broker does not serve Produce"),
            "{error}"
        );
    });
    serving.join().unwrap();
}

#[test]
fn who_does_not_speak_kafka_is_named() {
    for (bytes, expected) in [
        (&b"\x15\x03\x03\x00\x02\x02\x50"[..], "found TLS"),
        (b"HTTP/1.1 400 Bad Request\r\n", "found HTTP"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "found a line of text"),
        (b"\xff\xff\xff\xff", "found a frame of negative length"),
        (b"\x00\x00\x00\x02ab", "ResponseHeader.correlation_id"),
        (
            b"\x00\x00\x00\x04\x00\x00\x00\x63",
            "found an answer with correlation id 99, expected 0",
        ),
    ] {
        let (address, serving) = broker(1, move |_, _, _| Some(bytes.to_vec()));
        let error = runtime()
            .block_on(Connection::open(&address, &ConnectionConfig::default()))
            .unwrap_err();
        assert!(error.to_string().contains(expected), "{expected}: {error}");
        assert!(!error.is_retriable(), "{error}");
        serving.join().unwrap();
    }
}

#[test]
fn a_forged_length_makes_no_room_for_what_does_not_come() {
    let (address, serving) = broker(1, |_, question, address| match question.key {
        ApiKey::ApiVersions => Some(served(question, address)),
        _ => Some(vec![0x7f, 0xff, 0xff, 0xff, 1, 2, 3]),
    });
    runtime().block_on(async {
        let mut connection = Connection::open(&address, &ConnectionConfig::default())
            .await
            .unwrap();
        let limit = Duration::from_millis(50);
        let error = connection
            .call_within(&MetadataRequest::default(), limit)
            .await
            .unwrap_err();
        assert!(matches!(error, ClientError::TimedOut { .. }), "{error}");
        assert!(connection.inbound_capacity() <= 2 << 20);
    });
    serving.join().unwrap();
}

#[test]
fn a_listener_that_hangs_up_at_once_is_told_apart_from_a_lost_connection() {
    let (address, serving) = broker(1, |_, _, _| None);
    let error = runtime()
        .block_on(Client::connect(vec![address.clone()], patient(100)))
        .unwrap_err();
    assert!(matches!(error, ClientError::Shunned { .. }), "{error}");
    assert!(error.to_string().contains("SASL or TLS"));
    serving.join().unwrap();
    let error = runtime()
        .block_on(Client::connect(vec![address.clone()], patient(100)))
        .unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with(&format!("{address}: cannot connect")),
        "{error}"
    );
}

#[test]
fn of_several_brokers_the_first_that_answers_is_enough() {
    let (address, serving) = broker(1, |_, question, address| Some(served(question, address)));
    let dead: Address = "127.0.0.1:1".parse().unwrap();
    let client = runtime()
        .block_on(Client::connect(vec![dead.clone(), address.clone()], patient(100)))
        .unwrap();
    assert_eq!(client.address_of(7).unwrap(), address);
    assert_eq!(client.cluster().controller, Some(7));
    drop(client);
    serving.join().unwrap();
    let both = vec![dead, address];
    let error = runtime()
        .block_on(Client::connect(both, patient(100)))
        .unwrap_err();
    assert!(
        error.to_string().starts_with("no broker can be reached\n"),
        "{error}"
    );
}

#[test]
fn a_kept_connection_that_was_closed_meanwhile_is_opened_again() {
    // The first connection answers ApiVersions and one Metadata, then hangs up.
    let mut answered = 0;
    let (address, serving) = broker(2, move |number, question, address| {
        answered += 1;
        (number > 0 || answered <= 2).then(|| served(question, address))
    });
    runtime().block_on(async {
        let mut client = Client::connect(vec![address], patient(100)).await.unwrap();
        let described = client.metadata(Topics::All).await.unwrap();
        assert_eq!(described.topics["t"].error, ErrorCode::None);
    });
    serving.join().unwrap();
}

#[test]
fn what_may_succeed_later_is_tried_again_and_what_cannot_is_not() {
    let (address, serving) = broker(1, |_, question, address| Some(served(question, address)));
    runtime().block_on(async {
        let mut client = Client::connect(vec![address], patient(10_000)).await.unwrap();
        let mut attempts = 0;
        let done = client
            .retry(async |_| {
                attempts += 1;
                let code = [ErrorCode::NotController, ErrorCode::None][usize::from(attempts > 1)];
                ClientError::check(code.code(), None, || "it".to_owned()).map(|()| "done")
            })
            .await;
        assert_eq!((done.unwrap(), attempts), ("done", 2));
        let error = client
            .retry(async |client| {
                client
                    .call(Target::Broker(8), &MetadataRequest::default())
                    .await
                    .map(drop)
            })
            .await
            .unwrap_err();
        assert_eq!(error.code(), Some(ErrorCode::BrokerNotAvailable));
        assert_eq!(
            error.to_string(),
            "broker 8: The broker is not available. (BROKER_NOT_AVAILABLE)"
        );
    });
    serving.join().unwrap();
}

#[test]
fn many_questions_to_one_broker_are_under_way_together_and_answered_in_order() {
    // The broker answers fifty at a time.
    let mut asked = 0;
    let mut kept: Vec<u8> = Vec::new();
    let (address, serving) = broker(1, move |_, question, address| {
        asked += 1;
        // ApiVersions, the Metadata of `connect`, the first of the many.
        if asked <= 3 {
            return Some(served(question, address));
        }
        kept.extend(served(question, address));
        let is_due = asked == 202 || asked % 50 == 0;
        Some(if is_due {
            std::mem::take(&mut kept)
        } else {
            Vec::new()
        })
    });
    runtime().block_on(async {
        let mut client = Client::connect(vec![address.clone()], patient(1000))
            .await
            .unwrap();
        let requests = vec![MetadataRequest::default(); 200];
        let answers = client.call_all(Target::Any, &requests).await.unwrap();
        assert_eq!(answers.len(), 200);
        assert!(answers.iter().all(|answer| answer.address() == &address));
        let nothing: &[MetadataRequest<'_>] = &[];
        assert!(client.call_all(Target::Any, nothing).await.unwrap().is_empty());
        let versions = client.versions(7).await.unwrap();
        assert_eq!(versions[&ApiKey::Metadata.id()], 0..=9);
    });
    serving.join().unwrap();
}

#[test]
fn prepared_requests_keep_their_place_in_the_row_and_come_back() {
    let (address, serving) = broker(1, |_, question, address| Some(served(question, address)));
    runtime().block_on(async {
        let mut connection = Connection::open(&address, &ConnectionConfig::default())
            .await
            .unwrap();
        let prepared = connection.prepare(&MetadataRequest::default()).unwrap();
        let size = prepared.size();
        assert!(connection.reclaim().is_none());
        for _ in 0..20 {
            connection.send(&MetadataRequest::default()).unwrap();
            connection.send_prepared(prepared.clone());
        }
        for _ in 0..40 {
            let answer = match connection.arrived().unwrap() {
                Some(answer) => answer,
                None => connection.receive().await.unwrap(),
            };
            let response: MetadataResponse<'_> = answer.decode().unwrap();
            assert_eq!(response.controller_id, 7);
        }
        assert!(connection.arrived().unwrap().is_none());
        for _ in 0..20 {
            assert_eq!(connection.reclaim().unwrap().size(), size);
        }
        assert!(connection.reclaim().is_none());
    });
    serving.join().unwrap();
}

#[test]
fn a_prepared_request_that_is_cut_says_so_in_its_length() {
    let (address, serving) = broker(1, |_, question, address| Some(served(question, address)));
    runtime().block_on(async {
        let mut connection = Connection::open(&address, &ConnectionConfig::default())
            .await
            .unwrap();
        let mut prepared = connection.prepare(&MetadataRequest::default()).unwrap();
        let size = prepared.size();
        prepared.frame_mut().extend_from_slice(b"of no interest");
        prepared.cut(size + 14);
        assert_eq!(prepared.frame_mut()[..4], (size as u32 + 10).to_be_bytes());
        prepared.cut(size);
        for _ in 0..3 {
            connection.send_prepared(prepared.clone());
        }
        for _ in 0..3 {
            connection.receive().await.unwrap();
        }
    });
    serving.join().unwrap();
}
