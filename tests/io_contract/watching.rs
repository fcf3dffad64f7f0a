use crate::rig::{Bench, Peer, Rig};
use kittiwake::io::{Driver, Op, Outcome};
use socket2::SockRef;
use std::io::ErrorKind;
use std::net::TcpStream;
use std::panic::{AssertUnwindSafe, catch_unwind};

pub fn a_watch_says_ready_again_and_again<R: Rig>() {
    let mut bench = Bench::<R>::new();
    let (mut peer, slot) = bench.installed();
    let watch = bench.submit(|token| Op::Watch { slot, token });
    for round in 0..50u8 {
        bench.peer_writes(&mut peer, &[round; 3]);
        bench.expect_ready(watch);
        assert_eq!(bench.receive_all(slot, 3), [round; 3]);
        // What was said too often is passed over: the next bytes must bring a Ready of their own.
        assert!(bench.receive(slot, 512).is_err());
        while bench.take(watch).is_some() {}
    }
    bench.unwatch(slot, watch);
    bench.driver.close(slot);
}

pub fn a_watch_says_ready_for_what_came_before_it<R: Rig>() {
    let mut bench = Bench::<R>::new();
    let (mut peer, slot) = bench.installed();
    bench.peer_writes(&mut peer, b"early");
    let watch = bench.submit(|token| Op::Watch { slot, token });
    bench.expect_ready(watch);
    assert_eq!(bench.receive_all(slot, 5), b"early");
    bench.unwatch(slot, watch);
    bench.driver.close(slot);
}

pub fn a_watch_says_ready_at_the_peers_end<R: Rig>() {
    let mut bench = Bench::<R>::new();
    let (peer, slot) = bench.installed();
    let watch = bench.submit(|token| Op::Watch { slot, token });
    drop(peer);
    bench.expect_ready(watch);
    assert!(bench.receive(slot, 512).unwrap().0.is_empty());
    bench.unwatch(slot, watch);
    bench.driver.close(slot);
}

pub fn a_watch_once_says_ready_once<R: Rig>() {
    let mut bench = Bench::<R>::new();
    let (mut peer, slot) = bench.guest();
    let watch = bench.submit(|token| Op::WatchOnce { slot, token });
    bench.peer_writes(&mut peer, b"one");
    bench.expect_ready(watch);
    bench.peer_writes(&mut peer, b"two");
    assert!(bench.linger(watch).is_none(), "a one-shot watch has ended with its Ready");
    // Nothing is armed: it may go.
    let socket = bench.driver.detach(slot, false);
    let slot = bench.install(socket);
    assert_eq!(bench.receive_all(slot, 6), b"onetwo");
    bench.driver.close(slot);
}

pub fn a_watch_once_can_be_armed_again<R: Rig>() {
    let mut bench = Bench::<R>::new();
    let (mut peer, slot) = bench.guest();
    for round in 0..20u8 {
        let watch = bench.submit(|token| Op::WatchOnce { slot, token });
        bench.peer_writes(&mut peer, &[round]);
        bench.expect_ready(watch);
        assert_eq!(bench.receive_all(slot, 1), [round]);
    }
    bench.driver.close(slot);
}

pub fn a_watch_once_is_told_of_what_came_while_nobody_watched<R: Rig>() {
    let mut bench = Bench::<R>::new();
    let (mut peer, slot) = bench.guest();
    for round in 0..20u8 {
        let watch = bench.submit(|token| Op::WatchOnce { slot, token });
        bench.peer_writes(&mut peer, b"ab");
        bench.expect_ready(watch);
        // Half of it is received, or all and more comes; then nobody watches for a while.
        let half = if round % 2 == 0 { bench.receive_all(slot, 2) } else { bench.receive(slot, 1).unwrap().0 };
        if half.len() == 2 {
            bench.peer_writes(&mut peer, b"b");
        }
        assert!(bench.linger(watch).is_none());
        let watch = bench.submit(|token| Op::WatchOnce { slot, token });
        bench.expect_ready(watch);
        assert_eq!(bench.receive_all(slot, 1), b"b");
        assert_eq!(bench.receive(slot, 512).unwrap_err().kind(), ErrorKind::WouldBlock);
    }
    bench.driver.close(slot);
}

pub fn a_peers_end_right_behind_its_bytes_is_not_missed<R: Rig>() {
    for once in [false, true] {
        let mut bench = Bench::<R>::new();
        let (mut peer, slot) = if once { bench.guest() } else { bench.installed() };
        let arm = |bench: &mut Bench<R>| {
            bench.submit(|token| if once { Op::WatchOnce { slot, token } } else { Op::Watch { slot, token } })
        };
        let mut watch = arm(&mut bench);
        bench.peer_writes(&mut peer, b"last words");
        drop(peer);
        bench.expect_ready(watch);
        let (bytes, more) = bench.receive(slot, 512).unwrap();
        assert_eq!(bytes, b"last words");
        if !more {
            // Then it is to be told of the end by itself.
            if once {
                watch = arm(&mut bench);
            }
            bench.expect_ready(watch);
        }
        assert!(bench.receive(slot, 512).unwrap().0.is_empty());
        if !once {
            bench.unwatch(slot, watch);
        }
        bench.driver.close(slot);
    }
}

/// Whatever a peer means by it: a receive ends before an urgent byte, and the kernel drops that byte.
pub fn bytes_behind_an_urgent_one_are_not_missed<R: Rig<Peer = TcpStream>>() {
    let mut bench = Bench::<R>::new();
    let (mut peer, slot) = bench.installed();
    let watch = bench.submit(|token| Op::Watch { slot, token });
    for _ in 0..3 {
        Peer::write(&mut peer, b"before").unwrap();
        SockRef::from(&peer).send_out_of_band(b"!").unwrap();
        Peer::write(&mut peer, b"behind").unwrap();
        let mut received = Vec::new();
        // As the engine does: it waits to be told unless it knows that there is more.
        let mut more = false;
        while received.len() < 12 {
            if !more {
                bench.expect_ready(watch);
            }
            more = match bench.receive(slot, 512) {
                Ok((bytes, more)) => {
                    received.extend(bytes);
                    more
                }
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::WouldBlock);
                    false
                }
            };
        }
        assert_eq!(received, b"beforebehind");
    }
    bench.unwatch(slot, watch);
    bench.driver.close(slot);
}

pub fn a_watch_once_can_be_ended_before_it_fires<R: Rig>() {
    let mut bench = Bench::<R>::new();
    let (mut peer, slot) = bench.guest();
    let watch = bench.submit(|token| Op::WatchOnce { slot, token });
    bench.round();
    bench.driver.submit(Op::Unwatch { slot, token: watch });
    assert!(matches!(bench.expect(watch), Outcome::WatchEnded));
    bench.peer_writes(&mut peer, b"unheard");
    assert!(bench.linger(watch).is_none());
    bench.driver.close(slot);
}

pub fn an_unwatch_ends_a_watch_exactly_once<R: Rig>() {
    let mut bench = Bench::<R>::new();
    let (mut peer, slot) = bench.installed();
    let watch = bench.submit(|token| Op::Watch { slot, token });
    bench.round();
    bench.driver.submit(Op::Unwatch { slot, token: watch });
    bench.driver.submit(Op::Unwatch { slot, token: watch });
    assert!(matches!(bench.expect(watch), Outcome::WatchEnded));
    bench.peer_writes(&mut peer, b"unheard");
    assert!(bench.linger(watch).is_none(), "a watch ends once");
    bench.driver.close(slot);
}

pub fn an_unwatch_after_the_end_says_nothing<R: Rig>() {
    let mut bench = Bench::<R>::new();
    let (mut peer, slot) = bench.guest();
    let watch = bench.submit(|token| Op::WatchOnce { slot, token });
    bench.peer_writes(&mut peer, b"one");
    bench.expect_ready(watch);
    bench.driver.submit(Op::Unwatch { slot, token: watch });
    assert!(bench.linger(watch).is_none());
    // An unwatch names its watch: a later one is not meant.
    let again = bench.submit(|token| Op::WatchOnce { slot, token });
    bench.driver.submit(Op::Unwatch { slot, token: watch });
    bench.expect_ready(again);
    bench.driver.close(slot);
}

pub fn an_unwatch_with_a_busy_peer_still_ends_the_watch<R: Rig>() {
    let mut bench = Bench::<R>::new();
    for _ in 0..200 {
        let (mut peer, slot) = bench.installed();
        let watch = bench.submit(|token| Op::Watch { slot, token });
        bench.round();
        bench.peer_writes(&mut peer, b"a");
        let _ = peer.write(b"b");
        bench.driver.submit(Op::Unwatch { slot, token: watch });
        let _ = peer.write(b"c");
        let end = bench.until("the watch's end", |bench| match bench.take(watch)? {
            Outcome::Ready => None,
            other => Some(other),
        });
        assert!(matches!(end, Outcome::WatchEnded));
        bench.driver.close(slot);
    }
}

pub fn a_slot_can_be_watched_again_after_an_unwatch<R: Rig>() {
    let mut bench = Bench::<R>::new();
    let (mut peer, slot) = bench.installed();
    for round in 0..10u8 {
        let watch = bench.submit(|token| Op::Watch { slot, token });
        bench.peer_writes(&mut peer, &[round]);
        bench.expect_ready(watch);
        assert_eq!(bench.receive_all(slot, 1), [round]);
        bench.unwatch(slot, watch);
    }
    bench.driver.close(slot);
}

pub fn a_paused_slot_loses_nothing<R: Rig>() {
    let mut bench = Bench::<R>::new();
    let (mut peer, slot) = bench.installed();
    let watch = bench.submit(|token| Op::Watch { slot, token });
    bench.driver.set_reading(slot, false);
    bench.driver.set_reading(slot, false);
    bench.peer_writes(&mut peer, b"later");
    // Level-triggered drivers say nothing now, edge-triggered ones may have said it once. As the engine does, remember.
    let early = bench.linger(watch).is_some();
    assert!(bench.linger(watch).is_none(), "a paused slot is not reported again and again");
    bench.driver.set_reading(slot, true);
    if !early {
        bench.expect_ready(watch);
    }
    assert_eq!(bench.receive_all(slot, 5), b"later");
    assert_eq!(bench.receive(slot, 512).unwrap_err().kind(), ErrorKind::WouldBlock);
    bench.driver.set_reading(slot, false);
    bench.unwatch(slot, watch);
    // A new watch begins with reading on.
    let watch = bench.submit(|token| Op::Watch { slot, token });
    bench.peer_writes(&mut peer, b"x");
    bench.expect_ready(watch);
    bench.unwatch(slot, watch);
    bench.driver.close(slot);
}

pub fn a_slot_must_not_be_closed_while_it_is_watched<R: Rig>() {
    let mut bench = Bench::<R>::new();
    let (_peer, slot) = bench.installed();
    let watch = bench.submit(|token| Op::Watch { slot, token });
    bench.round();
    assert!(catch_unwind(AssertUnwindSafe(|| bench.driver.close(slot))).is_err(), "closed with a watch in flight");
    bench.driver.submit(Op::Unwatch { slot, token: watch });
    // Asked for is not joined: its end has not been reaped.
    assert!(catch_unwind(AssertUnwindSafe(|| bench.driver.close(slot))).is_err(), "closed before the watch's end");
    bench.until("the end", |bench| matches!(bench.take(watch), Some(Outcome::WatchEnded)).then_some(()));
    bench.driver.close(slot);
}
