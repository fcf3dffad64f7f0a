//! WebSocket on the edge port: RFC 6455 by clause, and MQTT over it.

use kittiwake::base::transform::{Passage, Unpacked};
use kittiwake::wire::websocket::{
    CloseCode, Deflater, Event, HEAD_BYTES_MAX, Inflater, Opcode, Reader, Role, Rules, WINDOW_BITS_MAX, accept_value,
    apply_mask, decode_head, encode_head,
};

/// The key of RFC 6455 §1.3.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

/// A request for a WebSocket; a header given here takes the place of the usual one, and an empty one leaves it out.
pub fn request(path: &str, headers: &[(&str, &str)]) -> String {
    let usual = [
        ("Host", "edge.example:1883"),
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Key", KEY),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Protocol", "mqtt"),
    ];
    let mut text = format!("GET {path} HTTP/1.1\r\n");
    let kept = usual.iter().filter(|(name, _)| headers.iter().all(|(other, _)| other != name));
    for (name, value) in kept.chain(headers.iter().filter(|(_, value)| !value.is_empty())) {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text + "\r\n"
}

/// RFC 6455 §4.2.2, of an answer to [`request`].
#[track_caller]
pub fn assert_accepted(answer: &str) {
    assert!(answer.starts_with("HTTP/1.1 101 Switching Protocols\r\n") && answer.ends_with("\r\n\r\n"), "{answer}");
    let accept = format!("Sec-WebSocket-Accept: {}", accept_value(KEY));
    for line in ["Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Protocol: mqtt", &accept] {
        assert!(answer.split("\r\n").any(|other| other == line), "no {line} in {answer}");
    }
}

/// A frame as a client sends it.
pub fn frame(fin: bool, opcode: Opcode, payload: &[u8]) -> Vec<u8> {
    let key = [0xA1, 0x02, 0x53, 0xF4];
    let mut head = [0; HEAD_BYTES_MAX];
    let bytes = encode_head(fin, opcode, Some(key), payload.len() as u64, &mut head);
    let mut frame = [&head[..bytes], payload].concat();
    apply_mask(&mut frame[bytes..], key);
    frame
}

/// A message packed, without its frame. What would not become smaller goes without compression (RFC 7692 §7.2.3.3).
pub fn packed(message: &[u8]) -> Vec<u8> {
    let mut framed = Vec::new();
    if Deflater::default().deflate(Opcode::Binary, message, &mut framed) {
        framed[0] &= 0xBF;
        let head = decode_head(&framed).expect("well formed").expect("whole");
        return framed.split_off(head.bytes);
    }
    let blocks = message.chunks(usize::from(u16::MAX)).flat_map(|block| {
        let length = block.len() as u16;
        [&[0][..], &length.to_le_bytes(), &(!length).to_le_bytes(), block].concat()
    });
    blocks.chain([0]).collect()
}

/// A message packed and in one frame, as a client sends it.
pub fn packed_frame(message: &[u8]) -> Vec<u8> {
    as_packed(frame(true, Opcode::Binary, &packed(message)))
}

/// The same frame, of a packed message.
pub fn as_packed(mut frame: Vec<u8>) -> Vec<u8> {
    frame[0] |= 0x40;
    frame
}

/// The client's end.
#[derive(Default)]
pub struct WebSocket {
    reader: Reader,
    raw: Vec<u8>,
    /// What of a packed message came so far.
    under_way: Vec<u8>,
    inflater: Inflater,
    /// Packed messages, with their bytes before and after.
    pub packed: Vec<(usize, usize)>,
    /// Messages so far.
    pub messages: usize,
    /// Bytes received, heads and all.
    pub bytes: usize,
    /// Payloads of pongs.
    pub pongs: Vec<Vec<u8>>,
    /// The server's close frame; the inner one is its code.
    pub closed: Option<Option<CloseCode>>,
}

impl WebSocket {
    /// Where it was agreed that messages may be packed.
    pub fn packing() -> Self {
        Self { reader: Reader::packing(WINDOW_BITS_MAX), ..Self::default() }
    }

    /// Takes what the server sent apart; payload goes to the end of `into`.
    #[track_caller]
    pub fn take(&mut self, bytes: &[u8], into: &mut Vec<u8>) {
        const RULES: Rules =
            Rules { role: Role::Client, text: false, frame_bytes_max: u32::MAX, message_bytes_max: None };
        self.bytes += bytes.len();
        self.raw.extend_from_slice(bytes);
        loop {
            assert!(self.closed.is_none() || self.raw.is_empty(), "a close frame is the last one");
            let mut at = Passage { packed_max: usize::MAX, ..Passage::default() };
            let event = self.reader.read(&mut self.raw, &mut at, &RULES).expect("the server frames well");
            let (plain, packed) = self.raw[..at.write].split_at(at.write - at.packed);
            into.extend_from_slice(plain);
            self.under_way.extend_from_slice(packed);
            self.raw.drain(..at.read);
            match event {
                Event::NeedMore => return,
                Event::Packed(_) => self.unpack(into),
                Event::Message(_) => self.messages += 1,
                Event::Pong(pong) => self.pongs.push(pong.bytes().to_vec()),
                Event::Ping(_) => panic!("the server does not ping"),
                Event::Close(code) => {
                    self.raw.clear();
                    self.closed = Some(code);
                    return;
                }
            }
        }
    }

    #[track_caller]
    fn unpack(&mut self, into: &mut Vec<u8>) {
        let packed = core::mem::take(&mut self.under_way);
        let mut message = vec![0; 1 << 20];
        let Unpacked::Whole(bytes) = self.inflater.inflate(&packed, &mut message) else { panic!("it packs well") };
        into.extend_from_slice(&message[..bytes]);
        self.packed.push((bytes, packed.len()));
        self.messages += 1;
    }
}
