//! Any bytes as a stream of WebSocket frames.

use kittiwake::base::transform::Passage;
use kittiwake::wire::websocket::{Event, Reader, Role, Rules, Violation};

/// Events, the plain bytes, and the violation that ended it.
type Heard = (Vec<Event>, Vec<u8>, Option<Violation>);

/// It says the same whole and in pieces; the first bytes decide how it is cut and what is taken.
pub fn stream(bytes: &[u8]) {
    let [cut, kinds, stream @ ..] = bytes else { return };
    let role = if kinds & 1 == 0 { Role::Server } else { Role::Client };
    let rules = Rules { role, text: kinds & 2 == 0, frame_bytes_max: 1 << 20, message_bytes_max: None };
    let whole = heard(stream, stream.len().max(1), &rules);
    assert_eq!(whole, heard(stream, usize::from(*cut).max(1), &rules));
}

fn heard(stream: &[u8], piece: usize, rules: &Rules) -> Heard {
    let (mut reader, mut held, mut plain, mut events) = (Reader::default(), Vec::new(), 0, Vec::new());
    for piece in stream.chunks(piece) {
        held.extend_from_slice(piece);
        let mut at = Passage { read: plain, write: plain };
        loop {
            match reader.read(&mut held, &mut at, rules) {
                Ok(Event::NeedMore) => break,
                Ok(event) => {
                    let is_end = matches!(event, Event::Close(_));
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
            assert!(at.write <= at.read && at.read <= held.len());
        }
        held.drain(at.write..at.read);
        plain = at.write;
    }
    held.truncate(plain);
    (events, held, None)
}
