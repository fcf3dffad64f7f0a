//! How many gRPC calls there are at a time, and how many bytes of their messages are at hand.
//!
//! A call keeps its place until its response has ended, however it ends. A message takes its room from the one that
//! JSON bodies share, as soon as its length is known, and gives it back when it is there: what becomes of it then is
//! bounded by what handles it.

use super::super::guard::{Bodies, kibibytes};
use super::super::problem::Problem;
use super::batches::PREFIX;
use super::{refusal, status};
use crate::limits::{API_BODY_BYTES_MAX, GRPC_CALLS_MAX};
use axum::body::{Body, HttpBody};
use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;
use bytes::Bytes;
use core::pin::Pin;
use core::task::{Context, Poll};
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// See the module. Full: RESOURCE_EXHAUSTED.
pub(in crate::push) struct Calls {
    places: Arc<Semaphore>,
    room: Arc<Semaphore>,
}

impl Calls {
    pub(in crate::push) fn new(bodies: &Bodies) -> Self {
        Self { places: Arc::new(Semaphore::new(GRPC_CALLS_MAX)), room: bodies.room() }
    }

    /// Runs a call in its place.
    pub(in crate::push) async fn run(&self, request: Request, next: Next) -> Response {
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            return refusal(Problem::busy());
        };
        let room = Arc::clone(&self.room);
        let request = request.map(|body| Body::new(Messages { body, room, frame: Frame::default(), held: None }));
        next.run(request).await.map(|body| Body::new(Placed { body, _place: place }))
    }
}

/// A response body that holds its call's place.
struct Placed {
    body: Body,
    _place: OwnedSemaphorePermit,
}

impl HttpBody for Placed {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}

/// Where in the stream of length-prefixed messages a body is: a flag, four bytes of length, the message.
#[derive(Debug, Default, PartialEq, Eq)]
struct Frame {
    /// Bytes of the prefix that have come.
    prefix: usize,
    /// The length, as far as it has come.
    length: u32,
    /// Bytes of the message that have not come.
    left: usize,
}

/// What a piece of a body brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// A message of this many bytes begins.
    Begins(usize),
    /// A message is whole.
    Ends,
}

impl Frame {
    fn take(&mut self, mut bytes: &[u8], mut step: impl FnMut(Step) -> Result<(), ()>) -> Result<(), ()> {
        while let [first, rest @ ..] = bytes {
            if self.left > 0 {
                let taken = self.left.min(bytes.len());
                self.left -= taken;
                bytes = &bytes[taken..];
                if self.left == 0 {
                    step(Step::Ends)?;
                }
                continue;
            }
            bytes = rest;
            self.prefix += 1;
            if self.prefix > 1 {
                self.length = self.length << 8 | u32::from(*first);
            }
            if self.prefix == PREFIX {
                self.left = usize::try_from(self.length).unwrap_or(usize::MAX);
                (self.prefix, self.length) = (0, 0);
                if self.left > 0 {
                    step(Step::Begins(self.left))?;
                }
            }
        }
        Ok(())
    }
}

/// A request body whose messages have taken their room.
struct Messages {
    body: Body,
    room: Arc<Semaphore>,
    frame: Frame,
    held: Option<OwnedSemaphorePermit>,
}

impl HttpBody for Messages {
    type Data = Bytes;
    type Error = tonic::Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, tonic::Status>>> {
        let Self { body, room, frame, held } = self.get_mut();
        let polled = core::task::ready!(Pin::new(body).poll_frame(cx));
        let Some(Ok(piece)) = polled else {
            return Poll::Ready(polled.map(|ended| ended.map_err(|error| tonic::Status::from_error(error.into()))));
        };
        let Some(bytes) = piece.data_ref() else { return Poll::Ready(Some(Ok(piece))) };
        let taken = frame.take(bytes, |step| {
            *held = match step {
                // What is longer than is taken is refused by its length, before it is read.
                Step::Begins(length) if length <= API_BODY_BYTES_MAX => {
                    let units = kibibytes(length as u64);
                    Some(Arc::clone(room).try_acquire_many_owned(units).map_err(drop)?)
                }
                Step::Begins(_) | Step::Ends => None,
            };
            Ok(())
        });
        Poll::Ready(Some(taken.map(|()| piece).map_err(|()| status::of(Problem::busy()))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::{BodyExt, StreamBody};

    fn message(length: usize) -> Vec<u8> {
        let mut bytes = vec![0];
        bytes.extend_from_slice(&u32::try_from(length).expect("small").to_be_bytes());
        bytes.resize(PREFIX + length, 7);
        bytes
    }

    #[test]
    fn messages_are_found_however_the_bytes_are_cut() {
        let bytes: Vec<u8> = [3, 0, 300, 1].into_iter().flat_map(message).collect();
        for size in 1..=bytes.len() {
            let (mut frame, mut steps) = (Frame::default(), Vec::new());
            for piece in bytes.chunks(size) {
                frame
                    .take(piece, |step| {
                        steps.push(step);
                        Ok(())
                    })
                    .expect("nobody refuses");
            }
            let begins = [3, 300, 1].map(Step::Begins);
            assert_eq!(steps, begins.into_iter().flat_map(|begin| [begin, Step::Ends]).collect::<Vec<_>>(), "{size}");
            assert_eq!(frame, Frame::default());
        }
    }

    #[tokio::test]
    async fn a_message_takes_its_room_by_its_length_and_gives_it_back_when_it_is_there() {
        let room = Arc::new(Semaphore::new(4));
        let begun = [message(3 * 1_024)[..100].to_vec(), message(3 * 1_024)[100..].to_vec(), message(5 * 1_024)];
        let pieces = begun.map(|piece| Ok::<_, axum::Error>(http_body::Frame::data(Bytes::from(piece))));
        let body = Body::new(StreamBody::new(futures_util::stream::iter(pieces)));
        let mut messages = Messages { body, room: Arc::clone(&room), frame: Frame::default(), held: None };
        assert!(messages.frame().await.is_some_and(|piece| piece.is_ok()));
        assert_eq!(room.available_permits(), 1, "all of it is reserved, although most has not come");
        assert!(messages.frame().await.is_some_and(|piece| piece.is_ok()));
        assert_eq!(room.available_permits(), 4);
        let refused = messages.frame().await.expect("a piece").expect_err("there is no room for it");
        assert_eq!(refused.code(), tonic::Code::ResourceExhausted);
    }
}
