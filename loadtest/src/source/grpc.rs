//! Batches in one `PushStream`, on a runtime of its own thread.

use super::{Order, Push, Shared};
use kittiwake::base::ids::Qos;
use kittiwake::push::grpc::generated::{
    PushBatch, PushError, PushRequest, PushResults, Qos as WireQos, TaggedPush, push_request, tagged_result,
};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::{self, JoinHandle, Thread};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Endpoint;

const METHOD: &str = "/kittiwake.v1.Gateway/PushStream";
/// Batches on their way to the runtime.
const BATCHES_AHEAD: usize = 4;
/// Bytes the server may send ahead of what is read.
const WINDOW_BYTES: u32 = 1 << 20;
/// Connecting, and a silence in the midst of results, are given up after this long.
const PATIENCE: Duration = Duration::from_secs(20);

/// The sending end of a stream.
pub struct Stream {
    /// Batches, with when each push was due by its tag.
    batches: Option<mpsc::Sender<Batch>>,
    qos: Qos,
    thread: Option<JoinHandle<Result<(), String>>>,
}

struct Batch {
    wire: PushBatch,
    due: Vec<(u64, Instant)>,
}

impl Stream {
    pub fn open(order: &Order, shared: Arc<Shared>, builder: Thread) -> Result<Self, String> {
        let (batches, receiver) = mpsc::channel(BATCHES_AHEAD);
        let (api, key, qos) = (order.api, order.api_key.clone(), order.qos);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(text)?;
        let thread = thread::Builder::new()
            .name("push-stream".to_owned())
            .spawn(move || runtime.block_on(converse(api, key, receiver, shared, builder)))
            .map_err(text)?;
        Ok(Self { batches: Some(batches), qos, thread: Some(thread) })
    }

    pub fn send(&mut self, pushes: Vec<Push>) -> Result<(), String> {
        let qos = match self.qos {
            Qos::AtMostOnce => WireQos::AtMostOnce,
            Qos::AtLeastOnce => WireQos::AtLeastOnce,
            Qos::ExactlyOnce => WireQos::ExactlyOnce,
        };
        let due = pushes.iter().map(|push| (push.tag, push.due)).collect();
        let pushes = pushes.into_iter().map(|push| {
            let to = Some(push_request::To::User(push.user));
            let push_request = PushRequest { to, payload: push.payload.into(), qos: qos as i32, ..Default::default() };
            TaggedPush { tag: push.tag, push: Some(push_request) }
        });
        let batch = Batch { wire: PushBatch { pushes: pushes.collect() }, due };
        let sender = self.batches.as_ref().ok_or("the stream has ended")?;
        if sender.blocking_send(batch).is_ok() {
            return Ok(());
        }
        drop(self.batches.take());
        let ended = self.thread.take().map(JoinHandle::join);
        Err(match ended {
            Some(Ok(Err(failure))) => failure,
            _ => "the stream has ended".to_owned(),
        })
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // The end of the batches ends the stream, and the stream its thread, whose waits are bounded.
        drop(self.batches.take());
        if let Some(thread) = self.thread.take()
            && let Ok(Err(failure)) = thread.join()
        {
            eprintln!("loadtest: {failure}");
        }
    }
}

fn text(error: impl std::fmt::Display) -> String {
    format!("push stream: {error}")
}

async fn converse(
    api: SocketAddr,
    key: Option<String>,
    mut batches: mpsc::Receiver<Batch>,
    shared: Arc<Shared>,
    builder: Thread,
) -> Result<(), String> {
    let endpoint = Endpoint::from_shared(format!("http://{api}")).map_err(text)?;
    let endpoint = endpoint
        .connect_timeout(PATIENCE)
        .tcp_nodelay(true)
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES);
    let mut client = tonic::client::Grpc::new(endpoint.connect().await.map_err(text)?);
    client.ready().await.map_err(text)?;
    let (outward, inward) = mpsc::channel(1);
    let mut request = tonic::Request::new(ReceiverStream::new(inward));
    if let Some(key) = key {
        let value = format!("Bearer {key}").parse().map_err(text)?;
        request.metadata_mut().insert("authorization", value);
    }
    let codec = tonic_prost::ProstCodec::<PushBatch, PushResults>::default();
    let asked = client.streaming(request, PathAndQuery::from_static(METHOD), codec);
    let mut results = asked.await.map_err(text)?.into_inner();
    let (mut outward, mut due) = (Some(outward), HashMap::new());
    loop {
        tokio::select! {
            batch = batches.recv(), if outward.is_some() => match (batch, &outward) {
                (Some(Batch { wire, due: times }), Some(sender)) => {
                    due.extend(times);
                    sender.send(wire).await.map_err(text)?;
                }
                // No more batches: the server hears the end of the stream and ends it as well.
                _ => drop(outward.take()),
            },
            answered = results.message() => match answered.map_err(text)? {
                Some(answered) => take(answered, &mut due, &shared, &builder),
                None => return if due.is_empty() { Ok(()) } else { Err("push stream: ended early".to_owned()) },
            },
            () = tokio::time::sleep(PATIENCE), if outward.is_none() => return Err("push stream: no end".to_owned()),
        }
    }
}

fn take(results: PushResults, due: &mut HashMap<u64, Instant>, shared: &Shared, builder: &Thread) {
    for result in results.results {
        let refusal = match result.result {
            Some(tagged_result::Result::Reply(_)) => None,
            Some(tagged_result::Result::Error(PushError { code, message, .. })) => Some(format!("{code} {message}")),
            None => Some("a result that says nothing".to_owned()),
        };
        match due.remove(&result.tag) {
            Some(due) => shared.answered(builder, due, refusal),
            None => shared.unexpected(format!("a result for {}, which nothing awaits", result.tag)),
        }
    }
}
