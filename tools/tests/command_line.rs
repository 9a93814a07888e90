//! The binary as a new user meets it: what it says, and its exit codes, when something about its start or its end is wrong.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};

use milena_engine::record_batch::{Headers, Record, RecordBatchBuilder};
use milena_engine::units::{Offset, TimestampMs};

const BINARY: &str = env!("CARGO_BIN_EXE_milena");

/// A directory of its own, removed when dropped.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("milena-command-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a directory for temporary files");
        Folder(path)
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // A test may have removed it.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A broker that lets clients in; killed when dropped.
struct Running {
    child: Child,
    log: BufReader<ChildStdout>,
}

impl Running {
    fn start(data: &Path, further: &[&str]) -> Running {
        let mut command = start_command(data, "0", further);
        let mut child = command.stdout(Stdio::piped()).spawn().expect("the binary runs");
        let log = BufReader::new(child.stdout.take().expect("its output is piped"));
        let mut running = Running { child, log };
        running.wait_for_line("milena is ready");
        running
    }

    fn wait_for_line(&mut self, part: &str) -> String {
        let mut seen = String::new();
        loop {
            let began = seen.len();
            assert_ne!(
                self.log.read_line(&mut seen).expect("lines of text"),
                0,
                "no {part:?} in: {seen}"
            );
            if seen[began..].contains(part) {
                return seen[began..].to_owned();
            }
        }
    }

    fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args(["-s", name, &pid]).status();
        assert!(sent.is_ok_and(|status| status.success()), "kill -s {name} {pid}");
    }

    fn exit_code(&mut self) -> Option<i32> {
        self.child.wait().expect("a child that can be waited for").code()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Refused where it has ended, which most have.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn start_command(data: &Path, port: &str, further: &[&str]) -> Command {
    let mut command = Command::new(BINARY);
    command.arg("start");
    for setting in [
        format!("log.dirs={}", data.display()),
        format!("listeners=PLAINTEXT://127.0.0.1:{port}"),
    ] {
        command.args(["--override", &setting]);
    }
    for setting in further {
        command.args(["--override", setting]);
    }
    command
}

/// Whether this process, and so what it starts, ignores SIGHUP.
fn hangups_are_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .is_some_and(|mask| mask & 1 != 0)
}

/// Exit code, and all that it said.
fn end_of(output: Output) -> (Option<i32>, String) {
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&said).into_owned())
}

/// A command that asks the cluster at an address, with a pipe in place of a terminal.
fn ask(address: &str, words: &[&str]) -> Command {
    let mut command = Command::new(BINARY);
    command.args(words).env_clear().stdin(Stdio::null());
    command.env("MILENA_BOOTSTRAP_SERVER", address);
    command
}

/// All commands that ask a cluster, with what they need.
const ASKING: [&[&str]; 16] = [
    &["brokers"],
    &["offsets"],
    &["logdirs"],
    &["topics", "list"],
    &["topics", "describe"],
    &["topics", "create", "t"],
    &["topics", "alter", "t", "--partitions", "2"],
    &["topics", "delete", "t", "--yes"],
    &["topics", "delete-records", "t", "--before", "1", "--yes"],
    &["configs", "describe", "--broker", "0"],
    &["configs", "set", "--topic", "t", "a=b"],
    &["groups", "list"],
    &["groups", "describe", "g"],
    &["groups", "delete", "g", "--yes"],
    &["groups", "delete-offsets", "g", "--topic", "t", "--yes"],
    &["groups", "reset", "g", "--topic", "t", "--to-latest"],
];

#[track_caller]
fn expect_end(command: &mut Command, code: i32, parts: &[&str]) {
    let (found, said) = end_of(command.output().expect("the binary runs"));
    assert_eq!(found, Some(code), "{said}");
    for part in parts {
        assert!(said.contains(part), "no {part:?} in: {said}");
    }
    assert!(!said.contains("panicked"), "{said}");
}

#[test]
fn a_wrong_command_line_or_file_is_exit_code_1_and_says_what_was_meant() {
    let folder = Folder::new("usage");
    let binary = folder.at("binary.properties");
    std::fs::write(&binary, b"a=b\n\0\x01").unwrap();
    let wrong = folder.at("wrong.properties");
    std::fs::write(&wrong, "broker.id=x\nnum.partitions=0\n").unwrap();
    let cases: &[(&[&str], &[&str])] = &[
        (&[], &["Usage:", "start"]),
        (&["strat"], &["'strat'", "'start'"]),
        (&["start", "--overide", "a=b"], &["'--override'"]),
        (&["start", "--override", "a"], &["expected key=value"]),
        (
            &["start", "/nowhere/s.properties"],
            &["/nowhere/s.properties: No such file"],
        ),
        (&["start", "/"], &["cannot read /: Is a directory"]),
        (&["start", "/dev/zero"], &["expected a file of settings"]),
        (
            &["start", binary.to_str().unwrap()],
            &["binary.properties:2: found a NUL byte"],
        ),
        (
            &["start", wrong.to_str().unwrap()],
            &[
                "wrong.properties:1: Invalid value x",
                "wrong.properties:2: Invalid value 0",
            ],
        ),
        (&["start", "--import", "/"], &["--import: /: Is a directory"]),
    ];
    for (arguments, parts) in cases {
        expect_end(Command::new(BINARY).args(*arguments).env_clear(), 1, parts);
    }
}

#[test]
fn a_taken_port_is_exit_code_2_and_nothing_is_made() {
    let folder = Folder::new("port");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let data = folder.at("data");
    let parts = ["Address already in use", "stop that, or choose another port"];
    expect_end(&mut start_command(&data, &port, &[]), 2, &parts);
    assert!(!data.exists());
}

#[test]
fn a_directory_that_is_in_use_another_brokers_or_a_file_is_exit_code_2() {
    let folder = Folder::new("directory");
    let data = folder.at("data");
    let mut running = Running::start(&data, &[]);
    expect_end(
        &mut start_command(&data, "0", &[]),
        2,
        &["Failed to acquire lock on file .lock"],
    );
    running.signal("TERM");
    running.signal("TERM");
    assert_eq!(running.exit_code(), Some(0));
    let parts = ["Configured broker.id 7 doesn't match stored broker.id 0"];
    expect_end(&mut start_command(&data, "0", &["broker.id=7"]), 2, &parts);
    let file = folder.at("file");
    std::fs::write(&file, "").unwrap();
    expect_end(&mut start_command(&file, "0", &[]), 2, &["is not a directory"]);
}

#[test]
fn every_signal_that_stops_a_broker_is_exit_code_0_and_the_next_start_recovers_nothing() {
    let folder = Folder::new("signals");
    let data = folder.at("data");
    let signals = ["TERM", "INT", "HUP"];
    // Under `nohup` a hangup stops nobody.
    for signal in &signals[..if hangups_are_ignored() { 2 } else { 3 }] {
        let mut running = Running::start(&data, &[]);
        running.signal(signal);
        running.wait_for_line("shut down completed");
        assert_eq!(running.exit_code(), Some(0), "{signal}");
        assert!(data.join(".kafka_cleanshutdown").exists(), "{signal}");
    }
}

#[test]
fn a_log_directory_that_is_gone_when_a_signal_comes_is_exit_code_3() {
    let folder = Folder::new("gone");
    let data = folder.at("data");
    let mut running = Running::start(&data, &[]);
    std::fs::remove_dir_all(&data).unwrap();
    running.signal("TERM");
    let reason = running.wait_for_line("stopped");
    assert!(reason.contains("data was not left clean"), "{reason}");
    assert_eq!(running.exit_code(), Some(3));
}

#[test]
fn under_the_name_of_kafkas_script_it_dumps_a_log_and_goes_on_behind_damage_with_exit_code_3() {
    let folder = Folder::new("dump");
    let script = folder.at("kafka-dump-log.sh");
    std::os::unix::fs::symlink(BINARY, &script).unwrap();
    let log = folder.at("00000000000000000000.log");
    let record = |offset: i64| {
        let mut builder = RecordBatchBuilder::new();
        let value = Some(&b"hello"[..]);
        let fields = Record {
            offset: Offset(offset),
            timestamp: TimestampMs(7),
            key: None,
            value,
            headers: Headers::default(),
        };
        builder.append_record(Offset(offset), &fields).unwrap();
        builder.build()
    };
    let dump = || {
        let mut command = Command::new(&script);
        command.arg("--print-data-log").arg("--files").arg(&log);
        command
    };
    let first = [
        "Starting offset: 0\n",
        "lastOffset: 0 count: 1 ",
        "| offset: 0 CreateTime: 7 keysize: -1 valuesize: 5 sequence: -1 headerKeys: [] payload: hello\n",
    ];
    std::fs::write(&log, record(0)).unwrap();
    expect_end(&mut dump(), 0, &first);
    std::fs::write(&log, [record(0), vec![0; 40], record(1)].concat()).unwrap();
    let behind = [
        first[2],
        "found a length of 0, expected at least 14",
        "| offset: 1 CreateTime: 7 ",
    ];
    expect_end(&mut dump(), 3, &behind);
}

#[test]
fn every_command_says_that_nobody_listens_and_ends_with_code_2() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap().to_string();
    drop(free);
    for words in ASKING {
        let parts = [address.as_str(), "cannot connect", "`milena start` starts one"];
        expect_end(&mut ask(&address, words), 2, &parts);
    }
    let both = format!("{address},127.0.0.1:1");
    expect_end(
        &mut ask(&both, &["brokers"]),
        2,
        &["no broker can be reached", &address, "127.0.0.1:1: "],
    );
}

#[test]
fn a_wrong_address_or_time_is_exit_code_1_and_names_its_place() {
    expect_end(
        &mut ask("a:0", &["brokers"]),
        1,
        &["MILENA_BOOTSTRAP_SERVER: found \"a:0\", expected host:port"],
    );
    let mut command = ask("", &["brokers"]);
    expect_end(
        command.env("KAFKA_BOOTSTRAP_SERVERS", "b:x"),
        1,
        &["KAFKA_BOOTSTRAP_SERVERS: found \"b:x\""],
    );
    let words = ["topics", "list", "-b", "SASL_SSL://h:9093"];
    expect_end(
        &mut ask("a:0", &words),
        1,
        &["--bootstrap-server: found SASL_SSL"],
    );
    expect_end(
        &mut ask("a:1", &["offsets", "--time", "soon"]),
        1,
        &["expected earliest, latest"],
    );
    expect_end(
        &mut ask("a:1", &["brokers", "--timeout", "0"]),
        1,
        &["expected a time"],
    );
    expect_end(&mut ask("a:1", &["groups", "reset", "g"]), 1, &["--to-earliest"]);
}

#[test]
fn a_listener_that_wants_tls_is_named() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let serving = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut first = [0; 4];
        stream.read_exact(&mut first).unwrap();
        // The alert of TLS for what is no greeting of it.
        stream.write_all(b"\x15\x03\x03\x00\x02\x02\x50").unwrap();
        // Until it hangs up, so that nothing is reset on the way.
        std::io::copy(&mut stream, &mut std::io::sink()).unwrap();
    });
    expect_end(
        &mut ask(&address, &["topics", "list"]),
        2,
        &["found TLS", "encrypted"],
    );
    serving.join().unwrap();
}

#[test]
fn ctrl_c_ends_a_command_that_waits_with_code_130() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let mut child = ask(&address, &["brokers"])
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary runs");
    // Once it has asked, it waits for an answer that does not come.
    let (mut stream, _) = listener.accept().unwrap();
    stream.read_exact(&mut [0; 4]).unwrap();
    let sent = Command::new("kill")
        .args(["-s", "INT", &child.id().to_string()])
        .status();
    assert!(sent.is_ok_and(|status| status.success()));
    let status = child.wait().expect("a child that can be waited for");
    assert_eq!(status.code(), Some(130));
}

#[test]
fn what_was_done_is_on_standard_output_and_what_was_refused_is_not() {
    let folder = Folder::new("topics");
    let data = folder.at("data");
    let mut command = start_command(&data, "0", &[]);
    let mut child = command.stdout(Stdio::piped()).spawn().expect("the binary runs");
    let log = BufReader::new(child.stdout.take().expect("its output is piped"));
    let mut running = Running { child, log };
    let ready = running.wait_for_line("milena is ready");
    let address = ready
        .split("PLAINTEXT://")
        .nth(1)
        .and_then(|rest| rest.split(' ').next())
        .expect("where it listens");
    let run = |words: &[&str]| {
        let output = ask(address, words).output().expect("the binary runs");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
        (output.status.code(), text(output.stdout), text(output.stderr))
    };
    let created = run(&["topics", "create", "orders", "-p", "2", "--json"]);
    let object = "{\"topic\":\"orders\",\"done\":\"created\",\"partitions\":2,\"replication_factor\":1}\n";
    assert_eq!(created, (Some(0), object.to_owned(), String::new()));
    // One is refused, the other is done and told.
    let (code, done, refused) = run(&["topics", "create", "orders", "audit"]);
    assert_eq!(
        (code, done.as_str()),
        (Some(3), "created audit: partitions 1, replication factor 1\n")
    );
    assert!(
        refused.starts_with("milena: topic orders: ") && refused.lines().count() == 1,
        "{refused}"
    );
    let listed = run(&["topics", "list", "--names"]);
    assert_eq!(listed, (Some(0), "audit\norders\n".to_owned(), String::new()));
    let (code, done, refused) = run(&["topics", "describe", "ordesr"]);
    assert_eq!((code, done.as_str()), (Some(3), ""));
    assert_eq!(
        refused,
        "milena: there is no topic ordesr; did you mean orders?\n"
    );
    // Nobody can be asked.
    let (code, _, refused) = run(&["topics", "delete", "*"]);
    assert_eq!(code, Some(1));
    assert!(
        refused.contains("Delete 2 topics with all records: audit, orders?"),
        "{refused}"
    );
    assert!(refused.contains("Add --yes"), "{refused}");
    let (code, _, refused) = run(&["groups", "describe", "nobody"]);
    assert_eq!(
        (code, refused.as_str()),
        (Some(3), "milena: there is no group nobody, nor any other\n")
    );
}

#[test]
fn a_reader_that_leaves_ends_a_command_quietly() {
    let mut command = Command::new(BINARY);
    command
        .args(["completions", "bash"])
        .env_clear()
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().expect("the binary runs");
    drop(child.stdout.take());
    let (code, said) = end_of(child.wait_with_output().expect("it ends"));
    assert_eq!((code, said.as_str()), (Some(0), ""));
}

#[test]
fn every_command_explains_itself_by_examples() {
    let help = |words: &[&str]| {
        let mut command = Command::new(BINARY);
        let output = command
            .args(words)
            .arg("--help")
            .env_clear()
            .output()
            .expect("the binary runs");
        assert_eq!(output.status.code(), Some(0), "{words:?}");
        String::from_utf8(output.stdout).expect("text")
    };
    for words in ASKING {
        let words: Vec<&str> = words
            .iter()
            .copied()
            .take_while(|word| word.len() > 1 && !word.starts_with('-'))
            .collect();
        let example = format!("\n  milena {}", words.join(" "));
        let text = help(&words);
        assert!(
            text.contains("\nExamples:\n") && text.contains(&example),
            "{words:?}: {text}"
        );
        assert!(text.contains("--bootstrap-server"), "{words:?}: {text}");
    }
}

#[test]
fn a_manual_page_is_written_for_every_command() {
    let folder = Folder::new("man");
    let pages = folder.at("man1");
    expect_end(Command::new(BINARY).arg("man").arg(&pages).env_clear(), 0, &[]);
    for name in [
        "milena",
        "milena-topics-create",
        "milena-groups-reset",
        "milena-log-dump",
    ] {
        let page = std::fs::read_to_string(pages.join(format!("{name}.1"))).unwrap();
        assert!(page.contains(".SH NAME"), "{page}");
    }
    expect_end(
        Command::new(BINARY).args(["man", "/proc/nowhere"]).env_clear(),
        3,
        &["/proc/nowhere: "],
    );
}
