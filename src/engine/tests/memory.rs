use super::*;
use bytes::Bytes;

const BUDGET: usize = 16 << 20;

fn rig_with_peers(count: usize) -> (Rig, Vec<Peer>, Vec<ConnectionId>) {
    let settings = Settings { pool_bytes_max: BUDGET, outbox_bytes_max: 8 << 20, ..Settings::default() };
    let mut rig = Rig::one(settings, Probe::new(|_, _, bytes| bytes.len()));
    let peers: Vec<Peer> = (0..count).map(|_| rig.peer()).collect();
    rig.settle();
    let ids = rig.probe().accepted.clone();
    assert_eq!(ids.len(), count);
    (rig, peers, ids)
}

/// Writes until it is refused; how many bytes were taken.
fn fill(core: &mut Probed, id: ConnectionId, room: Room, limit: usize) -> usize {
    let mut taken = 0;
    while taken < limit && core.write(id, room, 60_000, |into| into.fill(1)).is_ok() {
        taken += 60_000;
    }
    taken
}

#[test]
fn with_memory_short_qos_0_gives_way_first_then_those_with_most() {
    let (mut rig, peers, ids) = rig_with_peers(20);
    let core = rig.core();
    assert_eq!(core.pressure(), Pressure::None);
    // One takes all it may, which leaves less than 6/16; an even share is then what two may have.
    fill(core, ids[0], Room::Data, 8 << 20);
    fill(core, ids[1], Room::Spare, 1_400_000);
    assert_eq!(core.pressure(), Pressure::Spare);
    assert_eq!(core.write_bytes(ids[0], Room::Spare, b"x"), Err(Refused::Full), "it has more than an even share");
    core.write_bytes(ids[2], Room::Spare, b"x").expect("who has little is served");
    core.write_bytes(ids[0], Room::Control, b"x").expect("and control frames are everybody's");
    assert_eq!(core.totals().shed, 0);
    // QoS 1 goes on, and with a quarter left the one with most goes.
    fill(core, ids[3], Room::Data, 2 << 20);
    assert_eq!(core.pressure(), Pressure::Slow);
    rig.settle();
    assert_eq!(rig.probe().closed.first(), Some(&(ids[0], CloseCause::Shed)));
    assert_eq!(rig.core().pressure(), Pressure::None);
    assert!(rig.core().is_open(ids[2]), "who has little stays");
    drop(peers);
    rig.assert_at_rest();
}

#[test]
fn payloads_by_reference_are_within_the_budget_and_cost_it_once() {
    let (mut rig, peers, ids) = rig_with_peers(40);
    let core = rig.core();
    let shared = Bytes::from(vec![1; 1 << 20]);
    for id in &ids {
        core.write_shared(*id, Room::Data, &shared).expect("one payload for all of them");
    }
    assert!(core.memory_used() < 2 << 20, "{}", core.memory_used());
    let different = |n: u8| Bytes::from(vec![n; 1 << 20]);
    let taken = (0..40).filter(|&n| core.write_shared(ids[usize::from(n)], Room::Data, &different(n)).is_ok()).count();
    assert!((12..=14).contains(&taken), "{taken}: two sixteenths are kept");
    assert!(core.memory_used() <= BUDGET);
    core.write_bytes(ids[39], Room::Control, b"x").expect("for control frames and receives");
    rig.settle();
    drop(peers);
    rig.assert_at_rest();
    assert_eq!(rig.core().memory_used(), 0);
}

#[test]
fn many_who_wait_a_little_are_not_closed_for_one_who_waits_a_lot() {
    let (mut rig, peers, ids) = rig_with_peers(60);
    let core = rig.core();
    for id in &ids[1..] {
        assert_eq!(fill(core, *id, Room::Data, 100_000), 120_000);
    }
    fill(core, ids[0], Room::Data, 8 << 20);
    assert!(core.pressure() >= Pressure::Slow, "{:?}", core.pressure());
    rig.settle();
    assert_eq!(rig.probe().closed, [(ids[0], CloseCause::Shed)]);
    assert_eq!(rig.core().totals().shed, 1);
    drop(peers);
    rig.assert_at_rest();
}
