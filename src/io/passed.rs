//! Listening sockets that whoever started this process opened and holds as well (sd_listen_fds(3)): they take connections
//! in while no process of ours is there to accept them.

use super::Socket;
use super::epoll::sys;
use super::socket::set_peer_options;
use socket2::{SockRef, Type};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;

/// A listening TCP socket.
#[derive(Debug)]
pub struct Passed {
    fd: OwnedFd,
    address: SocketAddr,
}

/// Takes in the descriptors 3, 4, … that were passed, `count` of them. A second call finds none: they have an owner then.
///
/// # Errors
/// One of them is not open, or is no TCP socket that listens. The text names it.
pub fn take(count: u32) -> io::Result<Vec<Passed>> {
    let fds = sys::passed(count)?;
    let in_order = (sys::PASSED_FIRST..).zip(fds);
    in_order
        .map(|(number, fd)| {
            let named = |error: io::Error| io::Error::new(error.kind(), format!("descriptor {number}: {error}"));
            Passed::new(fd).map_err(named)
        })
        .collect()
}

impl Passed {
    /// A listening socket as our own are: accepted ones inherit its options.
    ///
    /// # Errors
    /// It is no TCP socket that listens.
    pub fn new(fd: OwnedFd) -> io::Result<Self> {
        let socket = SockRef::from(&fd);
        if socket.r#type()? != Type::STREAM || !socket.is_listener()? {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no stream socket that listens"));
        }
        let address = socket.local_addr()?.as_socket();
        let address = address.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "it is no TCP socket"))?;
        socket.set_nonblocking(true)?;
        set_peer_options(&socket)?;
        Ok(Self { fd, address })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The same socket once more, for a shard.
    ///
    /// # Errors
    /// There are no descriptors left.
    pub fn socket(&self) -> io::Result<Socket> {
        Ok(Socket::from(self.fd.try_clone()?))
    }

    /// The same socket once more, for others than shards.
    ///
    /// # Errors
    /// There are no descriptors left.
    pub fn listener(&self) -> io::Result<TcpListener> {
        Ok(TcpListener::from(self.fd.try_clone()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_tcp_socket_that_listens_is_taken() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("it is bound");
        let passed = Passed::new(listener.into()).expect("it listens");
        assert_eq!(passed.address(), address);
        assert_eq!(passed.listener().expect("a descriptor").local_addr().expect("bound"), address);
        let stream = std::net::TcpStream::connect(address).expect("the socket takes connections in");
        assert!(Passed::new(stream.into()).is_err());
        let datagrams = std::net::UdpSocket::bind("127.0.0.1:0").expect("a port");
        assert!(Passed::new(datagrams.into()).is_err());
        let (one, _other) = std::os::unix::net::UnixStream::pair().expect("a pair");
        assert!(Passed::new(one.into()).is_err());
    }
}
