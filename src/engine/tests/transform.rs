//! Connections with a transform: what was plain stays plain, whatever the network does and wherever they move.

use super::*;
use crate::base::transform::{HEAD_BYTES_MAX, Inbound, Passage, Reply, Unpacked};
use crate::io::sim::Chance;
use crate::limits::{BLOCK_CLASSES, RECEIVE_BLOCK_BYTES, SHARED_SEGMENT_BYTES_MIN, TURN_UNPACK_BYTES_MAX};
use bytes::Bytes;

/// A length in front of every piece, `h` with one byte of it or `H` with three; `p` wants an answer, `q` is the end. `z`
/// with one byte of length is packed: each of its bytes stands for `RATIO` of them, but for `!`, which is broken.
#[derive(Debug, Default)]
pub struct Chunked {
    remaining: u32,
    is_packed: bool,
}

const RATIO: usize = 300;

impl Transform for Chunked {
    const HEAD_BYTES: usize = 4;
    /// Messages that were unpacked, and refused.
    type Shared = (usize, usize);

    fn inbound(&mut self, bytes: &mut [u8], at: &mut Passage, reply: &mut Reply) -> Inbound {
        loop {
            let count = (bytes.len() - at.read).min(self.remaining as usize);
            bytes.copy_within(at.read..at.read + count, at.write);
            at.read += count;
            at.write += count;
            self.remaining -= count as u32;
            at.packed += if self.is_packed { count } else { 0 };
            if self.is_packed && self.remaining == 0 {
                self.is_packed = false;
                return Inbound::Packed;
            }
            let (length, head) = match bytes[at.read..] {
                _ if self.remaining > 0 => return Inbound::Done,
                [b'z', length, ..] => {
                    self.is_packed = true;
                    (u32::from(length), 2)
                }
                [b'z'] => return Inbound::Done,
                [b'h', length, ..] => (u32::from(length), 2),
                [b'H', a, b, c, ..] => (u32::from_be_bytes([0, a, b, c]), 4),
                [] | [b'h' | b'H', ..] => return Inbound::Done,
                [b'p', ..] => {
                    at.read += 1;
                    reply.set(&[b"!"]);
                    return Inbound::Reply;
                }
                [other, ..] => {
                    reply.set(&[b"bye"]);
                    return Inbound::End { fault: other != b'q' };
                }
            };
            at.read += head;
            self.remaining = length;
        }
    }

    fn head(&mut self, content_bytes: usize, into: &mut [u8; HEAD_BYTES_MAX]) -> usize {
        let [.., a, b, c] = content_bytes.to_be_bytes();
        let head = if content_bytes < 256 { [b'h', c, 0, 0] } else { [b'H', a, b, c] };
        into[..4].copy_from_slice(&head);
        if content_bytes < 256 { 2 } else { 4 }
    }

    fn unpack(&mut self, shared: &mut (usize, usize), packed: &[u8], into: &mut [u8]) -> Unpacked {
        if packed.contains(&b'!') {
            return Unpacked::Broken;
        }
        for (at, byte) in packed.iter().enumerate() {
            let Some(place) = into.get_mut(at * RATIO..(at + 1) * RATIO) else { return Unpacked::NoRoom };
            place.fill(*byte);
        }
        shared.0 += 1;
        Unpacked::Whole(packed.len() * RATIO)
    }

    fn refuse_packed(&mut self, shared: &mut (usize, usize), is_too_long: bool, reply: &mut Reply) {
        shared.1 += 1;
        reply.set(&[if is_too_long { b"too long" } else { b"broken" }]);
    }
}

fn packed(bytes: &[u8]) -> Vec<u8> {
    [&[b'z', bytes.len() as u8][..], bytes].concat()
}

fn unpacked(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().flat_map(|&byte| [byte; RATIO]).collect()
}

fn chunk(bytes: &[u8]) -> Vec<u8> {
    let mut head = [0; HEAD_BYTES_MAX];
    let length = Chunked::default().head(bytes.len(), &mut head);
    [&head[..length], bytes].concat()
}

/// Takes chunks and answers apart: the plain bytes, how many pieces they came in, and how many answers.
fn unchunk(mut stream: &[u8]) -> (Vec<u8>, usize, usize) {
    let (mut plain, mut pieces, mut answers) = (Vec::new(), 0, 0);
    loop {
        let (length, head) = match *stream {
            [] => return (plain, pieces, answers),
            [b'!', ..] => {
                answers += 1;
                stream = &stream[1..];
                continue;
            }
            [b'h', length, ..] => (usize::from(length), 2),
            [b'H', a, b, c, ..] => (u32::from_be_bytes([0, a, b, c]) as usize, 4),
            _ => panic!("not a chunk: {stream:x?}"),
        };
        plain.extend_from_slice(&stream[head..head + length]);
        stream = &stream[head + length..];
        pieces += 1;
    }
}

/// Whoever says `T` first gets a transform, and everything echoed from then on.
fn echo_once_asked() -> Probe {
    Probe::new(|core, id, bytes| {
        if core.has_transform(id) {
            let _ = core.write_bytes(id, Room::Data, bytes);
            return bytes.len();
        }
        assert_eq!(bytes[0], b'T');
        core.write_bytes(id, Room::Control, b"agreed").expect("there is room");
        core.set_transform(id, Chunked::default());
        1
    })
}

fn read(rig: &mut Rig, peer: &mut Peer) -> Vec<u8> {
    let mut all = Vec::new();
    loop {
        rig.settle();
        let some = peer.read_all();
        if some.is_empty() {
            return all;
        }
        all.extend(some);
    }
}

fn transformed() -> (Rig, Peer, ConnectionId) {
    let mut rig = Rig::one(Settings::default(), echo_once_asked());
    let mut peer = rig.peer();
    rig.settle();
    peer.write(b"T").expect("there is room");
    assert_eq!(read(&mut rig, &mut peer), b"agreed");
    let id = rig.id();
    (rig, peer, id)
}

#[test]
fn what_follows_the_request_at_once_is_the_transforms() {
    let mut rig = Rig::one(Settings::default(), echo_once_asked());
    let mut peer = rig.peer();
    rig.settle();
    peer.write(&[b"T", &chunk(b"hello")[..], b"p"].concat()).expect("there is room");
    let answer = read(&mut rig, &mut peer);
    let rest = answer.strip_prefix(b"agreed").expect("it leaves as it was written");
    assert_eq!(unchunk(rest), (b"hello".to_vec(), 1, 1));
    drop(peer);
    rig.assert_at_rest();
}

#[test]
fn everything_of_a_turn_shares_one_head() {
    let (mut rig, mut peer, id) = transformed();
    let mut expected = Vec::new();
    for n in 0..100u8 {
        rig.core().write_bytes(id, Room::Data, &[n; 64]).expect("there is room");
        expected.extend([n; 64]);
    }
    let sends = rig.core().totals().sends;
    assert_eq!(unchunk(&read(&mut rig, &mut peer)), (expected, 1, 0));
    assert_eq!(rig.core().totals().sends, sends + 1);
    drop(peer);
    rig.assert_at_rest();
}

#[test]
fn a_payload_by_reference_shares_the_head_of_what_is_before_it() {
    for before in [&b""[..], b"head"] {
        let (mut rig, mut peer, id) = transformed();
        let payload = Bytes::from(vec![9; 20_000]);
        let core = rig.core();
        core.write_bytes(id, Room::Data, before).expect("there is room");
        core.write_shared(id, Room::Data, &payload).expect("there is room");
        assert!(!payload.is_unique(), "it was not copied");
        core.write_bytes(id, Room::Data, b"tail").expect("there is room");
        let expected = [before, &payload, b"tail"].concat();
        assert_eq!(unchunk(&read(&mut rig, &mut peer)), (expected, 2, 0));
        drop(peer);
        rig.assert_at_rest();
    }
}

#[test]
fn its_own_words_leave_in_their_order_and_without_a_head() {
    let (mut rig, mut peer, id) = transformed();
    let payload = Bytes::from(vec![9; SHARED_SEGMENT_BYTES_MIN]);
    let core = rig.core();
    core.write_bytes(id, Room::Data, b"one").expect("there is room");
    core.write_raw(id, Room::Control, b"!").expect("there is room");
    core.write_raw(id, Room::Control, b"!").expect("there is room");
    core.write_bytes(id, Room::Data, b"two").expect("there is room");
    core.write_raw(id, Room::Control, b"!").expect("there is room");
    core.write_shared(id, Room::Data, &payload).expect("there is room");
    let expected = [&chunk(b"one")[..], b"!!", &chunk(b"two"), b"!", &chunk(&payload)].concat();
    assert_eq!(read(&mut rig, &mut peer), expected);
    drop(peer);
    rig.assert_at_rest();
}

#[test]
fn writes_of_every_length_up_to_the_largest_block_find_room_for_their_head() {
    const LARGEST: usize = BLOCK_CLASSES[BLOCK_CLASSES.len() - 1];
    let settings = Settings { outbox_bytes_max: 2 * LARGEST, ..Settings::default() };
    for class in BLOCK_CLASSES {
        for len in class - 5..=class {
            let mut rig = Rig::one(settings.clone(), echo_once_asked());
            let mut peer = rig.peer();
            rig.settle();
            peer.write(b"T").expect("there is room");
            read(&mut rig, &mut peer);
            let id = rig.id();
            for room in [Room::Data, Room::Control] {
                rig.core().write(id, room, len, |into| into.fill(7)).expect("there is room");
                rig.core().write_bytes(id, Room::Data, b"more").expect("there is room");
                let (plain, ..) = unchunk(&read(&mut rig, &mut peer));
                assert!(plain == [&vec![7; len][..], b"more"].concat(), "{len}");
            }
            drop(peer);
            rig.assert_at_rest();
        }
    }
}

#[test]
fn an_end_is_acted_on_when_what_came_before_has_been_used() {
    for (end, cause) in [(b"q", CloseCause::PeerEnded), (b"x", CloseCause::Misframed)] {
        let (mut rig, mut peer, id) = transformed();
        rig.core().pause_reading(id);
        peer.write(&[&chunk(b"last words")[..], end].concat()).expect("there is room");
        assert_eq!(read(&mut rig, &mut peer), b"", "nothing is read of it now");
        rig.core().resume_reading(id);
        let expected = [&chunk(b"last words")[..], b"bye"].concat();
        assert_eq!(read(&mut rig, &mut peer), expected);
        assert_eq!(rig.probe().closed, [(id, cause)]);
        drop(peer);
        rig.assert_at_rest();
    }
}

#[test]
fn half_a_head_is_kept_with_half_a_frame_before_it() {
    // The handler wants 10 plain bytes at once and gets them however they are cut.
    let mut rig = Rig::one(
        Settings::default(),
        Probe::new(|core, id, bytes| {
            if !core.has_transform(id) {
                core.set_transform(id, Chunked::default());
                return 1;
            }
            if bytes.len() < 10 {
                core.expect(id, 10);
                return 0;
            }
            let _ = core.write_bytes(id, Room::Data, &bytes[..10]);
            10
        }),
    );
    let mut peer = rig.peer();
    rig.settle();
    let stream = [b"T", &chunk(b"01234")[..], b"p", &chunk(b"56"), &chunk(b""), &chunk(b"789")].concat();
    for byte in stream {
        peer.write(&[byte]).expect("there is room");
        rig.settle();
    }
    assert_eq!(unchunk(&read(&mut rig, &mut peer)), (b"0123456789".to_vec(), 1, 1));
    assert_eq!((rig.core().counts().helds, rig.core().counts().blocks), (0, 0));
    drop(peer);
    rig.assert_at_rest();
}

#[test]
fn nothing_is_lost_or_turned_twice_through_faults_and_a_move() {
    for seed in 0..30 {
        let faults = Faults { install_failure: Chance::NEVER, ..Faults::harsh() };
        let mut rig = Rig::with(
            seed,
            faults,
            vec![(Settings::default(), echo_once_asked()), (Settings::default(), echo_once_asked())],
        );
        for (shard, to) in [(0, 1), (1, 0)] {
            rig.shards[shard].handler.moves_to = Some(ShardId(to));
            // With its transform, and with what of the stream came along.
            rig.shards[shard].handler.moves_transformed = seed % 2 == 0;
        }
        let mut peer = rig.peer();
        let plain: Vec<u8> = (0..20_000u32).map(|n| n as u8).collect();
        let mut sent = b"T".to_vec();
        for (at, piece) in plain.chunks(301).enumerate() {
            let (a, b) = piece.split_at(at % piece.len());
            sent.extend([&chunk(a)[..], b"p", &chunk(b)].concat());
        }
        let plain = [plain, unpacked(b"abc"), unpacked(b"d")].concat();
        sent.extend([packed(b"abc"), packed(b""), b"p".to_vec(), packed(b"d")].concat());
        let (mut written, mut received, mut quiet_ms) = (0, Vec::new(), 0);
        while quiet_ms < 1_000 {
            rig.pass(1);
            let end = sent.len().min(written + 100);
            let count = peer.write(&sent[written..end]).unwrap_or(0);
            let some = peer.read_all();
            quiet_ms = if count > 0 || !some.is_empty() { 0 } else { quiet_ms + 1 };
            written += count;
            received.extend(some);
        }
        let (back, _, answers) = unchunk(received.strip_prefix(b"agreed").expect("it was agreed"));
        assert!(back == plain, "seed {seed}: {} of {} came back", back.len(), plain.len());
        assert_eq!(answers, 68, "seed {seed}");
        drop(peer);
        rig.assert_at_rest();
    }
}

#[test]
fn a_packed_message_comes_between_plain_ones_in_its_place_however_it_arrives() {
    for piece in [1, 3, usize::MAX] {
        let (mut rig, mut peer, _) = transformed();
        let stream =
            [chunk(b"before"), packed(b"ab"), packed(b"c"), b"p".to_vec(), packed(b""), chunk(b"behind")].concat();
        let mut back = Vec::new();
        for part in stream.chunks(piece) {
            peer.write(part).expect("there is room");
            back.extend(read(&mut rig, &mut peer));
        }
        let (plain, _, answers) = unchunk(&back);
        assert!(plain == [b"before", &unpacked(b"abc")[..], b"behind"].concat(), "{} bytes came", plain.len());
        assert_eq!((answers, *rig.core().shared()), (1, (3, 0)));
        assert_eq!((rig.core().counts().helds, rig.core().counts().blocks), (0, 0));
        drop(peer);
        rig.assert_at_rest();
    }
}

#[test]
fn a_packed_message_waits_until_what_came_before_it_has_been_used() {
    let (mut rig, mut peer, id) = transformed();
    rig.core().pause_reading(id);
    peer.write(&[chunk(b"before"), packed(b"abcdefgh"), packed(b"i"), b"q".to_vec()].concat()).expect("there is room");
    assert_eq!(read(&mut rig, &mut peer), b"");
    assert_eq!(*rig.core().shared(), (0, 0));
    rig.core().resume_reading(id);
    let answer = read(&mut rig, &mut peer);
    let (plain, ..) = unchunk(answer.strip_suffix(b"bye").expect("it has ended"));
    assert!(plain == [b"before", &unpacked(b"abcdefghi")[..]].concat());
    assert_eq!(rig.probe().closed, [(id, CloseCause::PeerEnded)]);
    drop(peer);
    rig.assert_at_rest();
}

#[test]
fn a_packed_message_that_is_broken_or_too_long_ends_the_connection_and_holds_no_block() {
    // What it may become: a frame and a receive's worth.
    let most = 65;
    let settings = Settings { frame_bytes_max: most * RATIO - RECEIVE_BLOCK_BYTES, ..Settings::default() };
    for (message, said) in
        [(vec![b'a'; most], None), (vec![b'a'; most + 1], Some("too long")), (b"a!".to_vec(), Some("broken"))]
    {
        let mut rig = Rig::one(settings.clone(), echo_once_asked());
        let mut peer = rig.peer();
        rig.settle();
        peer.write(b"T").expect("there is room");
        assert_eq!(read(&mut rig, &mut peer), b"agreed");
        let id = rig.id();
        peer.write(&[chunk(b"first"), packed(&message)].concat()).expect("there is room");
        let answer = read(&mut rig, &mut peer);
        match said {
            None => {
                let (plain, ..) = unchunk(&answer);
                assert!(plain == [b"first", &unpacked(&message)[..]].concat(), "{} bytes came", plain.len());
            }
            Some(said) => {
                assert_eq!(answer, [&chunk(b"first")[..], said.as_bytes()].concat());
                assert_eq!(rig.probe().closed, [(id, CloseCause::Misframed)]);
                assert_eq!(rig.core().shared().1, 1);
            }
        }
        assert_eq!((rig.core().counts().helds, rig.core().counts().blocks), (0, 0));
        drop(peer);
        rig.assert_at_rest();
    }
}

#[test]
fn a_turn_unpacks_so_much_and_who_sent_more_waits_in_line() {
    let (mut rig, mut peer, _) = transformed();
    let message = [b'x'; 250];
    let count = 2 * TURN_UNPACK_BYTES_MAX / (message.len() * RATIO) + 2;
    peer.write(&packed(&message).repeat(count)).expect("there is room");
    read(&mut rig, &mut peer);
    assert_eq!(rig.core().shared().0, count);
    assert!(rig.core().totals().unpack_waits > 0);
    drop(peer);
    rig.assert_at_rest();
}

#[test]
fn what_is_framed_already_shares_a_block_and_a_send_with_frames_before_and_behind_it() {
    let (mut rig, mut peer, id) = transformed();
    let core = rig.core();
    let sends = core.totals().sends;
    let long = [5; 700];
    let framed = |core: &mut Probed, bytes: &[u8]| {
        core.write_framed(id, Room::Data, bytes.len(), |into| into.copy_from_slice(bytes)).expect("there is room");
    };
    framed(core, b"!");
    core.write_bytes(id, Room::Data, b"one").expect("there is room");
    core.write_bytes(id, Room::Data, b"more").expect("there is room");
    framed(core, b"!!");
    framed(core, &chunk(b"whole"));
    core.write_bytes(id, Room::Data, &long).expect("there is room");
    framed(core, &chunk(b""));
    core.write_bytes(id, Room::Data, b"last").expect("there is room");
    let expected =
        [&b"!"[..], &chunk(b"onemore"), b"!!", &chunk(b"whole"), &chunk(&long), &chunk(b""), &chunk(b"last")].concat();
    assert_eq!(core.outbox_bytes(id), expected.len() - 2, "the last frame's head is not written yet");
    assert_eq!(read(&mut rig, &mut peer), expected);
    assert_eq!(rig.core().totals().sends, sends + 1);
    drop(peer);
    rig.assert_at_rest();
}

#[test]
fn frames_of_every_kind_in_any_order_leave_as_they_were_written() {
    let mut random = 7_u64;
    let mut next = |below: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % below
    };
    for _ in 0..40 {
        let (mut rig, mut peer, id) = transformed();
        let (core, mut expected) = (rig.core(), Vec::new());
        for _ in 0..12 {
            let bytes = vec![b'a' + next(26) as u8; [1, 40, 300, 5_000, 18_000][next(5) as usize]];
            let framed = long_chunk(&bytes);
            match next(4) {
                0 => core.write_framed(id, Room::Data, framed.len(), |into| into.copy_from_slice(&framed)),
                1 => core.write_framed_shared(id, Room::Data, &Bytes::from(framed)),
                2 => core.write_shared(id, Room::Data, &Bytes::from(bytes.clone())),
                _ => core.write_bytes(id, Room::Data, &bytes),
            }
            .expect("there is room");
            expected.extend(bytes);
        }
        let (plain, ..) = unchunk(&read(&mut rig, &mut peer));
        assert!(plain == expected, "{} of {}", plain.len(), expected.len());
        drop(peer);
        rig.assert_at_rest();
    }
}

/// A chunk whose head is as long as any.
fn long_chunk(bytes: &[u8]) -> Vec<u8> {
    let [.., a, b, c] = bytes.len().to_be_bytes();
    [&[b'H', a, b, c][..], bytes].concat()
}
