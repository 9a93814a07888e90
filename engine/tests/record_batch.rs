//! Golden batches: bytes that Kafka's Java clients 2.7.2 wrote, for every message format and codec, and what
//! they read in them.
//!
//! `fixtures/record_batch/*.bin` were made by `MemoryRecords.builder` and `MemoryRecords.downConvert`;
//! `dump.txt` is what the Java reader found in each, one line per batch and record (offset, timestamp, key
//! and value as size and CRC-32, headers).

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;

use milena_engine::config::{Codec, CompressionType, LogConfig, Magic, TimestampType};
use milena_engine::record_batch::{
    AppendOrigin, Batch, ControlKind, ControlRecord, Level, RecordBatchBuilder, RequestRules,
    ValidationRules, batches, convert_down, validate,
};
use milena_engine::units::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, TimestampMs, TopicPartition};

fn fixtures() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/record_batch")
}

/// All fixtures by name, without `.bin`.
fn golden() -> BTreeMap<String, Vec<u8>> {
    let mut all = BTreeMap::new();
    for entry in std::fs::read_dir(fixtures()).expect("the fixtures are there") {
        let path = entry.expect("the directory is readable").path();
        if path.extension().is_some_and(|extension| extension == "bin") {
            let name = path
                .file_stem()
                .expect("it has a name")
                .to_string_lossy()
                .into_owned();
            all.insert(name, std::fs::read(&path).expect("the fixture is readable"));
        }
    }
    assert!(all.len() >= 28, "{} fixtures", all.len());
    all
}

fn field(bytes: Option<&[u8]>) -> String {
    bytes.map_or("null".into(), |bytes| {
        format!("{}:{:x}", bytes.len(), crc32fast::hash(bytes))
    })
}

/// The lines that the Java reader prints for the same bytes.
fn dump(bytes: &[u8]) -> String {
    let mut out = String::new();
    for batch in batches(bytes) {
        let batch = batch.expect("a whole batch");
        batch.verify_crc().expect("the crc is right");
        let base = match batch.magic() {
            Magic::V2 => batch.base_offset().to_string(),
            _ => "-".to_owned(),
        };
        let producer = batch.producer();
        let sequence = |sequence: Option<_>| sequence.map_or(-1, milena_engine::units::Sequence::get);
        writeln!(
            out,
            "batch magic={} base={base} last={} codec={} time={} max={} epoch={} pid={} \
             pe={} seq={}..{} txn={} ctl={}",
            batch.magic() as u8,
            batch.last_offset(),
            batch.codec().name(),
            batch.timestamp_type() as u8,
            batch.max_timestamp(),
            batch.leader_epoch().map_or(-1, LeaderEpoch::get),
            producer.map_or(-1, |producer| producer.id.get()),
            producer.map_or(-1, |producer| producer.epoch.get()),
            sequence(producer.and_then(|producer| producer.base_sequence)),
            sequence(producer.and_then(|producer| producer.last_sequence)),
            batch.is_transactional(),
            batch.is_control(),
        )
        .expect("a String takes all");
        let mut records = batch.records().expect("records can be read");
        while let Some(record) = records.next_record().expect("the record is whole") {
            write!(
                out,
                "  {} {} {} {}",
                record.offset,
                record.timestamp,
                field(record.key),
                field(record.value)
            )
            .expect("a String takes all");
            for header in record.headers.iter() {
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                write!(
                    out,
                    " [{}={}]",
                    text(header.key),
                    header.value.map_or("null".into(), text)
                )
                .expect("a String takes all");
            }
            out.push('\n');
        }
    }
    out
}

/// The batch made anew by our builder from what we read in it. Messages of a set are batches of their own.
fn rebuild(batch: &Batch<'_>) -> Vec<u8> {
    let first = batch.first_offset_deep().expect("records can be read");
    let mut builder = RecordBatchBuilder::new()
        .magic(batch.magic())
        .codec(batch.codec())
        .base_offset(first);
    if batch.timestamp_type() == TimestampType::LogAppendTime {
        builder = builder.log_append_time(batch.max_timestamp());
    }
    if let Some(epoch) = batch.leader_epoch() {
        builder = builder.leader_epoch(epoch);
    }
    if let Some(producer) = batch.producer() {
        builder = builder.producer(producer.id, producer.epoch, producer.base_sequence);
    }
    builder = builder
        .transactional(batch.is_transactional())
        .control(batch.is_control());
    let mut records = batch.records().expect("records can be read");
    while let Some(record) = records.next_record().expect("the record is whole") {
        let appended = builder.append_record(record.offset, &record);
        appended.expect("offsets increase");
    }
    builder.build()
}

fn rebuild_all(bytes: &[u8]) -> Vec<u8> {
    batches(bytes)
        .flat_map(|batch| rebuild(&batch.expect("a whole batch")))
        .collect()
}

#[test]
fn what_java_wrote_is_read_as_java_reads_it() {
    let expected = std::fs::read_to_string(fixtures().join("dump.txt")).expect("the dump is there");
    let mut found = String::new();
    for (name, bytes) in golden() {
        write!(found, "# {name}.bin\n{}", dump(&bytes)).expect("a String takes all");
    }
    assert_eq!(found, expected);
}

#[test]
fn our_builder_makes_java_s_bytes_without_a_codec_and_java_s_records_with_one() {
    for (name, bytes) in golden() {
        // an empty batch has no record to build from; the create times under an append time are not visible
        if name == "v2_empty" {
            continue;
        }
        let ours = rebuild_all(&bytes);
        assert_eq!(dump(&ours), dump(&bytes), "{name}");
        if name.contains("_none") && !name.starts_with("v2_none_append_time") || name == "v2_transactional" {
            assert_eq!(ours, bytes, "{name}");
        }
    }
}

#[test]
fn a_transaction_marker_is_java_s_byte_for_byte_but_for_the_leader_epoch() {
    for (name, kind, coordinator_epoch) in [
        ("v2_commit", ControlKind::Commit, 42),
        ("v2_abort", ControlKind::Abort, 43),
    ] {
        let golden = &golden()[name];
        let batch = Batch::parse(golden).expect("a whole batch");
        let marker = ControlRecord {
            kind,
            coordinator_epoch,
        };
        assert_eq!(batch.control_record(), Ok(marker));
        let mut ours = RecordBatchBuilder::end_transaction_marker(
            marker,
            ProducerId(4711),
            ProducerEpoch(3),
            TimestampMs(1234),
        );
        ours[12..16].copy_from_slice(&golden[12..16]);
        assert_eq!(&ours, golden);
    }
}

#[test]
fn conversion_down_gives_what_java_s_gives() {
    let golden = golden();
    for (name, expected) in &golden {
        let Some((source, target)) = name.split_once("_down_v") else {
            continue;
        };
        let target = if target == "0" { Magic::V0 } else { Magic::V1 };
        let first = if source == "v2_transactional" {
            Offset(102)
        } else {
            Offset::ZERO
        };
        let ours = convert_down(&golden[source], target, first).expect("it can be converted");
        assert_eq!(dump(&ours), dump(expected), "{name}");
        if !name.contains("gzip") {
            assert_eq!(&ours, expected, "{name}");
        }
    }
    assert_eq!(
        convert_down(&golden["v2_commit"], Magic::V1, Offset::ZERO),
        Ok(Vec::new())
    );
    assert!(convert_down(&golden["v2_zstd"], Magic::V1, Offset::ZERO).is_err());
}

/// Writes validated records as the log would.
fn written(validated: &milena_engine::record_batch::ValidatedBatches<'_>) -> Vec<u8> {
    let bytes: Vec<u8> = validated.io_slices().flat_map(|slice| slice.to_vec()).collect();
    assert_eq!(bytes.len(), validated.size_bytes());
    bytes
}

#[test]
fn every_golden_batch_is_accepted_into_every_format_and_codec_with_its_records_unharmed() {
    type KeyAndValue = (Option<Vec<u8>>, Option<Vec<u8>>);
    let plain = |bytes: &[u8]| -> Vec<KeyAndValue> {
        let mut all = Vec::new();
        for batch in batches(bytes) {
            let batch = batch.expect("a whole batch");
            let mut records = batch.records().expect("records can be read");
            while let Some(record) = records.next_record().expect("the record is whole") {
                all.push((record.key.map(<[u8]>::to_vec), record.value.map(<[u8]>::to_vec)));
            }
        }
        all
    };
    for (name, bytes) in golden() {
        let foreign = ["append_time", "transactional", "commit", "abort", "empty", "down"];
        if foreign.iter().any(|word| name.contains(word)) {
            continue;
        }
        for magic in [Magic::V0, Magic::V1, Magic::V2] {
            for codec in [
                None,
                Some(Codec::None),
                Some(Codec::Gzip),
                Some(Codec::Snappy),
                Some(Codec::Lz4),
            ] {
                for timestamp_type in [TimestampType::CreateTime, TimestampType::LogAppendTime] {
                    let config = LogConfig {
                        message_format: magic,
                        message_timestamp_type: timestamp_type,
                        compression_type: codec.map_or(CompressionType::Producer, CompressionType::Always),
                        ..LogConfig::default()
                    };
                    let partition = TopicPartition::new("t", 0);
                    let rules = ValidationRules::new(
                        partition,
                        &config,
                        AppendOrigin::Client,
                        RequestRules::produce(2),
                    );
                    let context = format!("{name} {magic:?} {codec:?} {timestamp_type:?}");
                    let now = TimestampMs(77_777);
                    let result = validate(&bytes, &rules, now, Level::Strict);
                    let needs_v2 = name.starts_with("v2") || (name.contains("zstd") && codec.is_none());
                    if magic < Magic::V2 && needs_v2 {
                        // headers, and zstd, need v2
                        assert!(result.is_err(), "{context}");
                        continue;
                    }
                    let mut validated = result.unwrap_or_else(|error| panic!("{context}: {error}"));
                    let expected = plain(&bytes);
                    let next = validated
                        .assign(Offset(1000), LeaderEpoch(9))
                        .expect("there are offsets");
                    assert_eq!(next.since(Offset(1000)), expected.len() as i64, "{context}");
                    let written = written(&validated);
                    assert_eq!(plain(&written), expected, "{context}");
                    let mut offset = Offset(1000);
                    for (batch, header) in batches(&written).zip(validated.headers()) {
                        let batch = batch.expect("a whole batch");
                        assert_eq!(*batch.header(), header, "{context}");
                        assert_eq!(batch.magic(), magic, "{context}");
                        assert_eq!(batch.verify_crc(), Ok(()), "{context}");
                        assert_eq!(batch.first_offset_deep(), Ok(offset), "{context}");
                        offset = batch.next_offset();
                        if magic == Magic::V2 {
                            assert_eq!(batch.leader_epoch(), Some(LeaderEpoch(9)));
                        }
                        if magic > Magic::V0 {
                            assert_eq!(batch.timestamp_type(), timestamp_type, "{context}");
                            if timestamp_type == TimestampType::LogAppendTime {
                                assert_eq!(batch.max_timestamp(), now);
                            }
                        }
                    }
                    assert_eq!(offset, next, "{context}");
                }
            }
        }
    }
}
