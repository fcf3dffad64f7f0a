//! What the kernel's drivers share: how listeners and outgoing connections are set up.

use super::epoll::sys;
use super::{Socket, SocketKind};
use crate::limits::{LISTEN_BACKLOG, TCP_KEEPALIVE_IDLE, TCP_KEEPALIVE_INTERVAL, TCP_USER_TIMEOUT};
use socket2::{Domain, Protocol, SockAddr, SockRef, TcpKeepalive, Type};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};

/// A listening, non-blocking socket and the address it got. Accepted sockets inherit every option set here, which
/// saves the system calls that would set them one by one.
pub(super) fn listener(address: SocketAddr, shared: bool) -> io::Result<(OwnedFd, SocketAddr)> {
    let socket = stream_socket(address)?;
    socket.set_reuse_address(true)?;
    if shared {
        socket.set_reuse_port(true)?;
    }
    if address.is_ipv6() {
        // Two listeners, one for each family, are what a configuration with both asks for.
        socket.set_only_v6(true)?;
    }
    set_peer_options(&socket)?;
    socket.bind(&SockAddr::from(address))?;
    socket.listen(LISTEN_BACKLOG)?;
    let bound = socket.local_addr()?.as_socket().ok_or_else(|| io::Error::from_raw_os_error(libc::EAFNOSUPPORT))?;
    Ok((OwnedFd::from(socket), bound))
}

/// Where a socket is bound.
pub(super) fn local_address(fd: &OwnedFd) -> io::Result<SocketAddr> {
    let address = SockRef::from(fd).local_addr()?;
    address.as_socket().ok_or_else(|| io::Error::from_raw_os_error(libc::EAFNOSUPPORT))
}

/// A connection on its way: writable, or in error, once it is decided.
pub(super) fn connect(local: Option<SocketAddr>, remote: SocketAddr) -> io::Result<OwnedFd> {
    let socket = stream_socket(remote)?;
    set_peer_options(&socket)?;
    if let Some(local) = local {
        if local.port() == 0 {
            // The port is chosen at connect, by the whole four-tuple, so that one source address serves many remotes.
            sys::bind_address_without_port(socket.as_fd())?;
        } else {
            // The caller picks its ports itself and may use one towards several remotes.
            socket.set_reuse_address(true)?;
        }
        socket.bind(&SockAddr::from(local))?;
    }
    match socket.connect(&SockAddr::from(remote)) {
        Ok(()) => Ok(OwnedFd::from(socket)),
        Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => Ok(OwnedFd::from(socket)),
        Err(error) => Err(error),
    }
}

/// How a connection on its way was decided.
pub(super) fn connect_result(fd: &OwnedFd) -> io::Result<()> {
    match SockRef::from(fd).take_error()? {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

/// The address at the other end, while the socket is an ordinary fd.
pub(super) fn peer_address(fd: &OwnedFd) -> io::Result<SocketAddr> {
    let address = SockRef::from(fd).peer_addr()?;
    address.as_socket().ok_or_else(|| io::Error::from_raw_os_error(libc::EAFNOSUPPORT))
}

/// Shuts both directions down. Its only failure is that the peer was faster, which is as good.
pub(super) fn shutdown(fd: &OwnedFd) {
    let _ = SockRef::from(&fd.as_fd()).shutdown(std::net::Shutdown::Both);
}

/// Whether an accept failed because of one peer or network, so that the next one may be fine: accept(2) asks to treat
/// these as if nothing had come.
pub(super) fn is_one_peers_failure(error: &io::Error) -> bool {
    let Some(errno) = error.raw_os_error() else { return false };
    matches!(
        errno,
        libc::ECONNABORTED
            | libc::EINTR
            | libc::ENETDOWN
            | libc::EPROTO
            | libc::ENOPROTOOPT
            | libc::EHOSTDOWN
            | libc::ENONET
            | libc::EHOSTUNREACH
            | libc::EOPNOTSUPP
            | libc::ENETUNREACH
            | libc::EPERM
    )
}

impl Socket {
    /// The kernel's fd. A simulated socket here is a bug of ours: drivers of two worlds were mixed.
    pub(super) fn into_fd(self) -> OwnedFd {
        match self.0 {
            SocketKind::Fd(fd) | SocketKind::Known { fd, .. } => fd,
            SocketKind::Sim(_) => panic!("a simulated socket was given to a kernel driver"),
        }
    }
}

impl From<OwnedFd> for Socket {
    fn from(fd: OwnedFd) -> Self {
        Self(SocketKind::Fd(fd))
    }
}

/// Non-blocking and close-on-exec from birth.
fn stream_socket(address: SocketAddr) -> io::Result<socket2::Socket> {
    socket2::Socket::new(Domain::for_address(address), Type::STREAM.nonblocking().cloexec(), Some(Protocol::TCP))
}

pub(super) fn set_peer_options(socket: &socket2::Socket) -> io::Result<()> {
    // Every turn flushes a connection once, with all it has: there is nothing to wait for.
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_user_timeout(Some(TCP_USER_TIMEOUT))?;
    let keepalive = TcpKeepalive::new().with_time(TCP_KEEPALIVE_IDLE).with_interval(TCP_KEEPALIVE_INTERVAL);
    socket.set_tcp_keepalive(&keepalive)
}
