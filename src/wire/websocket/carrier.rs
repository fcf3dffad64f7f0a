//! WebSocket as the carrier of another protocol: its bytes come and go in binary messages whose bounds mean nothing.

use super::close::CloseCode;
use super::deflate::Inflater;
use super::extension::Agreement;
use super::frame::{Opcode, encode_head};
use super::reader::{Event, Reader, Role, Rules, Violation};
use crate::base::transform::{HEAD_BYTES_MAX, Inbound, Passage, Reply, Transform, Unpacked};
use crate::limits::WEBSOCKET_FRAME_BYTES_MAX;

/// The server's end of one connection.
#[derive(Debug, Default)]
pub struct Carrier {
    reader: Reader,
}

impl Carrier {
    /// Of a connection whose two sides agreed so about packing messages.
    pub fn new(agreement: Option<Agreement>) -> Self {
        let reader = agreement.map(|agreement| Reader::packing(agreement.window_bits()));
        Self { reader: reader.unwrap_or_default() }
    }
}

const RULES: Rules =
    Rules { role: Role::Server, text: false, frame_bytes_max: WEBSOCKET_FRAME_BYTES_MAX, message_bytes_max: None };

impl Transform for Carrier {
    /// Two bytes and a length of eight; servers do not mask.
    const HEAD_BYTES: usize = 10;
    type Shared = Inflater;

    fn inbound(&mut self, bytes: &mut [u8], at: &mut Passage, reply: &mut Reply) -> Inbound {
        loop {
            match self.reader.read(bytes, at, &RULES) {
                Ok(Event::Message(_) | Event::Pong(_)) => {}
                Ok(Event::Packed(_)) => return Inbound::Packed,
                Ok(Event::NeedMore) => return Inbound::Done,
                Ok(Event::Ping(ping)) => {
                    say(reply, Opcode::Pong, ping.bytes());
                    return Inbound::Reply;
                }
                // §5.5.1: answered with the code that came.
                Ok(Event::Close(code)) => {
                    let code = code.map(|CloseCode(code)| code.to_be_bytes());
                    say(reply, Opcode::Close, code.as_ref().map_or(&[], |code| &code[..]));
                    return Inbound::End { fault: false };
                }
                Err(violation) => {
                    reply.set(&[&violation.code().frame()]);
                    return Inbound::End { fault: true };
                }
            }
        }
    }

    fn head(&mut self, content_bytes: usize, into: &mut [u8; HEAD_BYTES_MAX]) -> usize {
        encode_head(true, Opcode::Binary, None, content_bytes as u64, into)
    }

    fn unpack(&mut self, inflater: &mut Inflater, packed: &[u8], into: &mut [u8]) -> Unpacked {
        inflater.inflate(packed, into)
    }

    fn refuse_packed(&mut self, inflater: &mut Inflater, is_too_long: bool, reply: &mut Reply) {
        let violation = if is_too_long {
            inflater.totals.too_long += 1;
            Violation::TooBig
        } else {
            inflater.totals.broken += 1;
            Violation::Unpackable
        };
        reply.set(&[&violation.code().frame()]);
    }

    fn window_bits(&mut self) -> Option<u8> {
        self.reader.window_bits()
    }
}

fn say(reply: &mut Reply, opcode: Opcode, payload: &[u8]) {
    let mut head = [0; HEAD_BYTES_MAX];
    let bytes = encode_head(true, opcode, None, payload.len() as u64, &mut head);
    reply.set(&[&head[..bytes], payload]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::slab::Slab;

    #[test]
    fn an_idle_connection_costs_sixteen_bytes() {
        assert_eq!(size_of::<Carrier>(), 12);
        let mut slab = Slab::new(2);
        let mut insert = || slab.insert(Carrier::default()).expect("there is room").index;
        let (a, b) = (insert(), insert());
        let stride = std::ptr::from_ref(slab.at(b)).addr() - std::ptr::from_ref(slab.at(a)).addr();
        assert!(stride <= 16, "it costs {stride}");
    }

    #[test]
    fn several_messages_are_one_stream_and_a_ping_between_is_answered() {
        let mut carrier = Carrier::default();
        let mut bytes = b"\x02\x82\0\0\0\0ab\x89\x81\0\0\0\0p\x80\x81\0\0\0\0c\x82\x83\0\0\0\0def\x82\x81\0\0".to_vec();
        let (mut at, mut reply) = (Passage::default(), Reply::default());
        assert_eq!(carrier.inbound(&mut bytes, &mut at, &mut reply), Inbound::Reply);
        assert_eq!(reply.bytes(), b"\x8A\x01p");
        assert_eq!(carrier.inbound(&mut bytes, &mut at, &mut reply), Inbound::Done);
        assert_eq!((&bytes[..at.write], bytes.len() - at.read), (&b"abcdef"[..], 4));
    }

    #[test]
    fn an_end_is_said_again_until_somebody_acts_on_it() {
        for (last, reply_is, fault) in [
            (&b"\x88\x82\0\0\0\0\x03\xe8"[..], &b"\x88\x02\x03\xe8"[..], false),
            (b"\x88\x80\0\0\0\0", b"\x88\0", false),
            (b"\x81\x81\0\0\0\0x", b"\x88\x02\x03\xeb", true),
            (b"\x82\x01x", b"\x88\x02\x03\xea", true),
        ] {
            let mut carrier = Carrier::default();
            let mut bytes = [b"\x82\x81\0\0\0\0a", last].concat();
            let mut at = Passage::default();
            for _ in 0..2 {
                let mut reply = Reply::default();
                assert_eq!(carrier.inbound(&mut bytes, &mut at, &mut reply), Inbound::End { fault });
                assert_eq!((reply.bytes(), &bytes[..at.write]), (reply_is, &b"a"[..]));
            }
        }
    }
}
