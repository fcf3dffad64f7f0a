//! Blocks of an event stream.
//!
//! ```text
//! id: 51e0a7c2b6d14f09:17                                    id: 51e0a7c2b6d14f09:17
//! data: {"topic":"$inbox/orders/7","payload":"{\"x\":1}",    data: {"x":1}
//!        "qos":1,"offset":17,"epoch":"51e0a7c2b6d14f09"}
//!                                                   (json)                                      (raw)
//! ```
//! Neither has an `event:`, so both arrive at `onmessage`. A topic would not do as one: `error` and `open` are names
//! that browsers use for their own events, and `gap` and `close` are ours.

use super::id::{EventId, TOKEN_BYTES, Token};
use crate::base::ids::{Epoch, Offset};
use crate::wire::json::{Said, write_message, write_string};
use core::time::Duration;
use std::io::Write;

/// What a message's `data` is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Format {
    /// One line of JSON: topic, payload, QoS, place.
    #[default]
    Json,
    /// The payload alone, a `data:` for each of its lines. CR and CRLF arrive as LF, and what is no UTF-8 as U+FFFD.
    Raw,
}

/// Which id a block bears.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// None: the client's position stays what it was.
    None,
    /// That of the one stream the client asked for: the same for all who did.
    Place(Epoch, Offset),
    /// A token, which is each connection's own: it is to be patched.
    Token,
}

/// Where things stand in an encoded block, so that a copy can be made another connection's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EventLayout {
    /// Where the token begins.
    pub token_at: Option<usize>,
}

impl EventLayout {
    /// Puts a connection's own position into a copy of the block.
    #[inline]
    pub fn patch(&self, block: &mut [u8], token: &Token) {
        if let Some(at) = self.token_at {
            token.write(&mut block[at..at + TOKEN_BYTES]);
        }
    }
}

/// A comment, which clients ignore: it keeps proxies from ending the connection, and finds out whether it is there.
pub const HEARTBEAT: &[u8] = b":\n\n";

/// Appends the beginning of a message's block, as far as its id. [`encode_payload`] follows.
pub fn encode_id(mark: Mark, out: &mut Vec<u8>) -> EventLayout {
    let start = out.len();
    match mark {
        Mark::None => EventLayout::default(),
        Mark::Place(epoch, offset) => {
            write_id(EventId::One(epoch, offset), out);
            EventLayout::default()
        }
        Mark::Token => {
            write_id(EventId::Several(Token::default()), out);
            EventLayout { token_at: Some(out.len() - 1 - TOKEN_BYTES - start) }
        }
    }
}

/// Appends the rest of a message's block.
pub fn encode_payload(said: &Said<'_>, format: Format, out: &mut Vec<u8>) {
    match format {
        Format::Json => write_envelope(said, out),
        Format::Raw => write_lines(said.payload, out),
    }
    out.push(b'\n');
}

fn write_id(id: EventId, out: &mut Vec<u8>) {
    out.extend_from_slice(b"id: ");
    id.write(out);
    out.push(b'\n');
}

fn write_envelope(said: &Said<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(b"data: ");
    write_message(said, out);
    out.push(b'\n');
}

/// A line ends with CR, LF or both (HTML §9.2.5), so each of them must end one here.
fn write_lines(payload: &[u8], out: &mut Vec<u8>) {
    let mut rest = payload;
    loop {
        let end = rest.iter().position(|&byte| byte == b'\r' || byte == b'\n');
        out.extend_from_slice(b"data: ");
        out.extend_from_slice(&rest[..end.unwrap_or(rest.len())]);
        out.push(b'\n');
        let Some(end) = end else { return };
        let skipped = if rest[end..].starts_with(b"\r\n") { 2 } else { 1 };
        rest = &rest[end + skipped..];
    }
}

/// Which of a client's streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Its user's inbox.
    Inbox,
    /// Topics, and everyone as far as that is not told apart.
    Topics,
    /// What goes to everyone.
    Everyone,
}

impl Stream {
    fn name(self) -> &'static str {
        match self {
            Self::Inbox => "inbox",
            Self::Topics => "topics",
            Self::Everyone => "everyone",
        }
    }
}

/// Why something may be missing between a client's position and what comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    /// Retention removed it: so many entries from this offset on, where that is known.
    Trimmed(Option<(Offset, u64)>),
    /// The position is of an earlier life of the stream, or of another stream.
    Unknown,
    /// It is longer than what may wait for a connection.
    TooLarge,
}

/// What a client is told when its position cannot be honoured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap<'a> {
    /// Where.
    pub stream: Stream,
    /// In which topic, where that is known.
    pub topic: Option<&'a str>,
    /// Why.
    pub why: Lost,
}

/// Appends `event: gap`. It bears no id: what comes behind it does.
pub fn encode_gap(gap: &Gap<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(b"event: gap\ndata: ");
    write_gap(gap, out);
    out.extend_from_slice(b"\n\n");
}

/// Appends a gap as one object of JSON.
pub fn write_gap(gap: &Gap<'_>, out: &mut Vec<u8>) {
    let reason = match gap.why {
        Lost::Trimmed(_) => "trimmed",
        Lost::Unknown => "unknown_position",
        Lost::TooLarge => "too_large",
    };
    write!(out, "{{\"stream\":\"{}\",\"reason\":\"{reason}\"", gap.stream.name()).expect("a Vec takes all");
    if let Some(topic) = gap.topic {
        out.extend_from_slice(b",\"topic\":");
        write_string(topic, out);
    }
    if let Lost::Trimmed(Some((first, entries))) = gap.why {
        write!(out, ",\"first\":{first},\"entries\":{entries}").expect("a Vec takes all");
    }
    out.push(b'}');
}

/// Why a stream ends from our side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Farewell(
    /// A word for programs.
    pub &'static str,
);

/// Appends `event: close`: a browser comes back by itself unless the page closes its `EventSource` now.
pub fn encode_farewell(why: Farewell, out: &mut Vec<u8>) {
    write!(out, "event: close\ndata: {{\"reason\":\"{}\"}}\n\n", why.0).expect("a Vec takes all");
}

/// Appends how long a client waits before it comes back.
pub fn encode_retry(retry: Duration, out: &mut Vec<u8>) {
    writeln!(out, "retry: {}", retry.as_millis()).expect("a Vec takes all");
}

/// Appends a block without data: it is no event, but sets the position that a client comes back with (HTML §9.2.6).
pub fn encode_position(id: Option<EventId>, out: &mut Vec<u8>) {
    if let Some(id) = id {
        write_id(id, out);
    }
    out.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ids::Qos;
    use proptest::prelude::*;

    fn event<'a>(topic: &'a str, payload: &'a [u8]) -> Said<'a> {
        let place = Some((Epoch(0xab), Offset(7)));
        Said { topic, payload, qos: Qos::AtLeastOnce, place, content_type: None, ttl_ms: None }
    }

    fn block(said: &Said<'_>, format: Format) -> String {
        let mut out = Vec::new();
        encode_payload(said, format, &mut out);
        String::from_utf8(out).expect("it is text")
    }

    #[test]
    fn the_envelope_is_one_line_whatever_it_holds() {
        let text = block(&event("a\n/\"b\"", b"x\r\ny\\\x01"), Format::Json);
        let data = "data: {\"topic\":\"a\\n/\\\"b\\\"\",\"payload\":\"x\\r\\ny\\\\\\u0001\",\"qos\":1,";
        assert_eq!(text, format!("{data}\"offset\":7,\"epoch\":\"00000000000000ab\"}}\n\n"));
    }

    #[test]
    fn a_raw_payload_has_a_line_for_each_of_its_lines() {
        for (payload, expected) in [
            ("", "data: \n\n"),
            ("a", "data: a\n\n"),
            (" a", "data:  a\n\n"),
            ("a\nb\r\nc\rd", "data: a\ndata: b\ndata: c\ndata: d\n\n"),
            ("a\n", "data: a\ndata: \n\n"),
            ("\r\n\n", "data: \ndata: \ndata: \n\n"),
            ("id: 1\n\nevent: gap", "data: id: 1\ndata: \ndata: event: gap\n\n"),
        ] {
            assert_eq!(block(&event("t", payload.as_bytes()), Format::Raw), expected, "{payload:?}");
        }
    }

    #[test]
    fn a_token_is_patched_where_it_stands() {
        let mut out = b"before".to_vec();
        let layout = encode_id(Mark::Token, &mut out);
        let token = Token { topics: crate::base::ids::Seq(9), ..Token::default() };
        layout.patch(&mut out[6..], &token);
        let mut expected = b"beforeid: ".to_vec();
        EventId::Several(token).write(&mut expected);
        expected.push(b'\n');
        assert_eq!(out, expected);
    }

    #[test]
    fn notices_name_what_happened() {
        let mut out = Vec::new();
        let gap = Gap { stream: Stream::Inbox, topic: None, why: Lost::Trimmed(Some((Offset(3), 2))) };
        encode_gap(&gap, &mut out);
        encode_gap(&Gap { stream: Stream::Topics, topic: None, why: Lost::Unknown }, &mut out);
        encode_gap(&Gap { stream: Stream::Topics, topic: Some("a/\"b\""), why: Lost::Trimmed(None) }, &mut out);
        encode_farewell(Farewell("draining"), &mut out);
        encode_retry(Duration::from_secs(3), &mut out);
        encode_position(None, &mut out);
        let expected = "event: gap\n\
            data: {\"stream\":\"inbox\",\"reason\":\"trimmed\",\"first\":3,\"entries\":2}\n\n\
            event: gap\ndata: {\"stream\":\"topics\",\"reason\":\"unknown_position\"}\n\n\
            event: gap\ndata: {\"stream\":\"topics\",\"reason\":\"trimmed\",\"topic\":\"a/\\\"b\\\"\"}\n\n\
            event: close\ndata: {\"reason\":\"draining\"}\n\nretry: 3000\n\n";
        assert_eq!(String::from_utf8(out).expect("it is text"), expected);
    }

    proptest! {
        #[test]
        fn any_message_is_one_block(topic in ".{0,20}", payload in proptest::collection::vec(any::<u8>(), 0..60)) {
            for format in [Format::Json, Format::Raw] {
                let mut out = Vec::new();
                encode_payload(&event(&topic, &payload), format, &mut out);
                prop_assert!(out.ends_with(b"\n\n"));
                let lines = out[..out.len() - 2].split(|&byte| byte == b'\n');
                for line in lines {
                    prop_assert!(line.starts_with(b"data: ") && !line.contains(&b'\r'));
                }
            }
        }
    }
}
