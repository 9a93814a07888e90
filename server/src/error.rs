//! The one total match from domain errors to protocol error codes.
//!
//! Domain modules never see it; handlers call it. Each arm follows the class that decides it in 2.7.2 (`Errors.forException` of
//! the exception thrown there).

use milena_engine::error::{AppendError, InvalidRecords, ProducerRefusal, ReadError};

use crate::controller::command::CommandRefusal;
use crate::protocol::ErrorCode;
use crate::replication::PartitionRefusal;

/// What a producer is told about an append that did not happen.
pub fn append_error_code(error: &AppendError) -> ErrorCode {
    match error {
        AppendError::Invalid(invalid) => match invalid {
            InvalidRecords::Corrupt { .. } => ErrorCode::CorruptMessage,
            InvalidRecords::Invalid { .. } => ErrorCode::InvalidRecord,
            InvalidRecords::Timestamp { .. } => ErrorCode::InvalidTimestamp,
            InvalidRecords::TooLarge { .. } => ErrorCode::MessageTooLarge,
            InvalidRecords::SetTooLarge { .. } => ErrorCode::RecordListTooLarge,
            InvalidRecords::UnsupportedCompression { .. } => ErrorCode::UnsupportedCompressionType,
            InvalidRecords::UnsupportedForFormat { .. } => ErrorCode::UnsupportedForMessageFormat,
        },
        AppendError::Producer(refusal) => match refusal {
            ProducerRefusal::OutOfOrderSequence { .. } | ProducerRefusal::NewEpochSequence { .. } => {
                ErrorCode::OutOfOrderSequenceNumber
            }
            ProducerRefusal::StaleEpoch { .. } => ErrorCode::InvalidProducerEpoch,
            ProducerRefusal::CoordinatorFenced { .. } => ErrorCode::TransactionCoordinatorFenced,
            ProducerRefusal::InvalidTransactionState { .. } => ErrorCode::InvalidTxnState,
        },
        AppendError::UnexpectedOffset { .. } => ErrorCode::UnknownServerError,
        AppendError::Storage(_) => ErrorCode::KafkaStorageError,
    }
}

/// What a consumer is told about a read that did not happen.
pub fn read_error_code(error: &ReadError) -> ErrorCode {
    match error {
        ReadError::OffsetOutOfRange { .. } => ErrorCode::OffsetOutOfRange,
        ReadError::Storage(_) => ErrorCode::KafkaStorageError,
    }
}

impl From<PartitionRefusal> for ErrorCode {
    fn from(refusal: PartitionRefusal) -> ErrorCode {
        match refusal {
            PartitionRefusal::Unknown => ErrorCode::UnknownTopicOrPartition,
            PartitionRefusal::NotLeader => ErrorCode::NotLeaderOrFollower,
            PartitionRefusal::FencedLeaderEpoch => ErrorCode::FencedLeaderEpoch,
            PartitionRefusal::UnknownLeaderEpoch => ErrorCode::UnknownLeaderEpoch,
            PartitionRefusal::Offline => ErrorCode::KafkaStorageError,
            PartitionRefusal::StaleLeaderEpoch => ErrorCode::StaleControllerEpoch,
        }
    }
}

impl From<CommandRefusal> for ErrorCode {
    fn from(refusal: CommandRefusal) -> ErrorCode {
        match refusal {
            CommandRefusal::StaleControllerEpoch => ErrorCode::StaleControllerEpoch,
            CommandRefusal::StaleBrokerEpoch => ErrorCode::StaleBrokerEpoch,
            CommandRefusal::UnknownTopicOrPartition => ErrorCode::UnknownTopicOrPartition,
            CommandRefusal::FencedLeaderEpoch => ErrorCode::FencedLeaderEpoch,
            CommandRefusal::KafkaStorageError => ErrorCode::KafkaStorageError,
            CommandRefusal::UnknownServerError => ErrorCode::UnknownServerError,
        }
    }
}
