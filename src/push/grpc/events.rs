//! `Events` and `AckEvents`: what happens to an app's devices, read by consumer groups.

use super::super::Api;
use super::super::events::{Consumer, Ended, Read};
use super::super::problem::Problem;
use super::super::request;
use super::generated as pb;
use super::generated::events_reply::Reply;
use super::service::{Answers, Call};
use super::{status, translate};
use crate::base::ids::{AppId, Epoch, Offset};
use crate::limits::{EVENTS_FILTERS_MAX, GRPC_REPLIES_WAITING_MAX};
use crate::shard::command::{AppWatch, check_filter};
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

type Replies = mpsc::Sender<Result<pb::EventsReply, Status>>;

/// Begins to read for a group; the shards tell of what it wants when this comes back.
pub(super) async fn begin(
    api: Arc<Api>,
    call: Call,
    request: pb::EventsRequest,
) -> Result<Answers<pb::EventsReply>, Status> {
    let (app, group) = group(&api, &call, &request.app, &request.group).map_err(status::of)?;
    let wants = wants(&request).map_err(status::of)?;
    let after = request.after.map(|after| (Epoch(after.epoch), Offset(after.offset)));
    let mut consumer = api.read_events(app, &group, wants, after).await.map_err(status::of)?;
    let (replies, answers) = mpsc::channel(GRPC_REPLIES_WAITING_MAX);
    let started = Reply::Started(pb::Started { position: Some(translate::position(consumer.position())) });
    tokio::spawn(async move {
        let ended = tokio::select! {
            ended = serve(&mut consumer, started, &replies) => ended,
            exceeded = call.deadline.passed() => exceeded,
            () = api.control.drain_begun() => Status::unavailable("the node is shutting down"),
            // Its client is gone: the group's next consumer need not wait for something to happen.
            () = replies.closed() => return,
        };
        let _gone = replies.send(Err(ended)).await;
    });
    Ok(Box::pin(ReceiverStream::new(answers)))
}

async fn serve(consumer: &mut Consumer, started: Reply, replies: &Replies) -> Status {
    let mut next = vec![started];
    loop {
        for reply in next {
            if replies.send(Ok(pb::EventsReply { reply: Some(reply) })).await.is_err() {
                return Status::cancelled("the client is gone");
            }
        }
        next = match consumer.next().await {
            Ok(read) => read.into_iter().map(reply).collect(),
            Err(Ended::Replaced) => return Status::aborted("another consumer reads for this group"),
            Err(Ended::Forgotten) => return Status::aborted("the group was forgotten"),
            Err(Ended::Failed) => return Status::unavailable("the store cannot be read"),
        };
    }
}

fn reply(read: Read) -> Reply {
    match read {
        Read::Gap(position, events) => Reply::Gap(pb::Gap { position: Some(translate::position(position)), events }),
        Read::Event(position, happened) => Reply::Event(pb::Event {
            position: Some(translate::position(position)),
            at_ms: happened.at_ms,
            user: happened.user.to_string(),
            device: happened.device.to_string(),
            event: Some(translate::happening(&happened.what)),
        }),
    }
}

/// Acknowledges up to a position.
pub(super) async fn acknowledge(
    api: &Api,
    call: &Call,
    request: &pb::AckEventsRequest,
) -> Result<pb::AckEventsReply, Status> {
    let (app, group) = group(api, call, &request.app, &request.group).map_err(status::of)?;
    let position = request.position.ok_or_else(|| status::of(Problem::field("position", "is missing")))?;
    let position = (Epoch(position.epoch), Offset(position.offset));
    let acknowledged = api.events.acknowledge(app, &group, position).await.map_err(status::of)?;
    Ok(pb::AckEventsReply { position: Some(translate::position(acknowledged)) })
}

fn group(api: &Api, call: &Call, app: &str, group: &str) -> Result<(AppId, Arc<str>), Problem> {
    let asking = api.asking(&call.caller, call.app.as_deref());
    if group.starts_with('$') {
        return Err(Problem::field("group", "begins with `$`: such groups are the node's own"));
    }
    Ok((asking.app(translate::given(app))?, request::identity("group", group)?))
}

fn wants(request: &pb::EventsRequest) -> Result<AppWatch, Problem> {
    let pb::EventsRequest { connections, receipts, publishes, .. } = request;
    if publishes.len() > EVENTS_FILTERS_MAX {
        let detail = format!("has {} filters; allowed: at most {EVENTS_FILTERS_MAX}", publishes.len());
        return Err(Problem::field("publishes", detail));
    }
    if !connections && !receipts && publishes.is_empty() {
        return Err(Problem::field("publishes", "nothing is asked for: set connections, publishes or receipts"));
    }
    let filter = |(index, text): (usize, &String)| match check_filter(text) {
        true => Ok(Arc::from(text.as_str())),
        false => Err(Problem::field(format!("publishes[{index}]"), "is not a topic filter")),
    };
    let publishes = publishes.iter().enumerate().map(filter).collect::<Result<_, _>>()?;
    Ok(AppWatch { connections: *connections, receipts: *receipts, publishes })
}
