//! Rigs of the drivers that work on the kernel's sockets.

use crate::rig::{Peer, Rig};
use kittiwake::io::epoll::EpollDriver;
use kittiwake::io::uring::UringDriver;
use socket2::SockRef;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

impl Peer for TcpStream {
    fn address(&self) -> SocketAddr {
        self.local_addr().unwrap()
    }
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Write::write(self, bytes)
    }
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        Read::read(self, into)
    }
    fn finish(&mut self) {
        self.shutdown(Shutdown::Write).unwrap();
    }
    fn reset(self) {
        SockRef::from(&self).set_linger(Some(Duration::ZERO)).unwrap();
    }
}

fn loopback() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

fn connect(to: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(to).unwrap();
    stream.set_nonblocking(true).unwrap();
    stream
}

/// A port that was just given out and closed: nobody else listens on it for a while.
fn dead_address() -> SocketAddr {
    TcpListener::bind(loopback()).unwrap().local_addr().unwrap()
}

pub struct Epoll;

impl Rig for Epoll {
    type Driver = EpollDriver;
    type Peer = TcpStream;
    fn new() -> Self {
        Self
    }
    fn driver(&mut self, _: Option<usize>) -> EpollDriver {
        EpollDriver::new().unwrap()
    }
    fn any_address(&self) -> SocketAddr {
        loopback()
    }
    fn dead_address(&self) -> SocketAddr {
        dead_address()
    }
    fn connect(&mut self, to: SocketAddr) -> TcpStream {
        connect(to)
    }
}

pub struct Uring;

impl Rig for Uring {
    type Driver = UringDriver;
    type Peer = TcpStream;
    fn new() -> Self {
        Self
    }
    fn driver(&mut self, table_slots: Option<usize>) -> UringDriver {
        match table_slots {
            Some(slots) => UringDriver::with_table_slots(slots).unwrap(),
            None => UringDriver::new().unwrap(),
        }
    }
    fn any_address(&self) -> SocketAddr {
        loopback()
    }
    fn dead_address(&self) -> SocketAddr {
        dead_address()
    }
    fn connect(&mut self, to: SocketAddr) -> TcpStream {
        connect(to)
    }
}
