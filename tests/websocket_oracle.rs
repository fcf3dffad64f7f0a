//! The WebSocket framer against tungstenite: the same bytes, the same messages, the same verdict.
//!
//! Where the two differ on purpose the difference is named here, and nothing else may differ: tungstenite takes lengths
//! in more bytes than they need, does not know close code 1014, and judges text when its frame is whole, we as it comes.

use kittiwake::base::transform::Passage;
use kittiwake::wire::websocket::{
    CloseCode, Event, HEAD_BYTES_MAX, Kind, Opcode, Reader, Role, Rules, Violation, apply_mask, encode_head,
};
use proptest::prelude::*;
use std::io::{self, Read, Write};
use tungstenite::protocol::{Role as TheirRole, WebSocketConfig};
use tungstenite::{Error, Message, WebSocket};

const MESSAGE_BYTES_MAX: usize = 1 << 16;

const RULES: Rules = Rules {
    role: Role::Server,
    text: true,
    frame_bytes_max: MESSAGE_BYTES_MAX as u32,
    message_bytes_max: Some(MESSAGE_BYTES_MAX as u32),
};

/// What a stream says, in either's words.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Said {
    Text(Vec<u8>),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<u16>),
    /// Against the rules.
    Protocol,
    /// Text that is none.
    Utf8,
    TooBig,
}

/// A close frame whose code may not be sent is handed on as code 1002 by them and is a violation to us: both answer
/// with that code and end.
fn close(code: Option<u16>) -> Said {
    if code == Some(1002) { Said::Protocol } else { Said::Close(code) }
}

fn ours(stream: &[u8]) -> Vec<Said> {
    let (mut reader, mut bytes, mut said) = (Reader::default(), stream.to_vec(), Vec::new());
    let mut at = Passage::default();
    loop {
        said.push(match reader.read(&mut bytes, &mut at, &RULES) {
            Ok(Event::NeedMore) => return said,
            Ok(Event::Message(kind)) => {
                let message = bytes[..at.write].to_vec();
                at.write = 0;
                if kind == Kind::Text { Said::Text(message) } else { Said::Binary(message) }
            }
            Ok(Event::Packed(_)) => unreachable!("packing was not agreed to"),
            Ok(Event::Ping(ping)) => Said::Ping(ping.bytes().to_vec()),
            Ok(Event::Pong(pong)) => Said::Pong(pong.bytes().to_vec()),
            Ok(Event::Close(code)) => {
                said.push(close(code.map(|CloseCode(code)| code)));
                return said;
            }
            Err(violation) => {
                said.push(match violation {
                    Violation::Utf8 => Said::Utf8,
                    Violation::TooBig => Said::TooBig,
                    _ => Said::Protocol,
                });
                return said;
            }
        });
    }
}

/// Bytes to be read, and nothing after them yet.
struct Stream<'a>(&'a [u8]);

impl Read for Stream<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.0.is_empty() { Err(io::ErrorKind::WouldBlock.into()) } else { self.0.read(into) }
    }
}

impl Write for Stream<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn theirs(stream: &[u8]) -> Vec<Said> {
    let config =
        WebSocketConfig::default().max_message_size(Some(MESSAGE_BYTES_MAX)).max_frame_size(Some(MESSAGE_BYTES_MAX));
    let mut websocket = WebSocket::from_raw_socket(Stream(stream), TheirRole::Server, Some(config));
    let mut said = Vec::new();
    loop {
        said.push(match websocket.read() {
            Ok(Message::Text(text)) => Said::Text(text.as_bytes().to_vec()),
            Ok(Message::Binary(bytes)) => Said::Binary(bytes.to_vec()),
            Ok(Message::Ping(bytes)) => Said::Ping(bytes.to_vec()),
            Ok(Message::Pong(bytes)) => Said::Pong(bytes.to_vec()),
            Ok(Message::Close(frame)) => {
                said.push(close(frame.map(|frame| frame.code.into())));
                return said;
            }
            Ok(Message::Frame(_)) => unreachable!("reading brings no raw frames"),
            Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => return said,
            Err(error) => {
                said.push(match error {
                    Error::Utf8(_) => Said::Utf8,
                    Error::Capacity(_) => Said::TooBig,
                    Error::Protocol(_) => Said::Protocol,
                    other => panic!("an error that bytes cannot cause: {other}"),
                });
                return said;
            }
        });
    }
}

/// A frame that is whole; its head may have been tampered with.
#[derive(Clone, Debug)]
struct Frame {
    fin: bool,
    opcode: u8,
    payload: Vec<u8>,
    key: [u8; 4],
    /// Bits turned over in the first two bytes.
    turned: [u8; 2],
}

impl Frame {
    fn bytes(&self) -> Vec<u8> {
        let mut head = [0; HEAD_BYTES_MAX];
        let len = encode_head(self.fin, Opcode::Binary, Some(self.key), self.payload.len() as u64, &mut head);
        head[0] = head[0] & 0xF0 | self.opcode;
        head[0] ^= self.turned[0];
        head[1] ^= self.turned[1];
        let mut bytes = [&head[..len], &self.payload].concat();
        apply_mask(&mut bytes[len..], self.key);
        bytes
    }
}

fn payload() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => "[a-zé→😀]{0,40}".prop_map(String::into_bytes),
        2 => proptest::collection::vec(any::<u8>(), 0..20),
        1 => proptest::collection::vec(any::<u8>(), 120..130),
        1 => (65_530usize..65_540).prop_map(|len| vec![b'x'; len]),
        // Close codes, with and without a reason; 1014 aside.
        2 => (prop_oneof![990u16..1020, 2990u16..3010, 4990u16..5010, any::<u16>()], "[a-z]{0,4}")
            .prop_filter("they do not know 1014", |(code, _)| *code != 1014)
            .prop_map(|(code, reason)| [&code.to_be_bytes()[..], reason.as_bytes()].concat()),
    ]
}

fn frame() -> impl Strategy<Value = Frame> {
    let opcode = prop_oneof![4 => Just(1u8), 4 => Just(2u8), 4 => Just(0u8), 2 => Just(9u8), 2 => Just(10u8), 1 => Just(8u8), 1 => 0u8..16];
    let turned = prop_oneof![
        12 => Just([0, 0]),
        1 => prop_oneof![Just([0x40, 0]), Just([0x20, 0]), Just([0x10, 0]), Just([0, 0x80]), Just([0x80, 0])],
    ];
    (any::<bool>(), opcode, payload(), any::<[u8; 4]>(), turned).prop_map(|(fin, opcode, payload, key, turned)| Frame {
        fin,
        opcode,
        payload,
        key,
        turned,
    })
}

/// Frames in an order that mostly makes sense: else hardly anything but the first violation would be compared.
fn frames() -> impl Strategy<Value = Vec<Frame>> {
    (proptest::collection::vec(frame(), 1..10), 0u8..4).prop_map(|(mut frames, disorder)| {
        // Behind a frame that lacks its mask nothing is a frame any more, and either may stumble first over anything.
        let last = frames.len() - 1;
        frames[..last].iter_mut().for_each(|frame| frame.turned[1] = 0);
        let mut is_open = false;
        for frame in frames.iter_mut().filter(|_| disorder > 0) {
            if frame.opcode >= 8 {
                frame.fin = true;
                continue;
            }
            frame.opcode = match frame.opcode {
                _ if is_open => 0,
                0 => 2,
                opcode => opcode,
            };
            is_open = !frame.fin;
        }
        frames
    })
}

#[track_caller]
fn agree(stream: &[u8]) {
    let (ours, mut theirs) = (ours(stream), theirs(stream));
    // Of a frame that breaks two rules they may tell its length or its text, we the other.
    if let (Some(Said::Protocol), Some(last @ (Said::TooBig | Said::Utf8))) = (ours.last(), theirs.last_mut()) {
        *last = Said::Protocol;
    }
    // We judge text as it comes, they when the frame is there.
    let early = ours.last() == Some(&Said::Utf8) && ours.len() == theirs.len() + 1;
    let compared = if early { &ours[..theirs.len()] } else { &ours[..] };
    assert_eq!(compared, theirs, "{stream:x?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn streams_of_frames_get_the_same_verdict(frames in frames()) {
        agree(&frames.iter().flat_map(Frame::bytes).collect::<Vec<u8>>());
    }
}

#[test]
fn every_first_byte_gets_the_same_verdict() {
    for first in 0..=u8::MAX {
        for length in [0, 1, 2, 125] {
            let payload: Vec<u8> = [0x03, 0xE8].into_iter().chain([b'a'; 123]).take(length).collect();
            let mut bytes = vec![first, 0x80 | payload.len() as u8, 0, 0, 0, 0];
            bytes.extend(payload);
            agree(&bytes);
        }
    }
}

#[test]
fn every_close_code_gets_the_same_verdict() {
    for code in (0..=u16::MAX).filter(|code| *code != 1014) {
        let [high, low] = code.to_be_bytes();
        agree(&[0x88, 0x82, 0, 0, 0, 0, high, low]);
    }
}
