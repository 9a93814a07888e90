//! What keeps a client from its answer, cut by what the caller does next: try again, ask for another version, tell the user.

use std::fmt;
use std::io;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::Address;
use crate::protocol::{ApiKey, DecodeError, EncodeError, ErrorCode};

/// Why there is no answer, or not the one that was hoped for.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens there, or the name has no address.
    #[error("{address}: cannot connect: {source}")]
    Unreachable { address: Address, source: io::Error },
    /// None of the brokers that the user named let this client in.
    #[error("no broker can be reached{}", Causes(.0))]
    NoBroker(Vec<ClientError>),
    /// The connection ended. What was sent may have been done.
    #[error("{address}: the broker closed the connection{}", Ending(.source.as_ref()))]
    Disconnected {
        address: Address,
        source: Option<io::Error>,
    },
    /// The broker hung up on the first request, as one does that expects something else.
    #[error(
        "{address}: the broker closed the connection at the first request; \
         perhaps this listener wants SASL or TLS, of which this client speaks neither yet, or it is ZooKeeper's port"
    )]
    Shunned { address: Address },
    /// The other side does not speak Kafka's protocol, or not in the clear.
    #[error("{address}: found {found}, expected an answer in Kafka's protocol")]
    NotKafka { address: Address, found: &'static str },
    /// No answer came in time. What was asked may have been done.
    #[error("{address}: no answer to {api_key} within {} ms", .after.as_millis())]
    TimedOut {
        address: Address,
        api_key: ApiKey,
        after: Duration,
    },
    /// There is no version of this API that both sides know.
    #[error("{address}: {}", NoVersion(*.api_key, .ours, .theirs.as_ref()))]
    Unsupported {
        address: Address,
        api_key: ApiKey,
        ours: RangeInclusive<i16>,
        theirs: Option<RangeInclusive<i16>>,
    },
    /// The answer is not what it claims to be.
    #[error("{address}: {api_key}: {source}")]
    Malformed {
        address: Address,
        api_key: ApiKey,
        source: DecodeError,
    },
    /// The answer belongs to another question.
    #[error("{address}: found an answer with correlation id {found}, expected {expected}")]
    OutOfOrder {
        address: Address,
        found: i32,
        expected: i32,
    },
    /// What is asked cannot be said in the version that the broker knows.
    #[error("{address}: the broker is too old for this: {source}")]
    Inexpressible { address: Address, source: EncodeError },
    /// The broker's own word.
    #[error("{what}: {}", Refusal(*.code, .message.as_deref()))]
    Refused {
        /// What it was about: a topic, a partition, a group.
        what: String,
        code: ErrorCode,
        message: Option<String>,
    },
}

impl ClientError {
    /// The error of an answer's error code; `Ok` for `NONE`.
    ///
    /// # Errors
    /// [`ClientError::Refused`] for every other code.
    pub fn check(code: i16, message: Option<&str>, what: impl FnOnce() -> String) -> Result<(), ClientError> {
        match ErrorCode::from_code(code) {
            ErrorCode::None => Ok(()),
            code => Err(ClientError::Refused {
                what: what(),
                code,
                message: message.filter(|text| !text.is_empty()).map(str::to_owned),
            }),
        }
    }

    /// Whether the same may succeed a little later, perhaps at another broker.
    pub fn is_retriable(&self) -> bool {
        match self {
            ClientError::Unreachable { .. }
            | ClientError::NoBroker(_)
            | ClientError::Disconnected { .. }
            // As a broker does also while it stops.
            | ClientError::Shunned { .. }
            | ClientError::TimedOut { .. } => true,
            ClientError::Refused { code, .. } => code.is_retriable(),
            ClientError::NotKafka { .. }
            | ClientError::Unsupported { .. }
            | ClientError::Malformed { .. }
            | ClientError::OutOfOrder { .. }
            | ClientError::Inexpressible { .. } => false,
        }
    }

    /// The code, if it was the broker that refused.
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            ClientError::Refused { code, .. } => Some(*code),
            _ => None,
        }
    }

    /// Whether the connection is of no use any more.
    pub(super) fn ends_connection(&self) -> bool {
        !matches!(
            self,
            ClientError::Refused { .. } | ClientError::Unsupported { .. } | ClientError::Inexpressible { .. }
        )
    }
}

struct Causes<'e>(&'e [ClientError]);

impl fmt::Display for Causes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|cause| write!(f, "\n  {cause}"))
    }
}

struct Ending<'e>(Option<&'e io::Error>);

impl fmt::Display for Ending<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |source| write!(f, ": {source}"))
    }
}

/// The versions of this client, and those of the broker.
struct NoVersion<'e>(ApiKey, &'e RangeInclusive<i16>, Option<&'e RangeInclusive<i16>>);

impl fmt::Display for NoVersion<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let NoVersion(api_key, ours, theirs) = self;
        match theirs {
            None => write!(f, "the broker does not serve {api_key}"),
            Some(theirs) => write!(
                f,
                "the broker serves {api_key} in versions {} to {}, this client speaks {} to {}",
                theirs.start(),
                theirs.end(),
                ours.start(),
                ours.end()
            ),
        }
    }
}

struct Refusal<'e>(ErrorCode, Option<&'e str>);

impl fmt::Display for Refusal<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.1.or_else(|| self.0.message());
        write!(f, "{} ({})", text.unwrap_or_default(), self.0)
    }
}
