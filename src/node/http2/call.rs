//! A call: its request's body as it comes, and its response as far as it is sent.

use super::Answer;
use crate::limits;
use crate::wire::http2::{Code, Connection, StreamId};
use axum::body::{Body, HttpBody};
use axum::http::{HeaderMap, HeaderValue, header};
use bytes::{Buf, Bytes};
use core::pin::Pin;
use core::sync::atomic::{AtomicBool, Ordering};
use core::task::{Context, Poll, Waker};
use futures_util::task::AtomicWaker;
use http_body::{Frame, SizeHint};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::Wake;
use std::time::SystemTime;

/// The calls of a connection that can go on.
#[derive(Default)]
pub(super) struct Woken {
    streams: Mutex<Vec<StreamId>>,
    connection: AtomicWaker,
}

impl Woken {
    /// Who serves the connection.
    pub(super) fn register(&self, waker: &Waker) {
        self.connection.register(waker);
    }

    pub(super) fn waker(self: &Arc<Self>, stream: StreamId) -> Arc<CallWaker> {
        Arc::new(CallWaker { stream, woken: Arc::clone(self), is_marked: AtomicBool::new(false) })
    }

    /// All of them, in the order in which they were woken.
    pub(super) fn take(&self, into: &mut Vec<StreamId>) {
        core::mem::swap(&mut *self.lock(), into);
    }

    fn lock(&self) -> MutexGuard<'_, Vec<StreamId>> {
        self.streams.lock().expect("nobody panics while holding it")
    }
}

/// Wakes a call.
pub(super) struct CallWaker {
    stream: StreamId,
    woken: Arc<Woken>,
    /// It stands among the woken.
    is_marked: AtomicBool,
}

impl CallWaker {
    /// Has the call go on when its connection looks again; whether that is news.
    pub(super) fn mark(&self) -> bool {
        let is_news = !self.is_marked.swap(true, Ordering::AcqRel);
        if is_news {
            self.woken.lock().push(self.stream);
        }
        is_news
    }

    /// It goes on. What wakes it from here on is news.
    pub(super) fn has_turn(&self) {
        // Read as well as written: whoever finds it marked still has done so before, and is seen by the call.
        self.is_marked.swap(false, Ordering::AcqRel);
    }
}

impl Wake for CallWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.mark() {
            self.woken.connection.wake();
        }
    }
}

/// How far a call has come.
pub(super) enum Progress {
    /// Something wakes it.
    Waits,
    /// Enough is to be sent.
    HeldUp,
    /// It is answered, as far as it can be.
    Over,
}

enum State {
    Asked(Answer),
    Answering {
        body: Body,
        /// Of it, what the windows did not hold.
        unsent: Bytes,
    },
}

/// See the module.
pub(super) struct Call {
    stream: StreamId,
    marker: Arc<CallWaker>,
    waker: Waker,
    request: Arc<Mutex<Pieces>>,
    state: State,
}

impl Call {
    /// `length`: of its request's body, where it is known.
    pub(super) fn new(
        stream: StreamId,
        woken: &Arc<Woken>,
        length: Option<u64>,
        enter: impl FnOnce(Body) -> Answer,
    ) -> Self {
        let marker = woken.waker(stream);
        let waker = Waker::from(Arc::clone(&marker));
        let request = Arc::new(Mutex::new(Pieces { is_whole: length == Some(0), left: length, ..Pieces::default() }));
        let body = RequestBody { pieces: Arc::clone(&request), call: waker.clone() };
        Self { stream, marker, waker, request, state: State::Asked(enter(Body::new(body))) }
    }

    /// Whether a part of its answer waits for a window.
    pub(super) fn waits_for_window(&self) -> bool {
        matches!(&self.state, State::Answering { unsent, .. } if !unsent.is_empty())
    }

    /// Has it go on when its connection looks again.
    pub(super) fn mark(&self) {
        self.marker.mark();
    }

    /// A piece of its request's body has come.
    pub(super) fn came(&self, bytes: &[u8], ends: bool) {
        let mut pieces = lock(&self.request);
        if pieces.is_unwanted {
            pieces.used += bytes.len();
        } else if !bytes.is_empty() {
            pieces.waiting.extend_from_slice(bytes);
        }
        pieces.is_whole = ends;
        // Nearly always the call itself, which goes on anyway.
        if let Some(reader) = &pieces.reader
            && !reader.will_wake(&self.waker)
        {
            reader.wake_by_ref();
        }
        self.marker.mark();
    }

    /// Goes on as far as it can.
    pub(super) fn go_on(&mut self, http2: &mut Connection) -> Progress {
        self.marker.has_turn();
        let progress = self.answer(http2);
        let used = core::mem::take(&mut lock(&self.request).used);
        if used > 0 {
            http2.release(self.stream, used);
        }
        progress
    }

    fn answer(&mut self, http2: &mut Connection) -> Progress {
        let (stream, mut cx) = (self.stream, Context::from_waker(&self.waker));
        loop {
            match &mut self.state {
                State::Asked(answer) => {
                    let Poll::Ready(response) = answer.as_mut().poll(&mut cx) else { return Progress::Waits };
                    let (head, body) = response.into_parts();
                    let is_empty = body.is_end_stream();
                    let headers = complete(head.headers);
                    http2.send_fields(stream, Some(head.status.as_u16()), fields(&headers), is_empty);
                    if is_empty {
                        return Progress::Over;
                    }
                    self.state = State::Answering { body, unsent: Bytes::new() };
                }
                State::Answering { unsent, .. } if http2.unsent().len() > limits::API_UNSENT_BYTES_MAX => {
                    return Progress::HeldUp;
                }
                State::Answering { body, unsent } => {
                    if !unsent.is_empty() {
                        let is_last = body.is_end_stream();
                        unsent.advance(http2.send_data(stream, unsent, is_last));
                        if !unsent.is_empty() {
                            return Progress::Waits;
                        }
                        if is_last {
                            return Progress::Over;
                        }
                    }
                    let Poll::Ready(frame) = Pin::new(body).poll_frame(&mut cx) else { return Progress::Waits };
                    match frame.map(|frame| frame.map(Frame::into_data)) {
                        Some(Ok(Ok(data))) => *unsent = data,
                        Some(Ok(Err(frame))) => {
                            let trailers = frame.into_trailers().unwrap_or_default();
                            http2.send_fields(stream, None, fields(&trailers), true);
                            return Progress::Over;
                        }
                        Some(Err(_)) => {
                            http2.reset(stream, Code::InternalError);
                            return Progress::Over;
                        }
                        None => {
                            http2.send_data(stream, &[], true);
                            return Progress::Over;
                        }
                    }
                }
            }
        }
    }
}

/// Headers as HTTP/2 has them: with a date, and with nothing that speaks of a connection.
fn complete(mut headers: HeaderMap) -> HeaderMap {
    for name in [header::CONNECTION, header::TRANSFER_ENCODING, header::UPGRADE] {
        headers.remove(name);
    }
    headers.entry(header::DATE).or_insert_with(|| {
        let now = httpdate::fmt_http_date(SystemTime::now());
        HeaderValue::from_str(&now).expect("a date is ASCII")
    });
    headers
}

fn fields(headers: &HeaderMap) -> impl Iterator<Item = (&[u8], &[u8])> {
    headers.iter().map(|(name, value)| (name.as_str().as_bytes(), value.as_bytes()))
}

/// A request's body between the connection and who reads it.
#[derive(Default)]
struct Pieces {
    /// What has come and was not read, in one piece: many small ones must not cost more than their bytes.
    waiting: Vec<u8>,
    /// Bytes that were not read, where that is known.
    left: Option<u64>,
    /// Nothing more comes.
    is_whole: bool,
    /// The call is over before it was.
    is_cut: bool,
    /// Nobody reads it any more.
    is_unwanted: bool,
    /// Bytes that were read, or that nobody wants, and the peer does not know of.
    used: usize,
    reader: Option<Waker>,
}

fn lock(pieces: &Mutex<Pieces>) -> MutexGuard<'_, Pieces> {
    pieces.lock().expect("nobody panics while holding it")
}

/// What a handler reads.
struct RequestBody {
    pieces: Arc<Mutex<Pieces>>,
    /// Gives back what was used.
    call: Waker,
}

impl HttpBody for RequestBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let mut pieces = lock(&self.pieces);
        if !pieces.waiting.is_empty() {
            let piece = Bytes::from(core::mem::take(&mut pieces.waiting));
            pieces.used += piece.len();
            pieces.left = pieces.left.map(|left| left.saturating_sub(piece.len() as u64));
            // Who reads it in a task of its own must say so before the peer has to wait.
            if pieces.used >= limits::API_WINDOW_BYTES as usize / 16 {
                self.call.wake_by_ref();
            }
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        if pieces.is_whole {
            return Poll::Ready(None);
        }
        if pieces.is_cut {
            return Poll::Ready(Some(Err(io::ErrorKind::ConnectionReset.into())));
        }
        if !pieces.reader.as_ref().is_some_and(|reader| reader.will_wake(cx.waker())) {
            pieces.reader = Some(cx.waker().clone());
        }
        Poll::Pending
    }

    fn is_end_stream(&self) -> bool {
        let pieces = lock(&self.pieces);
        pieces.is_whole && pieces.waiting.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        lock(&self.pieces).left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        let mut pieces = lock(&self.pieces);
        pieces.is_unwanted = true;
        pieces.used += core::mem::take(&mut pieces.waiting).len();
        if pieces.used > 0 {
            self.call.wake_by_ref();
        }
    }
}

/// Who reads its request's body elsewhere learns that there is no more of it.
impl Drop for Call {
    fn drop(&mut self) {
        let mut pieces = lock(&self.request);
        pieces.is_cut = true;
        if let Some(reader) = pieces.reader.take() {
            reader.wake();
        }
    }
}
