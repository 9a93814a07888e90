//! The small files beside the logs: checkpoints of offsets and of leader epochs, `meta.properties`,
//! `partition.metadata` and the mark of a clean shutdown.
//!
//! A checkpoint is read line by line, and a line that is none is told of and passed over. Layouts: `CheckpointFile`,
//! `OffsetCheckpointFile`, `LeaderEpochCheckpointFile`, `PartitionMetadataFile`, `CleanShutdownFileHandler` of Kafka
//! 2.7 to 4.0.

use milena_engine::checkpoint::properties;
use milena_engine::io::Io;

use super::report::{Dumped, Read, Report};
use super::selection::{FileKind, Selected};
use super::source::Source;
use super::thing::{Damage, Thing};

/// More than the longest line of any of them; what is longer is none.
const LINE_SIZE_MAX: usize = 1 << 16;
/// Of a file of properties.
const PROPERTIES_SIZE_MAX: usize = 1 << 20;
/// The only version of the checkpoints.
const VERSION: &str = "0";

/// An offset checkpoint or one of leader epochs.
pub(super) fn dump(io: &dyn Io, file: &Selected, report: &mut Report) -> Dumped {
    let mut source = Source::open(io, &file.path)?;
    let name = file.path.file_name().unwrap_or_default().to_string_lossy();
    let (mut position, mut number, mut announced, mut count) = (0, 0, None, 0);
    while let Some((line, size)) = line_at(&mut source, position)? {
        let begin = position;
        position += size as u64;
        number += 1;
        let wrong = |expected: &str| {
            Damage::found(format_args!("{line:?}"), expected).at(format_args!("line {number}"))
        };
        let fields: Vec<&str> = line.split_whitespace().collect();
        if number == 1 {
            if line != VERSION {
                report.fault(begin, wrong("version 0"))?;
            }
            continue;
        }
        if number == 2 {
            announced = line.parse::<u64>().ok();
            if announced.is_none() {
                report.fault(begin, wrong("the number of entries"))?;
            }
            continue;
        }
        count += 1;
        let thing = if file.kind == FileKind::LeaderEpochs {
            epoch(&fields)
        } else {
            offset(&name, &fields)
        };
        match thing {
            Some(thing) => report.tell(thing)?,
            None if file.kind == FileKind::LeaderEpochs => {
                report.fault(begin, wrong("epoch and start offset"))?
            }
            None => report.fault(begin, wrong("topic, partition and offset"))?,
        }
    }
    match announced {
        Some(announced) if announced != count => report.fault(
            position,
            Damage::found(
                format_args!("{count} entries"),
                format_args!("the {announced} that line 2 announces"),
            ),
        ),
        _ => Ok(()),
    }
}

fn epoch<'a>(fields: &[&'a str]) -> Option<Thing<'a>> {
    let [epoch, start_offset] = fields else {
        return None;
    };
    Some(Thing::EpochEntry {
        epoch: epoch.parse().ok()?,
        start_offset: start_offset.parse().ok()?,
    })
}

fn offset<'a>(checkpoint: &'a str, fields: &[&'a str]) -> Option<Thing<'a>> {
    let [topic, partition, offset] = *fields else {
        return None;
    };
    Some(Thing::CheckpointEntry {
        checkpoint,
        topic,
        partition: partition.parse().ok()?,
        offset: offset.parse().ok()?,
    })
}

/// The line at `position`, without its end, and how many bytes it takes with it.
fn line_at(source: &mut Source, position: u64) -> Read<Option<(String, usize)>> {
    let bytes = source.bytes_at(position, LINE_SIZE_MAX)?;
    if bytes.is_empty() {
        return Ok(None);
    }
    let end = bytes.iter().position(|byte| *byte == b'\n');
    let line = &bytes[..end.unwrap_or(bytes.len())];
    let size = end.map_or(bytes.len(), |end| end + 1);
    let text = String::from_utf8_lossy(line.strip_suffix(b"\r").unwrap_or(line));
    Ok(Some((text.into_owned(), size)))
}

/// `meta.properties` and `partition.metadata`, whose `key: value` lines are properties to Java.
pub(super) fn dump_properties(io: &dyn Io, file: &Selected, report: &mut Report) -> Dumped {
    let mut source = Source::open(io, &file.path)?;
    let size = source.size_bytes();
    if size > PROPERTIES_SIZE_MAX as u64 {
        let damage = Damage::found(
            format_args!("{size} bytes"),
            format_args!("at most {PROPERTIES_SIZE_MAX}"),
        );
        return report.fault(0, damage);
    }
    match properties::parse(source.bytes_at(0, PROPERTIES_SIZE_MAX)?) {
        Ok(parsed) => {
            let pairs: Vec<_> = parsed.into_iter().map(|one| (one.key, one.value)).collect();
            report.tell(Thing::Properties { properties: &pairs })
        }
        Err(error) => report.fault(0, error.to_string()),
    }
}

/// `.kafka_cleanshutdown`: empty up to 3.6, later JSON with the epoch of the broker.
pub(super) fn dump_clean_shutdown(io: &dyn Io, file: &Selected, report: &mut Report) -> Dumped {
    let mut source = Source::open(io, &file.path)?;
    let content = source.bytes_at(0, LINE_SIZE_MAX)?;
    if content.is_empty() {
        return report.tell(Thing::CleanShutdown { broker_epoch: None });
    }
    let epoch = serde_json::from_slice::<serde_json::Value>(content)
        .ok()
        .and_then(|content| content.get("brokerEpoch")?.as_i64());
    match epoch {
        Some(_) => report.tell(Thing::CleanShutdown { broker_epoch: epoch }),
        None => {
            let found = String::from_utf8_lossy(content).into_owned();
            report.fault(
                0,
                Damage::found(format_args!("{found:?}"), "nothing, or JSON with a brokerEpoch"),
            )
        }
    }
}
