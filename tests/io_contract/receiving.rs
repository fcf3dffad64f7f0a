use crate::rig::{Bench, Peer, Rig, pattern};
use kittiwake::io::{Driver, Op, Slot};
use std::io::ErrorKind;

fn echo<R: Rig>(bench: &mut Bench<R>, peer: &mut R::Peer, slot: Slot) {
    for round in 1..20 {
        let bytes = pattern(round, round * 37);
        bench.peer_writes(peer, &bytes);
        let received = bench.receive_all(slot, bytes.len());
        assert_eq!(received, bytes);
        bench.send_all(slot, &received);
        assert_eq!(bench.peer_reads(peer, bytes.len()), bytes);
    }
    bench.driver.close(slot);
    assert_eq!(bench.pool.out(), 0);
}

pub fn bytes_are_received_and_echoed_by_a_guest<R: Rig>() {
    let mut bench = Bench::<R>::new();
    let (mut peer, slot) = bench.guest();
    echo(&mut bench, &mut peer, slot);
}

pub fn bytes_are_received_and_echoed_by_an_installed_slot<R: Rig>() {
    let mut bench = Bench::<R>::new();
    let (mut peer, slot) = bench.installed();
    echo(&mut bench, &mut peer, slot);
}

pub fn a_receive_that_finds_nothing_would_block<R: Rig>() {
    let mut bench = Bench::<R>::new();
    for installed in [false, true] {
        let (_peer, slot) = if installed { bench.installed() } else { bench.guest() };
        assert_eq!(bench.receive(slot, 512).unwrap_err().kind(), ErrorKind::WouldBlock);
        bench.driver.close(slot);
    }
}

pub fn a_full_block_says_that_there_is_more<R: Rig>() {
    let mut bench = Bench::<R>::new();
    let (mut peer, slot) = bench.installed();
    let watch = bench.submit(|token| Op::Watch { slot, token });
    bench.peer_writes(&mut peer, &pattern(0, 5_000));
    let mut all = Vec::new();
    let mut fulls = 0;
    while all.len() < 5_000 {
        // After `more` a receive needs no `Ready`; otherwise the next bytes bring one.
        bench.expect_ready(watch);
        loop {
            match bench.receive(slot, 512) {
                Ok((bytes, more)) => {
                    assert!(more || bytes.len() < 512 || all.len() + 512 == 5_000, "a full block has more behind it");
                    fulls += usize::from(more);
                    all.extend(bytes);
                    if !more {
                        break;
                    }
                }
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::WouldBlock);
                    break;
                }
            }
        }
    }
    assert_eq!(all, pattern(0, 5_000));
    assert!(fulls > 0);
    bench.unwatch(slot, watch);
    bench.driver.close(slot);
}

pub fn an_ended_peer_is_received_as_zero_bytes<R: Rig>() {
    let mut bench = Bench::<R>::new();
    let (mut peer, slot) = bench.installed();
    let watch = bench.submit(|token| Op::Watch { slot, token });
    peer.finish();
    bench.expect_ready(watch);
    let (bytes, more) = bench.receive(slot, 512).unwrap();
    assert!(bytes.is_empty() && !more);
    // Only the peer's side has ended.
    bench.send_all(slot, b"still here");
    assert_eq!(bench.peer_reads(&mut peer, 10), b"still here");
    bench.unwatch(slot, watch);
    bench.driver.close(slot);
}

pub fn a_reset_peer_is_an_error<R: Rig>() {
    let mut bench = Bench::<R>::new();
    let (peer, slot) = bench.installed();
    let watch = bench.submit(|token| Op::Watch { slot, token });
    peer.reset();
    bench.expect_ready(watch);
    assert_eq!(bench.receive(slot, 512).unwrap_err().kind(), ErrorKind::ConnectionReset);
    bench.unwatch(slot, watch);
    bench.driver.close(slot);
}

pub fn bytes_before_the_peers_end_are_received_first<R: Rig>() {
    let mut bench = Bench::<R>::new();
    let (mut peer, slot) = bench.guest();
    bench.peer_writes(&mut peer, b"last words");
    peer.finish();
    assert_eq!(bench.receive_all(slot, usize::MAX), b"last words");
    bench.driver.close(slot);
}
