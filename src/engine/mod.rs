//! Owns: connections: their table, the turn, intake and outbox, their lifecycle, admission, and shard mail.
//! In: completions of a [`Driver`], letters. Out: calls of a [`Handler`], ops.
//! Must not: know a protocol, a session or a topic; call the handler from within a [`Core`] method.
//! Invariants: a connection that was announced is told closed or departed exactly once; its slot and entry are freed
//! in one place, when nothing of it is in flight; an idle connection has an entry of 64 bytes, 16 in the wheel, and
//! no block, outbox or heap; at most one receive and one send of it are in flight; control output is never dropped.
//!
//! # Files
//! [`turn`](Engine::turn) the order of everything · `table` the hot entry and its states · `admission` listeners,
//! guests, moving, connecting · `memory` what is on its way, and what is left · `intake` bytes in · `outbox` bytes out ·
//! `records` what a transform makes of them · `lifecycle` terminate, join, close · [`mail`].
//!
//! # Transforms
//! A connection may have a [`Transform`], which the handler sets. It stands in two places alone: in `Engine::offer`,
//! where it turns what was received before the handler sees it, and where the outbox closes a block or hands it to the
//! driver (`Core::seal`), in front of whose content it writes its head. So whatever a flush brings shares one head, and
//! a handler's reads and writes are plain either way. One that makes records does so where the driver is given what is to
//! be sent, `Core::next_records`, into a block of their own; what such work costs is bounded by the turn.
//!
//! # Re-entrancy
//! A handler may call any [`Core`] method from any callback. Methods never call back: what they cause is queued, and
//! the handler hears of it later in the same turn or in the next one.

mod admission;
mod intake;
mod lifecycle;
pub mod mail;
mod memory;
mod outbox;
mod records;
mod table;
#[cfg(test)]
mod tests;
mod turn;

pub use admission::{ConnectRefused, Departure};
pub use memory::Pressure;
pub use outbox::{Refused, Room};

use crate::base::block::BlockPool;
use crate::base::clock::Now;
use crate::base::ids::{ConnectionId, ShardId};
use crate::base::slab::Slab;
use crate::base::transform::{Plain, Transform};
use crate::base::wheel::Wheel;
use crate::io::{Completion, Driver, ListenerId, Wait};
use crate::limits;
use admission::Listener;
use intake::Held;
use mail::{Mailbox, Mailer, Post, Undelivered};
use memory::Payloads;
use outbox::{Outbox, Queued};
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use table::{Connection, NONE, State, flag, key};

/// What an engine is told once. [`Settings::default`] is what `limits.rs` says.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Connections in all, guests included.
    pub connections_max: u32,
    /// Accepted connections that have not departed yet. At the bound accepting pauses.
    pub guests_max: usize,
    /// Bytes of blocks out at a time.
    pub pool_bytes_max: usize,
    /// Longest frame: bytes a handler may leave unconsumed while it waits for more. Longer: the connection is closed.
    pub frame_bytes_max: usize,
    /// Bytes waiting for one connection. Full: [`Refused::Full`].
    pub outbox_bytes_max: usize,
    /// Room above that for control frames. Full: the connection is closed.
    pub outbox_control_bytes_max: usize,
    /// At or below this an outbox is drained.
    pub outbox_bytes_low: usize,
    /// A guest's first deadline.
    pub handshake_timeout: Duration,
    /// Time to take what is in the outbox after [`Close::AfterFlush`].
    pub linger: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            connections_max: limits::CONNECTIONS_MAX,
            guests_max: limits::GUESTS_MAX,
            pool_bytes_max: limits::POOL_BYTES_MAX,
            frame_bytes_max: limits::PACKET_BYTES_MAX,
            outbox_bytes_max: limits::OUTBOX_BYTES_MAX,
            outbox_control_bytes_max: limits::OUTBOX_CONTROL_BYTES_MAX,
            outbox_bytes_low: limits::OUTBOX_BYTES_LOW,
            handshake_timeout: limits::HANDSHAKE_TIMEOUT,
            linger: limits::LINGER,
        }
    }
}

/// When to close.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Close {
    /// At once; what is in the outbox is dropped.
    Now,
    /// When the outbox is empty, or [`Settings::linger`] has passed. Nothing more is read or written.
    AfterFlush,
}

/// Why a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseCause {
    /// We closed it; the handler knows why.
    Local,
    /// We closed it, and this is the handler's number for why.
    Reason(u16),
    /// The peer ended its side.
    PeerEnded,
    /// The peer broke the rules of the connection's [`Transform`].
    Misframed,
    /// The peer broke the rules of the records that its [`Transform`] reads, or no more can be made for it.
    BadRecords,
    /// The kernel reported this errno (reset by peer, timed out).
    Broken(i32),
    /// A frame longer than [`Settings::frame_bytes_max`].
    FrameTooLong,
    /// It did not read: not even a control frame had room.
    DoesNotRead,
    /// It asked to be flushed before closing and did not read in time.
    Lingered,
    /// No block was left for what it sent.
    OutOfBlocks,
    /// Memory was short, and it had more than others waiting.
    Shed,
    /// The driver had no room to install it: an errno.
    NotInstalled(i32),
}

/// Whether a [`Handler`] has anything left to do; if so the shard does not sleep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MoreWork {
    /// Sleep if nothing else is to be done.
    No,
    /// Come again next turn.
    Yes,
}

impl MoreWork {
    /// Whether either has.
    pub fn or(self, other: Self) -> Self {
        if other == Self::Yes { other } else { self }
    }
}

/// What the engine serves. All calls come from the shard's thread, within [`Engine::turn`].
pub trait Handler<D: Driver>: Sized {
    /// What shards mail each other; departed sockets travel in it.
    type Letter: Send;

    /// What may stand between a connection and its socket; [`Plain`] when nothing ever does.
    type Transform: Transform;

    /// A socket has come, and may have to wait for room. `false` closes it before anything else is done for it.
    fn admits(
        &mut self,
        _core: &mut Core<D, Self::Letter, Self::Transform>,
        _listener: ListenerId,
        _peer: SocketAddr,
    ) -> bool {
        true
    }

    /// A guest has come; its handshake deadline is set. Its tag is 0 until [`Core::set_tag`].
    fn on_accept(
        &mut self,
        core: &mut Core<D, Self::Letter, Self::Transform>,
        id: ConnectionId,
        listener: ListenerId,
        peer: SocketAddr,
    );

    /// Bytes have arrived. Returns how many of them were used; the others are kept, and offered again with what came
    /// next. Called again only when there is more (or after [`Core::resume_reading`]), so use every whole frame. The
    /// connection may be paused, closed or asked to depart from within: what is returned still counts.
    fn on_bytes(&mut self, core: &mut Core<D, Self::Letter, Self::Transform>, id: ConnectionId, bytes: &[u8]) -> usize;

    /// The connection has ended; `id` is valid until this returns, for [`Core::tag`] alone. Exactly once, unless it
    /// departed or never opened.
    fn on_closed(&mut self, core: &mut Core<D, Self::Letter, Self::Transform>, id: ConnectionId, cause: CloseCause);

    /// A [`Core::connect`] has ended well (the connection is open), or not (`id` is stale, only `tag` tells whose).
    fn on_connected(
        &mut self,
        _core: &mut Core<D, Self::Letter, Self::Transform>,
        _id: ConnectionId,
        _tag: u32,
        _result: io::Result<()>,
    ) {
    }

    /// The deadline set for it has passed. It has none now.
    fn on_deadline(&mut self, core: &mut Core<D, Self::Letter, Self::Transform>, id: ConnectionId) {
        core.close(id, Close::Now, CloseCause::Local);
    }

    /// Its outbox has fallen to [`Settings::outbox_bytes_low`], and [`Core::ask_drained`] had asked.
    fn on_drained(&mut self, _core: &mut Core<D, Self::Letter, Self::Transform>, _id: ConnectionId) {}

    /// An adopted connection has its slot; its unread bytes are offered next.
    fn on_installed(&mut self, _core: &mut Core<D, Self::Letter, Self::Transform>, _id: ConnectionId) {}

    /// A guest that was asked to depart has: `id` is stale when this returns. Dropping the departure closes it.
    fn on_departed(
        &mut self,
        _core: &mut Core<D, Self::Letter, Self::Transform>,
        _id: ConnectionId,
        _departure: Departure<Self::Transform>,
    ) {
    }

    /// A letter from another shard, or from this one, or from any [`Post`].
    fn on_letter(&mut self, _core: &mut Core<D, Self::Letter, Self::Transform>, _letter: Self::Letter) {}

    /// A bounded step of whatever spans turns.
    fn run_jobs(&mut self, _core: &mut Core<D, Self::Letter, Self::Transform>) -> MoreWork {
        MoreWork::No
    }

    /// Whether it takes letters now. If not they stay in the mailbox, which fills and slows their senders down; it must
    /// then have jobs, so that the shard does not sleep.
    fn takes_letters(&self) -> bool {
        true
    }

    /// The monotonic millisecond at which [`Handler::run_jobs`] is to be called even if nothing happens.
    fn next_job_ms(&self) -> Option<u64> {
        None
    }

    /// All of this turn has happened but the sending.
    fn on_turn_end(&mut self, _core: &mut Core<D, Self::Letter, Self::Transform>) {}

    /// Whether there is something for [`Handler::tell_others`] to tell.
    fn has_to_tell(&self) -> bool {
        false
    }

    /// Tells other threads what this turn came to. Its sends are with the kernel by then: whoever is woken by this may
    /// take the CPU, and they do not wait for it. [`MoreWork::Yes`]: some of it could not be told yet.
    fn tell_others(&mut self) -> MoreWork {
        MoreWork::No
    }
}

/// One shard's loop: a handler and everything it works with.
#[derive(Debug)]
pub struct Engine<D: Driver, H: Handler<D>> {
    /// Connections, mail, timers, blocks.
    pub core: Core<D, H::Letter, H::Transform>,
    /// What they serve.
    pub handler: H,
    completions: Vec<Completion>,
    wait: Wait,
}

/// Everything but the handler, who gets it in every call.
#[derive(Debug)]
pub struct Core<D, L, T = Plain> {
    driver: D,
    settings: Settings,
    now: Now,
    table: Slab<Connection>,
    wheel: Wheel,
    pool: BlockPool,
    /// Bytes of the pool that data leaves alone; control frames leave half of them to receives.
    pool_reserve: usize,
    helds: Slab<Held>,
    /// Of the connections that have one.
    transforms: Slab<T>,
    outboxes: Slab<Outbox>,
    segments: Slab<Queued>,
    /// Payloads that segments share.
    payloads: Payloads,
    /// The outbox to look at next when memory is short.
    shed_next: u32,
    listeners: Vec<Listener>,
    guests: usize,
    /// Connections to read from, or to offer held bytes of.
    ready: VecDeque<ConnectionId>,
    /// Those of them for which there was no block.
    starved: VecDeque<ConnectionId>,
    /// Those whose transforms have something costly to do, for which the turn had no time.
    costly: VecDeque<ConnectionId>,
    /// How many more of it this turn does.
    costly_left: usize,
    receives_in_flight: usize,
    /// Connections with output and no send in flight.
    dirty: VecDeque<ConnectionId>,
    /// Connections that are to be told of their end, joined, closed, or let depart.
    ending: VecDeque<ConnectionId>,
    mailbox: Mailbox<L>,
    mailer: Mailer<L>,
    totals: Totals,
}

/// What has happened since the start. Each way of dropping something has its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Turns.
    pub turns: u64,
    /// Connections accepted.
    pub accepted: u64,
    /// Sockets that came and were closed because the handler does not admit them.
    pub turned_away: u64,
    /// Connections closed because memory was short.
    pub shed: u64,
    /// Times accepting paused for want of room.
    pub accept_pauses: u64,
    /// Connections opened by us.
    pub connected: u64,
    /// Connections adopted.
    pub adopted: u64,
    /// Connections departed.
    pub departed: u64,
    /// Connections freed, departed ones not counted.
    pub closed: u64,
    /// Completions whose connection was gone.
    pub stale_completions: u64,
    /// Receives that brought bytes.
    pub receives: u64,
    /// Bytes received.
    pub bytes_received: u64,
    /// Times a receive waited for a block.
    pub starved: u64,
    /// Times something costly was left to another turn.
    pub costly_waits: u64,
    /// Sends that took bytes.
    pub sends: u64,
    /// Bytes sent.
    pub bytes_sent: u64,
    /// Writes into outboxes.
    pub writes: u64,
    /// Data refused because an outbox, or the pool, was full.
    pub refused: u64,
    /// Bytes dropped in outboxes of connections that ended.
    pub bytes_dropped: u64,
    /// Letters taken.
    pub letters: u64,
    /// Turns by how long they took: at most as many milliseconds as [`TURN_MS`] says at the same place, the last longer.
    pub turns_by_ms: [u64; TURN_MS.len() + 1],
    /// All of them together, in milliseconds.
    pub turns_ms: u64,
}

/// Bounds of the classes of turns.
pub const TURN_MS: [u64; 7] = [0, 1, 2, 5, 10, 50, 200];

/// What there is at a moment; all but listeners are 0 when everything is at rest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Entries of the table.
    pub connections: usize,
    /// Those of them that are guests.
    pub guests: usize,
    /// The driver's slots.
    pub slots: usize,
    /// Blocks out of the pool.
    pub blocks: usize,
    /// Connections with unconsumed bytes.
    pub helds: usize,
    /// Connections with a transform.
    pub transforms: usize,
    /// Connections with output.
    pub outboxes: usize,
    /// Segments queued in them.
    pub segments: usize,
    /// Bytes on their way in or out.
    pub memory: usize,
    /// Deadlines.
    pub timers: usize,
    /// Letters not yet posted.
    pub mail_waiting: usize,
    /// Listeners.
    pub listeners: usize,
    /// Accepted sockets that wait for room.
    pub lobby: usize,
}

impl<D: Driver, L, T: Transform> Core<D, L, T> {
    /// What the clock said at the start of the turn.
    #[inline]
    pub fn now(&self) -> Now {
        self.now
    }

    /// The shard's number.
    pub fn shard(&self) -> ShardId {
        self.mailbox.shard()
    }

    /// What it was told.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The driver, to ask its name or what only it knows. Its connections belong to the engine.
    pub fn driver(&self) -> &D {
        &self.driver
    }

    /// Guests there may be besides those there are.
    pub fn guest_room(&self) -> usize {
        let connections = self.table.max() as usize - self.table.len();
        self.settings.guests_max.saturating_sub(self.guests).min(connections)
    }

    /// The handler's number for a connection; none when the id is stale.
    #[inline]
    pub fn tag(&self, id: ConnectionId) -> Option<u32> {
        self.table.get(key(id)).map(|c| c.tag)
    }

    /// Sets the handler's number for a connection.
    pub fn set_tag(&mut self, id: ConnectionId, tag: u32) {
        if let Some(connection) = self.table.get_mut(key(id)) {
            connection.tag = tag;
        }
    }

    /// From here on the connection's bytes are its transform's: those received and not yet used, and those to come.
    /// What was written before leaves as it is. A connection gets one once.
    pub fn set_transform(&mut self, id: ConnectionId, transform: T) {
        let Some(connection) = self.table.get_mut(key(id)).filter(|c| c.state == State::Open) else { return };
        assert!(connection.transform == NONE, "a connection gets a transform once");
        let index = self.transforms.insert(transform).expect("there is one for each connection").index;
        connection.transform = index;
        if connection.outbox != NONE {
            let outbox = connection.outbox;
            self.outboxes.at_mut(outbox).transformed_by(index);
        }
    }

    /// Puts a layer upon the connection's transform, from within [`Handler::on_bytes`]: what that leaves unused is turned
    /// again, and what was written before leaves as it would have.
    pub fn change_transform(&mut self, id: ConnectionId, change: impl FnOnce(&mut T)) {
        let Some(connection) = self.table.get_mut(key(id)).filter(|c| c.state == State::Open) else { return };
        assert!(connection.transform != NONE && connection.held == NONE, "what is held would be turned twice");
        let (transform, outbox) = (connection.transform, connection.outbox);
        if outbox != NONE && self.segments.is_full() {
            return self.terminate(id, CloseCause::OutOfBlocks);
        }
        connection.set(flag::CHANGED);
        if outbox != NONE {
            // Its head is what it was until now.
            self.queue_filling(outbox, 0);
        }
        change(self.transforms.at_mut(transform));
    }

    /// Its transform, to ask it something; see [`Core::change_transform`].
    pub fn transform(&mut self, id: ConnectionId) -> Option<&mut T> {
        let transform = self.table.get(key(id)).map_or(NONE, |c| c.transform);
        (transform != NONE).then(|| self.transforms.at_mut(transform))
    }

    /// Whether it has one.
    pub fn has_transform(&self, id: ConnectionId) -> bool {
        self.table.get(key(id)).is_some_and(|c| c.transform != NONE)
    }

    /// The peer's address.
    pub fn peer(&self, id: ConnectionId) -> Option<SocketAddr> {
        self.table.get(key(id)).map(Connection::peer)
    }

    /// The peer is another than the socket's other end: somebody has passed it on.
    pub fn set_peer(&mut self, id: ConnectionId, peer: SocketAddr) {
        if let Some(connection) = self.table.get_mut(key(id)) {
            connection.set_peer(peer);
        }
    }

    /// Whether it can still be written to.
    pub fn is_open(&self, id: ConnectionId) -> bool {
        self.table.get(key(id)).is_some_and(|c| c.state == State::Open)
    }

    /// Sets or moves a connection's deadline, in monotonic milliseconds. A heartbeat's way of moving it later is one
    /// write.
    #[inline]
    pub fn set_deadline(&mut self, id: ConnectionId, at_ms: u64) {
        // A closing connection's deadline is the engine's own.
        if self.table.get(key(id)).is_some_and(|c| !matches!(c.state, State::Flushing | State::Terminated)) {
            self.wheel.set(id.index, at_ms);
        }
    }

    /// Forgets it.
    pub fn clear_deadline(&mut self, id: ConnectionId) {
        if self.table.get(key(id)).is_some_and(|c| !matches!(c.state, State::Flushing | State::Terminated)) {
            self.wheel.clear(id.index);
        }
    }

    /// Mails data to a shard at the end of the turn; the letter comes back when its backlog is full.
    pub fn send(&mut self, to: ShardId, letter: L) -> Result<(), Undelivered<L>> {
        self.mailer.send(to, letter)
    }

    /// Mails what must not be lost; see [`Mailer::send_control`].
    pub fn send_control(&mut self, to: ShardId, letter: L) {
        self.mailer.send_control(to, letter);
    }

    /// The number of the last letter written to a shard; see [`Mailer::written`].
    pub fn written(&self, to: ShardId) -> u64 {
        self.mailer.written(to)
    }

    /// Whether a letter lies in its mailbox; see [`Mailer::is_posted`].
    pub fn is_posted(&self, to: ShardId, letter: u64) -> bool {
        self.mailer.is_posted(to, letter)
    }

    /// Whether a shard does not keep up with its mail: stop reading what feeds it.
    pub fn congested(&self, to: ShardId) -> bool {
        self.mailer.congested(to)
    }

    /// Shards there are, this one included.
    pub fn shards(&self) -> usize {
        self.mailer.shards()
    }

    /// The address of this shard's mailbox.
    pub fn post(&self) -> Post<L> {
        self.mailbox.post()
    }

    /// What has happened since the start.
    pub fn totals(&self) -> &Totals {
        &self.totals
    }

    /// What there is now.
    pub fn counts(&self) -> Counts {
        Counts {
            connections: self.table.len(),
            guests: self.guests,
            slots: self.driver.slots_open(),
            blocks: self.pool.out(),
            helds: self.helds.len(),
            transforms: self.transforms.len(),
            outboxes: self.outboxes.len(),
            segments: self.segments.len(),
            memory: self.memory_used(),
            timers: self.wheel.len(),
            mail_waiting: self.mailer.waiting(),
            listeners: self.listeners.iter().filter(|listener| listener.is_open()).count(),
            lobby: self.listeners.iter().map(Listener::waiting).sum(),
        }
    }
}
