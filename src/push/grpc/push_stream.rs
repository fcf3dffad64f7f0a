//! Pushes in bulk: batches in, results out as they come, several at a time. What is under way is bounded; while it is
//! full the stream is not read, and HTTP/2's flow control holds its client up.

use super::super::Api;
use super::super::operations::{Outcome, Started};
use super::super::problem::Problem;
use super::generated as pb;
use super::generated::tagged_result::Result as Of;
use super::service::{Answers, Call};
use super::{status, translate};
use crate::limits::{GRPC_REPLIES_WAITING_MAX, PUSH_BATCH_MAX, PUSH_STREAM_IN_FLIGHT_MAX};
use core::future::{Future, ready};
use core::pin::Pin;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

type Replies = mpsc::Sender<Result<pb::PushResults, Status>>;
type UnderWay = FuturesUnordered<Pin<Box<dyn Future<Output = pb::TaggedResult> + Send>>>;

/// Serves a stream until its client is done, its deadline has passed, or the node drains.
pub(super) fn run(api: Arc<Api>, call: Call, requests: Streaming<pb::PushBatch>) -> Answers<pb::PushResults> {
    let (replies, answers) = mpsc::channel(GRPC_REPLIES_WAITING_MAX);
    let deadline = call.deadline;
    tokio::spawn(async move {
        let ended = tokio::select! {
            ended = serve(&api, &call, requests, &replies) => ended,
            exceeded = deadline.passed() => Err(exceeded),
        };
        if let Err(status) = ended {
            // A client that is gone needs no status.
            let _gone = replies.send(Err(status)).await;
        }
    });
    Box::pin(ReceiverStream::new(answers))
}

async fn serve(
    api: &Arc<Api>,
    call: &Call,
    mut requests: Streaming<pb::PushBatch>,
    replies: &Replies,
) -> Result<(), Status> {
    let mut under_way = UnderWay::new();
    let mut is_open = true;
    while is_open || !under_way.is_empty() {
        let has_room = under_way.len() + PUSH_BATCH_MAX <= PUSH_STREAM_IN_FLIGHT_MAX;
        tokio::select! {
            // What is done leaves first, so that results never wait for a client that only sends.
            biased;
            Some(first) = under_way.next(), if !under_way.is_empty() => {
                let results = gather(first, &mut under_way);
                if replies.send(Ok(pb::PushResults { results })).await.is_err() {
                    // Nobody reads: what was handed over is carried out all the same.
                    return Ok(());
                }
            }
            batch = requests.message(), if is_open && has_room => match batch? {
                Some(batch) => {
                    let results = start(api, call, batch, &under_way)?;
                    if !results.is_empty() && replies.send(Ok(pb::PushResults { results })).await.is_err() {
                        return Ok(());
                    }
                }
                None => is_open = false,
            },
            // All that has come is handed over.
            () = ready(()), if api.control.has_woken() => api.control.give_way(),
            () = api.control.drain_begun(), if under_way.is_empty() => {
                return Err(Status::unavailable("the node is shutting down"));
            }
        }
    }
    Ok(())
}

/// All that is done, up to a batch.
fn gather(first: pb::TaggedResult, under_way: &mut UnderWay) -> Vec<pb::TaggedResult> {
    let mut results = vec![first];
    while results.len() < PUSH_BATCH_MAX
        && let Some(Some(result)) = under_way.next().now_or_never()
    {
        results.push(result);
    }
    results
}

/// Hands a batch over, in its order; what came of those that nothing is waited for.
fn start(
    api: &Arc<Api>,
    call: &Call,
    batch: pb::PushBatch,
    under_way: &UnderWay,
) -> Result<Vec<pb::TaggedResult>, Status> {
    let count = batch.pushes.len();
    if count == 0 || count > PUSH_BATCH_MAX {
        let problem = Problem::field("pushes", format!("has {count} pushes; allowed: 1 to {PUSH_BATCH_MAX}"));
        return Err(status::of(problem));
    }
    let begun = Instant::now();
    let asking = api.asking(&call.caller, call.app.as_deref());
    let mut done = Vec::new();
    for pb::TaggedPush { tag, push } in batch.pushes {
        let started = push.ok_or_else(|| Problem::field("push", "is missing"));
        match started.and_then(|push| translate::draft(push, |draft| api.start_push(draft, &asking))) {
            Ok(Started::Done(outcome)) => done.push(tagged(tag, Ok(outcome))),
            Ok(Started::Waits(waiting)) => {
                under_way.push(Box::pin(async move { tagged(tag, waiting.finish_since(begun).await) }));
            }
            Err(problem) => done.push(tagged(tag, Err(problem))),
        }
    }
    Ok(done)
}

fn tagged(tag: u64, finished: Result<Outcome, Problem>) -> pb::TaggedResult {
    let result = match finished {
        Ok(outcome) => Of::Reply(translate::reply(outcome)),
        Err(problem) => Of::Error(status::push_error(problem)),
    };
    pb::TaggedResult { tag, result: Some(result) }
}
