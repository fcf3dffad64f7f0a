//! The client's side of the handshake (RFC 6455 §4.1), for our own tools.

use super::handshake::accept_value;
use crate::limits::{HTTP_HEAD_BYTES_MAX, HTTP_HEADERS_MAX};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use httparse::{EMPTY_HEADER, Response};

/// What a client asks for.
#[derive(Clone, Copy, Debug)]
pub struct Wish<'a> {
    /// `HOST:PORT`.
    pub authority: &'a str,
    /// With its query.
    pub path: &'a str,
    /// The one subprotocol that is offered, if any.
    pub subprotocol: Option<&'a str>,
    /// Random, for this request alone.
    pub nonce: [u8; 16],
}

/// What came back is no WebSocket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unanswered {
    /// Another status than 101.
    Status(u16),
    /// No HTTP, or an answer to something else.
    NotWebSocket,
}

impl Wish<'_> {
    fn key(&self) -> String {
        STANDARD.encode(self.nonce)
    }

    /// The request.
    pub fn request(&self) -> String {
        let Self { authority, path, subprotocol, .. } = self;
        let offer = subprotocol.map(|name| format!("Sec-WebSocket-Protocol: {name}\r\n")).unwrap_or_default();
        format!(
            "GET {path} HTTP/1.1\r\nHost: {authority}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: {}\r\nSec-WebSocket-Version: 13\r\n{offer}\r\n",
            self.key()
        )
    }

    /// Checks the answer at the start of `bytes`; its length, or none while it is not whole.
    pub fn check(&self, bytes: &[u8]) -> Result<Option<usize>, Unanswered> {
        let mut headers = [EMPTY_HEADER; HTTP_HEADERS_MAX];
        let mut response = Response::new(&mut headers);
        let status = response.parse(bytes).map_err(|_| Unanswered::NotWebSocket)?;
        if let Some(code) = response.code.filter(|&code| code != 101) {
            return Err(Unanswered::Status(code));
        }
        let httparse::Status::Complete(length) = status else {
            let too_long = bytes.len() >= HTTP_HEAD_BYTES_MAX;
            return if too_long { Err(Unanswered::NotWebSocket) } else { Ok(None) };
        };
        let accept = accept_value(&self.key());
        let says = |name: &str, value: &str, any_case: bool| {
            let mut lines = response.headers.iter().filter(|header| header.name.eq_ignore_ascii_case(name));
            let matches = |found: &[u8]| {
                if any_case { found.eq_ignore_ascii_case(value.as_bytes()) } else { found == value.as_bytes() }
            };
            lines.next().is_some_and(|header| matches(header.value)) && lines.next().is_none()
        };
        let agreed = says("upgrade", "websocket", true)
            && says("connection", "upgrade", true)
            && says("sec-websocket-accept", &accept, false)
            // None was offered (§4.1).
            && response.headers.iter().all(|header| !header.name.eq_ignore_ascii_case("sec-websocket-extensions"))
            && match self.subprotocol {
                Some(name) => says("sec-websocket-protocol", name, false),
                None => {
                    response.headers.iter().all(|header| !header.name.eq_ignore_ascii_case("sec-websocket-protocol"))
                }
            };
        if agreed { Ok(Some(length)) } else { Err(Unanswered::NotWebSocket) }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Offer;
    use super::*;
    use crate::wire::http::{Problem, Status, parse};

    const WISH: Wish<'static> = Wish { authority: "h:1", path: "/mqtt", subprotocol: Some("mqtt"), nonce: [7; 16] };

    #[test]
    fn our_server_takes_the_request_and_our_client_the_answer() {
        let request = WISH.request();
        let head = parse(request.as_bytes()).expect("well formed").expect("whole");
        let mut answer = Vec::new();
        Offer::check(&head, Some("mqtt")).expect("accepted").accept(Some("mqtt"), None, &mut answer);
        for end in 0..answer.len() {
            assert_eq!(WISH.check(&answer[..end]), Ok(None));
        }
        let length = answer.len();
        answer.extend_from_slice(b"\x82\x01x");
        assert_eq!(WISH.check(&answer), Ok(Some(length)));
        assert_eq!(Wish { nonce: [8; 16], ..WISH }.check(&answer), Err(Unanswered::NotWebSocket));
        let extended = String::from_utf8(answer[..length].to_vec()).expect("it is text");
        let extended = extended.replace("Upgrade: w", "Sec-WebSocket-Extensions: permessage-deflate\r\nUpgrade: w");
        assert_eq!(WISH.check(extended.as_bytes()), Err(Unanswered::NotWebSocket));
        for subprotocol in [Some("chat"), None] {
            assert_eq!(Wish { subprotocol, ..WISH }.check(&answer), Err(Unanswered::NotWebSocket));
        }
    }

    #[test]
    fn without_a_subprotocol_none_is_offered_and_none_taken() {
        let wish = Wish { subprotocol: None, ..WISH };
        assert!(!wish.request().contains("Sec-WebSocket-Protocol"));
        let request = wish.request();
        let head = parse(request.as_bytes()).expect("well formed").expect("whole");
        let mut answer = Vec::new();
        Offer::check(&head, None).expect("accepted").accept(None, None, &mut answer);
        assert_eq!(wish.check(&answer), Ok(Some(answer.len())));
    }

    #[test]
    fn a_refusal_says_its_status() {
        let mut answer = Vec::new();
        Problem::new(Status::FORBIDDEN, "no").encode(&mut answer);
        assert_eq!(WISH.check(&answer), Err(Unanswered::Status(403)));
        assert_eq!(WISH.check(b"\x20\x02\0\0"), Err(Unanswered::NotWebSocket));
    }
}
