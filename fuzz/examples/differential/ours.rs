//! What Milena's decoders make of bytes, in the words of `Judge.java`.

use std::fmt::Write as _;

use milena_engine::config::{Magic, TimestampType};
use milena_engine::record_batch::{Batch, Record, batches};
use milena_fuzz::wire::{Side, codec};
use milena_server::group::records::{RecordKey, read_group_value, read_key, read_offset_value};
use milena_server::protocol::messages::consumer_protocol::TopicPartition;
use milena_server::protocol::messages::{ConsumerProtocolAssignment, ConsumerProtocolSubscription};
use milena_server::protocol::{ApiKey, Reader, RequestHeader, supported_versions};

use crate::cases::{Case, Kind};
use crate::printed;

pub(crate) fn text(case: &Case) -> String {
    let bytes = &case.bytes[..];
    match case.kind {
        Kind::Request => request(bytes),
        Kind::Response => response(bytes),
        Kind::Batches => all_batches(bytes),
        Kind::Subscription => subscription(bytes),
        Kind::Assignment => assignment(bytes),
        Kind::RecordKey => record_key(bytes),
        Kind::CommittedOffset => committed_offset(bytes),
        Kind::Group => group(bytes),
    }
}

fn refused(error: &dyn std::fmt::Display) -> String {
    format!("!read {error}")
}

fn request(frame: &[u8]) -> String {
    let mut reader = Reader::new(frame);
    let header = match RequestHeader::decode(&mut reader) {
        Ok(header) => header,
        Err(error) => return format!("!header {error}"),
    };
    let mut out = format!(
        "{{key={} version={} correlation_id={} client_id=",
        header.api_key.id(),
        header.api_version,
        header.correlation_id
    );
    string(&mut out, header.client_id.as_deref());
    out.push_str("} ");
    if header.is_unsupported_api_versions() {
        out.push_str("unsupported");
        return out;
    }
    let body = &frame[reader.position()..];
    match message(header.api_key, header.api_version, body, Side::Request) {
        Ok(text) => out + &text,
        Err(error) => refused(&error),
    }
}

fn response(bytes: &[u8]) -> String {
    let ([k0, k1, v0, v1], body) = bytes
        .split_first_chunk::<4>()
        .map_or(([0; 4], bytes), |(head, body)| (*head, body));
    let key = ApiKey::from_id(i16::from_be_bytes([k0, k1])).filter(|key| supported_versions(*key).is_some());
    let Some(key) = key else {
        return refused(&"not served");
    };
    message(key, i16::from_be_bytes([v0, v1]), body, Side::Response).unwrap_or_else(|error| refused(&error))
}

fn message(key: ApiKey, version: i16, body: &[u8], side: Side) -> Result<String, String> {
    let codec = codec(key, side);
    let printed = (codec.print)(body, version)?;
    let encoding = codec.schema.encoding(version).ok_or("no such version")?;
    Ok(printed::rendered(&codec.schema.body, encoding, &printed))
}

fn all_batches(bytes: &[u8]) -> String {
    let mut out = String::new();
    for batch in batches(bytes) {
        match batch {
            Ok(batch) => one_batch(&mut out, &batch),
            Err(error) if error.is_partial() => {}
            Err(error) => {
                let _ = write!(out, "!batch {error}");
            }
        }
    }
    out
}

fn one_batch(out: &mut String, batch: &Batch<'_>) {
    let is_v2 = batch.magic() == Magic::V2;
    let _ = write!(out, "{{magic={} size={}", batch.magic() as u8, batch.size_bytes());
    if is_v2 {
        let _ = write!(out, " base={}", batch.base_offset());
    }
    let time_type = match (batch.magic(), batch.timestamp_type()) {
        (Magic::V0, _) => "NoTimestampType",
        (_, TimestampType::CreateTime) => "CreateTime",
        (_, TimestampType::LogAppendTime) => "LogAppendTime",
    };
    let _ = write!(
        out,
        " last={} next={} valid={} codec={} time_type={time_type} max_timestamp={}",
        batch.last_offset(),
        batch.next_offset(),
        batch.verify_crc().is_ok(),
        batch.codec().name(),
        batch.max_timestamp().get()
    );
    if is_v2 {
        let (id, epoch, sequence) = batch.producer().map_or((-1, -1, -1), |producer| {
            let sequence = producer.base_sequence.map_or(-1, |sequence| sequence.get());
            (producer.id.get(), producer.epoch.get(), sequence)
        });
        let _ = write!(
            out,
            " producer={id} {epoch} {sequence} transactional={} control={} epoch={} count={}",
            batch.is_transactional(),
            batch.is_control(),
            batch.leader_epoch().map_or(-1, |epoch| epoch.get()),
            batch.record_count().unwrap_or_default()
        );
    }
    out.push('}');
    let start = out.len();
    let outcome = batch.records().and_then(|mut records| {
        while let Some(record) = records.next_record()? {
            one_record(out, &record);
        }
        Ok(())
    });
    if let Err(error) = outcome {
        out.truncate(start);
        let _ = write!(out, " !records {error}");
    }
    out.push('\n');
}

fn one_record(out: &mut String, record: &Record<'_>) {
    let _ = write!(out, " ({} {} ", record.offset, record.timestamp.get());
    bytes(out, record.key);
    out.push(' ');
    bytes(out, record.value);
    for header in record.headers.iter() {
        out.push(' ');
        string(out, Some(&String::from_utf8_lossy(header.key)));
        out.push(':');
        bytes(out, header.value);
    }
    out.push(')');
}

fn subscription(data: &[u8]) -> String {
    let value = match ConsumerProtocolSubscription::decode(data) {
        Ok(value) => value,
        Err(error) => return refused(&error),
    };
    let mut out = "{topics=[".to_owned();
    for (at, topic) in value.topics.iter().enumerate() {
        out.push_str(if at == 0 { "" } else { " " });
        string(&mut out, Some(&topic));
    }
    out.push_str("] user_data=");
    bytes(&mut out, value.user_data.as_deref());
    partitions(&mut out, " owned=[", value.owned_partitions.iter());
    out
}

fn assignment(data: &[u8]) -> String {
    let value = match ConsumerProtocolAssignment::decode(data) {
        Ok(value) => value,
        Err(error) => return refused(&error),
    };
    let mut out = "{user_data=".to_owned();
    bytes(&mut out, value.user_data.as_deref());
    partitions(&mut out, " assigned=[", value.assigned_partitions.iter());
    out
}

fn partitions<'a>(out: &mut String, name: &str, topics: impl Iterator<Item = TopicPartition<'a>>) {
    out.push_str(name);
    for topic in topics {
        for partition in &topic.partitions {
            string(out, Some(&topic.topic));
            let _ = write!(out, "-{partition} ");
        }
    }
    out.push_str("]}");
}

fn record_key(data: &[u8]) -> String {
    let mut out = String::new();
    match read_key(data) {
        Ok(RecordKey::Offset { group_id, partition }) => {
            out.push_str("offset ");
            string(&mut out, Some(&group_id));
            out.push(' ');
            string(&mut out, Some(&partition.topic));
            let _ = write!(out, " {}", partition.partition);
        }
        Ok(RecordKey::Group { group_id }) => {
            out.push_str("group ");
            string(&mut out, Some(&group_id));
        }
        Err(error) => return refused(&error),
    }
    out
}

fn committed_offset(data: &[u8]) -> String {
    let value = match read_offset_value(data) {
        Ok(value) => value,
        Err(error) => return refused(&error),
    };
    let epoch = value.leader_epoch.unwrap_or(-1);
    let mut out = format!("{} {epoch} ", value.offset);
    string(&mut out, Some(&value.metadata));
    let expire = value
        .expire_timestamp
        .map_or("-".to_owned(), |at| at.get().to_string());
    let _ = write!(out, " {} {expire}", value.commit_timestamp.get());
    out
}

fn group(data: &[u8]) -> String {
    let value = match read_group_value(data) {
        Ok(value) => value,
        Err(error) => return refused(&error),
    };
    let mut out = "{type=".to_owned();
    let protocol_type = Some(&*value.protocol_type).filter(|name| !name.is_empty());
    string(&mut out, protocol_type);
    let _ = write!(out, " generation={} protocol=", value.generation_id);
    string(&mut out, value.protocol_name.as_deref());
    out.push_str(" leader=");
    string(&mut out, value.leader_id.as_deref());
    let since = value
        .current_state_timestamp
        .map_or("-".to_owned(), |at| at.get().to_string());
    let _ = write!(out, " since={since} members=");
    let mut members: Vec<String> = value
        .members
        .iter()
        .map(|member| {
            let mut out = " (".to_owned();
            string(&mut out, Some(&member.member_id));
            out.push(' ');
            string(&mut out, member.group_instance_id.as_deref());
            out.push(' ');
            string(&mut out, Some(&member.client_id));
            out.push(' ');
            string(&mut out, Some(&member.client_host));
            let _ = write!(
                out,
                " {} {} ",
                member.rebalance_timeout_ms, member.session_timeout_ms
            );
            bytes(&mut out, Some(&member.subscription));
            out.push(' ');
            bytes(&mut out, Some(&member.assignment));
            out + ")"
        })
        .collect();
    members.sort();
    out + &members.concat() + "}"
}

pub(crate) fn string(out: &mut String, text: Option<&str>) {
    match text {
        None => out.push('-'),
        Some(text) => {
            out.push('"');
            hexadecimal(out, text.as_bytes());
            out.push('"');
        }
    }
}

pub(crate) fn bytes(out: &mut String, bytes: Option<&[u8]>) {
    match bytes {
        None => out.push('-'),
        Some(bytes) => {
            out.push('x');
            hexadecimal(out, bytes);
        }
    }
}

fn hexadecimal(out: &mut String, bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for byte in bytes {
        for digit in [byte >> 4, byte & 15] {
            out.push(char::from(DIGITS[usize::from(digit)]));
        }
    }
}
