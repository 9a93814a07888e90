//! Partitions made for these tests, and the binary that looks at them.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::LazyLock;

use jsonschema::Validator;
use milena_engine::config::{Codec, Magic};
use milena_engine::record_batch::{ControlKind, ControlRecord, RecordBatchBuilder, RecordHeader};
use milena_engine::units::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, Sequence, TimestampMs};
use serde_json::Value;

pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_milena");
/// Of the first record of every partition.
pub(crate) const TIME: i64 = 1_700_000_000_000;

/// A directory of its own, removed when dropped.
pub(crate) struct Folder(pub(crate) PathBuf);

impl Folder {
    pub(crate) fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("milena.log-dump.{}.{name}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a directory for temporary files");
        Folder(path)
    }

    pub(crate) fn at(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // A test may have removed it.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// What a run printed.
#[derive(Debug)]
pub(crate) struct Printed {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Printed {
    /// One object a line, each as the schema has it.
    pub(crate) fn objects(&self) -> Vec<Value> {
        let parse = |line: &str| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        let objects: Vec<Value> = self.out.lines().map(parse).collect();
        for object in &objects {
            conforms(object);
        }
        objects
    }
}

pub(crate) fn run(arguments: &[&str], paths: &[&Path]) -> Printed {
    let mut command = Command::new(BINARY);
    command
        .arg("log-dump")
        .args(arguments)
        .args(paths)
        .stdin(Stdio::null());
    let output = command.output().expect("the binary runs");
    let printed = Printed {
        code: output.status.code().expect("an exit code"),
        out: String::from_utf8(output.stdout).expect("text"),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    };
    assert!(
        !printed.err.contains("panicked"),
        "{arguments:?} {paths:?}: {}",
        printed.err
    );
    printed
}

/// The schema of each type of line.
static SCHEMAS: LazyLock<Vec<(String, Validator)>> = LazyLock::new(|| {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/log-dump.schema.json");
    let schema: Value =
        serde_json::from_str(&std::fs::read_to_string(path).expect("the schema")).expect("JSON");
    let names = schema["oneOf"].as_array().expect("the types of lines");
    names
        .iter()
        .map(|one| {
            let name = one["$ref"]
                .as_str()
                .expect("a reference")
                .rsplit('/')
                .next()
                .unwrap_or_default();
            let mut of_type = schema["$defs"][name].clone();
            of_type["$defs"] = schema["$defs"].clone();
            (
                name.to_owned(),
                jsonschema::validator_for(&of_type).expect("a schema"),
            )
        })
        .collect()
});

#[track_caller]
fn conforms(object: &Value) {
    let of_type = SCHEMAS.iter().find(|(name, _)| object["type"] == name.as_str());
    let (_, validator) = of_type.unwrap_or_else(|| panic!("the schema has no such type: {object}"));
    if let Err(error) = validator.validate(object) {
        panic!("{error} at {}: {object}", error.instance_path());
    }
}

/// A record to be written.
#[derive(Clone, Debug)]
pub(crate) struct Rec {
    pub(crate) offset: i64,
    pub(crate) timestamp: i64,
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) value: Option<Vec<u8>>,
    pub(crate) headers: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

pub(crate) fn rec(offset: i64, key: Option<&str>, value: Option<&str>) -> Rec {
    let bytes = |text: &str| text.as_bytes().to_vec();
    Rec {
        offset,
        timestamp: TIME + offset * 10,
        key: key.map(bytes),
        value: value.map(bytes),
        headers: Vec::new(),
    }
}

/// How a batch is written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layout {
    pub(crate) magic: Magic,
    pub(crate) codec: Codec,
    /// Id, first sequence, and whether it is part of a transaction.
    pub(crate) producer: Option<(i64, i32, bool)>,
    pub(crate) epoch: i32,
    pub(crate) append_time: Option<i64>,
}

pub(crate) const PLAIN: Layout = Layout {
    magic: Magic::V2,
    codec: Codec::None,
    producer: None,
    epoch: 0,
    append_time: None,
};

pub(crate) fn batch(layout: Layout, records: &[Rec]) -> Vec<u8> {
    let mut builder = RecordBatchBuilder::new()
        .magic(layout.magic)
        .codec(layout.codec)
        .leader_epoch(LeaderEpoch(layout.epoch))
        .base_offset(Offset(records[0].offset));
    if let Some((id, sequence, is_transactional)) = layout.producer {
        builder = builder
            .producer(ProducerId(id), ProducerEpoch(0), Some(Sequence(sequence)))
            .transactional(is_transactional);
    }
    if let Some(time) = layout.append_time {
        builder = builder.log_append_time(TimestampMs(time));
    }
    for record in records {
        let headers: Vec<_> = record
            .headers
            .iter()
            .map(|(key, value)| RecordHeader {
                key,
                value: value.as_deref(),
            })
            .collect();
        let headers = if layout.magic == Magic::V2 {
            &headers[..]
        } else {
            &[]
        };
        builder.append_at(
            Offset(record.offset),
            TimestampMs(record.timestamp),
            record.key.as_deref(),
            record.value.as_deref(),
            headers,
        );
    }
    builder.build()
}

/// The marker that ends a transaction.
pub(crate) fn marker(offset: i64, producer: i64, kind: ControlKind) -> Vec<u8> {
    let marker = ControlRecord {
        kind,
        coordinator_epoch: 3,
    };
    let timestamp = TimestampMs(TIME + offset * 10);
    let mut bytes =
        RecordBatchBuilder::end_transaction_marker(marker, ProducerId(producer), ProducerEpoch(0), timestamp);
    bytes[..8].copy_from_slice(&offset.to_be_bytes());
    bytes
}

/// Of a batch as it is stored.
fn last_offset(batch: &[u8]) -> i64 {
    let base = i64::from_be_bytes(batch[..8].try_into().unwrap());
    match batch[16] {
        2 => base + i64::from(i32::from_be_bytes(batch[23..27].try_into().unwrap())),
        _ => base,
    }
}

fn max_timestamp(batch: &[u8]) -> i64 {
    match batch[16] {
        0 => -1,
        1 => i64::from_be_bytes(batch[18..26].try_into().unwrap()),
        _ => i64::from_be_bytes(batch[35..43].try_into().unwrap()),
    }
}

/// Writes a segment with indexes that have an entry for every 300 bytes, and returns the path of its log.
pub(crate) fn segment(directory: &Path, base: i64, batches: &[Vec<u8>]) -> PathBuf {
    std::fs::create_dir_all(directory).unwrap();
    let path = |ending: &str| directory.join(format!("{base:020}.{ending}"));
    let (mut offsets, mut times) = (Vec::new(), Vec::new());
    let (mut position, mut indexed, mut largest, mut written) = (0, 0, (-1, base), -1);
    for batch in batches {
        let last = last_offset(batch);
        if max_timestamp(batch) > largest.0 {
            largest = (max_timestamp(batch), last);
        }
        let mut time_entry = |times: &mut Vec<u8>| {
            if largest.0 > written {
                written = largest.0;
                times.extend(largest.0.to_be_bytes());
                times.extend(((largest.1 - base) as i32).to_be_bytes());
            }
        };
        if position - indexed > 300 {
            indexed = position;
            offsets.extend(((last - base) as i32).to_be_bytes());
            offsets.extend((position as i32).to_be_bytes());
            time_entry(&mut times);
        }
        position += batch.len();
        if position == batches.iter().map(Vec::len).sum::<usize>() {
            time_entry(&mut times);
        }
    }
    std::fs::write(path("log"), batches.concat()).unwrap();
    std::fs::write(path("index"), offsets).unwrap();
    std::fs::write(path("timeindex"), times).unwrap();
    path("log")
}

pub(crate) fn append(path: &Path, bytes: &[u8]) {
    let mut file = std::fs::OpenOptions::new()
        .append(true)
        .create(true)
        .open(path)
        .unwrap();
    file.write_all(bytes).unwrap();
}

/// Small numbers that look random and are the same in every run.
pub(crate) struct Numbers(pub(crate) u64);

impl Numbers {
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// Records with keys of many sizes, some null, some values null, timestamps out of order.
fn records(numbers: &mut Numbers, from: i64, count: i64) -> Vec<Rec> {
    let mut records = Vec::new();
    let mut offset = from;
    for _ in 0..count {
        let key = match numbers.below(6) {
            0 => None,
            1 => Some(vec![0xff, 0x80 + numbers.below(32) as u8]),
            2 => Some(Vec::new()),
            _ => Some(format!("key-{}", numbers.below(20)).into_bytes()),
        };
        let value = (numbers.below(5) > 0).then(|| "v".repeat(numbers.below(60) as usize).into_bytes());
        let headers = match numbers.below(4) {
            0 => vec![(b"h".to_vec(), Some(vec![0xfe, 1])), (b"h".to_vec(), None)],
            _ => Vec::new(),
        };
        records.push(Rec {
            offset,
            timestamp: TIME + offset * 10 - numbers.below(300) as i64,
            key,
            value,
            headers,
        });
        // Compaction leaves holes.
        offset += if numbers.below(8) == 0 { 2 } else { 1 };
    }
    records
}

/// A log directory with all formats and codecs, transactions, checkpoints and snapshots.
pub(crate) fn log_dir(folder: &Folder) -> PathBuf {
    let root = folder.at("data");
    let mut numbers = Numbers(7);
    let formats = [
        (Magic::V0, &[Codec::None, Codec::Gzip, Codec::Snappy][..]),
        (Magic::V1, &[Codec::None, Codec::Gzip, Codec::Lz4]),
        (
            Magic::V2,
            &[Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd],
        ),
    ];
    for (magic, codecs) in formats {
        for codec in codecs {
            let directory = root.join(format!("v{}.{}-1", magic as u8, codec.name()));
            let mut offset = 0;
            for base in [0, 100, 200] {
                let mut batches = Vec::new();
                while offset < base + 100 {
                    let is_single = *codec == Codec::None && magic != Magic::V2;
                    let count = if is_single {
                        1
                    } else {
                        1 + numbers.below(12) as i64
                    };
                    let records = records(&mut numbers, offset.max(base), count);
                    offset = records[records.len() - 1].offset + 1;
                    if offset > base + 100 {
                        break;
                    }
                    let layout = Layout {
                        magic,
                        codec: *codec,
                        append_time: (magic != Magic::V0 && numbers.below(10) == 0)
                            .then_some(TIME + offset * 10),
                        ..PLAIN
                    };
                    batches.push(batch(layout, &records));
                }
                segment(&directory, base, &batches);
                offset = base + 100;
            }
        }
    }
    transactions(&root.join("transactions-0"));
    std::fs::write(
        root.join("meta.properties"),
        "#\nversion=0\nbroker.id=4\ncluster.id=abc\n",
    )
    .unwrap();
    std::fs::write(root.join(".kafka_cleanshutdown"), "").unwrap();
    for name in ["recovery-point", "replication", "log-start", "cleaner"] {
        let content = "0\n2\ntransactions 0 17\nv2.zstd 1 -1\n";
        let file = match name {
            "recovery-point" => "recovery-point-offset-checkpoint".to_owned(),
            name => format!("{name}-offset-checkpoint"),
        };
        std::fs::write(root.join(file), content).unwrap();
    }
    root
}

/// Two producers, one of which aborts and then leaves a transaction open.
fn transactions(directory: &Path) {
    let of = |producer, sequence| Layout {
        producer: Some((producer, sequence, true)),
        ..PLAIN
    };
    let record = |offset| rec(offset, Some("k"), Some("v"));
    segment(
        directory,
        0,
        &[
            batch(of(5, 0), &[record(0), record(1)]),
            batch(of(6, 0), &[record(2)]),
            marker(3, 6, ControlKind::Abort),
            marker(4, 5, ControlKind::Commit),
        ],
    );
    let open = batch(of(6, 1), &[record(5), record(6)]);
    let log = segment(directory, 5, &[open, batch(PLAIN, &[record(7)])]);
    append(&log, &[1, 2, 3]);
    let numbers: [i64; 4] = [6, 2, 3, 2];
    let aborted: Vec<u8> = numbers.iter().flat_map(|number| number.to_be_bytes()).collect();
    std::fs::write(
        directory.join("00000000000000000000.txnindex"),
        [&[0, 0][..], &aborted].concat(),
    )
    .unwrap();
    std::fs::write(directory.join("leader-epoch-checkpoint"), "0\n2\n0 0\n3 5\n").unwrap();
    std::fs::write(
        directory.join("partition.metadata"),
        "version: 0\ntopic_id: AAAAAAAAAAAAAAAAAAAAAA\n",
    )
    .unwrap();
    std::fs::write(directory.join("00000000000000000008.snapshot"), snapshot()).unwrap();
    // A snapshot of KRaft is a log of control records.
    let mut header = marker(0, 1, ControlKind::Commit);
    let key = header.len() - 1 - 6 - 1 - 4;
    assert_eq!(
        &header[key..key + 6],
        [0, 0, 0, 1, 12, 0],
        "the key, and the value's size"
    );
    header[key + 2..key + 4].copy_from_slice(&3i16.to_be_bytes());
    let crc = crc32c(&header[21..]);
    header[17..21].copy_from_slice(&crc.to_be_bytes());
    std::fs::write(
        directory.join("00000000000000000008-0000000003.checkpoint"),
        header,
    )
    .unwrap();
}

fn snapshot() -> Vec<u8> {
    let mut body = 2i32.to_be_bytes().to_vec();
    for (id, last_offset, open) in [(5i64, 1i64, -1i64), (6, -1, 5)] {
        body.extend(id.to_be_bytes());
        body.extend(0i16.to_be_bytes());
        body.extend(1i32.to_be_bytes());
        body.extend(last_offset.to_be_bytes());
        body.extend(1i32.to_be_bytes());
        body.extend(TIME.to_be_bytes());
        body.extend(3i32.to_be_bytes());
        body.extend(open.to_be_bytes());
    }
    let crc = crc32c(&body);
    [&1i16.to_be_bytes()[..], &crc.to_be_bytes(), &body].concat()
}

/// Bit by bit.
pub(crate) fn crc32c(bytes: &[u8]) -> u32 {
    let mut crc = !0u32;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 {
                (crc >> 1) ^ 0x82f6_3b78
            } else {
                crc >> 1
            };
        }
    }
    !crc
}

/// The log directories that the printers and filters are tried over.
pub(crate) fn log_dirs(folder: &Folder) -> Vec<PathBuf> {
    let further = std::env::var("MILENA_LOG_DUMP_DIRS").unwrap_or_default();
    let further = further
        .split(':')
        .filter(|path| !path.is_empty())
        .map(PathBuf::from);
    std::iter::once(log_dir(folder)).chain(further).collect()
}
