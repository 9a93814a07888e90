//! One connection to a server: frames out, frames in, in a task of its own.
//!
//! It tells what happens by events with its number. Frames are sent in order; once it is given up the rest is sent, within a second, and
//! the connection closed. Room for a frame is made as its bytes arrive: a length sizes no allocation.

use std::io;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::connect_string::ServerAddress;
use super::session::ConnectionNumber;
use super::tls::TlsClient;

/// Room that is made in advance for what arrives.
const READ_SIZE_BYTES: usize = 16 << 10;
/// How long a connection that is given up may take to send what it was given.
const LINGER: Duration = Duration::from_secs(1);

/// What happens to a connection.
#[derive(Debug)]
pub(super) enum Event {
    Opened,
    Received(Bytes),
    Lost(io::Error),
}

/// Gives a connection frames to send.
#[derive(Debug)]
pub(super) struct Connection {
    frames: UnboundedSender<Vec<u8>>,
    task: JoinHandle<()>,
}

impl Connection {
    /// Begins to open one, on the `LocalSet` of the current thread.
    pub(super) fn open(
        number: ConnectionNumber,
        server: ServerAddress,
        tls: Option<TlsClient>,
        events: UnboundedSender<(ConnectionNumber, Event)>,
    ) -> Connection {
        let (frames, to_send) = unbounded_channel();
        let task = tokio::task::spawn_local(async move {
            let tell = |event| {
                // Who does not listen any more has ended the session.
                let _ = events.send((number, event));
            };
            if let Err(error) = serve(&server, tls, to_send, tell).await {
                tell(Event::Lost(error));
            }
        });
        Connection { frames, task }
    }

    pub(super) fn send(&self, frame: Vec<u8>) {
        // A connection that is lost says so by its event.
        let _ = self.frames.send(frame);
    }

    /// Closes it, once what it was given is sent or a second is over.
    pub(super) fn give_up(self) {
        let Connection { frames, mut task } = self;
        drop(frames);
        tokio::task::spawn_local(async move {
            if timeout(LINGER, &mut task).await.is_err() {
                task.abort();
            }
        });
    }
}

/// The bytes of a server, by TLS or not.
trait Stream: AsyncRead + AsyncWrite + Unpin {}

impl<S: AsyncRead + AsyncWrite + Unpin> Stream for S {}

/// Until it is given up, which is no error, or lost.
async fn serve(
    server: &ServerAddress,
    tls: Option<TlsClient>,
    mut frames: UnboundedReceiver<Vec<u8>>,
    tell: impl Fn(Event),
) -> io::Result<()> {
    let open = async {
        let stream = TcpStream::connect((server.host.as_str(), server.port)).await?;
        stream.set_nodelay(true)?;
        let Some(TlsClient(config)) = tls else {
            return Ok(Box::new(stream) as Box<dyn Stream>);
        };
        let name = ServerName::try_from(server.host.clone()).map_err(io::Error::other)?;
        let stream = TlsConnector::from(config).connect(name, stream).await?;
        Ok::<_, io::Error>(Box::new(stream) as Box<dyn Stream>)
    };
    let stream = tokio::select! {
        stream = open => stream?,
        // Nothing is sent before it is open: it is given up.
        _ = frames.recv() => return Ok(()),
    };
    tell(Event::Opened);
    let (reader, writer) = tokio::io::split(stream);
    tokio::select! {
        lost = receive(reader, tell) => lost,
        sent = send(writer, frames) => sent,
    }
}

async fn send(mut writer: impl AsyncWrite + Unpin, mut frames: UnboundedReceiver<Vec<u8>>) -> io::Result<()> {
    let mut together = Vec::new();
    while let Some(frame) = frames.recv().await {
        together.extend_from_slice(&frame);
        while let Ok(frame) = frames.try_recv() {
            together.extend_from_slice(&frame);
        }
        writer.write_all(&together).await?;
        writer.flush().await?;
        together.clear();
    }
    writer.shutdown().await
}

async fn receive(mut reader: impl AsyncRead + Unpin, tell: impl Fn(Event)) -> io::Result<()> {
    let mut buffer = BytesMut::new();
    loop {
        buffer.reserve(READ_SIZE_BYTES);
        if reader.read_buf(&mut buffer).await? == 0 {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the server closed it",
            ));
        }
        while let Some(length) = buffer.first_chunk::<4>() {
            let found = i32::from_be_bytes(*length);
            let size = usize::try_from(found).map_err(|_| {
                let reason = format!("found a frame of {found} bytes");
                io::Error::new(io::ErrorKind::InvalidData, reason)
            })?;
            if buffer.len() < 4 + size {
                break;
            }
            buffer.advance(4);
            tell(Event::Received(buffer.split_to(size).freeze()));
        }
    }
}
