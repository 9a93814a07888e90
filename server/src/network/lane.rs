//! A lane: one thread, one current-thread runtime, its share of the connections for their whole life.
//!
//! Idle connections are swept by one timer a lane, and only while the lane has connections: an idle broker wakes nobody. The first
//! lane lets clients in, for all; listeners come and go by [`ListenerControl`].

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use tokio::net::TcpStream;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::{JoinHandle as Task, LocalSet};
use tracing::{info, warn};

use super::acceptor::{self, OpenListener};
use super::connection::{Connection, READ_BUFFER_SIZE_BYTES};
use super::limits::{Admission, ConnectionLimits};
use super::memory::RequestMemory;
use super::{NetworkConfig, Peer, Reply, RequestHandler};

/// Read buffers kept by a lane for the next connection that becomes readable.
const POOLED_BUFFER_COUNT_MAX: usize = 4;
/// Idle connections are looked for this many times in `connections.max.idle.ms`, but never more often than every quarter second.
const SWEEPS_PER_IDLE_MAX: u32 = 8;
const SWEEP_INTERVAL_MIN: Duration = Duration::from_millis(250);

/// What the sweep knows of a connection.
#[derive(Debug)]
pub(crate) struct Liveness {
    pub(crate) last_active: Cell<Instant>,
    listener: Arc<str>,
    /// Closed to make room for others.
    is_doomed: Cell<bool>,
    /// Ends the connection.
    ended: Notify,
}

/// What the connections of one lane share; never leaves its thread.
pub(crate) struct LaneShared<H: RequestHandler> {
    pub(crate) handler: H,
    pub(crate) config: NetworkConfig,
    /// Shared by all lanes; `None` without a limit.
    pub(crate) memory: Option<Arc<RequestMemory>>,
    buffers: RefCell<Vec<BytesMut>>,
    /// Scratch for the frames and replies of one read.
    pub(crate) frames: RefCell<Vec<Bytes>>,
    pub(crate) replies: RefCell<Vec<Reply>>,
    connections: RefCell<HashMap<u64, Rc<Liveness>>>,
    next_connection: Cell<u64>,
    /// Wakes the sweep when the first connection comes.
    populated: Notify,
}

impl<H: RequestHandler> LaneShared<H> {
    /// An empty buffer of [`READ_BUFFER_SIZE_BYTES`].
    pub(crate) fn take_buffer(&self) -> BytesMut {
        let mut pool = self.buffers.borrow_mut();
        while let Some(mut buffer) = pool.pop() {
            buffer.clear();
            if buffer.try_reclaim(READ_BUFFER_SIZE_BYTES) {
                return buffer;
            }
        }
        BytesMut::with_capacity(READ_BUFFER_SIZE_BYTES)
    }

    /// Makes a connection known to those who may end it.
    fn register(&self, peer: &Peer) -> (u64, Rc<Liveness>) {
        let liveness = Rc::new(Liveness {
            last_active: Cell::new(Instant::now()),
            listener: Arc::clone(&peer.listener),
            is_doomed: Cell::new(false),
            ended: Notify::new(),
        });
        let number = self.next_connection.replace(self.next_connection.get() + 1);
        self.connections.borrow_mut().insert(number, Rc::clone(&liveness));
        self.populated.notify_one();
        (number, liveness)
    }

    /// Ends the connections of a listener.
    fn close_listener(&self, name: &str) {
        for one in self.connections.borrow().values() {
            if &*one.listener == name {
                one.ended.notify_one();
            }
        }
    }

    /// Closes connections that more than `max.connections` are open for, those first that were idle for longest.
    fn close_excess(&self, limits: &ConnectionLimits) {
        let connections = self.connections.borrow();
        let mut connections: Vec<_> = connections.values().filter(|one| !one.is_doomed.get()).collect();
        connections.sort_by_key(|one| one.last_active.get());
        for one in connections {
            if limits.take_excess(&one.listener) {
                one.is_doomed.set(true);
                one.ended.notify_one();
            }
        }
    }

    pub(crate) fn return_buffer(&self, buffer: BytesMut) {
        let mut pool = self.buffers.borrow_mut();
        if pool.len() < POOLED_BUFFER_COUNT_MAX && buffer.capacity() > 0 {
            pool.push(buffer);
        }
    }
}

/// A connection on its way from the acceptor to its lane.
pub(crate) struct Accepted {
    pub(crate) stream: std::net::TcpStream,
    pub(crate) peer: Arc<Peer>,
    pub(crate) admission: Admission,
}

/// What a lane is told.
pub(crate) enum LaneInput {
    Serve(Accepted),
    /// The connections of this listener end.
    Close(Arc<str>),
}

/// What the lane that lets clients in is told.
enum ListenerChange {
    Open(OpenListener),
    Close {
        name: Arc<str>,
        done: std::sync::mpsc::Sender<()>,
    },
}

/// Opens and closes listeners while clients are served.
#[derive(Clone, Debug)]
pub struct ListenerControl(mpsc::UnboundedSender<ListenerChange>);

impl std::fmt::Debug for ListenerChange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ListenerChange::Open(listener) => f.debug_tuple("Open").field(listener).finish(),
            ListenerChange::Close { name, .. } => f.debug_tuple("Close").field(name).finish(),
        }
    }
}

impl ListenerControl {
    /// Clients are let in from now on.
    pub fn open(&self, listener: OpenListener) {
        // Lanes that have stopped let nobody in.
        let _ = self.0.send(ListenerChange::Open(listener));
    }

    /// Nobody is let in any more, and the port is free on return; the listener's connections end. Blocks, not to be called on a lane.
    pub fn close(&self, name: &str) {
        let (done, is_done) = std::sync::mpsc::channel();
        let name = name.into();
        // Lanes that have stopped have closed it.
        let _ = self.0.send(ListenerChange::Close { name, done });
        let _ = is_done.recv();
    }
}

/// Lets clients in through the listeners that are open.
struct Acceptors {
    /// `control.plane.listener.name`, whose connections have a lane of their own.
    reserved: Option<Arc<str>>,
    lane_count: usize,
    inlets: Vec<mpsc::UnboundedSender<LaneInput>>,
    limits: Arc<ConnectionLimits>,
    config: NetworkConfig,
    open: HashMap<Arc<str>, Task<()>>,
    next: Rc<Cell<usize>>,
}

impl Acceptors {
    fn open(&mut self, listener: OpenListener) {
        let name = Arc::clone(&listener.name);
        let (shared, own) = self.inlets.split_at(self.lane_count);
        let is_reserved = self.reserved.as_ref() == Some(&name);
        let inlets = if is_reserved { own } else { shared }.to_vec();
        let next = Rc::clone(&self.next);
        let (limits, config) = (Arc::clone(&self.limits), self.config.clone());
        let task = tokio::task::spawn_local(acceptor::run(listener, inlets, next, limits, config));
        self.open.insert(name, task);
    }

    async fn close(&mut self, name: &Arc<str>) {
        if let Some(task) = self.open.remove(name) {
            task.abort();
            // Its end, by the abort or before, is what is waited for: then the socket is closed.
            let _ = task.await;
        }
        for inlet in &self.inlets {
            // A lane that has stopped has no connections.
            let _ = inlet.send(LaneInput::Close(Arc::clone(name)));
        }
    }

    async fn run(
        mut self,
        listeners: Vec<OpenListener>,
        mut changes: mpsc::UnboundedReceiver<ListenerChange>,
    ) {
        for listener in listeners {
            self.open(listener);
        }
        while let Some(change) = changes.recv().await {
            match change {
                ListenerChange::Open(listener) => self.open(listener),
                ListenerChange::Close { name, done } => {
                    self.close(&name).await;
                    // Whoever asked may have gone.
                    let _ = done.send(());
                }
            }
        }
        // Nobody changes them any more; they stay open as long as the lane.
        std::future::pending::<()>().await;
    }
}

/// The running lanes.
#[derive(Debug)]
pub struct Lanes {
    threads: Vec<JoinHandle<()>>,
    stop: watch::Sender<bool>,
    listeners: ListenerControl,
}

impl Lanes {
    /// Starts the lanes and lets clients in. `handler` is called once on each lane's thread.
    pub fn start<H, F>(
        config: NetworkConfig,
        listeners: Vec<OpenListener>,
        limits: Arc<ConnectionLimits>,
        handler: F,
    ) -> io::Result<Lanes>
    where
        H: RequestHandler,
        F: Fn(usize) -> H + Send + Clone + 'static,
    {
        let (stop, stopped) = watch::channel(false);
        let mut inlets = Vec::new();
        let mut outlets = Vec::new();
        let reserved = config.reserved_listener.clone();
        for _ in 0..config.lane_count + usize::from(reserved.is_some()) {
            let (inlet, outlet) = mpsc::unbounded_channel();
            inlets.push(inlet);
            outlets.push(outlet);
        }
        let memory = config.queued_size_bytes_max.map(RequestMemory::new);
        let (control, changes) = mpsc::unbounded_channel();
        let mut acceptors = Some((listeners, inlets, changes));
        let mut threads = Vec::new();
        for (index, outlet) in outlets.into_iter().enumerate() {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_io()
                .enable_time()
                .build()?;
            let (config, handler, limits) = (config.clone(), handler.clone(), Arc::clone(&limits));
            let (memory, reserved, lane_count) = (memory.clone(), reserved.clone(), config.lane_count);
            let (stopped, acceptors) = (stopped.clone(), acceptors.take());
            let lane = move || {
                let local = LocalSet::new();
                local.block_on(&runtime, async move {
                    if let Some((listeners, inlets, changes)) = acceptors {
                        let acceptors = Acceptors {
                            reserved,
                            lane_count,
                            inlets,
                            limits: Arc::clone(&limits),
                            config: config.clone(),
                            open: HashMap::new(),
                            next: Rc::default(),
                        };
                        tokio::task::spawn_local(acceptors.run(listeners, changes));
                    }
                    run(config, memory, handler(index), &limits, outlet, stopped).await;
                });
                // Connections still open are dropped with the LocalSet.
            };
            threads.push(
                std::thread::Builder::new()
                    .name(format!("lane-{index}"))
                    .spawn(lane)?,
            );
        }
        let listeners = ListenerControl(control);
        Ok(Lanes {
            threads,
            stop,
            listeners,
        })
    }

    /// What opens and closes listeners.
    pub fn listeners(&self) -> ListenerControl {
        self.listeners.clone()
    }

    /// Closes all connections and listeners and waits for the lanes to end.
    pub fn stop(self) {
        self.stop.send_replace(true);
        for thread in self.threads {
            if thread.join().is_err() {
                warn!(target: "kafka.network.SocketServer", "a lane ended by a panic");
            }
        }
    }
}

async fn run<H: RequestHandler>(
    config: NetworkConfig,
    memory: Option<Arc<RequestMemory>>,
    handler: H,
    limits: &ConnectionLimits,
    mut outlet: mpsc::UnboundedReceiver<LaneInput>,
    mut stopped: watch::Receiver<bool>,
) {
    let shared = Rc::new(LaneShared {
        handler,
        config,
        memory,
        buffers: RefCell::new(Vec::new()),
        frames: RefCell::new(Vec::new()),
        replies: RefCell::new(Vec::new()),
        connections: RefCell::new(HashMap::new()),
        next_connection: Cell::new(0),
        populated: Notify::new(),
    });
    if let Some(idle_max) = shared.config.idle_max {
        tokio::task::spawn_local(sweep(Rc::clone(&shared), idle_max));
    }
    let mut excess = limits.excess();
    loop {
        tokio::select! {
            _ = stopped.changed() => return,
            _ = excess.changed() => shared.close_excess(limits),
            input = outlet.recv() => match input {
                Some(LaneInput::Serve(accepted)) => {
                    let known = shared.register(&accepted.peer);
                    tokio::task::spawn_local(serve(Rc::clone(&shared), accepted, known));
                }
                Some(LaneInput::Close(listener)) => shared.close_listener(&listener),
                None => return,
            },
        }
    }
}

/// The life of one connection, which is known already.
async fn serve<H: RequestHandler>(
    shared: Rc<LaneShared<H>>,
    accepted: Accepted,
    (number, liveness): (u64, Rc<Liveness>),
) {
    let Accepted {
        stream,
        peer,
        mut admission,
    } = accepted;
    let stream = match TcpStream::from_std(stream) {
        Ok(stream) => stream,
        Err(error) => {
            warn!(target: "kafka.network.SocketServer", "cannot serve {}: {error}", peer.address);
            shared.connections.borrow_mut().remove(&number);
            return;
        }
    };
    let mut connection = Connection::new(
        stream,
        Arc::clone(&peer),
        Rc::clone(&shared),
        Rc::clone(&liveness),
    );
    let ending = tokio::select! {
        biased;
        ending = poll_fn(|cx| connection.poll(cx)) => ending,
        () = liveness.ended.notified() => None,
    };
    if let Some(reason) = ending {
        info!(target: "kafka.network.SocketServer", "closing the connection of {}: {reason}", peer.address);
    }
    shared.connections.borrow_mut().remove(&number);
    if liveness.is_doomed.get() {
        admission.doom();
    }
}

/// Ends connections on which nothing happened for `connections.max.idle.ms`; sleeps for good while there are none.
async fn sweep<H: RequestHandler>(shared: Rc<LaneShared<H>>, idle_max: Duration) {
    let interval = (idle_max / SWEEPS_PER_IDLE_MAX).max(SWEEP_INTERVAL_MIN);
    loop {
        if shared.connections.borrow().is_empty() {
            shared.populated.notified().await;
        }
        tokio::time::sleep(interval).await;
        for liveness in shared.connections.borrow().values() {
            if liveness.last_active.get().elapsed() >= idle_max {
                liveness.ended.notify_one();
            }
        }
    }
}
