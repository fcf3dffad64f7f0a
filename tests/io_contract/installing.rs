use crate::rig::{Bench, Peer, Rig, pattern};
use kittiwake::io::{Driver, Op, Outcome, Slot, Socket, Token, Wait};
use std::collections::HashSet;

pub fn a_socket_moves_between_drivers_without_loss<R: Rig>() {
    let mut bench = Bench::<R>::new();
    let mut other = bench.rig.driver(None);
    let (mut peer, mut slot) = bench.guest();
    let (mut written, mut received) = (0, Vec::new());
    for round in 0..60 {
        // The peer keeps sending whatever happens to its connection.
        written += peer.write(&pattern(written, 700)).unwrap_or(0);
        if round % 2 == 0 {
            received.extend(bench.receive_all(slot, 100));
        }
        written += peer.write(&pattern(written, 300)).unwrap_or(0);
        let socket = bench.driver.detach(slot, false);
        written += peer.write(&pattern(written, 300)).unwrap_or(0);
        std::mem::swap(&mut bench.driver, &mut other);
        slot = bench.driver.attach(socket);
    }
    let socket = bench.driver.detach(slot, false);
    let install = bench.submit(|token| Op::Install { socket, token });
    written += peer.write(&pattern(written, 500)).unwrap_or(0);
    let Outcome::Installed(slot) = bench.expect(install) else { panic!("not installed") };
    written += peer.write(&pattern(written, 500)).unwrap_or(0);
    let rest = bench.receive_all(slot, written - received.len());
    received.extend(rest);
    assert!(received == pattern(0, written), "bytes were lost on the way");
    bench.driver.close(slot);
    assert_eq!((bench.driver.slots_open(), other.slots_open()), (0, 0));
}

/// Lets a guest go that has been watched, as one that stays, and bytes come in between.
fn let_stay<R: Rig>(bench: &mut Bench<R>) -> (R::Peer, Socket) {
    let (mut peer, slot) = bench.guest();
    let watch = bench.submit(|token| Op::WatchOnce { slot, token });
    bench.peer_writes(&mut peer, b"one");
    bench.expect_ready(watch);
    assert_eq!(bench.receive_all(slot, 3), b"one");
    let socket = bench.driver.detach(slot, true);
    bench.peer_writes(&mut peer, b"two");
    bench.round();
    (peer, socket)
}

/// What came in between is there, and what comes now.
fn hear_the_rest<R: Rig>(bench: &mut Bench<R>, peer: &mut R::Peer, slot: Slot) -> Token {
    let watch = bench.submit(|token| Op::Watch { slot, token });
    bench.expect_ready(watch);
    assert_eq!(bench.receive_all(slot, 3), b"two");
    bench.peer_writes(peer, b"three");
    bench.expect_ready(watch);
    assert_eq!(bench.receive_all(slot, 5), b"three");
    watch
}

pub fn a_guest_that_stays_is_watched_like_any_other_socket<R: Rig>() {
    let mut bench = Bench::<R>::new();
    // The second time with the places, and the numbers of descriptors, of the first.
    for _ in 0..2 {
        let (mut peer, socket) = let_stay(&mut bench);
        let slot = bench.install(socket);
        let watch = hear_the_rest(&mut bench, &mut peer, slot);
        bench.unwatch(slot, watch);
        bench.driver.close(slot);
    }
    // Neither watched nor received from again.
    let (_peer, socket) = let_stay(&mut bench);
    let slot = bench.install(socket);
    bench.driver.close(slot);
    let (_peer, socket) = let_stay(&mut bench);
    drop(socket);
    bench.round();
    assert_eq!(bench.driver.slots_open(), 0);
}

/// What is there, what comes in between, and what comes then; and one that goes in the meantime takes its place along.
pub fn a_guest_that_comes_back_at_once_loses_nothing<R: Rig>() {
    let mut bench = Bench::<R>::new();
    for (is_read, comes_between) in [(true, false), (true, true), (false, false), (false, true)] {
        let (mut peer, slot) = bench.guest();
        let watch = bench.submit(|token| Op::WatchOnce { slot, token });
        bench.peer_writes(&mut peer, b"ab");
        bench.expect_ready(watch);
        let mut received = if is_read { bench.receive_all(slot, 2) } else { bench.receive(slot, 1).unwrap().0 };
        let (mut other, gone) = bench.guest();
        let watch = bench.submit(|token| Op::WatchOnce { slot: gone, token });
        bench.peer_writes(&mut other, b"x");
        bench.expect_ready(watch);
        // Two are given out at once: one comes back, the other, of whom there is more to hear, goes.
        let (back, away) = (bench.driver.detach(slot, true), bench.driver.detach(gone, true));
        let (back, away) = if comes_between { (away, back) } else { (back, away) };
        let (mut peer, mut received) =
            if comes_between { (other, Vec::new()) } else { (peer, std::mem::take(&mut received)) };
        drop(away);
        if comes_between {
            peer.write(b"b").unwrap();
        }
        let slot = bench.install(back);
        let watch = bench.submit(|token| Op::Watch { slot, token });
        let expected: &[u8] = if comes_between { b"xb" } else { b"ab" };
        if received.len() < expected.len() {
            bench.expect_ready(watch);
            let rest = bench.receive_all(slot, expected.len() - received.len());
            received.extend(rest);
        }
        assert_eq!(received, expected);
        bench.peer_writes(&mut peer, b"c");
        bench.expect_ready(watch);
        assert_eq!(bench.receive_all(slot, 1), b"c");
        bench.unwatch(slot, watch);
        bench.driver.close(slot);
        assert_eq!(bench.driver.slots_open(), 0);
    }
}

pub fn a_guest_that_was_to_stay_may_go_elsewhere<R: Rig>() {
    let mut bench = Bench::<R>::new();
    let mut other = bench.rig.driver(None);
    let (mut peer, socket) = let_stay(&mut bench);
    std::mem::swap(&mut bench.driver, &mut other);
    let slot = bench.install(socket);
    let watch = hear_the_rest(&mut bench, &mut peer, slot);
    // Who had it before hears nothing of it.
    let mut heard = Vec::new();
    other.poll(Wait::No, usize::MAX, &mut heard).expect("it can be polled");
    assert!(heard.is_empty(), "{heard:?}");
    bench.unwatch(slot, watch);
    bench.driver.close(slot);
    assert_eq!((bench.driver.slots_open(), other.slots_open()), (0, 0));
}

pub fn every_install_of_a_batch_gets_its_own_slot<R: Rig>() {
    let mut bench = Bench::<R>::new();
    let pairs: Vec<_> = (0..100).map(|_| bench.pair()).collect();
    let mut peers = Vec::new();
    for (peer, socket) in pairs {
        let install = bench.submit(|token| Op::Install { socket, token });
        peers.push((peer, install));
    }
    let mut slots = HashSet::new();
    for (number, (mut peer, install)) in peers.into_iter().enumerate() {
        let Outcome::Installed(slot) = bench.expect(install) else { panic!("not installed") };
        assert!(slots.insert(slot), "a slot was given out twice");
        bench.send_all(slot, &[number as u8]);
        assert_eq!(bench.peer_reads(&mut peer, 1), [number as u8], "the token belongs to another socket");
    }
    for slot in slots {
        bench.driver.close(slot);
    }
}

pub fn installs_spill_over_small_tables_and_places_are_used_again<R: Rig>() {
    let mut bench = Bench::<R>::with_tables(Some(8));
    let mut open = Vec::new();
    for _ in 0..3 {
        let pairs: Vec<_> = (0..30).map(|_| bench.pair()).collect();
        let mut installs = Vec::new();
        for (peer, socket) in pairs {
            let install = bench.submit(|token| Op::Install { socket, token });
            installs.push((peer, install));
        }
        for (peer, install) in installs {
            let Outcome::Installed(slot) = bench.expect(install) else { panic!("not installed") };
            let watch = bench.submit(|token| Op::Watch { slot, token });
            open.push((peer, slot, watch));
        }
        let distinct: HashSet<_> = open.iter().map(|(_, slot, _)| *slot).collect();
        assert_eq!(distinct.len(), open.len());
        // Every table's slots are watched, received from, sent to and ended, in whichever table they are.
        for (number, (peer, slot, watch)) in open.iter_mut().enumerate() {
            bench.peer_writes(peer, &[number as u8, 1]);
            bench.expect_ready(*watch);
            assert_eq!(bench.receive_all(*slot, 2), [number as u8, 1]);
            bench.send_all(*slot, &[number as u8, 2]);
            assert_eq!(bench.peer_reads(peer, 2), [number as u8, 2]);
        }
        for (mut peer, slot, watch) in open.split_off(10) {
            bench.unwatch(slot, watch);
            bench.driver.close(slot);
            bench.peer_ends(&mut peer);
        }
        assert_eq!(bench.driver.slots_open(), 10);
    }
}

pub fn a_slot_is_free_for_the_next_socket_after_its_close<R: Rig>() {
    let mut bench = Bench::<R>::with_tables(Some(4));
    for round in 0..40u8 {
        let (mut peer, slot) = bench.installed();
        let watch = bench.submit(|token| Op::Watch { slot, token });
        bench.peer_writes(&mut peer, &[round]);
        bench.expect_ready(watch);
        assert_eq!(bench.receive_all(slot, 1), [round], "bytes of an earlier connection");
        bench.shutdown(slot);
        bench.unwatch(slot, watch);
        bench.driver.close(slot);
    }
}

pub fn closing_tells_the_peer<R: Rig>() {
    let mut bench = Bench::<R>::new();
    for installed in [false, true] {
        let (mut peer, slot) = if installed { bench.installed() } else { bench.guest() };
        let watch =
            bench.submit(|token| if installed { Op::Watch { slot, token } } else { Op::WatchOnce { slot, token } });
        bench.round();
        bench.unwatch(slot, watch);
        bench.driver.close(slot);
        bench.peer_ends(&mut peer);
    }
}

pub fn open_slots_are_counted<R: Rig>() {
    let mut bench = Bench::<R>::new();
    assert_eq!(bench.driver.slots_open(), 0);
    let (_first, guest) = bench.guest();
    assert_eq!(bench.driver.slots_open(), 1);
    let (_second, installed) = bench.installed();
    assert_eq!(bench.driver.slots_open(), 2);
    let _socket = bench.driver.detach(guest, false);
    assert_eq!(bench.driver.slots_open(), 1);
    bench.driver.close(installed);
    assert_eq!(bench.driver.slots_open(), 0);
}
