//! Socket.IO 5 over Engine.IO 4 over WebSocket, text alone: one digit of Engine.IO (`0` open, `2` ping, `3` pong, `4`
//! message), one of Socket.IO (`0` connect, `2` event, `3` acknowledgement, `4` refusal), JSON.

use super::{Cue, Heard, Purpose, ws};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use std::borrow::Cow;

/// Where the WebSocket is.
pub const PATH: &str = "/socket.io/?EIO=4&transport=websocket";
/// The start of a delivery, and its end: an event with one text, which has nothing to be escaped in it.
const MESSAGE: (&[u8], &[u8]) = (b"42[\"message\",\"", b"\"]");

/// What the server says; `subscribes` tells whether it is ready once it is connected.
#[inline]
pub fn hear(subscribes: bool, bytes: &[u8]) -> (usize, Heard<'_>) {
    ws::hear_by(bytes, |text| {
        if let Some(text) = text.strip_prefix(MESSAGE.0).and_then(|rest| rest.strip_suffix(MESSAGE.1)) {
            return STANDARD.decode(text).map_or_else(
                |_| Heard::Wrong("a message that is no base64".to_owned()),
                |payload| Heard::Message(Cow::Owned(payload)),
            );
        }
        match text {
            [b'0', ..] => Heard::Cue(Cue::Introduce),
            [b'2'] => Heard::Cue(Cue::Pong),
            [b'4', b'0', ..] if subscribes => Heard::Cue(Cue::Subscribe),
            [b'4', b'0', ..] | [b'4', b'3', ..] => Heard::Ready,
            _ => Heard::Wrong(String::from_utf8_lossy(text).into_owned()),
        }
    })
}

/// What is said to a cue. The event `join` asks for an acknowledgement, number 0.
pub fn reply(cue: Cue, purpose: Purpose<'_>, out: &mut Vec<u8>) {
    let text = match cue {
        Cue::Introduce => "40".to_owned(),
        Cue::Subscribe => format!("420{}", json!(["join", purpose.topic.unwrap_or_default()])),
        Cue::Pong | Cue::WebSocketPong(..) => "3".to_owned(),
    };
    out.extend_from_slice(text.as_bytes());
}

/// A publication.
pub fn publish(topic: &str, payload: &[u8], out: &mut Vec<u8>) {
    let event = json!(["publish", topic, STANDARD.encode(payload)]);
    out.extend_from_slice(format!("42{event}").as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(text: &str) -> Vec<u8> {
        let length = u8::try_from(text.len()).expect("it is short");
        [&[0x81, length][..], text.as_bytes()].concat()
    }

    #[test]
    fn a_subscriber_is_ready_when_it_has_joined() {
        let purpose = Purpose { topic: Some("a/b"), name: "", credentials: None };
        let steps = [("0{\"sid\":\"x\"}", "40"), ("40{\"sid\":\"y\"}", "420[\"join\",\"a/b\"]")];
        for (server, client) in steps {
            let Heard::Cue(cue) = hear(true, &frame(server)).1 else { panic!("{server} is a cue") };
            let mut out = Vec::new();
            reply(cue, purpose, &mut out);
            assert_eq!(out, client.as_bytes());
        }
        assert_eq!(hear(true, &frame("430[]")).1, Heard::Ready);
        assert_eq!(hear(false, &frame("40{\"sid\":\"y\"}")).1, Heard::Ready);
    }

    #[test]
    fn what_is_published_is_heard_again() {
        let mut out = Vec::new();
        publish("t", &[0, 255, 34], &mut out);
        assert_eq!(out, br#"42["publish","t","AP8i"]"#);
        assert_eq!(hear(true, &frame(r#"42["message","AP8i"]"#)).1, Heard::Message(Cow::Owned(vec![0, 255, 34])));
        assert_eq!(hear(true, &frame("2")).1, Heard::Cue(Cue::Pong));
        for wrong in [r#"42["message","?"]"#, "44{\"message\":\"no\"}", "1"] {
            assert!(matches!(hear(true, &frame(wrong)).1, Heard::Wrong(_)), "{wrong}");
        }
    }
}
