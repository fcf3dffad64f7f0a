//! Any bytes as a stream of WebSocket frames, and as a packed message.

use kittiwake::base::transform::{Passage, Unpacked};
use kittiwake::wire::websocket::{
    Deflater, Event, HEAD_BYTES_MAX, Inflater, Opcode, Reader, Role, Rules, Violation, WINDOW_BITS_MAX, decode_head,
};

/// Events, the bytes that were handed on (what was packed as it was), and the violation that ended it.
type Heard = (Vec<Event>, Vec<u8>, Option<Violation>);

/// Longest packed message of a stream.
const PACKED_MAX: usize = 200;

/// It says the same whole and in pieces; the first bytes decide how it is cut and what is taken.
pub fn stream(bytes: &[u8]) {
    let [cut, kinds, stream @ ..] = bytes else { return };
    let role = if kinds & 1 == 0 { Role::Server } else { Role::Client };
    let rules = Rules { role, text: kinds & 2 == 0, frame_bytes_max: 1 << 20, message_bytes_max: None };
    let packing = kinds & 4 != 0;
    let whole = heard(stream, stream.len().max(1), &rules, packing);
    assert_eq!(whole, heard(stream, usize::from(*cut).max(1), &rules, packing));
    assert!(packing || !whole.0.iter().any(|event| matches!(event, Event::Packed(_))), "nobody agreed to it");
    message(stream);
}

/// As a packed message they stay within the room there is, whatever came before; as a plain one they come back.
fn message(bytes: &[u8]) {
    let (mut inflater, mut deflater) = (Inflater::default(), Deflater::default());
    let mut into = vec![0xAA; 4_096 + 16];
    let once = inflater.inflate(bytes, &mut into[..4_096]);
    let before = into.clone();
    assert!(into[4_096..].iter().all(|&byte| byte == 0xAA), "it wrote beyond its room");
    assert_eq!(inflater.inflate(bytes, &mut into[..4_096]), once);
    if let Unpacked::Whole(length) = once {
        assert!(before[..length] == into[..length], "the second time it is another message");
    }
    let mut framed = Vec::new();
    if deflater.deflate(Opcode::Binary, bytes, &mut framed) {
        framed[0] &= 0xBF;
        let head = decode_head(&framed).expect("well formed").expect("whole");
        assert!(head.bytes <= HEAD_BYTES_MAX && framed.len() - head.bytes < bytes.len());
        let mut back = vec![0; bytes.len() + 1];
        assert_eq!(inflater.inflate(&framed[head.bytes..], &mut back), Unpacked::Whole(bytes.len()));
        assert!(back[..bytes.len()] == *bytes);
    } else {
        assert!(framed.is_empty());
    }
}

fn heard(stream: &[u8], piece: usize, rules: &Rules, packing: bool) -> Heard {
    let mut reader = if packing { Reader::packing(WINDOW_BITS_MAX) } else { Reader::default() };
    let (mut held, mut turned, mut events) = (Vec::new(), 0, Vec::new());
    let mut packed = 0;
    for piece in stream.chunks(piece) {
        held.extend_from_slice(piece);
        let mut at = Passage { packed, packed_max: PACKED_MAX, ..Passage::at(turned) };
        loop {
            match reader.read(&mut held, &mut at, rules) {
                Ok(Event::NeedMore) => break,
                Ok(event) => {
                    let is_end = matches!(event, Event::Close(_));
                    if matches!(event, Event::Packed(_)) {
                        at.packed = 0;
                    }
                    events.push(event);
                    if is_end {
                        held.truncate(at.write);
                        return (events, held, None);
                    }
                }
                Err(violation) => {
                    held.truncate(at.write);
                    // Text is judged as it comes, so how much of it was handed on before depends on the pieces.
                    let plain = if violation == Violation::Utf8 { Vec::new() } else { held };
                    return (events, plain, Some(violation));
                }
            }
            assert!(at.packed <= PACKED_MAX && at.packed <= at.write);
            assert!(at.write <= at.read && at.read <= held.len());
        }
        held.drain(at.write..at.read);
        (turned, packed) = (at.write, at.packed);
    }
    held.truncate(turned);
    (events, held, None)
}
