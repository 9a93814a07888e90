//! A `.snapshot` file, producer for producer, in the lines of Kafka's tool.
//!
//! version i16 (1) | crc u32 (CRC-32C of what follows it) | count i32 | entries of 46 bytes: producer id i64, epoch i16,
//! last sequence i32, last offset i64, offset delta i32, timestamp i64, coordinator epoch i32, first offset of the
//! open transaction i64. Source: `DumpLogSegments.dumpProducerIdSnapshot`, `ProducerStateManager.readSnapshot`.

use std::path::Path;

use milena_engine::io::Io;

use super::source::Source;
use super::{Dumped, Report};

const VERSION: i16 = 1;
const CRC_COVERS_FROM: usize = 6;
const HEADER_SIZE_BYTES: usize = 10;
const ENTRY_SIZE_BYTES: usize = 46;

pub(super) fn dump(io: &dyn Io, path: &Path, report: &mut Report) -> Dumped {
    let mut source = Source::open(io, path)?;
    let size = usize::try_from(source.size_bytes()).unwrap_or(usize::MAX);
    let bytes = source.bytes_at(0, size)?;
    match entries(bytes) {
        Err(what) => report.say(format_args!("{what}")),
        Ok(entries) => entries
            .chunks_exact(ENTRY_SIZE_BYTES)
            .try_for_each(|entry| report.line(format_args!("{}", describe(entry)))),
    }
}

fn number<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[at..at + N]);
    out
}

/// The bytes of the entries, in Kafka's words if there are none.
fn entries(bytes: &[u8]) -> Result<&[u8], String> {
    if bytes.len() < HEADER_SIZE_BYTES {
        return Err(format!(
            "Snapshot failed schema validation: found {} bytes, expected a header of {HEADER_SIZE_BYTES}",
            bytes.len()
        ));
    }
    let count = i32::from_be_bytes(number(bytes, CRC_COVERS_FROM));
    let held = (bytes.len() - HEADER_SIZE_BYTES) / ENTRY_SIZE_BYTES;
    let Some(count) = usize::try_from(count).ok().filter(|count| *count <= held) else {
        return Err(format!(
            "Snapshot failed schema validation: found {count} entries, expected 0 to {held}"
        ));
    };
    let version = i16::from_be_bytes(number(bytes, 0));
    if version != VERSION {
        return Err(format!("Snapshot contained an unknown file version {version}"));
    }
    let stored = u32::from_be_bytes(number(bytes, 2));
    let computed = crc32c::crc32c(&bytes[CRC_COVERS_FROM..]);
    if stored != computed {
        return Err(format!(
            "Snapshot is corrupt (CRC is no longer valid). Stored crc: {stored}. Computed crc: {computed}"
        ));
    }
    Ok(&bytes[HEADER_SIZE_BYTES..HEADER_SIZE_BYTES + count * ENTRY_SIZE_BYTES])
}

fn describe(entry: &[u8]) -> String {
    let last_sequence = i32::from_be_bytes(number(entry, 10));
    let last_offset = i64::from_be_bytes(number(entry, 14));
    let delta = i32::from_be_bytes(number(entry, 22));
    let first_offset = i64::from_be_bytes(number(entry, 38));
    let transaction = if first_offset >= 0 {
        format!("Some({first_offset})")
    } else {
        "None".to_owned()
    };
    let mut text = format!(
        "producerId: {} producerEpoch: {} coordinatorEpoch: {} currentTxnFirstOffset: {transaction} ",
        i64::from_be_bytes(number(entry, 0)),
        i16::from_be_bytes(number(entry, 8)),
        i32::from_be_bytes(number(entry, 34)),
    );
    if last_offset >= 0 {
        // DefaultRecordBatch.decrementSequence
        let first_sequence = if last_sequence < delta {
            i32::MAX
                .wrapping_sub(delta.wrapping_sub(last_sequence))
                .wrapping_add(1)
        } else {
            last_sequence.wrapping_sub(delta)
        };
        text.push_str(&format!(
            "firstSequence: {first_sequence} lastSequence: {last_sequence} lastOffset: {last_offset} offsetDelta: {delta} \
             timestamp: {}",
            i64::from_be_bytes(number(entry, 26))
        ));
    }
    text
}
