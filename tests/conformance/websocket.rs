//! WebSocket on the edge port: RFC 6455 by clause, and MQTT over it.

use kittiwake::base::transform::Passage;
use kittiwake::wire::websocket::{
    CloseCode, Event, HEAD_BYTES_MAX, Opcode, Reader, Role, Rules, accept_value, apply_mask, encode_head,
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

/// The client's end.
#[derive(Default)]
pub struct WebSocket {
    reader: Reader,
    raw: Vec<u8>,
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
    /// Takes what the server sent apart; payload goes to the end of `into`.
    #[track_caller]
    pub fn take(&mut self, bytes: &[u8], into: &mut Vec<u8>) {
        const RULES: Rules =
            Rules { role: Role::Client, text: false, frame_bytes_max: u32::MAX, message_bytes_max: None };
        self.bytes += bytes.len();
        self.raw.extend_from_slice(bytes);
        loop {
            assert!(self.closed.is_none() || self.raw.is_empty(), "a close frame is the last one");
            let mut at = Passage::default();
            let event = self.reader.read(&mut self.raw, &mut at, &RULES).expect("the server frames well");
            into.extend_from_slice(&self.raw[..at.write]);
            self.raw.drain(..at.read);
            match event {
                Event::NeedMore => return,
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
}
