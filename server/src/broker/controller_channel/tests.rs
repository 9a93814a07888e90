//! Questions to brokers on simulated disks, over real connections.

use std::cell::Cell;
use std::net::TcpListener;

use milena_engine::io::simulated::SimulatedDisk;

use super::*;
use crate::broker::RunningBroker;
use crate::broker::life::tests::{port_of, start_on};
use crate::cluster::{Broker, Endpoint, SecurityProtocol};
use crate::controller::command::{CommandOrigin, UpdateMetadataCommand};
use crate::protocol::messages::metadata::MetadataRequest;

const VERSION: i16 = 1;

/// A broker that asks, and two that may be the controller.
struct Asked {
    metadata: Arc<MetadataCache>,
    channel: ControllerChannel,
    brokers: Vec<RunningBroker>,
}

impl Asked {
    fn new() -> Asked {
        let metadata = Arc::new(MetadataCache::new());
        let settings = PeerSettings {
            broker_id: 9,
            listener: "PLAINTEXT".into(),
            connect_timeout: Duration::from_secs(30),
            request_timeout: Duration::from_secs(30),
        };
        Asked {
            channel: ControllerChannel::new(settings, Arc::clone(&metadata)),
            metadata,
            brokers: (0..2)
                .map(|_| start_on(&SimulatedDisk::new(1)).unwrap())
                .collect(),
        }
    }

    fn port(&self, broker: usize) -> u16 {
        port_of(&self.brokers[broker])
    }

    /// The metadata name a controller, that listens there.
    fn learn(&self, controller_id: i32, port: u16) {
        let endpoint = Endpoint {
            listener: "PLAINTEXT".into(),
            host: "127.0.0.1".into(),
            port: port.into(),
            security_protocol: SecurityProtocol::Plaintext,
        };
        let broker = Broker {
            id: controller_id,
            endpoints: vec![endpoint],
            rack: None,
        };
        self.metadata.update(&UpdateMetadataCommand {
            origin: CommandOrigin {
                controller_id,
                controller_epoch: 1,
                broker_epoch: 1,
            },
            partitions: Vec::new(),
            live_brokers: [broker].into(),
        });
    }

    /// The port of the broker that answers.
    async fn ask(&self, code_of: impl Fn(&Answer) -> Result<i16, ClientError>) -> u16 {
        let request = MetadataRequest::default();
        let answer = self.channel.call(&request, VERSION, code_of).await.unwrap();
        answer.address().port
    }

    fn stop(self) {
        for broker in self.brokers {
            broker.stop();
        }
    }
}

fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.unwrap().block_on(test)
}

fn no_error(_: &Answer) -> Result<i16, ClientError> {
    Ok(0)
}

#[test]
fn the_controller_of_the_moment_is_asked() {
    let asked = Asked::new();
    run(async {
        asked.learn(0, asked.port(0));
        assert_eq!(asked.ask(no_error).await, asked.port(0));
        assert_eq!(asked.ask(no_error).await, asked.port(0));
        asked.learn(1, asked.port(1));
        assert_eq!(asked.ask(no_error).await, asked.port(1));
    });
    asked.stop();
}

#[test]
fn who_is_the_controller_no_more_is_not_believed() {
    let asked = Asked::new();
    run(async {
        asked.learn(0, asked.port(0));
        let refusals = Cell::new(0);
        let answered = asked.ask(|answer| {
            if answer.address().port == asked.port(1) {
                return Ok(ErrorCode::None.code());
            }
            refusals.set(refusals.get() + 1);
            if refusals.get() == 2 {
                asked.learn(1, asked.port(1));
            }
            Ok(ErrorCode::NotController.code())
        });
        assert_eq!(answered.await, asked.port(1));
        assert_eq!(refusals.get(), 2);
    });
    asked.stop();
}

#[test]
fn a_question_waits_for_a_controller_and_outlives_one_that_goes_away() {
    let asked = Asked::new();
    run(async {
        let learn = async { asked.learn(0, asked.port(0)) };
        let (answered, ()) = tokio::join!(biased; asked.ask(no_error), learn);
        assert_eq!(answered, asked.port(0));
        // It hangs up on whoever comes.
        let rude = TcpListener::bind("127.0.0.1:0").unwrap();
        asked.learn(1, rude.local_addr().unwrap().port());
        let hung_up = async {
            let hang_up = tokio::task::spawn_blocking(move || drop(rude.accept().unwrap()));
            hang_up.await.unwrap();
            asked.learn(0, asked.port(0));
        };
        let (answered, ()) = tokio::join!(asked.ask(no_error), hung_up);
        assert_eq!(answered, asked.port(0));
    });
    asked.stop();
}

#[test]
fn a_question_that_is_given_up_leaves_the_channel_as_it_was() {
    let asked = Asked::new();
    run(async {
        // It lets everybody in and says nothing.
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        asked.learn(0, silent.local_addr().unwrap().port());
        let heard = tokio::task::spawn_blocking(move || silent.accept().unwrap());
        tokio::select! {
            answered = asked.ask(no_error) => panic!("{answered} answered"),
            heard = heard => drop(heard.unwrap()),
        }
        asked.learn(0, asked.port(0));
        assert_eq!(asked.ask(no_error).await, asked.port(0));
    });
    asked.stop();
}
