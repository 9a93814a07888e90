//! Text, JSON and summaries of the same directories say the same.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::fixture::{Folder, log_dirs, run};

/// A line of Kafka's tool, or in its manner, made of the object that JSON has in its place.
fn line_of(object: &Value, with_content: bool) -> Option<String> {
    let text = |name: &str| match &object[name] {
        Value::String(text) => text.clone(),
        Value::Null => panic!("no {name} in {object}"),
        other => other.to_string(),
    };
    let fields = |names: &[&str]| -> String {
        let pairs: Vec<_> = names
            .iter()
            .map(|name| format!("{name}: {}", text(name)))
            .collect();
        pairs.join(" ")
    };
    Some(match object["type"].as_str().unwrap() {
        "file" => format!("Dumping {}", text("file")),
        "segmentStart" => format!("Starting offset: {}", text("baseOffset")),
        "batch" => {
            let begin = match object["magic"].as_i64() {
                Some(2) => fields(&[
                    "baseOffset",
                    "lastOffset",
                    "count",
                    "baseSequence",
                    "lastSequence",
                    "producerId",
                    "producerEpoch",
                    "partitionLeaderEpoch",
                    "isTransactional",
                    "isControl",
                ]),
                _ => format!("offset: {}", text("lastOffset")),
            };
            format!(
                "{begin} position: {} {}: {} size: {} magic: {} compresscodec: {} crc: {} isvalid: {}",
                text("position"),
                text("timestampType"),
                text("maxTimestamp"),
                text("sizeBytes"),
                text("magic"),
                text("compression").to_uppercase(),
                text("crc"),
                text("isValid")
            )
        }
        "record" => {
            let begin = format!(
                "| offset: {} {}: {} keysize: {} valuesize: {} ",
                text("offset"),
                text("timestampType"),
                text("timestamp"),
                text("keySize"),
                text("valueSize")
            );
            let mut content = String::new();
            for (name, told) in [("key", " key: "), ("value", " payload: ")] {
                if let Some(field) = with_content.then(|| field(object, name)).flatten() {
                    content.push_str(told);
                    content.push_str(&field);
                }
            }
            let Some(headers) = object["headers"].as_array() else {
                return Some(format!(
                    "{begin}crc: {} isvalid: {}{content}",
                    text("crc"),
                    text("isValid")
                ));
            };
            let keys: Vec<_> = headers
                .iter()
                .map(|header| header["key"].as_str().unwrap())
                .collect();
            let control = match &object["control"] {
                Value::Null => content,
                marker if marker["coordinatorEpoch"].is_i64() => format!(
                    " endTxnMarker: {} coordinatorEpoch: {}",
                    marker["name"].as_str().unwrap(),
                    marker["coordinatorEpoch"]
                ),
                // 2.7.2 had other names for the types of KRaft.
                other if other["type"] == 3 => " controlType: LEADER_CHANGE(3)".to_owned(),
                other => panic!("{other}"),
            };
            format!(
                "{begin}sequence: {} headerKeys: [{}]{control}",
                text("sequence"),
                keys.join(",")
            )
        }
        "trailingBytes" => {
            let name = text("file");
            let name = name.rsplit('/').next().unwrap();
            format!("Found {} invalid bytes at the end of {name}", text("count"))
        }
        "offsetEntry" => fields(&["offset", "position"]),
        "timeEntry" => fields(&["timestamp", "offset"]),
        "transactionEntry" => fields(&[
            "version",
            "producerId",
            "firstOffset",
            "lastOffset",
            "lastStableOffset",
        ]),
        "checkpointEntry" => fields(&["topic", "partition", "offset"]),
        "epochEntry" => format!(
            "leaderEpoch: {} startOffset: {}",
            text("epoch"),
            text("startOffset")
        ),
        "properties" => {
            let properties = object["properties"].as_object().unwrap();
            let lines: Vec<_> = properties
                .iter()
                .map(|(key, value)| format!("{key}={}", value.as_str().unwrap()))
                .collect();
            lines.join("\n")
        }
        "cleanShutdown" => "clean shutdown".to_owned(),
        "producerEntry" => {
            let open = match &object["currentTxnFirstOffset"] {
                Value::Null => "None".to_owned(),
                offset => format!("Some({offset})"),
            };
            let begin = fields(&["producerId", "producerEpoch", "coordinatorEpoch"]);
            let last = match object.get("lastSequence") {
                Some(_) => fields(&[
                    "firstSequence",
                    "lastSequence",
                    "lastOffset",
                    "offsetDelta",
                    "timestamp",
                ]),
                None => String::new(),
            };
            format!("{begin} currentTxnFirstOffset: {open} {last}")
        }
        "damage" | "mismatch" => return None,
        other => panic!("{other}"),
    })
}

/// A key or a value as text.
fn field(object: &Value, name: &str) -> Option<String> {
    if let Some(bytes) = object.get(format!("{name}Base64")) {
        let bytes = data_encoding::BASE64
            .decode(bytes.as_str().unwrap().as_bytes())
            .unwrap();
        return Some(String::from_utf8_lossy(&bytes).into_owned());
    }
    object[name].as_str().map(str::to_owned)
}

/// With one U+FFFD for each run of them.
fn once(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c != '\u{fffd}' || !out.ends_with('\u{fffd}') {
            out.push(c);
        }
    }
    out
}

#[test]
fn every_object_holds_all_that_the_line_of_kafkas_tool_does() {
    let folder = Folder::new("lines");
    for log_dir in log_dirs(&folder) {
        for options in [&[][..], &["--deep-iteration"], &["--print-data-log"]] {
            let text = run(options, &[&log_dir]);
            let json = run(&[options, &["--json"]].concat(), &[&log_dir]);
            let objects = json.objects();
            let with_content = options == ["--print-data-log"];
            let made: String = objects
                .iter()
                .filter_map(|object| line_of(object, with_content))
                .map(|line| line + "\n")
                .collect();
            // How many replacements broken text gets is the decoder's to say.
            let (text_lines, made) = (once(&text.out), once(&made));
            if text_lines != made {
                let mut pairs = text_lines.lines().zip(made.lines());
                let (line, made) = pairs.find(|(line, made)| line != made).unwrap_or_default();
                panic!("{options:?}\ntext: {line}\njson: {made}");
            }
            assert_eq!(text.code, json.code);
        }
    }
}

#[test]
fn a_directory_of_all_kinds_of_files_gives_objects_of_all_kinds() {
    let folder = Folder::new("kinds");
    let log_dir = crate::fixture::log_dir(&folder);
    let types = |options: &[&str]| -> BTreeSet<String> {
        let objects = run(options, &[&log_dir]).objects();
        objects
            .iter()
            .map(|object| object["type"].as_str().unwrap().to_owned())
            .collect()
    };
    let expected = [
        "batch",
        "checkpointEntry",
        "cleanShutdown",
        "epochEntry",
        "file",
        "mismatch",
        "offsetEntry",
        "producerEntry",
        "properties",
        "record",
        "segmentStart",
        "timeEntry",
        "trailingBytes",
        "transactionEntry",
    ];
    assert_eq!(
        types(&["--json", "--deep-iteration"]),
        BTreeSet::from(expected.map(str::to_owned))
    );
    assert!(types(&["--json", "--index-sanity-check"]).contains("sanityCheck"));
    let kinds: BTreeSet<_> = run(&["--json"], &[&log_dir])
        .objects()
        .iter()
        .filter_map(|object| Some(object["kind"].as_str()?.to_owned()))
        .collect();
    assert!(
        kinds.contains("snapshot") && kinds.contains("partitionMetadata"),
        "{kinds:?}"
    );
}

#[test]
fn keys_values_and_headers_are_text_where_they_are_utf_8_and_base64_elsewhere() {
    use crate::fixture::{PLAIN, Rec, TIME, batch, segment};
    let folder = Folder::new("fields");
    let of = |offset, key: &[u8], value: Option<&[u8]>| Rec {
        offset,
        timestamp: TIME,
        key: Some(key.to_vec()),
        value: value.map(<[u8]>::to_vec),
        headers: vec![
            (b"\xff".to_vec(), Some(b"\xfe\x01".to_vec())),
            (b"n".to_vec(), None),
        ],
    };
    let records = [
        of(0, "schlüssel\n".as_bytes(), Some(b"\x00\xff")),
        of(1, &7i64.to_be_bytes(), None),
        of(2, b"abc", Some(b"")),
    ];
    let log = segment(&folder.at("t-0"), 0, &[batch(PLAIN, &records)]);
    let found = |options: &[&str]| -> Vec<Value> {
        let objects = run(&[&["--json"], options].concat(), &[&log]).objects();
        let records = objects.into_iter().filter(|object| object["type"] == "record");
        records
            .map(|mut record| {
                for name in [
                    "type",
                    "file",
                    "timestampType",
                    "timestamp",
                    "sequence",
                    "topic",
                    "partition",
                    "keySize",
                    "valueSize",
                ] {
                    assert!(record.as_object_mut().unwrap().remove(name).is_some(), "{name}");
                }
                record
            })
            .collect()
    };
    let headers = json!([{"keyBase64": "/w==", "valueBase64": "/gE="}, {"key": "n", "value": null}]);
    let plain = [
        json!({"offset": 0, "headers": headers, "key": "schlüssel\n", "valueBase64": "AP8="}),
        json!({"offset": 1, "headers": headers, "key": "\0\0\0\0\0\0\0\u{7}", "value": null}),
        json!({"offset": 2, "headers": headers, "key": "abc", "value": ""}),
    ];
    assert_eq!(found(&["--print-data-log"]), plain);
    assert_eq!(found(&["--deep-iteration"]), plain);
    let decoded = found(&[
        "--key-decoder-class",
        "kafka.serializer.LongDecoder",
        "--limit",
        "2",
    ]);
    assert_eq!(
        decoded[1],
        json!({"offset": 1, "headers": headers, "key": 7, "value": null})
    );
    // Too few bytes for the decoder: told as they are, and as damage at which Kafka's tool would die.
    let short = run(
        &[
            "--json",
            "--key-decoder-class",
            "LongDecoder",
            "--from-offset",
            "2",
        ],
        &[&log],
    );
    assert_eq!(short.code, 3);
    let objects = short.objects();
    assert_eq!(
        objects[objects.len() - 1]["what"],
        "found 3 bytes, expected a long of 8"
    );
    assert_eq!(objects[objects.len() - 2]["key"], "abc");
}

/// What a summary should say, counted from the objects of a deep dump.
#[derive(Default)]
struct Count {
    batches: u64,
    records: u64,
    control_records: u64,
    size_bytes: u64,
    null_keys: u64,
    tombstones: u64,
    headers: u64,
    committed: u64,
    aborted: u64,
    largest: u64,
    offsets: Vec<i64>,
    times: Vec<i64>,
    producers: BTreeSet<i64>,
    codecs: BTreeMap<String, (u64, u64)>,
    bytes: u64,
}

impl Count {
    fn add(&mut self, object: &Value, codec: &mut String) {
        let number = |name: &str| object[name].as_i64().unwrap();
        match object["type"].as_str().unwrap() {
            "batch" => {
                self.batches += 1;
                self.size_bytes += number("sizeBytes") as u64;
                self.largest = self.largest.max(number("sizeBytes") as u64);
                self.producers
                    .extend(object["producerId"].as_i64().filter(|id| *id >= 0));
                *codec = object["compression"].as_str().unwrap().to_owned();
                self.codecs.entry(codec.clone()).or_default().0 += 1;
            }
            "record" => {
                self.codecs.entry(codec.clone()).or_default().1 += 1;
                self.offsets.push(number("offset"));
                self.times
                    .extend(Some(number("timestamp")).filter(|time| *time >= 0));
                if let Some(control) = object.get("control") {
                    self.control_records += 1;
                    self.committed += u64::from(control["name"] == "COMMIT");
                    self.aborted += u64::from(control["name"] == "ABORT");
                    return;
                }
                self.records += 1;
                let (key, value) = (number("keySize"), number("valueSize"));
                self.null_keys += u64::from(key < 0);
                self.tombstones += u64::from(key >= 0 && value < 0);
                self.headers += object["headers"].as_array().map_or(0, Vec::len) as u64;
                self.bytes += (key.max(0) + value.max(0)) as u64;
            }
            _ => {}
        }
    }

    fn compare(&self, summary: &Value) {
        for (name, expected) in [
            ("batches", self.batches),
            ("records", self.records),
            ("controlRecords", self.control_records),
            ("sizeBytes", self.size_bytes),
            ("nullKeys", self.null_keys),
            ("tombstones", self.tombstones),
            ("headers", self.headers),
            ("producers", self.producers.len() as u64),
        ] {
            assert_eq!(summary[name], expected, "{name} of {summary}");
        }
        assert_eq!(summary["transactions"]["committed"], self.committed);
        assert_eq!(summary["transactions"]["aborted"], self.aborted);
        assert_eq!(
            summary["largestBatch"]["sizeBytes"].as_u64().unwrap_or(0),
            self.largest
        );
        assert_eq!(
            summary["firstOffset"].as_i64(),
            self.offsets.iter().min().copied()
        );
        assert_eq!(summary["lastOffset"].as_i64(), self.offsets.iter().max().copied());
        assert_eq!(summary["minTimestamp"].as_i64(), self.times.iter().min().copied());
        assert_eq!(summary["maxTimestamp"].as_i64(), self.times.iter().max().copied());
        let codecs = summary["codecs"].as_object().unwrap();
        assert_eq!(codecs.len(), self.codecs.len());
        for (name, (batches, records)) in &self.codecs {
            assert_eq!(
                (codecs[name]["batches"].as_u64(), codecs[name]["records"].as_u64()),
                (Some(*batches), Some(*records))
            );
        }
        if codecs.keys().all(|name| name == "none") && self.batches > 0 {
            // The same bytes, counted from the batches and from the fields of the records.
            assert_eq!(
                codecs["none"]["storedBytes"], codecs["none"]["uncompressedBytes"],
                "{summary}"
            );
            assert_eq!(summary["compressionRatio"], 1.0);
        }
        let sizes = summary["keySizes"].as_array().unwrap();
        let sum = |name: &str| {
            sizes
                .iter()
                .map(|bucket| bucket[name].as_u64().unwrap())
                .sum::<u64>()
        };
        assert_eq!((sum("records"), sum("bytes")), (self.records, self.bytes));
    }
}

#[test]
fn a_summary_counts_what_a_deep_dump_lists_for_each_segment_partition_and_in_all() {
    let folder = Folder::new("summary");
    for log_dir in log_dirs(&folder) {
        let logs = log_dir.join("*-*/*[0-9].log");
        let objects = run(&["--json", "--deep-iteration"], &[&logs]).objects();
        let (mut segments, mut partitions, mut total) = (BTreeMap::new(), BTreeMap::new(), Count::default());
        let mut codec = String::new();
        for object in &objects {
            let file = object["file"].as_str().unwrap().to_owned();
            let (directory, _) = file.rsplit_once('/').unwrap();
            for count in [
                segments.entry(file.clone()).or_insert_with(Count::default),
                partitions
                    .entry(directory.to_owned())
                    .or_insert_with(Count::default),
                &mut total,
            ] {
                count.add(object, &mut codec);
            }
        }
        let summary = run(&["--json", "--summary"], &[&logs]).objects();
        let mut kinds = BTreeMap::new();
        for object in &summary {
            let kind = object["type"].as_str().unwrap();
            *kinds.entry(kind).or_insert(0) += 1;
            match kind {
                "segmentSummary" => segments[object["file"].as_str().unwrap()].compare(object),
                "partitionSummary" => partitions[object["directory"].as_str().unwrap()].compare(object),
                _ => total.compare(object),
            }
        }
        assert_eq!(kinds["segmentSummary"], segments.len());
        assert_eq!(kinds["partitionSummary"], partitions.len());
        assert_eq!(kinds["totalSummary"], 1);
        // The table for people has the same numbers.
        let table = run(&["--summary"], &[&logs]);
        let sum = table
            .out
            .lines()
            .rfind(|line| line.trim_start().starts_with("all "))
            .unwrap();
        let words: Vec<_> = sum.split_whitespace().collect();
        let has = |number: u64| words.contains(&number.to_string().as_str());
        assert!(has(total.batches) && has(total.records), "{sum}");
    }
}

#[test]
fn a_transaction_that_is_not_ended_is_told_with_where_it_begins() {
    let folder = Folder::new("open");
    let log_dir = crate::fixture::log_dir(&folder);
    let partition = log_dir.join("transactions-0");
    let summary = run(&["--json", "--summary"], &[&partition]).objects();
    let of = |kind: &str| summary.iter().find(|object| object["type"] == kind).unwrap();
    let transactions = &of("partitionSummary")["transactions"];
    assert_eq!(
        *transactions,
        json!({"committed": 1, "aborted": 1, "open": [{"producerId": 6, "firstOffset": 5}]})
    );
    assert_eq!(summary[0]["transactions"]["open"], json!([]), "{}", summary[0]);
    let table = run(&["--summary"], &[&partition]);
    assert!(
        table.out.contains("open transaction: producer 6 from offset 5\n"),
        "{}",
        table.out
    );
}
