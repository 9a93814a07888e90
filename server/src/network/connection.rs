//! One connection: frames in, answers out in order, several requests in work at a time.
//!
//! Kafka works on one request of a connection at a time: it mutes the channel until the answer is sent (`SocketServer.scala`). A
//! client therefore finds in an answer whatever its requests before did: the offset that it committed, the topic that it created,
//! the end of the log behind its records. So a request is handed on only once those before it are answered, with one exception:
//! up to [`IN_FLIGHT_COUNT_MAX`] that follow each other and are of one [`RequestClass`] run side by side, and their answers wait for
//! their turn. No client can tell these from a faster broker: Produce requests append when they are handed on, in order, and only
//! their acknowledgements wait together; Fetch requests move nothing but their session, of which a client has one in flight. Nothing
//! else overtakes anything.
//!
//! Watched by S4 and S2r of `docs/benchmarks.md`.

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::{Buf, BufMut, BytesMut};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use super::lane::{LaneShared, Liveness};
use super::memory::{RequestMemory, RequestMemoryAccount};
use super::outbound::Outbound;
use super::{Peer, Reply, RequestClass, RequestHandler, Response};

/// Requests of one connection in work or waiting to be answered; more are left where they are, read or in the socket.
pub(super) const IN_FLIGHT_COUNT_MAX: usize = 64;
/// Unsent bytes at which a connection is no longer read from.
const UNSENT_SIZE_BYTES_MAX: usize = 1 << 20;
/// What one read may bring when nothing is known of the frame to come.
pub(crate) const READ_BUFFER_SIZE_BYTES: usize = 256 * 1024;
/// Bytes below this size that have to stay move to a buffer of their own size, so that many slow senders cost what they sent.
const KEEP_BUFFER_SIZE_BYTES_MIN: usize = 16 * 1024;
/// How much a buffer with a partial frame grows at a time.
const GROWTH_SIZE_BYTES_MIN: usize = 4 * 1024;
const GROWTH_SIZE_BYTES_MAX: usize = 4 << 20;
/// Bytes of the length prefix.
const PREFIX_SIZE_BYTES: usize = 4;

enum Slot {
    Waiting(Pin<Box<dyn Future<Output = Reply>>>),
    Answered(Response),
    Nothing,
}

/// Why a connection ended; `None` of an orderly end.
pub(crate) type Ending = Option<String>;

pub(crate) struct Connection<H: RequestHandler> {
    stream: TcpStream,
    peer: Arc<Peer>,
    lane: Rc<LaneShared<H>>,
    inbound: BytesMut,
    /// Whether `inbound` may be the rest of a buffer larger than what it holds.
    may_share_buffer: bool,
    slots: VecDeque<Slot>,
    /// Of the requests that were handed on last.
    class: Option<RequestClass>,
    outbound: Outbound,
    /// `None` without a limit.
    memory: Option<RequestMemoryAccount>,
    /// Size of the request that is being read, taken from `memory`; 0 until its length is known.
    reserved_bytes: usize,
    /// Set once the connection must end after what is queued has been sent.
    closing: Option<String>,
    liveness: Rc<Liveness>,
}

impl<H: RequestHandler> Connection<H> {
    pub(crate) fn new(
        stream: TcpStream,
        peer: Arc<Peer>,
        lane: Rc<LaneShared<H>>,
        liveness: Rc<Liveness>,
    ) -> Connection<H> {
        let memory = lane.memory.as_ref().map(RequestMemory::account);
        Connection {
            stream,
            peer,
            lane,
            inbound: BytesMut::new(),
            may_share_buffer: false,
            slots: VecDeque::new(),
            class: None,
            outbound: Outbound::default(),
            memory,
            reserved_bytes: 0,
            closing: None,
            liveness,
        }
    }

    /// Does all that can be done now; `Ready` when the connection is over.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Ending> {
        loop {
            self.poll_slots(cx);
            match self.outbound.poll_send(&self.stream, cx) {
                Poll::Ready(Err(error)) => return Poll::Ready(describe(error)),
                Poll::Ready(Ok(())) if self.closing.is_some() && self.slots.is_empty() => {
                    return Poll::Ready(self.closing.take());
                }
                _ => {}
            }
            let may_read = self.closing.is_none()
                && self.slots.len() < IN_FLIGHT_COUNT_MAX
                && self.outbound.buffered_bytes() < UNSENT_SIZE_BYTES_MAX;
            // What the last read brought goes first: no byte need come for it, so that the socket wakes nobody.
            if may_read && self.take_frames() {
                continue;
            }
            if !may_read || self.holds_frame() || !self.has_memory(cx) {
                self.release_buffer();
                return Poll::Pending;
            }
            match self.poll_read(cx) {
                Poll::Pending => {
                    self.release_buffer();
                    return Poll::Pending;
                }
                Poll::Ready(Err(error)) => return Poll::Ready(describe(error)),
                Poll::Ready(Ok(0)) => return Poll::Ready(None),
                Poll::Ready(Ok(_)) => {
                    self.may_share_buffer = true;
                    self.liveness.last_active.set(Instant::now());
                    self.take_frames();
                }
            }
        }
    }

    /// Whether the next length, or the request whose length is known, may be read.
    fn has_memory(&mut self, cx: &Context<'_>) -> bool {
        let Some(memory) = &mut self.memory else {
            return true;
        };
        match declared_size(&self.inbound) {
            Some(Ok(size)) if self.reserved_bytes == 0 => {
                let has_memory = memory.try_take(size, cx);
                if has_memory {
                    self.reserved_bytes = size;
                }
                has_memory
            }
            _ => true,
        }
    }

    /// How much one read may bring: with a limit no byte of a request for which nothing was taken, only its length.
    fn read_size_bytes_max(&self) -> usize {
        match self.reserved_bytes {
            _ if self.memory.is_none() => usize::MAX,
            0 => PREFIX_SIZE_BYTES - self.inbound.len(),
            reserved => PREFIX_SIZE_BYTES + reserved + PREFIX_SIZE_BYTES - self.inbound.len(),
        }
    }

    /// Polls what waits and moves the answered head of the queue to the socket's queue.
    fn poll_slots(&mut self, cx: &mut Context<'_>) {
        for slot in &mut self.slots {
            while let Slot::Waiting(future) = slot {
                let Poll::Ready(reply) = future.as_mut().poll(cx) else {
                    break;
                };
                *slot = match reply {
                    Reply::Ready(response) => Slot::Answered(response),
                    Reply::Later(future) => Slot::Waiting(future),
                    Reply::Nothing => Slot::Nothing,
                    Reply::Close(reason) => {
                        self.closing.get_or_insert(reason);
                        Slot::Nothing
                    }
                };
                self.liveness.last_active.set(Instant::now());
            }
        }
        while let Some(slot) = self.slots.pop_front() {
            match slot {
                Slot::Answered(response) => self.outbound.push(response),
                Slot::Nothing => {}
                Slot::Waiting(..) => {
                    self.slots.push_front(slot);
                    break;
                }
            }
        }
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let size_bytes_max = self.read_size_bytes_max();
        let spare = self.inbound.capacity() - self.inbound.len();
        if self.inbound.is_empty() && spare < KEEP_BUFFER_SIZE_BYTES_MIN {
            let used_up = std::mem::replace(&mut self.inbound, self.lane.take_buffer());
            self.lane.return_buffer(used_up);
        } else if spare < KEEP_BUFFER_SIZE_BYTES_MIN.min(self.inbound.len()) {
            // Growth follows what has arrived, never what was declared, unless that was taken from a budget.
            let arrived = self.inbound.len();
            let taken = self.reserved_bytes.min(READ_BUFFER_SIZE_BYTES);
            self.inbound.reserve(
                arrived
                    .clamp(GROWTH_SIZE_BYTES_MIN, GROWTH_SIZE_BYTES_MAX)
                    .max(taken),
            );
        }
        let mut inbound = (&mut self.inbound).limit(size_bytes_max);
        let read = std::pin::pin!(self.stream.read_buf(&mut inbound));
        read.poll(cx)
    }

    /// Hands complete frames on, together, as many as may be in work beside those that are; whether something was done.
    fn take_frames(&mut self) -> bool {
        let mut frames = self.lane.frames.take();
        while self.slots.len() + frames.len() < IN_FLIGHT_COUNT_MAX
            && let Some(declared) = declared_size(&self.inbound)
        {
            let size = match declared {
                Ok(size) if size <= self.lane.config.request_size_bytes_max => size,
                Ok(_) | Err(_) => {
                    let declared = declared.map_or_else(i64::from, |size| size as i64);
                    self.closing = Some(format!(
                        "frame length {declared}, expected 0 to socket.request.max.bytes={}",
                        self.lane.config.request_size_bytes_max
                    ));
                    break;
                }
            };
            let Some(frame) = self.inbound.get(PREFIX_SIZE_BYTES..PREFIX_SIZE_BYTES + size) else {
                break;
            };
            let class = self.lane.handler.class(frame);
            let is_alone = self.slots.is_empty() && frames.is_empty();
            if !is_alone && (class.is_none() || class != self.class) {
                break;
            }
            self.class = class;
            self.inbound.advance(PREFIX_SIZE_BYTES);
            frames.push(self.inbound.split_to(size).freeze());
        }
        let has_taken = !frames.is_empty();
        if has_taken {
            let mut replies = self.lane.replies.take();
            self.lane.handler.handle(&self.peer, &mut frames, &mut replies);
            debug_assert!(frames.is_empty(), "the handler takes every frame");
            if let Some(memory) = &mut self.memory {
                // Not with the answers: what waits for replicas would keep the fetches of these replicas from being read.
                memory.give_back(std::mem::take(&mut self.reserved_bytes));
            }
            for reply in replies.drain(..) {
                match reply {
                    Reply::Ready(response) if self.slots.is_empty() => self.outbound.push(response),
                    Reply::Ready(response) => self.slots.push_back(Slot::Answered(response)),
                    Reply::Later(future) => self.slots.push_back(Slot::Waiting(future)),
                    Reply::Nothing => {}
                    Reply::Close(reason) => {
                        self.closing.get_or_insert(reason);
                        break;
                    }
                }
            }
            self.lane.replies.replace(replies);
        }
        self.lane.frames.replace(frames);
        has_taken || self.closing.is_some()
    }

    /// Whether a complete frame waits to be handed on; nothing is read meanwhile.
    fn holds_frame(&self) -> bool {
        matches!(declared_size(&self.inbound), Some(Ok(size)) if self.inbound.len() >= PREFIX_SIZE_BYTES + size)
    }

    /// An idle connection holds no buffer, and one with few bytes no large one.
    fn release_buffer(&mut self) {
        if self.inbound.is_empty() {
            if self.inbound.capacity() > 0 {
                self.lane.return_buffer(std::mem::take(&mut self.inbound));
            }
        } else if self.may_share_buffer && self.inbound.len() < KEEP_BUFFER_SIZE_BYTES_MIN {
            let rest = BytesMut::from(&self.inbound[..]);
            let large = std::mem::replace(&mut self.inbound, rest);
            self.lane.return_buffer(large);
            self.may_share_buffer = false;
        }
    }
}

/// What the length prefix says, if it has arrived; a negative length as it is.
fn declared_size(inbound: &[u8]) -> Option<Result<usize, i32>> {
    let prefix = inbound.first_chunk::<PREFIX_SIZE_BYTES>()?;
    let declared = i32::from_be_bytes(*prefix);
    Some(usize::try_from(declared).map_err(|_| declared))
}

/// Peers that go away are everyday; only the unexpected is worth a line.
fn describe(error: io::Error) -> Ending {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, TimedOut};
    match error.kind() {
        ConnectionReset | BrokenPipe | TimedOut => None,
        _ => Some(error.to_string()),
    }
}
