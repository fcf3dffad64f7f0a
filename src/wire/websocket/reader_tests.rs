use super::super::frame::{HEAD_BYTES_MAX, encode_head};
use super::*;
use proptest::prelude::*;

const RULES: Rules = Rules { role: Role::Server, text: true, frame_bytes_max: 1 << 20, message_bytes_max: None };

/// A frame as a client sends it.
fn frame(fin: bool, opcode: Opcode, payload: &[u8]) -> Vec<u8> {
    let key = [0x12, 0x34, 0x56, 0x78];
    let mut head = [0; HEAD_BYTES_MAX];
    let bytes = encode_head(fin, opcode, Some(key), payload.len() as u64, &mut head);
    let mut frame = [&head[..bytes], payload].concat();
    apply_mask(&mut frame[bytes..], key);
    frame
}

/// What a stream says: events in order, with the payload before each message's end.
fn heard_but(stream: &[u8], pieces: &[usize], quiet: bool) -> Vec<Result<(Event, Vec<u8>), Violation>> {
    let (mut reader, mut held, mut heard) = (Reader::default(), Vec::new(), Vec::new());
    let (mut rest, mut plain) = (stream, 0);
    for &piece in pieces.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let (now, later) = rest.split_at(piece.min(rest.len()));
        held.extend_from_slice(now);
        rest = later;
        let mut at = Passage::at(plain);
        loop {
            match reader.read(&mut held, &mut at, &RULES) {
                Ok(Event::NeedMore) => break,
                Ok(event @ Event::Message(_)) => {
                    let message = held[..at.write].to_vec();
                    at.write = 0;
                    heard.push(Ok((event, message)));
                }
                Ok(Event::Pong(_)) if quiet => {}
                Ok(event @ Event::Close(_)) => {
                    heard.push(Ok((event, Vec::new())));
                    return heard;
                }
                Ok(event) => heard.push(Ok((event, Vec::new()))),
                Err(violation) => {
                    heard.push(Err(violation));
                    return heard;
                }
            }
        }
        held.drain(at.write..at.read);
        plain = at.write;
    }
    heard
}

fn heard(stream: &[u8], pieces: &[usize]) -> Vec<Result<(Event, Vec<u8>), Violation>> {
    heard_but(stream, pieces, false)
}

fn said(stream: &[u8]) -> Vec<Result<(Event, Vec<u8>), Violation>> {
    let whole = heard(stream, &[stream.len().max(1)]);
    assert_eq!(whole, heard(stream, &[1]), "a byte at a time says the same");
    whole
}

fn message(kind: Kind, bytes: &[u8]) -> Result<(Event, Vec<u8>), Violation> {
    Ok((Event::Message(kind), bytes.to_vec()))
}

fn violation(frames: &[Vec<u8>]) -> Violation {
    said(&frames.concat()).pop().expect("something is said").expect_err("it is a violation")
}

#[test]
fn rfc6455_5_4_control_frames_come_between_the_fragments_of_a_message() {
    let stream = [
        frame(false, Opcode::Text, b"Hel"),
        frame(true, Opcode::Ping, b"are you there"),
        frame(false, Opcode::Continuation, b""),
        frame(true, Opcode::Pong, b"unasked"),
        frame(true, Opcode::Continuation, b"lo"),
        frame(true, Opcode::Binary, b""),
    ];
    let said = said(&stream.concat());
    let [Ok((Event::Ping(ping), _)), Ok((Event::Pong(pong), _)), messages @ ..] = &said[..] else { panic!("{said:?}") };
    assert_eq!((ping.bytes(), pong.bytes()), (&b"are you there"[..], &b"unasked"[..]));
    assert_eq!(messages, [message(Kind::Text, b"Hello"), message(Kind::Binary, b"")]);
}

#[test]
fn rfc6455_5_4_fragments_that_fit_no_message_are_violations() {
    assert_eq!(violation(&[frame(true, Opcode::Continuation, b"x")]), Violation::Continuation);
    let inside = [frame(false, Opcode::Text, b"x"), frame(true, Opcode::Binary, b"y")];
    assert_eq!(violation(&inside), Violation::Interleaved);
    let after = [frame(true, Opcode::Text, b"x"), frame(false, Opcode::Continuation, b"y")];
    assert_eq!(violation(&after), Violation::Continuation);
}

#[test]
fn rfc6455_5_1_a_client_masks_and_a_server_does_not() {
    assert_eq!(violation(&[vec![0x82, 1, b'x']]), Violation::Masking);
    let rules = Rules { role: Role::Client, ..RULES };
    let mut bytes = vec![0x82, 1, b'x'];
    let read = Reader::default().read(&mut bytes, &mut Passage::default(), &rules);
    assert_eq!(read, Ok(Event::Message(Kind::Binary)));
    let mut masked = frame(true, Opcode::Binary, b"x");
    let read = Reader::default().read(&mut masked, &mut Passage::default(), &rules);
    assert_eq!(read, Err(Violation::Masking));
}

#[test]
fn the_first_violation_is_told_however_many_bytes_are_there() {
    let too_long = [0xFF; 8];
    let unmasked = [&[0x82, 127][..], &too_long].concat();
    let inside = [&frame(false, Opcode::Text, b"x"), &[0x82, 0xFF][..], &too_long].concat();
    let not_minimal = [0x82, 126, 0, 1];
    for (stream, first) in
        [(&unmasked[..], Violation::Masking), (&inside, Violation::Interleaved), (&not_minimal, Violation::Masking)]
    {
        assert_eq!(violation(&[stream.to_vec()]), first);
    }
}

#[test]
fn rfc6455_8_1_text_is_wrong_at_its_first_wrong_byte() {
    assert_eq!(violation(&[frame(false, Opcode::Text, b"\xCE\xBA\xED\xA0\x80")]), Violation::Utf8);
    assert_eq!(violation(&[frame(true, Opcode::Text, b"\xC3")]), Violation::Utf8, "half a character at its end");
    let split = [frame(false, Opcode::Text, b"\xC3"), frame(true, Opcode::Continuation, b"\xA9")];
    assert_eq!(said(&split.concat()), [message(Kind::Text, "é".as_bytes())]);
    assert_eq!(said(&frame(true, Opcode::Binary, b"\xFF")), [message(Kind::Binary, b"\xFF")]);
}

#[test]
fn rfc6455_5_5_1_a_close_frame_has_no_code_or_one_that_may_be_sent() {
    let close = |payload: &[u8]| frame(true, Opcode::Close, payload);
    assert_eq!(said(&close(b"")), [Ok((Event::Close(None), Vec::new()))]);
    let good = close(b"\x0F\xA0bye");
    assert_eq!(said(&good), [Ok((Event::Close(Some(CloseCode(4000))), Vec::new()))]);
    assert_eq!(violation(&[close(b"\x03")]), Violation::CloseCode);
    assert_eq!(violation(&[close(b"\x03\xED")]), Violation::CloseCode);
    assert_eq!(violation(&[close(b"\x03\xE8\xFF")]), Violation::Utf8);
    assert_eq!(said(&[close(b""), frame(true, Opcode::Ping, b"")].concat()).len(), 1, "nothing is read after it");
}

#[test]
fn frames_are_bounded_at_n_and_refused_at_n_plus_one() {
    let rules = Rules { frame_bytes_max: 10, ..RULES };
    let read = |payload: &[u8]| {
        Reader::default().read(&mut frame(true, Opcode::Binary, payload), &mut Passage::default(), &rules)
    };
    assert_eq!(read(&[7; 10]), Ok(Event::Message(Kind::Binary)));
    assert_eq!(read(&[7; 11]), Err(Violation::TooBig));
    assert_eq!(Violation::TooBig.code(), CloseCode::TOO_BIG);
}

#[test]
fn messages_are_bounded_over_all_their_fragments_also_when_they_come_at_once() {
    for (last, read) in [(4, Ok(Event::Message(Kind::Binary))), (5, Err(Violation::TooBig))] {
        let rules = Rules { message_bytes_max: Some(10), ..RULES };
        let fragments = [
            frame(false, Opcode::Binary, &[7; 6]),
            frame(true, Opcode::Pong, &[7; 20]),
            frame(true, Opcode::Continuation, &vec![7; last]),
        ];
        let (mut bytes, mut reader, mut at) = (fragments.concat(), Reader::default(), Passage::default());
        assert!(matches!(reader.read(&mut bytes, &mut at, &rules), Ok(Event::Pong(_))));
        assert_eq!(reader.read(&mut bytes, &mut at, &rules), read);
    }
}

#[test]
fn text_is_refused_before_its_head_is_whole_where_it_is_not_taken() {
    let rules = Rules { text: false, ..RULES };
    let mut bytes = [0x81];
    let read = Reader::default().read(&mut bytes, &mut Passage::default(), &rules);
    assert_eq!((read, Violation::Text.code()), (Err(Violation::Text), CloseCode::UNSUPPORTED));
}

proptest! {
    #[test]
    fn messages_come_out_as_they_went_in_however_they_were_cut(
        messages in proptest::collection::vec(
            (any::<bool>(), proptest::collection::vec("[a-zé→]{0,40}", 1..4), any::<bool>()), 1..5,
        ),
        pieces in proptest::collection::vec(1usize..40, 1..8),
    ) {
        let (mut stream, mut expected) = (Vec::new(), Vec::new());
        for (is_text, fragments, pinged) in &messages {
            let (opcode, kind) = if *is_text { (Opcode::Text, Kind::Text) } else { (Opcode::Binary, Kind::Binary) };
            for (at, fragment) in fragments.iter().enumerate() {
                let opcode = if at == 0 { opcode } else { Opcode::Continuation };
                stream.extend(frame(at + 1 == fragments.len(), opcode, fragment.as_bytes()));
                if *pinged {
                    stream.extend(frame(true, Opcode::Pong, fragment.as_bytes().get(..9).unwrap_or_default()));
                }
            }
            expected.push(message(kind, fragments.concat().as_bytes()));
        }
        prop_assert_eq!(heard_but(&stream, &pieces, true), expected);
    }

    #[test]
    fn any_bytes_say_the_same_whole_and_in_pieces(
        mut bytes in proptest::collection::vec(any::<u8>(), 0..200),
        pieces in proptest::collection::vec(1usize..9, 1..8),
        tame in any::<bool>(),
    ) {
        if let (true, [first, second, ..]) = (tame, &mut bytes[..]) {
            *first = 0x80 | *first & 3;
            *second |= 0x80;
        }
        prop_assert_eq!(heard(&bytes, &[bytes.len().max(1)]), heard(&bytes, &pieces));
    }
}

/// What a stream says where messages may be packed: events with the bytes before each, packed or not.
fn heard_packing(stream: &[u8], piece: usize, packed_max: usize) -> (Vec<(Event, Vec<u8>)>, Option<Violation>) {
    let (mut reader, mut held, mut heard) = (Reader::packing(15), Vec::new(), Vec::new());
    let mut at = Passage { packed_max, ..Passage::default() };
    for piece in stream.chunks(piece) {
        held.extend_from_slice(piece);
        loop {
            match reader.read(&mut held, &mut at, &RULES) {
                Ok(Event::NeedMore) => break,
                Ok(event @ (Event::Message(_) | Event::Packed(_))) => {
                    let is_packed = matches!(event, Event::Packed(_));
                    assert_eq!(at.packed, if is_packed { at.write } else { 0 });
                    heard.push((event, held[..at.write].to_vec()));
                    (at.write, at.packed) = (0, 0);
                }
                Ok(event) => heard.push((event, Vec::new())),
                Err(violation) => return (heard, Some(violation)),
            }
            assert!(at.packed <= at.write && at.write <= at.read && at.packed <= at.packed_max);
        }
        held.drain(at.write..at.read);
        at.read = at.write;
    }
    (heard, None)
}

fn packed(mut frame: Vec<u8>) -> Vec<u8> {
    frame[0] |= 0x40;
    frame
}

#[test]
fn rfc7692_6_2_a_packed_message_is_gathered_from_its_fragments_with_control_frames_between() {
    let stream = [
        frame(true, Opcode::Text, "plain é".as_bytes()),
        // What is packed is no text, whatever its kind.
        packed(frame(false, Opcode::Text, b"\xFF\xFE")),
        frame(true, Opcode::Ping, b"p"),
        frame(false, Opcode::Continuation, b""),
        frame(true, Opcode::Continuation, b"\xC0"),
        packed(frame(true, Opcode::Binary, b"one")),
        packed(frame(true, Opcode::Binary, b"")),
        frame(true, Opcode::Binary, b"plain"),
    ]
    .concat();
    let (heard, violation) = heard_packing(&stream, stream.len(), 100);
    assert_eq!((&heard, violation), (&heard_packing(&stream, 1, 100).0, None));
    let said: Vec<(&Event, &[u8])> = heard.iter().map(|(event, bytes)| (event, &bytes[..])).collect();
    assert!(matches!(said[1].0, Event::Ping(_)));
    assert_eq!(said[0], (&Event::Message(Kind::Text), "plain é".as_bytes()));
    assert_eq!(said[2], (&Event::Packed(Kind::Text), &b"\xFF\xFE\xC0"[..]));
    assert_eq!(said[3], (&Event::Packed(Kind::Binary), &b"one"[..]));
    assert_eq!(said[4], (&Event::Packed(Kind::Binary), &b""[..]));
    assert_eq!(said[5], (&Event::Message(Kind::Binary), &b"plain"[..]));
}

#[test]
fn rfc7692_6_1_only_the_first_frame_of_a_message_says_that_it_is_packed() {
    for (stream, violation) in [
        (packed(frame(true, Opcode::Ping, b"")), Violation::ReservedBits),
        (packed(frame(true, Opcode::Continuation, b"")), Violation::ReservedBits),
        (
            [packed(frame(false, Opcode::Binary, b"a")), packed(frame(true, Opcode::Continuation, b"b"))].concat(),
            Violation::ReservedBits,
        ),
        (
            [packed(frame(false, Opcode::Binary, b"a")), packed(frame(true, Opcode::Binary, b"b"))].concat(),
            Violation::Interleaved,
        ),
    ] {
        for piece in [1, stream.len()] {
            assert_eq!(heard_packing(&stream, piece, 100).1, Some(violation));
        }
    }
    assert_eq!(violation(&[packed(frame(true, Opcode::Binary, b"a"))]), Violation::ReservedBits);
}

#[test]
fn a_packed_message_is_as_long_as_its_bound_and_no_longer() {
    let of = |first: usize, second: usize| {
        let first = packed(frame(false, Opcode::Binary, &vec![0; first]));
        [first, frame(true, Opcode::Continuation, &vec![0; second])].concat()
    };
    for (first, second, is_taken) in [(60, 39, true), (60, 40, true), (60, 41, false), (100, 0, true), (101, 0, false)]
    {
        let (heard, violation) = heard_packing(&of(first, second), 7, 100);
        assert_eq!((heard.len(), violation), if is_taken { (1, None) } else { (0, Some(Violation::TooBig)) });
    }
}

#[test]
fn what_was_agreed_is_remembered_beside_what_is_under_way() {
    assert_eq!(Reader::default().window_bits(), None);
    for bits in 8..=15 {
        let mut reader = Reader::packing(bits);
        let mut bytes = packed(frame(false, Opcode::Binary, b"ab"));
        let mut at = Passage { packed_max: 10, ..Passage::default() };
        assert_eq!(reader.read(&mut bytes, &mut at, &RULES), Ok(Event::NeedMore));
        assert!(reader.is_packed() && reader.is_in_message());
        assert_eq!(reader.window_bits(), Some(bits));
    }
}
