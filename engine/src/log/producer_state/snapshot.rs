//! The bytes of a `.snapshot` file: the last batch of each producer, guarded by a checksum.
//!
//! ```text
//! version int16 = 1 | crc uint32 (CRC32C of byte 6 to the end) | count int32 | entries of 46 bytes:
//!     producer_id int64 | epoch int16 | last_sequence int32 | last_offset int64 | offset_delta int32
//!     | timestamp int64 | coordinator_epoch int32 (-1 none) | current_txn_first_offset int64 (-1 none)
//! ```
//!
//! Decoding never allocates by the stated count: it is checked against the bytes that are there.
//! Source: `ProducerStateManager.scala` (`PidSnapshotMapSchema`, `readSnapshot`, `writeSnapshot`).

use crate::units::{Offset, ProducerEpoch, ProducerId, Sequence, TimestampMs};

use super::BatchMetadata;

const VERSION: i16 = 1;
/// Where the checksum starts to cover: version (2) + crc (4).
const CRC_COVERS_FROM: usize = 2 + 4;
const HEADER_SIZE_BYTES: usize = CRC_COVERS_FROM + 4;
const ENTRY_SIZE_BYTES: usize = 8 + 2 + 4 + 8 + 4 + 8 + 4 + 8;

/// One producer in a snapshot file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotEntry {
    pub producer_id: ProducerId,
    pub epoch: Option<ProducerEpoch>,
    /// `None` if only a transaction marker is known.
    pub last_batch: Option<BatchMetadata>,
    pub timestamp: TimestampMs,
    pub coordinator_epoch: Option<i32>,
    pub current_transaction_first_offset: Option<Offset>,
}

/// These bytes are not a snapshot. The file is derived data: an older one or a replay of the log takes its
/// place.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("corrupt producer snapshot at byte {position}: {found}, expected {expected}")]
pub struct CorruptSnapshot {
    pub position: usize,
    pub expected: String,
    pub found: String,
}

fn corrupt(position: usize, expected: impl Into<String>, found: impl Into<String>) -> CorruptSnapshot {
    CorruptSnapshot {
        position,
        expected: expected.into(),
        found: found.into(),
    }
}

/// The bytes of a snapshot file with these entries, in this order.
pub(crate) fn encode_snapshot(entries: &[SnapshotEntry]) -> Vec<u8> {
    let count = i32::try_from(entries.len()).expect("a log has fewer than 2^31 producers: each takes memory");
    let mut bytes = Vec::with_capacity(HEADER_SIZE_BYTES + entries.len() * ENTRY_SIZE_BYTES);
    bytes.extend_from_slice(&VERSION.to_be_bytes());
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(&count.to_be_bytes());
    for entry in entries {
        let last_sequence = entry
            .last_batch
            .and_then(|batch| batch.last_sequence)
            .map_or(-1, Sequence::get);
        bytes.extend_from_slice(&entry.producer_id.get().to_be_bytes());
        bytes.extend_from_slice(&entry.epoch.map_or(-1, ProducerEpoch::get).to_be_bytes());
        bytes.extend_from_slice(&last_sequence.to_be_bytes());
        bytes.extend_from_slice(
            &entry
                .last_batch
                .map_or(-1, |batch| batch.last_offset.get())
                .to_be_bytes(),
        );
        bytes.extend_from_slice(
            &entry
                .last_batch
                .map_or(0, |batch| batch.offset_delta)
                .to_be_bytes(),
        );
        bytes.extend_from_slice(&entry.timestamp.get().to_be_bytes());
        bytes.extend_from_slice(&entry.coordinator_epoch.unwrap_or(-1).to_be_bytes());
        let first_offset = entry.current_transaction_first_offset.map_or(-1, Offset::get);
        bytes.extend_from_slice(&first_offset.to_be_bytes());
    }
    let crc = crc32c::crc32c(&bytes[CRC_COVERS_FROM..]);
    bytes[2..CRC_COVERS_FROM].copy_from_slice(&crc.to_be_bytes());
    bytes
}

/// The entries of a snapshot file.
///
/// # Errors
/// Another version, a wrong checksum, fewer bytes than the count needs, or a batch that ends before it
/// starts.
pub fn decode_snapshot(bytes: &[u8]) -> Result<Vec<SnapshotEntry>, CorruptSnapshot> {
    if bytes.len() < HEADER_SIZE_BYTES {
        let found = format!("{} bytes in all", bytes.len());
        return Err(corrupt(
            0,
            format!("a header of {HEADER_SIZE_BYTES} bytes"),
            found,
        ));
    }
    let mut fields = Fields { bytes, position: 0 };
    let version = i16::from_be_bytes(fields.take());
    if version != VERSION {
        return Err(corrupt(
            0,
            format!("version {VERSION}"),
            format!("version {version}"),
        ));
    }
    let stored = u32::from_be_bytes(fields.take());
    let computed = crc32c::crc32c(&bytes[CRC_COVERS_FROM..]);
    if stored != computed {
        return Err(corrupt(
            2,
            format!("crc {computed:#010x}"),
            format!("crc {stored:#010x}"),
        ));
    }
    let stated = i32::from_be_bytes(fields.take());
    let available = (bytes.len() - HEADER_SIZE_BYTES) / ENTRY_SIZE_BYTES;
    let count = usize::try_from(stated)
        .ok()
        .filter(|count| *count <= available)
        .ok_or_else(|| {
            corrupt(
                CRC_COVERS_FROM,
                format!("0 to {available} entries"),
                format!("{stated} entries"),
            )
        })?;
    (0..count).map(|_| decode_entry(&mut fields)).collect()
}

fn decode_entry(fields: &mut Fields<'_>) -> Result<SnapshotEntry, CorruptSnapshot> {
    let start = fields.position;
    let producer_id = ProducerId(i64::from_be_bytes(fields.take()));
    let epoch = i16::from_be_bytes(fields.take());
    let last_sequence = i32::from_be_bytes(fields.take());
    let last_offset = i64::from_be_bytes(fields.take());
    let offset_delta = i32::from_be_bytes(fields.take());
    let timestamp = TimestampMs(i64::from_be_bytes(fields.take()));
    let coordinator_epoch = i32::from_be_bytes(fields.take());
    let first_offset = i64::from_be_bytes(fields.take());
    let last_batch = if last_offset < 0 {
        None
    } else if offset_delta < 0 || i64::from(offset_delta) > last_offset {
        let found = format!("producer {producer_id} with delta {offset_delta} up to offset {last_offset}");
        return Err(corrupt(start, "an offset delta from 0 to the last offset", found));
    } else {
        Some(BatchMetadata {
            last_sequence: (last_sequence >= 0).then_some(Sequence(last_sequence)),
            last_offset: Offset(last_offset),
            offset_delta,
            timestamp,
        })
    };
    Ok(SnapshotEntry {
        producer_id,
        epoch: (epoch >= 0).then_some(ProducerEpoch(epoch)),
        last_batch,
        timestamp,
        coordinator_epoch: (coordinator_epoch >= 0).then_some(coordinator_epoch),
        current_transaction_first_offset: (first_offset >= 0).then_some(Offset(first_offset)),
    })
}

/// A cursor over bytes whose number was checked before.
struct Fields<'a> {
    bytes: &'a [u8],
    position: usize,
}

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        let end = self.position + N;
        let field = self.bytes[self.position..end]
            .try_into()
            .expect("the range has N bytes");
        self.position = end;
        field
    }
}
