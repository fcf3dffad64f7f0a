//! Ports for the processes under test.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process;
use std::sync::atomic::{AtomicU16, Ordering};

/// All of them lie below those that the kernel gives to connections by default. One of that range may be free now and a
/// moment later be the near end of another test's connection, of which some tests have thousands.
const FIRST: u16 = 10_240;
/// Where `ip_local_port_range` starts unless it is told otherwise.
const CONNECTIONS_FIRST: u16 = 32_768;
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
    let mut had = std::collections::BTreeSet::new();
    for _ in 0..100 {
        let ports = free::<2>();
        assert_eq!(ports[1].port(), ports[0].port() + 1);
        for port in ports {
            assert!((FIRST..CONNECTIONS_FIRST).contains(&port.port()), "{port}");
            assert!(had.insert(port), "{port} twice");
        }
    }
}
