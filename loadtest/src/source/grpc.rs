//! Batches in one `PushStream`. The runtime is the caller's own thread while it sends or rests: a thread in between would
//! count as the server's latency.

use super::{Order, Push, Shared};
use kittiwake::base::ids::Qos;
use kittiwake::push::grpc::generated::{
    PushBatch, PushError, PushRequest, PushResults, Qos as WireQos, TaggedPush, push_request, tagged_result,
};
use std::collections::HashMap;
use std::future::ready;
use std::sync::Arc;
use std::thread::{self, Thread};
use std::time::{Duration, Instant};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Endpoint;

const METHOD: &str = "/kittiwake.v1.Gateway/PushStream";
/// Bytes the server may send ahead of what is read.
const WINDOW_BYTES: u32 = 1 << 20;
/// Connecting is given up after this long.
const PATIENCE: Duration = Duration::from_secs(20);
/// In a pause, answers are looked for so often.
const LOOK_FOR_ANSWERS: Duration = Duration::from_micros(100);
/// Turns of the runtime in which a batch gets to the socket: its task and the connection's have two each.
const TURNS: usize = 4;

/// The stream, with when each push that is not answered was due, by its tag.
pub struct Stream {
    runtime: Runtime,
    batches: mpsc::Sender<PushBatch>,
    results: Streaming<PushResults>,
    due: HashMap<u64, Instant>,
    qos: Qos,
    shared: Arc<Shared>,
    builder: Thread,
}

impl Stream {
    pub fn open(order: &Order, shared: Arc<Shared>, builder: Thread) -> Result<Self, String> {
        let runtime = Builder::new_current_thread().enable_all().build().map_err(text)?;
        let (batches, results) = runtime.block_on(converse(order))?;
        Ok(Self { runtime, batches, results, due: HashMap::new(), qos: order.qos, shared, builder })
    }

    pub fn send(&mut self, pushes: Vec<Push>) -> Result<(), String> {
        let qos = match self.qos {
            Qos::AtMostOnce => WireQos::AtMostOnce,
            Qos::AtLeastOnce => WireQos::AtLeastOnce,
            Qos::ExactlyOnce => WireQos::ExactlyOnce,
        };
        self.due.extend(pushes.iter().map(|push| (push.tag, push.due)));
        let pushes = pushes.into_iter().map(|push| {
            let to = Some(push_request::To::User(push.user));
            let push_request = PushRequest { to, payload: push.payload.into(), qos: qos as i32, ..Default::default() };
            TaggedPush { tag: push.tag, push: Some(push_request) }
        });
        let batch = PushBatch { pushes: pushes.collect() };
        self.turn(Some(batch))
    }

    /// Hands a batch to the socket and takes what answers there are.
    fn turn(&mut self, batch: Option<PushBatch>) -> Result<(), String> {
        let (batches, results) = (&self.batches, &mut self.results);
        let answered: Result<Vec<PushResults>, String> = self.runtime.block_on(async {
            if let Some(batch) = batch
                && batches.send(batch).await.is_err()
            {
                // Why it has ended stands behind the last results.
                return Err(loop {
                    if let Err(why) = some(results.message().await) {
                        break why;
                    }
                });
            }
            for _ in 0..TURNS {
                tokio::task::yield_now().await;
            }
            let mut answered = Vec::new();
            loop {
                tokio::select! {
                    biased;
                    message = results.message() => answered.push(some(message)?),
                    () = ready(()) => return Ok(answered),
                }
            }
        });
        answered?.into_iter().for_each(|results| self.take(results));
        Ok(())
    }

    /// Lets the stream go on until something is answered or delivered, for so long at most.
    pub fn rest(&mut self, at_most: Duration) -> Result<(), String> {
        let (results, shared) = (&mut self.results, &self.shared);
        let answered = self.runtime.block_on(async {
            tokio::select! {
                message = results.message() => some(message).map(Some),
                () = shared.moved.notified() => Ok(None),
                () = tokio::time::sleep(at_most) => Ok(None),
            }
        });
        answered?.into_iter().for_each(|results| self.take(results));
        Ok(())
    }

    /// Waits until then, to the grain of a sleeping thread, which is finer than the runtime's. Answers are taken meanwhile,
    /// but not when the time has come: that would make what is due late, and they are taken behind it.
    pub fn pause(&mut self, until: Instant) -> Result<(), String> {
        loop {
            thread::sleep(until.saturating_duration_since(Instant::now()).min(LOOK_FOR_ANSWERS));
            if Instant::now() >= until {
                return Ok(());
            }
            self.turn(None)?;
        }
    }

    fn take(&mut self, results: PushResults) {
        for result in results.results {
            let refusal = match result.result {
                Some(tagged_result::Result::Reply(_)) => None,
                Some(tagged_result::Result::Error(PushError { code, message, .. })) => {
                    Some(format!("{code} {message}"))
                }
                None => Some("a result that says nothing".to_owned()),
            };
            match self.due.remove(&result.tag) {
                Some(due) => self.shared.answered(&self.builder, due, refusal),
                None => self.shared.unexpected(format!("a result for {}, which nothing awaits", result.tag)),
            }
        }
    }
}

fn text(error: impl std::fmt::Display) -> String {
    format!("push stream: {error}")
}

/// What came of waiting for results. Who still listens has not ended its side.
fn some(message: Result<Option<PushResults>, tonic::Status>) -> Result<PushResults, String> {
    message.map_err(text)?.ok_or_else(|| "push stream: ended early".to_owned())
}

async fn converse(order: &Order) -> Result<(mpsc::Sender<PushBatch>, Streaming<PushResults>), String> {
    let endpoint = Endpoint::from_shared(format!("http://{}", order.api)).map_err(text)?;
    let endpoint = endpoint
        .connect_timeout(PATIENCE)
        .tcp_nodelay(true)
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES);
    let mut client = tonic::client::Grpc::new(endpoint.connect().await.map_err(text)?);
    client.ready().await.map_err(text)?;
    let (outward, inward) = mpsc::channel(1);
    let mut request = tonic::Request::new(ReceiverStream::new(inward));
    if let Some(key) = &order.api_key {
        let value = format!("Bearer {key}").parse().map_err(text)?;
        request.metadata_mut().insert("authorization", value);
    }
    let codec = tonic_prost::ProstCodec::<PushBatch, PushResults>::default();
    let asked = client.streaming(request, PathAndQuery::from_static(METHOD), codec);
    Ok((outward, asked.await.map_err(text)?.into_inner()))
}
