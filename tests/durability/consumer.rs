//! A backend that reads `Events` by gRPC in a group of its own, beside the webhook: it acknowledges now and then, leaves in
//! the middle, outlives every process, and each time reads on where its group is.

use crate::gateway::{PATIENCE, Place};
use crate::ledger::{Ledger, position_text};
use crate::random::Random;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use kittiwake::push::grpc::generated::{
    AckEventsReply, AckEventsRequest, Event, EventsReply, EventsRequest, Position, event, events_reply::Reply,
};
use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;

/// Its name among the receivers.
pub const NAME: &str = "consumer";
const GROUP: &str = "durability";
/// Of who reads all that is stored, once.
const READER: &str = "reader";
/// How long nothing may come before it looks whether the run is over.
const QUIET: Duration = Duration::from_millis(20);

type Calls = tonic::client::Grpc<Client<HttpConnector, tonic::body::Body>>;

/// What it knows from one stream to the next.
struct Consumer {
    ledger: Arc<Ledger>,
    random: Random,
    is_ready: bool,
    /// The newest position whose acknowledgement was answered, and the newest that was asked for.
    answered: Option<Position>,
    asked: Option<Position>,
}

/// It lives until clients are to stop.
pub fn start(place: &Place, ledger: &Arc<Ledger>, random: Random) -> JoinHandle<()> {
    let (place, mine) = (place.clone(), Arc::clone(ledger));
    ledger.spawn(NAME, move || {
        let mut consumer = Consumer { ledger: mine, random, is_ready: false, answered: None, asked: None };
        block_on(async {
            while !consumer.ledger.lock().clients_stop {
                let ended = consumer.read(calls(&place)).await;
                consumer.does(format!("has ended a stream: {ended:?}"));
                if let Err(status) = ended {
                    // The process has died, or the next one is not that far yet; anything else is a fault of one of us.
                    let is_an_end = !matches!(
                        status.code(),
                        Code::InvalidArgument | Code::NotFound | Code::OutOfRange | Code::PermissionDenied
                    );
                    assert!(is_an_end, "{status}");
                    tokio::time::sleep(QUIET).await;
                }
            }
        });
    })
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("the system has room");
    runtime.block_on(work)
}

fn calls(place: &Place) -> Calls {
    let http = Client::builder(TokioExecutor::new()).http2_only(true).build_http();
    let origin = format!("http://{}", place.api).parse().expect("an address is an authority");
    tonic::client::Grpc::with_origin(http, origin)
}

async fn events(calls: &mut Calls, request: EventsRequest) -> Result<tonic::Streaming<EventsReply>, Status> {
    calls.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
    let codec = ProstCodec::<EventsRequest, EventsReply>::default();
    Ok(calls.server_streaming(Request::new(request), path("Events"), codec).await?.into_inner())
}

fn wanted(group: &str) -> EventsRequest {
    EventsRequest { group: group.to_owned(), publishes: vec!["c/#".to_owned()], receipts: true, ..Default::default() }
}

/// All publishes that the events' stream has, each with where it has it, as another group reads them from the beginning,
/// up to `last`, or, where none is given, until nothing comes for a while.
pub fn stored(place: &Place, last: Option<Position>) -> Result<BTreeMap<String, Position>, Status> {
    block_on(async {
        let request = EventsRequest { after: Some(Position::default()), ..wanted(READER) };
        let mut replies = events(&mut calls(place), request).await?;
        let (mut found, mut at) = (BTreeMap::new(), Position::default());
        let patience = if last.is_some() { PATIENCE / 2 } else { QUIET * 100 };
        while last.is_none_or(|last| at.offset < last.offset) {
            let Ok(reply) = tokio::time::timeout(patience, replies.message()).await else { break };
            match reply?.and_then(|reply| reply.reply) {
                Some(Reply::Event(Event { position: Some(position), event, .. })) => {
                    at = position;
                    if let Some(event::Event::Published(published)) = event {
                        let payload = String::from_utf8(published.payload.into()).expect("a text");
                        assert_eq!(found.insert(payload, position), None, "one publish is stored once");
                    }
                }
                Some(Reply::Gap(gap)) => at = gap.position.unwrap_or_default(),
                Some(Reply::Started(_)) => {}
                other => return Err(Status::unavailable(format!("the stream has ended with {other:?}"))),
            }
        }
        Ok(found)
    })
}

impl Consumer {
    /// One stream, up to its end.
    async fn read(&mut self, mut calls: Calls) -> Result<(), Status> {
        let mut replies = self.in_time("a stream begins", events(&mut calls, wanted(GROUP))).await?;
        let first = self.in_time("a stream says where it begins", replies.message()).await?;
        let first = first.and_then(|reply| reply.reply);
        let Some(Reply::Started(started)) = first else { panic!("it begins with {first:?}") };
        let mut at = started.position.expect("it says where");
        self.began(at);
        self.reads(at);
        let mut left = 1 + self.random.below(200);
        while left > 0 {
            let reply = match tokio::time::timeout(QUIET, replies.message()).await {
                Ok(reply) => reply?.ok_or_else(|| Status::unavailable("the stream has ended"))?,
                Err(_) if self.ledger.lock().clients_stop => return Ok(()),
                Err(_) => continue,
            };
            left -= 1;
            let position = match reply.reply {
                Some(Reply::Event(event)) => self.take(event),
                Some(Reply::Gap(gap)) => {
                    self.ledger.tell(|facts| facts.gaps += 1);
                    gap.position
                }
                other => panic!("{other:?}"),
            };
            let position = position.expect("each has a position");
            assert!(is_same_life(at, position), "nothing was lost, so the epoch stays: {position:?} behind {at:?}");
            assert!(position.offset > at.offset, "{position:?} comes behind {at:?}");
            at = position;
            self.ledger.tell(|facts| facts.consumer_at = at);
            if self.random.below(16) == 0 {
                self.acknowledge(&mut calls, at).await?;
                self.reads(at);
            }
        }
        Ok(())
    }

    /// A group goes on behind what it has acknowledged: not before what was answered, not behind what was never asked for.
    fn began(&mut self, at: Position) {
        if let (Some(answered), Some(asked)) = (self.answered, self.asked) {
            assert!(is_same_life(answered, at), "nothing was lost, so the epoch stays: {at:?} behind {answered:?}");
            let may = answered.offset..=asked.offset;
            assert!(may.contains(&at.offset), "it begins behind {at:?}, where {may:?} was acknowledged");
            self.ledger.tell(|facts| facts.consumer_resumed += 1);
        }
        if !self.is_ready {
            self.is_ready = true;
            // Behind this nothing is owed that it does not get.
            (self.answered, self.asked) = (Some(at), Some(at));
            self.ledger.tell(|facts| facts.ready += 1);
        }
    }

    fn take(&self, event: Event) -> Option<Position> {
        let position = event.position?;
        match event.event {
            Some(event::Event::Published(published)) => {
                let payload = String::from_utf8(published.payload.into()).expect("a text");
                self.ledger.received(NAME, &payload);
                // As the webhook says it: both are told of a publish under the same position.
                let text = position_text(position);
                self.ledger.tell(|facts| facts.positions.entry(payload).or_default().insert(text));
            }
            Some(event::Event::Receipt(_)) => self.ledger.tell(|facts| facts.receipts_told += 1),
            other => panic!("{other:?} was not asked for"),
        }
        Some(position)
    }

    async fn acknowledge(&mut self, calls: &mut Calls, at: Position) -> Result<(), Status> {
        self.asked = Some(at);
        let request = AckEventsRequest { group: GROUP.to_owned(), position: Some(at), ..Default::default() };
        calls.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
        let codec = ProstCodec::<AckEventsRequest, AckEventsReply>::default();
        let asked = calls.unary(Request::new(request), path("AckEvents"), codec);
        let reply = self.in_time("an acknowledgement is answered", asked).await?.into_inner();
        assert_eq!(reply.position, Some(at), "it is the newest");
        self.answered = Some(at);
        self.ledger.tell(|facts| facts.consumer_acknowledged += 1);
        Ok(())
    }

    /// What a process that serves must do before long, and one that dies ends with an error. One that does not serve yet
    /// is the run's to wait for.
    async fn in_time<T>(&self, what: &str, call: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
        self.does(format!("waits until {what}"));
        let mut call = pin!(call);
        let (mut serving, mut since) = (None, Instant::now());
        loop {
            if let Ok(result) = tokio::time::timeout(QUIET, &mut call).await {
                return result;
            }
            let now_serving = self.ledger.serving();
            if now_serving.is_none() || now_serving != serving {
                (serving, since) = (now_serving, Instant::now());
            }
            assert!(since.elapsed() < PATIENCE / 2, "still not: {what}");
        }
    }

    fn reads(&self, at: Position) {
        let text = |position: Option<Position>| position.map_or("nothing".to_owned(), position_text);
        let (answered, asked) = (text(self.answered), text(self.asked));
        self.does(format!("reads behind {}, acknowledged {answered}, asked for {asked}", position_text(at)));
    }

    fn does(&self, what: String) {
        self.ledger.tell(|facts| facts.consumer_does = Some((what, Instant::now())));
    }
}

fn path(method: &str) -> PathAndQuery {
    PathAndQuery::try_from(format!("/kittiwake.v1.Gateway/{method}")).expect("a path")
}

/// Before anything has happened there is no stream, and so no epoch.
fn is_same_life(before: Position, now: Position) -> bool {
    before.epoch == 0 || before.epoch == now.epoch
}
