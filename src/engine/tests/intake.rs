use super::*;
use crate::limits::RECEIVES_IN_FLIGHT_MAX;

/// Frames are a length byte and that many bytes; each is answered whole.
fn frames() -> Probe {
    Probe::new(|core, id, bytes| {
        let mut used = 0;
        while let Some(&len) = bytes.get(used)
            && bytes.len() - used > usize::from(len)
        {
            let frame = &bytes[used..=used + usize::from(len)];
            core.write_bytes(id, Room::Data, frame).expect("the outbox has room");
            used += frame.len();
        }
        used
    })
}

#[test]
fn what_a_peer_writes_comes_back() {
    let mut rig = Rig::one(Settings::default(), Probe::echo());
    let mut peer = rig.peer();
    rig.settle();
    for word in [b"kittiwake".as_slice(), b"ledge"] {
        assert_eq!(peer.write(word).expect("there is room"), word.len());
        rig.settle();
        assert_eq!(peer.read_all(), word);
    }
    let counts = rig.core().counts();
    assert_eq!((counts.blocks, counts.outboxes, counts.helds), (0, 0, 0), "an idle connection owns nothing");
    drop(peer);
    rig.settle();
    assert_eq!(rig.probe().closed, [(rig.id(), CloseCause::PeerEnded)]);
    rig.assert_at_rest();
}

#[test]
fn a_frame_that_comes_byte_by_byte_is_kept_in_the_smallest_block() {
    let mut rig = Rig::one(Settings::default(), frames());
    let mut peer = rig.peer();
    rig.settle();
    let frame: Vec<u8> = core::iter::once(200).chain(1..=200).collect();
    for (count, byte) in frame.iter().enumerate() {
        peer.write(&[*byte]).expect("there is room");
        rig.settle();
        let held = if count + 1 == frame.len() { 0 } else { 512 };
        assert_eq!(rig.core().pool.out_bytes(), held);
    }
    assert_eq!(peer.read_all(), frame);
    drop(peer);
    rig.assert_at_rest();
}

#[test]
fn an_expected_frame_is_not_offered_before_it_is_whole() {
    let probe = Probe::new(|core, id, bytes| {
        if bytes.len() < 50_000 {
            core.expect(id, 50_000);
            return 0;
        }
        50_000
    });
    let mut rig = Rig::one(Settings::default(), probe);
    let mut peer = rig.peer();
    rig.settle();
    let frame = vec![7; 50_003];
    for part in frame.chunks(10_000) {
        assert_eq!(peer.write(part).expect("there is room"), part.len());
        rig.settle();
    }
    let offered: Vec<usize> = rig.probe().offered[&rig.id()].iter().map(Vec::len).collect();
    assert_eq!(offered, [10_000, 50_000, 3], "once to learn the length, once whole, once what follows");
    drop(peer);
    rig.assert_at_rest();
}

#[test]
fn a_frame_is_accepted_at_its_bound_and_closed_beyond() {
    for (excess, closes) in [(0, false), (1, true)] {
        let settings = Settings { frame_bytes_max: 1_000, ..Settings::default() };
        let probe = Probe::new(move |core, id, _| {
            core.expect(id, 1_000 + excess);
            0
        });
        let mut rig = Rig::one(settings, probe);
        let mut peer = rig.peer();
        rig.settle();
        peer.write(b"x").expect("there is room");
        rig.settle();
        let cause = rig.probe().closed.first().map(|(_, cause)| *cause);
        assert_eq!(cause, closes.then_some(CloseCause::FrameTooLong));
        drop(peer);
        rig.assert_at_rest();
    }
}

#[test]
fn a_peer_that_never_finishes_a_frame_is_closed() {
    let mut rig = Rig::one(Settings { frame_bytes_max: 1_000, ..Settings::default() }, Probe::new(|_, _, _| 0));
    let mut peer = rig.peer();
    rig.settle();
    for _ in 0..100 {
        let _ = peer.write(&[1; 1_000]);
        rig.settle();
    }
    assert_eq!(rig.probe().closed[0].1, CloseCause::FrameTooLong);
    drop(peer);
    rig.assert_at_rest();
}

#[test]
fn a_paused_connection_is_offered_what_it_left_before_anything_new() {
    let probe = Probe::new(|core, id, bytes| {
        // One byte at a time, then a pause: the rest stays.
        core.pause_reading(id);
        bytes.len().min(1)
    });
    let mut rig = Rig::one(Settings::default(), probe);
    let mut peer = rig.peer();
    rig.settle();
    peer.write(b"abc").expect("there is room");
    rig.settle();
    peer.write(b"d").expect("there is room");
    rig.settle();
    let id = rig.id();
    assert_eq!(rig.probe().offered[&id], [b"abc"]);
    for rest in [b"bc".as_slice(), b"c"] {
        rig.core().resume_reading(id);
        rig.settle();
        assert_eq!(rig.probe().offered[&id].last().expect("offered"), rest);
    }
    rig.core().resume_reading(id);
    rig.settle();
    assert_eq!(rig.probe().offered[&id].last().expect("offered"), b"d");
    rig.core().resume_reading(id);
    drop(peer);
    rig.assert_at_rest();
}

#[test]
fn sockets_that_find_no_block_wait_until_one_is_back() {
    // Two receive blocks in all.
    let settings = Settings { pool_bytes_max: 40_000, ..Settings::default() };
    let mut rig = Rig::one(settings, Probe::new(|_, _, bytes| bytes.len()));
    let mut peers: Vec<_> = (0..20).map(|_| rig.peer()).collect();
    rig.settle();
    for peer in &mut peers {
        peer.write(b"hello").expect("there is room");
    }
    rig.settle();
    assert!(rig.core().totals().starved > 0);
    assert_eq!(rig.probe().offered.len(), 20, "all were read in the end");
    drop(peers);
    rig.assert_at_rest();
}

#[test]
fn frames_survive_every_fault_a_connection_survives() {
    for seed in 0..20 {
        let mut rig = Rig::with(seed, Faults::harsh(), vec![(Settings::default(), frames())]);
        let mut peers: Vec<_> = (0..5).map(|_| (rig.peer(), Vec::new(), 0)).collect();
        let frame: Vec<u8> = core::iter::once(100).chain(1..=100).collect();
        let sent: Vec<u8> = core::iter::repeat_n(frame, 50).flatten().collect();
        for _ in 0..5_000 {
            rig.pass(1);
            for (peer, received, written) in &mut peers {
                if let Ok(count) = peer.write(&sent[*written..]) {
                    *written += count;
                }
                received.extend(peer.read_all());
            }
            if peers.iter().all(|(_, received, _)| received.len() == sent.len()) {
                break;
            }
        }
        assert!(peers.iter().all(|(_, received, _)| *received == sent), "seed {seed}");
        drop(peers);
        rig.assert_at_rest();
    }
}

/// Whoever makes work that others answer, as fan-out does, is told while more wait to be read than a turn reads.
#[test]
fn a_shard_is_behind_while_a_turns_worth_of_connections_waits_to_be_read() {
    const PEERS: usize = 3 * RECEIVES_IN_FLIGHT_MAX;
    let mut rig = Rig::one(Settings::default(), Probe::echo());
    let mut peers: Vec<Peer> = (0..PEERS).map(|_| rig.peer()).collect();
    rig.settle();
    assert!(!rig.core().is_behind());
    for peer in &mut peers {
        peer.write(b"x").expect("there is room");
    }
    rig.net.advance_to(rig.net.next_event_ms().unwrap_or_else(|| rig.net.now().monotonic_ms));
    let mut behind = 0;
    while rig.shards[0].has_work() || rig.shards[0].core.driver.is_due() {
        rig.shards[0].turn().expect("the simulated driver does not fail");
        behind += usize::from(rig.core().is_behind());
    }
    assert!(behind > 0, "so many waited, and it did not know");
    rig.settle();
    assert!(!rig.core().is_behind(), "all have been read");
    assert!(peers.iter_mut().all(|peer| peer.read_all() == b"x"));
    drop(peers);
    rig.assert_at_rest();
}
