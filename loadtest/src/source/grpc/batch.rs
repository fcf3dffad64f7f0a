//! A batch of pushes as the bytes of one gRPC message, written straight from what is to be pushed: the generated types
//! would first have each push moved into one of theirs.

use super::super::Push;
use bytes::{BufMut, Bytes, BytesMut};
use kittiwake::push::grpc::generated::Qos;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len};

/// What stands before a message: whether it is compressed, and its length.
pub const HEAD_BYTES: usize = 5;

// Of `proto/kittiwake/v1/gateway.proto`; the test holds them to it.
const BATCH_PUSHES: u32 = 1;
const TAGGED_TAG: u32 = 1;
const TAGGED_PUSH: u32 = 2;
const PUSH_USER: u32 = 2;
const PUSH_PAYLOAD: u32 = 8;
const PUSH_QOS: u32 = 10;

/// The message, with its head; none if it would be too long for one.
pub fn encode(pushes: &[Push], qos: Qos) -> Option<Bytes> {
    let field = |number, bytes: usize| key_len(number) + encoded_len_varint(bytes as u64) + bytes;
    let number = |at, value: u64| if value == 0 { 0 } else { key_len(at) + encoded_len_varint(value) };
    let request_bytes = |push: &Push| {
        field(PUSH_USER, push.user.len()) + field(PUSH_PAYLOAD, push.payload.len()) + number(PUSH_QOS, qos as u64)
    };
    let tagged_bytes = |push: &Push| number(TAGGED_TAG, push.tag) + field(TAGGED_PUSH, request_bytes(push));
    let batch_bytes: usize = pushes.iter().map(|push| field(BATCH_PUSHES, tagged_bytes(push))).sum();
    let mut out = BytesMut::with_capacity(HEAD_BYTES + batch_bytes);
    out.put_u8(0);
    out.put_u32(u32::try_from(batch_bytes).ok()?);
    for push in pushes {
        begin(BATCH_PUSHES, tagged_bytes(push), &mut out);
        put_number(TAGGED_TAG, push.tag, &mut out);
        begin(TAGGED_PUSH, request_bytes(push), &mut out);
        begin(PUSH_USER, push.user.len(), &mut out);
        out.put_slice(push.user.as_bytes());
        begin(PUSH_PAYLOAD, push.payload.len(), &mut out);
        out.put_slice(&push.payload);
        put_number(PUSH_QOS, qos as u64, &mut out);
    }
    Some(out.freeze())
}

fn begin(number: u32, bytes: usize, out: &mut BytesMut) {
    encode_key(number, WireType::LengthDelimited, out);
    encode_varint(bytes as u64, out);
}

fn put_number(at: u32, value: u64, out: &mut BytesMut) {
    if value != 0 {
        encode_key(at, WireType::Varint, out);
        encode_varint(value, out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kittiwake::push::grpc::generated::{PushBatch, PushRequest, TaggedPush, push_request};
    use prost::Message;
    use std::time::Instant;

    #[test]
    fn a_batch_is_what_the_generated_types_would_have_written() {
        for qos in [Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce] {
            let push = |tag: u64, bytes: usize| Push {
                tag,
                member: 7,
                user: format!("i{tag:019}"),
                payload: vec![tag as u8; bytes],
                due: Instant::now(),
            };
            let pushes = [push(0, 64), push(127, 1), push(128, 70_000), push(u64::MAX, 16)];
            let generated = PushBatch {
                pushes: pushes
                    .iter()
                    .map(|push| TaggedPush {
                        tag: push.tag,
                        push: Some(PushRequest {
                            to: Some(push_request::To::User(push.user.clone())),
                            payload: push.payload.clone().into(),
                            qos: qos as i32,
                            ..Default::default()
                        }),
                    })
                    .collect(),
            };
            let written = encode(&pushes, qos).expect("it is short enough");
            let (head, message) = written.split_at(HEAD_BYTES);
            assert_eq!(message, generated.encode_to_vec());
            assert_eq!(head, [&[0][..], &(message.len() as u32).to_be_bytes()].concat());
        }
    }
}
