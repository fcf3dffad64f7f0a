//! Connections, frame by frame. Names say which rule of RFC 9113 is meant.

use super::frame::{self, flag, kind};
use super::hpack::put_field;
use super::*;

const BOUNDS: Bounds = Bounds { streams: 4, head_bytes: 1_000, window_bytes: 100_000, resets: 3 };

/// An event, owned.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    Request(u32, String, bool),
    Data(u32, Vec<u8>, bool),
    Reset(u32),
    Room(Option<u32>),
}

/// A frame that the connection sent.
type Sent = (u8, u8, u32, Vec<u8>);

struct Peer {
    connection: Connection,
    seen: Vec<Seen>,
}

impl Peer {
    /// Before its first byte.
    fn silent() -> Self {
        let mut peer = Self { connection: Connection::new(BOUNDS), seen: Vec::new() };
        let first = peer.sent();
        assert_eq!((first[0].0, first[0].1, first[0].3.len()), (kind::SETTINGS, 0, 18));
        assert_eq!(first[1], (kind::WINDOW_UPDATE, 0, 0, 34_465_u32.to_be_bytes().to_vec()));
        peer
    }

    /// One that has said its settings.
    fn new() -> Self {
        let mut peer = Self::silent();
        peer.bytes(PREFACE);
        peer.frame(kind::SETTINGS, 0, 0, &[]);
        assert_eq!(peer.sent(), [(kind::SETTINGS, flag::ACK, 0, vec![])]);
        peer
    }

    fn bytes(&mut self, bytes: &[u8]) -> usize {
        let seen = &mut self.seen;
        self.connection.receive(bytes, &mut |event| {
            seen.push(match event {
                Event::Request { stream, head, ends } => Seen::Request(stream.0, head.path, ends),
                Event::Data { stream, bytes, ends } => Seen::Data(stream.0, bytes.to_vec(), ends),
                Event::Reset { stream } => Seen::Reset(stream.0),
                Event::Room { stream } => Seen::Room(stream.map(|stream| stream.0)),
            });
        })
    }

    fn frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let bytes = framed(kind, flags, stream, payload);
        assert_eq!(self.bytes(&bytes), bytes.len());
    }

    fn ask(&mut self, stream: u32, ends: bool) {
        let flags = flag::END_HEADERS | if ends { flag::END_STREAM } else { 0 };
        self.frame(kind::HEADERS, flags, stream, &block(&[]));
    }

    fn seen(&mut self) -> Vec<Seen> {
        core::mem::take(&mut self.seen)
    }

    fn sent(&mut self) -> Vec<Sent> {
        let mut rest = self.connection.unsent().to_vec();
        self.connection.sent(rest.len());
        let mut sent = Vec::new();
        while let Some(head) = rest.first_chunk() {
            let head = frame::Head::read(head);
            let payload = rest[frame::HEAD_BYTES..frame::HEAD_BYTES + head.length].to_vec();
            rest.drain(..frame::HEAD_BYTES + head.length);
            sent.push((head.kind, head.flags, head.stream.0, payload));
        }
        assert!(rest.is_empty(), "whole frames");
        sent
    }

    /// What the connection was ended with; none: it goes on.
    fn failure(&mut self) -> Option<u32> {
        let (kind, .., payload) = self.sent().pop()?;
        let code = payload.last_chunk().map(|code| u32::from_be_bytes(*code))?;
        let has_failed = kind == kind::GOAWAY && self.connection.is_over();
        has_failed.then_some(code)
    }

    fn send_all(&mut self, stream: u32, bytes: &[u8], ends: bool) -> usize {
        self.connection.send_data(StreamId(stream), bytes, ends)
    }
}

fn framed(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    frame::put(kind, flags, StreamId(stream), payload, &mut bytes);
    bytes
}

/// A request's fields, with these behind them.
fn block(more: &[(&str, &str)]) -> Vec<u8> {
    // :method POST, :scheme http
    let mut block = vec![0x83, 0x86];
    put_field(b":path", b"/p", &mut block);
    more.iter().for_each(|(name, value)| put_field(name.as_bytes(), value.as_bytes(), &mut block));
    block
}

fn reset(stream: u32, code: Code) -> Sent {
    (kind::RST_STREAM, 0, stream, (code as u32).to_be_bytes().to_vec())
}

fn settings(name: u16, value: u32) -> Vec<u8> {
    [&name.to_be_bytes()[..], &value.to_be_bytes()].concat()
}

#[test]
fn a_request_is_read_and_answered_however_its_bytes_are_cut() {
    let bytes = [
        PREFACE.to_vec(),
        framed(kind::SETTINGS, 0, 0, &settings(1, 0)),
        framed(
            kind::HEADERS,
            flag::PADDED | flag::PRIORITY,
            1,
            &[&[2, 0, 0, 0, 0, 9][..], &block(&[])[..2], &[0, 0]].concat(),
        ),
        framed(kind::CONTINUATION, 0, 1, &[]),
        framed(kind::CONTINUATION, flag::END_HEADERS, 1, &block(&[])[2..]),
        framed(kind::DATA, flag::PADDED, 1, &[1, b'a', b'b', 0]),
        framed(0x55, 0xff, 1, &[1, 2, 3]),
        framed(kind::PRIORITY, 0, 1, &[0; 5]),
        framed(kind::DATA, flag::END_STREAM, 1, b"c"),
        framed(kind::PING, 0, 0, b"01234567"),
    ]
    .concat();
    for size in 1..=bytes.len() {
        let mut peer = Peer::silent();
        let mut waiting = Vec::new();
        for piece in bytes.chunks(size) {
            waiting.extend_from_slice(piece);
            let used = peer.bytes(&waiting);
            waiting.drain(..used);
        }
        let request = Seen::Request(1, "/p".to_owned(), false);
        assert_eq!(peer.seen(), [request, Seen::Data(1, b"ab".to_vec(), false), Seen::Data(1, b"c".to_vec(), true)]);
        let acks = [(kind::SETTINGS, flag::ACK, 0, vec![]), (kind::PING, flag::ACK, 0, b"01234567".to_vec())];
        assert_eq!(peer.sent(), acks);
        peer.connection.send_fields(StreamId(1), Some(200), [(&b"a"[..], &b"b"[..])].into_iter(), false);
        assert_eq!(peer.send_all(1, b"hello", false), 5);
        peer.connection.send_fields(StreamId(1), None, [(&b"c"[..], &b"d"[..])].into_iter(), true);
        let answer = [
            (kind::HEADERS, flag::END_HEADERS, 1, b"\x20\x88\0\x01a\x01b".to_vec()),
            (kind::DATA, 0, 1, b"hello".to_vec()),
            (kind::HEADERS, flag::END_HEADERS | flag::END_STREAM, 1, b"\0\x01c\x01d".to_vec()),
        ];
        assert_eq!(peer.sent(), answer);
        assert_eq!((peer.connection.streams(), peer.connection.is_over()), (0, false));
    }
}

#[test]
fn what_breaks_a_rule_of_the_connection_ends_it_with_its_code() {
    let open = |peer: &mut Peer| peer.ask(1, false);
    let whole = |peer: &mut Peer| peer.ask(1, true);
    let answered = |peer: &mut Peer| {
        peer.ask(1, true);
        peer.connection.send_fields(StreamId(1), Some(200), core::iter::empty(), true);
    };
    let half_a_head = |peer: &mut Peer| peer.frame(kind::HEADERS, 0, 1, &block(&[]));
    let nothing = |_: &mut Peer| {};
    type Before<'a> = &'a dyn Fn(&mut Peer);
    type Case<'a> = (&'a str, Before<'a>, u8, u8, u32, &'a [u8], Code);
    let cases: &[Case<'_>] = &[
        ("5.1 DATA on an idle stream", &nothing, kind::DATA, 0, 1, b"", Code::ProtocolError),
        ("5.1 RST_STREAM of an idle stream", &nothing, kind::RST_STREAM, 0, 1, &[0; 4], Code::ProtocolError),
        (
            "5.1 WINDOW_UPDATE of an idle stream",
            &nothing,
            kind::WINDOW_UPDATE,
            0,
            1,
            &[0, 0, 0, 1],
            Code::ProtocolError,
        ),
        ("5.1 DATA behind the end", &whole, kind::DATA, 0, 1, b"", Code::StreamClosed),
        ("5.1 HEADERS behind the end", &whole, kind::HEADERS, 5, 1, &block(&[]), Code::StreamClosed),
        ("5.1 DATA on a closed stream", &answered, kind::DATA, 0, 1, b"", Code::StreamClosed),
        ("5.1 HEADERS on a closed stream", &answered, kind::HEADERS, 5, 1, &block(&[]), Code::StreamClosed),
        ("5.1.1 an even stream", &nothing, kind::HEADERS, 5, 2, &block(&[]), Code::ProtocolError),
        ("5.1.1 DATA on an even stream", &open, kind::DATA, 0, 2, b"", Code::ProtocolError),
        ("4.3 fields that cannot be unpacked", &nothing, kind::HEADERS, 5, 1, &[0xff], Code::CompressionError),
        ("6.1 DATA on the connection", &open, kind::DATA, 0, 0, b"", Code::ProtocolError),
        ("6.1 more padding than payload", &open, kind::DATA, flag::PADDED, 1, &[1], Code::ProtocolError),
        ("6.2 HEADERS on the connection", &nothing, kind::HEADERS, 5, 0, &block(&[]), Code::ProtocolError),
        ("6.2 HEADERS too short for their priority", &nothing, kind::HEADERS, 0x25, 1, &[0; 4], Code::FrameSizeError),
        ("6.2 HEADERS within another's fields", &half_a_head, kind::HEADERS, 5, 3, &block(&[]), Code::ProtocolError),
        ("6.2 PING within fields", &half_a_head, kind::PING, 0, 0, &[0; 8], Code::ProtocolError),
        ("6.2 an unknown frame within fields", &half_a_head, 0x77, 0, 1, &[], Code::ProtocolError),
        ("6.3 PRIORITY on the connection", &nothing, kind::PRIORITY, 0, 0, &[0; 5], Code::ProtocolError),
        ("6.4 RST_STREAM on the connection", &nothing, kind::RST_STREAM, 0, 0, &[0; 4], Code::ProtocolError),
        ("6.4 RST_STREAM of another length", &open, kind::RST_STREAM, 0, 1, &[0; 3], Code::FrameSizeError),
        ("6.5 SETTINGS on a stream", &open, kind::SETTINGS, 0, 1, &[], Code::ProtocolError),
        ("6.5 SETTINGS of another length", &nothing, kind::SETTINGS, 0, 0, &[0; 5], Code::FrameSizeError),
        ("6.5 an acknowledgement that says something", &nothing, kind::SETTINGS, 1, 0, &[0; 6], Code::FrameSizeError),
        ("6.5.2 ENABLE_PUSH of 2", &nothing, kind::SETTINGS, 0, 0, &settings(2, 2), Code::ProtocolError),
        ("6.5.2 a window of 2^31", &nothing, kind::SETTINGS, 0, 0, &settings(4, 1 << 31), Code::FlowControlError),
        ("6.5.2 frames too short", &nothing, kind::SETTINGS, 0, 0, &settings(5, 16_383), Code::ProtocolError),
        ("6.5.2 frames too long", &nothing, kind::SETTINGS, 0, 0, &settings(5, 1 << 24), Code::ProtocolError),
        ("6.6 PUSH_PROMISE by a client", &open, kind::PUSH_PROMISE, 4, 1, &[0, 0, 0, 2], Code::ProtocolError),
        ("6.7 PING on a stream", &open, kind::PING, 0, 1, &[0; 8], Code::ProtocolError),
        ("6.7 PING of another length", &nothing, kind::PING, 0, 0, &[0; 6], Code::FrameSizeError),
        ("6.8 GOAWAY on a stream", &open, kind::GOAWAY, 0, 1, &[0; 8], Code::ProtocolError),
        ("6.8 GOAWAY too short", &nothing, kind::GOAWAY, 0, 0, &[0; 7], Code::FrameSizeError),
        ("6.9 WINDOW_UPDATE of nothing", &nothing, kind::WINDOW_UPDATE, 0, 0, &[0; 4], Code::ProtocolError),
        ("6.9 WINDOW_UPDATE of another length", &nothing, kind::WINDOW_UPDATE, 0, 0, &[0; 3], Code::FrameSizeError),
        (
            "6.9.1 a window wider than any",
            &nothing,
            kind::WINDOW_UPDATE,
            0,
            0,
            &[0x7f, 0xff, 0xff, 0xff],
            Code::FlowControlError,
        ),
        ("6.10 CONTINUATION of nothing", &open, kind::CONTINUATION, 4, 1, &[], Code::ProtocolError),
        ("6.10 CONTINUATION of another stream", &half_a_head, kind::CONTINUATION, 4, 3, &[], Code::ProtocolError),
    ];
    for (name, before, kind, flags, stream, payload, code) in cases {
        let mut peer = Peer::new();
        before(&mut peer);
        peer.frame(*kind, *flags, *stream, payload);
        assert_eq!(peer.failure(), Some(*code as u32), "{name}");
        let ping = framed(frame::kind::PING, 0, 0, &[0; 8]);
        assert_eq!((peer.bytes(&ping), peer.sent()), (0, vec![]), "{name}: nothing more is read");
    }
}

#[test]
fn section_3_4_a_connection_begins_with_the_preface_and_settings() {
    for first in [&b"GET / HTTP/1.1\r\n"[..], b"PRI * HTTP/2.0\r\n\r\nXX"] {
        let mut peer = Peer::silent();
        peer.bytes(first);
        assert_eq!(peer.failure(), Some(Code::ProtocolError as u32));
    }
    for (kind, flags) in [(kind::PING, 0), (kind::SETTINGS, flag::ACK), (0x77, 0)] {
        let mut peer = Peer::silent();
        peer.bytes(PREFACE);
        peer.frame(kind, flags, 0, &[0; 8][..if kind == kind::PING { 8 } else { 0 }]);
        assert_eq!(peer.failure(), Some(Code::ProtocolError as u32), "{kind}");
    }
}

#[test]
fn section_4_2_a_frame_that_is_too_long_is_refused_by_its_head() {
    let mut peer = Peer::new();
    peer.bytes(&[0, 0x40, 1, kind::DATA, 0, 0, 0, 0, 1]);
    assert_eq!(peer.failure(), Some(Code::FrameSizeError as u32));
}

#[test]
fn what_breaks_a_rule_of_a_stream_ends_that_stream_alone() {
    let fields = |more: &[(&str, &str)]| (kind::HEADERS, flag::END_HEADERS, block(more));
    let length = |length: &'static str| fields(&[("content-length", length)]);
    let short_data = (kind::DATA, flag::END_STREAM, b"abc".to_vec());
    type Frame = (u8, u8, Vec<u8>);
    let cases: Vec<(&str, Vec<Frame>, bool, Code)> = vec![
        ("8.1.1 a body shorter than was said", vec![length("4"), short_data.clone()], true, Code::ProtocolError),
        ("8.1.1 a body longer than was said", vec![length("2"), short_data], true, Code::ProtocolError),
        (
            "8.1.1 no body where one was said",
            vec![(kind::HEADERS, 5, block(&[("content-length", "1")]))],
            false,
            Code::ProtocolError,
        ),
        ("8.1 fields within a body", vec![fields(&[]), (kind::HEADERS, 4, vec![])], true, Code::ProtocolError),
        (
            "8.1 a pseudo-header behind a body",
            vec![fields(&[]), (kind::HEADERS, 5, block(&[]))],
            true,
            Code::ProtocolError,
        ),
        ("8.2 a name in upper case", vec![fields(&[("A", "b")])], false, Code::ProtocolError),
        ("8.3 no method", vec![(kind::HEADERS, 5, block(&[])[1..].to_vec())], false, Code::ProtocolError),
        (
            "6.3 PRIORITY of another length",
            vec![fields(&[]), (kind::PRIORITY, 0, vec![0; 4])],
            true,
            Code::FrameSizeError,
        ),
        (
            "6.9 WINDOW_UPDATE of nothing",
            vec![fields(&[]), (kind::WINDOW_UPDATE, 0, vec![0; 4])],
            true,
            Code::ProtocolError,
        ),
        (
            "6.9.1 a window wider than any",
            vec![fields(&[]), (kind::WINDOW_UPDATE, 0, vec![0x7f, 0xff, 0xff, 0xff])],
            true,
            Code::FlowControlError,
        ),
    ];
    for (name, frames, was_begun, code) in cases {
        let mut peer = Peer::new();
        for (kind, flags, payload) in frames {
            peer.frame(kind, flags, 1, &payload);
        }
        assert_eq!(peer.sent(), [reset(1, code)], "{name}");
        let seen = peer.seen();
        assert_eq!((seen.last() == Some(&Seen::Reset(1)), seen.is_empty()), (was_begun, !was_begun), "{name}");
        peer.ask(3, true);
        assert_eq!(peer.seen(), [Seen::Request(3, "/p".to_owned(), true)], "{name}: others go on");
    }
}

#[test]
fn section_5_1_2_streams_beyond_the_bound_are_refused_and_may_come_again() {
    let mut peer = Peer::new();
    (0..5).for_each(|call| peer.ask(2 * call + 1, false));
    assert_eq!(peer.sent(), [reset(9, Code::RefusedStream)]);
    assert_eq!((peer.seen().len(), peer.connection.streams()), (4, 4));
    peer.frame(kind::DATA, flag::END_STREAM, 9, b"on its way");
    assert_eq!((peer.seen(), peer.sent()), (vec![], vec![]));
    peer.connection.send_fields(StreamId(1), Some(200), core::iter::empty(), true);
    peer.ask(11, true);
    assert_eq!(peer.seen(), [Seen::Request(11, "/p".to_owned(), true)]);
}

#[test]
fn section_5_2_a_peer_sends_no_more_than_the_windows_hold_and_gets_back_what_was_used() {
    let mut peer = Peer::new();
    (0..2).for_each(|call| peer.ask(2 * call + 1, false));
    for _ in 0..5 {
        peer.frame(kind::DATA, 0, 1, &[7; 10_000]);
    }
    assert_eq!(peer.sent(), []);
    peer.connection.release(StreamId(1), 49_999);
    assert_eq!(peer.sent(), []);
    peer.connection.release(StreamId(1), 1);
    let opened = |stream, bytes: u32| (kind::WINDOW_UPDATE, 0, stream, bytes.to_be_bytes().to_vec());
    assert_eq!(peer.sent(), [opened(1, 50_000), opened(0, 50_000)]);
    for _ in 0..10 {
        peer.frame(kind::DATA, 0, 3, &[7; 10_000]);
    }
    peer.seen();
    peer.frame(kind::DATA, 0, 3, b"1");
    assert_eq!(peer.failure(), Some(Code::FlowControlError as u32), "the connection's window");
}

#[test]
fn section_5_2_padding_is_counted_and_given_back_and_so_is_what_nobody_reads() {
    let mut peer = Peer::new();
    peer.ask(1, false);
    let padded = [&[200][..], &[0; 200]].concat();
    for _ in 0..1_000 {
        peer.frame(kind::DATA, flag::PADDED, 1, &padded);
    }
    assert!(!peer.connection.is_over());
    let mut given = [0, 0];
    for (kind, _, stream, payload) in peer.sent() {
        assert_eq!(kind, kind::WINDOW_UPDATE);
        given[stream as usize] += u32::from_be_bytes(payload.try_into().expect("four"));
    }
    assert!(given.iter().all(|&given| (100_000..=201_000).contains(&given)), "{given:?}");
    // A stream that ends leaves nothing of the connection's window behind.
    for stream in 0..30 {
        peer.ask(2 * stream + 3, false);
        peer.frame(kind::DATA, 0, 2 * stream + 3, &[7; 9_000]);
        peer.connection.send_fields(StreamId(2 * stream + 3), Some(200), core::iter::empty(), true);
        peer.frame(kind::DATA, flag::END_STREAM, 2 * stream + 3, &[7; 9_000]);
    }
    assert!(!peer.connection.is_over());
}

#[test]
fn section_6_9_we_send_no_more_than_the_windows_hold() {
    let mut peer = Peer::new();
    peer.frame(kind::SETTINGS, 0, 0, &settings(4, 10));
    peer.ask(1, true);
    peer.sent();
    assert_eq!(peer.send_all(1, &[7; 30], true), 10);
    assert_eq!(peer.sent(), [(kind::DATA, 0, 1, vec![7; 10])]);
    assert_eq!(peer.send_all(1, &[7; 20], true), 0);
    assert_eq!(peer.sent(), []);
    peer.frame(kind::WINDOW_UPDATE, 0, 1, &5_u32.to_be_bytes());
    assert_eq!(peer.send_all(1, &[7; 20], true), 5);
    // Smaller for all, by more than is left: it owes, and what opens it pays that first.
    peer.frame(kind::SETTINGS, 0, 0, &settings(4, 4));
    peer.frame(kind::WINDOW_UPDATE, 0, 1, &6_u32.to_be_bytes());
    assert_eq!(peer.send_all(1, &[7; 15], true), 0);
    peer.frame(kind::SETTINGS, 0, 0, &settings(4, 1_000_000));
    assert_eq!(peer.seen().last(), Some(&Seen::Room(None)));
    peer.sent();
    assert_eq!(peer.send_all(1, &[7; 15], true), 15);
    assert_eq!(peer.sent(), [(kind::DATA, flag::END_STREAM, 1, vec![7; 15])]);
    // The connection's own.
    peer.ask(3, true);
    assert_eq!(peer.send_all(3, &[7; 100_000], true), 65_535 - 30);
    let frames = peer.sent();
    assert!(frames.iter().all(|frame| frame.3.len() <= 16_384 && frame.1 == 0) && frames.len() == 4);
    peer.frame(kind::WINDOW_UPDATE, 0, 0, &40_000_u32.to_be_bytes());
    assert_eq!(peer.send_all(3, &[7; 34_495], true), 34_495);
    assert_eq!(peer.sent().last().map(|frame| frame.1), Some(flag::END_STREAM));
}

#[test]
fn section_8_1_who_is_answered_before_its_end_is_told_to_leave_off() {
    let mut peer = Peer::new();
    peer.ask(1, false);
    peer.connection.send_fields(StreamId(1), Some(403), core::iter::empty(), true);
    assert_eq!(peer.sent().last(), Some(&reset(1, Code::NoError)));
    peer.frame(kind::DATA, 0, 1, b"on its way");
    peer.frame(kind::HEADERS, flag::END_HEADERS | flag::END_STREAM, 1, &[0x82]);
    assert_eq!((peer.failure(), peer.seen().len()), (None, 1));
    peer.frame(kind::DATA, 0, 1, b"behind its end");
    assert_eq!(peer.failure(), Some(Code::StreamClosed as u32));
}

#[test]
fn who_opens_streams_and_gives_them_up_without_end_is_sent_away() {
    let mut peer = Peer::new();
    for stream in 0..20 {
        peer.ask(4 * stream + 1, false);
        peer.connection.send_fields(StreamId(4 * stream + 1), Some(200), core::iter::empty(), true);
        peer.ask(4 * stream + 3, false);
        peer.frame(kind::RST_STREAM, 0, 4 * stream + 3, &[0, 0, 0, 8]);
    }
    assert_eq!(peer.failure(), None, "as many were answered");
    assert_eq!(peer.seen().last(), Some(&Seen::Reset(79)));
    peer.connection.forgive();
    for stream in 0..4 {
        peer.ask(2 * stream + 101, false);
        peer.frame(kind::RST_STREAM, 0, 2 * stream + 101, &[0, 0, 0, 8]);
    }
    assert_eq!(peer.failure(), Some(Code::EnhanceYourCalm as u32));
}

#[test]
fn who_opens_streams_and_breaks_a_rule_with_each_is_sent_away_too() {
    let mut peer = Peer::new();
    for stream in 0..3 {
        peer.ask(2 * stream + 1, false);
        peer.frame(kind::WINDOW_UPDATE, 0, 2 * stream + 1, &[0; 4]);
    }
    assert_eq!(peer.failure(), None);
    peer.ask(7, false);
    peer.frame(kind::WINDOW_UPDATE, 0, 7, &[0; 4]);
    assert_eq!((peer.failure(), peer.seen().last()), (Some(Code::EnhanceYourCalm as u32), Some(&Seen::Reset(7))));
}

/// RFC 7541 §4.2.
#[test]
fn a_peer_that_changes_its_table_hears_that_ours_is_empty() {
    let mut peer = Peer::new();
    peer.frame(kind::SETTINGS, 0, 0, &settings(1, 0));
    for (stream, block) in [(1, vec![0x20, 0x88]), (3, vec![0x88])] {
        peer.ask(stream, true);
        peer.connection.send_fields(StreamId(stream), Some(200), core::iter::empty(), true);
        assert_eq!(peer.sent().last().map(|frame| frame.3.clone()), Some(block));
    }
}

#[test]
fn windows_that_are_set_a_thousand_times_in_a_frame_are_set_once() {
    let mut peer = Peer::new();
    peer.ask(1, true);
    peer.seen();
    let many: Vec<u8> = (0..1_000).flat_map(|bytes| settings(4, bytes)).collect();
    peer.frame(kind::SETTINGS, 0, 0, &many);
    assert_eq!(peer.seen(), [Seen::Room(None)]);
    assert_eq!(peer.send_all(1, &[7; 2_000], true), 999);
}

#[test]
fn a_head_has_a_bound_and_so_have_its_frames() {
    let mut peer = Peer::new();
    let long = "x".repeat(1_500);
    peer.frame(kind::HEADERS, flag::END_HEADERS | flag::END_STREAM, 1, &block(&[("x", &long)]));
    assert_eq!((peer.seen().len(), peer.failure()), (1, None), "whoever answers says that it is too long");
    let mut peer = Peer::new();
    peer.frame(kind::HEADERS, 0, 1, &block(&[("x", &long)]));
    peer.frame(kind::CONTINUATION, 0, 1, &[0; 600]);
    assert_eq!(peer.failure(), Some(Code::EnhanceYourCalm as u32));
    let mut peer = Peer::new();
    peer.frame(kind::HEADERS, 0, 1, &[]);
    (0..31).for_each(|_| peer.frame(kind::CONTINUATION, 0, 1, &[]));
    assert_eq!(peer.failure(), None);
    peer.frame(kind::CONTINUATION, 0, 1, &[]);
    assert_eq!(peer.failure(), Some(Code::EnhanceYourCalm as u32));
}

#[test]
fn section_6_8_who_leaves_answers_what_was_begun_and_refuses_the_rest() {
    let goaway =
        |last: u32, code: Code| (kind::GOAWAY, 0, 0, [last.to_be_bytes(), (code as u32).to_be_bytes()].concat());
    let mut peer = Peer::new();
    peer.ask(1, false);
    peer.connection.leave();
    peer.connection.leave();
    assert_eq!(peer.sent(), [goaway(1, Code::NoError)]);
    peer.ask(3, false);
    assert_eq!(peer.sent(), [reset(3, Code::RefusedStream)]);
    peer.frame(kind::DATA, flag::END_STREAM, 3, b"on its way");
    peer.frame(kind::DATA, flag::END_STREAM, 1, b"the last");
    assert_eq!(peer.seen().last(), Some(&Seen::Data(1, b"the last".to_vec(), true)));
    assert!(!peer.connection.is_over());
    peer.connection.send_fields(StreamId(1), Some(200), core::iter::empty(), true);
    assert!(peer.connection.is_over());
    // The peer's own says that it opens no more.
    let mut peer = Peer::new();
    peer.frame(kind::GOAWAY, 0, 0, &[&[0; 8][..], b"bye"].concat());
    assert!(peer.connection.is_over());
    // A fault behind it does not promise more than was promised.
    let mut peer = Peer::new();
    peer.connection.leave();
    peer.ask(1, true);
    peer.frame(kind::PING, 0, 0, &[]);
    assert_eq!(peer.sent().last(), Some(&goaway(0, Code::FrameSizeError)));
}

#[test]
fn a_stream_that_is_no_more_is_asked_for_nothing() {
    let mut peer = Peer::new();
    peer.ask(1, false);
    peer.frame(kind::DATA, 0, 1, b"abc");
    peer.frame(kind::RST_STREAM, 0, 1, &[0; 4]);
    peer.sent();
    assert_eq!(peer.send_all(1, b"goes nowhere", true), 12);
    peer.connection.send_fields(StreamId(1), Some(200), core::iter::empty(), true);
    peer.connection.release(StreamId(1), 3);
    peer.connection.reset(StreamId(1), Code::Cancel);
    assert_eq!(peer.sent(), []);
}

#[test]
fn long_fields_are_cut_into_frames() {
    let mut peer = Peer::new();
    peer.ask(1, true);
    let long = vec![b'x'; 40_000];
    peer.connection.send_fields(StreamId(1), Some(200), [(&b"a"[..], &long[..])].into_iter(), true);
    let sent: Vec<_> = peer.sent().into_iter().map(|(kind, flags, _, payload)| (kind, flags, payload.len())).collect();
    let rest = 1 + 3 + 4 + 40_000 - 2 * 16_384;
    let expected = [
        (kind::HEADERS, flag::END_STREAM, 16_384),
        (kind::CONTINUATION, 0, 16_384),
        (kind::CONTINUATION, flag::END_HEADERS, rest),
    ];
    assert_eq!(sent, expected);
}
