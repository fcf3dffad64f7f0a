//! Owns: HTTP/2 on a connection of the API, all of its calls in one task: what is read is handed to the calls that it is
//! for, these go on at once, and what they answer leaves together. A push passes no queue between tasks on its way.
//! In: a connection, the API's router. Out: requests as the router takes them, with bodies that come as they are read.
//! Must not: know what a request means.
//! Invariants: a call goes on when something was for it, and at no other time; a body that nobody reads holds up its sender
//! and nobody else; what waits for a peer that does not read is bounded, and then the peer is not read.
//!
//! `call` a request's body and its response.

mod call;
#[cfg(test)]
mod tests;

use crate::limits;
use crate::push::Peer;
use crate::wire::http2::{Bounds, Code, Connection, Event, RequestHead, StreamId};
use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::{StatusCode, Uri, Version};
use axum::response::{IntoResponse, Response};
use call::{Call, CallWaker, Progress, Woken};
use core::future::{Future, poll_fn, ready};
use core::pin::Pin;
use core::task::{Context, Poll, Waker};
use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};
use tower::ServiceExt;

const BOUNDS: Bounds = Bounds {
    streams: limits::API_STREAMS_PER_CONNECTION_MAX,
    head_bytes: limits::API_HEAD_BYTES_MAX,
    window_bytes: limits::API_WINDOW_BYTES,
    resets: limits::API_RESETS_MAX,
};

/// Serves until the peer is gone, or `stopping` has come and all that was asked is answered.
pub(super) async fn serve<I: AsyncRead + AsyncWrite + Unpin>(
    io: I,
    peer: IpAddr,
    router: Router,
    stopping: impl Future<Output = ()> + Send + 'static,
) {
    let mut serving = Serving::new(io, peer, router, stopping);
    // How a connection ends is its peer's affair; each request was answered or cut with it.
    let _ended = poll_fn(|cx| serving.poll(cx)).await;
}

/// See the module.
struct Serving<I> {
    io: I,
    http2: Connection,
    /// Bytes that came and are no whole frame.
    input: Vec<u8>,
    filled: usize,
    calls: HashMap<StreamId, Call>,
    /// Some of them wait until something has been sent.
    has_held_up: bool,
    /// Something was written and may not have left.
    is_to_flush: bool,
    /// The socket took no more.
    is_stuck: bool,
    /// The peer has hung up.
    is_cut: bool,
    woken: Arc<Woken>,
    /// Of these, what was taken and not looked at.
    turns: Vec<StreamId>,
    own: Waker,
    marker: Arc<CallWaker>,
    entrance: Entrance,
    stopping: Pin<Box<dyn Future<Output = ()> + Send>>,
    keep_alive: KeepAlive,
}

impl<I: AsyncRead + AsyncWrite + Unpin> Serving<I> {
    fn new(io: I, peer: IpAddr, router: Router, stopping: impl Future<Output = ()> + Send + 'static) -> Self {
        let woken = Arc::<Woken>::default();
        // Wakes the connection itself: somebody wants it to leave, or its peer is silent.
        let own = woken.waker(StreamId::CONNECTION);
        own.mark();
        Self {
            io,
            http2: Connection::new(BOUNDS),
            input: Vec::new(),
            filled: 0,
            calls: HashMap::new(),
            has_held_up: false,
            is_to_flush: false,
            is_stuck: false,
            is_cut: false,
            turns: Vec::new(),
            own: Waker::from(Arc::clone(&own)),
            marker: own,
            woken,
            entrance: Entrance { peer, router },
            stopping: Box::pin(stopping),
            keep_alive: KeepAlive::new(),
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.woken.register(cx.waker());
        for _ in 0..limits::API_TURNS_MAX {
            let was_full = self.is_full();
            let has_read = !was_full && self.read(cx)?;
            let has_turned = self.turn()?;
            if self.is_cut {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
            let has_room = self.write(cx)?;
            if has_room && self.http2.is_over() {
                return Pin::new(&mut self.io).poll_shutdown(cx);
            }
            let goes_on = has_read || has_turned || was_full && has_room;
            if !goes_on {
                return Poll::Pending;
            }
        }
        // Others of the runtime go first.
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Whether its peer is to take what it was sent before it is read.
    fn is_full(&self) -> bool {
        self.http2.unsent().len() > limits::API_UNSENT_BYTES_MAX
    }

    /// Takes in what has come; false: it waits for more.
    fn read(&mut self, cx: &mut Context<'_>) -> io::Result<bool> {
        if self.http2.is_over() {
            return Ok(false);
        }
        self.input.resize(limits::API_READ_BYTES, 0);
        let mut is_dry = false;
        while !is_dry && self.filled < self.input.len() {
            let mut free = ReadBuf::new(&mut self.input[self.filled..]);
            match Pin::new(&mut self.io).poll_read(cx, &mut free) {
                Poll::Ready(read) => {
                    read?;
                    let count = free.filled().len();
                    // What came before is looked at first.
                    (self.is_cut, is_dry) = (count == 0, count == 0);
                    self.filled += count;
                    self.keep_alive.has_heard = true;
                }
                Poll::Pending => is_dry = true,
            }
        }
        let mut has_room = false;
        let Self { http2, calls, entrance, woken, input, .. } = self;
        let used = http2.receive(&input[..self.filled], &mut |event| match event {
            Event::Request { stream, head, ends } => {
                let length = if ends { Some(0) } else { head.content_length };
                let call = Call::new(stream, woken, length, |body| entrance.enter(head, body));
                call.mark();
                calls.insert(stream, call);
            }
            Event::Data { stream, bytes, ends } => {
                if let Some(call) = calls.get(&stream) {
                    call.came(bytes, ends);
                }
            }
            Event::Reset { stream } => drop(calls.remove(&stream)),
            Event::Room { stream: Some(stream) } => {
                calls.get(&stream).into_iter().filter(|call| call.waits_for_window()).for_each(Call::mark);
            }
            Event::Room { stream: None } => has_room = true,
        });
        if has_room {
            calls.values().filter(|call| call.waits_for_window()).for_each(Call::mark);
        }
        input.copy_within(used..self.filled, 0);
        self.filled -= used;
        if self.filled == 0 && self.calls.is_empty() {
            self.input = Vec::new();
        }
        Ok(!is_dry)
    }

    /// Lets those go on that were woken; false: nobody was.
    fn turn(&mut self) -> io::Result<bool> {
        self.woken.take(&mut self.turns);
        let has_turned = !self.turns.is_empty();
        let mut turns = core::mem::take(&mut self.turns);
        for stream in turns.drain(..) {
            if stream == StreamId::CONNECTION {
                self.attend()?;
            } else if let Some(call) = self.calls.get_mut(&stream) {
                let http2 = &mut self.http2;
                // A handler that panics ends its own call.
                match catch_unwind(AssertUnwindSafe(|| call.go_on(http2))) {
                    Ok(Progress::Waits) => {}
                    Ok(Progress::HeldUp) => self.has_held_up = true,
                    Ok(Progress::Over) => drop(self.calls.remove(&stream)),
                    Err(_) => {
                        self.http2.reset(stream, Code::InternalError);
                        drop(self.calls.remove(&stream));
                    }
                }
            }
        }
        self.turns = turns;
        Ok(has_turned)
    }

    /// Whether it is to leave, and whether its peer is there.
    fn attend(&mut self) -> io::Result<()> {
        self.marker.has_turn();
        let mut cx = Context::from_waker(&self.own);
        let is_stopping = self.stopping.as_mut().poll(&mut cx).is_ready();
        if is_stopping {
            self.http2.leave();
            self.stopping = Box::pin(core::future::pending());
        }
        self.keep_alive.poll(&mut self.http2, &mut cx)
    }

    /// Sends what there is; false: the peer does not take it.
    fn write(&mut self, cx: &mut Context<'_>) -> io::Result<bool> {
        while !self.http2.unsent().is_empty() {
            match Pin::new(&mut self.io).poll_write(cx, self.http2.unsent())? {
                Poll::Ready(0) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(count) => self.http2.sent(count),
                Poll::Pending => {
                    self.is_stuck = true;
                    return Ok(false);
                }
            }
            // Its socket had been full, and is not: the peer is there, and takes what it is sent.
            self.keep_alive.has_heard |= core::mem::take(&mut self.is_stuck);
            self.is_to_flush = true;
        }
        if core::mem::take(&mut self.has_held_up) {
            self.calls.values().for_each(Call::mark);
            self.own.wake_by_ref();
        }
        // TLS keeps what the socket does not take.
        self.is_to_flush = self.is_to_flush && Pin::new(&mut self.io).poll_flush(cx)?.is_pending();
        Ok(!self.is_to_flush)
    }
}

/// A silent peer is asked whether it is there.
struct KeepAlive {
    sleep: Pin<Box<Sleep>>,
    has_heard: bool,
    has_asked: bool,
}

impl KeepAlive {
    fn new() -> Self {
        Self { sleep: Box::pin(tokio::time::sleep(limits::API_KEEP_ALIVE)), has_heard: false, has_asked: false }
    }

    fn poll(&mut self, http2: &mut Connection, cx: &mut Context<'_>) -> io::Result<()> {
        while self.sleep.as_mut().poll(cx).is_ready() {
            http2.forgive();
            let has_heard = core::mem::take(&mut self.has_heard);
            if self.has_asked && !has_heard {
                return Err(io::ErrorKind::TimedOut.into());
            }
            self.has_asked = !has_heard;
            if self.has_asked {
                http2.ping();
            }
            let wait = if self.has_asked { limits::API_KEEP_ALIVE_TIMEOUT } else { limits::API_KEEP_ALIVE };
            self.sleep.as_mut().reset(Instant::now() + wait);
        }
        Ok(())
    }
}

/// Where requests go.
struct Entrance {
    peer: IpAddr,
    router: Router,
}

type Answer = Pin<Box<dyn Future<Output = Response> + Send>>;

impl Entrance {
    fn enter(&self, head: RequestHead, body: Body) -> Answer {
        if head.is_too_long {
            return Box::pin(ready(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE.into_response()));
        }
        let uri = match &head.authority {
            Some(authority) => {
                Uri::builder().scheme(&*head.scheme).authority(&**authority).path_and_query(&*head.path).build()
            }
            None => Uri::builder().path_and_query(&*head.path).build(),
        };
        let request = uri.and_then(|uri| {
            let request = Request::builder().method(&*head.method).uri(uri).version(Version::HTTP_2);
            head.fields.iter().fold(request, |request, (name, value)| request.header(name, &value[..])).body(body)
        });
        let Ok(mut request) = request else { return Box::pin(ready(StatusCode::BAD_REQUEST.into_response())) };
        request.extensions_mut().insert(Peer(self.peer));
        let answer = self.router.clone().oneshot(request);
        Box::pin(async move {
            let Ok(response) = answer.await;
            response
        })
    }
}
