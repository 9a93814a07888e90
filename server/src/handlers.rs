//! One match on the API key: frames in, replies out. The only place where wire types meet domain types.
//!
//! A run of Produce requests that arrived together is handled together (one write per partition); everything else is decoded,
//! handed to its handler and encoded, one page each. A frame that cannot be decoded closes its connection without an answer, as
//! 2.7.2 does (`KafkaApis.scala`, `RequestContext.java`).

use std::borrow::Cow;
use std::cell::RefCell;
use std::convert::Infallible;
use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use crate::broker::Broker;
use crate::config::ApiVersion;
use crate::network::{FileRange, Peer, Reply, RequestClass, RequestHandler, Response};
use crate::protocol::messages::api_versions::unsupported_version_response;
use crate::protocol::{ApiKey, Message, Reader, RequestHeader, ResponseHeader, Writer};

mod admin_error;
pub mod alter_configs;
pub mod alter_isr;
pub mod alter_partition_reassignments;
pub mod alter_replica_log_dirs;
pub mod api_versions;
mod config_resource;
mod consumer_offset_znodes;
pub mod controlled_shutdown;
mod controller_error;
pub mod create_acls;
pub mod create_partitions;
pub mod create_topics;
pub mod delete_acls;
pub mod delete_groups;
pub mod delete_records;
pub mod delete_topics;
pub mod describe_acls;
pub mod describe_configs;
pub mod describe_groups;
pub mod describe_log_dirs;
pub mod elect_leaders;
pub mod fetch;
pub mod find_coordinator;
mod group_error;
pub mod heartbeat;
pub mod incremental_alter_configs;
pub mod init_producer_id;
pub mod join_group;
pub mod leader_and_isr;
pub mod leave_group;
pub mod list_groups;
pub mod list_offsets;
pub mod list_partition_reassignments;
pub mod metadata;
pub mod offset_commit;
pub mod offset_delete;
pub mod offset_fetch;
pub mod offset_for_leader_epoch;
pub mod produce;
pub mod stop_replica;
pub mod sync_group;
pub mod update_features;
pub mod update_metadata;
pub mod write_txn_markers;

/// What a handler knows of a request beside its body.
#[derive(Clone, Debug)]
pub struct RequestContext {
    pub api_key: ApiKey,
    pub api_version: i16,
    pub correlation_id: i32,
    pub peer: Arc<Peer>,
}

/// A request whose header has been read.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) context: RequestContext,
    frame: Bytes,
    body_position: usize,
}

impl Request {
    pub(crate) fn decode<'a, M: Message<'a>>(&'a self) -> Result<M, String> {
        let mut reader = Reader::new(&self.frame[self.body_position..]);
        M::decode(&mut reader, self.context.api_version).map_err(|error| error.to_string())
    }

    /// What the client calls itself, as Kafka's coordinators see it: empty when absent. Read from the frame by the few that
    /// ask for it.
    pub(crate) fn client_id(&self) -> Cow<'_, str> {
        let header = RequestHeader::decode(&mut Reader::new(&self.frame));
        let header = header.expect("it could be read when the request arrived");
        header.client_id.unwrap_or_default()
    }

    /// The same request in memory of its own, so that waiting for its answer does not hold a whole read buffer.
    fn detached(self) -> Request {
        Request {
            frame: Bytes::copy_from_slice(&self.frame),
            ..self
        }
    }
}

/// Shared by all requests of a lane.
#[derive(Debug)]
pub(crate) struct LaneScope {
    pub(crate) broker: Arc<Broker>,
    writer: RefCell<Writer>,
}

impl LaneScope {
    /// Frames an answer; `ranges` are those of its external payloads, in order.
    pub(crate) fn respond<'m, M: Message<'m>>(
        &self,
        context: &RequestContext,
        message: &M,
        ranges: Vec<FileRange>,
    ) -> Reply {
        self.respond_in(context, message, ranges, context.api_version)
    }

    fn respond_in<'m, M: Message<'m>>(
        &self,
        context: &RequestContext,
        message: &M,
        ranges: Vec<FileRange>,
        version: i16,
    ) -> Reply {
        let mut writer = self.writer.borrow_mut();
        let frame = writer.begin_frame();
        let header = ResponseHeader {
            correlation_id: context.correlation_id,
        };
        header.encode(&mut writer, context.api_key, version);
        let encoded = message.encode(&mut writer, version);
        match encoded.and_then(|()| writer.end_frame(frame)) {
            Ok(()) => {
                let (bytes, splices) = writer.take();
                Reply::Ready(Response {
                    bytes,
                    ranges: splices.into_iter().zip(ranges).collect(),
                })
            }
            Err(error) => {
                writer.abandon_frame(frame);
                tracing::error!(target: "kafka.server.KafkaApis", "cannot encode an answer: {error}");
                Reply::Close(format!("its answer cannot be encoded: {error}"))
            }
        }
    }
}

/// The handlers of one lane.
#[derive(Debug)]
pub struct Handlers {
    scope: Rc<LaneScope>,
}

impl Handlers {
    pub fn new(broker: Arc<Broker>) -> Handlers {
        Handlers {
            scope: Rc::new(LaneScope {
                broker,
                writer: RefCell::new(Writer::new()),
            }),
        }
    }

    fn read_header(&self, peer: &Arc<Peer>, frame: Bytes) -> Result<Request, String> {
        let mut reader = Reader::new(&frame);
        let header = RequestHeader::decode(&mut reader).map_err(|error| error.to_string())?;
        let context = RequestContext {
            api_key: header.api_key,
            api_version: header.api_version,
            correlation_id: header.correlation_id,
            peer: Arc::clone(peer),
        };
        let body_position = reader.position();
        Ok(Request {
            context,
            frame,
            body_position,
        })
    }

    fn dispatch(&self, request: Request) -> Reply {
        /// Of what a handler may find unusable: that closes the connection.
        macro_rules! try_to_serve {
            (|$broker:ident, $context:ident, $message:ident| $answer:expr) => {
                self.later(request, async move |scope, request| {
                    let $broker = &scope.broker;
                    let $context = &request.context;
                    let $message = match request.decode() {
                        Ok(message) => message,
                        Err(reason) => return Reply::Close(reason),
                    };
                    match $answer {
                        Ok(answer) => scope.respond(&request.context, &answer, Vec::new()),
                        Err(unusable) => Reply::Close(unusable.to_string()),
                    }
                })
            };
        }
        macro_rules! serve {
            (|$broker:ident, $context:ident, $message:ident| $answer:expr) => {
                try_to_serve!(|$broker, $context, $message| Ok::<_, Infallible>($answer))
            };
        }
        match request.context.api_key {
            ApiKey::Produce => unreachable!("runs of Produce are taken together"),
            ApiKey::Fetch => fetch::handle(&self.scope, &request),
            ApiKey::ApiVersions => {
                if !crate::protocol::supported_versions(ApiKey::ApiVersions)
                    .is_some_and(|versions| versions.contains(&request.context.api_version))
                {
                    return self.scope.respond_in(
                        &request.context,
                        &unsupported_version_response(),
                        Vec::new(),
                        0,
                    );
                }
                match request.decode() {
                    Ok(message) => {
                        let features_epoch = self.scope.broker.features_epoch.load(Ordering::Acquire);
                        let answer =
                            api_versions::handle(request.context.api_version, &message, features_epoch);
                        self.scope.respond(&request.context, &answer, Vec::new())
                    }
                    Err(reason) => Reply::Close(reason),
                }
            }
            ApiKey::ListOffsets => serve!(|broker, ctx, message| list_offsets::handle(broker, ctx, &message)),
            ApiKey::Metadata => serve!(|broker, ctx, message| metadata::handle(broker, ctx, &message).await),
            ApiKey::LeaderAndIsr => {
                try_to_serve!(|broker, _ctx, message| leader_and_isr::handle(broker, &message).await)
            }
            ApiKey::StopReplica => {
                try_to_serve!(|broker, _ctx, message| stop_replica::handle(broker, &message).await)
            }
            ApiKey::UpdateMetadata => {
                try_to_serve!(|broker, ctx, message| update_metadata::handle(
                    broker,
                    ctx.api_version,
                    &message
                )
                .await)
            }
            ApiKey::FindCoordinator => {
                serve!(|broker, ctx, message| find_coordinator::handle(broker, ctx, &message).await)
            }
            ApiKey::DeleteRecords => {
                serve!(|broker, _ctx, message| delete_records::handle(broker, &message).await)
            }
            ApiKey::InitProducerId => {
                serve!(|broker, _ctx, message| init_producer_id::handle(broker, &message).await)
            }
            ApiKey::WriteTxnMarkers => {
                serve!(|broker, _ctx, message| write_txn_markers::handle(broker, &message).await)
            }
            ApiKey::OffsetForLeaderEpoch => {
                serve!(|broker, _ctx, message| offset_for_leader_epoch::handle(broker, &message))
            }
            ApiKey::AlterReplicaLogDirs => {
                serve!(|broker, _ctx, message| alter_replica_log_dirs::handle(broker, &message).await)
            }
            ApiKey::DescribeLogDirs => {
                serve!(|broker, _ctx, message| describe_log_dirs::handle(broker, &message))
            }
            ApiKey::JoinGroup => self.later(request, async move |scope, request| {
                let (groups, context) = (&scope.broker.groups, &request.context);
                let (version, client_id, host) =
                    (context.api_version, request.client_id(), &context.peer.host);
                match request.decode() {
                    Ok(message) => {
                        let answer = join_group::handle(groups, version, &client_id, host, &message).await;
                        scope.respond(context, &answer, Vec::new())
                    }
                    Err(reason) => Reply::Close(reason),
                }
            }),
            ApiKey::SyncGroup => {
                serve!(
                    |broker, ctx, message| sync_group::handle(&broker.groups, ctx.api_version, &message)
                        .await
                )
            }
            ApiKey::Heartbeat => {
                serve!(|broker, _ctx, message| heartbeat::handle(&broker.groups, &message).await)
            }
            ApiKey::LeaveGroup => {
                serve!(
                    |broker, ctx, message| leave_group::handle(&broker.groups, ctx.api_version, &message)
                        .await
                )
            }
            ApiKey::OffsetCommit => serve!(|broker, ctx, message| {
                let (metadata, tree, now) = (&broker.metadata, &broker.coordination, broker.clock.wall());
                offset_commit::handle(&broker.groups, metadata, tree, ctx.api_version, now, &message).await
            }),
            ApiKey::OffsetFetch => serve!(|broker, ctx, message| {
                let (metadata, tree) = (&broker.metadata, &broker.coordination);
                offset_fetch::handle(&broker.groups, metadata, tree, ctx.api_version, &message).await
            }),
            ApiKey::OffsetDelete => {
                serve!(|broker, _ctx, message| offset_delete::handle(
                    &broker.groups,
                    &broker.metadata,
                    &message
                )
                .await)
            }
            ApiKey::DescribeGroups => {
                serve!(|broker, ctx, message| describe_groups::handle(
                    &broker.groups,
                    ctx.api_version,
                    &message
                ))
            }
            ApiKey::ListGroups => {
                serve!(|broker, _ctx, message| list_groups::handle(&broker.groups, &message))
            }
            ApiKey::DeleteGroups => {
                serve!(|broker, _ctx, message| delete_groups::handle(&broker.groups, &message).await)
            }
            ApiKey::DescribeConfigs => serve!(|broker, ctx, message| {
                describe_configs::handle(&broker.configs, ctx.api_version, &message).await
            }),
            ApiKey::AlterConfigs => {
                serve!(|broker, _ctx, message| alter_configs::handle(&broker.configs, &message).await)
            }
            ApiKey::IncrementalAlterConfigs => {
                serve!(|broker, _ctx, message| {
                    incremental_alter_configs::handle(&broker.configs, &message).await
                })
            }
            ApiKey::DescribeAcls => {
                serve!(|_broker, _ctx, message| describe_acls::handle(&message))
            }
            ApiKey::CreateAcls => {
                serve!(|_broker, _ctx, message| create_acls::handle(&message))
            }
            ApiKey::DeleteAcls => {
                serve!(|_broker, _ctx, message| delete_acls::handle(&message))
            }
            ApiKey::CreateTopics => {
                serve!(|broker, _ctx, message| create_topics::handle(
                    &broker.topics,
                    broker.controller.is_active(),
                    &message
                )
                .await)
            }
            ApiKey::DeleteTopics => serve!(|broker, ctx, message| {
                delete_topics::handle(
                    &broker.topics,
                    broker.controller.is_active(),
                    ctx.api_version,
                    &message,
                )
                .await
            }),
            ApiKey::CreatePartitions => {
                serve!(|broker, _ctx, message| create_partitions::handle(
                    &broker.topics,
                    broker.controller.is_active(),
                    &message
                )
                .await)
            }
            ApiKey::ControlledShutdown => serve!(|broker, _ctx, message| {
                controlled_shutdown::handle(&broker.controller, &message).await
            }),
            ApiKey::AlterIsr => {
                serve!(|broker, _ctx, message| alter_isr::handle(&broker.controller, &message).await)
            }
            ApiKey::ElectLeaders => self.later(request, async move |scope, request| {
                let (controller, metadata) = (&scope.broker.controller, &scope.broker.metadata);
                let message = match request.decode() {
                    Ok(message) => message,
                    Err(reason) => return Reply::Close(reason),
                };
                match elect_leaders::handle(controller, metadata, &message).await {
                    Ok(answer) => scope.respond(&request.context, &answer, Vec::new()),
                    Err(reason) => Reply::Close(reason),
                }
            }),
            ApiKey::AlterPartitionReassignments => serve!(|broker, _ctx, message| {
                alter_partition_reassignments::handle(&broker.controller, &message).await
            }),
            ApiKey::ListPartitionReassignments => serve!(|broker, _ctx, message| {
                list_partition_reassignments::handle(&broker.controller, &message).await
            }),
            ApiKey::UpdateFeatures => serve!(|broker, _ctx, message| {
                let version = broker.config().inter_broker_protocol_version;
                let is_versioned = version >= ApiVersion::V2_7_IV0;
                update_features::handle(broker.controller.is_active(), is_versioned, &message)
            }),
            other => Reply::Close(format!("{other} is not served")),
        }
    }

    fn later<F, Fut>(&self, request: Request, answer: F) -> Reply
    where
        F: FnOnce(Rc<LaneScope>, Request) -> Fut + 'static,
        Fut: Future<Output = Reply> + 'static,
    {
        Reply::Later(Box::pin(answer(Rc::clone(&self.scope), request.detached())))
    }
}

/// From this version on records are sent as they are stored.
const FETCH_UNCONVERTED_MIN: i16 = 4;

/// Produce after Produce and Fetch after Fetch may be in work together (`network/connection.rs` says why); everything else changes
/// or reads what a neighbour reads or changes. A Fetch of before version 4 goes alone: records may have to be converted for it, into
/// memory.
fn class(frame: &[u8]) -> Option<RequestClass> {
    let [key_high, key_low, version_high, version_low] = *frame.first_chunk()?;
    let (api_key, version) = (
        i16::from_be_bytes([key_high, key_low]),
        i16::from_be_bytes([version_high, version_low]),
    );
    let goes_together = api_key == ApiKey::Produce.id()
        || (api_key == ApiKey::Fetch.id() && version >= FETCH_UNCONVERTED_MIN);
    goes_together.then_some(RequestClass(api_key))
}

impl RequestHandler for Handlers {
    fn class(&self, frame: &[u8]) -> Option<RequestClass> {
        class(frame)
    }

    fn handle(&self, peer: &Arc<Peer>, frames: &mut Vec<Bytes>, replies: &mut Vec<Reply>) {
        let mut produced = Vec::new();
        for frame in frames.drain(..) {
            match self.read_header(peer, frame) {
                Ok(request) if request.context.api_key == ApiKey::Produce => produced.push(request),
                Ok(request) => {
                    produce::handle_run(&self.scope, &mut produced, replies);
                    replies.push(self.dispatch(request));
                }
                Err(reason) => {
                    produce::handle_run(&self.scope, &mut produced, replies);
                    replies.push(Reply::Close(reason));
                    break;
                }
            }
        }
        produce::handle_run(&self.scope, &mut produced, replies);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_produce_after_produce_and_fetch_after_fetch_go_together() {
        let of = |api_key: ApiKey| class(&[&api_key.id().to_be_bytes()[..], b"the rest"].concat());
        assert_eq!(of(ApiKey::Produce), of(ApiKey::Produce));
        assert_ne!(of(ApiKey::Produce), of(ApiKey::Fetch));
        let together = (0..).map_while(ApiKey::from_id).filter(|key| of(*key).is_some());
        assert_eq!(together.collect::<Vec<_>>(), [ApiKey::Produce, ApiKey::Fetch]);
        assert_eq!([class(&[]), class(&[0; 3])], [None, None]);
        let fetch = |version: i16| class(&[ApiKey::Fetch.id().to_be_bytes(), version.to_be_bytes()].concat());
        assert!(fetch(3).is_none() && fetch(4).is_some());
    }
}
