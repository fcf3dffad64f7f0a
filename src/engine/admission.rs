//! How connections come and go between the world, shards and this table: listeners and guests, departing and
//! adopting, connecting.
//!
//! Guests are ordinary fds, so their number is bounded: at the bound the accept is stopped, what it still brings waits
//! in the listener's lobby, and it is started again once there is room; the kernel's backlog holds the rest.

use super::intake::{Held, Turned};
use super::table::{Connection, NONE, Purpose, State, flag, id as id_of, key, token};
use super::{CloseCause, Core, Engine, Handler};
use crate::base::ids::ConnectionId;
use crate::base::transform::{Plain, Transform};
use crate::io::{Driver, ListenerId, Op, Slot, Socket};
use crate::limits::{ACCEPT_RETRY, LISTENERS_MAX};
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;

/// A guest on its way to another shard, or to a slot of this one. Dropping it closes the socket.
#[derive(Debug)]
pub struct Departure<T = Plain> {
    /// The socket; nothing of it is in flight.
    pub socket: Socket,
    /// Bytes received and not used.
    pub unread: Box<[u8]>,
    /// How far its transform has turned them.
    pub turned: Turned,
    /// Its transform.
    pub transform: Option<T>,
    /// The peer's address.
    pub peer: SocketAddr,
}

/// A connection was not opened: the table is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectRefused;

/// Where a listener is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Accepting {
    /// The accept is armed.
    Yes,
    /// It was told to stop; its end has not come yet.
    Stopping,
    /// It has ended, and starts again once there is room, not before this millisecond.
    Paused(u64),
    /// Closed for good; the entry is re-used.
    Closed,
}

/// A listener and the sockets that it brought beyond the bound.
#[derive(Debug)]
pub(super) struct Listener {
    id: ListenerId,
    accepting: Accepting,
    /// To be closed when its accept has ended.
    closing: bool,
    lobby: VecDeque<(Socket, SocketAddr)>,
}

impl Listener {
    pub fn is_open(&self) -> bool {
        self.accepting != Accepting::Closed
    }
    pub fn waiting(&self) -> usize {
        self.lobby.len()
    }
}

impl<D: Driver, L, T: Transform> Core<D, L, T> {
    /// Listens and accepts. `shared`: other shards listen on the same address. Returns the address with its port.
    pub fn listen(&mut self, address: SocketAddr, shared: bool) -> io::Result<(ListenerId, SocketAddr)> {
        let free = self.free_listener()?;
        let (id, bound) = self.driver.listen(address, shared)?;
        self.add_listener(free, id);
        Ok((id, bound))
    }

    /// As [`Core::listen`], on a socket that listens already and that others may hold as well: closing it here closes
    /// it for nobody else.
    pub fn listen_on(&mut self, socket: Socket) -> io::Result<(ListenerId, SocketAddr)> {
        let free = self.free_listener()?;
        let (id, bound) = self.driver.adopt_listener(socket)?;
        self.add_listener(free, id);
        Ok((id, bound))
    }

    /// A place for one more; the place behind the last where none is free.
    fn free_listener(&self) -> io::Result<Option<usize>> {
        let free = self.listeners.iter().position(|listener| !listener.is_open());
        if free.is_none() && self.listeners.len() >= LISTENERS_MAX {
            return Err(io::ErrorKind::QuotaExceeded.into());
        }
        Ok(free)
    }

    fn add_listener(&mut self, free: Option<usize>, id: ListenerId) {
        let listener = Listener { id, accepting: Accepting::Yes, closing: false, lobby: VecDeque::new() };
        let number = free.unwrap_or(self.listeners.len());
        match free {
            Some(number) => self.listeners[number] = listener,
            None => self.listeners.push(listener),
        }
        self.start_accepting(number);
    }

    /// Stops accepting for good and closes the listener; its connections stay. Sockets in its lobby are closed.
    pub fn stop_listening(&mut self, listener: ListenerId) {
        let Some(listener) = self.listeners.iter_mut().find(|l| l.id == listener && l.is_open()) else { return };
        listener.closing = true;
        listener.lobby.clear();
        match listener.accepting {
            Accepting::Yes => {
                listener.accepting = Accepting::Stopping;
                self.driver.submit(Op::StopAccepting { listener: listener.id });
            }
            Accepting::Paused(_) => {
                listener.accepting = Accepting::Closed;
                self.driver.close_listener(listener.id);
            }
            Accepting::Stopping | Accepting::Closed => {}
        }
    }

    /// As [`Core::stop_listening`], for all of them: the first step of a drain.
    pub fn stop_listening_all(&mut self) {
        let open: Vec<ListenerId> = self.listeners.iter().filter(|l| l.is_open()).map(|l| l.id).collect();
        open.into_iter().for_each(|listener| self.stop_listening(listener));
    }

    /// Opens a connection. [`Handler::on_connected`] says how it went.
    pub fn connect(
        &mut self,
        local: Option<SocketAddr>,
        remote: SocketAddr,
        tag: u32,
    ) -> Result<ConnectionId, ConnectRefused> {
        let flags = flag::OPENING | flag::OUTGOING;
        let connection = Connection::new(State::Connecting, flags, tag, remote);
        let id = id_of(self.table.insert(connection).map_err(|_| ConnectRefused)?);
        self.driver.submit(Op::Connect { local, remote, token: token(Purpose::Connect, id) });
        Ok(id)
    }

    /// Asks a guest to leave, with its unread bytes, once nothing of it is in flight and its outbox is empty:
    /// [`Handler::on_departed`] then gets its socket. From now on it is neither read nor written. Its deadline stays.
    /// `stays`: this engine is to adopt it, which then is cheaper.
    pub fn depart(&mut self, id: ConnectionId, stays: bool) {
        let Some(connection) = self.table.get_mut(key(id)).filter(|c| c.state == State::Open) else { return };
        assert!(connection.has(flag::GUEST), "only guests depart: others have no fd of their own");
        connection.state = State::Departing;
        if stays {
            connection.set(flag::STAYS);
        }
        if connection.has(flag::WATCHING) {
            let slot = connection.open_slot();
            self.driver.submit(Op::Unwatch { slot, token: token(Purpose::Watch, id) });
        }
        self.ending.push_back(id);
    }

    /// Takes a departed connection in, under a tag. [`Handler::on_installed`] says when it has its slot; then its
    /// unread bytes are offered. Full: the departure comes back.
    pub fn adopt(&mut self, departure: Departure<T>, tag: u32) -> Result<ConnectionId, Departure<T>> {
        if self.table.is_full() {
            return Err(departure);
        }
        let Departure { socket, unread, turned, transform, peer } = departure;
        let held = if unread.is_empty() {
            NONE
        } else {
            match self.take_data_block(unread.len()) {
                Some(block) => self.insert_held(Held::copied(block, &unread, turned)),
                None => return Err(Departure { socket, unread, turned, transform, peer }),
            }
        };
        let mut connection = Connection::new(State::Installing, flag::OPENING, tag, peer);
        connection.held = held;
        if let Some(transform) = transform {
            connection.transform = self.transforms.insert(transform).expect("there is one for each connection").index;
        }
        let Ok(entry) = self.table.insert(connection) else { unreachable!("the table was looked at above") };
        self.totals.adopted += 1;
        self.driver.submit(Op::Install { socket, token: token(Purpose::Install, id_of(entry)) });
        Ok(id_of(entry))
    }

    /// Whether another guest may come in.
    fn has_room(&self) -> bool {
        self.guests < self.settings.guests_max && !self.table.is_full()
    }

    fn start_accepting(&mut self, number: usize) {
        let listener = &mut self.listeners[number];
        listener.accepting = Accepting::Yes;
        let id = ConnectionId { index: u32::try_from(number).expect("listeners are few"), generation: 0 };
        self.driver.submit(Op::Accept { listener: listener.id, token: token(Purpose::Accept, id) });
    }

    /// The accept has ended, as told or for want of descriptors.
    pub(super) fn accept_ended(&mut self, number: u32, error: Option<io::Error>) {
        let retry_ms = self.now.deadline(ACCEPT_RETRY);
        let listener = &mut self.listeners[number as usize];
        if listener.closing {
            listener.accepting = Accepting::Closed;
            self.driver.close_listener(listener.id);
            return;
        }
        if error.is_some() {
            self.totals.accept_pauses += 1;
        }
        listener.accepting = Accepting::Paused(if error.is_some() { retry_ms } else { 0 });
    }

    /// When a paused listener is to be looked at again, if time alone decides.
    pub(super) fn accept_retry_ms(&self) -> Option<u64> {
        if !self.has_room() {
            return None;
        }
        self.listeners
            .iter()
            .filter_map(|l| if let Accepting::Paused(at) = l.accepting { Some(at) } else { None })
            .min()
    }

    /// Lets a guest go: its socket and bytes. Nothing of it is in flight.
    pub(super) fn let_depart(&mut self, id: ConnectionId) -> Departure<T> {
        let connection = self.table.at_mut(id.index);
        assert!(!connection.has(flag::IN_FLIGHT), "a guest departs when nothing of it is in flight");
        let (slot, peer, stays) = (connection.open_slot(), connection.peer(), connection.has(flag::STAYS));
        let held = core::mem::replace(&mut connection.held, NONE);
        let transform = core::mem::replace(&mut connection.transform, NONE);
        connection.slot = None;
        let socket = self.driver.detach(slot, stays);
        let (unread, turned) = if held == NONE { Default::default() } else { self.drop_held(held) };
        let transform = (transform != NONE).then(|| self.transforms.remove_at(transform));
        self.wheel.clear(id.index);
        self.totals.departed += 1;
        Departure { socket, unread, turned, transform, peer }
    }
}

impl<D: Driver, H: Handler<D>> Engine<D, H> {
    /// A connection came in: a guest if there is room, else it waits and accepting pauses.
    pub(super) fn on_accepted(&mut self, number: u32, socket: Socket, peer: SocketAddr) {
        let (has_room, core) = (self.core.has_room(), &mut self.core);
        let listener = &mut core.listeners[number as usize];
        if listener.closing {
            return;
        }
        let listener_id = listener.id;
        if !self.handler.admits(core, listener_id, peer) {
            // Dropped, and so closed, before it has cost an entry, a watch or a byte.
            core.totals.turned_away += 1;
            return;
        }
        let listener = &mut core.listeners[number as usize];
        if has_room && listener.lobby.is_empty() {
            let listener = listener.id;
            self.admit(listener, socket, peer);
        } else {
            listener.lobby.push_back((socket, peer));
        }
        let full = !self.core.has_room();
        let listener = &mut self.core.listeners[number as usize];
        if full && listener.accepting == Accepting::Yes {
            listener.accepting = Accepting::Stopping;
            self.core.totals.accept_pauses += 1;
            self.core.driver.submit(Op::StopAccepting { listener: listener.id });
        }
    }

    /// Takes in who waits in lobbies, and starts accepting again, as far as there is room.
    pub(super) fn admit_waiting(&mut self) {
        for number in 0..self.core.listeners.len() {
            while self.core.has_room() {
                let listener = &mut self.core.listeners[number];
                let id = listener.id;
                let Some((socket, peer)) = listener.lobby.pop_front() else { break };
                self.admit(id, socket, peer);
            }
            if let Accepting::Paused(at_ms) = self.core.listeners[number].accepting
                && self.core.has_room()
                && at_ms <= self.core.now.monotonic_ms
            {
                self.core.start_accepting(number);
            }
        }
    }

    fn admit(&mut self, listener: ListenerId, socket: Socket, peer: SocketAddr) {
        let core = &mut self.core;
        let slot = core.driver.attach(socket);
        let mut connection = Connection::new(State::Open, flag::GUEST, 0, peer);
        connection.slot = Some(slot);
        let id = id_of(core.table.insert(connection).expect("the caller has looked for room"));
        core.guests += 1;
        core.totals.accepted += 1;
        core.wheel.set(id.index, core.now.deadline(core.settings.handshake_timeout));
        self.handler.on_accept(core, id, listener, peer);
        core.arm(id);
    }

    /// A connect has ended; a socket goes on to its slot.
    pub(super) fn on_connect_ended(&mut self, id: ConnectionId, result: io::Result<Socket>) {
        let core = &mut self.core;
        let connection = core.table.at_mut(id.index);
        if connection.state == State::Terminated {
            connection.clear(flag::OPENING);
            core.ending.push_back(id);
            return;
        }
        match result {
            Ok(socket) => {
                connection.state = State::Installing;
                core.driver.submit(Op::Install { socket, token: token(Purpose::Install, id) });
            }
            Err(error) => {
                let tag = connection.tag;
                core.discard(id);
                self.handler.on_connected(core, id, tag, Err(error));
            }
        }
    }

    /// A socket has its slot: the connection is open.
    pub(super) fn on_installed(&mut self, id: ConnectionId, slot: Slot) {
        let core = &mut self.core;
        let connection = core.table.at_mut(id.index);
        connection.clear(flag::OPENING);
        connection.slot = Some(slot);
        if connection.state == State::Terminated {
            core.ending.push_back(id);
            return;
        }
        connection.state = State::Open;
        let (outgoing, tag, holds) = (connection.has(flag::OUTGOING), connection.tag, connection.held != NONE);
        if holds {
            connection.set(flag::REOFFER);
        }
        if outgoing {
            core.totals.connected += 1;
            self.handler.on_connected(core, id, tag, Ok(()));
        } else {
            self.handler.on_installed(core, id);
        }
        core.read_on(id);
    }

    /// There was no slot; the socket closes as it is dropped.
    pub(super) fn on_install_failed(&mut self, id: ConnectionId, error: io::Error) {
        let core = &mut self.core;
        let connection = core.table.at_mut(id.index);
        connection.clear(flag::OPENING);
        if connection.state == State::Terminated {
            core.ending.push_back(id);
        } else if connection.has(flag::OUTGOING) {
            let tag = connection.tag;
            core.discard(id);
            self.handler.on_connected(core, id, tag, Err(error));
        } else {
            core.terminate(id, CloseCause::NotInstalled(error.raw_os_error().unwrap_or(0)));
        }
    }
}
