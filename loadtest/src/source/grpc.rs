//! Batches in one `PushStream`, over HTTP/2 that the caller's own thread turns while it sends or rests: a runtime or a
//! thread in between would count as the server's latency.

mod batch;
mod wire;

use super::bell::wait_for;
use super::{LOOK_AGAIN, Order, Push, Shared};
use batch::HEAD_BYTES;
use bytes::{Buf, Bytes, BytesMut};
use h2::client::{Builder, Connection, SendRequest};
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Method, Request, StatusCode, Version};
use kittiwake::base::ids::Qos;
use kittiwake::push::grpc::generated::{PushError, PushResults, Qos as WireQos, tagged_result};
use prost::Message;
use rustix::event::{PollFd, PollFlags};
use std::collections::VecDeque;
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
/// While it sends, answers are looked for so often.
const LOOK_FOR_ANSWERS: Duration = Duration::from_micros(100);
/// In a pause they are looked for so often, from so long after it has begun, while there are any to come: rarely enough
/// that the CPU sleeps as deep as beside who publishes and needs none, and late enough for the fleet to have gone first.
const LOOK_IN_PAUSE: Duration = Duration::from_micros(250);
const STATUS: &str = "grpc-status";

/// The stream, with when each push that is not answered was due.
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
    due: Due,
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
        let (inward, unread, due) = (response.into_body(), BytesMut::new(), Due::default());
        let qos = order.qos;
        Ok(Self { socket, ear, connection, _requests: requests, outward, inward, unread, due, qos, shared, builder })
    }

    pub fn send(&mut self, pushes: &[Push]) -> Result<(), String> {
        let qos = match self.qos {
            Qos::AtMostOnce => WireQos::AtMostOnce,
            Qos::AtLeastOnce => WireQos::AtLeastOnce,
            Qos::ExactlyOnce => WireQos::ExactlyOnce,
        };
        pushes.iter().for_each(|push| self.due.add(push.tag, push.due));
        let message = batch::encode(pushes, qos).ok_or_else(|| text("a batch is too long"))?;
        // Why it has ended, if it has, stands behind the last results.
        if self.outward.send_data(message, false).is_err() {
            self.listen()?;
            return Err(text("ended early"));
        }
        // What is due leaves before anything is read.
        let reads = self.ear.put_off();
        self.turn()?;
        if reads { self.listen() } else { Ok(()) }
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
            let left = until.saturating_duration_since(Instant::now());
            if left <= LOOK_IN_PAUSE || self.due.times.is_empty() {
                thread::sleep(left);
                return Ok(());
            }
            thread::sleep(LOOK_IN_PAUSE);
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
            match self.due.take(result.tag) {
                Some(due) => self.shared.answered(&self.builder, due, refusal),
                None => self.shared.unexpected(format!("a result for {}, which nothing awaits", result.tag)),
            }
        }
    }
}

/// When each push that is not answered was due. Tags follow one another.
#[derive(Debug, Default)]
struct Due {
    /// The tag of the first.
    first: u64,
    times: VecDeque<Option<Instant>>,
}

impl Due {
    fn add(&mut self, tag: u64, due: Instant) {
        if self.times.is_empty() {
            self.first = tag;
        }
        debug_assert_eq!(tag, self.first + self.times.len() as u64, "tags follow one another");
        self.times.push_back(Some(due));
    }

    fn take(&mut self, tag: u64) -> Option<Instant> {
        let at = usize::try_from(tag.checked_sub(self.first)?).ok()?;
        let due = self.times.get_mut(at)?.take();
        while let Some(None) = self.times.front() {
            self.times.pop_front();
            self.first += 1;
        }
        due
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_answered_is_known_by_its_tag_in_whatever_order_answers_come() {
        let (mut due, start) = (Due::default(), Instant::now());
        let at = |tag: u64| start + Duration::from_micros(tag);
        assert_eq!(due.take(0), None);
        (5..9).for_each(|tag| due.add(tag, at(tag)));
        assert_eq!((due.take(6), due.take(6)), (Some(at(6)), None));
        assert_eq!((due.take(5), due.first, due.times.len()), (Some(at(5)), 7, 2));
        assert_eq!((due.take(4), due.take(9)), (None, None));
        due.add(9, at(9));
        assert_eq!((due.take(9), due.take(7), due.take(8)), (Some(at(9)), Some(at(7)), Some(at(8))));
        assert!(due.times.is_empty());
        due.add(20, at(20));
        assert_eq!(due.take(20), Some(at(20)));
    }
}
