//! Messages as JSON (RFC 8259): what event streams, polls and answers to devices' questions say of one.

use crate::base::ids::{Epoch, Offset, Qos};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::io::Write;

/// A message to be said.
#[derive(Clone, Copy, Debug)]
pub struct Said<'a> {
    /// As subscribers see it.
    pub topic: &'a str,
    /// Any bytes: a text is said as it is, others in base64.
    pub payload: &'a [u8],
    /// Of the delivery.
    pub qos: Qos,
    /// Where it is logged.
    pub place: Option<(Epoch, Offset)>,
    /// What the payload is, if its origin said so.
    pub content_type: Option<&'a str>,
    /// Milliseconds left of its time, if that is bounded.
    pub ttl_ms: Option<u64>,
}

/// Appends a message as one object on one line.
pub fn write_message(said: &Said<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"topic\":");
    write_string(said.topic, out);
    match core::str::from_utf8(said.payload) {
        Ok(text) => {
            out.extend_from_slice(b",\"payload\":");
            write_string(text, out);
        }
        Err(_) => {
            out.extend_from_slice(b",\"payload_base64\":\"");
            let start = out.len();
            let bytes = base64::encoded_len(said.payload.len(), true).expect("payloads are bounded");
            out.resize(start + bytes, 0);
            STANDARD.encode_slice(said.payload, &mut out[start..]).expect("it was made as long");
            out.push(b'"');
        }
    }
    write!(out, ",\"qos\":{}", said.qos as u8).expect("a Vec takes all");
    if let Some((epoch, offset)) = said.place {
        write!(out, ",\"offset\":{offset},\"epoch\":\"{:016x}\"", epoch.0).expect("a Vec takes all");
    }
    if let Some(content_type) = said.content_type {
        out.extend_from_slice(b",\"content_type\":");
        write_string(content_type, out);
    }
    if let Some(ttl_ms) = said.ttl_ms {
        write!(out, ",\"ttl_ms\":{ttl_ms}").expect("a Vec takes all");
    }
    out.push(b'}');
}

/// Appends a string (§7). Every control character is escaped, line ends too, so it is one line.
pub fn write_string(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    let mut rest = text.as_bytes();
    while let Some(at) = rest.iter().position(|&byte| byte < b' ' || byte == b'"' || byte == b'\\') {
        out.extend_from_slice(&rest[..at]);
        match rest[at] {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            other => write!(out, "\\u{other:04x}").expect("a Vec takes all"),
        }
        rest = &rest[at + 1..];
    }
    out.extend_from_slice(rest);
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn said<'a>(topic: &'a str, payload: &'a [u8]) -> Said<'a> {
        Said { topic, payload, qos: Qos::AtMostOnce, place: None, content_type: None, ttl_ms: None }
    }

    fn text(said: &Said<'_>) -> String {
        let mut out = Vec::new();
        write_message(said, &mut out);
        String::from_utf8(out).expect("it is text")
    }

    #[test]
    fn a_message_is_said_in_its_parts_and_what_is_not_there_is_left_out() {
        assert_eq!(text(&said("t", b"x")), r#"{"topic":"t","payload":"x","qos":0}"#);
        assert_eq!(text(&said("t", &[0xff, 0xfe])), r#"{"topic":"t","payload_base64":"//4=","qos":0}"#);
        let whole = Said {
            qos: Qos::AtLeastOnce,
            place: Some((Epoch(0xab), Offset(7))),
            content_type: Some("text/\"x\""),
            ttl_ms: Some(1_500),
            ..said("t", b"")
        };
        let expected = "{\"topic\":\"t\",\"payload\":\"\",\"qos\":1,\"offset\":7,\"epoch\":\"00000000000000ab\",\
            \"content_type\":\"text/\\\"x\\\"\",\"ttl_ms\":1500}";
        assert_eq!(text(&whole), expected);
    }

    proptest! {
        #[test]
        fn any_text_is_said_and_read_back(topic in ".{0,20}", payload in ".{0,60}") {
            let text = text(&said(&topic, payload.as_bytes()));
            prop_assert!(!text.contains('\n'));
            let json: serde_json::Value = serde_json::from_str(&text).expect("it is JSON");
            prop_assert_eq!(&json["topic"], &serde_json::Value::from(topic));
            prop_assert_eq!(&json["payload"], &serde_json::Value::from(payload));
        }
    }
}
