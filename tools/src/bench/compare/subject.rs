//! A broker under comparison: how it is started on an empty directory, when it is ready, and that it is ended.
//!
//! Each gets the settings of Kafka 2.7.2's own `server.properties`. Processes are the first of groups of their own and are
//! ended by that group, whatever ends the comparison: SIGTERM, and SIGKILL when that is not heard.

use std::fs::File;
use std::io;
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use milena_server::client::{Address, Client, ClientConfig};
use rustix::process::{Pid, Signal, kill_process_group};

use super::kafka;
use crate::bench::accounting::ProcessTree;
use crate::bench::error::BenchError;
use crate::bench::interrupt::Interrupt;
use crate::bench::load::connection_config;

/// A broker that is not ready by then does not start.
const READY: Duration = Duration::from_secs(120);
/// How long a broker has to end in good order.
const STOP: Duration = Duration::from_secs(30);

/// How a subject is started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Start {
    /// Words with placeholders.
    Command(Vec<String>),
    /// From these jars, with a ZooKeeper.
    Kafka(PathBuf),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SubjectPlan {
    pub(crate) name: String,
    pub(crate) start: Start,
}

impl SubjectPlan {
    /// Reads `milena`, `kafka`, or `name=command with {properties}`.
    ///
    /// # Errors
    /// Says what is wrong with the words.
    pub(crate) fn parse(text: &str, kafka: Option<&Path>) -> Result<SubjectPlan, BenchError> {
        let usage = |what: String| BenchError::Usage(format!("--subject: {what}"));
        let (name, start) = match text.split_once('=') {
            None if text == "milena" => {
                let own = std::env::current_exe().map_err(BenchError::system("the path of this program"))?;
                let words = [
                    own.display().to_string(),
                    "start".to_owned(),
                    "{properties}".to_owned(),
                ];
                (text, Start::Command(words.to_vec()))
            }
            None if text == "kafka" => (text, Start::Kafka(kafka::jars(kafka)?)),
            None => {
                return Err(usage(format!(
                    "found {text:?}, expected milena, kafka, or name=command"
                )));
            }
            Some((name, command)) => {
                let words: Vec<String> = command.split_whitespace().map(str::to_owned).collect();
                if words.is_empty() || name.trim().is_empty() {
                    return Err(usage(format!("found {text:?}, expected name=command")));
                }
                (name.trim(), Start::Command(words))
            }
        };
        Ok(SubjectPlan {
            name: name.to_owned(),
            start,
        })
    }

    fn needs_zookeeper(&self) -> bool {
        match &self.start {
            Start::Kafka(_) => true,
            Start::Command(words) => words.iter().any(|word| word.contains("{zookeeper}")),
        }
    }
}

/// A process with its log; dropping it ends it.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    fn start(words: &[String], log: &Path) -> Result<Process, BenchError> {
        let what = || words.join(" ");
        let out = File::options()
            .create(true)
            .append(true)
            .open(log)
            .map_err(BenchError::system(what()))?;
        let errors = out.try_clone().map_err(BenchError::system(what()))?;
        let child = Command::new(&words[0])
            .args(&words[1..])
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(errors)
            .process_group(0)
            .spawn()
            .map_err(BenchError::system(what()))?;
        let log = log.to_owned();
        Ok(Process { child, log })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// An error with the end of the log, when it has ended.
    fn check_alive(&mut self) -> Result<(), BenchError> {
        let Ok(Some(status)) = self.child.try_wait() else {
            return Ok(());
        };
        let log = std::fs::read(&self.log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().collect();
        let tail = lines[lines.len().saturating_sub(15)..].join("\n");
        Err(BenchError::Broker(format!(
            "the process ended with {status}:\n{tail}"
        )))
    }

    fn signal(&self, signal: Signal) {
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            // Who is gone already hears nothing.
            let _ = kill_process_group(pid, signal);
        }
    }

    /// Ends it in good order, or by force.
    fn stop(&mut self) {
        if matches!(self.child.try_wait(), Ok(Some(_))) {
            return;
        }
        self.signal(Signal::TERM);
        let began = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) {
            if began.elapsed() > STOP {
                self.signal(Signal::KILL);
                break;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        // Reaps it; there is nothing else to learn.
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A port that nobody listens on.
fn free_port() -> Result<u16, BenchError> {
    let port = TcpListener::bind(("127.0.0.1", 0)).and_then(|listener| Ok(listener.local_addr()?.port()));
    port.map_err(BenchError::system("a free port"))
}

/// A subject with its directory, running or not. Fields are dropped in order: the broker ends before its ZooKeeper.
#[derive(Debug)]
pub(crate) struct Subject {
    pub(crate) plan: SubjectPlan,
    broker: Option<(Process, ProcessTree)>,
    zookeeper: Option<Process>,
    home: PathBuf,
    port: u16,
    zookeeper_port: u16,
}

impl Subject {
    /// Prepares an empty directory below `work`. `port` is the first of two, or 0 for any.
    pub(crate) fn prepare(plan: SubjectPlan, work: &Path, port: u16) -> Result<Subject, BenchError> {
        let home = work.join(&plan.name);
        std::fs::create_dir_all(home.join("data")).map_err(BenchError::system(home.display().to_string()))?;
        let (port, zookeeper_port) = match port {
            0 => (free_port()?, free_port()?),
            port => (port, port + 1),
        };
        Ok(Subject {
            plan,
            broker: None,
            zookeeper: None,
            home,
            port,
            zookeeper_port,
        })
    }

    pub(crate) fn address(&self) -> Address {
        Address {
            host: "127.0.0.1".into(),
            port: self.port,
        }
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.home.join("data")
    }

    /// What the broker uses.
    ///
    /// # Errors
    /// It does not run any more.
    pub(crate) fn processes(&mut self) -> Result<&ProcessTree, BenchError> {
        match &mut self.broker {
            Some((process, tree)) => {
                process.check_alive()?;
                Ok(tree)
            }
            None => Err(BenchError::Broker(format!("{} does not run", self.plan.name))),
        }
    }

    fn properties(&self) -> String {
        let data = self.data();
        let mut text = format!(
            "broker.id=0\nlisteners=PLAINTEXT://127.0.0.1:{}\nnum.network.threads=3\nnum.io.threads=8\n\
             socket.send.buffer.bytes=102400\nsocket.receive.buffer.bytes=102400\n\
             socket.request.max.bytes=104857600\nlog.dirs={}\nnum.partitions=1\n\
             num.recovery.threads.per.data.dir=1\noffsets.topic.replication.factor=1\n\
             transaction.state.log.replication.factor=1\ntransaction.state.log.min.isr=1\n\
             log.retention.hours=168\nlog.segment.bytes=1073741824\nlog.retention.check.interval.ms=300000\n\
             log.segment.delete.delay.ms=1000\ngroup.initial.rebalance.delay.ms=0\n",
            self.port,
            data.display()
        );
        if self.plan.needs_zookeeper() {
            text += &format!(
                "zookeeper.connect=127.0.0.1:{}\nzookeeper.connection.timeout.ms=18000\n",
                self.zookeeper_port
            );
        }
        text
    }

    fn command(&self, properties: &Path) -> Result<Vec<String>, BenchError> {
        match &self.plan.start {
            Start::Kafka(jars) => kafka::broker(jars, &self.home, properties),
            Start::Command(words) => {
                let filled = |word: &String| {
                    word.replace("{properties}", &properties.display().to_string())
                        .replace("{port}", &self.port.to_string())
                        .replace("{data}", &self.data().display().to_string())
                        .replace("{id}", "0")
                        .replace("{zookeeper}", &format!("127.0.0.1:{}", self.zookeeper_port))
                };
                Ok(words.iter().map(filled).collect())
            }
        }
    }

    /// Starts the broker, and its ZooKeeper if that does not run yet, and waits until it answers.
    ///
    /// # Errors
    /// It ends, or is not ready in time.
    pub(crate) fn start(&mut self, interrupt: &Interrupt) -> Result<Duration, BenchError> {
        let named = |name: &str, error: BenchError| BenchError::Broker(format!("{name}: {error}"));
        if self.plan.needs_zookeeper() && self.zookeeper.is_none() {
            let started = self.start_zookeeper(interrupt);
            started.map_err(|error| named(&format!("{}'s ZooKeeper", self.plan.name), error))?;
        }
        let properties = self.home.join("server.properties");
        let what = properties.display().to_string();
        std::fs::write(&properties, self.properties()).map_err(BenchError::system(what))?;
        let words = self.command(&properties)?;
        let began = Instant::now();
        let process = Process::start(&words, &self.home.join("broker.log"))?;
        let tree = ProcessTree::of(process.pid());
        let (process, _) = self.broker.insert((process, tree));
        let address = Address {
            host: "127.0.0.1".into(),
            port: self.port,
        };
        let name = self.plan.name.clone();
        let ready = wait_until_ready(process, interrupt, || answers(&address));
        ready.map_err(|error| named(&name, error))?;
        Ok(began.elapsed())
    }

    fn start_zookeeper(&mut self, interrupt: &Interrupt) -> Result<(), BenchError> {
        let jars = match &self.plan.start {
            Start::Kafka(jars) => jars.clone(),
            Start::Command(_) => kafka::jars(None)?,
        };
        let words = kafka::zookeeper(&jars, &self.home, self.zookeeper_port)?;
        let process = Process::start(&words, &self.home.join("zookeeper.log"))?;
        let port = self.zookeeper_port;
        let process = self.zookeeper.insert(process);
        wait_until_ready(process, interrupt, || {
            std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
        })
    }
}

fn wait_until_ready(
    process: &mut Process,
    interrupt: &Interrupt,
    mut is_ready: impl FnMut() -> bool,
) -> Result<(), BenchError> {
    let began = Instant::now();
    while !is_ready() {
        process.check_alive()?;
        if began.elapsed() > READY {
            return Err(BenchError::Broker(format!(
                "not ready within {} s",
                READY.as_secs()
            )));
        }
        if !interrupt.sleep(Duration::from_millis(3)) {
            return Err(BenchError::Interrupted);
        }
    }
    Ok(())
}

/// Whether it names itself and a controller.
fn answers(address: &Address) -> bool {
    let attempt = || -> io::Result<bool> {
        // Cheaper than a client as long as nobody listens.
        drop(std::net::TcpStream::connect((&*address.host, address.port))?);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let config = ClientConfig {
            connection: milena_server::client::ConnectionConfig {
                request_timeout: Duration::from_secs(2),
                ..connection_config()
            },
            operation_timeout: Duration::from_secs(2),
        };
        let client = runtime.block_on(Client::connect(vec![address.clone()], config));
        Ok(client.is_ok_and(|client| {
            client.cluster().controller.is_some() && !client.cluster().brokers.is_empty()
        }))
    };
    attempt().unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_given_its_places() {
        let work = std::env::temp_dir().join(format!("milena-bench-subject-{}", std::process::id()));
        let plan =
            SubjectPlan::parse("x=serve --port {port} {properties} {data} {id} {zookeeper}", None).unwrap();
        assert!(plan.needs_zookeeper());
        let subject = Subject::prepare(plan, &work, 23_490).unwrap();
        let words = subject.command(Path::new("/p")).unwrap();
        std::fs::remove_dir_all(&work).unwrap();
        let data = work.join("x/data").display().to_string();
        assert_eq!(
            words,
            ["serve", "--port", "23490", "/p", &data, "0", "127.0.0.1:23491"]
        );
        assert!(
            subject
                .properties()
                .contains("zookeeper.connect=127.0.0.1:23491\n")
        );
    }

    #[test]
    fn words_that_are_no_subject_are_refused() {
        for text in ["redpanda", "=x", "name="] {
            let error = SubjectPlan::parse(text, None).unwrap_err().to_string();
            assert!(error.starts_with("--subject: found"), "{error}");
        }
        assert_eq!(SubjectPlan::parse("milena", None).unwrap().name, "milena");
    }

    #[test]
    fn what_was_started_is_ended_with_its_children_also_when_it_does_not_listen() {
        let log = std::env::temp_dir().join(format!("milena-bench-process-{}", std::process::id()));
        let words = ["sh", "-c", "echo started; sleep 1000 & wait"].map(str::to_owned);
        let process = Process::start(&words, &log).unwrap();
        let pid = process.pid();
        drop(process);
        std::fs::remove_file(&log).unwrap();
        assert!(!Path::new(&format!("/proc/{pid}")).exists());
    }

    #[test]
    fn a_process_that_ends_is_told_with_the_end_of_its_log() {
        let log = std::env::temp_dir().join(format!("milena-bench-ended-{}", std::process::id()));
        let words = ["sh", "-c", "echo the reason; exit 7"].map(str::to_owned);
        let mut process = Process::start(&words, &log).unwrap();
        let ready = wait_until_ready(&mut process, &Interrupt::default(), || false);
        std::fs::remove_file(&log).unwrap();
        let error = ready.unwrap_err().to_string();
        assert!(
            error.contains("exit status: 7") && error.contains("the reason"),
            "{error}"
        );
    }
}
