//! What a client and a server of ZooKeeper say to each other, as bytes: the greeting, requests, replies, notifications.
//!
//! Only operations that servers since 3.4 know. A change is always a multi, of one operation too: one form on the wire, with the
//! same error for the same operation. The codes are those of `ZooDefs.java` and `KeeperException.java`, the layouts those of
//! `zookeeper.jute`.

use bytes::Bytes;
use milena_engine::units::TimestampMs;

use super::jute::{Malformed, Reader, Writer};
use crate::coordination::znodes::Acl;
use crate::coordination::{
    CoordinationError, CreateMode, ExpectedVersion, MultiError, Operation, OperationResult, Stat,
    WatchEventKind, parent,
};

/// Numbers that take the place of a request's own in frames that are no ordinary reply.
pub(super) mod xid {
    pub(in super::super) const NOTIFICATION: i32 = -1;
    pub(in super::super) const PING: i32 = -2;
    pub(in super::super) const AUTH: i32 = -4;
    pub(in super::super) const SET_WATCHES: i32 = -8;
}

mod operation {
    pub(super) const CREATE: i32 = 1;
    pub(super) const DELETE: i32 = 2;
    pub(super) const EXISTS: i32 = 3;
    pub(super) const GET_DATA: i32 = 4;
    pub(super) const SET_DATA: i32 = 5;
    pub(super) const GET_CHILDREN: i32 = 8;
    pub(super) const SYNC: i32 = 9;
    pub(super) const PING: i32 = 11;
    pub(super) const CHECK: i32 = 13;
    pub(super) const MULTI: i32 = 14;
    pub(super) const AUTH: i32 = 100;
    pub(super) const SET_WATCHES: i32 = 101;
    pub(super) const SASL: i32 = 102;
    pub(super) const CLOSE: i32 = -11;
    pub(super) const ERROR: i32 = -1;
}

/// What a server answers instead of a result.
mod code {
    pub(super) const OK: i32 = 0;
    pub(super) const RUNTIME_INCONSISTENCY: i32 = -2;
    pub(super) const NO_NODE: i32 = -101;
    pub(super) const NO_AUTH: i32 = -102;
    pub(super) const BAD_VERSION: i32 = -103;
    pub(super) const NO_CHILDREN_FOR_EPHEMERALS: i32 = -108;
    pub(super) const NODE_EXISTS: i32 = -110;
    pub(super) const NOT_EMPTY: i32 = -111;
    pub(super) const SESSION_EXPIRED: i32 = -112;
    pub(super) const SESSION_MOVED: i32 = -118;
}

/// Bytes of the password of a session that is not there yet.
pub(super) const PASSWORD_SIZE_BYTES: usize = 16;

/// The first frame on a connection.
#[derive(Clone, Debug)]
pub(super) struct Greeting<'a> {
    pub(super) last_zxid: i64,
    pub(super) timeout_ms: i32,
    /// 0 asks for a new session.
    pub(super) session_id: i64,
    pub(super) password: &'a [u8],
}

impl Greeting<'_> {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut frame = Writer::new();
        frame
            .int(0)
            .long(self.last_zxid)
            .int(self.timeout_ms)
            .long(self.session_id)
            .buffer(Some(self.password))
            .bool(false);
        frame.finish()
    }
}

/// A server's answer to a [`Greeting`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Welcome {
    /// 0 or less: the session that was asked for is over.
    pub(super) timeout_ms: i32,
    pub(super) session_id: i64,
    pub(super) password: Bytes,
}

impl Welcome {
    /// Servers before 3.4 say nothing of read-only, and this client asks for none.
    pub(super) fn decode(frame: Bytes) -> Result<Welcome, Malformed> {
        let mut reader = Reader::new(frame);
        reader.int("protocol version")?;
        Ok(Welcome {
            timeout_ms: reader.int("session timeout")?,
            session_id: reader.long("session id")?,
            password: reader.buffer("session password")?.unwrap_or_default(),
        })
    }
}

/// What may be asked of a server once there is a session. Paths are whole, the chroot included.
#[derive(Clone, Debug)]
pub(super) enum Request {
    Exists {
        path: String,
        watch: bool,
    },
    GetData {
        path: String,
        watch: bool,
    },
    GetChildren {
        path: String,
        watch: bool,
    },
    /// Each creation with the rights of its node.
    Multi(Vec<(Operation, &'static [Acl])>),
}

/// What a server made of a [`Request`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reply {
    Exists(Stat),
    Data(Option<Bytes>, Stat),
    Children(Vec<String>),
    Multi(Result<Vec<OperationResult>, MultiError>),
}

impl Request {
    pub(super) fn encode(&self, xid: i32) -> Vec<u8> {
        let mut frame = Writer::new();
        frame.int(xid);
        match self {
            Request::Exists { path, watch } => frame.int(operation::EXISTS).string(path).bool(*watch),
            Request::GetData { path, watch } => frame.int(operation::GET_DATA).string(path).bool(*watch),
            Request::GetChildren { path, watch } => {
                frame.int(operation::GET_CHILDREN).string(path).bool(*watch)
            }
            Request::Multi(operations) => {
                frame.int(operation::MULTI);
                for (operation, acl) in operations {
                    encode_operation(&mut frame, operation, acl);
                }
                frame.int(-1).bool(true).int(-1)
            }
        };
        frame.finish()
    }

    /// It changes nothing, so that it may be sent again.
    pub(super) fn is_read(&self) -> bool {
        !matches!(self, Request::Multi(_))
    }

    /// The path whose watch the request sets, and the one that an error is about.
    fn path(&self) -> &str {
        match self {
            Request::Exists { path, .. }
            | Request::GetData { path, .. }
            | Request::GetChildren { path, .. } => path,
            Request::Multi(operations) => operations.first().map_or("", |(operation, _)| operation.path()),
        }
    }

    /// What the reply says, the header of which had this code.
    pub(super) fn read_reply(
        &self,
        code: i32,
        reader: &mut Reader,
    ) -> Result<Result<Reply, CoordinationError>, Malformed> {
        if code != code::OK {
            return Ok(Err(error_of(code, self.path(), None)));
        }
        let reply = match self {
            Request::Exists { .. } => Reply::Exists(read_stat(reader)?),
            Request::GetData { .. } => {
                let data = reader.buffer("data")?;
                Reply::Data(data, read_stat(reader)?)
            }
            Request::GetChildren { .. } => {
                let count = reader.count("children")?;
                let mut children = Vec::new();
                for _ in 0..count {
                    children.push(reader.string("child")?);
                }
                Reply::Children(children)
            }
            Request::Multi(operations) => Reply::Multi(read_multi(operations, reader)?),
        };
        Ok(Ok(reply))
    }
}

fn encode_operation(frame: &mut Writer, operation: &Operation, acl: &[Acl]) {
    let mut header = |kind| {
        frame.int(kind).bool(false).int(-1);
    };
    let version = |expected: &ExpectedVersion| match expected {
        ExpectedVersion::Any => -1,
        ExpectedVersion::Exactly(version) => *version,
    };
    match operation {
        Operation::Check { path, version } => {
            header(operation::CHECK);
            frame.string(path).int(*version);
        }
        Operation::Create { path, data, mode } => {
            header(operation::CREATE);
            frame.string(path).buffer(data.as_deref()).count(acl.len());
            for one in acl {
                frame.int(one.permissions).string(one.scheme).string(one.id);
            }
            frame.int(match mode {
                CreateMode::Persistent => 0,
                CreateMode::Ephemeral => 1,
                CreateMode::PersistentSequential => 2,
                CreateMode::EphemeralSequential => 3,
            });
        }
        Operation::SetData { path, data, expected } => {
            header(operation::SET_DATA);
            frame.string(path).buffer(data.as_deref()).int(version(expected));
        }
        Operation::Delete { path, expected } => {
            header(operation::DELETE);
            frame.string(path).int(version(expected));
        }
    }
}

fn read_multi(
    operations: &[(Operation, &'static [Acl])],
    reader: &mut Reader,
) -> Result<Result<Vec<OperationResult>, MultiError>, Malformed> {
    let mut results = Vec::new();
    let mut failed: Option<MultiError> = None;
    for (index, (operation, _)) in operations.iter().enumerate() {
        let kind = reader.int("kind of a result")?;
        let is_end = reader.bool("end of a multi")?;
        reader.int("code of a result")?;
        if is_end {
            let found = format!("{index} results of {}", operations.len());
            return Err(Malformed { what: "multi", found });
        }
        if kind == operation::ERROR {
            let code = reader.int("code of an operation")?;
            // The others of a multi that failed: those before have no error, those behind were not tried.
            if code != code::OK && code != code::RUNTIME_INCONSISTENCY {
                let error = error_of(code, operation.path(), Some(operation));
                failed.get_or_insert(MultiError { index, error });
            }
            continue;
        }
        results.push(match operation {
            Operation::Check { .. } => OperationResult::Checked,
            Operation::Create { .. } => OperationResult::Created {
                path: reader.string("path")?,
            },
            Operation::SetData { .. } => OperationResult::Set(read_stat(reader)?),
            Operation::Delete { .. } => OperationResult::Deleted,
        });
    }
    if let Some(failed) = failed {
        return Ok(Err(failed));
    }
    match results.len() == operations.len() {
        true => Ok(Ok(results)),
        false => Err(Malformed {
            what: "multi",
            found: format!("{} results of {} and no error", results.len(), operations.len()),
        }),
    }
}

fn read_stat(reader: &mut Reader) -> Result<Stat, Malformed> {
    let czxid = reader.long("czxid")?;
    let mzxid = reader.long("mzxid")?;
    let ctime = TimestampMs(reader.long("ctime")?);
    let mtime = TimestampMs(reader.long("mtime")?);
    let version = reader.int("version")?;
    let cversion = reader.int("cversion")?;
    reader.int("aversion")?;
    let owner = reader.long("ephemeralOwner")?;
    reader.int("dataLength")?;
    let child_count = reader.int("numChildren")?;
    reader.long("pzxid")?;
    Ok(Stat {
        czxid,
        mzxid,
        ctime,
        mtime,
        version,
        cversion,
        ephemeral_owner: (owner != 0).then_some(owner),
        child_count,
    })
}

fn error_of(code: i32, path: &str, operation: Option<&Operation>) -> CoordinationError {
    // What is wrong with a creation is wrong with the parent.
    let path = match (operation, code) {
        (Some(Operation::Create { .. }), code::NO_NODE | code::NO_CHILDREN_FOR_EPHEMERALS) => {
            parent(path).unwrap_or(path)
        }
        _ => path,
    };
    let path = path.to_owned();
    match code {
        code::NO_NODE => CoordinationError::NoNode { path },
        code::NODE_EXISTS => CoordinationError::NodeExists { path },
        code::BAD_VERSION => {
            let expected = match operation {
                Some(Operation::Check { version, .. }) => *version,
                Some(
                    Operation::SetData {
                        expected: ExpectedVersion::Exactly(version),
                        ..
                    }
                    | Operation::Delete {
                        expected: ExpectedVersion::Exactly(version),
                        ..
                    },
                ) => *version,
                _ => -1,
            };
            CoordinationError::BadVersion { path, expected }
        }
        code::NOT_EMPTY => CoordinationError::NotEmpty { path },
        code::NO_CHILDREN_FOR_EPHEMERALS => CoordinationError::NoChildrenForEphemerals { path },
        code::NO_AUTH => CoordinationError::NotPermitted { path },
        code::SESSION_EXPIRED => CoordinationError::SessionExpired,
        // Another server has the session by now: what was asked of this one did not happen.
        code::SESSION_MOVED => CoordinationError::ConnectionLoss,
        code => CoordinationError::Refused { path, code },
    }
}

/// The beginning of every frame of a server but the first.
#[derive(Clone, Copy, Debug)]
pub(super) struct ReplyHeader {
    pub(super) xid: i32,
    pub(super) zxid: i64,
    pub(super) code: i32,
}

impl ReplyHeader {
    pub(super) fn read(reader: &mut Reader) -> Result<ReplyHeader, Malformed> {
        Ok(ReplyHeader {
            xid: reader.int("xid")?,
            zxid: reader.long("zxid")?,
            code: reader.int("code")?,
        })
    }
}

/// What a watch saw; `None` of a notification that is about the session.
pub(super) fn read_notification(reader: &mut Reader) -> Result<Option<(WatchEventKind, String)>, Malformed> {
    let kind = reader.int("kind of a notification")?;
    reader.int("state of a notification")?;
    let path = reader.string("path of a notification")?;
    Ok(Some(match kind {
        1 => (WatchEventKind::Created, path),
        2 => (WatchEventKind::Deleted, path),
        3 => (WatchEventKind::DataChanged, path),
        4 => (WatchEventKind::ChildrenChanged, path),
        _ => return Ok(None),
    }))
}

pub(super) fn ping() -> Vec<u8> {
    let mut frame = Writer::new();
    frame.int(xid::PING).int(operation::PING);
    frame.finish()
}

/// Has the server catch up with its leader before it reads on.
pub(super) fn sync(xid: i32) -> Vec<u8> {
    let mut frame = Writer::new();
    frame.int(xid).int(operation::SYNC).string("/");
    frame.finish()
}

pub(super) fn close(xid: i32) -> Vec<u8> {
    let mut frame = Writer::new();
    frame.int(xid).int(operation::CLOSE);
    frame.finish()
}

/// Says who is there, in a scheme of one step: `digest` with `name:password`.
pub(super) fn auth(scheme: &str, credentials: &[u8]) -> Vec<u8> {
    let mut frame = Writer::new();
    frame
        .int(xid::AUTH)
        .int(operation::AUTH)
        .int(0)
        .string(scheme)
        .buffer(Some(credentials));
    frame.finish()
}

/// One step of a conversation by SASL.
pub(super) fn sasl(xid: i32, token: &[u8]) -> Vec<u8> {
    let mut frame = Writer::new();
    frame.int(xid).int(operation::SASL).buffer(Some(token));
    frame.finish()
}

/// Watches that a new connection has to set again: the server tells what changed since `zxid`.
#[derive(Debug, Default)]
pub(super) struct WatchedPaths<'a> {
    pub(super) data: Vec<&'a str>,
    pub(super) existence: Vec<&'a str>,
    pub(super) children: Vec<&'a str>,
}

impl WatchedPaths<'_> {
    pub(super) fn encode(&self, zxid: i64) -> Vec<u8> {
        let mut frame = Writer::new();
        frame.int(xid::SET_WATCHES).int(operation::SET_WATCHES).long(zxid);
        for paths in [&self.data, &self.existence, &self.children] {
            frame.strings(paths.iter().copied());
        }
        frame.finish()
    }
}
