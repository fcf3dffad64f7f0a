//! Pushes in bulk: batches in, results out as they come, several at a time. What is under way is bounded; while it is
//! full the stream is not read, and HTTP/2's flow control holds its client up.

use super::super::Api;
use super::super::operations::{Outcome, Started};
use super::super::problem::Problem;
use super::generated as pb;
use super::generated::tagged_result::Result as Of;
use super::service::{Answers, Call};
use super::{status, translate};
use crate::limits::{GRPC_REPLIES_WAITING_MAX, PUSH_BATCH_MAX, PUSH_STREAM_HOLD, PUSH_STREAM_IN_FLIGHT_MAX};
use core::future::Future;
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
        let mut held = Held::default();
        let ended = tokio::select! {
            ended = serve(&api, &call, requests, &replies, &mut held) => ended,
            exceeded = deadline.passed() => Err(exceeded),
        };
        // A client that is gone needs neither results nor a status.
        let is_there = held.send(&replies).await;
        if is_there && let Err(status) = ended {
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
    held: &mut Held,
) -> Result<(), Status> {
    let mut under_way = UnderWay::new();
    let mut is_open = true;
    while is_open || !under_way.is_empty() || !held.results.is_empty() {
        let has_room = under_way.len() + PUSH_BATCH_MAX <= PUSH_STREAM_IN_FLIGHT_MAX;
        let may_hold = held.may_go_on();
        tokio::select! {
            biased;
            Some(first) = under_way.next(), if may_hold && !under_way.is_empty() => {
                held.add(gather(first, &mut under_way));
            }
            batch = requests.message(), if may_hold && is_open && has_room => match batch? {
                Some(batch) => held.add(start(api, call, batch, &under_way)?),
                None => is_open = false,
            },
            // All that has come is handed over. What comes while shards go first is taken before anything is answered.
            () = ring(api), if api.control.is_unrung() => {}
            is_there = held.send(replies), if !held.results.is_empty() => if !is_there {
                // Nobody reads: what was handed over is carried out all the same.
                return Ok(());
            },
            () = api.control.drain_begun(), if under_way.is_empty() => {
                return Err(Status::unavailable("the node is shutting down"));
            }
        }
    }
    Ok(())
}

/// Wakes the shards and lets them go first, then looks at the sockets.
async fn ring(api: &Api) {
    api.control.ring();
    tokio::task::yield_now().await;
}

/// Results on their way out: one message for what comes together costs both ends less than one each.
#[derive(Default)]
struct Held {
    results: Vec<pb::TaggedResult>,
    /// When the first of them was there.
    since: Option<Instant>,
}

impl Held {
    /// Whether more may be added first: a stream that never pauses gets its results all the same.
    fn may_go_on(&self) -> bool {
        self.results.len() < PUSH_BATCH_MAX && self.since.is_none_or(|since| since.elapsed() < PUSH_STREAM_HOLD)
    }

    fn add(&mut self, results: Vec<pb::TaggedResult>) {
        if !results.is_empty() {
            self.since.get_or_insert_with(Instant::now);
            self.results.extend(results);
        }
    }

    /// Sends what there is; false if nobody reads it. It stays if this is dropped before.
    async fn send(&mut self, replies: &Replies) -> bool {
        if self.results.is_empty() {
            return true;
        }
        let Ok(place) = replies.reserve().await else { return false };
        self.since = None;
        place.send(Ok(pb::PushResults { results: core::mem::take(&mut self.results) }));
        true
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn results(count: usize) -> Vec<pb::TaggedResult> {
        vec![pb::TaggedResult::default(); count]
    }

    #[tokio::test(start_paused = true)]
    async fn results_wait_for_others_until_there_are_many_or_the_first_has_waited_long_enough() {
        let mut held = Held::default();
        held.add(results(0));
        tokio::time::advance(2 * PUSH_STREAM_HOLD).await;
        assert!(held.may_go_on(), "nothing waits");
        held.add(results(1));
        assert!(held.may_go_on());
        tokio::time::advance(PUSH_STREAM_HOLD).await;
        held.add(results(1));
        assert!(!held.may_go_on());
        let (replies, mut answers) = mpsc::channel(1);
        assert!(held.send(&replies).await && held.may_go_on());
        assert_eq!(answers.try_recv().map(|sent| sent.map_or(0, |sent| sent.results.len())), Ok(2));
        held.add(results(PUSH_BATCH_MAX));
        assert!(!held.may_go_on());
    }

    #[tokio::test]
    async fn what_finds_no_place_stays_and_nothing_leaves_for_nobody() {
        let (mut held, (replies, mut answers)) = (Held::default(), mpsc::channel(1));
        assert!(held.send(&replies).await && answers.try_recv().is_err(), "an empty message says nothing");
        held.add(results(3));
        assert!(held.send(&replies).await);
        held.add(results(4));
        assert!(held.send(&replies).now_or_never().is_none(), "the first has not been read");
        assert!(answers.recv().await.is_some_and(|first| first.is_ok_and(|first| first.results.len() == 3)));
        assert!(held.send(&replies).await);
        assert!(answers.recv().await.is_some_and(|second| second.is_ok_and(|second| second.results.len() == 4)));
        held.add(results(1));
        drop(answers);
        assert!(!held.send(&replies).await);
    }
}
