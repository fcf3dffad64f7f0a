//! Ports for the processes under test.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process;
use std::sync::atomic::{AtomicU16, Ordering};

/// All of them lie below those that the kernel gives to connections by default (`ip_local_port_range` starts at
/// 32,768). One of that range may be free now and a moment later be the near end of another test's connection, of
/// which some tests have thousands.
const FIRST: u16 = 10_240;
/// Tests that run side by side are processes with ids near each other, so that each has ports of its own.
const PROCESSES: u16 = 1000;
const EACH: u16 = 20;

/// So many ports on loopback, one behind the other, on which nobody listens.
pub fn free<const COUNT: usize>() -> [SocketAddr; COUNT] {
    static TAKEN: AtomicU16 = AtomicU16::new(0);
    let count = u16::try_from(COUNT).expect("a test has a handful of them");
    let process = u16::try_from(process::id() % u32::from(PROCESSES)).expect("a remainder is less");
    for _ in 0..PROCESSES {
        let taken = TAKEN.fetch_add(count, Ordering::Relaxed);
        let first = FIRST + (process * EACH).wrapping_add(taken) % (PROCESSES * EACH);
        let mut at = 0;
        let ports = [(); COUNT].map(|()| {
            at += 1;
            SocketAddr::from((Ipv4Addr::LOCALHOST, first + at - 1))
        });
        if ports.iter().all(|port| TcpListener::bind(port).is_ok()) {
            return ports;
        }
    }
    panic!("somebody listens on every port from {FIRST} on");
}

#[test]
fn ports_of_a_test_are_none_that_a_connection_may_get() {
    let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").expect("the kernel says it");
    let first: u16 = range.split_whitespace().next().and_then(|port| port.parse().ok()).expect("it is a number");
    let mut had = std::collections::BTreeSet::new();
    for _ in 0..100 {
        let ports = free::<2>();
        assert_eq!(ports[1].port(), ports[0].port() + 1);
        for port in ports {
            assert!(port.port() < first, "{port} of {first}");
            assert!(had.insert(port), "{port} twice");
        }
    }
}
