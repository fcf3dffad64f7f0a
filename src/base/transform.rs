//! The seam between a connection's socket and its protocol: what stands there turns the bytes that come in and frames
//! those that go out (WebSocket), or makes records of all that does (TLS). The engine knows no more of it than this
//! trait, and a connection without one passes at no cost.
//!
//! Layers are stacked by a transform that owns another: TLS below WebSocket decrypts in place, hands the plain bytes to
//! the one above within the same call, and makes records of what that one has framed.
//!
//! Records have an order of their own, so they are made as late as there is one: when output is handed to the driver.
//! What the layer of records says by itself ([`Reply::records`]) is a record already, and leaves before anything that
//! is none yet.

use core::fmt;

/// Longest head that a transform puts in front of a block of output.
pub const HEAD_BYTES_MAX: usize = 14;
/// Longest reply.
pub const REPLY_BYTES_MAX: usize = 160;
/// Most incoming bytes that a transform leaves unread because more must come first: a control frame of WebSocket, and a
/// record of TLS 1.2 (RFC 5246 §6.2.3: 2^14 + 2,048 bytes and its head).
pub const TAIL_BYTES_MAX: usize = 160 + (1 << 14) + 2_048 + 5;

/// One connection's.
pub trait Transform: fmt::Debug + Send + Sized {
    /// Room that a block of output keeps at its front, at most [`HEAD_BYTES_MAX`].
    const HEAD_BYTES: usize;

    /// What all transforms of a shard share, so that none of them has its own: tables to unpack with.
    type Shared: Default + fmt::Debug + Send;

    /// Turns received bytes, from `at.read` on, in place: plain ones are moved to `at.write`. Stops at whatever needs
    /// the engine. What it leaves between `at.read` and the end is kept and comes again with more behind it.
    fn inbound(&mut self, bytes: &mut [u8], at: &mut Passage, reply: &mut Reply) -> Inbound;

    /// The head of an output of `content_bytes`, written to the start of `into`; its length.
    fn head(&mut self, content_bytes: usize, into: &mut [u8; HEAD_BYTES_MAX]) -> usize;

    /// Unpacks the message after [`Inbound::Packed`] into the start of `into`. Should there be no room, it is called again
    /// with more, or, where it must not be longer, [`Transform::refuse_packed`].
    fn unpack(&mut self, shared: &mut Self::Shared, packed: &[u8], into: &mut [u8]) -> Unpacked {
        let _ = (shared, packed, into);
        unreachable!("what never says that something is packed is never asked to unpack it")
    }

    /// The last words of a connection whose packed message cannot be taken, because it is too long (else it is broken).
    fn refuse_packed(&mut self, shared: &mut Self::Shared, is_too_long: bool, reply: &mut Reply) {
        let _ = (shared, is_too_long, reply);
    }

    /// The window, in bits, of messages that may be written packed, each in a frame of its own; none: they may not.
    fn window_bits(&mut self) -> Option<u8> {
        None
    }

    /// Whether the next [`Transform::inbound`] may take long, as a signature does: a turn makes a bounded number of such
    /// calls.
    fn is_costly(&mut self) -> bool {
        false
    }

    /// The `bytes` in front of the unread ones have been turned, but their reader left them to a layer that has come
    /// between: they are unread again.
    fn put_back(&mut self, bytes: usize) {
        let _ = bytes;
    }

    /// Whether all output has to be made records of.
    fn shield(&mut self) -> Shield {
        Shield::None
    }

    /// Room that the records of `plain_bytes` need at most.
    fn record_bytes_max(&mut self, plain_bytes: usize) -> usize {
        plain_bytes
    }

    /// Makes records of `plain`, which is not empty, at the start of `into`; their length. None: it cannot any more, and
    /// the connection ends. Called while the shield is [`Shield::Up`].
    fn make_records(&mut self, plain: &[u8], into: &mut [u8]) -> Option<usize> {
        let _ = (plain, into);
        None
    }

    /// Its last record, for a connection that is about to be closed. Nothing, or nothing again: there is none.
    fn farewell(&mut self, reply: &mut Reply) {
        let _ = reply;
    }
}

/// What a transform does to all output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shield {
    /// It leaves as it is.
    None,
    /// Records are made of it once it is agreed how; until then it waits.
    Rising,
    /// Records are made of it.
    Up,
    /// Records were made of it, and cannot be any more: what is none yet never leaves.
    Down,
}

/// How far received bytes have been turned. Neither is ever moved back, and `write` never passes `read`.
///
/// ```text
///   plain │ packed │ gap │ unread
///                write  read
/// ```
/// A packed message is gathered behind the plain bytes: what unpacks it keeps nothing between two calls, so it has to be
/// whole. When it is, it is unpacked elsewhere and takes the place of what it was made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Passage {
    /// Up to here they have been read.
    pub read: usize,
    /// Up to here turned ones have been written.
    pub write: usize,
    /// So many of those before `write` are of a message that is packed.
    pub packed: usize,
    /// More of them are not taken.
    pub packed_max: usize,
}

impl Passage {
    /// Turned bytes go on where they end and unread ones begin; no message is packed.
    pub fn at(place: usize) -> Self {
        Self { read: place, write: place, packed: 0, packed_max: 0 }
    }
}

/// Why [`Transform::inbound`] has stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inbound {
    /// There is nothing more to be read until more comes.
    Done,
    /// The reply is to be sent; call again.
    Reply,
    /// What is packed is a whole message: it is to be unpacked when all that is plain before it has been used. Until then
    /// this is not called again.
    Packed,
    /// The peer has ended, or (`fault`) broke the rules. When all that is plain before it has been used, the reply is
    /// to be sent and the connection closed. Until then the same is said again in every call.
    End {
        /// It is the peer's fault.
        fault: bool,
    },
    /// The peer broke the rules of the records: the reply is to be sent at once, nothing else can be any more, and the
    /// connection is to be closed. What is plain before it may still be used.
    Broken,
}

/// What became of a packed message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unpacked {
    /// It has so many bytes.
    Whole(usize),
    /// It is longer than there is room.
    NoRoom,
    /// It is no packed message.
    Broken,
}

/// What a transform says by itself.
#[derive(Debug)]
pub struct Reply {
    /// Records, which leave as they are.
    pub records: Vec<u8>,
    bytes: [u8; REPLY_BYTES_MAX],
    len: usize,
}

impl Default for Reply {
    fn default() -> Self {
        Self { records: Vec::new(), bytes: [0; REPLY_BYTES_MAX], len: 0 }
    }
}

impl Reply {
    /// What is said above records.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    /// Makes it anew from these parts, which have at most [`REPLY_BYTES_MAX`] together.
    pub fn set(&mut self, parts: &[&[u8]]) {
        self.len = 0;
        for part in parts {
            self.bytes[self.len..self.len + part.len()].copy_from_slice(part);
            self.len += part.len();
        }
    }

    /// Makes it empty.
    pub fn clear(&mut self) {
        self.records.clear();
        self.len = 0;
    }
}

/// No transform: connections pass as they are. It has no values, so what would use one is never compiled.
#[derive(Clone, Copy, Debug)]
pub enum Plain {}

impl Transform for Plain {
    const HEAD_BYTES: usize = 0;
    type Shared = ();

    fn inbound(&mut self, _: &mut [u8], _: &mut Passage, _: &mut Reply) -> Inbound {
        match *self {}
    }

    fn head(&mut self, _: usize, _: &mut [u8; HEAD_BYTES_MAX]) -> usize {
        match *self {}
    }
}
