//! `--follow` tells what is appended, goes on in the next segment, and copes with truncation and deletion.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, ChildStderr, ChildStdout, Command, Stdio};

use serde_json::Value;

use crate::fixture::{BINARY, Folder, PLAIN, append, batch, rec, segment};

/// Ended when dropped.
struct Following {
    child: Child,
    out: BufReader<ChildStdout>,
    err: BufReader<ChildStderr>,
}

impl Following {
    fn start(arguments: &[&str], path: &Path) -> Following {
        let mut command = Command::new(BINARY);
        command
            .args(["log-dump", "-f", "--json", "--deep-iteration"])
            .args(arguments)
            .arg(path);
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary runs");
        let out = BufReader::new(child.stdout.take().unwrap());
        let err = BufReader::new(child.stderr.take().unwrap());
        Following { child, out, err }
    }

    /// The offsets of the next records, and the files that they are in.
    fn offsets(&mut self, count: usize) -> Vec<(String, i64)> {
        let mut found = Vec::new();
        while found.len() < count {
            let mut line = String::new();
            assert_ne!(self.out.read_line(&mut line).unwrap(), 0, "ended after {found:?}");
            let object: Value = serde_json::from_str(&line).unwrap();
            if object["type"] == "record" {
                let file = object["file"].as_str().unwrap().rsplit('/').next().unwrap();
                found.push((
                    file.trim_start_matches('0').to_owned(),
                    object["offset"].as_i64().unwrap(),
                ));
            }
        }
        found
    }

    fn said(&mut self, part: &str) {
        let mut said = String::new();
        while !said.contains(part) {
            assert_ne!(self.err.read_line(&mut said).unwrap(), 0, "no {part:?} in {said}");
        }
    }

    /// After a signal: what was printed further, and the exit code.
    fn end(mut self, signal: &str) -> (String, Option<i32>) {
        let pid = self.child.id().to_string();
        assert!(
            Command::new("kill")
                .args(["-s", signal, &pid])
                .status()
                .unwrap()
                .success()
        );
        let mut rest = String::new();
        self.out.read_to_string(&mut rest).unwrap();
        (rest, self.child.wait().unwrap().code())
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        // Refused where it has ended, which most have.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn one(offset: i64) -> Vec<u8> {
    batch(PLAIN, &[rec(offset, Some("k"), Some("v"))])
}

fn at(file: &str, offsets: &[i64]) -> Vec<(String, i64)> {
    offsets.iter().map(|offset| (file.to_owned(), *offset)).collect()
}

#[test]
fn what_is_appended_is_told_once_it_is_whole_and_in_the_next_segment_too() {
    let folder = Folder::new("appended");
    let partition = folder.at("t-0");
    let log = segment(&partition, 0, &[one(0), one(1)]);
    let mut following = Following::start(&["--from-offset", "1"], &partition);
    assert_eq!(following.offsets(1), at(".log", &[1]));
    let next = one(2);
    append(&log, &next[..30]);
    append(&log, &[&next[30..], &one(3)].concat());
    assert_eq!(following.offsets(2), at(".log", &[2, 3]));
    // Both are appended to before anybody looks.
    append(&log, &one(4));
    let rolled = segment(&partition, 5, &[one(5)]);
    assert_eq!(
        following.offsets(2),
        [at(".log", &[4]), at("5.log", &[5])].concat()
    );
    append(&rolled, &one(6));
    assert_eq!(following.offsets(1), at("5.log", &[6]));
    assert_eq!(following.end("INT"), (String::new(), Some(0)));
}

#[test]
fn what_was_there_before_is_not_told_without_a_filter_and_a_new_partition_is_told_whole() {
    let folder = Folder::new("before");
    let log = segment(&folder.at("t-0"), 0, &[one(0), one(1)]);
    // The last that it looks at when it begins.
    std::fs::create_dir(folder.at("z-0")).unwrap();
    let mut following = Following::start(&[], &folder.0);
    following.said("z-0: waiting for a segment");
    segment(&folder.at("u-0"), 0, &[one(0)]);
    following.offsets(1);
    append(&log, &one(2));
    assert_eq!(following.offsets(1), at(".log", &[2]));
    assert_eq!(following.end("TERM"), (String::new(), Some(0)));
}

#[test]
fn after_a_truncation_it_goes_on_behind_what_is_left() {
    let folder = Folder::new("truncated");
    let partition = folder.at("t-0");
    let log = segment(&partition, 0, &[one(0), one(1), one(2)]);
    let mut following = Following::start(&["--from-offset", "0"], &partition);
    assert_eq!(following.offsets(3), at(".log", &[0, 1, 2]));
    let size = one(0).len() as u64;
    let file = std::fs::OpenOptions::new().write(true).open(&log).unwrap();
    file.set_len(size).unwrap();
    following.said("was truncated; going on at byte");
    append(&log, &batch(PLAIN, &[rec(1, Some("k"), Some("another"))]));
    assert_eq!(following.offsets(1), at(".log", &[1]));
    // Cut and written anew to the same size between two looks, or in two of them.
    file.set_len(size).unwrap();
    append(&log, &batch(PLAIN, &[rec(1, Some("k"), Some("a third"))]));
    following.said("was truncated; going on at byte");
    assert_eq!(following.offsets(1), at(".log", &[1]));
    assert_eq!(following.end("INT").1, Some(0));
}

#[test]
fn a_partition_that_is_deleted_is_waited_for() {
    let folder = Folder::new("deleted");
    let partition = folder.at("t-0");
    segment(&partition, 0, &[one(0)]);
    let mut following = Following::start(&["--from-offset", "0"], &partition);
    assert_eq!(following.offsets(1), at(".log", &[0]));
    // As a broker does it, so that no half of it is seen.
    std::fs::rename(&partition, folder.at("t-0.0f-delete")).unwrap();
    following.said("was deleted; waiting for it");
    segment(&folder.at("new"), 0, &[one(0), one(1)]);
    std::fs::rename(folder.at("new"), &partition).unwrap();
    assert_eq!(following.offsets(2), at(".log", &[0, 1]));
    assert_eq!(following.end("INT").1, Some(0));
}

#[test]
fn a_partition_that_is_made_anew_between_two_looks_is_told_whole() {
    let folder = Folder::new("anew");
    let partition = folder.at("t-0");
    segment(&partition, 0, &[one(0), one(1)]);
    segment(&partition, 2, &[one(2)]);
    let mut following = Following::start(&["--from-offset", "0"], &partition);
    assert_eq!(
        following.offsets(3),
        [at(".log", &[0, 1]), at("2.log", &[2])].concat()
    );
    // With fewer segments, of which the first has a name that was there, and with the same.
    for number in 0..2 {
        segment(&folder.at("new"), 0, &[one(0), one(1), one(2), one(3)]);
        std::fs::rename(&partition, folder.at(&format!("t-0.{number}-delete"))).unwrap();
        std::fs::rename(folder.at("new"), &partition).unwrap();
        assert_eq!(following.offsets(4), at(".log", &[0, 1, 2, 3]));
    }
    assert_eq!(following.end("INT").1, Some(0));
}

#[test]
fn it_ends_behind_the_last_offset_or_the_last_record_that_is_asked_for() {
    let folder = Folder::new("enough");
    let partition = folder.at("t-0");
    let log = segment(&partition, 0, &[one(0)]);
    for arguments in [
        ["--from-offset", "0", "--limit", "2"],
        ["--from-offset", "0", "--to-offset", "1"],
    ] {
        let mut following = Following::start(&arguments, &partition);
        assert_eq!(following.offsets(1), at(".log", &[0]));
        append(&log, &one(1));
        assert_eq!(following.offsets(1), at(".log", &[1]));
        assert_eq!(following.child.wait().unwrap().code(), Some(0));
        std::fs::OpenOptions::new()
            .write(true)
            .open(&log)
            .unwrap()
            .set_len(one(0).len() as u64)
            .unwrap();
    }
}
