//! What a filter lets through is what lies in its bounds of all that there is, begun near the place or not.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;

use crate::fixture::{Folder, TIME, log_dirs, run};

type Found = Vec<(String, i64)>;

/// A filter as options, and as it is meant.
struct Asked {
    options: Vec<String>,
    meant: Meant,
}

/// Whether a record, behind its batch, passes.
type Meant = Box<dyn Fn(&Value, &Value) -> bool>;

fn asked(words: &str, meant: impl Fn(&Value, &Value) -> bool + 'static) -> Asked {
    Asked {
        options: words.split(' ').map(str::to_owned).collect(),
        meant: Box::new(meant),
    }
}

fn within(value: &Value, from: i64, to: i64) -> bool {
    value.as_i64().is_some_and(|value| (from..=to).contains(&value))
}

/// Filters of all kinds; the times are those of the records that there are.
fn filters(times: &[i64]) -> Vec<Asked> {
    let mut asked_for = vec![
        asked("--key key-7", |_, record| record["key"] == "key-7"),
        asked("--key-hex ff87", |_, record| record["keyBase64"] == "/4c="),
        asked("--producer-id 6", |batch, _| batch["producerId"] == 6),
        asked("--producer-id 6 --to-offset 4", |batch, record| {
            batch["producerId"] == 6 && within(&record["offset"], 0, 4)
        }),
        asked("--to-offset 3", |_, record| within(&record["offset"], 0, 3)),
        asked("--key key-3 --from-offset 50", |_, record| {
            record["key"] == "key-3" && within(&record["offset"], 50, i64::MAX)
        }),
    ];
    for (from, to) in [
        (0, 0),
        (1, 7),
        (42, 42),
        (95, 105),
        (150, 260),
        (199, 200),
        (299, 5000),
        (7000, 8000),
    ] {
        let words = format!("--from-offset {from} --to-offset {to}");
        asked_for.push(asked(&words, move |_, record| {
            within(&record["offset"], from, to)
        }));
        asked_for.push(asked(&format!("--from-offset {from}"), move |_, record| {
            within(&record["offset"], from, i64::MAX)
        }));
    }
    let at = |share: usize| times[(times.len() - 1) * share / 10];
    for (from, to) in [
        (at(0), at(1)),
        (at(3), at(4)),
        (at(5), at(5)),
        (at(9), at(10)),
        (at(10) + 1, i64::MAX),
        (TIME, TIME + 995),
    ] {
        let words = format!("--from-time {from} --to-time {to}");
        asked_for.push(asked(&words, move |_, record| {
            within(&record["timestamp"], from.max(0), to)
        }));
        asked_for.push(asked(&format!("--from-time {from}"), move |_, record| {
            within(&record["timestamp"], from.max(0), i64::MAX)
        }));
        asked_for.push(asked(
            &format!("--to-time {to} --from-offset 20"),
            move |_, record| within(&record["timestamp"], 0, to) && within(&record["offset"], 20, i64::MAX),
        ));
    }
    asked_for
}

/// Files and offsets of records, and files and positions of the batches around them.
fn told(objects: &[Value], passes: impl Fn(&Value, &Value) -> bool) -> (Found, Found) {
    let (mut records, mut batches) = (Found::new(), Found::new());
    let (mut batch, mut is_told) = (&Value::Null, false);
    for object in objects {
        let file = object["file"].as_str().unwrap().to_owned();
        match object["type"].as_str().unwrap() {
            "batch" => (batch, is_told) = (object, false),
            "record" if passes(batch, object) => {
                records.push((file.clone(), object["offset"].as_i64().unwrap()));
                if !is_told {
                    is_told = true;
                    batches.push((file, batch["position"].as_i64().unwrap()));
                }
            }
            _ => {}
        }
    }
    (records, batches)
}

fn batches_told(objects: &[Value]) -> Found {
    let batches = objects.iter().filter(|object| object["type"] == "batch");
    batches
        .map(|batch| {
            (
                batch["file"].as_str().unwrap().to_owned(),
                batch["position"].as_i64().unwrap(),
            )
        })
        .collect()
}

#[test]
fn what_passes_is_what_lies_in_the_bounds_whatever_the_format_and_however_deep() {
    let folder = Folder::new("filters");
    for log_dir in log_dirs(&folder) {
        let logs: &Path = &log_dir.join("*-*/*[0-9].log");
        let all = run(&["--json", "--deep-iteration"], &[logs]).objects();
        let times: BTreeSet<i64> = all
            .iter()
            .filter_map(|object| object["timestamp"].as_i64())
            .collect();
        let times: Vec<i64> = times.into_iter().filter(|time| *time >= 0).collect();
        for Asked { options, meant } in filters(&times) {
            let options: Vec<&str> = options.iter().map(String::as_str).collect();
            let (records, batches) = told(&all, &meant);
            let deep = run(&[&options[..], &["--json", "--deep-iteration"]].concat(), &[logs]).objects();
            let found = told(&deep, |_, _| true);
            assert_eq!(found.0, records, "{options:?}");
            assert_eq!(batches_told(&deep), batches, "{options:?}");
            let shallow = run(&[&options[..], &["--json"]].concat(), &[logs]).objects();
            assert_eq!(batches_told(&shallow), batches, "{options:?} without records");
            let limited = run(
                &[&options[..], &["--json", "--deep-iteration", "--limit", "3"]].concat(),
                &[logs],
            )
            .objects();
            assert_eq!(
                told(&limited, |_, _| true).0,
                records[..records.len().min(3)],
                "{options:?} --limit 3"
            );
            let text = run(&[&options[..], &["--deep-iteration"]].concat(), &[logs]);
            let lines = text.out.lines().filter(|line| line.starts_with("| offset: "));
            assert_eq!(lines.count(), records.len(), "{options:?} as text");
            let summary = run(&[&options[..], &["--json", "--summary"]].concat(), &[logs]).objects();
            let total = &summary[summary.len() - 1];
            let counted = total["records"].as_u64().unwrap() + total["controlRecords"].as_u64().unwrap();
            assert_eq!(counted, records.len() as u64, "{options:?} as a summary");
        }
    }
}

#[test]
fn it_begins_near_the_place_where_the_indexes_say_so_and_at_the_beginning_where_they_lie() {
    let folder = Folder::new("near");
    let partition = crate::fixture::log_dir(&folder).join("v2.none-1");
    let log = partition.join("00000000000000000100.log");
    let files = ["log", "index", "timeindex"].map(|ending| log.with_extension(ending));
    let sound = files.clone().map(|file| std::fs::read(file).unwrap());
    let late = (TIME + 1900).to_string();
    for options in [["--from-offset", "190"], ["--from-time", &late]] {
        let records = || {
            let printed = run(&[&options[..], &["--json", "--deep-iteration"]].concat(), &[&log]);
            let (found, _) = told(&printed.objects(), |_, _| true);
            (found, printed.code)
        };
        let (all, code) = records();
        assert!(code == 0 && !all.is_empty());
        // Nobody looks at the first batch, of which the length is none.
        let mut broken = sound[0].clone();
        broken[8..12].fill(0xff);
        std::fs::write(&files[0], &broken).unwrap();
        assert_eq!(records(), (all.clone(), 0), "{options:?}");
        std::fs::write(&files[0], &sound[0]).unwrap();
        // Positions where no batch is, offsets that are none, and an index that a crash left with zeros behind it.
        let shifted: Vec<u8> = sound[1].iter().map(|byte| byte.wrapping_add(3)).collect();
        let zeros = [&sound[1][..], &[0; 800]].concat();
        for index in [shifted, vec![0xff; 800], zeros, Vec::new()] {
            std::fs::write(&files[1], index).unwrap();
            assert_eq!(records(), (all.clone(), 0), "{options:?}");
        }
        std::fs::write(&files[1], &sound[1]).unwrap();
        let early: Vec<u8> = sound[2]
            .chunks(12)
            .flat_map(|entry| [&[0; 7], &entry[7..]].concat())
            .collect();
        std::fs::write(&files[2], early).unwrap();
        assert_eq!(records(), (all, 0), "{options:?}");
        std::fs::write(&files[2], &sound[2]).unwrap();
    }
}

#[test]
fn other_files_are_filtered_by_what_they_have_and_left_out_where_they_have_nothing_of_it() {
    let folder = Folder::new("others");
    let log_dir = crate::fixture::log_dir(&folder);
    let partition = log_dir.join("transactions-0");
    let types = |options: &[&str]| -> BTreeSet<String> {
        let objects = run(&[&["--json"], options].concat(), &[&partition]).objects();
        let things = objects
            .iter()
            .filter(|object| object["type"] != "file" && object["type"] != "segmentStart");
        things
            .map(|object| object["type"].as_str().unwrap().to_owned())
            .collect()
    };
    let set = |names: &[&str]| {
        names
            .iter()
            .map(|name| (*name).to_owned())
            .collect::<BTreeSet<_>>()
    };
    assert_eq!(
        types(&["--producer-id", "6"]),
        set(&["batch", "producerEntry", "trailingBytes", "transactionEntry"])
    );
    assert_eq!(types(&["--producer-id", "5", "--limit", "1"]), set(&["batch"]));
    assert_eq!(types(&["--producer-id", "77"]), set(&["trailingBytes"]));
    assert_eq!(
        types(&["--key", "k", "--to-offset", "4"]),
        set(&["batch", "record"])
    );
    let text = run(&["--from-offset", "6", "--to-offset", "6"], &[&partition]);
    let told: Vec<_> = text
        .out
        .lines()
        .filter(|line| line.starts_with("Dumping "))
        .collect();
    assert_eq!(
        told.len(),
        1,
        "nothing is told of files in which nothing passes: {}",
        text.out
    );
    assert!(told[0].ends_with("00000000000000000005.log"), "{told:?}");
    let entries = run(
        &["--limit", "1", "--json"],
        &[&partition.join("leader-epoch-checkpoint")],
    );
    assert_eq!(entries.objects().len(), 2, "{}", entries.out);
    let index = partition.join("00000000000000000008.snapshot");
    let named = run(&["--key", "k"], &[&index]);
    assert_eq!((named.out.as_str(), named.code), ("", 0));
    assert!(
        named.err.contains("the filters do not apply to such a file"),
        "{}",
        named.err
    );
}

#[test]
fn a_time_that_is_none_and_a_key_that_is_no_hexadecimal_are_refused_with_what_was_expected() {
    for (options, expected) in [
        (["--from-time", "yesterday"], "expected a time as"),
        (
            ["--key-hex", "abc"],
            "expected an even number of hexadecimal digits",
        ),
        (["--limit", "0"], "0 is not in 1.."),
        (
            ["--from-offset=10", "--to-offset=5"],
            "--from-offset 10 lies behind --to-offset 5",
        ),
        (
            ["--from-time=2000", "--to-time=1000"],
            "--from-time 2000 lies behind --to-time 1000",
        ),
    ] {
        let refused = run(&options, &[Path::new("x.log")]);
        assert_eq!(refused.code, 1);
        assert!(refused.err.contains(expected), "{}", refused.err);
    }
    let folder = Folder::new("ago");
    let log_dir = crate::fixture::log_dir(&folder);
    let ago = run(&["--from-time", "-1h", "--deep-iteration"], &[&log_dir]);
    assert!(
        !ago.out.contains("| offset"),
        "all records are of 2023: {}",
        ago.out
    );
    let since = run(
        &[
            "--from-time",
            "2023-11-14T22:13:20Z",
            "--json",
            "--deep-iteration",
        ],
        &[&log_dir],
    )
    .objects();
    assert!(since.iter().any(|object| object["type"] == "record"));
}
