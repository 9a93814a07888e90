//! A record as one JSON object: what `milena consume --json` prints and `milena produce --format json` reads.
//!
//! ```json
//! {"topic":"t","partition":0,"offset":5,"timestamp":1700000000000,"timestamp_type":"CreateTime",
//!  "key":"k","value":"v","headers":[{"key":"h","value":"x"}]}
//! ```
//!
//! Bytes that are not UTF-8 stand as `key_base64` and `value_base64` instead; null is `null`. Reading needs none of the
//! fields and knows no others; `topic`, `offset` and `timestamp_type` are not used.

use data_encoding::BASE64;
use milena_engine::config::TimestampType;
use milena_engine::units::TimestampMs;
use milena_server::client::ConsumerRecord;
use serde::Deserialize;
use serde_json::{Map, Value};

/// The object of a record that was read.
pub(crate) fn to_json(shown: &ConsumerRecord<'_>) -> Value {
    let record = &shown.record;
    let mut object = Map::new();
    object.insert("topic".to_owned(), (*shown.partition.topic).into());
    object.insert("partition".to_owned(), shown.partition.partition.into());
    object.insert("offset".to_owned(), record.offset.get().into());
    object.insert("timestamp".to_owned(), record.timestamp.get().into());
    let kind = match shown.timestamp_type {
        TimestampType::CreateTime => "CreateTime",
        TimestampType::LogAppendTime => "LogAppendTime",
    };
    object.insert("timestamp_type".to_owned(), kind.into());
    insert_bytes(&mut object, "key", record.key);
    insert_bytes(&mut object, "value", record.value);
    let headers = record.headers.iter().map(|header| {
        let mut object = Map::new();
        insert_bytes(&mut object, "key", Some(header.key));
        insert_bytes(&mut object, "value", header.value);
        Value::Object(object)
    });
    object.insert("headers".to_owned(), headers.collect());
    Value::Object(object)
}

fn insert_bytes(object: &mut Map<String, Value>, name: &str, bytes: Option<&[u8]>) {
    match bytes.map(|bytes| (std::str::from_utf8(bytes), bytes)) {
        None => object.insert(name.to_owned(), Value::Null),
        Some((Ok(text), _)) => object.insert(name.to_owned(), text.into()),
        Some((Err(_), bytes)) => object.insert(format!("{name}_base64"), BASE64.encode(bytes).into()),
    };
}

/// A record that is to be written.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct InputRecord {
    pub(crate) partition: Option<i32>,
    pub(crate) timestamp: Option<TimestampMs>,
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) value: Option<Vec<u8>>,
    pub(crate) headers: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(
    dead_code,
    reason = "some fields are accepted so that what consume prints can be read, and say nothing here"
)]
struct Object {
    topic: Option<String>,
    partition: Option<i32>,
    offset: Option<i64>,
    timestamp: Option<i64>,
    timestamp_type: Option<String>,
    key: Option<String>,
    key_base64: Option<String>,
    value: Option<String>,
    value_base64: Option<String>,
    #[serde(default)]
    headers: Vec<HeaderObject>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct HeaderObject {
    key: Option<String>,
    key_base64: Option<String>,
    value: Option<String>,
    value_base64: Option<String>,
}

/// Reads an object.
///
/// # Errors
/// Says what is wrong with it.
pub(crate) fn from_json(bytes: &[u8]) -> Result<InputRecord, String> {
    if !bytes.trim_ascii_start().starts_with(b"{") {
        return Err("no record in JSON: expected an object".to_owned());
    }
    let object: Object =
        serde_json::from_slice(bytes).map_err(|error| format!("no record in JSON: {error}"))?;
    let headers = object.headers.into_iter().map(|header| {
        let key = either("key", header.key, header.key_base64)?.ok_or("a header without a key")?;
        Ok((key, either("value", header.value, header.value_base64)?))
    });
    Ok(InputRecord {
        partition: object.partition,
        timestamp: object.timestamp.map(TimestampMs),
        key: either("key", object.key, object.key_base64)?,
        value: either("value", object.value, object.value_base64)?,
        headers: headers.collect::<Result<_, String>>()?,
    })
}

fn either(name: &str, text: Option<String>, base64: Option<String>) -> Result<Option<Vec<u8>>, String> {
    match (text, base64) {
        (Some(_), Some(_)) => Err(format!("found {name} and {name}_base64, expected one of them")),
        (Some(text), None) => Ok(Some(text.into_bytes())),
        (None, Some(text)) => {
            let decoded = BASE64.decode(text.as_bytes());
            decoded
                .map(Some)
                .map_err(|error| format!("{name}_base64: {error}"))
        }
        (None, None) => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use milena_engine::record_batch::{Batch, RecordBatchBuilder, RecordHeader};
    use milena_engine::units::TopicPartition;

    use super::*;

    #[test]
    fn what_is_printed_is_read_again_the_same() {
        let mut builder = RecordBatchBuilder::new();
        let header = RecordHeader {
            key: b"h",
            value: Some(b"\xff"),
        };
        builder.append_with_headers(TimestampMs(7), Some(b"k"), Some(b"\x80\0"), &[header]);
        builder.append(TimestampMs(8), None, Some("ü\n".as_bytes()));
        let bytes = builder.build();
        let batch = Batch::parse(&bytes).unwrap();
        let mut records = batch.records().unwrap();
        let partition = TopicPartition::new("t", 3);
        let mut next = || {
            let record = records.next_record().unwrap().unwrap();
            let shown = ConsumerRecord {
                partition: &partition,
                timestamp_type: TimestampType::CreateTime,
                record,
            };
            to_json(&shown).to_string()
        };
        let line = next();
        let expected = r#"{"topic":"t","partition":3,"offset":0,"timestamp":7,"timestamp_type":"CreateTime","key":"k","value_base64":"gAA=","headers":[{"key":"h","value_base64":"/w=="}]}"#;
        assert_eq!(line, expected);
        let record = from_json(line.as_bytes()).unwrap();
        assert_eq!(record.key.as_deref(), Some(&b"k"[..]));
        assert_eq!(record.value.as_deref(), Some(&b"\x80\0"[..]));
        assert_eq!(record.headers, [(b"h".to_vec(), Some(vec![0xff]))]);
        assert_eq!(
            (record.partition, record.timestamp),
            (Some(3), Some(TimestampMs(7)))
        );
        let record = from_json(next().as_bytes()).unwrap();
        assert_eq!(
            (record.key, record.value.as_deref()),
            (None, Some("ü\n".as_bytes()))
        );
    }

    #[test]
    fn what_is_no_record_is_named() {
        for (text, expected) in [
            ("{", "no record in JSON"),
            ("[1]", "expected an object"),
            ("", "expected an object"),
            (r#"{"valeu":"x"}"#, "unknown field `valeu`"),
            (r#"{"key":"a","key_base64":"YQ=="}"#, "expected one of them"),
            (r#"{"value_base64":"?"}"#, "value_base64: "),
            (r#"{"headers":[{"value":"x"}]}"#, "a header without a key"),
        ] {
            let error = from_json(text.as_bytes()).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
