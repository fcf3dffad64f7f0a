//! Any frames of an HTTP/2 client, and any bytes in their place.

use kittiwake::wire::http2::{Bounds, Code, Connection, Event, PREFACE, StreamId};

const BOUNDS: Bounds = Bounds { streams: 3, head_bytes: 500, window_bytes: 70_000, resets: 5 };
/// What each request is answered with.
const ANSWER: [u8; 700] = [b'x'; 700];

/// What came of some bytes.
#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    /// Of each event its kind, its stream and a length.
    events: Vec<(u8, u32, usize, bool)>,
    is_over: bool,
    streams: usize,
    sent: Vec<u8>,
}

/// The same comes of frames whole and in pieces; what is sent are whole frames; no more is sent than was allowed.
pub fn frames(bytes: &[u8]) {
    let bytes = [PREFACE, &[0, 0, 0, 4, 0, 0, 0, 0, 0], bytes].concat();
    let whole = outcome(&bytes, bytes.len());
    for size in [1, 7, 10] {
        assert_eq!(outcome(&bytes, size), whole, "pieces of {size}");
    }
    assert!(whole.streams <= BOUNDS.streams as usize);
    let mut rest = &whole.sent[..];
    while let Some((&[a, b, c, ..], after)) = rest.split_first_chunk::<9>() {
        let length = u32::from_be_bytes([0, a, b, c]) as usize;
        assert!(length <= 16_384);
        rest = after.get(length..).expect("a whole frame");
    }
    assert!(rest.is_empty(), "whole frames");
}

/// Each request is answered as far as its windows allow when it is whole; every third is given up, every other one reads its
/// body.
fn outcome(bytes: &[u8], size: usize) -> Outcome {
    let mut connection = Connection::new(BOUNDS);
    let (mut events, mut held, mut sent, mut outstanding) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for piece in bytes.chunks(size) {
        held.extend_from_slice(piece);
        // A frame at a time, so that what we do in between does not depend on the pieces.
        loop {
            let end = next_end(&held, events.is_empty() && sent.is_empty());
            let Some(end) = end.filter(|&end| end <= held.len()) else { break };
            let mut came = Vec::new();
            let used = connection.receive(&held[..end], &mut |event| {
                came.push(match event {
                    Event::Request { stream, head, ends } => (0, stream.0, head.fields.len(), ends),
                    Event::Data { stream, bytes, ends } => (1, stream.0, bytes.len(), ends),
                    Event::Reset { stream } => (2, stream.0, 0, false),
                    Event::Room { stream } => (3, stream.map_or(0, |stream| stream.0), 0, false),
                });
            });
            held.drain(..end.max(used));
            for &(kind, stream, length, ends) in &came {
                let id = StreamId(stream);
                match kind {
                    0 | 1 if ends && stream % 3 == 0 => connection.reset(id, Code::Cancel),
                    0 | 1 if ends => {
                        connection.send_fields(id, Some(200), [(&b"a"[..], &b"b"[..])].into_iter(), false);
                        outstanding.push((id, connection.send_data(id, &ANSWER, true)));
                    }
                    1 if stream % 2 == 1 => connection.release(id, length),
                    3 => {
                        for (id, done) in &mut outstanding {
                            if *done < ANSWER.len() {
                                *done += connection.send_data(*id, &ANSWER[*done..], true);
                            }
                        }
                    }
                    _ => {}
                }
            }
            events.extend(came);
            sent.extend_from_slice(connection.unsent());
            connection.sent(connection.unsent().len());
        }
    }
    Outcome { events, is_over: connection.is_over(), streams: connection.streams(), sent }
}

/// Where the frame ends that begins here; at first, with the preface before it.
fn next_end(held: &[u8], is_first: bool) -> Option<usize> {
    let start = if is_first { PREFACE.len() } else { 0 };
    let head = held.get(start..)?.first_chunk::<9>()?;
    Some(start + 9 + u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize)
}
