use super::*;
use crate::io::{Outcome, Token};
use table::{Purpose, token};

fn sink() -> Probe {
    Probe::new(|_, _, bytes| bytes.len())
}

#[test]
fn close_after_flush_lets_the_last_bytes_out() {
    let mut rig = Rig::one(Settings::default(), sink());
    let mut peer = rig.peer();
    rig.settle();
    let id = rig.id();
    rig.core().write_bytes(id, Room::Control, b"goodbye").expect("there is room");
    rig.core().close(id, Close::AfterFlush, CloseCause::Reason(4));
    assert_eq!(rig.core().write_bytes(id, Room::Control, b"late"), Err(Refused::Gone));
    rig.settle();
    assert_eq!(peer.read_all(), b"goodbye");
    assert_eq!(rig.probe().closed, [(id, CloseCause::Reason(4))]);
    rig.assert_at_rest();
}

#[test]
fn a_peer_that_does_not_take_its_last_bytes_lingers_no_longer_than_allowed() {
    let mut rig = Rig::one(Settings { outbox_bytes_max: 16 << 20, ..Settings::default() }, sink());
    let _peer = rig.peer();
    rig.settle();
    let id = rig.id();
    for _ in 0..64 {
        rig.core().write(id, Room::Data, 128 << 10, |into| into.fill(1)).expect("there is room");
    }
    rig.core().close(id, Close::AfterFlush, CloseCause::Local);
    rig.pass(4_900);
    assert!(rig.probe().closed.is_empty());
    rig.pass(300);
    assert_eq!(rig.probe().closed, [(id, CloseCause::Lingered)]);
    rig.assert_at_rest();
}

#[test]
fn an_entry_is_freed_only_after_its_send_in_flight_has_come_back() {
    let mut rig = Rig::one(Settings { outbox_bytes_max: 16 << 20, ..Settings::default() }, sink());
    let _peer = rig.peer();
    rig.settle();
    let id = rig.id();
    for _ in 0..64 {
        rig.core().write(id, Room::Data, 128 << 10, |into| into.fill(1)).expect("there is room");
    }
    rig.settle();
    assert!(rig.core().table.at(id.index).has(table::flag::SENDING), "the peer does not read");
    rig.core().close(id, Close::Now, CloseCause::Local);
    assert_eq!(rig.core().counts().outboxes, 0, "what was queued is dropped at once");
    assert_eq!(rig.core().counts().blocks, 1, "but not what is in flight");
    assert_eq!((rig.core().counts().connections, rig.core().counts().slots), (1, 1));
    rig.settle();
    assert_eq!(rig.probe().closed, [(id, CloseCause::Local)]);
    rig.assert_at_rest();
}

#[test]
fn a_stale_completion_is_counted_and_dropped() {
    let mut rig = Rig::one(Settings::default(), sink());
    let peer = rig.peer();
    rig.settle();
    let id = rig.id();
    let stale = ConnectionId { generation: id.generation + 1, ..id };
    let block = rig.core().pool.take(1).expect("a block");
    let outcome = Outcome::Received { block, count: 1, more: false };
    let shard = &mut rig.shards[0];
    shard.complete(Completion { token: token(Purpose::Receive, stale), outcome });
    shard.complete(Completion { token: Token(0xff << 56), outcome: Outcome::Ready });
    assert_eq!(shard.core.totals().stale_completions, 2);
    drop(peer);
    rig.assert_at_rest();
}

#[test]
fn a_stale_id_does_nothing() {
    let mut rig = Rig::one(Settings::default(), sink());
    drop(rig.peer());
    rig.settle();
    rig.pass(1_000);
    let id = rig.id();
    let core = rig.core();
    core.close(id, Close::Now, CloseCause::Local);
    core.set_deadline(id, 1);
    core.pause_reading(id);
    core.resume_reading(id);
    core.depart(id, false);
    assert_eq!((core.tag(id), core.peer(id), core.outbox_bytes(id)), (None, None, 0));
    assert_eq!(core.write_bytes(id, Room::Data, b"x"), Err(Refused::Gone));
    rig.assert_at_rest();
    assert_eq!(rig.probe().closed.len(), 1);
}

#[test]
fn a_silent_guest_is_closed_at_its_handshake_deadline() {
    let mut rig = Rig::one(Settings::default(), sink());
    let _peer = rig.peer();
    rig.settle();
    rig.pass(9_900);
    assert!(rig.probe().closed.is_empty());
    rig.pass(300);
    assert_eq!(rig.probe().closed, [(rig.id(), CloseCause::Local)]);
    rig.assert_at_rest();
}

#[test]
fn guests_are_bounded_and_the_next_one_comes_in_when_there_is_room() {
    let mut rig = Rig::one(Settings { guests_max: 3, ..Settings::default() }, sink());
    let mut peers = Vec::new();
    for (connected, accepted) in [(2, 2), (3, 3), (4, 3)] {
        while peers.len() < connected {
            peers.push(rig.peer());
        }
        rig.pass(500);
        assert_eq!(rig.core().counts().guests, accepted);
    }
    peers.remove(0);
    rig.pass(500);
    assert_eq!((rig.core().counts().guests, rig.core().totals().accepted), (3, 4));
    drop(peers);
    rig.assert_at_rest();
}

#[test]
fn a_drained_listener_takes_nobody_and_keeps_who_is_there() {
    let mut rig = Rig::one(Settings::default(), Probe::echo());
    let mut peer = rig.peer();
    rig.settle();
    rig.core().stop_listening_all();
    rig.settle();
    assert_eq!((rig.core().counts().listeners, rig.net.census().listeners), (0, 0));
    peer.write(b"still here").expect("there is room");
    rig.settle();
    assert_eq!(peer.read_all(), b"still here");
    drop(peer);
    rig.assert_at_rest();
}

#[test]
fn every_connection_ends_whatever_breaks() {
    for seed in 0..40 {
        let echo = || (Settings { guests_max: 4, ..Settings::default() }, Probe::echo());
        let mut rig = Rig::with(seed, Faults::brutal(), vec![echo(), echo()]);
        rig.shards[0].handler.moves_to = Some(ShardId(1));
        rig.shards[1].handler.moves_to = Some(ShardId(0));
        let mut peers: Vec<_> = (0..16).map(|_| rig.peer()).collect();
        for step in 0..200 {
            rig.pass(20);
            for peer in &mut peers {
                let _ = peer.write(&[1; 300]);
                let _ = peer.read_all();
            }
            if step % 10 == 9 {
                peers.pop();
            }
        }
        for shard in 0..2 {
            let open: Vec<_> = rig.shards[shard].core.table.iter().map(|(key, _)| table::id(key)).collect();
            for (number, id) in open.into_iter().enumerate() {
                let when = if number % 2 == 0 { Close::Now } else { Close::AfterFlush };
                rig.shards[shard].core.close(id, when, CloseCause::Local);
            }
        }
        drop(peers);
        rig.net.set_faults(Faults::none());
        rig.assert_at_rest();
    }
}
