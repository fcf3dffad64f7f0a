//! A flood: connections that are opened again and again from one address, on blocking sockets in a thread of its own,
//! and say nothing. Each is held until the server has closed it. One that the server has let in is ended from here as
//! soon as a later one is closed, for who is refused is refused in the order of arrival.

use crate::Failure;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::sockopt::set_socket_linger;
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, bind, connect, recv, socket_with};
use rustix::time::Timespec;
use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

/// A server that closes none of those it has not let in for so long does not refuse them.
const PATIENCE: Timespec = Timespec { tv_sec: 5, tv_nsec: 0 };
/// Connections that are looked at together when the oldest is still open.
const LOOK_MAX: usize = 64;

/// What is poured.
#[derive(Clone, Copy, Debug)]
pub struct Order {
    pub target: SocketAddr,
    /// The address that it comes from.
    pub source: IpAddr,
    pub connections: u64,
    /// New connections a second; 0: as fast as they are closed.
    pub rate: u32,
    /// Connections that are open at a time.
    pub window: usize,
}

/// What became of it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Poured {
    /// Connections that the server closed.
    pub closed: u64,
    /// Connections that it did not.
    pub let_in: u64,
    pub seconds: f64,
}

/// A flood under way.
#[derive(Debug)]
pub struct Flood(Receiver<Result<Poured, String>>);

impl Flood {
    pub fn start(order: Order) -> Result<Self, Failure> {
        let (done, poured) = channel();
        thread::Builder::new().name("flood".to_owned()).spawn(move || {
            // Nobody waits for it any more when the run has been interrupted.
            let _ = done.send(pour(order).map_err(|failure| failure.to_string()));
        })?;
        Ok(Self(poured))
    }

    /// Waits for its end; none if it goes on.
    pub fn wait(&self, time: Duration) -> Option<Result<Poured, Failure>> {
        match self.0.recv_timeout(time) {
            Ok(poured) => Some(poured.map_err(Failure::from)),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => Some(Err("the flood's thread ended badly".into())),
        }
    }
}

fn pour(order: Order) -> Result<Poured, Failure> {
    let (started, mut poured) = (Instant::now(), Poured::default());
    let mut open = VecDeque::with_capacity(order.window);
    for number in 0..order.connections {
        if let Some(nanos) = (number * 1_000_000_000).checked_div(u64::from(order.rate)) {
            let due = started + Duration::from_nanos(nanos);
            thread::sleep(due.saturating_duration_since(Instant::now()));
        }
        if open.len() >= order.window {
            see_off(&mut open, &mut poured)?;
        }
        open.push_back(knock(order.source, order.target)?);
    }
    while !open.is_empty() {
        see_off(&mut open, &mut poured)?;
    }
    poured.seconds = started.elapsed().as_secs_f64();
    Ok(poured)
}

/// Its end leaves nothing behind: a port that waits for late packets could not be used again for a minute.
fn knock(source: IpAddr, target: SocketAddr) -> Result<OwnedFd, Failure> {
    let family = if target.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    set_socket_linger(&socket, Some(Duration::ZERO))?;
    bind(&socket, &SocketAddr::new(source, 0))?;
    connect(&socket, &target)?;
    Ok(socket)
}

/// Takes the oldest off that has been closed, and those before it, which have been let in. Where none is closed in
/// time, all have been.
fn see_off(open: &mut VecDeque<OwnedFd>, poured: &mut Poured) -> Result<(), Failure> {
    while let Some(front) = open.front() {
        if is_closed(front)? {
            open.pop_front();
            poured.closed += 1;
            return Ok(());
        }
        let sockets = open.iter().take(LOOK_MAX);
        let mut looks: Vec<PollFd<'_>> = sockets.map(|socket| PollFd::new(socket, PollFlags::IN)).collect();
        poll(&mut looks, Some(&PATIENCE))?;
        let closed = looks.iter().position(|look| !look.revents().is_empty()).unwrap_or(open.len());
        poured.let_in += closed as u64;
        open.drain(..closed);
    }
    Ok(())
}

/// Whether the server has ended it. That it says anything is none of a refusal.
fn is_closed(socket: &OwnedFd) -> Result<bool, Failure> {
    match recv(socket, &mut [0_u8; 1][..], RecvFlags::DONTWAIT) {
        Ok((0, _)) | Err(Errno::CONNRESET) => Ok(true),
        Err(Errno::AGAIN) => Ok(false),
        Ok(_) => Err("a connection of the flood was spoken to".into()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::net::{Ipv4Addr, TcpListener};

    const SOURCE: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 2, 0, 1));

    fn order(listener: &TcpListener, connections: u64) -> Order {
        let target = listener.local_addr().expect("it is bound");
        Order { target, source: SOURCE, connections, rate: 0, window: 4 }
    }

    #[test]
    fn who_is_closed_is_told_from_who_is_let_in() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has ports");
        let order = order(&listener, 40);
        let server = thread::spawn(move || {
            let mut kept = Vec::new();
            for number in 0..40 {
                let (socket, peer) = listener.accept().expect("there is one more");
                assert_eq!(peer.ip(), SOURCE);
                if number % 10 == 3 {
                    kept.push(socket);
                }
            }
            kept.len()
        });
        let poured = pour(order).expect("nothing is said");
        assert_eq!((poured.closed, poured.let_in), (36, 4));
        assert_eq!(server.join().expect("it has counted"), 4);
    }

    #[test]
    fn a_server_that_lets_all_in_is_found_and_one_that_speaks_too() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has ports");
        let poured = pour(order(&listener, 4)).expect("nothing is said");
        assert_eq!((poured.closed, poured.let_in), (0, 4));
        let speaks = order(&listener, 1);
        let server = thread::spawn(move || {
            // Those of the first flood have ended while they waited.
            for _ in 0..5 {
                let (mut socket, _) = listener.accept().expect("there is one more");
                let _ = socket.write_all(b"?");
            }
        });
        assert!(pour(speaks).is_err());
        server.join().expect("it has spoken");
    }
}
