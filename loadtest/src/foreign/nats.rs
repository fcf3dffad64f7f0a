//! NATS: lines, and payloads behind `MSG` and `PUB` with their lengths.

use super::{Cue, Heard, Purpose, pieces};
use serde_json::json;
use std::borrow::Cow;
use std::io::Write;

/// The client's sign of life.
pub const PING: &[u8] = b"PING\r\n";
const PONG: &[u8] = b"PONG\r\n";
/// Longest payload that is taken.
const PAYLOAD_BYTES_MAX: usize = 1 << 20;

/// What the server says. Its PONG ends the handshake and answers pings alike; the caller knows which it waits for.
#[inline]
pub fn hear(bytes: &[u8]) -> (usize, Heard<'_>) {
    let (line, used) = match pieces::line(bytes) {
        Ok(Some(found)) => found,
        Ok(None) => return (0, Heard::More),
        Err(wrong) => return (bytes.len(), Heard::Wrong(wrong)),
    };
    let word = line.split(|byte| *byte == b' ').next().unwrap_or_default();
    match word {
        b"MSG" => message(line, &bytes[used..]).map_or_else(
            || (bytes.len(), Heard::Wrong("MSG without a length".to_owned())),
            |found| match found {
                Some((payload, more)) => (used + more, Heard::Message(Cow::Borrowed(payload))),
                None => (0, Heard::More),
            },
        ),
        b"PING" => (used, Heard::Cue(Cue::Pong)),
        b"PONG" => (used, Heard::Pong),
        b"INFO" => (used, Heard::Cue(Cue::Introduce)),
        b"+OK" => (used, Heard::Nothing),
        _ => (bytes.len(), Heard::Wrong(String::from_utf8_lossy(line).into_owned())),
    }
}

/// `MSG subject sid [reply] length`: its payload and its length with its end; none inside while it is not whole.
#[expect(clippy::option_option, reason = "wrong, not whole and whole are three things")]
fn message<'a>(line: &[u8], rest: &'a [u8]) -> Option<Option<(&'a [u8], usize)>> {
    let length = line.rsplit(|byte| *byte == b' ').next()?;
    let length: usize = core::str::from_utf8(length).ok()?.parse().ok()?;
    let end = length.checked_add(2).filter(|_| length <= PAYLOAD_BYTES_MAX)?;
    let Some(whole) = rest.get(..end) else { return Some(None) };
    whole.ends_with(b"\r\n").then_some(Some((&whole[..length], end)))
}

/// What is said to a cue. The PING behind the subscription is answered when that is in force.
pub fn reply(cue: Cue, purpose: Purpose<'_>, out: &mut Vec<u8>) {
    if cue == Cue::Pong {
        return out.extend_from_slice(PONG);
    }
    let mut options = json!({
        "verbose": false, "pedantic": false, "echo": false, "lang": "rust", "version": env!("CARGO_PKG_VERSION"),
    });
    if let Some((user, password)) = purpose.credentials {
        options["user"] = user.into();
        options["pass"] = password.into();
    }
    out.extend_from_slice(format!("CONNECT {options}\r\n").as_bytes());
    if let Some(topic) = purpose.topic {
        out.extend_from_slice(format!("SUB {topic} 1\r\n").as_bytes());
    }
    out.extend_from_slice(PING);
}

/// A publication.
pub fn publish(topic: &str, payload: &[u8], out: &mut Vec<u8>) {
    write!(out, "PUB {topic} {}\r\n", payload.len()).expect("memory takes what is written to it");
    out.extend_from_slice(payload);
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_heard_when_its_last_byte_is_there() {
        let whole = b"MSG load/fan 1 5\r\na\r\nbc\r\nPING\r\n";
        let end = b"MSG load/fan 1 5\r\na\r\nbc\r\n".len();
        for cut in 0..end {
            assert_eq!(hear(&whole[..cut]), (0, Heard::More));
        }
        assert_eq!(hear(whole), (end, Heard::Message(Cow::Borrowed(b"a\r\nbc"))));
        assert_eq!(hear(&whole[end..]), (6, Heard::Cue(Cue::Pong)));
        assert_eq!(hear(b"MSG t 1 reply.to 2\r\nab\r\n").1, Heard::Message(Cow::Borrowed(b"ab")));
    }

    #[test]
    fn a_handshake_goes_from_info_to_pong() {
        assert_eq!(hear(b"INFO {\"a\":1}\r\n"), (14, Heard::Cue(Cue::Introduce)));
        let purpose = Purpose { topic: Some("a.b"), name: "", credentials: Some(("u", "p\"")) };
        let mut said = Vec::new();
        reply(Cue::Introduce, purpose, &mut said);
        let said = String::from_utf8(said).expect("it is text");
        assert!(said.starts_with("CONNECT {") && said.ends_with("}\r\nSUB a.b 1\r\nPING\r\n"), "{said}");
        assert!(said.contains(r#""pass":"p\"""#), "{said}");
        assert_eq!(hear(b"PONG\r\n"), (6, Heard::Pong));
    }

    #[test]
    fn complaints_and_lengths_that_are_none_are_wrong() {
        for wrong in [&b"-ERR 'Slow Consumer'\r\n"[..], b"MSG t 1 x\r\nab\r\n", b"MSG t 1 1\r\nabc\r\n", b"\r\n"] {
            assert!(matches!(hear(wrong).1, Heard::Wrong(_)), "{wrong:?}");
        }
    }

    #[test]
    fn a_publication_says_its_length() {
        let mut out = Vec::new();
        publish("t", b"a\r\n", &mut out);
        assert_eq!(out, b"PUB t 3\r\na\r\n\r\n");
    }
}
