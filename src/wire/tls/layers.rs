//! What stands between a connection and its protocol: TLS, WebSocket, or WebSocket inside TLS.
//!
//! ```text
//!   unread bytes:   plain to TLS, unread by WebSocket │ gap │ records, the last one perhaps not whole
//!                   └────────── clear ──────────────┘
//! ```
//! TLS lets WebSocket read what it has turned within the same call. What that leaves (a part of a head) is clear already
//! and comes again in front of the records; `clear` says how much of it there is.

use super::session::{Heard, Session};
use crate::base::nest::Nested;
use crate::base::transform::{HEAD_BYTES_MAX, Inbound, Passage, Reply, Shield, Transform, Unpacked};
use crate::wire::websocket::Carrier;
use core::fmt;

/// One connection's; `W` is the WebSocket of its end.
#[derive(Debug)]
pub enum Layers<W = Carrier> {
    /// WebSocket on a plain connection.
    WebSocket(W),
    /// TLS, and what it carries.
    Tls(Secured<W>),
}

/// TLS, in a box whose address needs no alignment of eight, so that a plain WebSocket does not pay for it.
#[repr(Rust, packed(4))]
pub struct Secured<W>(Option<Box<Stack<W>>>);

#[derive(Debug)]
struct Stack<W> {
    /// Some 1,100 bytes, of which a box of its own would waste 150.
    session: Nested<Session>,
    websocket: Option<W>,
    clear: usize,
    /// Bytes behind the clear ones that mean nothing. None between two calls but for a reply.
    gap: usize,
}

// The promise of `wire::websocket`: an idle connection costs 16 bytes, its generation in the slab included.
const _: () = assert!(size_of::<Layers<Carrier>>() == 12);

impl<W> fmt::Debug for Secured<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secured")
    }
}

impl<W> Secured<W> {
    fn with<R>(&mut self, act: impl FnOnce(&mut Stack<W>) -> R) -> R {
        // A field of a packed struct is moved, not borrowed.
        let Self(stack) = core::mem::replace(self, Self(None));
        let mut stack = stack.expect("it is put back after each use");
        let result = act(&mut stack);
        *self = Self(Some(stack));
        result
    }
}

impl<W: Transform> Layers<W> {
    /// TLS alone.
    pub fn secured(session: Session) -> Self {
        let session = Nested::new(session);
        Self::Tls(Secured(Some(Box::new(Stack { session, websocket: None, clear: 0, gap: 0 }))))
    }

    /// Puts WebSocket upon TLS.
    ///
    /// # Panics
    /// It has one already.
    pub fn carry(&mut self, websocket: W) {
        match self {
            Self::WebSocket(_) => unreachable!("a WebSocket does not become one"),
            Self::Tls(secured) => secured.with(|stack| {
                assert!(stack.websocket.is_none(), "a WebSocket does not become one");
                stack.websocket = Some(websocket);
            }),
        }
    }

    /// Whether a WebSocket carries the protocol.
    pub fn has_websocket(&mut self) -> bool {
        match self {
            Self::WebSocket(_) => true,
            Self::Tls(secured) => secured.with(|stack| stack.websocket.is_some()),
        }
    }

    /// Whether it is inside TLS.
    pub fn is_tls(&self) -> bool {
        matches!(self, Self::Tls(_))
    }

    /// Whether its TLS took up an earlier connection's.
    pub fn is_resumed(&mut self) -> bool {
        match self {
            Self::WebSocket(_) => false,
            Self::Tls(secured) => secured.with(|stack| stack.session.is_resumed()),
        }
    }

    /// Who the peer's certificate names.
    pub fn user(&mut self) -> Option<Box<str>> {
        match self {
            Self::WebSocket(_) => None,
            Self::Tls(secured) => secured.with(|stack| stack.session.user().map(Into::into)),
        }
    }
}

impl<W: Transform> Transform for Layers<W> {
    const HEAD_BYTES: usize = W::HEAD_BYTES;
    type Shared = W::Shared;

    fn inbound(&mut self, bytes: &mut [u8], at: &mut Passage, reply: &mut Reply) -> Inbound {
        match self {
            Self::WebSocket(carrier) => carrier.inbound(bytes, at, reply),
            Self::Tls(secured) => secured.with(|stack| stack.inbound(bytes, at, reply)),
        }
    }

    fn head(&mut self, content_bytes: usize, into: &mut [u8; HEAD_BYTES_MAX]) -> usize {
        match self {
            Self::WebSocket(carrier) => carrier.head(content_bytes, into),
            Self::Tls(secured) => secured.with(|stack| match &mut stack.websocket {
                Some(carrier) => carrier.head(content_bytes, into),
                None => 0,
            }),
        }
    }

    fn unpack(&mut self, shared: &mut W::Shared, packed: &[u8], into: &mut [u8]) -> Unpacked {
        match self {
            Self::WebSocket(carrier) => carrier.unpack(shared, packed, into),
            Self::Tls(secured) => secured.with(|stack| {
                let carrier = stack.websocket.as_mut().expect("TLS alone packs nothing");
                carrier.unpack(shared, packed, into)
            }),
        }
    }

    fn refuse_packed(&mut self, shared: &mut W::Shared, is_too_long: bool, reply: &mut Reply) {
        match self {
            Self::WebSocket(carrier) => carrier.refuse_packed(shared, is_too_long, reply),
            Self::Tls(secured) => secured.with(|stack| {
                let carrier = stack.websocket.as_mut().expect("TLS alone packs nothing");
                carrier.refuse_packed(shared, is_too_long, reply);
            }),
        }
    }

    fn window_bits(&mut self) -> Option<u8> {
        match self {
            Self::WebSocket(carrier) => carrier.window_bits(),
            Self::Tls(secured) => secured.with(|stack| stack.websocket.as_mut().and_then(W::window_bits)),
        }
    }

    fn is_costly(&mut self) -> bool {
        match self {
            Self::WebSocket(_) => false,
            Self::Tls(secured) => secured.with(|stack| stack.session.is_handshaking()),
        }
    }

    fn put_back(&mut self, bytes: usize) {
        if let Self::Tls(secured) = self {
            secured.with(|stack| stack.clear += bytes);
        }
    }

    fn shield(&mut self) -> Shield {
        match self {
            Self::WebSocket(_) => Shield::None,
            Self::Tls(secured) => secured.with(|stack| match &stack.session {
                session if session.is_open() => Shield::Up,
                session if session.is_handshaking() => Shield::Rising,
                _ => Shield::Down,
            }),
        }
    }

    fn record_bytes_max(&mut self, plain_bytes: usize) -> usize {
        Session::record_bytes_max(plain_bytes)
    }

    fn make_records(&mut self, plain: &[u8], into: &mut [u8]) -> Option<usize> {
        match self {
            Self::WebSocket(_) => None,
            Self::Tls(secured) => secured.with(|stack| stack.session.write(plain, into)),
        }
    }

    fn farewell(&mut self, reply: &mut Reply) {
        if let Self::Tls(secured) = self {
            secured.with(|stack| stack.session.close(&mut reply.records));
        }
    }
}

impl<W: Transform> Stack<W> {
    fn inbound(&mut self, bytes: &mut [u8], at: &mut Passage, reply: &mut Reply) -> Inbound {
        let Some(websocket) = &mut self.websocket else {
            let heard = self.session.read(bytes, at, &mut reply.records);
            return verdict(heard, reply);
        };
        let clear = at.read + self.clear;
        let mut records = Passage { read: clear + self.gap, ..Passage::at(clear) };
        let heard = self.session.read(bytes, &mut records, &mut reply.records);
        (self.clear, self.gap) = (records.write - at.read, records.read - records.write);
        if heard != Heard::Broken && !reply.records.is_empty() {
            // They are numbered already, so they leave whatever WebSocket says next.
            return Inbound::Reply;
        }
        let above = websocket.inbound(&mut bytes[..records.write], at, reply);
        self.clear = records.write - at.read;
        let inbound = match (heard, above) {
            (Heard::Broken, _) => Inbound::Broken,
            (_, Inbound::Done) => verdict(heard, reply),
            (_, above) => above,
        };
        if inbound != Inbound::Reply && self.gap > 0 {
            bytes.copy_within(at.read..records.write, records.read - self.clear);
            at.read += self.gap;
            self.gap = 0;
        }
        inbound
    }
}

fn verdict(heard: Heard, reply: &Reply) -> Inbound {
    match heard {
        Heard::Broken => Inbound::Broken,
        // What has to be sent is sent first; then the end is said again.
        _ if !reply.records.is_empty() => Inbound::Reply,
        Heard::All => Inbound::Done,
        Heard::End => Inbound::End { fault: false },
    }
}
