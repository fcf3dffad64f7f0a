//! Connections coming in and going out, as ordinary fds.
#![allow(unsafe_code, reason = "a completion's result is a new fd")]

use super::UringDriver;
use super::slots::{Kind, UserData};
use crate::io::{Completion, ListenerId, Outcome, Socket, Token, socket};
use io_uring::{cqueue, opcode, types};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// A listener, and for whom it accepts at the moment.
pub(super) struct Listener {
    fd: OwnedFd,
    accepting: Option<Token>,
    stopping: bool,
}

impl Listener {
    pub(super) fn is_accepting(&self) -> bool {
        self.accepting.is_some()
    }
}

/// A connection on its way out.
pub(super) struct Connecting {
    fd: OwnedFd,
    token: Token,
}

impl UringDriver {
    pub(super) fn add_listener(&mut self, address: SocketAddr, shared: bool) -> io::Result<(ListenerId, SocketAddr)> {
        let (fd, bound) = socket::listener(address, shared)?;
        Ok((self.insert_listener(fd), bound))
    }

    pub(super) fn insert_listener(&mut self, fd: OwnedFd) -> ListenerId {
        let index = self.listeners.insert(Listener { fd, accepting: None, stopping: false });
        ListenerId(u32::try_from(index).expect("listeners are few"))
    }

    pub(super) fn remove_listener(&mut self, listener: ListenerId) {
        // With a multishot accept still armed its port would stay bound.
        assert!(!self.listeners[listener.0 as usize].is_accepting(), "a listener was closed while it accepts");
        self.listeners.remove(listener.0 as usize);
    }

    pub(super) fn accept(&mut self, id: ListenerId, token: Token) {
        let listener = &mut self.listeners[id.0 as usize];
        assert!(listener.accepting.is_none(), "one accept at a time");
        listener.accepting = Some(token);
        listener.stopping = false;
        self.arm_accept(id.0 as usize);
    }

    fn arm_accept(&mut self, index: usize) {
        let fd = types::Fd(self.listeners[index].fd.as_raw_fd());
        let entry = opcode::AcceptMulti::new(fd).flags(libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK).build();
        self.rings[0].push_plain(entry.user_data(UserData::of_index(Kind::Accept, index).bits()));
    }

    pub(super) fn stop_accepting(&mut self, id: ListenerId) {
        let listener = &mut self.listeners[id.0 as usize];
        if listener.is_accepting() && !listener.stopping {
            listener.stopping = true;
            self.cancel_accept(id.0 as usize);
        }
    }

    fn cancel_accept(&mut self, index: usize) {
        let entry = opcode::AsyncCancel::new(UserData::of_index(Kind::Accept, index).bits()).build();
        self.rings[0].push_plain(entry.user_data(UserData::of_index(Kind::StopAccept, index).bits()));
    }

    /// The cancel is done. Caught at work the accept went on and has to be asked again.
    pub(super) fn on_stop_accept(&mut self, index: usize, result: i32) {
        let still_on = self.listeners.get(index).is_some_and(|listener| listener.is_accepting() && listener.stopping);
        if result == -libc::EALREADY && still_on && !self.dropping {
            self.cancel_accept(index);
        }
    }

    pub(super) fn on_accept(&mut self, index: usize, completion: &cqueue::Entry, into: &mut Vec<Completion>) {
        let token = self.listeners[index].accepting.expect("an accept ends once");
        let result = completion.result();
        if result >= 0 {
            // SAFETY: the kernel made this fd for this completion; nobody else knows of it.
            let fd = unsafe { OwnedFd::from_raw_fd(result) };
            self.steps += 1;
            // A peer that has gone already has no address; it is as if it had never come.
            if let Ok(peer) = socket::peer_address(&fd) {
                into.push(Completion { token, outcome: Outcome::Accepted { socket: Socket::from(fd), peer } });
            }
        }
        if cqueue::more(completion.flags()) {
            return;
        }
        let listener = &mut self.listeners[index];
        let error = (result < 0).then(|| io::Error::from_raw_os_error(-result));
        match error {
            _ if listener.stopping => self.end_accept(token, index, None),
            Some(error) if !socket::is_one_peers_failure(&error) => {
                self.end_accept(token, index, Some(error));
            }
            // It ended by itself: the completion queue was full, or one peer's connection was broken.
            _ if !self.dropping => self.arm_accept(index),
            _ => listener.accepting = None,
        }
    }

    /// By way of the ready list: one completion of the kernel's may be the last peer's as well, and the caller's bound
    /// holds.
    fn end_accept(&mut self, token: Token, index: usize, error: Option<io::Error>) {
        let listener = &mut self.listeners[index];
        listener.accepting = None;
        listener.stopping = false;
        self.push_ready(token, Outcome::AcceptEnded(error));
    }

    pub(super) fn connect(&mut self, local: Option<SocketAddr>, remote: SocketAddr, token: Token) {
        let fd = match socket::connect(local, remote) {
            Ok(fd) => fd,
            Err(error) => return self.push_ready(token, Outcome::ConnectFailed(error)),
        };
        let target = types::Fd(fd.as_raw_fd());
        let index = self.connecting.insert(Connecting { fd, token });
        let entry = opcode::PollAdd::new(target, libc::POLLOUT as u32).build();
        self.rings[0].push_plain(entry.user_data(UserData::of_index(Kind::Connect, index).bits()));
    }

    pub(super) fn on_connect(&mut self, index: usize, result: i32, into: &mut Vec<Completion>) {
        let Connecting { fd, token } = self.connecting.remove(index);
        let decided = if result < 0 { Err(io::Error::from_raw_os_error(-result)) } else { socket::connect_result(&fd) };
        let outcome = match decided {
            Ok(()) => Outcome::Connected(Socket::from(fd)),
            Err(error) => Outcome::ConnectFailed(error),
        };
        into.push(Completion { token, outcome });
    }
}
