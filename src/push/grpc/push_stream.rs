//! Pushes in bulk: batches in, results out as they come, several at a time. What is under way is bounded; while it is
//! full the stream is not read, and HTTP/2's flow control holds its client up.
//!
//! A stream is the body of its own response: whoever sends the one reads the other on the way, and no task, channel or
//! timer is made for a push or a batch.

use super::super::answers::{Answer, Answers};
use super::super::control::Failure;
use super::super::operations::{Outcome, Started, Waiting};
use super::super::problem::Problem;
use super::super::{Api, Control};
use super::batches::{Batches, PREFIX};
use super::deadline::exceeded;
use super::generated as pb;
use super::generated::tagged_result::Result as Of;
use super::service::Call;
use super::{status, translate};
use crate::limits::{PUSH_BATCH_MAX, PUSH_STREAM_HOLD, PUSH_STREAM_IN_FLIGHT_MAX};
use axum::body::{Body, HttpBody};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::Response;
use bytes::Bytes;
use core::convert::Infallible;
use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll, ready};
use http_body::Frame;
use prost::Message;
use slab::Slab;
use std::collections::VecDeque;
use std::sync::Arc;
use tokio::time::{Instant, Sleep};
use tonic::Status;

type Waited = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Serves a stream until its client is done, its deadline has passed, or the node drains.
pub(super) async fn call(State(api): State<Arc<Api>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let call = uncompressed(&head.headers).and_then(|()| Call::of(&head.extensions, &head.headers));
    let call = match call {
        Ok(call) => call,
        Err(status) => return status.into_http(),
    };
    let mut response = Response::new(Body::new(PushStream::new(api, call, body)));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}

/// Nothing here is compressed: pushes are small.
fn uncompressed(headers: &HeaderMap) -> Result<(), Status> {
    match headers.get("grpc-encoding") {
        None => Ok(()),
        Some(encoding) if encoding == "identity" => Ok(()),
        Some(_) => {
            let mut status = Status::unimplemented("messages must not be compressed");
            let nothing_else = "identity".parse().expect("it is ASCII");
            status.metadata_mut().insert("grpc-accept-encoding", nothing_else);
            Err(status)
        }
    }
}

/// A push whose answer has not come.
struct UnderWay {
    /// Its client's name for it.
    tag: u64,
    /// The control's.
    token: u64,
    until: Instant,
    awaits_devices: bool,
}

/// How far a stream is.
enum Phase {
    Serving,
    /// It has ended like this; its last results go first.
    Ending(Status),
    Over,
}

/// See the module.
struct PushStream {
    api: Arc<Api>,
    call: Call,
    phase: Phase,
    /// None: its client has sent all that it has.
    requests: Option<Batches>,
    under_way: Slab<UnderWay>,
    answers: Arc<Answers>,
    /// Of these, what was taken and not looked at.
    came: VecDeque<Answer>,
    held: Held,
    /// When its client wants it over at the latest.
    deadline: Option<Pin<Box<Sleep>>>,
    /// When pushes are looked at that nobody has answered.
    patience: Patience,
    /// Others go first.
    rest: Option<Waited>,
    drain: Waited,
}

impl PushStream {
    fn new(api: Arc<Api>, call: Call, body: Body) -> Self {
        let control = Arc::clone(&api.control);
        Self {
            api,
            phase: Phase::Serving,
            requests: Some(Batches::new(body)),
            under_way: Slab::new(),
            answers: Arc::default(),
            came: VecDeque::new(),
            held: Held::default(),
            deadline: call.deadline.sleep(),
            patience: Patience::default(),
            rest: None,
            drain: Box::pin(async move { control.drain_begun().await }),
            call,
        }
    }

    /// Takes in what there is. None: results are to leave, which those that come meanwhile need not wait for.
    fn turn(&mut self, cx: &mut Context<'_>) -> Poll<Option<Status>> {
        if let Some(deadline) = &mut self.deadline
            && deadline.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(Some(exceeded()));
        }
        loop {
            let may_hold = self.held.may_go_on();
            if may_hold && self.gather(cx) {
                continue;
            }
            let has_room = self.under_way.len() + PUSH_BATCH_MAX <= PUSH_STREAM_IN_FLIGHT_MAX;
            if may_hold
                && has_room
                && let Some(requests) = &mut self.requests
                && let Poll::Ready(batch) = requests.poll_next(cx)
            {
                match batch.and_then(|batch| batch.map(|batch| self.start(batch)).transpose()) {
                    Ok(Some(())) => {}
                    Ok(None) => self.requests = None,
                    Err(status) => return Poll::Ready(Some(status)),
                }
                continue;
            }
            // All that has come is handed over. What comes while shards go first is taken before anything is answered.
            if self.api.control.is_unrung() {
                self.api.control.ring();
                self.rest = Some(Box::pin(tokio::task::yield_now()));
            }
            if let Some(rest) = &mut self.rest {
                ready!(rest.as_mut().poll(cx));
                self.rest = None;
            }
            if !self.held.results.is_empty() {
                return Poll::Ready(None);
            }
            if self.under_way.is_empty() {
                if self.requests.is_none() {
                    return Poll::Ready(Some(Status::ok("")));
                }
                if self.drain.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(Some(Status::unavailable("the node is shutting down")));
                }
            }
            ready!(self.patience.poll(cx));
            self.give_up_late();
        }
    }

    /// Takes answers in; false: there is none.
    fn gather(&mut self, cx: &Context<'_>) -> bool {
        if self.under_way.is_empty() {
            return false;
        }
        if self.came.is_empty() {
            self.answers.take(&mut self.came, cx);
        }
        let room = PUSH_BATCH_MAX - self.held.results.len();
        let count = self.came.len().min(room);
        for Answer { token, number, result } in self.came.drain(..count) {
            // Otherwise nobody waits for it any more.
            if self.under_way.get(number).is_some_and(|under_way| under_way.token == token) {
                let UnderWay { tag, awaits_devices, .. } = self.under_way.remove(number);
                let outcome = result.map(|pushed| Outcome::of(pushed, awaits_devices));
                self.held.add(tag, outcome.map_err(Problem::from));
            }
        }
        count > 0
    }

    /// Hands a batch over, in its order.
    fn start(&mut self, batch: pb::PushBatch) -> Result<(), Status> {
        let count = batch.pushes.len();
        if count == 0 || count > PUSH_BATCH_MAX {
            let problem = Problem::field("pushes", format!("has {count} pushes; allowed: 1 to {PUSH_BATCH_MAX}"));
            return Err(status::of(problem));
        }
        let begun = Instant::now();
        let asking = self.api.asking(&self.call.caller, self.call.app.as_deref());
        for pb::TaggedPush { tag, push } in batch.pushes {
            let place = self.under_way.vacant_entry();
            let hand_over = |push| self.api.control.push_to(push, &self.answers, place.key());
            let started = push
                .ok_or_else(|| Problem::field("push", "is missing"))
                .and_then(|push| translate::draft(push, |draft| self.api.start_push_by(draft, &asking, hand_over)));
            match started {
                Ok(Started::Done(outcome)) => self.held.add(tag, Ok(outcome)),
                Ok(Started::Waits(Waiting { reply: token, patience, awaits_devices })) => {
                    let until = begun + patience;
                    place.insert(UnderWay { tag, token, until, awaits_devices });
                    self.patience.is_over_at(until);
                }
                Err(problem) => self.held.add(tag, Err(problem)),
            }
        }
        Ok(())
    }

    /// Pushes that were not answered in time.
    fn give_up_late(&mut self) {
        let (now, mut tokens) = (Instant::now(), Vec::new());
        let held = &mut self.held;
        self.under_way.retain(|_, UnderWay { tag, token, until, .. }| {
            let is_late = *until <= now;
            if is_late {
                tokens.push(*token);
                held.add(*tag, Err(Failure::TimedOut.into()));
            }
            !is_late
        });
        self.api.control.give_up(tokens);
        self.patience.again(self.under_way.iter().map(|(_, under_way)| under_way.until).min());
    }
}

impl HttpBody for PushStream {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if matches!(self.phase, Phase::Serving)
            && let Some(status) = ready!(self.turn(cx))
        {
            ring(&self.api.control);
            self.phase = Phase::Ending(status);
        }
        if let Some(message) = self.held.message() {
            return Poll::Ready(Some(Ok(Frame::data(message))));
        }
        match core::mem::replace(&mut self.phase, Phase::Over) {
            Phase::Serving => unreachable!("a turn ends with results, or with the stream"),
            Phase::Ending(status) => Poll::Ready(Some(Ok(Frame::trailers(trailers(&status))))),
            Phase::Over => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.phase, Phase::Over)
    }
}

/// What was handed over is carried out, whoever is there to hear of it.
impl Drop for PushStream {
    fn drop(&mut self) {
        ring(&self.api.control);
        self.api.control.give_up(self.under_way.iter().map(|(_, under_way)| under_way.token));
    }
}

fn ring(control: &Control) {
    if control.is_unrung() {
        control.ring();
    }
}

fn trailers(status: &Status) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    match status.add_header(&mut trailers) {
        Ok(()) => trailers,
        Err(broken) => unreachable!("our own statuses can be said: {broken}"),
    }
}

/// Results on their way out: one message for what comes together costs both ends less than one each.
#[derive(Default)]
struct Held {
    /// As they were found: they become messages when the shards know of their pushes.
    results: Vec<(u64, Result<Outcome, Problem>)>,
    /// When the first of them was there.
    since: Option<Instant>,
}

impl Held {
    /// Whether more may be added first: a stream that never pauses gets its results all the same.
    fn may_go_on(&self) -> bool {
        self.results.len() < PUSH_BATCH_MAX && self.since.is_none_or(|since| since.elapsed() < PUSH_STREAM_HOLD)
    }

    fn add(&mut self, tag: u64, finished: Result<Outcome, Problem>) {
        self.since.get_or_insert_with(Instant::now);
        self.results.push((tag, finished));
    }

    /// Up to a batch of what there is, in the order in which it came.
    fn message(&mut self) -> Option<Bytes> {
        let rest = self.results.split_off(self.results.len().min(PUSH_BATCH_MAX));
        let results = core::mem::replace(&mut self.results, rest);
        self.since = self.since.filter(|_| !self.results.is_empty());
        if results.is_empty() {
            return None;
        }
        let results = results.into_iter().map(|(tag, finished)| tagged(tag, finished)).collect();
        let message = pb::PushResults { results };
        let mut bytes = Vec::with_capacity(PREFIX + message.encoded_len());
        bytes.resize(PREFIX, 0);
        message.encode(&mut bytes).expect("a vector has room");
        let length = u32::try_from(bytes.len() - PREFIX).expect("a batch of results is far below 4 GiB");
        bytes[1..PREFIX].copy_from_slice(&length.to_be_bytes());
        Some(bytes.into())
    }
}

/// One timer for all that is under way. It may go off when what it was set for has long been answered.
#[derive(Default)]
struct Patience {
    /// When it goes off; none: nothing is waited for.
    at: Option<Instant>,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Patience {
    fn is_over_at(&mut self, until: Instant) {
        if self.at.is_none_or(|at| until < at) {
            self.again(Some(until));
        }
    }

    fn again(&mut self, at: Option<Instant>) {
        self.at = at;
        if let Some(at) = at {
            match &mut self.sleep {
                Some(sleep) => sleep.as_mut().reset(at),
                None => self.sleep = Some(Box::pin(tokio::time::sleep_until(at))),
            }
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.sleep {
            Some(sleep) if self.at.is_some() => sleep.as_mut().poll(cx),
            _ => Poll::Pending,
        }
    }
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

    fn add(held: &mut Held, count: usize) {
        (0..count).for_each(|_| held.add(7, Err(Failure::TimedOut.into())));
    }

    fn sent(held: &mut Held) -> Option<usize> {
        held.message().map(|message| pb::PushResults::decode(&message[PREFIX..]).expect("whole").results.len())
    }

    #[tokio::test(start_paused = true)]
    async fn results_wait_for_others_until_there_are_many_or_the_first_has_waited_long_enough() {
        let mut held = Held::default();
        tokio::time::advance(2 * PUSH_STREAM_HOLD).await;
        assert!(held.may_go_on(), "nothing waits");
        add(&mut held, 1);
        assert!(held.may_go_on());
        tokio::time::advance(PUSH_STREAM_HOLD).await;
        add(&mut held, 1);
        assert!(!held.may_go_on());
        assert_eq!((sent(&mut held), held.may_go_on(), sent(&mut held)), (Some(2), true, None));
        add(&mut held, PUSH_BATCH_MAX);
        assert!(!held.may_go_on());
    }

    #[test]
    fn a_message_has_at_most_a_batch_and_what_is_left_waits() {
        let mut held = Held::default();
        add(&mut held, PUSH_BATCH_MAX + 3);
        assert_eq!((sent(&mut held), held.since.is_some()), (Some(PUSH_BATCH_MAX), true));
        assert_eq!((sent(&mut held), held.since.is_some()), (Some(3), false));
    }
}
