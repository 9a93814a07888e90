//! The batches of a produce request as wholes: [`Analyzed`], which of their records nothing is known yet.
//!
//! Promise: each batch is there to its last byte, has the checksum that it states and a header that can be; so what
//! is wrong with its records, the sender meant. Size, magic, codec and number of batches are what the request's
//! version and the topic permit. An incomplete batch at the end is left out.
//!
//! The order of the checks is Kafka's, since the first one that fails names the error.
//!
//! Source: `Log.analyzeAndValidateRecords`, `LogValidator.validateBatch`, `ProduceRequest.validateRecords` of 2.7.2.

use super::refusal::{corrupt, invalid};
use super::{AppendOrigin, Validation};
use crate::config::{Codec, Magic};
use crate::error::InvalidRecords;
use crate::record_batch::{Batch, BatchError, array, size_and_magic, verify_crc};

/// The batches of a request: nearly always one, so that a list is needed for old message sets alone.
pub(super) struct Analyzed<'a> {
    pub(super) first: Option<Batch<'a>>,
    pub(super) rest: Vec<Batch<'a>>,
    /// All bytes of whole batches.
    pub(super) bytes: &'a [u8],
    /// Codec of the last compressed batch.
    pub(super) source: Codec,
}

impl<'a> Analyzed<'a> {
    pub(super) fn iter(&self) -> impl Iterator<Item = &Batch<'a>> {
        self.first.iter().chain(&self.rest)
    }
}

impl Validation<'_> {
    /// Size, CRC and header of each batch, and the rules of the request's version.
    pub(super) fn analyze<'a>(&self, records: &'a [u8]) -> Result<Analyzed<'a>, InvalidRecords> {
        let mut analyzed = Analyzed {
            first: None,
            rest: Vec::new(),
            bytes: &[],
            source: Codec::None,
        };
        let mut position = 0;
        loop {
            let batch = match self.analyze_batch(&records[position..], position) {
                Ok(Some(batch)) => batch,
                Ok(None) => break,
                Err(error) => return Err(error),
            };
            position += batch.size_bytes();
            if batch.codec() != Codec::None {
                analyzed.source = batch.codec();
            }
            match analyzed.first {
                None => analyzed.first = Some(batch),
                Some(_) => analyzed.rest.push(batch),
            }
            self.check_request(&batch, analyzed.rest.len())?;
        }
        analyzed.bytes = &records[..position];
        match self.rules.request.produce_version {
            Some(version) if version >= 3 && analyzed.first.is_none() => Err(invalid(format!(
                "Produce requests with version {version} must have at least one record batch"
            ))),
            _ => Ok(analyzed),
        }
    }

    /// `before` counts the batches before this one.
    fn check_request(&self, batch: &Batch<'_>, before: usize) -> Result<(), InvalidRecords> {
        let Some(version) = self.rules.request.produce_version.filter(|&version| version >= 3) else {
            return Ok(());
        };
        if batch.magic() != Magic::V2 {
            return Err(invalid(format!(
                "Produce requests with version {version} are only allowed to contain record \
                 batches with magic version 2"
            )));
        }
        if version < 7 && batch.codec() == Codec::Zstd {
            return Err(InvalidRecords::UnsupportedCompression {
                message: format!(
                    "Produce requests with version {version} are not allowed to use ZStandard compression"
                ),
            });
        }
        if before > 0 {
            return Err(invalid(format!(
                "Produce requests with version {version} are only allowed to contain exactly one record batch"
            )));
        }
        Ok(())
    }

    /// The next batch of the request at `bytes`; `None` if there is no whole one.
    fn analyze_batch<'a>(&self, bytes: &'a [u8], at: usize) -> Result<Option<Batch<'a>>, InvalidRecords> {
        if bytes.is_empty() {
            return Ok(None);
        }
        let (size, magic) = match size_and_magic(bytes) {
            Ok(found) => found,
            Err(error) if error.is_partial() => return Ok(None),
            Err(error) => return Err(corrupt(error.shifted(at))),
        };
        let Some(bytes) = bytes.get(..size) else {
            return Ok(None);
        };
        if magic == Magic::V2 && self.rules.origin == AppendOrigin::Client {
            let base = i64::from_be_bytes(array(bytes, 0).unwrap_or_default());
            if base != 0 {
                return Err(invalid(format!(
                    "The baseOffset of the record batch in the append to {} should be 0, but it is {base}",
                    self.rules.topic_partition
                )));
            }
        }
        self.check_batch_size(size)?;
        verify_crc(bytes, magic).map_err(|error| corrupt(error.shifted(at)))?;
        // the bytes are as they were sent: what is wrong now, the sender meant
        Batch::parse(bytes).map(Some).map_err(|error| match error {
            BatchError::OffsetRange { base, delta, .. } => invalid(format!(
                "Batch has an invalid offset range: [{base}, {}] {}.",
                base.wrapping_add(delta.into()),
                self.rules.in_partition()
            )),
            BatchError::RecordCount { found, .. } => invalid(format!(
                "Invalid reported count for record batch: {found} {}.",
                self.rules.in_partition()
            )),
            error => self.refuse(error.shifted(at)),
        })
    }

    /// `max.message.bytes`.
    pub(super) fn check_batch_size(&self, size_bytes: usize) -> Result<(), InvalidRecords> {
        let limit_bytes = self.rules.max_message_bytes;
        if size_bytes > limit_bytes {
            return Err(InvalidRecords::TooLarge {
                size_bytes,
                limit_bytes,
            });
        }
        Ok(())
    }

    /// What Kafka checks of each batch as a whole.
    pub(super) fn check_batch(&self, first: &Batch<'_>, batch: &Batch<'_>) -> Result<(), InvalidRecords> {
        let partition = &self.rules.topic_partition;
        if first.magic() != batch.magic() {
            return Err(invalid(format!(
                "Batch magic {} is not the same as the first batch'es magic byte {} in topic \
                 partition {partition}.",
                batch.magic() as u8,
                first.magic() as u8
            )));
        }
        if let (Magic::V2, Some(count)) = (batch.magic(), batch.record_count()) {
            if count == 0 {
                return Err(invalid(format!(
                    "Invalid reported count for record batch: 0 in topic partition {partition}."
                )));
            }
            if batch.next_offset().since(batch.base_offset()) != i64::from(count) {
                return Err(invalid(format!(
                    "Inconsistent batch offset range [{}, {}] and count of records {count} in topic \
                     partition {partition}.",
                    batch.base_offset(),
                    batch.last_offset()
                )));
            }
        }
        if self.rules.origin == AppendOrigin::Client {
            if batch.is_control() {
                return Err(invalid(format!(
                    "Clients are not allowed to write control records in topic partition {partition}."
                )));
            }
            if let Some(producer) = batch.producer()
                && producer.base_sequence.is_none()
            {
                return Err(invalid(format!(
                    "Invalid sequence number {} in record batch with producerId {} in topic partition \
                     {partition}.",
                    i32::from_be_bytes(array(batch.bytes(), 53).unwrap_or_default()),
                    producer.id
                )));
            }
        }
        let magic = self.rules.magic;
        let what = match (batch.is_transactional(), batch.producer()) {
            _ if magic == Magic::V2 => return Ok(()),
            (true, _) => "Transactional",
            (_, Some(_)) => "Idempotent",
            _ => return Ok(()),
        };
        let message = format!("{what} records cannot be used with magic version {}", magic as u8);
        Err(InvalidRecords::UnsupportedForFormat { message })
    }
}
