//! One connection to a broker: requests go out in a row, answers come back in the same order.
//!
//! Promise: a request is encoded in the highest version that both sides know, which the broker was asked for when the
//! connection was opened (KIP-511). Up to the caller's taste any number of requests may be under way. Sending and
//! receiving go on together, so that two sides with full buffers do not wait for each other; every wait may be given up
//! and taken up again without losing a byte. A length on the wire sizes no allocation: room is made as bytes arrive.
//! Who sends the same request again and again encodes it once ([`PreparedRequest`]); its bytes are not copied then.
//! Source: `NetworkClient.java`, `Selector.java`.

use std::borrow::Cow;
use std::collections::{HashMap, VecDeque};
use std::io::{self, IoSlice};
use std::ops::RangeInclusive;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{Address, ClientError};
use crate::protocol::messages::api_versions::{ApiVersionsRequest, ApiVersionsResponse};
use crate::protocol::{ApiKey, ErrorCode, Message, Reader, RequestHeader, ResponseHeader, Writer};

/// Room that is made in advance for what arrives.
const READ_SIZE_BYTES: usize = 64 << 10;
/// Room that is made at most at once for a frame that is not here yet.
const READ_AHEAD_SIZE_BYTES: usize = 1 << 20;
/// Pieces that one system call sends at most.
const SLICES_MAX: usize = 16;
/// Where a frame has its correlation id: behind length, API and version.
const CORRELATION_ID_POSITION: usize = 4 + 2 + 2;

/// How a client presents itself and how long it waits.
#[derive(Clone, Debug)]
pub struct ConnectionConfig {
    /// `client.id`: for the broker's quotas and logs.
    pub client_id: String,
    /// For the way to an address; `socket.connection.setup.timeout.ms`.
    pub connect_timeout: Duration,
    /// For one answer; `request.timeout.ms`. A request that itself asks the broker to wait needs more:
    /// [`Connection::call_within`].
    pub request_timeout: Duration,
}

impl Default for ConnectionConfig {
    fn default() -> ConnectionConfig {
        ConnectionConfig {
            client_id: "milena".to_owned(),
            connect_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(30),
        }
    }
}

/// The body of an answer, still encoded.
#[derive(Clone, Debug)]
pub struct Answer {
    address: Address,
    api_key: ApiKey,
    version: i16,
    /// Behind the header.
    body: Bytes,
}

impl Answer {
    /// Reads the answer; what it holds borrows from it.
    ///
    /// # Errors
    /// [`ClientError::Malformed`].
    pub fn decode<'f, A: Message<'f>>(&'f self) -> Result<A, ClientError> {
        debug_assert_eq!(A::KEY, self.api_key, "an answer is read as that of its request");
        A::decode(&mut Reader::new(&self.body), self.version).map_err(|source| ClientError::Malformed {
            address: self.address.clone(),
            api_key: self.api_key,
            source,
        })
    }

    /// Who answered.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// The version of the API in which the question was asked.
    pub fn version(&self) -> i16 {
        self.version
    }

    /// Bytes of the body.
    pub fn body(&self) -> &Bytes {
        &self.body
    }
}

/// A question that is not answered yet.
#[derive(Clone, Copy, Debug)]
struct Pending {
    correlation_id: i32,
    api_key: ApiKey,
    version: i16,
}

/// A request that was encoded once, for [`Connection::send_prepared`]. Between two sends the sender may change it, if it
/// knows the layout.
#[derive(Clone, Debug)]
pub struct PreparedRequest {
    /// With the length in front.
    frame: Vec<u8>,
    /// Bytes of the frame that are sent; what follows them is the sender's affair.
    size: usize,
    api_key: ApiKey,
    version: i16,
    /// By which the sender knows it when it comes back.
    pub tag: usize,
}

impl PreparedRequest {
    /// The whole frame, its length in front, and what [`PreparedRequest::cut`] left out.
    pub fn frame_mut(&mut self) -> &mut Vec<u8> {
        &mut self.frame
    }

    /// Bytes that are sent.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Says how many bytes of the frame are sent from now on.
    ///
    /// # Panics
    /// When the frame has fewer, or they are too few for a length.
    pub fn cut(&mut self, size: usize) {
        assert!((4..=self.frame.len()).contains(&size), "a part of the frame");
        self.size = size;
        self.frame[..4].copy_from_slice(&((size - 4) as u32).to_be_bytes());
    }
}

/// Bytes on their way out.
#[derive(Debug)]
enum Outbound {
    Encoded(BytesMut),
    Prepared(PreparedRequest),
}

impl Outbound {
    fn bytes(&self) -> &[u8] {
        match self {
            Outbound::Encoded(bytes) => bytes,
            Outbound::Prepared(request) => &request.frame[..request.size],
        }
    }
}

/// What is to be sent, in order.
#[derive(Debug, Default)]
struct Outbox {
    rows: VecDeque<Outbound>,
    /// Bytes of the first row that are sent already.
    sent: usize,
    /// Prepared requests that are sent.
    spare: Vec<PreparedRequest>,
}

impl Outbox {
    fn slices(&self) -> ([IoSlice<'_>; SLICES_MAX], usize) {
        let mut slices = [IoSlice::new(&[]); SLICES_MAX];
        let mut filled = 0;
        for (slice, row) in slices.iter_mut().zip(&self.rows) {
            let skipped = if filled == 0 { self.sent } else { 0 };
            *slice = IoSlice::new(&row.bytes()[skipped..]);
            filled += 1;
        }
        (slices, filled)
    }

    fn sent_some(&mut self, sent: io::Result<usize>) -> io::Result<()> {
        self.sent += match sent? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            size => size,
        };
        while let Some(size) = self.rows.front().map(|row| row.bytes().len())
            && self.sent >= size
        {
            self.sent -= size;
            if let Some(Outbound::Prepared(request)) = self.rows.pop_front() {
                self.spare.push(request);
            }
        }
        Ok(())
    }
}

/// See the module. Dropping it closes it.
#[derive(Debug)]
pub struct Connection {
    address: Address,
    config: ConnectionConfig,
    stream: TcpStream,
    versions: HashMap<i16, RangeInclusive<i16>>,
    writer: Writer,
    /// Taken from the writer or prepared, and partly sent.
    outbox: Outbox,
    inbound: BytesMut,
    pending: VecDeque<Pending>,
    next_correlation_id: i32,
}

impl Connection {
    /// Connects and asks for the broker's table of APIs. Of several addresses that a name has, the first that answers.
    ///
    /// # Errors
    /// [`ClientError::Unreachable`], [`ClientError::Shunned`], [`ClientError::NotKafka`], and those of
    /// [`Connection::call`].
    pub async fn open(address: &Address, config: &ConnectionConfig) -> Result<Connection, ClientError> {
        let unreachable = |source| ClientError::Unreachable {
            address: address.clone(),
            source,
        };
        let connecting = TcpStream::connect((&*address.host, address.port));
        let stream = match timeout(config.connect_timeout, connecting).await {
            Ok(connected) => connected.map_err(unreachable)?,
            Err(_) => {
                let text = format!("no answer within {} ms", config.connect_timeout.as_millis());
                return Err(unreachable(io::Error::new(io::ErrorKind::TimedOut, text)));
            }
        };
        stream.set_nodelay(true).map_err(unreachable)?;
        let mut connection = Connection {
            address: address.clone(),
            config: config.clone(),
            stream,
            versions: HashMap::new(),
            writer: Writer::new(),
            outbox: Outbox::default(),
            inbound: BytesMut::new(),
            pending: VecDeque::new(),
            next_correlation_id: 0,
        };
        connection.ask_for_versions().await.map_err(|error| match error {
            ClientError::Disconnected { address, .. } => ClientError::Shunned { address },
            error => error,
        })?;
        Ok(connection)
    }

    /// An old broker answers a version that it does not know in version 0, with what it knows.
    async fn ask_for_versions(&mut self) -> Result<(), ClientError> {
        let mut version = *ApiVersionsRequest::VERSIONS.end();
        loop {
            let request = ApiVersionsRequest {
                client_software_name: Cow::Borrowed("milena"),
                client_software_version: Cow::Borrowed(env!("CARGO_PKG_VERSION")),
            };
            self.send_in(&request, version)?;
            let answer = self
                .within(ApiKey::ApiVersions, self.config.request_timeout)
                .await?;
            let refused = answer
                .body
                .starts_with(&ErrorCode::UnsupportedVersion.code().to_be_bytes());
            if refused && version > 0 {
                version = 0;
                continue;
            }
            let response: ApiVersionsResponse<'_> = answer.decode()?;
            ClientError::check(response.error_code, None, || self.address.to_string())?;
            let rows = response.api_keys.iter();
            self.versions = rows
                .map(|row| (row.api_key, row.min_version..=row.max_version))
                .collect();
            return Ok(());
        }
    }

    pub fn address(&self) -> &Address {
        &self.address
    }

    /// What the broker serves, by the number of the API; also those that this client does not know.
    pub fn versions(&self) -> &HashMap<i16, RangeInclusive<i16>> {
        &self.versions
    }

    /// The highest version of a request that both sides know.
    ///
    /// # Errors
    /// [`ClientError::Unsupported`].
    pub fn version_of<'r, Q: Message<'r>>(&self) -> Result<i16, ClientError> {
        let theirs = self.versions.get(&Q::KEY.id());
        let common = theirs.map(|theirs| {
            let last = *theirs.end().min(Q::VERSIONS.end());
            (last, last >= *theirs.start().max(Q::VERSIONS.start()))
        });
        match common {
            Some((last, true)) => Ok(last),
            _ => Err(ClientError::Unsupported {
                address: self.address.clone(),
                api_key: Q::KEY,
                ours: Q::VERSIONS,
                theirs: theirs.cloned(),
            }),
        }
    }

    #[cfg(test)]
    pub(super) fn inbound_capacity(&self) -> usize {
        self.inbound.capacity()
    }

    /// Questions that are not answered yet.
    pub fn pending(&self) -> usize {
        self.pending.len()
    }

    /// Puts a question in the row; it leaves with the next [`Connection::flush`] or [`Connection::receive`].
    ///
    /// # Errors
    /// [`ClientError::Unsupported`], [`ClientError::Inexpressible`]; nothing is sent then.
    pub fn send<'r, Q: Message<'r>>(&mut self, request: &Q) -> Result<(), ClientError> {
        let version = self.version_of::<Q>()?;
        self.send_in(request, version)
    }

    /// [`Connection::send`] in a version of the caller's choice.
    ///
    /// # Errors
    /// [`ClientError::Inexpressible`].
    pub fn send_in<'r, Q: Message<'r>>(&mut self, request: &Q, version: i16) -> Result<(), ClientError> {
        let pending = self.encode(request, version)?;
        self.pending.push_back(pending);
        Ok(())
    }

    /// [`Connection::send`] of what the broker does not answer: a produce with `acks=0`.
    ///
    /// # Errors
    /// Those of [`Connection::send`].
    pub fn send_unanswered<'r, Q: Message<'r>>(&mut self, request: &Q) -> Result<(), ClientError> {
        let version = self.version_of::<Q>()?;
        self.encode(request, version).map(drop)
    }

    /// Encodes a request without sending it.
    ///
    /// # Errors
    /// Those of [`Connection::send`].
    pub fn prepare<'r, Q: Message<'r>>(&self, request: &Q) -> Result<PreparedRequest, ClientError> {
        let version = self.version_of::<Q>()?;
        let mut writer = Writer::new();
        self.encode_into(&mut writer, request, version, 0)?;
        let frame = writer.as_slice().to_vec();
        Ok(PreparedRequest {
            size: frame.len(),
            frame,
            api_key: Q::KEY,
            version,
            tag: 0,
        })
    }

    /// Puts a prepared request in the row. Once it is sent, [`Connection::reclaim`] gives it back.
    pub fn send_prepared(&mut self, request: PreparedRequest) {
        self.pending.push_back(Pending {
            correlation_id: self.next_correlation_id,
            api_key: request.api_key,
            version: request.version,
        });
        self.send_prepared_unanswered(request);
    }

    /// [`Connection::send_prepared`] of what the broker does not answer.
    pub fn send_prepared_unanswered(&mut self, mut request: PreparedRequest) {
        let id = self.next_correlation_id.to_be_bytes();
        request.frame[CORRELATION_ID_POSITION..CORRELATION_ID_POSITION + 4].copy_from_slice(&id);
        self.next_correlation_id = self.next_correlation_id.wrapping_add(1);
        self.take_encoded();
        self.outbox.rows.push_back(Outbound::Prepared(request));
    }

    /// A prepared request that is sent.
    pub fn reclaim(&mut self) -> Option<PreparedRequest> {
        self.outbox.spare.pop()
    }

    fn encode<'r, Q: Message<'r>>(&mut self, request: &Q, version: i16) -> Result<Pending, ClientError> {
        let correlation_id = self.next_correlation_id;
        let mut writer = std::mem::take(&mut self.writer);
        let encoded = self.encode_into(&mut writer, request, version, correlation_id);
        self.writer = writer;
        encoded?;
        self.next_correlation_id = self.next_correlation_id.wrapping_add(1);
        Ok(Pending {
            correlation_id,
            api_key: Q::KEY,
            version,
        })
    }

    fn encode_into<'r, Q: Message<'r>>(
        &self,
        writer: &mut Writer,
        request: &Q,
        version: i16,
        correlation_id: i32,
    ) -> Result<(), ClientError> {
        let header = RequestHeader {
            api_key: Q::KEY,
            api_version: version,
            correlation_id,
            client_id: Some(Cow::Borrowed(&self.config.client_id)),
        };
        let frame = writer.begin_frame();
        let encoded = header
            .encode(writer)
            .and_then(|()| request.encode(writer, version))
            .and_then(|()| writer.end_frame(frame));
        if let Err(source) = encoded {
            writer.abandon_frame(frame);
            return Err(ClientError::Inexpressible {
                address: self.address.clone(),
                source,
            });
        }
        debug_assert!(writer.splices.is_empty(), "a client's records are in memory");
        Ok(())
    }

    /// Sends all that is in the row, as far as the other side takes it.
    ///
    /// # Errors
    /// [`ClientError::Disconnected`].
    pub async fn flush(&mut self) -> Result<(), ClientError> {
        while self.has_outbound() {
            let (slices, filled) = self.outbox.slices();
            let sent = self.stream.write_vectored(&slices[..filled]).await;
            let sent = self.outbox.sent_some(sent);
            sent.map_err(|source| lost(&self.address, Some(source)))?;
        }
        Ok(())
    }

    fn has_outbound(&mut self) -> bool {
        if self.outbox.rows.is_empty() {
            self.take_encoded();
        }
        !self.outbox.rows.is_empty()
    }

    /// What the writer holds comes behind all that is in the row.
    fn take_encoded(&mut self) {
        if !self.writer.is_empty() {
            let (bytes, _) = self.writer.take();
            self.outbox.rows.push_back(Outbound::Encoded(bytes));
        }
    }

    /// [`Connection::receive`] without waiting: the next answer of those that were read already.
    ///
    /// # Errors
    /// Those of [`Connection::receive`].
    pub fn arrived(&mut self) -> Result<Option<Answer>, ClientError> {
        let frame = self.next_frame()?;
        frame.map(|frame| self.answer(frame)).transpose()
    }

    /// The answer to the oldest question that has none, sending what is left to send meanwhile. Waits for ever.
    ///
    /// # Errors
    /// [`ClientError::Disconnected`], [`ClientError::NotKafka`], [`ClientError::OutOfOrder`],
    /// [`ClientError::Malformed`]; the connection is of no use afterwards.
    pub async fn receive(&mut self) -> Result<Answer, ClientError> {
        loop {
            if let Some(frame) = self.next_frame()? {
                return self.answer(frame);
            }
            let has_outbound = self.has_outbound();
            let (slices, filled) = self.outbox.slices();
            let (mut from, mut to) = self.stream.split();
            tokio::select! {
                biased;
                read = from.read_buf(&mut self.inbound) => match read {
                    Ok(0) => return Err(lost(&self.address, None)),
                    Ok(_) => {}
                    Err(source) => return Err(lost(&self.address, Some(source))),
                },
                sent = to.write_vectored(&slices[..filled]), if has_outbound => {
                    let sent = self.outbox.sent_some(sent);
                    sent.map_err(|source| lost(&self.address, Some(source)))?;
                }
            }
        }
    }

    /// The next frame without its length, if it has arrived; makes room for the rest of it otherwise.
    fn next_frame(&mut self) -> Result<Option<Bytes>, ClientError> {
        let Some(length) = self.inbound.first_chunk::<4>() else {
            self.inbound.reserve(READ_SIZE_BYTES);
            return Ok(None);
        };
        if let Some(found) = impostor(*length) {
            let address = self.address.clone();
            return Err(ClientError::NotKafka { address, found });
        }
        let size = u32::from_be_bytes(*length) as usize;
        if self.inbound.len() - 4 < size {
            let missing = size + 4 - self.inbound.len();
            self.inbound
                .reserve(missing.clamp(READ_SIZE_BYTES, READ_AHEAD_SIZE_BYTES));
            return Ok(None);
        }
        self.inbound.advance(4);
        Ok(Some(self.inbound.split_to(size).freeze()))
    }

    fn answer(&mut self, mut frame: Bytes) -> Result<Answer, ClientError> {
        let Some(pending) = self.pending.pop_front() else {
            let found = "an answer to no question";
            let address = self.address.clone();
            return Err(ClientError::NotKafka { address, found });
        };
        let mut reader = Reader::new(&frame);
        let header = ResponseHeader::decode(&mut reader, pending.api_key, pending.version);
        let header = header.map_err(|source| ClientError::Malformed {
            address: self.address.clone(),
            api_key: pending.api_key,
            source,
        })?;
        if header.correlation_id != pending.correlation_id {
            return Err(ClientError::OutOfOrder {
                address: self.address.clone(),
                found: header.correlation_id,
                expected: pending.correlation_id,
            });
        }
        frame.advance(reader.position());
        Ok(Answer {
            address: self.address.clone(),
            api_key: pending.api_key,
            version: pending.version,
            body: frame,
        })
    }

    /// Asks and waits for the answer. There must be no other question under way.
    ///
    /// # Errors
    /// Those of [`Connection::send`] and [`Connection::receive`], and [`ClientError::TimedOut`], after which the
    /// connection is of no use.
    pub async fn call<'r, Q: Message<'r>>(&mut self, request: &Q) -> Result<Answer, ClientError> {
        self.call_within(request, self.config.request_timeout).await
    }

    /// [`Connection::call`] with a time of its own.
    ///
    /// # Errors
    /// Those of [`Connection::call`].
    pub async fn call_within<'r, Q: Message<'r>>(
        &mut self,
        request: &Q,
        limit: Duration,
    ) -> Result<Answer, ClientError> {
        debug_assert!(self.pending.is_empty(), "a call is alone on its connection");
        self.send(request)?;
        self.within(Q::KEY, limit).await
    }

    /// [`Connection::call`] in a version of the caller's choice.
    ///
    /// # Errors
    /// Those of [`Connection::call`].
    pub async fn call_in<'r, Q: Message<'r>>(
        &mut self,
        request: &Q,
        version: i16,
    ) -> Result<Answer, ClientError> {
        debug_assert!(self.pending.is_empty(), "a call is alone on its connection");
        self.send_in(request, version)?;
        self.within(Q::KEY, self.config.request_timeout).await
    }

    async fn within(&mut self, api_key: ApiKey, after: Duration) -> Result<Answer, ClientError> {
        match timeout(after, self.receive()).await {
            Ok(answer) => answer,
            Err(_) => Err(ClientError::TimedOut {
                address: self.address.clone(),
                api_key,
                after,
            }),
        }
    }
}

#[cold]
fn lost(address: &Address, source: Option<io::Error>) -> ClientError {
    ClientError::Disconnected {
        address: address.clone(),
        source,
    }
}

/// Who speaks, if the first bytes cannot be the length of an answer.
fn impostor(length: [u8; 4]) -> Option<&'static str> {
    match length {
        // Alert records of TLS, versions 1.0 to 1.3.
        [0x15, 0x03, ..] => Some("TLS: this listener is encrypted, which this client does not speak yet"),
        [b'H', b'T', b'T', b'P'] => Some("HTTP"),
        [128..=255, ..] => Some("a frame of negative length"),
        // An answer of half a gigabyte and more.
        [b' '..=b'~', b' '..=b'~', b' '..=b'~', b' '..=b'~'] => {
            Some("a line of text, as other protocols begin with")
        }
        _ => None,
    }
}
