use super::*;
use crate::io::sim::Chance;

fn two(seed: u64, faults: Faults) -> Rig {
    let shard = || (Settings::default(), Probe::echo());
    let mut rig = Rig::with(seed, faults, vec![shard(), shard()]);
    rig.shards[0].handler.moves_to = Some(ShardId(1));
    rig.shards[1].handler.moves_to = Some(ShardId(0));
    rig
}

#[test]
fn a_moved_connection_keeps_every_byte_and_its_peer() {
    let mut rig = two(1, Faults::none());
    let mut peer = rig.peer();
    rig.settle();
    peer.write(b"before ").expect("there is room");
    rig.settle();
    peer.write(b"and after").expect("there is room");
    rig.settle();
    assert_eq!(peer.read_all(), b"before and after");
    let home = rig.shards.iter_mut().find(|shard| shard.core.totals.adopted == 1).expect("it has moved");
    let id = home.handler.installed[0];
    assert_eq!((home.core.tag(id), home.core.peer(id)), (Some(7), Some(peer.address())));
    assert_eq!(home.core.counts().guests, 0);
    drop(peer);
    rig.assert_at_rest();
}

#[test]
fn nothing_is_lost_while_the_peer_keeps_sending_through_the_move() {
    for seed in 0..30 {
        let mut rig = two(seed, Faults { install_failure: Chance::NEVER, ..Faults::harsh() });
        let mut peer = rig.peer();
        let sent: Vec<u8> = (0..20_000u32).map(|n| n as u8).collect();
        let (mut written, mut received) = (0, Vec::new());
        for _ in 0..20_000 {
            rig.pass(1);
            let end = sent.len().min(written + 100);
            written += peer.write(&sent[written..end]).unwrap_or(0);
            received.extend(peer.read_all());
            if received.len() == sent.len() {
                break;
            }
        }
        assert!(received == sent, "seed {seed}: {} of {} came back", received.len(), sent.len());
        drop(peer);
        rig.assert_at_rest();
    }
}

#[test]
fn a_guest_departs_only_after_its_answer_is_out() {
    let mut rig = two(1, Faults::none());
    let mut peer = rig.peer();
    rig.settle();
    let shard = rig.shards.iter().position(|shard| !shard.handler.accepted.is_empty()).expect("accepted");
    let id = rig.shards[shard].handler.accepted[0];
    let core = &mut rig.shards[shard].core;
    core.write_bytes(id, Room::Data, b"101").expect("there is room");
    core.depart(id, false);
    rig.settle();
    assert_eq!(peer.read_all(), b"101");
    assert_eq!(rig.shards[1 - shard].core.totals().adopted, 1);
    drop(peer);
    rig.assert_at_rest();
}

#[test]
fn a_connection_that_finds_no_slot_is_told_closed_and_its_socket_closes() {
    let mut rig = two(1, Faults { install_failure: Chance::percent(100), ..Faults::none() });
    let mut peer = rig.peer();
    rig.settle();
    peer.write(b"hello").expect("there is room");
    rig.settle();
    let closed: Vec<_> = rig.shards.iter().flat_map(|shard| &shard.handler.closed).collect();
    assert!(matches!(closed[..], [(_, CloseCause::NotInstalled(_))]));
    assert_ne!(peer.state(), crate::io::sim::PeerState::Open);
    drop(peer);
    rig.assert_at_rest();
}

#[test]
fn a_full_table_gives_the_departure_back() {
    let mut rig = two(1, Faults::none());
    for shard in &mut rig.shards {
        shard.core.stop_listening_all();
        shard.core.table = Slab::new(0);
    }
    rig.settle();
    let driver = &mut rig.shards[0].core.driver;
    let (listener, address) = driver.listen("10.0.0.2:1".parse().expect("an address"), false).expect("listens");
    driver.submit(crate::io::Op::Accept { listener, token: crate::io::Token(1) });
    let peer = Peer::connect(&rig.net, address);
    let (mut completions, mut socket) = (Vec::new(), None);
    while socket.is_none() {
        rig.net.advance(1);
        rig.shards[0].core.driver.poll(Wait::No, 16, &mut completions).expect("polls");
        for completion in completions.drain(..) {
            if let crate::io::Outcome::Accepted { socket: accepted, .. } = completion.outcome {
                socket = Some(accepted);
            }
        }
    }
    let departure = Departure {
        socket: socket.expect("accepted"),
        unread: [1, 2].as_slice().into(),
        turned: Turned { plain: 2, ..Turned::default() },
        transform: None,
        peer: peer.address(),
    };
    let refused = rig.shards[0].core.adopt(departure, 1).expect_err("there is no room");
    assert_eq!((&*refused.unread, refused.peer), ([1, 2].as_slice(), peer.address()));
    drop((refused, peer));
    rig.assert_at_rest();
}

#[test]
fn a_client_connects_and_talks() {
    let mut rig = Rig::with(1, Faults::none(), vec![(Settings::default(), Probe::echo())]);
    let address = rig.address;
    let id = rig.core().connect(None, address, 42).expect("there is room");
    rig.settle();
    assert_eq!(rig.probe().connected, [(id, 42, true)]);
    let core = rig.core();
    core.write_bytes(id, Room::Data, b"x").expect("it is open");
    // Both ends echo, so the byte goes round until one of them closes.
    for _ in 0..50 {
        rig.shards[0].turn().expect("runs");
    }
    assert!(rig.core().totals().receives > 2);
    rig.core().close(id, Close::Now, CloseCause::Local);
    rig.assert_at_rest();
}

#[test]
fn a_refused_connect_is_told_and_leaves_nothing() {
    let mut rig = Rig::with(1, Faults::none(), vec![(Settings::default(), Probe::echo())]);
    let nobody = "10.9.9.9:1".parse().expect("an address");
    let id = rig.core().connect(None, nobody, 42).expect("there is room");
    rig.pass(200_000);
    assert_eq!(rig.probe().connected, [(id, 42, false)]);
    rig.assert_at_rest();
}

#[test]
fn letters_keep_their_order_through_a_full_mailbox() {
    let mut rig = two(1, Faults::none());
    let total = u32::try_from(limits::MAILBOX_LETTERS_MAX).expect("small") + 3_000;
    for word in 0..total {
        rig.shards[0].core.send_control(ShardId(1), Letter::Word(word));
    }
    rig.shards[0].turn().expect("runs");
    assert!(rig.shards[0].core.congested(ShardId(1)));
    assert!(rig.shards[0].core.counts().mail_waiting > 0);
    rig.pass(100);
    assert!(!rig.shards[0].core.congested(ShardId(1)));
    assert_eq!(rig.shards[1].handler.words, (0..total).collect::<Vec<_>>());
    rig.assert_at_rest();
}

#[test]
fn data_letters_are_refused_at_the_backlogs_bound_and_control_is_not() {
    let mut rig = two(1, Faults::none());
    let core = &mut rig.shards[0].core;
    let taken = (0..10_000).take_while(|word| core.send(ShardId(1), Letter::Word(*word)).is_ok()).count();
    assert_eq!(taken, limits::MAIL_BACKLOG_LETTERS_MAX);
    core.send_control(ShardId(1), Letter::Word(0));
    rig.assert_at_rest();
    assert_eq!(rig.shards[1].handler.words.len(), limits::MAIL_BACKLOG_LETTERS_MAX + 1);
}

#[test]
fn a_sleeping_shard_is_woken_by_the_first_letter_alone() {
    let mut rig = two(1, Faults::none());
    rig.settle();
    let post = rig.shards[1].core.post();
    post.try_send(Letter::Word(1)).expect("there is room");
    assert!(rig.shards[1].core.driver.is_woken());
    rig.settle();
    assert_eq!(rig.shards[1].handler.words, [1]);
}
