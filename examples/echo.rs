//! A WebSocket echo server: the smallest user of the engine and the wire layers. Whole messages go back as they came,
//! text as text and bytes as bytes, packed where that was agreed to; Autobahn's test suite is run against it
//! (`tests/autobahn/run`).
//!
//! ```text
//! cargo run --release --example echo -- --listen 127.0.0.1:9001 --driver io_uring
//! ```

use bytes::Bytes;
use clap::{Parser, ValueEnum};
use kittiwake::base::ids::{ConnectionId, ShardId};
use kittiwake::base::transform::{Passage, Plain, Unpacked};
use kittiwake::engine::mail::Mailbox;
use kittiwake::engine::{Close, CloseCause, Core, Departure, Engine, Handler, Refused, Room, Settings};
use kittiwake::io::epoll::EpollDriver;
use kittiwake::io::uring::UringDriver;
use kittiwake::io::{Driver, ListenerId};
use kittiwake::wire::http::parse;
use kittiwake::wire::websocket::{
    Agreement, CloseCode, Deflater, Event, HEAD_BYTES_MAX, Inflater, Kind, Offer, Opcode, Reader, Role, Rules,
    Violation, encode_head, fits_window,
};
use slab::Slab;
use std::io;
use std::net::SocketAddr;

/// Longest message. Longer: 1009.
const MESSAGE_BYTES_MAX: usize = 16 << 20;
/// Connections at a time; each may hold a message that comes and one that goes.
const CONNECTIONS_MAX: u32 = 256;

#[derive(Parser)]
#[command(about = "Echoes WebSocket messages")]
struct Arguments {
    /// Where to listen.
    #[arg(long, default_value = "127.0.0.1:9001")]
    listen: SocketAddr,
    /// How to wait on sockets.
    #[arg(long, value_enum, default_value = "epoll")]
    driver: DriverName,
}

#[derive(Clone, Copy, ValueEnum)]
enum DriverName {
    #[value(name = "io_uring")]
    IoUring,
    Epoll,
}

fn main() -> io::Result<()> {
    let arguments = Arguments::parse();
    match arguments.driver {
        DriverName::IoUring => serve(UringDriver::new()?, arguments.listen),
        DriverName::Epoll => serve(EpollDriver::new()?, arguments.listen),
    }
}

fn serve<D: Driver>(driver: D, listen: SocketAddr) -> io::Result<()> {
    let mailbox = Mailbox::new(ShardId(0), 1);
    let posts = vec![mailbox.post()];
    let settings = Settings {
        connections_max: CONNECTIONS_MAX,
        outbox_bytes_max: MESSAGE_BYTES_MAX + HEAD_BYTES_MAX,
        ..Settings::default()
    };
    let mut engine = Engine::new(driver, Echo::default(), settings, mailbox, posts)?;
    let (_, address) = engine.core.listen(listen, false)?;
    println!("echo listens on {address}, driver {}", engine.core.driver().name());
    loop {
        engine.turn()?;
    }
}

/// One per WebSocket; a connection's tag is its peer's number. A guest's tag is not looked at.
#[derive(Default)]
struct Echo {
    peers: Slab<Peer>,
    packing: Packing,
}

/// What packs and unpacks messages, for all of them.
#[derive(Default)]
struct Packing {
    inflater: Inflater,
    deflater: Deflater,
}

#[derive(Default)]
struct Peer {
    reader: Reader,
    /// Of the message that comes: its bytes so far, then what was not read yet.
    buffer: Vec<u8>,
    /// How many of them are the message's.
    plain: usize,
    /// A message that waits for the outbox, framed.
    waiting: Option<Bytes>,
}

impl<D: Driver> Handler<D> for Echo {
    type Letter = ();
    type Transform = Plain;

    fn on_accept(&mut self, _: &mut Core<D, ()>, _: ConnectionId, _: ListenerId, _: SocketAddr) {}

    fn on_bytes(&mut self, core: &mut Core<D, ()>, id: ConnectionId, bytes: &[u8]) -> usize {
        if core.tag(id) == Some(OPEN_BIT) {
            return self.shake_hands(core, id, bytes);
        }
        match core.tag(id).filter(|tag| tag & OPEN_BIT != 0) {
            Some(tag) => {
                self.peer(tag).buffer.extend_from_slice(bytes);
                self.go_on(core, id, tag);
            }
            // A guest: it gets a slot of its own, of this one engine, before it is answered. What it has sent comes again
            // there.
            None => {
                core.depart(id, true);
                return 0;
            }
        }
        bytes.len()
    }

    fn on_departed(&mut self, core: &mut Core<D, ()>, _: ConnectionId, departure: Departure) {
        // Without room for it the socket closes as it is dropped.
        drop(core.adopt(departure, OPEN_BIT));
    }

    fn on_drained(&mut self, core: &mut Core<D, ()>, id: ConnectionId) {
        let tag = core.tag(id).expect("the id is valid in this call");
        core.resume_reading(id);
        self.go_on(core, id, tag);
    }

    fn on_closed(&mut self, core: &mut Core<D, ()>, id: ConnectionId, _: CloseCause) {
        if let Some(number) = core.tag(id).and_then(|tag| (tag & !OPEN_BIT).checked_sub(1)) {
            self.peers.remove(number as usize);
        }
    }
}

/// Set in the tag of a connection with a slot; the rest is its peer's number and one, or 0 before the handshake.
const OPEN_BIT: u32 = 1 << 31;

impl Echo {
    fn peer(&mut self, tag: u32) -> &mut Peer {
        &mut self.peers[(tag & !OPEN_BIT) as usize - 1]
    }

    fn shake_hands<D: Driver>(&mut self, core: &mut Core<D, ()>, id: ConnectionId, bytes: &[u8]) -> usize {
        let (mut answer, mut used) = (Vec::new(), bytes.len());
        let mut accepted = None;
        match parse(bytes) {
            Ok(None) => return 0,
            Ok(Some(head)) => match Offer::check(&head, None) {
                Ok(offer) => {
                    let agreement = Agreement::find(&head);
                    offer.accept(None, agreement, &mut answer);
                    let reader = agreement.map(|agreement| Reader::packing(agreement.window_bits()));
                    (accepted, used) = (Some(reader.unwrap_or_default()), head.bytes);
                }
                Err(refusal) => refusal.problem().encode(&mut answer),
            },
            Err(error) => kittiwake::wire::http::Problem::new(error.status(), error.detail()).encode(&mut answer),
        }
        let written = core.write_bytes(id, Room::Control, &answer).is_ok();
        let Some(reader) = accepted.filter(|_| written) else {
            core.close(id, Close::AfterFlush, CloseCause::Local);
            return used;
        };
        let peer = Peer { reader, ..Peer::default() };
        let number = u32::try_from(self.peers.insert(peer)).expect("connections are few");
        let tag = OPEN_BIT | (number + 1);
        core.set_tag(id, tag);
        core.clear_deadline(id);
        // What came along with the request is a WebSocket's already.
        self.peer(tag).buffer.extend_from_slice(&bytes[used..]);
        self.go_on(core, id, tag);
        bytes.len()
    }

    /// Reads what there is, until a message has to wait for the outbox.
    fn go_on<D: Driver>(&mut self, core: &mut Core<D, ()>, id: ConnectionId, tag: u32) {
        let Self { peers, packing } = self;
        let peer = &mut peers[(tag & !OPEN_BIT) as usize - 1];
        while core.is_open(id) {
            if let Some(message) = peer.waiting.take()
                && echo(core, id, &message) == Err(Refused::Full)
            {
                peer.waiting = Some(message);
                core.pause_reading(id);
                assert!(core.ask_drained(id), "an empty outbox has room for the longest message");
                return;
            }
            match peer.next(&mut packing.inflater) {
                Ok(Event::NeedMore) => return,
                Ok(Event::Message(kind) | Event::Packed(kind)) => {
                    let rest = peer.buffer.split_off(core::mem::take(&mut peer.plain));
                    let message = core::mem::replace(&mut peer.buffer, rest);
                    peer.waiting = Some(packing.frame(kind, &message, peer.reader.window_bits()).into());
                }
                Ok(Event::Ping(ping)) => say(core, id, Opcode::Pong, ping.bytes()),
                Ok(Event::Pong(_)) => {}
                Ok(Event::Close(code)) => {
                    let code = code.map(|CloseCode(code)| code.to_be_bytes());
                    say(core, id, Opcode::Close, code.as_ref().map_or(&[], |code| &code[..]));
                    core.close(id, Close::AfterFlush, CloseCause::PeerEnded);
                }
                Err(violation) => {
                    say(core, id, Opcode::Close, &violation.code().0.to_be_bytes());
                    core.close(id, Close::AfterFlush, CloseCause::Misframed);
                }
            }
        }
    }
}

impl Peer {
    /// The next event; the message's bytes so far are at the buffer's front.
    fn next(&mut self, inflater: &mut Inflater) -> Result<Event, Violation> {
        const RULES: Rules = Rules {
            role: Role::Server,
            text: true,
            frame_bytes_max: MESSAGE_BYTES_MAX as u32,
            message_bytes_max: Some(MESSAGE_BYTES_MAX as u32),
        };
        // All of it is packed, or nothing.
        let packed = if self.reader.is_packed() { self.plain } else { 0 };
        let mut at = Passage { packed, packed_max: MESSAGE_BYTES_MAX, ..Passage::at(self.plain) };
        let event = self.reader.read(&mut self.buffer, &mut at, &RULES);
        self.buffer.drain(at.write..at.read);
        self.plain = at.write;
        if let Ok(Event::Packed(kind)) = event {
            let message = unpack(inflater, &self.buffer[..self.plain])?;
            if kind == Kind::Text && core::str::from_utf8(&message).is_err() {
                return Err(Violation::Utf8);
            }
            let packed = core::mem::replace(&mut self.plain, message.len());
            self.buffer.splice(..packed, message);
        }
        if self.buffer.is_empty() {
            self.buffer = Vec::new();
        }
        event
    }
}

/// A message as it was before it was packed, in as little memory as will do.
fn unpack(inflater: &mut Inflater, packed: &[u8]) -> Result<Vec<u8>, Violation> {
    let mut message = vec![0; 4 * packed.len() + 1];
    loop {
        match inflater.inflate(packed, &mut message) {
            Unpacked::Whole(bytes) if bytes <= MESSAGE_BYTES_MAX => {
                message.truncate(bytes);
                return Ok(message);
            }
            Unpacked::NoRoom if message.len() <= MESSAGE_BYTES_MAX => {
                let larger = (4 * message.len()).min(MESSAGE_BYTES_MAX + 1);
                message.resize(larger, 0);
            }
            Unpacked::Whole(_) | Unpacked::NoRoom => return Err(Violation::TooBig),
            Unpacked::Broken => return Err(Violation::Unpackable),
        }
    }
}

impl Packing {
    /// A message in one frame, packed if its receiver takes that and it helps.
    fn frame(&mut self, kind: Kind, message: &[u8], window_bits: Option<u8>) -> Vec<u8> {
        let opcode = if kind == Kind::Text { Opcode::Text } else { Opcode::Binary };
        let mut framed = Vec::new();
        let may_pack = window_bits.is_some_and(|bits| fits_window(message.len(), bits));
        if !may_pack || !self.deflater.deflate(opcode, message, &mut framed) {
            let mut head = [0; HEAD_BYTES_MAX];
            let bytes = encode_head(true, opcode, None, message.len() as u64, &mut head);
            framed.extend_from_slice(&head[..bytes]);
            framed.extend_from_slice(message);
        }
        framed
    }
}

/// A whole message back, or nothing of it.
fn echo<D: Driver>(core: &mut Core<D, ()>, id: ConnectionId, framed: &Bytes) -> Result<(), Refused> {
    if core.outbox_room(id) < framed.len() {
        return Err(Refused::Full);
    }
    core.write_shared(id, Room::Data, framed).inspect_err(|_| core.close(id, Close::Now, CloseCause::OutOfBlocks))
}

/// A control frame. A peer that leaves no room even for those is closed by the engine.
fn say<D: Driver>(core: &mut Core<D, ()>, id: ConnectionId, opcode: Opcode, payload: &[u8]) {
    let mut head = [0; HEAD_BYTES_MAX];
    let bytes = encode_head(true, opcode, None, payload.len() as u64, &mut head);
    let _ = core.write_bytes(id, Room::Control, &[&head[..bytes], payload].concat());
}
