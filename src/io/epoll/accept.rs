//! Connections coming in and going out, until they are sockets.

use super::{EXCLUSIVE, EpollDriver, OF_CONNECT, OF_LISTENER, ONE_SHOT, READABLE, WRITABLE, event_data, sys};
use crate::io::{ListenerId, Outcome, Socket, Token, socket};
use crate::limits::ACCEPTS_PER_EVENT_MAX;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};

/// A listener, and for whom it accepts at the moment.
#[derive(Debug)]
pub(super) struct Listener {
    fd: OwnedFd,
    accepting: Option<Token>,
}

/// A connection on its way out.
#[derive(Debug)]
pub(super) struct Connecting {
    fd: OwnedFd,
    token: Token,
}

impl EpollDriver {
    pub(super) fn add_listener(&mut self, address: SocketAddr, shared: bool) -> io::Result<(ListenerId, SocketAddr)> {
        let (fd, bound) = socket::listener(address, shared)?;
        Ok((self.insert_listener(fd), bound))
    }

    pub(super) fn insert_listener(&mut self, fd: OwnedFd) -> ListenerId {
        let index = self.listeners.insert(Listener { fd, accepting: None });
        ListenerId(u32::try_from(index).expect("listeners are few"))
    }

    pub(super) fn remove_listener(&mut self, listener: ListenerId) {
        let listener = self.listeners.remove(listener.0 as usize);
        assert!(listener.accepting.is_none(), "a listener was closed while it accepts");
    }

    pub(super) fn accept(&mut self, id: ListenerId, token: Token) {
        let listener = &mut self.listeners[id.0 as usize];
        assert!(listener.accepting.is_none(), "one accept at a time");
        let data = event_data(OF_LISTENER, id.0);
        match sys::epoll_control(&self.epoll, libc::EPOLL_CTL_ADD, listener.fd.as_fd(), READABLE | EXCLUSIVE, data) {
            Ok(()) => listener.accepting = Some(token),
            Err(error) => self.push(token, Outcome::AcceptEnded(Some(error))),
        }
    }

    pub(super) fn stop_accepting(&mut self, id: ListenerId) {
        self.end_accept(id.0 as usize, None);
    }

    fn end_accept(&mut self, index: usize, error: Option<io::Error>) {
        let listener = &mut self.listeners[index];
        let Some(token) = listener.accepting.take() else { return };
        sys::epoll_control(&self.epoll, libc::EPOLL_CTL_DEL, listener.fd.as_fd(), 0, 0)
            .expect("removing an fd that is in the set needs no memory");
        self.push(token, Outcome::AcceptEnded(error));
    }

    /// Accepts a bounded number; the event stays on as long as more wait.
    pub(super) fn on_listener_event(&mut self, index: usize) {
        for _ in 0..ACCEPTS_PER_EVENT_MAX {
            let listener = &self.listeners[index];
            let Some(token) = listener.accepting else { return };
            match sys::accept(&listener.fd) {
                Ok((fd, peer)) => self.push(token, Outcome::Accepted { socket: Socket::from(fd), peer }),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if socket::is_one_peers_failure(&error) => {}
                // The kernel takes the fd before it takes a connection: those that wait are not lost.
                Err(error) => return self.end_accept(index, Some(error)),
            }
        }
    }

    pub(super) fn connect(&mut self, local: Option<SocketAddr>, remote: SocketAddr, token: Token) {
        let fd = match socket::connect(local, remote) {
            Ok(fd) => fd,
            Err(error) => return self.push(token, Outcome::ConnectFailed(error)),
        };
        let index = self.connecting.insert(Connecting { fd, token });
        let data = event_data(OF_CONNECT, u32::try_from(index).expect("there are fewer than 2^31 fds"));
        let fd = self.connecting[index].fd.as_fd();
        if let Err(error) = sys::epoll_control(&self.epoll, libc::EPOLL_CTL_ADD, fd, WRITABLE | ONE_SHOT, data) {
            self.connecting.remove(index);
            self.push(token, Outcome::ConnectFailed(error));
        }
    }

    pub(super) fn on_connect_event(&mut self, index: usize) {
        let Connecting { fd, token } = self.connecting.remove(index);
        sys::epoll_control(&self.epoll, libc::EPOLL_CTL_DEL, fd.as_fd(), 0, 0)
            .expect("removing an fd that is in the set needs no memory");
        let outcome = match socket::connect_result(&fd) {
            Ok(()) => Outcome::Connected(Socket::from(fd)),
            Err(error) => Outcome::ConnectFailed(error),
        };
        self.push(token, outcome);
    }
}
