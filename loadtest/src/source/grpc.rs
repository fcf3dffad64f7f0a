//! Batches in one `PushStream`, over HTTP/2 that the caller's own thread turns while it sends or rests: a runtime or a
//! thread in between would count as the server's latency.

mod wire;

use super::bell::wait_for;
use super::{LOOK_AGAIN, Order, Push, Shared};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use h2::client::{Builder, Connection, SendRequest};
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Method, Request, StatusCode, Version};
use kittiwake::base::ids::Qos;
use kittiwake::push::grpc::generated::{
    PushBatch, PushError, PushRequest, PushResults, Qos as WireQos, TaggedPush, push_request, tagged_result,
};
use prost::Message;
use rustix::event::{PollFd, PollFlags};
use std::collections::HashMap;
use std::future::Future;
use std::net::TcpStream;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};
use wire::{Ear, Wire};

const METHOD: &str = "/kittiwake.v1.Gateway/PushStream";
/// Bytes the server may send ahead of what is read.
const WINDOW_BYTES: u32 = 1 << 20;
/// Connecting is given up after this long.
const PATIENCE: Duration = Duration::from_secs(20);
/// In a pause, and while it sends, answers are looked for so often.
const LOOK_FOR_ANSWERS: Duration = Duration::from_micros(100);
const STATUS: &str = "grpc-status";
/// What stands before a message: whether it is compressed, and its length.
const HEAD_BYTES: usize = 5;

/// The stream, with when each push that is not answered was due, by its tag.
pub struct Stream {
    socket: TcpStream,
    ear: Rc<Ear>,
    connection: Connection<Wire, Bytes>,
    /// The connection lives as long as there may be another request.
    _requests: SendRequest<Bytes>,
    outward: SendStream<Bytes>,
    inward: RecvStream,
    /// Bytes of a result of which more is to come.
    unread: BytesMut,
    due: HashMap<u64, Instant>,
    qos: Qos,
    shared: Arc<Shared>,
    builder: Thread,
}

impl Stream {
    pub fn open(order: &Order, shared: Arc<Shared>, builder: Thread) -> Result<Self, String> {
        let socket = TcpStream::connect_timeout(&order.api, PATIENCE).map_err(text)?;
        let ear = Ear::new();
        let wire = Wire::new(socket.try_clone().map_err(text)?, Rc::clone(&ear)).map_err(text)?;
        let mut builder_of = Builder::new();
        builder_of.initial_window_size(WINDOW_BYTES).initial_connection_window_size(WINDOW_BYTES);
        let mut handshake = pin!(builder_of.handshake::<_, Bytes>(wire));
        let (mut requests, mut connection) =
            drive(&socket, &ear, |context| handshake.as_mut().poll(context))?.map_err(text)?;
        let (mut response, outward) = requests.send_request(request(order)?, false).map_err(text)?;
        let response = drive(&socket, &ear, |context| match Pin::new(&mut connection).poll(context) {
            Poll::Ready(ended) => Poll::Ready(Err(why(ended))),
            Poll::Pending => Pin::new(&mut response).poll(context).map_err(text),
        })??;
        if response.status() != StatusCode::OK {
            return Err(text(response.status()));
        }
        if response.headers().contains_key(STATUS) {
            return Err(status(response.headers()));
        }
        let (inward, unread, due) = (response.into_body(), BytesMut::new(), HashMap::new());
        let qos = order.qos;
        Ok(Self { socket, ear, connection, _requests: requests, outward, inward, unread, due, qos, shared, builder })
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
        let bytes = batch.encoded_len();
        let mut frame = BytesMut::with_capacity(HEAD_BYTES + bytes);
        frame.put_u8(0);
        frame.put_u32(u32::try_from(bytes).map_err(text)?);
        batch.encode(&mut frame).map_err(text)?;
        // Why it has ended, if it has, stands behind the last results.
        if self.outward.send_data(frame.freeze(), false).is_err() {
            self.listen()?;
            return Err(text("ended early"));
        }
        self.turn()
    }

    /// Takes what answers there are, however short ago it has looked for them.
    fn listen(&mut self) -> Result<(), String> {
        self.ear.listen();
        self.turn()
    }

    /// Hands the socket what there is for it, and takes what answers there are.
    fn turn(&mut self) -> Result<(), String> {
        let mut context = Context::from_waker(Waker::noop());
        let ended = Pin::new(&mut self.connection).poll(&mut context);
        while let Poll::Ready(data) = self.inward.poll_data(&mut context) {
            let Some(data) = data else {
                return Err(match self.inward.poll_trailers(&mut context) {
                    Poll::Ready(Ok(Some(trailers))) => status(&trailers),
                    _ => text("ended early"),
                });
            };
            let data = data.map_err(text)?;
            self.inward.flow_control().release_capacity(data.len()).map_err(text)?;
            self.unread.extend_from_slice(&data);
            self.read()?;
        }
        match ended {
            Poll::Ready(ended) => Err(why(ended)),
            Poll::Pending => Ok(()),
        }
    }

    /// Takes the results that are whole.
    fn read(&mut self) -> Result<(), String> {
        while let Some((head, rest)) = self.unread.split_first_chunk::<HEAD_BYTES>() {
            let bytes = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
            if rest.len() < bytes {
                break;
            }
            self.unread.advance(HEAD_BYTES);
            let results = PushResults::decode(self.unread.split_to(bytes)).map_err(text)?;
            self.take(results);
        }
        Ok(())
    }

    /// Lets the stream go on until something is answered or delivered, for so long at most.
    pub fn rest(&mut self, at_most: Duration) -> Result<(), String> {
        self.listen()?;
        self.shared.bell.wait(&self.socket, at_most).map_err(text)?;
        self.listen()
    }

    /// Waits until then, to the grain of a sleeping thread. Answers are taken meanwhile, but not when the time has come:
    /// that would make what is due late, and they are taken behind it.
    pub fn pause(&mut self, until: Instant) -> Result<(), String> {
        loop {
            thread::sleep(until.saturating_duration_since(Instant::now()).min(LOOK_FOR_ANSWERS));
            if Instant::now() >= until {
                return Ok(());
            }
            self.listen()?;
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

/// Why a connection has ended.
fn why(ended: Result<(), h2::Error>) -> String {
    ended.map_or_else(text, |()| text("the server has closed the connection"))
}

/// What a server says at the end of a call.
fn status(headers: &HeaderMap) -> String {
    let say = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    text(format!("ended with status {} {}", say(STATUS), say("grpc-message")))
}

fn request(order: &Order) -> Result<Request<()>, String> {
    let mut request = Request::builder()
        .method(Method::POST)
        .version(Version::HTTP_2)
        .uri(format!("http://{}{METHOD}", order.api))
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    if let Some(key) = &order.api_key {
        request = request.header("authorization", format!("Bearer {key}"));
    }
    request.body(()).map_err(text)
}

/// Asks again and again, whenever the socket may have moved on.
fn drive<T>(socket: &TcpStream, ear: &Ear, mut ask: impl FnMut(&mut Context<'_>) -> Poll<T>) -> Result<T, String> {
    let (deadline, mut context) = (Instant::now() + PATIENCE, Context::from_waker(Waker::noop()));
    loop {
        ear.listen();
        if let Poll::Ready(answer) = ask(&mut context) {
            return Ok(answer);
        }
        if Instant::now() >= deadline {
            return Err(text("the server does not answer"));
        }
        wait_for(&[PollFd::new(socket, PollFlags::IN)], LOOK_AGAIN).map_err(text)?;
    }
}
