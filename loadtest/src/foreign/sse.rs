//! kittiwake's event streams: one request, one answer that does not end. A publication comes over MQTT.

use super::{Heard, Purpose};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::borrow::Cow;
use std::io::Write;

/// What the answer's head begins with; no block of a stream does.
const ANSWER: &[u8] = b"HTTP/1.1 ";
/// Longest head, or block, that is taken.
const PIECE_BYTES_MAX: usize = 1 << 20;
/// What stands before a payload that is no text, and behind it: the rest says nothing that matters here.
const PAYLOAD: (&str, char) = ("\"payload_base64\":\"", '"');

/// The request for a client's stream.
pub fn reply(purpose: Purpose<'_>, out: &mut Vec<u8>) {
    let (topic, name) = (purpose.topic.unwrap_or_default(), purpose.name);
    write!(
        out,
        "GET /events?topic={topic}&user={name}&device={name} HTTP/1.1\r\nHost: gateway\r\nAccept: text/event-stream\r\n\r\n"
    )
    .expect("memory takes what is written to it");
}

/// What the server says: the answer's head, then blocks.
#[inline]
pub fn hear(bytes: &[u8]) -> (usize, Heard<'_>) {
    let is_head = bytes.starts_with(&ANSWER[..bytes.len().min(ANSWER.len())]);
    let end: &[u8] = if is_head { b"\r\n\r\n" } else { b"\n\n" };
    let Some(length) = bytes.windows(end.len()).position(|at| at == end).map(|at| at + end.len()) else {
        let wrong = || (bytes.len(), Heard::Wrong("a block without an end".to_owned()));
        return if bytes.len() > PIECE_BYTES_MAX { wrong() } else { (0, Heard::More) };
    };
    let Ok(text) = core::str::from_utf8(&bytes[..length]) else {
        return (length, Heard::Wrong("a block that is no text".to_owned()));
    };
    let wrong = || Heard::Wrong(text.trim_end().to_owned());
    if is_head {
        let is_ok = text.split(' ').nth(1) == Some("200");
        return (length, if is_ok { Heard::Ready } else { wrong() });
    }
    let mut heard = Heard::Nothing;
    for line in text.lines() {
        match line.split_once(": ") {
            Some(("data", data)) => heard = payload(data).map_or_else(wrong, Heard::Message),
            // What is missing, or a goodbye: its data says which.
            Some(("event", _)) => return (length, wrong()),
            _ => {}
        }
    }
    (length, heard)
}

fn payload(data: &str) -> Option<Cow<'_, [u8]>> {
    let (_, behind) = data.split_once(PAYLOAD.0)?;
    let (encoded, _) = behind.split_once(PAYLOAD.1)?;
    Some(Cow::Owned(STANDARD.decode(encoded).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use kittiwake::base::ids::Qos;
    use kittiwake::wire::json::Said;
    use kittiwake::wire::sse::{
        Farewell, Format, Mark, encode_farewell, encode_head, encode_id, encode_payload, encode_retry,
    };

    #[test]
    fn what_the_gateway_encodes_is_heard_and_nothing_before_its_last_byte() {
        let payload = [0, 255, b'"', b'\n'];
        let said = Said {
            topic: "a\"b",
            payload: &payload,
            qos: Qos::AtMostOnce,
            place: None,
            content_type: None,
            ttl_ms: None,
        };
        let (mut head, mut block) = (Vec::new(), Vec::new());
        encode_head(None, &mut head);
        encode_retry(core::time::Duration::from_secs(3), &mut block);
        block.push(b'\n');
        let comment = block.len();
        encode_id(Mark::None, &mut block);
        encode_payload(&said, Format::Json, &mut block);
        let whole = [&head[..], &block].concat();
        for end in 0..head.len() {
            assert_eq!(hear(&whole[..end]), (0, Heard::More), "{end}");
        }
        assert_eq!(hear(&whole), (head.len(), Heard::Ready));
        assert_eq!(hear(&block), (comment, Heard::Nothing));
        for end in comment..block.len() {
            assert_eq!(hear(&block[comment..end]), (0, Heard::More));
        }
        assert_eq!(hear(&block[comment..]), (block.len() - comment, Heard::Message(Cow::Owned(payload.to_vec()))));
    }

    #[test]
    fn refusals_and_goodbyes_are_wrong() {
        let mut goodbye = Vec::new();
        encode_farewell(Farewell("draining"), &mut goodbye);
        let refusal = b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 5\r\n\r\n";
        for wrong in [&goodbye[..], refusal, b"data: {\"topic\":\"t\",\"payload\":\"text\"}\n\n", b"data: \xff\n\n"] {
            assert!(matches!(hear(wrong).1, Heard::Wrong(_)), "{wrong:?}");
        }
    }

    #[test]
    fn a_client_asks_for_its_topic_under_its_name() {
        let mut out = Vec::new();
        reply(Purpose { topic: Some("load/all"), name: "e7", credentials: None }, &mut out);
        assert!(
            out.starts_with(b"GET /events?topic=load/all&user=e7&device=e7 HTTP/1.1\r\n") && out.ends_with(b"\r\n\r\n")
        );
    }
}
