//! The connection's hot entry: everything an idle connection has in the engine, at most 64 bytes with its generation.
//!
//! ```text
//!              accept                                   connect
//!                │                                         │
//!                ▼                                         ▼
//!             ┌─Open (guest)──depart──►Departing        Connecting
//!             │      │                   │ nothing in      │ connected
//!       close │      │                   ▼ flight, outbox  ▼
//!             │      │                 (freed: its   adopt─►Installing
//!             │      │                  socket left)       │ installed
//!             │      │                                     ▼
//!             │      └──────────────────────────────────► Open ──close after flush──► Flushing
//!             ▼                                            │ close now                   │ empty, or lingered
//!          Terminated ◄────────────────────────────────────┴─────────────────────────────┘
//!             │ terminate: Shutdown, Unwatch ─► join: nothing in flight ─► close: slot and entry freed
//! ```

use super::CloseCause;
use crate::base::ids::ConnectionId;
use crate::base::slab::Key;
use crate::io::{Slot, Token};
use std::net::{IpAddr, SocketAddr};

/// No outbox, no held bytes, or no transform.
pub(super) const NONE: u32 = u32::MAX;

/// Where a connection is in its life; see the module's picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Connecting,
    Installing,
    Open,
    Departing,
    Flushing,
    Terminated,
}

/// Ops in flight and intents, a bit each.
pub(super) mod flag {
    /// A receive is in flight.
    pub const RECEIVING: u16 = 1;
    /// A send is in flight.
    pub const SENDING: u16 = 1 << 1;
    /// A watch is armed.
    pub const WATCHING: u16 = 1 << 2;
    /// A shutdown is in flight.
    pub const SHUTTING: u16 = 1 << 3;
    /// A connect or an install is in flight.
    pub const OPENING: u16 = 1 << 4;
    /// Any op is.
    pub const IN_FLIGHT: u16 = RECEIVING | SENDING | WATCHING | SHUTTING | OPENING;

    /// An ordinary fd, watched once at a time.
    pub const GUEST: u16 = 1 << 5;
    /// There is, or may be, something to receive.
    pub const READY: u16 = 1 << 6;
    /// In the queue of connections to read from.
    pub const QUEUED: u16 = 1 << 7;
    /// The handler does not want bytes now.
    pub const PAUSED: u16 = 1 << 8;
    /// Held bytes are to be offered again before anything is received.
    pub const REOFFER: u16 = 1 << 9;
    /// In the queue of connections to send to.
    pub const DIRTY: u16 = 1 << 10;
    /// The handler asked to be told when the outbox is low again.
    pub const TELL_DRAINED: u16 = 1 << 11;
    /// The handler has been told of the end.
    pub const TOLD_CLOSED: u16 = 1 << 12;
    /// We opened it: installed means connected.
    pub const OUTGOING: u16 = 1 << 13;
    /// A layer was put upon its transform, and what is plain is to be turned again.
    pub const CHANGED: u16 = 1 << 14;
    /// It departs to this very engine.
    pub const STAYS: u16 = 1 << 15;
}

/// A connection's hot entry.
#[derive(Debug)]
pub(super) struct Connection {
    pub slot: Option<Slot>,
    /// The handler's own number for it.
    pub tag: u32,
    /// Index of its outbox, or `NONE`.
    pub outbox: u32,
    /// Index of its held bytes, or `NONE`.
    pub held: u32,
    /// Index of its transform, or `NONE`.
    pub transform: u32,
    /// Plain bytes that must have arrived before they are offered again; 0: any.
    pub expect: u32,
    pub cause: CloseCause,
    peer_ip: IpAddr,
    peer_port: u16,
    pub flags: u16,
    pub state: State,
}

impl Connection {
    pub fn new(state: State, flags: u16, tag: u32, peer: SocketAddr) -> Self {
        Self {
            slot: None,
            tag,
            outbox: NONE,
            held: NONE,
            transform: NONE,
            expect: 0,
            cause: CloseCause::Local,
            peer_ip: peer.ip(),
            peer_port: peer.port(),
            flags,
            state,
        }
    }

    /// The peer's address. The scope of a link-local one is not kept.
    pub fn peer(&self) -> SocketAddr {
        SocketAddr::new(self.peer_ip, self.peer_port)
    }

    /// It has another one than its socket says.
    pub fn set_peer(&mut self, peer: SocketAddr) {
        (self.peer_ip, self.peer_port) = (peer.ip(), peer.port());
    }

    #[inline]
    pub fn has(&self, flags: u16) -> bool {
        self.flags & flags != 0
    }

    #[inline]
    pub fn set(&mut self, flags: u16) {
        self.flags |= flags;
    }

    #[inline]
    pub fn clear(&mut self, flags: u16) {
        self.flags &= !flags;
    }

    /// Sets a flag; whether it was not set before.
    #[inline]
    pub fn newly(&mut self, flag: u16) -> bool {
        let newly = self.flags & flag == 0;
        self.flags |= flag;
        newly
    }

    /// The slot of a connection past its install.
    #[inline]
    pub fn open_slot(&self) -> Slot {
        self.slot.expect("an open connection has a slot")
    }
}

// The slab adds a generation of 4 bytes; `Option<Slot>` has 8 of which the vacant entry's link uses the spare bits.
const _: () = assert!(size_of::<Connection>() <= 60);

/// What the engine asks drivers for; the first byte of its tokens. Others than the engine use 0x10 and above.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Purpose {
    Accept = 1,
    Connect = 2,
    Install = 3,
    Watch = 4,
    Receive = 5,
    Send = 6,
    Shutdown = 7,
}

/// `op (8 bits) | generation (24) | index (32)`.
#[inline]
pub(super) fn token(purpose: Purpose, id: ConnectionId) -> Token {
    Token(u64::from(purpose as u8) << 56 | u64::from(id.generation & 0xff_ffff) << 32 | u64::from(id.index))
}

/// A token's parts; none when no engine made it.
#[inline]
pub(super) fn parse(token: Token) -> Option<(Purpose, ConnectionId)> {
    let purpose = match (token.0 >> 56) as u8 {
        1 => Purpose::Accept,
        2 => Purpose::Connect,
        3 => Purpose::Install,
        4 => Purpose::Watch,
        5 => Purpose::Receive,
        6 => Purpose::Send,
        7 => Purpose::Shutdown,
        _ => return None,
    };
    let id = ConnectionId { index: token.0 as u32, generation: (token.0 >> 32) as u32 & 0xff_ffff };
    Some((purpose, id))
}

#[inline]
pub(super) fn key(id: ConnectionId) -> Key {
    Key { index: id.index, generation: id.generation }
}

#[inline]
pub(super) fn id(key: Key) -> ConnectionId {
    ConnectionId { index: key.index, generation: key.generation }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::slab::Slab;

    #[test]
    fn an_idle_connection_costs_at_most_64_bytes_of_table() {
        let peer = "[::1]:1".parse().expect("an address");
        let mut table = Slab::new(2);
        let mut insert = || table.insert(Connection::new(State::Open, 0, 0, peer)).expect("there is room").index;
        let (a, b) = (insert(), insert());
        let stride = std::ptr::from_ref(table.at(b)).addr() - std::ptr::from_ref(table.at(a)).addr();
        assert!(stride <= 64, "it costs {stride}");
    }

    #[test]
    fn a_token_carries_its_purpose_and_connection() {
        let id = ConnectionId { index: u32::MAX, generation: 0xff_ffff };
        assert_eq!(parse(token(Purpose::Shutdown, id)), Some((Purpose::Shutdown, id)));
        assert_eq!(parse(Token(0)), None);
        assert_eq!(parse(Token(0x10 << 56)), None);
    }
}
