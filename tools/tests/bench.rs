//! `milena bench` as a user runs it, before its own null server: every workload to its end, results in all forms, and what
//! it says when something is wrong.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

const BINARY: &str = env!("CARGO_BIN_EXE_milena");

/// A null server; killed when dropped.
struct NullServer {
    child: Child,
    address: String,
}

impl NullServer {
    fn start() -> NullServer {
        let mut child = Command::new(BINARY)
            .args(["bench", "null-server", "--port", "0"])
            .stdout(Stdio::piped())
            .spawn()
            .expect("the binary runs");
        let mut line = String::new();
        let out = child.stdout.take().expect("its output is piped");
        BufReader::new(out).read_line(&mut line).expect("a line of text");
        let address = line
            .trim()
            .strip_prefix("listening on ")
            .expect("its address")
            .to_owned();
        NullServer { child, address }
    }

    fn bench(&self, words: &str) -> Output {
        bench(&format!("{words} --bootstrap-server {}", self.address))
    }
}

impl Drop for NullServer {
    fn drop(&mut self) {
        // Refused where it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn interrupt(child: &Child) {
    let sent = Command::new("kill")
        .args(["-s", "INT", &child.id().to_string()])
        .status();
    assert!(sent.is_ok_and(|sent| sent.success()));
}

/// A directory of its own, removed when dropped.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("milena-bench-test-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a directory for temporary files");
        Folder(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // A test may have removed it.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn bench(words: &str) -> Output {
    let words = words.split(' ').filter(|word| !word.is_empty());
    let run = Command::new(BINARY)
        .arg("bench")
        .args(words)
        .env_remove("MILENA_BOOTSTRAP_SERVER")
        .output();
    run.expect("the binary runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The results that stand on standard output.
fn results(output: &Output) -> Value {
    assert!(output.status.success(), "{}", text(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("results in JSON")
}

#[test]
fn every_workload_moves_the_records_that_were_asked_for() {
    let server = NullServer::start();
    for (words, produced, consumed) in [
        ("produce --records 2000 --producers 3 --partitions 2", 2000, 0),
        ("produce --records 500 --acks 0 --batch-records 7", 500, 0),
        (
            "produce --records 500 --acks all --idempotence --codec lz4 --keys 10",
            500,
            0,
        ),
        (
            "produce --records 300 --rate 3000 --linger 2ms --topics 2",
            300,
            0,
        ),
        (
            "consume --records 3000 --consumers 2 --partitions 2 --fan-out 2",
            0,
            6000,
        ),
        ("e2e --records 400 --rate 4000 --fan-out 2", 400, 800),
    ] {
        let results = results(&server.bench(&format!("{words} --warm-up 50ms --json -")));
        assert_eq!(results["schema"], "milena-bench/1");
        let run = &results["runs"][0];
        let records = |part: &str| run[part]["records"].as_u64().unwrap_or(0);
        assert_eq!(
            (records("produced"), records("consumed")),
            (produced, consumed),
            "{words}"
        );
        assert!(
            run["generator"]["us_per_record"]
                .as_f64()
                .is_some_and(|us| us > 0.0),
            "{words}"
        );
        let latency = |kind: &str| run[kind]["count"].as_u64().unwrap_or(0);
        assert_eq!(latency("produce_latency"), produced, "{words}");
        if words.starts_with("e2e") {
            assert_eq!(latency("end_to_end_latency"), consumed, "{words}");
        }
    }
}

#[test]
fn readers_of_older_records_read_beside_the_tail() {
    let server = NullServer::start();
    let words = "mixed --rate 2000 --duration 300ms --backlog 5000 --warm-up 0 --json -";
    let results = results(&server.bench(words));
    let run = &results["runs"][0];
    let produced = run["produced"]["records"].as_u64().expect("a count");
    assert_eq!(produced, 600);
    assert_eq!(run["end_to_end_latency"]["count"], 600);
    assert!(
        run["consumed"]["records"]
            .as_u64()
            .is_some_and(|consumed| consumed > produced)
    );
}

#[test]
fn a_reader_of_nothing_asks_for_nothing() {
    let server = NullServer::start();
    let words = "consume --records 1 --partitions 2 --consumers 2 --duration 200ms --warm-up 0 --json -";
    let results = results(&server.bench(words));
    let consumed = &results["runs"][0]["consumed"];
    // The one record, again and again; the other partition has none.
    assert_eq!(consumed["requests"], consumed["records"], "{consumed}");
}

#[test]
fn a_schedule_is_kept_and_seconds_are_told() {
    let server = NullServer::start();
    let results = results(&server.bench("produce --rate 1000 --duration 1200ms --warm-up 0 --json -"));
    let run = &results["runs"][0];
    assert_eq!(run["produced"]["records"], 1200);
    assert_eq!(run["schedule"]["unsent_records"], 0);
    assert!(
        run["produced"]["seconds"]
            .as_f64()
            .is_some_and(|seconds| seconds > 1.1)
    );
    let seconds = run["seconds"].as_array().expect("a list");
    let sum: u64 = seconds
        .iter()
        .filter_map(|second| second["produced_records"].as_u64())
        .sum();
    assert_eq!((seconds.len(), sum), (2, 1200));
}

#[test]
fn a_schedule_that_is_too_fast_ends_near_its_time_and_is_told() {
    let server = NullServer::start();
    let began = Instant::now();
    let words = "produce --rate 500000000 --record-size 100 --batch-records 1 --duration 500ms --warm-up 0";
    let output = server.bench(&format!("{words} --json -"));
    // A second of grace, and what this machine needs besides; all of it would take minutes.
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    assert!(text(&output.stderr).contains("SCHEDULE NOT KEPT: 500,000,000 records/s asked for"));
    let results = results(&output);
    let run = &results["runs"][0];
    let schedule = &run["schedule"];
    assert_eq!(
        (&schedule["is_kept"], &schedule["asked_per_s"]),
        (&Value::from(false), &Value::from(5e8))
    );
    assert!(
        schedule["behind_s"].as_f64().is_some_and(|behind| behind > 0.5),
        "{schedule}"
    );
    let count = |value: &Value| value.as_u64().expect("a count");
    let all = count(&run["produced"]["records"]) + count(&schedule["unsent_records"]);
    assert_eq!(all, 250_000_000);
    assert!(text(&server.bench(words).stdout).contains("  SCHEDULE NOT KEPT: "));
}

#[test]
fn scenarios_of_a_file_are_run_and_drawn() {
    let (server, folder) = (NullServer::start(), Folder::new("file"));
    let (file, json, page) = (
        folder.0.join("s.toml"),
        folder.0.join("r.json"),
        folder.0.join("p.html"),
    );
    let scenario = |name: &str, workload: &str| {
        format!("[[scenario]]\nname = '{name}'\nworkload = '{workload}'\nrecords = 1000\nwarm-up = 0\n")
    };
    std::fs::write(
        &file,
        scenario("first", "produce") + &scenario("second", "consume"),
    )
    .expect("a file");
    let words = format!(
        "run {} --record-size 10 --json {} --hgrm {}",
        file.display(),
        json.display(),
        folder.0.join("hgrm").display()
    );
    let output = server.bench(&words);
    let told = text(&output.stdout);
    assert!(output.status.success(), "{}", text(&output.stderr));
    for part in ["first\n", "second\n", "1,000 records", "p99.99", "generator"] {
        assert!(told.contains(part), "{part}\n{told}");
    }
    let hgrm = std::fs::read_to_string(folder.0.join("hgrm/first-produce.hgrm")).expect("a percentile file");
    assert!(hgrm.contains("1/(1-Percentile)") && hgrm.contains("#[Max"));
    let only = server.bench(&format!("run {} --only second", file.display()));
    assert!(
        text(&only.stdout).starts_with("second\n"),
        "{}",
        text(&only.stdout)
    );
    let drawn = bench(&format!(
        "plot mine={} --output {}",
        json.display(),
        page.display()
    ));
    assert!(drawn.status.success(), "{}", text(&drawn.stderr));
    let page = std::fs::read_to_string(page).expect("a page");
    assert!(page.contains("<svg") && page.contains("mine") && page.ends_with("</html>\n"));
}

#[test]
fn what_is_wrong_is_said_and_told_by_the_exit_code() {
    let server = NullServer::start();
    let nobody = "produce --bootstrap-server 127.0.0.1:1 --duration 1s";
    for (output, code, expected) in [
        (bench("run S99"), 1, "there is no scenario \"S99\""),
        (
            bench("produce --linger 5ms"),
            1,
            "linger: has no effect on closed loop",
        ),
        (bench("produce --record-size 5parsecs"), 1, "such as 64KiB"),
        (bench("plot /nowhere.json"), 1, "/nowhere.json: "),
        (bench("compare --subject milena S2r"), 1, "expected at least two"),
        (bench(nobody), 2, "127.0.0.1:1: cannot connect"),
        // What a null server keeps is not what was written.
        (
            server.bench("produce --records 100 --batch-records 10 --check --warm-up 0"),
            3,
            "of another content",
        ),
    ] {
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{said}");
        assert!(said.contains(expected), "{expected}\n{said}");
        assert!(output.stdout.is_empty(), "{}", text(&output.stdout));
    }
}

#[test]
fn an_interrupted_bench_stops_at_once_and_tells_what_it_has_measured() {
    let server = NullServer::start();
    let folder = Folder::new("interrupted");
    let json = folder.0.join("r.json");
    let child = Command::new(BINARY)
        .args([
            "bench",
            "e2e",
            "--rate",
            "100",
            "--duration",
            "1h",
            "--warm-up",
            "0",
        ])
        .args(["-b", &server.address, "--json"])
        .arg(&json)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary runs");
    // Its thread sleeps and wakes for every record: after so many wake-ups some have gone round.
    let wake_ups = || {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", child.id())).expect("a child that runs");
        let read = |path: PathBuf| std::fs::read_to_string(path).unwrap_or_default();
        let statuses = tasks.flatten().map(|task| read(task.path().join("status")));
        let load = statuses.into_iter().find(|status| status.contains("load-0"))?;
        let line = load
            .lines()
            .find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))?;
        line.trim().parse::<u64>().ok()
    };
    let ends = Instant::now() + Duration::from_secs(20);
    while wake_ups().is_none_or(|count| count < 50) {
        assert!(Instant::now() < ends, "no load within 20 s");
        thread::yield_now();
    }
    interrupt(&child);
    let output = child.wait_with_output().expect("a child that can be waited for");
    let (told, said) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(130), "{said}");
    assert!(
        told.contains("INTERRUPTED") && told.contains("  produced "),
        "{told}"
    );
    assert!(said.contains("interrupted"), "{said}");
    let json: Value = serde_json::from_slice(&std::fs::read(json).expect("a file")).expect("a document");
    let run = &json["runs"][0];
    assert_eq!(run["interrupted"], true);
    assert!(
        run["produced"]["records"]
            .as_u64()
            .is_some_and(|records| records > 0),
        "{run}"
    );
}

#[test]
fn a_signal_ends_also_the_wait_for_a_broker_that_does_not_answer() {
    // It takes connections and says nothing.
    let mute = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let folder = Folder::new("mute");
    let json = folder.0.join("r.json");
    let child = Command::new(BINARY)
        .args(["bench", "produce", "-b"])
        .arg(mute.local_addr().expect("its address").to_string())
        .arg("--json")
        .arg(&json)
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary runs");
    let began = Instant::now();
    // The file is made once the handlers stand.
    while !json.exists() {
        assert!(began.elapsed() < Duration::from_secs(20), "no file within 20 s");
        thread::yield_now();
    }
    interrupt(&child);
    let output = child.wait_with_output().expect("a child that can be waited for");
    assert_eq!(output.status.code(), Some(130), "{}", text(&output.stderr));
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
}

#[test]
fn open_files_are_counted_before_anything_begins() {
    let server = NullServer::start();
    let run = |limit: &str, producers: u32| {
        let words = format!(
            "produce --records 500 --warm-up 0 --producers {producers} -b {}",
            server.address
        );
        let script = format!("ulimit {limit}; exec {BINARY} bench {words}");
        Command::new("sh")
            .args(["-c", &script])
            .output()
            .expect("a shell")
    };
    let refused = run("-n 100", 100);
    let said = text(&refused.stderr);
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(
        said.contains("needs 240 open files, of which the system allows 100"),
        "{said}"
    );
    let raised = run("-S -n 100", 100);
    assert!(raised.status.success(), "{}", text(&raised.stderr));
}

#[test]
fn the_shipped_scenarios_are_listed_and_shown() {
    let list = text(&bench("scenarios").stdout);
    assert!(
        list.lines().any(|line| line.starts_with("S2r "))
            && list.lines().any(|line| line.starts_with("B21 "))
    );
    let shown = text(&bench("scenarios B06").stdout);
    assert!(shown.contains("compression.type=zstd"), "{shown}");
}
