//! MQTT inside WebSocket, the client's side (RFC 6455): what it asks for, what it says in masked frames, what comes taken
//! out of its frames.

use crate::foreign::Manner;
use kittiwake::base::ids::ConnectionId;
use kittiwake::base::transform::{self, Inbound, Passage, Reply, Transform};
use kittiwake::engine::{Core, Refused, Room};
use kittiwake::io::Driver;
use kittiwake::limits::WEBSOCKET_FRAME_BYTES_MAX;
use kittiwake::wire::mqtt::{Encode, Version};
use kittiwake::wire::tls;
use kittiwake::wire::websocket::client::Wish;
use kittiwake::wire::websocket::{
    CloseCode, Event, HEAD_BYTES_MAX, Opcode, Reader, Role, Rules, apply_mask, encode_head,
};
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;

/// Where MQTT is on the servers that this client meets.
pub const PATH: &str = "/mqtt";
/// The subprotocol of MQTT `[MQTT-6.0.0-3]`.
pub const SUBPROTOCOL: &str = "mqtt";

const RULES: Rules =
    Rules { role: Role::Client, text: false, frame_bytes_max: WEBSOCKET_FRAME_BYTES_MAX, message_bytes_max: None };

/// Random numbers that nobody outside this process foresees (RFC 6455 §5.3, §10.3): a keyed hash of what they are for.
#[derive(Clone, Debug, Default)]
struct Random {
    keyed: RandomState,
    count: u64,
}

impl Random {
    /// The key of the next frame.
    fn mask(&mut self) -> [u8; 4] {
        self.count += 1;
        (self.keyed.hash_one(self.count) as u32).to_ne_bytes()
    }
}

/// The client's end of one connection. It takes frames off what comes; what goes out has been framed by [`Voice`].
#[derive(Debug, Default)]
pub struct Carrier {
    reader: Reader,
    random: Random,
}

impl Carrier {
    fn say(&mut self, reply: &mut Reply, opcode: Opcode, payload: &[u8]) {
        let key = self.random.mask();
        let mut head = [0; HEAD_BYTES_MAX];
        let bytes = encode_head(true, opcode, Some(key), payload.len() as u64, &mut head);
        let mut masked = [0; kittiwake::wire::websocket::CONTROL_BYTES_MAX];
        let masked = &mut masked[..payload.len()];
        masked.copy_from_slice(payload);
        apply_mask(masked, key);
        reply.set(&[&head[..bytes], masked]);
    }
}

impl Transform for Carrier {
    const HEAD_BYTES: usize = 0;
    type Shared = ();

    fn inbound(&mut self, bytes: &mut [u8], at: &mut Passage, reply: &mut Reply) -> Inbound {
        loop {
            match self.reader.read(bytes, at, &RULES) {
                // Nothing is packed where it was not offered.
                Ok(Event::Message(_) | Event::Packed(_) | Event::Pong(_)) => {}
                Ok(Event::NeedMore) => return Inbound::Done,
                Ok(Event::Ping(ping)) => {
                    self.say(reply, Opcode::Pong, ping.bytes());
                    return Inbound::Reply;
                }
                Ok(Event::Close(code)) => {
                    let code = code.map(|CloseCode(code)| code.to_be_bytes());
                    self.say(reply, Opcode::Close, code.as_ref().map_or(&[], |code| &code[..]));
                    return Inbound::End { fault: false };
                }
                Err(violation) => {
                    let CloseCode(code) = violation.code();
                    self.say(reply, Opcode::Close, &code.to_be_bytes());
                    return Inbound::End { fault: true };
                }
            }
        }
    }

    /// A head alone cannot mask what is behind it, so frames are written whole, as raw bytes.
    fn head(&mut self, _: usize, _: &mut [u8; transform::HEAD_BYTES_MAX]) -> usize {
        unreachable!("the fleet says all it says on a WebSocket by its voice, which writes raw bytes")
    }
}

/// What a fleet's connections are in: nothing, WebSocket, TLS, or WebSocket inside TLS.
pub type Layers = tls::Layers<Carrier>;

/// Whether packets travel in frames.
#[inline]
fn is_websocket<D: Driver, L>(core: &mut Core<D, L, Layers>, id: ConnectionId) -> bool {
    core.transform(id).is_some_and(Layers::has_websocket)
}

/// From here on packets travel in frames.
pub fn carry<D: Driver, L>(core: &mut Core<D, L, Layers>, id: ConnectionId) {
    if core.has_transform(id) {
        core.change_transform(id, |layers| layers.carry(Carrier::default()));
    } else {
        core.set_transform(id, Layers::WebSocket(Carrier::default()));
    }
}

/// What a fleet says: packets as they are, or each in a masked frame of its own where it is a WebSocket.
#[derive(Debug)]
pub struct Voice {
    /// The version of MQTT that is spoken.
    pub version: Version,
    random: Random,
    /// The last frame, kept for its memory.
    frame: Vec<u8>,
    /// The last words of a protocol that is not MQTT, kept likewise.
    words: Vec<u8>,
}

impl Default for Voice {
    fn default() -> Self {
        Self { version: Version::V311, random: Random::default(), frame: Vec::new(), words: Vec::new() }
    }
}

impl Voice {
    /// Says a packet.
    #[inline]
    pub fn say<D: Driver, L>(
        &mut self,
        core: &mut Core<D, L, Layers>,
        id: ConnectionId,
        room: Room,
        packet: &impl Encode,
    ) -> Result<(), Refused> {
        let len = packet.encoded_len(self.version);
        let version = self.version;
        let fill = |out: &mut [u8]| {
            packet.encode(version, out);
        };
        if is_websocket(core, id) {
            core.write_raw(id, room, self.frame(Opcode::Binary, len, fill))
        } else {
            core.write(id, room, len, fill)
        }
    }

    /// Says what is no MQTT, on a connection that has no transform.
    pub fn utter<D: Driver, L>(
        &mut self,
        core: &mut Core<D, L, Layers>,
        id: ConnectionId,
        room: Room,
        words: impl FnOnce(&mut Vec<u8>) -> Manner,
    ) -> Result<(), Refused> {
        let mut said = core::mem::take(&mut self.words);
        said.clear();
        let written = match words(&mut said) {
            Manner::Plain => core.write_bytes(id, room, &said),
            Manner::Frame(opcode) => {
                core.write_bytes(id, room, self.frame(opcode, said.len(), |out| out.copy_from_slice(&said)))
            }
        };
        self.words = said;
        written
    }

    /// The end of a WebSocket; nothing where there is none.
    pub fn close<D: Driver, L>(&mut self, core: &mut Core<D, L, Layers>, id: ConnectionId) -> Result<(), Refused> {
        if !is_websocket(core, id) {
            return Ok(());
        }
        let CloseCode(code) = CloseCode::NORMAL;
        core.write_raw(id, Room::Control, self.frame(Opcode::Close, 2, |out| out.copy_from_slice(&code.to_be_bytes())))
    }

    /// A whole masked frame with `len` bytes of payload, written by `fill`.
    fn frame(&mut self, opcode: Opcode, len: usize, fill: impl FnOnce(&mut [u8])) -> &[u8] {
        let key = self.random.mask();
        let mut head = [0; HEAD_BYTES_MAX];
        let head_bytes = encode_head(true, opcode, Some(key), len as u64, &mut head);
        self.frame.clear();
        self.frame.extend_from_slice(&head[..head_bytes]);
        self.frame.resize(head_bytes + len, 0);
        let payload = &mut self.frame[head_bytes..];
        fill(payload);
        apply_mask(payload, key);
        &self.frame
    }
}

/// Makes what each connection asks for; the same again when its answer is checked.
#[derive(Debug, Default)]
pub struct Wishes {
    keyed: RandomState,
}

impl Wishes {
    /// What an attempt of a member asks a server for.
    pub fn of<'a>(
        &self,
        tag: u32,
        attempt: u8,
        authority: &'a str,
        (path, subprotocol): (&'a str, Option<&'a str>),
    ) -> Wish<'a> {
        let half = |which: u8| self.keyed.hash_one((tag, attempt, which)).to_ne_bytes();
        let mut nonce = [0; 16];
        nonce[..8].copy_from_slice(&half(0));
        nonce[8..].copy_from_slice(&half(1));
        Wish { authority, path, subprotocol, nonce }
    }
}

/// The head of a server's frame, which is not masked: what the floor puts in front of what a server coalesced.
pub fn server_head(content_bytes: usize) -> Vec<u8> {
    let mut head = [0; HEAD_BYTES_MAX];
    let bytes = encode_head(true, Opcode::Binary, None, content_bytes as u64, &mut head);
    head[..bytes].to_vec()
}

/// Bytes of a client's frame in all.
pub fn client_frame_bytes(content_bytes: usize) -> usize {
    let mut head = [0; HEAD_BYTES_MAX];
    encode_head(true, Opcode::Binary, Some([0; 4]), content_bytes as u64, &mut head) + content_bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use kittiwake::wire::websocket::Carrier as ServerCarrier;

    /// What a server takes out of frames, and how it goes on.
    fn taken(frames: &[u8]) -> (Vec<u8>, Inbound) {
        let (mut bytes, mut at) = (frames.to_vec(), Passage::default());
        let inbound = ServerCarrier::default().inbound(&mut bytes, &mut at, &mut Reply::default());
        (bytes[..at.write].to_vec(), inbound)
    }

    #[test]
    fn a_server_takes_the_frames_that_are_said_and_no_two_have_one_mask() {
        let mut voice = Voice::default();
        for len in [0, 1, 125, 126, 65_535, 65_536] {
            let packet: Vec<u8> = (0..len).map(|at| at as u8).collect();
            let frame = voice.frame(Opcode::Binary, len, |out| out.copy_from_slice(&packet)).to_vec();
            assert_eq!(taken(&frame), (packet.clone(), Inbound::Done));
            assert_eq!(frame.len(), client_frame_bytes(len));
            let again = voice.frame(Opcode::Binary, len, |out| out.copy_from_slice(&packet));
            assert_ne!(frame, again, "the mask is another each time");
        }
        let goodbye = voice.frame(Opcode::Close, 2, |out| out.copy_from_slice(&1_000_u16.to_be_bytes()));
        assert_eq!(taken(goodbye), (Vec::new(), Inbound::End { fault: false }));
    }

    #[test]
    fn frames_of_a_server_come_out_as_one_stream() {
        let mut carrier = Carrier::default();
        let whole = [&server_head(2)[..], b"ab", &server_head(300), &[7; 300], &server_head(1)].concat();
        let (mut bytes, mut at, mut reply) = (whole, Passage::default(), Reply::default());
        assert_eq!(carrier.inbound(&mut bytes, &mut at, &mut reply), Inbound::Done);
        assert_eq!((&bytes[..2], &bytes[2..at.write], at.read), (&b"ab"[..], &[7; 300][..], bytes.len()));
    }

    #[test]
    fn pings_and_ends_are_answered_in_masked_frames() {
        for (frame, inbound) in [
            (&b"\x89\x03abc"[..], Inbound::Reply),
            (b"\x88\x02\x03\xe9", Inbound::End { fault: false }),
            (b"\x88\x00", Inbound::End { fault: false }),
            (b"\x82\x81\0\0\0\0x", Inbound::End { fault: true }),
        ] {
            let (mut carrier, mut bytes) = (Carrier::default(), frame.to_vec());
            let (mut at, mut reply) = (Passage::default(), Reply::default());
            assert_eq!(carrier.inbound(&mut bytes, &mut at, &mut reply), inbound);
            let mut said = reply.bytes().to_vec();
            let mut server = ServerCarrier::default();
            let answered = server.inbound(&mut said, &mut Passage::default(), &mut Reply::default());
            let ends = matches!(inbound, Inbound::End { .. });
            assert_eq!(answered, if ends { Inbound::End { fault: false } } else { Inbound::Done });
            assert_ne!(reply.bytes()[1] & 0x80, 0, "a client masks");
        }
    }

    #[test]
    fn each_attempt_has_a_nonce_of_its_own_that_can_be_made_again() {
        let wishes = Wishes::default();
        let nonce = |tag, attempt| wishes.of(tag, attempt, "h:1", (PATH, None)).nonce;
        assert_eq!(nonce(7, 1), nonce(7, 1));
        assert_ne!(nonce(7, 1), nonce(7, 2));
        assert_ne!(nonce(7, 1), nonce(8, 1));
        assert_ne!(nonce(7, 1), Wishes::default().of(7, 1, "h:1", (PATH, None)).nonce);
    }
}
