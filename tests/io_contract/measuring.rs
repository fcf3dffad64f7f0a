//! What the drivers add to the bare system calls. Ratios of CPU time taken side by side, printed, not asserted:
//! `cargo test --release --test io_contract measuring -- --ignored --nocapture --test-threads 1`.

use crate::kernel::{Epoll, Uring};
use crate::rig::{Bench, Peer, Rig};
use bytes::Bytes;
use kittiwake::io::{Completion, Driver, Op, Outcome, Segment, Slot, Token, Wait};

use std::net::{TcpListener, TcpStream};

const CONNECTIONS: usize = 2_000;
const ROUNDS: usize = 15;
/// Sends to each socket in one measured stretch: the kernel accounts a running thread in steps of a tick, 4 ms here, so
/// a stretch takes about fifty of them.
const REPEATS: usize = 16;
const PAYLOAD: [u8; 64] = [7; 64];

/// Nanoseconds this thread has spent on a processor.
fn cpu_ns() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    text.split_whitespace().next().unwrap().parse().unwrap()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn drain(peers: &mut [TcpStream]) {
    let mut buffer = [0; 4_096];
    for peer in peers {
        while matches!(Peer::read(peer, &mut buffer), Ok(1..)) {}
    }
}

/// Sockets without a driver, and their peers.
fn bare() -> (Vec<TcpStream>, Vec<TcpStream>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = listener.local_addr().unwrap();
    (0..CONNECTIONS)
        .map(|_| {
            let peer = TcpStream::connect(address).unwrap();
            peer.set_nonblocking(true).unwrap();
            let (socket, _) = listener.accept().unwrap();
            socket.set_nonblocking(true).unwrap();
            socket.set_nodelay(true).unwrap();
            (socket, peer)
        })
        .unzip()
}

fn driver_sends<D: Driver>(driver: &mut D, slots: &[Slot], completions: &mut Vec<Completion>) {
    let payload = Bytes::from_static(&PAYLOAD);
    for chunk in slots.chunks(512) {
        for (number, slot) in chunk.iter().enumerate() {
            let segment = Segment::Shared(payload.clone());
            driver.submit(Op::Send { slot: *slot, segment, more: false, token: Token(number as u64) });
        }
        let mut sent = 0;
        while sent < chunk.len() {
            driver.poll(Wait::No, 4_096, completions).unwrap();
            sent += completions.drain(..).filter(|c| matches!(c.outcome, Outcome::Sent { .. })).count();
        }
    }
}

fn measure<R: Rig<Peer = TcpStream>>() {
    let (mut sockets, mut bare_peers) = bare();
    let mut bench = Bench::<R>::new();
    let (mut peers, slots): (Vec<_>, Vec<_>) = (0..CONNECTIONS).map(|_| bench.installed()).unzip();
    // As in service: a watch on every one.
    for slot in &slots {
        bench.submit(|token| Op::Watch { slot: *slot, token });
    }
    let mut completions = Vec::new();
    let (mut floors, mut drivers, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let start = cpu_ns();
        for _ in 0..REPEATS {
            for socket in &mut sockets {
                assert_eq!(Peer::write(socket, &PAYLOAD).unwrap(), PAYLOAD.len());
            }
        }
        let middle = cpu_ns();
        for _ in 0..REPEATS {
            driver_sends(&mut bench.driver, &slots, &mut completions);
        }
        let end = cpu_ns();
        drain(&mut bare_peers);
        drain(&mut peers);
        let (floor, driver) = ((middle - start) as f64, (end - middle) as f64);
        floors.push(floor / (CONNECTIONS * REPEATS) as f64);
        drivers.push(driver / (CONNECTIONS * REPEATS) as f64);
        ratios.push(driver / floor);
    }
    println!(
        "{}: send of 64 B to {CONNECTIONS} sockets: bare {:.0} ns, driver {:.0} ns, ratio {:.3} (medians of {ROUNDS})",
        bench.driver.name(),
        median(floors),
        median(drivers),
        median(ratios),
    );
}

#[test]
#[ignore = "prints a measurement; asserts nothing"]
fn epoll_sends_cost_little_more_than_bare_ones() {
    measure::<Epoll>();
}

#[test]
#[ignore = "prints a measurement; asserts nothing"]
fn uring_sends_cost_little_more_than_bare_ones() {
    measure::<Uring>();
}
