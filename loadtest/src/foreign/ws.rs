//! `loadtest/targets/ws.js`, and what every WebSocket has in common: a message is a frame, a ping is answered.

use super::{Cue, Heard, pieces};
use kittiwake::wire::websocket::Opcode;
use std::borrow::Cow;

/// Where a subscriber or a publisher connects.
pub fn path(topic: Option<&str>) -> String {
    topic.map_or_else(|| "/".to_owned(), |topic| format!("/?topic={topic}"))
}

/// What the server says: a message in each frame of data.
#[inline]
pub fn hear(bytes: &[u8]) -> (usize, Heard<'_>) {
    hear_by(bytes, |payload| Heard::Message(Cow::Borrowed(payload)))
}

/// The same where `data` knows what a frame of data means.
#[inline]
pub fn hear_by<'a>(bytes: &'a [u8], data: impl FnOnce(&'a [u8]) -> Heard<'a>) -> (usize, Heard<'a>) {
    let frame = match pieces::frame(bytes) {
        Ok(Some(frame)) => frame,
        Ok(None) => return (0, Heard::More),
        Err(wrong) => return (bytes.len(), Heard::Wrong(wrong)),
    };
    let heard = match frame.opcode {
        Opcode::Text | Opcode::Binary => data(frame.payload),
        Opcode::Pong => Heard::Pong,
        Opcode::Ping => ping(frame.payload),
        Opcode::Close => Heard::Wrong(format!("closed: {}", String::from_utf8_lossy(frame.payload))),
        Opcode::Continuation => Heard::Wrong("a split message".to_owned()),
    };
    (frame.bytes, heard)
}

/// Servers put nothing, or a few bytes, into their pings.
fn ping<'a>(payload: &[u8]) -> Heard<'a> {
    let mut kept = [0; 4];
    let Some(room) = kept.get_mut(..payload.len()) else { return Heard::Wrong("a ping with many bytes".to_owned()) };
    room.copy_from_slice(payload);
    Heard::Cue(Cue::WebSocketPong(kept, payload.len() as u8))
}

/// A publication: the topic's length, the topic, the payload.
pub fn publish(topic: &str, payload: &[u8], out: &mut Vec<u8>) {
    out.push(u8::try_from(topic.len()).expect("topics of a run are short"));
    out.extend_from_slice(topic.as_bytes());
    out.extend_from_slice(payload);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_of_data_are_messages_and_control_frames_are_not() {
        assert_eq!(hear(b"\x82\x02ab\x82"), (4, Heard::Message(Cow::Borrowed(b"ab"))));
        assert_eq!(hear(b"\x81\x02ab").1, Heard::Message(Cow::Borrowed(b"ab")));
        assert_eq!(hear(b"\x82\x02a"), (0, Heard::More));
        assert_eq!(hear(b"\x8a\x00"), (2, Heard::Pong));
        assert_eq!(hear(b"\x89\x01x"), (3, Heard::Cue(Cue::WebSocketPong(*b"x\0\0\0", 1))));
        for wrong in [&b"\x88\x02\x03\xe8"[..], b"\x80\x00", b"\x89\x05abcde"] {
            assert!(matches!(hear(wrong).1, Heard::Wrong(_)), "{wrong:?}");
        }
    }

    #[test]
    fn a_publication_names_its_topic_in_front() {
        let mut out = Vec::new();
        publish("a/b", b"xyz", &mut out);
        assert_eq!(out, b"\x03a/bxyz");
        assert_eq!((path(Some("a/b")), path(None)), ("/?topic=a/b".to_owned(), "/".to_owned()));
    }
}
