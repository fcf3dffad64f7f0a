//! What only a kernel's driver can get wrong: completions of several rings, more of them than queues hold, and what comes while there is other work.

use crate::kernel::{Epoll, Uring};
use crate::rig::{Bench, Peer, Rig};
use kittiwake::io::{Driver, Op, Outcome, Slot, Token, Wait};
use std::net::TcpStream;
use std::sync::mpsc;

/// More sockets become ready at once than the completion queues of their rings hold.
#[test]
fn uring_loses_no_ready_when_every_socket_speaks_at_once() {
    let mut bench = Bench::<Uring>::with_tables(Some(300));
    let mut all: Vec<_> = (0..900)
        .map(|_| {
            let (peer, slot) = bench.installed();
            (peer, slot, bench.submit(|token| Op::Watch { slot, token }))
        })
        .collect();
    for round in 0..5u8 {
        for (peer, ..) in &mut all {
            assert_eq!(peer.write(&[round]).unwrap(), 1);
        }
        for (_, slot, watch) in &all {
            bench.expect_ready(*watch);
            assert_eq!(bench.receive_all(*slot, 1), [round]);
        }
    }
}

/// A wait that lasts this long means that a completion did not end it.
const LATER_MS: u64 = 20_000;

/// Each byte, from another thread, at any moment of the driver's falling asleep, must end a wait.
fn every_byte_ends_a_wait<R: Rig<Peer = TcpStream>>(table_slots: Option<usize>) {
    const SOCKETS: usize = 9;
    const BYTES: usize = 2_000;
    let mut bench = Bench::<R>::with_tables(table_slots);
    let mut peers = Vec::new();
    let mut watched: Vec<(Slot, Token)> = Vec::new();
    for _ in 0..SOCKETS {
        let (peer, slot) = bench.installed();
        watched.push((slot, bench.submit(|token| Op::Watch { slot, token })));
        peers.push(peer);
    }
    bench.round();
    let (next, received) = mpsc::channel::<usize>();
    let writer = std::thread::spawn(move || {
        for number in received {
            assert_eq!(Peer::write(&mut peers[number % SOCKETS], &[number as u8]).unwrap(), 1);
        }
    });
    for number in 0..BYTES {
        let (slot, watch) = watched[number % SOCKETS];
        next.send(number).unwrap();
        let got = loop {
            while bench.take(watch).is_some() {}
            if let Ok((bytes, _)) = bench.receive_in_long_waits(slot, LATER_MS) {
                break bytes;
            }
            bench.wait_for(watch, LATER_MS);
        };
        assert_eq!(got, [number as u8]);
    }
    drop(next);
    writer.join().unwrap();
}

#[test]
fn epoll_every_byte_ends_a_wait() {
    every_byte_ends_a_wait::<Epoll>(None);
}

#[test]
fn uring_every_byte_ends_a_wait() {
    every_byte_ends_a_wait::<Uring>(None);
}

#[test]
fn uring_every_byte_of_a_slot_ring_ends_a_wait() {
    every_byte_ends_a_wait::<Uring>(Some(2));
}

/// A driver that has something of its own at hand in every poll looks at the others' arrivals all the same.
fn arrivals_are_found_beside_a_busy_socket<R: Rig<Peer = TcpStream>>() {
    const POLLS: usize = 4;
    let mut bench = Bench::<R>::new();
    let (mut peer, slot) = bench.installed();
    let (_busy_peer, busy) = bench.installed();
    let watch = bench.submit(|token| Op::Watch { slot, token });
    for round in 0..100u8 {
        bench.peer_writes(&mut peer, &[round]);
        let mut polls = 0;
        while bench.take(watch).is_none() {
            assert!(polls < POLLS, "not seen in {POLLS} polls");
            let segment = bench.segment(b".");
            let send = bench.submit(|token| Op::Send { slot: busy, segment, more: false, token });
            bench.poll(Wait::No, 512);
            let sent = bench.take(send).expect("a send that finds room is done when it is polled for");
            bench.drop_segment(Bench::<R>::sent(sent).0);
            polls += 1;
        }
        assert_eq!(bench.receive_all(slot, 1), [round]);
    }
}

#[test]
fn epoll_finds_arrivals_beside_a_busy_socket() {
    arrivals_are_found_beside_a_busy_socket::<Epoll>();
}

#[test]
fn uring_finds_arrivals_beside_a_busy_socket() {
    arrivals_are_found_beside_a_busy_socket::<Uring>();
}

/// Closing many and installing many in one turn: a place is given out again only when the kernel has freed it.
#[test]
fn uring_replaces_a_full_table_in_one_turn() {
    let mut bench = Bench::<Uring>::with_tables(Some(16));
    let mut open: Vec<_> = (0..16).map(|_| bench.installed()).collect();
    for round in 0..10u8 {
        let fresh: Vec<_> = (0..16).map(|_| bench.pair()).collect();
        let mut installs = Vec::new();
        for ((old, slot), (peer, socket)) in open.drain(..).zip(fresh) {
            bench.driver.close(slot);
            drop(old);
            installs.push((peer, bench.submit(|token| Op::Install { socket, token })));
        }
        for (mut peer, install) in installs {
            let Outcome::Installed(slot) = bench.expect(install) else { panic!("not installed") };
            bench.peer_writes(&mut peer, &[round]);
            assert_eq!(bench.receive_all(slot, 1), [round]);
            open.push((peer, slot));
        }
        assert_eq!(bench.driver.slots_open(), 16);
    }
}

impl<R: Rig> Bench<R> {
    /// The next completion with that token, from waits that nothing else ends.
    fn wait_for(&mut self, token: Token, later_ms: u64) -> Outcome {
        let (start, _) = self.poll(Wait::No, 512);
        loop {
            if let Some(outcome) = self.take(token) {
                return outcome;
            }
            let (now, _) = self.poll(Wait::Until(start + later_ms), 512);
            assert!(now < start + later_ms, "a completion did not end a wait");
        }
    }

    fn receive_in_long_waits(&mut self, slot: Slot, later_ms: u64) -> std::io::Result<(Vec<u8>, bool)> {
        let block = self.block(512);
        let token = self.submit(|token| Op::Receive { slot, block, token });
        match self.wait_for(token, later_ms) {
            Outcome::Received { block, count, more } => {
                let bytes = block.bytes()[..count].to_vec();
                self.pool.give(block);
                Ok((bytes, more))
            }
            Outcome::ReceiveFailed { block, error } => {
                self.pool.give(block);
                Err(error)
            }
            other => panic!("not an outcome of a receive: {other:?}"),
        }
    }
}
