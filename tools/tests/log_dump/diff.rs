//! Two replicas are the same when they hold the same records, however those lie in files.

use std::path::Path;

use milena_engine::config::Codec;
use milena_engine::record_batch::ControlKind;
use serde_json::{Value, json};

use crate::fixture::{Folder, Layout, PLAIN, Printed, Rec, append, batch, marker, rec, run, segment};

fn diff(options: &[&str], a: &Path, b: &Path) -> Printed {
    let words = [&["diff"], options].concat();
    run(&words, &[a, b])
}

/// The exit code and the object of one partition.
fn compared(a: &Path, b: &Path) -> (i32, Value) {
    let printed = diff(&["--json"], a, b);
    let objects = printed.objects();
    assert_eq!(objects.len(), 2, "{printed:?}");
    assert_eq!(printed.code == 0, objects[0]["same"] == true, "{printed:?}");
    (printed.code, objects[0].clone())
}

fn records(offsets: impl Iterator<Item = i64>) -> Vec<Rec> {
    offsets
        .map(|offset| rec(offset, Some(&format!("k{}", offset % 7)), Some("v")))
        .collect()
}

/// One batch for each few records.
fn batches(layout: Layout, records: &[Rec], each: usize) -> Vec<Vec<u8>> {
    records.chunks(each).map(|part| batch(layout, part)).collect()
}

#[test]
fn other_segments_batches_and_codecs_are_layout_and_no_difference() {
    let folder = Folder::new("layout");
    let (a, b) = (folder.at("a/t-0"), folder.at("b/t-0"));
    let all = records(0..100);
    segment(&a, 0, &batches(PLAIN, &all, 10));
    assert_eq!(compared(&a, &a).1["comparedRecords"], 100);
    let zstd = Layout {
        codec: Codec::Zstd,
        ..PLAIN
    };
    segment(&b, 0, &batches(zstd, &all[..33], 7));
    segment(&b, 33, &batches(PLAIN, &all[33..], 20));
    let (code, found) = compared(&a, &b);
    assert_eq!(code, 0, "{found}");
    assert_eq!(found["comparedRecords"], 100);
    assert_eq!(
        (&found["a"]["segments"], &found["b"]["segments"]),
        (&1.into(), &2.into())
    );
    let told = diff(&[], &a, &b);
    for part in [
        "t-0: the same records, 100 compared",
        "segments: A 1, B 2",
        "codecs: A none, B none,zstd",
    ] {
        assert!(told.out.contains(part), "{}", told.out);
    }
}

#[test]
fn what_compaction_took_away_is_explained_and_what_it_cannot_have_taken_is_missing() {
    let folder = Folder::new("compaction");
    let (a, b) = (folder.at("a/t-0"), folder.at("b/t-0"));
    let mut all = records(0..70);
    // A deletion whose time is over, and the last record of a key that comes once.
    all[30].value = None;
    all[31].key = Some(b"once".to_vec());
    let aborted = Layout {
        producer: Some((9, 0, true)),
        ..PLAIN
    };
    let ends = [
        batch(aborted, &records(70..72)),
        marker(72, 9, ControlKind::Abort),
        batch(PLAIN, &records(73..80)),
    ];
    segment(&a, 0, &[batches(PLAIN, &all, 10), ends.to_vec()].concat());
    // The last of each key, and what was not cleaned yet.
    let cleaned: Vec<_> = all
        .iter()
        .filter(|rec| rec.offset == 31 || rec.offset >= 63)
        .cloned()
        .collect();
    segment(
        &b,
        0,
        &[batches(PLAIN, &cleaned, 3), vec![batch(PLAIN, &records(73..80))]].concat(),
    );
    let (code, found) = compared(&a, &b);
    assert_eq!(code, 0, "{found}");
    assert_eq!(
        found["compactedAway"],
        json!({"a": 0, "b": 80 - 7 - cleaned.len()})
    );
    assert_eq!(
        compared(&b, &a).1["compactedAway"]["a"],
        found["compactedAway"]["b"]
    );
    // The key never comes again.
    let lost: Vec<_> = cleaned.iter().filter(|rec| rec.offset != 31).cloned().collect();
    segment(
        &b,
        0,
        &[batches(PLAIN, &lost, 3), vec![batch(PLAIN, &records(73..80))]].concat(),
    );
    let (code, found) = compared(&a, &b);
    assert_eq!(code, 3);
    assert_eq!(
        found["onlyIn"],
        json!([{"side": "A", "from": 31, "to": 31, "records": 1, "place": "within"}])
    );
    // Without a key nothing is compacted.
    let keyless: Vec<_> = (0..20).map(|offset| rec(offset, None, Some("v"))).collect();
    segment(&a, 0, &batches(PLAIN, &keyless, 5));
    segment(
        &b,
        0,
        &batches(PLAIN, &[&keyless[..7], &keyless[9..]].concat(), 5),
    );
    let (code, found) = compared(&a, &b);
    assert_eq!(code, 3);
    assert_eq!(
        found["onlyIn"],
        json!([{"side": "A", "from": 7, "to": 8, "records": 2, "place": "within"}])
    );
}

#[test]
fn the_first_difference_is_told_with_its_fields_and_places_and_the_others_are_counted() {
    let folder = Folder::new("first");
    let (a, b) = (folder.at("a/t-0"), folder.at("b/t-0"));
    let mut all = records(0..40);
    let log = segment(&a, 0, &batches(PLAIN, &all, 10));
    all[23].value = Some(b"w".to_vec());
    all[23].timestamp += 1;
    all[35].headers = vec![(b"h".to_vec(), None)];
    let other = segment(&b, 0, &batches(PLAIN, &all, 10));
    let (code, found) = compared(&a, &b);
    assert_eq!(code, 3);
    let position = std::fs::metadata(&log).unwrap().len() / 2;
    assert_eq!(
        found["firstDifference"],
        json!({
            "offset": 23,
            "fields": ["timestamp", "value"],
            "a": {"file": log, "position": position},
            "b": {"file": other, "position": position},
        })
    );
    assert_eq!(
        (&found["differingRecords"], &found["comparedRecords"]),
        (&2.into(), &40.into())
    );
    let told = diff(&[], &a, &b);
    assert!(
        told.out.contains("t-0: DIFFERENT")
            && told.out.contains("first difference: offset 23, timestamp, value"),
        "{}",
        told.out
    );
}

#[test]
fn a_side_that_begins_later_or_ends_earlier_lacks_those_ranges() {
    let folder = Folder::new("ranges");
    let (a, b) = (folder.at("a/t-0"), folder.at("b/t-0"));
    let all = records(0..60);
    segment(&a, 0, &batches(PLAIN, &all[..20], 10));
    segment(&a, 20, &batches(PLAIN, &all[20..50], 10));
    segment(&b, 20, &batches(PLAIN, &all[20..], 10));
    let (code, found) = compared(&a, &b);
    assert_eq!(code, 3);
    assert_eq!(
        found["onlyIn"],
        json!([
            {"side": "A", "from": 0, "to": 19, "records": 20, "place": "beforeStart"},
            {"side": "B", "from": 50, "to": 59, "records": 10, "place": "behindEnd"},
        ])
    );
    let ends = |side: &str| {
        (
            found[side]["startOffset"].as_i64(),
            found[side]["endOffset"].as_i64(),
        )
    };
    assert_eq!(
        (ends("a"), ends("b")),
        ((Some(0), Some(50)), (Some(20), Some(60)))
    );
}

#[test]
fn leader_epochs_that_differ_and_damage_are_differences() {
    let folder = Folder::new("epochs");
    let (a, b) = (folder.at("a/t-0"), folder.at("b/t-0"));
    let all = records(0..40);
    let of = |epoch| Layout { epoch, ..PLAIN };
    segment(
        &a,
        0,
        &[batches(of(0), &all[..20], 10), batches(of(3), &all[20..], 10)].concat(),
    );
    segment(&b, 0, &batches(of(0), &all, 10));
    std::fs::write(a.join("leader-epoch-checkpoint"), "0\n2\n0 0\n3 20\n").unwrap();
    std::fs::write(b.join("leader-epoch-checkpoint"), "0\n1\n0 0\n").unwrap();
    let (code, found) = compared(&a, &b);
    assert_eq!(code, 3);
    assert_eq!(
        found["epochs"],
        json!([
            {"of": "batches", "offset": 20, "a": 3, "b": 0},
            {"of": "checkpoint", "offset": 20, "a": 3, "b": 0},
        ])
    );
    let log = segment(
        &b,
        0,
        &[batches(of(0), &all[..20], 10), batches(of(3), &all[20..], 10)].concat(),
    );
    std::fs::copy(
        a.join("leader-epoch-checkpoint"),
        b.join("leader-epoch-checkpoint"),
    )
    .unwrap();
    assert_eq!(compared(&a, &b).0, 0);
    append(&log, &[7; 5]);
    let (code, found) = compared(&a, &b);
    assert_eq!(code, 3);
    assert_eq!(found["damages"][0]["side"], "B");
    assert_eq!(
        found["damages"][0]["what"],
        "found 5 bytes behind the last whole batch"
    );
}

#[test]
fn log_directories_are_compared_partition_by_partition() {
    let folder = Folder::new("dirs");
    let of = |name: &str, value: &str| {
        segment(&folder.at(name), 0, &[batch(PLAIN, &[rec(0, None, Some(value))])]);
    };
    // A log directory may have a name like that of a partition.
    for (name, value) in [
        ("a-1/t-0", "v"),
        ("b-2/t-0", "v"),
        ("a-1/t-1", "v"),
        ("b-2/t-1", "w"),
        ("a-1/u-0", "v"),
        ("b-2/x-0", "v"),
    ] {
        of(name, value);
    }
    let (a, b) = (folder.at("a-1"), folder.at("b-2"));
    let printed = diff(&["--json"], &a, &b);
    assert_eq!(printed.code, 3);
    let objects = printed.objects();
    let same: Vec<_> = objects.iter().map(|object| &object["same"]).collect();
    assert_eq!(same[..2], [&json!(true), &json!(false)]);
    assert_eq!(
        objects[2],
        json!({"type": "diffTotal", "same": 1, "different": 1, "onlyInA": ["u-0"], "onlyInB": ["x-0"]})
    );
    let told = diff(&[], &a, &b);
    assert!(
        told.out
            .ends_with("1 partitions hold the same records, 1 differ, 1 are only in A, 1 only in B\n"),
        "{}",
        told.out
    );
    let mixed = diff(&[], &a, &folder.at("b-2/t-0"));
    assert_eq!(mixed.code, 1);
    assert!(mixed.err.contains("expected two of a kind"), "{}", mixed.err);
}
