use crate::rig::{Bench, Peer, Rig};
use kittiwake::io::{Driver, Op, Outcome};
use std::net::SocketAddr;

pub fn a_peer_is_accepted_with_its_address<R: Rig>() {
    let mut bench = Bench::<R>::new();
    let (listener, address) = bench.listen();
    assert_ne!(address.port(), 0, "the driver says which port it got");
    let accept = bench.submit(|token| Op::Accept { listener, token });
    let peer = bench.rig.connect(address);
    let (_socket, peer_address) = bench.accepted(accept);
    assert_eq!(peer_address, peer.address());
    bench.stop_accepting(listener, accept);
    bench.driver.close_listener(listener);
}

pub fn accepting_stops_when_asked_and_loses_nobody<R: Rig>() {
    let mut bench = Bench::<R>::new();
    let (listener, address) = bench.listen();
    let accept = bench.submit(|token| Op::Accept { listener, token });
    let _first = bench.rig.connect(address);
    bench.accepted(accept);
    bench.stop_accepting(listener, accept);
    // Nothing is left to stop: nothing more is said.
    bench.driver.submit(Op::StopAccepting { listener });
    let second = bench.rig.connect(address);
    assert!(bench.linger(accept).is_none());
    let again = bench.submit(|token| Op::Accept { listener, token });
    let (_socket, peer_address) = bench.accepted(again);
    assert_eq!(peer_address, second.address());
    bench.stop_accepting(listener, again);
    bench.driver.close_listener(listener);
}

pub fn a_closed_listeners_address_can_be_bound_again_at_once<R: Rig>() {
    let mut bench = Bench::<R>::new();
    let (mut listener, address) = bench.listen();
    for _ in 0..3 {
        let accept = bench.submit(|token| Op::Accept { listener, token });
        let mut peer = bench.rig.connect(address);
        let (socket, _) = bench.accepted(accept);
        // Our end closes first, so that it is the one that lingers in TIME_WAIT.
        let slot = bench.install(socket);
        bench.driver.close(slot);
        bench.peer_ends(&mut peer);
        bench.stop_accepting(listener, accept);
        bench.driver.close_listener(listener);
        (listener, _) = bench.driver.listen(address, false).unwrap();
    }
    bench.driver.close_listener(listener);
}

pub fn two_drivers_share_an_address_when_asked_to<R: Rig>() {
    let mut bench = Bench::<R>::new();
    let (first, address) = bench.driver.listen(bench.rig.any_address(), true).unwrap();
    let mut other = bench.rig.driver(None);
    let (second, again) = other.listen(address, true).unwrap();
    assert_eq!(again, address);
    other.close_listener(second);
    bench.driver.close_listener(first);
}

pub fn an_address_in_use_is_an_error<R: Rig>() {
    let mut bench = Bench::<R>::new();
    let (listener, address) = bench.listen();
    let error = bench.driver.listen(address, false).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse);
    bench.driver.close_listener(listener);
}

pub fn a_thousand_peers_are_accepted_and_served<R: Rig>() {
    let mut bench = Bench::<R>::new();
    let (listener, address) = bench.listen();
    let accept = bench.submit(|token| Op::Accept { listener, token });
    let mut pairs = Vec::new();
    for _ in 0..1_000 {
        let peer = bench.rig.connect(address);
        let (socket, _) = bench.accepted(accept);
        pairs.push((peer, socket));
    }
    bench.stop_accepting(listener, accept);
    let mut open: Vec<_> = pairs
        .into_iter()
        .map(|(peer, socket)| {
            let install = bench.submit(|token| Op::Install { socket, token });
            (peer, install)
        })
        .collect::<Vec<_>>()
        .into_iter()
        .map(|(peer, install)| match bench.expect(install) {
            Outcome::Installed(slot) => (peer, slot),
            other => panic!("not installed: {other:?}"),
        })
        .collect();
    assert_eq!(bench.driver.slots_open(), 1_000);
    for (number, (peer, slot)) in open.iter_mut().enumerate() {
        let bytes = (number as u32).to_be_bytes();
        bench.peer_writes(peer, &bytes);
        assert_eq!(bench.receive_all(*slot, 4), bytes);
        bench.send_all(*slot, &bytes);
        assert_eq!(bench.peer_reads(peer, 4), bytes);
    }
    for (_, slot) in &open {
        bench.driver.close(*slot);
    }
    assert_eq!(bench.driver.slots_open(), 0);
    assert_eq!(bench.pool.out(), 0);
    bench.driver.close_listener(listener);
}

pub fn a_connection_can_be_opened<R: Rig>() {
    let mut bench = Bench::<R>::new();
    let (listener, remote) = bench.listen();
    let accept = bench.submit(|token| Op::Accept { listener, token });
    let local = Some(bench.rig.any_address());
    let connect = bench.submit(|token| Op::Connect { local, remote, token });
    let Outcome::Connected(ours) = bench.expect(connect) else { panic!("not connected") };
    let (theirs, _) = bench.accepted(accept);
    let (ours, theirs) = (bench.install(ours), bench.install(theirs));
    bench.send_all(ours, b"to the cliff");
    assert_eq!(bench.receive_all(theirs, 12), b"to the cliff");
    bench.driver.close(ours);
    bench.driver.close(theirs);
    bench.stop_accepting(listener, accept);
    bench.driver.close_listener(listener);
}

pub fn a_refused_connection_fails<R: Rig>() {
    let mut bench = Bench::<R>::new();
    let remote = bench.rig.dead_address();
    let connect = bench.submit(|token| Op::Connect { local: None, remote, token });
    match bench.expect(connect) {
        Outcome::ConnectFailed(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused),
        other => panic!("connected to nobody: {other:?}"),
    }
}

pub fn many_connections_are_opened_at_once<R: Rig>() {
    let mut bench = Bench::<R>::new();
    let (listener, remote) = bench.listen();
    let accept = bench.submit(|token| Op::Accept { listener, token });
    let connects: Vec<_> = (0..300).map(|_| bench.submit(|token| Op::Connect { local: None, remote, token })).collect();
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for connect in connects {
        match bench.expect(connect) {
            Outcome::Connected(socket) => ours.push(socket),
            other => panic!("not connected: {other:?}"),
        }
        theirs.push(bench.accepted(accept));
    }
    bench.stop_accepting(listener, accept);
    bench.driver.close_listener(listener);
}

pub fn a_port_that_is_taken_towards_the_same_remote_fails<R: Rig>() {
    let mut bench = Bench::<R>::new();
    let (listener, remote) = bench.listen();
    let accept = bench.submit(|token| Op::Accept { listener, token });
    let local = SocketAddr::new(remote.ip(), bench.rig.dead_address().port());
    let first = bench.submit(|token| Op::Connect { local: Some(local), remote, token });
    let Outcome::Connected(_ours) = bench.expect(first) else { panic!("not connected") };
    let (_theirs, peer) = bench.accepted(accept);
    assert_eq!(peer, local, "the caller's port is used");
    let second = bench.submit(|token| Op::Connect { local: Some(local), remote, token });
    match bench.expect(second) {
        Outcome::ConnectFailed(error) => assert!(error.raw_os_error().is_some()),
        other => panic!("two connections have the same addresses: {other:?}"),
    }
    bench.stop_accepting(listener, accept);
    bench.driver.close_listener(listener);
}
