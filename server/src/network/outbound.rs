//! What waits to be sent on one connection: bytes and file ranges, in order.
//!
//! Small answers are gathered into one buffer and leave in one `send`; a range leaves by `sendfile`, its frame's head held back
//! with `MSG_MORE` so that head and data share packets. Where a file has no descriptor (the simulated disk) its bytes are read.
//! Watched by S6 of `docs/benchmarks.md`.

use std::collections::VecDeque;
use std::io;
use std::os::fd::AsFd;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use rustix::net::SendFlags;
use tokio::io::Interest;
use tokio::net::TcpStream;

use super::{FileRange, Response};

/// Answers up to this size are copied behind the one before, so that they share a send.
const GATHER_SIZE_BYTES_MAX: usize = 16 * 1024;
/// Most that a connection sends before others on the lane have a turn, however fast its reader is.
const TURN_SIZE_BYTES_MAX: usize = 512 * 1024;
/// Read at once from a file without descriptor.
const READ_SIZE_BYTES: usize = 64 * 1024;

#[derive(Debug)]
enum Chunk {
    Bytes(BytesMut),
    Range(FileRange),
}

#[derive(Debug, Default)]
pub(crate) struct Outbound {
    chunks: VecDeque<Chunk>,
    /// Bytes in memory; ranges cost nothing and are not counted.
    buffered_bytes: usize,
}

impl Outbound {
    pub(crate) fn buffered_bytes(&self) -> usize {
        self.buffered_bytes
    }

    pub(crate) fn push(&mut self, response: Response) {
        let Response { mut bytes, ranges } = response;
        let mut taken = 0;
        for (at, range) in ranges {
            if at > taken {
                self.push_bytes(bytes.split_to(at - taken));
                taken = at;
            }
            if range.size_bytes > 0 {
                self.chunks.push_back(Chunk::Range(range));
            }
        }
        if !bytes.is_empty() {
            self.push_bytes(bytes);
        }
    }

    fn push_bytes(&mut self, bytes: BytesMut) {
        self.buffered_bytes += bytes.len();
        match self.chunks.back_mut() {
            Some(Chunk::Bytes(last)) if last.len() + bytes.len() <= GATHER_SIZE_BYTES_MAX => {
                last.extend_from_slice(&bytes);
            }
            _ => self.chunks.push_back(Chunk::Bytes(bytes)),
        }
    }

    /// Sends what the socket takes, up to [`TURN_SIZE_BYTES_MAX`]; then it asks to be polled again behind the others.
    /// `Ready(Ok)` when all is sent.
    pub(crate) fn poll_send(&mut self, stream: &TcpStream, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut turn_bytes = 0;
        while let Some(chunk) = self.chunks.front() {
            if turn_bytes >= TURN_SIZE_BYTES_MAX {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            let more = self.chunks.len() > 1;
            let sent = match chunk {
                Chunk::Bytes(bytes) => stream.try_io(Interest::WRITABLE, || {
                    let mut flags = SendFlags::NOSIGNAL;
                    flags.set(SendFlags::MORE, more);
                    Ok(rustix::net::send(stream.as_fd(), bytes, flags)?)
                }),
                Chunk::Range(range) => stream.try_io(Interest::WRITABLE, || send_range(stream, range)),
            };
            match sent {
                Ok(count) => {
                    turn_bytes += count;
                    self.advance(count);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    ready!(stream.poll_write_ready(cx))?;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        Poll::Ready(Ok(()))
    }

    fn advance(&mut self, count: usize) {
        let finished = match self.chunks.front_mut().expect("a chunk was being sent") {
            Chunk::Bytes(bytes) => {
                bytes.advance(count);
                self.buffered_bytes -= count;
                bytes.is_empty()
            }
            Chunk::Range(range) => {
                range.position += count as u64;
                range.size_bytes -= count;
                range.size_bytes == 0
            }
        };
        if finished {
            self.chunks.pop_front();
        }
    }
}

fn send_range(stream: &TcpStream, range: &FileRange) -> io::Result<usize> {
    let ended = || {
        io::Error::new(
            io::ErrorKind::UnexpectedEof,
            format!(
                "{} ended at byte {} while {} bytes of it were promised",
                range.file.path().display(),
                range.position,
                range.size_bytes
            ),
        )
    };
    let Some(descriptor) = range.file.descriptor() else {
        let mut buffer = vec![0; range.size_bytes.min(READ_SIZE_BYTES)];
        let count = range
            .file
            .read_at(range.position, &mut buffer)
            .map_err(io::Error::other)?;
        if count == 0 {
            return Err(ended());
        }
        return Ok(rustix::net::send(
            stream.as_fd(),
            &buffer[..count],
            SendFlags::NOSIGNAL,
        )?);
    };
    let mut position = range.position;
    let size = range.size_bytes.min(TURN_SIZE_BYTES_MAX);
    let count = rustix::fs::sendfile(stream.as_fd(), descriptor, Some(&mut position), size)?;
    if count == 0 { Err(ended()) } else { Ok(count) }
}
