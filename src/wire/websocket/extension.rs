//! What of permessage-deflate a client offers, and what is agreed to (RFC 7692 §7.1, RFC 6455 §9.1).

use super::deflate::{WINDOW_BITS_MAX, WINDOW_BITS_MIN};
use crate::wire::http::Head;

/// Its name.
const NAME: &str = "permessage-deflate";

/// What was agreed to. Neither side takes over its window: that is asked of the client and promised for the server,
/// whatever was offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Agreement {
    /// The window that the client has for what the server packs; none: it did not say, so all of it.
    asked_bits: Option<u8>,
}

impl Agreement {
    /// The first offer in a request that can be agreed to. One with a parameter that is unknown, there twice, or not what
    /// it should be, is not (§7.1). Where a line is no list of offers, only those before are looked at.
    pub fn find(head: &Head<'_>) -> Option<Self> {
        head.headers("sec-websocket-extensions").find_map(|line| {
            let mut rest = Words(line);
            loop {
                let (offer, more) = rest.offer()?;
                if offer.is_some() || !more {
                    return offer;
                }
            }
        })
    }

    /// The window of what is packed for the client, in bits.
    pub fn window_bits(self) -> u8 {
        self.asked_bits.unwrap_or(WINDOW_BITS_MAX)
    }

    /// Appends the header that agrees, with its name and without its end.
    pub(super) fn encode(self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"Sec-WebSocket-Extensions: ");
        out.extend_from_slice(NAME.as_bytes());
        out.extend_from_slice(b"; server_no_context_takeover; client_no_context_takeover");
        if let Some(bits) = self.asked_bits {
            out.extend_from_slice(b"; server_max_window_bits=");
            if bits >= 10 {
                out.push(b'1');
            }
            out.push(b'0' + bits % 10);
        }
    }
}

/// The rest of a line of offers.
struct Words<'a>(&'a [u8]);

/// What a parameter's value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Value {
    Absent,
    WindowBits(u8),
    Other,
}

/// Parameters of one offer.
#[derive(Default)]
struct Seen {
    names: u8,
    asked_bits: Option<u8>,
    declined: bool,
}

impl Seen {
    fn take(&mut self, name: &[u8], value: Value) {
        // Names of parameters are compared as they are written, as their definitions have them.
        let (name, fits) = match name {
            b"server_no_context_takeover" => (1, value == Value::Absent),
            b"client_no_context_takeover" => (2, value == Value::Absent),
            b"server_max_window_bits" => (4, matches!(value, Value::WindowBits(_))),
            // It tells how far the client looks back or, without a value, that it may be told: ours is never too small.
            b"client_max_window_bits" => (8, value != Value::Other),
            _ => (0, false),
        };
        self.declined |= !fits || self.names & name != 0;
        self.names |= name;
        if let (4, Value::WindowBits(bits)) = (name, value) {
            self.asked_bits = Some(bits);
        }
    }
}

impl<'a> Words<'a> {
    /// Reads one offer, and says whether another follows. None: this is no list of offers.
    fn offer(&mut self) -> Option<(Option<Agreement>, bool)> {
        self.space();
        // Members of a list may be empty (RFC 9110 §5.6.1).
        if matches!(self.0.first(), None | Some(b',')) {
            return Some((None, self.comma()?));
        }
        let is_ours = self.token()?.eq_ignore_ascii_case(NAME.as_bytes());
        let mut seen = Seen::default();
        loop {
            self.space();
            if !self.take(b';') {
                break;
            }
            self.space();
            let name = self.token()?;
            self.space();
            let value = if self.take(b'=') { self.value()? } else { Value::Absent };
            seen.take(name, value);
        }
        let agreement = (is_ours && !seen.declined).then_some(Agreement { asked_bits: seen.asked_bits });
        Some((agreement, self.comma()?))
    }

    fn space(&mut self) {
        self.0 = self.0.trim_ascii_start();
    }

    fn take(&mut self, byte: u8) -> bool {
        match self.0 {
            [first, rest @ ..] if *first == byte => {
                self.0 = rest;
                true
            }
            _ => false,
        }
    }

    /// Whether another member follows; none: something else does.
    fn comma(&mut self) -> Option<bool> {
        if self.0.is_empty() { Some(false) } else { self.take(b',').then_some(true) }
    }

    fn token(&mut self) -> Option<&'a [u8]> {
        let length = self.0.iter().take_while(|&&byte| is_token(byte)).count();
        let (token, rest) = self.0.split_at(length);
        self.0 = rest;
        (length > 0).then_some(token)
    }

    /// A token, or one in quotes (RFC 6455 §9.1), of which only numbers mean something here.
    fn value(&mut self) -> Option<Value> {
        self.space();
        if !self.take(b'"') {
            return self.token().map(Value::of);
        }
        let mut text = [0; 2];
        let mut length = 0;
        loop {
            let &byte = self.0.first()?;
            self.0 = &self.0[1..];
            let byte = match byte {
                b'"' => break,
                b'\\' => {
                    let &quoted = self.0.first()?;
                    self.0 = &self.0[1..];
                    quoted
                }
                byte => byte,
            };
            // What is in quotes has to be a token too.
            if !is_token(byte) {
                return None;
            }
            if let Some(place) = text.get_mut(length) {
                *place = byte;
            }
            length += 1;
        }
        match length {
            0 => None,
            1 | 2 => Some(Value::of(&text[..length])),
            _ => Some(Value::Other),
        }
    }
}

impl Value {
    /// Numbers are written without zeros in front (§7.1.2.1).
    fn of(token: &[u8]) -> Self {
        let number = match *token {
            [one @ b'1'..=b'9'] => one - b'0',
            [b'1', one @ b'0'..=b'9'] => 10 + one - b'0',
            _ => return Self::Other,
        };
        let is_size = (WINDOW_BITS_MIN..=WINDOW_BITS_MAX).contains(&number);
        if is_size { Self::WindowBits(number) } else { Self::Other }
    }
}

/// RFC 9110 §5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
#[path = "extension_tests.rs"]
mod tests;
