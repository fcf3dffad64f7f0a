//! What a process without free fds does. The limit is the process's, so each test runs itself again in one of its own.

use crate::kernel::{Epoll, Uring};
use crate::rig::{Bench, Rig};
use kittiwake::io::{Driver, Op, Outcome};
use std::fs::File;
use std::process::Command;

/// Set in the process whose fds are few.
const INSIDE: &str = "KITTIWAKE_CONTRACT_FEW_FDS";
const FDS: usize = 128;
const PEERS: usize = 8;

/// Runs the named test of this binary under a low soft limit.
fn run_inside(test: &str) {
    let binary = std::env::current_exe().unwrap();
    let output = Command::new("sh")
        .args(["-c", &format!("ulimit -Sn {FDS} && exec \"$0\" --exact {test} --nocapture")])
        .arg(binary)
        .env(INSIDE, "1")
        .output()
        .unwrap();
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{printed}{}", String::from_utf8_lossy(&output.stderr));
    assert!(printed.contains("1 passed"), "{test} did not run: {printed}");
}

/// Takes every free fd but `spare`.
fn hoard(spare: usize) -> Vec<File> {
    let mut files: Vec<_> = std::iter::from_fn(|| File::open("/dev/null").ok()).take(FDS).collect();
    assert!(files.len() < FDS, "the limit is not in force");
    files.truncate(files.len() - spare);
    files
}

fn accepting_without_fds_ends_and_goes_on_later<R: Rig>() {
    let mut bench = Bench::<R>::new();
    let (listener, address) = bench.listen();
    let peers: Vec<_> = (0..PEERS).map(|_| bench.rig.connect(address)).collect();
    let hoarded = hoard(3);
    let accept = bench.submit(|token| Op::Accept { listener, token });
    let mut accepted = Vec::new();
    let error = loop {
        match bench.expect(accept) {
            Outcome::Accepted { socket, .. } => accepted.push(socket),
            Outcome::AcceptEnded(error) => break error.expect("nobody asked for the end"),
            other => panic!("not an outcome of an accept: {other:?}"),
        }
    };
    assert_eq!(error.raw_os_error(), Some(libc::EMFILE));
    assert!(accepted.len() <= 3);
    assert!(bench.linger(accept).is_none(), "an accept ends once");
    drop(hoarded);
    let again = bench.submit(|token| Op::Accept { listener, token });
    while accepted.len() < PEERS {
        accepted.push(bench.accepted(again).0);
    }
    bench.stop_accepting(listener, again);
    bench.driver.close_listener(listener);
    drop(peers);
}

#[test]
fn epoll_accepting_without_fds_ends_and_goes_on_later() {
    match std::env::var_os(INSIDE) {
        Some(_) => accepting_without_fds_ends_and_goes_on_later::<Epoll>(),
        None => run_inside("exhausting::epoll_accepting_without_fds_ends_and_goes_on_later"),
    }
}

#[test]
fn uring_accepting_without_fds_ends_and_goes_on_later() {
    match std::env::var_os(INSIDE) {
        Some(_) => accepting_without_fds_ends_and_goes_on_later::<Uring>(),
        None => run_inside("exhausting::uring_accepting_without_fds_ends_and_goes_on_later"),
    }
}

/// Direct descriptors do not count as fds: a shard holds more connections than it has fds.
fn installing_frees_the_fd() {
    let mut bench = Bench::<Uring>::with_tables(Some(FDS / 2));
    let mut slots = Vec::new();
    for _ in 0..3 * FDS {
        let (_, slot) = bench.installed();
        slots.push(slot);
    }
    assert_eq!(bench.driver.slots_open(), 3 * FDS);
    for slot in slots {
        bench.driver.close(slot);
    }
    bench.round();
    assert_eq!(bench.driver.slots_open(), 0);
}

#[test]
fn uring_holds_more_slots_than_the_process_has_fds() {
    match std::env::var_os(INSIDE) {
        Some(_) => installing_frees_the_fd(),
        None => run_inside("exhausting::uring_holds_more_slots_than_the_process_has_fds"),
    }
}

/// Without fds no further ring can be made: the installs fail, and their sockets come back whole.
fn installing_without_fds_gives_the_sockets_back() {
    let mut bench = Bench::<Uring>::with_tables(Some(4));
    let pairs: Vec<_> = (0..7).map(|_| bench.pair()).collect();
    let (mut peers, mut installs) = (Vec::new(), Vec::new());
    let hoarded = hoard(0);
    for (peer, socket) in pairs {
        peers.push(peer);
        installs.push(bench.submit(|token| Op::Install { socket, token }));
    }
    let (mut slots, mut refused) = (Vec::new(), Vec::new());
    for install in installs {
        match bench.expect(install) {
            Outcome::Installed(slot) => slots.push(slot),
            Outcome::InstallFailed { socket, error } => {
                assert_eq!(error.raw_os_error(), Some(libc::EMFILE));
                refused.push(socket);
            }
            other => panic!("not an outcome of an install: {other:?}"),
        }
    }
    assert_eq!((slots.len(), refused.len()), (4, 3));
    drop(hoarded);
    for (number, socket) in refused.into_iter().enumerate() {
        let slot = bench.install(socket);
        bench.send_all(slot, b"whole");
        assert_eq!(bench.peer_reads(&mut peers[4 + number], 5), b"whole");
        slots.push(slot);
    }
    for slot in slots {
        bench.driver.close(slot);
    }
}

#[test]
fn uring_installs_without_fds_give_the_sockets_back() {
    match std::env::var_os(INSIDE) {
        Some(_) => installing_without_fds_gives_the_sockets_back(),
        None => run_inside("exhausting::uring_installs_without_fds_give_the_sockets_back"),
    }
}
