//! Damage has a file, a place, what was found and what was expected; nothing that a file states makes memory grow.

use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

use milena_engine::config::Codec;

use crate::fixture::{BINARY, Folder, Layout, PLAIN, batch, rec, run, segment};

#[test]
fn damage_is_an_object_with_its_place_and_what_was_found_in_place_of_what() {
    let folder = Folder::new("damage");
    let one = |offset| batch(PLAIN, &[rec(offset, None, Some("v"))]);
    let mut flipped = one(2);
    let last = flipped.len() - 2;
    flipped[last] ^= 1;
    let size = flipped.len() as u64;
    let log = segment(
        &folder.at("t-0"),
        0,
        &[one(0), one(1), flipped, vec![0; 40], one(3)],
    );
    let printed = run(&["--json", "--deep-iteration"], &[&log]);
    assert_eq!(printed.code, 3);
    let objects = printed.objects();
    let damages: Vec<_> = objects
        .iter()
        .filter(|object| object["type"] == "damage")
        .collect();
    assert_eq!(damages.len(), 2, "{damages:?}");
    assert_eq!(damages[0]["position"], 2 * size);
    assert!(
        damages[0]["found"]
            .as_str()
            .unwrap()
            .starts_with("a stored crc of ")
    );
    assert_eq!(damages[1]["position"], 3 * size);
    assert_eq!(
        (&damages[1]["found"], &damages[1]["expected"]),
        (&"a length of 0".into(), &"at least 14".into())
    );
    assert!(
        damages
            .iter()
            .all(|damage| damage["topic"] == "t" && damage["partition"] == 0)
    );
    // It went on behind it.
    let offsets: Vec<_> = objects
        .iter()
        .filter(|object| object["type"] == "record")
        .map(|record| &record["offset"])
        .collect();
    assert_eq!(offsets, [0, 1, 2, 3]);
    let summary = run(&["--json", "--summary"], &[&log]).objects();
    // The hole is counted, and that the bytes of the batches do not fill the file.
    assert_eq!(summary[0]["damages"], 3, "{}", summary[0]);
}

#[test]
fn checkpoints_with_lines_that_are_none_are_told_line_by_line() {
    let folder = Folder::new("checkpoint");
    let path = folder.at("replication-offset-checkpoint");
    std::fs::write(&path, "0\n4\na 0 5\nb x 1\nc 1 7\r\n").unwrap();
    let printed = run(&["--json"], &[&path]);
    assert_eq!(printed.code, 3);
    let objects = printed.objects();
    let told: Vec<_> = objects
        .iter()
        .skip(1)
        .map(|object| (object["type"].as_str().unwrap(), &object["topic"]))
        .collect();
    assert_eq!(told[0], ("checkpointEntry", &"a".into()));
    assert_eq!(told[2], ("checkpointEntry", &"c".into()));
    assert_eq!(
        objects[2]["what"],
        "line 4: found \"b x 1\", expected topic, partition and offset"
    );
    assert_eq!(
        (&objects[2]["position"], objects[4]["what"].as_str()),
        (
            &10.into(),
            Some("found 3 entries, expected the 4 that line 2 announces")
        )
    );
}

#[test]
fn a_missing_file_is_told_of_and_the_others_are_dumped() {
    let folder = Folder::new("missing");
    let log = segment(&folder.at("t-0"), 0, &[batch(PLAIN, &[rec(0, None, None)])]);
    let printed = run(&[], &[&folder.at("nothing"), &log]);
    assert_eq!(printed.code, 3);
    assert!(
        printed.err.contains("nothing: is not there") && printed.out.contains("baseOffset: 0"),
        "{printed:?}"
    );
}

/// Runs with so little memory that the size that the file states cannot be had.
#[test]
fn what_is_no_file_of_kafkas_is_told_and_fails_but_for_kafkas_spelling() {
    let folder = Folder::new("foreign");
    let notes = folder.at("notes.txt");
    std::fs::write(&notes, "nothing").unwrap();
    let named = run(&["--json"], &[&notes]);
    assert_eq!(named.code, 3);
    assert!(
        named
            .err
            .contains("found a file of another kind, expected one of Kafka's: .log,"),
        "{}",
        named.err
    );
    assert!(
        named.objects().iter().any(|object| object["type"] == "damage"),
        "{}",
        named.out
    );
    let text = folder.at("00000000000000000000.log");
    std::fs::write(&text, "a text of more bytes than a header has, and no batch").unwrap();
    let named = run(&[], &[&text]);
    assert_eq!(named.code, 3);
    assert!(
        named
            .err
            .contains("found 52 bytes in which there is no batch, expected a log"),
        "{}",
        named.err
    );
    let by_kafka = run(
        &["--files", &format!("{},{}", notes.display(), text.display())],
        &[],
    );
    assert_eq!(by_kafka.code, 0, "{}", by_kafka.err);
    assert!(
        by_kafka.err.starts_with("Ignoring unknown file"),
        "{}",
        by_kafka.err
    );
}

#[test]
fn the_space_ahead_of_the_newest_segment_is_no_damage_in_a_summary() {
    let folder = Folder::new("space");
    let one = |offset| batch(PLAIN, &[rec(offset, None, Some("v"))]);
    let old = segment(&folder.at("t-0"), 0, &[one(0), vec![0; 4096]]);
    let newest = segment(&folder.at("t-0"), 1, &[one(1), vec![0; 3 << 20]]);
    let damages = |printed: crate::fixture::Printed| printed.objects()[0]["damages"].clone();
    let summary = run(&["--summary", "--json"], &[&newest]);
    assert_eq!((summary.code, summary.err.as_str()), (0, ""));
    assert_eq!(damages(summary), 0);
    // A segment that another follows has none.
    let both = run(&["--summary", "--json"], &[&folder.at("t-0")]);
    assert_eq!(both.code, 3);
    assert!(both.err.contains(&old.display().to_string()), "{}", both.err);
    assert_eq!(damages(both), 2);
}

fn in_little_memory(arguments: &str, path: &Path) -> (Option<i32>, String) {
    let script = format!(
        "ulimit -v 200000; exec '{BINARY}' log-dump {arguments} '{}'",
        path.display()
    );
    let output = Command::new("sh")
        .args(["-c", &script])
        .output()
        .expect("a shell");
    (
        output.status.code(),
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned(),
    )
}

#[test]
fn a_length_that_a_file_states_allocates_nothing() {
    let folder = Folder::new("forged");
    let layout = Layout {
        codec: Codec::Zstd,
        ..PLAIN
    };
    let mut forged = batch(layout, &[rec(0, None, Some("v"))]);
    let length: i32 = 300 << 20;
    forged[8..12].copy_from_slice(&(length - 12).to_be_bytes());
    let path = folder.at("00000000000000000000.log");
    let file = std::fs::File::create(&path).unwrap();
    file.set_len(length as u64).unwrap();
    file.write_all_at(&forged, 0).unwrap();
    for arguments in [
        "",
        "--deep-iteration",
        "--json --print-data-log",
        "--summary",
        "--key x",
    ] {
        let (code, said) = in_little_memory(arguments, &path);
        let is_deep = !arguments.is_empty();
        assert_eq!(code, Some(if is_deep { 3 } else { 0 }), "{arguments}: {said}");
        assert!(
            arguments == "--summary" || said.contains("314572800"),
            "{arguments}: {said}"
        );
        let named = said.contains("found a batch of 314572800 bytes, expected at most 67108864");
        assert_eq!(named, is_deep, "{arguments}: {said}");
    }
}
