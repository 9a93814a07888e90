//! [`JsonPrinter`]: one object a line for everything that is dumped, as `docs/log-dump.schema.json` has it.
//!
//! Keys, values and header values are text where they are UTF-8 and base64 under another name (`keyBase64`) where
//! they are not, so that the bytes can be had back; what a decoder was asked for is in the type of that decoder.

use std::borrow::Cow;
use std::io::{self, BufWriter, StdoutLock, Write};
use std::path::Path;

use data_encoding::BASE64;
use serde::{Serialize, Serializer};

use super::control::Control;
use super::decoder::{Decoded, Decoder, MessageParser};
use super::report::{Mismatch, Printer, Unsaid};
use super::selection::Selected;
use super::thing::{BatchThing, Damage, Layout, RecordThing, Thing};

pub(super) struct JsonPrinter {
    out: BufWriter<StdoutLock<'static>>,
    parser: Option<MessageParser>,
    place: Place,
}

/// Where a line comes from.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Place {
    file: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    topic: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    partition: Option<i32>,
}

#[derive(Serialize)]
struct Line<'a, T> {
    #[serde(flatten)]
    thing: &'a T,
    #[serde(flatten)]
    place: &'a Place,
}

impl JsonPrinter {
    pub(super) fn new(parser: Option<MessageParser>) -> JsonPrinter {
        JsonPrinter {
            out: BufWriter::with_capacity(1 << 16, io::stdout().lock()),
            parser,
            place: Place::default(),
        }
    }

    fn line(&mut self, thing: &impl Serialize) -> io::Result<()> {
        let place = &self.place;
        write_line(&mut self.out, &Line { thing, place })
    }
}

/// One object.
pub(super) fn write_line(out: &mut impl Write, line: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut *out, line)?;
    out.write_all(b"\n")
}

/// A line of another type than a [`Thing`].
#[derive(Serialize)]
#[serde(tag = "type", rename_all = "camelCase", rename_all_fields = "camelCase")]
enum Object<'a> {
    File {
        kind: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        base_offset: Option<i64>,
    },
    Damage {
        #[serde(skip_serializing_if = "Option::is_none")]
        position: Option<u64>,
        #[serde(flatten)]
        damage: &'a Damage,
    },
    Mismatch {
        kind: Mismatch,
        first: i64,
        second: i64,
    },
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct BatchObject {
    position: u64,
    size_bytes: usize,
    magic: i8,
    #[serde(skip_serializing_if = "Option::is_none")]
    base_offset: Option<i64>,
    last_offset: i64,
    #[serde(flatten)]
    producer: Option<BatchOfProducer>,
    timestamp_type: &'static str,
    max_timestamp: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    compression: Option<Cow<'static, str>>,
    crc: u32,
    is_valid: bool,
}

/// What only a batch of format v2 has.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct BatchOfProducer {
    count: i32,
    base_sequence: i32,
    last_sequence: i32,
    producer_id: i64,
    producer_epoch: i16,
    partition_leader_epoch: i32,
    is_transactional: bool,
    is_control: bool,
}

impl Serialize for BatchThing<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let raw = self.raw;
        let producer = raw.is_v2().then(|| BatchOfProducer {
            count: raw.record_count(),
            base_sequence: raw.base_sequence(),
            last_sequence: raw.last_sequence(),
            producer_id: raw.producer_id(),
            producer_epoch: raw.producer_epoch(),
            partition_leader_epoch: raw.partition_leader_epoch(),
            is_transactional: raw.is_transactional(),
            is_control: raw.is_control(),
        });
        BatchObject {
            position: self.position,
            size_bytes: raw.size_bytes,
            magic: raw.magic(),
            base_offset: raw.is_v2().then(|| raw.base_offset()),
            last_offset: raw.last_offset(),
            producer,
            timestamp_type: raw.timestamp_type(),
            max_timestamp: raw.max_timestamp(),
            compression: raw.compression_type().ok().map(|name| name.to_lowercase().into()),
            crc: raw.stored_crc(),
            is_valid: self.is_valid(),
        }
        .serialize(to)
    }
}

#[derive(Serialize)]
#[serde(tag = "type", rename = "record", rename_all = "camelCase")]
struct RecordObject<'a> {
    offset: i64,
    timestamp_type: &'static str,
    timestamp: i64,
    key_size: i64,
    value_size: i64,
    #[serde(flatten)]
    layout: LayoutObject<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    control: Option<ControlObject>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<Field<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_base64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<Field<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_base64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    decoded: Option<Decoded>,
}

#[derive(Serialize)]
#[serde(untagged, rename_all_fields = "camelCase")]
enum LayoutObject<'a> {
    Message {
        crc: u32,
        is_valid: bool,
    },
    Record {
        sequence: i32,
        headers: Vec<HeaderObject<'a>>,
    },
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct HeaderObject<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<Field<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_base64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<Field<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_base64: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ControlObject {
    #[serde(rename = "type")]
    kind: i16,
    name: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    coordinator_epoch: Option<i32>,
}

/// A key or a value that can stand in JSON as it is.
#[derive(Serialize)]
#[serde(untagged)]
enum Field<'a> {
    Null,
    Text(&'a str),
    Number(i64),
}

/// As text, or in base64 if it is none.
fn field(bytes: Option<&[u8]>) -> (Option<Field<'_>>, Option<String>) {
    let Some(bytes) = bytes else {
        return (Some(Field::Null), None);
    };
    match std::str::from_utf8(bytes) {
        Ok(text) => (Some(Field::Text(text)), None),
        Err(_) => (None, Some(BASE64.encode(bytes))),
    }
}

/// The same in the type of a decoder. What it cannot decode stays as it is.
fn decoded(decoder: Decoder, bytes: Option<&[u8]>) -> (Option<Field<'_>>, Option<String>) {
    match (decoder, bytes) {
        (Decoder::Bytes, Some(bytes)) => (None, Some(BASE64.encode(bytes))),
        (_, Some(bytes)) => match decoder.number(bytes) {
            Some(number) => (Some(Field::Number(number)), None),
            None => field(Some(bytes)),
        },
        (_, None) => field(None),
    }
}

impl Printer for JsonPrinter {
    fn begin(&mut self, file: &Selected) -> io::Result<()> {
        self.place = Place {
            file: file.path.to_string_lossy().into_owned(),
            topic: file.topic.clone(),
            partition: file.partition,
        };
        self.line(&Object::File {
            kind: file.kind.name(),
            base_offset: file.base_offset,
        })
    }

    fn tell(&mut self, thing: &Thing<'_>) -> io::Result<()> {
        self.line(thing)?;
        match thing {
            Thing::Batch(batch) if batch.raw.magic() >= 0 && !batch.is_valid() => {
                let damage = batch.wrong_crc();
                self.line(&Object::Damage {
                    position: Some(batch.position),
                    damage: &damage,
                })
            }
            _ => Ok(()),
        }
    }

    fn record(&mut self, record: &RecordThing<'_>) -> Result<(), Unsaid> {
        let is_control = record.raw.is_control();
        let (of_key, of_value) = match self.parser {
            Some(MessageParser::Decoders { key, value }) if !is_control => (key, value),
            _ => (Decoder::Text, Decoder::Text),
        };
        let (mut control, mut inner, mut wrong) = (None, None, None);
        let content = record.content.clone().unwrap_or_else(|what| {
            wrong = Some(what);
            (None, None)
        });
        if wrong.is_none() {
            if is_control {
                match Control::parse(content.0, content.1) {
                    Ok(parsed) => control = Some(parsed),
                    Err(what) => wrong = Some(what),
                }
            } else if let Some(parser) = &self.parser {
                match parser.decoded(content.0, content.1) {
                    Ok(decoded) => inner = decoded,
                    Err(what) => wrong = Some(what),
                }
            }
        }
        let (key, key_base64) = decoded(of_key, content.0);
        let (value, value_base64) = decoded(of_value, content.1);
        self.line(&RecordObject {
            offset: record.offset,
            timestamp_type: record.raw.timestamp_type(),
            timestamp: record.timestamp,
            key_size: record.key_size,
            value_size: record.value_size,
            layout: match record.layout {
                Layout::Message { crc, is_valid, .. } => LayoutObject::Message { crc, is_valid },
                Layout::Record {
                    sequence, headers, ..
                } => LayoutObject::Record {
                    sequence,
                    headers: headers.iter().map(header).collect(),
                },
            },
            control: control.map(|control| ControlObject {
                kind: control.kind,
                name: control.name(),
                coordinator_epoch: control.coordinator_epoch,
            }),
            key,
            key_base64,
            value,
            value_base64,
            decoded: inner,
        })?;
        match wrong {
            Some(what) => Err(Unsaid::Content(what.into())),
            None => Ok(()),
        }
    }

    fn damage(&mut self, path: &Path, position: Option<u64>, damage: &Damage) -> io::Result<()> {
        let file = path.to_string_lossy();
        let line = Object::Damage { position, damage };
        if file == self.place.file {
            return self.line(&line);
        }
        let place = Place {
            file: file.into_owned(),
            ..Place::default()
        };
        let thing = &line;
        write_line(&mut self.out, &Line { thing, place: &place })
    }

    fn mismatch(&mut self, _: &Path, kind: Mismatch, (first, second): (i64, i64)) -> io::Result<()> {
        self.line(&Object::Mismatch { kind, first, second })
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    fn finish(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

fn header(header: milena_engine::record_batch::RecordHeader<'_>) -> HeaderObject<'_> {
    let (key, key_base64) = field(Some(header.key));
    let (value, value_base64) = field(header.value);
    HeaderObject {
        key,
        key_base64,
        value,
        value_base64,
    }
}
