//! WebSocket between `sub` and its socket: what the subscriber says goes into masked frames, what comes is taken out.

use super::subscriber::{End, Subscriber};
use crate::base::transform::Passage;
use crate::limits::WEBSOCKET_FRAME_BYTES_MAX;
use crate::wire::websocket::client::{Unanswered, Wish};
use crate::wire::websocket::{CloseCode, Event, HEAD_BYTES_MAX, Opcode, Reader, Role, Rules, apply_mask, encode_head};
use rustix::rand::{GetRandomFlags, getrandom};
use std::io;

/// The client's end of one connection.
pub(super) struct WebSocket {
    authority: String,
    path: String,
    nonce: [u8; 16],
    agreed: bool,
    reader: Reader,
    /// Received and not used.
    buffer: Vec<u8>,
    /// Of what is to be sent, frames are made; the request is not.
    pub(super) outgoing: Vec<u8>,
}

impl WebSocket {
    /// A new connection is there: asks for a WebSocket.
    pub(super) fn start(authority: &str, path: &str) -> io::Result<Self> {
        let mut websocket = Self {
            authority: authority.to_owned(),
            path: path.to_owned(),
            nonce: random()?,
            agreed: false,
            reader: Reader::default(),
            buffer: Vec::new(),
            outgoing: Vec::new(),
        };
        websocket.outgoing = websocket.wish().request().into_bytes();
        Ok(websocket)
    }

    fn wish(&self) -> Wish<'_> {
        Wish { authority: &self.authority, path: &self.path, subprotocol: Some("mqtt"), nonce: self.nonce }
    }

    /// Takes what the subscriber wants to say, once the server has agreed.
    pub(super) fn wrap(&mut self, packets: &mut Vec<u8>) -> io::Result<()> {
        if self.agreed && !packets.is_empty() {
            self.say(Opcode::Binary, packets)?;
            packets.clear();
        }
        Ok(())
    }

    /// Takes bytes from the socket and gives the subscriber what is in them.
    pub(super) fn handle_bytes(&mut self, bytes: &[u8], subscriber: &mut Subscriber) -> Result<(), End> {
        self.buffer.extend_from_slice(bytes);
        if !self.agreed {
            match self.wish().check(&self.buffer) {
                Ok(None) => return Ok(()),
                Ok(Some(length)) => drop(self.buffer.drain(..length)),
                Err(Unanswered::Status(status @ 500..)) => {
                    return Err(End::Retry(format!("the server answered with HTTP status {status}")));
                }
                Err(Unanswered::Status(status)) => {
                    return Err(End::GiveUp(format!("the server answered with HTTP status {status}")));
                }
                Err(Unanswered::NotWebSocket) => {
                    return Err(End::GiveUp("the server does not speak WebSocket there".to_owned()));
                }
            }
            self.agreed = true;
        }
        const RULES: Rules = Rules {
            role: Role::Client,
            text: false,
            frame_bytes_max: WEBSOCKET_FRAME_BYTES_MAX,
            message_bytes_max: None,
        };
        loop {
            let mut at = Passage::default();
            let event = self.reader.read(&mut self.buffer, &mut at, &RULES);
            let handled = subscriber.handle_bytes(&self.buffer[..at.write]);
            self.buffer.drain(..at.read);
            handled?;
            match event {
                Ok(Event::NeedMore) => return Ok(()),
                // Nothing is packed where it was not offered.
                Ok(Event::Message(_) | Event::Packed(_) | Event::Pong(_)) => {}
                Ok(Event::Ping(ping)) => self.say(Opcode::Pong, ping.bytes()).map_err(|e| End::Retry(e.to_string()))?,
                Ok(Event::Close(code)) => {
                    let code = code.map(|CloseCode(code)| format!(" with code {code}")).unwrap_or_default();
                    return Err(End::Retry(format!("the server closed the WebSocket{code}")));
                }
                Err(violation) => return Err(End::Retry(format!("the server broke WebSocket: {violation:?}"))),
            }
        }
    }

    /// A frame under a key of its own (RFC 6455 §5.3).
    fn say(&mut self, opcode: Opcode, payload: &[u8]) -> io::Result<()> {
        let key = random()?;
        let mut head = [0; HEAD_BYTES_MAX];
        let bytes = encode_head(true, opcode, Some(key), payload.len() as u64, &mut head);
        self.outgoing.extend_from_slice(&head[..bytes]);
        let start = self.outgoing.len();
        self.outgoing.extend_from_slice(payload);
        apply_mask(&mut self.outgoing[start..], key);
        Ok(())
    }
}

fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    let count = getrandom(&mut bytes[..], GetRandomFlags::empty())?;
    assert_eq!(count, N, "the kernel gives up to 256 bytes at once, or none");
    Ok(bytes)
}
