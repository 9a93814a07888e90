//! A `.snapshot` file, producer for producer.
//!
//! version i16 (1) | crc u32 (CRC-32C of what follows it) | count i32 | entries of 46 bytes: producer id i64, epoch
//! i16, last sequence i32, last offset i64, offset delta i32, timestamp i64, coordinator epoch i32, first offset of
//! the open transaction i64. Source: `DumpLogSegments.dumpProducerIdSnapshot`, `ProducerStateManager.readSnapshot`.

use milena_engine::io::Io;

use super::filter::Filter;
use super::report::{Dumped, Read, Report};
use super::selection::Selected;
use super::source::Source;
use super::thing::{Damage, LastBatch, ProducerEntry, Thing};

const VERSION: i16 = 1;
const CRC_COVERS_FROM: usize = 6;
const HEADER_SIZE_BYTES: usize = 10;
const ENTRY_SIZE_BYTES: usize = 46;

pub(super) fn dump(io: &dyn Io, file: &Selected, filter: &Filter, report: &mut Report) -> Dumped {
    let mut source = Source::open(io, &file.path)?;
    let count = match entry_count(&mut source)? {
        Ok(count) => count,
        Err(damage) => {
            let text = damage.to_string();
            return report.flaw(damage, format_args!("{text}"));
        }
    };
    for index in 0..count {
        let position = HEADER_SIZE_BYTES as u64 + index * ENTRY_SIZE_BYTES as u64;
        let Some(entry) = source.bytes_at(position, ENTRY_SIZE_BYTES)?.first_chunk() else {
            // It shrank meanwhile.
            return report.fault(position, "the file ends before its entries do");
        };
        let entry = producer(entry);
        if filter.producer(entry.producer_id) {
            report.tell(Thing::ProducerEntry(entry))?;
        }
    }
    Ok(())
}

fn number<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[at..at + N]);
    out
}

/// How many entries there are; in Kafka's words why there are none.
fn entry_count(source: &mut Source) -> Read<Result<u64, Damage>> {
    let size = source.size_bytes();
    let header: Option<[u8; HEADER_SIZE_BYTES]> =
        source.bytes_at(0, HEADER_SIZE_BYTES)?.first_chunk().copied();
    let invalid = |damage: Damage| Ok(Err(damage.at("Snapshot failed schema validation")));
    let Some(header) = header else {
        return invalid(Damage::found(
            format_args!("{size} bytes"),
            format_args!("a header of {HEADER_SIZE_BYTES}"),
        ));
    };
    let count = i32::from_be_bytes(number(&header, CRC_COVERS_FROM));
    let held = (size - HEADER_SIZE_BYTES as u64) / ENTRY_SIZE_BYTES as u64;
    let Some(count) = u64::try_from(count).ok().filter(|count| *count <= held) else {
        return invalid(Damage::found(
            format_args!("{count} entries"),
            format_args!("0 to {held}"),
        ));
    };
    let version = i16::from_be_bytes(number(&header, 0));
    if version != VERSION {
        let what = format!("Snapshot contained an unknown file version {version}");
        return Ok(Err(Damage::found(version, VERSION).told(what)));
    }
    let stored = u32::from_be_bytes(number(&header, 2));
    let (mut computed, mut position) = (0, CRC_COVERS_FROM as u64);
    while position < size {
        let read = source.pieces(
            position,
            PIECE_SIZE_BYTES.min((size - position) as usize),
            |piece| {
                computed = crc32c::crc32c_append(computed, piece);
            },
        )?;
        if read == 0 {
            break;
        }
        position += read as u64;
    }
    if stored != computed {
        let what = format!(
            "Snapshot is corrupt (CRC is no longer valid). Stored crc: {stored}. Computed crc: {computed}"
        );
        return Ok(Err(Damage::found(stored, computed).told(what)));
    }
    Ok(Ok(count))
}

/// What is summed up at a time.
const PIECE_SIZE_BYTES: usize = 1 << 16;

fn producer(entry: &[u8; ENTRY_SIZE_BYTES]) -> ProducerEntry {
    let last_sequence = i32::from_be_bytes(number(entry, 10));
    let last_offset = i64::from_be_bytes(number(entry, 14));
    let offset_delta = i32::from_be_bytes(number(entry, 22));
    let first_offset = i64::from_be_bytes(number(entry, 38));
    // DefaultRecordBatch.decrementSequence
    let first_sequence = if last_sequence < offset_delta {
        i32::MAX
            .wrapping_sub(offset_delta.wrapping_sub(last_sequence))
            .wrapping_add(1)
    } else {
        last_sequence.wrapping_sub(offset_delta)
    };
    ProducerEntry {
        producer_id: i64::from_be_bytes(number(entry, 0)),
        producer_epoch: i16::from_be_bytes(number(entry, 8)),
        coordinator_epoch: i32::from_be_bytes(number(entry, 34)),
        current_txn_first_offset: (first_offset >= 0).then_some(first_offset),
        last_batch: (last_offset >= 0).then_some(LastBatch {
            first_sequence,
            last_sequence,
            last_offset,
            offset_delta,
            timestamp: i64::from_be_bytes(number(entry, 26)),
        }),
    }
}
