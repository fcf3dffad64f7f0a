//! The answer to a poll: one JSON document, and the end of the connection.
//!
//! ```text
//! {"events":[{"topic":"$inbox/orders/7","payload":"…","qos":1,"offset":17,"epoch":"51e0…"}],"next":"51e0…:17"}
//! ```
//! `next` is what the client comes back with as `after`; `gaps` is there where something is missing before it.

use super::sse::{EventId, encode_origin};
use std::io::Write;

/// What an answer says.
#[derive(Clone, Copy, Debug)]
pub struct Answer<'a> {
    /// Messages ([`super::json::write_message`]) with commas between them.
    pub events: &'a [u8],
    /// Gaps ([`super::sse::write_gap`]) with commas between them; empty: none.
    pub gaps: &'a [u8],
    /// Where the client stands with it.
    pub next: EventId,
    /// The page that may read it.
    pub origin: Option<&'a str>,
}

impl Answer<'_> {
    /// Appends the whole answer.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut end = b"]".to_vec();
        if !self.gaps.is_empty() {
            end.extend_from_slice(b",\"gaps\":[");
            end.extend_from_slice(self.gaps);
            end.push(b']');
        }
        end.extend_from_slice(b",\"next\":\"");
        self.next.write(&mut end);
        end.extend_from_slice(b"\"}");
        let length = BEGIN.len() + self.events.len() + end.len();
        out.extend_from_slice(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nCache-Control: no-store\r\n");
        write!(out, "Content-Length: {length}\r\nConnection: close\r\n").expect("a Vec takes all");
        encode_origin(self.origin, out);
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(BEGIN);
        out.extend_from_slice(self.events);
        out.extend_from_slice(&end);
    }
}

const BEGIN: &[u8] = b"{\"events\":[";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ids::{Epoch, Offset};

    fn parts(answer: &Answer<'_>) -> (String, serde_json::Value) {
        let mut out = Vec::new();
        answer.encode(&mut out);
        let text = String::from_utf8(out).expect("it is text");
        let (head, body) = text.split_once("\r\n\r\n").expect("it has a head");
        assert!(head.contains(&format!("\r\nContent-Length: {}\r\n", body.len())), "{head}");
        (head.to_owned(), serde_json::from_str(body).expect("it is JSON"))
    }

    #[test]
    fn an_answer_is_one_document_of_its_length() {
        let next = EventId::One(Epoch(0xab), Offset(7));
        let (head, body) = parts(&Answer { events: b"", gaps: b"", next, origin: None });
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n") && head.contains("\r\nConnection: close"), "{head}");
        assert!(!head.contains("Access-Control"), "{head}");
        assert_eq!(body, serde_json::json!({ "events": [], "next": "00000000000000ab:7" }));
        let (head, body) =
            parts(&Answer { events: b"{},{}", gaps: b"{\"a\":1}", next, origin: Some("https://app.example") });
        assert!(head.contains("\r\nAccess-Control-Allow-Origin: https://app.example\r\nVary: Origin"), "{head}");
        assert_eq!(body, serde_json::json!({ "events": [{}, {}], "gaps": [{"a": 1}], "next": "00000000000000ab:7" }));
    }
}
