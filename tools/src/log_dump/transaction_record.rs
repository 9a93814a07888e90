//! A record of `__transaction_state`: key v0 (transactional id), value v0, in the words of Kafka's tool.
//!
//! Bytes come from a disk: nothing is allocated by a count that they state. Source: `TransactionLog`,
//! `TransactionMetadata`, `TransactionState` of 2.7.2.

use milena_server::group::records::java_hash;
use serde::Serialize;

use super::decoder::DELETED;
use super::java_text::java_text;
use super::scala_order::iteration_order_of_sets;

const VERSION: i16 = 0;
/// By the number that stands for it.
const STATES: [&str; 8] = [
    "Empty",
    "Ongoing",
    "PrepareCommit",
    "PrepareAbort",
    "CompleteCommit",
    "CompleteAbort",
    "Dead",
    "PrepareEpochFence",
];

struct Fields<'a> {
    bytes: &'a [u8],
    position: usize,
}

impl<'a> Fields<'a> {
    fn take(&mut self, size: usize) -> Result<&'a [u8], String> {
        let taken = self.bytes.get(self.position..).and_then(|rest| rest.get(..size));
        let taken = taken.ok_or_else(|| {
            let left = self.bytes.len() - self.position;
            format!(
                "a transaction record: at byte {} found {left} bytes, expected {size}",
                self.position
            )
        })?;
        self.position += size;
        Ok(taken)
    }

    fn number<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N)?);
        Ok(out)
    }

    fn i16(&mut self) -> Result<i16, String> {
        self.number().map(i16::from_be_bytes)
    }

    fn i32(&mut self) -> Result<i32, String> {
        self.number().map(i32::from_be_bytes)
    }

    fn i64(&mut self) -> Result<i64, String> {
        self.number().map(i64::from_be_bytes)
    }

    fn text(&mut self) -> Result<String, String> {
        let size = self.i16()?;
        let size = usize::try_from(size)
            .map_err(|_| format!("a transaction record: found a text of {size} bytes"))?;
        Ok(java_text(self.take(size)?))
    }

    fn version(&mut self) -> Result<(), String> {
        match self.i16()? {
            VERSION => Ok(()),
            other => Err(format!(
                "a transaction record: found version {other}, expected {VERSION}"
            )),
        }
    }
}

/// What the coordinator knows of a transactional id.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Transaction {
    producer_id: i64,
    producer_epoch: i16,
    state: &'static str,
    partitions: Vec<String>,
    last_update_timestamp: i64,
    start_timestamp: i64,
    timeout_ms: i32,
}

/// Key and payload.
///
/// # Errors
/// What was found in place of what.
pub(super) fn format(key: &[u8], value: Option<&[u8]>) -> Result<(String, String), String> {
    let (transactional_id, transaction) = read(key, value)?;
    let key = format!("transaction_metadata::transactionalId={transactional_id}");
    let Some(of) = transaction else {
        return Ok((key, DELETED.to_owned()));
    };
    let payload = format!(
        "producerId:{},producerEpoch:{},state={},partitions=[{}],txnLastUpdateTimestamp={},txnTimeoutMs={}",
        of.producer_id,
        of.producer_epoch,
        of.state,
        of.partitions.join(","),
        of.last_update_timestamp,
        of.timeout_ms
    );
    Ok((key, payload))
}

/// The transactional id and what is said of it, `None` in a tombstone.
///
/// # Errors
/// What was found in place of what.
pub(super) fn read(key: &[u8], value: Option<&[u8]>) -> Result<(String, Option<Transaction>), String> {
    let mut fields = Fields {
        bytes: key,
        position: 0,
    };
    fields.version()?;
    let transactional_id = fields.text()?;
    let Some(value) = value else {
        return Ok((transactional_id, None));
    };
    let mut fields = Fields {
        bytes: value,
        position: 0,
    };
    fields.version()?;
    let producer_id = fields.i64()?;
    let producer_epoch = fields.i16()?;
    let timeout_ms = fields.i32()?;
    let [state] = fields.number()?;
    let Some(name) = STATES.get(usize::from(state)) else {
        return Err(format!(
            "a transaction record: found state {state}, expected 0 to {}",
            STATES.len() - 1
        ));
    };
    let partitions = partitions(&mut fields)?;
    let transaction = Transaction {
        producer_id,
        producer_epoch,
        state: name,
        // An empty transaction is read without its partitions, which there are none of.
        partitions: if state == 0 { Vec::new() } else { partitions },
        last_update_timestamp: fields.i64()?,
        start_timestamp: fields.i64()?,
        timeout_ms,
    };
    Ok((transactional_id, Some(transaction)))
}

/// In the order of the set that Kafka reads them into.
fn partitions(fields: &mut Fields<'_>) -> Result<Vec<String>, String> {
    let (mut names, mut hashes, mut sets) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..fields.i32()? {
        let topic = fields.text()?;
        let before = names.len();
        for _ in 0..fields.i32()? {
            let partition = fields.i32()?;
            names.push(format!("{topic}-{partition}"));
            // TopicPartition.hashCode
            hashes.push(
                (31i32.wrapping_add(partition))
                    .wrapping_mul(31)
                    .wrapping_add(java_hash(&topic)),
            );
        }
        sets.push(names.len() - before);
    }
    let order = iteration_order_of_sets(&hashes, &sets);
    Ok(order.into_iter().map(|index| names[index].clone()).collect())
}
