//! The batches of a push stream, read from its body as they come: one that lies in one piece of it, as most do, is decoded
//! where it lies.

use super::generated::PushBatch;
use crate::limits::{API_BODY_BYTES_MAX, GRPC_PARTIAL_KEPT_BYTES};
use axum::body::{Body, HttpBody};
use bytes::Bytes;
use core::pin::Pin;
use core::task::{Context, Poll, ready};
use prost::Message;
use tonic::Status;

/// A flag and four bytes of length stand before each message.
pub(super) const PREFIX: usize = 5;

/// See the module.
pub(super) struct Batches {
    body: Body,
    /// What has come and was not looked at, if no message has begun before it.
    piece: Bytes,
    /// The beginning of a message whose end has not come.
    partial: Vec<u8>,
}

impl Batches {
    pub(super) fn new(body: Body) -> Self {
        Self { body, piece: Bytes::new(), partial: Vec::new() }
    }

    /// The next one; none: there are no more.
    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<PushBatch>, Status>> {
        loop {
            if let Some(batch) = self.take()? {
                return Poll::Ready(Ok(Some(batch)));
            }
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                // What follows the last piece says nothing here.
                Some(Ok(frame)) => self.piece = frame.into_data().unwrap_or_default(),
                Some(Err(error)) => return Poll::Ready(Err(Status::from_error(Box::new(error)))),
                None if self.partial.is_empty() => return Poll::Ready(Ok(None)),
                None => return Poll::Ready(Err(Status::internal("the stream ended within a message"))),
            }
        }
    }

    /// A message that is whole.
    fn take(&mut self) -> Result<Option<PushBatch>, Status> {
        if self.partial.is_empty()
            && let Some(end) = end_of(&self.piece)?.filter(|&end| end <= self.piece.len())
        {
            return decode(&self.piece.split_to(end)).map(Some);
        }
        while !self.piece.is_empty() {
            let wanted = end_of(&self.partial)?.unwrap_or(PREFIX);
            let missing = (wanted - self.partial.len()).min(self.piece.len());
            self.partial.extend_from_slice(&self.piece.split_to(missing));
            if end_of(&self.partial)? == Some(self.partial.len()) {
                let batch = decode(&self.partial)?;
                self.partial.clear();
                self.partial.shrink_to(GRPC_PARTIAL_KEPT_BYTES);
                return Ok(Some(batch));
            }
        }
        Ok(None)
    }
}

/// Where the message ends that begins here, with its prefix; none: that has not come.
fn end_of(bytes: &[u8]) -> Result<Option<usize>, Status> {
    let Some(&[flag, a, b, c, d]) = bytes.first_chunk::<PREFIX>() else { return Ok(None) };
    if flag != 0 {
        return Err(Status::unimplemented("messages must not be compressed"));
    }
    match usize::try_from(u32::from_be_bytes([a, b, c, d])) {
        Ok(length) if length <= API_BODY_BYTES_MAX => Ok(Some(PREFIX + length)),
        _ => {
            let text = format!("a message is too long; allowed: {API_BODY_BYTES_MAX} bytes");
            Err(Status::out_of_range(text))
        }
    }
}

/// Payloads are copied, so that one that stays keeps nothing of what came beside it.
fn decode(message: &[u8]) -> Result<PushBatch, Status> {
    PushBatch::decode(&message[PREFIX..])
        .map_err(|error| Status::internal(format!("a message cannot be read: {error}")))
}

#[cfg(test)]
mod tests {
    use super::super::generated as pb;
    use super::*;
    use futures_util::stream;
    use http_body_util::StreamBody;
    use tonic::Code;

    fn batch(tags: core::ops::Range<u64>) -> PushBatch {
        let payload = Bytes::from(vec![0x55; 300]);
        let push =
            |tag| Some(pb::PushRequest { payload: payload.clone(), label: format!("l{tag}"), ..Default::default() });
        PushBatch { pushes: tags.map(|tag| pb::TaggedPush { tag, push: push(tag) }).collect() }
    }

    fn framed(batch: &PushBatch) -> Vec<u8> {
        let message = batch.encode_to_vec();
        let length = u32::try_from(message.len()).expect("small");
        [&[0][..], &length.to_be_bytes(), &message].concat()
    }

    async fn read(pieces: impl Iterator<Item = Vec<u8>>) -> (Vec<PushBatch>, Result<(), Status>) {
        let pieces: Vec<_> = pieces.map(|piece| Ok::<_, axum::Error>(http_body::Frame::data(piece.into()))).collect();
        let mut batches = Batches::new(Body::new(StreamBody::new(stream::iter(pieces))));
        let mut got = Vec::new();
        loop {
            match core::future::poll_fn(|cx| batches.poll_next(cx)).await {
                Ok(Some(batch)) => got.push(batch),
                Ok(None) => return (got, Ok(())),
                Err(status) => return (got, Err(status)),
            }
        }
    }

    #[tokio::test]
    async fn batches_are_read_however_the_bytes_are_cut() {
        let sent = [batch(0..1), batch(1..1), batch(1..4), batch(4..5)];
        let bytes: Vec<u8> = sent.iter().flat_map(framed).collect();
        for size in 1..=bytes.len() {
            let (got, ended) = read(bytes.chunks(size).map(<[u8]>::to_vec)).await;
            assert!(ended.is_ok() && got == sent, "pieces of {size} bytes: {ended:?}");
        }
    }

    #[tokio::test]
    async fn a_body_that_fails_says_how() {
        let pieces =
            [Ok(http_body::Frame::data(Bytes::from(framed(&batch(0..2))))), Err(Status::resource_exhausted("full"))];
        let mut batches = Batches::new(Body::new(StreamBody::new(stream::iter(pieces))));
        let read = core::future::poll_fn(|cx| batches.poll_next(cx)).await;
        assert!(read.is_ok_and(|read| read == Some(batch(0..2))));
        let failed = core::future::poll_fn(|cx| batches.poll_next(cx)).await.expect_err("the body fails");
        assert_eq!((failed.code(), failed.message()), (Code::ResourceExhausted, "full"));
    }

    #[tokio::test]
    async fn what_is_no_batch_says_why() {
        let whole = framed(&batch(0..2));
        let over = u32::try_from(API_BODY_BYTES_MAX + 1).expect("small").to_be_bytes();
        for (bytes, code) in [
            ([&whole[..], &whole[..7]].concat(), Code::Internal),
            ([&whole[..], &whole[..3]].concat(), Code::Internal),
            ([&whole[..], &[1, 0, 0, 0, 0]].concat(), Code::Unimplemented),
            ([&whole[..], &[0], &over].concat(), Code::OutOfRange),
            ([&whole[..], &[0, 0, 0, 0, 1, 0xff]].concat(), Code::Internal),
        ] {
            for size in [1, 4, bytes.len()] {
                let (got, ended) = read(bytes.chunks(size).map(<[u8]>::to_vec)).await;
                assert_eq!((got.len(), ended.expect_err("it is wrong").code()), (1, code), "pieces of {size}");
            }
        }
    }
}
