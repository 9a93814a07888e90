//! The binary as a new user meets it: what it says, and its exit codes, when something about its start or its end is wrong.

use std::io::{BufRead, BufReader};
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
