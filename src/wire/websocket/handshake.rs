//! From a request to a WebSocket (RFC 6455 §4.2).

use super::extension::Agreement;
use crate::wire::http::{Head, Problem, Status};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest, Sha1};

/// What is joined to the client's key before it is hashed (§1.3).
const ACCEPT_SUFFIX: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// A request that asks for a WebSocket as it should.
#[derive(Clone, Copy, Debug)]
pub struct Offer<'a> {
    key: &'a str,
}

/// Why a request is not answered with 101.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It does not ask for a WebSocket.
    NoUpgrade,
    /// Not version 13.
    Version,
    /// The key is missing, there twice, or not 16 bytes in base64.
    Key,
    /// It does not offer the subprotocol that is spoken.
    Subprotocol,
}

impl Refusal {
    /// What the peer is told.
    pub fn problem(self) -> Problem<'static> {
        const UPGRADE: &[(&str, &str)] = &[("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13")];
        let (status, detail, headers) = match self {
            Self::NoUpgrade => (Status::UPGRADE_REQUIRED, "only WebSocket is spoken here", UPGRADE),
            Self::Version => (Status::UPGRADE_REQUIRED, "only version 13 of WebSocket is spoken here", UPGRADE),
            Self::Key => (Status::BAD_REQUEST, "Sec-WebSocket-Key is not 16 bytes in base64", &[][..]),
            Self::Subprotocol => (Status::BAD_REQUEST, "the subprotocol that is spoken here was not offered", &[][..]),
        };
        Problem { status, detail, headers }
    }
}

impl<'a> Offer<'a> {
    /// Checks a GET against §4.2.1. With a subprotocol given, it must be among those offered.
    pub fn check(head: &Head<'a>, subprotocol: Option<&str>) -> Result<Self, Refusal> {
        if !head.has_token("upgrade", "websocket") || !head.has_token("connection", "upgrade") {
            return Err(Refusal::NoUpgrade);
        }
        if head.header("sec-websocket-version") != Some("13") {
            return Err(Refusal::Version);
        }
        let key = head.header("sec-websocket-key").filter(|key| key_is_valid(key)).ok_or(Refusal::Key)?;
        if head.headers("sec-websocket-key").count() != 1 {
            return Err(Refusal::Key);
        }
        // Subprotocols are compared as they are written: their case counts.
        if subprotocol.is_some_and(|name| !head.tokens("sec-websocket-protocol").any(|offered| offered == name)) {
            return Err(Refusal::Subprotocol);
        }
        Ok(Self { key })
    }

    /// Appends the 101 that agrees (§4.2.2), to these messages being packed too.
    pub fn accept(&self, subprotocol: Option<&str>, agreement: Option<Agreement>, out: &mut Vec<u8>) {
        out.extend_from_slice(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n");
        out.extend_from_slice(b"Sec-WebSocket-Accept: ");
        out.extend_from_slice(accept_value(self.key).as_bytes());
        if let Some(name) = subprotocol {
            out.extend_from_slice(b"\r\nSec-WebSocket-Protocol: ");
            out.extend_from_slice(name.as_bytes());
        }
        if let Some(agreement) = agreement {
            out.extend_from_slice(b"\r\n");
            agreement.encode(out);
        }
        out.extend_from_slice(b"\r\n\r\n");
    }
}

/// Whether a key is 16 bytes in base64 (§4.2.1, 5).
pub fn key_is_valid(key: &str) -> bool {
    let mut nonce = [0; 18];
    key.len() == 24 && STANDARD.decode_slice(key, &mut nonce) == Ok(16)
}

/// What answers a key (§4.2.2, 5.4).
pub fn accept_value(key: &str) -> String {
    let mut hash = Sha1::new();
    hash.update(key.as_bytes());
    hash.update(ACCEPT_SUFFIX);
    STANDARD.encode(hash.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::http::parse;

    const HEADERS: [&str; 6] = [
        "Host: server.example.com",
        "Upgrade: websocket",
        "Connection: keep-alive, Upgrade",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Protocol: chat, mqtt",
    ];

    fn checked(headers: &[&str]) -> Result<String, Refusal> {
        let request = format!("GET /mqtt HTTP/1.1\r\n{}\r\n\r\n", headers.join("\r\n"));
        let head = parse(request.as_bytes()).expect("well formed").expect("whole");
        Offer::check(&head, Some("mqtt")).map(|offer| {
            let mut out = Vec::new();
            offer.accept(Some("mqtt"), None, &mut out);
            String::from_utf8(out).expect("it is text")
        })
    }

    fn without(at: usize, instead: &[&str]) -> Vec<String> {
        let mut headers = HEADERS.map(str::to_owned).to_vec();
        headers.splice(at..=at, instead.iter().map(|&line| line.to_owned()));
        headers
    }

    #[test]
    fn rfc6455_1_3_the_example_key_is_answered_as_the_standard_says() {
        let answer = checked(&HEADERS).expect("it is accepted");
        assert!(answer.starts_with("HTTP/1.1 101 "));
        for line in ["Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", "Sec-WebSocket-Protocol: mqtt"] {
            assert!(answer.split("\r\n").any(|other| other == line), "{answer}");
        }
    }

    #[test]
    fn rfc6455_4_2_1_each_thing_a_request_must_have_is_asked_for() {
        for (at, instead, refusal) in [
            (1, &[][..], Refusal::NoUpgrade),
            (1, &["Upgrade: h2c"], Refusal::NoUpgrade),
            (2, &["Connection: close"], Refusal::NoUpgrade),
            (3, &[], Refusal::Key),
            (3, &["Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25j"], Refusal::Key),
            (3, &["Sec-WebSocket-Key: !GhlIHNhbXBsZSBub25jZQ=="], Refusal::Key),
            (3, &[HEADERS[3], HEADERS[3]], Refusal::Key),
            (4, &["Sec-WebSocket-Version: 8"], Refusal::Version),
            (4, &[], Refusal::Version),
            (5, &[], Refusal::Subprotocol),
            (5, &["Sec-WebSocket-Protocol: mqttv3.1, MQTT"], Refusal::Subprotocol),
        ] {
            let headers = without(at, instead);
            let headers: Vec<&str> = headers.iter().map(String::as_str).collect();
            assert_eq!(checked(&headers), Err(refusal), "{headers:?}");
        }
    }

    #[test]
    fn names_and_tokens_are_compared_in_any_case() {
        let headers = ["HOST: h", "upgrade: WebSocket", "connection: upgrade", HEADERS[3], HEADERS[4], HEADERS[5]];
        assert!(checked(&headers).is_ok());
    }
}
