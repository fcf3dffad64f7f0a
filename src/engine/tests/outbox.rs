use super::*;
use crate::limits::{OUTBOX_BYTES_MAX, OUTBOX_CONTROL_BYTES_MAX};
use bytes::Bytes;

fn rig_with_peer(settings: Settings) -> (Rig, Peer, ConnectionId) {
    let mut rig = Rig::one(settings, Probe::new(|_, _, bytes| bytes.len()));
    let peer = rig.peer();
    rig.settle();
    let id = rig.id();
    (rig, peer, id)
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

#[test]
fn many_writes_of_a_turn_leave_in_one_send() {
    let (mut rig, mut peer, id) = rig_with_peer(Settings::default());
    let mut expected = Vec::new();
    for n in 0..100u8 {
        rig.core().write_bytes(id, Room::Data, &[n; 64]).expect("there is room");
        expected.extend([n; 64]);
    }
    assert_eq!(read(&mut rig, &mut peer), expected);
    assert_eq!((rig.core().totals().writes, rig.core().totals().sends), (100, 1));
    drop(peer);
    rig.assert_at_rest();
}

#[test]
fn a_large_payload_goes_by_reference_between_copied_bytes() {
    let (mut rig, mut peer, id) = rig_with_peer(Settings::default());
    let payload = Bytes::from(vec![9; 20_000]);
    let core = rig.core();
    core.write_bytes(id, Room::Data, b"head").expect("there is room");
    core.write_shared(id, Room::Data, &payload).expect("there is room");
    core.write_bytes(id, Room::Data, b"tail").expect("there is room");
    assert!(!payload.is_unique(), "it was not copied");
    assert_eq!(core.outbox_bytes(id), 20_008);
    let expected = [b"head".as_slice(), &payload, b"tail"].concat();
    assert_eq!(read(&mut rig, &mut peer), expected);
    assert!(payload.is_unique(), "and is given back");
    drop(peer);
    rig.assert_at_rest();
}

#[test]
fn an_outbox_takes_its_bound_and_no_byte_more() {
    for (len, fits) in [(OUTBOX_BYTES_MAX - 1, true), (OUTBOX_BYTES_MAX, true), (OUTBOX_BYTES_MAX + 1, false)] {
        let (mut rig, peer, id) = rig_with_peer(Settings::default());
        let written = rig.core().write(id, Room::Data, len, |into| into.fill(1));
        assert_eq!(written, if fits { Ok(()) } else { Err(Refused::Full) });
        let left = OUTBOX_BYTES_MAX - if fits { len } else { 0 };
        assert_eq!(rig.core().outbox_room(id), left);
        drop(peer);
        rig.assert_at_rest();
    }
}

#[test]
fn control_frames_have_room_beyond_data_and_close_who_leaves_it_full() {
    let (mut rig, peer, id) = rig_with_peer(Settings::default());
    let core = rig.core();
    core.write(id, Room::Data, OUTBOX_BYTES_MAX, |into| into.fill(1)).expect("there is room");
    assert_eq!(core.write_bytes(id, Room::Data, b"x"), Err(Refused::Full));
    core.write(id, Room::Control, OUTBOX_CONTROL_BYTES_MAX, |into| into.fill(2)).expect("control has its own room");
    assert_eq!(core.write_bytes(id, Room::Control, b"x"), Err(Refused::Gone));
    rig.settle();
    assert_eq!(rig.probe().closed, [(id, CloseCause::DoesNotRead)]);
    drop(peer);
    rig.assert_at_rest();
}

#[test]
fn a_drained_outbox_is_told_once_and_only_when_asked() {
    let (mut rig, mut peer, id) = rig_with_peer(Settings { outbox_bytes_low: 100, ..Settings::default() });
    let core = rig.core();
    assert!(!core.ask_drained(id), "it is empty already");
    core.write(id, Room::Data, 100, |into| into.fill(1)).expect("there is room");
    core.write(id, Room::Data, 200_000, |into| into.fill(1)).expect("there is room");
    assert!(core.ask_drained(id));
    assert_eq!(read(&mut rig, &mut peer).len(), 200_100);
    assert_eq!(rig.probe().drained, 1);
    drop(peer);
    rig.assert_at_rest();
}

#[test]
fn an_empty_pool_refuses_data_and_still_takes_control() {
    let settings = Settings { pool_bytes_max: 64 << 10, ..Settings::default() };
    let (mut rig, mut peer, id) = rig_with_peer(settings);
    let core = rig.core();
    let refused = core.write(id, Room::Data, 60_000, |into| into.fill(1));
    assert_eq!(refused, Err(Refused::Full), "its block would leave no reserve");
    core.write_bytes(id, Room::Control, b"pong").expect("the reserve is for this");
    assert_eq!(read(&mut rig, &mut peer), b"pong");
    drop(peer);
    rig.assert_at_rest();
}
